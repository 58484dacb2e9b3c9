//! What is fuzzed: one function a target, from any bytes to nothing, that panics when something
//! does not hold. libFuzzer calls them with what it makes up, `cargo test` with the committed
//! corpora.
//!
//! Each target also has seeds: the packets and files that a fuzzer would take long to find.
#![expect(
    clippy::unwrap_used,
    reason = "a target fails by panicking, as the fuzzer expects"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "lengths come from bytes and are cut on purpose"
)]

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.
mod bytes;

mod packets;

mod pairs;

mod gateway;

mod wire;

mod crypto;

mod inbound;

mod outbound;

mod quote;

mod config;

mod control;

mod capture;

mod state;

/// One thing to fuzz.
pub struct Target {
    /// Its name, and that of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// Panics when an invariant does not hold.
    pub run: fn(&[u8]),
    /// Where to begin.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: [Target; 9] = [
    Target {
        name: "wire",
        run: wire::run,
        seeds: wire::seeds,
    },
    Target {
        name: "crypto",
        run: crypto::run,
        seeds: crypto::seeds,
    },
    Target {
        name: "inbound",
        run: inbound::run,
        seeds: inbound::seeds,
    },
    Target {
        name: "outbound",
        run: outbound::run,
        seeds: outbound::seeds,
    },
    Target {
        name: "quote",
        run: quote::run,
        seeds: quote::seeds,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
    },
    Target {
        name: "control",
        run: control::run,
        seeds: control::seeds,
    },
    Target {
        name: "capture",
        run: capture::run,
        seeds: capture::seeds,
    },
    Target {
        name: "state",
        run: state::run,
        seeds: state::seeds,
    },
];
