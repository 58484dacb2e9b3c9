//! Goal: overload loses packets and nothing else: every packet is accounted for, exactly, at every
//! moment, and the gateway recovers. Method: floods from both sides, the accounts read meanwhile.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use xipsec_tests::config::{Family, LEFT, RIGHT};
use xipsec_tests::expect::{self, live};
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::{iperf, shell};

/// Small rings, so that the gateway and not the hosts is what overflows.
fn plan() -> Plan {
    let small = "rings = { rx = 256, tx = 256, fill = 512, completion = 512 }";
    Plan {
        queues: 2,
        dataplane: vec![small.to_owned()],
        ..Plan::default()
    }
}

#[test]
fn a_flood_is_accounted_for_to_the_packet() {
    live("a_flood_is_accounted_for_to_the_packet", || {
        let lab = Lab::connected(&plan())?;
        let servers = [
            iperf::Server::start(&lab.host_a)?,
            iperf::Server::start(&lab.host_b)?,
        ];
        let flood = "-u -b 0 -l 64 -t 4 -P 2";
        let mut floods = [(&lab.host_a, &RIGHT), (&lab.host_b, &LEFT)]
            .map(|(host, peer)| iperf::client(host, peer.host[0], flood));
        let mut floods = floods
            .iter_mut()
            .map(|flood| Ok(flood.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
            .collect::<Result<Vec<_>>>()?;
        let mut looks = 0;
        while floods
            .iter_mut()
            .any(|flood| matches!(flood.try_wait(), Ok(None)))
        {
            lab.check_accounting()
                .with_context(|| format!("look {looks} during the flood"))?;
            looks += 1;
            sleep(Duration::from_millis(100));
        }
        for flood in &mut floods {
            flood.wait()?;
        }
        drop(servers);
        ensure!(looks >= 10, "the accounts were read {looks} times only");
        lab.wait_connected(Family::V4).context("after the flood")?;
        for gateway in [&lab.left, &lab.right] {
            // What waits for a neighbour or another worker ends within a second.
            shell::wait_until("nothing to be held", Duration::from_secs(3), || {
                Ok(gateway.stats()?["accounting"]["held"] == 0)
            })?;
            let stats = gateway.stats()?;
            expect::accounting(&stats)?;
            let received = stats["accounting"]["rx"].as_u64().unwrap_or(0);
            ensure!(received > 10_000, "that was no flood: {stats}");
        }
        Ok(())
    });
}

#[test]
fn a_stop_under_flood_drains_and_exits_with_0() {
    live("a_stop_under_flood_drains_and_exits_with_0", || {
        let mut lab = Lab::connected(&plan())?;
        let server = iperf::Server::start(&lab.host_b)?;
        let mut flood = iperf::client(&lab.host_a, RIGHT.host[0], "-u -b 0 -l 64 -t 6");
        let mut flood = flood.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        sleep(Duration::from_secs(1));
        // `stop` fails on any exit status but 0, and a frame that did not come home is one.
        let stopped = lab.left.stop().and_then(|()| lab.right.stop());
        flood.kill()?;
        flood.wait()?;
        drop(server);
        stopped
    });
}

#[test]
fn sigint_stops_as_sigterm_does() {
    live("sigint_stops_as_sigterm_does", || {
        let mut lab = Lab::connected(&Plan::default())?;
        lab.left.signal(Signal::INT)?;
        shell::wait_until("the gateway to stop", Duration::from_secs(20), || {
            Ok(lab.left.exited()?.is_some())
        })?;
        let status = lab.left.exited()?.context("no status")?;
        ensure!(status.code() == Some(0), "{status}: {}", lab.left.log());
        Ok(())
    });
}
