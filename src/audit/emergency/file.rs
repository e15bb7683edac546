//! The files of a sink: made, synchronised, read again, renamed.
//!
//! Separate from what the lines say, so that every durable step is on one page. All of it
//! blocks.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::lines::{Decoded, End, Entry, decode, encode};
use crate::durable;
use crate::error::{Error, ErrorKind, Result};
use crate::id::EmergencyId;
use crate::merkle::Hash;

/// Behind the name of a file that is in the log.
const FOLDED: &str = ".folded";

/// Makes the directory if need be, and locks it.
pub(super) fn prepare(directory: &Path) -> Result<File> {
    let unusable = |error: io::Error| {
        Error::new(ErrorKind::Configuration, "the directory for emergencies cannot be used")
            .with_source(error)
    };
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => {
            made.map_err(unusable)?;
            // If we stop before this, the directory may be gone after a crash, and with it
            // nothing: no emergency was in it.
            sync_directory(directory.parent().unwrap_or(directory)).map_err(unusable)?;
        }
    }
    if fs::metadata(directory).map_err(unusable)?.permissions().mode() & 0o077 != 0 {
        let message =
            "the directory for emergencies is open to others than its owner: its mode has to be 0700";
        return Err(Error::new(ErrorKind::Configuration, message));
    }
    let path = directory.join("lock");
    let opened = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path);
    let lock = opened.map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let message = "another program has the directory for emergencies: it folds what is in it";
            Err(Error::new(ErrorKind::Configuration, message))
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

/// The emergencies whose files were not renamed.
pub(super) fn unfolded(directory: &Path) -> Result<Vec<EmergencyId>> {
    let names = || -> io::Result<Vec<EmergencyId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            // Whatever else lies there is not ours.
            found.extend(entry?.file_name().to_str().and_then(|name| name.parse::<EmergencyId>().ok()));
        }
        Ok(found)
    };
    names().map_err(unreadable)
}

/// Renames the file of an emergency that is in the log.
pub(super) fn rename_folded(directory: &Path, id: EmergencyId) -> Result<()> {
    let rename = || {
        fs::rename(path(directory, id), directory.join(format!("{id}{FOLDED}")))?;
        // If we stop before this, it may have its old name after a crash, and is folded once
        // more, which finds all of it in the log.
        sync_directory(directory)
    };
    rename().map_err(|error| {
        Error::new(ErrorKind::Io, "an emergency is in the log and its file could not be renamed")
            .with_source(error)
    })
}

/// The longest file that is written to, in bytes: some 200,000 operations.
const MAX_LEN: u64 = 128 << 20;

/// One emergency's file. It is written at its end only.
#[derive(Debug)]
pub(super) struct SinkFile {
    file: File,
    path: PathBuf,
    sum: Hash,
    /// What a crash left behind the last line.
    torn: Option<Hash>,
    /// Whether nothing more may be written.
    closed: bool,
}

impl SinkFile {
    /// Makes the file, with its first line. Both are on disk when this returns.
    pub(super) fn create(directory: &Path, id: EmergencyId, first: &Entry) -> Result<Self> {
        let path = path(directory, id);
        let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(unwritable)?;
        let mut made = Self { file, path, sum: Hash::ZERO, torn: None, closed: false };
        made.append(std::slice::from_ref(first))?;
        sync_directory(directory).map_err(unwritable)?;
        Ok(made)
    }

    /// Opens a file that is there.
    pub(super) fn open(directory: &Path, id: EmergencyId) -> Result<(Self, Decoded)> {
        let path = path(directory, id);
        let file = OpenOptions::new().append(true).open(&path).map_err(unreadable)?;
        let mut found = Self { file, path, sum: Hash::ZERO, torn: None, closed: false };
        let decoded = found.read()?;
        found.sum = decoded.sum;
        match decoded.end {
            End::Whole => {}
            End::Torn(torn) => found.torn = Some(torn),
            // What is written behind it could not be told from what it hides.
            End::Damaged => found.closed = true,
        }
        Ok((found, decoded))
    }

    /// Writes lines. They are on disk when this returns; where it fails, nothing more is
    /// written to this file, as nobody knows what stands at its end.
    pub(super) fn append(&mut self, entries: &[Entry]) -> Result<()> {
        if self.closed {
            let message = "the emergency's file takes no more records";
            return Err(Error::new(ErrorKind::AuditUnavailable, message));
        }
        // What has no name any more would be written, and be gone with this program.
        if self.file.metadata().map_err(unwritable)?.nlink() == 0 {
            self.closed = true;
            return Err(Error::new(ErrorKind::AuditUnavailable, "the emergency's file was removed"));
        }
        if self.file.metadata().map_err(unwritable)?.len() > MAX_LEN {
            self.closed = true;
            let message = "the emergency's file is full: declare another emergency";
            return Err(Error::new(ErrorKind::AuditUnavailable, message));
        }
        let (mut bytes, mut sum) = (Vec::new(), self.sum);
        if let Some(torn) = self.torn {
            let (line, behind) = encode(&[Entry::Resumed { torn }], sum);
            bytes.push(b'\n');
            bytes.extend(line);
            sum = behind;
        }
        let (lines, sum) = encode(entries, sum);
        bytes.extend(lines);
        self.closed = true;
        // If we stop within, or before it is synchronised, the end is torn, or whole and
        // nobody was answered: then no key was used for it.
        self.file.write_all(&bytes).and_then(|()| self.file.sync_all()).map_err(unwritable)?;
        (self.closed, self.sum, self.torn) = (false, sum, None);
        Ok(())
    }

    /// Reads it from its beginning.
    pub(super) fn read(&self) -> Result<Decoded> {
        // What is written at once behind the longest that is written to.
        Ok(decode(&durable::read(&self.path, 2 * MAX_LEN).map_err(unreadable)?))
    }

    /// Lets nothing more be written.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

fn path(directory: &Path, id: EmergencyId) -> PathBuf {
    directory.join(id.to_string())
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn unwritable(error: io::Error) -> Error {
    let message = "the emergency's file cannot be written";
    Error::new(ErrorKind::AuditUnavailable, message).with_source(error)
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::Io, "the files of emergencies cannot be read").with_source(error)
}
