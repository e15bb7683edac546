//! Questions to the log: which operations fit a [`Filter`], in their order, whole or
//! in pages.
//!
//! Separate from the reader, which knows commits and times, and from the
//! [`operation`](super::operation), which knows neither order nor storage.
//!
//! Operations come in the order of (time of the commit with the intent, shard, leaf).
//! An outcome may be in the log much later than its intent, behind the time that was
//! asked for, and is looked for there. In memory is what waits for the outcome of one
//! before it: up to [`WINDOW`] operations a shard; then the log is read ahead for the
//! outcomes that are missing, and the rest follows.
//!
//! Invariants: an operation whose intent fits and is in the log when its shard is
//! opened is given out once, open or with its outcome. What the reader refuses is an
//! error here. Filters and cursors are ids, codes and times, and say nothing of what
//! was stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use thiserror::Error as ThisError;

use super::commit::Commit;
use super::log::{LogReader, ShardReader, entries};
use super::operation::{Entry, Operation, Paired, Pairing};
use super::{Action, Event, Intent, Outcome, OutcomeResult};
use crate::access::{Principal, Purpose};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, RequestId, base32, read_base32};
use crate::time::Timestamp;

/// How many operations of a shard may wait for an outcome before theirs.
pub const WINDOW: usize = 1 << 15;

/// How many records are looked through at most for the [`newest`] operations, unless
/// twice as many operations are asked for.
const NEWEST_RECORDS: usize = 1 << 16;

/// What an operation has to be. Each field that is set has to fit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Filter {
    /// Whose.
    pub customer: Option<CustomerId>,
    /// Who.
    pub principal: Option<Principal>,
    /// To which blob.
    pub blob: Option<BlobId>,
    /// What.
    pub action: Option<Action>,
    /// How it ended.
    pub outcome: Option<OutcomeFilter>,
    /// Why.
    pub purpose: Option<Purpose>,
    /// Begun at this time or later, by the time in the intent.
    pub from: Option<Timestamp>,
    /// Begun before this time.
    pub until: Option<Timestamp>,
    /// Which operation.
    pub request: Option<RequestId>,
}

/// How an operation ended, or that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutcomeFilter {
    /// It has no outcome.
    Open,
    /// It has this one.
    Ended(OutcomeResult),
}

impl Filter {
    /// Whether `operation` fits.
    #[must_use]
    pub fn matches(&self, operation: &Operation) -> bool {
        self.fits_intent(operation.intent_entry()) && self.fits_outcome(operation.outcome())
    }

    fn fits_intent(&self, entry: &Entry) -> bool {
        let Event::Intent(intent) = &entry.record.event else { return false };
        let Intent { request, principal, purpose, action, customer, blob, .. } = intent;
        let time = entry.record.time;
        self.customer.is_none_or(|wanted| *customer == Some(wanted))
            && self.principal.as_ref().is_none_or(|wanted| wanted == principal)
            && self.blob.is_none_or(|wanted| *blob == Some(wanted))
            && self.action.is_none_or(|wanted| wanted == *action)
            && self.purpose.is_none_or(|wanted| wanted == *purpose)
            && self.from.is_none_or(|from| from <= time)
            && self.until.is_none_or(|until| time < until)
            && self.request.is_none_or(|wanted| wanted == *request)
    }

    fn fits_outcome(&self, outcome: Option<&Outcome>) -> bool {
        match self.outcome {
            None => true,
            Some(OutcomeFilter::Open) => outcome.is_none(),
            Some(OutcomeFilter::Ended(wanted)) => outcome.is_some_and(|outcome| outcome.result == wanted),
        }
    }
}

/// The place of an operation in the order of all: what comes behind it is asked for
/// with it. Its text is opaque, and has no meaning but here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    time: Timestamp,
    shard: u16,
    index: u64,
}

/// Text that is no cursor. It is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("not the end of a page that this program gave out")]
pub struct ParseCursorError;

/// The first byte of a cursor.
const CURSOR_VERSION: u8 = 1;

impl Cursor {
    /// The place of `operation`.
    #[must_use]
    pub fn at(operation: &Operation) -> Self {
        Self::of(operation.intent_entry())
    }

    fn of(intent: &Entry) -> Self {
        Self { time: intent.time, shard: intent.shard, index: intent.index }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![CURSOR_VERSION];
        bytes.extend_from_slice(&self.time.micros().to_be_bytes());
        bytes.extend_from_slice(&self.shard.to_be_bytes());
        bytes.extend_from_slice(&self.index.to_be_bytes());
        f.pad(&base32(&bytes))
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseCursorError> {
        let bytes = read_base32(text).and_then(|bytes| <[u8; 19]>::try_from(bytes).ok());
        let [CURSOR_VERSION, rest @ ..] = bytes.ok_or(ParseCursorError)? else {
            return Err(ParseCursorError);
        };
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        let time = Timestamp::from_micros(number(&rest[..8])).map_err(|_| ParseCursorError)?;
        let shard = u16::try_from(number(&rest[8..10])).map_err(|_| ParseCursorError)?;
        Ok(Self { time, shard, index: number(&rest[10..]) })
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The operations, in order.
    pub operations: Vec<Operation>,
    /// Where the next page begins, if there is more.
    pub next: Option<Cursor>,
}

/// Up to `limit` operations that fit, behind `after`.
///
/// Pages are of the log as it is when each is asked for. Where several shards are
/// written to, one may still get records of a time that another's page has passed:
/// who needs all of a time asks when it is over.
///
/// # Errors
/// [`ErrorKind::AuditUnavailable`] if the storage cannot be read;
/// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if what was to be read
/// is missing, or is not what the log's key stands for.
///
/// # Cancel safety
/// Nothing is written.
pub async fn query(
    reader: &LogReader,
    filter: &Filter,
    after: Option<Cursor>,
    limit: NonZeroUsize,
) -> Result<Page> {
    let mut stream = operations(reader, filter, after);
    let mut operations: Vec<Operation> = Vec::new();
    while let Some(operation) = stream.try_next().await? {
        if operations.len() == limit.get() {
            return Ok(Page { next: operations.last().map(Cursor::at), operations });
        }
        operations.push(operation);
    }
    Ok(Page { operations, next: None })
}

/// The newest `count` operations, oldest first; or fewer, if there are no more in the newest
/// 65,536 records.
///
/// # Errors
/// As [`query`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn newest(reader: &LogReader, count: usize) -> Result<Vec<Operation>> {
    let mut window = count.saturating_mul(2).saturating_add(100);
    let most = window.max(NEWEST_RECORDS);
    loop {
        let entries = reader.newest(window).await?;
        let all = entries.len() < window || window >= most;
        let mut pairing = Pairing::default();
        let mut operations: Vec<Operation> = Vec::new();
        for entry in entries {
            // An outcome whose intent lies further back belongs to an operation
            // that is not shown, and what the log says of itself is nobody's.
            if let Paired::Operation(operation) = pairing.push(entry) {
                operations.push(*operation);
            }
        }
        operations.extend(pairing.finish());
        operations.sort_by_key(Cursor::at);
        if operations.len() >= count || all {
            return Ok(operations.split_off(operations.len().saturating_sub(count)));
        }
        window = window.saturating_mul(2).min(most);
    }
}

/// All operations that fit, behind `after`, in order. The stream ends with the first
/// error, as in [`query`].
#[must_use]
pub fn operations(
    reader: &LogReader,
    filter: &Filter,
    after: Option<Cursor>,
) -> BoxStream<'static, Result<Operation>> {
    within(reader, filter, after, WINDOW)
}

/// The same, with so many that wait.
fn within(
    reader: &LogReader,
    filter: &Filter,
    after: Option<Cursor>,
    window: usize,
) -> BoxStream<'static, Result<Operation>> {
    let (reader, filter) = (reader.clone(), Arc::new(filter.clone()));
    let all = async move {
        let begin = |shard| InShard::open(&reader, shard, Arc::clone(&filter), after, window);
        let shards = try_join_all(reader.shards().await?.into_iter().map(begin)).await?;
        Ok::<_, Error>(merged(shards.into_iter().map(InShard::stream).collect()))
    };
    stream::once(all).try_flatten().boxed()
}

/// The operations of a shard whose intents are in commit `begin` or behind it, and fit.
pub(super) fn tail(shard: ShardReader, begin: u64, filter: Arc<Filter>) -> Operations {
    let span = begin..shard.end();
    InShard::over(shard, span, filter, None, WINDOW).stream()
}

/// Operations in order.
pub(super) type Operations = BoxStream<'static, Result<Operation>>;

/// The operations of several shards as those of one.
pub(super) fn merged(shards: Vec<Operations>) -> Operations {
    let merged = async move {
        let begin = |mut shard: Operations| async move {
            Ok::<Option<_>, Error>(shard.try_next().await?.map(|first| (Cursor::at(&first), (first, shard))))
        };
        // The next operation of each shard that has one.
        let heads: BTreeMap<Cursor, (Operation, Operations)> =
            try_join_all(shards.into_iter().map(begin)).await?.into_iter().flatten().collect();
        Ok::<_, Error>(stream::try_unfold(heads, |mut heads| async move {
            let Some((_, (operation, mut shard))) = heads.pop_first() else { return Ok(None) };
            if let Some(next) = shard.try_next().await? {
                heads.insert(Cursor::at(&next), (next, shard));
            }
            Ok(Some((operation, heads)))
        }))
    };
    stream::once(merged).try_flatten().boxed()
}

/// The operations of one shard.
struct InShard {
    shard: ShardReader,
    filter: Arc<Filter>,
    after: Option<Cursor>,
    /// The commits that are still to be read for intents.
    commits: BoxStream<'static, Result<Commit>>,
    /// The number behind the last one that was read.
    next: u64,
    /// Intents that fit and have no outcome yet.
    pairing: Pairing,
    /// What fits, in order.
    waiting: VecDeque<Waiting>,
    /// How many there may be.
    window: usize,
}

/// An operation in its place in the order.
struct Waiting {
    index: u64,
    customer: Option<CustomerId>,
    /// Until its outcome is found, or is known to be none.
    operation: Option<Operation>,
}

impl InShard {
    async fn open(
        reader: &LogReader,
        shard: u16,
        filter: Arc<Filter>,
        after: Option<Cursor>,
        window: usize,
    ) -> Result<Self> {
        let shard = reader.shard(shard).await?;
        let beginning = Timestamp::from_micros(0).map_err(|_| out_of_time())?;
        // A commit is not older than its records, nor than the commits before it.
        let after_time = after.map_or(beginning, |after| after.time);
        let since = filter.from.unwrap_or(beginning).max(after_time);
        let span = shard.span(since, filter.until).await?;
        Ok(Self::over(shard, span, filter, after, window))
    }

    /// Over a range of commits.
    fn over(
        shard: ShardReader,
        span: Range<u64>,
        filter: Arc<Filter>,
        after: Option<Cursor>,
        window: usize,
    ) -> Self {
        let next = span.start;
        let commits = shard.commits(span, filter.customer.map(|customer| BTreeSet::from([customer])));
        let (pairing, waiting) = (Pairing::default(), VecDeque::new());
        Self { shard, filter, after, commits, next, pairing, waiting, window }
    }

    fn stream(self) -> Operations {
        stream::try_unfold(self, |mut shard| async move { Ok(shard.next().await?.map(|next| (next, shard))) })
            .boxed()
    }

    async fn next(&mut self) -> Result<Option<Operation>> {
        loop {
            let ready = self.waiting.pop_front_if(|first| first.operation.is_some());
            if let Some(operation) = ready.and_then(|ready| ready.operation) {
                if self.filter.fits_outcome(operation.outcome()) {
                    return Ok(Some(operation));
                }
                continue;
            }
            if self.waiting.len() >= self.window {
                self.settle().await?;
                continue;
            }
            match self.commits.try_next().await? {
                Some(commit) => self.take(commit),
                None if self.waiting.is_empty() => return Ok(None),
                None => self.settle().await?,
            }
        }
    }

    fn take(&mut self, commit: Commit) {
        self.next = commit.header().seq.saturating_add(1);
        for entry in entries(commit) {
            if let Event::Intent(intent) = &entry.record.event {
                let behind = self.after.is_none_or(|after| after < Cursor::of(&entry));
                if !behind || !self.filter.fits_intent(&entry) {
                    continue;
                }
                let (index, customer) = (entry.index, intent.customer);
                self.waiting.push_back(Waiting { index, customer, operation: None });
            }
            self.pair(entry);
        }
    }

    fn pair(&mut self, entry: Entry) {
        if let Paired::Operation(operation) = self.pairing.push(entry) {
            self.place(*operation);
        }
    }

    fn place(&mut self, operation: Operation) {
        let index = operation.intent_entry().index;
        if let Ok(at) = self.waiting.binary_search_by_key(&index, |waiting| waiting.index) {
            self.waiting[at].operation = Some(operation);
        }
    }

    /// Looks for the outcomes that are missing, to the end of the log if it has to.
    async fn settle(&mut self) -> Result<()> {
        // An outcome names the customer of its intent, and so do headers of segments.
        let open = self.waiting.iter().filter(|waiting| waiting.operation.is_none());
        let customers = open.map(|waiting| waiting.customer).collect::<Option<BTreeSet<_>>>();
        let mut ahead = self.shard.commits(self.next..self.shard.end(), customers);
        while self.pairing.open() > 0 {
            let Some(commit) = ahead.try_next().await? else { break };
            let outcomes = entries(commit).filter(|entry| matches!(entry.record.event, Event::Outcome(_)));
            outcomes.for_each(|outcome| self.pair(outcome));
        }
        for open in std::mem::take(&mut self.pairing).finish() {
            self.place(open);
        }
        Ok(())
    }
}

fn out_of_time() -> Error {
    Error::new(ErrorKind::InvalidInput, "the time is not one that a log has")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use serde_json::json;

    use super::*;
    use crate::access::Access;
    use crate::audit::log::{Log, LogConfig};
    use crate::audit::operation::tests::{intent, outcome, paired};
    use crate::audit::signer::LocalSigner;
    use crate::id::StoreId;
    use crate::system::{SystemClock, SystemEntropy};

    fn id(byte: u8) -> RequestId {
        RequestId::from_bytes([byte; 16])
    }

    #[test]
    fn each_field_has_to_fit() {
        let (customer, blob) = (CustomerId::from_bytes([4; 16]), BlobId::from_bytes([5; 16]));
        let fields = json!({ "customer": customer, "blob": blob });
        let ended = paired(intent(id(1), &fields), Some(outcome(id(1), &json!({}))));
        let open = paired(intent(id(1), &fields), None);
        let time = ended.intent_entry().record.time;
        let later = time.saturating_add(std::time::Duration::from_micros(1));
        let all = Filter {
            customer: Some(customer),
            principal: Some("person:p-17".parse().unwrap()),
            blob: Some(blob),
            action: Some(Action::Open),
            outcome: Some(OutcomeFilter::Ended(OutcomeResult::Ok)),
            purpose: Some(Purpose::Treatment),
            from: Some(time),
            until: Some(later),
            request: Some(id(1)),
        };
        assert!(all.matches(&ended) && Filter::default().matches(&ended) && Filter::default().matches(&open));
        assert!(!all.matches(&open));
        let with = |outcome| Filter { outcome: Some(outcome), ..Filter::default() };
        assert!(with(OutcomeFilter::Open).matches(&open) && !with(OutcomeFilter::Open).matches(&ended));
        for one_off in [
            Filter { customer: Some(CustomerId::from_bytes([5; 16])), ..all.clone() },
            Filter { principal: Some("person:p-18".parse().unwrap()), ..all.clone() },
            Filter { blob: Some(BlobId::from_bytes([4; 16])), ..all.clone() },
            Filter { action: Some(Action::OpenRange), ..all.clone() },
            Filter { outcome: Some(OutcomeFilter::Ended(OutcomeResult::Denied)), ..all.clone() },
            Filter { purpose: Some(Purpose::Research), ..all.clone() },
            Filter { from: Some(later), ..all.clone() },
            Filter { until: Some(time), ..all.clone() },
            Filter { request: Some(id(2)), ..all.clone() },
        ] {
            assert!(!one_off.matches(&ended), "{one_off:?}");
        }
        let nobodys = paired(intent(id(1), &json!({})), None);
        assert!(!Filter { customer: Some(customer), ..Filter::default() }.matches(&nobodys));
    }

    #[test]
    fn a_cursor_has_one_text() {
        let time = Timestamp::from_micros(1_795_314_373_000_001).unwrap();
        let cursor = Cursor { time, shard: 0x1f, index: u64::MAX };
        let text = cursor.to_string();
        assert_eq!(text.parse(), Ok(cursor));
        assert!(text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{text}");
        let upper = text.to_uppercase();
        for bad in ["", "x", &text[1..], &format!("{text}0"), &upper, &text.replacen('0', "1", 1)] {
            assert_eq!(bad.parse::<Cursor>(), Err(ParseCursorError), "{bad}");
        }
        let beyond = base32(&[[1].as_slice(), &[0xff; 18]].concat());
        assert_eq!(beyond.parse::<Cursor>(), Err(ParseCursorError));
    }

    #[test]
    fn order_is_by_time_then_shard_then_leaf() {
        let at = |time, shard, index| Cursor { time: Timestamp::from_micros(time).unwrap(), shard, index };
        let sorted = [at(1, 9, 9), at(2, 0, 5), at(2, 0, 6), at(2, 1, 0), at(3, 0, 0)];
        assert!(sorted.is_sorted());
    }

    /// Of 40 operations, every third ends at the end of the log, and the first never.
    #[tokio::test]
    async fn a_small_window_gives_the_same_answer() {
        let storage: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let signer = Arc::new(LocalSigner::generate(&SystemEntropy).unwrap());
        let config = LogConfig::new(StoreId::from_bytes([1; 16]), signer);
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let log = Log::open(Arc::clone(&storage), config, clock, entropy).await.unwrap();
        let access = Access::new(Principal::Unix(0), Purpose::Operations);
        let mut late = Vec::new();
        for number in 0..40 {
            let intent = Intent::new(log.request_id().unwrap(), &access, Action::Stat);
            let (open, _) = log.begin(intent).await.unwrap();
            match number {
                0 => std::mem::forget(open),
                number if number % 3 == 0 => late.push(open),
                _ => open.finish(OutcomeResult::Ok, None).await.unwrap(),
            }
        }
        for open in late {
            open.finish(OutcomeResult::Denied, None).await.unwrap();
        }
        let limit = Duration::from_secs(60);
        let reader = LogReader::open(storage, StoreId::from_bytes([1; 16]), log.authority(), limit);
        let ask = async |window| {
            let asked = within(&reader, &Filter::default(), None, window);
            asked.try_collect::<Vec<_>>().await.unwrap()
        };
        let all = ask(WINDOW).await;
        assert_eq!(all.len(), 40);
        assert_eq!(all.iter().filter(|operation| operation.outcome().is_none()).count(), 1);
        for window in [1, 2, 7, 40] {
            assert!(ask(window).await == all, "{window}");
        }
    }
}
