//! What each section shows: tables, plots, and figures for the top of the page.

pub(super) mod change;
pub(super) mod peers;
pub(super) mod pipeline;
pub(super) mod stages;
pub(super) mod steering;
pub(super) mod wire;

use serde_json::Value;

/// Those of `records` whose members have these values.
fn such<'r>(records: &'r [Value], wanted: &[(&str, Value)]) -> Vec<&'r Value> {
    let fits = |record: &&Value| wanted.iter().all(|(key, value)| record[*key] == *value);
    records.iter().filter(fits).collect()
}

/// A record's figure; NaN where there is none.
fn figure(record: &Value, key: &str) -> f64 {
    record[key].as_f64().unwrap_or(f64::NAN)
}

/// A record's text.
fn text<'r>(record: &'r Value, key: &str) -> &'r str {
    record[key].as_str().unwrap_or("")
}

/// A record's count.
fn whole(record: &Value, key: &str) -> u64 {
    record[key].as_u64().unwrap_or(0)
}

/// The distinct values of a member, in the order in which they come.
fn distinct(records: &[&Value], key: &str) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for record in records {
        if !found.contains(&record[key]) {
            found.push(record[key].clone());
        }
    }
    found
}

#[cfg(test)]
pub(super) fn samples(section: crate::bench::section::Section) -> Vec<Value> {
    use crate::bench::section::Section;
    match section {
        Section::Crypto => stages::crypto_samples(),
        Section::Stages => stages::samples(),
        Section::Pipeline => pipeline::samples(),
        Section::Steering => steering::samples(),
        Section::Peers => peers::samples(),
        Section::Rekey | Section::Reconfigure => change::samples(),
        Section::Wire => wire::samples(),
    }
}
