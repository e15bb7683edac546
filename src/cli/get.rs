//! `get`.

use std::io::{self, IsTerminal};
use std::path::Path;

use futures_util::TryStreamExt;
use serde_json::json;

use super::args::{Get, OneBlob};
use super::backend::Customer;
use super::failure::Failure;
use super::output::line;
use super::sink::Sink;
use super::{Answer, Backend};
use crate::client::Download;
use crate::envelope::BlobName;
use crate::error::{Error, ErrorKind};
use crate::id::BlobId;
use crate::room::ByteRange;

pub(super) async fn run(backend: &Backend, command: Get) -> Answer {
    // Before anything is opened: what cannot be written is not read.
    let to_file = match command.output.as_deref() {
        Some(path) if path == Path::new("-") => None,
        Some(path) => Some(path),
        None if io::stdout().is_terminal() => {
            return Err(Failure::usage("plaintext does not go to a terminal unasked")
                .hint("write it to a file with `-o FILE`, or ask for it with `-o -`"));
        }
        None => None,
    };
    let mut sink = match to_file {
        Some(path) => Sink::file(path, command.force)?,
        None => Sink::stdout()?,
    };
    let customer = backend.customer(&command.customer.customer).await?;
    let explain = |error| backend.explain(error);
    let opened = open(&customer, &command.blob, command.range.map(|range| range.0)).await.map_err(explain)?;
    let Download { blob, range, mut pieces } = opened;
    let progress = backend.output.progress(Some(range.end - range.start));
    let mut bytes = 0;
    while let Some(piece) = pieces.try_next().await.map_err(explain)? {
        bytes += u64::try_from(piece.len()).expect("a piece fits in memory");
        sink.write(piece).await?;
        progress.set_position(bytes);
    }
    sink.finish().await?;
    progress.finish_and_clear();
    Ok(match backend.output.json && to_file.is_some() {
        true => line(&json!({ "blob": blob, "bytes": bytes, "first": range.start })),
        false => String::new(),
    })
}

async fn open(customer: &Customer, which: &OneBlob, range: Option<ByteRange>) -> Result<Download, Error> {
    match (&which.blob, &which.name) {
        (Some(blob), _) => customer.open(*blob, range).await,
        (None, Some(name)) => {
            let customer = customer.only_named(name);
            by_name(&customer, name, which.nth, async |blob| customer.open(blob, range).await).await
        }
        (None, None) => Err(Error::new(ErrorKind::InvalidInput, "a blob id or --name is missing")),
    }
}

/// The newest blob of a name. It is looked at, so that it is one that is there.
pub(super) async fn newest(customer: &Customer, name: &BlobName) -> Result<BlobId, Error> {
    let customer = customer.only_named(name);
    by_name(&customer, name, 1, async |blob| customer.stat(blob).await.map(|info| info.blob)).await
}

/// Does `work` on the `nth` newest blob of a name.
pub(super) async fn by_name<T>(
    customer: &Customer,
    name: &BlobName,
    nth: u32,
    work: impl AsyncFn(BlobId) -> Result<T, Error>,
) -> Result<T, Error> {
    // A name is written before its blob becomes visible: one without its blob is
    // a seal that never ended, and does not count.
    let mut behind = nth.max(1) - 1;
    for blob in customer.find(name).await? {
        if behind > 0 {
            match customer.stat(blob).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A damaged one still has its place.
                _ => behind -= 1,
            }
            continue;
        }
        match work(blob).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            done => return done,
        }
    }
    let message =
        if nth > 1 { "there are not so many blobs of this name" } else { "there is no blob of this name" };
    Err(Error::new(ErrorKind::NotFound, message))
}
