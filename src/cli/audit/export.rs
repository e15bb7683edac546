//! `audit export`.

use std::path::Path;

use bytes::Bytes;
use futures_util::TryStreamExt;
use serde_json::json;

use super::super::args::{Export, Format, To};
use super::super::failure::Failure;
use super::super::output::{Output, line};
use super::super::sink::Sink;
use super::{Answer, Operations};
use crate::audit::fhir::audit_event_of_line;

/// How much is written at once, in bytes.
const PIECE: usize = 64 << 10;

pub(super) async fn run(mut found: Operations, command: &Export, output: Output) -> Answer {
    // Before anything is read.
    let mut sink = sink(&command.to)?;
    let (mut piece, mut count) = (String::new(), 0_u64);
    while let Some((store, operation)) = found.try_next().await? {
        piece.push_str(&match command.format {
            Format::Jsonl => operation.to_line(),
            Format::Fhir => audit_event_of_line(store, &operation).to_line(),
        });
        count += 1;
        if piece.len() >= PIECE {
            sink.write(Bytes::from(std::mem::take(&mut piece))).await?;
        }
    }
    sink.write(Bytes::from(piece)).await?;
    sink.finish().await?;
    Ok(match output.json && is_file(&command.to) {
        true => line(&json!({ "operations": count })),
        false => String::new(),
    })
}

/// What goes to a file, or to standard output.
pub(super) fn sink(to: &To) -> Result<Sink, Failure> {
    if is_file(to) { Sink::file(&to.output, to.force) } else { Sink::stdout() }
}

pub(super) fn is_file(to: &To) -> bool {
    to.output != Path::new("-")
}
