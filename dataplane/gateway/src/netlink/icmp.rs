//! ICMP errors that the kernel gets about our own ESP and AH: read by two raw sockets, since the
//! kernel has nobody for them and drops them (design: "Control").
//!
//! A filter in the kernel lets through errors about ESP, AH, UDP and IPv6 fragments alone, so a
//! flood of others wakes nobody; what comes through is taken [`AT_ONCE`] at a time with a rest in
//! between, and what the sockets' small queues cannot hold meanwhile is lost.
#![expect(unsafe_code, reason = "attaching a filter takes a pointer")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use ipsec::packet::Version;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto, recvfrom, socket_with, sockopt,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Messages taken in one go.
const AT_ONCE: usize = 64;

/// The rest after each go: 6 400 messages a second and socket at most.
const REST: Duration = Duration::from_millis(10);

/// What each socket may queue, bytes.
const QUEUE: usize = 64 << 10;

/// Longest message that is read, bytes: an error is 1 280 at most (RFC 4443 §2.4 (c)).
const LONGEST: usize = 2048;

/// One message: the whole IPv4 packet, or the ICMPv6 message with its checksum verified.
#[derive(Debug)]
pub struct IcmpError {
    /// Its family.
    pub version: Version,
    /// Who sent it, or says so.
    pub from: IpAddr,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The two sockets; that of a family which the kernel lacks is missing.
#[derive(Debug)]
pub struct IcmpErrors {
    v4: Option<AsyncFd<OwnedFd>>,
    v6: Option<AsyncFd<OwnedFd>>,
    rested: Instant,
}

impl IcmpErrors {
    /// Listens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            v4: listen(Version::V4)?,
            v6: listen(Version::V6)?,
            rested: Instant::now(),
        })
    }

    /// Waits for messages and takes those that are there. Cancelling loses nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn receive(&mut self) -> io::Result<Vec<IcmpError>> {
        let mut received = Vec::new();
        while received.is_empty() {
            sleep_until(self.rested).await;
            tokio::select! {
                ready = readable(self.v4.as_ref()) => take(ready?, Version::V4, &mut received)?,
                ready = readable(self.v6.as_ref()) => take(ready?, Version::V6, &mut received)?,
            }
            self.rested = Instant::now() + REST;
        }
        Ok(received)
    }
}

type Ready<'a> = tokio::io::unix::AsyncFdReadyGuard<'a, OwnedFd>;

async fn readable(socket: Option<&AsyncFd<OwnedFd>>) -> io::Result<Ready<'_>> {
    match socket {
        Some(socket) => socket.readable().await,
        None => std::future::pending().await,
    }
}

fn take(mut ready: Ready<'_>, version: Version, into: &mut Vec<IcmpError>) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    for _ in 0..AT_ONCE {
        let received = ready.try_io(|socket| {
            recvfrom(socket, &mut buffer[..], RecvFlags::empty()).map_err(io::Error::from)
        });
        let Ok(received) = received else {
            break;
        };
        let (length, _, from) = match received {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            received => received?,
        };
        let from = match from.map(TryFrom::try_from) {
            Some(Ok(std::net::SocketAddr::V4(from))) => (*from.ip()).into(),
            Some(Ok(std::net::SocketAddr::V6(from))) => (*from.ip()).into(),
            _ => continue,
        };
        let bytes = buffer.get(..length).unwrap_or(&[]).to_vec();
        into.push(IcmpError {
            version,
            from,
            bytes,
        });
    }
    Ok(())
}

fn listen(version: Version) -> io::Result<Option<AsyncFd<OwnedFd>>> {
    let (family, protocol) = match version {
        Version::V4 => (AddressFamily::INET, ipproto::ICMP),
        Version::V6 => (AddressFamily::INET6, ipproto::ICMPV6),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match socket_with(family, SocketType::RAW, flags, Some(protocol)) {
        Err(Errno::AFNOSUPPORT) => return Ok(None),
        socket => socket?,
    };
    let filter = match version {
        Version::V4 => &FILTER_V4[..],
        Version::V6 => &FILTER_V6[..],
    };
    attach(&socket, filter)?;
    sockopt::set_socket_recv_buffer_size(&socket, QUEUE)?;
    // What came before the filter was attached passed it by.
    let mut buffer = [0; 1];
    while recvfrom(&socket, &mut buffer[..], RecvFlags::TRUNC).is_ok() {}
    #[expect(
        deprecated,
        reason = "an OwnedFd keeps what the unsafe `register` asks for"
    )]
    AsyncFd::new(socket).map(Some)
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap_or(0),
        filter: filter.as_ptr().cast_mut(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
    // SAFETY: the option reads one `sock_fprog` of that length and the instructions that it points
    // to, as many as it says; both live until the call returns, and the kernel only reads them.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length,
        )
    };
    if status == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

const fn step(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (code & 0xffff) as u16,
        jt,
        jf,
        k,
    }
}

const HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const BYTE_BEHIND: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// From the IP header on: types 3, 4, 11 and 12 about protocols 50, 51 and 17.
const FILTER_V4: [libc::sock_filter; 12] = [
    step(HEADER_LENGTH, 0),
    step(BYTE_BEHIND, 0),
    jump(EQUAL, 3, 3, 0),
    jump(EQUAL, 4, 2, 0),
    jump(EQUAL, 11, 1, 0),
    jump(EQUAL, 12, 0, 5),
    // The quoted header's protocol: 8 bytes of ICMP and 9 of IP are in front of it.
    step(BYTE_BEHIND, 17),
    jump(EQUAL, 50, 2, 0),
    jump(EQUAL, 51, 1, 0),
    jump(EQUAL, 17, 0, 1),
    step(RETURN, u32::MAX),
    step(RETURN, 0),
];

/// From the ICMPv6 header on: errors about next headers 50, 51, 17 and 44, a fragment.
const FILTER_V6: [libc::sock_filter; 9] = [
    step(BYTE, 0),
    jump(AT_LEAST, 128, 6, 0),
    // 8 bytes of ICMPv6 and 6 of IPv6 are in front of it.
    step(BYTE, 14),
    jump(EQUAL, 50, 3, 0),
    jump(EQUAL, 51, 2, 0),
    jump(EQUAL, 17, 1, 0),
    jump(EQUAL, 44, 0, 1),
    step(RETURN, u32::MAX),
    step(RETURN, 0),
];
