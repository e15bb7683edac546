//! Several shards: writers that do not get in each other's way.
//!
//! The first shard is everybody's. A writer that meets others there, or that stays, goes
//! on in a shard of its own: one of those that are named and of which nothing is open. It
//! *claims* the shard with its first commit, create-if-absent, and from then on nobody else
//! writes there, until nothing of the owner is open and another claims it. So there are as
//! many shards as programs had something open at once, and not as many as ever ran.
//!
//! A shard is named in the first before anything is in it, so that nobody can leave out a
//! whole shard. A writer that finds no free one names some, in one commit; of several that
//! do so at once one wins, and the others look again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::TryStreamExt;
use object_store::ObjectStore;

use super::append::{Chain, Trouble};
use super::queue::Place;
use super::wal::{Start, Wal, request_within};
use super::{Inner, Log, LogConfig, Seal};
use crate::audit::commit::Line;
use crate::audit::head::{Head, SavedHead};
use crate::audit::layout::{self, FIRST_SHARD, Object};
use crate::audit::{BaseRef, Event, ShardHead, View, ViewShard};
use crate::entropy::{Entropy, random};
use crate::error::{Error, ErrorKind, Result};
use crate::id::CustomerId;
use crate::merkle::{Frontier, Hash};
use crate::store::create::{Created, create_within};
use crate::time::Clock;

/// How many shards are looked at together for one that is free.
const TOGETHER: usize = 2;

/// How many times that is done before more shards are named.
const LOOKS: usize = 4;

/// For how long a shard is left to its owner although nothing is open in it.
const BREATH: Duration = Duration::from_secs(1);

/// How many shards are named at once: three times as many as there are, so that few rounds
/// are enough for a hundred programs at once; and so many at least.
const NAMED: usize = 8;

/// How many shards there are besides the first, at most. Each costs a maintainer some
/// requests, for ever; and so many programs at once are served by turns.
const MOST: usize = 128;

impl Log {
    /// Opens the log in a shard of its own, whatever shard `config` names: one that is
    /// free, one whose owner is dead, or a new one.
    ///
    /// # Errors
    /// As [`Log::open`] and [`Log::begin`].
    ///
    /// # Cancel safety
    /// A shard may have been claimed; it is free all the same, as nothing is open in it.
    pub async fn open_own(
        storage: Arc<dyn ObjectStore>,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self> {
        let config = LogConfig { shard: FIRST_SHARD, roams: true, ..config };
        let log = Self::open_roaming(storage, config, clock, entropy, true).await?;
        log.say_alive().await?;
        Ok(log)
    }

    /// Records in the first shard where others stand. When it returns, that is
    /// durable.
    ///
    /// # Errors
    /// As [`Log::begin`].
    ///
    /// # Panics
    /// In another shard than the first, or in a log that roams.
    pub async fn name_shards(&self, heads: &[ShardHead]) -> Result<()> {
        self.tell(heads.iter().map(|head| Event::Shard(*head))).await
    }

    /// Records in the first shard what a base is that is about to be stored. When it returns,
    /// that is durable.
    ///
    /// # Errors
    /// As [`Log::begin`].
    ///
    /// # Panics
    /// In another shard than the first, or in a log that roams.
    pub async fn record_base(&self, base: BaseRef) -> Result<()> {
        self.tell([Event::Base(base)].into_iter()).await
    }

    /// Records in the first shard that the commits before these bases may be missing from now
    /// on. When it returns, that is durable.
    ///
    /// # Errors
    /// As [`Log::begin`].
    ///
    /// # Panics
    /// In another shard than the first, or in a log that roams.
    pub async fn record_removals(&self, bases: &[BaseRef]) -> Result<()> {
        self.tell(bases.iter().map(|base| Event::Removal(*base))).await
    }

    /// Records what the first shard says of all.
    async fn tell(&self, events: impl Iterator<Item = Event>) -> Result<()> {
        assert!(self.stays_in_the_first(), "the first shard has what is said of all");
        let records = events.map(|event| Ok(self.inner.record(self.inner.nonce()?, event)));
        self.inner.append_at(records.collect::<Result<_>>()?, None).await
    }

    /// Records that this writer lives, so that the day before is over for the
    /// log too. A shard that another owns is claimed for it, if nothing is open there, and
    /// is left alone otherwise.
    ///
    /// # Errors
    /// As [`Log::begin`].
    pub async fn mark(&self) -> Result<()> {
        let head = self.head();
        let event = match head.owner() {
            Some(owner) if owner != self.inner.writer && !head.is_settled() => return Ok(()),
            Some(owner) if owner != self.inner.writer => Event::Claim,
            _ => Event::Alive,
        };
        let mark = self.inner.record(self.inner.nonce()?, event);
        match self.inner.append_at(vec![mark], Some(Place::behind(&head))).await {
            // Another has written, which does as well.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            marked => marked,
        }
    }

    /// Records that this writer lives, in the shard that it writes to.
    ///
    /// # Errors
    /// As [`Log::begin`].
    pub async fn say_alive(&self) -> Result<()> {
        let alive = self.inner.record(self.inner.nonce()?, Event::Alive);
        self.inner.append_at(vec![alive], None).await
    }

    /// Whether a shard is this writer's own.
    #[must_use]
    pub fn owns(&self, shard: u16) -> bool {
        let head = self.head();
        head.shard() == shard && head.owner() == Some(self.inner.writer)
    }

    /// Whether this handle has written anything yet.
    #[must_use]
    pub fn has_written(&self) -> bool {
        !self.inner.pens().is_empty()
    }

    /// How many records a customer has in every shard now.
    ///
    /// # Errors
    /// As [`Log::commits`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn count_records(&self, customer: CustomerId) -> Result<View> {
        let mut shards = Vec::new();
        for shard in self.shards().await? {
            let head = self.inner.wal().of_shard(shard).newest().await?.head;
            let chains = head.chains().expect("where a shard stands is known with its chains");
            let (records, last) = chains.end(customer).map_or((0, Hash::ZERO), |end| (end.records, end.last));
            shards.push(ViewShard { shard, tree: head.tree(), records, last });
        }
        Ok(View { customer, shards })
    }

    /// Records in the first shard how many records a customer has in every shard,
    /// and returns it: the end of a view that the customer is given. It is in the
    /// customer's own chain, so that it cannot be left out, and whoever verifies the log
    /// checks that it is true.
    ///
    /// # Errors
    /// As [`Log::begin`] and [`Log::commits`].
    ///
    /// # Panics
    /// In another shard than the first, or in a log that roams.
    pub async fn record_view(&self, customer: CustomerId) -> Result<View> {
        self.record_view_behind(&[], customer).await
    }

    /// The same, with the bases that stand for what was removed before it in the same commit.
    ///
    /// # Errors
    /// As [`Log::record_view`].
    ///
    /// # Panics
    /// As [`Log::record_view`].
    pub async fn record_view_behind(&self, removed: &[BaseRef], customer: CustomerId) -> Result<View> {
        let view = self.count_records(customer).await?;
        let events = removed.iter().map(|base| Event::Removal(*base));
        self.tell(events.chain([Event::View(view.clone())])).await?;
        Ok(view)
    }

    /// The shards that there are, by a listing. Which there have to be is in the
    /// first shard's records.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn shards(&self) -> Result<BTreeSet<u16>> {
        self.inner.shards().await
    }

    fn stays_in_the_first(&self) -> bool {
        self.inner.config.shard == FIRST_SHARD && !self.inner.config.roams
    }
}

impl Chain {
    /// Finds a shard that is free and goes on there, or names more: it looks again if it is
    /// called again. The next attempt claims the shard.
    pub(super) async fn find_shard(&mut self, inner: &Arc<Inner>) -> Result<(), Trouble> {
        let mut named = inner.saved_heads().await?;
        named.retain(|shard| !inner.barred().contains(shard));
        shuffle(&mut named, &*inner.entropy)?;
        for some in named.chunks(TOGETHER).take(LOOKS) {
            let found = join_all(some.iter().map(|shard| inner.free_shard(*shard))).await;
            for found in found {
                if let Some((wal, start, claim)) = found? {
                    // If we stop here, nothing was claimed.
                    self.settle_in(inner, wal, start, claim);
                    return Ok(());
                }
            }
        }
        // More are named in the first shard.
        if named.len() < MOST {
            return Ok(inner.name_more(&named).await?);
        }
        inner.crowded.store(true, Relaxed);
        let sentence = "every shard of the audit log is in use";
        Err(Trouble { error: Error::new(ErrorKind::AuditUnavailable, sentence), lasting: false })
    }
}

impl Inner {
    pub(super) async fn shards(&self) -> Result<BTreeSet<u16>> {
        let wal = self.wal();
        let mut shards = BTreeSet::from([FIRST_SHARD]);
        for prefix in [layout::commits(), layout::segments()] {
            let listed = request_within(wal.limit, wal.storage.list_with_delimiter(Some(&prefix))).await?;
            let folders = listed.map(|listed| listed.common_prefixes).unwrap_or_default();
            shards
                .extend(folders.iter().filter_map(|folder| u16::from_str_radix(folder.filename()?, 16).ok()));
        }
        Ok(shards)
    }

    /// The shards besides the first that have a saved head: those to choose among.
    pub(super) async fn saved_heads(&self) -> Result<Vec<u16>> {
        let wal = self.wal();
        let mut listed = wal.storage.list(Some(&layout::heads()));
        let mut shards = Vec::new();
        while let Some(Some(meta)) = request_within(wal.limit, listed.try_next()).await? {
            match Object::at(&meta.location) {
                Some(Object::Head { shard }) if shard != FIRST_SHARD => shards.push(shard),
                _ => {}
            }
        }
        Ok(shards)
    }

    /// A shard, if nobody who lives uses it, and what the claim of it begins with.
    async fn free_shard(&self, shard: u16) -> Result<Option<(Wal, Start, Vec<Line>)>> {
        let wal = self.wal().of_shard(shard);
        let start = match wal.newest().await {
            // One that is damaged is passed over; `audit verify` names what is wrong.
            Err(error) if !error.kind().is_retryable() => return Ok(None),
            start => start?,
        };
        // One without a commit begins under the key that the first shard is under now, whoever is
        // there first.
        let start = match start.head.next() {
            0 => Start { head: start.head.under_key(self.key_of_first().await?), ..start },
            _ => start,
        };
        if self.signers.of(&self.authority, start.head.key()).is_err() {
            // The change of the log's key has not come here, or this program does not have the new one.
            return Ok(None);
        }
        let mut claim = vec![self.record(self.nonce()?, Event::Claim)];
        if !start.head.is_settled() {
            let survey = match self.survey(&wal, &start.head).await {
                Err(error) if !error.kind().is_retryable() => return Ok(None),
                survey => survey?,
            };
            if survey.busy {
                return Ok(None);
            }
            // Among it is the fence of an owner.
            claim.extend(survey.closing(self)?);
        } else if start.head.owner().is_some() && self.is_recent(start.head.time(), BREATH) {
            // Between two operations, perhaps: taking it is allowed, and impolite.
            return Ok(None);
        }
        Ok(Some((wal, start, claim)))
    }

    /// The number of the log's key that the first shard is under. Where no later one is stated than
    /// was seen in force, that costs one request.
    async fn key_of_first(&self) -> Result<u32> {
        let (first, seen) = (self.wal().of_shard(FIRST_SHARD), self.key.load(Relaxed));
        first.learn().await?;
        match self.authority.newest().0 > seen {
            true => Ok(first.newest().await?.head.key()),
            false => Ok(seen),
        }
    }

    /// Names more shards in the first one. That another writer was first is no error: it
    /// may have done the same.
    async fn name_more(&self, named: &[u16]) -> Result<()> {
        let first = &self.wal().of_shard(FIRST_SHARD);
        let (start, mut used) = tokio::try_join!(first.newest(), self.shards())?;
        used.extend(named);
        let count = (3 * named.len()).max(NAMED).min(MOST - named.len());
        let numbers: Vec<u16> =
            (FIRST_SHARD..=u16::MAX).filter(|shard| !used.contains(shard)).take(count).collect();
        // One that was taken for dead in the first shard writes no more to it: there it is another.
        let barred = self.barred().contains(&FIRST_SHARD);
        let pen = &*match barred {
            false => self.pen(start.head.key()).await?,
            true => Arc::new(self.endorsed(&Seal::new(&*self.entropy)?, start.head.key()).await?),
        };
        let lines = numbers.iter().map(|shard| {
            let head = ShardHead { shard: *shard, tree: Frontier::new().head() };
            Ok(self.record_of(pen.id(), self.nonce()?, Event::Shard(head)))
        });
        let mut lines: Vec<Line> = lines.collect::<Result<_>>()?;
        let time = self.commit_time(&start.head, lines.iter_mut()).await?;
        let (bytes, _) = start.head.extend(pen, time, lines.iter(), 0);
        let seq = start.head.next();
        let what = "name shards of the audit log";
        let made = create_within(first.limit, &*first.storage, &first.path(seq), bytes.into(), what).await;
        match made {
            Ok(Created::Ours) => {}
            Ok(Created::Another) => return Ok(()),
            Err(error) => {
                let sentence = "the audit log cannot be written";
                return Err(Error::new(ErrorKind::AuditUnavailable, sentence).with_source(error));
            }
        }
        // If we stop here, shards are named that nobody finds: the next writer that needs
        // some names them again.
        let save = numbers.iter().map(|shard| async move {
            let head = Head::empty(self.config.store, *shard, &first.authority);
            first.of_shard(*shard).save(&SavedHead { head, covered: 0 }, pen).await
        });
        if join_all(save.collect::<Vec<_>>()).await.contains(&true) {
            return Ok(());
        }
        // Otherwise the next look would name more, and so on.
        let sentence = "the heads of new shards of the audit log cannot be saved: allow writes under `head/`";
        Err(Error::new(ErrorKind::Configuration, sentence))
    }
}

/// Puts numbers into an order by chance, so that those who look at once look at different
/// ones first.
fn shuffle(numbers: &mut [u16], entropy: &dyn Entropy) -> Result<()> {
    for last in (1..numbers.len()).rev() {
        let chosen = usize::try_from(u32::from_be_bytes(random(entropy)?)).unwrap_or(0) % (last + 1);
        numbers.swap(last, chosen);
    }
    Ok(())
}
