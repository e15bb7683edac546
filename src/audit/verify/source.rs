//! The commits of one shard, in order, from `wal/` and from segments.
//!
//! Where a segment has commits, it is read in place of them, and those that are
//! there beside it are compared byte for byte. Commits are read some ahead and
//! decoded on other threads; the next segment is read while one is checked.

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::Context;
use super::finding::Problem;
use super::inventory::{ShardObjects, failed};
use crate::audit::authority::Authority;
use crate::audit::commit::{self, Commit};
use crate::audit::layout::{Object, SegmentName};
use crate::audit::segment;
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::system;

/// Objects that are read ahead.
pub(super) const READ_AHEAD: usize = 16;

/// Segments that are read ahead, the one being checked among them.
const SEGMENTS_AHEAD: usize = 2;

/// The largest segment that is read, in bytes: its commits, the last of which
/// may be as large as a commit can be, and its header.
pub(super) const MAX_SEGMENT: u64 = segment::MAX_BODY + (commit::MAX_LEN as u64) + (16 << 20);

/// How many numbers between two listed commits are looked for one by one.
const FEW: u64 = 64;

/// What was found at a path.
pub(super) enum Read {
    /// Nothing.
    Gone,
    /// More than belongs there, and it was not read.
    TooLarge,
    /// This.
    Bytes(Bytes),
}

/// Reads an object of at most `limit` bytes.
pub(super) async fn read(storage: &dyn ObjectStore, path: &Path, limit: u64) -> Result<Read> {
    let found = match storage.get(path).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(Read::Gone),
        Err(error) => return Err(failed(error)),
    };
    // The storage's word on the size is believed before it fills memory.
    if found.meta.size > limit {
        return Ok(Read::TooLarge);
    }
    match found.bytes().await {
        Ok(bytes) => Ok(Read::Bytes(bytes)),
        Err(object_store::Error::NotFound { .. }) => Ok(Read::Gone),
        Err(error) => Err(failed(error)),
    }
}

/// A commit that stands where it belongs, and its length in bytes.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) commit: Commit,
    pub(super) len: u64,
}

/// The next piece of a shard.
pub(super) enum Piece {
    /// These commits are to be read one by one.
    Commits(RangeInclusive<u64>),
    /// These came out of a segment, with their bytes.
    Segment(Vec<(Placed, Bytes)>),
}

/// The pieces of a shard in order, as they were listed.
pub(super) fn pieces<'a>(
    context: &'a Context,
    shard: u16,
    objects: &'a ShardObjects,
) -> BoxStream<'a, Result<Piece>> {
    let load = move |plan| async move {
        match plan {
            Plan::Commits(range) => Ok(Piece::Commits(range)),
            Plan::Segment(name) => segment(context, shard, name).await.map(Piece::Segment),
        }
    };
    stream::iter(plan(objects)).map(load).buffered(SEGMENTS_AHEAD).boxed()
}

#[derive(Debug, PartialEq)]
enum Plan {
    Commits(RangeInclusive<u64>),
    Segment(SegmentName),
}

/// Segments in order, and between them the commits that none has.
fn plan(objects: &ShardObjects) -> Vec<Plan> {
    let mut plan = Vec::new();
    let mut next = 0;
    // One that overlaps the one before is not read; that it is there is noticed
    // by its name.
    for name in &objects.segments {
        if name.first >= next && name.last >= name.first {
            if let Some(last) = name.first.checked_sub(1) {
                between(objects, next, last, &mut plan);
            }
            plan.push(Plan::Segment(*name));
            next = name.last.saturating_add(1);
        }
    }
    between(objects, next, u64::MAX, &mut plan);
    plan
}

/// The commits listed from `first` to `last`, and few that were not: they may
/// have been written while we listed.
fn between(objects: &ShardObjects, first: u64, last: u64, plan: &mut Vec<Plan>) {
    let mut previous: Option<u64> = None;
    for range in &objects.commits {
        let (mut begin, end) = ((*range.start()).max(first), (*range.end()).min(last));
        if begin > end {
            continue;
        }
        if let Some(previous) = previous
            && begin - previous <= FEW
        {
            begin = previous + 1;
        }
        plan.push(Plan::Commits(begin..=end));
        previous = Some(end);
    }
}

/// Reads commits one by one, some ahead, and decodes them. What is there and is
/// no commit of that place is named; `None` stands for it and for one that is
/// not there.
pub(super) fn commits<'a>(
    context: &'a Context,
    shard: u16,
    range: RangeInclusive<u64>,
) -> BoxStream<'a, Result<(u64, Found)>> {
    let fetch = move |seq| async move { Ok((seq, commit(context, shard, seq).await?)) };
    stream::iter(range).map(fetch).buffered(READ_AHEAD).boxed()
}

/// What is at the place of a commit.
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// Something else, which was named.
    Bad,
    /// The commit.
    Commit(Box<Placed>),
}

/// Reads and decodes one commit.
pub(super) async fn commit(context: &Context, shard: u16, seq: u64) -> Result<Found> {
    let path = Object::Commit { shard, seq }.path();
    let bytes = match read(&*context.storage, &path, commit::MAX_LEN as u64).await? {
        Read::Gone => return Ok(Found::Nothing),
        Read::TooLarge => {
            context
                .findings
                .wrong(&path, Problem::Unreadable("it is larger than a commit can be".to_owned()));
            return Ok(Found::Bad);
        }
        Read::Bytes(bytes) => bytes,
    };
    let store = context.store;
    match blocking(move || placed(&bytes, store, shard, seq)).await? {
        Ok(placed) => Ok(Found::Commit(Box::new(placed))),
        Err(problem) => {
            context.findings.wrong(&path, problem);
            Ok(Found::Bad)
        }
    }
}

/// Decodes a commit, and checks that it is the one that belongs here.
fn placed(bytes: &[u8], store: StoreId, shard: u16, seq: u64) -> Result<Placed, Problem> {
    let commit = Commit::decode(bytes).map_err(|error| Problem::unreadable(&error))?;
    let header = commit.header();
    if (header.store, header.shard, header.seq) != (store, shard, seq) {
        return Err(Problem::Misplaced);
    }
    Ok(Placed { commit, len: u64::try_from(bytes.len()).expect("a length fits 64 bits") })
}

/// Reads a segment, names what is wrong with it, and gives the commits in it.
async fn segment(context: &Context, shard: u16, name: SegmentName) -> Result<Vec<(Placed, Bytes)>> {
    let path = Object::Segment(name).path();
    let bytes = match read(&*context.storage, &path, MAX_SEGMENT).await? {
        Read::Gone => {
            context.findings.wrong(&path, Problem::Missing("it was listed"));
            return Ok(Vec::new());
        }
        Read::TooLarge => {
            context
                .findings
                .wrong(&path, Problem::Unreadable("it is larger than a segment can be".to_owned()));
            return Ok(Vec::new());
        }
        Read::Bytes(bytes) => bytes,
    };
    let (store, authority) = (context.store, context.authority.clone());
    let (commits, problems) = blocking(move || taken_apart(&bytes, store, shard, name, &authority)).await?;
    problems.into_iter().for_each(|problem| context.findings.wrong(&path, problem));
    Ok(commits)
}

type Parts = (Vec<(Placed, Bytes)>, Vec<Problem>);

/// The commits of a segment that are good, and what is wrong with it.
fn taken_apart(bytes: &Bytes, store: StoreId, shard: u16, name: SegmentName, keys: &Authority) -> Parts {
    let (header, at, key) = match segment::Header::signed(bytes, keys) {
        Ok(Some(found)) => found,
        Ok(None) => {
            return salvaged(
                bytes,
                store,
                name,
                Problem::Unreadable("it ends before its header does".to_owned()),
            );
        }
        Err(error) => return salvaged(bytes, store, name, Problem::unreadable(&error)),
    };
    if (header.store, header.shard, header.name()) != (store, shard, name) {
        return (Vec::new(), vec![Problem::Misplaced]);
    }
    let body = bytes.slice(at..);
    let (mut good, mut parts, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    let mut begin = 0usize;
    for (seq, length) in (header.first..=header.last).zip(&header.lengths) {
        let end = usize::try_from(*length).ok().and_then(|length| begin.checked_add(length));
        let Some(end) = end.filter(|end| *end <= body.len()) else {
            problems.push(Problem::Unreadable(format!("it ends before commit {seq} does")));
            break;
        };
        let part = body.slice(begin..end);
        begin = end;
        match placed(&part, store, shard, seq) {
            Ok(placed) => {
                good.push(placed.commit);
                parts.push(part);
            }
            Err(problem) => problems.push(Problem::InSegment { seq, sentence: problem.to_string() }),
        }
    }
    if problems.is_empty() {
        let again = segment::Header::over(&good, &body[..begin], header.lengths.clone());
        if begin != body.len() {
            problems.push(Problem::Unreadable("something stands behind its last commit".to_owned()));
        } else if again.as_ref() != Some(&header) {
            problems.push(Problem::Unreadable("its header is not that of its commits".to_owned()));
        } else if good.iter().any(|commit| commit.header().endorser(keys).is_ok_and(|other| other > key)) {
            problems.push(Problem::Unreadable(segment::AFTER.to_owned()));
        }
    }
    let with_length = |(commit, part): (Commit, Bytes)| {
        (Placed { commit, len: u64::try_from(part.len()).expect("a length fits 64 bits") }, part)
    };
    (good.into_iter().zip(parts).map(with_length).collect(), problems)
}

/// The commits of a segment whose header is lost: each is signed by itself.
fn salvaged(bytes: &Bytes, store: StoreId, name: SegmentName, problem: Problem) -> Parts {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let (_, second) = (ends.next(), ends.next());
    let mut rest = second.map_or(Bytes::new(), |at| bytes.slice(at + 1..));
    let mut found = Vec::new();
    for seq in name.first..=name.last {
        let Ok((_, behind)) = Commit::decode_first(&rest) else { break };
        let part = rest.slice(..rest.len() - behind.len());
        rest = rest.slice(part.len()..);
        match placed(&part, store, name.shard, seq) {
            Ok(placed) => found.push((placed, part)),
            Err(_) => break,
        }
    }
    (found, vec![problem])
}

/// Runs `work` on another thread.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let done = system::work(work).await;
    done.map_err(|error| Error::new(ErrorKind::Unavailable, "the program is ending").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    #[test]
    fn segments_stand_for_their_commits_and_few_holes_are_looked_into() {
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        let name = |first, last| SegmentName { shard: 0, first, last, from: at(0), until: at(1) };
        let objects = ShardObjects {
            commits: vec![2..=7, 9..=10, 200..=200],
            segments: [name(0, 3), name(2, 5), name(4, 5)].into(),
            ..ShardObjects::default()
        };
        let expected = [
            Plan::Segment(name(0, 3)),
            Plan::Segment(name(4, 5)),
            Plan::Commits(6..=7),
            Plan::Commits(8..=10),
            Plan::Commits(200..=200),
        ];
        assert_eq!(plan(&objects), expected);
    }
}
