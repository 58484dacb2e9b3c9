//! Counters: every worker adds to plain numbers of its own and publishes them at the end of a
//! batch; whoever reads sums up what the workers published.
//!
//! **The accounting identity** holds in every published block and therefore in every sum:
//! `rx + from_host + created = tx + to_host + dropped + consumed + merged + held`.

use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipsec::verdict::DropReason;

/// What a worker counts beside drops and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Cell {
    /// Packets received from ports.
    Rx,
    /// Packets received from the machine itself.
    FromHost,
    /// Packets that we made: ICMP errors, keepalives, dummies, second and later fragments.
    Created,
    /// Packets sent by ports.
    Tx,
    /// Packets delivered to the machine itself.
    ToHost,
    /// Authentic dummies swallowed.
    Dummy,
    /// NAT keepalives swallowed.
    Keepalive,
    /// Fragments beyond the first of a reassembled packet.
    Merged,
    /// Waiting for fragments, a neighbour or a reservation, or handed to another worker. Modulo
    /// 2⁶⁴: a worker that ends a packet which another handed over goes below zero, their sum at a
    /// cut does not.
    Held,
    /// Batches that were not empty.
    Batches,
    /// Batches of this worker's SAs that another worker did.
    Lent,
    /// Batches that were offered to others and done here after all.
    TakenBack,
    /// Batches of other workers' SAs that this worker did.
    Helped,
}

const CELLS: usize = Cell::Helped as usize + 1;

/// What is counted for each port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum PortCell {
    /// Packets received.
    RxPackets,
    /// Bytes received: Ethernet frames without FCS.
    RxBytes,
    /// Packets sent.
    TxPackets,
    /// Bytes sent.
    TxBytes,
    /// Packets received here that went to the machine itself.
    ToHostPackets,
}

const PORT_CELLS: usize = PortCell::ToHostPackets as usize + 1;
const DROPS: usize = CELLS;
const PORTS: usize = CELLS + DropReason::COUNT;

/// The numbers of one worker, or a sum of several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally(Vec<u64>);

impl Tally {
    /// All zero, for `ports` ports.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        Self(vec![0; PORTS + ports * PORT_CELLS])
    }

    /// Adds `count` to a cell.
    pub fn add(&mut self, cell: Cell, count: u64) {
        self.0[cell as usize] += count;
    }

    /// `count` packets more are held.
    pub fn hold(&mut self, count: u64) {
        self.0[Cell::Held as usize] = self.0[Cell::Held as usize].wrapping_add(count);
    }

    /// `count` held packets have ended, here or on the worker that they came from.
    pub fn unhold(&mut self, count: u64) {
        self.0[Cell::Held as usize] = self.0[Cell::Held as usize].wrapping_sub(count);
    }

    /// One packet was dropped.
    pub fn drop(&mut self, reason: DropReason) {
        self.0[DROPS + reason.index()] += 1;
    }

    /// `count` packets more were dropped for a reason.
    pub fn add_drops(&mut self, reason: DropReason, count: u64) {
        self.0[DROPS + reason.index()] += count;
    }

    /// Adds `count` to a port's cell.
    pub fn port(&mut self, port: usize, cell: PortCell, count: u64) {
        self.0[PORTS + port * PORT_CELLS + cell as usize] += count;
    }

    /// A frame of `bytes` left by a port.
    #[inline]
    pub fn sent(&mut self, port: usize, bytes: u64) {
        self.0[Cell::Tx as usize] += 1;
        let start = PORTS + port * PORT_CELLS;
        let cells = &mut self.0[start..start + PORT_CELLS];
        cells[PortCell::TxPackets as usize] += 1;
        cells[PortCell::TxBytes as usize] += bytes;
    }

    /// The value of a cell.
    #[must_use]
    pub fn of(&self, cell: Cell) -> u64 {
        self.0[cell as usize]
    }

    /// The packets that left, by a port or to the machine.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.of(Cell::Tx) + self.of(Cell::ToHost)
    }

    /// The packets dropped for a reason.
    #[must_use]
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.0[DROPS + reason.index()]
    }

    /// The packets dropped in all.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0[DROPS..PORTS].iter().sum()
    }

    /// The value of a port's cell.
    #[must_use]
    pub fn of_port(&self, port: usize, cell: PortCell) -> u64 {
        self.0[PORTS + port * PORT_CELLS + cell as usize]
    }

    /// Adds another worker's numbers.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = mine.wrapping_add(*theirs);
        }
    }

    /// Both sides of the accounting identity: what came into being, and how it ended.
    #[must_use]
    pub fn sides(&self) -> (u64, u64) {
        let began = self.of(Cell::Rx) + self.of(Cell::FromHost) + self.of(Cell::Created);
        let ended = (self.of(Cell::Tx) + self.of(Cell::ToHost) + self.dropped())
            .wrapping_add(self.of(Cell::Dummy) + self.of(Cell::Keepalive))
            .wrapping_add(self.of(Cell::Merged))
            .wrapping_add(self.of(Cell::Held));
        (began, ended)
    }

    /// Every packet ended once or is held.
    #[must_use]
    pub fn balances(&self) -> bool {
        let (began, ended) = self.sides();
        began == ended
    }
}

/// What one worker publishes: one writer, any reader. A reader gets the numbers of one moment, the
/// end of a batch (a sequence lock over atomics).
#[derive(Debug)]
pub struct Block {
    version: AtomicU64,
    cells: Box<[AtomicU64]>,
    /// The cut that `frozen` belongs to.
    cut: AtomicU64,
    /// The numbers at that cut.
    frozen: Box<[AtomicU64]>,
}

impl Block {
    /// All zero, for `ports` ports.
    #[must_use]
    pub fn new(ports: usize) -> Self {
        let cells = || {
            (0..PORTS + ports * PORT_CELLS)
                .map(|_| AtomicU64::new(0))
                .collect()
        };
        Self {
            version: AtomicU64::new(0),
            cells: cells(),
            cut: AtomicU64::new(0),
            frozen: cells(),
        }
    }

    /// Publishes a tally as it is at cut number `cut`. Only the worker that owns the block may call
    /// this, between two batches, once a cut.
    pub fn freeze(&self, cut: u64, tally: &Tally) {
        for (cell, value) in self.frozen.iter().zip(&tally.0) {
            cell.store(*value, Ordering::Relaxed);
        }
        self.cut.store(cut, Ordering::Release);
    }

    /// The numbers at cut number `cut`, once the worker has come to it.
    fn frozen(&self, cut: u64) -> Option<Tally> {
        let tally = || {
            let cells = self.frozen.iter();
            Tally(cells.map(|cell| cell.load(Ordering::Relaxed)).collect())
        };
        (self.cut.load(Ordering::Acquire) == cut).then(tally)
    }

    /// Publishes a tally. Only the worker that owns the block may call this.
    pub fn publish(&self, tally: &Tally) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (cell, value) in self.cells.iter().zip(&tally.0) {
            cell.store(*value, Ordering::Relaxed);
        }
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }

    /// The numbers at the end of the worker's last batch.
    #[must_use]
    pub fn read(&self) -> Tally {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let tally = Tally(
                self.cells
                    .iter()
                    .map(|c| c.load(Ordering::Relaxed))
                    .collect(),
            );
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return tally;
            }
            std::hint::spin_loop();
        }
    }
}

/// Consistent cuts through all workers' counters.
///
/// Each block balances by itself; read one after the other, a packet handed over in between could
/// show as ended on one worker and not yet handed over on the other. So a reader starts a cut, and
/// each worker freezes its numbers at its next batch boundary. What one worker hands to another
/// carries the cut that its sender was at, and a receiver that is behind freezes before it takes
/// the packet over: nothing ends in a cut in which it has not begun.
#[derive(Debug, Default)]
pub struct Cuts {
    current: AtomicU64,
    /// The last sum; held while a cut is made, so that there is one at a time.
    last: Mutex<Option<Tally>>,
}

impl Cuts {
    /// Number of the cut that every worker should be at.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// Sums the blocks of running workers at one cut; `wake` rouses those that sleep. When a worker
    /// does not come to its batch boundary in time the answer is that of the last cut.
    #[must_use]
    pub fn sum(&self, blocks: &[impl AsRef<Block>], ports: usize, wake: impl Fn()) -> Tally {
        /// Many times a worker's longest round, and less than a person notices.
        const PATIENCE: Duration = Duration::from_millis(200);
        const PAUSE: Duration = Duration::from_micros(20);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let cut = self.current.fetch_add(1, Ordering::Relaxed) + 1;
        wake();
        let until = Instant::now() + PATIENCE;
        let mut sum = Tally::new(ports);
        for block in blocks {
            let tally = loop {
                match block.as_ref().frozen(cut) {
                    Some(tally) => break tally,
                    None if Instant::now() < until => std::thread::sleep(PAUSE),
                    None => return last.clone().unwrap_or_else(|| Tally::new(ports)),
                }
            };
            sum.merge(&tally);
        }
        last.replace(sum.clone());
        sum
    }
}

/// Sums the blocks of workers that have ended, or that hand nothing over.
#[must_use]
pub fn total(blocks: &[impl AsRef<Block>], ports: usize) -> Tally {
    let mut sum = Tally::new(ports);
    for block in blocks {
        sum.merge(&block.as_ref().read());
    }
    sum
}

impl AsRef<Self> for Block {
    fn as_ref(&self) -> &Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handed_over_packet_balances_on_both_workers() {
        let (mut from, mut to) = (Tally::new(1), Tally::new(1));
        from.add(Cell::Rx, 3);
        from.drop(DropReason::NoSa);
        from.hold(2);
        to.add(Cell::Tx, 2);
        to.unhold(2);
        assert!(from.balances() && to.balances());
        let blocks = [Block::new(1), Block::new(1)];
        blocks[0].publish(&from);
        blocks[1].publish(&to);
        let sum = total(&blocks, 1);
        assert!(sum.balances());
        assert_eq!(
            (sum.of(Cell::Rx), sum.of(Cell::Tx), sum.of(Cell::Held)),
            (3, 2, 0)
        );
        assert_eq!((sum.dropped(), sum.drops(DropReason::NoSa)), (1, 1));
    }

    #[test]
    fn a_reader_never_sees_half_a_batch() {
        let block = Block::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut tally = Tally::new(0);
                for _ in 0..20_000 {
                    tally.add(Cell::Rx, 1);
                    tally.add(Cell::Tx, 1);
                    block.publish(&tally);
                }
            });
            for _ in 0..20_000 {
                assert!(block.read().balances());
            }
        });
        assert_eq!(block.read().of(Cell::Tx), 20_000);
    }

    /// One end of a hand-over in the test below: its block, its tally, and the cut it is at.
    struct End<'t> {
        cuts: &'t Cuts,
        block: &'t Block,
        tally: Tally,
        cut: u64,
    }

    impl End<'_> {
        fn come_to(&mut self, cut: u64) {
            if cut > self.cut {
                self.cut = cut;
                self.block.freeze(cut, &self.tally);
            }
        }
    }

    #[test]
    fn at_a_cut_nothing_ends_before_it_began() {
        use crossbeam::queue::ArrayQueue;
        use std::sync::atomic::AtomicBool;
        let (cuts, blocks) = (Cuts::default(), [Block::new(0), Block::new(0)]);
        let (queue, stop) = (ArrayQueue::<u64>::new(64), AtomicBool::new(false));
        let end = |block| End {
            cuts: &cuts,
            block,
            tally: Tally::new(0),
            cut: 0,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut from = end(&blocks[0]);
                while !stop.load(Ordering::Relaxed) {
                    if queue.push(from.cut).is_ok() {
                        from.tally.add(Cell::Rx, 1);
                        from.tally.hold(1);
                    }
                    // Batches are longer than one packet.
                    if from.tally.of(Cell::Rx) % 16 == 0 {
                        from.come_to(from.cuts.current());
                    }
                }
            });
            scope.spawn(|| {
                let mut to = end(&blocks[1]);
                while !stop.load(Ordering::Relaxed) {
                    if let Some(cut) = queue.pop() {
                        to.come_to(cut);
                        to.tally.unhold(1);
                        to.tally.add(Cell::Tx, 1);
                    }
                    to.come_to(to.cuts.current());
                }
            });
            // A failed assertion here must not leave the two at it for ever.
            let sums: Vec<Tally> = (0..500).map(|_| cuts.sum(&blocks, 0, || ())).collect();
            stop.store(true, Ordering::Relaxed);
            let mut before = 0;
            for sum in sums {
                assert!(sum.balances());
                assert!(sum.of(Cell::Held) <= u64::MAX / 2, "ended before it began");
                assert!(sum.of(Cell::Tx) >= before, "numbers went back");
                before = sum.of(Cell::Tx);
            }
        });
    }

    #[test]
    fn a_worker_that_does_not_answer_costs_freshness_and_nothing_else() {
        let (cuts, block) = (Cuts::default(), Block::new(0));
        let mut tally = Tally::new(0);
        assert_eq!(cuts.sum(&[&block], 0, || ()), tally);
        tally.add(Cell::Rx, 5);
        tally.hold(5);
        let answered = cuts.sum(&[&block], 0, || block.freeze(cuts.current(), &tally));
        assert_eq!(answered, tally);
        assert_eq!(cuts.sum(&[&block], 0, || ()), tally);
    }
}
