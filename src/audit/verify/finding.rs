//! What a verification finds, and the list that it is kept in.
//!
//! A [`Problem`] says what is wrong in one sentence, with the place in the
//! object; the [`Finding`] says which object. Nothing of a damaged object is
//! repeated but numbers, hashes and ids.

use std::sync::{Mutex, PoisonError};

use object_store::path::Path;
use thiserror::Error as ThisError;

use crate::error::Error;
use crate::id::{CertificateId, OrderId, RequestId, WriterId};
use crate::time::Timestamp;

/// How many findings are kept; more are counted.
pub const MAX_FINDINGS: usize = 1000;

/// Whether something has to be done about a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The storage is not what was written.
    Wrong,
    /// Good to know; nothing is wrong.
    Note,
}

impl Severity {
    /// The severity as a stable identifier.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Note => "note",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// The path of the object on the audit storage.
    pub path: String,
    /// Whether it is wrong.
    pub severity: Severity,
    /// What it is. Its `Display` is a sentence without an end, about the object.
    pub problem: Problem,
}

/// What is wrong with an object, or worth a note.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Problem {
    /// No path of an audit log.
    #[error("is no object of an audit log")]
    Stranger,
    /// Something that has to be there is not.
    #[error("is missing: {0}")]
    Missing(&'static str),
    /// Many objects in a row are missing, this one first.
    #[error("is missing, and so are the {more} commits behind it")]
    MissingMany {
        /// How many behind it.
        more: u64,
    },
    /// It cannot be read as what it should be.
    #[error("{0}")]
    Unreadable(String),
    /// A commit or segment that belongs elsewhere.
    #[error("belongs to another store, shard or place")]
    Misplaced,
    /// It does not follow from the commit before it.
    #[error("{0}")]
    NotNext(String),
    /// What stands in a segment.
    #[error("commit {seq} in it: {sentence}")]
    InSegment {
        /// The number of the commit.
        seq: u64,
        /// What is wrong with it.
        sentence: String,
    },
    /// A segment that is cut elsewhere than the commits have it, or is there
    /// twice.
    #[error("is not a segment that the commits make")]
    NotCut,
    /// A commit that a segment has otherwise.
    #[error("differs from what a segment keeps of it")]
    DiffersFromSegment,
    /// The marker is of another store than the commits.
    #[error("names another store than the commits")]
    OtherStore,
    /// The marker names another key than was given.
    #[error("names another log key than the one to verify with")]
    OtherKey,
    /// No commit is endorsed by the log's key.
    #[error("no commit that was looked at was endorsed by the log's key")]
    NoEndorsement,
    /// A shard of which the first shard says nothing.
    #[error("is of a shard that the first shard does not name")]
    UnnamedShard,
    /// A record contradicts another.
    #[error("line {line} (leaf {leaf}): {problem}")]
    Record {
        /// The line in the commit, from 1, as an editor counts.
        line: u64,
        /// The number of the leaf in the tree, from 0.
        leaf: u64,
        /// What is wrong.
        problem: RecordProblem,
    },
    /// `settled` claims too much.
    #[error("says that commits below {settled} are settled, and commit {open} has an open intent")]
    NotSettled {
        /// What it says.
        settled: u64,
        /// The first commit with an open intent.
        open: u64,
    },
    /// A writer wrote after it was fenced.
    #[error("was made by writer {0}, which counts as dead here")]
    Fenced(WriterId),
    /// A writer was fenced, and not all of its intents were closed.
    #[error("fences writer {0} and leaves intents of it open")]
    FencedOpen(WriterId),
    /// A file is longer or shorter than it has to be.
    #[error("has {found} bytes in place of {expected}")]
    Length {
        /// As stored.
        found: u64,
        /// As it has to be.
        expected: u64,
    },
    /// A tile or bundle is not that of the records.
    #[error("differs from the records at entry {0} of it")]
    Entry(u64),
    /// A tile or bundle of a tree that the records do not make.
    #[error("goes beyond the {0} records that there are")]
    Beyond(u64),
    /// The checkpoint or another signed tree is larger than the log.
    #[error("is of {size} records, and there are {records}")]
    Larger {
        /// What it says.
        size: u64,
        /// What is there.
        records: u64,
    },
    /// A checkpoint's root is not the tree's.
    #[error("has another root than the first {0} records")]
    Root(u64),
    /// Too few witnesses.
    #[error("is cosigned by {found} of the witnesses, and {quorum} are asked for")]
    Quorum {
        /// How many cosigned.
        found: usize,
        /// How many have to.
        quorum: usize,
    },
    /// A checkpoint that was kept elsewhere is not one of this log.
    #[error("the checkpoint kept elsewhere is not signed by this log: {0}")]
    PinnedForeign(String),
    /// A checkpoint that was kept elsewhere is of a longer log.
    #[error(
        "the log was rolled back: a checkpoint kept elsewhere is of {size} records, and there are {records}"
    )]
    RolledBack {
        /// What the kept checkpoint says.
        size: u64,
        /// What is there.
        records: u64,
    },
    /// A checkpoint that was kept elsewhere is of another log.
    #[error("the log was rewritten: a checkpoint kept elsewhere has another root for the first {0} records")]
    Rewritten(u64),
    /// A base or an extract that the commits do not make.
    #[error("is not what the commits make")]
    NotOfCommits,
    /// A base of which the first shard says nothing.
    #[error("is not on record in the first shard")]
    NotOnRecord,
    /// The first commits of a shard are missing, and were not removed by the rules.
    #[error(
        "is missing, and so are all before commit {0}: no record says that they were removed, or fewer than \
         two bases stand for them"
    )]
    NotRemoved(u64),
    /// A ring pin that no intent in the log stands for.
    #[error("is not what any ring write in the log names")]
    PinUnknown,
    /// A ring pin whose text is none.
    #[error("is no ring pin")]
    PinUnreadable,
    /// A voucher that no intent in the log stands for.
    #[error("is for what no write in the log names")]
    VoucherUnknown,
    /// A voucher that no endorsed writer signed for what its path says.
    #[error("is not signed for this by a writer whom the log's key endorsed")]
    VoucherForeign,
    /// A certificate whose proofs lead to a tree that the log never had: the log
    /// was rolled back or rewritten since, or the certificate is of another.
    #[error("leads to a tree of {0} records, which this log does not have")]
    PaperTree(u64),
    /// The paper of an epoch's end that is not the one which a certificate names.
    #[error("is another paper than certificate {0} names")]
    NotAsNamed(CertificateId),
    /// A statement that does not lead from a key of the log to the next.
    #[error("does not lead from a key of the log to the next")]
    KeyAstray,
    /// A shard is under the key before. While the key is being changed, a note.
    #[error(
        "the change to this key of the log has not reached shard {0:04x}: finish it with `audit rotate-key`"
    )]
    KeyBehind(u16),
    /// A checkpoint, or the beginning of a shard, under a key that was not in force any longer.
    #[error("is signed by key number {found} of the log, and number {needed} was in force")]
    OldKey {
        /// The newest key that signed it.
        found: u32,
        /// The one that was in force.
        needed: u32,
    },
    /// A note: the log's key was replaced, after the one that is known from elsewhere.
    #[error("the log's key was replaced at {time}, by order {order} of {by}: compare who they are")]
    KeyChanged {
        /// When the statement was made.
        time: Timestamp,
        /// The order.
        order: OrderId,
        /// Who signed it, and with which keys.
        by: String,
    },
    /// A note: how many records the checkpoint does not cover.
    #[error("covers all but the newest {0} records")]
    Uncovered(u64),
    /// A note: signatures that could not be verified.
    #[error("has {0} more signatures, by keys that were not given")]
    UnknownSignatures(usize),
    /// A note: nothing was signed yet.
    #[error("there is none yet")]
    NoCheckpoint,
    /// A note: whose key it is was not known from elsewhere.
    #[error("the log's key was taken from here: whoever replaced the whole storage replaced it too")]
    KeyFromStorage,
    /// A note: the first commits of a shard were removed, which is on record.
    #[error("was removed, and so were all before commit {0}, which is on record: a base stands for them")]
    AgedOut(u64),
    /// A note: tiles without records to compare them with.
    #[error(
        "from record {0} on, tiles could not be compared with the records, because commits are missing or damaged"
    )]
    TilesUnchecked(u64),
    /// A note: pins whose intents may be in commits that are missing.
    #[error("could not be compared with the log, because commits are missing or damaged")]
    Unchecked,
    /// A note: pins and vouchers of versions that were written in days which were removed.
    #[error("{0} pins and vouchers are of days that were removed")]
    PinsUnchecked(usize),
    /// A note: the clocks of writer and verifier differ.
    #[error("is dated {0}, which is in the future")]
    Future(Timestamp),
}

/// How a record contradicts the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum RecordProblem {
    /// Two intents with one request.
    #[error("request {0} was begun before")]
    SecondIntent(RequestId),
    /// An outcome without an intent.
    #[error("the outcome of request {0} has no intent before it")]
    NoIntent(RequestId),
    /// Two outcomes of one request.
    #[error("request {0} has an outcome already")]
    SecondOutcome(RequestId),
    /// An outcome for another customer than the intent.
    #[error("the outcome of request {0} names another customer than its intent")]
    OtherCustomer(RequestId),
    /// An outcome by a writer who did not begin, and did not fence who did.
    #[error("the outcome of request {0} is by another writer, and the one who began it was not fenced")]
    OtherWriter(RequestId),
    /// A shard's head or a view outside the first shard.
    #[error("only the first shard may say this")]
    OutsideFirstShard,
    /// A shard that is named for the first time, with records.
    #[error("shard {0:04x} is named for the first time, and not with an empty tree")]
    ShardNotOpened(u16),
    /// A head that the shard never had.
    #[error("shard {0:04x} never had this tree")]
    NeverHead(u16),
    /// A head that the shard has not reached.
    #[error("shard {0:04x} has fewer records than this tree")]
    ShardBehind(u16),
    /// A view without all shards, or with others.
    #[error("the view does not list the shards that there are")]
    ViewShards,
    /// A view that does not say how many records a customer has.
    #[error("the view is not true of shard {0:04x}")]
    ViewRecords(u16),
    /// A base that is another.
    #[error("shard {shard:04x} has another base of {commits} commits")]
    OtherBase {
        /// The shard.
        shard: u16,
        /// How many commits it is of.
        commits: u64,
    },
    /// A ring version in place whose pin is not.
    #[error("the ring write of request {0} ended well, and its version is not pinned")]
    NotPinned(RequestId),
    /// The record of an epoch in place that nobody vouched for.
    #[error("the epoch's record of request {0} was written, and its voucher is missing")]
    NotVouched(RequestId),
}

impl Problem {
    /// The problem as a stable identifier.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Missing(_) | Self::MissingMany { .. } => "missing",
            Self::Unreadable(_) | Self::InSegment { .. } | Self::PinUnreadable => "unreadable",
            Self::Misplaced => "misplaced",
            Self::NotNext(_) => "not-next",
            Self::NotCut => "not-cut",
            Self::DiffersFromSegment => "differs-from-segment",
            Self::OtherStore => "other-store",
            Self::OtherKey => "other-key",
            Self::NoEndorsement => "no-endorsement",
            Self::UnnamedShard => "unnamed-shard",
            Self::Record { .. } => "record",
            Self::NotSettled { .. } => "not-settled",
            Self::Fenced(_) | Self::FencedOpen(_) => "fenced",
            Self::Length { .. } => "length",
            Self::Entry(_) => "entry",
            Self::Beyond(_) => "beyond",
            Self::Larger { .. } => "larger",
            Self::Root(_) => "root",
            Self::Quorum { .. } => "quorum",
            Self::PinnedForeign(_) => "pinned-foreign",
            Self::RolledBack { .. } => "rolled-back",
            Self::Rewritten(_) => "rewritten",
            Self::NotOfCommits => "not-of-commits",
            Self::NotOnRecord => "not-on-record",
            Self::NotRemoved(_) => "not-removed",
            Self::PinUnknown => "pin-unknown",
            Self::VoucherUnknown => "voucher-unknown",
            Self::VoucherForeign => "voucher-foreign",
            Self::PaperTree(_) => "paper-tree",
            Self::NotAsNamed(_) => "not-as-named",
            Self::KeyAstray => "key-astray",
            Self::KeyBehind(_) => "key-behind",
            Self::OldKey { .. } => "old-key",
            Self::KeyChanged { .. } => "key-changed",
            Self::Uncovered(_) => "uncovered",
            Self::UnknownSignatures(_) => "unknown-signatures",
            Self::NoCheckpoint => "no-checkpoint",
            Self::KeyFromStorage => "key-from-storage",
            Self::AgedOut(_) => "aged-out",
            Self::TilesUnchecked(_) => "tiles-unchecked",
            Self::Unchecked | Self::PinsUnchecked(_) => "unchecked",
            Self::Future(_) => "future",
        }
    }

    /// What an error says, and its causes.
    pub(super) fn unreadable(error: &Error) -> Self {
        Self::Unreadable(error.chain())
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    kept: Vec<Finding>,
    wrong: u64,
    notes: u64,
}

impl Findings {
    pub(super) fn wrong(&self, path: &Path, problem: Problem) {
        self.add(path, Severity::Wrong, problem);
    }

    pub(super) fn note(&self, path: &Path, problem: Problem) {
        self.add(path, Severity::Note, problem);
    }

    fn add(&self, path: &Path, severity: Severity, problem: Problem) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        match severity {
            Severity::Wrong => list.wrong += 1,
            Severity::Note => list.notes += 1,
        }
        if list.kept.len() < MAX_FINDINGS {
            list.kept.push(Finding { path: path.to_string(), severity, problem });
        }
    }

    /// Those kept, what is wrong first, and how many there were of each severity.
    pub(super) fn into_parts(self) -> (Vec<Finding>, u64, u64) {
        let List { mut kept, wrong, notes } = self.list.into_inner().unwrap_or_else(PoisonError::into_inner);
        kept.sort_by_key(|finding| finding.severity);
        (kept, wrong, notes)
    }
}
