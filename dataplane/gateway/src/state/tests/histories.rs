//! Over random histories no (key, IV) twice and nothing old accepted.

use std::collections::HashSet;

use ipsec::time::{MILLISECOND, Time};
use proptest::prelude::*;

use super::{IN, Memory, OUT, at, pair};
use crate::state::{End, Grant, Keeper, Reached, Reservation, StateError, Store, contents};

/// What happens to a gateway.
#[derive(Clone, Debug)]
enum Event {
    /// Packets pass both ways, as many as the worker may.
    Pass(u64),
    /// The workers ask for more; the disk may be full.
    Extend {
        full: bool,
    },
    /// The control thread looks after the limits.
    Review {
        full: bool,
    },
    /// Time passes, milliseconds.
    Wait(u64),
    Crash,
    Stop,
    AcceptLoss,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..20_000_u64).prop_map(Event::Pass),
        4 => any::<bool>().prop_map(|full| Event::Extend { full }),
        2 => any::<bool>().prop_map(|full| Event::Review { full }),
        2 => (0..3000_u64).prop_map(Event::Wait),
        1 => Just(Event::Crash),
        1 => Just(Event::Stop),
        1 => Just(Event::AcceptLoss),
    ]
}

/// A gateway whose worker uses all that it may, and what the world has seen of it.
struct World {
    disk: Memory,
    now: Time,
    keeper: Option<Keeper>,
    starts: Vec<Reservation>,
    reached: [u64; 2],
    granted: [u64; 2],
    /// Packets as the workers count them: those of earlier runs included.
    counted: [u64; 2],
    /// Packets that really passed.
    passed: [u64; 2],
    ivs: HashSet<u64>,
    accepted: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            disk: Memory::declared(),
            now: Time(0),
            keeper: None,
            starts: Vec::new(),
            reached: [0; 2],
            counted: [0; 2],
            passed: [0; 2],
            granted: [0; 2],
            ivs: HashSet::new(),
            accepted: 0,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        *self.disk.full.lock().unwrap() = false;
        let (keeper, starts) = self.disk.start(&pair(), self.now);
        self.reached = [starts[0].sequence, starts[1].sequence];
        for ((start, counted), passed) in starts.iter().zip(&mut self.counted).zip(self.passed) {
            *counted = start.usage.packets;
            assert!(*counted >= passed, "a lifetime forgets what was carried");
        }
        self.granted = [starts[0].reserved_end, starts[1].reserved_end];
        assert!(
            starts[1].sequence >= self.accepted,
            "what was accepted could be accepted again"
        );
        self.keeper = Some(keeper);
        self.starts = starts;
    }

    fn pass(&mut self, packets: u64) {
        let packets = packets.min(self.granted[0].saturating_sub(self.reached[0]));
        for _ in 0..packets {
            self.reached[0] += 1;
            self.count(0, 1);
            let iv = self.reached[0] ^ self.starts[0].iv_mask;
            assert!(self.ivs.insert(iv), "an IV repeats");
        }
        let before = self.reached[1];
        self.reached[1] = before.max(self.granted[1].min(before + packets));
        self.count(1, self.reached[1] - before);
        self.accepted = self.accepted.max(self.reached[1]);
    }

    fn count(&mut self, at: usize, packets: u64) {
        self.counted[at] += packets;
        self.passed[at] += packets;
    }

    fn grant(&mut self, grants: Result<Vec<Grant>, StateError>) {
        for grant in grants.unwrap_or_default() {
            self.granted[grant.slot.index()] = grant.reserved_end;
        }
    }

    fn live(&mut self, event: &Event) {
        let reached = [(OUT, 0), (IN, 1)].map(|(slot, index)| Reached {
            packets: self.counted[index],
            ..at(slot, self.reached[index])
        });
        match event {
            Event::Pass(packets) => self.pass(*packets),
            Event::Extend { full } | Event::Review { full } => {
                *self.disk.full.lock().unwrap() = *full;
                let keeper = self.keeper.as_mut().unwrap();
                let grants = match event {
                    Event::Extend { .. } => keeper.extend(&reached, self.now),
                    _ => keeper.review(&reached, self.now),
                };
                self.grant(grants);
            }
            Event::Wait(milliseconds) => self.now = self.now.plus(milliseconds * MILLISECOND),
            Event::Crash => {
                self.keeper = None;
                self.start();
            }
            Event::Stop => {
                *self.disk.full.lock().unwrap() = false;
                let ends = reached.map(|one| End {
                    slot: one.slot,
                    sequence: one.sequence,
                    window: vec![1],
                    packets: one.packets,
                    bytes: one.bytes,
                });
                self.keeper.take().unwrap().close(ends.to_vec()).unwrap();
                self.start();
                for (start, stopped) in self.starts.iter().zip(reached) {
                    let now = (start.sequence, start.usage.packets);
                    let then = (stopped.sequence, stopped.packets);
                    assert_eq!(now, then, "a clean stop loses nothing");
                }
            }
            Event::AcceptLoss => {
                self.keeper = None;
                let mut contents = self.disk.read().unwrap().unwrap();
                for record in contents.records.values_mut() {
                    record.iv_mask = u64::from_be_bytes(contents::random().unwrap());
                }
                *self.disk.full.lock().unwrap() = false;
                self.disk.commit(&contents).unwrap();
                self.start();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn over_any_history_no_iv_repeats_and_nothing_old_is_accepted(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut world = World::new();
        for event in &events {
            world.live(event);
        }
    }
}
