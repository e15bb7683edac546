//! One customer, in a store or at a daemon.

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

use super::super::producer::Input;
use crate::client::{Download, RemoteCustomer, Upload};
use crate::envelope::BlobName;
use crate::error::Error;
use crate::id::{BlobId, CustomerId};
use crate::json::{self, Blob, Extended, Hold, Listed, Policies, Sealed};
use crate::retention::{Period, Window};
use crate::room::{self, ByteRange, SealOptions, Source};
use crate::shred::HoldTarget;
use crate::suite::Suite;
use crate::time::Day;

/// How many blobs are looked at at once.
const LOOKING: usize = 16;

/// One customer, in a store or at a daemon.
#[derive(Clone)]
pub(in crate::cli) enum Customer {
    Store(room::Customer),
    Daemon(RemoteCustomer),
}

/// A blob in a listing.
pub(in crate::cli) struct Row {
    pub(in crate::cli) blob: BlobId,
    /// As the storage says, where it was asked.
    pub(in crate::cli) stored_bytes: Option<u64>,
    pub(in crate::cli) found: Result<Blob, Error>,
}

impl Customer {
    pub(in crate::cli) fn id(&self) -> CustomerId {
        match self {
            Self::Store(customer) => customer.id(),
            Self::Daemon(customer) => customer.id(),
        }
    }

    /// The same customer, whose blobs have to have been sealed under this name.
    pub(in crate::cli) fn only_named(&self, name: &BlobName) -> Self {
        match self {
            Self::Store(customer) => Self::Store(customer.only_named(name)),
            Self::Daemon(customer) => Self::Daemon(customer.only_named(name)),
        }
    }

    pub(in crate::cli) async fn info(&self) -> Result<json::Customer, Error> {
        match self {
            Self::Store(customer) => Ok(json::Customer::from(&customer.info().await?)),
            Self::Daemon(customer) => customer.info().await,
        }
    }

    pub(in crate::cli) async fn set(
        &self,
        period: Option<Period>,
        suite: Option<Suite>,
    ) -> Result<json::Customer, Error> {
        match self {
            Self::Store(customer) => Ok(json::Customer::from(&customer.set(period, suite).await?)),
            Self::Daemon(customer) => customer.set(period, None, suite).await,
        }
    }

    pub(in crate::cli) async fn policies(&self) -> Result<Policies, Error> {
        match self {
            Self::Store(customer) => Ok(Policies::from(&*customer.policies().await?)),
            Self::Daemon(customer) => customer.policies().await,
        }
    }

    pub(in crate::cli) async fn set_policy(
        &self,
        period: Option<Period>,
        window: Option<Window>,
    ) -> Result<Policies, Error> {
        match self {
            Self::Store(customer) => Ok(Policies::from(&*customer.set_policy(period, window).await?)),
            Self::Daemon(customer) => {
                customer.set(period, window, None).await?;
                customer.policies().await
            }
        }
    }

    /// Seals all of `input` as a new blob.
    pub(in crate::cli) async fn seal(&self, input: Input, what: Upload) -> Result<Sealed, Error> {
        match self {
            Self::Store(customer) => {
                let mut options = SealOptions::new().metadata(what.metadata);
                if let Some(suite) = what.suite {
                    options = options.suite(suite);
                }
                if let Some(day) = what.retain_until {
                    options = options.retain_until(day);
                }
                if let Some(key) = what.once {
                    options = options.once(key);
                }
                customer.seal(Source::blocking(input), options).await.map(Sealed::from)
            }
            Self::Daemon(customer) => customer.seal(Box::new(input), &what).await,
        }
    }

    pub(in crate::cli) async fn open(
        &self,
        blob: BlobId,
        range: Option<ByteRange>,
    ) -> Result<Download, Error> {
        let opened = match (self, range) {
            (Self::Daemon(customer), range) => return customer.open(blob, range).await,
            (Self::Store(customer), Some(range)) => customer.open_range(blob, range).await?,
            (Self::Store(customer), None) => customer.open(blob).await?,
        };
        let (blob, range) = (opened.info().id, opened.range());
        Ok(Download { blob, range, pieces: opened.into_stream().boxed() })
    }

    pub(in crate::cli) async fn stat(&self, blob: BlobId) -> Result<Blob, Error> {
        match self {
            Self::Store(customer) => Ok(Blob::from(&customer.stat(blob).await?)),
            Self::Daemon(customer) => customer.stat(blob).await,
        }
    }

    /// Reads a blob through and checks all of it: its length in bytes.
    pub(in crate::cli) async fn verify(&self, blob: BlobId) -> Result<u64, Error> {
        match self {
            Self::Store(customer) => Ok(customer.verify(blob).await?.bytes),
            Self::Daemon(customer) => customer.verify(blob).await,
        }
    }

    pub(in crate::cli) async fn extend(&self, blob: BlobId, until: Day) -> Result<Extended, Error> {
        match self {
            Self::Store(customer) => customer.extend(blob, until).await.map(Extended::from),
            Self::Daemon(customer) => customer.extend(blob, until).await,
        }
    }

    /// The customer's blobs, opened by nobody.
    pub(in crate::cli) fn list(&self) -> BoxStream<'static, Result<Listed, Error>> {
        let shown =
            |room::Listed { id: blob, stored_bytes, stored_at }| Listed { blob, stored_bytes, stored_at };
        match self {
            Self::Store(customer) => customer.list().map_ok(shown).boxed(),
            Self::Daemon(customer) => customer.list(),
        }
    }

    /// The blobs that were sealed under this name, newest first.
    pub(in crate::cli) async fn find(&self, name: &BlobName) -> Result<Vec<BlobId>, Error> {
        match self {
            Self::Store(customer) => customer.find(name).await,
            Self::Daemon(customer) => customer.find(name).await,
        }
    }

    /// The customer's blobs, each as far as it can be opened.
    pub(in crate::cli) fn rows(&self) -> BoxStream<'static, Result<Row, Error>> {
        match self {
            Self::Store(customer) => {
                let of = customer.clone();
                let row = move |listed: Result<room::Listed, Error>| {
                    let customer = of.clone();
                    async move {
                        let room::Listed { id: blob, stored_bytes, .. } = listed?;
                        let found = customer.stat_listed(blob).await.map(|info| Blob::from(&info));
                        Ok(Row { blob, stored_bytes: Some(stored_bytes), found })
                    }
                };
                customer.list().map(row).buffered(LOOKING).boxed()
            }
            Self::Daemon(customer) => customer.rows().map_ok(Row::from).boxed(),
        }
    }

    /// These blobs, each as far as it can be opened.
    pub(in crate::cli) fn rows_of(&self, blobs: Vec<BlobId>) -> BoxStream<'static, Result<Row, Error>> {
        let of = self.clone();
        let row = move |blob| {
            let customer = of.clone();
            async move {
                let found = match customer {
                    Self::Store(customer) => customer.stat_listed(blob).await.map(|info| Blob::from(&info)),
                    Self::Daemon(customer) => customer.stat(blob).await,
                };
                Ok(Row { blob, stored_bytes: None, found })
            }
        };
        stream::iter(blobs).map(row).buffered(LOOKING).boxed()
    }

    pub(in crate::cli) async fn holds(&self) -> Result<Vec<Hold>, Error> {
        match self {
            Self::Store(customer) => Ok(customer.holds().await?.iter().map(Hold::from).collect()),
            Self::Daemon(customer) => customer.holds().await,
        }
    }

    pub(in crate::cli) async fn place_hold(&self, target: HoldTarget) -> Result<Hold, Error> {
        match self {
            Self::Store(customer) => {
                let placed = customer.place_hold(target).await?;
                Ok(Hold { ring_version: Some(placed.ring_version), ..Hold::from(&placed.hold) })
            }
            Self::Daemon(customer) => customer.place_hold(target).await,
        }
    }
}

impl From<json::Row> for Row {
    fn from(row: json::Row) -> Self {
        match row {
            json::Row::Blob(found) => {
                Self { blob: found.blob, stored_bytes: Some(found.stored_bytes), found: Ok(found) }
            }
            json::Row::Failed { blob, stored_bytes, error } => {
                Self { blob, stored_bytes, found: Err(error.into()) }
            }
        }
    }
}
