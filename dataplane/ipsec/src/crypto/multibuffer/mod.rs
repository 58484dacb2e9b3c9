//! Kernels of our own, for what libraries pay for on every packet: the copy in front of an in-place
//! call, the setting up of a call, and instructions that wait for each other in one packet while
//! there are others.
//!
//! Kernels read one buffer and write another. Which form of a kernel the CPU takes is found out
//! once ([`Form::chosen`]); the build itself asks for no more than x86-64. No branch and no address
//! depends on a key or a text. Where a CPU has no form, the callers' libraries serve.
//!
//! **Unsafe code.** Five things need it: the call of a function for CPUs with certain features
//! from one without (a [`Form`] or a [`Sha`] exists only where the CPU has its features);
//! instructions of such CPUs in code for any width of registers (`registers.rs`: a value of a
//! register type stems from a proof that they are there); the loads and stores of whole registers
//! (`block.rs`: behind references of the right length; `text.rs`, `registers.rs`, `fours.rs` and
//! `kernel.rs`: within a text whose bounds `gcm.rs`, `gmac.rs` and `ctr.rs` took from slices, once
//! a packet); the order of instructions (`block.rs`, `registers.rs`, `cbc_vaes.rs`: assembly blocks
//! without any); and CBC's sixteen packets at once, which are pointers, since their slices' lengths
//! would have to be asked for with every block (`lanes.rs` makes them from slices and keeps their
//! bounds, `cbc_vaes.rs` and `cbc_aesni.rs` read and write there). Other kernels are safe functions
//! on slices.
#![expect(
    unsafe_code,
    reason = "vector registers are loaded, and CPU features asked for, by unsafe means only"
)]

mod block;

mod text;

mod form;

mod registers;

mod fours;

mod field;

mod material;

mod mode;

mod kernel;

mod gcm;

mod gmac;

mod ctr;

mod lanes;

mod cbc_aesni;

mod cbc_vaes;

mod cbc;

mod sha1;

mod sha256;

mod hmac;

pub(super) use cbc::{CbcKey, encrypt};
pub(super) use ctr::{Counted, CtrKey, decrypt as decrypt_counted, encrypt as encrypt_counted};
pub(super) use form::Form;
pub(super) use gcm::{AesGcm, open, seal};
pub(super) use gmac::{open as open_gmac, seal as seal_gmac};
pub(super) use hmac::{Hash, HmacKey, Message, Sha, tags};
pub(super) use lanes::Chain;
pub(super) use sha1::Sha1;
pub(super) use sha256::Sha256;

#[cfg(test)]
mod bursts;

#[cfg(test)]
mod tests;

#[cfg(test)]
mod whole;
