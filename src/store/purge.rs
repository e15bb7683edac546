//! The deletion of ciphertext, when the keys over it are gone.
//!
//! Separate from the writing of blobs because nothing else here deletes: it
//! takes credentials that no node has. **Shredding does not rest on it.** What was
//! shredded is unreadable wherever it still lies; this frees the space and the
//! counts say how far it came.
//!
//! * **Versions**: in a bucket of S3 every version and every delete marker goes,
//!   whether the bucket keeps versions now or did once. Other clouds are asked for
//!   plain deletion: what they keep of old generations is theirs to remove.
//! * **Resumed by running it again**: it holds no state, and what is gone already is
//!   not counted.
//! * **Memory** does not grow with the number of objects.
//! * **Not removed**: parts of unfinished uploads, which a lifecycle rule or
//!   [`Storages::sweep`] removes; and what others write meanwhile.

use std::io;
use std::ops::AddAssign;
use std::path::{Path as FilePath, PathBuf};

use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::Serialize;

use super::staging::unless_gone;
use super::{Storages, blocking, layout, store_error};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::time::Day;

/// How many objects or versions are removed at once.
pub(super) const AT_ONCE: usize = 16;

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Objects of which anything was removed.
    pub objects: u64,
    /// Versions removed; as many as objects where there are no others.
    pub versions: u64,
    /// Delete markers removed.
    pub delete_markers: u64,
    /// The size of the removed versions, in bytes.
    pub bytes: u64,
    /// What was not selected, or is not ours: each version and marker is one.
    pub kept: u64,
    /// What was selected and is still there.
    pub failed: Failed,
}

/// What the storage refused to remove: each version and marker is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// Object Lock keeps it: until its retention ends, or its legal hold.
    pub locked: u64,
    /// These credentials may not, or the bucket's policy denies it to all.
    pub denied: u64,
}

impl Failed {
    /// All of them.
    #[must_use]
    pub fn total(self) -> u64 {
        self.locked.saturating_add(self.denied)
    }
}

impl AddAssign for Purged {
    fn add_assign(&mut self, other: Self) {
        self.objects += other.objects;
        self.versions += other.versions;
        self.delete_markers += other.delete_markers;
        self.bytes += other.bytes;
        self.kept += other.kept;
        self.failed.locked += other.failed.locked;
        self.failed.denied += other.failed.denied;
    }
}

/// What became of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    Removed,
    /// Someone else was quicker.
    WasGone,
    Kept,
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "only S3 tells it apart"))]
    Locked,
    Denied,
}

impl Purged {
    /// Counts a version of so many bytes, or a delete marker, but for the object.
    pub(super) fn count(&mut self, removal: Removal, marker: bool, bytes: u64) {
        match removal {
            Removal::Removed if marker => self.delete_markers += 1,
            Removal::Removed => {
                self.versions += 1;
                self.bytes += bytes;
            }
            Removal::WasGone => {}
            Removal::Kept => self.kept += 1,
            Removal::Locked => self.failed.locked += 1,
            Removal::Denied => self.failed.denied += 1,
        }
    }
}

impl Storages {
    /// Removes from the storage of blobs what `select` picks of the objects under
    /// `prefix`, in every version. See the [module](self).
    ///
    /// What the storage refuses is counted and ends nothing. Of a local directory
    /// the directories that are empty then go too.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where we may not list; [`ErrorKind::Unavailable`].
    /// What was removed until then is gone: run it again.
    ///
    /// # Cancel safety
    /// Up to 16 removals may be under way and take effect.
    pub async fn purge(&self, prefix: &Path, select: impl Fn(&Path) -> bool + Send + Sync) -> Result<Purged> {
        #[cfg(feature = "aws")]
        if let Some(bucket) = &self.under_blobs.bucket {
            let root = &self.under_blobs.prefix;
            if let Some(purged) = super::s3::versions::purge(bucket, root, prefix, &select).await? {
                return Ok(purged);
            }
            // The server knows no versions.
        }
        let purged = purge_objects(&*self.blobs, prefix, select).await?;
        if let Some(root) = &self.under_blobs.directory {
            let directory =
                |parts: &Path| parts.parts().map(|part| part.as_ref().to_owned()).collect::<PathBuf>();
            let root = root.join(directory(&self.under_blobs.prefix));
            let below = directory(prefix);
            blocking(move || remove_empty(&root, &below).map_err(failed)).await?;
        }
        Ok(purged)
    }

    /// The days that a customer has blobs of, by their retention, in order. One
    /// listing by level; a day whose blobs lie only in old versions is not in it.
    ///
    /// # Errors
    /// Those of [`store_error`].
    pub async fn list_days(&self, customer: CustomerId) -> Result<Vec<Day>> {
        let listed = self.blobs.list_with_delimiter(Some(&layout::blobs_of(customer))).await;
        let listed = listed.map_err(|error| store_error(error, "list the days of a customer"))?;
        let read = |prefix: &Path| layout::read_day(prefix).map(|(_, day)| day);
        let mut days: Vec<_> = listed.common_prefixes.iter().filter_map(read).collect();
        days.sort_unstable();
        Ok(days)
    }
}

/// Where there are no versions, or none that we can see.
async fn purge_objects(
    store: &dyn ObjectStore,
    prefix: &Path,
    select: impl Fn(&Path) -> bool + Send + Sync,
) -> Result<Purged> {
    let all = prefix.as_ref().is_empty();
    let objects = store.list((!all).then_some(prefix));
    let select = &select;
    let removals = objects.map(|object| async move {
        let object = object.map_err(|error| store_error(error, "list what is to be removed"))?;
        let removal = if select(&object.location) { remove(store, &object).await? } else { Removal::Kept };
        Result::Ok((removal, object.size))
    });
    let counted =
        removals.buffer_unordered(AT_ONCE).try_fold(Purged::default(), |mut purged, (removal, size)| {
            purged.objects += u64::from(removal == Removal::Removed);
            purged.count(removal, false, size);
            std::future::ready(Ok(purged))
        });
    counted.await
}

async fn remove(store: &dyn ObjectStore, object: &ObjectMeta) -> Result<Removal> {
    let Err(error) = store.delete(&object.location).await else { return Ok(Removal::Removed) };
    let error = store_error(error, "remove an object");
    match error.kind() {
        ErrorKind::NotFound => Ok(Removal::WasGone),
        ErrorKind::Configuration => Ok(Removal::Denied),
        _ => Err(error),
    }
}

fn failed(error: io::Error) -> Error {
    let error = object_store::Error::Generic { store: "storage", source: Box::new(error) };
    store_error(error, "remove empty directories")
}

/// Removes the directories that are empty at and below `below`, never `root`, and
/// forces what was removed to the disk. It follows no symbolic link, and blocks.
fn remove_empty(root: &FilePath, below: &FilePath) -> io::Result<()> {
    let start = root.join(below);
    // A prefix may lead through a link that someone put there: only `root` itself may be one.
    let linked = below.ancestors().any(|part| {
        !part.as_os_str().is_empty()
            && std::fs::symlink_metadata(root.join(part)).is_ok_and(|meta| meta.is_symlink())
    });
    if linked || !prune(&start)? || start == root {
        return Ok(());
    }
    unless_gone(std::fs::remove_dir(&start).or_else(if_not_empty))?;
    // If we stop here, an empty directory may be back after a power failure.
    match start.parent() {
        Some(parent) => {
            unless_gone(std::fs::File::open(parent).and_then(|parent| parent.sync_all())).map(drop)
        }
        None => Ok(()),
    }
}

/// Removes what is empty below `directory`, and says whether nothing is left in it.
fn prune(directory: &FilePath) -> io::Result<bool> {
    let Some(entries) = unless_gone(std::fs::read_dir(directory))? else { return Ok(true) };
    let mut empty = true;
    for entry in entries {
        let entry = entry?;
        if unless_gone(entry.file_type())?.is_some_and(|kind| kind.is_dir()) && prune(&entry.path())? {
            // A writer that makes its directory at this moment makes it again.
            unless_gone(std::fs::remove_dir(entry.path()).or_else(if_not_empty))?;
        }
        empty &= unless_gone(std::fs::symlink_metadata(entry.path()))?.is_none();
    }
    unless_gone(std::fs::File::open(directory).and_then(|directory| directory.sync_all()))?;
    Ok(empty)
}

/// Someone put something there meanwhile.
fn if_not_empty(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::DirectoryNotEmpty { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::BlobId;
    use crate::store::{CreateRoot, StorageUrl, StorageUrls};
    use crate::system::SystemClock;

    const ACME: CustomerId = CustomerId::from_bytes([1; 16]);
    const GLOBEX: CustomerId = CustomerId::from_bytes([2; 16]);

    fn blob(customer: CustomerId, day: &str, random: u8) -> Path {
        layout::blob(customer, BlobId::new(day.parse().unwrap(), [random; 13]).unwrap())
    }

    async fn fill(storages: &Storages) {
        let paths = (1..=40).map(|random| blob(ACME, "2028-05-22", random));
        let paths = paths.chain([
            blob(ACME, "2028-05-23", 1),
            blob(GLOBEX, "2028-05-22", 1),
            layout::blobs_of_day(ACME, "2028-05-22".parse().unwrap()).join("not-ours"),
        ]);
        for path in paths {
            storages.blobs.put(&path, "12345".into()).await.unwrap();
        }
    }

    fn is_ours(path: &Path) -> bool {
        layout::read_blob(path).is_some()
    }

    async fn suite(storages: &Storages) {
        fill(storages).await;
        let day = "2028-05-22".parse().unwrap();
        assert_eq!(storages.list_days(ACME).await.unwrap(), [day, "2028-05-23".parse().unwrap()]);
        let prefix = layout::blobs_of_day(ACME, day);
        let expected = Purged { objects: 40, versions: 40, bytes: 200, kept: 1, ..Purged::default() };
        assert_eq!(storages.purge(&prefix, is_ours).await.unwrap(), expected);
        // Done once, there is nothing to do.
        let again = Purged { kept: 1, ..Purged::default() };
        assert_eq!(storages.purge(&prefix, is_ours).await.unwrap(), again);
        storages.blobs.head(&blob(ACME, "2028-05-23", 1)).await.unwrap();
        storages.blobs.head(&blob(GLOBEX, "2028-05-22", 1)).await.unwrap();
        storages.purge(&prefix, |_| true).await.unwrap();
        assert_eq!(storages.list_days(ACME).await.unwrap(), ["2028-05-23".parse().unwrap()]);
        let nowhere = layout::blobs_of_day(GLOBEX, "2030-01-01".parse().unwrap());
        assert_eq!(storages.purge(&nowhere, |_| true).await.unwrap(), Purged::default());
        // A customer's all, and no other's.
        let all = storages.purge(&layout::blobs_of(ACME), is_ours).await.unwrap();
        assert_eq!((all.objects, all.kept), (1, 0));
        storages.blobs.head(&blob(GLOBEX, "2028-05-22", 1)).await.unwrap();
        let rest = storages.purge(&Path::default(), |_| true).await.unwrap();
        assert_eq!(rest.objects, 1);
    }

    #[tokio::test]
    async fn memory_is_purged() {
        suite(&Storages::memory()).await;
    }

    #[tokio::test]
    async fn a_directory_is_purged_and_no_empty_one_is_left() {
        let home = tempfile::tempdir().unwrap();
        let urls = StorageUrls::new(StorageUrl::directory(home.path().join("store")).unwrap());
        let storages = Storages::open(&urls, CreateRoot::Yes, Arc::new(SystemClock)).await.unwrap();
        suite(&storages).await;
        let blobs = home.path().join("store/blobs");
        assert_eq!(std::fs::read_dir(&blobs).unwrap().count(), 0, "but the storage itself is there");

        // A file that is being written is none of ours, and keeps its directory.
        fill(&storages).await;
        let day = blobs.join(layout::blobs_of_day(ACME, "2028-05-23".parse().unwrap()).as_ref());
        std::fs::write(day.join("half#1"), "x").unwrap();
        let outside = home.path().join("outside/empty");
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(home.path().join("outside"), blobs.join("blob/link")).unwrap();
        let purged = storages.purge(&Path::from("blob"), |_| true).await.unwrap();
        assert!(purged.objects >= 43 && purged.failed == Failed::default(), "{purged:?}");
        assert!(day.join("half#1").exists() && outside.exists() && blobs.join("blob/link").exists());
        let customers: Vec<_> = std::fs::read_dir(blobs.join("blob"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(!customers.contains(&GLOBEX.to_string()), "{customers:?}");
    }

    #[tokio::test]
    async fn what_the_disk_refuses_is_counted() {
        if rustix::process::geteuid().is_root() {
            let mut stderr = std::io::stderr();
            std::io::Write::write_all(&mut stderr, b"NOT RUN: a refusing disk: root is refused nothing\n")
                .unwrap();
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let urls = StorageUrls::new(StorageUrl::directory(home.path()).unwrap());
        let storages = Storages::open(&urls, CreateRoot::Yes, Arc::new(SystemClock)).await.unwrap();
        fill(&storages).await;
        let day = layout::blobs_of_day(ACME, "2028-05-23".parse().unwrap());
        let directory = home.path().join("blobs").join(day.as_ref());
        let mode = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(&directory, mode).unwrap();
        };
        mode(0o500);
        let purged = storages.purge(&day, is_ours).await.unwrap();
        mode(0o700);
        assert_eq!(purged, Purged { failed: Failed { denied: 1, locked: 0 }, ..Purged::default() });
    }

    #[test]
    fn counts_add_up() {
        let mut all = Purged { objects: 1, versions: 2, bytes: 3, ..Purged::default() };
        all += Purged { delete_markers: 4, kept: 5, failed: Failed { locked: 6, denied: 7 }, ..all };
        let sum = Purged {
            objects: 2,
            versions: 4,
            delete_markers: 4,
            bytes: 6,
            kept: 5,
            failed: Failed { locked: 6, denied: 7 },
        };
        assert_eq!((all, all.failed.total()), (sum, 13));
    }
}
