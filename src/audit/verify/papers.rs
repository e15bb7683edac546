//! Certificates, orders, the ends of epochs and saved heads: each is what its path says, and
//! what the log's key signs is signed by it, with proofs that lead to trees of this log. A
//! certificate agrees with the papers that it names, and none of these is missing. A saved
//! head is signed by an endorsed writer, and its tree is one of its shard.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Context;
use super::finding::Problem;
use super::inventory::Inventory;
use super::records::{Claimant, Claimed};
use super::source::{READ_AHEAD, Read, blocking, read};
use crate::audit::authority::Authority;
use crate::audit::head::{self, SavedHead};
use crate::audit::layout::{Object, shard_of};
use crate::audit::papers;
use crate::audit::proof::Proved;
use crate::certificate::{self, EndOnPaper, Examined};
use crate::error::Result;
use crate::id::StoreId;
use crate::merkle::TreeHead;
use crate::tlog::note::MAX_LEN;

/// The trees that a paper's proofs lead to, and of which shard, each once.
type Trees = Vec<(u16, TreeHead)>;

/// The papers of epochs' ends that were listed: those that verify, and `None` for those that
/// do not, which are named by themselves.
type Ends = BTreeMap<u32, Option<EndOnPaper>>;

/// What a paper was found to be.
enum Judged {
    /// The end of an epoch.
    End(EndOnPaper),
    /// A certificate.
    Certificate(Box<Examined>),
    /// An order or a saved head, of which no more is seen here.
    Other,
}

/// Names the papers that are not what they have to be. Gives what the others claim of
/// the shards.
pub(super) async fn verify(context: &Context, inventory: &Inventory) -> Result<Vec<(u16, Claimed)>> {
    let is_end = |paper: &Object| matches!(paper, Object::EpochEnd { .. });
    let (ends, others): (Vec<Object>, Vec<Object>) = inventory.papers.iter().copied().partition(is_end);
    let mut claims = Vec::new();
    // Certificates are held against the ends: these come first, and each is read once.
    let mut known = Ends::new();
    let mut judged = stream::iter(ends).map(|paper| one(context, paper)).buffer_unordered(READ_AHEAD);
    while let Some((paper, judged, trees)) = judged.try_next().await? {
        let end = judged.and_then(|judged| if let Judged::End(end) = judged { Some(end) } else { None });
        if let Object::EpochEnd { epoch } = paper {
            known.insert(epoch, end);
        }
        claims.extend(claimed(paper, trees));
    }
    let mut missing = BTreeSet::new();
    let mut judged = stream::iter(others).map(|paper| one(context, paper)).buffer_unordered(READ_AHEAD);
    while let Some((paper, judged, trees)) = judged.try_next().await? {
        if let Some(Judged::Certificate(examined)) = judged {
            compare(context, paper, *examined, &known, &mut missing);
        }
        claims.extend(claimed(paper, trees));
    }
    for epoch in missing {
        let path = Object::EpochEnd { epoch }.path();
        // On a live log it may have come after the list, with the certificate.
        if matches!(read(&*context.storage, &path, MAX_LEN as u64).await?, Read::Gone) {
            context.findings.wrong(&path, Problem::Missing("a certificate names it"));
        }
    }
    Ok(claims)
}

fn claimed(paper: Object, trees: Trees) -> impl Iterator<Item = (u16, Claimed)> {
    trees.into_iter().map(move |(shard, head)| (shard, Claimed { head, by: Claimant::Paper(paper) }))
}

/// Holds a certificate against the papers that it names.
fn compare(context: &Context, paper: Object, examined: Examined, known: &Ends, missing: &mut BTreeSet<u32>) {
    let certificate = examined.body.certificate;
    let mut agree = true;
    let mut papers = BTreeMap::new();
    for name in examined.body.named() {
        match known.get(&name.epoch) {
            None => drop(missing.insert(name.epoch)),
            Some(Some(end)) if end.name() == name => drop(papers.insert(name.epoch, end.clone())),
            Some(Some(_)) => {
                let path = Object::EpochEnd { epoch: name.epoch }.path();
                context.findings.wrong(&path, Problem::NotAsNamed(certificate));
            }
            // It is named by itself.
            Some(None) => {}
        }
        agree &= papers.contains_key(&name.epoch);
    }
    // Without all papers it cannot be said whether it agrees with them.
    if agree && let Err(error) = examined.complete(&papers) {
        context.findings.wrong(&paper.path(), Problem::unreadable(&error));
    }
}

async fn one(context: &Context, paper: Object) -> Result<(Object, Option<Judged>, Trees)> {
    let (store, authority) = (context.store, context.authority.clone());
    let max = if matches!(paper, Object::Head { .. }) { head::MAX_LEN } else { MAX_LEN };
    let judged = match read(&*context.storage, &paper.path(), max as u64).await? {
        Read::Bytes(bytes) => blocking(move || judge(&paper, &bytes, store, &authority)).await?,
        Read::Gone => Err(Problem::Missing("it was listed")),
        Read::TooLarge => Err(Problem::Unreadable("it is larger than it can be".to_owned())),
    };
    Ok(match judged {
        Ok((judged, trees)) => (paper, Some(judged), trees),
        Err(problem) => {
            context.findings.wrong(&paper.path(), problem);
            (paper, None, Trees::new())
        }
    })
}

fn judge(
    paper: &Object,
    bytes: &[u8],
    store: StoreId,
    authority: &Authority,
) -> Result<(Judged, Trees), Problem> {
    match *paper {
        Object::Certificate { id, stage } => {
            let examined = certificate::examine(bytes, authority, &[], 0);
            let examined = examined.map_err(|error| Problem::unreadable(&error))?;
            let body = &examined.body;
            if (body.store, body.certificate, body.stage) != (store, id, stage) {
                return Err(Problem::Misplaced);
            }
            let trees = trees(store, &examined.proven);
            Ok((Judged::Certificate(Box::new(examined)), trees))
        }
        Object::EpochEnd { epoch } => {
            let verified = certificate::verify_epoch(bytes, store, authority, &[], 0);
            let verified = verified.map_err(|error| Problem::unreadable(&error))?;
            if verified.body.epoch != epoch {
                return Err(Problem::Misplaced);
            }
            Ok((Judged::End(verified.paper), trees(store, &verified.proven)))
        }
        Object::Order { id, .. } => {
            let checked = papers::check_order(bytes, store, id);
            checked.map(|()| (Judged::Other, Trees::new())).map_err(|error| Problem::unreadable(&error))
        }
        Object::Head { shard } => {
            let saved = SavedHead::decode(bytes, (store, shard), authority);
            let saved = saved.map_err(|error| Problem::unreadable(&error))?;
            Ok((Judged::Other, vec![(shard, saved.head.tree())]))
        }
        // Nothing else is listed as a paper.
        _ => Ok((Judged::Other, Trees::new())),
    }
}

fn trees(store: StoreId, proven: &[Proved]) -> Trees {
    let mut trees = Trees::new();
    for Proved { origin, tree, .. } in proven {
        let named = shard_of(store, origin).map(|shard| (shard, *tree));
        trees.extend(named.filter(|named| !trees.contains(named)));
    }
    trees
}
