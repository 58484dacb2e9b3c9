//! What comes from the unprotected side: each way a packet can end, and that it moves nothing.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::inbound::Consumed;
use ipsec::policy::{Action, PolicyParameters, PortSelector, Selector};
use ipsec::sa::association::{Direction, Mode, Protocol, UdpEncapsulation};
use ipsec::verdict::DropReason;

use crate::gateway::{A, A6, B, B6, Gateway, In, addresses, crafted, pair, policy, sa};
use crate::packets::{Udp, between, v4, v6};

const fn drop(reason: DropReason) -> In {
    In::Drop(reason)
}

const ENCAPSULATION: UdpEncapsulation = UdpEncapsulation {
    source_port: 4500,
    destination_port: 4500,
};

//= test T29
#[test]
fn of_many_copies_in_one_batch_exactly_one_is_accepted() {
    let (mut a, mut b) = pair(|_| {});
    let sealed = a.seal(&v4(100).bytes());
    let verdicts = b.receive(&vec![sealed; 100]);
    let opened = verdicts
        .iter()
        .filter(|(verdict, _)| *verdict == In::Opened);
    assert_eq!(opened.count(), 1);
    let replayed = verdicts
        .iter()
        .filter(|(verdict, _)| *verdict == drop(DropReason::Replay));
    assert_eq!(replayed.count(), 99);
    assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 1);
    assert_eq!(b.sa("1001-In").published.bytes.load(Relaxed), 100);
}

//= test T26
//= test T27
#[test]
fn duplicates_and_what_lies_left_of_the_window_are_refused() {
    let (mut a, mut b) = pair(|_| {});
    let sealed: Vec<_> = (0..100).map(|_| a.seal(&v4(60).bytes())).collect();
    assert_eq!(b.verdict(&sealed[99]), In::Opened);
    assert_eq!(b.verdict(&sealed[99]), drop(DropReason::Replay));
    assert_eq!(b.verdict(&sealed[36]), In::Opened);
    assert_eq!(b.verdict(&sealed[35]), drop(DropReason::Replay));
}

//= test T28
//= test T31
#[test]
fn a_bad_icv_moves_nothing() {
    let (mut a, mut b) = pair(|_| {});
    let first = a.seal(&v4(60).bytes());
    let mut forged = crafted(&a, 4_000_000_000, &v4(60).bytes(), &[1, 2, 2, 4]);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(b.verdict(&forged), drop(DropReason::Authentication));
    let published = &b.sa("1001-In").published;
    assert_eq!(published.packets.load(Relaxed), 0);
    assert_eq!(published.sequence.load(Relaxed), 0);
    assert_eq!(b.verdict(&first), In::Opened);
}

#[test]
fn number_zero_without_esn_is_a_replay() {
    let (a, mut b) = pair(|_| {});
    let zero = crafted(&a, 0, &v4(62).bytes(), &[0, 4]);
    assert_eq!(b.verdict(&zero), drop(DropReason::Replay));
}

//= test T23
//= test T56
#[test]
fn an_unknown_spi_is_no_sa_for_us_and_transit_for_others() {
    let (_, mut b) = pair(|_| {});
    let unknown = between(A, B, 0).with(50, &[0, 0, 0x99, 0, 0, 0, 0, 1]);
    assert_eq!(b.verdict(&unknown), drop(DropReason::NoSa));
    let bypass = policy("clear", Direction::In, Action::Bypass, &[]);
    let mut b = Gateway::new(vec![], &[bypass], &[B]);
    let other = between(A, "192.0.2.77", 0).with(50, &[0, 0, 0x99, 0, 0, 0, 0, 1]);
    assert_eq!(b.verdict(&other), In::Forward);
    assert_eq!(b.verdict(&unknown), drop(DropReason::NoSa));
}

//= test T34
#[test]
fn eight_bytes_look_for_the_sa_and_fewer_are_malformed() {
    let (_, mut b) = pair(|_| {});
    let known = [0, 0, 0x10, 1, 0, 0, 0, 1];
    for length in 0..8 {
        let short = between(A, B, 0).with(50, &known[..length]);
        assert_eq!(b.verdict(&short), drop(DropReason::Malformed), "{length}");
    }
    for more in 0..64 {
        let mut payload = known.to_vec();
        payload.resize(8 + more, 0);
        let verdict = b.verdict(&between(A, B, 0).with(50, &payload));
        let whole = more >= 8 + 4 + 16 && more % 4 == 0;
        let wanted = if whole {
            DropReason::Authentication
        } else {
            DropReason::Malformed
        };
        assert_eq!(verdict, drop(wanted), "{more}");
    }
    let short_ah = between(A, B, 0).with(51, &[4, 1, 0, 0, 0, 0, 0x10, 1]);
    assert_eq!(b.verdict(&short_ah), drop(DropReason::Malformed));
}

#[test]
fn the_spi_of_an_out_sa_is_the_wrong_direction() {
    let (mut a, _) = pair(|_| {});
    let mirrored = a.seal(&v4(60).bytes());
    assert_eq!(a.verdict(&mirrored), drop(DropReason::WrongDirection));
    let to_us = between(B, A, 0).with(50, &[0, 0, 0x10, 1, 0, 0, 0, 1]);
    assert_eq!(a.verdict(&to_us), drop(DropReason::WrongDirection));
}

//= test T22
#[test]
fn fragments_of_esp_for_us_are_not_opened() {
    let (_, mut b) = pair(|_| {});
    for flags_and_offset in [0x2000, 1] {
        let fragment = Udp {
            flags_and_offset,
            ..between(A, B, 0)
        };
        let verdict = b.verdict(&fragment.with(50, &[0; 40]));
        assert_eq!(verdict, drop(DropReason::Fragment));
    }
}

#[test]
fn ah_and_transport_mode_are_not_built_yet() {
    for change in [
        |sa: &mut ipsec::sa::SaParameters| sa.mode = Mode::Transport,
        |sa: &mut ipsec::sa::SaParameters| sa.mode = Mode::Transport,
    ] {
        let (mut a, mut b) = pair(change);
        let (verdict, _) = a.send(&[v4(60).bytes()], 1500).remove(0);
        assert_eq!(
            verdict,
            ipsec::outbound::Verdict::Drop(DropReason::Unsupported)
        );
        let packet = crafted(&a, 1, &v4(62).bytes(), &[0, 4]);
        assert_eq!(b.verdict(&packet), drop(DropReason::Unsupported));
    }
}

//= test T57
#[test]
fn exactly_the_hard_packets_pass_even_in_one_batch() {
    let (mut a, _) = pair(|_| {});
    let (_, mut b) = pair(|sa| sa.lifetime.hard_packets = 5);
    let sealed: Vec<_> = (0..9).map(|_| a.seal(&v4(60).bytes())).collect();
    let verdicts: Vec<_> = b.receive(&sealed).into_iter().map(|(end, _)| end).collect();
    assert_eq!(verdicts[..5], [In::Opened; 5]);
    assert_eq!(verdicts[5..], [drop(DropReason::SaExpired); 4]);
    assert_eq!(b.verdict(&sealed[8]), drop(DropReason::SaExpired));
}

#[test]
fn what_lies_beyond_the_reservation_is_held_and_moves_nothing() {
    let (mut a, mut b) = pair(|_| {});
    let sealed: Vec<_> = (0..9).map(|_| a.seal(&v4(60).bytes())).collect();
    b.sa("1001-In").published.reserved_end.store(5, Relaxed);
    assert_eq!(b.verdict(&sealed[7]), In::Held);
    assert_eq!(b.verdict(&sealed[4]), In::Opened);
    assert_eq!(b.wanted.as_slice().len(), 1);
    assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 1);
    b.sa("1001-In").published.reserved_end.store(100, Relaxed);
    assert_eq!(b.verdict(&sealed[7]), In::Opened);
}

#[test]
fn an_sa_at_home_elsewhere_is_handed_over_unchanged() {
    let (mut a, mut b) = pair(|_| {});
    let sealed = a.seal(&v4(60).bytes());
    b.sa("1001-In").home.store(3, Relaxed);
    assert_eq!(b.verdict(&sealed), In::Elsewhere(3));
    a.sa("1001-Out").home.store(4, Relaxed);
    let (verdict, _) = a.send(&[v4(60).bytes()], 1500).remove(0);
    assert_eq!(verdict, ipsec::outbound::Verdict::Elsewhere(4));
    assert_eq!(a.count(0), 1);
}

//= test T32
//= test T33
//= test T73
#[test]
fn padding_of_any_length_counts_from_one_and_nothing_else() {
    let (a, mut b) = pair(|_| {});
    let inner = v4(60).bytes();
    let trailer =
        |padding: u8, next: u8| -> Vec<u8> { (1..=padding).chain([padding, next]).collect() };
    let mut number = 0;
    let mut verdict = |body: &[u8], trailer: &[u8]| {
        number += 1;
        b.verdict(&crafted(&a, number, body, trailer))
    };
    for padding in (2..=254).step_by(4) {
        assert_eq!(verdict(&inner, &trailer(padding, 4)), In::Opened);
    }
    assert_eq!(verdict(&inner, &[1, 3, 2, 4]), drop(DropReason::BadPadding));
    assert_eq!(verdict(&inner, &[0, 0, 2, 4]), drop(DropReason::BadPadding));
    assert_eq!(
        verdict(&inner, &[9, 9, 200, 4]),
        drop(DropReason::BadPadding)
    );
    assert_eq!(verdict(&[], &[1, 2, 3, 4]), drop(DropReason::BadPadding));
    // The counters count it: it was authentic and new.
    assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 68);
}

//= test T35
//= test T36
//= test T75
#[test]
fn next_headers_are_checked_behind_the_padding() {
    let (a, mut b) = pair(|_| {});
    let inner = v4(60).bytes();
    let mut number = 0;
    let mut verdict = |body: &[u8], trailer: &[u8]| {
        number += 1;
        b.verdict(&crafted(&a, number, body, trailer))
    };
    let dummy = In::Consumed(Consumed::Dummy);
    assert_eq!(verdict(&[0xaa; 62], &[0, 59]), dummy);
    assert_eq!(verdict(&[], &[1, 2, 2, 59]), dummy);
    assert_eq!(
        verdict(&[0xaa; 60], &[7, 7, 2, 59]),
        drop(DropReason::BadPadding)
    );
    for next in [0, 6, 17, 50, 58, 60, 255] {
        let end = drop(DropReason::InnerUnsupported);
        assert_eq!(verdict(&inner, &[1, 2, 2, next]), end);
    }
    // An IPv4 packet that is announced as IPv6, and headers that lie.
    let bad = drop(DropReason::BadPadding);
    assert_eq!(verdict(&inner, &[1, 2, 2, 41]), bad);
    let mut lying = inner.clone();
    lying[3] = 61;
    assert_eq!(verdict(&lying, &[1, 2, 2, 4]), bad);
    assert_eq!(verdict(&[], &[1, 2, 2, 4]), bad);
    let mut sum = inner;
    sum[10] ^= 1;
    assert_eq!(verdict(&sum, &[1, 2, 2, 4]), bad);
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
    assert_eq!(b.counts.iter().map(|count| count.packets).sum::<u64>(), 9);
    let names: Vec<_> = b
        .tables
        .builtins()
        .filter(|(index, _)| b.counts[index.0 as usize].packets > 0)
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

fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    let mut udp = vec![0x11, 0x94];
    udp.extend(port.to_be_bytes());
    udp.extend((payload.len() as u16 + 8).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    between(A, B, 0).with(17, &udp)
}

//= test T67
//= test T136
#[test]
fn markers_keepalives_and_runts_on_an_encapsulation_port() {
    let (_, mut b) = pair(|sa| sa.udp_encapsulation = Some(ENCAPSULATION));
    assert_eq!(
        b.verdict(&datagram(4500, &[0xff])),
        In::Consumed(Consumed::Keepalive)
    );
    assert_eq!(b.verdict(&datagram(4500, &[0xfe])), In::Host);
    assert_eq!(b.verdict(&datagram(4500, &[])), In::Host);
    assert_eq!(b.verdict(&datagram(4500, &[0; 40])), In::Host);
    for length in 2..8 {
        let runt = datagram(4500, &vec![7; length]);
        assert_eq!(b.verdict(&runt), drop(DropReason::Malformed));
    }
    assert_eq!(b.verdict(&datagram(4500, &[9; 8])), drop(DropReason::NoSa));
    let mut long = datagram(4500, &[9; 8]);
    long[25] += 1;
    assert_eq!(b.verdict(&long), drop(DropReason::Malformed));
    let mut stranger = between("192.0.2.9", B, 29).bytes();
    stranger[20..29].copy_from_slice(&[0x11, 0x94, 0x11, 0x94, 0, 9, 0, 0, 0xff]);
    assert_eq!(b.verdict(&stranger), In::Host);
}

//= test T158
#[test]
fn encapsulated_and_bare_esp_find_their_sa() {
    let (mut bare, _) = pair(|_| {});
    let (mut wrapped, _) = pair(|sa| sa.udp_encapsulation = Some(ENCAPSULATION));
    let (_, mut b) = pair(|sa| sa.udp_encapsulation = Some(ENCAPSULATION));
    bare.seal(&v4(60).bytes());
    assert_eq!(b.verdict(&wrapped.seal(&v4(60).bytes())), In::Opened);
    assert_eq!(b.verdict(&bare.seal(&v4(60).bytes())), In::Opened);
    let (_, mut without) = pair(|_| {});
    let verdict = without.verdict(&wrapped.seal(&v4(60).bytes()));
    assert_eq!(verdict, drop(DropReason::WrongDirection));
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

#[test]
fn an_ipv6_packet_with_mapped_addresses_finds_no_ipv4_sa() {
    let (mut a, mut b) = pair(|_| {});
    let sealed = a.seal(&v4(60).bytes());
    let mapped = between("::ffff:192.0.2.1", "::ffff:192.0.2.2", 0).with(50, &sealed[20..]);
    // A clear packet, since nobody here has that address in IPv6.
    let clear = drop(DropReason::PlaintextRequiredProtection);
    assert_eq!(b.verdict(&mapped), clear);
    let known = between(A6, B6, 0).with(50, &sealed[20..]);
    assert_eq!(b.verdict(&known), drop(DropReason::NoSa));
    assert_eq!(b.verdict(&v6(60).bytes()), clear);
}

#[test]
fn an_sa_of_ah_is_not_found_by_esp() {
    let mut ah = sa(Direction::In, 0x1001, A, B);
    ah.protocol = Protocol::Ah;
    ah.suite.encryption = ipsec::crypto::suite::Encryption::Null;
    ah.suite.integrity = Some(ipsec::crypto::suite::Integrity::Sha1_96);
    ah.encryption_key = ipsec::secret::Secret::default();
    ah.integrity_key = ipsec::secret::Secret::new(vec![1; 20]);
    let from = policy("from", Direction::In, Action::Protect, &["1001-In"]);
    let mut b = Gateway::new(vec![ah], &[from], &[B]);
    let esp = between(A, B, 0).with(50, &[0, 0, 0x10, 1, 0, 0, 0, 1]);
    assert_eq!(b.verdict(&esp), drop(DropReason::NoSa));
    let header = [4, 4, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 1];
    let packet = between(A, B, 0).with(51, &header);
    assert_eq!(b.verdict(&packet), drop(DropReason::Unsupported));
}
