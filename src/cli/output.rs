//! Standard output and standard error: text, tables, JSON and the progress bar.
//!
//! Every write is checked: a reader that went away is a failure and not an end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::failure::Failure;
use crate::time::Timestamp;

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
        let template = match total {
            Some(_) => "{bytes:>11} of {total_bytes} [{bar:30}] {bytes_per_sec}, {eta} left",
            None => "{bytes:>11} in {elapsed}, {bytes_per_sec}",
        };
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

/// A table with a header. Columns in `right` are numbers. On a terminal, rows
/// are cut to its width.
pub(super) fn table(header: &[&str], right: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_truncation_indicator("…");
    let fits =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.set_content_arrangement(fits);
    table.set_header(header.iter().map(Cell::new));
    for cells in rows {
        let mut row = Row::from(cells);
        row.max_height(1);
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
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
    let text = at.to_string();
    text.split_once('.').map_or(text.clone(), |(seconds, _)| format!("{seconds}Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_have_no_trailing_space() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned(), String::new()],
            vec!["bcd".into(), "23".into(), "x".into()],
        ];
        let text = table(&["ID", "BYTES", "NAME"], &[1], rows);
        assert_eq!(text, "ID   BYTES  NAME\na        1\nbcd     23  x\n");
    }

    #[test]
    fn times_are_cut_to_seconds() {
        assert_eq!(seconds("2026-11-22T02:26:13.000001Z".parse().unwrap()), "2026-11-22T02:26:13Z");
    }

    #[test]
    fn the_progress_templates_are_templates() {
        let output = Output { json: false, quiet: false };
        output.progress(Some(1)).finish();
        for template in [
            "{bytes:>11} of {total_bytes} [{bar:30}] {bytes_per_sec}, {eta} left",
            "{bytes:>11} in {elapsed}, {bytes_per_sec}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }
}
