//! ESP dummies on request (RFC 4303 §2.6): authentic packets that carry nothing, a batch a round at
//! most, so that traffic goes on beside them.

use arrayvec::ArrayVec;
use ipsec::limits::BATCH;
use ipsec::outbound::{self, Item, Verdict};
use ipsec::time::{SECOND, Time};
use ipsec::verdict::DropReason;

use crate::port::Port;
use crate::snapshot::Snapshot;
use crate::worker::frame::Arrival;
use crate::worker::host::Host;
use crate::worker::orders::{Order, UnderWay};
use crate::worker::outbound::{Buffers, Fates, LONG};
use crate::worker::process::Worker;

/// How long an order waits for room, a neighbour or numbers before the rest of it is given up.
const PATIENCE: u64 = SECOND;

impl<P: Port, H: Host> Worker<P, H> {
    /// Sends dummies that were ordered. Answers their number.
    pub(super) fn send_dummies(&mut self, snapshot: &Snapshot, now: Time) -> usize {
        let begun = self.order.take();
        let next = || {
            let order = self.desk.next_order()?;
            Some(UnderWay {
                order,
                progress: now,
            })
        };
        let Some(mut at) = begun.or_else(next) else {
            return 0;
        };
        let Ok(Some(sent)) = self.send_some(at.order, snapshot, now) else {
            // What cannot be sent at all was never created and counts nowhere; what another
            // worker sends is its to count.
            return 0;
        };
        if sent > 0 {
            at.progress = now;
            at.order.count -= u32::try_from(sent).unwrap_or(at.order.count);
        }
        if at.order.count > 0 && now.since(at.progress) < PATIENCE {
            self.order = Some(at);
        }
        sent
    }

    /// Sends up to a batch of an order: how many left, or `None` when the whole order went to the
    /// SA's home. What holds up the others may pass, unless it is an error.
    fn send_some(
        &mut self,
        order: Order,
        snapshot: &Snapshot,
        now: Time,
    ) -> Result<Option<usize>, DropReason> {
        let sa = snapshot.tables.sad.by_slot(order.slot);
        let sa = sa.ok_or(DropReason::SaExpired)?;
        let count = usize::try_from(order.count).unwrap_or(BATCH).min(BATCH);
        let mut buffers: Buffers<'_, P::Transmit> = [const { None }; BATCH];
        let mut fates = Fates::new();
        {
            let items = (0..count).map(|_| Item::dummy(sa));
            let mut items: ArrayVec<Item<'_>, BATCH> = items.collect();
            outbound::select_dummies(&mut items, &mut self.outbound_context(snapshot, now));
            if let Some(Verdict::Elsewhere(home)) = items.first().map(|item| item.verdict) {
                let taken = self.desk.send_order(home, order);
                self.desk.ring();
                return taken.map(|()| None).map_err(|_| DropReason::HandoffFull);
            }
            let room = (&mut buffers, &mut [].chunks_exact_mut(LONG));
            self.seal(&mut items, room, &mut fates, snapshot, now);
        }
        let mut sent = 0;
        let mut refused = Ok(());
        for (fate, buffer) in fates.iter().zip(&mut buffers) {
            match (fate.verdict, fate.way, buffer.take()) {
                (Verdict::Sealed(length), Some(way), Some(buffer)) => {
                    let sealed = (buffer, usize::from(length));
                    self.leave(fate, way, sealed, snapshot, Arrival::Own, now);
                    sent += 1;
                }
                (verdict, way, buffer) => {
                    if let (Some(exit), Some(unused)) = (way, buffer) {
                        self.leave_room(exit.port(), unused);
                    }
                    let judged = judge(verdict);
                    refused = refused.and(judged);
                }
            }
        }
        refused.map(|()| Some(sent))
    }
}

/// Whether it is worth while to try again.
const fn judge(verdict: Verdict) -> Result<(), DropReason> {
    match verdict {
        Verdict::Drop(
            DropReason::TxFull
            | DropReason::NoFrame
            | DropReason::NoNeighbor
            | DropReason::NoReservation,
        ) => Ok(()),
        Verdict::Drop(reason) => Err(reason),
        _ => Err(DropReason::Unsupported),
    }
}
