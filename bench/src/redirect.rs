//! The bare forwarder's XDP program on an interface: every frame to the socket of its queue.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use aya::maps::XskMap;
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use std::os::fd::AsRawFd;
use xipsec::port::xdp::Attachment;

const PROGRAM: &str = "xipsec_redirect_all";
const SOCKETS: &str = "sockets";

/// The program on one interface. Detached when dropped.
#[derive(Debug)]
pub struct Redirect {
    ebpf: Ebpf,
}

impl Redirect {
    /// Loads `object` and attaches its program to `interface`.
    ///
    /// # Errors
    /// The object lacks the program, or the kernel refuses it or the hook.
    pub fn attach(object: &[u8], interface: &str, attachment: Attachment) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .load(object)
            .context("loading the XDP object")?;
        let program = ebpf
            .program_mut(PROGRAM)
            .with_context(|| format!("the object has no program {PROGRAM}"))?;
        let program: &mut Xdp = program.try_into()?;
        program.load().context("loading the XDP program")?;
        let mode = match attachment {
            Attachment::Native => XdpMode::Driver,
            Attachment::Generic => XdpMode::Skb,
        };
        program
            .attach(interface, mode)
            .with_context(|| format!("attaching to {interface}"))?;
        Ok(Self { ebpf })
    }

    /// Sends the frames of `queue` to `socket` from now on.
    ///
    /// # Errors
    /// The kernel refuses the socket.
    pub fn insert(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<()> {
        let map = self
            .ebpf
            .map_mut(SOCKETS)
            .with_context(|| format!("the object has no map {SOCKETS}"))?;
        let mut map = XskMap::try_from(map)?;
        map.set(queue, socket.as_raw_fd(), 0)
            .with_context(|| format!("queue {queue}"))
    }
}
