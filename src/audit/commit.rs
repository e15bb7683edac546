//! The commit: one object of the audit log, with the records that became
//! durable together and the tree head they lead to.
//!
//! Stored at `wal/<shard, 4 hex digits>/<sequence number, 16 hex digits>`, as
//! JSON lines, each ended by one line feed. The first is the header, the second
//! `{"signature":"…"}`, its writer's over the first; then comes one [`Record`] a
//! line, `nonce` first. What the tree holds of a record is salted by its nonce:
//! leaf data = SHA-256(line without its line feed), leaf hash = SHA-256(0x00 ‖
//! leaf data), RFC 6962 s2.1.
//!
//! A commit says where it starts (`previous`, the SHA-256 of the object before
//! it, and `old`, the tree head before it) and where it ends (`new`, and
//! `frontier`, the right edge of that tree, largest subtree first). So the
//! newest commit is all that a writer has to read, but for the ends of
//! customers' chains ([`chains`](super::chains)), and [`Head::verify`](super::head::Head::verify) checks a
//! commit against nothing but the one before it.
//!
//! Each writer signs with a key of its own, made when it starts and never
//! stored, which the log's key *endorses*. The signature is over the header,
//! and the header has a hash of the records. It says who put the commit
//! forward, and not that it is part of the log: two writers may sign for one
//! number, and one of them is stored. What the log says of itself is a
//! checkpoint, signed after the bytes were read back.
//!
//! Separate from the log, and pure, so that a log can be verified from a copy.
//!
//! Invariants: a value has one encoding, and the decoder takes no other, but for members
//! that a later version added ([`members`]); a
//! [`Commit`] agrees with itself (signature, count, times, links, frontier and
//! new head).
//!
//! Whoever holds the storage may give us any bytes. What it cannot do is give
//! us a commit that no endorsed writer signed, or a changed one that the next
//! one still follows from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error as ThisError;

use super::authority::Authority;
use super::chains::ChainEnd;
use super::members::{self, decode_record};
use super::{Event, KeyChanged, Link, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, RequestId, StoreId, WriterId};
use crate::merkle::{Frontier, Hash, TreeHead, leaf_hash};
use crate::time::{Day, Timestamp};
use crate::tlog::{PublicKey, SecretKey, Signature};

/// What the header of a commit begins with.
pub const FORMAT: &str = "strongroom-commit-v1";

/// The largest commit that is read, in bytes.
pub const MAX_LEN: usize = 64 << 20;

/// The first line of a commit. The order of the fields is the order in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub(super) format: String,
    /// The store whose log this is.
    pub store: StoreId,
    /// The shard of the log.
    pub shard: u16,
    /// The number of the commit in its shard, from 0.
    pub seq: u64,
    /// The running program that made it.
    pub writer: WriterId,
    /// The key that this writer signs with.
    pub key: PublicKey,
    /// The log's key over [`endorsement`]: that the writer is one of the store's.
    pub endorsement: Signature,
    /// When that was: not before the commit before it, nor any of its records.
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
    /// SHA-256 of their lines, line feeds included.
    pub body: Hash,
    /// The earliest time in its records.
    pub first: Timestamp,
    /// The latest time in its records.
    pub last: Timestamp,
    /// By how many microseconds at most, up to here, a commit's time was later
    /// than that of one of its records. So a record of time *t* is in a commit
    /// of time *t* to *t* + `lag`.
    pub lag: u64,
    /// All intents in commits below this number have an outcome, here or before.
    pub settled: u64,
    /// Whose the shard is after it, if it is one writer's own.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<WriterId>,
    /// The ends of the chains of customers in its span, by customer.
    pub chains: Vec<ChainEnd>,
}

impl Header {
    /// Reads the first two lines of a commit, and checks the signature in the
    /// second. `None` if `bytes` end before they do.
    ///
    /// # Errors
    /// As [`Commit::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>> {
        Ok(decode_signed(bytes)?.map(|(header, _)| header))
    }

    /// The number of the log's key that endorsed the writer.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if none did.
    pub fn endorser(&self, authority: &Authority) -> Result<u32> {
        let number = authority.endorser((self.store, self.writer), &self.key, &self.endorsement);
        number.ok_or_else(|| Fault::Successor("endorsement of its writer").into())
    }
}

/// By how much a commit may be later than its records before the log counts as ahead of them:
/// 1 day.
const AHEAD_MICROS: u64 = 86_400_000_000;

impl Header {
    /// Whether the log's time ran ahead of the clocks that date records: one was wrong once, and
    /// a commit's time never goes back.
    pub(super) fn is_ahead(&self) -> bool {
        self.time.micros().saturating_sub(self.last.micros()) > AHEAD_MICROS
    }

    /// The day with whose commits it is kept as a segment: that of its time, or while the log is ahead, of its
    /// newest record, so that days go on.
    pub(super) fn kept_with(&self) -> Day {
        if self.is_ahead() { self.last.day() } else { self.time.day() }
    }

    /// Whether a segment ends between this commit and the next.
    pub(super) fn is_cut_before(&self, next: &Self) -> bool {
        self.time.day() != next.time.day() || self.kept_with() != next.kept_with()
    }
}

/// What the log's key signs to make a writer one of its store's.
#[must_use]
pub fn endorsement(store: StoreId, writer: WriterId, key: &PublicKey) -> Vec<u8> {
    format!("strongroom-writer-v1\n{store}\n{writer}\n{key}\n").into_bytes()
}

/// One running program that writes: its id, and the key it signs with.
#[derive(Debug)]
pub struct Writer {
    pub(super) id: WriterId,
    pub(super) key: SecretKey,
    pub(super) endorsement: Signature,
}

impl Writer {
    /// A writer whose key the log's endorsed.
    #[must_use]
    pub fn new(id: WriterId, key: SecretKey, endorsement: Signature) -> Self {
        Self { id, key, endorsement }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> WriterId {
        self.id
    }

    /// The first two lines of a commit with this header.
    pub(super) fn sign(&self, header: &Header) -> Vec<u8> {
        let mut bytes = json_line(header);
        let signature = self.key.sign(&signed(&bytes[..bytes.len() - 1]));
        bytes.extend_from_slice(&json_line(&SignatureLine { signature }));
        bytes
    }
}

/// What a writer signs: the header's line, behind a label, so that it can be
/// nothing else.
fn signed(line: &[u8]) -> Vec<u8> {
    [b"strongroom-commit-v1 header\n".as_slice(), line].concat()
}

/// The second line of a commit, and of whatever else begins with a signed line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignatureLine {
    pub(super) signature: Signature,
}

/// One commit, decoded, and in agreement with itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    header: Header,
    records: Vec<Record>,
    leaves: Vec<Leaf>,
    frontier: Frontier,
    moved: BTreeMap<CustomerId, Moved>,
    hash: Hash,
}

/// What the tree holds of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// SHA-256 of the record's line: the entry of the log.
    pub data: Hash,
    /// The leaf hash over it.
    pub hash: Hash,
}

/// How one commit goes on with the chain of one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) first: Link,
    pub(super) end: ChainEnd,
}

impl Commit {
    /// Reads a commit, strictly: each line has the one form that it can have.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedFormat`] for a later format,
    /// [`ErrorKind::Integrity`] for anything else that is not a commit.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        match decode_next(bytes)? {
            (commit, []) => Ok(commit),
            _ => Err(Fault::Trailing.into()),
        }
    }

    /// Reads the commit that `bytes` begin with, and gives back what is behind
    /// it: several may stand one after the other.
    ///
    /// # Errors
    /// As [`Commit::decode`].
    pub fn decode_first(bytes: &[u8]) -> Result<(Self, &[u8])> {
        Ok(decode_next(bytes)?)
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

    /// The change of the log's key with which the commit begins.
    #[must_use]
    pub fn key_change(&self) -> Option<KeyChanged> {
        match self.records.first().map(|record| &record.event) {
            Some(Event::Key(change)) => Some(*change),
            _ => None,
        }
    }

    /// The records, taken out.
    #[must_use]
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// What the tree holds of the records.
    #[must_use]
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// SHA-256 of the stored object.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    pub(super) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    pub(super) fn moved(&self) -> &BTreeMap<CustomerId, Moved> {
        &self.moved
    }
}

/// A record on its way into a commit: what can be made before it is known which
/// commit that will be. Its link in its customer's chain is not part of it.
#[derive(Debug)]
pub(crate) struct Line {
    /// The record as JSON, without the closing brace.
    text: Vec<u8>,
    pub(super) time: Timestamp,
    pub(super) customer: Option<CustomerId>,
    pub(super) owner: Option<OwnerChange>,
    pub(super) step: Option<Step>,
}

/// What a record does to the request that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Begins(RequestId),
    Ends(RequestId),
}

impl Step {
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Intent(intent) => Some(Self::Begins(intent.request)),
            Event::Outcome(outcome) => Some(Self::Ends(outcome.request)),
            _ => None,
        }
    }
}

/// What a record does to the ownership of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerChange {
    Claim,
    Release,
    Fence(WriterId),
}

impl OwnerChange {
    pub(super) fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Claim => Some(Self::Claim),
            Event::Release => Some(Self::Release),
            Event::Fence(fence) => Some(Self::Fence(fence.writer)),
            _ => None,
        }
    }

    /// Whose the shard is after it, which was `owner`'s.
    pub(super) fn apply(self, writer: WriterId, owner: Option<WriterId>) -> Option<WriterId> {
        match self {
            Self::Claim => Some(writer),
            Self::Release => None,
            Self::Fence(dead) => owner.filter(|owner| *owner != dead),
        }
    }
}

/// What can follow a record's text, at most: `,"chain":{…}}` and a line feed.
const LINK_LEN: usize = 128;

impl Line {
    /// # Panics
    /// For a record that has a link already.
    pub(crate) fn new(record: &Record) -> Self {
        assert!(record.chain.is_none(), "links are made with the commit");
        let mut text = Vec::with_capacity(640);
        serde_json::to_writer(&mut text, record).expect("records have string keys only");
        text.pop();
        let (owner, step) = (OwnerChange::of(&record.event), Step::of(&record.event));
        Self { text, time: record.time, customer: record.event.customer(), owner, step }
    }

    /// Dates the record anew: the clock was wrong when it was made.
    pub(super) fn date(&mut self, time: Timestamp) {
        let (old, new) = (self.time.to_string(), time.to_string());
        // The first members are the nonce and the time, and a time has one length.
        let member = format!(r#""time":"{old}""#);
        let at = self.text.windows(member.len()).position(|part| part == member.as_bytes());
        let begin = at.expect("a record has its time") + member.len() - 1 - old.len();
        self.text[begin..begin + old.len()].copy_from_slice(new.as_bytes());
        self.time = time;
    }

    /// The line as a later version writes it, with members that this one does not know.
    #[cfg(test)]
    pub(super) fn of_later(mut self) -> Self {
        if self.text.ends_with(b"}}") {
            let within = self.text.len() - 2;
            self.text.splice(within..within, *br#","later":{"a":[1,"b"]}"#);
        }
        self.text.extend_from_slice(br#","more":true"#);
        self
    }

    /// Its length in a commit, in bytes, at most.
    pub(crate) fn len(&self) -> usize {
        self.text.len() + LINK_LEN
    }

    /// Writes the line with its link behind `to`, and returns its leaf.
    pub(super) fn write(&self, link: Option<Link>, to: &mut Vec<u8>) -> Leaf {
        let begin = to.len();
        to.extend_from_slice(&self.text);
        if let Some(link) = link {
            to.extend_from_slice(b",\"chain\":");
            serde_json::to_writer(&mut *to, &link).expect("a link has string keys only");
        }
        to.push(b'}');
        let leaf = leaf_of_line(&to[begin..]);
        to.push(b'\n');
        leaf
    }
}

/// What the tree holds of a record, from its line without the line feed.
#[must_use]
pub fn leaf_of_line(line: &[u8]) -> Leaf {
    let data = Hash::of(line);
    Leaf { data, hash: leaf_hash(data.as_bytes()) }
}

pub(super) fn json_line<T: Serialize>(value: &T) -> Vec<u8> {
    let mut line = Vec::with_capacity(1024);
    serde_json::to_writer(&mut line, value).expect("headers and records have string keys only");
    line.push(b'\n');
    line
}

/// Why bytes are not a commit, or a commit is not the next one. Nothing of the
/// bytes is repeated.
#[derive(Debug, ThisError)]
pub(super) enum Fault {
    #[error("it is larger than a commit can be")]
    TooLarge,
    #[error("it ends before all its lines were read")]
    Truncated,
    #[error("something stands behind its last line")]
    Trailing,
    #[error("its writer did not sign it")]
    Signature,
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

/// The line that `bytes` begin with, and what is behind its line feed.
fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((line, &rest[1..]))
}

fn decode_signed(bytes: &[u8]) -> Result<Option<(Header, &[u8])>, Fault> {
    let Some((line, rest)) = next_line(bytes) else { return Ok(None) };
    let header = decode_header(line)?;
    let Some((second, rest)) = next_line(rest) else { return Ok(None) };
    let SignatureLine { signature } = decode_line(second, &mut Vec::new()).ok_or(Fault::Line(2))?;
    if !header.key.verifies(&signed(line), &signature) {
        return Err(Fault::Signature);
    }
    Ok(Some((header, rest)))
}

fn decode_next(bytes: &[u8]) -> Result<(Commit, &[u8]), Fault> {
    let (header, body) = decode_signed(bytes)?.ok_or(Fault::Truncated)?;
    let mut rest = body;
    let mut again = Vec::with_capacity(1024);
    let (mut records, mut leaves) = (Vec::new(), Vec::new());
    for number in (3..).take(usize::try_from(header.count).unwrap_or(usize::MAX)) {
        let (line, behind) = next_line(rest).ok_or(Fault::Truncated)?;
        records.push(decode_record(line, &mut again).ok_or(Fault::Line(number))?);
        leaves.push(leaf_of_line(line));
        rest = behind;
        if bytes.len() - rest.len() > MAX_LEN {
            return Err(Fault::TooLarge);
        }
    }
    let frontier = check_header(&header, &records, &body[..body.len() - rest.len()])?;
    let moved = check_links(&records, &leaves)?;
    let hash = Hash::from_bytes(Sha256::digest(&bytes[..bytes.len() - rest.len()]).into());
    Ok((Commit { header, records, leaves, frontier, moved, hash }, rest))
}

/// A value whose encoding is `line`, and no other.
pub(super) fn decode_line<'a, T: Serialize + Deserialize<'a>>(
    line: &'a [u8],
    again: &mut Vec<u8>,
) -> Option<T> {
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
    members::decode_header(line).ok_or(Fault::Line(1))
}

fn check_header(header: &Header, records: &[Record], body: &[u8]) -> Result<Frontier, Fault> {
    let holds = |holds: bool, what| if holds { Ok(()) } else { Err(Fault::Header(what)) };
    let times = || records.iter().map(|record| record.time);
    holds(Hash::of(body) == header.body, "body")?;
    holds(times().min() == Some(header.first), "first")?;
    holds(times().max() == Some(header.last), "last")?;
    holds(header.last <= header.time, "time")?;
    holds(header.lag >= header.time.micros() - header.first.micros(), "lag")?;
    holds(records.iter().all(|record| record.writer == header.writer), "writer")?;
    holds(header.settled <= header.seq.saturating_add(1), "settled")?;
    holds(header.old.size.checked_add(header.count) == Some(header.new.size), "size")?;
    // Only the first commit has nothing before it.
    let begins = header.old == Frontier::new().head() && header.previous == Hash::ZERO;
    holds(if header.seq == 0 { begins } else { header.old.size >= header.seq }, "beginning")?;
    holds(header.chains.is_sorted_by(|a, b| a.customer < b.customer), "chains")?;
    let frontier = Frontier::from_parts(header.new.size, header.frontier.clone())
        .map_err(|_| Fault::Header("frontier"))?;
    holds(frontier.root() == header.new.root, "root")?;
    Ok(frontier)
}

/// How each customer's chain goes on in these records: without a gap among
/// them, each naming the one before.
fn check_links(records: &[Record], leaves: &[Leaf]) -> Result<BTreeMap<CustomerId, Moved>, Fault> {
    let mut moved: BTreeMap<CustomerId, Moved> = BTreeMap::new();
    for (record, leaf) in records.iter().zip(leaves) {
        let (customer, link) = match (record.event.customer(), record.chain) {
            (None, None) => continue,
            (Some(customer), Some(link)) if link.number > 0 => (customer, link),
            _ => return Err(Fault::Header("a link that should be there, or should not")),
        };
        let end = ChainEnd { customer, records: link.number, last: leaf.hash };
        match moved.get_mut(&customer) {
            None => {
                moved.insert(customer, Moved { first: link, end });
            }
            // A record can claim any number, the greatest included: nothing follows that one.
            Some(Moved { end: so_far, .. })
                if (so_far.records.checked_add(1), so_far.last) == (Some(link.number), link.previous) =>
            {
                *so_far = end;
            }
            Some(_) => return Err(Fault::Header("a customer's chain")),
        }
    }
    Ok(moved)
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::audit::head::Head;
    use crate::audit::{Outcome, OutcomeResult};
    use crate::secret::Secret;

    pub(in crate::audit) fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]))
    }

    /// The log's key.
    pub(in crate::audit) fn authority() -> PublicKey {
        key(9).public()
    }

    pub(in crate::audit) fn store() -> StoreId {
        StoreId::from_bytes([1; 16])
    }

    pub(in crate::audit) fn writer(id: u8) -> Writer {
        let (id, key_of) = (WriterId::from_bytes([id; 16]), key(id));
        let endorsement = key(9).sign(&endorsement(store(), id, &key_of.public()));
        Writer::new(id, key_of, endorsement)
    }

    pub(in crate::audit) fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    pub(in crate::audit) fn line_of(number: u8, writer: &Writer, event: Event) -> Line {
        let nonce = RequestId::from_bytes([number ^ 0xff; 16]);
        let time = at(1000 - u64::from(number));
        Line::new(&Record { nonce, time, writer: writer.id(), event, chain: None, stored: None })
    }

    #[test]
    fn a_record_is_dated_anew_in_its_one_form() {
        for (old, new) in [(1_000, 7), (7, 1_795_314_373_000_000)] {
            let record = |time| Record {
                nonce: RequestId::from_bytes([5; 16]),
                time: at(time),
                writer: writer(2).id(),
                event: Event::Alive,
                chain: None,
                stored: None,
            };
            let mut line = Line::new(&record(old));
            line.date(at(new));
            assert_eq!(line.time, at(new));
            assert_eq!(line.text, Line::new(&record(new)).text);
        }
    }

    /// An outcome; every third concerns no customer, the others two by turns.
    pub(in crate::audit) fn line(number: u8) -> Line {
        let customer = (!number.is_multiple_of(3)).then(|| CustomerId::from_bytes([number % 3; 16]));
        let event = Event::Outcome(Outcome {
            request: RequestId::from_bytes([number; 16]),
            customer,
            result: OutcomeResult::Ok,
            bytes: Some(u64::from(number)),
            key: None,
            kms_request: None,
        });
        line_of(number, &writer(2), event)
    }

    pub(in crate::audit) fn begin() -> Head {
        Head::empty(store(), 7, authority())
    }

    /// The bytes of commits with so many records each.
    pub(in crate::audit) fn chain(counts: &[u8]) -> Vec<Bytes> {
        let mut head = begin();
        let mut number = 0;
        counts
            .iter()
            .map(|count| {
                let lines: Vec<Line> = (number..number + count).map(line).collect();
                number += count;
                let (bytes, after) = head.extend(&writer(2), at(5), lines.iter(), 0);
                head = after;
                bytes
            })
            .collect()
    }

    /// The commit with its header signed again, as one who has the writer's key
    /// would after a change.
    fn signed_again(text: &str) -> String {
        signed_by(&key(2), text)
    }

    fn signed_by(key: &SecretKey, text: &str) -> String {
        let (header, rest) = text.split_once('\n').unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        let signature = key.sign(&signed(header.as_bytes()));
        format!("{header}\n{{\"signature\":\"{signature}\"}}\n{rest}")
    }

    /// The commit with a member in its header that this version does not know.
    pub(in crate::audit) fn of_later(key: &SecretKey, commit: &[u8]) -> Bytes {
        let text = std::str::from_utf8(commit).unwrap();
        let (header, rest) = text.split_once('\n').unwrap();
        let header = header.strip_suffix('}').unwrap();
        signed_by(key, &format!("{header},\"later\":{{\"a\":1}}}}\n{rest}")).into()
    }

    #[test]
    fn the_lines_are_as_the_manual_has_them() {
        let bytes = &chain(&[2])[0];
        let text = std::str::from_utf8(bytes).unwrap();
        let lines: Vec<&str> = text.split_terminator('\n').collect();
        let leaves = [leaf_of_line(lines[2].as_bytes()).hash, leaf_of_line(lines[3].as_bytes()).hash];
        let body = Hash::of(format!("{}\n{}\n", lines[2], lines[3]).as_bytes());
        assert_eq!(
            lines[0],
            concat!(
                r#"{"format":"strongroom-commit-v1","store":"STORE","#,
                r#""shard":7,"seq":0,"writer":"WRITER","key":"KEY","endorsement":"ENDORSEMENT","#,
                r#""time":"1970-01-01T00:00:00.001000Z","previous":"#,
                r#""0000000000000000000000000000000000000000000000000000000000000000","#,
                r#""old":{"size":0,"root":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"#,
                r#""new":{"size":2,"root":"ROOT"},"frontier":["ROOT"],"count":2,"body":"BODY","#,
                r#""first":"1970-01-01T00:00:00.000999Z","last":"1970-01-01T00:00:00.001000Z","#,
                r#""lag":1,"settled":0,"#,
                r#""chains":[{"customer":"CUSTOMER","records":1,"last":"LAST"}]}"#
            )
            .replace("STORE", &store().to_string())
            .replace("WRITER", &writer(2).id().to_string())
            .replace("KEY", &key(2).public().to_string())
            .replace("ENDORSEMENT", &writer(2).endorsement.to_string())
            .replace("ROOT", &crate::merkle::root(&leaves).to_string())
            .replace("BODY", &body.to_string())
            .replace("CUSTOMER", &CustomerId::from_bytes([1; 16]).to_string())
            .replace("LAST", &leaves[1].to_string())
        );
        let signature = key(2).sign(format!("strongroom-commit-v1 header\n{}", lines[0]).as_bytes());
        assert_eq!(lines[1], format!(r#"{{"signature":"{signature}"}}"#));
        assert!(lines[2].starts_with(r#"{"nonce":""#) && !lines[2].contains("chain"));
        let link = format!(r#","chain":{{"number":1,"previous":"{}"}}}}"#, Hash::ZERO);
        assert!(lines[3].ends_with(&link), "{}", lines[3]);
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn any_changed_byte_is_noticed_without_another_commit() {
        let good = &chain(&[3])[0];
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
    fn a_header_is_read_by_itself() {
        let good = &chain(&[3])[0];
        let header = Commit::decode(good).unwrap().header().clone();
        let lines: Vec<usize> = (0..good.len()).filter(|at| good[*at] == b'\n').collect();
        assert_eq!(Header::decode(&good[..=lines[1]]).unwrap(), Some(header));
        assert_eq!(Header::decode(&good[..lines[1]]).unwrap(), None);
        assert_eq!(Header::decode(&good[..lines[0]]).unwrap(), None);
    }

    #[test]
    fn commits_stand_one_behind_the_other() {
        let commits = chain(&[2, 1]);
        let both = commits.concat();
        let (first, rest) = Commit::decode_first(&both).unwrap();
        assert_eq!((first.hash(), rest), (Hash::of(&commits[0]), commits[1].as_ref()));
        assert!(Commit::decode(&both).is_err());
    }

    #[test]
    fn the_decoder_takes_one_form_only() {
        let good = String::from_utf8(chain(&[2])[0].to_vec()).unwrap();
        assert_eq!(signed_again(&good), good);
        let refused = |changed: String, kind| {
            assert_ne!(changed, good);
            let changed = signed_again(&changed);
            assert_eq!(Commit::decode(changed.as_bytes()).unwrap_err().kind(), kind, "{changed}");
        };
        let integrity = ErrorKind::Integrity;
        assert!(Commit::decode(format!("{good}\n").as_bytes()).is_err());
        assert!(Commit::decode(good.replace('\n', "\r\n").as_bytes()).is_err());
        refused(good.replacen(',', ", ", 1), integrity);
        refused(good.replacen("\"seq\":0", "\"seq\":0,\"more\":1", 1), integrity);
        refused(good.replacen("\"old\":{", "\"old\":{\"more\":1,", 1), integrity);
        refused(good.replacen("}\n", ",\"more\":null}\n", 1), integrity);
        refused(good.replacen("}\n", ",\"seq\":0}\n", 1), integrity);
        refused(good.replacen("\"seq\":0,", "\"seq\":0,\"seq\":0,", 1), integrity);
        refused(good.replacen("\"seq\":0", "\"seq\":1", 1), integrity);
        refused(good.replacen("\"count\":2", "\"count\":1", 1), integrity);
        refused(good.replacen("\"count\":2", "\"count\":3", 1), integrity);
        refused(good.replacen("\"lag\":1", "\"lag\":0", 1), integrity);
        refused(good.replacen("\"settled\":0", "\"settled\":2", 1), integrity);
        refused(good.replacen("\"bytes\":0", "\"bytes\":7", 1), integrity);
        refused(good.replacen("commit-v1", "commit-v0", 1), integrity);
        refused(good.replacen("commit-v1", "commit-v2", 1), ErrorKind::UnsupportedFormat);
        refused(good.replacen("commit-v1\"", "commit-v12\",\"new\":[]", 1), ErrorKind::UnsupportedFormat);
    }

    /// Whatever key signed it: the decoder does not ask who endorsed the writer.
    #[test]
    fn no_record_is_behind_the_last_number_of_a_chain() {
        let good = String::from_utf8(chain(&[5])[0].to_vec()).unwrap();
        let customer = CustomerId::from_bytes([1; 16]);
        let (head, first) = good.split_once(&format!("\"customer\":\"{customer}\"")).unwrap();
        let last = first.replacen("\"number\":1,", &format!("\"number\":{},", u64::MAX), 1);
        assert_ne!(last, first);
        let changed = format!("{head}\"customer\":\"{customer}\"{last}");
        let (_, body) = changed.split_once("}\n").and_then(|(_, rest)| rest.split_once("}\n")).unwrap();
        let body = Hash::of(body.as_bytes()).to_string();
        let at = changed.find("\"body\":\"").unwrap() + "\"body\":\"".len();
        let changed = format!("{}{body}{}", &changed[..at], &changed[at + body.len()..]);
        let error = Commit::decode(signed_again(&changed).as_bytes()).unwrap_err();
        assert!(error.chain().contains("chain"), "{}", error.chain());
    }

    #[test]
    fn a_header_of_a_later_version_is_read_and_its_bytes_count() {
        let good = &chain(&[2])[0];
        let later = of_later(&key(2), good);
        let commit = Commit::decode(&later).unwrap();
        assert_eq!(commit.header(), Commit::decode(good).unwrap().header());
        assert_eq!(commit.hash(), Hash::of(&later));
        // The signature is over what stands there.
        let stripped = String::from_utf8(later.to_vec()).unwrap().replacen(",\"later\":{\"a\":1}", "", 1);
        assert!(Commit::decode(stripped.as_bytes()).is_err());
    }

    #[test]
    fn errors_do_not_repeat_what_was_read() {
        let text = String::from_utf8(chain(&[1])[0].to_vec()).unwrap();
        let planted = text.replacen("\"bytes\"", "\"Jane Doe\"", 1);
        let error = Commit::decode(planted.as_bytes()).unwrap_err();
        assert!(!error.chain().contains("Jane"), "{error:?}");
    }
}
