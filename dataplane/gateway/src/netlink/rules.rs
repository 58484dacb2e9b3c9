//! The policy rules that decide which of the machine's packets look into the host port's table.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};

use super::OURS;

/// The table, and the preference of the rule that leads into it (RFC 4301).
pub(super) const TABLE: u32 = 4301;

/// Preference of the rules that keep IKE out.
const PREFERENCE_IKE: u32 = 4298;

/// Preference of the IPv6 rules for the sources that policies name.
const PREFERENCE_SOURCES: u32 = 4299;

/// Preference of the IPv6 rules that keep all other sources out.
const PREFERENCE_OTHERS: u32 = 4300;

/// `RT_TABLE_MAIN`.
const MAIN: u32 = 254;

/// UDP ports of IKE (RFC 7296 §2).
const IKE: [u16; 2] = [500, 4500];

/// A rule as far as ours differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rule {
    preference: u32,
    v6: bool,
    source: Option<(IpAddr, u8)>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    table: u32,
}

/// The rules that lead traffic from these addresses into the table, and all else around it.
pub(super) fn rules(sources: &BTreeSet<IpAddr>) -> BTreeSet<Rule> {
    let mut rules = BTreeSet::new();
    for v6 in [false, true] {
        let mut sources = sources
            .iter()
            .filter(|source| source.is_ipv6() == v6)
            .peekable();
        if sources.peek().is_none() {
            continue;
        }
        let rule = |preference, table, source| Rule {
            preference,
            v6,
            source,
            source_port: None,
            destination_port: None,
            table,
        };
        let around = rule(PREFERENCE_IKE, MAIN, None);
        for port in IKE {
            rules.insert(Rule {
                source_port: Some(port),
                ..around
            });
            rules.insert(Rule {
                destination_port: Some(port),
                ..around
            });
        }
        if v6 {
            // The kernel looks for a route before it has a source. Such a lookup matches no rule
            // with a source, so the last rule is for it alone.
            for source in sources {
                rules.insert(rule(PREFERENCE_SOURCES, TABLE, Some((*source, 128))));
            }
            for half in [
                Ipv6Addr::UNSPECIFIED,
                Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0),
            ] {
                rules.insert(rule(PREFERENCE_OTHERS, MAIN, Some((half.into(), 1))));
            }
            rules.insert(rule(TABLE, TABLE, None));
        } else {
            // In IPv4 it has the source 0.0.0.0, which a rule can name.
            for source in sources {
                rules.insert(rule(TABLE, TABLE, Some((*source, 32))));
            }
            rules.insert(rule(TABLE, TABLE, Some((Ipv4Addr::UNSPECIFIED.into(), 32))));
        }
    }
    rules
}

/// The message for a rule.
pub(super) fn rule_message(rule: Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.v6);
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.preference));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::Other(OURS)));
    // What the machine itself sends; what it forwards is not the host port's.
    attributes.push(RuleAttribute::Iifname("lo".to_owned()));
    if let Some((address, length)) = rule.source {
        message.header.src_len = length;
        attributes.push(RuleAttribute::Source(address));
    }
    let range = |port| RulePortRange {
        start: port,
        end: port,
    };
    if rule.source_port.is_some() || rule.destination_port.is_some() {
        attributes.push(RuleAttribute::IpProtocol(IpProtocol::Udp));
    }
    if let Some(port) = rule.source_port {
        attributes.push(RuleAttribute::SourcePortRange(range(port)));
    }
    if let Some(port) = rule.destination_port {
        attributes.push(RuleAttribute::DestinationPortRange(range(port)));
    }
    message
}

/// A rule that bears our mark.
pub(super) fn rule_of(message: &RuleMessage) -> Option<Rule> {
    let mut rule = Rule {
        preference: 0,
        v6: message.header.family == AddressFamily::Inet6,
        source: None,
        source_port: None,
        destination_port: None,
        table: u32::from(message.header.table),
    };
    let mut marked = false;
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(preference) => rule.preference = *preference,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::Protocol(protocol) => marked = u8::from(*protocol) == OURS,
            RuleAttribute::Source(address) => {
                rule.source = Some((*address, message.header.src_len));
            }
            RuleAttribute::SourcePortRange(range) => rule.source_port = Some(range.start),
            RuleAttribute::DestinationPortRange(range) => rule.destination_port = Some(range.start),
            _ => {}
        }
    }
    marked.then_some(rule)
}

/// The address family.
pub(super) const fn family(v6: bool) -> AddressFamily {
    if v6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn of(sources: &[&str]) -> BTreeSet<Rule> {
        rules(
            &sources
                .iter()
                .map(|source| source.parse().unwrap())
                .collect(),
        )
    }

    #[test]
    fn rules_are_read_as_they_were_written() {
        let all = of(&["10.1.0.1", "2001:db8::1"]);
        assert!(
            all.iter()
                .all(|rule| rule_of(&rule_message(*rule)) == Some(*rule))
        );
        assert_eq!(all.len(), 2 * IKE.len() + 2 + 2 * IKE.len() + 4);
    }

    #[test]
    fn only_families_with_sources_have_rules() {
        assert!(of(&[]).is_empty());
        assert!(of(&["10.1.0.1"]).iter().all(|rule| !rule.v6));
        assert!(of(&["2001:db8::1"]).iter().all(|rule| rule.v6));
    }
}
