//! What a command has that reads the audit log and nothing else: the audit storage,
//! and the log's public key. No KMS, no rings, no private key, and nothing is recorded.
//!
//! Separate from the [`Backend`](super::Backend), which takes all of these. An auditor
//! has read access to one bucket.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;

use super::args::PublicKeyText;
use super::backend::no_customer;
use super::exit::Exit;
use super::failure::Failure;
use super::log_key;
use super::output::Output;
use crate::audit::authority::{Authority, KeyChange};
use crate::audit::layout::{origin, pins_of};
use crate::audit::log::LogReader;
use crate::audit::query::{Filter, query};
use crate::config::{Config, LogKey};
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, StoreId};
use crate::room::no_such_id;
use crate::store::marker::Marker;
use crate::store::{CreateRoot, StorageRole, StorageUrls, Storages};
use crate::system::SystemClock;
use crate::tlog::PublicKey;
use crate::tlog::note::MAX_LEN;

/// What one request may take: a segment has some 32 MiB.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// The log of the configured store, by its audit storage alone.
pub(super) async fn open(
    config: &Config,
    key: Option<&PublicKeyText>,
    output: Output,
) -> Result<LogReader, Failure> {
    let storage = storage(config).await?;
    let marker = Marker::read(&*storage).await?;
    let marker = marker.ok_or_else(|| no_log(config, Error::new(ErrorKind::NotFound, "no marker")))?;
    let authority = authority(config, key, (marker, &storage), output).await?;
    Ok(LogReader::open(storage, marker.store, authority, LIMIT))
}

/// The audit storage, and nothing that it holds.
pub(super) async fn storage(config: &Config) -> Result<Arc<dyn ObjectStore>, Failure> {
    let url = config.urls.of(StorageRole::Audit);
    let urls = StorageUrls { audit: Some(url.clone()), ..StorageUrls::new(url) };
    let opened = Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await;
    Ok(opened.map_err(|error| no_log(config, error))?.audit)
}

/// The log's keys, from the marker's on. The one that was given is among them, or else that of the
/// configured signing key; without either they are what the storage itself says.
pub(super) async fn authority(
    config: &Config,
    key: Option<&PublicKeyText>,
    (marker, storage): (Marker, &Arc<dyn ObjectStore>),
    output: Output,
) -> Result<Authority, Failure> {
    let authority = Authority::from(marker.log_key);
    authority.follow(&**storage, marker.store, LIMIT).await?;
    if let Some(key) = key {
        check_name(key, marker.store)?;
    }
    match known_key(config, key).await? {
        Some(key) => {
            check_key(key, &authority)?;
            if authority.newest().1 != key {
                output.note("the log's key was replaced since: `strongroom audit keys` shows when, and by whose order");
            }
        }
        None => {
            output.note(
                "the log's key is taken from its own storage; give it with --key to know whose log it is",
            );
        }
    }
    Ok(authority)
}

/// The log's key: as it was given, else that of the configured signing key; `None`
/// where there is neither.
pub(super) async fn known_key(
    config: &Config,
    key: Option<&PublicKeyText>,
) -> Result<Option<PublicKey>, Failure> {
    Ok(match (key, &config.log_key) {
        (Some(key), _) => Some(key.public()),
        // The one that `init` makes, where it was not run.
        (None, LogKey::File(path)) if *path == config.local_kms.join("log.key") && !path.exists() => None,
        (None, configured) => Some(log_key::load(configured).await?.public()),
    })
}

/// A customer that the log knows of: it has ring pins, or an operation that names it, where the pins
/// were lost. An unknown one is not an empty answer.
pub(super) async fn known(reader: &LogReader, customer: CustomerId) -> Result<CustomerId, Failure> {
    let is_store = customer.as_bytes() == reader.store().as_bytes();
    if !is_store && !reader.list(&pins_of(customer)).await?.is_empty() {
        return Ok(customer);
    }
    let filter = Filter { customer: Some(customer), ..Filter::default() };
    match query(reader, &filter, None, NonZeroUsize::MIN).await?.operations.is_empty() {
        true => Err(no_customer(no_such_id(), Failure::from)),
        false => Ok(customer),
    }
}

fn no_log(config: &Config, error: Error) -> Failure {
    if error.kind() != ErrorKind::NotFound {
        return error.into();
    }
    let message = format!("no audit log at {}", config.urls.of(StorageRole::Audit));
    Failure::new(Exit::NoInput, error.kind().as_str(), message)
        .hint("name another place with --audit-store or STRONGROOM_AUDIT, or the store with --store")
}

/// A key that was given, and the keys that these statements lead to from it.
pub(super) fn chain(key: PublicKey, changes: &[PathBuf]) -> Result<Authority, Failure> {
    let authority = Authority::from(key);
    let mut left = Vec::new();
    for path in changes {
        let unread = |error| Failure::input("the change of the log's key cannot be read", &error);
        let mut bytes = Vec::new();
        // One more than there can be, so that what is longer is seen.
        let file = File::open(path).map_err(unread)?;
        file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
        left.push(KeyChange::parse(&bytes, None)?);
    }
    // In whatever order they were given: each that fits may make room for another.
    while !left.is_empty() {
        let before = left.len();
        let mut refused = None;
        left.retain(|change| match authority.extend(change.clone()) {
            Ok(()) => false,
            Err(error) => {
                refused = Some(error);
                true
            }
        });
        if let Some(error) = refused.filter(|_| left.len() == before) {
            return Err(error.into());
        }
    }
    Ok(authority)
}

/// Checks that a key that was given is one of the log's.
pub(super) fn check_key(given: PublicKey, logs: &Authority) -> Result<(), Failure> {
    if logs.number_of(&given).is_some() {
        return Ok(());
    }
    let message = "the audit storage has the log of another key";
    Err(Failure::new(Exit::Data, "integrity", message)
        .hint("give the log's key with --key; if it is, tell whoever answers for the log"))
}

/// Checks that a named key is named after a log of this store.
pub(super) fn check_name(key: &PublicKeyText, store: StoreId) -> Result<(), Failure> {
    let PublicKeyText::Named(key) = key else { return Ok(()) };
    let (name, first) = (key.name().as_str(), origin(store, 0));
    let of_shard = |rest: &str| rest.is_empty() || rest.starts_with('/');
    if name.strip_prefix(first.as_str()).is_some_and(of_shard) {
        return Ok(());
    }
    Err(Failure::new(Exit::Data, "integrity", "the key is that of another store's log"))
}
