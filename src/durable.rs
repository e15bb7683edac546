//! Small files that are there whole, or not at all, and are read whole, or not at all.
//!
//! Separate from the storages, which hold a store: what is written here is for an operator,
//! on a file system, and nothing of a store depends on it.
//!
//! Invariants: under its own name a file is whole, and after [`write()`] has returned it outlives
//! a power failure. [`read()`] takes no more memory than the longest file of its kind, whatever the
//! path leads to.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file of mode 0600, in the place of another of its name. It blocks.
///
/// # Errors
/// Those of the file system. Then the file is as it was, or whole and the new one: write it again, so
/// that it outlives a power failure.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut staged = name.to_owned();
    staged.push(format!(".{}.part", std::process::id()));
    let staged = Removed(directory(path).join(staged));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&staged.0)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // If we stop here, a part lies beside the file. Nobody reads it.
    fs::rename(&staged.0, path)?;
    sync(directory(path))
}

/// Reads a file of at most `most` bytes. It blocks.
///
/// # Errors
/// Those of the file system, and [`io::ErrorKind::FileTooLarge`] for a longer one, also for one that
/// says that it is short (a pipe, a device).
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than there can be, so that what is longer is seen.
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match u64::try_from(bytes.len()) {
        Ok(length) if length <= most => Ok(bytes),
        _ => {
            let sentence = format!("it is longer than such a file can be, {most} bytes");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, sentence))
        }
    }
}

/// Makes the names in a directory durable. It blocks.
///
/// # Errors
/// Those of the file system.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a file is in.
#[must_use]
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A file that is removed, unless it has another name by then.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        for text in ["one", "two"] {
            write(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(write(&dir.path().join("no/such/directory"), b"x").is_err());
        // What cannot be replaced leaves no part behind.
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write(&dir.path().join("taken"), b"x").is_err());
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["report.json", "taken"]);
        assert_eq!(directory(Path::new("x")), Path::new("."));
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "1234").unwrap();
        assert_eq!(read(&path, 4).unwrap(), b"1234");
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // Two terabytes that nobody wrote, and what has no end.
        File::create(&path).unwrap().set_len(2 << 40).unwrap();
        for path in [&path, Path::new("/dev/zero")] {
            let error = read(path, 1 << 10).unwrap_err();
            assert!(error.to_string().contains("1024 bytes"), "{error}");
        }
    }
}
