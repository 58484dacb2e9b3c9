//! What benches measure with.
