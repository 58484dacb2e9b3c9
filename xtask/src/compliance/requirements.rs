//! `docs/requirements.toml`, read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

/// Where the list lives, from the repository's root.
const LIST: &str = "docs/requirements.toml";

/// How strictly a requirement binds: the strictest of its clauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Must,
    Should,
    May,
    /// Beyond the RFCs.
    Ours,
}

impl Level {
    pub(super) const ALL: [Self; 4] = [Self::Must, Self::Should, Self::May, Self::Ours];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::Should => "SHOULD",
            Self::May => "MAY",
            Self::Ours => "ours",
        }
    }
}

/// One thing that the RFCs ask for.
#[derive(Debug)]
pub(super) struct Requirement {
    /// `T` and a number.
    pub(super) id: String,
    pub(super) level: Level,
    /// RFC and section.
    pub(super) source: String,
    /// The statement, in our words.
    pub(super) text: String,
}

/// Reads the list of the repository at `root`.
pub(super) fn read(root: &Path) -> Result<Vec<Requirement>> {
    parse(&fs::read_to_string(root.join(LIST)).context(LIST)?)
}

fn parse(text: &str) -> Result<Vec<Requirement>> {
    let table: Table = text.parse().context(LIST)?;
    let entries = table.get("requirement").and_then(Value::as_array);
    let entries = entries.context("no [[requirement]]")?;
    let found: Result<Vec<_>> = entries.iter().map(requirement).collect();
    let found = found?;
    for (index, entry) in found.iter().enumerate() {
        let twin = found[..index].iter().any(|other| other.id == entry.id);
        ensure!(!twin, "{} stands twice in {LIST}", entry.id);
    }
    Ok(found)
}

fn requirement(entry: &Value) -> Result<Requirement> {
    let member = |key: &str| -> Result<String> {
        let value = entry.get(key).and_then(Value::as_str);
        Ok(value
            .with_context(|| format!("no {key} in {entry}"))?
            .into())
    };
    let level = member("level")?;
    Ok(Requirement {
        id: member("id")?,
        level: Level::ALL
            .into_iter()
            .find(|known| known.name() == level)
            .with_context(|| format!("level {level} in {LIST}"))?,
        source: member("source")?,
        text: member("text")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str =
        "[[requirement]]\nid = 'T01'\nlevel = 'MUST'\nsource = 'RFC 1'\ntext = 'It is.'\n";

    #[test]
    fn an_entry_is_read_whole_and_once() {
        let list = parse(ENTRY).expect("it is well formed");
        assert_eq!((list[0].id.as_str(), list[0].level), ("T01", Level::Must));
        assert!(parse(&format!("{ENTRY}{ENTRY}")).is_err());
        assert!(parse(&ENTRY.replace("MUST", "must")).is_err());
    }
}
