//! `status`, `sa list`, `policy list`, `port list`, `stats`: what a running gateway answers.

use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::arguments::Read;
use crate::cli::table::render;
use crate::cli::{FAILED, complain, say, target};
use crate::control::protocol::{Method, PolicyRow, PortRow, SaRow, Status};
use crate::observe::stats::{Document, PortStats};

/// `xipsec status`.
#[must_use]
pub fn status(read: &Read) -> ExitCode {
    show(read, Method::Status, |status: Status| {
        let mut rows = vec![
            vec!["version".to_owned(), status.version],
            vec!["process".to_owned(), status.pid.to_string()],
            vec!["up".to_owned(), format!("{} s", status.uptime_seconds)],
            vec!["config".to_owned(), status.config],
            vec!["ports".to_owned(), status.ports.join(" ")],
            vec!["sas".to_owned(), status.sas.to_string()],
            vec!["policies".to_owned(), status.policies.to_string()],
            vec![
                "guard".to_owned(),
                format!("{} ({} packets dropped)", status.guard, status.guard_drops),
            ],
            vec!["host port".to_owned(), or_none(&status.host_port)],
            vec!["state".to_owned(), or_none(&status.state_dir)],
        ];
        for worker in status.workers {
            let core = worker
                .core
                .map_or_else(|| "not pinned".into(), |core| format!("core {core}"));
            let node = worker.node.map(|node| format!(", NUMA node {node}"));
            let core = core + &node.unwrap_or_default();
            let (lent, back, helped) = (worker.lent, worker.taken_back, worker.helped);
            let shared = if lent + back + helped == 0 {
                String::new()
            } else {
                format!("; batches: lent {lent}, taken back {back}, helped {helped}")
            };
            rows.push(vec![format!("worker {}", worker.number), core + &shared]);
        }
        for row in status.crypto {
            rows.push(vec![row.algorithms, row.code]);
        }
        for choice in status.choices {
            rows.push(vec![
                choice.what,
                format!("{} ({})", choice.got, choice.why),
            ]);
        }
        render(&["WHAT", "VALUE"], rows)
    })
}

/// `xipsec sa list`.
#[must_use]
pub fn sas(read: &Read) -> ExitCode {
    const HEADER: [&str; 10] = [
        "NAME",
        "SPI",
        "DIR",
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "ALGORITHM",
        "STATE",
        ">PACKETS",
        ">SEQUENCE",
    ];
    show(read, Method::Sas, |sas: Vec<SaRow>| {
        let rows = sas.into_iter().map(|sa| {
            let algorithm = if sa.integrity.is_empty() {
                sa.encryption
            } else {
                format!("{}+{}", sa.encryption, sa.integrity)
            };
            vec![
                sa.name,
                format!("{:#010x}", sa.spi),
                sa.direction,
                format!("{}/{}", sa.protocol, sa.mode),
                with_port(sa.source, sa.source_port),
                with_port(sa.destination, sa.destination_port),
                algorithm,
                sa.state,
                sa.packets.to_string(),
                sa.sequence.to_string(),
            ]
        });
        render(&HEADER, rows)
    })
}

/// `xipsec policy list`.
#[must_use]
pub fn policies(read: &Read) -> ExitCode {
    const HEADER: [&str; 9] = [
        "NAME",
        "DIR",
        ">PRIORITY",
        "ACTION",
        "LOCAL",
        "REMOTE",
        "UPPER",
        "SA",
        ">PACKETS",
    ];
    show(read, Method::Policies, |policies: Vec<PolicyRow>| {
        let rows = policies.into_iter().map(|policy| {
            let bundles: Vec<String> = policy.sa.iter().map(|bundle| bundle.join("+")).collect();
            vec![
                policy.name,
                policy.direction,
                policy
                    .priority
                    .map_or_else(|| "-".into(), |priority| priority.to_string()),
                policy.action,
                policy.local,
                policy.remote,
                policy.upper,
                if bundles.is_empty() {
                    "-".into()
                } else {
                    bundles.join(",")
                },
                policy.packets.to_string(),
            ]
        });
        render(&HEADER, rows)
    })
}

/// `xipsec port list`.
#[must_use]
pub fn ports(read: &Read) -> ExitCode {
    show(read, Method::Ports, |ports: Vec<PortRow>| {
        let rows = ports.iter().map(|port| {
            vec![
                port.name.clone(),
                port.side.clone(),
                port.mac.clone(),
                port.mtu.to_string(),
                port.queues.to_string(),
                port.program_id.to_string(),
                port.addresses.join(" "),
            ]
        });
        let header = [
            "NAME",
            "SIDE",
            "MAC",
            ">MTU",
            ">QUEUES",
            ">PROGRAM",
            "ADDRESSES",
        ];
        let mut text = render(&header, rows);
        let choices = ports.iter().flat_map(|port| {
            port.choices.iter().map(|choice| {
                vec![
                    port.name.clone(),
                    choice.what.clone(),
                    choice.asked.clone(),
                    choice.got.clone(),
                    choice.why.clone(),
                ]
            })
        });
        text += "\n";
        text += &render(&["NAME", "CHOICE", "ASKED", "GOT", "WHY"], choices);
        text
    })
}

/// `xipsec stats`.
#[must_use]
pub fn stats(read: &Read) -> ExitCode {
    show(read, Method::Stats, |stats: Document| statistics(&stats))
}

/// The counters for people; `replay` prints them too.
pub(crate) fn statistics(stats: &Document) -> String {
    let ports = stats.ports.iter().map(|(name, value)| {
        let port: PortStats = serde_json::from_value(value.clone()).unwrap_or_default();
        let numbers = [
            port.rx_packets,
            port.rx_bytes,
            port.tx_packets,
            port.tx_bytes,
            port.to_host_packets,
        ];
        std::iter::once(name.clone())
            .chain(numbers.map(|number| number.to_string()))
            .collect()
    });
    let header = ["PORT", ">RX", ">RX BYTES", ">TX", ">TX BYTES", ">TO HOST"];
    let mut text = render(&header, ports);
    let sas = stats.sas.iter().map(|sa| {
        vec![
            sa.name.clone(),
            sa.direction.clone(),
            sa.state.clone(),
            sa.packets.to_string(),
            sa.bytes.to_string(),
            sa.sequence.to_string(),
        ]
    });
    text += "\n";
    text += &render(
        &["SA", "DIR", "STATE", ">PACKETS", ">BYTES", ">SEQUENCE"],
        sas,
    );
    let policies = stats.policies.iter().map(|policy| {
        vec![
            policy.name.clone(),
            policy.packets.to_string(),
            policy.bytes.to_string(),
        ]
    });
    text += "\n";
    text += &render(&["POLICY", ">PACKETS", ">BYTES"], policies);
    let drops = stats
        .drops
        .iter()
        .filter(|(_, count)| count.as_u64() != Some(0));
    let drops: Vec<_> = drops
        .map(|(name, count)| vec![name.clone(), count.to_string()])
        .collect();
    if !drops.is_empty() {
        text += "\n";
        text += &render(&["DROPPED", ">PACKETS"], drops);
    }
    let sum = &stats.accounting;
    text += &format!(
        "\nrx {} + from host {} + created {} = tx {} + to host {} + dropped {} + consumed {} + \
         merged {} + held {}\n",
        sum.rx,
        sum.from_host,
        sum.created,
        sum.tx,
        sum.to_host,
        sum.dropped,
        sum.consumed,
        sum.merged,
        sum.held,
    );
    text
}

fn show<T: DeserializeOwned>(
    read: &Read,
    method: Method,
    table: impl FnOnce(T) -> String,
) -> ExitCode {
    let answer = match target::call(&read.target, method, Value::Null) {
        Ok(answer) => answer,
        Err(code) => return code,
    };
    // Lists travel as the one member of an object: Varlink's parameters are objects.
    let inner = match answer {
        Value::Object(mut members) if members.contains_key("rows") => {
            members.remove("rows").unwrap_or(Value::Null)
        }
        other => other,
    };
    if read.json {
        say(&inner.to_string());
        return ExitCode::SUCCESS;
    }
    match serde_json::from_value(inner) {
        Ok(value) => {
            say(table(value).trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format_args!("answer of another version: {error}"));
            ExitCode::from(FAILED)
        }
    }
}

fn with_port(address: String, port: Option<u16>) -> String {
    match port {
        None => address,
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    }
}

fn or_none(text: &str) -> String {
    if text.is_empty() {
        "none".to_owned()
    } else {
        text.to_owned()
    }
}
