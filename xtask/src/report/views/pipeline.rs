//! The pipeline on memory ports.

use serde_json::Value;

use super::{distinct, figure, such, text, whole};
use crate::report::Piece;
use crate::report::number::{count, digits, short};
use crate::report::plot::{self, Axis, Bars, Line, Series};
use crate::report::table::Table;

/// The suite that is measured in every form.
const SUITE: &str = "aes128gcm16";

/// Bytes that a pair of idle SAs may take.
const GOAL: f64 = 2.5 * 1024.0;

pub(in crate::report) fn pieces(records: &[Value]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    by_size(records, &mut pieces);
    by_number(records, "sas", &mut pieces);
    by_number(records, "policies", &mut pieces);
    by_workers(records, &mut pieces);
    suites(records, &mut pieces);
    memory(records, &mut pieces);
    pieces
}

fn of_kind<'r>(records: &'r [Value], kind: &str) -> Vec<&'r Value> {
    such(records, &[("kind", kind.into()), ("suite", SUITE.into())])
}

fn size_name(record: &Value) -> String {
    match whole(record, "size") {
        0 => "IMIX".to_owned(),
        size => size.to_string(),
    }
}

fn direction_name(record: &Value) -> &'static str {
    if text(record, "direction") == "out" {
        "outbound"
    } else {
        "inbound"
    }
}

/// Whole, cipher, own work, port, rate.
fn cost_cells(record: &Value) -> impl Iterator<Item = String> {
    let parts = ["cycles", "crypto", "own", "port"].map(|key| digits(figure(record, key)));
    let rates = [
        digits(figure(record, "packets_per_second") / 1e6),
        digits(figure(record, "bits_per_second") / 1e9),
    ];
    parts.into_iter().chain(rates)
}

const COST_COLUMNS: [&str; 6] = ["cycles", "cipher", "own", "port", "Mpps", "Gbit/s"];

fn by_size(records: &[Value], pieces: &mut Vec<Piece>) {
    let all = of_kind(records, "size");
    let columns: Vec<&str> = ["direction, bytes"]
        .into_iter()
        .chain(COST_COLUMNS)
        .collect();
    let mut table = Table::new("One SA, one policy, one worker, by packet size", &columns);
    let sizes = distinct(&all, "size");
    let labels = |direction: &str| -> Vec<&Value> {
        let of = |size: &Value| {
            all.iter()
                .find(|it| it["direction"] == direction && it["size"] == *size)
        };
        sizes.iter().filter_map(of).copied().collect()
    };
    for direction in ["out", "in"] {
        let rows = labels(direction);
        for record in &rows {
            let name = format!("{}, {}", direction_name(record), size_name(record));
            table.row([name].into_iter().chain(cost_cells(record)));
        }
        // Jumbo frames would dwarf the others; the table has them.
        let drawn = || rows.iter().filter(|record| whole(record, "size") <= 1500);
        let names: Vec<String> = drawn().map(|record| size_name(record)).collect();
        let part = |name: &str, key: &str| Series {
            name: name.to_owned(),
            values: drawn().map(|record| figure(record, key)).collect(),
        };
        let parts = [
            part("own work", "own"),
            part("cipher", "crypto"),
            part("port", "port"),
        ];
        if let Some(first) = rows.first() {
            let title = format!("Where the cycles go, {}", direction_name(first));
            let caption = "One SA. Own work should not depend on the size; the cipher must.";
            let svg = plot::bars(&names, &parts, Bars::Stacked, "cycles per packet");
            pieces.push(Piece::plot(title, caption, svg));
        }
    }
    if table.is_empty() {
        return;
    }
    throughput(&labels("out"), &labels("in"), pieces);
    pieces.push(Piece::Table(table));
}

fn throughput(out: &[&Value], back: &[&Value], pieces: &mut Vec<Piece>) {
    let names: Vec<String> = out.iter().map(|record| size_name(record)).collect();
    let series = |name: &str, rows: &[&Value]| Series {
        name: name.to_owned(),
        values: rows
            .iter()
            .map(|it| figure(it, "bits_per_second"))
            .collect(),
    };
    let both = [series("outbound", out), series("inbound", back)];
    pieces.push(Piece::plot(
        "Throughput of one core by packet size",
        "Bits of inner IP packets a second, if the port cost no more than memory does.",
        plot::bars(&names, &both, Bars::Grouped, "bit/s"),
    ));
    for record in out {
        let rate = figure(record, "packets_per_second");
        match whole(record, "size") {
            64 => {
                let own = digits(figure(record, "own"));
                pieces.push(Piece::Head(
                    format!("{}pps", short(rate)),
                    "sealed by one core, 64-byte packets, memory ports".to_owned(),
                ));
                pieces.push(Piece::Head(
                    format!("{own} cycles"),
                    "own work on a 64-byte packet, outbound".to_owned(),
                ));
            }
            1420 => pieces.push(Piece::Head(
                format!("{}bit/s", short(figure(record, "bits_per_second"))),
                "sealed by one core, 1420-byte packets, memory ports".to_owned(),
            )),
            _ => {}
        }
    }
}

/// `key`: `sas` or `policies`.
fn by_number(records: &[Value], key: &str, pieces: &mut Vec<Piece>) {
    let all = of_kind(records, key);
    let (noun, title) = match key {
        "sas" => (
            "SAs",
            "By number of SAs each way, each with a policy, packets at random",
        ),
        _ => (
            "policies",
            "By number of policies each way, all for one SA, packets at random",
        ),
    };
    let first = format!("{noun}, direction, bytes");
    let columns: Vec<&str> = [first.as_str()].into_iter().chain(COST_COLUMNS).collect();
    let mut table = Table::new(title, &columns);
    let mut lines: Vec<Line> = Vec::new();
    for record in &all {
        let (direction, size) = (direction_name(record), size_name(record));
        let name = format!("{}, {direction}, {size}", count(whole(record, key)));
        table.row([name].into_iter().chain(cost_cells(record)));
        let name = format!("{direction}, {size} bytes");
        let point = (figure(record, key), figure(record, "own"));
        match lines.iter_mut().find(|line| line.name == name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line {
                name,
                points: vec![point],
            }),
        }
    }
    if table.is_empty() {
        return;
    }
    let axis = |label, log| Axis { label, log };
    pieces.push(Piece::plot(
        format!("Own work by number of {noun}"),
        "Each packet is for another, at random: what the tables cost when no cache holds them.",
        plot::lines(
            &lines,
            axis(noun, true),
            axis("cycles per packet", false),
            true,
        ),
    ));
    if key == "sas"
        && let Some(ratio) = growth(&all)
    {
        let label = "own work with the most SAs against one, outbound, packets at random";
        pieces.push(Piece::Head(plot::times(ratio), label.to_owned()));
    }
    pieces.push(Piece::Table(table));
}

/// Own work of the last outbound record against that of the first.
fn growth(records: &[&Value]) -> Option<f64> {
    let mut out = records.iter().filter(|it| text(it, "direction") == "out");
    let first = figure(out.next()?, "own");
    Some(figure(out.next_back()?, "own") / first)
}

fn by_workers(records: &[Value], pieces: &mut Vec<Piece>) {
    let all = of_kind(records, "workers");
    let columns = ["SAs, direction, bytes", "workers", "Mpps", "gain"];
    let mut table = Table::new("By number of workers", &columns);
    let mut lines: Vec<Line> = Vec::new();
    for record in &all {
        let name = format!(
            "{} SAs, {}, {} bytes",
            count(whole(record, "sas")),
            direction_name(record),
            size_name(record)
        );
        let rate = figure(record, "packets_per_second");
        let point = (figure(record, "workers"), rate);
        let place = lines.iter().position(|line| line.name == name);
        let place = place.unwrap_or_else(|| {
            let points = Vec::new();
            let name = name.clone();
            lines.push(Line { name, points });
            lines.len() - 1
        });
        lines[place].points.push(point);
        let gain = rate / lines[place].points[0].1;
        let workers = whole(record, "workers").to_string();
        table.row([name, workers, digits(rate / 1e6), plot::times(gain)]);
    }
    if table.is_empty() {
        return;
    }
    let mut names: Vec<f64> = lines
        .iter()
        .flat_map(|it| &it.points)
        .map(|it| it.0)
        .collect();
    names.sort_by(f64::total_cmp);
    names.dedup();
    let series: Vec<Series> = lines
        .iter()
        .map(|line| Series {
            name: line.name.clone(),
            values: names
                .iter()
                .map(|workers| {
                    let point = line.points.iter().find(|point| point.0 == *workers);
                    point.map_or(f64::NAN, |point| point.1)
                })
                .collect(),
        })
        .collect();
    let names: Vec<String> = names.iter().map(|it| format!("workers: {it}")).collect();
    pieces.push(Piece::plot(
        "Scaling by workers",
        "Packets a second of all workers together. One SA has one home: others hand packets over.",
        plot::bars(&names, &series, Bars::Grouped, "packets/s"),
    ));
    pieces.push(Piece::Table(table));
}

/// The other suites, when they were measured.
fn suites(records: &[Value], pieces: &mut Vec<Piece>) {
    let sizes = such(records, &[("kind", "size".into())]);
    let names = distinct(&sizes, "suite");
    if names.len() < 2 {
        return;
    }
    let columns: Vec<&str> = ["suite, direction, bytes"]
        .into_iter()
        .chain(COST_COLUMNS)
        .collect();
    let mut table = Table::new("Every suite, one SA", &columns);
    for record in sizes
        .iter()
        .filter(|it| [64, 1420].contains(&whole(it, "size")))
    {
        let (suite, direction) = (text(record, "suite"), direction_name(record));
        let name = format!("{suite}, {direction}, {}", size_name(record));
        table.row([name].into_iter().chain(cost_cells(record)));
    }
    let value = |suite: &Value, size: u64| {
        let wanted = [("suite", suite.clone()), ("size", size.into())];
        let found = such(records, &wanted);
        let out = found
            .iter()
            .find(|it| it["direction"] == "out" && it["kind"] == "size");
        out.map_or(f64::NAN, |it| figure(it, "bits_per_second"))
    };
    let series: Vec<Series> = [64, 1420]
        .into_iter()
        .map(|size| Series {
            name: format!("{size} bytes"),
            values: names.iter().map(|suite| value(suite, size)).collect(),
        })
        .collect();
    let labels: Vec<String> = names
        .iter()
        .filter_map(Value::as_str)
        .map(|name| name.replace('+', "\n+"))
        .collect();
    pieces.push(Piece::plot(
        "Throughput of one core by suite, outbound",
        "",
        plot::bars(&labels, &series, Bars::Grouped, "bit/s"),
    ));
    pieces.push(Piece::Table(table));
}

fn memory(records: &[Value], pieces: &mut Vec<Piece>) {
    let columns = [
        "pairs",
        "SAs",
        "SAD",
        "worker",
        "sum",
        "goal",
        "policies",
        "resident, all",
    ];
    let mut table = Table::new(
        "Bytes of a pair of idle SAs, window of 64 packets",
        &columns,
    );
    for record in of_kind(records, "memory") {
        let parts = ["sas", "sad", "slots"].map(|key| figure(record, key));
        let sum: f64 = parts.iter().sum();
        let bytes = |value: f64| format!("{value:.0}");
        let others = ["policies", "resident"].map(|key| bytes(figure(record, key)));
        let cells = [count(whole(record, "pairs"))].into_iter();
        let cells = cells
            .chain(parts.map(bytes))
            .chain([bytes(sum), bytes(GOAL)]);
        table.row(cells.chain(others));
        let label = "memory of a pair of idle SAs, window of 64 packets";
        pieces.push(Piece::Head(
            format!("{} KiB", digits(sum / 1024.0)),
            label.to_owned(),
        ));
        let series: Vec<Series> = [
            ("keys, parameters, state", parts[0]),
            ("SAD", parts[1]),
            ("worker", parts[2]),
        ]
        .into_iter()
        .map(|(name, value)| Series {
            name: name.to_owned(),
            values: vec![value, f64::NAN],
        })
        .chain([Series {
            name: "goal".to_owned(),
            values: vec![f64::NAN, GOAL],
        }])
        .collect();
        let labels = ["a pair of SAs".to_owned(), "goal".to_owned()];
        pieces.push(Piece::plot(
            "Memory of a pair of idle SAs",
            "As the allocator was asked for it, without its own additions.",
            plot::bars(&labels, &series, Bars::Stacked, "bytes"),
        ));
    }
    if !table.is_empty() {
        pieces.push(Piece::Table(table));
    }
}

/// One record of each kind, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn samples() -> Vec<Value> {
    use serde_json::json;
    let cost = |kind: &str, suite: &str, size: u64, direction: &str| {
        json!({"kind": kind, "suite": suite, "direction": direction, "size": size,
            "bytes": 64.0, "sas": 1, "policies": 1, "cycles": 300.0, "crypto": 100.0,
            "own": 150.0, "port": 50.0, "packets_per_second": 1e6, "bits_per_second": 1e9})
    };
    let mut records = Vec::new();
    for direction in ["out", "in"] {
        for kind in ["size", "sas", "policies"] {
            records.push(cost(kind, SUITE, 64, direction));
            records.push(cost(kind, SUITE, 0, direction));
        }
        records.push(cost("size", "null+sha1_96", 64, direction));
    }
    for workers in [1, 2] {
        records.push(
            json!({"kind": "workers", "suite": SUITE, "direction": "out", "size": 64,
            "sas": 1, "workers": workers, "packets_per_second": 1e6}),
        );
    }
    records.push(
        json!({"kind": "memory", "suite": SUITE, "pairs": 100, "replay_window": 64,
        "sas": 3000.0, "sad": 200.0, "slots": 80.0, "policies": 3000.0, "resident": 7000.0}),
    );
    records
}
