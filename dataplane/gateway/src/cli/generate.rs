//! `xipsec generate`: a matching pair of configurations with fresh keys.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::cli::arguments::Generate;
use crate::cli::{FAILED, USAGE, complain};
use crate::config::prefix_of;

/// Writes left.toml and right.toml.
#[must_use]
pub fn run(arguments: &Generate) -> ExitCode {
    if let Err(why) = check(arguments) {
        complain(&why);
        return ExitCode::from(USAGE);
    }
    match write(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::from(FAILED)
        }
    }
}

fn check(arguments: &Generate) -> Result<(), String> {
    let Generate {
        left,
        right,
        left_net,
        right_net,
        ..
    } = arguments;
    if left.is_ipv4() != right.is_ipv4() {
        return Err(String::from(
            "--right: not of --left's family (two of one family)",
        ));
    }
    if left == right {
        return Err(String::from("--right: the same as --left (two gateways)"));
    }
    for (flag, address) in [("--left", left), ("--right", right)] {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            return Err(format!(
                "{flag}: {address} is no gateway's address (a unicast address)"
            ));
        }
    }
    let net = |flag: &str, text: &str| {
        prefix_of(text).ok_or_else(|| {
            format!("{flag}: no prefix (ADDRESS/LENGTH with host bits zero, like 10.1.0.0/16)")
        })
    };
    let left_net = net("--left-net", left_net)?;
    let right_net = net("--right-net", right_net)?;
    if left_net.version != right_net.version {
        return Err(String::from(
            "--right-net: not of --left-net's family (two of one family)",
        ));
    }
    if left_net.first <= right_net.last && right_net.first <= left_net.last {
        return Err(String::from(
            "--right-net: overlaps --left-net (two networks)",
        ));
    }
    Ok(())
}

fn write(arguments: &Generate) -> Result<(), String> {
    let there = Tunnel::draw()?;
    let back = Tunnel::draw()?;
    let left = Side {
        name: "left",
        address: arguments.left,
        net: &arguments.left_net,
    };
    let right = Side {
        name: "right",
        address: arguments.right,
        net: &arguments.right_net,
    };
    let mut builder = DirBuilder::new();
    let created = builder.recursive(true).mode(0o700).create(&arguments.out);
    created.map_err(|error| {
        format!(
            "{}: cannot create: {error} (a directory)",
            arguments.out.display()
        )
    })?;
    let left_file = arguments.out.join("left.toml");
    let right_file = arguments.out.join("right.toml");
    for file in [&left_file, &right_file] {
        if file.exists() {
            return Err(exists(file));
        }
    }
    create(&left_file, &render(&left, &right, &there, &back))?;
    create(&right_file, &render(&right, &left, &back, &there)).inspect_err(|_| {
        // Half a pair is of no use, and its keys must not lie about.
        drop(fs::remove_file(&left_file));
    })
}

fn exists(file: &Path) -> String {
    format!(
        "{}: exists (another directory: keys are never overwritten)",
        file.display()
    )
}

fn create(file: &PathBuf, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| {
        opened.write_all(text.as_bytes())?;
        opened.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(file),
        _ => format!(
            "{}: cannot write: {error} (a directory with room)",
            file.display()
        ),
    })
}

/// One gateway.
struct Side<'a> {
    name: &'static str,
    address: IpAddr,
    net: &'a str,
}

/// One direction.
struct Tunnel {
    spi: u32,
    key: Zeroizing<String>,
}

/// 16 bytes of AES key, 4 bytes of salt (RFC 4106 §8.1).
const KEY_BYTES: usize = 20;

impl Tunnel {
    fn draw() -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0_u8; KEY_BYTES]);
        let mut spi = [0_u8; 4];
        let random = SystemRandom::new();
        let drawn = random
            .fill(bytes.as_mut())
            .and_then(|()| random.fill(&mut spi));
        drawn.map_err(|_| String::from("random numbers: the system gives none (try again)"))?;
        let mut key = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for byte in bytes.iter() {
            for digit in [byte >> 4, byte & 15] {
                key.extend(char::from_digit(u32::from(digit), 16));
            }
        }
        // Away from the reserved ones, and from small numbers that people choose by hand.
        let spi = u32::from_be_bytes(spi) | 0x1000_0000;
        Ok(Self { spi, key })
    }
}

/// The configuration of `here`, whose packets to `far` go through `out` and come back through
/// `back`.
fn render(here: &Side<'_>, far: &Side<'_>, out: &Tunnel, back: &Tunnel) -> Zeroizing<String> {
    // Room for everything, so that no half of it is left behind by a move.
    let mut text = Zeroizing::new(String::with_capacity(8192));
    for part in [
        head(here, far).as_str(),
        &sa("out", here, far, out),
        &sa("in", far, here, back),
        &policies(here, far),
    ] {
        text.push_str(part);
    }
    text
}

fn head(here: &Side<'_>, far: &Side<'_>) -> Zeroizing<String> {
    let (name, far_name) = (here.name, far.name);
    Zeroizing::new(format!(
        r#"# {name}.toml: the {name} one of two xipsec gateways, written by `xipsec generate`.
# It holds secret keys: keep it at mode 0600, and give {far_name}.toml to the other gateway over a
# safe way.
#
#   {net} - {here} ===== {far} - {far_net}
#
# 1. Edit the names of the two ports.
# 2. xipsec check --config {name}.toml
# 3. xipsec state init --config {name}.toml      (once: these keys are fresh)
# 4. xipsec run --config {name}.toml

# Towards the other gateway: has the address {here}.
[[port]]
name = "wan0"
side = "unprotected"

# Towards {net}.
[[port]]
name = "lan0"
side = "protected"

"#,
        net = here.net,
        here = here.address,
        far = far.address,
        far_net = far.net,
    ))
}

fn sa(direction: &str, from: &Side<'_>, to: &Side<'_>, tunnel: &Tunnel) -> Zeroizing<String> {
    let meaning = if direction == "out" {
        "What we send. The same SA is the other gateway's `in`."
    } else {
        "What we receive. The same SA is the other gateway's `out`."
    };
    // 16 bytes of key and 4 of salt, in this order.
    Zeroizing::new(format!(
        r#"# {meaning}
[[sa]]
name = "{from}-to-{to}"
direction = "{direction}"
protocol = "esp"
mode = "tunnel"
spi = {spi:#010x}
source = "{source}"
destination = "{destination}"
encryption = "aes128gcm16"
encryption_key = "{key}"   # 16 bytes of key, 4 of salt
esn = true

"#,
        from = from.name,
        to = to.name,
        spi = tunnel.spi,
        source = from.address,
        destination = to.address,
        key = tunnel.key.as_str(),
    ))
}

fn policies(here: &Side<'_>, far: &Side<'_>) -> Zeroizing<String> {
    let policy = |direction: &str, word: &str, sa: String| {
        format!(
            r#"[[policy]]
name = "{word}-{far}"
direction = "{direction}"
action = "protect"
local = "{local}"
remote = "{remote}"
priority = 100
sa = ["{sa}"]
"#,
            far = far.name,
            local = here.net,
            remote = far.net,
        )
    };
    let out = policy("out", "to", format!("{}-to-{}", here.name, far.name));
    let back = policy("in", "from", format!("{}-to-{}", far.name, here.name));
    Zeroizing::new(format!(
        "# The traffic between the two networks, both ways.\n{out}\n{back}"
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failing test may panic")]

    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Config, Purpose, load, not_built};

    fn arguments(out: &Path, texts: [&str; 4]) -> Generate {
        let [left, left_net, right, right_net] = texts;
        Generate {
            left: left.parse().unwrap(),
            left_net: left_net.to_owned(),
            right: right.parse().unwrap(),
            right_net: right_net.to_owned(),
            out: out.to_path_buf(),
        }
    }

    fn read(file: &Path) -> Config {
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let config = load(file, Purpose::Run).unwrap();
        assert_eq!(not_built(&config), []);
        config
    }

    #[test]
    fn a_pair_is_clean_and_matches() {
        for texts in [
            ["192.0.2.1", "10.1.0.0/16", "192.0.2.2", "10.2.0.0/16"],
            ["2001:db8::1", "fd00:1::/64", "2001:db8::2", "fd00:2::/64"],
            ["192.0.2.1", "fd00:1::/64", "192.0.2.2", "fd00:2::/64"],
        ] {
            let folder = tempfile::tempdir().unwrap();
            let out = folder.path().join("new");
            write(&arguments(&out, texts)).unwrap();
            let (left, right) = (read(&out.join("left.toml")), read(&out.join("right.toml")));
            for (one, other) in [(&left, &right), (&right, &left)] {
                let (sends, receives) = (&one.sas[0], &other.sas[1]);
                assert_eq!((&sends.name, sends.spi), (&receives.name, receives.spi));
                assert_eq!(sends.source, receives.source);
                assert_eq!(
                    sends.encryption_key.expose(),
                    receives.encryption_key.expose()
                );
                assert!(sends.esn && receives.esn);
                let (to, from) = (&one.policies[0].selector, &other.policies[1].selector);
                assert_eq!((&to.local, &to.remote), (&from.remote, &from.local));
            }
            let keys = (&left.sas[0].encryption_key, &left.sas[1].encryption_key);
            assert_ne!(keys.0.expose(), keys.1.expose());
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let texts = ["192.0.2.1", "10.1.0.0/16", "192.0.2.2", "10.2.0.0/16"];
        fs::write(folder.path().join("right.toml"), "precious").unwrap();
        let refused = write(&arguments(folder.path(), texts)).unwrap_err();
        assert!(refused.ends_with("exists (another directory: keys are never overwritten)"));
        assert!(!folder.path().join("left.toml").exists());
        assert_eq!(
            fs::read(folder.path().join("right.toml")).unwrap(),
            b"precious"
        );
    }

    #[test]
    fn what_cannot_be_a_pair_is_refused() {
        for (texts, flag) in [
            (
                ["192.0.2.1", "10.1.0.0/16", "2001:db8::2", "10.2.0.0/16"],
                "--right:",
            ),
            (
                ["192.0.2.1", "10.1.0.0/16", "192.0.2.1", "10.2.0.0/16"],
                "--right:",
            ),
            (
                ["0.0.0.0", "10.1.0.0/16", "192.0.2.2", "10.2.0.0/16"],
                "--left:",
            ),
            (
                ["192.0.2.1", "10.1.0.1/16", "192.0.2.2", "10.2.0.0/16"],
                "--left-net:",
            ),
            (
                ["192.0.2.1", "10.1.0.0/16", "192.0.2.2", "fd00::/64"],
                "--right-net:",
            ),
            (
                ["192.0.2.1", "10.1.0.0/16", "192.0.2.2", "10.1.2.0/24"],
                "--right-net:",
            ),
        ] {
            let refused = check(&arguments(Path::new("unused"), texts)).unwrap_err();
            assert!(refused.starts_with(flag), "{refused}");
        }
    }
}
