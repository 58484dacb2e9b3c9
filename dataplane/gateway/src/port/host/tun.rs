//! TUN's own system calls.
#![expect(unsafe_code, reason = "ioctl is a system call that takes pointers")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// `struct ifreq` with flags in its union.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Makes the device, or takes over one that nobody holds. It goes when the descriptor is closed.
pub(super) fn open(name: &str) -> io::Result<OwnedFd> {
    // A percent sign would let the kernel choose another name.
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('%') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no name of an interface",
        ));
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/net/tun", flags, Mode::empty())?;
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        flags: libc::c_short::try_from(flags).unwrap_or_default(),
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the command reads and writes one ifreq, which this is.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(status)?;
    // SAFETY: the command takes a number. None of the offloads of an earlier owner stays.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOFFLOAD, 0) };
    check(status)?;
    // SAFETY: the command takes a number. A device that was made to stay is ours now and goes
    // with us.
    let status = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETPERSIST, 0) };
    check(status)?;
    Ok(device)
}

/// No address of the kernel's making, and answers may come by another way than they would go.
pub(super) fn configure(name: &str) -> io::Result<()> {
    set(&format!("ipv6/conf/{name}/addr_gen_mode"), "1")?;
    set(&format!("ipv4/conf/{name}/rp_filter"), "2")
}

fn set(setting: &str, value: &str) -> io::Result<()> {
    match fs::write(format!("/proc/sys/net/{setting}"), value) {
        // A kernel without that protocol needs no setting.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn check(status: libc::c_int) -> io::Result<()> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
