//! From results to what people read: tables on a terminal, Markdown for documents, one page with
//! plots.

pub(crate) mod html;
mod number;
mod plot;
mod table;
mod views;

use std::fmt::Write as _;

use serde_json::Value;

use crate::bench::document::Document;
use crate::bench::section::Section;
use html::escape;
use table::Table;

/// What a section shows.
enum Piece {
    /// Figures.
    Table(Table),
    /// A drawing with its title and what to see in it.
    Plot {
        title: String,
        caption: String,
        svg: String,
    },
    /// A figure for the top of the page: value, and what it is.
    Head(String, String),
}

impl Piece {
    fn plot(title: impl Into<String>, caption: impl Into<String>, svg: String) -> Self {
        Self::Plot {
            title: title.into(),
            caption: caption.into(),
            svg,
        }
    }
}

/// What every reader of a figure must know.
const CAVEATS: [&str; 4] = [
    "Read ratios, not figures: a virtual machine has neighbours, and few cores share everything.",
    "Over veth AF_XDP runs in copy mode: kernel and copies cost more there than the gateway. What \
     a NIC with zero copy gives was not measured.",
    "Generator, gateways and sink share the machine's cores: on two cores they take each other's \
     time, and so does the kernel's work for them.",
    "Cycles are those of the time-stamp counter, which ticks at a fixed rate whatever the core \
     runs at.",
];

fn pieces(document: &Document, section: Section) -> Vec<Piece> {
    let records = document.records(section);
    match section {
        Section::Crypto => views::stages::crypto(records),
        Section::Stages => views::stages::pieces(records),
        Section::Pipeline => views::pipeline::pieces(records),
        Section::Steering => views::steering::pieces(records),
        Section::Wire => views::wire::pieces(records),
        Section::Peers => views::peers::pieces(records),
        Section::Rekey => views::change::pieces(records, "Rekey"),
        Section::Reconfigure => views::change::pieces(records, "Reconfigure"),
    }
}

/// What was left out of a section, with the reason.
fn missing(document: &Document, section: Section) -> Vec<&str> {
    let entry = document.section(section);
    let missing = entry.and_then(|entry| entry["missing"].as_array());
    missing
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// The tables of some sections for a terminal.
pub(crate) fn text(document: &Document, sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections
        .iter()
        .filter(|it| document.section(**it).is_some())
    {
        let _ = writeln!(text, "\n== {} ==", section.title());
        for piece in pieces(document, *section) {
            if let Piece::Table(table) = piece {
                let _ = write!(text, "\n{}", table.to_text());
            }
        }
        for line in missing(document, *section) {
            let _ = writeln!(text, "\n  not measured: {line}");
        }
    }
    let _ = writeln!(text, "\n{}", CAVEATS[0]);
    text
}

/// All tables as Markdown, each section with the command that makes it.
pub(crate) fn markdown(document: &Document) -> String {
    let mut text = format!("{}\n", machine(&document.machine).join(", "));
    for section in Section::ALL {
        let Some(entry) = document.section(section) else {
            continue;
        };
        let command = entry["command"].as_str().unwrap_or_default();
        let _ = write!(text, "\n## {}\n\n`{command}`", section.title());
        let of = ["profile", "commit"].map(|key| entry[key].as_str().unwrap_or("unknown"));
        let _ = writeln!(text, ", profile {}, commit {}", of[0], of[1]);
        for piece in pieces(document, section) {
            if let Piece::Table(table) = piece {
                let _ = write!(text, "\n{}", table.to_markdown());
            }
        }
        for line in missing(document, section) {
            let _ = write!(text, "\nNot measured: {line}\n");
        }
    }
    text
}

/// The machine in short phrases.
fn machine(machine: &Value) -> Vec<String> {
    let text = |key: &str| machine[key].as_str().unwrap_or("unknown").to_owned();
    let features: Vec<&str> = machine["features"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let kind = match machine["virtual"].as_bool() {
        Some(true) => "virtual machine",
        _ => "bare metal",
    };
    vec![
        text("cpu"),
        format!("{} cores, {kind}", machine["cores"]),
        features.join(" "),
        format!("{} GiB", machine["memory_gib"]),
        text("kernel"),
        format!("commit {}", text("commit")),
        text("date"),
    ]
}

/// The whole page.
pub(crate) fn html(document: &Document) -> String {
    let (mut heads, mut links, mut sections) = (String::new(), String::new(), String::new());
    for section in Section::ALL {
        let Some(entry) = document.section(section) else {
            continue;
        };
        let (name, title) = (section.name(), section.title());
        let _ = write!(links, "<a href=\"#{name}\">{title}</a>");
        let _ = write!(
            sections,
            "<section id=\"{name}\"><h2>{title}</h2><p>{}</p>",
            escape(section.method())
        );
        section_html(document, section, entry, &mut heads, &mut sections);
        sections += "</section>";
    }
    let chips: String = machine(&document.machine)
        .iter()
        .map(|chip| format!("<li>{}</li>", escape(chip)))
        .collect();
    let caveats: String = CAVEATS
        .iter()
        .map(|caveat| format!("<li>{}</li>", escape(caveat)))
        .collect();
    let body = format!(
        "<main><header><h1>xipsec: what a packet costs</h1>\
         <p>Measured by <code>cargo xtask bench</code>, everything in one run on one machine.</p>\
         <ul class=\"chips\">{chips}</ul></header><div class=\"heads\">{heads}</div>\
         <nav>{links}</nav><div class=\"note\"><ul>{caveats}</ul></div>{sections}\
         <footer>The figures behind every plot stand in report.json beside this page. \
         <code>cargo xtask bench report</code> renders it again, with <code>--markdown</code> it \
         prints the tables.</footer></main>"
    );
    html::page("xipsec: what a packet costs", &body)
}

fn section_html(
    document: &Document,
    section: Section,
    entry: &Value,
    heads: &mut String,
    page: &mut String,
) {
    let (mut plots, mut tables) = (String::new(), String::new());
    for piece in pieces(document, section) {
        match piece {
            Piece::Plot {
                title,
                caption,
                svg,
            } => {
                let (title, caption) = (escape(&title), escape(&caption));
                let _ = write!(
                    plots,
                    "<figure><h3>{title}</h3><p>{caption}</p>{svg}</figure>"
                );
            }
            Piece::Table(table) => {
                let title = escape(table.title());
                let _ = write!(tables, "<h4>{title}</h4>{}", table.to_html());
            }
            Piece::Head(value, label) => {
                let (value, label) = (escape(&value), escape(&label));
                let _ = write!(
                    heads,
                    "<div class=\"head\"><b>{value}</b><span>{label}</span></div>"
                );
            }
        }
    }
    let _ = write!(page, "<div class=\"grid2\">{plots}</div>");
    let absent: String = missing(document, section)
        .iter()
        .map(|line| format!("<li>{}</li>", escape(line)))
        .collect();
    if !absent.is_empty() {
        let _ = write!(
            page,
            "<div class=\"note\">Not measured:<ul>{absent}</ul></div>"
        );
    }
    let text = |key: &str| escape(entry[key].as_str().unwrap_or_default());
    let _ = write!(
        page,
        "<details><summary>Figures, and the command that measures them</summary>\
         <pre>{}</pre><p>profile {}, {} s, {}, commit {}</p>{tables}</details>",
        text("command"),
        text("profile"),
        entry["seconds"],
        text("date"),
        text("commit"),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Every section with one record of each kind that its view knows.
    fn sample() -> Document {
        let mut document = Document::new(json!({"cpu": "A <CPU>", "cores": 2}));
        for section in Section::ALL {
            let about = json!({"command": "cargo xtask bench x", "seconds": 1.0});
            let results = json!({"records": views::samples(section), "missing": ["a <peer>"]});
            document.put(section, about, &results);
        }
        document
    }

    #[test]
    fn the_page_is_well_formed_fetches_nothing_and_shows_every_section() {
        let page = html(&sample());
        assert_eq!(html::balanced(&page), Ok(()));
        for foreign in ["://", "url(", "@import", "<script", "<link", "src=", "NaN"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        for section in Section::ALL {
            assert!(page.contains(&format!("<section id=\"{}\">", section.name())));
        }
        assert!(page.contains("<svg") && page.contains("a &lt;peer&gt;"));
    }

    #[test]
    fn tables_name_their_command_and_what_is_missing() {
        let document = sample();
        let markdown = markdown(&document);
        assert!(markdown.contains("`cargo xtask bench x`") && markdown.contains("| --- |"));
        let sections: Vec<&str> = markdown.split("\n## ").skip(1).collect();
        assert_eq!(sections.len(), Section::ALL.len());
        for section in sections {
            assert!(section.contains("| --- |"), "{section}");
        }
        let text = text(&document, &Section::ALL);
        assert!(text.contains("not measured: a <peer>"));
        assert!(!text.contains("NaN") && !markdown.contains("NaN"));
    }

    #[test]
    fn an_empty_document_has_a_page_too() {
        let page = html(&Document::new(json!({})));
        assert_eq!(html::balanced(&page), Ok(()));
    }
}
