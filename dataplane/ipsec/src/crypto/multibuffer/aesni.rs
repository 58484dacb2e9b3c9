//! AES-GCM with one block a register (AES-NI, PCLMULQDQ): the form for older CPUs, in the same
//! steps as that with two.

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_set_epi32,
    _mm_setzero_si128, _mm_xor_si128,
};

use super::block::{BLOCK, Products, load, reversed, store};
use super::gcm::{Head, STRIDE, Text};
use super::material::{Material, POWERS, encrypted};

/// Blocks of a stride.
const BLOCKS: usize = STRIDE / BLOCK;

/// Where the powers for a stride begin, and how many they are.
const STRIDE_POWERS: (usize, usize) = (POWERS - BLOCKS, BLOCKS);

/// Encrypts `payload`, and behind it what stands in `text`, into `text`; answers the tag.
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
pub(super) fn seal<const ROUNDS: usize>(
    material: &Material,
    head: &Head,
    payload: &[u8],
    text: Text<'_>,
) -> __m128i {
    let (strides, tail) = text.split();
    let mut counter = reversed(load(&head.counter));
    let mut sources = payload.as_chunks::<STRIDE>().0.iter();
    let mut sum = of_data(material, head);
    let mut last: Option<&[u8; STRIDE]> = None;
    for place in strides {
        encrypt::<ROUNDS>(material, &mut counter, sources.next(), place);
        if let Some(last) = last {
            sum = hashed(material, sum, last, STRIDE_POWERS).reduced();
        }
        last = Some(place);
    }
    if let Some(last) = last {
        sum = hashed(material, sum, last, STRIDE_POWERS).reduced();
    }
    let mut copy = [0; STRIDE];
    let copied = &mut copy[..tail.length];
    copied.copy_from_slice(&tail.room[..tail.length]);
    encrypt::<ROUNDS>(material, &mut counter, None, &mut copy);
    tail.room[..tail.length].copy_from_slice(&copy[..tail.length]);
    end::<ROUNDS>(material, head, sum, &mut copy, tail.length)
}

/// Decrypts `source` into `text`, which is at least as long, and answers the tag that belongs to
/// it.
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
pub(super) fn open<const ROUNDS: usize>(
    material: &Material,
    head: &Head,
    source: &[u8],
    text: Text<'_>,
) -> __m128i {
    let (strides, tail) = text.split();
    let mut counter = reversed(load(&head.counter));
    let (sources, rest) = source.split_at(strides.len() * STRIDE);
    let mut sum = of_data(material, head);
    for (source, place) in sources.as_chunks::<STRIDE>().0.iter().zip(strides) {
        sum = hashed(material, sum, source, STRIDE_POWERS).reduced();
        encrypt::<ROUNDS>(material, &mut counter, Some(source), place);
    }
    let mut copy = [0; STRIDE];
    copy[..tail.length].copy_from_slice(&rest[..tail.length]);
    let mut plain = [0; STRIDE];
    encrypt::<ROUNDS>(material, &mut counter, Some(&copy), &mut plain);
    tail.room[..tail.length].copy_from_slice(&plain[..tail.length]);
    end::<ROUNDS>(material, head, sum, &mut copy, tail.length)
}

/// The hash after the associated data.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
fn of_data(material: &Material, head: &Head) -> __m128i {
    times(material, reversed(load(&head.data)), POWERS - 1).reduced()
}

/// `block` times the power at `index`.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
fn times(material: &Material, block: __m128i, index: usize) -> Products {
    let (power, folded) = (&material.powers[index], &material.folded[index]);
    Products::of(block, load(power), load(folded))
}

/// One stride through the cipher, from `source`, or in place.
#[inline]
#[target_feature(enable = "aes,ssse3")]
fn encrypt<const ROUNDS: usize>(
    material: &Material,
    counter: &mut __m128i,
    source: Option<&[u8; STRIDE]>,
    place: &mut [u8; STRIDE],
) {
    let one = _mm_set_epi32(0, 0, 0, 1);
    let keys = &material.round_keys;
    let mut blocks = [*counter; BLOCKS];
    for block in &mut blocks {
        *counter = _mm_add_epi32(*counter, one);
        *block = _mm_xor_si128(reversed(*counter), load(&keys[0]));
    }
    for key in &keys[1..ROUNDS] {
        let key = load(key);
        for block in &mut blocks {
            *block = _mm_aesenc_si128(*block, key);
        }
    }
    let key = load(&keys[ROUNDS]);
    let source = *source.unwrap_or(place);
    let (sources, _) = source.as_chunks();
    let (places, _) = place.as_chunks_mut();
    for ((block, source), place) in blocks.into_iter().zip(sources).zip(places) {
        let stream = _mm_aesenclast_si128(block, key);
        store(place, _mm_xor_si128(load(source), stream));
    }
}

/// The sum of the first `count` blocks of `text`, each times a power of its own from `first` on;
/// the hash so far goes with the first block.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
fn hashed(
    material: &Material,
    sum: __m128i,
    text: &[u8; STRIDE],
    (first, count): (usize, usize),
) -> Products {
    let none = _mm_setzero_si128();
    let mut total = Products {
        low: none,
        cross: none,
        high: none,
    };
    let mut sum = sum;
    for (index, block) in text.as_chunks().0.iter().take(count).enumerate() {
        let block = _mm_xor_si128(reversed(load(block)), sum);
        total = total.plus(times(material, block, first + index));
        sum = none;
    }
    total
}

/// The tag. `tail` is the last ciphertext, `length` bytes of it.
#[inline]
#[target_feature(enable = "aes,pclmulqdq,ssse3,sse4.1")]
fn end<const ROUNDS: usize>(
    material: &Material,
    head: &Head,
    sum: __m128i,
    tail: &mut [u8; STRIDE],
    length: usize,
) -> __m128i {
    tail[length..].fill(0);
    let count = length.div_ceil(BLOCK);
    let lengths = times(material, head.lengths(), POWERS - 1);
    let text = hashed(material, sum, tail, (POWERS - 1 - count, count));
    let hash = text.plus(lengths).reduced();
    let hiding = encrypted::<ROUNDS>(material, load(&head.counter));
    _mm_xor_si128(reversed(hash), hiding)
}
