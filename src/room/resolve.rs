//! Which customer is meant: the one place where a label or an id becomes a customer.
//!
//! Every command and endpoint that takes a customer comes through here, so that all of them mean the
//! same one, and say [`ErrorKind::NotFound`] where there is none. What can be an id is an id: a store
//! may have a label in the form of one from before those were refused, and it leads to nobody. The
//! customer that bears it is named by its own id, which `customer list` shows beside the label.

use futures_util::TryStreamExt;
use thiserror::Error as ThisError;

use super::{Customer, Strongroom};
use crate::access::Access;
use crate::audit::voucher::Versioned;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, CustomerRef, Label};
use crate::store::{layout, store_error};

/// A label that no new customer gets. It does not repeat the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[error("a label in the form of an id could be taken for the id of another customer")]
pub struct LabelResemblesId;

impl LabelResemblesId {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the label has the form of an id.
    pub(super) fn refuse(label: &Label) -> Result<()> {
        match label.resembles_id() {
            true => {
                Err(Error::new(ErrorKind::InvalidInput, "the label has the form of an id: choose another")
                    .with_source(Self))
            }
            false => Ok(()),
        }
    }
}

impl Strongroom {
    /// The customer of this label or id, for what `access` says.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn customer_of(&self, whose: &CustomerRef, access: Access) -> Result<Customer> {
        match whose {
            CustomerRef::Id(id) => self.customer_by_id(*id, access).await,
            CustomerRef::Label(label) => self.labelled(label, access).await,
        }
    }

    /// Succeeds if there is a customer of this id: one that has a ring, or had one by the log. No ring
    /// is read and no key used, so that what is asked may be about a ring that cannot be read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::Unavailable`] or
    /// [`ErrorKind::AuditUnavailable`] if a storage cannot be listed.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn knows_customer(&self, id: CustomerId) -> Result<()> {
        // The register is pinned under the store's own id.
        if id.as_bytes() == self.0.store.as_bytes() {
            return Err(no_such_id());
        }
        let mut rings = self.0.storages.keys.list(Some(&layout::rings_of(id)));
        let ring = rings.try_next().await.map_err(|error| store_error(error, "look for a ring"))?;
        match ring.is_some() || self.log().newest_pin(Versioned::Ring(id)).await?.is_some() {
            true => Ok(()),
            false => Err(no_such_id()),
        }
    }
}

/// That no customer has the id that was given.
pub(crate) fn no_such_id() -> Error {
    Error::new(ErrorKind::NotFound, "there is no customer of this id")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::keyring::Asker;
    use super::super::{KeyChoice, NewCustomer, Options};
    use super::*;
    use crate::access::{Principal, Purpose};
    use crate::audit::signer::LocalSigner;
    use crate::kms::KmsRegistry;
    use crate::kms::local::InsecureLocalKms;
    use crate::store::Storages;
    use crate::system::{SystemClock, SystemEntropy};

    /// A store from before such labels were refused: the customer stays to be had by its own id, and
    /// its label leads to whoever has that id, or to nobody.
    #[tokio::test]
    async fn a_label_that_spells_an_id_shadows_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let kms = InsecureLocalKms::open(
            directory.path().join("kms"),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy),
        );
        let registry = KmsRegistry::new().with(Arc::new(kms.unwrap()));
        let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
        let signer = Arc::new(LocalSigner::generate(&SystemEntropy).unwrap());
        let local = || KeyChoice::New("local".into());
        let options = Options::new(signer);
        let (room, _) =
            Strongroom::init(Storages::memory(), registry, local(), &access, options).await.unwrap();
        let acme =
            room.add_customer(&access, NewCustomer::new("acme".parse().unwrap(), local())).await.unwrap();

        // As it was made before.
        let nobody = CustomerId::from_bytes([7; 16]);
        for (label, id, stands_for) in [(acme.id, [1; 16], Some(acme.id)), (nobody, [2; 16], None)] {
            let label: Label = label.to_string().parse().unwrap();
            let new = NewCustomer::new(label.clone(), local());
            let refused = room.add_customer(&access, new.clone()).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidInput);
            let asker = Asker { access: &access, cause: None };
            let id = CustomerId::from_bytes(id);
            room.add(asker, id, new).await.unwrap();

            let by_label = room.customer(&label, access.clone()).await.map(|found| found.id());
            let by_text = room.customer_of(&label.to_string().parse().unwrap(), access.clone()).await;
            assert_eq!(by_label.as_ref().ok(), stands_for.as_ref());
            assert_eq!(by_text.map(|found| found.id()).ok(), stands_for);
            assert!(by_label.is_ok() || by_label.unwrap_err().kind() == ErrorKind::NotFound);
            let found = room.customer_of(&id.into(), access.clone()).await.unwrap();
            assert_eq!((found.id(), found.info().await.unwrap().label), (id, label));
        }
        // One that only looks like an id can be no other's, and is still found.
        let uuid: Label = "0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11".parse().unwrap();
        let id = CustomerId::from_bytes([3; 16]);
        let asker = Asker { access: &access, cause: None };
        room.add(asker, id, NewCustomer::new(uuid.clone(), local())).await.unwrap();
        assert_eq!(room.customer(&uuid, access.clone()).await.unwrap().id(), id);

        assert!(room.knows_customer(acme.id).await.is_ok());
        for unknown in [nobody, CustomerId::from_bytes(*room.store_id().as_bytes())] {
            assert_eq!(room.knows_customer(unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
        }
    }
}
