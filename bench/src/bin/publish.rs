//! How long a change takes to be built and published, and how long it holds up a worker that has
//! all others' packets to carry.
#![deny(unsafe_code)]

use clap::{Parser, ValueEnum};
use serde_json::json;
use xipsec_bench::fixture::{End, SUITES};
use xipsec_bench::fleet::{Fleet, Scale};
use xipsec_bench::progress::{Document, Progress};
use xipsec_bench::publish::{Change, measure};

#[derive(Parser)]
#[command(about = "Times of a change under load, as JSON")]
struct Arguments {
    /// What changes
    #[arg(long, value_enum)]
    change: Kind,
    /// Numbers of SAs each way, each with a policy; at least two
    #[arg(long, value_delimiter = ',', default_values_t = [2, 10_000])]
    sas: Vec<usize>,
    /// Changes in a row
    #[arg(long, default_value_t = 10)]
    changes: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    /// One SA's key and SPI
    Rekey,
    /// One policy goes and comes back
    Reconfigure,
}

fn main() {
    let arguments = Arguments::parse();
    let change = match arguments.change {
        Kind::Rekey => Change::Rekey,
        Kind::Reconfigure => Change::Reconfigure,
    };
    let mut document = Document::default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        document.missing("worker and control take two cores");
        return document.print();
    }
    let mut progress = Progress::new(arguments.sas.len());
    for &sas in &arguments.sas {
        progress.step(&format!("{sas} SAs"));
        let suite = SUITES[0];
        let scale = Scale { sas, policies: sas };
        let fleet = Fleet::new(suite, End::Near, scale, 64);
        let times = measure(&fleet, suite, change, arguments.changes);
        document.record(json!({
            "sas": sas,
            "changes": times.publications,
            "sad_ms": times.sad * 1e3,
            "build_ms": times.build * 1e3,
            "store_us": times.store * 1e6,
            "quiet_gap_us": times.quiet * 1e6,
            "gap_us": times.busy * 1e6,
        }));
    }
    document.print();
}
