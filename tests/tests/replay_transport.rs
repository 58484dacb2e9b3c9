//! Goal: transport mode, AH and bundles treat headers as the RFCs say, whatever stands in them:
//! IPv4 options, IPv6 extension headers, fields that change on the way. Method: `replay`, scapy
//! at the far end, which has its own idea of which fields are mutable.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, IpFields, UDP};
use xipsec_tests::peer;
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::suite::{self, Suite};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

const AH: u8 = 51;

/// The two SAs of a host-to-host connection: out, in.
fn sas(family: Family, suite: Suite) -> [Sa; 2] {
    replay::sas(family, suite).map(Sa::transport)
}

/// The left gateway with one connection to the right one's own address.
fn config(sas: &[Sa; 2], family: Family) -> Config {
    let mut config = replay::network(&[]);
    config.sa(&sas[0], "out").sa(&sas[1], "in");
    let ends = [LEFT.wan[family.index()], RIGHT.wan[family.index()]];
    config.protect("to", "out", ends, &sas[0].name);
    config.protect("from", "in", ends, &sas[1].name);
    config
}

fn datagram(ends: [&str; 2], size: usize, fields: IpFields) -> Result<Vec<u8>> {
    let data: Vec<u8> = (0_u8..=255).cycle().take(size).collect();
    let payload = packets::udp(ends[0], ends[1], [4000, 5000], &data)?;
    packets::ip(ends[0], ends[1], UDP, fields, &payload)
}

/// The IPv4 packet with these options, whose length is a multiple of 4.
fn with_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let mut with = [&packet[..20], options, &packet[20..]].concat();
    with[0] = 0x45 + u8::try_from(options.len() / 4).unwrap_or(0);
    let length = u16::try_from(with.len()).unwrap_or(0);
    with[2..4].copy_from_slice(&length.to_be_bytes());
    with[10..12].fill(0);
    let sum = packets::checksum(0, &with[..20 + options.len()]);
    with[10..12].copy_from_slice(&sum.to_be_bytes());
    with
}

/// The IPv6 packet with these extension headers, each (its number, its bytes).
fn with_extensions(packet: &[u8], extensions: &[(u8, &[u8])]) -> Vec<u8> {
    let mut with = packet[..40].to_vec();
    for (at, (_, bytes)) in extensions.iter().enumerate() {
        let next = extensions
            .get(at + 1)
            .map_or(packet[6], |(number, _)| *number);
        with.push(next);
        with.extend(&bytes[1..]);
    }
    with.extend(&packet[40..]);
    with[6] = extensions.first().map_or(packet[6], |(number, _)| *number);
    let length = u16::try_from(with.len() - 40).unwrap_or(0);
    with[4..6].copy_from_slice(&length.to_be_bytes());
    with
}

/// Options that stay, that change, that nobody knows.
const OPTIONS: [&[u8]; 5] = [
    &[0x94, 4, 0, 0],
    &[7, 7, 4, 0, 0, 0, 0, 0],
    &[0x44, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    &[0x94, 4, 0, 0, 1, 1, 0x9e, 6, 1, 2, 3, 4, 1, 1, 1, 0],
    &[0x82, 11, 0xaa, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0],
];

const HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Padding, an option that stays, one that may change.
const STAYS: &[u8] = &[0, 0, 0x05, 2, 0xaa, 0xbb, 1, 0];
const CHANGES: &[u8] = &[0, 1, 0x3e, 4, 1, 2, 3, 4, 0x1e, 4, 5, 6, 7, 8, 0, 0];
/// A type 0 routing header that is used up.
const ROUTED: &[u8] = &[
    0, 2, 0, 0, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9,
];

fn chains() -> Vec<Vec<(u8, &'static [u8])>> {
    vec![
        vec![(HOP, STAYS)],
        vec![(HOP, CHANGES)],
        vec![(DESTINATION, CHANGES)],
        vec![(HOP, CHANGES), (ROUTING, ROUTED)],
        vec![(HOP, STAYS), (DESTINATION, STAYS), (ROUTING, ROUTED)],
        vec![(ROUTING, ROUTED), (DESTINATION, STAYS)],
    ]
}

/// Packets between `ends` with every kind of header.
fn all_headers(ends: [&str; 2], family: Family) -> Result<Vec<Vec<u8>>> {
    let plain = datagram(ends, 100, IpFields::default())?;
    let mut all = vec![plain.clone()];
    match family {
        Family::V4 => all.extend(OPTIONS.map(|options| with_options(&plain, options))),
        Family::V6 => {
            all.extend(chains().iter().map(|chain| with_extensions(&plain, chain)));
        }
    }
    Ok(all)
}

fn suites() -> Vec<Suite> {
    let mut all = suite::every_ah();
    all.push(suite::AES128GCM16);
    all.push(suite::NULL_SHA256);
    all
}

//= test T01
//= test T08
//= test T43
//= test T45
//= test T88
//= test T89
//= test T90
#[test]
fn scapy_opens_every_kind_of_header() {
    with_scapy("scapy_opens_every_kind_of_header", || {
        for (suite, family) in suites().into_iter().flat_map(|s| FAMILIES.map(|f| (s, f))) {
            let context = || format!("{} {family:?}", suite.name());
            let sas = sas(family, suite);
            let mut replay = Replay::new(&legacy(&config(&sas, family)))?;
            let ends = [LEFT.wan[family.index()], RIGHT.wan[family.index()]];
            let sent = all_headers(ends, family)?;
            let frames = (1..).zip(&sent).map(|(at, it)| replay::from_host(at, it));
            replay.input("host", frames.collect());
            let result = replay.run()?;
            ensure!(
                result.wan.len() == sent.len(),
                "{}: {}",
                context(),
                result.json
            );
            let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
            let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
            ensure!(inner == sent, "{}: {}", context(), opened.report);
        }
        Ok(())
    });
}

fn legacy(config: &Config) -> Config {
    let mut with = Config::default();
    let text = config.text();
    let rest = text.strip_prefix("[dataplane]\n").unwrap_or(text);
    with.table("[dataplane]\nallow_legacy = true", &[rest.to_owned()]);
    with
}

//= test T08
//= test T43
//= test T45
#[test]
fn the_gateway_opens_every_kind_of_header() {
    with_scapy("the_gateway_opens_every_kind_of_header", || {
        for (suite, family) in suites().into_iter().flat_map(|s| FAMILIES.map(|f| (s, f))) {
            let context = || format!("{} {family:?}", suite.name());
            let sas = sas(family, suite);
            let mut replay = Replay::new(&legacy(&config(&sas, family)))?;
            let ends = [RIGHT.wan[family.index()], LEFT.wan[family.index()]];
            let sent = all_headers(ends, family)?;
            let frames = (1..).zip(&sent).map(|(at, it)| replay::from_peer(at, it));
            let sealed = peer::seal(&sas[1], 1, &frames.collect::<Vec<_>>(), replay.directory())?;
            replay.input("wan0", sealed);
            let result = replay.run()?;
            let opened: Vec<&[u8]> = result.host.iter().map(Frame::packet).collect();
            ensure!(opened == sent, "{}: {}", context(), result.json);
            let bytes: usize = sent.iter().map(Vec::len).sum();
            ensure!(sa_member(&result.json, &sas[1].name, "bytes")? == bytes as u64);
        }
        Ok(())
    });
}

//= test T40
//= test T89
#[test]
fn an_ah_header_may_be_longer_than_it_must() {
    with_scapy("an_ah_header_may_be_longer_than_it_must", || {
        for (suite, family) in suite::every_ah()
            .into_iter()
            .flat_map(|s| FAMILIES.map(|f| (s, f)))
        {
            let sas = sas(family, suite);
            let mut replay = Replay::new(&legacy(&config(&sas, family)))?;
            let ends = [RIGHT.wan[family.index()], LEFT.wan[family.index()]];
            let packet = datagram(ends, 50, IpFields::default())?;
            // Longer; padded as for IPv6; not padded at all; reserved bits set.
            let crafts: Vec<Value> = [
                json!({"longer": 8}),
                json!({"longer": 200}),
                json!({"unit": 8}),
                json!({"unit": 4}),
                json!({"reserved": 0xffff}),
            ]
            .into_iter()
            .zip(1..)
            .map(|(mut craft, number)| {
                craft["number"] = json!(number);
                craft
            })
            .collect();
            let frames = (1..=5).map(|at| replay::from_peer(at, &packet));
            let frames: Vec<Frame> = frames.collect();
            let sealed = peer::seal_crafted(&sas[1], &frames, &crafts, replay.directory())?;
            replay.input("wan0", sealed);
            let result = replay.run()?;
            let name = suite.name();
            ensure!(
                result.host.len() == 5,
                "{name} {family:?}: {}",
                result.json["drops"]
            );
            ensure!(result.host.iter().all(|frame| frame.packet() == packet));
        }
        Ok(())
    });
}

//= test T95
#[test]
fn a_bump_in_the_wire_serves_its_one_host() {
    with_scapy("a_bump_in_the_wire_serves_its_one_host", || {
        for (suite, family) in [suite::AES128GCM16, suite::AH_SHA256]
            .into_iter()
            .flat_map(|s| FAMILIES.map(|f| (s, f)))
        {
            let index = family.index();
            let [mut out, mut into] = sas(family, suite);
            let hosts = replay::hosts(&LEFT, &RIGHT, family);
            [out.source, out.destination] = hosts.map(str::to_owned);
            [into.destination, into.source] = hosts.map(str::to_owned);
            let mut config = replay::network(&[]);
            config.sa(&out, "out").sa(&into, "in");
            let nets = [LEFT.net[index], RIGHT.net[index]];
            config.protect("to", "out", nets, &out.name);
            config.protect("from", "in", nets, &into.name);
            let mut replay = Replay::new(&config)?;
            let stranger = match family {
                Family::V4 => "10.1.0.77",
                Family::V6 => "fd00:1::77",
            };
            let fields = IpFields::default();
            let sent = [
                datagram(hosts, 10, fields)?,
                datagram([stranger, hosts[1]], 10, fields)?,
            ];
            let frames = (1..).zip(&sent).map(|(at, it)| replay::from_host(at, it));
            replay.input("lan0", frames.collect());
            let back = datagram([hosts[1], hosts[0]], 10, fields)?;
            let sealed = peer::seal(&into, 1, &[replay::from_peer(9, &back)], replay.directory())?;
            replay.input("wan0", sealed);
            let result = replay.run()?;
            let lower = |packet: &[u8]| packets::one_hop_less(packet);
            let opened = peer::open(&[out], &replay.file("out-wan0.pcap"))?;
            let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
            ensure!(inner == [lower(&sent[0])], "{}", opened.report);
            ensure!(
                result.dropped("unsupported") == 1,
                "{}",
                result.json["drops"]
            );
            ensure!(result.lan == [replay::to_host(9, &lower(&back))]);
        }
        Ok(())
    });
}

//= test T14
//= test T15
#[test]
fn transport_mode_is_fragmented_behind_the_sa() {
    with_scapy("transport_mode_is_fragmented_behind_the_sa", || {
        for suite in [suite::AES128GCM16, suite::AH_SHA256] {
            let sas = sas(Family::V4, suite);
            let mut replay = Replay::new(&config(&sas, Family::V4))?;
            let ends = [LEFT.wan[0], RIGHT.wan[0]];
            let fields = IpFields::default();
            let long = datagram(ends, 3000, fields)?;
            let set = IpFields {
                fragment: packets::DONT_FRAGMENT,
                ..fields
            };
            let piece = IpFields {
                fragment: packets::MORE_FRAGMENTS,
                ..fields
            };
            let sent = [
                replay::from_host(1, &long),
                replay::from_host(2, &datagram(ends, 1472, set)?),
                replay::from_host(3, &datagram(ends, 16, piece)?),
            ];
            replay.input("host", sent.to_vec());
            let result = replay.run()?;
            ensure!(result.wan.len() == 3, "{} pieces", result.wan.len());
            ensure!(
                result.reasons() == ["too_big", "fragment"],
                "{:?}",
                result.reasons()
            );
            ensure!(sa_member(&result.json, &sas[0].name, "packets")? == 1);
            let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
            let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
            ensure!(inner == [long], "{}", opened.report);
        }
        Ok(())
    });
}

/// An inner and an outer SA in both directions, and what each policy wants.
fn bundle(inner: [Sa; 2], outer: [Sa; 2], nets: [&str; 2]) -> Config {
    let mut config = replay::network(&[]);
    for (direction, at) in [("out", 0), ("in", 1)] {
        config.sa(&inner[at], direction).sa(&outer[at], direction);
        let both = format!("sa = [\"{}\", \"{}\"]", inner[at].name, outer[at].name);
        let keys = [direction, direction, "protect"];
        config.policy(keys, nets, 100, &[both]);
    }
    config
}

//= test T50
//= test T113
#[test]
fn bundles_go_both_ways() {
    with_scapy("bundles_go_both_ways", || {
        for (modes, esn) in [("tunnel", "transport"), ("transport", "transport")]
            .into_iter()
            .chain([("tunnel", "tunnel"), ("transport", "tunnel")])
            .flat_map(|modes| [false, true].map(|esn| (modes, esn)))
        {
            for family in FAMILIES {
                through_both(modes, family, esn)
                    .with_context(|| format!("{modes:?} {family:?} {esn}"))?;
            }
        }
        Ok(())
    });
}

fn pair(mut sas: [Sa; 2], mode: &'static str, esn: bool, first: u32, name: &str) -> [Sa; 2] {
    for (at, sa) in (0..).zip(&mut sas) {
        sa.mode = mode;
        sa.esn = esn;
        sa.spi = first + at;
        sa.name = format!("{name}-{at}");
    }
    sas
}

fn through_both(modes: (&'static str, &'static str), family: Family, esn: bool) -> Result<()> {
    let index = family.index();
    let esp = pair(
        replay::sas(family, suite::AES128GCM16),
        modes.0,
        esn,
        0x2001,
        "esp",
    );
    let ah = pair(
        replay::sas(family, suite::AH_SHA256),
        modes.1,
        esn,
        0x3001,
        "ah",
    );
    let ours = modes.0 == "transport";
    let (ends, nets) = match ours {
        true => (
            [LEFT.wan[index], RIGHT.wan[index]],
            [LEFT.wan[index], RIGHT.wan[index]],
        ),
        false => (
            replay::hosts(&LEFT, &RIGHT, family),
            [LEFT.net[index], RIGHT.net[index]],
        ),
    };
    let mut replay = Replay::new(&bundle(esp.clone(), ah.clone(), nets))?;
    let fields = IpFields::default();
    let sizes = [0, 1, 500, 1300];
    let (mut sent, mut answers) = (Vec::new(), Vec::new());
    for size in sizes {
        sent.push(datagram(ends, size, fields)?);
        answers.push(datagram([ends[1], ends[0]], size, fields)?);
    }
    let frames = (1..).zip(&sent).map(|(at, it)| replay::from_host(at, it));
    replay.input(if ours { "host" } else { "lan0" }, frames.collect());
    let plain = (100..)
        .zip(&answers)
        .map(|(at, it)| replay::from_peer(at, it));
    let plain: Vec<Frame> = plain.collect();
    let spis = |sas: &[u32]| {
        let numbers = (1..).take(plain.len());
        numbers
            .map(|number| json!({"number": number, "spis": sas}))
            .collect::<Vec<_>>()
    };
    let back = [esp[1].clone(), ah[1].clone()];
    let good = spis(&[0x2002, 0x3002]);
    let mut arriving = peer::seal_through(&back, &plain, &good, replay.directory())?;
    // With one of the two alone, and in the wrong order.
    for wrong in [&[0x2002][..], &[0x3002]] {
        let craft = json!({"number": 50, "spis": wrong});
        arriving.extend(peer::seal_through(
            &back,
            &plain[..1],
            std::slice::from_ref(&craft),
            replay.directory(),
        )?);
    }
    replay.input("wan0", arriving);
    let result = replay.run()?;
    let lower = |all: &[Vec<u8>]| -> Vec<Vec<u8>> {
        let lowered = |packet: &Vec<u8>| {
            if ours {
                packet.clone()
            } else {
                packets::one_hop_less(packet)
            }
        };
        all.iter().map(lowered).collect()
    };
    ensure!(result.wan.iter().all(|frame| frame.protocol() == Some(AH)));
    let forth = [esp[0].clone(), ah[0].clone()];
    let opened = peer::open(&forth, &replay.file("out-wan0.pcap"))?;
    let inner: Vec<Vec<u8>> = opened.inner.iter().map(|it| it.packet().to_vec()).collect();
    ensure!(
        inner == lower(&sent),
        "{} {}",
        result.json["drops"],
        opened.report
    );
    for spi in ["8193", "12289"] {
        let used = &opened.report["sequences"][spi];
        ensure!(*used == json!([1, 2, 3, 4]), "{spi}: {used}");
    }
    let frames = if ours { &result.host } else { &result.lan };
    let inner: Vec<Vec<u8>> = frames.iter().map(|it| it.packet().to_vec()).collect();
    ensure!(inner == lower(&answers), "{}", result.json);
    // AH alone in transport mode leaves a packet between hosts what it is: not for the SA.
    let mismatches = if modes == ("tunnel", "transport") {
        1
    } else {
        2
    };
    let drops = &result.json["drops"];
    ensure!(result.dropped("selector_mismatch") == mismatches, "{drops}");
    ensure!(
        result.dropped("plaintext_required_protection") == 2 - mismatches,
        "{drops}"
    );
    let through_ah = 3 + mismatches;
    for (sa, packets) in [
        (&esp[0], 4),
        (&ah[0], 4),
        (&esp[1], 5),
        (&ah[1], through_ah),
    ] {
        ensure!(
            sa_member(&result.json, &sa.name, "packets")? == packets,
            "{}",
            result.json
        );
    }
    Ok(())
}
