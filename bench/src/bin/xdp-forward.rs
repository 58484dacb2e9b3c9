//! A bare AF_XDP forwarder between two interfaces: what the wire and the kernel allow, and nothing
//! of IPsec. Demo and benches state the gateway's speed as a share of this.
//!
//! Frames go out as they came, MAC addresses apart: no checksum, hop limit or address is looked at.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use arrayvec::ArrayVec;
use clap::{Parser, ValueEnum};
use ipsec::limits::BATCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use xipsec::port::settings::{Rings, Side, Umem, ZeroCopy};
use xipsec::port::xdp::frame::Received;
use xipsec::port::xdp::offload::Offloads;
use xipsec::port::xdp::probe::Facts;
use xipsec::port::xdp::program::{AttachMode, Entry, SteerProgram, SteerSettings};
use xipsec::port::xdp::{Opening, Statistics, XdpPort};
use xipsec::port::{Buffer, Burst, Frame, Port};

/// Empty rounds before a worker sleeps: long enough to bridge the gaps of a busy wire.
const SPINS: u32 = 200;

/// Longest sleep, so that a stop is noticed.
const SLEEP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

#[derive(Parser)]
#[command(about = "Forwards every frame between two interfaces over AF_XDP")]
struct Arguments {
    /// One interface.
    #[arg(long)]
    left: String,
    /// The other.
    #[arg(long)]
    right: String,
    /// Destination MAC of frames that leave by the left interface; left out: as it came.
    #[arg(long, value_parser = parse_mac)]
    left_mac: Option<Mac>,
    /// The same for the right.
    #[arg(long, value_parser = parse_mac)]
    right_mac: Option<Mac>,
    /// How XDP is attached.
    #[arg(long, value_enum, default_value = "native")]
    mode: Mode,
}

type Mac = [u8; 6];

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Native,
    Generic,
}

/// One interface with its program and what restores it.
struct Interface {
    facts: Facts,
    program: SteerProgram,
    destination: Option<Mac>,
    _offloads: Offloads,
}

impl Interface {
    fn new(name: &str, destination: Option<Mac>, mode: Mode) -> Result<Self> {
        let facts = Facts::probe(name)?;
        if facts.needs_frags() {
            bail!("{name}: MTU {} takes packets of several frames", facts.mtu);
        }
        let (offloads, _) = Offloads::switch_off(name, mode.into())?;
        // The side matters to steering only, and this program does not steer.
        let settings = SteerSettings {
            entry: Entry::RedirectAll,
            ..SteerSettings::new(Side::Unprotected, facts.mac, facts.receive_queues)
        };
        let mut program = SteerProgram::load(name, &settings)?;
        program.attach(mode.into())?;
        Ok(Self {
            facts,
            program,
            destination,
            _offloads: offloads,
        })
    }

    fn open(&mut self, queue: u32, mode: Mode) -> Result<Direction> {
        let opening = Opening {
            interface: &self.facts.name,
            queue,
            attachment: mode.into(),
            zero_copy: ZeroCopy::Auto,
            rings: Rings::default(),
            umem: Umem::default(),
            frags: false,
        };
        let (port, _) = XdpPort::open(&opening)?;
        self.program.insert_socket(queue, port.socket())?;
        Ok(Direction {
            port,
            source: self.facts.mac,
            destination: self.destination,
            counts: Counts::default(),
        })
    }
}

impl From<Mode> for AttachMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Counts {
    received: u64,
    sent: u64,
    dropped: u64,
}

/// One queue of one side.
struct Direction {
    port: XdpPort,
    source: Mac,
    destination: Option<Mac>,
    counts: Counts,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mode = arguments.mode;
    let mut left = Interface::new(&arguments.left, arguments.left_mac, mode)?;
    let mut right = Interface::new(&arguments.right, arguments.right_mac, mode)?;
    let queues = left.facts.receive_queues;
    if queues != right.facts.receive_queues {
        bail!("the two interfaces have different numbers of receive queues");
    }
    let pairs: Vec<_> = (0..queues)
        .map(|queue| Ok((left.open(queue, mode)?, right.open(queue, mode)?)))
        .collect::<Result<_>>()?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let ended: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = pairs
            .into_iter()
            .enumerate()
            .map(|(index, pair)| scope.spawn(move || worker(index, pair, stop)))
            .collect();
        let signal = wait_for_stop();
        stop.store(true, Ordering::Relaxed);
        let ended = workers.into_iter().filter_map(|worker| worker.join().ok());
        signal.map(|()| ended.collect())
    })?;
    report(&ended)
}

/// Until SIGTERM or SIGINT.
fn wait_for_stop() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn worker(
    index: usize,
    (mut left, mut right): (Direction, Direction),
    stop: &AtomicBool,
) -> (Direction, Direction) {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(core) = cores.get(index % cores.len().max(1)) {
        core_affinity::set_for_current(*core);
    }
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        let moved = forward(&mut left, &mut right) + forward(&mut right, &mut left);
        let pending = left.port.flush() | right.port.flush();
        idle = if moved > 0 || pending { 0 } else { idle + 1 };
        if idle > SPINS {
            sleep(&left.port, &right.port);
        }
    }
    (left, right)
}

/// One batch from `from` to `to`.
fn forward(from: &mut Direction, to: &mut Direction) -> usize {
    let mut burst: Burst<Received> = ArrayVec::new();
    from.port.receive(&mut burst, BATCH);
    let count = burst.len();
    for frame in burst {
        from.counts.received += 1;
        let bytes = frame.bytes();
        match to.port.allocate(bytes.len()) {
            Ok(mut buffer) => {
                let room = &mut buffer.room()[..bytes.len()];
                room.copy_from_slice(bytes);
                if let Some(destination) = to.destination {
                    room[..6].copy_from_slice(&destination);
                    room[6..12].copy_from_slice(&to.source);
                }
                to.port.transmit(buffer, bytes.len());
                to.counts.sent += 1;
            }
            Err(_) => to.counts.dropped += 1,
        }
        from.port.release(frame);
    }
    count
}

fn sleep(left: &XdpPort, right: &XdpPort) {
    let descriptor = |port| -> BorrowedFd<'_> { XdpPort::socket(port) };
    let mut fds = [
        PollFd::from_borrowed_fd(descriptor(left), PollFlags::IN),
        PollFd::from_borrowed_fd(descriptor(right), PollFlags::IN),
    ];
    // A signal or a lost interface ends the sleep early, which is all that matters here.
    poll(&mut fds, Some(&SLEEP)).unwrap_or_default();
}

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn report(ended: &[(Direction, Direction)]) -> Result<()> {
    let left: Vec<_> = ended.iter().map(|(left, _)| left).collect();
    let right: Vec<_> = ended.iter().map(|(_, right)| right).collect();
    println!(
        "{}",
        json!({"left": summary(&left)?, "right": summary(&right)?})
    );
    Ok(())
}

fn summary(queues: &[&Direction]) -> Result<serde_json::Value> {
    let statistics: Vec<Statistics> = queues
        .iter()
        .map(|direction| direction.port.statistics().context("socket statistics"))
        .collect::<Result<_>>()?;
    let counted = |of: fn(&Counts) -> u64| -> u64 { queues.iter().map(|q| of(&q.counts)).sum() };
    let kernel = |of: fn(&Statistics) -> u64| -> u64 { statistics.iter().map(of).sum() };
    Ok(json!({
        "received": counted(|counts| counts.received),
        "sent": counted(|counts| counts.sent),
        "dropped": counted(|counts| counts.dropped),
        "kicks": kernel(|kernel| kernel.kicks.kicks),
        "kicks_pending": kernel(|kernel| kernel.kicks.pending),
        "rx_dropped": kernel(|kernel| kernel.rx_dropped),
        "rx_ring_full": kernel(|kernel| kernel.rx_ring_full),
        "rx_fill_ring_empty": kernel(|kernel| kernel.rx_fill_ring_empty),
        "frames_home": queues.iter().all(|direction| direction.port.ledger().is_home()),
    }))
}

fn parse_mac(text: &str) -> Result<Mac> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).with_context(|| format!("{text}: no MAC")))
        .collect::<Result<_>>()?;
    Mac::try_from(bytes)
        .ok()
        .with_context(|| format!("{text}: six bytes make a MAC"))
}
