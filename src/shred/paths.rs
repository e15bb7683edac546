//! The wrap paths of a customer's blobs, as the log has them.
//!
//! A wrap path is a way from a live key to a blob's DEK: the header's wrap, or a side
//! object's. What a drop destroys follows from them, and so they come from the log,
//! which has an intent of each before it exists, and never from a listing, which the
//! storage could shorten. An intent without an outcome counts: the wrap may be there.
//!
//! A drop freezes the set. From `Pending` on the key wraps nothing new, and the window is
//! longer than any node's cache. A blob that is wrapped under it may get another path
//! until the very end: whoever makes one has its intent in the log first, and then looks
//! at the newest ring. So what the log says *after* the drop was written is all there
//! will ever be.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sha2::{Digest, Sha256};

use crate::audit::base::extract::Shelf;
use crate::audit::history::{History, Need};
use crate::audit::operation::Operation;
use crate::audit::{Action, Intent, KeyRef, OutcomeResult};
use crate::error::Result;
use crate::id::{BlobId, CustomerId, KekId};
use crate::ring::{EntryKind, Ring};
use crate::time::Day;

/// How sure it is that a wrap is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// Its writer went away, or did not learn how it ended.
    Possible,
    /// It was written.
    Certain,
}

/// The wrap paths of one customer.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    blobs: BTreeMap<BlobId, BlobPaths>,
}

/// The wrap paths of one blob.
#[derive(Clone, Debug, Default)]
pub struct BlobPaths {
    /// The keys it is or may be wrapped under.
    pub keys: BTreeMap<KekId, Certainty>,
    /// The length of the plaintext in bytes, once the log has it.
    pub bytes: Option<u64>,
    /// Whether one of the intents still has no outcome: its writer may be at it.
    pub open: bool,
}

/// Where the operations on the blobs under a key are filed.
#[must_use]
pub fn shelf_of(key: KekId, kind: EntryKind) -> Shelf {
    match kind {
        EntryKind::Day(day) => Shelf::Day(day),
        EntryKind::Hold | EntryKind::Name => Shelf::Key(key),
    }
}

/// What becomes of the blobs that were wrapped under some keys when these are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Blobs that were there, and have no other path.
    pub shredded: BTreeSet<BlobId>,
    /// Blobs that may have been there, and have no other path.
    pub uncertain: BTreeSet<BlobId>,
    /// Blobs that live on, or may.
    pub surviving: BTreeSet<BlobId>,
    /// The plaintext of the shredded ones, in bytes.
    pub bytes: u64,
}

impl Paths {
    /// Reads the paths that the log has of the blobs under `keys`. What is kept in memory
    /// is those blobs.
    ///
    /// # Errors
    /// As [`History::operations`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn under_keys(
        history: &History,
        customer: CustomerId,
        keys: &BTreeMap<KekId, Shelf>,
    ) -> Result<Self> {
        Self::under_keys_and(history, customer, keys, |_| {}).await
    }

    /// The same, and shows what is filed with them to somebody else too.
    pub(super) async fn under_keys_and(
        history: &History,
        customer: CustomerId,
        keys: &BTreeMap<KekId, Shelf>,
        mut show: impl FnMut(&Operation),
    ) -> Result<Self> {
        let mut under = UnderKeys::new(keys.keys().copied().collect());
        let mut found = history.operations(Some(customer), &Need::Shelves(keys.values().copied().collect()));
        while let Some(operation) = found.try_next().await? {
            show(&operation);
            under.take(&operation);
        }
        let late = under.late_shelves();
        if !late.is_empty() {
            let mut again = history.operations(Some(customer), &Need::Shelves(late));
            while let Some(operation) = again.try_next().await? {
                under.take_late(&operation);
            }
        }
        Ok(under.finish())
    }

    /// Reads the paths that the log has of the blobs that were sealed to be kept until one of
    /// these days.
    ///
    /// # Errors
    /// As [`History::operations`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn of_days(history: &History, customer: CustomerId, days: BTreeSet<Day>) -> Result<Self> {
        let mut paths = Self::default();
        if !days.is_empty() {
            let wanted = Need::Shelves(days.into_iter().map(Shelf::Day).collect());
            paths.read(history.operations(Some(customer), &wanted)).await?;
        }
        Ok(paths)
    }

    /// Reads the paths that the log has of all blobs of a customer.
    ///
    /// # Errors
    /// As [`History::operations`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn of_customer(history: &History, customer: CustomerId) -> Result<Self> {
        let mut paths = Self::default();
        paths.read(history.operations(Some(customer), &Need::All)).await?;
        Ok(paths)
    }

    /// Reads the paths that the log has of all blobs of all customers, in one pass. What is
    /// kept in memory is all of them.
    ///
    /// # Errors
    /// As [`History::operations`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn by_customer(history: &History) -> Result<BTreeMap<CustomerId, Self>> {
        let mut found = history.operations(None, &Need::All);
        let mut all: BTreeMap<CustomerId, Self> = BTreeMap::new();
        while let Some(operation) = found.try_next().await? {
            if let Some(customer) = operation.intent().customer {
                all.entry(customer).or_default().take_operation(&operation);
            }
        }
        Ok(all)
    }

    async fn read(&mut self, mut found: BoxStream<'static, Result<Operation>>) -> Result<()> {
        while let Some(operation) = found.try_next().await? {
            self.take_operation(&operation);
        }
        Ok(())
    }

    /// Takes in what others have of blobs that are not known here.
    pub fn add_unknown(&mut self, others: Self) {
        for (blob, paths) in others.blobs {
            self.blobs.entry(blob).or_insert(paths);
        }
    }

    /// What is known of one blob.
    #[must_use]
    pub fn blob(&self, blob: BlobId) -> Option<&BlobPaths> {
        self.blobs.get(&blob)
    }

    fn take_operation(&mut self, operation: &Operation) {
        let outcome = operation.outcome();
        let result = outcome.map(|outcome| outcome.result);
        self.take(operation.intent(), result, outcome.and_then(|outcome| outcome.bytes));
    }

    /// Takes one operation in.
    pub(super) fn take(&mut self, intent: &Intent, result: Option<OutcomeResult>, bytes: Option<u64>) {
        let Some((blob, key)) = wrap_of(intent) else { return };
        let certainty = match result {
            Some(OutcomeResult::Ok) => Certainty::Certain,
            // It was given up before anything was written.
            Some(
                OutcomeResult::Denied
                | OutcomeResult::Conflict
                | OutcomeResult::KeyUnavailable
                | OutcomeResult::KeyDestroyed,
            ) => return,
            // The storage may have taken it, whatever the writer was told.
            _ => Certainty::Possible,
        };
        let paths = self.blobs.entry(blob).or_default();
        paths.open |= result.is_none();
        let known = paths.keys.entry(key).or_insert(certainty);
        *known = certainty.max(*known);
        if intent.action == Action::Seal && certainty == Certainty::Certain {
            paths.bytes = bytes;
        }
    }

    /// The blobs, in order.
    pub fn blobs(&self) -> impl Iterator<Item = (&BlobId, &BlobPaths)> {
        self.blobs.iter()
    }

    /// Whether the log names a blob.
    #[must_use]
    pub fn knows(&self, blob: BlobId) -> bool {
        self.blobs.contains_key(&blob)
    }

    /// The blobs that are or may be wrapped under one of `keys`.
    pub fn under<'a>(
        &'a self,
        keys: &'a BTreeSet<KekId>,
    ) -> impl Iterator<Item = (BlobId, &'a BlobPaths)> + 'a {
        let under = |paths: &BlobPaths| paths.keys.keys().any(|key| keys.contains(key));
        self.blobs.iter().filter(move |(_, paths)| under(paths)).map(|(blob, paths)| (*blob, paths))
    }

    /// Whether a blob is, or may be, wrapped under a key that lives in `ring`.
    #[must_use]
    pub fn lives(&self, ring: &Ring, blob: BlobId) -> bool {
        self.blobs.get(&blob).is_some_and(|paths| paths.keys.keys().any(|key| ring.entry(*key).is_some()))
    }

    /// What became of the blobs under `keys` when `version` of `ring` no longer had them,
    /// or what becomes of them if they are dropped next. Another path counts if its key
    /// was live then, even if nobody knows whether the wrap was written: such a blob is
    /// neither certified as shredded nor deleted.
    #[must_use]
    pub fn scope(&self, ring: &Ring, version: u64, keys: &BTreeSet<KekId>) -> Scope {
        let mut scope = Scope::default();
        for (blob, paths) in self.under(keys) {
            let outlived = |key: &KekId| ring.dropped(*key).is_some_and(|gone| gone.version > version);
            let lives = |key: &KekId| !keys.contains(key) && (ring.entry(*key).is_some() || outlived(key));
            if paths.keys.keys().any(lives) {
                scope.surviving.insert(blob);
            } else if paths.keys.values().any(|certainty| *certainty == Certainty::Certain) {
                scope.bytes += paths.bytes.unwrap_or(0);
                scope.shredded.insert(blob);
            } else {
                scope.uncertain.insert(blob);
            }
        }
        scope
    }
}

/// The paths of the blobs under some keys, as the operations of their customer come by.
///
/// Shards have clocks of their own, so that a blob's extension may be met before its seal:
/// what is passed over, but for seals, is kept aside. A blob that came under one of the
/// keys later is met by that; its seal was passed over, and is looked for once more.
#[derive(Debug, Default)]
pub(super) struct UnderKeys {
    keys: BTreeSet<KekId>,
    paths: Paths,
    /// Blobs whose other paths were passed over.
    late: BTreeSet<BlobId>,
    /// Their paths.
    late_paths: Paths,
    aside: Vec<(BlobId, Operation)>,
}

impl UnderKeys {
    pub(super) fn new(keys: BTreeSet<KekId>) -> Self {
        Self { keys, ..Self::default() }
    }

    /// Takes the next operation of the customer in.
    pub(super) fn take(&mut self, operation: &Operation) {
        let Some((blob, key)) = wrap_of(operation.intent()) else { return };
        let known = self.paths.blobs.contains_key(&blob);
        let seals = operation.intent().action == Action::Seal;
        if !known && !self.keys.contains(&key) {
            if !seals {
                self.aside.push((blob, operation.clone()));
            }
            return;
        }
        if !known && !seals {
            self.late.insert(blob);
        }
        self.paths.take_operation(operation);
    }

    /// Where the operations are that have to come by once more, for [`UnderKeys::take_late`].
    pub(super) fn late_shelves(&self) -> BTreeSet<Shelf> {
        self.late.iter().map(|blob| Shelf::Day(blob.day())).collect()
    }

    pub(super) fn take_late(&mut self, operation: &Operation) {
        if operation.intent().blob.is_some_and(|blob| self.late.contains(&blob)) {
            self.late_paths.take_operation(operation);
        }
    }

    pub(super) fn finish(mut self) -> Paths {
        for (blob, operation) in &self.aside {
            if self.paths.blobs.contains_key(blob) {
                self.paths.take_operation(operation);
            }
        }
        self.paths.blobs.extend(self.late_paths.blobs);
        self.paths
    }
}

/// The blob that an intent wraps, and under which key.
fn wrap_of(intent: &Intent) -> Option<(BlobId, KekId)> {
    let wraps = matches!(intent.action, Action::Seal | Action::Extend | Action::Rewrap | Action::HoldPlace);
    let key = match intent.key.as_ref().filter(|_| wraps)? {
        KeyRef::Kek { id, .. } | KeyRef::HoldKey { id } => *id,
        _ => return None,
    };
    Some((intent.blob?, key))
}

impl Scope {
    /// The blobs that nothing leads to any longer, whether or not they were ever there.
    pub(super) fn gone(&self) -> impl Iterator<Item = BlobId> + '_ {
        self.shredded.iter().chain(&self.uncertain).copied()
    }

    /// Whether nothing leads to a blob any longer.
    pub(super) fn is_gone(&self, blob: BlobId) -> bool {
        self.shredded.contains(&blob) || self.uncertain.contains(&blob)
    }

    /// SHA-256 over the ids of the shredded blobs, in order.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for blob in &self.shredded {
            hash.update(blob.as_bytes());
        }
        hash.finalize().into()
    }
}
