//! What benches and the demo measure with.

pub mod redirect;
