//! What can go wrong with the state directory, each with what to do about it.

use std::io;
use std::path::PathBuf;

/// Why records cannot be read, written or trusted. The text is `WHAT: WHY (what to do)`.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error(
        "{}: cannot {action}: {error} \
         (state_dir must be a directory of the gateway's own)",
        .path.display()
    )]
    Io {
        /// What could not be used.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        error: io::Error,
    },
    /// The records are torn, garbled, or not ours.
    #[error(
        "{}: damaged: {why} (rekey; or, if the old keys must go on: \
         xipsec state accept-loss --all)",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Written by a later version.
    #[error("{}: format {version} (a version of xipsec that knows it)", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// Another process holds the lock.
    #[error(
        "{}: in use by another xipsec \
         (stop that one; two gateways never share it)",
        .path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A counter-mode key without a record, in a directory that nobody declared fresh.
    #[error(
        "sa {sa}: no record of its key in {}, so its IVs could repeat (a key never used before: \
         xipsec state init; lost records: xipsec state accept-loss --sa {sa})",
        .path.display()
    )]
    Undeclared {
        /// The directory.
        path: PathBuf,
        /// The SA.
        sa: String,
    },
    /// `state init` on a directory with something in it.
    #[error(
        "{}: not empty \
         (an empty directory; lost records: xipsec state accept-loss)",
        .path.display()
    )]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// Two SAs would count under one key.
    #[error("sa {sa}: its key is in use by another SA (a key of its own)")]
    KeyInUse {
        /// The SA.
        sa: String,
    },
    /// `--sa` names no SA of the configuration.
    #[error("sa {sa}: not in the configuration (the name of one of its SAs)")]
    UnknownSa {
        /// The name.
        sa: String,
    },
    /// The system gives no random numbers.
    #[error("random numbers: the system gives none (a kernel whose generator works)")]
    Random,
}
