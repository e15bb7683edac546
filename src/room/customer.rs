//! One customer of a store, for one principal and purpose.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};

use super::keyring::{Asker, Want, close};
use super::open::{self, BlobInfo, ByteRange, Opened};
use super::seal::{self, SealOptions, Sealed};
use super::wraps::{self, Extended};
use super::{CustomerInfo, Source, Strongroom};
use crate::access::Access;
use crate::audit::{Action, Intent, KeyRef, OutcomeResult};
use crate::envelope::BlobName;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId};
use crate::retention::{Period, Window};
use crate::ring::{EntryKind, Policy, Ring, UseError};
use crate::store::{layout, store_error, stored_at};
use crate::suite::Suite;
use crate::time::{Day, Timestamp};

/// One customer of a store, for one principal and purpose: everything done
/// through it is recorded as done by them.
#[derive(Clone, Debug)]
pub struct Customer {
    pub(crate) room: Strongroom,
    pub(crate) id: CustomerId,
    pub(crate) access: Access,
    /// What the blobs must be named to open.
    pub(crate) name: Option<BlobName>,
}

/// A blob in a listing: what the storage says, opened by nobody yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The blob.
    pub id: BlobId,
    /// Header and payload together, in bytes, as the storage says.
    pub stored_bytes: u64,
    /// When the blob became visible, as the storage says.
    pub stored_at: Option<Timestamp>,
}

impl Listed {
    fn of(id: BlobId, object: &ObjectMeta) -> Self {
        Self { id, stored_bytes: object.size, stored_at: stored_at(object) }
    }
}

impl Customer {
    pub(crate) fn new(room: Strongroom, id: CustomerId, access: Access) -> Self {
        Self { room, id, access, name: None }
    }

    /// Who it is for, and why.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The opaque id of this customer.
    #[must_use]
    pub fn id(&self) -> CustomerId {
        self.id
    }

    /// The same customer, whose blobs open only if they were sealed under this
    /// name: for those that [`Customer::find`] gave, because the storage wrote
    /// them down under it. Any other is [`ErrorKind::Authentication`].
    #[must_use]
    pub fn only_named(&self, name: &BlobName) -> Self {
        Self { name: Some(name.clone()), ..self.clone() }
    }

    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker::of(&self.access)
    }

    pub(crate) async fn ring(&self) -> Result<Arc<Ring>> {
        self.room.0.keyring.ring(self.asker(), self.id).await
    }

    /// What the customer's ring says about it.
    ///
    /// # Errors
    /// By [`ErrorKind`].
    pub async fn info(&self) -> Result<CustomerInfo> {
        Ok(CustomerInfo::of(&*self.ring().await?))
    }

    /// Changes retention and suite for blobs that are sealed from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the new period could end sooner than the one
    /// that stands; shortening takes two people.
    ///
    /// # Cancel safety
    /// Either is changed or not; look at [`Customer::info`].
    pub async fn set(&self, period: Option<Period>, suite: Option<Suite>) -> Result<CustomerInfo> {
        let policy = period.map(|period| Want::Policy { period: Some(period), window: None });
        let wants: Vec<_> = policy.into_iter().chain(suite.map(Want::Suite)).collect();
        Ok(CustomerInfo::of(&*self.change(&wants).await?))
    }

    /// Every retention policy that there was, in order; the last is the one for blobs
    /// that are sealed from now on.
    ///
    /// # Errors
    /// By [`ErrorKind`].
    pub async fn policies(&self) -> Result<Vec<Policy>> {
        Ok(self.ring().await?.policies.clone())
    }

    /// A new policy for blobs that are sealed from now on: how long they are kept, and
    /// how long a destruction can be cancelled. What is `None` stays as it is, and where
    /// nothing changes there is no new version.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if either could be shorter than it is: a shorter period takes
    /// an order of two people, and a window is not shortened.
    ///
    /// # Cancel safety
    /// It is changed or not; look at [`Customer::policies`].
    pub async fn set_policy(&self, period: Option<Period>, window: Option<Window>) -> Result<Vec<Policy>> {
        Ok(self.change(&[Want::Policy { period, window }]).await?.policies.clone())
    }

    /// Changes the ring until it has all of `wants`, as one recorded operation.
    async fn change(&self, wants: &[Want<'_>]) -> Result<Arc<Ring>> {
        let room = &*self.room.0;
        let mut intent = Intent::new(room.log.request_id()?, &self.access, Action::CustomerSet);
        intent.customer = Some(self.id);
        let (open, receipt) = room.log.begin(intent).await?;
        let asker = Asker { access: &self.access, cause: Some(open.request()) };
        // Writing the ring has its own record, and needs no customer key.
        drop(receipt);
        let changed = async {
            let mut ring = room.keyring.ring(asker, self.id).await?;
            // If we stop between two, the first of them stands.
            for want in wants {
                ring = room.keyring.ensure(asker, self.id, want).await?;
            }
            Ok(ring)
        };
        let changed = changed.await;
        close(open, changed).await
    }

    /// Seals all of `source` as a new blob. It takes no session: outside of one, a node
    /// seals with keys that it made itself, where the customer's are in its own hand.
    ///
    /// # Errors
    /// By [`ErrorKind`]; [`ErrorKind::Denied`] if the access names a session that is not
    /// open. Then no blob is visible, but for two failures whose messages name it: the outcome
    /// could not be recorded, or the storage did not confirm the blob, which may be there or
    /// appear later ([`upload::is_in_doubt`](crate::store::upload::is_in_doubt)). Sealed again under
    /// the same [idempotency key](SealOptions::once), it is stored once.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no visible blob, and is recorded as aborted.
    pub async fn seal(&self, source: impl Into<Source>, options: SealOptions) -> Result<Sealed> {
        // On the heap, as it is large: whoever seals has a stack of their own.
        Box::pin(seal::seal(self, source.into(), options)).await
    }

    /// Opens a blob. What the stream gives is authentic, chunk by chunk; that it
    /// is whole is certain once the stream ended without an error.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Authentication`],
    /// [`ErrorKind::KeyUnavailable`], [`ErrorKind::KeyDestroyed`],
    /// [`ErrorKind::Denied`] outside a session where it takes one, and the
    /// retryable ones. The stream too ends as denied, once the session is over.
    ///
    /// # Cancel safety
    /// Dropped, it releases nothing further, and is recorded as aborted.
    pub async fn open(&self, blob: BlobId) -> Result<Opened> {
        Box::pin(open::open(self, blob, None, Action::Open)).await
    }

    /// Opens a part of a blob, reading only the chunks that hold it.
    ///
    /// # Errors
    /// As [`Customer::open`], and [`ErrorKind::InvalidInput`] for a range that
    /// begins behind the end.
    ///
    /// # Cancel safety
    /// As [`Customer::open`].
    pub async fn open_range(&self, blob: BlobId, range: ByteRange) -> Result<Opened> {
        Box::pin(open::open(self, blob, Some(range), Action::OpenRange)).await
    }

    /// Opens a blob's header and last chunk: its metadata and its authentic
    /// length.
    ///
    /// # Errors
    /// As [`Customer::open`].
    pub async fn stat(&self, blob: BlobId) -> Result<BlobInfo> {
        open::stat(self, blob, Action::Stat).await
    }

    /// As [`Customer::stat`], recorded as part of a listing.
    ///
    /// # Errors
    /// As [`Customer::open`].
    pub async fn stat_listed(&self, blob: BlobId) -> Result<BlobInfo> {
        open::stat(self, blob, Action::List).await
    }

    /// Reads a blob through and checks all of it, releasing nothing.
    ///
    /// # Errors
    /// As [`Customer::open`].
    pub async fn verify(&self, blob: BlobId) -> Result<BlobInfo> {
        let opened = open::open(self, blob, None, Action::Verify).await?;
        let info = opened.info().clone();
        let mut stream = opened.into_stream();
        while stream.try_next().await?.is_some() {}
        Ok(info)
    }

    /// Keeps a blob until `until` at least: its DEK is wrapped once more, under a
    /// key of that day, and neither header nor payload is touched. Where it is kept
    /// as long already, nothing changes; nothing here shortens a term.
    ///
    /// # Errors
    /// As [`Customer::open`], and [`ErrorKind::InvalidInput`] for a day past the
    /// calendar. The blob is then as it was, or extended: run it again.
    ///
    /// # Cancel safety
    /// Dropped, the blob is as it was, or extended.
    pub async fn extend(&self, blob: BlobId, until: Day) -> Result<Extended> {
        wraps::extend(self, blob, until).await
    }

    /// That a writer alone may keep a blob until `until`: what else a daemon lets nobody but a privacy
    /// officer do.
    #[cfg(feature = "daemon")]
    pub(crate) async fn permit_writer(&self, until: Day) -> Result<()> {
        let room = &*self.room.0;
        let now = room.clock.now().max(room.log.time());
        self.ring().await?.permit_writer(until, now).map_err(seal::too_long)
    }

    /// The ids of at most `limit` of its blobs, from the least that is greater than `after` on, in
    /// their order, whatever order the storage lists in. Fewer: there are no more.
    ///
    /// # Errors
    /// As [`Customer::list`].
    ///
    /// # Cancel safety
    /// Nothing is written but what [`Customer::list`] writes.
    pub async fn page(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<BlobId>> {
        self.enter(Action::List).await?;
        self.room.0.storages.page(self.id, after, limit).await
    }

    /// What the storage says of a blob. No key of the customer's is used.
    ///
    /// # Errors
    /// As [`Customer::list`]; [`ErrorKind::NotFound`] if it is not there.
    ///
    /// # Cancel safety
    /// As [`Customer::page`].
    pub async fn listed(&self, blob: BlobId) -> Result<Listed> {
        self.enter(Action::List).await?;
        let found = self.room.0.storages.blobs.head(&layout::blob(self.id, blob)).await;
        let object = found.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Error::new(ErrorKind::NotFound, "there is no such blob"),
            error => store_error(error, "look for a blob"),
        })?;
        Ok(Listed::of(blob, &object))
    }

    /// Goes on within a session, where the customer's keys are in its own hand, and else as
    /// it is. Who tries to see blobs without is on record, as `action`.
    async fn enter(&self, action: Action) -> Result<()> {
        let room = &*self.room.0;
        if room.keyring.is_known_as_held(self.id) {
            // As a list of ids uses no key, it needs no KMS either.
            return Ok(());
        }
        let ring = self.ring().await?;
        let Err(error) = room.keyring.admit(self.asker(), &ring).await else { return Ok(()) };
        let mut intent = Intent::new(room.log.request_id()?, &self.access, action);
        intent.customer = Some(self.id);
        let (open, receipt) = room.log.begin(intent).await?;
        // No key is used.
        drop(receipt);
        close(open, Err(error)).await
    }

    /// The customer's blobs, in no order, as the storage lists them. No key of theirs is
    /// used. Where the customer's keys are in its own hand it takes a session all the same.
    #[must_use]
    pub fn list(&self) -> BoxStream<'static, Result<Listed>> {
        let customer = self.id;
        let objects = self.room.0.storages.blobs.list(Some(&layout::blobs_of(customer)));
        let listed =
            objects.map_err(|error| store_error(error, "list the blobs")).try_filter_map(move |object| {
                // Whatever else lies there is not ours.
                let found = layout::read_blob(&object.location).filter(|(owner, _)| *owner == customer);
                let listed = found.map(|(_, id)| Listed::of(id, &object));
                std::future::ready(Ok(listed))
            });
        let this = self.clone();
        let entered = async move {
            this.enter(Action::List).await?;
            Ok::<_, Error>(listed)
        };
        futures_util::stream::once(entered).try_flatten().boxed()
    }

    /// The blobs that were sealed under this name, newest first.
    ///
    /// # Errors
    /// By [`ErrorKind`]; [`ErrorKind::Denied`] outside a session, where it takes one. No
    /// blob of that name is no error.
    pub async fn find(&self, name: &BlobName) -> Result<Vec<BlobId>> {
        self.enter(Action::Find).await?;
        let room = &*self.room.0;
        let ring = self.ring().await?;
        let mut found = BTreeSet::new();
        // One name key, and one more of each writer without decrypt rights.
        for entry in ring.entries.iter().filter(|entry| entry.kind == EntryKind::Name) {
            let mut intent = Intent::new(room.log.request_id()?, &self.access, Action::Find);
            intent.customer = Some(self.id);
            intent.key = Some(KeyRef::NameKey { id: entry.id });
            let with_key = room.keyring.begin_with_key(self.asker(), &ring, entry.data_key, vec![intent]);
            let (mut begun, data_key) = with_key.await?;
            let (open, receipt) = begun.pop().expect("one intent gives one open intent");
            let tag = data_key.and_then(|data_key| {
                let tag = ring.open_key(receipt, entry.id, &data_key).and_then(|key| key.name_tag(name));
                tag.map_err(use_error)
            });
            let listed = async {
                let Ok(tag) = &tag else { return Ok(Vec::new()) };
                let uses = room.storages.blobs.list(Some(&layout::names_of(self.id, tag)));
                let uses = uses.try_filter_map(async |object| Ok(layout::read_name(&object.location, tag)));
                let uses: Vec<_> = uses.try_collect().await?;
                Ok(uses.into_iter().map(|(_, at, blob)| (at, blob)).collect())
            };
            // The list is no secret of ours, and waits for no record; its result does.
            let recorded = match &tag {
                Ok(_) => open.finish(OutcomeResult::Ok, None),
                Err(error) => open.finish(error.kind().into(), None),
            };
            let (listed, recorded) = tokio::join!(listed, recorded);
            tag?;
            recorded?;
            found.extend(listed.map_err(|error| store_error(error, "look a name up"))?);
        }
        Ok(found.into_iter().rev().map(|(_, blob)| blob).collect())
    }

    /// Opens the newest blob of this name.
    ///
    /// # Errors
    /// As [`Customer::open`]; [`ErrorKind::NotFound`] if there is none;
    /// [`ErrorKind::Authentication`] if what is found was sealed under another
    /// name.
    pub async fn newest(&self, name: &BlobName) -> Result<BlobInfo> {
        let named = self.only_named(name);
        for blob in self.find(name).await? {
            // A name is written before its blob becomes visible: one without
            // its blob is a seal that never ended.
            match named.stat(blob).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                newest => return newest,
            }
        }
        Err(Error::new(ErrorKind::NotFound, "there is no blob of this name"))
    }
}

/// What a failed use of a ring key means to the caller.
pub(crate) fn use_error(error: UseError) -> Error {
    match error {
        UseError::Destroyed => Error::new(ErrorKind::KeyDestroyed, "the key of this blob was destroyed"),
        UseError::Authentication | UseError::Unknown => Error::authentication(),
        UseError::WrongUse => {
            Error::new(ErrorKind::Integrity, "the ring's key is not for this use").with_source(error)
        }
    }
}
