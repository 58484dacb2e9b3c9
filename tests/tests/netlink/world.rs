//! Namespaces joined by veth pairs, and threads that live in them.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Why live tests cannot run here, if so; says it.
pub(super) fn skip(test: &str) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "needs root"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "needs ip (apt install iproute2)"
    } else {
        return false;
    };
    println!("SKIPPED {test}: {why}");
    true
}

/// A network namespace, deleted when dropped.
pub(super) struct Namespace {
    /// Its name for `ip -n`.
    pub(super) name: String,
}

impl Namespace {
    pub(super) fn new() -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("xnl{}-{count}", std::process::id());
        check(
            &Command::new("ip")
                .args(["netns", "add", &name])
                .output()
                .unwrap(),
        );
        let namespace = Self { name };
        namespace.ip("link set lo up");
        // Addresses are usable at once.
        namespace.sysctl("net.ipv6.conf.default.accept_dad=0");
        namespace
    }

    /// Runs `ip` inside; panics if it fails.
    pub(super) fn ip(&self, arguments: &str) -> String {
        let arguments = arguments.split_whitespace();
        check(
            &Command::new("ip")
                .args(["-n", &self.name])
                .args(arguments)
                .output()
                .unwrap(),
        )
    }

    /// Runs many `ip` commands inside, one a line.
    pub(super) fn ip_batch(&self, commands: &str) {
        let mut ip = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        ip.stdin
            .take()
            .unwrap()
            .write_all(commands.as_bytes())
            .unwrap();
        check(&ip.wait_with_output().unwrap());
    }

    /// A command that will run inside.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs a program inside; whether it succeeded.
    pub(super) fn try_run(&self, command: &str) -> bool {
        let mut words = command.split_whitespace();
        let mut command = self.command(words.next().unwrap());
        command.args(words).output().unwrap().status.success()
    }

    /// Runs a program inside; panics if it fails.
    pub(super) fn run(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        check(
            &self
                .command(words.next().unwrap())
                .args(words)
                .output()
                .unwrap(),
        )
    }

    /// Sets a kernel setting of the namespace.
    pub(super) fn sysctl(&self, setting: &str) {
        self.run(&format!("sysctl -qw {setting}"));
    }

    /// Runs a function on a thread of its own inside.
    pub(super) fn enter<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), kind).unwrap();
                run()
            });
            match inside.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs an asynchronous function inside, on a runtime like the control thread's.
    pub(super) fn block_on<T: Send>(&self, run: impl AsyncFnOnce() -> T + Send) -> T {
        self.enter(|| {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(run())
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The name may be gone already; nothing else can be done about it here.
        drop(
            Command::new("ip")
                .args(["netns", "delete", &self.name])
                .output(),
        );
    }
}

/// Joins two namespaces by a veth pair; both ends are up.
pub(super) fn join(left: &Namespace, left_name: &str, right: &Namespace, right_name: &str) {
    left.ip(&format!(
        "link add {left_name} type veth peer name {right_name} netns {}",
        right.name
    ));
    left.ip(&format!("link set {left_name} up"));
    right.ip(&format!("link set {right_name} up"));
}

fn check(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
