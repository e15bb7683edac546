//! The files of the local key provider, and what happens if we stop half way.
//!
//! One file per key, `<id>.key`, of [`FILE_LEN`] bytes:
//!
//! | at | length | what |
//! |---:|---:|---|
//! | 0 | 10 | `SRlkmsky`, version 1 and its complement; version 2 for a key that unwraps under a grant only |
//! | 10 | 16 | the id, as in the file's name |
//! | 26 | 8 | when it was made |
//! | 34 | 1 | 0 enabled, 1 disabled, 2 pending deletion |
//! | 35 | 8 | when it will be deleted, 0 unless pending |
//! | 43 | 32 | the key |
//! | 75 | 32 | SHA-256 of what precedes it |
//!
//! A file is never changed where it stands while it is a key's: a new one is
//! written as `<id>.new` and takes its place, under an exclusive lock on `.lock`.
//! Grants are files of their own ([`grants`]). Readers take no lock. A reader that opened a file which was replaced and
//! overwritten in the same moment finds that the digest does not fit, and reads
//! again under the lock.
//!
//! Who may corrupt it: whoever may write to the directory. The digest is there
//! for accidents, not for them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::LocalKeyId;
use crate::kms::{KmsError, KmsErrorKind};
use crate::secret::Secret;
use crate::suite::KEY_LEN;
use crate::time::Timestamp;

pub(crate) mod grants;

const MAGIC: &[u8; 8] = b"SRlkmsky";
const VERSION: u8 = 1;
/// The same bytes, for a key that unwraps under a grant only: a program that knows of no
/// grants must not use it.
const VERSION_BY_GRANT: u8 = 2;
const PREFIX_LEN: usize = 10 + 16 + 8 + 1 + 8;
const DIGEST_LEN: usize = 32;
const FILE_LEN: usize = PREFIX_LEN + KEY_LEN + DIGEST_LEN;

const LOCK_FILE: &str = ".lock";
/// How often, and how long in between, the lock is asked for: 5 s in all.
const LOCK_TRIES: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Where a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Enabled,
    Disabled,
    /// To be destroyed at this time.
    Pending(Timestamp),
}

impl State {
    fn is_due(self, now: Timestamp) -> bool {
        matches!(self, Self::Pending(due) if due <= now)
    }
}

/// One key, as its file has it.
#[derive(Debug)]
pub(super) struct StoredKey {
    pub(super) created: Timestamp,
    pub(super) state: State,
    pub(super) key: Secret<KEY_LEN>,
    /// Whether it unwraps under a grant only.
    pub(super) by_grant: bool,
}

/// The directory, by its path.
#[derive(Debug)]
pub(super) struct KeyDirectory {
    path: PathBuf,
}

impl KeyDirectory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Fails if the directory is there and not fit for keys.
    pub(super) fn check(&self) -> Result<(), KmsError> {
        self.find().map(drop)
    }

    /// Stores a new key, and makes the directory if it is missing.
    pub(super) fn create(&self, id: LocalKeyId, stored: &StoredKey) -> Result<(), KmsError> {
        make_directory(&self.path)?;
        let directory = self.enter()?;
        let _lock = directory.lock()?;
        match rustix::fs::statat(&directory.0, key_file(id), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => directory.put(id, stored),
            Err(errno) => Err(failed(errno)),
            Ok(_) => {
                let message = "a new key's file exists already: the source of randomness repeats itself";
                Err(KmsError::new(KmsErrorKind::Configuration, message))
            }
        }
    }

    /// The key as it is at `now`. If its deletion is due, it is destroyed first.
    pub(super) fn load(&self, id: LocalKeyId, now: Timestamp) -> Result<StoredKey, KmsError> {
        let directory = self.enter()?;
        match directory.read(id)? {
            Found::Key(stored) if !stored.state.is_due(now) => return Ok(stored),
            // Due, gone, or seen while it was replaced: have a look on our own.
            Found::Key(_) | Found::Nothing | Found::Damaged(_) => {}
        }
        let _lock = directory.lock()?;
        directory.settle(id, now)
    }

    /// Takes a key from its state at `now` to the one that `next` says, which is
    /// returned.
    pub(super) fn change(
        &self,
        id: LocalKeyId,
        now: Timestamp,
        next: impl FnOnce(State) -> Result<State, KmsError>,
    ) -> Result<State, KmsError> {
        let directory = self.enter()?;
        let _lock = directory.lock()?;
        let stored = directory.settle(id, now)?;
        let state = next(stored.state)?;
        // Also if it is there already: whoever made the change may have failed to force it to the disk.
        directory.put(id, &StoredKey { state, ..stored })?;
        Ok(state)
    }

    fn enter(&self) -> Result<Directory, KmsError> {
        // A missing directory is a disk that is not there, not keys that are gone.
        self.find()?.ok_or_else(|| {
            let message = "there is no key directory: mount it, restore it, or create a key";
            KmsError::new(KmsErrorKind::Configuration, message)
        })
    }

    /// The directory, checked, `None` if it is missing.
    fn find(&self) -> Result<Option<Directory>, KmsError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(CWD, &self.path, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::NOTDIR) => {
                let message = "the key directory's path leads to something else: name a directory";
                return Err(KmsError::new(KmsErrorKind::Configuration, message));
            }
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&directory).map_err(failed)?;
        check_owner(
            &stat,
            "the key directory belongs to another user: chown it to the user this program runs as",
            "others than its owner may enter the key directory: chmod 700",
        )?;
        Ok(Some(Directory(directory)))
    }
}

/// The directory, entered and checked. Methods from `settle` on need the lock.
struct Directory(OwnedFd);

/// Held for as long as it lives; the kernel lets go of it when we die.
struct Lock {
    _file: OwnedFd,
}

enum Found {
    Key(StoredKey),
    Damaged(DecodeError),
    Nothing,
}

impl Directory {
    fn lock(&self) -> Result<Lock, KmsError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, LOCK_FILE, flags, owner_only()).map_err(failed)?;
        for _ in 0..LOCK_TRIES {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
                Err(errno) => return Err(failed(errno)),
            }
        }
        let message = "another process keeps the lock of the key directory";
        Err(KmsError::new(KmsErrorKind::Unavailable, message))
    }

    fn read(&self, id: LocalKeyId) -> Result<Found, KmsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, key_file(id), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            Err(Errno::LOOP) => return Err(not_a_file()),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(not_a_file());
        }
        check_owner(
            &stat,
            "a local key file belongs to another user: chown it to the user this program runs as",
            "others than its owner may read a local key file: chmod 600, and think of it as known to them",
        )?;
        // One byte more than it should have, to see that there is none.
        let mut length = 0;
        let bytes = Secret::<{ FILE_LEN + 1 }>::try_init(|bytes| {
            length = read_up_to(&File::from(file), bytes)?;
            Ok(())
        });
        let bytes = bytes.map_err(failed_io)?;
        Ok(match decode(&bytes.expose()[..length], id) {
            Ok(stored) => Found::Key(stored),
            Err(error) => Found::Damaged(error),
        })
    }

    /// The key, after whatever was left half done is finished and what is due is
    /// destroyed.
    fn settle(&self, id: LocalKeyId, now: Timestamp) -> Result<StoredKey, KmsError> {
        match self.read(id)? {
            Found::Key(stored) if stored.state.is_due(now) => self.destroy(id)?,
            Found::Key(stored) => return Ok(stored),
            Found::Nothing => self.finish_destroying(id)?,
            Found::Damaged(error @ DecodeError::Version(_)) => {
                let message = "a local key file is a newer program's: upgrade this one";
                return Err(KmsError::new(KmsErrorKind::Configuration, message).with_source(error));
            }
            Found::Damaged(error) => {
                let message = "a local key file is damaged: restore it from a backup";
                return Err(KmsError::new(KmsErrorKind::Configuration, message).with_source(error));
            }
        }
        Err(KmsError::new(KmsErrorKind::KeyDestroyed, "there is no such local KMS key, or no longer"))
    }

    /// Writes a key's file, in place of the one there is.
    fn put(&self, id: LocalKeyId, stored: &StoredKey) -> Result<(), KmsError> {
        let name = key_file(id);
        let next = next_file(id);
        self.wipe(&next)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.0, &next, flags, owner_only()).map_err(failed)?;
        let bytes = encode(stored, id);
        File::from(file.try_clone().map_err(failed_io)?)
            .write_all_at(bytes.expose(), 0)
            .map_err(failed_io)?;
        rustix::fs::fsync(&file).map_err(failed)?;
        // If we stop here, a second copy of the key lies about under `<id>.new`. The
        // next change of this key, and its destruction, wipe it.

        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let old = match rustix::fs::openat(&self.0, &name, flags, Mode::empty()) {
            Ok(old) => Some(old),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(failed(errno)),
        };
        rustix::fs::renameat(&self.0, &next, &self.0, &name).map_err(failed)?;
        // If the machine stops here, the file is the old one or the new one, and whole.

        rustix::fs::fsync(&self.0).map_err(failed)?;
        // The change is durable. If we stop here, the old copy stays in blocks that
        // the file system may give to others.

        match old {
            Some(old) => overwrite(old, false),
            None => Ok(()),
        }
    }

    /// Ends a key. Not undone by anything that is left in the directory.
    fn destroy(&self, id: LocalKeyId) -> Result<(), KmsError> {
        rustix::fs::renameat(&self.0, key_file(id), &self.0, gone_file(id)).map_err(failed)?;
        // If the machine stops here, the key is still pending and due, or as below.

        rustix::fs::fsync(&self.0).map_err(failed)?;
        // If we stop here, the key is gone for all who ask, and its bytes are in
        // `<id>.gone`: whoever asks next finishes this.
        self.finish_destroying(id)
    }

    fn finish_destroying(&self, id: LocalKeyId) -> Result<(), KmsError> {
        self.wipe(&next_file(id))?;
        self.wipe(&gone_file(id))
    }

    /// Overwrites and unlinks a file, if it is there.
    fn wipe(&self, name: &str) -> Result<(), KmsError> {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => overwrite(file, true)?,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        // If we stop here, a file of zeros is left, for the next one to unlink.

        rustix::fs::unlinkat(&self.0, name, AtFlags::empty()).map_err(failed)?;
        rustix::fs::fsync(&self.0).map_err(failed)
    }
}

/// Overwrites the key in a file that has one name if it is `named`, and else
/// none. One with another name is someone's copy, and not ours to spoil.
fn overwrite(file: OwnedFd, named: bool) -> Result<(), KmsError> {
    let stat = rustix::fs::fstat(&file).map_err(failed)?;
    if stat.st_nlink > named.into() {
        return Ok(());
    }
    let file = File::from(file);
    file.write_all_at(&[0; FILE_LEN], 0).map_err(failed_io)?;
    file.sync_all().map_err(failed_io)
}

/// Makes the directory and the ones above it, each durable before the next.
fn make_directory(path: &Path) -> Result<(), KmsError> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::NOENT) => {
            let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) else {
                return Err(failed(Errno::NOENT));
            };
            make_directory(above)?;
            match rustix::fs::mkdir(path, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Err(errno) => return Err(failed(errno)),
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(CWD, above, flags, Mode::empty()).map_err(failed)?;
    rustix::fs::fsync(above).map_err(failed)
}

fn check_owner(stat: &Stat, not_ours: &'static str, too_wide: &'static str) -> Result<(), KmsError> {
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(KmsError::new(KmsErrorKind::Configuration, not_ours));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return Err(KmsError::new(KmsErrorKind::Configuration, too_wide));
    }
    Ok(())
}

fn read_up_to(file: &File, out: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < out.len() {
        match file.read_at(&mut out[length..], length as u64) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn encode(stored: &StoredKey, id: LocalKeyId) -> Secret<FILE_LEN> {
    let (state, due) = match stored.state {
        State::Enabled => (0, 0),
        State::Disabled => (1, 0),
        State::Pending(due) => (2, due.micros()),
    };
    let mut prefix = Writer::default();
    prefix.version(MAGIC, if stored.by_grant { VERSION_BY_GRANT } else { VERSION });
    id.encode(&mut prefix);
    stored.created.encode(&mut prefix);
    prefix.u8(state).u64(due);

    // The key goes straight to where it is wiped: a growing buffer leaves copies.
    Secret::init(|bytes| {
        let (content, digest) = bytes.split_at_mut(PREFIX_LEN + KEY_LEN);
        content[..PREFIX_LEN].copy_from_slice(prefix.as_bytes());
        content[PREFIX_LEN..].copy_from_slice(stored.key.expose());
        digest.copy_from_slice(&Sha256::digest(&*content));
    })
}

fn decode(bytes: &[u8], id: LocalKeyId) -> Result<StoredKey, DecodeError> {
    let mut reader = Reader::new(bytes);
    let by_grant = reader.version(MAGIC, VERSION_BY_GRANT)? == VERSION_BY_GRANT;
    if LocalKeyId::decode(&mut reader)? != id {
        return Err(DecodeError::Invalid("id"));
    }
    let created = Timestamp::decode(&mut reader)?;
    let state = match (reader.u8()?, reader.u64()?) {
        (0, 0) => State::Enabled,
        (1, 0) => State::Disabled,
        (2, due) => State::Pending(Timestamp::from_micros(due).map_err(|_| DecodeError::Invalid("due"))?),
        _ => return Err(DecodeError::Invalid("state")),
    };
    let key = reader.raw(KEY_LEN)?;
    let content = &bytes[..reader.consumed()];
    if reader.raw(DIGEST_LEN)? != Sha256::digest(content).as_slice() {
        return Err(DecodeError::Invalid("digest"));
    }
    reader.finish()?;
    Ok(StoredKey { created, state, key: Secret::init(|out| out.copy_from_slice(key)), by_grant })
}

fn key_file(id: LocalKeyId) -> String {
    format!("{id}.key")
}

fn next_file(id: LocalKeyId) -> String {
    format!("{id}.new")
}

fn gone_file(id: LocalKeyId) -> String {
    format!("{id}.gone")
}

fn owner_only() -> Mode {
    Mode::RUSR | Mode::WUSR
}

fn not_a_file() -> KmsError {
    KmsError::new(
        KmsErrorKind::Configuration,
        "a local key file is a link or no file: put the file itself there",
    )
}

fn failed(errno: Errno) -> KmsError {
    failed_io(errno.into())
}

fn failed_io(error: std::io::Error) -> KmsError {
    use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    let (kind, message) = match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotFound | Unsupported => (
            KmsErrorKind::Configuration,
            "the key directory cannot be used: this program must be able to read, write and lock files in it",
        ),
        _ => (KmsErrorKind::Unavailable, "the key directory cannot be read or written at the moment"),
    };
    KmsError::new(kind, message).with_source(error)
}

/// Reads a key file, under the id that it names, and writes it again: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    reader.version(MAGIC, VERSION_BY_GRANT).ok()?;
    let id = LocalKeyId::decode(&mut reader).ok()?;
    let stored = decode(bytes, id).ok()?;
    Some(encode(&stored, id).expose().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    const ID: LocalKeyId = LocalKeyId::from_bytes([7; 16]);

    fn at(days: u64) -> Timestamp {
        Timestamp::from_micros(days * 86_400_000_000).unwrap()
    }

    fn stored() -> StoredKey {
        let key = Secret::init(|key| key.fill(0xA5));
        StoredKey { created: at(20_000), state: State::Enabled, key, by_grant: false }
    }

    fn made(home: &Path) -> KeyDirectory {
        let directory = KeyDirectory::new(home.join("a/keys"));
        directory.create(ID, &stored()).unwrap();
        directory
    }

    fn due(directory: &KeyDirectory) {
        directory.change(ID, at(20_000), |_| Ok(State::Pending(at(20_007)))).unwrap();
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn assert_refused(directory: &KeyDirectory, saying: &str) {
        let error = directory.load(ID, at(20_000)).unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Configuration, "{error:?}");
        assert!(error.to_string().contains(saying), "{error}");
    }

    fn assert_gone(directory: &KeyDirectory) {
        let error = directory.load(ID, at(20_000)).unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::KeyDestroyed, "{error:?}");
    }

    #[test]
    fn only_the_owner_gets_in() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let file = directory.path.join(key_file(ID));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory.path), 0o700);
        assert_eq!(mode(directory.path.parent().unwrap()), 0o700);
        assert_eq!(mode(&file), 0o600);
        for wide in [0o755, 0o710, 0o701, 0o770] {
            set_mode(&directory.path, wide);
            assert_refused(&directory, "chmod 700");
            assert!(directory.check().is_err());
            let error = directory.create(LocalKeyId::from_bytes([8; 16]), &stored()).unwrap_err();
            assert_eq!(error.kind(), KmsErrorKind::Configuration);
        }
        set_mode(&directory.path, 0o700);
        for wide in [0o644, 0o640, 0o604, 0o620, 0o602] {
            set_mode(&file, wide);
            assert_refused(&directory, "chmod 600");
        }
        set_mode(&file, 0o400);
        directory.load(ID, at(20_000)).unwrap();
    }

    #[test]
    fn what_is_no_directory_or_no_file_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let plain = home.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        assert_refused(&KeyDirectory::new(plain), "name a directory");

        let directory = made(home.path());
        let file = directory.path.join(key_file(ID));
        std::fs::rename(&file, home.path().join("moved")).unwrap();
        std::os::unix::fs::symlink(home.path().join("moved"), &file).unwrap();
        assert_refused(&directory, "link");
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_refused(&directory, "no file");
    }

    #[test]
    fn another_users_directory_is_refused() {
        let root = rustix::process::geteuid().is_root();
        let home = tempfile::tempdir().unwrap();
        let theirs = if root {
            let directory = made(home.path());
            std::os::unix::fs::chown(&directory.path, Some(12345), None).unwrap();
            directory
        } else {
            KeyDirectory::new("/".into())
        };
        assert_refused(&theirs, "another user");
    }

    #[test]
    fn every_damaged_bit_is_seen() {
        let good = *encode(&stored(), ID).expose();
        assert!(decode(&good, ID).is_ok());
        for bit in 0..FILE_LEN * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, ID).is_err(), "bit {bit}");
        }
        for length in 0..FILE_LEN {
            assert!(decode(&good[..length], ID).is_err(), "{length} bytes");
        }
        assert_eq!(decode(&[&good[..], &[0]].concat(), ID).unwrap_err(), DecodeError::Trailing);
        assert!(decode(&good, LocalKeyId::from_bytes([8; 16])).is_err(), "another key's file");
    }

    #[test]
    fn a_state_has_one_encoding() {
        for (tag, due) in [(0, 1), (1, 1), (3, 0), (2, u64::MAX)] {
            let mut bytes = *encode(&stored(), ID).expose();
            bytes[34] = tag;
            bytes[35..43].copy_from_slice(&u64::to_be_bytes(due));
            let digest = Sha256::digest(&bytes[..75]);
            bytes[75..].copy_from_slice(&digest);
            assert!(decode(&bytes, ID).is_err(), "{tag} {due}");
        }
    }

    #[test]
    fn a_damaged_file_asks_for_a_backup_and_a_newer_one_for_an_upgrade() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let file = directory.path.join(key_file(ID));
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[50] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert_refused(&directory, "backup");
        bytes[8..10].copy_from_slice(&[3, !3]);
        std::fs::write(&file, &bytes).unwrap();
        assert_refused(&directory, "upgrade");
        // What cannot be read is not replaced.
        directory.change(ID, at(20_000), |_| Ok(State::Disabled)).unwrap_err();
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
    }

    #[test]
    fn a_key_that_takes_a_grant_stays_one() {
        let home = tempfile::tempdir().unwrap();
        let directory = KeyDirectory::new(home.path().join("keys"));
        directory.create(ID, &StoredKey { by_grant: true, ..stored() }).unwrap();
        let bytes = std::fs::read(directory.path.join(key_file(ID))).unwrap();
        assert_eq!(bytes[8..10], [2, !2], "a program that knows of no grants refuses it");
        directory.change(ID, at(20_000), |_| Ok(State::Disabled)).unwrap();
        directory.change(ID, at(20_000), |_| Ok(State::Enabled)).unwrap();
        assert!(directory.load(ID, at(20_000)).unwrap().by_grant);
    }

    #[test]
    fn a_key_is_not_created_over_another() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        assert!(directory.create(ID, &stored()).is_err());
        directory.load(ID, at(20_000)).unwrap();
    }

    #[test]
    fn the_old_copy_is_overwritten_unless_someone_linked_it() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let path = directory.path.join(key_file(ID));
        let held = File::open(&path).unwrap();
        directory.change(ID, at(20_000), |_| Ok(State::Disabled)).unwrap();
        let mut bytes = [1; FILE_LEN];
        held.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [0; FILE_LEN]);

        let backup = home.path().join("backup");
        std::fs::hard_link(&path, &backup).unwrap();
        directory.change(ID, at(20_000), |_| Ok(State::Enabled)).unwrap();
        assert!(decode(&std::fs::read(backup).unwrap(), ID).is_ok());
    }

    #[test]
    fn destruction_overwrites_and_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        due(&directory);
        let held = File::open(directory.path.join(key_file(ID))).unwrap();
        directory.load(ID, at(20_006)).unwrap();
        assert_eq!(directory.load(ID, at(20_007)).unwrap_err().kind(), KmsErrorKind::KeyDestroyed);
        let mut bytes = [1; FILE_LEN];
        held.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, [0; FILE_LEN]);
        assert_eq!(std::fs::read_dir(&directory.path).unwrap().count(), 1, "the lock alone");
        // It stays gone when the clock goes back.
        assert_gone(&directory);
    }

    /// Each state a stop can leave, as the comments in `put` and `destroy` say.
    #[test]
    fn whatever_was_left_half_done_is_finished() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let file = |name: String| directory.path.join(name);

        // In `put`, before the rename: whole or torn.
        for torn in [encode(&stored(), ID).expose().to_vec(), b"SR".to_vec()] {
            std::fs::write(file(next_file(ID)), torn).unwrap();
            let state = directory.load(ID, at(20_000)).unwrap().state;
            let next = if state == State::Enabled { State::Disabled } else { State::Enabled };
            directory.change(ID, at(20_000), |_| Ok(next)).unwrap();
            assert_eq!(directory.load(ID, at(20_000)).unwrap().state, next);
            assert!(!file(next_file(ID)).exists());
        }

        // In `destroy`, after the rename; and in `wipe`, after the overwriting.
        for left in [encode(&stored(), ID).expose().to_vec(), vec![0; FILE_LEN]] {
            std::fs::remove_file(file(key_file(ID))).unwrap();
            std::fs::write(file(next_file(ID)), &left).unwrap();
            std::fs::write(file(gone_file(ID)), &left).unwrap();
            assert_gone(&directory);
            assert!(!file(gone_file(ID)).exists() && !file(next_file(ID)).exists());
            directory.create(ID, &stored()).unwrap();
        }
    }

    #[test]
    fn a_lock_that_is_kept_ends_as_unavailable() {
        let home = tempfile::tempdir().unwrap();
        let directory = made(home.path());
        let entered = directory.enter().unwrap();
        let kept = entered.lock().unwrap();
        // Reading needs no lock.
        directory.load(ID, at(20_000)).unwrap();
        let error = directory.change(ID, at(20_000), |_| Ok(State::Disabled)).unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable);
        drop(kept);
        directory.change(ID, at(20_000), |_| Ok(State::Disabled)).unwrap();
    }
}
