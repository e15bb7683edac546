//! Standard output and standard error: text, tables, JSON and the progress bar.
//!
//! Every write is checked: a reader that went away is a failure and not an end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::failure::Failure;
use crate::time::Timestamp;

const WITH_TOTAL: &str = "{bytes:>11} of {total_bytes} [{bar:30}] {bytes_per_sec}, {eta} left";
const WITHOUT_TOTAL: &str = "{bytes:>11} in {elapsed}, {bytes_per_sec}";

/// How this run talks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    /// Objects for programs in place of text for people.
    pub(super) json: bool,
    /// No notes and no progress bar.
    pub(super) quiet: bool,
}

impl Output {
    /// Writes to standard output.
    pub(super) fn print(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map_err(|error| Failure::output("failed to write to standard output", &error))
    }

    /// Writes one JSON object as a line.
    pub(super) fn print_json(self, value: &Value) -> Result<(), Failure> {
        self.print(&line(value))
    }

    /// Tells a person something beside the result. It does not matter if nobody
    /// can hear it.
    pub(super) fn note(self, text: &str) {
        if !self.quiet {
            to_stderr(&format!("strongroom: {text}\n"));
        }
    }

    /// A progress bar over `total` bytes, on a terminal only.
    pub(super) fn progress(self, total: Option<u64>) -> ProgressBar {
        if self.quiet || self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = if total.is_some() { WITH_TOTAL } else { WITHOUT_TOTAL };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(5));
        bar.set_style(ProgressStyle::with_template(template).expect("the templates are tested"));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// Writes to standard error; if that fails there is nowhere left to say so.
pub(super) fn to_stderr(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// A JSON object as a line.
pub(super) fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// How a column of a table is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Whole, whatever the width: an id is of no use in part.
    Whole,
    /// Whole, and to the right.
    Number,
    /// Cut where the terminal is too narrow.
    Cut,
}

/// A table with a header. On a terminal, rows are cut to its width.
pub(super) fn table(columns: &[(&str, Column)], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    table_within(columns, rows, io::stdout().is_terminal(), None)
}

/// A table that is cut to the terminal's width or the given one.
fn table_within(
    columns: &[(&str, Column)],
    rows: impl IntoIterator<Item = Vec<String>>,
    cut: bool,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_truncation_indicator("…");
    // Rows in which nothing may be cut are better broken by the terminal.
    if cut && columns.iter().any(|(_, column)| *column == Column::Cut) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    if let Some(width) = width {
        table.set_width(width);
    }
    let one_line = |cells| {
        let mut row = Row::from(cells);
        row.max_height(1);
        row
    };
    table.set_header(one_line(columns.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>()));
    for cells in rows {
        table.add_row(one_line(cells));
    }
    for ((_, kind), column) in columns.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, 2));
        if *kind != Column::Cut {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if *kind == Column::Number {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values below each other.
pub(super) fn pairs(pairs: impl IntoIterator<Item = (String, String)>) -> String {
    let pairs: Vec<_> = pairs.into_iter().collect();
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.into_iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// A moment for people: to the second.
pub(super) fn seconds(at: Timestamp) -> String {
    crate::json::seconds(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_have_no_trailing_space() {
        let columns = [("ID", Column::Whole), ("BYTES", Column::Number), ("NAME", Column::Cut)];
        let rows = [
            vec!["a".to_owned(), "1".to_owned(), String::new()],
            vec!["bcd".into(), "23".into(), "x".into()],
        ];
        let text = table_within(&columns, rows.clone(), false, None);
        assert_eq!(text, "ID   BYTES  NAME\na        1\nbcd     23  x\n");
        assert_eq!(table_within(&columns, rows, true, Some(40)), text);
    }

    #[test]
    fn what_may_be_cut_gives_way_to_what_may_not() {
        let id = "019mxzvzayz3nw0k25dvdqnm8w";
        let columns = [("ID", Column::Whole), ("BYTES", Column::Number), ("NAME", Column::Cut)];
        let rows =
            [vec![id.to_owned(), "1".to_owned(), "a rather long name, längér than the line".to_owned()]];
        let text = table_within(&columns, rows, true, Some(52));
        assert!(text.lines().all(|line| line.chars().count() <= 52), "{text}");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains(id) && text.contains("…"), "{text}");
    }

    #[test]
    fn times_are_cut_to_seconds() {
        assert_eq!(seconds("2026-11-22T02:26:13.000001Z".parse().unwrap()), "2026-11-22T02:26:13Z");
    }

    #[test]
    fn the_progress_templates_are_templates() {
        for template in [WITH_TOTAL, WITHOUT_TOTAL] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
