//! `audit tail` and `audit verify`.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::args::Tail;
use super::output::{Column, line, seconds, table};
use super::{Answer, Session};
use crate::audit::{Event, Intent, Outcome, Record};
use crate::error::Error;
use crate::id::{CustomerId, Label, RequestId};
use crate::time::Timestamp;

pub(super) async fn tail(session: &Session, command: &Tail) -> Answer {
    let explain = |error| session.explain(error);
    if session.output.json {
        let records = session.room.log().tail(command.lines).await.map_err(explain)?;
        let lines = records.iter().map(|record| {
            let line = serde_json::to_string(record).expect("a record is ids and numbers");
            format!("{line}\n")
        });
        return Ok(lines.collect());
    }
    let operations = operations(session, command.lines).await.map_err(explain)?;
    // The log has ids. Who may read rings sees labels, and anyone else the ids.
    let labels: HashMap<CustomerId, Label> =
        match operations.iter().any(|operation| operation.intent.customer.is_some()) {
            true => session.room.customers(&session.access).await.unwrap_or_default(),
            false => Vec::new(),
        }
        .into_iter()
        .map(|info| (info.id, info.label))
        .collect();
    let rows = operations.iter().map(|Operation { at, intent, outcome }| {
        let customer =
            intent.customer.map(|id| labels.get(&id).map_or_else(|| id.to_string(), Label::to_string));
        vec![
            seconds(*at),
            intent.principal.to_string(),
            intent.purpose.to_string(),
            code(&intent.action),
            customer.unwrap_or_default(),
            intent.blob.map(|blob| blob.to_string()).unwrap_or_default(),
            outcome.as_ref().map_or_else(|| "(open)".to_owned(), |outcome| code(&outcome.result)),
            outcome
                .as_ref()
                .and_then(|outcome| outcome.bytes)
                .map(|bytes| bytes.to_string())
                .unwrap_or_default(),
        ]
    });
    let whole = ["TIME", "PRINCIPAL", "PURPOSE", "ACTION", "CUSTOMER", "BLOB", "RESULT"];
    let mut columns = whole.map(|name| (name, Column::Whole)).to_vec();
    columns.push(("BYTES", Column::Number));
    Ok(table(&columns, rows))
}

pub(super) async fn verify(session: &Session) -> Answer {
    let report = session.room.verify_log().await.map_err(|error| session.explain(error))?;
    let (commits, records, root) = (report.commits, report.records, report.head.tree().root);
    Ok(match session.output.json {
        true => line(&json!({ "commits": commits, "records": records, "root": root, "ok": true })),
        false => format!("ok: {commits} commits, {records} records, root {root}\n"),
    })
}

/// An intent with its outcome.
struct Operation {
    at: Timestamp,
    intent: Intent,
    outcome: Option<Outcome>,
}

/// The newest `count` operations, oldest first.
async fn operations(session: &Session, count: usize) -> Result<Vec<Operation>, Error> {
    let mut window = count.saturating_mul(2).saturating_add(100);
    loop {
        let records = session.room.log().tail(window).await?;
        let all = records.len() < window;
        let mut operations = paired(records);
        if operations.len() >= count || all {
            return Ok(operations.split_off(operations.len().saturating_sub(count)));
        }
        window = window.saturating_mul(2);
    }
}

fn paired(records: Vec<Record>) -> Vec<Operation> {
    let mut operations: Vec<Operation> = Vec::new();
    let mut places: HashMap<RequestId, usize> = HashMap::new();
    for Record { time, event, .. } in records {
        match event {
            Event::Intent(intent) => {
                places.insert(intent.request, operations.len());
                operations.push(Operation { at: time, intent, outcome: None });
            }
            // One whose intent lies further back belongs to an operation that
            // is not shown.
            Event::Outcome(outcome) => {
                if let Some(place) = places.get(&outcome.request) {
                    operations[*place].outcome = Some(outcome);
                }
            }
            // What the log says of itself is nobody's operation.
            _ => {}
        }
    }
    operations
}

/// What the log calls it.
fn code(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(code)) => code,
        _ => "?".to_owned(),
    }
}
