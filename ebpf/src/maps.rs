//! The maps. Their names are those of `xipsec_abi::map`; the loader sizes `sockets`, `counters` and
//! `sas` to the port.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, XskMap};
use aya_ebpf::macros::btf_map;
use xipsec_abi::{
    Address, Counter, Encapsulation, Endpoint, Groups, OUTCOMES, Outcome, Port, SaKey,
    TRIE_FAMILY_BITS, counter_index, limits,
};

const ADDRESSES: usize = limits::ADDRESSES as usize;
/// Memory as entries come: the bounds are far above what most gateways hold.
const GROWING: usize = BPF_F_NO_PREALLOC as usize;

/// Addresses of one kind.
pub type AddressSet = HashMap<Address, u8, ADDRESSES, GROWING>;
/// Prefixes and their policy groups.
pub type Prefixes = LpmTrie<Address, Groups, { limits::PREFIX_ENTRIES as usize }>;

#[btf_map(name = "port")]
static PORT: Array<Port, 1> = Array::new();
#[btf_map(name = "endpoints")]
static ENDPOINTS: HashMap<Address, Endpoint, ADDRESSES, GROWING> = HashMap::new();
#[btf_map(name = "encapsulation")]
static ENCAPSULATION: HashMap<Encapsulation, u8, ADDRESSES, GROWING> = HashMap::new();
#[btf_map(name = "peers")]
static PEERS: AddressSet = AddressSet::new();
#[btf_map(name = "sas")]
static SAS: HashMap<SaKey, u8, { limits::SAS as usize }, GROWING> = HashMap::new();
#[btf_map(name = "local")]
static LOCAL: AddressSet = AddressSet::new();
#[btf_map(name = "source")]
static SOURCE: Prefixes = Prefixes::new();
#[btf_map(name = "destination")]
static DESTINATION: Prefixes = Prefixes::new();
#[btf_map(name = "sockets")]
pub static SOCKETS: XskMap<{ limits::QUEUES as usize }> = XskMap::new();
#[btf_map(name = "counters")]
static COUNTERS: PerCpuArray<Counter, { (limits::QUEUES * OUTCOMES) as usize }> =
    PerCpuArray::new();

/// What the program knows of its port.
#[inline(always)]
pub fn port() -> Option<&'static Port> {
    PORT.get(0)
}

/// The endpoint at `address`, if it is one.
#[inline(always)]
pub fn endpoint(address: &Address) -> Option<Endpoint> {
    // SAFETY: no program inserts or removes, and the kernel frees an entry that user space removes
    // only after this run (RCU).
    unsafe { ENDPOINTS.get(address) }.copied()
}

/// Whether the endpoint takes encapsulated ESP at this UDP port.
#[inline(always)]
pub fn is_encapsulation(destination: &Address, port: u16) -> bool {
    let key = Encapsulation {
        destination: *destination,
        port: u64::from(port),
    };
    ENCAPSULATION.get_ptr(&key).is_some()
}

/// Whether `address` is a peer that encapsulates.
#[inline(always)]
pub fn is_peer(address: &Address) -> bool {
    PEERS.get_ptr(address).is_some()
}

/// Whether (SPI, protocol, destination) is an SA of ours.
#[inline(always)]
pub fn is_sa(destination: &Address, spi: u32, protocol: u8) -> bool {
    let key = SaKey {
        destination: *destination,
        spi,
        protocol: u32::from(protocol),
    };
    SAS.get_ptr(&key).is_some()
}

/// Whether `address` is one of the machine's own.
#[inline(always)]
pub fn is_local(address: &Address) -> bool {
    LOCAL.get_ptr(address).is_some()
}

/// Policy groups that may name both addresses.
#[inline(always)]
pub fn groups(source: &Address, destination: &Address) -> Groups {
    let bits = TRIE_FAMILY_BITS + 128;
    let Some(source) = SOURCE.get(&Key::new(bits, *source)) else {
        return Groups { any: 0, closed: 0 };
    };
    let Some(destination) = DESTINATION.get(&Key::new(bits, *destination)) else {
        return Groups { any: 0, closed: 0 };
    };
    source.intersection(*destination)
}

/// Counts a frame. A queue above the map's size, which the loader excludes, counts nowhere.
#[inline(always)]
pub fn count(queue: u32, outcome: Outcome, bytes: u64) {
    let Some(counter) = COUNTERS.get_ptr_mut(counter_index(queue, outcome)) else {
        return;
    };
    // SAFETY: the value is this CPU's own, and nothing preempts XDP on it; user space only reads.
    let counter = unsafe { &mut *counter };
    counter.packets += 1;
    counter.bytes += bytes;
}
