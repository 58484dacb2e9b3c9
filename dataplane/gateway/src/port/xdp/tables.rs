//! The maps of one program that say what it takes, each mirrored.

use aya::Ebpf;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use xipsec_abi::{Address, Encapsulation, Endpoint, Groups, SaKey, limits, map};

use super::error::ProgramError;
use super::mirror::{Mirror, Raw};
use super::steer::{self, MapContents, Prefix};

type Hash<K, V> = Mirror<HashMap<MapData, Raw<K>, Raw<V>>, K, V>;
type Trie = Mirror<LpmTrie<MapData, Raw<Address>, Raw<Groups>>, Prefix, Groups>;

/// The maps that tables are written to, each with what it holds.
pub(super) struct Tables {
    endpoints: Hash<Address, Endpoint>,
    encapsulation: Hash<Encapsulation, u8>,
    peers: Hash<Address, u8>,
    sas: Hash<SaKey, u8>,
    local: Hash<Address, u8>,
    source: Trie,
    destination: Trie,
}

impl Tables {
    /// From a loaded object, all empty.
    pub(super) fn take(ebpf: &mut Ebpf, listed_sas: u32) -> Result<Self, MapError> {
        Ok(Self {
            endpoints: hash(ebpf, map::ENDPOINTS, limits::ADDRESSES)?,
            encapsulation: hash(ebpf, map::ENCAPSULATION, limits::ADDRESSES)?,
            peers: hash(ebpf, map::PEERS, limits::ADDRESSES)?,
            sas: hash(ebpf, map::SAS, listed_sas)?,
            local: hash(ebpf, map::LOCAL, limits::ADDRESSES)?,
            source: trie(ebpf, map::SOURCE)?,
            destination: trie(ebpf, map::DESTINATION)?,
        })
    }

    /// Adds what `wanted` has; the tries take what they took and what they shall take.
    pub(super) fn extend(
        &mut self,
        interface: &str,
        wanted: &MapContents,
    ) -> Result<(), ProgramError> {
        self.local.add(interface, &wanted.local)?;
        self.sas.add(interface, &wanted.sas)?;
        self.encapsulation.add(interface, &wanted.encapsulation)?;
        self.peers.add(interface, &wanted.peers)?;
        self.endpoints.add(interface, &wanted.endpoints)?;
        let source = steer::union(self.source.loaded(), &wanted.source);
        self.source.add(interface, &source)?;
        let destination = steer::union(self.destination.loaded(), &wanted.destination);
        self.destination.add(interface, &destination)
    }

    /// Leaves what `wanted` has and nothing else.
    pub(super) fn settle(
        &mut self,
        interface: &str,
        wanted: &MapContents,
    ) -> Result<(), ProgramError> {
        self.source.settle(interface, &wanted.source)?;
        self.destination.settle(interface, &wanted.destination)?;
        self.endpoints.settle(interface, &wanted.endpoints)?;
        self.encapsulation
            .settle(interface, &wanted.encapsulation)?;
        self.peers.settle(interface, &wanted.peers)?;
        self.sas.settle(interface, &wanted.sas)?;
        self.local.settle(interface, &wanted.local)
    }
}

/// A map of the object. All are there: the object and its names come from one build.
pub(super) fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, MapError> {
    ebpf.take_map(name).ok_or_else(|| MapError::InvalidName {
        name: name.to_owned(),
    })
}

fn hash<K, V>(ebpf: &mut Ebpf, name: &'static str, limit: u32) -> Result<Hash<K, V>, MapError>
where
    Raw<K>: aya::Pod,
    Raw<V>: aya::Pod,
    K: Copy + Ord,
    V: Copy + PartialEq,
{
    Ok(Mirror::new(
        name,
        limit,
        HashMap::try_from(take(ebpf, name)?)?,
    ))
}

fn trie(ebpf: &mut Ebpf, name: &'static str) -> Result<Trie, MapError> {
    Ok(Mirror::new(
        name,
        limits::PREFIX_ENTRIES,
        LpmTrie::try_from(take(ebpf, name)?)?,
    ))
}
