//! The papers of epochs' ends: made once an epoch is gone, by whoever finishes it or makes
//! the first certificate that rests on it.
//!
//! Order: the register says that the epoch is gone → its records are published → the paper
//! is signed and kept, create-if-absent → certificates name it. If we stop between any two,
//! the next run of `epoch finish` or the next sweep makes the paper. Of two that are made at
//! once one is kept, and both go by that one.
//!
//! Separate from the end of epochs, which acts on a KMS, and from certificates, which are of
//! one customer: a paper is the store's, and both use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::TryStreamExt;

use super::records::earlier;
use crate::audit::history::{History, Need};
use crate::audit::layout::Object;
use crate::audit::operation::Operation;
use crate::audit::proof::{ProvenOperation, prove_all};
use crate::audit::voucher::Versioned;
use crate::audit::{Action, Intent, KeyRef, papers};
use crate::certificate::{
    self as paper, Assurance, EndOnPaper, EndStep, EpochPaperBody, EpochPaperFormat, Evidence, GoneBy,
    StepAnswer, verify_epoch,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::register::EpochPhase;
use crate::room::Strongroom;
use crate::room::keyring::epochs::epoch_ref;
use crate::room::keyring::{Asker, close};
use crate::time::Timestamp;

/// How epochs ended, by the papers of it, each verified.
#[derive(Debug, Default)]
pub(super) struct Ends {
    papers: BTreeMap<u32, EndOnPaper>,
    /// Those whose paper does not verify, or could not be made, and why.
    failed: BTreeMap<u32, (ErrorKind, String)>,
}

impl Ends {
    pub(super) fn add(&mut self, epoch: u32, found: Result<EndOnPaper>) {
        match found {
            Ok(paper) => drop(self.papers.insert(epoch, paper)),
            Err(error) => drop(self.failed.insert(epoch, (error.kind(), error.chain()))),
        }
    }

    /// How an epoch ended.
    ///
    /// # Errors
    /// As the paper had it, if it does not verify or could not be made.
    pub(super) fn of(&self, epoch: u32) -> Result<&EndOnPaper> {
        self.papers.get(&epoch).ok_or_else(|| match self.failed.get(&epoch) {
            Some((kind, why)) => {
                Error::new(*kind, format!("the end of epoch {epoch} is not on paper: {why}"))
            }
            None => lost("the end of an epoch"),
        })
    }
}

/// The records by which epochs' keys were disabled and their deletion scheduled: of each the
/// last that ended well.
#[derive(Debug, Default)]
pub(super) struct EpochRecords(BTreeMap<u32, EndOfEpoch>);

#[derive(Debug, Default)]
struct EndOfEpoch {
    disabled: Option<Operation>,
    deleted: Option<Operation>,
}

impl EpochRecords {
    /// Reads those of the epochs that began at `began` or later.
    pub(super) async fn read(history: &History, store: CustomerId, began: Timestamp) -> Result<Self> {
        let mut records = Self::default();
        // The clock by which the epoch began may be ahead of the one that ended it.
        let mut found = history.operations(Some(store), &Need::Customer(Some(earlier(began))));
        while let Some(operation) = found.try_next().await? {
            records.take(operation);
        }
        Ok(records)
    }

    /// Takes an operation in, if it is of an epoch's end.
    fn take(&mut self, operation: Operation) {
        let Some(KeyRef::Epoch { epoch, .. }) = operation.intent().key else { return };
        let action = operation.intent().action;
        if !may_have_ended_well(&operation) || !matches!(action, Action::EpochDisable | Action::EpochDelete) {
            return;
        }
        let end = self.0.entry(epoch).or_default();
        let place = if action == Action::EpochDisable { &mut end.disabled } else { &mut end.deleted };
        // One whose end nobody knows counts where none ended well.
        if place.is_none() || operation.ended_well() {
            *place = Some(operation);
        }
    }

    /// The records by which an epoch ended, if both are there.
    fn of(&self, epoch: u32) -> Option<[&Operation; 2]> {
        let end = self.0.get(&epoch)?;
        Some([end.disabled.as_ref()?, end.deleted.as_ref()?])
    }
}

/// It did, or nobody knows: its writer died or did not learn how it ended. What stands
/// then tells.
pub(super) fn may_have_ended_well(operation: &Operation) -> bool {
    operation.outcome().is_none_or(|outcome| StepAnswer::of(outcome.result).is_some())
}

pub(super) fn lost(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Integrity, format!("the log or the register does not have {what}"))
}

impl Strongroom {
    /// How these epochs ended by the papers that are kept, and those that have none.
    pub(super) async fn epoch_ends(&self, epochs: BTreeSet<u32>) -> Result<(Ends, BTreeSet<u32>)> {
        let mut unwritten = epochs.clone();
        let mut ends = Ends::default();
        for (epoch, bytes) in papers::epoch_ends(&self.log_reader(), epochs).await? {
            unwritten.remove(&epoch);
            ends.add(epoch, self.verified_end(epoch, &bytes));
        }
        Ok((ends, unwritten))
    }

    /// Makes the papers that are missing of epochs that are gone. What is wrong with one
    /// stops no other.
    ///
    /// # Errors
    /// If the register, the papers or the log cannot be read, or the log cannot be published.
    pub(super) async fn keep_epoch_ends(&self, asker: Asker<'_>) -> Result<BTreeMap<u32, Error>> {
        let register = self.0.keyring.register(asker).await?;
        let mut began = BTreeMap::new();
        for epoch in &register.epochs {
            if matches!(epoch.state, EpochPhase::Gone { .. }) {
                began.insert(epoch.number, epoch.began);
            }
        }
        if !began.is_empty() {
            let kept = papers::ended_epochs(&self.log_reader()).await?;
            began.retain(|epoch, _| !kept.contains(epoch));
        }
        let mut failed = BTreeMap::new();
        let Some(first) = began.values().min() else { return Ok(failed) };
        // Proofs are of what is published.
        self.0.log.flush().await?;
        self.publish_log().await?;
        let store = self.0.store.as_customer();
        let records = EpochRecords::read(&History::open(&self.log_reader()).await?, store, *first).await?;
        for epoch in began.into_keys() {
            if let Err(error) = self.keep_epoch_end(asker, epoch, &records).await {
                failed.insert(epoch, error);
            }
        }
        Ok(failed)
    }

    /// Makes the paper of the end of an epoch that is gone, and keeps it. One that another
    /// made meanwhile is as good.
    pub(super) async fn keep_epoch_end(
        &self,
        asker: Asker<'_>,
        epoch: u32,
        records: &EpochRecords,
    ) -> Result<EndOnPaper> {
        let room = &*self.0;
        let body = self.epoch_end(asker, epoch, records).await?;
        let store = room.store.as_customer();
        let mut intent = Intent::new(room.log.request_id()?, asker.access, Action::Certify);
        (intent.cause, intent.customer) = (asker.cause, Some(store));
        intent.key = Some(epoch_ref(&body.kms_key, epoch));
        let (open, receipt) = room.log.begin(intent).await?;
        drop(receipt);
        let kept = async {
            let note = paper::sign_epoch_for(body, &**room.log.signer()?, room.log.keys()).await?.to_note();
            let object = Object::EpochEnd { epoch };
            // If we stop before this, there is no paper, and the next who needs it makes one.
            match papers::keep(&*room.storages.audit, object, note.clone(), room.log_config.deadline).await {
                Ok(()) => self.verified_end(epoch, note.as_bytes()),
                Err(error) if error.kind() == ErrorKind::Integrity => {
                    let stands = papers::read(&self.log_reader(), object).await?.ok_or(error)?;
                    self.verified_end(epoch, &stands)
                }
                Err(error) => Err(error),
            }
            // If we stop behind it, the paper stands, and only the outcome is missing in the log.
        };
        let kept = kept.await;
        close(open, kept).await
    }

    /// What the paper of an epoch's end says.
    async fn epoch_end(
        &self,
        asker: Asker<'_>,
        number: u32,
        records: &EpochRecords,
    ) -> Result<EpochPaperBody> {
        let room = &*self.0;
        let register = room.keyring.register(asker).await?;
        let epoch = register.epoch_state(number).ok_or_else(|| lost("an epoch"))?;
        let EpochPhase::Gone { seen_at } = epoch.state else { return Err(lost("the end of an epoch")) };
        let pinned = room.log.newest_pin(Versioned::Register).await?;
        let pinned = pinned.ok_or_else(|| lost("the pin of the register"))?.version;
        let [disable, delete] = records.of(number).ok_or_else(|| lost("the end of an epoch"))?;
        let step = |operation: &Operation| {
            let outcome = operation.outcome().and_then(|outcome| StepAnswer::of(outcome.result));
            // One that is still open is closed by whoever fences its writer: then there is one.
            let answer = outcome.ok_or_else(|| {
                Error::new(ErrorKind::AuditUnavailable, "how the end of an epoch went is not in the log yet")
            })?;
            Ok::<_, Error>(EndStep { at: operation.intent_entry().record.time, answer })
        };
        let (disabled, scheduled) = (step(disable)?, step(delete)?);
        // Not before the steps that led to it, by whatever clocks these were recorded.
        let gone = seen_at.max(disabled.at).max(scheduled.at);
        Ok(EpochPaperBody {
            format: EpochPaperFormat::V2,
            store: room.store,
            epoch: number,
            kms_key: epoch.kms_key.clone(),
            assurance: Assurance::of(&epoch.kms_key),
            issued: room.clock.now().max(gone),
            register: pinned,
            disabled,
            scheduled,
            gone,
            seen: GoneBy::of(&epoch.kms_key),
            evidence: self.evidence(&[disable.clone(), delete.clone()]).await?,
        })
    }

    fn verified_end(&self, epoch: u32, bytes: &[u8]) -> Result<EndOnPaper> {
        let verified = verify_epoch(bytes, self.0.store, self.0.log.keys(), &[], 0)?;
        if verified.body.epoch != epoch {
            let sentence = "the paper of an epoch's end stands in the place of another";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        Ok(verified.paper)
    }

    /// Operations with their proofs, from what is published of the log.
    pub(super) async fn evidence(&self, operations: &[Operation]) -> Result<Vec<Evidence>> {
        let mut entries = Vec::new();
        for operation in operations {
            entries.push(operation.intent_entry().clone());
            entries.extend(operation.outcome_entry().cloned());
        }
        let proofs = match prove_all(&self.log_reader(), &entries).await {
            // Another node has recorded its part since this one published.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.publish_log().await?;
                prove_all(&self.log_reader(), &entries).await
            }
            proofs => proofs,
        };
        let mut proofs = proofs?.into_iter();
        let mut next = || proofs.next().ok_or_else(|| lost("a proof"));
        let mut evidence = Vec::new();
        for operation in operations {
            let intent = next()?;
            let outcome = operation.outcome_entry().map(|_| next()).transpose()?;
            let operation = operation.clone();
            evidence.extend(Evidence::of(&ProvenOperation { operation, intent, outcome }));
        }
        Ok(evidence)
    }
}
