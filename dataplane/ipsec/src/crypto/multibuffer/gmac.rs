//! AES-GMAC (RFC 4543) in ESP and in AH: the hash's half of the kernels of AES-GCM.

use core::arch::x86_64::{__m128i, __m256i, __m512i};

use super::super::mac::Pieces;
use super::super::parts::{HEADER_LENGTH, Layout};
use super::super::suite::{Encryption, Suite};
use super::super::{Keys, OpenJob, SealJob, Transform};
use super::block::{BLOCK, load, store};
use super::form::{Form, compiled};
use super::gcm::{AesGcm, agrees, block, nonce};
use super::kernel::{Head, crypt};
use super::mode::{GmacEnd, GmacOpen, GmacSeal, Hash, Mode};
use super::registers::{Cpu, Lanes};
use super::text::Text;

/// What all packets have in common.
const LAYOUT: Layout = Layout::of(Suite {
    encryption: Encryption::AesGmac { bits: 128 },
    integrity: None,
});

/// Bytes in front of the text.
const FRONT: usize = HEADER_LENGTH + LAYOUT.iv;

/// Bytes of a text that share a block with the IV's second half when the number's upper half stands
/// in front of them.
const BESIDE: usize = 12;

/// Rounds of the cipher that the kernel does.
const NONE: usize = 0;

/// What stands in front of a text.
struct Front {
    header: u64,
    /// As it stands in memory.
    iv: u64,
    high: Option<u32>,
}

impl Front {
    #[inline(always)]
    fn of(packet: &[u8], sequence: u64, esn: bool) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<HEADER_LENGTH>()?;
        let high = esn.then_some((sequence >> 32) as u32);
        Some(Self {
            header: u64::from_be_bytes(*header),
            iv: u64::from_le_bytes(*rest.first_chunk()?),
            high,
        })
    }

    /// The first block that is hashed; without an upper half it is the whole of the front.
    #[inline(always)]
    fn block(&self) -> __m128i {
        let iv = self.iv.swap_bytes();
        match self.high {
            Some(high) => {
                let spi = self.header >> 32 << 32;
                block(spi | u64::from(high), self.header << 32 | iv >> 32)
            }
            None => block(self.header, iv),
        }
    }
}

/// A text on its way.
struct Moving<'t> {
    /// As much of it as the mode takes from here.
    source: &'t [u8],
    /// Its place and what is behind that.
    room: &'t mut [u8],
    length: usize,
}

impl Moving<'_> {
    /// Whether the kernel can do without what it wants beside the IV.
    #[inline(always)]
    fn is_short(&self, front: &Front) -> bool {
        front.high.is_some() && self.source.len().min(self.length - 1) < BESIDE
    }

    /// Moves the first bytes.
    #[inline(always)]
    fn begin(&mut self) -> Option<[u32; 3]> {
        let (first, source) = self.source.split_first_chunk::<BESIDE>()?;
        let (place, room) = core::mem::take(&mut self.room).split_first_chunk_mut::<BESIDE>()?;
        *place = *first;
        (self.source, self.room, self.length) = (source, room, self.length - BESIDE);
        let words: &[[u8; 4]; 3] = first.as_chunks().0.try_into().ok()?;
        Some(words.map(u32::from_be_bytes))
    }

    #[inline(always)]
    fn text<M: Mode>(&mut self) -> Text {
        let last = self.length.next_multiple_of(BLOCK);
        Text {
            source: self.source.as_ptr(),
            destination: self.room.as_mut_ptr(),
            payload: self.source.len().min(self.length),
            length: self.length,
            narrow: last > self.room.len() || M::OPENS && last > self.source.len(),
        }
    }
}

impl AesGcm {
    /// The keys, if they are for GMAC in ESP and for registers `V`.
    #[inline(always)]
    fn of_gmac<V: Lanes>(keys: &Keys) -> Option<&Self> {
        match keys {
            Keys::EspGmac(own) if own.form().blocks() == V::COUNT => Some(own),
            _ => None,
        }
    }

    /// Moves a text; the tag over it and what stands in front, all of it associated data and the
    /// IV with it: as Figure 4 of RFC 4543 draws it and as its peers compute it, although its
    /// section 7 says otherwise.
    //= T150 (RFC 4543 section 3.3)
    #[inline(always)]
    fn moved<V: Lanes, M: Mode, const GROUP: usize>(
        &self,
        cpu: Cpu<V>,
        front: &Front,
        mut moving: Moving<'_>,
    ) -> Option<__m128i> {
        let (mut data, mut data_length) = (front.block(), BLOCK);
        if front.high.is_some() {
            // Half of the IV and the text's first bytes are a block of their own.
            let [a, b, c] = moving.begin()?.map(u64::from);
            let second = block(front.iv.swap_bytes() << 32 | a, b << 32 | c);
            data = self.times_hash_key(cpu, data).xor(second);
            data_length += BLOCK;
        }
        let head = Head {
            nonce: nonce(self.salt(), front.iv),
            data,
            data_length,
        };
        // SAFETY: both buffers are borrowed for as long as this takes; the text fits in
        // (`seal_one`, `open_one`), and so does its last block unless it is narrow; it is not
        // empty, and to be opened all of it stands in the source.
        let tag =
            unsafe { crypt::<V, M, NONE, GROUP>(cpu, self.expanded(), &head, moving.text::<M>()) };
        Some(tag.xor(self.hiding(cpu.narrowest(), head.nonce)))
    }

    /// The tag over a text of few bytes, which stays where it is.
    #[cold]
    fn short(&self, front: &Front, text: &[u8]) -> Option<[u8; BLOCK]> {
        let header = front.header.to_be_bytes();
        let (spi, low) = header.split_at(4);
        let high = front.high.map(u32::to_be_bytes);
        let (high, iv) = (
            high.as_ref().map_or(&[][..], |it| it),
            front.iv.to_le_bytes(),
        );
        self.over(&iv, &mut |feed| {
            [spi, high, low, &iv, text].into_iter().for_each(&mut *feed);
        })
    }
}

#[inline(always)]
fn seal_one<V: Lanes, const GROUP: usize>(cpu: Cpu<V>, job: &mut SealJob<'_>) -> Option<()> {
    let own = AesGcm::of_gmac::<V>(&job.transform.keys)?;
    let covered = LAYOUT.covered_with(job.destination.len(), job.source.len())?;
    let front = Front::of(job.destination, job.sequence, job.esn)?;
    let room = job.destination.get_mut(FRONT..)?;
    let moving = Moving {
        source: job.source,
        room: &mut *room,
        length: covered - FRONT,
    };
    let length = moving.length;
    if moving.is_short(&front) {
        room.get_mut(..job.source.len())?
            .copy_from_slice(job.source);
        let tag = own.short(&front, room.get(..length)?)?;
        *room.get_mut(length..)?.first_chunk_mut()? = tag;
        return Some(());
    }
    let tag = own.moved::<V, GmacSeal, GROUP>(cpu, &front, moving)?;
    store(room.get_mut(length..)?.first_chunk_mut()?, tag);
    Some(())
}

//= T31 T82 T83 (RFC 4303 section 3.4.4.2)
#[inline(always)]
fn open_one<V: Lanes, const GROUP: usize>(cpu: Cpu<V>, job: &mut OpenJob<'_>) -> Option<()> {
    let own = AesGcm::of_gmac::<V>(&job.transform.keys)?;
    let length = LAYOUT.covered(job.source.len())? - FRONT;
    let front = Front::of(job.source, job.sequence, job.esn)?;
    let source = job.source.get(FRONT..)?;
    let room = job.destination.len().min(job.source.len());
    let room = job.destination.get_mut(..room)?;
    let (text, icv) = source.split_at_checked(length)?;
    room.get(..length)?;
    let moving = Moving {
        source,
        room: &mut *room,
        length,
    };
    let tag = if moving.is_short(&front) {
        room.get_mut(..length)?.copy_from_slice(text);
        load(&own.short(&front, text)?)
    } else {
        own.moved::<V, GmacOpen, GROUP>(cpu, &front, moving)?
    };
    if !agrees(tag, icv)? {
        room.fill(0);
        return None;
    }
    Some(())
}

#[inline(always)]
fn seal_burst<V: Lanes, const GROUP: usize>(cpu: Cpu<V>, jobs: &mut [SealJob<'_>]) {
    for job in jobs {
        if seal_one::<V, GROUP>(cpu, job).is_none() {
            job.destination.fill(0);
        }
    }
}

#[inline(always)]
fn open_burst<V: Lanes, const GROUP: usize>(cpu: Cpu<V>, jobs: &mut [OpenJob<'_>]) {
    for job in jobs {
        job.authentic = open_one::<V, GROUP>(cpu, job).is_some();
    }
}

compiled!(sealing: seal_burst(jobs: &mut [SealJob<'_>]));
compiled!(opening: open_burst(jobs: &mut [OpenJob<'_>]));

/// The form of the keys that all jobs of a burst have in common.
fn shared(transform: &Transform) -> Option<Form> {
    match &transform.keys {
        Keys::EspGmac(own) => Some(own.form()),
        _ => None,
    }
}

/// Seals jobs of one suite.
pub(in super::super) fn seal(jobs: &mut [SealJob<'_>]) {
    let Some(form) = jobs.first().and_then(|job| shared(job.transform)) else {
        return jobs.iter_mut().for_each(|job| job.destination.fill(0));
    };
    // SAFETY: a form exists only where the CPU has its features (`Form::all`).
    unsafe { sealing(form)(jobs) };
}

/// Opens jobs of one suite.
pub(in super::super) fn open(jobs: &mut [OpenJob<'_>]) {
    let Some(form) = jobs.first().and_then(|job| shared(job.transform)) else {
        return jobs.iter_mut().for_each(|job| job.authentic = false);
    };
    // SAFETY: a form exists only where the CPU has its features (`Form::all`).
    unsafe { opening(form)(jobs) };
}

/// Blocks that a message in pieces is hashed in, until its end.
type Unit = [[u8; BLOCK]; 8];

/// Bytes of them.
const UNIT: usize = size_of::<Unit>();

/// A message that comes in pieces.
struct Message<'k> {
    key: &'k AesGcm,
    /// The hash so far, as registers have it.
    hash: [u8; BLOCK],
    /// Bytes that wait; of a message of more than a block always more than a block, so that its end
    /// has what kernels want, a block and a text.
    rest: [u8; UNIT + BLOCK],
    waiting: usize,
    length: usize,
}

impl Message<'_> {
    fn add(&mut self, mut piece: &[u8]) {
        self.length += piece.len();
        while self.waiting + piece.len() > self.rest.len() {
            if self.waiting == 0 {
                // Whole units from where they are, and more than a block stays.
                let whole = (piece.len() - BLOCK - 1) / UNIT * UNIT;
                let (units, behind) = piece.split_at(whole);
                absorb(self.key, &mut self.hash, units);
                piece = behind;
            } else {
                let (taken, behind) = piece.split_at(UNIT.saturating_sub(self.waiting));
                self.keep(taken);
                absorb(self.key, &mut self.hash, &self.rest[..UNIT]);
                self.rest.copy_within(UNIT.., 0);
                self.waiting -= UNIT;
                piece = behind;
            }
        }
        self.keep(piece);
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.rest[self.waiting..self.waiting + bytes.len()].copy_from_slice(bytes);
        self.waiting += bytes.len();
    }
}

/// A text for modes that do not write.
#[inline(always)]
fn read_only(text: &[u8]) -> Text {
    Text {
        source: text.as_ptr(),
        destination: core::ptr::null_mut(),
        payload: text.len(),
        length: text.len(),
        narrow: !text.len().is_multiple_of(BLOCK),
    }
}

/// Takes whole units into the hash.
fn absorb(key: &AesGcm, hash: &mut [u8; BLOCK], units: &[u8]) {
    let units = units.as_chunks().0.as_chunks().0;
    // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
    unsafe { absorbing(key.form())(key, hash, units) };
}

#[inline(always)]
fn absorb_units<V: Lanes, const GROUP: usize>(
    cpu: Cpu<V>,
    key: &AesGcm,
    hash: &mut [u8; BLOCK],
    units: &[Unit],
) {
    let Some((first, rest)) = units.as_flattened().split_first() else {
        return;
    };
    let narrowest = cpu.narrowest();
    let head = Head {
        nonce: <__m128i as Lanes>::zero(narrowest),
        data: load(first).reversed(narrowest).xor(load(hash)),
        data_length: BLOCK,
    };
    let rest = rest.as_flattened();
    let text = read_only(rest);
    // SAFETY: the mode does not write; what is read is a slice that outlives the call, and not
    // empty, since a unit has more than a block.
    let sum = unsafe { crypt::<V, Hash, NONE, GROUP>(cpu, key.expanded(), &head, text) };
    store(hash, sum);
}

/// The tag of a message of more than a block.
#[inline(always)]
fn end_message<V: Lanes, const GROUP: usize>(
    cpu: Cpu<V>,
    message: &Message<'_>,
    iv: u64,
) -> [u8; BLOCK] {
    let narrowest = cpu.narrowest();
    let (first, rest) = message.rest.split_at(BLOCK);
    let length = message.waiting.saturating_sub(BLOCK);
    let mut tag = [0; BLOCK];
    if let Some(first) = first.first_chunk() {
        let head = Head {
            nonce: nonce(message.key.salt(), iv),
            data: load(first).reversed(narrowest).xor(load(&message.hash)),
            data_length: message.length - length,
        };
        let text = read_only(&rest[..length]);
        // SAFETY: the mode does not write; what is read is a slice that outlives the call, and not
        // empty: the message is longer than a block, and so is what waits of it.
        let made =
            unsafe { crypt::<V, GmacEnd, NONE, GROUP>(cpu, message.key.expanded(), &head, text) };
        store(
            &mut tag,
            made.xor(message.key.hiding(narrowest, head.nonce)),
        );
    }
    tag
}

compiled!(absorbing: absorb_units(key: &AesGcm, hash: &mut [u8; BLOCK], units: &[Unit]));
compiled!(ending: end_message(message: &Message<'_>, iv: u64) -> [u8; BLOCK]);

impl AesGcm {
    /// GMAC over the pieces that `pieces` gives, under the IV of AH. `None` for an IV of another
    /// length than 8 bytes, and for a message of no more than a block, which AH does not have.
    //= T151 (RFC 4543 section 4)
    pub(in super::super) fn over(&self, iv: &[u8], pieces: &mut Pieces<'_>) -> Option<[u8; BLOCK]> {
        let iv = u64::from_le_bytes(iv.try_into().ok()?);
        let mut message = Message {
            key: self,
            hash: [0; BLOCK],
            rest: [0; UNIT + BLOCK],
            waiting: 0,
            length: 0,
        };
        pieces(&mut |piece| message.add(piece));
        if message.length <= BLOCK {
            return None;
        }
        // SAFETY: the form exists, so the CPU has what its kernel takes (`Form::all`).
        Some(unsafe { ending(self.form())(&message, iv) })
    }
}
