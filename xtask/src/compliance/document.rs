//! `docs/COMPLIANCE.md`, written from the joined list. Names items, not lines, so that it changes
//! when the work does and not when a line moves.

use std::fmt::Write as _;

use super::citations::Citation;
use super::requirements::Level;
use super::{Joined, Status};

const HEAD: &str = "\
# Compliance

What RFC 4301, 4302, 4303 and their companions ask for, in our words, with the code that keeps it
and the tests that fail without it. Written by `cargo xtask compliance` from
[requirements.toml](requirements.toml) and the `//=` citations beside code and tests; do not edit.
`cargo xtask test` runs every test named here and fails when a MUST or SHOULD loses its last one.

";

/// The whole document.
pub(super) fn write(joined: &[Joined<'_>]) -> String {
    let mut text = String::from(HEAD);
    totals(&mut text, joined);
    exceptions(&mut text, joined);
    text.push_str("\n## Requirements\n");
    for entry in joined {
        requirement(&mut text, entry);
    }
    text
}

fn totals(text: &mut String, joined: &[Joined<'_>]) {
    text.push_str("| level | requirements | passing | passing in part | exception | open |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: |\n");
    for level in Level::ALL {
        let of_level = || {
            joined
                .iter()
                .filter(|entry| entry.requirement.level == level)
        };
        let count = |status| of_level().filter(|entry| entry.status() == status).count();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            level.name(),
            of_level().count(),
            count(Status::Passing),
            count(Status::PassingInPart),
            count(Status::Exception),
            count(Status::Open),
        );
    }
}

fn exceptions(text: &mut String, joined: &[Joined<'_>]) {
    text.push_str("\n## Exceptions\n\n| id | level | why |\n| --- | --- | --- |\n");
    for entry in joined {
        for (why, _) in &entry.exceptions {
            let requirement = entry.requirement;
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                requirement.id,
                requirement.level.name(),
                cell(why),
            );
        }
    }
}

fn requirement(text: &mut String, entry: &Joined<'_>) {
    let requirement = entry.requirement;
    let _ = writeln!(
        text,
        "\n**{}** ({}; {}) {}  ",
        requirement.id,
        requirement.level.name(),
        requirement.source,
        requirement.text,
    );
    let status = match entry.status() {
        Status::Passing => "passing",
        Status::PassingInPart => "passing in part, see Exceptions",
        Status::Exception => "exception",
        Status::Open => "open",
    };
    let _ = writeln!(
        text,
        "*{status}* · code: {} · tests: {}",
        places(&entry.code),
        places(&entry.tests)
    );
}

/// Each place once, as a link to its file.
fn places(citations: &[&Citation]) -> String {
    let mut places: Vec<String> = Vec::new();
    for citation in citations {
        let path = citation.path.display();
        let place = format!("[`{}`](../{path})", citation.item);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    if places.is_empty() {
        return "none".into();
    }
    places.join(", ")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
