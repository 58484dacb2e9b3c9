//! Network namespaces that clean up after themselves.

use std::fs;
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::files::{self, LASTING_PREFIX, PREFIX};
use crate::shell;

/// Where `ip netns` keeps its names.
const DIRECTORY: &str = "/run/netns";

/// One network namespace. Dropping it ends the processes in it and deletes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    keep: bool,
}

impl Namespace {
    /// A new namespace with the loopback device up, named `GROUP-ROLE`.
    ///
    /// # Errors
    /// When `ip netns add` is refused, for want of privileges or because the name is taken.
    pub fn new(group: &str, role: &str) -> Result<Self> {
        let name = format!("{group}-{role}");
        shell::run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name, keep: false };
        namespace.ip("link set lo up")?;
        // Each device of the wires decides for itself whether it speaks IPv6.
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0").ok();
        namespace
            .sysctl("net.ipv6.conf.default.accept_dad", "0")
            .ok();
        Ok(namespace)
    }

    /// Takes over a namespace that exists, for example one that `lab up` left.
    pub fn adopt(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            keep: true,
        }
    }

    /// The name under which `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the namespace in place when this value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// A command that will run inside, to be completed with arguments and outputs.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a line of words inside and returns its standard output.
    ///
    /// # Errors
    /// When the program cannot start or fails.
    pub fn run(&self, words: &str) -> Result<String> {
        let mut words = words.split_whitespace();
        let program = words.next().context("an empty command")?;
        shell::run(self.command(program).args(words))
    }

    /// Runs `ip ARGUMENTS` in the namespace's context.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        shell::run(
            Command::new("ip")
                .args(["-n", &self.name])
                .args(arguments.split_whitespace()),
        )
    }

    /// Sets one kernel parameter of the namespace.
    ///
    /// # Errors
    /// When the kernel has no such parameter or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.run(&format!("sysctl -qw {key}={value}")).map(drop)
    }

    /// Whether one echo request to `address` is answered within a second.
    pub fn pings(&self, address: &str) -> bool {
        self.run(&format!("ping -n -c 1 -W 1 {address}")).is_ok()
    }

    /// Waits until `address` answers pings.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn wait_for_ping(&self, address: &str, limit: Duration) -> Result<()> {
        let what = format!("{} to get an answer from {address}", self.name);
        shell::wait_until(&what, limit, || Ok(self.pings(address)))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            remove(&self.name);
        }
    }
}

/// A group name that no other run and no other caller in this run has.
pub fn unique_group(lasting: bool) -> String {
    let start = if lasting { LASTING_PREFIX } else { PREFIX };
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{start}{}-{serial}", process::id())
}

/// Ends every process in the namespace, by its id, and deletes the namespace. Never fails: what is
/// gone already is what was wanted.
pub fn remove(name: &str) {
    for round in 0..50 {
        let listed = shell::run(Command::new("ip").args(["netns", "pids", name]));
        let pids = listed.unwrap_or_default();
        let pids = pids.split_whitespace().filter_map(|word| word.parse().ok());
        let pids: Vec<Pid> = pids.filter_map(Pid::from_raw).collect();
        if pids.is_empty() {
            break;
        }
        let signal = if round < 25 {
            Signal::TERM
        } else {
            Signal::KILL
        };
        if round % 25 == 0 {
            for pid in pids {
                kill_process(pid, signal).ok();
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    shell::output(Command::new("ip").args(["netns", "del", name])).ok();
}

/// The namespaces of this harness that exist now and whose name starts with `start`.
pub fn existing(start: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

/// Removes what runs that were killed outright left behind: namespaces named after a process that
/// is no more.
pub fn sweep() {
    for name in existing(PREFIX) {
        if name.strip_prefix(PREFIX).is_some_and(files::owner_is_gone) {
            remove(&name);
        }
    }
    files::sweep();
}

/// Removes every namespace that this process has made, for an end at which no value is dropped.
pub fn remove_own() {
    for start in [PREFIX, LASTING_PREFIX] {
        let own = format!("{start}{}-", process::id());
        existing(&own).iter().for_each(|name| remove(name));
    }
}
