//! Writes all of a sealed packet but what the algorithms make: outer header or the packet's own,
//! UDP, ESP header, IV and trailer, or AH (RFC 4303 §2, RFC 4302 §2, RFC 4301 §5.1.2, RFC 3948
//! §2.1).

use crate::crypto::iv::{RandomIvs, counter_iv};
use crate::ip::transport::{refit, take_out_fragment_header};
use crate::ip::{hop, tunnel_header};
use crate::outbound::{Context, Item, Verdict};
use crate::packet::{Packet, Version, address_bits, protocol};
use crate::sa::Sa;
use crate::sa::association::{DontFragment, Dscp, FlowLabel, Mode, Protocol};
use crate::sa::peer::Place;
use crate::sa::shape::{ESP_TRAILER, Shape};
use crate::verdict::DropReason;
use crate::wire::{ah, esp, udp};

pub(super) fn run(batch: &mut [Item<'_>], context: &mut Context<'_, '_>) {
    for item in batch {
        if item.verdict != Verdict::Protect {
            continue;
        }
        item.verdict = match write(item, context.ivs, context.flow_label_seed) {
            Ok(length) => Verdict::Sealed(length),
            Err(reason) => Verdict::Drop(reason),
        };
    }
}

/// Writes the frame around the packet; the length of the packet to send.
fn write(item: &mut Item<'_>, ivs: &mut RandomIvs, seed: u64) -> Result<u16, DropReason> {
    let sa = item.sa.ok_or(DropReason::NoFrame)?;
    let parameters = &sa.parameters;
    if parameters.protocol == Protocol::Ah {
        leave_out_fragment_header(item);
    }
    let shape = item.shape(sa);
    let inner = usize::from(item.packet.length);
    let tfc = shape.tfc(inner, parameters.tfc_pad_to, item.mtu);
    let total = shape.sealed(inner + tfc);
    let sealed = u16::try_from(total).map_err(|_| DropReason::TooBig)?;
    if !item.from_host {
        hop::decrement(item.source)?;
    }
    let destination = item.destination.take().ok_or(DropReason::NoFrame)?;
    let written = destination.get_mut(..total).ok_or(DropReason::NoFrame);
    let written = written.and_then(|out| {
        headers(item, sa, &shape, seed, out)?;
        match parameters.protocol {
            Protocol::Esp => esp(item, sa, (&shape, inner, tfc), ivs, out),
            Protocol::Ah => ah(item, sa, &shape, out),
        }
        Ok(sealed)
    });
    item.destination = Some(destination);
    written
}

/// All in front of the ESP or AH header.
fn headers(
    item: &Item<'_>,
    sa: &Sa,
    shape: &Shape,
    seed: u64,
    out: &mut [u8],
) -> Result<(), DropReason> {
    let parameters = &sa.parameters;
    let total = out.len();
    let peer = sa.peer_place();
    match parameters.mode {
        Mode::Tunnel => {
            let mut header = outer(sa, peer, &item.packet, seed);
            header.identification = item.identification;
            header.dont_fragment &= !item.fragment_outer;
            header
                .write(total - shape.ip, out)
                .ok_or(DropReason::TooBig)?;
        }
        Mode::Transport => {
            let stay = item.source.get(..shape.front).unwrap_or(&[]);
            put(out, 0, stay);
            refit(out, shape.front, first_protocol(sa), total).ok_or(DropReason::TooBig)?;
        }
    }
    if let Some(encapsulation) = parameters.udp_encapsulation {
        //= T67 (RFC 3948 section 2.1): over IPv6 the checksum follows when all is sealed
        let length = total - shape.front - shape.ip;
        //= T135 (RFC 3948 section 2.1)
        let header = udp::Header {
            source: encapsulation.source_port,
            destination: peer.port,
            length: u16::try_from(length).map_err(|_| DropReason::TooBig)?,
            checksum: 0,
        };
        put(out, shape.front + shape.ip, &header.to_bytes());
    }
    Ok(())
}

/// ESP header, IV and trailer.
fn esp(
    item: &Item<'_>,
    sa: &Sa,
    (shape, inner, tfc): (&Shape, usize, usize),
    ivs: &mut RandomIvs,
    out: &mut [u8],
) {
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
    let content = shape.content() + inner - shape.front;
    let end = out.len() - shape.icv;
    if let Some(behind) = out.get_mut(content..end) {
        trailer(behind, tfc, item.next_header);
    }
}

/// AH with GMAC's IV; the rest of the ICV field is zero.
//= T39 T40 T89 T94 T151 (RFC 4302 section 2, RFC 4543 section 4)
fn ah(item: &Item<'_>, sa: &Sa, shape: &Shape, out: &mut [u8]) {
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
}

/// What the IP header, or the last one in front, names.
const fn first_protocol(sa: &Sa) -> u8 {
    match (sa.parameters.udp_encapsulation, sa.parameters.protocol) {
        (Some(_), _) => protocol::UDP,
        (None, Protocol::Esp) => protocol::ESP,
        (None, Protocol::Ah) => protocol::AH,
    }
}

/// The outer header, but for its identification.
//= T58 T59 (RFC 4301 sections 5.1.2.1, 5.1.2.2)
fn outer(sa: &Sa, peer: Place, inner: &Packet, seed: u64) -> tunnel_header::TunnelHeader {
    let parameters = &sa.parameters;
    let dscp = match parameters.dscp {
        Dscp::Copy => None,
        Dscp::Fixed(value) => Some(value),
    };
    let dont_fragment = match parameters.dont_fragment {
        DontFragment::Copy => None,
        DontFragment::Set => Some(true),
        DontFragment::Clear => Some(false),
    };
    tunnel_header::TunnelHeader {
        version: if parameters.destination.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        },
        source: address_bits(parameters.source),
        destination: peer.address,
        protocol: first_protocol(sa),
        traffic_class: tunnel_header::traffic_class(inner.traffic_class, dscp, parameters.ecn),
        hop_limit: parameters.hop_limit,
        dont_fragment: tunnel_header::dont_fragment(inner, dont_fragment),
        identification: 0,
        flow_label: match parameters.flow_label {
            // IPv4 has none.
            FlowLabel::Hash if !parameters.destination.is_ipv4() => {
                tunnel_header::flow_label(inner, seed)
            }
            FlowLabel::Hash | FlowLabel::Zero => 0,
        },
    }
}

/// TFC bytes, padding 1, 2, 3 …, pad length and next header.
//= T06 T09 (RFC 4303 sections 2.4, 2.6)
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

fn put(out: &mut [u8], offset: usize, bytes: &[u8]) {
    if let Some(field) = out.get_mut(offset..offset + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}
