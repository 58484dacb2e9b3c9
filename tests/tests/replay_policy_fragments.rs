//! Goal: fragments and policies that look at ports (RFC 4301 section 7): a later fragment shows
//! none, so what its first fragment met decides, or nothing lets it through. Method: `replay` over
//! cut packets, in the clear and through an SA.

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Config, Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{conclude, sa_member, with_scapy};
use xipsec_tests::fragments::cut;
use xipsec_tests::packets::{self, ESP, Frame, ICMP, IpFields, TCP, UDP};
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::{peer, suite};

const A: &str = LEFT.host[0];
const B: &str = RIGHT.host[0];

/// The two fragments of a packet to `port` (of an echo request: of that type).
fn halves(protocol: u8, from: &str, to: &str, port: u16, id: u16) -> Result<[Vec<u8>; 2]> {
    let payload = match protocol {
        UDP => packets::udp(from, to, [9, port], &[7; 100])?,
        TCP => packets::tcp(from, to, [9, port], &[7; 100])?,
        _ => {
            let mut message = packets::echo(1, 1, &[7; 100]);
            message[0] = u8::try_from(port)?;
            message
        }
    };
    let packet = packets::ip(from, to, protocol, IpFields::default(), &payload)?;
    let parts = cut(&packet, id, 64);
    let [first, later] = &parts[..] else {
        anyhow::bail!("not two fragments");
    };
    Ok([first.clone(), later.clone()])
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Outbound: bypass, discard and protect with ports, then TCP as a whole.
fn config(sas: &[Sa; 2], dataplane: &[&str]) -> Config {
    let mut config = replay::network(&lines(dataplane));
    config.sa(&sas[0], "out");
    let nets = [LEFT.net[0], RIGHT.net[0]];
    let sa = format!("sa = [\"{}\"]", sas[0].name);
    let mut policy = |name, action, priority, more: &[&str]| {
        let mut more = lines(more);
        if action == "protect" {
            more.push(sa.clone());
        }
        config.policy([name, "out", action], nets, priority, &more);
    };
    let udp = "protocol = \"udp\"";
    policy("clear", "bypass", 10, &[udp, "remote_port = 53"]);
    policy("never", "discard", 20, &[udp, "remote_port = 99"]);
    policy("sealed", "protect", 30, &[udp, "remote_port = 5000"]);
    let echo = ["protocol = \"icmp\"", "icmp_type = \"8-9\""];
    policy("echo", "bypass", 35, &echo);
    policy("tcp", "protect", 40, &["protocol = \"tcp\""]);
    config
}

fn run(config: &Config, frames: Vec<Frame>) -> Result<Replayed> {
    let mut replay = Replay::new(config)?;
    replay.input("lan0", frames).run()
}

/// How many left in the clear, how many sealed, and the drops' reasons.
fn ends(result: &Replayed) -> (usize, usize, Vec<&str>) {
    let sealed = |frame: &&Frame| frame.protocol() == Some(ESP);
    let count = result.wan.iter().filter(sealed).count();
    (result.wan.len() - count, count, result.reasons())
}

/// Its name, the packets, how many leave in the clear and sealed, and why the rest does not.
type Case = (&'static str, Vec<Vec<u8>>, usize, usize, Vec<&'static str>);

//= test T64
//= test T108
//= test T121
//= test T125
#[test]
fn a_later_fragment_follows_its_first_or_nothing() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let both = |protocol, port| halves(protocol, A, B, port, 7).map(Vec::from);
        let later = |protocol, port| both(protocol, port).map(|parts| parts[1..].to_vec());
        let turned = |protocol, port| {
            both(protocol, port).map(|mut parts| {
                parts.reverse();
                parts
            })
        };
        let discarded = "policy_discard";
        let cases: [Case; 12] = [
            ("bypassed", both(UDP, 53)?, 2, 0, vec![]),
            ("discarded", both(UDP, 99)?, 0, 0, vec![discarded; 2]),
            ("protected", both(UDP, 5000)?, 0, 1, vec!["fragment"]),
            ("of no policy", both(UDP, 6000)?, 0, 0, vec!["no_policy"; 2]),
            (
                "nothing remembered",
                later(UDP, 53)?,
                0,
                0,
                vec!["fragment"],
            ),
            (
                "the first too late",
                turned(UDP, 53)?,
                1,
                0,
                vec!["fragment"],
            ),
            ("any port", both(TCP, 53)?, 0, 2, vec![]),
            ("any port, later alone", later(TCP, 53)?, 0, 1, vec![]),
            ("ICMP type", both(ICMP, 8)?, 2, 0, vec![]),
            ("ICMP type of the range", both(ICMP, 9)?, 2, 0, vec![]),
            (
                "another ICMP type",
                both(ICMP, 10)?,
                0,
                0,
                vec!["no_policy"; 2],
            ),
            ("ICMP, later alone", later(ICMP, 8)?, 0, 0, vec!["fragment"]),
        ];
        for (name, packets, clear, sealed, drops) in cases {
            let frames = (1..).zip(&packets);
            let frames = frames.map(|(at, packet)| replay::from_host(at, packet));
            let result = run(&config(&sas, &[]), frames.collect())?;
            let ends = ends(&result);
            ensure!(ends == (clear, sealed, drops), "{name}: {ends:?}");
        }
        Ok(())
    };
    conclude(body());
}

/// Bounds as `fragments`: packets and time; and another identification is another packet.
//= test T121
#[test]
fn what_is_remembered_is_bounded() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let part = |id, at, index: usize| {
            let parts = halves(UDP, A, B, 53, id)?;
            anyhow::Ok(replay::from_host(at, &parts[index]))
        };
        let limits = ["fragments = { packets = 2, timeout_ms = 500 }"];
        let cases = [
            ("in time", vec![part(1, 0, 0)?, part(1, 499_999, 1)?], 2),
            ("too late", vec![part(1, 0, 0)?, part(1, 500_000, 1)?], 1),
            ("of another", vec![part(1, 0, 0)?, part(2, 1, 1)?], 1),
            (
                "the oldest is forgotten",
                vec![
                    part(1, 0, 0)?,
                    part(2, 1, 0)?,
                    part(3, 2, 0)?,
                    part(1, 3, 1)?,
                    part(2, 4, 1)?,
                    part(3, 5, 1)?,
                ],
                5,
            ),
        ];
        for (name, frames, clear) in cases {
            let missing = frames.len() - clear;
            let result = run(&config(&sas, &limits), frames)?;
            let expected = (clear, 0, vec!["fragment"; missing]);
            let ends = ends(&result);
            ensure!(ends == expected, "{name}: {ends:?}");
        }
        Ok(())
    };
    conclude(body());
}

/// Opened fragments: an SA whose policy names ports carries no later ones; one of any port does.
//= test T64
//= test T125
#[test]
fn an_sa_with_ports_carries_no_later_fragment() {
    with_scapy("an_sa_with_ports_carries_no_later_fragment", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        for (port, passes, dropped) in [("local_port = 443", 1, 1), ("local_port = \"any\"", 2, 0)]
        {
            let mut config = replay::network(&[]);
            config.sa(&sas[1], "in");
            let sa = format!("sa = [\"{}\"]", sas[1].name);
            let more = lines(&[&sa, "protocol = \"tcp\"", port]);
            config.policy(
                ["web", "in", "protect"],
                [LEFT.net[0], RIGHT.net[0]],
                10,
                &more,
            );
            let mut replay = Replay::new(&config)?;
            let plain = halves(TCP, B, A, 443, 5)?.map(|part| replay::from_peer(0, &part));
            let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
            let result = replay.input("wan0", sealed).run()?;
            ensure!(result.lan.len() == passes, "{port}: {}", result.json);
            ensure!(result.dropped("fragment") == dropped, "{}", result.json);
        }
        Ok(())
    });
}

/// Clear fragments from outside: they pass with their first, or not.
//= test T121
#[test]
fn clear_fragments_from_outside_follow_their_first() {
    let body = || -> Result<()> {
        let mut config = replay::network(&[]);
        let nets = [LEFT.net[0], RIGHT.net[0]];
        let port = lines(&["protocol = \"udp\"", "local_port = 53"]);
        config.policy(["dns", "in", "bypass"], nets, 10, &port);
        let [first, later] = halves(UDP, B, A, 53, 5)?;
        let [other, stray] = halves(UDP, B, A, 54, 6)?;
        let lost = halves(UDP, B, A, 53, 7)?[1].clone();
        let frames = (1..).zip([first, other, later, stray, lost]);
        let frames = frames.map(|(at, packet)| replay::from_peer(at, &packet));
        let mut replay = Replay::new(&config)?;
        let result = replay.input("wan0", frames.collect()).run()?;
        ensure!(result.lan.len() == 2, "{}", result.json["drops"]);
        let expected = ["no_policy", "no_policy", "fragment"];
        ensure!(result.reasons() == expected, "{:?}", result.reasons());
        let dns = result.json["policies"][0]["packets"].as_u64();
        ensure!(dns.context("no count")? == 2, "both count for the policy");
        Ok(())
    };
    conclude(body());
}

//= test T15
//= test T125
#[test]
fn what_ports_chose_is_cut_behind_the_sa() {
    with_scapy("what_ports_chose_is_cut_behind_the_sa", || {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let long = |protocol, port| -> Result<Vec<u8>> {
            let payload = match protocol {
                TCP => packets::tcp(A, B, [9, port], &[7; 3000])?,
                _ => packets::udp(A, B, [9, port], &[7; 3000])?,
            };
            packets::ip(A, B, protocol, IpFields::default(), &payload)
        };
        // By port: sealed whole, for its peer would take no later fragment. By protocol alone: cut.
        for (packet, count) in [(long(UDP, 5000)?, 1), (long(TCP, 5000)?, 3)] {
            let mut replay = Replay::new(&config(&sas, &[]))?;
            replay.input("lan0", vec![replay::from_host(1, &packet)]);
            let result = replay.run()?;
            ensure!(result.reasons().is_empty(), "{:?}", result.reasons());
            ensure!(result.wan.len() == 3, "{} pieces", result.wan.len());
            let sent = sa_member(&result.json, &sas[0].name, "packets")?;
            ensure!(sent == count, "{sent} packets");
            let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
            if count == 1 {
                let inner: Vec<&[u8]> = opened.inner.iter().map(Frame::packet).collect();
                ensure!(inner == [packets::one_hop_less(&packet)]);
            }
        }
        Ok(())
    });
}

/// Fragments of IPv6 whose datagram has destination options in front of TCP: the later one names
/// those, and no protocol.
fn nameless(from: &str, to: &str) -> Result<Vec<Vec<u8>>> {
    const OPTIONS: u8 = 60;
    let segment = packets::tcp(from, to, [9, 443], &[7; 100])?;
    let payload = [&[TCP, 0, 1, 4, 0, 0, 0, 0], &segment[..]].concat();
    let packet = packets::ip(from, to, OPTIONS, IpFields::default(), &payload)?;
    Ok(cut(&packet, 5, 64))
}

/// A policy for all protocols that stands behind one for TCP lets nothing of TCP through in the
/// clear, in either direction, although a later fragment does not say what it belongs to.
//= test T54 (RFC 4301 section 4.4.1.1)
//= test T121
#[test]
fn a_fragment_without_a_protocol_does_not_pass_the_policy_for_one() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V6, suite::AES128GCM16);
        let nets = [LEFT.net[1], RIGHT.net[1]];
        // The order decides: behind the policy for all, nobody is passed over.
        let behind = ["fragment", "plaintext_required_protection", "fragment"];
        for (all, reasons, clear) in [(20, &behind[..], [0, 0]), (5, &[], [2, 2])] {
            let mut config = replay::network(&[]);
            config.sa(&sas[0], "out").sa(&sas[1], "in");
            for (direction, sa) in ["out", "in"].into_iter().zip(&sas) {
                let tcp = [
                    "protocol = \"tcp\"".to_owned(),
                    format!("sa = [\"{}\"]", sa.name),
                ];
                let [one, other] = [format!("tcp-{direction}"), format!("all-{direction}")];
                config.policy([&one, direction, "protect"], nets, 10, &tcp);
                config.policy([&other, direction, "bypass"], nets, all, &[]);
            }
            let mut replay = Replay::new(&config)?;
            let there = nameless(LEFT.host[1], RIGHT.host[1])?;
            let back = nameless(RIGHT.host[1], LEFT.host[1])?;
            let times = 1..;
            let there = times
                .clone()
                .zip(&there)
                .map(|(at, it)| replay::from_host(at, it));
            let back = times
                .zip(&back)
                .map(|(at, it)| replay::from_peer(at + 10, it));
            replay.input("lan0", there.collect());
            let result = replay.input("wan0", back.collect()).run()?;
            let sealed = result.wan.iter().filter(|it| it.protocol() == Some(ESP));
            let found = [result.wan.len() - sealed.count(), result.lan.len()];
            ensure!(result.reasons() == reasons, "{:?}", result.reasons());
            ensure!(found == clear, "{found:?}");
        }
        Ok(())
    };
    conclude(body());
}
