//! Certificates: what was dropped, as evidence that stands by itself.
//!
//! A drop has an interim certificate at once, and a final one when every epoch is
//! destroyed under which a ring version with the keys was written, and every cache is
//! past its term. Both are made from the ring, the register and the log, so that whoever
//! comes after a crash makes the one that is missing.
//!
//! Order: drop (ring version) → publish → interim certificate → epochs end → a paper of
//! each end ([`ends`](super::ends)) → final certificate, which names these papers. If we stop
//! between any two, the next sweep goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ends::{Ends, lost};
use super::paths::{Paths, Scope, shelf_of};
use super::records::{Drops, OfCustomer, Records, Write};
use crate::audit::layout::{CertificateStage, Object, OrderStage};
use crate::audit::operation::Operation;
use crate::audit::voucher::Versioned;
use crate::audit::{Action, Intent, RingRef, papers};
use crate::certificate::{
    self as paper, Assurance, Authority, Blobs, Bundle, Caches, Certificate, CertificateBody, CertifiedEpoch,
    CheckValue, ClockReading, DroppedKey, EndOnPaper, Format, KeyKind, Limit, Method, Missing,
    RingTransition, SignedOrder as SignedPaper, Signer, SurvivorClass, Survivors, TimeEvidence, Verification,
    weakest,
};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CertificateId, CustomerId, KekId, OrderId};
use crate::order::SignedOrder;
use crate::register::{EpochPhase, Register};
use crate::retention::clock::{ClockSource, TrustedTime};
use crate::ring::{Dropped, EntryKind, Ring, certificate_id};
use crate::room::keyring::{Asker, close};
use crate::room::{MAX_TTL, Strongroom};
use crate::time::Timestamp;

/// The certificates that are kept, each with its newest stage.
pub(super) type Kept = BTreeMap<CertificateId, CertificateStage>;

/// Whether a certificate of this ring is missing that can be made.
pub(super) fn is_wanting(ring: &Ring, kept: &Kept, register: &Register) -> bool {
    drops(ring).into_iter().any(|(version, keys)| {
        match kept.get(&certificate_id(ring.store, ring.customer, version)) {
            None => true,
            Some(CertificateStage::Interim) => are_gone(&keys, register),
            Some(CertificateStage::Final) => false,
        }
    })
}

/// The keys that were dropped, by the ring version that no longer had them.
pub(super) fn drops(ring: &Ring) -> BTreeMap<u64, Vec<&Dropped>> {
    let mut drops = BTreeMap::<u64, Vec<&Dropped>>::new();
    for gone in &ring.dropped {
        drops.entry(gone.version).or_default().push(gone);
    }
    drops
}

/// Whether every epoch is gone under which a ring version had one of the keys.
fn are_gone(dropped: &[&Dropped], register: &Register) -> bool {
    let is_gone = |number| {
        register.epoch_state(number).is_some_and(|epoch| matches!(epoch.state, EpochPhase::Gone { .. }))
    };
    dropped.iter().flat_map(|gone| gone.born..=gone.last).all(is_gone)
}

/// The epochs that the final certificates rest on which can be made of this ring.
pub(super) fn epochs_for(ring: &Ring, kept: &Kept, register: &Register) -> BTreeSet<u32> {
    let is_open = |version: &u64| {
        let id = certificate_id(ring.store, ring.customer, *version);
        kept.get(&id) != Some(&CertificateStage::Final)
    };
    let drops =
        drops(ring).into_iter().filter(|(version, keys)| is_open(version) && are_gone(keys, register));
    drops.flat_map(|(_, keys)| epochs_of(&keys)).collect()
}

/// The epochs under which a ring version had one of the keys.
fn epochs_of(dropped: &[&Dropped]) -> BTreeSet<u32> {
    dropped.iter().flat_map(|gone| gone.born..=gone.last).collect()
}

/// What is known before certificates are made.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    /// The certificates that there are.
    pub(super) kept: &'a Kept,
    pub(super) register: &'a Register,
    /// What the log has.
    pub(super) records: &'a Records,
    /// How epochs ended, for final certificates.
    pub(super) ends: &'a Ends,
}

/// The drops of a ring that have no certificate.
pub(super) fn uncertified(ring: &Ring, kept: &Kept) -> Drops {
    let mut uncertified = Drops::default();
    for (version, keys) in drops(ring) {
        if kept.contains_key(&certificate_id(ring.store, ring.customer, version)) {
            continue;
        }
        for gone in keys {
            uncertified.versions.entry(version).or_default().insert(gone.id);
            uncertified.shelves.insert(gone.id, shelf_of(gone.id, gone.kind));
            uncertified.since = Some(uncertified.since.map_or(gone.at, |since| since.min(gone.at)));
        }
    }
    uncertified
}

impl Strongroom {
    /// Makes the certificates that are missing of one customer, and the final ones that
    /// can be made now. The log has to be published up to the drops.
    pub(super) async fn certify(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        known: Known<'_>,
        time: &TrustedTime,
    ) -> Result<Kept> {
        let (mut made, mut failed) = (Kept::new(), None);
        for (version, keys) in drops(ring) {
            // One that cannot be made must not keep the others from it.
            match self.certify_drop(asker, ring, (version, &keys), known, time).await {
                Ok(stage) => {
                    let id = certificate_id(ring.store, ring.customer, version);
                    made.extend(stage.map(|stage| (id, stage)));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(made), Err)
    }

    /// The certificates of one drop: the newest stage that was made, if any was.
    async fn certify_drop(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        (version, keys): (u64, &[&Dropped]),
        known: Known<'_>,
        time: &TrustedTime,
    ) -> Result<Option<CertificateStage>> {
        let Known { kept, register, records, ends } = known;
        let id = certificate_id(ring.store, ring.customer, version);
        let mut made = None;
        let interim = match kept.get(&id) {
            Some(CertificateStage::Final) => return Ok(None),
            Some(CertificateStage::Interim) if !are_gone(keys, register) => return Ok(None),
            _ => self.certificate(id, CertificateStage::Interim).await?,
        };
        let interim = match interim {
            Some(interim) => interim,
            None => {
                let body = self.interim(asker, ring, (version, keys), records, time).await?;
                made = Some(CertificateStage::Interim);
                self.keep_certificate(asker, body, &BTreeMap::new()).await?
            }
        };
        if are_gone(keys, register)
            && let Some((body, papers)) = self.finality(&interim, keys, ends, time)?
        {
            self.keep_certificate(asker, body, &papers).await?;
            made = Some(CertificateStage::Final);
        }
        Ok(made)
    }

    /// A certificate that is kept, its signature verified.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if what stands there is none of this log;
    /// [`ErrorKind::AuditUnavailable`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn certificate(
        &self,
        id: CertificateId,
        stage: CertificateStage,
    ) -> Result<Option<Certificate>> {
        let kept = papers::read(&self.log_reader(), Object::Certificate { id, stage }).await?;
        kept.map(|bytes| Certificate::parse(&bytes, self.0.log.keys())).transpose()
    }

    /// A certificate with the papers that it names, all verified: what is given to somebody
    /// who has no access to the store.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if the certificate or a paper does not verify, or a paper is
    /// missing; [`ErrorKind::AuditUnavailable`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn certificate_bundle(&self, certificate: &Certificate) -> Result<Bundle> {
        let epochs: Vec<u32> = certificate.body().named().map(|name| name.epoch).collect();
        let papers = papers::epoch_ends(&self.log_reader(), epochs.iter().copied()).await?;
        let bundle = Bundle::of(certificate.to_note(), &epochs, papers)?;
        paper::verify(bundle.to_text().as_bytes(), self.0.log.keys(), &[], 0)?;
        Ok(bundle)
    }

    /// Signs and keeps a certificate. One that another node made meanwhile is as good.
    async fn keep_certificate(
        &self,
        asker: Asker<'_>,
        body: CertificateBody,
        ends: &BTreeMap<u32, EndOnPaper>,
    ) -> Result<Certificate> {
        let room = &*self.0;
        let (id, stage) = (body.certificate, body.stage);
        let mut intent = Intent::new(room.log.request_id()?, asker.access, Action::Certify);
        (intent.cause, intent.customer, intent.certificate) = (asker.cause, Some(body.customer), Some(id));
        let (open, receipt) = room.log.begin(intent).await?;
        drop(receipt);
        let kept = async {
            let certificate = paper::sign_for(body, ends, &**room.log.signer()?, room.log.keys()).await?;
            let object = Object::Certificate { id, stage };
            let limit = room.log_config.deadline;
            match papers::keep(&*room.storages.audit, object, certificate.to_note(), limit).await {
                Err(error) if error.kind() == ErrorKind::Integrity => {
                    self.certificate(id, stage).await?.ok_or(error)
                }
                kept => kept.map(|()| certificate),
            }
        };
        let kept = kept.await;
        close(open, kept).await
    }

    async fn interim(
        &self,
        asker: Asker<'_>,
        ring: &Arc<Ring>,
        (version, dropped): (u64, &[&Dropped]),
        records: &Records,
        time: &TrustedTime,
    ) -> Result<CertificateBody> {
        let ids: BTreeSet<KekId> = dropped.iter().map(|gone| gone.id).collect();
        let first = dropped.first().ok_or_else(|| lost("the dropped keys"))?;
        let of_customer = records.of(ring.customer).ok_or_else(|| lost("any record of the customer"))?;
        let scope = of_customer.paths.scope(ring, version, &ids);
        let found = self.records_of(of_customer, ring.customer, version, &ids).await?;
        let written = found.ring_write.ring.ok_or_else(|| lost("the writing of the ring"))?;
        let authority = match first.order {
            None => Authority::Routine,
            Some(order) => Authority::Order(Box::new(self.signed_paper(asker, order).await?)),
        };
        let evidence = self.evidence(&found.operations).await?;
        let assurance = self.assurance_of(asker, dropped).await?;
        let survivors = survivors(ring, version, &of_customer.paths, &scope);
        let stage = CertificateStage::Interim;
        let policy = ring.policies.iter().rev().find(|policy| policy.since <= first.at);
        let policy = policy.unwrap_or_else(|| ring.policy());
        Ok(CertificateBody {
            format: Format::V3,
            stage,
            certificate: certificate_id(ring.store, ring.customer, version),
            store: ring.store,
            customer: ring.customer,
            // Not before anything that it shows, by whatever clock that was recorded.
            issued: self.0.clock.now().max(time.at()).max(found.latest),
            method: Method::new(stage, assurance),
            scope: paper::Scope {
                keys: keys(dropped),
                blobs: Blobs::of(&scope.shredded, &scope.uncertain, Some(scope.bytes)),
                survivors: survivors.clone(),
            },
            policy: paper::Policy {
                version: u64::from(policy.number),
                retention: policy.period,
                window_days: u32::from(policy.window.days()),
            },
            authority,
            run_by: found.ring_write.principal.clone(),
            ring: RingTransition { version, hash: written.hash, previous: version - 1 },
            time: TimeEvidence { at: first.at, readings: readings(time) },
            epochs: Vec::new(),
            caches: None,
            verification: Verification::required(stage).to_vec(),
            limits: Limit::of(stage, assurance, &survivors),
            missing: Missing::ALL.to_vec(),
            ciphertext: None,
            evidence,
        })
    }

    /// What a final certificate says, and the papers that it names, if every cache is past
    /// its term. Every epoch of the keys is gone.
    fn finality(
        &self,
        interim: &Certificate,
        dropped: &[&Dropped],
        ends: &Ends,
        time: &TrustedTime,
    ) -> Result<Option<(CertificateBody, BTreeMap<u32, EndOnPaper>)>> {
        let mut body = interim.body().clone();
        // The longest that any node may: it need not be set up as this one is.
        let ttl = MAX_TTL;
        let over = body.issued.max(body.time.at).saturating_add(ttl);
        if time.at() < over {
            return Ok(None);
        }
        let numbers = epochs_of(dropped).into_iter();
        let papers: BTreeMap<u32, EndOnPaper> =
            numbers.map(|epoch| Ok((epoch, ends.of(epoch)?.clone()))).collect::<Result<_>>()?;
        // As the format is now, whichever the interim one has.
        body.format = Format::V3;
        body.stage = CertificateStage::Final;
        // Not before anything that it shows, by whatever clock that was recorded.
        let gone = papers.values().map(|paper| paper.end.gone).max();
        body.issued = self.0.clock.now().max(time.at()).max(gone.unwrap_or(body.issued));
        let assurance = weakest(papers.values().map(|paper| &paper.end.kms_key));
        body.method = Method::new(body.stage, assurance);
        body.epochs = papers.values().map(|paper| CertifiedEpoch::Named(paper.name())).collect();
        body.caches = Some(Caches { ttl_seconds: ttl.as_secs(), over });
        body.verification = Verification::required(body.stage).to_vec();
        body.limits = Limit::of(body.stage, assurance, &body.scope.survivors);
        body.missing = Missing::ALL.to_vec();
        Ok(Some((body, papers)))
    }

    /// The records of one drop: its tombstones, and the writing of the ring version, which
    /// is read back.
    async fn records_of(
        &self,
        records: &OfCustomer,
        customer: CustomerId,
        version: u64,
        keys: &BTreeSet<KekId>,
    ) -> Result<Found> {
        let hash = self.hash_of(customer, version).await?;
        let ring_write = match records.write(RingRef { version, hash }) {
            Write::By(write) => write.clone(),
            Write::OfAnother => return Err(not_what_was_written(customer, version)),
            Write::Unknown => return Err(lost("the writing of the ring")),
        };
        let tombstone =
            |key: &KekId| records.tombstone(*key).cloned().ok_or_else(|| lost("the drop of a key"));
        let tombstones: Vec<Operation> = keys.iter().map(tombstone).collect::<Result<_>>()?;
        let (written, written_at) = (ring_write.intent().clone(), ring_write.intent_entry().record.time);
        let operations: Vec<Operation> = tombstones.into_iter().chain([ring_write]).collect();
        let times = operations.iter().flat_map(|operation| {
            let outcome = operation.outcome_entry().map(|entry| entry.record.time);
            [Some(operation.intent_entry().record.time), outcome]
        });
        let latest = times.flatten().max().unwrap_or(written_at);
        Ok(Found { operations, ring_write: written, latest })
    }

    /// The order as it stands in a certificate.
    pub(super) async fn signed_paper(&self, asker: Asker<'_>, id: OrderId) -> Result<SignedPaper> {
        let object = Object::Order { id, stage: OrderStage::Approved };
        let bytes =
            papers::read(&self.log_reader(), object).await?.ok_or_else(|| lost("the approved order"))?;
        let signed = SignedOrder::parse(&bytes)?;
        let register = self.0.keyring.register(asker).await?;
        let pinned = self.0.log.newest_pin(Versioned::Register).await?;
        let pinned = pinned.ok_or_else(|| lost("the pin of the register"))?.version;
        let signer = |principal: &crate::access::Principal| {
            let person = register.people.get(principal).ok_or_else(|| lost("a person of the order"))?;
            Ok::<_, Error>(Signer { principal: principal.clone(), key: person.key })
        };
        let requester = signed.order().requested_by.clone();
        let approver = (signed.note().signatures().iter())
            .find_map(|line| line.name().as_str().parse().ok().filter(|name| *name != requester))
            .ok_or_else(|| lost("the approver of the order"))?;
        Ok(SignedPaper {
            id,
            requester: signer(&requester)?,
            approver: signer(&approver)?,
            register: pinned,
            note: signed.note().to_string(),
        })
    }

    /// What the KMS of the keys' epochs shows: the least of them.
    async fn assurance_of(&self, asker: Asker<'_>, dropped: &[&Dropped]) -> Result<Assurance> {
        let register = self.0.keyring.register(asker).await?;
        let key =
            |epoch| register.epoch_state(epoch).map(|epoch| &epoch.kms_key).ok_or_else(|| lost("an epoch"));
        let keys: Vec<_> = epochs_of(dropped).into_iter().map(key).collect::<Result<_>>()?;
        Ok(weakest(keys))
    }
}

/// The records of one drop.
struct Found {
    operations: Vec<Operation>,
    ring_write: Intent,
    /// The latest time in them.
    latest: Timestamp,
}

fn not_what_was_written(customer: CustomerId, version: u64) -> Error {
    let message = format!("ring version {version} of customer {customer} is not what was written");
    Error::new(ErrorKind::Integrity, message)
}

fn readings(time: &TrustedTime) -> Vec<ClockReading> {
    let source = |source| match source {
        ClockSource::Host => paper::ClockSource::Host,
        ClockSource::Storage => paper::ClockSource::Store,
        ClockSource::Log => paper::ClockSource::Log,
    };
    time.readings()
        .iter()
        .map(|reading| ClockReading { source: source(reading.source), at: reading.at })
        .collect()
}

fn keys(dropped: &[&Dropped]) -> Vec<DroppedKey> {
    let key = |gone: &&Dropped| {
        let (kind, day) = match gone.kind {
            EntryKind::Day(day) => (KeyKind::Day, Some(day)),
            EntryKind::Hold => (KeyKind::Hold, None),
            EntryKind::Name => (KeyKind::Name, None),
        };
        let check_value = CheckValue(gone.check_value);
        DroppedKey {
            id: gone.id,
            kind,
            day,
            check_value,
            minted: gone.minted,
            born: gone.born,
            last: gone.last,
        }
    };
    dropped.iter().map(key).collect()
}

/// Why the blobs live on that do.
fn survivors(ring: &Ring, version: u64, paths: &Paths, scope: &Scope) -> Vec<Survivors> {
    let mut counts = BTreeMap::<SurvivorClass, u64>::new();
    for (blob, paths) in paths.blobs().filter(|(blob, _)| scope.surviving.contains(blob)) {
        // As it was when the keys went, whatever went later.
        let kind = |key: &KekId| {
            let gone = ring.dropped(*key).filter(|gone| gone.version > version).map(|gone| gone.kind);
            ring.entry(*key).map(|entry| entry.kind).or(gone)
        };
        let kinds = || paths.keys.keys().filter_map(kind);
        let class = if kinds().any(|kind| kind == EntryKind::Hold) {
            SurvivorClass::Held
        } else if kinds().any(|kind| matches!(kind, EntryKind::Day(day) if day > blob.day())) {
            SurvivorClass::Extended
        } else {
            SurvivorClass::Rewrapped
        };
        *counts.entry(class).or_default() += 1;
    }
    counts.into_iter().map(|(class, blobs)| Survivors { class, blobs }).collect()
}
