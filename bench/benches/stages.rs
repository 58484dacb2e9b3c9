//! Cycles and allocations per packet of each stage of the pipeline, of the cipher alone, and of the
//! whole worker, over bursts of 32 packets of one SA. Criterion shows the distribution; the table
//! at the end has the least of nine medians.
//!
//! Names filter, as criterion's do: `cargo bench -p xipsec-bench --bench stages -- gcm16/64`.
#![deny(unsafe_code)]

use std::hint::black_box;
use std::time::Duration;

use arrayvec::ArrayVec;
use criterion::{BenchmarkId, Criterion, Throughput};
use ipsec::limits::BATCH;
use ipsec::policy::Memory;
use ipsec::sa::SaSlot;
use ipsec::sa::association::Direction;
use ipsec::sa::state::States;
use ipsec::tables::Count;
use ipsec::time::Time;
use ipsec::{inbound, outbound, packet};
use serde_json::json;
use xipsec_bench::allocation::{self, Counting};
use xipsec_bench::cycles::{now, quietest_median};
use xipsec_bench::fixture::{End, Fixture, SUITES, SuiteName, plain_frame};
use xipsec_bench::fleet::{Ends, Scale};
use xipsec_bench::measurement::Cycles;
use xipsec_bench::pipeline::{Alone, BURST, Bench, Traffic};
use xipsec_bench::progress::Document;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sizes of the inner IP packet, bytes.
const SIZES: [usize; 3] = [64, 512, 1420];

/// Offset of the IP packet in a frame.
const ETHERNET: usize = 14;

/// What one burst took of one stage.
#[derive(Clone, Copy, Default)]
struct Spent {
    cycles: u64,
    allocations: u64,
}

fn timed<T>(spent: &mut Spent, work: impl FnOnce() -> T) -> T {
    let (allocations, start) = (allocation::count(), now());
    let done = work();
    spent.cycles = now() - start;
    spent.allocations = allocation::count() - allocations;
    done
}

/// Something that goes through stages a burst at a time.
trait Journey {
    /// Names of the stages.
    const STAGES: &'static [&'static str];

    /// One burst: what each stage took.
    fn burst(&mut self, spent: &mut [Spent]);
}

/// What one worker owns, for calls of single stages.
struct Owned {
    states: States,
    memory: Memory,
    policies: Vec<Count>,
    wanted: ArrayVec<SaSlot, BATCH>,
    ivs: ipsec::crypto::iv::RandomIvs,
    between: Vec<u8>,
}

impl Owned {
    fn new(fixture: &Fixture) -> Self {
        let mut states = States::new(0);
        states.reserve(fixture.sas.len());
        Self {
            states,
            memory: Memory::new(256, ipsec::time::SECOND),
            policies: (0..fixture.snapshot.tables.policy_count())
                .map(|_| Count::default())
                .collect(),
            wanted: ArrayVec::new(),
            ivs: ipsec::crypto::iv::RandomIvs::seeded(&[1; 32], 0),
            between: vec![0; outbound::BUNDLE_ROOM],
        }
    }

    fn outbound<'a, 'w>(&'w mut self, fixture: &'a Fixture) -> outbound::Context<'a, 'w> {
        self.wanted.clear();
        outbound::Context {
            tables: &fixture.snapshot.tables,
            states: &mut self.states,
            memory: &mut self.memory,
            policies: &mut self.policies,
            wanted: &mut self.wanted,
            ivs: &mut self.ivs,
            flow_label_seed: 1,
            bundle: &mut self.between,
            worker: 0,
            now: Time(1),
        }
    }

    fn inbound<'a, 'w>(&'w mut self, fixture: &'a Fixture) -> inbound::Context<'a, 'w> {
        self.wanted.clear();
        inbound::Context {
            tables: &fixture.snapshot.tables,
            states: &mut self.states,
            memory: &mut self.memory,
            policies: &mut self.policies,
            wanted: &mut self.wanted,
            bundle: &mut self.between,
            now: Time(1),
        }
    }
}

/// Out, stage by stage.
struct Outward {
    fixture: Fixture,
    owned: Owned,
    plain: Vec<u8>,
    sources: Vec<Vec<u8>>,
    rooms: Vec<Vec<u8>>,
}

impl Outward {
    fn new(suite: SuiteName, size: usize) -> Self {
        let fixture = Fixture::new(suite, End::Near);
        let plain = plain_frame(size)[ETHERNET..].to_vec();
        Self {
            owned: Owned::new(&fixture),
            fixture,
            sources: vec![plain.clone(); BURST],
            plain,
            rooms: vec![vec![0; size + 512]; BURST],
        }
    }
}

impl Journey for Outward {
    const STAGES: &'static [&'static str] =
        &["parse", "select", "fit", "number + encapsulate + seal"];

    fn burst(&mut self, spent: &mut [Spent]) {
        for source in &mut self.sources {
            // The pipeline lowers its hop limit.
            source.copy_from_slice(&self.plain);
        }
        let (fixture, owned) = (&self.fixture, &mut self.owned);
        let packets: ArrayVec<_, BATCH> = timed(&mut spent[0], || {
            let sources = self.sources.iter();
            sources
                .filter_map(|source| packet::parse(black_box(source)).ok())
                .collect()
        });
        let items = self.sources.iter_mut().zip(packets);
        let items = items.map(|(source, packet)| outbound::Item::new(source, packet, false));
        let mut items: ArrayVec<_, BATCH> = items.collect();
        timed(&mut spent[1], || {
            outbound::select(&mut items, &mut owned.outbound(fixture));
        });
        for item in &mut items {
            item.mtu = 9216;
        }
        timed(&mut spent[2], || outbound::fit(&mut items));
        for (item, room) in items.iter_mut().zip(&mut self.rooms) {
            item.destination = Some(room);
        }
        timed(&mut spent[3], || {
            outbound::protect(&mut items, &mut owned.outbound(fixture));
        });
        let sealed =
            |item: &outbound::Item<'_>| matches!(item.verdict, outbound::Verdict::Sealed(_));
        assert!(items.iter().all(sealed), "every packet is sealed");
    }
}

/// A burst that one end has sealed for the other.
fn sealed_burst(far: &Fixture, owned: &mut Owned, size: usize) -> Vec<Vec<u8>> {
    let mut sources = vec![plain_frame(size)[ETHERNET..].to_vec(); BURST];
    let mut rooms = vec![vec![0; size + 512]; BURST];
    let mut items: ArrayVec<outbound::Item<'_>, BATCH> = sources
        .iter_mut()
        .filter_map(|source| {
            let packet = packet::parse(source).ok()?;
            Some(outbound::Item::new(source, packet, false))
        })
        .collect();
    outbound::select(&mut items, &mut owned.outbound(far));
    for (item, room) in items.iter_mut().zip(&mut rooms) {
        item.mtu = 9216;
        item.destination = Some(room);
    }
    outbound::fit(&mut items);
    outbound::protect(&mut items, &mut owned.outbound(far));
    let lengths: Vec<_> = items
        .iter()
        .map(|item| match item.verdict {
            outbound::Verdict::Sealed(length) => usize::from(length),
            other => panic!("not sealed: {other:?}"),
        })
        .collect();
    drop(items);
    rooms
        .into_iter()
        .zip(lengths)
        .map(|(room, length)| room[..length].to_vec())
        .collect()
}

/// In, stage by stage.
struct Inward {
    near: Fixture,
    owned: Owned,
    far: Fixture,
    sender: Owned,
    size: usize,
    rooms: Vec<Vec<u8>>,
}

impl Inward {
    fn new(suite: SuiteName, size: usize) -> Self {
        let [near, far] = [End::Far, End::Near].map(|end| Fixture::new(suite, end));
        Self {
            owned: Owned::new(&near),
            sender: Owned::new(&far),
            near,
            far,
            size,
            rooms: vec![vec![0; size + 512]; BURST],
        }
    }
}

impl Journey for Inward {
    const STAGES: &'static [&'static str] = &["parse", "admit", "open"];

    fn burst(&mut self, spent: &mut [Spent]) {
        let sealed = sealed_burst(&self.far, &mut self.sender, self.size);
        let (near, owned) = (&self.near, &mut self.owned);
        let packets: ArrayVec<_, BATCH> = timed(&mut spent[0], || {
            let sources = sealed.iter();
            sources
                .filter_map(|source| packet::parse(black_box(source)).ok())
                .collect()
        });
        let items = sealed.iter().zip(packets);
        let items = items.map(|(source, packet)| inbound::Item::new(source, packet));
        let mut items: ArrayVec<_, BATCH> = items.collect();
        timed(&mut spent[1], || {
            inbound::admit(&mut items, &mut owned.inbound(near));
        });
        for (item, room) in items.iter_mut().zip(&mut self.rooms) {
            item.destination = Some(room);
        }
        timed(&mut spent[2], || {
            inbound::open(&mut items, &mut owned.inbound(near));
        });
        let opened = |item: &inbound::Item<'_>| item.verdict == inbound::Verdict::Opened;
        assert!(items.iter().all(opened), "every packet is opened");
    }
}

/// The whole worker on memory ports, and the cipher alone beside it.
struct Whole<'e> {
    bench: Bench<'e>,
    alone: Alone<'e>,
    traffic: Traffic,
}

impl<'e> Whole<'e> {
    fn new(ends: &'e Ends, direction: Direction, size: usize) -> Self {
        let traffic = Traffic {
            direction,
            lengths: vec![size],
        };
        let transform = &ends.near.sas[0].transform;
        let mut bench = Bench::alone(ends);
        bench.warm_up(&traffic);
        Self {
            bench,
            alone: Alone::new(transform, direction, &[size; BURST]),
            traffic,
        }
    }
}

impl Journey for Whole<'_> {
    const STAGES: &'static [&'static str] = &["whole worker", "cipher alone"];

    fn burst(&mut self, spent: &mut [Spent]) {
        let allocations = allocation::count();
        let (cycles, left) = self.bench.burst(&self.traffic);
        assert_eq!(left, BURST, "every packet leaves");
        spent[0] = Spent {
            cycles,
            // Making the frames is in this: it must not allocate either.
            allocations: allocation::count() - allocations,
        };
        spent[1].cycles = self.alone.run();
    }
}

/// Cycles of every burst, and all allocations, of each stage that ran.
#[derive(Default)]
struct Samples {
    cycles: Vec<f64>,
    allocations: u64,
}

fn run<J: Journey>(
    criterion: &mut Criterion<Cycles>,
    (suite, direction, size): (&str, &str, usize),
    make: impl Fn() -> J,
    document: &mut Document,
) {
    let mut group = criterion.benchmark_group(format!("{suite}/{size}/{direction}"));
    group.throughput(Throughput::Elements(BURST as u64));
    for (index, stage) in J::STAGES.iter().enumerate() {
        let mut samples = Samples::default();
        // Made only when the name is not filtered out.
        let mut journey = None;
        group.bench_function(BenchmarkId::from_parameter(stage), |bencher| {
            let journey = journey.get_or_insert_with(&make);
            bencher.iter_custom(|rounds| {
                let mut sum = 0;
                for _ in 0..rounds {
                    let mut spent = vec![Spent::default(); J::STAGES.len()];
                    journey.burst(&mut spent);
                    sum += spent[index].cycles;
                    samples.allocations += spent[index].allocations;
                    let cycles = spent[index].cycles as f64;
                    samples.cycles.push(cycles / BURST as f64);
                }
                sum
            });
        });
        if !samples.cycles.is_empty() {
            document.record(json!({
                "suite": suite,
                "size": size,
                "direction": direction,
                "stage": stage,
                "cycles": quietest_median(&samples.cycles),
                "allocations": samples.allocations,
                "packets": samples.cycles.len() * BURST,
            }));
        }
    }
    group.finish();
}

#[expect(clippy::print_stdout, reason = "the result")]
fn main() {
    let mut criterion = Criterion::default()
        .with_measurement(Cycles)
        .without_plots()
        .sample_size(10)
        .nresamples(1001)
        .warm_up_time(Duration::from_millis(20))
        .measurement_time(Duration::from_millis(60))
        .configure_from_args();
    let mut document = Document::default();
    for suite in SUITES {
        for size in SIZES {
            let out = (suite.name, "out", size);
            let back = (suite.name, "in", size);
            run(
                &mut criterion,
                out,
                || Outward::new(suite, size),
                &mut document,
            );
            run(
                &mut criterion,
                back,
                || Inward::new(suite, size),
                &mut document,
            );
            let one = Scale {
                sas: 1,
                policies: 1,
            };
            for (case, direction) in [(out, Direction::Out), (back, Direction::In)] {
                // One pair of ends serves one bench. They are few, and live as long as the program.
                let make = || {
                    let ends = Box::leak(Box::new(Ends::new(suite, one, 1024)));
                    Whole::new(ends, direction, size)
                };
                run(&mut criterion, case, make, &mut document);
            }
        }
    }
    println!("\ncycles of the time-stamp counter per packet, least of nine medians");
    for record in document.records() {
        println!(
            "{:<20}{:>6} {:<4}{:<30}{:>8.0} cycles {:>4} allocations",
            record["suite"].as_str().unwrap_or_default(),
            record["size"],
            record["direction"].as_str().unwrap_or_default(),
            record["stage"].as_str().unwrap_or_default(),
            record["cycles"].as_f64().unwrap_or(f64::NAN),
            record["allocations"],
        );
    }
    document.save_if_asked();
    criterion.final_summary();
}
