//! The file's text, wiped when it is dropped, and its lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::report::ConfigError;

/// A configuration file in memory. Holds keys.
pub(super) struct Source {
    /// As it was named.
    pub(super) file: PathBuf,
    /// What it says.
    pub(super) text: Zeroizing<String>,
    line_starts: Vec<usize>,
}

impl Source {
    /// Reads a file of UTF-8.
    pub(super) fn read(file: &Path) -> Result<Self, ConfigError> {
        let bytes = read_wiped(file, usize::MAX).map_err(|error| ConfigError {
            file: file.to_path_buf(),
            line: 0,
            key: String::new(),
            why: format!("unreadable: {error} (the path of a file that may be read)"),
        })?;
        Self::from_bytes(file, bytes)
    }

    /// Takes bytes that were read already.
    pub(super) fn from_bytes(
        file: &Path,
        mut bytes: Zeroizing<Vec<u8>>,
    ) -> Result<Self, ConfigError> {
        let text = match String::from_utf8(std::mem::take(&mut *bytes)) {
            Ok(text) => Zeroizing::new(text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let bytes = Zeroizing::new(error.into_bytes());
                let line = 1 + bytes[..valid].iter().filter(|byte| **byte == b'\n').count();
                return Err(ConfigError {
                    file: file.to_path_buf(),
                    line,
                    key: String::new(),
                    why: String::from("not UTF-8 (a text file: TOML is UTF-8)"),
                });
            }
        };
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(position, _)| position + 1))
            .collect();
        Ok(Self {
            file: file.to_path_buf(),
            text,
            line_starts,
        })
    }

    /// The line, from 1, of the byte at `offset`.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }
}

/// Reads at most `limit` bytes of a file, leaving no copy behind: a buffer that is outgrown is
/// wiped before it is given back, which `Vec`'s own growth would not do.
pub(super) fn read_wiped(path: &Path, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let expected = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let mut buffer = Zeroizing::new(vec![0_u8; expected.min(limit).saturating_add(1)]);
    let mut length = 0;
    loop {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if length > limit {
            return Err(io::Error::other(format!("longer than {limit} bytes")));
        }
        if length == buffer.len() {
            let mut larger = Zeroizing::new(vec![0_u8; length.saturating_mul(2).max(4096)]);
            larger[..length].copy_from_slice(&buffer);
            buffer = larger;
        }
    }
    buffer.truncate(length);
    Ok(buffer)
}
