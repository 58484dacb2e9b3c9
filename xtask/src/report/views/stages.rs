//! Stages of the pipeline, and the cipher beside its references.

use serde_json::Value;

use super::{distinct, figure, such, text, whole};
use crate::report::Piece;
use crate::report::number::{count, digits};
use crate::report::plot::{self, Bars, Series};
use crate::report::table::Table;

/// The suite that is drawn.
const SUITE: &str = "aes128gcm16";

pub(in crate::report) fn pieces(records: &[Value]) -> Vec<Piece> {
    let (counted, timed): (Vec<Value>, Vec<Value>) = records
        .iter()
        .cloned()
        .partition(|it| it["instructions"].is_number());
    let mut pieces = timed_pieces(&timed);
    if !counted.is_empty() {
        pieces.push(Piece::Table(instructions(&counted)));
    }
    pieces
}

/// What valgrind counted.
fn instructions(records: &[Value]) -> Table {
    let title = "Instructions a packet of the whole worker, cipher by AES-NI, counted by valgrind";
    let mut table = Table::new(title, &["suite, bytes", "direction", "instructions"]);
    for record in records {
        let name = format!("{}, {}", text(record, "suite"), record["size"]);
        let direction = text(record, "direction").to_owned();
        table.row([name, direction, digits(figure(record, "instructions"))]);
    }
    table
}

fn timed_pieces(records: &[Value]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let all: Vec<&Value> = records.iter().collect();
    for direction in ["out", "in"] {
        let rows = such(records, &[("direction", direction.into())]);
        let stages = distinct(&rows, "stage");
        let (drawn, mut labels) = (such(records, &[("suite", SUITE.into())]), Vec::new());
        let sizes = distinct(&drawn, "size");
        let value = |stage: &Value, size: &Value, suite: &str| {
            let at = [("stage", stage), ("size", size)];
            let fits = |it: &&&Value| at.iter().all(|(key, value)| it[*key] == **value);
            let found = rows
                .iter()
                .find(|it| fits(it) && text(it, "suite") == suite);
            found.map_or(f64::NAN, |it| figure(it, "cycles"))
        };
        labels.extend(sizes.iter().map(Value::to_string));
        let inside = stages.iter().filter(|it| !is_beside(it));
        let series: Vec<Series> = inside
            .map(|stage| Series {
                name: stage.as_str().unwrap_or_default().to_owned(),
                values: sizes.iter().map(|size| value(stage, size, SUITE)).collect(),
            })
            .collect();
        if !series.is_empty() {
            let name = if direction == "out" {
                "outbound"
            } else {
                "inbound"
            };
            pieces.push(Piece::plot(
                format!("Stages of `ipsec`, {name}, {SUITE}"),
                "Each stage over a burst of 32; the last holds the cipher.",
                plot::bars(&labels, &series, Bars::Stacked, "cycles per packet"),
            ));
        }
        let names = stages.iter().filter_map(Value::as_str);
        let columns: Vec<&str> = ["suite, bytes"]
            .into_iter()
            .chain(names)
            .chain(["worker less cipher", "allocations"])
            .collect();
        let title = if direction == "out" {
            "Outbound stages, cycles per packet"
        } else {
            "Inbound stages, cycles per packet"
        };
        let mut table = Table::new(title, &columns);
        for suite in distinct(&all, "suite") {
            for size in distinct(&all, "size") {
                let suite = suite.as_str().unwrap_or_default();
                let cycles = |stage: &Value| value(stage, &size, suite);
                let own = cycles(&"whole worker".into()) - cycles(&"cipher alone".into());
                let counted = rows
                    .iter()
                    .filter(|it| text(it, "suite") == suite && it["size"] == size);
                let allocations = counted.map(|it| whole(it, "allocations")).sum();
                let cells = stages.iter().map(|stage| digits(cycles(stage)));
                let name = [format!("{suite}, {size}")].into_iter();
                table.row(name.chain(cells).chain([digits(own), count(allocations)]));
            }
        }
        if !rows.is_empty() {
            pieces.push(Piece::Table(table));
        }
    }
    pieces
}

/// Not a stage of `ipsec` but something to compare with.
fn is_beside(stage: &Value) -> bool {
    ["whole worker", "cipher alone"].contains(&stage.as_str().unwrap_or_default())
}

/// What the crypto bench prints: each code of ours beside the reference.
pub(in crate::report) fn crypto(records: &[Value]) -> Vec<Piece> {
    let columns = ["suite, direction, bytes", "code", "cycles", "of reference"];
    let mut table = Table::new(
        "The cipher alone, cycles per packet, equal lengths and one SA unless named",
        &columns,
    );
    let mut series: Vec<Series> = Vec::new();
    let plain = [("ragged", false.into()), ("sas", 1.into())];
    let drawn = such(records, &plain);
    let label = |it: &Value| {
        format!(
            "{}\n{} {}",
            text(it, "suite"),
            text(it, "direction"),
            it["size"]
        )
    };
    let mut labels: Vec<String> = Vec::new();
    for record in drawn.iter().filter(|it| whole(it, "size") == 1420) {
        if !labels.contains(&label(record)) {
            labels.push(label(record));
        }
    }
    for record in records {
        let mut name = format!(
            "{}, {}, {}",
            text(record, "suite"),
            text(record, "direction"),
            record["size"]
        );
        if record["ragged"] == true {
            name += ", ragged";
        }
        if whole(record, "sas") > 1 {
            name += &format!(", {} SAs", record["sas"]);
        }
        let code = text(record, "code").to_owned();
        let ratio = plot::times(figure(record, "ratio"));
        table.row([name, code, digits(figure(record, "cycles")), ratio]);
    }
    for record in drawn {
        let Some(at) = labels.iter().position(|it| *it == label(record)) else {
            continue;
        };
        let code = text(record, "code");
        let place = series.iter().position(|one| one.name == code);
        let place = place.unwrap_or_else(|| {
            series.push(Series {
                name: code.to_owned(),
                values: vec![f64::NAN; labels.len()],
            });
            series.len() - 1
        });
        series[place].values[at] = figure(record, "cycles");
    }
    if table.is_empty() {
        return Vec::new();
    }
    let mut pieces = Vec::new();
    if !labels.is_empty() {
        pieces.push(Piece::plot(
            "The cipher alone, 1420 bytes",
            "Least of many bursts of 32 packets of one SA, every code beside its reference.",
            plot::bars(&labels, &series, Bars::Grouped, "cycles per packet"),
        ));
    }
    pieces.push(Piece::Table(table));
    pieces
}

/// One record of each stage, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn samples() -> Vec<Value> {
    let stages = ["parse", "select", "whole worker", "cipher alone"].into_iter();
    let record = |stage| {
        serde_json::json!({"suite": SUITE, "size": 64, "direction": "out", "stage": stage,
            "cycles": 20.0, "allocations": 0, "packets": 320})
    };
    let counted = serde_json::json!({"suite": SUITE, "size": 64, "direction": "out",
        "instructions": 1234.0});
    stages.map(record).chain([counted]).collect()
}

/// One record of each code, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn crypto_samples() -> Vec<Value> {
    let codes = ["ring", "vaes"].into_iter();
    let record = |code| {
        serde_json::json!({"suite": SUITE, "size": 1420, "direction": "seal", "ragged": false,
            "sas": 1, "code": code, "cycles": 600.0, "ratio": 1.0})
    };
    codes.map(record).collect()
}
