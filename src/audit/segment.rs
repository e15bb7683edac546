//! The segment: the commits of one shard and one UTC day, or a part of them, as
//! one object that is kept when the commits have aged out.
//!
//! JSON lines: the header, `{"signature":"…"}` by the log's key over it, and then
//! the commits byte for byte as they were stored, one after the other. So
//! whatever can be checked of commits can be checked of a segment. A day is cut
//! into segments where one would get longer than [`MAX_BODY`]; where that is
//! follows from the commits alone, so that two who cut it make the same.
//!
//! Separate from the publishing, and pure. Invariants: a [`Segment`] agrees with
//! its header, and its commits follow from each other.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, LogKeys};
use super::commit::{Commit, SignatureLine};
use super::head::Head;
use super::layout::SegmentName;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, StoreId};
use crate::merkle::{Hash, TreeHead};
use crate::time::{Day, Timestamp};
use crate::tlog::Signature;

/// What the header of a segment begins with.
pub const FORMAT: &str = "strongroom-segment-v1";

/// What is wrong with a segment that a key signed which was not in force at its end any longer.
pub(in crate::audit) const AFTER: &str = "it is signed by a key of the log that was not in force any longer";

/// At how many bytes of commits a segment ends: with the commit that reaches it.
pub const MAX_BODY: u64 = 32 << 20;

/// The first line of a segment. The order of the fields is the order in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    /// The store whose log this is.
    pub store: StoreId,
    /// The shard.
    pub shard: u16,
    /// The day of its commits, by their time.
    pub day: Day,
    /// The number of the first commit.
    pub first: u64,
    /// The number of the last commit.
    pub last: u64,
    /// SHA-256 of the commit before the first, zeros if there is none.
    pub previous: Hash,
    /// SHA-256 of the last commit.
    pub end: Hash,
    /// The tree before the first commit.
    pub old: TreeHead,
    /// The tree after the last.
    pub new: TreeHead,
    /// The earliest time in the records.
    pub from: Timestamp,
    /// The time of the last commit.
    pub until: Timestamp,
    /// Whom the records concern, in order.
    pub customers: Vec<CustomerId>,
    /// How long each commit is, in bytes.
    pub lengths: Vec<u64>,
    /// SHA-256 of all commits.
    pub body: Hash,
}

impl Header {
    /// The header over these commits, which are one day's and follow from each
    /// other, and the same bytes. `None` without a commit.
    #[must_use]
    pub fn over(commits: &[Commit], body: &[u8], lengths: Vec<u64>) -> Option<Self> {
        let (first, last) = (commits.first()?.header(), commits.last()?.header());
        let records = || commits.iter().flat_map(Commit::records);
        let customers: BTreeSet<_> = records().filter_map(|record| record.event.customer()).collect();
        Some(Self {
            format: FORMAT.to_owned(),
            store: first.store,
            shard: first.shard,
            day: last.time.day(),
            first: first.seq,
            last: last.seq,
            previous: first.previous,
            end: commits.last()?.hash(),
            old: first.old,
            new: last.new,
            from: commits.iter().map(|commit| commit.header().first).min()?,
            until: last.time,
            customers: customers.into_iter().collect(),
            lengths,
            body: Hash::of(body),
        })
    }

    /// The path that a segment with this header has.
    #[must_use]
    pub fn name(&self) -> SegmentName {
        let Self { shard, first, last, from, until, .. } = *self;
        SegmentName { shard, first, last, from, until }
    }

    /// What the log's key signs.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        message(&line(self))
    }

    /// The object: header, signature and commits.
    #[must_use]
    pub fn object(&self, signature: Signature, body: &[u8]) -> Bytes {
        let mut bytes = line(self);
        bytes.push(b'\n');
        bytes.extend_from_slice(&line(&SignatureLine { signature }));
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        bytes.into()
    }

    /// Reads the first two lines of a segment, and checks that the log's key
    /// signed them. Gives back how long they are, in bytes; `None` if `bytes` end
    /// before they do.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedFormat`] for a later format,
    /// [`ErrorKind::Integrity`] for anything else that is no header of a segment.
    pub fn decode(bytes: &[u8], authority: &impl LogKeys) -> Result<Option<(Self, usize)>> {
        Ok(Self::signed(bytes, &authority.authority())?.map(|(header, length, _)| (header, length)))
    }

    /// The same, and the number of the key that signed it.
    pub(in crate::audit) fn signed(
        bytes: &[u8],
        authority: &Authority,
    ) -> Result<Option<(Self, usize, u32)>> {
        let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
        let (Some(first), Some(second)) = (ends.next(), ends.next()) else { return Ok(None) };
        let text = &bytes[..first];
        check_format(text)?;
        let header: Self = strict(text).ok_or_else(|| damaged("its header is not in the one form"))?;
        let SignatureLine { signature } =
            strict(&bytes[first + 1..second]).ok_or_else(|| damaged("its second line is no signature"))?;
        let key = authority.signer_of(&message(text), &signature);
        let key = key.ok_or_else(|| damaged("the log's key did not sign it"))?;
        let commits = header.last.checked_sub(header.first).and_then(|more| more.checked_add(1));
        if commits != u64::try_from(header.lengths.len()).ok() {
            return Err(damaged("its header contradicts itself"));
        }
        Ok(Some((header, second + 1, key)))
    }
}

/// A segment, decoded, and in agreement with itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    header: Header,
    commits: Vec<(Commit, Bytes)>,
}

impl Segment {
    /// Reads a segment, strictly, and checks that each commit follows from the
    /// one before.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn decode(bytes: &Bytes, authority: &impl LogKeys) -> Result<Self> {
        let authority = authority.authority();
        let (header, length, key) =
            Header::signed(bytes, &authority)?.ok_or_else(|| damaged("it ends before its header does"))?;
        let body = bytes.slice(length..);
        let mut commits = Vec::with_capacity(header.lengths.len());
        let mut at = 0usize;
        let mut head: Option<Head> = None;
        for length in &header.lengths {
            let end = usize::try_from(*length).ok().and_then(|length| at.checked_add(length));
            let end = end.filter(|end| *end <= body.len()).ok_or_else(|| damaged("it ends too early"))?;
            let bytes = body.slice(at..end);
            let commit = Commit::decode(&bytes)?;
            head = Some(match &head {
                None => Head::after(&commit, &authority)?,
                Some(head) => head.verify(&commit)?,
            });
            commits.push((commit, bytes));
            at = end;
        }
        if head.as_ref().is_some_and(|head| head.key() > key) {
            return Err(damaged(AFTER));
        }
        let decoded: Vec<Commit> = commits.iter().map(|(commit, _)| commit.clone()).collect();
        let again = Header::over(&decoded, &body[..at], header.lengths.clone());
        if at != body.len() || again.as_ref() != Some(&header) {
            return Err(damaged("its header is not that of its commits"));
        }
        Ok(Self { header, commits })
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The commits with their bytes, in order.
    #[must_use]
    pub fn commits(&self) -> &[(Commit, Bytes)] {
        &self.commits
    }

    /// The commits, taken out.
    #[must_use]
    pub fn into_commits(self) -> Vec<(Commit, Bytes)> {
        self.commits
    }
}

fn message(line: &[u8]) -> Vec<u8> {
    [b"strongroom-segment-v1 header\n".as_slice(), line].concat()
}

fn line<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("headers have string keys only")
}

/// A value whose encoding is `line`, and no other.
fn strict<'a, T: Serialize + Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    let value = serde_json::from_slice(text).ok()?;
    (line(&value) == text).then_some(value)
}

fn check_format(text: &[u8]) -> Result<()> {
    // The one field that all formats share.
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let format =
        serde_json::from_slice::<Format>(text).map_err(|_| damaged("its first line is no header"))?;
    let version = format.format.strip_prefix("strongroom-segment-v").and_then(|v| v.parse::<u32>().ok());
    match version {
        _ if format.format == FORMAT => Ok(()),
        Some(2..) => {
            let message = "a segment of the audit log is of a later format; use a newer Strongroom";
            Err(Error::new(ErrorKind::UnsupportedFormat, message))
        }
        _ => Err(damaged("its first line is no header")),
    }
}

fn damaged(what: &'static str) -> Error {
    let cause = Error::new(ErrorKind::Integrity, what);
    Error::new(ErrorKind::Integrity, "a segment of the audit log is damaged or altered").with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::commit::tests::{authority, chain, key};

    fn made(counts: &[u8]) -> (Header, Bytes) {
        let bytes = chain(counts);
        let commits: Vec<Commit> = bytes.iter().map(|bytes| Commit::decode(bytes).unwrap()).collect();
        let lengths = bytes.iter().map(|bytes| bytes.len() as u64).collect();
        let body = bytes.concat();
        let header = Header::over(&commits, &body, lengths).unwrap();
        let signature = key(9).sign(&header.message());
        let object = header.object(signature, &body);
        (header, object)
    }

    #[test]
    fn a_segment_holds_its_commits_byte_for_byte() {
        let (header, object) = made(&[2, 1, 3]);
        let segment = Segment::decode(&object, &authority()).unwrap();
        assert_eq!(segment.header(), &header);
        let stored: Vec<Bytes> = segment.into_commits().into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(stored, chain(&[2, 1, 3]));
        assert_eq!((header.first, header.last, header.new.size), (0, 2, 6));
        assert_eq!(header.customers.len(), 2);
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let (_, object) = made(&[1, 1]);
        for at in 0..object.len() {
            let mut bytes = object.to_vec();
            bytes[at] ^= 1;
            assert!(Segment::decode(&bytes.into(), &authority()).is_err(), "{at}");
            assert!(Segment::decode(&object.slice(..at), &authority()).is_err(), "{at}");
        }
        assert!(Segment::decode(&[&object[..], b"\n"].concat().into(), &authority()).is_err());
        assert!(Segment::decode(&object, &key(8).public()).is_err());
    }
}
