//! Goal: an SA's life ends where its limits say, in both directions, and is told as it is at the
//! end of the capture. Method: `replay` over packets at chosen times.

use anyhow::{Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{conclude, sa_member, with_scapy};
use xipsec_tests::packets::{self, Frame, ICMP, IpFields};
use xipsec_tests::replay::{self, Replay, Replayed};
use xipsec_tests::{peer, suite};

/// Replays echoes of 34 bytes from the left host at these seconds under a lifetime.
fn outbound(lifetime: &str, seconds: &[u64]) -> Result<Replayed> {
    let mut sas = replay::sas(Family::V4, suite::NULL_SHA256);
    sas[0].extra.push(format!("lifetime = {{ {lifetime} }}"));
    let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
    let [from, to] = replay::hosts(&LEFT, &RIGHT, Family::V4);
    let packet = packets::ip(
        from,
        to,
        ICMP,
        IpFields::default(),
        &packets::echo(1, 1, b"living"),
    )?;
    let frames = seconds
        .iter()
        .map(|at| replay::from_host(at * 1_000_000, &packet));
    replay.input("lan0", frames.collect());
    replay.run()
}

/// How many must pass, and the state at the end.
fn lives(lifetime: &str, seconds: &[u64], passing: usize, state: &str) -> Result<()> {
    let result = outbound(lifetime, seconds)?;
    let told = &result.json["sas"][0];
    ensure!(
        result.wan.len() == passing && told["state"] == state,
        "{lifetime} at {seconds:?}: {} passed, {told}",
        result.wan.len()
    );
    let refused = u64::try_from(seconds.len() - passing)?;
    ensure!(
        result.dropped("sa_expired") == refused,
        "{lifetime}: {}",
        result.json["drops"]
    );
    Ok(())
}

#[test]
fn every_limit_holds_at_its_boundary() {
    let body = || -> Result<()> {
        let at_once = [0; 6];
        lives("soft_packets = 7", &at_once, 6, "mature")?;
        lives("soft_packets = 6", &at_once, 6, "dying")?;
        lives("hard_packets = 7", &at_once, 6, "mature")?;
        lives("hard_packets = 6", &at_once, 6, "dead")?;
        lives("hard_packets = 5", &at_once, 5, "dead")?;
        // 34 bytes each: 204 in all. The packet that reaches the limit still passes.
        lives("soft_bytes = 205", &at_once, 6, "mature")?;
        lives("soft_bytes = 204", &at_once, 6, "dying")?;
        lives("hard_bytes = 205", &at_once, 6, "mature")?;
        lives("hard_bytes = 171", &at_once, 6, "dead")?;
        lives("hard_bytes = 170", &at_once, 5, "dead")?;
        lives("soft_packets = 2, hard_bytes = 100", &at_once, 3, "dead")
    };
    conclude(body());
}

#[test]
fn age_is_that_at_the_end_of_the_capture() {
    let body = || -> Result<()> {
        let seconds = "soft_seconds = 5, hard_seconds = 9";
        lives(seconds, &[0, 4], 2, "mature")?;
        lives(seconds, &[0, 5], 2, "dying")?;
        lives(seconds, &[0, 8], 2, "dying")?;
        lives(seconds, &[0, 8, 9], 2, "dead")?;
        // The inbound SA sees no packet at all and ages all the same.
        let mut sas = replay::sas(Family::V4, suite::NULL_SHA256);
        sas[1].extra.push(format!("lifetime = {{ {seconds} }}"));
        for (last, state) in [(4, "mature"), (5, "dying"), (9, "dead")] {
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            let other = packets::ip("10.1.0.2", "10.9.9.9", 99, IpFields::default(), b"other")?;
            let frames = [0, last].map(|at| replay::from_host(at * 1_000_000, &other));
            let result = replay.input("lan0", frames.into()).run()?;
            ensure!(
                result.json["sas"][1]["state"] == state,
                "{last} s: {}",
                result.json["sas"]
            );
        }
        Ok(())
    };
    conclude(body());
}

#[test]
fn the_newest_alternative_that_lives_sends() {
    let body = || -> Result<()> {
        let [old, back] = replay::sas(Family::V4, suite::NULL_SHA256);
        let mut new = Sa::fixed(0x1003, &LEFT, &RIGHT, Family::V4, suite::NULL_SHA256);
        new.name = "newer".to_owned();
        new.extra.push("lifetime = { hard_packets = 2 }".to_owned());
        let mut config = replay::network(&[]);
        config.sa(&old, "out").sa(&new, "out").sa(&back, "in");
        let uses = format!("sa = [\"{}\"]\nalternatives = [[\"newer\"]]", old.name);
        let nets = [LEFT.net[0], RIGHT.net[0]];
        config.policy(["to", "out", "protect"], nets, 100, &[uses]);
        let [from, to] = replay::hosts(&LEFT, &RIGHT, Family::V4);
        let message = packets::echo(1, 1, b"living");
        let packet = packets::ip(from, to, ICMP, IpFields::default(), &message)?;
        let frames = (0..5).map(|at| replay::from_host(at, &packet)).collect();
        let mut replay = Replay::new(&config)?;
        let result = replay.input("lan0", frames).run()?;
        let spi = |frame: &Frame| frame.packet().get(20..24).map(<[u8]>::to_vec);
        let spis: Vec<_> = result.wan.iter().filter_map(spi).collect();
        let [old_spi, new_spi] = [old.spi, new.spi].map(|spi| spi.to_be_bytes().to_vec());
        ensure!(
            spis == [&new_spi, &new_spi, &old_spi, &old_spi, &old_spi].map(Clone::clone),
            "{spis:?}: {}",
            result.json
        );
        ensure!(result.json["sas"][1]["state"] == "dead");
        Ok(())
    };
    conclude(body());
}

#[test]
fn an_inbound_life_ends_like_an_outbound_one() {
    with_scapy("an_inbound_life_ends_like_an_outbound_one", || {
        for (limit, passing) in [("hard_packets = 3", 3), ("hard_bytes = 69", 3)] {
            let mut sas = replay::sas(Family::V4, suite::NULL_SHA256);
            sas[1].extra.push(format!("lifetime = {{ {limit} }}"));
            let mut replay = Replay::new(&replay::tunnel(&sas, &[]))?;
            let [from, to] = replay::hosts(&RIGHT, &LEFT, Family::V4);
            let message = packets::echo(1, 1, b"living");
            let packet = packets::ip(from, to, ICMP, IpFields::default(), &message)?;
            let plain: Vec<Frame> = (0..5).map(|at| replay::from_peer(at, &packet)).collect();
            let sealed = peer::seal(&sas[1], 1, &plain, replay.directory())?;
            let result = replay.input("wan0", sealed).run()?;
            ensure!(result.lan.len() == passing, "{limit}: {}", result.lan.len());
            ensure!(
                result.dropped("sa_expired") == 2,
                "{}",
                result.json["drops"]
            );
            ensure!(result.json["sas"][1]["state"] == "dead");
            ensure!(sa_member(&result.json, &sas[1].name, "packets")? == passing as u64);
        }
        Ok(())
    });
}
