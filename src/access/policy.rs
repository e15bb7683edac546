//! Who may do what: the question, the decision, and the built-in policy.
//!
//! A [`Policy`] is asked before anything is done for somebody, and denies what it does not
//! allow. What decided is a [`RuleId`], which goes into the audit record, of the denial too.
//! Pure: today's date and whether a session is open are in the question.
//!
//! The built-in policy is the [`RoleMatrix`]: roles of people and programs, in columns,
//! what each may do, and five conditions that a role does not lift. In the order in which
//! they are looked at:
//!
//! | rule | denies |
//! |---|---|
//! | `deny.role` | what no role of theirs may do |
//! | `deny.person` | what takes a person, to a program |
//! | `deny.customer` | what concerns a customer that they are not there for |
//! | `deny.segment` | what concerns a customer with PHI, to whoever is not of the PHI segment |
//! | `deny.training` | the same, to whoever has no training, or had it until yesterday |
//! | `deny.session` | to see into a customer's blobs, or to extend them, outside a session, where the keys are in the customer's hand |
//!
//! What is left is allowed, by `role.` and the first role that may.
//!
//! Separate from how somebody is known ([`Principal`]) and from what is done. A policy of
//! the customer's own goes behind the same trait.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::principal::{ParseAccessError, Principal};
use crate::id::{CustomerId, SessionId, is_slug};
use crate::time::Day;

mod matrix;

pub use matrix::RoleMatrix;

/// The name of a rule: 1 to 64 of `a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(Cow<'static, str>);

impl RuleId {
    /// How long one is at most.
    pub const MAX_LEN: usize = 64;

    const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RuleId {
    type Err = ParseAccessError;

    fn from_str(text: &str) -> Result<Self, ParseAccessError> {
        match text.len() <= Self::MAX_LEN && is_slug(text) {
            true => Ok(Self(Cow::Owned(text.to_owned()))),
            false => Err(ParseAccessError("rule (1 to 64 of a-z, 0-9, '.', '_', '-')")),
        }
    }
}

impl Serialize for RuleId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RuleId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident, $what:literal: $($(#[$each:meta])* $variant:ident = $code:literal,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$each])* $variant,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// What configuration, records and the manual call it.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self {
                    $(Self::$variant => $code,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.code())
            }
        }

        impl FromStr for $name {
            type Err = ParseAccessError;

            fn from_str(text: &str) -> Result<Self, ParseAccessError> {
                let found = Self::ALL.iter().copied().find(|one| one.code() == text);
                found.ok_or(ParseAccessError(concat!($what, " (", $($code, ", ",)* "and no other)")))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.code())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

codes! {
    /// What somebody is there for.
    Role, "role":
    /// Puts data in, and does not see it again.
    Writer = "writer",
    /// Sees data.
    Reader = "reader",
    /// Puts backups in, and proves that they are whole, without seeing them.
    BackupJob = "backup-job",
    /// Sees to keys, and never to data.
    KeyAdministrator = "key-administrator",
    /// Sees to how long data is kept, and to its end. What ends it early takes two people.
    PrivacyOfficer = "privacy-officer",
    /// Sees what was done, and does nothing.
    Auditor = "auditor",
    /// Runs the machines: what is due, and how they are.
    Operator = "operator",
}

codes! {
    /// What is asked for.
    Operation, "operation":
    /// To seal a blob.
    Seal = "seal",
    /// To open a blob, or a part of one.
    Open = "open",
    /// To see a blob's metadata.
    Stat = "stat",
    /// To list blobs with their metadata, or to look one up by its name.
    List = "list",
    /// To check a blob's every byte, releasing none.
    Verify = "verify",
    /// To keep a blob longer.
    Extend = "extend",
    /// To keep a blob longer than a writer alone may.
    ExtendFar = "extend-far",
    /// To see which customers there are.
    CustomerList = "customer-list",
    /// To learn the id of the customer of a label.
    CustomerFind = "customer-find",
    /// To see a customer's settings, policies and holds.
    CustomerRead = "customer-read",
    /// To add a customer.
    CustomerAdd = "customer-add",
    /// To change a customer's settings; to keep new blobs longer.
    CustomerSet = "customer-set",
    /// To put a customer's keys under another KMS key.
    Rekey = "rekey",
    /// To place a legal hold.
    HoldPlace = "hold-place",
    /// To see what would be destroyed, and how far that is.
    ShredRead = "shred-read",
    /// To do what is due.
    ShredRun = "shred-run",
    /// To take keys out of the window.
    ShredCancel = "shred-cancel",
    /// To see orders.
    OrderRead = "order-read",
    /// To ask for what takes two people. Their signatures decide, not this.
    OrderRequest = "order-request",
    /// To approve it.
    OrderApprove = "order-approve",
    /// To see certificates of destruction.
    CertificateRead = "certificate-read",
    /// To see epochs.
    EpochRead = "epoch-read",
    /// To begin an epoch. Nobody ends one here.
    EpochRotate = "epoch-rotate",
    /// To ask the log, and for proofs.
    AuditRead = "audit-read",
    /// To publish the log, and to keep it fit to be shown.
    AuditPublish = "audit-publish",
    /// To open a session, as the customer.
    SessionOpen = "session-open",
    /// To end a session.
    SessionEnd = "session-end",
    /// To see a customer's sessions, and who asks for access.
    SessionRead = "session-read",
    /// To ask the customer for access outside a session.
    AccessRequest = "access-request",
    /// To give it, as the customer.
    AccessApprove = "access-approve",
    /// To declare an emergency, in which blobs are read while the log cannot be written.
    EmergencyDeclare = "emergency-declare",
    /// To record that one has looked at what was done in an emergency.
    EmergencyReview = "emergency-review",
    /// To see emergencies.
    EmergencyRead = "emergency-read",
    /// To see figures.
    Metrics = "metrics",
}

impl Operation {
    /// Whether it lets somebody see into a customer's blobs.
    #[must_use]
    pub const fn sees_content(self) -> bool {
        matches!(self, Self::Open | Self::Stat | Self::List | Self::Verify)
    }

    /// Whether it takes a session where the keys are in the customer's hand: what sees into
    /// its blobs, or unwraps a key of theirs to wrap it anew.
    #[must_use]
    pub const fn takes_session(self) -> bool {
        self.sees_content() || matches!(self, Self::Extend | Self::ExtendFar | Self::Rekey)
    }

    /// Whether it takes a person: somebody who can be asked why.
    #[must_use]
    pub const fn takes_person(self) -> bool {
        matches!(self, Self::EmergencyDeclare | Self::EmergencyReview)
    }

    /// Whether it concerns the store and no customer.
    #[must_use]
    pub const fn is_of_store(self) -> bool {
        matches!(
            self,
            Self::CustomerList
                | Self::CustomerFind
                | Self::CustomerAdd
                | Self::ShredRun
                | Self::EpochRead
                | Self::EpochRotate
                | Self::AuditPublish
                | Self::Metrics
        )
    }
}

/// Whom somebody is there for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Every customer.
    All,
    /// These.
    These(BTreeSet<CustomerId>),
}

impl Reach {
    /// Whether a customer is among them.
    #[must_use]
    pub fn covers(&self, customer: CustomerId) -> bool {
        match self {
            Self::All => true,
            Self::These(customers) => customers.contains(&customer),
        }
    }
}

/// Who asks, with what is known of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Who.
    pub principal: Principal,
    /// What they are there for.
    pub roles: BTreeSet<Role>,
    /// For whom.
    pub reach: Reach,
    /// Whether they are of the segment that PHI is for.
    pub phi: bool,
    /// The last day on which their training counts: of the person, or of those who run the
    /// program.
    pub trained_until: Option<Day>,
}

/// What it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The store, and no customer. Or all customers: then [`Reach::All`] it takes.
    Store,
    /// Every customer whom they are there for: whoever answers leaves out the others.
    Covered,
    /// One customer.
    Customer {
        /// Which.
        id: CustomerId,
        /// Whether its blobs hold PHI.
        phi: bool,
        /// Whether the keys are in the customer's hand.
        sessions: bool,
        /// The session that is open, if one is.
        session: Option<SessionId>,
    },
}

/// A question to a policy.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub subject: &'a Subject,
    /// What for.
    pub operation: Operation,
    /// On whom.
    pub target: Target,
    /// Today, in UTC.
    pub today: Day,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done, by this rule.
    Allowed(RuleId),
    /// It may not, by this one.
    Denied(RuleId),
}

impl Decision {
    /// What decided.
    #[must_use]
    pub const fn rule(&self) -> &RuleId {
        match self {
            Self::Allowed(rule) | Self::Denied(rule) => rule,
        }
    }

    /// Whether it may be done.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// What decides who may do what. Whatever it is not sure of it denies.
pub trait Policy: Send + Sync + fmt::Debug {
    /// Decides.
    fn decide(&self, question: &Question<'_>) -> Decision;
}

#[cfg(test)]
mod tests;
