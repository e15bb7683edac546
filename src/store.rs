//! Storages: where blobs, keys and the audit log are kept.
//!
//! A store has three, under one root by default and in three buckets in
//! production. All are [`ObjectStore`]s; this module chooses and opens them, sets
//! bounds to their times, and says in our words what went wrong. Where each object lives
//! is in [`layout`], how a long blob gets there in [`upload`].
//!
//! # Contract of every storage
//! * **Only create-if-absent is relied on** (`PutMode::Create`), and it is [tried](trial): of any number of
//!   writers to one path one wins. A storage answers the others, and sometimes the winner,
//!   that the object exists; `store::create` reads it back and says whether it is ours. A
//!   conflict with a write in the act (S3's 409) is neither: it is tried again.
//! * **Durability**: what was acknowledged survives a crash. Local files and their
//!   directories are forced to the disk before that.
//! * **Visibility**: an object appears whole or not at all, and is then seen by
//!   every reader. Lists of a local store have no order.
//! * **Time**: a call ends within 20 s, one that sends data later by 1 s for each
//!   256 KiB, and one that puts parts together, copies or lists by level within
//!   300 s. A body that is read has 20 s for each of its pieces.
//! * **Second requests**: to a cloud storage, a request that can be repeated is sent again when it
//!   has no answer after about the 99th percentile of recent ones (50 ms to 1.5 s; 1 s before any
//!   are known; 4 s more for the largest writes), three times at most, and for one request in ten
//!   at most. So one hung request does not cost its caller the deadline.
//! * **Size**: what is read is no larger than its kind ([`limits`]), whatever the storage holds.
//! * **Doubt**: after an error of a write it may take effect, also later. What is then found there is
//!   on record: a directory forces it to the disk before it shows it ([`directory`]).
//!
//! Trust: the storage of blobs may do anything to them; those of keys and audit
//! are trusted to let one creator win and to delete nothing. Nothing here is
//! secret, and nothing that is read is authentic yet.

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
pub mod answers;
mod bounded;
pub(crate) mod create;
pub mod directory;
mod fault;
mod hedge;
pub mod layout;
pub mod limits;
pub mod marker;
mod page;
pub mod probe;
pub mod purge;
#[cfg(feature = "aws")]
pub mod s3;
mod staging;
pub mod trial;
pub mod upload;
mod url;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};

use self::bounded::Bounded;
use self::directory::Directory;
use self::fault::unusable;
use self::url::{Cloud, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock, Timestamp};

pub(crate) use self::fault::{is_of_file_system, is_too_large};
pub use self::fault::{store_error, within};
pub use self::staging::{ABANDONED_AFTER, Swept, sweep_staging};
pub use self::url::{StorageRole, StorageUrl, StorageUrls};

/// Whether a missing directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateRoot {
    /// Make it, readable by its owner alone. Buckets are never made.
    Yes,
    /// Fail with [`ErrorKind::NotFound`].
    No,
}

/// The clock of an object storage: a second one, besides this machine's.
///
/// Contract: `time` is what the storage says now, or a little before that, and ends within the
/// deadline of a request. It may be called from any task, and changes nothing that anybody reads.
#[async_trait]
pub trait StorageClock: Send + Sync + fmt::Debug {
    /// What time it is; `None` where the storage has no clock but this machine's.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it does not tell; [`ErrorKind::Configuration`].
    async fn time(&self) -> Result<Option<Timestamp>>;

    /// Whether the objects of the audit storage are dated by it.
    fn dates_audit(&self) -> bool;
}

#[async_trait]
impl StorageClock for Storages {
    async fn time(&self) -> Result<Option<Timestamp>> {
        self.clock().await
    }

    fn dates_audit(&self) -> bool {
        if let Some(clock) = &self.told {
            return clock.dates_audit();
        }
        self.audit_kind == StorageKind::Cloud && self.has_clock()
    }
}

/// What a storage is kept on, as far as it matters to those who write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StorageKind {
    /// A directory of this machine.
    Local,
    /// This program's memory.
    Memory,
    /// An object storage over a network, or one of which nothing is known.
    Cloud,
}

/// The storages of one store.
#[derive(Clone)]
pub struct Storages {
    /// Blobs and uses of names.
    pub blobs: Arc<dyn ObjectStore>,
    /// Rings, epochs, labels, and the marker of the store.
    pub keys: Arc<dyn ObjectStore>,
    /// The audit log.
    pub audit: Arc<dyn ObjectStore>,
    kind: StorageKind,
    keys_kind: StorageKind,
    audit_kind: StorageKind,
    directories: Vec<PathBuf>,
    /// The clock that the caller knows of, where it opened them.
    told: Option<Arc<dyn StorageClock>>,
    under_blobs: Beneath,
    #[cfg(feature = "aws")]
    under_keys: Beneath,
    #[cfg(feature = "aws")]
    under_audit: Beneath,
}

impl Storages {
    /// Opens the storages. The clock tells when credentials end.
    ///
    /// No request is made to a cloud storage: whether it answers is seen at the
    /// first use.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for a missing directory, unless it is to be made;
    /// [`ErrorKind::Configuration`] for a scheme that this program was built
    /// without, an unusable directory, or missing credentials or region;
    /// [`ErrorKind::Unavailable`].
    pub async fn open(urls: &StorageUrls, create: CreateRoot, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut opener = Opener::new(create, clock);
        let mut root = None;
        let blobs = opener.own_or_under(urls.blobs.as_ref(), &urls.root, &mut root, "blobs").await?;
        let keys = opener.own_or_under(urls.keys.as_ref(), &urls.root, &mut root, "keys").await?;
        let audit = opener.own_or_under(urls.audit.as_ref(), &urls.root, &mut root, "audit").await?;
        Ok(Self {
            kind: blobs.kind,
            keys_kind: keys.kind,
            audit_kind: audit.kind,
            directories: opener.directories,
            #[cfg(feature = "aws")]
            under_keys: keys.beneath.clone(),
            #[cfg(feature = "aws")]
            under_audit: audit.beneath.clone(),
            under_blobs: blobs.beneath.clone(),
            ..Self::bounded([
                (blobs.store, blobs.kind == StorageKind::Cloud),
                (keys.store, keys.kind == StorageKind::Cloud),
                (audit.store, audit.kind == StorageKind::Cloud),
            ])
        })
    }

    /// Storages that the caller opened, under our deadlines. They count as
    /// [`StorageKind::Cloud`], which suits every kind, but get no second requests: see
    /// [`Storages::from_cloud_parts`].
    ///
    /// For a directory give a [`Directory`]: another local storage shows what
    /// is not on the disk yet.
    #[must_use]
    pub fn from_parts(
        blobs: Arc<dyn ObjectStore>,
        keys: Arc<dyn ObjectStore>,
        audit: Arc<dyn ObjectStore>,
    ) -> Self {
        Self::bounded([(blobs, false), (keys, false), (audit, false)])
    }

    /// As [`Storages::from_parts`], for object storages over a network, where one request of many
    /// hangs: what can be repeated is sent a second time when it has no answer after the usual
    /// time, as with storages that [`Storages::open`] opened. For limits of their answers, build them
    /// with the connector in `answers`.
    #[must_use]
    pub fn from_cloud_parts(
        blobs: Arc<dyn ObjectStore>,
        keys: Arc<dyn ObjectStore>,
        audit: Arc<dyn ObjectStore>,
    ) -> Self {
        Self::bounded([(blobs, true), (keys, true), (audit, true)])
    }

    /// The same, with the clock of the object storage, where the caller opened it and knows how
    /// to ask it for the time.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn StorageClock>) -> Self {
        Self { told: Some(clock), ..self }
    }

    /// Each storage, and whether it gets second requests.
    fn bounded(parts: [(Arc<dyn ObjectStore>, bool); 3]) -> Self {
        let [blobs, keys, audit] =
            parts.map(|(store, hedged)| Arc::new(Bounded::new(store, hedged)) as Arc<dyn ObjectStore>);
        Self {
            blobs,
            keys,
            audit,
            kind: StorageKind::Cloud,
            keys_kind: StorageKind::Cloud,
            audit_kind: StorageKind::Cloud,
            directories: Vec::new(),
            told: None,
            under_blobs: Beneath::default(),
            #[cfg(feature = "aws")]
            under_keys: Beneath::default(),
            #[cfg(feature = "aws")]
            under_audit: Beneath::default(),
        }
    }

    /// Empty storages in memory.
    #[must_use]
    pub fn memory() -> Self {
        let new = || Arc::new(InMemory::new()) as Arc<dyn ObjectStore>;
        let kind = StorageKind::Memory;
        Self { kind, keys_kind: kind, audit_kind: kind, ..Self::from_parts(new(), new(), new()) }
    }

    /// What the blobs are kept on.
    #[must_use]
    pub fn kind(&self) -> StorageKind {
        self.kind
    }

    /// What the audit log is kept on.
    #[must_use]
    pub fn audit_kind(&self) -> StorageKind {
        self.audit_kind
    }

    /// A writer of a new blob at `path`, with parts that suit the storage.
    #[must_use]
    pub fn blob_writer(&self, path: object_store::path::Path) -> upload::BlobWriter {
        upload::BlobWriter::new(Arc::clone(&self.blobs), path, upload::PartPlan::new(self.kind))
    }

    /// Removes what killed programs left in local directories ([`sweep_staging`]).
    /// Elsewhere it does nothing: cloud storages do so by a rule of the bucket
    /// ([`Storages::removes_abandoned_parts`]).
    ///
    /// # Errors
    /// Those of [`store_error`].
    pub async fn sweep(&self, now: Timestamp) -> Result<Swept> {
        let directories = self.directories.clone();
        let sweep = move || {
            let mut all = Swept::default();
            for directory in directories {
                let swept = sweep_staging(&directory, now)?;
                all.files += swept.files;
                all.bytes += swept.bytes;
            }
            Ok(all)
        };
        blocking(sweep).await
    }

    /// Whether the storage of blobs removes the parts of unfinished uploads by
    /// itself, by a rule of its bucket; `None` where that cannot be asked, or
    /// where [`Storages::sweep`] does it.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where we may not ask; [`ErrorKind::Unavailable`].
    #[cfg_attr(not(feature = "aws"), expect(clippy::unused_async, reason = "asks S3 with feature `aws`"))]
    pub async fn removes_abandoned_parts(&self) -> Result<Option<bool>> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.under_blobs.bucket {
            return s3::check_rule(bucket, bounded::CALL).await.map(Some);
        }
        Ok(None)
    }

    /// What time it is by the clock of the object storage, or a little before
    /// that; `None` where it has none but this machine's (a directory, memory), and
    /// where nothing is known of it ([`Storages::from_parts`] without [`Storages::with_clock`]).
    ///
    /// S3 tells it with every answer, in whole seconds; the storage of keys is asked
    /// if it is there, then that of blobs, then that of the audit log. Other clouds are asked by writing an empty object to
    /// [`layout::clock`] on the storage of blobs, each time over the one before. A
    /// request ends within 20 s.
    ///
    /// Trust: it is as good as the connection. Over plain HTTP anyone on the way
    /// can answer.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`], also if it does not tell the time;
    /// [`ErrorKind::Configuration`] where we may not write.
    pub async fn clock(&self) -> Result<Option<Timestamp>> {
        if let Some(clock) = &self.told {
            return clock.time().await;
        }
        let silent = || Error::new(ErrorKind::Unavailable, "the storage does not tell what time it is");
        #[cfg(feature = "aws")]
        for beneath in self.beneath_clocks() {
            if let Some(bucket) = &beneath.bucket {
                return s3::ask::time(bucket, bounded::CALL).await?.ok_or_else(silent).map(Some);
            }
        }
        if !self.has_clock() {
            return Ok(None);
        }
        let (path, what) = (layout::clock(), "ask the storage for the time");
        let empty = object_store::PutPayload::default();
        self.blobs.put(&path, empty).await.map_err(|error| store_error(error, what))?;
        let written = self.blobs.head(&path).await.map_err(|error| store_error(error, what))?;
        let micros = u64::try_from(written.last_modified.timestamp_micros()).map_err(|_| silent())?;
        Timestamp::from_micros(micros).map_err(|_| silent()).map(Some)
    }
}

impl Storages {
    /// Those that may tell the time with an answer, in the order in which they are asked.
    #[cfg(feature = "aws")]
    fn beneath_clocks(&self) -> [&Beneath; 3] {
        [&self.under_keys, &self.under_blobs, &self.under_audit]
    }

    /// Whether one of the storages has a clock that is not this machine's.
    fn has_clock(&self) -> bool {
        #[cfg(feature = "aws")]
        if self.beneath_clocks().iter().any(|beneath| beneath.bucket.is_some()) {
            return true;
        }
        self.under_blobs.known && self.kind == StorageKind::Cloud
    }
}

impl fmt::Debug for Storages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storages").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// What lies under a storage, for questions that [`ObjectStore`] has no call for.
#[derive(Clone, Default)]
struct Beneath {
    /// Whether we opened it.
    known: bool,
    /// Where in the bucket or directory it begins.
    prefix: object_store::path::Path,
    directory: Option<PathBuf>,
    #[cfg(feature = "aws")]
    bucket: Option<Arc<object_store::aws::AmazonS3>>,
}

/// One opened place.
struct Opened {
    store: Arc<dyn ObjectStore>,
    kind: StorageKind,
    beneath: Beneath,
}

impl Opened {
    fn new(store: impl ObjectStore, kind: StorageKind) -> Self {
        Self { store: Arc::new(store), kind, beneath: Beneath { known: true, ..Beneath::default() } }
    }

    fn under(&self, prefix: impl Into<object_store::path::Path>) -> Self {
        let prefix = prefix.into();
        let store = Arc::clone(&self.store);
        let whole = self.beneath.prefix.parts().chain(prefix.parts()).collect();
        let beneath = Beneath { prefix: whole, ..self.beneath.clone() };
        Self {
            store: if prefix.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, prefix)) },
            kind: self.kind,
            beneath,
        }
    }
}

struct Opener {
    create: CreateRoot,
    directories: Vec<PathBuf>,
    #[cfg(feature = "aws")]
    clock: Arc<dyn Clock>,
    /// Loaded once for all buckets.
    #[cfg(feature = "aws")]
    aws: Option<s3::Aws>,
}

impl Opener {
    #[cfg_attr(not(feature = "aws"), expect(clippy::needless_pass_by_value, unused_variables))]
    fn new(create: CreateRoot, clock: Arc<dyn Clock>) -> Self {
        Self {
            create,
            directories: Vec::new(),
            #[cfg(feature = "aws")]
            clock,
            #[cfg(feature = "aws")]
            aws: None,
        }
    }

    /// A storage at a URL of its own, else below the root, which is opened once
    /// and only if something lies under it.
    async fn own_or_under(
        &mut self,
        own: Option<&StorageUrl>,
        root_url: &StorageUrl,
        root: &mut Option<Opened>,
        name: &str,
    ) -> Result<Opened> {
        if let Some(url) = own {
            return self.open(url).await;
        }
        let root = match root {
            Some(root) => root,
            None => root.insert(self.open(root_url).await?),
        };
        Ok(root.under(name))
    }

    async fn open(&mut self, url: &StorageUrl) -> Result<Opened> {
        match &url.0 {
            Place::Memory => Ok(Opened::new(InMemory::new(), StorageKind::Memory)),
            Place::Directory(path) => {
                let (path, create) = (path.clone(), self.create);
                self.directories.push(path.clone());
                let directory = Some(path.clone());
                let store = blocking(move || open_directory(&path, create)).await?;
                let opened = Opened::new(store, StorageKind::Local);
                Ok(Opened { beneath: Beneath { directory, ..opened.beneath }, ..opened })
            }
            Place::Bucket { cloud, bucket, prefix } => {
                let opened = match cloud {
                    Cloud::S3 => self.s3(bucket).await?,
                    Cloud::Gcs => gcs(bucket)?,
                    Cloud::Azure => azure(bucket)?,
                };
                Ok(opened.under(prefix.clone()))
            }
        }
    }

    #[cfg(feature = "aws")]
    async fn s3(&mut self, bucket: &str) -> Result<Opened> {
        let aws = match self.aws.take() {
            Some(aws) => aws,
            None => s3::Aws::load(Arc::clone(&self.clock)).await?,
        };
        let bucket = Arc::new(self.aws.insert(aws).bucket(bucket)?);
        let store = Arc::clone(&bucket) as Arc<dyn ObjectStore>;
        let opened = Opened::new(store, StorageKind::Cloud);
        Ok(Opened { beneath: Beneath { bucket: Some(bucket), ..opened.beneath }, ..opened })
    }

    #[cfg(not(feature = "aws"))]
    #[expect(clippy::unused_async, reason = "with feature `aws` it waits")]
    async fn s3(&mut self, _: &str) -> Result<Opened> {
        Err(without("s3", "aws"))
    }
}

/// Credentials and all else come from the environment (`GOOGLE_…`), bounds as
/// for S3.
#[cfg(feature = "gcp")]
fn gcs(bucket: &str) -> Result<Opened> {
    let store = object_store::gcp::GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(bounded::client())
        .with_http_connector(answers::Limiting { objects: false })
        .with_retry(bounded::retry())
        .build()
        .map_err(|error| store_error(error, "configure Google Cloud Storage"))?;
    Ok(Opened::new(store, StorageKind::Cloud))
}

#[cfg(not(feature = "gcp"))]
fn gcs(_: &str) -> Result<Opened> {
    Err(without("gs", "gcp"))
}

/// Account, credentials and all else come from the environment (`AZURE_…`),
/// bounds as for S3.
#[cfg(feature = "azure")]
fn azure(container: &str) -> Result<Opened> {
    let store = object_store::azure::MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(bounded::client())
        .with_http_connector(answers::Limiting { objects: false })
        .with_retry(bounded::retry())
        .build()
        .map_err(|error| store_error(error, "configure Azure Blob Storage"))?;
    Ok(Opened::new(store, StorageKind::Cloud))
}

#[cfg(not(feature = "azure"))]
fn azure(_: &str) -> Result<Opened> {
    Err(without("az", "azure"))
}

/// When an object became visible, as the storage says; `None` if it says what no time is.
pub(crate) fn stored_at(object: &object_store::ObjectMeta) -> Option<Timestamp> {
    let micros = u64::try_from(object.last_modified.timestamp_micros()).ok()?;
    Timestamp::from_micros(micros).ok()
}

#[cfg(not(all(feature = "aws", feature = "gcp", feature = "azure")))]
fn without(scheme: &str, feature: &str) -> Error {
    unusable(format!(
        "this program was built without {scheme}:// storages: build it with feature `{feature}`"
    ))
}

fn open_directory(path: &Path, create: CreateRoot) -> Result<Directory> {
    if create == CreateRoot::Yes {
        create_directory(path).map_err(|error| directory_error(path, error))?;
    }
    let meta = std::fs::metadata(path).map_err(|error| directory_error(path, error))?;
    if !meta.is_dir() {
        return Err(unusable(format!("{} is not a directory", path.display())));
    }
    Directory::open(path).map_err(|error| store_error(error, "open the store's directory"))
}

/// The directory and those above it, each forced to the disk before the next.
fn create_directory(path: &Path) -> std::io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    for directory in missing.into_iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
        match builder.create(directory) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        }
        // If we stop here, a power failure may undo it, and `init` makes it again.
        let above = directory.parent().filter(|above| !above.as_os_str().is_empty());
        let forced = std::fs::File::open(above.unwrap_or(Path::new("."))).and_then(|above| above.sync_all());
        forced.inspect_err(|_| {
            // So that the next `init` makes it again: to force what is there already proves nothing.
            let _ = std::fs::remove_dir(directory);
        })?;
    }
    Ok(())
}

fn directory_error(path: &Path, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        let sentence = format!("there is no store at {}: run `strongroom init` to make one", path.display());
        return Error::new(ErrorKind::NotFound, sentence);
    }
    let error = object_store::Error::Generic { store: "storage", source: Box::new(error) };
    store_error(error, "open the store's directory")
}

async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(call).await;
    done.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Unavailable, "the program is ending").with_source(error))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::system::SystemClock;

    async fn open(urls: &StorageUrls, create: CreateRoot) -> Result<Storages> {
        Storages::open(urls, create, Arc::new(SystemClock)).await
    }

    #[tokio::test]
    async fn one_root_holds_three_storages() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b #1");
        let urls = StorageUrls::new(StorageUrl::directory(&root).unwrap());

        let missing = open(&urls, CreateRoot::No).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.to_string().contains("run `strongroom init`"), "{missing}");
        assert!(!root.exists());

        let storages = open(&urls, CreateRoot::Yes).await.unwrap();
        assert_eq!(storages.kind(), StorageKind::Local);
        let path = object_store::path::Path::from("x/y");
        storages.blobs.put(&path, "b".into()).await.unwrap();
        storages.keys.put(&path, "k".into()).await.unwrap();
        storages.audit.put(&path, "a".into()).await.unwrap();
        assert_eq!(std::fs::read(root.join("blobs/x/y")).unwrap(), b"b");
        assert_eq!(std::fs::read(root.join("keys/x/y")).unwrap(), b"k");
        assert_eq!(std::fs::read(root.join("audit/x/y")).unwrap(), b"a");
        open(&urls, CreateRoot::No).await.unwrap();

        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(root.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        std::fs::write(root.join("blobs/x/y#7"), "left").unwrap();
        let later = SystemClock.now().saturating_add(ABANDONED_AFTER + Duration::from_secs(5));
        assert_eq!(storages.sweep(later).await.unwrap(), Swept { files: 1, bytes: 4 });
        assert_eq!(storages.removes_abandoned_parts().await.unwrap(), None);
    }

    #[tokio::test]
    async fn only_a_cloud_has_a_clock_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let local = StorageUrls::new(StorageUrl::directory(dir.path()).unwrap());
        let memory = StorageUrls::new(StorageUrl::memory());
        for urls in [local, memory] {
            assert_eq!(open(&urls, CreateRoot::Yes).await.unwrap().clock().await.unwrap(), None);
        }
        let storages = Storages::memory();
        assert_eq!(storages.clock().await.unwrap(), None);
        // One that tells the time only by what was written when.
        let cloud = Storages {
            kind: StorageKind::Cloud,
            under_blobs: Beneath { known: true, ..Beneath::default() },
            ..storages
        };
        let minute = Duration::from_secs(60);
        for _twice in 0..2 {
            let told = cloud.clock().await.unwrap().unwrap();
            assert!(told <= SystemClock.now().saturating_add(minute));
            assert!(told.saturating_add(minute) >= SystemClock.now());
        }
        let left: Vec<_> = futures_util::StreamExt::collect(cloud.blobs.list(None)).await;
        assert_eq!(left.len(), 1, "one object, written over: {left:?}");
    }

    #[tokio::test]
    async fn each_storage_can_be_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let urls = StorageUrls {
            audit: Some(StorageUrl::directory(dir.path()).unwrap()),
            ..StorageUrls::new(StorageUrl::memory())
        };
        let storages = open(&urls, CreateRoot::No).await.unwrap();
        assert_eq!(storages.kind(), StorageKind::Memory);
        let path = object_store::path::Path::from("x");
        storages.blobs.put(&path, "b".into()).await.unwrap();
        storages.audit.put(&path, "a".into()).await.unwrap();
        assert_eq!(std::fs::read(dir.path().join("x")).unwrap(), b"a");
        assert!(storages.keys.get(&path).await.is_err());
    }

    #[tokio::test]
    async fn unusable_directories_are_configuration() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path().to_owned(), file.path().join("below")] {
            let urls = StorageUrls::new(StorageUrl::directory(path).unwrap());
            assert!(open(&urls, CreateRoot::No).await.is_err());
            assert!(open(&urls, CreateRoot::Yes).await.is_err());
        }
    }

    #[cfg(not(any(feature = "aws", feature = "gcp", feature = "azure")))]
    #[tokio::test]
    async fn a_scheme_that_is_not_built_in_names_its_feature() {
        for (url, feature) in [("s3://bucket", "`aws`"), ("gs://bucket", "`gcp`"), ("az://bucket", "`azure`")]
        {
            let urls = StorageUrls::new(url.parse().unwrap());
            let error = open(&urls, CreateRoot::No).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(feature), "{error}");
        }
    }
}
