//! What benches measure with.

pub mod wire;
