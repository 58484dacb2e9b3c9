//! Writes all of a sealed packet but what the algorithms make: outer header or the packet's own,
//! UDP, ESP header, IV and trailer, or AH (RFC 4303 §2, RFC 4302 §2, RFC 4301 §5.1.2, RFC 3948
//! §2.1).

use std::net::IpAddr;

use crate::crypto::iv::{RandomIvs, counter_iv};
use crate::ip::transport::{refit, take_out_fragment_header};
use crate::ip::{hop, tunnel_header};
use crate::outbound::{Context, Item, Verdict};
use crate::packet::{Packet, Version, address_bits, protocol};
use crate::sa::Sa;
use crate::sa::association::{DontFragment, Dscp, FlowLabel, Mode, Protocol, UdpEncapsulation};
use crate::sa::shape::ESP_TRAILER;
use crate::verdict::DropReason;
use crate::wire::{ah, esp, ipv4, udp};

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in batch {
        if item.verdict != Verdict::Protect {
            continue;
        }
        item.verdict = match write(item, context.ivs, context.flow_label_seed) {
            Ok(()) => Verdict::Sealed(item.sealed),
            Err(reason) => Verdict::Drop(reason),
        };
    }
}

/// Writes the frame around the packet.
#[inline(always)]
fn write(item: &mut Item<'_>, ivs: &mut RandomIvs, seed: u64) -> Result<(), DropReason> {
    let sa = item.sa.ok_or(DropReason::NoFrame)?;
    let parameters = &sa.parameters;
    if parameters.protocol == Protocol::Ah {
        leave_out_fragment_header(item);
    }
    if !item.from_host {
        hop::decrement(item.source)?;
    }
    let destination = item.destination.take().ok_or(DropReason::NoFrame)?;
    let written = match destination.get_mut(..item.sealed.into()) {
        Some(out) => around(item, sa, (ivs, seed), out),
        None => Err(DropReason::NoFrame),
    };
    item.destination = Some(destination);
    written
}

/// All around the packet; `out` is as long as what will be sent.
#[inline(always)]
fn around(
    item: &Item<'_>,
    sa: &Sa,
    (ivs, seed): (&mut RandomIvs, u64),
    out: &mut [u8],
) -> Result<(), DropReason> {
    headers(item, sa, seed, out)?;
    match sa.parameters.protocol {
        Protocol::Esp => esp(item, sa, ivs, out),
        Protocol::Ah => ah(item, sa, out),
    }
    Ok(())
}

/// All in front of the ESP or AH header.
//= T58 (RFC 4301 section 5.1.2.1)
#[inline(always)]
fn headers(item: &Item<'_>, sa: &Sa, seed: u64, out: &mut [u8]) -> Result<(), DropReason> {
    let parameters = &sa.parameters;
    if let (Mode::Tunnel, IpAddr::V4(source), IpAddr::V4(destination), None) = (
        parameters.mode,
        parameters.source,
        parameters.destination,
        &sa.peer,
    ) {
        // What nearly every packet gets, without the detour by addresses of both versions.
        let header = ipv4::Fields {
            traffic_class: traffic_class(sa, &item.packet),
            total_length: item.sealed,
            identification: item.identification,
            flags_and_offset: if dont_fragment(sa, item) {
                ipv4::DONT_FRAGMENT
            } else {
                0
            },
            hop_limit: parameters.hop_limit,
            protocol: first_protocol(sa),
            source: source.to_bits(),
            destination: destination.to_bits(),
        };
        *out.first_chunk_mut().ok_or(DropReason::TooBig)? = header.to_bytes();
    } else {
        other_headers(item, sa, seed, out)?;
    }
    match parameters.udp_encapsulation {
        Some(encapsulation) => encapsulate(encapsulation, item, sa, out),
        None => Ok(()),
    }
}

/// The outer header of IPv6 and of a peer that is followed, or the packet's own.
#[inline(never)]
fn other_headers(item: &Item<'_>, sa: &Sa, seed: u64, out: &mut [u8]) -> Result<(), DropReason> {
    let shape = item.shape(sa);
    let total = out.len();
    let written = match sa.parameters.mode {
        Mode::Tunnel => outer(sa, item, seed)
            .write(total - shape.ip, out)
            .map(|_| ()),
        Mode::Transport => {
            let stay = item.source.get(..shape.front).unwrap_or(&[]);
            put(out, 0, stay);
            refit(out, shape.front, first_protocol(sa), total)
        }
    };
    written.ok_or(DropReason::TooBig)
}

/// The UDP header.
#[inline(never)]
fn encapsulate(
    encapsulation: UdpEncapsulation,
    item: &Item<'_>,
    sa: &Sa,
    out: &mut [u8],
) -> Result<(), DropReason> {
    let shape = item.shape(sa);
    //= T67 (RFC 3948 section 2.1): over IPv6 the checksum follows when all is sealed
    let length = out.len() - shape.front - shape.ip;
    //= T135 (RFC 3948 section 2.1)
    let header = udp::Header {
        source: encapsulation.source_port,
        destination: sa.peer_place().port,
        length: u16::try_from(length).map_err(|_| DropReason::TooBig)?,
        checksum: 0,
    };
    put(out, shape.front + shape.ip, &header.to_bytes());
    Ok(())
}

/// ESP header, IV and trailer.
#[inline(always)]
fn esp(item: &Item<'_>, sa: &Sa, ivs: &mut RandomIvs, out: &mut [u8]) {
    let shape = item.shape(sa);
    let header = esp::Header {
        spi: sa.parameters.spi,
        sequence: low_half(item.sequence),
    };
    put(out, shape.protected(), &header.to_bytes());
    let start = shape.protected() + esp::LENGTH;
    if sa.parameters.suite.is_counter_mode() {
        put(out, start, &counter_iv(item.sequence, sa.iv_mask));
    } else if let Some(iv) = out.get_mut(start..shape.content()) {
        ivs.fill(iv);
    }
    let content = shape.content() + usize::from(item.packet.length) - shape.front;
    let end = out.len() - shape.icv;
    let short = end.saturating_sub(content);
    if item.hiding == 0
        && let Some(behind) = out.get_mut(content..)
        && let Some(behind) = behind.first_chunk_mut::<SHORT>()
        && let Some(bytes) = short_trailer(short, item.next_header)
    {
        // What it writes beyond the trailer is the ICV's place.
        *behind = bytes;
    } else if let Some(behind) = out.get_mut(content..end) {
        trailer(behind, item.hiding.into(), item.next_header);
    }
}

/// Bytes that are written at once where a trailer is no longer, and an ICV follows.
const SHORT: usize = 8;

/// [`trailer`] of `length` bytes without TFC bytes; zeros follow it. `None` when it does not fit.
#[inline(always)]
fn short_trailer(length: usize, next_header: u8) -> Option<[u8; SHORT]> {
    const COUNT: u64 = u64::from_le_bytes([1, 2, 3, 4, 5, 6, 0, 0]);
    let padding = length.checked_sub(ESP_TRAILER)?;
    if length > SHORT {
        return None;
    }
    let bits = 8 * padding;
    let last = u64::from(next_header) << 8 | padding as u64;
    Some((COUNT & ((1 << bits) - 1) | last << bits).to_le_bytes())
}

/// AH with GMAC's IV; the rest of the ICV field is zero.
//= T39 T40 T89 T94 T151 (RFC 4302 section 2, RFC 4543 section 4)
#[inline(never)]
fn ah(item: &Item<'_>, sa: &Sa, out: &mut [u8]) {
    let shape = item.shape(sa);
    let header = ah::Header {
        next_header: item.next_header,
        length: u16::try_from(shape.header).unwrap_or(0),
        spi: sa.parameters.spi,
        sequence: low_half(item.sequence),
    };
    let start = shape.protected() + ah::LENGTH;
    if let Some(field) = out.get_mut(start..shape.content()) {
        field.fill(0);
    }
    put(out, shape.protected(), &header.to_bytes());
    if sa.parameters.suite.is_counter_mode() {
        put(out, start, &counter_iv(item.sequence, sa.iv_mask));
    }
}

/// A fragment header that is left over would be in the way of AH's ICV.
//= T93 (RFC 4302 appendix A2)
#[inline(never)]
fn leave_out_fragment_header(item: &mut Item<'_>) {
    let front = usize::from(item.front);
    let taken = take_out_fragment_header(item.source, front);
    if taken == 0 {
        return;
    }
    let length = usize::from(item.packet.length).min(item.source.len());
    item.source.copy_within(front..length, front - taken);
    let taken = u16::try_from(taken).unwrap_or(0);
    item.packet.length -= taken;
    item.packet.upper_offset -= taken;
    item.front -= taken;
    item.measure();
}

/// What the IP header, or the last one in front, names.
const fn first_protocol(sa: &Sa) -> u8 {
    match (sa.parameters.udp_encapsulation, sa.parameters.protocol) {
        (Some(_), _) => protocol::UDP,
        (None, Protocol::Esp) => protocol::ESP,
        (None, Protocol::Ah) => protocol::AH,
    }
}

/// DSCP and ECN of the outer header.
#[inline(always)]
const fn traffic_class(sa: &Sa, inner: &Packet) -> u8 {
    let dscp = match sa.parameters.dscp {
        Dscp::Copy => None,
        Dscp::Fixed(value) => Some(value),
    };
    tunnel_header::traffic_class(inner.traffic_class, dscp, sa.parameters.ecn)
}

/// The DF bit of the outer header: never where the caller is about to cut.
#[inline(always)]
fn dont_fragment(sa: &Sa, item: &Item<'_>) -> bool {
    let fixed = match sa.parameters.dont_fragment {
        DontFragment::Copy => None,
        DontFragment::Set => Some(true),
        DontFragment::Clear => Some(false),
    };
    tunnel_header::dont_fragment(&item.packet, fixed) && !item.fragment_outer
}

/// The outer header.
//= T58 T59 (RFC 4301 sections 5.1.2.1, 5.1.2.2)
fn outer(sa: &Sa, item: &Item<'_>, seed: u64) -> tunnel_header::TunnelHeader {
    let parameters = &sa.parameters;
    tunnel_header::TunnelHeader {
        version: if parameters.destination.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        },
        source: address_bits(parameters.source),
        destination: sa.peer_place().address,
        protocol: first_protocol(sa),
        traffic_class: traffic_class(sa, &item.packet),
        hop_limit: parameters.hop_limit,
        dont_fragment: dont_fragment(sa, item),
        identification: item.identification,
        flow_label: match parameters.flow_label {
            // IPv4 has none.
            FlowLabel::Hash if !parameters.destination.is_ipv4() => {
                tunnel_header::flow_label(&item.packet, seed)
            }
            FlowLabel::Hash | FlowLabel::Zero => 0,
        },
    }
}

/// TFC bytes, padding 1, 2, 3 …, pad length and next header.
//= T06 T09 (RFC 4303 sections 2.4, 2.6)
#[inline(never)]
fn trailer(out: &mut [u8], tfc: usize, next_header: u8) {
    let Some((hiding, end)) = out.split_at_mut_checked(tfc) else {
        return;
    };
    hiding.fill(0);
    let Some((padding, last)) = end.split_last_chunk_mut::<ESP_TRAILER>() else {
        return;
    };
    let length = u8::try_from(padding.len()).unwrap_or(u8::MAX);
    for (byte, count) in padding.iter_mut().zip(1_u8..=255) {
        *byte = count;
    }
    *last = [length, next_header];
}

/// What travels of a sequence number.
const fn low_half(sequence: u64) -> u32 {
    let [.., a, b, c, d] = sequence.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// The length is known where it is called, so that it becomes a store.
#[inline(always)]
fn put(out: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(field) = out
        .get_mut(offset..)
        .and_then(|it| it.get_mut(..bytes.len()))
    {
        field.copy_from_slice(bytes);
    }
}
