//! Configuration files for the gateways under test, written table by table.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::suite::Suite;

/// Everything that one side of the test network is called.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// `left` or `right`.
    pub name: &'static str,
    /// The gateway's outer addresses, IPv4 and IPv6.
    pub wan: [&'static str; 2],
    /// The gateway's addresses on the protected side.
    pub lan: [&'static str; 2],
    /// The protected host's addresses.
    pub host: [&'static str; 2],
    /// The protected prefixes.
    pub net: [&'static str; 2],
    /// MAC addresses in replay: the gateway's outer port, its inner port, the host.
    pub macs: [&'static str; 3],
}

/// hostA and gwA.
pub const LEFT: Side = Side {
    name: "left",
    wan: ["192.0.2.1", "2001:db8:9::1"],
    lan: ["10.1.0.1", "fd00:1::1"],
    host: ["10.1.0.2", "fd00:1::2"],
    net: ["10.1.0.0/24", "fd00:1::/64"],
    macs: [
        "02:00:00:00:00:01",
        "02:00:00:00:01:01",
        "02:00:00:00:01:02",
    ],
};

/// hostB and gwB.
pub const RIGHT: Side = Side {
    name: "right",
    wan: ["192.0.2.2", "2001:db8:9::2"],
    lan: ["10.2.0.1", "fd00:2::1"],
    host: ["10.2.0.2", "fd00:2::2"],
    net: ["10.2.0.0/24", "fd00:2::/64"],
    macs: [
        "02:00:00:00:00:02",
        "02:00:00:00:02:01",
        "02:00:00:00:02:02",
    ],
};

/// An IP version; also the index into the address pairs of [`Side`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl Family {
    /// Position in an address pair.
    pub fn index(self) -> usize {
        self as usize
    }
}

/// One SA with its keys, as both the gateway and scapy need it.
#[derive(Clone, Debug)]
pub struct Sa {
    /// Its name in the configuration.
    pub name: String,
    /// `esp` or `ah`.
    pub protocol: &'static str,
    /// `tunnel` or `transport`.
    pub mode: &'static str,
    /// Its SPI.
    pub spi: u32,
    /// Outer source address.
    pub source: String,
    /// Outer destination address.
    pub destination: String,
    /// Its algorithms.
    pub suite: Suite,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Source and destination port of the UDP that ESP travels in, if it does.
    pub udp: Option<[u16; 2]>,
    /// Further lines of the table, such as `replay_window = 1024`.
    pub extra: Vec<String>,
    encryption_key: Vec<u8>,
    integrity_key: Vec<u8>,
}

impl Sa {
    /// An SA from one side's gateway to the other's. Keys follow from the SPI: runs are repeatable.
    pub fn fixed(spi: u32, from: &Side, to: &Side, outer: Family, suite: Suite) -> Self {
        let [.., low] = spi.to_be_bytes();
        let bytes = |tag: u8, count| -> Vec<u8> {
            let rest = (0_u8..=255).map(|at| at.wrapping_mul(7).wrapping_add(low ^ tag));
            [tag, low].into_iter().chain(rest).take(count).collect()
        };
        Self {
            name: format!("{}-to-{}", from.name, to.name),
            protocol: if suite.encryption.is_empty() {
                "ah"
            } else {
                "esp"
            },
            mode: "tunnel",
            spi,
            source: from.wan[outer.index()].to_owned(),
            destination: to.wan[outer.index()].to_owned(),
            suite,
            esn: false,
            udp: None,
            extra: Vec::new(),
            encryption_key: bytes(0x5e, suite.encryption_key_bytes),
            integrity_key: bytes(0xa1, suite.integrity_key_bytes),
        }
    }

    /// The same in transport mode.
    pub fn transport(mut self) -> Self {
        self.mode = "transport";
        self
    }

    /// The same with keys from the kernel's random source.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn random(mut self) -> Result<Self> {
        let mut source = File::open("/dev/urandom").context("no random source")?;
        source.read_exact(&mut self.encryption_key)?;
        source.read_exact(&mut self.integrity_key)?;
        Ok(self)
    }

    /// Its keys in hexadecimal, to look for them where they must not appear.
    pub fn keys_hex(&self) -> Vec<String> {
        let keys = [&self.encryption_key, &self.integrity_key];
        keys.into_iter()
            .filter(|key| !key.is_empty())
            .map(|key| hex(key))
            .collect()
    }

    /// What the scapy scripts read.
    pub fn scapy(&self) -> Value {
        let mut extra = self.extra.iter();
        let sequence = extra.find_map(|line| line.strip_prefix("sequence = ")?.parse::<u64>().ok());
        json!({
            "spi": self.spi,
            "source": self.source,
            "destination": self.destination,
            "cipher": self.suite.scapy_cipher,
            "protocol": self.protocol,
            "mode": self.mode,
            "encryption": self.suite.encryption,
            "integrity": self.suite.integrity,
            "cipher_key": hex(&self.encryption_key),
            "integrity_key": hex(&self.integrity_key),
            "iv_bytes": self.suite.iv_bytes,
            "icv_bytes": self.suite.icv_bytes,
            "esn": self.esn,
            "udp": self.udp,
            "sequence": sequence.unwrap_or(0),
        })
    }
}

/// A configuration file in the making.
#[derive(Clone, Debug, Default)]
pub struct Config {
    text: String,
}

impl Config {
    /// The `[dataplane]` table: `key = value` lines as TOML.
    pub fn dataplane(&mut self, lines: &[String]) -> &mut Self {
        self.table("[dataplane]", lines)
    }

    /// A `[[port]]`.
    pub fn port(&mut self, name: &str, side: &str, extra: &[String]) -> &mut Self {
        let mut lines = vec![text("name", name), text("side", side)];
        lines.extend_from_slice(extra);
        self.table("[[port]]", &lines)
    }

    /// A `[[sa]]` in `direction` (`in` or `out`).
    pub fn sa(&mut self, sa: &Sa, direction: &str) -> &mut Self {
        let mut lines = vec![
            text("name", &sa.name),
            text("direction", direction),
            text("protocol", sa.protocol),
            text("mode", sa.mode),
            format!("spi = {:#x}", sa.spi),
            text("source", &sa.source),
            text("destination", &sa.destination),
            format!("esn = {}", sa.esn),
        ];
        if !sa.suite.encryption.is_empty() {
            lines.push(text("encryption", sa.suite.encryption));
        }
        if !sa.encryption_key.is_empty() {
            lines.push(text("encryption_key", &hex(&sa.encryption_key)));
        }
        if !sa.suite.integrity.is_empty() {
            lines.push(text("integrity", sa.suite.integrity));
            lines.push(text("integrity_key", &hex(&sa.integrity_key)));
        }
        if let Some([source, destination]) = sa.udp {
            lines.push(format!(
                "udp_encapsulation = {{ source_port = {source}, destination_port = {destination} }}"
            ));
        }
        lines.extend_from_slice(&sa.extra);
        self.table("[[sa]]", &lines)
    }

    /// A `[[policy]]`; `extra` holds its optional keys, `sa` among them.
    pub fn policy(
        &mut self,
        [name, direction, action]: [&str; 3],
        [local, remote]: [&str; 2],
        priority: u32,
        extra: &[String],
    ) -> &mut Self {
        let mut lines = vec![
            text("name", name),
            text("direction", direction),
            text("action", action),
            text("local", local),
            text("remote", remote),
            format!("priority = {priority}"),
        ];
        lines.extend_from_slice(extra);
        self.table("[[policy]]", &lines)
    }

    /// A protect policy by one SA.
    pub fn protect(&mut self, name: &str, direction: &str, nets: [&str; 2], sa: &str) -> &mut Self {
        self.policy(
            [name, direction, "protect"],
            nets,
            100,
            &[format!("sa = [\"{sa}\"]")],
        )
    }

    /// A `[[neighbor]]`.
    pub fn neighbor(&mut self, port: &str, address: &str, mac: &str) -> &mut Self {
        let lines = [
            text("port", port),
            text("address", address),
            text("mac", mac),
        ];
        self.table("[[neighbor]]", &lines)
    }

    /// A `[[route]]`.
    pub fn route(&mut self, prefix: &str, port: &str, via: &str) -> &mut Self {
        let lines = [text("prefix", prefix), text("port", port), text("via", via)];
        self.table("[[route]]", &lines)
    }

    /// A table as it stands.
    pub fn table(&mut self, header: &str, lines: &[String]) -> &mut Self {
        let _infallible = writeln!(self.text, "{header}\n{}\n", lines.join("\n"));
        self
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&self, path: &Path) -> Result<()> {
        if path.exists() {
            fs::remove_file(path)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(self.text.as_bytes())?;
        Ok(())
    }
}

/// A TOML line with a string value.
pub fn text(key: &str, value: &str) -> String {
    format!("{key} = \"{value}\"")
}

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        let _infallible = write!(digits, "{byte:02x}");
        digits
    })
}
