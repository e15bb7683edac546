//! Emergencies: declared, folded into the log, listed, reviewed.
//!
//! What is read in one, and how it is recorded while the log cannot be written, is
//! [`audit::emergency`](crate::audit::emergency); here is what people do. Who may declare and
//! who may review is decided above; what is asked here is that it is a person, and that
//! nobody reviews what they declared.
//!
//! Folding looks before it writes: an intent of the sink that is in the log by its request
//! id is not written again, so that a crash between leaves nothing twice. One program at a time has a
//! sink, and in it one fold at a time runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use tokio::task::spawn_blocking;

use super::Strongroom;
use super::keyring::{Asker, close};
use crate::access::{Access, Principal, Purpose};
use crate::audit::emergency::{Case, EmergencySink, LONGEST, SHORTEST, Told, reads};
use crate::audit::log::LEAP;
use crate::audit::operation::Operation;
use crate::audit::query::{Filter, operations};
use crate::audit::{Action, EmergencyRef, Intent, Outcome, OutcomeResult};
use crate::entropy::random;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, EmergencyId, RequestId};
use crate::time::Timestamp;

/// How far clocks may be apart before a record is not found: the log is read from so much
/// earlier than an emergency was declared.
const SKEW: Duration = Duration::from_hours(1);

/// One emergency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emergency {
    /// Its id: what [`Access::in_emergency`] takes.
    pub id: EmergencyId,
    /// Who declared it.
    pub by: Principal,
    /// Whose blobs may be read.
    pub customer: CustomerId,
    /// When it was declared.
    pub from: Timestamp,
    /// When it is over.
    pub until: Timestamp,
    /// How often something was opened, listed, looked up or verified in it, whether recorded in
    /// the log at once or in the sink.
    pub uses: u64,
    /// Whether all of it is in the log.
    pub folded: bool,
    /// Who looked at it afterwards.
    pub review: Option<Review>,
}

/// That somebody looked at what was done in an emergency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Who.
    pub by: Principal,
    /// When.
    pub at: Timestamp,
}

/// What [`Strongroom::fold_emergencies`] did with one emergency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folded {
    /// How many uses it wrote into the log.
    pub written: usize,
    /// Whether that was all, and nothing more can come.
    pub done: bool,
}

impl Strongroom {
    /// Whether an emergency can be declared on this node.
    #[must_use]
    pub fn has_emergency_access(&self) -> bool {
        self.0.log.emergencies().is_some()
    }

    /// How many emergencies of this node are not in the log yet.
    #[must_use]
    pub fn unfolded_emergencies(&self) -> usize {
        self.0.log.emergencies().map_or(0, |sink| sink.unfolded())
    }

    /// Declares an emergency: for `span` from now on, whoever `access` says may read this
    /// customer's blobs on this node, naming it ([`Access::in_emergency`]), while the log cannot
    /// be written. It is in the node's sink when this returns, and in the log if that can be
    /// written.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where this node has no sink;
    /// [`ErrorKind::Denied`] to whoever is not a person, which is recorded if it can be;
    /// [`ErrorKind::InvalidInput`] for another purpose than emergency treatment, and for a span
    /// that is not 1 minute to 4 hours; [`ErrorKind::NotFound`] if there is no such customer;
    /// [`ErrorKind::AuditUnavailable`] if the sink cannot be written, or if the log cannot say
    /// whether there is this customer and this node has not read its ring.
    ///
    /// # Cancel safety
    /// It is declared or not: look at [`Strongroom::emergencies`]. Nobody knows its id then, and
    /// nothing is read in it.
    pub async fn declare_emergency(
        &self,
        access: &Access,
        customer: CustomerId,
        span: Duration,
    ) -> Result<Emergency> {
        let sink = Arc::clone(self.0.log.emergencies().ok_or_else(no_sink)?);
        let mut intent = self.intent(access, Action::EmergencyDeclare, customer)?;
        if !matches!(access.principal, Principal::Person(_)) {
            let error = Error::new(ErrorKind::Denied, "an emergency is declared by a person");
            return self.refused(intent, error).await;
        }
        if access.purpose != Purpose::EmergencyTreatment {
            let message = "an emergency is declared for emergency treatment (ETREAT)";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if !(SHORTEST..=LONGEST).contains(&span) {
            return Err(Error::new(ErrorKind::InvalidInput, "an emergency lasts 1 minute to 4 hours"));
        }
        let keyring = &self.0.keyring;
        match keyring.ring(Asker::of(access), customer).await {
            Err(error) if error.kind() == ErrorKind::AuditUnavailable && keyring.has_seen(customer) => {}
            ring => drop(ring?),
        }
        let id = EmergencyId::from_bytes(random(&*self.0.entropy)?);
        let from = self.0.clock.now();
        let until = from.saturating_add(span);
        intent.emergency = Some(Box::new(EmergencyRef { id, at: Some(from), until: Some(until) }));
        let declared = intent.clone();
        spawn_blocking(move || sink.declare(&declared)).await.map_err(ended)??;
        // If we stop here, it stands in the sink, and whoever folds puts it into the log.
        intent.request = self.0.log.request_id()?;
        if let Ok((open, receipt)) = self.0.log.begin_soon(intent).await {
            // No key is used.
            drop(receipt);
            open.record(OutcomeResult::Ok, None);
        }
        let by = access.principal.clone();
        Ok(Emergency { id, by, customer, from, until, uses: 0, folded: false, review: None })
    }

    /// Puts what is in this node's sink into the log: of each emergency the declaration, and each use
    /// with its outcome and the time at which it was. Once an emergency is over and all of it is
    /// in the log, that is recorded too, and its file renamed. Run it every minute; again after
    /// whatever failed.
    ///
    /// Says of each emergency what was done, or why that failed.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] while the log cannot be written. Of one emergency:
    /// [`ErrorKind::Integrity`] if its file is damaged. What stands in front of the damage is
    /// in the log then, and the file keeps its name until somebody has seen to it.
    ///
    /// # Cancel safety
    /// The next run finds what is in the log, and goes on.
    pub async fn fold_emergencies(&self, access: &Access) -> Result<BTreeMap<EmergencyId, Result<Folded>>> {
        let mut done = BTreeMap::new();
        let Some(sink) = self.0.log.emergencies() else { return Ok(done) };
        let _one = sink.folding.lock().await;
        let (cases, damaged) = sink.to_fold();
        done.extend(damaged.into_iter().map(|id| (id, Err(damage()))));
        let mut news = Vec::new();
        for case in cases {
            match self.told(&case).await {
                // The log need not be read for what is known to be in it.
                Ok(told) if !has_news(&case, &told) => {
                    let nothing = Folded { written: 0, done: false };
                    done.insert(case.id, if told.whole { Ok(nothing) } else { Err(damage()) });
                }
                Ok(told) => news.push((case, told)),
                Err(error) => drop(done.insert(case.id, Err(error))),
            }
        }
        if news.is_empty() {
            return Ok(done);
        }
        // What an earlier run queued is in the log behind this, and is found.
        self.0.log.flush().await?;
        let since = news.iter().map(|(case, _)| searched_from(case, self.0.clock.now())).min();
        let mut found = self.found_in_log(since, None).await?;
        for (case, told) in news {
            let of_case = found.remove(&case.id).unwrap_or_default();
            done.insert(case.id, self.fold(access, (sink, &case), told, of_case).await);
        }
        Ok(done)
    }

    /// All emergencies that the log knows of, and those of this node's sink, oldest first.
    /// Those of one customer, if one is named. The whole log is read for it.
    ///
    /// # Errors
    /// [`ErrorKind::AuditUnavailable`] if the log cannot be written or read, as that it was asked is
    /// recorded.
    ///
    /// # Cancel safety
    /// Nothing is written but records.
    pub async fn emergencies(&self, access: &Access, customer: Option<CustomerId>) -> Result<Vec<Emergency>> {
        let mut intent = Intent::new(self.0.log.request_id()?, access, Action::AuditRead);
        intent.customer = customer;
        let (open, receipt) = self.0.log.begin(intent).await?;
        drop(receipt);
        let listed = self.listed(customer).await;
        close(open, listed).await
    }

    /// Records that whoever `access` says has looked at what was done in an emergency.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is no such emergency of the customer; [`ErrorKind::Conflict`] if not
    /// all of it is in the log yet; [`ErrorKind::AlreadyExists`] if it was reviewed;
    /// [`ErrorKind::Denied`], which is recorded, to who declared it and to whoever is not a person.
    ///
    /// # Cancel safety
    /// It is recorded or not: look at [`Strongroom::emergencies`].
    pub async fn review_emergency(
        &self,
        access: &Access,
        customer: CustomerId,
        id: EmergencyId,
    ) -> Result<Emergency> {
        let listed = self.listed(Some(customer)).await?;
        let found = listed.into_iter().find(|emergency| emergency.id == id);
        let mut emergency =
            found.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such emergency"))?;
        let mut intent = self.intent(access, Action::EmergencyReview, customer)?;
        intent.emergency = Some(Box::new(EmergencyRef::new(id)));
        if !matches!(access.principal, Principal::Person(_)) || access.principal == emergency.by {
            let message = "an emergency is reviewed by another person than the one who declared it";
            return self.refused(intent, Error::new(ErrorKind::Denied, message)).await;
        }
        if !emergency.folded {
            let message = "the emergency is not over, or not all of it is in the audit log yet";
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if emergency.review.is_some() {
            return Err(Error::new(ErrorKind::AlreadyExists, "the emergency was reviewed"));
        }
        let (open, receipt) = self.0.log.begin(intent).await?;
        // No key is used.
        drop(receipt);
        open.finish(OutcomeResult::Ok, None).await?;
        let by = access.principal.clone();
        emergency.review = Some(Review { by, at: self.0.clock.now() });
        Ok(emergency)
    }

    fn intent(&self, access: &Access, action: Action, customer: CustomerId) -> Result<Intent> {
        let mut intent = Intent::new(self.0.log.request_id()?, access, action);
        intent.customer = Some(customer);
        Ok(intent)
    }

    /// Puts a denial on the record if it can be, and passes it on.
    async fn refused<T>(&self, intent: Intent, error: Error) -> Result<T> {
        let (open, receipt) = self.0.log.begin(intent).await?;
        drop(receipt);
        close(open, Err(error)).await
    }

    async fn fold(
        &self,
        access: &Access,
        (sink, case): (&Arc<EmergencySink>, &Arc<Case>),
        told: Told,
        found: InLog,
    ) -> Result<Folded> {
        case.note_in_log(found.requests.iter().copied());
        let mut write = Vec::new();
        if found.declared.is_none() && !case.is_in_log(case.declared.request) {
            write.push(ended_well(case.declared.clone()));
        }
        let before = write.len();
        for (intent, outcome) in told.uses {
            if case.is_in_log(intent.request) {
                continue;
            }
            match outcome {
                Some(outcome) => write.push((intent, outcome)),
                None if told.over => {
                    let outcome = unknown(&intent);
                    write.push((intent, outcome));
                }
                // It may still come.
                None => {}
            }
        }
        let written = write.len() - before;
        let done = told.over && told.whole;
        if done && !found.folded {
            let mut last = self.intent(access, Action::EmergencyFold, case.customer)?;
            last.emergency = Some(Box::new(EmergencyRef::new(case.id)));
            write.push(ended_well(last));
        }
        self.0.log.append_told(&write).await?;
        case.note_in_log(write.iter().map(|(intent, _)| intent.request));
        case.note_in_log([case.declared.request]);
        if !told.whole {
            return Err(damage());
        }
        if done {
            // If we stop here, the next run finds all of it in the log, and renames the file.
            let (sink, id) = (Arc::clone(sink), case.id);
            spawn_blocking(move || sink.mark_folded(id)).await.map_err(ended)??;
        }
        Ok(Folded { written, done })
    }

    /// What an emergency's file tells.
    async fn told(&self, case: &Arc<Case>) -> Result<Told> {
        let (clock, case) = (Arc::clone(&self.0.clock), Arc::clone(case));
        spawn_blocking(move || case.told(&*clock)).await.map_err(ended)?
    }

    async fn listed(&self, customer: Option<CustomerId>) -> Result<Vec<Emergency>> {
        let mut found = self.found_in_log(None, customer).await?;
        let (cases, _) = self.0.log.emergencies().map(|sink| sink.to_fold()).unwrap_or_default();
        for case in cases.into_iter().filter(|case| customer.is_none_or(|of| of == case.customer)) {
            let told = self.told(&case).await?;
            let of_case = found.entry(case.id).or_default();
            of_case.declared.get_or_insert_with(|| Declared::of(&case.declared, case.from));
            for (intent, outcome) in &told.uses {
                of_case.take_use(intent, outcome.as_ref());
            }
        }
        let mut listed: Vec<Emergency> =
            found.into_iter().filter_map(|(id, found)| found.into_emergency(id)).collect();
        listed.sort_by_key(|emergency| (emergency.from, emergency.id));
        Ok(listed)
    }

    /// What the log has of emergencies that were declared at `since` or later.
    async fn found_in_log(
        &self,
        since: Option<Timestamp>,
        customer: Option<CustomerId>,
    ) -> Result<BTreeMap<EmergencyId, InLog>> {
        let from = since.map(|since| since.saturating_sub(SKEW));
        let mut found: BTreeMap<EmergencyId, InLog> = BTreeMap::new();
        // What concerns no customer may be of an emergency all the same: an epoch's key.
        let filter = Filter { from, ..Filter::default() };
        let mut all = operations(&self.log_reader(), &filter, None);
        while let Some(operation) = all.try_next().await? {
            let intent = operation.intent();
            let Some(named) = intent.emergency.as_deref() else { continue };
            if customer.is_none_or(|of| intent.customer.is_none_or(|whose| whose == of)) {
                found.entry(named.id).or_default().take(&operation);
            }
        }
        Ok(found)
    }
}

/// From when the log is searched for what it has of an emergency. One that a clock declared which was ahead may
/// be there long before the time that it begins, by as much as a log may be ahead.
fn searched_from(case: &Case, now: Timestamp) -> Timestamp {
    if case.is_in_log(case.declared.request) {
        return case.from;
    }
    case.from.min(now).saturating_sub(LEAP)
}

/// Whether a file tells what this program did not see in the log, or is to be renamed.
fn has_news(case: &Case, told: &Told) -> bool {
    let mut ended = told.uses.iter().filter(|(_, outcome)| outcome.is_some() || told.over);
    (told.over && told.whole)
        || !case.is_in_log(case.declared.request)
        || ended.any(|(intent, _)| !case.is_in_log(intent.request))
}

/// What the log has of one emergency.
#[derive(Debug, Default)]
struct InLog {
    declared: Option<Declared>,
    /// Everything that was done in it.
    requests: BTreeSet<RequestId>,
    /// What of that read, and by whom.
    uses: BTreeMap<RequestId, Principal>,
    folded: bool,
    review: Option<Review>,
}

#[derive(Clone, Debug)]
struct Declared {
    by: Principal,
    customer: Option<CustomerId>,
    from: Timestamp,
    until: Option<Timestamp>,
}

impl Declared {
    fn of(intent: &Intent, recorded: Timestamp) -> Self {
        let named = intent.emergency.as_deref();
        Self {
            by: intent.principal.clone(),
            customer: intent.customer,
            from: named.and_then(|named| named.at).unwrap_or(recorded),
            until: named.and_then(|named| named.until),
        }
    }
}

impl InLog {
    fn take(&mut self, operation: &Operation) {
        let (intent, time) = (operation.intent(), operation.intent_entry().record.time);
        let is_ok = operation.ended_well();
        match intent.action {
            Action::EmergencyDeclare if is_ok => self.declared = Some(Declared::of(intent, time)),
            Action::EmergencyFold => self.folded |= is_ok,
            Action::EmergencyReview if is_ok => {
                let review = Review { by: intent.principal.clone(), at: time };
                self.review.get_or_insert(review);
            }
            Action::EmergencyDeclare | Action::EmergencyReview => {}
            _ => self.take_use(intent, operation.outcome()),
        }
    }

    fn take_use(&mut self, intent: &Intent, outcome: Option<&Outcome>) {
        self.requests.insert(intent.request);
        // What was given up with nothing released, as an intent is that the log got too late,
        // is no use.
        let given_up = outcome
            .is_some_and(|outcome| outcome.result == OutcomeResult::Aborted && outcome.bytes.is_none());
        if reads(intent.action) && !given_up {
            self.uses.insert(intent.request, intent.principal.clone());
        }
    }

    /// `None` for what was named and never declared.
    fn into_emergency(self, id: EmergencyId) -> Option<Emergency> {
        let Declared { by, customer, from, until } = self.declared?;
        // Whoever else named it had no part in it.
        let uses = self.uses.values().filter(|principal| **principal == by).count();
        let uses = u64::try_from(uses).unwrap_or(u64::MAX);
        let (customer, until) = (customer?, until?);
        Some(Emergency { id, by, customer, from, until, uses, folded: self.folded, review: self.review })
    }
}

fn ended_well(intent: Intent) -> (Intent, Outcome) {
    let outcome = Outcome { result: OutcomeResult::Ok, ..unknown(&intent) };
    (intent, outcome)
}

/// The outcome of a use that nobody recorded the end of.
fn unknown(intent: &Intent) -> Outcome {
    Outcome {
        request: intent.request,
        customer: intent.customer,
        result: OutcomeResult::Unknown,
        bytes: None,
        key: None,
        kms_request: None,
    }
}

fn no_sink() -> Error {
    let message = "there is no emergency access on this node: it has no directory for emergencies";
    Error::new(ErrorKind::Configuration, message)
}

fn damage() -> Error {
    let message = "the file of an emergency is damaged: what stands before the damage is in the audit log";
    Error::new(ErrorKind::Integrity, message)
}

fn ended(error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Io, "a thread that keeps emergencies ended").with_source(error)
}
