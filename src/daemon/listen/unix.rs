//! A Unix socket in the file system.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::HEXLOWER;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::entropy::Entropy;
use crate::error::{Error, ErrorKind, Result};
use crate::system::SystemEntropy;

/// Its owner and its group may connect.
const MODE: u32 = 0o660;

/// How long somebody who listens there already may take to show it.
const ANSWER: Duration = Duration::from_secs(1);

/// A socket that is listened on, and its file, if it is ours.
pub(super) struct UnixSocket {
    listener: UnixListener,
    _file: Option<SocketFile>,
}

impl UnixSocket {
    /// Listens at `path`.
    ///
    /// Bound in a directory that is ours alone, given its mode there, and then moved to its
    /// place: at no moment can somebody connect whom the mode would not let, whatever the
    /// umask, which is of the whole process and is not to be changed with threads around.
    pub(super) async fn bind(path: &Path) -> Result<Self> {
        make_way(path).await?;
        Self::bind_beside(path).map_err(|error| {
            Error::new(ErrorKind::Configuration, "the Unix socket cannot be made").with_source(error)
        })
    }

    /// One that was handed over, whose file is not ours.
    pub(super) fn handed_over(listener: UnixListener) -> Self {
        Self { listener, _file: None }
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    fn bind_beside(path: &Path) -> io::Result<Self> {
        let mut suffix = [0; 4];
        SystemEntropy.fill(&mut suffix).map_err(io::Error::other)?;
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", HEXLOWER.encode(&suffix)));
        let directory = path.with_file_name(hidden);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let inside = directory.join("s");
        let bound = UnixListener::bind(&inside).and_then(|listener| {
            std::fs::set_permissions(&inside, Permissions::from_mode(MODE))?;
            let metadata = inside.symlink_metadata()?;
            // If we stop here, a directory is left that is in nobody's way.
            // Of two who start at the same moment the later one has the path.
            std::fs::rename(&inside, path)?;
            let file = SocketFile { path: path.to_owned(), id: (metadata.dev(), metadata.ino()) };
            Ok(Self { listener, _file: Some(file) })
        });
        if bound.is_err() {
            let _ = std::fs::remove_file(&inside);
        }
        let _ = std::fs::remove_dir(&directory);
        bound
    }
}

/// Sees to it that nobody is at `path`. A socket that was left there stays until ours takes
/// its place.
async fn make_way(path: &Path) -> Result<()> {
    let taken = |message| Error::new(ErrorKind::AlreadyExists, message);
    let unusable = |error: io::Error| {
        Error::new(ErrorKind::Configuration, "the place of the Unix socket cannot be used").with_source(error)
    };
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unusable(error)),
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Err(taken("there is something else than a socket in the place of the Unix socket")),
    }
    match timeout(ANSWER, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(unusable(error)),
        // Connected, or too busy to.
        _ => Err(taken("another process answers on the Unix socket: end it first")),
    }
}

/// The file of a socket, taken away at the end if it still is that socket's.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = self.path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
        if found == Some(self.id) {
            // One that is left behind is in nobody's way.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_socket_is_for_owner_and_group_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = UnixSocket::bind(&path).await.unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o660);
        assert_eq!(names(directory.path()), ["socket"]);
        let (accepted, connected) = tokio::join!(socket.accept(), UnixStream::connect(&path));
        assert!(accepted.is_ok() && connected.is_ok());
        drop(socket);
        assert!(names(directory.path()).is_empty());
    }

    #[tokio::test]
    async fn one_that_was_left_is_replaced_and_one_that_answers_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let first = UnixSocket::bind(&path).await.unwrap();
        let error = UnixSocket::bind(&path).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(UnixStream::connect(&path).await.is_ok(), "the first one goes on");
        drop(first);
        assert!(UnixSocket::bind(&path).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "kept").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for taken in [&path, &link] {
            assert_eq!(UnixSocket::bind(taken).await.err().unwrap().kind(), ErrorKind::AlreadyExists);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
        let nowhere = directory.path().join("none/socket");
        assert_eq!(UnixSocket::bind(&nowhere).await.err().unwrap().kind(), ErrorKind::Configuration);
    }

    #[tokio::test]
    async fn the_file_of_a_successor_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let first = UnixSocket::bind(&path).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = UnixSocket::bind(&path).await.unwrap();
        drop(first);
        assert!(UnixStream::connect(&path).await.is_ok());
    }
}
