//! Decides where a frame goes: the ordered rules of docs/ARCHITECTURE.md "Steering", first match
//! wins. Ports, protocols and the order of policies are the worker's job: here a packet is taken
//! when a policy may be about its two addresses.

use xipsec_abi::{Address, Endpoint, IPV4, Outcome, Port, side};

use crate::maps;
use crate::parse::{self, Carried, Fragment, Frame, Packet, protocol};

/// IKE and its encapsulation (RFC 7296 section 2.23).
const IKE: [u16; 2] = [500, 4500];
/// A NAT keepalive's only byte (RFC 3948 section 2.3).
const KEEPALIVE: [u8; 1] = [0xff];
/// What IKE puts where encapsulated ESP has its SPI (RFC 3948 section 2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// What happens to a frame.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// To the kernel.
    Pass,
    /// Nowhere.
    Drop,
    /// To the socket, without one to the kernel.
    Socket,
    /// To the socket, without one nowhere: it must not pass in the clear.
    SocketOrDrop,
}

/// A rule's answer.
#[derive(Clone, Copy)]
pub struct Decision {
    pub outcome: Outcome,
    pub verdict: Verdict,
}

impl Decision {
    #[inline(always)]
    const fn pass(outcome: Outcome) -> Self {
        Self {
            outcome,
            verdict: Verdict::Pass,
        }
    }

    #[inline(always)]
    const fn socket(outcome: Outcome) -> Self {
        Self {
            outcome,
            verdict: Verdict::Socket,
        }
    }
}

/// The first rule that matches.
#[inline(always)]
pub fn decide(frame: &Frame<'_>) -> Decision {
    let Some(port) = maps::port() else {
        return Decision::pass(Outcome::PassUnmatched);
    };
    let Some((mac, carried)) = parse::ethernet(frame) else {
        return Decision::pass(Outcome::PassNotIp);
    };
    let packet = match carried {
        Carried::Vlan => return Decision::pass(Outcome::PassVlan),
        Carried::Other => return Decision::pass(Outcome::PassNotIp),
        Carried::Ipv4 | Carried::Ipv6 if mac != port.mac => {
            return Decision::pass(Outcome::PassOtherMac);
        }
        Carried::Ipv4 => parse::ipv4(frame),
        Carried::Ipv6 => parse::ipv6(frame),
    };
    let Some(packet) = packet else {
        return Decision::pass(Outcome::PassUnparsed);
    };
    let datagram = Datagram::of(frame, &packet);
    if port.side == side::UNPROTECTED
        && let Some(decision) = for_endpoint(frame, port, &packet, datagram)
    {
        return decision;
    }
    if let Some(outcome) = built_in(frame, &packet, datagram) {
        return Decision::pass(outcome);
    }
    by_policy(port, &packet)
}

/// A UDP header, where there is one to see.
#[derive(Clone, Copy)]
struct Datagram {
    source: u16,
    destination: u16,
    /// As the header says, itself included.
    length: u16,
}

impl Datagram {
    #[inline(always)]
    fn of(frame: &Frame<'_>, packet: &Packet) -> Option<Self> {
        if packet.protocol != protocol::UDP {
            return None;
        }
        let [s0, s1, d0, d1, l0, l1, _, _] = packet.upper::<8>(frame, 0)?;
        Some(Self {
            source: u16::from_be_bytes([s0, s1]),
            destination: u16::from_be_bytes([d0, d1]),
            length: u16::from_be_bytes([l0, l1]),
        })
    }

    /// Between client and server, either way.
    #[inline(always)]
    fn is_dhcp_client(self, family: u64) -> bool {
        let (client, server) = if family == IPV4 { (68, 67) } else { (546, 547) };
        (self.source == client && self.destination == server)
            || (self.source == server && self.destination == client)
    }

    /// From a relay.
    #[inline(always)]
    fn is_dhcp_relay(self, family: u64) -> bool {
        let server = if family == IPV4 { 67 } else { 547 };
        self.source == server && self.destination == server
    }
}

/// Rules 3 and 4: IPsec for an endpoint, bare and in UDP.
#[inline(always)]
fn for_endpoint(
    frame: &Frame<'_>,
    port: &Port,
    packet: &Packet,
    datagram: Option<Datagram>,
) -> Option<Decision> {
    match packet.protocol {
        protocol::ESP => {
            let endpoint = maps::endpoint(&packet.destination)?;
            let spi = packet.upper::<4>(frame, 0);
            Some(by_sa(
                endpoint,
                packet,
                spi,
                protocol::ESP,
                Outcome::SocketIpsec,
            ))
        }
        protocol::AH => {
            let endpoint = maps::endpoint(&packet.destination)?;
            let spi = packet.upper::<4>(frame, 4);
            Some(by_sa(
                endpoint,
                packet,
                spi,
                protocol::AH,
                Outcome::SocketIpsec,
            ))
        }
        protocol::UDP => {
            let endpoint = maps::endpoint(&packet.destination)?;
            if packet.fragment != Fragment::Whole {
                return Some(udp_fragment(endpoint, port));
            }
            encapsulated(frame, endpoint, packet, datagram?)
        }
        _ => None,
    }
}

/// At a listed endpoint only known SAs are ours; a later fragment has no SPI to know it by.
#[inline(always)]
fn by_sa(
    endpoint: Endpoint,
    packet: &Packet,
    spi: Option<[u8; 4]>,
    protocol: u8,
    outcome: Outcome,
) -> Decision {
    if endpoint.listed == 0 {
        return Decision::socket(outcome);
    }
    match spi {
        Some(spi) if maps::is_sa(&packet.destination, u32::from_be_bytes(spi), protocol) => {
            Decision::socket(outcome)
        }
        _ => Decision::pass(Outcome::PassListed),
    }
}

/// A later fragment has no ports, so all fragments of UDP to an endpoint go one way.
#[inline(always)]
fn udp_fragment(endpoint: Endpoint, port: &Port) -> Decision {
    if port.reassemble_udp != 0 && endpoint.listed == 0 {
        Decision::socket(Outcome::SocketUdpFragment)
    } else {
        Decision::pass(Outcome::PassUdpFragment)
    }
}

/// Rule 4, unfragmented. A length that is wrong is the worker's to count.
#[inline(always)]
fn encapsulated(
    frame: &Frame<'_>,
    endpoint: Endpoint,
    packet: &Packet,
    datagram: Datagram,
) -> Option<Decision> {
    if !maps::is_encapsulation(&packet.destination, datagram.destination) {
        return None;
    }
    let length = u32::from(datagram.length);
    let is_consistent = length >= 8 && length <= packet.upper_length();
    if is_consistent && length <= 9 {
        let is_keepalive = length == 9 && packet.upper::<1>(frame, 8) == Some(KEEPALIVE);
        return Some(if is_keepalive && maps::is_peer(&packet.source) {
            Decision::socket(Outcome::SocketEncapsulated)
        } else {
            Decision::pass(Outcome::PassMarker)
        });
    }
    let spi = if is_consistent && length >= 12 {
        packet.upper::<4>(frame, 8)
    } else {
        None
    };
    if spi == Some(NON_ESP_MARKER) {
        return Some(Decision::pass(Outcome::PassMarker));
    }
    Some(by_sa(
        endpoint,
        packet,
        spi,
        protocol::ESP,
        Outcome::SocketEncapsulated,
    ))
}

/// Rule 5: what no policy may take from the kernel.
#[inline(always)]
fn built_in(frame: &Frame<'_>, packet: &Packet, datagram: Option<Datagram>) -> Option<Outcome> {
    // A neighbour discovery message is never a fragment and never forwarded (RFC 4861 section 4,
    // RFC 6980).
    if packet.protocol == protocol::ICMPV6
        && packet.destination.family != IPV4
        && packet.fragment == Fragment::Whole
        && packet.hop_limit == 255
        && let Some([icmp_type]) = packet.upper::<1>(frame, 0)
        && parse::is_neighbor_discovery(icmp_type)
    {
        return Some(Outcome::PassNeighborDiscovery);
    }
    let multicast = is_multicast(&packet.destination);
    let link_local = is_link_local(&packet.source) || is_link_local(&packet.destination);
    let on_link = multicast || link_local || is_unspecified(&packet.source);
    if let Some(datagram) = datagram
        && is_dhcp(packet, datagram, on_link)
    {
        return Some(Outcome::PassDhcp);
    }
    if multicast {
        return Some(Outcome::PassMulticast);
    }
    if link_local {
        return Some(Outcome::PassLinkLocal);
    }
    if let Some(datagram) = datagram
        && is_ike(packet, datagram)
    {
        return Some(Outcome::PassIke);
    }
    None
}

/// DHCP on the link, and between a client and a server of which one is the machine. What a relay
/// passes on is somebody else's traffic: policy decides.
#[inline(always)]
fn is_dhcp(packet: &Packet, datagram: Datagram, on_link: bool) -> bool {
    let family = packet.destination.family;
    if datagram.is_dhcp_client(family) {
        on_link || maps::is_local(&packet.source) || maps::is_local(&packet.destination)
    } else {
        on_link && datagram.is_dhcp_relay(family)
    }
}

/// IKE, or what shares its port behind a NAT. To the machine by the destination port alone, since
/// anybody can send from port 500; from it by either.
#[inline(always)]
fn is_ike(packet: &Packet, datagram: Datagram) -> bool {
    let to_ike = IKE.contains(&datagram.destination);
    if !to_ike && !IKE.contains(&datagram.source) {
        return false;
    }
    (to_ike && maps::is_local(&packet.destination)) || maps::is_local(&packet.source)
}

/// The address of a host that has none yet.
#[inline(always)]
fn is_unspecified(address: &Address) -> bool {
    address.words == [0; 2]
}

/// Multicast, or IPv4's limited broadcast.
#[inline(always)]
fn is_multicast(address: &Address) -> bool {
    let octets = address.leading_octets();
    let [first, ..] = octets;
    if address.family == IPV4 {
        first & 0xf0 == 0xe0 || octets == [255; 4]
    } else {
        first == 0xff
    }
}

/// 169.254.0.0/16 (RFC 3927), fe80::/10.
#[inline(always)]
fn is_link_local(address: &Address) -> bool {
    let [first, second, ..] = address.leading_octets();
    if address.family == IPV4 {
        first == 169 && second == 254
    } else {
        first == 0xfe && second & 0xc0 == 0x80
    }
}

/// Rules 6 to 8.
#[inline(always)]
fn by_policy(port: &Port, packet: &Packet) -> Decision {
    let is_local = maps::is_local(&packet.destination);
    if is_local && port.side == side::PROTECTED {
        return Decision::pass(Outcome::PassLocal);
    }
    let groups = maps::groups(&packet.source, &packet.destination);
    let verdict = if groups.closed == 0 {
        Verdict::Socket
    } else {
        Verdict::SocketOrDrop
    };
    if is_local {
        return match groups.closed {
            0 => Decision::pass(Outcome::PassLocal),
            _ => Decision {
                outcome: Outcome::SocketLocal,
                verdict,
            },
        };
    }
    if groups.any != 0 {
        return Decision {
            outcome: Outcome::SocketPolicy,
            verdict,
        };
    }
    if port.discard_unmatched != 0 {
        return Decision {
            outcome: Outcome::DropUnmatched,
            verdict: Verdict::Drop,
        };
    }
    Decision::pass(Outcome::PassUnmatched)
}
