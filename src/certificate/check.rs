//! What makes a certificate good: that it agrees with itself, that its order was signed
//! by two people, that its records are in the log and say what it says, and that the papers
//! which it names do too.
//!
//! Pure, and the same before a certificate is signed and when it is verified.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::body::{
    Assurance, Authority, Blobs, Category, CertificateBody, CertificateStage, CertifiedEpoch, DroppedKey,
    EpochEnd, Format, GoneBy, KeyKind, Limit, Missing, SignedOrder, Signer, Verification,
};
use super::bundle::Bundle;
use super::epoch::{EndOnPaper, verify_epoch};
use super::error::CertificateError;
use super::evidence::{Shown, What, show};
use super::{Certificate, page};
use crate::audit::authority::LogKeys;
use crate::audit::papers::OrderHead;
use crate::audit::proof::Proved;
use crate::audit::{KeyRef, RingRef};
use crate::error::Result;
use crate::id::{CertificateId, CustomerId, StoreId};
use crate::kms::DestructionAssurance;
use crate::tlog::note::Note;
use crate::tlog::{KeyName, VerifierKey};

#[cfg(doc)]
use crate::error::ErrorKind;

/// What a certificate showed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// What it says.
    pub body: CertificateBody,
    /// How each epoch ended, as it says itself or the papers do that it names.
    pub epochs: Vec<EpochEnd>,
    /// The records of the log in it, in the order of its evidence, and then those in its
    /// papers, by epoch.
    pub proven: Vec<Proved>,
    /// It for people.
    pub page: String,
}

/// What a certificate showed by itself, without the papers that it names: complete only if
/// it names none.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Examined {
    /// What it says.
    pub body: CertificateBody,
    /// The records of the log in it, in the order of its evidence.
    pub proven: Vec<Proved>,
}

/// Verifies a certificate by itself, or a [`Bundle`] of one with the papers that it names:
/// the signature of a log's key, one of `log_key`, its form, its order, and each proof in it and
/// in the papers, whose checkpoint at least `quorum` of `witnesses` have to have cosigned.
///
/// Whose personal keys signed the order is for the caller to compare with what it knows:
/// they stand in [`SignedOrder`].
///
/// # Errors
/// [`ErrorKind::Integrity`] if anything in it does not hold, with
/// [`CertificateError::PapersMissing`] behind it if nothing is wrong but that papers are not
/// with it; [`ErrorKind::UnsupportedFormat`] for a later version.
pub fn verify(
    bytes: &[u8],
    log_key: &impl LogKeys,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Verified> {
    let log_key = &log_key.authority();
    if !Bundle::is_one(bytes) {
        return examine(bytes, log_key, witnesses, quorum)?.complete(&BTreeMap::new());
    }
    let bundle = Bundle::parse(bytes)?;
    let examined = examine(bundle.certificate.as_bytes(), log_key, witnesses, quorum)?;
    let named: Vec<u32> = examined.body.named().map(|name| name.epoch).collect();
    bundle.has_only(&named)?;
    let (mut papers, mut proven) = (BTreeMap::new(), Vec::new());
    for (epoch, paper) in &bundle.papers {
        let verified = verify_epoch(paper.as_bytes(), examined.body.store, log_key, witnesses, quorum)?;
        papers.insert(*epoch, verified.paper);
        proven.extend(verified.proven);
    }
    let mut verified = examined.complete(&papers)?;
    verified.proven.extend(proven);
    Ok(verified)
}

/// Verifies a certificate as far as that goes without the papers that it names.
///
/// # Errors
/// As [`verify`].
pub fn examine(
    bytes: &[u8],
    log_key: &impl LogKeys,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Examined> {
    let log_key = &log_key.authority();
    let certificate = Certificate::parse(bytes, log_key)?;
    let proven = check(&certificate.body, log_key, witnesses, quorum)?;
    Ok(Examined { body: certificate.body, proven })
}

impl Examined {
    /// Holds it against these papers, each verified before ([`verify_epoch`]), by epoch.
    /// Others than it names do not matter.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if one is missing, or is another or says otherwise than it
    /// says.
    pub fn complete(self, papers: &BTreeMap<u32, EndOnPaper>) -> Result<Verified> {
        let epochs = ends(&self.body, papers)?;
        Ok(Verified { page: page::page(&self.body, &epochs), body: self.body, epochs, proven: self.proven })
    }
}

/// How each epoch ended. What a certificate says is held against the papers that it names.
pub(super) fn ends(
    body: &CertificateBody,
    papers: &BTreeMap<u32, EndOnPaper>,
) -> Result<Vec<EpochEnd>, CertificateError> {
    let missing: Vec<u32> =
        body.named().map(|name| name.epoch).filter(|epoch| !papers.contains_key(epoch)).collect();
    if let Some(first) = missing.first() {
        return Err(CertificateError::PapersMissing { count: missing.len(), first: *first });
    }
    let end = |epoch: &CertifiedEpoch| match epoch {
        // The body was checked with it.
        CertifiedEpoch::InFull(end) => Ok(end.clone()),
        CertifiedEpoch::Named(name) => {
            let paper = papers.get(&name.epoch).filter(|paper| paper.name() == *name);
            let end = &paper.ok_or(CertificateError::OtherPaper(name.epoch))?.end;
            if !ended(end, body) {
                return Err(CertificateError::Contradiction("end of an epoch"));
            }
            Ok(end.clone())
        }
    };
    body.epochs.iter().map(end).collect()
}

/// Everything but the signature and the form. Gives the proven records.
pub(super) fn check(
    body: &CertificateBody,
    log_key: &impl LogKeys,
    witnesses: &[VerifierKey],
    quorum: usize,
) -> Result<Vec<Proved>> {
    let log_key = &log_key.authority();
    agrees(body)?;
    if let Authority::Order(order) = &body.authority {
        check_order(order, body.store, Some(body.customer))?;
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
    let CertificateBody { format, stage, method, scope, ring, time, epochs, .. } = body;

    let id = CertificateId::derive(body.store, body.customer, ring.version);
    must(body.certificate == id, "id")?;
    must(ring.previous > 0 && ring.previous.checked_add(1) == Some(ring.version), "ring version")?;
    must(method.category == Category::of(*stage, method.assurance), "category")?;
    // The first format had no word for it; the last has words of its own for all else.
    must(*format != Format::V1 || method.assurance != Assurance::NotProvable, "category")?;
    must(method.assurance.is_word(*format != Format::V3), "category")?;

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
    let missing: &[Missing] = if *format == Format::V3 { &Missing::ALL } else { &[] };
    must(body.missing == missing, "list of what is missing in it")?;

    match stage {
        CertificateStage::Interim => {
            let nothing = epochs.is_empty() && body.caches.is_none() && body.ciphertext.is_none();
            must(nothing, "stage")
        }
        CertificateStage::Final => {
            must(body.caches.is_some_and(|caches| caches.over <= body.issued), "time of caches")?;
            let of_format = |epoch: &CertifiedEpoch| (*format == Format::V1) == epoch.in_full().is_some();
            must(epochs.iter().all(of_format), "list of epochs")?;
            let numbers: Vec<u32> = epochs.iter().map(CertifiedEpoch::epoch).collect();
            must(numbers.is_sorted_by(|a, b| a < b), "list of epochs")?;
            must(covers(&scope.keys, &numbers), "list of epochs")?;
            let mut in_full = epochs.iter().filter_map(CertifiedEpoch::in_full);
            must(in_full.all(|end| ended(end, body)), "end of an epoch")
        }
    }
}

/// Whether the epochs, which are in order, are those in which a ring version had one of
/// the keys.
fn covers(keys: &[DroppedKey], epochs: &[u32]) -> bool {
    let place = |epoch: u32| epochs.partition_point(|number| *number < epoch);
    // What begins and ends within the epochs of the keys so far goes no further.
    let mut spans: Vec<(u32, u32)> = keys.iter().map(|key| (key.born, key.last)).collect();
    spans.sort_unstable();
    let mut covered = 0;
    for (born, last) in spans {
        let (from, until) = (place(born), epochs.partition_point(|number| *number <= last));
        // The epochs are all different, so that their number is enough.
        let whole = u64::try_from(until - from) == Ok(u64::from(last - born) + 1);
        if !whole || from > covered {
            return false;
        }
        covered = covered.max(until);
    }
    covered == epochs.len()
}

/// Whether an epoch ended as the certificate claims.
fn ended(end: &EpochEnd, body: &CertificateBody) -> bool {
    let most = DestructionAssurance::of(&end.kms_key);
    let seen = match end.seen {
        GoneBy::FileRemoved => most == DestructionAssurance::FilesRemoved,
        GoneBy::KmsReportsGone => true,
    };
    seen && body.method.assurance.proves() <= most && end.scheduled <= end.gone && end.gone <= body.issued
}

/// Checks that an order is signed by the two people, is the one of its id, and is about this
/// customer or the whole store. Gives its note.
pub(crate) fn check_order(order: &SignedOrder, store: StoreId, customer: Option<CustomerId>) -> Result<Note> {
    let SignedOrder { id, requester, approver, note, .. } = order;
    let note = Note::parse(note.as_bytes())?;
    let different = requester.principal != approver.principal && requester.key != approver.key;
    let fits = |head: OrderHead| {
        (head.id, head.store, head.customer) == (*id, store, customer)
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
    Ok(note)
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
    if !body.epochs.iter().filter_map(CertifiedEpoch::in_full).all(ended) {
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
    // From the second format on, the records of epochs are in their papers and nowhere else.
    let of_epoch = |time: fn(&EpochEnd) -> _| {
        let is = |epoch: &EpochEnd| names_epoch(intent.key.as_ref(), epoch) && time(epoch) == *at;
        // What concerns the store is in the chain of its own id.
        intent.customer == Some(body.store.as_customer())
            && body.epochs.iter().filter_map(CertifiedEpoch::in_full).any(is)
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
