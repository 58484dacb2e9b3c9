//! A module imports only from modules that stand before it in its crate's `lib.rs`, and the stages
//! of one direction never import each other.

use std::path::{Component, Path, PathBuf};

use super::{Finding, Source};

/// Folders whose files are stages: only their `mod.rs` sees them all.
const STAGES: [&str; 2] = [
    "dataplane/ipsec/src/inbound",
    "dataplane/ipsec/src/outbound",
];

pub(super) fn check(sources: &[Source], findings: &mut Vec<Finding>) {
    for root in sources
        .iter()
        .filter(|source| source.path.ends_with("src/lib.rs"))
    {
        let Some(folder) = root.path.parent() else {
            continue;
        };
        let order = modules(&root.text);
        for source in sources
            .iter()
            .filter(|source| is_rust_below(&source.path, folder))
        {
            backwards_only(source, folder, &order, findings);
        }
    }
    for folder in STAGES {
        stages_apart(sources, Path::new(folder), findings);
    }
}

fn is_rust_below(path: &Path, folder: &Path) -> bool {
    let program = path.ends_with("main.rs") || path.ends_with("lib.rs");
    let binary = path.starts_with(folder.join("bin"));
    path.starts_with(folder)
        && path.extension().is_some_and(|end| end == "rs")
        && !program
        && !binary
}

/// Names of the modules that a file declares, in its order.
fn modules(text: &str) -> Vec<&str> {
    let declared = |line: &'_ str| -> Option<(usize, usize)> {
        let start = line.find("mod ")? + 4;
        let before = &line[..start - 4];
        let plain = before.is_empty() || before == "pub " || before.starts_with("pub(");
        (plain && line.ends_with(';')).then(|| (start, line.len() - 1))
    };
    text.lines()
        .filter_map(|line| declared(line).map(|(start, end)| &line[start..end]))
        .collect()
}

/// Path of a file's module below the crate root: `worker/pin.rs` and `worker/mod.rs` begin with
/// `worker`.
fn module_path(path: &Path, folder: &Path) -> Vec<String> {
    let inside = path.strip_prefix(folder).unwrap_or(path).with_extension("");
    let names = inside.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    });
    names
        .filter(|name| *name != "mod")
        .map(str::to_owned)
        .collect()
}

fn backwards_only(source: &Source, folder: &Path, order: &[&str], findings: &mut Vec<Finding>) {
    let own_path = module_path(&source.path, folder);
    let Some(own) = own_path.first().and_then(|name| position(order, name)) else {
        return;
    };
    let code: Vec<&str> = source.text.lines().take(source.tests_from()).collect();
    for (line, name) in crate_names(&code, own_path.len()) {
        if position(order, &name).is_some_and(|used| used > own) {
            let text = format!("{} imports from {name}, which stands after it", order[own]);
            findings.push(Finding::new(source, line, text));
        }
    }
}

fn position(order: &[&str], name: &str) -> Option<usize> {
    order.iter().position(|module| *module == name)
}

/// Every first name behind `crate::`, or behind as many `super::` as lead to the crate's root, with
/// its line index. `depth` is the number of modules above the file, itself included.
fn crate_names(code: &[&str], depth: usize) -> Vec<(usize, String)> {
    let prefixes = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut names = Vec::new();
    for (line, text) in code.iter().enumerate() {
        if text.trim_start().starts_with("//") {
            continue;
        }
        for prefix in &prefixes {
            for (at, _) in text.match_indices(prefix.as_str()) {
                if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                let behind = &text[at + prefix.len()..];
                if let Some(list) = behind.strip_prefix('{') {
                    names.extend(listed(list, &code[line + 1..]).map(|name| (line, name)));
                } else {
                    names.push((line, first_name(behind)));
                }
            }
        }
    }
    names
}

/// First names of the entries of a braced list that starts in `first` and may go on in `rest`.
fn listed(first: &str, rest: &[&str]) -> impl Iterator<Item = String> {
    let (mut depth, mut entry, mut entries) = (1, String::new(), Vec::new());
    let all = std::iter::once(first).chain(rest.iter().copied());
    for c in all.flat_map(str::chars) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => entries.push(std::mem::take(&mut entry)),
            _ if depth == 1 => entry.push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    entries.push(entry);
    entries.into_iter().map(|entry| first_name(entry.trim()))
}

fn first_name(path: &str) -> String {
    path.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn stages_apart(sources: &[Source], folder: &Path, findings: &mut Vec<Finding>) {
    let is_stage = |path: &PathBuf| {
        path.starts_with(folder) && !path.ends_with("mod.rs") && !path.ends_with("tests.rs")
    };
    let direction = folder
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let stage = |path: &Path| {
        module_path(path, folder)
            .first()
            .cloned()
            .unwrap_or_default()
    };
    let stages: Vec<&Source> = sources
        .iter()
        .filter(|source| is_stage(&source.path))
        .collect();
    // What has no `run` is no stage but something that stages share.
    let runs = stages
        .iter()
        .filter(|source| source.text.contains("fn run("));
    let names: Vec<String> = runs.map(|source| stage(&source.path)).collect();
    for source in &stages {
        let own = stage(&source.path);
        for (line, text) in source.text.lines().take(source.tests_from()).enumerate() {
            let other = names.iter().filter(|name| **name != own).find(|name| {
                let used = |path: String| {
                    let at = text.find(&path).map(|at| at + path.len());
                    at.is_some_and(|end| !text[end..].starts_with(|c: char| c.is_alphanumeric()))
                };
                used(format!("super::{name}")) || used(format!("crate::{direction}::{name}"))
            });
            if let Some(other) = other {
                let text = format!("stage {own} imports stage {other}");
                findings.push(Finding::new(source, line, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let sources = files.iter().map(|(path, text)| Source {
            path: path.into(),
            text: (*text).to_owned(),
        });
        let mut findings = Vec::new();
        check(&sources.collect::<Vec<_>>(), &mut findings);
        findings
            .iter()
            .map(|finding| format!("{}:{}", finding.path.display(), finding.line))
            .collect()
    }

    const ROOT: (&str, &str) = ("a/src/lib.rs", "pub mod low;\n\nmod high;\n");

    #[test]
    fn backwards_edges_are_found_in_every_form() {
        for text in [
            "use crate::high::X;\n",
            "use crate::{low, high};\n",
            "use crate::{\n    low::{A, B},\n    high::C,\n};\n",
            "fn f() -> crate::high::X {}\n",
            "use super::high::X;\n",
        ] {
            assert_eq!(
                findings(&[ROOT, ("a/src/low.rs", text)]),
                ["a/src/low.rs:1"],
                "{text}"
            );
        }
        let nested = ("a/src/low/inner.rs", "use super::super::high;\n");
        assert_eq!(findings(&[ROOT, nested]), ["a/src/low/inner.rs:1"]);
    }

    #[test]
    fn forward_edges_comments_and_tests_are_not() {
        assert!(findings(&[ROOT, ("a/src/high.rs", "use crate::{low::X, high::Y};\n")]).is_empty());
        assert!(findings(&[ROOT, ("a/src/low.rs", "// crate::high\n")]).is_empty());
        let test = "#[cfg(test)]\nmod tests {\n    use crate::high;\n}\n";
        assert!(findings(&[ROOT, ("a/src/low.rs", test)]).is_empty());
    }

    #[test]
    fn stages_stay_apart() {
        let folder = "dataplane/ipsec/src/inbound";
        let open = format!("{folder}/open.rs");
        let accept = (
            format!("{folder}/accept.rs"),
            "use super::open;\n".to_owned(),
        );
        let shape = (format!("{folder}/shape.rs"), "pub(super) struct Shape;\n");
        let verify = (format!("{folder}/verify.rs"), "use super::shape;\n");
        let files = [
            (open.as_str(), "pub(super) fn run() {}\n"),
            (&accept.0, accept.1.as_str()),
            (&shape.0, shape.1),
            (&verify.0, verify.1),
        ];
        assert_eq!(findings(&files), [format!("{folder}/accept.rs:1")]);
    }
}
