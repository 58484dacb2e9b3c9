//! `cargo xtask compliance`: every requirement of the RFCs with the code that keeps it and the test
//! that would fail without it.
//!
//! The idea is s2n-quic's: citations stand in the code, a program joins them with the list. A test
//! that is cited runs in `cargo xtask test`, so cited means passing there.

mod citations;
mod document;
mod requirements;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use xipsec_tests::binary;

use crate::tidy;
use citations::{Citation, Kind};
use requirements::{Level, Requirement};

/// What the joined list is written to, from the repository's root.
const DOCUMENT: &str = "docs/COMPLIANCE.md";

/// How a requirement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Code and test are there.
    Passing,
    /// So they are, and some clause is excepted.
    PassingInPart,
    /// Not kept, with a reason.
    Exception,
    /// Code or test is missing.
    Open,
}

/// A requirement and what cites it.
struct Joined<'a> {
    requirement: &'a Requirement,
    code: Vec<&'a Citation>,
    tests: Vec<&'a Citation>,
    exceptions: Vec<(&'a str, &'a Citation)>,
}

impl<'a> Joined<'a> {
    fn new(requirement: &'a Requirement, citations: &'a [Citation]) -> Self {
        let mut joined = Self {
            requirement,
            code: Vec::new(),
            tests: Vec::new(),
            exceptions: Vec::new(),
        };
        let cites = |citation: &&Citation| citation.ids.contains(&requirement.id);
        for citation in citations.iter().filter(cites) {
            match &citation.kind {
                Kind::Code => joined.code.push(citation),
                Kind::Test => joined.tests.push(citation),
                Kind::Exception(why) => joined.exceptions.push((why, citation)),
            }
        }
        joined
    }

    fn status(&self) -> Status {
        let built = !self.code.is_empty() && !self.tests.is_empty();
        match (built, self.exceptions.is_empty()) {
            (true, true) => Status::Passing,
            (true, false) => Status::PassingInPart,
            (false, false) => Status::Exception,
            (false, true) => Status::Open,
        }
    }
}

/// Writes the document; fails when a citation is wrong or a MUST stands open.
pub(crate) fn run() -> Result<()> {
    let root = binary::workspace();
    let (text, problems) = compliance(root)?;
    fs::write(root.join(DOCUMENT), text).context(DOCUMENT)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    if !problems.is_empty() {
        bail!("compliance: {} findings", problems.len());
    }
    Ok(())
}

/// The document's text, and what must be mended first.
fn compliance(root: &Path) -> Result<(String, Vec<String>)> {
    let requirements = requirements::read(root)?;
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for source in tidy::sources(root)? {
        if source.has_ending("rs") && !source.path.starts_with("xtask/src/compliance") {
            let (citations, wrong) = citations::read(&source.path, &source.text);
            found.extend(citations);
            problems.extend(wrong);
        }
    }
    for citation in &found {
        let known = |id: &&String| requirements.iter().any(|known| known.id == **id);
        for id in citation.ids.iter().filter(|id| !known(id)) {
            let place = format!("{}:{}", citation.path.display(), citation.line);
            problems.push(format!("{place}: {id} is no requirement"));
        }
    }
    let joined: Vec<Joined<'_>> = requirements
        .iter()
        .map(|requirement| Joined::new(requirement, &found))
        .collect();
    for open in joined.iter().filter(|entry| entry.status() == Status::Open) {
        let Requirement { id, level, .. } = open.requirement;
        if matches!(level, Level::Must | Level::Should) {
            let lacks = match (open.code.is_empty(), open.tests.is_empty()) {
                (true, true) => "neither code nor test",
                (true, false) => "no code",
                _ => "no test",
            };
            problems.push(format!("{id} ({}) has {lacks}", level.name()));
        }
    }
    Ok((document::write(&joined), problems))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_requirement_lost_its_test_and_the_document_is_fresh() {
        let root = binary::workspace();
        let (text, problems) = compliance(root).expect("the tree can be read");
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        let written = fs::read_to_string(root.join(DOCUMENT)).expect("the document is there");
        assert!(
            written == text,
            "run `cargo xtask compliance` and commit {DOCUMENT}"
        );
    }
}
