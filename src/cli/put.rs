//! `put`.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args::Put;
use super::backend::Place;
use super::failure::Failure;
use super::output::line;
use super::producer::{Input, Running};
use super::{Answer, Backend, Store};
use crate::client::Upload;
use crate::envelope::{Metadata, MetadataError};
use crate::system::SystemClock;
use crate::time::Clock;

/// A `put` that takes longer than this has time to clean up meanwhile.
const SWEEP_AFTER: Duration = Duration::from_secs(2);

pub(super) async fn run(backend: &Backend, command: Put) -> Answer {
    let mut what = what(&command)?;
    let customer = backend.customer(&command.customer.customer).await?;
    // Held until the blob is sealed, so that no program outlives an abort.
    let (input, _running) = open(&command).await?;
    let input = input.expect(command.expect_bytes)?;
    let progress = backend.output.progress(input.expected());
    what.expect_bytes = input.expected();
    let sweeper = match &backend.place {
        Place::Store(store) => Some(sweep(store)),
        Place::Daemon(_) => None,
    };
    let sealed = customer.seal(input.with_progress(progress.clone()), what).await;
    if let Some(sweeper) = sweeper {
        sweeper.abort();
    }
    progress.finish_and_clear();
    let sealed = sealed.map_err(|error| backend.explain(error))?;
    if backend.output.json {
        return Ok(line(&json!(sealed)));
    }
    if sealed.replayed {
        backend.output.note("it had been sealed before under this --once: nothing was stored");
    }
    Ok(format!("{}\n", sealed.blob))
}

fn what(command: &Put) -> Result<Upload, Failure> {
    let wrong = |error: MetadataError| Failure::usage(error.to_string());
    let mut metadata = Metadata::new();
    if let Some(name) = &command.name {
        metadata = metadata.with_name(name.clone());
    }
    if let Some(content_type) = &command.content_type {
        metadata = metadata.with_content_type(content_type).map_err(wrong)?;
    }
    for pair in &command.meta {
        if metadata.pairs().any(|(key, _)| key == pair.key) {
            return Err(Failure::usage("two --meta have the same key"));
        }
        metadata = metadata.with_pair(&pair.key, &pair.value).map_err(wrong)?;
    }
    Ok(Upload {
        metadata,
        suite: command.suite,
        retain_until: command.retain_until,
        expect_bytes: None,
        once: command.once.clone(),
    })
}

async fn open(command: &Put) -> Result<(Input, Option<Running>), Failure> {
    match &command.file {
        None => Input::program(&command.program).map(|(input, running)| (input, Some(running))),
        Some(path) if path == Path::new("-") => Ok((Input::stdin()?, None)),
        Some(path) => {
            let path = path.clone();
            // A named pipe opens when its writer comes.
            let opened = tokio::task::spawn_blocking(move || Input::file(&path)).await;
            Ok((opened.expect("opening a file does not panic")?, None))
        }
    }
}

/// Removes what killed programs left, beside a long `put`, which is the kind
/// that leaves much. It walks the whole store: a short one does not wait for it.
fn sweep(store: &Store) -> tokio::task::JoinHandle<()> {
    let storages = store.storages.clone();
    tokio::spawn(async move {
        tokio::time::sleep(SWEEP_AFTER).await;
        // If it fails, the next one tries again.
        let _ = storages.sweep(SystemClock.now()).await;
    })
}
