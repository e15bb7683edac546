//! The log's keys: the statements by which they follow each other, and that every shard follows.
//!
//! Separate from the walk over a shard, which checks each commit against the key in force there:
//! that a shard was left out of a change is seen only from the first.

use object_store::ObjectStore;

use super::finding::{Findings, Problem};
use super::inventory::Inventory;
use super::records::Story;
use super::source::{Read, read};
use super::walk::AHEAD;
use super::{Context, Options};
use crate::audit::authority::{Authority, KeyChange};
use crate::audit::head::Head;
use crate::audit::layout::{FIRST_SHARD, Object};
use crate::error::Result;
use crate::id::StoreId;
use crate::store::marker::Marker;
use crate::time::Timestamp;
use crate::tlog::note::MAX_LEN;

/// The log's keys, from the marker's on. A key that the verifier knows must be one of them: each
/// statement is signed by both of its keys, so that one of them vouches for all. Names the
/// statements that are not what they have to be.
pub(super) async fn chain(
    storage: &dyn ObjectStore,
    (inventory, store): (&Inventory, StoreId),
    marker: Option<Marker>,
    options: &Options,
    findings: &Findings,
) -> Result<Option<Authority>> {
    let mut changes = Vec::new();
    let mut expected = 2;
    for number in inventory.keys.iter().copied() {
        let path = Object::KeyChange { number }.path();
        if number != expected {
            let missing = Object::KeyChange { number: expected }.path();
            findings.wrong(&missing, Problem::Missing("a later change of the log's key is there"));
        }
        expected = number.saturating_add(1);
        match stated(storage, store, number).await? {
            Ok(change) => changes.push(change),
            Err(problem) => findings.wrong(&path, problem),
        }
    }
    let known = options.authority;
    let first = marker.map(|marker| marker.log_key).or(changes.first().map(|change| change.body().old));
    let Some(first) = first.or(known) else { return Ok(None) };
    let authority = Authority::from(first);
    let astray = extend(&authority, &changes);
    match known.filter(|known| authority.number_of(known).is_none()) {
        None => {
            for number in astray {
                findings.wrong(&Object::KeyChange { number }.path(), Problem::KeyAstray);
            }
            Ok(Some(authority))
        }
        // The marker is of another log: the statements may lead on from the key that is known.
        Some(known) => {
            findings.wrong(&Object::Marker.path(), Problem::OtherKey);
            let authority = Authority::from(known);
            extend(&authority, &changes);
            Ok(Some(authority))
        }
    }
}

/// Takes the statements into the chain, in order, and gives the numbers of those that do not fit.
fn extend(authority: &Authority, changes: &[KeyChange]) -> Vec<u32> {
    let astray = changes.iter().filter(|change| authority.extend((*change).clone()).is_err());
    astray.map(|change| change.body().number).collect()
}

async fn stated(
    storage: &dyn ObjectStore,
    store: StoreId,
    number: u32,
) -> Result<Result<KeyChange, Problem>> {
    let path = Object::KeyChange { number }.path();
    Ok(match read(storage, &path, MAX_LEN as u64).await? {
        Read::Gone => Err(Problem::Missing("it was listed")),
        Read::TooLarge => Err(Problem::Unreadable("it is larger than a note can be".to_owned())),
        Read::Bytes(bytes) => match KeyChange::parse(&bytes, store) {
            Ok(change) if change.body().number != number => Err(Problem::Misplaced),
            change => change.map_err(|error| Problem::unreadable(&error)),
        },
    })
}

/// Notes the changes behind the key that the verifier knows: it has to compare who ordered them.
pub(super) fn note_changes(authority: &Authority, options: &Options, findings: &Findings) {
    let known = options.authority.and_then(|key| authority.number_of(&key)).unwrap_or(0);
    for change in authority.changes().iter().filter(|change| change.body().number > known) {
        let body = change.body();
        let [requester, approver] = [&body.order.requester, &body.order.approver];
        let by = format!(
            "{} (key {}) and {} (key {})",
            requester.principal, requester.key, approver.principal, approver.key
        );
        let problem = Problem::KeyChanged { time: body.time, order: body.order.id, by };
        findings.note(&Object::KeyChange { number: body.number }.path(), problem);
    }
}

/// Reads the statement that a record names, if it came after the list. Names it if it is missing.
pub(super) async fn look_for(context: &Context, story: &mut Story, number: u32) -> Result<()> {
    if context.authority.key(number).is_some() || !story.sought_keys.insert(number) {
        return Ok(());
    }
    let path = Object::KeyChange { number }.path();
    match stated(&*context.storage, context.store, number).await? {
        Ok(change) => {
            if context.authority.extend(change).is_err() {
                context.findings.wrong(&path, Problem::KeyAstray);
            }
        }
        Err(Problem::Missing(_)) => {
            context.findings.wrong(&path, Problem::Missing("a record of the log names it"));
        }
        // It was listed, and named then.
        Err(_) => {}
    }
    Ok(())
}

/// Checks that a shard, behind its last commit, is under the key that the first shard is under, and
/// the first under the newest. A change that is under way is a note.
pub(super) fn followed(context: &Context, story: &mut Story, shard: u16, head: &Head) {
    let Some(found) = head.in_force() else { return };
    let (expected, since) = match shard {
        FIRST_SHARD => {
            let (newest, _) = context.authority.newest();
            let changes = context.authority.changes();
            let since = changes.last().map_or(head.time(), |change| change.body().time);
            story.key = Some((found, story.key_since.unwrap_or(head.time())));
            (newest, since)
        }
        _ => match story.key {
            Some(key) => key,
            None => return,
        },
    };
    if found < expected {
        let path = Object::KeyChange { number: found.saturating_add(1) }.path();
        let problem = Problem::KeyBehind(shard);
        match is_recent(since, context.now) {
            true => context.findings.note(&path, problem),
            false => context.findings.wrong(&path, problem),
        }
    }
}

fn is_recent(since: Timestamp, now: Timestamp) -> bool {
    since.saturating_add(AHEAD) > now
}
