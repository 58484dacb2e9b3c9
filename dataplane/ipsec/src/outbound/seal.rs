//! Encrypts and authenticates what was written, as one batch (RFC 4303 §3.3.2).

use arrayvec::ArrayVec;

use crate::crypto::{self, SealJob};
use crate::limits::BATCH;
use crate::outbound::{Item, Verdict};
use crate::sa::Sa;
use crate::shape::Shape;
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
        if let (Verdict::Sealed(length), Some(sa), Some(destination)) =
            (item.verdict, item.sa, item.destination.as_deref_mut())
            && let Some(packet) = destination.get_mut(..usize::from(length))
        {
            finish(packet, sa);
        }
    }
}

fn job<'b>(item: &'b mut Item<'_>) -> Option<SealJob<'b>> {
    let Verdict::Sealed(length) = item.verdict else {
        return None;
    };
    let sa = item.sa?;
    let shape = Shape::of(&sa.parameters);
    Some(SealJob {
        transform: &sa.transform,
        source: item.source.get(..usize::from(item.packet.length))?,
        destination: item
            .destination
            .as_deref_mut()?
            .get_mut(shape.esp()..usize::from(length))?,
        sequence: item.sequence,
        esn: sa.parameters.esn,
    })
}

/// The UDP checksum over IPv6, which covers the sealed bytes.
//= T67 T140 (RFC 8200 section 8.1)
fn finish(packet: &mut [u8], sa: &Sa) {
    let parameters = &sa.parameters;
    let (Some(_), false) = (
        parameters.udp_encapsulation,
        parameters.destination.is_ipv4(),
    ) else {
        return;
    };
    let start = Shape::of(parameters).ip;
    let Some(datagram) = packet.get_mut(start..) else {
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
