//! How mistakes are told: one line each, with file, line and key, never with a key's bytes.

use std::fmt;
use std::path::PathBuf;

/// One mistake. `Display` is the line behind `xipsec: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Its line, from 1; 0: the file as a whole.
    pub line: usize,
    /// The key, with its inline table's name in front; empty: the file as a whole.
    pub key: String,
    /// What is wrong, and in parentheses what is accepted.
    pub why: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.why)
    }
}

impl std::error::Error for ConfigError {}

/// Longest text of the file that a message quotes, characters. Names take 64.
const QUOTED_CHARACTERS: usize = 64;

/// Hex digits in a row that could be a key: IPv6 groups have 4, MAC addresses without colons 12.
const KEY_DIGITS: usize = 16;

/// What the file says, quoted for a message. Texts that are long, hold control characters or could
/// be key material (somebody pasted a key into the wrong place) become `"…"`.
#[must_use]
pub fn quoted(text: &str) -> String {
    if shows(text) {
        format!("\"{text}\"")
    } else {
        String::from("\"…\"")
    }
}

/// A key of the file as messages name it; by the same rule as [`quoted`].
#[must_use]
pub fn named(key: &str) -> String {
    if !key.is_empty() && shows(key) {
        key.to_owned()
    } else {
        String::from("…")
    }
}

fn shows(text: &str) -> bool {
    let mut digits = 0;
    for (position, character) in text.chars().enumerate() {
        digits = if character.is_ascii_hexdigit() {
            digits + 1
        } else {
            0
        };
        if position >= QUOTED_CHARACTERS || digits >= KEY_DIGITS || character.is_control() {
            return false;
        }
    }
    true
}
