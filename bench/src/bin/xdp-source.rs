//! Sends equal UDP frames over AF_XDP as fast as they go, or as fast as asked, and counts what
//! arrives meanwhile. With `--rate 0` it only counts: the other end of a measurement.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use arrayvec::ArrayVec;
use clap::Parser;
use ipsec::limits::BATCH;
use xipsec::port::xdp::XdpPort;
use xipsec::port::xdp::frame::Received;
use xipsec::port::xdp::program::AttachMode;
use xipsec::port::{Buffer, Burst, Port};
use xipsec_bench::wire::{Counts, Interface, Mac, parse_mac, pin, summary, wait_for_stop};

/// UDP flows that the frames belong to, so that receive-side scaling has something to spread.
const FLOWS: u16 = 64;

/// Pause of an end that has nothing to do: short against a ring of frames at any rate here.
const PAUSE: Duration = Duration::from_micros(100);

#[derive(Parser)]
#[command(about = "Sends and counts frames over AF_XDP until SIGTERM")]
struct Arguments {
    /// The interface.
    #[arg(long)]
    interface: String,
    /// Destination MAC.
    #[arg(long, value_parser = parse_mac, default_value = "02:00:00:00:00:01")]
    destination: Mac,
    /// Bytes of a frame, Ethernet header included, FCS not.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(60..=3800))]
    size: u16,
    /// Frames a second on all queues together; left out: as fast as they go.
    #[arg(long)]
    rate: Option<u64>,
    /// Core of queue 0; queue n is on the n-th after it.
    #[arg(long, default_value_t = 0)]
    core: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut interface = Interface::new(&arguments.interface, AttachMode::Native)?;
    let queues = interface.facts.receive_queues;
    let frame = template(&arguments, interface.facts.mac);
    let ports: Vec<_> = (0..queues)
        .map(|queue| interface.open(queue))
        .collect::<Result<_>>()?;
    let rate = arguments.rate.map(|rate| rate / u64::from(queues));
    let stop = &AtomicBool::new(false);
    let frame = &frame;
    let began = Instant::now();
    let ended: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = ports
            .into_iter()
            .enumerate()
            .map(|(index, port)| {
                let core = arguments.core + index;
                scope.spawn(move || worker(core, port, frame, rate, stop))
            })
            .collect();
        let signal = wait_for_stop();
        stop.store(true, Ordering::Relaxed);
        let ended = workers.into_iter().filter_map(|worker| worker.join().ok());
        signal.map(|()| ended.collect())
    })?;
    report(&ended, began.elapsed())
}

/// IPv4 and UDP with a right header checksum, from 198.18.0.1 to 198.18.1.1 (RFC 2544's addresses).
fn template(arguments: &Arguments, source: Mac) -> Vec<u8> {
    let mut frame = vec![0; usize::from(arguments.size)];
    let length = arguments.size - 14;
    frame[..6].copy_from_slice(&arguments.destination);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&[8, 0]);
    let header = [
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 1, 1,
    ];
    frame[14..34].copy_from_slice(&header);
    frame[16..18].copy_from_slice(&length.to_be_bytes());
    let words = frame[14..34].chunks(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    sum = (sum & 0xffff) + (sum >> 16);
    let sum = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or_default();
    frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    frame[38..40].copy_from_slice(&(length - 20).to_be_bytes());
    frame
}

fn worker(
    core: usize,
    mut port: XdpPort,
    frame: &[u8],
    rate: Option<u64>,
    stop: &AtomicBool,
) -> (XdpPort, Counts) {
    pin(core);
    let mut counts = Counts::default();
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let received = count(&mut port);
        counts.received += received;
        let elapsed = began.elapsed().as_nanos();
        let due = rate.map_or(u128::MAX, |rate| u128::from(rate) * elapsed / 1_000_000_000);
        let sent = send(&mut port, frame, counts.sent, due);
        counts.sent += sent;
        if !port.flush() && received + sent == 0 {
            thread::sleep(PAUSE);
        }
    }
    (port, counts)
}

fn count(port: &mut XdpPort) -> u64 {
    let mut burst: Burst<Received> = ArrayVec::new();
    port.receive(&mut burst, BATCH);
    let count = burst.len() as u64;
    burst.into_iter().for_each(|frame| port.release(frame));
    count
}

/// A batch at most, until `due` frames have left.
fn send(port: &mut XdpPort, frame: &[u8], sent: u64, due: u128) -> u64 {
    for index in 0..BATCH as u64 {
        if u128::from(sent + index) >= due {
            return index;
        }
        let Ok(mut buffer) = port.allocate(frame.len()) else {
            return index;
        };
        let room = &mut buffer.room()[..frame.len()];
        room.copy_from_slice(frame);
        let flow = u16::try_from((sent + index) % u64::from(FLOWS)).unwrap_or_default();
        room[34..36].copy_from_slice(&(1024 + flow).to_be_bytes());
        room[36..38].copy_from_slice(&9_u16.to_be_bytes());
        port.transmit(buffer, frame.len());
    }
    BATCH as u64
}

#[expect(clippy::print_stdout, reason = "the result of the program")]
fn report(ended: &[(XdpPort, Counts)], elapsed: Duration) -> Result<()> {
    let mut summary = summary(ended.iter().map(|(port, counts)| (port, *counts)))?;
    summary["seconds"] = elapsed.as_secs_f64().into();
    println!("{summary}");
    Ok(())
}
