//! AES-CTR in ESP (RFC 3686): the cipher's half of the kernels of AES-GCM.

use core::arch::x86_64::{__m128i, __m256i, __m512i};

use zeroize::ZeroizeOnDrop;

use super::super::suite::SALT_LENGTH;
use super::block::BLOCK;
use super::form::{Form, compiled};
use super::gcm::{block, nonce};
use super::kernel::{Expanded, Head, crypt};
use super::material::{NO_POWERS, ROUND_KEYS, RoundKeys, expand, rounds};
use super::mode::{CtrOpen, CtrSeal, Mode};
use super::registers::{Cpu, Lanes};
use super::text::Text;

/// Bytes of the IV in front of a text.
const IV: usize = 8;

/// One SA's round keys and nonce. Wiped on drop.
#[derive(ZeroizeOnDrop)]
#[repr(C, align(64))]
pub(in super::super) struct CtrKey {
    round_keys: RoundKeys<ROUND_KEYS>,
    salt: u32,
    #[zeroize(skip)]
    form: Form,
    #[zeroize(skip)]
    rounds: u8,
}

impl CtrKey {
    /// `key` ends with the nonce. `None` for a key of another length. Boxed, and filled in where it
    /// stays, so that no copy is left behind on a stack.
    pub(in super::super) fn new(form: Form, key: &[u8]) -> Option<Box<Self>> {
        let (key, salt) = key.split_last_chunk::<SALT_LENGTH>()?;
        let mut made = Box::new(Self {
            round_keys: [[0; BLOCK]; ROUND_KEYS],
            salt: u32::from_le_bytes(*salt),
            form,
            rounds: rounds(key.len())?.try_into().ok()?,
        });
        // SAFETY: every form runs only where AES is (`Form::all`).
        unsafe { expand(&mut made.round_keys, key) };
        Some(made)
    }

    /// A text to [`encrypt`]: `packet` begins with the IV, behind which `payload` belongs; the text
    /// has `length` bytes, and what the payload does not reach stands there already. What is behind
    /// the text may be overwritten up to the end of a block. `None` when the lengths do not fit.
    pub(in super::super) fn sealing<'p>(
        &'p self,
        payload: &'p [u8],
        packet: &'p mut [u8],
        length: usize,
    ) -> Option<Counted<'p>> {
        let (iv, room) = packet.split_first_chunk_mut::<IV>()?;
        let fits = length > 0 && payload.len() <= length && length <= room.len();
        fits.then_some(Counted {
            key: self,
            iv: *iv,
            source: payload,
            destination: room,
            length,
        })
    }

    /// A text to [`decrypt`]: `packet` begins with the IV, `length` bytes of text follow. They go
    /// to `room`, where what is behind them may be overwritten up to the end of a block. `None`
    /// when the lengths do not fit.
    pub(in super::super) fn opening<'p>(
        &'p self,
        packet: &'p [u8],
        room: &'p mut [u8],
        length: usize,
    ) -> Option<Counted<'p>> {
        let (iv, source) = packet.split_first_chunk::<IV>()?;
        let fits = length > 0 && length <= source.len() && length <= room.len();
        fits.then_some(Counted {
            key: self,
            iv: *iv,
            source,
            destination: room,
            length,
        })
    }
}

/// A text to go through the key stream.
pub(in super::super) struct Counted<'p> {
    key: &'p CtrKey,
    iv: [u8; IV],
    /// To seal: the payload, no longer than the text. To open: the text and what is behind it.
    source: &'p [u8],
    /// The text's place and what is behind it.
    destination: &'p mut [u8],
    length: usize,
}

impl Counted<'_> {
    const fn kind(&self) -> (Form, u8) {
        (self.key.form, self.key.rounds)
    }

    //= T18 (RFC 3686 section 4)
    #[inline(always)]
    fn apply<V: Lanes, M: Mode, const ROUNDS: usize, const GROUP: usize>(&mut self, cpu: Cpu<V>) {
        let length = self.length;
        let last = length.next_multiple_of(BLOCK);
        let text = Text {
            source: self.source.as_ptr(),
            destination: self.destination.as_mut_ptr(),
            payload: self.source.len().min(length),
            length,
            narrow: last > self.destination.len() || M::OPENS && last > self.source.len(),
        };
        let head = Head {
            nonce: nonce(self.key.salt, u64::from_le_bytes(self.iv)),
            data: block(0, 0),
            data_length: 0,
        };
        let key = Expanded {
            round_keys: &self.key.round_keys,
            powers: &NO_POWERS,
        };
        // SAFETY: both buffers are borrowed for as long as this takes; the text fits in
        // (`CtrKey::sealing`, `CtrKey::opening`), and so does its last block unless it is narrow.
        // To be opened, all of the text stands in the source.
        unsafe { crypt::<V, M, ROUNDS, GROUP>(cpu, key, &head, text) };
    }
}

#[inline(always)]
fn seal_burst<V: Lanes, const ROUNDS: usize, const GROUP: usize>(
    cpu: Cpu<V>,
    texts: &mut [Counted<'_>],
) {
    for text in texts {
        text.apply::<V, CtrSeal, ROUNDS, GROUP>(cpu);
    }
}

#[inline(always)]
fn open_burst<V: Lanes, const ROUNDS: usize, const GROUP: usize>(
    cpu: Cpu<V>,
    texts: &mut [Counted<'_>],
) {
    for text in texts {
        text.apply::<V, CtrOpen, ROUNDS, GROUP>(cpu);
    }
}

compiled!(sealing[rounds]: seal_burst(texts: &mut [Counted<'_>]));
compiled!(opening[rounds]: open_burst(texts: &mut [Counted<'_>]));

/// Encrypts every text of [`CtrKey::sealing`].
pub(in super::super) fn encrypt(texts: &mut [Counted<'_>]) {
    for texts in texts.chunk_by_mut(|a, b| a.kind() == b.kind()) {
        let Some((form, rounds)) = texts.first().map(Counted::kind) else {
            return;
        };
        // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
        unsafe { sealing(form, rounds.into())(texts) };
    }
}

/// Decrypts every text of [`CtrKey::opening`].
pub(in super::super) fn decrypt(texts: &mut [Counted<'_>]) {
    for texts in texts.chunk_by_mut(|a, b| a.kind() == b.kind()) {
        let Some((form, rounds)) = texts.first().map(Counted::kind) else {
            return;
        };
        // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
        unsafe { opening(form, rounds.into())(texts) };
    }
}
