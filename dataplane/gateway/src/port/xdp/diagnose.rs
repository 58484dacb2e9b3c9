//! Why a port cannot be: one line for each cause, which says what to do. (Of the XDP program:
//! [`super::program::ProgramError`].)

use std::error::Error;
use std::io;

use rustix::io::Errno;

/// What was being done when the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Making the packet memory.
    Memory,
    /// Binding the socket.
    Bind,
    /// Asking about the interface.
    Probe,
    /// Switching an offload.
    Offload,
}

/// A port that cannot be, in one line: WHAT: WHY (what to do).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// No interface of that name.
    #[error("{0}: no such interface (`ip link` lists them)")]
    NoInterface(String),
    /// An interface that XDP does not serve as a port.
    #[error("{name}: {kind} cannot be a port ({remedy})")]
    Kind {
        /// The interface.
        name: String,
        /// What it is, with its article.
        kind: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// More receive than transmit queues.
    #[error(
        "{name}: {receive} receive queues but only {transmit} transmit queues \
         (ethtool -L {name} rx {transmit} tx {transmit})"
    )]
    Queues {
        /// The interface.
        name: String,
        /// Receive queues.
        receive: u32,
        /// Transmit queues.
        transmit: u32,
    },
    /// Packets of several frames are needed and missing.
    #[error(
        "{name}: MTU {mtu} is over {limit}, and packets of several frames (frags) are missing: \
         {why} (ip link set {name} mtu {limit})"
    )]
    Mtu {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// What one frame carries.
        limit: u32,
        /// What is missing.
        why: String,
    },
    /// Packet memory whose frames are too small.
    #[error(
        "{name}: MTU {mtu} is over the {limit} bytes that umem.frame_size = {frame_size} can carry \
         (frame_size = 4096, or ip link set {name} mtu {limit})"
    )]
    Frames {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u32,
        /// What is configured.
        frame_size: u32,
        /// The largest MTU that it carries.
        limit: usize,
    },
    /// Zero copy was demanded.
    #[error("{name}: zero_copy = \"on\": {why} (zero_copy = \"auto\")")]
    ZeroCopy {
        /// The interface.
        name: String,
        /// Why there is none.
        why: String,
    },
    /// Busy polling was demanded.
    #[error(
        "{name}: busy_poll: the kernel refuses: {why} (grant CAP_NET_ADMIN, take a kernel with \
         CONFIG_NET_RX_BUSY_POLL=y, or leave busy_poll out)"
    )]
    BusyPoll {
        /// The interface.
        name: String,
        /// The kernel's word.
        why: String,
    },
    /// A refusal of the kernel that has a known cause.
    #[error("{name}: {what}: {why} ({remedy})")]
    Refused {
        /// The interface, and the queue where it matters.
        name: String,
        /// What was refused.
        what: &'static str,
        /// Why.
        why: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A refusal of the kernel that has none.
    #[error("{name}: {what}: {why} (see dmesg)")]
    Kernel {
        /// The interface, and the queue where it matters.
        name: String,
        /// What was refused.
        what: &'static str,
        /// The kernel's word.
        why: String,
    },
}

/// The line for `error`, met when doing `operation` on `name`.
#[must_use]
pub fn explain(operation: Operation, name: &str, error: &io::Error) -> PortError {
    let what = match operation {
        Operation::Memory => "making packet memory",
        Operation::Bind => "binding an AF_XDP socket",
        Operation::Probe => "asking about the interface",
        Operation::Offload => "switching an offload",
    };
    let refused = |why, remedy| PortError::Refused {
        name: name.to_owned(),
        what,
        why,
        remedy,
    };
    match (Errno::from_io_error(error), operation) {
        (Some(Errno::PERM | Errno::ACCESS), _) => refused(
            "not permitted",
            "run as root or with CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK",
        ),
        (Some(Errno::BUSY), Operation::Bind) => refused(
            "another AF_XDP socket holds this queue",
            "stop the program that owns it; `ss --xdp` lists them",
        ),
        (Some(Errno::NODEV | Errno::NXIO), _) => PortError::NoInterface(name.to_owned()),
        (Some(Errno::NOMEM), _) => refused(
            "out of memory",
            "lower umem.frames or rings, or the number of queues with `ethtool -L`",
        ),
        (Some(Errno::NOBUFS), _) => refused(
            "the limit of locked memory is reached",
            "grant CAP_IPC_LOCK or set LimitMEMLOCK=infinity",
        ),
        (Some(Errno::OPNOTSUPP), _) => refused(
            "the driver or the kernel cannot",
            "xdp_mode = \"generic\" works with every Ethernet driver",
        ),
        (Some(Errno::AFNOSUPPORT), _) => refused(
            "this kernel has no AF_XDP",
            "take one with CONFIG_XDP_SOCKETS=y",
        ),
        _ => PortError::Kernel {
            name: name.to_owned(),
            what,
            why: error.to_string(),
        },
    }
}

/// The line for `error`, met when mapping packet memory in huge pages on `name`.
#[must_use]
pub(super) fn explain_huge_pages(name: &str, error: &io::Error) -> PortError {
    if Errno::from_io_error(error) != Some(Errno::NOMEM) {
        return explain(Operation::Memory, name, error);
    }
    PortError::Refused {
        name: name.to_owned(),
        what: "making packet memory",
        why: "no huge pages are left",
        remedy: "raise the sysctl vm.nr_hugepages, or umem.huge_pages = false",
    }
}

/// The system's error behind an error of xsk-rs, which wraps it.
pub(super) fn cause(error: impl Error + Send + Sync + 'static) -> io::Error {
    let system = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    system.map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(operation: Operation, errno: Errno) -> String {
        explain(operation, "wan0", &io::Error::from(errno)).to_string()
    }

    #[test]
    fn every_known_cause_has_one_line_that_says_what_to_do() {
        let lines = [
            (
                line(Operation::Bind, Errno::PERM),
                "wan0: binding an AF_XDP socket: not permitted (run as root or with \
                 CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_IPC_LOCK)",
            ),
            (
                line(Operation::Bind, Errno::BUSY),
                "wan0: binding an AF_XDP socket: another AF_XDP socket holds this queue (stop \
                 the program that owns it; `ss --xdp` lists them)",
            ),
            (
                line(Operation::Probe, Errno::NODEV),
                "wan0: no such interface (`ip link` lists them)",
            ),
            (
                line(Operation::Memory, Errno::NOMEM),
                "wan0: making packet memory: out of memory (lower umem.frames or rings, or \
                 the number of queues with `ethtool -L`)",
            ),
            (
                line(Operation::Memory, Errno::NOBUFS),
                "wan0: making packet memory: the limit of locked memory is reached (grant \
                 CAP_IPC_LOCK or set LimitMEMLOCK=infinity)",
            ),
        ];
        for (got, expected) in lines {
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn an_unknown_cause_keeps_the_kernels_word() {
        let text = line(Operation::Bind, Errno::PROTO);
        assert!(text.contains("Protocol error"), "{text}");
    }
}
