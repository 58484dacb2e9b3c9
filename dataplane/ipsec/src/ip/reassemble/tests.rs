use super::*;
use crate::ip::fragment::Plan;
use crate::packet::{Fragment, parse};
use crate::time::MILLISECOND;
use crate::wire::extension::{self, FragmentHeader};
use crate::wire::{ipv4, ipv6};

mod dealt;

mod model;

const TIMEOUT: u64 = 1000 * MILLISECOND;

pub(super) const BOUNDS: Bounds = Bounds {
    packets: 256,
    bytes: 1 << 20,
    timeout_ns: TIMEOUT,
};

/// A table and what it lost.
struct Bench {
    table: Reassembly,
    lost: Vec<u64>,
    out: Vec<u8>,
}

impl Bench {
    fn new(bounds: Bounds) -> Self {
        Self {
            table: Reassembly::new(bounds),
            lost: Vec::new(),
            out: vec![0xee; PACKET],
        }
    }

    fn offer(&mut self, ip: &[u8], tag: u64, now: Time) -> Outcome {
        let Ok(packet) = parse(ip) else {
            let lost = &mut self.lost;
            self.table.expire(now, &mut |tag| lost.push(tag));
            return Outcome::Dropped(DropReason::Malformed);
        };
        assert_ne!(packet.fragment, Fragment::Whole, "nothing to reassemble");
        let (out, lost) = (&mut self.out, &mut self.lost);
        self.table
            .offer(ip, &packet, tag, out, now, &mut |tag| lost.push(tag))
    }

    /// Offers fragments, one a nanosecond, and answers the last outcome.
    fn offer_all(&mut self, fragments: &[Vec<u8>]) -> Outcome {
        let outcomes = (0..).zip(fragments);
        outcomes
            .map(|(tag, ip)| self.offer(ip, tag, Time(tag)))
            .last()
            .unwrap()
    }

    fn whole(&self, outcome: Outcome) -> &[u8] {
        match outcome {
            Outcome::Whole { length, .. } => &self.out[..usize::from(length)],
            other => panic!("{other:?}"),
        }
    }

    fn is_clean(&self) -> bool {
        self.table.held() == 0 && self.table.bytes() == 0
    }
}

const DROPPED: Outcome = Outcome::Dropped(DropReason::Fragment);

/// The IPv4 fragment of ESP with that part of a packet.
pub(super) fn v4(identification: u16, start: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let flag = if more { ipv4::MORE_FRAGMENTS } else { 0 };
    let fields = ipv4::Fields {
        traffic_class: 0,
        total_length: (20 + payload.len()) as u16,
        identification,
        flags_and_offset: (start / 8) | flag,
        hop_limit: 64,
        protocol: 50,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
    };
    [&fields.to_bytes()[..], payload].concat()
}

/// The same in IPv6, with a routing header in the unfragmentable part.
pub(super) fn v6(identification: u32, start: u16, more: bool, payload: &[u8]) -> Vec<u8> {
    let fields = ipv6::Fields {
        traffic_class: 0,
        flow_label: 0,
        payload_length: (16 + payload.len()) as u16,
        next_header: extension::ROUTING,
        hop_limit: 64,
        source: 1,
        destination: 2,
    };
    let routing = [extension::FRAGMENT, 0, 4, 0, 0, 0, 0, 0];
    let header = FragmentHeader {
        offset: start,
        more,
        identification,
    };
    let header = header.to_bytes(50);
    [&fields.to_bytes()[..], &routing, &header, payload].concat()
}

/// With another ECN field.
fn marked(mut ip: Vec<u8>, ecn: u8) -> Vec<u8> {
    if ip[0] >> 4 == 6 {
        ip[1] |= ecn << 4;
        return ip;
    }
    ip[1] |= ecn;
    ip[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&ip[..20]).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip
}

/// A whole packet of ESP; `options` words of IPv4 options, or routing headers in IPv6.
fn esp(six: bool, options: usize, payload: &[u8], identification: u16) -> Vec<u8> {
    let length = options * if six { 8 } else { 4 } + payload.len();
    if six {
        let next = |last: bool| if last { 50 } else { extension::ROUTING };
        let fields = ipv6::Fields {
            traffic_class: 2,
            flow_label: 7,
            payload_length: length as u16,
            next_header: next(options == 0),
            hop_limit: 64,
            source: 1,
            destination: 2,
        };
        let headers = (1..=options).flat_map(|it| [next(it == options), 0, 4, 0, 0, 0, 0, 0]);
        let headers: Vec<u8> = headers.collect();
        return [&fields.to_bytes()[..], &headers, payload].concat();
    }
    let fields = ipv4::Fields {
        traffic_class: 2,
        total_length: (20 + length) as u16,
        identification,
        flags_and_offset: 0,
        hop_limit: 64,
        protocol: 50,
        source: 0x0a00_0001,
        destination: 0x0a00_0002,
    };
    let mut packet = fields.to_bytes().to_vec();
    packet.extend([0x94, 4, 0, 0].repeat(options)); // router alert, in every fragment
    packet[0] += options as u8;
    packet[10..12].fill(0);
    let sum = Sum::ZERO.bytes(&packet).checksum();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

fn cut(packet: &[u8], identification: u32, mtu: u16) -> Vec<Vec<u8>> {
    let plan = Plan::own(packet, identification, mtu).unwrap();
    let piece = |index| {
        let mut out = vec![0; PACKET + 100];
        let length = plan.write(packet, index, &mut out).unwrap();
        out.truncate(length);
        out
    };
    (0..plan.count()).map(piece).collect()
}

fn text(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

//= test T22
//= test T79
#[test]
fn two_fragments_in_either_order_make_the_packet_that_was_cut() {
    for six in [false, true] {
        let packet = esp(six, 2, &text(2000), 7);
        let mut fragments = cut(&packet, 7, 1280);
        assert_eq!(fragments.len(), 2);
        for _ in 0..2 {
            let mut bench = Bench::new(BOUNDS);
            let outcome = bench.offer_all(&fragments);
            assert_eq!(bench.whole(outcome), packet, "IPv6: {six}");
            assert!(matches!(outcome, Outcome::Whole { waited: 1, .. }));
            let parsed = parse(bench.whole(outcome)).unwrap();
            assert_eq!(parsed.fragment, Fragment::Whole);
            assert!(bench.is_clean() && bench.table.is_empty() && bench.lost.is_empty());
            fragments.reverse();
        }
    }
}

//= test T133
#[test]
fn an_exact_duplicate_ends_alone() {
    for build in [
        |s, m, p: &[u8]| v4(1, s, m, p),
        |s, m, p: &[u8]| v6(1, s, m, p),
    ] {
        let mut bench = Bench::new(BOUNDS);
        let (first, last) = (build(0, true, &text(600)), build(600, false, &text(9)));
        assert_eq!(bench.offer_all(&[first.clone(), first]), DROPPED);
        assert_eq!(bench.table.held(), 1);
        let outcome = bench.offer(&last, 9, Time(9));
        assert!(bench.whole(outcome).ends_with(&text(9)));
        assert!(bench.lost.is_empty());
    }
}

//= test T133
#[test]
fn any_other_overlap_ends_all_of_them_and_those_to_come() {
    let first = || v4(1, 0, true, &[1; 64]);
    for (what, second) in [
        ("other content", v4(1, 0, true, &[2; 64])),
        (
            "one byte of it",
            v4(1, 0, true, &[&[1; 63][..], &[0]].concat()),
        ),
        ("shorter", v4(1, 0, true, &[1; 56])),
        ("longer", v4(1, 0, true, &[1; 72])),
        ("the same said to be the last", v4(1, 0, false, &[1; 64])),
        ("inside", v4(1, 8, true, &[1; 8])),
        ("across", v4(1, 56, false, &[1; 9])),
    ] {
        let mut bench = Bench::new(BOUNDS);
        let is_whole = parse(&second).unwrap().fragment == Fragment::Whole;
        if is_whole {
            continue;
        }
        assert_eq!(bench.offer_all(&[first(), second]), DROPPED, "{what}");
        assert_eq!(bench.lost, [0], "{what}");
        assert!(bench.is_clean());
        let rest = v4(1, 64, false, &[1; 8]);
        assert_eq!(bench.offer(&rest, 5, Time(5)), DROPPED, "{what}");
        assert_eq!(bench.offer(&first(), 6, Time(6)), DROPPED, "{what}");
        // Another packet of the same addresses, and the same one after its time, are not touched.
        assert_eq!(
            bench.offer(&v4(2, 0, true, &[1; 8]), 7, Time(7)),
            Outcome::Held
        );
        assert_eq!(bench.offer(&first(), 8, Time(TIMEOUT)), Outcome::Held);
    }
}

#[test]
fn two_ends_or_something_beyond_the_end_contradict() {
    for fragments in [
        [v4(1, 64, false, &[1; 8]), v4(1, 128, false, &[1; 8])],
        [v4(1, 128, false, &[1; 8]), v4(1, 64, false, &[1; 8])],
        [v4(1, 64, false, &[1; 8]), v4(1, 128, true, &[1; 8])],
        [v4(1, 128, true, &[1; 8]), v4(1, 64, false, &[1; 8])],
    ] {
        let mut bench = Bench::new(BOUNDS);
        assert_eq!(bench.offer_all(&fragments), DROPPED);
        assert_eq!(bench.lost, [0]);
    }
}

//= test T156
#[test]
fn what_can_be_part_of_no_packet_is_malformed_and_ends_alone() {
    let malformed = Outcome::Dropped(DropReason::Malformed);
    for build in [
        |s, m, p: &[u8]| v4(1, s, m, p),
        |s, m, p: &[u8]| v6(1, s, m, p),
    ] {
        for bad in [
            build(0, true, &text(601)),
            build(600, true, &text(12)),
            build(600, false, &[]),
            build(600, true, &[]),
            build(65_528, false, &text(8)),
            build(65_512, false, &text(24)),
        ] {
            let mut bench = Bench::new(BOUNDS);
            bench.offer(&build(0, true, &text(600)), 1, Time(0));
            assert_eq!(bench.offer(&bad, 2, Time(0)), malformed);
            let outcome = bench.offer(&build(600, false, &text(3)), 3, Time(0));
            assert!(matches!(outcome, Outcome::Whole { waited: 1, .. }));
        }
    }
}

#[test]
fn nothing_longer_than_a_packet_of_ours_is_put_together() {
    let most = PACKET - 20;
    for (end, fits) in [(most, true), (most + 1, false)] {
        let start = end / 16 * 8;
        let parts = [
            v4(1, 0, true, &text(start)),
            v4(1, start as u16, false, &text(end - start)),
        ];
        for order in [[0, 1], [1, 0]] {
            let mut bench = Bench::new(BOUNDS);
            let outcome = bench.offer_all(&order.map(|index| parts[index].clone()));
            let is_whole = matches!(outcome, Outcome::Whole { .. });
            assert_eq!(is_whole, fits, "{end} {order:?} {outcome:?}");
            assert!(bench.is_clean() || !fits);
        }
    }
    let mut bench = Bench::new(BOUNDS);
    assert_eq!(
        bench.offer(&v4(1, 17_000, true, &text(8)), 0, Time(0)),
        DROPPED
    );
    // The headers come last and are what is too much.
    let half = (PACKET - 48) / 16 * 8;
    let parts = [
        v6(1, 8, true, &text(half)),
        v6(1, 8 + half as u16, false, &text(PACKET - 48 - 8 - half + 1)),
        v6(1, 0, true, &text(8)),
    ];
    assert_eq!(bench.offer_all(&parts), DROPPED);
    assert_eq!(bench.lost, [0, 1]);
}

//= test T156
#[test]
fn time_is_over_for_all_of_a_packet_at_once() {
    let mut bench = Bench::new(BOUNDS);
    bench.offer(&v4(1, 0, true, &text(8)), 1, Time(10));
    bench.offer(&v4(2, 0, true, &text(8)), 2, Time(20));
    bench.offer(&v4(1, 16, true, &text(8)), 3, Time(TIMEOUT - 1));
    let lost = &mut bench.lost;
    bench
        .table
        .expire(Time(TIMEOUT + 9), &mut |tag| lost.push(tag));
    assert!(lost.is_empty());
    bench
        .table
        .expire(Time(TIMEOUT + 10), &mut |tag| lost.push(tag));
    lost.sort_unstable();
    assert_eq!(*lost, [1, 3]);
    // The fragment that would have completed it comes too late, whoever looked before.
    let late = v4(2, 8, false, &text(8));
    assert_eq!(bench.offer(&late, 4, Time(TIMEOUT + 20)), Outcome::Held);
    assert_eq!(bench.lost, [1, 3, 2]);
    let patient = Bounds {
        timeout_ns: u64::MAX,
        ..BOUNDS
    };
    let mut bench = Bench::new(patient);
    bench.offer(&v6(1, 0, true, &text(8)), 1, Time(0));
    bench.table.expire(Time(60 * SECOND), &mut |_| ());
    assert!(bench.is_clean(), "a minute is the most");
}

#[test]
fn the_oldest_packet_makes_room() {
    let two = Bounds {
        packets: 2,
        ..BOUNDS
    };
    let mut bench = Bench::new(two);
    let firsts: Vec<_> = (0..3).map(|id| v4(id, 0, true, &text(8))).collect();
    assert_eq!(bench.offer_all(&firsts), Outcome::Held);
    assert_eq!((bench.table.held(), &bench.lost[..]), (2, &[0][..]));
    let few = Bounds {
        bytes: 300,
        ..BOUNDS
    };
    let mut bench = Bench::new(few);
    let firsts: Vec<_> = (0..4).map(|id| v4(id, 0, true, &text(80))).collect();
    assert_eq!(bench.offer_all(&firsts), Outcome::Held);
    assert_eq!((bench.table.bytes(), &bench.lost[..]), (300, &[0][..]));
    // What completes a packet needs no room.
    let outcome = bench.offer(&v4(1, 80, false, &text(900)), 9, Time(9));
    assert!(matches!(outcome, Outcome::Whole { waited: 1, .. }));
    // Its own packet is the oldest: the newcomer alone is worth nothing.
    assert_eq!(
        bench.offer(&v4(2, 160, true, &text(80)), 10, Time(9)),
        Outcome::Held
    );
    assert_eq!(
        bench.offer(&v4(2, 240, true, &text(80)), 11, Time(9)),
        DROPPED
    );
    assert_eq!(
        bench.offer(&v4(9, 0, true, &text(288)), 12, Time(9)),
        DROPPED
    );
    assert_eq!(bench.table.held(), 1);
    bench.table.clear(&mut |_| ());
    assert!(bench.is_clean() && bench.table.is_empty());
}

//= test T155
#[test]
fn an_atomic_fragment_is_whole_by_itself_and_meets_no_other() {
    let atomic = v6(1, 0, false, &text(64));
    assert_eq!(parse(&atomic).unwrap().fragment, Fragment::Whole);
    // Others of the same identification have no part of it.
    let parts = [v6(1, 0, true, &text(64)), v6(1, 64, false, &text(64))];
    let mut bench = Bench::new(BOUNDS);
    let outcome = bench.offer_all(&parts);
    assert_eq!(bench.whole(outcome).len(), 40 + 8 + 128);
}

//= test T63
#[test]
fn congestion_survives_or_ends_the_packet() {
    for six in [false, true] {
        let make = |start, more, ecn| match six {
            false => marked(v4(1, start, more, &text(8)), ecn),
            true => marked(v6(1, start, more, &text(8)), ecn),
        };
        for (first, last, sum) in [
            (0, 0, Some(0)),
            (2, 2, Some(2)),
            (2, 3, Some(3)),
            (3, 1, Some(3)),
            (2, 1, Some(2)),
            (0, 2, Some(0)),
            (0, 3, None),
            (3, 0, None),
        ] {
            let mut bench = Bench::new(BOUNDS);
            let outcome = bench.offer_all(&[make(0, true, first), make(8, false, last)]);
            let Some(sum) = sum else {
                assert_eq!((outcome, &bench.lost[..]), (DROPPED, &[0][..]));
                continue;
            };
            let whole = parse(bench.whole(outcome)).unwrap();
            assert_eq!(whole.traffic_class, sum, "{first} {last}");
        }
    }
}

#[test]
fn what_names_the_worker_is_shared_by_all_fragments_and_spreads() {
    let point = |ip: &[u8]| meeting_point(&parse(ip).unwrap(), 5, 4);
    let mut seen = [0; 4];
    for id in 0..400 {
        let first = point(&v4(id, 0, true, &text(8)));
        assert_eq!(first, point(&v4(id, 8, false, &text(99))));
        seen[usize::from(first)] += 1;
    }
    assert!(
        seen.iter().all(|count| (50..150).contains(count)),
        "{seen:?}"
    );
    assert_eq!(
        meeting_point(&parse(&v4(1, 0, true, &text(8))).unwrap(), 5, 1),
        0
    );
}

/// 64 KiB of traffic again and again: the table makes no places that it did not have after the
/// first round.
#[test]
fn a_warm_table_allocates_nothing() {
    let mut bench = Bench::new(BOUNDS);
    let mut made = Vec::new();
    for round in 0..20_u64 {
        for id in 0..30_u16 {
            let now = Time(round * 1000 + u64::from(id));
            for start in (0..2000).step_by(400) {
                bench.offer(&v4(id, start, true, &text(400)), 0, now);
            }
        }
        for id in 0..30_u16 {
            let outcome = bench.offer(&v4(id, 2000, false, &text(5)), 0, Time(round * 1000 + 99));
            assert!(matches!(outcome, Outcome::Whole { waited: 5, .. }));
        }
        let places = [bench.table.datagrams.chunks(), bench.table.index.capacity()];
        made.push((places, bench.table.store.chunks()));
    }
    assert!(made.iter().all(|places| *places == made[0]), "{made:?}");
}

/// A packet cut as finely as can be, in the worst order, twice: bounded places, and whole again.
#[test]
fn the_finest_cut_is_put_together_again() {
    let small = Bounds {
        bytes: 90_000,
        packets: 1,
        ..BOUNDS
    };
    let mut bench = Bench::new(small);
    let payload = text(PACKET - 20);
    let mut parts: Vec<_> = (0..).step_by(8).zip(payload.chunks(8)).collect();
    let fragment = |(start, part): &(u16, &[u8])| {
        let last = usize::from(*start) + part.len() == payload.len();
        v4(1, *start, !last, part)
    };
    parts.reverse();
    let fragments: Vec<_> = parts.iter().map(fragment).collect();
    let outcome = bench.offer_all(&fragments);
    assert_eq!(bench.whole(outcome)[20..], payload);
}
