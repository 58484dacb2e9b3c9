//! Capture files: pcap (micro- and nanoseconds, either byte order) and pcapng.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::{Block, PcapNgReader, PcapNgWriter};
use pcap_file::{DataLink, PcapError, TsResolution};

/// First four bytes of a pcapng file, in either byte order.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// Nanoseconds in a microsecond: pcapng's default unit.
const MICROSECOND: u128 = 1000;

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub timestamp: u64,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What could be read of a capture, and what stopped the reading.
#[derive(Debug)]
pub struct Contents {
    /// Whole packets, in file order.
    pub packets: Vec<Captured>,
    /// The damage behind the last of them.
    pub damage: Option<String>,
}

/// Reads a capture file.
///
/// # Errors
/// When the file cannot be opened or is no capture of Ethernet frames.
pub fn read(path: &Path) -> Result<Contents, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic)
        .map_err(|_| "not a capture file (too short)".to_owned())?;
    file.rewind().map_err(|error| error.to_string())?;
    let reader = BufReader::new(file);
    if magic == SECTION_HEADER {
        read_pcapng(reader)
    } else {
        read_pcap(reader)
    }
}

fn read_pcap(reader: impl Read) -> Result<Contents, String> {
    let mut reader = PcapReader::new(reader).map_err(|error| describe(&error))?;
    if reader.header().datalink != DataLink::ETHERNET {
        return Err("not a capture of Ethernet frames".to_owned());
    }
    let mut contents = Contents {
        packets: Vec::new(),
        damage: None,
    };
    let unit = match reader.header().ts_resolution {
        TsResolution::NanoSecond => 1,
        TsResolution::MicroSecond => 1000,
    };
    // Raw: the library refuses captures with a snap length, which are ordinary.
    while let Some(packet) = reader.next_raw_packet() {
        match packet {
            Ok(packet) => contents.packets.push(Captured {
                timestamp: u64::from(packet.ts_sec) * 1_000_000_000
                    + u64::from(packet.ts_frac) * unit,
                frame: packet.data.into_owned(),
            }),
            Err(error) => {
                contents.damage = Some(describe(&error));
                break;
            }
        }
    }
    Ok(contents)
}

fn read_pcapng(reader: impl Read) -> Result<Contents, String> {
    let mut reader = PcapNgReader::new(reader).map_err(|error| describe(&error))?;
    let mut contents = Contents {
        packets: Vec::new(),
        damage: None,
    };
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut last = 0;
    while let Some(block) = reader.next_block() {
        let found = match block {
            Ok(Block::SectionHeader(_)) => {
                interfaces.clear();
                continue;
            }
            Ok(Block::InterfaceDescription(interface)) => {
                interfaces.push(Interface::of(&interface));
                continue;
            }
            Ok(Block::EnhancedPacket(packet)) => {
                interfaces.get(packet.interface_id as usize).map(|from| {
                    // The library takes every unit for nanoseconds.
                    last = from.nanoseconds(packet.timestamp.as_nanos());
                    (from.link, packet.data.into_owned())
                })
            }
            Ok(Block::SimplePacket(packet)) => interfaces
                .first()
                .map(|from| (from.link, packet.data.into_owned())),
            Ok(_) => continue,
            Err(error) => {
                contents.damage = Some(describe(&error));
                break;
            }
        };
        match found {
            Some((DataLink::ETHERNET, frame)) => {
                contents.packets.push(Captured {
                    timestamp: last,
                    frame,
                });
            }
            Some(_) => {
                contents.damage = Some("not an Ethernet frame".to_owned());
                break;
            }
            None => {
                contents.damage = Some("a packet of an interface that is not described".to_owned());
                break;
            }
        }
    }
    Ok(contents)
}

/// What an interface description says of the packets behind it.
struct Interface {
    link: DataLink,
    /// Nanoseconds of one time unit, as a fraction.
    unit: (u128, u128),
    /// Seconds to be added to every timestamp (`if_tsoffset`).
    offset_seconds: i64,
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let offset = block.options.iter().find_map(|option| match option {
            #[expect(
                clippy::cast_possible_wrap,
                reason = "the format has a signed number here, the library reads its bits"
            )]
            InterfaceDescriptionOption::IfTsOffset(offset) => Some(*offset as i64),
            _ => None,
        });
        Self {
            link: block.linktype,
            unit: unit(block),
            offset_seconds: offset.unwrap_or(0),
        }
    }

    /// A packet's time since 1970, as far as that can be told.
    fn nanoseconds(&self, units: u128) -> u64 {
        let (numerator, denominator) = self.unit;
        let since = i128::try_from(units * numerator / denominator).unwrap_or(i128::MAX);
        let offset = i128::from(self.offset_seconds) * 1_000_000_000;
        u64::try_from(since.saturating_add(offset).max(0)).unwrap_or(u64::MAX)
    }
}

/// Nanoseconds of one time unit, as a fraction: `if_tsresol` is a power of ten or of two.
fn unit(interface: &InterfaceDescriptionBlock<'_>) -> (u128, u128) {
    const NANOSECONDS: u128 = 1_000_000_000;
    let resolution = interface.options.iter().find_map(|option| match option {
        InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
        _ => None,
    });
    match resolution {
        None => (MICROSECOND, 1),
        Some(binary) if binary & 0x80 != 0 => (
            NANOSECONDS,
            1_u128
                .checked_shl(u32::from(binary & 0x7f))
                .unwrap_or(u128::MAX)
                .max(1),
        ),
        Some(decimal) => (
            NANOSECONDS,
            10_u128.checked_pow(u32::from(decimal)).unwrap_or(u128::MAX),
        ),
    }
}

fn describe(error: &PcapError) -> String {
    match error {
        PcapError::IncompleteBuffer => "cut short".to_owned(),
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            "cut short".to_owned()
        }
        other => other.to_string(),
    }
}

/// A capture file being written.
pub enum Writer {
    /// Nanosecond pcap.
    Pcap(Box<PcapWriter<BufWriter<File>>>),
    /// pcapng.
    PcapNg(Box<PcapNgWriter<BufWriter<File>>>),
}

impl Writer {
    /// Creates the file: pcapng if its name ends so, else pcap.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, String> {
        if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("pcapng"))
        {
            return Self::create_pcapng(path);
        }
        let file = BufWriter::new(File::create(path).map_err(|error| error.to_string())?);
        let header = PcapHeader {
            ts_resolution: TsResolution::NanoSecond,
            datalink: DataLink::ETHERNET,
            snaplen: 1 << 18,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(file, header).map_err(|error| describe(&error))?;
        Ok(Self::Pcap(Box::new(writer)))
    }

    /// Creates a pcapng file whatever its name.
    ///
    /// # Errors
    /// When the file cannot be created.
    pub fn create_pcapng(path: &Path) -> Result<Self, String> {
        let file = BufWriter::new(File::create(path).map_err(|error| error.to_string())?);
        let mut writer = PcapNgWriter::new(file).map_err(|error| describe(&error))?;
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![InterfaceDescriptionOption::IfTsResol(9)],
        };
        writer
            .write_block(&Block::InterfaceDescription(interface))
            .map_err(|error| describe(&error))?;
        Ok(Self::PcapNg(Box::new(writer)))
    }

    //= T66 (RFC 4301 section 9): the frame has SPI, addresses, number and flow label
    /// Appends a frame, with a comment if the format has room for one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(
        &mut self,
        timestamp: u64,
        frame: &[u8],
        comment: Option<&str>,
    ) -> Result<(), String> {
        let timestamp = Duration::from_nanos(timestamp);
        let length = u32::try_from(frame.len()).map_err(|error| error.to_string())?;
        let written = match self {
            Self::Pcap(writer) => writer.write_packet(&PcapPacket::new(timestamp, length, frame)),
            Self::PcapNg(writer) => {
                let comment =
                    comment.map(|text| EnhancedPacketOption::Comment(Cow::Borrowed(text)));
                writer.write_block(&Block::EnhancedPacket(EnhancedPacketBlock {
                    interface_id: 0,
                    timestamp,
                    original_len: length,
                    data: Cow::Borrowed(frame),
                    options: comment.into_iter().collect(),
                }))
            }
        };
        written.map(drop).map_err(|error| describe(&error))
    }

    /// Ends the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Self::Pcap(writer) => writer.into_writer().flush(),
            Self::PcapNg(writer) => writer.into_inner().flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.pcap", "b.pcapng"] {
            let path = folder.path().join(name);
            let mut writer = Writer::create(&path).unwrap();
            writer
                .write(1_700_000_000_123_456_789, &[1; 60], Some("replay"))
                .unwrap();
            writer
                .write(1_700_000_001_000_000_001, &[2; 61], None)
                .unwrap();
            writer.finish().unwrap();
            let contents = read(&path).unwrap();
            assert_eq!(contents.damage, None);
            assert_eq!(contents.packets.len(), 2);
            assert_eq!(contents.packets[0].timestamp, 1_700_000_000_123_456_789);
            assert_eq!(contents.packets[1].frame, [2; 61]);
            // Cut inside the second packet: the first one is still there.
            let whole = std::fs::read(&path).unwrap();
            std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
            let contents = read(&path).unwrap();
            assert_eq!(contents.packets.len(), 1);
            assert!(contents.damage.is_some());
        }
        assert!(read(&folder.path().join("missing")).is_err());
        let short = folder.path().join("short");
        std::fs::write(&short, [1, 2]).unwrap();
        assert!(read(&short).is_err());
    }

    #[test]
    fn units_and_offsets_of_an_interface_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("offset.pcapng");
        let shifted = InterfaceDescriptionOption::IfTsOffset;
        #[expect(clippy::cast_sign_loss, reason = "the bits are what is written")]
        let back = -100_i64 as u64;
        let mut writer = PcapNgWriter::new(File::create(&path).unwrap()).unwrap();
        for (options, seconds) in [
            (vec![InterfaceDescriptionOption::IfTsResol(9)], 200_u64),
            (
                vec![InterfaceDescriptionOption::IfTsResol(9), shifted(1000)],
                200,
            ),
            (
                vec![InterfaceDescriptionOption::IfTsResol(9), shifted(back)],
                200,
            ),
            (
                vec![InterfaceDescriptionOption::IfTsResol(9), shifted(back)],
                7,
            ),
        ] {
            let interface = InterfaceDescriptionBlock {
                linktype: DataLink::ETHERNET,
                snaplen: 0,
                options,
            };
            writer
                .write_block(&Block::SectionHeader(
                    pcap_file::pcapng::blocks::section_header::SectionHeaderBlock::default(),
                ))
                .unwrap();
            writer
                .write_block(&Block::InterfaceDescription(interface))
                .unwrap();
            writer
                .write_block(&Block::EnhancedPacket(EnhancedPacketBlock {
                    interface_id: 0,
                    timestamp: Duration::from_secs(seconds),
                    original_len: 60,
                    data: Cow::Borrowed(&[1; 60]),
                    options: Vec::new(),
                }))
                .unwrap();
        }
        drop(writer);
        let contents = read(&path).unwrap();
        assert_eq!(contents.damage, None);
        let seconds = contents
            .packets
            .iter()
            .map(|it| it.timestamp / 1_000_000_000);
        assert_eq!(seconds.collect::<Vec<_>>(), [200, 1200, 100, 0]);
    }
}
