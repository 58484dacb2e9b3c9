//! Interfaces by ioctl: the classic ones and ethtool's. The ioctls ask the network namespace of
//! the calling thread, which sysfs does not; and the `ethtool` crate cannot set features.
#![expect(unsafe_code, reason = "ioctl is a system call that takes pointers")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

const NAME_LENGTH: usize = libc::IFNAMSIZ;

// include/uapi/linux/ethtool.h
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;
const GET_CHANNELS: u32 = 0x3c;

/// `struct ifreq` with a value in its union.
#[repr(C)]
struct ValueRequest {
    name: [u8; NAME_LENGTH],
    value: [u8; 24],
}

/// `struct ifreq` with a pointer in its union.
#[repr(C)]
struct PointerRequest {
    name: [u8; NAME_LENGTH],
    pointer: *mut c_void,
    rest: [u8; 16],
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    value: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct Driver {
    command: u32,
    driver: [u8; 32],
    others: [u8; 140],
    counts: [u32; 5],
}

const _: () = assert!(size_of::<Driver>() == 196, "as the kernel has it");

/// `struct ethtool_channels`: the maxima, then what is set.
#[repr(C)]
struct ChannelsRequest {
    command: u32,
    maxima: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// Queues of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::port) struct Channels {
    pub(in crate::port) receive: u32,
    pub(in crate::port) transmit: u32,
}

/// Hardware type and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::port) struct Hardware {
    /// ARPHRD_ constant.
    pub(in crate::port) kind: u16,
    pub(in crate::port) address: [u8; 6],
}

/// One switch of the hardware or the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::port) enum Switch {
    /// VLAN tags are taken out of received frames.
    ReceiveVlan,
    /// Received packets are merged by the NIC.
    Lro,
    /// Received packets are merged by the stack.
    Gro,
}

impl Switch {
    /// Its bit among ethtool's flags; GRO has a command of its own.
    const fn flag(self) -> Option<u32> {
        match self {
            Self::ReceiveVlan => Some(1 << 8),
            Self::Lro => Some(1 << 15),
            Self::Gro => None,
        }
    }
}

/// Where the ioctls go: any socket of the namespace.
#[derive(Debug)]
pub(in crate::port) struct Control {
    socket: OwnedFd,
}

impl Control {
    pub(in crate::port) fn new() -> io::Result<Self> {
        let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        Ok(Self { socket })
    }

    /// Kernel index of the interface.
    pub(in crate::port) fn index(&self, name: &str) -> io::Result<u32> {
        let value = self.value(name, libc::SIOCGIFINDEX)?;
        Ok(first_u32(&value))
    }

    /// Bytes of IP packet.
    pub(in crate::port) fn mtu(&self, name: &str) -> io::Result<u32> {
        let value = self.value(name, libc::SIOCGIFMTU)?;
        Ok(first_u32(&value))
    }

    /// The interface is administratively up.
    pub(in crate::port) fn is_up(&self, name: &str) -> io::Result<bool> {
        let value = self.value(name, libc::SIOCGIFFLAGS)?;
        let flags = libc::c_int::from(i16::from_ne_bytes([value[0], value[1]]));
        Ok(flags & libc::IFF_UP != 0)
    }

    /// Sets the MTU.
    pub(in crate::port) fn set_mtu(&self, name: &str, mtu: u32) -> io::Result<()> {
        self.exchange_value(name, libc::SIOCSIFMTU, &mtu.to_ne_bytes())
            .map(drop)
    }

    /// Brings the interface up.
    pub(in crate::port) fn bring_up(&self, name: &str) -> io::Result<()> {
        let value = self.value(name, libc::SIOCGIFFLAGS)?;
        let flags = u16::from_ne_bytes([value[0], value[1]]);
        let flags = flags | u16::try_from(libc::IFF_UP).unwrap_or_default();
        self.exchange_value(name, libc::SIOCSIFFLAGS, &flags.to_ne_bytes())
            .map(drop)
    }

    /// Hardware type and address.
    pub(in crate::port) fn hardware(&self, name: &str) -> io::Result<Hardware> {
        let value = self.value(name, libc::SIOCGIFHWADDR)?;
        let mut address = [0; 6];
        address.copy_from_slice(&value[2..8]);
        Ok(Hardware {
            kind: u16::from_ne_bytes([value[0], value[1]]),
            address,
        })
    }

    /// Name of the driver, or of the kind of a virtual interface.
    pub(in crate::port) fn driver(&self, name: &str) -> io::Result<String> {
        let mut driver = Driver {
            command: GET_DRIVER,
            driver: [0; 32],
            others: [0; 140],
            counts: [0; 5],
        };
        self.ethtool(name, &mut driver)?;
        let text = driver.driver.split(|&byte| byte == 0).next();
        Ok(String::from_utf8_lossy(text.unwrap_or_default()).into_owned())
    }

    /// Its queues. Drivers that have just one often have no answer (EOPNOTSUPP).
    pub(in crate::port) fn channels(&self, name: &str) -> io::Result<Channels> {
        let mut channels = ChannelsRequest {
            command: GET_CHANNELS,
            maxima: [0; 4],
            receive: 0,
            transmit: 0,
            other: 0,
            combined: 0,
        };
        self.ethtool(name, &mut channels)?;
        Ok(Channels {
            receive: channels.combined + channels.receive,
            transmit: channels.combined + channels.transmit,
        })
    }

    /// Whether `switch` is on.
    pub(in crate::port) fn is_on(&self, name: &str, switch: Switch) -> io::Result<bool> {
        match switch.flag() {
            Some(flag) => Ok(self.exchange(name, GET_FLAGS, 0)? & flag != 0),
            None => Ok(self.exchange(name, GET_GRO, 0)? != 0),
        }
    }

    /// Turns `switch`.
    pub(in crate::port) fn turn(&self, name: &str, switch: Switch, on: bool) -> io::Result<()> {
        let Some(flag) = switch.flag() else {
            return self.exchange(name, SET_GRO, u32::from(on)).map(drop);
        };
        let flags = self.exchange(name, GET_FLAGS, 0)?;
        let flags = if on { flags | flag } else { flags & !flag };
        self.exchange(name, SET_FLAGS, flags).map(drop)
    }

    fn exchange(&self, name: &str, command: u32, value: u32) -> io::Result<u32> {
        let mut request = Value { command, value };
        self.ethtool(name, &mut request)?;
        Ok(request.value)
    }

    /// `T` is the structure that belongs to the command it begins with.
    fn ethtool<T>(&self, name: &str, structure: &mut T) -> io::Result<()> {
        let mut request = PointerRequest {
            name: name_bytes(name)?,
            pointer: (&raw mut *structure).cast(),
            rest: [0; 16],
        };
        // SAFETY: the request is an ifreq whose pointer leads to the structure of its command,
        // borrowed uniquely until the call returns.
        let status =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        check(status)
    }

    fn value(&self, name: &str, command: libc::Ioctl) -> io::Result<[u8; 24]> {
        self.exchange_value(name, command, &[])
    }

    fn exchange_value(
        &self,
        name: &str,
        command: libc::Ioctl,
        value: &[u8],
    ) -> io::Result<[u8; 24]> {
        let mut request = ValueRequest {
            name: name_bytes(name)?,
            value: [0; 24],
        };
        request.value[..value.len()].copy_from_slice(value);
        // SAFETY: the commands of this file read and write one ifreq, which this is.
        let status = unsafe { libc::ioctl(self.socket.as_raw_fd(), command, &raw mut request) };
        check(status)?;
        Ok(request.value)
    }
}

const fn first_u32(value: &[u8; 24]) -> u32 {
    u32::from_ne_bytes([value[0], value[1], value[2], value[3]])
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The name, ended by a zero.
fn name_bytes(name: &str) -> io::Result<[u8; NAME_LENGTH]> {
    let mut bytes = [0; NAME_LENGTH];
    if name.is_empty() || name.len() >= NAME_LENGTH {
        return Err(io::Error::from(rustix::io::Errno::NODEV));
    }
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Ok(bytes)
}
