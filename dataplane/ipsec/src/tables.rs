//! The SAD and both SPDs of one generation, as the stages read them, and the built-in policies
//! that stand before and behind the file's.
//!
//! Immutable once built: control builds the next generation aside and publishes it whole.

mod count;

mod local;

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashSet;

use crate::packet::{Builtin, Fragment, Packet, Version, address_bits, builtin, protocol};
use crate::policy::selector::turned;
use crate::policy::{
    Bundle, Bundles, Policy, PolicyIndex, PolicyParameters, Spd, TcpMss, UpperUse,
};
use crate::sa::association::{Direction, Mode, Protocol};
use crate::sa::database::Sad;
use crate::sa::path_mtu::Report;
use crate::sa::{Sa, SaSlot};
use crate::time::Time;
use crate::verdict::DropReason;

pub use count::Count;
pub use local::LocalAddresses;

/// UDP port of ESP behind NAT, open at every endpoint (RFC 3948 §2.1).
const NAT_TRAVERSAL: u16 = 4500;

/// Name of the last policy but one: clear traffic for the machine's own addresses.
pub const BUILTIN_LOCAL: &str = "builtin-local";

/// Name of the last policy: what nothing else matched.
pub const BUILTIN_UNMATCHED: &str = "builtin-unmatched";

/// Built-in policies of one gateway.
pub const BUILTINS: usize = Builtin::ALL.len() + 2;

/// An address together with its family: a hostile IPv6 packet may carry mapped addresses.
type Endpoint = (Version, u128);

type Set<T> = HashSet<T, foldhash::fast::RandomState>;

/// What becomes of packets that no policy's addresses touch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// Forwarded in clear, as the kernel would.
    Kernel,
    /// Dropped as `no_policy`.
    #[default]
    Discard,
}

/// What holds for the segment sizes of one TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp<'a> {
    /// Never [`TcpMss::Off`].
    pub limit: TcpMss,
    /// The policy by which its segments leave; `None`: none takes them.
    pub outbound: Option<&'a Policy>,
}

/// A policy names an SA that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy} names the SA {sa}, which does not exist")]
pub struct UnknownSa {
    /// The policy's name.
    pub policy: String,
    /// The SA's.
    pub sa: String,
}

/// Everything that the stages look up. A clone shares the large parts.
#[derive(Clone)]
pub struct Tables {
    /// SAs of both directions.
    pub sad: Arc<Sad>,
    /// Policies for what comes from the unprotected side.
    pub inbound: Arc<Spd>,
    /// Policies for what goes there.
    pub outbound: Arc<Spd>,
    /// The machine's own addresses.
    pub local: LocalAddresses,
    /// What becomes of what no policy's addresses touch.
    pub unmatched: Unmatched,
    /// Policies of the file; the built-in ones count behind them.
    file_policies: u32,
    /// Addresses at which `in` SAs end.
    ends: Set<Endpoint>,
    /// Where `in` SAs take ESP in UDP besides port 4500.
    encapsulation: Set<(Endpoint, u16)>,
    /// Where the peers of `in` SAs that take ESP in UDP are now, and the SAs' destinations.
    peers: Set<(Endpoint, Endpoint)>,
    /// Source and destination of `out` SAs in transport mode, as far as their peers are followed.
    transport: Set<(Endpoint, Endpoint)>,
    /// Some policy clamps the segment sizes of TCP.
    clamps: bool,
    /// SPIs of `out` SAs, to tell a mirrored packet from an unknown one.
    outbound_spis: Set<(u32, Protocol)>,
    /// Some inbound policy wants more than one SA.
    bundles: bool,
    /// See [`Self::is_large`].
    is_large: bool,
}

/// SAs and policies up to which nothing is asked for ahead. 256 of them take some 200 KiB, which
/// the second level of a core's cache holds.
const SMALL: usize = 256;

impl Tables {
    /// Builds the tables. `policies` stand in file order.
    ///
    /// # Errors
    /// [`UnknownSa`] when a policy names an SA that `sad` does not have.
    pub fn new(
        sad: Sad,
        policies: &[PolicyParameters],
        local: LocalAddresses,
        unmatched: Unmatched,
    ) -> Result<Self, UnknownSa> {
        let mut inbound = Vec::new();
        let mut outbound = Vec::new();
        for (index, parameters) in (0..).zip(policies) {
            let side = match parameters.direction {
                Direction::In => &mut inbound,
                Direction::Out => &mut outbound,
            };
            side.push(policy(PolicyIndex(index), parameters, &sad)?);
        }
        let sas = sad.len();
        let mut tables = Self {
            sad: Arc::new(sad),
            inbound: Arc::new(Spd::new(Direction::In, inbound)),
            outbound: Arc::new(Spd::new(Direction::Out, outbound)),
            local,
            unmatched,
            file_policies: u32::try_from(policies.len()).unwrap_or(u32::MAX),
            ends: Set::default(),
            encapsulation: Set::default(),
            peers: Set::default(),
            transport: Set::default(),
            clamps: policies.iter().any(|it| it.tcp_mss != TcpMss::Off),
            outbound_spis: Set::default(),
            bundles: false,
            is_large: sas + policies.len() > SMALL,
        };
        tables.survey();
        Ok(tables)
    }

    /// Gathers what the SAs say about addresses and ports, and the policies about bundles.
    fn survey(&mut self) {
        let mut bundles = self
            .inbound
            .policies()
            .iter()
            .flat_map(|it| it.bundles.iter());
        self.bundles = bundles.any(|bundle| bundle.len() > 1);
        for sa in self.sad.iter() {
            let parameters = &sa.parameters;
            if parameters.direction == Direction::Out {
                self.outbound_spis
                    .insert((parameters.spi, parameters.protocol));
                continue;
            }
            let destination = endpoint(parameters.destination);
            self.ends.insert(destination);
            if let Some(udp) = parameters.udp_encapsulation {
                self.encapsulation
                    .insert((destination, udp.destination_port));
            }
        }
        self.peers = self.find_peers();
        self.transport = self.find_transport();
    }

    fn find_transport(&self) -> Set<(Endpoint, Endpoint)> {
        let direct = self.sad.iter().filter(|sa| {
            let parameters = &sa.parameters;
            parameters.direction == Direction::Out && parameters.mode == Mode::Transport
        });
        let ends = direct.map(|sa| {
            let source @ (version, _) = endpoint(sa.parameters.source);
            (source, (version, sa.peer_place().address))
        });
        ends.collect()
    }

    fn find_peers(&self) -> Set<(Endpoint, Endpoint)> {
        let encapsulated = self.sad.iter().filter(|sa| {
            let parameters = &sa.parameters;
            parameters.direction == Direction::In && parameters.udp_encapsulation.is_some()
        });
        let ends = encapsulated.map(|sa| {
            let destination @ (version, _) = endpoint(sa.parameters.destination);
            ((version, sa.peer_place().address), destination)
        });
        ends.collect()
    }

    /// The same tables, in which peers that moved are known by where they are now.
    #[must_use]
    pub fn with_moved_peers(&self) -> Self {
        Self {
            peers: self.find_peers(),
            transport: self.find_transport(),
            ..self.clone()
        }
    }

    /// True when SAs or policies are so many that a packet finds its own in no cache, and it pays
    /// to ask memory for them before they are needed.
    #[inline]
    pub(crate) const fn is_large(&self) -> bool {
        self.is_large
    }

    /// True when packets may come through more than one SA.
    #[must_use]
    pub const fn has_bundles(&self) -> bool {
        self.bundles
    }

    /// True when the machine has that address.
    #[must_use]
    pub fn is_local(&self, version: Version, address: u128) -> bool {
        self.local.contains(version, address)
    }

    /// True when the packet's destination is the machine's or some `in` SA's.
    #[must_use]
    pub fn ends_here(&self, packet: &Packet) -> bool {
        self.is_local(packet.version, packet.destination)
            || self.ends.contains(&(packet.version, packet.destination))
    }

    /// True for a fragment that must meet the others of its packet before anything else: ESP or
    /// AH for us and, if `udp` is set, UDP, which may carry ESP.
    //= T22 T47 (RFC 4303 section 3.4.1, RFC 4302 section 3.4.1)
    #[must_use]
    pub fn reassembles(&self, packet: &Packet, udp: bool) -> bool {
        let may_be_ours = match packet.protocol {
            protocol::ESP | protocol::AH => true,
            protocol::UDP => udp,
            _ => false,
        };
        packet.fragment != Fragment::Whole && may_be_ours && self.ends_here(packet)
    }

    /// True for a fragment of the machine's own that must meet the others of its packet before
    /// policy is asked: an SA in transport mode, which takes whole packets alone, may carry it.
    //= T14 (RFC 4303 section 3.3.4)
    #[must_use]
    pub fn takes_whole(&self, packet: &Packet) -> bool {
        let source = (packet.version, packet.source);
        let destination = (packet.version, packet.destination);
        packet.fragment != Fragment::Whole && self.transport.contains(&(source, destination))
    }

    /// True when UDP to that port of the packet's destination may carry ESP.
    #[must_use]
    pub fn encapsulates(&self, packet: &Packet, port: u16) -> bool {
        let destination = (packet.version, packet.destination);
        (port == NAT_TRAVERSAL && self.ends_here(packet))
            || self.encapsulation.contains(&(destination, port))
    }

    /// True when the packet is from the peer of an `in` SA that takes ESP in UDP, to that SA's
    /// destination.
    #[must_use]
    pub fn is_peer(&self, packet: &Packet) -> bool {
        let source = (packet.version, packet.source);
        let destination = (packet.version, packet.destination);
        self.peers.contains(&(source, destination))
    }

    /// The SA that has just sent what an ICMP error quotes.
    #[must_use]
    pub fn sender(&self, report: &Report) -> Option<&Arc<Sa>> {
        let key = &report.key;
        let configured = self.sad.find(key).filter(|sa| report.is_about(sa));
        // Where a peer was followed to no table knows; only who saw our packets has their SPI.
        configured.or_else(|| {
            self.is_outbound_spi(key.spi, key.protocol)
                .then(|| self.sad.iter().find(|sa| report.is_about(sa)))?
        })
    }

    /// True when an `out` SA has that SPI, whatever its destination.
    #[must_use]
    pub fn is_outbound_spi(&self, spi: u32, protocol: Protocol) -> bool {
        self.outbound_spis.contains(&(spi, protocol))
    }

    /// The built-in policy in front of the file's that takes the packet, if one does.
    //= T101 (RFC 4301 section 5)
    #[must_use]
    pub fn builtin(&self, ip: &[u8], packet: &Packet) -> Option<PolicyIndex> {
        let ours = |address| self.is_local(packet.version, address);
        let entry = builtin(ip, packet, ours)?;
        (self.file_policies..)
            .zip(Builtin::ALL)
            .find(|&(_, known)| known == entry)
            .map(|(index, _)| PolicyIndex(index))
    }

    /// Index of [`BUILTIN_LOCAL`].
    #[must_use]
    pub fn local_index(&self) -> PolicyIndex {
        self.behind(Builtin::ALL.len())
    }

    /// Index of [`BUILTIN_UNMATCHED`].
    #[must_use]
    pub fn unmatched_index(&self) -> PolicyIndex {
        self.behind(Builtin::ALL.len() + 1)
    }

    fn behind(&self, offset: usize) -> PolicyIndex {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        PolicyIndex(self.file_policies.saturating_add(offset))
    }

    /// Counters that a worker needs: one for each policy of the file and each built-in one.
    #[must_use]
    pub const fn policy_count(&self) -> usize {
        self.file_policies as usize + BUILTINS
    }

    /// The built-in policies with their indices: those in front of the file's, then those behind.
    pub fn builtins(&self) -> impl Iterator<Item = (PolicyIndex, &'static str)> {
        let names = Builtin::ALL.into_iter().map(Builtin::name);
        (self.file_policies..)
            .map(PolicyIndex)
            .zip(names.chain([BUILTIN_LOCAL, BUILTIN_UNMATCHED]))
    }

    /// True when some policy clamps the segment sizes of TCP.
    #[inline]
    #[must_use]
    pub const fn clamps(&self) -> bool {
        self.clamps
    }

    /// How the segment sizes that a TCP SYN announces, going in `direction`, are clamped: as the
    /// policy says that takes it, or else the one that takes its answers. `None`: not at all.
    #[inline]
    #[must_use]
    pub fn clamp(&self, packet: &Packet, direction: Direction) -> Option<Clamp<'_>> {
        if !self.clamps {
            return None;
        }
        let answer = turned(packet);
        let (own, other, outbound) = match direction {
            Direction::Out => {
                let own = self.outbound.first(packet);
                (own, self.inbound.first(&answer), own)
            }
            Direction::In => {
                let outbound = self.outbound.first(&answer);
                (self.inbound.first(packet), outbound, outbound)
            }
        };
        let wanted = [own, other].into_iter().flatten().map(|it| it.tcp_mss);
        let limit = wanted.into_iter().find(|it| *it != TcpMss::Off)?;
        Some(Clamp { limit, outbound })
    }

    /// The SAs that are the policy's first choice for what leaves on `worker`.
    ///
    /// # Errors
    /// As [`Self::sas`].
    pub fn first_sas(&self, policy: &Policy, worker: u16) -> Result<Sas<'_>, DropReason> {
        let first = policy.choices(worker).next();
        first.map_or(Err(DropReason::Unsupported), |bundle| self.sas(bundle))
    }

    /// The SAs by which the policy's next packet will leave on `worker`, by what all workers
    /// publish: its first choice that can still carry one, or where none can its first choice.
    ///
    /// # Errors
    /// As [`Self::sas`].
    pub fn carrying_sas(
        &self,
        policy: &Policy,
        worker: u16,
        now: Time,
    ) -> Result<Sas<'_>, DropReason> {
        let carries = |sas: &Sas<'_>| {
            sas.iter().all(|sa| {
                let (parameters, published) = (&sa.parameters, &sa.published);
                let checked = published.check(&parameters.lifetime, parameters.esn, now);
                checked.is_ok()
            })
        };
        let choices = policy.choices(worker);
        let mut carrying = choices.filter_map(|bundle| self.sas(bundle).ok().filter(carries));
        carrying
            .next()
            .map_or_else(|| self.first_sas(policy, worker), Ok)
    }

    /// The SAs of one of a policy's bundles.
    ///
    /// # Errors
    /// [`DropReason::Unsupported`] for a deeper bundle than any configuration has,
    /// [`DropReason::SaExpired`] for an SA that is gone.
    pub fn sas(&self, bundle: &[SaSlot]) -> Result<Sas<'_>, DropReason> {
        let sa = |slot| {
            let found = self.sad.by_slot(slot).map(|sa| &**sa);
            found.ok_or(DropReason::SaExpired)
        };
        match *bundle {
            [slot] => Ok(Sas {
                inner: None,
                outer: sa(slot)?,
            }),
            //= T50 T113 (RFC 4302 section 3.1.1, RFC 4301 section 4.3)
            [inner, outer] => Ok(Sas {
                inner: Some(sa(inner)?),
                outer: sa(outer)?,
            }),
            _ => Err(DropReason::Unsupported),
        }
    }
}

/// The SAs that a packet goes through.
#[derive(Clone, Copy)]
pub struct Sas<'a> {
    /// The first of a bundle of two, whose header lies deeper.
    pub inner: Option<&'a Sa>,
    /// The last or only one.
    pub outer: &'a Sa,
}

impl<'a> Sas<'a> {
    /// Innermost first.
    pub fn iter(self) -> impl Iterator<Item = &'a Sa> {
        self.inner.into_iter().chain([self.outer])
    }
}

fn endpoint(address: IpAddr) -> Endpoint {
    let version = match address {
        IpAddr::V4(_) => Version::V4,
        IpAddr::V6(_) => Version::V6,
    };
    (version, address_bits(address))
}

fn policy(
    index: PolicyIndex,
    parameters: &PolicyParameters,
    sad: &Sad,
) -> Result<Policy, UnknownSa> {
    let slot = |name: &String| {
        let sa = sad.by_name(name).map(|sa| sa.slot);
        sa.ok_or_else(|| UnknownSa {
            policy: parameters.name.clone(),
            sa: name.clone(),
        })
    };
    let bundles: Bundles = parameters
        .bundles
        .iter()
        .map(|bundle| {
            let slots: Result<Vec<SaSlot>, _> = bundle.iter().map(slot).collect();
            Ok(Bundle::new(&slots?))
        })
        .collect::<Result<_, _>>()?;
    let for_one = |slot: &SaSlot| {
        let sa = sad.by_slot(*slot);
        sa.is_some_and(|sa| sa.parameters.per_worker)
    };
    let per_worker = (0..).zip(bundles.iter());
    let per_worker = per_worker.filter(|(_, bundle)| bundle.iter().all(for_one));
    let per_worker = per_worker.map(|(place, _)| place).collect();
    Ok(Policy {
        index,
        action: parameters.action,
        upper: UpperUse::of(&parameters.selector),
        tcp_mss: parameters.tcp_mss,
        priority: parameters.priority,
        bundles,
        per_worker,
        selector: parameters.selector.clone(),
    })
}
