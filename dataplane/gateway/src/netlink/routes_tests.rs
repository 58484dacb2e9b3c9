//! The main table from messages, without a kernel.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::HashMap;
use std::net::Ipv6Addr;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage,
    RouteNextHop, RouteNextHopFlags, RouteType,
};

use super::routes::{KernelRoutes, Outcome, Ports};
use crate::route::{Hop, PortIndex, Target};

const WAN: u32 = 3;
const LAN: u32 = 4;
const OTHER: u32 = 5;
const TUN: u32 = 9;

fn message(metric: u32, interface: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 8;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet([10, 0, 0, 0].into())),
        RouteAttribute::Priority(metric),
        RouteAttribute::Oif(interface),
    ];
    message
}

/// What the only prefix leads to.
fn target(routes: &KernelRoutes) -> Option<Target> {
    let ports = HashMap::from([(WAN, PortIndex(0)), (LAN, PortIndex(1))]);
    let view = routes.view(&Ports {
        ports: &ports,
        host_port: Some(TUN),
    });
    assert!(view.len() < 2);
    view.into_iter().next().map(|route| route.target)
}

fn via(port: u16) -> Option<Target> {
    Some(Target::Hops(vec![hop(port, 1)]))
}

const fn hop(port: u16, weight: u16) -> Hop {
    Hop {
        port: PortIndex(port),
        via: None,
        mtu: 0,
        weight,
    }
}

#[test]
fn the_lowest_metric_wins_and_the_next_one_takes_over() {
    let mut routes = KernelRoutes::default();
    assert_eq!(routes.add(NLM_F_CREATE, &message(7, LAN)), Outcome::Changed);
    assert_eq!(routes.add(NLM_F_CREATE, &message(0, WAN)), Outcome::Changed);
    assert_eq!(
        routes.add(NLM_F_CREATE, &message(0, WAN)),
        Outcome::Unchanged
    );
    assert_eq!(target(&routes), via(0));
    assert_eq!(
        routes.add(NLM_F_REPLACE, &message(0, OTHER)),
        Outcome::Changed
    );
    assert_eq!(target(&routes), Some(Target::Nowhere));
    assert_eq!(routes.remove(&message(0, OTHER)), Outcome::Changed);
    assert_eq!(target(&routes), via(1));
    assert_eq!(routes.remove(&message(7, LAN)), Outcome::Changed);
    assert_eq!(target(&routes), None);
    assert_eq!(routes.remove(&message(7, LAN)), Outcome::Unchanged);
}

#[test]
fn what_a_message_leaves_open_asks_for_the_whole_table() {
    let mut routes = KernelRoutes::default();
    routes.append(&message(0, WAN));
    assert_eq!(
        routes.add(NLM_F_APPEND, &message(0, LAN)),
        Outcome::Ambiguous
    );
    assert_eq!(
        routes.add(NLM_F_REPLACE, &message(5, LAN)),
        Outcome::Ambiguous
    );
    assert_eq!(routes.remove(&message(0, LAN)), Outcome::Ambiguous);
    assert_eq!(target(&routes), via(0));
}

#[test]
fn routes_into_the_host_port_are_not_there() {
    let mut routes = KernelRoutes::default();
    routes.append(&message(0, TUN));
    assert_eq!(target(&routes), None);
    routes.append(&message(7, LAN));
    assert_eq!(target(&routes), via(1), "the next one counts");
}

#[test]
fn of_several_paths_those_that_live_and_leave_by_ports_are_taken() {
    let mut route = message(0, WAN);
    let path = |interface, weight: u8, flags| {
        let mut path = RouteNextHop::default();
        path.interface_index = interface;
        path.hops = weight - 1;
        path.flags = flags;
        path
    };
    let alive = RouteNextHopFlags::empty();
    route
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    route.attributes.push(RouteAttribute::MultiPath(vec![
        path(WAN, 1, alive),
        path(LAN, 9, RouteNextHopFlags::Dead),
        path(OTHER, 9, alive),
        path(TUN, 9, alive),
        path(LAN, 200, alive),
    ]));
    let mut routes = KernelRoutes::default();
    routes.append(&route);
    assert_eq!(
        target(&routes),
        Some(Target::Hops(vec![hop(0, 1), hop(1, 200)]))
    );
}

#[test]
fn what_cannot_be_followed_leads_nowhere_and_is_said_once() {
    let mut encapsulated = message(0, WAN);
    encapsulated
        .attributes
        .push(RouteAttribute::EncapType(RouteLwEnCapType::Mpls));
    let mut by_nexthop = message(0, WAN);
    by_nexthop
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    by_nexthop.attributes.push(RouteAttribute::NhId(7));
    for route in [encapsulated, by_nexthop] {
        let mut routes = KernelRoutes::default();
        routes.append(&route);
        assert_eq!(target(&routes), Some(Target::Nowhere));
        assert_eq!(routes.notices().len(), 1);
        routes.append(&route);
        let mut again = KernelRoutes::default();
        again.append(&route);
        again.keep_notices_of(&routes);
        assert!(routes.notices().is_empty() && again.notices().is_empty());
    }
    for kind in [
        RouteType::BlackHole,
        RouteType::Unreachable,
        RouteType::Prohibit,
    ] {
        let mut route = message(0, WAN);
        route.header.kind = kind;
        let mut routes = KernelRoutes::default();
        routes.append(&route);
        assert_eq!(target(&routes), Some(Target::Nowhere));
    }
}

#[test]
fn other_tables_link_local_and_cached_routes_are_not_ours() {
    let mut other = message(0, WAN);
    other.attributes.push(RouteAttribute::Table(99));
    let mut cached = message(0, WAN);
    cached.header.flags = RouteFlags::Cloned;
    let mut link_local = message(0, WAN);
    link_local.header.address_family = AddressFamily::Inet6;
    let address: Ipv6Addr = "fe80::".parse().unwrap();
    link_local.attributes[0] = RouteAttribute::Destination(RouteAddress::Inet6(address));
    let mut service = message(0, WAN);
    service.header.tos = 8;
    let mut routes = KernelRoutes::default();
    for route in [other, cached, link_local, service] {
        routes.append(&route);
        assert_eq!(target(&routes), None);
    }
    assert_eq!(routes.notices().len(), 1);
}
