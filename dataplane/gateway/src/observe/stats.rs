//! The statistics document of the interface: ports, SAs, policies, drops, accounting.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ipsec::sa::Sa;
use ipsec::sa::association::Direction;
use ipsec::tables::Count;
use ipsec::time::Time;
use ipsec::verdict::DropReason;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::counters::{Cell, PortCell, Tally};

/// Counters of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received: Ethernet frames without FCS.
    pub rx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets received here that went to the machine itself.
    pub to_host_packets: u64,
}

/// One SA's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaStats {
    /// Its name.
    pub name: String,
    /// Its SPI.
    pub spi: u32,
    /// `in` or `out`.
    pub direction: String,
    /// Out: sent. In: authentic and new. Since the gateway started.
    pub packets: u64,
    /// IP length of their plaintext packets.
    pub bytes: u64,
    /// Out: last used. In: highest accepted.
    pub sequence: u64,
    /// `mature`, `dying` or `dead`.
    pub state: String,
}

/// One policy's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStats {
    /// Its name.
    pub name: String,
    /// Packets whose fate it decided.
    pub packets: u64,
    /// Their IP length.
    pub bytes: u64,
}

/// Authentic packets that carry nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumed {
    /// ESP dummies.
    pub dummy: u64,
    /// NAT keepalives.
    pub keepalive: u64,
}

/// Both sides of the accounting identity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accounting {
    /// Received from ports.
    pub rx: u64,
    /// Received from the machine.
    pub from_host: u64,
    /// Made by the gateway.
    pub created: u64,
    /// Sent by ports.
    pub tx: u64,
    /// Delivered to the machine.
    pub to_host: u64,
    /// Dropped for one reason.
    pub dropped: u64,
    /// Authentic, but carrying nothing.
    pub consumed: u64,
    /// Fragments beyond the first of a reassembled packet.
    pub merged: u64,
    /// Waiting.
    pub held: u64,
}

/// The document; maps keep the order of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// By port name: [`PortStats`].
    pub ports: Map<String, Value>,
    /// SAs in file order.
    pub sas: Vec<SaStats>,
    /// Policies in file order.
    pub policies: Vec<PolicyStats>,
    /// By reason, every reason present.
    pub drops: Map<String, Value>,
    /// Swallowed packets.
    pub consumed: Consumed,
    /// How all packets ended.
    pub accounting: Accounting,
}

/// The name of a direction.
#[must_use]
pub const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::In => "in",
        Direction::Out => "out",
    }
}

impl PortStats {
    /// A port's part of a tally.
    #[must_use]
    pub fn of(tally: &Tally, port: usize) -> Self {
        Self {
            rx_packets: tally.of_port(port, PortCell::RxPackets),
            rx_bytes: tally.of_port(port, PortCell::RxBytes),
            tx_packets: tally.of_port(port, PortCell::TxPackets),
            tx_bytes: tally.of_port(port, PortCell::TxBytes),
            to_host_packets: tally.of_port(port, PortCell::ToHostPackets),
        }
    }
}

impl SaStats {
    /// What an SA's owner published, and the stage of its life at `now`.
    #[must_use]
    pub fn of(sa: &Sa, now: Time) -> Self {
        let read = |cell: &std::sync::atomic::AtomicU64| cell.load(Ordering::Relaxed);
        let published = &sa.published;
        let (packets, bytes) = (read(&published.packets), read(&published.bytes));
        Self {
            name: sa.name.to_string(),
            spi: sa.parameters.spi,
            direction: direction_name(sa.parameters.direction).to_owned(),
            packets: packets.saturating_sub(read(&published.earlier_packets)),
            bytes: bytes.saturating_sub(read(&published.earlier_bytes)),
            sequence: read(&published.sequence),
            state: sa.stage(now).name().to_owned(),
        }
    }
}

impl Document {
    /// Gathers the document from the sum of all workers' tallies.
    ///
    /// SAs are shown as they are at `now`; `policies` holds each worker's cells, indexed as
    /// `policy_names`.
    #[must_use]
    pub fn gather(
        tally: &Tally,
        port_names: &[String],
        (sas, now): (&[Arc<Sa>], Time),
        policy_names: &[String],
        policies: &[Arc<[Count]>],
    ) -> Self {
        let ports = port_names.iter().enumerate().map(|(index, name)| {
            let stats = serde_json::to_value(PortStats::of(tally, index));
            (name.clone(), stats.unwrap_or(Value::Null))
        });
        let policies = policy_names.iter().enumerate().map(|(index, name)| {
            let counts = policies
                .iter()
                .filter_map(|cells| cells.get(index))
                .map(Count::read);
            let (packets, bytes) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            PolicyStats {
                name: name.clone(),
                packets,
                bytes,
            }
        });
        let drops = DropReason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), Value::from(tally.drops(*reason))));
        Self {
            ports: ports.collect(),
            sas: sas.iter().map(|sa| SaStats::of(sa, now)).collect(),
            policies: policies.collect(),
            drops: drops.collect(),
            consumed: Consumed {
                dummy: tally.of(Cell::Dummy),
                keepalive: tally.of(Cell::Keepalive),
            },
            accounting: Accounting {
                rx: tally.of(Cell::Rx),
                from_host: tally.of(Cell::FromHost),
                created: tally.of(Cell::Created),
                tx: tally.of(Cell::Tx),
                to_host: tally.of(Cell::ToHost),
                dropped: tally.dropped(),
                consumed: tally.of(Cell::Dummy) + tally.of(Cell::Keepalive),
                merged: tally.of(Cell::Merged),
                held: tally.of(Cell::Held),
            },
        }
    }
}
