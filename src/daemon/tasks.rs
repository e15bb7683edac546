//! What the daemon does by itself, again and again: destroys what is due, ends sessions that are
//! over, keeps the log, looks at epochs and KMS keys, and reads everything through.
//!
//! Separate from what each of these does. What fails is told, is an alarm where somebody has to
//! know, and is tried again the next time. Other daemons on the store may do the same at the
//! same time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::alarm::{About, AlarmKind, Alarms};
use super::config::DaemonConfig;
use super::{checks, drills};
use crate::access::Access;
use crate::audit::publish::Removed;
use crate::error::Error;
use crate::room::Strongroom;
use crate::system::SystemClock;

/// What each of them has to do it with.
struct Hand {
    room: Strongroom,
    own: Access,
    alarms: Alarms,
}

/// Begins what is configured, each with its first run at once. They go on until the set is dropped:
/// what one is at then goes on with the next run, of this daemon or another one.
#[must_use = "they end when the set is dropped"]
pub fn begin(config: &DaemonConfig, room: &Strongroom, own: &Access, alarms: &Alarms) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let hand = Arc::new(Hand { room: room.clone(), own: own.clone(), alarms: alarms.clone() });
    let every = &config.tasks;
    again(&mut tasks, &hand, every.sweep(), sweep);
    again(&mut tasks, &hand, every.sessions(), end_sessions);
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
    let Hand { room, own, alarms } = &*hand;
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
    let Hand { room, own, alarms } = &*hand;
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

/// Publishes the log and keeps it in order, and removes idempotency keys that are too old.
async fn maintain(hand: Arc<Hand>) {
    let Hand { room, alarms, .. } = &*hand;
    match room.maintain_log().await {
        Ok(done) => {
            for (witness, error) in done.published.iter().flat_map(|(_, published)| published.alarms()) {
                // It has seen another log than the one that we have.
                alarms.raise(AlarmKind::Rollback, About::default());
                tracing::error!(%witness, reason = error.chain(), "a witness contradicts the log");
            }
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

fn failed(error: &Error, what: &'static str) {
    tracing::error!(kind = error.kind().as_str(), reason = error.chain(), "{what}");
}
