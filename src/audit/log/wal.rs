//! One shard's commits on a storage: paths, reads, and the search for the end.
//!
//! Separate from the appending, so that a log can be read without a writer. The
//! storage may answer late or not at all: every request has a limit.
//!
//! A commit has an object of its own for some weeks, and after that it is in a
//! segment ([`archive`]). Readers do not see the difference. For those who look
//! for the end, a number that a segment covers is taken: where its object has aged
//! out, the storage would let it be created again.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use super::reader::LogReader;
use crate::audit::authority::Authority;
use crate::audit::chains::Chains;
use crate::audit::commit::{Commit, Header, MAX_LEN};
use crate::audit::head::Head;
use crate::audit::layout::{Object, commits_of};
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::merkle::{Frontier, TreeHead};
use crate::store::{is_too_large, store_error, stored_at};
use crate::time::Timestamp;
use crate::tlog::PublicKey;
use crate::tlog::checkpoint::SignedCheckpoint;

mod archive;
mod keys;
mod start;

use archive::{Archived, Cache};
pub(in crate::audit) use start::Start;

/// Existence probes at once when the end is searched for.
const PROBES: u64 = 16;

/// Commits fetched ahead when many are read.
const READ_AHEAD: usize = 32;

/// How much of a commit is read first when its header is wanted, in bytes.
const HEADER_GUESS: u64 = 16 << 10;

#[derive(Clone, Debug)]
pub(in crate::audit) struct Wal {
    pub(in crate::audit) storage: Arc<dyn ObjectStore>,
    pub(in crate::audit) store: StoreId,
    pub(in crate::audit) shard: u16,
    /// The log's keys.
    pub(in crate::audit) authority: Authority,
    /// For one request.
    pub(in crate::audit) limit: Duration,
    cache: Arc<Cache>,
}

/// A commit's bytes, and what the storage says they are.
#[derive(Clone, Debug)]
pub(in crate::audit) struct Stored {
    pub(in crate::audit) bytes: Bytes,
    pub(in crate::audit) mark: Mark,
}

/// By which a storage tells one content of an object from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::audit) struct Mark {
    pub(in crate::audit) size: u64,
    pub(in crate::audit) e_tag: Option<String>,
}

impl Archived {
    /// No tag: whoever compares has to read it.
    fn mark(&self) -> Mark {
        Mark { size: self.size, e_tag: None }
    }
}

impl From<Archived> for Stored {
    fn from(archived: Archived) -> Self {
        Self { mark: archived.mark(), bytes: archived.bytes }
    }
}

impl From<ObjectMeta> for Mark {
    fn from(meta: ObjectMeta) -> Self {
        Self { size: meta.size, e_tag: meta.e_tag }
    }
}

impl Wal {
    /// The commits of one shard; `limit` is for one request.
    pub(in crate::audit) fn new(
        storage: Arc<dyn ObjectStore>,
        store: StoreId,
        shard: u16,
        authority: impl Into<Authority>,
        limit: Duration,
    ) -> Self {
        Self { storage, store, shard, authority: authority.into(), limit, cache: Arc::default() }
    }

    pub(in crate::audit) fn path(&self, seq: u64) -> Path {
        Object::Commit { shard: self.shard, seq }.path()
    }

    /// The bytes of commit `seq`, `None` if there is none.
    pub(in crate::audit) async fn read(&self, seq: u64) -> Result<Option<Stored>> {
        if self.seems_aged(seq)
            && let Some(archived) = self.archived(seq, u64::MAX).await?
        {
            return Ok(Some(archived.into()));
        }
        match self.read_object(seq).await? {
            None => Ok(self.archived(seq, u64::MAX).await?.map(Stored::from)),
            stored => Ok(stored),
        }
    }

    /// The object of commit `seq`, `None` if there is none.
    async fn read_object(&self, seq: u64) -> Result<Option<Stored>> {
        let path = self.path(seq);
        let read = async {
            let got = self.storage.get(&path).await?;
            let mark = Mark::from(got.meta.clone());
            // The storage's word on the size is believed before it fills memory.
            if mark.size > MAX_LEN as u64 {
                return Ok(Err(mark));
            }
            Ok(Ok(Stored { bytes: got.bytes().await?, mark }))
        };
        match self.request(read).await? {
            None => Ok(None),
            Some(Ok(stored)) => Ok(Some(stored)),
            Some(Err(_)) => {
                Err(Error::new(ErrorKind::Integrity, format!("{} is too large for a commit", self.name(seq))))
            }
        }
    }

    /// What the storage says of the object of commit `seq`, `None` if there is
    /// none.
    pub(in crate::audit) async fn object_mark(&self, seq: u64) -> Result<Option<Mark>> {
        let path = self.path(seq);
        Ok(self.request(self.storage.head(&path)).await?.map(Mark::from))
    }

    /// When the object of commit `seq` was stored, as the storage says; `None` if there is none.
    pub(in crate::audit) async fn stored_at(&self, seq: u64) -> Result<Option<Timestamp>> {
        let path = self.path(seq);
        let meta = self.request(self.storage.head(&path)).await?;
        // A date that is no time is no sign of age.
        Ok(meta.map(|meta| stored_at(&meta).unwrap_or(Timestamp::MAX)))
    }

    /// What the storage says of commit `seq`, behind which another is being put.
    /// `None` if it is not there.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if the number behind it had aged out: then the
    /// other must not count, though the storage took it.
    pub(in crate::audit) async fn mark_before_next(&self, seq: u64) -> Result<Option<Mark>> {
        let mark = self.object_mark(seq).await?;
        if mark.is_some() {
            return Ok(mark);
        }
        if self.is_archived(seq.saturating_add(1)).await? {
            let sentence = format!(
                "a commit came too late: {} had aged out. Start this program again",
                self.name(seq.saturating_add(1))
            );
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        Ok(self.archived(seq, 1).await?.map(|archived| archived.mark()))
    }

    /// Commit `seq`, of this store and shard, `None` if there is none. That it
    /// follows from the one before is for the caller to check.
    pub(in crate::audit) async fn commit(&self, seq: u64) -> Result<Option<(Commit, Mark)>> {
        let Some(stored) = self.read(seq).await? else { return Ok(None) };
        Ok(Some((self.accept(seq, &stored.bytes).await?, stored.mark)))
    }

    /// As [`Wal::commit`], for a number that cannot have aged out, because the one
    /// before it was seen a short time ago. That there is none costs one request.
    pub(in crate::audit) async fn new_commit(&self, seq: u64) -> Result<Option<(Commit, Mark)>> {
        let Some(stored) = self.read_object(seq).await? else { return Ok(None) };
        Ok(Some((self.accept(seq, &stored.bytes).await?, stored.mark)))
    }

    /// The commit that `bytes` are, and before it is held against others: the log's keys up to
    /// the one that endorsed its writer.
    pub(in crate::audit) async fn accept(&self, seq: u64, bytes: &[u8]) -> Result<Commit> {
        let commit = self.decode(seq, bytes)?;
        let changed = commit.key_change().is_some_and(|change| self.authority.newest().0 < change.number);
        if changed || commit.header().endorser(&self.authority).is_err() {
            self.learn().await?;
        }
        Ok(commit)
    }

    pub(in crate::audit) fn decode(&self, seq: u64, bytes: &[u8]) -> Result<Commit> {
        let commit = Commit::decode(bytes).map_err(|error| self.at(seq, error))?;
        let header = commit.header();
        if (header.store, header.shard, header.seq) != (self.store, self.shard, seq) {
            return Err(self.misplaced(seq));
        }
        Ok(commit)
    }

    fn misplaced(&self, seq: u64) -> Error {
        let sentence = format!("{} belongs to another store or another place", self.name(seq));
        Error::new(ErrorKind::Integrity, sentence)
    }

    /// The head after `commit`, if it follows from `head`.
    pub(in crate::audit) fn follow(&self, head: &Head, commit: &Commit) -> Result<Head> {
        head.verify(commit).map_err(|error| self.at(commit.header().seq, error))
    }

    fn at(&self, seq: u64, error: Error) -> Error {
        let sentence = format!("{} cannot be accepted", self.name(seq));
        Error::new(error.kind(), sentence).with_source(error)
    }

    fn name(&self, seq: u64) -> String {
        format!("commit {seq} of shard {:04x} of the audit log", self.shard)
    }

    pub(in crate::audit) fn missing(&self, seq: u64) -> Error {
        Error::new(ErrorKind::Integrity, format!("{} was stored and is missing", self.name(seq)))
    }

    /// The head before commit `seq`, without the ends of customers' chains.
    pub(in crate::audit) async fn head_before(&self, seq: u64) -> Result<Head> {
        let Some(before) = seq.checked_sub(1) else { return Ok(self.empty()) };
        match self.commit(before).await? {
            Some((commit, _)) => self.head_after(&commit),
            None => {
                let base = self.reader().base(self.shard, seq).await?;
                Ok(base.ok_or_else(|| self.missing(before))?.head(&self.authority))
            }
        }
    }

    /// The same log, for those who only read.
    pub(in crate::audit) fn reader(&self) -> LogReader {
        LogReader::open(Arc::clone(&self.storage), self.store, self.authority.clone(), self.limit)
    }

    /// Another shard of the same log.
    pub(in crate::audit) fn of_shard(&self, shard: u16) -> Self {
        Self::new(Arc::clone(&self.storage), self.store, shard, &self.authority, self.limit)
    }

    /// The tree of the shard's published checkpoint, an empty one if there is none.
    async fn published(&self) -> Result<TreeHead> {
        let path = Object::Checkpoint { shard: self.shard }.path();
        let read = async { self.storage.get(&path).await?.bytes().await };
        let Some(bytes) = self.request(read).await? else { return Ok(Frontier::new().head()) };
        let checkpoint = SignedCheckpoint::parse(&bytes)?;
        let verify = || self.authority.verify(&checkpoint, (self.store, self.shard));
        if let Err(error) = verify()
            && !(self.learn().await? && verify().is_ok())
        {
            return Err(error.into());
        }
        Ok(*checkpoint.checkpoint().head())
    }

    /// The head before there is a commit.
    pub(in crate::audit) fn empty(&self) -> Head {
        Head::empty(self.store, self.shard, &self.authority)
    }

    /// The head after `commit`, on the word of its writer.
    pub(in crate::audit) fn head_after(&self, commit: &Commit) -> Result<Head> {
        Head::after(commit, &self.authority).map_err(|error| self.at(commit.header().seq, error))
    }

    /// The header of commit `seq`, on the word of its writer. Mostly only the
    /// beginning of the object is read.
    pub(in crate::audit) async fn header(&self, seq: u64) -> Result<Option<Header>> {
        let Some(bytes) = self.beginning(seq).await? else { return Ok(None) };
        let header = match Header::decode(&bytes).map_err(|error| self.at(seq, error))? {
            Some(header) => header,
            None => match self.commit(seq).await? {
                Some((commit, _)) => commit.header().clone(),
                None => return Err(self.missing(seq)),
            },
        };
        if (header.store, header.shard, header.seq) != (self.store, self.shard, seq) {
            return Err(self.misplaced(seq));
        }
        if header.endorser(&self.authority).is_err() {
            self.learn().await?;
            header.endorser(&self.authority).map_err(|error| self.at(seq, error))?;
        }
        Ok(Some(header))
    }

    /// The first [`HEADER_GUESS`] bytes of commit `seq`, if it has so many.
    async fn beginning(&self, seq: u64) -> Result<Option<Bytes>> {
        if !self.seems_aged(seq) {
            let path = self.path(seq);
            let options = GetOptions::new().with_range(Some(GetRange::Bounded(0..HEADER_GUESS)));
            let read = async { self.storage.get_opts(&path, options).await?.bytes().await };
            if let Some(bytes) = self.request(read).await? {
                return Ok(Some(bytes));
            }
        }
        match self.archived(seq, HEADER_GUESS).await? {
            None => Ok(self.read_object(seq).await?.map(|stored| stored.bytes)),
            Some(archived) => Ok(Some(archived.bytes)),
        }
    }

    /// The first of the commits `low` to `high` whose header is as `holds` says,
    /// `high` if none is; it must hold of all behind one of which it holds.
    pub(in crate::audit) async fn first_where(
        &self,
        mut low: u64,
        mut high: u64,
        holds: impl Fn(&Header) -> bool,
    ) -> Result<u64> {
        while low < high {
            let middle = low + (high - low) / 2;
            let header = self.header(middle).await?.ok_or_else(|| self.missing(middle))?;
            if holds(&header) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The ends of customers' chains after so many commits.
    pub(in crate::audit) async fn chains(&self, commits: u64) -> Result<Chains> {
        let listing = Chains::listed_by(commits);
        let mut lists = try_join_all(listing.iter().map(|seq| self.header(*seq))).await?;
        let mut lists: Vec<_> =
            lists.iter_mut().map(|found| found.take().map(|header| header.chains)).collect();
        if let Some(missing) = listing.iter().zip(&lists).rfind(|(_, list)| list.is_none()) {
            // The first commits were removed: a base has the ends of chains in their spans.
            let (reader, seq) = (self.reader(), *missing.0);
            let first = self.first().await?;
            let base = if first > seq { reader.base(self.shard, first).await? } else { None };
            let base = base.filter(|_| first <= commits).ok_or_else(|| self.missing(seq))?;
            let mut begin = 0;
            for (seq, list) in listing.iter().zip(&mut lists) {
                list.get_or_insert_with(|| base.ends_listed_by(begin..=*seq));
                begin = seq + 1;
            }
        }
        let lists: Vec<&[_]> = lists.iter().flatten().map(Vec::as_slice).collect();
        Ok(Chains::from_lists(commits, &lists).expect("there is a list for each commit that was asked for"))
    }

    /// The commits behind `head` up to `end`, each checked against the one
    /// before, with the head after it. All must exist; it ends with the first
    /// error.
    pub(in crate::audit) fn walk(
        &self,
        head: Head,
        end: u64,
    ) -> BoxStream<'static, Result<(Commit, Mark, Head)>> {
        self.walk_stored(head, end).map_ok(|(commit, stored, head)| (commit, stored.mark, head)).boxed()
    }

    /// The same, with the commits' bytes.
    pub(in crate::audit) fn walk_stored(
        &self,
        head: Head,
        end: u64,
    ) -> BoxStream<'static, Result<(Commit, Stored, Head)>> {
        let wal = self.clone();
        let fetched = stream::iter(head.next()..end).map(move |seq| {
            let wal = wal.clone();
            async move {
                let stored = wal.read(seq).await?.ok_or_else(|| wal.missing(seq))?;
                Ok::<_, Error>((wal.accept(seq, &stored.bytes).await?, stored))
            }
        });
        let wal = self.clone();
        let checked = stream::try_unfold((head, fetched.buffered(READ_AHEAD)), move |(head, mut rest)| {
            let wal = wal.clone();
            async move {
                let Some((commit, stored)) = rest.try_next().await? else { return Ok(None) };
                let head = wal.follow(&head, &commit)?;
                Ok(Some(((commit, stored, head.clone()), (head, rest))))
            }
        });
        checked.boxed()
    }

    /// The first free sequence number at or after `from`, below which all are
    /// taken: that a segment covers is taken too. Gallops from there, then bisects; both with several probes at
    /// once, so that ten million commits cost some ten round trips.
    pub(in crate::audit) async fn end(&self, from: u64) -> Result<u64> {
        let from = from.max(self.covered().await?);
        let mut low = from;
        let mut step = 1u64;
        let mut free = None;
        while free.is_none() && low < u64::MAX {
            let mut probes = Vec::new();
            for _ in 0..PROBES / 2 {
                probes.push(from.saturating_add(step - 1));
                step = step.saturating_mul(2);
            }
            (low, free) = self.narrow(low, free, &probes).await?;
        }
        while let Some(high) = free.filter(|free| low < *free) {
            let span = high - low;
            let count = span.min(PROBES);
            let probe =
                |number| low + u64::try_from(u128::from(span) * number / u128::from(count)).unwrap_or(0);
            let probes: Vec<u64> = (0..u128::from(count)).map(probe).collect();
            (low, free) = self.narrow(low, free, &probes).await?;
        }
        Ok(low)
    }

    /// The same, for a number behind which there are mostly few commits.
    pub(in crate::audit) async fn end_near(&self, from: u64) -> Result<u64> {
        let near = from..from.saturating_add(PROBES / 2);
        let taken = try_join_all(near.clone().map(|seq| self.object_mark(seq))).await?;
        match near.zip(taken).find(|(_, taken)| taken.is_none()) {
            // One that aged out has no object either.
            Some((seq, _)) if !self.is_archived(seq).await? => Ok(seq),
            _ => self.end(from).await,
        }
    }

    /// Given that all below `low` are taken and `free` was found free, the same
    /// with what `probes`, in rising order, add to it.
    async fn narrow(&self, low: u64, free: Option<u64>, probes: &[u64]) -> Result<(u64, Option<u64>)> {
        let taken = try_join_all(probes.iter().map(|seq| self.object_mark(*seq))).await?;
        let taken = || probes.iter().copied().zip(taken.iter().map(Option::is_some));
        let last = taken().rfind(|(_, taken)| *taken).map(|(seq, _)| seq);
        // Another writer may fill a free place while we probe behind it, but a
        // place before a taken one stays free only in a log with a hole.
        for (seq, _) in taken().filter(|(seq, taken)| !taken && Some(*seq) < last) {
            if self.object_mark(seq).await?.is_none() && !self.is_archived(seq).await? {
                return Err(self.missing(seq));
            }
        }
        let low = last.map_or(low, |last| low.max(last.saturating_add(1)));
        // A place found free may have been filled since: the end is where it was
        // at some moment of the search.
        let found = taken().find(|(seq, taken)| !taken && *seq >= low).map(|(seq, _)| seq);
        Ok((low, found.or(free).map(|free| free.max(low))))
    }

    /// How many commits there are, by listing them all and the segments. Anything
    /// else in the folder, and a number left out, is an error.
    pub(in crate::audit) async fn count(&self) -> Result<u64> {
        let mut covered = 0;
        for name in self.segments().await? {
            if name.first != covered {
                let sentence = format!("a segment of shard {:04x} is missing, or one too many", self.shard);
                return Err(Error::new(ErrorKind::Integrity, sentence));
            }
            covered = name.last.saturating_add(1);
        }
        let folder = commits_of(self.shard);
        let mut names = self.storage.list(Some(&folder));
        let (mut count, mut end) = (covered, covered);
        while let Some(Some(meta)) = self.request(names.try_next()).await? {
            match Object::at(&meta.location) {
                Some(Object::Commit { shard, seq }) if shard == self.shard => {
                    end = end.max(seq.saturating_add(1));
                    count += u64::from(seq >= covered);
                }
                _ => {
                    let sentence =
                        format!("an object beside the commits of shard {:04x} is none of them", self.shard);
                    return Err(Error::new(ErrorKind::Integrity, sentence));
                }
            }
        }
        if count == end {
            return Ok(count);
        }
        let sentence = format!("{} of {end} commits of shard {:04x} are missing", end - count, self.shard);
        Err(Error::new(ErrorKind::Integrity, sentence))
    }

    /// One request within the limit; `None` if the object does not exist.
    async fn request<T>(&self, request: impl Future<Output = object_store::Result<T>>) -> Result<Option<T>> {
        request_within(self.limit, request).await
    }
}

/// One request to the audit storage; `None` if the object does not exist.
pub(in crate::audit) async fn request_within<T>(
    limit: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<Option<T>> {
    let failed = || Error::new(ErrorKind::AuditUnavailable, "the audit storage could not be read");
    match tokio::time::timeout(limit, request).await {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
        // It answers, and what it has is none of ours: to ask again is of no use.
        Ok(Err(error)) if is_too_large(&error) => Err(store_error(error, "read the audit log")),
        Ok(Err(error)) => Err(failed().with_source(store_error(error, "reach the audit storage"))),
        Err(elapsed) => Err(failed().with_source(elapsed)),
    }
}

/// What a walk over a whole shard found: that all of it is in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// How many commits there are.
    pub commits: u64,
    /// How many records.
    pub records: u64,
    /// The head after the last commit.
    pub head: Head,
}

/// Reads every commit of a shard and checks all of it: that none is missing
/// and nothing else is there, that each has the one form, and that each
/// follows from the one before, with every record hashed and every root
/// computed again. Whoever can write to the storage can still have cut commits
/// off the end: compare the head with one that was kept elsewhere.
///
/// `authority` is the log's first key. Later ones are followed by their statements.
///
/// # Errors
/// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] with the first
/// commit that is not in order; [`ErrorKind::AuditUnavailable`] if the storage
/// cannot be read.
///
/// # Cancel safety
/// Nothing is written.
pub async fn verify_chain(
    storage: Arc<dyn ObjectStore>,
    store: StoreId,
    shard: u16,
    authority: PublicKey,
) -> Result<ChainReport> {
    let wal = Wal::new(storage, store, shard, authority, Duration::from_secs(60));
    let commits = wal.count().await?;
    let mut head = wal.empty();
    let mut walk = wal.walk(head.clone(), commits);
    while let Some((_, _, after)) = walk.try_next().await? {
        head = after;
    }
    Ok(ChainReport { commits, records: head.tree().size, head })
}

#[cfg(test)]
mod tests {
    use std::fmt;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

    use futures_util::stream;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, PutMultipartOptions, PutOptions,
        PutPayload, PutResult, Result as StoreResult,
    };

    use super::*;

    /// A storage that claims to hold the commits below a number, but for a hole.
    #[derive(Debug, Default)]
    struct Claims {
        end: AtomicU64,
        /// By how much the end moves with every request: other writers.
        growth: u64,
        hole: Option<u64>,
        requests: AtomicUsize,
    }

    impl fmt::Display for Claims {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Claims")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Claims {
        async fn get_opts(&self, path: &Path, _: GetOptions) -> StoreResult<GetResult> {
            self.requests.fetch_add(1, SeqCst);
            let seq = u64::from_str_radix(path.filename().unwrap(), 16).unwrap();
            if seq >= self.end.fetch_add(self.growth, SeqCst) || Some(seq) == self.hole {
                return Err(object_store::Error::NotFound { path: path.to_string(), source: "none".into() });
            }
            let stored = object_store::memory::InMemory::new();
            stored.put(path, PutPayload::new()).await?;
            stored.get(path).await
        }

        async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> StoreResult<PutResult> {
            panic!("nothing is written when the end is searched for")
        }

        async fn put_multipart_opts(
            &self,
            _: &Path,
            _: PutMultipartOptions,
        ) -> StoreResult<Box<dyn MultipartUpload>> {
            panic!("nothing is written when the end is searched for")
        }

        fn delete_stream(
            &self,
            _: BoxStream<'static, StoreResult<Path>>,
        ) -> BoxStream<'static, StoreResult<Path>> {
            stream::empty().boxed()
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            assert!(prefix.unwrap().as_ref().starts_with("segment/"), "ten million commits are not listed");
            stream::empty().boxed()
        }

        async fn list_with_delimiter(&self, _: Option<&Path>) -> StoreResult<ListResult> {
            panic!("ten million commits are not listed")
        }

        async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> StoreResult<()> {
            panic!("nothing is written when the end is searched for")
        }
    }

    fn claims(end: u64) -> Claims {
        Claims { end: end.into(), ..Claims::default() }
    }

    fn wal(storage: &Arc<Claims>) -> Wal {
        let storage: Arc<dyn ObjectStore> = storage.clone();
        let authority = PublicKey::from_bytes([2; 32]);
        Wal::new(storage, StoreId::from_bytes([1; 16]), 3, authority, Duration::from_secs(60))
    }

    #[tokio::test]
    async fn the_end_is_found_in_few_requests() {
        let around =
            [1, 7, 8, 12, 16, 20].into_iter().flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for end in (0..70).chain(around).chain([10_000_000, u64::from(u32::MAX), u64::MAX - 1, u64::MAX]) {
            let storage = Arc::new(claims(end));
            assert_eq!(wal(&storage).end(0).await.unwrap(), end);
            let requests = storage.requests.load(SeqCst);
            assert!(requests <= 128 || end > 10_000_000, "{requests} requests for {end}");
            assert!(requests <= 400, "{requests} requests for {end}");
            let from = end - end / 3;
            assert_eq!(wal(&storage).end(from).await.unwrap(), end);
        }
    }

    #[tokio::test]
    async fn the_end_of_a_growing_log_is_no_hole() {
        for growth in 1..4 {
            let storage = Arc::new(Claims { growth, ..claims(20) });
            let end = wal(&storage).end(0).await.unwrap();
            assert!(end >= 20 && end <= storage.end.load(SeqCst), "{end}");
        }
    }

    #[tokio::test]
    async fn a_hole_before_a_commit_that_is_there_is_noticed() {
        let storage = Arc::new(Claims { hole: Some(3), ..claims(20) });
        assert_eq!(wal(&storage).end(0).await.unwrap_err().kind(), ErrorKind::Integrity);
    }
}
