//! Frames that no port may take, on either side, and garbage.

use xipsec_abi::Outcome;

use super::frames::*;
use super::world::Case;

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
    [bypassed_services(), bypassed_addresses(), ike()].concat()
}

/// Rule 5, by protocol and ports.
fn bypassed_services() -> Vec<Case> {
    let router = ("10.2.0.1", "10.1.0.1");
    let neighbor = |icmp_type: u8, hop_limit: u8| {
        let addresses = ("2001:db8:1::5", "2001:db8:2::5");
        let message = [&[icmp_type, 0, 0, 0][..], &[0; 20]].concat();
        ethernet(PORT, 0x86dd, &ipv6(addresses, ICMPV6, hop_limit, &message))
    };
    let discovery = Outcome::PassNeighborDiscovery;
    let dhcp = Outcome::PassDhcp;
    vec![
        Case::pass("router solicitation", neighbor(133, 255), discovery),
        Case::pass("neighbour solicitation", neighbor(135, 255), discovery),
        Case::pass("neighbour advertisement", neighbor(136, 255), discovery),
        Case::pass("ICMPv6 redirect", neighbor(137, 255), discovery),
        Case::pass(
            "DHCP offer to the machine",
            v4(router, UDP, &udp(67, 68, &[0; 240])),
            dhcp,
        ),
        Case::pass(
            "DHCP renewal at the machine",
            v4(router, UDP, &udp(68, 67, &[0; 240])),
            dhcp,
        ),
        Case::pass(
            "DHCPv6",
            v6(
                ("2001:db8:2::5", "2001:db8::1"),
                UDP,
                &udp(547, 546, &[0; 40]),
            ),
            dhcp,
        ),
        Case::pass(
            "DHCP discovery",
            v4(("0.0.0.0", "255.255.255.255"), UDP, &udp(68, 67, &[0; 240])),
            dhcp,
        ),
        Case::pass(
            "DHCPv6 relay on the link",
            v6(("fe80::5", "ff02::1:2"), UDP, &udp(547, 547, &[0; 40])),
            dhcp,
        ),
    ]
}

/// Rule 5, by address alone.
fn bypassed_addresses() -> Vec<Case> {
    let (multicast, link_local) = (Outcome::PassMulticast, Outcome::PassLinkLocal);
    let v6_to = |source, destination| v6((source, destination), TCP, &tcp());
    let v4_to = |source, destination| v4((source, destination), TCP, &tcp());
    vec![
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
    ]
}

/// Rule 5, IKE from or to the machine.
fn ike() -> Vec<Case> {
    let ike = Outcome::PassIke;
    vec![
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
