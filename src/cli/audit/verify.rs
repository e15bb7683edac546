//! `audit verify` and `audit checkpoint`.

use std::path::Path;

use object_store::ObjectStoreExt;
use serde_json::{Value, json};

use super::super::args::{LogCheckpoint, PublicKeyText, VerifyLog};
use super::super::exit::Exit;
use super::super::failure::Failure;
use super::super::output::{Output, line};
use super::super::{Answer, audit_only};
use crate::audit::layout::{self, FIRST_SHARD, Object};
use crate::audit::verify::{self, Options, Report, ShardReport};
use crate::client::Client;
use crate::config::Config;
use crate::durable;
use crate::error::{Error, ErrorKind};
use crate::id::StoreId;
use crate::store::marker::Marker;
use crate::store::store_error;
use crate::system::SystemClock;
use crate::time::Clock;
use crate::tlog::checkpoint::SignedCheckpoint;

/// No checkpoint is longer, in bytes.
const MAX_LEN: u64 = 1 << 20;

pub(super) async fn verify(config: &Config, command: &VerifyLog, output: Output) -> Answer {
    let pinned = command.checkpoints.iter().map(|path| pinned(path)).collect::<Result<_, _>>()?;
    let key = command.log.key.as_ref();
    let options = Options {
        authority: audit_only::known_key(config, key).await?,
        store: key.and_then(store_of),
        pinned,
        quorum: command.quorum.unwrap_or(command.witnesses.len()),
        witnesses: command.witnesses.clone(),
        ..Options::new(SystemClock.now())
    };
    let report = verify::verify(audit_only::storage(config).await?, options).await?;
    let text = if output.json { line(&to_json(&report)) } else { to_text(&report) };
    if report.is_ok() {
        return Ok(text);
    }
    output.print(&text)?;
    let message = match report.wrong {
        1 => "1 thing is wrong with the audit log".to_owned(),
        wrong => format!("{wrong} things are wrong with the audit log"),
    };
    Err(Failure::new(Exit::Data, ErrorKind::Integrity.as_str(), message)
        .hint("leave the storage as it is, and tell whoever answers for it"))
}

pub(super) async fn checkpoint(config: &Config, command: &LogCheckpoint, output: Output) -> Answer {
    let storage = audit_only::storage(config).await?;
    let marker = Marker::read(&*storage).await?;
    let marker = marker.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no audit log"))?;
    let authority =
        audit_only::authority(config, command.log.key.as_ref(), (marker, &storage), output).await?;
    let failed = |error| store_error(error, "read the checkpoint");
    let stored = storage.get(&Object::Checkpoint { shard: FIRST_SHARD }.path()).await.map_err(failed)?;
    let bytes = stored.bytes().await.map_err(failed)?;
    let signed = SignedCheckpoint::parse(&bytes).map_err(Error::from)?;
    authority.verify(&signed, (marker.store, FIRST_SHARD)).map_err(Error::from)?;
    Ok(signed.to_string())
}

/// A daemon's. Its signature is verified where the log's key is given.
pub(super) async fn daemons_checkpoint(daemon: &Client, command: &LogCheckpoint) -> Answer {
    let (signed, store) = daemon.checkpoint().await?;
    if let Some(key) = &command.log.key {
        audit_only::check_name(key, store)?;
        signed.verify(&layout::verifier(store, FIRST_SHARD, key.public())).map_err(Error::from)?;
    }
    Ok(signed.to_string())
}

/// The store that a key is named after.
fn store_of(key: &PublicKeyText) -> Option<StoreId> {
    let PublicKeyText::Named(key) = key else { return None };
    key.name().as_str().split('/').nth(1)?.parse().ok()
}

fn pinned(path: &Path) -> Result<SignedCheckpoint, Failure> {
    let failed = |error: std::io::Error| Failure::input("a checkpoint cannot be read", &error);
    let bytes = durable::read(path, MAX_LEN).map_err(failed)?;
    SignedCheckpoint::parse(&bytes).map_err(|error| {
        Failure::new(Exit::Usage, "usage", format!("a file given with --checkpoint is none: {error}"))
    })
}

/// One line a shard, one a finding, and one at the end.
fn to_text(report: &Report) -> String {
    let mut text = String::new();
    for ShardReport { shard, commits, tree, first, from, until, .. } in &report.shards {
        text.push_str(&format!("shard {shard:04x}: {commits} commits, {} records", tree.size));
        if let (Some(from), Some(until)) = (from, until) {
            text.push_str(&format!(", {from} to {until}"));
        }
        if let Some(first) = first.filter(|first| *first > 0) {
            text.push_str(&format!(", kept from commit {first}"));
        }
        text.push_str(&format!(", root {}\n", tree.root));
    }
    for finding in &report.findings {
        text.push_str(&format!("{}: {}: {}\n", finding.severity.as_str(), finding.path, finding.problem));
    }
    let shown = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    let more = (report.wrong + report.notes).saturating_sub(shown);
    if more > 0 {
        text.push_str(&format!("{more} more findings are not shown\n"));
    }
    let records: u64 = report.shards.iter().map(|shard| shard.tree.size).sum();
    let word = if report.is_ok() { "ok" } else { "wrong" };
    text.push_str(&format!("{word}: {records} records, {} wrong, {} notes\n", report.wrong, report.notes));
    text
}

fn to_json(report: &Report) -> Value {
    let shards = report.shards.iter().map(|shard| {
        json!({
            "shard": shard.shard,
            "first": shard.first,
            "commits": shard.commits,
            "records": shard.tree.size,
            "root": shard.tree.root,
            "from": shard.from,
            "until": shard.until,
            "checkpoint": shard.checkpoint.map(|tree| tree.size),
            "segments": shard.segments,
            "tiles": shard.tiles,
        })
    });
    let findings = report.findings.iter().map(|finding| {
        json!({
            "severity": finding.severity.as_str(),
            "path": finding.path,
            "code": finding.problem.code(),
            "message": finding.problem.to_string(),
        })
    });
    json!({
        "ok": report.is_ok(),
        "store": report.store,
        "key": report.authority,
        "wrong": report.wrong,
        "notes": report.notes,
        "shards": shards.collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}
