//! The helper's side: a worker that has time does batches of others.

use crate::counters::Cell;
use crate::port::Port;
use crate::worker::host::Host;
use crate::worker::process::Worker;

impl<P: Port, H: Host> Worker<P, H> {
    /// After a round that served `work` packets: tells the others whether this worker has time,
    /// which is when it was not busy with a full batch of its own and lends nothing itself. Does
    /// one batch of another worker if so. True: it did.
    pub fn help(&mut self, work: usize, limit: usize) -> bool {
        let own = work.saturating_sub(self.lender.handed_over);
        let free = own < limit && self.lender.is_home() && !self.lender.stopped;
        if free != self.lender.shown_free {
            self.lender.shown_free = free;
            self.desk.lending().show_free(self.desk.own(), free);
        }
        free && self.help_once()
    }

    fn help_once(&mut self) -> bool {
        for other in 0..self.lender.cursors.len() {
            if other == self.desk.own() {
                continue;
            }
            let ring = self.desk.lending().ring_of(other);
            let Some((position, mut batch)) = ring.claim_next(&mut self.lender.cursors[other])
            else {
                continue;
            };
            batch.run();
            batch.helped = true;
            ring.give_back(position, batch);
            self.tally.add(Cell::Helped, 1);
            return true;
        }
        false
    }

    /// Another worker has something to do for this one.
    pub(in crate::worker) fn is_wanted(&self) -> bool {
        let others = self.lender.cursors.iter().enumerate();
        others
            .filter(|(other, _)| *other != self.desk.own())
            .any(|(other, cursor)| self.desk.lending().ring_of(other).is_ahead_of(*cursor))
    }
}
