//! IP packets without I/O: fragmentation and its reverse, ICMP errors, hop limit, tunnel headers,
//! where transport mode puts a header, and what AH counts as zero.

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.
pub mod hop;

pub mod tunnel_header;

pub mod fragment;

pub mod reassemble;

pub mod icmp_error;

pub mod rate_limit;

pub mod tcp_mss;

pub mod transport;

pub mod mutable;

#[cfg(test)]
mod tests;
