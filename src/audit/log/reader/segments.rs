//! Reading segments: their headers, or all of them.
//!
//! Separate from the shard, because a commit is an object of a few kilobytes and a
//! segment one of many megabytes, of which mostly the beginning is enough.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{MAX_SEGMENT, ShardReader, fetch};
use crate::audit::layout::{Object, SegmentName};
use crate::audit::segment::{Header, Segment};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::system::work;

/// How much of a segment is read first when its header is wanted, in bytes.
const HEADER_GUESS: u64 = 64 << 10;

impl ShardReader {
    /// A segment, or `None` if it has no record of any of `customers`.
    pub(super) async fn segment(
        &self,
        name: &SegmentName,
        customers: Option<&BTreeSet<CustomerId>>,
    ) -> Result<Option<Segment>> {
        let mut whole = None;
        if let Some(customers) = customers {
            let (header, read) = self.segment_header(name).await?;
            if !header.customers.iter().any(|customer| customers.contains(customer)) {
                return Ok(None);
            }
            whole = read;
        }
        let bytes = match whole {
            Some(bytes) => bytes,
            None => self.segment_bytes(name, None).await?.0,
        };
        let authority = self.wal.authority.clone();
        let decode = || async {
            let (bytes, authority) = (bytes.clone(), authority.clone());
            // Milliseconds for each megabyte; others use this thread.
            let decoded = work(move || Segment::decode(&bytes, &authority)).await;
            decoded.map_err(|error| {
                Error::new(ErrorKind::Unavailable, "a segment of the audit log was not decoded")
                    .with_source(error)
            })
        };
        let decoded = match decode().await? {
            Err(_) if self.wal.learn().await? => decode().await?,
            decoded => decoded,
        };
        let segment = decoded.map_err(|error| of_segment(name, error))?;
        self.check_place(name, segment.header())?;
        Ok(Some(segment))
    }

    /// The header of a segment, and all of it if it is small. Mostly only the
    /// beginning is read.
    pub(super) async fn segment_header(&self, name: &SegmentName) -> Result<(Header, Option<Bytes>)> {
        let mut guess = HEADER_GUESS;
        loop {
            let (bytes, size) = self.segment_bytes(name, Some(guess)).await?;
            let decoded = match Header::decode(&bytes, &self.wal.authority) {
                Err(_) if self.wal.learn().await? => Header::decode(&bytes, &self.wal.authority),
                decoded => decoded,
            };
            let whole = bytes.len() as u64 >= size;
            match decoded.map_err(|error| of_segment(name, error))? {
                Some((header, _)) => {
                    self.check_place(name, &header)?;
                    return Ok((header, whole.then_some(bytes)));
                }
                None if whole => {
                    let ends = Error::new(ErrorKind::Integrity, "it ends before its header does");
                    return Err(of_segment(name, ends));
                }
                None => guess = guess.saturating_mul(16),
            }
        }
    }

    fn check_place(&self, name: &SegmentName, header: &Header) -> Result<()> {
        if (header.store, header.name()) == (self.wal.store, *name) {
            return Ok(());
        }
        Err(of_segment(
            name,
            Error::new(ErrorKind::Integrity, "it belongs to another store or another place"),
        ))
    }

    /// A segment or its first bytes, and how long it is.
    async fn segment_bytes(&self, name: &SegmentName, first: Option<u64>) -> Result<(Bytes, u64)> {
        let path = Object::Segment(*name).path();
        match fetch(&self.wal.storage, self.wal.limit, &path, first).await? {
            Some((bytes, mark)) if mark.size <= MAX_SEGMENT => Ok((bytes, mark.size)),
            Some(_) => Err(of_segment(name, Error::new(ErrorKind::Integrity, "it is too large"))),
            None => Err(of_segment(name, Error::new(ErrorKind::Integrity, "it was listed and is missing"))),
        }
    }
}

fn of_segment(name: &SegmentName, error: Error) -> Error {
    let SegmentName { shard, first, last, .. } = name;
    let sentence = format!("segment {first} to {last} of shard {shard:04x} of the log cannot be accepted");
    Error::new(error.kind(), sentence).with_source(error)
}
