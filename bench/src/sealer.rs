//! Makes ESP of what a generator sends: the other gateway of a device that opens.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use arrayvec::ArrayVec;
use ipsec::crypto::suite::{Encryption, Suite};
use ipsec::crypto::{SealJob, Transform, seal};
use ipsec::limits::BATCH;
use ipsec::secret::Secret;
use ipsec::wire::checksum::Sum;

/// Outer IPv4 header, ESP header, IV.
const FRONT: usize = 20 + 8 + 8;

/// ICV of AES-GCM.
const ICV: usize = 16;

/// Next header of a tunnelled IPv4 packet.
const IPV4: u8 = 4;

/// One SA in tunnel mode with AES-GCM, as its sender has it.
pub struct Sealer {
    transform: Transform,
    spi: u32,
    /// Outer source and destination.
    addresses: [Ipv4Addr; 2],
    /// The last number used. IVs follow it, so a key is for one run alone.
    sequence: u32,
    /// Inner packets of one burst.
    inner: Vec<Vec<u8>>,
}

impl Sealer {
    /// For an SA that has sent nothing yet.
    #[must_use]
    pub fn new(transform: Transform, spi: u32, addresses: [Ipv4Addr; 2]) -> Self {
        Self {
            transform,
            spi,
            addresses,
            sequence: 0,
            inner: Vec::new(),
        }
    }

    /// Bytes of the ESP packet around an inner one of `length` bytes.
    #[must_use]
    pub const fn sealed_length(length: usize) -> usize {
        FRONT + (length + 2).next_multiple_of(4) + ICV
    }

    /// Puts an inner packet aside for the next [`Self::seal`].
    pub fn add(&mut self, packet: &[u8]) {
        self.inner.push(packet.to_vec());
    }

    /// Seals what was put aside, each packet into one of `rooms`, which begin at the outer header
    /// and have [`Self::sealed_length`] bytes.
    ///
    /// # Errors
    /// More packets than a burst has, or the SA's numbers are used up.
    pub fn seal(&mut self, rooms: &mut ArrayVec<&mut [u8], BATCH>) -> Result<()> {
        if rooms.len() != self.inner.len() {
            bail!("{} rooms for {} packets", rooms.len(), self.inner.len());
        }
        let mut jobs: ArrayVec<SealJob<'_>, BATCH> = ArrayVec::new();
        for (room, inner) in rooms.iter_mut().zip(&self.inner) {
            let Some(sequence) = self.sequence.checked_add(1) else {
                bail!("the SA's numbers are used up");
            };
            self.sequence = sequence;
            self.write(room, inner.len());
            jobs.push(SealJob {
                transform: &self.transform,
                source: inner,
                destination: &mut room[20..],
                sequence: sequence.into(),
                esn: false,
            });
        }
        seal(&mut jobs);
        drop(jobs);
        self.inner.clear();
        Ok(())
    }

    /// Everything but what the cipher writes: outer header, ESP header, IV, trailer.
    fn write(&self, room: &mut [u8], inner: usize) {
        let total = u16::try_from(room.len()).unwrap_or(u16::MAX);
        room[..20].fill(0);
        room[0] = 0x45;
        room[2..4].copy_from_slice(&total.to_be_bytes());
        room[8..10].copy_from_slice(&[64, 50]);
        room[12..16].copy_from_slice(&self.addresses[0].octets());
        room[16..20].copy_from_slice(&self.addresses[1].octets());
        let sum = Sum::ZERO.bytes(&room[..20]).checksum();
        room[10..12].copy_from_slice(&sum.to_be_bytes());
        room[20..24].copy_from_slice(&self.spi.to_be_bytes());
        room[24..28].copy_from_slice(&self.sequence.to_be_bytes());
        room[28..36].copy_from_slice(&u64::from(self.sequence).to_be_bytes());
        let padding = (inner + 2).next_multiple_of(4) - inner - 2;
        let trailer = &mut room[FRONT + inner..];
        for (byte, count) in trailer[..padding].iter_mut().zip(1..) {
            *byte = count;
        }
        trailer[padding] = u8::try_from(padding).unwrap_or(u8::MAX);
        trailer[padding + 1] = IPV4;
    }
}

/// An SA's key for AES-GCM with a 16-byte ICV, in hexadecimal with the salt at its end.
///
/// # Errors
/// Not hexadecimal, or of no key's length.
pub fn key(text: &str) -> Result<Transform> {
    let digits = text.trim();
    let byte = |at: usize| {
        let pair = digits.get(at..at + 2).context("an odd number of digits")?;
        u8::from_str_radix(pair, 16).context("no hexadecimal digits")
    };
    let bytes: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(byte)
        .collect::<Result<_>>()?;
    let bits = match bytes.len() {
        20 => 128,
        36 => 256,
        other => bail!("a key of {other} bytes; AES-GCM takes 20 or 36"),
    };
    let suite = Suite {
        encryption: Encryption::AesGcm { bits, icv: 16 },
        integrity: None,
    };
    Ok(Transform::new(
        suite,
        &Secret::new(bytes),
        &Secret::default(),
    )?)
}

#[cfg(test)]
mod tests {
    use ipsec::crypto::{OpenJob, open};

    use super::*;

    #[test]
    fn what_is_sealed_opens_again_with_rising_numbers() -> Result<()> {
        let hexadecimal = "07".repeat(20);
        let addresses = ["192.0.2.2".parse()?, "192.0.2.1".parse()?];
        let mut sealer = Sealer::new(key(&hexadecimal)?, 0x1002, addresses);
        let receiver = key(&hexadecimal)?;
        for (round, length) in [(0, 48), (1, 65), (2, 1419)] {
            let packets: Vec<Vec<u8>> = (1..=3).map(|fill| vec![fill; length]).collect();
            let mut memory = vec![vec![0xaa; Sealer::sealed_length(length)]; 3];
            packets.iter().for_each(|packet| sealer.add(packet));
            sealer.seal(&mut memory.iter_mut().map(Vec::as_mut_slice).collect())?;
            for (at, (sealed, packet)) in (1_u32..).zip(memory.iter().zip(&packets)) {
                let sequence = round * 3 + at;
                assert_eq!(sealed[24..28], sequence.to_be_bytes());
                let parsed = ipsec::packet::parse(sealed);
                let whole = |length: u16| usize::from(length) == sealed.len();
                assert!(parsed.is_ok_and(|parsed| whole(parsed.length)));
                let mut room = vec![0; sealed.len()];
                let mut jobs = [OpenJob {
                    transform: &receiver,
                    source: &sealed[20..],
                    destination: &mut room,
                    sequence: sequence.into(),
                    esn: false,
                    authentic: false,
                }];
                open(&mut jobs);
                assert!(jobs[0].authentic);
                assert_eq!(room[..length], packet[..]);
                let plain = Sealer::sealed_length(length) - FRONT - ICV;
                assert_eq!(room[plain - 1], IPV4);
                assert_eq!(usize::from(room[plain - 2]), plain - 2 - length);
            }
        }
        Ok(())
    }

    #[test]
    fn keys_have_the_length_of_one() {
        assert!(key(&"00".repeat(20)).is_ok() && key(&"aB".repeat(36)).is_ok());
        for wrong in ["", "0", "zz", &"00".repeat(16)] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }
}
