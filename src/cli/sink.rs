//! Where the plaintext of a `get` goes: a file that appears when it is whole,
//! or standard output.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::exit::Exit;
use super::failure::Failure;
use crate::entropy::random;
use crate::system::SystemEntropy;

/// How many pieces wait to be written at most.
const AHEAD: usize = 2;

/// Plaintext on its way to a file or standard output, on a thread of its own.
pub(super) struct Sink {
    pieces: mpsc::Sender<Bytes>,
    writer: JoinHandle<io::Result<()>>,
    staged: Option<Staged>,
}

impl Sink {
    /// Standard output, past its buffer.
    pub(super) fn stdout() -> Result<Self, Failure> {
        let opened = io::stdout().as_fd().try_clone_to_owned();
        let file =
            File::from(opened.map_err(|error| Failure::create("failed to open standard output", &error))?);
        Ok(Self::over(file, false, None))
    }

    /// A new file at `path`, or with `replace`, one in the place of another.
    pub(super) fn file(path: &Path, replace: bool) -> Result<Self, Failure> {
        let (staged, file) = Staged::create(path, replace)?;
        Ok(Self::over(file, true, Some(staged)))
    }

    fn over(mut file: File, durable: bool, staged: Option<Staged>) -> Self {
        let (pieces, mut incoming) = mpsc::channel::<Bytes>(AHEAD);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(piece) = incoming.blocking_recv() {
                file.write_all(&piece)?;
            }
            if durable { file.sync_all() } else { Ok(()) }
        });
        Self { pieces, writer, staged }
    }

    /// Takes the next piece. A failure to write shows here or in [`Sink::finish`].
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<(), Failure> {
        if self.pieces.send(piece).await.is_ok() {
            return Ok(());
        }
        let error = match (&mut self.writer).await {
            Ok(Err(error)) => error,
            _ => io::Error::other("the writer ended"),
        };
        Err(unwritten(&error))
    }

    /// After the last piece. Only now is the file there.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        drop(self.pieces);
        let written = self.writer.await.unwrap_or_else(|_| Err(io::Error::other("the writer ended")));
        written.map_err(|error| unwritten(&error))?;
        self.staged.map_or(Ok(()), Staged::publish)
    }
}

fn unwritten(error: &io::Error) -> Failure {
    Failure::output("failed to write the output", error)
}

/// A file under another name beside its target, which is removed unless it is
/// published.
struct Staged {
    path: PathBuf,
    target: PathBuf,
    replace: bool,
    published: bool,
}

impl Staged {
    fn create(path: &Path, replace: bool) -> Result<(Self, File), Failure> {
        let cannot = |error: io::Error| Failure::create("failed to make the output file", &error);
        // What a link leads to is replaced, not the link.
        let target = match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(cannot(error)),
            Ok(_) if !replace => return Err(exists()),
            Ok(_) => fs::canonicalize(path).map_err(cannot)?,
        };
        if fs::metadata(&target).is_ok_and(|found| !found.is_file()) {
            let message = "the output is there and is not a regular file";
            return Err(Failure::new(Exit::CannotCreate, "output", message)
                .hint("for a pipe or a device, use `-o -` and redirect standard output"));
        }
        let random: [u8; 8] =
            random(&SystemEntropy).map_err(|error| Failure::from(crate::Error::from(error)))?;
        let name = format!(".strongroom-{:016x}.part", u64::from_be_bytes(random));
        let path = directory(&target).join(name);
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(cannot)?;
        Ok((Self { path, target, replace, published: false }, file))
    }

    /// Gives it its name, for good.
    fn publish(mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::output("failed to give the output file its name", &error);
        match self.replace {
            true => fs::rename(&self.path, &self.target).map_err(failed)?,
            false => match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
                Ok(()) => {}
                Err(Errno::EXIST) => return Err(exists()),
                // Not every file system can do that; a link never replaces either.
                Err(_) => match fs::hard_link(&self.path, &self.target) {
                    Ok(()) => fs::remove_file(&self.path).map_err(failed)?,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(exists()),
                    Err(error) => return Err(failed(error)),
                },
            },
        }
        self.published = true;
        // If we stop here, a power failure may undo the name, and not the file.
        File::open(directory(&self.target)).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn exists() -> Failure {
    Failure::new(Exit::CannotCreate, "output", "the output file exists already").hint("--force replaces it")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn a_file_appears_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let mut sink = Sink::file(&path, false).ok().unwrap();
        sink.write(Bytes::from_static(b"secret")).await.ok().unwrap();
        assert!(!path.exists());
        sink.finish().await.ok().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(names(dir.path()), ["out"]);

        assert_eq!(Sink::file(&path, false).err().unwrap().exit(), Exit::CannotCreate);
        let mut sink = Sink::file(&path, true).ok().unwrap();
        sink.write(Bytes::from_static(b"new")).await.ok().unwrap();
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(names(dir.path()), ["out"]);
        Sink::file(&path, true).ok().unwrap().finish().await.ok().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[tokio::test]
    async fn whoever_comes_first_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let sink = Sink::file(&path, false).ok().unwrap();
        fs::write(&path, "another").unwrap();
        assert_eq!(sink.finish().await.err().unwrap().exit(), Exit::CannotCreate);
        assert_eq!(fs::read(&path).unwrap(), b"another");
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[tokio::test]
    async fn links_are_followed_and_devices_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("out"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(Sink::file(&link, false).is_err());
        Sink::file(&link, true).ok().unwrap().finish().await.ok().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&path).unwrap(), b"");
        for device in ["/dev/null", "/"] {
            assert_eq!(
                Sink::file(Path::new(device), true).err().unwrap().exit(),
                Exit::CannotCreate,
                "{device}"
            );
        }
        assert_eq!(
            Sink::file(&dir.path().join("no/such/out"), false).err().unwrap().exit(),
            Exit::CannotCreate
        );
    }
}
