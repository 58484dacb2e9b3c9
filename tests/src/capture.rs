//! Captures of live traffic by tcpdump.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Namespace;
use crate::packets::{self, Frame};
use crate::shell;

/// A running capture of one interface, both directions. Dropping it ends it.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Capture {
    /// Starts capturing `interface` of `namespace` into `file`; returns when packets are seen.
    /// `filter` is in tcpdump's language, empty for everything.
    ///
    /// # Errors
    /// When tcpdump does not start to listen.
    pub fn start(ns: &Namespace, interface: &str, filter: &str, file: &Path) -> Result<Self> {
        let log = file.with_extension("tcpdump");
        let mut command = ns.command("tcpdump");
        // Immediate: else a block of packets that is not full yet is lost when tcpdump ends.
        // -Z root: else tcpdump becomes a user that may not write here. 64 MiB of buffer: a full
        // core of forwarding beside it must not cost the capture a packet.
        command.args([
            "-n",
            "--immediate-mode",
            "-U",
            "-Z",
            "root",
            "-s",
            "0",
            "-B",
            "65536",
            "-i",
            interface,
            "-w",
        ]);
        command.arg(file).args(filter.split_whitespace());
        let child = command
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn();
        let mut capture = Self {
            child: child?,
            file: file.to_owned(),
            log,
        };
        shell::wait_until("tcpdump to listen", Duration::from_secs(10), || {
            ensure!(
                capture.child.try_wait()?.is_none(),
                "tcpdump ended: {}",
                capture.said()
            );
            Ok(capture.said().contains("listening on"))
        })?;
        Ok(capture)
    }

    /// Ends the capture and returns its frames.
    ///
    /// # Errors
    /// When tcpdump fails, or says that it lost packets: such a capture proves nothing.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        // What the test has sent is in the socket's buffer, not yet in the file.
        std::thread::sleep(Duration::from_millis(300));
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process id")?;
        kill_process(pid, Signal::INT)?;
        self.child.wait()?;
        let said = self.said();
        ensure!(
            said.contains("\n0 packets dropped by kernel"),
            "the capture has gaps: {said}"
        );
        packets::read(&self.file)
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
