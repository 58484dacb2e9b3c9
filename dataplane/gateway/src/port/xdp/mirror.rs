//! A kernel map together with what it holds, so that a change of tables costs only the difference.
#![expect(
    unsafe_code,
    reason = "aya asks for a promise about the bytes of keys and values"
)]

use std::collections::BTreeMap;

use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, MapData, MapError};
use xipsec_abi::{Address, Counter, Encapsulation, Endpoint, Groups, Port, PrefixKey, SaKey};

use super::error::ProgramError;
use super::steer::Prefix;

/// A key or value of the program in aya's hands: `Pod` and the types are both foreign here.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Raw<T>(pub(super) T);

macro_rules! plain_bytes {
    ($($shared:ty),+) => {
        $(
            // SAFETY: the type is `repr(C)` of integers without padding (its size is asserted
            // beside its definition) and any bit pattern is a value.
            unsafe impl Pod for Raw<$shared> {}
        )+
    };
}
plain_bytes!(
    u8,
    Address,
    Counter,
    Encapsulation,
    Endpoint,
    Groups,
    Port,
    SaKey
);

/// Writing and removing one entry of a kernel map.
pub(super) trait KernelMap<K, V> {
    /// Inserts or replaces.
    fn put(&mut self, key: K, value: V) -> Result<(), MapError>;
    /// Removes what is there.
    fn delete(&mut self, key: K) -> Result<(), MapError>;
}

impl<K, V> KernelMap<K, V> for HashMap<MapData, Raw<K>, Raw<V>>
where
    Raw<K>: Pod,
    Raw<V>: Pod,
{
    fn put(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.insert(Raw(key), Raw(value), 0)
    }

    fn delete(&mut self, key: K) -> Result<(), MapError> {
        self.remove(&Raw(key))
    }
}

fn trie_key(prefix: Prefix) -> Key<Raw<Address>> {
    let PrefixKey { length, address } = prefix.into();
    Key::new(length, Raw(address))
}

impl KernelMap<Prefix, Groups> for LpmTrie<MapData, Raw<Address>, Raw<Groups>> {
    fn put(&mut self, key: Prefix, value: Groups) -> Result<(), MapError> {
        self.insert(&trie_key(key), Raw(value), 0)
    }

    fn delete(&mut self, key: Prefix) -> Result<(), MapError> {
        self.remove(&trie_key(key))
    }
}

/// A map and its content as last written.
pub(super) struct Mirror<M, K, V> {
    name: &'static str,
    /// Entries that it can hold.
    limit: u32,
    map: M,
    loaded: BTreeMap<K, V>,
}

impl<M, K, V> Mirror<M, K, V>
where
    M: KernelMap<K, V>,
    K: Copy + Ord,
    V: Copy + PartialEq,
{
    /// Of a map that is still empty.
    pub(super) const fn new(name: &'static str, limit: u32, map: M) -> Self {
        Self {
            name,
            limit,
            map,
            loaded: BTreeMap::new(),
        }
    }

    /// What the map holds.
    pub(super) const fn loaded(&self) -> &BTreeMap<K, V> {
        &self.loaded
    }

    /// Writes what is missing or differs; removes nothing. What was written before an error stays.
    pub(super) fn add(
        &mut self,
        interface: &str,
        wanted: &BTreeMap<K, V>,
    ) -> Result<(), ProgramError> {
        for (&key, &value) in wanted {
            if self.loaded.get(&key) != Some(&value) {
                self.map.put(key, value).map_err(|error| {
                    ProgramError::of_map(interface, self.name, self.limit, &error)
                })?;
                self.loaded.insert(key, value);
            }
        }
        Ok(())
    }

    /// Writes and removes until the map holds `wanted` and nothing else.
    pub(super) fn settle(
        &mut self,
        interface: &str,
        wanted: &BTreeMap<K, V>,
    ) -> Result<(), ProgramError> {
        self.add(interface, wanted)?;
        let stale: Vec<K> = self
            .loaded
            .keys()
            .filter(|key| !wanted.contains_key(key))
            .copied()
            .collect();
        for key in stale {
            self.map
                .delete(key)
                .map_err(|error| ProgramError::of_map(interface, self.name, self.limit, &error))?;
            self.loaded.remove(&key);
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::cell::RefCell;
    use std::net::IpAddr;
    use std::rc::Rc;

    use super::super::steer::{Groupings, union};
    use super::*;

    /// Longest match, the slow way.
    fn look_up(trie: &Groupings, address: &str) -> Groups {
        let address = Prefix::of(address.parse::<IpAddr>().unwrap(), 128);
        let covering = trie.iter().filter(|(prefix, _)| prefix.covers(address));
        covering
            .last()
            .map_or_else(Groups::default, |(_, groups)| *groups)
    }

    /// Both tries of a port in user space; every write is followed by a look at a packet of a
    /// policy that is in the old tables and in the new ones.
    #[derive(Default)]
    struct World {
        source: Groupings,
        destination: Groupings,
        is_watching: bool,
        writes: usize,
    }

    impl World {
        fn written(&mut self) {
            self.writes += 1;
            let source = look_up(&self.source, "10.1.2.3");
            let groups = source.intersection(look_up(&self.destination, "10.2.2.3"));
            assert!(
                !self.is_watching || groups.any != 0,
                "missed after write {}",
                self.writes
            );
        }
    }

    struct Fake {
        world: Rc<RefCell<World>>,
        side: fn(&mut World) -> &mut Groupings,
    }

    impl KernelMap<Prefix, Groups> for Fake {
        fn put(&mut self, key: Prefix, value: Groups) -> Result<(), MapError> {
            let mut world = self.world.borrow_mut();
            (self.side)(&mut world).insert(key, value);
            world.written();
            Ok(())
        }

        fn delete(&mut self, key: Prefix) -> Result<(), MapError> {
            let mut world = self.world.borrow_mut();
            (self.side)(&mut world)
                .remove(&key)
                .ok_or(MapError::KeyNotFound)?;
            world.written();
            Ok(())
        }
    }

    fn trie(entries: &[(&str, u8, u64)]) -> Groupings {
        let entry = |&(address, length, any): &(&str, u8, u64)| {
            let prefix = Prefix::of(address.parse().unwrap(), length);
            (prefix, Groups { any, closed: any })
        };
        entries.iter().map(entry).collect()
    }

    /// The policy moves to another group while a neighbour comes or goes: the worst change.
    #[test]
    fn a_change_misses_no_packet_of_a_policy_that_stays() {
        let one = (trie(&[("10.1.0.0", 16, 1)]), trie(&[("10.2.0.0", 16, 1)]));
        let two = (
            trie(&[("10.1.0.0", 16, 2), ("10.1.2.0", 24, 3)]),
            trie(&[("10.2.0.0", 16, 2), ("10.2.0.0", 20, 6)]),
        );
        let world = Rc::new(RefCell::new(World::default()));
        let mirror = |side| {
            Mirror::new(
                "fake",
                8,
                Fake {
                    world: Rc::clone(&world),
                    side,
                },
            )
        };
        let mut source = mirror(|world| &mut world.source);
        let mut destination = mirror(|world| &mut world.destination);
        for (wanted_source, wanted_destination) in [&one, &two, &one, &two] {
            let both = union(source.loaded(), wanted_source);
            source.add("wan0", &both).unwrap();
            let both = union(destination.loaded(), wanted_destination);
            destination.add("wan0", &both).unwrap();
            source.settle("wan0", wanted_source).unwrap();
            destination.settle("wan0", wanted_destination).unwrap();
            let mut world = world.borrow_mut();
            assert_eq!(
                (&world.source, &world.destination),
                (wanted_source, wanted_destination)
            );
            world.is_watching = true;
        }
        let writes = world.borrow().writes;
        source.settle("wan0", &two.0).unwrap();
        assert_eq!(
            world.borrow().writes,
            writes,
            "what is there is not written again"
        );
    }
}
