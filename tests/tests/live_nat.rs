//! Goal: a gateway behind a real NAT keeps its mapping alive by keepalives, and its peer follows it
//! when the mapping changes. Method: the wire between the gateways becomes a router whose kernel
//! masquerades; its outer address is taken from it and replaced, as when a line comes up again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::live;
use xipsec_tests::gateway::Gateway;
use xipsec_tests::netns::Namespace;
use xipsec_tests::shell;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

/// The NAT's inner address, its outer ones one after the other, and the right gateway's.
const INSIDE: [&str; 2] = ["192.0.2.254", "2001:db8:9::fe"];
const OUTSIDE: [[&str; 2]; 2] = [
    ["198.51.100.1", "2001:db8:8::1"],
    ["198.51.100.9", "2001:db8:8::9"],
];
const FAR: [&str; 2] = ["198.51.100.2", "2001:db8:8::2"];

const LIMIT: Duration = Duration::from_secs(10);

/// A network whose wire is a NAT that forgets a silent mapping after two seconds.
fn behind_nat(outer: Family, keepalive_seconds: u32) -> Result<Lab> {
    let at = outer.index();
    let plan = Plan {
        outer,
        tapped: true,
        sa: vec![
            "replay_window = 4096".to_owned(),
            "udp_encapsulation = { source_port = 4500, destination_port = 4500 }".to_owned(),
        ],
        ..Plan::default()
    };
    let mut lab = Lab::new(&plan)?;
    let [wan, peer] = [LEFT.wan[at], RIGHT.wan[at]];
    // The left one is behind the NAT: it keeps the mapping alive, and follows nobody.
    let own =
        format!("follow_peer = false\nkeepalive_seconds = {keepalive_seconds}\nreplay_window");
    rewrite(&lab.left, &[(peer, FAR[at]), ("replay_window", &own)])?;
    // The right one knows the NAT's address, and no port.
    let known = [(wan, OUTSIDE[0][at]), (peer, FAR[at])];
    rewrite(&lab.right, &known)?;

    let wire = lab.wire.as_ref().context("no wire")?;
    wire.ip("link del wire")?;
    let forwards = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"][at];
    wire.sysctl(forwards, "1")?;
    let length = [24, 64][at];
    for (name, address) in [("wa", INSIDE[at]), ("wb", OUTSIDE[0][at])] {
        let end = End::new(wire, name);
        end.ipv6(outer == Family::V6)?;
        end.address(&format!("{address}/{length}"))?;
    }
    masquerade(wire, outer)?;
    End::new(&lab.gate_b, "wan0").address(&format!("{}/{length}", FAR[at]))?;
    let flag = ["", "-6 "][at];
    let route = format!("{flag}route add {} via {}", FAR[at], INSIDE[at]);
    lab.gate_a.ip(&route)?;
    lab.start()?;
    Ok(lab)
}

fn masquerade(wire: &Namespace, family: Family) -> Result<()> {
    let kind = ["ip", "ip6"][family.index()];
    let rules = [
        format!("add table {kind} nat"),
        format!("add chain {kind} nat out {{ type nat hook postrouting priority 100 ; }}"),
        // Ports that nobody configured.
        format!(
            "add rule {kind} nat out oifname wb meta l4proto udp masquerade to :20000-29999 random"
        ),
    ];
    for rule in rules {
        wire.run(&format!("nft {rule}"))?;
    }
    for key in [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
    ] {
        wire.sysctl(&format!("net.netfilter.{key}"), "2")?;
    }
    Ok(())
}

/// Replaces words of a gateway's configuration.
fn rewrite(gateway: &Gateway, words: &[(&str, &str)]) -> Result<()> {
    let mut text = std::fs::read_to_string(gateway.config())?;
    for (from, to) in words {
        text = text.replace(from, to);
    }
    Ok(std::fs::write(gateway.config(), text)?)
}

/// The line of an SA in `sa list`.
fn listed(gateway: &Gateway, name: &str) -> Result<Value> {
    let rows = gateway.ask_json(&["sa", "list"])?;
    let rows = rows.as_array().context("no rows")?;
    let row = rows.iter().find(|row| row["name"] == name);
    row.cloned().with_context(|| format!("no SA {name}"))
}

/// Where the right gateway sends to.
fn known_place(lab: &Lab) -> Result<(String, u64)> {
    let row = listed(&lab.right, "right-to-left")?;
    let address = row["destination"].as_str().context("no destination")?;
    let port = row["destination_port"].as_u64().context("no port")?;
    Ok((address.to_owned(), port))
}

//= test T136 (RFC 3948 sections 2.3, 4)
//= test T160
#[test]
fn a_gateway_behind_a_nat_stays_reachable_and_is_followed() {
    live(
        "a_gateway_behind_a_nat_stays_reachable_and_is_followed",
        || {
            for outer in [Family::V4, Family::V6] {
                let lab = behind_nat(outer, 1)?;
                let done = stays_reachable(&lab, outer).with_context(|| format!("{outer:?}"));
                lab.explain(done)?;
                lab.check_accounting()?;
            }
            Ok(())
        },
    );
}

fn stays_reachable(lab: &Lab, outer: Family) -> Result<()> {
    let at = outer.index();
    let (from_a, from_b) = (RIGHT.host[0], LEFT.host[0]);
    // Nobody knows the port of the NAT before the left one has sent.
    ensure!(!lab.host_b.pings(from_b), "reached before it sent");
    lab.host_a.wait_for_ping(from_a, LIMIT)?;
    let (address, port) = known_place(lab)?;
    ensure!(
        address == OUTSIDE[0][at] && (20_000..30_000).contains(&port),
        "{address} {port}"
    );

    // Nothing but keepalives for longer than the NAT remembers.
    std::thread::sleep(Duration::from_secs(4));
    ensure!(lab.host_b.pings(from_b), "the mapping is gone");
    ensure!(
        known_place(lab)? == (address, port),
        "the mapping is another one"
    );
    let sent = lab.left.stats()?["accounting"]["created"].as_u64();
    let swallowed = lab.right.stats()?["consumed"]["keepalive"].as_u64();
    ensure!(
        sent >= Some(3) && swallowed >= Some(2),
        "{sent:?} sent, {swallowed:?} swallowed"
    );

    // The line comes up again with another address: all mappings are gone.
    let wire = lab.wire.as_ref().context("no wire")?;
    let length = [24, 64][at];
    wire.ip(&format!("addr del {}/{length} dev wb", OUTSIDE[0][at]))?;
    End::new(wire, "wb").address(&format!("{}/{length}", OUTSIDE[1][at]))?;
    ensure!(!lab.host_b.pings(from_b), "reached where it is not");
    lab.host_a.wait_for_ping(from_a, LIMIT)?;
    ensure!(lab.host_b.pings(from_b), "not reached where it is");
    let (address, port) = known_place(lab)?;
    ensure!(
        address == OUTSIDE[1][at] && (20_000..30_000).contains(&port),
        "{address} {port}"
    );
    let inbound = listed(&lab.right, "left-to-right")?;
    ensure!(
        inbound["source"] == OUTSIDE[1][at] && inbound["peer_moves"] == 2,
        "{inbound}"
    );
    let log = lab.right.log();
    let moves = log
        .lines()
        .filter(|line| line.contains("sa left-to-right: peer moved from "));
    ensure!(moves.count() == 2, "{log}");
    // Its keepalives are known from there, too.
    let before = lab.right.stats()?["consumed"]["keepalive"].as_u64();
    shell::wait_until("a keepalive from the new place", LIMIT, || {
        Ok(lab.right.stats()?["consumed"]["keepalive"].as_u64() > before)
    })
}

/// The same network without keepalives: what they are for.
#[test]
fn without_keepalives_a_nat_forgets() {
    live("without_keepalives_a_nat_forgets", || {
        let lab = behind_nat(Family::V4, 0)?;
        lab.explain(lab.host_a.wait_for_ping(RIGHT.host[0], LIMIT))?;
        std::thread::sleep(Duration::from_secs(4));
        ensure!(!lab.host_b.pings(LEFT.host[0]), "reached without a mapping");
        ensure!(lab.left.stats()?["accounting"]["created"] == 0);
        lab.check_accounting()
    });
}
