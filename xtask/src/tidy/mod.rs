//! `cargo xtask tidy`: the shape of the code, checked by a program instead of by reviewers.
//!
//! It reads text, not syntax: the tree is rustfmt clean, and that makes line-wise rules exact
//! enough. Every rule is a function from a file to findings.

mod documents;
mod imports;
mod lengths;
mod words;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use xipsec_tests::binary;

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 5] = [
    "target",
    "prebuilt",
    "corpus",
    "node_modules",
    "__pycache__",
];
/// Endings of the files that are read.
const READ: [&str; 6] = ["rs", "toml", "md", "py", "yml", "service"];

/// One text file of the repository.
pub(crate) struct Source {
    /// Path from the repository's root.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn has_ending(&self, ending: &str) -> bool {
        self.path.extension().is_some_and(|found| found == ending)
    }

    /// Index of the line from which on the file is test code; its length if there is none.
    fn tests_from(&self) -> usize {
        let name = self
            .path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        if name == "tests" || name.ends_with("_tests") {
            return 0;
        }
        let mut lines = self.text.lines();
        lines
            .position(|line| line.starts_with("#[cfg(test)]"))
            .unwrap_or(usize::MAX)
    }
}

/// Something that is not as it must be, or soon will not be.
struct Finding {
    path: PathBuf,
    line: usize,
    text: String,
    fatal: bool,
}

impl Finding {
    /// A finding that fails the run, at line index `line`.
    fn new(source: &Source, line: usize, text: String) -> Self {
        Self {
            path: source.path.clone(),
            line: line + 1,
            text,
            fatal: true,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.fatal { "" } else { "warning: " };
        write!(
            f,
            "{}:{}: {kind}{}",
            self.path.display(),
            self.line,
            self.text
        )
    }
}

/// Checks the tree and prints what is wrong.
pub(crate) fn run() -> Result<()> {
    let findings = check(binary::workspace())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    let fatal = findings.iter().filter(|finding| finding.fatal).count();
    if fatal > 0 {
        bail!("tidy: {fatal} findings");
    }
    Ok(())
}

/// All text files of the tree at `root`, in order of path.
pub(crate) fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    collect(root, root, &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn check(root: &Path) -> Result<Vec<Finding>> {
    let sources = sources(root)?;
    let mut findings = Vec::new();
    for source in &sources {
        lengths::check(source, &mut findings);
        words::check(source, &mut findings);
    }
    imports::check(&sources, &mut findings);
    documents::check(root, &sources, &mut findings);
    Ok(findings)
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_symlink() || name.starts_with('.') || SKIPPED.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, sources)?;
        } else if READ
            .iter()
            .any(|ending| path.extension().is_some_and(|found| found == *ending))
        {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let path = path.strip_prefix(root)?.to_owned();
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let findings = check(binary::workspace()).expect("the tree can be read");
        let fatal = findings
            .iter()
            .filter(|finding| finding.fatal)
            .map(Finding::to_string);
        let fatal: Vec<String> = fatal.collect();
        assert!(fatal.is_empty(), "{}", fatal.join("\n"));
    }
}
