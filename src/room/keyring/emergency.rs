//! Rings and keys in an emergency, while the log cannot be asked what it knows of rings.
//!
//! The log pins the newest version of each ring, so that no node goes on with an older one.
//! Where it cannot be read, what this node has seen itself stands for the pin: a ring that
//! it never read is refused, and so is one that does not follow from the last that it
//! read. What another node wrote since, and somebody took back on the keys storage, is not
//! noticed until the log is there again.
//!
//! Separate from the keyring, so that what an emergency loosens is on one page.

use std::sync::Arc;

use tokio::time::timeout;

use super::{Asker, CustomerKeys, Keyring};
use crate::audit::RingRef;
use crate::audit::log::emergency::WAIT;
use crate::cache::Cached;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;

impl Keyring {
    /// What the log pins of a customer's ring. `None`: it cannot be asked, it is an
    /// emergency, and this node has seen the ring before.
    pub(super) async fn pin(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        keys: &CustomerKeys,
    ) -> Result<Option<Option<RingRef>>> {
        if !self.log.is_in_emergency(asker.access) {
            return self.log.ring_pin(customer).await.map(Some);
        }
        let message = "the audit log cannot say which ring is the newest";
        let pin = match timeout(WAIT, self.log.ring_pin(customer)).await {
            Ok(pin) => pin,
            Err(elapsed) => Err(Error::new(ErrorKind::AuditUnavailable, message).with_source(elapsed)),
        };
        match pin {
            Err(error) if error.kind() == ErrorKind::AuditUnavailable && keys.newest_version().is_some() => {
                Ok(None)
            }
            pin => pin.map(Some),
        }
    }

    /// Pins a version that was found unpinned. In an emergency nobody waits for the log: the
    /// next one who reads the ring pins it.
    pub(super) async fn pin_found(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        found: RingRef,
    ) -> Result<()> {
        if !self.log.is_in_emergency(asker.access) {
            return self.log.pin_ring(customer, found).await;
        }
        match timeout(WAIT, self.log.pin_ring(customer, found)).await {
            Ok(Err(error)) if error.kind() != ErrorKind::AuditUnavailable => Err(error),
            _ => Ok(()),
        }
    }

    /// What a cell holds, or what `load` gives. In an emergency the failure of somebody
    /// else's load, who had to wait for the log, is not ours.
    pub(super) async fn cached<T, F>(
        &self,
        asker: Asker<'_>,
        cell: &Cached<T>,
        load: impl Fn() -> F,
    ) -> Result<Arc<T>>
    where
        F: Future<Output = Result<T>>,
    {
        match cell.get(&*self.clock, self.limits, load()).await {
            Err(error)
                if error.kind() == ErrorKind::AuditUnavailable && self.log.is_in_emergency(asker.access) =>
            {
                load().await.map(Arc::new)
            }
            found => found,
        }
    }

    /// Whether this node has read a ring of the customer since it began.
    pub(crate) fn has_seen(&self, customer: CustomerId) -> bool {
        self.customer(customer).newest_version().is_some()
    }
}
