//! Encrypts and authenticates what was written, as one batch (RFC 4303 §3.3.2).

use arrayvec::ArrayVec;

use crate::crypto::{self, SealJob, ah};
use crate::ip::mutable::End;
use crate::limits::BATCH;
use crate::outbound::{Item, Verdict};
use crate::packet::{self, checksum};
use crate::sa::Sa;
use crate::sa::association::Protocol;
use crate::sa::shape::Shape;
use crate::verdict::DropReason;

/// What sealing needs to know of a packet that is numbered and written. Owned, so that the key's
/// work may be done by another thread than the one that owns the SA's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The sequence number.
    sequence: u64,
    /// Length of the packet to send.
    length: u16,
    /// Length of the packet to protect.
    inner: u16,
    /// Transport mode: bytes of headers that stay in front, else 0.
    front: u16,
}

impl Task {
    /// Length of the packet to send, from its outer IP header on, bytes.
    #[must_use]
    pub const fn length(&self) -> u16 {
        self.length
    }
}

/// A [`Task`] with its bytes and its keys.
pub struct Sealing<'a> {
    /// What is to be done.
    pub task: Task,
    /// The SA that wrote the packet.
    pub sa: &'a Sa,
    /// The packet to protect, as `write` left it.
    pub source: &'a [u8],
    /// What `write` wrote into.
    pub destination: &'a mut [u8],
    /// False when the packet must not be sent; set by sealing.
    pub sealed: bool,
}

/// What a packet is sealed from.
struct Parts<'b> {
    task: Task,
    sa: &'b Sa,
    source: &'b [u8],
    destination: &'b mut [u8],
}

/// Something that may want to be sealed.
trait Seal {
    /// `None`: it does not want to.
    fn parts(&mut self) -> Option<Parts<'_>>;

    /// It could not be done.
    fn refuse(&mut self);
}

impl Seal for Item<'_> {
    fn parts(&mut self) -> Option<Parts<'_>> {
        Some(Parts {
            task: self.task()?,
            sa: self.sa?,
            source: self.source,
            destination: self.destination.as_deref_mut()?,
        })
    }

    fn refuse(&mut self) {
        self.verdict = Verdict::Drop(DropReason::Malformed);
    }
}

impl Seal for Sealing<'_> {
    fn parts(&mut self) -> Option<Parts<'_>> {
        Some(Parts {
            task: self.task,
            sa: self.sa,
            source: self.source,
            destination: self.destination,
        })
    }

    fn refuse(&mut self) {
        self.sealed = false;
    }
}

impl Item<'_> {
    /// What is left to do for a packet that is written and not sealed yet.
    #[must_use]
    pub const fn task(&self) -> Option<Task> {
        match (self.verdict, self.inner_sa) {
            (Verdict::Sealed(length), None) => Some(Task {
                sequence: self.sequence,
                length,
                inner: self.packet.length,
                front: self.front,
            }),
            _ => None,
        }
    }
}

/// `batch` has at most [`BATCH`] packets.
pub(super) fn run(batch: &mut [Item<'_>]) {
    seal_all(batch);
}

/// `batch` has at most [`BATCH`] packets; others are not sealed.
pub(super) fn run_tasks(batch: &mut [Sealing<'_>]) {
    for (index, one) in batch.iter_mut().enumerate() {
        one.sealed = index < BATCH;
    }
    let end = batch.len().min(BATCH);
    seal_all(&mut batch[..end]);
}

fn seal_all(batch: &mut [impl Seal]) {
    let mut jobs: ArrayVec<SealJob<'_>, BATCH> = ArrayVec::new();
    let mut unfinished = false;
    for one in &mut *batch {
        let Some(parts) = one.parts() else { continue };
        unfinished |= parts.is_finished_later();
        match parts.job() {
            Some(job) if !jobs.is_full() => jobs.push(job),
            // AH, or what ends as refused.
            _ => unfinished = true,
        }
    }
    crypto::seal(&mut jobs);
    drop(jobs);
    if !unfinished {
        return;
    }
    for one in batch {
        if one.parts().is_some_and(|parts| parts.finish().is_none()) {
            one.refuse();
        }
    }
}

impl<'b> Parts<'b> {
    /// More is to be done than a cipher and a MAC do: see [`Self::finish`].
    #[inline]
    fn is_finished_later(&self) -> bool {
        self.sa.parameters.protocol == Protocol::Ah || has_outer_checksum(self.sa)
    }

    #[inline]
    fn job(self) -> Option<SealJob<'b>> {
        if self.sa.parameters.protocol == Protocol::Ah {
            return None;
        }
        let shape = self.sa.shape.behind(self.task.front.into());
        Some(SealJob {
            transform: &self.sa.transform,
            source: self.source.get(shape.front..self.task.inner.into())?,
            destination: self
                .destination
                .get_mut(shape.protected()..usize::from(self.task.length))?,
            sequence: self.task.sequence,
            esn: self.sa.parameters.esn,
        })
    }

    /// What remains when ciphers and MACs of the batch are done; `None`: the packet has come to
    /// nothing.
    fn finish(self) -> Option<()> {
        let (sa, task) = (self.sa, self.task);
        let shape = sa.shape.behind(task.front.into());
        let packet = self.destination.get_mut(..usize::from(task.length))?;
        let content = self.source.get(shape.front..task.inner.into())?;
        if sa.parameters.protocol == Protocol::Esp {
            complete(packet, sa);
            return Some(());
        }
        sign(packet, sa, &shape, content, task.sequence)
    }
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

/// The UDP checksum over IPv6, which covers the sealed bytes. Over IPv4 there is none, and
/// `renew` would leave it so.
//= T67 T140 (RFC 3948 section 2.1, RFC 8200 section 8.1)
fn complete(packet: &mut [u8], sa: &Sa) {
    if has_outer_checksum(sa)
        && let Ok(outer) = packet::parse(packet)
    {
        checksum::renew(packet, &outer);
    }
}

const fn has_outer_checksum(sa: &Sa) -> bool {
    let parameters = &sa.parameters;
    parameters.udp_encapsulation.is_some() && parameters.destination.is_ipv6()
}
