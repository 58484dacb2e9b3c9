//! Goal: the benches measure something. Method: their shortest forms, in both directions, with
//! figures that must be positive; no figure is compared with a time.

use std::time::Duration;

use ipsec::sa::association::Direction;
use xipsec_bench::allocation::Counting;
use xipsec_bench::fixture::SUITES;
use xipsec_bench::fleet::{Ends, Scale};
use xipsec_bench::memory;
use xipsec_bench::pipeline::{Bench, Traffic, imix};
use xipsec_bench::scaling::{self, Plan};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SCALE: Scale = Scale {
    sas: 50,
    policies: 100,
};

#[test]
fn both_directions_of_every_suite_cost_something() {
    for suite in SUITES {
        let ends = Ends::new(suite, SCALE, 64);
        let mut bench = Bench::alone(&ends);
        for direction in [Direction::Out, Direction::In] {
            for lengths in [vec![64], vec![9000], imix()] {
                let traffic = Traffic { direction, lengths };
                let cost = bench.cost(&traffic, 10);
                for part in [cost.whole, cost.crypto, cost.port] {
                    assert!(part > 0.0, "{}: {traffic:?}: {cost:?}", suite.name);
                }
            }
        }
    }
}

#[test]
fn two_workers_bring_packets_through_with_one_sa_and_with_many() {
    let plan = Plan {
        workers: 2,
        windows: 1,
        window: Duration::from_millis(20),
    };
    for (sas, direction) in [
        (1, Direction::Out),
        (50, Direction::Out),
        (50, Direction::In),
    ] {
        let ends = Ends::new(SUITES[0], Scale { sas, policies: sas }, 64);
        let lengths = vec![64];
        let rate = scaling::rate(&ends, &Traffic { direction, lengths }, plan);
        assert!(rate > 0.0, "{sas} SAs, {direction:?}");
    }
}

#[test]
fn an_idle_sa_takes_memory_and_a_larger_window_more() {
    let [small, large] = [64, 4096].map(|window| memory::measure(SUITES[0], 100, window));
    for part in [small.sas, small.sad, small.slots, small.policies] {
        assert!(part > 0.0, "{small:?}");
    }
    // One direction of the two has a window, of a bit for each packet.
    let grown = large.sas - small.sas;
    assert!((400.0..700.0).contains(&grown), "{small:?} {large:?}");
}
