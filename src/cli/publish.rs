//! `audit publish`, `audit maintain`, and what every command publishes at its
//! end.

use serde_json::json;

use super::exit::Exit;
use super::failure::Failure;
use super::output::line;
use super::{Answer, Store};
use crate::audit::publish::Published;
use crate::error::ErrorKind;

pub(super) async fn publish(backend: &Store, restore: bool) -> Answer {
    if restore {
        backend.room.restore_log().await.map_err(|error| backend.explain(error))?;
    }
    let published = backend.room.publish_log().await.map_err(|error| backend.explain(error))?;
    report(backend, &published)
}

pub(super) async fn maintain(backend: &Store) -> Answer {
    let done = backend.room.maintain_log().await.map_err(|error| backend.explain(error))?;
    let unknown: u64 = done.settled.iter().map(|(_, settled)| settled.unknown).sum();
    let fenced: usize = done.settled.iter().map(|(_, settled)| settled.fenced.len()).sum();
    let segments: usize = done.segments.iter().map(|(_, count)| count).sum();
    let report = report(backend, &done.published)?;
    Ok(match backend.output.json {
        true => line(&json!({ "fenced": fenced, "unknown": unknown, "segments": segments })) + &report,
        false => format!(
            "dead writers: {fenced}, with {unknown} operations closed as unknown; days kept: {segments} segments\n\
             {report}"
        ),
    })
}

/// A line for each shard; an alarm of a witness is a failure.
fn report(backend: &Store, published: &[(u16, Published)]) -> Answer {
    let mut text = String::new();
    for (shard, published) in published {
        let (tree, before) = (published.tree, published.before);
        let cosigned: Vec<String> = published
            .cosigned
            .iter()
            .filter(|cosigned| cosigned.result.is_ok())
            .map(|cosigned| cosigned.witness.to_string())
            .collect();
        for cosigned in &published.cosigned {
            if let Err(error) = &cosigned.result {
                backend.output.note(&format!("witness {}: {}", cosigned.witness, error.chain()));
            }
        }
        text.push_str(&match backend.output.json {
            true => line(&json!({
                "shard": shard, "records": tree.size, "new": tree.size - before, "root": tree.root,
                "cosigned": cosigned,
            })),
            false => {
                let by = if cosigned.is_empty() {
                    String::new()
                } else {
                    format!(", cosigned by {}", cosigned.join(", "))
                };
                format!(
                    "shard {shard:04x}: {} records published, {} new, root {}{by}\n",
                    tree.size,
                    tree.size - before,
                    tree.root
                )
            }
        });
    }
    without_alarm(published).map(|()| text)
}

/// That no witness has seen another history of the log.
pub(super) fn without_alarm(published: &[(u16, Published)]) -> Result<(), Failure> {
    let alarms = published.iter().flat_map(|(_, published)| published.alarms());
    let alarms: Vec<String> = alarms.map(|(witness, _)| witness.to_string()).collect();
    if alarms.is_empty() { Ok(()) } else { Err(alarm(&alarms)) }
}

/// What a command does at its end. That it could not be published now is told
/// and no failure: the records are durable. That the log is not what was written is one.
pub(super) async fn at_the_end(backend: &Store) -> Result<(), Failure> {
    let log = backend.room.log();
    if !log.has_written() {
        return Ok(());
    }
    let published = match log.is_behind().await {
        // Whoever has gone on behind us publishes at its own end.
        Ok(true) => return Ok(()),
        Ok(false) => backend.room.publish_first_shard().await,
        Err(error) => Err(error),
    };
    match published {
        Ok(published) => {
            let alarms: Vec<String> = published.alarms().map(|(witness, _)| witness.to_string()).collect();
            if alarms.is_empty() { Ok(()) } else { Err(alarm(&alarms)) }
        }
        // Others publish at the same time, and more than we have.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
        Err(error) if error.kind() == ErrorKind::Integrity => {
            Err(backend.explain(error).about("done, but the audit log is not what was written"))
        }
        Err(error) => {
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
