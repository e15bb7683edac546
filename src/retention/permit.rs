//! That keys may be destroyed, as a value: the [`ShredPermit`].
//!
//! Separate from the ring, which takes one before it puts a key into the window
//! before its destruction. There are two ways to one: the day of the keys is over
//! by a [`TrustedTime`], or two people ordered it.
//!
//! Invariant: nothing else makes a permit, and a permit covers no more than what it
//! was made for.

use thiserror::Error;

use super::clock::TrustedTime;
use crate::id::{BlobId, CustomerId, OrderId};
use crate::order::{ApprovedOrder, OrderKind};
use crate::time::{Day, Timestamp};

/// That some keys may be destroyed.
///
/// ```compile_fail,E0451
/// # use strongroom::retention::permit::ShredPermit;
/// # fn forge() -> ShredPermit {
/// ShredPermit { at: unimplemented!(), scope: unimplemented!() }
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a permit stands for one destruction"]
pub struct ShredPermit {
    at: Timestamp,
    scope: Scope,
}

#[derive(Debug)]
enum Scope {
    /// Days that are over.
    Expired { until: Day },
    /// What two people ordered of a customer.
    Ordered { order: OrderId, customer: CustomerId, days: Days },
}

#[derive(Debug)]
enum Days {
    Listed(Vec<Day>),
    /// A blob's own day, and those that it was extended to.
    From(BlobId),
    All,
}

impl ShredPermit {
    /// Whether the keys of `customer` for `day` are among what may be destroyed.
    #[must_use]
    pub fn covers(&self, customer: CustomerId, day: Day) -> bool {
        match &self.scope {
            Scope::Expired { until } => day <= *until,
            Scope::Ordered { customer: whose, days, .. } => {
                *whose == customer
                    && match days {
                        Days::Listed(days) => days.binary_search(&day).is_ok(),
                        Days::From(blob) => blob.day() <= day,
                        Days::All => true,
                    }
            }
        }
    }

    /// Whether all keys of `customer` may be destroyed, those that have no day too.
    #[must_use]
    pub fn covers_all(&self, customer: CustomerId) -> bool {
        matches!(&self.scope, Scope::Ordered { customer: whose, days: Days::All, .. } if *whose == customer)
    }

    /// The order that it goes back to; without one, the days are over.
    #[must_use]
    pub const fn order(&self) -> Option<OrderId> {
        match &self.scope {
            Scope::Expired { .. } => None,
            Scope::Ordered { order, .. } => Some(*order),
        }
    }

    /// Whether this blob of `customer` is what two people ordered to be destroyed.
    #[must_use]
    pub fn destroys(&self, customer: CustomerId, blob: BlobId) -> bool {
        matches!(&self.scope, Scope::Ordered { customer: whose, days: Days::From(of), .. }
            if *whose == customer && *of == blob)
    }

    /// Whether it is for one blob only, whose neighbours have to be made safe.
    #[must_use]
    pub const fn is_for_one_blob(&self) -> bool {
        matches!(&self.scope, Scope::Ordered { days: Days::From(_), .. })
    }

    /// The lower bound of the time when it was made: windows are counted from it.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        self.at
    }
}

/// The day is not over.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the day is not over in UTC")]
pub struct NotYet;

/// The order is not about destroying keys of days.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the order does not ask for a destruction of keys")]
pub struct NotDestruction;

/// A permit for all keys of `day` and of the days before it.
///
/// # Errors
/// [`NotYet`] unless the whole UTC day is over by the lower bound of the time.
pub fn permit_expiry(day: Day, time: &TrustedTime) -> Result<ShredPermit, NotYet> {
    let at = time.at();
    if day < at.day() { Ok(ShredPermit { at, scope: Scope::Expired { until: day } }) } else { Err(NotYet) }
}

/// A permit for what an order asks to destroy. For a blob, that is the keys of its
/// day and of later ones: which of them wrap it, and that its neighbours are safe,
/// is not known here.
///
/// # Errors
/// [`NotDestruction`] if the order asks for something else.
pub fn permit_ordered(order: &ApprovedOrder, time: &TrustedTime) -> Result<ShredPermit, NotDestruction> {
    let days = match order.kind() {
        OrderKind::DestroyDays { days } => Days::Listed(days.clone()),
        OrderKind::DestroyBlob { blob } => Days::From(*blob),
        OrderKind::Offboard { .. } => Days::All,
        _ => return Err(NotDestruction),
    };
    let customer = order.customer().ok_or(NotDestruction)?;
    let scope = Scope::Ordered { order: order.id(), customer, days };
    Ok(ShredPermit { at: time.at(), scope })
}

#[cfg(test)]
mod tests {
    use super::super::clock::trusted_at;
    use super::*;
    use crate::order::ReturnTo;
    use crate::order::testing::{CUSTOMER, approved, noon};

    static_assertions::assert_not_impl_any!(ShredPermit: Clone, Copy, Default);

    fn day(text: &str) -> Day {
        text.parse().unwrap()
    }

    const OTHER: CustomerId = CustomerId::from_bytes([99; 16]);

    #[test]
    fn a_day_is_over_when_the_next_one_has_begun() {
        let at = |text: &str| trusted_at(text.parse().unwrap());
        let last = day("2028-02-29");
        assert_eq!(permit_expiry(last, &at("2028-02-29T23:59:59.999999Z")).err(), Some(NotYet));
        let permit = permit_expiry(last, &at("2028-03-01T00:00:00.000000Z")).unwrap();
        assert!(permit.covers(CUSTOMER, last) && permit.covers(OTHER, day("2020-01-01")));
        assert!(!permit.covers(CUSTOMER, day("2028-03-01")));
        assert_eq!(permit.order(), None);
        assert_eq!(permit.at().to_string(), "2028-03-01T00:00:00.000000Z");
    }

    #[test]
    fn an_order_covers_what_it_names() {
        let listed = vec![day("2028-02-29"), day("2028-03-02")];
        let order = approved(OrderKind::DestroyDays { days: listed });
        let permit = permit_ordered(&order, &trusted_at(noon())).unwrap();
        assert!(permit.covers(CUSTOMER, day("2028-02-29")));
        assert!(!permit.covers(CUSTOMER, day("2028-03-01")), "between two that are named");
        assert!(!permit.covers(OTHER, day("2028-02-29")), "another customer's");
        assert_eq!(permit.order(), Some(order.id()));
        assert!(!permit.covers_all(CUSTOMER));

        let blob = BlobId::new(day("2028-02-29"), [1; 13]).unwrap();
        let permit = permit_ordered(&approved(OrderKind::DestroyBlob { blob }), &trusted_at(noon())).unwrap();
        assert!(permit.covers(CUSTOMER, day("2028-02-29")) && permit.covers(CUSTOMER, day("2030-01-01")));
        assert!(permit.destroys(CUSTOMER, blob) && !permit.destroys(OTHER, blob));
        assert!(!permit.covers(CUSTOMER, day("2028-02-28")) && !permit.covers(OTHER, day("2028-02-29")));

        let permit = permit_ordered(
            &approved(OrderKind::Offboard { return_to: ReturnTo::Nothing }),
            &trusted_at(noon()),
        )
        .unwrap();
        assert!(permit.covers(CUSTOMER, day("2020-01-01")) && !permit.covers(OTHER, day("2020-01-01")));
        assert!(permit.covers_all(CUSTOMER) && !permit.covers_all(OTHER));
    }

    #[test]
    fn an_order_of_something_else_permits_no_destruction() {
        let at = "2028-03-01T00:00:00.000000Z".parse().unwrap();
        for kind in [
            OrderKind::SetClock { at },
            OrderKind::ShortenRetention { period: "P1D".parse().unwrap() },
            OrderKind::ReleaseHold { hold: crate::id::HoldId::from_bytes([1; 16]) },
        ] {
            assert_eq!(permit_ordered(&approved(kind), &trusted_at(noon())).err(), Some(NotDestruction));
        }
    }
}
