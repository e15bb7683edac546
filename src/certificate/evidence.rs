//! Records of the log inside a certificate or another paper, each with its proof.
//!
//! The proof is the text of c2sp.org/tlog-proof, with the record as its extra data; it
//! stands by itself, and other people's tools verify it.

use serde::{Deserialize, Serialize};

use super::error::CertificateError;
use crate::audit::authority::Authority;
use crate::audit::layout::shard_of;
use crate::audit::proof::{self, Proved, ProvenOperation};
use crate::audit::{Action, Event, Intent, Outcome, OutcomeResult};
use crate::error::Result;
use crate::id::StoreId;
use crate::time::Timestamp;
use crate::tlog::VerifierKey;
use crate::tlog::proof::TlogProof;

/// One operation in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Evidence {
    /// What was done.
    pub what: What,
    /// The proof of its intent.
    pub intent: String,
    /// The proof of its outcome, if that was in the log when the paper was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub outcome: Option<String>,
}

impl Evidence {
    /// An operation as it was proven; `None` if it is of no kind that belongs into a
    /// certificate or a paper that one names.
    #[must_use]
    pub fn of(proven: &ProvenOperation) -> Option<Self> {
        let action = proven.operation.intent().action;
        let what = What::ALL.into_iter().find(|what| what.action() == action)?;
        let outcome = proven.outcome.as_ref().map(TlogProof::to_string);
        Some(Self { what, intent: proven.intent.to_string(), outcome })
    }
}

/// What a record in a certificate says was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The order was asked for.
    OrderRequest,
    /// It was approved.
    OrderApprove,
    /// A key entered the window before its destruction.
    Pend,
    /// A key was dropped: its tombstone.
    Drop,
    /// The ring version without the keys was written.
    RingWrite,
    /// The KMS key of an epoch was disabled.
    EpochDisable,
    /// Its deletion was scheduled.
    EpochDelete,
    /// The deletion of the customer's KMS key was scheduled.
    CustomerKeyDelete,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::OrderRequest,
        Self::OrderApprove,
        Self::Pend,
        Self::Drop,
        Self::RingWrite,
        Self::EpochDisable,
        Self::EpochDelete,
        Self::CustomerKeyDelete,
    ];

    /// What the log calls it.
    #[must_use]
    pub const fn action(self) -> Action {
        match self {
            Self::OrderRequest => Action::OrderRequest,
            Self::OrderApprove => Action::OrderApprove,
            Self::Pend => Action::ShredPend,
            Self::Drop => Action::ShredDrop,
            Self::RingWrite => Action::RingWrite,
            Self::EpochDisable => Action::EpochDisable,
            Self::EpochDelete => Action::EpochDelete,
            Self::CustomerKeyDelete => Action::CustomerKeyDelete,
        }
    }

    /// What the page calls it.
    pub(super) const fn phrase(self) -> &'static str {
        match self {
            Self::OrderRequest => "the order was asked for",
            Self::OrderApprove => "the order was approved",
            Self::Pend => "a key entered the window",
            Self::Drop => "a key was dropped",
            Self::RingWrite => "the ring without it was written",
            Self::EpochDisable => "an epoch's key was disabled",
            Self::EpochDelete => "the deletion of an epoch's key was scheduled",
            Self::CustomerKeyDelete => "the deletion of the customer's KMS key was scheduled",
        }
    }
}

/// An operation whose proofs hold.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) what: What,
    pub(super) intent: Intent,
    /// When the intent was recorded.
    pub(super) at: Timestamp,
    /// How it ended, if its outcome is proven.
    pub(super) result: Option<OutcomeResult>,
    pub(super) proven: Vec<Proved>,
}

/// Checks the proofs of one operation against its store's log, and that the outcome is
/// that of the intent, and no failure.
pub(super) fn show(
    evidence: &Evidence,
    store: StoreId,
    log_key: &Authority,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Shown> {
    let prove = |text: &str| -> Result<Proved> {
        let proof = TlogProof::parse(text.as_bytes())?;
        let origin = proof.checkpoint().checkpoint().origin();
        let shard = shard_of(store, origin).ok_or(CertificateError::OtherLog)?;
        let key = log_key.verifier(proof.checkpoint(), (store, shard));
        proof::check(&proof, &key, witnesses, quorum)
    };
    let mut proven = vec![prove(&evidence.intent)?];
    let (intent, at) = match &proven[0].record {
        record if intent_of(&record.event).is_some_and(|i| i.action == evidence.what.action()) => {
            (intent_of(&record.event).expect("looked at above").clone(), record.time)
        }
        _ => return Err(CertificateError::OtherRecord.into()),
    };
    let mut result = None;
    if let Some(text) = &evidence.outcome {
        let proved = prove(text)?;
        let outcome = outcome_of(&proved.record.event).filter(|outcome| {
            outcome.request == intent.request
                && outcome.customer == intent.customer
                // Or nobody knows: a writer that died, or did not learn how it ended. What
                // stands tells: the hash of a ring, a key that is gone.
                && matches!(
                    outcome.result,
                    OutcomeResult::Ok
                        | OutcomeResult::Unknown
                        | OutcomeResult::Unavailable
                        | OutcomeResult::Aborted
                )
        });
        result = Some(outcome.ok_or(CertificateError::OtherRecord)?.result);
        proven.push(proved);
    }
    Ok(Shown { what: evidence.what, intent, at, result, proven })
}

fn intent_of(event: &Event) -> Option<&Intent> {
    if let Event::Intent(intent) = event { Some(intent) } else { None }
}

fn outcome_of(event: &Event) -> Option<&Outcome> {
    if let Event::Outcome(outcome) = event { Some(outcome) } else { None }
}
