//! Goal: what a running gateway says about itself is complete, machine-readable, and holds no key.
//! Method: every reading command, as table and as JSON.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xipsec_tests::config::{Family, RIGHT, Sa};
use xipsec_tests::expect::{self, live};
use xipsec_tests::suite;
use xipsec_tests::topology::{Lab, Plan};

const COMMANDS: [&[&str]; 5] = [
    &["status"],
    &["sa", "list"],
    &["policy", "list"],
    &["port", "list"],
    &["stats"],
];

#[test]
fn every_command_answers_in_both_forms_without_keys() {
    live("every_command_answers_in_both_forms_without_keys", || {
        for suite in [suite::AES256GCM16, suite::NULL_SHA256] {
            let lab = Lab::connected(&Plan {
                suite,
                ..Plan::default()
            })?;
            let keys: Vec<String> = lab.sas.iter().flat_map(Sa::keys_hex).collect();
            for words in COMMANDS {
                let name = words.join(" ");
                let table = lab.left.ask(words)?;
                ensure!(!table.trim().is_empty(), "{name} says nothing");
                let json = lab.left.ask_json(words)?;
                expect::no_keys(&table, &keys).with_context(|| name.clone())?;
                expect::no_keys(&json.to_string(), &keys).with_context(|| name)?;
            }
            expect::no_keys(&lab.left.log(), &keys).context("the log")?;
        }
        Ok(())
    });
}

#[test]
fn names_and_states_are_the_configurations() {
    live("names_and_states_are_the_configurations", || {
        let lab = Lab::connected(&Plan::default())?;
        let sas = lab.left.ask_json(&["sa", "list"])?.to_string();
        ensure!(
            sas.contains("left-to-right") && sas.contains("mature"),
            "{sas}"
        );
        let policies = lab.left.ask_json(&["policy", "list"])?.to_string();
        for name in ["out-0", "in-0", "builtin-local", "builtin-unmatched"] {
            ensure!(policies.contains(name), "{name} is missing: {policies}");
        }
        let ports = lab.left.ask(&["port", "list"])?;
        ensure!(ports.contains("wan0") && ports.contains("lan0"), "{ports}");
        ensure!(ports.contains("native"), "veth does native XDP: {ports}");
        Ok(())
    });
}

#[test]
fn statistics_move_with_the_traffic() {
    live("statistics_move_with_the_traffic", || {
        let lab = Lab::connected(&Plan::default())?;
        let look = || -> Result<[u64; 4]> {
            let stats = lab.left.stats()?;
            expect::accounting(&stats)?;
            let port = |name: &str, member: &str| {
                let value = &stats["ports"][name][member];
                value.as_u64().with_context(|| format!("{name} {member}"))
            };
            let sequence = expect::sa_member(&stats, "left-to-right", "sequence")?;
            let packets = expect::sa_member(&stats, "left-to-right", "packets")?;
            Ok([
                port("lan0", "rx_packets")?,
                port("wan0", "tx_packets")?,
                sequence,
                packets,
            ])
        };
        let before = look()?;
        lab.host_a
            .run(&format!("ping -n -q -c 50 -i 0.005 {}", RIGHT.host[0]))?;
        let after = look()?;
        for (index, (before, after)) in before.into_iter().zip(after).enumerate() {
            ensure!(
                after - before >= 50,
                "figure {index} grew by {}",
                after - before
            );
        }
        let stats = lab.left.stats()?;
        let policies: &Value = &stats["policies"];
        ensure!(policies.to_string().contains("out-0"), "{policies}");
        Ok(())
    });
}

#[test]
fn readiness_is_the_control_socket() {
    live("readiness_is_the_control_socket", || {
        let mut lab = Lab::new(&Plan::default())?;
        ensure!(
            lab.left.ask(&["status"]).is_err(),
            "status before the start"
        );
        lab.start()?;
        let status = lab.left.ask(&["status"])?;
        ensure!(status.contains("aes-gcm"), "whose code: {status}");
        // Every port forwards when the socket appears: the first ping needs no second try.
        lab.host_a
            .run(&format!("ping -n -q -c 1 -W 2 {}", RIGHT.host[0]))?;
        lab.wait_connected(Family::V4)
    });
}
