//! Aligned columns for people, in the manner of `ss` and `kubectl`: no boxes, no colours.

use comfy_table::TableStyle;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table of `rows` under `header`. Columns whose header starts with `>` are aligned right.
#[must_use]
pub fn render(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(TableStyle::new())
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|name| name.trim_start_matches('>')));
    for (index, name) in header.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    for row in rows {
        table.add_row(row);
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right() {
        let text = render(&["NAME", ">PACKETS"], [vec!["a".into(), "7".into()]]);
        assert_eq!(text, "NAME  PACKETS\na           7\n");
    }
}
