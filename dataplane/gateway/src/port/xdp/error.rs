//! Why an XDP program could not be loaded, attached or told its tables: each cause with what to do.

use std::error::Error;
use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use thiserror::Error;

use super::occupant::Occupant;

/// What went wrong, as one line: WHAT: WHY (what to do).
#[derive(Debug, Error)]
pub enum ProgramError {
    /// ENODEV, and no interface of that name.
    #[error("{interface}: no such interface (`ip link` lists them)")]
    NoInterface {
        /// As configured.
        interface: String,
    },
    /// EPERM or EACCES.
    #[error(
        "{interface}: cannot {what}: not permitted (run as root or with {capabilities}; a \
         container or a locked-down kernel may withhold them)"
    )]
    Permission {
        /// As configured.
        interface: String,
        /// What was tried.
        what: &'static str,
        /// What it takes.
        capabilities: &'static str,
    },
    /// EBUSY or EEXIST: one program per interface and mode.
    #[error(
        "{interface}: its XDP hook is taken by {} (stop the service that loaded it, or `ip link \
         set dev {interface} xdp off` if nobody needs it)",
        describe(.occupant.as_ref())
    )]
    Occupied {
        /// As configured.
        interface: String,
        /// Who is there, if the kernel tells.
        occupant: Option<Occupant>,
    },
    /// EOPNOTSUPP in native mode.
    #[error(
        "{interface}: its driver runs no XDP program of this kind: {kind} (set xdp_mode = \
         \"generic\", or \"auto\" to fall back by itself)"
    )]
    Unsupported {
        /// As configured.
        interface: String,
        /// Native, with or without `frags`.
        kind: &'static str,
    },
    /// ERANGE, or EINVAL from drivers that do not say it better.
    #[error(
        "{interface}: its driver runs XDP only with a smaller MTU (lower the MTU of the interface \
         and of a veth's peer to 3500 or less, or use a driver and kernel with XDP frags)"
    )]
    Mtu {
        /// As configured.
        interface: String,
    },
    /// ENOSPC: a veth whose peer sends on more queues than this end receives on.
    #[error(
        "{interface}: it has fewer receive queues than its peer has transmit queues (`ethtool -L \
         {interface} rx N`)"
    )]
    Queues {
        /// As configured.
        interface: String,
    },
    /// The kernel is older than 5.9: a program attached without a link would outlive the gateway.
    #[error("{interface}: this kernel cannot attach XDP by a BPF link (use Linux 5.18 or newer)")]
    NoLink {
        /// As configured.
        interface: String,
    },
    /// The verifier refused the program.
    #[error(
        "{interface}: the kernel's verifier refused the XDP program: {log} (report it with the \
         kernel's version; Linux 5.18 or newer is needed)"
    )]
    Rejected {
        /// As configured.
        interface: String,
        /// The last lines of its log.
        log: String,
    },
    /// E2BIG or ENOSPC of a map.
    #[error("{interface}: map {map} of the XDP program is full ({limit} entries)")]
    Full {
        /// As configured.
        interface: String,
        /// Which map.
        map: &'static str,
        /// Its size.
        limit: u32,
    },
    /// Anything else the kernel answered.
    #[error("{interface}: cannot {what}: {reason} (see docs/KERNELS.md for what is needed)")]
    Other {
        /// As configured.
        interface: String,
        /// What was tried.
        what: &'static str,
        /// The chain of causes.
        reason: String,
    },
}

fn describe(occupant: Option<&Occupant>) -> String {
    occupant.map_or_else(|| "another program".to_owned(), ToString::to_string)
}

/// Capabilities that loading takes; attaching takes the second.
const LOADING: &str = "CAP_BPF and CAP_NET_ADMIN";

/// The error number that an error of aya stems from.
pub(super) fn error_number(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        // A transparent wrapper hides what it wraps from `source`.
        let wrapped = match current.downcast_ref() {
            Some(MapError::IoError(error)) => Some(error),
            _ => current.downcast_ref(),
        };
        if let Some(number) = wrapped.and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        cause = current.source();
    }
    None
}

/// All messages of a chain, shortest form: a transparent cause repeats its wrapper's text.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let message = current.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = current.source();
    }
    text
}

/// The end of a verifier's log says why; before it stands how it got there.
fn last_lines(log: &str) -> String {
    let is_statistic = |line: &&str| line.starts_with("processed ") || line.trim().is_empty();
    let lines: Vec<&str> = log.lines().filter(|line| !is_statistic(line)).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

impl ProgramError {
    pub(super) fn other(
        interface: &str,
        what: &'static str,
        error: &(dyn Error + 'static),
    ) -> Self {
        let interface = interface.to_owned();
        match error_number(error) {
            Some(libc::EPERM | libc::EACCES) => Self::Permission {
                interface,
                what,
                capabilities: LOADING,
            },
            Some(libc::ENODEV) => Self::NoInterface { interface },
            _ => Self::Other {
                interface,
                what,
                reason: chain(error),
            },
        }
    }

    /// Of creating the maps.
    pub(super) fn of_object(interface: &str, error: &EbpfError) -> Self {
        Self::other(interface, "create the maps of the XDP program", error)
    }

    /// Of loading the program. EACCES is the verifier's, unless it said nothing.
    pub(super) fn of_load(interface: &str, error: &aya::programs::ProgramError) -> Self {
        const WHAT: &str = "load the XDP program";
        match error {
            aya::programs::ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let log = last_lines(&verifier_log.to_string());
                if io_error.raw_os_error() == Some(libc::EPERM) || log.is_empty() {
                    return Self::other(interface, WHAT, error);
                }
                Self::Rejected {
                    interface: interface.to_owned(),
                    log,
                }
            }
            _ => Self::other(interface, WHAT, error),
        }
    }

    /// Of writing to a map.
    pub(super) fn of_map(interface: &str, map: &'static str, limit: u32, error: &MapError) -> Self {
        match error_number(error) {
            Some(libc::E2BIG | libc::ENOSPC) => Self::Full {
                interface: interface.to_owned(),
                map,
                limit,
            },
            _ => Self::other(interface, "write a map of the XDP program", error),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn occupied(occupant: Option<Occupant>) -> String {
        ProgramError::Occupied {
            interface: "wan0".to_owned(),
            occupant,
        }
        .to_string()
    }

    #[test]
    fn an_occupied_hook_names_its_program() {
        let occupant = Occupant {
            id: 7,
            name: "xdp_dispatcher".to_owned(),
        };
        assert_eq!(
            occupied(Some(occupant)),
            "wan0: its XDP hook is taken by program 7 (xdp_dispatcher) (stop the service that \
             loaded it, or `ip link set dev wan0 xdp off` if nobody needs it)"
        );
        assert!(
            occupied(Some(Occupant {
                id: 7,
                name: String::new()
            }))
            .contains("program 7 (")
        );
        assert!(occupied(None).contains("by another program"));
    }

    #[test]
    fn not_permitted_names_the_capabilities() {
        let error = MapError::IoError(io::Error::from_raw_os_error(libc::EPERM));
        let error = ProgramError::of_map("wan0", "local", 1, &error);
        assert!(
            error.to_string().contains("CAP_BPF and CAP_NET_ADMIN"),
            "{error}"
        );
    }

    #[test]
    fn a_full_map_is_named() {
        let error = MapError::IoError(io::Error::from_raw_os_error(libc::E2BIG));
        let error = ProgramError::of_map("wan0", "local", 65_536, &error);
        assert_eq!(
            error.to_string(),
            "wan0: map local of the XDP program is full (65536 entries)"
        );
    }

    #[test]
    fn a_verifier_log_is_cut_to_its_end() {
        let log = "0: r1\n1: r2\n2: r3\ninvalid access\n\nprocessed 3 insns (limit 1000000)\n";
        assert_eq!(last_lines(log), "1: r2; 2: r3; invalid access");
    }

    #[test]
    fn the_number_is_found_down_the_chain() {
        let error = io::Error::from_raw_os_error(libc::EBUSY);
        let error = aya::sys::SyscallError {
            call: "bpf_link_create",
            io_error: error,
        };
        let error = aya::programs::ProgramError::SyscallError(error);
        assert_eq!(error_number(&error).unwrap(), libc::EBUSY);
    }
}
