//! What is fixed about an SA, shared read-only by all workers (RFC 4301 §4.4.2.1).

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::sync::{Arc, Mutex};

pub use crate::crypto::suite::Protocol;
use crate::crypto::suite::Suite;
use crate::crypto::{KeyError, Transform};
use crate::packet::{Version, address, address_bits};
use crate::sa::lifetime::{Lifetime, Stage, Usage};
use crate::sa::peer::{Peer, Place};
use crate::sa::sequence::{is_running_out, last_number};
use crate::sa::shape::Sizes;
use crate::sa::state::SaState;
use crate::secret::Secret;
use crate::time::{SECOND, Time};
use crate::verdict::DropReason;

/// The direction an SA or a policy serves, seen from the protected side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the unprotected to the protected side: opens.
    In,
    /// From the protected to the unprotected side: seals.
    Out,
}

/// Tunnel or transport mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A whole packet inside a new one.
    Tunnel,
    /// The payload of the packet itself.
    Transport,
}

/// The outer DF bit (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DontFragment {
    /// As the inner packet; an IPv6 inner packet counts as DF.
    #[default]
    Copy,
    /// Always set.
    Set,
    /// Always clear.
    Clear,
}

/// The outer DSCP (RFC 4301 §5.1.2.1 note 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dscp {
    /// As the inner packet.
    #[default]
    Copy,
    /// A fixed value, 0 to 63.
    Fixed(u8),
}

/// The outer IPv6 flow label (RFC 6438).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowLabel {
    /// A keyed hash of the inner flow.
    #[default]
    Hash,
    /// Zero.
    Zero,
}

/// UDP encapsulation of ESP (RFC 3948).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UdpEncapsulation {
    /// Source port of what we send.
    pub source_port: u16,
    /// Destination port of what we send, and by which arriving packets are matched.
    pub destination_port: u16,
}

/// All that configuration says of one SA. Holds key bytes; wiped on drop.
//= T109 (RFC 4301 section 4.4.2.1)
#[derive(Debug)]
pub struct SaParameters {
    /// Unique name.
    pub name: String,
    /// In or out.
    pub direction: Direction,
    /// ESP or AH.
    pub protocol: Protocol,
    /// Tunnel or transport.
    pub mode: Mode,
    /// SPI, host order, 256 or more.
    pub spi: u32,
    /// Outer source; transport: the packet's own.
    pub source: IpAddr,
    /// Outer destination.
    pub destination: IpAddr,
    /// Algorithms.
    pub suite: Suite,
    /// Encryption key, salt at the end.
    pub encryption_key: Secret,
    /// Integrity key.
    pub integrity_key: Secret,
    /// Extended sequence numbers.
    pub esn: bool,
    /// The last number used (out), or up to which all counts as seen (in).
    pub sequence: u64,
    /// Anti-replay window, packets; 0: off.
    pub replay_window: u32,
    /// ESP in UDP.
    pub udp_encapsulation: Option<UdpEncapsulation>,
    /// Seconds of silence before a keepalive; 0: none.
    pub keepalive_seconds: u32,
    /// Follow a peer whose address moves.
    pub follow_peer: bool,
    /// Soft and hard limits.
    pub lifetime: Lifetime,
    /// Outer DF.
    pub dont_fragment: DontFragment,
    /// Outer DSCP.
    pub dscp: Dscp,
    /// Copy ECN to the outer header (RFC 6040 normal mode).
    pub ecn: bool,
    /// Outer TTL or hop limit.
    pub hop_limit: u8,
    /// Outer flow label.
    pub flow_label: FlowLabel,
    /// Least length of inner packet and TFC padding, bytes; 0: none.
    pub tfc_pad_to: u16,
    /// One of several SAs of a policy, chosen by worker (RFC 9611).
    pub per_worker: bool,
}

impl SaParameters {
    /// Our end and the peer's, as configured: what is told apart by these goes one way, through a
    /// NAT too.
    #[must_use]
    pub fn ends(&self) -> [Place; 2] {
        let udp = self.udp_encapsulation;
        let source = Place {
            address: address_bits(self.source),
            port: udp.map_or(0, |udp| udp.source_port),
        };
        let destination = Place {
            address: address_bits(self.destination),
            port: udp.map_or(0, |udp| udp.destination_port),
        };
        match self.direction {
            Direction::Out => [source, destination],
            Direction::In => [destination, source],
        }
    }

    /// The second of [`Self::ends`].
    #[inline]
    fn peer(&self) -> Place {
        let udp = self.udp_encapsulation;
        let (address, port) = match self.direction {
            Direction::Out => (self.destination, udp.map_or(0, |udp| udp.destination_port)),
            Direction::In => (self.source, udp.map_or(0, |udp| udp.source_port)),
        };
        Place {
            address: address_bits(address),
            port,
        }
    }
}

/// Position of an SA in every table and arena; stable while the SA lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SaSlot(pub u32);

impl SaSlot {
    /// As an array index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// [`Sa::home`] of an SA that no worker serves yet.
pub const NO_HOME: u16 = u16::MAX;

/// What the owner of an SA's state shows to others: relaxed stores once a batch, one writer.
/// `reserved_end` goes the other way: written by the keeper of reservations, read by the owner.
#[derive(Debug, Default)]
pub struct Published {
    /// Packets sent (out), or authentic and new (in), since the SA was born.
    pub packets: AtomicU64,
    /// IP length of their plaintext packets, bytes.
    pub bytes: AtomicU64,
    /// How many of `packets` earlier runs of the gateway have counted: after a crash at most so
    /// many.
    pub earlier_packets: AtomicU64,
    /// Of `bytes`.
    pub earlier_bytes: AtomicU64,
    /// Last number used (out), highest accepted (in).
    pub sequence: AtomicU64,
    /// [`SaState::needed`]: what the keeper of reservations must cover.
    pub needed: AtomicU64,
    /// When the SA was born, on the owner's time line: age goes on without packets.
    pub born: AtomicU64,
    /// Numbers up to and including this one are on disk as reserved: an outbound number above it
    /// must not be used, an inbound one above it not be accepted. `u64::MAX`: no reservations.
    pub reserved_end: AtomicU64,
    /// What was learned of the path: see [`PathMtu`].
    pub path_mtu: PathMtu,
}

/// The longest outer packet that the way to an SA's peer is known to take (RFC 4301 §4.4.2.1 and
/// §8.2).
/// Written by the control side, read by whoever sizes a packet.
#[derive(Debug)]
pub struct PathMtu {
    /// Bytes; `u16::MAX`: nothing is known but the first link.
    bytes: AtomicU16,
    /// When an error last said so, [`Time`].
    heard: AtomicU64,
}

impl Default for PathMtu {
    fn default() -> Self {
        Self {
            bytes: AtomicU16::new(u16::MAX),
            heard: AtomicU64::new(0),
        }
    }
}

impl PathMtu {
    /// The estimate, bytes; `u16::MAX`: none.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> u16 {
        self.bytes.load(Relaxed)
    }

    /// The estimate and when it was last confirmed, if there is one.
    #[must_use]
    pub fn learned(&self) -> Option<(u16, Time)> {
        let bytes = self.bytes();
        (bytes != u16::MAX).then(|| (bytes, Time(self.heard.load(Relaxed))))
    }

    /// Sets the estimate, heard `now`.
    //= T109 T126 (RFC 4301 sections 4.4.2.1, 8.2.1)
    pub fn learn(&self, bytes: u16, now: Time) {
        self.heard.store(now.0, Relaxed);
        self.bytes.store(bytes, Relaxed);
    }

    /// Forgets the estimate: the way is another one.
    pub fn forget(&self) {
        self.bytes.store(u16::MAX, Relaxed);
    }

    /// Forgets the estimate if nothing confirmed it for `age` nanoseconds, and says whether: the
    /// first link's MTU holds again, until the next error.
    //= T62 T128 (RFC 4301 section 8.2.2, RFC 1191 section 3)
    pub fn forget_after(&self, age: u64, now: Time) -> bool {
        let old = self
            .learned()
            .is_some_and(|(_, heard)| now.since(heard) >= age);
        if old {
            self.forget();
        }
        old
    }
}

impl Published {
    /// What counts for the SA's lifetime at `now`, on the owner's time line.
    #[must_use]
    pub fn usage(&self, now: Time) -> Usage {
        Usage {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            seconds: now.since(Time(self.born.load(Relaxed))) / SECOND,
        }
    }

    /// The stage of the SA's life at `now` as its lifetime has it: what the next packet meets.
    //= T57 (RFC 4301 section 4.4.2.1)
    #[must_use]
    pub fn stage(&self, lifetime: &Lifetime, now: Time) -> Stage {
        lifetime.stage(self.usage(now))
    }

    /// Out: whether the SA can carry one packet more, as its owner last showed it.
    ///
    /// # Errors
    /// [`DropReason::SaExpired`] or [`DropReason::SequenceExhausted`].
    pub fn check(&self, lifetime: &Lifetime, esn: bool, now: Time) -> Result<(), DropReason> {
        if self.stage(lifetime, now) == Stage::Dead {
            Err(DropReason::SaExpired)
        } else if self.sequence.load(Relaxed) >= last_number(esn) {
            Err(DropReason::SequenceExhausted)
        } else {
            Ok(())
        }
    }
}

/// Which worker owns an SA's state. Nearly every SA has its own beside what else a packet reads of
/// it.
#[derive(Debug)]
pub struct Home {
    own: AtomicU16,
    /// That of a bundle.
    shared: Option<Arc<AtomicU16>>,
}

impl Default for Home {
    fn default() -> Self {
        Self {
            own: AtomicU16::new(NO_HOME),
            shared: None,
        }
    }
}

impl Deref for Home {
    type Target = AtomicU16;

    #[inline]
    fn deref(&self) -> &AtomicU16 {
        self.shared.as_deref().unwrap_or(&self.own)
    }
}

/// An SA as the workers share it: immutable but for what is atomic.
pub struct Sa {
    /// Unique name.
    pub name: Box<str>,
    /// Where its state and counters live.
    pub slot: SaSlot,
    /// Parameters; the name is gone (empty), and so are the key bytes, which live expanded in
    /// `transform`.
    pub parameters: SaParameters,
    /// Expanded keys.
    pub transform: Transform,
    /// What it puts around a packet; in transport mode with nothing in front.
    pub(crate) shape: Sizes,
    /// XORed into the IV of counter modes (design: "What outlives a restart").
    pub iv_mask: u64,
    /// The worker that owns the state, [`NO_HOME`] before the first packet. SAs of one bundle share
    /// it ([`share_homes`]), since a packet goes through all of them.
    pub home: Home,
    /// The state while nobody owns it: taken by the home worker once, at adoption.
    pub parked: Mutex<Option<Box<SaState>>>,
    /// Counters for others to read.
    pub published: Published,
    /// The peer, if it is followed ([`share_peers`]).
    pub peer: Option<Arc<Peer>>,
}

impl Sa {
    /// Expands the keys and forgets their bytes. The state is parked separately.
    ///
    /// # Errors
    /// [`KeyError`] when a key does not fit the suite.
    pub fn new(slot: SaSlot, mut parameters: SaParameters, iv_mask: u64) -> Result<Self, KeyError> {
        let transform = Transform::new(
            parameters.suite,
            &parameters.encryption_key,
            &parameters.integrity_key,
        )?;
        parameters.encryption_key = Secret::default();
        parameters.integrity_key = Secret::default();
        Ok(Self {
            name: std::mem::take(&mut parameters.name).into_boxed_str(),
            slot,
            shape: Sizes::of(&parameters),
            parameters,
            transform,
            iv_mask,
            home: Home::default(),
            parked: Mutex::new(None),
            published: Published::default(),
            peer: None,
        })
    }

    /// The address of [`Self::peer_place`].
    #[must_use]
    pub fn peer_address(&self) -> IpAddr {
        let version = if self.parameters.destination.is_ipv4() {
            Version::V4
        } else {
            Version::V6
        };
        address(version, self.peer_place().address)
    }

    /// Where the peer is: as configured, or where it was followed to.
    #[inline]
    #[must_use]
    pub fn peer_place(&self) -> Place {
        match &self.peer {
            Some(peer) => peer.place(),
            None => self.parameters.peer(),
        }
    }
}

impl Sa {
    /// The stage of its life at `now`, on its owner's time line. Numbers that run out count like
    /// limits: one that has none left is dead, whatever its lifetime says.
    //= T04 T57 (RFC 4303 section 3.3.3, RFC 4301 section 4.4.2.1)
    #[must_use]
    pub fn stage(&self, now: Time) -> Stage {
        let SaParameters {
            direction,
            lifetime,
            esn,
            ..
        } = &self.parameters;
        let sequence = self.published.sequence.load(Relaxed);
        let numbers = if *direction == Direction::Out && sequence >= last_number(*esn) {
            Stage::Dead
        } else if is_running_out(sequence, *esn) {
            Stage::Dying
        } else {
            Stage::Mature
        };
        numbers.max(self.published.stage(lifetime, now))
    }
}

/// Gives all SAs that stand in one bundle, or in bundles that have an SA in common, one home.
/// `bundles` names them; what names no SA of `sas` is passed over. To be called before a worker
/// sees the SAs.
pub fn share_homes<'b>(sas: &mut [&mut Sa], bundles: impl IntoIterator<Item = &'b [String]>) {
    for bundle in bundles.into_iter().filter(|bundle| bundle.len() > 1) {
        let belongs = |sa: &Sa| bundle.iter().any(|name| **name == *sa.name);
        // Theirs so far, from other bundles.
        let joined: Vec<Arc<AtomicU16>> = sas
            .iter()
            .filter(|sa| belongs(sa))
            .filter_map(|sa| sa.home.shared.clone())
            .collect();
        let home = joined.first().cloned();
        let home = home.unwrap_or_else(|| Arc::new(AtomicU16::new(NO_HOME)));
        for sa in &mut *sas {
            let shares = |shared: &Arc<_>| joined.iter().any(|it| Arc::ptr_eq(it, shared));
            if belongs(sa) || sa.home.shared.as_ref().is_some_and(shares) {
                sa.home.shared = Some(Arc::clone(&home));
            }
        }
    }
}

/// Gives the SAs whose peer is followed one [`Peer`] for each pair of ends: the `in` SAs that can
/// tell where it is, and the `out` SAs the other way. To be called before a worker sees the SAs.
//= T160 (RFC 7296 section 2.23): never with anti-replay off, since an old packet could move it
pub fn share_peers(sas: &mut [&mut Sa]) {
    let news = Arc::default();
    let mut peers: HashMap<(bool, [Place; 2]), Arc<Peer>> = HashMap::new();
    let key = |sa: &Sa| (sa.parameters.destination.is_ipv4(), sa.parameters.ends());
    let (inbound, outbound): (Vec<_>, Vec<_>) = sas
        .iter_mut()
        .filter(|sa| sa.parameters.follow_peer && sa.parameters.udp_encapsulation.is_some())
        .partition(|sa| sa.parameters.direction == Direction::In);
    for sa in inbound {
        let (version, ends @ [_, place]) = key(sa);
        if sa.parameters.replay_window > 0 {
            let new = || Arc::new(Peer::new(place, Arc::clone(&news)));
            let peer = peers.entry((version, ends)).or_insert_with(new);
            sa.peer = Some(Arc::clone(peer));
        }
    }
    for sa in outbound {
        sa.peer = peers.get(&key(sa)).cloned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::SECOND;

    //= test T62 (RFC 4301 section 8.2.2)
    //= test T128 (RFC 1191 section 3)
    #[test]
    fn a_path_mtu_is_forgotten_when_nothing_confirmed_it_for_its_age() {
        let path = PathMtu::default();
        let age = 600 * SECOND;
        assert_eq!((path.bytes(), path.learned()), (u16::MAX, None));
        assert!(!path.forget_after(age, Time(u64::MAX)));
        path.learn(1400, Time(SECOND));
        path.learn(1300, Time(300 * SECOND));
        assert!(!path.forget_after(age, Time(899 * SECOND)));
        assert_eq!(path.learned(), Some((1300, Time(300 * SECOND))));
        assert!(path.forget_after(age, Time(900 * SECOND)));
        assert_eq!((path.bytes(), path.learned()), (u16::MAX, None));
    }
}
