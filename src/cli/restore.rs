//! `restore`.

use std::fmt::Write as _;

use serde_json::json;

use super::Answer;
use super::args::Restore;
use super::backend::Store;
use super::list::{end, worse};
use super::output::{line, pairs, seconds};
use super::verify::report;
use crate::restore::{RestoreOptions, Restored, Selection};

pub(super) async fn run(store: &Store, command: Restore) -> Answer {
    let customer = store.customer(&command.customer.customer).await?;
    let selection = Selection {
        name_prefix: command.name_prefix,
        sealed_from: command.sealed_from,
        sealed_until: command.sealed_until,
        latest: command.latest,
    };
    let options = RestoreOptions { jobs: command.jobs, dry_run: command.dry_run };
    let bar = store.output.progress(None);
    let restored = customer.restore(&command.to, &selection, options, &|bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let restored = restored.map_err(|error| store.explain(error))?;
    if let Some(path) = &command.report {
        report(path, &restored.text())?;
    }
    // Told before a failure ends it, and so by itself.
    store.output.print(&match store.output.json {
        true => line(&json!(restored)),
        false => told(&restored),
    })?;
    let (mut worst, mut count) = (None, 0);
    for not in restored.not_restored.into_iter().filter(|not| !not.destroyed) {
        worst = worse(worst, store.explain(not.error));
        count += 1;
    }
    end(worst, count, "could not be restored")
}

fn told(restored: &Restored) -> String {
    let counts = restored.counts;
    let blobs = |count: u64, bytes: u64| format!("{count} blobs, {bytes} bytes");
    let what = if restored.dry_run { "to restore" } else { "restored" };
    let rows = [
        (what, blobs(counts.restored, counts.bytes)),
        ("there already", blobs(counts.skipped, counts.skipped_bytes)),
        ("destroyed", counts.destroyed.to_string()),
        ("failed", counts.failed.to_string()),
        ("done", seconds(restored.finished)),
    ];
    let mut text = pairs(rows.map(|(name, value)| (name.to_owned(), value)));
    for not in &restored.not_restored {
        let state = if not.destroyed { "destroyed" } else { "FAILED" };
        let certificate = not.certificate.map_or_else(String::new, |id| format!("  certificate {id}"));
        writeln!(text, "{}  {state}  {}{certificate}", not.blob, not.kind).expect("a string takes all");
    }
    text
}
