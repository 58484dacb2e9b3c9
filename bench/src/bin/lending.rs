//! One SA, one worker; one SA, two workers; two SAs, two workers: packets a second on memory ports,
//! each worker on a core of its own, in turns, the best of several windows. And what it costs that
//! a worker could lend where it need not.
#![deny(unsafe_code)]

use std::time::Duration;

use clap::Parser;
use ipsec::limits::BATCH;
use ipsec::sa::association::Direction;
use xipsec_bench::fixture::{SUITES, SuiteName};
use xipsec_bench::lending::{Crew, Load, Outcome, run, unneeded};

#[derive(Parser)]
#[command(about = "What lending one SA's work to an idle core brings")]
struct Arguments {
    /// Suites, by name
    #[arg(long, value_delimiter = ',', default_values = ["aes256gcm16", "aes128+sha256_128"])]
    suites: Vec<String>,
    /// Sizes of the inner IP packet, bytes
    #[arg(long, value_delimiter = ',', default_values_t = [1420, 9000])]
    sizes: Vec<usize>,
    /// Windows of each
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Milliseconds of a window
    #[arg(long, default_value_t = 150)]
    window: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

const CREWS: [Crew; 3] = [Crew::Alone, Crew::Lending, Crew::Two];

fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Out => "out",
        Direction::In => "in",
    }
}

/// The best of several windows of each crew, in turns.
fn best(load: Load, arguments: &Arguments) -> [Outcome; 3] {
    let window = Duration::from_millis(arguments.window);
    let mut best = CREWS.map(|crew| run(load, crew, window));
    for _ in 1..arguments.rounds {
        for (best, crew) in best.iter_mut().zip(CREWS) {
            let outcome = run(load, crew, window);
            if outcome.rate > best.rate {
                *best = outcome;
            }
        }
    }
    best
}

#[expect(clippy::print_stdout, reason = "the result")]
fn main() {
    let arguments = Arguments::parse();
    let wanted = |suite: &SuiteName| arguments.suites.iter().any(|name| name == suite.name);
    let suites: Vec<SuiteName> = SUITES.into_iter().filter(wanted).collect();
    let mut records = Vec::new();
    for suite in &suites {
        for size in &arguments.sizes {
            for direction in [Direction::Out, Direction::In] {
                let load = Load {
                    suite: *suite,
                    direction,
                    size: *size,
                    supply: BATCH,
                };
                let [alone, lending, two] = best(load, &arguments);
                records.push(serde_json::json!({
                    "suite": suite.name,
                    "size": size,
                    "direction": name(direction),
                    "alone": alone.rate,
                    "lending": lending.rate,
                    "two": two.rate,
                    "of_two": lending.rate / two.rate,
                    "of_one": lending.rate / alone.rate,
                    "lent": lending.batches[0],
                    "taken_back": lending.batches[1],
                }));
            }
        }
    }
    for direction in [Direction::Out, Direction::In] {
        let load = Load {
            suite: SUITES[0],
            direction,
            size: 64,
            supply: BATCH / 2,
        };
        let [without, with] = unneeded(load, 4000);
        records.push(serde_json::json!({
            "suite": SUITES[0].name,
            "size": 64,
            "direction": name(direction),
            "cycles_without_idle_worker": without,
            "cycles_with_idle_worker": with,
            "unneeded_cost": with / without - 1.0,
        }));
    }
    if arguments.json {
        println!("{}", serde_json::Value::Array(records));
        return;
    }
    for record in records {
        println!("{record}");
    }
}
