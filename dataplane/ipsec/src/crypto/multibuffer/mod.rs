//! Cipher kernels of our own, for what libraries pay for on every packet: the copy in front of an
//! in-place call, the setting up of a call, one packet at a time.
//!
//! Kernels read one buffer and write another. Which form of a kernel the CPU takes is found out
//! once ([`Form::chosen`]); the build itself asks for no more than x86-64. No branch and no address
//! depends on a key or a text. Where a CPU has no form, the callers' libraries serve.
//!
//! **Unsafe code.** Only three things need it: the call of a function for CPUs with certain
//! features from one without (`gcm.rs`: a [`Form`] exists only where the CPU has its features),
//! the loads and stores of whole registers (`block.rs`: behind references of the right length),
//! and nothing else. Kernels themselves are safe functions on slices.
#![expect(
    unsafe_code,
    reason = "vector registers are loaded, and CPU features asked for, by unsafe means only"
)]

mod block;

mod material;

mod aesni;

mod vaes;

mod gcm;

pub(super) use gcm::{AesGcm, Form, open, seal};

#[cfg(test)]
mod tests;
