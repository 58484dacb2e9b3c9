//! Goal: fragments of ESP for us are put together before IPsec, within bounds and without
//! ambiguity, and every one of them ends once. Method: scapy seals, this file cuts, `replay` gets
//! the pieces in the order that a case wants.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{conclude, with_scapy};
use xipsec_tests::fragments::{cut, piece, resum};
use xipsec_tests::packets::{self, Frame, IpFields, UDP};
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::{peer, suite};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Inner packets from the right host to the left one, and what scapy makes of them.
struct Sealed {
    inner: Vec<Vec<u8>>,
    outer: Vec<Vec<u8>>,
}

fn seal(sa: &Sa, sizes: &[usize], replay: &Replay) -> Result<Sealed> {
    let (from, to) = (RIGHT.host[0], LEFT.host[0]);
    let inner = (1..).zip(sizes).map(|(port, size)| {
        let data: Vec<u8> = (0..=250).cycle().take(*size).collect();
        let payload = packets::udp(from, to, [port, 7], &data)?;
        packets::ip(from, to, UDP, IpFields::default(), &payload)
    });
    let inner = inner.collect::<Result<Vec<_>>>()?;
    let frames: Vec<Frame> = inner.iter().map(|ip| replay::from_peer(0, ip)).collect();
    let outer = peer::seal(sa, 1, &frames, replay.directory())?;
    Ok(Sealed {
        inner,
        outer: outer.iter().map(|frame| frame.packet().to_vec()).collect(),
    })
}

/// One hop further, as the left host gets it.
fn lowered(inner: &[u8]) -> Vec<u8> {
    let mut packet = inner.to_vec();
    packet[8] -= 1;
    resum(&mut packet);
    packet
}

fn config(sas: &[Sa; 2], fragments: &str) -> Config {
    let lines = match fragments {
        "" => Vec::new(),
        some => vec![format!("fragments = {{ {some} }}")],
    };
    replay::tunnel(sas, &lines)
}

/// Packets as they arrive, with their microseconds.
fn arriving(fragments: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Vec<Frame> {
    let frame = |(at, packet): (u64, Vec<u8>)| replay::from_peer(at, &packet);
    fragments.into_iter().map(frame).collect()
}

/// Every millisecond one.
fn paced(fragments: Vec<Vec<u8>>) -> Vec<Frame> {
    arriving((0..).step_by(1000).zip(fragments))
}

fn account(result: &Replayed) -> [u64; 4] {
    let number = |key: &str| result.json["accounting"][key].as_u64().unwrap_or(u64::MAX);
    ["rx", "tx", "merged", "dropped"].map(number)
}

/// What a case does with the pieces of three packets.
type Deal = fn(Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>>;

/// Packets 0, 1, ..., one piece of each in turn, as long as there are any.
fn interleaved(packets: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
    let longest = packets.iter().map(Vec::len).max().unwrap_or(0);
    let turn = |at| packets.iter().filter_map(move |pieces| pieces.get(at));
    (0..longest).flat_map(turn).cloned().collect()
}

//= test T22
//= test T79
#[test]
fn pieces_in_any_order_make_the_packet() {
    with_scapy("pieces_in_any_order_make_the_packet", || {
        let deals: [(&str, Deal); 4] = [
            ("in order", |packets| packets.concat()),
            ("reversed", |packets| {
                let mut all = packets.concat();
                all.reverse();
                all
            }),
            ("interleaved", interleaved),
            ("last first", |mut packets| {
                packets.iter_mut().for_each(|pieces| pieces.rotate_right(1));
                packets.concat()
            }),
        ];
        for outer in FAMILIES {
            let sas = replay::sas(outer, suite::AES128GCM16);
            for (name, deal) in deals {
                let mut replay = Replay::new(&config(&sas, ""))?;
                let sealed = seal(&sas[1], &[40, 700, 1400], &replay)?;
                let cuts: Vec<_> = (1..)
                    .zip(&sealed.outer)
                    .zip([16, 200, 400])
                    .map(|((id, packet), size)| cut(packet, id, size))
                    .collect();
                let count = cuts.iter().map(Vec::len).sum::<usize>() as u64;
                replay.input("wan0", paced(deal(cuts)));
                let result = replay.run()?;
                let mut got: Vec<_> = result.lan.iter().map(|f| f.packet().to_vec()).collect();
                got.sort();
                let mut expected: Vec<_> = sealed.inner.iter().map(|ip| lowered(ip)).collect();
                expected.sort();
                ensure!(
                    got == expected,
                    "{outer:?} {name}: {}",
                    result.json["drops"]
                );
                let expected = [count, 3, count - 3, 0];
                ensure!(account(&result) == expected, "{name}: {}", result.json);
            }
        }
        Ok(())
    });
}

/// Each case: what arrives, how many of it pass, and the pieces (by place) that end as what.
struct Case {
    name: &'static str,
    arrives: Vec<Vec<u8>>,
    passes: usize,
    drops: Vec<(usize, &'static str)>,
}

fn run_case(sas: &[Sa; 2], fragments: &str, case: &Case) -> Result<Replayed> {
    let mut replay = Replay::new(&config(sas, fragments))?;
    let frames = paced(case.arrives.clone());
    replay.input("wan0", frames.clone());
    let result = replay.run().with_context(|| case.name)?;
    ensure!(
        result.lan.len() == case.passes,
        "{}: {}",
        case.name,
        result.json
    );
    let told = result.drops.iter().zip(result.reasons());
    let mut told: Vec<(usize, &str)> = told
        .map(|(frame, reason)| {
            let place = usize::try_from(frame.time.as_millis()).unwrap_or(usize::MAX);
            ensure!(frames[place].bytes == frame.bytes, "not as received");
            Ok((place, reason))
        })
        .collect::<Result<_>>()?;
    told.sort_unstable();
    ensure!(
        told == case.drops,
        "{}: dropped {told:?}, not {:?}",
        case.name,
        case.drops
    );
    Ok(result)
}

fn overlaps(whole: &[u8]) -> Vec<Case> {
    let part = |start, end| piece(whole, 1, [start, end], None);
    let marked = |start, end, more| piece(whole, 1, [start, end], Some(more));
    let mut other = part(0, 64);
    let at = other.len() - 1;
    other[at] ^= 1;
    let case = |name, arrives, passes, drops: &[(usize, &'static str)]| Case {
        name,
        arrives,
        passes,
        drops: drops.to_vec(),
    };
    let lost = |count: usize| -> Vec<_> { (0..count).map(|place| (place, "fragment")).collect() };
    vec![
        case(
            "an exact duplicate ends alone",
            vec![part(0, 64), part(0, 64), part(64, 999)],
            1,
            &[(1, "fragment")],
        ),
        case(
            "the same range with other content",
            vec![part(0, 64), other, part(64, 999)],
            0,
            &lost(3),
        ),
        case(
            "a longer one",
            vec![part(0, 64), part(0, 72), part(72, 999)],
            0,
            &lost(3),
        ),
        case(
            "one inside of another",
            vec![part(64, 999), part(0, 64), part(8, 16)],
            1,
            &[(2, "fragment")],
        ),
        case(
            "one across two",
            vec![part(0, 40), part(48, 999), part(32, 56), part(40, 48)],
            0,
            &lost(4),
        ),
        case(
            "two that both say that they are the last",
            vec![part(0, 32), marked(40, 48, false), marked(56, 64, false)],
            0,
            &lost(3),
        ),
        case(
            "a length that is no multiple of 8 though more follow",
            vec![part(0, 64), marked(64, 69, true), part(64, 999)],
            1,
            &[(1, "malformed")],
        ),
        case(
            "nothing in it",
            vec![part(0, 64), marked(64, 64, true), part(64, 999)],
            1,
            &[(1, "malformed")],
        ),
        case(
            "never complete",
            vec![part(0, 64), part(72, 999)],
            0,
            &lost(2),
        ),
        case("the first is missing", vec![part(8, 999)], 0, &lost(1)),
    ]
}

//= test T133
//= test T156
#[test]
fn overlaps_end_what_they_touch_and_nothing_else() {
    with_scapy("overlaps_end_what_they_touch_and_nothing_else", || {
        for outer in FAMILIES {
            let sas = replay::sas(outer, suite::AES128GCM16);
            let replay = Replay::new(&config(&sas, ""))?;
            let sealed = seal(&sas[1], &[100], &replay)?;
            for case in overlaps(&sealed.outer[0]) {
                run_case(&sas, "", &case).with_context(|| format!("{outer:?}"))?;
            }
        }
        Ok(())
    });
}

#[test]
fn limits_take_the_oldest_first() {
    with_scapy("limits_take_the_oldest_first", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let replay = Replay::new(&config(&sas, ""))?;
        let sealed = seal(&sas[1], &[400; 4], &replay)?;
        let half = |id: u16, parts| piece(&sealed.outer[usize::from(id)], id, parts, None);
        let firsts = || (0..4).map(|id| half(id, [0, 256]));
        let lasts = || (1..4).map(|id| half(id, [256, 999]));
        let case = Case {
            name: "three packets fit",
            arrives: firsts().chain(lasts()).collect(),
            passes: 3,
            drops: vec![(0, "fragment")],
        };
        run_case(&sas, "packets = 3", &case)?;
        // Three first halves of 276 bytes fit, a fourth does not.
        run_case(&sas, "bytes = 1000", &case)?;
        let alone = Case {
            name: "a fragment that no room is for",
            arrives: vec![half(1, [0, 256])],
            passes: 0,
            drops: vec![(0, "fragment")],
        };
        run_case(&sas, "bytes = 100", &alone)?;
        Ok(())
    });
}

#[test]
fn time_is_the_captures() {
    with_scapy("time_is_the_captures", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        for (pause, merged) in [(499_999, 1), (500_000, 0)] {
            let mut replay = Replay::new(&config(&sas, "timeout_ms = 500"))?;
            let sealed = seal(&sas[1], &[100], &replay)?;
            let parts = cut(&sealed.outer[0], 9, 64);
            let times = std::iter::once(0).chain(std::iter::repeat(pause));
            let frames = arriving(times.zip(parts));
            let count = frames.len() as u64;
            replay.input("wan0", frames);
            let result = replay.run()?;
            let passed = merged * (count - 1);
            ensure!(
                account(&result) == [count, merged, passed, (1 - merged) * count],
                "{pause}: {}",
                result.json
            );
        }
        Ok(())
    });
}

/// A packet that is whole and then dropped ends once, as the fragment that completed it.
#[test]
fn a_whole_packet_is_dropped_as_what_completed_it() {
    with_scapy("a_whole_packet_is_dropped_as_what_completed_it", || {
        for outer in FAMILIES {
            let sas = replay::sas(outer, suite::AES128GCM16);
            let replay = Replay::new(&config(&sas, ""))?;
            let sealed = seal(&sas[1], &[300, 300], &replay)?;
            let good = cut(&sealed.outer[0], 1, 128);
            let mut bad = sealed.outer[1].clone();
            let at = bad.len() - 1;
            bad[at] ^= 1;
            let bad = cut(&bad, 2, 128);
            let count = good.len();
            let again: Vec<_> = good.iter().rev().cloned().collect();
            let case = Case {
                name: "damaged, good, and the good one again",
                arrives: [bad, good, again].concat(),
                passes: 1,
                drops: vec![(count - 1, "authentication"), (3 * count - 1, "replay")],
            };
            let result = run_case(&sas, "", &case)?;
            let merged = 3 * (count as u64 - 1);
            ensure!(account(&result) == [3 * count as u64, 1, merged, 2]);
            ensure!(result.drops[1].bytes == *replay::from_peer(0, &case.arrives[count]).bytes);
        }
        Ok(())
    });
}

//= test T155
#[test]
fn an_atomic_fragment_is_opened_alone() {
    with_scapy("an_atomic_fragment_is_opened_alone", || {
        let sas = replay::sas(Family::V6, suite::AES128GCM16);
        let replay = Replay::new(&config(&sas, ""))?;
        let sealed = seal(&sas[1], &[300, 100], &replay)?;
        let parts = cut(&sealed.outer[0], 7, 200);
        let atomic = piece(&sealed.outer[1], 7, [0, 999], None);
        let case = Case {
            name: "between two fragments of its identification",
            arrives: vec![parts[0].clone(), atomic, parts[1].clone()],
            passes: 2,
            drops: Vec::new(),
        };
        let result = run_case(&sas, "", &case)?;
        ensure!(result.json["accounting"]["merged"] == 1, "{}", result.json);
        Ok(())
    });
}

/// RFC 3168 §5.3: a mark on any fragment reaches the inner packet.
#[test]
fn congestion_on_one_fragment_is_told() {
    with_scapy("congestion_on_one_fragment_is_told", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let mut replay = Replay::new(&config(&sas, ""))?;
        let (from, to) = (RIGHT.host[0], LEFT.host[0]);
        let fields = IpFields {
            traffic_class: 2,
            ..IpFields::default()
        };
        let payload = packets::udp(from, to, [1, 2], &[0; 200])?;
        let inner = packets::ip(from, to, UDP, fields, &payload)?;
        let plain = [replay::from_peer(0, &inner)];
        let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
        let mut outer = sealed[0].packet().to_vec();
        outer[1] = 2;
        resum(&mut outer);
        let mut parts = cut(&outer, 3, 96);
        parts[1][1] = 3;
        resum(&mut parts[1]);
        let result = replay.input("wan0", paced(parts)).run()?;
        ensure!(result.lan[0].packet()[1] & 3 == 3, "{}", result.json);
        Ok(())
    });
}

/// A bomb: whoever sends only first fragments gets no more memory than the bounds say, and others'
/// packets pass once it is over.
#[test]
fn a_flood_of_first_fragments_ends_as_fragments() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let mut replay = Replay::new(&config(&sas, ""))?;
        let esp = packets::ip(
            RIGHT.wan[0],
            LEFT.wan[0],
            packets::ESP,
            IpFields::default(),
            &[0; 1400],
        )?;
        let flood = (0..3000).map(|id| piece(&esp, id, [0, 1008], None));
        let bombs = (0..50).map(|id| piece(&esp, id, [0, 8], Some(true)));
        let frames = arriving((0..).zip(flood.chain(bombs)));
        replay.input("wan0", frames);
        let result = replay.run()?;
        ensure!(account(&result) == [3050, 0, 0, 3050], "{}", result.json);
        ensure!(result.dropped("fragment") == 3050, "{}", result.json);
        Ok(())
    };
    conclude(body());
}

/// What is not ours to open is nobody's to put together.
#[test]
fn other_fragments_are_packets_like_any_other() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let plain = IpFields::default();
        let udp = packets::udp(RIGHT.wan[0], LEFT.wan[0], [4500, 4500], &[0; 300])?;
        let udp = packets::ip(RIGHT.wan[0], LEFT.wan[0], UDP, plain, &udp)?;
        for (flag, to_host) in [("", 3), ("reassemble_udp = true", 1)] {
            let mut replay = Replay::new(&config(&sas, flag))?;
            let result = replay.input("wan0", paced(cut(&udp, 5, 128))).run()?;
            let accounting: &Value = &result.json["accounting"];
            ensure!(accounting["to_host"] == to_host, "{flag}: {accounting}");
            ensure!(accounting["merged"] == 3 - to_host, "{flag}: {accounting}");
        }
        // ESP through us to somebody else stays in pieces.
        let esp = packets::ip(
            "198.51.100.1",
            "198.51.100.9",
            packets::ESP,
            plain,
            &[0; 300],
        )?;
        let mut replay = Replay::new(&config(&sas, ""))?;
        let result = replay.input("wan0", paced(cut(&esp, 5, 128))).run()?;
        ensure!(result.dropped("no_policy") == 3, "{}", result.json);
        Ok(())
    };
    conclude(body());
}
