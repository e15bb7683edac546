//! How much one principal, and the requests on one customer, may take of the daemon.
//!
//! A rate (a token bucket, kept as the moment at which it is full again) and a number of
//! requests that are under way. Both count for each principal and for each customer, so that
//! neither a client that runs wild nor a customer with much traffic slows the others. Whoever
//! nobody knows is one principal, all of them together.
//!
//! Separate from HTTP, and pure: the time is an argument. The connections are bounded by
//! [`listen::Limits`](super::listen::Limits), before anyone is known.
//!
//! Invariants: what is refused takes nothing. What is kept is bounded: who has a full bucket and
//! nothing under way is as good as never seen, and is forgotten to make room. A place is given
//! back when its [`Permit`] is dropped, and in no other way. Counts are this process's own: two
//! daemons on one store let twice as much through.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::access::Principal;
use crate::id::CustomerId;

/// How many principals, and how many customers, are kept count of at a time.
const MAX_TRACKED: usize = 4096;

/// How long to wait for a place, of which nobody knows when it is free.
const PLACE_WAIT: Duration = Duration::from_secs(1);

/// What one principal, and the requests on one customer, may take. A 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many requests begin in a second, in the long run: of a principal, and on a customer.
    pub requests_per_second: u32,
    /// How many may begin at once after a pause.
    pub burst: u32,
    /// How many requests of a principal are under way at a time.
    pub concurrent_per_principal: u32,
    /// How many requests on a customer are under way at a time, of all principals.
    pub concurrent_per_customer: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            requests_per_second: 5000,
            burst: 10_000,
            concurrent_per_principal: 128,
            concurrent_per_customer: 64,
        }
    }
}

/// Which limit was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Requests of the principal in a second.
    PrincipalRate,
    /// Requests of the principal under way.
    PrincipalConcurrency,
    /// Requests on the customer in a second.
    CustomerRate,
    /// Requests on the customer under way.
    CustomerConcurrency,
}

impl Limit {
    /// What a client and a metric call it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::PrincipalRate => "principal-rate",
            Self::PrincipalConcurrency => "principal-concurrency",
            Self::CustomerRate => "customer-rate",
            Self::CustomerConcurrency => "customer-concurrency",
        }
    }
}

/// What is said to a request that would be too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which limit it met.
    pub limit: Limit,
    /// After how long it would be let through if nobody else asks. Of a limit on what is under way
    /// it is a second: nobody knows.
    pub wait: Duration,
}

/// Keeps count. Clones count together.
#[derive(Clone, Default)]
pub struct Limiter(Arc<Inner>);

#[derive(Default)]
struct Inner {
    allowance: Allowance,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    principals: Table<Option<Principal>>,
    customers: Table<CustomerId>,
}

impl Limiter {
    /// One that has seen nobody.
    #[must_use]
    pub fn new(allowance: Allowance) -> Self {
        Self(Arc::new(Inner { allowance, counts: Mutex::default() }))
    }

    /// Lets a request through, or not: one of `principal` (`None`: whoever nobody knows), on
    /// `customer` where it is on one. `now` is the time since some moment, and never goes back.
    ///
    /// # Errors
    /// [`Refusal`], and nothing is taken.
    pub fn permit(
        &self,
        principal: Option<Principal>,
        customer: Option<CustomerId>,
        now: Duration,
    ) -> Result<Permit, Refusal> {
        let Allowance { requests_per_second, burst, concurrent_per_principal, concurrent_per_customer } =
            self.0.allowance;
        let rate = Rate::new(requests_per_second, burst);
        let mut counts = self.0.counts();
        let Counts { principals, customers } = &mut *counts;
        let refused = |limit| move |wait| Refusal { limit, wait };
        let full = |limit| move |_: Full| Refusal { limit, wait: PLACE_WAIT };

        let of_principal = principals.entry(&principal, now).map_err(full(Limit::PrincipalConcurrency))?;
        of_principal.has_place(concurrent_per_principal).map_err(full(Limit::PrincipalConcurrency))?;
        of_principal.bucket.check(rate, now).map_err(refused(Limit::PrincipalRate))?;
        if let Some(customer) = &customer {
            let of_customer = customers.entry(customer, now).map_err(full(Limit::CustomerConcurrency))?;
            of_customer.has_place(concurrent_per_customer).map_err(full(Limit::CustomerConcurrency))?;
            of_customer.bucket.check(rate, now).map_err(refused(Limit::CustomerRate))?;
            of_customer.begin(rate, now);
        }
        of_principal.begin(rate, now);
        drop(counts);
        Ok(Permit { of: Arc::clone(&self.0), principal, customer })
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("allowance", &self.0.allowance).finish_non_exhaustive()
    }
}

impl Inner {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Each count is changed by itself: a panic in between leaves none half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is under way. Dropped, it is not.
pub struct Permit {
    of: Arc<Inner>,
    principal: Option<Principal>,
    customer: Option<CustomerId>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.of.counts();
        counts.principals.end(&self.principal);
        if let Some(customer) = &self.customer {
            counts.customers.end(customer);
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// No place.
struct Full;

/// Whoever is kept count of.
struct Table<K>(BTreeMap<K, Entry>);

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Table<K> {
    fn entry(&mut self, key: &K, now: Duration) -> Result<&mut Entry, Full> {
        if !self.0.contains_key(key) && self.0.len() >= MAX_TRACKED {
            self.0.retain(|_, entry| !entry.is_idle(now));
            if self.0.len() >= MAX_TRACKED {
                return Err(Full);
            }
        }
        Ok(self.0.entry(key.clone()).or_default())
    }

    fn end(&mut self, key: &K) {
        let entry = self.0.get_mut(key).expect("who has something under way is not forgotten");
        entry.under_way -= 1;
    }
}

#[derive(Default)]
struct Entry {
    bucket: Bucket,
    under_way: u32,
}

impl Entry {
    const fn has_place(&self, limit: u32) -> Result<(), Full> {
        // The first always has one: a limit of 0 counts as 1.
        if self.under_way > 0 && self.under_way >= limit { Err(Full) } else { Ok(()) }
    }

    fn begin(&mut self, rate: Rate, now: Duration) {
        self.bucket.take(rate, now);
        self.under_way += 1;
    }

    /// Whether it is as if never seen.
    fn is_idle(&self, now: Duration) -> bool {
        self.under_way == 0 && self.bucket.full_at <= now
    }
}

/// How fast a bucket fills, and how much it holds, as times: one token, and all of them.
#[derive(Clone, Copy)]
struct Rate {
    token: Duration,
    whole: Duration,
}

impl Rate {
    fn new(per_second: u32, burst: u32) -> Self {
        let token = Duration::from_secs(1) / per_second.max(1);
        Self { token, whole: token.saturating_mul(burst.max(1)) }
    }
}

/// A token bucket, as the moment at which it is full again: the further off, the emptier it is.
#[derive(Default)]
struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Whether there is a token, or else how long until there is.
    fn check(&self, rate: Rate, now: Duration) -> Result<(), Duration> {
        match (self.after_one(rate, now) - now).saturating_sub(rate.whole) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    fn take(&mut self, rate: Rate, now: Duration) {
        self.full_at = self.after_one(rate, now);
    }

    /// When it would be full, with one token less. It is not before `now`.
    fn after_one(&self, rate: Rate, now: Duration) -> Duration {
        self.full_at.max(now).saturating_add(rate.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Duration = Duration::from_secs(1_000);

    fn limiter(requests_per_second: u32, burst: u32, principal: u32, customer: u32) -> Limiter {
        Limiter::new(Allowance {
            requests_per_second,
            burst,
            concurrent_per_principal: principal,
            concurrent_per_customer: customer,
        })
    }

    fn service(name: &str) -> Option<Principal> {
        Some(Principal::service(name).unwrap())
    }

    fn customer(number: u16) -> CustomerId {
        let mut bytes = [7; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        CustomerId::from_bytes(bytes)
    }

    /// What became of a request that is over at once.
    fn asked(limiter: &Limiter, who: &str, on: Option<u16>, now: Duration) -> Result<(), Refusal> {
        limiter.permit(service(who), on.map(customer), now).map(drop)
    }

    #[test]
    fn after_a_burst_the_rate_counts() {
        let limiter = limiter(10, 5, 9, 9);
        for _ in 0..5 {
            asked(&limiter, "a", None, AT).unwrap();
        }
        let tenth = Duration::from_millis(100);
        let refusal = Refusal { limit: Limit::PrincipalRate, wait: tenth };
        // A refusal takes nothing: it says the same again.
        assert_eq!(asked(&limiter, "a", None, AT), Err(refusal));
        assert_eq!(asked(&limiter, "a", None, AT), Err(refusal));
        let nearly = tenth - Duration::from_nanos(1);
        let refusal = Refusal { wait: Duration::from_nanos(1), ..refusal };
        assert_eq!(asked(&limiter, "a", None, AT + nearly), Err(refusal));
        asked(&limiter, "a", None, AT + tenth).unwrap();
        asked(&limiter, "a", None, AT + tenth).unwrap_err();
        asked(&limiter, "b", None, AT).unwrap();
        // In ten seconds a hundred, and five that were saved up.
        let let_through =
            (0..10_000).filter(|ms| asked(&limiter, "c", None, AT + Duration::from_millis(*ms)).is_ok());
        assert_eq!(let_through.count(), 104);
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let limiter = limiter(10, 3, 9, 9);
        asked(&limiter, "a", None, AT).unwrap();
        let later = AT + Duration::from_secs(3600);
        let let_through = (0..10).filter(|_| asked(&limiter, "a", None, later).is_ok()).count();
        assert_eq!(let_through, 3);
    }

    #[test]
    fn one_customer_does_not_use_up_another() {
        let limiter = limiter(10, 2, 9, 9);
        for who in ["a", "b"] {
            asked(&limiter, who, Some(1), AT).unwrap();
        }
        let refusal = asked(&limiter, "c", Some(1), AT).unwrap_err();
        assert_eq!(refusal.limit, Limit::CustomerRate);
        // It took nothing of the principal's either: both of its tokens are there.
        asked(&limiter, "c", Some(2), AT).unwrap();
        asked(&limiter, "c", Some(3), AT).unwrap();
        assert_eq!(asked(&limiter, "c", Some(4), AT).unwrap_err().limit, Limit::PrincipalRate);
    }

    #[test]
    fn a_place_is_held_until_its_permit_is_dropped() {
        let limiter = limiter(1000, 1000, 3, 2);
        let permit = |who, on: Option<u16>| limiter.permit(service(who), on.map(customer), AT);
        let first = permit("a", Some(1)).unwrap();
        let _second = permit("b", Some(1)).unwrap();
        let refusal = permit("c", Some(1)).unwrap_err();
        assert_eq!(refusal, Refusal { limit: Limit::CustomerConcurrency, wait: PLACE_WAIT });
        let _others = [permit("a", Some(2)).unwrap(), permit("a", None).unwrap()];
        assert_eq!(permit("a", Some(3)).unwrap_err().limit, Limit::PrincipalConcurrency);
        drop(first);
        permit("a", Some(1)).unwrap();
    }

    #[test]
    fn a_limit_of_nothing_is_one() {
        let limiter = limiter(0, 0, 0, 0);
        let permit = limiter.permit(None, Some(customer(1)), AT).unwrap();
        let second = limiter.permit(None, Some(customer(1)), AT + Duration::from_secs(1)).unwrap_err();
        assert_eq!(second.limit, Limit::PrincipalConcurrency);
        drop(permit);
        assert_eq!(limiter.permit(None, None, AT).unwrap_err().wait, Duration::from_secs(1));
        limiter.permit(None, Some(customer(1)), AT + Duration::from_secs(1)).unwrap();
    }

    #[test]
    fn what_is_kept_is_bounded_and_who_is_idle_is_forgotten_first() {
        let limiter = limiter(1_000_000, 1_000_000, u32::MAX, u32::MAX);
        let many = u16::try_from(MAX_TRACKED).unwrap();
        let held: Vec<Permit> =
            (0..many).map(|each| limiter.permit(None, Some(customer(each)), AT).unwrap()).collect();
        let refusal = limiter.permit(None, Some(customer(many)), AT).unwrap_err();
        assert_eq!(refusal.limit, Limit::CustomerConcurrency);
        // Whom it knows it goes on to let through.
        limiter.permit(None, Some(customer(0)), AT).unwrap();
        drop(held);
        let later = AT + Duration::from_secs(1);
        limiter.permit(None, Some(customer(many)), later).unwrap();
        assert_eq!(limiter.0.counts().customers.0.len(), 1);
    }

    #[test]
    fn a_bucket_that_is_not_full_is_not_forgotten() {
        let limiter = limiter(1, 1, 9, 9);
        asked(&limiter, "slow", None, AT).unwrap();
        let mut counts = limiter.0.counts();
        counts.principals.0.retain(|_, entry| !entry.is_idle(AT));
        assert_eq!(counts.principals.0.len(), 1);
    }
}
