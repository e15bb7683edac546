//! Rings and data keys: loaded once, checked against the log, changed by one
//! winner at a time.
//!
//! The order of every key use is here: intent durable, receipt, KMS, outcome.
//! A ring change is: intent (with version and hash) durable, voucher, ring created if
//! absent, pinned in the log, outcome. What a crash between any two of these
//! means is said at each.
//!
//! Invariants: one load per KMS key and node at a time ([`Cached`]); nothing
//! older than what the log pins, or than what this node has seen, is ever used.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::KeyChoice;
use crate::access::Access;
use crate::audit::history::{History, Need};
use crate::audit::log::{Log, OpenIntent, Pin};
use crate::audit::voucher::{Versioned, Vouched};
use crate::audit::{Action, Intent, KeyRef, KeyUseReceipt, OutcomeResult, RingRef};
use crate::cache::{Cached, Limits};
use crate::codec::DecodeError;
use crate::entropy::{Entropy, random, random_secret};
use crate::envelope::Kek;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{
    BlobId, CustomerId, DataKeyId, HoldId, KekId, KmsKeyId, OrderId, RequestId, SessionId, StoreId,
};
use crate::kms::{DataKey, EncryptionContext, GeneratedDataKey, KeyState, KmsRegistry};
use crate::retention::{Period, Window};
use crate::ring::delta::Base;
use crate::ring::growth::MINT_DAYS;
use crate::ring::sealed::SealedRing;
use crate::ring::{
    Change, Entry, EntryKind, Hold, HoldScope, HoldState, Ring, RingDataKey, RingRefusal, Settings, Tenancy,
};
use crate::store::create::{Created, create};
use crate::store::{layout, store_error};
use crate::suite::Suite;
use crate::time::{Clock, Day};

mod acceptance;
mod emergency;
pub(crate) mod epochs;
mod own;
mod register;
pub(crate) mod sessions;
mod stored;

use emergency::Known;
use epochs::Epoch;

/// How often a lost race is run again before it is called a conflict.
const MAX_ATTEMPTS: u32 = 200;

/// Who asks for a key, and for which operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker<'a> {
    pub(crate) access: &'a Access,
    pub(crate) cause: Option<RequestId>,
}

impl<'a> Asker<'a> {
    /// Whoever asks by themselves, or for a client's request.
    pub(crate) fn of(access: &'a Access) -> Self {
        Self { access, cause: access.request }
    }
}

/// Intents that are durable, in the order in which they were given.
pub(crate) type Begun = Vec<(OpenIntent, KeyUseReceipt)>;

/// What a caller wants a ring to have.
pub(crate) enum Want<'a> {
    /// A key for this day, and in its turn for the month that begins with it.
    DayKeys(Day),
    /// A key of this day that this node made itself.
    OwnKey(Day),
    /// A name key that each node opens, where the customer's keys are in its own hand.
    OuterNameKey,
    /// What this says of each version that is met: a step, or none. What it stands on is
    /// asked for anew on each.
    Decided(&'a (dyn Fn(&Ring) -> Result<Option<Change>> + Send + Sync)),
    /// A hold on this blob, which is wrapped under this key so far.
    BlobHold {
        /// The id of the hold.
        hold: HoldId,
        /// The blob.
        blob: BlobId,
        /// The key.
        from: KekId,
    },
    /// This suite for new blobs, whatever the other settings are by then.
    Suite(Suite),
    /// This policy for new blobs, which is shorter in nothing.
    Policy {
        /// How long they are kept.
        period: Option<Period>,
        /// How long a destruction can be cancelled.
        window: Option<Window>,
    },
}

/// All rings and keys of one store, on this node.
pub(crate) struct Keyring {
    pub(crate) store: StoreId,
    pub(crate) storage: Arc<dyn ObjectStore>,
    pub(crate) log: Log,
    pub(crate) kms: KmsRegistry,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) limits: Limits,
    /// How long a look at a session is good for.
    pub(crate) session_check: Duration,
    /// How long this node seals with a data key of its own.
    pub(crate) sealing_term: Duration,
    newest_epoch: Cached<u32>,
    /// The newest epoch's record as it was when the store was opened, for its first use.
    first_epoch: Mutex<Option<epochs::FirstEpoch>>,
    epochs: Mutex<HashMap<u32, Arc<Cached<Epoch>>>>,
    customers: Mutex<HashMap<CustomerId, Arc<CustomerKeys>>>,
    register: register::Known,
    acceptance: acceptance::Acceptance,
}

/// What this node holds of one customer.
#[derive(Debug, Default)]
struct CustomerKeys {
    ring: Cached<Ring>,
    /// Those that the KMS unwrapped.
    data_keys: Mutex<HashMap<DataKeyId, Arc<Cached<DataKey>>>>,
    /// Those that this node made, to seal with.
    own: own::OwnKeys,
    sessions: Mutex<HashMap<SessionId, Arc<sessions::Known>>>,
    /// Serialises this node's own changes, so that they need not race.
    change: tokio::sync::Mutex<()>,
    /// The newest version that this node ever saw: nothing older is used.
    newest: Mutex<Option<Seen>>,
    /// The newest version that this node saw whole.
    whole: Mutex<Option<Arc<stored::Whole>>>,
}

/// A version that was read or written, and its hash.
#[derive(Debug)]
struct Seen {
    ring: Arc<Ring>,
    version: RingRef,
}

impl Keyring {
    pub(crate) fn new(
        store: StoreId,
        storage: Arc<dyn ObjectStore>,
        log: Log,
        kms: KmsRegistry,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        (limits, session_check, sealing_term): (Limits, Duration, Duration),
    ) -> Self {
        Self {
            store,
            storage,
            log,
            kms,
            clock,
            entropy,
            limits,
            session_check,
            sealing_term,
            newest_epoch: Cached::default(),
            first_epoch: Mutex::default(),
            epochs: Mutex::default(),
            customers: Mutex::default(),
            register: register::Known::default(),
            acceptance: acceptance::Acceptance::default(),
        }
    }

    /// The KMS key that was chosen: a new one, or one that is there and enabled.
    pub(crate) async fn kms_key(&self, choice: KeyChoice, tags: &EncryptionContext) -> Result<KmsKeyId> {
        let key = match choice {
            KeyChoice::New(provider) => {
                let key = self.kms.provider(&provider)?.create_key(tags).await?;
                self.check_fit(&key, tags).await?;
                return Ok(key);
            }
            KeyChoice::Existing(key) => key,
        };
        let provider = self.kms.get(&key)?;
        let key = match tags.is_of_epoch() {
            true => provider.resolve_for_epoch(&key).await?,
            false => provider.resolve(&key).await?,
        };
        match provider.describe(&key).await? {
            KeyState::Enabled => {
                self.check_fit(&key, tags).await?;
                Ok(key)
            }
            _ => Err(Error::new(ErrorKind::KeyUnavailable, "the KMS key is not enabled")),
        }
    }

    /// Refuses a key for a customer's own hand that is known to unwrap without a grant.
    async fn check_fit(&self, key: &KmsKeyId, tags: &EncryptionContext) -> Result<()> {
        match self.kms.granter(key) {
            Ok(granter) if tags.is_in_customers_hand() => Ok(granter.check_fit(key).await?),
            // Where no grants are made, nobody can tell.
            _ => Ok(()),
        }
    }

    /// Every customer that has a ring on the keys storage or a pin in the log. One that
    /// no label leads to is among them.
    pub(crate) async fn customers(&self) -> Result<BTreeSet<CustomerId>> {
        let listed = self.storage.list_with_delimiter(Some(&layout::rings())).await;
        let listed = listed.map_err(|error| store_error(error, "list the rings"))?;
        let read = |path: &Path| path.filename().and_then(|name| name.parse().ok());
        let mut customers: BTreeSet<CustomerId> = listed.common_prefixes.iter().filter_map(read).collect();
        customers.extend(self.log.pinned().await?);
        // The register is pinned under the store's own id.
        customers.remove(&self.stores_own());
        Ok(customers)
    }

    /// The same, and the customers for whom the log's bases have a ring. Ask this before a key is destroyed: an
    /// attacker who hides a customer's rings and pins for a while must not get its keys destroyed.
    pub(crate) async fn customers_on_record(&self) -> Result<BTreeSet<CustomerId>> {
        let mut customers = self.customers().await?;
        let history = History::open(&self.log.reader()).await?;
        let mut others = history.customers();
        others.retain(|customer| !customers.contains(customer) && *customer != self.stores_own());
        for customer in others {
            let mut operations = history.operations(Some(customer), &Need::Customer(None));
            while let Some(operation) = operations.try_next().await? {
                if operation.ended_well() && operation.intent().action == Action::RingWrite {
                    customers.insert(customer);
                    break;
                }
            }
        }
        Ok(customers)
    }

    /// The customer's ring: cached, or the newest there is.
    pub(crate) async fn ring(&self, asker: Asker<'_>, customer: CustomerId) -> Result<Arc<Ring>> {
        let keys = self.customer(customer);
        self.cached(asker, &keys.ring, || self.load_ring(asker, customer, &keys)).await
    }

    /// The newest ring there is, whatever was cached.
    pub(crate) async fn fresh_ring(&self, asker: Asker<'_>, customer: CustomerId) -> Result<Arc<Ring>> {
        self.customer(customer).ring.clear().await;
        self.ring(asker, customer).await
    }

    async fn load_ring(&self, asker: Asker<'_>, customer: CustomerId, keys: &CustomerKeys) -> Result<Ring> {
        let mut known = keys.newest_version();
        // On the heap, as the other loads: every use of a key goes through here, and few load anything.
        let mut read = Box::pin(self.read_ring(asker, customer, keys)).await;
        // What this node wrote while it read makes what it read old, and no
        // rollback. Its own version is there for the next look.
        while read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Integrity)
            && keys.newest_version() != known
        {
            known = keys.newest_version();
            read = Box::pin(self.read_ring(asker, customer, keys)).await;
        }
        match read {
            Err(error) => Err(self.refuse(asker, Some(customer), error).await),
            ring => ring,
        }
    }

    /// Records that what lies on the keys storage was refused, if that is what
    /// `error` says: no key use may come of it that would.
    pub(crate) async fn refuse(&self, asker: Asker<'_>, customer: Option<CustomerId>, error: Error) -> Error {
        if error.kind() != ErrorKind::Integrity {
            return error;
        }
        let recorded = async {
            let mut intent = Intent::new(self.log.request_id()?, asker.access, Action::KeysRead);
            (intent.cause, intent.customer) = (asker.cause, customer);
            let (open, receipt) = self.log.begin(intent).await?;
            drop(receipt);
            open.finish(error.kind().into(), None).await
        };
        // Without a log it is refused all the same, as everything is.
        let _: Result<()> = recorded.await;
        error
    }

    async fn read_ring(&self, asker: Asker<'_>, customer: CustomerId, keys: &CustomerKeys) -> Result<Ring> {
        let stored = self.stored_ring(asker, customer, keys).await?;
        let sealed = self.sealed_ring(customer, &stored)?;
        let epoch = self.epoch(asker, sealed.epoch).await?;
        let ring = self.open_ring(keys, (&sealed, stored.found.hash), &epoch).await?;
        if let Some(vouched) = &stored.unpinned {
            // Its writer stopped before it pinned it. Now the log knows it.
            self.pin_found(asker, vouched).await?;
        }
        keys.accept(Arc::new(ring.clone()), stored.found)?;
        Ok(ring)
    }

    /// A stored ring as its prefix has it: of this customer and version.
    fn sealed_ring<'a>(&self, customer: CustomerId, stored: &'a StoredRing) -> Result<SealedRing<'a>> {
        let sealed = SealedRing::parse(&stored.bytes).map_err(|error| unreadable(error, "ring"))?;
        if (sealed.store, sealed.customer, sealed.version) == (self.store, customer, stored.found.version) {
            return Ok(sealed);
        }
        let message = format!("the ring of customer {customer} belongs to another customer or version");
        Err(Error::new(ErrorKind::Integrity, message))
    }

    /// The newest version of a customer's ring that the log vouches for. No key is used.
    async fn stored_ring(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        keys: &CustomerKeys,
    ) -> Result<StoredRing> {
        let of = Versioned::Ring(customer);
        let rolled_back = || {
            Error::new(
                ErrorKind::Integrity,
                format!("the ring of customer {customer} is older than the log says"),
            )
        };
        let read = |version| async move {
            let failed = |error| store_error(error, "read a ring");
            let stored = self.storage.get(&layout::ring(customer, version)).await.map_err(failed)?;
            let bytes = stored.bytes().await.map_err(failed)?;
            let hash = Sha256::digest(&bytes).into();
            Ok::<_, Error>((RingRef { version, hash }, bytes))
        };
        let version = |path: &Path| layout::read_ring(path).map(|(_, version)| version);
        let find = || async move {
            // Read at once: mostly it is the one that is pinned.
            match newest(&*self.storage, layout::rings_of(customer), version).await? {
                Some(version) => read(version).await.map(Some),
                None => Ok(None),
            }
        };
        let (found, pin) = tokio::join!(find(), self.pin(asker, customer, keys));
        match pin? {
            Known::Seen(seen) => {
                // An emergency: what this node has seen stands for what the log cannot say.
                let (found, bytes) = read(seen.version).await?;
                if found != seen {
                    return Err(rolled_back());
                }
                Ok(StoredRing { found, bytes, unpinned: None })
            }
            Known::Pinned(pin) => {
                let mut newest = found?;
                let least = pin.as_ref().map(|pin| pin.version.version);
                if least > newest.as_ref().map(|(found, _)| found.version) {
                    // Pinned after we listed, perhaps. A version is there before it is
                    // pinned, so that a list made from now on must have it.
                    newest = find().await?;
                }
                let Some((found, bytes)) = newest else {
                    return Err(match pin {
                        None => Error::new(ErrorKind::NotFound, format!("there is no customer {customer}")),
                        Some(_) => rolled_back(),
                    });
                };
                // Each version is pinned before the next is written: a log that does not know of
                // the version before this one has lost more than that.
                let is_behind = |pin: &Option<Pin>| {
                    pin.as_ref().map_or(0, |pin| pin.version.version).saturating_add(1) < found.version
                };
                // Pinned after we looked, perhaps.
                let pin = if is_behind(&pin) { self.log.newest_pin(of).await? } else { pin };
                if is_behind(&pin) {
                    let message = format!("the log is older than the ring of customer {customer}");
                    return Err(Error::new(ErrorKind::Integrity, message));
                }
                let is_pinned = pin.as_ref().is_some_and(|pin| pin.version.version >= found.version);
                match &pin {
                    Some(pin) if pin.version.version > found.version => return Err(rolled_back()),
                    Some(pin) if is_pinned && pin.version != found => {
                        let message =
                            format!("the ring of customer {customer} is not the one that the log names");
                        return Err(Error::new(ErrorKind::Integrity, message));
                    }
                    _ => {}
                }
                let vouched = self.accept(of, found, pin).await?;
                Ok(StoredRing { found, bytes, unpinned: (!is_pinned).then_some(vouched) })
            }
        }
    }

    /// The data key `id` of `ring`, unwrapped: for whoever is admitted, each time anew. One that no
    /// KMS key wraps is for every node: it opens names' keys alone.
    pub(crate) async fn data_key(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        id: DataKeyId,
    ) -> Result<Arc<DataKey>> {
        let wrapped = ring.data_key(id).ok_or_else(no_data_key)?;
        if let Some(outer) = wrapped.unwrapped() {
            return Ok(Arc::new(outer));
        }
        self.admit(asker, ring).await?;
        let keys = self.customer(ring.customer);
        let cell = Arc::clone(lock(&keys.data_keys).entry(id).or_default());
        self.cached(asker, &cell, || self.load_data_key(asker, ring.customer, wrapped)).await
    }

    /// The data key `id` of `ring`, and `intents` of what it is used for. Where the KMS has to
    /// be asked, the intents are recorded in one commit with that of the call, so that a
    /// program which has just started waits for one commit and not for two. Then they are
    /// durable although the key may not be had: each gets its outcome from the caller.
    pub(crate) async fn begin_with_key(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        id: DataKeyId,
        intents: Vec<Intent>,
    ) -> Result<(Begun, Result<Arc<DataKey>>)> {
        let wrapped = ring.data_key(id).ok_or_else(no_data_key)?;
        if let Some(outer) = wrapped.unwrapped() {
            return Ok((self.log.begin_all(intents).await?, Ok(Arc::new(outer))));
        }
        self.admit(asker, ring).await?;
        let keys = self.customer(ring.customer);
        let cell = Arc::clone(lock(&keys.data_keys).entry(id).or_default());
        let mut waiting = Some(intents);
        let mut begun = None;
        let load = async {
            let reference = KeyRef::Customer { kms_key: wrapped.kms_key.clone(), data_key: wrapped.id };
            let call = self.intent(asker, Action::KmsDecrypt, Some(ring.customer), reference)?;
            let all = [call].into_iter().chain(waiting.take().unwrap_or_default()).collect();
            let mut all = self.log.begin_all(all).await?.into_iter();
            let (open, receipt) = all.next().expect("one of each intent");
            begun = Some(all.collect());
            self.decrypt_data_key(ring.customer, wrapped, open, receipt).await
        };
        let key = cell.get(&*self.clock, self.limits, load).await;
        match (begun, waiting) {
            (Some(begun), _) => Ok((begun, key)),
            // It was cached, or another caller has just loaded it.
            (None, Some(intents)) => {
                let key = key?;
                Ok((self.log.begin_all(intents).await?, Ok(key)))
            }
            (None, None) => Err(key.err().unwrap_or_else(no_data_key)),
        }
    }

    async fn load_data_key(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        key: &RingDataKey,
    ) -> Result<DataKey> {
        let reference = KeyRef::Customer { kms_key: key.kms_key.clone(), data_key: key.id };
        let (open, receipt) = self.begin(asker, Action::KmsDecrypt, Some(customer), reference).await?;
        self.decrypt_data_key(customer, key, open, receipt).await
    }

    async fn decrypt_data_key(
        &self,
        customer: CustomerId,
        key: &RingDataKey,
        open: OpenIntent,
        receipt: KeyUseReceipt,
    ) -> Result<DataKey> {
        let made = async {
            let provider = self.kms.get(&key.kms_key)?;
            let context = EncryptionContext::customer(self.store, customer, key.id);
            Ok(provider.decrypt(receipt, &key.kms_key, &key.wrapped, &context).await?)
        };
        settle(open, made.await)
    }

    /// Writes the first ring of a new customer: a name key, and the day keys of
    /// the first month.
    pub(crate) async fn create_ring(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        settings: Settings,
        (period, window): (Period, Window),
    ) -> Result<Arc<Ring>> {
        let epoch = self.epoch_of_new_rings(asker).await?;
        let now = self.clock.now();
        let first = Ring::first((self.store, customer), epoch.number, settings, (now, period, window));
        let kms_key = first.settings.kms_key.clone();
        let (data_key, plaintext) = self.new_data_key(asker, customer, kms_key).await?;
        let from = period.retain_until(now);
        let days = (0..MINT_DAYS).map(|days| EntryKind::Day(from.plus(days)));
        let mut entries = self.new_entries(customer, days, (data_key.id, &plaintext))?;
        let mut data_keys = vec![data_key.clone()];
        if first.settings.tenancy == Tenancy::Customer {
            let (outer, name_key) = self.new_outer_name_key(customer)?;
            data_keys.push(outer);
            entries.push(name_key);
            // This node seals with what it made, as it may not unwrap it again.
            self.keep_own(&self.customer(customer), (data_key, plaintext));
        } else {
            let name = [EntryKind::Name].into_iter();
            entries.extend(self.new_entries(customer, name, (data_key.id, &plaintext))?);
        }
        let ring = first.with_first_keys(data_keys, entries).map_err(refused)?;
        match self.write_ring(asker, &epoch, Arc::new(ring)).await? {
            Some(ring) => Ok(ring),
            None => Err(Error::new(ErrorKind::Conflict, "a ring of this new customer exists already")),
        }
    }

    /// Makes a data key of a customer. If we stop after this, nothing names it, and
    /// nothing is sealed under it.
    pub(crate) async fn new_data_key(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        kms_key: KmsKeyId,
    ) -> Result<(RingDataKey, DataKey)> {
        let id = DataKeyId::from_bytes(random(&*self.entropy)?);
        let reference = KeyRef::Customer { kms_key: kms_key.clone(), data_key: id };
        let (open, receipt) =
            self.begin(asker, Action::KmsGenerateDataKey, Some(customer), reference).await?;
        let context = EncryptionContext::customer(self.store, customer, id);
        let made = self.generate(open, receipt, &kms_key, &context).await?;
        Ok((RingDataKey { id, kms_key, wrapped: made.wrapped }, made.plaintext))
    }

    /// Changes a customer's ring until it has what is wanted.
    ///
    /// Of several nodes that want to change one version, one wins; the others
    /// read its version and decide anew.
    pub(crate) async fn ensure(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        want: &Want<'_>,
    ) -> Result<Arc<Ring>> {
        let keys = self.customer(customer);
        let _own_turn = keys.change.lock().await;
        if matches!(want, Want::Policy { .. }) {
            // "Nothing changes" must be said of the newest policy.
            keys.ring.clear().await;
        }
        for attempt in 0..MAX_ATTEMPTS {
            let ring = self.ring(asker, customer).await?;
            let Some(change) = self.plan(asker, &ring, want).await? else { return Ok(ring) };
            let next = Arc::new(ring.apply(change).map_err(refused)?);
            // A new version of a ring goes under its own epoch; rotation moves
            // rings to the next one.
            let epoch = match self.epoch(asker, next.epoch).await {
                // Since this version was cached, rotation has moved the ring on, and the
                // epoch was closed behind it.
                Err(error) if attempt == 0 && epochs::is_closed(&error) => {
                    keys.ring.clear().await;
                    continue;
                }
                epoch => epoch?,
            };
            if let Some(ring) = self.write_ring(asker, &epoch, next).await? {
                return Ok(ring);
            }
            keys.ring.clear().await;
            self.back_off(attempt).await?;
        }
        Err(Error::new(ErrorKind::Conflict, format!("the ring of customer {customer} changes too often")))
    }

    async fn plan(&self, asker: Asker<'_>, ring: &Ring, want: &Want<'_>) -> Result<Option<Change>> {
        match want {
            Want::Decided(decide) => decide(ring),
            Want::BlobHold { hold, .. } if ring.hold(*hold).is_some() => Ok(None),
            Want::BlobHold { hold, blob, from } => {
                let (under, data_key) = self.minting_key(asker, ring).await?;
                let mut minted =
                    self.new_entries(ring.customer, [EntryKind::Hold].into_iter(), (under, &data_key))?;
                let key = minted.pop().expect("one kind gives one entry");
                let scope = HoldScope::Blob { blob: *blob, from: *from, key: key.id };
                let hold = Hold { id: *hold, scope, placed: self.clock.now(), state: HoldState::Opening };
                Ok(Some(Change::PlaceHold { hold, key: Some(key) }))
            }
            Want::Suite(suite) => {
                let settings = Settings { suite: *suite, ..ring.settings.clone() };
                Ok((settings != ring.settings).then_some(Change::Settings(settings)))
            }
            Want::Policy { period, window } => {
                let policy = ring.policy();
                let (period, window) = (period.unwrap_or(policy.period), window.unwrap_or(policy.window));
                let changes = (period, window) != (policy.period, policy.window);
                let since = self.clock.now();
                Ok(changes.then_some(Change::Policy { since, period, window, order: None }))
            }
            Want::OwnKey(day) => self.plan_own(asker, ring, *day).await,
            Want::OuterNameKey => self.plan_outer_name_key(ring),
            Want::DayKeys(from) if ring.day_key(*from).is_some() => Ok(None),
            Want::DayKeys(from) => {
                let days = ring.days_to_mint(*from, self.clock.now().max(self.log.time()));
                let (under, data_key) = self.minting_key(asker, ring).await?;
                let kinds = days.into_iter().map(EntryKind::Day);
                let entries = self.new_entries(ring.customer, kinds, (under, &data_key))?;
                Ok(Some(Change::Mint { data_keys: Vec::new(), entries }))
            }
        }
    }

    /// A data key of the KMS key that the customer has now.
    async fn minting_key(&self, asker: Asker<'_>, ring: &Ring) -> Result<(DataKeyId, Arc<DataKey>)> {
        let fits = |key: &&RingDataKey| key.kms_key == ring.settings.kms_key;
        let none = || Error::new(ErrorKind::Integrity, "the ring has no data key of its own KMS key");
        let under = ring.data_keys.iter().find(fits).ok_or_else(none)?;
        Ok((under.id, self.data_key(asker, ring, under.id).await?))
    }

    fn new_entries(
        &self,
        customer: CustomerId,
        kinds: impl Iterator<Item = EntryKind>,
        data_key: (DataKeyId, &DataKey),
    ) -> Result<Vec<Entry>> {
        let minted = self.clock.now();
        kinds
            .map(|kind| {
                let id = KekId::from_bytes(random(&*self.entropy)?);
                let kek = Kek::new(random_secret(&*self.entropy)?);
                let salt = random(&*self.entropy)?;
                Ok(Entry::seal((self.store, customer), minted, id, kind, &kek, data_key, salt))
            })
            .collect()
    }

    /// Writes one version of a ring. `None` if another one has that number.
    pub(crate) async fn write_ring(
        &self,
        asker: Asker<'_>,
        epoch: &Epoch,
        ring: Arc<Ring>,
    ) -> Result<Option<Arc<Ring>>> {
        self.write_ring_by(asker, epoch, ring, None).await
    }

    /// The same, by an order of two people.
    pub(crate) async fn write_ring_by(
        &self,
        asker: Asker<'_>,
        epoch: &Epoch,
        ring: Arc<Ring>,
        order: Option<OrderId>,
    ) -> Result<Option<Arc<Ring>>> {
        let bytes = self.seal_ring(&ring, epoch)?;
        let is_whole = SealedRing::parse(&bytes).is_ok_and(|sealed| sealed.base.is_none());
        let reference = RingRef { version: ring.version, hash: Sha256::digest(&bytes).into() };
        let mut intent = Intent::new(self.log.request_id()?, asker.access, Action::RingWrite);
        intent.cause = asker.cause;
        intent.customer = Some(ring.customer);
        (intent.ring, intent.order) = (Some(reference), order);
        let (open, receipt) = self.log.begin(intent).await?;
        // The receipt is for the sealing above, which came first because the
        // intent names its hash. Nothing of it has left this process yet.
        drop(receipt);
        // If we stop here or after the voucher, the log has an intent for a version that does
        // not exist, which binds nobody.
        let vouched = match self.log.vouch(Versioned::Ring(ring.customer), reference, open.request()).await {
            Ok(vouched) => vouched,
            Err(error) => return close(open, Err(error)).await,
        };
        let path = layout::ring(ring.customer, ring.version);
        match create(&*self.storage, &path, bytes.into(), "write a ring").await {
            Ok(Created::Ours) => {}
            Ok(Created::Another) => {
                open.finish(OutcomeResult::Conflict, None).await?;
                return Ok(None);
            }
            Err(error) => return close(open, Err(error)).await,
        }
        // If we stop here, the version stands and whoever reads it next pins it.
        self.log.pin(&vouched).await?;
        // If we stop here, the log has an intent without outcome; the ring is
        // complete and pinned.
        open.finish(OutcomeResult::Ok, None).await?;
        let keys = self.customer(ring.customer);
        keys.accept(Arc::clone(&ring), reference)?;
        if is_whole {
            keys.note_whole(Base { version: ring.version, hash: reference.hash }, &ring);
        }
        keys.ring.put(Arc::clone(&ring), &*self.clock, self.limits).await;
        Ok(Some(ring))
    }

    async fn generate(
        &self,
        open: OpenIntent,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey> {
        let provider = self.kms.get(key)?;
        let made = provider.generate_data_key(receipt, key, context).await;
        settle(open, made.map_err(Error::from))
    }

    async fn begin(
        &self,
        asker: Asker<'_>,
        action: Action,
        customer: Option<CustomerId>,
        key: KeyRef,
    ) -> Result<(OpenIntent, KeyUseReceipt)> {
        self.log.begin(self.intent(asker, action, customer, key)?).await
    }

    fn intent(
        &self,
        asker: Asker<'_>,
        action: Action,
        customer: Option<CustomerId>,
        key: KeyRef,
    ) -> Result<Intent> {
        let mut intent = Intent::new(self.log.request_id()?, asker.access, action);
        intent.cause = asker.cause;
        intent.customer = customer;
        intent.key = Some(key);
        Ok(intent)
    }

    fn customer(&self, customer: CustomerId) -> Arc<CustomerKeys> {
        Arc::clone(lock(&self.customers).entry(customer).or_default())
    }

    async fn back_off(&self, attempt: u32) -> Result<()> {
        let [random] = random::<1>(&*self.entropy)?;
        let most = 2u64 << attempt.min(7);
        tokio::time::sleep(Duration::from_micros(most * u64::from(random) * 4)).await;
        Ok(())
    }

    /// Wipes every key whose term is over. Called now and then, so that a key
    /// that nobody asks for does not stay in memory.
    pub(crate) fn evict(&self) {
        let now = self.clock.uptime();
        lock(&self.epochs).retain(|_, cell| !cell.evict(now) || Arc::strong_count(cell) > 1);
        for keys in lock(&self.customers).values() {
            keys.ring.evict(now);
            lock(&keys.data_keys).retain(|_, cell| !cell.evict(now) || Arc::strong_count(cell) > 1);
            keys.own.evict(now);
            lock(&keys.sessions).retain(|_, known| !known.evict(now) || Arc::strong_count(known) > 1);
        }
    }
}

/// A version of a ring that the log vouches for, as it is stored.
struct StoredRing {
    found: RingRef,
    bytes: Bytes,
    /// Its voucher, where the log has no pin of it yet.
    unpinned: Option<Vouched>,
}

impl CustomerKeys {
    fn newest_version(&self) -> Option<RingRef> {
        lock(&self.newest).as_ref().map(|seen| seen.version)
    }

    /// Takes note of a version that was read or written.
    fn accept(&self, ring: Arc<Ring>, version: RingRef) -> Result<()> {
        // It stays for as long as the program runs, and so must not hold what opens keys
        // that are dropped meanwhile. That the bytes are those that the log names was
        // checked before.
        let ring = Arc::new(ring.bare());
        let mut newest = lock(&self.newest);
        if let Some(Seen { ring: known, .. }) = newest.as_ref() {
            let same = known.version == ring.version;
            if (same && **known != *ring) || (!same && known.check_successor(&ring).is_err()) {
                let message =
                    format!("the ring of customer {} does not follow from the one before", ring.customer);
                return Err(Error::new(ErrorKind::Integrity, message));
            }
        }
        *newest = Some(Seen { ring, version });
        Ok(())
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("store", &self.store).finish_non_exhaustive()
    }
}

fn no_data_key() -> Error {
    Error::new(ErrorKind::Integrity, "a ring entry names a data key that the ring does not have")
}

/// The tags of a KMS key that is made for a customer.
pub(crate) fn customer_tags((store, customer): (StoreId, CustomerId), tenancy: Tenancy) -> EncryptionContext {
    let tags = EncryptionContext::new_customer(store, customer);
    match tenancy {
        Tenancy::Held => tags,
        Tenancy::Customer => tags.in_customers_hand(),
    }
}

/// Records how a step of an operation ended, and passes its result on. Nobody
/// waits for that record: the operation's own stands behind it.
pub(crate) fn settle<T>(open: OpenIntent, result: Result<T>) -> Result<T> {
    open.record(result.as_ref().err().map_or(OutcomeResult::Ok, |error| error.kind().into()), None);
    result
}

/// Records how an operation ended, and passes its result on.
pub(crate) async fn close<T>(open: OpenIntent, result: Result<T>) -> Result<T> {
    match result {
        Ok(value) => {
            open.finish(OutcomeResult::Ok, None).await?;
            Ok(value)
        }
        Err(error) => {
            // The caller learns what went wrong with the key, not that the
            // record of it failed too; the log keeps trying to write it.
            let _ = open.finish(error.kind().into(), None).await;
            Err(error)
        }
    }
}

pub(crate) fn refused(refusal: RingRefusal) -> Error {
    let kind = match refusal {
        RingRefusal::Shortened
        | RingRefusal::Held
        | RingRefusal::Released
        | RingRefusal::WindowOpen
        | RingRefusal::OtherOrder
        | RingRefusal::Authorities
        | RingRefusal::NotPermitted
        | RingRefusal::WrongOrder
        | RingRefusal::Pending
        | RingRefusal::Closed => ErrorKind::Denied,
        RingRefusal::UnknownKey | RingRefusal::UnknownHold => ErrorKind::NotFound,
        _ => ErrorKind::Integrity,
    };
    Error::new(kind, "the ring was not changed").with_source(refusal)
}

fn unreadable(error: DecodeError, what: &'static str) -> Error {
    let kind = match error {
        DecodeError::Version(_) => ErrorKind::UnsupportedFormat,
        _ => ErrorKind::Integrity,
    };
    Error::new(kind, format!("a stored {what} cannot be read")).with_source(error)
}

/// The greatest number among the objects under `prefix`.
async fn newest<T: Ord>(
    storage: &dyn ObjectStore,
    prefix: Path,
    read: impl Fn(&Path) -> Option<T>,
) -> Result<Option<T>> {
    let mut objects = storage.list(Some(&prefix));
    let mut newest = None;
    while let Some(object) = objects.next().await {
        let object = object.map_err(|error| store_error(error, "list the keys storage"))?;
        newest = newest.max(read(&object.location));
    }
    Ok(newest)
}

/// A lock whose holder cannot panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
