//! Where the plaintext of a `put` comes from: a file, standard input, or a
//! program that we run.
//!
//! The end of a pipe says nothing about whether its writer was done. So each
//! input is checked as far as it can be before its end is believed: a file must
//! be as long as it was said to be, and unchanged; a program must have ended with exit
//! code 0; and a length that was promised must come. Else the reader fails, and
//! what fails is never visible.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use indicatif::ProgressBar;

use super::exit::Exit;
use super::failure::Failure;
use crate::client::Replay;

/// An input that is checked at its end.
pub(super) struct Input {
    from: From,
    /// How long it must be.
    expected: Option<u64>,
    read: u64,
    progress: ProgressBar,
}

enum From {
    /// A regular file, when it was last changed, and where reading it began.
    File(File, SystemTime, u64),
    /// A pipe, a device, a socket.
    Stream(File),
    Program(ChildStdout, Running),
}

impl Input {
    /// A file. Blocks, if it is a pipe that nobody writes to yet.
    pub(super) fn file(path: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::input("failed to open the input file", &error);
        Self::of(File::open(path).map_err(failed)?, 0).map_err(failed)
    }

    /// Standard input, past its buffer.
    pub(super) fn stdin() -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::input("failed to read standard input", &error);
        let file = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
        // Whoever redirected a file may have read some of it.
        let position = rustix::fs::tell(&file).unwrap_or(0);
        Self::of(file, position).map_err(failed)
    }

    fn of(file: File, position: u64) -> io::Result<Self> {
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let (from, expected) = match meta.is_file() {
            true => (From::File(file, meta.modified()?, position), Some(meta.len().saturating_sub(position))),
            false => (From::Stream(file), None),
        };
        Ok(Self { from, expected, read: 0, progress: ProgressBar::hidden() })
    }

    /// What a program prints. It has our standard input and error.
    pub(super) fn program(command: &[OsString]) -> Result<(Self, Running), Failure> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| Failure::usage("--exec needs a program behind --"))?;
        let spawned = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| Failure::input("failed to run the program", &error))?;
        let output = child.stdout.take().expect("it was asked for");
        let running = Running(Arc::new(Mutex::new(child)));
        let from = From::Program(output, Running(Arc::clone(&running.0)));
        Ok((Self { from, expected: None, read: 0, progress: ProgressBar::hidden() }, running))
    }

    /// The same input, which must have this many bytes.
    pub(super) fn expect(mut self, bytes: Option<u64>) -> Result<Self, Failure> {
        match (self.expected, bytes) {
            (Some(found), Some(wanted)) if found != wanted => {
                let message = format!("the length of the input in bytes is {found}, not {wanted}");
                return Err(Failure::new(Exit::Io, "io", message));
            }
            _ => self.expected = self.expected.or(bytes),
        }
        Ok(self)
    }

    /// How long it must be, where that is known.
    pub(super) fn expected(&self) -> Option<u64> {
        self.expected
    }

    /// The same input, which shows how far it was read.
    pub(super) fn with_progress(mut self, progress: ProgressBar) -> Self {
        self.progress = progress;
        self
    }

    /// After some bytes, or none at the end.
    fn count(&mut self, bytes: usize) -> io::Result<usize> {
        self.read += u64::try_from(bytes).expect("a buffer fits in memory");
        self.progress.set_position(self.read);
        let read = self.read;
        match self.expected {
            Some(expected) if read > expected => {
                let sentence = match self.from {
                    From::File(..) => "the file grew while it was read".to_owned(),
                    _ => format!("the input has more than the {expected} bytes that were expected"),
                };
                return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
            }
            Some(expected) if bytes == 0 && read < expected => {
                let sentence = format!("the input ended after {read} of {expected} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
            }
            _ => {}
        }
        if bytes == 0 {
            self.progress.finish_and_clear();
            self.end()?;
        }
        Ok(bytes)
    }

    /// Whether the end can be believed.
    fn end(&self) -> io::Result<()> {
        match &self.from {
            From::File(file, modified, _) => match file.metadata()?.modified()? == *modified {
                true => Ok(()),
                false => {
                    Err(io::Error::new(io::ErrorKind::InvalidData, "the file was changed while it was read"))
                }
            },
            From::Stream(_) => Ok(()),
            From::Program(_, running) => running.wait(),
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buffer)])
    }

    /// As [`Read::read`]; an empty buffer would count as the end, and none is given.
    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let bytes = match &mut self.from {
            From::File(file, ..) | From::Stream(file) => file.read_vectored(buffers)?,
            From::Program(output, _) => output.read_vectored(buffers)?,
        };
        self.count(bytes)
    }
}

impl Replay for Input {
    fn can_rewind(&self) -> bool {
        matches!(self.from, From::File(..))
    }

    fn rewind(&mut self) -> io::Result<()> {
        let From::File(file, _, began) = &mut self.from else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        file.seek(SeekFrom::Start(*began))?;
        self.read = 0;
        Ok(())
    }
}

/// A program that we run. Dropped before it ended, it is told to end.
pub(super) struct Running(Arc<Mutex<Child>>);

impl Running {
    /// Waits for its end, which must be exit code 0.
    fn wait(&self) -> io::Result<()> {
        // It closed its output and is about to end. The lock is not held, so
        // that it can be told to.
        let status = loop {
            match self.lock().try_wait()? {
                Some(status) => break status,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!("the program failed ({status})"))),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut child = self.lock();
        if let Ok(None) = child.try_wait() {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&child),
                rustix::process::Signal::TERM,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn program(script: &str) -> (io::Result<usize>, Vec<u8>) {
        let command = ["sh", "-c", script].map(OsString::from);
        let (mut input, _running) = Input::program(&command).unwrap();
        assert!(!input.can_rewind() && input.rewind().is_err());
        let mut bytes = Vec::new();
        (input.read_to_end(&mut bytes), bytes)
    }

    #[test]
    fn a_program_must_end_well() {
        assert_eq!(program("printf abc").0.unwrap(), 3);
        let (failed, bytes) = program("printf abc; exit 3");
        assert_eq!(failed.unwrap_err().to_string(), "the program failed (exit status: 3)");
        assert_eq!(bytes, b"abc");
        assert!(program("printf abc; kill -9 $$").0.unwrap_err().to_string().contains("signal: 9"));
        assert!(program("printf abc; exec >&-; sleep 0.05; exit 1").0.is_err());
    }

    #[test]
    fn a_file_must_stay_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (change, message) in [
            ("none", ""),
            ("grow", "the file grew while it was read"),
            ("shrink", "the input ended after 3 of 6 bytes"),
            ("touch", "the file was changed while it was read"),
        ] {
            std::fs::write(&path, "abcdef").unwrap();
            let mut input = Input::file(&path).ok().unwrap();
            let mut file = File::options().append(true).open(&path).unwrap();
            match change {
                "grow" => file.write_all(b"g").unwrap(),
                "shrink" => file.set_len(3).unwrap(),
                "touch" => file.set_modified(SystemTime::UNIX_EPOCH).unwrap(),
                _ => {}
            }
            let read = input.read_to_end(&mut Vec::new());
            match message {
                "" => assert_eq!(read.unwrap(), 6),
                message => assert_eq!(read.unwrap_err().to_string(), message),
            }
        }
        std::fs::write(&path, "abcdef").unwrap();
        let mut input = Input::file(&path).ok().unwrap();
        for _ in 0..2 {
            assert!(input.can_rewind());
            let mut again = String::new();
            input.read_to_string(&mut again).unwrap();
            assert_eq!(again, "abcdef");
            input.rewind().unwrap();
        }
        assert!(Input::file(dir.path()).is_err());
        std::fs::write(&path, "abcdef").unwrap();
        assert!(Input::file(&path).ok().unwrap().expect(Some(6)).is_ok());
        assert!(Input::file(&path).ok().unwrap().expect(Some(5)).is_err());
    }

    #[test]
    fn a_stream_must_have_the_length_it_was_said_to_have() {
        let read = |expected| {
            let command = ["printf", "abc"].map(OsString::from);
            let (input, _running) = Input::program(&command).ok().unwrap();
            input.expect(Some(expected)).ok().unwrap().read_to_end(&mut Vec::new())
        };
        assert_eq!(read(3).unwrap(), 3);
        assert!(read(2).unwrap_err().to_string().contains("more than the 2 bytes"));
        assert!(read(4).unwrap_err().to_string().contains("after 3 of 4 bytes"));
    }
}
