//! Security associations: what is fixed ([`Sa`]), what one owner changes ([`SaState`]), and how
//! they are found ([`database::Sad`]).

pub mod lifetime;

pub mod replay;

pub mod sequence;

pub mod state;

pub mod peer;

pub mod association;

pub(crate) mod shape;

pub mod database;

pub mod path_mtu;

pub use association::{Sa, SaParameters, SaSlot};
pub use state::SaState;

/// SAs to test with.
#[cfg(test)]
pub(crate) mod sample;
