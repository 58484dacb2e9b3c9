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
