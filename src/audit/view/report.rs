//! What a check of a view found, in types and in sentences.

use std::fmt;

use serde::Serialize;

use crate::id::{CustomerId, StoreId};
use crate::time::Timestamp;
use crate::tlog::KeyName;

/// What a view holds, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewReport {
    /// The store whose log it is.
    pub store: StoreId,
    /// Whose records they are.
    pub customer: CustomerId,
    /// What there is of each shard, by number: of those in the file, and of all that
    /// the view counts.
    pub shards: Vec<ShardReport>,
    /// When the view was recorded: it is complete up to then, or not.
    pub until: Option<Timestamp>,
    /// The witnesses that cosigned the first shard's checkpoint, and when, to the
    /// second.
    pub cosigned: Vec<(KeyName, Timestamp)>,
    /// What is wrong. Of very many, only the first are listed.
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

impl ViewReport {
    /// Whether all that the log has of the customer up to [`ViewReport::until`] is
    /// there, and as it was recorded.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What a view holds of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardReport {
    /// The shard.
    pub shard: u16,
    /// How many records are there and proven to be in the log.
    pub records: u64,
    /// How many were removed before them, for which a base stands.
    pub removed: u64,
    /// The number of the first of them in the customer's chain: 1 unless earlier ones
    /// are not included.
    pub from: Option<u64>,
    /// How many of them came after the view counted.
    pub later: u64,
    /// How many the view counts.
    pub counted: Option<u64>,
    /// The earliest time in them.
    pub first: Option<Timestamp>,
    /// The latest time in them.
    pub last: Option<Timestamp>,
}

impl ShardReport {
    pub(super) fn new(shard: u16) -> Self {
        Self { shard, records: 0, removed: 0, from: None, later: 0, counted: None, first: None, last: None }
    }
}

/// Why a view does not show that it is complete. Its `Display` is a sentence for
/// people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// Records with these numbers in the customer's chain are not there.
    Missing {
        /// The shard.
        shard: u16,
        /// The first number.
        first: u64,
        /// The last number.
        last: u64,
    },
    /// The last record of the first shard is not there, which counts all others.
    NoView,
    /// The file was made with another key than the log's.
    LogKey,
    /// A shard's checkpoint is not the log's.
    Checkpoint {
        /// The shard.
        shard: u16,
    },
    /// A shard's checkpoint does not come from the tree that the view counts.
    Tree {
        /// The shard.
        shard: u16,
    },
    /// A cosignature of a witness is false.
    Cosignature,
    /// Too few witnesses have seen the log as it is given.
    Quorum {
        /// How many did.
        found: usize,
        /// How many had to.
        quorum: usize,
    },
    /// A line is not in the form of one.
    Line {
        /// Its number in the file, from 1.
        line: u64,
    },
    /// A record stands behind one that it has to stand before, or is there twice.
    Order {
        /// Its line in the file, from 1.
        line: u64,
    },
    /// A record is of a shard that the first line does not have.
    Shard {
        /// Its line in the file, from 1.
        line: u64,
    },
    /// A record does not concern the customer.
    Customer {
        /// Its line in the file, from 1.
        line: u64,
    },
    /// A record is not in the log at the place that is given.
    NotInLog {
        /// The shard.
        shard: u16,
        /// Its number in the customer's chain, as it says.
        number: u64,
    },
    /// A record does not name the one before it.
    Link {
        /// The shard.
        shard: u16,
        /// Its number in the customer's chain.
        number: u64,
    },
    /// What stands for the customer's first records is not what the log says of them.
    Base {
        /// The shard.
        shard: u16,
    },
    /// What the view says of a shard is not what is given of it.
    Counted {
        /// The shard.
        shard: u16,
    },
    /// The view does not name a shard that is given.
    NotNamed {
        /// The shard.
        shard: u16,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { shard, first, last } if first == last => {
                write!(f, "shard {shard:04x}: record {first} is missing")
            }
            Self::Missing { shard, first, last } => {
                write!(f, "shard {shard:04x}: records {first} to {last} are missing")
            }
            Self::NoView => f.write_str("shard 0000: the last record, which counts all others, is missing"),
            Self::LogKey => f.write_str("it was made with another key than the log's"),
            Self::Checkpoint { shard } => {
                write!(f, "shard {shard:04x}: the log's key did not sign its checkpoint")
            }
            Self::Tree { shard } => {
                write!(f, "shard {shard:04x}: its checkpoint does not come from what the view counts")
            }
            Self::Cosignature => f.write_str("a cosignature is false"),
            Self::Quorum { found, quorum } => {
                write!(f, "{found} of the witnesses cosigned it, and {quorum} have to")
            }
            Self::Line { line } => write!(f, "line {line} is not in the form of a view's"),
            Self::Order { line } => write!(f, "line {line} is out of order"),
            Self::Shard { line } => write!(f, "line {line} is of a shard that the first line does not have"),
            Self::Customer { line } => write!(f, "line {line} does not concern this customer"),
            Self::NotInLog { shard, number } => {
                write!(f, "shard {shard:04x}: what is given as record {number} is not in the log there")
            }
            Self::Link { shard, number } => {
                write!(f, "shard {shard:04x}: record {number} does not name the one before it")
            }
            Self::Base { shard } => write!(
                f,
                "shard {shard:04x}: the base that stands for the first records is not one of the log"
            ),
            Self::Counted { shard } => {
                write!(f, "shard {shard:04x}: the view counts other records than these")
            }
            Self::NotNamed { shard } => write!(f, "shard {shard:04x}: the view does not name it"),
        }
    }
}
