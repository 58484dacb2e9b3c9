//! Words that stand for unfinished work, for a crash, or for a name that says nothing.

use super::lengths::function_name;
use super::{Finding, Source};

/// Never, anywhere. Written in two halves, else this file would be its own first finding.
const NEVER: [(&str, &str); 7] = [
    (concat!("todo", "!("), "unfinished"),
    (concat!("unimplemented", "!("), "unfinished"),
    (concat!("dbg", "!("), "left over from debugging"),
    (concat!("TO", "DO"), "an open end belongs into an issue"),
    (concat!("FIX", "ME"), "an open end belongs into an issue"),
    (concat!("#[allow", "("), "expect, with a reason"),
    (concat!("#![allow", "("), "expect, with a reason"),
];

/// Paths of one machine.
const PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
];

/// Names that say nothing.
const EMPTY_NAMES: [&str; 6] = ["util", "utils", "common", "misc", "helpers", "helper"];

/// Prefixes of function names that say nothing.
const EMPTY_PREFIXES: [&str; 3] = [
    concat!("get", "_"),
    concat!("do", "_"),
    concat!("handle", "_"),
];

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.text.lines().enumerate() {
        for path in PATHS.iter().filter(|path| line.contains(*path)) {
            findings.push(Finding::new(
                source,
                index,
                format!("a path of one machine: {path}"),
            ));
        }
        if source.has_ending("rs") || source.has_ending("py") {
            for (word, why) in NEVER.iter().filter(|(word, _)| line.contains(word)) {
                findings.push(Finding::new(source, index, format!("{word}: {why}")));
            }
        }
    }
    if source.has_ending("rs") {
        names(source, findings);
        crashes_and_prints(source, findings);
    }
}

fn names(source: &Source, findings: &mut Vec<Finding>) {
    let stem = source
        .path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if EMPTY_NAMES.contains(&stem) {
        findings.push(Finding::new(source, 0, format!("{stem} is a missing noun")));
    }
    for (index, line) in source.text.lines().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        if EMPTY_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            findings.push(Finding::new(
                source,
                index,
                format!("{name}: the prefix says nothing"),
            ));
        }
    }
}

/// `unwrap` and printing are for programs and tests, or come with an `expect` that says why.
fn crashes_and_prints(source: &Source, findings: &mut Vec<Finding>) {
    let path = source.path.to_string_lossy();
    let is_program = path.ends_with("src/main.rs") || path.contains("/src/bin/");
    // A fuzz target is a test whose cases a fuzzer writes.
    let is_test =
        path.contains("/tests/") || path.contains("/benches/") || path.starts_with("fuzz/");
    let unwraps = is_program || is_test || source.text.contains("expect(clippy::unwrap_used");
    let prints = is_program || is_test || path.starts_with("xtask/") || path.contains("/src/cli/");
    let prints = prints
        || source
            .text
            .contains(concat!("expect(clippy::", "print_stdout"));
    for (index, line) in source.text.lines().take(source.tests_from()).enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        if !unwraps && code.contains(concat!(".unwrap", "()")) {
            findings.push(Finding::new(
                source,
                index,
                "unwrap without an expectation".to_owned(),
            ));
        }
        let printing = code.starts_with("println!") || code.starts_with("print!");
        if !prints && printing {
            findings.push(Finding::new(
                source,
                index,
                "a library does not print".to_owned(),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(path: &str, text: &str) -> usize {
        let mut findings = Vec::new();
        check(
            &Source {
                path: path.into(),
                text: text.to_owned(),
            },
            &mut findings,
        );
        findings.len()
    }

    #[test]
    fn each_rule_finds_its_case() {
        assert_eq!(count("a/src/b.rs", concat!("x.unwrap", "();\n")), 1);
        assert_eq!(
            count("a/src/b.rs", concat!("#[cfg(test)]\nx.unwrap", "();\n")),
            0
        );
        assert_eq!(count("a/src/b.rs", "println!();\n"), 1);
        assert_eq!(count("a/src/main.rs", "println!();\n"), 0);
        assert_eq!(count("a/src/b.rs", concat!("todo", "!()\n")), 1);
        assert_eq!(count("a/src/b.rs", concat!("fn get", "_x() {}\n")), 1);
        assert_eq!(count("a/src/util.rs", "\n"), 1);
        assert_eq!(count("docs/a.md", concat!("see /ho", "me/x\n")), 1);
    }
}
