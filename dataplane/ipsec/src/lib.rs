//! IPsec (RFC 4301, 4302, 4303) without I/O: bytes in, bytes out, time is an argument.
//!
//! No NIC, no C library, no clock and no thread is in sight, so that the protocol can be read,
//! tested, fuzzed and reused alone. Modules stand in the order of a packet's way, and **a module
//! imports only from modules above it** (`cargo xtask tidy` keeps it so).
//!
//! A burst goes through four doors: [`packet::parse`], then [`inbound::admit`] and
//! [`inbound::open`] or [`outbound::select`] and [`outbound::protect`]. Between the two halves of
//! a direction the caller finds the way out (route, MTU) and a buffer to write into: the transform
//! reads one buffer and writes another, never in place.
#![deny(unsafe_code)]

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.
pub mod limits;

pub mod secret;

pub mod verdict;

pub mod time;

mod prefetch;

pub mod wire;

pub mod packet;

pub mod ip;

pub mod crypto;

pub mod sa;

pub mod policy;

pub mod tables;

pub mod inbound;

pub mod outbound;
