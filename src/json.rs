//! What things look like as JSON, the same on the command line and over HTTP.
//!
//! Separate from both, so that a program that reads the one reads the other, and so that the
//! command line prints the same of a store and of a daemon: each is a type that is written
//! here from what the façade gives, and read here from what a daemon answers. Fields may be
//! added, and keep their meaning.
//!
//! Invariant: what was read from a daemon can be printed. Its free text is [`Plain`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::access::Principal;
use crate::envelope::BlobName;
use crate::id::{BlobId, CustomerId, HoldId, KekId, KmsKeyId, Label, OrderId};
use crate::order;
use crate::retention::{Period, Window};
use crate::ring::{self, HoldScope, HoldState, Tenancy};
use crate::room::{BlobInfo, CustomerInfo, Extended as RoomExtended, Sealed as RoomSealed};
use crate::shred::{OrderState, OrderStatus};
use crate::suite::Suite;
use crate::time::{Day, Timestamp};
use crate::tlog::VerifierKey;

mod admission;
mod audit;
mod destruction;
mod failed;
mod inventory;
mod keys;

pub(crate) use self::audit::*;
pub(crate) use admission::*;
pub(crate) use destruction::*;
pub(crate) use failed::Failed;
pub(crate) use inventory::Inventory;
#[cfg(feature = "daemon")]
pub(crate) use inventory::Stands;
pub(crate) use keys::{RekeyStatus, Rekeyed};

/// A word or a sentence without anything that moves a cursor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub(crate) struct Plain(String);

impl<T: Into<String>> From<T> for Plain {
    fn from(text: T) -> Self {
        Self(text.into().chars().filter(|c| !c.is_control()).collect())
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::from)
    }
}

/// A customer's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Customer {
    #[serde(with = "as_text")]
    pub(crate) label: Label,
    pub(crate) customer: CustomerId,
    pub(crate) kms_key: KmsKeyId,
    pub(crate) retention: Period,
    #[serde(with = "as_text")]
    pub(crate) window: Window,
    #[serde(with = "as_text")]
    pub(crate) suite: Suite,
    pub(crate) strict: bool,
    pub(crate) phi: bool,
    #[serde(with = "as_text")]
    pub(crate) tenancy: Tenancy,
    pub(crate) held: bool,
    pub(crate) ring_version: u64,
    pub(crate) epoch: u32,
    pub(crate) keys: usize,
}

impl From<&CustomerInfo> for Customer {
    fn from(info: &CustomerInfo) -> Self {
        Self {
            label: info.label.clone(),
            customer: info.id,
            kms_key: info.kms_key.clone(),
            retention: info.period,
            window: info.window,
            suite: info.suite,
            strict: info.strict,
            phi: info.phi,
            tenancy: info.tenancy,
            held: info.held,
            ring_version: info.ring_version,
            epoch: info.epoch,
            keys: info.keys,
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn customer(info: &CustomerInfo) -> Value {
    json!(Customer::from(info))
}

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) blob: BlobId,
    #[serde(with = "a_name")]
    pub(crate) name: Option<BlobName>,
    pub(crate) content_type: Option<Plain>,
    pub(crate) meta: BTreeMap<Plain, Plain>,
    pub(crate) bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) sealed_at: Timestamp,
    pub(crate) retain_until: Day,
    pub(crate) held: bool,
    #[serde(with = "as_text")]
    pub(crate) suite: Suite,
    pub(crate) kek: KekId,
}

impl From<&BlobInfo> for Blob {
    fn from(info: &BlobInfo) -> Self {
        let metadata = &info.metadata;
        Self {
            blob: info.id,
            name: metadata.name().cloned(),
            content_type: metadata.content_type().map(Plain::from),
            meta: metadata.pairs().map(|(key, value)| (key.into(), value.into())).collect(),
            bytes: info.bytes,
            stored_bytes: info.stored_bytes,
            sealed_at: info.sealed_at,
            retain_until: info.retain_until,
            held: info.held,
            suite: info.suite,
            kek: info.kek,
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn blob(info: &BlobInfo) -> Value {
    json!(Blob::from(info))
}

/// A blob in a listing that nobody opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub(crate) blob: BlobId,
    pub(crate) stored_bytes: u64,
    pub(crate) stored_at: Option<Timestamp>,
}

/// A blob in a listing, as far as it could be opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Row {
    Blob(Blob),
    Failed {
        blob: BlobId,
        /// As the storage says, where it was asked.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        stored_bytes: Option<u64>,
        error: Failed,
    },
}

/// A blob that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    pub(crate) blob: BlobId,
    pub(crate) bytes: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) retain_until: Day,
    /// Whether an earlier attempt with the same idempotency key had sealed it.
    #[serde(default)]
    pub(crate) replayed: bool,
}

impl From<RoomSealed> for Sealed {
    fn from(sealed: RoomSealed) -> Self {
        let RoomSealed { id: blob, bytes, stored_bytes, retain_until, replayed } = sealed;
        Self { blob, bytes, stored_bytes, retain_until, replayed }
    }
}

/// A blob whose term was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Extended {
    pub(crate) blob: BlobId,
    pub(crate) retain_until: Day,
    pub(crate) changed: bool,
}

impl From<RoomExtended> for Extended {
    fn from(extended: RoomExtended) -> Self {
        Self { blob: extended.id, retain_until: extended.retain_until, changed: extended.changed }
    }
}

/// One version of a retention policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) number: u32,
    pub(crate) since: Timestamp,
    pub(crate) retention: Period,
    #[serde(with = "as_text")]
    pub(crate) window: Window,
    pub(crate) order: Option<OrderId>,
}

impl From<&ring::Policy> for Policy {
    fn from(policy: &ring::Policy) -> Self {
        let ring::Policy { number, since, period: retention, window, order, .. } = *policy;
        Self { number, since, retention, window, order }
    }
}

/// The policy that applies, and all there were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policies {
    pub(crate) policy: Option<Policy>,
    pub(crate) policies: Vec<Policy>,
}

impl From<&[ring::Policy]> for Policies {
    fn from(policies: &[ring::Policy]) -> Self {
        let policies: Vec<Policy> = policies.iter().map(Policy::from).collect();
        Self { policy: policies.last().cloned(), policies }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn policies(policies: &[ring::Policy]) -> Value {
    json!(Policies::from(policies))
}

/// A legal hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hold {
    pub(crate) hold: HoldId,
    /// `customer`, `day` or `blob`.
    pub(crate) scope: Plain,
    pub(crate) day: Option<Day>,
    pub(crate) blob: Option<BlobId>,
    pub(crate) placed: Timestamp,
    /// `opening`, `complete` or `released`.
    pub(crate) state: Plain,
    pub(crate) released_by: Option<OrderId>,
    pub(crate) released_at: Option<Timestamp>,
    /// That it was placed with, where it was placed now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) ring_version: Option<u64>,
}

impl From<&ring::Hold> for Hold {
    fn from(hold: &ring::Hold) -> Self {
        let (scope, day, blob) = match hold.scope {
            HoldScope::Customer => ("customer", None, None),
            HoldScope::Day(day) => ("day", Some(day), None),
            HoldScope::Blob { blob, .. } => ("blob", None, Some(blob)),
        };
        let (state, released_by, released_at) = match hold.state {
            HoldState::Opening => ("opening", None, None),
            HoldState::Complete => ("complete", None, None),
            HoldState::Released { order, at } => ("released", Some(order), Some(at)),
        };
        let (scope, state) = (scope.into(), state.into());
        Self {
            hold: hold.id,
            scope,
            day,
            blob,
            placed: hold.placed,
            state,
            released_by,
            released_at,
            ring_version: None,
        }
    }
}

impl Hold {
    /// Whether it stands.
    pub(crate) fn is_live(&self) -> bool {
        self.released_by.is_none()
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn hold(hold: &ring::Hold) -> Value {
    json!(Hold::from(hold))
}

/// Somebody who may sign orders, or could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    pub(crate) principal: Principal,
    pub(crate) key: VerifierKey,
    pub(crate) since: Timestamp,
    pub(crate) until: Option<Timestamp>,
}

impl From<&order::Person> for Person {
    fn from(person: &order::Person) -> Self {
        let order::Person { principal, since, until, .. } = person.clone();
        Self { principal, key: person.verifier(), since, until }
    }
}

pub(crate) fn order(status: &OrderStatus) -> Value {
    let order = status.signed.order();
    json!({
        "order": order.id,
        "state": order_state(status.state),
        "progress": progress(status.state),
        "what": order.what,
        "customer": order.customer,
        "ring": order.ring,
        "requested_by": order.requested_by,
        "requested_at": order.requested_at,
        "not_before": order.not_before,
        "expires": order.expires,
    })
}

/// The state that a daemon told. One from before there was `progress` says less.
pub(crate) fn read_order_state(state: &str, progress: Option<&str>) -> Option<OrderState> {
    let says = |known: &OrderState| match progress {
        Some(text) => self::progress(*known) == text,
        None => order_state(*known) == state,
    };
    OrderState::ALL.into_iter().rfind(says)
}

/// How far an order has come, in short: `done` since it was taken up, for as long as it stands.
fn order_state(state: OrderState) -> &'static str {
    match state {
        OrderState::UnderWay | OrderState::Done => "done",
        other => progress(other),
    }
}

/// How far an order has come.
pub(crate) fn progress(state: OrderState) -> &'static str {
    match state {
        OrderState::Requested => "requested",
        OrderState::Approved => "approved",
        OrderState::UnderWay => "under-way",
        OrderState::Suspended => "suspended",
        OrderState::Done => "carried-out",
        OrderState::Cancelled => "cancelled",
        OrderState::Expired => "expired",
    }
}

/// A time to the second, as people read it.
pub(crate) fn seconds(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((front, _)) => format!("{front}Z"),
        None => text,
    }
}

/// A type through its text.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a blob, or none.
mod a_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::envelope::BlobName;

    pub(super) fn serialize<S: Serializer>(name: &Option<BlobName>, to: S) -> Result<S::Ok, S::Error> {
        name.as_ref().map(BlobName::as_str).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BlobName>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        // What it was is not repeated.
        let named = text.map(|text| text.parse().map_err(|_| serde::de::Error::custom("no name of a blob")));
        named.transpose()
    }
}
