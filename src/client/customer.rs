//! One customer, at a daemon.

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;

use super::ask::Question;
use super::download::Download;
use super::store::text;
use super::upload::{Replay, Upload};
use super::{Client, nonsense};
use crate::envelope::BlobName;
use crate::error::{Error, Result};
use crate::id::{BlobId, CustomerId};
use crate::json::{
    Blob, Customer, Extended, Hold, Listed, Offboarding, Policies, RekeyStatus, Rekeyed, Row, Sealed,
};
use crate::retention::{Period, Window};
use crate::room::{ByteRange, KeyChoice};
use crate::shred::HoldTarget;
use crate::suite::Suite;
use crate::time::Day;

/// How many rows a page of a list has.
const PAGE: usize = 1000;

/// One customer, at a daemon.
#[derive(Clone, Debug)]
pub(crate) struct RemoteCustomer {
    client: Client,
    id: CustomerId,
    /// What the blobs must be named.
    name: Option<BlobName>,
}

#[derive(Deserialize)]
struct Ids {
    blobs: Vec<Listed>,
    next: Option<BlobId>,
}

#[derive(Deserialize)]
struct Rows {
    blobs: Vec<Row>,
    next: Option<BlobId>,
}

#[derive(Deserialize)]
struct Found {
    blobs: Vec<BlobId>,
}

#[derive(Deserialize)]
struct Verified {
    blob: BlobId,
    ok: bool,
    bytes: u64,
}

#[derive(Deserialize)]
struct Holds {
    holds: Vec<Hold>,
}

impl RemoteCustomer {
    pub(super) fn new(client: Client, id: CustomerId) -> Self {
        Self { client, id, name: None }
    }

    pub(crate) fn id(&self) -> CustomerId {
        self.id
    }

    /// The same customer, for blobs that were looked up by this name: what was sealed under
    /// another is an authentication failure, as in a store.
    pub(crate) fn only_named(&self, name: &BlobName) -> Self {
        Self { name: Some(name.clone()), ..self.clone() }
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn path(&self, more: &str) -> String {
        format!("/v1/customers/{}{more}", self.id)
    }

    fn blob_path(&self, blob: BlobId, more: &str) -> String {
        self.path(&format!("/blobs/{blob}{more}"))
    }

    pub(crate) async fn info(&self) -> Result<Customer> {
        self.client.json(&Question::get(self.path(""))).await
    }

    pub(crate) async fn set(
        &self,
        retention: Option<Period>,
        window: Option<Window>,
        suite: Option<Suite>,
    ) -> Result<Customer> {
        let change = json!({
            "retention": retention.map(|period| period.to_string()),
            "window": window.map(|window| window.to_string()),
            "suite": suite.map(Suite::as_str),
        });
        self.client.json(&Question::patch(self.path(""), &change)).await
    }

    pub(crate) async fn policies(&self) -> Result<Policies> {
        self.client.json(&Question::get(self.path("/retention"))).await
    }

    pub(crate) async fn seal(&self, source: Box<dyn Replay>, what: &Upload) -> Result<Sealed> {
        self.client.seal(self.id, source, what).await
    }

    pub(crate) async fn open(&self, blob: BlobId, range: Option<ByteRange>) -> Result<Download> {
        self.client.open(self.id, blob, range, self.name.as_ref()).await
    }

    pub(crate) async fn stat(&self, blob: BlobId) -> Result<Blob> {
        let found: Blob = self.client.json(&Question::get(self.blob_path(blob, "/metadata"))).await?;
        if found.blob != blob {
            return Err(nonsense());
        }
        match &self.name {
            Some(name) if found.name.as_ref() != Some(name) => Err(Error::authentication()),
            _ => Ok(found),
        }
    }

    /// Whether it was sealed under the name that it was looked up by, if it was.
    async fn check_name(&self, blob: BlobId) -> Result<()> {
        match &self.name {
            Some(_) => self.stat(blob).await.map(drop),
            None => Ok(()),
        }
    }

    /// The blob's length in bytes, if every byte of it is as it was sealed.
    pub(crate) async fn verify(&self, blob: BlobId) -> Result<u64> {
        self.check_name(blob).await?;
        let question = Question::look(self.blob_path(blob, "/verification"), &json!({}));
        let verified: Verified = self.client.json(&question).await?;
        if verified.ok && verified.blob == blob { Ok(verified.bytes) } else { Err(nonsense()) }
    }

    pub(crate) async fn extend(&self, blob: BlobId, until: Day) -> Result<Extended> {
        self.check_name(blob).await?;
        let body = json!({ "until": until });
        self.client.json(&Question::post(self.blob_path(blob, "/extension"), &body)).await
    }

    /// All blobs, by id, opened by nobody.
    pub(crate) fn list(&self) -> BoxStream<'static, Result<Listed>> {
        let page = |this: Self, after: Option<BlobId>| async move {
            let path = this.path(&format!("/blobs?ids=true&limit={PAGE}{}", behind(after)));
            let Ids { blobs, next } = this.client.json(&Question::get(path)).await?;
            Ok((blobs, next))
        };
        pages(self.clone(), page)
    }

    /// All blobs, by id, each as far as it can be opened.
    pub(crate) fn rows(&self) -> BoxStream<'static, Result<Row>> {
        let page = |this: Self, after: Option<BlobId>| async move {
            let path = this.path(&format!("/blobs?limit={PAGE}{}", behind(after)));
            let Rows { blobs, next } = this.client.json(&Question::get(path)).await?;
            Ok((blobs, next))
        };
        pages(self.clone(), page)
    }

    /// The blobs of this name, newest first, opened by nobody.
    pub(crate) async fn find(&self, name: &BlobName) -> Result<Vec<BlobId>> {
        let body = json!({ "name": name.as_str(), "ids": true });
        let Found { blobs } = self.client.json(&Question::look(self.path("/blobs/find"), &body)).await?;
        Ok(blobs)
    }

    pub(crate) async fn holds(&self) -> Result<Vec<Hold>> {
        let Holds { holds } = self.client.json(&Question::get(self.path("/holds"))).await?;
        Ok(holds)
    }

    pub(crate) async fn place_hold(&self, target: HoldTarget) -> Result<Hold> {
        let body = match target {
            HoldTarget::Customer => json!("customer"),
            HoldTarget::Day(day) => json!({ "day": day }),
            HoldTarget::Blob(blob) => {
                self.check_name(blob).await?;
                json!({ "blob": blob })
            }
        };
        self.client.json(&Question::post(self.path("/holds"), &body)).await
    }

    pub(crate) async fn rekey(&self, choice: &KeyChoice) -> Result<Rekeyed> {
        let body = json!({ "kms_key": text(choice) });
        self.client.json(&Question::post(self.path("/rekey"), &body)).await
    }

    pub(crate) async fn rekey_status(&self) -> Result<RekeyStatus> {
        self.client.json(&Question::get(self.path("/rekey"))).await
    }

    pub(crate) async fn offboarding(&self) -> Result<Offboarding> {
        self.client.json(&Question::get(self.path("/offboarding"))).await
    }

    /// Takes the closing of the customer back.
    pub(crate) async fn reopen(&self) -> Result<Offboarding> {
        self.client.json(&Question::post(self.path("/offboarding/reopening"), &json!({}))).await
    }
}

pub(super) fn behind(after: Option<BlobId>) -> String {
    after.map(|blob| format!("&after={blob}")).unwrap_or_default()
}

/// The rows of all pages, each asked for when those before it are through.
fn pages<T, F>(
    of: RemoteCustomer,
    page: impl Fn(RemoteCustomer, Option<BlobId>) -> F + Send + 'static,
) -> BoxStream<'static, Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(Vec<T>, Option<BlobId>)>> + Send,
{
    // Where a page begins, or `None` when there is no more.
    let begin = (of, page, Some(None::<BlobId>));
    let pages = stream::try_unfold(begin, |(of, page, at)| async move {
        let Some(after) = at else { return Ok(None) };
        let (rows, next) = page(of.clone(), after).await?;
        // One that goes back would never end.
        let next = match (after, next) {
            (_, None) => None,
            (after, Some(next)) if after.is_none_or(|after| after < next) => Some(Some(next)),
            _ => return Err(nonsense()),
        };
        Ok(Some((stream::iter(rows.into_iter().map(Ok)), (of, page, next))))
    });
    pages.try_flatten().boxed()
}
