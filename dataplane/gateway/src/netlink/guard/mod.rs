//! The guard: what policy protects or discards stays blocked in the kernel's own path, whether
//! the gateway lives or not.
//!
//! AF_XDP and the host port never meet these rules. They stop what the kernel itself would carry
//! between the unprotected ports and anything else while no XDP program is attached, what it
//! forwards from interfaces that are no ports, and what the machine sends past the host port. They
//! are plain filter rules, independent of connection tracking, and leave other tables alone: an
//! accepted packet still meets the operator's own firewall.
//!
//! nftables is driven by its own tool, as by firewalld and others: its text is the interface that
//! is kept stable, and one file is one transaction. Hence there is no moment without rules when
//! they are replaced, and a refused file changes nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use ipsec::policy::PolicyParameters;

use crate::port::settings::Side;

mod text;
#[cfg(test)]
mod text_tests;

/// A port as the guard knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSide {
    /// The interface's name.
    pub name: String,
    /// Its side of the boundary.
    pub side: Side,
}

/// What the rules follow from.
#[derive(Clone, Copy, Debug)]
pub struct GuardParameters<'a> {
    /// Policies of both directions, in file order.
    pub policies: &'a [PolicyParameters],
    /// All ports.
    pub ports: &'a [PortSide],
    /// Addresses of the machine and UDP ports at which encapsulated ESP is taken: IKE shares them.
    pub encapsulation: &'a [(IpAddr, u16)],
    /// Whether what no policy selects is dropped between the two sides (`unmatched = "discard"`).
    pub discard_unmatched: bool,
}

/// Why there is no guard.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// No `nft` program.
    #[error("guard: nft cannot be started: {0} (install nftables, or set guard = \"open\")")]
    NotInstalled(String),
    /// `nft` or the kernel refused.
    #[error(
        "guard: nftables: {0} (a kernel with nf_tables and CAP_NET_ADMIN are needed, or set \
         guard = \"open\")"
    )]
    Refused(String),
    /// An interface name that would mean something else in a rule.
    #[error("guard: port {0:?}: its name cannot stand in a rule (rename the interface)")]
    PortName(String),
    /// The table's listing was not understood.
    #[error("guard: the listing of table inet xipsec was not understood: {0}")]
    Listing(String),
}

/// What a rule dropped since the guard was made, about: drops between the reading of a table's
/// counters and its replacement are not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardCount {
    /// The policy's name; `None`: the last rule of `unmatched = "discard"`.
    pub policy: Option<String>,
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// Packets and bytes by the comment of a rule.
type Counters = BTreeMap<String, (u64, u64)>;

/// The table `inet xipsec`. Dropping this leaves it where it is, which is the point of it.
#[derive(Debug, Default)]
pub struct Guard {
    loaded: Option<String>,
    /// Counters of tables that were replaced.
    retired: Counters,
}

impl Guard {
    /// Nothing loaded by this process yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the kernel's rules those of `parameters`, in one transaction, in the network
    /// namespace of the calling thread; does nothing if they are so already. Takes over a table
    /// that a crash left. Blocks for as long as `nft` takes, some milliseconds.
    ///
    /// # Errors
    /// All but [`GuardError::Listing`]; the rules are then as they were.
    pub fn load(&mut self, parameters: &GuardParameters<'_>) -> Result<(), GuardError> {
        let text = text::table(parameters)?;
        if self.loaded.as_ref() == Some(&text) {
            return Ok(());
        }
        let before = if self.loaded.is_some() {
            listed().ok()
        } else {
            None
        };
        nft(&["-f", "-"], &text)?;
        self.loaded = Some(text);
        for (comment, (packets, bytes)) in before.unwrap_or_default() {
            add(&mut self.retired, comment, packets, bytes);
        }
        Ok(())
    }

    /// What each rule dropped. Blocks as [`Guard::load`] does.
    ///
    /// # Errors
    /// [`GuardError::Refused`] when somebody else removed the table, and the rest.
    pub fn counts(&self) -> Result<Vec<GuardCount>, GuardError> {
        let mut counters = self.retired.clone();
        for (comment, (packets, bytes)) in listed()? {
            add(&mut counters, comment, packets, bytes);
        }
        let count = |(comment, (packets, bytes)): (String, (u64, u64))| GuardCount {
            policy: comment.strip_prefix(text::POLICY).map(str::to_owned),
            packets,
            bytes,
        };
        Ok(counters.into_iter().map(count).collect())
    }

    /// Removes the table: only for a clean stop, when nothing is left to protect.
    ///
    /// # Errors
    /// As [`Guard::load`].
    pub fn remove(self) -> Result<(), GuardError> {
        nft(&["-f", "-"], text::REMOVE).map(drop)
    }
}

fn add(counters: &mut Counters, comment: String, packets: u64, bytes: u64) {
    let sum = counters.entry(comment).or_default();
    sum.0 = sum.0.saturating_add(packets);
    sum.1 = sum.1.saturating_add(bytes);
}

/// The counters of the kernel's table.
fn listed() -> Result<Counters, GuardError> {
    let listing = nft(&["-j", "list", "table", "inet", "xipsec"], "")?;
    counters(&listing).map_err(|error| GuardError::Listing(error.to_string()))
}

/// The counters in a listing; several rules of one policy are summed up.
fn counters(listing: &str) -> serde_json::Result<Counters> {
    let listing: serde_json::Value = serde_json::from_str(listing)?;
    let mut counters = Counters::new();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        let rule = &object["rule"];
        let Some(comment) = rule["comment"].as_str() else {
            continue;
        };
        for statement in rule["expr"].as_array().into_iter().flatten() {
            let counter = &statement["counter"];
            if let (Some(packets), Some(bytes)) =
                (counter["packets"].as_u64(), counter["bytes"].as_u64())
            {
                add(&mut counters, comment.to_owned(), packets, bytes);
            }
        }
    }
    Ok(counters)
}

/// Where `nft` may be: an operator's search path need not hold the system's programs.
const PROGRAMS: [&str; 3] = ["nft", "/usr/sbin/nft", "/sbin/nft"];

/// Runs `nft` with this standard input; its standard output.
fn nft(arguments: &[&str], input: &str) -> Result<String, GuardError> {
    let mut why = String::new();
    for program in PROGRAMS {
        let child = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        if let Some(mut stdin) = child.stdin.take() {
            // If nft ends before it has read everything, its own words say why.
            drop(stdin.write_all(input.as_bytes()));
        }
        let output = child.wait_with_output();
        let output = output.map_err(|error| GuardError::NotInstalled(error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no reason given");
        return Err(GuardError::Refused(line.trim().to_owned()));
    }
    Err(GuardError::NotInstalled(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_a_listing() {
        let rule = |comment: &str, packets: u64| {
            format!(
                "{{\"rule\": {{\"chain\": \"inbound\", \"comment\": \"{comment}\", \"expr\": \
                 [{{\"match\": {{}}}}, {{\"counter\": {{\"packets\": {packets}, \"bytes\": \
                 {packets}00}}}}, {{\"drop\": null}}]}}}}"
            )
        };
        let listing = format!(
            "{{\"nftables\": [{{\"metainfo\": {{}}}}, {}, {}, {}, \
             {{\"rule\": {{\"expr\": []}}}}]}}",
            rule("policy:a", 3),
            rule("unmatched", 5),
            rule("policy:a", 4),
        );
        let wanted = [
            ("policy:a".to_owned(), (7, 700)),
            ("unmatched".to_owned(), (5, 500)),
        ];
        assert_eq!(counters(&listing).ok(), Some(Counters::from(wanted)));
        assert!(counters("").is_err());
        assert_eq!(counters("{}").ok(), Some(Counters::new()));
    }
}
