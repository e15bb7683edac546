//! The files of a witness's state, and what happens if we stop half way.
//!
//! Separate from what they mean. The table of them is in the module above.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
#[cfg(test)]
use std::sync::Mutex;

use data_encoding::HEXLOWER;
use rustix::fs::{CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

#[cfg(test)]
use super::locked;
use super::log_name;
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::Hash;
use crate::tlog::VerifierKey;
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::witness::AddCheckpoint;

pub(super) const INDEX: &str = "index";
const FIRST_LINE: &str = "strongroom witness 1";

/// The longest file that is read, in bytes: an index of some 16000 logs.
const MAX_FILE_LEN: u64 = 1 << 20;

/// The directory.
#[derive(Debug)]
pub(super) struct Files {
    directory: OwnedFd,
    /// Where to fail as if the program had been killed there.
    #[cfg(test)]
    pub(super) stop_at: Mutex<Option<usize>>,
}

impl Files {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => no_state(),
            errno => failed(errno),
        })?;
        let stat = rustix::fs::fstat(&directory).map_err(failed)?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw();
        if !ours || Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH) {
            let message = "the directory of the state belongs to another user, or others may write to it";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        Ok(Self {
            directory,
            #[cfg(test)]
            stop_at: Mutex::new(None),
        })
    }

    /// Held for as long as the directory is; the kernel lets go of it when we die.
    pub(super) fn lock(&self) -> Result<()> {
        rustix::fs::flock(&self.directory, FlockOperation::NonBlockingLockExclusive).map_err(|errno| {
            match errno {
                Errno::WOULDBLOCK => Error::new(ErrorKind::Conflict, "another process works with this state"),
                errno => failed(errno),
            }
        })
    }

    pub(super) fn names(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
        names.remove(".");
        names.remove("..");
        Ok(names)
    }

    pub(super) fn checkpoints(&self) -> Result<BTreeSet<Hash>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| hash_from_hex(name.strip_suffix(".checkpoint")?)).collect())
    }

    /// The witness's key, and the logs that it has cosigned.
    pub(super) fn index(&self) -> Result<(VerifierKey, BTreeSet<Hash>)> {
        let Some(text) = self.read(INDEX)? else {
            // With an index gone, all that is known is that something was there.
            return Err(if self.names()?.is_empty() { no_state() } else { damaged() });
        };
        let mut lines = text.strip_suffix('\n').ok_or_else(damaged)?.split('\n');
        if lines.next() != Some(FIRST_LINE) {
            let message = "the state is not a witness's, or a newer program's";
            return Err(Error::new(ErrorKind::UnsupportedFormat, message));
        }
        let witness = lines.next().and_then(|line| line.parse().ok()).ok_or_else(damaged)?;
        let index = lines.map(hash_from_hex).collect::<Option<_>>().ok_or_else(damaged)?;
        if index_text(&witness, &index) == text { Ok((witness, index)) } else { Err(damaged()) }
    }

    /// The checkpoint of a log that has one.
    pub(super) fn checkpoint(&self, name: Hash, witness: &VerifierKey) -> Result<SignedCheckpoint> {
        let text = self.read(&checkpoint_name(name))?.ok_or_else(damaged)?;
        let note = SignedCheckpoint::parse(text.as_bytes()).map_err(|error| damaged().with_source(error))?;
        let cosigned = note.cosigned_by(witness).map_err(|error| damaged().with_source(error))?;
        let whole = cosigned.is_some() && log_name(note.checkpoint().origin()) == name;
        if whole { Ok(note) } else { Err(damaged()) }
    }

    /// Keeps a request that was refused beside what was cosigned, unless there is such a
    /// file: the first one is not written over by whoever makes more of them.
    pub(super) fn keep(&self, name: &str, last: &SignedCheckpoint, request: &AddCheckpoint) -> Result<()> {
        if self.names()?.contains(name) {
            return Ok(());
        }
        self.replace(name, &format!("{last}\n{request}")).map_err(|(error, _)| error)
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        File::from(file).take(MAX_FILE_LEN).read_to_end(&mut bytes).map_err(failed)?;
        String::from_utf8(bytes).map(Some).map_err(|_| damaged())
    }

    /// Puts a file in the place of another, durably. An error says whether the other
    /// may be gone.
    pub(super) fn replace(&self, name: &str, text: &str) -> Result<(), (Error, bool)> {
        let new = new_name(name);
        self.write(&new, text).map_err(|error| (error, false))?;
        // If we stop here, the new file lies beside the old one, which counts. The next
        // one that is written takes its place.
        self.may_stop().map_err(|error| (error, false))?;

        rustix::fs::renameat(&self.directory, &new, &self.directory, name)
            .map_err(|errno| (failed(errno), true))?;
        // If the machine stops here, the file is the old one or the new one, and whole.
        self.may_stop().map_err(|error| (error, true))?;

        rustix::fs::fsync(&self.directory).map_err(|errno| (failed(errno), true))?;
        // The change is durable.
        self.may_stop().map_err(|error| (error, true))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
        let file = rustix::fs::openat(&self.directory, name, flags, mode).map_err(failed)?;
        let mut file = File::from(file);
        let (half, rest) = text.as_bytes().split_at(text.len() / 2);
        file.write_all(half).map_err(failed)?;
        // If we stop here, half a file lies beside the old one. Nobody reads it.
        self.may_stop()?;
        file.write_all(rest).map_err(failed)?;
        file.sync_all().map_err(failed)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests stop here")]
    fn may_stop(&self) -> Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn may_stop(&self) -> Result<()> {
        let mut stop_at = locked(&self.stop_at);
        match stop_at.as_mut() {
            None => Ok(()),
            Some(0) => Err(Error::new(ErrorKind::Io, "killed")),
            Some(steps) => {
                *steps -= 1;
                Ok(())
            }
        }
    }
}

pub(super) fn index_text(witness: &VerifierKey, logs: &BTreeSet<Hash>) -> String {
    let mut text = format!("{FIRST_LINE}\n{witness}\n");
    logs.iter().for_each(|name| text.push_str(&format!("{name}\n")));
    text
}

fn hash_from_hex(text: &str) -> Option<Hash> {
    Some(Hash::from_bytes(HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()?))
}

pub(super) fn checkpoint_name(name: Hash) -> String {
    format!("{name}.checkpoint")
}

pub(super) fn evidence_name(name: Hash) -> String {
    format!("{name}.evidence")
}

pub(super) fn unproven_name(name: Hash) -> String {
    format!("{name}.unproven")
}

pub(super) fn new_name(name: &str) -> String {
    format!("{name}.new")
}

/// Makes the directory, unless there is one, in one that is there.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    match rustix::fs::mkdir(path, Mode::RWXU) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(CWD, above, flags, Mode::empty()).map_err(failed)?;
    rustix::fs::fsync(above).map_err(failed)
}

fn no_state() -> Error {
    Error::new(ErrorKind::NotFound, "there is no witness's state in this directory")
}

pub(super) fn damaged() -> Error {
    let message = "a part of the witness's state is damaged or missing: nothing is cosigned on a guess";
    Error::new(ErrorKind::Integrity, message)
}

fn failed(error: impl Into<std::io::Error>) -> Error {
    use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    let error = error.into();
    let kind = match error.kind() {
        PermissionDenied | ReadOnlyFilesystem | NotFound | NotADirectory => ErrorKind::Configuration,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "the witness's state cannot be read or written").with_source(error)
}
