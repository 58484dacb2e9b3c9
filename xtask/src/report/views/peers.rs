//! Everybody on the same wires.

use serde_json::Value;

use super::{distinct, figure, such};
use crate::report::Piece;
use crate::report::number::digits;
use crate::report::plot::{self, Bars, Series};
use crate::report::table::Table;

/// The gateway's name among the peers.
const OURS: &str = "xipsec (ESP)";

/// What is measured: key, name, unit, divisor.
const KINDS: [(&str, &str, &str, f64); 3] = [
    ("tcp_bits_per_second", "TCP", "Gbit/s", 1e9),
    ("large_packets_per_second", "UDP, large", "kpps", 1e3),
    ("small_packets_per_second", "UDP, small", "kpps", 1e3),
];

pub(in crate::report) fn pieces(records: &[Value]) -> Vec<Piece> {
    let all: Vec<&Value> = records.iter().collect();
    let peers = distinct(&all, "peer");
    let mut columns = vec!["peer".to_owned()];
    for (_, name, unit, _) in KINDS {
        columns.extend([format!("{name}, {unit}"), "of xipsec".to_owned()]);
    }
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let mut table = Table::new("iperf3 between the hosts, medians", &columns);
    for peer in &peers {
        let mut cells = vec![peer.as_str().unwrap_or_default().to_owned()];
        for (key, _, _, divisor) in KINDS {
            let value = median(records, peer, key);
            let ratio = value / median(records, &OURS.into(), key);
            cells.extend([digits(value / divisor), plot::times(ratio)]);
        }
        table.row(cells);
    }
    if table.is_empty() {
        return Vec::new();
    }
    let labels: Vec<String> = peers
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.replacen(' ', "\n", 1))
        .collect();
    let mut pieces = Vec::new();
    for (key, name, unit, _) in KINDS {
        let values = peers.iter().map(|peer| median(records, peer, key));
        let series = [Series {
            name: name.to_owned(),
            values: values.collect(),
        }];
        let unit = if unit == "kpps" { "packets/s" } else { "bit/s" };
        pieces.push(Piece::plot(
            format!("{name}, hosts behind two gateways"),
            "The first two do not encrypt: the kernel's forwarding and a bare AF_XDP forwarder.",
            plot::bars(&labels, &series, Bars::Grouped, unit),
        ));
    }
    pieces.push(Piece::Table(table));
    pieces
}

fn median(records: &[Value], peer: &Value, key: &str) -> f64 {
    let own = such(records, &[("peer", peer.clone())]);
    let mut values: Vec<f64> = own.iter().map(|record| figure(record, key)).collect();
    values.sort_by(f64::total_cmp);
    let middle = [values.len().saturating_sub(1) / 2, values.len() / 2];
    let middle = middle.map(|at| values.get(at).copied().unwrap_or(f64::NAN));
    f64::midpoint(middle[0], middle[1])
}

/// One record of each peer, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn samples() -> Vec<Value> {
    let record = |(peer, tcp): (&str, f64)| {
        serde_json::json!({"peer": peer, "round": 1, "tcp_bits_per_second": tcp,
            "large_packets_per_second": 1e5, "small_packets_per_second": 1e5})
    };
    [
        (OURS, 2e9),
        ("wireguard-go", 5e8),
        ("wireguard-go", 6e8),
        ("wireguard-go", 4e8),
    ]
    .map(record)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_one_peer() {
        let median = median(&samples(), &"wireguard-go".into(), KINDS[0].0);
        assert!((median - 5e8).abs() < 1.0);
    }

    #[test]
    fn of_two_turns_neither_is_the_median() {
        let two: Vec<Value> = samples().into_iter().skip(2).collect();
        let median = median(&two, &"wireguard-go".into(), KINDS[0].0);
        assert!((median - 5e8).abs() < 1.0);
        assert!(self::median(&[], &OURS.into(), KINDS[0].0).is_nan());
    }
}
