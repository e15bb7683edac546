//! The check of a whole audit log, from its storage or a copy of it, and with
//! nothing else: no key but public ones, no blob, no ring.
//!
//! [`verify`] reads every object there is and makes again whatever can be made:
//! each commit is decoded strictly and must follow from the one before, the
//! records must tell a story without contradiction, segments, tiles, checkpoints
//! and pins must be what the commits make, and certificates and other papers must verify
//! and lead to it. It goes on after a fault and names
//! every object that is not as it was written, and where in it.
//!
//! What the storage cannot say of itself is whether all of it was rolled back or
//! replaced: for that, give the log's key and a checkpoint that was kept
//! elsewhere, or witnesses ([`Options`]).
//!
//! Separate from the log, which trusts what it wrote. Whoever holds the storage
//! may put anything there; sizes are bounded before something is read, and what
//! is kept in memory grows by some 40 bytes a request.
//!
//! On a live log, what is written meanwhile is no finding: what is derived is
//! listed and checkpoints are read before the commits are listed, and the walk
//! goes on to whatever they are of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;

use super::authority::Authority;
use super::commit::Commit;
use super::layout::{self, FIRST_SHARD, Object};
use crate::error::Result;
use crate::id::StoreId;
use crate::merkle::TreeHead;
use crate::store::marker::Marker;
use crate::time::Timestamp;
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::tlog::{PublicKey, VerifierKey};

mod bases;
mod cuts;
mod finding;
mod inventory;
mod keys;
mod papers;
mod pins;
mod records;
mod source;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use finding::Findings;
pub use finding::{Finding, MAX_FINDINGS, Problem, RecordProblem, Severity};
use inventory::{Inventory, ShardObjects};
use records::{Claimant, Claimed, Story};
use source::{Read, read};
pub use walk::ShardReport;
use walk::Walk;

/// No checkpoint or marker is longer, in bytes.
const MAX_NOTE: u64 = 1 << 20;

/// How many commits at each end of the log are looked at to find out whose it
/// is.
const SAMPLES: usize = 4;

/// How many commits a shard may have without a checkpoint before it is worth a
/// note.
const UNSIGNED: u64 = 1;

/// How long after a day its segment has to be there, and after its record a base: an idle shard has a mark
/// each week, and who maintains the log may be late by as much. Commits are kept twice as long.
const OVERDUE: Duration = Duration::from_secs(16 * 24 * 3600);

/// What the verifier knows from elsewhere.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The log's key. Without it, the one in the marker is taken, and a note says
    /// so.
    pub authority: Option<PublicKey>,
    /// The store, if it is known.
    pub store: Option<StoreId>,
    /// Checkpoints of the log that were kept elsewhere: it must be a continuation
    /// of each.
    pub pinned: Vec<SignedCheckpoint>,
    /// The keys of witnesses.
    pub witnesses: Vec<VerifierKey>,
    /// How many of them must have cosigned the checkpoint of the first shard.
    pub quorum: usize,
    /// The present time, by which is judged what may have aged out.
    pub now: Timestamp,
}

impl Options {
    /// Nothing is known but the time.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self { authority: None, store: None, pinned: Vec::new(), witnesses: Vec::new(), quorum: 0, now }
    }
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The store, `None` where nothing said which.
    pub store: Option<StoreId>,
    /// The newest of the log's keys, which lead to it from the one that was known.
    pub authority: Option<PublicKey>,
    /// What was found of each shard.
    pub shards: Vec<ShardReport>,
    /// What is wrong first, then notes, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many things are wrong, those included that were left out.
    pub wrong: u64,
    /// How many notes there are, likewise.
    pub notes: u64,
}

impl Report {
    /// Whether everything is as it was written.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.wrong == 0
    }
}

/// A stored checkpoint.
#[derive(Clone, Copy, Debug)]
struct Signed {
    head: TreeHead,
    /// The newest of the log's keys that signed it.
    key: u32,
}

/// What all parts of a verification share.
struct Context {
    storage: Arc<dyn ObjectStore>,
    store: StoreId,
    authority: Authority,
    now: Timestamp,
    findings: Findings,
}

/// Verifies the audit log on `storage`.
///
/// Memory: some 40 bytes a request and 8 bytes a commit, besides what is being
/// read: at most 16 commits and two segments.
///
/// # Errors
/// Those of [`store_error`](crate::store::store_error), if the storage cannot be read. That something is
/// wrong with what was read is no error: see [`Report::is_ok`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn verify(storage: Arc<dyn ObjectStore>, options: Options) -> Result<Report> {
    let findings = Findings::default();
    let mut inventory = inventory::derived(&*storage, &findings).await?;
    let mut checkpoints = BTreeMap::new();
    for (shard, _) in inventory.shards.iter().filter(|(_, objects)| objects.checkpoint) {
        let path = Object::Checkpoint { shard: *shard }.path();
        checkpoints.insert(*shard, read(&*storage, &path, MAX_NOTE).await?);
    }
    inventory.add_commits(&*storage, &findings).await?;
    let (store, authority) = identify(&*storage, &inventory, &options, &findings).await?;
    let (Some(store), Some(authority)) = (store, &authority) else {
        return Ok(report(store, authority.as_ref(), Vec::new(), findings));
    };
    keys::note_changes(authority, &options, &findings);
    let authority = authority.clone();
    let context = Context { storage, store, authority, now: options.now, findings };
    let shards = walk_all(&context, &inventory, checkpoints, &options).await?;
    Ok(report(Some(store), Some(&context.authority), shards, context.findings))
}

fn report(
    store: Option<StoreId>,
    authority: Option<&Authority>,
    shards: Vec<ShardReport>,
    findings: Findings,
) -> Report {
    let authority = authority.map(|authority| authority.newest().1);
    let (findings, wrong, notes) = findings.into_parts();
    Report { store, authority, shards, findings, wrong, notes }
}

async fn walk_all(
    context: &Context,
    inventory: &Inventory,
    checkpoints: BTreeMap<u16, Read>,
    options: &Options,
) -> Result<Vec<ShardReport>> {
    let none = ShardObjects::default();
    let mut claims = pinned(context, &options.pinned);
    for (shard, claimed) in papers::verify(context, inventory).await? {
        claims.entry(shard).or_default().push(claimed);
    }
    let mut signed = BTreeMap::new();
    for (shard, found) in checkpoints {
        if let Some(found) = checkpoint(context, shard, found, options) {
            let by = Claimant::Checkpoint;
            claims.entry(shard).or_default().push(Claimed { head: found.head, by });
            signed.insert(shard, found);
        }
    }
    let listed: BTreeSet<u16> = inventory.shards.keys().copied().collect();
    let mut story = Story::default();
    let mut reports = Vec::new();
    let mut waiting: BTreeSet<u16> =
        claims.keys().copied().chain([FIRST_SHARD]).chain(listed.clone()).collect();
    // The first shard first: it names the others, and the trees they had.
    while let Some(shard) = waiting.pop_first() {
        let objects = inventory.shards.get(&shard).unwrap_or(&none);
        if shard != FIRST_SHARD && !story.named.contains_key(&shard) {
            unnamed(context, shard, objects, &story);
        }
        let mut claimed = claims.remove(&shard).unwrap_or_default();
        claimed.extend(story.claimed.remove(&shard).unwrap_or_default());
        let signed_for = claimed.iter().any(|claimed| {
            claimed.head.size > 0 && matches!(claimed.by, Claimant::Head(_) | Claimant::Pinned)
        });
        let start = bases::start(context, shard, objects).await?;
        let walk = Walk::new(context, shard, objects, claimed, start);
        let report = walk.run(&mut story, &listed, signed.get(&shard).copied()).await?;
        if !objects.checkpoint {
            let witnessed = shard == FIRST_SHARD && (options.quorum > 0 || !options.witnesses.is_empty());
            no_checkpoint(context, objects, &report, signed_for, witnessed);
        }
        if shard == FIRST_SHARD && report.commits == 0 {
            let path = Object::Commit { shard, seq: 0 }.path();
            context.findings.wrong(&path, Problem::Missing("every log begins with its store's making"));
        }
        // One that is named and was never used is not worth a line.
        if shard == FIRST_SHARD || report.commits > 0 || signed.contains_key(&shard) {
            reports.push(report);
        }
        if shard == FIRST_SHARD {
            waiting.extend(story.named.keys());
        }
    }
    pins::verify(context, inventory, &story).await?;
    Ok(reports)
}

/// Judges that a shard has no checkpoint: `signed_for` if something says that it
/// had one, `witnessed` if witnesses are to have signed it.
fn no_checkpoint(
    context: &Context,
    objects: &ShardObjects,
    report: &ShardReport,
    signed_for: bool,
    witnessed: bool,
) {
    let path = Object::Checkpoint { shard: report.shard }.path();
    let missing = |why| context.findings.wrong(&path, Problem::Missing(why));
    if !objects.tiles.is_empty() {
        missing("tiles are there, which are signed for in it");
    } else if signed_for {
        missing("a tree of the shard was published");
    } else if witnessed {
        missing("its witnesses cannot be asked for");
    } else if report.commits >= UNSIGNED {
        context.findings.note(&path, Problem::NoCheckpoint);
    }
}

/// Names a shard that the first one does not.
fn unnamed(context: &Context, shard: u16, objects: &ShardObjects, story: &Story) {
    let commit = objects.first_commit().map(|seq| Object::Commit { shard, seq });
    let segment = objects.segments.first().map(|name| Object::Segment(*name));
    let tile = objects.tiles.first().map(|tile| Object::Tile { shard, tile: *tile });
    let object = commit.or(segment).or(tile).unwrap_or(Object::Checkpoint { shard });
    if story.gaps {
        context.findings.note(&object.path(), Problem::Unchecked);
    } else {
        context.findings.wrong(&object.path(), Problem::UnnamedShard);
    }
}

/// What the checkpoints that were kept elsewhere claim, by shard.
fn pinned(context: &Context, pinned: &[SignedCheckpoint]) -> BTreeMap<u16, Vec<Claimed>> {
    let mut claims: BTreeMap<u16, Vec<Claimed>> = BTreeMap::new();
    for signed in pinned {
        let shard = layout::shard_of(context.store, signed.checkpoint().origin()).unwrap_or(FIRST_SHARD);
        match context.authority.verify(signed, (context.store, shard)) {
            Ok(_) => {
                let claimed = Claimed { head: *signed.checkpoint().head(), by: Claimant::Pinned };
                claims.entry(shard).or_default().push(claimed);
            }
            Err(error) => {
                let path = Object::Checkpoint { shard }.path();
                context.findings.wrong(&path, Problem::PinnedForeign(error.to_string()));
            }
        }
    }
    claims
}

/// A stored checkpoint, if one of the log's keys signed it.
fn checkpoint(context: &Context, shard: u16, found: Read, options: &Options) -> Option<Signed> {
    let path = Object::Checkpoint { shard }.path();
    let unreadable = |sentence: String| context.findings.wrong(&path, Problem::Unreadable(sentence));
    let bytes = match found {
        Read::Bytes(bytes) => bytes,
        Read::TooLarge => {
            unreadable("it is larger than a checkpoint can be".to_owned());
            return None;
        }
        Read::Gone => {
            context.findings.wrong(&path, Problem::Missing("it was listed"));
            return None;
        }
    };
    let signed = SignedCheckpoint::parse(&bytes).map_err(|error| unreadable(error.to_string())).ok()?;
    let key = context.authority.verify(&signed, (context.store, shard));
    let key = key.map_err(|error| unreadable(error.to_string())).ok()?;
    let head = *signed.checkpoint().head();
    let by_log = |key: &PublicKey| {
        let key = layout::verifier(context.store, shard, *key);
        signed.note().verified_by(&key).is_ok_and(|line| line.is_some())
    };
    let ours = context.authority.keys().iter().filter(|(_, key)| by_log(key)).count();
    let mut cosigned = 0;
    for witness in &options.witnesses {
        match signed.cosigned_by(witness) {
            Ok(time) => cosigned += usize::from(time.is_some()),
            Err(error) => unreadable(error.to_string()),
        }
    }
    if shard == FIRST_SHARD && cosigned < options.quorum {
        context.findings.wrong(&path, Problem::Quorum { found: cosigned, quorum: options.quorum });
    }
    let unknown = signed.note().signatures().len().saturating_sub(ours + cosigned);
    if unknown > 0 {
        context.findings.note(&path, Problem::UnknownSignatures(unknown));
    }
    Some(Signed { head, key })
}

/// Whose log it is: what the verifier knows, else what endorsed commits say, else
/// the marker.
async fn identify(
    storage: &dyn ObjectStore,
    inventory: &Inventory,
    options: &Options,
    findings: &Findings,
) -> Result<(Option<StoreId>, Option<Authority>)> {
    let path = Object::Marker.path();
    let marker = match read(storage, &path, MAX_NOTE).await? {
        Read::Bytes(bytes) => Marker::decode(&bytes).map_err(|error| Problem::unreadable(&error)),
        Read::TooLarge => Err(Problem::Unreadable("it is larger than a marker can be".to_owned())),
        Read::Gone => Err(Problem::Missing("it says whose audit log this is")),
    };
    let marker = marker.map_err(|problem| findings.wrong(&path, problem)).ok();
    if options.authority.is_none() && marker.is_none() {
        return Ok((options.store, None));
    }
    if options.authority.is_none() {
        findings.note(&path, Problem::KeyFromStorage);
    }
    let samples = samples(storage, inventory).await?;
    let said = samples.first().map(|commit| commit.header().store);
    let named = options.store.or(marker.map(|marker| marker.store)).or(said);
    let authority = match named {
        Some(store) => keys::chain(storage, (inventory, store), marker, options, findings).await?,
        None => options.authority.map(Authority::from),
    };
    let Some(authority) = authority else { return Ok((options.store, None)) };
    let mut endorsed: BTreeMap<StoreId, usize> = BTreeMap::new();
    for header in samples.iter().map(Commit::header) {
        if header.endorser(&authority).is_ok() {
            *endorsed.entry(header.store).or_default() += 1;
        }
    }
    if endorsed.is_empty() && !samples.is_empty() {
        findings.wrong(&path, Problem::NoEndorsement);
        if options.authority.is_none() {
            return Ok((marker.map(|marker| marker.store), None));
        }
    }
    // One of them may have been put there: the store of most.
    let most = endorsed.into_iter().max_by_key(|(_, count)| *count).map(|(store, _)| store);
    let store = options.store.or(most).or(marker.map(|marker| marker.store));
    if marker.is_some_and(|marker| Some(marker.store) != store) {
        findings.wrong(&path, Problem::OtherStore);
    }
    Ok((store, Some(authority)))
}

/// Some commits of the first shard, as far as they can be read.
async fn samples(storage: &dyn ObjectStore, inventory: &Inventory) -> Result<Vec<Commit>> {
    let Some(objects) = inventory.shards.get(&FIRST_SHARD) else { return Ok(Vec::new()) };
    let ranges = &objects.commits;
    let first = ranges.iter().cloned().flatten().take(SAMPLES);
    let last = ranges.iter().rev().flat_map(|range| range.clone().rev());
    let numbers: BTreeSet<u64> = first.chain(last.take(SAMPLES)).collect();
    let mut samples = Vec::new();
    for seq in numbers {
        let path = Object::Commit { shard: FIRST_SHARD, seq }.path();
        if let Read::Bytes(bytes) = read(storage, &path, super::commit::MAX_LEN as u64).await? {
            samples.extend(Commit::decode(&bytes));
        }
    }
    // The commits of long ago are in segments only.
    if let (true, Some(name)) = (samples.is_empty(), objects.segments.first())
        && let Read::Bytes(bytes) = read(storage, &Object::Segment(*name).path(), source::MAX_SEGMENT).await?
    {
        let mut lines = bytes.splitn(3, |byte| *byte == b'\n');
        let body = lines.nth(2).unwrap_or_default();
        samples.extend(Commit::decode_first(body).map(|(commit, _)| commit));
    }
    Ok(samples)
}
