//! The build record: what the committed object was made from and with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The record, from the root of the repository.
const RECORD: &str = "ebpf/prebuilt/record.json";

/// Content of the record.
#[derive(Default)]
pub(super) struct Record {
    /// First line of the compiler's version.
    pub(super) compiler: String,
    /// That of bpf-linker.
    pub(super) linker: String,
    /// That of llvm-strip.
    pub(super) strip: String,
    /// SHA-256 of the object.
    pub(super) object: String,
    /// SHA-256 of every file under ebpf/, by its path from there.
    pub(super) sources: BTreeMap<String, String>,
}

impl Record {
    /// What the sources are now; no tools, no object.
    pub(super) fn of_sources(root: &Path) -> anyhow::Result<Self> {
        let mut record = Self::default();
        let base = root.join("ebpf");
        record.add_directory(&base, &base)?;
        Ok(record)
    }

    fn add_directory(&mut self, base: &Path, directory: &Path) -> anyhow::Result<()> {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.strip_prefix(base)?.to_string_lossy().into_owned();
            if path.is_dir() {
                // The result, and what a plain `cargo build` in there leaves.
                if name != "prebuilt" && name != "target" {
                    self.add_directory(base, &path)?;
                }
            } else {
                self.sources.insert(name, hash(&fs::read(&path)?));
            }
        }
        Ok(())
    }

    /// The committed one.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(root.join(RECORD)).context(RECORD)?;
        let value: Value = serde_json::from_str(&text).context(RECORD)?;
        let text = |key: &str| value[key].as_str().map(str::to_owned).unwrap_or_default();
        let sources = value["sources"]
            .as_object()
            .with_context(|| format!("{RECORD}: sources"))?;
        let source = |(name, hash): (&String, &Value)| {
            (name.clone(), hash.as_str().unwrap_or_default().to_owned())
        };
        Ok(Self {
            compiler: text("compiler"),
            linker: text("linker"),
            strip: text("strip"),
            object: text("object"),
            sources: sources.iter().map(source).collect(),
        })
    }

    /// Replaces the committed one.
    pub(super) fn write(&self, root: &Path) -> anyhow::Result<()> {
        let value = json!({
            "compiler": self.compiler,
            "linker": self.linker,
            "strip": self.strip,
            "object": self.object,
            "sources": self.sources,
        });
        let text = serde_json::to_string_pretty(&value)?;
        Ok(fs::write(root.join(RECORD), text + "\n")?)
    }

    /// The tools in one line: with the same ones the same bytes come out.
    pub(super) fn tools(&self) -> String {
        format!("{}, {}, {}", self.compiler, self.linker, self.strip)
    }
}

/// SHA-256 in hex.
pub(super) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
