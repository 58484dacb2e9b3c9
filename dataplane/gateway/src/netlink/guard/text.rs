//! The guard's rules as `nft` reads them. Pure: policies in, text out.
//!
//! Closed means: what cannot be told counts as protected. A later fragment and a header cut short
//! have no ports to see, so a protect or discard policy with ports drops the one and leaves
//! (`return`) only for what can be seen *not* to match. A bypass policy accepts only what can be
//! seen to match. A later fragment of IPv6 that names an extension header hides its protocol as
//! well, so a protect or discard policy with a protocol drops it. Later fragments are told by their
//! offset, in so many words: kernels differ in whether they take a fragment's payload for a header
//! [6.18 does].

use std::fmt::Write;
use std::net::IpAddr;

use ipsec::packet::{Version, address, protocol};
use ipsec::policy::{
    Action, AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector,
};
use ipsec::sa::association::Direction;

use super::{GuardError, GuardParameters};
use crate::port::settings::Side;

/// What stands before a policy's name in the comment of its rules.
pub(super) const POLICY: &str = "policy:";

/// Removes the table, also if there is none.
pub(super) const REMOVE: &str = "table inet xipsec\ndelete table inet xipsec\n";

/// The built-in bypass entries, first in every SPD; with ESP, AH and IKE they are what lets two
/// gateways find each other and talk. To or from the machine itself where forwarding makes sense.
/// Inbound IKE is told by its destination port alone: anybody can send from port 500. A later
/// fragment of UDP to the machine passes because it means nothing without the first, which shows
/// its ports. A relay's DHCP is somebody else's traffic unless it stays on the link.
const BUILTIN_IN: &str = "\
	chain builtin-in {
		meta l4proto { esp, ah } fib daddr type local accept
		ip6 nexthdr ah fib daddr type local accept
		udp dport { 500, 4500 } fib daddr type local accept
		meta l4proto udp ip frag-off & 0x1fff != 0 fib daddr type local accept
		meta l4proto udp frag frag-off != 0 fib daddr type local accept
		udp sport . udp dport { 67 . 68, 68 . 67, 546 . 547, 547 . 546 } fib daddr type local accept
		ip saddr 169.254.0.0/16 fib daddr type local accept
";

/// The same for what leaves.
const BUILTIN_OUT: &str = "\
	chain builtin-out {
		meta l4proto { esp, ah } fib saddr type local accept
		ip6 nexthdr ah fib saddr type local accept
		udp sport { 500, 4500 } fib saddr type local accept
		udp dport { 500, 4500 } fib saddr type local accept
		udp sport . udp dport { 67 . 68, 68 . 67, 546 . 547, 547 . 546 } fib saddr type local accept
		ip saddr 169.254.0.0/16 fib saddr type local accept
";

/// What stays on the link, whoever's it is: the end of both.
const ON_LINK: &str = "\
		ip saddr 0.0.0.0 udp sport . udp dport { 67 . 67, 67 . 68, 68 . 67 } accept
		ip6 saddr :: udp sport . udp dport { 546 . 547, 547 . 546, 547 . 547 } accept
		icmpv6 type 133-137 ip6 hoplimit 255 accept
		ip daddr { 169.254.0.0/16, 224.0.0.0/4, 255.255.255.255 } accept
		ip6 daddr { fe80::/10, ff00::/8 } accept
		ip6 saddr fe80::/10 accept
	}
";

/// The file that replaces the table, whether there is one or not.
pub(super) fn table(parameters: &GuardParameters<'_>) -> Result<String, GuardError> {
    let unprotected = names(parameters, Side::Unprotected)?;
    let protected = names(parameters, Side::Protected)?;
    let [ike_in, ike_out] = ike(parameters.encapsulation);
    let mut text = format!(
        "{REMOVE}table inet xipsec {{\n{BUILTIN_IN}{ike_in}{ON_LINK}{BUILTIN_OUT}{ike_out}{ON_LINK}"
    );
    let mut policies: Vec<&PolicyParameters> = parameters.policies.iter().collect();
    policies.sort_by_key(|policy| policy.priority);
    let mut chains = 0;
    for (chain, direction) in [("in", Direction::In), ("out", Direction::Out)] {
        let mut rules = format!("\t\tjump builtin-{chain}\n");
        for policy in policies
            .iter()
            .filter(|policy| policy.direction == direction)
        {
            chains += 1;
            write_policy(policy, &format!("policy-{chains}"), &mut text, &mut rules);
        }
        push(
            &mut text,
            format_args!("\tchain {chain}bound {{\n{rules}\t}}\n"),
        );
    }
    if !unprotected.is_empty() {
        write_hooks(
            &unprotected,
            &protected,
            parameters.discard_unmatched,
            &mut text,
        );
    }
    text.push_str("}\n");
    Ok(text)
}

/// IKE at encapsulation ports other than its own (RFC 3948 section 2.2), into the machine and
/// out of it: by the marker of four zero bytes. No more than one byte is for the machine too.
fn ike(encapsulation: &[(IpAddr, u16)]) -> [String; 2] {
    let mut rules = [String::new(), String::new()];
    let [inbound, outbound] = &mut rules;
    for (address, port) in encapsulation.iter().filter(|(_, port)| *port != 4500) {
        let family = if address.is_ipv4() { "ip" } else { "ip6" };
        let to = format!("{family} daddr {address} udp dport {port}");
        let from = format!("{family} saddr {address} udp sport {port}");
        for matched in ["@th,64,32 0", "udp length { 8, 9 }"] {
            push(
                inbound,
                format_args!("\t\t{to} {matched} fib daddr type local accept\n"),
            );
            push(
                outbound,
                format_args!("\t\t{from} {matched} fib saddr type local accept\n"),
            );
        }
    }
    rules
}

/// Where the kernel asks. Addresses are judged as they are on the wire, before destination NAT
/// and after source NAT, and as the machine's own hosts use them, on the other side of either:
/// masquerading must not turn a protected packet into one that no policy knows.
fn write_hooks(unprotected: &str, protected: &str, discard_unmatched: bool, text: &mut String) {
    let hook = |name: &str, priority: &str| {
        format!("\t\ttype filter hook {name} priority {priority}; policy accept;\n")
    };
    let (pre, forward) = (hook("prerouting", "raw"), hook("forward", "filter"));
    push(text, format_args!("\tchain prerouting {{\n{pre}"));
    push(
        text,
        format_args!("\t\tiifname {unprotected} jump inbound\n\t}}\n"),
    );
    push(text, format_args!("\tchain forward {{\n{forward}"));
    push(
        text,
        format_args!("\t\tiifname {unprotected} jump inbound\n"),
    );
    if discard_unmatched && !protected.is_empty() {
        push(
            text,
            format_args!("\t\toifname {unprotected} jump outbound\n"),
        );
        let drop = "counter drop comment \"unmatched\"";
        push(
            text,
            format_args!("\t\tiifname {unprotected} oifname {protected} {drop}\n"),
        );
        push(
            text,
            format_args!("\t\tiifname {protected} oifname {unprotected} {drop}\n"),
        );
    }
    text.push_str("\t}\n");
    for (name, priority) in [
        ("before-snat", "srcnat - 10"),
        ("after-snat", "srcnat + 10"),
    ] {
        let hook = hook("postrouting", priority);
        push(text, format_args!("\tchain {name} {{\n{hook}"));
        push(
            text,
            format_args!("\t\toifname {unprotected} jump outbound\n\t}}\n"),
        );
    }
}

/// A policy's rules for its direction's chain, and its own chain if it needs one.
fn write_policy(policy: &PolicyParameters, chain: &str, text: &mut String, rules: &mut String) {
    let selector = &policy.selector;
    let (source, destination) = match policy.direction {
        Direction::In => (&selector.remote, &selector.local),
        Direction::Out => (&selector.local, &selector.remote),
    };
    let Some(packets) = packets(source, destination, selector.protocol) else {
        return; // Mixed families select nothing.
    };
    let refused = format!("counter drop comment \"{POLICY}{}\"", plain(&policy.name));
    let layer = UpperLayer::new(selector, policy.direction);
    let bypass = policy.action == Action::Bypass;
    if !bypass
        && selector.protocol.is_some()
        && let Some(nameless) = nameless(source, destination)
    {
        push(rules, format_args!("\t\t{nameless}{refused}\n"));
    }
    if layer.fields.is_empty() {
        let verdict = if bypass { "accept" } else { &refused };
        push(rules, format_args!("\t\t{packets}{verdict}\n"));
        return;
    }
    let verdict = if bypass { "accept" } else { &refused };
    if let Some(own) = layer.rules(bypass, verdict) {
        push(text, format_args!("\tchain {chain} {{\n{own}\t}}\n"));
        push(rules, format_args!("\t\t{packets}jump {chain}\n"));
    }
}

/// What a selector asks of the next layer's header.
struct UpperLayer {
    /// The field as `nft` names it, and the wanted ranges; no range: only what cannot be seen.
    fields: Vec<(&'static str, Vec<(u16, u16)>)>,
    /// Whether a packet whose header cannot be seen is selected.
    opaque: bool,
}

impl UpperLayer {
    fn new(selector: &Selector, direction: Direction) -> Self {
        let (source, destination) = match direction {
            Direction::In => (&selector.remote_port, &selector.local_port),
            Direction::Out => (&selector.local_port, &selector.remote_port),
        };
        let mut layer = Self {
            fields: Vec::new(),
            opaque: true,
        };
        for (field, ports) in [("th sport", source), ("th dport", destination)] {
            if let PortSelector::List { opaque, ranges } = ports {
                layer.fields.push((field, merged(ranges)));
                layer.opaque &= opaque;
            }
        }
        if let Some(range) = selector.icmp {
            // Type and code, the first two bytes.
            layer.fields.push(("@th,0,16", vec![range]));
            layer.opaque = false;
        }
        layer
    }

    /// The rules of the policy's own chain, for packets of its addresses and protocol; `None`: it
    /// selects none of them.
    fn rules(&self, bypass: bool, verdict: &str) -> Option<String> {
        let visible_only = bypass && !self.opaque;
        let later = if visible_only { "return" } else { verdict };
        let mut rules =
            format!("\t\tip frag-off & 0x1fff != 0 {later}\n\t\tfrag frag-off != 0 {later}\n");
        if visible_only {
            rules.push_str("\t\t");
            for (field, ranges) in &self.fields {
                let wanted = ports(ranges)?;
                push(&mut rules, format_args!("{field} {wanted} "));
            }
        } else {
            for (field, ranges) in &self.fields {
                match ports(ranges) {
                    Some(others) => {
                        push(&mut rules, format_args!("\t\t{field} != {others} return\n"));
                    }
                    None => push(&mut rules, format_args!("\t\t{field} 0-65535 return\n")),
                }
            }
            rules.push_str("\t\t");
        }
        push(&mut rules, format_args!("{verdict}\n"));
        Some(rules)
    }
}

/// Matches later fragments of IPv6 between these that name an extension header; `None`: IPv4.
fn nameless(source: &AddressSelector, destination: &AddressSelector) -> Option<String> {
    const EXTENSIONS: [u8; 4] = [
        protocol::HOP_BY_HOP,
        protocol::ROUTING,
        protocol::FRAGMENT,
        protocol::DESTINATION_OPTIONS,
    ];
    if [source, destination]
        .map(version)
        .contains(&Some(Some(Version::V4)))
    {
        return None;
    }
    let between = packets(source, destination, None)?;
    let named = set(EXTENSIONS.iter().map(u8::to_string))?;
    Some(format!("{between}frag frag-off != 0 frag nexthdr {named} "))
}

/// Matches addresses and protocol; ends with a space unless empty. `None`: nothing can match.
fn packets(
    source: &AddressSelector,
    destination: &AddressSelector,
    number: Option<u8>,
) -> Option<String> {
    let version = match (version(source)?, version(destination)?) {
        (Some(one), Some(other)) if one != other => return None,
        (one, other) => one.or(other),
    };
    let mut matches = match version {
        None => String::new(),
        Some(Version::V4) => "meta nfproto ipv4 ".to_owned(),
        Some(Version::V6) => "meta nfproto ipv6 ".to_owned(),
    };
    for (field, selector) in [("saddr", source), ("daddr", destination)] {
        if let Some((family, ranges)) = ranges(selector) {
            push(&mut matches, format_args!("{family} {field} {ranges} "));
        }
    }
    if let Some(number) = number {
        // In IPv6 the kernel looks for the upper layer behind AH too; for us AH is the protocol.
        let field = match (version, number) {
            (Some(Version::V6), protocol::AH) => "ip6 nexthdr",
            _ => "meta l4proto",
        };
        push(&mut matches, format_args!("{field} {number} "));
    }
    Some(matches)
}

/// The family that a selector is bound to, if it is; `None`: an empty list, which selects nothing.
fn version(selector: &AddressSelector) -> Option<Option<Version>> {
    match selector {
        AddressSelector::Any => Some(None),
        AddressSelector::Ranges(ranges) => ranges.first().map(|range| Some(range.version)),
    }
}

/// A selector's ranges as a set; `None`: any address of the family.
fn ranges(selector: &AddressSelector) -> Option<(&'static str, String)> {
    let AddressSelector::Ranges(ranges) = selector else {
        return None;
    };
    let version = ranges.first()?.version;
    let mut sorted: Vec<&AddressRange> = ranges.iter().collect();
    sorted.sort_by_key(|range| range.first);
    // Sets refuse elements that overlap.
    let mut merged: Vec<(u128, u128)> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some((_, last)) if range.first <= last.saturating_add(1) => {
                *last = range.last.max(*last);
            }
            _ => merged.push((range.first, range.last)),
        }
    }
    let (family, all) = match version {
        Version::V4 => ("ip", (0xffff_0000_0000, 0xffff_ffff_ffff)),
        Version::V6 => ("ip6", (0, u128::MAX)),
    };
    if merged.first() == Some(&all) {
        return None;
    }
    let text = |(first, last): &(u128, u128)| match (address(version, *first), first == last) {
        (first, true) => first.to_string(),
        (first, false) => format!("{first}-{}", address(version, *last)),
    };
    set(merged.iter().map(text)).map(|set| (family, set))
}

/// Ranges of ports, sorted, without overlaps.
fn merged(ranges: &[(u16, u16)]) -> Vec<(u16, u16)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// Ranges of ports as a set; `None`: there are none.
fn ports(ranges: &[(u16, u16)]) -> Option<String> {
    let text = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    set(ranges.iter().map(text))
}

/// One element, or several in braces.
fn set(elements: impl Iterator<Item = String>) -> Option<String> {
    let elements: Vec<String> = elements.collect();
    match elements.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("{{ {} }}", several.join(", "))),
    }
}

/// The names of one side's ports as a set; empty if there are none.
fn names(parameters: &GuardParameters<'_>, side: Side) -> Result<String, GuardError> {
    let mut names = Vec::new();
    for port in parameters.ports.iter().filter(|port| port.side == side) {
        // A star at the end would be a pattern, and quotes know no escapes.
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"*\\".contains(&byte);
        if port.name.is_empty() || !port.name.bytes().all(allowed) {
            return Err(GuardError::PortName(port.name.clone()));
        }
        names.push(format!("\"{}\"", port.name));
    }
    Ok(match names.as_slice() {
        [] => String::new(),
        names => format!("{{ {} }}", names.join(", ")),
    })
}

/// A name as it may stand in a comment; configuration allows no others anyway.
fn plain(name: &str) -> String {
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let letters = name.chars().take(64);
    letters
        .map(|letter| if allowed(letter) { letter } else { '_' })
        .collect()
}

/// Writing to a string cannot fail.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).unwrap_or_default();
}
