//! Policy on arrival: clear packets, and what an SA may carry (RFC 4301 §5.2).

use ipsec::policy::{Action, PolicyParameters, PortSelector, Selector};
use ipsec::sa::association::Direction;
use ipsec::verdict::DropReason;

use crate::gateway::{A, B, Gateway, In, addresses, crafted, pair, policy, sa};
use crate::packets::{Udp, between, v4};

const fn drop(reason: DropReason) -> In {
    In::Drop(reason)
}

//= test T52
#[test]
fn clear_packets_end_as_the_inbound_policies_say() {
    let mut protect = policy("from", Direction::In, Action::Protect, &[]);
    protect.selector.remote = addresses("10.1.0.0", "10.1.255.255");
    let mut discard = policy("not", Direction::In, Action::Discard, &[]);
    discard.selector.remote = addresses("10.3.0.0", "10.3.255.255");
    let mut bypass = policy("clear", Direction::In, Action::Bypass, &[]);
    bypass.selector.remote = addresses("10.4.0.0", "10.4.255.255");
    let mut b = Gateway::new(vec![], &[protect, discard, bypass], &[B]);
    let cases = [
        (
            "10.1.0.1",
            "10.2.0.1",
            drop(DropReason::PlaintextRequiredProtection),
        ),
        ("10.1.0.1", B, drop(DropReason::PlaintextRequiredProtection)),
        ("10.3.0.1", "10.2.0.1", drop(DropReason::PolicyDiscard)),
        ("10.3.0.1", B, drop(DropReason::PolicyDiscard)),
        ("10.4.0.1", "10.2.0.1", In::Forward),
        ("10.4.0.1", B, In::Host),
        ("10.5.0.1", "10.2.0.1", drop(DropReason::NoPolicy)),
        ("10.5.0.1", B, In::Host),
        ("10.1.0.1", "224.0.0.5", In::Host),
    ];
    for (source, destination, wanted) in cases {
        let packet = between(source, destination, 60).bytes();
        assert_eq!(b.verdict(&packet), wanted, "{source} {destination}");
    }
    assert_eq!([b.count(0), b.count(1), b.count(2)], [2, 2, 2]);
    assert_eq!(b.counts.iter().map(|count| count.read().0).sum::<u64>(), 9);
    let names: Vec<_> = b
        .tables
        .builtins()
        .filter(|(index, _)| b.counts[index.0 as usize].read().0 > 0)
        .map(|(_, name)| name)
        .collect();
    assert_eq!(
        names,
        ["builtin-multicast", "builtin-local", "builtin-unmatched"]
    );
}

//= test T101
#[test]
fn ike_passes_to_the_machine_whatever_policy_protects() {
    let protect = policy("from", Direction::In, Action::Protect, &[]);
    let mut b = Gateway::new(vec![], &[protect], &[B]);
    let ike = Udp {
        ports: (500, 500),
        ..between(A, B, 60)
    };
    assert_eq!(b.verdict(&ike.bytes()), In::Host);
    let transit = Udp {
        ports: (500, 500),
        ..between(A, "10.2.0.1", 60)
    };
    let end = drop(DropReason::PlaintextRequiredProtection);
    assert_eq!(b.verdict(&transit.bytes()), end);
}

/// Two SAs into B, each with its own network behind A.
fn two_networks() -> (Gateway, Gateway) {
    let network = |direction, name: &str, sa: &str, first, last| PolicyParameters {
        selector: Selector {
            local: if direction == Direction::Out {
                addresses(first, last)
            } else {
                ipsec::policy::AddressSelector::Any
            },
            remote: if direction == Direction::In {
                addresses(first, last)
            } else {
                ipsec::policy::AddressSelector::Any
            },
            ..Selector::any()
        },
        ..policy(name, direction, Action::Protect, &[sa])
    };
    let one = ("10.1.0.0", "10.1.0.255");
    let two = ("10.1.1.0", "10.1.1.255");
    let sas = |direction| vec![sa(direction, 0x1001, A, B), sa(direction, 0x1002, A, B)];
    let a = [
        network(Direction::Out, "one", "1001-Out", one.0, one.1),
        network(Direction::Out, "two", "1002-Out", two.0, two.1),
    ];
    let b = [
        network(Direction::In, "one", "1001-In", one.0, one.1),
        network(Direction::In, "two", "1002-In", two.0, two.1),
    ];
    let a = Gateway::new(sas(Direction::Out), &a, &[A]);
    (a, Gateway::new(sas(Direction::In), &b, &[B]))
}

//= test T53
//= test T111
#[test]
fn an_inner_packet_must_come_by_exactly_its_policys_sa() {
    let (mut a, mut b) = two_networks();
    let mine = between("10.1.1.7", "10.2.0.1", 62).bytes();
    assert_eq!(b.verdict(&a.seal(&mine)), In::Opened);
    let borrowed = crafted(&a, 1, &mine, &[0, 4]);
    assert_eq!(b.verdict(&borrowed), drop(DropReason::SelectorMismatch));
    assert_eq!([b.count(0), b.count(1)], [0, 1]);
}

//= test T55
#[test]
fn an_alternative_is_as_good_as_the_first() {
    let (mut a, mut b) = two_networks();
    let from = policy(
        "from",
        Direction::In,
        Action::Protect,
        &["1002-In", "1001-In"],
    );
    let sas = vec![
        sa(Direction::In, 0x1001, A, B),
        sa(Direction::In, 0x1002, A, B),
    ];
    let mut both = Gateway::new(sas, &[from], &[B]);
    for source in ["10.1.0.7", "10.1.1.7"] {
        let sealed = a.seal(&between(source, "10.2.0.1", 62).bytes());
        assert_eq!(both.verdict(&sealed), In::Opened);
        assert_eq!(b.verdict(&sealed), In::Opened);
    }
}

/// An ICMP time exceeded of a router at `source` about `quoted`.
fn icmp_error(source: &str, destination: &str, quoted: &[u8]) -> Vec<u8> {
    let mut icmp = vec![11, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(quoted);
    let sum = ipsec::wire::checksum::Sum::default()
        .bytes(&icmp)
        .checksum();
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = between(source, destination, 0).with(1, &icmp);
    packet.resize(packet.len().next_multiple_of(4), 0);
    packet
}

//= test T123
#[test]
fn an_icmp_error_comes_by_the_sa_of_the_traffic_that_it_answers() {
    let (a, mut b) = two_networks();
    let ours = between("10.2.0.1", "10.1.0.7", 40).bytes();
    let error = icmp_error("10.9.9.9", "10.2.0.1", &ours);
    assert_eq!(
        b.verdict(&crafted(&a, 1, &error, &[1, 2, 2, 4])),
        In::Opened
    );
    let foreign = between("10.2.0.1", "10.1.1.7", 40).bytes();
    let error = icmp_error("10.9.9.9", "10.2.0.1", &foreign);
    let verdict = b.verdict(&crafted(&a, 2, &error, &[1, 2, 2, 4]));
    assert_eq!(verdict, drop(DropReason::SelectorMismatch));
}

//= test T64
#[test]
fn inner_fragments_pass_any_and_not_ports() {
    let (a, mut b) = pair(|_| {});
    let later = Udp {
        flags_and_offset: 8,
        ..v4(62)
    }
    .bytes();
    assert_eq!(b.verdict(&crafted(&a, 1, &later, &[0, 4])), In::Opened);
    let mut from = policy("from", Direction::In, Action::Protect, &["1001-In"]);
    from.selector.protocol = Some(17);
    from.selector.local_port = PortSelector::List {
        opaque: false,
        ranges: vec![(0, 65535)],
    };
    let into = sa(Direction::In, 0x1001, A, B);
    let mut b = Gateway::new(vec![into], &[from], &[B]);
    let end = drop(DropReason::Fragment);
    assert_eq!(b.verdict(&crafted(&a, 1, &later, &[0, 4])), end);
    assert_eq!(
        b.verdict(&crafted(&a, 2, &v4(62).bytes(), &[0, 4])),
        In::Opened
    );
}

//= test T124
#[test]
fn a_policy_for_hidden_ports_takes_no_fragment_that_could_hold_them() {
    let (a, _) = pair(|_| {});
    let mut from = policy("from", Direction::In, Action::Protect, &["1001-In"]);
    from.selector.protocol = Some(17);
    from.selector.local_port = PortSelector::List {
        opaque: true,
        ranges: vec![],
    };
    let into = sa(Direction::In, 0x1001, A, B);
    let mut b = Gateway::new(vec![into], &[from], &[B]);
    let ends = [(1, false), (15, false), (16, true), (100, true)];
    for (number, (offset, passes)) in (1..).zip(ends) {
        let later = Udp {
            flags_and_offset: offset,
            ..v4(62)
        };
        let verdict = b.verdict(&crafted(&a, number, &later.bytes(), &[0, 4]));
        let wanted = if passes {
            In::Opened
        } else {
            drop(DropReason::Fragment)
        };
        assert_eq!(verdict, wanted, "offset {offset} units");
    }
}
