//! What the daemon does by itself, again and again: destroys what is due, ends sessions that are
//! over, keeps the log, looks at epochs and KMS keys, and reads everything through.
//!
//! Separate from what each of these does. What fails is told, is an alarm where somebody has to
//! know, and is tried again the next time. Other daemons on the store may do the same at the
//! same time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::alarm::{About, AlarmKind, Alarms};
use super::config::DaemonConfig;
use super::{checks, drills};
use crate::access::Access;
use crate::audit::publish::Removed;
use crate::error::{Error, ErrorKind};
use crate::room::Strongroom;
use crate::system::SystemClock;
use crate::time::Clock;
use crate::tlog::KeyName;

/// What each of them has to do it with.
struct Hand {
    room: Strongroom,
    own: Access,
    alarms: Alarms,
    published: Punctual,
}

/// When the log was published last, and whether that is late: three times as long ago as it
/// should be. Clones share it.
#[derive(Clone, Debug)]
pub struct Punctual {
    clock: Arc<dyn Clock>,
    every: Option<Duration>,
    /// By uptime.
    last: Arc<Mutex<Duration>>,
}

impl Punctual {
    /// Published now, and again every so often; `None` is never, and then it is not late.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, every: Option<Duration>) -> Self {
        let last = Arc::new(Mutex::new(clock.uptime()));
        Self { clock, every, last }
    }

    /// How long ago it was published.
    #[must_use]
    pub fn since(&self) -> Duration {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.clock.uptime().saturating_sub(last)
    }

    /// Whether it is late.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.every.is_some_and(|every| self.since() > every.saturating_mul(3))
    }

    /// It was published, as of `uptime`.
    fn note(&self, uptime: Duration) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = uptime;
    }
}

/// Begins what is configured, each with its first run at once. They go on until the set is dropped:
/// what one is at then goes on with the next run, of this daemon or another one.
#[must_use = "they end when the set is dropped"]
pub fn begin(
    config: &DaemonConfig,
    room: &Strongroom,
    own: &Access,
    alarms: &Alarms,
    published: &Punctual,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (own_hand, alarms_hand) = (own.clone(), alarms.clone());
    let published = published.clone();
    let hand = Arc::new(Hand { room: room.clone(), own: own_hand, alarms: alarms_hand, published });
    let every = &config.tasks;
    again(&mut tasks, &hand, every.sweep(), sweep);
    again(&mut tasks, &hand, every.sessions(), end_sessions);
    // Twice in the time, so that a checkpoint is no older than that although publishing takes a while.
    again(&mut tasks, &hand, every.publish().map(|every| every / 2), publish);
    again(&mut tasks, &hand, every.publish(), look_whether_late);
    again(&mut tasks, &hand, every.maintain(), maintain);
    let epoch = config.alarms.epoch();
    again(&mut tasks, &hand, every.check(), move |hand| async move {
        checks::look(&hand.room, &hand.own, &hand.alarms, epoch).await;
    });
    if let Some(schedule) = every.verify() {
        let (room, own, alarms) = (room.clone(), own.clone(), alarms.clone());
        tasks.spawn(drills::schedule(room, own, alarms, Arc::new(SystemClock), schedule));
    }
    tasks
}

/// Begins one that is done so often, if it is.
fn again<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    hand: &Arc<Hand>,
    every: Option<Duration>,
    run: impl Fn(Arc<Hand>) -> F + Send + 'static,
) {
    let Some(every) = every else { return };
    let hand = Arc::clone(hand);
    tasks.spawn(async move {
        let mut ticks = interval(every);
        // A run that took longer than that is not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            run(Arc::clone(&hand)).await;
        }
    });
}

/// Does what is due.
async fn sweep(hand: Arc<Hand>) {
    let Hand { room, own, alarms, .. } = &*hand;
    let sweep = match room.sweep(own).await {
        Ok(sweep) => sweep,
        Err(error) => {
            alarms.observe(&error, About::default());
            return failed(&error, "destruction was refused");
        }
    };
    for (customer, swept) in &sweep.customers {
        match swept {
            Ok(swept) if swept.dropped.is_empty() => {}
            Ok(swept) => tracing::info!(%customer, keys = swept.dropped.len(), "keys were dropped"),
            Err(error) => {
                alarms.observe(error, About::customer(*customer));
                failed(error, "a customer's destruction was refused");
            }
        }
    }
}

/// Ends at the KMS what is over, so that no grant outlives its session.
async fn end_sessions(hand: Arc<Hand>) {
    let Hand { room, own, alarms, .. } = &*hand;
    let customers = match room.end_overdue_sessions(own).await {
        Ok(customers) => customers,
        Err(error) => return failed(&error, "sessions could not be looked at"),
    };
    for (customer, ended) in &customers {
        match ended {
            Ok(ended) if ended.is_empty() => {}
            Ok(ended) => tracing::info!(%customer, sessions = ended.len(), "sessions were ended"),
            Err(error) => {
                alarms.observe(error, About::customer(*customer));
                failed(error, "a customer's sessions could not be ended");
            }
        }
    }
}

/// Publishes the log.
async fn publish(hand: Arc<Hand>) {
    let Hand { room, alarms, published, .. } = &*hand;
    let begun = published.clock.uptime();
    let error = match room.publish_shards().await {
        Ok((all, error)) => {
            contradicted(all.iter().flat_map(|(_, published)| published.alarms()), alarms);
            if error.is_none() {
                // What came while it was at it is for the next time.
                published.note(begun);
            }
            error
        }
        Err(error) => Some(error),
    };
    // After a conflict, what we have is among what others publish the next time.
    if let Some(error) = error.filter(|error| error.kind() != ErrorKind::Conflict) {
        alarms.observe(&error, About::default());
        failed(&error, "the log could not be published");
    }
}

/// Raises an alarm if the log is not published in time: publishing may fail, or hang.
async fn look_whether_late(hand: Arc<Hand>) {
    if hand.published.is_late() {
        hand.alarms.raise(AlarmKind::LogUnpublished, About::default());
        tracing::error!(seconds = hand.published.since().as_secs(), "the log was not published in time");
    }
}

/// Keeps the log in order, and removes idempotency keys that are too old.
async fn maintain(hand: Arc<Hand>) {
    let Hand { room, alarms, .. } = &*hand;
    match room.maintain_shards().await {
        Ok(done) => {
            if let Some(error) = &done.failed {
                alarms.observe(error, About::default());
                failed(error, "a part of the log could not be maintained");
            }
            contradicted(done.published.iter().flat_map(|(_, published)| published.alarms()), alarms);
            for (shard, removed) in done.removed.iter().filter(|(_, removed)| *removed != Removed::default())
            {
                let Removed { commits, tiles, .. } = removed;
                tracing::info!(
                    shard,
                    commits,
                    tiles,
                    "removed from the log what segments and wider tiles hold"
                );
            }
        }
        Err(error) => {
            alarms.observe(&error, About::default());
            failed(&error, "the log could not be maintained");
        }
    }
    if let Err(error) = room.remove_old_claims().await {
        failed(&error, "old idempotency keys could not be removed");
    }
}

/// Raises an alarm for each witness that has seen another log than the one that we have.
fn contradicted<'a>(witnesses: impl Iterator<Item = (&'a KeyName, &'a Error)>, alarms: &Alarms) {
    for (witness, error) in witnesses {
        alarms.raise(AlarmKind::Rollback, About::default());
        tracing::error!(%witness, reason = error.chain(), "a witness contradicts the log");
    }
}

fn failed(error: &Error, what: &'static str) {
    tracing::error!(kind = error.kind().as_str(), reason = error.chain(), "{what}");
}
