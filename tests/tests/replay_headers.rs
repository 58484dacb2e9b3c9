//! Goal: every field of the outer header, and what of it comes back on receipt, is what the SA's
//! keys say: DF, DSCP, ECN by RFC 6040 in both directions, flow label, identification, hop limit.
//! Method: `replay` over all pairings of IP versions; the outer headers as they left are read here,
//! and arriving ones are made by scapy.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{conclude, with_scapy};
use xipsec_tests::packets::{self, DONT_FRAGMENT, Frame, IpFields, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// All pairings of outer and inner version.
fn pairings() -> impl Iterator<Item = (Family, Family)> {
    FAMILIES
        .into_iter()
        .flat_map(|outer| FAMILIES.map(|inner| (outer, inner)))
}

/// A datagram of a flow from the left host to the right one.
fn datagram(family: Family, port: u16, fields: IpFields) -> Result<Vec<u8>> {
    let [from, to] = replay::hosts(&LEFT, &RIGHT, family);
    let payload = packets::udp(from, to, [4000, port], b"header fields")?;
    packets::ip(from, to, UDP, fields, &payload)
}

/// The outer packets of what an SA with these keys makes of `inner`.
fn sealed(outer: Family, keys: &[&str], inner: &[Vec<u8>]) -> Result<Vec<Vec<u8>>> {
    let mut sas = replay::sas(outer, suite::AES128GCM16);
    sas[0].extra = keys.iter().map(|key| (*key).to_owned()).collect();
    let frames = (1..)
        .zip(inner)
        .map(|(at, packet)| replay::from_host(at, packet));
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let result = replay.input("lan0", frames.collect()).run()?;
    let drops = &result.json["drops"];
    ensure!(result.wan.len() == inner.len(), "{drops}");
    Ok(result
        .wan
        .iter()
        .map(|frame| frame.packet().to_vec())
        .collect())
}

fn traffic_class(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        6 => packet[0] << 4 | packet[1] >> 4,
        _ => packet[1],
    }
}

fn flow_label(packet: &[u8]) -> u32 {
    u32::from_be_bytes([0, packet[1] & 15, packet[2], packet[3]])
}

fn hop_limit(packet: &[u8]) -> u8 {
    packet[if packet[0] >> 4 == 6 { 7 } else { 8 }]
}

//= test T60
#[test]
fn the_outer_df_bit() {
    let body = || -> Result<()> {
        let plain = IpFields::default();
        let fixed = IpFields {
            fragment: DONT_FRAGMENT,
            ..plain
        };
        let inner = [
            datagram(Family::V4, 9, plain)?,
            datagram(Family::V4, 9, fixed)?,
            // Nobody cuts IPv6 on its way.
            datagram(Family::V6, 9, plain)?,
        ];
        for (key, wanted) in [
            ("copy", [false, true, true]),
            ("set", [true; 3]),
            ("clear", [false; 3]),
        ] {
            let key = format!("dont_fragment = \"{key}\"");
            let outer = sealed(Family::V4, &[&key], &inner)?;
            let found = outer.iter().map(|packet| packet[6] & 0x40 != 0);
            let found: Vec<bool> = found.collect();
            ensure!(found == wanted, "{key}: {found:?}");
            // No outer header is a fragment.
            ensure!(outer.iter().all(|it| it[6] & 0x3f == 0 && it[7] == 0));
        }
        Ok(())
    };
    conclude(body());
}

//= test T63
#[test]
fn the_outer_traffic_class() {
    let body = || -> Result<()> {
        for (outer, inner) in pairings() {
            // Every mark of congestion under a class of each length.
            let classes: Vec<u8> = (0..=3)
                .flat_map(|ecn| [0, 10, 46, 63].map(|dscp| dscp << 2 | ecn))
                .collect();
            let packets = classes.iter().map(|&traffic_class| {
                let fields = IpFields {
                    traffic_class,
                    ..IpFields::default()
                };
                datagram(inner, 9, fields)
            });
            let packets = packets.collect::<Result<Vec<_>>>()?;
            for (dscp, fixed) in [
                ("\"copy\"", None),
                ("0", Some(0)),
                ("46", Some(46)),
                ("63", Some(63)),
            ] {
                for ecn in [true, false] {
                    let keys = [format!("dscp = {dscp}"), format!("ecn = {ecn}")];
                    let sealed = sealed(outer, &[&keys[0], &keys[1]], &packets)?;
                    let found: Vec<u8> = sealed.iter().map(|it| traffic_class(it)).collect();
                    let wanted = classes.iter().map(|class| {
                        let mark = if ecn { class & 3 } else { 0 };
                        fixed.unwrap_or(class >> 2) << 2 | mark
                    });
                    let wanted: Vec<u8> = wanted.collect();
                    ensure!(
                        found == wanted,
                        "{inner:?} in {outer:?}, {keys:?}: {found:?}"
                    );
                }
            }
        }
        Ok(())
    };
    conclude(body());
}

/// RFC 6040, figure 4: the inner mark of what arrives, by the arriving inner and outer mark; not
/// ECT, ECT(1), ECT(0), CE are 0 to 3. Nothing: dropped.
const ARRIVING: [[Option<u8>; 4]; 4] = [
    [Some(0), Some(0), Some(0), None],
    [Some(1), Some(1), Some(1), Some(3)],
    [Some(2), Some(1), Some(2), Some(3)],
    [Some(3), Some(3), Some(3), Some(3)],
];

//= test T63
//= test T142
#[test]
fn congestion_marks_of_what_arrives() {
    with_scapy("congestion_marks_of_what_arrives", || {
        for (outer, inner) in pairings() {
            for key in ["ecn = true", "ecn = false"] {
                arrive(outer, inner, key)
                    .with_context(|| format!("{inner:?} in {outer:?}, {key}"))?;
            }
        }
        Ok(())
    });
}

fn arrive(outer: Family, inner: Family, key: &str) -> Result<()> {
    let mut sas = replay::sas(outer, suite::AES128GCM16);
    sas[1].extra = vec![key.to_owned()];
    let [from, to] = replay::hosts(&RIGHT, &LEFT, inner);
    let (mut plain, mut crafts, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    // The inner class of service stays whatever the outer one is.
    let classes = [(46, 0), (0, 46), (8, 10)];
    for (number, (inner_mark, outer_mark)) in
        (1_u64..).zip((0..4_u8).flat_map(|inner| (0..4_u8).map(move |outer| (inner, outer))))
    {
        let (inner_class, outer_class) = classes[usize::try_from(number % 3)?];
        let fields = |mark| IpFields {
            traffic_class: inner_class << 2 | mark,
            ..IpFields::default()
        };
        let payload = packets::udp(from, to, [4000, 9], b"marked")?;
        let packet = |mark| packets::ip(from, to, UDP, fields(mark), &payload);
        plain.push(replay::from_peer(number, &packet(inner_mark)?));
        let class = u32::from(outer_class << 2 | outer_mark);
        crafts.push(json!({"number": number, "traffic_class": class}));
        if let Some(mark) = ARRIVING[usize::from(inner_mark)][usize::from(outer_mark)] {
            wanted.push(packets::one_hop_less(&packet(mark)?));
        }
    }
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let arriving = peer::seal_crafted(&sas[1], &plain, &crafts, replay.directory())?;
    let classes = arriving
        .iter()
        .map(|frame| u32::from(traffic_class(frame.packet())));
    let asked = crafts.iter().map(|craft| craft["traffic_class"].as_u64());
    ensure!(
        classes.map(u64::from).map(Some).eq(asked),
        "scapy has its own classes"
    );
    let result = replay.input("wan0", arriving).run()?;
    let found: Vec<&[u8]> = result.lan.iter().map(Frame::packet).collect();
    ensure!(found == wanted, "{}", result.json["drops"]);
    ensure!(result.reasons() == ["ecn"], "{:?}", result.reasons());
    Ok(())
}

//= test T117
#[test]
fn the_outer_flow_label() {
    let body = || -> Result<()> {
        for inner in FAMILIES {
            let flows = [9, 10, 9, 11, 10, 9];
            let packets = flows.map(|port| datagram(inner, port, IpFields::default()));
            let packets = packets.into_iter().collect::<Result<Vec<_>>>()?;
            let labels = |keys: &[&str]| -> Result<Vec<u32>> {
                let sealed = sealed(Family::V6, keys, &packets)?;
                Ok(sealed.iter().map(|packet| flow_label(packet)).collect())
            };
            for keys in [&[][..], &["flow_label = \"hash\""]] {
                let found = labels(keys)?;
                let of = |port| {
                    let own = flows
                        .iter()
                        .zip(&found)
                        .filter(move |(flow, _)| **flow == port);
                    own.map(|(_, label)| *label).collect::<BTreeSet<u32>>()
                };
                let each = [9, 10, 11].map(of);
                ensure!(each.iter().all(|labels| labels.len() == 1), "{found:x?}");
                let all: BTreeSet<&u32> = each.iter().flatten().collect();
                ensure!(all.len() == 3 && !all.contains(&0), "{found:x?}");
            }
            let zero = labels(&["flow_label = 0"])?;
            ensure!(zero == [0; 6], "{zero:x?}");
        }
        Ok(())
    };
    conclude(body());
}

//= test T58
//= test T59
#[test]
fn the_outer_hop_limit() {
    let body = || -> Result<()> {
        for (outer, inner) in pairings() {
            let packets = [2, 64, 255].map(|hop_limit| {
                let fields = IpFields {
                    hop_limit,
                    ..IpFields::default()
                };
                datagram(inner, 9, fields)
            });
            let packets = packets.into_iter().collect::<Result<Vec<_>>>()?;
            for (keys, wanted) in [
                (&[][..], 64),
                (&["hop_limit = 1"], 1),
                (&["hop_limit = 255"], 255),
            ] {
                let sealed = sealed(outer, keys, &packets)?;
                let found: Vec<u8> = sealed.iter().map(|it| hop_limit(it)).collect();
                ensure!(
                    found == [wanted; 3],
                    "{inner:?} in {outer:?}, {keys:?}: {found:?}"
                );
            }
        }
        Ok(())
    };
    conclude(body());
}

/// RFC 6864: what may be cut on its way has an identification of its own.
//= test T58
#[test]
fn the_outer_identification() {
    let body = || -> Result<()> {
        let one = datagram(Family::V4, 9, IpFields::default())?;
        let sealed = sealed(Family::V4, &["dont_fragment = \"clear\""], &vec![one; 1000])?;
        let numbers = sealed.iter().map(|it| u16::from_be_bytes([it[4], it[5]]));
        let numbers: BTreeSet<u16> = numbers.collect();
        ensure!(numbers.len() == 1000, "{} of 1000 differ", numbers.len());
        Ok(())
    };
    conclude(body());
}
