//! A gateway without ports: tables, states and counters, and the two directions run over bursts.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrayvec::ArrayVec;
use ipsec::crypto::SealJob;
use ipsec::crypto::iv::RandomIvs;
use ipsec::crypto::suite::{Encryption, Integrity, Suite};
use ipsec::limits::{BATCH, OVERHEAD};
use ipsec::packet::parse;
use ipsec::policy::{
    Action, AddressRange, AddressSelector, Memory, PolicyParameters, Selector, TcpMss,
};
use ipsec::sa::association::{
    Direction, DontFragment, Dscp, FlowLabel, Mode, Protocol, SaParameters, share_peers,
};
use ipsec::sa::database::Sad;
use ipsec::sa::lifetime::Lifetime;
use ipsec::sa::state::{Start, States};
use ipsec::sa::{Sa, SaSlot, SaState};
use ipsec::secret::Secret;
use ipsec::tables::{Count, LocalAddresses, Tables, Unmatched};
use ipsec::time::{SECOND, Time};
use ipsec::{inbound, outbound};

use crate::packets;

pub(crate) use ipsec::inbound::Verdict as In;
pub(crate) use ipsec::outbound::Verdict as Out;

pub(crate) const A: &str = "192.0.2.1";
pub(crate) const B: &str = "192.0.2.2";
pub(crate) const A6: &str = "2001:db8::1";
pub(crate) const B6: &str = "2001:db8::2";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) const GCM: Suite = Suite {
    encryption: Encryption::AesGcm { bits: 128, icv: 16 },
    integrity: None,
};

/// Every cipher, those without integrity of their own with a MAC, and every MAC.
pub(crate) fn suites() -> Vec<Suite> {
    let ciphers = Encryption::ALL.map(|encryption| Suite {
        encryption,
        integrity: (!encryption.is_aead()).then_some(Integrity::Sha256_128),
    });
    let macs = Integrity::ALL.map(|integrity| Suite {
        encryption: Encryption::Null,
        integrity: Some(integrity),
    });
    let all = ciphers.into_iter().chain(macs);
    all.filter(|suite| suite.check(Protocol::Esp).is_ok())
        .collect()
}

fn key(length: usize, first: u8) -> Secret {
    Secret::new((first..=255).cycle().take(length).collect())
}

/// One end of an SA from [`A`] to [`B`] (or IPv6); both ends of one SPI agree on its keys.
pub(crate) fn sa(direction: Direction, spi: u32, source: &str, destination: &str) -> SaParameters {
    with_suite(
        SaParameters {
            name: format!("{spi:x}-{direction:?}"),
            direction,
            protocol: Protocol::Esp,
            mode: Mode::Tunnel,
            spi,
            source: ip(source),
            destination: ip(destination),
            suite: GCM,
            encryption_key: Secret::default(),
            integrity_key: Secret::default(),
            esn: false,
            sequence: 0,
            replay_window: 64,
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
        },
        GCM,
    )
}

pub(crate) fn with_suite(mut parameters: SaParameters, suite: Suite) -> SaParameters {
    set_suite(&mut parameters, suite);
    parameters
}

/// Gives an SA a suite and keys that follow from its SPI.
pub(crate) fn set_suite(parameters: &mut SaParameters, suite: Suite) {
    let first = parameters.spi.to_be_bytes()[3];
    let integrity = suite.integrity.map_or(0, Integrity::key_length);
    parameters.suite = suite;
    parameters.encryption_key = key(suite.encryption.key_length(), first);
    parameters.integrity_key = key(integrity, first ^ 0x55);
}

/// The addresses from `first` to `last`.
pub(crate) fn addresses(first: &str, last: &str) -> AddressSelector {
    let bits = |text| ipsec::packet::address_bits(ip(text));
    let version = if ip(first).is_ipv4() {
        ipsec::packet::Version::V4
    } else {
        ipsec::packet::Version::V6
    };
    AddressSelector::Ranges(vec![AddressRange {
        version,
        first: bits(first),
        last: bits(last),
    }])
}

/// A policy over everything that names one SA, or none.
pub(crate) fn policy(
    name: &str,
    direction: Direction,
    action: Action,
    sa: &[&str],
) -> PolicyParameters {
    let bundles = sa.iter().map(|name| vec![(*name).to_string()]).collect();
    PolicyParameters {
        name: name.into(),
        direction,
        action,
        selector: Selector::any(),
        priority: 100,
        tcp_mss: TcpMss::Off,
        bundles,
    }
}

pub(crate) struct Gateway {
    pub(crate) tables: Tables,
    pub(crate) states: States,
    pub(crate) memory: Memory,
    pub(crate) counts: Vec<Count>,
    pub(crate) wanted: ArrayVec<SaSlot, BATCH>,
    pub(crate) now: Time,
    /// The keys' work is done by other threads.
    pub(crate) apart: bool,
    between: Vec<u8>,
    ivs: RandomIvs,
}

impl Gateway {
    pub(crate) fn new(
        sas: Vec<SaParameters>,
        policies: &[PolicyParameters],
        local: &[&str],
    ) -> Self {
        let mut sas: Vec<Sa> = (0..)
            .zip(sas)
            .map(|(slot, parameters)| {
                let start = Start::after(parameters.sequence);
                let state = SaState::new(&parameters, &start, Time(0));
                let sa = Sa::new(SaSlot(slot), parameters, 0x0123_4567_89ab_cdef).unwrap();
                *sa.parked.lock().unwrap() = Some(Box::new(state));
                sa.published.reserved_end.store(u64::MAX, Relaxed);
                sa
            })
            .collect();
        share_peers(&mut sas.iter_mut().collect::<Vec<_>>());
        let sas: Vec<Arc<Sa>> = sas.into_iter().map(Arc::new).collect();
        let local: LocalAddresses = local.iter().map(|text| ip(text)).collect();
        let sad = Sad::new(&sas).unwrap();
        let tables = Tables::new(sad, policies, local, Unmatched::Discard).unwrap();
        Self {
            counts: (0..tables.policy_count())
                .map(|_| Count::default())
                .collect(),
            tables,
            states: States::new(0),
            memory: Memory::new(16, SECOND),
            wanted: ArrayVec::new(),
            now: Time(1),
            apart: false,
            between: vec![0; outbound::BUNDLE_ROOM],
            ivs: RandomIvs::seeded(&[7; 32], 0),
        }
    }

    pub(crate) fn sa(&self, name: &str) -> &Sa {
        self.tables.sad.by_name(name).unwrap()
    }

    fn outbound_context(&mut self) -> outbound::Context<'_, '_> {
        outbound::Context {
            tables: &self.tables,
            states: &mut self.states,
            memory: &mut self.memory,
            policies: &self.counts,
            wanted: &mut self.wanted,
            ivs: &mut self.ivs,
            flow_label_seed: 1,
            bundle: &mut self.between,
            worker: 0,
            now: self.now,
        }
    }

    pub(crate) fn inbound_context(&mut self) -> inbound::Context<'_, '_> {
        inbound::Context {
            tables: &self.tables,
            states: &mut self.states,
            memory: &mut self.memory,
            policies: &self.counts,
            wanted: &mut self.wanted,
            bundle: &mut self.between,
            now: self.now,
        }
    }

    /// Protects a burst of packets towards a link of `mtu` bytes.
    pub(crate) fn send(&mut self, packets: &[Vec<u8>], mtu: u16) -> Vec<(Out, Vec<u8>)> {
        self.outbound(packets, mtu, false)
    }

    pub(crate) fn outbound(
        &mut self,
        packets: &[Vec<u8>],
        mtu: u16,
        from_host: bool,
    ) -> Vec<(Out, Vec<u8>)> {
        let mut sources = packets.to_vec();
        let buffers = vec![vec![0xee; usize::from(mtu) + 1280 + OVERHEAD]; packets.len()];
        let mut items: Vec<outbound::Item<'_>> = sources
            .iter_mut()
            .map(|source| {
                let packet = parse(source).unwrap();
                outbound::Item::new(source, packet, from_host)
            })
            .collect();
        let (apart, mut context) = (self.apart, self.outbound_context());
        outbound::select(&mut items, &mut context);
        finish(items, buffers, (mtu, apart), &mut context)
    }

    /// Makes dummies for an SA.
    pub(crate) fn dummies(&mut self, name: &str, count: usize, mtu: u16) -> Vec<(Out, Vec<u8>)> {
        let buffers = vec![vec![0xee; usize::from(mtu) + OVERHEAD]; count];
        let (apart, mut context) = (self.apart, self.outbound_context());
        let sa = context.tables.sad.by_name(name).unwrap();
        let mut items: Vec<_> = (0..count).map(|_| outbound::Item::dummy(sa)).collect();
        outbound::select_dummies(&mut items, &mut context);
        finish(items, buffers, (mtu, apart), &mut context)
    }

    /// Protects one packet that must be sealed.
    pub(crate) fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let (verdict, sealed) = self.send(&[packet.to_vec()], 1500).remove(0);
        assert!(matches!(verdict, Out::Sealed(_)), "{verdict:?}");
        sealed
    }

    /// Opens a burst of packets.
    pub(crate) fn receive(&mut self, packets: &[Vec<u8>]) -> Vec<(In, Vec<u8>)> {
        let mut buffers: Vec<Vec<u8>> = packets.iter().map(|p| vec![0xee; p.len()]).collect();
        let mut items: Vec<inbound::Item<'_>> = packets
            .iter()
            .map(|source| inbound::Item::new(source, parse(source).unwrap()))
            .collect();
        let (apart, mut context) = (self.apart, self.inbound_context());
        inbound::admit(&mut items, &mut context);
        for (item, buffer) in items.iter_mut().zip(&mut buffers) {
            item.destination = Some(buffer);
        }
        if apart {
            crate::apart::open(&mut items, &mut context);
        } else {
            inbound::open(&mut items, &mut context);
        }
        let ends: Vec<_> = items
            .iter()
            .map(|item| (item.verdict, item.inner.length))
            .collect();
        ends.into_iter()
            .zip(buffers)
            .map(|((verdict, length), mut buffer)| {
                buffer.truncate(length.into());
                (verdict, buffer)
            })
            .collect()
    }

    /// The verdict on one packet from the unprotected side.
    pub(crate) fn verdict(&mut self, packet: &[u8]) -> In {
        self.receive(&[packet.to_vec()]).remove(0).0
    }

    /// Packets that the policy of that position in the file decided.
    pub(crate) fn count(&self, index: usize) -> u64 {
        self.counts[index].read().0
    }
}

/// The second and third door, with a buffer for each.
fn finish<'a>(
    mut items: Vec<outbound::Item<'a>>,
    mut buffers: Vec<Vec<u8>>,
    (mtu, apart): (u16, bool),
    context: &mut outbound::Context<'a, '_>,
) -> Vec<(Out, Vec<u8>)> {
    for item in &mut items {
        item.mtu = mtu;
    }
    outbound::fit(&mut items);
    let verdicts: Vec<Out> = {
        let mut items: Vec<outbound::Item<'_>> = items;
        for (item, buffer) in items.iter_mut().zip(&mut buffers) {
            item.destination = Some(buffer);
        }
        if apart {
            crate::apart::protect(&mut items, context);
        } else {
            outbound::protect(&mut items, context);
        }
        items.iter().map(|item| item.verdict).collect()
    };
    let ends = verdicts.into_iter().zip(buffers);
    ends.map(|(verdict, mut buffer)| {
        buffer.truncate(match verdict {
            Out::Sealed(length) => length.into(),
            _ => 0,
        });
        (verdict, buffer)
    })
    .collect()
}

/// Two gateways with one SA from A to B in tunnel mode, made alike by `change`.
pub(crate) fn pair(change: impl Fn(&mut SaParameters)) -> (Gateway, Gateway) {
    pair_of(A, B, change)
}

pub(crate) fn pair_of(
    source: &str,
    destination: &str,
    change: impl Fn(&mut SaParameters),
) -> (Gateway, Gateway) {
    let mut out = sa(Direction::Out, 0x1001, source, destination);
    let mut into = sa(Direction::In, 0x1001, source, destination);
    change(&mut out);
    change(&mut into);
    let to = policy("to", Direction::Out, Action::Protect, &["1001-Out"]);
    let from = policy("from", Direction::In, Action::Protect, &["1001-In"]);
    (
        Gateway::new(vec![out], &[to], &[A, A6]),
        Gateway::new(vec![into], &[from], &[B, B6]),
    )
}

/// True when all are different.
pub(crate) fn distinct<T: std::hash::Hash + Eq>(all: impl IntoIterator<Item = T>) -> bool {
    let mut seen = HashSet::new();
    all.into_iter().all(|one| seen.insert(one))
}

/// An authentic packet of the pair's SA with any text in it: `body`, then `trailer`, which
/// together must fill whole words.
pub(crate) fn crafted(sender: &Gateway, number: u64, body: &[u8], trailer: &[u8]) -> Vec<u8> {
    let sa = sender.sa("1001-Out");
    let (iv, icv) = (8, 16);
    let total = 20 + 8 + iv + body.len() + trailer.len() + icv;
    let mut packet = vec![0; total];
    let mut header = packets::between(A, B, total);
    header.identification = 1;
    packet[..20].copy_from_slice(&header.with(50, &vec![0; total - 20])[..20]);
    packet[20..24].copy_from_slice(&sa.parameters.spi.to_be_bytes());
    packet[24..28].copy_from_slice(&(number as u32).to_be_bytes());
    packet[28..36].copy_from_slice(&number.to_be_bytes());
    packet[36 + body.len()..total - icv].copy_from_slice(trailer);
    ipsec::crypto::seal(&mut [SealJob {
        transform: &sa.transform,
        source: body,
        destination: &mut packet[20..],
        sequence: number,
        esn: sa.parameters.esn,
    }]);
    packet
}
