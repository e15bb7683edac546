//! Sending alarms, one after the other, for as long as it takes.
//!
//! What is raised is written to the spool first, if there is one, and forgotten when the webhook
//! has taken it. While it does not, the next attempt is made after a pause that grows, with the
//! alarm that has waited longest. Without a spool, what was not delivered when the daemon ends is
//! lost, and that is told in its log.
//!
//! Separate from whoever raises one, and in a task of its own: a webhook that is dead is in
//! nobody's way.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::spool::Spool;
use super::{Alarm, Counted, MAX_WAITING, Webhook};
use crate::entropy::{Entropy, random};
use crate::error::Result;

/// The pause after the first failure. It doubles with each.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long the last attempts may take when the daemon ends.
const LAST: Duration = Duration::from_secs(3);

/// Whoever sends the alarms of one daemon. It is to be run.
#[derive(Debug)]
pub struct Delivery {
    webhook: Arc<Webhook>,
    queue: mpsc::Receiver<Alarm>,
    waiting: VecDeque<Alarm>,
    spool: Option<Arc<Spool>>,
    figures: Counted,
    entropy: Arc<dyn Entropy>,
    failures: u32,
}

/// An attempt, and how it ended.
type Attempt = BoxFuture<'static, Result<(), &'static str>>;

impl Delivery {
    pub(super) fn new(
        webhook: Webhook,
        queue: mpsc::Receiver<Alarm>,
        figures: Counted,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let (webhook, waiting) = (Arc::new(webhook), VecDeque::new());
        Self { webhook, queue, waiting, spool: None, figures, entropy, failures: 0 }
    }

    /// Takes up what was not delivered before this daemon began. It blocks, shortly.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if the directory cannot be
    /// used, or is another daemon's.
    pub fn take_up(mut self) -> Result<Self> {
        if let Some(spool) = self.webhook.spool()? {
            match spool.read() {
                Ok(alarms) => self.waiting.extend(alarms),
                Err(_) => tracing::error!("the undelivered alarms cannot be read, and stay where they are"),
            }
            self.spool = Some(Arc::new(spool));
        }
        Ok(self)
    }

    /// Sends until `ended`; then once more what is left, shortly.
    ///
    /// # Cancel safety
    /// What was not delivered is in the spool, but for what was raised in the last moment.
    pub async fn run(mut self, ended: impl Future<Output = ()> + Send) {
        let mut ended = pin!(ended);
        let mut attempt: Option<(Alarm, Attempt)> = None;
        loop {
            if attempt.is_none() {
                attempt = self.waiting.pop_front().map(|alarm| (alarm, self.attempt(alarm)));
            }
            let at_hand = async {
                match &mut attempt {
                    Some((_, attempt)) => attempt.await,
                    None => pending().await,
                }
            };
            let sent = tokio::select! {
                biased;
                () = &mut ended => break,
                Some(alarm) = self.queue.recv() => {
                    self.keep(alarm).await;
                    continue;
                }
                sent = at_hand => sent,
            };
            if let Some((alarm, _)) = attempt.take() {
                self.settle(alarm, sent).await;
            }
        }
        if let Some((alarm, _)) = attempt {
            self.waiting.push_front(alarm);
        }
        self.finish().await;
    }

    /// Sends it, after a pause if the last attempt failed.
    fn attempt(&self, alarm: Alarm) -> Attempt {
        let (webhook, pause) = (Arc::clone(&self.webhook), self.pause());
        async move {
            sleep(pause).await;
            webhook.send(&alarm).await
        }
        .boxed()
    }

    /// Between half of it and all of it, so that many daemons do not come at once.
    fn pause(&self) -> Duration {
        let Some(doubled) = self.failures.checked_sub(1) else { return Duration::ZERO };
        let longest = PAUSE.saturating_mul(1 << doubled.min(10)).min(LONGEST_PAUSE);
        let [chance] = random(&*self.entropy).unwrap_or([u8::MAX]);
        longest / 2 + longest / 2 * u32::from(chance) / u32::from(u8::MAX)
    }

    async fn keep(&mut self, alarm: Alarm) {
        if self.waiting.len() >= MAX_WAITING {
            self.figures.delivery("lost");
            tracing::error!(alarm = %alarm.id, "too many alarms wait to be sent: this one is not");
            return;
        }
        self.waiting.push_back(alarm);
        self.on_disk(move |spool| spool.put(&alarm)).await;
    }

    async fn settle(&mut self, alarm: Alarm, sent: Result<(), &'static str>) {
        match sent {
            Ok(()) => {
                self.failures = 0;
                self.figures.delivery("delivered");
                tracing::info!(alarm = %alarm.id, "an alarm was delivered");
                self.on_disk(move |spool| spool.remove(alarm.id)).await;
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                self.figures.delivery("failed");
                tracing::warn!(alarm = %alarm.id, reason, "an alarm was not delivered, and is tried again");
                self.waiting.push_back(alarm);
            }
        }
    }

    /// What was raised until now is kept, and everything tried once.
    async fn finish(mut self) {
        while let Ok(alarm) = self.queue.try_recv() {
            self.keep(alarm).await;
        }
        let _ = timeout(LAST, async {
            for _ in 0..self.waiting.len() {
                let Some(alarm) = self.waiting.front().copied() else { return };
                let sent = self.webhook.send(&alarm).await;
                self.waiting.pop_front();
                self.settle(alarm, sent).await;
            }
        })
        .await;
        if self.spool.is_none() && !self.waiting.is_empty() {
            let alarms = self.waiting.len();
            tracing::error!(alarms, "alarms were not delivered and are lost: name a spool to keep them in");
        }
    }

    async fn on_disk(&self, work: impl FnOnce(&Spool) -> std::io::Result<()> + Send + 'static) {
        let Some(spool) = self.spool.clone() else { return };
        let done = tokio::task::spawn_blocking(move || work(&spool)).await;
        if !matches!(done, Ok(Ok(()))) {
            tracing::error!("the directory of undelivered alarms cannot be written");
        }
    }
}
