//! Notifications of the kernel's route netlink.

use std::io;
use std::os::fd::OwnedFd;

use futures_util::FutureExt;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with, sockopt,
};
use tokio::io::unix::AsyncFd;

use super::NetlinkError;

/// What the socket may queue, bytes: a full Internet table of notifications passes without an
/// overflow, which would cost a dump.
const QUEUE: usize = 64 << 20;

/// One datagram at most, bytes: the kernel's notifications stay within a page or two, a link with
/// many virtual functions is the longest.
const DATAGRAM: usize = 64 << 10;

/// The multicast groups (`RTNLGRP_…`): link 1, neigh 3, IPv4 address 5, IPv4 route 7, IPv6
/// address 9, IPv6 route 11, nexthop 32.
const GROUPS: u32 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 31;

/// `RTM_NEWNEXTHOP` and `RTM_DELNEXTHOP`.
const NEXTHOP_TYPES: [u16; 2] = [104, 105];

/// Length of a netlink message's header, bytes.
const HEADER: usize = 16;

/// What the kernel told.
#[derive(Debug)]
pub(super) enum Notification {
    /// A table's entry came, changed or went; with the header's flags.
    Entry(u16, RouteNetlinkMessage),
    /// A nexthop object changed, and routes with it.
    Nexthop,
    /// Notifications were lost, or one could not be understood: the tables must be read again.
    Lost,
}

/// A socket joined to the groups.
#[derive(Debug)]
pub(super) struct Subscription {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Subscription {
    /// Subscribes in the network namespace of the calling thread.
    pub(super) fn new() -> Result<Self, NetlinkError> {
        let socket = open().map_err(|error| NetlinkError::Socket(error.into()))?;
        #[expect(
            deprecated,
            reason = "an OwnedFd keeps what the unsafe `register` asks for"
        )]
        let socket = AsyncFd::new(socket).map_err(NetlinkError::Socket)?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM],
        })
    }

    /// Waits for a datagram. Cancelling loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Vec<Notification>, NetlinkError> {
        loop {
            let mut ready = self.socket.readable().await.map_err(NetlinkError::Socket)?;
            let received = ready.try_io(|socket| {
                let flags = RecvFlags::TRUNC;
                recv(socket, self.buffer.as_mut_slice(), flags).map_err(io::Error::from)
            });
            match received {
                Ok(Ok((stored, whole))) if whole <= stored => {
                    return Ok(parse(self.buffer.get(..stored).unwrap_or_default()));
                }
                Ok(Ok(_)) => return Ok(vec![Notification::Lost]),
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {
                    return Ok(vec![Notification::Lost]);
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(NetlinkError::Socket(error)),
                Err(_would_block) => {}
            }
        }
    }

    /// What is there already.
    pub(super) fn received(&mut self) -> Option<Result<Vec<Notification>, NetlinkError>> {
        self.receive().now_or_never()
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None, // NETLINK_ROUTE is protocol 0.
    )?;
    // Without CAP_NET_ADMIN the machine's limit applies; overflows are dealt with.
    if sockopt::set_socket_recv_buffer_size_force(&socket, QUEUE).is_err() {
        sockopt::set_socket_recv_buffer_size(&socket, QUEUE)?;
    }
    bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
    Ok(socket)
}

/// The messages of a datagram.
fn parse(mut bytes: &[u8]) -> Vec<Notification> {
    let mut notifications = Vec::new();
    while let Some((length, kind)) = header(bytes) {
        let Some(message) = bytes
            .get(..length)
            .filter(|message| message.len() >= HEADER)
        else {
            notifications.push(Notification::Lost);
            break;
        };
        if NEXTHOP_TYPES.contains(&kind) {
            notifications.push(Notification::Nexthop);
        } else {
            notifications.push(notification(message));
        }
        // Messages are aligned to four bytes.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    notifications
}

/// Length and type of the message at the front.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let kind = rest.first_chunk::<2>()?;
    let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
    Some((length, u16::from_ne_bytes(*kind)))
}

fn notification(message: &[u8]) -> Notification {
    match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
        Ok(NetlinkMessage {
            header,
            payload: NetlinkPayload::InnerMessage(entry),
            ..
        }) => Notification::Entry(header.flags, entry),
        Ok(_) | Err(_) => Notification::Lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_counts_as_lost_and_never_panics() {
        let mut message = vec![0_u8; 20];
        message[0] = 20;
        message[4] = 104;
        for end in 0..message.len() {
            let parsed = parse(&message[..end]);
            assert!(
                parsed.iter().all(|one| matches!(one, Notification::Lost)),
                "{end}"
            );
        }
        assert!(matches!(parse(&message)[..], [Notification::Nexthop]));
        message[0] = 3;
        assert!(matches!(parse(&message)[..], [Notification::Lost]));
        message[0] = 20;
        message[4] = 24; // A route without its header.
        assert!(matches!(parse(&message)[..], [Notification::Lost]));
    }
}
