//! Writes all of a sealed packet but what the cipher makes: outer header, UDP, ESP header, IV and
//! trailer (RFC 4303 §2, RFC 4301 §5.1.2, RFC 3948 §2.1).

use crate::crypto::iv::{RandomIvs, counter_iv};
use crate::ip::{hop, tunnel_header};
use crate::outbound::{Context, Item, Verdict};
use crate::packet::{Packet, Version, address_bits, protocol};
use crate::sa::Sa;
use crate::sa::association::{DontFragment, Dscp, FlowLabel};
use crate::shape::{ESP_TRAILER, Shape};
use crate::verdict::DropReason;
use crate::wire::{esp, udp};

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

/// Writes the frame around the inner packet; the length of the packet to send.
fn write(item: &mut Item<'_>, ivs: &mut RandomIvs, seed: u64) -> Result<u16, DropReason> {
    let (Some(sa), Some(destination)) = (item.sa, item.destination.as_deref_mut()) else {
        return Err(DropReason::NoFrame);
    };
    let parameters = &sa.parameters;
    let shape = Shape::of(parameters);
    let inner = usize::from(item.packet.length);
    let tfc = shape.tfc(inner, parameters.tfc_pad_to, item.mtu);
    let total = shape.sealed(inner + tfc);
    let sealed = u16::try_from(total).map_err(|_| DropReason::TooBig)?;
    let out = destination.get_mut(..total).ok_or(DropReason::NoFrame)?;

    if !item.from_host {
        hop::decrement(item.source)?;
    }
    let mut header = outer(sa, &item.packet, seed);
    header.identification = item.identification;
    header.dont_fragment &= !item.fragment_outer;
    header
        .write(total - shape.ip, out)
        .ok_or(DropReason::TooBig)?;
    if let Some(encapsulation) = parameters.udp_encapsulation {
        //= T67 (RFC 3948 section 2.1): over IPv6 the checksum follows when all is sealed
        let header = udp::Header {
            source: encapsulation.source_port,
            destination: encapsulation.destination_port,
            length: sealed - u16::try_from(shape.ip).unwrap_or(0),
            checksum: 0,
        };
        put(out, shape.ip, &header.to_bytes());
    }
    let header = esp::Header {
        spi: parameters.spi,
        sequence: low_half(item.sequence),
    };
    put(out, shape.esp(), &header.to_bytes());
    let start = shape.esp() + esp::LENGTH;
    if parameters.suite.is_counter_mode() {
        put(out, start, &counter_iv(item.sequence, sa.iv_mask));
    } else if let Some(iv) = out.get_mut(start..shape.inner()) {
        ivs.fill(iv);
    }
    let behind = shape.inner() + inner..total - shape.icv;
    if let Some(behind) = out.get_mut(behind) {
        trailer(behind, tfc, next_header(&item.packet));
    }
    Ok(sealed)
}

/// The outer header, but for its identification.
//= T58 T59 (RFC 4301 sections 5.1.2.1, 5.1.2.2)
fn outer(sa: &Sa, inner: &Packet, seed: u64) -> tunnel_header::TunnelHeader {
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
        destination: address_bits(parameters.destination),
        protocol: if parameters.udp_encapsulation.is_some() {
            protocol::UDP
        } else {
            protocol::ESP
        },
        traffic_class: tunnel_header::traffic_class(inner.traffic_class, dscp, parameters.ecn),
        hop_limit: parameters.hop_limit,
        dont_fragment: tunnel_header::dont_fragment(inner, dont_fragment),
        identification: 0,
        flow_label: match parameters.flow_label {
            FlowLabel::Hash => tunnel_header::flow_label(inner, seed),
            FlowLabel::Zero => 0,
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

const fn next_header(inner: &Packet) -> u8 {
    match inner.version {
        //= T13 T75 (RFC 4303 section 2.6)
        _ if inner.is_nothing() => protocol::NONE,
        Version::V4 => protocol::IPV4,
        Version::V6 => protocol::IPV6,
    }
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
