//! The results as one JSON document: what `report` renders, what other tools may read.
//!
//! `schema` changes when a name or a meaning does. Each section holds flat records, its command and
//! how long it took; a run of some sections leaves the others as they were.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use xipsec_tests::binary;

use super::section::Section;

/// Name and version of the form.
const SCHEMA: &str = "xipsec-bench/1";

/// The folder of the results.
pub(crate) fn folder() -> PathBuf {
    binary::target().join("bench")
}

/// All results so far.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    /// The machine of the latest run.
    pub(crate) machine: Value,
    sections: Map<String, Value>,
}

impl Document {
    /// Nothing measured yet.
    pub(crate) fn new(machine: Value) -> Self {
        Self {
            machine,
            sections: Map::new(),
        }
    }

    /// What the last run left, if its schema is ours.
    pub(crate) fn load() -> Result<Self> {
        let path = folder().join("report.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("no results yet: {} cannot be read", path.display()))?;
        Self::from_json(&serde_json::from_str(&text)?)
    }

    fn from_json(document: &Value) -> Result<Self> {
        let schema = document["schema"].as_str().unwrap_or("none");
        ensure!(schema == SCHEMA, "results of schema {schema}, not {SCHEMA}");
        Ok(Self {
            machine: document["machine"].clone(),
            sections: document["sections"]
                .as_object()
                .cloned()
                .unwrap_or_default(),
        })
    }

    fn to_json(&self) -> Value {
        json!({"schema": SCHEMA, "machine": self.machine, "sections": self.sections})
    }

    /// Writes it to its place.
    pub(crate) fn save(&self) -> Result<PathBuf> {
        fs::create_dir_all(folder())?;
        let path = folder().join("report.json");
        fs::write(&path, serde_json::to_string_pretty(&self.to_json())? + "\n")?;
        Ok(path)
    }

    /// Puts one section's results in place of earlier ones. `about` says how they were made.
    pub(crate) fn put(&mut self, section: Section, about: Value, results: &Value) {
        let mut entry = about;
        for key in ["records", "missing"] {
            entry[key] = results.get(key).cloned().unwrap_or_else(|| json!([]));
        }
        self.sections.insert(section.name().to_owned(), entry);
    }

    /// One section's results.
    pub(crate) fn section(&self, section: Section) -> Option<&Value> {
        self.sections.get(section.name())
    }

    /// One section's records; none if it was not measured.
    pub(crate) fn records(&self, section: Section) -> &[Value] {
        let records = self
            .section(section)
            .and_then(|it| it["records"].as_array());
        records.map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_stable() {
        let mut document = Document::new(json!({"cpu": "one"}));
        let about = json!({"command": "cargo xtask bench pipeline", "seconds": 2.5});
        let results = json!({"records": [{"kind": "size", "cycles": 1.5}], "missing": ["x"]});
        document.put(Section::Pipeline, about, &results);
        let json = document.to_json();
        assert_eq!(
            json.to_string(),
            "{\"schema\":\"xipsec-bench/1\",\"machine\":{\"cpu\":\"one\"},\"sections\":\
             {\"pipeline\":{\"command\":\"cargo xtask bench pipeline\",\"seconds\":2.5,\
             \"records\":[{\"kind\":\"size\",\"cycles\":1.5}],\"missing\":[\"x\"]}}}"
        );
        let again = Document::from_json(&json).map(|it| it.to_json());
        assert_eq!(again.ok(), Some(json));
        assert!(Document::from_json(&json!({"schema": "xipsec-bench/0"})).is_err());
        assert_eq!(document.records(Section::Pipeline).len(), 1);
        assert!(
            Document::new(json!({}))
                .records(Section::Pipeline)
                .is_empty()
        );
    }
}
