//! Both ends of a device under test in one thread: sends UDP packets into one interface at a given
//! rate, takes what comes out of another, and looks at loss, order and time.
//!
//! What comes out may be clear text or ESP. Of ESP the sequence numbers show the order; with the
//! SA's key one packet in [`SAMPLE`] is opened for the time at which it was sent. What goes in is
//! clear text, or ESP for a device that opens it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arrayvec::ArrayVec;
use ipsec::crypto::{OpenJob, Transform, open};
use ipsec::limits::BATCH;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use xipsec::port::xdp::XdpPort;
use xipsec::port::xdp::frame::{Received, Transmit};
use xipsec::port::xdp::program::AttachMode;
use xipsec::port::{Buffer, Burst, Frame, Port};

use crate::latency::Latency;
use crate::sealer::Sealer;
use crate::search::Trial;
use crate::wire::{Interface, Mac};

/// Of so many ESP packets one is opened: the tester must stay cheap beside what it tests.
pub const SAMPLE: u64 = 16;

/// Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 14 + 20 + 8;

/// Trial, number and time of sending: 20 bytes of payload.
const STAMP: usize = 4 + 8 + 8;

/// UDP's discard port.
const PORT: u16 = 9;

/// A trial has ended when nothing came for so long.
const SILENCE: Duration = Duration::from_millis(30);

/// An interface of this machine, `NAME` or `NAME@NAMESPACE`.
#[derive(Clone, Debug)]
pub struct Place {
    name: String,
    namespace: Option<PathBuf>,
}

impl FromStr for Place {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, namespace) = match text.split_once('@') {
            Some((name, namespace)) => (name, Some(Path::new("/run/netns").join(namespace))),
            None => (text, None),
        };
        Ok(Self {
            name: name.to_owned(),
            namespace,
        })
    }
}

impl Place {
    /// Goes to the namespace, for the rest of the thread's life, and takes queue 0 over.
    fn open(&self) -> Result<(Interface, XdpPort)> {
        if let Some(path) = &self.namespace {
            let file = File::open(path).with_context(|| path.display().to_string())?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        let mut interface = Interface::new(&self.name, AttachMode::Native)?;
        let port = interface.open(0)?;
        Ok((interface, port))
    }
}

/// What the packets are.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// MAC address of the device on the sending side.
    pub destination_mac: Mac,
    /// IPv4 addresses, from and to.
    pub addresses: [std::net::Ipv4Addr; 2],
    /// Lengths of the IP packets in turns, bytes.
    pub lengths: Vec<usize>,
}

/// What was seen in one trial.
#[derive(Default)]
pub struct Seen {
    /// Packets sent.
    pub sent: u64,
    /// Packets that came out of the device.
    pub received: u64,
    /// Those of them that had a number not above an earlier one's.
    pub disordered: u64,
    /// Frames that were neither.
    pub foreign: u64,
    /// Times under way.
    pub latency: Latency,
    seconds: f64,
    last: Option<u64>,
}

impl Seen {
    /// As the search takes it.
    #[must_use]
    pub fn trial(&self, load: f64) -> Trial {
        Trial {
            load,
            sent: self.sent as f64 / self.seconds,
            received: self.received as f64 / self.seconds,
        }
    }

    fn number(&mut self, number: u64) {
        self.received += 1;
        self.disordered += u64::from(self.last.is_some_and(|last| number <= last));
        self.last = self.last.max(Some(number));
    }
}

/// The two interfaces and what goes from one to the other.
pub struct Tester {
    left: XdpPort,
    right: XdpPort,
    source: Mac,
    templates: Vec<Vec<u8>>,
    key: Option<Transform>,
    sealer: Option<Sealer>,
    /// Clear text of a packet that was opened.
    room: Vec<u8>,
    start: Instant,
    trial: u32,
    // Last: the programs must outlive the sockets.
    _interfaces: [Interface; 2],
}

impl Tester {
    /// Takes both interfaces over. The thread ends in the namespace of the right one. With a
    /// `sealer` ESP is sent.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(
        left: &Place,
        right: &Place,
        key: Option<Transform>,
        sealer: Option<Sealer>,
    ) -> Result<Self> {
        let (left, left_port) = left.open()?;
        let (right, right_port) = right.open()?;
        Ok(Self {
            source: left.facts.mac,
            templates: Vec::new(),
            left: left_port,
            right: right_port,
            key,
            sealer,
            room: vec![0; ipsec::limits::PACKET],
            start: Instant::now(),
            trial: 0,
            _interfaces: [left, right],
        })
    }

    /// Sets what the next trials send.
    ///
    /// # Errors
    /// A length that has no room for what is noted in each packet.
    pub fn prepare(&mut self, traffic: &Traffic) -> Result<()> {
        let template = |length: &usize| template(traffic, self.source, *length);
        self.templates = traffic
            .lengths
            .iter()
            .map(template)
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Sends for `duration`, `rate` packets a second or as fast as they go, and counts what
    /// arrives until nothing does any more.
    ///
    /// # Errors
    /// The SA of the sealer has no numbers left.
    pub fn run(&mut self, rate: Option<f64>, duration: Duration) -> Result<Seen> {
        self.trial += 1;
        let mut seen = Seen::default();
        let began = Instant::now();
        let mut elapsed = Duration::ZERO;
        while elapsed < duration {
            let due = rate.map_or(u64::MAX, |rate| whole(rate * elapsed.as_secs_f64()));
            self.send(&mut seen, due)?;
            self.left.flush();
            self.receive(&mut seen);
            elapsed = began.elapsed();
        }
        seen.seconds = elapsed.as_secs_f64();
        let mut quiet = Instant::now();
        while quiet.elapsed() < SILENCE && began.elapsed() < duration + Duration::from_secs(1) {
            self.left.flush();
            if self.receive(&mut seen) > 0 {
                quiet = Instant::now();
            }
        }
        Ok(seen)
    }

    /// A batch at most, until `due` packets have been sent.
    fn send(&mut self, seen: &mut Seen, due: u64) -> Result<()> {
        let mut sealer = self.sealer.take();
        let mut buffers: ArrayVec<(Transmit, usize), BATCH> = ArrayVec::new();
        while !buffers.is_full() && seen.sent < due {
            let turn = usize::try_from(seen.sent).unwrap_or(0) % self.templates.len();
            let clear = self.templates[turn].len();
            let length = match sealer {
                Some(_) => 14 + Sealer::sealed_length(clear - 14),
                None => clear,
            };
            let Ok(mut buffer) = self.left.allocate(length) else {
                break;
            };
            let frame = &mut buffer.room()[..clear];
            frame.copy_from_slice(&self.templates[turn]);
            let stamp = &mut frame[HEADERS..HEADERS + STAMP];
            stamp[..4].copy_from_slice(&self.trial.to_be_bytes());
            stamp[4..12].copy_from_slice(&seen.sent.to_be_bytes());
            stamp[12..].copy_from_slice(&nanoseconds(self.start).to_be_bytes());
            if let Some(sealer) = &mut sealer {
                sealer.add(&frame[14..]);
            }
            buffers.push((buffer, length));
            seen.sent += 1;
        }
        if let Some(sealer) = &mut sealer {
            let rooms = buffers.iter_mut();
            let mut rooms = rooms.map(|(it, length)| &mut it.room()[14..*length]);
            sealer.seal(&mut rooms.by_ref().collect())?;
        }
        for (buffer, length) in buffers {
            self.left.transmit(buffer, length);
        }
        self.sealer = sealer;
        Ok(())
    }

    /// One burst off the right interface; what comes back on the left one is nobody's.
    fn receive(&mut self, seen: &mut Seen) -> usize {
        let mut burst: Burst<Received> = ArrayVec::new();
        self.left.receive(&mut burst, BATCH);
        burst.drain(..).for_each(|frame| self.left.release(frame));
        self.right.receive(&mut burst, BATCH);
        let (now, count) = (nanoseconds(self.start), burst.len());
        for frame in burst {
            self.look(frame.bytes(), now, seen);
            self.right.release(frame);
        }
        self.right.flush();
        count
    }

    fn look(&mut self, frame: &[u8], now: u64, seen: &mut Seen) {
        let ip = frame.get(14..).unwrap_or_default();
        let known = match (ip.first(), ip.get(9)) {
            (Some(0x45), Some(50)) => self.look_at_esp(ip, now, seen),
            (Some(0x45), Some(17)) => self.look_at_stamp(&ip[20..], now, seen),
            _ => None,
        };
        seen.foreign += u64::from(known.is_none());
    }

    /// `datagram`: from the UDP header on.
    fn look_at_stamp(&self, datagram: &[u8], now: u64, seen: &mut Seen) -> Option<()> {
        let (number, time) = self.stamp(datagram)?;
        seen.number(number);
        seen.latency.record(now.saturating_sub(time));
        Some(())
    }

    /// Number and time that a packet of this trial carries.
    fn stamp(&self, datagram: &[u8]) -> Option<(u64, u64)> {
        let port = datagram.get(2..4)? == PORT.to_be_bytes();
        let stamp = datagram.get(8..8 + STAMP)?;
        let (trial, stamp) = stamp.split_first_chunk()?;
        let (number, time) = stamp.split_first_chunk()?;
        let number = u64::from_be_bytes(*number);
        let time = u64::from_be_bytes(*time.first_chunk()?);
        (port && u32::from_be_bytes(*trial) == self.trial).then_some((number, time))
    }

    fn look_at_esp(&mut self, ip: &[u8], now: u64, seen: &mut Seen) -> Option<()> {
        let length = usize::from(u16::from_be_bytes(*ip.get(2..4)?.first_chunk()?));
        let esp = ip.get(20..length)?;
        let sequence = u32::from_be_bytes(*esp.get(4..8)?.first_chunk()?);
        seen.number(sequence.into());
        let Some(transform) = self.key.as_ref().filter(|_| seen.received % SAMPLE == 1) else {
            return Some(());
        };
        let mut jobs = [OpenJob {
            transform,
            source: esp,
            destination: &mut self.room,
            sequence: sequence.into(),
            esn: false,
            authentic: false,
        }];
        open(&mut jobs);
        if !jobs[0].authentic {
            return None;
        }
        let (_, time) = self.stamp(self.room.get(20..)?)?;
        seen.latency.record(now.saturating_sub(time));
        Some(())
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "packets, of which parts do not count"
)]
const fn whole(packets: f64) -> u64 {
    packets as u64
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A frame with everything but the stamp.
fn template(traffic: &Traffic, source: Mac, length: usize) -> Result<Vec<u8>> {
    let total = u16::try_from(length).context("longer than an IP packet")?;
    if 14 + length < HEADERS + STAMP {
        bail!("a packet of {length} bytes has no room for number and time");
    }
    let mut frame = vec![0; 14 + length];
    frame[..6].copy_from_slice(&traffic.destination_mac);
    frame[6..12].copy_from_slice(&source);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut frame[14..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..16].copy_from_slice(&traffic.addresses[0].octets());
    ip[16..20].copy_from_slice(&traffic.addresses[1].octets());
    let sum = ipsec::wire::checksum::Sum::ZERO.bytes(&ip[..20]).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    // No UDP checksum: the stamp changes with every packet.
    ip[20..22].copy_from_slice(&5000_u16.to_be_bytes());
    ip[22..24].copy_from_slice(&PORT.to_be_bytes());
    ip[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_judged_by_numbers() {
        let mut seen = Seen::default();
        [1, 2, 4, 3, 4, 5]
            .into_iter()
            .for_each(|number| seen.number(number));
        assert_eq!((seen.received, seen.disordered), (6, 2));
    }

    #[test]
    fn templates_are_ip_packets_with_room_for_the_stamp() -> Result<()> {
        let traffic = Traffic {
            destination_mac: [2; 6],
            addresses: ["10.1.0.2".parse()?, "10.2.0.2".parse()?],
            lengths: vec![64],
        };
        let frame = template(&traffic, [4; 6], 64)?;
        let packet = ipsec::packet::parse(&frame[14..]).map_err(|it| anyhow::anyhow!("{it:?}"))?;
        assert_eq!((frame.len(), packet.length), (78, 64));
        assert!(template(&traffic, [4; 6], 47).is_err());
        Ok(())
    }
}
