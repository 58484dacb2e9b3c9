//! What a configuration file says, typed: every value is in range, every name resolved.

use std::net::IpAddr;
use std::path::PathBuf;

use ipsec::policy::PolicyParameters;
use ipsec::sa::SaParameters;

use crate::config::report::ConfigError;
use crate::port::settings::{BusyPoll, Checksum, Idle, Rings, Side, Umem, XdpMode, ZeroCopy};
use crate::route::{Hop, Mac, Neighbor, PortIndex, Route, Target};

/// A whole file without a mistake in it.
#[derive(Debug)]
pub struct Config {
    /// The file, as it was named.
    pub file: PathBuf,
    /// `[dataplane]`.
    pub dataplane: Dataplane,
    /// `[[port]]`, in file order; at least one of each side.
    pub ports: Vec<PortConfig>,
    /// `[[sa]]`, in file order.
    pub sas: Vec<SaParameters>,
    /// `[[policy]]`, in file order. Every SA that they name exists and points their way.
    pub policies: Vec<PolicyParameters>,
    /// `[[route]]`, in file order.
    pub routes: Vec<RouteConfig>,
    /// `[[neighbor]]`, in file order.
    pub neighbors: Vec<NeighborConfig>,
    /// What is legal and yet deserves a word; to be printed behind `xipsec: warning: `.
    pub warnings: Vec<String>,
    /// What [`crate::config::not_built`] answers, found while the lines were at hand.
    pub(super) not_built: Vec<ConfigError>,
}

impl Config {
    /// The port of that name.
    #[must_use]
    pub fn port(&self, name: &str) -> Option<PortIndex> {
        let position = self.ports.iter().position(|port| port.name == name)?;
        u16::try_from(position).ok().map(PortIndex)
    }
}

/// `[dataplane]`: all that is neither port, SA, policy nor route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataplane {
    /// How many workers.
    pub workers: Workers,
    /// Kernel CPU numbers, one per worker; none: chosen at start.
    pub cores: Option<Vec<u16>>,
    /// Packets that a worker takes from a ring at once, 1 to [`ipsec::limits::BATCH`].
    pub batch: usize,
    /// How XDP is attached.
    pub xdp_mode: XdpMode,
    /// Whether the NIC writes into our memory.
    pub zero_copy: ZeroCopy,
    /// Busy polling; none: interrupts.
    pub busy_poll: Option<BusyPoll>,
    /// What a worker does when nothing waits.
    pub idle: Idle,
    /// Ring sizes of one socket.
    pub rings: Rings,
    /// Packet memory of one socket.
    pub umem: Umem,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// The group whose members may read over it.
    pub control_group: String,
    /// Where records live that outlive a restart; none: persistence is off.
    pub state_dir: Option<PathBuf>,
    /// Where routes and neighbours come from.
    pub forwarding: Forwarding,
    /// Where SAs and policies come from beside the file.
    pub keys: Keys,
    /// What becomes of packets that no policy's prefixes touch.
    pub unmatched: Unmatched,
    /// Whether the kernel's own path is closed for what policy protects.
    pub guard: Guard,
    /// Name of the TUN for the machine's own traffic; none: there is none.
    pub host_port: Option<String>,
    /// Where metrics are served.
    pub metrics: Option<std::net::SocketAddr>,
    /// Legacy algorithms are allowed.
    pub allow_legacy: bool,
    /// ICMP errors: which are believed, how many are sent.
    pub icmp: Icmp,
    /// Learned path MTUs.
    pub path_mtu: PathMtu,
    /// Bounds of reassembly, per worker.
    pub fragments: Fragments,
}

impl Default for Dataplane {
    fn default() -> Self {
        Self {
            workers: Workers::default(),
            cores: None,
            batch: ipsec::limits::BATCH,
            xdp_mode: XdpMode::default(),
            zero_copy: ZeroCopy::default(),
            busy_poll: None,
            idle: Idle::default(),
            rings: Rings::default(),
            umem: Umem::default(),
            control_socket: PathBuf::from("/run/xipsec/control.sock"),
            control_group: String::from("xipsec"),
            state_dir: Some(PathBuf::from("/var/lib/xipsec")),
            forwarding: Forwarding::default(),
            keys: Keys::default(),
            unmatched: Unmatched::default(),
            guard: Guard::default(),
            host_port: Some(String::from("xipsec0")),
            metrics: None,
            allow_legacy: false,
            icmp: Icmp::default(),
            path_mtu: PathMtu::default(),
            fragments: Fragments::default(),
        }
    }
}

/// How many workers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// As many as `cores`, or as cores and queues allow.
    #[default]
    Auto,
    /// That many, at least 1; equal to the number of `cores` where those are given.
    Count(u16),
}

/// Where routes and neighbours come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarding {
    /// Mirrored from the kernel.
    #[default]
    Kernel,
    /// The file's tables.
    Static,
}

/// Where SAs and policies come from beside the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keys {
    /// Nowhere.
    #[default]
    File,
    /// The kernel's XFRM state.
    Kernel,
}

/// What becomes of packets that no policy's prefixes touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// They pass to the stack.
    #[default]
    Kernel,
    /// They are dropped.
    Discard,
}

/// Whether the kernel's own path is closed for what policy protects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Closed, also after a crash.
    #[default]
    Closed,
    /// Open.
    Open,
}

/// Which ICMP errors are believed, and which and how many are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Those that arrive in the clear.
    pub accept_unprotected: IcmpAccept,
    /// Those that arrive through an SA.
    pub accept_protected: IcmpAccept,
    /// Sent per second at most; the burst is 10 or more.
    pub errors_per_second: u32,
    /// Senders are told of outbound packets that policy discards or that no way to a peer takes.
    pub send_unreachable: bool,
}

impl Default for Icmp {
    fn default() -> Self {
        Self {
            accept_unprotected: IcmpAccept::Types(vec![
                IcmpType::TooBig,
                IcmpType::Unreachable,
                IcmpType::TimeExceeded,
            ]),
            accept_protected: IcmpAccept::Any,
            errors_per_second: 100,
            send_unreachable: false,
        }
    }
}

/// A choice of ICMP errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IcmpAccept {
    /// Every one.
    Any,
    /// None.
    None,
    /// Those of a list.
    Types(Vec<IcmpType>),
}

/// An ICMP error by meaning, or a type by number (of either family).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IcmpType {
    /// ICMP 3 code 4, ICMPv6 2.
    TooBig,
    /// ICMP 3 but for code 4, ICMPv6 1.
    Unreachable,
    /// ICMP 11, ICMPv6 3.
    TimeExceeded,
    /// ICMP 12, ICMPv6 4.
    ParameterProblem,
    /// ICMP 5, ICMPv6 137.
    Redirect,
    /// A type by its number.
    Number(u8),
}

/// Learned path MTUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// Smallest that is believed, bytes; IPv6 never goes below 1280.
    pub minimum: u16,
    /// Seconds until a larger one is tried again.
    pub age_seconds: u32,
}

impl Default for PathMtu {
    fn default() -> Self {
        Self {
            minimum: 1280,
            age_seconds: 600,
        }
    }
}

/// Bounds of reassembly, per worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Packets under reassembly.
    pub packets: u32,
    /// Bytes held.
    pub bytes: u32,
    /// Milliseconds from the first fragment to the last.
    pub timeout_ms: u32,
    /// Fragments of encapsulated ESP are reassembled too.
    pub reassemble_udp: bool,
}

impl Default for Fragments {
    fn default() -> Self {
        Self {
            packets: 256,
            bytes: 1_048_576,
            timeout_ms: 1000,
            reassemble_udp: false,
        }
    }
}

/// One `[[port]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The interface's name.
    pub name: String,
    /// Its side of the boundary.
    pub side: Side,
    /// Its addresses with their links' prefix lengths (static forwarding and replay).
    pub addresses: Vec<PortAddress>,
    /// Its MAC address; always there for [`crate::config::Purpose::Replay`].
    pub mac: Option<Mac>,
    /// Its MTU, bytes; none: the interface's, in replay 1500.
    pub mtu: Option<u16>,
    /// Whether checksums are completed.
    pub checksum: Checksum,
}

/// An address of ours and the prefix length of its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAddress {
    /// The address, host bits and all.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix_length: u8,
}

/// One `[[route]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Network address, host bits zero.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub prefix_length: u8,
    /// Egress port.
    pub port: PortIndex,
    /// Gateway; none: on-link.
    pub via: Option<IpAddr>,
}

impl From<&RouteConfig> for Route {
    fn from(route: &RouteConfig) -> Self {
        Self {
            address: route.address,
            prefix_length: route.prefix_length,
            target: Target::Hops(vec![Hop {
                port: route.port,
                via: route.via,
                mtu: 0,
                weight: 1,
            }]),
        }
    }
}

/// One `[[neighbor]]`: nothing but what the routing table wants.
pub type NeighborConfig = Neighbor;
