//! Pins and vouchers: each is of a version that an intent names, and each write that ended well has
//! one.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;

use super::Context;
use super::finding::{Problem, RecordProblem};
use super::inventory::Inventory;
use super::records::Story;
use super::source::{READ_AHEAD, Read, read};
use crate::audit::RingRef;
use crate::audit::layout::{self, Object};
use crate::audit::log::pinned;
use crate::audit::voucher::{self, Versioned, Vouched};
use crate::error::Result;
use crate::id::CustomerId;

/// No pin is longer, in bytes.
const MAX_LEN: u64 = voucher::MAX_LEN + 1024;

/// A voucher, by its path.
type Voucher = (Versioned, u64, [u8; 32], u32);

pub(super) async fn verify(context: &Context, inventory: &Inventory, story: &Story) -> Result<()> {
    // The intents of these were removed with their days, on record.
    let is_known = |of, version| story.removed.is_empty() || story.versions.contains_key(&(of, version));
    let of_pin = |pin: &(CustomerId, u64)| (Versioned::of_pin(context.store, pin.0), pin.1);
    let pins: Vec<_> = inventory.pins.iter().filter(|pin| is_known(of_pin(pin).0, pin.1)).collect();
    let vouchers: Vec<_> =
        inventory.vouchers.iter().filter(|voucher| is_known(voucher.0, voucher.1)).collect();
    let unchecked = inventory.pins.len() + inventory.vouchers.len() - pins.len() - vouchers.len();
    if unchecked > 0 {
        context.findings.note(&layout::pins(), Problem::PinsUnchecked(unchecked));
    }
    let judged = pins.into_iter().map(|pin| one(context, story, *pin));
    stream::iter(judged).map(Ok).try_for_each_concurrent(READ_AHEAD, |one| one).await?;
    let judged = vouchers.into_iter().map(|voucher| judge(context, story, *voucher));
    stream::iter(judged).map(Ok).try_for_each_concurrent(READ_AHEAD, |one| one).await?;
    for (at, request, of, version) in &story.written {
        let Some(owner) = of.pinned_as(context.store) else {
            // The record of an epoch, which was vouched for before it was written.
            let named =
                |voucher: &Voucher| (voucher.0, voucher.1, voucher.2) == (*of, version.version, version.hash);
            if !inventory.vouchers.iter().any(named) {
                at.wrong(context, RecordProblem::NotVouched(*request));
            }
            continue;
        };
        // Pinned before its outcome was recorded, and perhaps after we listed.
        let pin = (owner, version.version);
        if !inventory.pins.contains(&pin) && object(context, &pin_path(pin)).await?.is_none() {
            context.findings.wrong(&pin_path(pin), Problem::Missing("its ring write ended well"));
            at.wrong(context, RecordProblem::NotPinned(*request));
        }
    }
    Ok(())
}

async fn one(context: &Context, story: &Story, pin: (CustomerId, u64)) -> Result<()> {
    let path = pin_path(pin);
    let Some(stored) = object(context, &path).await? else {
        context.findings.wrong(&path, Problem::Missing("it was listed"));
        return Ok(());
    };
    let Some((version, lines)) = pinned(&stored).filter(|(version, _)| version.version == pin.1) else {
        context.findings.wrong(&path, Problem::PinUnreadable);
        return Ok(());
    };
    let of = Versioned::of_pin(context.store, pin.0);
    // Pins of before there were vouchers have none.
    if !lines.is_empty() {
        match Vouched::verify(lines, context.store, (of, version), &context.authority) {
            None => context.findings.wrong(&path, Problem::VoucherForeign),
            Some(vouched) => {
                // It was there before the version was.
                let path = path_of(of, version, vouched.key());
                if object(context, &path).await?.is_none() {
                    context.findings.wrong(&path, Problem::Missing("a pin has it"));
                }
            }
        }
    }
    compare(context, story, &path, (of, version), Problem::PinUnknown);
    Ok(())
}

async fn judge(context: &Context, story: &Story, voucher: Voucher) -> Result<()> {
    let (of, version, hash, key) = voucher;
    let version = RingRef { version, hash };
    let path = path_of(of, version, key);
    let Some(stored) = object(context, &path).await? else {
        context.findings.wrong(&path, Problem::Missing("it was listed"));
        return Ok(());
    };
    let vouched = Vouched::verify(&stored, context.store, (of, version), &context.authority);
    let Some(vouched) = vouched.filter(|vouched| vouched.key() == key) else {
        context.findings.wrong(&path, Problem::VoucherForeign);
        return Ok(());
    };
    if let Versioned::Session(..) = of {
        // Intents have no paper's hash, and name the request.
        match story.was_begun(vouched.request()) {
            true => {}
            false if story.gaps => context.findings.note(&path, Problem::Unchecked),
            false => context.findings.wrong(&path, Problem::VoucherUnknown),
        }
        return Ok(());
    }
    compare(context, story, &path, (of, version), Problem::VoucherUnknown);
    Ok(())
}

/// Whether an intent names this version.
fn compare(
    context: &Context,
    story: &Story,
    path: &Path,
    (of, version): (Versioned, RingRef),
    unknown: Problem,
) {
    match story.versions.get(&(of, version.version)) {
        Some(named) if named.contains(&version) => {}
        None if story.gaps => context.findings.note(path, Problem::Unchecked),
        _ => context.findings.wrong(path, unknown),
    }
}

fn pin_path((customer, version): (CustomerId, u64)) -> Path {
    Object::Pin { customer, version }.path()
}

fn path_of(of: Versioned, version: RingRef, key: u32) -> Path {
    Object::Voucher { of, version: version.version, hash: version.hash, key }.path()
}

/// A small object; one that is too large is as good as empty.
async fn object(context: &Context, path: &Path) -> Result<Option<Vec<u8>>> {
    Ok(match read(&*context.storage, path, MAX_LEN).await? {
        Read::Gone => None,
        Read::TooLarge => Some(Vec::new()),
        Read::Bytes(bytes) => Some(bytes.to_vec()),
    })
}
