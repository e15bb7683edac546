//! Objects in a directory of this machine: what was acknowledged is on the disk.
//!
//! Separate from `object_store`'s own local storage, which reads and lists for us, because of what
//! follows an error. It links a file, forces the directory, and reports a failure of the latter
//! while the file is there for all to see: whoever reads it back believes that only an answer was
//! lost. And forcing again proves nothing: Linux marks what it could not write as clean.
//!
//! # Contract
//! * **Success**: bytes, name and the directories above are on the disk.
//! * **[`AlreadyExists`](object_store::Error::AlreadyExists)**: so is the object that exists.
//! * **Read**: so is what was read, whoever wrote it, if we may write here.
//! * **Any other error** of a write: the object may be visible. It is not read before it was
//!   written anew and forced, or that fails too.
//!
//! # The mark
//! An object that is visible and not yet known to be on the disk has a second name beside it,
//! `<name>#<number>`, which no object can have and no list shows. The steps of a write:
//!
//! 1. The directories are made, each forced into the one above.
//! 2. The bytes are written under the second name, and forced.
//! 3. The file gets its own name: linked (create-if-absent) or renamed over the one before.
//! 4. The directory is forced. If that fails, the object is *renewed*: the same bytes are written
//!    to a new file, which is forced and takes the name, and the directory is forced again.
//! 5. The second name goes.
//!
//! If we stop behind 3, the mark stays, and who reads the object next, in this program or another,
//! renews it first. A hard link of somebody's own elsewhere is no mark.
//!
//! Who may corrupt it: whoever may write to the directory.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

pub use self::disk::{Disk, SystemDisk};
use self::upload::Upload;

mod disk;
mod upload;

/// What errors of a directory bear as the name of their storage.
pub(super) const NAME: &str = "directory";

/// How often an object is renewed that cannot be forced to the disk.
const RENEWALS: u32 = 3;

/// How large an object is at most that is renewed, in bytes: commits and rings are smaller, and a
/// larger blob is a failure.
const RENEWED: u64 = 64 << 20;

/// How often, and how long in between, its writer is given time to end what it is about: 0.1 s.
const WAITS: u32 = 20;
const WAIT: Duration = Duration::from_millis(5);

/// How many second names of an object are looked at.
const NAMES: u32 = 64;

/// How often a write begins anew whose directory was removed under it, being empty.
const TRIES: u32 = 8;

/// How many directories are remembered as forced.
const REMEMBERED: usize = 100_000;

/// Deletions under way at once.
const DELETIONS: usize = 10;

/// See the module. Clones share everything.
#[derive(Clone, Debug)]
pub struct Directory {
    /// Reads and lists.
    below: LocalFileSystem,
    writer: Arc<Writer>,
}

impl Directory {
    /// The objects in a directory that is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &FilePath) -> Result<Self> {
        Self::on(path, Arc::new(SystemDisk))
    }

    /// The same, with the writing calls of another [`Disk`].
    ///
    /// # Errors
    /// Those of the file system.
    pub fn on(path: &FilePath, disk: Arc<dyn Disk>) -> Result<Self> {
        let root = fs::canonicalize(path).map_err(failed)?;
        // Only `copy` and `rename` of it write, which we do not use.
        let below = LocalFileSystem::new_with_prefix(&root)?.with_fsync(true);
        let forced = Mutex::new(HashSet::from([root.clone()]));
        let writer = Writer { root, disk, failures: AtomicU64::new(0), forced, uncertain: Mutex::default() };
        Ok(Self { below, writer: Arc::new(writer) })
    }

    fn file(&self, location: &Path) -> Result<PathBuf> {
        self.below.path_to_filesystem(location)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Writer) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let writer = Arc::clone(&self.writer);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => runtime.spawn_blocking(move || call(&writer)).await?,
            Err(_) => call(&writer),
        }
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.below.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for Directory {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match &opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            // It says that it does not do this.
            PutMode::Update(_) => return self.below.put_opts(location, payload, opts).await,
        };
        if !opts.attributes.is_empty() {
            return self.below.put_opts(location, payload, opts).await;
        }
        let path = self.file(location)?;
        let put = self.blocking(move |writer| writer.put(&path, &payload, create)).await;
        put.map(result_of).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::AlreadyExists { path: location.to_string(), source: Box::new(error) }
            }
            _ => failed(error),
        })
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        if !opts.attributes.is_empty() {
            return self.below.put_multipart_opts(location, opts).await;
        }
        let path = self.file(location)?;
        let begin = move |writer: &Writer| writer.stage(&path).map(|(staged, file)| (path, staged, file));
        let (path, staged, file) = self.blocking(begin).await.map_err(failed)?;
        Ok(Box::new(Upload::new(self.clone(), path, staged, file)))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.below.get_opts(location, options.clone()).await?;
        let GetResultPayload::File(file, _) = &found.payload else { return Ok(found) };
        if file.metadata().map_err(failed)?.nlink() < 2 {
            return Ok(found);
        }
        let path = self.file(location)?;
        if self.blocking(move |writer| writer.settle(&path)).await.map_err(failed)? {
            // The file may be another by now, with the same bytes.
            return self.below.get_opts(location, options).await;
        }
        Ok(found)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let path = self.file(location)?;
        match self.blocking(move |writer| writer.settle(&path)).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Ok(_) | Err(_) => {}
        }
        self.below.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let directory = self.clone();
        let unmarked = locations.map(move |location| {
            let directory = directory.clone();
            async move {
                let location = location?;
                let path = directory.file(&location)?;
                let unmark = move |writer: &Writer| {
                    writer.unmark(&path);
                    Ok(())
                };
                directory.blocking(unmark).await.map_err(failed)?;
                Ok(location)
            }
        });
        self.below.delete_stream(unmarked.buffered(DELETIONS).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.below.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.below.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.below.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.below.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.below.rename_opts(from, to, options).await
    }
}

/// What writes.
#[derive(Debug)]
struct Writer {
    root: PathBuf,
    disk: Arc<dyn Disk>,
    /// How often a directory could not be forced. An error is told to one of those who force the
    /// same directory at once, and concerns the names of all.
    failures: AtomicU64,
    /// Directories that are on the disk.
    forced: Mutex<HashSet<PathBuf>>,
    /// Large objects whose names are not known to be on the disk.
    uncertain: Mutex<HashSet<PathBuf>>,
}

impl Writer {
    fn put(&self, path: &FilePath, payload: &PutPayload, create: bool) -> io::Result<Metadata> {
        let (staged, mut file) = self.stage(path)?;
        for piece in payload {
            self.write(&mut file, piece)?;
        }
        self.publish(staged, &file, path, create)
    }

    /// Steps 1 and 2, but for the bytes: a new file beside `path`.
    fn stage(&self, path: &FilePath) -> io::Result<(Staged, File)> {
        let folder = parent(path)?;
        for _ in 0..TRIES {
            match self.hold(folder).and_then(|()| self.create_beside(path)) {
                // Whoever removes empty directories was here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.forget(folder),
                made => return made,
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the directory of an object is removed all the time"))
    }

    fn create_beside(&self, path: &FilePath) -> io::Result<(Staged, File)> {
        for number in 1.. {
            let name = second_name(path, number);
            match self.disk.create(&name) {
                Ok(file) => return Ok((Staged { name: Some(name), disk: Arc::clone(&self.disk) }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("a directory holds fewer files than there are numbers")
    }

    /// A write may take fewer bytes than it is given.
    fn write(&self, file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.disk.write(file, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Steps 2 to 5. With `create`, what is there stays, and is on the disk when it is told of.
    fn publish(&self, staged: Staged, file: &File, path: &FilePath, create: bool) -> io::Result<Metadata> {
        self.disk.force_file(file)?;
        // If we stop here, a file is left that no list shows, for the sweeper.
        let failures = self.failures.load(Ordering::SeqCst);
        let meta = file.metadata()?;
        let mark = match create {
            true => self.link(staged, path, &meta)?,
            false => self.replace(staged, path, &meta)?,
        };
        // If we stop here, the object is visible and has a mark.
        let forced = self.force(parent(path)?);
        if forced.is_err() || self.failures.load(Ordering::SeqCst) != failures {
            if meta.len() > RENEWED {
                lock(&self.uncertain).insert(path.to_owned());
                mark.stay();
                return Err(forced.err().unwrap_or_else(|| io::Error::other("a directory was not forced")));
            }
            return self.renew(path, mark).map(|renewed| renewed.unwrap_or(meta));
        }
        // If we stop here or this fails, the object is renewed once, in vain.
        drop(mark);
        Ok(meta)
    }

    /// Step 3 of create-if-absent. What is returned is the mark.
    fn link(&self, staged: Staged, path: &FilePath, meta: &Metadata) -> io::Result<Staged> {
        let Err(error) = self.disk.link(staged.name(), path) else { return Ok(staged) };
        if fs::metadata(path).is_ok_and(|found| same_file(&found, meta)) {
            // It took effect nevertheless. The mark stays.
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Ok(staged);
            }
            staged.stay();
            return Err(error);
        }
        drop(staged);
        if error.kind() == io::ErrorKind::AlreadyExists {
            match self.settle(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Err(error)
    }

    /// Step 3 of what takes the place of another. What is returned is the mark.
    fn replace(&self, mut staged: Staged, path: &FilePath, meta: &Metadata) -> io::Result<Staged> {
        let mark = self.link_beside(staged.name(), path)?;
        // If we stop here, two files are left for the sweeper.
        match self.disk.rename(staged.name(), path) {
            Ok(()) => {
                staged.name = None;
                Ok(mark)
            }
            Err(error) => {
                if fs::metadata(path).is_ok_and(|found| same_file(&found, meta)) {
                    mark.stay();
                }
                Err(error)
            }
        }
    }

    fn link_beside(&self, from: &FilePath, path: &FilePath) -> io::Result<Staged> {
        for number in 1.. {
            let name = second_name(path, number);
            match self.disk.link(from, &name) {
                Ok(()) => return Ok(Staged { name: Some(name), disk: Arc::clone(&self.disk) }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        unreachable!("a directory holds fewer files than there are numbers")
    }

    /// Writes an object anew that bears `mark`, until it is on the disk. `None` if it is gone, or
    /// somebody else did that.
    fn renew(&self, path: &FilePath, mut mark: Staged) -> io::Result<Option<Metadata>> {
        let mut last = io::Error::other("an object was not forced to the disk");
        for _ in 0..RENEWALS {
            match self.copy(path, mark) {
                Ok(meta) => return Ok(meta),
                Err((error, kept)) => (last, mark) = (error, kept),
            }
        }
        // The object is visible, and nobody may go by it.
        mark.stay();
        Err(last)
    }

    /// One renewal. With an error comes the mark that the object then has.
    fn copy(&self, path: &FilePath, mark: Staged) -> Result<Option<Metadata>, (io::Error, Staged)> {
        let failures = self.failures.load(Ordering::SeqCst);
        let mut from = match File::open(mark.name()) {
            Ok(from) => from,
            // Somebody else was done with it first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err((error, mark)),
        };
        let mut copied = || -> io::Result<(Staged, Metadata)> {
            let (staged, mut file) = self.create_beside(path)?;
            let mut piece = vec![0; 1 << 16];
            loop {
                match from.read(&mut piece)? {
                    0 => break,
                    read => self.write(&mut file, &piece[..read])?,
                }
            }
            self.disk.force_file(&file)?;
            Ok((staged, file.metadata()?))
        };
        let (staged, meta) = match copied() {
            Ok(copied) => copied,
            Err(error) => return Err((error, mark)),
        };
        match fs::metadata(path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err((error, mark)),
        }
        let new_mark = match self.replace(staged, path, &meta) {
            Ok(new_mark) => new_mark,
            Err(error) => return Err((error, mark)),
        };
        // If we stop here, the object has the same bytes in another file, and a mark.
        let folder = path.parent().unwrap_or(&self.root);
        match self.force(folder) {
            Ok(()) if self.failures.load(Ordering::SeqCst) == failures => Ok(Some(meta)),
            Ok(()) => Err((io::Error::other("a directory was not forced"), new_mark)),
            Err(error) => Err((error, new_mark)),
        }
    }

    /// Sees to it that the object at `path` is on the disk, and says whether that was in doubt.
    fn settle(&self, path: &FilePath) -> io::Result<bool> {
        let mut waits = 0;
        let (meta, mark) = loop {
            let meta = fs::metadata(path)?;
            // Nobody's, or one of somebody else's making.
            let Some(mark) = self.mark_of(path, &meta) else { return Ok(waits > 0) };
            // Its writer is at work, mostly.
            if waits == WAITS {
                break (meta, mark);
            }
            waits += 1;
            std::thread::sleep(WAIT);
        };
        let may_not = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        };
        if meta.len() > RENEWED {
            if lock(&self.uncertain).contains(path) {
                return Err(io::Error::other("the object is not known to be on the disk"));
            }
            // Its writer was stopped. The whole of it is not written once more.
            return match self.force(parent(path)?) {
                Ok(()) => {
                    let _ = self.disk.remove(&mark);
                    Ok(true)
                }
                Err(error) if may_not(&error) => Ok(false),
                Err(error) => Err(error),
            };
        }
        let mark = Staged { name: Some(mark), disk: Arc::clone(&self.disk) };
        match self.renew(path, mark) {
            Ok(_) => Ok(true),
            // Whoever may only read builds nothing on it.
            Err(error) if may_not(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The second name of the file at `path`.
    fn mark_of(&self, path: &FilePath, meta: &Metadata) -> Option<PathBuf> {
        if meta.nlink() < 2 {
            return None;
        }
        let names = (1..=NAMES).map(|number| second_name(path, number));
        names.into_iter().find(|name| fs::symlink_metadata(name).is_ok_and(|found| same_file(&found, meta)))
    }

    /// Removes the marks of an object that goes.
    fn unmark(&self, path: &FilePath) {
        lock(&self.uncertain).remove(path);
        while let Some(mark) = fs::metadata(path).ok().and_then(|meta| self.mark_of(path, &meta)) {
            if self.disk.remove(&mark).is_err() {
                return;
            }
        }
    }

    /// Step 1: the directories down to `folder` are on the disk.
    fn hold(&self, folder: &FilePath) -> io::Result<()> {
        // Kept meanwhile: nobody puts anything into a directory that may have to be made again.
        let mut forced = lock(&self.forced);
        if forced.contains(folder) {
            return Ok(());
        }
        let missing: Vec<_> = folder.ancestors().take_while(|above| !forced.contains(*above)).collect();
        for folder in missing.into_iter().rev() {
            let above = parent(folder)?;
            let made = match self.disk.make_directory(folder) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(error),
            };
            // If we stop here, it is there, and who comes next forces it.
            if let Err(error) = self.force(above) {
                if made {
                    // So that the next one is a change of the directory again.
                    let _ = self.disk.remove_directory(folder);
                }
                return Err(error);
            }
            if forced.len() >= REMEMBERED {
                forced.retain(|path| path == &self.root);
                forced.extend(
                    above.ancestors().take_while(|path| path.starts_with(&self.root)).map(PathBuf::from),
                );
            }
            forced.insert(folder.to_owned());
        }
        Ok(())
    }

    fn forget(&self, folder: &FilePath) {
        let root = &self.root;
        lock(&self.forced).retain(|path| path == root || !folder.starts_with(path));
    }

    fn force(&self, folder: &FilePath) -> io::Result<()> {
        let forced = self.disk.force_directory(folder);
        if forced.is_err() {
            self.failures.fetch_add(1, Ordering::SeqCst);
        }
        forced
    }
}

/// A file under a second name, which goes with this.
struct Staged {
    name: Option<PathBuf>,
    disk: Arc<dyn Disk>,
}

impl Staged {
    fn name(&self) -> &FilePath {
        self.name.as_deref().expect("it is taken where the file is renamed")
    }

    /// Leaves the file its name, as the mark of an object that is in doubt.
    fn stay(mut self) {
        self.name = None;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // What stays is the sweeper's.
            let _ = self.disk.remove(name);
        }
    }
}

/// `<name>#<number>`.
fn second_name(path: &FilePath, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("#{number}"));
    name.into()
}

fn parent(path: &FilePath) -> io::Result<&FilePath> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path: String::new(), source: Box::new(error) },
        _ => Error::Generic { store: NAME, source: Box::new(error) },
    }
}

/// As `object_store` tags a local file when it is read.
fn result_of(meta: Metadata) -> PutResult {
    let modified = meta.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let (micros, inode, size) = (modified.unwrap_or_default().as_micros(), meta.ino(), meta.len());
    let e_tag = Some(format!("\"{inode:x}-{micros:x}-{size:x}\""));
    PutResult { e_tag, version: None, extensions: object_store::Extensions::new() }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
