//! A disk whose calls fail on demand, and what a power failure leaves of it.
//!
//! Use it with `#[path = "common/disk.rs"] mod disk;`. The calls have their effect on a real
//! directory; beside that, it is kept what of it is on the disk: the bytes of a file since they
//! were forced, a name since its directory was. **What a force failed to write counts as written
//! for the next one**, as on Linux.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use strongroom::store::directory::{Disk, SystemDisk};

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Create,
    Write,
    ForceFile,
    ForceDirectory,
    Link,
    Rename,
    Remove,
    MakeDirectory,
    RemoveDirectory,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An input/output error, and no effect.
    Fails,
    /// An input/output error, behind the effect.
    FailsAfter,
    /// The disk is full.
    Full,
    /// A write takes a part of the bytes; another call succeeds.
    Short,
}

/// A file, whatever its names.
type FileNumber = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File(FileNumber),
}

type Choose = dyn Fn(u64, Call) -> Option<Fault> + Send + Sync;

#[derive(Default)]
struct State {
    calls: u64,
    failed: Vec<(u64, Call)>,
    /// By inode.
    numbers: BTreeMap<u64, FileNumber>,
    made: FileNumber,
    /// What is on the disk.
    bytes: BTreeMap<FileNumber, Vec<u8>>,
    names: BTreeMap<PathBuf, Entry>,
    /// Names that changed since their directory was forced.
    changed: BTreeSet<PathBuf>,
    /// Files whose bytes could not be written, and count as written.
    lost: BTreeSet<FileNumber>,
    /// From this call on there is no power.
    dark: bool,
}

/// See the module. Clones share one state.
#[derive(Clone)]
pub struct FaultDisk {
    root: PathBuf,
    state: Arc<Mutex<State>>,
    choose: Arc<Mutex<Arc<Choose>>>,
}

impl std::fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultDisk")
    }
}

impl FaultDisk {
    /// A disk without faults. What is below `root` now is on it.
    pub fn new(root: &Path) -> Self {
        let root = fs::canonicalize(root).unwrap();
        let disk = Self {
            root: root.clone(),
            state: Arc::default(),
            choose: Arc::new(Mutex::new(Arc::new(|_, _| None))),
        };
        disk.state().take(&root);
        disk
    }

    /// Calls from now on fail so. They are counted from 1.
    pub fn fail(&self, choose: impl Fn(u64, Call) -> Option<Fault> + Send + Sync + 'static) {
        self.state().calls = 0;
        *self.choose.lock().unwrap() = Arc::new(choose);
    }

    pub fn heal(&self) {
        self.fail(|_, _| None);
    }

    /// How many calls there were since faults were chosen.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// The calls that failed.
    pub fn failed(&self) -> Vec<(u64, Call)> {
        self.state().failed.clone()
    }

    /// Ends all power: what is on the disk now is written below `into`. Every later call fails.
    pub fn crash(&self, into: &Path) {
        let mut state = self.state();
        state.dark = true;
        for (path, entry) in &state.names {
            let Ok(below) = path.strip_prefix(&self.root) else { continue };
            let to = into.join(below);
            if !to.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match entry {
                Entry::Directory => fs::create_dir_all(&to).unwrap(),
                Entry::File(number) => {
                    fs::write(&to, state.bytes.get(number).map(Vec::as_slice).unwrap_or_default()).unwrap();
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds this")
    }

    /// Runs a call, and keeps what it changed.
    fn call<T>(
        &self,
        call: Call,
        run: impl FnOnce(&SystemDisk, Option<Fault>) -> io::Result<T>,
        keep: impl FnOnce(&mut State, &T),
    ) -> io::Result<T> {
        let choose = Arc::clone(&self.choose.lock().unwrap());
        let mut state = self.state();
        state.calls += 1;
        let number = state.calls;
        let fault = if state.dark { Some(Fault::Fails) } else { choose(number, call) };
        match fault {
            Some(Fault::Fails) => {
                state.failed.push((number, call));
                return Err(io::Error::from_raw_os_error(5));
            }
            Some(Fault::Full) => {
                state.failed.push((number, call));
                return Err(io::Error::from_raw_os_error(28));
            }
            _ => {}
        }
        let done = run(&SystemDisk, fault)?;
        keep(&mut state, &done);
        if fault == Some(Fault::FailsAfter) {
            state.failed.push((number, call));
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(done)
    }
}

impl State {
    /// All that is below a directory is on the disk.
    fn take(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::metadata(&path).unwrap();
            if meta.is_dir() {
                self.names.insert(path.clone(), Entry::Directory);
                self.take(&path);
            } else {
                let number = self.number(meta.ino());
                self.bytes.insert(number, fs::read(&path).unwrap());
                self.names.insert(path, Entry::File(number));
            }
        }
    }

    fn number(&mut self, inode: u64) -> FileNumber {
        if let Some(number) = self.numbers.get(&inode) {
            return *number;
        }
        self.made += 1;
        self.numbers.insert(inode, self.made);
        self.made
    }

    fn change(&mut self, path: &Path) {
        self.changed.insert(path.to_owned());
    }

    /// The changes below a directory, which count as written.
    fn written(&mut self, directory: &Path) -> Vec<PathBuf> {
        let of_directory = |path: &PathBuf| path.parent() == Some(directory);
        let (written, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.changed).into_iter().partition(of_directory);
        self.changed = left.into_iter().collect();
        written
    }
}

impl Disk for FaultDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        self.call(
            Call::Create,
            |disk, _| disk.create(path),
            |state, file| {
                // A number that was another file's before.
                let inode = file.metadata().unwrap().ino();
                state.numbers.remove(&inode);
                state.number(inode);
                state.change(path);
            },
        )
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        let run = |_: &SystemDisk, fault| match fault {
            Some(Fault::Short) => file.write(&bytes[..bytes.len().div_ceil(2)]),
            _ => file.write(bytes),
        };
        self.call(Call::Write, run, |_, _| {})
    }

    fn force_file(&self, file: &File) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        let mut copy = file.try_clone()?;
        let forced = self.call(
            Call::ForceFile,
            |_, fault| {
                if fault == Some(Fault::FailsAfter) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
            },
            |state, ()| {
                let number = state.number(inode);
                if !state.lost.contains(&number) {
                    let (mut bytes, at) = (Vec::new(), copy.stream_position().unwrap());
                    copy.seek(SeekFrom::Start(0)).unwrap();
                    copy.read_to_end(&mut bytes).unwrap();
                    copy.seek(SeekFrom::Start(at)).unwrap();
                    state.bytes.insert(number, bytes);
                }
            },
        );
        if forced.is_err() {
            let mut state = self.state();
            let number = state.number(inode);
            state.lost.insert(number);
        }
        forced
    }

    fn force_directory(&self, path: &Path) -> io::Result<()> {
        let forced = self.call(
            Call::ForceDirectory,
            |_, fault| {
                if fault == Some(Fault::FailsAfter) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
            },
            |state, ()| {
                for name in state.written(path) {
                    match fs::symlink_metadata(&name) {
                        Ok(meta) if meta.is_dir() => {
                            state.names.insert(name, Entry::Directory);
                        }
                        Ok(meta) => {
                            let number = state.number(meta.ino());
                            state.names.insert(name, Entry::File(number));
                        }
                        Err(_) => {
                            state.names.retain(|other, _| !other.starts_with(&name));
                        }
                    }
                }
            },
        );
        if forced.is_err() {
            // Nothing of it is on the disk, and nobody writes it again.
            let _ = self.state().written(path);
        }
        forced
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Call::Link, |disk, _| disk.link(from, to), |state, ()| state.change(to))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let keep = |state: &mut State, (): &()| {
            state.change(from);
            state.change(to);
        };
        self.call(Call::Rename, |disk, _| disk.rename(from, to), keep)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(Call::Remove, |disk, _| disk.remove(path), |state, ()| state.change(path))
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        self.call(Call::MakeDirectory, |disk, _| disk.make_directory(path), |state, ()| state.change(path))
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.call(
            Call::RemoveDirectory,
            |disk, _| disk.remove_directory(path),
            |state, ()| state.change(path),
        )
    }
}
