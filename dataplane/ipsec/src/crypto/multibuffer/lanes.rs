//! Chains of CBC side by side: which packet goes through which lane of a kernel, and when.
//!
//! Within a packet each block waits for the one in front of it, so a kernel takes one block of many
//! packets at once. Whenever a packet is through, the kernel returns, and the next one takes its
//! lane.

use arrayvec::ArrayVec;

use super::block::BLOCK;
use super::gcm::Form;
use super::material::RoundKeys;
use crate::limits::BATCH;

/// Bytes of a payload up to which it is copied whole instead of being read where it lies: to change
/// the place of reading within a packet, a kernel must return once more, which costs as much.
const COPIED: usize = 256;

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

/// A packet on its way through a lane.
#[derive(Clone, Copy)]
struct Run<'k, const KEYS: usize> {
    keys: &'k RoundKeys<KEYS>,
    source: *const u8,
    destination: *mut u8,
    /// Blocks to read at the source.
    there: usize,
    /// Blocks to read behind those, where they are to be written.
    here: usize,
}

impl<'p, const KEYS: usize> Run<'p, KEYS> {
    /// Of the payload what shares a block with the trailer is brought to its place.
    #[inline]
    fn of(chain: &mut Chain<'p, KEYS>) -> Self {
        let payload = chain.payload;
        let there = if payload.len() <= COPIED {
            0
        } else {
            payload.len() / BLOCK
        };
        let packet = &mut *chain.packet;
        let rest = there * BLOCK..payload.len();
        packet[BLOCK..][rest.clone()].copy_from_slice(&payload[rest]);
        Self {
            keys: chain.keys,
            source: payload.as_ptr(),
            here: packet.len() / BLOCK - 1 - there,
            // Behind the IV, with leave to read it.
            destination: packet.as_mut_ptr().wrapping_add(BLOCK),
            there,
        }
    }

    const fn blocks(&self) -> usize {
        self.there + self.here
    }
}

/// The next block of each lane.
pub(super) struct Lanes<'k, const KEYS: usize, const N: usize> {
    pub keys: [&'k RoundKeys<KEYS>; N],
    pub source: [*const u8; N],
    pub destination: [*mut u8; N],
    /// Blocks until the packet ends, or is to be read elsewhere.
    left: [usize; N],
    /// Blocks to read elsewhere then.
    here: [usize; N],
}

/// A kernel with `N` lanes.
pub(super) trait Kernel<const KEYS: usize, const N: usize> {
    /// Encrypts `steps` blocks of every lane.
    ///
    /// # Safety
    /// The CPU has what the kernel takes. In every lane so many blocks can be read from the source
    /// on; as many can be written from the destination on, and one in front of it read. Two lanes
    /// write the same blocks with the same keys from the same source, or none in common.
    unsafe fn run(&mut self, lanes: &Lanes<'_, KEYS, N>, steps: usize);
}

impl<'k, const KEYS: usize, const N: usize> Lanes<'k, KEYS, N> {
    fn new(keys: &'k RoundKeys<KEYS>) -> Self {
        Self {
            keys: [keys; N],
            source: [core::ptr::null(); N],
            destination: [core::ptr::null_mut(); N],
            left: [0; N],
            here: [0; N],
        }
    }

    /// Gives every lane something to do: what is behind in its packet, or the next packet, or the
    /// work of another lane once more. How many blocks there are for all; 0 when all is done.
    #[inline]
    fn fill(&mut self, waiting: &mut impl Iterator<Item = Run<'k, KEYS>>) -> usize {
        let mut idle: ArrayVec<usize, N> = ArrayVec::new();
        let (mut steps, mut longest) = (usize::MAX, 0);
        for lane in 0..N {
            while self.left[lane] == 0 {
                if self.here[lane] > 0 {
                    self.left[lane] = core::mem::take(&mut self.here[lane]);
                    self.source[lane] = self.destination[lane];
                } else if let Some(run) = waiting.next() {
                    self.keys[lane] = run.keys;
                    self.source[lane] = run.source;
                    self.destination[lane] = run.destination;
                    self.left[lane] = run.there;
                    self.here[lane] = run.here;
                } else {
                    break;
                }
            }
            if self.left[lane] == 0 {
                idle.push(lane);
            } else {
                steps = steps.min(self.left[lane]);
                if self.left[lane] > self.left[longest] {
                    longest = lane;
                }
            }
        }
        if idle.len() == N {
            return 0;
        }
        for lane in idle {
            self.keys[lane] = self.keys[longest];
            self.source[lane] = self.source[longest];
            self.destination[lane] = self.destination[longest];
        }
        steps
    }

    /// Leaves behind what the kernel encrypted. Lanes that did another's work have no blocks left
    /// and get none.
    #[inline]
    fn advance(&mut self, steps: usize) {
        for lane in 0..N {
            self.left[lane] = self.left[lane].saturating_sub(steps);
            self.source[lane] = self.source[lane].wrapping_add(steps * BLOCK);
            self.destination[lane] = self.destination[lane].wrapping_add(steps * BLOCK);
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
        let mut runs: ArrayVec<Run<'_, KEYS>, BATCH> = chains.iter_mut().map(Run::of).collect();
        // The longest first, so that the lanes end at about the same time.
        if !runs.is_sorted_by(|a, b| a.blocks() >= b.blocks()) {
            runs.sort_unstable_by_key(|run| usize::MAX - run.blocks());
        }
        let Some(first) = runs.first() else {
            return;
        };
        let mut lanes = Lanes::new(first.keys);
        let mut waiting = runs.into_iter();
        loop {
            let steps = lanes.fill(&mut waiting);
            if steps == 0 {
                break;
            }
            // SAFETY: the caller found the CPU fit. A run's blocks are those of a payload and of a
            // text with an IV in front, borrowed from its chain until the end of this loop; no more
            // steps are taken than any lane has blocks left, or than the lane has that another one
            // repeats. Texts of two chains are two exclusive borrows.
            unsafe { kernel.run(&lanes, steps) };
            lanes.advance(steps);
        }
    }
}
