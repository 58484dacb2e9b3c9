//! Cycles per packet of each stage of the pipeline on memory, for every suite of the first cut and
//! several packet sizes: crypto, our own work, and the whole worker.
//!
//! A figure is the median over many bursts of 32 packets, in cycles of the time-stamp counter.
//! Machine noise only adds, so the median of a busy machine is an upper bound. Ratios within one
//! run are what counts.
#![deny(unsafe_code)]

use std::hint::black_box;

use arrayvec::ArrayVec;
use clap::Parser;
use ipsec::limits::BATCH;
use ipsec::policy::Memory;
use ipsec::sa::SaSlot;
use ipsec::sa::state::States;
use ipsec::tables::Count;
use ipsec::time::Time;
use ipsec::{inbound, outbound, packet};
use xipsec::port::Port;
use xipsec::port::memory::MemoryPort;
use xipsec::worker::Worker;
use xipsec::worker::host::NoHost;
use xipsec_bench::cycles::{Samples, now};
use xipsec_bench::fixture::{End, Fixture, LAN, SUITES, SuiteName, WAN, plain_frame};

/// Packets of one burst.
const BURST: usize = 32;

/// Offset of the IP packet in a frame.
const ETHERNET: usize = 14;

/// Cycles per packet of each pipeline stage on memory ports.
#[derive(Parser)]
struct Arguments {
    /// Bursts per figure
    #[arg(long, default_value_t = 2000)]
    bursts: usize,
    /// Sizes of the inner IP packet, bytes
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512, 1400])]
    sizes: Vec<usize>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Cycles per packet of one suite and size.
struct Figures {
    suite: &'static str,
    size: usize,
    stages: Vec<(&'static str, f64)>,
}

fn main() {
    let arguments = Arguments::parse();
    let mut all = Vec::new();
    for suite in SUITES {
        for size in &arguments.sizes {
            let mut stages = outbound_stages(suite, *size, arguments.bursts);
            stages.extend(inbound_stages(suite, *size, arguments.bursts));
            stages.extend(whole_worker(suite, *size, arguments.bursts));
            all.push(Figures {
                suite: suite.name,
                size: *size,
                stages,
            });
        }
    }
    print(&all, arguments.json);
}

#[expect(clippy::print_stdout, reason = "the result")]
fn print(all: &[Figures], json: bool) {
    if json {
        let rows: Vec<_> = all
            .iter()
            .map(|figures| {
                let stages: serde_json::Map<String, serde_json::Value> = figures
                    .stages
                    .iter()
                    .map(|(name, cycles)| ((*name).to_owned(), (*cycles).into()))
                    .collect();
                serde_json::json!({
                    "suite": figures.suite,
                    "size": figures.size,
                    "cycles_per_packet": stages,
                })
            })
            .collect();
        println!("{}", serde_json::Value::Array(rows));
        return;
    }
    println!("cycles per packet (time-stamp counter), bursts of {BURST}, median");
    let Some(first) = all.first() else { return };
    print!("{:<18}{:>6}", "suite", "bytes");
    for (name, _) in &first.stages {
        print!("{name:>14}");
    }
    println!();
    for figures in all {
        print!("{:<18}{:>6}", figures.suite, figures.size);
        for (_, cycles) in &figures.stages {
            print!("{cycles:>14.0}");
        }
        println!();
    }
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
            policies: vec![Count::default(); fixture.snapshot.tables.policy_count()],
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

fn outbound_stages(suite: SuiteName, size: usize, bursts: usize) -> Vec<(&'static str, f64)> {
    let fixture = Fixture::new(suite, End::Near);
    let mut owned = Owned::new(&fixture);
    let packet = plain_frame(size)[ETHERNET..].to_vec();
    let mut sources = vec![packet; BURST];
    let mut rooms = vec![vec![0; size + 512]; BURST];
    let mut samples = Samples::new(["parse", "select", "fit", "protect"]);
    for _ in 0..bursts {
        for source in &mut sources {
            // The pipeline lowers it; the checksum belongs to 64.
            source.copy_from_slice(&plain_frame(size)[ETHERNET..]);
        }
        let start = now();
        let packets: ArrayVec<_, BATCH> = sources
            .iter()
            .filter_map(|source| packet::parse(black_box(source)).ok())
            .collect();
        samples.add(0, start, BURST);
        let mut items: ArrayVec<outbound::Item<'_>, BATCH> = sources
            .iter_mut()
            .zip(packets)
            .map(|(source, packet)| outbound::Item::new(source, packet, false))
            .collect();
        let start = now();
        outbound::select(&mut items, &mut owned.outbound(&fixture));
        samples.add(1, start, BURST);
        for item in &mut items {
            item.mtu = 9216;
        }
        let start = now();
        outbound::fit(&mut items);
        samples.add(2, start, BURST);
        for (item, room) in items.iter_mut().zip(&mut rooms) {
            item.destination = Some(room);
        }
        let start = now();
        outbound::protect(&mut items, &mut owned.outbound(&fixture));
        samples.add(3, start, BURST);
        let sealed =
            |item: &outbound::Item<'_>| matches!(item.verdict, outbound::Verdict::Sealed(_));
        assert!(items.iter().all(sealed), "every packet is sealed");
    }
    samples.medians()
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

fn inbound_stages(suite: SuiteName, size: usize, bursts: usize) -> Vec<(&'static str, f64)> {
    let (near, far) = (
        Fixture::new(suite, End::Far),
        Fixture::new(suite, End::Near),
    );
    let (mut owned, mut sender) = (Owned::new(&near), Owned::new(&far));
    let mut rooms = vec![vec![0; size + 512]; BURST];
    let mut samples = Samples::new(["in parse", "admit", "open"]);
    for _ in 0..bursts {
        let sealed = sealed_burst(&far, &mut sender, size);
        let start = now();
        let packets: ArrayVec<_, BATCH> = sealed
            .iter()
            .filter_map(|source| packet::parse(black_box(source)).ok())
            .collect();
        samples.add(0, start, BURST);
        let mut items: ArrayVec<inbound::Item<'_>, BATCH> = sealed
            .iter()
            .zip(packets)
            .map(|(source, packet)| inbound::Item::new(source, packet))
            .collect();
        let start = now();
        inbound::admit(&mut items, &mut owned.inbound(&near));
        samples.add(1, start, BURST);
        for (item, room) in items.iter_mut().zip(&mut rooms) {
            item.destination = Some(room);
        }
        let start = now();
        inbound::open(&mut items, &mut owned.inbound(&near));
        samples.add(2, start, BURST);
        let opened = |item: &inbound::Item<'_>| item.verdict == inbound::Verdict::Opened;
        assert!(items.iter().all(opened), "every packet is opened");
    }
    samples.medians()
}

fn serve(
    worker: &mut Worker<MemoryPort, NoHost>,
    lane: usize,
    other: usize,
    frames: &[Vec<u8>],
    fixture: &Fixture,
) -> u64 {
    for frame in frames {
        assert!(worker.lanes_mut()[lane].port.inject(frame), "a free frame");
    }
    let start = now();
    let served = worker.serve(lane, BATCH, &fixture.snapshot, Time(1));
    worker.end_round(&fixture.snapshot, Time(1));
    let cycles = now() - start;
    assert_eq!(served, frames.len());
    let mut sent = 0;
    while worker.lanes_mut()[other]
        .port
        .collect(<[u8]>::len)
        .is_some()
    {
        sent += 1;
    }
    assert_eq!(
        sent,
        frames.len(),
        "every packet leaves: {:?}",
        worker.tally()
    );
    assert!(worker.lanes_mut()[lane].port.ledger().is_home());
    cycles
}

fn whole_worker(suite: SuiteName, size: usize, bursts: usize) -> Vec<(&'static str, f64)> {
    let near = Fixture::new(suite, End::Near);
    let mut worker = near.worker();
    let frames = vec![plain_frame(size); BURST];
    let mut samples = Samples::new(["worker out", "worker in"]);
    for _ in 0..bursts {
        let cycles = serve(&mut worker, LAN, WAN, &frames, &near);
        samples.add_cycles(0, cycles, BURST);
    }
    let (opener, far) = (
        Fixture::new(suite, End::Far),
        Fixture::new(suite, End::Near),
    );
    let (mut worker, mut sender) = (opener.worker(), Owned::new(&far));
    for _ in 0..bursts {
        let frames: Vec<Vec<u8>> = sealed_burst(&far, &mut sender, size)
            .into_iter()
            .map(|packet| {
                let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
                frame.extend(packet);
                frame
            })
            .collect();
        let cycles = serve(&mut worker, WAN, LAN, &frames, &opener);
        samples.add_cycles(1, cycles, BURST);
    }
    samples.medians()
}
