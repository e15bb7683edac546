//! `ls` and `stat`.

use futures_util::{TryStreamExt, stream};
use serde_json::json;

use super::args::{Ls, Stat};
use super::backend::Row;
use super::exit::Exit;
use super::failure::Failure;
use super::get::by_name;
use super::output::{Column, line, pairs, seconds, table};
use super::{Answer, Backend};
use crate::error::{Error, ErrorKind};
use crate::id::BlobId;
use crate::json::{Blob, Listed, Plain};

pub(super) async fn ls(backend: &Backend, command: Ls) -> Answer {
    let customer = backend.customer(&command.customer.customer).await?;
    let customer = command.name.as_ref().map_or_else(|| customer.clone(), |name| customer.only_named(name));
    let explain = |error| backend.explain(error);
    let mut rows = match &command.name {
        None if command.ids => return ids(backend, customer.list()).await,
        None => customer.rows(),
        Some(name) => customer.rows_of(customer.find(name).await.map_err(explain)?),
    };
    let (mut infos, mut failed, mut count) = (Vec::new(), None, 0_u64);
    while let Some(Row { blob, stored_bytes, found }) = rows.try_next().await.map_err(explain)? {
        let row = match found {
            // It was a name without its blob, or went away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if is_final(&error) => return Err(backend.explain(error)),
            Err(error) => Err(backend.explain(error)),
            Ok(info) => Ok(info),
        };
        if backend.output.json {
            let value = match &row {
                Ok(_) if command.ids => json!({ "blob": blob }),
                Ok(info) => json!(info),
                Err(failure) => match stored_bytes {
                    None => json!({ "blob": blob, "error": failure.to_json() }),
                    Some(bytes) => json!({ "blob": blob, "stored_bytes": bytes, "error": failure.to_json() }),
                },
            };
            backend.output.print_json(&value)?;
        } else if command.ids {
            backend.output.print(&format!("{blob}\n"))?;
        } else {
            infos
                .push((blob, row.as_ref().map(Clone::clone).map_err(|failure| failure.message().to_owned())));
        }
        if let Err(failure) = row {
            count += 1;
            failed = worse(failed, failure);
        }
    }
    if !backend.output.json && !command.ids {
        if command.name.is_none() {
            // Oldest first, as in a log; the damaged ones, whose time is not known, last.
            infos.sort_by_key(|(id, info)| {
                (info.is_err(), info.as_ref().ok().map(|info| info.sealed_at), *id)
            });
        }
        backend.output.print(&listing(&infos))?;
    }
    end(failed, count, "could not be opened")
}

async fn ids(
    backend: &Backend,
    mut listed: impl stream::Stream<Item = Result<Listed, Error>> + Unpin,
) -> Answer {
    while let Some(listed) = listed.try_next().await.map_err(|error| backend.explain(error))? {
        if backend.output.json {
            backend.output.print_json(&json!(listed))?;
        } else {
            backend.output.print(&format!("{}\n", listed.blob))?;
        }
    }
    Ok(String::new())
}

fn listing(infos: &[(BlobId, Result<Blob, String>)]) -> String {
    let rows = infos.iter().map(|(id, info)| match info {
        Ok(info) => vec![
            id.to_string(),
            info.bytes.to_string(),
            seconds(info.sealed_at),
            info.retain_until.to_string(),
            info.content_type.as_ref().map(ToString::to_string).unwrap_or_default(),
            info.name.as_ref().map_or("", |name| name.as_str()).to_owned(),
        ],
        Err(message) => {
            let mut row = vec![id.to_string()];
            row.extend(["?", "?", "?", ""].map(str::to_owned));
            row.push(format!("[{message}]"));
            row
        }
    });
    let columns = [
        ("ID", Column::Whole),
        ("BYTES", Column::Number),
        ("SEALED AT", Column::Whole),
        ("RETAINED UNTIL", Column::Whole),
        ("TYPE", Column::Cut),
        ("NAME", Column::Cut),
    ];
    table(&columns, rows)
}

pub(super) async fn stat(backend: &Backend, command: Stat) -> Answer {
    let customer = backend.customer(&command.customer.customer).await?;
    let which = &command.blob;
    let info = match (&which.blob, &which.name) {
        (Some(blob), _) => customer.stat(*blob).await,
        (None, Some(name)) => {
            let customer = customer.only_named(name);
            by_name(&customer, name, which.nth, async |blob| customer.stat(blob).await).await
        }
        (None, None) => Err(Error::new(ErrorKind::InvalidInput, "a blob id or --name is missing")),
    };
    let info = info.map_err(|error| backend.explain(error))?;
    if backend.output.json {
        return Ok(line(&json!(info)));
    }
    let mut rows = vec![
        ("id".to_owned(), info.blob.to_string()),
        ("name".to_owned(), info.name.as_ref().map_or("(none)", |name| name.as_str()).to_owned()),
        ("content type".to_owned(), info.content_type.as_ref().map_or("(none)".to_owned(), Plain::to_string)),
        ("bytes".to_owned(), info.bytes.to_string()),
        ("stored bytes".to_owned(), info.stored_bytes.to_string()),
        ("sealed at".to_owned(), seconds(info.sealed_at)),
        ("retained until".to_owned(), info.retain_until.to_string()),
        ("legal hold".to_owned(), if info.held { "yes" } else { "no" }.to_owned()),
        ("suite".to_owned(), info.suite.to_string()),
        ("key".to_owned(), info.kek.to_string()),
    ];
    rows.extend(info.meta.iter().map(|(key, value)| (format!("meta {key}"), value.to_string())));
    Ok(pairs(rows))
}

/// Whether no other blob can be opened either.
pub(super) fn is_final(error: &Error) -> bool {
    error.kind() == ErrorKind::AuditUnavailable
}

/// Of two failures, the one to end with: damage before all else.
pub(super) fn worse(first: Option<Failure>, next: Failure) -> Option<Failure> {
    match first {
        Some(first) if first.exit() == Exit::Data || next.exit() != Exit::Data => Some(first),
        _ => Some(next),
    }
}

pub(super) fn end(failed: Option<Failure>, count: u64, what: &str) -> Answer {
    match failed {
        None => Ok(String::new()),
        Some(failure) => {
            let blobs = if count == 1 { "blob" } else { "blobs" };
            Err(failure.about(&format!("{count} {blobs} {what}")))
        }
    }
}
