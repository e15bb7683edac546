//! What one customer is given of the log: its own records, and what it takes to see
//! that they are all, without anyone else's.
//!
//! A view is a file of JSON lines. The first is the [`Header`], each other a
//! [`ProvenRecord`], by shard and then by index:
//!
//! | line | field | what |
//! |---|---|---|
//! | first | `format` | [`FORMAT`] |
//! | | `store`, `customer` | whose log, and who is given it |
//! | | `log_key` | the log's key, for information: it is checked with one known from elsewhere |
//! | | `shards[].shard` | a shard that has records of the customer; the first always |
//! | | `shards[].tree` | the shard's tree that the view counts, as its record says |
//! | | `shards[].consistency` | that the checkpoint's tree comes from it: RFC 6962 s2.1.2 |
//! | | `shards[].checkpoint` | a signed checkpoint of the shard, with its cosignatures |
//! | | `shards[].base` | where the first records of the shard were removed: the base that stands for them, as [`ViewBase`] has it |
//! | others | `shard`, `index` | where the record is in the log |
//! | | `proof` | its audit path in the checkpoint's tree, nearest sibling first: RFC 6962 s2.1.1 |
//! | | `record` | the record's line as it is stored, nonce and all, without the line feed |
//!
//! The last record of the first shard is the view itself ([`Event::View`]): it counts
//! the customer's records in every shard, and is in the customer's own chain. So what
//! shows that the file is whole is in the log, under the same signatures and
//! cosignatures as all else, and auditors check that it is true (`audit verify`).
//! Witnesses cosign the first shard. What they saw there holds the other shards' trees
//! too, as far as the view counts them.
//!
//! Nothing of other customers is in the file. Hashes of the tree stand for their
//! records, and these are salted; the sizes of trees tell how many records there are of
//! everybody together.
//!
//! Pure, so that a customer checks with nothing but the file and the keys.
//!
//! Invariants: a line has one form, and what reads it takes no other; a record counts
//! only if it is proven to be in the log. Whoever made the file may have left out,
//! altered or added anything: [`check`] finds it.
//!
//! [`Event::View`]: super::Event::View

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, StoreId};
use crate::merkle::{Hash, TreeHead};
use crate::tlog::PublicKey;

mod check;
mod report;

pub use check::{Checker, Trust, check};
pub use report::{Finding, ShardReport, ViewReport};

/// What the first line begins with.
pub const FORMAT: &str = "strongroom-view-v1";

/// The longest line that is read, in bytes: more than the longest record in a JSON
/// string.
pub const MAX_LINE: usize = 3 * super::commit::MAX_LEN;

/// The first line. The order of the fields is the order in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    /// The store whose log it is.
    pub store: StoreId,
    /// Whose records they are.
    pub customer: CustomerId,
    /// The log's key, as the one who made the file says.
    pub log_key: PublicKey,
    /// The shards that have records of the customer, by number.
    pub shards: Vec<ShardHeader>,
}

/// What the first line says of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardHeader {
    /// The shard.
    pub shard: u16,
    /// Its tree as the view counts it.
    pub tree: TreeHead,
    /// That the checkpoint's tree comes from that one: RFC 6962 s2.1.2.
    pub consistency: Vec<Hash>,
    /// A checkpoint of the shard, the text of its signed note.
    pub checkpoint: String,
    /// What stands for the customer's first records, if those were removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<ViewBase>,
}

/// What stands for records of one customer in one shard that were removed: what a base says of
/// the customer, and the record that names the base.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewBase {
    /// The base's line of the customer, without the line feed.
    pub line: String,
    /// Its number among the lines.
    pub number: u64,
    /// Its audit path among them, nearest sibling first: RFC 6962 s2.1.1.
    pub path: Vec<Hash>,
    /// The record of the removal, [`Event::Removal`](super::Event::Removal), without the line feed.
    pub record: String,
    /// Its index in the tree of the first shard.
    pub index: u64,
    /// Its audit path in that tree.
    pub proof: Vec<Hash>,
}

/// Every other line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenRecord {
    /// The record's shard.
    pub shard: u16,
    /// Its index in the shard's tree.
    pub index: u64,
    /// Its audit path in the checkpoint's tree, nearest sibling first.
    pub proof: Vec<Hash>,
    /// Its line, without the line feed.
    pub record: String,
}

impl Header {
    /// The first line of a view; the shards are put in order.
    #[must_use]
    pub fn new(
        store: StoreId,
        customer: CustomerId,
        log_key: PublicKey,
        mut shards: Vec<ShardHeader>,
    ) -> Self {
        shards.sort_by_key(|shard| shard.shard);
        Self { format: FORMAT.to_owned(), store, customer, log_key, shards }
    }

    /// The line, with its line feed.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        super::commit::json_line(self)
    }

    /// Reads the line, without its line feed, strictly.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedFormat`] for a later format, [`ErrorKind::Integrity`]
    /// for anything else that is not the first line of a view.
    pub fn decode(line: &[u8]) -> Result<Self> {
        // The one field that all formats share.
        #[derive(Deserialize)]
        struct Format {
            format: String,
        }
        let not_one = || Error::new(ErrorKind::Integrity, "the first line is not that of a customer's view");
        let format = serde_json::from_slice::<Format>(line).map_err(|_| not_one())?.format;
        if format != FORMAT {
            let version = format.strip_prefix("strongroom-view-v").and_then(|text| text.parse::<u32>().ok());
            return Err(match version > Some(1) {
                true => {
                    Error::new(ErrorKind::UnsupportedFormat, "the view's format is newer than this program")
                }
                false => not_one(),
            });
        }
        let header: Self = super::commit::decode_line(line, &mut Vec::new()).ok_or_else(not_one)?;
        if !header.shards.is_sorted_by(|a, b| a.shard < b.shard) {
            return Err(not_one());
        }
        Ok(header)
    }
}

impl ProvenRecord {
    /// The line, with its line feed.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        super::commit::json_line(self)
    }

    /// Reads the line, without its line feed, strictly. `None` if it is none.
    #[must_use]
    pub fn decode(line: &[u8]) -> Option<Self> {
        super::commit::decode_line(line, &mut Vec::new())
    }
}
