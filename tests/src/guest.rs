//! A second Linux kernel, with IPsec of its own: user-mode Linux as an ordinary process.
//!
//! Its root is this machine's file system, read only, so every program installed here runs in it
//! too. It boots in a few seconds and needs no disk image and no virtualisation. What it is told to
//! run comes as numbers of script files over a serial line, which is a pipe to here; end of file on
//! that line switches it off.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::netns::Namespace;
use crate::shell;

/// Debian's user-mode Linux (package `user-mode-linux`).
const KERNEL: &str = "/usr/bin/linux.uml";
/// Its modules, which are not where `modprobe` looks.
const MODULES: &str = "/usr/lib/uml/modules";
/// Python and a few thousand SAs fit.
const MEMORY: &str = "192M";
/// A boot takes three seconds on a quiet machine.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// Switching off takes a tenth of a second; a guest that hangs is killed.
const OFF_LIMIT: Duration = Duration::from_secs(3);

/// The first process of the guest; `SHARE` stands for the folder that both sides see.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t hostfs share /mnt -o SHARE || echo "no shared folder"
echo /mnt/modprobe > /proc/sys/kernel/modprobe
exec < /dev/ttyS0 > /dev/ttyS0 2>&1
stty raw -echo
ip link set lo up
echo ready
while read -r number; do
    sh "/mnt/$number.sh" > "/mnt/$number.out" 2>&1 < /dev/null
    echo "done $number $?"
done
echo o > /proc/sysrq-trigger
sleep 10
"#;

/// What the guest's kernel calls when it misses a module.
const MODPROBE: &str = "#!/bin/sh\nexec /sbin/modprobe -d /mnt/tree \"$@\"\n";

/// Why no guest runs here: a reason to skip a test, not to fail it.
#[derive(Debug)]
pub struct NoGuest(String);

impl fmt::Display for NoGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoGuest {}

/// What a script in the guest left.
#[derive(Debug)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// Both of its outputs.
    pub text: String,
}

/// A running guest. Dropping it switches it off.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    line: Option<ChildStdin>,
    answers: Receiver<String>,
    share: PathBuf,
    number: u32,
}

impl Guest {
    /// Boots a guest inside `namespace`, one NIC for each of `taps` there: `vec0`, `vec1` and so
    /// on. Its files live in `directory`.
    ///
    /// # Errors
    /// [`NoGuest`] when this machine cannot run one, and others when files cannot be written.
    pub fn boot(namespace: &Namespace, taps: &[&str], directory: &Path) -> Result<Self> {
        if let Some(why) = missing() {
            return Err(NoGuest(why).into());
        }
        let share = prepare(directory)?;
        let console = File::create(directory.join("console"))?;
        let mut command = namespace.command(KERNEL);
        command.args(boot_line(directory, taps));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.stderr(console).spawn();
        let mut child = child.with_context(|| format!("{KERNEL} does not start"))?;
        let line = child.stdin.take();
        let output = child.stdout.take().context("no serial line")?;
        let (say, answers) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for line in lines {
                if say.send(line.trim().to_owned()).is_err() {
                    break;
                }
            }
        });
        let guest = Self {
            child,
            line,
            answers,
            share,
            number: 0,
        };
        match guest.expect("ready", BOOT_LIMIT) {
            Ok(_) => Ok(guest),
            Err(error) => {
                let console = fs::read_to_string(directory.join("console")).unwrap_or_default();
                let tail: Vec<&str> = console.lines().rev().take(3).collect();
                let why = format!("the guest does not boot: {error:#}: {}", tail.join(" / "));
                Err(NoGuest(why).into())
            }
        }
    }

    /// Runs a shell script in the guest to its end.
    ///
    /// # Errors
    /// When the guest died, or the script takes longer than `limit`.
    pub fn run(&mut self, script: &str, limit: Duration) -> Result<Answer> {
        self.number += 1;
        let number = self.number;
        let file = |end: &str| self.share.join(format!("{number}.{end}"));
        let (commands, output) = (file("sh"), file("out"));
        fs::write(&commands, script)?;
        let line = self.line.as_mut().context("the guest is off")?;
        writeln!(line, "{number}").context("the guest does not listen")?;
        let said = self.expect(&format!("done {number} "), limit);
        let text = fs::read_to_string(output).unwrap_or_default();
        let said = said.with_context(|| format!("the guest ran:\n{script}\nand said:\n{text}"))?;
        Ok(Answer {
            status: said.trim().parse().context("no exit status")?,
            text,
        })
    }

    /// The same for a script that must succeed; returns what it said.
    ///
    /// # Errors
    /// As [`Guest::run`], and when its exit status is not 0.
    pub fn succeed(&mut self, script: &str, limit: Duration) -> Result<String> {
        let answer = self.run(script, limit)?;
        if answer.status != 0 {
            let Answer { status, text } = answer;
            bail!("the guest ran:\n{script}\nand said:\n{text}status {status}");
        }
        Ok(answer.text)
    }

    /// Puts a file where the guest's scripts find it: the returned path holds there.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn give(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String> {
        fs::write(self.share.join(name), content)?;
        Ok(format!("/mnt/{name}"))
    }

    /// Waits for a line that starts with `start` and returns the rest of it.
    fn expect(&self, start: &str, limit: Duration) -> Result<String> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return Ok(rest.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no {start:?} within {} s", limit.as_secs());
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the guest died"),
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        drop(self.line.take());
        let off = shell::wait_until("the guest to switch off", OFF_LIMIT, || {
            Ok(self.child.try_wait()?.is_some())
        });
        if off.is_err() {
            // Its other processes end with the namespace that they are in.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// What this machine lacks for guests, if it lacks anything.
pub fn missing() -> Option<String> {
    let needs = [
        (KERNEL, "package user-mode-linux"),
        (MODULES, "package user-mode-linux"),
        ("/sbin/modprobe", "package kmod"),
        ("/dev/net/tun", "the kernel's TUN driver"),
    ];
    let absent = needs
        .into_iter()
        .find(|(path, _)| !Path::new(path).exists());
    absent.map(|(path, what)| format!("no guest: {path} is missing ({what}; cargo xtask setup)"))
}

/// Writes what the guest starts from; returns the folder that both sides see.
fn prepare(directory: &Path) -> Result<PathBuf> {
    let share = directory.join("share");
    let tree = share.join("tree/lib/modules");
    fs::create_dir_all(&tree)?;
    for entry in fs::read_dir(MODULES)? {
        let entry = entry?;
        symlink(entry.path(), tree.join(entry.file_name()))?;
    }
    let init = INIT.replace("SHARE", &share.to_string_lossy());
    for (name, text) in [("init", init.as_str()), ("modprobe", MODPROBE)] {
        let path = share.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(share)
}

fn boot_line(directory: &Path, taps: &[&str]) -> Vec<String> {
    let directory = directory.display();
    let mut words: Vec<String> = [
        "root=/dev/root",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        "quiet",
        // Messages of the kernel go to the log, the serial line is ours alone.
        "con=null",
        "con0=null,fd:2",
        "ssl=null",
        "ssl0=fd:0,fd:1",
    ]
    .map(str::to_owned)
    .into();
    words.push(format!("mem={MEMORY}"));
    words.push(format!("init={directory}/share/init"));
    words.push(format!("uml_dir={directory}/uml"));
    words.push("umid=guest".to_owned());
    for (index, tap) in taps.iter().enumerate() {
        let mac = format!("02:00:00:00:0a:{index:02x}");
        let nic = format!("vec{index}:transport=tap,ifname={tap},depth=128,gro=0,mac={mac}");
        words.push(nic);
    }
    words
}
