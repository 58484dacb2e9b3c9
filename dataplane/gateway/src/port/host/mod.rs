//! The host port: a TUN device by which decrypted packets for the machine reach it, and packets of
//! the machine that policy protects reach us. Whole IP packets, no Ethernet header.
//!
//! One thread owns the device ([`HostThread`]); workers meet it over bounded queues ([`HostLink`])
//! and never make a system call for it, but to wake a thread that sleeps. The device goes when the
//! last of [`HostPort`] and [`HostThread`] is dropped, and by itself when the process dies.

mod tun;

mod exchange;

mod thread;

pub use exchange::{HostLink, HostPacket};
pub use thread::{HostCounters, HostThread};

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ipsec::limits::PACKET;
use rustix::io::Errno;

use crate::port::bell::Bell;
use crate::port::interface::Control;

/// A host port that cannot be, in one line: WHAT: WHY (what to do).
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The device cannot be made.
    #[error("host port {name}: {why} ({remedy})")]
    Refused {
        /// The device.
        name: String,
        /// Why.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A system call failed.
    #[error("host port {name}: {what}: {error}")]
    System {
        /// The device.
        name: String,
        /// What was tried.
        what: &'static str,
        /// The kernel's word.
        error: io::Error,
    },
}

/// The device, seen from the control side.
#[derive(Debug)]
pub struct HostPort {
    name: String,
    index: u32,
    device: Arc<OwnedFd>,
    control: Control,
}

impl HostPort {
    /// Makes the device `name` and brings it up: no offloads, no address of its own, reverse path
    /// filter loose. A TUN of that name that a crash left is taken over.
    ///
    /// # Errors
    /// The name is taken by something else, or this is not permitted.
    pub fn open(name: &str) -> Result<Self, HostError> {
        let device = tun::open(name).map_err(|error| refused(name, error))?;
        let system = |what| {
            move |error| HostError::System {
                name: name.to_owned(),
                what,
                error,
            }
        };
        let control = Control::new().map_err(system("opening a socket"))?;
        tun::configure(name).map_err(system("setting its sysctls"))?;
        control.bring_up(name).map_err(system("bringing it up"))?;
        Ok(Self {
            name: name.to_owned(),
            index: control
                .index(name)
                .map_err(system("asking for its index"))?,
            device: Arc::new(device),
            control,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kernel index, by which routes name it.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Sets the largest packet that the machine may send by it, bytes: at most
    /// [`PACKET`].
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn set_mtu(&self, mtu: usize) -> Result<(), HostError> {
        let mtu = u32::try_from(mtu.min(PACKET)).unwrap_or(u32::MAX);
        self.control
            .set_mtu(&self.name, mtu)
            .map_err(|error| HostError::System {
                name: self.name.clone(),
                what: "setting its MTU",
                error,
            })
    }

    /// The thread's end and one link for each worker, whose bells are given. To be called once.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn connect(
        &self,
        workers: Vec<Arc<Bell>>,
    ) -> Result<(HostThread, Vec<HostLink>), HostError> {
        HostThread::new(Arc::clone(&self.device), workers).map_err(|error| HostError::System {
            name: self.name.clone(),
            what: "making its bell",
            error,
        })
    }
}

fn refused(name: &str, error: io::Error) -> HostError {
    let (why, remedy) = match Errno::from_io_error(&error) {
        Some(Errno::PERM | Errno::ACCESS) => (
            "not permitted".to_owned(),
            "run as root or with CAP_NET_ADMIN",
        ),
        Some(Errno::BUSY) => (
            "another process holds it".to_owned(),
            "stop the other gateway or choose another host_port",
        ),
        Some(Errno::INVAL | Errno::EXIST) => (
            "there is another kind of device with that name".to_owned(),
            "remove it with `ip link delete` or choose another host_port",
        ),
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => (
            "this kernel has no TUN".to_owned(),
            "load the module tun, or host_port = \"\"",
        ),
        _ => (error.to_string(), "see dmesg"),
    };
    HostError::Refused {
        name: name.to_owned(),
        why,
        remedy,
    }
}
