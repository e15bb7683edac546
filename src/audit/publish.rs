//! Publishing: what the log says of itself, for those who are not part of it.
//!
//! A [`Publisher`] turns the commits of a shard into a tiled log
//! (c2sp.org/tlog-tiles): tiles, entry bundles, and a checkpoint that the log's
//! key signs. It also keeps each day's commits as segments. Separate from the log,
//! because nothing of a caller's waits for it, and any node may do it: everything
//! but the checkpoint follows from the commits and is the same whoever writes it.
//!
//! Each time, in this order:
//!
//! 1. The published checkpoint is read, and verified with the log's key.
//! 2. The commits behind it are read, each checked against the one before, every
//!    record hashed again, and the tiles that they fill are written.
//! 3. Out of the tiles as they are stored, it is proven that the new tree comes
//!    from the published one (RFC 6962 s2.1.2).
//! 4. The new tree is signed, shown to witnesses, and published.
//!
//! Invariants: what is signed was read from the storage, and continues what is
//! published; all tiles of a published checkpoint are durable before it is.
//!
//! Whoever holds the storage can put an older checkpoint in place of the newest:
//! the signature is still good, and the next publishing goes on from there. It is
//! the witnesses, and those who keep checkpoints, who notice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};
use tokio::time::timeout;

use super::authority::Authority;
use super::head::Head;
use super::layout::{Object, key_name, origin};
use super::log::wal::{Wal, request_within};
use super::signer::{LogSigner, Signers};
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::merkle::{Frontier, TreeHead};
use crate::store::store_error;
use crate::tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use crate::tlog::note::{MAX_LEN, NoteSignature};
use crate::tlog::{KeyName, Signature};
use crate::witness::client::{Outcome, Witness, cosign_checkpoint};

mod bases;
mod segments;
mod tiles;
mod upkeep;
mod view;

pub use bases::NewBase;
pub(super) use bases::earlier;
pub use tiles::StoredTree;
use tiles::{TileWriter, Tiles, unwritten};
pub use upkeep::Removed;

/// How often a checkpoint is offered to a storage on which others publish too.
const TRIES: u32 = 8;

/// How often a storage without conditional writes is looked at again.
const LOOKS: u32 = 4;

/// Publishes the shards of one store's log.
///
/// A clone is another handle on the same, with what it remembers.
#[derive(Clone, Debug)]
pub struct Publisher {
    storage: Arc<dyn ObjectStore>,
    store: StoreId,
    signers: Signers,
    authority: Authority,
    limit: Duration,
    /// What is known of each shard.
    seen: Arc<Mutex<BTreeMap<u16, Seen>>>,
}

/// What a publisher knows of a shard.
#[derive(Clone, Debug)]
struct Seen {
    wal: Wal,
    /// How many commits there were last time.
    end: u64,
    /// The checkpoint that was published of them all.
    published: Option<SignedCheckpoint>,
}

/// What came of a publishing.
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// The checkpoint that is published now, with its cosignatures.
    pub checkpoint: SignedCheckpoint,
    /// Its tree.
    pub tree: TreeHead,
    /// How many records the one had that was published before.
    pub before: u64,
    /// What came of it with each witness that was asked, or had cosigned already.
    pub cosigned: Vec<Cosigned>,
}

/// What came of it with one witness.
#[derive(Debug)]
#[non_exhaustive]
pub struct Cosigned {
    /// The name of its key.
    pub witness: KeyName,
    /// Whether its cosignature is under the checkpoint.
    pub result: Result<()>,
}

impl Published {
    /// The witnesses that have seen another history of the log. The checkpoint is
    /// published all the same, without them. Call someone, and keep it.
    pub fn alarms(&self) -> impl Iterator<Item = (&KeyName, &Error)> {
        let refused = self.cosigned.iter().filter_map(|one| Some((&one.witness, one.result.as_ref().err()?)));
        refused.filter(|(_, error)| error.kind() == ErrorKind::Integrity)
    }
}

/// A checkpoint as it is on the storage, verified.
struct Stored {
    checkpoint: SignedCheckpoint,
    version: UpdateVersion,
    /// The newest of the log's keys that signed it.
    key: u32,
}

impl Stored {
    fn head(&self) -> TreeHead {
        *self.checkpoint.checkpoint().head()
    }
}

/// What came of one round, and whether the checkpoint may have been written over a
/// newer one.
struct Round {
    published: Published,
    unsure: bool,
}

impl Publisher {
    /// Publishes on `storage`, the audit storage of `store`. `limit` is what a
    /// request to it, the signer and each witness have.
    #[must_use]
    pub fn new(
        storage: Arc<dyn ObjectStore>,
        store: StoreId,
        signer: Arc<dyn LogSigner>,
        limit: Duration,
    ) -> Self {
        let authority = signer.public().into();
        let (signers, seen) = (Signers::new(signer, None), Arc::default());
        Self { storage, store, signers, authority, limit, seen }
    }

    /// The same, with these signers in a log of these keys: what is published is signed by each key of the
    /// log that there is a signer of.
    #[must_use]
    pub fn with_keys(self, signers: Signers, authority: impl Into<Authority>) -> Self {
        Self { signers, authority: authority.into(), ..self }
    }

    /// Publishes what a shard has that was not published, if anything, and asks
    /// the witnesses that have not cosigned what is published.
    ///
    /// Any number of nodes may do so at once.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if a commit, a
    /// tile or the checkpoint is not what was written, or if the log does not
    /// continue what is published: nothing is signed then.
    /// [`ErrorKind::AuditUnavailable`] if the storage does not answer,
    /// [`ErrorKind::Conflict`] if others publish all the time, and those of
    /// [`LogSigner::sign`]. A witness that does not cosign is no error
    /// ([`Published::cosigned`]).
    ///
    /// # Cancel safety
    /// Published or not, it can be called again.
    pub async fn publish(&self, shard: u16, witnesses: &[Arc<dyn Witness>]) -> Result<Published> {
        let mut round = self.round(shard, witnesses).await?;
        for _ in 0..LOOKS {
            // Where a write cannot be made conditional, another's larger checkpoint
            // may have come shortly before ours and be gone. But the commits that
            // it was of are there, and are more than ours: so we look again. If we
            // stop before, or they go on growing, readers see an older checkpoint,
            // and a consistent one, until the next publishing.
            if !round.unsure || self.newest(shard).await?.size == round.published.tree.size {
                break;
            }
            round = self.round(shard, witnesses).await?;
        }
        Ok(round.published)
    }

    /// The newest tree of a shard, on the word of its writer.
    async fn newest(&self, shard: u16) -> Result<TreeHead> {
        let (wal, end) = self.commits(shard).await?;
        Ok(newest(&wal, end).await?.0)
    }

    /// The checkpoint that is published of a shard, verified with the log's key;
    /// `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it is not one that the log's key signed,
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn checkpoint(&self, shard: u16) -> Result<Option<SignedCheckpoint>> {
        Ok(self.stored(shard).await?.map(|stored| stored.checkpoint))
    }

    /// The published tree of a shard with this head, which the caller trusts, for
    /// proofs.
    #[must_use]
    pub fn tree(&self, shard: u16, head: TreeHead) -> StoredTree {
        StoredTree::new(self.tiles(shard), head)
    }

    fn tiles(&self, shard: u16) -> Tiles {
        Tiles { storage: Arc::clone(&self.storage), shard, limit: self.limit }
    }

    /// The same, for a shard that nobody is asked to cosign. Where nothing was added since
    /// this handle published all of it, that costs one request.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    pub async fn publish_new(&self, shard: u16) -> Result<Published> {
        let known = self.seen().get(&shard).cloned();
        if let Some(Seen { wal, end, published: Some(checkpoint) }) = known
            && wal.new_commit(end).await?.is_none()
        {
            let tree = *checkpoint.checkpoint().head();
            return Ok(Published { checkpoint, tree, before: tree.size, cosigned: Vec::new() });
        }
        let end = self.commits(shard).await?.1;
        let published = self.publish(shard, &[]).await?;
        // Others may have gone on meanwhile, and be published only in part.
        if let Some(seen) = self.seen().get_mut(&shard).filter(|seen| seen.end == end) {
            seen.published = Some(published.checkpoint.clone());
        }
        Ok(published)
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<u16, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the tiles and bundles of all commits of a shard again, and stores those
    /// that are missing: for when some were lost. Publish afterwards.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if one is there and is not what the commits make
    /// (it has to be removed first, and looked into), or if tiles of removed records are lost,
    /// else as [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// What was stored stays; call it again for the rest.
    pub async fn restore(&self, shard: u16) -> Result<TreeHead> {
        let reader = self.reader();
        let of_shard = reader.shard(shard).await?;
        let mut writer = match reader.base(shard, of_shard.begin()).await? {
            None => TileWriter::new(self.tiles(shard)),
            Some(base) => {
                let resumed = TileWriter::resume(self.tiles(shard), &base.tree()).await?;
                let lost = "tiles of records that were removed from the audit log are lost";
                resumed.ok_or_else(|| Error::new(ErrorKind::Integrity, lost))?
            }
        };
        let mut commits = of_shard.commits(of_shard.begin()..of_shard.end(), None);
        while let Some(commit) = commits.try_next().await? {
            for leaf in commit.leaves() {
                writer.push(leaf).await?;
            }
        }
        writer.finish().await
    }

    /// Takes note of a head that the log of a shard is known to have reached, so
    /// that its end need not be searched for from the beginning. If the commits
    /// are not there, publishing fails.
    pub fn take_note(&self, head: &Head) {
        let mut seen = self.seen();
        let new = || Seen { wal: self.wal(head.shard()), end: 0, published: None };
        let known = seen.entry(head.shard()).or_insert_with(new);
        if head.next() > known.end {
            (known.end, known.published) = (head.next(), None);
        }
    }

    fn wal(&self, shard: u16) -> Wal {
        Wal::new(Arc::clone(&self.storage), self.store, shard, &self.authority, self.limit)
    }

    /// A shard's commits, and how many there are.
    async fn commits(&self, shard: u16) -> Result<(Wal, u64)> {
        let known = self.seen().get(&shard).map(|seen| (seen.wal.clone(), seen.end));
        let (wal, from) = match known {
            Some(known) => known,
            None => {
                let wal = self.wal(shard);
                let saved = wal.saved().await?.map_or(0, |saved| saved.head.next());
                (wal, saved)
            }
        };
        let end = wal.end(from).await?;
        self.seen().insert(shard, Seen { wal: wal.clone(), end, published: None });
        Ok((wal, end))
    }

    async fn round(&self, shard: u16, witnesses: &[Arc<dyn Witness>]) -> Result<Round> {
        // The checkpoint first: the commits that it is of were there before it.
        let before = self.stored(shard).await?.map_or(Frontier::new().head(), |stored| stored.head());
        let (wal, end) = self.commits(shard).await?;
        let (head, key) = self.grow(&wal, before, end).await?;
        // If we stop here, there are tiles that no checkpoint speaks of. Whoever
        // publishes next writes the same.
        let current = self.stored(shard).await?;
        let tree = self.tree(shard, head);
        let published = |checkpoint: SignedCheckpoint, cosigned| {
            let tree = *checkpoint.checkpoint().head();
            Published { checkpoint, tree, before: before.size, cosigned }
        };
        let mut checkpoint = match &current {
            Some(current) if current.head().size > head.size => {
                // Another was faster. What it published is checked, not signed again.
                self.tree(shard, current.head()).continues(&head).await?;
                return Ok(Round {
                    published: published(current.checkpoint.clone(), Vec::new()),
                    unsure: false,
                });
            }
            Some(current) if current.head() == head && current.key >= key => current.checkpoint.clone(),
            current => {
                let old = current.as_ref().map_or(Frontier::new().head(), Stored::head);
                tree.continues(&old).await?;
                let mut ours = self.sign(shard, head, key).await?;
                if let Some(same) = current.as_ref().filter(|current| current.head() == head) {
                    // Signed before the key changed; what witnesses put under it stays.
                    add_missing(&mut ours, &same.checkpoint)?;
                }
                ours
            }
        };
        let cosigned = self.cosign(&mut checkpoint, current.as_ref(), &tree, witnesses).await;
        // If we stop here, witnesses have seen a checkpoint that nobody else has.
        // Its commits are durable, so that the next one continues it.
        if current.as_ref().is_some_and(|current| current.checkpoint == checkpoint) {
            return Ok(Round { published: published(checkpoint, cosigned), unsure: false });
        }
        let (checkpoint, unsure) = self.replace(shard, checkpoint, current).await?;
        Ok(Round { published: published(checkpoint, cosigned), unsure })
    }

    /// Writes the tiles of all `end` commits, of which `published` is the tree of
    /// some. Returns the tree of all, and the number of the key that is in force behind them.
    async fn grow(&self, wal: &Wal, published: TreeHead, end: u64) -> Result<(TreeHead, u32)> {
        let (newest, key) = newest(wal, end).await?;
        if newest == published {
            return Ok((newest, key));
        }
        let start = commits_within(wal, published.size, end).await?;
        let tiles = self.tiles(wal.shard);
        // The whole tree again, where its edge is gone: then this also restores
        // what else may be.
        let (mut writer, begin) = match TileWriter::resume(tiles.clone(), &published).await? {
            Some(writer) => (writer, start),
            None => (TileWriter::new(tiles), 0),
        };
        let mut head = head_at(wal, begin).await?;
        let agrees = |head: &Head| match head.next() == start && head.tree() != published {
            true => Err(rewritten()),
            false => Ok(()),
        };
        agrees(&head)?;
        let mut walk = wal.walk(head.clone(), end);
        while let Some((commit, _, after)) = walk.try_next().await? {
            agrees(&after)?;
            for leaf in commit.leaves() {
                writer.push(leaf).await?;
            }
            head = after;
        }
        let made = writer.finish().await?;
        if made == head.tree() { Ok((made, head.key())) } else { Err(rewritten()) }
    }

    /// Signs a head behind which key `key` is in force: with each key of the log that there is a signer of,
    /// so that whoever knows only the one before can go on while it is at hand.
    async fn sign(&self, shard: u16, head: TreeHead, key: u32) -> Result<SignedCheckpoint> {
        let checkpoint = Checkpoint::new(origin(self.store, shard), head)?;
        let (text, name) = (checkpoint.to_string(), key_name(self.store, shard));
        let mut lines = Vec::new();
        for signer in self.signers_of(key)? {
            let signature = self.signed(signer, text.as_bytes()).await?;
            lines.push(NoteSignature::ed25519(name.clone(), signer.public(), &signature));
        }
        Ok(SignedCheckpoint::new(checkpoint, lines)?)
    }

    /// All signers whose keys are the log's, newest first: that of key `key` or a later one is among
    /// them, and is the first.
    fn signers_of(&self, key: u32) -> Result<Vec<&Arc<dyn LogSigner>>> {
        let known = self.signers.known(&self.authority);
        if known.first().is_none_or(|(newest, _)| *newest < key) {
            self.signers.of(&self.authority, key)?;
        }
        Ok(known.into_iter().map(|(_, signer)| signer).collect())
    }

    /// A key of the log over `message`, within the limit.
    async fn signed(&self, signer: &Arc<dyn LogSigner>, message: &[u8]) -> Result<Signature> {
        let signature = timeout(self.limit, signer.sign(message)).await.map_err(|elapsed| {
            Error::new(ErrorKind::Unavailable, "the log's key does not answer").with_source(elapsed)
        })??;
        if signer.public().verifies(message, &signature) {
            return Ok(signature);
        }
        Err(Error::new(ErrorKind::KeyUnavailable, "the log's key did not sign what it was given"))
    }

    /// Puts cosignatures under `checkpoint`, asking the witnesses whose is not
    /// there.
    async fn cosign(
        &self,
        checkpoint: &mut SignedCheckpoint,
        current: Option<&Stored>,
        tree: &StoredTree,
        witnesses: &[Arc<dyn Witness>],
    ) -> Vec<Cosigned> {
        if tree.head().size == 0 {
            return Vec::new();
        }
        let unsigned = checkpoint.clone();
        let ask = witnesses.iter().map(|witness| async {
            let has = |checkpoint: &SignedCheckpoint| checkpoint.cosigned_by(witness.key()).ok().flatten();
            if has(&unsigned).is_some() {
                return Ok(None);
            }
            let known = current.filter(|current| has(&current.checkpoint).is_some());
            let known = known.map_or(0, |current| current.head().size);
            let prove = |size| async move { Ok(tree.consistency(size).await?.proof) };
            let asked = timeout(self.limit, cosign_checkpoint(&**witness, &unsigned, known, prove)).await;
            match asked.map_err(|elapsed| silent().with_source(elapsed))?? {
                Outcome::Cosigned { checkpoint, .. } => Ok(Some(checkpoint)),
                Outcome::Refused(refused) => Err(refused.into()),
                Outcome::Unavailable(error) => Err(error),
            }
        });
        let answers: Vec<Result<Option<SignedCheckpoint>>> = join_all(ask).await;
        let mut cosigned = Vec::new();
        for (witness, answer) in witnesses.iter().zip(answers) {
            let result = answer.and_then(|cosigned| match cosigned {
                None => Ok(()),
                Some(cosigned) => add_missing(checkpoint, &cosigned),
            });
            cosigned.push(Cosigned { witness: witness.key().name().clone(), result });
        }
        cosigned
    }

    /// Publishes `ours` in place of `current`, unless there is a larger one by
    /// now. Returns what is published, and whether ours may have gone over a
    /// larger one.
    async fn replace(
        &self,
        shard: u16,
        mut ours: SignedCheckpoint,
        mut current: Option<Stored>,
    ) -> Result<(SignedCheckpoint, bool)> {
        let path = Object::Checkpoint { shard }.path();
        let mut conditional = true;
        let head = *ours.checkpoint().head();
        for _ in 0..TRIES {
            let mode = match &current {
                None => PutMode::Create,
                Some(current) if conditional && current.version.e_tag.is_some() => {
                    PutMode::Update(current.version.clone())
                }
                Some(_) => PutMode::Overwrite,
            };
            let unsure = matches!(mode, PutMode::Overwrite);
            let put = self.storage.put_opts(&path, ours.to_string().into(), mode.into());
            match timeout(self.limit, put).await {
                // If we stop here, it is published, and nobody was told.
                Ok(Ok(_)) if !unsure => return Ok((ours, false)),
                Ok(Ok(_)) => {}
                Ok(Err(
                    object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. },
                )) => {}
                Ok(Err(
                    object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. },
                )) if !unsure => conditional = false,
                // It may be there. Whoever publishes next goes on from what is.
                Ok(Err(error)) => {
                    return Err(unwritten().with_source(store_error(error, "store a checkpoint")));
                }
                Err(elapsed) => return Err(unwritten().with_source(elapsed)),
            }
            current = self.stored(shard).await?;
            let Some(theirs) = &current else { continue };
            if theirs.head().size < head.size {
                self.tree(shard, head).continues(&theirs.head()).await?;
                continue;
            }
            self.tree(shard, theirs.head()).continues(&head).await?;
            let more = ours.note().signatures().iter().any(|line| !has(&theirs.checkpoint, line));
            if theirs.head().size > head.size || !more {
                return Ok((theirs.checkpoint.clone(), unsure));
            }
            // The same tree, and another witness's cosignature.
            add_missing(&mut ours, &theirs.checkpoint)?;
        }
        Err(Error::new(ErrorKind::Conflict, "others publish the audit log all the time"))
    }

    async fn stored(&self, shard: u16) -> Result<Option<Stored>> {
        let path = Object::Checkpoint { shard }.path();
        let read = async {
            let got = self.storage.get(&path).await?;
            let version = UpdateVersion { e_tag: got.meta.e_tag.clone(), version: got.meta.version.clone() };
            let small = got.meta.size <= MAX_LEN as u64;
            Ok((if small { Some(got.bytes().await?) } else { None }, version))
        };
        let Some((bytes, version)) = request_within(self.limit, read).await? else { return Ok(None) };
        let unusable = |error: Error| {
            let sentence = format!("the checkpoint of shard {shard:04x} of the audit log cannot be accepted");
            Error::new(ErrorKind::Integrity, sentence).with_source(error)
        };
        let too_large = || unusable(crate::tlog::note::NoteError::TooLarge.into());
        let checkpoint =
            SignedCheckpoint::parse(&bytes.ok_or_else(too_large)?).map_err(|error| unusable(error.into()))?;
        let verify = || self.authority.verify(&checkpoint, (self.store, shard));
        let key = match verify() {
            Err(_) if self.wal(shard).learn().await? => verify(),
            key => key,
        };
        let key = key.map_err(|error| unusable(error.into()))?;
        Ok(Some(Stored { checkpoint, version, key }))
    }
}

/// The tree of the first `end` commits, on the word of the last one's writer, and the number of the
/// key that endorsed that.
async fn newest(wal: &Wal, end: u64) -> Result<(TreeHead, u32)> {
    match end.checked_sub(1) {
        None => Ok((Frontier::new().head(), wal.empty().key())),
        Some(last) => {
            let header = wal.header(last).await?.ok_or_else(|| wal.missing(last))?;
            Ok((header.new, header.endorser(&wal.authority)?))
        }
    }
}

/// How many of the first `end` commits a tree of `size` leaves is of: those whose
/// records are all in it. Mostly it is nearly all of them.
async fn commits_within(wal: &Wal, size: u64, end: u64) -> Result<u64> {
    if size == 0 {
        return Ok(0);
    }
    let mut low = end;
    let mut step = 1u64;
    while let Some(before) = low.checked_sub(1) {
        match wal.header(before).await? {
            Some(header) if header.new.size <= size => break,
            Some(_) => {}
            None => {
                // The first ones may have been removed.
                low = wal.first().await?;
                if low <= before {
                    return Err(wal.missing(before));
                }
                break;
            }
        }
        low = before.saturating_sub(step - 1);
        step = step.saturating_mul(2);
    }
    wal.first_where(low, end, |header| header.new.size > size).await
}

/// The head before commit `seq`, with the ends of customers' chains.
async fn head_at(wal: &Wal, seq: u64) -> Result<Head> {
    let (head, chains) = tokio::try_join!(wal.head_before(seq), wal.chains(seq))?;
    Ok(head.with_chains(chains))
}

/// Puts the signatures under `ours` that only `theirs` has.
fn add_missing(ours: &mut SignedCheckpoint, theirs: &SignedCheckpoint) -> Result<()> {
    for line in theirs.note().signatures() {
        if !has(ours, line) {
            ours.add(line.clone())?;
        }
    }
    Ok(())
}

/// Whether the key of that signature signed the checkpoint.
fn has(checkpoint: &SignedCheckpoint, line: &NoteSignature) -> bool {
    let mut lines = checkpoint.note().signatures().iter();
    lines.any(|other| other.name() == line.name() && other.id() == line.id())
}

fn silent() -> Error {
    Error::new(ErrorKind::Unavailable, "a witness did not cosign a checkpoint")
}

fn rewritten() -> Error {
    let sentence = "the audit log does not continue the checkpoint that is published";
    Error::new(ErrorKind::Integrity, sentence)
}
