//! NDR, PDR and latency.

use serde_json::Value;

use super::{distinct, figure, such, text, whole};
use crate::report::Piece;
use crate::report::number::{count, digits, short};
use crate::report::plot::{self, Axis, Bars, Line, Series};
use crate::report::table::Table;

/// Name of the device that ratios are to.
const REFERENCE: &str = "bare";

/// The gateway among the devices, and what its ratios are to: in each direction, and with each of
/// the flags that are compared.
fn against(device: &str) -> &'static [&'static str] {
    match device {
        "xipsec inbound" => &["bare inbound"],
        "xipsec" => &[REFERENCE, "kernel"],
        flag if flag.starts_with("xipsec, ") => &[REFERENCE],
        _ => &[],
    }
}

pub(in crate::report) fn pieces(records: &[Value]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    if records.is_empty() {
        return pieces;
    }
    ratios(records, &mut pieces);
    rates(records, &mut pieces);
    latency(records, &mut pieces);
    pieces
}

/// A device as the report calls it.
fn device_name(device: &str) -> &str {
    match device {
        "kernel" => "kernel forwarding",
        "bare" => "bare AF_XDP forwarder",
        "xipsec" => "xipsec (seals ESP)",
        "xipsec inbound" => "xipsec (opens ESP)",
        "bare inbound" => "bare AF_XDP forwarder, of ESP",
        "given" => "the given device",
        other => other,
    }
}

fn size_name(size: &Value) -> String {
    match size.as_u64() {
        Some(0) => "IMIX".to_owned(),
        _ => size.to_string(),
    }
}

fn all(records: &[Value]) -> Vec<&Value> {
    records.iter().collect()
}

fn of<'r>(records: &'r [Value], device: &Value, size: &Value) -> Option<&'r Value> {
    let wanted = [("device", device.clone()), ("size", size.clone())];
    such(records, &wanted).first().copied()
}

/// First of all: the gateway against the bare forwarder and the kernel.
fn ratios(records: &[Value], pieces: &mut Vec<Piece>) {
    let columns = [
        "bytes, what to what",
        "NDR",
        "PDR",
        "median latency at 50 % of NDR",
    ];
    let mut table = Table::new("xipsec as a ratio", &columns);
    for size in distinct(&all(records), "size") {
        let mut pairs = Vec::new();
        for ours in such(records, &[("size", size.clone())]) {
            let others = against(text(ours, "device")).iter();
            let others = others.filter_map(|other| of(records, &(*other).into(), &size));
            pairs.extend(others.map(|other| (ours, other)));
        }
        for (ours, other) in pairs {
            let rates = ["ndr", "pdr"].map(|key| figure(ours, key) / figure(other, key));
            let median = |record| at(record, 50).map_or(f64::NAN, |it| figure(it, "p50"));
            let waits = median(ours) / median(other);
            let [name, to] = [ours, other].map(|it| device_name(text(it, "device")));
            let [ndr, pdr] = rates.map(plot::times);
            let cells = [format!("{}, {name} to {to}", size_name(&size)), ndr, pdr];
            table.row(cells.into_iter().chain([plot::times(waits)]));
            let head = text(ours, "device") == "xipsec" && text(other, "device") == REFERENCE;
            if head && whole(other, "size") == 1420 {
                let label = "PDR against a bare AF_XDP forwarder, 1420 bytes, veth";
                pieces.push(Piece::Head(plot::times(rates[1]), label.to_owned()));
            }
        }
    }
    if !table.is_empty() {
        pieces.push(Piece::Table(table));
    }
}

fn rates(records: &[Value], pieces: &mut Vec<Piece>) {
    let columns = [
        "bytes, device",
        "NDR kpps",
        "PDR kpps",
        "PDR Gbit/s",
        "offered kpps",
        "lost",
        "disordered",
        "idle, % of a core",
    ];
    let mut table = Table::new("Rates", &columns);
    let (devices, sizes) = (
        distinct(&all(records), "device"),
        distinct(&all(records), "size"),
    );
    for size in &sizes {
        for device in &devices {
            let Some(record) = of(records, device, size) else {
                continue;
            };
            let name = device_name(text(record, "device"));
            let kilo = |key: &str| digits(figure(record, key) / 1e3);
            let bits = figure(record, "pdr") * mean_length(size) * 8.0;
            let lost = whole(record, "sent").saturating_sub(whole(record, "received"));
            table.row([
                format!("{}, {name}", size_name(size)),
                kilo("ndr"),
                kilo("pdr"),
                digits(bits / 1e9),
                kilo("offered"),
                format!("{} of {}", count(lost), short(figure(record, "sent"))),
                count(whole(record, "disordered")),
                record["idle_cpu_percent"]
                    .as_f64()
                    .map_or_else(String::new, digits),
            ]);
        }
    }
    let labels: Vec<String> = sizes.iter().map(size_name).collect();
    let series = |device: &Value| Series {
        name: device_name(device.as_str().unwrap_or_default()).to_owned(),
        values: sizes
            .iter()
            .map(|size| of(records, device, size).map_or(f64::NAN, |it| figure(it, "pdr")))
            .collect(),
    };
    let series: Vec<Series> = devices.iter().map(series).collect();
    pieces.push(Piece::plot(
        "PDR by packet size",
        "Packets a second with at most 0.5 % lost. Over veth the kernel's I/O is the limit.",
        plot::bars(&labels, &series, Bars::Grouped, "packets/s"),
    ));
    pieces.push(Piece::Table(table));
}

/// Bytes of IP packet; the mix has seven small, four middling, one long of twelve.
fn mean_length(size: &Value) -> f64 {
    match size.as_f64() {
        Some(bytes) if bytes > 0.0 => bytes,
        _ => (7.0 * 64.0 + 4.0 * 576.0 + 1420.0) / 12.0,
    }
}

/// The latency at that share of the NDR.
fn at(record: &Value, percent: u64) -> Option<&Value> {
    let all = record["latency"].as_array()?;
    all.iter().find(|it| whole(it, "percent_of_ndr") == percent)
}

fn latency(records: &[Value], pieces: &mut Vec<Piece>) {
    let columns = [
        "bytes, device, load",
        "p50 µs",
        "p90 µs",
        "p99 µs",
        "p99.9 µs",
        "max µs",
        "packets",
    ];
    let mut table = Table::new("Latency at shares of the NDR", &columns);
    for size in distinct(&all(records), "size") {
        let mut lines = Vec::new();
        for record in such(records, &[("size", size.clone())]) {
            let name = device_name(text(record, "device"));
            for it in record["latency"].as_array().into_iter().flatten() {
                let percent = whole(it, "percent_of_ndr");
                let name = format!("{}, {name}, {percent} %", size_name(&size));
                let times =
                    ["p50", "p90", "p99", "p999", "max"].map(|key| digits(figure(it, key) / 1e3));
                let packets = count(whole(it, "packets"));
                table.row([name].into_iter().chain(times).chain([packets]));
            }
            if let Some(half) = at(record, 50) {
                let points = half["distribution"].as_array().into_iter().flatten();
                let point = |it: &Value| {
                    (
                        it[0].as_f64().unwrap_or(0.0) / 1e3,
                        it[1].as_f64().unwrap_or(0.0) * 100.0,
                    )
                };
                lines.push(Line {
                    name: name.to_owned(),
                    points: points.map(point).collect(),
                });
            }
        }
        if lines.is_empty() {
            continue;
        }
        let (x, y) = (
            Axis {
                label: "µs",
                log: true,
            },
            Axis {
                label: "percent of packets",
                log: false,
            },
        );
        pieces.push(Piece::plot(
            format!("Latency, {} bytes, at half of the NDR", size_name(&size)),
            "Share of packets that arrived within a time: left and steep is good.",
            plot::lines(&lines, x, y, false),
        ));
    }
    if !table.is_empty() {
        pieces.push(Piece::Table(table));
    }
}

/// One record of each device, for the tests of the report.
#[cfg(test)]
pub(in crate::report) fn samples() -> Vec<Value> {
    let devices = ["xipsec", REFERENCE, "kernel"].into_iter();
    let record = |device| {
        serde_json::json!({"device": device, "size": 1420, "offered": 5e5, "ndr": 4e5, "pdr": 4.5e5,
            "sent": 1000, "received": 990, "disordered": 0, "foreign": 0,
            "latency": [{"percent_of_ndr": 50, "p50": 2e4, "p90": 3e4, "p99": 4e4, "p999": 5e4,
                "max": 6e4, "packets": 100, "distribution": [[2e4, 0.5], [6e4, 1.0]]}]})
    };
    devices.map(record).collect()
}
