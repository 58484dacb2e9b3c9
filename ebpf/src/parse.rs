//! Reads the headers that steering needs, within bounds the verifier can follow.
//!
//! The fixed part of the headers is read in place. What lies at a computed offset (behind IPv4
//! options or IPv6 extension headers) is copied by a helper: it finds later buffers of a packet
//! too, and a loader without CAP_PERFMON may not add to a packet pointer. No checksum is
//! verified: the worker does that.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use xipsec_abi::{Address, limits};

/// Bytes of an Ethernet header.
const ETHERNET: usize = size_of::<EthernetHeader>();
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
pub struct Frame<'a> {
    context: &'a XdpContext,
    /// Bytes over all buffers.
    pub length: u64,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub fn new(context: &'a XdpContext) -> Self {
        // SAFETY: the context is the one that this program was called with. (The difference of the
        // two pointers would be cheaper, but to see it takes CAP_PERFMON.)
        let length = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) };
        Self { context, length }
    }

    /// A `T` of plain bytes at the fixed offset `OFFSET`, if the first buffer has it.
    #[inline(always)]
    fn fixed<T: Copy, const OFFSET: usize>(&self) -> Option<T> {
        let start = self.context.data() + OFFSET;
        if start + size_of::<T>() > self.context.data_end() {
            return None;
        }
        // SAFETY: the range lies inside the packet by the comparison above, in the form that the
        // verifier recognises.
        Some(unsafe { (start as *const T).read_unaligned() })
    }

    /// The `N` bytes at `offset`, if the frame has them.
    #[inline(always)]
    pub fn bytes<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        // SAFETY: the kernel checks the range against the frame, and the buffer has N bytes.
        let status = unsafe {
            bpf_xdp_load_bytes(
                self.context.as_ptr().cast(),
                offset,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        if status == 0 { Some(bytes) } else { None }
    }
}

/// What an Ethernet frame carries.
pub enum Carried {
    Vlan,
    Ipv4,
    Ipv6,
    Other,
}

/// Ethernet II, as it lies on the wire.
#[repr(C)]
#[derive(Clone, Copy)]
struct EthernetHeader {
    destination: [u8; 6],
    source: [u8; 6],
    ether_type: [u8; 2],
}

/// Destination MAC and payload of a frame.
#[inline(always)]
pub fn ethernet(frame: &Frame<'_>) -> Option<([u8; 6], Carried)> {
    let header = frame.fixed::<EthernetHeader, 0>()?;
    let carried = match u16::from_be_bytes(header.ether_type) {
        IPV4 => Carried::Ipv4,
        IPV6 => Carried::Ipv6,
        other if VLANS.contains(&other) => Carried::Vlan,
        _ => Carried::Other,
    };
    Some((header.destination, carried))
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
    upper: u32,
    /// Where the packet ends, within the frame.
    end: u32,
}

impl Packet {
    /// `N` bytes at `offset` of the upper header, if the packet has one and they are in it.
    #[inline(always)]
    pub fn upper<const N: usize>(&self, frame: &Frame<'_>, offset: u32) -> Option<[u8; N]> {
        let start = self.upper + offset;
        if self.fragment == Fragment::Later || start + N as u32 > self.end {
            return None;
        }
        frame.bytes(start)
    }

    /// Bytes from the upper header to the packet's end.
    #[inline(always)]
    pub fn upper_length(&self) -> u32 {
        self.end - self.upper
    }
}

/// RFC 791 section 3.1, without options.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv4Header {
    version_ihl: u8,
    traffic_class: u8,
    length: [u8; 2],
    identification: [u8; 2],
    fragment: [u8; 2],
    hop_limit: u8,
    protocol: u8,
    checksum: [u8; 2],
    source: u32,
    destination: u32,
}

/// The IPv4 packet of a frame, options skipped.
#[inline(always)]
pub fn ipv4(frame: &Frame<'_>) -> Option<Packet> {
    let header = frame.fixed::<Ipv4Header, ETHERNET>()?;
    let header_length = u32::from(header.version_ihl & 0x0f) * 4;
    let length = u32::from(u16::from_be_bytes(header.length));
    let end = ETHERNET as u32 + length;
    if header.version_ihl >> 4 != 4
        || header_length < 20
        || length < header_length
        || u64::from(end) > frame.length
    {
        return None;
    }
    let fragment = match u16::from_be_bytes(header.fragment) & 0x3fff {
        0 => Fragment::Whole,
        0x2000 => Fragment::First,
        _ => Fragment::Later,
    };
    Some(Packet {
        source: Address::v4(header.source.to_ne_bytes()),
        destination: Address::v4(header.destination.to_ne_bytes()),
        protocol: header.protocol,
        hop_limit: header.hop_limit,
        fragment,
        upper: ETHERNET as u32 + header_length,
        end,
    })
}

/// RFC 8200 section 3.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Ipv6Header {
    version: u8,
    class_and_label: [u8; 3],
    length: [u8; 2],
    next: u8,
    hop_limit: u8,
    source: [u64; 2],
    destination: [u64; 2],
}

/// The IPv6 packet of a frame, extension headers walked (RFC 8200 section 4). A jumbogram is one
/// that cannot be parsed.
#[inline(always)]
pub fn ipv6(frame: &Frame<'_>) -> Option<Packet> {
    let header = frame.fixed::<Ipv6Header, ETHERNET>()?;
    let upper = (ETHERNET + size_of::<Ipv6Header>()) as u32;
    let end = upper + u32::from(u16::from_be_bytes(header.length));
    if header.version >> 4 != 6 || u64::from(end) > frame.length {
        return None;
    }
    let mut packet = Packet {
        source: Address::v6(header.source),
        destination: Address::v6(header.destination),
        protocol: header.next,
        hop_limit: header.hop_limit,
        fragment: Fragment::Whole,
        upper,
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
fn skip_extension(frame: &Frame<'_>, packet: &mut Packet) -> Option<()> {
    let [next, units, o0, o1] = frame.bytes::<4>(packet.upper)?;
    let is_fragment_header = packet.protocol == protocol::FRAGMENT;
    let length = if is_fragment_header {
        8
    } else {
        (u32::from(units) + 1) * 8
    };
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
pub fn is_address_resolution(frame: &Frame<'_>) -> bool {
    let Some(ethernet) = frame.fixed::<EthernetHeader, 0>() else {
        return true;
    };
    match u16::from_be_bytes(ethernet.ether_type) {
        ARP => true,
        IPV6 => frame
            .fixed::<(Ipv6Header, u8), ETHERNET>()
            .is_some_and(|(header, icmp_type)| {
                header.next == protocol::ICMPV6 && is_neighbor_discovery(icmp_type)
            }),
        _ => false,
    }
}
