//! Packets cut and dealt in any order.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

prop_compose! {
    fn traffic()(
        six: bool,
        options in 0_usize..3,
        length in 1300_usize..9000,
        mtu in 68_u16..1280,
    ) -> (bool, usize, usize, u16) {
        (six, options, length, if six { mtu.max(120) } else { mtu })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Several packets, cut and dealt in any order with duplicates: each comes out once, as it was.
    #[test]
    fn packets_come_out_as_they_were(
        packets in prop::collection::vec(traffic(), 1..6),
        order in prop::collection::vec(any::<Index>(), 600),
        twice in prop::collection::vec(any::<Index>(), 20),
    ) {
        let mtus: Vec<u16> = packets.iter().map(|plan| plan.3).collect();
        let packets: Vec<Vec<u8>> = (0..)
            .zip(&packets)
            .map(|(id, &(six, options, length, _))| esp(six, options, &text(length), id))
            .collect();
        let mut fragments: Vec<Vec<u8>> = Vec::new();
        for ((id, packet), mtu) in (0..).zip(&packets).zip(mtus) {
            fragments.extend(cut(packet, id, mtu));
        }
        for (place, swap) in order.iter().enumerate().take(fragments.len()) {
            let other = swap.index(fragments.len());
            fragments.swap(place, other);
        }
        let mut bench = Bench::new(BOUNDS);
        let mut missing = packets;
        for (tag, fragment) in (0..).zip(&fragments) {
            let outcome = bench.offer(fragment, tag, Time(tag));
            if let Outcome::Whole { .. } = outcome {
                let place = missing.iter().position(|packet| packet == bench.whole(outcome));
                prop_assert!(place.is_some(), "nobody sent that");
                missing.swap_remove(place.unwrap());
            } else {
                prop_assert_eq!(outcome, Outcome::Held);
                // While its packet is incomplete a duplicate changes nothing.
                if twice.iter().any(|index| index.index(fragments.len()) as u64 == tag) {
                    prop_assert_eq!(bench.offer(fragment, tag, Time(tag)), DROPPED);
                }
            }
        }
        prop_assert!(missing.is_empty() && bench.lost.is_empty() && bench.is_clean());
    }
}
