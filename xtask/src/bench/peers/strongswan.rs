//! strongSwan with its own ESP in user space (kernel-libipsec): a daemon in both gateways, packets
//! through a TUN, ESP in UDP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use xipsec_tests::config::{LEFT, RIGHT, Side};
use xipsec_tests::netns::Namespace;
use xipsec_tests::shell;
use xipsec_tests::topology::Lab;

use super::program::{Guest, is_installed};

/// The daemon, where Debian has it.
const DAEMON: &str = "/usr/lib/ipsec/charon";

/// The plugin that encrypts.
const PLUGIN: &str = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so";

/// What it takes and is not there.
pub(super) fn lacks() -> Option<String> {
    let there = Path::new(DAEMON).exists() && Path::new(PLUGIN).exists();
    let there = there && is_installed("swanctl");
    (!there).then(|| {
        "not installed: apt-get install strongswan-charon strongswan-swanctl \
         strongswan-libcharon libstrongswan-standard-plugins libstrongswan-extra-plugins \
         libcharon-extra-plugins"
            .to_owned()
    })
}

/// Both daemons.
pub(super) struct Running {
    guests: [Guest; 2],
}

impl Running {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let left = End::new(lab, &lab.gate_a, [&LEFT, &RIGHT])?;
        let right = End::new(lab, &lab.gate_b, [&RIGHT, &LEFT])?;
        let running = Self {
            guests: [left.start()?, right.start()?],
        };
        for end in [&left, &right] {
            let loaded = end.load();
            loaded.with_context(|| running.said())?;
        }
        let mut command = left.control(&["--initiate", "--child", "t", "--timeout", "20"]);
        shell::run(&mut command).with_context(|| running.said())?;
        Ok(running)
    }

    /// What both daemons wrote.
    pub(super) fn said(&self) -> String {
        self.guests.iter().map(Guest::said).collect()
    }

    /// Ends both and removes their routes.
    pub(super) fn stop(self, lab: &Lab) {
        drop(self);
        restore(lab);
    }
}

/// The wires as they were before, however far a start came.
pub(super) fn restore(lab: &Lab) {
    for gate in [&lab.gate_a, &lab.gate_b] {
        gate.ip("link del ipsec0").ok();
        gate.ip("rule del table 220").ok();
        gate.ip("route flush table 220").ok();
    }
}

/// One daemon's files.
struct End<'a> {
    gate: &'a Namespace,
    folder: PathBuf,
}

impl<'a> End<'a> {
    fn new(lab: &Lab, gate: &'a Namespace, [own, peer]: [&Side; 2]) -> Result<Self> {
        let folder = lab.directory().join(format!("swan-{}", own.name));
        fs::create_dir_all(&folder)?;
        let end = Self { gate, folder };
        fs::write(end.folder.join("strongswan.conf"), end.daemon_settings())?;
        fs::write(end.folder.join("swanctl.conf"), connection(own, peer))?;
        Ok(end)
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.folder.join("vici").display())
    }

    fn daemon_settings(&self) -> String {
        format!(
            "charon {{\n  load = random nonce openssl aes sha1 sha2 hmac kdf gcm curve25519 pem \
             pkcs1 x509 pubkey kernel-libipsec kernel-netlink socket-default updown vici\n  \
             filelog {{\n    stderr {{\n      default = 1\n    }}\n  }}\n  plugins {{\n    vici \
             {{\n      socket = {}\n    }}\n  }}\n}}\nswanctl {{\n  load = pem pkcs1 x509 openssl \
             pubkey\n}}\n",
            self.socket()
        )
    }

    fn start(&self) -> Result<Guest> {
        // Its process id file has one place on the machine: a mount of this process's own hides it.
        let line = format!("mount -t tmpfs tmpfs /run; exec {DAEMON}");
        let mut command = self.gate.command("sh");
        command.args(["-c", &line]);
        command.env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"));
        let vici = self.folder.join("vici");
        fs::remove_file(&vici).ok();
        let guest = Guest::start(command, &self.folder.join("log"))?;
        shell::wait_until("charon to listen", Duration::from_secs(10), || {
            Ok(vici.exists())
        })
        .with_context(|| guest.said())?;
        Ok(guest)
    }

    fn control(&self, words: &[&str]) -> Command {
        let mut command = Command::new("swanctl");
        command.args(words).args(["--uri", &self.socket()]);
        command.env("STRONGSWAN_CONF", self.folder.join("strongswan.conf"));
        command
    }

    fn load(&self) -> Result<()> {
        let mut command = self.control(&["--load-all"]);
        command.arg("--file").arg(self.folder.join("swanctl.conf"));
        shell::run(&mut command).map(drop)
    }
}

fn connection(own: &Side, peer: &Side) -> String {
    let (name, other) = (own.name, peer.name);
    format!(
        "connections {{\n  t {{\n    version = 2\n    local_addrs = {}\n    remote_addrs = {}\n    \
         proposals = aes128gcm16-prfsha256-x25519\n    local {{\n      auth = psk\n      id = \
         {name}.lab\n    }}\n    remote {{\n      auth = psk\n      id = {other}.lab\n    }}\n    \
         children {{\n      t {{\n        local_ts = {}\n        remote_ts = {}\n        updown = \
         /bin/true\n        esp_proposals = aes128gcm16\n      }}\n    }}\n  }}\n}}\nsecrets {{\n  \
         ike-1 {{\n    id-a = {name}.lab\n    id-b = {other}.lab\n    secret = lab\n  }}\n}}\n",
        own.wan[0], peer.wan[0], own.net[0], peer.net[0]
    )
}
