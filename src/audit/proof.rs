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

use super::Record;
use super::commit::leaf_of_line;
use super::layout::{Object, verifier};
use super::log::LogReader;
use super::operation::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::TreeHead;
use crate::time::Timestamp;
use crate::tlog::checkpoint::{Origin, SignedCheckpoint};
use crate::tlog::note::MAX_LEN;
use crate::tlog::proof::TlogProof;
use crate::tlog::{KeyName, VerifierKey};

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
    let log = verifier(reader.store(), entry.shard, reader.authority());
    let path = Object::Checkpoint { shard: entry.shard }.path();
    let unpublished = || {
        let sentence = "the record is not in what is published of the log yet";
        Error::new(ErrorKind::NotFound, sentence)
    };
    let published = reader.get(&path, MAX_LEN as u64).await?.ok_or_else(unpublished)?;
    let checkpoint = SignedCheckpoint::parse(&published)?;
    let head = *checkpoint.verify(&log)?.head();
    if entry.index >= head.size {
        return Err(unpublished());
    }
    let inclusion = reader.tree(entry.shard, head).inclusion(entry.index).await?;
    // A record has one encoding, which is the line that was hashed.
    let line = line_of(&entry.record);
    if leaf_of_line(&line).hash != inclusion.leaf {
        let sentence = "another record is published in the place of the one that is to be proven";
        return Err(Error::new(ErrorKind::Integrity, sentence));
    }
    Ok(TlogProof::new(entry.index, inclusion.path, checkpoint)?.with_extra(line)?)
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
    let record: Record = serde_json::from_slice(line).map_err(|_| not_ours())?;
    if line_of(&record) != line {
        return Err(not_ours());
    }
    let cosigned = proven.cosigned.iter().map(|(witness, at)| (witness.name().clone(), *at)).collect();
    let (origin, tree) = (proven.checkpoint.origin().clone(), *proven.checkpoint.head());
    Ok(Proved { record, index: proof.index(), origin, tree, cosigned })
}

fn line_of(record: &Record) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have string keys only")
}
