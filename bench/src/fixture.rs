//! A gateway in memory: one outbound and one inbound SA of a suite, their policies, routes and
//! neighbours, and traffic for both directions.

use std::path::Path;
use std::sync::Arc;

use ipsec::crypto::iv::RandomIvs;
use ipsec::ip::reassemble::Bounds;
use ipsec::sa::Sa;
use ipsec::tables::{Count, Tables, Unmatched};
use ipsec::time::Time;
use xipsec::assembly;
use xipsec::config::{self, Config, Purpose};
use xipsec::counters::Block;
use xipsec::port::memory::{MemoryFrame, MemoryPort};
use xipsec::port::settings::Side;
use xipsec::route::PortIndex;
use xipsec::snapshot::{PortFacts, Snapshot};
use xipsec::worker::handoff::Exchange;
use xipsec::worker::host::NoHost;
use xipsec::worker::{Lane, Worker, WorkerSettings};

/// The unprotected port's place in the configuration.
pub const WAN: usize = 0;

/// The protected port's place.
pub const LAN: usize = 1;

/// Frames of each memory port.
const FRAMES: usize = 512;

/// Room of one frame, bytes.
const FRAME_SIZE: usize = 10 * 1024;

const PORTS_AND_TABLES: &str = r#"
[dataplane]
state_dir = "unused"
[[port]]
name = "wan0"
side = "unprotected"
address = ["192.0.2.1/24"]
mac = "02:00:00:00:00:01"
mtu = 9216
[[port]]
name = "lan0"
side = "protected"
address = ["10.1.0.1/24"]
mac = "02:00:00:00:01:01"
mtu = 9216
[[policy]]
name = "to"
direction = "out"
action = "protect"
local = "10.1.0.0/16"
remote = "10.2.0.0/16"
priority = 100
sa = ["out"]
[[policy]]
name = "from"
direction = "in"
action = "protect"
local = "10.1.0.0/16"
remote = "10.2.0.0/16"
priority = 100
sa = ["in"]
[[neighbor]]
port = "wan0"
address = "192.0.2.2"
mac = "02:00:00:00:00:02"
[[neighbor]]
port = "lan0"
address = "10.1.0.2"
mac = "02:00:00:00:01:02"
"#;

/// A suite as the configuration names it, with the lengths of its keys in bytes.
#[derive(Clone, Copy, Debug)]
pub struct SuiteName {
    /// Name for tables.
    pub name: &'static str,
    /// Name of the encryption algorithm.
    pub encryption: &'static str,
    /// Length of its key with the salt, bytes.
    pub encryption_key: usize,
    /// Name of the integrity algorithm and length of its key, bytes.
    pub integrity: Option<(&'static str, usize)>,
}

/// The suites of the first cut.
pub const SUITES: [SuiteName; 6] = [
    SuiteName {
        name: "aes128gcm16",
        encryption: "aes128gcm16",
        encryption_key: 20,
        integrity: None,
    },
    SuiteName {
        name: "aes256gcm16",
        encryption: "aes256gcm16",
        encryption_key: 36,
        integrity: None,
    },
    SuiteName {
        name: "chacha20poly1305",
        encryption: "chacha20poly1305",
        encryption_key: 36,
        integrity: None,
    },
    SuiteName {
        name: "aes128+sha256_128",
        encryption: "aes128",
        encryption_key: 16,
        integrity: Some(("sha256_128", 32)),
    },
    SuiteName {
        name: "null+sha1_96",
        encryption: "null",
        encryption_key: 0,
        integrity: Some(("sha1_96", 20)),
    },
    SuiteName {
        name: "null+sha256_128",
        encryption: "null",
        encryption_key: 0,
        integrity: Some(("sha256_128", 32)),
    },
];

/// Either end of the tunnel. The far end opens what the near end seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Behind it is 10.1.0.0/16; it seals.
    Near,
    /// The same file with every address, MAC and key of the two ends exchanged; it opens. Its own
    /// ports keep the near end's MAC addresses, so that frames need no other ones.
    Far,
}

fn sa(name: &str, outbound: bool, key: u8, suite: SuiteName) -> String {
    let hex = |count: usize| format!("{key:02x}").repeat(count);
    let (direction, source, destination) = if outbound {
        ("out", "192.0.2.1", "192.0.2.2")
    } else {
        ("in", "192.0.2.2", "192.0.2.1")
    };
    let mut text = format!(
        "[[sa]]\nname = \"{name}\"\ndirection = \"{direction}\"\nprotocol = \"esp\"\n\
         mode = \"tunnel\"\nspi = {}\nsource = \"{source}\"\ndestination = \"{destination}\"\n\
         encryption = \"{}\"\nesn = true\nreplay_window = 1024\n",
        0x1000 + u32::from(key),
        suite.encryption,
    );
    if suite.encryption_key > 0 {
        text += &format!("encryption_key = \"{}\"\n", hex(suite.encryption_key));
    }
    if let Some((integrity, length)) = suite.integrity {
        text += &format!(
            "integrity = \"{integrity}\"\nintegrity_key = \"{}\"\n",
            hex(length)
        );
    }
    text
}

fn exchange(text: &str, one: &str, other: &str) -> String {
    text.replace(one, "\u{1}")
        .replace(other, one)
        .replace('\u{1}', other)
}

fn config(suite: SuiteName, end: End, replays: bool) -> Config {
    let (out, into) = match end {
        End::Near => (1, 2),
        End::Far => (2, 1),
    };
    let near =
        PORTS_AND_TABLES.to_owned() + &sa("out", true, out, suite) + &sa("in", false, into, suite);
    let text = match end {
        End::Near => near,
        End::Far => exchange(&exchange(&near, "192.0.2.1", "192.0.2.2"), "10.1.", "10.2."),
    };
    let text = if replays {
        text.replace("esn = true\nreplay_window = 1024", "replay_window = 0")
    } else {
        text
    };
    let bytes = text.into_bytes().into();
    config::parse(Path::new("bench.toml"), bytes, Purpose::Replay)
        .unwrap_or_else(|errors| panic!("the bench's own configuration: {errors:?}"))
}

/// Tables, SAs and snapshot of one end.
pub struct Fixture {
    /// What workers read.
    pub snapshot: Snapshot,
    /// Both SAs.
    pub sas: Vec<Arc<Sa>>,
}

impl Fixture {
    /// One end of a tunnel.
    #[must_use]
    pub fn new(suite: SuiteName, end: End) -> Self {
        Self::with(suite, end, false)
    }

    /// One end of a tunnel without anti-replay, so that packets may come again and again.
    #[must_use]
    pub fn with_replays(suite: SuiteName, end: End) -> Self {
        Self::with(suite, end, true)
    }

    fn with(suite: SuiteName, end: End, replays: bool) -> Self {
        let mut config = config(suite, end, replays);
        let parameters = std::mem::take(&mut config.sas);
        let starts = xipsec::state::unreserved(&parameters);
        let sas = assembly::sas(parameters, &config.policies, &starts, Time(0))
            .expect("the bench's own keys");
        let own = config.ports.iter().flat_map(|port| &port.addresses);
        let local = own.map(|address| address.address);
        let tables: Tables = assembly::tables(&sas, &config.policies, local, Unmatched::Discard)
            .expect("the bench's own policies");
        let ports = config.ports.iter().map(|port| PortFacts {
            name: port.name.clone(),
            side: port.side,
            mac: port.mac.expect("the bench's own MAC"),
            mtu: port.mtu.expect("the bench's own MTU"),
            addresses: port.addresses.iter().map(|own| own.address).collect(),
            broadcasts: Vec::new(),
        });
        let snapshot = Snapshot {
            generation: 1,
            tables: Arc::new(tables),
            fib: Arc::new(assembly::static_fib(&config)),
            neighbors: Arc::new(assembly::static_neighbors(&config)),
            ports: ports.collect(),
            first_protected: PortIndex(1),
        };
        debug_assert_eq!(snapshot.ports[LAN].side, Side::Protected);
        Self { snapshot, sas }
    }

    /// A worker on memory ports that serves both.
    #[must_use]
    pub fn worker(&self) -> Worker<MemoryPort, NoHost> {
        let exchange = Arc::new(Exchange::new(1).expect("an event descriptor"));
        worker(&self.snapshot, self.sas.len(), 0, exchange)
    }
}

/// Worker `number` of those that share `exchange`, on memory ports, one of each side.
#[must_use]
pub fn worker(
    snapshot: &Snapshot,
    sas: usize,
    number: u16,
    exchange: Arc<Exchange<MemoryFrame>>,
) -> Worker<MemoryPort, NoHost> {
    let lane = |index| Lane {
        port: MemoryPort::new(FRAMES, FRAME_SIZE),
        index: PortIndex(index),
        complete_checksums: false,
    };
    let lanes = vec![lane(0), lane(1)];
    Worker::new(settings(snapshot, sas, number), lanes, NoHost, exchange)
}

/// What worker `number` is told at its birth.
#[must_use]
pub fn settings(snapshot: &Snapshot, sas: usize, number: u16) -> WorkerSettings {
    let policies: Arc<[Count]> = (0..snapshot.tables.policy_count())
        .map(|_| Count::default())
        .collect();
    WorkerSettings {
        number,
        ports: 2,
        sas,
        errors_per_second: 100,
        send_unreachable: false,
        heeded: ipsec::ip::icmp_error::Heeded::ALL,
        remembered_fragments: 256,
        fragment_timeout: ipsec::time::SECOND,
        reassembly: Bounds {
            packets: 256,
            bytes: 1 << 20,
            timeout_ns: ipsec::time::SECOND,
        },
        reassemble_udp: false,
        ivs: RandomIvs::new().expect("random bytes"),
        flow_label_seed: 1,
        block: Arc::new(Block::new(2)),
        policies,
        neighbor_requests: None,
        number_requests: None,
    }
}

/// A frame from the host behind the near end to the one behind the far end: IPv4 and UDP, `length`
/// bytes of IP packet.
#[must_use]
pub fn plain_frame(length: usize) -> Vec<u8> {
    let length = length.max(28);
    let mut frame = vec![0; 14 + length];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 1, 1]);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 1, 2]);
    frame[12] = 8;
    let ip = &mut frame[14..];
    ip[0] = 0x45;
    let total = u16::try_from(length).expect("an IP packet's length");
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..20].copy_from_slice(&[10, 1, 0, 2, 10, 2, 0, 2]);
    let sum = ipsec::wire::checksum::Sum::ZERO.bytes(&ip[..20]).checksum();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
    let udp = total - 20;
    ip[24..26].copy_from_slice(&udp.to_be_bytes());
    frame
}
