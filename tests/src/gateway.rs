//! A running gateway: start, readiness, questions, stop, crash.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::netns::Namespace;
use crate::shell;

/// A start loads a BPF program and registers buffers; the rest of the time is the machine's load.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// A stop drains rings and writes state; longer than this it hangs.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// One `xipsec run` inside a namespace. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    binary: PathBuf,
    namespace: String,
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Gateway {
    /// Describes the gateway of `namespace`; the configuration must name `socket` as its control
    /// socket. Nothing runs yet.
    pub fn new(binary: &Path, namespace: &Namespace, config: &Path, socket: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            namespace: namespace.name().to_owned(),
            config: config.to_owned(),
            socket: socket.to_owned(),
            log: config.with_extension("log"),
            child: None,
        }
    }

    /// Path of its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Path of its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Declares its state directory fresh, as an operator does once.
    ///
    /// # Errors
    /// When `state init` refuses.
    pub fn init_state(&self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        shell::run(
            command
                .args(["state", "init", "--config"])
                .arg(&self.config),
        )
        .map(drop)
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// When the program cannot start.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the gateway runs already");
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.in_namespace();
        command.args(["run", "--config"]).arg(&self.config);
        let child = command.stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.context("xipsec does not start")?);
        Ok(())
    }

    /// Starts it and waits until every port forwards.
    ///
    /// # Errors
    /// When it ends before, or is not ready in time; the text holds its log.
    pub fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Waits until `status` says that every port forwards.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn wait_ready(&mut self) -> Result<()> {
        let ready = shell::wait_until("the gateway to be ready", READY_LIMIT, || {
            if let Some(status) = self.exited()? {
                bail!("xipsec run ended with {status}");
            }
            Ok(self.socket.exists() && self.ask(&["status"]).is_ok())
        });
        ready.with_context(|| format!("its log:\n{}", self.log()))
    }

    /// The exit status if it has ended.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(match &mut self.child {
            Some(child) => child.try_wait()?,
            None => None,
        })
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the gateway does not run")?;
        let pid = Pid::from_raw(i32::try_from(pid)?).context("no process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Stops it with SIGTERM and expects it to drain and exit with 0.
    ///
    /// # Errors
    /// When it hangs, or ends with anything else; the text holds its log.
    pub fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        shell::wait_until("the gateway to stop", STOP_LIMIT, || {
            Ok(self.exited()?.is_some())
        })
        .with_context(|| format!("its log:\n{}", self.log()))?;
        let status = self.child.take().context("no child")?.wait()?;
        ensure!(
            status.success(),
            "xipsec run ended with {status}; its log:\n{}",
            self.log()
        );
        Ok(())
    }

    /// Crashes it: `kill -9`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the gateway does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Leaves it running when this value is dropped.
    pub fn detach(mut self) -> Option<u32> {
        self.child.take().map(|child| child.id())
    }

    /// Runs `xipsec WORDS --socket PATH` and returns its standard output.
    ///
    /// # Errors
    /// When the command fails.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = self.in_namespace();
        shell::run(command.args(words).arg("--socket").arg(&self.socket))
    }

    /// The same with `--json`, parsed.
    ///
    /// # Errors
    /// When the command fails or prints anything but one JSON document.
    pub fn ask_json(&self, words: &[&str]) -> Result<Value> {
        let mut command = self.in_namespace();
        command
            .args(words)
            .args(["--json", "--socket"])
            .arg(&self.socket);
        let text = shell::run(&mut command)?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// `state show --json`, which needs no running gateway.
    ///
    /// # Errors
    /// As [`Gateway::ask_json`].
    pub fn ask_state(&self) -> Result<Value> {
        let mut command = Command::new(&self.binary);
        command
            .args(["state", "show", "--json", "--config"])
            .arg(&self.config);
        let text = shell::run(&mut command)?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// `stats --json`.
    ///
    /// # Errors
    /// As [`Gateway::ask_json`].
    pub fn stats(&self) -> Result<Value> {
        self.ask_json(&["stats"])
    }

    /// What it wrote to its outputs so far, over all its starts.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn in_namespace(&self) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(&self.binary);
        command
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}
