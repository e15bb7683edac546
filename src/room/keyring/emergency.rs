//! Rings and keys in an emergency, while the log cannot be asked what it knows of rings.
//!
//! The log pins the newest version of each ring, so that no node goes on with an older one, and
//! vouches for each, so that none goes on with one that somebody else put there. Where it cannot be
//! read, this node goes on with the version that it has seen last, by its hash, and with no
//! other: a ring that it never read is refused. What another node wrote since is not noticed
//! until the log is there again.
//!
//! Separate from the keyring, so that what an emergency loosens is on one page.

use std::sync::Arc;

use tokio::time::timeout;

use super::{Asker, CustomerKeys, Keyring};
use crate::audit::RingRef;
use crate::audit::log::Pin;
use crate::audit::log::emergency::WAIT;
use crate::audit::voucher::{Versioned, Vouched};
use crate::cache::Cached;
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;

/// What is known of the newest version of a ring.
pub(super) enum Known {
    /// What the log pins.
    Pinned(Option<Pin>),
    /// The log cannot be asked, it is an emergency, and this is the newest that this node has seen.
    Seen(RingRef),
}

impl Keyring {
    /// What is known of the newest version of a customer's ring.
    pub(super) async fn pin(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        keys: &CustomerKeys,
    ) -> Result<Known> {
        let of = Versioned::Ring(customer);
        if !self.log.is_in_emergency(asker.access) {
            return self.log.newest_pin(of).await.map(Known::Pinned);
        }
        let message = "the audit log cannot say which ring is the newest";
        let pin = match timeout(WAIT, self.log.newest_pin(of)).await {
            Ok(pin) => pin,
            Err(elapsed) => Err(Error::new(ErrorKind::AuditUnavailable, message).with_source(elapsed)),
        };
        match (pin, keys.newest_version()) {
            (Err(error), Some(seen)) if error.kind() == ErrorKind::AuditUnavailable => Ok(Known::Seen(seen)),
            (pin, _) => pin.map(Known::Pinned),
        }
    }

    /// Pins a version that was found unpinned. In an emergency nobody waits for the log: the
    /// next one who reads the ring pins it.
    pub(super) async fn pin_found(&self, asker: Asker<'_>, vouched: &Vouched) -> Result<()> {
        if !self.log.is_in_emergency(asker.access) {
            return self.log.pin(vouched).await;
        }
        match timeout(WAIT, self.log.pin(vouched)).await {
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
