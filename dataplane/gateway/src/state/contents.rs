//! The records of one state directory as bytes: a header, the records, a checksum over all.

use std::collections::BTreeMap;

use ipsec::sa::association::Direction;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};

use crate::state::{Carried, KeyId, Record, StateError};

/// Everything that is kept. Records stay although their key is in no configuration: it may return.
#[derive(Clone, Debug, PartialEq, Eq)]
//= T38 (RFC 4303 section 3.3.3)
pub struct Contents {
    /// Key of the hash that names keys; drawn once per directory.
    pub secret: [u8; 32],
    /// Somebody declared that no key without a record was ever used.
    pub declared: bool,
    /// By key.
    pub records: BTreeMap<KeyId, Record>,
}

/// Why bytes are no contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Torn, garbled or foreign.
    Damaged(&'static str),
    /// Of a format that this version does not know.
    Version(u32),
}

const MAGIC: &[u8; 8] = b"xipsecst";
const VERSION: u32 = 2;
/// Records without what their SAs had carried.
const VERSION_1: u32 = 1;
const CHECKSUM: usize = 32;

impl Contents {
    /// No records, a fresh secret.
    ///
    /// # Errors
    /// [`StateError::Random`].
    pub fn new(declared: bool) -> Result<Self, StateError> {
        Ok(Self {
            secret: random()?,
            declared,
            records: BTreeMap::new(),
        })
    }

    /// As a file has them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.records.len() * 96);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_be_bytes());
        bytes.extend(self.secret);
        bytes.push(self.declared.into());
        bytes.extend((self.records.len() as u64).to_be_bytes());
        for record in self.records.values() {
            bytes.extend(record.key.0);
            bytes.push(match record.direction {
                Direction::In => 0,
                Direction::Out => 1,
            });
            bytes.extend(record.reserved_end.to_be_bytes());
            bytes.extend(record.iv_mask.to_be_bytes());
            bytes.extend(record.boot);
            extend_with_length(&mut bytes, record.name.as_bytes());
            extend_with_length(&mut bytes, &record.window);
            let carried = record.carried;
            for number in [
                carried.packets,
                carried.bytes,
                carried.sequence,
                carried.born,
            ] {
                bytes.extend(number.to_be_bytes());
            }
        }
        let checksum = digest::digest(&digest::SHA256, &bytes);
        bytes.extend(checksum.as_ref());
        bytes
    }

    /// The reverse of [`Self::to_bytes`].
    ///
    /// # Errors
    /// [`Flaw`] for anything that it cannot have written.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Flaw> {
        let short = Flaw::Damaged("cut off");
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(short)?;
        let mut rest = body;
        if take::<8>(&mut rest).ok_or(short)? != *MAGIC {
            return Err(Flaw::Damaged("not a file of xipsec"));
        }
        let version = u32::from_be_bytes(take(&mut rest).ok_or(short)?);
        if digest::digest(&digest::SHA256, body).as_ref() != checksum {
            return Err(Flaw::Damaged("the checksum is wrong"));
        }
        if version != VERSION && version != VERSION_1 {
            return Err(Flaw::Version(version));
        }
        Self::from_body(rest, version).ok_or(Flaw::Damaged("inconsistent"))
    }

    fn from_body(mut rest: &[u8], version: u32) -> Option<Self> {
        let secret = take(&mut rest)?;
        let declared = take::<1>(&mut rest)? == [1];
        let count = u64::from_be_bytes(take(&mut rest)?);
        let mut records = BTreeMap::new();
        for _ in 0..count {
            let record = take_record(&mut rest, version)?;
            records.insert(record.key, record);
        }
        rest.is_empty().then_some(Self {
            secret,
            declared,
            records,
        })
    }
}

fn take_record(rest: &mut &[u8], version: u32) -> Option<Record> {
    let key = KeyId(take(rest)?);
    let direction = match take::<1>(rest)? {
        [0] => Direction::In,
        [1] => Direction::Out,
        _ => return None,
    };
    let reserved_end = u64::from_be_bytes(take(rest)?);
    Some(Record {
        key,
        direction,
        reserved_end,
        iv_mask: u64::from_be_bytes(take(rest)?),
        boot: take(rest)?,
        name: String::from_utf8(take_with_length(rest)?.to_vec()).ok()?,
        window: take_with_length(rest)?.to_vec(),
        carried: match version {
            // Nothing is known of it, nor of what lies within the reservation.
            VERSION_1 => Carried {
                sequence: reserved_end,
                ..Carried::default()
            },
            _ => Carried {
                packets: u64::from_be_bytes(take(rest)?),
                bytes: u64::from_be_bytes(take(rest)?),
                sequence: u64::from_be_bytes(take(rest)?),
                born: u64::from_be_bytes(take(rest)?),
            },
        },
    })
}

fn take<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(*taken)
}

fn take_with_length<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(u32::from_be_bytes(take(rest)?)).ok()?;
    let (taken, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(taken)
}

/// Names have 64 bytes, windows 128 KiB: what would not fit is not written at all.
fn extend_with_length(bytes: &mut Vec<u8>, text: &[u8]) {
    let (length, text) = match u32::try_from(text.len()) {
        Ok(length) => (length, text),
        Err(_) => (0, [].as_slice()),
    };
    bytes.extend(length.to_be_bytes());
    bytes.extend(text);
}

/// Fresh random bytes.
pub(super) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], StateError> {
    let mut bytes = [0; LENGTH];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| StateError::Random)?;
    Ok(bytes)
}
