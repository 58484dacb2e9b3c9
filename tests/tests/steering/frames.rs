//! Frames by hand, and those that no port may take.

use xipsec_abi::Outcome;

use super::world::{Case, ip};

/// The port's own MAC.
pub(super) const PORT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub(super) const UDP: u8 = 17;
pub(super) const TCP: u8 = 6;
pub(super) const ESP: u8 = 50;
pub(super) const AH: u8 = 51;
const ICMPV6: u8 = 58;
pub(super) const HOP_BY_HOP: u8 = 0;
pub(super) const FRAGMENT: u8 = 44;
pub(super) const OPTIONS: u8 = 60;

/// Ethernet II to `destination`.
pub(super) fn ethernet(destination: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [
        &destination[..],
        &SENDER,
        &ether_type.to_be_bytes(),
        payload,
    ]
    .concat()
}

/// An IPv4 packet. `fragment`: flags and offset in units of 8; `options`: a multiple of 4 bytes.
pub(super) fn ipv4_with(
    addresses: (&str, &str),
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).unwrap();
    let mut packet = vec![0x40 | u8::try_from(header / 4).unwrap(), 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    for address in [addresses.0, addresses.1] {
        packet.extend(octets(address));
    }
    [&packet[..], options, payload].concat()
}

pub(super) fn octets(address: &str) -> Vec<u8> {
    match ip(address) {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// A frame with a plain IPv4 packet.
pub(super) fn v4(addresses: (&str, &str), protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(
        PORT,
        0x0800,
        &ipv4_with(addresses, protocol, 0, &[], payload),
    )
}

/// A frame with a piece of an IPv4 packet.
pub(super) fn v4_piece(
    addresses: (&str, &str),
    protocol: u8,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    ethernet(
        PORT,
        0x0800,
        &ipv4_with(addresses, protocol, fragment, &[], payload),
    )
}

/// More fragments, offset 0; and a later one.
pub(super) const FIRST: u16 = 0x2000;
pub(super) const LATER: u16 = 0x0010;

fn ipv6(addresses: (&str, &str), next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(octets(addresses.0));
    packet.extend(octets(addresses.1));
    [&packet[..], payload].concat()
}

/// A frame with an IPv6 packet.
pub(super) fn v6(addresses: (&str, &str), next: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(PORT, 0x86dd, &ipv6(addresses, next, 64, payload))
}

/// An extension header of 8 × (`units` + 1) bytes in front of `payload`.
pub(super) fn extension(next: u8, units: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0; (usize::from(units) + 1) * 8];
    header[0] = next;
    header[1] = units;
    [&header[..], payload].concat()
}

/// A fragment header: offset in units of 8, and whether more follow.
pub(super) fn fragment(next: u8, offset: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let [high, low] = ((offset << 3) | u16::from(more)).to_be_bytes();
    [&[next, 0, high, low, 0, 0, 0, 1][..], payload].concat()
}

pub(super) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    udp_saying(source, destination, length, payload)
}

/// With a length of one's own.
pub(super) fn udp_saying(source: u16, destination: u16, length: u16, payload: &[u8]) -> Vec<u8> {
    let fields = [source, destination, length, 0]
        .map(u16::to_be_bytes)
        .concat();
    [&fields[..], payload].concat()
}

pub(super) fn esp(spi: u32) -> Vec<u8> {
    [&spi.to_be_bytes()[..], &1_u32.to_be_bytes(), &[0xab; 40]].concat()
}

pub(super) fn ah(spi: u32) -> Vec<u8> {
    [
        &[TCP, 4, 0, 0][..],
        &spi.to_be_bytes(),
        &1_u32.to_be_bytes(),
        &[0xab; 32],
    ]
    .concat()
}

/// A header and some data: enough of TCP for steering.
pub(super) fn tcp() -> Vec<u8> {
    [&[0x12, 0x34, 0, 22][..], &[0; 36]].concat()
}

/// What A says to B, in the clear: taken on either side if nothing else is wrong.
const CLEAR: (&str, &str) = ("10.1.2.3", "10.2.2.3");

/// Rule 1.
pub(super) fn strangers() -> Vec<Case> {
    let packet = ipv4_with(CLEAR, TCP, 0, &[], &tcp());
    let tagged = |tag: u16| ethernet(PORT, tag, &[&[0, 5, 8, 0][..], &packet].concat());
    let to = |mac: [u8; 6]| ethernet(mac, 0x0800, &packet);
    let arp = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &[0; 20]].concat();
    let (not_ip, other) = (Outcome::PassNotIp, Outcome::PassOtherMac);
    vec![
        Case::pass("ARP request", ethernet([0xff; 6], 0x0806, &arp), not_ip),
        Case::pass("ARP reply", ethernet(PORT, 0x0806, &arp), not_ip),
        Case::pass(
            "LLDP",
            ethernet([1, 0x80, 0xc2, 0, 0, 14], 0x88cc, &[2; 46]),
            not_ip,
        ),
        Case::pass(
            "802.3 with a length",
            ethernet(PORT, 46, &[0xaa; 46]),
            not_ip,
        ),
        Case::pass("MPLS", ethernet(PORT, 0x8847, &packet), not_ip),
        Case::pass("PPPoE", ethernet(PORT, 0x8864, &packet), not_ip),
        Case::pass("EtherType alone", ethernet(PORT, 0x0806, &[]), not_ip),
        Case::pass("802.1Q", tagged(0x8100), Outcome::PassVlan),
        Case::pass("802.1ad", tagged(0x88a8), Outcome::PassVlan),
        Case::pass("QinQ of old", tagged(0x9100), Outcome::PassVlan),
        Case::pass("broadcast", to([0xff; 6]), other),
        Case::pass("multicast", to([1, 0, 0x5e, 0, 0, 1]), other),
        Case::pass(
            "another machine's, promiscuous",
            to([2, 0, 0, 0, 0, 3]),
            other,
        ),
        Case::pass("differs in the last bit", to([2, 0, 0, 0, 0, 0]), other),
        Case::pass("differs in the first bit", to([3, 0, 0, 0, 0, 1]), other),
    ]
}

/// Rule 2.
pub(super) fn unparsable() -> Vec<Case> {
    let changed = |offset: usize, byte: u8| {
        let mut frame = v4(CLEAR, TCP, &tcp());
        frame[14 + offset] = byte;
        frame
    };
    let cut = |frame: Vec<u8>, length: usize| frame[..length].to_vec();
    let clear6 = ("2001:db8:1::5", "2001:db8:2::5");
    let bomb = |count: usize| {
        let walk = (1..count).fold(extension(TCP, 0, &tcp()), |inner, _| {
            extension(OPTIONS, 0, &inner)
        });
        v6(clear6, OPTIONS, &walk)
    };
    let wrong_version = ethernet(PORT, 0x0800, &ipv6(clear6, TCP, 64, &tcp()));
    let swapped = ethernet(PORT, 0x86dd, &ipv4_with(CLEAR, TCP, 0, &[], &tcp()));
    let mut long6 = v6(clear6, TCP, &tcp());
    long6[14 + 5] += 1;
    let hidden = v6(clear6, HOP_BY_HOP, &extension(TCP, 200, &[])[..16]);
    let pass = |name, frame| Case::pass(name, frame, Outcome::PassUnparsed);
    vec![
        pass("IPv4 header cut", cut(v4(CLEAR, TCP, &tcp()), 14 + 19)),
        pass("nothing behind the EtherType", ethernet(PORT, 0x0800, &[])),
        pass("IHL 0", changed(0, 0x40)),
        pass("IHL 4", changed(0, 0x44)),
        pass("IHL beyond the packet", cut(changed(0, 0x4f), 14 + 20)),
        pass("IHL beyond the total length", changed(3, 0x10)),
        pass("total length beyond the frame", changed(2, 0x40)),
        pass("version 6 in IPv4", wrong_version),
        pass("version 4 in IPv6", swapped),
        pass("version 0", changed(0, 0x05)),
        pass("IPv6 header cut", cut(v6(clear6, TCP, &tcp()), 14 + 39)),
        pass("IPv6 length beyond the frame", long6),
        pass("extension header beyond the packet", hidden),
        pass(
            "extension header cut to a byte",
            v6(clear6, HOP_BY_HOP, &[TCP]),
        ),
        pass(
            "extension header announced, none there",
            v6(clear6, HOP_BY_HOP, &[]),
        ),
        pass("fragment header cut", v6(clear6, FRAGMENT, &[TCP, 0, 0, 0])),
        pass("nine extension headers", bomb(9)),
        pass("a hundred extension headers", bomb(100)),
    ]
}

/// Rule 5: on either side, although policies name some of the addresses.
pub(super) fn built_in() -> Vec<Case> {
    let router = ("10.2.0.1", "10.1.0.9");
    let neighbor = |icmp_type: u8, hop_limit: u8| {
        let addresses = ("2001:db8:1::5", "2001:db8:2::5");
        let message = [&[icmp_type, 0, 0, 0][..], &[0; 20]].concat();
        ethernet(PORT, 0x86dd, &ipv6(addresses, ICMPV6, hop_limit, &message))
    };
    let discovery = Outcome::PassNeighborDiscovery;
    let (dhcp, ike) = (Outcome::PassDhcp, Outcome::PassIke);
    let (multicast, link_local) = (Outcome::PassMulticast, Outcome::PassLinkLocal);
    let v6_to = |source, destination| v6((source, destination), TCP, &tcp());
    let v4_to = |source, destination| v4((source, destination), TCP, &tcp());
    vec![
        Case::pass("router solicitation", neighbor(133, 255), discovery),
        Case::pass("neighbour solicitation", neighbor(135, 255), discovery),
        Case::pass("neighbour advertisement", neighbor(136, 255), discovery),
        Case::pass("ICMPv6 redirect", neighbor(137, 255), discovery),
        Case::pass(
            "DHCP offer, unicast",
            v4(router, UDP, &udp(67, 68, &[0; 240])),
            dhcp,
        ),
        Case::pass(
            "DHCP renewal",
            v4(router, UDP, &udp(68, 67, &[0; 240])),
            dhcp,
        ),
        Case::pass("DHCP relay", v4(router, UDP, &udp(67, 67, &[0; 240])), dhcp),
        Case::pass(
            "DHCPv6",
            v6(
                ("2001:db8:2::5", "2001:db8:1::5"),
                UDP,
                &udp(547, 546, &[0; 40]),
            ),
            dhcp,
        ),
        Case::pass("IPv4 multicast", v4_to("10.1.2.3", "224.0.0.5"), multicast),
        Case::pass(
            "last IPv4 multicast",
            v4_to("10.1.2.3", "239.255.255.255"),
            multicast,
        ),
        Case::pass(
            "limited broadcast",
            v4_to("10.1.2.3", "255.255.255.255"),
            multicast,
        ),
        Case::pass(
            "IPv6 multicast",
            v6_to("2001:db8:1::5", "ff02::5"),
            multicast,
        ),
        Case::pass(
            "IPv4 link-local",
            v4_to("10.1.2.3", "169.254.1.1"),
            link_local,
        ),
        Case::pass(
            "from IPv4 link-local",
            v4_to("169.254.1.1", "10.2.2.3"),
            link_local,
        ),
        Case::pass(
            "IPv6 link-local",
            v6_to("fe80::5", "2001:db8:2::5"),
            link_local,
        ),
        Case::pass(
            "last IPv6 link-local",
            v6_to("2001:db8:1::5", "febf::1"),
            link_local,
        ),
        Case::pass(
            "IKE",
            v4(("10.2.2.3", "192.0.2.1"), UDP, &udp(500, 500, &[1; 28])),
            ike,
        ),
        Case::pass(
            "IKE from behind a NAT",
            v4(
                ("203.0.113.5", "192.0.2.1"),
                UDP,
                &udp(40_000, 500, &[1; 28]),
            ),
            ike,
        ),
        Case::pass(
            "IKE from the machine's address",
            v4(
                ("192.0.2.1", "203.0.113.5"),
                UDP,
                &udp(500, 40_000, &[1; 28]),
            ),
            ike,
        ),
        Case::pass(
            "IKE over IPv6",
            v6(
                ("2001:db8::2", "2001:db8::1"),
                UDP,
                &udp(500, 500, &[1; 28]),
            ),
            ike,
        ),
    ]
}

/// ESP over more than one buffer.
pub(super) fn jumbo() -> Case {
    let payload = [esp(0x1001), vec![0; 9000]].concat();
    Case::pass(
        "jumbo",
        v4(("192.0.2.2", "192.0.2.1"), ESP, &payload),
        Outcome::SocketIpsec,
    )
}

/// Every cut of real frames behind the Ethernet header, and noise with IP in front.
pub(super) fn garbage() -> Vec<Vec<u8>> {
    let whole = [
        v4(
            ("192.0.2.2", "192.0.2.1"),
            UDP,
            &udp(4500, 4500, &esp(0x1001)),
        ),
        v6(
            ("2001:db8:1::5", "2001:db8:2::5"),
            OPTIONS,
            &fragment(ESP, 0, true, &esp(1)),
        ),
        v4(CLEAR, TCP, &tcp()),
    ];
    let cuts = whole
        .iter()
        .flat_map(|frame| (14..frame.len()).map(|end| frame[..end].to_vec()));
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let noise = (0..2000_usize).map(|index| {
        let mut bytes = vec![0_u8; 14 + index % 120];
        for byte in &mut bytes {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
        bytes[..6].copy_from_slice(&PORT);
        let (ether_type, version) = if index % 2 == 0 {
            (0x0800_u16, 0x45)
        } else {
            (0x86dd, 0x60)
        };
        bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
        if let Some(first) = bytes.get_mut(14).filter(|_| index % 3 != 0) {
            *first = version;
        }
        bytes
    });
    cuts.chain(noise).collect()
}
