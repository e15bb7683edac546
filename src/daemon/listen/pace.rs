//! How an answer is taken: whether its reader is still there.
//!
//! What sends an answer asks its body for the next piece when there is room for it. A client that
//! reads nothing leaves no room, on a full TCP connection as in an HTTP/2 stream whose window
//! is used up, and the pieces that were made for it stay in memory. So each body says when a piece
//! of it was handed over and the next one not asked for yet, and a connection looks now and then
//! whether one of its bodies has said so for too long. A body that is slow to make its next piece
//! is asked for it all that time, and is not its reader's fault.
//!
//! Separate from the connection, and without a clock: looks are counted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::sleep;

/// How often one looks in the time that a reader has.
const LOOKS: u32 = 4;

/// The answers of one connection that are not sent yet.
#[derive(Clone, Default)]
pub(super) struct Answers(Arc<Mutex<Vec<Weak<AtomicU32>>>>);

/// The pace at which one answer is taken: 0 while a piece is asked for, else one more than how
/// often it was found that none was.
pub(super) struct Pace(Arc<AtomicU32>);

impl Answers {
    /// An answer begins. It is over when what is returned is dropped.
    pub(super) fn begin(&self) -> Pace {
        let pace = Arc::new(AtomicU32::new(0));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pace));
        Pace(pace)
    }

    /// Until of some answer nothing was taken for `span`, or up to a quarter more.
    ///
    /// # Cancel safety
    /// Dropped, the time that was counted is counted on by the next call.
    pub(super) async fn unread_for(&self, span: Duration) {
        loop {
            sleep(span / LOOKS).await;
            if self.look() {
                return;
            }
        }
    }

    fn look(&self) -> bool {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unread = false;
        answers.retain(|answer| {
            let Some(pace) = answer.upgrade() else { return false };
            // Only what was handed over: a piece that is asked for meanwhile stays so.
            let counted = pace.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |looks| {
                (looks > 0).then(|| looks.saturating_add(1))
            });
            // The first look may come at once: it is over after so many more.
            unread |= counted.is_ok_and(|before| before > LOOKS);
            true
        });
        unread
    }
}

impl Pace {
    /// A piece is asked for.
    pub(super) fn asked(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// A piece was handed over.
    pub(super) fn handed_over(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SPAN: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "the time that tokio has paused")]
    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_has_the_whole_time_and_at_most_a_quarter_more() {
        for late in [0, 1, 14, 15, 16, 29] {
            let answers = Answers::default();
            let pace = answers.begin();
            let begun = async {
                sleep(Duration::from_secs(late)).await;
                pace.handed_over();
                tokio::time::Instant::now()
            };
            let (begun, ()) = tokio::join!(begun, answers.unread_for(SPAN));
            let took = begun.elapsed();
            assert!(took >= SPAN && took <= SPAN * 5 / 4, "{late}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_reading_or_waits_for_us_is_not_cut() {
        let answers = Answers::default();
        let (reading, waiting, done) = (answers.begin(), answers.begin(), answers.begin());
        waiting.handed_over();
        waiting.asked();
        done.handed_over();
        drop(done);
        let pieces = async {
            for _ in 0..100 {
                reading.handed_over();
                sleep(SPAN - Duration::from_secs(1)).await;
                reading.asked();
            }
        };
        tokio::select! {
            () = answers.unread_for(SPAN) => panic!("nobody is slow"),
            () = pieces => {}
        }
        assert_eq!(answers.0.lock().unwrap().len(), 2, "what is done is forgotten");
        reading.handed_over();
        timeout(SPAN * 2, answers.unread_for(SPAN)).await.expect("now one is");
    }
}
