//! What killed programs leave in a local store.
//!
//! A file is written as `<name>#<number>` beside its target and then renamed or
//! linked to it; listings do not show it. A program that is killed in between
//! leaves it behind, and nothing else ever removes it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::store_error;
use crate::error::{Error, Result};
use crate::time::Timestamp;

/// How long a staging file must have been left alone: no write of a living
/// program pauses for as long.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(24 * 3600);

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files removed.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
}

/// Removes the staging files below `dir` that were not modified for
/// [`ABANDONED_AFTER`] before `now`. It follows no symbolic link, and blocks.
///
/// # Errors
/// Those of [`store_error`], for a directory or file other than one that vanished meanwhile.
pub fn sweep_staging(dir: &Path, now: Timestamp) -> Result<Swept> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_micros(now.micros());
    let mut swept = Swept::default();
    sweep(dir, now, &mut swept).map_err(failed)?;
    Ok(swept)
}

fn failed(error: io::Error) -> Error {
    let error = object_store::Error::Generic { store: "storage", source: Box::new(error) };
    store_error(error, "remove what unfinished writes left")
}

fn sweep(dir: &Path, now: SystemTime, swept: &mut Swept) -> io::Result<()> {
    let Some(entries) = unless_gone(fs::read_dir(dir))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sweep(&entry.path(), now, swept)?;
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(is_staging) {
            let Some(meta) = unless_gone(entry.metadata())? else { continue };
            // A time in the future is a clock in doubt: leave the file.
            let idle = now.duration_since(meta.modified()?).unwrap_or_default();
            if idle >= ABANDONED_AFTER && unless_gone(fs::remove_file(entry.path()))?.is_some() {
                swept.files += 1;
                swept.bytes += meta.len();
            }
        }
    }
    Ok(())
}

/// `<name>#<digits>`, which no object can be called.
fn is_staging(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(name, number)| {
        !name.is_empty() && !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit())
    })
}

/// Other sweepers and finished writes take files away under our feet.
pub(super) fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_staging_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("blob/customer");
        fs::create_dir_all(&deep).unwrap();
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let make = |name: &str, age: u64| {
            let file = fs::File::create(deep.join(name)).unwrap();
            file.set_len(10).unwrap();
            file.set_modified(written - Duration::from_secs(age)).unwrap();
        };
        let day = ABANDONED_AFTER.as_secs();
        make("blob#1", day);
        make("blob#22", day + 5);
        make("young#1", day - 1);
        make("future#1", 0);
        make("blob", day * 9);
        make("#1", day * 9);
        make("blob#", day * 9);
        make("blob#1x", day * 9);
        fs::create_dir(deep.join("dir#1")).unwrap();
        std::os::unix::fs::symlink(deep.join("blob"), deep.join("link#1")).unwrap();

        let now = Timestamp::from_micros(1_800_000_000_000_000).unwrap();
        assert_eq!(sweep_staging(dir.path(), now).unwrap(), Swept { files: 2, bytes: 20 });
        let mut left: Vec<_> = fs::read_dir(&deep).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let expected = ["#1", "blob", "blob#", "blob#1x", "dir#1", "future#1", "link#1", "young#1"];
        assert_eq!(left, expected);
        assert_eq!(sweep_staging(&dir.path().join("gone"), now).unwrap(), Swept::default());
    }
}
