//! Destruction as JSON: plans, windows, certificates, epochs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Failed, Hold, Plain, as_text, seconds};
use crate::audit::layout::CertificateStage;
use crate::certificate::{self, CertificateBody};
use crate::id::{BlobId, CertificateId, CustomerId, HoldId, KekId, KmsKeyId, Label, OrderId};
use crate::kms::KeyState;
use crate::register::EpochPhase;
use crate::ring::{EntryKind, Ring};
use crate::shred::epoch::{self, EpochReport, Head, KmsSays, NextStep};
use crate::shred::offboard::OffboardStatus;
use crate::shred::{self, CustomerPlan, Verdict};
use crate::time::{Day, Timestamp};

/// What was done by an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executed {
    pub(crate) order: OrderId,
    #[serde(flatten)]
    pub(crate) what: Done,
}

/// The same, of whichever order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "kebab-case")]
pub(crate) enum Done {
    Before,
    Pended { keys: BTreeSet<KekId>, until: Timestamp, waiting_for: BTreeSet<BlobId> },
    Ring { ring_version: u64 },
    Register { register_version: u64 },
    Approved,
}

impl Executed {
    pub(crate) fn new(order: OrderId, executed: shred::Executed) -> Self {
        let what = match executed {
            shred::Executed::Before => Done::Before,
            shred::Executed::Pended { keys, until, waiting_for } => Done::Pended { keys, until, waiting_for },
            shred::Executed::Ring(ring_version) => Done::Ring { ring_version },
            shred::Executed::Register(register_version) => Done::Register { register_version },
            shred::Executed::Approved => Done::Approved,
        };
        Self { order, what }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn executed(order: OrderId, executed: &shred::Executed) -> Value {
    json!(Executed::new(order, executed.clone()))
}

/// What a key of a ring is for, and of which day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kind {
    /// `day`, `hold` or `names`.
    pub(crate) kind: Plain,
    pub(crate) day: Option<Day>,
}

impl From<EntryKind> for Kind {
    fn from(kind: EntryKind) -> Self {
        let (kind, day) = match kind {
            EntryKind::Day(day) => ("day", Some(day)),
            EntryKind::Hold => ("hold", None),
            EntryKind::Name => ("names", None),
        };
        Self { kind: kind.into(), day }
    }
}

impl fmt::Display for Kind {
    /// The day, or what else it is for.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.day {
            Some(day) => day.fmt(f),
            None => self.kind.fmt(f),
        }
    }
}

/// What would be done with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyPlan {
    pub(crate) customer: CustomerId,
    #[serde(with = "as_text")]
    pub(crate) label: Label,
    pub(crate) ring_version: u64,
    #[serde(flatten)]
    pub(crate) of: Kind,
    pub(crate) key: KekId,
    /// How many are destroyed with it.
    pub(crate) blobs: usize,
    pub(crate) uncertain: usize,
    pub(crate) surviving: usize,
    pub(crate) bytes: u64,
    pub(crate) verdict: Plain,
    pub(crate) until: Option<Timestamp>,
    pub(crate) order: Option<OrderId>,
    pub(crate) holds: Option<Vec<HoldId>>,
    pub(crate) why: Plain,
}

impl KeyPlan {
    /// One of each key.
    pub(crate) fn all(plan: &CustomerPlan) -> Vec<Self> {
        plan.keys.iter().map(|key| Self::new(plan, key)).collect()
    }

    fn new(plan: &CustomerPlan, key: &shred::KeyPlan) -> Self {
        let (verdict, until, order, holds) = match &key.verdict {
            Verdict::Pend => ("pend", None, None, None),
            Verdict::Close(order) => ("close", None, Some(*order), None),
            Verdict::Waits(until, order) => ("waits", Some(*until), *order, None),
            Verdict::Drop(order) => ("drop", None, *order, None),
            Verdict::Held(holds) => ("held", None, None, Some(holds.clone())),
        };
        Self {
            customer: plan.customer,
            label: plan.label.clone(),
            ring_version: plan.ring_version,
            of: key.kind.into(),
            key: key.key,
            blobs: key.scope.shredded.len(),
            uncertain: key.scope.uncertain.len(),
            surviving: key.scope.surviving.len(),
            bytes: key.scope.bytes,
            verdict: verdict.into(),
            until,
            order,
            holds,
            why: why(key).into(),
        }
    }
}

/// What would be done with a key, and why that is allowed.
fn why(key: &shred::KeyPlan) -> String {
    let over = match key.kind {
        EntryKind::Day(_) => "its day is over",
        EntryKind::Hold => "its hold was released",
        EntryKind::Name => "the customer was closed",
    };
    let why = |order: &Option<OrderId>| match order {
        Some(order) => format!("by order {order}"),
        None => over.to_owned(),
    };
    match &key.verdict {
        Verdict::Pend => format!("enters the window: {over}"),
        Verdict::Close(order) => format!("enters the window: the customer was closed by order {order}"),
        Verdict::Waits(until, order) => format!("in the window until {}: {}", seconds(*until), why(order)),
        Verdict::Drop(order) => format!("dropped now: the window is over; {}", why(order)),
        Verdict::Held(holds) => {
            let holds: Vec<String> = holds.iter().map(ToString::to_string).collect();
            format!("kept by hold {}", holds.join(", "))
        }
    }
}

/// How far the destruction of one customer's keys has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShredStatus {
    pub(crate) customer: CustomerId,
    #[serde(with = "as_text")]
    pub(crate) label: Label,
    pub(crate) ring_version: u64,
    pub(crate) window: Vec<InWindow>,
    pub(crate) unfinished: Vec<Unfinished>,
    pub(crate) holds: Vec<Hold>,
}

/// A key that is dropped when its window is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InWindow {
    pub(crate) key: KekId,
    #[serde(flatten)]
    pub(crate) of: Kind,
    pub(crate) until: Timestamp,
    pub(crate) order: Option<OrderId>,
    /// All that own it. A daemon from before there were several says none.
    #[serde(default)]
    pub(crate) orders: Vec<OrderId>,
    pub(crate) held: bool,
}

/// Keys that were dropped together, and whose certificate is not final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unfinished {
    pub(crate) certificate: CertificateId,
    pub(crate) stage: Option<CertificateStage>,
    pub(crate) keys: BTreeSet<KekId>,
    pub(crate) dropped: Timestamp,
    pub(crate) order: Option<OrderId>,
    pub(crate) epochs: BTreeSet<u32>,
}

impl From<&shred::ShredStatus> for ShredStatus {
    fn from(status: &shred::ShredStatus) -> Self {
        let in_window = |key: &shred::InWindow| InWindow {
            key: key.key,
            of: key.kind.into(),
            until: key.until,
            order: key.order,
            orders: key.orders.clone(),
            held: key.held,
        };
        let unfinished = |dropped: &shred::Unfinished| Unfinished {
            certificate: dropped.certificate,
            stage: dropped.stage,
            keys: dropped.keys.clone(),
            dropped: dropped.at,
            order: dropped.order,
            epochs: dropped.epochs.clone(),
        };
        Self {
            customer: status.customer,
            label: status.label.clone(),
            ring_version: status.ring_version,
            window: status.window.iter().map(in_window).collect(),
            unfinished: status.unfinished.iter().map(unfinished).collect(),
            holds: status.holds.iter().map(Hold::from).collect(),
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn shred_status(status: &shred::ShredStatus) -> Value {
    json!(ShredStatus::from(status))
}

/// What came of taking keys out of the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cancelled {
    pub(crate) customer: CustomerId,
    pub(crate) ring_version: u64,
    pub(crate) cancelled: BTreeSet<KekId>,
    /// Those of them that another order owns as well, and that order: they stay in the window.
    #[serde(default)]
    pub(crate) still_in_window: BTreeMap<KekId, OrderId>,
}

impl Cancelled {
    pub(crate) fn new(ring: &Ring, cancelled: &BTreeSet<KekId>) -> Self {
        let still = |key: &KekId| Some((*key, *ring.entry(*key)?.order()?));
        Self {
            customer: ring.customer,
            ring_version: ring.version,
            cancelled: cancelled.clone(),
            still_in_window: cancelled.iter().filter_map(still).collect(),
        }
    }
}

/// How far the offboarding of a customer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offboarding {
    pub(crate) customer: CustomerId,
    /// `open`, `closed`, `destroying` or `destroyed`.
    pub(crate) stage: Plain,
    pub(crate) order: Option<OrderId>,
    pub(crate) active: usize,
    pub(crate) pending: usize,
    pub(crate) until: Option<Timestamp>,
    pub(crate) dropped: usize,
    pub(crate) holds: Vec<HoldId>,
    pub(crate) kms_key: KmsKeyId,
}

impl From<OffboardStatus> for Offboarding {
    fn from(status: OffboardStatus) -> Self {
        Self {
            customer: status.customer,
            stage: status.stage.as_str().into(),
            order: status.order,
            active: status.active,
            pending: status.pending,
            until: status.until,
            dropped: status.dropped,
            holds: status.holds,
            kms_key: status.kms_key,
        }
    }
}

/// What a sweep did for one customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Swept {
    pub(crate) pended: BTreeSet<KekId>,
    pub(crate) dropped: BTreeSet<KekId>,
    pub(crate) held: BTreeSet<KekId>,
    pub(crate) waiting: BTreeSet<KekId>,
    pub(crate) certificates: Vec<Made>,
}

/// What became of one customer in a sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SweptCustomer {
    pub(crate) customer: CustomerId,
    #[serde(flatten)]
    pub(crate) result: SweptResult,
}

/// What was done, or why it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum SweptResult {
    Swept(Swept),
    Failed { error: Failed },
}

/// A certificate that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) certificate: CertificateId,
    pub(crate) stage: CertificateStage,
}

impl From<shred::Swept> for Swept {
    fn from(swept: shred::Swept) -> Self {
        let shred::Swept { pended, dropped, held, waiting, certificates, .. } = swept;
        let made = |(certificate, stage)| Made { certificate, stage };
        Self { pended, dropped, held, waiting, certificates: certificates.into_iter().map(made).collect() }
    }
}

/// A certificate in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) certificate: CertificateId,
    pub(crate) stage: certificate::CertificateStage,
    pub(crate) customer: CustomerId,
    pub(crate) issued: Timestamp,
    pub(crate) category: certificate::Category,
    pub(crate) keys: usize,
    pub(crate) blobs: u64,
}

impl From<&CertificateBody> for Certificate {
    fn from(body: &CertificateBody) -> Self {
        Self {
            certificate: body.certificate,
            stage: body.stage,
            customer: body.customer,
            issued: body.issued,
            category: body.method.category,
            keys: body.scope.keys.len(),
            blobs: body.scope.blobs.certain,
        }
    }
}

/// Where one epoch stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epoch {
    pub(crate) epoch: u32,
    pub(crate) kms_key: KmsKeyId,
    pub(crate) began: Timestamp,
    pub(crate) state: Plain,
    pub(crate) since: Timestamp,
    pub(crate) kms: Plain,
    pub(crate) rings: usize,
    pub(crate) register: bool,
    pub(crate) next: Plain,
    pub(crate) not_before: Option<Timestamp>,
}

impl From<&EpochReport> for Epoch {
    fn from(epoch: &EpochReport) -> Self {
        let (state, since) = phase(epoch);
        Self {
            epoch: epoch.number,
            kms_key: epoch.kms_key.clone(),
            began: epoch.began,
            state: state.into(),
            since,
            kms: kms(epoch.kms).into(),
            rings: epoch.rings,
            register: epoch.register,
            next: next(epoch.next).into(),
            not_before: epoch.not_before,
        }
    }
}

/// Where the epochs stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Epochs {
    pub(crate) epochs: Vec<Epoch>,
    pub(crate) unreadable: Vec<LeftBehind>,
}

impl From<epoch::EpochStatus> for Epochs {
    fn from(status: epoch::EpochStatus) -> Self {
        Self {
            epochs: status.epochs.iter().map(Epoch::from).collect(),
            unreadable: status.unreadable.iter().map(LeftBehind::from).collect(),
        }
    }
}

/// What came of a rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rotated {
    pub(crate) epoch: u32,
    pub(crate) kms_key: KmsKeyId,
    pub(crate) resumed: bool,
    pub(crate) reissued: usize,
    pub(crate) retired: Vec<u32>,
    pub(crate) left_behind: Vec<LeftBehind>,
    pub(crate) vain: Option<KmsKeyId>,
}

impl From<epoch::Rotated> for Rotated {
    fn from(rotated: epoch::Rotated) -> Self {
        let epoch::Rotated { epoch, kms_key, resumed, reissued, retired, left_behind, vain, .. } = rotated;
        let left_behind = left_behind.iter().map(LeftBehind::from).collect();
        Self { epoch, kms_key, resumed, reissued, retired, left_behind, vain }
    }
}

/// A ring, or the register, for whose sake an epoch does not end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftBehind {
    /// `None`: the register.
    pub(crate) customer: Option<CustomerId>,
    pub(crate) why: Plain,
}

impl From<&epoch::LeftBehind> for LeftBehind {
    fn from(left: &epoch::LeftBehind) -> Self {
        let customer = if let Head::Ring(customer) = left.head { Some(customer) } else { None };
        Self { customer, why: left.why.to_string().into() }
    }
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.customer.map_or(Head::Register, Head::Ring);
        write!(f, "{head} {}", self.why)
    }
}

/// Where an epoch stands, and since when.
fn phase(epoch: &EpochReport) -> (&'static str, Timestamp) {
    match epoch.phase {
        EpochPhase::Current => ("current", epoch.began),
        EpochPhase::Retired { at } => ("retired", at),
        EpochPhase::Disabled { at } => ("disabled", at),
        EpochPhase::PendingDeletion { scheduled_at, .. } => ("pending-deletion", scheduled_at),
        EpochPhase::Gone { seen_at } => ("gone", seen_at),
    }
}

pub(crate) fn kms(says: KmsSays) -> &'static str {
    match says {
        KmsSays::State(KeyState::Enabled) => "enabled",
        KmsSays::State(KeyState::Disabled) => "disabled",
        KmsSays::State(KeyState::PendingDeletion(_)) => "pending-deletion",
        KmsSays::State(KeyState::Unavailable) => "unavailable",
        KmsSays::Gone => "gone",
        KmsSays::Nothing(_) => "unknown",
    }
}

fn next(step: NextStep) -> &'static str {
    match step {
        NextStep::Rotate => "rotate",
        NextStep::CompleteRotation => "complete-rotation",
        NextStep::Disable => "disable",
        NextStep::Schedule => "schedule",
        NextStep::SeeGone => "see-gone",
        NextStep::Look => "look",
        NextStep::Nothing => "nothing",
    }
}

/// Who is left behind.
pub(crate) fn heads(left: &[epoch::LeftBehind]) -> Value {
    left.iter().map(|left| json!(LeftBehind::from(left))).collect()
}
