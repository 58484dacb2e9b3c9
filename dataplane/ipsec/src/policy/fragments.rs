//! What the first fragments of datagrams met, for their later ones (RFC 4301 §7.4).
//!
//! One table a worker, bounded in datagrams and in time, the oldest forgotten first. It never
//! grows after it was made.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::packet::{Packet, Version};
use crate::policy::PolicyIndex;
use crate::time::Time;

/// What the first fragment's fate means for the later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A bypass policy that looks at ports took it.
    Bypass(PolicyIndex),
    /// A discard policy that looks at ports took it.
    Discard(PolicyIndex),
    /// A policy that looks at no port took it, and takes the later ones by itself.
    Blind,
}

/// What it means for later ones that show a protocol, and for those of IPv6 that do not. `None`:
/// they are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// For fragments that show all but ports and ICMP types.
    pub without_ports: Option<Fate>,
    /// For fragments with [`Packet::hides_protocol`].
    pub without_protocol: Option<Fate>,
}

impl Fates {
    const NONE: Self = Self {
        without_ports: None,
        without_protocol: None,
    };

    const fn of(self, packet: &Packet) -> Option<Fate> {
        if packet.hides_protocol() {
            self.without_protocol
        } else {
            self.without_ports
        }
    }
}

/// Where a datagram was seen: what came in the clear says nothing of what came through an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Passage {
    /// To the unprotected side.
    Outbound,
    /// From the unprotected side, in the clear.
    Clear,
    /// From the unprotected side, through an SA.
    Opened,
}

/// Fragments of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    source: u128,
    destination: u128,
    identification: u32,
    /// 0 for IPv6, whose later fragments may name another (RFC 8200 §4.5).
    protocol: u8,
    version: Version,
    passage: Passage,
}

impl Key {
    const fn of(packet: &Packet, passage: Passage) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            identification: packet.identification,
            protocol: match packet.version {
                Version::V4 => packet.protocol,
                Version::V6 => 0,
            },
            version: packet.version,
            passage,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    fates: Fates,
    seen: Time,
}

/// The table.
#[derive(Debug)]
pub struct Memory {
    entries: HashMap<Key, Entry, foldhash::fast::RandomState>,
    order: VecDeque<(Key, Time)>,
    capacity: usize,
    timeout_ns: u64,
}

impl Memory {
    /// A table for `datagrams` at once, each remembered for `timeout_ns` after its first fragment.
    #[must_use]
    pub fn new(datagrams: usize, timeout_ns: u64) -> Self {
        Self {
            // Twice the room, so that deletions never make the table rehash into a larger one.
            entries: HashMap::with_capacity_and_hasher(
                2 * datagrams,
                foldhash::fast::RandomState::default(),
            ),
            order: VecDeque::with_capacity(datagrams),
            capacity: datagrams,
            timeout_ns,
        }
    }

    /// Notes what the first fragment `packet` met. A second first fragment replaces the first, also
    /// when there is nothing to note: its datagram has taken over the identification.
    //= T121 (RFC 4301 section 7.4)
    pub fn remember(&mut self, packet: &Packet, passage: Passage, fates: Fates, now: Time) {
        let key = Key::of(packet, passage);
        if fates == Fates::NONE {
            self.entries.remove(&key);
            return;
        }
        if self.capacity == 0 {
            return;
        }
        if self.order.len() == self.capacity {
            self.forget_oldest();
        }
        self.entries.insert(key, Entry { fates, seen: now });
        self.order.push_back((key, now));
    }

    /// What the first fragment of the datagram that `packet` belongs to met, if that is known.
    #[must_use]
    pub fn recall(&self, packet: &Packet, passage: Passage, now: Time) -> Option<Fate> {
        let entry = self.entries.get(&Key::of(packet, passage))?;
        let is_known = now.since(entry.seen) < self.timeout_ns;
        entry.fates.of(packet).filter(|_| is_known)
    }

    /// Datagrams held, those whose time is over included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn forget_oldest(&mut self) {
        if let Some((key, seen)) = self.order.pop_front()
            && self
                .entries
                .get(&key)
                .is_some_and(|entry| entry.seen == seen)
        {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragment, Upper};
    use crate::time::MILLISECOND;

    fn fragment(identification: u32) -> Packet {
        Packet {
            source: 1,
            destination: 2,
            length: 60,
            upper_offset: 20,
            identification,
            upper: Upper::Opaque,
            version: Version::V4,
            protocol: 17,
            hop_limit: 64,
            traffic_class: 0,
            fragment: Fragment::Later,
            dont_fragment: false,
        }
    }

    const BYPASS: Fate = Fate::Bypass(PolicyIndex(3));

    /// For fragments that show their protocol.
    fn fates(fate: Fate) -> Fates {
        Fates {
            without_ports: Some(fate),
            ..Fates::NONE
        }
    }

    //= test T121
    #[test]
    fn the_first_fragments_fate_holds_until_its_time_is_over() {
        let mut memory = Memory::new(4, 1000 * MILLISECOND);
        memory.remember(&fragment(7), Passage::Clear, fates(BYPASS), Time(5));
        let recall =
            |memory: &Memory, id, passage, now| memory.recall(&fragment(id), passage, Time(now));
        assert_eq!(recall(&memory, 7, Passage::Clear, 6), Some(BYPASS));
        assert_eq!(recall(&memory, 8, Passage::Clear, 6), None);
        assert_eq!(recall(&memory, 7, Passage::Opened, 6), None);
        let end = 5 + 1000 * MILLISECOND;
        assert_eq!(recall(&memory, 7, Passage::Clear, end - 1), Some(BYPASS));
        assert_eq!(recall(&memory, 7, Passage::Clear, end), None);
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_the_table_keeps_its_size() {
        let mut memory = Memory::new(2, MILLISECOND);
        for identification in 0..1000 {
            memory.remember(
                &fragment(identification),
                Passage::Clear,
                fates(BYPASS),
                Time(0),
            );
            assert!(memory.len() <= 2);
        }
        assert_eq!(memory.recall(&fragment(997), Passage::Clear, Time(0)), None);
        assert!(
            memory
                .recall(&fragment(998), Passage::Clear, Time(0))
                .is_some()
        );
        assert!(
            memory
                .recall(&fragment(999), Passage::Clear, Time(0))
                .is_some()
        );
    }

    #[test]
    fn a_repeated_first_fragment_replaces_and_outlives_its_older_note() {
        let mut memory = Memory::new(2, MILLISECOND);
        memory.remember(&fragment(1), Passage::Clear, fates(Fate::Blind), Time(0));
        memory.remember(&fragment(1), Passage::Clear, fates(BYPASS), Time(9));
        memory.remember(&fragment(2), Passage::Clear, fates(BYPASS), Time(10));
        assert_eq!(
            memory.recall(&fragment(1), Passage::Clear, Time(10)),
            Some(BYPASS)
        );
    }

    #[test]
    fn no_room_at_all_remembers_nothing() {
        let mut memory = Memory::new(0, MILLISECOND);
        memory.remember(&fragment(1), Passage::Clear, fates(BYPASS), Time(0));
        assert!(memory.is_empty());
    }
}
