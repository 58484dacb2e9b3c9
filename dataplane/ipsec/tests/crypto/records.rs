//! Reads the files of answers: NIST's records and Wycheproof's JSON.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    assert!(digits.len().is_multiple_of(2), "half a byte: {text}");
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// One record of a `.rsp` file, with what the headings in front of it say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    pub(crate) place: String,
    fields: HashMap<String, String>,
    /// The record ends with the word FAIL.
    pub(crate) fails: bool,
}

impl Record {
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let value = self.fields.get(name);
        hex(value.unwrap_or_else(|| panic!("{}: no {name}", self.place)))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    pub(crate) fn number(&self, name: &str) -> usize {
        self.fields[name].parse().unwrap()
    }
}

/// The records of a `.rsp` file: blocks of `NAME = value`, parted by empty lines.
pub(crate) fn records(name: &str) -> Vec<Record> {
    let text = text(name);
    let (mut headings, mut records) = (HashMap::new(), Vec::new());
    for block in text.split("\n\n") {
        let mut record = Record::default();
        for line in block.lines().map(str::trim) {
            let bare = line.trim_start_matches('[').trim_end_matches(']');
            match bare.split_once('=') {
                Some((key, value)) => {
                    let field = (key.trim().to_string(), value.trim().to_string());
                    if line.starts_with('[') {
                        headings.insert(field.0, field.1);
                    } else {
                        record.fields.insert(field.0, field.1);
                    }
                }
                None => record.fails |= bare == "FAIL",
            }
        }
        if !record.fields.is_empty() {
            record.place = format!("{name} record {}", records.len() + 1);
            let inherited = headings
                .iter()
                .map(|(key, value)| (key.clone(), value.clone()));
            record.fields.extend(inherited);
            records.push(record);
        }
    }
    assert!(!records.is_empty(), "{name}");
    records
}

/// One test of a Wycheproof file.
pub(crate) struct Case {
    pub(crate) place: String,
    test: Value,
    /// The input is right and must be accepted; else it must be refused.
    pub(crate) valid: bool,
}

impl Case {
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let value = self.test[name].as_str();
        hex(value.unwrap_or_else(|| panic!("{}: no {name}", self.place)))
    }
}

pub(crate) fn wycheproof(name: &str) -> Vec<Case> {
    let document: Value = serde_json::from_str(&text(&format!("wycheproof/{name}"))).unwrap();
    let groups = document["testGroups"].as_array().unwrap();
    let tests = groups.iter().flat_map(|group| group["tests"].as_array());
    let cases: Vec<Case> = tests
        .flatten()
        .map(|test| Case {
            place: format!("{name} tcId {}", test["tcId"]),
            valid: match test["result"].as_str() {
                Some("valid") => true,
                Some("invalid") => false,
                other => panic!("{name}: result {other:?}"),
            },
            test: test.clone(),
        })
        .collect();
    assert_eq!(Some(cases.len() as u64), document["numberOfTests"].as_u64());
    cases
}
