//! Sessions, and access requests: how a customer whose keys are in its own hand lets its
//! blobs be opened, and takes that back.
//!
//! A session is a paper on the keys storage that every node sees, and a grant at the
//! customer's KMS, without which no node can unwrap whatever the paper says. The paper comes
//! first and goes first, so that no grant stands that nobody knows of for longer than until
//! the next sweep: that compares what the KMS lists with what is open.
//!
//! Who may call these is decided above: who opens a session acts for the customer. What is
//! asked here is that nobody approves what they asked for themselves.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;

use super::Strongroom;
use super::keyring::sessions::{Folder, Standing, is_of_closed_epoch};
use super::keyring::{Asker, close};
use crate::access::Access;
use crate::audit::Action;
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, SessionId};
use crate::kms::Grant;
use crate::ring::{Ring, Tenancy};
use crate::session::{
    EndReason, Guest, Moment, Opened, Paper, PaperKind, REQUEST_VALIDITY, Requested, SessionLimits,
};
use crate::store::layout::{self, OfSession};
use crate::store::store_error;
use crate::time::Timestamp;

/// A session in which a customer lets its blobs be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id: what [`Access::within`] takes.
    pub id: SessionId,
    /// The customer.
    pub customer: CustomerId,
    /// When it was opened.
    pub opened: Timestamp,
    /// When it is over at the latest.
    pub expires: Timestamp,
    /// How long it may be idle, and how long it lasts at most.
    pub limits: SessionLimits,
    /// For whom alone it is, if not for all who may read.
    pub only: Option<Guest>,
    /// When it was last used, as far as that was written down.
    pub last_use: Timestamp,
    /// Whether it is open.
    pub state: SessionState,
}

/// Whether a session is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// It is.
    Open,
    /// It is over.
    Over(EndReason),
}

/// Somebody's asking to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessRequest {
    /// Its id, and that of the session which it becomes.
    pub id: SessionId,
    /// The customer.
    pub customer: CustomerId,
    /// Who asks, and why.
    pub guest: Guest,
    /// When.
    pub at: Timestamp,
    /// Until when it can be approved.
    pub until: Timestamp,
    /// For how long they ask.
    pub limits: SessionLimits,
}

impl Strongroom {
    /// Opens a session of a customer whose keys are in its own hand: from now on whoever may
    /// read, and names it ([`Access::within`]), can open the customer's blobs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for limits that no session may have
    /// ([`SessionLimits::check`]), and for a customer whose keys are in our hand;
    /// [`ErrorKind::Configuration`] where no grants are made
    /// ([`granter`](crate::kms::KmsRegistry::granter)); those of the KMS. Then there is no
    /// session.
    ///
    /// # Cancel safety
    /// There is a session or not: look at [`Strongroom::sessions`]. One whose grant was not
    /// made opens nothing.
    pub async fn open_session(
        &self,
        access: &Access,
        customer: CustomerId,
        limits: SessionLimits,
    ) -> Result<Session> {
        let id = SessionId::from_bytes(random(&*self.0.entropy)?);
        self.begin_session(access, (customer, id), limits, Action::SessionOpen).await
    }

    /// Ends a session, on every node and at the KMS. One that is over is ended once more,
    /// which finishes what may be left of it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such session of the customer. By
    /// [`ErrorKind`] otherwise: the session may be over then, and its grant stand; run it
    /// again, or leave it to [`Strongroom::end_overdue_sessions`].
    ///
    /// # Cancel safety
    /// As with an error.
    pub async fn end_session(&self, access: &Access, customer: CustomerId, id: SessionId) -> Result<Session> {
        let keyring = &self.0.keyring;
        let asker = Asker { access, cause: None };
        let ring = self.in_customers_hand(asker, customer).await?;
        let standing = keyring.standing(asker, customer, id).await?;
        let why = standing.opened.over(standing.last_use, keyring.session_time());
        let why = why.unwrap_or(EndReason::Asked);
        keyring.end_session(asker, &ring, (id, &standing.opened), why).await?;
        let state = self.state(asker, (customer, id), &Standing { ended: true, ..standing.clone() }).await?;
        Ok(session((customer, id), standing, state))
    }

    /// The sessions of a customer, newest first. Those of an epoch whose key is gone are
    /// over and left out: they are in the audit log.
    ///
    /// # Errors
    /// By [`ErrorKind`].
    pub async fn sessions(&self, access: &Access, customer: CustomerId) -> Result<Vec<Session>> {
        let asker = Asker { access, cause: None };
        let mut sessions = Vec::new();
        for (id, folder) in self.folders(customer).await? {
            if !folder.has(PaperKind::Open) {
                continue;
            }
            match self.0.keyring.standing(asker, customer, id).await {
                Err(error) if is_of_closed_epoch(&error) => {}
                standing => {
                    let standing = standing?;
                    let state = self.state(asker, (customer, id), &standing).await?;
                    sessions.push(session((customer, id), standing, state));
                }
            }
        }
        sessions.sort_by_key(|session| (std::cmp::Reverse(session.opened), session.id));
        Ok(sessions)
    }

    /// Whether a session of a customer is open, as this node knows it: a look is good for
    /// [`Options::session_check`](super::Options::session_check). For whom it is says
    /// [`Strongroom::sessions`]; opening a blob looks at that too.
    ///
    /// # Errors
    /// By [`ErrorKind`].
    pub async fn is_session_open(
        &self,
        access: &Access,
        customer: CustomerId,
        id: SessionId,
    ) -> Result<bool> {
        self.0.keyring.is_open(Asker { access, cause: None }, customer, id).await
    }

    /// Ends every session of every customer that is over and was not ended, and takes away
    /// every grant on a customer's KMS key whose session is not open. Run it every few
    /// minutes, where grants are made.
    ///
    /// Says of each customer which sessions it ended, or why that failed.
    ///
    /// # Errors
    /// By [`ErrorKind`], if the customers cannot be listed.
    ///
    /// # Cancel safety
    /// What was not ended is found by the next run.
    pub async fn end_overdue_sessions(
        &self,
        access: &Access,
    ) -> Result<BTreeMap<CustomerId, Result<BTreeSet<SessionId>>>> {
        let mut ended = BTreeMap::new();
        for customer in self.0.keyring.customers().await? {
            let asker = Asker { access, cause: None };
            match self.0.keyring.ring(asker, customer).await {
                Ok(ring) if ring.settings.tenancy == Tenancy::Held => {}
                Ok(ring) => {
                    ended.insert(customer, self.end_overdue(asker, &ring).await);
                }
                Err(error) => {
                    ended.insert(customer, Err(error));
                }
            }
        }
        Ok(ended)
    }

    /// Asks a customer to be let in: as whoever `access` says, for the purpose that it says.
    /// Returns the id under which the customer approves it, which is then that of a session.
    ///
    /// # Errors
    /// As [`Strongroom::open_session`], but that no KMS is asked.
    ///
    /// # Cancel safety
    /// It was asked or not: look at [`Strongroom::access_requests`].
    pub async fn request_access(
        &self,
        access: &Access,
        customer: CustomerId,
        limits: SessionLimits,
    ) -> Result<SessionId> {
        check(limits)?;
        let keyring = &self.0.keyring;
        let asker = Asker { access, cause: None };
        let ring = self.in_customers_hand(asker, customer).await?;
        let id = SessionId::from_bytes(random(&*self.0.entropy)?);
        let intent = keyring.session_intent(asker, &ring, id, Action::AccessRequest)?;
        let (open, receipt) = self.0.log.begin(intent).await?;
        let asker = Asker { cause: Some(open.request()), ..asker };
        // No key of the customer's is used.
        drop(receipt);
        let guest = Guest { principal: access.principal.clone(), purpose: access.purpose };
        let asked = Paper::Requested(Requested { guest, at: self.0.clock.now(), limits });
        let written = match keyring.put_paper(asker, customer, id, &asked).await {
            Ok(true) => Ok(id),
            Ok(false) => Err(Error::new(ErrorKind::Conflict, "there is a request of this id")),
            Err(error) => Err(error),
        };
        close(open, written).await
    }

    /// Who asks a customer to be let in and was not let in yet, oldest first. What is older
    /// than a week is left out.
    ///
    /// # Errors
    /// By [`ErrorKind`].
    pub async fn access_requests(&self, access: &Access, customer: CustomerId) -> Result<Vec<AccessRequest>> {
        let asker = Asker { access, cause: None };
        let mut requests = Vec::new();
        for (id, folder) in self.folders(customer).await? {
            if !folder.has(PaperKind::Request) || folder.has(PaperKind::Open) {
                continue;
            }
            match self.request(asker, customer, id).await {
                Err(error) if is_of_closed_epoch(&error) => {}
                asked => {
                    let Requested { guest, at, limits } = asked?;
                    let until = at.saturating_add(REQUEST_VALIDITY);
                    requests.push(AccessRequest { id, customer, guest, at, until, limits });
                }
            }
        }
        requests.retain(|request| self.0.clock.now() <= request.until);
        requests.sort_by_key(|request| (request.at, request.id));
        Ok(requests)
    }

    /// Lets somebody in who asked, as the customer: opens a session that is for them alone,
    /// and for the purpose that they named.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if nobody asked so; [`ErrorKind::Denied`] to whoever asked
    /// themselves, and where it was asked more than a week ago or approved before. Otherwise
    /// as [`Strongroom::open_session`].
    ///
    /// # Cancel safety
    /// As [`Strongroom::open_session`].
    pub async fn approve_access(
        &self,
        access: &Access,
        customer: CustomerId,
        id: SessionId,
    ) -> Result<Session> {
        let asker = Asker { access, cause: None };
        let limits = self.request(asker, customer, id).await?.limits;
        self.begin_session(access, (customer, id), limits, Action::AccessApprove).await
    }

    async fn begin_session(
        &self,
        access: &Access,
        (customer, id): (CustomerId, SessionId),
        limits: SessionLimits,
        action: Action,
    ) -> Result<Session> {
        check(limits)?;
        let keyring = &self.0.keyring;
        let asker = Asker { access, cause: None };
        let ring = self.in_customers_hand(asker, customer).await?;
        let kms_key = ring.settings.kms_key.clone();
        let granter = keyring.kms.granter(&kms_key)?;
        let intent = keyring.session_intent(asker, &ring, id, action)?;
        let (open, receipt) = self.0.log.begin(intent).await?;
        let asker = Asker { cause: Some(open.request()), ..asker };
        let begun = async {
            let only = match action {
                Action::AccessApprove => Some(self.approvable(asker, (customer, id)).await?),
                _ => None,
            };
            let Moment { host: at, log } = keyring.session_time();
            let opened = Opened { kms_key: kms_key.clone(), at, log: Some(log), limits, only };
            if !keyring.put_paper(asker, customer, id, &Paper::Opened(opened.clone())).await? {
                return Err(Error::new(ErrorKind::Denied, "the request was approved before"));
            }
            // If we stop here, there is a session in which the KMS unwraps nothing.
            let grant = Grant { store: self.0.store, customer, session: id };
            if let Err(error) = granter.create_grant(receipt, &kms_key, &grant).await {
                // The grant may have been made all the same: it goes, now or with the sweep.
                let _ = keyring.end_session(asker, &ring, (id, &opened), EndReason::NoGrant).await;
                return Err(error.into());
            }
            // If we stop here, the session is open, and whoever asked finds it in the list.
            let standing = keyring.standing(asker, customer, id).await?;
            if standing.ended {
                // Somebody was faster, and saw no grant to take away.
                keyring.end_session(asker, &ring, (id, &opened), EndReason::Asked).await?;
                return Err(Error::new(ErrorKind::Conflict, "the session was ended while it was opened"));
            }
            Ok(session((customer, id), standing, SessionState::Open))
        };
        let begun: Result<Session> = begun.await;
        close(open, begun).await
    }

    /// For whom an access request that can be approved now was made.
    async fn approvable(&self, asker: Asker<'_>, (customer, id): (CustomerId, SessionId)) -> Result<Guest> {
        let asked = self.request(asker, customer, id).await?;
        let denied = |message| Err(Error::new(ErrorKind::Denied, message));
        if asked.guest.principal == asker.access.principal {
            return denied("nobody approves what they asked for themselves");
        }
        if !asked.stands(self.0.clock.now()) {
            return denied(
                "access was asked for more than a week ago, or later than now by this host's clock: ask again",
            );
        }
        Ok(asked.guest)
    }

    async fn request(&self, asker: Asker<'_>, customer: CustomerId, id: SessionId) -> Result<Requested> {
        let none = || Error::new(ErrorKind::NotFound, "there is no such access request to this customer");
        match self.0.keyring.paper(asker, customer, id, PaperKind::Request).await {
            Ok(Paper::Requested(asked)) => Ok(asked),
            Ok(_) => Err(none()),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(none()),
            Err(error) => Err(error),
        }
    }

    /// The ring of a customer whose keys are in its own hand.
    async fn in_customers_hand(
        &self,
        asker: Asker<'_>,
        customer: CustomerId,
    ) -> Result<std::sync::Arc<Ring>> {
        // The newest, as its KMS key may be another by now.
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        if ring.settings.tenancy == Tenancy::Customer {
            return Ok(ring);
        }
        let message = "this customer's keys are in our hand: there are no sessions, and blobs open without";
        Err(Error::new(ErrorKind::InvalidInput, message))
    }

    async fn end_overdue(&self, asker: Asker<'_>, ring: &Ring) -> Result<BTreeSet<SessionId>> {
        let keyring = &self.0.keyring;
        let customer = ring.customer;
        let kms_key = &ring.settings.kms_key;
        // First, so that a session that is opened meanwhile is in the folders.
        let granted: BTreeSet<_> = match keyring.kms.granter(kms_key) {
            Ok(granter) => granter.grants(kms_key).await?.into_iter().collect(),
            // They are taken away elsewhere.
            Err(_) => BTreeSet::new(),
        };
        let folders = self.folders(customer).await?;
        let (mut ended, mut failed) = (BTreeSet::new(), None);
        for (id, folder) in &folders {
            // Of a KMS key that several customers have, the others' grants have no folder here.
            let to_look_at = !folder.has(PaperKind::End) || granted.contains(id);
            if !folder.has(PaperKind::Open) || !to_look_at {
                continue;
            }
            let standing = match keyring.standing(asker, customer, *id).await {
                Ok(standing) => standing,
                // What it was opened for cannot be read any more, so that it opens nothing. The same if somebody
                // replaced its paper: the grant must not outlive that.
                Err(error)
                    if is_of_closed_epoch(&error) || granted.contains(id) && is_no_paper(error.kind()) =>
                {
                    let (at, limits) = (self.0.clock.now(), SessionLimits::DEFAULT);
                    let opened = Opened { kms_key: kms_key.clone(), at, log: None, limits, only: None };
                    Standing { last_use: opened.at, opened, ended: true }
                }
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            let over = standing.opened.over(standing.last_use, keyring.session_time());
            if standing.ended || over.is_some() {
                let why = over.unwrap_or(EndReason::Expired);
                // One that cannot be ended keeps no other from its end.
                match keyring.end_session(asker, ring, (*id, &standing.opened), why).await {
                    Ok(()) => {
                        ended.insert(*id);
                    }
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(ended), Err)
    }

    /// Every session's folder of a customer.
    async fn folders(&self, customer: CustomerId) -> Result<BTreeMap<SessionId, Folder>> {
        let mut folders = BTreeMap::<SessionId, Folder>::new();
        let mut objects = self.0.storages.keys.list(Some(&layout::sessions_of(customer)));
        let failed = |error| store_error(error, "list the sessions");
        while let Some(object) = objects.try_next().await.map_err(failed)? {
            let Some((_, id, of)) = layout::read_session(&object.location) else { continue };
            let folder = folders.entry(id).or_default();
            match of {
                OfSession::Paper(kind) => folder.papers.push(kind),
                OfSession::Use(at) => folder.uses.push(at),
            }
        }
        Ok(folders)
    }

    async fn state(
        &self,
        asker: Asker<'_>,
        (customer, id): (CustomerId, SessionId),
        standing: &Standing,
    ) -> Result<SessionState> {
        if standing.ended {
            return match self.0.keyring.paper(asker, customer, id, PaperKind::End).await? {
                Paper::Ended(ended) => Ok(SessionState::Over(ended.why)),
                _ => Err(Error::new(ErrorKind::Integrity, "a paper of a session is another")),
            };
        }
        let over = standing.opened.over(standing.last_use, self.0.keyring.session_time());
        Ok(over.map_or(SessionState::Open, SessionState::Over))
    }
}

fn session((customer, id): (CustomerId, SessionId), standing: Standing, state: SessionState) -> Session {
    let Standing { opened, last_use, .. } = standing;
    let expires = opened.expires();
    let Opened { at, limits, only, .. } = opened;
    Session { id, customer, opened: at, expires, limits, only, last_use, state }
}

fn check(limits: SessionLimits) -> Result<()> {
    let wrong = "a session cannot have these limits";
    limits.check().map_err(|error| Error::new(ErrorKind::InvalidInput, wrong).with_source(error))
}

/// Whether the object at a paper's path can never be read as that paper.
const fn is_no_paper(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Integrity | ErrorKind::NotFound | ErrorKind::UnsupportedFormat)
}
