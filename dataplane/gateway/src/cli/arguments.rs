//! What can be typed.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Kernel-bypass IPsec gateway on AF_XDP.
#[derive(Debug, Parser)]
#[command(name = "xipsec", version, about, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the XDP program, bind the AF_XDP sockets, pin the workers, forward until SIGTERM
    Run {
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Validate a configuration file and print every error
    Check {
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the same pipeline over capture files: no root, no NIC, no kernel
    Replay(Replay),
    /// Write a matching pair of configurations with fresh keys for two gateways
    Generate(Generate),
    /// What outlives a restart: reserved sequence numbers and windows
    State {
        /// What to do
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Show the running gateway as a whole
    Status {
        /// Which gateway
        #[command(flatten)]
        read: Read,
    },
    /// Security associations
    Sa {
        /// What to do
        #[command(subcommand)]
        command: SaCommand,
    },
    /// Policies
    Policy {
        /// What to do
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Ports
    Port {
        /// What to do
        #[command(subcommand)]
        command: PortCommand,
    },
    /// Show counters, drops and the accounting
    Stats {
        /// Which gateway
        #[command(flatten)]
        read: Read,
    },
}

/// Which running gateway.
#[derive(Debug, Args)]
pub struct Target {
    /// Control socket of the gateway
    #[arg(
        long,
        value_name = "PATH",
        env = "XIPSEC_SOCKET",
        conflicts_with = "config"
    )]
    pub socket: Option<PathBuf>,
    /// Configuration file that names the control socket
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which running gateway to read, and how to show it.
#[derive(Debug, Args)]
pub struct Read {
    /// Which gateway
    #[command(flatten)]
    pub target: Target,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `xipsec replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Capture that arrives at a port (or `host`); may be given several times
    #[arg(long = "in", value_name = "PORT=PCAP", value_parser = pair)]
    pub inputs: Vec<(String, PathBuf)>,
    /// Capture to write of what a port (or `host`) sends
    #[arg(long = "out", value_name = "PORT=PCAP", value_parser = pair)]
    pub outputs: Vec<(String, PathBuf)>,
    /// Capture to write of every dropped packet, with the reason as its comment (pcapng)
    #[arg(long, value_name = "PCAP")]
    pub drops: Option<PathBuf>,
    /// Print counters as one JSON document
    #[arg(long)]
    pub json: bool,
    /// Use keys that a gateway's state directory has a record of
    #[arg(long)]
    pub reuse_keys: bool,
}

/// `xipsec generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Outer address of the left gateway
    #[arg(long, value_name = "ADDRESS")]
    pub left: IpAddr,
    /// Network behind the left gateway
    #[arg(long, value_name = "PREFIX")]
    pub left_net: String,
    /// Outer address of the right gateway
    #[arg(long, value_name = "ADDRESS")]
    pub right: IpAddr,
    /// Network behind the right gateway
    #[arg(long, value_name = "PREFIX")]
    pub right_net: String,
    /// Directory for left.toml and right.toml
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `xipsec state`.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Show what is reserved
    Show {
        /// Configuration file that names the state directory
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Declare an empty state directory fresh: no key of the file was ever used
    Init {
        /// Configuration file that names the state directory
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Override lost records with new IV masks
    AcceptLoss {
        /// Configuration file that names the state directory
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// One SA
        #[arg(
            long,
            value_name = "NAME",
            conflicts_with = "all",
            required_unless_present = "all"
        )]
        sa: Option<String>,
        /// Every SA
        #[arg(long)]
        all: bool,
    },
}

/// `xipsec sa`.
#[derive(Debug, Subcommand)]
pub enum SaCommand {
    /// List the SAs
    List {
        /// Which gateway
        #[command(flatten)]
        read: Read,
    },
    /// Send packets that carry nothing, to hide how much traffic there is
    Dummy {
        /// Which gateway
        #[command(flatten)]
        target: Target,
        /// An outbound ESP SA
        name: String,
        /// How many
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
    },
}

/// `xipsec policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// List the policies in the order of their priority
    List {
        /// Which gateway
        #[command(flatten)]
        read: Read,
    },
}

/// `xipsec port`.
#[derive(Debug, Subcommand)]
pub enum PortCommand {
    /// List the ports
    List {
        /// Which gateway
        #[command(flatten)]
        read: Read,
    },
}

fn pair(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((port, file)) if !port.is_empty() && !file.is_empty() => {
            Ok((port.to_owned(), PathBuf::from(file)))
        }
        _ => Err("PORT=PCAP expected".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_pair_has_both_halves() {
        assert_eq!(pair("wan0=a=b"), Ok(("wan0".into(), "a=b".into())));
        assert!(pair("wan0").is_err() && pair("=x").is_err() && pair("x=").is_err());
    }
}
