//! What arrived: something protected for us, or a clear packet (RFC 4301 §5.2 step 2, RFC 3948).

use crate::inbound::{Consumed, Context, Item, Kind, Verdict};
use crate::packet::{Fragment, Packet, protocol};
use crate::tables::Tables;
use crate::verdict::DropReason;
use crate::wire::{esp, udp};

/// Sent by nobody in ESP: SPI 0 behind a UDP header says IKE (RFC 3948 §2.2).
const NON_ESP_MARKER: [u8; 4] = [0; 4];

/// The only byte of a NAT keepalive (RFC 3948 §2.3).
const KEEPALIVE: u8 = 0xff;

/// [`udp::LENGTH`] as an offset.
const UDP_HEADER: u16 = 8;

pub(super) fn run(batch: &mut [Item<'_>], context: &Context<'_, '_>) {
    for item in batch {
        match decide(item.source, &item.packet, context.tables) {
            Ok(Class::Protected { kind, offset, end }) => {
                item.kind = kind;
                item.header_offset = offset;
                item.end = end;
            }
            Ok(Class::Clear) => item.kind = Kind::Clear,
            Ok(Class::Keepalive) => item.verdict = Verdict::Consumed(Consumed::Keepalive),
            Ok(Class::Host) => item.verdict = Verdict::Host,
            Err(reason) => item.verdict = Verdict::Drop(reason),
        }
    }
}

/// What a packet is before any table of SAs is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// ESP or AH from its header's `offset` up to `end`.
    Protected { kind: Kind, offset: u16, end: u16 },
    /// Neither, or not for us to open.
    Clear,
    /// A peer's NAT keepalive.
    Keepalive,
    /// For the machine's IKE daemon.
    Host,
}

fn decide(source: &[u8], packet: &Packet, tables: &Tables) -> Result<Class, DropReason> {
    let kind = match packet.protocol {
        protocol::ESP => Kind::Esp,
        protocol::AH => Kind::Ah,
        protocol::UDP if packet.fragment == Fragment::Whole => {
            return encapsulated(source, packet, tables);
        }
        _ => return Ok(Class::Clear),
    };
    if packet.fragment == Fragment::Whole {
        Ok(Class::Protected {
            kind,
            offset: packet.upper_offset,
            end: packet.length,
        })
    } else if tables.ends_here(packet) {
        //= T22 T47 (RFC 4303 section 3.4.1, RFC 4302 section 3.4.1)
        Err(DropReason::Fragment)
    } else {
        Ok(Class::Clear)
    }
}

/// A whole UDP datagram: perhaps ESP, IKE or a keepalive on a port of ours.
//= T67 (RFC 3948 sections 2.1 to 2.3)
//= T140 (RFC 6935 section 5): these ports take datagrams without a checksum
fn encapsulated(ip: &[u8], packet: &Packet, tables: &Tables) -> Result<Class, DropReason> {
    let start = packet.upper_offset;
    let Some(datagram) = ip.get(usize::from(start)..usize::from(packet.length)) else {
        return Ok(Class::Clear);
    };
    let Some(header) = udp::Header::parse(datagram) else {
        return Ok(Class::Clear);
    };
    if !tables.encapsulates(packet, header.destination) {
        return Ok(Class::Clear);
    }
    let payload = datagram
        .get(udp::LENGTH..usize::from(header.length))
        .ok_or(DropReason::Malformed)?;
    // What is neither ESP nor a keepalive is the machine's, or goes on like any other packet.
    let other = if tables.is_local(packet.version, packet.destination) {
        Class::Host
    } else {
        Class::Clear
    };
    match *payload {
        //= T136 (RFC 3948 section 2.3)
        [KEEPALIVE] if tables.is_peer(packet) => Ok(Class::Keepalive),
        [] | [_] => Ok(other),
        _ if payload.len() < esp::LENGTH => Err(DropReason::Malformed),
        _ if payload.starts_with(&NON_ESP_MARKER) => Ok(other),
        _ => Ok(Class::Protected {
            kind: Kind::EspInUdp(header.destination),
            offset: start + UDP_HEADER,
            end: start + header.length,
        }),
    }
}
