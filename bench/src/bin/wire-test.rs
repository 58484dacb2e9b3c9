//! Tests one device between two interfaces: NDR, PDR, and latency at shares of the NDR, for each
//! packet size.
#![deny(unsafe_code)]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use ipsec::crypto::Transform;
use serde_json::{Value, json};
use xipsec_bench::pipeline::imix;
use xipsec_bench::progress::{Document, Progress};
use xipsec_bench::sealer::{Sealer, key};
use xipsec_bench::search::{Bounds, Goal, Search};
use xipsec_bench::tester::{Place, Seen, Tester, Traffic};
use xipsec_bench::wire::{Mac, parse_mac, pin};

/// Shares of the NDR at which latency is measured, percent.
const LOADS: [u32; 3] = [10, 50, 90];

#[derive(Parser)]
#[command(about = "NDR, PDR and latency of a device between two interfaces, as JSON")]
struct Arguments {
    /// Interface that sends, NAME or NAME@NAMESPACE
    #[arg(long)]
    left: Place,
    /// Interface that receives
    #[arg(long)]
    right: Place,
    /// MAC address of the device on the sending side
    #[arg(long, value_parser = parse_mac)]
    destination: Mac,
    /// Source address of the packets
    #[arg(long)]
    from: Ipv4Addr,
    /// Destination address
    #[arg(long)]
    to: Ipv4Addr,
    /// Lengths of the IP packets, bytes; 0: the Internet mix
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512, 1420, 0])]
    sizes: Vec<usize>,
    /// File with the SA's key, in hexadecimal: of what is sealed, or of what comes out, for its
    /// latency
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// SPI of the SA by which packets are sent: ESP in tunnel mode, for a device that opens it
    #[arg(long, requires_all = ["seal_from", "seal_to", "key_file"])]
    seal_spi: Option<u32>,
    /// Outer source address of that SA
    #[arg(long, requires = "seal_spi")]
    seal_from: Option<Ipv4Addr>,
    /// Outer destination address of that SA
    #[arg(long, requires = "seal_spi")]
    seal_to: Option<Ipv4Addr>,
    /// Milliseconds of each trial
    #[arg(long, default_value_t = 500)]
    trial: u64,
    /// Width at which the search ends, percent of the upper bound
    #[arg(long, default_value_t = 3.0)]
    precision: f64,
    /// Trials of each load, of which most decide
    #[arg(long, default_value_t = 3)]
    trials: usize,
    /// Core to run on
    #[arg(long, default_value_t = 0)]
    core: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    pin(arguments.core);
    let key = arguments.key_file.as_deref().map(read_key).transpose()?;
    let sealer = match (arguments.seal_spi, arguments.seal_from, arguments.seal_to) {
        (Some(spi), Some(from), Some(to)) => {
            let key = arguments.key_file.as_deref().context("no key")?;
            Some(Sealer::new(read_key(key)?, spi, [from, to]))
        }
        _ => None,
    };
    let mut tester = Tester::new(&arguments.left, &arguments.right, key, sealer)?;
    let mut document = Document::default();
    let mut progress = Progress::new(arguments.sizes.len());
    for &size in &arguments.sizes {
        progress.step(&if size == 0 {
            "IMIX".to_owned()
        } else {
            format!("{size} bytes")
        });
        document.record(measure(&arguments, &mut tester, size)?);
    }
    document.print();
    Ok(())
}

fn read_key(path: &Path) -> Result<Transform> {
    let text = std::fs::read_to_string(path);
    key(&text.with_context(|| path.display().to_string())?)
}

fn measure(arguments: &Arguments, tester: &mut Tester, size: usize) -> Result<Value> {
    tester.prepare(&Traffic {
        destination_mac: arguments.destination,
        addresses: [arguments.from, arguments.to],
        lengths: if size == 0 { imix() } else { vec![size] },
    })?;
    let duration = Duration::from_millis(arguments.trial);
    let mut all = Seen::default();
    let mut add = |seen: &Seen| {
        all.sent += seen.sent;
        all.received += seen.received;
        all.disordered += seen.disordered;
        all.foreign += seen.foreign;
    };
    // The first packets resolve neighbours and find homes for states.
    tester.run(Some(1000.0), duration)?;
    let flood = tester.run(None, duration)?;
    add(&flood);
    let ceiling = flood.trial(0.0).sent;
    let bounds = Bounds {
        ceiling,
        precision: arguments.precision / 100.0,
        trials: arguments.trials,
        loads: 12,
    };
    let mut search = Search::default();
    let mut rates = [0.0; 2];
    for (rate, goal) in rates.iter_mut().zip([Goal::Ndr, Goal::Pdr]) {
        *rate = search.find(goal, bounds, |load| {
            let seen = tester.run(Some(load), duration)?;
            add(&seen);
            anyhow::Ok(seen.trial(load))
        })?;
    }
    let mut latency = Vec::new();
    for percent in LOADS {
        let load = rates[0] * f64::from(percent) / 100.0;
        if load >= 1.0 {
            let seen = tester.run(Some(load), duration * 2)?;
            add(&seen);
            let mut value = seen.latency.to_json();
            value["percent_of_ndr"] = percent.into();
            value["load"] = load.into();
            latency.push(value);
        }
    }
    let trials = search.trials.iter();
    let trials = trials.map(|it| json!([it.load, it.sent, it.received]));
    Ok(json!({
        "size": size,
        "offered": ceiling,
        "flood_received": flood.trial(0.0).received,
        "ndr": rates[0],
        "pdr": rates[1],
        "latency": latency,
        "sent": all.sent,
        "received": all.received,
        "disordered": all.disordered,
        "foreign": all.foreign,
        "trials": trials.collect::<Vec<_>>(),
    }))
}
