//! AF_XDP ports.

pub mod steer;

mod occupant;

mod error;

mod mirror;

pub mod program;
