//! Pins: the newest ring version of each customer that the log knows of, where
//! it can be found without reading the log.
//!
//! One object a version, `pin/<customer>/<version, 16 hex digits>`, with one
//! JSON line in it. They are derived: the intent of each ring write holds the
//! same, so they can be made again from the commits.

use futures_util::stream::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode};
use tokio::time::{sleep, timeout};

use super::append::{Backoff, is_lasting};
use super::wal::request_within;
use super::{Inner, Log};
use crate::audit::RingRef;
use crate::audit::layout::{Object, pins, pins_of};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::store::store_error;

impl Log {
    /// Pins one version of a customer's ring. Pinning it again changes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if the same version is pinned with another
    /// hash; [`ErrorKind::AuditUnavailable`] if it could not be stored within
    /// the deadline, and then it may be stored later.
    ///
    /// # Cancel safety
    /// It is pinned or it is not; pin it again.
    pub async fn pin_ring(&self, customer: CustomerId, ring: RingRef) -> Result<()> {
        let unavailable = || Error::new(ErrorKind::AuditUnavailable, "the ring version could not be pinned");
        match timeout(self.inner.config.deadline, self.inner.pin(customer, &ring)).await {
            Ok(Err(error)) if error.kind() == ErrorKind::AuditUnavailable => {
                Err(unavailable().with_source(error))
            }
            Ok(pinned) => pinned,
            Err(elapsed) => Err(unavailable().with_source(elapsed)),
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

    /// The newest version of a customer's ring that was pinned, `None` if none
    /// was.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if a pin is not as it was written,
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn ring_pin(&self, customer: CustomerId) -> Result<Option<RingRef>> {
        let (inner, wal) = (&self.inner, self.inner.wal());
        let altered =
            || Error::new(ErrorKind::Integrity, format!("a ring pin of customer {customer} was altered"));
        let folder = pins_of(customer);
        let mut names = wal.storage.list(Some(&folder));
        let mut newest = None;
        while let Some(Some(meta)) = request_within(inner.config.deadline, names.try_next()).await? {
            let version = match Object::at(&meta.location) {
                Some(Object::Pin { customer: whose, version }) if whose == customer => version,
                _ => return Err(altered()),
            };
            newest = newest.max(Some(version));
        }
        let Some(version) = newest else { return Ok(None) };
        let stored = inner.read_pin(customer, version).await?.ok_or_else(altered)?;
        let ring: RingRef = serde_json::from_slice(&stored).map_err(|_| altered())?;
        if ring.version == version && body(&ring) == stored { Ok(Some(ring)) } else { Err(altered()) }
    }
}

impl Inner {
    async fn pin(&self, customer: CustomerId, ring: &RingRef) -> Result<()> {
        let (path, body) = (path(customer, ring.version), body(ring));
        let (wal, mut backoff) = (self.wal(), Backoff::default());
        loop {
            let put = wal.storage.put_opts(&path, body.clone().into(), PutMode::Create.into());
            let error = match timeout(wal.limit, put).await {
                // If we stop here, the pin stands without a caller who knows, as
                // it does after a ring write whose writer died.
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(object_store::Error::AlreadyExists { .. })) => {
                    if let Some(stored) = self.read_pin(customer, ring.version).await? {
                        let sentence = format!(
                            "ring version {} of customer {customer} differs from its pin",
                            ring.version
                        );
                        let differs = || Error::new(ErrorKind::Integrity, sentence);
                        return if stored == body { Ok(()) } else { Err(differs()) };
                    }
                    // Taken and not there: the storage is of two minds.
                    sleep(backoff.after_failure(self)).await;
                    continue;
                }
                Ok(Err(error)) => error,
                // Asking again settles whether it was stored.
                Err(_) => continue,
            };
            if is_lasting(&error) {
                return Err(Error::new(
                    ErrorKind::AuditUnavailable,
                    "the audit storage refuses to be written",
                )
                .with_source(store_error(error, "write a pin")));
            }
            sleep(backoff.after_failure(self)).await;
        }
    }

    async fn read_pin(&self, customer: CustomerId, version: u64) -> Result<Option<Vec<u8>>> {
        let (path, wal) = (path(customer, version), self.wal());
        let read = async { wal.storage.get(&path).await?.bytes().await };
        Ok(request_within(wal.limit, read).await?.map(|bytes| bytes.to_vec()))
    }
}

fn path(customer: CustomerId, version: u64) -> Path {
    Object::Pin { customer, version }.path()
}

fn body(ring: &RingRef) -> Vec<u8> {
    let mut line = serde_json::to_vec(ring).expect("a ring reference has string keys only");
    line.push(b'\n');
    line
}
