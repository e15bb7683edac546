//! `ls` and `stat`.

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;

use super::args::{Ls, Stat};
use super::exit::Exit;
use super::failure::Failure;
use super::get::by_name;
use super::output::{Column, line, pairs, seconds, table};
use super::{Answer, Session};
use crate::error::{Error, ErrorKind};
use crate::id::BlobId;
use crate::json;
use crate::room::{BlobInfo, Listed};

/// How many blobs are looked at at once.
const LOOKING: usize = 16;

pub(super) async fn ls(session: &Session, command: Ls) -> Answer {
    let customer = session.customer(&command.customer.customer).await?;
    let customer = command.name.as_ref().map_or_else(|| customer.clone(), |name| customer.only_named(name));
    let explain = |error| session.explain(error);
    let listed = match &command.name {
        None => customer.list(),
        Some(name) => {
            let found = customer.find(name).await.map_err(explain)?;
            let listed = found.into_iter().map(|id| Ok(Listed { id, stored_bytes: 0, stored_at: None }));
            stream::iter(listed).boxed()
        }
    };
    if command.ids && command.name.is_none() {
        return ids(session, listed).await;
    }
    let mut rows = listed
        .map(|listed| async {
            let listed = listed?;
            let info = customer.stat_listed(listed.id).await;
            Ok::<_, Error>((listed, info))
        })
        .buffered(LOOKING);
    let (mut infos, mut failed, mut count) = (Vec::new(), None, 0_u64);
    while let Some((listed, info)) = rows.try_next().await.map_err(explain)? {
        let row = match info {
            // It was a name without its blob, or went away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) if is_final(&error) => return Err(session.explain(error)),
            Err(error) => Err(session.explain(error)),
            Ok(info) => Ok(info),
        };
        if session.output.json {
            let value = match &row {
                Ok(_) if command.ids => json!({ "blob": listed.id }),
                Ok(info) => json::blob(info),
                Err(failure) if command.name.is_some() => {
                    json!({ "blob": listed.id, "error": failure.to_json() })
                }
                Err(failure) => {
                    json!({ "blob": listed.id, "stored_bytes": listed.stored_bytes, "error": failure.to_json() })
                }
            };
            session.output.print_json(&value)?;
        } else if command.ids {
            session.output.print(&format!("{}\n", listed.id))?;
        } else {
            infos.push((
                listed.id,
                row.as_ref().map(Clone::clone).map_err(|failure| failure.message().to_owned()),
            ));
        }
        if let Err(failure) = row {
            count += 1;
            failed = worse(failed, failure);
        }
    }
    if !session.output.json && !command.ids {
        if command.name.is_none() {
            // Oldest first, as in a log; the damaged ones, whose time is not known, last.
            infos.sort_by_key(|(id, info)| {
                (info.is_err(), info.as_ref().ok().map(|info| info.sealed_at), *id)
            });
        }
        session.output.print(&listing(&infos))?;
    }
    end(failed, count, "could not be opened")
}

async fn ids(
    session: &Session,
    mut listed: impl stream::Stream<Item = Result<Listed, Error>> + Unpin,
) -> Answer {
    while let Some(listed) = listed.try_next().await.map_err(|error| session.explain(error))? {
        if session.output.json {
            session.output.print_json(
                &json!({ "blob": listed.id, "stored_bytes": listed.stored_bytes, "stored_at": listed.stored_at }),
            )?;
        } else {
            session.output.print(&format!("{}\n", listed.id))?;
        }
    }
    Ok(String::new())
}

fn listing(infos: &[(BlobId, Result<BlobInfo, String>)]) -> String {
    let rows = infos.iter().map(|(id, info)| match info {
        Ok(info) => vec![
            id.to_string(),
            info.bytes.to_string(),
            seconds(info.sealed_at),
            info.retain_until.to_string(),
            info.metadata.content_type().unwrap_or_default().to_owned(),
            info.metadata.name().map_or("", |name| name.as_str()).to_owned(),
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

pub(super) async fn stat(session: &Session, command: Stat) -> Answer {
    let customer = session.customer(&command.customer.customer).await?;
    let which = &command.blob;
    let info = match (&which.blob, &which.name) {
        (Some(blob), _) => customer.stat(*blob).await,
        (None, Some(name)) => {
            let customer = customer.only_named(name);
            by_name(&customer, name, which.nth, async |blob| customer.stat(blob).await).await
        }
        (None, None) => Err(Error::new(ErrorKind::InvalidInput, "a blob id or --name is missing")),
    };
    let info = info.map_err(|error| session.explain(error))?;
    if session.output.json {
        return Ok(line(&json::blob(&info)));
    }
    let mut rows = vec![
        ("id".to_owned(), info.id.to_string()),
        ("name".to_owned(), info.metadata.name().map_or("(none)", |name| name.as_str()).to_owned()),
        ("content type".to_owned(), info.metadata.content_type().unwrap_or("(none)").to_owned()),
        ("bytes".to_owned(), info.bytes.to_string()),
        ("stored bytes".to_owned(), info.stored_bytes.to_string()),
        ("sealed at".to_owned(), seconds(info.sealed_at)),
        ("retained until".to_owned(), info.retain_until.to_string()),
        ("legal hold".to_owned(), if info.held { "yes" } else { "no" }.to_owned()),
        ("suite".to_owned(), info.suite.to_string()),
        ("key".to_owned(), info.kek.to_string()),
    ];
    rows.extend(info.metadata.pairs().map(|(key, value)| (format!("meta {key}"), value.to_owned())));
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
