//! The table against a model that keeps every byte apart and searches for everything.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A fragment as a test describes it.
#[derive(Clone, Debug)]
struct Plain {
    six: bool,
    id: u16,
    start: u16,
    more: bool,
    payload: Vec<u8>,
    ecn: u8,
    /// Nanoseconds since the one before.
    pause: u64,
}

impl Plain {
    fn bytes(&self) -> Vec<u8> {
        let ip = match self.six {
            false => v4(self.id, self.start, self.more, &self.payload),
            true => v6(self.id.into(), self.start, self.more, &self.payload),
        };
        marked(ip, self.ecn)
    }
}

#[derive(Default)]
struct Packets {
    /// In order of arrival of their first fragments.
    all: Vec<Entry>,
}

struct Entry {
    key: (bool, u16),
    born: u64,
    parts: Vec<(Plain, u64)>,
    condemned: bool,
}

impl Entry {
    /// Every byte that is there.
    fn bytes(&self) -> BTreeMap<usize, u8> {
        let all = self.parts.iter().flat_map(|(part, _)| {
            let bytes = part.payload.iter().enumerate();
            bytes.map(|(at, byte)| (usize::from(part.start) + at, *byte))
        });
        all.collect()
    }

    /// Every unit of 8 bytes that is touched.
    fn units(&self) -> Vec<usize> {
        self.bytes().keys().map(|at| at / 8).collect()
    }

    fn size(&self) -> usize {
        self.parts.iter().map(|(part, _)| part.bytes().len()).sum()
    }
}

impl Packets {
    fn end(&mut self, place: usize, lost: &mut Vec<u64>) {
        lost.extend(self.all.remove(place).parts.iter().map(|(_, tag)| tag));
    }

    fn held(&self) -> usize {
        self.all.iter().map(|entry| entry.parts.len()).sum()
    }

    fn size(&self) -> usize {
        self.all.iter().map(Entry::size).sum()
    }

    /// The outcome, and the payload of a whole packet.
    fn offer(
        &mut self,
        plain: &Plain,
        tag: u64,
        now: u64,
        bounds: &Bounds,
        lost: &mut Vec<u64>,
    ) -> (Outcome, Vec<u8>) {
        let nothing = Vec::new;
        while self
            .all
            .first()
            .is_some_and(|entry| now - entry.born >= bounds.timeout_ns)
        {
            self.end(0, lost);
        }
        let bad_length = plain.more && !plain.payload.len().is_multiple_of(8);
        if bad_length || plain.payload.is_empty() {
            return (Outcome::Dropped(DropReason::Malformed), nothing());
        }
        let key = (plain.six, plain.id);
        let place = self.all.iter().position(|entry| entry.key == key);
        if let Some(place) = place {
            let entry = &mut self.all[place];
            if entry.condemned {
                return (DROPPED, nothing());
            }
            let same = |other: &Plain| {
                (other.start, other.more, &other.payload)
                    == (plain.start, plain.more, &plain.payload)
            };
            if entry.parts.iter().any(|(part, _)| same(part)) {
                return (DROPPED, nothing());
            }
            let before = entry.units();
            entry.parts.push((plain.clone(), tag));
            let overlap = {
                let own = Entry {
                    key,
                    born: 0,
                    parts: vec![(plain.clone(), 0)],
                    condemned: false,
                };
                own.units().iter().any(|unit| before.contains(unit))
            };
            let last: Vec<_> = entry.parts.iter().filter(|(part, _)| !part.more).collect();
            let end = |part: &Plain| usize::from(part.start) + part.payload.len();
            let ends_twice = last.len() > 1;
            let beyond = last
                .first()
                .is_some_and(|(last, _)| entry.parts.iter().any(|(part, _)| end(part) > end(last)));
            let seen = |ecn| entry.parts.iter().any(|(part, _)| part.ecn == ecn);
            if overlap || ends_twice || beyond || (seen(0) && seen(3)) {
                entry.parts.pop();
                lost.extend(entry.parts.drain(..).map(|(_, tag)| tag));
                entry.condemned = true;
                return (DROPPED, nothing());
            }
            let bytes = entry.bytes();
            let whole = last
                .first()
                .is_some_and(|(part, _)| bytes.len() == end(part));
            if whole {
                let waited = (entry.parts.len() - 1) as u16;
                let headers = if plain.six { 48 } else { 20 };
                let length = (headers + bytes.len()) as u16;
                self.all.remove(place);
                return (
                    Outcome::Whole { length, waited },
                    bytes.into_values().collect(),
                );
            }
            self.all[place].parts.pop();
        }
        let size = plain.bytes().len();
        if size > bounds.bytes {
            return (DROPPED, nothing());
        }
        let full = |it: &Self, new| new && it.all.len() >= bounds.packets;
        while self.size() + size > bounds.bytes || full(self, place.is_none()) {
            let own = self.all[0].key == key;
            self.end(0, lost);
            if own {
                return (DROPPED, nothing());
            }
        }
        match self.all.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.parts.push((plain.clone(), tag)),
            None => self.all.push(Entry {
                key,
                born: now,
                parts: vec![(plain.clone(), tag)],
                condemned: false,
            }),
        }
        (Outcome::Held, nothing())
    }
}

fn plain() -> impl Strategy<Value = Plain> {
    let start =
        prop_oneof![4 => (0_u16..6).prop_map(|it| it * 8), 1 => (0_u16..80).prop_map(|it| it * 8)];
    let length = prop_oneof![5 => (1_usize..4).prop_map(|it| it * 8), 1 => 0_usize..300];
    let ecn = prop_oneof![8 => Just(2_u8), 1 => 0_u8..4];
    let pause = prop_oneof![9 => 0_u64..3, 1 => 0_u64..120];
    (
        any::<bool>(),
        0_u16..3,
        start,
        any::<bool>(),
        length,
        0_u8..12,
        ecn,
        pause,
    )
        .prop_map(|(six, id, start, more, length, fill, ecn, pause)| Plain {
            six,
            id,
            start,
            // Whole packets are not offered.
            more: more || start == 0,
            // Mostly the same content, so that duplicates are exact.
            payload: vec![fill / 11; length],
            ecn,
            pause,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Any fragments in any order: the same outcomes, the same losses, the same bytes.
    #[test]
    fn the_table_does_what_the_model_does(
        fragments in prop::collection::vec(plain(), 1..60),
        packets in 1_usize..6,
        bytes in prop_oneof![Just(1_usize << 20), 40_usize..400],
    ) {
        let bounds = Bounds { packets, bytes, timeout_ns: 100 };
        let mut bench = Bench::new(bounds);
        let mut model = Packets::default();
        let mut lost = Vec::new();
        let mut now = 0;
        for (tag, plain) in (0..).zip(&fragments) {
            now += plain.pause;
            let outcome = bench.offer(&plain.bytes(), tag, Time(now));
            let (expected, payload) = model.offer(plain, tag, now, &bounds, &mut lost);
            prop_assert_eq!(outcome, expected, "fragment {}", tag);
            if let Outcome::Whole { .. } = outcome {
                let whole = bench.whole(outcome).to_vec();
                prop_assert!(whole.ends_with(&payload));
                let packet = parse(&whole);
                prop_assert!(packet.is_ok_and(|packet| packet.fragment == Fragment::Whole));
            }
            bench.lost.sort_unstable();
            lost.sort_unstable();
            prop_assert_eq!(&bench.lost, &lost);
            prop_assert_eq!(bench.table.held() as usize, model.held());
            prop_assert_eq!(bench.table.bytes(), model.size());
        }
        bench.table.clear(&mut |_| ());
        prop_assert!(bench.is_clean() && bench.table.is_empty());
    }
}
