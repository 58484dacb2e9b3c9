//! Chains of CBC side by side: which packet goes through which lane of a kernel, and when.
//!
//! Within a packet each block waits for the one in front of it, so a kernel takes one block of many
//! packets at once. Whenever a lane comes to an end, the kernel returns, and the lane is given
//! something else. What it needs of what was before is the last block, which lies in front of the
//! next one's place, be it ciphertext or the IV: so a packet may go on later and in another lane.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::block::{BLOCK, LongestFirst};
use super::form::Form;
use super::material::RoundKeys;
use crate::limits::BATCH;

/// Bytes of a payload up to which it is brought to its place by a copy instead of being read where
/// it lies.
const COPIED: usize = 128;

/// A packet to encrypt.
pub(in super::super) struct Chain<'p, const KEYS: usize> {
    form: Form,
    keys: &'p RoundKeys<KEYS>,
    payload: &'p [u8],
    /// The IV and whole blocks of text, the first bytes of which are the payload's place.
    packet: &'p mut [u8],
}

impl<'p, const KEYS: usize> Chain<'p, KEYS> {
    pub(super) fn new(
        form: Form,
        keys: &'p RoundKeys<KEYS>,
        payload: &'p [u8],
        packet: &'p mut [u8],
    ) -> Option<Self> {
        let text = packet.len().checked_sub(BLOCK)?;
        let fits = text.is_multiple_of(BLOCK) && payload.len() <= text;
        fits.then_some(Self {
            form,
            keys,
            payload,
            packet,
        })
    }

    pub(super) const fn form(&self) -> Form {
        self.form
    }
}

/// Blocks of one packet, to go through one lane.
#[derive(Clone, Copy)]
struct Run<'k, const KEYS: usize> {
    keys: &'k RoundKeys<KEYS>,
    source: *const u8,
    destination: *mut u8,
    blocks: usize,
}

/// The packets of a burst: what can be read in the payload, and then what was brought to its place
/// behind, since it shares a block with the trailer.
struct Runs<'k, const KEYS: usize> {
    there: ArrayVec<Run<'k, KEYS>, BATCH>,
    here: ArrayVec<Run<'k, KEYS>, BATCH>,
}

impl<'p, const KEYS: usize> Runs<'p, KEYS> {
    /// Of at most [`BATCH`] chains.
    fn of(chains: &mut [Chain<'p, KEYS>]) -> Self {
        let mut runs = Self {
            there: ArrayVec::new(),
            here: ArrayVec::new(),
        };
        for Chain {
            keys,
            payload,
            packet,
            ..
        } in chains
        {
            let there = if payload.len() <= COPIED {
                0
            } else {
                payload.len() / BLOCK
            };
            let here = packet.len() / BLOCK - 1 - there;
            let rest = there * BLOCK..payload.len();
            packet[BLOCK..][rest.clone()].copy_from_slice(&payload[rest]);
            // Behind the IV, with leave to read it.
            let destination = packet.as_mut_ptr().wrapping_add(BLOCK);
            if there > 0 {
                runs.there.push(Run {
                    keys,
                    source: payload.as_ptr(),
                    destination,
                    blocks: there,
                });
            }
            if here > 0 {
                let destination = destination.wrapping_add(there * BLOCK);
                runs.here.push(Run {
                    keys,
                    source: destination,
                    destination,
                    blocks: here,
                });
            }
        }
        runs
    }
}

/// What every lane does.
pub(super) struct Lanes<'k, const KEYS: usize, const N: usize> {
    pub keys: [&'k RoundKeys<KEYS>; N],
    /// Where it would have read its block of step 0.
    pub source: [*const u8; N],
    /// Where it would have written its block of step 0.
    pub destination: [*mut u8; N],
    /// The step before which it ends; of a lane without a run of its own there is none.
    end: [usize; N],
}

/// The end of a lane that does what another one does.
const NEVER: usize = usize::MAX;

/// A kernel with `N` lanes.
pub(super) trait Kernel<const KEYS: usize, const N: usize> {
    /// Encrypts a block of every lane in each of `steps`.
    ///
    /// # Safety
    /// The CPU has what the kernel takes. In these steps every lane's block can be read at the
    /// source and written at the destination, and so can the one in front of the first be read at
    /// the destination. Two lanes have the same keys, source and destination, or write to different
    /// places.
    unsafe fn run(&mut self, lanes: &Lanes<'_, KEYS, N>, steps: Range<usize>);
}

impl<'k, const KEYS: usize, const N: usize> Lanes<'k, KEYS, N> {
    const fn new(keys: &'k RoundKeys<KEYS>) -> Self {
        Self {
            keys: [keys; N],
            source: [core::ptr::null(); N],
            destination: [core::ptr::null_mut(); N],
            end: [0; N],
        }
    }

    /// Gives the lanes that end before `step` something else; the step before which the next lane
    /// ends, [`NEVER`] when all have ended.
    #[inline]
    fn fill<'r>(
        &mut self,
        step: usize,
        mut waiting: impl Iterator<Item = &'r Run<'k, KEYS>>,
    ) -> usize
    where
        'k: 'r,
    {
        let mut idle = false;
        for lane in 0..N {
            if self.end[lane] != step {
                continue;
            }
            if let Some(run) = waiting.next() {
                self.keys[lane] = run.keys;
                self.source[lane] = run.source.wrapping_sub(step * BLOCK);
                self.destination[lane] = run.destination.wrapping_sub(step * BLOCK);
                self.end[lane] = step + run.blocks;
            } else {
                self.end[lane] = NEVER;
                idle = true;
            }
        }
        if idle {
            self.repeat();
        }
        self.end.iter().fold(NEVER, |least, end| least.min(*end))
    }

    /// Has the lanes without a run of their own do what the last one to end does: nothing else
    /// will wait any more.
    #[cold]
    fn repeat(&mut self) {
        let own = (0..N).filter(|lane| self.end[*lane] != NEVER);
        let Some(last) = own.max_by_key(|lane| self.end[*lane]) else {
            return;
        };
        for lane in (0..N).filter(|lane| self.end[*lane] == NEVER) {
            self.keys[lane] = self.keys[last];
            self.source[lane] = self.source[last];
            self.destination[lane] = self.destination[last];
        }
    }
}

/// Encrypts every chain.
///
/// # Safety
/// The CPU has what the kernel takes.
pub(super) unsafe fn encrypt<const KEYS: usize, const N: usize>(
    kernel: &mut impl Kernel<KEYS, N>,
    chains: &mut [Chain<'_, KEYS>],
) {
    for chains in chains.chunks_mut(BATCH) {
        let runs = Runs::of(chains);
        for runs in [&runs.there, &runs.here] {
            // SAFETY: the caller found the CPU fit. A run's blocks are a payload's, and those of a
            // text with a block in front of them, of chains that are borrowed until behind this.
            // Texts of two chains are two exclusive borrows.
            unsafe { through(kernel, runs) };
        }
    }
}

/// Takes all runs through a kernel.
///
/// # Safety
/// The CPU has what the kernel takes. A run's blocks can be read and written, and the one in front
/// of its destination read. No two runs write to the same place.
unsafe fn through<const KEYS: usize, const N: usize>(
    kernel: &mut impl Kernel<KEYS, N>,
    runs: &[Run<'_, KEYS>],
) {
    let Some(first) = runs.first() else {
        return;
    };
    let order = LongestFirst::of(runs.iter().map(|run| run.blocks));
    let mut waiting = order.places().map(|place| &runs[place]);
    let mut lanes = Lanes::new(first.keys);
    let mut step = 0;
    loop {
        let next = lanes.fill(step, &mut waiting);
        if next == NEVER {
            return;
        }
        // SAFETY: as the caller has it; and no lane's run ends before `next`, nor does that which a
        // lane without one repeats.
        unsafe { kernel.run(&lanes, step..next) };
        step = next;
    }
}
