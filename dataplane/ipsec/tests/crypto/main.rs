//! Goal: each algorithm computes what its standard says, at every size and through whole packets.
//!
//! Method: published answers (RFCs, NIST's CAVP, Wycheproof; the files lie in `tests/vectors`), and
//! a second implementation that shares no code with the one under test. Both are asked over the
//! crate's public doors alone, so whatever code a [`Transform`](ipsec::crypto::Transform) chose for
//! this machine is the one that is proven.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_possible_truncation, reason = "test data is small")]

mod packet;

mod records;

mod textbook;

mod second;

mod sweep;

mod sweep_ah;

mod tight;

mod answers;

mod ciphers;

mod combined;

mod macs;
