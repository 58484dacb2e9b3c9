//! Options of an AF_XDP socket that xsk-rs does not set: how much one kick sends, and busy polling.
//!
//! With busy polling the worker drives the NIC: its system call runs the queue's NAPI once, instead
//! of an interrupt (Linux 5.11, Documentation/networking/napi.rst). The socket knows that NAPI from
//! the bind (drivers that name it, 6.13 and later) or from its first frame (6.12 and before, native
//! mode), or never.
#![expect(unsafe_code, reason = "options of sockets go by pointer")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::RecvFlags;

use super::Choice;
use super::napi;
use super::program::AttachMode;
use super::wakeup::DESCRIPTORS_PER_KICK;
use crate::port::settings::BusyPoll;

/// SOL_XDP's option for descriptors per kick, Linux 6.17 (include/uapi/linux/if_xdp.h).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Has one kick send the whole ring, where the kernel can (6.17).
pub(super) fn raise_budget(socket: BorrowedFd<'_>, ring: u32) -> Choice {
    let (got, why) = match set(socket, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, ring) {
        Ok(()) => ("the ring", "one kick sends all, in copy mode".to_owned()),
        Err(error) => {
            let why = format!("{DESCRIPTORS_PER_KICK} descriptors a kick in copy mode: {error}");
            ("the kernel's", why)
        }
    };
    Choice {
        what: "kick budget",
        asked: "auto",
        got,
        why,
    }
}

/// Turns busy polling on where the attachment allows it. Answers whether it did.
///
/// # Errors
/// What the kernel says when it refuses.
pub(super) fn poll_busily(
    socket: BorrowedFd<'_>,
    asked: BusyPoll,
    attachment: AttachMode,
    interface: &str,
) -> io::Result<(bool, Choice)> {
    let choice = |got, why| Choice {
        what: "busy_poll",
        asked: "on",
        got,
        why,
    };
    if attachment == AttachMode::Generic {
        let why = "generic XDP tells no socket which NAPI to poll: interrupts go on";
        return Ok((false, choice("off", why.to_owned())));
    }
    set(socket, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, 1)?;
    let microseconds = asked.microseconds;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, microseconds)?;
    let budget = asked.budget;
    set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, budget)?;
    let why = format!(
        "{microseconds} microseconds, {budget} packets at once; {}",
        napi::knobs(interface)
    );
    Ok((true, choice("on", why)))
}

/// Has the kernel poll the queue's NAPI once, both ways in zero copy. What it says does not matter:
/// what came is in the ring, and the transmit side reports the interface's end.
pub(super) fn poll_once(socket: BorrowedFd<'_>) {
    rustix::net::recv(socket, &mut [0; 0], RecvFlags::DONTWAIT).ok();
}

/// The NAPI that the socket knows; 0: none.
pub(super) fn napi_of(socket: BorrowedFd<'_>) -> u32 {
    let mut napi = 0_u32;
    let mut size = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(4);
    // SAFETY: the option writes at most `size` bytes to `napi`; both live until the call returns.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_INCOMING_NAPI_ID,
            (&raw mut napi).cast(),
            &raw mut size,
        )
    };
    if status == 0 { napi } else { 0 }
}

/// Sets an option that is a number.
fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: u32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(4);
    let pointer = (&raw const value).cast();
    // SAFETY: the option reads `size` bytes at `value`, which lives until the call returns.
    let status = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, size) };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
