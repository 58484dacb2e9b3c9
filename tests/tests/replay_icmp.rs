//! Goal: senders are told by ICMP when a packet is too long or its hops are used up, from the right
//! address, with the right figures, quoting what they sent, and never about what must draw no
//! answer. Method: `replay`, the answers taken apart byte by byte.

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{conclude, with_scapy};
use xipsec_tests::packets::{self, DONT_FRAGMENT, Frame, ICMP, ICMPV6, IpFields, UDP, checksum};
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::{peer, suite};

/// The largest inner packet that AES-GCM in an IPv4 tunnel leaves of 1500.
const LARGEST_INNER: u16 = 1446;

fn udp(hosts: [&str; 2], fields: IpFields, size: usize) -> Result<Vec<u8>> {
    let payload = packets::udp(hosts[0], hosts[1], [4000, 5000], &vec![0x5c; size])?;
    packets::ip(hosts[0], hosts[1], UDP, fields, &payload)
}

fn run(packets: &[Vec<u8>]) -> Result<Replayed> {
    let sas = replay::sas(Family::V4, suite::AES128GCM16);
    let mut config = replay::tunnel(&sas, &[]);
    // What goes to the links themselves, in the clear.
    for (name, remote) in [("to-wan", "192.0.2.0/24"), ("to-lan", "10.1.0.0/24")] {
        config.policy([name, "out", "bypass"], [LEFT.net[0], remote], 200, &[]);
    }
    let mut replay = Replay::new(&config)?;
    let frames = (1..)
        .zip(packets)
        .map(|(at, packet)| replay::from_host(at, packet));
    replay.input("lan0", frames.collect()).run()
}

/// Type and code, the 32 bits behind the checksum, and what is quoted, of an ICMP error from
/// `source` to the left host.
fn taken_apart<'a>(
    frame: &'a Frame,
    family: Family,
    source: &str,
) -> Result<([u8; 2], u32, &'a [u8])> {
    let packet = frame.packet();
    let (from, to) = frame.addresses().context("no IP packet")?;
    ensure!(from.to_string() == source, "from {from}");
    ensure!(to.to_string() == LEFT.host[family.index()], "to {to}");
    let (header, protocol, hops) = match family {
        Family::V4 => (20, ICMP, packet[8]),
        Family::V6 => (40, ICMPV6, packet[7]),
    };
    ensure!(
        frame.protocol() == Some(protocol) && hops == 64,
        "hop limit {hops}"
    );
    let message = &packet[header..];
    let pseudo = match family {
        Family::V4 => 0,
        Family::V6 => packets::pseudo_sum(from, to, ICMPV6, message.len()),
    };
    ensure!(checksum(pseudo, message) == 0, "the ICMP checksum is wrong");
    let word = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
    Ok(([message[0], message[1]], word, &message[8..]))
}

#[test]
fn time_exceeded() {
    let body = || -> Result<()> {
        for (family, kind) in [(Family::V4, [11, 0]), (Family::V6, [3, 0])] {
            let fields = IpFields {
                hop_limit: 1,
                ..IpFields::default()
            };
            let sent = udp(replay::hosts(&LEFT, &RIGHT, family), fields, 1200)?;
            let result = run(std::slice::from_ref(&sent))?;
            ensure!(
                result.wan.is_empty() && result.lan.len() == 1,
                "{}",
                result.json
            );
            ensure!(result.lan[0].bytes[..12] == replay::to_host(0, &[]).bytes[..12]);
            let (found, word, quote) =
                taken_apart(&result.lan[0], family, LEFT.lan[family.index()])?;
            ensure!(found == kind && word == 0, "{found:?}");
            // At most 576 or 1280 bytes in all, headers included.
            let room = if family == Family::V4 {
                576 - 28
            } else {
                1280 - 48
            };
            ensure!(
                quote == &sent[..sent.len().min(room)],
                "{} bytes quoted",
                quote.len()
            );
            ensure!(result.json["accounting"]["created"] == 1);
        }
        Ok(())
    };
    conclude(body());
}

#[test]
fn too_big() {
    let body = || -> Result<()> {
        let df = IpFields {
            fragment: DONT_FRAGMENT,
            ..IpFields::default()
        };
        for (family, kind) in [(Family::V4, [3, 4]), (Family::V6, [2, 0])] {
            let header = if family == Family::V4 { 28 } else { 48 };
            let hosts = replay::hosts(&LEFT, &RIGHT, family);
            let fits = udp(hosts, df, usize::from(LARGEST_INNER) - header)?;
            let sent = udp(hosts, df, usize::from(LARGEST_INNER) - header + 1)?;
            let result = run(&[fits, sent.clone()])?;
            ensure!(
                result.wan.len() == 1 && result.dropped("too_big") == 1,
                "{}",
                result.json
            );
            let (found, word, quote) =
                taken_apart(&result.lan[0], family, LEFT.lan[family.index()])?;
            ensure!(
                found == kind && word == u32::from(LARGEST_INNER),
                "{found:?}, {word}"
            );
            ensure!(sent.starts_with(quote) && quote.len() >= 500);
        }
        Ok(())
    };
    conclude(body());
}

/// The left gateway with a tunnel for one remote network, a discard policy for another, and a peer
/// that no route leads to; `on` switches the answers on.
fn unreachable(family: Family, on: bool) -> Result<Replay> {
    let at = family.index();
    let line = format!("icmp = {{ send_unreachable = {on} }}");
    let mut sas = replay::sas(Family::V4, suite::AES128GCM16);
    sas[0].destination = "198.51.100.2".to_owned();
    let mut config = replay::network(&[line]);
    config.sa(&sas[0], "out");
    let [discarded, protected] = [RIGHT.net[at], ["10.9.0.0/16", "2001:db8:9::/64"][at]];
    let names = ["discarded", "out", "discard"];
    config.policy(names, [LEFT.net[at], discarded], 100, &[]);
    config.protect("protected", "out", [LEFT.net[at], protected], &sas[0].name);
    Replay::new(&config)
}

//= test T118
#[test]
fn senders_are_told_what_policy_discards_and_no_route_reaches() {
    let body = || -> Result<()> {
        for (family, prohibited, unreachable_peer) in
            [(Family::V4, [3, 13], [3, 1]), (Family::V6, [1, 1], [1, 3])]
        {
            let at = family.index();
            let host = LEFT.host[at];
            let fields = IpFields::default();
            let cases = [
                (RIGHT.host[at], "policy_discard", prohibited),
                (["10.8.0.2", "2001:db8:8::2"][at], "no_policy", prohibited),
                (
                    ["10.9.0.2", "2001:db8:9::2"][at],
                    "no_route",
                    unreachable_peer,
                ),
            ];
            for (remote, reason, told) in cases {
                let sent = udp([host, remote], fields, 100)?;
                for on in [false, true] {
                    let mut replay = unreachable(family, on)?;
                    let frames = vec![replay::from_host(1, &sent)];
                    let result = replay.input("lan0", frames).run()?;
                    ensure!(result.dropped(reason) == 1, "{}", result.json["drops"]);
                    ensure!(result.wan.is_empty() && result.lan.len() == usize::from(on));
                    ensure!(result.json["accounting"]["created"] == u64::from(on));
                    if on {
                        let (found, word, quote) =
                            taken_apart(&result.lan[0], family, LEFT.lan[at])?;
                        ensure!(found == told && word == 0, "{reason}: {found:?}");
                        ensure!(quote == sent, "{} bytes quoted", quote.len());
                    }
                }
            }
        }
        Ok(())
    };
    conclude(body());
}

//= test T118
#[test]
fn answers_about_policy_keep_the_rules_and_the_rate_of_all_errors() {
    let body = || -> Result<()> {
        let [a, b] = replay::hosts(&LEFT, &RIGHT, Family::V4);
        let plain = IpFields::default();
        let error = [
            &[3, 1, 0xfc, 0xfe, 0, 0, 0, 0][..],
            &udp([a, b], plain, 10)?[..28],
        ]
        .concat();
        let later = IpFields {
            fragment: 10,
            ..plain
        };
        let quiet = [
            packets::ip(a, b, ICMP, plain, &error)?,
            packets::ip(a, b, UDP, later, &[0; 32])?,
            udp(["10.1.0.255", b], plain, 10)?,
        ];
        let frames = (1..).zip(&quiet).map(|(at, it)| replay::from_host(at, it));
        let mut replay = unreachable(Family::V4, true)?;
        let result = replay.input("lan0", frames.collect()).run()?;
        ensure!(
            result.dropped("policy_discard") == 3,
            "{}",
            result.json["drops"]
        );
        ensure!(result.lan.is_empty(), "an answer to what draws none");
        // What the machine itself sends it hears back.
        let own = udp(["10.1.0.1", b], plain, 10)?;
        let mut replay = unreachable(Family::V4, true)?;
        let result = replay
            .input("host", vec![replay::from_host(1, &own)])
            .run()?;
        ensure!(
            result.dropped("policy_discard") == 1,
            "{}",
            result.json["drops"]
        );
        ensure!(result.host.len() == 1 && result.host[0].packet()[20..22] == [3, 13]);
        // 2000 packets within 2 milliseconds.
        let sent = udp([a, b], plain, 10)?;
        let frames = (1..2001).map(|at| replay::from_host(at, &sent));
        let mut replay = unreachable(Family::V4, true)?;
        let result = replay.input("lan0", frames.collect()).run()?;
        ensure!(result.dropped("policy_discard") == 2000);
        let answers = result.lan.len();
        ensure!((10..=200).contains(&answers), "{answers} answers");
        ensure!(result.json["accounting"]["created"] == answers);
        Ok(())
    };
    conclude(body());
}

#[test]
fn what_must_draw_no_answer_draws_none() {
    let body = || -> Result<()> {
        let hops = |hop_limit| IpFields {
            hop_limit,
            ..IpFields::default()
        };
        let [a, b] = replay::hosts(&LEFT, &RIGHT, Family::V4);
        let error = [
            &[3, 1, 0xfc, 0xfe, 0, 0, 0, 0][..],
            &udp([a, b], hops(9), 10)?[..28],
        ]
        .concat();
        let redirect = [&[5, 1, 0, 0, 10, 1, 0, 1][..], &[0; 28]].concat();
        let later = IpFields {
            fragment: 10,
            ..hops(1)
        };
        // The broadcast addresses of our own subnets, as destination and as source.
        let [wan, lan] = ["192.0.2.255", "10.1.0.255"];
        let broadcast = udp([a, lan], hops(1), 10)?;
        let forged = packets::udp(lan, b, [4000, 5000], &[0; 10])?;
        let packets = [
            packets::ip(a, b, ICMP, hops(1), &error)?,
            packets::ip(a, b, ICMP, hops(1), &redirect)?,
            packets::ip(a, b, UDP, later, &[0; 32])?,
            broadcast,
            udp([a, wan], hops(1), 10)?,
            packets::ip(lan, b, UDP, hops(1), &forged)?,
        ];
        let result = run(&packets)?;
        ensure!(result.dropped("hop_limit") == 6, "{}", result.json["drops"]);
        ensure!(
            result.lan.is_empty() && result.wan.is_empty(),
            "an answer to what draws none"
        );
        // An error that is refused was never created.
        ensure!(result.json["accounting"]["created"] == 0);
        Ok(())
    };
    conclude(body());
}

#[test]
fn answers_are_limited() {
    let body = || -> Result<()> {
        let fields = IpFields {
            hop_limit: 1,
            ..IpFields::default()
        };
        let sent = udp(replay::hosts(&LEFT, &RIGHT, Family::V4), fields, 10)?;
        // 2000 packets within 2 milliseconds.
        let result = run(&vec![sent; 2000])?;
        ensure!(result.dropped("hop_limit") == 2000);
        let answers = result.lan.len();
        ensure!((10..=200).contains(&answers), "{answers} answers");
        ensure!(result.json["accounting"]["created"] == answers);
        Ok(())
    };
    conclude(body());
}

#[test]
fn answers_about_opened_packets_go_back_through_the_tunnel() {
    with_scapy(
        "answers_about_opened_packets_go_back_through_the_tunnel",
        || {
            for (family, kind) in [(Family::V4, 11), (Family::V6, 3)] {
                let sas = replay::sas(Family::V4, suite::AES128GCM16);
                let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
                let fields = IpFields {
                    hop_limit: 1,
                    ..IpFields::default()
                };
                let inner = udp(replay::hosts(&RIGHT, &LEFT, family), fields, 30)?;
                let plain = [replay::from_peer(1, &inner)];
                let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
                let result = replay.input("wan0", sealed).run()?;
                ensure!(
                    result.dropped("hop_limit") == 1 && result.wan.len() == 1,
                    "{}",
                    result.json
                );
                let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
                ensure!(opened.inner.len() == 1, "{}", opened.report);
                let (from, to) = opened.inner[0].addresses().context("no IP packet")?;
                let at = family.index();
                ensure!(
                    from.to_string() == LEFT.lan[at] && to.to_string() == RIGHT.host[at],
                    "{from}"
                );
                let header = if family == Family::V4 { 20 } else { 40 };
                let message = &opened.inner[0].packet()[header..];
                ensure!(message[0] == kind && message[8..] == inner, "{message:?}");
            }
            Ok(())
        },
    );
}

#[test]
fn long_packets_without_df_are_cut_before_sealing() {
    with_scapy("long_packets_without_df_are_cut_before_sealing", || {
        let sas = replay::sas(Family::V4, suite::AES128GCM16);
        let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
        let sent = udp(
            replay::hosts(&LEFT, &RIGHT, Family::V4),
            IpFields::default(),
            1472,
        )?;
        let result = replay
            .input("lan0", vec![replay::from_host(1, &sent)])
            .run()?;
        ensure!(result.wan.len() == 2, "{}", result.json);
        ensure!(result.wan.iter().all(|frame| frame.packet().len() <= 1500));
        ensure!(
            result.json["accounting"]["created"] == 1,
            "the second fragment is created"
        );
        let opened = peer::open(&sas[..1], &replay.file("out-wan0.pcap"))?;
        let mut whole = vec![0; sent.len() - 20];
        let (mut covered, mut last) = (0, 0);
        for frame in &opened.inner {
            let packet = frame.packet();
            ensure!(
                checksum(0, &packet[..20]) == 0,
                "the fragment's header checksum"
            );
            ensure!(
                packet[8] == 63 && packet[4..6] == sent[4..6],
                "hop limit, identification"
            );
            let field = u16::from_be_bytes([packet[6], packet[7]]);
            let (offset, data) = (usize::from(field & 0x1fff) * 8, &packet[20..]);
            whole[offset..offset + data.len()].copy_from_slice(data);
            covered += data.len();
            last += usize::from(field & packets::MORE_FRAGMENTS == 0);
        }
        ensure!(
            covered == whole.len() && last == 1 && whole == sent[20..],
            "the pieces differ"
        );
        Ok(())
    });
}
