//! Tables for people.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// Spaces after a column.
const GAP: u16 = 2;

/// A table with columns as wide as their widest cell. The first `text_columns` are aligned left, the others, which hold
/// numbers, right.
pub fn table<const COLUMNS: usize>(
    header: [&str; COLUMNS],
    text_columns: usize,
    rows: impl IntoIterator<Item = [String; COLUMNS]>,
) -> String {
    table_of(header.to_vec(), text_columns, rows.into_iter().map(Vec::from))
}

/// [`table`] where the number of columns is not known before.
pub fn table_of(
    header: Vec<&str>,
    text_columns: usize,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, GAP));
        if index >= text_columns {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
