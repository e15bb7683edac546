//! What a daemon is asked about its audit log.
//!
//! Where there is a proof in an answer it is read, and is of what was asked for; a view is
//! checked to its end, by the key that it names itself. That the key is the log's, only
//! whoever asks can know.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;

use super::ask::Question;
use super::wire::broke;
use super::{Client, nonsense};
use crate::audit::Record;
use crate::audit::layout::{FIRST_SHARD, of_origin};
use crate::audit::operation::OperationLine;
use crate::audit::proof::Sought;
use crate::audit::query::{Cursor, Filter, OutcomeFilter};
use crate::audit::view::{Checker, Header, MAX_LINE, Trust, ViewReport};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, StoreId};
use crate::json::{Maintained, Published};
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::tlog::proof::TlogProof;

/// How many operations a page of the audit log has at most.
const PAGE: usize = 1000;

/// How many of the newest a daemon gives at most.
pub(crate) const NEWEST: usize = 1000;

#[derive(Deserialize)]
struct Page {
    store: StoreId,
    operations: Vec<OperationLine>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Operations {
    operations: Vec<OperationLine>,
}

#[derive(Deserialize)]
struct Publication {
    published: Vec<Published>,
}

#[derive(Deserialize)]
struct Records {
    records: Vec<Record>,
}

impl Client {
    /// At most `limit` operations of the log behind `after`, and where there is more, where to go
    /// on.
    pub(crate) async fn query(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(Vec<OperationLine>, Option<Cursor>)> {
        let (mut found, mut after) = (Vec::new(), after);
        loop {
            let (_, operations, next) = self.page(filter, after, (limit - found.len()).min(PAGE)).await?;
            found.extend(operations);
            after = next;
            if after.is_none() || found.len() >= limit {
                return Ok((found, after));
            }
        }
    }

    /// All operations that fit, each with the store whose it is; a page at a time is in memory.
    pub(crate) fn operations(&self, filter: Filter) -> BoxStream<'static, Result<(StoreId, OperationLine)>> {
        /// Behind what the next page is, while there is one.
        enum Next {
            Page(Option<Cursor>),
            None,
        }
        let asked = (self.clone(), filter, Next::Page(None));
        let pages = stream::try_unfold(asked, |(client, filter, next)| async move {
            let Next::Page(after) = next else { return Ok(None) };
            let (store, operations, next) = client.page(&filter, after, PAGE).await?;
            let next = next.map_or(Next::None, |next| Next::Page(Some(next)));
            let rows = stream::iter(operations.into_iter().map(move |operation| Ok((store, operation))));
            Ok::<_, Error>(Some((rows, (client, filter, next))))
        });
        pages.try_flatten().boxed()
    }

    async fn page(
        &self,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<(StoreId, Vec<OperationLine>, Option<Cursor>)> {
        let Filter { customer, principal, blob, action, outcome, purpose, from, until, request } = filter;
        let outcome = outcome.map(|outcome| match outcome {
            OutcomeFilter::Open => "open",
            OutcomeFilter::Ended(result) => result.code(),
        });
        let body = json!({
            "customer": customer, "principal": principal, "blob": blob, "action": action, "outcome": outcome,
            "purpose": purpose, "from": from, "until": until, "request": request,
            "after": after.map(|after| after.to_string()), "limit": limit,
        });
        let Page { store, operations, next } = self.json(&Question::look("/v1/audit/query", &body)).await?;
        let next = next.map(|next| next.parse::<Cursor>().map_err(|_| nonsense())).transpose()?;
        if operations.len() > limit || (next.is_some() && (operations.is_empty() || next <= after)) {
            return Err(nonsense());
        }
        Ok((store, operations, next))
    }

    /// The newest `count` operations, oldest first: up to [`NEWEST`].
    pub(crate) async fn newest_operations(&self, count: usize) -> Result<Vec<OperationLine>> {
        let question = Question::get(format!("/v1/audit/operations?limit={count}"));
        let Operations { operations } = self.json(&question).await?;
        if operations.len() > count { Err(nonsense()) } else { Ok(operations) }
    }

    /// The newest `count` records, oldest first: up to [`NEWEST`].
    pub(crate) async fn newest_records(&self, count: usize) -> Result<Vec<Record>> {
        let question = Question::get(format!("/v1/audit/records?limit={count}"));
        let Records { records } = self.json(&question).await?;
        if records.len() > count { Err(nonsense()) } else { Ok(records) }
    }

    /// The proof of the record that was asked for, and of no other; of which store's log it is, and
    /// in which shard. No signature is verified.
    pub(crate) async fn proof(
        &self,
        sought: &Sought,
        customer: Option<CustomerId>,
    ) -> Result<(TlogProof, StoreId, u16)> {
        let body = match sought {
            Sought::Place { shard, index } => {
                json!({ "customer": customer, "shard": shard, "index": index })
            }
            Sought::Request { request, outcome, from, until } => json!({
                "customer": customer, "request": request, "outcome": outcome, "from": from, "until": until,
            }),
        };
        let text = self.text(&Question::look("/v1/audit/proof", &body)).await?;
        let proof = TlogProof::parse(text.as_bytes()).map_err(|_| nonsense())?;
        let (store, shard) = of_origin(proof.checkpoint().checkpoint().origin()).ok_or_else(nonsense)?;
        let record = proof.extra().and_then(|line| serde_json::from_slice::<Record>(line).ok());
        let record = record.ok_or_else(nonsense)?;
        let is_theirs = customer.is_none() || record.event.customer() == customer;
        if is_theirs && sought.is(&record, (shard, proof.index())) {
            return Ok((proof, store, shard));
        }
        let sentence = "the daemon gave the proof of another record than the one that was asked for";
        Err(Error::new(ErrorKind::Integrity, sentence))
    }

    /// The newest checkpoint of the log, and of which store's log it is. No signature is
    /// verified.
    pub(crate) async fn checkpoint(&self) -> Result<(SignedCheckpoint, StoreId)> {
        let text = self.text(&Question::get("/v1/audit/checkpoint")).await?;
        let signed = SignedCheckpoint::parse(text.as_bytes()).map_err(|_| nonsense())?;
        match of_origin(signed.checkpoint().origin()) {
            Some((store, FIRST_SHARD)) => Ok((signed, store)),
            _ => Err(nonsense()),
        }
    }

    /// Publishes the log, and before, with `restore`, makes again what was lost of what is derived
    /// from it.
    pub(crate) async fn publish(&self, restore: bool) -> Result<Vec<Published>> {
        let question = Question::post("/v1/audit/publication", &json!({ "restore": restore }));
        let Publication { published } = self.json(&question).await?;
        Ok(published)
    }

    /// Does what is to be done for the log once a day.
    pub(crate) async fn maintain(&self) -> Result<Maintained> {
        self.json(&Question::post("/v1/audit/maintenance", &json!({}))).await
    }

    /// The view of a customer, handed to `write` in pieces as it comes, and what it shows. What was
    /// written is not to be used after an error.
    pub(crate) async fn view<E: From<Error>>(
        &self,
        customer: CustomerId,
        mut write: impl AsyncFnMut(Bytes) -> std::result::Result<(), E>,
    ) -> std::result::Result<ViewReport, E> {
        let path = format!("/v1/customers/{customer}/audit/view");
        let (response, link) = self.answer(&Question::post(path, &json!({}))).await?;
        let (mut body, mut lines) = (response.into_body(), Lines::of(customer));
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(broke)?.into_data() else { continue };
            lines.take(&piece)?;
            write(piece).await?;
        }
        self.0.wire.keep(link);
        Ok(lines.finish()?)
    }
}

/// The lines of a view that comes in pieces, on their way through its check.
struct Lines {
    customer: CustomerId,
    /// Once the first line was there.
    checker: Option<Checker>,
    /// What came of the next line.
    begun: Vec<u8>,
}

impl Lines {
    fn of(customer: CustomerId) -> Self {
        Self { customer, checker: None, begun: Vec::new() }
    }

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            if self.begun.len().saturating_add(part.len()) > MAX_LINE {
                return Err(nonsense());
            }
            self.begun.extend_from_slice(part);
            if let Some(line) = self.begun.strip_suffix(b"\n") {
                match &mut self.checker {
                    Some(checker) => checker.line(line),
                    None => self.checker = Some(first(line, self.customer)?),
                }
                self.begun.clear();
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<ViewReport> {
        let report = self.checker.filter(|_| self.begun.is_empty()).map(Checker::finish);
        let incomplete = || Error::new(ErrorKind::Integrity, "the view that the daemon gave is not complete");
        report.filter(ViewReport::is_complete).ok_or_else(incomplete)
    }
}

fn first(line: &[u8], customer: CustomerId) -> Result<Checker> {
    let header = Header::decode(line)?;
    if header.customer != customer {
        let sentence = "the daemon gave the view of another customer than the one that was asked for";
        return Err(Error::new(ErrorKind::Integrity, sentence));
    }
    Checker::begin(line, &Trust::new(header.log_key, Vec::new(), 0)?)
}
