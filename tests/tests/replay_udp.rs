//! Goal: ESP in UDP goes both ways between any ports, and whatever else comes to such a port ends
//! as the interface says. Method: `replay`, scapy at the far end.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{conclude, sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, IpFields, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::suite::{self, Suite};
use xipsec_tests::{fragments, peer};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Our port and the peer's.
const PORTS: [[u16; 2]; 4] = [[4500, 4500], [4500, 62_001], [10_000, 4500], [1, 65_535]];

/// The SAs out and in, in UDP between our port and the peer's.
fn sas(outer: Family, suite: Suite, [own, peer]: [u16; 2]) -> [Sa; 2] {
    let [mut out, mut into] = replay::sas(outer, suite);
    out.udp = Some([own, peer]);
    into.udp = Some([peer, own]);
    [out, into]
}

fn datagram(ends: [&str; 2], size: usize) -> Result<Vec<u8>> {
    let data: Vec<u8> = (0_u8..=255).cycle().take(size).collect();
    let payload = packets::udp(ends[0], ends[1], [4000, 5000], &data)?;
    packets::ip(ends[0], ends[1], UDP, IpFields::default(), &payload)
}

/// A packet of each size and inner family between two sides.
fn all_sizes(ends: impl Fn(Family) -> [&'static str; 2]) -> Result<Vec<Vec<u8>>> {
    let sizes = [0, 1, 2, 3, 255, 1300];
    let each = sizes
        .iter()
        .flat_map(|size| FAMILIES.map(|inner| (*size, inner)));
    each.map(|(size, inner)| datagram(ends(inner), size))
        .collect()
}

fn suites() -> [Suite; 3] {
    [
        suite::AES128GCM16,
        suite::NULL_SHA256,
        suite::CHACHA20POLY1305,
    ]
}

//= test T67
//= test T135
//= test T140
#[test]
fn both_directions_between_any_ports() {
    with_scapy("both_directions_between_any_ports", || {
        let suites = suites().into_iter().zip(PORTS.into_iter().cycle());
        let all = suites.chain(PORTS.map(|ports| (suite::AES128GCM16, ports)));
        for ((suite, ports), outer) in all.flat_map(|it| FAMILIES.map(|family| (it, family))) {
            both_directions(suite, ports, outer)
                .with_context(|| format!("{} {ports:?} {outer:?}", suite.name()))?;
        }
        Ok(())
    });
}

fn both_directions(suite: Suite, ports: [u16; 2], outer: Family) -> Result<()> {
    let sas = sas(outer, suite, ports);
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let sent = all_sizes(|inner| replay::hosts(&LEFT, &RIGHT, inner))?;
    let back = all_sizes(|inner| replay::hosts(&RIGHT, &LEFT, inner))?;
    let frames = (1..).zip(&sent).map(|(at, it)| replay::from_host(at, it));
    replay.input("lan0", frames.collect());
    let frames: Vec<Frame> = (1..)
        .zip(&back)
        .map(|(at, it)| replay::from_peer(at, it))
        .collect();
    replay.input("wan0", peer::seal(&sas[1], 1, &frames, replay.directory())?);
    let result = replay.run()?;

    let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
    let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
    let wanted: Vec<Vec<u8>> = sent.iter().map(|it| packets::one_hop_less(it)).collect();
    ensure!(inner == wanted, "{}", opened.report);
    ensure!(opened.count("checksum") == 0, "{}", opened.report);
    ensure!(
        opened.report["ports"] == json!([ports]),
        "{}",
        opened.report
    );
    ensure!(opened.count("esp") == sent.len() as u64);

    let wanted: Vec<Vec<u8>> = back.iter().map(|it| packets::one_hop_less(it)).collect();
    let came: Vec<&[u8]> = result.lan.iter().map(Frame::packet).collect();
    ensure!(came == wanted, "{}", result.json["drops"]);
    Ok(())
}

/// Packets of the in SA as `crafts` want them, numbered from 1; what came through.
fn received(sas: &[Sa; 2], outer: Family, crafts: &[Value]) -> Result<(usize, replay::Replayed)> {
    let mut replay = Replay::new(&replay::tunnel(sas, &[]))?;
    let packet = datagram(replay::hosts(&RIGHT, &LEFT, outer), 100)?;
    let mut numbered = crafts.to_vec();
    for (craft, number) in numbered.iter_mut().zip(1..) {
        craft["number"] = json!(number);
    }
    let frames = (1..)
        .zip(crafts)
        .map(|(at, _)| replay::from_peer(at, &packet));
    let frames: Vec<Frame> = frames.collect();
    let sealed = peer::seal_crafted(&sas[1], &frames, &numbered, replay.directory())?;
    replay.input("wan0", sealed);
    let result = replay.run()?;
    let whole = packets::one_hop_less(&packet);
    let right = result.lan.iter().filter(|frame| frame.packet() == whole);
    Ok((right.count(), result))
}

//= test T67
//= test T140
//= test T158
#[test]
fn checksum_source_port_and_form_are_free_on_receipt() {
    with_scapy("checksum_source_port_and_form_are_free_on_receipt", || {
        for outer in FAMILIES {
            let sas = sas(outer, suite::AES128GCM16, [4500, 4501]);
            let crafts = [
                json!({}),
                json!({"ports": false}),
                json!({"checksum": 0}),
                json!({"checksum": 0xdead}),
                json!({"ports": [1, 4500]}),
                json!({"ports": false}),
                json!({"ports": [65_535, 4500]}),
            ];
            let (right, result) = received(&sas, outer, &crafts)?;
            ensure!(right == crafts.len(), "{outer:?}: {}", result.json["drops"]);
            ensure!(sa_member(&result.json, &sas[1].name, "packets")? == right as u64);
        }
        Ok(())
    });
}

//= test T159
#[test]
fn an_sa_takes_esp_in_udp_at_its_own_port_alone() {
    with_scapy("an_sa_takes_esp_in_udp_at_its_own_port_alone", || {
        for outer in FAMILIES {
            let own = sas(outer, suite::AES128GCM16, [7000, 4500]);
            // 4500 is open at every address of ours, 7000 is the SA's, 7001 and 500 are nobody's.
            let crafts = [4500, 7000, 7001, 500].map(|port| json!({"ports": [4500, port]}));
            let (right, result) = received(&own, outer, &crafts)?;
            ensure!(right == 1, "{outer:?}: {right} came through");
            ensure!(
                result.reasons() == ["wrong_direction"],
                "{:?}",
                result.reasons()
            );
            ensure!(
                result.host.len() == 2,
                "{} to the machine",
                result.host.len()
            );

            let bare = replay::sas(outer, suite::AES128GCM16);
            let crafts = [json!({"ports": [4500, 4500]}), json!({})];
            let (right, result) = received(&bare, outer, &crafts)?;
            ensure!(right == 1, "an SA without encapsulation: {right}");
            ensure!(
                result.reasons() == ["wrong_direction"],
                "{:?}",
                result.reasons()
            );
        }
        Ok(())
    });
}

/// What a frame to an encapsulation port must end as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Host,
    Consumed,
    Dropped(&'static str),
}

/// UDP to our port whose header says `length`.
fn saying(length: usize, ports: [u16; 2], payload: &[u8]) -> Result<Vec<u8>> {
    let mut datagram = Vec::new();
    for field in [ports[0], ports[1], u16::try_from(length)?, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    Ok(datagram)
}

//= test T67
//= test T136
#[test]
fn markers_keepalives_and_wrong_lengths_end_as_they_must() {
    let body = || -> Result<()> {
        for (outer, port) in FAMILIES.into_iter().flat_map(|it| [(it, 4500), (it, 7000)]) {
            ends(outer, port).with_context(|| format!("{outer:?}, port {port}"))?;
        }
        Ok(())
    };
    conclude(body());
}

fn ends(outer: Family, port: u16) -> Result<()> {
    let at = outer.index();
    let ike = [&[0; 4][..], &[7; 60]].concat();
    let esp = [&[0, 0, 0x99, 0][..], &[7; 60]].concat();
    let malformed = End::Dropped("malformed");
    let peer = RIGHT.wan[at];
    let stranger = ["192.0.2.77", "2001:db8:9::77"][at];
    let mut cases: Vec<(&str, usize, &[u8], End)> = vec![
        (peer, 0, &[0xff], End::Consumed),
        (stranger, 0, &[0xff], End::Host),
        (peer, 0, &[0xfe], End::Host),
        (peer, 0, &[], End::Host),
        (peer, 0, &ike, End::Host),
        (stranger, 0, &ike, End::Host),
        (peer, 0, &esp, End::Dropped("no_sa")),
        (stranger, 0, &esp, End::Dropped("no_sa")),
        // Beyond the packet; less than its own header.
        (peer, 8 + esp.len() + 1, &esp, malformed),
        (peer, 65_535, &esp, malformed),
        (peer, 7, &esp, malformed),
        (peer, 0xffff_0000, &esp, malformed),
        // A keepalive and a marker whose packet is longer than their datagram.
        (peer, 9, &[0xff, 1, 2, 3, 4, 5, 6, 7, 8], End::Consumed),
        (peer, 12, &[0; 12], malformed),
    ];
    for length in 2..8 {
        cases.push((peer, 0, &esp[..length], malformed));
        cases.push((peer, 0, &ike[..length], malformed));
    }
    let sas = sas(outer, suite::AES128GCM16, [port, 4500]);
    for (source, length, payload, end) in cases {
        let length = match length {
            0 => 8 + payload.len(),
            0xffff_0000 => 0,
            other => other,
        };
        let udp = saying(length, [4500, port], payload)?;
        let packet = packets::ip(source, LEFT.wan[at], UDP, IpFields::default(), &udp)?;
        let config: Config = replay::tunnel(&sas, &[]);
        let frame = replay::from_peer(1, &packet);
        let result = Replay::new(&config)?
            .input("wan0", vec![frame.clone()])
            .run()?;
        let (host, drops) = match end {
            End::Host => (vec![frame], vec![]),
            End::Consumed => (vec![], vec![]),
            End::Dropped(reason) => (vec![], vec![reason]),
        };
        let what = format!("{source}, length {length}, {payload:x?}: {}", result.json);
        ensure!(result.host == host && result.reasons() == drops, "{what}");
        let swallowed = u64::from(end == End::Consumed);
        ensure!(result.json["consumed"]["keepalive"] == swallowed, "{what}");
    }
    Ok(())
}

//= test T61
#[test]
fn what_does_not_fit_is_cut_for_eight_bytes_more() {
    with_scapy("what_does_not_fit_is_cut_for_eight_bytes_more", || {
        for outer in FAMILIES {
            let sas = sas(outer, suite::AES128GCM16, [4500, 4501]);
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            // Outer header, 8, 8, 8 and 16, in whole words, less the trailer.
            let around = [20, 40][outer.index()] + 40;
            let largest = (1500 - around) / 4 * 4 - 2;
            let ends = replay::hosts(&LEFT, &RIGHT, Family::V4);
            let sent = [largest, largest + 1].map(|size| datagram(ends, size - 28));
            let [fits, cut] = sent;
            let (fits, cut) = (fits?, cut?);
            replay.input(
                "lan0",
                vec![replay::from_host(1, &fits), replay::from_host(2, &cut)],
            );
            let result = replay.run()?;
            let longest = result.wan.iter().map(|frame| frame.packet().len()).max();
            ensure!(result.wan.len() == 3 && longest == Some(1500 - (1500 - around) % 4));
            let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
            ensure!(opened.inner.len() == 3 && opened.count("checksum") == 0);
            ensure!(opened.inner[0].packet() == packets::one_hop_less(&fits));
        }
        Ok(())
    });
}

//= test T22
#[test]
fn fragments_of_it_are_put_together_where_that_is_wanted() {
    with_scapy(
        "fragments_of_it_are_put_together_where_that_is_wanted",
        || {
            for (outer, wanted) in FAMILIES
                .into_iter()
                .flat_map(|it| [(it, false), (it, true)])
            {
                let sas = sas(outer, suite::AES128GCM16, [4500, 4501]);
                let dataplane = format!("fragments = {{ reassemble_udp = {wanted} }}");
                let mut replay = Replay::new(&replay::tunnel(&sas, &[dataplane]))?;
                let packet = datagram(replay::hosts(&RIGHT, &LEFT, outer), 1300)?;
                let frame = [replay::from_peer(1, &packet)];
                let sealed = peer::seal(&sas[1], 1, &frame, replay.directory())?;
                let pieces = fragments::cut(sealed[0].packet(), 7, 1024);
                let frames = (1..).zip(&pieces).map(|(at, it)| replay::from_peer(at, it));
                replay.input("wan0", frames.collect());
                let result = replay.run()?;
                let whole = packets::one_hop_less(&packet);
                let opened: Vec<&[u8]> = result.lan.iter().map(Frame::packet).collect();
                let (came, host, merged) = match wanted {
                    true => (vec![&whole[..]], 0, 1),
                    // The machine's own, like IKE with certificates.
                    false => (vec![], 2, 0),
                };
                ensure!(
                    opened == came && result.host.len() == host,
                    "{}",
                    result.json
                );
                ensure!(
                    result.json["accounting"]["merged"] == merged,
                    "{}",
                    result.json
                );
            }
            Ok(())
        },
    );
}

//= test T132
//= test T140
#[test]
fn a_sealed_packet_that_is_cut_has_the_checksum_of_the_whole() {
    with_scapy(
        "a_sealed_packet_that_is_cut_has_the_checksum_of_the_whole",
        || {
            for outer in FAMILIES {
                let sas = sas(outer, suite::AES128GCM16, [4500, 4501]);
                // The least IPv6 MTU inside does not fit the least one outside.
                let config = replay::tunnel(&sas, &[]).text().replace(
                    "side = \"unprotected\"",
                    "side = \"unprotected\"\nmtu = 1280",
                );
                let mut narrow = Config::default();
                let (header, rest) = config.split_once('\n').context("a table")?;
                narrow.table(header, &[rest.to_owned()]);
                let mut replay = Replay::new(&narrow)?;
                let ends = replay::hosts(&LEFT, &RIGHT, Family::V6);
                let packet = datagram(ends, 1280 - 48)?;
                replay.input("lan0", vec![replay::from_host(1, &packet)]);
                let result = replay.run()?;
                ensure!(result.wan.len() == 2, "{}", result.json);
                let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
                let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
                ensure!(
                    inner == [packets::one_hop_less(&packet)],
                    "{}",
                    opened.report
                );
                ensure!(opened.count("checksum") == 0, "{}", opened.report);
            }
            Ok(())
        },
    );
}

//= test T50
#[test]
fn a_bundle_may_travel_in_udp() {
    with_scapy("a_bundle_may_travel_in_udp", || {
        for outer in FAMILIES {
            let inner = pair(replay::sas(outer, suite::NULL_SHA256), 0x2001, "inner")?;
            let around = pair(
                sas(outer, suite::AES128GCM16, [4500, 4501]),
                0x3001,
                "around",
            )?;
            let mut config = replay::network(&[]);
            for (direction, at) in [("out", 0), ("in", 1)] {
                config.sa(&inner[at], direction).sa(&around[at], direction);
                let both = format!("sa = [\"{}\", \"{}\"]", inner[at].name, around[at].name);
                let nets = [LEFT.net[0], RIGHT.net[0]];
                config.policy([direction, direction, "protect"], nets, 100, &[both]);
            }
            let mut replay = Replay::new(&config)?;
            let [out, back] = [
                datagram(replay::hosts(&LEFT, &RIGHT, Family::V4), 300)?,
                datagram(replay::hosts(&RIGHT, &LEFT, Family::V4), 300)?,
            ];
            replay.input("lan0", vec![replay::from_host(1, &out)]);
            let both = [inner[1].clone(), around[1].clone()];
            let craft = json!({"number": 1, "spis": [both[0].spi, both[1].spi]});
            let frame = [replay::from_peer(1, &back)];
            let sealed = peer::seal_through(&both, &frame, &[craft], replay.directory())?;
            replay.input("wan0", sealed);
            let result = replay.run()?;
            let came: Vec<&[u8]> = result.lan.iter().map(Frame::packet).collect();
            ensure!(
                came == [packets::one_hop_less(&back)],
                "{}",
                result.json["drops"]
            );
            let both = [inner[0].clone(), around[0].clone()];
            let opened = peer::open(&both, &replay.file("out-wan0.pcap"))?;
            let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
            ensure!(inner == [packets::one_hop_less(&out)], "{}", opened.report);
            ensure!(opened.count("checksum") == 0, "{}", opened.report);
        }
        Ok(())
    });
}

fn pair(sas: [Sa; 2], first: u32, name: &str) -> Result<[Sa; 2]> {
    let [mut out, mut into] = sas;
    for (at, sa) in (0..).zip([&mut out, &mut into]) {
        sa.spi = first + at;
        sa.name = format!("{name}-{at}");
    }
    Ok([out.random()?, into.random()?])
}
