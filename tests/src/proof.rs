//! Proof by capture: the wire between the gateways carries ESP alone, and what scapy decrypts with
//! the keys is what the hosts sent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::capture::Capture;
use crate::config::{LEFT, RIGHT, Sa};
use crate::packets::{self, ESP, Frame, TCP, UDP};
use crate::peer;
use crate::topology::Lab;

/// Three captures at once: the middle wire and both hosts.
#[derive(Debug)]
pub struct Watch {
    captures: [Capture; 3],
    wire: PathBuf,
}

/// What the captures say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence {
    /// ESP packets on the middle wire.
    pub esp: u64,
    /// Frames of neighbour resolution there.
    pub neighbor: u64,
    /// Everything else there: must be 0.
    pub other: u64,
    /// ESP packets that scapy could not decrypt: must be 0.
    pub failed: u64,
    /// (key, IV) pairs that came more than once: must be 0.
    pub repeated: u64,
    /// ESP packets whose number is not above that of the SA's packet before: must be 0.
    pub fallen: usize,
    /// Packets that a host sent to the other.
    pub sent: usize,
    /// Of these, the ones that the wire carried, byte for byte but for TTL and checksums.
    pub carried: usize,
    /// Decrypted packets that no host has sent: must be 0.
    pub foreign: usize,
    /// Decrypted TCP and UDP packets with a wrong checksum: must be 0.
    pub wrong_checksums: usize,
}

impl Watch {
    /// Starts the captures. The plan of `lab` must have a tap.
    ///
    /// # Errors
    /// When there is no tap or tcpdump does not start.
    pub fn start(lab: &Lab) -> Result<Self> {
        let wire = lab.directory().join("wire.pcap");
        let tap = lab.wire.as_ref().context("the middle wire has no tap")?;
        let host = |name: &str| lab.directory().join(name);
        let captures = [
            Capture::start(tap, "wa", "", &wire)?,
            Capture::start(&lab.host_a, "eth0", "", &host("hostA.pcap"))?,
            Capture::start(&lab.host_b, "eth0", "", &host("hostB.pcap"))?,
        ];
        Ok(Self { captures, wire })
    }

    /// Ends the captures and compares them.
    ///
    /// # Errors
    /// When a capture has gaps or a script fails; not when the evidence is bad.
    pub fn conclude(self, sas: &[Sa]) -> Result<Evidence> {
        let [wire, host_a, host_b] = self.captures;
        let fallen = fallen(&wire.stop()?);
        let [host_a, host_b] = [host_a.stop()?, host_b.stop()?];
        let found = evidence(sas, &self.wire, &host_a, &host_b)?;
        Ok(Evidence { fallen, ..found })
    }
}

impl Evidence {
    /// Whether nothing on the wire speaks against the gateways.
    ///
    /// # Errors
    /// When something does; the text shows all numbers.
    pub fn check(&self) -> Result<()> {
        let against = [self.other, self.failed, self.repeated];
        let bad = [self.fallen, self.foreign, self.wrong_checksums];
        let clean = against == [0; 3] && bad == [0; 3];
        ensure!(
            clean,
            "the capture of the middle wire speaks against us: {self:?}"
        );
        ensure!(
            self.esp > 0 && self.carried > 0,
            "nothing was on the middle wire: {self:?}"
        );
        Ok(())
    }
}

fn evidence(sas: &[Sa], wire: &Path, host_a: &[Frame], host_b: &[Frame]) -> Result<Evidence> {
    let opened = peer::open(sas, wire)?;
    let mut found = Evidence {
        esp: opened.count("esp"),
        neighbor: opened.count("neighbor"),
        other: opened.count("other"),
        failed: opened.count("failed"),
        repeated: opened.count("repeated"),
        ..Evidence::default()
    };
    let mut sent: HashMap<Vec<u8>, usize> = HashMap::new();
    for (frames, from, to) in [(host_a, &LEFT, &RIGHT), (host_b, &RIGHT, &LEFT)] {
        for frame in frames
            .iter()
            .filter(|frame| is_between(frame, from.host, to.host))
        {
            *sent.entry(comparable(frame.packet())).or_default() += 1;
            found.sent += 1;
        }
    }
    for frame in &opened.inner {
        match sent.get_mut(&comparable(frame.packet())) {
            Some(left) if *left > 0 => {
                *left -= 1;
                found.carried += 1;
            }
            _ => found.foreign += 1,
        }
        found.wrong_checksums += usize::from(!has_right_checksum(frame));
    }
    Ok(found)
}

/// How often a number on the wire is not above the one before of the same SA.
fn fallen(wire: &[Frame]) -> usize {
    let mut last = HashMap::new();
    let mut fallen = 0;
    for frame in wire {
        let packet = frame.packet();
        let (Some(ends), Some((at, ESP))) = (frame.addresses(), transport(packet)) else {
            continue;
        };
        let Some((spi, number)) = packet
            .get(at..at + 8)
            .map(|header| header.split_at(4))
            .map(|(spi, number)| (spi.to_vec(), number.to_vec()))
        else {
            continue;
        };
        if let Some(before) = last.insert((ends, spi), number.clone())
            && before >= number
        {
            fallen += 1;
        }
    }
    fallen
}

fn is_between(frame: &Frame, from: [&str; 2], to: [&str; 2]) -> bool {
    let is = |address: std::net::IpAddr, of: [&str; 2]| of.contains(&address.to_string().as_str());
    frame
        .addresses()
        .is_some_and(|(source, destination)| is(source, from) && is(destination, to))
}

/// Header length and protocol of a packet that is no fragment and has no extension header.
fn transport(packet: &[u8]) -> Option<(usize, u8)> {
    let first = *packet.first()?;
    if first >> 4 == 6 {
        return Some((40, *packet.get(6)?));
    }
    let whole = packet.get(6)? & 0x3f == 0 && *packet.get(7)? == 0;
    whole.then_some((usize::from(first & 15) * 4, *packet.get(9)?))
}

/// The packet without what a router changes and what a sender may leave unfinished.
fn comparable(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let header = transport(&packet);
    let four = packet.first().is_some_and(|byte| byte >> 4 == 4);
    let mut clear = |at: usize, length: usize| {
        if let Some(field) = packet.get_mut(at..at + length) {
            field.fill(0);
        }
    };
    if four {
        clear(8, 1);
        clear(10, 2);
    } else {
        clear(7, 1);
    }
    match header {
        Some((at, TCP)) => clear(at + 16, 2),
        Some((at, UDP)) => clear(at + 6, 2),
        _ => {}
    }
    packet
}

fn has_right_checksum(frame: &Frame) -> bool {
    let packet = frame.packet();
    let Some((at, protocol @ (TCP | UDP))) = transport(packet) else {
        return true;
    };
    let (Some((source, destination)), Some(payload)) = (frame.addresses(), packet.get(at..)) else {
        return false;
    };
    let none = protocol == UDP && payload.get(6..8) == Some(&[0, 0]);
    let pseudo = packets::pseudo_sum(source, destination, protocol, payload.len());
    none || packets::checksum(pseudo, payload) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_rise_are_noticed() {
        let esp = |spi: u8, number: u8| {
            let mut bytes = vec![0; 14 + 20 + 8];
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            bytes[14 + 9] = ESP;
            bytes[14 + 20 + 3] = spi;
            bytes[14 + 20 + 7] = number;
            Frame::at(0, bytes)
        };
        let rising = [esp(1, 1), esp(2, 1), esp(1, 2), esp(2, 9)];
        assert_eq!(fallen(&rising), 0);
        let falling = [esp(1, 1), esp(1, 3), esp(1, 2), esp(2, 1), esp(1, 2)];
        assert_eq!(fallen(&falling), 2);
    }
}
