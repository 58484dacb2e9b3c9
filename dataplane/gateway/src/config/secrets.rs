//! Key bytes: from hex in the file or in a file of their own. No message shows any of them, also
//! not the type of a wrong digit's neighbours.

use std::borrow::Cow;
use std::path::Path;

use ipsec::secret::Secret;
use toml::de::DeValue;
use zeroize::Zeroizing;

use crate::config::reader::{Entry, Findings, Table, wrong_type};
use crate::config::source::read_wiped;

/// Longest key file: the longest key has 64 bytes; the rest is room for white space.
const KEY_FILE_BYTES: usize = 4096;

/// A key and where it stands.
pub(super) struct Key {
    pub(super) bytes: Secret,
    pub(super) line: usize,
    pub(super) name: String,
}

/// What the table has of one key.
pub(super) enum Given {
    /// Neither the key nor its file.
    Nothing,
    /// One of them, readable.
    Key(Key),
    /// Something, but wrong; already told.
    Wrong,
}

/// Takes `key` or `key_file`, whichever is there.
pub(super) fn read<'d>(
    found: &mut Findings<'d>,
    table: &mut Table<'d>,
    key: &'static str,
    key_file: &'static str,
) -> Given {
    let inline = table.take(found, key);
    let file = table.take(found, key_file);
    if let (Some(_), Some(file)) = (&inline, &file) {
        file.refuse(found, format!("together with {key}"), "one of the two");
    }
    match (inline, file) {
        (None, None) => Given::Nothing,
        (Some(entry), _) => given(&entry, inline_key(found, &entry)),
        (None, Some(entry)) => given(&entry, key_of_file(found, &entry)),
    }
}

fn given(entry: &Entry<'_>, bytes: Option<Secret>) -> Given {
    match bytes {
        Some(bytes) => Given::Key(Key {
            bytes,
            line: entry.line,
            name: entry.key.clone(),
        }),
        None => Given::Wrong,
    }
}

const HEX: &str = "an even number of hex digits, no prefix, no separators";

fn inline_key<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<Secret> {
    match entry.value.get_ref() {
        DeValue::String(Cow::Borrowed(text)) => {
            let key = decode(text.as_bytes());
            if key.is_none() {
                entry.refuse(found, "not hex", HEX);
            }
            key
        }
        // An escape makes the parser unfold the string into memory that nobody wipes.
        DeValue::String(Cow::Owned(_)) => {
            entry.refuse(found, "a string with escapes", HEX);
            None
        }
        other => {
            wrong_type(found, entry, other, "a string of hex digits");
            None
        }
    }
}

fn key_of_file<'d>(found: &mut Findings<'d>, entry: &Entry<'d>) -> Option<Secret> {
    let accepted = "the path of a file of hex digits, relative to this file";
    let path = entry.text(found, accepted)?;
    let folder = found.source.file.parent().unwrap_or_else(|| Path::new(""));
    match read_wiped(&folder.join(path), KEY_FILE_BYTES) {
        Ok(bytes) => {
            let key = decode(bytes.trim_ascii());
            if key.is_none() {
                entry.refuse(found, "the file is not hex", HEX);
            }
            key
        }
        Err(error) => {
            entry.refuse(found, format!("unreadable: {error}"), accepted);
            None
        }
    }
}

/// Hex in either case.
fn decode(digits: &[u8]) -> Option<Secret> {
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Zeroizing::new(vec![0; pairs.len()]);
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(Secret::new(std::mem::take(&mut *bytes)))
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        b'A'..=b'F' => Some(character - b'A' + 10),
        _ => None,
    }
}
