//! Rekeying one SA, and changing the policies, under load.

use serde_json::Value;

use super::{figure, whole};
use crate::report::Piece;
use crate::report::number::{count, digits};
use crate::report::plot::{self, Axis, Line};
use crate::report::table::Table;

/// `noun`: what changes.
pub(in crate::report) fn pieces(records: &[Value], noun: &str) -> Vec<Piece> {
    let columns = [
        "SAs each way",
        "SAD ms",
        "build ms",
        "publish µs",
        "gap, quiet µs",
        "gap, changing µs",
        "changes",
    ];
    let title = format!("{noun}: the next snapshot, and the longest gap between two bursts");
    let mut table = Table::new(title, &columns);
    let mut lines = [("quiet", "quiet_gap_us"), ("while changing", "gap_us")].map(|(name, key)| {
        let points = records
            .iter()
            .map(|it| (figure(it, "sas"), figure(it, key)));
        Line {
            name: name.to_owned(),
            points: points.collect(),
        }
    });
    for record in records {
        let times = ["sad_ms", "build_ms", "store_us", "quiet_gap_us", "gap_us"];
        let times = times.map(|key| digits(figure(record, key)));
        let sas = count(whole(record, "sas"));
        let changes = whole(record, "changes").to_string();
        table.row([sas].into_iter().chain(times).chain([changes]));
    }
    if table.is_empty() {
        return Vec::new();
    }
    for line in &mut lines {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let axis = |label| Axis { label, log: true };
    vec![
        Piece::plot(
            format!("{noun} under load: how long other SAs wait"),
            "Longest gap between two bursts of a worker that has more to do than it can.",
            plot::lines(&lines, axis("SAs"), axis("µs"), true),
        ),
        Piece::Table(table),
    ]
}

/// One record, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn samples() -> Vec<Value> {
    vec![
        serde_json::json!({"sas": 10_000, "changes": 10, "sad_ms": 0.3, "build_ms": 20.0,
        "store_us": 3.0, "quiet_gap_us": 40.0, "gap_us": 400.0}),
    ]
}
