//! What a customer has by what the log says: what a client goes by that restores or checks all of
//! it.
//!
//! Separate from the [list](super::blobs), which tells what the storage lists: a storage that
//! loses a blob loses it there, and not here.

use std::ops::Bound;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use serde::Deserialize;

use super::super::endpoints::Endpoint;
use super::super::problem::Problem;
use super::{Ask, id};
use crate::drill::LogMark;
use crate::id::BlobId;
use crate::json::{Inventory, Stands};
use crate::shred::inventory::{evidence, inventory as take};

/// How many blobs a page has at most, and unless less is asked for. Each page reads all of the
/// customer's records, so they are large.
const PAGE: usize = 100_000;
const PAGE_DEFAULT: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// 0: nothing but where the log stands.
    limit: Option<usize>,
    after: Option<BlobId>,
}

pub(super) async fn inventory(
    ask: Ask,
    Path(customer): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Inventory>, Problem> {
    let customer = ask.customer(Endpoint::ShowInventory, id(&customer, "customer")?).await?;
    let unfit = |_| Problem::invalid("a page has a limit, and the id of the blob that it comes after");
    let Query(Page { limit, after }) = page.map_err(unfit)?;
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if limit > PAGE {
        return Err(Problem::invalid(format!("a page has {PAGE} rows at most")));
    }
    let (mut blobs, mut next) = (Vec::new(), None);
    if limit > 0 {
        let (ring, paths) = evidence(&customer).await?;
        let found = take(&customer, &ring, &paths).await?;
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = found.range((behind, Bound::Unbounded));
        blobs.extend(
            rest.by_ref()
                .take(limit)
                .map(|(blob, standing)| Stands { blob: *blob, standing: (*standing).into() }),
        );
        next = blobs.last().map(|last| last.blob).filter(|_| rest.next().is_some());
    }
    let log = LogMark::of(ask.room()).await?;
    Ok(Json(Inventory { store: ask.room().store_id(), log, blobs, next }))
}
