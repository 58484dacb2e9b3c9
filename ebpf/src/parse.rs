//! Reads the headers that steering needs, within bounds the verifier can follow.
//!
//! Only what lies in the frame's first buffer is read; a header beyond it counts as one that the
//! walk cannot parse. No checksum is verified: the worker does that.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use xipsec_abi::{Address, limits};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad and the number that came before it.
const VLANS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// IP protocol numbers (the IANA registry's).
pub mod protocol {
    pub const HOP_BY_HOP: u8 = 0;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const ESP: u8 = 50;
    pub const AH: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// A frame of the driver.
pub struct Frame {
    data: usize,
    /// End of the first buffer.
    end: usize,
    /// Bytes over all buffers.
    pub length: u64,
}

impl Frame {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        // SAFETY: the context is the one that this program was called with. (The difference of the
        // two pointers would be cheaper, but to see it takes CAP_PERFMON.)
        let length = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) };
        Self { data: context.data(), end: context.data_end(), length }
    }

    /// The `N` bytes at `offset`, if the first buffer has them.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: the range lies inside the packet by the comparison above, in the form that the
        // verifier recognises; a byte array has no alignment.
        Some(unsafe { *(start as *const [u8; N]) })
    }
}

/// What an Ethernet frame carries.
pub enum Carried {
    Vlan,
    Ipv4,
    Ipv6,
    Other,
}

/// Destination MAC and payload of a frame.
#[inline(always)]
pub fn ethernet(frame: &Frame) -> Option<([u8; 6], Carried)> {
    let destination = frame.bytes::<6>(0)?;
    let carried = match u16::from_be_bytes(frame.bytes(12)?) {
        IPV4 => Carried::Ipv4,
        IPV6 => Carried::Ipv6,
        other if VLANS.contains(&other) => Carried::Vlan,
        _ => Carried::Other,
    };
    Some((destination, carried))
}

/// Whether a packet is a fragment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    Whole,
    /// With the upper header.
    First,
    /// Without it.
    Later,
}

/// An IP packet's headers. Offsets count from the frame's first byte.
pub struct Packet {
    pub source: Address,
    pub destination: Address,
    /// Behind IPv6 extension headers 0, 43, 44 and 60.
    pub protocol: u8,
    pub hop_limit: u8,
    pub fragment: Fragment,
    /// Where the header of `protocol` starts, except in a later fragment.
    upper: usize,
    /// Where the packet ends, within the frame.
    pub end: usize,
}

impl Packet {
    /// `N` bytes at `offset` of the upper header, if the packet has one and they are in it.
    #[inline(always)]
    pub fn upper<const N: usize>(&self, frame: &Frame, offset: usize) -> Option<[u8; N]> {
        if self.fragment == Fragment::Later || self.upper + offset + N > self.end {
            return None;
        }
        frame.bytes(self.upper + offset)
    }

    /// Bytes from the upper header to the packet's end.
    #[inline(always)]
    pub fn upper_length(&self) -> usize {
        self.end - self.upper
    }
}

/// The IPv4 packet of a frame, options skipped (RFC 791 section 3.1).
#[inline(always)]
pub fn ipv4(frame: &Frame) -> Option<Packet> {
    let header = frame.bytes::<20>(ETHERNET)?;
    let [version_ihl, _, l0, l1, _, _, f0, f1, hop_limit, protocol, _, _, addresses @ ..] = header;
    let header_length = usize::from(version_ihl & 0x0f) * 4;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    let upper = ETHERNET + header_length;
    let end = ETHERNET + length;
    if version_ihl >> 4 != 4 || header_length < 20 || length < header_length || end as u64 > frame.length {
        return None;
    }
    let fragment = match u16::from_be_bytes([f0, f1]) & 0x3fff {
        0 => Fragment::Whole,
        0x2000 => Fragment::First,
        _ => Fragment::Later,
    };
    let [a, b, c, d, e, f, g, h] = addresses;
    Some(Packet {
        source: Address::v4([a, b, c, d]),
        destination: Address::v4([e, f, g, h]),
        protocol,
        hop_limit,
        fragment,
        upper,
        end,
    })
}

/// The IPv6 packet of a frame, extension headers walked (RFC 8200 section 4). A jumbogram is one
/// that cannot be parsed.
#[inline(always)]
pub fn ipv6(frame: &Frame) -> Option<Packet> {
    let [version, _, _, _, l0, l1, next, hop_limit] = frame.bytes::<8>(ETHERNET)?;
    let source = Address::v6(frame.bytes(ETHERNET + 8)?);
    let destination = Address::v6(frame.bytes(ETHERNET + 24)?);
    let end = ETHERNET + 40 + usize::from(u16::from_be_bytes([l0, l1]));
    if version >> 4 != 6 || end as u64 > frame.length {
        return None;
    }
    let mut packet = Packet {
        source,
        destination,
        protocol: next,
        hop_limit,
        fragment: Fragment::Whole,
        upper: ETHERNET + 40,
        end,
    };
    for _ in 0..limits::EXTENSION_HEADERS {
        if packet.fragment == Fragment::Later || !is_extension(packet.protocol) {
            break;
        }
        skip_extension(frame, &mut packet)?;
    }
    if packet.fragment != Fragment::Later && is_extension(packet.protocol) {
        return None; // longer than the walk
    }
    Some(packet)
}

#[inline(always)]
fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::DESTINATION_OPTIONS
    )
}

/// Steps over one extension header. All kinds are at least 8 bytes long and start with the next
/// header's number.
#[inline(always)]
fn skip_extension(frame: &Frame, packet: &mut Packet) -> Option<()> {
    let [next, units, o0, o1] = frame.bytes::<4>(packet.upper)?;
    let is_fragment_header = packet.protocol == protocol::FRAGMENT;
    let length = if is_fragment_header { 8 } else { (usize::from(units) + 1) * 8 };
    packet.upper += length;
    packet.protocol = next;
    if packet.upper > packet.end {
        return None;
    }
    if is_fragment_header {
        match u16::from_be_bytes([o0, o1]) & 0xfff9 {
            0 => {} // an atomic fragment is whole (RFC 6946)
            1 => packet.fragment = Fragment::First,
            _ => packet.fragment = Fragment::Later,
        }
    }
    Some(())
}

/// ICMPv6 router and neighbour solicitations and advertisements, redirects (RFC 4861 section 4).
#[inline(always)]
pub fn is_neighbor_discovery(icmp_type: u8) -> bool {
    (133..=137).contains(&icmp_type)
}

/// ARP, or IPv6 neighbour discovery as it comes: without extension headers.
#[inline(always)]
pub fn is_address_resolution(frame: &Frame) -> bool {
    let Some(ether_type) = frame.bytes::<2>(12) else { return true };
    match u16::from_be_bytes(ether_type) {
        ARP => true,
        IPV6 => {
            let next = frame.bytes::<1>(ETHERNET + 6);
            let icmp_type = frame.bytes::<1>(ETHERNET + 40);
            next == Some([protocol::ICMPV6])
                && icmp_type.is_some_and(|[icmp_type]| is_neighbor_discovery(icmp_type))
        }
        _ => false,
    }
}
