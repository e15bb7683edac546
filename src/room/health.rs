//! Which KMS keys the customers of a store depend on, for whoever looks after it.
//!
//! Separate from [`Strongroom::customers`] because one customer whose keys are
//! gone must not hide the others.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt};

use super::{Asker, Strongroom};
use crate::access::Access;
use crate::error::Result;
use crate::id::{CustomerId, KmsKeyId, Label};
use crate::retention::Period;
use crate::ring::Ring;
use crate::shred::epoch::KmsSays;
use crate::store::{layout, store_error};

/// What one customer's ring says about its KMS keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerKeys {
    /// What people call the customer.
    pub label: Label,
    /// The epoch of the ring.
    pub epoch: u32,
    /// The KMS keys of its data keys, and the one of those to come.
    pub kms_keys: BTreeSet<KmsKeyId>,
    /// For how long its blobs are promised to be kept, by each policy there was, the present
    /// one last.
    pub promises: Vec<Period>,
}

impl CustomerKeys {
    fn of(ring: &Ring) -> Self {
        Self {
            label: ring.settings.label.clone(),
            epoch: ring.epoch,
            kms_keys: ring.kms_keys(),
            promises: ring.policies.iter().map(|policy| policy.period).collect(),
        }
    }
}

impl Strongroom {
    /// The KMS keys of all customers, or why a customer's ring cannot be read;
    /// no id where already the label cannot be. Rings are opened as everywhere,
    /// with every key use on the record.
    ///
    /// # Errors
    /// By [`ErrorKind`](crate::ErrorKind), if the customers cannot be listed.
    pub async fn customer_keys(
        &self,
        access: &Access,
    ) -> Result<Vec<(Option<CustomerId>, Result<CustomerKeys>)>> {
        let labels = self.0.storages.keys.list(Some(&layout::labels()));
        let labels = labels
            .map_err(|error| store_error(error, "list the customers"))
            .try_filter(|object| std::future::ready(layout::read_label(&object.location).is_some()));
        let rings = labels.map_ok(|object| async move {
            let id = match self.read_label(&object.location).await {
                Ok(id) => id,
                Err(error) => return Ok((None, Err(error))),
            };
            let ring = self.labelled_ring(Asker::of(access), id).await;
            Ok((Some(id), ring.map(|ring| CustomerKeys::of(&ring))))
        });
        rings.try_buffer_unordered(16).try_collect().await
    }

    /// What the KMS says of the keys that each customer depends on, or why a customer's ring
    /// cannot be read. One of whom no key is left depends on none. Describing a key is no use
    /// of it.
    ///
    /// # Errors
    /// As [`Strongroom::customer_ids`].
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn customer_key_states(
        &self,
        access: &Access,
    ) -> Result<Vec<(CustomerId, Result<Vec<(KmsKeyId, KmsSays)>>)>> {
        let keyring = &self.0.keyring;
        let states = |id: CustomerId| async move {
            let ring = match keyring.ring(Asker::of(access), id).await {
                Ok(ring) => ring,
                Err(error) => return (id, Err(error)),
            };
            let mut states = Vec::new();
            for key in CustomerKeys::of(&ring).kms_keys {
                if ring.entries.is_empty() {
                    break;
                }
                let says = match keyring.kms.get(&key) {
                    Ok(provider) => KmsSays::of(provider.describe(&key).await),
                    Err(error) => KmsSays::Nothing(error.kind()),
                };
                states.push((key, says));
            }
            (id, Ok(states))
        };
        let ids = futures_util::stream::iter(self.customer_ids().await?);
        Ok(ids.map(states).buffered(16).collect().await)
    }
}
