//! Encrypts and authenticates what was written, as one batch (RFC 4303 §3.3.2).

use arrayvec::ArrayVec;

use crate::crypto::{self, SealJob, ah};
use crate::ip::mutable::End;
use crate::limits::BATCH;
use crate::outbound::{Item, Verdict};
use crate::sa::Sa;
use crate::sa::association::Protocol;
use crate::shape::Shape;
use crate::verdict::DropReason;
use crate::wire::{checksum, udp};

/// `batch` has at most [`BATCH`] packets.
pub(super) fn run(batch: &mut [Item<'_>]) {
    let mut jobs: ArrayVec<SealJob<'_>, BATCH> = ArrayVec::new();
    for item in &mut *batch {
        if let Some(job) = job(item) {
            let _ = jobs.try_push(job);
        }
    }
    crypto::seal(&mut jobs);
    drop(jobs);
    for item in batch {
        let Some(sa) = item.sa.filter(|_| item.inner_sa.is_none()) else {
            continue;
        };
        let shape = item.shape(sa);
        if let (Verdict::Sealed(length), Some(destination)) =
            (item.verdict, item.destination.as_deref_mut())
            && let Some(packet) = destination.get_mut(..usize::from(length))
        {
            if sa.parameters.protocol == Protocol::Esp {
                finish(packet, sa, &shape);
                continue;
            }
            let content = item.source.get(shape.front..item.packet.length.into());
            let signed =
                content.and_then(|content| sign(packet, sa, &shape, content, item.sequence));
            if signed.is_none() {
                item.verdict = Verdict::Drop(DropReason::Malformed);
            }
        }
    }
}

fn job<'b>(item: &'b mut Item<'_>) -> Option<SealJob<'b>> {
    let (Verdict::Sealed(length), None) = (item.verdict, item.inner_sa) else {
        return None;
    };
    let sa = item.sa?;
    if sa.parameters.protocol == Protocol::Ah {
        return None;
    }
    let shape = item.shape(sa);
    Some(SealJob {
        transform: &sa.transform,
        source: item.source.get(shape.front..item.packet.length.into())?,
        destination: item
            .destination
            .as_deref_mut()?
            .get_mut(shape.protected()..usize::from(length))?,
        sequence: item.sequence,
        esn: sa.parameters.esn,
    })
}

/// Puts the content behind AH and the ICV into it.
//= T41 T46 T49 (RFC 4302 sections 3.1.2, 3.3.3)
fn sign(packet: &mut [u8], sa: &Sa, shape: &Shape, content: &[u8], sequence: u64) -> Option<()> {
    packet.get_mut(shape.content()..)?.copy_from_slice(content);
    let facts = ah::Packet {
        bytes: packet,
        header: shape.protected(),
        sequence,
        esn: sa.parameters.esn,
        end: End::Sender,
    };
    let icv = ah::icv(&sa.transform, &facts)?;
    let header = packet.get_mut(shape.protected()..)?;
    let field = header.get_mut(ah::icv_place(&sa.parameters.suite))?;
    field.copy_from_slice(icv.get(..field.len())?);
    Some(())
}

/// The UDP checksum over IPv6, which covers the sealed bytes.
//= T67 T140 (RFC 8200 section 8.1)
fn finish(packet: &mut [u8], sa: &Sa, shape: &Shape) {
    let parameters = &sa.parameters;
    let (Some(_), false) = (
        parameters.udp_encapsulation,
        parameters.destination.is_ipv4(),
    ) else {
        return;
    };
    let Some(datagram) = packet.get_mut(shape.front + shape.ip..) else {
        return;
    };
    let length = u32::try_from(datagram.len()).unwrap_or(0);
    let sum = checksum::pseudo_v6(
        crate::packet::address_bits(parameters.source),
        crate::packet::address_bits(parameters.destination),
        crate::packet::protocol::UDP,
        length,
    );
    let sum = udp::sent_checksum(sum.bytes(datagram).checksum());
    if let Some(field) = datagram.get_mut(udp::CHECKSUM..udp::LENGTH) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
