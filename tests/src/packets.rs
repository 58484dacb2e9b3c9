//! A tiny packet builder and capture file reader and writer, independent of the product's own:
//! what both would get wrong in the same way no test could see.

use std::borrow::Cow;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pcap_file::pcapng::blocks::enhanced_packet::EnhancedPacketOption;
use pcap_file::pcapng::{Block, PcapNgReader};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ESP.
pub const ESP: u8 = 50;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// One frame of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Time since the epoch.
    pub time: Duration,
    /// Ethernet frame without FCS.
    pub bytes: Vec<u8>,
    /// The packet's comment, in pcapng.
    pub comment: String,
}

impl Frame {
    /// A frame at `microseconds` since the epoch.
    pub fn at(microseconds: u64, bytes: Vec<u8>) -> Self {
        Self {
            time: Duration::from_micros(microseconds),
            bytes,
            comment: String::new(),
        }
    }

    /// Its EtherType; 0 if it is too short to have one.
    pub fn ethertype(&self) -> u16 {
        self.bytes
            .get(12..14)
            .map_or(0, |field| u16::from_be_bytes([field[0], field[1]]))
    }

    /// What follows the Ethernet header.
    pub fn packet(&self) -> &[u8] {
        self.bytes.get(14..).unwrap_or_default()
    }

    /// The IP protocol, or IPv6's first next header; `None` if it is neither IPv4 nor IPv6.
    pub fn protocol(&self) -> Option<u8> {
        match self.ethertype() {
            IPV4 => self.packet().get(9).copied(),
            IPV6 => self.packet().get(6).copied(),
            _ => None,
        }
    }

    /// Source and destination, if it is IPv4 or IPv6.
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        let packet = self.packet();
        match self.ethertype() {
            IPV4 => Some((v4(packet.get(12..16)?), v4(packet.get(16..20)?))),
            IPV6 => Some((v6(packet.get(8..24)?)?, v6(packet.get(24..40)?)?)),
            _ => None,
        }
    }
}

fn v4(bytes: &[u8]) -> IpAddr {
    IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn v6(bytes: &[u8]) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
}

/// The Internet checksum of `bytes` added to `start`.
pub fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The IP packet when a gateway has forwarded it.
pub fn one_hop_less(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    packet[10..12].fill(0);
    let sum = checksum(0, &packet[..20]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The unfolded sum of the pseudo header of TCP, UDP or ICMPv6.
pub fn pseudo_sum(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u32 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => u32::from(!checksum(0, &address.octets())),
        IpAddr::V6(address) => u32::from(!checksum(0, &address.octets())),
    };
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    address(source) + address(destination) + u32::from(protocol) + length
}

/// An Ethernet frame from MAC `source` to MAC `destination`, in the usual notation.
pub fn ethernet(source: &str, destination: &str, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = mac(destination).to_vec();
    frame.extend(mac(source));
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

fn mac(text: &str) -> [u8; 6] {
    let mut bytes = [0; 6];
    for (byte, digits) in bytes.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(digits, 16).unwrap_or(0);
    }
    bytes
}

/// What an IP header says beside addresses, protocol and length.
#[derive(Clone, Copy, Debug)]
pub struct IpFields {
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Type of service or traffic class, ECN in its two low bits.
    pub traffic_class: u8,
    /// Identification (IPv4).
    pub identification: u16,
    /// Flags and fragment offset as the wire has them (IPv4).
    pub fragment: u16,
}

/// The flag "don't fragment" in [`IpFields::fragment`].
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The flag "more fragments" in [`IpFields::fragment`].
pub const MORE_FRAGMENTS: u16 = 0x2000;

impl Default for IpFields {
    fn default() -> Self {
        Self {
            hop_limit: 64,
            traffic_class: 0,
            identification: 0x1234,
            fragment: 0,
        }
    }
}

/// An IPv4 or IPv6 packet, by the family of `source`.
///
/// # Errors
/// When an address does not parse, the families differ, or it would be too long.
pub fn ip(
    source: &str,
    destination: &str,
    protocol: u8,
    fields: IpFields,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(40 + payload.len());
    match (source.parse()?, destination.parse()?) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(payload.len() + 20)?;
            packet.extend([0x45, fields.traffic_class]);
            packet.extend(length.to_be_bytes());
            packet.extend(fields.identification.to_be_bytes());
            packet.extend(fields.fragment.to_be_bytes());
            packet.extend([fields.hop_limit, protocol, 0, 0]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
            let sum = checksum(0, &packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len())?;
            packet.extend([
                0x60 | fields.traffic_class >> 4,
                fields.traffic_class << 4,
                0,
                0,
            ]);
            packet.extend(length.to_be_bytes());
            packet.extend([protocol, fields.hop_limit]);
            packet.extend(source.octets());
            packet.extend(destination.octets());
        }
        _ => bail!("{source} and {destination} are of two families"),
    }
    packet.extend(payload);
    Ok(packet)
}

/// A UDP datagram between `ports`, its checksum complete for the two addresses.
///
/// # Errors
/// When an address does not parse or it would be too long.
pub fn udp(source: &str, destination: &str, ports: [u16; 2], data: &[u8]) -> Result<Vec<u8>> {
    let length = data.len() + 8;
    let mut datagram = Vec::with_capacity(length);
    for field in [ports[0], ports[1], u16::try_from(length)?, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(data);
    let pseudo = pseudo_sum(source.parse()?, destination.parse()?, UDP, length);
    let sum = match checksum(pseudo, &datagram) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    Ok(datagram)
}

/// A TCP segment without options between `ports`, checksum complete.
///
/// # Errors
/// When an address does not parse.
pub fn tcp(source: &str, destination: &str, ports: [u16; 2], data: &[u8]) -> Result<Vec<u8>> {
    let mut segment = Vec::with_capacity(20 + data.len());
    segment.extend(ports[0].to_be_bytes());
    segment.extend(ports[1].to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    let pseudo = pseudo_sum(source.parse()?, destination.parse()?, TCP, segment.len());
    let sum = checksum(pseudo, &segment);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Ok(segment)
}

/// An ICMP echo request, with `data` behind the header.
pub fn echo(identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0];
    message.extend(identifier.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.extend(data);
    let sum = checksum(0, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// An ICMPv6 echo request between two addresses.
///
/// # Errors
/// When an address does not parse.
pub fn echo6(source: &str, destination: &str, sequence: u16, data: &[u8]) -> Result<Vec<u8>> {
    let mut message = echo(0x77, sequence, data);
    message[0] = 128;
    message[2..4].fill(0);
    let pseudo = pseudo_sum(source.parse()?, destination.parse()?, ICMPV6, message.len());
    let sum = checksum(pseudo, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(message)
}

/// The four flavours of the classic capture format.
#[derive(Clone, Copy, Debug)]
pub struct Flavor {
    /// Time stamps in nanoseconds instead of microseconds.
    pub nanoseconds: bool,
    /// Most significant byte first.
    pub big_endian: bool,
}

/// Writes a classic pcap file of Ethernet frames, microseconds, least significant byte first.
///
/// # Errors
/// When the file system refuses.
pub fn write(path: &Path, frames: &[Frame]) -> Result<()> {
    write_as(
        path,
        frames,
        Flavor {
            nanoseconds: false,
            big_endian: false,
        },
    )
}

/// The same in any flavour.
///
/// # Errors
/// When the file system refuses.
pub fn write_as(path: &Path, frames: &[Frame], flavor: Flavor) -> Result<()> {
    let mut file = Vec::new();
    let word = |file: &mut Vec<u8>, value: u32| {
        file.extend(if flavor.big_endian {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        });
    };
    let magic = if flavor.nanoseconds {
        0xa1b2_3c4d
    } else {
        0xa1b2_c3d4
    };
    let version = if flavor.big_endian {
        0x0002_0004
    } else {
        0x0004_0002
    };
    for value in [magic, version, 0, 0, 0x4_0000, 1] {
        word(&mut file, value);
    }
    for frame in frames {
        let scale = if flavor.nanoseconds { 1 } else { 1000 };
        let length = u32::try_from(frame.bytes.len())?;
        let seconds = u32::try_from(frame.time.as_secs())?;
        for value in [seconds, frame.time.subsec_nanos() / scale, length, length] {
            word(&mut file, value);
        }
        file.extend(&frame.bytes);
    }
    fs::write(path, file).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a capture: classic in any flavour, or pcapng.
///
/// # Errors
/// When it is missing or damaged.
pub fn read(path: &Path) -> Result<Vec<Frame>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let classic = |nanoseconds, big_endian| {
        read_classic(
            &bytes,
            Flavor {
                nanoseconds,
                big_endian,
            },
        )
    };
    let frames = match bytes.get(..4) {
        Some([0x0a, 0x0d, 0x0d, 0x0a]) => read_pcapng(&bytes),
        Some([0xd4, 0xc3, 0xb2, 0xa1]) => classic(false, false),
        Some([0x4d, 0x3c, 0xb2, 0xa1]) => classic(true, false),
        Some([0xa1, 0xb2, 0xc3, 0xd4]) => classic(false, true),
        Some([0xa1, 0xb2, 0x3c, 0x4d]) => classic(true, true),
        _ => bail!("no capture file"),
    };
    frames.with_context(|| format!("damaged: {}", path.display()))
}

fn read_classic(bytes: &[u8], flavor: Flavor) -> Result<Vec<Frame>> {
    let word = |at: usize| -> Result<u32> {
        let field = bytes.get(at..at + 4).context("truncated")?;
        let field = [field[0], field[1], field[2], field[3]];
        Ok(if flavor.big_endian {
            u32::from_be_bytes(field)
        } else {
            u32::from_le_bytes(field)
        })
    };
    ensure!(word(20)? & 0xffff == 1, "the link type is not Ethernet");
    let scale = if flavor.nanoseconds { 1 } else { 1000 };
    let (mut at, mut frames) = (24, Vec::new());
    while at < bytes.len() {
        let time = Duration::new(word(at)?.into(), word(at + 4)? * scale);
        let length = usize::try_from(word(at + 8)?)?;
        let data = bytes.get(at + 16..at + 16 + length).context("truncated")?;
        frames.push(Frame {
            time,
            bytes: data.to_vec(),
            comment: String::new(),
        });
        at += 16 + length;
    }
    Ok(frames)
}

fn read_pcapng(bytes: &[u8]) -> Result<Vec<Frame>> {
    let mut reader = PcapNgReader::new(bytes)?;
    let mut frames = Vec::new();
    while let Some(block) = reader.next_block() {
        let Block::EnhancedPacket(packet) = block? else {
            continue;
        };
        let comment = packet.options.iter().find_map(|option| match option {
            EnhancedPacketOption::Comment(text) => Some(Cow::clone(text).into_owned()),
            _ => None,
        });
        frames.push(Frame {
            time: packet.timestamp,
            bytes: packet.data.to_vec(),
            comment: comment.unwrap_or_default(),
        });
    }
    Ok(frames)
}
