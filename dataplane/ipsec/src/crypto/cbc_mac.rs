//! AES-XCBC-MAC (RFC 3566) and AES-CMAC (RFC 4493): CBC-MACs that differ in how the keys for the
//! last block are made.

use aes::Aes128;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use zeroize::Zeroizing;

use super::mac::Pieces;

/// Bytes of a block, which is also the MAC's length.
const BLOCK: usize = 16;

/// A CBC-MAC with the two masks for the last block.
pub(super) struct CbcMac<C> {
    cipher: C,
    /// XORed into a last block that is whole.
    whole: [u8; BLOCK],
    /// XORed into a last block that was padded.
    padded: [u8; BLOCK],
}

impl CbcMac<Aes128> {
    //= T154 (RFC 3566 section 4)
    pub(super) fn xcbc(key: &[u8; BLOCK]) -> Self {
        let outer = Aes128::new(key.into());
        let derived = |fill: u8| Zeroizing::new(encrypt(&outer, [fill; BLOCK]));
        Self {
            cipher: Aes128::new((&*derived(1)).into()),
            whole: *derived(2),
            padded: *derived(3),
        }
    }

    /// RFC 4493 §2.3: the masks are doublings in GF(2¹²⁸).
    pub(super) fn cmac(key: &[u8; BLOCK]) -> Self {
        let cipher = Aes128::new(key.into());
        let zero = Zeroizing::new(encrypt(&cipher, [0; BLOCK]));
        let whole = double(*zero);
        let padded = double(whole);
        Self {
            cipher,
            whole,
            padded,
        }
    }
}

impl<C: BlockCipherEncrypt<BlockSize = U16>> CbcMac<C> {
    /// The whole MAC over `packet` and behind it `high`.
    pub(super) fn mac(&self, packet: &[u8], high: &[u8]) -> [u8; BLOCK] {
        self.over(&mut |feed| {
            feed(packet);
            feed(high);
        })
    }

    /// The whole MAC over the pieces that `pieces` gives.
    pub(super) fn over(&self, pieces: &mut Pieces<'_>) -> [u8; BLOCK] {
        let mut chain = Chain {
            sum: [0; BLOCK],
            rest: [0; BLOCK],
            waiting: 0,
        };
        pieces(&mut |piece| chain.add(&self.cipher, piece));
        self.finish(chain)
    }

    fn finish(&self, mut chain: Chain) -> [u8; BLOCK] {
        let mut mask = self.whole;
        if let Some(padding) = chain
            .rest
            .get_mut(chain.waiting..)
            .filter(|it| !it.is_empty())
        {
            padding.fill(0);
            padding[0] = 0x80;
            mask = self.padded;
        }
        encrypt(&self.cipher, xor(xor(chain.sum, chain.rest), mask))
    }
}

/// A MAC in the making.
struct Chain {
    sum: [u8; BLOCK],
    /// Bytes that wait for their block: at least one once there were any, so that the last block
    /// is never chained without its mask.
    rest: [u8; BLOCK],
    waiting: usize,
}

impl Chain {
    fn add<C>(&mut self, cipher: &C, mut part: &[u8])
    where
        C: BlockCipherEncrypt<BlockSize = U16>,
    {
        while !part.is_empty() {
            if self.waiting == BLOCK {
                self.sum = encrypt(cipher, xor(self.sum, self.rest));
                self.waiting = 0;
            }
            let (taken, behind) = part.split_at(part.len().min(BLOCK - self.waiting));
            self.rest[self.waiting..self.waiting + taken.len()].copy_from_slice(taken);
            self.waiting += taken.len();
            part = behind;
        }
    }
}

fn encrypt<C>(cipher: &C, block: [u8; BLOCK]) -> [u8; BLOCK]
where
    C: BlockCipherEncrypt<BlockSize = U16>,
{
    let mut block = block.into();
    cipher.encrypt_block(&mut block);
    block.into()
}

fn xor(a: [u8; BLOCK], b: [u8; BLOCK]) -> [u8; BLOCK] {
    (u128::from_ne_bytes(a) ^ u128::from_ne_bytes(b)).to_ne_bytes()
}

/// Multiplies by x modulo x¹²⁸ + x⁷ + x² + x + 1, without a branch on the key.
fn double(block: [u8; BLOCK]) -> [u8; BLOCK] {
    let value = u128::from_be_bytes(block);
    let carry = (value >> 127) * 0x87;
    (value << 1 ^ carry).to_be_bytes()
}
