//! The hot loop: bursts from ports through the `ipsec` crate and out of ports.
//!
//! [`Worker`] owns its queues, its SAs' states and its counters; nothing is shared but immutable
//! snapshots, published counters and bounded queues. The same worker serves AF_XDP queues, plain
//! memory and capture files.

pub mod host;

mod frame;

mod room;

pub mod orders;

mod lend;

pub mod handoff;

mod held;

pub mod requests;

mod outbox;

mod reassembly;

pub mod pending;

mod silence;

mod process;

mod loose;

mod kept;

mod exit;

mod clamp;

mod egress;

mod ways;

mod originate;

mod inbound;

mod outbound;

mod dummies;

mod keepalives;

pub mod run;

pub use frame::Arrival;
pub use process::{Lane, Worker, WorkerSettings};

#[cfg(test)]
mod tests;
