//! AF_XDP ports: one socket per queue, each with its own packet memory.
//!
//! A start goes: [`probe::Facts`] of the interface, [`offload::Offloads`] that XDP needs switched
//! off, [`program::SteerProgram`], [`XdpPort::open`] per queue, and only then the socket into the
//! program's map, so that no packet meets an empty fill ring. Every automatic choice on the way is
//! a [`Choice`], printed at start and shown by `port list`.
//!
//! Unsafe code stays in `frame` (the bytes of a token), `umem` (where they are), `rings` (who owns
//! them), `options` (of sockets) and `socket` (opening one).

pub mod steer;

mod occupant;

mod error;

mod mirror;

mod tables;

pub mod program;

mod wakeup;

pub mod frame;

mod gather;

pub mod diagnose;

pub mod huge_pages;

mod umem;

mod napi;

mod options;

mod rings;

mod queue;

pub mod probe;

pub mod offload;

mod socket;

pub use diagnose::PortError;
pub use napi::Napi;
pub use program::AttachMode as Attachment;
pub use queue::Kicks;
pub use socket::{Opening, Statistics, XdpPort};

use std::fmt;

/// One automatic choice: what was asked for, what came of it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The setting, by its name in the configuration.
    pub what: &'static str,
    /// What configuration says.
    pub asked: &'static str,
    /// What it is now.
    pub got: &'static str,
    /// Why.
    pub why: String,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            asked,
            got,
            why,
        } = self;
        write!(f, "{what}: {got} (asked: {asked}; {why})")
    }
}
