//! The XDP program.

use serde_json::Value;

use super::{figure, such, text, whole};
use crate::report::Piece;
use crate::report::number::{count, digits, short};
use crate::report::plot::{self, Axis, Line};
use crate::report::table::Table;

pub(in crate::report) fn pieces(records: &[Value]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    by_policies(records, &mut pieces);
    by_sas(records, &mut pieces);
    pieces
}

fn by_policies(records: &[Value], pieces: &mut Vec<Piece>) {
    let columns = [
        "policies each way, side",
        "prefixes",
        "taken ns",
        "unmatched ns",
        "ARP ns",
        "maps",
        "build ms",
        "write ms",
    ];
    let mut table = Table::new("Nanoseconds per frame by number of policies", &columns);
    let mut lines: Vec<Line> = Vec::new();
    for record in such(records, &[("kind", "policies".into())]) {
        let side = text(record, "side");
        let policies = figure(record, "policies");
        for (key, what) in [("taken", "for us"), ("passed", "not for us")] {
            let name = format!("{side} port, {what}");
            let point = (policies, figure(record, key));
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    name,
                    points: vec![point],
                }),
            }
        }
        let times = ["taken", "passed", "arp"].map(|key| digits(figure(record, key)));
        let spent = ["build_ms", "write_ms"].map(|key| digits(figure(record, key)));
        let name = format!("{}, {side}", count(whole(record, "policies")));
        let prefixes = count(whole(record, "prefixes"));
        let memory = format!("{}B", short(figure(record, "map_bytes")));
        let cells = [name, prefixes].into_iter().chain(times);
        table.row(cells.chain([memory]).chain(spent));
        if side == "protected" && policies > 4096.0 {
            let value = format!("{} ns", digits(figure(record, "taken")));
            let label = "XDP steering of a frame among the most policies";
            pieces.push(Piece::Head(value, label.to_owned()));
        }
    }
    if table.is_empty() {
        return;
    }
    for record in such(records, &[("kind", "redirect_all".into())]) {
        let times = [String::new(), digits(figure(record, "nanoseconds"))];
        table.row(["redirect everything".to_owned()].into_iter().chain(times));
    }
    let axis = |label, log| Axis { label, log };
    let (x, y) = (axis("policies", true), axis("nanoseconds per frame", false));
    pieces.push(Piece::plot(
        "Steering by number of policies",
        "The kernel's test run, hot caches. Above 4 096 prefixes they collapse to shorter ones.",
        plot::lines(&lines, x, y, true),
    ));
    pieces.push(Piece::Table(table));
}

fn by_sas(records: &[Value], pieces: &mut Vec<Piece>) {
    let columns = ["SAs at one endpoint", "ESP ns", "entries in the map"];
    let mut table = Table::new("Nanoseconds per ESP frame by number of SAs", &columns);
    let mut points = Vec::new();
    for record in such(records, &[("kind", "esp".into())]) {
        let time = figure(record, "nanoseconds");
        points.push((figure(record, "sas"), time));
        let cells = ["sas", "endpoints"].map(|key| count(whole(record, key)));
        let [sas, entries] = cells;
        table.row([sas, digits(time), entries]);
    }
    if table.is_empty() {
        return;
    }
    let name = "ESP to our endpoint".to_owned();
    let axis = |label, log| Axis { label, log };
    let (x, y) = (axis("SAs", true), axis("nanoseconds per frame", false));
    pieces.push(Piece::plot(
        "Steering of ESP by number of SAs",
        "All ESP to an endpoint is ours: nothing is looked up by SPI, so the line is flat.",
        plot::lines(&[Line { name, points }], x, y, true),
    ));
    pieces.push(Piece::Table(table));
}

/// One record of each kind, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn samples() -> Vec<Value> {
    use serde_json::json;
    let policies = |side: &str| {
        json!({"kind": "policies", "side": side, "policies": 100_000, "prefixes": 4097,
            "taken": 90.0, "passed": 60.0, "arp": 8.0, "map_bytes": 1e6, "build_ms": 100.0,
            "write_ms": 10.0})
    };
    vec![
        json!({"kind": "redirect_all", "nanoseconds": 9.0}),
        policies("protected"),
        policies("unprotected"),
        json!({"kind": "esp", "sas": 1, "endpoints": 1, "nanoseconds": 30.0}),
        json!({"kind": "esp", "sas": 1_000_000, "endpoints": 1, "nanoseconds": 30.0}),
    ]
}
