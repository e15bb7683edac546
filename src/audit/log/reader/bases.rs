//! Reading bases, and the pieces of extracts that they name.
//!
//! Separate from the shard, because who starts at a base needs no commit before it.

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use super::LogReader;
use crate::audit::base::extract::{Contents, Page, PageName, Piece, decode};
use crate::audit::base::{self, Base};
use crate::audit::layout::{self, Object};
use crate::audit::log::wal::request_within;
use crate::error::{Error, ErrorKind, Result};
use crate::merkle::Hash;

/// No piece is longer, in bytes: a segment's worth of records, and far more than a page.
const MAX_PIECE: u64 = 256 << 20;

impl LogReader {
    /// The newest base of a shard, `None` if it has none.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read, [`ErrorKind::Integrity`] or
    /// [`ErrorKind::UnsupportedFormat`] if what stands there is not one that the log's key signed.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn newest_base(&self, shard: u16) -> Result<Option<Base>> {
        let saved = self.wal(shard).saved().await?;
        let covered = saved.map_or(0, |saved| saved.covered);
        let mut newest = self.last_base(shard, covered).await?;
        if newest.is_none() && covered > 0 {
            newest = self.last_base(shard, 0).await?;
        }
        let Some(commits) = newest else { return Ok(None) };
        let found = self.base(shard, commits).await?;
        found.map(Some).ok_or_else(|| of_base(shard, commits, "it was listed and is missing"))
    }

    /// The number of commits of the last base that is of so many or more.
    async fn last_base(&self, shard: u16, commits: u64) -> Result<Option<u64>> {
        let folder = layout::bases_of(shard);
        let mut list = match commits.checked_sub(1) {
            None => self.storage.list(Some(&folder)),
            Some(before) => {
                let before = Object::Base { shard, commits: before }.path();
                self.storage.list_with_offset(Some(&folder), &before)
            }
        };
        let mut last = None;
        while let Some(Some(meta)) = request_within(self.limit, list.try_next()).await? {
            if let Some(Object::Base { commits, .. }) = Object::at(&meta.location) {
                last = last.max(Some(commits));
            }
        }
        Ok(last)
    }

    /// The base of `commits` commits of a shard, `None` if there is none.
    ///
    /// # Errors
    /// As [`LogReader::newest_base`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn base(&self, shard: u16, commits: u64) -> Result<Option<Base>> {
        let found = self.get(&Object::Base { shard, commits }.path(), base::MAX_LEN).await?;
        let Some(bytes) = found else { return Ok(None) };
        let decoded = match Base::decode(&bytes, &self.authority) {
            Err(_) if self.wal(shard).learn().await? => Base::decode(&bytes, &self.authority),
            decoded => decoded,
        };
        let base = decoded.map_err(|error| {
            let sentence =
                format!("the base of {commits} commits of shard {shard:04x} of the log cannot be used");
            Error::new(error.kind(), sentence).with_source(error)
        })?;
        let header = base.header();
        if (header.store, header.shard, header.commits) != (self.store, shard, commits) {
            return Err(of_base(shard, commits, "it belongs to another store or another place"));
        }
        Ok(Some(base))
    }

    /// Whether there is a base of `commits` commits of a shard. It is not read.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn has_base(&self, shard: u16, commits: u64) -> Result<bool> {
        let path = Object::Base { shard, commits }.path();
        Ok(request_within(self.limit, self.storage.head(&path)).await?.is_some())
    }

    /// A piece of an extract, whose hash is as it was named.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it is missing or another; [`ErrorKind::AuditUnavailable`].
    pub(in crate::audit) async fn piece(&self, shard: u16, piece: &Piece) -> Result<Bytes> {
        let wrong = |what| {
            let sentence =
                format!("the extract of {} commits of shard {shard:04x} of the log {what}", piece.base);
            Error::new(ErrorKind::Integrity, sentence)
        };
        if piece.length > MAX_PIECE {
            return Err(wrong("cannot be as long as it is named"));
        }
        let path = Object::Extract { shard, commits: piece.base }.path();
        let end =
            piece.at.checked_add(piece.length).ok_or_else(|| wrong("cannot be as long as it is named"))?;
        let options = GetOptions::new().with_range(Some(GetRange::Bounded(piece.at..end)));
        let read = async { self.storage.get_opts(&path, options).await?.bytes().await };
        let bytes = match request_within(self.limit, read).await {
            Ok(found) => found.ok_or_else(|| wrong("is missing"))?,
            // What a storage says of a range that is not there differs.
            Err(error) => {
                let stored = request_within(self.limit, self.storage.head(&path)).await?;
                let is_short = stored.is_some_and(|stored| stored.size < end);
                return Err(if is_short { wrong("is not what its base names") } else { error });
            }
        };
        if Hash::of(&bytes) != piece.hash {
            return Err(wrong("is not what its base names"));
        }
        Ok(bytes)
    }

    /// The contents that a base has of a customer.
    pub(in crate::audit) async fn contents(&self, shard: u16, piece: &Piece) -> Result<Contents> {
        decode(&self.piece(shard, piece).await?)
    }

    /// A page, if the contents have it.
    pub(in crate::audit) async fn page(
        &self,
        shard: u16,
        contents: &Contents,
        name: PageName,
    ) -> Result<Option<Page>> {
        let Some(piece) = contents.get(&name) else { return Ok(None) };
        decode(&self.piece(shard, piece).await?).map(Some)
    }
}

fn of_base(shard: u16, commits: u64, what: &'static str) -> Error {
    let sentence = format!("the base of {commits} commits of shard {shard:04x} of the log cannot be used");
    Error::new(ErrorKind::Integrity, sentence).with_source(what)
}
