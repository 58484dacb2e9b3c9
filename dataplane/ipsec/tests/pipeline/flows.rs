//! What a burst asks once for packets of one flow or one SA is what each of them alone is told.

use ipsec::packet::protocol;
use ipsec::policy::{Action, PolicyParameters, PortSelector};
use ipsec::sa::association::{Direction, SaParameters};
use proptest::prelude::*;

use crate::gateway::{A, A6, B, B6, Gateway, addresses, policy, sa};
use crate::packets::{Udp, between};

/// Ends of packets: two networks that are protected by SAs of their own, the machine itself.
const ENDS: [(&str, &str); 5] = [
    ("10.1.0.1", "10.2.0.1"),
    ("10.1.0.1", "10.3.0.1"),
    (A, "10.2.0.1"),
    ("2001:db8:1::1", "2001:db8:2::1"),
    (A6, "2001:db8:2::1"),
];

/// Ports: any, one that is discarded, one that is bypassed, and those of IKE.
const PORTS: [(u16, u16); 5] = [
    (5000, 5001),
    (5000, 80),
    (5000, 81),
    (4500, 4500),
    (500, 500),
];

/// What one packet of a burst is like: few kinds, so that runs of one flow come up.
#[derive(Clone, Debug)]
struct Kind {
    ends: usize,
    ports: usize,
    hop_limit: u8,
    /// Flags and offset.
    fragment: u16,
    /// The first four bytes behind the UDP header are zero.
    marked: bool,
    neighbor: bool,
}

impl Kind {
    fn bytes(&self) -> Vec<u8> {
        let (source, destination) = ENDS[self.ends];
        let udp = Udp {
            ports: PORTS[self.ports],
            hop_limit: self.hop_limit,
            flags_and_offset: self.fragment,
            ..between(source, destination, 80)
        };
        if self.neighbor && udp.source.is_ipv6() {
            // A neighbour solicitation where the hop limit is 255, an ICMPv6 packet elsewhere.
            return udp.with(protocol::ICMPV6, &[135, 0, 0, 0, 0, 0, 0, 0]);
        }
        let mut bytes = udp.bytes();
        if self.marked {
            let data = if udp.source.is_ipv4() { 28 } else { 48 };
            bytes[data..data + 4].fill(0);
        }
        bytes
    }
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let hop_limit = prop_oneof![4 => Just(64_u8), 1 => Just(1), 1 => Just(255)];
    let fragment = prop_oneof![6 => Just(0_u16), 1 => Just(0x2000), 1 => Just(0x0008)];
    let rare = prop::bool::weighted(0.2);
    let kind = (
        0..ENDS.len(),
        0..PORTS.len(),
        hop_limit,
        fragment,
        rare,
        rare,
    );
    let kind = kind.prop_map(
        |(ends, ports, hop_limit, fragment, marked, neighbor)| Kind {
            ends,
            ports,
            hop_limit,
            fragment,
            marked,
            neighbor,
        },
    );
    // Runs of a flow, whose packets differ in what is no part of it.
    let change = (any::<bool>(), any::<bool>(), any::<bool>());
    let run = (kind, prop::collection::vec(change, 1..6)).prop_map(|(kind, changes)| {
        let packets = changes.into_iter().map(|(hop_limit, marked, whole)| Kind {
            hop_limit: if hop_limit { 1 } else { kind.hop_limit },
            marked: marked || kind.marked,
            fragment: if whole { 0 } else { kind.fragment },
            ..kind.clone()
        });
        packets.collect::<Vec<_>>()
    });
    prop::collection::vec(run, 1..20).prop_map(|runs| {
        let mut packets: Vec<Kind> = runs.into_iter().flatten().collect();
        packets.truncate(64);
        packets
    })
}

fn by_port(name: &str, action: Action, port: u16) -> PolicyParameters {
    let mut policy = policy(name, Direction::Out, action, &[]);
    policy.selector.protocol = Some(protocol::UDP);
    policy.selector.remote_port = PortSelector::List {
        opaque: false,
        ranges: vec![(port, port)],
    };
    policy
}

fn sender() -> Gateway {
    let out = |spi| sa(Direction::Out, spi, A, B);
    let mut second = policy("second", Direction::Out, Action::Protect, &["1002-Out"]);
    second.selector.remote = addresses("10.3.0.0", "10.3.255.255");
    let policies = [
        by_port("none", Action::Discard, 80),
        by_port("clear", Action::Bypass, 81),
        second,
        policy("first", Direction::Out, Action::Protect, &["1001-Out"]),
    ];
    Gateway::new(vec![out(0x1001), out(0x1002)], &policies, &[A, A6])
}

/// Opens packets of the first SA to the first network, of the second SA to the second.
fn receiver() -> Gateway {
    let into = |spi| sa(Direction::In, spi, A, B);
    let mut second = policy("second", Direction::In, Action::Protect, &["1002-In"]);
    second.selector.local = addresses("10.3.0.0", "10.3.255.255");
    let policies = [
        second,
        policy("first", Direction::In, Action::Protect, &["1001-In"]),
    ];
    Gateway::new(vec![into(0x1001), into(0x1002)], &policies, &[B, B6])
}

/// Seals everything by one SA.
fn sealer(spi: u32) -> Gateway {
    let out: SaParameters = sa(Direction::Out, spi, A, B);
    let name = out.name.clone();
    let all = policy("all", Direction::Out, Action::Protect, &[name.as_str()]);
    Gateway::new(vec![out], &[all], &["192.0.2.99"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    //= test T51 (RFC 4301 section 5.1)
    //= test T58 (RFC 4301 section 5.1.2.1)
    //= test T101 (RFC 4301 section 5)
    #[test]
    fn a_burst_leaves_as_its_packets_alone_do(kinds in kinds(), from_host: bool) {
        let packets: Vec<_> = kinds.iter().map(Kind::bytes).collect();
        let (mut together, mut alone) = (sender(), sender());
        let found = together.outbound(&packets, 1500, from_host);
        for ((packet, kind), found) in packets.iter().zip(&kinds).zip(found) {
            let expected = alone.outbound(std::slice::from_ref(packet), 1500, from_host).remove(0);
            prop_assert_eq!(found, expected, "{:?}", kind);
        }
        for index in 0..4 {
            prop_assert_eq!(together.count(index), alone.count(index));
        }
    }

    //= test T53 (RFC 4301 section 5.2)
    #[test]
    fn a_burst_arrives_as_its_packets_alone_do(
        kinds in kinds(),
        by_second in prop::collection::vec(prop::bool::weighted(0.3), 64),
        again in prop::collection::vec(prop::bool::weighted(0.1), 64),
    ) {
        let (mut first, mut second) = (sealer(0x1001), sealer(0x1002));
        let mut wire: Vec<Vec<u8>> = Vec::new();
        for ((kind, by_second), again) in kinds.iter().zip(by_second).zip(again) {
            let sealer = if by_second { &mut second } else { &mut first };
            let (_, sealed) = sealer.outbound(&[kind.bytes()], 1500, true).remove(0);
            let sealed = match wire.last() {
                Some(last) if again => last.clone(),
                _ => sealed,
            };
            if ipsec::packet::parse(&sealed).is_ok() {
                wire.push(sealed);
            }
        }
        let (mut together, mut alone) = (receiver(), receiver());
        let found = together.receive(&wire);
        for (packet, found) in wire.iter().zip(found) {
            prop_assert_eq!(found, alone.receive(std::slice::from_ref(packet)).remove(0));
        }
        for index in 0..2 {
            prop_assert_eq!(together.count(index), alone.count(index));
        }
    }
}
