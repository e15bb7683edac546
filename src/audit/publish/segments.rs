//! Segments: each day's commits as one object, or a few, that are kept when the
//! commits' own have aged out.
//!
//! Separate from the tiles, because it is done once a day and of whole commits.
//! How a day is cut follows from the commits alone, so that any number of nodes
//! may do it at once and make the same.
//!
//! A day is complete when there is a commit of a later one, as a commit's time
//! never goes back. In an idle shard someone has to append one: see
//! [`Publisher::needs_mark`]. Where a clock was ahead, the log's time stands still until all clocks
//! have caught up, and days are those of the records: commits age out by the storage's clock, and
//! must not wait for it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::{ObjectStore, PutMode};
use tokio::time::timeout;

use super::tiles::{read, unwritten};
use super::{Publisher, head_at, rewritten};
use crate::audit::Event;
use crate::audit::commit::{self, Commit, MAX_LEN};
use crate::audit::layout::{FIRST_SHARD, Object, SegmentName};
use crate::audit::segment::{Header, MAX_BODY, Segment};
use crate::error::{Error, ErrorKind, Result};
use crate::store::store_error;
use crate::time::Timestamp;

/// How old the mark of an idle shard gets before there is another one: far less than the 35
/// days after which commits may age out.
const IDLE_MARK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The bytes of a large object that are sent or read a second, at least.
const BYTES_PER_SECOND: u64 = 256 << 10;

/// The longest segment that is read back, in bytes: with a header as long as all
/// else.
pub(super) const MAX_OBJECT: u64 = 2 * (MAX_BODY + MAX_LEN as u64);

impl Publisher {
    /// Makes the segments of all days of a shard that are complete and have none,
    /// and returns them, oldest first. Each was read back and verified.
    ///
    /// Any number of nodes may do so at once. Until it has been done, the commits'
    /// own objects must be kept.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if a commit or
    /// a segment is not what was written, [`ErrorKind::AuditUnavailable`] if the
    /// storage does not answer, and those of
    /// [`LogSigner::sign`](crate::audit::signer::LogSigner::sign).
    ///
    /// # Cancel safety
    /// What was made stays; call it again for the rest.
    pub async fn segment_days(&self, shard: u16) -> Result<Vec<SegmentName>> {
        let (wal, end) = self.commits(shard).await?;
        let segments = wal.segments().await?;
        let begin = segments.last().map_or(0, |name| name.last.saturating_add(1));
        let mut made = Vec::new();
        let Some(newest) = end.checked_sub(1).filter(|newest| begin < *newest) else { return Ok(made) };
        let header = wal.header(newest).await?.ok_or_else(|| wal.missing(newest))?;
        let end = match header.is_ahead() {
            false => {
                let today = header.time.day();
                wal.first_where(begin, newest, |header| header.time.day() >= today).await?
            }
            // The log's time stands still until clocks have caught up. Records go on, nearly in order;
            // wherever it is found, the day of one commit is over where another's begins.
            true => {
                let today = header.last.day();
                wal.first_where(begin, newest, |header| header.is_ahead() && header.last.day() >= today)
                    .await?
            }
        };
        if begin == end {
            return Ok(made);
        }
        let head = head_at(&wal, begin).await?;
        if let Some(last) = segments.last() {
            // Whoever stored it may have stopped before it was read back. And the
            // commit before ours may still have an object of its own, and that be
            // another.
            let last = self.read_back(*last).await?;
            if (last.end, last.new) != (head.previous(), head.tree()) {
                return Err(rewritten());
            }
        }
        let mut part = Part::default();
        let mut walk = wal.walk_stored(head, end);
        while let Some((commit, stored, _)) = walk.try_next().await? {
            if part.last().is_some_and(|last| last.is_cut_before(commit.header())) {
                made.push(self.keep(std::mem::take(&mut part)).await?);
            }
            part.push(commit, &stored.bytes);
            if part.is_full() {
                made.push(self.keep(std::mem::take(&mut part)).await?);
            }
        }
        if part.last().is_some() {
            made.push(self.keep(part).await?);
        }
        Ok(made)
    }

    /// Whether the newest commit of a shard is of a day before `now`, so that its
    /// day is over and does not look complete. Then have the log append an
    /// [`Event::Alive`] to the shard, and the day can
    /// be kept.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if the newest commit is not what was written,
    /// [`ErrorKind::AuditUnavailable`] if the storage does not answer.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn needs_mark(&self, shard: u16, now: Timestamp) -> Result<bool> {
        let (wal, end) = self.commits(shard).await?;
        let Some(newest) = end.checked_sub(1) else { return Ok(false) };
        let header = wal.header(newest).await?.ok_or_else(|| wal.missing(newest))?;
        if header.time.day() > now.day() {
            // The log is ahead: its days are those of its records.
            return Ok(header.last.day() != now.day());
        }
        // The first shard has a commit each day, by which the log remembers the time.
        if shard == FIRST_SHARD || header.time.day() >= now.day() || wal.covered().await? < newest {
            return Ok(header.time.day() < now.day());
        }
        // One commit is in no segment. If it is a mark itself, the shard is idle, and needs
        // another one only so that the mark is in a segment before it ages out.
        if header.time.saturating_add(IDLE_MARK) <= now {
            return Ok(true);
        }
        let (commit, _) = wal.commit(newest).await?.ok_or_else(|| wal.missing(newest))?;
        let is_mark =
            |event: &Event| matches!(event, Event::Alive | Event::Claim | Event::Release | Event::Key(_));
        Ok(!commit.records().iter().all(|record| is_mark(&record.event)))
    }

    /// Stores a segment, unless it is there, and reads it back.
    async fn keep(&self, part: Part) -> Result<SegmentName> {
        let Part { commits, lengths, body } = part;
        let last = commits.last().expect("a part has a commit");
        let key = last.header().endorser(&self.authority)?;
        let header = Header::over(&commits, &body, lengths).expect("a part has a commit");
        drop(commits);
        let signer = self.signers_of(key)?;
        let signer = signer.first().expect("there is one of that key or a later");
        let signature = self.signed(signer, &header.message()).await?;
        let object = header.object(signature, &body);
        drop(body);
        let name = header.name();
        let size = u64::try_from(object.len()).expect("a length fits 64 bits");
        let limit = self.limit + Duration::from_secs(size / BYTES_PER_SECOND);
        let path = Object::Segment(name).path();
        let put = self.storage.put_opts(&path, object.into(), PutMode::Create.into());
        match timeout(limit, put).await {
            // If we stop here, the segment is there and nobody has read it back.
            // Whoever makes the next one does.
            Ok(Ok(_) | Err(object_store::Error::AlreadyExists { .. })) => {}
            Ok(Err(error)) => return Err(unwritten().with_source(store_error(error, "store a segment"))),
            Err(elapsed) => return Err(unwritten().with_source(elapsed)),
        }
        // Equal headers have equal commits under them.
        if self.read_back(name).await? == header {
            return Ok(name);
        }
        let sentence = "a segment of the audit log is not the one that its commits give";
        Err(Error::new(ErrorKind::Integrity, sentence))
    }

    /// The header of a segment, all of which was read and verified.
    async fn read_back(&self, name: SegmentName) -> Result<Header> {
        let path = Object::Segment(name).path();
        let found =
            read(&*self.storage, &path, read_limit(self.limit), MAX_OBJECT).await?.ok_or_else(unwritten)?;
        Ok(Segment::decode(&found, &self.authority)?.header().clone())
    }
}

/// How long the largest segment may take to be read, where a request may take `limit`.
pub(super) fn read_limit(limit: Duration) -> Duration {
    limit + Duration::from_secs(MAX_OBJECT / BYTES_PER_SECOND)
}

/// The commits of a segment that is being made.
#[derive(Default)]
struct Part {
    commits: Vec<Commit>,
    lengths: Vec<u64>,
    body: Vec<u8>,
}

impl Part {
    fn last(&self) -> Option<&commit::Header> {
        Some(self.commits.last()?.header())
    }

    fn push(&mut self, commit: Commit, bytes: &Bytes) {
        self.commits.push(commit);
        self.lengths.push(u64::try_from(bytes.len()).expect("a length fits 64 bits"));
        self.body.extend_from_slice(bytes);
    }

    fn is_full(&self) -> bool {
        u64::try_from(self.body.len()).is_ok_and(|length| length >= MAX_BODY)
    }
}
