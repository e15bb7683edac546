//! What a customer has: by what the log says, and by what lies on the storage.
//!
//! Separate from those who open it (a return, a restore, a drill, a daemon's client), so that
//! none of them believes the storage alone: one that leaves a blob out of a listing, or puts a
//! destroyed key's id into a header, is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::TryStreamExt;

use super::paths::{BlobPaths, Certainty, Paths, shelf_of};
use crate::audit::history::History;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, KekId};
use crate::ring::Ring;
use crate::room::Customer;
use crate::room::keyring::Asker;
use crate::time::Day;

/// How a blob stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The log names a key of it that lives.
    Lives {
        /// How sure it is that it was sealed.
        sealed: Certainty,
        /// How sure it is that it was wrapped under a key that lives.
        wrapped: Certainty,
    },
    /// The same, but an order withdrew the blob: it is not opened, and its day's key lives for
    /// its neighbours.
    Withdrawn(Certainty),
    /// It lies on the storage, and the log names keys of it that are all destroyed.
    Destroyed,
    /// It lies on the storage, and the log does not name it.
    Unlogged,
}

impl Standing {
    /// Whether the log says that it was sealed, and that its key lives: it has to open.
    pub(crate) fn has_to_open(self) -> bool {
        matches!(self, Self::Lives { wrapped: Certainty::Certain, .. })
    }

    /// Whether a blob that stood so, and did not open, did not have to. What the storage says in
    /// its header proves nothing.
    pub(crate) fn excuse(self, error: &Error) -> Excuse {
        let gone = error.kind() == ErrorKind::KeyDestroyed;
        // A blob that is withdrawn is denied until its keys are gone.
        let denied = error.kind() == ErrorKind::Denied;
        let excused = match self {
            Self::Destroyed => gone,
            Self::Withdrawn(_) => gone || denied,
            Self::Unlogged => false,
            Self::Lives { wrapped: Certainty::Possible, .. } if gone => true,
            Self::Lives { .. } if gone || denied => return Excuse::UnlessItLives,
            Self::Lives { .. } => false,
        };
        if excused { Excuse::Yes } else { Excuse::No }
    }
}

/// Whether a blob that did not open did not have to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// Its keys are destroyed, or an order withdrew it.
    Yes,
    /// It has to open.
    No,
    /// It lived when the inventory was taken: whether it still does is to be looked up.
    UnlessItLives,
}

/// What an [`inventory`] goes by: a customer's ring, and what the log says of its blobs that
/// live; for somebody who may see them.
///
/// # Errors
/// As [`Customer::list`], and [`History::operations`].
///
/// # Cancel safety
/// Nothing is written.
pub(crate) async fn evidence(customer: &Customer) -> Result<(Arc<Ring>, Paths)> {
    let keyring = &customer.room.0.keyring;
    let ring = keyring.fresh_ring(Asker::of(&customer.access), customer.id).await?;
    keyring.admit(customer.asker(), &ring).await?;
    let shelves = ring.entries.iter().map(|entry| (entry.id, shelf_of(entry.id, entry.kind))).collect();
    let history = History::open(&customer.room.log_reader()).await?;
    let paths = Paths::under_keys(&history, customer.id, &shelves).await?;
    Ok((ring, paths))
}

/// The blobs of a customer by the log's `paths` and its `ring`, and those that are listed
/// besides.
///
/// # Errors
/// As [`Customer::list`].
pub(crate) async fn inventory(
    customer: &Customer,
    ring: &Ring,
    paths: &Paths,
) -> Result<BTreeMap<BlobId, Standing>> {
    let mut found = BTreeMap::new();
    for (blob, of) in paths.blobs() {
        if paths.lives(ring, *blob) {
            found.insert(*blob, standing(ring, *blob, of));
        }
    }
    let mut listed = customer.list();
    let mut unknown = BTreeSet::new();
    while let Some(listed) = listed.try_next().await? {
        match paths.knows(listed.id) {
            true => drop(found.entry(listed.id).or_insert(Standing::Destroyed)),
            false => drop(unknown.insert(listed.id)),
        }
    }
    // Few: what lies there and has no key that lives.
    let days: BTreeSet<Day> = unknown.iter().map(|blob| blob.day()).collect();
    if !days.is_empty() {
        let history = History::open(&customer.room.log_reader()).await?;
        let of_days = Paths::of_days(&history, customer.id, days).await?;
        let stands = |blob| of_days.blob(blob).map_or(Standing::Unlogged, |of| standing(ring, blob, of));
        found.extend(unknown.into_iter().map(|blob| (blob, stands(blob))));
    }
    Ok(found)
}

/// How a blob stands that the log names.
fn standing(ring: &Ring, blob: BlobId, of: &BlobPaths) -> Standing {
    let lives = |key: &KekId| ring.entry(*key).is_some();
    if !of.keys.keys().any(lives) {
        return Standing::Destroyed;
    }
    let surest = |only_live: bool| {
        let sure = of.keys.iter().filter(|(key, _)| !only_live || lives(key)).map(|(_, sure)| *sure);
        sure.max().unwrap_or(Certainty::Possible)
    };
    let (sealed, wrapped) = (surest(false), surest(true));
    if ring.is_withdrawn(blob) { Standing::Withdrawn(sealed) } else { Standing::Lives { sealed, wrapped } }
}

/// Whether a blob that does not open does not have to: every key of it is destroyed by what the
/// log says by now, or an order withdrew it.
pub(crate) async fn is_destroyed(
    customer: &Customer,
    paths: &Paths,
    (blob, standing): (BlobId, Standing),
    error: &Error,
) -> bool {
    match standing.excuse(error) {
        Excuse::Yes => true,
        Excuse::No => false,
        Excuse::UnlessItLives => {
            let gone = error.kind() == ErrorKind::KeyDestroyed;
            let ring = customer.room.0.keyring.fresh_ring(customer.asker(), customer.id).await;
            ring.is_ok_and(|ring| ring.is_withdrawn(blob) || (gone && !paths.lives(&ring, blob)))
        }
    }
}
