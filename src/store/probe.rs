//! What can be asked of a storage besides its objects: how it is set up.
//!
//! Separate from [`Storages`](super::Storages) because a store is opened whole or
//! not at all, and these questions are for when it does not open. Each storage
//! is opened by itself.
//!
//! Invariant: **no question changes anything**. Why the one about deletions
//! does not is said where it is asked.
//!
//! Trust: what a storage says of itself is what its owner, and whoever answers
//! in its place, wants us to believe.

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::bounded::Bounded;
use super::{CreateRoot, Opener, StorageKind, StorageRole, StorageUrl, StorageUrls, store_error};
use crate::error::{ErrorKind, Result};
use crate::time::{Clock, Timestamp};

/// An answer to a question that needs a permission of its own, or a server that
/// knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// This is how it is.
    Is(T),
    /// We may not ask.
    Denied,
    /// The server does not know the question.
    Unsupported,
}

/// Whether a bucket keeps what is overwritten or deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// It does.
    Enabled,
    /// It did once.
    Suspended,
    /// It never did.
    Off,
}

/// What Object Lock gives each new object of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectLock {
    /// It is not enabled.
    Off,
    /// It is enabled, and an object gets a term only if its writer asks for one.
    NoDefault,
    /// Each new object is locked for a term.
    Default {
        /// Whether nobody at all can end the term (`COMPLIANCE`).
        compliance: bool,
        /// For how long.
        term: LockTerm,
    },
}

/// A term of Object Lock, in the unit it was set in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockTerm {
    /// So many days.
    Days(u32),
    /// So many years.
    Years(u32),
}

impl LockTerm {
    /// Whether it lasts so many years, whenever it begins.
    #[must_use]
    pub fn lasts_years(self, years: u32) -> bool {
        match self {
            // Four years in a row have one leap day at most, and so has a rest of them.
            Self::Days(days) => days >= years.saturating_mul(365).saturating_add(years.div_ceil(4)),
            Self::Years(term) => term >= years,
        }
    }
}

impl fmt::Display for LockTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(days) => write!(f, "{days} days"),
            Self::Years(years) => write!(f, "{years} years"),
        }
    }
}

/// One enabled rule by which a bucket deletes by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LifecycleRule {
    /// Which objects it is about, by the beginning of their keys in the bucket.
    pub prefix: String,
    /// Whether it is about objects with certain tags only. Ours have none.
    pub tagged: bool,
    /// After how many days an object is deleted; 0 where a date is named.
    pub expires: Option<u32>,
    /// After how many days what was deleted or overwritten goes for good.
    pub noncurrent: Option<u32>,
    /// Whether it removes the parts of unfinished uploads.
    pub aborts_uploads: bool,
}

/// One storage of a store, opened to be asked.
pub struct Probe {
    url: StorageUrl,
    kind: StorageKind,
    storage: Arc<dyn ObjectStore>,
    #[cfg(feature = "aws")]
    bucket: Option<Arc<object_store::aws::AmazonS3>>,
}

impl Probe {
    /// Opens each storage by itself. Nothing is made, and a cloud storage is not
    /// called yet.
    ///
    /// In place of a probe there are the errors of
    /// [`Storages::open`](super::Storages::open).
    pub async fn open_each(urls: &StorageUrls, clock: Arc<dyn Clock>) -> Vec<(StorageRole, Result<Self>)> {
        let mut opener = Opener::new(CreateRoot::No, clock);
        let mut probes = Vec::new();
        for role in StorageRole::ALL {
            let url = urls.of(role);
            let opened = opener.open(&url).await.map(|opened| Self {
                url,
                kind: opened.kind,
                storage: Arc::new(Bounded::new(opened.store, false)),
                #[cfg(feature = "aws")]
                bucket: opened.beneath.bucket,
            });
            probes.push((role, opened));
        }
        probes
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &StorageUrl {
        &self.url
    }

    /// What it is kept on.
    #[must_use]
    pub fn kind(&self) -> StorageKind {
        self.kind
    }

    /// Its objects.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn ObjectStore> {
        &self.storage
    }

    /// Whether it lists what it holds.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where there is no such bucket or we may not
    /// list it; [`ErrorKind::Unavailable`].
    pub async fn lists(&self) -> Result<()> {
        match self.storage.list(None).next().await {
            Some(Err(error)) => Err(store_error(error, "list the storage")),
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// Whether an object that is not there is said not to be there: S3 answers
    /// 403 instead to those who may not list.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub async fn tells_what_is_missing(&self) -> Result<bool> {
        match self.storage.head(&nobodys()).await {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(true),
            Err(error) => match store_error(error, "look for an object") {
                error if error.kind() == ErrorKind::Configuration => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Whether one of the first `limit` objects under `prefix` was modified before
    /// `before`.
    ///
    /// # Errors
    /// Those of [`store_error`].
    pub async fn holds(&self, prefix: &Path, before: Timestamp, limit: usize) -> Result<bool> {
        let mut objects = self.storage.list(Some(prefix)).take(limit);
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| store_error(error, "list the storage"))?;
            let micros = u64::try_from(object.last_modified.timestamp_micros()).unwrap_or(0);
            if micros < before.micros() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When the newest of the first `limit` objects was modified, by the
    /// storage's own clock; `None` if there are none. Lists have no order.
    ///
    /// # Errors
    /// Those of [`store_error`].
    pub async fn newest_change(&self, limit: usize) -> Result<Option<Timestamp>> {
        let mut newest = None;
        let mut objects = self.storage.list(None).take(limit);
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| store_error(error, "list the storage"))?;
            let micros = u64::try_from(object.last_modified.timestamp_micros()).unwrap_or(0);
            newest = newest.max(Some(Timestamp::from_micros(micros).unwrap_or(Timestamp::MAX)));
        }
        Ok(newest)
    }
}

/// A key that no object of ours has.
pub(super) fn nobodys() -> Path {
    Path::from("strongroom-doctor/no-such-object")
}

/// What only S3 can be asked. Each is one request within 20 s.
///
/// `None` is for a storage elsewhere.
#[cfg_attr(not(feature = "aws"), expect(clippy::unused_async, reason = "asks S3 with feature `aws`"))]
impl Probe {
    /// How far this machine's clock is ahead of the storage's, in seconds: the
    /// `Date` of an answer has no fractions, so that a second means nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`].
    pub async fn clock_ahead(&self, clock: &dyn Clock) -> Result<Option<i64>> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.bucket {
            return super::s3::ask::clock_ahead(bucket, clock, super::bounded::CALL).await;
        }
        let _ = clock;
        Ok(None)
    }

    /// Whether it keeps versions (`GetBucketVersioning`).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; [`ErrorKind::Configuration`].
    pub async fn versioning(&self) -> Result<Option<Reply<Versioning>>> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.bucket {
            return super::s3::ask::versioning(bucket, super::bounded::CALL).await.map(Some);
        }
        Ok(None)
    }

    /// Its default retention (`GetObjectLockConfiguration`).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; [`ErrorKind::Configuration`].
    pub async fn object_lock(&self) -> Result<Option<Reply<ObjectLock>>> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.bucket {
            return super::s3::ask::object_lock(bucket, super::bounded::CALL).await.map(Some);
        }
        Ok(None)
    }

    /// Its enabled lifecycle rules (`GetBucketLifecycleConfiguration`).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; [`ErrorKind::Configuration`].
    pub async fn lifecycle(&self) -> Result<Option<Reply<Vec<LifecycleRule>>>> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.bucket {
            return super::s3::ask::lifecycle(bucket, super::bounded::CALL).await.map(Some);
        }
        Ok(None)
    }

    /// Its policy as JSON text, empty if it has none (`GetBucketPolicy`).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; [`ErrorKind::Configuration`].
    pub async fn policy(&self) -> Result<Option<Reply<String>>> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.bucket {
            return super::s3::ask::policy(bucket, super::bounded::CALL).await.map(Some);
        }
        Ok(None)
    }

    /// Whether our credentials may delete versions of its objects
    /// (`s3:DeleteObjectVersion`), by an attempt that has nothing to delete.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`]; [`ErrorKind::Configuration`].
    pub async fn lets_us_delete_versions(&self) -> Result<Option<bool>> {
        #[cfg(feature = "aws")]
        if let (Some(bucket), Some((_, prefix))) = (&self.bucket, self.url.as_s3()) {
            let path = Path::from(format!("{prefix}/{}", nobodys()));
            return super::s3::ask::may_delete_version(bucket, &path, super::bounded::CALL).await.map(Some);
        }
        Ok(None)
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("url", &self.url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::system::SystemClock;

    #[tokio::test]
    async fn each_storage_is_asked_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("keys")).unwrap();
        let urls = StorageUrls::new(StorageUrl::directory(dir.path()).unwrap());
        let mut probes = Probe::open_each(&urls, Arc::new(SystemClock)).await.into_iter();
        let mut next = || probes.next().unwrap();
        let (role, blobs) = next();
        assert_eq!((role, blobs.unwrap_err().kind()), (StorageRole::Blobs, ErrorKind::NotFound));
        let (role, keys) = next();
        let keys = keys.unwrap();
        assert_eq!((role, keys.url().as_directory()), (StorageRole::Keys, Some(&*dir.path().join("keys"))));
        keys.lists().await.unwrap();
        assert!(keys.tells_what_is_missing().await.unwrap());
        keys.storage().put(&Path::from("a/b"), "x".into()).await.unwrap();
        let newest = keys.newest_change(10).await.unwrap().unwrap();
        assert!(newest <= SystemClock.now().saturating_add(Duration::from_secs(60)));
        assert!(newest.saturating_add(Duration::from_secs(60)) >= SystemClock.now());
        assert_eq!(keys.newest_change(0).await.unwrap(), None);
        assert!(keys.holds(&Path::from("a"), Timestamp::MAX, 10).await.unwrap());
        assert!(!keys.holds(&Path::from("a"), Timestamp::from_micros(0).unwrap(), 10).await.unwrap());
        assert!(!keys.holds(&Path::from("c"), Timestamp::MAX, 10).await.unwrap());
        assert_eq!(keys.versioning().await.unwrap(), None);
        assert_eq!(keys.lets_us_delete_versions().await.unwrap(), None);
        assert_eq!(keys.clock_ahead(&SystemClock).await.unwrap(), None);
        assert!(!dir.path().join("blobs").exists(), "nothing is made");
    }
    #[test]
    fn six_years_are_six_years() {
        assert!(LockTerm::Years(6).lasts_years(6) && LockTerm::Days(2192).lasts_years(6));
        assert!(!LockTerm::Years(5).lasts_years(6));
        // 2027-03-01 to 2033-03-01 has 2192 days.
        assert!(!LockTerm::Days(2191).lasts_years(6));
    }
}
