//! The keeper of reservations: computes where SAs start, extends what is reserved, and never lets
//! a worker use what is not on disk.

use std::collections::HashSet;

use ipsec::sa::association::Direction;
use ipsec::sa::lifetime::Usage;
use ipsec::sa::sequence::last_number;
use ipsec::sa::{SaParameters, SaSlot};
use ipsec::time::{SECOND, Time};

use crate::state::block::{Rate, first_lead, lead};
use crate::state::carried::clock;
use crate::state::contents::random;
use crate::state::identity::key_id;
use crate::state::{Carried, Contents, KeyId, Record, Reservation, StateError, Store};

/// One SA's new end, on disk: to be stored into its `Published::reserved_end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The SA.
    pub slot: SaSlot,
    /// Numbers up to this one may be used or accepted from now on. Lower than before only in
    /// answers of [`Keeper::review`].
    pub reserved_end: u64,
}

/// How far an SA in use is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The SA.
    pub slot: SaSlot,
    /// The number that reservations must cover (`SaState::needed`).
    pub needed: u64,
    /// Last number used (out), highest accepted (in). To be read before the two below, so that
    /// what is carried meanwhile is rather counted twice than not.
    pub sequence: u64,
    /// Packets since the SA was born.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Reached {
    fn carried(&self, before: Carried) -> Carried {
        Carried {
            packets: self.packets,
            bytes: self.bytes,
            sequence: self.sequence,
            born: before.born,
        }
    }
}

/// Where an SA stood at a clean stop, when no worker runs any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The SA.
    pub slot: SaSlot,
    /// Last number used (out), highest accepted (in).
    pub sequence: u64,
    /// In: the window, as `SavedWindow::to_bytes` has it; its right edge is `sequence`.
    pub window: Vec<u8>,
    /// Packets since the SA was born.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Keeps the records of all SAs, one commit for as many as ask together.
pub struct Keeper {
    store: Box<dyn Store>,
    contents: Contents,
    kept: Vec<Option<Kept>>,
    /// The first blocks, until [`Keeper::begin`] writes them.
    unwritten: Vec<Record>,
}

/// One SA in use.
struct Kept {
    key: KeyId,
    direction: Direction,
    /// The number that it started behind.
    start: u64,
    last_number: u64,
    rate: Rate,
    /// What the worker was told.
    granted: u64,
    /// Since when `granted` has been lower than the record; the record follows.
    lowered: Option<Time>,
}

/// Workers read `reserved_end` once a batch; after this long every one has seen a lower one.
const GRACE: u64 = SECOND;

impl Keeper {
    /// Reads the records and computes where every SA starts; SA `i` has slot `i`. Nothing is
    /// written, so that a start which is refused later leaves the records as they were: no SA may
    /// be used before [`Self::begin`].
    ///
    /// # Errors
    /// Unreadable or damaged records, or a counter-mode key without a record in a directory that
    /// was not declared fresh.
    pub fn open(
        store: Box<dyn Store>,
        sas: &[SaParameters],
        now: Time,
    ) -> Result<(Self, Vec<Reservation>), StateError> {
        let contents = match store.read()? {
            Some(contents) => contents,
            None => Contents::new(false)?,
        };
        let mut keeper = Self {
            store,
            contents,
            kept: Vec::new(),
            unwritten: Vec::new(),
        };
        let slots = (0..).map(SaSlot);
        let sas: Vec<_> = slots.zip(sas).collect();
        let (records, reservations) = keeper.first_blocks(&sas)?;
        keeper.unwritten = records;
        keeper.take_on(&sas, &reservations, now);
        Ok((keeper, reservations))
    }

    /// Reserves the first block of every SA in one commit: the point from which on a crash counts
    /// as one.
    ///
    /// # Errors
    /// The write failed. No SA may then be used.
    pub fn begin(&mut self) -> Result<(), StateError> {
        let records = std::mem::take(&mut self.unwritten);
        self.commit(records)
    }

    /// Takes on further SAs and reserves their first blocks in one commit; answers in their order.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Self::begin`]; nothing has then changed.
    pub fn add(
        &mut self,
        sas: &[(SaSlot, &SaParameters)],
        now: Time,
    ) -> Result<Vec<Reservation>, StateError> {
        let (records, reservations) = self.first_blocks(sas)?;
        self.commit(records)?;
        self.take_on(sas, &reservations, now);
        Ok(reservations)
    }

    fn first_blocks(
        &self,
        sas: &[(SaSlot, &SaParameters)],
    ) -> Result<(Vec<Record>, Vec<Reservation>), StateError> {
        let boot = boot();
        let mut reservations = Vec::with_capacity(sas.len());
        let mut records = Vec::with_capacity(sas.len());
        let mut in_use: HashSet<KeyId> = self.kept.iter().flatten().map(|kept| kept.key).collect();
        for (_, sa) in sas {
            let key = key_id(&self.contents.secret, sa);
            if !in_use.insert(key) {
                return Err(StateError::KeyInUse {
                    sa: sa.name.clone(),
                });
            }
            let known = self.contents.records.get(&key);
            if known.is_none() && sa.suite.is_counter_mode() && !self.contents.declared {
                return Err(StateError::Undeclared {
                    path: self.store.place(),
                    sa: sa.name.clone(),
                });
            }
            let (record, reservation) = begin(key, known, sa, boot)?;
            records.push(record);
            reservations.push(reservation);
        }
        Ok((records, reservations))
    }

    fn take_on(
        &mut self,
        sas: &[(SaSlot, &SaParameters)],
        reservations: &[Reservation],
        now: Time,
    ) {
        for ((slot, sa), reservation) in sas.iter().zip(reservations) {
            let kept = Kept {
                key: key_id(&self.contents.secret, sa),
                direction: sa.direction,
                start: reservation.sequence,
                last_number: last_number(sa.esn),
                rate: Rate::new(reservation.sequence, now),
                granted: reservation.reserved_end,
                lowered: None,
            };
            if self.kept.len() <= slot.index() {
                self.kept.resize_with(slot.index() + 1, || None);
            }
            self.kept[slot.index()] = Some(kept);
        }
    }

    /// Forgets an SA that was deleted. Its record stays: the key may return.
    pub fn remove(&mut self, slot: SaSlot) {
        if let Some(kept) = self.kept.get_mut(slot.index()) {
            *kept = None;
        }
    }

    /// Reserves further numbers for SAs that asked, with the number that each has reached. One
    /// commit; nothing is written where a second's worth is reserved already.
    ///
    /// # Errors
    /// The write failed: nothing has changed, and the SAs go on with what they have.
    pub fn extend(&mut self, requests: &[Reached], now: Time) -> Result<Vec<Grant>, StateError> {
        let mut changes = Vec::new();
        let mut grants = Vec::new();
        for reached in requests {
            let slot = reached.slot;
            let Some(kept) = self.kept.get_mut(slot.index()).and_then(Option::as_mut) else {
                continue;
            };
            let wanted = kept.wanted(reached.needed, now);
            let Some(record) = self.contents.records.get(&kept.key) else {
                continue;
            };
            if wanted <= kept.granted {
                continue;
            }
            if wanted > record.reserved_end {
                changes.push(Record {
                    reserved_end: wanted,
                    carried: reached.carried(record.carried),
                    ..record.clone()
                });
            }
            let reserved_end = wanted;
            grants.push(Grant { slot, reserved_end });
        }
        self.commit(changes)?;
        for grant in &grants {
            if let Some(Some(kept)) = self.kept.get_mut(grant.slot.index()) {
                kept.granted = grant.reserved_end;
            }
        }
        Ok(grants)
    }

    /// To be called about once a second with the numbers that all inbound SAs have reached: limits
    /// go down where the rate has fallen. The grants are to be published at once; the records
    /// follow in a later call, when every worker has seen them.
    ///
    /// # Errors
    /// The write failed: nothing has changed.
    pub fn review(&mut self, reached: &[Reached], now: Time) -> Result<Vec<Grant>, StateError> {
        self.settle(reached, now)?;
        let mut grants = Vec::new();
        for &Reached { slot, needed, .. } in reached {
            let Some(kept) = self.kept.get_mut(slot.index()).and_then(Option::as_mut) else {
                continue;
            };
            let wanted = kept.wanted(needed, now);
            let untouched = needed == kept.start;
            if kept.direction == Direction::In && !untouched && wanted < kept.granted {
                kept.granted = wanted;
                kept.lowered = Some(now);
                let reserved_end = wanted;
                grants.push(Grant { slot, reserved_end });
            }
        }
        Ok(grants)
    }

    /// Lowers the records of limits that every worker has seen lowered.
    fn settle(&mut self, reached: &[Reached], now: Time) -> Result<(), StateError> {
        let mut changes = Vec::new();
        let mut settled = Vec::new();
        for one in reached {
            let slot = one.slot;
            let Some(kept) = self.kept.get(slot.index()).and_then(Option::as_ref) else {
                continue;
            };
            if kept.lowered.is_none_or(|since| now.since(since) < GRACE) {
                continue;
            }
            // A worker that had not yet seen the lower limit may have passed it.
            let end = kept.granted.max(one.needed);
            if let Some(record) = self.contents.records.get(&kept.key)
                && end < record.reserved_end
            {
                changes.push(Record {
                    reserved_end: end,
                    carried: one.carried(record.carried),
                    ..record.clone()
                });
            }
            settled.push(slot);
        }
        self.commit(changes)?;
        for slot in settled {
            if let Some(Some(kept)) = self.kept.get_mut(slot.index()) {
                kept.lowered = None;
            }
        }
        Ok(())
    }

    /// Writes where everything stands, exactly. Only when no worker runs any more. SAs that are not
    /// among `ends` start as after a crash.
    ///
    /// # Errors
    /// The write failed: all start as after a crash.
    pub fn close(mut self, ends: Vec<End>) -> Result<(), StateError> {
        let mut changes = Vec::with_capacity(ends.len());
        for end in ends {
            let kept = self.kept.get(end.slot.index()).and_then(Option::as_ref);
            let Some(record) = kept.and_then(|kept| self.contents.records.get(&kept.key)) else {
                continue;
            };
            // Without anti-replay no reservation holds a number back, and the end may lie beyond.
            changes.push(Record {
                reserved_end: end.sequence,
                window: end.window,
                carried: Carried {
                    packets: end.packets,
                    bytes: end.bytes,
                    sequence: end.sequence,
                    born: record.carried.born,
                },
                ..record.clone()
            });
        }
        self.commit(changes)
    }

    /// Replaces records, all or none.
    fn commit(&mut self, changes: Vec<Record>) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let before: Vec<(KeyId, Option<Record>)> = changes
            .into_iter()
            .map(|record| (record.key, self.contents.records.insert(record.key, record)))
            .collect();
        let committed = self.store.commit(&self.contents);
        if committed.is_err() {
            // In reverse, in case one key changed twice.
            for (key, record) in before.into_iter().rev() {
                match record {
                    Some(mut record) => {
                        // The disk may hold either; the lower end promises less.
                        if let Some(new) = self.contents.records.get(&key) {
                            record.reserved_end = record.reserved_end.min(new.reserved_end);
                        }
                        self.contents.records.insert(key, record)
                    }
                    None => self.contents.records.remove(&key),
                };
            }
        }
        committed
    }
}

impl Kept {
    /// The end that a second's worth of numbers asks for.
    fn wanted(&mut self, sequence: u64, now: Time) -> u64 {
        let rate = self.rate.measure(sequence, now);
        let wanted = sequence.saturating_add(lead(self.direction, rate));
        wanted.min(self.last_number)
    }
}

/// A record with the first block in it, and where the SA starts.
fn begin(
    key: KeyId,
    known: Option<&Record>,
    sa: &SaParameters,
    boot: [u8; 16],
) -> Result<(Record, Reservation), StateError> {
    let reserved = known.map_or(0, |record| record.reserved_end);
    let sequence = sa.sequence.max(reserved);
    // A peer that was seen before goes on where it stopped: a lead would be lost by every crash,
    // its first packet asks for one.
    let block = match (known, sa.direction) {
        (Some(_), Direction::In) => 0,
        _ => first_lead(sa.direction),
    };
    let reserved_end = sequence
        .saturating_add(block)
        .min(last_number(sa.esn))
        .max(sequence);
    // The window tells about numbers up to the reserved end, no other.
    let window = match known {
        Some(record) if record.reserved_end == sequence => record.window.clone(),
        _ => Vec::new(),
    };
    let clock = clock();
    let usage = known.map_or_else(Usage::default, |record| record.usage(clock));
    let born = known.map_or(0, |record| record.carried.born);
    let carried = Carried {
        packets: usage.packets,
        bytes: usage.bytes,
        sequence,
        born: if born == 0 { clock } else { born },
    };
    let (iv_mask, boot) = match known {
        Some(record) => (record.iv_mask, record.boot),
        None => (u64::from_be_bytes(random()?), boot),
    };
    let record = Record {
        key,
        name: sa.name.clone(),
        direction: sa.direction,
        reserved_end,
        iv_mask,
        boot,
        // From here on a crash can happen, and the saved window must not come back.
        window: Vec::new(),
        carried,
    };
    let reservation = Reservation {
        sequence,
        reserved_end,
        iv_mask,
        window,
        usage,
    };
    Ok((record, reservation))
}

/// Where SAs start without persistence, and in replay: nothing is reserved and nothing remembered.
#[must_use]
pub fn unreserved(sas: &[SaParameters]) -> Vec<Reservation> {
    let reservation = |sa: &SaParameters| Reservation {
        sequence: sa.sequence,
        reserved_end: u64::MAX,
        iv_mask: 0,
        window: Vec::new(),
        usage: Usage::default(),
    };
    sas.iter().map(reservation).collect()
}

/// The kernel's boot; zero where it does not tell.
pub(super) fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}
