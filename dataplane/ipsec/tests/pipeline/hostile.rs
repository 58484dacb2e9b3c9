//! Bytes that nobody sane would send: never a panic, never accepted, nothing moved.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::packet::parse;
use ipsec::sa::association::UdpEncapsulation;
use proptest::prelude::*;

use crate::gateway::{A, B, In, crafted, pair, suites, with_suite};
use crate::packets::{between, v4};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// What was changed behind the outer header is never opened, and leaves the SA as it was.
    //= test T28
    //= test T31
    #[test]
    fn a_changed_packet_is_not_opened(
        suite in 0..suites().len(),
        length in 28_usize..200,
        position: prop::sample::Index,
        flip in 1_u8..=255,
    ) {
        let (mut a, mut b) = pair(|sa| {
            let blank = crate::gateway::sa(sa.direction, sa.spi, A, B);
            *sa = with_suite(blank, suites()[suite]);
        });
        let sealed = a.seal(&v4(length).bytes());
        let mut changed = sealed.clone();
        changed[20 + position.index(sealed.len() - 20)] ^= flip;
        let verdict = b.verdict(&changed);
        prop_assert!(matches!(verdict, In::Drop(_)), "{:?}", verdict);
        let published = &b.sa("1001-In").published;
        prop_assert_eq!(published.packets.load(Relaxed), 0);
        prop_assert_eq!(published.sequence.load(Relaxed), 0);
        prop_assert_eq!(b.verdict(&sealed), In::Opened);
    }

    /// Every cut of a sealed packet, with the outer length made to fit.
    //= test T34
    #[test]
    fn a_truncated_packet_is_not_opened(
        suite in 0..suites().len(), length in 28_usize..100, keep: prop::sample::Index,
    ) {
        let (mut a, mut b) = pair(|sa| {
            let blank = crate::gateway::sa(sa.direction, sa.spi, A, B);
            *sa = with_suite(blank, suites()[suite]);
        });
        let sealed = a.seal(&v4(length).bytes());
        let cut = &sealed[20..20 + keep.index(sealed.len() - 20)];
        let verdict = b.verdict(&between(A, B, 0).with(50, cut));
        prop_assert!(matches!(verdict, In::Drop(_)), "{:?}", verdict);
    }

    /// Any authentic text ends in exactly one way.
    #[test]
    fn any_authentic_text_ends(
        mut body in prop::collection::vec(any::<u8>(), 0..200),
        first in prop_oneof![Just(0x45_u8), Just(0x60), any::<u8>()],
        next in prop_oneof![Just(4_u8), Just(41), Just(59), any::<u8>()],
        outer in prop_oneof![Just(0_u8), Just(3)],
    ) {
        let (a, mut b) = pair(|_| {});
        body.insert(0, first);
        body.resize((body.len() + 2).next_multiple_of(4) - 2, 1);
        let mut packet = crafted(&a, 7, &body, &[0, next]);
        packet[1] = outer;
        packet[10..12].fill(0);
        let sum = ipsec::wire::checksum::Sum::default().bytes(&packet[..20]).checksum();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        let verdict = b.verdict(&packet);
        let ended = matches!(verdict, In::Drop(_) | In::Opened | In::Consumed(_));
        prop_assert!(ended, "{:?}", verdict);
        prop_assert_eq!(b.sa("1001-In").published.packets.load(Relaxed), 1);
    }

    /// Random payloads under every protocol that the pipeline looks into.
    #[test]
    fn random_payloads_end_without_a_panic(
        payload in prop::collection::vec(any::<u8>(), 0..120),
        protocol in prop_oneof![Just(50_u8), Just(51), Just(17), Just(1), any::<u8>()],
        port: bool,
        six: bool,
    ) {
        let udp = |sa: &mut ipsec::sa::SaParameters| {
            sa.udp_encapsulation = Some(UdpEncapsulation {
                source_port: 4500,
                destination_port: 4500,
            });
        };
        let (mut a, mut b) = pair(udp);
        let mut payload = payload;
        if port && payload.len() >= 8 {
            payload[2..4].copy_from_slice(&4500_u16.to_be_bytes());
            payload[4] = 0;
        }
        let header = if six {
            between(crate::gateway::A6, crate::gateway::B6, 0)
        } else {
            between(A, B, 0)
        };
        let packet = header.with(protocol, &payload);
        if parse(&packet).is_ok() {
            let verdict = b.verdict(&packet);
            prop_assert!(!matches!(verdict, In::Continue | In::Opened), "{:?}", verdict);
            a.send(&[packet], 1280);
        }
    }
}
