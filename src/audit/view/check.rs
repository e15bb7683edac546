//! The check of a view, line by line, in memory that does not grow with it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read};

use super::{Finding, Header, MAX_LINE, ProvenRecord, ShardHeader, ShardReport, ViewBase, ViewReport};
use crate::audit::authority::Authority;
use crate::audit::base::OfCustomer;
use crate::audit::commit::leaf_of_line;
use crate::audit::layout::FIRST_SHARD;
use crate::audit::{Event, Record, View, ViewShard};
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::{Hash, TreeHead, verify_consistency, verify_inclusion};
use crate::time::Timestamp;
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::tlog::{KeyName, SignatureType, VerifierKey};

/// How many findings are listed at most.
const MAX_FINDINGS: usize = 100;

/// Whom to believe. Nothing of it may come from the file, nor from who made it.
#[derive(Clone, Debug)]
pub struct Trust {
    log_key: Authority,
    witnesses: Vec<VerifierKey>,
    quorum: usize,
}

impl Trust {
    /// The log's keys, and that at least `quorum` of `witnesses` have to have cosigned
    /// the first shard's checkpoint. A key that is listed twice counts once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with a key that is not for cosignatures, or with
    /// fewer witnesses than are called for.
    pub fn new(log_key: impl Into<Authority>, witnesses: Vec<VerifierKey>, quorum: usize) -> Result<Self> {
        let invalid = |sentence| Err(Error::new(ErrorKind::InvalidInput, sentence));
        if witnesses.iter().any(|witness| witness.signature_type() != SignatureType::Cosignature) {
            return invalid("a witness's key is not one for cosignatures");
        }
        let different: BTreeSet<_> = witnesses.iter().map(VerifierKey::public).collect();
        if different.len() < quorum {
            return invalid("there are fewer witnesses than have to cosign");
        }
        Ok(Self { log_key: log_key.into(), witnesses, quorum })
    }
}

/// Reads a view to its end and checks all of it. That it is no view, or not a complete
/// one, is in the report; so look at [`ViewReport::is_complete`].
///
/// # Errors
/// [`ErrorKind::Io`] if it cannot be read; [`ErrorKind::UnsupportedFormat`] or
/// [`ErrorKind::Integrity`] if the first line is not that of a view.
pub fn check(mut from: impl BufRead, trust: &Trust) -> Result<ViewReport> {
    let mut line = Vec::new();
    read_line(&mut from, &mut line)?;
    let mut checker = Checker::begin(without_line_feed(&line).unwrap_or_default(), trust)?;
    while read_line(&mut from, &mut line)? {
        match without_line_feed(&line) {
            Some(line) => checker.line(line),
            None => {
                // Cut off, or too long: there is nothing behind it to be read.
                checker.cut_off();
                break;
            }
        }
    }
    Ok(checker.finish())
}

fn read_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool> {
    line.clear();
    let read = from.take(MAX_LINE as u64).read_until(b'\n', line);
    let failed = |error| Error::new(ErrorKind::Io, "failed to read the view").with_source(error);
    Ok(read.map_err(failed)? > 0)
}

fn without_line_feed(line: &[u8]) -> Option<&[u8]> {
    line.strip_suffix(b"\n")
}

/// A check under way, for lines that come one by one.
#[derive(Debug)]
pub struct Checker {
    header: Header,
    shards: BTreeMap<u16, Shard>,
    cosigned: Vec<(KeyName, Timestamp)>,
    /// The view, if it was the last record of the first shard so far, and its time.
    view: Option<(View, Timestamp)>,
    /// Where the last record was.
    place: Option<(u16, u64)>,
    /// How many lines there were.
    lines: u64,
    findings: Findings,
}

/// One shard of the file.
#[derive(Debug)]
struct Shard {
    /// What the view counts, as the first line says.
    tree: TreeHead,
    /// The tree of the checkpoint, if that is the log's.
    published: Option<TreeHead>,
    /// The last record.
    end: End,
    /// The last record in `tree`.
    counted: End,
    report: ShardReport,
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    number: u64,
    leaf: Hash,
}

impl End {
    const NONE: Self = Self { number: 0, leaf: Hash::ZERO };
}

#[derive(Debug, Default)]
struct Findings {
    listed: Vec<Finding>,
    more: u64,
}

impl Findings {
    fn add(&mut self, finding: Finding) {
        if self.listed.len() < MAX_FINDINGS {
            self.listed.push(finding);
        } else {
            self.more += 1;
        }
    }

    /// Whether the last record that the view counts is among those that were missed.
    fn missing(&self, named: &ViewShard) -> bool {
        let is_it = |finding: &Finding| match finding {
            Finding::Missing { shard, first, last } => {
                *shard == named.shard && (*first..=*last).contains(&named.records)
            }
            _ => false,
        };
        self.listed.iter().any(is_it)
    }
}

impl Checker {
    /// Begins with the first line, without its line feed.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn begin(line: &[u8], trust: &Trust) -> Result<Self> {
        let header = Header::decode(line)?;
        let mut findings = Findings::default();
        if trust.log_key.number_of(&header.log_key).is_none() {
            findings.add(Finding::LogKey);
        }
        let mut shards = BTreeMap::new();
        let mut cosigned = Vec::new();
        for given in &header.shards {
            let checkpoint = published(&header, given, trust);
            if checkpoint.is_none() {
                findings.add(Finding::Checkpoint { shard: given.shard });
            }
            let published = checkpoint.as_ref().map(|signed| *signed.checkpoint().head());
            if published
                .is_some_and(|head| verify_consistency(&given.tree, &head, &given.consistency).is_err())
            {
                findings.add(Finding::Tree { shard: given.shard });
            }
            if let (FIRST_SHARD, Some(signed)) = (given.shard, &checkpoint) {
                cosigned = cosignatures(signed, trust, &mut findings);
            }
            let first = if given.shard == FIRST_SHARD {
                published
            } else {
                shards.get(&FIRST_SHARD).and_then(|first: &Shard| first.published)
            };
            let mut end = End::NONE;
            if let Some(base) = &given.base {
                match removed(&header, given, base, first.as_ref()) {
                    Some(stands) => end = stands,
                    None => findings.add(Finding::Base { shard: given.shard }),
                }
            }
            let report = ShardReport { removed: end.number, ..ShardReport::new(given.shard) };
            let shard = Shard { tree: given.tree, published, end, counted: end, report };
            shards.insert(given.shard, shard);
        }
        if cosigned.len() < trust.quorum {
            findings.add(Finding::Quorum { found: cosigned.len(), quorum: trust.quorum });
        }
        Ok(Self { header, shards, cosigned, view: None, place: None, lines: 1, findings })
    }

    /// Takes the next line, without its line feed.
    pub fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        if let Err(finding) = self.record(line) {
            self.findings.add(finding);
        }
    }

    /// The next line has no end.
    fn cut_off(&mut self) {
        self.lines += 1;
        self.findings.add(Finding::Line { line: self.lines });
    }

    fn record(&mut self, text: &[u8]) -> Result<(), Finding> {
        let line = self.lines;
        let given = ProvenRecord::decode(text).ok_or(Finding::Line { line })?;
        let record = given.record.as_bytes();
        let leaf = leaf_of_line(record).hash;
        let record = Record::from_line(record).ok_or(Finding::Line { line })?;
        if record.event.customer() != Some(self.header.customer) {
            return Err(Finding::Customer { line });
        }
        let link = record.chain.ok_or(Finding::Line { line })?;
        let shard = self.shards.get_mut(&given.shard).ok_or(Finding::Shard { line })?;
        let place = Some((given.shard, given.index));
        if place <= self.place || link.number <= shard.end.number {
            return Err(Finding::Order { line });
        }
        if let Some(head) = &shard.published {
            let proven = verify_inclusion(leaf, given.index, &given.proof, head);
            proven.map_err(|_| Finding::NotInLog { shard: given.shard, number: link.number })?;
        }
        self.place = place;
        // From here on, the record counts as given.
        let before = std::mem::replace(&mut shard.end, End { number: link.number, leaf });
        if link.number > before.number + 1 {
            let (first, last) = (before.number + 1, link.number - 1);
            self.findings.add(Finding::Missing { shard: given.shard, first, last });
        } else if link.previous != before.leaf {
            self.findings.add(Finding::Link { shard: given.shard, number: link.number });
        }
        shard.count(given.index, record.time);
        if given.shard == FIRST_SHARD {
            self.view = match record.event {
                Event::View(view) => Some((view, record.time)),
                _ => None,
            };
        }
        Ok(())
    }

    /// After the last line.
    #[must_use]
    pub fn finish(mut self) -> ViewReport {
        let view = self.view.take();
        match &view {
            None => self.findings.add(Finding::NoView),
            Some((view, _)) => self.compare(view),
        }
        ViewReport {
            store: self.header.store,
            customer: self.header.customer,
            shards: self.shards.into_values().map(|shard| shard.report).collect(),
            until: view.map(|(_, time)| time),
            cosigned: self.cosigned,
            findings: self.findings.listed,
            more: self.findings.more,
        }
    }

    /// Compares what the view counts with what is given.
    fn compare(&mut self, view: &View) {
        for named in &view.shards {
            let shard = self.shards.entry(named.shard).or_insert_with(|| Shard::absent(named));
            shard.report.counted = Some(named.records);
            let (end, counted) = (shard.end.number, shard.counted);
            let given = End { number: named.records, leaf: named.last };
            if end < named.records {
                self.findings.add(Finding::Missing {
                    shard: named.shard,
                    first: end + 1,
                    last: named.records,
                });
            } else if shard.tree != named.tree || counted != given && !self.findings.missing(named) {
                self.findings.add(Finding::Counted { shard: named.shard });
            }
        }
        let not_named = self.shards.values().filter(|shard| shard.report.counted.is_none());
        for shard in not_named {
            self.findings.add(Finding::NotNamed { shard: shard.report.shard });
        }
    }
}

impl Shard {
    /// One that the view names and the file does not have. It need not, if nothing in it
    /// is the customer's.
    fn absent(named: &ViewShard) -> Self {
        let report = ShardReport::new(named.shard);
        Self { tree: named.tree, published: None, end: End::NONE, counted: End::NONE, report }
    }

    /// Counts the record at the end.
    fn count(&mut self, index: u64, time: Timestamp) {
        if index < self.tree.size {
            self.counted = self.end;
        } else {
            self.report.later += 1;
        }
        let report = &mut self.report;
        report.records += 1;
        report.from = report.from.or(Some(self.end.number));
        report.first = Some(report.first.map_or(time, |first| first.min(time)));
        report.last = report.last.max(Some(time));
    }
}

/// Where a customer's chain stood when what came before was removed, if that is so.
fn removed(header: &Header, given: &ShardHeader, base: &ViewBase, first: Option<&TreeHead>) -> Option<End> {
    let ViewBase { line, number, path, record, index, proof } = base;
    verify_inclusion(leaf_of_line(record.as_bytes()).hash, *index, proof, first?).ok()?;
    let Event::Removal(named) = Record::from_line(record.as_bytes())?.event else { return None };
    let of = OfCustomer::from_line(line.as_bytes())?;
    verify_inclusion(of.leaf(), *number, path, &named.customers).ok()?;
    let is_it = (named.shard, of.customer) == (given.shard, header.customer);
    (is_it && named.tree.size <= given.tree.size).then_some(End { number: of.records, leaf: of.last })
}

/// A shard's checkpoint, if the log's key signed it for this shard of this store.
fn published(header: &Header, given: &ShardHeader, trust: &Trust) -> Option<SignedCheckpoint> {
    let signed = SignedCheckpoint::parse(given.checkpoint.as_bytes()).ok()?;
    trust.log_key.verify(&signed, (header.store, given.shard)).ok()?;
    Some(signed)
}

/// Which witnesses cosigned a checkpoint, and when. One key counts once.
fn cosignatures(
    signed: &SignedCheckpoint,
    trust: &Trust,
    findings: &mut Findings,
) -> Vec<(KeyName, Timestamp)> {
    let mut found = Vec::new();
    let mut counted = BTreeSet::new();
    for witness in &trust.witnesses {
        match signed.cosigned_by(witness) {
            Ok(Some(at)) if counted.insert(witness.public()) => found.push((witness.name().clone(), at)),
            Ok(_) => {}
            Err(_) => findings.add(Finding::Cosignature),
        }
    }
    found
}
