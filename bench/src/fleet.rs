//! A gateway in memory with as many SAs and policies as one likes, and traffic for each of them.
//! Built without a configuration file: a million SAs would be a gigabyte of text.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::packet::{Version, address_bits};
use ipsec::policy::{
    Action, AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector, TcpMss,
};
use ipsec::sa::association::{
    Direction, DontFragment, Dscp, FlowLabel, Mode, Protocol, SaParameters,
};
use ipsec::sa::lifetime::Lifetime;
use ipsec::sa::{Sa, SaSlot};
use ipsec::secret::Secret;
use ipsec::tables::{Tables, Unmatched};
use ipsec::time::Time;
use xipsec::assembly;
use xipsec::port::memory::{MemoryFrame, MemoryPort};
use xipsec::port::settings::Side;
use xipsec::route::fib::{Fib, PortAddress};
use xipsec::route::{Hop, Neighbor, Neighbors, PortIndex, Route, Target};
use xipsec::snapshot::{PortFacts, Snapshot};
use xipsec::worker::Worker;
use xipsec::worker::handoff::Exchange;
use xipsec::worker::host::NoHost;

use crate::fixture::{End, SuiteName, worker};

/// The near end's address on the unprotected side.
const NEAR: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The next hop of everything that leaves on the unprotected side.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The host behind the near end.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// MAC addresses of the unprotected and the protected port, at both ends.
pub const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, 1]];

/// First address of the peers: RFC 6598's, a million of them.
const PEERS: u32 = u32::from_be_bytes([100, 64, 0, 0]);

/// First address of the networks behind the peers.
const NETWORKS: u32 = u32::from_be_bytes([16, 0, 0, 0]);

/// Prefix lengths of those networks, in turns: a classifier that knows one length only would look
/// better than it is.
const LENGTHS: [u32; 3] = [24, 26, 28];

/// How much there is of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// SAs in each direction.
    pub sas: usize,
    /// Policies in each direction, at least as many as SAs; policy p names SA p mod `sas`.
    pub policies: usize,
}

/// A gateway of a scale.
pub struct Fleet {
    /// What workers read.
    pub snapshot: Snapshot,
    /// All SAs: outbound ones, then inbound ones.
    pub sas: Vec<Arc<Sa>>,
    /// The policies, to build the next snapshot with.
    pub policies: Vec<PolicyParameters>,
    end: End,
    scale: Scale,
}

impl Fleet {
    /// One end. The near one has SAs and policies in both directions, the far one, which stands for
    /// all peers at once, only those by which it seals what the near one opens.
    ///
    /// # Panics
    /// With fewer policies than SAs.
    #[must_use]
    pub fn new(suite: SuiteName, end: End, scale: Scale, replay_window: u32) -> Self {
        assert!(scale.policies >= scale.sas, "an SA without a policy");
        let sas = associations(suite, end, scale.sas, replay_window);
        let policies = policies(end, scale);
        let snapshot = Snapshot {
            generation: 1,
            tables: Arc::new(tables(&sas, &policies)),
            fib: Arc::new(fib()),
            neighbors: Arc::new(neighbors()),
            ports: ports(),
            first_protected: PortIndex(1),
        };
        Self {
            snapshot,
            sas,
            policies,
            end,
            scale,
        }
    }

    /// Worker `number` of those that share `exchange`.
    #[must_use]
    pub fn worker(
        &self,
        number: u16,
        exchange: &Arc<Exchange<MemoryFrame>>,
    ) -> Worker<MemoryPort, NoHost> {
        worker(&self.snapshot, self.sas.len(), number, Arc::clone(exchange))
    }

    /// Writes a frame with an IP packet of `length` bytes that policy number `policy` protects.
    ///
    /// # Panics
    /// When `length` is none of a UDP packet.
    pub fn frame(&self, policy: usize, length: usize, frame: &mut Vec<u8>) {
        let other = Ipv4Addr::from(network(policy) + 2);
        let (source, destination) = match self.end {
            End::Near => (HOST, other),
            End::Far => (other, HOST),
        };
        frame.clear();
        frame.extend_from_slice(&MACS[1]);
        frame.extend_from_slice(&[2, 0, 0, 0, 1, 2, 8, 0]);
        frame.resize(14 + length, 0);
        let total = u16::try_from(length).expect("an IP packet's length");
        let ip = &mut frame[14..];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[8..10].copy_from_slice(&[64, 17]);
        ip[12..16].copy_from_slice(&source.octets());
        ip[16..20].copy_from_slice(&destination.octets());
        let sum = ipsec::wire::checksum::Sum::ZERO.bytes(&ip[..20]).checksum();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        ip[20..24].copy_from_slice(&[0x13, 0x88, 0x13, 0x89]);
        ip[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    }

    /// How much there is.
    #[must_use]
    pub const fn scale(&self) -> Scale {
        self.scale
    }
}

/// Both ends at one scale.
pub struct Ends {
    /// The one under test.
    pub near: Fleet,
    /// Seals what the near end opens.
    pub far: Fleet,
}

impl Ends {
    /// As [`Fleet::new`].
    #[must_use]
    pub fn new(suite: SuiteName, scale: Scale, replay_window: u32) -> Self {
        Self {
            near: Fleet::new(suite, End::Near, scale, replay_window),
            far: Fleet::new(suite, End::Far, scale, replay_window),
        }
    }
}

/// SAD and SPDs of these SAs and policies.
///
/// # Panics
/// When the two do not fit together.
#[must_use]
pub fn tables(sas: &[Arc<Sa>], policies: &[PolicyParameters]) -> Tables {
    let local = [IpAddr::V4(NEAR), IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1))];
    assembly::tables(sas, policies, local, Unmatched::Discard).expect("the bench's own policies")
}

/// The SA that could take the place of outbound SA `index` after a rekey: another key, another SPI,
/// the same slot.
///
/// # Panics
/// When the suite is none.
#[must_use]
pub fn successor(suite: SuiteName, index: usize, slot: SaSlot) -> Arc<Sa> {
    let mut parameters = association(suite, Direction::Out, index, 64);
    parameters.spi |= 1 << 31;
    let mut sa = one(parameters);
    let own = Arc::get_mut(&mut sa).expect("nobody else has it yet");
    own.slot = slot;
    sa
}

fn one(parameters: SaParameters) -> Arc<Sa> {
    let starts = xipsec::state::unreserved(std::slice::from_ref(&parameters));
    let mut built =
        assembly::sas(vec![parameters], &[], &starts, Time(0)).expect("the bench's own keys");
    built.remove(0)
}

fn associations(suite: SuiteName, end: End, count: usize, replay_window: u32) -> Vec<Arc<Sa>> {
    let directions = match end {
        End::Near => &[Direction::Out, Direction::In][..],
        End::Far => &[Direction::Out],
    };
    let all = directions.iter().flat_map(|direction| {
        (0..count).map(move |index| {
            let mut parameters = association(suite, *direction, index, replay_window);
            if end == End::Far {
                // What arrives at the near end, from the sender's side.
                parameters = SaParameters {
                    direction: Direction::Out,
                    name: parameters.name.clone(),
                    ..association(suite, Direction::In, index, replay_window)
                };
            }
            parameters
        })
    });
    let parameters: Vec<_> = all.collect();
    let starts = xipsec::state::unreserved(&parameters);
    assembly::sas(parameters, &[], &starts, Time(0)).expect("the bench's own keys")
}

fn association(
    suite: SuiteName,
    direction: Direction,
    index: usize,
    replay_window: u32,
) -> SaParameters {
    let number = number(index);
    let peer = IpAddr::V4(Ipv4Addr::from(PEERS + number));
    let (prefix, source, destination, seed) = match direction {
        Direction::Out => ("o", IpAddr::V4(NEAR), peer, 1_u8),
        Direction::In => ("i", peer, IpAddr::V4(NEAR), 2),
    };
    SaParameters {
        name: format!("{prefix}{index}"),
        direction,
        protocol: Protocol::Esp,
        mode: Mode::Tunnel,
        spi: 0x1000 + number,
        source,
        destination,
        suite: Suite {
            encryption: Encryption::from_name(suite.encryption).expect("a known cipher"),
            integrity: suite
                .integrity
                .map(|(name, _)| Integrity::from_name(name).expect("a known MAC")),
        },
        encryption_key: key(suite.encryption_key, number, seed),
        integrity_key: key(suite.integrity.map_or(0, |it| it.1), number, seed),
        esn: true,
        sequence: 0,
        replay_window,
        udp_encapsulation: None,
        keepalive_seconds: 0,
        follow_peer: false,
        lifetime: Lifetime::default(),
        dont_fragment: DontFragment::Copy,
        dscp: Dscp::Copy,
        ecn: true,
        hop_limit: 64,
        flow_label: FlowLabel::Hash,
        tfc_pad_to: 0,
        per_worker: false,
    }
}

/// Every SA has a key of its own, the same in every run.
fn key(length: usize, number: u32, seed: u8) -> Secret {
    let mut bytes = vec![seed; length];
    for (byte, of_number) in bytes.iter_mut().zip(number.to_be_bytes()) {
        *byte ^= of_number;
    }
    Secret::new(bytes)
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("at most a million or so")
}

/// First address behind the peer of a policy.
fn network(policy: usize) -> u32 {
    NETWORKS + (number(policy) << 8)
}

fn range(first: u32, length: u32) -> AddressSelector {
    let last = first | u32::MAX.checked_shr(length).unwrap_or(0);
    let bits = |address: u32| address_bits(IpAddr::V4(Ipv4Addr::from(address)));
    AddressSelector::Ranges(vec![AddressRange {
        version: Version::V4,
        first: bits(first),
        last: bits(last),
    }])
}

fn policies(end: End, scale: Scale) -> Vec<PolicyParameters> {
    let own = range(u32::from_be_bytes([10, 1, 0, 0]), 16);
    let policy = |direction, index: usize| {
        let other = range(network(index), LENGTHS[index % LENGTHS.len()]);
        let (local, remote) = match end {
            End::Near => (own.clone(), other),
            End::Far => (other, own.clone()),
        };
        let sa = index % scale.sas;
        let prefix = if direction == Direction::Out {
            "o"
        } else {
            "i"
        };
        PolicyParameters {
            name: format!("{prefix}{index}"),
            direction,
            action: Action::Protect,
            selector: Selector {
                local,
                remote,
                protocol: None,
                local_port: PortSelector::Any,
                remote_port: PortSelector::Any,
                icmp: None,
            },
            priority: 100,
            tcp_mss: TcpMss::Off,
            bundles: vec![vec![format!("{prefix}{sa}")]],
        }
    };
    let out = (0..scale.policies).map(|index| policy(Direction::Out, index));
    match end {
        End::Near => {
            let back = (0..scale.policies).map(|index| policy(Direction::In, index));
            out.chain(back).collect()
        }
        End::Far => out.collect(),
    }
}

fn fib() -> Fib {
    let everything = Route {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        prefix_length: 0,
        target: Target::Hops(vec![Hop {
            port: PortIndex(0),
            via: Some(IpAddr::V4(ROUTER)),
            mtu: 0,
            weight: 1,
        }]),
    };
    let own = |port, address: [u8; 4]| PortAddress {
        port: PortIndex(port),
        address: address.into(),
        prefix_length: 24,
    };
    Fib::from_static(
        vec![everything],
        &[own(0, NEAR.octets()), own(1, [10, 1, 0, 1])],
    )
}

fn neighbors() -> Neighbors {
    let neighbor = |port, address, mac| Neighbor {
        port: PortIndex(port),
        address: IpAddr::V4(address),
        mac,
    };
    Neighbors::new(&[
        neighbor(0, ROUTER, [2, 0, 0, 0, 0, 2]),
        // Where the far end's packets go, which both ends keep so that they share one table.
        neighbor(0, NEAR, MACS[0]),
        neighbor(1, HOST, [2, 0, 0, 0, 1, 2]),
    ])
}

fn ports() -> Arc<[PortFacts]> {
    let port = |name: &str, side, mac, address: [u8; 4]| PortFacts {
        name: name.to_owned(),
        side,
        mac,
        mtu: 9216,
        addresses: vec![address.into()],
        broadcasts: Vec::new(),
    };
    Arc::new([
        port("wan0", Side::Unprotected, MACS[0], NEAR.octets()),
        port("lan0", Side::Protected, MACS[1], [10, 1, 0, 1]),
    ])
}
