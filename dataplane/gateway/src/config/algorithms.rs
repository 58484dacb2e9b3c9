//! Algorithms and keys of an SA: which go together, how long the keys are (RFC 8221).

use ipsec::crypto::suite::{Encryption, Integrity, Protocol, SALT_LENGTH, Suite};

use crate::config::reader::{Entry, Findings, Table};
use crate::config::report::quoted;
use crate::config::secrets::{self, Given, Key};

/// What an SA says of its algorithms. `None` where nothing, or a mistake, stands.
pub(super) struct Algorithms {
    pub(super) encryption: Option<Encryption>,
    pub(super) integrity: Option<Integrity>,
    pub(super) encryption_key: Option<Key>,
    pub(super) integrity_key: Option<Key>,
}

impl Algorithms {
    /// The suite, if it can serve in `protocol`.
    pub(super) fn suite(&self, protocol: Option<Protocol>) -> Option<Suite> {
        let encryption = match protocol? {
            Protocol::Esp => self.encryption?,
            Protocol::Ah => Encryption::Null,
        };
        let suite = Suite {
            encryption,
            integrity: self.integrity,
        };
        suite.check(protocol?).is_ok().then_some(suite)
    }
}

/// Reads `encryption`, `integrity` and their keys.
pub(super) fn read<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    protocol: Option<Protocol>,
    allow_legacy: bool,
) -> Algorithms {
    let encryption = read_encryption(found, table, protocol, allow_legacy);
    let integrity = read_integrity(found, table, protocol, encryption, allow_legacy);
    let encryption_key = read_encryption_key(found, table, protocol, encryption);
    let integrity_key = read_integrity_key(found, table, integrity);
    Algorithms {
        encryption: encryption.known(),
        integrity: integrity.known(),
        encryption_key,
        integrity_key,
    }
}

/// What stands there.
#[derive(Clone, Copy)]
enum Choice<T> {
    Nothing,
    Wrong,
    Known(T),
}

impl<T> Choice<T> {
    fn known(self) -> Option<T> {
        match self {
            Self::Known(algorithm) => Some(algorithm),
            Self::Nothing | Self::Wrong => None,
        }
    }
}

fn read_encryption<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    protocol: Option<Protocol>,
    allow_legacy: bool,
) -> Choice<Encryption> {
    let accepted = encryption_names();
    let Some(entry) = table.take(found, "encryption") else {
        if protocol == Some(Protocol::Esp) {
            table.missing(found, "encryption", &accepted);
            return Choice::Wrong;
        }
        return Choice::Nothing;
    };
    let Some(name) = entry.text(found, &accepted) else {
        return Choice::Wrong;
    };
    let Some(encryption) = Encryption::from_name(name) else {
        entry.refuse(found, format!("{} is unknown", quoted(name)), &accepted);
        return Choice::Wrong;
    };
    if protocol == Some(Protocol::Ah) {
        entry.refuse(
            found,
            "ah does not encrypt",
            "leave it out, or protocol esp",
        );
        return Choice::Wrong;
    }
    legacy(found, &entry, encryption.is_legacy(), name, allow_legacy);
    Choice::Known(encryption)
}

fn read_integrity<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    protocol: Option<Protocol>,
    encryption: Choice<Encryption>,
    allow_legacy: bool,
) -> Choice<Integrity> {
    let accepted = integrity_names(protocol);
    let Some(entry) = table.take(found, "integrity") else {
        match (protocol, encryption) {
            (Some(Protocol::Ah), _) => table.missing(found, "integrity", &accepted),
            (_, Choice::Known(encryption)) if !encryption.is_aead() => {
                let why = format!(
                    "{} brings no integrity of its own: {accepted}",
                    encryption.name()
                );
                table.missing(found, "integrity", &why);
            }
            _ => return Choice::Nothing,
        }
        return Choice::Wrong;
    };
    let Some(name) = entry.text(found, &accepted) else {
        return Choice::Wrong;
    };
    let Some(integrity) = Integrity::from_name(name) else {
        entry.refuse(found, format!("{} is unknown", quoted(name)), &accepted);
        return Choice::Wrong;
    };
    if let Choice::Known(encryption) = encryption
        && encryption.is_aead()
    {
        let why = format!("{} brings its own integrity", encryption.name());
        entry.refuse(found, why, "leave it out");
        return Choice::Wrong;
    }
    if protocol == Some(Protocol::Esp) && integrity.is_counter_mode() {
        let why = format!("in esp {name} is an encryption, not an integrity");
        entry.refuse(found, why, &accepted);
        return Choice::Wrong;
    }
    legacy(found, &entry, integrity.is_legacy(), name, allow_legacy);
    Choice::Known(integrity)
}

fn legacy<'d>(
    found: &mut Findings<'d>,
    entry: &Entry<'d>,
    is_legacy: bool,
    name: &str,
    allow_legacy: bool,
) {
    if !is_legacy {
        return;
    }
    if allow_legacy {
        let why = format!("{name} is legacy (RFC 8221): move to aes128gcm16");
        found.warning(entry.line, &entry.key, &why);
    } else {
        let accepted = "allow_legacy = true in [dataplane], or another algorithm";
        entry.refuse(found, format!("{name} is legacy"), accepted);
    }
}

fn read_encryption_key<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    protocol: Option<Protocol>,
    encryption: Choice<Encryption>,
) -> Option<Key> {
    let given = secrets::read(found, table, "encryption_key", "encryption_key_file");
    match (given, encryption) {
        (Given::Key(key), Choice::Known(encryption)) => {
            let salt = encryption.salt_length();
            check_length(
                found,
                &key,
                encryption.name(),
                encryption.key_length(),
                salt,
            );
            if encryption == Encryption::TripleDes && has_equal_parts(key.bytes.expose()) {
                let why = "equal parts make 3des des (three different parts of 8 bytes)";
                found.error(key.line, &key.name, why);
            }
            Some(key)
        }
        (Given::Key(key), Choice::Nothing) if protocol == Some(Protocol::Ah) => {
            let why = "ah does not encrypt (leave it out, or protocol esp)";
            found.error(key.line, &key.name, why);
            None
        }
        (Given::Key(key), _) => Some(key),
        (Given::Nothing, Choice::Known(encryption)) if encryption.key_length() > 0 => {
            let accepted = length_accepted(
                encryption.name(),
                encryption.key_length(),
                encryption.salt_length(),
            );
            table.missing(found, "encryption_key", &accepted);
            None
        }
        (Given::Nothing | Given::Wrong, _) => None,
    }
}

fn read_integrity_key<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    integrity: Choice<Integrity>,
) -> Option<Key> {
    let given = secrets::read(found, table, "integrity_key", "integrity_key_file");
    match (given, integrity) {
        (Given::Key(key), Choice::Known(integrity)) => {
            let salt = if integrity.is_counter_mode() {
                SALT_LENGTH
            } else {
                0
            };
            check_length(found, &key, integrity.name(), integrity.key_length(), salt);
            Some(key)
        }
        (Given::Key(key), Choice::Nothing) => {
            let why = "a key without integrity (leave it out)";
            found.error(key.line, &key.name, why);
            None
        }
        (Given::Key(key), Choice::Wrong) => Some(key),
        (Given::Nothing, Choice::Known(integrity)) => {
            let salt = if integrity.is_counter_mode() {
                SALT_LENGTH
            } else {
                0
            };
            let accepted = length_accepted(integrity.name(), integrity.key_length(), salt);
            table.missing(found, "integrity_key", &accepted);
            None
        }
        (Given::Nothing | Given::Wrong, _) => None,
    }
}

fn check_length(found: &mut Findings<'_>, key: &Key, name: &str, wanted: usize, salt: usize) {
    let given = key.bytes.len();
    if given != wanted {
        let accepted = length_accepted(name, wanted, salt);
        found.error(
            key.line,
            &key.name,
            format!("a key of {given} bytes ({accepted})"),
        );
    }
}

fn length_accepted(name: &str, wanted: usize, salt: usize) -> String {
    match (wanted, salt) {
        (0, _) => format!("{name} takes no key"),
        (_, 0) => format!(
            "{name} takes {wanted} bytes, that is {} hex digits",
            wanted * 2
        ),
        _ => format!(
            "{name} takes {wanted} bytes, that is {} hex digits, the last {salt} bytes salt",
            wanted * 2
        ),
    }
}

/// RFC 2451 §2.3: with equal neighbours 3DES is DES. The lowest bit of each byte is parity.
fn has_equal_parts(key: &[u8]) -> bool {
    let (parts, _) = key.as_chunks::<8>();
    parts.windows(2).any(|pair| {
        let mut bytes = pair[0].iter().zip(&pair[1]);
        bytes.all(|(one, other)| (one ^ other) & 0xfe == 0)
    })
}

fn encryption_names() -> String {
    Encryption::ALL.map(Encryption::name).join(" | ")
}

fn integrity_names(protocol: Option<Protocol>) -> String {
    let names: Vec<_> = Integrity::ALL
        .into_iter()
        .filter(|integrity| protocol != Some(Protocol::Esp) || !integrity.is_counter_mode())
        .map(Integrity::name)
        .collect();
    names.join(" | ")
}
