//! Two SAs, one after the other: AH over ESP and its relatives.

use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::packet::{parse, protocol};
use ipsec::policy::{Action, PolicyParameters};
use ipsec::sa::SaSlot;
use ipsec::sa::association::{Direction, Mode, Protocol, SaParameters};
use ipsec::verdict::DropReason;

use crate::gateway::{A, A6, B, B6, GCM, Gateway, In, Out, policy, sa, with_suite};
use crate::packets::{self, between};

const SHA256: Suite = Suite {
    encryption: Encryption::Null,
    integrity: Some(Integrity::Sha256_128),
};

pub(crate) type Kind = (Protocol, Mode);

fn end(direction: Direction, spi: u32, (protocol, mode): Kind, six: bool) -> SaParameters {
    let (source, destination) = if six { (A6, B6) } else { (A, B) };
    let suite = match protocol {
        Protocol::Esp => GCM,
        Protocol::Ah => SHA256,
    };
    let mut parameters = with_suite(sa(direction, spi, source, destination), suite);
    parameters.protocol = protocol;
    parameters.mode = mode;
    parameters
}

fn bundle(name: &str, direction: Direction, sas: &[&str]) -> PolicyParameters {
    let mut policy = policy(name, direction, Action::Protect, &[]);
    policy.bundles = vec![sas.iter().map(|name| (*name).to_string()).collect()];
    policy
}

/// Both ends of a bundle; the receiver wants `wanted`, innermost first.
pub(crate) fn gateways(inner: Kind, outer: Kind, six: bool, wanted: &[&str]) -> (Gateway, Gateway) {
    let both = |direction| {
        vec![
            end(direction, 0x1001, inner, six),
            end(direction, 0x1002, outer, six),
        ]
    };
    let to = bundle("to", Direction::Out, &["1001-Out", "1002-Out"]);
    let from = bundle("from", Direction::In, wanted);
    (
        Gateway::new(both(Direction::Out), &[to], &[A, A6]),
        Gateway::new(both(Direction::In), &[from], &[B, B6]),
    )
}

pub(crate) const BOTH: [&str; 2] = ["1001-In", "1002-In"];
pub(crate) const ESP_TUNNEL: Kind = (Protocol::Esp, Mode::Tunnel);
pub(crate) const ESP_TRANSPORT: Kind = (Protocol::Esp, Mode::Transport);
pub(crate) const AH_TUNNEL: Kind = (Protocol::Ah, Mode::Tunnel);
pub(crate) const AH_TRANSPORT: Kind = (Protocol::Ah, Mode::Transport);

//= test T50
//= test T88
//= test T92
//= test T113
#[test]
fn every_pair_goes_there_and_back() {
    let kinds = [ESP_TUNNEL, ESP_TRANSPORT, AH_TUNNEL, AH_TRANSPORT];
    for (inner, outer) in kinds.into_iter().flat_map(|i| kinds.map(|o| (i, o))) {
        for six in [false, true] {
            let (mut a, mut b) = gateways(inner, outer, six, &BOTH);
            for length in [60, 61, 500, 1200] {
                let packet = match (inner.1, six) {
                    (Mode::Tunnel, false) => packets::v4(length),
                    (Mode::Tunnel, true) => packets::v6(length),
                    (Mode::Transport, false) => between(A, B, length),
                    (Mode::Transport, true) => between(A6, B6, length),
                };
                let sealed = a.seal(&packet.bytes());
                let outside = parse(&sealed).unwrap();
                assert_eq!(outside.protocol, outer.0 as u8);
                let (verdict, opened) = b.receive(&[sealed]).remove(0);
                assert_eq!(verdict, In::Opened, "{inner:?} {outer:?} {six} {length}");
                assert_eq!(opened, packet.lowered());
            }
            for gateway in [&mut a, &mut b] {
                for slot in [0, 1] {
                    assert_eq!(gateway.states.of(SaSlot(slot)).unwrap().packets(), 4);
                }
                assert_eq!(gateway.count(0), 4);
            }
        }
    }
}

//= test T50
#[test]
fn ah_stands_in_front_of_esp() {
    let (mut a, _) = gateways(ESP_TUNNEL, AH_TRANSPORT, false, &BOTH);
    let sealed = a.seal(&packets::v4(100).bytes());
    assert_eq!((sealed[9], sealed[20]), (protocol::AH, protocol::ESP));
    assert_eq!(sealed[24..28], 0x1002_u32.to_be_bytes());
    assert_eq!(sealed[48..52], 0x1001_u32.to_be_bytes());
    // 20 + AH 28 + 8 + 8 + 100 + 2 + 2 + 16
    assert_eq!(sealed.len(), 184);
    assert_eq!(parse(&sealed).unwrap().hop_limit, 64);
}

//= test T50
//= test T53
#[test]
fn one_sa_of_a_bundle_is_not_enough() {
    let mismatch = In::Drop(DropReason::SelectorMismatch);
    let packet = packets::v4(100).bytes();
    // The receiver wants both, and the sender uses one.
    for (wanted, used) in [("1001-In", 0), ("1002-In", 1)] {
        let kinds = [ESP_TUNNEL, AH_TUNNEL];
        let out = end(Direction::Out, 0x1001 + used, kinds[used as usize], false);
        let name = out.name.clone();
        let to = bundle("to", Direction::Out, &[&name]);
        let mut a = Gateway::new(vec![out], &[to], &[A]);
        let (_, mut b) = gateways(ESP_TUNNEL, AH_TUNNEL, false, &BOTH);
        assert_eq!(b.verdict(&a.seal(&packet)), mismatch, "{wanted}");
    }
    // The receiver wants one, and the sender uses both; or the other order.
    for wanted in [&["1001-In"][..], &["1002-In"], &["1002-In", "1001-In"]] {
        let (mut a, mut b) = gateways(ESP_TUNNEL, AH_TRANSPORT, false, wanted);
        assert_eq!(b.verdict(&a.seal(&packet)), mismatch, "{wanted:?}");
    }
}

#[test]
fn damage_is_found_by_the_outer_sa_and_moves_nothing() {
    let (mut a, mut b) = gateways(ESP_TUNNEL, AH_TRANSPORT, false, &BOTH);
    let sealed = a.seal(&packets::v4(100).bytes());
    for byte in 20..sealed.len() {
        let mut damaged = sealed.clone();
        damaged[byte] ^= 1;
        assert!(matches!(b.verdict(&damaged), In::Drop(_)), "{byte}");
    }
    assert_eq!(b.verdict(&sealed), In::Opened);
    assert_eq!(b.verdict(&sealed), In::Drop(DropReason::Replay));
}

#[test]
fn a_used_up_sa_costs_the_other_no_number() {
    for (dead, reason) in [
        (0, DropReason::SaExpired),
        (1, DropReason::SaExpired),
        (1, DropReason::SequenceExhausted),
    ] {
        let mut both = vec![
            end(Direction::Out, 0x1001, ESP_TUNNEL, false),
            end(Direction::Out, 0x1002, AH_TRANSPORT, false),
        ];
        match reason {
            DropReason::SaExpired => both[dead].lifetime.hard_packets = 2,
            _ => both[dead].sequence = u64::from(u32::MAX) - 2,
        }
        let to = bundle("to", Direction::Out, &["1001-Out", "1002-Out"]);
        let mut a = Gateway::new(both, &[to], &[A]);
        let burst = vec![packets::v4(100).bytes(); 4];
        let verdicts = a.send(&burst, 1500);
        let sealed = verdicts.iter().filter(|it| matches!(it.0, Out::Sealed(_)));
        assert_eq!(sealed.count(), 2);
        assert!(verdicts[2..].iter().all(|it| it.0 == Out::Drop(reason)));
        for slot in [0, 1] {
            assert_eq!(a.states.of(SaSlot(slot)).unwrap().packets(), 2);
        }
    }
}

//= test T61
#[test]
fn the_size_is_that_of_both() {
    for (kinds, overhead) in [
        // IP 20, AH 28, ESP 8, IV 8, trailer 2, ICV 16; content in words of 4.
        ([ESP_TUNNEL, AH_TRANSPORT], 82),
        ([ESP_TUNNEL, AH_TUNNEL], 102),
    ] {
        let (mut a, mut b) = gateways(kinds[0], kinds[1], false, &BOTH);
        let limit = (1500 - overhead - 2) / 4 * 4 + 2;
        let mut largest = 0;
        for length in limit - 8..limit + 8 {
            let mut packet = packets::v4(length);
            packet.flags_and_offset = 0x4000;
            let (verdict, sealed) = a.send(&[packet.bytes()], 1500).remove(0);
            match verdict {
                Out::Sealed(_) => {
                    assert!(sealed.len() <= 1500);
                    largest = length;
                    assert_eq!(b.verdict(&sealed), In::Opened);
                }
                Out::TooBig(told) => assert_eq!(usize::from(told), largest),
                other => panic!("{other:?}"),
            }
        }
        let sas = [a.sa("1001-Out"), a.sa("1002-Out")];
        assert_eq!(
            usize::from(ipsec::outbound::largest_inner(&sas, 1500)),
            largest
        );
        assert!(largest >= 1500 - overhead - 4);
    }
}
