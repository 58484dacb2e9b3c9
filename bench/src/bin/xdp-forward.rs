//! A bare AF_XDP forwarder between two interfaces: what the wire and the kernel allow, and nothing
//! of IPsec. Demo and benches state the gateway's speed as a share of this.
//!
//! Frames go out as they came, MAC addresses apart: no checksum, hop limit or address is looked at.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Result, bail};
use arrayvec::ArrayVec;
use clap::{Parser, ValueEnum};
use ipsec::limits::BATCH;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use xipsec::port::xdp::XdpPort;
use xipsec::port::xdp::frame::Received;
use xipsec::port::xdp::program::AttachMode;
use xipsec::port::{Buffer, Burst, Frame, Port};
use xipsec_bench::wire::{Counts, Interface, Mac, parse_mac, pin, summary, wait_for_stop};

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
    /// Core of the first queue's worker; the others follow
    #[arg(long, default_value_t = 0)]
    first_core: usize,
    /// One interface.
    #[arg(long)]
    left: String,
    /// The other.
    #[arg(long)]
    right: String,
    /// Destination MAC of frames that leave by the left interface, whose own becomes their source;
    /// left out: both as they came.
    #[arg(long, value_parser = parse_mac)]
    left_mac: Option<Mac>,
    /// The same for the right.
    #[arg(long, value_parser = parse_mac)]
    right_mac: Option<Mac>,
    /// How XDP is attached.
    #[arg(long, value_enum, default_value = "native")]
    mode: Mode,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Native,
    Generic,
}

impl From<Mode> for AttachMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Native,
            Mode::Generic => Self::Generic,
        }
    }
}

/// One queue of one side.
struct Direction {
    port: XdpPort,
    source: Mac,
    destination: Option<Mac>,
    counts: Counts,
}

impl Direction {
    fn open(interface: &mut Interface, queue: u32, destination: Option<Mac>) -> Result<Self> {
        Ok(Self {
            port: interface.open(queue)?,
            source: interface.facts.mac,
            destination,
            counts: Counts::default(),
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mode = arguments.mode.into();
    let mut left = Interface::new(&arguments.left, mode)?;
    let mut right = Interface::new(&arguments.right, mode)?;
    let queues = left.facts.receive_queues;
    if queues != right.facts.receive_queues {
        bail!("the two interfaces have different numbers of receive queues");
    }
    let pairs: Vec<_> = (0..queues)
        .map(|queue| {
            let left = Direction::open(&mut left, queue, arguments.left_mac)?;
            let right = Direction::open(&mut right, queue, arguments.right_mac)?;
            Ok((left, right))
        })
        .collect::<Result<_>>()?;
    let stop = AtomicBool::new(false);
    let stop = &stop;
    let ended: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = pairs
            .into_iter()
            .enumerate()
            .map(|(index, pair)| {
                let core = arguments.first_core + index;
                scope.spawn(move || worker(core, pair, stop))
            })
            .collect();
        let signal = wait_for_stop();
        stop.store(true, Ordering::Relaxed);
        let ended = workers.into_iter().filter_map(|worker| worker.join().ok());
        signal.map(|()| ended.collect())
    })?;
    report(&ended)
}

fn worker(
    core: usize,
    (mut left, mut right): (Direction, Direction),
    stop: &AtomicBool,
) -> (Direction, Direction) {
    pin(core);
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
    let left = summary(ended.iter().map(|(left, _)| (&left.port, left.counts)))?;
    let right = summary(ended.iter().map(|(_, right)| (&right.port, right.counts)))?;
    println!("{}", json!({"left": left, "right": right}));
    Ok(())
}
