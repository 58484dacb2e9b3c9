//! Goal: a peer behind a NAT is followed by its newest authentic packet and by nothing else, and
//! what transport mode carries through a NAT arrives with right checksums. Method: `replay`; scapy
//! seals, the test is the NAT.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::with_scapy;
use xipsec_tests::packets::{self, Frame, ICMP, IpFields, TCP, UDP};
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::{peer, suite};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Our port and the one that configuration gives the peer.
const OURS: u16 = 4500;
const THEIRS: u16 = 4501;

/// Somewhere behind the peer's router.
const AWAY: [[&str; 2]; 2] = [
    ["203.0.113.7", "2001:db8:7::7"],
    ["203.0.113.8", "2001:db8:7::8"],
];

const SECOND: u64 = 1_000_000;

/// Where something is: address, UDP port.
type Place = (String, u16);

fn place(address: &str, port: u16) -> Place {
    (address.to_owned(), port)
}

fn sas(family: Family, extra: &[&str]) -> [Sa; 2] {
    let [mut out, mut into] = replay::sas(family, suite::AES128GCM16);
    out.udp = Some([OURS, THEIRS]);
    into.udp = Some([THEIRS, OURS]);
    for sa in [&mut out, &mut into] {
        sa.extra = extra.iter().map(|line| (*line).to_owned()).collect();
    }
    [out, into]
}

/// Ways to everything that is away.
fn routed(mut config: Config) -> Config {
    for (prefix, at) in [("203.0.113.0/24", 0), ("2001:db8:7::/64", 1)] {
        config.route(prefix, "wan0", RIGHT.wan[at]);
    }
    config
}

/// The frame behind a NAT, which writes address and port of the source.
fn translated(frame: &Frame, source: &Place) -> Result<Frame> {
    let mut frame = frame.clone();
    let packet = &mut frame.bytes[14..];
    let udp = match source.0.parse()? {
        IpAddr::V4(address) => {
            packet[12..16].copy_from_slice(&address.octets());
            packet[10..12].fill(0);
            let sum = packets::checksum(0, &packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            20
        }
        IpAddr::V6(address) => {
            packet[8..24].copy_from_slice(&address.octets());
            40
        }
    };
    packet[udp..udp + 2].copy_from_slice(&source.1.to_be_bytes());
    Ok(frame)
}

/// Where a frame in UDP goes.
fn destination(frame: &Frame) -> Result<Place> {
    let (_, address) = frame.addresses().context("no IP")?;
    let at = if address.is_ipv4() { 22 } else { 42 };
    let port = frame.packet().get(at..at + 2).context("no port")?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    Ok((address.to_string(), port))
}

/// One moment: when, and what comes then.
struct Moment {
    at: u64,
    comes: Comes,
}

enum Comes {
    /// Our host sends; where the sealed packet must go.
    Ours(Place),
    /// The peer's packet of that number from that place, damaged or not; whether it is opened.
    Theirs(u64, Place, bool, bool),
    /// A keepalive from that place; whether it is swallowed.
    Keepalive(Place, bool),
}

use Comes::{Keepalive, Ours, Theirs};

/// Lets all of it happen in order of time and checks each.
fn happens(family: Family, sas: &[Sa; 2], moments: &[Moment]) -> Result<Replayed> {
    let index = family.index();
    let mut replay = Replay::new(&routed(replay::tunnel(sas, &[])))?;
    let (mut host, mut wire, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
    let (mut opened, mut consumed) = (0, 0);
    let inner = |from, to| -> Result<Vec<u8>> {
        let [from, to] = replay::hosts(from, to, Family::V4);
        packets::ip(
            from,
            to,
            ICMP,
            IpFields::default(),
            &packets::echo(1, 1, b"nat"),
        )
    };
    for moment in moments {
        match &moment.comes {
            Ours(place) => {
                host.push(replay::from_host(moment.at, &inner(&LEFT, &RIGHT)?));
                wanted.push(place.clone());
            }
            Theirs(number, place, damaged, accepted) => {
                let plain = replay::from_peer(moment.at, &inner(&RIGHT, &LEFT)?);
                let craft: Value = json!({"number": number, "flip": damaged});
                let sealed = peer::seal_crafted(&sas[1], &[plain], &[craft], replay.directory())?;
                wire.push(translated(&sealed[0], place)?);
                opened += usize::from(*accepted);
            }
            Keepalive((address, port), swallowed) => {
                let datagram = [
                    &port.to_be_bytes()[..],
                    &OURS.to_be_bytes(),
                    &[0, 9, 0, 0, 0xff],
                ];
                let datagram = datagram.concat();
                let fields = IpFields::default();
                let packet = packets::ip(address, LEFT.wan[index], UDP, fields, &datagram)?;
                wire.push(replay::from_peer(moment.at, &packet));
                consumed += u64::from(*swallowed);
            }
        }
    }
    replay.input("lan0", host).input("wan0", wire);
    let result = replay.run()?;
    let went = result
        .wan
        .iter()
        .map(destination)
        .collect::<Result<Vec<_>>>()?;
    ensure!(went == wanted, "went to {went:?}, expected {wanted:?}");
    ensure!(
        result.lan.len() == opened,
        "{} opened: {}",
        result.lan.len(),
        result.json
    );
    ensure!(
        result.json["consumed"]["keepalive"] == consumed,
        "{}",
        result.json
    );
    let read = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
    ensure!(read.inner.len() == wanted.len(), "{}", read.report);
    ensure!(read.count("checksum") == 0, "{}", read.report);
    Ok(result)
}

fn timeline(moments: impl IntoIterator<Item = (u64, Comes)>) -> Vec<Moment> {
    let moments = moments.into_iter();
    moments.map(|(at, comes)| Moment { at, comes }).collect()
}

//= test T160
#[test]
fn a_peer_is_followed_by_its_newest_authentic_packet_alone() {
    with_scapy(
        "a_peer_is_followed_by_its_newest_authentic_packet_alone",
        || {
            for family in FAMILIES {
                let index = family.index();
                let home = || place(RIGHT.wan[index], THEIRS);
                let first = || place(AWAY[0][index], 1024);
                let second = || place(AWAY[1][index], 60_000);
                let same_address = || place(AWAY[1][index], 60_001);
                let moments = timeline([
                    (1, Ours(home())),
                    (2, Theirs(9, home(), false, true)),
                    // Forged, old, seen: nothing of it moves the peer.
                    (3, Theirs(10, first(), true, false)),
                    (4, Theirs(8, first(), false, true)),
                    (5, Theirs(9, first(), false, false)),
                    (6, Ours(home())),
                    (7, Theirs(10, first(), false, true)),
                    (8, Ours(first())),
                    // Within the second it stays; all it sends is taken.
                    (9, Theirs(11, second(), false, true)),
                    (10, Theirs(12, home(), false, true)),
                    (SECOND, Ours(first())),
                    (SECOND + 6, Theirs(13, second(), false, true)),
                    (SECOND + 6, Ours(first())),
                    (SECOND + 7, Theirs(14, second(), false, true)),
                    (SECOND + 8, Ours(second())),
                    // A keepalive is known by where the peer is, and says nothing of its own.
                    (SECOND + 9, Keepalive(second(), true)),
                    (SECOND + 10, Keepalive(same_address(), true)),
                    (SECOND + 11, Keepalive(home(), false)),
                    (5 * SECOND, Ours(second())),
                    // The port alone.
                    (5 * SECOND, Theirs(15, same_address(), false, true)),
                    (5 * SECOND + 1, Ours(same_address())),
                    (9 * SECOND, Theirs(16, home(), false, true)),
                    (9 * SECOND + 1, Ours(home())),
                ]);
                let result = happens(family, &sas(family, &[]), &moments)
                    .with_context(|| format!("{family:?}"))?;
                ensure!(result.dropped("authentication") == 1 && result.dropped("replay") == 1);
            }
            Ok(())
        },
    );
}

//= test T160
#[test]
fn a_peer_is_not_followed_where_it_must_not_be() {
    with_scapy("a_peer_is_not_followed_where_it_must_not_be", || {
        for (extra, family) in ["follow_peer = false", "replay_window = 0"]
            .into_iter()
            .flat_map(|extra| FAMILIES.map(|family| (extra, family)))
        {
            let index = family.index();
            let home = || place(RIGHT.wan[index], THEIRS);
            let away = || place(AWAY[0][index], 1024);
            let moments = timeline([
                (1, Theirs(1, away(), false, true)),
                (2, Ours(home())),
                (3, Keepalive(home(), true)),
                (4, Keepalive(away(), false)),
                (5 * SECOND, Theirs(2, away(), false, true)),
                (5 * SECOND + 1, Ours(home())),
            ]);
            happens(family, &sas(family, &[extra]), &moments)
                .with_context(|| format!("{extra}, {family:?}"))?;
        }
        Ok(())
    });
}

//= test T139
//= test T160
#[test]
fn two_peers_behind_one_nat_are_followed_each_for_itself() {
    with_scapy(
        "two_peers_behind_one_nat_are_followed_each_for_itself",
        || {
            let nat = AWAY[0][0];
            let mut config = routed(replay::network(&[]));
            let hosts = ["10.2.0.2", "10.2.0.3"];
            let mut all = Vec::new();
            // Both are known by the NAT's address and told apart by a port, whichever it is.
            for (number, host) in (0..).zip(hosts) {
                let mut pair = sas(Family::V4, &[]);
                for sa in &mut pair {
                    sa.spi += u32::from(number) * 16;
                    sa.name = format!("{}-{number}", sa.name);
                }
                pair[0].destination = nat.to_owned();
                pair[1].source = nat.to_owned();
                pair[0].udp = Some([OURS, THEIRS + number]);
                pair[1].udp = Some([THEIRS + number, OURS]);
                // Keys follow from the SPI, which was another one when they were made.
                let pair = pair.map(|sa| sa.random());
                let [out, into] = pair;
                let (out, into) = (out?, into?);
                config.sa(&out, "out").sa(&into, "in");
                let nets = [LEFT.net[0], host];
                config.protect(&format!("out-{number}"), "out", nets, &out.name);
                config.protect(&format!("in-{number}"), "in", nets, &into.name);
                all.push((host, [out, into]));
            }
            let mut replay = Replay::new(&config)?;
            let (mut wire, mut lan) = (Vec::new(), Vec::new());
            for (number, (host, sas)) in (0..).zip(&all) {
                let echo = packets::echo(1, 1, b"nat");
                let fields = IpFields::default();
                let from = packets::ip(host, LEFT.host[0], ICMP, fields, &echo)?;
                let plain = replay::from_peer(1 + u64::from(number), &from);
                let sealed = peer::seal(&sas[1], 1, &[plain], replay.directory())?;
                wire.push(translated(&sealed[0], &place(nat, 30_000 + number))?);
                let to = packets::ip(LEFT.host[0], host, ICMP, fields, &echo)?;
                lan.push(replay::from_host(10 + u64::from(number), &to));
            }
            replay.input("wan0", wire).input("lan0", lan);
            let result = replay.run()?;
            ensure!(result.lan.len() == 2, "{}", result.json["drops"]);
            let went = result
                .wan
                .iter()
                .map(destination)
                .collect::<Result<Vec<_>>>()?;
            ensure!(went == [place(nat, 30_000), place(nat, 30_001)], "{went:?}");
            Ok(())
        },
    );
}

/// A TCP segment, a UDP datagram and one without a checksum between two addresses.
fn segments(source: &str, destination: &str) -> Result<Vec<Vec<u8>>> {
    let fields = IpFields::default();
    let tcp = packets::tcp(source, destination, [4000, 5000], b"through a NAT")?;
    let udp = packets::udp(source, destination, [4000, 5000], b"through a NAT")?;
    let mut all = vec![
        packets::ip(source, destination, TCP, fields, &tcp)?,
        packets::ip(source, destination, UDP, fields, &udp)?,
    ];
    if !source.contains(':') {
        let mut none = udp;
        none[6..8].fill(0);
        all.push(packets::ip(source, destination, UDP, fields, &none)?);
    }
    Ok(all)
}

//= test T68
//= test T160
#[test]
fn transport_mode_through_a_nat() {
    with_scapy("transport_mode_through_a_nat", || {
        for family in FAMILIES {
            let index = family.index();
            let [us, nat] = [LEFT.wan[index], RIGHT.wan[index]];
            let private = ["192.168.5.5", "fd00:5::5"][index];
            let sas = sas(family, &[]).map(Sa::transport);
            let mut config = replay::network(&[]);
            config.sa(&sas[0], "out").sa(&sas[1], "in");
            config.protect("to", "out", [us, nat], &sas[0].name);
            config.protect("from", "in", [us, nat], &sas[1].name);
            let mut replay = Replay::new(&config)?;

            // The peer knows itself by a private address, under which it made the checksums.
            let sent = segments(private, us)?;
            let frames = (1..).zip(&sent).map(|(at, it)| replay::from_peer(at, it));
            let frames: Vec<Frame> = frames.collect();
            let sealed = peer::seal(&sas[1], 1, &frames, replay.directory())?;
            let source = place(nat, 40_000);
            let wire = sealed.iter().map(|frame| translated(frame, &source));
            replay.input("wan0", wire.collect::<Result<Vec<_>>>()?);
            let answers = segments(us, nat)?;
            let host = (100..)
                .zip(&answers)
                .map(|(at, it)| replay::from_host(at, it));
            replay.input("host", host.collect());
            let result = replay.run()?;

            let came: Vec<&[u8]> = result.host.iter().map(Frame::packet).collect();
            ensure!(
                came == segments(nat, us)?,
                "{family:?}: {}",
                result.json["drops"]
            );
            let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
            let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
            ensure!(
                inner == answers && opened.count("checksum") == 0,
                "{}",
                opened.report
            );
            ensure!(
                opened.report["ports"] == json!([[OURS, 40_000]]),
                "{}",
                opened.report
            );
        }
        Ok(())
    });
}
