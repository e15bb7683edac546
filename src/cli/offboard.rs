//! `offboard`: what comes after the order that closes a customer.

use std::sync::Arc;

use serde_json::json;

use super::args::{Into, Offboard, OffboardDestroy, OffboardReturn};
use super::failure::Failure;
use super::output::{line, pairs, seconds};
use super::{Answer, Backend, Store, log_key, options};
use crate::config::LogKey;
use crate::id::CustomerRef;
use crate::json::Offboarding;
use crate::room::{Customer, Strongroom};
use crate::shred::offboard::{CustomerKeyEnd, Destination, Proof};
use crate::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use crate::system::SystemClock;

pub(super) async fn run(backend: &Backend, command: Offboard) -> Answer {
    match command {
        Offboard::Status { customer } => {
            let status = backend.customer(&customer).await?.offboarding().await;
            status.map(|status| shown(backend, &status)).map_err(|error| backend.explain(error))
        }
        Offboard::Reopen { customer } => {
            let status = backend.customer(&customer).await?.reopen().await;
            status.map(|status| shown(backend, &status)).map_err(|error| backend.explain(error))
        }
        Offboard::Return(command) => give_back(backend.store()?, command).await,
        Offboard::Destroy(command) => destroy(backend.store()?, command).await,
        Offboard::Finish { customer } => finish(backend.store()?, &customer).await,
    }
}

fn shown(backend: &Backend, status: &Offboarding) -> String {
    if backend.output.json { line(&json!(status)) } else { told(status) }
}

fn told(status: &Offboarding) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let holds: Vec<String> = status.holds.iter().map(ToString::to_string).collect();
    let rows = [
        ("customer", status.customer.to_string()),
        ("stage", status.stage.to_string()),
        ("order", or_none(status.order.map(|order| order.to_string()))),
        ("active keys", status.active.to_string()),
        ("in the window", status.pending.to_string()),
        ("until", or_none(status.until.map(seconds))),
        ("dropped keys", status.dropped.to_string()),
        ("legal holds", or_none((!holds.is_empty()).then(|| holds.join(", ")))),
        ("KMS key", status.kms_key.to_string()),
    ];
    pairs(rows.map(|(name, value)| (name.to_owned(), value)))
}

async fn give_back(backend: &Store, command: OffboardReturn) -> Answer {
    let customer = backend.customer(&command.customer).await?.id();
    let (destination, own) = destination(backend, command.to.to, &command.to.into, CreateRoot::Yes).await?;
    let returned = backend.room.return_blobs(&backend.access, customer, &destination).await;
    close(own).await?;
    let returned = returned.map_err(|error| backend.explain(error))?;
    let (body, counts) = (returned.manifest.body(), returned.manifest.body().counts);
    if backend.output.json {
        return Ok(line(&json!({
            "customer": customer,
            "order": body.order,
            "return_to": body.return_to,
            "manifest": returned.manifest.digest(),
            "list": body.list.sha256,
            "counts": counts,
        })));
    }
    let rows = [
        ("returned", format!("{} blobs, {} bytes", counts.returned, counts.bytes)),
        ("missing", counts.missing.to_string()),
        ("unfinished", counts.unfinished.to_string()),
        ("not in the log", counts.unlogged.to_string()),
        ("signed", seconds(body.issued)),
    ];
    Ok(pairs(rows.map(|(name, value)| (name.to_owned(), value))))
}

async fn destroy(backend: &Store, command: OffboardDestroy) -> Answer {
    let customer = backend.customer(&command.customer).await?.id();
    let opened = match command.to.to {
        Some(url) => Some(destination(backend, url, &command.to.into, CreateRoot::No).await?),
        None => None,
    };
    let (destination, own) = opened.map_or((None, None), |(destination, own)| (Some(destination), own));
    let proof = destination.as_ref().map(|destination| Proof { destination, missing: command.missing });
    let destroying = backend.room.destroy_customer(&backend.access, customer, proof).await;
    close(own).await?;
    let destroying = destroying.map_err(|error| backend.explain(error))?;
    if backend.output.json {
        return Ok(line(&json!({
            "customer": customer, "pended": destroying.pended, "until": destroying.until,
        })));
    }
    let entered = destroying.pended.len();
    Ok(match destroying.until {
        Some(until) => format!("{entered} keys entered the window; the last ends at {}\n", seconds(until)),
        None => "no key is left\n".to_owned(),
    })
}

async fn finish(backend: &Store, whose: &CustomerRef) -> Answer {
    let customer = backend.customer(whose).await?.id();
    let destroyers = backend.keys.destroyers();
    let ends = backend.room.finish_offboarding(&backend.access, customer, &destroyers).await;
    let ends = ends.map_err(|error| backend.explain(error))?;
    let due = |end: CustomerKeyEnd| match end {
        CustomerKeyEnd::Scheduled(due) => due,
        _ => None,
    };
    if backend.output.json {
        let keys = ends
            .iter()
            .map(|(kms_key, end)| json!({ "kms_key": kms_key, "end": end.as_str(), "due": due(*end) }));
        return Ok(line(&json!({ "customer": customer, "keys": keys.collect::<Vec<_>>() })));
    }
    Ok(ends.iter().map(|(kms_key, end)| format!("{kms_key}  {}\n", meaning(*end))).collect())
}

fn meaning(end: CustomerKeyEnd) -> String {
    match end {
        CustomerKeyEnd::Shared => "stays: another customer or an epoch needs it".to_owned(),
        CustomerKeyEnd::Theirs => "is denied to us: its owner ends it".to_owned(),
        CustomerKeyEnd::Scheduled(Some(due)) => format!("will be destroyed at {} or later", seconds(due)),
        CustomerKeyEnd::Scheduled(None) => "will be destroyed".to_owned(),
        CustomerKeyEnd::Gone => "is gone, as the KMS says".to_owned(),
    }
}

/// Where blobs are returned to; with a store of the customer's own, that store, which is
/// closed in the end.
async fn destination(
    backend: &Store,
    url: StorageUrl,
    into: &Into,
    create: CreateRoot,
) -> Result<(Destination, Option<Strongroom>), Failure> {
    let storage = alone(url, create).await?;
    let (Some(store), Some(key), Some(whose)) = (&into.into_store, &into.into_log_key, &into.into_customer)
    else {
        return Ok((Destination::plaintext(storage), None));
    };
    let key = std::path::absolute(key).map_err(|error| Failure::input("a path cannot be used", &error))?;
    let signer = log_key::load(&LogKey::File(key)).await?;
    let storages =
        Storages::open(&StorageUrls::new(store.clone()), CreateRoot::No, Arc::new(SystemClock)).await?;
    let opened =
        Strongroom::open(storages, backend.keys.registry(), options(&backend.config, (signer, None))?).await;
    let room = opened.map_err(|error| backend.explain(error))?;
    let theirs = room.customer_of(whose, backend.access.clone()).await;
    let theirs: Customer = theirs.map_err(|error| backend.explain(error))?;
    Ok((Destination::resealed(storage, theirs), Some(room)))
}

/// One storage by itself.
async fn alone(url: StorageUrl, create: CreateRoot) -> Result<Arc<dyn object_store::ObjectStore>, Failure> {
    let place = || Some(url.clone());
    let urls = StorageUrls { blobs: place(), keys: place(), audit: place(), root: url.clone() };
    Ok(Storages::open(&urls, create, Arc::new(SystemClock)).await?.blobs)
}

async fn close(room: Option<Strongroom>) -> Result<(), Failure> {
    match room {
        Some(room) => Ok(room.close().await?),
        None => Ok(()),
    }
}
