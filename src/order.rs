//! Orders: what takes two people, signed by both.
//!
//! An [`Order`] says in one text what is to be done, in which store, to whom, at
//! which version of the ring, by whose request and within which time. The text is
//! that of a signed note (c2sp.org/signed-note); each of the two signs the same
//! bytes with a key of their own, whose name in the note is who they are. What then
//! acts takes an [`ApprovedOrder`], which only [`SignedOrder::approved`] makes.
//!
//! # The text
//! Pretty JSON with two spaces and a final line feed, fields in the order of
//! [`Order`], those that do not apply left out. There is one text of an order:
//! what does not read back to the same bytes is refused.
//!
//! ```text
//! {
//!   "format": "strongroom/order/v1",
//!   "id": "…",
//!   "store": "…",
//!   "what": {
//!     "destroy-days": {
//!       "days": [
//!         "2028-05-22"
//!       ]
//!     }
//!   },
//!   "requested_by": "person:p-17",
//!   "requested_at": "2026-11-22T09:00:00.000000Z",
//!   "not_before": "2026-11-22T09:00:00.000000Z",
//!   "expires": "2026-11-29T09:00:00.000000Z",
//!   "customer": "…",
//!   "ring": {
//!     "version": 7,
//!     "sha256": "…"
//!   }
//! }
//! ```
//!
//! Separate from what orders are about, and pure, so that a certificate's orders are
//! verified without a store.
//!
//! Invariants: an [`ApprovedOrder`] bears the signatures of two registered people at
//! least, with two names and two keys, one of them the requester's; it is of the
//! store that it was asked for; it was within its time. That it is used once is the
//! register's, or the ring's, to see to: the id is its nonce.
//!
//! Anyone may write a note. What counts is who the store's register says the people
//! are ([`People`]).

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::access::principal::Principal;
use crate::error::{Error as PublicError, ErrorKind};
use crate::id::{BlobId, CustomerId, HoldId, OrderId, StoreId};
use crate::retention::Period;
use crate::retention::clock::{Bounds, TrustedTime};
use crate::time::{Day, Timestamp};
use crate::tlog::note::Note;
use crate::tlog::{NamedKey, PublicKey};

mod people;

pub use people::{NOTICE, NewPerson, NotAPerson, People, PeopleRefusal, Person};

/// What the text of an order begins with.
pub const FORMAT: &str = "strongroom/order/v1";

/// How far the time that an order sets may be from the one at which it is requested: an
/// hour. It says which time it is, and is not to say which it shall be.
pub const CLOCK_ORDER: Duration = Duration::from_hours(1);

/// What is to be done, to whom and within which time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    format: Format,
    /// Its id, a nonce: an order is used once.
    pub id: OrderId,
    /// The store in which it is to be done.
    pub store: StoreId,
    /// What.
    pub what: OrderKind,
    /// Who asks for it, and signs first.
    pub requested_by: Principal,
    /// When that was, by the requester's clock.
    pub requested_at: Timestamp,
    /// It is not done before.
    pub not_before: Timestamp,
    /// It is not done from then on.
    pub expires: Timestamp,
    /// Whom it concerns, if it is a customer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub customer: Option<CustomerId>,
    /// The ring of that customer that the two have seen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ring: Option<SeenRing>,
}

/// The first field. It has one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format;

/// One version of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeenRing {
    /// The version, from 1.
    pub version: u64,
    /// SHA-256 of the stored object, in lower-case hexadecimal.
    #[serde(serialize_with = "write_hex", deserialize_with = "read_hex")]
    pub sha256: [u8; 32],
}

/// What takes two people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OrderKind {
    /// Destroys a customer's keys of some days before those days are over.
    DestroyDays {
        /// The days, in order, each once.
        days: Vec<Day>,
    },
    /// Destroys one blob before its day is over.
    DestroyBlob {
        /// The blob.
        blob: BlobId,
    },
    /// Ends the agreement with a customer: everything is returned, then destroyed.
    Offboard {
        /// In which form it is returned.
        return_to: ReturnTo,
    },
    /// Releases a legal hold.
    ReleaseHold {
        /// The hold.
        hold: HoldId,
    },
    /// Shortens how long a customer's new blobs are kept.
    ShortenRetention {
        /// The new period.
        period: Period,
    },
    /// Says which time it is.
    SetClock {
        /// The time, within [`CLOCK_ORDER`] of when the order was requested.
        at: Timestamp,
    },
    /// Replaces the signing key of the audit log.
    RotateLogKey {
        /// The new public key.
        key: PublicKey,
    },
    /// Changes who may sign orders.
    SetPeople {
        /// Who may from now on, by principal.
        add: Vec<NewPerson>,
        /// Who may no longer, in order.
        remove: Vec<Principal>,
    },
}

/// In which form a customer's blobs are returned before they are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReturnTo {
    /// Decrypted.
    Plaintext,
    /// Sealed again under a key of the customer's own.
    Resealed,
    /// Not at all: the customer has them, or wants none.
    Nothing,
}

impl OrderKind {
    /// Whether it is done to a customer, and not to the store.
    #[must_use]
    pub const fn concerns_customer(&self) -> bool {
        !matches!(self, Self::SetClock { .. } | Self::SetPeople { .. } | Self::RotateLogKey { .. })
    }

    /// Its lists are not empty, in order and without repetition.
    fn is_canonical(&self) -> bool {
        match self {
            Self::DestroyDays { days } => !days.is_empty() && days.is_sorted_by(|a, b| a < b),
            Self::SetPeople { add, remove } => {
                !(add.is_empty() && remove.is_empty())
                    && add.is_sorted_by(|a, b| a.principal() < b.principal())
                    && remove.is_sorted_by(|a, b| a < b)
                    && remove.iter().all(|principal| matches!(principal, Principal::Person(_)))
            }
            _ => true,
        }
    }
}

/// Text or fields that are no order.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderError {
    /// It is no signed note.
    #[error("it is not a signed note")]
    Note,
    /// The text is not the one of an order.
    #[error("its text is not that of an order, in the one form of it")]
    Text,
    /// The fields do not belong together.
    #[error("its fields do not belong together")]
    Fields,
    /// It sets the clock to another time than about the one at which it is requested.
    #[error(
        "a set-clock order says which time it is while it is requested, within an hour: correct the clock of the \
         machine where it is drafted first"
    )]
    Clock,
    /// The key is not the requester's.
    #[error("an order is signed first by the person who requests it")]
    NotTheRequester,
    /// The name of the key is not a person's.
    #[error("only a person signs an order")]
    NotAPerson,
}

impl From<OrderError> for PublicError {
    fn from(error: OrderError) -> Self {
        Self::new(ErrorKind::InvalidInput, "the order cannot be used").with_source(error)
    }
}

impl Order {
    /// An order on the whole store. Its id is fresh and random.
    #[must_use]
    pub fn new(
        (id, store): (OrderId, StoreId),
        what: OrderKind,
        requested_by: Principal,
        requested_at: Timestamp,
        (not_before, expires): (Timestamp, Timestamp),
    ) -> Self {
        let (customer, ring) = (None, None);
        Self {
            format: Format,
            id,
            store,
            what,
            requested_by,
            requested_at,
            not_before,
            expires,
            customer,
            ring,
        }
    }

    /// The same order, done to a customer whose ring is this one.
    #[must_use]
    pub fn concerning(self, customer: CustomerId, ring: SeenRing) -> Self {
        Self { customer: Some(customer), ring: Some(ring), ..self }
    }

    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("an order has string keys only");
        text.push('\n');
        text
    }

    /// The order that has this text.
    ///
    /// # Errors
    /// [`OrderError`] if none has.
    pub fn parse(text: &str) -> Result<Self, OrderError> {
        let order: Self = serde_json::from_str(text).map_err(|_| OrderError::Text)?;
        if order.text() != text {
            return Err(OrderError::Text);
        }
        order.check()?;
        Ok(order)
    }

    /// This order with its requester's signature.
    ///
    /// # Errors
    /// [`OrderError`] if its fields do not belong together, or the key is somebody
    /// else's.
    pub fn sign(self, key: &NamedKey) -> Result<SignedOrder, OrderError> {
        self.check()?;
        if person(key)? != self.requested_by {
            return Err(OrderError::NotTheRequester);
        }
        let text = self.text();
        let signature = key.sign(&text);
        let note = Note::new(text, vec![signature]).map_err(|_| OrderError::Note)?;
        Ok(SignedOrder { order: self, note })
    }

    fn check(&self) -> Result<(), OrderError> {
        let of_customer = self.what.concerns_customer();
        let ring_fits = self.ring.is_some_and(|ring| ring.version > 0) == of_customer;
        let fits = self.what.is_canonical()
            && matches!(self.requested_by, Principal::Person(_))
            && self.customer.is_some() == of_customer
            && self.ring.is_some() == of_customer
            && ring_fits
            && self.not_before < self.expires
            && self.requested_at < self.expires;
        if !fits {
            return Err(OrderError::Fields);
        }
        match self.what {
            OrderKind::SetClock { at }
                if at > self.requested_at.saturating_add(CLOCK_ORDER)
                    || self.requested_at > at.saturating_add(CLOCK_ORDER) =>
            {
                Err(OrderError::Clock)
            }
            _ => Ok(()),
        }
    }
}

/// An order with signatures, of which nothing is believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedOrder {
    order: Order,
    note: Note,
}

impl SignedOrder {
    /// Reads a signed order, strictly.
    ///
    /// # Errors
    /// [`OrderError`] if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, OrderError> {
        let note = Note::parse(bytes).map_err(|_| OrderError::Note)?;
        Ok(Self { order: Order::parse(note.text())?, note })
    }

    /// What it says. Whether anyone of weight signed it is another matter.
    #[must_use]
    pub const fn order(&self) -> &Order {
        &self.order
    }

    /// The note, whose `Display` is what [`SignedOrder::parse`] reads.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Puts another person's signature under it.
    ///
    /// # Errors
    /// [`OrderError`] if the key is no person's, or there is no room.
    pub fn approve(&mut self, key: &NamedKey) -> Result<(), OrderError> {
        person(key)?;
        self.note.add(key.sign(self.note.text())).map_err(|_| OrderError::Note)
    }

    /// Who of `people` signed it and may do so between `earliest` and `latest`, by
    /// principal. Signatures of strangers count for nothing.
    ///
    /// # Errors
    /// [`OrderRefusal::Signature`] if one in the name of a registered key is false.
    pub fn signers(&self, people: &People, time: &Bounds) -> Result<Vec<Principal>, OrderRefusal> {
        let mut signers = Vec::new();
        let mut keys: BTreeSet<PublicKey> = BTreeSet::new();
        for person in people.iter().filter(|person| person.is_valid(time)) {
            let signed = self.note.verified_by(&person.verifier()).map_err(|_| OrderRefusal::Signature)?;
            if signed.is_some() && keys.insert(person.key) {
                signers.push(person.principal.clone());
            }
        }
        Ok(signers)
    }

    /// This order, if two people of `store` signed it and it is within its time.
    ///
    /// # Errors
    /// [`OrderRefusal`], which says what is missing.
    pub fn approved(
        &self,
        store: StoreId,
        people: &People,
        time: &TrustedTime,
    ) -> Result<ApprovedOrder, OrderRefusal> {
        let bounds = time.bounds();
        self.check(store, people, &bounds, bounds.earliest)
    }

    /// This order, if it sets the clock and is approved as far as can be seen while
    /// the time is in doubt. `host` is the clock of this machine, which may be
    /// wrong: so who could not sign at the time that is `remembered` cannot sign by it
    /// either. What is remembered is how far the log's memory reaches
    /// ([`bridge`](crate::retention::clock::bridge)), which may be months ago.
    ///
    /// # Errors
    /// [`OrderRefusal`], which says what is missing.
    pub fn approved_in_doubt(
        &self,
        store: StoreId,
        people: &People,
        remembered: Timestamp,
        host: Timestamp,
    ) -> Result<ApprovedOrder, OrderRefusal> {
        if !matches!(self.order.what, OrderKind::SetClock { .. }) {
            return Err(OrderRefusal::TimeInDoubt);
        }
        let bounds = Bounds { earliest: remembered.min(host), latest: host };
        self.check(store, people, &bounds, host)
    }

    fn check(
        &self,
        store: StoreId,
        people: &People,
        time: &Bounds,
        begun: Timestamp,
    ) -> Result<ApprovedOrder, OrderRefusal> {
        let order = &self.order;
        if order.store != store {
            return Err(OrderRefusal::Store);
        }
        if begun < order.not_before {
            return Err(OrderRefusal::NotYet);
        }
        if order.expires <= time.latest {
            return Err(OrderRefusal::Expired);
        }
        let signers = self.signers(people, time)?;
        if !signers.contains(&order.requested_by) {
            return Err(OrderRefusal::Requester);
        }
        if signers.len() < 2 {
            return Err(OrderRefusal::Approver);
        }
        Ok(ApprovedOrder { signed: self.clone(), signers, time: *time })
    }
}

/// The person whose key it is, by its name.
fn person(key: &NamedKey) -> Result<Principal, OrderError> {
    match key.name().as_str().parse() {
        Ok(person @ Principal::Person(_)) => Ok(person),
        _ => Err(OrderError::NotAPerson),
    }
}

/// Why an order is not approved.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderRefusal {
    /// It is another store's.
    #[error("the order is of another store")]
    Store,
    /// It is not to be done yet.
    #[error("the order is not to be done yet")]
    NotYet,
    /// Its time is over.
    #[error("the order has expired")]
    Expired,
    /// A signature in the name of a registered key is false.
    #[error("a signature under the order is false")]
    Signature,
    /// The requester did not sign it, or is nobody who may now.
    #[error("the order is not signed by its requester with a registered key that is valid now")]
    Requester,
    /// Nobody but the requester signed it.
    #[error("the order is not signed by a second person with a registered key that is valid now")]
    Approver,
    /// Only a clock is set while the time is in doubt.
    #[error("the time is in doubt, and the order is not about the time")]
    TimeInDoubt,
}

impl From<OrderRefusal> for PublicError {
    fn from(refusal: OrderRefusal) -> Self {
        Self::new(ErrorKind::Denied, "the order is not approved").with_source(refusal)
    }
}

/// An order that two people signed and that was within its time when it was checked.
/// Whatever takes two people takes one of these by value.
///
/// ```compile_fail,E0451
/// # use strongroom::{order::{ApprovedOrder, SignedOrder}, retention::clock::Bounds};
/// # fn forge(signed: SignedOrder, time: Bounds) -> ApprovedOrder {
/// ApprovedOrder { signed, signers: Vec::new(), time }
/// # }
/// ```
///
/// ```compile_fail,E0599
/// # fn again(order: strongroom::order::ApprovedOrder) {
/// let copy = order.clone();
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an approved order stands for one act"]
pub struct ApprovedOrder {
    signed: SignedOrder,
    signers: Vec<Principal>,
    time: Bounds,
}

impl ApprovedOrder {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> OrderId {
        self.signed.order.id
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> StoreId {
        self.signed.order.store
    }

    /// What is to be done.
    #[must_use]
    pub const fn kind(&self) -> &OrderKind {
        &self.signed.order.what
    }

    /// Whom it concerns, if it is a customer.
    #[must_use]
    pub const fn customer(&self) -> Option<CustomerId> {
        self.signed.order.customer
    }

    /// The ring that the signers have seen, if it concerns a customer.
    #[must_use]
    pub const fn ring(&self) -> Option<SeenRing> {
        self.signed.order.ring
    }

    /// Who signed it, by principal: two or more, the requester among them.
    #[must_use]
    pub fn signers(&self) -> &[Principal] {
        &self.signers
    }

    /// When it was found to be approved.
    #[must_use]
    pub const fn approved_at(&self) -> Bounds {
        self.time
    }

    /// The order as it was signed, for certificates.
    #[must_use]
    pub const fn signed(&self) -> &SignedOrder {
        &self.signed
    }
}

impl Serialize for Format {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(FORMAT)
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let known = String::deserialize(from)? == FORMAT;
        if known { Ok(Self) } else { Err(serde::de::Error::custom("not the format of an order")) }
    }
}

fn write_hex<S: Serializer>(digest: &[u8; 32], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&HEXLOWER.encode(digest))
}

fn read_hex<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
    let bytes = HEXLOWER.decode(String::deserialize(from)?.as_bytes()).ok();
    let digest = bytes.and_then(|bytes| bytes.try_into().ok());
    digest.ok_or_else(|| serde::de::Error::custom("not a digest of 32 bytes in lower-case hexadecimal"))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
