//! Witnesses: whoever remembers what a log has shown, so that the log cannot
//! take it back. c2sp.org/tlog-witness.
//!
//! A witness keeps the last checkpoint of each log that it cosigned, and cosigns
//! the next one only with a proof that its tree begins with the same leaves. A
//! log that was rolled back or rewritten finds no such proof. This is the part
//! that decides, and it is pure; what a witness remembers is in [`state`], how it
//! is reached in `server`, and the log's side in [`client`].
//!
//! Invariants: a [`Consistent`] checkpoint is made by [`decide`] only, and nothing
//! else can be cosigned here. Who sends a request is not trusted, and need not be
//! known: the log's signature is what counts.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error as ThisError;

use crate::error::{Error, ErrorKind};
use crate::merkle::{Hash, TreeHead, verify_consistency};
use crate::time::Timestamp;
use crate::tlog::checkpoint::{CheckpointError, Origin, SignedCheckpoint};
use crate::tlog::note::NoteSignature;
use crate::tlog::text::{base64_of, decimal, hash_from_base64};
use crate::tlog::{NamedKey, SignatureType, VerifierKey};

pub mod client;
#[cfg(feature = "witness")]
pub mod http;
#[cfg(feature = "witness")]
pub mod server;
pub mod state;

/// The most hashes that a request can have in its proof: c2sp.org/tlog-witness,
/// "add-checkpoint".
pub const MAX_PROOF: usize = 63;

/// The longest request that is read or made, in bytes: a full proof, and a
/// checkpoint with more signatures than any log has witnesses.
pub const MAX_REQUEST_LEN: usize = 64 * 1024;

/// The most keys that one log can have at a witness.
pub const MAX_KEYS: usize = 16;

/// Why a witness does not cosign. Nothing of the request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not in its one form.
    #[error("the request is not in the form of one")]
    Malformed,
    /// Nobody told the witness of a log with that origin.
    #[error("the log is not known to this witness")]
    UnknownLog,
    /// No key of the log signed the checkpoint, or a signature in the name of one
    /// is false.
    #[error("the checkpoint is not signed by a key of the log that this witness trusts")]
    NotSigned,
    /// The old size is larger than the checkpoint's.
    #[error("the old size is larger than the size of the checkpoint")]
    OldSize,
    /// The proof starts at another tree than the one that was cosigned last.
    #[error("the last checkpoint that was cosigned is of a tree of {size} leaves")]
    Conflict {
        /// The size of the tree that was cosigned last.
        size: u64,
    },
    /// The empty tree is said to have another root than it has.
    #[error("the checkpoint is of no tree")]
    EmptyRoot,
    /// A tree of the same size with another root was cosigned. Both are signed by
    /// the log: there are two histories.
    #[error("the log has signed two trees of the same size with different roots")]
    Forked,
    /// The proof does not show that the tree begins with the one that was cosigned.
    #[error("the checkpoint is not shown to continue the one that was cosigned last")]
    Unproven,
}

impl Refusal {
    /// The HTTP status for it: c2sp.org/tlog-witness, "add-checkpoint".
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::OldSize => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::EmptyRoot | Self::Forked | Self::Unproven => 422,
        }
    }

    /// Whether the log itself may have misbehaved: it signed a checkpoint that
    /// does not go together with one that it signed before.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        matches!(self, Self::Forked | Self::Unproven)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let (kind, sentence) = match refusal {
            Refusal::Malformed | Refusal::OldSize => {
                (ErrorKind::InvalidInput, "a checkpoint was not cosigned")
            }
            Refusal::UnknownLog => (ErrorKind::Configuration, "a checkpoint was not cosigned"),
            Refusal::Conflict { .. } => (ErrorKind::Conflict, "a checkpoint was not cosigned"),
            Refusal::NotSigned | Refusal::EmptyRoot => {
                (ErrorKind::Integrity, "a checkpoint is not as it has to be")
            }
            Refusal::Forked | Refusal::Unproven => {
                (ErrorKind::Integrity, "the log contradicts what it has shown before")
            }
        };
        Self::new(kind, sentence).with_source(refusal)
    }
}

/// The logs that a witness cosigns, by their origin, with the keys of each.
#[derive(Clone, Debug, Default)]
pub struct KnownLogs(BTreeMap<Origin, Vec<VerifierKey>>);

impl KnownLogs {
    /// The logs of these keys. A key's name is the origin of its log; a log may
    /// have several, as when it changes from one to the next.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a witness's key, or with more than
    /// [`MAX_KEYS`] for one log.
    pub fn new(keys: impl IntoIterator<Item = VerifierKey>) -> Result<Self, Error> {
        let invalid = |sentence| Error::new(ErrorKind::InvalidInput, sentence);
        let mut logs = BTreeMap::<Origin, Vec<VerifierKey>>::new();
        for key in keys {
            if key.signature_type() != SignatureType::Ed25519 {
                return Err(invalid("the key of a log is one that signs notes, not a witness's"));
            }
            let keys = logs.entry(key.name().clone().into()).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
            if keys.len() > MAX_KEYS {
                return Err(invalid("a log has too many keys"));
            }
        }
        Ok(Self(logs))
    }

    /// Whether there is a log with that origin.
    #[must_use]
    pub fn contains(&self, origin: &Origin) -> bool {
        self.0.contains_key(origin)
    }

    /// Their origins, in order.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.0.keys()
    }

    /// The checkpoint with the signatures of the log's keys and no others, of
    /// which there is one at least.
    fn verify(&self, signed: &SignedCheckpoint) -> Result<SignedCheckpoint, Refusal> {
        let keys = self.0.get(signed.checkpoint().origin()).ok_or(Refusal::UnknownLog)?;
        let mut signatures = Vec::new();
        for key in keys {
            // A false signature in the name of a key spoils the note, whoever else
            // signed it: c2sp.org/signed-note.
            let signature = signed.note().verified_by(key).map_err(|_| Refusal::NotSigned)?;
            signatures.extend(signature.cloned());
        }
        SignedCheckpoint::new(signed.checkpoint().clone(), signatures).map_err(|_| Refusal::NotSigned)
    }
}

/// The body of a request for a cosignature. Its `Display` is its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old_size: u64,
    proof: Vec<Hash>,
    checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// The request to cosign `checkpoint`, with the proof that its tree begins
    /// with the `old_size` leaves which the witness knows (RFC 6962 s2.1.2).
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it would be longer than [`MAX_REQUEST_LEN`], or
    /// have a longer proof than [`MAX_PROOF`].
    pub fn new(old_size: u64, proof: Vec<Hash>, checkpoint: SignedCheckpoint) -> Result<Self, Refusal> {
        let request = Self { old_size, proof, checkpoint };
        let fits = request.proof.len() <= MAX_PROOF && request.to_string().len() <= MAX_REQUEST_LEN;
        if fits { Ok(request) } else { Err(Refusal::Malformed) }
    }

    /// Reads a request, strictly: formatting the result gives `bytes` again.
    /// Nothing is verified.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it is none, and [`Refusal::EmptyRoot`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_REQUEST_LEN {
            return Err(Refusal::Malformed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed)?;
        let (lines, checkpoint) = text.split_once("\n\n").ok_or(Refusal::Malformed)?;
        let mut lines = lines.split('\n');
        let old_size = lines.next().and_then(|line| decimal(line.strip_prefix("old ")?));
        let old_size = old_size.ok_or(Refusal::Malformed)?;
        let proof: Vec<Hash> =
            lines.map(hash_from_base64).collect::<Option<_>>().ok_or(Refusal::Malformed)?;
        if proof.len() > MAX_PROOF {
            return Err(Refusal::Malformed);
        }
        let checkpoint = SignedCheckpoint::parse(checkpoint.as_bytes()).map_err(|error| match error {
            CheckpointError::Root => Refusal::EmptyRoot,
            _ => Refusal::Malformed,
        })?;
        Ok(Self { old_size, proof, checkpoint })
    }

    /// The size of the tree that the proof starts at.
    #[must_use]
    pub const fn old_size(&self) -> u64 {
        self.old_size
    }

    /// The proof, RFC 6962 s2.1.2.
    #[must_use]
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// What is to be cosigned.
    #[must_use]
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", base64_of(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Decides whether a checkpoint is cosigned: c2sp.org/tlog-witness,
/// "add-checkpoint". `last` is the tree that was cosigned last for its origin, if
/// there was one.
///
/// # Errors
/// [`Refusal`], by the first rule that is broken: who signed is looked at before
/// what, so that strangers learn nothing but which logs are known.
pub fn decide(
    last: Option<&TreeHead>,
    request: &AddCheckpoint,
    logs: &KnownLogs,
) -> Result<Consistent, Refusal> {
    let signed = logs.verify(&request.checkpoint)?;
    let new = signed.checkpoint().head();
    if request.old_size > new.size {
        return Err(Refusal::OldSize);
    }
    let last = last.copied().unwrap_or(TreeHead { size: 0, root: Hash::of(&[]) });
    if request.old_size != last.size {
        return Err(Refusal::Conflict { size: last.size });
    }
    if new.size == last.size && new.root != last.root {
        return Err(Refusal::Forked);
    }
    verify_consistency(&last, new, &request.proof).map_err(|_| Refusal::Unproven)?;
    Ok(Consistent(signed))
}

/// A checkpoint that its log signed, and that continues what was cosigned before.
#[derive(Clone, Debug)]
pub struct Consistent(SignedCheckpoint);

impl Consistent {
    /// Cosigns it as of `at`. What comes out is to be stored before anyone sees it.
    fn cosign(self, key: &NamedKey, at: Timestamp) -> (SignedCheckpoint, NoteSignature) {
        let Self(mut note) = self;
        let cosignature = key.cosign(note.checkpoint(), at);
        note.add(cosignature.clone()).expect("a request and at most MAX_KEYS signatures leave room for one");
        (note, cosignature)
    }
}
