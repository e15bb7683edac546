//! The making of a customer's view, in the format of [`view`](crate::audit::view).
//!
//! Separate from its check, which needs no storage. A commit lists the customers in its
//! span, so that spans without the customer are passed over, however long they are.
//!
//! Invariant: what was given out to the end is a view that
//! [`check`](crate::audit::view::check) finds complete: every line went through it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::{Publisher, StoredTree};
use crate::audit::chains::Chains;
use crate::audit::commit::Commit;
use crate::audit::layout::FIRST_SHARD;
use crate::audit::log::wal::Wal;
use crate::audit::view::{Checker, Header, ProvenRecord, ShardHeader, Trust, ViewBase};
use crate::audit::{BaseRef, Event, Record, View, ViewShard};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;

/// Commits read at once.
const READ_AHEAD: usize = 16;

/// Records proven at once: each takes a tile of its own, of 8 KiB, at most.
const BATCH: usize = 512;

impl Publisher {
    /// The file that a customer is given, in pieces: its records in all shards up to
    /// `view`, which [`Log::record_view`](crate::audit::log::Log::record_view) recorded
    /// and which has been published since, as have the shards that it names.
    ///
    /// What came before an error is not to be given away.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the view is not published, and
    /// [`ErrorKind::NotFound`] if it is not recorded. [`ErrorKind::Integrity`] or
    /// [`ErrorKind::UnsupportedFormat`] if the log is not what was written, or the view
    /// not true; [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn view(&self, view: &View) -> Result<BoxStream<'static, Result<Bytes>>> {
        let (mut shards, mut headers) = (VecDeque::new(), Vec::new());
        let (at, removals) = self.place(view).await?;
        for counted in view.shards.iter().filter(|of| of.records > 0 || of.shard == FIRST_SHARD) {
            let (shard, header) = self.shard_of(view, counted, (at, &removals)).await?;
            shards.push_back(shard);
            headers.push(header);
        }
        let log_key = self.authority.newest().1;
        let header = Header::new(self.store, view.customer, log_key, headers).to_line();
        let checker =
            Checker::begin(&header[..header.len() - 1], &Trust::new(&self.authority, Vec::new(), 0)?)?;
        let export = Export { customer: view.customer, shards, current: None, checker: Some(checker) };
        let records = stream::try_unfold(export, |mut export| async move {
            Ok(export.next().await?.map(|lines| (lines, export)))
        });
        Ok(stream::iter([Ok(Bytes::from(header))]).chain(records).boxed())
    }

    /// Where the customer's records in one shard are, and what the first line says of
    /// it.
    async fn shard_of(
        &self,
        view: &View,
        counted: &ViewShard,
        (at, removals): (u64, &[(u64, BaseRef, Record)]),
    ) -> Result<(Shard, ShardHeader)> {
        let shard = counted.shard;
        let (wal, end) = self.commits(shard).await?;
        let begin = removals.iter().find(|(_, base, _)| base.shard == shard);
        let begin = begin.map_or(0, |(_, base, _)| base.commits);
        let commits = commits_of(&wal, begin..end, view.customer).await?;
        let until = if shard == FIRST_SHARD { at + 1 } else { counted.tree.size };
        let checkpoint = self.checkpoint(shard).await?.ok_or_else(|| behind(shard))?;
        let head = *checkpoint.checkpoint().head();
        if head.size < until {
            return Err(behind(shard));
        }
        let tree = self.tree(shard, head);
        let consistency = tree.consistency(counted.tree.size).await?;
        if consistency.old != counted.tree {
            return Err(contradicted(shard));
        }
        let header = ShardHeader {
            shard,
            tree: counted.tree,
            consistency: consistency.proof,
            checkpoint: checkpoint.to_string(),
            base: self.base_of(view.customer, shard, removals).await?,
        };
        Ok((Shard { wal, commits, until, tree: Arc::new(tree) }, header))
    }
}

type Removals = Vec<(u64, BaseRef, Record)>;

impl Publisher {
    /// The index of the record of a view in the first shard, and the removals that stand before
    /// it in its commit.
    async fn place(&self, view: &View) -> Result<(u64, Removals)> {
        let (wal, end) = self.commits(FIRST_SHARD).await?;
        let begin = self.reader().shard(FIRST_SHARD).await?.begin();
        // It is among the newest.
        for seq in commits_of(&wal, begin..end, view.customer).await?.into_iter().rev() {
            let (commit, _) = wal.commit(seq).await?.ok_or_else(|| wal.missing(seq))?;
            let records: Vec<(u64, Record)> = placed(commit).collect();
            let is_it =
                |(_, record): &&(u64, Record)| matches!(&record.event, Event::View(found) if found == view);
            if let Some((index, _)) = records.iter().find(is_it) {
                let (index, mut removals) = (*index, Removals::new());
                for (index, record) in records {
                    if let Event::Removal(base) = record.event {
                        removals.push((index, base, record));
                    }
                }
                return Ok((index, removals));
            }
        }
        Err(Error::new(ErrorKind::NotFound, "the view is not in the audit log"))
    }

    /// What stands for the first records of a customer in a shard, if those were removed.
    async fn base_of(
        &self,
        customer: CustomerId,
        shard: u16,
        removals: &[(u64, BaseRef, Record)],
    ) -> Result<Option<ViewBase>> {
        let Some((index, named, record)) = removals.iter().find(|(_, base, _)| base.shard == shard) else {
            return Ok(None);
        };
        let base = self.reader().base(shard, named.commits).await?;
        let base = base.filter(|base| base.reference() == *named).ok_or_else(|| contradicted(shard))?;
        let Some((of, number, path)) = base.prove(customer) else { return Ok(None) };
        let checkpoint = self.checkpoint(FIRST_SHARD).await?.ok_or_else(|| behind(FIRST_SHARD))?;
        let tree = self.tree(FIRST_SHARD, *checkpoint.checkpoint().head());
        let text = |line: Vec<u8>| String::from_utf8(line).expect("lines of a base and of a log are ASCII");
        Ok(Some(ViewBase {
            line: text(of.to_line()),
            number,
            path,
            record: text(record.to_line()),
            index: *index,
            proof: tree.inclusion(*index).await?.path,
        }))
    }
}

/// The numbers of the commits with records of a customer in a range, in order. Behind removed
/// commits, others may be among them.
async fn commits_of(wal: &Wal, range: Range<u64>, customer: CustomerId) -> Result<Vec<u64>> {
    // What commits that were looked at list for the customer.
    let mut listed = BTreeMap::new();
    let mut next = Chains::listed_by(range.end);
    while !next.is_empty() {
        next.retain(|seq| range.contains(seq));
        next.sort_unstable();
        let read = stream::iter(std::mem::take(&mut next)).map(|seq| async move {
            let header = wal.header(seq).await?.ok_or_else(|| wal.missing(seq))?;
            let end = header.chains.into_iter().find(|end| end.customer == customer);
            Ok::<_, Error>(end.map(|end| (seq, end.records)))
        });
        let mut read = read.buffer_unordered(READ_AHEAD);
        while let Some(found) = read.try_next().await? {
            if let Some((seq, records)) = found {
                listed.insert(seq, records);
                next.extend(parts(seq));
            }
        }
    }
    // One that lists more than the span before it within its own has the rest itself.
    let before = |seq| parts(seq).into_iter().rev().find_map(|part| listed.get(&part));
    Ok(listed.iter().filter(|(seq, records)| before(**seq) != Some(records)).map(|(seq, _)| *seq).collect())
}

/// The commits whose spans the span of commit `seq` is made of, itself apart, the
/// longest span first.
fn parts(seq: u64) -> Vec<u64> {
    // The bits of its number, counted from 1, without the lowest: where the span begins.
    let begin = (seq + 1) & seq;
    Chains::listed_by(seq).into_iter().filter(|part| *part >= begin).collect()
}

/// The records of a commit with their indices in the tree.
fn placed(commit: Commit) -> impl Iterator<Item = (u64, Record)> {
    (commit.header().old.size..).zip(commit.into_records())
}

/// One shard of a view.
struct Shard {
    wal: Wal,
    /// The commits with records of the customer, and later ones.
    commits: Vec<u64>,
    /// The index behind the last record.
    until: u64,
    tree: Arc<StoredTree>,
}

type Batches = BoxStream<'static, Result<Vec<(u64, Record)>>>;

impl Shard {
    /// The customer's records, in order.
    fn records(&self, customer: CustomerId) -> Batches {
        let (wal, until) = (self.wal.clone(), self.until);
        let commits = stream::iter(self.commits.clone()).map(move |seq| {
            let wal = wal.clone();
            async move { Ok::<_, Error>(wal.commit(seq).await?.ok_or_else(|| wal.missing(seq))?.0) }
        });
        let within =
            move |commit: &Commit| std::future::ready(Ok::<_, Error>(commit.header().old.size < until));
        let of_customer = move |(index, record): &(u64, Record)| {
            *index < until && record.event.customer() == Some(customer)
        };
        let records = commits.buffered(READ_AHEAD).try_take_while(within);
        let records = records.map_ok(move |commit| stream::iter(placed(commit).filter(of_customer).map(Ok)));
        records.try_flatten().try_chunks(BATCH).map_err(|error| error.1).boxed()
    }
}

/// A view under way.
struct Export {
    customer: CustomerId,
    shards: VecDeque<Shard>,
    current: Option<(u16, Arc<StoredTree>, Batches)>,
    /// Until the end.
    checker: Option<Checker>,
}

impl Export {
    /// The next lines.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some((shard, tree, batches)) = &mut self.current
                && let Some(batch) = batches.try_next().await?
            {
                let (shard, tree) = (*shard, Arc::clone(tree));
                return Ok(Some(self.lines(shard, &tree, batch).await?));
            }
            self.current = match self.shards.pop_front() {
                Some(shard) => {
                    let records = shard.records(self.customer);
                    Some((shard.wal.shard, shard.tree, records))
                }
                None => return self.finish(),
            }
        }
    }

    async fn lines(&mut self, shard: u16, tree: &StoredTree, batch: Vec<(u64, Record)>) -> Result<Bytes> {
        let indices: Vec<u64> = batch.iter().map(|(index, _)| *index).collect();
        let inclusions = tree.inclusions(&indices).await?;
        let mut lines = Vec::new();
        for ((index, record), inclusion) in batch.into_iter().zip(inclusions) {
            let record = String::from_utf8(record.to_line()).expect("a record's line is ASCII");
            let line = ProvenRecord { shard, index, proof: inclusion.path, record }.to_line();
            if let Some(checker) = &mut self.checker {
                checker.line(&line[..line.len() - 1]);
            }
            lines.extend_from_slice(&line);
        }
        Ok(lines.into())
    }

    /// Does for the customer what the customer will do.
    fn finish(&mut self) -> Result<Option<Bytes>> {
        let Some(report) = self.checker.take().map(Checker::finish) else { return Ok(None) };
        match report.findings.first() {
            None => Ok(None),
            Some(finding) => {
                let sentence = "the log does not have what the customer's view counts";
                Err(Error::new(ErrorKind::Integrity, sentence).with_source(finding.to_string()))
            }
        }
    }
}

fn behind(shard: u16) -> Error {
    let sentence = format!(
        "the view is recorded and shard {shard:04x} of the audit log is not published up to it: publish it first"
    );
    Error::new(ErrorKind::Unavailable, sentence)
}

fn contradicted(shard: u16) -> Error {
    let sentence =
        format!("what is published of shard {shard:04x} of the audit log is not what the view counts");
    Error::new(ErrorKind::Integrity, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every commit of a span is reached through the parts, once.
    #[test]
    fn a_span_is_its_commit_and_its_parts() {
        fn span(seq: u64, found: &mut Vec<u64>) {
            parts(seq).into_iter().for_each(|part| span(part, found));
            found.push(seq);
        }
        for seq in 0..300 {
            let mut found = Vec::new();
            span(seq, &mut found);
            let length = 1 << (seq + 1).trailing_zeros();
            assert_eq!(found, (seq + 1 - length..=seq).collect::<Vec<_>>());
        }
    }
}
