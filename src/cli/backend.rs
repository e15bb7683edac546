//! Whom a command asks: a store that this program opened, or a daemon that has one open.
//!
//! Each command is written once, and prints what either answers: the types of [`crate::json`],
//! which is what a daemon answers in the first place. What only a store can be asked takes a
//! [`Store`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::args::Command;
use super::failure::Failure;
use super::keys::LocalKeys;
use super::output::Output;
use super::{emergency, explain, init, log_key, no_store, options};
use crate::access::{Access, Principal};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, CustomerRef, KekId, Label, OrderId};
use crate::json::{self, Cancelled, Epochs, Executed, KeyPlan, Person, Rotated, ShredStatus, Swept};
use crate::order::{Order, OrderKind, SignedOrder};
use crate::retention::clock::TrustedTime;
use crate::room::{KeyChoice, NewCustomer, Strongroom};
use crate::shred::OrderStatus;
use crate::store::{CreateRoot, Storages};
use crate::system::SystemClock;
use crate::time::Timestamp;
use crate::tlog::NamedKey;

mod admission;
mod customer;

pub(super) use customer::{Customer, Row};

/// What a command asks, and how this run talks.
pub(super) struct Backend {
    pub(super) place: Place,
    pub(super) access: Access,
    pub(super) output: Output,
}

/// Where the store is open.
pub(super) enum Place {
    /// Here.
    Store(Box<Store>),
    /// At a daemon.
    Daemon(Client),
}

/// An open store.
pub(super) struct Store {
    pub(super) room: Strongroom,
    pub(super) storages: Storages,
    pub(super) config: Config,
    pub(super) keys: LocalKeys,
    pub(super) access: Access,
    pub(super) output: Output,
    /// Whether this run made the store.
    pub(super) created: bool,
}

impl Store {
    async fn open(command: &Command, config: Config, output: Output) -> Result<Self, Failure> {
        let create = if let Command::Init(command) = command { Some(command) } else { None };
        let access = config.access();
        let root = if create.is_some() { CreateRoot::Yes } else { CreateRoot::No };
        let clock = Arc::new(SystemClock);
        let storages =
            Storages::open(&config.urls, root, clock).await.map_err(|error| no_store(&config, error))?;
        let keys = LocalKeys::new(config.local_kms.clone());
        let (room, created) = match create {
            Some(command) => init::init(&config, command, &storages, &keys, output).await?,
            None => {
                let signers = log_key::load_both(&config).await?;
                let mut options = options(&config, signers)?;
                if let Command::Emergency(command) = command {
                    options.emergency_directory = emergency::directory(command)?;
                }
                let opened = Strongroom::open(storages.clone(), keys.registry(), options).await;
                (opened.map_err(|error| no_store(&config, error))?, false)
            }
        };
        Ok(Self { room, storages, config, keys, access, output, created })
    }

    /// The customer that is named.
    pub(super) async fn customer(&self, whose: &CustomerRef) -> Result<crate::room::Customer, Failure> {
        let found = self.room.customer_of(whose, self.access.clone()).await;
        found.map_err(|error| no_customer(error, |error| self.explain(error)))
    }

    pub(super) fn explain(&self, error: Error) -> Failure {
        explain(&self.config, error, &self.keys)
    }
}

/// A failure to find a customer: one that is unknown is not an empty answer.
pub(super) fn no_customer(error: Error, explain: impl FnOnce(Error) -> Failure) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => Failure::from(error)
            .hint("`strongroom customer list` shows all, `strongroom customer add` makes one"),
        _ => explain(error),
    }
}

impl Backend {
    /// Opens the store of the configuration.
    pub(super) async fn open(command: &Command, config: Config, output: Output) -> Result<Self, Failure> {
        let store = Store::open(command, config, output).await?;
        Ok(Self { access: store.access.clone(), output, place: Place::Store(Box::new(store)) })
    }

    /// Asks a daemon.
    pub(super) fn at(client: Client, access: Access, output: Output) -> Self {
        Self { place: Place::Daemon(client), access, output }
    }

    /// The store, for what no daemon is asked.
    pub(super) fn store(&self) -> Result<&Store, Failure> {
        match &self.place {
            Place::Store(store) => Ok(store),
            Place::Daemon(_) => Err(super::remote::no_endpoint()),
        }
    }

    pub(super) fn explain(&self, error: Error) -> Failure {
        match &self.place {
            Place::Store(store) => store.explain(error),
            Place::Daemon(_) => error.into(),
        }
    }

    /// The customer that is named.
    pub(super) async fn customer(&self, whose: &CustomerRef) -> Result<Customer, Failure> {
        match &self.place {
            Place::Store(store) => store.customer(whose).await.map(Customer::Store),
            Place::Daemon(daemon) => {
                let found = daemon.customer(whose).await.map(Customer::Daemon);
                found.map_err(|error| no_customer(error, Failure::from))
            }
        }
    }

    /// The id of the customer that is named. In a store, one that is named by its id needs no ring
    /// that can be read: what is asked may be about exactly that.
    pub(super) async fn customer_id(&self, whose: &CustomerRef) -> Result<CustomerId, Failure> {
        match (&self.place, whose) {
            (Place::Store(store), CustomerRef::Id(id)) => {
                let known = store.room.knows_customer(*id).await;
                known.map_err(|error| no_customer(error, |error| self.explain(error)))?;
                Ok(*id)
            }
            _ => Ok(self.customer(whose).await?.id()),
        }
    }

    pub(super) async fn add_customer(&self, new: NewCustomer) -> Result<json::Customer, Error> {
        match &self.place {
            Place::Store(store) => {
                let added = store.room.add_customer(&self.access, new).await?;
                Ok(json::Customer::from(&added))
            }
            Place::Daemon(daemon) => daemon.add_customer(&new).await,
        }
    }

    pub(super) async fn customers(&self) -> Result<Vec<json::Customer>, Error> {
        match &self.place {
            Place::Store(store) => {
                let infos = store.room.customers(&self.access).await?;
                Ok(infos.iter().map(json::Customer::from).collect())
            }
            Place::Daemon(daemon) => daemon.customers().await,
        }
    }

    /// Every customer that can be asked for here.
    pub(super) async fn every_customer(&self) -> Result<Vec<Customer>, Error> {
        let mut customers = Vec::new();
        for id in self.customer_ids().await? {
            customers.push(match &self.place {
                Place::Store(store) => {
                    Customer::Store(store.room.customer_by_id(id, self.access.clone()).await?)
                }
                Place::Daemon(daemon) => Customer::Daemon(daemon.customer_by_id(id)),
            });
        }
        Ok(customers)
    }

    /// What people call these customers, as far as it can be had: what is done does not depend on
    /// it. Who may not list customers may see those whom they are there for.
    pub(super) async fn labels(&self, customers: BTreeSet<CustomerId>) -> BTreeMap<CustomerId, Label> {
        let infos = match &self.place {
            Place::Daemon(daemon) => {
                let mut infos = Vec::new();
                for customer in customers {
                    infos.extend(daemon.customer_by_id(customer).info().await);
                }
                infos
            }
            Place::Store(_) if customers.is_empty() => Vec::new(),
            Place::Store(_) => self.customers().await.unwrap_or_default(),
        };
        infos.into_iter().map(|info| (info.customer, info.label)).collect()
    }

    /// All customers. In a store that is those too whose ring cannot be read.
    pub(super) async fn customer_ids(&self) -> Result<BTreeSet<CustomerId>, Error> {
        match &self.place {
            Place::Store(store) => store.room.customer_ids().await,
            Place::Daemon(daemon) => {
                Ok(daemon.customers().await?.into_iter().map(|info| info.customer).collect())
            }
        }
    }

    /// How far the destruction of these customers' keys has come, each by itself.
    pub(super) async fn shred_status(
        &self,
        customers: &BTreeSet<CustomerId>,
    ) -> Result<Vec<(CustomerId, Result<ShredStatus, Error>)>, Error> {
        match &self.place {
            Place::Store(store) => {
                let found = store.room.shred_status(&self.access, customers).await?;
                let shown = |status| ShredStatus::from(&status);
                Ok(found.into_iter().map(|(customer, status)| (customer, status.map(shown))).collect())
            }
            Place::Daemon(daemon) => {
                let mut found = Vec::new();
                for customer in customers {
                    found.push((*customer, daemon.shred_status(*customer).await));
                }
                Ok(found)
            }
        }
    }

    /// The time that a plan goes by, once for all customers. A daemon goes by its own.
    pub(super) async fn destruction_time(&self) -> Result<Option<TrustedTime>, Error> {
        match &self.place {
            Place::Store(store) => store.room.destruction_time(&self.access).await.map(Some),
            Place::Daemon(_) => Ok(None),
        }
    }

    /// What a sweep would do now for a customer, by key.
    pub(super) async fn shred_plan(
        &self,
        customer: CustomerId,
        time: Option<&TrustedTime>,
    ) -> Result<Vec<KeyPlan>, Error> {
        match (&self.place, time) {
            (Place::Store(store), Some(time)) => {
                let plan = store.room.plan_customer(&self.access, customer, time).await?;
                Ok(KeyPlan::all(&plan))
            }
            (Place::Store(_), None) => {
                Err(Error::new(ErrorKind::Denied, "there is no time that destruction can go by"))
            }
            (Place::Daemon(daemon), _) => daemon.shred_plan(customer).await,
        }
    }

    /// Takes keys out of the window.
    pub(super) async fn cancel_shred(
        &self,
        customer: CustomerId,
        keys: &BTreeSet<KekId>,
    ) -> Result<Cancelled, Error> {
        match &self.place {
            Place::Store(store) => {
                let ring = store.room.cancel_shred(&self.access, customer, keys).await?;
                Ok(Cancelled::new(&ring, keys))
            }
            Place::Daemon(daemon) => daemon.cancel_shred(customer, keys).await,
        }
    }

    /// Does all that is due: by which time, and what became of each customer.
    pub(super) async fn sweep(&self) -> Result<(Timestamp, Vec<(CustomerId, Result<Swept, Error>)>), Error> {
        match &self.place {
            Place::Store(store) => {
                let sweep = store.room.sweep(&self.access).await?;
                let swept = sweep.customers.into_iter();
                let swept = swept.map(|(customer, swept)| (customer, swept.map(Swept::from)));
                Ok((sweep.time.at(), swept.collect()))
            }
            Place::Daemon(daemon) => daemon.sweep().await,
        }
    }

    pub(super) async fn orders(&self) -> Result<Vec<OrderStatus>, Error> {
        match &self.place {
            Place::Store(store) => store.room.orders(&self.access).await,
            Place::Daemon(daemon) => daemon.orders().await,
        }
    }

    pub(super) async fn draft_order(
        &self,
        (what, customer): (OrderKind, Option<CustomerId>),
        requester: Principal,
        validity: Duration,
    ) -> Result<Order, Error> {
        match &self.place {
            Place::Store(store) => {
                store.room.draft_order(&self.access, what, customer, requester, validity).await
            }
            Place::Daemon(daemon) => daemon.draft_order(what, customer, requester, validity).await,
        }
    }

    pub(super) async fn request_order(&self, signed: &SignedOrder) -> Result<OrderId, Error> {
        match &self.place {
            Place::Store(store) => store.room.request_order(&self.access, signed).await,
            Place::Daemon(daemon) => daemon.request_order(signed).await,
        }
    }

    pub(super) async fn approve_order(&self, id: OrderId, key: &NamedKey) -> Result<Executed, Error> {
        match &self.place {
            Place::Store(store) => {
                Ok(Executed::new(id, store.room.approve_order(&self.access, id, key).await?))
            }
            Place::Daemon(daemon) => daemon.approve_order(id, key).await,
        }
    }

    pub(super) async fn submit_approved(
        &self,
        signed: &SignedOrder,
        approver: Principal,
    ) -> Result<Executed, Error> {
        match &self.place {
            Place::Store(store) => {
                let executed = store.room.submit_approved(&self.access, signed, approver).await?;
                Ok(Executed::new(signed.order().id, executed))
            }
            Place::Daemon(daemon) => daemon.submit_approved(signed).await,
        }
    }

    /// Who may sign orders, and who could.
    pub(super) async fn people(&self) -> Result<Vec<Person>, Error> {
        match &self.place {
            Place::Store(store) => {
                let register = store.room.register(&self.access).await?;
                Ok(register.people.iter().map(Person::from).collect())
            }
            Place::Daemon(daemon) => daemon.people().await,
        }
    }

    pub(super) async fn epochs(&self) -> Result<Epochs, Error> {
        match &self.place {
            Place::Store(store) => store.room.epoch_status(&self.access).await.map(Epochs::from),
            Place::Daemon(daemon) => daemon.epochs().await,
        }
    }

    /// The KMS provider of the newest epoch's key.
    pub(super) async fn epoch_provider(&self) -> Result<String, Error> {
        match &self.place {
            Place::Store(store) => {
                let register = store.room.register(&self.access).await?;
                Ok(register.newest_epoch().kms_key.provider().to_owned())
            }
            Place::Daemon(daemon) => {
                let epochs = daemon.epochs().await?.epochs;
                let newest = epochs.iter().max_by_key(|epoch| epoch.epoch);
                let none = || Error::new(ErrorKind::NotFound, "the daemon's store has no epoch");
                newest.map(|epoch| epoch.kms_key.provider().to_owned()).ok_or_else(none)
            }
        }
    }

    pub(super) async fn rotate_epoch(&self, choice: KeyChoice) -> Result<Rotated, Error> {
        match &self.place {
            Place::Store(store) => store.room.rotate_epoch(&self.access, choice).await.map(Rotated::from),
            Place::Daemon(daemon) => daemon.rotate_epoch(&choice).await,
        }
    }
}
