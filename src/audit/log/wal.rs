//! One shard's commits on a storage: paths, reads, and the search for the end.
//!
//! Separate from the appending, so that a log can be read without a writer. The
//! storage may answer late or not at all: every request has a limit.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};

use crate::audit::chains::Chains;
use crate::audit::commit::{Commit, Header, MAX_LEN};
use crate::audit::head::Head;
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::store::store_error;
use crate::tlog::PublicKey;

/// Existence probes at once when the end is searched for.
const PROBES: u64 = 16;

/// Commits fetched ahead when many are read.
const READ_AHEAD: usize = 16;

/// How much of a commit is read first when its header is wanted, in bytes.
const HEADER_GUESS: u64 = 16 << 10;

#[derive(Clone, Debug)]
pub(super) struct Wal {
    pub(super) storage: Arc<dyn ObjectStore>,
    pub(super) store: StoreId,
    pub(super) shard: u16,
    /// The log's key.
    pub(super) authority: PublicKey,
    /// For one request.
    pub(super) limit: Duration,
}

/// A commit's bytes, and what the storage says they are.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) mark: Mark,
}

/// By which a storage tells one content of an object from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) size: u64,
    pub(super) e_tag: Option<String>,
}

impl From<ObjectMeta> for Mark {
    fn from(meta: ObjectMeta) -> Self {
        Self { size: meta.size, e_tag: meta.e_tag }
    }
}

impl Wal {
    pub(super) fn folder(&self) -> Path {
        Path::from(format!("wal/{:04x}", self.shard))
    }

    pub(super) fn path(&self, seq: u64) -> Path {
        Path::from(format!("wal/{:04x}/{seq:016x}", self.shard))
    }

    /// The object of commit `seq`, `None` if there is none.
    pub(super) async fn read(&self, seq: u64) -> Result<Option<Stored>> {
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

    /// What the storage says of commit `seq`, `None` if there is none.
    pub(super) async fn mark(&self, seq: u64) -> Result<Option<Mark>> {
        let path = self.path(seq);
        Ok(self.request(self.storage.head(&path)).await?.map(Mark::from))
    }

    /// Commit `seq`, of this store and shard, `None` if there is none. That it
    /// follows from the one before is for the caller to check.
    pub(super) async fn commit(&self, seq: u64) -> Result<Option<(Commit, Mark)>> {
        let Some(stored) = self.read(seq).await? else { return Ok(None) };
        Ok(Some((self.decode(seq, &stored.bytes)?, stored.mark)))
    }

    pub(super) fn decode(&self, seq: u64, bytes: &[u8]) -> Result<Commit> {
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
    pub(super) fn follow(&self, head: &Head, commit: &Commit) -> Result<Head> {
        head.verify(commit).map_err(|error| self.at(commit.header().seq, error))
    }

    fn at(&self, seq: u64, error: Error) -> Error {
        let sentence = format!("{} cannot be accepted", self.name(seq));
        Error::new(error.kind(), sentence).with_source(error)
    }

    fn name(&self, seq: u64) -> String {
        format!("commit {seq} of shard {:04x} of the audit log", self.shard)
    }

    pub(super) fn missing(&self, seq: u64) -> Error {
        Error::new(ErrorKind::Integrity, format!("{} was stored and is missing", self.name(seq)))
    }

    /// The head before commit `seq`, without the ends of customers' chains.
    pub(super) async fn head_before(&self, seq: u64) -> Result<Head> {
        let Some(before) = seq.checked_sub(1) else { return Ok(self.empty()) };
        let (commit, _) = self.commit(before).await?.ok_or_else(|| self.missing(before))?;
        self.head_after(&commit)
    }

    /// Another shard of the same log.
    pub(super) fn of_shard(&self, shard: u16) -> Self {
        Self { shard, ..self.clone() }
    }

    /// The head before there is a commit.
    pub(super) fn empty(&self) -> Head {
        Head::empty(self.store, self.shard, self.authority)
    }

    /// The head after `commit`, on the word of its writer.
    pub(super) fn head_after(&self, commit: &Commit) -> Result<Head> {
        Head::after(commit, self.authority).map_err(|error| self.at(commit.header().seq, error))
    }

    /// The header of commit `seq`, on the word of its writer. Mostly only the
    /// beginning of the object is read.
    pub(super) async fn header(&self, seq: u64) -> Result<Option<Header>> {
        let path = self.path(seq);
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(0..HEADER_GUESS)));
        let read = async { self.storage.get_opts(&path, options).await?.bytes().await };
        let Some(bytes) = self.request(read).await? else { return Ok(None) };
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
        header.verify_endorsement(&self.authority).map_err(|error| self.at(seq, error))?;
        Ok(Some(header))
    }

    /// The ends of customers' chains after so many commits.
    pub(super) async fn chains(&self, commits: u64) -> Result<Chains> {
        let read = Chains::listed_by(commits).into_iter().map(|seq| async move {
            Ok::<_, Error>(self.header(seq).await?.ok_or_else(|| self.missing(seq))?.chains)
        });
        let lists = try_join_all(read).await?;
        let lists: Vec<&[_]> = lists.iter().map(Vec::as_slice).collect();
        Ok(Chains::from_lists(commits, &lists).expect("there is a list for each commit that was asked for"))
    }

    /// The commits behind `head` up to `end`, each checked against the one
    /// before, with the head after it. All must exist; it ends with the first
    /// error.
    pub(super) fn walk(&self, head: Head, end: u64) -> BoxStream<'static, Result<(Commit, Mark, Head)>> {
        let wal = self.clone();
        let fetched = stream::iter(head.next()..end).map(move |seq| {
            let wal = wal.clone();
            async move { wal.commit(seq).await?.ok_or_else(|| wal.missing(seq)) }
        });
        let wal = self.clone();
        let checked = stream::try_unfold((head, fetched.buffered(READ_AHEAD)), move |(head, mut rest)| {
            let wal = wal.clone();
            async move {
                let Some((commit, mark)) = rest.try_next().await? else { return Ok(None) };
                let head = wal.follow(&head, &commit)?;
                Ok(Some(((commit, mark, head.clone()), (head, rest))))
            }
        });
        checked.boxed()
    }

    /// The first free sequence number at or after `from`, below which all are
    /// taken. Gallops from there, then bisects; both with several probes at
    /// once, so that ten million commits cost some ten round trips.
    pub(super) async fn end(&self, from: u64) -> Result<u64> {
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

    /// Given that all below `low` are taken and `free` was found free, the same
    /// with what `probes`, in rising order, add to it.
    async fn narrow(&self, low: u64, free: Option<u64>, probes: &[u64]) -> Result<(u64, Option<u64>)> {
        let taken = try_join_all(probes.iter().map(|seq| self.mark(*seq))).await?;
        let taken = || probes.iter().copied().zip(taken.iter().map(Option::is_some));
        let last = taken().rfind(|(_, taken)| *taken).map(|(seq, _)| seq);
        // Another writer may fill a free place while we probe behind it, but a
        // place before a taken one stays free only in a log with a hole.
        for (seq, _) in taken().filter(|(seq, taken)| !taken && Some(*seq) < last) {
            if self.mark(seq).await?.is_none() {
                return Err(self.missing(seq));
            }
        }
        let low = last.map_or(low, |last| low.max(last.saturating_add(1)));
        // A place found free may have been filled since: the end is where it was
        // at some moment of the search.
        let found = taken().find(|(seq, taken)| !taken && *seq >= low).map(|(seq, _)| seq);
        Ok((low, found.or(free).map(|free| free.max(low))))
    }

    /// How many commits there are, by listing them all. Anything else in the
    /// folder, and a number left out, is an error.
    pub(super) async fn count(&self) -> Result<u64> {
        let folder = self.folder();
        let mut names = self.storage.list(Some(&folder));
        let (mut count, mut end) = (0u64, 0u64);
        while let Some(Some(meta)) = self.request(names.try_next()).await? {
            let name = meta.location.filename().unwrap_or_default();
            match u64::from_str_radix(name, 16) {
                Ok(seq) if meta.location == self.path(seq) => {
                    (count, end) = (count + 1, end.max(seq.saturating_add(1)))
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
pub(super) async fn request_within<T>(
    limit: Duration,
    request: impl Future<Output = object_store::Result<T>>,
) -> Result<Option<T>> {
    let failed = || Error::new(ErrorKind::AuditUnavailable, "the audit storage could not be read");
    match tokio::time::timeout(limit, request).await {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(object_store::Error::NotFound { .. })) => Ok(None),
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
    let wal = Wal { storage, store, shard, authority, limit: Duration::from_secs(60) };
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

        fn list(&self, _: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            panic!("ten million commits are not listed")
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
        Wal {
            storage,
            store: StoreId::from_bytes([1; 16]),
            shard: 3,
            authority,
            limit: Duration::from_secs(60),
        }
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
