//! Whether a storage keeps what a store is built on: it is tried, and not believed.
//!
//! Separate from the [probe](super::probe), which asks how a storage is set up. A server may speak
//! S3 and ignore `If-None-Match`; behind a cache, an object may be old or missing that was just
//! stored. Nothing else tells before two writers both win, and then the log is broken for good. So
//! `init`, `doctor` and the start of a daemon try each storage.
//!
//! | what | how it is tried |
//! |---|---|
//! | create-if-absent | two writers at once create one object with different bytes: one wins, the other is refused. Where neither won, one more creation is refused |
//! | read-after-write | the winner's bytes are read at once |
//! | ranges | what is read are the bytes from the 17th on, up to one far behind the end |
//! | list-after-write | the object is in a list at once |
//! | conditional replacement (audit storage alone) | a replacement of an object with another tag is refused |
//!
//! A storage that lacks one of them is refused, but for the last, of which `doctor` warns: only
//! checkpoints are replaced, and an older one that went over a newer one stands until the next is
//! published.
//!
//! # What stays
//! [`layout::probe`]: an object of 49 bytes for each trial, [`SLOTS`] a month at most, since nodes may
//! delete nothing. When the month's are there, their creation has to be refused, and the rest is
//! tried on what stands there: a cache is then not found out before the month ends. A trial costs
//! 6 requests, and 4 when the month's objects are there; the audit storage one more. A directory has
//! no cache in front of it, and one object is enough.
//!
//! Trust: a storage that means to deceive passes, and misbehaves afterwards.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutResult, UpdateVersion,
};

use super::fault::is_conflict;
use super::{StorageKind, StorageRole, Storages, layout, store_error};
use crate::error::{Error, ErrorKind, Result};
use crate::system::chance;
use crate::time::{Clock, Day};

/// How many objects trials make in a month, on each storage.
pub const SLOTS: u8 = 16;

/// What each object begins with. The rest is different in each.
const FRONT: &[u8] = b"strongroom-probe";

/// The range that is read: to a byte that no object has.
const RANGE: std::ops::Range<u64> = 16..4096;

/// What completes "failed to".
const WHAT: &str = "try what the storage keeps";

/// Something that a store is built on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Promise {
    /// Of any number of writers who create one object, one wins.
    CreateIfAbsent,
    /// What was stored is read at once, and nothing older.
    ReadAfterWrite,
    /// What was stored is listed at once.
    ListAfterWrite,
    /// A part of an object can be read.
    Ranges,
    /// An object is replaced only if it is the one that was read.
    ConditionalReplacement,
}

impl Promise {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateIfAbsent => "create-if-absent",
            Self::ReadAfterWrite => "read-after-write",
            Self::ListAfterWrite => "list-after-write",
            Self::Ranges => "ranges",
            Self::ConditionalReplacement => "conditional replacement",
        }
    }

    /// Whether nothing may be built on a storage that lacks it.
    #[must_use]
    pub const fn is_vital(self) -> bool {
        !matches!(self, Self::ConditionalReplacement)
    }

    /// What was seen.
    const fn seen(self) -> &'static str {
        match self {
            Self::CreateIfAbsent => "an object was created that was there already",
            Self::ReadAfterWrite => "an object that was just stored is missing, or an older one is read",
            Self::ListAfterWrite => "an object that was just stored is not listed",
            Self::Ranges => "a part of an object is asked for, and something else is answered",
            Self::ConditionalReplacement => "an object was replaced that was not the one named",
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::CreateIfAbsent => {
                "use a storage that honours `If-None-Match: *` on PutObject: on this one two writers break \
                 the log and the rings for good"
            }
            Self::ReadAfterWrite | Self::ListAfterWrite => {
                "use a storage with strong consistency, and have no cache in front of it"
            }
            Self::Ranges => {
                "use a storage that honours `Range` on GetObject, and have no proxy that drops it"
            }
            Self::ConditionalReplacement => {
                "nothing is lost: when two programs publish at once, the older checkpoint may stand until the next \
                 one; prefer a storage that honours `If-Match` on PutObject"
            }
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A storage that does not keep something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lack {
    /// Which storage.
    pub role: StorageRole,
    /// What it lacks.
    pub promise: Promise,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, promise } = self;
        write!(f, "the storage of {role} lacks {promise}: {}", promise.seen())
    }
}

impl From<Lack> for Error {
    fn from(lack: Lack) -> Self {
        Self::new(ErrorKind::Configuration, format!("{lack}; {}", lack.promise.advice()))
    }
}

impl Storages {
    /// Tries the three storages. See the [module](self).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] with the storage and what [vital](Promise::is_vital) thing it [lacks](Lack), or where we may not
    /// write or list; [`ErrorKind::Unavailable`].
    ///
    /// # Cancel safety
    /// Small objects may have been stored.
    pub async fn try_out(&self, clock: &dyn Clock) -> Result<()> {
        let day = clock.now().day();
        let storages = [
            (&self.blobs, self.kind, StorageRole::Blobs),
            (&self.keys, self.keys_kind, StorageRole::Keys),
            (&self.audit, self.audit_kind, StorageRole::Audit),
        ];
        let trials = storages.map(|(storage, kind, role)| async move {
            match try_out(role, &**storage, kind, day).await {
                Ok(Some(lack)) if lack.promise.is_vital() => Err(lack.into()),
                Ok(_) => Ok(()),
                Err(error) => {
                    Err(Error::new(error.kind(), format!("the storage of {role} could not be tried"))
                        .with_source(error))
                }
            }
        });
        futures_util::future::try_join_all(trials).await.map(drop)
    }
}

/// Tries one storage of this kind, on a day; `None` where all is well.
///
/// # Errors
/// Those of [`store_error`]: then nothing is known.
///
/// # Cancel safety
/// Small objects may have been stored.
pub async fn try_out(
    role: StorageRole,
    storage: &dyn ObjectStore,
    kind: StorageKind,
    day: Day,
) -> Result<Option<Lack>> {
    // What a directory was tried with before, in whatever month.
    let known = match kind {
        StorageKind::Local => layout::probes(),
        StorageKind::Memory | StorageKind::Cloud => layout::probes_of(day),
    };
    let trial = Trial { role, storage, kind, day, known };
    match trial.run().await {
        Ok(()) => Ok(None),
        Err(Stop::Lack(promise)) => Ok(Some(Lack { role, promise })),
        Err(Stop::Error(error)) => Err(store_error(error, WHAT)),
    }
}

struct Trial<'a> {
    role: StorageRole,
    storage: &'a dyn ObjectStore,
    kind: StorageKind,
    day: Day,
    /// Where the objects of former trials lie that count.
    known: Path,
}

/// How a trial ends that does not go well.
enum Stop {
    Lack(Promise),
    Error(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Error(error)
    }
}

impl Trial<'_> {
    async fn run(&self) -> Result<(), Stop> {
        let listed = self.listed().await?;
        let free = (0..SLOTS).map(|slot| layout::probe(self.day, slot)).find(|path| !listed.contains(path));
        let path = match (free, listed.last()) {
            (Some(free), last) if last.is_none() || self.kind != StorageKind::Local => {
                self.race(&free).await?;
                if !self.listed().await?.contains(&free) {
                    return Err(Stop::Lack(Promise::ListAfterWrite));
                }
                free
            }
            (_, Some(last)) => {
                self.refused(last).await?;
                self.read(last, &[]).await?;
                last.clone()
            }
            (_, None) => unreachable!("without any, one is free"),
        };
        match self.role {
            StorageRole::Audit => self.replace(&path).await,
            StorageRole::Blobs | StorageRole::Keys => Ok(()),
        }
    }

    async fn listed(&self) -> Result<BTreeSet<Path>, Stop> {
        let objects = self.storage.list(Some(&self.known)).map_ok(|object| object.location);
        let ours = objects.try_filter(|path| std::future::ready(layout::read_probe(path).is_some()));
        Ok(ours.try_collect().await?)
    }

    /// Two writers create one object.
    async fn race(&self, path: &Path) -> Result<(), Stop> {
        let bodies = [body(), body()];
        let (one, other) = tokio::join!(self.create(path, &bodies[0]), self.create(path, &bodies[1]));
        // If we stop here, the object is there, and the next trial takes another.
        let (won, lost): (Vec<_>, Vec<_>) =
            [one, other].into_iter().zip(bodies).partition(|(put, _)| put.is_ok());
        if won.len() > 1 {
            return Err(Stop::Lack(Promise::CreateIfAbsent));
        }
        // Without an answer, it may have been stored; what is read shows which.
        let stands: Vec<Bytes> = won.into_iter().map(|(_, body)| body).collect();
        let read = self.read(path, &stands).await;
        let (refusals, mut failures): (Vec<_>, Vec<_>) =
            lost.into_iter().filter_map(|(put, _)| put.err()).partition(is_refusal);
        match (read, failures.pop()) {
            // Nothing is there, and nobody said that something is.
            (Err(Stop::Lack(Promise::ReadAfterWrite)), Some(error)) if stands.is_empty() => Err(error.into()),
            (Err(stop), _) => Err(stop),
            (Ok(()), _) if stands.is_empty() || refusals.is_empty() => self.refused(path).await,
            (Ok(()), _) => Ok(()),
        }
    }

    /// One more creation, which must not succeed.
    async fn refused(&self, path: &Path) -> Result<(), Stop> {
        match self.create(path, &body()).await {
            Ok(_) => Err(Stop::Lack(Promise::CreateIfAbsent)),
            Err(error) if is_refusal(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn create(&self, path: &Path, body: &Bytes) -> Result<PutResult, StoreError> {
        self.storage.put_opts(path, body.clone().into(), PutMode::Create.into()).await
    }

    /// Reads a part of what stands there: of one of `bodies`, or of anything where they are none.
    async fn read(&self, path: &Path, bodies: &[Bytes]) -> Result<(), Stop> {
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(RANGE)));
        let part = async { self.storage.get_opts(path, options).await?.bytes().await }.await;
        let rest = |whole: &Bytes| whole.get(FRONT.len()..).map(<[u8]>::to_vec).unwrap_or_default();
        match part {
            Ok(part) if bodies.is_empty() && is_rest(&part) => Ok(()),
            Ok(part) if bodies.iter().any(|body| rest(body) == part) => Ok(()),
            // Old bytes, but the right ones of them.
            Ok(part) if is_rest(&part) => Err(Stop::Lack(Promise::ReadAfterWrite)),
            Ok(_) => Err(Stop::Lack(Promise::Ranges)),
            Err(StoreError::NotFound { .. }) => Err(Stop::Lack(Promise::ReadAfterWrite)),
            // Whether it is the part that cannot be had.
            Err(error) => match async { self.storage.get(path).await?.bytes().await }.await {
                Ok(_) => Err(Stop::Lack(Promise::Ranges)),
                Err(StoreError::NotFound { .. }) => Err(Stop::Lack(Promise::ReadAfterWrite)),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// A replacement of something else, which must not succeed.
    async fn replace(&self, path: &Path) -> Result<(), Stop> {
        // A tag and a generation that no object of ours has.
        let another = UpdateVersion {
            e_tag: Some("\"00000000000000000000000000000000\"".to_owned()),
            version: Some("1".to_owned()),
        };
        let replaced = self.storage.put_opts(path, body().into(), PutMode::Update(another).into()).await;
        match replaced {
            Ok(_) => Err(Stop::Lack(Promise::ConditionalReplacement)),
            // Who does not know it says so: checkpoints are then replaced without.
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => Ok(()),
            Err(error) if is_refusal(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The bytes of one trial.
fn body() -> Bytes {
    // Only different, and no secret.
    [FRONT, format!("{:016x}{:016x}\n", chance(), chance()).as_bytes()].concat().into()
}

/// Whether this is what follows the front of such bytes.
fn is_rest(part: &[u8]) -> bool {
    part.split_last().is_some_and(|(last, digits)| {
        *last == b'\n' && digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

/// Whether the storage said that there is an object, or another one.
fn is_refusal(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) && !is_conflict(error)
}
