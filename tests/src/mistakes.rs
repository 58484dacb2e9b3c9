//! A good configuration and edits that spoil it: what `check` must say is written into the file
//! itself, as a comment `#! KEY` on the line that the message must name.

use std::fs;
use std::path::Path;
use std::process::Output;

use anyhow::{Context, Result, ensure};

use crate::{binary, files, shell};

/// A configuration without mistakes. Values are unique, so that an edit finds its place.
pub const GOOD: &str = r#"[dataplane]
workers = 1

[[port]]
name = "wan0"
side = "unprotected"
address = ["192.0.2.1/24"]
mac = "02:00:00:00:00:01"

[[port]]
name = "lan0"
side = "protected"
address = ["10.1.0.1/24"]
mac = "02:00:00:00:00:02"

[[sa]]
name = "away"
direction = "out"
protocol = "esp"
mode = "tunnel"
spi = 0x1001
source = "192.0.2.1"
destination = "192.0.2.2"
encryption = "aes128gcm16"
encryption_key = "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3"

[[sa]]
name = "back"
direction = "in"
protocol = "esp"
mode = "tunnel"
spi = 0x1002
source = "192.0.2.2"
destination = "192.0.2.1"
encryption = "null"
integrity = "sha256_128"
integrity_key = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf"
replay_window = 64

[[policy]]
name = "to-there"
direction = "out"
action = "protect"
local = "10.1.0.0/24"
remote = "10.2.0.0/24"
priority = 10
sa = ["away"]

[[policy]]
name = "from-there"
direction = "in"
action = "protect"
local = "10.1.0.0/25"
remote = "10.2.0.0/25"
priority = 11
sa = ["back"]

[[route]]
prefix = "10.2.0.0/16"
port = "wan0"
via = "192.0.2.2"

[[neighbor]]
port = "wan0"
address = "192.0.2.2"
mac = "02:00:00:00:00:03"
"#;

/// The good configuration with `put` in the place of `find`; an empty `find` appends. A line of
/// `put` that starts with `*` is the mistake that must be told.
///
/// # Panics
/// When `find` does not stand in it exactly once: the test's table is wrong.
pub fn spoil(text: &str, find: &str, put: &str) -> String {
    let lines: Vec<String> = put.split('\n').map(marked).collect();
    let put = lines.join("\n");
    if find.is_empty() {
        return format!("{text}\n{put}\n");
    }
    assert_eq!(text.matches(find).count(), 1, "{find}");
    text.replacen(find, &put, 1)
}

/// `*KEY = VALUE` with its mark behind it; any other line as it is.
fn marked(line: &str) -> String {
    match line.strip_prefix('*') {
        Some(wrong) => format!("{wrong} #! {}", wrong.split(' ').next().unwrap_or_default()),
        None => line.to_owned(),
    }
}

/// An `[[sa]]` table beside the good ones, with some lines of its own. A line `KEY = VALUE` takes
/// the place of the table's own; `*KEY = VALUE` is the mistake that must be told; `!KEY` takes the
/// table's line away; `^KEY` does, and the key must be told as missing.
pub fn further_sa(lines: &[&str]) -> String {
    let own = [
        "name = \"further\"",
        "direction = \"out\"",
        "protocol = \"esp\"",
        "mode = \"tunnel\"",
        "spi = 0x2001",
        "source = \"192.0.2.1\"",
        "destination = \"192.0.2.2\"",
        "encryption = \"aes128gcm16\"",
        "encryption_key = \"e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3\"",
    ];
    table("sa", &own, lines)
}

/// A `[[policy]]` table in the same way.
pub fn further_policy(lines: &[&str]) -> String {
    let own = [
        "name = \"further-policy\"",
        "direction = \"out\"",
        "action = \"protect\"",
        "local = \"10.3.0.0/24\"",
        "remote = \"10.4.0.0/24\"",
        "priority = 100",
        "sa = [\"away\"]",
    ];
    table("policy", &own, lines)
}

fn table(kind: &str, own: &[&str], lines: &[&str]) -> String {
    let key = |line: &str| -> String {
        let line = line.trim_start_matches(['!', '*', '^']);
        line.split(' ').next().unwrap_or_default().to_owned()
    };
    let taken: Vec<String> = lines.iter().map(|line| key(line)).collect();
    let missing = lines.iter().find_map(|line| line.strip_prefix('^'));
    let mark = missing.map_or_else(String::new, |key| format!(" #! {key}"));
    let mut text = format!("[[{kind}]]{mark}\n");
    for line in own.iter().filter(|line| !taken.contains(&key(line))) {
        text += &format!("{line}\n");
    }
    for line in lines.iter().filter(|line| !line.starts_with(['!', '^'])) {
        text += &marked(line);
        text.push('\n');
    }
    text
}

/// Lines (from 1) and keys that the file itself expects to be named.
pub fn expected(text: &str) -> Vec<(usize, &str)> {
    let marked = |(index, line): (usize, &'_ str)| {
        let start = line.find("#! ")? + 3;
        Some((index + 1, start))
    };
    let lines: Vec<&str> = text.lines().collect();
    let found = text.lines().enumerate().filter_map(marked);
    found
        .map(|(line, start)| (line, lines[line - 1][start..].trim()))
        .collect()
}

/// One error line of `check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Line in the file; 0 where none is named.
    pub line: usize,
    /// The whole message behind file and line.
    pub text: String,
}

impl Told {
    /// Whether the message names this key: alone, or with its table in front.
    pub fn names(&self, key: &str) -> bool {
        let head = self.text.split(": ").next().unwrap_or_default();
        head.rsplit('.').next() == Some(key) || head == key
    }

    /// Whether the message ends with what is accepted, in parentheses.
    pub fn advises(&self) -> bool {
        self.text.contains('(') && self.text.ends_with(')')
    }
}

/// Runs `check` over `text`: the exit status, the errors, the warnings.
///
/// # Errors
/// When the program cannot start, writes to standard output, or writes a line of another form.
pub fn check(text: &[u8]) -> Result<(i32, Vec<Told>, Vec<String>)> {
    let directory = files::directory(false)?;
    let file = directory.path().join("checked.toml");
    fs::write(&file, text)?;
    let output = run_check(&file)?;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let start = format!("{}", file.display());
    for line in String::from_utf8(output.stderr)?.lines() {
        let said = line
            .strip_prefix("xipsec: ")
            .with_context(|| format!("not ours: {line}"))?;
        if let Some(warning) = said.strip_prefix("warning: ") {
            warnings.push(warning.to_owned());
            continue;
        }
        let said = said
            .strip_prefix(&start)
            .with_context(|| format!("no file: {line}"))?;
        let said = said
            .strip_prefix(':')
            .with_context(|| format!("no colon: {line}"))?;
        let told = match said.split_once(": ") {
            Some((number, rest)) if number.parse::<usize>().is_ok() => Told {
                line: number.parse()?,
                text: rest.to_owned(),
            },
            _ => Told {
                line: 0,
                text: said.trim_start().to_owned(),
            },
        };
        errors.push(told);
    }
    ensure!(
        output.stdout.is_empty(),
        "check is quiet on standard output"
    );
    Ok((output.status.code().unwrap_or(-1), errors, warnings))
}

/// Runs `xipsec check --config FILE`.
///
/// # Errors
/// When the program cannot start.
pub fn run_check(file: &Path) -> Result<Output> {
    let mut command = binary::command()?;
    shell::output(command.args(["check", "--config"]).arg(file))
}

/// What is wrong, the text to replace (empty: append), the text to put.
pub type Case = (&'static str, &'static str, String);

/// A text in the place of another.
pub fn replaced(what: &'static str, find: &'static str, put: &str) -> Case {
    (what, find, put.to_owned())
}

/// A further `[[sa]]`, see [`further_sa`].
pub fn sa(what: &'static str, lines: &[&str]) -> Case {
    (what, "", further_sa(lines))
}

/// A further `[[policy]]`, see [`further_policy`].
pub fn policy(what: &'static str, lines: &[&str]) -> Case {
    (what, "", further_policy(lines))
}

/// Checks that every case yields exactly one error, and one that the file marks.
///
/// # Errors
/// When a case does not; the text shows all such cases.
pub fn tells(cases: &[Case]) -> Result<()> {
    ensure!(check(GOOD.as_bytes())?.0 == 0, "the good file is refused");
    let mut failures = Vec::new();
    for (what, find, put) in cases {
        let text = spoil(GOOD, find, put);
        let (status, errors, _) = check(text.as_bytes()).with_context(|| (*what).to_owned())?;
        let marked = expected(&text);
        let right = |line: usize, key: &str| errors[0].line == line && errors[0].names(key);
        let told = errors.len() == 1 && marked.iter().any(|(line, key)| right(*line, key));
        if status != 1 || !told || !errors[0].advises() {
            failures.push(format!(
                "{what}: status {status}, {errors:?}, expected {marked:?}"
            ));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}
