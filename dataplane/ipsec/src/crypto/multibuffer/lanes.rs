//! Chains of CBC side by side: which packet goes through which lane of a kernel, and when.
//!
//! Within a packet each block waits for the one in front of it, so a kernel takes one block of many
//! packets at once. Whenever a lane comes to an end, the kernel returns, and the lane is given
//! the next packet. What a kernel needs of what was before is the last block, which lies in front
//! of the next one's place, be it ciphertext or the IV.
//!
//! Text is encrypted where it stands: a copy of the payload costs less than lanes that end twice,
//! once where the payload and once where the trailer ends.

use core::ops::Range;

use arrayvec::ArrayVec;

use super::block::{BLOCK, LongestFirst};
use super::form::Form;
use super::material::RoundKeys;
use crate::limits::BATCH;

/// A packet to encrypt.
pub(in super::super) struct Chain<'p, const KEYS: usize> {
    form: Form,
    keys: &'p RoundKeys<KEYS>,
    /// The IV and whole blocks of text.
    packet: &'p mut [u8],
}

impl<'p, const KEYS: usize> Chain<'p, KEYS> {
    /// Brings the payload to its place, behind the IV.
    #[inline]
    pub(super) fn new(
        form: Form,
        keys: &'p RoundKeys<KEYS>,
        payload: &[u8],
        packet: &'p mut [u8],
    ) -> Option<Self> {
        let text = packet.get_mut(BLOCK..)?;
        if !text.len().is_multiple_of(BLOCK) {
            return None;
        }
        text.get_mut(..payload.len())?.copy_from_slice(payload);
        Some(Self { form, keys, packet })
    }

    pub(super) const fn form(&self) -> Form {
        self.form
    }

    pub(super) const fn blocks(&self) -> usize {
        self.packet.len() / BLOCK - 1
    }

    pub(super) const fn keys(&self) -> &'p RoundKeys<KEYS> {
        self.keys
    }
}

/// Blocks of one packet, to go through one lane.
#[derive(Clone, Copy)]
struct Run<'k, const KEYS: usize> {
    keys: &'k RoundKeys<KEYS>,
    /// Where they stand, with leave to read the block in front.
    text: *mut u8,
    blocks: usize,
}

/// A kernel with `N` lanes.
pub(super) trait Kernel<'k, const KEYS: usize, const N: usize> {
    /// From now on that lane's blocks go through these keys.
    fn set_keys(&mut self, lane: usize, keys: &'k RoundKeys<KEYS>);

    /// Encrypts a block of every lane in each of `steps`; its first one stands at the lane's place
    /// behind as many blocks as there were steps.
    ///
    /// # Safety
    /// The CPU has what the kernel takes, and every lane was given its keys. In these steps every
    /// lane's block can be read and written, and so can the one in front of the first be read. Two
    /// lanes have the same keys and place, or other places altogether.
    unsafe fn run(&mut self, places: &[*mut u8; N], steps: Range<usize>);
}

/// What every lane does.
struct Lanes<'k, const KEYS: usize, const N: usize> {
    keys: [&'k RoundKeys<KEYS>; N],
    /// Where its block of step 0 would have stood.
    places: [*mut u8; N],
    /// The step before which it ends; of a lane without a run of its own there is none.
    end: [usize; N],
}

/// The end of a lane that does what another one does.
const NEVER: usize = usize::MAX;

/// The numbers of the bits that are set.
#[inline(always)]
fn numbers(mut bits: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let number = (bits != 0).then_some(bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        number
    })
}

impl<'k, const KEYS: usize, const N: usize> Lanes<'k, KEYS, N> {
    const fn new(keys: &'k RoundKeys<KEYS>) -> Self {
        Self {
            keys: [keys; N],
            places: [core::ptr::null_mut(); N],
            end: [0; N],
        }
    }

    /// Gives the lanes that end before `step` something else; the step before which the next lane
    /// ends, [`NEVER`] when all have ended.
    #[inline(always)]
    fn fill<'r>(
        &mut self,
        step: usize,
        kernel: &mut impl Kernel<'k, KEYS, N>,
        waiting: &mut impl Iterator<Item = &'r Run<'k, KEYS>>,
    ) -> usize
    where
        'k: 'r,
    {
        // In one go, and nothing is read back of what is written below: a CPU cannot read many ends
        // at once as long as one of them is on its way to memory.
        let (mut ended, mut next) = (0, NEVER);
        for (lane, end) in self.end.iter().enumerate() {
            ended |= u32::from(*end == step) << lane;
            next = next.min(if *end == step { NEVER } else { *end });
        }
        let mut idle = 0;
        for lane in numbers(ended) {
            let Some(run) = waiting.next() else {
                self.end[lane] = NEVER;
                idle |= 1 << lane;
                continue;
            };
            let end = step + run.blocks;
            kernel.set_keys(lane, run.keys);
            self.keys[lane] = run.keys;
            self.places[lane] = run.text.wrapping_sub(step * BLOCK);
            self.end[lane] = end;
            next = next.min(end);
        }
        if idle != 0 {
            self.repeat(idle, kernel);
        }
        next
    }

    /// Has these lanes do what the last one to end does: nothing else will wait any more.
    #[cold]
    fn repeat(&mut self, idle: u32, kernel: &mut impl Kernel<'k, KEYS, N>) {
        let own = (0..N).filter(|lane| self.end[*lane] != NEVER);
        let Some(last) = own.max_by_key(|lane| self.end[*lane]) else {
            return;
        };
        for lane in numbers(idle) {
            kernel.set_keys(lane, self.keys[last]);
            self.places[lane] = self.places[last];
        }
    }
}

/// Encrypts every chain by the kernel that `kernel` makes of the first one's keys.
///
/// # Safety
/// The CPU has what the kernel takes.
#[inline(always)]
pub(super) unsafe fn encrypt<'k, K, const KEYS: usize, const N: usize>(
    kernel: impl Fn(&'k RoundKeys<KEYS>) -> K,
    chains: &mut [Chain<'k, KEYS>],
) where
    K: Kernel<'k, KEYS, N>,
{
    for chains in chains.chunks_mut(BATCH) {
        let runs = chains.iter_mut().map(|chain| Run {
            keys: chain.keys,
            blocks: chain.blocks(),
            text: chain.packet.as_mut_ptr().wrapping_add(BLOCK),
        });
        let runs = runs.filter(|run| run.blocks > 0);
        let runs: ArrayVec<Run<'_, KEYS>, BATCH> = runs.collect();
        if let Some(first) = runs.first() {
            // SAFETY: the caller found the CPU fit. A run's blocks are those of a text with a block
            // in front of them, of chains that are borrowed until behind this. Texts of two chains
            // are two exclusive borrows.
            unsafe { through(&mut kernel(first.keys), &runs, first.keys) };
        }
    }
}

/// Takes all runs through a kernel.
///
/// # Safety
/// The CPU has what the kernel takes. A run's blocks can be read and written, and the one in front
/// of them read. No two runs have a block in common.
#[inline(always)]
unsafe fn through<'k, const KEYS: usize, const N: usize>(
    kernel: &mut impl Kernel<'k, KEYS, N>,
    runs: &[Run<'k, KEYS>],
    first: &'k RoundKeys<KEYS>,
) {
    let order = LongestFirst::of(runs.iter().map(|run| run.blocks));
    let mut waiting = order.places().map(|place| &runs[place]);
    let mut lanes = Lanes::new(first);
    let mut step = 0;
    loop {
        let next = lanes.fill(step, kernel, &mut waiting);
        if next == NEVER {
            return;
        }
        // SAFETY: as the caller has it; and no lane's run ends before `next`, nor does that which a
        // lane without one repeats.
        unsafe { kernel.run(&lanes.places, step..next) };
        step = next;
    }
}
