//! What programs need of the log for as long as blobs live: how they are wrapped, which keys
//! were dropped, how epochs ended. It comes from the newest base of each shard, however old it
//! is, and from the commits behind the base.
//!
//! Separate from [`query`](super::query), which answers people and reads all there is in between
//! two times. Here nothing is read of most days, and what was removed of the log is not missed.
//!
//! Invariant: for an operation that is filed under a shelf that is asked for
//! ([`shelves`]), it does not matter whether the base has it or a commit behind it: it is given
//! out once.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::base::Base;
use super::base::extract::{Contents, Page, PageName, Part, Shelf, decode_operations, shelves};
use super::layout::FIRST_SHARD;
use super::log::{LogReader, ShardReader};
use super::operation::Operation;
use super::query::{Filter, merged, tail};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::time::Timestamp;

/// Pieces that are read at once.
const READ_AHEAD: usize = 8;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// What is filed under these shelves.
    Shelves(BTreeSet<Shelf>),
    /// What concerns the customer itself: from this time on, or all of it.
    Customer(Option<Timestamp>),
    /// Everything that is kept.
    All,
}

impl Need {
    fn has(&self, shelf: Shelf) -> bool {
        match self {
            Self::Shelves(wanted) => wanted.contains(&shelf),
            Self::Customer(_) => shelf == Shelf::Customer,
            Self::All => true,
        }
    }

    /// The pages of the contents that may have it.
    fn pages(&self, contents: &Contents) -> Vec<PageName> {
        let may_have = |name: &PageName| match self {
            // Not of `Customer`, which is asked for by time.
            Self::Shelves(wanted) => match name {
                PageName::Customer(_) => wanted.contains(&Shelf::Customer),
                name => wanted.iter().any(|shelf| PageName::of(*shelf, Timestamp::MAX) == *name),
            },
            Self::Customer(None) => matches!(name, PageName::Customer(_)),
            Self::Customer(Some(from)) => name.may_be_since(*from),
            Self::All => true,
        };
        contents.keys().copied().filter(may_have).collect()
    }

    /// The parts of a page that have it.
    fn parts<'a>(&'a self, page: &'a Page) -> impl Iterator<Item = (Shelf, Part)> + 'a {
        let from = if let Self::Customer(from) = self { *from } else { None };
        let wanted = page.iter().filter(|(shelf, _)| self.has(**shelf));
        let parts = wanted.flat_map(|(shelf, parts)| parts.iter().map(|part| (*shelf, *part)));
        parts.filter(move |(_, part)| from.is_none_or(|from| from <= part.until))
    }

    /// Whether an operation is wanted, and is given out where it is filed under this shelf: it
    /// may be filed under several.
    fn takes(&self, operation: &Operation, filed: Option<Shelf>) -> bool {
        let first = shelves(operation.intent()).into_iter().find(|shelf| self.has(*shelf));
        let from = if let Self::Customer(Some(from)) = self { Some(*from) } else { None };
        first.is_some_and(|first| filed.is_none_or(|filed| filed == first))
            && from.is_none_or(|from| from <= operation.intent_entry().time)
    }
}

/// The shards of a log as they are now, each with its newest base.
#[derive(Clone, Debug)]
pub struct History {
    reader: LogReader,
    shards: Vec<(ShardReader, Option<Arc<Base>>)>,
}

impl History {
    /// Reads the newest bases, and checks that the storage has each shard that the first shard names, with as
    /// many records as it says.
    ///
    /// # Errors
    /// As [`LogReader::shard`] and [`LogReader::newest_base`];
    /// [`ErrorKind::Integrity`] also if a shard or its last records are missing.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn open(reader: &LogReader) -> Result<Self> {
        let open = |shard| async move {
            // The base first: what is behind it is there when the end is searched for.
            let base = reader.newest_base(shard).await?.map(Arc::new);
            Ok::<_, Error>((reader.shard(shard).await?, base))
        };
        // The first shard first: the others have grown to what it says of them before we read them.
        let first = open(FIRST_SHARD).await?;
        let others = reader.shards().await?.into_iter().filter(|shard| *shard != FIRST_SHARD);
        let mut shards = try_join_all(others.map(open)).await?;
        shards.insert(0, first);
        let history = Self { reader: reader.clone(), shards };
        history.check_named().await?;
        Ok(history)
    }

    /// Refuses a log of which somebody deleted a shard: the list of the storage leaves it out, and its blobs would
    /// look as if they had never been sealed or extended.
    async fn check_named(&self) -> Result<()> {
        let (first, base) = &self.shards[0];
        let named = self.reader.named(first, base.as_deref()).await?;
        for (shard, size) in named.into_iter().filter(|(_, size)| *size > 0) {
            let found = self.shards.iter().find(|(found, _)| found.number() == shard);
            let records = match found {
                Some((found, base)) => {
                    let of_base = base.as_ref().map_or(0, |base| base.header().size);
                    of_base.max(found.records().await?)
                }
                None => 0,
            };
            if records < size {
                let sentence = format!("commits of shard {shard:04x} of the audit log are missing");
                return Err(Error::new(ErrorKind::Integrity, sentence));
            }
        }
        Ok(())
    }

    /// The customers whose operations the bases keep.
    #[must_use]
    pub fn customers(&self) -> BTreeSet<CustomerId> {
        let bases = self.shards.iter().filter_map(|(_, base)| base.as_ref());
        let kept = bases.flat_map(|base| base.customers()).filter(|of| of.contents.is_some());
        kept.map(|of| of.customer).collect()
    }

    /// The operations that are kept of a customer, or of all, and wanted: those of the bases in
    /// no order, and then those behind them by time. The stream ends with the first error.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read; [`ErrorKind::Integrity`] or
    /// [`ErrorKind::UnsupportedFormat`] if what was to be read is missing, or is not what the log's key stands for.
    #[must_use]
    pub fn operations(
        &self,
        customer: Option<CustomerId>,
        wanted: &Need,
    ) -> BoxStream<'static, Result<Operation>> {
        let wanted = Arc::new(wanted.clone());
        let mut bases = Vec::new();
        let mut tails = Vec::new();
        for (shard, base) in &self.shards {
            let number = shard.number();
            let of = |base: &Arc<Base>| match customer {
                Some(customer) => base.customer(customer).copied().into_iter().collect(),
                None => base.customers().to_vec(),
            };
            let of = base.as_ref().map(of).unwrap_or_default();
            let contents = of.into_iter().filter_map(move |of| Some((number, of.contents?)));
            bases.extend(contents);
            let begin = base.as_ref().map_or(shard.begin(), |base| base.header().commits);
            let filter = Filter { customer, ..Filter::default() };
            tails.push(tail(shard.clone(), begin, Arc::new(filter)));
        }
        let (reader, of_bases) = (self.reader.clone(), Arc::clone(&wanted));
        let pieces = stream::iter(bases).map(move |(shard, contents)| {
            let (reader, wanted) = (reader.clone(), Arc::clone(&of_bases));
            async move {
                let contents = reader.contents(shard, &contents).await?;
                let pages =
                    wanted.pages(&contents).into_iter().map(|name| reader.page(shard, &contents, name));
                let pages = try_join_all(pages).await?;
                let parts = pages.iter().flatten().flat_map(|page| wanted.parts(page));
                let parts: Vec<_> = parts.map(|(shelf, part)| Ok::<_, Error>((shard, shelf, part))).collect();
                Ok::<_, Error>(stream::iter(parts))
            }
        });
        let (reader, of_bases) = (self.reader.clone(), Arc::clone(&wanted));
        let read = pieces.buffered(READ_AHEAD).try_flatten().map_ok(move |(shard, shelf, part)| {
            let (reader, wanted) = (reader.clone(), Arc::clone(&of_bases));
            async move {
                let bytes = reader.piece(shard, &part.piece).await?;
                let mut operations = decode_operations(shard, &bytes)?;
                operations.retain(|operation| wanted.takes(operation, Some(shelf)));
                Ok(stream::iter(operations.into_iter().map(Ok)))
            }
        });
        let old = read.try_buffered(READ_AHEAD).try_flatten();
        let new =
            merged(tails).try_filter(move |operation| std::future::ready(wanted.takes(operation, None)));
        old.chain(new).boxed()
    }
}
