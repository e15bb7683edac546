//! Cosigning without a service: whoever can read where a log is published keeps a
//! witness by looking there from time to time.
//!
//! Separate from the server, because here the log need not know of its witness. What
//! is read is c2sp.org/tlog-tiles: `checkpoint`, and tiles under `tile/`. Nothing of it
//! is believed unless it follows from the checkpoint, and that from the log's signature.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::state::{Ledger, log_name};
use super::{AddCheckpoint, KnownLogs, MAX_REQUEST_LEN};
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::{HASH_LEN, Hash, TreeHead};
use crate::store::store_error;
use crate::time::Timestamp;
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::tlog::note::NoteSignature;
use crate::tlog::tile::{Tile, WIDTH};
use crate::tlog::{NamedKey, TiledTree};

/// The longest tile, in bytes.
const MAX_TILE_LEN: usize = WIDTH as usize * HASH_LEN;

/// Cosigns a log without being asked: `checkpoint` was read where the log publishes it,
/// and `prove` gives the proof that it continues the tree of so many leaves, more than
/// none and fewer than its own (RFC 6962 s2.1.2). Blocks on the disk in between.
///
/// # Errors
/// Those of `prove`; [`ErrorKind::Integrity`] if the log contradicts what it has shown
/// before, a smaller tree included; otherwise those of [`Ledger::cosign`].
///
/// # Cancel safety
/// Dropped half way, nothing was cosigned.
pub async fn observe<F>(
    ledger: &Ledger,
    checkpoint: &SignedCheckpoint,
    logs: &KnownLogs,
    key: &NamedKey,
    now: Timestamp,
    prove: impl FnOnce(u64) -> F,
) -> Result<NoteSignature>
where
    F: Future<Output = Result<Vec<Hash>>>,
{
    let signed = logs.verify(checkpoint)?;
    let (origin, size) = (signed.checkpoint().origin(), signed.checkpoint().head().size);
    let old = ledger.last(log_name(origin))?.map_or(0, |last| last.checkpoint().head().size);
    if size < old {
        // That it is an error does not depend on whether it can be kept.
        let _ = ledger.keep_evidence(&signed);
        let message = format!("the log shows a tree of {size} leaves after one of {old}: it was rolled back");
        return Err(Error::new(ErrorKind::Integrity, message));
    }
    let proof = if old == 0 || old == size { Vec::new() } else { prove(old).await? };
    Ok(ledger.cosign(&AddCheckpoint::new(old, proof, signed)?, logs, key, now)?)
}

/// A log as it is published in a storage.
#[derive(Clone, Debug)]
pub struct Published(Arc<dyn ObjectStore>);

impl Published {
    /// The log whose `checkpoint` lies at the root of `storage`.
    #[must_use]
    pub fn new(storage: Arc<dyn ObjectStore>) -> Self {
        Self(storage)
    }

    /// Its newest checkpoint. Nothing is verified.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, [`ErrorKind::Integrity`] if it is not in
    /// the form of one, otherwise those of [`store_error`].
    pub async fn checkpoint(&self) -> Result<SignedCheckpoint> {
        let bytes = self.read(Path::from("checkpoint"), MAX_REQUEST_LEN).await?;
        let bytes = bytes.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "no checkpoint is published where the log was said to be")
        })?;
        Ok(SignedCheckpoint::parse(&bytes)?)
    }

    /// The proof that the tree of `head` begins with its first `old_size` leaves, made
    /// out of as many tiles as that takes (RFC 6962 s2.1.2).
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if tiles are missing or are not the tree's, otherwise
    /// those of [`store_error`].
    pub async fn prove(&self, head: TreeHead, old_size: u64) -> Result<Vec<Hash>> {
        let tree = TiledTree::new(head);
        let mut tiles = BTreeMap::new();
        for tile in tree.consistency_tiles(old_size)? {
            if let Some(hashes) = self.tile(tile).await? {
                tiles.insert(tile, hashes);
            }
        }
        let consistency = tree.prove_consistency(old_size, |tile| tiles.get(tile).map(Vec::as_slice))?;
        Ok(consistency.proof)
    }

    /// A tile; where a partial one was deleted, the full one that took its place.
    async fn tile(&self, tile: Tile) -> Result<Option<Vec<Hash>>> {
        for tile in [tile, tile.full()] {
            if let Some(bytes) = self.read(Path::from(tile.to_string()), MAX_TILE_LEN).await? {
                return Ok(Some(tile.decode(&bytes)?));
            }
        }
        Ok(None)
    }

    async fn read(&self, path: Path, most: usize) -> Result<Option<Vec<u8>>> {
        let failed = |error| store_error(error, "read the published log");
        let found = match self.0.get(&path).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if found.meta.size > most as u64 {
            let message = "an object of the published log is longer than one can be";
            return Err(Error::new(ErrorKind::Integrity, message));
        }
        Ok(Some(found.bytes().await.map_err(failed)?.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutPayload;
    use object_store::memory::InMemory;

    use super::super::tests::{LOG, head, known, leaves, log, named, signed};
    use super::*;
    use crate::merkle::prove_consistency;
    use crate::tlog::TileBuilder;

    const NEVER: usize = usize::MAX;

    fn key() -> NamedKey {
        named("example.com/witness", 9)
    }

    struct Witness {
        dir: tempfile::TempDir,
        ledger: Ledger,
    }

    impl Witness {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { ledger: Ledger::create(&dir.path().join("state"), &key().cosigner()).unwrap(), dir }
        }

        fn size(&self) -> u64 {
            let last = self.ledger.last(log_name(&LOG.parse().unwrap())).unwrap();
            last.map_or(0, |last| last.checkpoint().head().size)
        }

        fn has_evidence(&self) -> bool {
            let mut files = std::fs::read_dir(self.dir.path().join("state")).unwrap();
            files.any(|file| file.unwrap().path().extension().is_some_and(|end| end == "evidence"))
        }
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    #[tokio::test]
    async fn a_published_log_is_observed() {
        let witness = Witness::new();
        let ledger = &witness.ledger;
        let see = async |new: usize, fork: usize| {
            let leaves = leaves(new, fork);
            let checkpoint = signed(&log(), head(&leaves));
            let prove = async |old| Ok(prove_consistency(&leaves, usize::try_from(old).unwrap()).unwrap());
            observe(ledger, &checkpoint, &known(), &key(), at(9), prove).await.map_err(|error| error.kind())
        };
        for new in [0, 4, 4, 9] {
            see(new, NEVER).await.unwrap();
            assert_eq!(witness.size(), new as u64);
        }
        assert!(!witness.has_evidence());
        for (new, fork) in [(8, NEVER), (0, NEVER), (9, 3), (12, 3)] {
            assert_eq!(see(new, fork).await.unwrap_err(), ErrorKind::Integrity, "{new} {fork}");
            assert!(witness.has_evidence());
        }
        let checkpoint = signed(&named(LOG, 2), head(&leaves(12, NEVER)));
        let unused = |_| async { unreachable!("a stranger's checkpoint needs no proof") };
        let error = observe(ledger, &checkpoint, &known(), &key(), at(9), unused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(witness.size(), 9);
        see(12, NEVER).await.unwrap();
    }

    /// Writes all tiles of a tree as the log's publisher does, and its checkpoint.
    async fn publish(to: &InMemory, leaves: &[Hash]) {
        let head = head(leaves);
        let mut builder = TileBuilder::new();
        let full: Vec<_> = leaves.iter().flat_map(|leaf| builder.push(*leaf)).collect();
        let partial = builder.partial().map(|(tile, hashes)| (tile, hashes.to_vec()));
        for (tile, hashes) in full.into_iter().chain(partial) {
            put(to, &tile.to_string(), Tile::encode(&hashes)).await;
        }
        put(to, "checkpoint", signed(&log(), head).to_string()).await;
    }

    async fn put(to: &InMemory, path: &str, bytes: impl Into<PutPayload>) {
        to.put(&Path::from(path), bytes.into()).await.unwrap();
    }

    async fn look(witness: &Witness, storage: &Arc<InMemory>) -> Result<NoteSignature, ErrorKind> {
        let published = Published::new(Arc::clone(storage) as Arc<dyn ObjectStore>);
        let checkpoint = published.checkpoint().await.map_err(|error| error.kind())?;
        let head = *checkpoint.checkpoint().head();
        let prove = |old| published.prove(head, old);
        let seen = observe(&witness.ledger, &checkpoint, &known(), &key(), at(9), prove).await;
        seen.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_log_is_checked_from_its_tiles() {
        let (witness, storage) = (Witness::new(), Arc::new(InMemory::new()));
        assert_eq!(look(&witness, &storage).await.unwrap_err(), ErrorKind::NotFound);
        let whole = leaves(1000, NEVER);
        for new in [1, 2, 200, 256, 257, 600, 600, 1000] {
            publish(&storage, &whole[..new]).await;
            look(&witness, &storage).await.unwrap();
            assert_eq!(witness.size(), new as u64);
        }
        assert!(!witness.has_evidence());
        // Rolled back, and rewritten: both are shown by what the log publishes.
        for (size, fork) in [(999, NEVER), (1000, 300), (1300, 300), (1300, 999)] {
            publish(&storage, &leaves(size, fork)).await;
            assert_eq!(look(&witness, &storage).await.unwrap_err(), ErrorKind::Integrity, "{size} {fork}");
            assert_eq!(witness.size(), 1000);
        }
        publish(&storage, &leaves(1300, NEVER)).await;
        look(&witness, &storage).await.unwrap();
    }

    #[tokio::test]
    async fn tiles_that_are_missing_or_wrong_prove_nothing() {
        let (witness, storage) = (Witness::new(), Arc::new(InMemory::new()));
        publish(&storage, &leaves(200, NEVER)).await;
        look(&witness, &storage).await.unwrap();
        publish(&storage, &leaves(300, NEVER)).await;
        // The partial tile of the first 200 may go: the full one is there.
        storage.delete(&Path::from("tile/0/000.p/200")).await.unwrap();
        let full = Path::from("tile/0/000");
        let bytes = storage.get(&full).await.unwrap().bytes().await.unwrap();
        storage.delete(&full).await.unwrap();
        assert_eq!(look(&witness, &storage).await.unwrap_err(), ErrorKind::Integrity);
        for bad in [&bytes[..bytes.len() - 32], &[], &[&bytes[..], &[0]].concat(), &vec![0; bytes.len()]] {
            put(&storage, "tile/0/000", bad.to_vec()).await;
            assert_eq!(look(&witness, &storage).await.unwrap_err(), ErrorKind::Integrity);
        }
        assert_eq!(witness.size(), 200);
        put(&storage, "tile/0/000", bytes.to_vec()).await;
        look(&witness, &storage).await.unwrap();
        for bad in [&b"x"[..], &[b'x'; MAX_REQUEST_LEN + 1]] {
            put(&storage, "checkpoint", bad.to_vec()).await;
            assert_eq!(look(&witness, &storage).await.unwrap_err(), ErrorKind::Integrity);
        }
    }
}
