//! Emergency access: where uses of keys are recorded while the log cannot be written.
//!
//! No key is used unless that is on record first. Where the log fails, a person may declare
//! an **emergency** (45 CFR 164.312(a)(2)(ii)) for one customer and a bounded time, and
//! read its blobs all the same; the record then goes to a second durable place, the
//! [`EmergencySink`]: a directory on a local disk of the node. When the log is back, what is
//! in the sink is *folded* into it ([`Strongroom::fold_emergencies`]), and somebody else
//! reviews it.
//!
//! Separate from the log, because this is the one exception to its rule, and small enough to
//! be read whole: what it lets through is decided in one place, `may`. The lines are
//! in `lines`, the files in `file`.
//!
//! Invariants: a key is used under a record here only within the time of the emergency, by
//! who declared it, for its customer, to read; the record was on disk before (file and, for a
//! new one, directory are synchronised); what fails while it is written is refused and the
//! file not written again by this program. Nothing is deleted: a file that is in the log is
//! renamed. One program at a time has a directory.
//!
//! Who may corrupt it: whoever can write to the directory, which is this program's user and
//! the node's administrator. They can add, and remove what was not folded yet; that an
//! emergency was declared has been told outside of the node by then, by the alarm.
//!
//! # The directory
//!
//! | name | what |
//! |---|---|
//! | `<emergency id>` | an emergency: its declaration, and what was done, a line each |
//! | `<emergency id>.folded` | the same, once all of it is in the log |
//! | `lock` | locked by the program that has the directory |
//!
//! [`Strongroom::fold_emergencies`]: crate::room::Strongroom::fold_emergencies

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Action, EmergencyRef, Intent, KeyRef, Outcome, OutcomeResult};
use crate::access::{Access, Principal, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, EmergencyId, KekId, KmsRequestId, RequestId, StoreId};
use crate::retention::clock::AGREEMENT;
use crate::time::{Clock, Timestamp};

mod file;
pub(crate) mod lines;

use file::SinkFile;
use lines::{End, Entry};

/// The longest that an emergency lasts. Who needs more declares another.
pub const LONGEST: Duration = Duration::from_hours(4);
/// The shortest.
pub const SHORTEST: Duration = Duration::from_mins(1);
/// How long one lasts unless it is said.
pub const DEFAULT: Duration = Duration::from_hours(1);

/// The second durable place for records of key uses: a directory that this program has to
/// itself.
pub struct EmergencySink {
    directory: PathBuf,
    store: StoreId,
    clock: Arc<dyn Clock>,
    /// Those that are not folded yet.
    cases: Mutex<BTreeMap<EmergencyId, Arc<Case>>>,
    /// Files of which not even the declaration can be read.
    damaged: BTreeSet<EmergencyId>,
    /// Held while somebody folds, so that nothing is looked for and written twice.
    pub(crate) folding: tokio::sync::Mutex<()>,
    /// Released when this is dropped, and by the system when the program ends.
    _lock: File,
}

impl fmt::Debug for EmergencySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmergencySink").field("store", &self.store).finish_non_exhaustive()
    }
}

impl EmergencySink {
    /// Opens a directory, and makes it if it is not there (mode 0700). Emergencies of this
    /// store that were declared before and are not over go on.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] if it cannot be made, read or locked, if another program
    /// has it, or if others than its owner may look into it.
    pub fn open(directory: &Path, store: StoreId, clock: Arc<dyn Clock>) -> Result<Self> {
        let lock = file::prepare(directory)?;
        let (mut cases, mut damaged) = (BTreeMap::new(), BTreeSet::new());
        for id in file::unfolded(directory)? {
            let (file, decoded) = SinkFile::open(directory, id)?;
            match decoded.entries.first() {
                Some(Entry::Declared { store: of, intent }) if *of == store => {
                    match Case::new(intent, file, &*clock) {
                        Some(case) if case.id == id => drop(cases.insert(id, Arc::new(case))),
                        _ => drop(damaged.insert(id)),
                    }
                }
                // Another store's, or what no program of ours begins a file with.
                Some(_) => drop(damaged.insert(id)),
                None if decoded.end == End::Damaged => drop(damaged.insert(id)),
                // A crash before the declaration was on disk: nobody was told that there is
                // an emergency, and nothing was done in it.
                None => {}
            }
        }
        let (cases, folding) = (Mutex::new(cases), tokio::sync::Mutex::default());
        let directory = directory.to_owned();
        Ok(Self { directory, store, clock, cases, damaged, folding, _lock: lock })
    }

    /// How many emergencies are not in the log yet, those included that cannot be read.
    #[must_use]
    pub fn unfolded(&self) -> usize {
        self.cases().len() + self.damaged.len()
    }

    /// Makes an emergency stand, by its declaration: an intent whose [`EmergencyRef`] has
    /// its times. It is on disk when this returns. Blocks.
    pub(crate) fn declare(&self, intent: &Intent) -> Result<()> {
        let named = intent.emergency.as_deref().ok_or_else(undeclared)?;
        let declared = Entry::Declared { store: self.store, intent: intent.clone() };
        // If we stop here, or anywhere within, there is no emergency: nobody was told of one.
        let file = SinkFile::create(&self.directory, named.id, &declared)?;
        let case = Case::new(intent, file, &*self.clock).ok_or_else(undeclared)?;
        self.cases().insert(case.id, Arc::new(case));
        Ok(())
    }

    /// Whether `access` is in an emergency that stands.
    pub(crate) fn covers(&self, access: &Access) -> bool {
        let of = |id| self.case(id).filter(|case| case.is_of(&access.principal, access.purpose));
        access.emergency.and_then(of).is_some_and(|case| case.stands(&*self.clock))
    }

    /// Whether an emergency stands.
    pub(crate) fn stands(&self, id: EmergencyId) -> bool {
        self.case(id).is_some_and(|case| case.stands(&*self.clock))
    }

    /// The right to use keys under records in the sink, if each of `intents` is of one
    /// emergency that stands and lets it through.
    pub(crate) fn warrant(&self, intents: &[Intent]) -> Option<Warrant> {
        let id = intents.first()?.emergency.as_deref()?.id;
        let case = self.case(id)?;
        let all = intents.iter().all(|intent| case.may(intent));
        (all && case.stands(&*self.clock)).then(|| Warrant { case, clock: Arc::clone(&self.clock) })
    }

    /// The emergencies that are to be folded, and those that cannot be read.
    pub(crate) fn to_fold(&self) -> (Vec<Arc<Case>>, Vec<EmergencyId>) {
        (self.cases().values().cloned().collect(), self.damaged.iter().copied().collect())
    }

    /// Takes note that all of an emergency is in the log. Blocks.
    pub(crate) fn mark_folded(&self, id: EmergencyId) -> Result<()> {
        file::rename_folded(&self.directory, id)?;
        self.cases().remove(&id);
        Ok(())
    }

    fn case(&self, id: EmergencyId) -> Option<Arc<Case>> {
        self.cases().get(&id).cloned()
    }

    fn cases(&self) -> MutexGuard<'_, BTreeMap<EmergencyId, Arc<Case>>> {
        self.cases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One emergency, with its file.
pub(crate) struct Case {
    pub(crate) id: EmergencyId,
    pub(crate) declared: Intent,
    pub(crate) customer: CustomerId,
    pub(crate) from: Timestamp,
    until: Timestamp,
    /// The same by uptime, so that setting the clock back makes it no longer.
    ends: Duration,
    file: Mutex<SinkFile>,
    /// How many uses have no outcome yet in this program.
    open: AtomicU64,
    /// What this program saw in the log: the declaration, and uses with their outcomes.
    in_log: Mutex<BTreeSet<RequestId>>,
}

/// What the file of an emergency tells.
#[derive(Debug)]
pub(crate) struct Told {
    /// Each intent, with its outcome if it has one.
    pub(crate) uses: Vec<(Intent, Option<Outcome>)>,
    /// Whether nothing more can come: the emergency is over, and no use of it is open.
    pub(crate) over: bool,
    /// Whether all of the file could be read.
    pub(crate) whole: bool,
}

impl Case {
    fn new(declared: &Intent, file: SinkFile, clock: &dyn Clock) -> Option<Self> {
        let EmergencyRef { id, at, until } = *declared.emergency.as_deref()?;
        let (from, until, customer) = (at?, until?, declared.customer?);
        let now = clock.now();
        let micros = until.micros().saturating_sub(from.max(now).micros());
        // One that begins later than now was declared by a clock that was ahead: each start of a
        // program would give it all of its time anew.
        let later = from > now.saturating_add(AGREEMENT);
        let left = if later { Duration::ZERO } else { Duration::from_micros(micros).min(LONGEST) };
        Some(Self {
            id,
            declared: declared.clone(),
            customer,
            from,
            until,
            ends: clock.uptime().saturating_add(left),
            file: Mutex::new(file),
            open: AtomicU64::new(0),
            in_log: Mutex::default(),
        })
    }

    fn stands(&self, clock: &dyn Clock) -> bool {
        clock.now() < self.until && clock.uptime() < self.ends
    }

    fn is_of(&self, principal: &Principal, purpose: Purpose) -> bool {
        *principal == self.declared.principal && purpose == Purpose::EmergencyTreatment
    }

    /// Whether the emergency lets this through: to read, by who declared it, for its
    /// customer. Everything else takes the log.
    fn may(&self, intent: &Intent) -> bool {
        let is_ours = intent.customer == Some(self.customer);
        let lets = match (intent.action, &intent.key) {
            (action, _) if reads(action) => is_ours,
            // An epoch's key concerns no customer, and without it no ring opens.
            (Action::KmsDecrypt, Some(KeyRef::Epoch { .. })) => intent.customer.is_none(),
            (Action::KmsDecrypt, Some(KeyRef::Customer { .. } | KeyRef::Blob { .. })) => is_ours,
            _ => false,
        };
        let named = intent.emergency.as_deref().is_some_and(|named| named.id == self.id);
        lets && named && self.is_of(&intent.principal, intent.purpose)
    }

    /// Reads the file again, as far as it verifies. Blocks.
    pub(crate) fn told(&self, clock: &dyn Clock) -> Result<Told> {
        let mut file = self.file();
        let over = !self.stands(clock) && self.open.load(Ordering::SeqCst) == 0;
        if over {
            // Nothing comes behind what is read now.
            file.close();
        }
        let decoded = file.read()?;
        let mut outcomes: BTreeMap<RequestId, Outcome> = BTreeMap::new();
        let mut intents = Vec::new();
        for entry in decoded.entries {
            match entry {
                Entry::Intent(intent) => intents.push(intent),
                Entry::Outcome(outcome) => drop(outcomes.insert(outcome.request, outcome)),
                Entry::Declared { .. } | Entry::Resumed { .. } => {}
            }
        }
        let uses = intents.into_iter().map(|intent| {
            let outcome = outcomes.remove(&intent.request);
            (intent, outcome)
        });
        Ok(Told { uses: uses.collect(), over, whole: decoded.end != End::Damaged })
    }

    /// Takes note of what is in the log.
    pub(crate) fn note_in_log(&self, requests: impl IntoIterator<Item = RequestId>) {
        self.in_log.lock().unwrap_or_else(PoisonError::into_inner).extend(requests);
    }

    /// Whether this program saw it in the log.
    pub(crate) fn is_in_log(&self, request: RequestId) -> bool {
        self.in_log.lock().unwrap_or_else(PoisonError::into_inner).contains(&request)
    }

    fn file(&self) -> MutexGuard<'_, SinkFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to use keys under records in the sink.
#[must_use = "a warrant is for writing records"]
pub(crate) struct Warrant {
    case: Arc<Case>,
    clock: Arc<dyn Clock>,
}

impl Warrant {
    /// Records intents. They are on disk when this returns. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if they are not, or the emergency is over by now: then no
    /// key may be used.
    pub(crate) fn record(self, intents: Vec<Intent>) -> Result<Vec<Use>> {
        let mut file = self.case.file();
        // Again, as time went by.
        if !self.case.stands(&*self.clock) {
            return Err(Error::new(ErrorKind::AuditUnavailable, "the emergency is over"));
        }
        let now = self.clock.now();
        let intents = intents.into_iter().map(|mut intent| {
            if let Some(named) = &mut intent.emergency {
                named.at = Some(now);
            }
            intent
        });
        let entries: Vec<Entry> = intents.map(Entry::Intent).collect();
        file.append(&entries)?;
        // If we stop here, these are in the file and have no outcome: it is unknown what
        // became of them, and so they are folded.
        let begun = entries.into_iter().filter_map(|entry| match entry {
            Entry::Intent(Intent { request, customer, .. }) => {
                self.case.open.fetch_add(1, Ordering::SeqCst);
                let case = Arc::clone(&self.case);
                Some(Use { case, request, customer, key: None, kms_request: None, ended: false })
            }
            _ => None,
        });
        Ok(begun.collect())
    }
}

/// One intent in the sink that has no outcome yet. Dropped unfinished, it was aborted.
pub(crate) struct Use {
    case: Arc<Case>,
    pub(crate) request: RequestId,
    customer: Option<CustomerId>,
    key: Option<KekId>,
    kms_request: Option<KmsRequestId>,
    ended: bool,
}

impl Use {
    /// In which emergency.
    pub(crate) fn emergency(&self) -> EmergencyId {
        self.case.id
    }

    /// Notes which ring key is used.
    pub(crate) fn uses(&mut self, key: KekId) {
        self.key = Some(key);
    }

    /// Notes what the KMS called the request.
    pub(crate) fn answered(&mut self, kms_request: Option<KmsRequestId>) {
        self.kms_request = kms_request;
    }

    /// Records how it ended. That is on disk when this returns. Blocks.
    pub(crate) fn end(mut self, result: OutcomeResult, bytes: Option<u64>) -> Result<()> {
        self.write(result, bytes)
    }

    fn write(&mut self, result: OutcomeResult, bytes: Option<u64>) -> Result<()> {
        self.ended = true;
        let (request, customer, key) = (self.request, self.customer, self.key);
        let kms_request = self.kms_request.take();
        let outcome = Outcome { request, customer, result, bytes, key, kms_request };
        let written = self.case.file().append(&[Entry::Outcome(outcome)]);
        // Where that failed it is folded as unknown.
        self.case.open.fetch_sub(1, Ordering::SeqCst);
        written
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if !self.ended {
            // Nobody is left who could be told that it failed.
            let _ = self.write(OutcomeResult::Aborted, None);
        }
    }
}

/// Whether an action sees into blobs and changes nothing.
pub(crate) fn reads(action: Action) -> bool {
    matches!(
        action,
        Action::Open | Action::OpenRange | Action::Stat | Action::List | Action::Find | Action::Verify
    )
}

fn undeclared() -> Error {
    Error::new(ErrorKind::InvalidInput, "a declaration says which emergency, whose, from when and until when")
}

#[cfg(test)]
mod tests;
