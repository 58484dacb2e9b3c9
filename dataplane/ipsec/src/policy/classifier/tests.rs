//! The classifier answers as the plain search does, for policies and packets made to collide.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::packet::{Fragment, Upper};
use crate::policy::database::Database;
use crate::policy::{
    Action, AddressRange, AddressSelector, Bundles, Policy, PolicyIndex, PortSelector, TcpMss,
    UpperUse,
};

pub(crate) fn policy(index: u32, priority: u32, action: Action, selector: Selector) -> Policy {
    Policy {
        index: PolicyIndex(index),
        action,
        upper: UpperUse::of(&selector),
        tcp_mss: TcpMss::Off,
        priority,
        bundles: Bundles::default(),
        per_worker: Box::default(),
        selector,
    }
}

const V4: u128 = 0xffff_0000_0000;

/// Few addresses, so that policies overlap and packets hit their edges.
fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V4), Just(Version::V6)]
}

fn base(version: Version, low: u32) -> u128 {
    match version {
        Version::V4 => V4 | u128::from(low),
        Version::V6 => 0x2001_0db8 << 96 | u128::from(low),
    }
}

fn range(version: Version) -> impl Strategy<Value = AddressRange> {
    let prefix = (0_u32..64, 26_u32..=32).prop_map(|(low, length)| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        (low & mask, low & mask | !mask)
    });
    let ragged = (0_u32..64, 0_u32..64).prop_map(|(a, b)| (a.min(b), a.max(b)));
    prop_oneof![prefix, ragged].prop_map(move |(first, last)| AddressRange {
        version,
        first: base(version, first),
        last: base(version, last),
    })
}

fn addresses(version: Version) -> impl Strategy<Value = AddressSelector> {
    prop_oneof![
        1 => Just(AddressSelector::Any),
        4 => prop::collection::vec(range(version), 1..4).prop_map(AddressSelector::Ranges),
    ]
}

fn ports() -> impl Strategy<Value = PortSelector> {
    let range = (0_u16..8, 0_u16..8).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let list = (any::<bool>(), prop::collection::vec(range, 0..3))
        .prop_map(|(opaque, ranges)| PortSelector::List { opaque, ranges });
    prop_oneof![2 => Just(PortSelector::Any), 1 => list]
}

pub(crate) fn selector() -> impl Strategy<Value = Selector> {
    let protocol = prop_oneof![Just(None), Just(Some(6)), Just(Some(17)), Just(Some(1))];
    let icmp = prop::option::weighted(0.2, (0_u16..4, 0_u16..4));
    (version(), protocol, ports(), ports(), icmp).prop_flat_map(
        |(version, protocol, local_port, remote_port, icmp)| {
            (addresses(version), addresses(version)).prop_map(move |(local, remote)| Selector {
                local,
                remote,
                protocol,
                local_port: local_port.clone(),
                remote_port: remote_port.clone(),
                icmp: icmp.map(|(a, b)| (a.min(b), a.max(b))),
            })
        },
    )
}

pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let upper = prop_oneof![
        3 => (0_u16..8, 0_u16..8)
            .prop_map(|(source, destination)| Upper::Ports { source, destination }),
        1 => (0_u16..4).prop_map(Upper::Icmp),
        1 => Just(Upper::Opaque),
    ];
    let fragment = prop_oneof![
        Just(Fragment::Whole),
        Just(Fragment::First),
        Just(Fragment::Later)
    ];
    let protocol = prop_oneof![Just(6_u8), Just(17), Just(1), Just(50)];
    (
        version(),
        0_u32..64,
        0_u32..64,
        upper,
        protocol,
        fragment,
        0_u32..3,
    )
        .prop_map(
            |(version, source, destination, upper, protocol, fragment, identification)| Packet {
                source: base(version, source),
                destination: base(version, destination),
                length: 100,
                upper_offset: 20,
                identification,
                upper: if fragment == Fragment::Later {
                    Upper::Opaque
                } else {
                    upper
                },
                version,
                protocol,
                hop_limit: 64,
                traffic_class: 0,
                fragment,
                dont_fragment: false,
            },
        )
}

pub(crate) fn compiled(database: &Database) -> Classifier {
    let selectors = (0..)
        .zip(database.policies())
        .map(|(position, policy)| (position, policy.selector.clone()));
    Classifier::new(database.direction(), selectors)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    //= test T54
    //= test T98
    #[test]
    fn the_answer_is_the_plain_searchs(
        selectors in prop::collection::vec((0_u32..4, selector()), 0..60),
        packets in prop::collection::vec(packet(), 40),
        inbound: bool,
    ) {
        let direction = if inbound { Direction::In } else { Direction::Out };
        let policies = (0..)
            .zip(selectors)
            .map(|(index, (priority, selector))| {
                policy(index, priority, Action::Protect, selector)
            })
            .collect();
        let database = Database::new(direction, policies);
        let classifier = compiled(&database);
        for packet in &packets {
            let found = classifier.first(packet).map(|it| it as usize);
            prop_assert_eq!(found, database.first(packet));
        }
        // Runs of one flow, as bursts have them.
        let burst: Vec<&Packet> = packets.iter().flat_map(|packet| [packet; 2]).collect();
        for burst in burst.chunks(BATCH) {
            let mut found = [None; BATCH];
            classifier.first_of_each(burst, &mut found);
            for (packet, found) in burst.iter().zip(found) {
                prop_assert_eq!(found.map(|it| it as usize), database.first(packet));
            }
        }
    }
}

/// A /24 on each side for each of many sites, as a fleet's concentrator has them.
fn sites(count: u32) -> Vec<Policy> {
    let prefix = |start: u128| {
        AddressSelector::Ranges(vec![AddressRange {
            version: Version::V4,
            first: V4 | start,
            last: V4 | start | 0xff,
        }])
    };
    (0..count)
        .map(|site| {
            let selector = Selector {
                local: prefix(u128::from(site % 256) << 8 | 0x0a00_0000),
                remote: prefix(u128::from(site) << 8 | 0x1000_0000),
                ..Selector::any()
            };
            policy(site, 100, Action::Protect, selector)
        })
        .collect()
}

fn site_packet(site: u32) -> Packet {
    Packet {
        source: V4 | u128::from(site % 256) << 8 | 0x0a00_0007,
        destination: V4 | u128::from(site) << 8 | 0x1000_0009,
        length: 100,
        upper_offset: 20,
        identification: 0,
        upper: Upper::Ports {
            source: 1,
            destination: 2,
        },
        version: Version::V4,
        protocol: 17,
        hop_limit: 64,
        traffic_class: 0,
        fragment: Fragment::Whole,
        dont_fragment: false,
    }
}

#[test]
fn a_hundred_thousand_policies_compile_in_seconds_and_each_is_found() {
    let start = Instant::now();
    let database = Database::new(Direction::Out, sites(100_000));
    let classifier = compiled(&database);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    for site in (0..100_000).step_by(997) {
        let position = classifier.first(&site_packet(site)).unwrap();
        let found = &database.policies()[position as usize];
        assert_eq!(found.index, PolicyIndex(site));
    }
    assert_eq!(classifier.first(&site_packet(200_000)), None);
}

#[test]
fn policies_that_differ_in_ports_alone_are_cut_apart() {
    let policies = (0..60_000_u16)
        .map(|port| {
            let selector = Selector {
                protocol: Some(17),
                remote_port: PortSelector::List {
                    opaque: false,
                    ranges: vec![(port, port)],
                },
                ..Selector::any()
            };
            policy(port.into(), 1, Action::Bypass, selector)
        })
        .collect();
    let database = Database::new(Direction::Out, policies);
    let start = Instant::now();
    let classifier = compiled(&database);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
    let mut packet = site_packet(0);
    for port in (0..60_000).step_by(991) {
        packet.upper = Upper::Ports {
            source: 9,
            destination: port,
        };
        assert_eq!(classifier.first(&packet), Some(port.into()));
    }
}
