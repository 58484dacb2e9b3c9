//! What an operator does with a state directory: declare it fresh, look, override a loss. Nothing
//! here runs beside a gateway but looking.

use std::path::Path;

use ipsec::sa::SaParameters;
use ipsec::sa::association::Direction;
use ipsec::sa::lifetime::Usage;

use crate::state::carried::clock;
use crate::state::contents::random;
use crate::state::identity::{key_id, key_id_towards};
use crate::state::keeper::boot;
use crate::state::store::{is_empty, read_records};
use crate::state::{Carried, Contents, Directory, Record, StateError, Store};

/// Declares an empty directory fresh: whoever calls this knows that no key of the configuration was
/// ever used. A directory with records of non-counter modes alone counts as empty, they stay.
///
/// # Errors
/// [`StateError::NotEmpty`] for a directory that was declared already or holds something else.
pub fn init(path: &Path) -> Result<(), StateError> {
    let not_empty = || StateError::NotEmpty {
        path: path.to_path_buf(),
    };
    // Before anything is created in what may be somebody else's directory.
    if read_records(path)?.is_none() && !is_empty(path)? {
        return Err(not_empty());
    }
    let mut directory = Directory::open(path)?;
    let contents = match directory.read()? {
        None => Contents::new(true)?,
        Some(contents) if !contents.declared => Contents {
            declared: true,
            ..contents
        },
        Some(_) => return Err(not_empty()),
    };
    directory.commit(&contents)
}

/// Gives SAs new records with new IV masks in place of what is lost: one by name, or all. Numbers
/// go on behind what is still known. Damaged records are given up.
///
/// # Errors
/// [`StateError::UnknownSa`], or what writing says.
pub fn accept_loss(
    path: &Path,
    sas: &[SaParameters],
    name: Option<&str>,
) -> Result<(), StateError> {
    let chosen = |sa: &&SaParameters| name.is_none_or(|name| sa.name == name);
    if let Some(name) = name
        && !sas.iter().any(|sa| sa.name == name)
    {
        return Err(StateError::UnknownSa {
            sa: name.to_owned(),
        });
    }
    let mut directory = Directory::open(path)?;
    let mut contents = match directory.read() {
        Ok(Some(contents)) => contents,
        // One SA says nothing about the others: their keys stay refused.
        Ok(None) | Err(StateError::Damaged { .. }) => Contents::new(name.is_none())?,
        Err(error) => return Err(error),
    };
    let boot = boot();
    for sa in sas.iter().filter(chosen) {
        let key = key_id(&contents.secret, sa);
        let known = contents.records.get(&key);
        let carried = known.map(|record| {
            let usage = record.usage(clock());
            Carried {
                packets: usage.packets,
                bytes: usage.bytes,
                sequence: record.reserved_end,
                born: record.carried.born,
            }
        });
        let known = known.map_or(0, |record| record.reserved_end);
        let reserved_end = known.max(sa.sequence);
        let record = Record {
            key,
            name: sa.name.clone(),
            direction: sa.direction,
            reserved_end,
            iv_mask: u64::from_be_bytes(random()?),
            boot,
            window: Vec::new(),
            carried: Carried {
                sequence: reserved_end,
                ..carried.unwrap_or_else(|| Carried {
                    born: clock(),
                    ..Carried::default()
                })
            },
        };
        contents.records.insert(key, record);
    }
    directory.commit(&contents)
}

/// One SA of the configuration and its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The SA's name.
    pub name: String,
    /// Its direction.
    pub direction: Direction,
    /// Its record; `None`: its key has none.
    pub record: Option<Record>,
}

impl Shown {
    /// What counts for its lifetime: exactly after a clean stop, else what may have been carried
    /// up to the reserved end. `None` without a record.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.record.as_ref().map(|record| record.usage(clock()))
    }
}

/// The SAs of a configuration with their records, and how many records belong to none of them.
///
/// # Errors
/// Unreadable or damaged records.
pub fn show(path: &Path, sas: &[SaParameters]) -> Result<(Vec<Shown>, usize), StateError> {
    let records = read_records(path)?;
    let shown: Vec<Shown> = sas
        .iter()
        .map(|sa| Shown {
            name: sa.name.clone(),
            direction: sa.direction,
            record: records
                .as_ref()
                .and_then(|contents| contents.records.get(&key_id(&contents.secret, sa)).cloned()),
        })
        .collect();
    let known = shown.iter().filter(|shown| shown.record.is_some()).count();
    let all = records.map_or(0, |contents| contents.records.len());
    Ok((shown, all.saturating_sub(known)))
}

/// The SAs whose keys have a record in a directory, in either direction: a gateway may have used
/// them. Reads only; a directory that is missing has none.
///
/// # Errors
/// Unreadable or damaged records.
pub fn recorded<'s>(path: &Path, sas: &'s [SaParameters]) -> Result<Vec<&'s str>, StateError> {
    let Some(contents) = read_records(path)? else {
        return Ok(Vec::new());
    };
    let has_record = |sa: &&SaParameters| {
        [Direction::In, Direction::Out]
            .into_iter()
            .any(|direction| {
                let key = key_id_towards(&contents.secret, sa, direction);
                contents.records.contains_key(&key)
            })
    };
    Ok(sas
        .iter()
        .filter(has_record)
        .map(|sa| sa.name.as_str())
        .collect())
}
