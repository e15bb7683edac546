//! What things look like as JSON, the same on the command line and over HTTP.
//!
//! Separate from both, so that a program that reads the one reads the other. Fields may be
//! added, and keep their meaning.

use serde_json::{Map, Value, json};

use crate::id::OrderId;
use crate::kms::KeyState;
use crate::register::EpochPhase;
use crate::ring::{EntryKind, Hold, HoldScope, HoldState, Policy};
use crate::room::{AccessRequest, BlobInfo, CustomerInfo, Emergency, Session, SessionState};
use crate::session::Guest;
use crate::shred::epoch::{EpochReport, Head, KmsSays, LeftBehind, NextStep};
use crate::shred::{
    CustomerPlan, Executed, InWindow, KeyPlan, OrderState, OrderStatus, ShredStatus, Unfinished, Verdict,
};
use crate::time::{Day, Timestamp};

pub(crate) fn customer(info: &CustomerInfo) -> Value {
    json!({
        "label": info.label.as_str(),
        "customer": info.id,
        "kms_key": info.kms_key,
        "retention": info.period.to_string(),
        "window": info.window.to_string(),
        "suite": info.suite.as_str(),
        "strict": info.strict,
        "phi": info.phi,
        "tenancy": info.tenancy.as_str(),
        "held": info.held,
        "ring_version": info.ring_version,
        "epoch": info.epoch,
        "keys": info.keys,
    })
}

pub(crate) fn session(session: &Session) -> Value {
    let (state, why) = match session.state {
        SessionState::Open => ("open", None),
        SessionState::Over(why) => ("over", Some(why.as_str())),
    };
    json!({
        "session": session.id,
        "customer": session.customer,
        "state": state,
        "why": why,
        "opened": session.opened,
        "expires": session.expires,
        "last_use": session.last_use,
        "idle_seconds": session.limits.idle.as_secs(),
        "absolute_seconds": session.limits.absolute.as_secs(),
        "only": session.only.as_ref().map(guest),
    })
}

pub(crate) fn emergency(emergency: &Emergency) -> Value {
    let review = emergency.review.as_ref();
    json!({
        "emergency": emergency.id,
        "customer": emergency.customer,
        "by": emergency.by,
        "from": emergency.from,
        "until": emergency.until,
        "uses": emergency.uses,
        "folded": emergency.folded,
        "reviewed_by": review.map(|review| &review.by),
        "reviewed_at": review.map(|review| review.at),
    })
}

pub(crate) fn access_request(request: &AccessRequest) -> Value {
    json!({
        "access_request": request.id,
        "customer": request.customer,
        "by": guest(&request.guest),
        "at": request.at,
        "until": request.until,
        "idle_seconds": request.limits.idle.as_secs(),
        "absolute_seconds": request.limits.absolute.as_secs(),
    })
}

fn guest(guest: &Guest) -> Value {
    json!({ "principal": guest.principal.to_string(), "purpose": guest.purpose.code() })
}

pub(crate) fn blob(info: &BlobInfo) -> Value {
    let meta: Map<_, _> =
        info.metadata.pairs().map(|(key, value)| (key.to_owned(), Value::from(value))).collect();
    json!({
        "blob": info.id,
        "name": info.metadata.name().map(|name| name.as_str()),
        "content_type": info.metadata.content_type(),
        "meta": meta,
        "bytes": info.bytes,
        "stored_bytes": info.stored_bytes,
        "sealed_at": info.sealed_at,
        "retain_until": info.retain_until,
        "held": info.held,
        "suite": info.suite.as_str(),
        "kek": info.kek,
    })
}

pub(crate) fn policy(policy: &Policy) -> Value {
    json!({
        "number": policy.number,
        "since": policy.since,
        "retention": policy.period.to_string(),
        "window": policy.window.to_string(),
        "order": policy.order,
    })
}

/// The policy that applies, and all there were.
pub(crate) fn policies(policies: &[Policy]) -> Value {
    json!({
        "policy": policies.last().map(policy),
        "policies": policies.iter().map(policy).collect::<Vec<_>>(),
    })
}

pub(crate) fn hold(hold: &Hold) -> Value {
    let (on, day, blob) = match hold.scope {
        HoldScope::Customer => ("customer", None, None),
        HoldScope::Day(day) => ("day", Some(day), None),
        HoldScope::Blob { blob, .. } => ("blob", None, Some(blob)),
    };
    let (order, at) = match hold.state {
        HoldState::Released { order, at } => (Some(order), Some(at)),
        HoldState::Opening | HoldState::Complete => (None, None),
    };
    json!({
        "hold": hold.id,
        "scope": on,
        "day": day,
        "blob": blob,
        "placed": hold.placed,
        "state": hold_state(hold),
        "released_by": order,
        "released_at": at,
    })
}

pub(crate) fn hold_state(hold: &Hold) -> &'static str {
    match hold.state {
        HoldState::Opening => "opening",
        HoldState::Complete => "complete",
        HoldState::Released { .. } => "released",
    }
}

pub(crate) fn order(status: &OrderStatus) -> Value {
    let order = status.signed.order();
    json!({
        "order": order.id,
        "state": order_state(status.state),
        "what": order.what,
        "customer": order.customer,
        "ring": order.ring,
        "requested_by": order.requested_by,
        "requested_at": order.requested_at,
        "not_before": order.not_before,
        "expires": order.expires,
    })
}

pub(crate) fn order_state(state: OrderState) -> &'static str {
    match state {
        OrderState::Requested => "requested",
        OrderState::Approved => "approved",
        OrderState::Done => "done",
        OrderState::Expired => "expired",
    }
}

/// What was done by an order.
pub(crate) fn executed(order: OrderId, executed: &Executed) -> Value {
    let mut value = match executed {
        Executed::Before => json!({ "done": "before" }),
        Executed::Pended { keys, until, waiting_for } => {
            json!({ "done": "pended", "keys": keys, "until": until, "waiting_for": waiting_for })
        }
        Executed::Ring(version) => json!({ "done": "ring", "ring_version": version }),
        Executed::Register(version) => json!({ "done": "register", "register_version": version }),
    };
    value["order"] = json!(order);
    value
}

/// What a key of a ring is for, and of which day.
pub(crate) fn kind(kind: EntryKind) -> (&'static str, Option<Day>) {
    match kind {
        EntryKind::Day(day) => ("day", Some(day)),
        EntryKind::Hold => ("hold", None),
        EntryKind::Name => ("names", None),
    }
}

pub(crate) fn key_plan(plan: &CustomerPlan, key: &KeyPlan) -> Value {
    let (kind, day) = kind(key.kind);
    let (verdict, until, order, holds) = match &key.verdict {
        Verdict::Pend => ("pend", None, None, None),
        Verdict::Close(order) => ("close", None, Some(*order), None),
        Verdict::Waits(until, order) => ("waits", Some(*until), *order, None),
        Verdict::Drop(order) => ("drop", None, *order, None),
        Verdict::Held(holds) => ("held", None, None, Some(holds)),
    };
    json!({
        "customer": plan.customer,
        "label": plan.label.as_str(),
        "ring_version": plan.ring_version,
        "kind": kind,
        "day": day,
        "key": key.key,
        "blobs": key.scope.shredded.len(),
        "uncertain": key.scope.uncertain.len(),
        "surviving": key.scope.surviving.len(),
        "bytes": key.scope.bytes,
        "verdict": verdict,
        "until": until,
        "order": order,
        "holds": holds,
        "why": why(key),
    })
}

/// What would be done with a key, and why that is allowed.
pub(crate) fn why(key: &KeyPlan) -> String {
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

pub(crate) fn shred_status(status: &ShredStatus) -> Value {
    json!({
        "customer": status.customer,
        "label": status.label.as_str(),
        "ring_version": status.ring_version,
        "window": status.window.iter().map(in_window).collect::<Vec<_>>(),
        "unfinished": status.unfinished.iter().map(unfinished).collect::<Vec<_>>(),
        "holds": status.holds.iter().map(hold).collect::<Vec<_>>(),
    })
}

fn in_window(key: &InWindow) -> Value {
    let (kind, day) = kind(key.kind);
    json!({
        "key": key.key,
        "kind": kind,
        "day": day,
        "until": key.until,
        "order": key.order,
        "held": key.held,
    })
}

fn unfinished(dropped: &Unfinished) -> Value {
    json!({
        "certificate": dropped.certificate,
        "stage": dropped.stage.map(|stage| stage.as_str()),
        "keys": dropped.keys,
        "dropped": dropped.at,
        "order": dropped.order,
        "epochs": dropped.epochs,
    })
}

pub(crate) fn epoch(epoch: &EpochReport) -> Value {
    let (phase, since) = phase(epoch);
    json!({
        "epoch": epoch.number, "kms_key": epoch.kms_key, "began": epoch.began, "state": phase, "since": since,
        "kms": kms(epoch.kms), "rings": epoch.rings, "register": epoch.register, "next": next(epoch.next),
        "not_before": epoch.not_before,
    })
}

/// Where an epoch stands, and since when.
pub(crate) fn phase(epoch: &EpochReport) -> (&'static str, Timestamp) {
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

pub(crate) fn next(step: NextStep) -> &'static str {
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
pub(crate) fn heads(left: &[LeftBehind]) -> Value {
    let one = |LeftBehind { head, why }: &LeftBehind| {
        let customer = if let Head::Ring(customer) = head { Some(customer) } else { None };
        json!({ "customer": customer, "why": why.to_string() })
    };
    left.iter().map(one).collect()
}

/// A time to the second, as people read it.
pub(crate) fn seconds(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((front, _)) => format!("{front}Z"),
        None => text,
    }
}
