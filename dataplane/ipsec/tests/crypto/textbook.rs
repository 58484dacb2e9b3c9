//! AES, CBC, CTR, GCM, CMAC and XCBC as their standards describe them: slow, plain, and free of any
//! code of the ciphers that they are compared with.

use std::sync::LazyLock;

/// AES (FIPS 197), the expanded key.
pub(crate) struct Aes(Vec<[u8; 16]>);

/// Product in AES's field, modulo x⁸ + x⁴ + x³ + x + 1.
fn product(mut a: u8, mut b: u8) -> u8 {
    let mut sum = 0;
    while b != 0 {
        sum ^= if b & 1 == 1 { a } else { 0 };
        a = a << 1 ^ if a & 0x80 == 0 { 0 } else { 0x1b };
        b >>= 1;
    }
    sum
}

/// The S-box, computed: inverse, then the affine map.
fn substitutions() -> &'static [u8; 256] {
    static TABLE: LazyLock<[u8; 256]> = LazyLock::new(|| {
        let mut table = [0x63; 256];
        for a in 1..=255 {
            let inverse = (1..=255).find(|b| product(a, *b) == 1).unwrap();
            let turned = (1..5).fold(inverse, |sum, turn| sum ^ inverse.rotate_left(turn));
            table[usize::from(a)] = turned ^ 0x63;
        }
        table
    });
    &TABLE
}

impl Aes {
    pub(crate) fn new(key: &[u8]) -> Self {
        let table = substitutions();
        let words = key.len() / 4;
        let mut schedule: Vec<[u8; 4]> = key.as_chunks().0.to_vec();
        let mut round = 1;
        for index in words..4 * (words + 7) {
            let mut word = schedule[index - 1];
            if index % words == 0 {
                word.rotate_left(1);
            }
            if index % words == 0 || words > 6 && index % words == 4 {
                word = word.map(|byte| table[usize::from(byte)]);
            }
            if index % words == 0 {
                word[0] ^= round;
                round = product(round, 2);
            }
            let before = schedule[index - words];
            schedule.push([0, 1, 2, 3].map(|at| word[at] ^ before[at]));
        }
        Self(
            schedule
                .as_chunks::<4>()
                .0
                .iter()
                .map(|four| four.concat().try_into().unwrap())
                .collect(),
        )
    }

    pub(crate) fn block(&self, block: &[u8]) -> [u8; 16] {
        let (last, middle) = self.0[1..].split_last().unwrap();
        let mut state: [u8; 16] = xor(block, &self.0[0]).try_into().unwrap();
        for key in middle {
            state = round(&state, key, columns());
        }
        let plain = (*substitutions()).map(|byte| u32::from(byte) << 24);
        round(&state, last, &plain)
    }
}

/// SubBytes, ShiftRows (row r of column c comes from column c + r), MixColumns, AddRoundKey.
/// `columns`: what a byte in row 0 becomes; in row r the same, turned by r.
fn round(state: &[u8; 16], key: &[u8; 16], columns: &[u32; 256]) -> [u8; 16] {
    let mut next = *key;
    for (column, out) in next.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let rows = (0..4_usize).zip([0, 8, 16, 24]);
        let word = rows.fold(u32::from_be_bytes(*out), |sum, (row, turn)| {
            let byte = state[(4 * (column + row) + row) % 16];
            sum ^ columns[usize::from(byte)].rotate_right(turn)
        });
        *out = word.to_be_bytes();
    }
    next
}

/// MixColumns of a substituted byte in row 0: 2, 1, 1, 3 times.
fn columns() -> &'static [u32; 256] {
    static TABLE: LazyLock<[u32; 256]> = LazyLock::new(|| {
        substitutions()
            .map(|byte| u32::from_be_bytes([product(byte, 2), byte, byte, product(byte, 3)]))
    });
    &TABLE
}

pub(crate) fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// CBC (SP 800-38A) with any block.
pub(crate) fn chain(iv: &[u8], text: &[u8], block: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let mut last = iv.to_vec();
    let mut out = Vec::with_capacity(text.len());
    for part in text.chunks(iv.len()) {
        last = block(&xor(&last, part));
        out.extend_from_slice(&last);
    }
    out
}

/// CTR with a nonce of 12 bytes and a block counter that starts at `first`.
pub(crate) fn count(aes: &Aes, nonce: &[u8], first: u32, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut block = [0; 16];
    block[..12].copy_from_slice(nonce);
    for (counter, part) in (first..).zip(text.chunks(16)) {
        block[12..].copy_from_slice(&counter.to_be_bytes());
        out.extend(part.iter().zip(aes.block(&block)).map(|(a, b)| a ^ b));
    }
    out
}

/// GHASH (SP 800-38D): bit 0 is the leftmost, the reduction is by x¹²⁸ + x⁷ + x² + x + 1.
fn hash(key: u128, data: &[u8], text: &[u8]) -> u128 {
    let lengths = ((data.len() as u128 * 8) << 64) | (text.len() as u128 * 8);
    let blocks = data.chunks(16).chain(text.chunks(16)).map(|part| {
        let mut block = [0; 16];
        block[..part.len()].copy_from_slice(part);
        u128::from_be_bytes(block)
    });
    blocks.chain([lengths]).fold(0, |sum, block| {
        let (mut product, mut shifted, factor) = (0, key, sum ^ block);
        for bit in (0..128).rev() {
            product ^= shifted & (factor >> bit & 1).wrapping_neg();
            shifted = shifted >> 1 ^ (shifted & 1).wrapping_neg() & 0xe1 << 120;
        }
        product
    })
}

/// GCM with an IV of 12 bytes: ciphertext and the whole tag. GMAC is GCM without text.
pub(crate) fn gcm(key: &[u8], nonce: &[u8], data: &[u8], text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let sealed = count(&Aes::new(key), nonce, 2, text);
    let tag = gcm_tag(key, nonce, data, &sealed);
    (sealed, tag)
}

/// The tag that belongs to a ciphertext.
pub(crate) fn gcm_tag(key: &[u8], nonce: &[u8], data: &[u8], sealed: &[u8]) -> Vec<u8> {
    let aes = Aes::new(key);
    let hash = hash(u128::from_be_bytes(aes.block(&[0; 16])), data, sealed);
    count(&aes, nonce, 1, &hash.to_be_bytes())
}

/// CMAC (RFC 4493) when `key` alone makes the masks, XCBC (RFC 3566) with three derived keys.
pub(crate) fn cbc_mac(key: &[u8], xcbc: bool, data: &[u8]) -> Vec<u8> {
    let aes = Aes::new(key);
    let whole = !data.is_empty() && data.len().is_multiple_of(16);
    let (chained, mask) = if xcbc {
        let derived = |fill: u8| aes.block(&[fill; 16]);
        (Aes::new(&derived(1)), derived(if whole { 2 } else { 3 }))
    } else {
        let double = |value: u128| (value << 1) ^ ((value >> 127) * 0x87);
        let once = double(u128::from_be_bytes(aes.block(&[0; 16])));
        let mask = if whole { once } else { double(once) };
        (Aes::new(key), mask.to_be_bytes())
    };
    let mut data = data.to_vec();
    if !whole {
        data.push(0x80);
        data.resize(data.len().next_multiple_of(16), 0);
    }
    let last = data.len() - 16;
    let masked = xor(&data[last..], &mask);
    data.splice(last.., masked);
    chain(&[0; 16], &data, |block| chained.block(block).to_vec())[last..].to_vec()
}
