//! AF_XDP ports.

pub mod steer;

mod occupant;

mod error;

mod mirror;

mod tables;

pub mod program;
