//! AES-CBC in ESP (RFC 3602): many packets side by side to encrypt, one packet's blocks side by
//! side to decrypt.

use core::arch::x86_64::_mm_aesimc_si128;

use zeroize::ZeroizeOnDrop;

use super::block::{BLOCK, load, store};
use super::form::Form;
use super::lanes::Chain;
use super::material::{self, RoundKeys, rounds};
use super::{cbc_aesni, cbc_vaes};

/// One SA's round keys, 11, 13 or 15 for each direction. Which of them the SA has is not known
/// here; both are less than half a kilobyte. Wiped on drop.
#[derive(ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(in super::super) struct CbcKey<const KEYS: usize> {
    encrypting: RoundKeys<KEYS>,
    decrypting: RoundKeys<KEYS>,
    #[zeroize(skip)]
    form: Form,
}

impl<const KEYS: usize> CbcKey<KEYS> {
    /// `None` for a key of another length. Boxed, and filled in where it stays, so that no copy is
    /// left behind on a stack.
    pub(in super::super) fn new(form: Form, key: &[u8]) -> Option<Box<Self>> {
        if rounds(key.len())? + 1 != KEYS {
            return None;
        }
        let mut made = Box::new(Self {
            encrypting: [[0; BLOCK]; KEYS],
            decrypting: [[0; BLOCK]; KEYS],
            form,
        });
        // SAFETY: every form runs only where AES is (`Form::all`).
        unsafe { made.fill(key) };
        Some(made)
    }

    #[target_feature(enable = "aes,sse2")]
    fn fill(&mut self, key: &[u8]) {
        material::expand(&mut self.encrypting, key);
        // The equivalent inverse cipher (FIPS 197 §5.3.5).
        let [first, middle @ .., last] = &mut self.decrypting[..] else {
            return;
        };
        *first = self.encrypting[KEYS - 1];
        *last = self.encrypting[0];
        for (place, key) in middle.iter_mut().rev().zip(&self.encrypting[1..]) {
            store(place, _mm_aesimc_si128(load(key)));
        }
    }

    /// A packet to [`encrypt`]: it begins with the IV, behind which `payload` is brought now; what
    /// that does not reach stands there already. `None` when the lengths do not fit.
    pub(in super::super) fn chain<'p>(
        &'p self,
        payload: &[u8],
        packet: &'p mut [u8],
    ) -> Option<Chain<'p, KEYS>> {
        Chain::new(self.form, &self.encrypting, payload, packet)
    }

    /// From `source`, IV and ciphertext, to `text`. `None` when these are not whole blocks, or not
    /// as long.
    pub(in super::super) fn decrypt(&self, source: &[u8], text: &mut [u8]) -> Option<()> {
        if source.len() != BLOCK + text.len() || !text.len().is_multiple_of(BLOCK) {
            return None;
        }
        let decrypt: unsafe fn(&RoundKeys<KEYS>, &[u8], &mut [u8]) = if self.form.blocks() > 1 {
            cbc_vaes::decrypt
        } else {
            cbc_aesni::decrypt
        };
        // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
        unsafe { decrypt(&self.decrypting, source, text) };
        Some(())
    }
}

/// Blocks of a packet, on average, up to which packets with keys of their own go through lanes of
/// one block: to bring the keys of sixteen lanes together is not worth it for less.
const FEW: usize = 8;

/// Encrypts every chain, by the first one's form.
pub(in super::super) fn encrypt<const KEYS: usize>(chains: &mut [Chain<'_, KEYS>]) {
    let Some(first) = chains.first() else {
        return;
    };
    let (form, keys) = (first.form(), first.keys());
    let same = chains.iter().all(|it| core::ptr::eq(it.keys(), keys));
    let blocks: usize = chains.iter().map(Chain::blocks).sum();
    if form.blocks() == 1 || !same && blocks <= FEW * chains.len() {
        // SAFETY: the form exists, so the CPU has what this kernel takes: all take it
        // (`Form::all`).
        unsafe { cbc_aesni::encrypt(chains) };
    } else if same {
        // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
        unsafe { cbc_vaes::encrypt_same(chains, keys) };
    } else {
        // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
        unsafe { cbc_vaes::encrypt(chains) };
    }
}
