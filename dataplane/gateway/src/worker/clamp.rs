//! Clamping the segment sizes of TCP connections that cross the boundary.

use ipsec::ip::tcp_mss;
use ipsec::outbound::largest_inner;
use ipsec::packet::Packet;
use ipsec::policy::{Action, Policy, TcpMss};
use ipsec::sa::association::Direction;
use ipsec::time::Time;

use crate::snapshot::Snapshot;
use crate::worker::exit::{flow_hash, outer_path, path};

/// Clamps the SYN `ip` with the descriptor `packet`, which crosses the boundary in `direction` on
/// `worker`; what is no SYN, and what no policy with `tcp_mss` takes, stays as it is.
pub(super) fn clamp(
    snapshot: &Snapshot,
    ip: &mut [u8],
    packet: &Packet,
    direction: Direction,
    (worker, now): (u16, Time),
) {
    if !snapshot.tables.clamps() || !tcp_mss::is_syn(ip, packet) {
        return;
    }
    let Some(clamp) = snapshot.tables.clamp(packet, direction) else {
        return;
    };
    let limit = match clamp.limit {
        TcpMss::Off => return,
        TcpMss::Bytes(bytes) => Some(bytes),
        TcpMss::Auto => largest(snapshot, packet, clamp.outbound, direction, (worker, now))
            .map(|mtu| tcp_mss::fitting(packet.version, mtu)),
    };
    if let Some(limit) = limit {
        tcp_mss::clamp(ip, packet, limit);
    }
}

/// The longest packet of the connection that crosses to the unprotected side whole, bytes. Both
/// ends are told the same: what fits the peer's way here nobody knows.
fn largest(
    snapshot: &Snapshot,
    packet: &Packet,
    outbound: Option<&Policy>,
    direction: Direction,
    (worker, now): (u16, Time),
) -> Option<u16> {
    match outbound {
        Some(policy) if policy.action == Action::Protect => {
            let sas = snapshot.tables.carrying_sas(policy, worker, now).ok()?;
            let path = outer_path(snapshot, sas.outer, packet)?;
            Some(match sas.inner {
                Some(inner) => largest_inner(&[inner, sas.outer], path.mtu),
                None => largest_inner(&[sas.outer], path.mtu),
            })
        }
        _ => {
            let remote = match direction {
                Direction::Out => packet.destination,
                Direction::In => packet.source,
            };
            let path = path(snapshot, packet.version, remote, flow_hash(packet));
            path.map(|path| path.mtu)
        }
    }
}
