//! The door to a customer's keys that are in the customer's own hand.
//!
//! Whatever opens a key of such a customer passes [`Keyring::admit`], cached key or not,
//! and shows a session that is open. What lies on the keys storage tells: a look at it is
//! good for [`Options::session_check`](crate::room::Options::session_check), and for that
//! long, at most, a node goes on after another one ended a session. The node that ends one,
//! or sees that one is over, drops the customer's data keys at once.
//!
//! Each use counts against the idle limit on this node; for the others it is written down
//! once a minute, or twice in the idle limit if that is shorter. So on another node a
//! session may be idle by that much sooner, and never later.
//!
//! Separate from the keys themselves, because this is what a reviewer asks "what if it is
//! over" of.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::{ObjectStoreExt, PutMode, PutPayload};
use sha2::{Digest, Sha256};

use super::{Asker, CustomerKeys, Keyring, close, epochs, lock, unreadable};
use crate::audit::voucher::Versioned;
use crate::audit::{Action, Intent, KeyRef, RingRef};
use crate::cache::{Cached, Limits};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, SessionId};
use crate::retention::clock::AGREEMENT;
use crate::ring::{Ring, Tenancy};
use crate::session::{
    EndReason, Ended, Guest, Moment, Opened, Owner, Paper, PaperKind, SealedPaper, SessionLimits,
    SessionRefusal,
};
use crate::store::create::{Created, create};
use crate::store::layout::{self, OfSession};
use crate::store::store_error;
use crate::time::Timestamp;

/// What this node knows of one session.
#[derive(Debug, Default)]
pub(super) struct Known {
    standing: Cached<Standing>,
    /// When it was last used on this node, in microseconds.
    used: AtomicU64,
    /// How long it was seen and used here, by this node's uptime.
    elapsed: Mutex<Option<Elapsed>>,
    /// The last use that this node wrote down, in microseconds.
    marked: AtomicU64,
    /// Whether this node saw that it is over, and did what there is to do.
    seen_over: AtomicBool,
}

/// What this node's uptime says of a session, whatever clocks say.
#[derive(Clone, Copy, Debug)]
struct Elapsed {
    /// The uptime when it was seen first.
    seen: Duration,
    /// The uptime when it was used here last, or a newer use was seen that another node wrote down.
    used: Duration,
    /// That use.
    newest: Timestamp,
}

impl Known {
    /// Why it is over by the time that passed since this node saw it first, or saw the last use of it.
    fn over_by_uptime(&self, standing: &Standing, uptime: Duration) -> Option<EndReason> {
        let mut elapsed = lock(&self.elapsed);
        let first = Elapsed { seen: uptime, used: uptime, newest: standing.last_use };
        let elapsed = elapsed.get_or_insert(first);
        if standing.last_use > elapsed.newest {
            (elapsed.used, elapsed.newest) = (uptime, standing.last_use);
        }
        let limits = standing.opened.limits;
        if uptime.saturating_sub(elapsed.seen) >= limits.absolute {
            return Some(EndReason::Expired);
        }
        (uptime.saturating_sub(elapsed.used) >= limits.idle).then_some(EndReason::Idle)
    }

    fn note_use(&self, uptime: Duration) {
        if let Some(elapsed) = &mut *lock(&self.elapsed) {
            elapsed.used = uptime;
        }
    }

    /// Drops what is past its term, and says whether it is of no more use: a session that was
    /// seen may be open until it is over for sure, by uptime, and how long it was seen must not begin anew.
    pub(super) fn evict(&self, uptime: Duration) -> bool {
        let over = |elapsed: &Elapsed| uptime.saturating_sub(elapsed.seen) > SessionLimits::LONGEST;
        self.standing.evict(uptime) && lock(&self.elapsed).as_ref().is_none_or(over)
    }
}

/// What lies in a session's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folder {
    /// The papers that are there, unread.
    pub(crate) papers: Vec<PaperKind>,
    /// The uses that were written down.
    pub(crate) uses: Vec<Timestamp>,
}

impl Folder {
    pub(crate) fn has(&self, kind: PaperKind) -> bool {
        self.papers.contains(&kind)
    }
}

/// Where a session that was opened stands, by the keys storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) opened: Opened,
    pub(crate) last_use: Timestamp,
    /// Whether it was ended.
    pub(crate) ended: bool,
}

impl Keyring {
    /// Lets pass whoever may open keys of this ring now: everybody, unless the keys are in
    /// the customer's own hand. Then it takes a session of this customer that is open, and
    /// is for them.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] with a [`SessionRefusal`] as its source, and the retryable ones.
    pub(crate) async fn admit(&self, asker: Asker<'_>, ring: &Ring) -> Result<()> {
        if ring.settings.tenancy == Tenancy::Held {
            return Ok(());
        }
        let denied = |refusal: SessionRefusal| {
            Err(Error::new(ErrorKind::Denied, "the customer's keys are in its own hand").with_source(refusal))
        };
        let Some(id) = asker.access.session else {
            return denied(SessionRefusal::Required);
        };
        let keys = self.customer(ring.customer);
        let known = Arc::clone(lock(&keys.sessions).entry(id).or_default());
        let limits = Limits { ttl: self.session_check, uses: u64::MAX };
        let look = self.standing(asker, ring.customer, id);
        let standing = match known.standing.get(&*self.clock, limits, look).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return denied(SessionRefusal::Unknown);
            }
            standing => standing?,
        };
        let guest = Guest { principal: asker.access.principal.clone(), purpose: asker.access.purpose };
        if standing.opened.only.as_ref().is_some_and(|only| *only != guest) {
            return denied(SessionRefusal::NotTheirs);
        }
        let (now, uptime) = (self.session_time(), self.clock.uptime());
        let used = Timestamp::from_micros(known.used.load(Ordering::Relaxed)).unwrap_or(standing.last_use);
        let over = standing.opened.over(standing.last_use.max(used), now);
        let over = over.or_else(|| known.over_by_uptime(&standing, uptime));
        if !standing.ended && over.is_none() && standing.opened.is_later(now) {
            // Nothing is ended for it: this clock may be the one that is wrong.
            return denied(SessionRefusal::Later);
        }
        if standing.ended || over.is_some() {
            // Once, or whoever shows it again and again costs the others their keys each time.
            if !known.seen_over.swap(true, Ordering::Relaxed) {
                Self::forget_keys(&keys);
                if let (false, Some(why)) = (standing.ended, over) {
                    // It is over whether or not that can be written: the sweep tries again.
                    let _ = self.end_session(asker, ring, (id, &standing.opened), why).await;
                }
            }
            return denied(SessionRefusal::Over);
        }
        known.used.fetch_max(now.host.micros(), Ordering::Relaxed);
        known.note_use(uptime);
        self.mark(ring.customer, id, (&known, &standing), now.host).await;
        Ok(())
    }

    /// Whether a session of this customer is open, by a look that is good for as long as that
    /// of [`Keyring::admit`]. It is not a use of it, and says not for whom it is.
    pub(crate) async fn is_open(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        id: SessionId,
    ) -> Result<bool> {
        let known = Arc::clone(lock(&self.customer(customer).sessions).entry(id).or_default());
        let limits = Limits { ttl: self.session_check, uses: u64::MAX };
        match known.standing.get(&*self.clock, limits, self.standing(asker, customer, id)).await {
            Ok(standing) => {
                let used = Timestamp::from_micros(known.used.load(Ordering::Relaxed));
                let last_use = standing.last_use.max(used.unwrap_or(standing.last_use));
                let now = self.session_time();
                let over = standing.opened.over(last_use, now);
                let over = over.or_else(|| known.over_by_uptime(&standing, self.clock.uptime()));
                Ok(!standing.ended && over.is_none() && !standing.opened.is_later(now))
            }
            Err(error) if error.kind() == ErrorKind::NotFound || is_of_closed_epoch(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether this node has seen a ring of the customer that says that its keys are in our
    /// hand, which never changes.
    pub(crate) fn is_known_as_held(&self, customer: CustomerId) -> bool {
        let keys = self.customer(customer);
        let newest = lock(&keys.newest);
        newest.as_ref().is_some_and(|seen| seen.ring.settings.tenancy == Tenancy::Held)
    }

    /// Writes a use down, if the last that was is old. A use that is not written down makes
    /// the session end sooner for others, and never later.
    async fn mark(
        &self,
        customer: CustomerId,
        id: SessionId,
        (known, standing): (&Known, &Standing),
        now: Timestamp,
    ) {
        let marked = known.marked.load(Ordering::Relaxed);
        let last = Timestamp::from_micros(marked).unwrap_or(standing.last_use).max(standing.last_use);
        let is_due = last.saturating_add(standing.opened.renewal()) <= now;
        // One of those that come at once writes it.
        let ours = || {
            let order = Ordering::Relaxed;
            known.marked.compare_exchange(marked, now.micros(), order, order).is_ok()
        };
        if is_due && ours() {
            let path = layout::session_use(customer, id, now);
            let _ = self.storage.put_opts(&path, PutPayload::new(), PutMode::Create.into()).await;
        }
    }

    /// Where a session stands, by the keys storage.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if no such session of the customer was opened.
    pub(crate) async fn standing(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        id: SessionId,
    ) -> Result<Standing> {
        let folder = self.session_folder(customer, id).await?;
        let none = || Error::new(ErrorKind::NotFound, "there is no such session of this customer");
        if !folder.has(PaperKind::Open) {
            return Err(none());
        }
        let Paper::Opened(opened) = self.paper(asker, customer, id, PaperKind::Open).await? else {
            return Err(none());
        };
        let now = self.clock.now().saturating_add(AGREEMENT);
        let last_use =
            folder.uses.iter().filter(|at| **at <= now).max().map_or(opened.at, |last| opened.at.max(*last));
        // That there is an end is enough: what it says is for people.
        Ok(Standing { opened, last_use, ended: folder.has(PaperKind::End) })
    }

    /// What lies in a session's folder.
    pub(crate) async fn session_folder(&self, customer: CustomerId, id: SessionId) -> Result<Folder> {
        let mut folder = Folder::default();
        let mut objects = self.storage.list(Some(&layout::session_folder(customer, id)));
        let failed = |error| store_error(error, "list a session's papers");
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            match layout::read_session(&object.location) {
                Some((_, _, OfSession::Paper(kind))) => folder.papers.push(kind),
                Some((_, _, OfSession::Use(at))) => folder.uses.push(at),
                // Whatever else lies there is not ours.
                None => {}
            }
        }
        Ok(folder)
    }

    /// Reads a paper of a session.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it does not verify; [`ErrorKind::KeyUnavailable`] or
    /// [`ErrorKind::KeyDestroyed`] if it was sealed in an epoch that was closed.
    pub(crate) async fn paper(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        session: SessionId,
        kind: PaperKind,
    ) -> Result<Paper> {
        let failed = |error| store_error(error, "read a session's paper");
        let stored = self.storage.get(&layout::session_paper(customer, session, kind)).await;
        let bytes = stored.map_err(failed)?.bytes().await.map_err(failed)?;
        let owner = Owner { store: self.store, customer, session };
        let found = RingRef { version: u64::from(kind.id()), hash: Sha256::digest(&bytes).into() };
        let read = async {
            self.accept_paper((customer, session), found).await?;
            let sealed = SealedPaper::parse(&bytes, owner, kind)
                .map_err(|error| unreadable(error, "paper of a session"))?;
            let epoch = self.epoch(asker, sealed.epoch).await?;
            sealed
                .open(&epoch.data_key)
                .map_err(|_| Error::new(ErrorKind::Integrity, "a paper of a session does not verify"))
        };
        let read: Result<Paper> = read.await;
        match read {
            Err(error) => Err(self.refuse(asker, Some(customer), error).await),
            paper => paper,
        }
    }

    /// Writes a paper, and says whether it is this one that stands. The first stands.
    pub(crate) async fn put_paper(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
        session: SessionId,
        paper: &Paper,
    ) -> Result<bool> {
        let epoch = self.current_epoch(asker).await?;
        let owner = Owner { store: self.store, customer, session };
        let bytes = paper.seal(owner, (epoch.number, &epoch.data_key), random(&*self.entropy)?);
        let version = RingRef { version: u64::from(paper.kind().id()), hash: Sha256::digest(&bytes).into() };
        let request = match asker.cause {
            Some(request) => request,
            None => self.log.request_id()?,
        };
        // If we stop here, it is vouched for and does not exist, which binds nobody.
        self.log.vouch(Versioned::Session(customer, session), version, request).await?;
        let path = layout::session_paper(customer, session, paper.kind());
        let created = create(&*self.storage, &path, bytes.into(), "write a session's paper").await?;
        Ok(created == Created::Ours)
    }

    /// Ends a session: first for all nodes, then at the KMS. One that was ended is ended
    /// once more, which changes nothing or finishes what somebody left half done.
    ///
    /// # Errors
    /// By [`ErrorKind`]. Where the grant could not be retired, the session is over for all
    /// nodes and the sweep tries again.
    pub(crate) async fn end_session(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        (id, opened): (SessionId, &Opened),
        why: EndReason,
    ) -> Result<()> {
        let intent = self.session_intent(asker, ring, id, Action::SessionEnd)?;
        let (open, receipt) = self.log.begin(intent).await?;
        let asker = Asker { cause: Some(open.request()), ..asker };
        let ended = async {
            let end = Paper::Ended(Ended { at: self.clock.now(), why });
            self.put_paper(asker, ring.customer, id, &end).await?;
            // From here on no node admits anybody who shows it, after its next look. If we
            // stop here, the grant stands, on a session that has ended: the sweep finds it.
            let keys = self.customer(ring.customer);
            lock(&keys.sessions).remove(&id);
            Self::forget_keys(&keys);
            let granter = self.kms.granter(&opened.kms_key)?;
            let retired = granter.retire_grants(receipt, &opened.kms_key, id).await;
            // One that was on its way to the KMS meanwhile.
            Self::forget_keys(&keys);
            Ok(retired.map(drop)?)
        };
        let ended: Result<()> = ended.await;
        close(open, ended).await
    }

    /// Drops the data keys of the customer that were unwrapped. Sessions that are open
    /// have the KMS unwrap them again.
    fn forget_keys(keys: &CustomerKeys) {
        lock(&keys.data_keys).clear();
    }

    /// The intent of something that concerns one session.
    pub(crate) fn session_intent(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        id: SessionId,
        action: Action,
    ) -> Result<Intent> {
        let mut intent = Intent::new(self.log.request_id()?, asker.access, action);
        (intent.cause, intent.customer, intent.session) = (asker.cause, Some(ring.customer), Some(id));
        let kms_key = &ring.settings.kms_key;
        let of_key = ring.data_keys.iter().find(|key| key.kms_key == *kms_key);
        intent.key = of_key.map(|key| KeyRef::Customer { kms_key: kms_key.clone(), data_key: key.id });
        Ok(intent)
    }

    /// The time that sessions go by.
    pub(crate) fn session_time(&self) -> Moment {
        Moment { host: self.clock.now(), log: self.log.time() }
    }
}

/// Whether a paper cannot be read because its epoch was closed: then it is old.
pub(crate) fn is_of_closed_epoch(error: &Error) -> bool {
    epochs::is_closed(error)
}
