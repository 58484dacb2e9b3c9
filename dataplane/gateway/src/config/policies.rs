//! `[[policy]]` and its selectors (RFC 4301 §4.4.1.1).

use ipsec::limits::BUNDLE_DEPTH;
use ipsec::packet::{Version, address_bits, protocol};
use ipsec::policy::{
    Action, AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector, TcpMss,
};
use ipsec::sa::association::Direction;
use toml::de::DeValue;

use crate::config::prefix::{self, PrefixError};
use crate::config::reader::{Entry, Findings, Table};
use crate::config::report::quoted;
use crate::config::sas::DIRECTIONS;

/// What is known of a policy, mistakes or not.
pub(super) struct PolicyDraft<'d> {
    /// Name and its line.
    pub(super) name: Option<(String, usize)>,
    pub(super) direction: Option<Direction>,
    /// Every SA that it names, in any bundle.
    pub(super) sas: Vec<Entry<'d>>,
    /// Everything, if nothing required is missing.
    pub(super) parameters: Option<PolicyParameters>,
}

const ACTIONS: [(&str, Action); 3] = [
    ("protect", Action::Protect),
    ("bypass", Action::Bypass),
    ("discard", Action::Discard),
];

/// The next layers whose headers begin with two ports.
const WITH_PORTS: [(&str, u8); 5] = [
    ("tcp", protocol::TCP),
    ("udp", protocol::UDP),
    ("sctp", protocol::SCTP),
    ("dccp", protocol::DCCP),
    ("udp-lite", protocol::UDP_LITE),
];

/// The next layers whose headers begin with type and code.
const WITH_TYPES: [(&str, u8); 2] = [("icmp", protocol::ICMP), ("icmpv6", protocol::ICMPV6)];

/// Reads one `[[policy]]`.
pub(super) fn read<'d>(found: &mut Findings<'d>, mut table: Table<'d>) -> PolicyDraft<'d> {
    let name = table.require(found, "name", "1 to 64 of A-Z a-z 0-9 . _ -");
    let name = name.and_then(|entry| {
        let name = entry.name(found)?;
        if name.starts_with("builtin-") {
            entry.refuse(found, "builtin-… are the built-in policies", "another name");
        }
        Some((name.to_owned(), entry.line))
    });
    let direction = table.require(found, "direction", "in | out");
    let direction = direction.and_then(|entry| entry.choice(found, &DIRECTIONS));
    let action = table.require(found, "action", "protect | bypass | discard");
    let action = action.and_then(|entry| entry.choice(found, &ACTIONS));
    let selector = read_selector(found, &mut table);
    let accepted = "a number from 0 to 4294967295, the lower wins";
    let priority = table.require(found, "priority", accepted);
    let priority = priority.and_then(|entry| entry.number_as(found, 0..=u32::MAX, accepted));
    let tcp_mss = table.take(found, "tcp_mss");
    let tcp_mss = tcp_mss.and_then(|entry| read_tcp_mss(found, &entry));
    let (bundles, sas) = read_bundles(found, &mut table, action);
    table.finish(found);
    let parameters = name.as_ref().and_then(|(name, _)| {
        Some(PolicyParameters {
            name: name.clone(),
            direction: direction?,
            action: action?,
            selector: selector?,
            priority: priority?,
            tcp_mss: tcp_mss.unwrap_or_default(),
            bundles,
        })
    });
    PolicyDraft {
        name,
        direction,
        sas,
        parameters,
    }
}

fn read_selector<'d>(found: &mut Findings<'d>, table: &mut Table<'d>) -> Option<Selector> {
    let local = table.require(found, "local", ADDRESSES);
    let local = local.and_then(|entry| read_addresses(found, &entry));
    let remote = table.require(found, "remote", ADDRESSES).and_then(|entry| {
        let remote = read_addresses(found, &entry)?;
        if let (Some(local), Some(version)) = (local.as_ref().and_then(family), family(&remote))
            && local != version
        {
            entry.refuse(
                found,
                "not of local's family",
                "local and remote of one family",
            );
        }
        Some(remote)
    });
    let protocol = match table.take(found, "protocol") {
        Some(entry) => read_protocol(found, &entry),
        None => Some(None),
    };
    let local_port = read_ports(found, table, "local_port", protocol);
    let remote_port = read_ports(found, table, "remote_port", protocol);
    let icmp = read_icmp(found, table, protocol);
    Some(Selector {
        local: local?,
        remote: remote?,
        protocol: protocol?,
        local_port,
        remote_port,
        icmp,
    })
}

const ADDRESSES: &str = "a prefix, an address, a range \"a-b\", any, or a list of these";

fn read_addresses<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<AddressSelector> {
    let mut ranges: Vec<AddressRange> = Vec::new();
    let mut any = false;
    let mut whole = true;
    let mut mixed = false;
    for element in entry.elements(found, true, ADDRESSES)? {
        match element.text(found, ADDRESSES) {
            Some("any") => any = true,
            Some(text) => match read_range(found, &element, text) {
                Some(range) => {
                    mixed |= ranges
                        .first()
                        .is_some_and(|first| first.version != range.version);
                    ranges.push(range);
                }
                None => whole = false,
            },
            None => whole = false,
        }
    }
    if mixed {
        entry.refuse(
            found,
            "mixed families",
            "addresses of one family, or two policies",
        );
    }
    let selector = if any {
        AddressSelector::Any
    } else {
        AddressSelector::Ranges(ranges)
    };
    whole.then_some(selector)
}

fn read_range<'d>(found: &mut Findings<'d>, entry: &Entry<'d>, text: &str) -> Option<AddressRange> {
    if let Ok(address) = text.parse() {
        let bits = address_bits(address);
        return Some(AddressRange {
            version: prefix::version(address),
            first: bits,
            last: bits,
        });
    }
    if let Some((first, last)) = text.split_once('-')
        && let (Ok(first), Ok(last)) = (first.trim().parse(), last.trim().parse())
    {
        let range = AddressRange {
            version: prefix::version(first),
            first: address_bits(first),
            last: address_bits(last),
        };
        let why = if prefix::version(last) != range.version {
            "is of mixed families"
        } else if range.first > range.last {
            "is reversed"
        } else {
            return Some(range);
        };
        entry.refuse(
            found,
            format!("{} {why}", quoted(text)),
            "\"lowest-highest\"",
        );
        return None;
    }
    let why = match prefix::prefix(text) {
        Ok((address, length)) => return Some(prefix::range_of(address, length)),
        Err(PrefixError::Form) => format!("{} is no address", quoted(text)),
        Err(PrefixError::HostBits) => format!("{} has host bits set", quoted(text)),
    };
    entry.refuse(found, why, ADDRESSES);
    None
}

fn family(selector: &AddressSelector) -> Option<Version> {
    match selector {
        AddressSelector::Any => None,
        AddressSelector::Ranges(ranges) => ranges.first().map(|range| range.version),
    }
}

/// `None`: a mistake; `Some(None)`: any.
fn read_protocol<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<Option<u8>> {
    let accepted = "any | tcp | udp | sctp | dccp | udp-lite | icmp | icmpv6 | \
                    a number from 0 to 255";
    let DeValue::String(text) = entry.value.get_ref() else {
        return entry.number_as(found, 0..=u8::MAX, accepted).map(Some);
    };
    if text == "any" {
        return Some(None);
    }
    let mut known = WITH_PORTS.iter().chain(&WITH_TYPES);
    let known = known.find(|(name, _)| name == text);
    if known.is_none() {
        entry.refuse(found, format!("{} is unknown", quoted(text)), accepted);
    }
    known.map(|(_, number)| Some(*number))
}

fn has_ports(protocol: Option<u8>) -> bool {
    WITH_PORTS
        .iter()
        .any(|(_, number)| Some(*number) == protocol)
}

fn has_types(protocol: Option<u8>) -> bool {
    WITH_TYPES
        .iter()
        .any(|(_, number)| Some(*number) == protocol)
}

fn read_ports<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    key: &'static str,
    protocol: Option<Option<u8>>,
) -> PortSelector {
    let accepted = "any | opaque | a port | \"a-b\" | a list of these";
    let Some(entry) = table.take(found, key) else {
        return PortSelector::Any;
    };
    let mut any = false;
    let mut opaque = false;
    let mut ranges = Vec::new();
    for element in entry.elements(found, true, accepted).unwrap_or_default() {
        match element.value.get_ref() {
            DeValue::String(text) if text == "any" => any = true,
            DeValue::String(text) if text == "opaque" => opaque = true,
            _ => ranges.extend(read_span(found, &element, u16::MAX, accepted)),
        }
    }
    if any {
        return PortSelector::Any;
    }
    if protocol.is_some_and(|protocol| !has_ports(protocol)) {
        let accepted = "any, or protocol tcp, udp, sctp, dccp or udp-lite";
        entry.refuse(found, "the protocol has no ports", accepted);
    }
    PortSelector::List { opaque, ranges }
}

/// A number, or `"a-b"`.
fn read_span<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    largest: u16,
    accepted: &str,
) -> Option<(u16, u16)> {
    let DeValue::String(text) = entry.value.get_ref() else {
        let number = entry.number_as(found, 0..=largest, accepted)?;
        return Some((number, number));
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let bound = |digits: &str| {
        let digits = digits.trim();
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: Option<u16> = digits.parse().ok();
        number.filter(|number| plain && *number <= largest)
    };
    let why = match (bound(first), bound(last)) {
        (Some(first), Some(last)) if first <= last => return Some((first, last)),
        (Some(_), Some(_)) => "is reversed",
        _ => "is out of range",
    };
    entry.refuse(found, format!("{} {why}", quoted(text)), accepted);
    None
}

fn read_icmp<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    protocol: Option<Option<u8>>,
) -> Option<(u16, u16)> {
    let types = table.take(found, "icmp_type");
    let types = types.and_then(|entry| read_icmp_span(found, &entry, protocol));
    let codes = table.take(found, "icmp_code").and_then(|entry| {
        let codes = read_icmp_span(found, &entry, protocol)?;
        if types.is_none() && protocol.is_some_and(has_types) {
            entry.refuse(found, "a code of any type", "any, or an icmp_type as well");
        }
        Some(codes)
    });
    let (first_type, last_type) = types?;
    let (first_code, last_code) = codes.unwrap_or((0, 255));
    Some((first_type << 8 | first_code, last_type << 8 | last_code))
}

/// `None`: any, or a mistake.
fn read_icmp_span<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    protocol: Option<Option<u8>>,
) -> Option<(u16, u16)> {
    if matches!(entry.value.get_ref(), DeValue::String(text) if text == "any") {
        return None;
    }
    let accepted = "any | a number from 0 to 255 | \"a-b\"";
    let span = read_span(found, entry, 255, accepted)?;
    if protocol.is_some_and(|protocol| !has_types(protocol)) {
        let accepted = "any, or protocol icmp or icmpv6";
        entry.refuse(found, "the protocol is not ICMP", accepted);
    }
    Some(span)
}

fn read_tcp_mss<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<TcpMss> {
    let accepted = "off | auto | a number of bytes from 64 to 65535";
    Some(match entry.value.get_ref() {
        DeValue::String(text) if text == "off" => TcpMss::Off,
        DeValue::String(text) if text == "auto" => TcpMss::Auto,
        DeValue::String(text) => {
            entry.refuse(found, format!("{} is unknown", quoted(text)), accepted);
            return None;
        }
        _ => TcpMss::Bytes(entry.number_as(found, 64..=u16::MAX, accepted)?),
    })
}

/// The bundles by name, and every name where it stands.
fn read_bundles<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    action: Option<Action>,
) -> (Vec<Vec<String>>, Vec<Entry<'d>>) {
    let accepted = "a list of names of SAs, innermost first";
    let first = if action == Some(Action::Protect) {
        table.require(found, "sa", accepted)
    } else {
        table.take(found, "sa")
    };
    let further = table.take(found, "alternatives");
    let mut bundles = Vec::new();
    let mut sas = Vec::new();
    if let Some(entry) = &first {
        bundles.extend(read_bundle(found, entry, &mut sas));
    }
    if let Some(entry) = &further {
        let accepted = "a list of lists of names of SAs";
        match entry.value.get_ref() {
            DeValue::Array(values) => {
                for value in values {
                    let element = entry.element(value);
                    bundles.extend(read_bundle(found, &element, &mut sas));
                }
            }
            _ => entry.refuse(found, "wrong type", accepted),
        }
    }
    if let Some(action @ (Action::Bypass | Action::Discard)) = action {
        let word = if action == Action::Bypass {
            "bypass"
        } else {
            "discard"
        };
        for entry in [first, further].into_iter().flatten() {
            entry.refuse(
                found,
                format!("{word} uses no SA"),
                "only with action protect",
            );
        }
    }
    (bundles, sas)
}

fn read_bundle<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    sas: &mut Vec<Entry<'d>>,
) -> Option<Vec<String>> {
    let accepted = "a list of names of SAs, innermost first";
    let elements = entry.elements(found, false, accepted)?;
    if elements.len() > BUNDLE_DEPTH {
        let why = format!("a bundle of {} SAs", elements.len());
        entry.refuse(found, why, &format!("at most {BUNDLE_DEPTH}"));
    }
    let mut names = Vec::new();
    for element in elements {
        if let Some(name) = element.name(found) {
            if names.iter().any(|known| known == name) {
                element.refuse(found, format!("{} twice", quoted(name)), "each SA once");
            }
            names.push(name.to_owned());
            sas.push(element);
        }
    }
    Some(names)
}
