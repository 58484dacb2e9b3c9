//! What comes from the unprotected side: each way a packet can end, and that it moves nothing.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::inbound::Consumed;
use ipsec::policy::Action;
use ipsec::sa::association::NO_HOME;
use ipsec::sa::association::{Direction, Protocol, SaParameters, UdpEncapsulation};
use ipsec::sa::state::HELD_AT_MOST;
use ipsec::time::Time;
use ipsec::verdict::DropReason;
use ipsec::wire::checksum::Sum;

use crate::gateway::{A, A6, B, B6, Gateway, In, crafted, pair, policy, sa};
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
    assert_eq!(b.verdict(&sealed[7]), In::Held(5));
    assert_eq!(b.verdict(&sealed[4]), In::Opened);
    assert_eq!(b.wanted.as_slice().len(), 1);
    assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 1);
    b.sa("1001-In").published.reserved_end.store(100, Relaxed);
    let slot = b.sa("1001-In").slot;
    b.states.of(slot).unwrap().offer_again();
    assert_eq!(b.verdict(&sealed[7]), In::Opened);
}

#[test]
fn a_reservation_granted_meanwhile_lets_nothing_overtake_what_is_held() {
    let (mut a, mut b) = pair(|_| {});
    let sealed: Vec<_> = (0..9).map(|_| a.seal(&v4(60).bytes())).collect();
    let slot = b.sa("1001-In").slot;
    b.sa("1001-In").published.reserved_end.store(5, Relaxed);
    assert_eq!(b.verdict(&sealed[6]), In::Held(5));
    b.sa("1001-In").published.reserved_end.store(100, Relaxed);
    assert_eq!(b.verdict(&sealed[7]), In::Held(5));
    // What is older than the one that waits overtakes nothing.
    assert_eq!(b.verdict(&sealed[3]), In::Opened);
    b.states.of(slot).unwrap().offer_again();
    assert_eq!(b.verdict(&sealed[6]), In::Opened);
    assert_eq!(b.verdict(&sealed[7]), In::Opened);
    // Nobody waits for ever for what is never offered again.
    b.sa("1001-In").published.reserved_end.store(8, Relaxed);
    assert_eq!(b.verdict(&sealed[8]), In::Held(8));
    b.sa("1001-In").published.reserved_end.store(100, Relaxed);
    assert_eq!(b.verdict(&sealed[8]), In::Held(8));
    b.now = Time(b.now.0 + HELD_AT_MOST);
    assert_eq!(b.verdict(&sealed[8]), In::Opened);
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

#[test]
fn esp_in_udp_ends_with_its_datagram_and_serves_the_sas_own_port() {
    let (mut a, mut b) = pair(|sa| sa.udp_encapsulation = Some(ENCAPSULATION));
    // Bytes behind the datagram but within the packet are no part of it.
    let mut longer = a.seal(&v4(60).bytes());
    longer.extend([0xee; 4]);
    let length = longer.len() as u16;
    longer[2..4].copy_from_slice(&length.to_be_bytes());
    longer[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&longer[..20]).checksum();
    longer[10..12].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(b.verdict(&longer), In::Opened);
    // Port 4500 is open at every end, and this SA has another.
    let other = |sa: &mut SaParameters| {
        sa.udp_encapsulation = Some(UdpEncapsulation {
            destination_port: 4501,
            ..ENCAPSULATION
        });
    };
    let (mut right, mut b) = pair(other);
    let verdict = b.verdict(&a.seal(&v4(60).bytes()));
    assert_eq!(verdict, drop(DropReason::WrongDirection));
    right.seal(&v4(60).bytes());
    assert_eq!(b.verdict(&right.seal(&v4(60).bytes())), In::Opened);
}

#[test]
fn a_packet_for_an_outbound_sa_does_not_even_find_it_a_home() {
    // Whoever hears our packets knows their SPI and where they go.
    let (mut a, _) = pair(|_| {});
    let sealed = between(A, B, 0).with(50, &[&0x1001_u32.to_be_bytes()[..], &[0; 60]].concat());
    assert_eq!(a.sa("1001-Out").home.load(Relaxed), NO_HOME);
    assert_eq!(a.verdict(&sealed), drop(DropReason::WrongDirection));
    assert_eq!(a.sa("1001-Out").home.load(Relaxed), NO_HOME);
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
    // Found, and shorter than its own ICV.
    assert_eq!(b.verdict(&packet), drop(DropReason::Malformed));
}

#[test]
fn a_mixed_burst_ends_as_its_packets_do_alone() {
    let (mut a, mut alone) = pair(|_| {});
    let (_, mut together) = pair(|_| {});
    let unknown = between(A, B, 0).with(50, &[0, 0, 0x99, 0, 0, 0, 0, 1]);
    let elsewhere = between(A, "192.0.2.77", 0).with(50, &[0, 0, 0x99, 0, 0, 0, 0, 1]);
    let short = between(A, B, 0).with(50, &[0, 0, 0x10]);
    let ah = between(A, B, 0).with(51, &[4, 4, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 1]);
    let ike = Udp {
        ports: (500, 500),
        ..between(A, B, 60)
    };
    let burst: Vec<Vec<u8>> = (0..30)
        .flat_map(|_| {
            let sealed = a.seal(&v4(60).bytes());
            let mut forged = a.seal(&v6(90).bytes());
            forged[50] ^= 1;
            [
                unknown.clone(),
                sealed.clone(),
                v4(60).bytes(),
                elsewhere.clone(),
                forged,
                short.clone(),
                ike.bytes(),
                sealed,
                ah.clone(),
            ]
        })
        .collect();
    let alone: Vec<In> = burst.iter().map(|packet| alone.verdict(packet)).collect();
    let together = together.receive(&burst).into_iter();
    assert_eq!(together.map(|(end, _)| end).collect::<Vec<_>>(), alone);
    assert_eq!(alone.iter().filter(|end| **end == In::Opened).count(), 30);
}
