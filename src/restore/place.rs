//! The directory that blobs are restored to.
//!
//! `.strongroom-restore` in it says what was restored before: a line of JSON each, with the id
//! of a blob, its path, its length and the SHA-256 of its plaintext. Not told apart from the
//! plaintext, it is as confidential.
//!
//! Of each file the order is: written under a name of its own, whole and authentic, on the
//! disk; given its name; written down. What a crash between any two of these means is said at
//! each.
//!
//! Separate from the opening, and blocking.
//!
//! Invariants: under its path a file is whole. A file is left alone unless it was written down
//! and is not what was written down. Nothing is written outside of the directory, and no link in
//! it is followed. One program works in it at a time.
//!
//! Who may corrupt it: whoever may write to the directory, whose mode is 0700. What is written
//! down is believed for as long as the file has that digest.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::plan::{BY_ID, OURS, above, is_safe};
use crate::durable::sync;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, StoreId};
use crate::shred::offboard::manifest::Digest;

/// What was restored before.
const STATE: &str = ".strongroom-restore";

/// How much of a file is read at a time, in bytes.
const READ: usize = 1 << 18;

/// Whose blobs a directory has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    pub(super) format: Format,
    pub(super) store: StoreId,
    pub(super) customer: CustomerId,
}

/// The format of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Format {
    #[serde(rename = "strongroom/restore-state/v1")]
    V1,
}

/// One that was restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    blob: BlobId,
    path: String,
    bytes: u64,
    sha256: Digest,
}

/// What stands where a blob goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// What was restored before, of so many bytes.
    Same(u64),
    /// Nothing.
    Nothing,
    /// What was restored before, and altered since.
    Altered,
    /// A file of so many bytes that is not written down. It may be of a run that was stopped.
    Unknown(u64),
}

/// The directory, for as long as this program works in it.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None`: nothing is to be written.
    file: Option<File>,
    done: BTreeMap<BlobId, Line>,
}

impl Place {
    /// Makes the directory, or takes up one that is there.
    pub(super) fn open(root: &Path, whose: Whose) -> Result<Self> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(root).map_err(unmade)?;
        Self::check(root)?;
        let mut file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(root.join(STATE))
            .map_err(unmade)?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => {
                Error::new(ErrorKind::Conflict, "another program restores to this directory")
            }
            errno => unmade(errno.into()),
        })?;
        let done = read_state(&mut file, whose)?;
        let place = Self { root: root.to_owned(), state: Mutex::new(State { file: Some(file), done }) };
        place.remove_parts()?;
        sync(root).map_err(unmade)?;
        Ok(place)
    }

    /// Looks at the directory, if it is there. Nothing is written.
    pub(super) fn look_at(root: &Path, whose: Whose) -> Result<Self> {
        let done = match File::open(root.join(STATE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(unmade(error)),
            Ok(file) => read_lines(&file, whose)?.1,
        };
        Ok(Self { root: root.to_owned(), state: Mutex::new(State { file: None, done }) })
    }

    fn check(root: &Path) -> Result<()> {
        let found = fs::metadata(root).map_err(unmade)?;
        let ours = found.uid() == rustix::process::geteuid().as_raw();
        if !ours || found.mode() & 0o077 != 0 {
            let message =
                "the directory belongs to another user, or others may enter it: give it the mode 0700";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(())
    }

    /// Removes what a run that was stopped had not finished.
    fn remove_parts(&self) -> Result<()> {
        for entry in fs::read_dir(&self.root).map_err(unmade)? {
            let entry = entry.map_err(unmade)?;
            let name = entry.file_name();
            let is_part = name.to_str().is_some_and(|name| name.starts_with(OURS) && name.ends_with(".part"));
            if is_part && entry.file_type().map_err(unmade)?.is_file() {
                fs::remove_file(entry.path()).map_err(unmade)?;
            }
        }
        Ok(())
    }

    /// What stands at `path`. What was restored of the blob to another path goes there.
    pub(super) fn stands(&self, blob: BlobId, path: &str) -> Result<Stands> {
        let known = self.state().done.get(&blob).cloned();
        if let Some(known) = known.as_ref().filter(|known| known.path != path) {
            let moves = self.found(path)?.is_none() && self.state().file.is_some();
            if moves && self.is_as_written(known)? {
                self.move_to(known, path)?;
                return Ok(Stands::Same(known.bytes));
            }
        }
        let known = known.filter(|known| known.path == path);
        match (self.found(path)?, known) {
            (None, _) => Ok(Stands::Nothing),
            (Some(found), None) => Ok(Stands::Unknown(found.len())),
            (Some(_), Some(known)) if self.is_as_written(&known)? => Ok(Stands::Same(known.bytes)),
            (Some(_), Some(_)) => Ok(Stands::Altered),
        }
    }

    /// A file at `path`, if anything is there.
    fn found(&self, path: &str) -> Result<Option<Metadata>> {
        match fs::symlink_metadata(self.root.join(path)) {
            Ok(found) if found.is_file() => Ok(Some(found)),
            Ok(_) => Err(in_the_way()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(in_the_way()),
            Err(error) => Err(unread(error)),
        }
    }

    fn is_as_written(&self, known: &Line) -> Result<bool> {
        let Some(found) = self.found(&known.path)? else { return Ok(false) };
        Ok(found.len() == known.bytes && self.digest(&known.path)? == known.sha256)
    }

    fn digest(&self, path: &str) -> Result<Digest> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let opened = File::options().read(true).custom_flags(flags).open(self.root.join(path));
        let mut file = opened.map_err(unread)?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ]);
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Digest(hash.finalize().into())),
                Ok(count) => hash.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unread(error)),
            }
        }
    }

    /// What was restored before has another path by now: a second blob of its name, say.
    fn move_to(&self, known: &Line, path: &str) -> Result<()> {
        self.make_above(path)?;
        self.name(&self.root.join(&known.path), path, Replace::No)?;
        sync(crate::durable::directory(&self.root.join(&known.path))).map_err(unwritten)?;
        // If we stop here, the next run finds it there, and compares.
        self.write_down(Line { path: path.to_owned(), ..known.clone() })
    }

    /// A file for a blob, under a name of its own.
    pub(super) fn part(&self, blob: BlobId) -> Result<Part> {
        let path = self.root.join(format!("{OURS}{blob}.part"));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(unwritten)?;
        Ok(Part { file, path, hash: Sha256::new(), bytes: 0, named: false })
    }

    /// Gives a whole and authentic file its path, where this stands so far.
    pub(super) fn finish(&self, blob: BlobId, path: &str, mut part: Part, stands: Stands) -> Result<u64> {
        let (bytes, sha256) = (part.bytes, Digest(part.hash.clone().finalize().into()));
        part.file.sync_all().map_err(unwritten)?;
        // If we stop here, the next run removes the part.
        match stands {
            Stands::Unknown(length) => {
                if length != bytes || self.digest(path)? != sha256 {
                    return Err(in_the_way());
                }
                // It is of a run that was stopped before it wrote it down.
                File::open(self.root.join(path)).and_then(|file| file.sync_all()).map_err(unwritten)?;
            }
            Stands::Nothing | Stands::Altered | Stands::Same(_) => {
                let replace = if stands == Stands::Nothing { Replace::No } else { Replace::Yes };
                self.make_above(path)?;
                self.name(&part.path, path, replace)?;
                part.named = true;
            }
        }
        // If we stop here, the next run finds a file that is not written down, and compares.
        self.write_down(Line { blob, path: path.to_owned(), bytes, sha256 })?;
        Ok(bytes)
    }

    /// Makes the directories that a path is in.
    fn make_above(&self, path: &str) -> Result<()> {
        for directory in above(path) {
            let directory = self.root.join(directory);
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => sync(crate::durable::directory(&directory)).map_err(unwritten)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if !fs::symlink_metadata(&directory).map_err(unwritten)?.is_dir() {
                        return Err(in_the_way());
                    }
                }
                Err(error) => return Err(unwritten(error)),
            }
        }
        Ok(())
    }

    fn name(&self, from: &Path, path: &str, replace: Replace) -> Result<()> {
        let to = self.root.join(path);
        match replace {
            Replace::Yes => fs::rename(from, &to).map_err(unwritten)?,
            Replace::No => match renameat_with(CWD, from, CWD, &to, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(in_the_way()),
                // Not every file system can do that; a link never replaces either.
                Err(_) => {
                    fs::hard_link(from, &to).map_err(unwritten)?;
                    fs::remove_file(from).map_err(unwritten)?;
                }
            },
        }
        sync(crate::durable::directory(&to)).map_err(unwritten)
    }

    fn write_down(&self, line: Line) -> Result<()> {
        let mut state = self.state();
        if let Some(file) = &mut state.file {
            // In one piece, so that what a crash cuts off is the end of one line.
            file.write_all(&text(&line)).and_then(|()| file.sync_data()).map_err(unwritten)?;
        }
        state.done.insert(line.blob, line);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is being written. It is removed unless it was given its path.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    path: PathBuf,
    hash: Sha256,
    bytes: u64,
    named: bool,
}

impl Part {
    /// Writes the next piece.
    pub(super) fn write(&mut self, piece: &Bytes) -> Result<()> {
        self.file.write_all(piece).map_err(unwritten)?;
        self.hash.update(piece);
        self.bytes += u64::try_from(piece.len()).expect("a piece fits in memory");
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Replace {
    Yes,
    No,
}

/// Reads what was written down, and makes it end with a whole line.
fn read_state(file: &mut File, whose: Whose) -> Result<BTreeMap<BlobId, Line>> {
    let (length, done) = read_lines(&*file, whose)?;
    // What a crash cut off is cut off for good, or the next line would hang on to it.
    file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0))).map_err(unmade)?;
    if length == 0 {
        file.write_all(&text(&whose)).and_then(|()| file.sync_all()).map_err(unmade)?;
    }
    Ok(done)
}

/// The lines of a state, and where the last whole one ends. One that is none of ours is passed
/// over: its blob is restored once more, and compared.
fn read_lines(file: impl Read, whose: Whose) -> Result<(u64, BTreeMap<BlobId, Line>)> {
    let (mut reader, mut length, mut done) = (BufReader::new(file), 0, BTreeMap::new());
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let count = reader.read_until(b'\n', &mut bytes).map_err(unmade)?;
        if bytes.pop() != Some(b'\n') {
            return Ok((length, done));
        }
        if length == 0 && serde_json::from_slice::<Whose>(&bytes).ok() != Some(whose) {
            let message = "the directory has what was restored of another customer, or something else";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if let Ok(line) = serde_json::from_slice::<Line>(&bytes) {
            let by_id = format!("{BY_ID}/{}", line.blob);
            if is_safe(&line.path) || line.path == by_id {
                done.insert(line.blob, line);
            }
        }
        length += u64::try_from(count).expect("a line fits in memory");
    }
}

fn text(line: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(line).expect("ids, names, digests and numbers are JSON");
    text.push(b'\n');
    text
}

fn in_the_way() -> Error {
    let message = "something else stands where this blob goes; it was left as it is";
    Error::new(ErrorKind::AlreadyExists, message)
}

fn unmade(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "the directory cannot be made or used").with_source(error)
}

fn unread(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "what was restored cannot be read").with_source(error)
}

fn unwritten(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "what is restored cannot be written").with_source(error)
}

/// Reads what a directory has written down of a restore: for [`crate::fuzz`]. The length of its
/// whole lines.
pub(crate) fn fuzz(bytes: &[u8], store: StoreId, customer: CustomerId) -> Option<u64> {
    read_lines(bytes, Whose { format: Format::V1, store, customer }).ok().map(|(length, _)| length)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::time::Day;

    fn blob(number: u8) -> BlobId {
        BlobId::new(Day::from_number(20_000), [number; 13]).unwrap()
    }

    fn whose(customer: u8) -> Whose {
        let (store, customer) = (StoreId::from_bytes([1; 16]), CustomerId::from_bytes([customer; 16]));
        Whose { format: Format::V1, store, customer }
    }

    fn restore(place: &Place, number: u8, path: &str, text: &'static str) -> Result<u64> {
        let stands = place.stands(blob(number), path)?;
        let mut part = place.part(blob(number))?;
        part.write(&Bytes::from_static(text.as_bytes()))?;
        place.finish(blob(number), path, part, stands)
    }

    #[test]
    fn what_was_restored_is_known_to_the_next_run() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a/b");
        let place = Place::open(&root, whose(1)).unwrap();
        assert_eq!(restore(&place, 1, "db/nightly", "one").unwrap(), 3);
        assert_eq!(Place::open(&root, whose(1)).unwrap_err().kind(), ErrorKind::Conflict);
        drop(place);
        assert_eq!(Place::open(&root, whose(2)).unwrap_err().kind(), ErrorKind::InvalidInput);
        for (path, mode) in [("", 0o700), ("db", 0o700), ("db/nightly", 0o600), (STATE, 0o600)] {
            assert_eq!(fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
        }
        // A part of one that was killed, and half a line.
        fs::write(root.join(format!("{OURS}{}.part", blob(9))), "x").unwrap();
        let mut state = File::options().append(true).open(root.join(STATE)).unwrap();
        state.write_all(b"{\"blob\":\"").unwrap();
        let place = Place::open(&root, whose(1)).unwrap();
        assert_eq!(place.stands(blob(1), "db/nightly").unwrap(), Stands::Same(3));
        assert!(!root.join(format!("{OURS}{}.part", blob(9))).exists());
        restore(&place, 2, "two", "two").unwrap();
        drop(place);
        let place = Place::look_at(&root, whose(1)).unwrap();
        assert_eq!(place.stands(blob(2), "two").unwrap(), Stands::Same(3));
    }

    #[test]
    fn what_was_altered_is_restored_and_what_is_not_ours_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("to");
        let place = Place::open(&root, whose(1)).unwrap();
        restore(&place, 1, "one", "one").unwrap();
        for altered in ["onf", "on", "one "] {
            fs::write(root.join("one"), altered).unwrap();
            assert_eq!(place.stands(blob(1), "one").unwrap(), Stands::Altered);
            restore(&place, 1, "one", "one").unwrap();
            assert_eq!(fs::read_to_string(root.join("one")).unwrap(), "one");
        }
        fs::write(root.join("mine"), "my own").unwrap();
        for text in ["theirs", "longer than it"] {
            assert_eq!(restore(&place, 2, "mine", text).unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(fs::read_to_string(root.join("mine")).unwrap(), "my own");
        // As a run leaves it that stops before it writes it down.
        restore(&place, 2, "mine", "my own").unwrap();
        assert_eq!(place.stands(blob(2), "mine").unwrap(), Stands::Same(6));
        // Nothing is written through a link, or to where a file is.
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("x"), root.join("x")).unwrap();
        for path in ["link/y", "x", "one/y", "link"] {
            let error = restore(&place, 3, path, "text").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{path}: {error:?}");
        }
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!root.join(format!("{OURS}{}.part", blob(3))).exists(), "nothing half is left");
    }

    #[test]
    fn a_blob_whose_path_is_another_by_now_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(&dir.path().join("to"), whose(1)).unwrap();
        restore(&place, 1, "one", "one").unwrap();
        assert_eq!(place.stands(blob(1), "sub/one~1").unwrap(), Stands::Same(3));
        assert!(!dir.path().join("to/one").exists() && dir.path().join("to/sub/one~1").exists());
        assert_eq!(place.stands(blob(1), "sub/one~1").unwrap(), Stands::Same(3));
    }

    #[test]
    fn a_directory_for_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        let error = Place::open(dir.path(), whose(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!dir.path().join(STATE).exists());
    }
}
