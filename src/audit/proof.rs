//! The proof that one record is in the log, in a file that stands by itself
//! (c2sp.org/tlog-proof).
//!
//! Its extra data are the record's line, without the line feed. Whoever checks it
//! hashes the line (entry = SHA-256(line), leaf = RFC 6962 s2.1 over the entry) and
//! needs the log's public key, and nothing of ours. Nobody else's record is in it.
//!
//! Separate from the reader, because a proof is about what was published: the
//! checkpoint and the tiles. Checking is pure.
//!
//! Invariants: a [`Proved`] record was hashed, is in the tree of a checkpoint that the
//! log's key signed and that as many witnesses as were called for cosigned. A proof
//! that is made was checked.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use futures_util::stream::TryStreamExt;

use super::commit::leaf_of_line;
use super::layout::Object;
use super::log::LogReader;
use super::operation::{Entry, Operation};
use super::query::{Filter, operations, query};
use super::{Event, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, RequestId};
use crate::merkle::TreeHead;
use crate::time::Timestamp;
use crate::tlog::checkpoint::{Origin, SignedCheckpoint};
use crate::tlog::note::MAX_LEN;
use crate::tlog::proof::TlogProof;
use crate::tlog::{KeyName, VerifierKey};

/// Why there is no proof of a record that is in the log.
pub(crate) const UNPUBLISHED: &str = "the record is not in what is published of the log yet";

/// Whether an error of [`prove`] says that the record is in the log and has to be published
/// first.
#[must_use]
pub fn is_unpublished(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound && error.to_string() == UNPUBLISHED
}

/// A record that is to be proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// By its place.
    Place {
        /// Its shard.
        shard: u16,
        /// Its leaf in the shard's tree, from 0.
        index: u64,
    },
    /// By its operation, which is looked for among those that were begun from `from` until
    /// before `until`.
    Request {
        /// The operation.
        request: RequestId,
        /// Its outcome, and not its intent.
        outcome: bool,
        /// Not before this time.
        from: Option<Timestamp>,
        /// Before this time.
        until: Option<Timestamp>,
    },
}

impl Sought {
    /// Whether a record at this place is the one.
    #[must_use]
    pub fn is(&self, record: &Record, (of_shard, of_index): (u16, u64)) -> bool {
        match (self, &record.event) {
            (Self::Place { shard, index }, _) => (*shard, *index) == (of_shard, of_index),
            (Self::Request { request, outcome: false, .. }, Event::Intent(intent)) => {
                intent.request == *request
            }
            (Self::Request { request, outcome: true, .. }, Event::Outcome(outcome)) => {
                outcome.request == *request
            }
            (Self::Request { .. }, _) => false,
        }
    }
}

/// Finds a record. With `customer`, one that does not concern that customer is not found.
///
/// # Errors
/// As [`query`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn find(
    reader: &LogReader,
    sought: &Sought,
    customer: Option<CustomerId>,
) -> Result<Option<Entry>> {
    let found = match *sought {
        Sought::Place { shard, index } => reader.shard(shard).await?.entry(index).await?,
        Sought::Request { request, outcome, from, until } => {
            let filter = Filter { customer, request: Some(request), from, until, ..Filter::default() };
            let operation = query(reader, &filter, None, NonZeroUsize::MIN).await?.operations.pop();
            operation.and_then(|operation| match outcome {
                true => operation.outcome_entry().cloned(),
                false => Some(operation.intent_entry().clone()),
            })
        }
    };
    let fits = |entry: &Entry| customer.is_none() || entry.record.event.customer() == customer;
    Ok(found.filter(fits))
}

/// The proof that `entry` is in its shard's tree as it is published.
///
/// # Errors
/// [`ErrorKind::NotFound`] if what is published does not have it yet: the shard is to
/// be published, and then it can be proven. [`ErrorKind::Integrity`] if a tile or the
/// checkpoint is missing or is not the log's, or if another record is published in its
/// place; [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
///
/// # Cancel safety
/// Nothing is written.
pub async fn prove(reader: &LogReader, entry: &Entry) -> Result<TlogProof> {
    let mut proofs = prove_in(reader, entry.shard, &[entry]).await?;
    Ok(proofs.pop().expect("a proof for each entry"))
}

/// [`prove`] for several, in their order. The checkpoint of a shard is read once, and
/// so is each tile.
///
/// # Errors
/// As [`prove`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn prove_all(reader: &LogReader, entries: &[Entry]) -> Result<Vec<TlogProof>> {
    let shards: BTreeSet<u16> = entries.iter().map(|entry| entry.shard).collect();
    let mut proofs = BTreeMap::new();
    for shard in shards {
        let (at, of_shard): (Vec<_>, Vec<_>) =
            entries.iter().enumerate().filter(|(_, entry)| entry.shard == shard).unzip();
        proofs.extend(at.into_iter().zip(prove_in(reader, shard, &of_shard).await?));
    }
    Ok(proofs.into_values().collect())
}

/// An operation with the proofs of its two records.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ProvenOperation {
    /// The operation.
    pub operation: Operation,
    /// That its intent is in the log.
    pub intent: TlogProof,
    /// That its outcome is, if it has one.
    pub outcome: Option<TlogProof>,
}

/// The operations of these requests, proven, in the order of `requests`. They are looked
/// for among the records from `from` until before `until`: the log is read once over
/// that time.
///
/// # Errors
/// As [`prove`], and [`ErrorKind::NotFound`] if one is not there.
///
/// # Cancel safety
/// Nothing is written.
pub async fn prove_requests(
    reader: &LogReader,
    requests: &[RequestId],
    from: Timestamp,
    until: Option<Timestamp>,
) -> Result<Vec<ProvenOperation>> {
    let filter = Filter { from: Some(from), until, ..Filter::default() };
    let mut missing: BTreeSet<RequestId> = requests.iter().copied().collect();
    let mut found = BTreeMap::new();
    let mut all = operations(reader, &filter, None);
    while !missing.is_empty()
        && let Some(operation) = all.try_next().await?
    {
        let request = operation.intent().request;
        if missing.remove(&request) {
            found.insert(request, operation);
        }
    }
    let not_there = || Error::new(ErrorKind::NotFound, "a request is not in the log at that time");
    let mut entries = Vec::new();
    for operation in found.values() {
        entries.push(operation.intent_entry().clone());
        entries.extend(operation.outcome_entry().cloned());
    }
    let mut proofs = prove_all(reader, &entries).await?.into_iter();
    let mut next = || proofs.next().expect("a proof for each entry");
    let mut proven = BTreeMap::new();
    for (request, operation) in found {
        let (intent, outcome) = (next(), operation.outcome_entry().map(|_| next()));
        proven.insert(request, ProvenOperation { operation, intent, outcome });
    }
    requests.iter().map(|request| proven.get(request).cloned().ok_or_else(not_there)).collect()
}

async fn prove_in(reader: &LogReader, shard: u16, entries: &[&Entry]) -> Result<Vec<TlogProof>> {
    let path = Object::Checkpoint { shard }.path();
    let unpublished = || Error::new(ErrorKind::NotFound, UNPUBLISHED);
    let published = reader.get(&path, MAX_LEN as u64).await?.ok_or_else(unpublished)?;
    let checkpoint = SignedCheckpoint::parse(&published)?;
    reader.authority().verify(&checkpoint, (reader.store(), shard))?;
    let head = *checkpoint.checkpoint().head();
    if entries.iter().any(|entry| entry.index >= head.size) {
        return Err(unpublished());
    }
    let indices: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
    let inclusions = reader.tree(shard, head).inclusions(&indices).await?;
    let proofs = entries.iter().zip(inclusions).map(|(entry, inclusion)| {
        let line = entry.record.to_line();
        if leaf_of_line(&line).hash != inclusion.leaf {
            let sentence = "another record is published in the place of the one that is to be proven";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        Ok(TlogProof::new(entry.index, inclusion.path, checkpoint.clone())?.with_extra(line)?)
    });
    proofs.collect()
}

/// A record that was proven to be in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Proved {
    /// The record.
    pub record: Record,
    /// Its leaf in the tree, from 0.
    pub index: u64,
    /// The log.
    pub origin: Origin,
    /// The tree.
    pub tree: TreeHead,
    /// Which of the witnesses have seen that tree, and when, to the second.
    pub cosigned: Vec<(KeyName, Timestamp)>,
}

/// Checks a proof: that its record is in the log whose key is `log`, and that at least
/// `quorum` of `witnesses` have seen the tree.
///
/// # Errors
/// [`ErrorKind::Integrity`] if it does not show that.
pub fn check(
    proof: &TlogProof,
    log: &VerifierKey,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Proved> {
    let not_ours =
        || Error::new(ErrorKind::Integrity, "what the proof is of is not a record of an audit log");
    let line = proof.extra().ok_or_else(not_ours)?;
    let proven = proof.verify(leaf_of_line(line).hash, log, witnesses, quorum)?;
    let record = Record::from_line(line).ok_or_else(not_ours)?;
    let cosigned = proven.cosigned.iter().map(|(witness, at)| (witness.name().clone(), *at)).collect();
    let (origin, tree) = (proven.checkpoint.origin().clone(), *proven.checkpoint.head());
    Ok(Proved { record, index: proof.index(), origin, tree, cosigned })
}
