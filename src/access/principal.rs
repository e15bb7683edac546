//! Who acts, as text: the [`Principal`].
//!
//! Separate from the rest of [`access`](super) and below it, because orders are
//! pure and name the people who sign them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::id::is_slug;

/// Text that is not a principal or a purpose. It does not repeat the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a {0}")]
pub struct ParseAccessError(pub(super) &'static str);

/// Who acts: `unix:1000`, `service:billing`, `person:p-1234`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// A user of this host, by number.
    Unix(u32),
    /// A service, by its identifier.
    Service(PrincipalId),
    /// A person, by an identifier that is not their name.
    Person(PrincipalId),
}

/// The identifier in a principal: 1 to 64 of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalId(String);

impl FromStr for PrincipalId {
    type Err = ParseAccessError;

    fn from_str(text: &str) -> Result<Self, ParseAccessError> {
        if text.len() <= 64 && is_slug(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseAccessError("principal id (1 to 64 of a-z, 0-9, '.', '_', '-')"))
        }
    }
}

impl Principal {
    /// A service.
    ///
    /// # Errors
    /// [`ParseAccessError`] unless `id` is 1 to 64 of `a-z 0-9 . _ -`.
    pub fn service(id: &str) -> Result<Self, ParseAccessError> {
        Ok(Self::Service(id.parse()?))
    }

    /// A person, by an identifier that is not their name.
    ///
    /// # Errors
    /// As [`Principal::service`].
    pub fn person(id: &str) -> Result<Self, ParseAccessError> {
        Ok(Self::Person(id.parse()?))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(uid) => write!(f, "unix:{uid}"),
            Self::Service(id) => write!(f, "service:{}", id.0),
            Self::Person(id) => write!(f, "person:{}", id.0),
        }
    }
}

impl FromStr for Principal {
    type Err = ParseAccessError;

    fn from_str(text: &str) -> Result<Self, ParseAccessError> {
        let wrong = ParseAccessError("principal (`unix:<uid>`, `service:<id>` or `person:<id>`)");
        let principal = match text.split_once(':').ok_or(wrong)? {
            ("unix", uid) => Self::Unix(uid.parse().map_err(|_| wrong)?),
            ("service", id) => Self::service(id)?,
            ("person", id) => Self::person(id)?,
            _ => return Err(wrong),
        };
        if principal.to_string() == text { Ok(principal) } else { Err(wrong) }
    }
}

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
