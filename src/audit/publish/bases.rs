//! The making of bases, one behind each segment ([`base`](crate::audit::base)).
//!
//! Separate from the segments, because a base waits until nothing before it is open, and because
//! it is made in two steps: what it is goes on record first, and then it is stored. So there is
//! no base that witnesses have not seen the digest of.

use bytes::Bytes;
use futures_util::stream::TryStreamExt;

use super::Publisher;
use super::segments::read_limit;
use super::tiles::unwritten;
use crate::audit::BaseRef;
use crate::audit::base::extract::{Earlier, Page, PageName};
use crate::audit::base::{Base, Draft};
use crate::audit::layout::Object;
use crate::audit::log::{LogReader, ShardReader};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::store::create::{Created, create_within};

/// A base that follows from the log, and is not stored yet.
#[derive(Debug)]
pub struct NewBase {
    base: Base,
    extract: Vec<u8>,
}

impl NewBase {
    /// What goes on record before it is stored.
    #[must_use]
    pub fn reference(&self) -> BaseRef {
        self.base.reference()
    }
}

impl Publisher {
    /// The first base of a shard that is missing behind a segment and can be made. `None` if
    /// there is none: then all are there, or something before the next one is open.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] or [`ErrorKind::UnsupportedFormat`] if a commit, a segment or the
    /// base before is not what was written, [`ErrorKind::AuditUnavailable`] if the storage does
    /// not answer.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn next_base(&self, shard: u16) -> Result<Option<NewBase>> {
        let reader = self.reader();
        let before = reader.newest_base(shard).await?;
        let begin = before.as_ref().map_or(0, |base| base.header().commits);
        let of_shard = reader.shard(shard).await?;
        let mut ends = of_shard.segments().iter().map(|segment| segment.last.saturating_add(1));
        let Some(end) = ends.find(|end| *end > begin) else { return Ok(None) };
        let Some(draft) = self.draft(&of_shard, before, end).await? else { return Ok(None) };
        let earlier = earlier(&reader, shard, &draft).await?;
        Ok(draft.finish(earlier).map(|(base, extract)| NewBase { base, extract }))
    }

    /// A base of so many commits, from what is behind the one before. `None` if something in
    /// them is open.
    async fn draft(&self, shard: &ShardReader, before: Option<Base>, end: u64) -> Result<Option<Draft>> {
        let wal = self.wal(shard.number());
        let mut head = before.as_ref().map_or_else(|| wal.empty(), |base| base.head(&self.authority));
        let mut draft = Draft::new(before, end);
        let mut commits = shard.commits(head.next()..u64::MAX, None);
        while let Some(commit) = commits.try_next().await? {
            head = wal.follow(&head, &commit)?;
            draft.take(&commit, &head);
            if draft.is_complete() {
                return Ok(Some(draft));
            }
        }
        Ok(None)
    }

    /// Stores a base, whose reference is on record: first its extract. One that another stored
    /// meanwhile is the same.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if another object stands in the place of one,
    /// [`ErrorKind::AuditUnavailable`], and those of
    /// [`LogSigner::sign`](crate::audit::signer::LogSigner::sign).
    ///
    /// # Cancel safety
    /// Stored or not, it can be called again.
    pub async fn keep_base(&self, new: NewBase) -> Result<()> {
        let NewBase { base, extract } = new;
        let (shard, commits) = (base.header().shard, base.header().commits);
        if !extract.is_empty() {
            self.create(Object::Extract { shard, commits }, extract.into()).await?;
        }
        // If we stop here, the extract is there and no base names it: whoever comes next
        // makes the same.
        let signer = self.signers_of(base.header().key.unwrap_or(1))?;
        let signer = signer.first().expect("there is one of that key or a later");
        let signature = self.signed(signer, &base.message()).await?;
        match self.create(Object::Base { shard, commits }, base.object(signature)).await {
            // Signed by another key of the log, perhaps.
            Err(error) if error.kind() == ErrorKind::Integrity => {
                match self.reader().base(shard, commits).await? {
                    Some(found) if found == base => Ok(()),
                    _ => Err(error),
                }
            }
            created => created,
        }
    }

    async fn create(&self, object: Object, bytes: Bytes) -> Result<()> {
        let limit = read_limit(self.limit);
        let created =
            create_within(limit, &*self.storage, &object.path(), bytes.into(), "store a base").await;
        match created {
            Ok(Created::Ours) => Ok(()),
            Ok(Created::Another) => {
                let sentence = format!("{object} of the audit log is not what its commits give");
                Err(Error::new(ErrorKind::Integrity, sentence))
            }
            Err(error) => Err(unwritten().with_source(error)),
        }
    }

    pub(super) fn reader(&self) -> LogReader {
        let limit = read_limit(self.limit);
        LogReader::open(self.storage.clone(), self.store, &self.authority, limit)
    }
}

/// What earlier bases have of those to whom a base adds something.
pub(in crate::audit) async fn earlier(reader: &LogReader, shard: u16, draft: &Draft) -> Result<Earlier> {
    let mut earlier = Earlier::default();
    let (Some(before), Some((filed, time))) = (draft.before(), draft.filed()) else { return Ok(earlier) };
    for (customer, pages) in filed.pages(time) {
        let Some(piece) = before.customer(customer).and_then(|of| of.contents) else { continue };
        let contents = reader.contents(shard, &piece).await?;
        for name in pages {
            let page: Option<Page> = reader.page(shard, &contents, name).await?;
            let of: (CustomerId, PageName) = (customer, name);
            earlier.pages.extend(page.map(|page| (of, page)));
        }
        earlier.contents.insert(customer, contents);
    }
    Ok(earlier)
}
