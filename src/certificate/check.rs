//! What makes a certificate good: that it agrees with itself, that its order was signed
//! by two people, and that its records are in the log and say what it says.
//!
//! Pure, and the same before a certificate is signed and when it is verified.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error as ThisError;

use super::body::{
    Assurance, Authority, Category, CertificateBody, CertificateStage, DroppedKey, EpochEnd, GoneBy, KeyKind,
    Limit, SignedOrder, Signer, Verification,
};
use super::evidence::{Shown, What, most, show};
use super::{Blobs, Certificate};
use crate::audit::papers::OrderHead;
use crate::audit::proof::Proved;
use crate::audit::{KeyRef, RingRef};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CertificateId, CustomerId};
use crate::tlog::note::Note;
use crate::tlog::{KeyName, PublicKey, VerifierKey};

/// Why something is no certificate, or not a good one. Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text is not the one form of a certificate.
    #[error("its text is not in the form of one")]
    Form,
    /// It is not signed by the log's key alone.
    #[error("it is not signed by the log's key, under the name for certificates, and by nobody else")]
    Signature,
    /// A part of it is not as it must be, or contradicts another.
    #[error("its {0} is not as it must be, or contradicts another part")]
    Contradiction(&'static str),
    /// The order in it is not one, or not as it says.
    #[error(
        "the order in it is not that of this id and customer, with the signatures of two different people"
    )]
    Order,
    /// A proof leads to another log.
    #[error("a proof in it is of another store's log")]
    OtherLog,
    /// A proven record says something else.
    #[error("a record in it does not say what the certificate says of it")]
    OtherRecord,
    /// A record is missing.
    #[error("it has no proof of {0}")]
    Missing(&'static str),
}

impl From<CertificateError> for Error {
    fn from(error: CertificateError) -> Self {
        Self::new(ErrorKind::Integrity, "the certificate does not verify").with_source(error)
    }
}

/// What a certificate showed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// What it says.
    pub body: CertificateBody,
    /// The records of the log in it, in the order of its evidence.
    pub proven: Vec<Proved>,
    /// It for people.
    pub page: String,
}

/// Verifies a certificate by itself: the signature of the log's key `log_key`, its form,
/// its order, and each proof in it, whose checkpoint at least `quorum` of `witnesses`
/// have to have cosigned.
///
/// Whose personal keys signed the order is for the caller to compare with what it knows:
/// they stand in [`SignedOrder`].
///
/// # Errors
/// [`ErrorKind::Integrity`] if anything in it does not hold;
/// [`ErrorKind::UnsupportedFormat`] for a later version.
pub fn verify(
    bytes: &[u8],
    log_key: &PublicKey,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Verified> {
    let certificate = Certificate::parse(bytes, log_key)?;
    let proven = check(&certificate.body, log_key, witnesses, quorum)?;
    Ok(Verified { proven, page: certificate.to_page(), body: certificate.body })
}

/// Everything but the signature and the form. Gives the proven records.
pub(super) fn check(
    body: &CertificateBody,
    log_key: &PublicKey,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Vec<Proved>> {
    agrees(body)?;
    if let Authority::Order(order) = &body.authority {
        check_order(order, body)?;
    }
    let show = |evidence| show(evidence, body.store, log_key, witnesses, quorum);
    let shown: Vec<Shown> = body.evidence.iter().map(show).collect::<Result<_>>()?;
    says(body, &shown)?;
    Ok(shown.into_iter().flat_map(|shown| shown.proven).collect())
}

/// Whether the parts of a body agree with each other.
fn agrees(body: &CertificateBody) -> Result<(), CertificateError> {
    use CertificateError::Contradiction;
    let must = |holds: bool, part| if holds { Ok(()) } else { Err(Contradiction(part)) };
    let CertificateBody { stage, method, scope, ring, time, epochs, .. } = body;

    let id = CertificateId::derive(body.store, body.customer, ring.version);
    must(body.certificate == id, "id")?;
    must(ring.previous > 0 && ring.previous.checked_add(1) == Some(ring.version), "ring version")?;
    must(method.category == Category::of(*stage, method.assurance), "category")?;

    must(!scope.keys.is_empty() && scope.keys.is_sorted_by(|a, b| a.id < b.id), "list of keys")?;
    let routine = matches!(body.authority, Authority::Routine);
    for key in &scope.keys {
        must(key.born <= key.last && (key.kind == KeyKind::Day) == key.day.is_some(), "list of keys")?;
        // Of itself ends what is over. Names are looked up until a customer is closed.
        let over = key.day.is_none_or(|day| day < time.at.day()) && key.kind != KeyKind::Name;
        must(over || !routine, "authority")?;
    }
    let counted = scope.blobs.certain.checked_add(scope.blobs.uncertain);
    let none = Blobs::of(&BTreeSet::new(), &BTreeSet::new(), None).digest;
    must(counted.is_some_and(|count| (count == 0) == (scope.blobs.digest == none)), "count of blobs")?;
    let survivors = &scope.survivors;
    must(survivors.is_sorted_by(|a, b| a.class < b.class), "list of survivors")?;
    must(survivors.iter().all(|survivors| survivors.blobs > 0), "list of survivors")?;

    let readings = &time.readings;
    must(readings.len() >= 2 && readings.is_sorted_by(|a, b| a.source < b.source), "list of clocks")?;
    must(readings.iter().any(|reading| reading.at >= time.at), "time")?;

    let verified = &body.verification;
    must(verified.is_sorted_by(|a, b| a < b), "list of what was verified")?;
    let required = Verification::required(*stage);
    must(required.iter().all(|one| verified.contains(one)), "list of what was verified")?;
    let limits = Limit::of(*stage, method.assurance, survivors);
    must(body.limits == limits, "list of what it does not cover")?;

    match stage {
        CertificateStage::Interim => {
            let nothing = epochs.is_empty() && body.caches.is_none() && body.ciphertext.is_none();
            must(nothing, "stage")
        }
        CertificateStage::Final => {
            must(body.caches.is_some_and(|caches| caches.over <= body.issued), "time of caches")?;
            must(epochs.is_sorted_by(|a, b| a.epoch < b.epoch), "list of epochs")?;
            must(covers(&scope.keys, epochs), "list of epochs")?;
            must(epochs.iter().all(|epoch| ended(epoch, body)), "end of an epoch")
        }
    }
}

/// Whether the epochs are those in which a ring version had one of the keys.
fn covers(keys: &[DroppedKey], epochs: &[EpochEnd]) -> bool {
    let within = |key: &DroppedKey, epoch: &EpochEnd| (key.born..=key.last).contains(&epoch.epoch);
    let of_key = |key: &DroppedKey| {
        let present = epochs.iter().filter(|epoch| within(key, epoch)).count();
        // The epochs are all different, so that their number is enough.
        u64::try_from(present).is_ok_and(|present| present == u64::from(key.last - key.born) + 1)
    };
    keys.iter().all(of_key) && epochs.iter().all(|epoch| keys.iter().any(|key| within(key, epoch)))
}

fn ended(epoch: &EpochEnd, body: &CertificateBody) -> bool {
    let most = most(epoch.kms_key.provider());
    let seen = match epoch.seen {
        GoneBy::FileRemoved => most == Assurance::BestEffort,
        GoneBy::KmsReportsGone => true,
    };
    let claimed = body.method.assurance == Assurance::BestEffort || most == Assurance::Attested;
    seen && claimed && epoch.scheduled <= epoch.gone && epoch.gone <= body.issued
}

/// Whether an order is signed by the two people, is the one of its id, and is about this
/// customer.
fn check_order(order: &SignedOrder, body: &CertificateBody) -> Result<()> {
    let SignedOrder { id, requester, approver, note, .. } = order;
    let note = Note::parse(note.as_bytes())?;
    let different = requester.principal != approver.principal && requester.key != approver.key;
    let fits = |head: OrderHead| {
        (head.id, head.store, head.customer) == (*id, body.store, Some(body.customer))
            && head.requested_by == requester.principal
    };
    if !different || !OrderHead::of(note.text()).is_some_and(fits) || note.signatures().len() != 2 {
        return Err(CertificateError::Order.into());
    }
    for Signer { principal, key } in [requester, approver] {
        let name: KeyName = principal.to_string().parse().map_err(|_| CertificateError::Order)?;
        if note.verified_by(&VerifierKey::ed25519(name, *key))?.is_none() {
            return Err(CertificateError::Order.into());
        }
    }
    Ok(())
}

/// Whether the records say what the body says was done, and none is missing.
fn says(body: &CertificateBody, shown: &[Shown]) -> Result<(), CertificateError> {
    let mut requests = BTreeSet::new();
    for one in shown {
        if !requests.insert(one.intent.request) || !fits(body, one) {
            return Err(CertificateError::OtherRecord);
        }
    }
    let of = |what| shown.iter().filter(move |shown: &&Shown| shown.what == what);
    if of(What::RingWrite).count() != 1 {
        return Err(CertificateError::Missing("the writing of the ring version"));
    }
    let dropped = |key: &DroppedKey| of(What::Drop).any(|drop| names(drop.intent.key.as_ref(), key));
    if !body.scope.keys.iter().all(dropped) {
        return Err(CertificateError::Missing("the drop of each key"));
    }
    let ended = |epoch: &EpochEnd| {
        let of_epoch = |what| of(what).any(|one| names_epoch(one.intent.key.as_ref(), epoch));
        of_epoch(What::EpochDisable) && of_epoch(What::EpochDelete)
    };
    if !body.epochs.iter().all(ended) {
        return Err(CertificateError::Missing("the end of each epoch"));
    }
    if let Some(caches) = body.caches {
        let ttl = Duration::from_secs(caches.ttl_seconds);
        let early = |drop: &Shown| caches.over < drop.at.saturating_add(ttl);
        if of(What::Drop).chain(of(What::RingWrite)).any(early) {
            return Err(CertificateError::Contradiction("time of caches"));
        }
    }
    Ok(())
}

/// Whether one record says what the body says of it.
fn fits(body: &CertificateBody, Shown { what, intent, at, .. }: &Shown) -> bool {
    let ring = RingRef { version: body.ring.version, hash: body.ring.hash };
    let order = match &body.authority {
        Authority::Routine => None,
        Authority::Order(order) => Some(order),
    };
    let certificate = intent.certificate.is_none_or(|id| id == body.certificate);
    let customers = intent.customer == Some(body.customer);
    let ordered = intent.order == order.map(|order| order.id);
    let in_scope = || body.scope.keys.iter().any(|key| names(intent.key.as_ref(), key));
    let signed = |who: fn(&SignedOrder) -> &Signer| {
        order.is_some_and(|order| intent.order == Some(order.id) && intent.principal == who(order).principal)
    };
    let of_epoch = |time: fn(&EpochEnd) -> _| {
        let is = |epoch: &EpochEnd| names_epoch(intent.key.as_ref(), epoch) && time(epoch) == *at;
        // What concerns the store is in the chain of its own id.
        intent.customer == Some(CustomerId::from_bytes(*body.store.as_bytes())) && body.epochs.iter().any(is)
    };
    certificate
        && match what {
            What::OrderRequest => signed(|order| &order.requester),
            What::OrderApprove => signed(|order| &order.approver),
            What::Pend => customers && ordered && in_scope(),
            What::Drop => customers && ordered && in_scope() && intent.ring.is_none_or(|named| named == ring),
            What::RingWrite => {
                customers && ordered && intent.ring == Some(ring) && intent.principal == body.run_by
            }
            What::EpochDisable => of_epoch(|epoch| epoch.disabled),
            What::EpochDelete => of_epoch(|epoch| epoch.scheduled),
            What::CustomerKeyDelete => {
                customers && ordered && matches!(intent.key, Some(KeyRef::Customer { .. }))
            }
        }
}

fn names(named: Option<&KeyRef>, key: &DroppedKey) -> bool {
    match (named, key.kind) {
        (Some(KeyRef::Kek { id, day }), KeyKind::Day) => *id == key.id && Some(*day) == key.day,
        (Some(KeyRef::HoldKey { id }), KeyKind::Hold) | (Some(KeyRef::NameKey { id }), KeyKind::Name) => {
            *id == key.id
        }
        _ => false,
    }
}

fn names_epoch(named: Option<&KeyRef>, end: &EpochEnd) -> bool {
    matches!(named, Some(KeyRef::Epoch { kms_key, epoch }) if *kms_key == end.kms_key && *epoch == end.epoch)
}
