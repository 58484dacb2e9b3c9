//! Files, functions and lines stay short enough to be read in one go.

use super::{Finding, Source};

/// Lines of a Rust file: above the first it should be split, above the second it must.
const FILE_LINES: [usize; 2] = [400, 500];
/// Lines of a function, signature and closing brace included.
const FUNCTION_LINES: usize = 70;
/// Columns of a line of code.
const COLUMNS: usize = 100;

pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    if !source.has_ending("rs") && !source.has_ending("py") {
        return;
    }
    let lines: Vec<&str> = source.text.lines().collect();
    if lines.len() > FILE_LINES[0] {
        let text = format!("{} lines, {} is the aim", lines.len(), FILE_LINES[0]);
        let fatal = lines.len() > FILE_LINES[1];
        findings.push(Finding {
            fatal,
            ..Finding::new(source, 0, text)
        });
    }
    for (index, line) in lines.iter().enumerate() {
        // An address cannot be broken.
        if line.chars().count() > COLUMNS && !line.contains("https://") {
            findings.push(Finding::new(
                source,
                index,
                format!("longer than {COLUMNS} columns"),
            ));
        }
    }
    if source.has_ending("rs") {
        functions(source, &lines, findings);
    }
}

/// In rustfmt's layout a function ends at the first closing brace of its own indentation.
fn functions(source: &Source, lines: &[&str], findings: &mut Vec<Finding>) {
    for (start, line) in lines
        .iter()
        .enumerate()
        .filter(|(_, line)| is_function(line))
    {
        let closing = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
        let rest = &lines[start..];
        let Some(opening) = rest.iter().position(|line| line.ends_with(['{', ';', '}'])) else {
            continue;
        };
        if !rest[opening].ends_with('{') {
            continue;
        }
        let length = rest
            .iter()
            .position(|line| *line == closing)
            .map_or(0, |end| end + 1);
        if length > FUNCTION_LINES {
            let text = format!("a function of {length} lines, at most {FUNCTION_LINES}");
            // A test may be one long table of cases: data, not decisions.
            let fatal = !source
                .path
                .components()
                .any(|part| part.as_os_str() == "tests");
            findings.push(Finding {
                fatal,
                ..Finding::new(source, start, text)
            });
        }
    }
}

/// Whether the line starts a function item: qualifiers, then `fn NAME`.
pub(super) fn is_function(line: &str) -> bool {
    function_name(line).is_some()
}

/// The name, if the line starts a function item.
pub(super) fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        if let Some(name) = rest.strip_prefix("fn ") {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            return Some(&name[..end]);
        }
        let (word, after) = rest.split_once(' ')?;
        let qualifier = matches!(
            word,
            "pub" | "const" | "unsafe" | "async" | "extern" | "\"C\""
        );
        if !qualifier && !word.starts_with("pub(") {
            return None;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: String) -> Vec<Finding> {
        let mut findings = Vec::new();
        check(
            &Source {
                path: "a/src/b.rs".into(),
                text,
            },
            &mut findings,
        );
        findings
    }

    #[test]
    fn long_things_are_found_and_short_ones_are_not() {
        let function = |body: usize| {
            format!(
                "    pub(crate) const fn f(\n    ) {{\n{}    }}\n",
                "        x();\n".repeat(body)
            )
        };
        assert!(findings(function(67)).is_empty());
        assert_eq!(findings(function(68)).len(), 1);
        assert!(findings("// ".to_owned() + &"é".repeat(97)).is_empty());
        assert_eq!(findings("// ".to_owned() + &"é".repeat(98)).len(), 1);
        assert!(findings("//\n".repeat(400)).is_empty());
        assert!(!findings("//\n".repeat(500))[0].fatal);
        assert!(findings("//\n".repeat(501))[0].fatal);
    }

    #[test]
    fn function_names_are_seen_through_qualifiers() {
        assert_eq!(
            function_name("    pub(super) unsafe fn run<T>(x: T) {"),
            Some("run")
        );
        assert_eq!(function_name("let f = fn_pointer;"), None);
        assert_eq!(function_name("/// a fn call()"), None);
    }
}
