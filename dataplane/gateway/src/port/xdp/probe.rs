//! Facts about an interface, and which interfaces cannot be ports.

use std::fs;
use std::io;

use ipsec::limits::PACKET;

use super::diagnose::{self, Operation, PortError};
use super::frame::PIECES;
use super::program::AttachMode;
use crate::port::interface::{Channels, Control};
use crate::port::settings::Umem;

/// Largest MTU whose packets are sure to lie in one frame: a page without XDP's headroom, the
/// kernel's tail room and the Ethernet header, rounded down.
pub const SINGLE_FRAME_MTU: u32 = 3500;

/// XDP_PACKET_HEADROOM: bytes of a frame that the kernel keeps in front of the packet.
const XDP_HEADROOM: u32 = 256;

/// Bytes of an Ethernet header.
const ETHERNET_HEADER: usize = 14;

/// First kernel whose AF_XDP carries packets of several frames.
const FRAGS_SINCE: (u32, u32) = (6, 6);

/// First kernel whose generic mode does.
const GENERIC_FRAGS_SINCE: (u32, u32) = (6, 9);

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its kernel index.
    pub index: u32,
    /// Its driver, or the kind of a virtual interface.
    pub driver: String,
    /// Its address.
    pub mac: [u8; 6],
    /// Bytes of IP packet that it carries.
    pub mtu: u32,
    /// Receive queues: each gets a socket.
    pub receive_queues: u32,
    /// Transmit queues, at least as many.
    pub transmit_queues: u32,
    /// It is administratively up.
    pub up: bool,
}

impl Facts {
    /// Asks the kernel about `name`.
    ///
    /// # Errors
    /// There is no such interface, or it is none that can be a port.
    pub fn probe(name: &str) -> Result<Self, PortError> {
        let explain = |error: io::Error| diagnose::explain(Operation::Probe, name, &error);
        let control = Control::new().map_err(explain)?;
        let index = control.index(name).map_err(explain)?;
        let hardware = control.hardware(name).map_err(explain)?;
        let driver = control.driver(name).unwrap_or_default();
        if let Some((kind, remedy)) = refusal(hardware.kind, &driver) {
            return Err(PortError::Kind {
                name: name.to_owned(),
                kind,
                remedy,
            });
        }
        let queues = control
            .channels(name)
            .unwrap_or_else(|_| listed_queues(name));
        if queues.receive > queues.transmit {
            return Err(PortError::Queues {
                name: name.to_owned(),
                receive: queues.receive,
                transmit: queues.transmit,
            });
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            driver,
            mac: hardware.address,
            mtu: control.mtu(name).map_err(explain)?,
            receive_queues: queues.receive,
            transmit_queues: queues.transmit,
            up: control.is_up(name).map_err(explain)?,
        })
    }

    /// Its packets may need several frames, so the program and the sockets must be made for that.
    #[must_use]
    pub const fn needs_frags(&self) -> bool {
        self.mtu > SINGLE_FRAME_MTU
    }

    /// Refuses an MTU that this kernel cannot carry in that mode. (A driver that cannot refuses the
    /// program: [`Self::no_frags`].)
    ///
    /// # Errors
    /// The kernel is too old.
    pub fn check_mtu(&self, mode: AttachMode) -> Result<(), PortError> {
        let (since, what) = match mode {
            AttachMode::Native => (FRAGS_SINCE, "AF_XDP"),
            AttachMode::Generic => (GENERIC_FRAGS_SINCE, "generic XDP"),
        };
        if self.needs_frags() && kernel_version() < since {
            let (major, minor) = since;
            return Err(self.no_frags(format!("{what} has them since Linux {major}.{minor}")));
        }
        Ok(())
    }

    /// Refuses packet memory whose frames, or as many as a packet may take, are too small for the
    /// MTU.
    ///
    /// # Errors
    /// They are.
    pub fn check_frames(&self, umem: Umem) -> Result<(), PortError> {
        let frames = if self.needs_frags() { PIECES } else { 1 };
        let frame = umem.frame_size.saturating_sub(XDP_HEADROOM) as usize;
        let limit = (frame * frames).min(PACKET) - ETHERNET_HEADER;
        if self.mtu as usize > limit {
            return Err(PortError::Frames {
                name: self.name.clone(),
                mtu: self.mtu,
                frame_size: umem.frame_size,
                limit,
            });
        }
        Ok(())
    }

    /// The refusal of an MTU for which frags are missing.
    #[must_use]
    pub fn no_frags(&self, why: String) -> PortError {
        PortError::Mtu {
            name: self.name.clone(),
            mtu: self.mtu,
            limit: SINGLE_FRAME_MTU,
            why,
        }
    }

    /// Whoever sends to this port may leave TCP and UDP checksums to "hardware" that never comes.
    #[must_use]
    pub fn may_carry_unfinished_checksums(&self, mode: AttachMode) -> bool {
        mode == AttachMode::Generic || matches!(self.driver.as_str(), "veth" | "tun" | "virtio_net")
    }
}

/// What cannot be a port, with its article, and what to take instead.
fn refusal(hardware_kind: u16, driver: &str) -> Option<(&'static str, &'static str)> {
    let members = "make ports of its members";
    let below = "make a port of the interface below it";
    match driver {
        "bonding" => return Some(("a bond", members)),
        "team" => return Some(("a team", members)),
        "bridge" => return Some(("a bridge", members)),
        "802.1Q VLAN Support" | "vlan" => return Some(("a VLAN", below)),
        "macvlan" | "macvtap" => return Some(("a macvlan", below)),
        "ipvlan" => return Some(("an ipvlan", below)),
        _ => {}
    }
    let physical = "take an Ethernet interface";
    match hardware_kind {
        libc::ARPHRD_ETHER => None,
        libc::ARPHRD_LOOPBACK => Some(("the loopback", physical)),
        _ if driver == "tun" => Some(("a TUN", "take an Ethernet interface or a TAP")),
        _ => Some(("what is not Ethernet", physical)),
    }
}

/// Queues of a driver that ethtool gets no answer from.
fn listed_queues(name: &str) -> Channels {
    let count = |kind| {
        let entries = fs::read_dir(format!("/sys/class/net/{name}/queues"));
        let names = entries
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name());
        let of_kind = names.filter(|name| name.to_string_lossy().starts_with(kind));
        u32::try_from(of_kind.count()).unwrap_or(u32::MAX).max(1)
    };
    Channels {
        receive: count("rx-"),
        transmit: count("tx-"),
    }
}

/// Major and minor; zero where it cannot be read.
pub(super) fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    parse_version(&release)
}

fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse_version("6.18.44-fc-v782\n"), (6, 18));
        assert_eq!(parse_version("6.6"), (6, 6));
        assert_eq!(parse_version(""), (0, 0));
        assert!(parse_version("6.18.1") > FRAGS_SINCE);
    }

    #[test]
    fn frames_must_hold_the_mtu() {
        let facts = |mtu| Facts {
            name: "wan0".to_owned(),
            index: 1,
            driver: "veth".to_owned(),
            mac: [0; 6],
            mtu,
            receive_queues: 1,
            transmit_queues: 1,
            up: true,
        };
        let fits = |mtu, frame_size| {
            let umem = Umem {
                frame_size,
                ..Umem::default()
            };
            facts(mtu).check_frames(umem).is_ok()
        };
        assert!(fits(1500, 2048) && fits(1778, 2048) && !fits(1779, 2048));
        assert!(fits(3500, 4096) && fits(9000, 4096));
        assert!(fits(8946, 2048) && !fits(8947, 2048));
        assert!(fits(16_370, 4096) && !fits(16_371, 4096));
        let umem = Umem {
            frame_size: 2048,
            ..Umem::default()
        };
        assert_eq!(
            facts(9000)
                .check_frames(umem)
                .map_err(|error| error.to_string()),
            Err(
                "wan0: MTU 9000 is over the 8946 bytes that umem.frame_size = 2048 can carry \
                 (frame_size = 4096, or ip link set wan0 mtu 8946)"
                    .to_owned()
            )
        );
    }

    #[test]
    fn unsuitable_kinds_are_named() {
        let ether = libc::ARPHRD_ETHER;
        let kind = |hardware, driver| refusal(hardware, driver).map(|(kind, _)| kind);
        assert_eq!(kind(ether, "bonding"), Some("a bond"));
        assert_eq!(kind(ether, "team"), Some("a team"));
        assert_eq!(kind(ether, "bridge"), Some("a bridge"));
        assert_eq!(kind(ether, "802.1Q VLAN Support"), Some("a VLAN"));
        assert_eq!(kind(ether, "macvlan"), Some("a macvlan"));
        assert_eq!(kind(libc::ARPHRD_NONE, "tun"), Some("a TUN"));
        assert_eq!(kind(libc::ARPHRD_LOOPBACK, ""), Some("the loopback"));
        assert_eq!(
            kind(libc::ARPHRD_TUNNEL, "ipip"),
            Some("what is not Ethernet")
        );
        for port in ["veth", "tun", "virtio_net", "ice", ""] {
            assert_eq!(kind(ether, port), None, "{port}");
        }
    }
}
