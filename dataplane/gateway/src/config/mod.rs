//! The configuration file: read into a wiped buffer, walked by hand so that every mistake of a
//! file comes out in one run with its line, and turned into types that cannot be wrong.

// Import order, top to bottom. Blank lines keep rustfmt from sorting it.

pub mod report;

pub mod settings;

mod source;

mod reader;

mod secrets;

mod prefix;

mod dataplane;

mod ports;

mod algorithms;

mod sas;

mod policies;

mod validate;

mod load;

pub use load::{load, parse};
pub use prefix::prefix_of;
pub use report::ConfigError;
pub use settings::{
    Config, Dataplane, Forwarding, Fragments, Guard, Icmp, IcmpAccept, IcmpType, Keys,
    NeighborConfig, PathMtu, PortAddress, PortConfig, RouteConfig, Unmatched, Workers,
};

/// What a file is read for: requirements differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To forward packets.
    Run,
    /// To look for mistakes.
    Check,
    /// To run over captures: ports need a `mac`.
    Replay,
}

/// What is legal in a file and yet refused by this version when it runs or replays, in order of
/// line.
#[must_use]
pub fn not_built(config: &Config) -> Vec<ConfigError> {
    config.not_built.clone()
}

#[cfg(test)]
mod tests;
