//! `[[sa]]`.

use std::net::IpAddr;

use ipsec::crypto::suite::{Encryption, Integrity, Protocol, Suite};
use ipsec::limits::{REPLAY_WINDOW_MAXIMUM, REPLAY_WINDOW_MINIMUM, SPI_MINIMUM};
use ipsec::sa::SaParameters;
use ipsec::sa::association::{Direction, DontFragment, Dscp, FlowLabel, Mode, UdpEncapsulation};
use ipsec::sa::lifetime::Lifetime;
use ipsec::secret::Secret;
use toml::de::DeValue;

use crate::config::algorithms;
use crate::config::reader::{Entry, Findings, LARGEST, Table};
use crate::config::report::quoted;
use crate::config::secrets::Key;

/// The UDP port of encapsulated ESP (RFC 3948 §2.1).
const ENCAPSULATION_PORT: u16 = 4500;

/// IKE's own port, where ESP has no marker to be told apart by (RFC 3948 §2.2).
const IKE_PORT: u16 = 500;

/// Words for a direction.
pub(super) const DIRECTIONS: [(&str, Direction); 2] =
    [("in", Direction::In), ("out", Direction::Out)];

/// What is known of an SA, mistakes or not.
pub(super) struct SaDraft {
    pub(super) line: usize,
    /// Name and its line.
    pub(super) name: Option<(String, usize)>,
    pub(super) direction: Option<Direction>,
    pub(super) protocol: Option<Protocol>,
    /// SPI and its line.
    pub(super) spi: Option<(u32, usize)>,
    pub(super) destination: Option<IpAddr>,
    pub(super) encryption: Option<Encryption>,
    pub(super) integrity: Option<Integrity>,
    pub(super) encryption_key: Option<Key>,
    pub(super) integrity_key: Option<Key>,
    /// Everything but the keys, if nothing required is missing.
    parameters: Option<SaParameters>,
}

impl SaDraft {
    /// The whole SA, of a file without mistakes.
    pub(super) fn finish(self) -> Option<SaParameters> {
        let bytes = |key: Option<Key>| key.map_or_else(Secret::default, |key| key.bytes);
        Some(SaParameters {
            encryption_key: bytes(self.encryption_key),
            integrity_key: bytes(self.integrity_key),
            ..self.parameters?
        })
    }

    /// Loses its security when an IV repeats.
    pub(super) fn is_counter_mode(&self) -> bool {
        self.encryption.is_some_and(Encryption::is_counter_mode)
            || self.integrity.is_some_and(Integrity::is_counter_mode)
    }
}

/// Who the SA is: what every later check compares.
struct Identity {
    name: Option<(String, usize)>,
    direction: Option<Direction>,
    protocol: Option<Protocol>,
    mode: Option<Mode>,
    spi: Option<(u32, usize)>,
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
}

/// Reads one `[[sa]]`.
pub(super) fn read<'d>(
    found: &mut Findings<'d>,
    mut table: Table<'d>,
    allow_legacy: bool,
) -> SaDraft {
    let line = table.line;
    let identity = read_identity(found, &mut table);
    let algorithms = algorithms::read(found, &mut table, identity.protocol, allow_legacy);
    let sequences = read_sequences(found, &mut table, identity.direction);
    let nat = read_nat(found, &mut table, identity.protocol);
    let outer = read_outer(found, &mut table, identity.mode);
    let lifetime = table.table(found, "lifetime");
    let lifetime = lifetime.map(|table| read_lifetime(found, table));
    table.finish(found);
    let suite = algorithms.suite(identity.protocol);
    SaDraft {
        line,
        direction: identity.direction,
        protocol: identity.protocol,
        spi: identity.spi,
        destination: identity.destination,
        encryption: algorithms.encryption,
        integrity: algorithms.integrity,
        encryption_key: algorithms.encryption_key,
        integrity_key: algorithms.integrity_key,
        parameters: parameters(&identity, suite, sequences, nat, outer, lifetime),
        name: identity.name,
    }
}

fn parameters(
    identity: &Identity,
    suite: Option<Suite>,
    sequences: Sequences,
    nat: Nat,
    outer: Outer,
    lifetime: Option<Lifetime>,
) -> Option<SaParameters> {
    Some(SaParameters {
        name: identity.name.as_ref()?.0.clone(),
        direction: identity.direction?,
        protocol: identity.protocol?,
        mode: identity.mode?,
        spi: identity.spi?.0,
        source: identity.source?,
        destination: identity.destination?,
        suite: suite?,
        encryption_key: Secret::default(),
        integrity_key: Secret::default(),
        esn: sequences.esn,
        sequence: sequences.sequence,
        replay_window: sequences.replay_window,
        udp_encapsulation: nat.udp_encapsulation,
        keepalive_seconds: nat.keepalive_seconds,
        follow_peer: nat.follow_peer,
        lifetime: lifetime.unwrap_or_default(),
        dont_fragment: outer.dont_fragment,
        dscp: outer.dscp,
        ecn: outer.ecn,
        hop_limit: outer.hop_limit,
        flow_label: outer.flow_label,
        tfc_pad_to: outer.tfc_pad_to,
        per_worker: outer.per_worker,
    })
}

fn read_identity<'d>(found: &mut Findings<'d>, table: &mut Table<'d>) -> Identity {
    let name = table.require(found, "name", "1 to 64 of A-Z a-z 0-9 . _ -");
    let name = name.and_then(|entry| Some((entry.name(found)?.to_owned(), entry.line)));
    let direction = table.require(found, "direction", "in | out");
    let direction = direction.and_then(|entry| entry.choice(found, &DIRECTIONS));
    let protocol = table
        .require(found, "protocol", "esp | ah")
        .and_then(|entry| entry.choice(found, &[("esp", Protocol::Esp), ("ah", Protocol::Ah)]));
    let mode = table
        .require(found, "mode", "tunnel | transport")
        .and_then(|entry| {
            let choices = [("tunnel", Mode::Tunnel), ("transport", Mode::Transport)];
            entry.choice(found, &choices)
        });
    let accepted = "a number from 256 to 4294967295";
    let spi = table.require(found, "spi", accepted).and_then(|entry| {
        let spi = entry.number_as(found, 0..=u32::MAX, accepted)?;
        //= T02 (RFC 4303 section 2.1)
        if spi < SPI_MINIMUM {
            entry.refuse(found, format!("{spi} is reserved"), accepted);
            return None;
        }
        Some((spi, entry.line))
    });
    let source = table.require(found, "source", ADDRESS);
    let source = source.and_then(|entry| read_endpoint(found, &entry));
    let destination = table.require(found, "destination", ADDRESS);
    let destination = destination.and_then(|entry| {
        let destination = read_endpoint(found, &entry)?;
        if source.is_some_and(|source| source.is_ipv4() != destination.is_ipv4()) {
            let accepted = "source and destination of one family";
            entry.refuse(found, "not of the source's family", accepted);
        }
        Some(destination)
    });
    Identity {
        name,
        direction,
        protocol,
        mode,
        spi,
        source,
        destination,
    }
}

const ADDRESS: &str = "an IPv4 or IPv6 address";

//= exception T37: binds who offers multicast SAs; here an endpoint that is multicast is refused by
//= name, so no SA has several senders
fn read_endpoint<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<IpAddr> {
    let address = entry.address(found, ADDRESS)?;
    if address.is_multicast() {
        found.not_built(entry.line, &entry.key, "a unicast address");
    }
    Some(address)
}

struct Sequences {
    esn: bool,
    sequence: u64,
    replay_window: u32,
}

fn read_sequences<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    direction: Option<Direction>,
) -> Sequences {
    let esn = table.take(found, "esn");
    let esn_given = esn.map_or(Some(false), |entry| entry.boolean(found));
    let esn = esn_given == Some(true);
    let mut sequence = 0;
    if let Some(entry) = table.take(found, "sequence")
        && let Some(number) = entry.number(found, 0..=LARGEST)
    {
        // A mistaken `esn` says nothing about the length of the numbers.
        if esn_given == Some(false) && number > u64::from(u32::MAX) {
            let accepted = "at most 4294967295, or esn = true";
            entry.refuse(found, "above 2^32-1 without esn", accepted);
        }
        sequence = number;
    }
    let mut replay_window = 64;
    if let Some(entry) = table.take(found, "replay_window") {
        let accepted = "0 for none, or 32 to 1048576 packets";
        if let Some(packets) = entry.number_as(found, 0..=REPLAY_WINDOW_MAXIMUM, accepted) {
            replay_window = packets;
            if packets > 0 && packets < REPLAY_WINDOW_MINIMUM {
                entry.refuse(found, format!("{packets} is out of range"), accepted);
            }
            if packets == 0 && direction == Some(Direction::In) {
                if esn {
                    let accepted = "32 to 1048576 packets with esn";
                    //= T85 (RFC 4303 section 3.3.3)
                    entry.refuse(found, "esn needs a window", accepted);
                } else {
                    let why = "anti-replay is off: whoever records a packet can send it again";
                    found.warning(entry.line, &entry.key, why);
                }
            }
        }
    }
    Sequences {
        esn,
        sequence,
        replay_window,
    }
}

struct Nat {
    udp_encapsulation: Option<UdpEncapsulation>,
    keepalive_seconds: u32,
    follow_peer: bool,
}

fn read_nat<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    protocol: Option<Protocol>,
) -> Nat {
    let encapsulated = table.take(found, "udp_encapsulation");
    if let Some(entry) = &encapsulated
        && protocol == Some(Protocol::Ah)
    {
        entry.refuse(found, "not with ah", "protocol esp");
    }
    let udp_encapsulation = encapsulated.as_ref().and_then(|entry| entry.table(found));
    let udp_encapsulation = udp_encapsulation.map(|ports| read_encapsulation(found, ports));
    // RFC 3948 §4 wants 20 seconds where IKE has found a NAT (RFC 3947). The file speaks in its
    // stead, and what it does not say is that there is one.
    let mut keepalive_seconds = 0;
    if let Some(entry) = table.take(found, "keepalive_seconds") {
        keepalive_seconds = entry.number(found, 0..=u32::MAX).unwrap_or(0);
        if keepalive_seconds > 0 && encapsulated.is_none() {
            entry.refuse(
                found,
                "without udp_encapsulation",
                "0, or udp_encapsulation",
            );
        }
    }
    let follow_peer = table.take(found, "follow_peer");
    Nat {
        udp_encapsulation,
        keepalive_seconds,
        follow_peer: follow_peer
            .and_then(|entry| entry.boolean(found))
            .unwrap_or(true),
    }
}

fn read_encapsulation<'d>(found: &mut Findings<'d>, mut ports: Table<'d>) -> UdpEncapsulation {
    let accepted = "a port from 1 to 65535 other than 500";
    let mut udp = UdpEncapsulation {
        source_port: ENCAPSULATION_PORT,
        destination_port: ENCAPSULATION_PORT,
    };
    for (key, port) in [
        ("source_port", &mut udp.source_port),
        ("destination_port", &mut udp.destination_port),
    ] {
        if let Some(entry) = ports.take(found, key)
            && let Some(number) = entry.number_as(found, 1..=u16::MAX, accepted)
        {
            if number == IKE_PORT {
                //= T159 (RFC 7296 section 2.23)
                entry.refuse(found, "port 500 is IKE's own", accepted);
            }
            *port = number;
        }
    }
    ports.finish(found);
    udp
}

struct Outer {
    dont_fragment: DontFragment,
    dscp: Dscp,
    ecn: bool,
    hop_limit: u8,
    flow_label: FlowLabel,
    tfc_pad_to: u16,
    per_worker: bool,
}

fn read_outer<'d>(found: &mut Findings<'d>, table: &mut Table<'d>, mode: Option<Mode>) -> Outer {
    let dont_fragment = table.take(found, "dont_fragment").and_then(|entry| {
        let choices = [
            ("copy", DontFragment::Copy),
            ("set", DontFragment::Set),
            ("clear", DontFragment::Clear),
        ];
        entry.choice(found, &choices)
    });
    let dscp = table
        .take(found, "dscp")
        .and_then(|entry| read_dscp(found, &entry));
    let ecn = table
        .take(found, "ecn")
        .and_then(|entry| entry.boolean(found));
    let hop_limit = table.take(found, "hop_limit");
    let hop_limit = hop_limit.and_then(|entry| entry.number(found, 1..=u8::MAX));
    let flow_label = table.take(found, "flow_label");
    let flow_label = flow_label.and_then(|entry| read_flow_label(found, &entry));
    let tfc_pad_to = table.take(found, "tfc_pad_to").and_then(|entry| {
        let bytes = entry.number(found, 0..=u16::MAX)?;
        if bytes > 0 && mode == Some(Mode::Transport) {
            entry.refuse(found, "not in transport mode", "0, or mode tunnel");
        }
        Some(bytes)
    });
    let per_worker = table.take(found, "per_worker");
    let per_worker = per_worker.and_then(|entry| entry.boolean(found));
    Outer {
        dont_fragment: dont_fragment.unwrap_or_default(),
        dscp: dscp.unwrap_or_default(),
        ecn: ecn.unwrap_or(true),
        hop_limit: hop_limit.unwrap_or(64),
        flow_label: flow_label.unwrap_or_default(),
        tfc_pad_to: tfc_pad_to.unwrap_or(0),
        per_worker: per_worker.unwrap_or_default(),
    }
}

fn read_dscp<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<Dscp> {
    let accepted = "copy | a number from 0 to 63";
    if let DeValue::String(text) = entry.value.get_ref() {
        if text == "copy" {
            return Some(Dscp::Copy);
        }
        entry.refuse(found, format!("{} is unknown", quoted(text)), accepted);
        return None;
    }
    entry.number_as(found, 0..=63_u8, accepted).map(Dscp::Fixed)
}

fn read_flow_label<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<FlowLabel> {
    let accepted = "hash | 0";
    if let DeValue::String(text) = entry.value.get_ref() {
        if text == "hash" {
            return Some(FlowLabel::Hash);
        }
        entry.refuse(found, format!("{} is unknown", quoted(text)), accepted);
        return None;
    }
    entry
        .number_as(found, 0..=0_u8, accepted)
        .map(|_| FlowLabel::Zero)
}

fn read_lifetime<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> Lifetime {
    let mut lifetime = Lifetime::default();
    for (key, limit) in [
        ("soft_packets", &mut lifetime.soft_packets),
        ("hard_packets", &mut lifetime.hard_packets),
        ("soft_bytes", &mut lifetime.soft_bytes),
        ("hard_bytes", &mut lifetime.hard_bytes),
        ("soft_seconds", &mut lifetime.soft_seconds),
        ("hard_seconds", &mut lifetime.hard_seconds),
    ] {
        if let Some(entry) = table.take(found, key) {
            *limit = entry.number(found, 0..=LARGEST).unwrap_or(0);
        }
    }
    table.finish(found);
    lifetime
}
