//! Headers on the wire: checked views and builders. Hostile bytes give a verdict, never a panic.
//!
//! Every header has one file of the same shape: `LENGTH`, a view whose `parse` answers `None` for
//! what is too short to be one, named fields, and a `write` where we make such headers. A view
//! checks its own header only; how headers fit together is [`crate::packet`]'s business.
#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.
pub mod checksum;

pub mod ethernet;

pub mod ipv4;

pub mod ipv6;

pub mod extension;

pub mod udp;

pub mod tcp;

pub mod icmp;

pub mod esp;

pub mod ah;
