//! Alarms that were not delivered, on a disk: a file each, `<alarm id>.json`.
//!
//! Separate from the sending, and blocking. What is in the directory is a daemon's own: another
//! one has another directory.
//!
//! Who may corrupt it: whoever may write to it can take alarms away, or put some in. A file that
//! is no alarm is left where it is.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{Alarm, MAX_WAITING};
use crate::error::{Error, ErrorKind, Result};
use crate::id::AlarmId;

/// The longest file that is read, in bytes.
const MAX_LEN: u64 = 4096;

/// The directory, for as long as this daemon lives.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    /// Locked; the kernel lets go of it when we die.
    _lock: File,
}

impl Spool {
    /// Makes the directory, or takes up the one that is there.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
        let lock = File::open(directory).map_err(unusable)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let message = "the directory of undelivered alarms is another daemon's: give each its own";
            Error::new(ErrorKind::Configuration, message)
        })?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// What was not delivered, oldest first.
    pub(super) fn read(&self) -> io::Result<Vec<Alarm>> {
        let mut alarms = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse::<AlarmId>().ok());
            let alarm = id.and_then(|id| self.one(id));
            alarms.extend(alarm);
        }
        alarms.sort_by_key(|alarm| (alarm.at, alarm.id));
        alarms.truncate(MAX_WAITING);
        Ok(alarms)
    }

    fn one(&self, id: AlarmId) -> Option<Alarm> {
        let mut text = String::new();
        File::open(self.path(id)).ok()?.take(MAX_LEN).read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok().filter(|alarm: &Alarm| alarm.id == id)
    }

    pub(super) fn put(&self, alarm: &Alarm) -> io::Result<()> {
        crate::durable::write(&self.path(alarm.id), &super::webhook::text(alarm))
    }

    /// Forgets one that was delivered. If it comes back after a crash, it is sent again, under
    /// the same id.
    pub(super) fn remove(&self, id: AlarmId) -> io::Result<()> {
        fs::remove_file(self.path(id))
    }

    fn path(&self, id: AlarmId) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }
}

fn unusable(error: io::Error) -> Error {
    let message = "the directory of undelivered alarms cannot be made or used";
    Error::new(ErrorKind::Configuration, message).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::super::AlarmKind;
    use super::*;
    use crate::id::StoreId;
    use crate::time::Timestamp;

    fn alarm(number: u8) -> Alarm {
        Alarm {
            id: AlarmId::from_bytes([number; 16]),
            kind: AlarmKind::KeyState,
            store: StoreId::from_bytes([1; 16]),
            customer: None,
            request: None,
            at: Timestamp::from_micros(u64::from(u8::MAX - number)).unwrap(),
        }
    }

    #[test]
    fn what_was_put_is_there_for_the_next_daemon_and_for_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/alarms");
        let spool = Spool::open(&path).unwrap();
        for number in 1..=3 {
            spool.put(&alarm(number)).unwrap();
        }
        spool.remove(alarm(2).id).unwrap();
        assert_eq!(Spool::open(&path).unwrap_err().kind(), ErrorKind::Configuration);
        drop(spool);
        // What is none is left, and in nobody's way.
        fs::write(path.join("x.json"), "{}").unwrap();
        fs::copy(path.join(format!("{}.json", alarm(1).id)), path.join(format!("{}.json", alarm(9).id)))
            .unwrap();
        let spool = Spool::open(&path).unwrap();
        assert_eq!(spool.read().unwrap(), [alarm(3), alarm(1)]);
        assert!(path.join("x.json").exists());
    }
}
