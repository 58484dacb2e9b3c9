//! Verifies and decrypts as one batch (RFC 4303 §3.4.4), or verifies alone (RFC 4302 §3.4.4).

use arrayvec::ArrayVec;

use crate::crypto::{self, OpenJob};
use crate::inbound::{Item, Verdict};
use crate::ip::mutable::End;
use crate::ip::transport::take_out_fragment_header;
use crate::limits::BATCH;
use crate::sa::association::{Mode, Protocol};
use crate::verdict::DropReason;
use crate::wire::{ah, esp};

/// `batch` has at most [`BATCH`] packets.
pub(super) fn run(batch: &mut [Item<'_>]) {
    let mut jobs: ArrayVec<OpenJob<'_>, BATCH> = ArrayVec::new();
    for item in &mut *batch {
        if item.verdict == Verdict::Continue && !prepare(item) {
            item.verdict = Verdict::Drop(DropReason::NoFrame);
        }
        if let Some(job) = job(item) {
            let _ = jobs.try_push(job);
        }
    }
    crypto::open(&mut jobs);
    let authentic: ArrayVec<bool, BATCH> = jobs.iter().map(|job| job.authentic).collect();
    drop(jobs);
    let mut answers = authentic.into_iter();
    for item in batch {
        if item.verdict != Verdict::Continue {
            continue;
        }
        //= T31 T83 (RFC 4303 section 3.4.4.1)
        let authentic = if is_ah(item) {
            verify(item).is_some()
        } else {
            answers.next() == Some(true)
        };
        if !authentic {
            item.verdict = Verdict::Drop(DropReason::Authentication);
        }
    }
}

fn is_ah(item: &Item<'_>) -> bool {
    item.sa
        .is_some_and(|sa| sa.parameters.protocol == Protocol::Ah)
}

/// Copies what transport mode leaves in front and notes the plaintext's length; false where there
/// is no room for it.
fn prepare(item: &mut Item<'_>) -> bool {
    let (Some(sa), Some(destination)) = (item.sa, item.destination.as_deref_mut()) else {
        return false;
    };
    if destination.len() < usize::from(item.end) {
        return false;
    }
    let protocol = sa.parameters.protocol;
    if sa.parameters.mode == Mode::Transport {
        let front = usize::from(item.packet.upper_offset);
        let headers = item.source.get(..front).unwrap_or(&[]);
        if let Some(stay) = destination.get_mut(..headers.len()) {
            stay.copy_from_slice(headers);
        }
        let taken = match protocol {
            Protocol::Ah => take_out_fragment_header(destination, front),
            Protocol::Esp => 0,
        };
        item.front = u16::try_from(front - taken).unwrap_or(0);
    }
    let suite = &sa.parameters.suite;
    let around = match protocol {
        Protocol::Esp => esp::LENGTH + suite.iv_length() + suite.icv_length(),
        Protocol::Ah => {
            let header = item.source.get(item.header_offset.into()..);
            let header = header.and_then(ah::Header::parse);
            item.next_header = header.map_or(0, |header| header.next_header);
            header.map_or(0, |header| usize::from(header.length))
        }
    };
    let length = item.end.saturating_sub(item.header_offset);
    item.plaintext = u16::try_from(usize::from(length).saturating_sub(around)).unwrap_or(0);
    true
}

fn job<'b>(item: &'b mut Item<'_>) -> Option<OpenJob<'b>> {
    if item.verdict != Verdict::Continue || is_ah(item) {
        return None;
    }
    let sa = item.sa?;
    Some(OpenJob {
        transform: &sa.transform,
        source: item
            .source
            .get(usize::from(item.header_offset)..usize::from(item.end))?,
        destination: item
            .destination
            .as_deref_mut()?
            .get_mut(item.front.into()..)?,
        sequence: item.sequence,
        esn: sa.parameters.esn,
        authentic: false,
    })
}

/// AH: the content to its place, if the ICV is right.
//= T31 T41 T46 T48 T49 (RFC 4302 sections 3.3.3, 3.4.4)
fn verify(item: &mut Item<'_>) -> Option<()> {
    let sa = item.sa?;
    let bytes = item.source.get(..item.end.into())?;
    let packet = crypto::ah::Packet {
        bytes,
        header: item.header_offset.into(),
        sequence: item.sequence,
        esn: sa.parameters.esn,
        end: End::Receiver,
    };
    if !crypto::ah::verify(&sa.transform, &packet) {
        return None;
    }
    let content = bytes.get(bytes.len().checked_sub(item.plaintext.into())?..)?;
    let destination = item.destination.as_deref_mut()?;
    destination
        .get_mut(item.front.into()..)?
        .get_mut(..content.len())?
        .copy_from_slice(content);
    Some(())
}
