//! Packets that carry nothing: authentic, numbered, swallowed by the receiver.

use std::sync::atomic::Ordering::Relaxed;

use ipsec::inbound::Consumed;
use ipsec::sa::lifetime::Lifetime;
use ipsec::verdict::DropReason;

use crate::gateway::{A, A6, B, B6, In, Out, pair, pair_of, set_suite, suites};
use crate::packets::v4;

//= test T13
//= test T35
//= test T75
#[test]
fn dummies_of_every_suite_are_numbered_authentic_and_swallowed() {
    for suite in suites() {
        for (source, destination) in [(A, B), (A6, B6)] {
            let (mut a, mut b) = pair_of(source, destination, |sa| {
                sa.tfc_pad_to = 100;
                set_suite(sa, suite);
            });
            let sent = a.dummies("1001-Out", 3, 1500);
            assert!(sent.iter().all(|(end, _)| matches!(end, Out::Sealed(_))));
            let packets: Vec<Vec<u8>> = sent.into_iter().map(|(_, packet)| packet).collect();
            // As long as a packet that TFC padding hides.
            let real = (source == A).then(|| a.seal(&v4(60).bytes()).len());
            assert!(real.is_none_or(|length| length == packets[0].len()));
            let damaged = {
                let mut packet = packets[0].clone();
                *packet.last_mut().unwrap() ^= 1;
                packet
            };
            assert_eq!(b.verdict(&damaged), In::Drop(DropReason::Authentication));
            let dummy = In::Consumed(Consumed::Dummy);
            for packet in &packets {
                assert_eq!(b.verdict(packet), dummy);
                assert_eq!(b.verdict(packet), In::Drop(DropReason::Replay));
            }
            let published = &b.sa("1001-In").published;
            assert_eq!(published.packets.load(Relaxed), 3);
            assert_eq!(published.bytes.load(Relaxed), 0);
        }
    }
}

//= test T57
//= test T76
#[test]
fn dummies_use_up_the_life_of_their_sa() {
    let (mut a, _) = pair(|sa| {
        sa.lifetime = Lifetime {
            hard_packets: 2,
            ..Lifetime::default()
        };
    });
    let ends: Vec<Out> = a
        .dummies("1001-Out", 3, 1500)
        .into_iter()
        .map(|(end, _)| end)
        .collect();
    assert!(matches!(ends[..2], [Out::Sealed(_), Out::Sealed(_)]));
    assert_eq!(ends[2], Out::Drop(DropReason::SaExpired));
    let (mut a, _) = pair(|sa| sa.sequence = u64::from(u32::MAX));
    let (end, _) = a.dummies("1001-Out", 1, 1500).remove(0);
    assert_eq!(end, Out::Drop(DropReason::SequenceExhausted));
}
