//! What the XDP program and the gateway share: map names, keys and values, outcome codes, limits.
//!
//! Every type is `repr(C)` without padding and means something for any bit pattern, because the
//! kernel copies it bytewise. Each port loads its own instance of the program with its own maps,
//! so nothing here names a port: `source` and `destination` prefixes are those of the port's side
//! (protected: outbound local and outbound remote; unprotected: inbound remote and inbound local).
#![no_std]

mod address;
mod outcome;

pub use address::{Address, Encapsulation, IPV4, IPV6, PrefixKey, SaKey, TRIE_FAMILY_BITS};
pub use outcome::{OUTCOMES, Outcome};

/// Names of the maps, as the object and `bpftool map` show them (at most 15 bytes).
pub mod map {
    /// One [`super::Port`].
    pub const PORT: &str = "port";
    /// [`super::Address`] → [`super::Endpoint`].
    pub const ENDPOINTS: &str = "endpoints";
    /// [`super::Encapsulation`] → 1.
    pub const ENCAPSULATION: &str = "encapsulation";
    /// [`super::Address`] of an encapsulating peer → 1.
    pub const PEERS: &str = "peers";
    /// [`super::SaKey`] → 1.
    pub const SAS: &str = "sas";
    /// [`super::Address`] of the machine → 1.
    pub const LOCAL: &str = "local";
    /// Prefixes of source addresses → [`super::Groups`].
    pub const SOURCE: &str = "source";
    /// Prefixes of destination addresses → [`super::Groups`].
    pub const DESTINATION: &str = "destination";
    /// Queue → AF_XDP socket.
    pub const SOCKETS: &str = "sockets";
    /// [`super::counter_index`] → [`super::Counter`] of each CPU.
    pub const COUNTERS: &str = "counters";
}

/// Names of the programs in the object; the kernel keeps the first 15 bytes.
pub mod program {
    /// The steering program.
    pub const STEER: &str = "xipsec_steer";
    /// The same for packets of several buffers (`xdp.frags`).
    pub const STEER_FRAGS: &str = "xipsec_steer_frags";
    /// Everything but ARP and neighbour discovery to the socket or, without one, nowhere: the bare
    /// forwarder of benches.
    pub const REDIRECT_ALL: &str = "xipsec_redirect_all";
}

/// Every bound of the program, with its reason.
pub mod limits {
    /// Prefixes that one LPM map is asked to hold. Above it they collapse to covering prefixes:
    /// a lookup stays cheap, and what is taken too much the worker hands on as unmatched.
    pub const PREFIXES: u32 = 4096;
    /// Room in one LPM map: twice [`PREFIXES`], so that a change can add before it removes.
    pub const PREFIX_ENTRIES: u32 = 2 * PREFIXES;
    /// Policy groups of a bitmap: policy index modulo this.
    pub const GROUPS: u32 = 64;
    /// IPv6 extension headers walked; the worker's parser has the same bound. RFC 8200 section 4.1
    /// orders at most seven.
    pub const EXTENSION_HEADERS: u32 = 8;
    /// Queues of a port. Above it no NIC is known; the loader sizes the maps to the real number.
    pub const QUEUES: u32 = 256;
    /// Endpoint, encapsulation, peer and local addresses, each: a hub's peers and loopbacks fit.
    pub const ADDRESSES: u32 = 65_536;
    /// SAs of listed endpoints, by default; the loader may raise it to a million.
    pub const SAS: u32 = 65_536;
}

/// Which side of the boundary a port is on (RFC 4301 section 3.1).
pub mod side {
    /// Ciphertext.
    pub const UNPROTECTED: u8 = 0;
    /// Plaintext.
    pub const PROTECTED: u8 = 1;
}

/// What the program knows of its port: entry 0 of map [`map::PORT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The port's own MAC address; frames to any other pass.
    pub mac: [u8; 6],
    /// One of [`side`].
    pub side: u8,
    /// What no policy's prefixes touch is dropped (1) or passes (0).
    pub discard_unmatched: u8,
    /// UDP fragments to an endpoint go to the socket (1) or pass (0).
    pub reassemble_udp: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

/// How an endpoint shares its address with the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// 0: all ESP and AH is ours; 1: only what map [`map::SAS`] lists.
    pub listed: u32,
}

/// Policy groups that a prefix belongs to: its own and those of every covering prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Policies of any action.
    pub any: u64,
    /// Of these, protect and discard: what must not pass in the clear.
    pub closed: u64,
}

impl Groups {
    /// Groups in both: not empty when one policy may name this pair of addresses.
    #[must_use]
    #[inline(always)]
    pub const fn intersection(self, other: Self) -> Self {
        Self {
            any: self.any & other.any,
            closed: self.closed & other.closed,
        }
    }

    /// Groups in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self {
            any: self.any | other.any,
            closed: self.closed | other.closed,
        }
    }

    /// Whether `other` adds nothing.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        other.any & !self.any == 0 && other.closed & !self.closed == 0
    }
}

/// What one outcome has seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Frames.
    pub packets: u64,
    /// Their bytes, Ethernet header included, FCS not.
    pub bytes: u64,
}

/// Key of a counter: an entry each keeps the program free of computed offsets into map values,
/// which the verifier restricts for a loader without CAP_PERFMON.
#[must_use]
#[inline(always)]
pub const fn counter_index(queue: u32, outcome: Outcome) -> u32 {
    queue.wrapping_mul(OUTCOMES).wrapping_add(outcome as u32)
}

const _: () = {
    assert!(size_of::<Port>() == 16);
    assert!(size_of::<Address>() == 24);
    assert!(size_of::<SaKey>() == 32);
    assert!(size_of::<Encapsulation>() == 32);
    assert!(size_of::<PrefixKey>() == 28);
    assert!(size_of::<Groups>() == 16);
    assert!(size_of::<Counter>() == 16);
};
