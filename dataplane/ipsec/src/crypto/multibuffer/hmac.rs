//! HMAC (RFC 2104) over many messages: the hash takes several of them side by side, the last
//! blocks and the outer hash included.
//!
//! A key is what the hash's state has become after the padded key, inner and outer: that is all a
//! packet needs of it.

use core::arch::x86_64::{__m128i, _mm_or_si128};
use core::array::from_fn;
use core::marker::PhantomData;

use arrayvec::ArrayVec;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::mac::Pieces;
use super::block::{BLOCK as REGISTER, LongestFirst, load, store};
use crate::limits::BATCH;

/// Bytes of the longest digest.
pub(super) const DIGEST: usize = 32;

/// A block of either hash, as registers take it.
pub(in super::super) type Block = [[u8; REGISTER]; 4];

/// Bytes of a block.
const BLOCK: usize = size_of::<Block>();

/// Most messages that a kernel takes side by side.
const LANES: usize = 4;

/// A hash between two blocks, in two registers.
#[derive(Clone, Copy, Zeroize)]
pub(in super::super) struct State(pub(super) [[u8; REGISTER]; 2]);

/// One of the hashes that the CPU has instructions for.
pub(in super::super) trait Hash {
    /// Bytes of its digest.
    const LENGTH: usize;
    /// Before the first block.
    const INITIAL: State;

    /// The digest after the last block, zeros behind it.
    ///
    /// # Safety
    /// The CPU has SHA-NI, SSSE3 and SSE4.1.
    unsafe fn digest(state: &State) -> [__m128i; 2];

    /// Takes as many blocks of each message as the first has; the others have as many.
    ///
    /// # Safety
    /// The CPU has SHA-NI, SSSE3 and SSE4.1.
    unsafe fn compress<const N: usize>(states: &mut [State; N], data: [&[Block]; N]);
}

/// That the CPU has SHA-NI, SSSE3 and SSE4.1: [`Sha::found`] makes it, nobody else.
#[derive(Clone, Copy)]
pub(in super::super) struct Sha(());

impl Sha {
    pub(in super::super) fn found() -> Option<Self> {
        let found = is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1");
        found.then_some(Self(()))
    }
}

/// One SA's key. Wiped on drop.
#[derive(ZeroizeOnDrop)]
pub(in super::super) struct HmacKey<H> {
    inner: State,
    outer: State,
    #[zeroize(skip)]
    sha: Sha,
    #[zeroize(skip)]
    hash: PhantomData<H>,
}

/// What is to be authenticated: `data`, and behind it the high half of the number with ESN.
pub(in super::super) struct Message<'a, H> {
    /// Where its MAC belongs.
    pub index: usize,
    pub key: &'a HmacKey<H>,
    pub data: &'a [u8],
    pub high: Option<[u8; 4]>,
}

impl<H: Hash> HmacKey<H> {
    /// For a key of no more than a block, as all of IPsec are; what is beyond is not used. Boxed,
    /// and filled in where it stays, so that no copy is left behind on a stack.
    pub(in super::super) fn new(sha: Sha, key: &[u8]) -> Box<Self> {
        let mut made = Box::new(Self {
            inner: H::INITIAL,
            outer: H::INITIAL,
            sha,
            hash: PhantomData,
        });
        for (pad, outer) in [(0x36, false), (0x5c, true)] {
            let mut block: Block = [[pad; REGISTER]; 4];
            for (byte, key) in block.as_flattened_mut().iter_mut().zip(key) {
                *byte ^= key;
            }
            let state = if outer {
                &mut made.outer
            } else {
                &mut made.inner
            };
            run::<H, 1>(sha, core::slice::from_mut(state), &mut [(0, &[block])], 1);
            block.zeroize();
        }
        made
    }

    /// The MAC over the pieces that `pieces` gives.
    pub(in super::super) fn over(&self, pieces: &mut Pieces<'_>) -> [u8; DIGEST] {
        let mut state = [self.inner];
        // Bytes that wait for their block.
        let mut rest = [0; BLOCK];
        let mut waiting = 0;
        let mut length = 0;
        let mut take = |blocks: &[Block]| absorb::<H>(self.sha, &mut state, &[blocks]);
        pieces(&mut |mut piece| {
            length += piece.len();
            if waiting > 0 {
                let (taken, behind) = piece.split_at(piece.len().min(BLOCK - waiting));
                rest[waiting..waiting + taken.len()].copy_from_slice(taken);
                waiting += taken.len();
                piece = behind;
                if waiting < BLOCK {
                    return;
                }
                take(cut(&rest).0);
            }
            let (blocks, behind) = cut(piece);
            take(blocks);
            rest[..behind.len()].copy_from_slice(behind);
            waiting = behind.len();
        });
        let mut end = End::EMPTY;
        end.fill(&rest[..waiting], None, length);
        take(&end.blocks[..end.count - 1]);
        let [state] = state;
        let mut tag = [[0; DIGEST]];
        // SAFETY: this value exists, so the CPU has what the kernel takes (`Sha::found`).
        unsafe { finish::<H, 1>([state], [end.last()], [&self.outer], tag.each_mut()) };
        tag[0]
    }
}

/// Whole blocks, and what is behind them.
#[inline]
fn cut(bytes: &[u8]) -> (&[Block], &[u8]) {
    let blocks = bytes.as_chunks::<REGISTER>().0.as_chunks().0;
    (blocks, &bytes[blocks.len() * BLOCK..])
}

/// The last bytes of a message with what the hash wants behind them.
struct End {
    blocks: [Block; 2],
    /// One or two.
    count: usize,
}

impl End {
    const EMPTY: Self = Self {
        blocks: [[[0; REGISTER]; 4]; 2],
        count: 1,
    };

    /// `rest`, less than a block, and `high` end a message of `length` bytes without `high`, which
    /// follows the block of the key. To be called once, where the value stays: to move what was
    /// written in pieces just now takes as long as the rest of it.
    #[inline]
    fn fill(&mut self, rest: &[u8], high: Option<[u8; 4]>, mut length: usize) {
        let bytes = self.blocks.as_flattened_mut().as_flattened_mut();
        bytes[..rest.len()].copy_from_slice(rest);
        let mut written = rest.len();
        if let Some(high) = high {
            bytes[written..written + high.len()].copy_from_slice(&high);
            written += high.len();
            length += high.len();
        }
        bytes[written] = 0x80;
        self.count = (written + 1 + size_of::<u64>()).div_ceil(BLOCK);
        let end = self.count * BLOCK;
        let bits = (BLOCK + length) as u64 * 8;
        bytes[end - size_of::<u64>()..end].copy_from_slice(&bits.to_be_bytes());
    }

    fn last(&self) -> &Block {
        &self.blocks[self.count - 1]
    }
}

/// Puts the MAC of each message to its place.
pub(in super::super) fn tags<H: Hash>(
    messages: &ArrayVec<Message<'_, H>, BATCH>,
    tags: &mut [[u8; DIGEST]],
) {
    let Some(sha) = messages.first().map(|message| message.key.sha) else {
        return;
    };
    let mut states: ArrayVec<State, BATCH> = ArrayVec::new();
    let mut whole: ArrayVec<&[Block], BATCH> = ArrayVec::new();
    let mut ends: ArrayVec<End, BATCH> = ArrayVec::new();
    for message in messages {
        let (blocks, rest) = cut(message.data);
        states.push(message.key.inner);
        whole.push(blocks);
        ends.push(End::EMPTY);
        if let Some(end) = ends.last_mut() {
            end.fill(rest, message.high, message.data.len());
        }
    }
    absorb::<H>(sha, &mut states, &whole);
    if ends.iter().any(|end| end.count > 1) {
        let first: ArrayVec<&[Block], BATCH> = ends
            .iter()
            .map(|end| &end.blocks[..end.count - 1])
            .collect();
        absorb::<H>(sha, &mut states, &first);
    }
    let groups = messages.chunks(LANES).zip(states.chunks(LANES));
    for ((messages, states), ends) in groups.zip(ends.chunks(LANES)) {
        // For what is missing the last one's work is done again.
        let pick = |lane: usize| lane.min(messages.len() - 1);
        let mut made = [[0; DIGEST]; LANES];
        let states = from_fn(|lane| states[pick(lane)]);
        let ends = from_fn(|lane| ends[pick(lane)].last());
        let outer = from_fn(|lane| &messages[pick(lane)].key.outer);
        // SAFETY: `sha` exists, so the CPU has what the kernel takes (`Sha::found`).
        unsafe { finish::<H, LANES>(states, ends, outer, made.each_mut()) };
        for (message, tag) in messages.iter().zip(made) {
            tags[message.index] = tag;
        }
    }
}

/// The last block, and the outer hash.
#[target_feature(enable = "sha,ssse3,sse4.1")]
fn finish<H: Hash, const N: usize>(
    mut states: [State; N],
    last: [&Block; N],
    outer: [&State; N],
    tags: [&mut [u8; DIGEST]; N],
) {
    // SAFETY: this function is built with the features that are asked for.
    unsafe { H::compress(&mut states, last.map(core::slice::from_ref)) };
    let mut blocks = [const { behind_digest(H::LENGTH) }; N];
    for ((block, state), outer) in blocks.iter_mut().zip(&mut states).zip(outer) {
        // SAFETY: this function is built with the features that are asked for.
        let [front, back] = unsafe { H::digest(state) };
        store(&mut block[0], front);
        let behind = load(&block[1]);
        store(&mut block[1], _mm_or_si128(back, behind));
        *state = *outer;
    }
    // SAFETY: this function is built with the features that are asked for.
    unsafe { H::compress(&mut states, blocks.each_ref().map(core::slice::from_ref)) };
    for (tag, state) in tags.into_iter().zip(&states) {
        // SAFETY: this function is built with the features that are asked for.
        let digest = unsafe { H::digest(state) };
        for (place, register) in tag.as_chunks_mut().0.iter_mut().zip(digest) {
            store(place, register);
        }
    }
}

/// The outer hash's only block behind the key, but for the digest in front.
const fn behind_digest(length: usize) -> Block {
    let mut block = [[0; REGISTER]; 4];
    block[length / REGISTER][length % REGISTER] = 0x80;
    block[3] = ((BLOCK + length) as u128 * 8).to_be_bytes();
    block
}

/// Takes all blocks of each of `data` into the state at the same place: always as many messages at
/// a time as fill the CPU, as long as there are. At most [`BATCH`] of them.
fn absorb<H: Hash>(sha: Sha, states: &mut [State], data: &[&[Block]]) {
    let order = LongestFirst::of(data.iter().map(|data| data.len()));
    let mut waiting = order.places().filter(|place| !data[*place].is_empty());
    // Where the state is, and the blocks that are left.
    let mut lanes: ArrayVec<(usize, &[Block]), LANES> = ArrayVec::new();
    loop {
        while lanes.len() < LANES
            && let Some(place) = waiting.next()
        {
            lanes.push((place, data[place]));
        }
        let Some(steps) = lanes.iter().map(|(_, data)| data.len()).min() else {
            return;
        };
        match lanes.len() {
            1 => run::<H, 1>(sha, states, &mut lanes, steps),
            2 => run::<H, 2>(sha, states, &mut lanes, steps),
            _ => run::<H, LANES>(sha, states, &mut lanes, steps),
        }
        lanes.retain(|(_, data)| !data.is_empty());
    }
}

/// Takes `steps` blocks of each lane. `N` is at least the number of lanes: for what is missing the
/// last lane's work is done again and thrown away.
fn run<H: Hash, const N: usize>(
    _: Sha,
    states: &mut [State],
    lanes: &mut [(usize, &[Block])],
    steps: usize,
) {
    let last = lanes.len() - 1;
    let mut registers: [State; N] = from_fn(|lane| states[lanes[lane.min(last)].0]);
    let data: [&[Block]; N] = from_fn(|lane| &lanes[lane.min(last)].1[..steps]);
    // SAFETY: the first argument exists, so the CPU has what the kernel takes (`Sha::found`).
    unsafe { H::compress(&mut registers, data) };
    for ((index, data), state) in lanes.iter_mut().zip(registers) {
        states[*index] = state;
        *data = &data[steps..];
    }
}
