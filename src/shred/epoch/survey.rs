//! Which epoch every head is under, read anew: what decides whether an epoch may end.
//!
//! A *head* is the newest version of a ring, or of the register. The log's pins say whose
//! rings there are and which version is the newest; the listing of the keys storage adds
//! those whose writer stopped before it pinned them, and the log's bases those that somebody hides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use futures_util::StreamExt;

use crate::error::{ErrorKind, Result};
use crate::id::{CustomerId, KmsKeyId};
use crate::kms::{KeyState, KmsError, KmsErrorKind};
use crate::room::Strongroom;
use crate::room::keyring::Asker;

use super::super::AT_ONCE;

/// The newest version of what is sealed under an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Head {
    /// Of the store's register.
    Register,
    /// Of this customer's ring.
    Ring(CustomerId),
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Register => f.pad("the register"),
            Self::Ring(customer) => write!(f, "the ring of customer {customer}"),
        }
    }
}

/// A head for whose sake an epoch does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    /// Which.
    pub head: Head,
    /// Why.
    pub why: Why,
}

/// Why a head is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is under this epoch still.
    Epoch(u32),
    /// It could not be read, or could not be re-issued.
    Failed(ErrorKind),
    /// The KMS key of the epoch is the customer's own as well.
    NeedsKey,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Epoch(epoch) => write!(f, "is under epoch {epoch} still"),
            Self::Failed(kind) => write!(f, "cannot be read or re-issued ({kind})"),
            Self::NeedsKey => f.pad("has the epoch's KMS key as a customer's key"),
        }
    }
}

/// What a KMS says of an epoch's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KmsSays {
    /// It is there.
    State(KeyState),
    /// It is gone for good.
    Gone,
    /// Nothing that could be relied on.
    Nothing(KmsErrorKind),
}

impl KmsSays {
    pub(crate) fn of(described: Result<KeyState, KmsError>) -> Self {
        match described {
            Ok(state) => Self::State(state),
            Err(error) if error.kind() == KmsErrorKind::KeyDestroyed => Self::Gone,
            Err(error) => Self::Nothing(error.kind()),
        }
    }
}

/// Every head there is.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    pub(super) heads: BTreeMap<Head, Found>,
}

/// What was found of one head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It opens, under this epoch, and depends on these KMS keys besides.
    Opens { epoch: u32, kms_keys: BTreeSet<KmsKeyId> },
    /// It does not open. `epoch` is what stands in front of it, if that could be read.
    Fails { epoch: Option<u32>, kind: ErrorKind },
}

impl Found {
    /// The epoch that it says it is under.
    pub(super) fn epoch(&self) -> Option<u32> {
        match self {
            Self::Opens { epoch, .. } => Some(*epoch),
            Self::Fails { epoch, .. } => *epoch,
        }
    }
}

impl Survey {
    /// Who is left behind when `epoch`, and the KMS key that it has, comes to an end.
    pub(super) fn left_behind(&self, epoch: u32, kms_key: Option<&KmsKeyId>) -> Vec<LeftBehind> {
        let why = |found: &Found| match found {
            Found::Opens { epoch: under, .. } if *under <= epoch => Some(Why::Epoch(*under)),
            Found::Opens { kms_keys, .. } if kms_key.is_some_and(|key| kms_keys.contains(key)) => {
                Some(Why::NeedsKey)
            }
            Found::Opens { .. } => None,
            Found::Fails { epoch: Some(under), .. } if *under <= epoch => Some(Why::Epoch(*under)),
            Found::Fails { kind, .. } => Some(Why::Failed(*kind)),
        };
        let left = |(head, found): (&Head, &Found)| Some(LeftBehind { head: *head, why: why(found)? });
        self.heads.iter().filter_map(left).collect()
    }
}

impl Strongroom {
    /// Reads every head anew, each under an epoch whose data key the KMS unwraps anew.
    ///
    /// # Errors
    /// If the register cannot be read, or the rings cannot be listed. A ring that cannot
    /// be read is in the [`Survey`].
    pub(super) async fn survey(&self, asker: Asker<'_>) -> Result<Survey> {
        let keyring = &self.0.keyring;
        // A key that opens only because it is cached shows nothing.
        keyring.forget_epochs().await;
        let register = keyring.register(asker).await?;
        let customers = keyring.customers_on_record().await?;
        let rings = futures_util::stream::iter(customers).map(|customer| async move {
            let found = match keyring.fresh_ring(asker, customer).await {
                Ok(ring) => Found::Opens { epoch: ring.epoch, kms_keys: ring.kms_keys() },
                // Nothing ends, and no key is used again, for the sake of what nobody vouches for.
                Err(error) => {
                    let epoch = keyring.epoch_in_front(asker, customer).await.ok();
                    Found::Fails { epoch, kind: error.kind() }
                }
            };
            (Head::Ring(customer), found)
        });
        let mut heads: BTreeMap<_, _> = rings.buffer_unordered(AT_ONCE).collect().await;
        let of_register = Found::Opens { epoch: register.epoch, kms_keys: BTreeSet::new() };
        heads.insert(Head::Register, of_register);
        Ok(Survey { heads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_does_not_open_under_a_later_epoch_is_left_behind() {
        let ring = |byte| Head::Ring(CustomerId::from_bytes([byte; 16]));
        let key: KmsKeyId = "local:a".parse().unwrap();
        let opens = |epoch, keys: &[&KmsKeyId]| Found::Opens {
            epoch,
            kms_keys: keys.iter().map(|key| (*key).clone()).collect(),
        };
        let fails = |epoch| Found::Fails { epoch, kind: ErrorKind::Unavailable };
        let heads = [
            (Head::Register, opens(3, &[])),
            (ring(1), opens(2, &[])),
            (ring(2), opens(3, &[&key])),
            (ring(3), fails(Some(1))),
            (ring(4), fails(Some(3))),
            (ring(5), fails(None)),
            (ring(6), opens(4, &[])),
        ];
        let survey = Survey { heads: heads.into_iter().collect() };
        let failed = Why::Failed(ErrorKind::Unavailable);
        let left = |epoch, key| -> Vec<(Head, Why)> {
            survey.left_behind(epoch, key).into_iter().map(|left| (left.head, left.why)).collect()
        };
        assert_eq!(
            left(2, Some(&key)),
            [
                (ring(1), Why::Epoch(2)),
                (ring(2), Why::NeedsKey),
                (ring(3), Why::Epoch(1)),
                (ring(4), failed),
                (ring(5), failed),
            ]
        );
        assert_eq!(left(1, None), [(ring(3), Why::Epoch(1)), (ring(4), failed), (ring(5), failed)]);
        assert_eq!(left(3, None).len(), 6);
    }
}
