//! The TCP header (RFC 9293 §3.1), as far as a gateway looks at it.

/// Length of the header without options, bytes.
pub const LENGTH: usize = 20;

/// Offset of the checksum in the header, bytes.
pub const CHECKSUM: usize = 16;
