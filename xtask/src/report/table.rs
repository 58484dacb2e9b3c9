//! One table, three ways to show it: on a terminal, in a Markdown document, on a page.

use super::html::escape;

/// Rows of text under columns. The first column names the row, the others are figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    title: String,
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        Self {
            title: title.into(),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; what is missing at its end stays empty.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// Nothing to show.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// What it is about.
    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Aligned with spaces.
    pub(crate) fn to_text(&self) -> String {
        let widths = self.widths();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).enumerate();
            let padded = padded.map(|(index, (cell, width))| pad(cell, *width, index == 0));
            format!("  {}", padded.collect::<Vec<_>>().join("  "))
        };
        let mut text = format!("{}\n{}\n", self.title, line(&self.columns).trim_end());
        for row in &self.rows {
            text += line(row).trim_end();
            text.push('\n');
        }
        text
    }

    /// As GitHub shows it.
    pub(crate) fn to_markdown(&self) -> String {
        let line =
            |cells: &[String]| format!("| {} |\n", cells.join(" | ").replace('\u{202f}', " "));
        let rule = self.columns.iter().enumerate();
        let rule: Vec<&str> = rule
            .map(|(index, _)| if index == 0 { "---" } else { "---:" })
            .collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!(
            "{}:\n\n{}| {} |\n{rows}",
            self.title,
            line(&self.columns),
            rule.join(" | ")
        )
    }

    /// For the page.
    pub(crate) fn to_html(&self) -> String {
        let line = |cells: &[String], tag: &str| {
            let cells: String = cells
                .iter()
                .map(|cell| format!("<{tag}>{}</{tag}>", escape(cell)))
                .collect();
            format!("<tr>{cells}</tr>")
        };
        let rows: String = self.rows.iter().map(|row| line(row, "td")).collect();
        format!(
            "<div class=\"table\"><table><thead>{}</thead><tbody>{rows}</tbody></table></div>",
            line(&self.columns, "th")
        )
    }

    fn widths(&self) -> Vec<usize> {
        let all = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |index: usize| all().map(|row| row[index].chars().count()).max();
        (0..self.columns.len())
            .map(|index| width(index).unwrap_or(0))
            .collect()
    }
}

/// By characters: figures hold narrow spaces.
fn pad(cell: &str, width: usize, left: bool) -> String {
    let space = " ".repeat(width.saturating_sub(cell.chars().count()));
    if left {
        format!("{cell}{space}")
    } else {
        format!("{space}{cell}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_reads_the_same_everywhere() {
        let mut table = Table::new("Sizes", &["size", "cycles"]);
        assert!(table.is_empty());
        table.row(["64".to_owned(), "150".to_owned()]);
        table.row(["<9000>".to_owned()]);
        assert_eq!(
            table.to_text(),
            "Sizes\n  size    cycles\n  64         150\n  <9000>\n"
        );
        assert_eq!(
            table.to_markdown(),
            "Sizes:\n\n| size | cycles |\n| --- | ---: |\n| 64 | 150 |\n| <9000> |  |\n"
        );
        assert!(table.to_html().contains("<td>&lt;9000&gt;</td>"));
    }
}
