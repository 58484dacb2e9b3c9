//! The gateway: AF_XDP ports, pinned workers, and the control side around the `ipsec` crate.
//!
//! Modules stand in import order: **a module imports only from modules above it**
//! (`cargo xtask tidy` keeps it so).
#![deny(unsafe_code)]

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.

pub mod counters;

pub mod state;

pub mod route;

pub mod port;

pub mod snapshot;

pub mod worker;

pub mod observe;

pub mod config;

pub mod assembly;

pub mod offline;

pub mod netlink;

pub mod control;

pub mod daemon;

pub mod cli;
