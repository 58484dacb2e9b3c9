//! Addresses as map keys. IPv4 and IPv6 share the maps: the family is part of the key, so that a
//! hostile IPv6 packet with an IPv4-mapped address (RFC 4291 section 2.5.5.2) matches nothing.

use core::net::IpAddr;

/// Family of [`Address`]: IPv4, in the first four octets.
pub const IPV4: u64 = 4;
/// Family of [`Address`]: IPv6.
pub const IPV6: u64 = 6;

/// Bits of the family in front of a prefix of an LPM key: a prefix of n bits has n and this.
pub const TRIE_FAMILY_BITS: u32 = 64;

/// An address. Eight bytes of family keep the values of LPM tries aligned; words instead of octets
/// keep the program from moving single bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// [`IPV4`] or [`IPV6`], in the machine's byte order.
    pub family: u64,
    /// Network byte order in memory; IPv4: the first four octets, the rest zero.
    pub words: [u64; 2],
}

impl Address {
    /// From an IPv4 header's four octets.
    #[must_use]
    #[inline(always)]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self {
            family: IPV4,
            words: [u64::from_ne_bytes([a, b, c, d, 0, 0, 0, 0]), 0],
        }
    }

    /// From an IPv6 header's two words, as they lie in memory.
    #[must_use]
    #[inline(always)]
    pub const fn v6(words: [u64; 2]) -> Self {
        Self {
            family: IPV6,
            words,
        }
    }

    /// The first octets.
    #[must_use]
    #[inline(always)]
    pub const fn leading_octets(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.words[0].to_ne_bytes();
        [a, b, c, d]
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
                let first = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
                Self::v6([first, u64::from_ne_bytes([i, j, k, l, m, n, o, p])])
            }
        }
    }
}

/// Key of map `sas`: an inbound SA of a listed endpoint (RFC 4301 section 4.1).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaKey {
    /// Outer destination.
    pub destination: Address,
    /// In the machine's byte order.
    pub spi: u32,
    /// 50 (ESP) or 51 (AH).
    pub protocol: u32,
}

/// Key of map `encapsulation`: a UDP port at which an endpoint takes encapsulated ESP (RFC 3948).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Encapsulation {
    /// Outer destination.
    pub destination: Address,
    /// UDP port, in the machine's byte order.
    pub port: u64,
}

/// Key of an LPM trie: what `struct bpf_lpm_trie_key_u8` holds for [`Address`].
#[repr(C, packed)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey {
    /// Bits that count: [`TRIE_FAMILY_BITS`] and those of the address.
    pub length: u32,
    /// The address; bits behind the prefix are zero.
    pub address: Address,
}
