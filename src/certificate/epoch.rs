//! The paper of an epoch's end: that its KMS key was disabled, deleted and seen gone, in
//! one signed note for all certificates that rest on it.
//!
//! A key may live through hundreds of epochs, and hundreds of keys through one. So the end
//! of each is proven once, in a paper of its own, and a certificate names the paper by
//! number and digest. The text is one JSON object, an [`EpochPaperBody`], which the log's
//! key signs under the name `strongroom/<store>/epoch-end`.
//!
//! Invariants: those of certificates. What is in a paper that verifies was signed by the
//! log's key, agrees with itself, and both operations are in the log, their outcomes too.
//!
//! What it rests on: that the program which signed it told the truth about what no record
//! shows, that the KMS reported the key gone.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::body::{Assurance, EpochEnd, EpochName, GoneBy};
use super::error::CertificateError;
use super::evidence::{Evidence, Shown, What, show};
use super::text;
use crate::audit::authority::{Authority, LogKeys};
use crate::audit::layout::epoch_end_key_name;
use crate::audit::proof::Proved;
use crate::audit::signer::LogSigner;
use crate::audit::{KeyRef, OutcomeResult, RingRef};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KmsKeyId, StoreId};
use crate::kms::DestructionAssurance;
use crate::time::Timestamp;
use crate::tlog::VerifierKey;
use crate::tlog::note::{Note, NoteSignature};

/// What the texts of all versions of this format begin with.
const FORMATS: &str = "strongroom/epoch-end/v";

/// The versions of it that are read.
const FORMATS_READ: &[u32] = &[1, 2];

/// The longest that a KMS may wait between the request to delete a key and its deletion:
/// 30 days.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30 * 86_400);

/// All that the paper of an epoch's end says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochPaperBody {
    /// The format.
    pub format: EpochPaperFormat,
    /// The store.
    pub store: StoreId,
    /// The number of the epoch.
    pub epoch: u32,
    /// Its KMS key, which begins with the provider.
    pub kms_key: KmsKeyId,
    /// What the provider shows.
    pub assurance: Assurance,
    /// When this paper was made.
    pub issued: Timestamp,
    /// A version of the store's register that has the epoch as gone.
    pub register: RingRef,
    /// The disabling of the KMS key.
    pub disabled: EndStep,
    /// The scheduling of its deletion.
    pub scheduled: EndStep,
    /// When the key was seen gone.
    pub gone: Timestamp,
    /// How.
    pub seen: GoneBy,
    /// The records of the disabling and of the scheduling, in this order, each with its
    /// outcome.
    pub evidence: Vec<Evidence>,
}

/// The format of the paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EpochPaperFormat {
    /// The first, which says `attested` of what a KMS reports.
    #[serde(rename = "strongroom/epoch-end/v1")]
    V1,
    /// The one that is made.
    #[default]
    #[serde(rename = "strongroom/epoch-end/v2")]
    V2,
}

/// One step towards the end of a KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndStep {
    /// The time of its intent in the log.
    pub at: Timestamp,
    /// What its outcome in the log says.
    pub answer: StepAnswer,
}

/// How a step ended, by the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepAnswer {
    /// The KMS did it.
    Ok,
    /// The KMS was asked, and the writer did not learn the answer.
    Unknown,
}

impl StepAnswer {
    /// The answer that an outcome stands for, if it is one of a step that was taken.
    #[must_use]
    pub const fn of(result: OutcomeResult) -> Option<Self> {
        match result {
            OutcomeResult::Ok => Some(Self::Ok),
            OutcomeResult::Unknown | OutcomeResult::Unavailable | OutcomeResult::Aborted => {
                Some(Self::Unknown)
            }
            _ => None,
        }
    }
}

/// The paper of an epoch's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochPaper {
    note: Note,
    body: EpochPaperBody,
}

impl EpochPaper {
    /// What it says.
    #[must_use]
    pub fn body(&self) -> &EpochPaperBody {
        &self.body
    }

    /// The note: what is kept, given away and verified.
    #[must_use]
    pub fn to_note(&self) -> String {
        self.note.to_string()
    }
}

/// How an epoch ended, as a paper that verified says it: what a certificate is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndOnPaper {
    /// SHA-256 of the paper.
    pub digest: [u8; 32],
    /// What it says.
    pub end: EpochEnd,
}

impl EndOnPaper {
    /// As a certificate names it.
    #[must_use]
    pub const fn name(&self) -> EpochName {
        EpochName { epoch: self.end.epoch, digest: self.digest }
    }
}

/// What the paper of an epoch's end showed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct VerifiedEpoch {
    /// What it says.
    pub body: EpochPaperBody,
    /// The same in short, with its digest.
    pub paper: EndOnPaper,
    /// The four records of the log in it.
    pub proven: Vec<Proved>,
}

/// Verifies the paper of an epoch's end by itself: the signature of the log's key
/// `log_key`, its form, and each proof in it, whose checkpoint at least `quorum` of
/// `witnesses` have to have cosigned.
///
/// # Errors
/// [`ErrorKind::Integrity`] if anything in it does not hold, or if it is of another store;
/// [`ErrorKind::UnsupportedFormat`] for a later version.
pub fn verify_epoch(
    bytes: &[u8],
    store: StoreId,
    log_key: &impl LogKeys,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<VerifiedEpoch> {
    let log_key = &log_key.authority();
    let verified = || {
        let note = Note::parse(bytes)?;
        let body: EpochPaperBody = text::read(note.text(), FORMATS, FORMATS_READ)?;
        let signed = log_key.signed(&note, &epoch_end_key_name(store))?.is_some();
        if body.store != store || !signed || note.signatures().len() != 1 {
            return Err(CertificateError::Signature.into());
        }
        let proven = check(&body, log_key, witnesses, quorum)?;
        let paper = EndOnPaper { digest: Sha256::digest(bytes).into(), end: end_of(&body) };
        Ok(VerifiedEpoch { body, paper, proven })
    };
    verified().map_err(of_paper)
}

/// What a paper says of an epoch's end, without any check but of its form.
#[cfg(feature = "cli")]
pub(super) fn unverified_end(bytes: &[u8]) -> Result<EpochEnd> {
    let note = Note::parse(bytes)?;
    text::read(note.text(), FORMATS, FORMATS_READ).map(|body| end_of(&body)).map_err(of_paper)
}

/// Signs the paper of an epoch's end with the log's key, after all of it was checked as
/// [`verify_epoch`] does.
///
/// # Errors
/// [`ErrorKind::Integrity`] if it would not verify, or if it is larger than a note can be;
/// those of [`LogSigner::sign`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn sign_epoch(body: EpochPaperBody, signer: &dyn LogSigner) -> Result<EpochPaper> {
    sign_epoch_for(body, signer, &signer.public().into()).await
}

/// The same, in a log with these keys.
pub(crate) async fn sign_epoch_for(
    body: EpochPaperBody,
    signer: &dyn LogSigner,
    log_key: &Authority,
) -> Result<EpochPaper> {
    check(&body, log_key, &[], 0).map_err(of_paper)?;
    let text = text::write(&body);
    // What would not be read back is not signed.
    text::read::<EpochPaperBody>(&text, FORMATS, FORMATS_READ).map_err(of_paper)?;
    let signature = signer.sign(text.as_bytes()).await?;
    let line = NoteSignature::ed25519(epoch_end_key_name(body.store), signer.public(), &signature);
    Ok(EpochPaper { note: Note::new(text, vec![line])?, body })
}

/// Everything but the signature and the form. Gives the proven records.
pub(super) fn check(
    body: &EpochPaperBody,
    log_key: &impl LogKeys,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Vec<Proved>> {
    let log_key = &log_key.authority();
    use CertificateError::{Contradiction, Missing, OtherRecord};
    let must = |holds: bool, part| if holds { Ok(()) } else { Err(Contradiction(part)) };
    let EpochPaperBody { disabled, scheduled, gone, .. } = body;
    let of_provider = body.assurance.proves() == DestructionAssurance::of(&body.kms_key);
    let word = body.assurance.is_word(body.format == EpochPaperFormat::V1);
    must(of_provider && word, "assurance")?;
    must(body.seen == GoneBy::of(&body.kms_key), "way in which the key was seen gone")?;
    must(disabled.at <= *gone && scheduled.at <= *gone && *gone <= body.issued, "list of times")?;
    // An answer that was lost may have been a refusal. A key that is gone after the longest
    // wait was deleted all the same: it was asked for, and nobody else may.
    let over = scheduled.at.saturating_add(LONGEST_WAIT) <= *gone;
    must(scheduled.answer == StepAnswer::Ok || over, "time at which the key was seen gone")?;

    let [disable, delete] = body.evidence.as_slice() else {
        return Err(Missing("the disabling and the deletion of the key, and of nothing else").into());
    };
    let of = |evidence: &Evidence, what: What, step: &EndStep| -> Result<Shown> {
        let shown = show(evidence, body.store, log_key, witnesses, quorum)?;
        let named = |key: &KeyRef| matches!(key, KeyRef::Epoch { kms_key, epoch } if (kms_key, epoch) == (&body.kms_key, &body.epoch));
        // What concerns the store is in the chain of its own id.
        let of_store = shown.intent.customer == Some(body.store.as_customer());
        if shown.what != what
            || shown.at != step.at
            || !of_store
            || !shown.intent.key.as_ref().is_some_and(named)
        {
            return Err(OtherRecord.into());
        }
        let result = shown.result.ok_or(Missing("how the disabling or the deletion ended"))?;
        if StepAnswer::of(result) != Some(step.answer) {
            return Err(OtherRecord.into());
        }
        Ok(shown)
    };
    let disable = of(disable, What::EpochDisable, disabled)?;
    let delete = of(delete, What::EpochDelete, scheduled)?;
    Ok([disable.proven, delete.proven].concat())
}

/// What a paper says, in the words of certificates.
fn end_of(body: &EpochPaperBody) -> EpochEnd {
    EpochEnd {
        epoch: body.epoch,
        kms_key: body.kms_key.clone(),
        disabled: body.disabled.at,
        scheduled: body.scheduled.at,
        gone: body.gone,
        seen: body.seen,
    }
}

/// An error about a paper, and not about a certificate.
fn of_paper(error: Error) -> Error {
    let sentence = "the paper of an epoch's end does not verify";
    let cause =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<CertificateError>());
    match cause.copied() {
        Some(cause) => Error::new(error.kind(), sentence).with_source(cause),
        None if error.kind() == ErrorKind::Integrity => {
            Error::new(ErrorKind::Integrity, sentence).with_source(error)
        }
        None => error,
    }
}
