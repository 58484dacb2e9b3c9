//! Citations: comments that begin with `//=` and name requirements.
//!
//! Above code: `//= T26 T27 (RFC 4303 section 3.4.3)`. Above a test: `//= test T26`. Where one is
//! not met: `//= exception T69: why`, which may go on over further `//=` lines.

use std::path::{Path, PathBuf};

/// What a citation says of its requirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The code below keeps them.
    Code,
    /// The test below fails without them.
    Test,
    /// They, or clauses of them, are not kept: why.
    Exception(String),
}

/// One citation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Citation {
    pub(super) kind: Kind,
    /// The requirements, as written.
    pub(super) ids: Vec<String>,
    pub(super) path: PathBuf,
    /// Line number, from 1.
    pub(super) line: usize,
    /// What it stands above or in: a function, a type, a constant; else the file's name.
    pub(super) item: String,
}

/// All citations of one file, and what is wrong with them.
pub(super) fn read(path: &Path, text: &str) -> (Vec<Citation>, Vec<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (index, line) in lines.iter().enumerate() {
        let Some(body) = citation(line) else { continue };
        if continues(&lines, index) {
            continue;
        }
        let place = format!("{}:{}", path.display(), index + 1);
        let (kind, ids) = match classify(body) {
            Ok(parts) => parts,
            Err(why) => {
                wrong.push(format!("{place}: {why}"));
                continue;
            }
        };
        let kind = match kind {
            Kind::Exception(start) => Kind::Exception(reason(start, &lines[index + 1..])),
            other => other,
        };
        let below = item_below(&lines[index..]);
        if kind == Kind::Test && !below.as_ref().is_some_and(|item| item.is_test) {
            wrong.push(format!("{place}: no test that runs stands below"));
        }
        let item = below.map(|item| item.name);
        found.push(Citation {
            kind,
            ids,
            path: path.into(),
            line: index + 1,
            item: item
                .or_else(|| enclosing(&lines[..index], line))
                .unwrap_or_else(|| file_name(path)),
        });
    }
    (found, wrong)
}

fn citation(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix("//= ")
}

/// True for a line that carries on the exception above it.
fn continues(lines: &[&str], index: usize) -> bool {
    let starts = |line: &str| citation(line).is_some_and(|body| classify(body).is_ok());
    !starts(lines[index])
        && index > 0
        && (0..index)
            .rev()
            .map_while(|above| citation(lines[above]))
            .any(|body| body.starts_with("exception "))
}

fn classify(body: &str) -> Result<(Kind, Vec<String>), String> {
    let (word, rest) = body.split_once(' ').unwrap_or((body, ""));
    match word {
        "test" => Ok((Kind::Test, ids(rest)?)),
        "exception" => {
            let (named, why) = rest
                .split_once(':')
                .ok_or("an exception needs its reason")?;
            Ok((Kind::Exception(why.trim().into()), ids(named)?))
        }
        _ => Ok((Kind::Code, ids(body)?)),
    }
}

/// The requirements at the start of a citation; what follows them is for the reader.
fn ids(text: &str) -> Result<Vec<String>, String> {
    let is_id = |word: &&str| {
        let digits = word.strip_prefix('T').unwrap_or_default();
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    };
    let found: Vec<String> = text
        .split_whitespace()
        .map(|word| word.trim_end_matches(','))
        .take_while(is_id)
        .map(String::from)
        .collect();
    if found.is_empty() {
        return Err("a citation names no requirement".into());
    }
    Ok(found)
}

fn reason(start: String, below: &[&str]) -> String {
    let more = below
        .iter()
        .map_while(|line| citation(line))
        .take_while(|body| classify(body).is_err());
    more.fold(start, |whole, line| format!("{whole} {}", line.trim()))
}

struct Item {
    name: String,
    is_test: bool,
}

/// The item that begins right below, behind comments and attributes.
fn item_below(lines: &[&str]) -> Option<Item> {
    let (mut test, mut ignored, mut open) = (false, false, false);
    for line in lines.iter().map(|line| line.trim_start()) {
        if open {
            open = !line.ends_with(']');
        } else if line.starts_with("#[") {
            test |= line.starts_with("#[test]");
            ignored |= line.starts_with("#[ignore");
            open = !line.ends_with(']');
        } else if !line.starts_with("//") && !line.is_empty() {
            return Some(Item {
                name: name(line)?,
                is_test: test && !ignored,
            });
        }
    }
    None
}

/// The function or type in which a statement, field or arm stands: the nearest one above that is
/// indented less.
fn enclosing(above: &[&str], line: &str) -> Option<String> {
    let depth = indentation(line);
    let outer = above.iter().rev().filter(|line| indentation(line) < depth);
    outer
        .filter(|line| !line.is_empty())
        .find_map(|line| name(line.trim_start()))
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name that a line declares, if it declares an item.
fn name(line: &str) -> Option<String> {
    const KEYWORDS: [&str; 9] = [
        "fn", "struct", "enum", "const", "static", "trait", "type", "mod", "impl",
    ];
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
    let mut words = words
        .by_ref()
        .filter(|word| !word.is_empty())
        .skip_while(|word| {
            matches!(
                *word,
                "pub" | "crate" | "super" | "in" | "unsafe" | "async" | "extern" | "C"
            )
        });
    let mut keyword = words.next()?;
    let mut name = words.next()?;
    if keyword == "const" && name == "fn" {
        (keyword, name) = (name, words.next()?);
    }
    KEYWORDS.contains(&keyword).then(|| name.into())
}

fn file_name(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Citation {
        let (found, wrong) = read(Path::new("a/b.rs"), text);
        assert_eq!(
            (found.len(), wrong.as_slice()),
            (1, [].as_slice()),
            "{text}"
        );
        found.into_iter().next().expect("one")
    }

    #[test]
    fn code_is_named_by_the_item_below_or_around_it() {
        let above =
            only("//= T26 T27 (RFC 4303 section 3.4.3)\n#[must_use]\npub const fn fits() {}\n");
        assert_eq!((above.kind, above.item.as_str()), (Kind::Code, "fits"));
        assert_eq!(above.ids, ["T26", "T27"]);
        let inside = only("fn run() {\n    if a {\n        //= T1\n        b();\n    }\n}\n");
        assert_eq!((inside.item.as_str(), inside.line), ("run", 3));
        assert_eq!(only("//= T1\n\nuse a::b;\n").item, "b");
    }

    #[test]
    fn a_test_must_be_one_that_runs() {
        let test = only("//= test T2 (section 3)\n#[test]\nfn works() {}\n");
        assert_eq!((test.kind, test.item.as_str()), (Kind::Test, "works"));
        for text in [
            "//= test T1\nfn works() {}\n",
            "//= test T1\n#[test]\n#[ignore = \"slow\"]\nfn works() {}\n",
            "//= test T1\n",
        ] {
            assert_eq!(read(Path::new("a.rs"), text).1.len(), 1, "{text}");
        }
    }

    #[test]
    fn an_exception_says_why_on_as_many_lines_as_it_needs() {
        let found = only("//= exception T69: not built,\n//= and why.\npub mod limits;\n");
        let Kind::Exception(why) = found.kind else {
            panic!("{found:?}")
        };
        assert_eq!(why, "not built, and why.");
        for text in ["//= exception T1\n", "//= exception: x\n", "//= nothing\n"] {
            assert_eq!(read(Path::new("a.rs"), text).1.len(), 1, "{text}");
        }
    }
}
