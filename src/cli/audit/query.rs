//! `audit query`.

use serde_json::json;

use super::super::args::Query;
use super::super::output::{Output, line, to_stderr};
use super::{Labels, operations_table};
use crate::audit::log::LogReader;
use crate::audit::operation::OperationLine;
use crate::audit::query::{Cursor, Filter, Page, query};
use crate::error::Error;

/// The operations that were asked for, and where there is more, where to go on.
pub(super) async fn read(
    reader: &LogReader,
    filter: &Filter,
    command: &Query,
) -> Result<(Vec<OperationLine>, Option<Cursor>), Error> {
    let Page { operations, next } = query(reader, filter, command.after, command.limit).await?;
    Ok((operations.iter().map(OperationLine::from).collect(), next))
}

/// A page of operations, and on standard error where the next one begins.
pub(super) fn page(
    operations: &[OperationLine],
    next: Option<Cursor>,
    labels: &Labels,
    output: Output,
) -> String {
    match next {
        // Not beside the operations, each of which is a line of the same kind.
        Some(next) if output.json => to_stderr(&line(&json!({ "next": next.to_string() }))),
        Some(next) => output.note(&format!("there is more: ask again with --after {next}")),
        None => {}
    }
    match output.json {
        true => operations.iter().map(OperationLine::to_line).collect(),
        false => operations_table(operations, labels),
    }
}
