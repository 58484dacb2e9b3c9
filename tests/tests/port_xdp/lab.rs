//! Two namespaces with a veth between them: `wan0`, the port, where the calling thread is moved to,
//! and `peer0`, where frames come from and are looked at.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static NEXT: AtomicU32 = AtomicU32::new(0);

const IPV4: u16 = 0x0800;

pub(crate) struct Lab {
    port_namespace: String,
    peer_namespace: String,
    pub(crate) peer: Peer,
}

impl Lab {
    /// `None` where this cannot be done, said on standard error.
    pub(crate) fn new(test: &str, queues: u32, mtu: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped(test, "needs root");
            return None;
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("xp{}-{id}", std::process::id());
        let (port, peer) = (format!("{prefix}p"), format!("{prefix}q"));
        for namespace in [&port, &peer] {
            if !ip(&["netns", "add", namespace]) {
                skipped(test, "cannot make network namespaces");
                return None;
            }
            in_namespace(namespace, || {
                // No neighbour discovery among the frames that are counted.
                fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap_or_default();
            });
        }
        let count = queues.to_string();
        let queues = ["numrxqueues", &count, "numtxqueues", &count];
        let mut link = vec!["link", "add", "wan0", "netns", &port];
        link.extend(queues);
        link.extend(["type", "veth", "peer", "name", "peer0", "netns", &peer]);
        link.extend(queues);
        assert!(ip(&link), "a veth");
        let mtu = mtu.to_string();
        for (namespace, name) in [(&port, "wan0"), (&peer, "peer0")] {
            assert!(ip(&[
                "-n", namespace, "link", "set", name, "mtu", &mtu, "up"
            ]));
        }
        let socket = in_namespace(&peer, || Peer::new("peer0").unwrap());
        enter(&port);
        Some(Self {
            port_namespace: port,
            peer_namespace: peer,
            peer: socket,
        })
    }

    /// Writes an attribute of `wan0`, in a view of sysfs that belongs to its namespace.
    pub(crate) fn write(&self, attribute: &str, value: &str) {
        let path = format!("/sys/class/net/wan0/{attribute}");
        let command = format!("echo {value} > {path}");
        let namespace = &self.port_namespace;
        assert!(ip(&["netns", "exec", namespace, "sh", "-c", &command]));
    }

    /// A command in the port's namespace.
    pub(crate) fn ip(&self, arguments: &[&str]) -> bool {
        let mut all = vec!["-n", self.port_namespace.as_str()];
        all.extend(arguments);
        ip(&all)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for namespace in [&self.port_namespace, &self.peer_namespace] {
            ip(&["netns", "del", namespace]);
        }
    }
}

/// Says why a test did not run, past the capture of passing tests' output.
pub(crate) fn skipped(test: &str, why: &str) {
    writeln!(io::stderr(), "SKIPPED {test}: {why}").unwrap_or_default();
}

fn ip(arguments: &[&str]) -> bool {
    let status = Command::new("ip").args(arguments).status();
    status.is_ok_and(|status| status.success())
}

fn enter(namespace: &str) {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Runs `work` in another namespace, in a thread of its own.
fn in_namespace<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            work()
        });
        thread.join().unwrap()
    })
}

/// The far end of the wire.
pub(crate) struct Peer {
    socket: OwnedFd,
}

impl Peer {
    /// Of all IPv4 frames of `interface`, in this namespace.
    fn new(interface: &str) -> io::Result<Self> {
        // SAFETY: plain numbers go in, a new descriptor or an error comes out.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and is nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // One test floods: its echoes must find room.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20)?;
        let index = rustix::net::netdevice::name_to_index(&socket, interface)?;
        // SAFETY: all zeroes is a sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_protocol = IPV4.to_be();
        address.sll_ifindex = index.cast_signed();
        let size = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        let pointer = (&raw const address).cast();
        // SAFETY: the address lives until the call returns and has that size.
        let status = unsafe { libc::bind(socket.as_raw_fd(), pointer, size) };
        if status < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket })
    }

    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        rustix::net::send(&self.socket, frame, rustix::net::SendFlags::empty()).is_ok()
    }

    /// The next frame, waiting for `limit` at most.
    pub(crate) fn receive(&self, limit: Duration) -> Option<Vec<u8>> {
        let limit = Timespec::try_from(limit).unwrap();
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut fds, Some(&limit)).unwrap() == 0 {
            return None;
        }
        let mut bytes = vec![0; 20_000];
        let length = rustix::io::read(&self.socket, &mut bytes).unwrap();
        bytes.truncate(length);
        Some(bytes)
    }
}

/// UDP over IPv4, `length` bytes in all, told apart by `number`; flows of 16 ports.
pub(crate) fn frame(number: u32, length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..251).cycle().take(length).collect();
    bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&IPV4.to_be_bytes());
    let ip_length = u16::try_from(length - 14).unwrap();
    let header = [
        0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    bytes[14..34].copy_from_slice(&header);
    bytes[16..18].copy_from_slice(&ip_length.to_be_bytes());
    let port = u16::try_from(5000 + number % 16).unwrap();
    bytes[34..36].copy_from_slice(&port.to_be_bytes());
    bytes[36..38].copy_from_slice(&port.to_be_bytes());
    bytes[38..40].copy_from_slice(&(ip_length - 20).to_be_bytes());
    bytes[40..42].copy_from_slice(&[0, 0]);
    bytes[42..46].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The number of a frame made by [`frame`].
pub(crate) fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[42..46].try_into().unwrap())
}
