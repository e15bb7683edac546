//! Who may sign orders: the store's registered people.
//!
//! Separate from the order, because the register keeps them and changes them.
//!
//! Invariants: people are sorted by principal; a principal is there once and so is a
//! key, for ever: who leaves is ended and stays in the list, so that no name and no
//! key ever comes to mean another person. Two at least may sign whenever the list
//! is changed. Only [`Principal::Person`] is in it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{ApprovedOrder, OrderKind};
use crate::access::principal::Principal;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer, strictly_ascending};
use crate::error::{Error as PublicError, ErrorKind};
use crate::retention::clock::Bounds;
use crate::time::Timestamp;
use crate::tlog::{KeyName, PublicKey, SignatureType, VerifierKey};

/// How long people who are founded in a store that is in use wait until they may
/// sign: 7 days, so that a lone administrator's founding is noticed first.
pub const NOTICE: Duration = Duration::from_secs(7 * 86_400);

/// One registered person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub principal: Principal,
    /// What they sign with.
    pub key: PublicKey,
    /// They may sign from then on.
    pub since: Timestamp,
    /// They may sign until then, if they left.
    pub until: Option<Timestamp>,
}

impl Person {
    /// The key under the name that notes know it by.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey::ed25519(name(&self.principal), self.key)
    }

    /// Whether they may sign, whatever the time is within `time`.
    #[must_use]
    pub fn is_valid(&self, time: &Bounds) -> bool {
        self.since <= time.earliest && self.until.is_none_or(|until| time.latest < until)
    }
}

/// [`NOTICE`] in microseconds.
fn notice() -> u64 {
    u64::try_from(NOTICE.as_micros()).expect("7 days are few microseconds")
}

fn name(principal: &Principal) -> KeyName {
    principal.to_string().parse().expect("a principal has no space and no plus")
}

/// A person to be registered, by the public key that they handed in. Its text is
/// the vkey of c2sp.org/signed-note, whose name is the principal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "VerifierKey", into = "VerifierKey")]
pub struct NewPerson {
    principal: Principal,
    key: PublicKey,
}

/// A public key that is no person's.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a person's key (`person:<id>+<id of the key>+<key>`, of the type that signs notes)")]
pub struct NotAPerson;

impl NewPerson {
    /// Who.
    #[must_use]
    pub const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they will sign with.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }
}

impl TryFrom<VerifierKey> for NewPerson {
    type Error = NotAPerson;

    fn try_from(key: VerifierKey) -> Result<Self, NotAPerson> {
        if key.signature_type() != SignatureType::Ed25519 {
            return Err(NotAPerson);
        }
        match key.name().as_str().parse() {
            Ok(principal @ Principal::Person(_)) => Ok(Self { principal, key: *key.public() }),
            _ => Err(NotAPerson),
        }
    }
}

impl std::str::FromStr for NewPerson {
    type Err = NotAPerson;

    fn from_str(text: &str) -> Result<Self, NotAPerson> {
        text.parse::<VerifierKey>().map_err(|_| NotAPerson)?.try_into()
    }
}

impl From<NewPerson> for VerifierKey {
    fn from(person: NewPerson) -> Self {
        Self::ed25519(name(&person.principal), person.key)
    }
}

/// Why the people are not changed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeopleRefusal {
    /// There are some already: they change who they are by an order.
    #[error("the store has people already, and it takes two of them to change who they are")]
    Founded,
    /// Fewer than two would be left who may sign.
    #[error("fewer than two people would be left who may sign orders")]
    TooFew,
    /// The principal or the key is in the list, or was.
    #[error("a principal or a key is registered already, or was once")]
    Returned,
    /// Who is to leave is not there.
    #[error("a person who is to be removed is not registered, or has left")]
    Unknown,
    /// The order is about something else.
    #[error("the order does not change the people")]
    NotAPeopleOrder,
}

impl From<PeopleRefusal> for PublicError {
    fn from(refusal: PeopleRefusal) -> Self {
        let kind = match refusal {
            PeopleRefusal::Founded | PeopleRefusal::Returned => ErrorKind::AlreadyExists,
            PeopleRefusal::Unknown => ErrorKind::NotFound,
            PeopleRefusal::TooFew | PeopleRefusal::NotAPeopleOrder => ErrorKind::InvalidInput,
        };
        Self::new(kind, "the people were not changed").with_source(refusal)
    }
}

/// All people who may sign orders or once could.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct People(Vec<Person>);

impl People {
    /// The first people of a store, who may sign from `since` on; or nobody, for
    /// the time being.
    ///
    /// # Errors
    /// [`PeopleRefusal::TooFew`] for one alone, [`PeopleRefusal::Returned`] if a
    /// principal or a key is there twice.
    pub fn found(new: &[NewPerson], since: Timestamp) -> Result<Self, PeopleRefusal> {
        let mut people = Self::default();
        for person in new {
            people.add(person, since)?;
        }
        if people.0.len() == 1 { Err(PeopleRefusal::TooFew) } else { Ok(people) }
    }

    /// These people after an order of two of them. Who is added may sign from then
    /// on, who is removed no longer.
    ///
    /// # Errors
    /// [`PeopleRefusal`]; then nothing changes.
    pub fn apply(&self, order: &ApprovedOrder) -> Result<Self, PeopleRefusal> {
        let OrderKind::SetPeople { add, remove } = order.kind() else {
            return Err(PeopleRefusal::NotAPeopleOrder);
        };
        let at = order.approved_at().latest;
        let mut next = self.clone();
        for principal in remove {
            let found = next.0.iter_mut().find(|person| person.principal == *principal);
            match found {
                Some(person) if person.until.is_none() => person.until = Some(at.max(person.since)),
                _ => return Err(PeopleRefusal::Unknown),
            }
        }
        for person in add {
            next.add(person, at)?;
        }
        if next.iter().filter(|person| person.until.is_none()).count() < 2 {
            return Err(PeopleRefusal::TooFew);
        }
        Ok(next)
    }

    fn add(&mut self, new: &NewPerson, since: Timestamp) -> Result<(), PeopleRefusal> {
        if self.0.iter().any(|person| person.key == new.key) {
            return Err(PeopleRefusal::Returned);
        }
        let person = Person { principal: new.principal.clone(), key: new.key, since, until: None };
        match self.0.binary_search_by(|person| person.principal.cmp(&new.principal)) {
            Ok(_) => Err(PeopleRefusal::Returned),
            Err(at) => {
                self.0.insert(at, person);
                Ok(())
            }
        }
    }

    /// Everyone, by principal.
    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.0.iter()
    }

    /// When those were founded who wait at `time` for the end of [`NOTICE`], if
    /// somebody does.
    #[must_use]
    pub fn founded_after(&self, time: Timestamp) -> Option<Timestamp> {
        let waiting = self.0.iter().map(|person| person.since).filter(|since| *since > time);
        waiting.min().and_then(|since| Timestamp::from_micros(since.micros().checked_sub(notice())?).ok())
    }

    /// Whether there is nobody, and never was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The person of this principal.
    #[must_use]
    pub fn get(&self, principal: &Principal) -> Option<&Person> {
        let found = self.0.binary_search_by(|person| person.principal.cmp(principal)).ok()?;
        Some(&self.0[found])
    }

    /// Whether `next` could have come from these: everyone is there still, and is
    /// who they were.
    #[must_use]
    pub fn precede(&self, next: &Self) -> bool {
        self.0.iter().all(|was| {
            next.get(&was.principal).is_some_and(|is| {
                let as_was = Person { until: was.until.or(is.until), ..was.clone() };
                *is == as_was
            })
        })
    }

    /// Checks everything that one list can show by itself.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`], naming the field.
    pub fn check(&self) -> Result<(), DecodeError> {
        strictly_ascending(&self.0, "people", |person| person.principal.clone())?;
        let mut keys: Vec<_> = self.0.iter().map(|person| person.key).collect();
        keys.sort_unstable();
        strictly_ascending(&keys, "people", |key| *key)?;
        let person = |person: &Person| {
            matches!(person.principal, Principal::Person(_))
                && person.until.is_none_or(|until| person.since <= until)
        };
        let fits = self.0.len() != 1 && self.0.iter().all(person);
        if fits { Ok(()) } else { Err(DecodeError::Invalid("people")) }
    }
}

impl Encode for People {
    fn encode(&self, out: &mut Writer) {
        out.list(&self.0);
    }
}

impl Decode for People {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let people = Self(from.list()?);
        people.check()?;
        Ok(people)
    }
}

impl Encode for Person {
    /// The end is 0 for those who may sign.
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.principal.to_string().as_bytes()).raw(self.key.as_bytes());
        self.since.encode(out);
        out.u8(u8::from(self.until.is_some())).u64(self.until.map_or(0, Timestamp::micros));
    }
}

impl Decode for Person {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let principal = from.string("principal", 80)?.parse();
        let principal = principal.map_err(|_| DecodeError::Invalid("principal"))?;
        let key = PublicKey::from_bytes(from.array()?);
        let since = Timestamp::decode(from)?;
        let (left, until) = (from.u8()?, Timestamp::decode(from)?);
        let until = match (left, until.micros()) {
            (0, 0) => None,
            (1, _) => Some(until),
            _ => return Err(DecodeError::Invalid("until")),
        };
        Ok(Self { principal, key, since, until })
    }
}

/// A list that nothing was checked of.
#[cfg(test)]
pub(super) fn tests_only(people: Vec<Person>) -> People {
    People(people)
}
