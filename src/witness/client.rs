//! The log's side: having a checkpoint cosigned.
//!
//! Separate from how a witness is reached, so that whoever publishes checkpoints
//! does not know of HTTP, and tests bring witnesses of their own.
//!
//! A witness is trusted with nothing but its signature: an answer counts if it has
//! a cosignature that verifies, and can otherwise delay or deny, and no more.

use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use thiserror::Error as ThisError;

use super::AddCheckpoint;
use crate::error::{Error, ErrorKind, Result, Source};
use crate::merkle::Hash;
use crate::time::Timestamp;
use crate::tlog::VerifierKey;
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::tlog::note::NoteSignature;

/// How often a witness is asked for one checkpoint. Twice is enough unless others
/// ask for the same log at the same time.
const TRIES: u32 = 4;

/// What a witness says instead of cosigning.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum WitnessError {
    /// The proof does not start at the tree that it cosigned last, which is of this
    /// size (HTTP 409).
    #[error("the witness has cosigned a tree of {size} leaves")]
    Conflict {
        /// How many leaves.
        size: u64,
    },
    /// The checkpoint does not continue the one that it cosigned last (422).
    #[error("the witness says that the checkpoint does not continue the one that it cosigned last")]
    Inconsistent,
    /// It trusts none of the keys that signed the checkpoint (403).
    #[error("the witness does not trust the key that signed the checkpoint")]
    NotTrusted,
    /// It does not know the log, or is not there (404).
    #[error("the witness does not know the log, or there is no witness at this URL")]
    UnknownLog,
    /// It does not understand the request (any other 4xx).
    #[error("the witness does not take the request")]
    NotTaken,
    /// It does not answer, or not as a witness does. Later it may.
    #[error("the witness does not answer")]
    Unavailable(#[source] Source),
}

/// A witness, as a log sees it.
///
/// Contract: `cosign` sends one request and gives back what the witness signed,
/// unverified. It ends within a time that the implementation names, and reads a
/// bounded answer. It does not repeat requests: the caller does, and that is safe,
/// since a witness that cosigned says so with a conflict. It may be called from
/// several tasks at once, for any logs. Dropped half way, the witness may have
/// cosigned.
#[async_trait]
pub trait Witness: Send + Sync + fmt::Debug {
    /// The key that its cosignatures verify with.
    fn key(&self) -> &VerifierKey;

    /// Asks for a cosignature.
    ///
    /// # Errors
    /// [`WitnessError`].
    async fn cosign(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError>;
}

/// How it ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The witness vouches for the checkpoint.
    Cosigned {
        /// The checkpoint as it was given, and the cosignature, which was verified.
        checkpoint: SignedCheckpoint,
        /// When it was cosigned, by the witness's clock, to the second.
        at: Timestamp,
    },
    /// It will not, and asking again does not help.
    Refused(Refused),
    /// No answer that can be used. Ask again later.
    Unavailable(Error),
}

/// Why a witness will not cosign. As an [`Error`], the first two are
/// [`ErrorKind::Integrity`]: call someone, and keep the checkpoint and what the
/// witness shows for this log as evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Refused {
    /// It has cosigned a larger tree. Unless the checkpoint is not the newest, the
    /// log was rolled back.
    #[error("the witness has cosigned a larger tree of {size} leaves")]
    Ahead {
        /// How many leaves.
        size: u64,
    },
    /// It has cosigned another tree: the log was rewritten.
    #[error("the witness has cosigned a tree that this one does not continue")]
    OtherTree,
    /// It does not trust the log's key.
    #[error("the witness does not trust the key that signed the checkpoint")]
    NotTrusted,
    /// It does not know the log, or is not a witness.
    #[error("the witness does not know the log, or there is no witness at this URL")]
    UnknownLog,
    /// It does not understand the request.
    #[error("the witness does not take the request")]
    NotTaken,
}

impl Refused {
    /// Whether it says that the log was rolled back or rewritten.
    #[must_use]
    pub const fn is_alarm(self) -> bool {
        matches!(self, Self::Ahead { .. } | Self::OtherTree)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let (kind, sentence) = match refused {
            Refused::Ahead { .. } | Refused::OtherTree => {
                (ErrorKind::Integrity, "a witness has seen another history of the log")
            }
            Refused::NotTrusted | Refused::UnknownLog | Refused::NotTaken => {
                (ErrorKind::Configuration, "a witness does not cosign the log")
            }
        };
        Self::new(kind, sentence).with_source(refused)
    }
}

/// Has `checkpoint` cosigned. `known` is the size of the tree that the witness
/// cosigned last, as far as the caller knows, else 0: if it is another, the witness
/// says so, and is asked again. `prove` makes the proof that the checkpoint's tree
/// begins with the given number of leaves, which are at most all (RFC 6962 s2.1.2);
/// for none it is not called.
///
/// The checkpoint must be the log's newest: an older one looks like a log that was
/// rolled back ([`Refused::Ahead`]).
///
/// # Errors
/// Those of `prove`, and [`ErrorKind::InvalidInput`] if the checkpoint and its proof
/// are too large to send. What the witness does is an [`Outcome`].
///
/// # Cancel safety
/// Dropped half way, the witness may have cosigned; asking again is safe.
pub async fn cosign_checkpoint<P, F>(
    witness: &dyn Witness,
    checkpoint: &SignedCheckpoint,
    known: u64,
    prove: P,
) -> Result<Outcome>
where
    P: Fn(u64) -> F,
    F: Future<Output = Result<Vec<Hash>>>,
{
    let size = checkpoint.checkpoint().head().size;
    // A larger one is for the witness to name.
    let mut old = if known > size { 0 } else { known };
    for _ in 0..TRIES {
        let proof = if old == 0 { Vec::new() } else { prove(old).await? };
        let request = AddCheckpoint::new(old, proof, checkpoint.clone())?;
        let refused = match witness.cosign(&request).await {
            Ok(signatures) => return Ok(outcome(witness.key(), checkpoint, signatures)),
            Err(WitnessError::Conflict { size: at }) if at > size => Refused::Ahead { size: at },
            Err(WitnessError::Conflict { size: at }) => {
                old = at;
                continue;
            }
            Err(WitnessError::Inconsistent) => Refused::OtherTree,
            Err(WitnessError::NotTrusted) => Refused::NotTrusted,
            Err(WitnessError::UnknownLog) => Refused::UnknownLog,
            Err(WitnessError::NotTaken) => Refused::NotTaken,
            Err(error @ WitnessError::Unavailable(_)) => {
                return Ok(Outcome::Unavailable(unavailable().with_source(error)));
            }
        };
        return Ok(Outcome::Refused(refused));
    }
    Ok(Outcome::Unavailable(
        unavailable().with_source("the witness contradicts itself, or others ask it too"),
    ))
}

/// The checkpoint with the witness's cosignature, if one of these is. All else is
/// passed over: c2sp.org/tlog-witness, "add-checkpoint".
fn outcome(key: &VerifierKey, checkpoint: &SignedCheckpoint, signatures: Vec<NoteSignature>) -> Outcome {
    let by_witness = |line: &NoteSignature| line.name() == key.name() && line.id() == key.id();
    for signature in signatures.into_iter().filter(by_witness) {
        // It takes the place of one that the checkpoint came with.
        let mut cosigned = checkpoint.clone();
        if cosigned.add(signature).is_err() {
            continue;
        }
        if let Ok(Some(at)) = cosigned.cosigned_by(key) {
            return Outcome::Cosigned { checkpoint: cosigned, at };
        }
    }
    Outcome::Unavailable(unavailable().with_source("the answer has no cosignature by the witness's key"))
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "a witness did not cosign a checkpoint")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::super::tests::{head, known, leaves, log, named, signed};
    use super::super::{Refusal, decide};
    use super::*;
    use crate::merkle::{TreeHead, prove_consistency};
    use crate::tlog::NamedKey;

    const NEVER: usize = usize::MAX;

    /// A witness that keeps the rules, except where it is told what to answer.
    #[derive(Debug)]
    struct Scripted {
        key: NamedKey,
        public: VerifierKey,
        last: Mutex<Option<TreeHead>>,
        answers: Mutex<VecDeque<Result<Vec<NoteSignature>, WitnessError>>>,
        asked: Mutex<Vec<u64>>,
    }

    impl Scripted {
        fn new(last: usize) -> Self {
            let key = named("example.com/witness", 9);
            let last = (last > 0).then(|| head(&leaves(last, NEVER)));
            Self {
                public: key.cosigner(),
                key,
                last: Mutex::new(last),
                answers: Mutex::default(),
                asked: Mutex::default(),
            }
        }

        fn says(self, answer: Result<Vec<NoteSignature>, WitnessError>) -> Self {
            self.answers.lock().unwrap().push_back(answer);
            self
        }
    }

    #[async_trait]
    impl Witness for Scripted {
        fn key(&self) -> &VerifierKey {
            &self.public
        }

        async fn cosign(&self, request: &AddCheckpoint) -> Result<Vec<NoteSignature>, WitnessError> {
            self.asked.lock().unwrap().push(request.old_size());
            if let Some(answer) = self.answers.lock().unwrap().pop_front() {
                return answer;
            }
            let mut last = self.last.lock().unwrap();
            match decide(last.as_ref(), request, &known()) {
                Ok(consistent) => {
                    let (note, line) = consistent.cosign(&self.key, seconds(5));
                    *last = Some(*note.checkpoint().head());
                    Ok(vec![line])
                }
                Err(Refusal::Conflict { size }) => Err(WitnessError::Conflict { size }),
                Err(_) => Err(WitnessError::Inconsistent),
            }
        }
    }

    fn seconds(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    async fn ask(witness: &Scripted, known: u64, new: usize, fork: usize) -> Outcome {
        let leaves = leaves(new, fork);
        let checkpoint = signed(&log(), head(&leaves));
        let prove = async |old: u64| Ok(prove_consistency(&leaves, usize::try_from(old).unwrap()).unwrap());
        cosign_checkpoint(witness, &checkpoint, known, prove).await.unwrap()
    }

    #[track_caller]
    fn refused(outcome: Outcome) -> Refused {
        match outcome {
            Outcome::Refused(refused) => refused,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_proof_is_made_for_the_size_that_the_witness_names() {
        for (last, known, asked) in [
            (0, 0, vec![0]),
            (5, 5, vec![5]),
            (5, 0, vec![0, 5]),
            (5, 7, vec![7, 5]),
            (0, 3, vec![3, 0]),
            (9, 99, vec![0, 9]),
        ] {
            let witness = Scripted::new(last);
            let Outcome::Cosigned { checkpoint, at } = ask(&witness, known, 9, NEVER).await else {
                panic!("{last} {known}")
            };
            assert_eq!(at, seconds(5));
            assert_eq!(checkpoint.cosigned_by(witness.key()).unwrap(), Some(at));
            assert!(checkpoint.verify(&log().verifier()).is_ok());
            assert_eq!(*witness.asked.lock().unwrap(), asked);
        }
    }

    #[tokio::test]
    async fn a_log_that_went_back_or_elsewhere_is_an_alarm() {
        let witness = Scripted::new(9);
        let ahead = refused(ask(&witness, 9, 7, NEVER).await);
        let forked = refused(ask(&witness, 9, 9, 3).await);
        let rewritten = refused(ask(&witness, 9, 12, 3).await);
        assert_eq!(ahead, Refused::Ahead { size: 9 });
        assert_eq!((forked, rewritten), (Refused::OtherTree, Refused::OtherTree));
        for alarm in [ahead, forked] {
            assert!(alarm.is_alarm());
            assert_eq!(Error::from(alarm).kind(), ErrorKind::Integrity);
        }
    }

    #[tokio::test]
    async fn what_else_it_says_is_told_apart() {
        for (answer, refused_as) in [
            (WitnessError::NotTrusted, Refused::NotTrusted),
            (WitnessError::UnknownLog, Refused::UnknownLog),
            (WitnessError::NotTaken, Refused::NotTaken),
        ] {
            let witness = Scripted::new(0).says(Err(answer));
            let refused = refused(ask(&witness, 0, 5, NEVER).await);
            assert_eq!((refused, refused.is_alarm()), (refused_as, false));
        }
        let witness = Scripted::new(0).says(Err(WitnessError::Unavailable("gone".into())));
        assert!(matches!(ask(&witness, 0, 5, NEVER).await, Outcome::Unavailable(_)));
        let mut endless = Scripted::new(0);
        for _ in 0..100 {
            endless = endless.says(Err(WitnessError::Conflict { size: 3 }));
        }
        assert!(matches!(ask(&endless, 0, 5, NEVER).await, Outcome::Unavailable(_)));
        assert_eq!(endless.asked.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn only_a_cosignature_by_its_key_counts() {
        let leaves = leaves(5, NEVER);
        let checkpoint = signed(&log(), head(&leaves));
        let good = Scripted::new(0).key.cosign(checkpoint.checkpoint(), seconds(5));
        let other = signed(&log(), head(&leaves[..4]));
        let of_other = Scripted::new(0).key.cosign(other.checkpoint(), seconds(5));
        let stranger = named("example.com/witness", 8).cosign(checkpoint.checkpoint(), seconds(5));
        let signature = Scripted::new(0).key.sign(checkpoint.note().text());
        let not = [of_other, stranger, signature];
        let witness = Scripted::new(0).says(Ok(not.to_vec())).says(Ok(Vec::new()));
        for _ in 0..2 {
            assert!(matches!(ask(&witness, 0, 5, NEVER).await, Outcome::Unavailable(_)));
        }
        let witness = Scripted::new(0).says(Ok([&not[..], std::slice::from_ref(&good)].concat()));
        let Outcome::Cosigned { checkpoint: cosigned, .. } = ask(&witness, 0, 5, NEVER).await else {
            panic!("one of them is good")
        };
        assert_eq!(cosigned.note().signatures().len(), 2);

        // One that it came with is no answer.
        let mut before = checkpoint.clone();
        before.add(good).unwrap();
        let witness = Scripted::new(0).says(Ok(not.to_vec()));
        let prove = async |_| Ok(Vec::new());
        let outcome = cosign_checkpoint(&witness, &before, 0, prove).await.unwrap();
        assert!(matches!(outcome, Outcome::Unavailable(_)));
    }

    #[tokio::test]
    async fn a_proof_that_cannot_be_made_is_the_callers_error() {
        let witness = Scripted::new(5);
        let checkpoint = signed(&log(), head(&leaves(9, NEVER)));
        let prove = async |_| Err(Error::new(ErrorKind::Unavailable, "no tiles"));
        let error = cosign_checkpoint(&witness, &checkpoint, 0, prove).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
