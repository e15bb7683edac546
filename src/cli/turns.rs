//! Turns: how many of a user's commands start at once on one machine.
//!
//! A thousand cron jobs that fire in the same second would ask a storage for some thirty
//! thousand requests at once, and all of them would run into their deadlines. So a command
//! takes one of [`TURNS`] turns before it opens a store, and gives it back when it ends, or
//! after [`HELD`] if it takes longer: a backup that streams for hours keeps nobody waiting.
//!
//! A turn is an advisory lock on a file, which the kernel releases whatever becomes of the
//! program. Nothing depends on it for being right: a command that finds no directory for it, or
//! that has waited for [`PATIENCE`], goes on without one.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How many commands have a turn at a time.
const TURNS: usize = 32;

/// For how long a command keeps its turn at most.
const HELD: Duration = Duration::from_secs(10);

/// For how long a command waits for one.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often whoever is next looks for a free turn.
const LOOK: Duration = Duration::from_millis(5);

/// Waits for a turn, which this program then has until it ends, or for [`HELD`].
///
/// # Cancel safety
/// A turn that nobody waits for any more is given back.
pub(super) async fn wait(env: impl Fn(&str) -> Option<OsString>, uid: u32) {
    let Some(directory) = directory(env, uid) else { return };
    let (to, turn) = oneshot::channel();
    // A thread of its own: locking blocks, and the runtime would wait for its own at the end.
    let waiting = std::thread::Builder::new().spawn(move || {
        // If nobody waits any more, the lock goes with the file.
        drop(to.send(take(&directory)));
    });
    if waiting.is_err() {
        return;
    }
    if let Ok(Ok(Ok(turn))) = timeout(PATIENCE, turn).await {
        tokio::spawn(async move {
            sleep(HELD).await;
            drop(turn);
        });
    }
}

/// Where the files are: a directory that nobody else can write to.
fn directory(env: impl Fn(&str) -> Option<OsString>, uid: u32) -> Option<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = match absolute("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("strongroom"),
        None => absolute("TMPDIR").unwrap_or("/tmp".into()).join(format!("strongroom-{uid}")),
    };
    match DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    // In a directory for all, another user may have made it, or a link.
    let found = fs::symlink_metadata(&directory).ok()?;
    (found.is_dir() && found.uid() == uid && found.permissions().mode() & 0o077 == 0).then_some(directory)
}

/// Takes a turn, first come, first served: whoever has the lock of the queue is next.
fn take(directory: &Path) -> io::Result<File> {
    let open = |name: String| {
        OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(directory.join(name))
    };
    let queue = open("queue".into())?;
    let turns: Vec<File> = (0..TURNS).map(|turn| open(format!("turn-{turn}"))).collect::<io::Result<_>>()?;
    queue.lock()?;
    loop {
        for turn in &turns {
            if turn.try_lock().is_ok() {
                return turn.try_clone();
            }
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_have_a_turn_as_there_are_and_the_next_waits() {
        let home = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| home.path().into());
        let uid = rustix::process::getuid().as_raw();
        let found = directory(env, uid).unwrap();
        let mut turns: Vec<File> = (0..TURNS).map(|_| take(&found).unwrap()).collect();

        let (to, got) = std::sync::mpsc::channel();
        let next = std::thread::spawn(move || to.send(take(&found).is_ok()).unwrap());
        // It has the queue's lock once it looks; then there is none for it.
        let queue = File::open(home.path().join("strongroom/queue")).unwrap();
        while queue.try_lock().is_ok() {
            queue.unlock().unwrap();
            std::thread::yield_now();
        }
        assert!(got.try_recv().is_err());
        turns.pop();
        assert!(got.recv().unwrap());
        next.join().unwrap();
    }

    #[test]
    fn a_directory_of_another_or_open_to_others_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let env = |name: &str| (name == "TMPDIR").then(|| home.path().into());
        let uid = rustix::process::getuid().as_raw();
        let found = directory(env, uid).unwrap();
        assert_eq!(found, home.path().join(format!("strongroom-{uid}")));
        fs::set_permissions(&found, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(directory(env, uid), None);
        fs::remove_dir(&found).unwrap();
        std::os::unix::fs::symlink(home.path(), &found).unwrap();
        assert_eq!(directory(env, uid), None);
        assert_eq!(directory(|_| Some("/nowhere".into()), uid), None);
    }
}
