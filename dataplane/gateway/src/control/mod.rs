//! The control socket: one typed request/response protocol that the CLI and other programs share.
//!
//! The wire format is Varlink's: JSON objects, each ended by a NUL byte, over a Unix stream, so
//! that `varlinkctl` and five lines of Python can call it too.

pub mod protocol;

pub mod frame;

pub mod clients;

pub mod server;

pub mod client;
