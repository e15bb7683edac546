//! Ring pins: each is a version that an intent names, and each ring write that
//! ended well has one.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Context;
use super::finding::{Problem, RecordProblem};
use super::inventory::Inventory;
use super::records::Story;
use super::source::{READ_AHEAD, Read, read};
use crate::audit::RingRef;
use crate::audit::layout::{self, Object};
use crate::error::Result;
use crate::id::CustomerId;

/// No pin is longer, in bytes.
const MAX_LEN: u64 = 1024;

pub(super) async fn verify(context: &Context, inventory: &Inventory, story: &Story) -> Result<()> {
    // The intents of these were removed with their days, on record.
    let known = |pin: &&(CustomerId, u64)| story.removed.is_empty() || story.rings.contains_key(*pin);
    let unchecked = inventory.pins.len() - inventory.pins.iter().filter(known).count();
    if unchecked > 0 {
        context.findings.note(&layout::pins(), Problem::PinsUnchecked(unchecked));
    }
    let listed = inventory.pins.iter().filter(known).map(|pin| one(context, story, *pin));
    stream::iter(listed).map(Ok).try_for_each_concurrent(READ_AHEAD, |one| one).await?;
    for (at, request, customer, ring) in &story.written {
        // Pinned before its outcome was recorded, and perhaps after we listed.
        let pin = (*customer, ring.version);
        if !inventory.pins.contains(&pin) && pin_at(context, pin).await?.is_none() {
            let path = Object::Pin { customer: *customer, version: ring.version }.path();
            context.findings.wrong(&path, Problem::Missing("its ring write ended well"));
            at.wrong(context, RecordProblem::NotPinned(*request));
        }
    }
    Ok(())
}

async fn one(context: &Context, story: &Story, pin: (CustomerId, u64)) -> Result<()> {
    let (customer, version) = pin;
    let path = Object::Pin { customer, version }.path();
    let Some(stored) = pin_at(context, pin).await? else {
        context.findings.wrong(&path, Problem::Missing("it was listed"));
        return Ok(());
    };
    let ring = serde_json::from_slice::<RingRef>(&stored).ok().filter(|ring| {
        ring.version == version
            && serde_json::to_vec(ring).is_ok_and(|line| stored.strip_suffix(b"\n") == Some(&line[..]))
    });
    let Some(ring) = ring else {
        context.findings.wrong(&path, Problem::PinUnreadable);
        return Ok(());
    };
    match story.rings.get(&pin) {
        Some(named) if named.contains(&ring) => {}
        None if story.gaps => context.findings.note(&path, Problem::Unchecked),
        _ => context.findings.wrong(&path, Problem::PinUnknown),
    }
    Ok(())
}

async fn pin_at(context: &Context, (customer, version): (CustomerId, u64)) -> Result<Option<Vec<u8>>> {
    let path = Object::Pin { customer, version }.path();
    Ok(match read(&*context.storage, &path, MAX_LEN).await? {
        Read::Gone => None,
        Read::TooLarge => Some(Vec::new()),
        Read::Bytes(bytes) => Some(bytes.to_vec()),
    })
}
