//! `audit keys`, `audit new-key` and `audit rotate-key`.

use serde_json::json;

use super::super::args::{LogKeys, RotateLogKey};
use super::super::failure::Failure;
use super::super::output::{Column, Output, line, seconds, table};
use super::super::{Answer, Backend, audit_only, log_key};
use crate::audit::layout::{FIRST_SHARD, verifier};
use crate::audit::log::LogReader;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::store::marker::Marker;

/// The keys of a log, oldest first, or one statement.
pub(super) fn show(reader: &LogReader, command: &LogKeys, output: Output) -> Answer {
    let (store, keys) = (reader.store(), reader.authority());
    let changes = keys.changes();
    let of = |number: u32| changes.iter().find(|change| change.body().number == number);
    if let Some(number) = command.change {
        let none = || Error::new(ErrorKind::NotFound, "the log's key never changed to this number");
        return Ok(of(number).ok_or_else(none)?.to_string());
    }
    let named = |key| verifier(store, FIRST_SHARD, key);
    if output.json {
        let keys = keys.keys().into_iter().map(|(number, key)| {
            let change = of(number).map(|change| change.body());
            line(&json!({
                "number": number,
                "key": named(key),
                "since": change.map(|body| body.time),
                "order": change.map(|body| body.order.id),
                "requested_by": change.map(|body| &body.order.requester),
                "approved_by": change.map(|body| &body.order.approver),
            }))
        });
        return Ok(keys.collect());
    }
    let columns = ["KEY", "SINCE", "ORDER", "BY", "PUBLIC KEY"].map(|name| (name, Column::Whole));
    let rows = keys.keys().into_iter().map(|(number, key)| {
        let (since, order, by) = match of(number).map(|change| change.body()) {
            Some(body) => {
                let [one, other] = [&body.order.requester.principal, &body.order.approver.principal];
                (seconds(body.time), body.order.id.to_string(), format!("{one}, {other}"))
            }
            None => ("the beginning".to_owned(), String::new(), String::new()),
        };
        vec![number.to_string(), since, order, by, named(key).to_string()]
    });
    Ok(table(&columns, rows))
}

/// Makes the next key, unless it is there.
pub(super) async fn new_key(config: &Config, output: Output) -> Answer {
    let storage = audit_only::storage(config).await?;
    let marker = Marker::read(&*storage).await?;
    let marker = marker.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no audit log"))?;
    let place = config.other_log_key.as_ref().ok_or_else(|| {
        Failure::usage("say where the new key is to be with --other-log-key")
            .hint("a file, which is made, or aws-kms:<ARN> of a key that you made")
    })?;
    let key = log_key::load_or_make(place).await?.public();
    let named = verifier(marker.store, FIRST_SHARD, key);
    Ok(match output.json {
        true => line(&json!({ "key": named })),
        false => format!("{named}\n"),
    })
}

pub(super) async fn rotate(backend: &Backend, command: &RotateLogKey) -> Answer {
    let store = backend.store()?;
    let rotated = store.room.rotate_log_key(&backend.access, command.order).await;
    let rotated = rotated.map_err(|error| backend.explain(error))?;
    let key = verifier(store.room.store_id(), FIRST_SHARD, rotated.key);
    Ok(match backend.output.json {
        true => line(&json!({
            "number": rotated.number,
            "key": key,
            "resumed": rotated.resumed,
            "shards": rotated.shards,
        })),
        false => format!(
            "the audit log is under key {} in every shard ({} changed now); it verifies with {key}\n",
            rotated.number, rotated.shards
        ),
    })
}
