//! What the demo prints: the proof, the table, the ratios, the accounts.

use std::collections::BTreeMap;

use serde_json::Value;
use xipsec_tests::proof::Evidence;

use super::Options;
use super::contender::{ALL, Contender};
use super::measure::{INNER_MTU, KINDS, Kind, Results};

/// Prints everything.
pub(super) fn print(options: &Options, evidence: &Evidence, results: &Results) {
    proof(evidence);
    table(options, results);
    ratios(results);
    println!(
        "\naccounting over all runs (rx + from_host + created = tx + to_host + dropped + ...)"
    );
    for (name, stats) in ["gwA", "gwB"].into_iter().zip(&results.stats) {
        println!("  {name}  {}", line(&sums(stats, "accounting"), true));
        println!("       drops: {}", line(&sums(stats, "drops"), false));
    }
    println!();
}

fn proof(evidence: &Evidence) {
    let Evidence {
        esp,
        neighbor,
        other,
        failed,
        repeated,
        sent,
        carried,
        ..
    } = evidence;
    println!("\nproof by capture (ping, TCP both ways, UDP)");
    println!("  middle wire    {esp} ESP, {neighbor} ARP, {other} anything else");
    println!("  scapy + keys   {failed} do not decrypt, {repeated} (key, IV) pairs come twice");
    println!("  compared       {carried} of {sent} packets that the hosts sent are in there, byte");
    println!(
        "                 for byte but for TTL and checksums; {} are not",
        evidence.foreign
    );
    println!(
        "  checksums      {} wrong after decryption",
        evidence.wrong_checksums
    );
}

fn table(options: &Options, results: &Results) {
    let Options {
        seconds,
        rounds,
        queues,
        ..
    } = options;
    println!(
        "\nthroughput, median of {rounds} rounds in turns, {seconds} s each, {queues} queue(s),\n\
         same packet sizes for all (route MTU {INNER_MTU})"
    );
    print!("  {:<22}", "");
    for kind in KINDS {
        print!("{:>17}", title(kind));
    }
    print!("\n  {:<22}", "");
    for kind in KINDS {
        print!("{:>17}", unit(kind));
    }
    println!();
    for contender in ALL {
        print!("  {:<22}", contender.name());
        for kind in KINDS {
            print!("{:>17.0}", scaled(kind, results.median(contender, kind)));
        }
        println!();
    }
}

fn ratios(results: &Results) {
    println!(
        "  (the bare forwarder completes no checksums: the hosts do it for it, in every column)"
    );
    println!("\nratios of xipsec to");
    for other in [Contender::BareXdp, Contender::Kernel] {
        print!("  {:<22}", other.name());
        for kind in KINDS {
            let ours = results.median(Contender::Xipsec, kind);
            print!("{:>17.2}", ours / results.median(other, kind));
        }
        println!();
    }
}

fn title(kind: Kind) -> String {
    match kind {
        Kind::Tcp { offloads: false } => "TCP".to_owned(),
        Kind::Tcp { offloads: true } => "TCP, offloads on".to_owned(),
        Kind::Udp { length } => format!("UDP {length} B"),
    }
}

fn unit(kind: Kind) -> &'static str {
    match kind {
        Kind::Tcp { .. } => "Mbit/s",
        Kind::Udp { .. } => "1000 packets/s",
    }
}

fn scaled(kind: Kind, value: f64) -> f64 {
    match kind {
        Kind::Tcp { .. } => value / 1e6,
        Kind::Udp { .. } => value / 1e3,
    }
}

/// The members of one table of the documents, added up.
fn sums(stats: &[Value], table: &str) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for document in stats {
        for (key, value) in document[table].as_object().into_iter().flatten() {
            *sums.entry(key.clone()).or_default() += value.as_u64().unwrap_or(0);
        }
    }
    sums
}

fn line(numbers: &BTreeMap<String, u64>, zeros: bool) -> String {
    let shown = numbers.iter().filter(|(_, value)| zeros || **value > 0);
    let shown: Vec<String> = shown.map(|(key, value)| format!("{key} {value}")).collect();
    if shown.is_empty() {
        "none".to_owned()
    } else {
        shown.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_add_up() {
        let stats = [
            json!({"drops": {"a": 1, "b": 0}}),
            json!({"drops": {"a": 2, "b": 0}}),
        ];
        assert_eq!(line(&sums(&stats, "drops"), false), "a 3");
        assert_eq!(line(&sums(&stats, "drops"), true), "a 3, b 0");
        assert_eq!(line(&sums(&[], "drops"), false), "none");
    }
}
