//! The guard's rules, policy by policy.

use std::net::IpAddr;

use ipsec::packet::{Version, address_bits};
use ipsec::policy::{
    Action, AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector, TcpMss,
};
use ipsec::sa::association::Direction;

use super::text::table;
use super::{GuardError, GuardParameters, PortSide};
use crate::port::settings::Side;

fn ranges(ranges: &[(&str, &str)]) -> AddressSelector {
    let bits = |text: &str| text.parse::<IpAddr>().map_or(0, address_bits);
    let range = |(first, last): &(&str, &str)| AddressRange {
        version: if first.contains(':') {
            Version::V6
        } else {
            Version::V4
        },
        first: bits(first),
        last: bits(last),
    };
    AddressSelector::Ranges(ranges.iter().map(range).collect())
}

fn policy(name: &str, direction: Direction, action: Action, priority: u32) -> PolicyParameters {
    PolicyParameters {
        name: name.to_owned(),
        direction,
        action,
        selector: Selector {
            local: ranges(&[("10.1.0.0", "10.1.255.255")]),
            remote: ranges(&[("10.2.0.0", "10.2.255.255")]),
            protocol: None,
            local_port: PortSelector::Any,
            remote_port: PortSelector::Any,
            icmp: None,
        },
        priority,
        tcp_mss: TcpMss::Off,
        bundles: Vec::new(),
    }
}

fn text(policies: &[PolicyParameters], discard_unmatched: bool) -> String {
    let port = |name: &str, side| PortSide {
        name: name.to_owned(),
        side,
    };
    let ports = [
        port("wan0", Side::Unprotected),
        port("lan0", Side::Protected),
    ];
    let parameters = GuardParameters {
        policies,
        ports: &ports,
        encapsulation: &[],
        discard_unmatched,
    };
    table(&parameters).unwrap_or_else(|error| error.to_string())
}

/// The rules of a chain, without the tabs.
fn chain(text: &str, name: &str) -> Vec<String> {
    let head = format!("chain {name} {{");
    let rules = text.lines().skip_while(|line| line.trim() != head).skip(1);
    rules
        .take_while(|line| *line != "\t}")
        .map(|line| line.trim().to_owned())
        .collect()
}

/// The rules of one policy: those in its direction's chain, and those in its own.
fn rules(policy: PolicyParameters) -> (Vec<String>, Vec<String>) {
    let direction = if policy.direction == Direction::In {
        "inbound"
    } else {
        "outbound"
    };
    let text = text(&[policy], false);
    let mut rules = chain(&text, direction);
    rules.remove(0);
    (rules, chain(&text, "policy-1"))
}

const PAIR_IN: &str =
    "meta nfproto ipv4 ip saddr 10.2.0.0-10.2.255.255 ip daddr 10.1.0.0-10.1.255.255 ";
const PAIR_OUT: &str =
    "meta nfproto ipv4 ip saddr 10.1.0.0-10.1.255.255 ip daddr 10.2.0.0-10.2.255.255 ";

#[test]
fn policies_stand_in_the_order_of_the_spd_behind_the_built_in_ones() {
    let policies = [
        policy("last", Direction::In, Action::Discard, 300),
        policy("second", Direction::In, Action::Protect, 100),
        policy("third", Direction::In, Action::Bypass, 100),
        policy("first", Direction::In, Action::Bypass, 50),
        policy("away", Direction::Out, Action::Protect, 1),
    ];
    let text = text(&policies, false);
    assert_eq!(
        chain(&text, "inbound"),
        [
            "jump builtin-in".to_owned(),
            format!("{PAIR_IN}accept"),
            format!("{PAIR_IN}counter drop comment \"policy:second\""),
            format!("{PAIR_IN}accept"),
            format!("{PAIR_IN}counter drop comment \"policy:last\""),
        ]
    );
    assert_eq!(
        chain(&text, "outbound"),
        [
            "jump builtin-out".to_owned(),
            format!("{PAIR_OUT}counter drop comment \"policy:away\""),
        ]
    );
}

#[test]
fn one_file_replaces_the_whole_table_and_hooks_only_unprotected_ports() {
    let text = text(&[], false);
    let start = "table inet xipsec\ndelete table inet xipsec\ntable inet xipsec {\n";
    assert!(text.starts_with(start) && text.ends_with("}\n"), "{text}");
    assert_eq!(
        chain(&text, "prerouting")[1..],
        ["iifname { \"wan0\" } jump inbound".to_owned()]
    );
    for name in ["before-snat", "after-snat"] {
        assert_eq!(
            chain(&text, name)[1..],
            ["oifname { \"wan0\" } jump outbound".to_owned()]
        );
    }
    assert!(!text.contains("lan0") && !text.contains("unmatched"));
}

#[test]
fn unmatched_discard_ends_with_a_drop_between_the_sides() {
    let text = text(&[], true);
    assert_eq!(
        chain(&text, "forward")[1..],
        [
            "iifname { \"wan0\" } jump inbound",
            "oifname { \"wan0\" } jump outbound",
            "iifname { \"wan0\" } oifname { \"lan0\" } counter drop comment \"unmatched\"",
            "iifname { \"lan0\" } oifname { \"wan0\" } counter drop comment \"unmatched\"",
        ]
    );
}

#[test]
fn ike_may_share_the_ports_of_encapsulation() {
    let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap_or(NOWHERE));
    let [four, six] = addresses;
    let parameters = GuardParameters {
        policies: &[],
        ports: &[],
        encapsulation: &[(four, 4500), (four, 10_000), (six, 7)],
        discard_unmatched: false,
    };
    let text = table(&parameters).unwrap_or_else(|error| error.to_string());
    let own = |name: &str| {
        let rules = chain(&text, name);
        let own = rules
            .into_iter()
            .filter(|rule| rule.contains("addr 192.0.2.1 ") || rule.contains("addr 2001:db8::1 "));
        own.collect::<Vec<_>>()
    };
    let four_in = "ip daddr 192.0.2.1 udp dport 10000";
    let six_in = "ip6 daddr 2001:db8::1 udp dport 7";
    let (four_out, six_out) = (
        "ip saddr 192.0.2.1 udp sport 10000",
        "ip6 saddr 2001:db8::1 udp sport 7",
    );
    for (name, own_rules, end) in [
        (
            "builtin-in",
            [four_in, six_in],
            "fib daddr type local accept",
        ),
        (
            "builtin-out",
            [four_out, six_out],
            "fib saddr type local accept",
        ),
    ] {
        let expected: Vec<String> = own_rules
            .iter()
            .flat_map(|rule| {
                let what = ["@th,64,32 0", "udp length { 8, 9 }"];
                what.map(|what| format!("{rule} {what} {end}"))
            })
            .collect();
        assert_eq!(own(name), expected);
    }
}

const NOWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

const DROP: &str = "counter drop comment \"policy:web\"";

/// The rules for later fragments, then these.
fn own(later: &str, rules: &[&str]) -> Vec<String> {
    let later =
        ["ip frag-off & 0x1fff != 0", "frag frag-off != 0"].map(|of| format!("{of} {later}"));
    later
        .into_iter()
        .chain(rules.iter().map(|&rule| rule.to_owned()))
        .collect()
}

#[test]
fn what_has_no_ports_to_see_is_dropped_by_protect_and_never_accepted_by_bypass() {
    let with_ports = |action, remote: &[(u16, u16)]| {
        let mut policy = policy("web", Direction::Out, action, 1);
        policy.selector.protocol = Some(6);
        policy.selector.remote_port = PortSelector::List {
            opaque: false,
            ranges: remote.to_vec(),
        };
        policy.selector.local_port = PortSelector::List {
            opaque: false,
            ranges: vec![(1024, 65535)],
        };
        rules(policy)
    };
    let remote = [(443, 443), (80, 80), (8000, 8010), (8005, 8080)];
    let jump = [format!("{PAIR_OUT}meta l4proto 6 jump policy-1")];
    let sport = "th sport != 1024-65535 return";
    let dport = "th dport != { 80, 443, 8000-8080 } return";
    let protect = with_ports(Action::Protect, &remote);
    assert_eq!(protect, (jump.to_vec(), own(DROP, &[sport, dport, DROP])));
    let visible = "th sport 1024-65535 th dport { 80, 443, 8000-8080 } accept";
    let bypass = with_ports(Action::Bypass, &remote);
    assert_eq!(bypass, (jump.to_vec(), own("return", &[visible])));
    assert_eq!(with_ports(Action::Bypass, &[]), (Vec::new(), Vec::new()));
}

#[test]
fn opaque_selects_what_has_no_ports_to_see() {
    let opaque = |action, ranges| {
        let mut policy = policy("web", Direction::In, action, 1);
        policy.selector.protocol = Some(17);
        policy.selector.local_port = PortSelector::List {
            opaque: true,
            ranges,
        };
        rules(policy)
    };
    let jump = [format!("{PAIR_IN}meta l4proto 17 jump policy-1")];
    let listed = opaque(Action::Bypass, vec![(53, 53)]);
    let others = "th dport != 53 return";
    assert_eq!(listed, (jump.to_vec(), own("accept", &[others, "accept"])));
    let every = "th dport 0-65535 return";
    let bypass = opaque(Action::Bypass, Vec::new());
    assert_eq!(bypass, (jump.to_vec(), own("accept", &[every, "accept"])));
    let discard = opaque(Action::Discard, Vec::new());
    assert_eq!(discard, (jump.to_vec(), own(DROP, &[every, DROP])));
}

#[test]
fn icmp_type_and_code_compare_as_one_number() {
    let mut echo = policy("echo", Direction::In, Action::Bypass, 1);
    echo.selector.protocol = Some(1);
    echo.selector.icmp = Some((0x0800, 0x08ff));
    let jump = [format!("{PAIR_IN}meta l4proto 1 jump policy-1")];
    assert_eq!(
        rules(echo),
        (jump.to_vec(), own("return", &["@th,0,16 2048-2303 accept"]))
    );
}

#[test]
fn families_sets_and_wholes() {
    let with = |local, remote| {
        let mut policy = policy("p", Direction::In, Action::Bypass, 1);
        policy.selector.local = local;
        policy.selector.remote = remote;
        rules(policy).0
    };
    let any = || AddressSelector::Any;
    let all = || ranges(&[("0.0.0.0", "255.255.255.255")]);
    assert_eq!(with(any(), any()), ["accept"]);
    assert_eq!(with(all(), any()), ["meta nfproto ipv4 accept"]);
    let overlapping = ranges(&[
        ("10.0.0.4", "10.0.0.9"),
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.5", "10.0.0.12"),
    ]);
    let wanted = "meta nfproto ipv4 ip daddr { 10.0.0.1, 10.0.0.4-10.0.0.12 } accept";
    assert_eq!(with(overlapping, all()), [wanted]);
    let v6 = || ranges(&[("2001:db8::", "2001:db8::ffff")]);
    let wanted = "meta nfproto ipv6 ip6 saddr 2001:db8::-2001:db8::ffff accept";
    assert_eq!(with(any(), v6()), [wanted]);
    assert_eq!(with(all(), v6()), [""; 0], "mixed families select nothing");
    assert_eq!(with(ranges(&[]), any()), [""; 0]);
}

#[test]
fn names_cannot_become_rules() {
    let port = PortSide {
        name: "wan*".to_owned(),
        side: Side::Unprotected,
    };
    let parameters = GuardParameters {
        policies: &[],
        ports: std::slice::from_ref(&port),
        encapsulation: &[],
        discard_unmatched: false,
    };
    assert_eq!(
        table(&parameters),
        Err(GuardError::PortName("wan*".to_owned()))
    );
    let policy = policy("a\" accept #\n}", Direction::In, Action::Discard, 1);
    let found = chain(&text(&[policy], false), "inbound");
    assert_eq!(
        found[1],
        format!("{PAIR_IN}counter drop comment \"policy:a__accept____\"")
    );
}

/// A later fragment of IPv6 may hide its protocol; who protects or discards one drops it.
#[test]
fn a_hidden_protocol_is_dropped_in_ipv6_where_one_is_named() {
    let rules = |action, protocol, six: bool| {
        let mut named = policy("p", Direction::Out, action, 10);
        named.selector.protocol = protocol;
        if six {
            named.selector.local = AddressSelector::Any;
            named.selector.remote = ranges(&[("2001:db8::", "2001:db8::ff")]);
        }
        text(&[named], false)
    };
    let hidden = "\t\tmeta nfproto ipv6 ip6 daddr 2001:db8::-2001:db8::ff frag frag-off != 0 \
                  frag nexthdr { 0, 43, 44, 60 } counter drop comment \"policy:p\"\n";
    for action in [Action::Protect, Action::Discard] {
        assert!(rules(action, Some(6), true).contains(hidden));
        assert!(!rules(action, None, true).contains("nexthdr {"));
        assert!(!rules(action, Some(6), false).contains("nexthdr {"));
    }
    assert!(!rules(Action::Bypass, Some(6), true).contains("nexthdr {"));
}
