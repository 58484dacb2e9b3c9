//! Requests and answers. Keys are added, never renamed: scripts rely on them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The interface's name, in front of every method.
pub const INTERFACE: &str = "io.xipsec.Gateway";

/// One call (<https://varlink.org/Method-Call>).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Interface and method, `io.xipsec.Gateway.Status`.
    pub method: String,
    /// Arguments; methods that only look have none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The result.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub parameters: Value,
    /// The name of an error instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// [`Status`].
    Status,
    /// A list of [`SaRow`].
    Sas,
    /// A list of [`PolicyRow`].
    Policies,
    /// A list of [`PortRow`].
    Ports,
    /// [`crate::observe::stats::Document`] and more.
    Stats,
    /// Sends [`Dummies`].
    SendDummies,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 6] = [
        Self::Status,
        Self::Sas,
        Self::Policies,
        Self::Ports,
        Self::Stats,
        Self::SendDummies,
    ];

    /// The method's name behind the interface's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Status => "Status",
            Self::Sas => "ListSas",
            Self::Policies => "ListPolicies",
            Self::Ports => "ListPorts",
            Self::Stats => "Stats",
            Self::SendDummies => "SendDummies",
        }
    }

    /// It does not only look: root and the gateway's own user may call it.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::Status | Self::Sas | Self::Policies | Self::Ports | Self::Stats => false,
            Self::SendDummies => true,
        }
    }

    /// The method of a call's full name.
    #[must_use]
    pub fn from_full_name(name: &str) -> Option<Self> {
        let (interface, method) = name.rsplit_once('.')?;
        if interface != INTERFACE {
            return None;
        }
        Self::ALL.into_iter().find(|known| known.name() == method)
    }

    /// The name that goes over the wire.
    #[must_use]
    pub fn full_name(self) -> String {
        format!("{INTERFACE}.{}", self.name())
    }
}

/// Arguments of [`Method::SendDummies`]: packets that carry nothing (RFC 4303 §2.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dummies {
    /// The SA by which they go.
    pub sa: String,
    /// How many.
    pub count: u32,
}

/// What was asked for, what was got, and why: every automatic choice says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// What is chosen.
    pub what: String,
    /// What the configuration asked for.
    pub asked: String,
    /// What it got.
    pub got: String,
    /// Why.
    pub why: String,
}

/// One worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub number: u16,
    /// The core that it is pinned to, if it is.
    pub core: Option<usize>,
    /// NUMA node of that core, where the kernel knows it.
    #[serde(default)]
    pub node: Option<usize>,
    /// Batches of its SAs that another worker did.
    pub lent: u64,
    /// Batches that were offered to others and that it did itself.
    pub taken_back: u64,
    /// Batches of others that it did.
    pub helped: u64,
}

/// Whose code serves a family of algorithms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CryptoRow {
    /// The family.
    pub algorithms: String,
    /// The CPU features that our own code builds on, or the library.
    pub code: String,
}

/// `xipsec status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Process number.
    pub pid: u32,
    /// Since readiness.
    pub uptime_seconds: u64,
    /// The configuration file.
    pub config: String,
    /// Generation of the published tables.
    pub generation: u64,
    /// Workers.
    pub workers: Vec<WorkerRow>,
    /// Ports by name.
    pub ports: Vec<String>,
    /// Number of SAs.
    pub sas: usize,
    /// Number of policies of the file.
    pub policies: usize,
    /// `closed` or `open`.
    pub guard: String,
    /// Packets that the guard dropped in the kernel's own path.
    pub guard_drops: u64,
    /// The TUN's name, empty for none.
    pub host_port: String,
    /// Where sequence numbers are reserved, empty for nowhere.
    pub state_dir: String,
    /// Whose code serves which algorithms.
    #[serde(default)]
    pub crypto: Vec<CryptoRow>,
    /// Automatic choices of the gateway as a whole.
    pub choices: Vec<Choice>,
}

/// One line of `xipsec sa list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaRow {
    /// Name.
    pub name: String,
    /// SPI.
    pub spi: u32,
    /// `in` or `out`.
    pub direction: String,
    /// `esp` or `ah`.
    pub protocol: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// Outer source; of an inbound SA where the peer is now.
    pub source: String,
    /// Outer destination; of an outbound SA where the peer is now.
    pub destination: String,
    /// UDP ports of the encapsulation, the peer's as it is now; absent without one.
    #[serde(default)]
    pub source_port: Option<u16>,
    /// The other one.
    #[serde(default)]
    pub destination_port: Option<u16>,
    /// Cipher.
    pub encryption: String,
    /// MAC, empty with an AEAD.
    pub integrity: String,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Packets of the anti-replay window; 0: off.
    pub replay_window: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets that count for the lifetime, those before the start included.
    #[serde(default)]
    pub lifetime_packets: u64,
    /// Bytes that do.
    #[serde(default)]
    pub lifetime_bytes: u64,
    /// Seconds since the SA was born.
    #[serde(default)]
    pub age_seconds: u64,
    /// Last used or highest accepted.
    pub sequence: u64,
    /// Numbers up to this one are reserved on disk; absent without persistence.
    pub reserved_end: Option<u64>,
    /// `mature`, `dying` or `dead`.
    pub state: String,
    /// The worker that owns it, once it has one.
    pub worker: Option<u16>,
    /// Longest outer packet that its way takes, bytes, as learned from ICMP errors; absent: the
    /// first link's MTU holds.
    #[serde(default)]
    pub path_mtu: Option<u16>,
    /// Seconds since an error last said so.
    #[serde(default)]
    pub path_mtu_age_seconds: Option<u64>,
    /// How often the peer has moved since the start; absent: it is not followed.
    #[serde(default)]
    pub peer_moves: Option<u64>,
}

/// One line of `xipsec policy list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// Name; `builtin-…` for the built-in ones.
    pub name: String,
    /// `in`, `out` or `both`.
    pub direction: String,
    /// `protect`, `bypass` or `discard`.
    pub action: String,
    /// Selector of the protected side.
    pub local: String,
    /// Selector of the other side.
    pub remote: String,
    /// Protocol and ports.
    pub upper: String,
    /// Priority; absent for built-in ones.
    pub priority: Option<u32>,
    /// SAs and bundles.
    pub sa: Vec<Vec<String>>,
    /// Packets whose fate it decided.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One line of `xipsec port list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// The interface.
    pub name: String,
    /// `protected` or `unprotected`.
    pub side: String,
    /// MAC address.
    pub mac: String,
    /// MTU in use, bytes.
    pub mtu: u16,
    /// Addresses.
    pub addresses: Vec<String>,
    /// Queues, each with a socket.
    pub queues: u32,
    /// Kernel's number of the XDP program.
    pub program_id: u32,
    /// XDP mode, zero copy, checksums, offloads: asked, got, why.
    pub choices: Vec<Choice>,
}
