//! What single messages say of links, addresses and neighbours.

use std::net::IpAddr;

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};

use crate::route::Mac;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    /// Administratively up, and with carrier.
    pub(super) up: bool,
}

/// A neighbour whose MAC address is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownNeighbor {
    pub(super) mac: Mac,
    /// Entered by hand, for ever.
    pub(super) permanent: bool,
}

/// The link in a message.
pub(super) fn link_of(message: &LinkMessage) -> Link {
    let flags = message.header.flags;
    let mut link = Link {
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => {
                link.mac = Mac::try_from(mac.as_slice()).unwrap_or_default();
            }
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    link
}

/// The machine's own address in a message, and whether it is in use.
pub(super) fn address_of(message: &AddressMessage) -> Option<(IpAddr, bool)> {
    let mut own = None;
    let mut usable = true;
    for attribute in &message.attributes {
        match attribute {
            // On point-to-point links IFA_ADDRESS is the peer's and IFA_LOCAL ours.
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => own = own.or(Some(*address)),
            AddressAttribute::Flags(flags) => usable = !flags.contains(AddressFlags::Dadfailed),
            _ => {}
        }
    }
    own.map(|own| (own, usable))
}

/// States in which the MAC address may be used: `NUD_REACHABLE`, `STALE`, `DELAY`, `PROBE`,
/// `NOARP`, `PERMANENT`.
const USABLE: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | PERMANENT;

/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;

/// A neighbour's address, and its unicast MAC address if it is known.
pub(super) fn neighbor_of(message: &NeighbourMessage) -> Option<(IpAddr, Option<KnownNeighbor>)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let state = u16::from(message.header.state);
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = Mac::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    // The lowest bit of the first byte marks groups: the kernel keeps those of multicast here too.
    let unicast = mac.filter(|mac| mac[0] & 1 == 0 && state & USABLE != 0);
    let known = unicast.map(|mac| KnownNeighbor {
        mac,
        permanent: state & PERMANENT != 0,
    });
    address.map(|address| (address, known))
}
