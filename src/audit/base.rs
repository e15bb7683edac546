//! The base: where a shard stood behind one of its segments, with all that a program has to
//! know of what came before.
//!
//! Whoever starts at a base reads the commits behind it, and needs none before: the base has the
//! tree, the end of every customer's chain, what was open, and where the extracts have the
//! operations that are needed for as long as blobs live ([`extract`]). A record in the first
//! shard's log names each base, so that witnesses cosign it.
//!
//! Stored at `base/<shard>/<commits>`, as JSON lines, each ended by one line feed: the header,
//! `{"signature":"…"}` by the log's key over it, then one line for each customer. The header has
//! the root of the Merkle tree of these lines (RFC 6962 s2.1), so that one customer's line can be
//! shown without the others. The leaf hash at its end is as random as a nonce: nobody can test a
//! guess.
//!
//! There is a base behind each segment, in order, as soon as nothing before it is open any more.
//! It follows from the commits and the base before: whoever makes it, or verifies it while the
//! segments exist, gets the same.
//!
//! Separate from the publishing, and pure. Invariant: a [`Base`] agrees with itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, LogKeys};
use super::chains::{ChainEnd, Chains};
use super::commit::{Commit, Fault, SignatureLine, decode_line, json_line};
use super::head::Head;
use super::operation::{Paired, Pairing};
use super::{BaseRef, Event, ShardHead};
use crate::error::Result;
use crate::id::{CustomerId, RequestId, StoreId, WriterId};
use crate::merkle::{Frontier, Hash, TreeHead, leaf_hash, prove_inclusion, root};
use crate::time::Timestamp;
use crate::tlog::Signature;

pub mod extract;
#[cfg(test)]
mod tests;

use extract::{Earlier, Filed, Piece, shelves};

/// What the header of a base begins with.
pub const FORMAT: &str = "strongroom-base-v1";

/// The largest base that is read, in bytes: room for a million customers.
pub const MAX_LEN: u64 = 512 << 20;

/// The first line. The order of the fields is the order in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: String,
    /// The store whose log it is of.
    pub store: StoreId,
    /// The shard.
    pub shard: u16,
    /// How many commits it is of.
    pub commits: u64,
    /// SHA-256 of the last of them.
    pub previous: Hash,
    /// How many records they have.
    pub size: u64,
    /// The right edge of their tree, largest subtree first.
    pub frontier: Vec<Hash>,
    /// The time of the last commit.
    pub time: Timestamp,
    /// As in the last commit.
    pub lag: u64,
    /// As in the last commit.
    pub settled: u64,
    /// As in the last commit.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<WriterId>,
    /// The number of the log's key that is in force behind the last commit, if it is a later one
    /// than the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<u32>,
    /// The base before, if there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub before: Option<Before>,
    /// What was open: intents whose outcomes are in later commits.
    pub open: Vec<OpenIntent>,
    /// In the first shard, the others that it had named.
    pub named: Vec<u16>,
    /// Those of them of which it had said that they have records.
    pub used: Vec<u16>,
    /// How long the extract is, in bytes.
    pub extract: u64,
    /// How many customers there are, and the root of the tree of their lines.
    pub customers: TreeHead,
}

/// The base before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Before {
    /// How many commits it is of.
    pub commits: u64,
    /// SHA-256 of its header's line, without the line feed.
    pub digest: Hash,
}

/// An intent that has no outcome yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenIntent {
    /// Pairs with the outcome.
    pub request: RequestId,
    /// The number of the commit that has it.
    pub seq: u64,
    /// Who wrote it.
    pub writer: WriterId,
    /// Whose, if it concerns a customer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub customer: Option<CustomerId>,
}

/// What a base has of one customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfCustomer {
    /// The customer.
    pub customer: CustomerId,
    /// How many records there are.
    pub records: u64,
    /// The leaf hash of the last of them.
    pub last: Hash,
    /// The number of the commit that lists this end of the chain
    /// ([`Chains::listed_by`]).
    pub listed: u64,
    /// Where the customer's contents are, if any operation of its is kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub contents: Option<Piece>,
}

impl OfCustomer {
    /// Where its chain ends.
    #[must_use]
    pub fn end(&self) -> ChainEnd {
        ChainEnd { customer: self.customer, records: self.records, last: self.last }
    }

    /// Its line, without the line feed.
    #[must_use]
    pub fn to_line(&self) -> Vec<u8> {
        let mut line = json_line(self);
        line.pop();
        line
    }

    /// Reads a line, without its line feed. `None` if it is none.
    #[must_use]
    pub fn from_line(line: &[u8]) -> Option<Self> {
        decode_line(line, &mut Vec::new())
    }

    /// The leaf hash of its line.
    #[must_use]
    pub fn leaf(&self) -> Hash {
        leaf_hash(&self.to_line())
    }
}

/// A base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    header: Header,
    /// By customer.
    customers: Vec<OfCustomer>,
}

impl Base {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What it has of each customer, by customer.
    #[must_use]
    pub fn customers(&self) -> &[OfCustomer] {
        &self.customers
    }

    /// What it has of one customer.
    #[must_use]
    pub fn customer(&self, customer: CustomerId) -> Option<&OfCustomer> {
        let found = self.customers.binary_search_by_key(&customer, |of| of.customer);
        found.ok().map(|at| &self.customers[at])
    }

    /// The line of one customer, its number among the lines, and the proof of it
    /// (RFC 6962 s2.1.1).
    #[must_use]
    pub fn prove(&self, customer: CustomerId) -> Option<(OfCustomer, u64, Vec<Hash>)> {
        let at = self.customers.binary_search_by_key(&customer, |of| of.customer).ok()?;
        let leaves: Vec<Hash> = self.customers.iter().map(OfCustomer::leaf).collect();
        Some((self.customers[at], u64::try_from(at).ok()?, prove_inclusion(&leaves, at)?))
    }

    /// How it is named in the record.
    #[must_use]
    pub fn reference(&self) -> BaseRef {
        let Header { shard, commits, customers, .. } = self.header;
        BaseRef { shard, commits, tree: self.tree(), customers, digest: self.digest() }
    }

    /// SHA-256 of the header's line.
    #[must_use]
    pub fn digest(&self) -> Hash {
        Hash::of(&self.line())
    }

    /// The tree of the records.
    #[must_use]
    pub fn tree(&self) -> TreeHead {
        self.frontier().head()
    }

    fn frontier(&self) -> Frontier {
        let Header { size, frontier, .. } = &self.header;
        Frontier::from_parts(*size, frontier.clone()).expect("a base agrees with itself")
    }

    /// The head of the shard as it stood here, with the ends of customers' chains.
    #[must_use]
    pub fn head(&self, authority: &Authority) -> Head {
        let header = &self.header;
        let chains = chains(header.commits, &self.customers).expect("a base agrees with itself");
        Head::of_base(header, self.frontier(), chains, authority.clone())
    }

    /// The ends of chains that commits of a range list, by customer.
    pub(in crate::audit) fn ends_listed_by(&self, commits: RangeInclusive<u64>) -> Vec<ChainEnd> {
        let listed = self.customers.iter().filter(|of| commits.contains(&of.listed));
        listed.map(OfCustomer::end).collect()
    }

    fn line(&self) -> Vec<u8> {
        let mut line = json_line(&self.header);
        line.pop();
        line
    }

    /// What the log's key signs.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        message(&self.line())
    }

    /// The object.
    #[must_use]
    pub fn object(&self, signature: Signature) -> Bytes {
        let mut bytes = json_line(&self.header);
        bytes.extend_from_slice(&json_line(&SignatureLine { signature }));
        self.customers.iter().for_each(|of| bytes.extend_from_slice(&json_line(of)));
        bytes.into()
    }

    /// Reads a base, strictly.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity) if it is not one that the log's key in force there, or a
    /// later one, signed.
    pub fn decode(bytes: &[u8], authority: &impl LogKeys) -> Result<Self> {
        Ok(Self::read(bytes, &authority.authority())?)
    }

    fn read(bytes: &[u8], authority: &Authority) -> Result<Self, Fault> {
        let mut lines = bytes.strip_suffix(b"\n").ok_or(Fault::Truncated)?.split(|byte| *byte == b'\n');
        let (Some(first), Some(second)) = (lines.next(), lines.next()) else { return Err(Fault::Truncated) };
        let again = &mut Vec::new();
        let header: Header = decode_line(first, again).ok_or(Fault::Line(1))?;
        let SignatureLine { signature } = decode_line(second, again).ok_or(Fault::Line(2))?;
        let holds = |holds: bool, what| if holds { Ok(()) } else { Err(Fault::Header(what)) };
        holds(header.format == FORMAT, "format")?;
        let signer = authority.signer_of(&message(first), &signature);
        if signer.is_none_or(|signer| signer < header.key.unwrap_or(1)) {
            return Err(Fault::Signature);
        }
        holds(header.key != Some(1), "key")?;
        let frontier = Frontier::from_parts(header.size, header.frontier.clone());
        holds(frontier.is_ok(), "frontier")?;
        holds(0 < header.commits && header.commits <= header.size, "commits")?;
        holds(header.settled <= header.commits, "settled")?;
        let (mut customers, mut leaves) = (Vec::new(), Vec::new());
        for (line, number) in lines.zip(3..) {
            customers.push(decode_line::<OfCustomer>(line, again).ok_or(Fault::Line(number))?);
            leaves.push(leaf_hash(line));
        }
        holds(customers.is_sorted_by(|a, b| a.customer < b.customer), "customers")?;
        holds(header.customers == tree_of(&leaves), "customers")?;
        holds(chains(header.commits, &customers).is_some(), "customers")?;
        Ok(Self { header, customers })
    }
}

/// What the log's key signs: the first line, behind a label.
fn message(line: &[u8]) -> Vec<u8> {
    [b"strongroom-base-v1 header\n".as_slice(), line].concat()
}

fn tree_of(leaves: &[Hash]) -> TreeHead {
    TreeHead { size: u64::try_from(leaves.len()).expect("a length fits 64 bits"), root: root(leaves) }
}

/// The ends of chains in a shard of so many commits. `None` if one is listed where no commit lists.
fn chains(commits: u64, customers: &[OfCustomer]) -> Option<Chains> {
    let listing = Chains::listed_by(commits);
    let mut lists: Vec<Vec<ChainEnd>> = vec![Vec::new(); listing.len()];
    for of in customers {
        let at = listing.binary_search(&of.listed).ok()?;
        lists[at].push(of.end());
    }
    let lists: Vec<&[ChainEnd]> = lists.iter().map(Vec::as_slice).collect();
    Chains::from_lists(commits, &lists)
}

/// A base that is being made: it takes the commits behind the one before it, up to its own end,
/// and from then on their outcomes until nothing before it is open.
#[derive(Debug)]
pub struct Draft {
    before: Option<Base>,
    /// How many commits it is to be of.
    commits: u64,
    /// What is kept, and open so far.
    pairing: Pairing,
    filed: Filed,
    open: BTreeMap<RequestId, OpenIntent>,
    named: BTreeSet<u16>,
    used: BTreeSet<u16>,
    /// Where the shard stood at its end.
    head: Option<Head>,
}

impl Draft {
    /// A base of `commits` commits, behind another if there is one.
    #[must_use]
    pub fn new(before: Option<Base>, commits: u64) -> Self {
        let header = before.as_ref().map(Base::header);
        let open = header.map(|header| header.open.as_slice()).unwrap_or_default();
        let shards = |of: fn(&Header) -> &Vec<u16>| {
            header.map(|header| of(header).iter().copied().collect()).unwrap_or_default()
        };
        Self {
            commits,
            pairing: Pairing::default(),
            filed: Filed::default(),
            open: open.iter().map(|open| (open.request, *open)).collect(),
            named: shards(|header| &header.named),
            used: shards(|header| &header.used),
            head: None,
            before,
        }
    }

    /// How many commits it is to be of.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// The base before.
    #[must_use]
    pub fn before(&self) -> Option<&Base> {
        self.before.as_ref()
    }

    /// Takes the next commit, and the head behind it.
    pub fn take(&mut self, commit: &Commit, after: &Head) {
        let within = commit.header().seq < self.commits;
        for entry in super::log::entries(commit.clone()) {
            match &entry.record.event {
                Event::Intent(intent) if within => {
                    let (request, customer) = (intent.request, intent.customer);
                    let open = OpenIntent { request, seq: entry.seq, writer: entry.record.writer, customer };
                    self.open.insert(request, open);
                    if !shelves(intent).is_empty() {
                        let paired = self.pairing.push(entry);
                        self.file(paired);
                    }
                }
                Event::Outcome(outcome) => {
                    if within {
                        self.open.remove(&outcome.request);
                    }
                    let paired = self.pairing.push(entry);
                    self.file(paired);
                }
                Event::Shard(ShardHead { shard, tree }) if within => {
                    self.named.insert(*shard);
                    if tree.size > 0 {
                        self.used.insert(*shard);
                    }
                }
                _ => {}
            }
        }
        if after.next() == self.commits {
            self.head = Some(after.clone());
        }
    }

    fn file(&mut self, paired: Paired) {
        if let Paired::Operation(operation) = paired {
            self.filed.take(*operation);
        }
    }

    /// Whether it has all its commits, and nothing that is kept in them is open any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.head.is_some() && self.pairing.open() == 0
    }

    /// What it files, and the time of the base. `None` before it has all its commits.
    #[must_use]
    pub fn filed(&self) -> Option<(&Filed, Timestamp)> {
        Some((&self.filed, self.head.as_ref()?.time()))
    }

    /// The base and its extract. `None` if it is not complete, or the ends of chains are not known.
    #[must_use]
    pub fn finish(self, earlier: Earlier) -> Option<(Base, Vec<u8>)> {
        let head = self.head.filter(|_| self.pairing.open() == 0)?;
        let (extract, contents) = self.filed.encode(self.commits, head.time(), earlier);
        let old = |customer| self.before.as_ref()?.customer(customer)?.contents;
        let chains = head.chains()?;
        let mut customers = Vec::new();
        for (listed, list) in Chains::listed_by(chains.commits()).into_iter().zip(chains.lists()) {
            customers.extend(list.into_iter().map(|ChainEnd { customer, records, last }| OfCustomer {
                customer,
                records,
                last,
                listed,
                contents: contents.get(&customer).copied().or_else(|| old(customer)),
            }));
        }
        customers.sort_unstable_by_key(|of| of.customer);
        let leaves: Vec<Hash> = customers.iter().map(OfCustomer::leaf).collect();
        let mut open: Vec<OpenIntent> = self.open.into_values().collect();
        open.sort_unstable_by_key(|open| (open.seq, open.request));
        let header = Header {
            format: FORMAT.to_owned(),
            store: head.store(),
            shard: head.shard(),
            commits: self.commits,
            previous: head.previous(),
            size: head.tree().size,
            frontier: head.frontier().edge().to_vec(),
            time: head.time(),
            lag: u64::try_from(head.lag().as_micros()).expect("a lag fits 64 bits"),
            settled: head.settled(),
            owner: head.owner(),
            key: head.in_force().filter(|key| *key > 1),
            before: self.before.map(|base| Before { commits: base.header.commits, digest: base.digest() }),
            open,
            named: self.named.into_iter().collect(),
            used: self.used.into_iter().collect(),
            extract: u64::try_from(extract.len()).expect("a length fits 64 bits"),
            customers: tree_of(&leaves),
        };
        Some((Base { header, customers }, extract))
    }
}
