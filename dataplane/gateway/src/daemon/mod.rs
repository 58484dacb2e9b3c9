//! The gateway as a process.

pub mod cores;
