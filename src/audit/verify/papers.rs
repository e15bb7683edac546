//! Certificates, orders and saved heads: each is what its path says; a certificate is signed
//! by the log's key, with proofs that lead to trees of this log; a saved head is signed by
//! an endorsed writer, and its tree is one of its shard.

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::Context;
use super::finding::Problem;
use super::inventory::Inventory;
use super::records::{Claimant, Claimed};
use super::source::{READ_AHEAD, Read, blocking, read};
use crate::audit::head::{self, SavedHead};
use crate::audit::layout::{Object, shard_of};
use crate::audit::papers;
use crate::audit::proof::Proved;
use crate::certificate;
use crate::error::Result;
use crate::id::StoreId;
use crate::merkle::TreeHead;
use crate::tlog::PublicKey;
use crate::tlog::note::MAX_LEN;

/// The trees that a paper's proofs lead to, and of which shard, each once.
type Trees = Vec<(u16, TreeHead)>;

/// Names the papers that are not what they have to be. Gives what the others claim of
/// the shards.
pub(super) async fn verify(context: &Context, inventory: &Inventory) -> Result<Vec<(u16, Claimed)>> {
    let listed: Vec<Object> = inventory.papers.iter().copied().collect();
    let judged = stream::iter(listed).map(|paper| one(context, paper)).buffer_unordered(READ_AHEAD);
    Ok(judged.try_collect::<Vec<_>>().await?.concat())
}

async fn one(context: &Context, paper: Object) -> Result<Vec<(u16, Claimed)>> {
    let (store, authority) = (context.store, context.authority);
    let max = if matches!(paper, Object::Head { .. }) { head::MAX_LEN } else { MAX_LEN };
    let judged = match read(&*context.storage, &paper.path(), max as u64).await? {
        Read::Bytes(bytes) => blocking(move || judge(&paper, &bytes, store, &authority)).await?,
        Read::Gone => Err(Problem::Missing("it was listed")),
        Read::TooLarge => Err(Problem::Unreadable("it is larger than it can be".to_owned())),
    };
    let trees = judged.unwrap_or_else(|problem| {
        context.findings.wrong(&paper.path(), problem);
        Trees::new()
    });
    let by = Claimant::Paper(paper);
    Ok(trees.into_iter().map(|(shard, head)| (shard, Claimed { head, by: by.clone() })).collect())
}

fn judge(paper: &Object, bytes: &[u8], store: StoreId, authority: &PublicKey) -> Result<Trees, Problem> {
    match *paper {
        Object::Certificate { id, stage } => {
            let verified = certificate::verify(bytes, authority, &[], 0);
            let verified = verified.map_err(|error| Problem::unreadable(&error))?;
            let body = verified.body;
            if (body.store, body.certificate, body.stage) != (store, id, stage) {
                return Err(Problem::Misplaced);
            }
            let mut trees = Trees::new();
            for Proved { origin, tree, .. } in &verified.proven {
                let named = shard_of(store, origin).map(|shard| (shard, *tree));
                trees.extend(named.filter(|named| !trees.contains(named)));
            }
            Ok(trees)
        }
        Object::Order { id, .. } => {
            let checked = papers::check_order(bytes, store, id);
            checked.map(|()| Trees::new()).map_err(|error| Problem::unreadable(&error))
        }
        Object::Head { shard } => {
            let saved = SavedHead::decode(bytes, (store, shard), *authority);
            saved.map(|saved| vec![(shard, saved.head.tree())]).map_err(|error| Problem::unreadable(&error))
        }
        // Nothing else is listed as a paper.
        _ => Ok(Trees::new()),
    }
}
