//! Verifies and decrypts as one batch (RFC 4303 §3.4.4), or verifies alone (RFC 4302 §3.4.4).

use arrayvec::ArrayVec;

use crate::crypto::{self, OpenJob};
use crate::inbound::{Item, Kind, Verdict};
use crate::ip::mutable::End;
use crate::ip::transport::take_out_fragment_header;
use crate::limits::BATCH;
use crate::packet::Packet;
use crate::sa::Sa;
use crate::sa::association::{Mode, Protocol};
use crate::verdict::DropReason;
use crate::wire::ah;

/// What opening needs to know of a packet that `inbound::prepare` made ready, and its answer.
/// Owned, so that the key's work may be done by another thread than the one that owns the SA's
/// state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// How it arrived.
    kind: Kind,
    /// The sequence number, 64 bits as the window derived it.
    sequence: u64,
    /// From and to in the packet as received: ESP or AH.
    header_offset: u16,
    end: u16,
    /// Transport mode: bytes of headers in front of the plaintext, else 0.
    front: u16,
    /// Length of the decrypted text, padding and trailer included.
    plaintext: u16,
    /// AH: the protocol of that text.
    next_header: u8,
    authentic: bool,
}

/// A [`Task`] with its bytes and its keys.
pub struct Opening<'a> {
    /// What is to be done, and then the answer.
    pub task: &'a mut Task,
    /// The packet's SA.
    pub sa: &'a Sa,
    /// The IP packet as received.
    pub source: &'a [u8],
    /// Where the plaintext goes.
    pub destination: &'a mut [u8],
}

/// What a packet is opened from.
struct Parts<'b> {
    task: Task,
    sa: &'b Sa,
    source: &'b [u8],
    destination: &'b mut [u8],
}

/// Something that may want to be opened.
trait Open {
    /// `None`: it does not want to.
    fn parts(&mut self) -> Option<Parts<'_>>;

    fn answer(&mut self, authentic: bool);
}

impl Open for Item<'_> {
    fn parts(&mut self) -> Option<Parts<'_>> {
        Some(Parts {
            task: self.task()?,
            sa: self.sa?,
            source: self.source,
            destination: self.destination.as_deref_mut()?,
        })
    }

    fn answer(&mut self, authentic: bool) {
        if !authentic {
            self.verdict = Verdict::Drop(DropReason::Authentication);
        }
    }
}

impl Open for Opening<'_> {
    fn parts(&mut self) -> Option<Parts<'_>> {
        Some(Parts {
            task: *self.task,
            sa: self.sa,
            source: self.source,
            destination: self.destination,
        })
    }

    fn answer(&mut self, authentic: bool) {
        self.task.authentic = authentic;
    }
}

impl<'a> Item<'a> {
    /// What is left to do for a packet that `inbound::prepare` made ready.
    #[must_use]
    pub fn task(&self) -> Option<Task> {
        (self.verdict == Verdict::Continue).then_some(Task {
            kind: self.kind,
            sequence: self.sequence,
            header_offset: self.header_offset,
            end: self.end,
            front: self.front,
            plaintext: self.plaintext,
            next_header: self.next_header,
            authentic: false,
        })
    }

    /// The packet again whose task it was, for `inbound::accept`. `source`, `sa` and `destination`
    /// are those of the [`Opening`].
    #[must_use]
    pub const fn opened(
        task: &Task,
        (source, packet): (&'a [u8], Packet),
        sa: &'a Sa,
        destination: &'a mut [u8],
    ) -> Self {
        let mut item = Self::new(source, packet);
        item.sa = Some(sa);
        item.destination = Some(destination);
        item.kind = task.kind;
        item.sequence = task.sequence;
        item.header_offset = task.header_offset;
        item.end = task.end;
        item.front = task.front;
        item.plaintext = task.plaintext;
        item.next_header = task.next_header;
        if !task.authentic {
            item.verdict = Verdict::Drop(DropReason::Authentication);
        }
        item
    }
}

/// Finds out where the plaintext goes and writes what stands in front of it; what has no room ends.
pub(super) fn prepare(batch: &mut [Item<'_>]) {
    for item in batch {
        if item.verdict == Verdict::Continue && !make_room(item) {
            item.verdict = Verdict::Drop(DropReason::NoFrame);
        }
    }
}

/// `batch` has at most [`BATCH`] packets; others are not authentic.
pub(super) fn run_tasks(batch: &mut [Opening<'_>]) {
    for one in &mut *batch {
        one.task.authentic = false;
    }
    let end = batch.len().min(BATCH);
    open_all(&mut batch[..end]);
}

/// `batch` has at most [`BATCH`] packets.
pub(super) fn run(batch: &mut [Item<'_>]) {
    open_all(batch);
}

fn open_all(batch: &mut [impl Open]) {
    let mut jobs: ArrayVec<OpenJob<'_>, BATCH> = ArrayVec::new();
    for one in &mut *batch {
        if let Some(job) = one.parts().and_then(Parts::job) {
            let _ = jobs.try_push(job);
        }
    }
    crypto::open(&mut jobs);
    let authentic: ArrayVec<bool, BATCH> = jobs.iter().map(|job| job.authentic).collect();
    drop(jobs);
    let mut answers = authentic.into_iter();
    for one in batch {
        let Some(parts) = one.parts() else { continue };
        //= T31 T83 (RFC 4303 section 3.4.4.1)
        let authentic = if parts.is_ah() {
            parts.verify().is_some()
        } else {
            answers.next() == Some(true)
        };
        one.answer(authentic);
    }
}

/// Copies what transport mode leaves in front and notes the plaintext's length; false where there
/// is no room for it.
fn make_room(item: &mut Item<'_>) -> bool {
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
    let shape = sa.shape.behind(0);
    let around = match protocol {
        Protocol::Esp => shape.header + shape.icv,
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

impl<'b> Parts<'b> {
    fn is_ah(&self) -> bool {
        self.sa.parameters.protocol == Protocol::Ah
    }

    /// One for every packet under ESP, so that jobs and packets keep step; one without its bytes is
    /// not authentic.
    fn job(self) -> Option<OpenJob<'b>> {
        let (header, end) = (self.task.header_offset.into(), self.task.end.into());
        let front = usize::from(self.task.front);
        (!self.is_ah()).then_some(OpenJob {
            transform: &self.sa.transform,
            source: self.source.get(header..end).unwrap_or(&[]),
            destination: self.destination.get_mut(front..).unwrap_or(&mut []),
            sequence: self.task.sequence,
            esn: self.sa.parameters.esn,
            authentic: false,
        })
    }

    /// AH: the content to its place, if the ICV is right.
    //= T31 T41 T46 T48 T49 (RFC 4302 sections 3.3.3, 3.4.4)
    fn verify(self) -> Option<()> {
        let (sa, task) = (self.sa, self.task);
        let bytes = self.source.get(..task.end.into())?;
        let packet = crypto::ah::Packet {
            bytes,
            header: task.header_offset.into(),
            sequence: task.sequence,
            esn: sa.parameters.esn,
            end: End::Receiver,
        };
        if !crypto::ah::verify(&sa.transform, &packet) {
            return None;
        }
        let content = bytes.get(bytes.len().checked_sub(task.plaintext.into())?..)?;
        self.destination
            .get_mut(task.front.into()..)?
            .get_mut(..content.len())?
            .copy_from_slice(content);
        Some(())
    }
}
