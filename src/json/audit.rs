//! What came of publishing and maintaining the audit log.

use serde::{Deserialize, Serialize};

use super::Plain;
use crate::audit::publish::Published as RoomPublished;
use crate::error::ErrorKind;
use crate::merkle::Hash;
use crate::room::Maintained as RoomMaintained;

/// What is published of one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) shard: u16,
    pub(crate) records: u64,
    /// How many of them were not before.
    pub(crate) new: u64,
    pub(crate) root: Hash,
    /// The witnesses whose cosignatures it has.
    pub(crate) cosigned: Vec<Plain>,
    /// Those that were asked and did not cosign.
    pub(crate) refused: Vec<NotCosigned>,
}

/// A witness that did not cosign, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotCosigned {
    pub(crate) witness: Plain,
    pub(crate) detail: Plain,
    /// Whether it has seen another history of the log.
    pub(crate) contradicts: bool,
}

impl Published {
    pub(crate) fn all(published: &[(u16, RoomPublished)]) -> Vec<Self> {
        let of_shard = |(shard, published): &(u16, RoomPublished)| {
            let RoomPublished { tree, before, cosigned, .. } = published;
            let signed = cosigned.iter().filter(|one| one.result.is_ok());
            let refused = cosigned.iter().filter_map(|one| {
                let error = one.result.as_ref().err()?;
                let contradicts = error.kind() == ErrorKind::Integrity;
                let witness = one.witness.to_string().into();
                Some(NotCosigned { witness, detail: error.chain().into(), contradicts })
            });
            Self {
                shard: *shard,
                records: tree.size,
                new: tree.size.saturating_sub(*before),
                root: tree.root,
                cosigned: signed.map(|one| one.witness.to_string().into()).collect(),
                refused: refused.collect(),
            }
        };
        published.iter().map(of_shard).collect()
    }
}

/// What the daily maintenance did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maintained {
    /// Writers that counted as dead.
    pub(crate) fenced: usize,
    /// Their operations, closed as unknown.
    pub(crate) unknown: u64,
    pub(crate) segments: usize,
    #[serde(default)]
    pub(crate) bases: usize,
    pub(crate) published: Vec<Published>,
    /// What a log in a local directory no longer needed.
    #[serde(default)]
    pub(crate) removed: Removed,
}

/// What was removed of a log in a local directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// Commits that segments hold.
    pub(crate) commits: u64,
    /// Partial tiles whose place wider ones have taken.
    pub(crate) tiles: u64,
}

impl From<&RoomMaintained> for Maintained {
    fn from(done: &RoomMaintained) -> Self {
        Self {
            fenced: done.settled.iter().map(|(_, settled)| settled.fenced.len()).sum(),
            unknown: done.settled.iter().map(|(_, settled)| settled.unknown).sum(),
            segments: done.segments.iter().map(|(_, count)| count).sum(),
            bases: done.bases.iter().map(|(_, count)| count).sum(),
            published: Published::all(&done.published),
            removed: Removed {
                commits: done.removed.iter().map(|(_, removed)| removed.commits).sum(),
                tiles: done.removed.iter().map(|(_, removed)| removed.tiles).sum(),
            },
        }
    }
}
