//! The calls by which objects get onto a disk, one by one.
//!
//! Separate so that tests can let each of them fail, and see what of it a power failure leaves.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// A file system that is written to.
///
/// # Contract
/// Each method is the call of its name on a POSIX file system, and may fail as that may: with or
/// without an effect. What a force failed to write may count as written for the next one.
pub trait Disk: fmt::Debug + Send + Sync + 'static {
    /// Creates a file that is not there yet, to be read and written.
    ///
    /// # Errors
    /// Those of the file system.
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create_new(true).open(path)
    }

    /// Writes some of the bytes, and says how many.
    ///
    /// # Errors
    /// Those of the file system.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    /// Forces the bytes of a file to the disk (`fsync`).
    ///
    /// # Errors
    /// Those of the file system.
    fn force_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    /// Forces the names in a directory to the disk (`fsync`).
    ///
    /// # Errors
    /// Those of the file system.
    fn force_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    /// Gives a file one more name, unless that is taken.
    ///
    /// # Errors
    /// Those of the file system.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    /// Gives a file another name, and takes that from the file that had it.
    ///
    /// # Errors
    /// Those of the file system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// Takes a name from a file.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    /// Makes a directory that is not there yet.
    ///
    /// # Errors
    /// Those of the file system.
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// Those of the file system.
    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

/// The operating system's.
#[derive(Clone, Copy, Debug)]
pub struct SystemDisk;

impl Disk for SystemDisk {}
