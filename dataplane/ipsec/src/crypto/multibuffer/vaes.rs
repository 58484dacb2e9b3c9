//! AES-GCM with two blocks a register (VAES, VPCLMULQDQ, AVX2).
//!
//! Text goes in strides of eight blocks: four registers through the rounds at once, which fills
//! the time that each round takes, and the hash of the stride before beside them, with one
//! reduction a stride. What is left, 1 to 128 bytes, goes through the rounds together with the
//! block that hides the tag, and through the hash together with associated data and lengths: a
//! short packet is nothing but that.

use core::arch::x86_64::{
    __m128i, __m256i, _mm_xor_si128, _mm256_add_epi32, _mm256_aesenc_epi128,
    _mm256_aesenclast_epi128, _mm256_and_si256, _mm256_blend_epi32, _mm256_broadcastsi128_si256,
    _mm256_castsi256_si128, _mm256_clmulepi64_epi128, _mm256_extracti128_si256,
    _mm256_inserti128_si256, _mm256_set_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_unpackhi_epi64, _mm256_xor_si256, _mm256_zextsi128_si256,
};

use super::block::{BLOCK, Products, load, load_pair, reversal, reversed, store, store_pair};
use super::gcm::{Head, STRIDE, Text};
use super::material::{Material, POWERS};

/// Bytes of a register.
const PAIR: usize = 2 * BLOCK;

/// Registers of a stride.
const REGISTERS: usize = STRIDE / PAIR;

/// Where the powers for a stride begin.
const STRIDE_POWERS: usize = POWERS - STRIDE / BLOCK;

/// Bytes to keep and bytes to clear, for [`kept`].
static MASKS: [u8; 2 * PAIR] = {
    let mut masks = [0; 2 * PAIR];
    let mut index = 0;
    while index < PAIR {
        masks[index] = 0xff;
        index += 1;
    }
    masks
};

/// Encrypts `payload`, and behind it what stands in `text`, into `text`; answers the tag.
#[target_feature(enable = "avx2,aes,vaes,pclmulqdq,vpclmulqdq")]
pub(super) fn seal<const ROUNDS: usize>(
    material: &Material,
    head: &Head,
    payload: &[u8],
    text: Text<'_>,
) -> __m128i {
    let (strides, tail) = text.split();
    let mut counter = next_counter(head);
    let Some((first, others)) = strides.split_first_mut() else {
        let data = _mm256_zextsi128_si256(reversed(load(&head.data)));
        return end::<ROUNDS>(material, head, (counter, data), None, tail);
    };
    let mut sources = payload.as_chunks::<STRIDE>().0.iter();
    encrypt::<ROUNDS>(material, &mut counter, sources.next(), first);
    let mut sum = of_data(material, head);
    let mut last = first;
    for stride in others {
        encrypt::<ROUNDS>(material, &mut counter, sources.next(), stride);
        sum = hashed(material, sum, registers(last));
        last = stride;
    }
    sum = hashed(material, sum, registers(last));
    let sum = _mm256_inserti128_si256::<1>(_mm256_setzero_si256(), sum);
    end::<ROUNDS>(material, head, (counter, sum), None, tail)
}

/// Decrypts `source` into `text`, which is at least as long, and answers the tag that belongs to
/// it.
#[target_feature(enable = "avx2,aes,vaes,pclmulqdq,vpclmulqdq")]
pub(super) fn open<const ROUNDS: usize>(
    material: &Material,
    head: &Head,
    source: &[u8],
    text: Text<'_>,
) -> __m128i {
    let (strides, tail) = text.split();
    let mut counter = next_counter(head);
    let (sources, rest) = source.split_at(strides.len() * STRIDE);
    if strides.is_empty() {
        let data = _mm256_zextsi128_si256(reversed(load(&head.data)));
        return end::<ROUNDS>(material, head, (counter, data), Some(rest), tail);
    }
    let mut sum = of_data(material, head);
    for (source, stride) in sources.as_chunks::<STRIDE>().0.iter().zip(strides) {
        sum = hashed(material, sum, registers(source));
        encrypt::<ROUNDS>(material, &mut counter, Some(source), stride);
    }
    let sum = _mm256_inserti128_si256::<1>(_mm256_setzero_si256(), sum);
    end::<ROUNDS>(material, head, (counter, sum), Some(rest), tail)
}

/// The counter block behind the one that hides the tag, in both halves, bytes reversed.
#[inline]
#[target_feature(enable = "avx2")]
fn next_counter(head: &Head) -> __m256i {
    let first = _mm256_broadcastsi128_si256(reversed(load(&head.counter)));
    _mm256_add_epi32(first, _mm256_set_epi32(0, 0, 0, 1, 0, 0, 0, 1))
}

/// The hash after the associated data.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
fn of_data(material: &Material, head: &Head) -> __m128i {
    let data = reversed(load(&head.data));
    let power = load(&material.powers[POWERS - 1]);
    Products::of(data, power, load(&material.folded[POWERS - 1])).reduced()
}

#[inline]
#[target_feature(enable = "avx2")]
fn registers(stride: &[u8; STRIDE]) -> [__m256i; REGISTERS] {
    let (pairs, _) = stride.as_chunks::<PAIR>();
    [
        load_pair(&pairs[0]),
        load_pair(&pairs[1]),
        load_pair(&pairs[2]),
        load_pair(&pairs[3]),
    ]
}

/// One stride through the cipher, from `source`, or in place.
#[inline]
#[target_feature(enable = "avx2,aes,vaes")]
fn encrypt<const ROUNDS: usize>(
    material: &Material,
    counter: &mut __m256i,
    source: Option<&[u8; STRIDE]>,
    stride: &mut [u8; STRIDE],
) {
    let text = registers(source.unwrap_or(stride));
    let mut blocks = [*counter; REGISTERS];
    let mut offset = _mm256_set_epi32(0, 0, 0, 1, 0, 0, 0, 0);
    for block in &mut blocks {
        *block = _mm256_add_epi32(*block, offset);
        offset = _mm256_add_epi32(offset, _mm256_set_epi32(0, 0, 0, 2, 0, 0, 0, 2));
    }
    *counter = _mm256_add_epi32(*counter, _mm256_set_epi32(0, 0, 0, 8, 0, 0, 0, 8));
    let stream = stream::<ROUNDS, REGISTERS>(material, blocks);
    let (pairs, _) = stride.as_chunks_mut::<PAIR>();
    for ((pair, text), stream) in pairs.iter_mut().zip(text).zip(stream) {
        store_pair(pair, _mm256_xor_si256(text, stream));
    }
}

/// Counter blocks, bytes reversed, through the cipher.
#[inline]
#[target_feature(enable = "avx2,aes,vaes")]
fn stream<const ROUNDS: usize, const N: usize>(
    material: &Material,
    mut blocks: [__m256i; N],
) -> [__m256i; N] {
    let keys = &material.round_keys;
    let order = _mm256_broadcastsi128_si256(reversal());
    let key = _mm256_broadcastsi128_si256(load(&keys[0]));
    for block in &mut blocks {
        *block = _mm256_xor_si256(_mm256_shuffle_epi8(*block, order), key);
    }
    for key in &keys[1..ROUNDS] {
        let key = _mm256_broadcastsi128_si256(load(key));
        for block in &mut blocks {
            *block = _mm256_aesenc_epi128(*block, key);
        }
    }
    let key = _mm256_broadcastsi128_si256(load(&keys[ROUNDS]));
    for block in &mut blocks {
        *block = _mm256_aesenclast_epi128(*block, key);
    }
    blocks
}

/// Sums of products before their reduction, of the blocks in the lower and the upper halves.
#[derive(Clone, Copy)]
struct Pairs {
    low: __m256i,
    cross: __m256i,
    high: __m256i,
}

impl Pairs {
    /// Text blocks, each times a power of its own, from `first` on.
    #[inline]
    #[target_feature(enable = "avx2,pclmulqdq,vpclmulqdq")]
    fn of<const N: usize>(material: &Material, blocks: [__m256i; N], first: usize) -> Self {
        let zero = _mm256_setzero_si256();
        let mut sum = Self {
            low: zero,
            cross: zero,
            high: zero,
        };
        let powers = material.powers[first..].as_flattened();
        let folded = material.folded[first..].as_flattened();
        let powers = powers.as_chunks::<PAIR>().0.iter();
        let folded = folded.as_chunks::<PAIR>().0.iter();
        for (block, (power, folded)) in blocks.into_iter().zip(powers.zip(folded)) {
            let halves = _mm256_xor_si256(block, _mm256_unpackhi_epi64(block, block));
            let (power, folded) = (load_pair(power), load_pair(folded));
            let low = _mm256_clmulepi64_epi128::<0x00>(block, power);
            let cross = _mm256_clmulepi64_epi128::<0x00>(halves, folded);
            let high = _mm256_clmulepi64_epi128::<0x11>(block, power);
            sum.low = _mm256_xor_si256(sum.low, low);
            sum.cross = _mm256_xor_si256(sum.cross, cross);
            sum.high = _mm256_xor_si256(sum.high, high);
        }
        sum
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn total(self) -> Products {
        Products {
            low: both(self.low),
            cross: both(self.cross),
            high: both(self.high),
        }
    }
}

/// The sum of the lower and the upper block.
#[inline]
#[target_feature(enable = "avx2")]
fn both(pair: __m256i) -> __m128i {
    let upper = _mm256_extracti128_si256::<1>(pair);
    _mm_xor_si128(_mm256_castsi256_si128(pair), upper)
}

/// The hash `sum`, continued over one stride of ciphertext.
#[inline]
#[target_feature(enable = "avx2,pclmulqdq,vpclmulqdq")]
fn hashed(material: &Material, sum: __m128i, mut text: [__m256i; REGISTERS]) -> __m128i {
    let order = _mm256_broadcastsi128_si256(reversal());
    for block in &mut text {
        *block = _mm256_shuffle_epi8(*block, order);
    }
    text[0] = _mm256_xor_si256(text[0], _mm256_zextsi128_si256(sum));
    Pairs::of(material, text, STRIDE_POWERS).total().reduced()
}

/// The last 1 to 128 bytes of the text, decrypted from `source` or encrypted in place, and the tag.
/// `start` is the next counter, and what the hash starts with: the associated data in the lower
/// half, or the hash so far in the upper one, bytes reversed.
#[inline]
#[target_feature(enable = "avx2,aes,vaes,pclmulqdq,vpclmulqdq")]
fn end<const ROUNDS: usize>(
    material: &Material,
    head: &Head,
    start: (__m256i, __m256i),
    source: Option<&[u8]>,
    text: Text<'_>,
) -> __m128i {
    // One block more than the text has goes through the rounds: what hides the tag.
    match text.blocks() / 2 {
        0 => end_in::<ROUNDS, 1>(material, head, start, source, text),
        1 => end_in::<ROUNDS, 2>(material, head, start, source, text),
        2 => end_in::<ROUNDS, 3>(material, head, start, source, text),
        3 => end_in::<ROUNDS, 4>(material, head, start, source, text),
        _ => end_in::<ROUNDS, 5>(material, head, start, source, text),
    }
}

#[inline]
#[target_feature(enable = "avx2,aes,vaes,pclmulqdq,vpclmulqdq")]
fn end_in<const ROUNDS: usize, const N: usize>(
    material: &Material,
    head: &Head,
    (counter, sum): (__m256i, __m256i),
    source: Option<&[u8]>,
    text: Text<'_>,
) -> __m128i {
    let mut blocks = [counter; N];
    let mut offset = _mm256_set_epi32(0, 0, 0, 0, 0, 0, 0, -1);
    for block in &mut blocks {
        *block = _mm256_add_epi32(*block, offset);
        offset = _mm256_add_epi32(offset, _mm256_set_epi32(0, 0, 0, 2, 0, 0, 0, 2));
    }
    let hiding = _mm256_zextsi128_si256(reversed(load(&head.counter)));
    blocks[0] = _mm256_blend_epi32::<0x0f>(blocks[0], hiding);
    let stream = stream::<ROUNDS, N>(material, blocks);

    let count = text.blocks();
    let read = gathered::<N>(source.unwrap_or(text.room), count);
    let mut written = read;
    for (written, stream) in written.iter_mut().zip(stream) {
        *written = _mm256_xor_si256(*written, stream);
    }
    let kept = kept(PAIR + BLOCK + text.length - N * PAIR);
    written[N - 1] = _mm256_and_si256(written[N - 1], kept);
    let mut hashed = if source.is_some() { read } else { written };
    hashed[N - 1] = _mm256_and_si256(hashed[N - 1], kept);
    scatter(written, text.room, count, text.length);

    let order = _mm256_broadcastsi128_si256(reversal());
    for block in &mut hashed {
        *block = _mm256_shuffle_epi8(*block, order);
    }
    let none = _mm256_setzero_si256();
    hashed[0] = _mm256_xor_si256(_mm256_blend_epi32::<0x0f>(hashed[0], none), sum);
    let last = POWERS - 1;
    let (power, folded) = (load(&material.powers[last]), load(&material.folded[last]));
    let lengths = Products::of(head.lengths(), power, folded);
    let products = Pairs::of(material, hashed, POWERS - 2 - count).total();
    let hash = products.plus(lengths).reduced();
    _mm_xor_si128(reversed(hash), _mm256_castsi256_si128(stream[0]))
}

/// Ones in the first `count` bytes, at most 32.
#[inline]
#[target_feature(enable = "avx2")]
fn kept(count: usize) -> __m256i {
    match MASKS[PAIR - count..].first_chunk() {
        Some(mask) => load_pair(mask),
        None => _mm256_setzero_si256(),
    }
}

/// `count` blocks, which end in the last or the last but one half; the first half is left empty.
#[inline]
#[target_feature(enable = "avx2")]
fn gathered<const N: usize>(bytes: &[u8], count: usize) -> [__m256i; N] {
    let mut copy = [0; STRIDE];
    let bytes = match bytes.get(..count * BLOCK) {
        Some(bytes) => bytes,
        None => {
            copy[..bytes.len()].copy_from_slice(bytes);
            &copy[..count * BLOCK]
        }
    };
    let mut registers = [_mm256_setzero_si256(); N];
    let Some((first, others)) = bytes.split_first_chunk() else {
        return registers;
    };
    registers[0] = _mm256_inserti128_si256::<1>(registers[0], load(first));
    let (pairs, odd) = others.as_chunks::<PAIR>();
    for (register, pair) in registers[1..].iter_mut().zip(pairs) {
        *register = load_pair(pair);
    }
    if count.is_multiple_of(2)
        && let Some(last) = odd.first_chunk()
    {
        registers[N - 1] = _mm256_zextsi128_si256(load(last));
    }
    registers
}

/// The reverse of [`gathered`]. What lies behind `length` bytes may be overwritten.
#[inline]
#[target_feature(enable = "avx2")]
fn scatter<const N: usize>(registers: [__m256i; N], room: &mut [u8], count: usize, length: usize) {
    if let Some(room) = room.get_mut(..count * BLOCK) {
        return scatter_blocks(registers, room);
    }
    let mut copy = [0; STRIDE];
    scatter_blocks(registers, &mut copy[..count * BLOCK]);
    room[..length].copy_from_slice(&copy[..length]);
}

#[inline]
#[target_feature(enable = "avx2")]
fn scatter_blocks<const N: usize>(registers: [__m256i; N], room: &mut [u8]) {
    let Some((first, others)) = room.split_first_chunk_mut() else {
        return;
    };
    store(first, _mm256_extracti128_si256::<1>(registers[0]));
    let (pairs, odd) = others.as_chunks_mut::<PAIR>();
    for (register, pair) in registers[1..].iter().zip(pairs) {
        store_pair(pair, *register);
    }
    if let Some(last) = odd.first_chunk_mut() {
        store(last, _mm256_castsi256_si128(registers[N - 1]));
    }
}
