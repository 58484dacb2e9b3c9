//! Goal: `replay` reads and writes captures as the interface says: four flavours of pcap, pcapng,
//! damaged and missing files, order, exit statuses. Method: the same packets in other files.

use std::fs;

use anyhow::{Context, Result, ensure};
use xipsec_tests::config::{Family, LEFT, RIGHT, Sa};
use xipsec_tests::expect::{conclude, no_keys};
use xipsec_tests::packets::{self, Flavor, Frame, IpFields, UDP};
use xipsec_tests::replay;
use xipsec_tests::{binary, files, shell, suite};

fn frames(count: u64) -> Result<Vec<Frame>> {
    let [a, b] = replay::hosts(&LEFT, &RIGHT, Family::V4);
    (1..=count)
        .map(|number| {
            let payload = packets::udp(a, b, [7, 8], &number.to_be_bytes())?;
            let packet = packets::ip(a, b, UDP, IpFields::default(), &payload)?;
            Ok(replay::from_host(number * 1000, &packet))
        })
        .collect()
}

/// Runs `replay` with these arguments in a folder with a configuration and `in.pcap`.
struct Bench {
    directory: tempfile::TempDir,
    keys: Vec<String>,
}

impl Bench {
    fn new() -> Result<Self> {
        let directory = files::directory(false)?;
        let sas = replay::sas(Family::V4, suite::NULL_SHA1);
        replay::tunnel(&sas, &[]).write(&directory.path().join("c.toml"))?;
        packets::write(&directory.path().join("in.pcap"), &frames(5)?)?;
        Ok(Self {
            directory,
            keys: sas.iter().flat_map(Sa::keys_hex).collect(),
        })
    }

    /// Exit status, standard output, standard error.
    fn run(&self, arguments: &str) -> Result<(i32, String, String)> {
        let mut command = binary::command()?;
        command
            .current_dir(self.directory.path())
            .args(["replay", "--config", "c.toml"]);
        let output = shell::output(command.args(arguments.split_whitespace()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        no_keys(&format!("{out}{err}"), &self.keys)?;
        Ok((output.status.code().unwrap_or(-1), out, err))
    }

    fn read(&self, name: &str) -> Result<Vec<Frame>> {
        packets::read(&self.directory.path().join(name))
    }
}

#[test]
fn every_flavour_of_capture_gives_the_same() {
    let body = || -> Result<()> {
        let bench = Bench::new()?;
        ensure!(bench.run("--in lan0=in.pcap --out wan0=out.pcap")?.0 == 0);
        let expected = bench.read("out.pcap")?;
        ensure!(expected.len() == 5);
        for (nanoseconds, big_endian) in [(false, true), (true, false), (true, true)] {
            let file = bench.directory.path().join("other.pcap");
            packets::write_as(
                &file,
                &frames(5)?,
                Flavor {
                    nanoseconds,
                    big_endian,
                },
            )?;
            ensure!(bench.run("--in lan0=other.pcap --out wan0=o.pcap")?.0 == 0);
            ensure!(
                bench.read("o.pcap")? == expected,
                "{nanoseconds} {big_endian}"
            );
        }
        ensure!(bench.run("--in lan0=in.pcap --out wan0=o.pcapng")?.0 == 0);
        ensure!(bench.read("o.pcapng")? == expected, "pcapng out");
        let bytes = fs::read(bench.directory.path().join("o.pcapng"))?;
        ensure!(
            bytes.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]),
            "pcapng if the name ends so"
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn two_runs_are_one() {
    let body = || -> Result<()> {
        let bench = Bench::new()?;
        let read = |name: &str| fs::read(bench.directory.path().join(name));
        let first = bench.run("--json --in lan0=in.pcap --out wan0=1.pcap --drops 1.pcapng")?;
        let second = bench.run("--json --in lan0=in.pcap --out wan0=2.pcap --drops 2.pcapng")?;
        ensure!(
            first == second && read("1.pcap")? == read("2.pcap")?,
            "not deterministic"
        );
        ensure!(read("1.pcapng")? == read("2.pcapng")?);
        Ok(())
    };
    conclude(body());
}

#[test]
fn wrong_usage_and_damaged_files() {
    let body = || -> Result<()> {
        let bench = Bench::new()?;
        let (status, _, said) = bench.run("--in wan7=in.pcap")?;
        ensure!(
            status == 2 && said.contains("wan7"),
            "an unknown port: {status} {said}"
        );
        let (status, _, said) = bench.run("--in lan0=absent.pcap")?;
        ensure!(
            status == 1 && said.contains("absent.pcap"),
            "{status} {said}"
        );
        let whole = fs::read(bench.directory.path().join("in.pcap"))?;
        fs::write(
            bench.directory.path().join("cut.pcap"),
            &whole[..whole.len() - 5],
        )?;
        let (status, _, said) = bench.run("--in lan0=cut.pcap --out wan0=out.pcap")?;
        ensure!(
            status == 1 && said.contains("cut.pcap") && said.contains('5'),
            "{status} {said}"
        );
        ensure!(
            bench.read("out.pcap")?.len() == 4,
            "whole packets before it are written"
        );
        fs::write(
            bench.directory.path().join("odd.pcap"),
            b"no capture at all, only text",
        )?;
        let (status, _, said) = bench.run("--in lan0=odd.pcap")?;
        ensure!(status == 1 && said.contains("odd.pcap"), "{status} {said}");
        for line in said.lines() {
            ensure!(line.starts_with("xipsec: "), "{line}");
        }
        Ok(())
    };
    conclude(body());
}

#[test]
fn without_options_it_is_quiet_and_outputs_exist() {
    let body = || -> Result<()> {
        let bench = Bench::new()?;
        let (status, out, _) = bench.run("--in lan0=in.pcap --out lan0=none.pcap --json")?;
        ensure!(status == 0);
        serde_json::from_str::<serde_json::Value>(&out).context("one document and nothing else")?;
        ensure!(
            bench.read("none.pcap")?.is_empty(),
            "a file with its header only"
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn packets_go_in_the_order_of_their_times() {
    let body = || -> Result<()> {
        let bench = Bench::new()?;
        let mut all = frames(6)?;
        let odd: Vec<Frame> = all.iter().step_by(2).cloned().collect();
        let even: Vec<Frame> = all.iter().skip(1).step_by(2).cloned().collect();
        packets::write(&bench.directory.path().join("odd.pcap"), &odd)?;
        packets::write(&bench.directory.path().join("even.pcap"), &even)?;
        ensure!(
            bench
                .run("--in lan0=even.pcap --in lan0=odd.pcap --out wan0=out.pcap")?
                .0
                == 0
        );
        let times = |frames: &[Frame]| frames.iter().map(|frame| frame.time).collect::<Vec<_>>();
        ensure!(times(&bench.read("out.pcap")?) == times(&all));
        // Out of order within one file: by time, too.
        all.reverse();
        packets::write(&bench.directory.path().join("back.pcap"), &all)?;
        ensure!(bench.run("--in lan0=back.pcap --out wan0=out.pcap")?.0 == 0);
        ensure!(
            bench
                .read("out.pcap")?
                .iter()
                .is_sorted_by_key(|frame| frame.time)
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_is_read() {
    let body = || -> Result<()> {
        let bench = Bench::new()?;
        let config = bench.directory.path().join("c.toml");
        let text = fs::read_to_string(&config)?;
        fs::write(&config, text.replace("spi = 0x1001", "spi = 1"))?;
        let (status, _, said) = bench.run("--in lan0=absent.pcap")?;
        ensure!(
            status == 1 && said.contains("spi") && !said.contains("absent"),
            "{said}"
        );
        Ok(())
    };
    conclude(body());
}

#[test]
fn generate_makes_a_pair_that_checks_and_talks() {
    let body = || -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let directory = files::directory(false)?;
        let mut command = binary::command()?;
        command.args([
            "generate",
            "--left",
            "192.0.2.1",
            "--left-net",
            "10.1.0.0/16",
        ]);
        command.args([
            "--right",
            "192.0.2.2",
            "--right-net",
            "10.2.0.0/16",
            "--out",
        ]);
        let output = shell::output(command.arg(directory.path()))?;
        ensure!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
        let mut texts = Vec::new();
        for name in ["left.toml", "right.toml"] {
            let file = directory.path().join(name);
            let mode = fs::metadata(&file)?.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "{name} has mode {mode:o}");
            let checked = xipsec_tests::mistakes::run_check(&file)?;
            ensure!(checked.status.code() == Some(0), "{checked:?}");
            texts.push(fs::read_to_string(file)?);
        }
        let keys = |text: &str| {
            let lines = text
                .lines()
                .filter(|line| line.starts_with("encryption_key"));
            let mut keys: Vec<String> = lines.map(str::to_owned).collect();
            keys.sort();
            keys.dedup();
            keys
        };
        ensure!(keys(&texts[0]).len() == 2, "two keys, one a direction");
        ensure!(
            keys(&texts[0]) == keys(&texts[1]),
            "both sides know the same keys"
        );
        let again = files::directory(false)?;
        let mut command = binary::command()?;
        command.args([
            "generate",
            "--left",
            "192.0.2.1",
            "--left-net",
            "10.1.0.0/16",
        ]);
        command.args([
            "--right",
            "192.0.2.2",
            "--right-net",
            "10.2.0.0/16",
            "--out",
        ]);
        shell::run(command.arg(again.path()))?;
        let other = fs::read_to_string(again.path().join("left.toml"))?;
        ensure!(keys(&other) != keys(&texts[0]), "fresh keys each time");
        Ok(())
    };
    conclude(body());
}

#[test]
fn exit_statuses_and_usage() {
    let body = || -> Result<()> {
        for (arguments, status) in [
            (&["--help"][..], 0),
            (&["--version"], 0),
            (&["run"], 2),
            (&["no-such-command"], 2),
            (&["check", "--config"], 2),
            (&["check", "--config", "absent.toml"], 1),
            (&["state", "show", "--config", "absent.toml"], 1),
        ] {
            let mut command = binary::command()?;
            let output = shell::output(command.args(arguments))?;
            ensure!(
                output.status.code() == Some(status),
                "{arguments:?}: {output:?}"
            );
            ensure!(
                status == 0 || output.stdout.is_empty(),
                "{arguments:?}: {output:?}"
            );
        }
        Ok(())
    };
    conclude(body());
}
