//! Packets of several frames on receipt: copied together into one scratch buffer, so that parsers
//! and ciphers never see pieces. What cannot be carried is followed to its end and lost once.

use ipsec::limits::PACKET;
use ipsec::verdict::DropReason;

use super::frame::{PIECES, Scratch};

/// What became of a piece.
#[derive(Debug)]
pub(super) enum Gathered {
    /// More is to come.
    Partly,
    /// The packet is whole, with its length.
    Whole(Box<Scratch>, u32),
    /// Its last piece came, and it cannot be delivered. The scratch buffer, if it had one.
    Lost(DropReason, Option<Box<Scratch>>),
}

/// The packet that is being gathered, which may take several reads of the ring.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    scratch: Option<Box<Scratch>>,
    pieces: usize,
    length: usize,
    fault: Option<DropReason>,
}

impl Gatherer {
    /// No packet is half gathered.
    pub(super) const fn is_idle(&self) -> bool {
        self.pieces == 0
    }

    /// It holds a scratch buffer.
    pub(super) const fn holds_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    /// Adds a piece; `take` gives a scratch buffer for the first.
    pub(super) fn add(
        &mut self,
        bytes: &[u8],
        more: bool,
        take: impl FnOnce() -> Option<Box<Scratch>>,
    ) -> Gathered {
        if self.is_idle() {
            self.scratch = take();
        }
        self.pieces += 1;
        if let Err(reason) = self.copy(bytes) {
            self.fault.get_or_insert(reason);
        }
        if more {
            return Gathered::Partly;
        }
        let Self {
            scratch,
            length,
            fault,
            ..
        } = std::mem::take(self);
        match (fault, scratch) {
            (None, Some(scratch)) => {
                Gathered::Whole(scratch, u32::try_from(length).unwrap_or(u32::MAX))
            }
            (fault, scratch) => Gathered::Lost(fault.unwrap_or(DropReason::NoFrame), scratch),
        }
    }

    fn copy(&mut self, bytes: &[u8]) -> Result<(), DropReason> {
        let end = self.length + bytes.len();
        if self.pieces > PIECES || end > PACKET {
            return Err(DropReason::Unsupported);
        }
        let scratch = self.scratch.as_mut().ok_or(DropReason::NoFrame)?;
        scratch.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(gatherer: &mut Gatherer, lengths: &[usize]) -> Gathered {
        let last = lengths.len() - 1;
        let mut result = Gathered::Partly;
        for (index, &length) in lengths.iter().enumerate() {
            let fill = u8::try_from(index).unwrap_or(u8::MAX);
            let bytes = vec![fill; length];
            result = gatherer.add(&bytes, index < last, || Some(Scratch::new(0)));
        }
        assert!(gatherer.is_idle());
        result
    }

    #[test]
    fn pieces_come_together_in_order() {
        let Gathered::Whole(scratch, length) = feed(&mut Gatherer::default(), &[10, 20, 5]) else {
            panic!("whole");
        };
        assert_eq!(length, 35);
        assert!(scratch.bytes[..10].iter().all(|&byte| byte == 0));
        assert!(scratch.bytes[10..30].iter().all(|&byte| byte == 1));
        assert!(scratch.bytes[30..35].iter().all(|&byte| byte == 2));
    }

    #[test]
    fn the_largest_packet_fits_and_a_byte_more_does_not() {
        let mut gatherer = Gatherer::default();
        let whole = feed(&mut gatherer, &[3840, 3840, 3840, 3840, PACKET - 4 * 3840]);
        assert!(matches!(whole, Gathered::Whole(_, length) if length as usize == PACKET));
        let over = feed(
            &mut gatherer,
            &[3840, 3840, 3840, 3840, PACKET - 4 * 3840 + 1],
        );
        assert!(matches!(
            over,
            Gathered::Lost(DropReason::Unsupported, Some(_))
        ));
    }

    #[test]
    fn too_many_pieces_are_lost_once_and_the_next_packet_is_whole() {
        let mut gatherer = Gatherer::default();
        let lost = feed(&mut gatherer, &[1; PIECES + 3]);
        assert!(matches!(
            lost,
            Gathered::Lost(DropReason::Unsupported, Some(_))
        ));
        assert!(matches!(
            feed(&mut gatherer, &[1; PIECES]),
            Gathered::Whole(_, 5)
        ));
    }

    #[test]
    fn without_scratch_the_packet_is_lost_for_lack_of_a_frame() {
        let mut gatherer = Gatherer::default();
        assert!(matches!(
            gatherer.add(&[1], true, || None),
            Gathered::Partly
        ));
        // A buffer that comes free meanwhile does not help: the first piece is gone.
        let end = gatherer.add(&[1], false, || Some(Scratch::new(0)));
        assert!(matches!(end, Gathered::Lost(DropReason::NoFrame, None)));
    }
}
