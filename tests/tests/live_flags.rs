//! Goal: flags for tuning do what they say in a running gateway, and whatever they say traffic
//! passes and every packet is accounted for. Method: threads as the kernel sees them, the gateway's
//! own word, and TCP both ways between the hosts.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::RIGHT;
use xipsec_tests::expect::{live, skip};
use xipsec_tests::iperf;
use xipsec_tests::topology::{Lab, Plan};
use xipsec_tests::veth::End;

fn with(line: &str) -> Plan {
    Plan {
        dataplane: vec![line.to_owned()],
        ..Plan::default()
    }
}

/// TCP both ways; then both gateways stop, and none may warn of frames or packets lost.
fn carries(mut lab: Lab) -> Result<()> {
    let server = iperf::Server::start(&lab.host_b)?;
    for arguments in ["-n 4M", "-n 4M -R", "-u -b 20M -t 1"] {
        let run = || iperf::run(&lab.host_a, RIGHT.host[0], arguments);
        // Two workers spin on two cores: iperf3's control connection, not its data, was reset once.
        let carried = run().or_else(
            |error| match error.to_string().contains("control message") {
                true => run(),
                false => Err(error),
            },
        );
        lab.explain(carried)?;
    }
    drop(server);
    lab.check_accounting()?;
    lab.left.stop()?;
    lab.right.stop()?;
    let said = lab.left.log() + &lab.right.log();
    ensure!(!said.contains("unaccounted"), "{said}");
    Ok(())
}

/// A field of `/proc/PID/task/TID/status` of gwA's first worker.
fn worker(lab: &Lab, field: &str) -> Result<String> {
    let pid = lab.left.pid().context("it does not run")?;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        if status.starts_with("Name:\tworker-0\n") {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let value = line.with_context(|| format!("no {field}: {status}"))?;
            return Ok(value.trim_start_matches(':').trim().to_owned());
        }
    }
    anyhow::bail!("no worker among the threads of {pid}")
}

#[test]
fn a_worker_without_packets_sleeps_or_spins_as_idle_says() {
    live(
        "a_worker_without_packets_sleeps_or_spins_as_idle_says",
        || {
            for (idle, sleeps) in [("sleep", true), ("adaptive", true), ("spin", false)] {
                let lab = Lab::connected(&with(&format!("idle = \"{idle}\"")))?;
                // Its sleeps last a tenth of a second at most.
                let slept =
                    || -> Result<u64> { Ok(worker(&lab, "voluntary_ctxt_switches")?.parse()?) };
                let before = slept()?;
                thread::sleep(Duration::from_secs(1));
                let times = slept()? - before;
                ensure!(
                    (times >= 5) == sleeps,
                    "{idle}: it slept {times} times in a second"
                );
                carries(lab).context(idle)?;
            }
            Ok(())
        },
    );
}

#[test]
fn a_worker_stays_on_its_core() {
    live("a_worker_stays_on_its_core", || {
        let cores = rustix::thread::sched_getaffinity(None)?;
        let last = (0..1024).rev().find(|core| cores.is_set(*core));
        let last = last.context("no core")?;
        let lab = Lab::connected(&with(&format!("cores = [{last}]")))?;
        let allowed = worker(&lab, "Cpus_allowed_list")?;
        ensure!(
            allowed == last.to_string(),
            "it may run on {allowed}, not {last} alone"
        );
        let status = lab.left.ask_json(&["status"])?;
        ensure!(status["workers"][0]["core"] == last, "{status}");
        // The kernel has a folder for each node, also where there is but one.
        let node = fs::read_dir(format!("/sys/devices/system/cpu/cpu{last}"))?
            .flatten()
            .find_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix("node")?
                    .parse()
                    .ok()
            });
        let node: Option<u64> = node;
        ensure!(status["workers"][0]["node"].as_u64() == node, "{status}");
        Ok(())
    });
}

#[test]
fn small_batches_rings_and_frames_carry_everything_too() {
    live(
        "small_batches_rings_and_frames_carry_everything_too",
        || {
            for line in [
                "batch = 1",
                "rings = { rx = 64, tx = 64, fill = 64, completion = 64 }",
                "umem = { frames = 256, frame_size = 2048 }",
            ] {
                let lab = Lab::connected(&with(line)).context(line)?;
                let memory = "packet memory: 1 MiB in 2 sockets\n";
                let told = lab.left.log().contains(memory);
                ensure!(
                    told == line.starts_with("umem"),
                    "{line}: {}",
                    lab.left.log()
                );
                carries(lab).context(line)?;
            }
            Ok(())
        },
    );
}

#[test]
fn busy_polling_says_what_became_of_it() {
    live("busy_polling_says_what_became_of_it", || {
        for (mode, idle) in [("native", "spin"), ("generic", "adaptive")] {
            let mut plan = with("busy_poll = { microseconds = 50, budget = 32 }");
            plan.dataplane.push(format!("xdp_mode = \"{mode}\""));
            plan.dataplane.push(format!("idle = \"{idle}\""));
            let lab = Lab::connected(&plan)?;
            for host in [&lab.host_a, &lab.host_b] {
                // Generic XDP sees what the veth's other end hands over, whole.
                End::new(host, "eth0").segmentation(mode == "native")?;
            }
            ensure!(lab.left.log().contains("busy_poll: "), "{}", lab.left.log());
            let ports = lab.left.ask_json(&["port", "list"])?;
            for port in ports
                .as_array()
                .or_else(|| ports["ports"].as_array())
                .context("no list")?
            {
                let choices = port["choices"].as_array().context("no choices")?;
                let told = choices.iter().find(|choice| choice["what"] == "busy_poll");
                let told = told.with_context(|| format!("nothing told: {port}"))?;
                let why = told["why"].as_str().context("no reason")?;
                let knobs = why.contains("/sys/class/net/") && why.contains("echo 2 >");
                ensure!(knobs == (mode == "native"), "{told}");
                // Frames have come: it is known by now.
                let known = why.contains("queues are polled") || why.contains("no NAPI");
                ensure!(known || mode == "generic", "{told}");
                ensure!(mode == "native" || told["got"] == "off", "{told}");
            }
            carries(lab).context(mode)?;
        }
        Ok(())
    });
}

#[test]
fn packet_memory_in_huge_pages_carries_packets() {
    const NAME: &str = "packet_memory_in_huge_pages_carries_packets";
    live(NAME, || {
        // 2 MiB for each of two sockets of each of two gateways.
        let free = fs::read_to_string("/proc/meminfo")?;
        let free = free
            .lines()
            .find_map(|line| line.strip_prefix("HugePages_Free:"));
        if free
            .and_then(|free| free.trim().parse::<u32>().ok())
            .unwrap_or(0)
            < 4
        {
            skip(NAME, "no 4 huge pages are free (sysctl vm.nr_hugepages)");
            return Ok(());
        }
        let lab = Lab::connected(&with("umem = { frames = 512, huge_pages = true }"))?;
        ensure!(
            lab.left.log().contains(", in huge pages"),
            "{}",
            lab.left.log()
        );
        let pid = lab.left.pid().context("it does not run")?;
        let mappings = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let huge = mappings
            .lines()
            .filter(|line| line.starts_with("KernelPageSize:") && !line.ends_with(" 4 kB"));
        ensure!(huge.count() >= 1, "no mapping of huge pages");
        carries(lab)
    });
}
