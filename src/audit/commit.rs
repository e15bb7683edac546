//! The commit: one object of the audit log, with the records that became
//! durable together and the tree head they lead to.
//!
//! Stored at `wal/<shard, 4 hex digits>/<sequence number, 16 hex digits>`, as
//! JSON lines, each ended by one line feed. The first is the header; then comes
//! one [`Record`] a line, `nonce` first; the last is `{"sha256":"…"}`, the hash of
//! all lines above it, so that damage to the newest commit shows although no
//! other follows it. What the tree holds of a record is salted by its nonce:
//! leaf data = SHA-256(line without its line feed), leaf hash = SHA-256(0x00 ‖
//! leaf data), RFC 6962 s2.1.
//!
//! A commit says where it starts (`previous`, the SHA-256 of the object before
//! it, and `old`, the tree head before it) and where it ends (`new`, and
//! `frontier`, the right edge of that tree, largest subtree first). So the
//! newest commit is all that a writer has to read, and [`Head::verify`] checks
//! a commit against nothing but the one before it.
//!
//! Separate from the log, and pure, so that a log can be verified from a copy.
//!
//! Invariants: a value has one encoding, and the decoder takes no other; a
//! [`Commit`] agrees with itself (count, times, frontier and new head).
//!
//! Whoever holds the storage may give us any bytes. What it cannot do is give
//! us a changed commit that the next one still follows from.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error as ThisError;

use super::Record;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{StoreId, WriterId};
use crate::merkle::{Frontier, HASH_LEN, Hash, TreeHead, leaf_hash};
use crate::time::Timestamp;

/// What the header of a commit begins with.
pub const FORMAT: &str = "strongroom-commit-v1";

/// The largest commit that is read, in bytes.
pub const MAX_LEN: usize = 16 << 20;

/// The length of the last line, in bytes.
const END_LEN: usize = "{\"sha256\":\"\"}\n".len() + 2 * HASH_LEN;

/// The first line of a commit. The order of the fields is the order in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    /// The store whose log this is.
    pub store: StoreId,
    /// The shard of the log.
    pub shard: u16,
    /// The number of the commit in its shard, from 0.
    pub seq: u64,
    /// The running program that made it.
    pub writer: WriterId,
    /// When that was.
    pub time: Timestamp,
    /// SHA-256 of the object before it, zeros in the first.
    pub previous: Hash,
    /// The tree before it.
    pub old: TreeHead,
    /// The tree after it.
    pub new: TreeHead,
    /// The right edge of the tree after it, largest subtree first.
    pub frontier: Vec<Hash>,
    /// How many records it holds, at least 1.
    pub count: u64,
    /// The earliest time in its records.
    pub first: Timestamp,
    /// The latest time in its records.
    pub last: Timestamp,
}

/// One commit, decoded, and in agreement with itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    header: Header,
    records: Vec<Record>,
    leaves: Vec<Hash>,
    frontier: Frontier,
    hash: Hash,
}

impl Commit {
    /// Reads a commit, strictly: encoding the result gives `bytes` again.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedFormat`] for a later format,
    /// [`ErrorKind::Integrity`] for anything else that is not a commit.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(decode(bytes)?)
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The records, in the order of the tree's leaves.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records, taken out.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// The leaf hashes of the records.
    #[must_use]
    pub fn leaves(&self) -> &[Hash] {
        &self.leaves
    }

    /// SHA-256 of the stored object.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Where the log stands after this commit, if it is part of the log.
    #[must_use]
    pub fn head(&self) -> Head {
        Head {
            store: self.header.store,
            shard: self.header.shard,
            next: self.header.seq.saturating_add(1),
            previous: self.hash,
            frontier: self.frontier.clone(),
        }
    }
}

/// Where a shard of a log stands: what the next commit has to follow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    store: StoreId,
    shard: u16,
    next: u64,
    previous: Hash,
    frontier: Frontier,
}

impl Head {
    /// The head of a log without a commit.
    #[must_use]
    pub fn empty(store: StoreId, shard: u16) -> Self {
        Self { store, shard, next: 0, previous: Hash::ZERO, frontier: Frontier::new() }
    }

    /// The store whose log this is.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The number of the next commit, which is how many there are.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// SHA-256 of the last commit, zeros if there is none.
    #[must_use]
    pub fn previous(&self) -> Hash {
        self.previous
    }

    /// Size and root of the tree.
    #[must_use]
    pub fn tree(&self) -> TreeHead {
        self.frontier.head()
    }

    /// The right edge of the tree.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Checks that `commit` is what comes next, its records and tree head
    /// included, and gives the head after it.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it is not.
    pub fn verify(&self, commit: &Commit) -> Result<Head> {
        let header = &commit.header;
        let same = |same: bool, what| if same { Ok(()) } else { Err(Fault::Successor(what)) };
        same(header.store == self.store, "store")?;
        same(header.shard == self.shard, "shard")?;
        same(header.seq == self.next, "sequence number")?;
        same(header.previous == self.previous, "hash of the commit before it")?;
        same(header.old == self.tree(), "old tree head")?;
        let mut frontier = self.frontier.clone();
        commit.leaves.iter().for_each(|leaf| frontier.push(*leaf));
        same(frontier == commit.frontier, "new tree head")?;
        Ok(commit.head())
    }

    /// The bytes of the commit that puts `lines` behind this head, and the head
    /// after it.
    ///
    /// # Panics
    /// Without lines: a commit holds at least one record.
    pub(crate) fn extend<'a>(
        &self,
        writer: WriterId,
        time: Timestamp,
        lines: impl Iterator<Item = &'a Line> + Clone,
    ) -> (Bytes, Head) {
        let times = || lines.clone().map(|line| line.time);
        let mut frontier = self.frontier.clone();
        lines.clone().for_each(|line| frontier.push(line.leaf));
        let header = Header {
            format: FORMAT.to_owned(),
            store: self.store,
            shard: self.shard,
            seq: self.next,
            writer,
            time,
            previous: self.previous,
            old: self.tree(),
            new: frontier.head(),
            frontier: frontier.edge().to_vec(),
            count: frontier.size() - self.frontier.size(),
            first: times().min().expect("a commit holds at least one record"),
            last: times().max().expect("a commit holds at least one record"),
        };
        let mut bytes = json_line(&header);
        bytes.reserve(lines.clone().map(|line| line.text.len()).sum::<usize>() + END_LEN);
        lines.for_each(|line| bytes.extend_from_slice(&line.text));
        let hashed = Sha256::new().chain_update(&bytes);
        let end = json_line(&End { sha256: digest(hashed.clone()) });
        bytes.extend_from_slice(&end);
        let previous = digest(hashed.chain_update(&end));
        let head = Head { next: self.next + 1, previous, frontier, ..*self };
        (bytes.into(), head)
    }
}

/// The last line of a commit.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// SHA-256 of the lines above, line feeds included.
    sha256: Hash,
}

fn digest(hashed: Sha256) -> Hash {
    Hash::from_bytes(hashed.finalize().into())
}

/// A record as the line of a commit, with its leaf hash: what can be made
/// before it is known which commit the record will be in.
#[derive(Debug)]
pub(crate) struct Line {
    text: Vec<u8>,
    leaf: Hash,
    time: Timestamp,
}

impl Line {
    pub(crate) fn new(record: &Record) -> Self {
        let text = json_line(record);
        let leaf = leaf_of_line(&text[..text.len() - 1]);
        Self { text, leaf, time: record.time }
    }

    /// Its length in a commit, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.text.len()
    }
}

/// The leaf hash of a record, from its line without the line feed.
#[must_use]
pub fn leaf_of_line(line: &[u8]) -> Hash {
    leaf_hash(Hash::of(line).as_bytes())
}

fn json_line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    serde_json::to_writer(&mut line, value).expect("headers and records have string keys only");
    line.push(b'\n');
    line
}

/// Why bytes are not a commit, or a commit is not the next one. Nothing of the
/// bytes is repeated.
#[derive(Debug, ThisError)]
enum Fault {
    #[error("it is larger than a commit can be")]
    TooLarge,
    #[error("it does not end as a commit does")]
    Truncated,
    #[error("its bytes are not those that its last line was made for")]
    Damaged,
    #[error("its format is newer than this program")]
    Later,
    #[error("line {0} is not in the one form that is written")]
    Line(usize),
    #[error("its header contradicts itself or its records: {0}")]
    Header(&'static str),
    #[error("it does not follow from the commit before it: {0}")]
    Successor(&'static str),
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        let (kind, sentence) = match fault {
            Fault::Later => (ErrorKind::UnsupportedFormat, "a commit of the audit log cannot be read"),
            Fault::Successor(_) => (ErrorKind::Integrity, "a commit of the audit log is out of place"),
            _ => (ErrorKind::Integrity, "a commit of the audit log is damaged or altered"),
        };
        Self::new(kind, sentence).with_source(fault)
    }
}

fn decode(bytes: &[u8]) -> Result<Commit, Fault> {
    if bytes.len() > MAX_LEN {
        return Err(Fault::TooLarge);
    }
    let (text, end) = bytes.split_at_checked(bytes.len().wrapping_sub(END_LEN)).ok_or(Fault::Truncated)?;
    let text = text.strip_suffix(b"\n").ok_or(Fault::Truncated)?;
    let mut lines = text.split(|byte| *byte == b'\n');
    // The format first: what a later one ends with is its own business.
    let header = decode_header(lines.next().unwrap_or_default())?;
    let hashed = Sha256::new().chain_update(text).chain_update(b"\n");
    let mut again = Vec::with_capacity(512);
    let stated: Option<End> = end.strip_suffix(b"\n").and_then(|end| decode_line(end, &mut again));
    if stated.ok_or(Fault::Truncated)?.sha256 != digest(hashed.clone()) {
        return Err(Fault::Damaged);
    }
    let mut records = Vec::new();
    let mut leaves = Vec::new();
    for (number, line) in (2..).zip(lines) {
        records.push(decode_line::<Record>(line, &mut again).ok_or(Fault::Line(number))?);
        leaves.push(leaf_of_line(line));
    }
    let frontier = check_header(&header, &records)?;
    Ok(Commit { header, records, leaves, frontier, hash: digest(hashed.chain_update(end)) })
}

/// A value whose encoding is `line`, and no other.
fn decode_line<'a, T: Serialize + Deserialize<'a>>(line: &'a [u8], again: &mut Vec<u8>) -> Option<T> {
    let value = serde_json::from_slice(line).ok()?;
    again.clear();
    serde_json::to_writer(&mut *again, &value).ok()?;
    (again == line).then_some(value)
}

fn decode_header(line: &[u8]) -> Result<Header, Fault> {
    // The one field that all formats share.
    #[derive(Deserialize)]
    struct Format {
        format: String,
    }
    let format = serde_json::from_slice::<Format>(line).map_err(|_| Fault::Line(1))?.format;
    if format != FORMAT {
        let version =
            format.strip_prefix("strongroom-commit-v").and_then(|version| version.parse::<u32>().ok());
        return Err(if version > Some(1) { Fault::Later } else { Fault::Line(1) });
    }
    decode_line(line, &mut Vec::new()).ok_or(Fault::Line(1))
}

fn check_header(header: &Header, records: &[Record]) -> Result<Frontier, Fault> {
    let holds = |holds: bool, what| if holds { Ok(()) } else { Err(Fault::Header(what)) };
    let times = || records.iter().map(|record| record.time);
    holds(u64::try_from(records.len()) == Ok(header.count), "count")?;
    holds(times().min() == Some(header.first), "first")?;
    holds(times().max() == Some(header.last), "last")?;
    holds(header.old.size.checked_add(header.count) == Some(header.new.size), "size")?;
    // Only the first commit has nothing before it.
    let begins = header.old == Frontier::new().head() && header.previous == Hash::ZERO;
    holds(if header.seq == 0 { begins } else { header.old.size >= header.seq }, "beginning")?;
    let frontier = Frontier::from_parts(header.new.size, header.frontier.clone())
        .map_err(|_| Fault::Header("frontier"))?;
    holds(frontier.root() == header.new.root, "root")?;
    Ok(frontier)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Event, Outcome, OutcomeResult};
    use crate::id::RequestId;
    use crate::merkle::root;

    fn store() -> StoreId {
        StoreId::from_bytes([1; 16])
    }

    fn writer() -> WriterId {
        WriterId::from_bytes([2; 16])
    }

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn line(number: u8) -> Line {
        let event = Event::Outcome(Outcome {
            request: RequestId::from_bytes([number; 16]),
            result: OutcomeResult::Ok,
            bytes: Some(u64::from(number)),
            key: None,
        });
        let nonce = RequestId::from_bytes([number ^ 0xff; 16]);
        Line::new(&Record { nonce, time: at(1000 - u64::from(number)), writer: writer(), event })
    }

    /// The bytes of commits with so many records each.
    fn chain(counts: &[u8]) -> Vec<Bytes> {
        let mut head = Head::empty(store(), 7);
        let mut number = 0;
        counts
            .iter()
            .map(|count| {
                let lines: Vec<Line> = (number..number + count).map(line).collect();
                number += count;
                let (bytes, after) = head.extend(writer(), at(5), lines.iter());
                head = after;
                bytes
            })
            .collect()
    }

    #[test]
    fn a_chain_reads_back_and_each_commit_follows_from_the_one_before() {
        let mut head = Head::empty(store(), 7);
        let mut leaves = Vec::new();
        for (seq, bytes) in chain(&[1, 3, 2, 7]).iter().enumerate() {
            let commit = Commit::decode(bytes).unwrap();
            assert_eq!(commit.header().seq, seq as u64);
            assert_eq!(commit.hash(), Hash::of(bytes));
            head = head.verify(&commit).unwrap();
            leaves.extend_from_slice(commit.leaves());
            assert_eq!(head.tree(), TreeHead { size: leaves.len() as u64, root: root(&leaves) });
            assert_eq!(head.previous(), commit.hash());
            assert!(head.verify(&commit).is_err(), "it is its own successor");
        }
        assert_eq!((head.next(), head.tree().size), (4, 13));
    }

    #[test]
    fn the_lines_are_as_the_manual_has_them() {
        let bytes = &chain(&[2])[0];
        let text = std::str::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        let leaves = [leaf_of_line(lines[1].as_bytes()), leaf_of_line(lines[2].as_bytes())];
        assert_eq!(
            lines[0],
            concat!(
                r#"{"format":"strongroom-commit-v1","store":"STORE","#,
                r#""shard":7,"seq":0,"writer":"WRITER","#,
                r#""time":"1970-01-01T00:00:00.000005Z","previous":"#,
                r#""0000000000000000000000000000000000000000000000000000000000000000","#,
                r#""old":{"size":0,"root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"#,
                r#""new":{"size":2,"root":"ROOT"},"frontier":["ROOT"],"count":2,"#,
                r#""first":"1970-01-01T00:00:00.000999Z","last":"1970-01-01T00:00:00.001000Z"}"#
            )
            .replace("STORE", &store().to_string())
            .replace("WRITER", &writer().to_string())
            .replace("ROOT", &root(&leaves).to_string())
        );
        assert!(lines[1].starts_with(r#"{"nonce":""#));
        let above = text.len() - END_LEN;
        assert_eq!(lines[3], format!(r#"{{"sha256":"{}"}}"#, Hash::of(&bytes[..above])));
        assert_eq!(lines.len(), 4);
    }

    /// The commit with its last line made anew, as a forger would.
    fn end_again(text: &str) -> String {
        let above = &text[..text.trim_end().rfind('\n').unwrap() + 1];
        format!("{above}{{\"sha256\":\"{}\"}}\n", Hash::of(above.as_bytes()))
    }

    #[test]
    fn any_changed_byte_is_noticed_without_another_commit() {
        let good = &chain(&[2])[0];
        for at in 0..good.len() {
            for flip in [1, 0x20, 0x80] {
                let mut bytes = good.to_vec();
                bytes[at] ^= flip;
                assert!(Commit::decode(&bytes).is_err(), "{at}");
            }
            assert!(Commit::decode(&good[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn a_forged_commit_is_noticed_by_the_one_behind_it() {
        let commits = chain(&[2, 1]);
        let forged =
            end_again(&String::from_utf8(commits[0].to_vec()).unwrap().replacen(".000005Z", ".000006Z", 1));
        let after = Head::empty(store(), 7).verify(&Commit::decode(forged.as_bytes()).unwrap()).unwrap();
        assert!(after.verify(&Commit::decode(&commits[1]).unwrap()).is_err());
    }

    #[test]
    fn the_decoder_takes_one_form_only() {
        let good = String::from_utf8(chain(&[2])[0].to_vec()).unwrap();
        assert_eq!(end_again(&good), good);
        let refused = |changed: String, kind| {
            assert_ne!(changed, good);
            let changed = end_again(&changed);
            assert_eq!(Commit::decode(changed.as_bytes()).unwrap_err().kind(), kind, "{changed}");
        };
        let integrity = ErrorKind::Integrity;
        assert!(Commit::decode(format!("{good}\n").as_bytes()).is_err());
        refused(good.replace("\n", "\r\n"), integrity);
        refused(good.replacen('\n', "\n\n", 1), integrity);
        refused(good.replacen(',', ", ", 1), integrity);
        refused(good.replacen("\"seq\":0", "\"seq\":0,\"more\":1", 1), integrity);
        refused(good.replacen("\"seq\":0,", "\"seq\":0,\"seq\":0,", 1), integrity);
        refused(good.replacen("\"seq\":0", "\"seq\":1", 1), integrity);
        refused(good.replacen("\"count\":2", "\"count\":3", 1), integrity);
        refused(good.replacen("\"bytes\":0", "\"bytes\":0.0", 1), integrity);
        refused(good.replacen("\"bytes\":1", "\"bytes\":null", 1), integrity);
        refused(good.replacen("commit-v1", "commit-v0", 1), integrity);
        refused(good.replacen("commit-v1", "commit-v2", 1), ErrorKind::UnsupportedFormat);
        refused(good.replacen("commit-v1\"", "commit-v12\",\"new\":[]", 1), ErrorKind::UnsupportedFormat);
        // Records of another order are another tree.
        let mut lines: Vec<&str> = good.split_terminator('\n').collect();
        lines.swap(1, 2);
        let swapped = end_again(&(lines.join("\n") + "\n"));
        let commit = Commit::decode(swapped.as_bytes()).unwrap();
        assert_eq!(Head::empty(store(), 7).verify(&commit).unwrap_err().kind(), integrity);
    }

    #[test]
    fn errors_do_not_repeat_what_was_read() {
        let text = String::from_utf8(chain(&[1])[0].to_vec()).unwrap();
        let planted = text.replacen("\"bytes\"", "\"Jane Doe\"", 1);
        let error = Commit::decode(end_again(&planted).as_bytes()).unwrap_err();
        assert!(!error.chain().contains("Jane"), "{error:?}");
    }

    #[test]
    fn a_head_of_another_store_or_shard_is_refused() {
        let commit = Commit::decode(&chain(&[1])[0]).unwrap();
        assert!(Head::empty(store(), 8).verify(&commit).is_err());
        assert!(Head::empty(StoreId::from_bytes([9; 16]), 7).verify(&commit).is_err());
    }
}
