//! `audit publish`, `audit maintain`, `audit confirm-time`, and what a command publishes at its end.

use serde_json::json;

use super::args::Remove;
use super::backend::Place;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, line};
use super::{Answer, Backend, Store};
use crate::error::ErrorKind;
use crate::json::{Maintained, NotCosigned, Published, Removed};
use crate::room::RemovedDays;
use crate::time::Day;

pub(super) async fn publish(backend: &Backend, restore: bool) -> Answer {
    let published = match &backend.place {
        Place::Store(store) => {
            if restore {
                store.room.restore_log().await.map_err(|error| store.explain(error))?;
            }
            let published = store.room.publish_log().await.map_err(|error| store.explain(error))?;
            Published::all(&published)
        }
        Place::Daemon(daemon) => daemon.publish(restore).await?,
    };
    report(backend.output, &published)
}

pub(super) async fn maintain(backend: &Backend) -> Answer {
    let done = match &backend.place {
        Place::Store(store) => {
            let done = store.room.maintain_log().await.map_err(|error| store.explain(error))?;
            Maintained::from(&done)
        }
        Place::Daemon(daemon) => daemon.maintain().await?,
    };
    let Maintained { fenced, unknown, segments, bases, published, removed } = done;
    let report = report(backend.output, &published)?;
    Ok(match backend.output.json {
        true => {
            line(&json!({
                "fenced": fenced, "unknown": unknown, "segments": segments, "bases": bases, "removed": removed,
            })) + &report
        }
        false => {
            let removed = match removed {
                Removed { commits: 0, tiles: 0 } => String::new(),
                Removed { commits, tiles } => {
                    format!("removed: {commits} commits that segments hold, {tiles} partial tiles\n")
                }
            };
            let made = if bases == 0 { String::new() } else { format!("bases made: {bases}\n") };
            format!(
                "dead writers: {fenced}, with {unknown} operations closed as unknown; days kept: {segments} \
                 segments\n{made}{removed}{report}"
            )
        }
    })
}

pub(super) async fn remove(backend: &Backend, command: &Remove) -> Answer {
    let store = backend.store()?;
    let days = match command.dry_run {
        true => store.room.removable_days(command.before()).await,
        false => store.room.remove_days(&backend.access, command.before()).await,
    };
    let mut text = String::new();
    for RemovedDays { base, segments, removed, .. } in days.map_err(|error| store.explain(error))? {
        let (shard, below) = (base.shard, base.commits);
        if backend.output.json {
            let shown = json!({ "shard": shard, "below": below, "segments": segments, "removed": removed });
            text.push_str(&line(&shown));
            continue;
        }
        let done = if removed { "removed" } else { "may go" };
        let count = segments.len();
        text.push_str(&format!("shard {shard:04x}: {count} segments before commit {below}: {done}\n"));
        segments.iter().filter(|_| !removed).for_each(|path| text.push_str(&format!("  {path}\n")));
    }
    if text.is_empty() {
        backend
            .output
            .note("nothing may go: no base stands for a day before that one, with another base behind it");
    }
    Ok(text)
}

pub(super) async fn confirm_time(backend: &Backend, today: Day) -> Answer {
    let store = backend.store()?;
    let at = store.room.confirm_time(&backend.access, today).await.map_err(|error| store.explain(error))?;
    Ok(match backend.output.json {
        true => line(&json!({ "confirmed": at })),
        false => format!("confirmed: the audit log goes on at {at}\n"),
    })
}

/// A line for each shard; an alarm of a witness is a failure.
fn report(output: Output, published: &[Published]) -> Answer {
    let mut text = String::new();
    for Published { shard, records, new, root, cosigned, refused } in published {
        for NotCosigned { witness, detail, .. } in refused {
            output.note(&format!("witness {witness}: {detail}"));
        }
        text.push_str(&match output.json {
            true => line(&json!({
                "shard": shard, "records": records, "new": new, "root": root, "cosigned": cosigned,
            })),
            false => {
                let by: Vec<String> = cosigned.iter().map(ToString::to_string).collect();
                let by = match by.is_empty() {
                    true => String::new(),
                    false => format!(", cosigned by {}", by.join(", ")),
                };
                format!("shard {shard:04x}: {records} records published, {new} new, root {root}{by}\n")
            }
        });
    }
    without_alarm(published).map(|()| text)
}

/// That no witness has seen another history of the log.
pub(super) fn without_alarm(published: &[Published]) -> Result<(), Failure> {
    let refused = published.iter().flat_map(|published| &published.refused);
    let alarms: Vec<String> =
        refused.filter(|one| one.contradicts).map(|one| one.witness.to_string()).collect();
    if alarms.is_empty() { Ok(()) } else { Err(alarm(&alarms)) }
}

/// What a command does at its end if much was not published: where a daemon or cron keeps
/// the log, that is never. That it could not be published now is told and no failure: the
/// records are durable. That the log is not what was written is one.
pub(super) async fn at_the_end(backend: &Store) -> Result<(), Failure> {
    match backend.room.publish_if_much().await.transpose() {
        None => Ok(()),
        Some(Ok(published)) => {
            let alarms: Vec<String> = published.alarms().map(|(witness, _)| witness.to_string()).collect();
            if alarms.is_empty() { Ok(()) } else { Err(alarm(&alarms)) }
        }
        // Others publish at the same time, and more than we have.
        Some(Err(error)) if error.kind() == ErrorKind::Conflict => Ok(()),
        Some(Err(error)) if error.kind() == ErrorKind::Integrity => {
            Err(backend.explain(error).about("done, but the audit log is not what was written"))
        }
        Some(Err(error)) => {
            backend
                .output
                .note(&format!("done; the audit log could not be published yet: {}", error.chain()));
            Ok(())
        }
    }
}

fn alarm(witnesses: &[String]) -> Failure {
    let message = format!("a witness has seen another history of the audit log: {}", witnesses.join(", "));
    Failure::new(Exit::Data, "integrity", message)
        .hint("stop, keep the storage as it is, and call whoever answers for it: the log was rolled back or rewritten")
}
