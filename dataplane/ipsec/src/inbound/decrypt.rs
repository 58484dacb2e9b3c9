//! Verifies and decrypts as one batch (RFC 4303 §3.4.4).

use arrayvec::ArrayVec;

use crate::crypto::{self, OpenJob};
use crate::inbound::{Item, Verdict};
use crate::limits::BATCH;
use crate::verdict::DropReason;
use crate::wire::esp;

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
        //= T31 T83 (RFC 4303 section 3.4.4.1)
        if item.verdict == Verdict::Continue && answers.next() != Some(true) {
            item.verdict = Verdict::Drop(DropReason::Authentication);
        }
    }
}

/// Notes the plaintext's length; false where there is no room for it.
fn prepare(item: &mut Item<'_>) -> bool {
    let (Some(sa), Some(destination)) = (item.sa, item.destination.as_deref()) else {
        return false;
    };
    let suite = &sa.parameters.suite;
    let length = item.end.saturating_sub(item.header_offset);
    let around = esp::LENGTH + suite.iv_length() + suite.icv_length();
    item.plaintext = u16::try_from(usize::from(length).saturating_sub(around)).unwrap_or(0);
    destination.len() >= usize::from(length)
}

fn job<'b>(item: &'b mut Item<'_>) -> Option<OpenJob<'b>> {
    if item.verdict != Verdict::Continue {
        return None;
    }
    let sa = item.sa?;
    Some(OpenJob {
        transform: &sa.transform,
        source: item
            .source
            .get(usize::from(item.header_offset)..usize::from(item.end))?,
        destination: item.destination.as_deref_mut()?,
        sequence: item.sequence,
        esn: sa.parameters.esn,
        authentic: false,
    })
}
