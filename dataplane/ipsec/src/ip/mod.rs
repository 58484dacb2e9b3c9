//! Pure functions on IP packets: fragmentation and its reverse, ICMP errors, hop limit, tunnel
//! headers.

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.
pub mod hop;

pub mod tunnel_header;

pub mod fragment;

pub mod reassemble;

pub mod icmp_error;

pub mod rate_limit;

#[cfg(test)]
mod tests;
