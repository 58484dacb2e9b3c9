//! Who holds an interface's XDP hook: asked for when the kernel says that it is taken.

use std::fmt;
use std::io;

use aya::programs::loaded_programs;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage, LinkXdp};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::netdevice::name_to_index;

/// A loaded program as `bpftool prog` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupant {
    /// The kernel's number.
    pub id: u32,
    /// Up to 15 bytes; empty if it has none or may not be seen.
    pub name: String,
}

impl fmt::Display for Occupant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(formatter, "program {}", self.id),
            name => write!(formatter, "program {} ({name})", self.id),
        }
    }
}

/// The program on the hook of an interface, if the kernel tells.
pub(super) fn occupant(interface: &str) -> Option<Occupant> {
    let id = attached_program(interface).ok()??;
    let name = loaded_programs()
        .flatten()
        .find(|program| program.id() == id)
        .and_then(|program| program.name_as_str().map(str::to_owned))
        .unwrap_or_default();
    Some(Occupant { id, name })
}

/// `IFLA_XDP_PROG_ID` of one RTM_GETLINK.
fn attached_program(interface: &str) -> io::Result<Option<u32>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut link = LinkMessage::default();
    link.header.index = name_to_index(&socket, interface)?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetLink(link));
    let mut request = NetlinkMessage::new(header, payload);
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = answer.payload else {
        return Ok(None);
    };
    let attributes = link
        .attributes
        .into_iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Xdp(attributes) => Some(attributes),
            _ => None,
        });
    Ok(attributes
        .into_iter()
        .flatten()
        .find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) if id != 0 => Some(id),
            _ => None,
        }))
}
