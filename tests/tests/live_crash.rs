//! Goal: a gateway that stops, crashes or starts never lets protected traffic out in the clear,
//! never cuts the machine off, and never uses a (key, IV) pair twice. Method: real traffic and a
//! capture of the middle wire through all of it; kernels that would forward in the clear.

use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xipsec_tests::capture::Capture;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::live;
use xipsec_tests::packets::{self, Frame};
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::{iperf, peer, shell};

/// Whether both addresses lie inside the protected prefixes: such a packet must not be on the wire.
fn is_protected(frame: &Frame) -> bool {
    let inside = |address: std::net::IpAddr| {
        let text = address.to_string();
        ["10.1.0.", "10.2.0.", "fd00:1:", "fd00:2:"]
            .iter()
            .any(|net| text.starts_with(net))
    };
    frame
        .addresses()
        .is_some_and(|(source, destination)| inside(source) && inside(destination))
}

/// A TCP session between hostA and its gateway; ended when dropped.
struct Session {
    server: Child,
    client: Option<Child>,
}

impl Session {
    fn start(lab: &Lab, seconds: u32) -> Result<Self> {
        let mut server = peer::command(&lab.gate_a, "session.py");
        let server = server.args(["serve", LEFT.lan[0]]).spawn()?;
        let mut session = Self {
            server,
            client: None,
        };
        shell::wait_until("the session's server", Duration::from_secs(5), || {
            Ok(lab
                .gate_a
                .run("ss -H -l -t -n sport = :2222")?
                .contains("2222"))
        })?;
        let mut client = peer::command(&lab.host_a, "session.py");
        client.args(["talk", LEFT.lan[0], &seconds.to_string()]);
        let client = client.stdout(Stdio::piped()).stderr(Stdio::piped());
        session.client = Some(client.spawn()?);
        Ok(session)
    }

    /// Waits for the session's end and returns the number of lines that were answered.
    fn lines(mut self) -> Result<u32> {
        let output = self
            .client
            .take()
            .context("no client")?
            .wait_with_output()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the session broke: {errors}");
        let text = String::from_utf8(output.stdout)?;
        Ok(text
            .split_whitespace()
            .next()
            .context("no figures")?
            .parse()?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in self.client.iter_mut().chain([&mut self.server]) {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn stays_reachable(lab: &Lab) -> Result<()> {
    lab.host_a
        .run(&format!("arping -q -c 2 -w 3 -I eth0 {}", LEFT.lan[0]))
        .context("ARP")?;
    let ping = format!("ping -n -q -c 5 -i 0.05 -W 1 {}", LEFT.lan[0]);
    lab.host_a
        .run(&ping)
        .context("ping to the gateway")
        .map(drop)
}

#[test]
fn a_crash_under_load_leaks_nothing_and_repeats_nothing() {
    live(
        "a_crash_under_load_leaks_nothing_and_repeats_nothing",
        || {
            let mut lab = Lab::connected(&Plan {
                tapped: true,
                ..Plan::default()
            })?;
            let file = lab.directory().join("crash.pcap");
            let tap = lab.wire.as_ref().context("the plan has a tap")?;
            let capture = Capture::start(tap, "wa", "", &file)?;
            let server = iperf::Server::start(&lab.host_b)?;
            let session = Session::start(&lab, 12)?;
            let mut load = iperf::client(&lab.host_a, RIGHT.host[0], "-u -b 8M -l 400 -t 12");
            let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            sleep(Duration::from_secs(2));
            lab.left.crash()?;
            stays_reachable(&lab).context("while the gateway is down")?;
            sleep(Duration::from_secs(1));
            // A start takes over what the crash left: socket, guard, rules, TUN.
            lab.left.start().context("the start after the crash")?;
            stays_reachable(&lab).context("after the start")?;
            // Of the peer's numbers about one second's worth counts as seen after a crash: the
            // burst of the load's start, which a slow sender takes longer to get past.
            lab.host_a
                .run("ping -n -q -c 150 -i 0.02 -W 1 10.2.0.2")
                .ok();
            lab.wait_connected(Family::V4)?;
            load.wait()?;
            let lines = session.lines()?;
            ensure!(lines > 100, "only {lines} lines were answered");
            drop(server);
            let frames = capture.stop()?;
            let clear = frames.iter().filter(|frame| is_protected(frame)).count();
            ensure!(clear == 0, "{clear} protected packets in the clear");
            let opened = peer::open(&lab.sas, &file)?;
            ensure!(opened.count("esp") > 1000, "{}", opened.report);
            ensure!(
                opened.count("repeated") == 0,
                "a (key, IV) pair came twice: {}",
                opened.report
            );
            ensure!(opened.count("failed") == 0, "{}", opened.report);
            lab.check_accounting()
        },
    );
}

#[test]
fn a_start_under_load_leaks_nothing_once_the_guard_stands() {
    live(
        "a_start_under_load_leaks_nothing_once_the_guard_stands",
        || {
            let mut lab = Lab::new(&Plan {
                tapped: true,
                ..Plan::default()
            })?;
            lab.wait_connected(Family::V4)
                .context("in the clear, by the kernels")?;
            let tap = lab.wire.as_ref().context("the plan has a tap")?;
            let capture = Capture::start(tap, "wa", "", &lab.directory().join("start.pcap"))?;
            let mut load = lab.host_a.command("ping");
            load.args(["-n", "-q", "-i", "0.002", "-c", "3000", RIGHT.host[0]]);
            let mut load = load.stdout(Stdio::null()).spawn()?;
            for gateway in [&mut lab.left, &mut lab.right] {
                gateway.init_state()?;
                gateway.spawn()?;
            }
            shell::wait_until("both guards", Duration::from_secs(20), || {
                let stands = |gate: &xipsec_tests::netns::Namespace| {
                    gate.run("nft list table inet xipsec").is_ok()
                };
                Ok(stands(&lab.gate_a) && stands(&lab.gate_b))
            })?;
            let guarded = SystemTime::now().duration_since(UNIX_EPOCH)?;
            lab.left.wait_ready()?;
            lab.right.wait_ready()?;
            lab.wait_connected(Family::V4)?;
            load.wait()?;
            let frames = capture.stop()?;
            let before = frames
                .iter()
                .filter(|frame| frame.time < guarded && is_protected(frame));
            ensure!(before.count() > 0, "no traffic flowed before the start");
            let after = frames
                .iter()
                .filter(|frame| frame.time > guarded && is_protected(frame));
            ensure!(
                after.count() == 0,
                "protected packets in the clear behind the guard"
            );
            ensure!(
                frames
                    .iter()
                    .any(|frame| frame.protocol() == Some(packets::ESP))
            );
            Ok(())
        },
    );
}

//= test T38
#[test]
fn a_restart_goes_on_where_the_numbers_ended() {
    live("a_restart_goes_on_where_the_numbers_ended", || {
        let mut lab = Lab::connected(&Plan {
            tapped: true,
            ..Plan::default()
        })?;
        let file = lab.directory().join("restart.pcap");
        let tap = lab.wire.as_ref().context("the plan has a tap")?;
        let capture = Capture::start(tap, "wa", "", &file)?;
        for _ in 0..3 {
            lab.host_a.run("ping -n -q -c 20 -i 0.01 10.2.0.2")?;
            lab.left.stop()?;
            ensure!(
                lab.left.ask(&["status"]).is_err(),
                "status of a stopped gateway"
            );
            lab.left.start()?;
            lab.wait_connected(Family::V4)?;
        }
        lab.host_b.run("ping -n -q -c 20 -i 0.01 10.1.0.2")?;
        let frames = capture.stop()?;
        let opened = peer::open(&lab.sas, &file)?;
        for key in ["repeated", "failed", "disorder"] {
            ensure!(opened.count(key) == 0, "{key}: {}", opened.report);
        }
        // A clean stop of one gateway opens its kernel's own path, as removing the guard says; the
        // far gateway must still refuse what comes out of it.
        let from_left = |frame: &&Frame| {
            frame
                .addresses()
                .is_some_and(|(source, _)| source.to_string() == RIGHT.host[0])
        };
        let answered = frames
            .iter()
            .filter(from_left)
            .filter(|frame| is_protected(frame));
        ensure!(
            answered.count() == 0,
            "the right side answered in the clear"
        );
        lab.check_accounting()
    });
}

#[test]
fn lost_state_is_refused_not_ignored() {
    live("lost_state_is_refused_not_ignored", || {
        let mut lab = Lab::connected(&Plan::default())?;
        lab.left.stop()?;
        let state = lab.left.config().with_file_name("state");
        std::fs::remove_dir_all(&state)?;
        std::fs::create_dir(&state)?;
        let refused = lab.left.start();
        ensure!(
            refused.is_err(),
            "a counter-mode key ran without its record"
        );
        ensure!(lab.left.log().contains("state init"), "{}", lab.left.log());
        Ok(())
    });
}

//= test T57
#[test]
fn lifetimes_go_on_over_a_stop_and_a_crash_and_are_told_once() {
    live(
        "lifetimes_go_on_over_a_stop_and_a_crash_and_are_told_once",
        || {
            let lifetime = "lifetime = { soft_packets = 20, soft_seconds = 4 }";
            let mut lab = Lab::connected(&Plan {
                sa: vec![lifetime.to_owned()],
                ..Plan::default()
            })?;
            let line = |key: &str| format!("warning: sa left-to-right: dying, {key} is reached");
            let told = |lab: &Lab, key: &str| lab.left.log().matches(&line(key)).count();
            let life = |lab: &Lab| -> Result<(Value, u64, u64)> {
                let list = lab.left.ask_json(&["sa", "list"])?;
                let row = &list[0];
                let number = |key: &str| row[key].as_u64().context("no number");
                let packets = number("lifetime_packets")?;
                Ok((row["state"].clone(), number("packets")?, packets))
            };
            lab.host_a.run("ping -n -q -c 20 -i 0.02 10.2.0.2")?;
            // Nothing is sent any more: age alone brings the second line.
            shell::wait_until("the second limit", Duration::from_secs(20), || {
                Ok(told(&lab, "soft_seconds 4") == 1)
            })?;
            let (state, sent, counted) = life(&lab)?;
            ensure!(
                state == "dying" && sent == counted,
                "{state} {sent} {counted}"
            );
            sleep(Duration::from_secs(2));
            let lines = [told(&lab, "soft_packets 20"), told(&lab, "soft_seconds 4")];
            ensure!(lines == [1, 1], "{lines:?}: {}", lab.left.log());
            lab.left.stop()?;
            let kept = lab.left.ask_state()?;
            ensure!(kept["sas"][0]["lifetime_packets"] == counted, "{kept}");
            lab.left.start()?;
            let (state, sent, goes_on) = life(&lab)?;
            ensure!(state == "dying", "{state} after the restart");
            ensure!(
                goes_on == counted + sent,
                "{sent} {goes_on}, before {counted}"
            );
            // Each run says it once.
            shell::wait_until("the line again", Duration::from_secs(5), || {
                Ok(told(&lab, "soft_packets 20") == 2)
            })?;
            lab.left.crash()?;
            lab.left.start()?;
            let (state, _, at_most) = life(&lab)?;
            ensure!(state == "dying", "{state} after the crash");
            ensure!(
                (goes_on..=goes_on + 5000).contains(&at_most),
                "{at_most} after {goes_on} and a block"
            );
            lab.left.stop()?;
            lab.right.stop()
        },
    );
}
