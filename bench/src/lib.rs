//! What benches measure with.

pub mod wire;

pub mod allocation;

pub mod cycles;

pub mod measurement;

pub mod steering;

pub mod progress;

pub mod search;

pub mod latency;

pub mod sealer;

pub mod tester;

pub mod fixture;

pub mod fleet;

pub mod memory;

pub mod pipeline;

pub mod publish;

pub mod scaling;

pub mod endless;

pub mod lending;
