//! The façade: a [`Strongroom`], and a [`Customer`] in it.
//!
//! This is the only place that sequences audit, ring and store. Every operation
//! goes the same way: the intent is durable in the log, then the key is used,
//! then the outcome is recorded; if the log cannot be written, nothing is sealed
//! and nothing opened.
//!
//! # Cancel safety
//! Every future here may be dropped at any point. A dropped seal leaves no
//! visible blob; a dropped open releases nothing further; either is recorded as
//! aborted. Call [`Strongroom::close`] before the runtime ends, so that the last
//! such records are durable.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;
use thiserror::Error as ThisError;

use crate::access::Access;
use crate::audit::authority::Authority;
use crate::audit::emergency::EmergencySink;
use crate::audit::log::{Log, LogConfig, LogReader};
use crate::audit::publish::Publisher;
use crate::audit::signer::{LogSigner, Signers};
use crate::audit::verify::{self, verify};
use crate::audit::{Action, Intent};
use crate::cache::Limits;
use crate::entropy::{Entropy, random};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, CustomerRef, KmsKeyId, Label, StoreId};
use crate::kms::{EncryptionContext, KmsRegistry};
use crate::order::{NewPerson, People};
use crate::retention::{Period, Window};
use crate::ring::{Ring, Settings, Tenancy};
use crate::store::create::{Created, create};
use crate::store::marker::Marker;
use crate::store::{Storages, layout, store_error, within};
use crate::suite::Suite;
use crate::system::{SystemClock, SystemEntropy};
use crate::time::{Clock, Timestamp};
use crate::witness::client::Witness;

mod customer;
mod emergency;
mod evidence;
mod health;
pub(crate) mod keyring;
mod once;
pub(crate) mod open;
mod people;
mod removal;
mod resolve;
mod seal;
mod sessions;
mod source;
pub(crate) mod wraps;

pub use customer::{Customer, Listed};
pub use emergency::{Emergency, Folded, Review};
pub use evidence::{CustomerView, Maintained};
pub use health::CustomerKeys;
pub use open::{BlobInfo, ByteRange, Opened};
pub use removal::RemovedDays;
pub use resolve::LabelResemblesId;
pub(crate) use resolve::no_such_id;
pub use seal::{SealOptions, Sealed};
pub use sessions::{AccessRequest, Session, SessionState};
pub use source::Source;
pub use wraps::Extended;

use keyring::epochs::FirstEpoch;
use keyring::{Asker, Keyring, close};

/// The longest that keys and rings may be cached: half of the shortest window.
pub(crate) const MAX_TTL: Duration = Duration::from_hours(12);

/// The longest that a node may go without looking whether a session is open.
const MAX_SESSION_CHECK: Duration = Duration::from_mins(1);

/// How a store is used on this node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long a data key or a ring is used before it is fetched again: 5
    /// minutes, 12 hours at most. A dropped or disabled key works for this long.
    pub key_ttl: Duration,
    /// How often a cached key is used before it is fetched again: 2^20 times.
    pub key_uses: u64,
    /// The key of the store's audit log.
    pub log_signer: Arc<dyn LogSigner>,
    /// While the log's key is replaced, the next key or the one before: none.
    pub other_log_signer: Option<Arc<dyn LogSigner>>,
    /// How long a record may take to become durable before the operation is
    /// refused: 10 seconds.
    pub log_deadline: Duration,
    /// Whether to write to a shard of the log of one's own from the beginning, as a daemon
    /// does ([`Log::open_own`]). Otherwise a program does so once it meets another one: no.
    pub own_shard: bool,
    /// Who may sign orders in a store that is made, at once: nobody. Two at least, or
    /// they are founded later ([`Strongroom::found_people`]).
    pub people: Vec<NewPerson>,
    /// Who is asked to cosign what is published of the log: nobody.
    pub witnesses: Vec<Arc<dyn Witness>>,
    /// How long a look at a customer's session is good for: 5 seconds, a minute at most. For
    /// that long a node may go on after another one ended the session.
    pub session_check: Duration,
    /// How long this node seals with a data key of its own, for a customer whose keys are in
    /// the customer's own hand, before it makes another: 12 hours, which is the most.
    pub sealing_term: Duration,
    /// The directory on a local disk in which what is read in an emergency is recorded while
    /// the log cannot be written ([`emergency`](crate::audit::emergency)): none, and then
    /// there is no emergency access on this node.
    pub emergency_directory: Option<PathBuf>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of keys, salts and ids.
    pub entropy: Arc<dyn Entropy>,
}

impl Options {
    /// With this key of the audit log, and the defaults.
    #[must_use]
    pub fn new(log_signer: Arc<dyn LogSigner>) -> Self {
        Self {
            key_ttl: Duration::from_secs(300),
            key_uses: 1 << 20,
            log_signer,
            other_log_signer: None,
            log_deadline: Duration::from_secs(10),
            own_shard: false,
            people: Vec::new(),
            witnesses: Vec::new(),
            session_check: Duration::from_secs(5),
            sealing_term: MAX_TTL,
            emergency_directory: None,
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
        }
    }
}

/// Under which KMS key a new store's first epoch, or a new customer, begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChoice {
    /// A new key of this provider (`local`, `aws-kms`).
    New(String),
    /// This key: ours, or one in the customer's own account.
    Existing(KmsKeyId),
}

impl KeyChoice {
    /// The provider of the key: `local`, `aws-kms`.
    #[must_use]
    pub fn provider(&self) -> &str {
        match self {
            Self::New(provider) => provider,
            Self::Existing(key) => key.provider(),
        }
    }
}

/// Text that chooses no KMS key.
#[derive(Clone, Copy, Debug, ThisError, PartialEq, Eq)]
#[error("not `local`, `aws-kms`, `local:<id>` or `aws-kms:<ARN>`")]
pub struct ParseKeyChoiceError;

impl FromStr for KeyChoice {
    type Err = ParseKeyChoiceError;

    /// A provider alone is a new key of it.
    fn from_str(text: &str) -> Result<Self, ParseKeyChoiceError> {
        let known = |provider: &str| matches!(provider, "local" | "aws-kms");
        match text.parse::<KmsKeyId>() {
            Ok(key) if known(key.provider()) => Ok(Self::Existing(key)),
            Err(_) if known(text) => Ok(Self::New(text.to_owned())),
            _ => Err(ParseKeyChoiceError),
        }
    }
}

/// A customer to be added.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// What people call the customer. Stored sealed.
    pub label: Label,
    /// Its KMS key.
    pub kms_key: KeyChoice,
    /// How long its blobs are kept.
    pub period: Period,
    /// How long a destruction can be cancelled.
    pub window: Window,
    /// The suite of its blobs.
    pub suite: Suite,
    /// Strict accountability: each opening is a call to the customer's KMS key.
    pub strict: bool,
    /// Whether its blobs hold protected health information: they do, unless it is known
    /// that they do not.
    pub phi: bool,
    /// Whose hand is on the keys: ours, unless it is said to be the customer's. It never
    /// changes.
    pub tenancy: Tenancy,
}

impl NewCustomer {
    /// A customer with the default retention and suite.
    #[must_use]
    pub fn new(label: Label, kms_key: KeyChoice) -> Self {
        let (period, window) = (Period::DEFAULT, Window::DEFAULT);
        let (suite, tenancy) = (Suite::Aes256Gcm, Tenancy::Held);
        Self { label, kms_key, period, window, suite, strict: false, phi: true, tenancy }
    }
}

/// What a customer's ring says about the customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomerInfo {
    /// The opaque id, as paths and records have it.
    pub id: CustomerId,
    /// What people call the customer.
    pub label: Label,
    /// The KMS key of new data keys.
    pub kms_key: KmsKeyId,
    /// How long new blobs are kept.
    pub period: Period,
    /// How long a destruction can be cancelled.
    pub window: Window,
    /// The suite of new blobs.
    pub suite: Suite,
    /// Strict accountability: each opening is a call to the customer's KMS key.
    pub strict: bool,
    /// Whether its blobs hold protected health information.
    pub phi: bool,
    /// Whose hand is on the keys.
    pub tenancy: Tenancy,
    /// Whether everything is under a legal hold.
    pub held: bool,
    /// The version of the ring.
    pub ring_version: u64,
    /// The epoch of the ring.
    pub epoch: u32,
    /// How many keys the ring has.
    pub keys: usize,
}

impl CustomerInfo {
    fn of(ring: &Ring) -> Self {
        let settings = &ring.settings;
        Self {
            id: ring.customer,
            label: settings.label.clone(),
            kms_key: settings.kms_key.clone(),
            period: ring.policy().period,
            window: ring.policy().window,
            suite: settings.suite,
            strict: settings.strict,
            phi: settings.phi,
            tenancy: settings.tenancy,
            held: ring.is_customer_held(),
            ring_version: ring.version,
            epoch: ring.epoch,
            keys: ring.entries.len(),
        }
    }
}

/// One store, open on this node. Clones share everything.
#[derive(Clone)]
pub struct Strongroom(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) store: StoreId,
    pub(crate) storages: Storages,
    pub(crate) keyring: Keyring,
    pub(crate) log: Log,
    pub(crate) log_config: LogConfig,
    pub(crate) publisher: Publisher,
    pub(crate) witnesses: Vec<Arc<dyn Witness>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Strongroom {
    /// Makes a new store on empty storages, and opens it. Where there is one
    /// already, opens that; `true` says that it was made.
    ///
    /// Running it again after a crash, or twice at once, ends with one store. First the storages are
    /// [tried](crate::store::trial).
    ///
    /// # Errors
    /// By [`ErrorKind`]; nothing that exists is changed. [`ErrorKind::Configuration`] names a storage
    /// that lacks what a store is built on.
    pub async fn init(
        storages: Storages,
        kms: KmsRegistry,
        epoch_key: KeyChoice,
        access: &Access,
        options: Options,
    ) -> Result<(Self, bool)> {
        // Before anything is made.
        People::found(&options.people, options.clock.now())?;
        storages.try_out(&*options.clock).await?;
        // If we stop here, a few small objects are there that belong to no store.
        if Marker::read(&*storages.keys).await?.is_some() {
            return Ok((Self::open(storages, kms, options).await?, false));
        }
        let marker = match Marker::read(&*storages.audit).await? {
            Some(marker) => marker,
            None => {
                let store = StoreId::from_bytes(random(&*options.entropy)?);
                Marker { store, log_key: options.log_signer.public() }.write(&*storages.audit).await?
            }
        };
        let authority = Authority::from(marker.log_key);
        authority.follow(&*storages.audit, marker.store, options.log_deadline).await?;
        check_signer(&authority, &options)?;
        check_ttl(&options)?;
        let store = marker.store;
        // If we stop here or anywhere below, the next `init` takes up this id.
        let room = Self::assemble((store, authority), storages, kms, &options, Begins::Yes).await?;
        let keyring = &room.0.keyring;
        let intent = Intent::new(room.0.log.request_id()?, access, Action::Init);
        let (open, receipt) = room.0.log.begin(intent).await?;
        let asker = Asker { access, cause: Some(open.request()) };
        // Init uses no key itself; the KMS call below has a record of its own.
        drop(receipt);
        let made = async {
            match keyring.storage.head(&layout::epoch(1)).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => {
                    let tags = EncryptionContext::epoch(store, 1);
                    // If we stop after this, an unused key remains in the KMS;
                    // its tags say for which store it was made.
                    let key = keyring.kms_key(epoch_key, &tags).await?;
                    keyring.create_first_epoch(asker, key).await?;
                }
                Err(error) => return Err(store_error(error, "look for the epoch record")),
            }
            // If we stop after this, the next `init` finds the register, and its
            // people have to be the same.
            keyring.create_first_register(asker, &options.people).await?;
            marker.write(&*room.0.storages.blobs).await?;
            // Last, because this is what makes it a store.
            marker.write(&*room.0.storages.keys).await?;
            check_markers(&room.0.storages, marker, options.log_deadline).await
        };
        let made = made.await;
        close(open, made).await?;
        Ok((room, true))
    }

    /// Opens the store on these storages.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none; [`ErrorKind::UnsupportedFormat`]
    /// if it is of a later version; [`ErrorKind::Configuration`] if the three
    /// storages do not belong together.
    pub async fn open(storages: Storages, kms: KmsRegistry, options: Options) -> Result<Self> {
        let marker = read_markers(&storages, options.log_deadline).await?;
        let authority = Authority::from(marker.log_key);
        // Most logs never changed their key. Otherwise the first signature by a later one tells.
        if options.log_signer.public() != marker.log_key {
            authority.follow(&*storages.audit, marker.store, options.log_deadline).await?;
        }
        check_signer(&authority, &options)?;
        check_ttl(&options)?;
        Self::assemble((marker.store, authority), storages, kms, &options, Begins::No).await
    }

    async fn assemble(
        (store, authority): (StoreId, Authority),
        storages: Storages,
        kms: KmsRegistry,
        options: &Options,
        begins: Begins,
    ) -> Result<Self> {
        let (clock, entropy) = (Arc::clone(&options.clock), Arc::clone(&options.entropy));
        let sink = options.emergency_directory.as_deref();
        let sink = sink.map(|directory| EmergencySink::open(directory, store, Arc::clone(&clock)));
        let config = LogConfig {
            deadline: options.log_deadline,
            emergencies: sink.transpose()?.map(Arc::new),
            other_signer: options.other_log_signer.clone(),
            authority: Some(authority.clone()),
            storage_clock: Some(Arc::new(storages.clone())),
            ..LogConfig::new(store, Arc::clone(&options.log_signer))
        };
        let (audit, time, chance) = (Arc::clone(&storages.audit), Arc::clone(&clock), Arc::clone(&entropy));
        let roaming = LogConfig { roams: true, ..config.clone() };
        // The record of the newest epoch is needed next, whatever is asked for.
        let open = Log::open_roaming(audit, roaming, time, chance, options.own_shard);
        let (log, first_epoch) = tokio::join!(open, FirstEpoch::read(&*storages.keys, &*clock));
        let log = log?;
        if begins == Begins::No && log.head().next() == 0 {
            // The log has the record of `init` at least. One that is empty was
            // deleted, and must not begin anew as if nothing had happened.
            return Err(Error::new(ErrorKind::Integrity, "the store's audit log is gone"));
        }
        let keyring = Keyring::new(
            store,
            Arc::clone(&storages.keys),
            log.clone(),
            kms,
            (Arc::clone(&clock), Arc::clone(&entropy)),
            (
                Limits { ttl: options.key_ttl, uses: options.key_uses },
                options.session_check,
                options.sealing_term,
            ),
        );
        keyring.take_first_epoch(first_epoch);
        let publisher =
            Publisher::new(Arc::clone(&storages.audit), store, Arc::clone(&config.signer), config.deadline)
                .with_keys(config.signers(), authority);
        let witnesses = options.witnesses.clone();
        let inner = Arc::new(Inner {
            store,
            storages,
            keyring,
            log,
            log_config: config,
            publisher,
            witnesses,
            clock,
            entropy,
        });
        tokio::spawn(evict(Arc::downgrade(&inner), options.key_ttl));
        Ok(Self(inner))
    }

    /// The id of this store.
    #[must_use]
    pub fn store_id(&self) -> StoreId {
        self.0.store
    }

    /// The time by the store's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The audit log, in the shard that this program writes to.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// The audit log to be read, every shard of it.
    #[must_use]
    pub fn log_reader(&self) -> LogReader {
        self.0.log.reader()
    }

    /// Reads the whole audit log, every shard of it, and checks all that there is
    /// on its storage, see [`verify()`].
    ///
    /// # Errors
    /// As [`verify()`]: that something is wrong is no error.
    pub async fn verify_log(&self) -> Result<verify::Report> {
        let room = &*self.0;
        let mut options = verify::Options::new(room.clock.now());
        (options.authority, options.store) = (Some(room.log.authority()), Some(room.store));
        verify(Arc::clone(&room.storages.audit), options).await
    }

    /// Adds a customer: its ring with a month of day keys, then its label.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with a [`LabelResemblesId`] behind it if the label has the
    /// form of an id; [`ErrorKind::AlreadyExists`] if there is a customer of this label;
    /// [`ErrorKind::KeyUnavailable`] or [`ErrorKind::KeyDestroyed`] if the KMS
    /// key cannot be used.
    pub async fn add_customer(&self, access: &Access, new: NewCustomer) -> Result<CustomerInfo> {
        // Before anything is recorded or made.
        LabelResemblesId::refuse(&new.label)?;
        let room = &*self.0;
        let id = CustomerId::from_bytes(random(&*room.entropy)?);
        let mut intent = Intent::new(room.log.request_id()?, access, Action::CustomerAdd);
        intent.customer = Some(id);
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access, cause: Some(open.request()) };
        // Adding uses no customer key itself; the KMS call has its own record.
        drop(receipt);
        let added = self.add(asker, id, new).await;
        close(open, added).await
    }

    async fn add(&self, asker: Asker<'_>, id: CustomerId, new: NewCustomer) -> Result<CustomerInfo> {
        let room = &*self.0;
        let epoch = room.keyring.current_epoch(asker).await?;
        let path = layout::label(&epoch.directory.label_tag(&new.label));
        let taken = || Error::new(ErrorKind::AlreadyExists, "there is a customer of this label already");
        match room.storages.keys.head(&path).await {
            Ok(_) => return Err(taken()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(store_error(error, "look the label up")),
        }
        let tags = keyring::customer_tags((room.store, id), new.tenancy);
        let kms_key = room.keyring.kms_key(new.kms_key, &tags).await?;
        let NewCustomer { label, suite, strict, phi, tenancy, .. } = new;
        let settings = Settings { label, kms_key, suite, strict, phi, tenancy };
        let ring = room.keyring.create_ring(asker, id, settings, (new.period, new.window)).await?;
        // If we stop here, there is a ring that no label leads to: nobody uses
        // it, and adding the customer again makes another one.
        match create(&*room.storages.keys, &path, format!("{id}\n").into(), "write the label").await? {
            Created::Ours => Ok(CustomerInfo::of(&ring)),
            Created::Another => Err(taken()),
        }
    }

    /// The customer of this label, for what `access` says.
    ///
    /// Who asks and why cannot be left out:
    ///
    /// ```
    /// # use strongroom::{Result, access::{Access, Principal, Purpose}, id::Label, room::{Customer, Strongroom}};
    /// # async fn treat(room: &Strongroom, label: &Label, principal: Principal) -> Result<Customer> {
    /// room.customer(label, Access::new(principal, Purpose::Treatment)).await
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0061
    /// # use strongroom::{Result, access::{Access, Principal, Purpose}, id::Label, room::{Customer, Strongroom}};
    /// # async fn treat(room: &Strongroom, label: &Label, principal: Principal) -> Result<Customer> {
    /// room.customer(label).await
    /// # }
    /// ```
    ///
    /// ```compile_fail,E0061
    /// # use strongroom::{Result, access::{Access, Principal, Purpose}, id::Label, room::{Customer, Strongroom}};
    /// # async fn treat(room: &Strongroom, label: &Label, principal: Principal) -> Result<Customer> {
    /// room.customer(label, Access::new(principal)).await
    /// # }
    /// ```
    ///
    /// A label that can be an id is taken for one, as in a [`CustomerRef`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    pub async fn customer(&self, label: &Label, access: Access) -> Result<Customer> {
        self.customer_of(&CustomerRef::from(label.clone()), access).await
    }

    async fn labelled(&self, label: &Label, access: Access) -> Result<Customer> {
        let asker = Asker::of(&access);
        let epoch = self.0.keyring.current_epoch(asker).await?;
        let path = layout::label(&epoch.directory.label_tag(label));
        let id = self.read_label(&path).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "there is no customer of this label"),
            _ => error,
        })?;
        let ring = self.labelled_ring(asker, id).await?;
        if ring.settings.label != *label {
            let error = Error::new(ErrorKind::Integrity, "the label leads to another customer's ring");
            return Err(self.0.keyring.refuse(asker, Some(id), error).await);
        }
        Ok(Customer::new(self.clone(), id, access))
    }

    /// The customer of this id, for what `access` says.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none.
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn customer_by_id(&self, id: CustomerId, access: Access) -> Result<Customer> {
        // The register is pinned under the store's own id.
        if id.as_bytes() == self.0.store.as_bytes() {
            return Err(no_such_id());
        }
        let ring = self.0.keyring.ring(Asker::of(&access), id).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => no_such_id(),
            _ => error,
        })?;
        Ok(Customer::new(self.clone(), ring.customer, access))
    }

    /// All customers, sorted by label.
    ///
    /// # Errors
    /// By [`ErrorKind`]: one customer that cannot be read fails the list.
    pub async fn customers(&self, access: &Access) -> Result<Vec<CustomerInfo>> {
        let labels = self.0.storages.keys.list(Some(&layout::labels()));
        let infos = labels
            .map_err(|error| store_error(error, "list the customers"))
            .try_filter(|object| std::future::ready(layout::read_label(&object.location).is_some()))
            .map(|object| async move {
                let id = self.read_label(&object?.location).await?;
                let ring = self.labelled_ring(Asker::of(access), id).await?;
                Ok::<_, Error>(CustomerInfo::of(&ring))
            })
            .buffer_unordered(16);
        let mut infos: Vec<_> = infos.try_collect().await?;
        infos.sort_by(|a, b| a.label.cmp(&b.label));
        Ok(infos)
    }

    /// The ids of all customers: of every ring there is, and every one that the log names.
    /// No ring is read for it.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::AuditUnavailable`] if a storage cannot be
    /// listed.
    ///
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn customer_ids(&self) -> Result<BTreeSet<CustomerId>> {
        self.0.keyring.customers().await
    }

    /// The ring that a label leads to. It was written before the label.
    async fn labelled_ring(&self, asker: Asker<'_>, id: CustomerId) -> Result<Arc<Ring>> {
        match self.0.keyring.ring(asker, id).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let error = Error::new(ErrorKind::Integrity, "a label leads to no ring").with_source(error);
                Err(self.0.keyring.refuse(asker, Some(id), error).await)
            }
            ring => ring,
        }
    }

    async fn read_label(&self, path: &object_store::path::Path) -> Result<CustomerId> {
        let stored = self.0.storages.keys.get(path).await;
        let stored = stored.map_err(|error| store_error(error, "read a label"))?;
        let bytes = stored.bytes().await.map_err(|error| store_error(error, "read a label"))?;
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix('\n'));
        let id = text.and_then(|text| text.parse().ok());
        id.ok_or_else(|| Error::new(ErrorKind::Integrity, "a label does not hold a customer id"))
    }

    /// Ends the use of the store on this node: when this returns, every record
    /// is durable.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if some are not.
    pub async fn close(&self) -> Result<()> {
        self.0.log.close().await
    }
}

impl fmt::Debug for Strongroom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strongroom").field("store", &self.0.store).finish_non_exhaustive()
    }
}

/// Whether a store is being made, so that its log may be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    Yes,
    No,
}

/// Wipes what is past its term while the store is open, so that a key nobody
/// asks for again does not stay in memory.
async fn evict(room: Weak<Inner>, ttl: Duration) {
    let pause = (ttl / 8).clamp(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        tokio::time::sleep(pause).await;
        let Some(room) = room.upgrade() else { return };
        room.keyring.evict();
    }
}

/// That a key we have is one of the store's log. Another one would make
/// commits that nobody believes.
fn check_signer(authority: &Authority, options: &Options) -> Result<()> {
    let signers = Signers::new(Arc::clone(&options.log_signer), options.other_log_signer.clone());
    if !signers.known(authority).is_empty() {
        return Ok(());
    }
    let message = "the signing key that was given is not the one of this store's audit log";
    Err(Error::new(ErrorKind::Configuration, message))
}

/// That no node goes on with a ring for as long as the shortest window before a
/// destruction: what a key is used for is known when its window ends.
fn check_ttl(options: &Options) -> Result<()> {
    let message = match options {
        Options { key_ttl, .. } if *key_ttl > MAX_TTL => "keys and rings may be cached for 12 hours at most",
        Options { sealing_term, .. } if *sealing_term > MAX_TTL => {
            "a node's own keys seal for 12 hours at most"
        }
        Options { session_check, .. } if *session_check > MAX_SESSION_CHECK => {
            "a look at a session is good for a minute at most"
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::Configuration, message))
}

/// That the three storages carry this store's marker.
async fn check_markers(storages: &Storages, marker: Marker, deadline: Duration) -> Result<()> {
    match read_markers(storages, deadline).await? {
        found if found == marker => Ok(()),
        _ => Err(not_together()),
    }
}

/// The marker that the three storages carry.
async fn read_markers(storages: &Storages, deadline: Duration) -> Result<Marker> {
    let audit = async {
        let read = Marker::read(&*storages.audit);
        within(deadline, "read the store's marker", read).await.map_err(|error| match error.kind() {
            ErrorKind::Unavailable | ErrorKind::Configuration => {
                let message = "the audit storage cannot be read, so nothing was sealed or opened";
                Error::new(ErrorKind::AuditUnavailable, message).with_source(error)
            }
            _ => error,
        })
    };
    let keys = Marker::read(&*storages.keys);
    let (keys, blobs, audit) = tokio::join!(keys, Marker::read(&*storages.blobs), audit);
    // The one on the storage of keys makes it a store.
    let marker = keys?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "there is no store here; make one with `strongroom init`")
    })?;
    match [blobs?, audit?] == [Some(marker); 2] {
        true => Ok(marker),
        false => Err(not_together()),
    }
}

fn not_together() -> Error {
    let message = "the blobs, keys and audit storages do not belong to one store";
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service runs these on a runtime of several threads.
    #[test]
    fn every_future_can_move_between_threads() {
        fn is_send<T: Send>(_: impl FnOnce(Strongroom, Customer, crate::id::BlobId) -> T) {}
        is_send(|_, customer, _| async move { customer.seal(Vec::new(), SealOptions::new()).await });
        is_send(|_, customer, blob| async move { customer.open(blob).await });
        is_send(|_, customer, blob| async move { customer.open_range(blob, ByteRange::From(0)).await });
        is_send(|_, customer, blob| async move { customer.stat(blob).await });
        is_send(|_, customer, blob| async move { customer.verify(blob).await });
        is_send(|_, customer, blob| async move { customer.extend(blob, blob.day()).await });
        is_send(|_, customer, _| async move { customer.set(None, None).await });
        is_send(|_, customer, _| async move { customer.set_policy(None, None).await });
        is_send(|room, customer, _| async move { room.customers(&customer.access).await });
        is_send(|room, customer, _| async move {
            let limits = crate::session::SessionLimits::DEFAULT;
            let session = room.open_session(&customer.access, customer.id, limits).await?;
            room.end_session(&customer.access, customer.id, session.id).await?;
            room.sessions(&customer.access, customer.id).await?;
            let id = room.request_access(&customer.access, customer.id, limits).await?;
            room.access_requests(&customer.access, customer.id).await?;
            room.approve_access(&customer.access, customer.id, id).await?;
            room.end_overdue_sessions(&customer.access).await
        });
        is_send(|room, customer, _| async move {
            let (access, id) = (&customer.access, customer.id);
            let emergency = room.declare_emergency(access, id, Duration::from_hours(1)).await?;
            room.fold_emergencies(access).await?;
            room.emergencies(access, None).await?;
            room.review_emergency(access, id, emergency.id).await
        });
        is_send(|room, customer, _| async move {
            let new = NewCustomer::new("x".parse()?, KeyChoice::New("local".into()));
            room.add_customer(&customer.access, new)
                .await
                .map_err(Box::<dyn std::error::Error + Send + Sync>::from)
        });
        is_send(|room, customer, _| async move {
            let label: Label = "x".parse()?;
            let found = room.customer(&label, customer.access.clone()).await;
            found.map_err(Box::<dyn std::error::Error + Send + Sync>::from)
        });
    }
}
