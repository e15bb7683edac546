//! A second request where the first has no answer yet.
//!
//! Separate from the deadlines ([`super::bounded`]), because it is a policy over durations and
//! knows nothing of storages. A request that hangs costs its caller about the slowest usual
//! answer, not the deadline: one in a thousand requests to a cloud storage hangs for
//! many seconds, and the next one of the same kind is answered in milliseconds.
//!
//! Invariants: a request is sent [`MOST`] times at most; extra requests are a tenth of all at
//! most ([`Budget`]), so that a storage that is slow for everybody is not made slower; and only
//! requests that change nothing when they are repeated come here. The first answer counts. The
//! others are dropped, and **may still take effect later**, as any late request may.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use object_store::Result;
use tokio::time::{Instant, sleep};

use super::fault::has_answer;

/// How often a request is sent, the first time included.
const MOST: u32 = 3;

/// When a second request goes out before it is known how fast the storage answers.
const START: Duration = Duration::from_secs(1);
/// The least and the most that a request waits for its answer before it is sent again.
const LEAST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(1500);

/// How many recent answers of one class are remembered, and how many make an estimate.
const RECENT: usize = 128;
const ENOUGH: usize = 16;

/// Requests that take about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Metadata, or the first bytes of an object.
    Read,
    /// The first page of a list.
    List,
    /// A write of 64 KiB at most.
    SmallWrite,
    /// A write of 1 MiB at most.
    Write,
    /// A write of 16 MiB at most.
    LargeWrite,
}

impl Class {
    const COUNT: usize = 5;

    /// The class of a write, `None` for one too large to be sent twice.
    pub(super) fn of_write(bytes: usize) -> Option<Self> {
        Some(match bytes {
            0..=0x1_0000 => Self::SmallWrite,
            0x1_0001..=0x10_0000 => Self::Write,
            0x10_0001..=0x100_0000 => Self::LargeWrite,
            _ => return None,
        })
    }

    /// What the transfer itself may add, at 4 MiB in a second.
    fn transfer(self) -> Duration {
        match self {
            Self::Read | Self::List | Self::SmallWrite => Duration::ZERO,
            Self::Write => Duration::from_millis(250),
            Self::LargeWrite => Duration::from_secs(4),
        }
    }
}

/// How fast one storage answers, and how many extra requests it may get.
#[derive(Debug, Default)]
pub(super) struct Hedge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    recent: [Recent; Class::COUNT],
    budget: Budget,
}

impl Hedge {
    /// Sends a request, and again after a while if there is no answer, or if it was lost on the
    /// way. Returns the first answer, else the last error, and how often it was sent.
    ///
    /// An answer is what the storage says about the request, refusals included; a broken
    /// connection is none.
    ///
    /// # Cancel safety
    /// As the requests'.
    pub(super) async fn run<'a, T: Send>(
        &self,
        class: Class,
        request: impl Fn() -> BoxFuture<'a, Result<T>> + Send,
    ) -> (Result<T>, u32) {
        let send = || {
            let (since, answer) = (now(), request());
            async move { (answer.await, since) }
        };
        let mut wait = self.begin(class);
        let mut under_way = FuturesUnordered::new();
        under_way.push(send());
        let mut sent = 1;
        loop {
            let again = async {
                if sent == MOST {
                    std::future::pending::<()>().await;
                }
                sleep(wait).await;
            };
            tokio::select! {
                biased;
                Some((answer, since)) = under_way.next() => match answer {
                    Err(error) if !has_answer(&error) => {
                        // Its answer was lost, or it never arrived. Another one may come.
                        if !under_way.is_empty() {
                            continue;
                        }
                        if sent == MOST || !self.spend() {
                            return (Err(error), sent);
                        }
                        under_way.push(send());
                        sent += 1;
                    }
                    answer => {
                        self.learn(class, now().saturating_duration_since(since));
                        return (answer, sent);
                    }
                },
                () = again => {
                    if self.spend() {
                        under_way.push(send());
                        sent += 1;
                        wait = wait.saturating_mul(2);
                    }
                }
            }
        }
    }

    /// How long to wait for the answer to a new request.
    fn begin(&self, class: Class) -> Duration {
        let mut state = self.state();
        state.budget.earn();
        state.recent[class as usize].usual(class)
    }

    fn learn(&self, class: Class, took: Duration) {
        self.state().recent[class as usize].push(took);
    }

    fn spend(&self) -> bool {
        self.state().budget.spend()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "a duration, on the time that tokio has paused")]
fn now() -> Instant {
    Instant::now()
}

/// How long the last answers took. Of a request that was sent twice it is the time of the one
/// that was answered, so that hung requests do not teach us to wait longer.
#[derive(Debug, Default)]
struct Recent {
    took: Vec<Duration>,
    next: usize,
}

impl Recent {
    fn push(&mut self, took: Duration) {
        if self.took.len() < RECENT {
            self.took.push(took);
        } else {
            self.took[self.next] = took;
            self.next = (self.next + 1) % RECENT;
        }
    }

    /// About the 99th percentile.
    fn usual(&self, class: Class) -> Duration {
        let longest = LONGEST + class.transfer();
        if self.took.len() < ENOUGH {
            return START + class.transfer();
        }
        let mut sorted = self.took.clone();
        let place = sorted.len() - 1 - sorted.len() / 100;
        let (_, usual, _) = sorted.select_nth_unstable(place);
        (*usual).clamp(LEAST, longest)
    }
}

/// The extra requests that may be sent: one for each [`Budget::EARNED_BY`] requests, and some at
/// once.
#[derive(Debug)]
struct Budget {
    /// In tenths.
    tenths: u32,
}

impl Budget {
    const EARNED_BY: u32 = 10;
    const AT_ONCE: u32 = 20;

    fn earn(&mut self) {
        self.tenths = (self.tenths + 1).min(Self::AT_ONCE * Self::EARNED_BY);
    }

    fn spend(&mut self) -> bool {
        let left = self.tenths.checked_sub(Self::EARNED_BY);
        self.tenths = left.unwrap_or(self.tenths);
        left.is_some()
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self { tenths: Self::AT_ONCE * Self::EARNED_BY }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::FutureExt;
    use object_store::Error;

    use super::*;

    /// Runs one request, of which the `k`-th sending (from 1) takes as long as `takes(k)` says and
    /// is answered with `k`. Returns the answer, how often it was sent, and how long it all took.
    async fn run(hedge: &Hedge, takes: impl Fn(u32) -> Option<u64> + Sync) -> (Result<u32>, u32, Duration) {
        let (sent, begun) = (AtomicU32::new(0), now());
        let request = || {
            let k = sent.fetch_add(1, Ordering::SeqCst) + 1;
            let takes = takes(k);
            async move {
                match takes {
                    Some(millis) => sleep(Duration::from_millis(millis)).await,
                    None => std::future::pending().await,
                }
                Ok(k)
            }
            .boxed()
        };
        let limit = Duration::from_secs(20);
        let answer = tokio::time::timeout(limit, hedge.run(Class::Read, request)).await;
        let answer = answer.map_or_else(|_| Err(super::super::fault::silence(limit)), |(answer, _)| answer);
        (answer, sent.load(Ordering::SeqCst), begun.elapsed())
    }

    fn always(millis: u64) -> impl Fn(u32) -> Option<u64> + Sync {
        move |_| Some(millis)
    }

    fn hangs(times: u32, then: u64) -> impl Fn(u32) -> Option<u64> + Sync {
        move |k| (k > times).then_some(then)
    }

    #[tokio::test(start_paused = true)]
    async fn a_prompt_answer_costs_one_request() {
        let hedge = Hedge::default();
        for _ in 0..1000 {
            let (answer, sent, took) = run(&hedge, always(30)).await;
            assert_eq!((answer.unwrap(), sent, took.as_millis()), (1, 1, 30));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_request_costs_about_the_slowest_usual_answer() {
        let hedge = Hedge::default();
        // Nothing is known yet.
        let (answer, sent, took) = run(&hedge, hangs(1, 30)).await;
        assert_eq!((answer.unwrap(), sent, took.as_millis()), (2, 2, 1030));
        for _ in 0..20 {
            run(&hedge, always(200)).await.0.unwrap();
        }
        let (answer, sent, took) = run(&hedge, hangs(1, 30)).await;
        assert_eq!((answer.unwrap(), sent, took.as_millis()), (2, 2, 230));
        // The second hangs as well.
        let (answer, sent, took) = run(&hedge, hangs(2, 30)).await;
        assert_eq!((answer.unwrap(), sent, took.as_millis()), (3, 3, 200 + 400 + 30));
        let (answer, sent, took) = run(&hedge, hangs(9, 30)).await;
        assert_eq!((answer.is_err(), sent, took.as_secs()), (true, 3, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_may_still_be_the_first_to_answer() {
        let hedge = Hedge::default();
        let (answer, sent, took) = run(&hedge, |k| Some(if k == 1 { 1100 } else { 600 })).await;
        assert_eq!((answer.unwrap(), sent, took.as_millis()), (1, 2, 1100));
    }

    #[tokio::test(start_paused = true)]
    async fn hung_requests_do_not_teach_us_to_wait() {
        let hedge = Hedge::default();
        for n in 0..2000 {
            let (answer, _, took) = run(&hedge, hangs(u32::from(n % 20 == 19), 10)).await;
            answer.unwrap();
            assert!(took <= Duration::from_millis(1010), "{n}: {took:?}");
            assert!(n < 20 || took <= LEAST + Duration::from_millis(10), "{n}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_storage_that_became_slow_is_not_asked_twice_for_long() {
        let hedge = Hedge::default();
        for _ in 0..200 {
            run(&hedge, always(10)).await.0.unwrap();
        }
        let mut extra = 0;
        for _ in 0..1000 {
            let (answer, sent, _) = run(&hedge, always(900)).await;
            answer.unwrap();
            extra += sent - 1;
        }
        assert!(extra <= 4, "{extra}");
        // One that takes longer than we ever wait gets a tenth more, and what was saved up.
        let mut extra = 0;
        for _ in 0..1000 {
            let (answer, sent, _) = run(&hedge, always(5000)).await;
            answer.unwrap();
            extra += sent - 1;
        }
        assert!(extra <= 100 + Budget::AT_ONCE, "{extra}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_it_and_a_lost_one_does_not() {
        let answered = |path: &str| Error::NotFound { path: path.to_owned(), source: "none".into() };
        let lost = || Error::Generic { store: "S3", source: "connection reset".into() };
        let outage = || Error::Generic { store: "S3", source: "status code: 503 Slow Down".into() };
        for (error, times) in [(answered("p"), 1), (lost(), MOST), (outage(), 1)] {
            let sent = AtomicU32::new(0);
            let again = std::mem::discriminant(&error);
            let text = error.to_string();
            let request = || {
                sent.fetch_add(1, Ordering::SeqCst);
                let error = match text.as_str() {
                    text if text.contains("503") => outage(),
                    text if text.contains("reset") => lost(),
                    _ => answered("p"),
                };
                async move { Err::<(), _>(error) }.boxed()
            };
            let (failed, counted) = Hedge::default().run(Class::SmallWrite, request).await;
            assert_eq!(std::mem::discriminant(&failed.unwrap_err()), again);
            assert_eq!(counted, times);
            assert_eq!(sent.load(Ordering::SeqCst), times, "{text}");
        }
    }

    #[test]
    fn large_writes_have_time_and_larger_ones_are_sent_once() {
        assert_eq!(Class::of_write(0), Some(Class::SmallWrite));
        assert_eq!(Class::of_write(64 << 10), Some(Class::SmallWrite));
        assert_eq!(Class::of_write(1 << 20), Some(Class::Write));
        assert_eq!(Class::of_write(8 << 20), Some(Class::LargeWrite));
        assert_eq!(Class::of_write((16 << 20) + 1), None);
        assert!(Recent::default().usual(Class::SmallWrite) < Duration::from_secs(3));
        assert!(Recent::default().usual(Class::LargeWrite) >= Duration::from_secs(4));
    }
}
