//! The network in which the guard is tried, and policies for it.

use std::net::IpAddr;
use std::process::Command;

use ipsec::packet::{Version, address_bits};
use ipsec::policy::{
    Action, AddressRange, AddressSelector, PolicyParameters, PortSelector, Selector, TcpMss,
};
use ipsec::sa::association::Direction;
use xipsec::netlink::{Guard, GuardParameters, PortSide};
use xipsec::port::settings::Side;

use super::world::{Namespace, join, skip};

/// Host A – gateway – host B, with the kernel forwarding between them in both families, and a
/// second inside network that is no port.
pub(super) struct Net {
    pub(super) a: Namespace,
    pub(super) gateway: Namespace,
    pub(super) b: Namespace,
    pub(super) c: Namespace,
}

pub(super) fn net() -> Net {
    let [a, gateway, b, c] = [(); 4].map(|()| Namespace::new());
    join(&gateway, "wan0", &b, "eth0");
    join(&gateway, "lan0", &a, "eth0");
    join(&gateway, "other0", &c, "eth0");
    for (interface, subnet) in [("wan0", "2"), ("lan0", "1"), ("other0", "3")] {
        gateway.ip(&format!("addr add 10.{subnet}.0.1/16 dev {interface}"));
        gateway.ip(&format!(
            "addr add 2001:db8:{subnet}::1/64 dev {interface} nodad"
        ));
    }
    for (host, subnet) in [(&a, "1"), (&b, "2"), (&c, "3")] {
        host.ip(&format!("addr add 10.{subnet}.0.2/16 dev eth0"));
        host.ip(&format!("addr add 2001:db8:{subnet}::2/64 dev eth0 nodad"));
        host.ip(&format!("route add default via 10.{subnet}.0.1"));
        host.ip(&format!("route add default via 2001:db8:{subnet}::1"));
    }
    b.ip("addr add 10.9.0.2/32 dev lo");
    gateway.ip("route add 10.9.0.0/16 via 10.2.0.2");
    gateway.sysctl("net.ipv4.ip_forward=1");
    gateway.sysctl("net.ipv6.conf.all.forwarding=1");
    Net { a, gateway, b, c }
}

pub(super) fn skip_guard(test: &str) -> bool {
    if skip(test) {
        return true;
    }
    let there = Command::new("nft").arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED {test}: needs nft (apt install nftables)");
    }
    !there
}

pub(super) fn prefix(text: &str) -> AddressSelector {
    let (address, length) = text.split_once('/').unwrap();
    let address: IpAddr = address.parse().unwrap();
    let length: u32 = length.parse().unwrap();
    let (version, bits) = match address {
        IpAddr::V4(_) => (Version::V4, 32),
        IpAddr::V6(_) => (Version::V6, 128),
    };
    let host = u128::MAX.checked_shr(128 - bits + length).unwrap_or(0);
    let first = address_bits(address);
    AddressSelector::Ranges(vec![AddressRange {
        version,
        first,
        last: first | host,
    }])
}

/// Policies and their mirror images, from lines of name, action, local, remote, priority.
pub(super) fn policies(lines: &[&str]) -> Vec<PolicyParameters> {
    let read = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let action = match words[1] {
            "protect" => Action::Protect,
            "bypass" => Action::Bypass,
            _ => Action::Discard,
        };
        both(
            words[0],
            action,
            words[2],
            words[3],
            words[4].parse().unwrap(),
        )
    };
    lines.iter().flat_map(read).collect()
}

/// The policy and its mirror image.
pub(super) fn both(
    name: &str,
    action: Action,
    local: &str,
    remote: &str,
    priority: u32,
) -> [PolicyParameters; 2] {
    [("in", Direction::In), ("out", Direction::Out)].map(|(suffix, direction)| PolicyParameters {
        name: format!("{name}-{suffix}"),
        direction,
        action,
        selector: Selector {
            local: prefix(local),
            remote: prefix(remote),
            protocol: None,
            local_port: PortSelector::Any,
            remote_port: PortSelector::Any,
            icmp: None,
        },
        priority,
        tcp_mss: TcpMss::Off,
        bundles: Vec::new(),
    })
}

pub(super) fn load(guard: &mut Guard, policies: &[PolicyParameters], discard_unmatched: bool) {
    load_with(guard, policies, &[], discard_unmatched);
}

/// The same with encapsulation at these addresses and ports.
pub(super) fn load_with(
    guard: &mut Guard,
    policies: &[PolicyParameters],
    encapsulation: &[(IpAddr, u16)],
    discard_unmatched: bool,
) {
    let port = |name: &str, side| PortSide {
        name: name.to_owned(),
        side,
    };
    let ports = [
        port("wan0", Side::Unprotected),
        port("lan0", Side::Protected),
    ];
    guard
        .load(&GuardParameters {
            policies,
            ports: &ports,
            encapsulation,
            discard_unmatched,
        })
        .unwrap();
}

pub(super) fn dropped(guard: &Guard, name: &str) -> u64 {
    let counts = guard.counts().unwrap();
    let count = counts
        .iter()
        .find(|count| count.policy.as_deref() == Some(name));
    count.map_or(0, |count| count.packets)
}

pub(super) fn ping(from: &Namespace, to: &str) -> bool {
    from.try_run(&format!("ping -n -c 1 -W 1 {to}"))
}
