//! Goal: policies decide by order and by every selector, before sealing and after opening, and
//! lifetimes end where they say. Method: `replay` over packets that differ in one selector each.

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Config, Family, LEFT, RIGHT};
use xipsec_tests::expect::{conclude, sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, ICMP, IpFields, TCP, UDP};
use xipsec_tests::replay::{self, Replay};
use xipsec_tests::{peer, suite};

const A: &str = LEFT.host[0];
const B: &str = RIGHT.host[0];

fn packet(protocol: u8, from: &str, to: &str, ports: [u16; 2]) -> Result<Vec<u8>> {
    let payload = match protocol {
        UDP => packets::udp(from, to, ports, b"policy")?,
        TCP => packets::tcp(from, to, ports, b"policy")?,
        _ => packets::echo(ports[0], ports[1], b"policy"),
    };
    packets::ip(from, to, protocol, IpFields::default(), &payload)
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// What the policy counters say, by name.
fn counted(json: &serde_json::Value) -> Vec<(String, u64)> {
    let policies = json["policies"].as_array().into_iter().flatten();
    let entry = |policy: &serde_json::Value| {
        let name = policy["name"].as_str().unwrap_or_default().to_owned();
        (name, policy["packets"].as_u64().unwrap_or(u64::MAX))
    };
    policies.map(entry).collect()
}

//= test T99
#[test]
fn the_first_match_by_priority_decides() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let mut config = replay::network(&[]);
        config.sa(&sas[0], "out");
        let nets = [LEFT.net[0], RIGHT.net[0]];
        let sa = format!("sa = [\"{}\"]", sas[0].name);
        let protect = |more: &[&str]| {
            let mut all = lines(more);
            all.push(sa.clone());
            all
        };
        config.policy(["rest", "out", "protect"], nets, 100, &protect(&[]));
        let dns = lines(&["protocol = \"udp\"", "remote_port = 53"]);
        config.policy(["dns", "out", "bypass"], nets, 10, &dns);
        let range = lines(&["protocol = \"tcp\"", "remote_port = \"6000-6010\""]);
        config.policy(["range", "out", "discard"], nets, 20, &range);
        let echo = lines(&["protocol = \"icmp\"", "icmp_type = 8"]);
        config.policy(["echo", "out", "discard"], nets, 30, &echo);
        config.policy(["same-later", "out", "discard"], nets, 100, &[]);
        let frames = [
            (UDP, [9, 53]),
            (UDP, [53, 9]),
            (TCP, [9, 53]),
            (TCP, [9, 6000]),
            (TCP, [9, 6010]),
            (TCP, [9, 6011]),
            (TCP, [9, 5999]),
            (UDP, [9, 6005]),
            (ICMP, [1, 1]),
        ];
        let mut replay = Replay::new(&config)?;
        let frames = (1..).zip(frames).map(|(at, (protocol, ports))| {
            Ok(replay::from_host(at, &packet(protocol, A, B, ports)?))
        });
        let result = replay
            .input("lan0", frames.collect::<Result<Vec<_>>>()?)
            .run()?;
        let expected = [
            ("rest", 5),
            ("dns", 1),
            ("range", 2),
            ("echo", 1),
            ("same-later", 0),
        ];
        let expected: Vec<_> = expected
            .map(|(name, count)| (name.to_owned(), count))
            .into();
        ensure!(
            counted(&result.json) == expected,
            "{}",
            result.json["policies"]
        );
        ensure!(result.dropped("policy_discard") == 3);
        let clear = result
            .wan
            .iter()
            .filter(|frame| frame.protocol() == Some(UDP))
            .count();
        ensure!(
            clear == 1 && result.wan.len() == 6,
            "{} frames left",
            result.wan.len()
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn what_was_opened_must_match_the_policy_of_its_sa() {
    with_scapy("what_was_opened_must_match_the_policy_of_its_sa", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let mut config: Config = replay::network(&[]);
        config.sa(&sas[1], "in");
        let web = lines(&[
            &format!("sa = [\"{}\"]", sas[1].name),
            "protocol = \"tcp\"",
            "local_port = 443",
        ]);
        config.policy(
            ["web", "in", "protect"],
            [LEFT.net[0], RIGHT.net[0]],
            10,
            &web,
        );
        let mut replay = Replay::new(&config)?;
        let cases = [
            (packet(TCP, B, A, [9, 443])?, true),
            (packet(TCP, B, A, [443, 9])?, false),
            (packet(UDP, B, A, [9, 443])?, false),
            (packet(TCP, "10.2.1.2", A, [9, 443])?, false),
            (packet(TCP, B, "10.1.1.2", [9, 443])?, false),
        ];
        let plain: Vec<Frame> = (1..)
            .zip(&cases)
            .map(|(at, (packet, _))| replay::from_peer(at, packet))
            .collect();
        let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
        let result = replay.input("wan0", sealed).run()?;
        let passed = cases.iter().filter(|(_, passes)| *passes).count();
        ensure!(result.lan.len() == passed, "{}", result.json);
        ensure!(
            result.dropped("selector_mismatch") == 4,
            "{}",
            result.json["drops"]
        );
        // The ICV was good and the number new: the SA counts all five.
        ensure!(sa_member(&result.json, &sas[1].name, "packets")? == 5);
        Ok(())
    });
}

#[test]
fn lifetimes_end_where_they_say() {
    let body = || -> Result<()> {
        for (line, passing, state) in [
            ("lifetime = { hard_packets = 3 }", 3, "dead"),
            ("lifetime = { soft_packets = 2 }", 10, "dying"),
            (
                "lifetime = { soft_packets = 2, hard_packets = 10 }",
                10,
                "dead",
            ),
            ("lifetime = { hard_bytes = 100 }", 3, "dead"),
            // A used-up counter is no lifetime: its state is not told here.
            ("sequence = 4294967290", 5, ""),
        ] {
            let mut sas = replay::sas(Family::V4, suite::NULL_SHA256);
            sas[0].extra.push(line.to_owned());
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            // 34 bytes each.
            let sent = packet(UDP, A, B, [1, 2])?;
            let frames = (1..=10).map(|at| replay::from_host(at, &sent)).collect();
            let result = replay.input("lan0", frames).run()?;
            ensure!(
                result.wan.len() == passing,
                "{line}: {} passed",
                result.wan.len()
            );
            let reason = if line.starts_with("seq") {
                "sequence_exhausted"
            } else {
                "sa_expired"
            };
            ensure!(
                result.dropped(reason) == 10 - passing as u64,
                "{line}: {}",
                result.json
            );
            ensure!(
                state.is_empty() || result.json["sas"][0]["state"] == state,
                "{line}: {}",
                result.json["sas"]
            );
        }
        Ok(())
    };
    conclude(body());
}

#[test]
fn lifetimes_in_seconds_follow_the_capture() {
    let body = || -> Result<()> {
        let mut sas = replay::sas(Family::V4, suite::NULL_SHA256);
        sas[0]
            .extra
            .push("lifetime = { hard_seconds = 10 }".to_owned());
        let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
        let sent = packet(UDP, A, B, [1, 2])?;
        let times = [1_000_000, 2_000_000, 10_900_000, 11_100_000, 60_000_000];
        let frames = times.map(|at| replay::from_host(at, &sent)).into();
        let result = replay.input("lan0", frames).run()?;
        ensure!(result.wan.len() == 3, "{} passed", result.wan.len());
        ensure!(
            result.dropped("sa_expired") == 2,
            "{}",
            result.json["drops"]
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn the_machines_own_packets_are_sealed_without_losing_a_hop() {
    with_scapy(
        "the_machines_own_packets_are_sealed_without_losing_a_hop",
        || {
            let sas = replay::sas(Family::V4, suite::AES128GCM16);
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            let own = packet(UDP, LEFT.lan[0], B, [1, 2])?;
            let result = replay
                .input("host", vec![replay::from_host(1, &own)])
                .run()?;
            ensure!(
                result.json["accounting"]["from_host"] == 1,
                "{}",
                result.json["accounting"]
            );
            let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
            ensure!(
                opened.inner.len() == 1 && opened.inner[0].packet() == own,
                "{}",
                opened.report
            );
            // And back: opened packets for the machine go to it as they were sealed.
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            let answer = packet(UDP, B, LEFT.lan[0], [2, 1])?;
            let plain = [replay::from_peer(1, &answer)];
            let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
            let result = replay.input("wan0", sealed).run()?;
            let host = result.host.first().context("nothing went to the machine")?;
            ensure!(
                *host == plain[0],
                "the arriving frame's MACs, the inner packet as it was"
            );
            ensure!(result.json["accounting"]["to_host"] == 1);
            Ok(())
        },
    );
}

/// What came out of one SA and is routed back to the unprotected side crosses the boundary once
/// more: it leaves sealed, or not at all.
#[test]
fn opened_packets_leave_the_unprotected_side_by_the_outbound_policy_alone() {
    const BEYOND: &str = "172.30.0.0/16";
    const NAME: &str = "opened_packets_leave_the_unprotected_side_by_the_outbound_policy_alone";
    with_scapy(NAME, || {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let nets = [BEYOND, RIGHT.net[0]];
        for (action, reason) in [
            ("none", Some("no_policy")),
            ("discard", Some("policy_discard")),
            ("protect", None),
        ] {
            let mut config = replay::network(&[]);
            config.sa(&sas[0], "out").sa(&sas[1], "in");
            config.protect("in", "in", nets, &sas[1].name);
            config.route(BEYOND, "wan0", RIGHT.wan[0]);
            // The same traffic seen by the outbound policy: what is local there came in here.
            let back = [RIGHT.net[0], BEYOND];
            match action {
                "protect" => {
                    config.protect("out", "out", back, &sas[0].name);
                }
                "discard" => {
                    config.policy(["out", "out", "discard"], back, 10, &[]);
                }
                _ => {}
            }
            let mut replay = Replay::new(&config)?;
            let secret = packet(UDP, B, "172.30.0.7", [9, 9])?;
            let plain = [replay::from_peer(1, &secret)];
            let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
            let result = replay.input("wan0", sealed).run()?;
            match reason {
                Some(reason) => {
                    ensure!(result.dropped(reason) == 1, "{action}: {}", result.json);
                    ensure!(result.wan.is_empty(), "{action}: something left");
                }
                None => {
                    let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
                    ensure!(result.wan.len() == 1, "{action}: {}", result.json);
                    ensure!(opened.inner.len() == 1, "{action}: not sealed");
                }
            }
        }
        Ok(())
    });
}

/// Leases and relays in transit take the tunnel; what the machine needs for itself does not.
#[test]
fn built_in_entries_let_nothing_through_that_is_in_transit() {
    let body = || -> Result<()> {
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        let mut config = replay::network(&[]);
        config.sa(&sas[0], "out");
        config.protect("all", "out", ["0.0.0.0/0"; 2], &sas[0].name);
        let frame = |at, from, to, ports| Ok(replay::from_host(at, &packet(UDP, from, to, ports)?));
        let own = LEFT.lan[0];
        let sealed = [
            frame(1, A, B, [68, 67]),
            frame(2, A, B, [67, 67]),
            frame(3, A, B, [500, 500]),
            frame(4, own, B, [67, 67]),
            frame(5, own, B, [4500, 4500]),
        ];
        let kept = [
            frame(6, A, own, [68, 67]),
            frame(7, "0.0.0.0", "255.255.255.255", [68, 67]),
            frame(8, own, A, [67, 68]),
            frame(9, own, B, [500, 9]),
            frame(10, own, B, [9, 500]),
        ];
        let frames = sealed.into_iter().chain(kept).collect::<Result<Vec<_>>>()?;
        let result = Replay::new(&config)?.input("lan0", frames).run()?;
        let sealed = result.wan.iter().map(Frame::protocol);
        let sealed: Vec<_> = sealed.collect();
        ensure!(sealed == [Some(packets::ESP); 5], "{sealed:?}");
        ensure!(result.json["ports"]["lan0"]["to_host_packets"] == 5);
        ensure!(counted(&result.json) == [("all".to_owned(), 5)]);
        Ok(())
    };
    conclude(body());
}
