//! Goal: whatever the interleaving, each batch that is lent is done by exactly one side and comes
//! back to its home in the order in which it was offered. Method: `worker/lend/ring.rs`, compiled
//! with loom's atomics, which goes through all interleavings that their memory model allows, up to
//! a number of preemptions (`LOOM_MAX_PREEMPTIONS`, 2 if unset).
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

/// What `ring` is built on.
mod sync {
    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
}

#[path = "../src/worker/lend/ring.rs"]
mod ring;

use ring::Ring;

/// A batch. Loom finds out when two sides touch `runs` and neither is behind the other.
struct Batch {
    number: usize,
    runs: UnsafeCell<u32>,
}

impl Batch {
    fn run(&self) {
        // SAFETY: whoever owns the batch is alone; loom would say so otherwise.
        #[expect(unsafe_code, reason = "loom's cell, which checks what is claimed here")]
        self.runs.with_mut(|runs| unsafe { *runs += 1 });
    }
}

/// Claims what there is, up to `most`, and does it.
fn help(ring: &Ring<Batch>, most: usize) {
    let mut cursor = 0;
    for _ in 0..most {
        match ring.claim_next(&mut cursor) {
            Some((position, batch)) => {
                batch.run();
                ring.give_back(position, batch);
            }
            None => thread::yield_now(),
        }
    }
}

/// Offers `batches` in two places, does what nobody has claimed, and fetches from the head.
fn lend(ring: &Ring<Batch>, batches: usize) {
    let (mut head, mut tail) = (0, 0);
    while head < batches {
        if tail < batches && tail - head < 2 {
            let runs = UnsafeCell::new(0);
            ring.offer(tail, Batch { number: tail, runs });
            tail += 1;
            continue;
        }
        if let Some(batch) = ring.fetch(head) {
            assert_eq!(batch.number, head, "in order");
            assert_eq!(batch.runs.into_inner(), 1, "done once");
            head += 1;
            continue;
        }
        let unclaimed = (head..tail).find_map(|at| ring.claim(at).map(|batch| (at, batch)));
        match unclaimed {
            Some((position, batch)) => {
                batch.run();
                ring.give_back(position, batch);
            }
            None => thread::yield_now(),
        }
    }
}

fn with_helpers(helpers: usize, batches: usize) {
    let mut model = Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.check(move || {
        let ring = Arc::new(Ring::new(2));
        let help_there = || {
            let ring = Arc::clone(&ring);
            thread::spawn(move || help(&ring, batches))
        };
        let threads: Vec<_> = (0..helpers).map(|_| help_there()).collect();
        lend(&ring, batches);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(!ring.is_offered(0) && !ring.is_offered(1));
        assert!(ring.is_ahead_of(0));
    });
}

#[test]
fn a_home_and_a_helper_do_each_batch_once_and_in_order() {
    with_helpers(1, 3);
}

#[test]
fn so_do_a_home_and_two_helpers() {
    with_helpers(2, 2);
}
