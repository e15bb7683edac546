//! Vouchers and pins: which versions on the keys storage the log stands for, where it can be found
//! without reading the log.
//!
//! A [voucher](crate::audit::voucher) is written before the version that it is for, and a pin behind
//! it. So a version with a voucher may exist, and one with a pin does: the newest pin is the oldest
//! version that a reader may be given.
//!
//! One object each: `voucher/<what>/<version>/<hash>/<key>` and `pin/<customer>/<version>`. A pin has one JSON line, and
//! behind it the two of the voucher; pins of before there were vouchers have the first alone. Both
//! are derived: the intent of each write holds the same, so they can be made again from the
//! commits.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tokio::time::{sleep, timeout};

use super::append::Backoff;
use super::wal::request_within;
use super::{Inner, Log};
use crate::audit::RingRef;
use crate::audit::layout::{Object, pins, pins_of};
use crate::audit::voucher::{Versioned, Vouched};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, RequestId};
use crate::store::create::{Created, create_within};

/// The newest version that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The version.
    pub version: RingRef,
    /// Its voucher, where the pin has one by the log's key that is in force.
    pub vouched: Option<Vouched>,
}

impl Log {
    /// Vouches for a version that is about to be written, or that the log is seen to have. When this
    /// returns, that is durable. `request` is the intent in the log.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if it could not be stored within the deadline, and then it may be
    /// stored later, which binds nobody; those of the log's key.
    ///
    /// # Cancel safety
    /// As after an error.
    pub async fn vouch(&self, of: Versioned, version: RingRef, request: RequestId) -> Result<Vouched> {
        let inner = &self.inner;
        let key = self.head().key();
        let pen = inner.pen(key).await?;
        let vouched = Vouched::sign(inner.config.store, (of, version), request, (key, &pen));
        let path = voucher_path(of, version, key);
        // Another may have vouched for the same bytes, as it found them in the log: that is as good.
        let _ = inner.create(&path, vouched.lines().to_vec().into(), "write a voucher").await?;
        Ok(vouched)
    }

    /// The voucher for a version, by the log's key that is in force. `None` if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn voucher(&self, of: Versioned, version: RingRef) -> Result<Option<Vouched>> {
        let path = voucher_path(of, version, self.inner.key.load(Relaxed));
        let stored = self.inner.read_small(&path).await?;
        Ok(stored.and_then(|lines| self.inner.vouched(&lines, of, version)))
    }

    /// Pins a version that there is, for which somebody vouched. Pinning it again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if the same version is pinned with another
    /// hash; [`ErrorKind::AuditUnavailable`] if it could not be stored within
    /// the deadline, and then it may be stored later.
    ///
    /// # Panics
    /// For the record of an epoch: the register names those.
    ///
    /// # Cancel safety
    /// It is pinned or it is not; pin it again.
    pub async fn pin(&self, vouched: &Vouched) -> Result<()> {
        let owner = self.inner.pinned_as(vouched.of());
        let version = vouched.version();
        let path = path(owner, version.version);
        let body = [line(&version).as_slice(), vouched.lines()].concat();
        if self.inner.create(&path, body.into(), "write a pin").await? == Created::Ours {
            return Ok(());
        }
        match self.inner.read_small(&path).await? {
            Some(stored) if pinned(&stored).is_some_and(|(pinned, _)| pinned == version) => Ok(()),
            _ => {
                let sentence =
                    format!("ring version {} of customer {owner} differs from its pin", version.version);
                Err(Error::new(ErrorKind::Integrity, sentence))
            }
        }
    }

    /// Everyone whose ring was pinned.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read,
    /// [`ErrorKind::Integrity`] if something else stands among the pins.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn pinned(&self) -> Result<Vec<CustomerId>> {
        let (inner, wal) = (&self.inner, self.inner.wal());
        let folder = pins();
        let listed = wal.storage.list_with_delimiter(Some(&folder));
        let Some(listed) = request_within(inner.config.deadline, listed).await? else {
            return Ok(Vec::new());
        };
        let read = |path: &Path| path.filename().and_then(|name| name.parse().ok());
        let stray = || Error::new(ErrorKind::Integrity, "something stands among the pins that is none");
        listed.common_prefixes.iter().map(|path| read(path).ok_or_else(stray)).collect()
    }

    /// The newest version that was pinned, `None` if none was.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if a pin is not as it was written,
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Panics
    /// For the records of epochs, which are not pinned.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn newest_pin(&self, of: Versioned) -> Result<Option<Pin>> {
        let (inner, wal) = (&self.inner, self.inner.wal());
        let owner = inner.pinned_as(of);
        let altered =
            || Error::new(ErrorKind::Integrity, format!("a ring pin of customer {owner} was altered"));
        let folder = pins_of(owner);
        let mut names = wal.storage.list(Some(&folder));
        let mut newest = None;
        while let Some(Some(meta)) = request_within(inner.config.deadline, names.try_next()).await? {
            let version = match Object::at(&meta.location) {
                Some(Object::Pin { customer: whose, version }) if whose == owner => version,
                _ => return Err(altered()),
            };
            newest = newest.max(Some(version));
        }
        let Some(version) = newest else { return Ok(None) };
        let stored = inner.read_small(&path(owner, version)).await?.ok_or_else(altered)?;
        let (pinned, lines) =
            pinned(&stored).filter(|(pinned, _)| pinned.version == version).ok_or_else(altered)?;
        let vouched = match lines.is_empty() {
            true => None,
            // Signed by nobody whom the log's keys endorsed: somebody else has been here.
            false => {
                let found = Vouched::verify(lines, inner.config.store, (of, pinned), &inner.authority);
                Some(found.ok_or_else(altered)?)
            }
        };
        let in_force = |vouched: &Vouched| vouched.key() >= inner.key.load(Relaxed);
        Ok(Some(Pin { version: pinned, vouched: vouched.filter(in_force) }))
    }
}

impl Inner {
    fn pinned_as(&self, of: Versioned) -> CustomerId {
        of.pinned_as(self.config.store).expect("the records of epochs are not pinned")
    }

    /// The voucher in these lines, if it is one by the log's key that is in force.
    fn vouched(&self, lines: &[u8], of: Versioned, version: RingRef) -> Option<Vouched> {
        let found = Vouched::verify(lines, self.config.store, (of, version), &self.authority)?;
        (found.key() >= self.key.load(Relaxed)).then_some(found)
    }

    /// Creates a small object, and asks again until the deadline.
    async fn create(self: &Arc<Self>, path: &Path, body: Bytes, what: &'static str) -> Result<Created> {
        let sentence = "the audit storage does not take what the log has to say of a ring";
        let unavailable = || Error::new(ErrorKind::AuditUnavailable, sentence);
        let mut last = None;
        let created = async {
            let (wal, mut backoff) = (self.wal(), Backoff::default());
            loop {
                // If we stop here, it stands without a caller who knows, as it does after a write
                // whose writer died.
                match create_within(wal.limit, &*wal.storage, path, body.clone().into(), what).await {
                    Err(error) if error.kind() == ErrorKind::Unavailable => last = Some(error),
                    created => return created,
                }
                sleep(backoff.after_failure(self)).await;
            }
        };
        match timeout(self.config.deadline, created).await {
            Ok(created) => created.map_err(|error| unavailable().with_source(error)),
            Err(elapsed) => Err(match last {
                Some(error) => unavailable().with_source(error),
                None => unavailable().with_source(elapsed),
            }),
        }
    }

    async fn read_small(&self, path: &Path) -> Result<Option<Bytes>> {
        let wal = self.wal();
        let read = async { wal.storage.get(path).await?.bytes().await };
        request_within(wal.limit, read).await
    }
}

fn voucher_path(of: Versioned, version: RingRef, key: u32) -> Path {
    Object::Voucher { of, version: version.version, hash: version.hash, key }.path()
}

fn path(customer: CustomerId, version: u64) -> Path {
    Object::Pin { customer, version }.path()
}

/// What is pinned, and the lines of its voucher if it has one. `None` if it is not in the one form
/// that is written.
pub(crate) fn pinned(pin: &[u8]) -> Option<(RingRef, &[u8])> {
    let (first, lines) = pin.split_at(pin.iter().position(|byte| *byte == b'\n')? + 1);
    let version: RingRef = serde_json::from_slice(first).ok()?;
    (line(&version) == first).then_some((version, lines))
}

fn line(ring: &RingRef) -> Vec<u8> {
    let mut line = serde_json::to_vec(ring).expect("a ring reference has string keys only");
    line.push(b'\n');
    line
}
