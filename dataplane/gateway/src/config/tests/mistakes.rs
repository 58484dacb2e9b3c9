//! `mistakes.txt`, case by case; the values of a whole file; files that cannot be read.

use std::fs;
use std::path::Path;

use ipsec::crypto::suite::{Encryption, Integrity};
use ipsec::policy::{Action, AddressSelector, PortSelector};
use ipsec::sa::association::Direction;

use super::{BASE, read, told};
use crate::config::{Purpose, load, not_built};

const CASES: &str = include_str!("mistakes.txt");

/// One case of the file.
struct Case<'t> {
    title: &'t str,
    purpose: Purpose,
    edits: Vec<&'t str>,
    answers: Vec<&'t str>,
}

fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in CASES.lines() {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case {
                title,
                purpose: Purpose::Check,
                edits: Vec::new(),
                answers: Vec::new(),
            });
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("> ") {
                Some(answer) => case.answers.push(answer),
                None if line == "for replay" => case.purpose = Purpose::Replay,
                None if line.is_empty() => {}
                None => case.edits.push(line),
            }
        }
    }
    cases
}

/// The base with a case's edits, which count lines of the base.
fn edited(edits: &[&str]) -> String {
    let mut lines: Vec<Option<String>> = BASE.lines().map(|line| Some(line.to_owned())).collect();
    for edit in edits {
        let end = edit
            .find(|it: char| !it.is_ascii_digit() && it != '-')
            .unwrap();
        let (first, last) = edit[..end]
            .split_once('-')
            .unwrap_or((&edit[..end], &edit[..end]));
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let text = edit[end + 1..].trim_start().replace('|', "\n");
        if edit[end..].starts_with('+') {
            let line = lines[last - 1].get_or_insert_default();
            line.push('\n');
            line.push_str(&text);
        } else {
            lines[first - 1..last].fill(None);
            lines[first - 1] = (!text.is_empty()).then_some(text);
        }
    }
    lines
        .into_iter()
        .flatten()
        .map(|line| line + "\n")
        .collect()
}

#[test]
fn every_mistake_is_told_with_line_key_and_what_is_accepted() {
    let mut blessed: String = CASES
        .split_inclusive('\n')
        .take_while(|line| !line.starts_with("=="))
        .collect();
    let mut wrong = Vec::new();
    for case in cases() {
        let answers = told(&edited(&case.edits), case.purpose);
        blessed.push_str(&format!("== {}\n", case.title));
        if case.purpose == Purpose::Replay {
            blessed.push_str("for replay\n");
        }
        for edit in &case.edits {
            blessed.push_str(&format!("{edit}\n"));
        }
        for answer in &answers {
            blessed.push_str(&format!("> {answer}\n"));
        }
        blessed.push('\n');
        if answers != case.answers {
            wrong.push(format!("{}\n{answers:#?}", case.title));
        }
    }
    if std::env::var_os("BLESS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/tests/mistakes.txt");
        fs::write(file, blessed.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
