//! What a witness remembers: for each log, the last checkpoint that it cosigned.
//!
//! Separate from the rules, which are pure. A witness that forgets can be shown
//! anything, so this fails closed: state that is damaged or not there is an error
//! and never a fresh start. A state begins with [`Ledger::create`], which is asked
//! for by hand, once.
//!
//! One directory holds:
//!
//! | file | what |
//! |---|---|
//! | `index` | `strongroom witness 1`, the witness's key, and the name of each log that was ever cosigned, each on a line |
//! | `<name>.checkpoint` | the checkpoint, signed by the log and by the witness: the note as it is served |
//! | `<name>.evidence` | where a log contradicted itself: the cosigned note, a blank line, and the request that was refused |
//! | `<name>.unproven` | the same, of the first request whose proof did not hold: the log was rewritten, or a stranger made up a proof |
//! | `<file>.new` | a file that is being written, or was when the program was killed |
//!
//! The name of a log is the SHA-256 of its origin in lower-case hexadecimal. Files
//! are never changed where they stand: a new one takes the place of the old one.
//!
//! Invariants: a cosignature leaves this module after its checkpoint is durable;
//! what is checked against and what is replaced are one step, under the log's
//! lock; the directory has one process that writes, by a lock of its own.
//!
//! Who may corrupt it: whoever may write to the directory. A changed checkpoint is
//! found, as the witness's own signature is on it. An old copy of the whole
//! directory is not: never restore one, begin anew with another key.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error as ThisError;

use super::{AddCheckpoint, KnownLogs, Refusal, decide};
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::{Hash, TreeHead};
use crate::time::Timestamp;
use crate::tlog::checkpoint::{Origin, SignedCheckpoint};
use crate::tlog::note::NoteSignature;
use crate::tlog::{NamedKey, VerifierKey};

mod files;

use files::{Files, INDEX, checkpoint_name, damaged, evidence_name, index_text, new_name, unproven_name};

/// The first time that a cosignature can have, in microseconds: it is in seconds, and
/// 0 is none (c2sp.org/tlog-witness, "add-checkpoint").
const SECOND: u64 = 1_000_000;

/// Why there is no cosignature.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum CosignError {
    /// The rules say no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The state cannot be read or written.
    #[error(transparent)]
    State(Error),
}

impl From<CosignError> for Error {
    fn from(error: CosignError) -> Self {
        match error {
            CosignError::Refused(refusal) => refusal.into(),
            CosignError::State(error) => error,
        }
    }
}

/// The name that a log's files and its address have: SHA-256 of its origin.
#[must_use]
pub fn log_name(origin: &Origin) -> Hash {
    Hash::of(origin.as_str().as_bytes())
}

/// The state of one witness. Its methods block on the disk.
#[derive(Debug)]
pub struct Ledger {
    files: Files,
    witness: VerifierKey,
    /// The names in the index. Taken with or without a log's lock, never before it.
    index: Mutex<BTreeSet<Hash>>,
    logs: Mutex<BTreeMap<Hash, Arc<Mutex<Entry>>>>,
}

/// What is known of a log.
#[derive(Clone, Debug)]
enum Entry {
    Never,
    Cosigned(SignedCheckpoint),
    /// A write failed half way: the disk may have the old checkpoint or the new one.
    /// Neither was given out for certain, but only a fresh look can tell which is there.
    Doubt,
}

impl Ledger {
    /// Begins the state of a new witness with the key `witness`, in a directory
    /// that is empty or not there yet.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] if there is anything in it, and otherwise as
    /// [`Ledger::open`].
    pub fn create(path: &Path, witness: &VerifierKey) -> Result<Self> {
        files::make_directory(path)?;
        let files = Files::open(path)?;
        files.lock()?;
        // A first index that was never finished is nothing.
        if files.names()?.iter().any(|name| name != &new_name(INDEX)) {
            let message = "there is something in the directory: a new witness begins with an empty one";
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        files.replace(INDEX, &index_text(witness, &BTreeSet::new())).map_err(|(error, _)| error)?;
        Self::load(files, witness)
    }

    /// Opens the state of the witness with the key `witness`, for this process alone.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Conflict`] while
    /// another process has it; [`ErrorKind::Configuration`] if it is another
    /// witness's, or others may write to the directory; [`ErrorKind::Integrity`] if
    /// a part of it is damaged or missing; [`ErrorKind::Unavailable`] if it cannot
    /// be read.
    pub fn open(path: &Path, witness: &VerifierKey) -> Result<Self> {
        let files = Files::open(path)?;
        files.lock()?;
        Self::load(files, witness)
    }

    fn load(files: Files, witness: &VerifierKey) -> Result<Self> {
        let (owner, mut index) = files.index()?;
        if owner != *witness {
            let message = "the state is that of a witness with another key";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let mut logs = BTreeMap::new();
        let mut adopted = false;
        // A checkpoint that is not in the index was stored by a program that was killed
        // before it could add it there. It is as good as any other.
        for name in files.checkpoints()?.union(&index.clone()) {
            logs.insert(*name, Arc::new(Mutex::new(Entry::Cosigned(files.checkpoint(*name, witness)?))));
            adopted |= index.insert(*name);
        }
        if adopted {
            files.replace(INDEX, &index_text(witness, &index)).map_err(|(error, _)| error)?;
        }
        let (index, logs) = (Mutex::new(index), Mutex::new(logs));
        Ok(Self { files, witness: witness.clone(), index, logs })
    }

    /// The checkpoint of the log `name` that was cosigned last, with the signatures
    /// of the log and of the witness.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] after a write failed half way.
    pub fn last(&self, name: Hash) -> Result<Option<SignedCheckpoint>> {
        let Some(entry) = locked(&self.logs).get(&name).cloned() else { return Ok(None) };
        let entry = locked(&entry);
        match &*entry {
            Entry::Never => Ok(None),
            Entry::Cosigned(checkpoint) => Ok(Some(checkpoint.clone())),
            Entry::Doubt => Err(in_doubt()),
        }
    }

    /// Cosigns a checkpoint with `key` as of `now`, if the rules allow it
    /// ([`decide`]). It is durable before the cosignature is returned.
    ///
    /// A time never goes back from one cosignature of a log to the next: if the
    /// clock did, the last time is used again.
    ///
    /// # Errors
    /// [`CosignError`]. Where a log contradicted itself, or a proof does not hold, the
    /// first such request is kept.
    pub fn cosign(
        &self,
        request: &AddCheckpoint,
        logs: &KnownLogs,
        key: &NamedKey,
        now: Timestamp,
    ) -> Result<NoteSignature, CosignError> {
        let origin = request.checkpoint().checkpoint().origin();
        if key.cosigner() != self.witness || now.micros() < SECOND {
            let message = "the key is not the one of this state, or the clock is not set";
            return Err(CosignError::State(Error::new(ErrorKind::Configuration, message)));
        }
        // Only logs that someone configured take up room.
        if !logs.contains(origin) {
            return Err(Refusal::UnknownLog.into());
        }
        let name = log_name(origin);
        let entry =
            Arc::clone(locked(&self.logs).entry(name).or_insert_with(|| Arc::new(Mutex::new(Entry::Never))));
        // From here to the end nobody else looks at this log's state or changes it.
        let mut entry = locked(&entry);
        let last = match &*entry {
            Entry::Never => None,
            Entry::Cosigned(checkpoint) => Some(checkpoint.clone()),
            Entry::Doubt => return Err(CosignError::State(in_doubt())),
        };
        let head = last.as_ref().map(|last| *last.checkpoint().head());
        let consistent = decide(head.as_ref(), request, logs).inspect_err(|refusal| {
            let file = match refusal {
                Refusal::Forked => evidence_name(name),
                Refusal::Unproven => unproven_name(name),
                _ => return,
            };
            // That it is refused does not depend on whether it can be kept.
            let _ = last.as_ref().map(|last| self.files.keep(&file, last, request));
        })?;
        let before = last.as_ref().and_then(|last| last.cosigned_by(&self.witness).ok().flatten());
        let at = before.map_or(now, |before| before.max(now));
        let (note, cosignature) = consistent.cosign(key, at);

        // Should we fail or panic between here and the end, the log stays in doubt.
        let held = std::mem::replace(&mut *entry, Entry::Doubt);
        let stored = self.files.replace(&checkpoint_name(name), &note.to_string());
        if let Err((error, replaced)) = stored {
            if !replaced {
                *entry = held;
            }
            return Err(CosignError::State(error));
        }
        // If we stop here, the checkpoint counts and nobody has its cosignature: the log
        // asks again, is told the new size (409), and gets one for the same checkpoint.
        self.add_to_index(name).map_err(CosignError::State)?;
        *entry = Entry::Cosigned(note);
        Ok(cosignature)
    }

    /// Keeps as evidence that the log showed `signed` after what was cosigned last.
    pub(super) fn keep_evidence(&self, signed: &SignedCheckpoint) -> Result<()> {
        let name = log_name(signed.checkpoint().origin());
        let Some(last) = self.last(name)? else { return Ok(()) };
        let request = AddCheckpoint::new(0, Vec::new(), signed.clone())?;
        self.files.keep(&evidence_name(name), &last, &request)
    }

    /// From here on, a missing checkpoint of this log is a loss and no beginning.
    fn add_to_index(&self, name: Hash) -> Result<()> {
        let mut index = locked(&self.index);
        if index.contains(&name) {
            return Ok(());
        }
        let mut grown = index.clone();
        grown.insert(name);
        self.files.replace(INDEX, &index_text(&self.witness, &grown)).map_err(|(error, _)| error)?;
        *index = grown;
        Ok(())
    }
}

/// What a witness has cosigned of one log, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The log.
    pub origin: Origin,
    /// Its tree.
    pub head: TreeHead,
    /// When it was cosigned, to the second.
    pub at: Timestamp,
    /// The log's name in the directory.
    pub name: Hash,
    /// Whether there is evidence that the log contradicted itself.
    pub evidence: bool,
}

/// What the state in a directory says, in order of the logs. Another process may
/// be at work in it.
///
/// # Errors
/// As [`Ledger::open`], and never [`ErrorKind::Conflict`].
pub fn remembered(path: &Path) -> Result<(VerifierKey, Vec<Remembered>)> {
    let files = Files::open(path)?;
    let (witness, index) = files.index()?;
    let names = files.names()?;
    let mut all = Vec::new();
    for name in index {
        let note = files.checkpoint(name, &witness)?;
        let at = note.cosigned_by(&witness)?.ok_or_else(damaged)?;
        let (origin, head) = (note.checkpoint().origin().clone(), *note.checkpoint().head());
        all.push(Remembered { origin, head, at, name, evidence: names.contains(&evidence_name(name)) });
    }
    all.sort_by(|a, b| a.origin.cmp(&b.origin));
    Ok((witness, all))
}

/// What is behind the lock. Whoever panicked while it was held left a log in doubt,
/// or nothing half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_doubt() -> Error {
    let message = "a checkpoint could not be stored for certain: nothing is cosigned until a restart";
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::super::tests::{LOG, head, known, leaves, log, named, request, signed};
    use super::*;

    const NEVER: usize = usize::MAX;

    fn key() -> NamedKey {
        named("example.com/witness", 9)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * SECOND).unwrap()
    }

    fn name() -> Hash {
        log_name(&LOG.parse().unwrap())
    }

    struct Home {
        dir: tempfile::TempDir,
    }

    impl Home {
        fn new() -> Self {
            let home = Self { dir: tempfile::tempdir().unwrap() };
            Ledger::create(&home.path(), &key().cosigner()).unwrap();
            home
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("state")
        }

        fn file(&self, end: &str) -> PathBuf {
            self.path().join(format!("{}.{end}", name()))
        }

        fn open(&self) -> Result<Ledger> {
            Ledger::open(&self.path(), &key().cosigner())
        }
    }

    fn add(ledger: &Ledger, old: usize, new: usize, fork: usize) -> Result<NoteSignature, CosignError> {
        ledger.cosign(&request(old, new, fork), &known(), &key(), at(100 + new as u64))
    }

    fn size(ledger: &Ledger) -> u64 {
        ledger.last(name()).unwrap().map_or(0, |last| last.checkpoint().head().size)
    }

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T, CosignError>) -> Refusal {
        match result.unwrap_err() {
            CosignError::Refused(refusal) => refusal,
            CosignError::State(error) => panic!("{error:?}"),
        }
    }

    #[test]
    fn what_was_cosigned_is_there_after_a_restart() {
        let home = Home::new();
        let mut old = 0;
        for new in [3, 3, 4, 9, 17] {
            let ledger = home.open().unwrap();
            assert_eq!(size(&ledger), old as u64);
            let line = add(&ledger, old, new, NEVER).unwrap();
            let last = ledger.last(name()).unwrap().unwrap();
            assert_eq!(last.note().signatures(), [log().sign(last.note().text()), line]);
            assert_eq!(last.cosigned_by(&key().cosigner()).unwrap(), Some(at(100 + new as u64)));
            old = new;
        }
        let ledger = home.open().unwrap();
        assert_eq!(refused(add(&ledger, 4, 9, NEVER)), Refusal::Conflict { size: 17 });
        assert_eq!(refused(add(&ledger, 17, 17, 5)), Refusal::Forked);
        assert_eq!(refused(add(&ledger, 17, 20, 5)), Refusal::Unproven);
        assert_eq!(size(&ledger), 17);
        let (witness, all) = remembered(&home.path()).unwrap();
        assert_eq!(witness, key().cosigner());
        assert_eq!((all.len(), all[0].origin.as_str(), all[0].at), (1, LOG, at(117)));
        assert_eq!(all[0].head, head(&leaves(17, NEVER)));
    }

    #[test]
    fn the_first_contradiction_is_kept_as_evidence() {
        let home = Home::new();
        let ledger = home.open().unwrap();
        add(&ledger, 0, 5, NEVER).unwrap();
        for (old, new) in [(0, 7), (4, 7)] {
            refused(add(&ledger, old, new, 2));
            assert!(!home.file("evidence").exists(), "a conflict is no contradiction");
        }
        assert!(!remembered(&home.path()).unwrap().1[0].evidence);
        // Anyone can make up a proof, for any checkpoint that the log has published.
        refused(add(&ledger, 5, 9, 2));
        assert!(!home.file("evidence").exists() && home.file("unproven").exists());
        refused(add(&ledger, 5, 5, 2));
        let text = std::fs::read_to_string(home.file("evidence")).unwrap();
        let (cosigned, refused_request) = text.split_once("\nold ").unwrap();
        let cosigned = SignedCheckpoint::parse(cosigned.as_bytes()).unwrap();
        let other = AddCheckpoint::parse(format!("old {refused_request}").as_bytes()).unwrap();
        cosigned.verify(&log().verifier()).unwrap();
        other.checkpoint().verify(&log().verifier()).unwrap();
        assert_ne!(cosigned.checkpoint().head().root, other.checkpoint().checkpoint().head().root);

        refused(add(&ledger, 5, 5, 3));
        assert_eq!(std::fs::read_to_string(home.file("evidence")).unwrap(), text);
        assert!(remembered(&home.path()).unwrap().1[0].evidence);
    }

    #[test]
    fn killed_anywhere_it_knows_the_old_checkpoint_or_the_new_one() {
        // A first checkpoint writes two files, a later one one. A file has four steps.
        for (before, after, steps) in [(0, 5, 8), (5, 9, 4)] {
            for stop in 0..steps {
                let home = Home::new();
                let ledger = home.open().unwrap();
                if before > 0 {
                    add(&ledger, 0, before, NEVER).unwrap();
                }
                *locked(&ledger.files.stop_at) = Some(stop);
                let error = add(&ledger, before, after, NEVER).unwrap_err();
                assert!(matches!(error, CosignError::State(_)), "no cosignature got out");
                drop(ledger);

                let ledger = home.open().unwrap();
                let found = size(&ledger);
                let renamed = stop >= 2;
                assert_eq!(found, if renamed { after } else { before } as u64, "stopped at {stop}");
                // It goes on from there, and to no other history.
                let found = usize::try_from(found).unwrap();
                if found > 0 {
                    assert_eq!(refused(add(&ledger, found, 12, 0)), Refusal::Unproven);
                }
                add(&ledger, found, 12, NEVER).unwrap();
                drop(ledger);
                assert_eq!(size(&home.open().unwrap()), 12);
                assert!(
                    std::fs::read_to_string(home.path().join("index")).unwrap().contains(&name().to_string())
                );
            }
            let home = Home::new();
            let ledger = home.open().unwrap();
            if before > 0 {
                add(&ledger, 0, before, NEVER).unwrap();
            }
            *locked(&ledger.files.stop_at) = Some(steps);
            add(&ledger, before, after, NEVER).expect("there are no more steps than that");
        }
    }

    #[test]
    fn killed_while_it_begins_it_can_begin_again() {
        for stop in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let files = Files::open(dir.path()).unwrap();
            *locked(&files.stop_at) = Some(stop);
            let text = index_text(&key().cosigner(), &BTreeSet::new());
            files.replace(INDEX, &text).unwrap_err();
            drop(files);
            let begun = Ledger::create(dir.path(), &key().cosigner());
            match stop {
                0 | 1 => drop(begun.unwrap()),
                _ => assert_eq!(begun.unwrap_err().kind(), ErrorKind::AlreadyExists),
            }
            Ledger::open(dir.path(), &key().cosigner()).unwrap();
        }
    }

    #[test]
    fn in_doubt_it_waits_for_a_restart() {
        let home = Home::new();
        let ledger = home.open().unwrap();
        add(&ledger, 0, 5, NEVER).unwrap();
        // Nothing was put in place: all is as before.
        *locked(&ledger.files.stop_at) = Some(1);
        add(&ledger, 5, 6, NEVER).unwrap_err();
        *locked(&ledger.files.stop_at) = None;
        assert_eq!(size(&ledger), 5);
        add(&ledger, 5, 6, NEVER).unwrap();
        // Something was, and whether it will stay is not known.
        *locked(&ledger.files.stop_at) = Some(2);
        add(&ledger, 6, 7, NEVER).unwrap_err();
        *locked(&ledger.files.stop_at) = None;
        for old in [6, 7] {
            assert!(matches!(add(&ledger, old, 8, NEVER), Err(CosignError::State(_))));
        }
        assert_eq!(ledger.last(name()).unwrap_err().kind(), ErrorKind::Unavailable);
        drop(ledger);
        add(&home.open().unwrap(), 7, 8, NEVER).unwrap();
    }

    #[test]
    fn a_state_that_lost_something_is_an_error() {
        let kind = |home: &Home| home.open().unwrap_err().kind();
        let begun = || {
            let home = Home::new();
            add(&home.open().unwrap(), 0, 5, NEVER).unwrap();
            home
        };
        let home = begun();
        std::fs::remove_file(home.file("checkpoint")).unwrap();
        assert_eq!(kind(&home), ErrorKind::Integrity);
        assert_eq!(remembered(&home.path()).unwrap_err().kind(), ErrorKind::Integrity);

        let home = begun();
        std::fs::remove_file(home.path().join("index")).unwrap();
        assert_eq!(kind(&home), ErrorKind::Integrity);
        let created = Ledger::create(&home.path(), &key().cosigner());
        assert_eq!(created.unwrap_err().kind(), ErrorKind::AlreadyExists);

        for damage in ["", "x", "\n"] {
            let home = begun();
            std::fs::write(home.file("checkpoint"), damage).unwrap();
            assert_eq!(kind(&home), ErrorKind::Integrity);
        }
        // Every byte of a checkpoint counts, by the witness's signature.
        let home = begun();
        let good = std::fs::read(home.file("checkpoint")).unwrap();
        let text = good.windows(2).position(|two| two == b"\n\n").unwrap();
        for place in 0..text {
            let mut bad = good.clone();
            bad[place] ^= 1;
            std::fs::write(home.file("checkpoint"), bad).unwrap();
            assert_eq!(kind(&home), ErrorKind::Integrity, "{place}");
        }
        // Another log's under its name.
        let other = signed(&named("example.com/other", 1), head(&leaves(5, NEVER)));
        let (mut other, line) = (other.clone(), key().cosign(other.checkpoint(), at(1)));
        other.add(line).unwrap();
        std::fs::write(home.file("checkpoint"), other.to_string()).unwrap();
        assert_eq!(kind(&home), ErrorKind::Integrity);
        std::fs::write(home.file("checkpoint"), good).unwrap();
        home.open().unwrap();

        let home = begun();
        let index = std::fs::read_to_string(home.path().join("index")).unwrap();
        for (bad, expected) in [
            (String::new(), ErrorKind::Integrity),
            (index.trim_end().to_owned(), ErrorKind::Integrity),
            (format!("{index}\n"), ErrorKind::Integrity),
            (format!("{index}{}\n", name()), ErrorKind::Integrity),
            (format!("{index}{}\n", Hash::ZERO), ErrorKind::Integrity),
            (index.replace("witness 1", "witness 2"), ErrorKind::UnsupportedFormat),
        ] {
            std::fs::write(home.path().join("index"), bad).unwrap();
            assert_eq!(kind(&home), expected);
        }
    }

    #[test]
    fn a_state_has_one_key_and_one_process() {
        let home = Home::new();
        let ledger = home.open().unwrap();
        assert_eq!(home.open().unwrap_err().kind(), ErrorKind::Conflict);
        assert!(remembered(&home.path()).unwrap().1.is_empty());
        let other = named("example.com/witness", 8);
        let error = ledger.cosign(&request(0, 5, NEVER), &known(), &other, at(1)).unwrap_err();
        assert!(matches!(error, CosignError::State(_)));
        drop(ledger);
        let error = Ledger::open(&home.path(), &other.cosigner()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);

        let error = Ledger::open(&home.dir.path().join("nowhere"), &key().cosigner()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        // A disk that is not mounted is no beginning.
        let error = Ledger::open(home.dir.path(), &key().cosigner()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        let empty = tempfile::tempdir().unwrap();
        let error = Ledger::open(empty.path(), &key().cosigner()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);

        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(home.open().unwrap_err().kind(), ErrorKind::Configuration);
    }

    #[test]
    fn a_time_never_goes_back_and_is_never_none() {
        let home = Home::new();
        let ledger = home.open().unwrap();
        let cosign = |old, new, now| ledger.cosign(&request(old, new, NEVER), &known(), &key(), now);
        assert!(matches!(cosign(0, 5, at(0)), Err(CosignError::State(_))));
        for (old, new, now, then) in [(0, 5, 50, 50), (5, 6, 40, 50), (6, 7, 51, 51)] {
            cosign(old, new, at(now)).unwrap();
            let last = ledger.last(name()).unwrap().unwrap();
            assert_eq!(last.cosigned_by(&key().cosigner()).unwrap(), Some(at(then)));
        }
    }

    #[test]
    fn of_many_requests_for_one_place_one_is_cosigned() {
        let home = Home::new();
        let ledger = home.open().unwrap();
        let mut old = 0;
        for round in 1..10 {
            let news: Vec<usize> = (0..8).map(|number| old + 1 + number % 3 + round).collect();
            let done: Vec<_> = std::thread::scope(|scope| {
                let ledger = &ledger;
                let all: Vec<_> = news
                    .iter()
                    .map(|new| scope.spawn(move || add(ledger, old, *new, NEVER).ok().map(|_| *new)))
                    .collect();
                all.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(done.len(), 1);
            old = done[0];
            assert_eq!(size(&ledger), old as u64);
        }
    }
}
