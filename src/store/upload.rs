//! Uploads of blobs whose length nobody knows yet.
//!
//! Separate from the façade because it is the one place where half a blob
//! exists. Invariants: nothing is visible under the path before
//! [`BlobWriter::finish`] is under way, and then the whole blob is or nothing;
//! memory is bounded by the [`PartPlan`], whatever the length.
//!
//! What a writer leaves behind if the program is killed is invisible, and goes
//! away by a rule of the bucket or by [`sweep_staging`](super::sweep_staging).

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, PutPayloadMut};
use thiserror::Error as ThisError;
use tokio::task::JoinSet;

use super::create::{Created, create};
use super::fault::is_of_file_system;
use super::{StorageKind, store_error};
use crate::error::{Error, ErrorKind, Result};

const MIB: usize = 1 << 20;

/// How a blob is cut into parts.
///
/// S3 and Google take 10,000 parts of 5 MiB or more; a part is held in memory
/// until it is stored. So parts begin small and grow only for blobs that need it:
/// 8 MiB for the first 2,000 parts (15.6 GiB), then twice as much every 1,000
/// parts, 2 GiB at the end, 4,000 GiB in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartPlan(Plan);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Growing,
    Even(usize),
}

impl PartPlan {
    /// The plan for a kind of storage: growing parts, or 4 MiB each where their
    /// number does not matter.
    #[must_use]
    pub const fn new(kind: StorageKind) -> Self {
        match kind {
            StorageKind::Cloud => Self(Plan::Growing),
            StorageKind::Local | StorageKind::Memory => Self::even(4 * MIB),
        }
    }

    /// Any number of parts of `bytes` each.
    ///
    /// # Panics
    /// If `bytes` is zero.
    #[must_use]
    pub const fn even(bytes: usize) -> Self {
        assert!(bytes > 0, "a part holds something");
        Self(Plan::Even(bytes))
    }

    /// The bytes of part `index`, counted from 0; the last part may be shorter.
    /// `None` where the plan ends.
    #[must_use]
    pub const fn part_len(self, index: u32) -> Option<usize> {
        match self.0 {
            Plan::Even(bytes) => Some(bytes),
            Plan::Growing => match index {
                0..2_000 => Some(8 * MIB),
                2_000..10_000 => Some((8 * MIB) << (index / 1_000 - 1)),
                _ => None,
            },
        }
    }

    /// How many parts may be on their way at once, besides the one that is being
    /// filled: 2, or 1 where parts have grown beyond 64 MiB.
    #[must_use]
    pub const fn in_flight(self, index: u32) -> usize {
        match self.part_len(index) {
            Some(bytes) if bytes <= 64 * MIB => 2,
            _ => 1,
        }
    }
}

/// Writes one new blob.
///
/// # Contract
/// * **Visibility**: the blob appears whole during [`finish`](Self::finish), or
///   never. On a local file system it is then forced to the disk.
/// * **Existing objects**: what fits in one part is written create-if-absent.
///   Longer blobs replace what is at the path, which no storage can prevent: the
///   path must be new, as that of a fresh blob id is.
/// * **Memory**: the part that is being filled and those in flight
///   ([`PartPlan::in_flight`]). Pieces are kept, not copied, unless they are tiny;
///   a piece that is a slice keeps alive all of what it was cut from.
/// * **Failure**: after an error or a cancelled `write` every further call fails,
///   and nothing becomes visible. An error of `finish` may leave open whether the
///   blob did, or will ([`is_in_doubt`]): treat it as sealed until it is found or deleted.
/// * **Ending**: dropped before `finish` returns, it removes its parts in the
///   background while a Tokio runtime is there to do so.
pub struct BlobWriter {
    store: Arc<dyn ObjectStore>,
    path: Path,
    plan: PartPlan,
    buffer: PutPayloadMut,
    /// The part that is being filled.
    index: u32,
    written: u64,
    upload: Option<Upload>,
    intact: bool,
}

/// How often to look whether a blob is there, while the storage says nothing about it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Smaller pieces are copied together: each piece costs an allocation.
const TINY: usize = 2 << 10;

impl BlobWriter {
    /// A writer of the blob at `path`. It asks nothing of the storage before the
    /// first part is full.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, path: Path, plan: PartPlan) -> Self {
        Self {
            store,
            path,
            plan,
            buffer: PutPayloadMut::new(),
            index: 0,
            written: 0,
            upload: None,
            intact: true,
        }
    }

    /// The bytes written so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes the next bytes, and waits while too many parts are on their way.
    ///
    /// # Errors
    /// Those of [`store_error`]; [`ErrorKind::InvalidInput`] for a blob that is
    /// longer than the plan.
    ///
    /// # Cancel safety
    /// None: a cancelled `write` may have taken some of its bytes, and spoils the
    /// writer.
    pub async fn write(&mut self, mut piece: Bytes) -> Result<()> {
        self.check()?;
        self.intact = false;
        loop {
            let room = self.room()?;
            // A full part stays here until there is more: the last part, which
            // may be the only one, is never empty.
            if piece.len() <= room {
                self.push(piece);
                break;
            }
            let head = piece.split_to(room);
            self.push(head);
            self.send_part().await?;
        }
        self.intact = true;
        Ok(())
    }

    /// Makes the blob visible and durable, and returns its size in bytes.
    ///
    /// # Errors
    /// Those of [`store_error`]; [`ErrorKind::AlreadyExists`] if a short blob's
    /// path holds other bytes; [`ErrorKind::Unavailable`] if it is not known whether the blob
    /// is there ([`is_in_doubt`]).
    ///
    /// # Cancel safety
    /// None: the blob may have become visible.
    pub async fn finish(mut self) -> Result<u64> {
        self.check()?;
        if self.upload.is_none() {
            let payload = std::mem::take(&mut self.buffer).freeze();
            // If we stop here, the blob is there or not, as below.
            return match create(&*self.store, &self.path, payload, "write a blob").await {
                Ok(Created::Ours) => Ok(self.written),
                Ok(Created::Another) => {
                    let message = "another blob stands where this one was to be written";
                    Err(Error::new(ErrorKind::AlreadyExists, message))
                }
                Err(error) => Err(in_doubt(error)),
            };
        }
        self.send_part().await?;
        let upload = self.upload.as_mut().expect("checked above");
        // Until now nothing can become visible.
        upload.all_arrived().await.map_err(|error| store_error(error, "write a part of a blob"))?;
        // If we stop here, the blob is there or not: whoever logged the intent
        // looks for it.
        let (store, path, size) = (&*self.store, &self.path, self.written);
        if let Err(error) = upload.complete_or(is_visible_soon(store, path, size)).await {
            // The answer may have been lost on its way.
            if is_of_file_system(&error) || !is_visible(store, path, size).await {
                let _ = upload.abort().await;
                self.upload = None;
                return Err(in_doubt(store_error(error, "finish a blob")));
            }
        }
        self.upload = None;
        Ok(self.written)
    }

    /// Gives the blob up and removes its parts.
    ///
    /// # Errors
    /// Those of [`store_error`], if parts may be left.
    pub async fn abort(mut self) -> Result<()> {
        match self.upload.take() {
            Some(mut upload) => {
                upload.abort().await.map_err(|error| store_error(error, "remove a given-up blob"))
            }
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<()> {
        if self.intact {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unavailable, "the upload of this blob failed before"))
    }

    fn room(&self) -> Result<usize> {
        let len = self.plan.part_len(self.index).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "the blob is longer than a storage can hold (4,000 GiB)")
        })?;
        Ok(len - self.buffer.content_length())
    }

    fn push(&mut self, piece: Bytes) {
        self.written += u64::try_from(piece.len()).expect("a length fits in 64 bits");
        if piece.len() < TINY {
            self.buffer.extend_from_slice(&piece);
        } else {
            self.buffer.push(piece);
        }
    }

    async fn send_part(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.buffer).freeze();
        if self.upload.is_none() {
            let parts = self.store.put_multipart(&self.path).await;
            // If we stop here, an empty upload is left for the bucket's rule or
            // the sweeper.
            let parts = parts.map_err(|error| store_error(error, "begin a blob"))?;
            self.upload = Some(Upload { parts, in_flight: JoinSet::new() });
        }
        let upload = self.upload.as_mut().expect("made above");
        let sent = upload.send(part, self.plan.in_flight(self.index)).await;
        self.index += 1;
        sent.map_err(|error| store_error(error, "write a part of a blob"))
    }
}

/// Whether a blob of this size is there. The path is one writer's alone, so it is that one's.
async fn is_visible(store: &dyn ObjectStore, path: &Path, size: u64) -> bool {
    store.head(path).await.is_ok_and(|meta| meta.size == size)
}

/// Ends when the blob is there.
async fn is_visible_soon(store: &dyn ObjectStore, path: &Path, size: u64) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if is_visible(store, path, size).await {
            return;
        }
    }
}

/// Whether the blob may be visible, now or later, although [`BlobWriter::finish`] failed with this
/// error, or one that it is the cause of.
#[must_use]
pub fn is_in_doubt(error: &Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        if error.is::<Unconfirmed>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Of an error of the request that makes a blob visible: a refusal, or doubt.
fn in_doubt(error: Error) -> Error {
    if error.kind() == ErrorKind::Configuration {
        return error;
    }
    // Whatever the kind was: a record with this outcome counts as a blob.
    Error::new(ErrorKind::Unavailable, "the storage did not confirm the blob").with_source(Unconfirmed(error))
}

#[derive(Debug, ThisError)]
#[error("it may be stored or not")]
struct Unconfirmed(#[source] Error);

impl Drop for BlobWriter {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        // Without a runtime the parts in flight are dead already, and a local
        // upload removes its file when it is dropped.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { upload.abort().await });
        }
    }
}

impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobWriter")
            .field("path", &self.path.as_ref())
            .field("written", &self.written)
            .finish_non_exhaustive()
    }
}

struct Upload {
    parts: Box<dyn MultipartUpload>,
    in_flight: JoinSet<object_store::Result<()>>,
}

impl Upload {
    /// Sends a part once fewer than `limit` are on their way.
    async fn send(&mut self, part: PutPayload, limit: usize) -> object_store::Result<()> {
        while self.in_flight.len() >= limit {
            self.one_arrived().await?;
        }
        self.in_flight.spawn(self.parts.put_part(part));
        Ok(())
    }

    /// Waits for the parts on their way.
    async fn all_arrived(&mut self) -> object_store::Result<()> {
        while !self.in_flight.is_empty() {
            self.one_arrived().await?;
        }
        Ok(())
    }

    /// Puts the parts together. Ends when the storage says so, or when the blob is `visible`.
    async fn complete_or(&mut self, visible: impl Future<Output = ()>) -> object_store::Result<()> {
        tokio::select! {
            biased;
            done = self.parts.complete() => done.map(drop),
            () = visible => Ok(()),
        }
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        // First those on their way: a part that arrives after the abort stays.
        self.in_flight.shutdown().await;
        self.parts.abort().await
    }

    async fn one_arrived(&mut self) -> object_store::Result<()> {
        match self.in_flight.join_next().await {
            Some(part) => part?,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn parts_grow_only_for_large_blobs() {
        let plan = PartPlan::new(StorageKind::Cloud);
        let lens = || (0..).map_while(|index| plan.part_len(index));
        assert_eq!(lens().count(), 10_000);
        assert_eq!(lens().map(|len| len as u64).sum::<u64>(), 4_000 << 30);
        assert!(lens().is_sorted());
        // All but the last part of an upload are 5 MiB or more.
        assert_eq!(lens().next(), Some(8 * MIB));
        assert_eq!(lens().last(), Some(2 << 30));

        let small = lens().take_while(|len| *len == 8 * MIB).map(|len| len as u64).sum::<u64>();
        assert_eq!(small, 16_000 << 20);
        assert!(small >= 10 << 30);
        // What is held, the part in the making included, stays within 24 MiB or
        // a three-hundredth of what was written.
        let mut before = 0;
        for (index, len) in (0..).zip(lens()) {
            let held = (plan.in_flight(index) + 1) as u64 * len as u64;
            assert!(held <= (24 << 20) || held <= before / 300, "{index}");
            before += len as u64;
        }
    }

    #[test]
    fn local_parts_are_even() {
        let plan = PartPlan::new(StorageKind::Local);
        assert_eq!(plan.part_len(u32::MAX), Some(4 * MIB));
        assert_eq!(plan.in_flight(u32::MAX), 2);
    }

    #[tokio::test]
    async fn pieces_of_any_size_arrive_in_order() {
        for (total, plan) in [(0, 8), (1, 8), (7, 8), (8, 8), (9, 8), (16, 8), (17, 8), (1000, 8), (1000, 1)]
        {
            for step in [1, 3, 8, 20, 5000] {
                let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
                let path = Path::from("blob");
                let body: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
                let mut writer = BlobWriter::new(Arc::clone(&store), path.clone(), PartPlan::even(plan));
                for piece in body.chunks(step) {
                    writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
                    assert!(store.head(&path).await.is_err());
                }
                assert_eq!(writer.finish().await.unwrap(), body.len() as u64);
                assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), body);
            }
        }
    }

    #[tokio::test]
    async fn a_short_blob_replaces_nothing_and_a_repeated_one_is_the_same() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("blob");
        store.put(&path, "first".into()).await.unwrap();
        for (body, result) in [("other", Err(ErrorKind::AlreadyExists)), ("first", Ok(5))] {
            let mut writer = BlobWriter::new(Arc::clone(&store), path.clone(), PartPlan::even(100));
            writer.write(body.into()).await.unwrap();
            assert_eq!(writer.finish().await.map_err(|error| error.kind()), result, "{body}");
        }
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
    }

    #[tokio::test]
    async fn a_blob_beyond_the_plan_is_refused() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut writer = BlobWriter::new(store, Path::from("blob"), PartPlan(Plan::Growing));
        writer.index = 10_000;
        let error = writer.write("x".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(writer.finish().await.is_err());
    }
}
