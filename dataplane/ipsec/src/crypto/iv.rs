//! Initialisation vectors: never twice (counter modes), unpredictable (CBC).

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::secret::Sealed;

/// The IV of GCM, GMAC, CTR and ChaCha20 for the packet with this 64-bit number: unique as long as
/// the number is, for one mask.
//= T16 T18 T21 (RFC 4106 section 3.1, RFC 3686 section 3.1, RFC 7634 section 2)
#[must_use]
pub const fn counter_iv(sequence: u64, mask: u64) -> [u8; 8] {
    (sequence ^ mask).to_be_bytes()
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

/// A source of unpredictable IVs for CBC: AES-256 over a counter, under a random key that nobody
/// else has. One for each worker; asks the system once, at the start.
//= T17 (RFC 3602 section 3)
pub struct RandomIvs {
    cipher: Sealed<Aes256>,
    counter: u128,
}

impl RandomIvs {
    /// Draws the key and the counter's start.
    ///
    /// # Errors
    /// [`NoRandomness`] when the system's random source fails.
    pub fn new() -> Result<Self, NoRandomness> {
        let mut seed = Zeroizing::new([0; 32]);
        let mut counter = [0; 16];
        let system = SystemRandom::new();
        system.fill(seed.as_mut()).map_err(|_| NoRandomness)?;
        system.fill(&mut counter).map_err(|_| NoRandomness)?;
        Ok(Self::seeded(&seed, u128::from_be_bytes(counter)))
    }

    /// A source whose IVs can be foretold by whoever knows the arguments: for tests and `replay`.
    #[must_use]
    pub fn seeded(key: &[u8; 32], counter: u128) -> Self {
        Self {
            cipher: Sealed::new(Aes256::new(key.into())),
            counter,
        }
    }

    /// Writes the next IV; of a shorter field (3DES) the block's first bytes.
    ///
    /// A field longer than a block, which no algorithm has, keeps its bytes behind the block.
    pub fn fill(&mut self, iv: &mut [u8]) {
        let mut block = self.counter.to_be_bytes().into();
        self.counter = self.counter.wrapping_add(1);
        self.cipher.encrypt_block(&mut block);
        for (byte, random) in iv.iter_mut().zip(block) {
            *byte = random;
        }
    }
}
