//! What benches measure with.

pub mod wire;

pub mod cycles;

pub mod fixture;
