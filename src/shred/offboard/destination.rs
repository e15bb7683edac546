//! Where a customer's blobs are returned to: paths, writing, and reading back.
//!
//! | path | what |
//! |---|---|
//! | `blob/<blob>` | the plaintext of a blob, returned decrypted |
//! | `meta/<blob>.json` | its name, content type and pairs ([`metadata_json`]) |
//! | `returned/<blob>.json` | its line of the list, once it was read back |
//! | `list/<sha256>.ndjson` | a list |
//! | `manifest/<number>` | a manifest, from 1; the last one counts |
//!
//! What is sealed again goes into a store of the customer's own, which may lie beside
//! them.
//!
//! Separate from the returning, which knows the log and the keys. Nothing that is read
//! here is believed unless its digest is known from elsewhere. No path holds a name.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest as _, Sha256};

use super::manifest::{Digest, Line, List, ListRef, Returned, metadata_json};
use crate::envelope::Metadata;
use crate::error::{Error, ErrorKind, Result};
use crate::id::BlobId;
use crate::order::ReturnTo;
use crate::room::{Customer, Opened, SealOptions, Source};
use crate::store::create::{Created, create};
use crate::store::marker::Marker;
use crate::store::upload::{BlobWriter, PartPlan};
use crate::store::{StorageKind, store_error};
use crate::tlog::note::MAX_LEN;

/// A line of the list is shorter, in bytes.
const MAX_LINE: u64 = 1 << 10;

/// Where a customer's blobs are returned to.
#[derive(Clone)]
pub struct Destination {
    storage: Arc<dyn ObjectStore>,
    /// The customer in a store of its own.
    into: Option<Customer>,
}

/// What stands at the destination in the place of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// What was returned.
    Same,
    /// Something else.
    Other,
    /// Nothing.
    Absent,
}

/// Why a blob did not get there.
pub(super) enum Failed {
    /// It could not be opened.
    Blob(Error),
    /// It could not be written.
    Destination(Error),
}

impl Destination {
    /// Blobs are returned decrypted, as objects of this storage. Who may read it is not
    /// our affair any more.
    #[must_use]
    pub fn plaintext(storage: Arc<dyn ObjectStore>) -> Self {
        Self { storage, into: None }
    }

    /// Blobs are sealed again, into a store that has the customer's own KMS keys and log
    /// key; `storage` gets the list and the manifest.
    #[must_use]
    pub fn resealed(storage: Arc<dyn ObjectStore>, into: Customer) -> Self {
        Self { storage, into: Some(into) }
    }

    /// In which form blobs are returned.
    #[must_use]
    pub fn form(&self) -> ReturnTo {
        if self.into.is_some() { ReturnTo::Resealed } else { ReturnTo::Plaintext }
    }

    /// Refuses the store itself, and the storage of any store.
    pub(super) async fn check(&self, from: &Customer) -> Result<()> {
        let same = self.into.as_ref().is_some_and(|into| into.room.store_id() == from.room.store_id());
        if same || Marker::read(&*self.storage).await?.is_some() {
            let message = "blobs are returned to a storage that is not a store's";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(())
    }

    /// Writes what is opened. If we stop in between, the next run writes it again; sealed
    /// again, the one that was not written down is one more in the customer's own store.
    pub(super) async fn write(&self, blob: BlobId, opened: Opened) -> Result<Returned, Failed> {
        let (metadata, sealed_at) = (opened.info().metadata.clone(), opened.info().sealed_at);
        let metadata_sha256 = Digest::of(metadata_json(&metadata).as_bytes());
        let (bytes, sha256, resealed) = match &self.into {
            None => {
                let (bytes, sha256) = self.write_plaintext(blob, opened, &metadata).await?;
                (bytes, sha256, None)
            }
            Some(into) => seal_again(into, opened, metadata).await?,
        };
        Ok(Returned { bytes, sha256, metadata_sha256, sealed_at, resealed })
    }

    async fn write_plaintext(
        &self,
        blob: BlobId,
        opened: Opened,
        metadata: &Metadata,
    ) -> Result<(u64, Digest), Failed> {
        let plan = PartPlan::new(StorageKind::Cloud);
        let mut writer = BlobWriter::new(Arc::clone(&self.storage), blob_path(blob), plan);
        let (mut stream, mut hash) = (opened.into_stream(), Sha256::new());
        loop {
            match stream.try_next().await {
                Ok(Some(piece)) => {
                    hash.update(&piece);
                    writer.write(piece).await.map_err(Failed::Destination)?;
                }
                Ok(None) => break,
                Err(error) => {
                    // Nothing of it was visible, and its parts expire.
                    let _ = writer.abort().await;
                    return Err(Failed::Blob(error));
                }
            }
        }
        let bytes = writer.finish().await.map_err(|error| Failed::Destination(taken(error)))?;
        let meta = metadata_json(metadata);
        self.create(&meta_path(blob), meta.into())
            .await
            .map_err(|error| Failed::Destination(taken(error)))?;
        Ok((bytes, Digest(hash.finalize().into())))
    }

    /// Reads a returned blob whole, and compares.
    pub(super) async fn read_back(&self, blob: BlobId, returned: &Returned) -> Result<Stands> {
        match (&self.into, returned.resealed) {
            (None, None) => self.read_plaintext(blob, returned).await,
            (Some(into), Some(id)) => read_resealed(into, id, returned).await,
            _ => Ok(Stands::Other),
        }
    }

    async fn read_plaintext(&self, blob: BlobId, returned: &Returned) -> Result<Stands> {
        let found = match self.storage.get(&blob_path(blob)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(Stands::Absent),
            Err(error) => return Err(unread(error)),
        };
        let pieces = found.into_stream().map_err(unread).boxed();
        let (bytes, sha256) = digest(pieces).await?;
        let Some(meta) = self.get(&meta_path(blob), MAX_LEN as u64).await? else { return Ok(Stands::Absent) };
        let same =
            (bytes, sha256, Digest::of(&meta)) == (returned.bytes, returned.sha256, returned.metadata_sha256);
        Ok(if same { Stands::Same } else { Stands::Other })
    }

    /// What was written down of a blob. Anyone may have written it.
    pub(super) async fn line(&self, blob: BlobId) -> Result<Option<Line>> {
        let found = self.get(&line_path(blob), MAX_LINE).await?;
        Ok(found.and_then(|bytes| Line::read(&bytes)))
    }

    /// Writes down what was returned.
    pub(super) async fn put_line(&self, line: &Line) -> Result<()> {
        self.create(&line_path(line.blob), line.text().into()).await.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                let message = "something else is written down of a returned blob: another run is at work, \
                               or the destination was altered";
                Error::new(ErrorKind::Conflict, message)
            }
            _ => error,
        })
    }

    /// Writes a list. Its path is its digest, so that whoever writes it writes the same.
    pub(super) async fn put_list(&self, list: &List, reference: &ListRef) -> Result<()> {
        let plan = PartPlan::new(StorageKind::Cloud);
        let mut writer = BlobWriter::new(Arc::clone(&self.storage), list_path(reference), plan);
        for line in list.0.values() {
            writer.write(Bytes::from(line.text())).await?;
        }
        writer.finish().await.map(drop).map_err(taken)
    }

    /// The list of this digest.
    pub(super) async fn list(&self, reference: &ListRef) -> Result<List> {
        let bytes = self.get(&list_path(reference), reference.bytes).await?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::Integrity, "the list of a return is gone, or longer than it was")
        })?;
        List::parse(&bytes, reference)
    }

    /// The number and the bytes of the newest manifest.
    pub(super) async fn newest_manifest(&self) -> Result<Option<(u32, Bytes)>> {
        let mut objects = self.storage.list(Some(&Path::from("manifest")));
        let mut newest = None;
        while let Some(object) = objects.try_next().await.map_err(unread)? {
            let number = object.location.filename().and_then(|name| name.parse::<u32>().ok());
            // Whatever else lies there is not ours.
            newest = newest.max(number.filter(|number| manifest_path(*number) == object.location));
        }
        let Some(number) = newest else { return Ok(None) };
        let bytes = self.get(&manifest_path(number), MAX_LEN as u64).await?;
        Ok(bytes.map(|bytes| (number, bytes)))
    }

    /// Writes the manifest of this number.
    pub(super) async fn put_manifest(&self, number: u32, note: String) -> Result<()> {
        self.create(&manifest_path(number), note.into()).await.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::new(ErrorKind::Conflict, "another run wrote a manifest"),
            _ => error,
        })
    }

    /// Creates a small object, or finds the same there.
    async fn create(&self, path: &Path, bytes: Bytes) -> Result<()> {
        let what = "write to where blobs are returned to";
        match create(&*self.storage, path, bytes.into(), what).await? {
            Created::Ours => Ok(()),
            Created::Another => {
                let message = "another object stands where blobs are returned to";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
        }
    }

    /// An object, unless it is longer than `limit` bytes.
    async fn get(&self, path: &Path, limit: u64) -> Result<Option<Bytes>> {
        match self.storage.get(path).await {
            Ok(found) if found.meta.size <= limit => found.bytes().await.map(Some).map_err(unread),
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unread(error)),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destination").field("form", &self.form()).finish_non_exhaustive()
    }
}

fn blob_path(blob: BlobId) -> Path {
    Path::from_iter(["blob", &blob.to_string()])
}

fn meta_path(blob: BlobId) -> Path {
    Path::from_iter(["meta", &format!("{blob}.json")])
}

fn line_path(blob: BlobId) -> Path {
    Path::from_iter(["returned", &format!("{blob}.json")])
}

fn list_path(reference: &ListRef) -> Path {
    let name = data_encoding::HEXLOWER.encode(&reference.sha256.0);
    Path::from_iter(["list", &format!("{name}.ndjson")])
}

fn manifest_path(number: u32) -> Path {
    Path::from_iter(["manifest", &format!("{number:08}")])
}

/// Seals what is opened in the customer's own store.
async fn seal_again(
    into: &Customer,
    opened: Opened,
    metadata: Metadata,
) -> Result<(u64, Digest, Option<BlobId>), Failed> {
    let state = Arc::new(Mutex::new((Sha256::new(), None::<Error>)));
    let seen = Arc::clone(&state);
    let pieces = opened.into_stream().map(move |piece| {
        let mut state = seen.lock().unwrap_or_else(PoisonError::into_inner);
        piece.inspect(|piece| state.0.update(piece)).map_err(|error| {
            state.1 = Some(error);
            std::io::Error::other("the blob could not be opened")
        })
    });
    let sealed = into.seal(Source::stream(pieces), SealOptions::new().metadata(metadata)).await;
    let (hash, failed) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.0.clone(), state.1.take())
    };
    match (sealed, failed) {
        (_, Some(error)) => Err(Failed::Blob(error)),
        (Err(error), None) => Err(Failed::Destination(error)),
        (Ok(sealed), None) => Ok((sealed.bytes, Digest(hash.finalize().into()), Some(sealed.id))),
    }
}

async fn read_resealed(into: &Customer, id: BlobId, returned: &Returned) -> Result<Stands> {
    let read = async {
        let opened = into.open(id).await?;
        let metadata = Digest::of(metadata_json(&opened.info().metadata).as_bytes());
        let (bytes, sha256) = digest(opened.into_stream()).await?;
        Ok((bytes, sha256, metadata))
    };
    let read: Result<_> = read.await;
    match read {
        Ok(found) if found == (returned.bytes, returned.sha256, returned.metadata_sha256) => Ok(Stands::Same),
        Ok(_) => Ok(Stands::Other),
        Err(error) => match error.kind() {
            ErrorKind::NotFound => Ok(Stands::Absent),
            ErrorKind::Authentication => Ok(Stands::Other),
            _ => Err(error),
        },
    }
}

async fn digest(
    mut pieces: futures_util::stream::BoxStream<'static, Result<Bytes>>,
) -> Result<(u64, Digest)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    while let Some(piece) = pieces.try_next().await? {
        bytes += u64::try_from(piece.len()).expect("in memory");
        hash.update(&piece);
    }
    Ok((bytes, Digest(hash.finalize().into())))
}

fn unread(error: object_store::Error) -> Error {
    store_error(error, "read what was returned")
}

/// What stands already where we write, and is not the same.
fn taken(error: Error) -> Error {
    match error.kind() {
        ErrorKind::AlreadyExists => {
            Error::new(ErrorKind::Integrity, "something else stands where a blob is returned to")
                .with_source(error)
        }
        _ => error,
    }
}
