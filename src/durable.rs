//! Small files that are there whole, or not at all.
//!
//! Separate from the storages, which hold a store: what is written here is for an operator,
//! on a file system, and nothing of a store depends on it.
//!
//! Invariant: under its own name a file is whole, and after [`write()`] has returned it outlives
//! a power failure.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Writes a file of mode 0600, in the place of another of its name. It blocks.
///
/// # Errors
/// Those of the file system. Then the file is as it was.
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
}
