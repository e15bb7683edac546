//! `audit view` and `audit check-view`.

use std::fs::File;
use std::io::BufReader;

use futures_util::TryStreamExt;
use serde_json::{Value, json};

use super::super::args::{CheckView, View};
use super::super::backend::Place;
use super::super::exit::Exit;
use super::super::failure::Failure;
use super::super::output::{Output, line, seconds};
use super::export::{is_file, sink};
use super::{Answer, Backend, audit_only, publish};
use crate::audit::view::{Finding, ShardReport, Trust, ViewReport, check};
use crate::error::{Error, ErrorKind};
use crate::json::Published;

pub(super) async fn make(backend: &Backend, command: &View) -> Answer {
    // Before anything is recorded: what cannot be written is not made.
    let mut sink = sink(&command.to)?;
    let explain = |error| backend.explain(error);
    let customer = backend.customer_id(&command.customer).await?;
    let records: u64 = match &backend.place {
        Place::Store(store) => {
            let mut made = store.room.customer_view(customer).await.map_err(explain)?;
            publish::without_alarm(&Published::all(&made.published))?;
            while let Some(piece) = made.pieces.try_next().await.map_err(explain)? {
                sink.write(piece).await?;
            }
            made.view.shards.iter().map(|of| of.records).sum()
        }
        Place::Daemon(daemon) => {
            let view = daemon.view(customer, async |piece| sink.write(piece).await).await?;
            view.shards.iter().filter_map(|of| of.counted).sum()
        }
    };
    sink.finish().await?;
    Ok(match (is_file(&command.to), backend.output.json) {
        (false, _) => String::new(),
        (true, true) => line(&json!({ "customer": customer, "records": records })),
        (true, false) => format!("{records} records of customer {customer}, and that of this view\n"),
    })
}

pub(super) fn check_file(command: &CheckView, output: Output) -> Answer {
    let quorum = command.quorum.unwrap_or(command.witnesses.len());
    let keys = audit_only::chain(command.key.public(), &command.key_changes)?;
    let trust = Trust::new(keys, command.witnesses.clone(), quorum)?;
    let unreadable = |error| Failure::input("the view cannot be read", &error);
    let file = File::open(&command.view).map_err(unreadable)?;
    let report = check(BufReader::new(file), &trust).map_err(hand_on)?;
    audit_only::check_name(&command.key, report.store)?;
    let text = match output.json {
        true => line(&to_json(&report)),
        false => text(&report),
    };
    if report.is_complete() {
        return Ok(text);
    }
    output.print(&text)?;
    Err(incomplete("the view does not show that it is complete"))
}

/// What is wrong with a file that a customer got is not damage to a store.
fn hand_on(error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Integrity => incomplete(&error.chain()),
        _ => error.into(),
    }
}

fn incomplete(message: &str) -> Failure {
    Failure::new(Exit::Data, ErrorKind::Integrity.as_str(), message)
        .hint("get the file again; if it stays so, ask whoever gave it to you, and keep it")
}

fn text(report: &ViewReport) -> String {
    let mut text = format!("customer {} of store {}\n", report.customer, report.store);
    for shard in &report.shards {
        text.push_str(&shard_text(shard));
    }
    for (witness, at) in &report.cosigned {
        text.push_str(&format!("cosigned by {witness} at {}\n", seconds(*at)));
    }
    for finding in &report.findings {
        text.push_str(&format!("INCOMPLETE: {finding}\n"));
    }
    if report.more > 0 {
        text.push_str(&format!("INCOMPLETE: and {} more\n", report.more));
    }
    if let (true, Some(until)) = (report.is_complete(), report.until) {
        text.push_str(&format!("complete as of {}\n", seconds(until)));
    }
    text
}

fn shard_text(report: &ShardReport) -> String {
    let counted = report.records - report.later;
    let mut text = format!("shard {:04x}: {counted}", report.shard);
    if let Some(all) = report.counted {
        text.push_str(&format!(" of {all}"));
    }
    text.push_str(" records");
    if report.later > 0 {
        text.push_str(&format!(" and {} later", report.later));
    }
    if let (Some(first), Some(last)) = (report.first, report.last) {
        text.push_str(&format!(", {} to {}", seconds(first), seconds(last)));
    }
    text.push('\n');
    text
}

fn to_json(report: &ViewReport) -> Value {
    let cosigned =
        report.cosigned.iter().map(|(witness, at)| json!({ "witness": witness.as_str(), "at": at }));
    let finding = |finding: &Finding| {
        let mut value = json!(finding);
        value["message"] = finding.to_string().into();
        value
    };
    json!({
        "store": report.store,
        "customer": report.customer,
        "complete": report.is_complete(),
        "until": report.until,
        "shards": report.shards,
        "cosigned": cosigned.collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "more_findings": report.more,
    })
}
