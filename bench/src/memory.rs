//! What idle SAs and policies take, as the allocator was asked for it. The program must count its
//! allocations: see [`crate::allocation`].

use xipsec::worker::handoff::Exchange;

use crate::allocation::live_bytes;
use crate::fixture::{End, SuiteName};
use crate::fleet::{self, Fleet, Scale};

/// Bytes per pair of SAs (or of policies), one each way.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Both SAs with keys, parameters, names, counters, and their parked states.
    pub sas: f64,
    /// Their places in the SAD.
    pub sad: f64,
    /// A worker's slots for their states.
    pub slots: f64,
    /// A pair of policies in the SPDs.
    pub policies: f64,
    /// The pages that the process holds, over all of this, per pair: what the allocator adds and
    /// what building left behind are in it.
    pub resident: f64,
}

/// Measures `pairs` pairs of SAs with as many pairs of policies.
#[must_use]
pub fn measure(suite: SuiteName, pairs: usize, replay_window: u32) -> Memory {
    let scale = Scale {
        sas: pairs,
        policies: pairs,
    };
    let (resident, start) = (resident_bytes(), live_bytes());
    let fleet = Fleet::new(suite, End::Near, scale, replay_window);
    let whole = live_bytes() - start;
    let per_pair = |bytes: i64| bytes as f64 / pairs as f64;
    let before = live_bytes();
    let sad = fleet::tables(&fleet.sas, &[]);
    let sad_bytes = live_bytes() - before;
    drop(sad);
    let before = live_bytes();
    let tables = fleet::tables(&fleet.sas, &fleet.policies);
    let policies = live_bytes() - before - sad_bytes;
    drop(tables);
    // The parameters are kept to build the next snapshot from; the gateway keeps them too.
    let before = live_bytes();
    let parameters = fleet.policies.clone();
    let parameters_bytes = live_bytes() - before;
    drop(parameters);
    let exchange = std::sync::Arc::new(Exchange::new(1).expect("an event descriptor"));
    let grown = (resident_bytes() - resident) as f64;
    let before = live_bytes();
    let worker = fleet.worker(0, &exchange);
    let with_slots = live_bytes() - before;
    let counters = with_slots - bare_worker(suite);
    drop(worker);
    Memory {
        sas: per_pair(whole - sad_bytes - policies - parameters_bytes),
        sad: per_pair(sad_bytes),
        slots: per_pair(counters),
        policies: per_pair(policies + parameters_bytes),
        resident: grown / pairs as f64,
    }
}

/// A worker's own buffers, which do not depend on the number of SAs.
fn bare_worker(suite: SuiteName) -> i64 {
    let scale = Scale {
        sas: 1,
        policies: 1,
    };
    let fleet = Fleet::new(suite, End::Near, scale, 64);
    let exchange = std::sync::Arc::new(Exchange::new(1).expect("an event descriptor"));
    let before = live_bytes();
    let worker = fleet.worker(0, &exchange);
    let bytes = live_bytes() - before;
    drop(worker);
    bytes
}

/// The resident set of this process; 0 where there is no `/proc`.
#[must_use]
pub fn resident_bytes() -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0) * 1024
}
