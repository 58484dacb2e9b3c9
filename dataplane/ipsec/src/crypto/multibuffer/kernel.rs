//! AES-GCM, AES-CTR and GMAC of one packet, in any width of registers.
//!
//! The block that hides the tag, the text's blocks and the padding of the last one fill registers
//! one after the other: the hiding block's place in the hash is that of the associated data, so
//! that AES and GHASH see the same lanes. Registers go in groups; the last group, which has what
//! is left, is a short packet's only one. Each lane of a register sums up its own blocks until the
//! end, so that a group costs one reduction and no exchange between lanes. Nothing in a group but
//! the hash waits for the group before, and nothing in a packet for the packet before: the CPU
//! overlaps them.
//!
//! A [`Mode`] leaves out what its algorithm does without: AES-CTR the hash, GMAC the cipher. To
//! AES-CTR the first lane is one that nobody asks for.

use core::arch::x86_64::{__m128i, _mm_set_epi64x};

use super::block::{BLOCK, load};
use super::field::Sum;
use super::material::{Powers, ROUND_KEYS, RoundKeys};
use super::mode::Mode;
use super::registers::{Cpu, Lanes};
use super::text::Text;

/// What a packet brings besides its text.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// The counter block with the counter at zero.
    pub nonce: __m128i,
    /// The associated data, bytes reversed, zeros behind.
    pub data: __m128i,
    /// Bytes of it.
    pub data_length: usize,
}

/// What a kernel takes of a key.
#[derive(Clone, Copy)]
pub(super) struct Expanded<'a> {
    pub round_keys: &'a RoundKeys<ROUND_KEYS>,
    pub powers: &'a Powers,
}

/// What a kernel works with on one packet.
struct Work<'a, V> {
    cpu: Cpu<V>,
    key: Expanded<'a>,
    head: &'a Head,
    text: Text,
    /// The counter block with the counter at zero, after the first round key.
    nonce: V,
}

/// How far a packet is.
#[derive(Clone, Copy)]
struct Progress<V> {
    /// Blocks that are done, the hiding one included.
    blocks: usize,
    /// The hash so far, a sum in each lane that wants to be added to the next register.
    sum: V,
    /// What hides the tag.
    hiding: __m128i,
}

/// Does to a text what the mode says, in groups of `GROUP` registers; answers its tag, which
/// nothing hides without [`Mode::ENCIPHERS`]; the hash without [`Mode::ENDS`]; or what means
/// nothing if nothing is hashed.
///
/// # Safety
/// The promises of `text` hold, but for those of the destination if the mode does not write, and
/// nothing of it was written yet.
#[inline(always)]
pub(super) unsafe fn crypt<V, M, const ROUNDS: usize, const GROUP: usize>(
    cpu: Cpu<V>,
    key: Expanded<'_>,
    head: &Head,
    mut text: Text,
) -> __m128i
where
    V: Lanes,
    M: Mode,
{
    let blocks = 1 + text.length.div_ceil(BLOCK);
    let registers = blocks.div_ceil(V::COUNT);
    if registers <= GROUP + 1 {
        // SAFETY: the caller's promise.
        let work = unsafe { Work::new::<M>(cpu, key, head, text) };
        // SAFETY: the caller's promise, and all of the text is left.
        return unsafe { work.short::<M, ROUNDS>(registers) };
    }
    // As many whole groups as leave two registers or more: one would have fewer lanes with blocks
    // than there are sums.
    let groups = (registers - 2) / GROUP;
    if !M::OPENS && groups * GROUP * V::COUNT * BLOCK > text.payload + BLOCK {
        // Much stands behind a short payload.
        let (source, payload) = (text.source, text.payload);
        // SAFETY: the payload's bytes go where the text goes, and the two buffers are two.
        unsafe { source.copy_to_nonoverlapping(text.destination, payload) };
        (text.source, text.payload) = (text.destination.cast_const(), text.length);
    }
    // SAFETY: the caller's promise.
    let work = unsafe { Work::new::<M>(cpu, key, head, text) };
    // SAFETY: the caller's promise, and the payload reaches the end of all groups.
    let progress = unsafe { work.groups::<M, ROUNDS, GROUP>(groups) };
    // SAFETY: the caller's promise, and so many registers are left.
    unsafe { work.long::<M, ROUNDS>(progress, registers - groups * GROUP) }
}

/// Counter blocks, ready for the second round, in registers.
type Blocks<V, const N: usize> = [V; N];

impl<'a, V: Lanes> Work<'a, V> {
    /// # Safety
    /// The promises of `text` hold, and nothing of it was written yet.
    #[inline(always)]
    unsafe fn new<M: Mode>(cpu: Cpu<V>, key: Expanded<'a>, head: &'a Head, text: Text) -> Self {
        if !M::OPENS {
            // SAFETY: the caller's promise.
            unsafe { V::join(cpu, text) };
        }
        let first_key = V::splat(cpu, load(&key.round_keys[0]));
        Self {
            cpu,
            key,
            head,
            text,
            nonce: V::splat(cpu, head.nonce).xor(first_key),
        }
    }

    /// The `N` registers of counter blocks from `counter` on, through the cipher; `beside` is done
    /// after each round but the last, and told which.
    #[inline(always)]
    fn stream<const ROUNDS: usize, const N: usize>(
        &self,
        counter: usize,
        mut beside: impl FnMut(usize, &mut Blocks<V, N>),
    ) -> Blocks<V, N> {
        let keys = self.key.round_keys;
        let mut blocks = [self.nonce; N];
        let first = self.number(counter).plus(V::numbers(self.cpu));
        for (index, block) in blocks.iter_mut().enumerate() {
            let counter = first.plus(self.number(index * V::COUNT));
            *block = block.xor(counter.reversed(self.cpu));
        }
        for (round, key) in keys[1..ROUNDS].iter().enumerate() {
            let key = V::splat(self.cpu, load(key));
            for block in &mut blocks {
                *block = block.round(key);
            }
            beside(round, &mut blocks);
        }
        let key = V::splat(self.cpu, load(&keys[ROUNDS]));
        for block in &mut blocks {
            *block = block.last_round(key);
        }
        blocks
    }

    /// What the mode's text goes through, from the register on that has so many blocks in front.
    #[inline(always)]
    fn stream_of<M: Mode, const ROUNDS: usize, const N: usize>(
        &self,
        blocks: usize,
        beside: impl FnMut(usize, &mut Blocks<V, N>),
    ) -> Blocks<V, N> {
        if M::ENCIPHERS {
            self.stream::<ROUNDS, N>(blocks + M::FRONT, beside)
        } else {
            [V::zero(self.cpu); N]
        }
    }

    /// A small number in the lowest 32 bits of each lane.
    #[inline(always)]
    fn number(&self, number: usize) -> V {
        // SAFETY: SSE2 is x86-64.
        let block = unsafe { _mm_set_epi64x(0, (number as u64).cast_signed()) };
        V::splat(self.cpu, block)
    }

    /// A block in each lane, each times the same power of the hash key.
    #[inline(always)]
    fn product(&self, block: V, power: usize) -> Sum<V> {
        let index = V::POWERS - power;
        let power = V::splat(self.cpu, load(&self.key.powers[index]));
        let folded = if V::KEEPS_SUMS {
            V::splat(self.cpu, load(&self.key.powers[V::POWERS + index]))
        } else {
            power.xor(power.swapped())
        };
        Sum::of(block, (power, folded))
    }

    /// A block in each lane, each times the next lower power of the hash key.
    #[inline(always)]
    fn products(&self, block: V, highest: usize) -> Sum<V> {
        let index = V::POWERS - highest;
        let power = self.powers(index);
        let folded = if V::KEEPS_SUMS {
            self.powers(V::POWERS + index)
        } else {
            power.xor(power.swapped())
        };
        Sum::of(block, (power, folded))
    }

    #[inline(always)]
    fn powers(&self, index: usize) -> V {
        let powers = &self.key.powers[index..index + V::COUNT];
        // SAFETY: so many blocks follow.
        unsafe { V::load::<false>(self.cpu, powers.as_ptr().cast()) }
    }

    /// The hash over one more group.
    #[inline(always)]
    fn hashed<const GROUP: usize>(&self, sum: V, group: [V; GROUP]) -> V {
        // What waits for the group before comes last.
        let mut total = self.product(group[1], (GROUP - 1) * V::COUNT);
        for (index, block) in group.into_iter().enumerate().skip(2) {
            total = total.plus(self.product(block, (GROUP - index) * V::COUNT));
        }
        let total = total.plus(self.product(group[0].xor(sum), GROUP * V::COUNT));
        total.reduced(self.cpu)
    }

    /// All whole groups.
    ///
    /// # Safety
    /// The promises of the text hold; the payload reaches to the end of the groups.
    #[inline(always)]
    unsafe fn groups<M: Mode, const ROUNDS: usize, const GROUP: usize>(
        &self,
        groups: usize,
    ) -> Progress<V> {
        let mut progress = Progress {
            blocks: 0,
            sum: V::zero(self.cpu),
            hiding: self.head.data,
        };
        // SAFETY: the caller's promise.
        let mut last = unsafe { self.group::<M, ROUNDS, GROUP, true>(&mut progress, |_, _| {}) };
        for _ in 1..groups {
            if V::BESIDE && M::HASHES && M::ENCIPHERS {
                // SAFETY: the caller's promise.
                last = unsafe { self.group_beside::<M, ROUNDS, GROUP>(&mut progress, last) };
                continue;
            }
            if M::HASHES {
                progress.sum = self.hashed(progress.sum, last);
            }
            // SAFETY: the caller's promise.
            last = unsafe { self.group::<M, ROUNDS, GROUP, false>(&mut progress, |_, _| {}) };
        }
        if M::HASHES {
            progress.sum = self.hashed(progress.sum, last);
        }
        progress
    }

    /// One group through the cipher and beside it the hash over the `last` one, a product to a
    /// round: no CPU looks far enough ahead to find the one behind the other.
    ///
    /// # Safety
    /// As [`Self::groups`].
    #[inline(always)]
    unsafe fn group_beside<M: Mode, const ROUNDS: usize, const GROUP: usize>(
        &self,
        progress: &mut Progress<V>,
        mut last: [V; GROUP],
    ) -> [V; GROUP] {
        last[0] = last[0].xor(progress.sum);
        let mut total = Sum::zero(self.cpu);
        let beside = |round: usize, blocks: &mut Blocks<V, GROUP>| {
            if round < GROUP {
                // What waits for the group before comes last.
                let index = (round + 1) % GROUP;
                let product = self.product(last[index], (GROUP - index) * V::COUNT);
                total = total.plus(product);
            }
            V::side_by_side(blocks, total.parts());
        };
        // SAFETY: the caller's promise.
        let next = unsafe { self.group::<M, ROUNDS, GROUP, false>(progress, beside) };
        progress.sum = total.reduced(self.cpu);
        next
    }

    /// One group through the cipher; its cipher text, ready to be hashed.
    ///
    /// # Safety
    /// As [`Self::groups`].
    #[inline(always)]
    unsafe fn group<M: Mode, const ROUNDS: usize, const GROUP: usize, const FIRST: bool>(
        &self,
        progress: &mut Progress<V>,
        beside: impl FnMut(usize, &mut Blocks<V, GROUP>),
    ) -> [V; GROUP] {
        let mut hashed = self.stream_of::<M, ROUNDS, GROUP>(progress.blocks, beside);
        if FIRST {
            progress.hiding = hashed[0].first();
        }
        for (index, hashed) in hashed.iter_mut().enumerate() {
            let place = (progress.blocks + index * V::COUNT) * BLOCK;
            let from = self.text.source.wrapping_add(place).wrapping_sub(BLOCK);
            let to = self
                .text
                .destination
                .wrapping_add(place)
                .wrapping_sub(BLOCK);
            let behind = FIRST && index == 0;
            let read = if behind {
                // SAFETY: the caller's promise; the first lane lies in front of the text.
                unsafe { V::load::<true>(self.cpu, from) }
            } else {
                // SAFETY: the caller's promise.
                unsafe { V::load::<false>(self.cpu, from) }
            };
            let written = read.xor(*hashed);
            if M::WRITES && behind {
                // SAFETY: the caller's promise; the first lane lies in front of the text.
                unsafe { written.store::<true>(to) };
            } else if M::WRITES {
                // SAFETY: the caller's promise.
                unsafe { written.store::<false>(to) };
            }
            let cipher_text = if M::OPENS { read } else { written };
            *hashed = cipher_text.reversed(self.cpu);
        }
        if FIRST {
            hashed[0] = hashed[0].with_first(self.head.data);
        }
        progress.blocks += GROUP * V::COUNT;
        hashed
    }

    /// A packet of so many registers, at most one more than a group has.
    ///
    /// # Safety
    /// The promises of the text hold, and it was joined.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one call for each number of registers"
    )]
    #[inline(always)]
    unsafe fn short<M: Mode, const ROUNDS: usize>(&self, registers: usize) -> __m128i {
        let progress = Progress {
            blocks: 0,
            sum: V::zero(self.cpu),
            hiding: self.head.data,
        };
        // SAFETY: the caller's promise; these are all registers.
        unsafe {
            match registers {
                1 if V::COUNT > 1 => self.end::<M, ROUNDS, 1, true>(progress),
                2 => self.end::<M, ROUNDS, 2, true>(progress),
                3 => self.end::<M, ROUNDS, 3, true>(progress),
                4 => self.end::<M, ROUNDS, 4, true>(progress),
                5 => self.end::<M, ROUNDS, 5, true>(progress),
                6 if V::GROUP > 4 => self.end::<M, ROUNDS, 6, true>(progress),
                7 if V::GROUP > 5 => self.end::<M, ROUNDS, 7, true>(progress),
                _ => self.head.data,
            }
        }
    }

    /// The end of a packet behind its groups, of 2 to one more than `GROUP` registers.
    ///
    /// # Safety
    /// The promises of the text hold, and it was joined.
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one call for each number of registers"
    )]
    #[inline(always)]
    unsafe fn long<M: Mode, const ROUNDS: usize>(
        &self,
        progress: Progress<V>,
        registers: usize,
    ) -> __m128i {
        // SAFETY: the caller's promise; these are all registers that are left.
        unsafe {
            match registers {
                2 => self.end::<M, ROUNDS, 2, false>(progress),
                3 => self.end::<M, ROUNDS, 3, false>(progress),
                4 => self.end::<M, ROUNDS, 4, false>(progress),
                5 => self.end::<M, ROUNDS, 5, false>(progress),
                6 if V::GROUP > 4 => self.end::<M, ROUNDS, 6, false>(progress),
                7 if V::GROUP > 5 => self.end::<M, ROUNDS, 7, false>(progress),
                _ => self.head.data,
            }
        }
    }

    /// The last `N` registers, the first of them the packet's with `FIRST`; the tag.
    ///
    /// # Safety
    /// The promises of the text hold, it was joined, and it ends in the last register.
    #[inline(always)]
    unsafe fn end<M: Mode, const ROUNDS: usize, const N: usize, const FIRST: bool>(
        &self,
        progress: Progress<V>,
    ) -> __m128i {
        let mut hashed = self.stream_of::<M, ROUNDS, N>(progress.blocks, |_, _| {});
        let hiding = if FIRST {
            hashed[0].first()
        } else {
            progress.hiding
        };
        for (index, hashed) in hashed.iter_mut().enumerate() {
            let place = (progress.blocks + index * V::COUNT) * BLOCK;
            #[expect(
                clippy::multiple_unsafe_ops_per_block,
                reason = "one call for each kind of register"
            )]
            // SAFETY: the caller's promise; the first lane lies in front of the text.
            let cipher_text = unsafe {
                match (FIRST && index == 0, index == N - 1) {
                    (true, true) => self.end_of::<M, true, true>(*hashed, place),
                    (true, false) => self.end_of::<M, true, false>(*hashed, place),
                    (false, true) => self.end_of::<M, false, true>(*hashed, place),
                    (false, false) => self.end_of::<M, false, false>(*hashed, place),
                }
            };
            *hashed = cipher_text.reversed(self.cpu);
        }
        if FIRST {
            hashed[0] = hashed[0].with_first(self.head.data);
        }
        if !M::HASHES {
            return hiding;
        }
        // The last text block has the second power if there are lengths, whose power is the first.
        let left = self.text.length.div_ceil(BLOCK) + 1 - progress.blocks;
        let highest = left + usize::from(M::ENDS);
        let mut total = if M::ENDS {
            self.product(self.lengths::<M>(), 1)
        } else {
            Sum::zero(self.cpu)
        };
        // By index: over an iterator that skips, the compiler keeps the registers in memory.
        #[expect(clippy::needless_range_loop, reason = "registers stay registers")]
        for index in 1..N {
            let power = highest - index * V::COUNT;
            total = total.plus(self.products(hashed[index], power));
        }
        // What waits for the group before comes last.
        let total = total.plus(self.products(hashed[0].xor(progress.sum), highest));
        let hash = total.reduced(self.cpu).total();
        if !M::ENDS {
            return hash;
        }
        hash.reversed(self.cpu.narrowest()).xor(hiding)
    }

    /// The register at a place; its cipher text.
    ///
    /// # Safety
    /// As [`Lanes::load_end`].
    #[inline(always)]
    unsafe fn end_of<M: Mode, const FIRST: bool, const LAST: bool>(
        &self,
        stream: V,
        place: usize,
    ) -> V {
        let read = if M::OPENS {
            // SAFETY: the caller's promise; of a packet that is opened, all text is payload.
            unsafe { V::load_end::<FIRST, LAST, true>(self.cpu, self.text, place) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { V::load_end::<FIRST, LAST, false>(self.cpu, self.text, place) }
        };
        let written = read.xor(stream);
        if M::WRITES {
            // SAFETY: the caller's promise.
            unsafe { written.store_end::<FIRST, LAST>(self.text, place) };
        }
        let cipher_text = if M::OPENS { read } else { written };
        if LAST {
            cipher_text.kept(self.text.length + BLOCK - place)
        } else {
            cipher_text
        }
    }

    /// The hash's last block, in the first lane.
    #[inline(always)]
    fn lengths<M: Mode>(&self) -> V {
        let bits = |length: usize| (length as u64 * 8).cast_signed();
        let (data, text) = if M::ENCIPHERS {
            (self.head.data_length, self.text.length)
        } else {
            (self.head.data_length + self.text.length, 0)
        };
        let (data, text) = (bits(data), bits(text));
        // SAFETY: SSE2 is x86-64.
        let block = unsafe { _mm_set_epi64x(data, text) };
        V::only(self.cpu, block)
    }
}
