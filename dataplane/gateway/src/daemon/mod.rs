//! The gateway as a process: opens everything in the one order that leaves no gap, follows the
//! kernel while it runs, and takes everything down again.

pub mod refusal;

pub mod secrecy;

pub mod cores;

pub mod ports;

pub mod workers;

pub mod publish;

pub mod numbers;

mod orders;

pub mod answers;

mod start;

mod lifetimes;

mod path_mtu;

mod peers;

pub mod follow;

pub mod run;
