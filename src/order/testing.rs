//! Two people and what they sign, for the tests of whatever takes an order.

use super::*;
use crate::retention::clock::trusted_at;
use crate::secret::Secret;
use crate::tlog::SecretKey;

pub(crate) const STORE: StoreId = StoreId::from_bytes([1; 16]);
pub(crate) const CUSTOMER: CustomerId = CustomerId::from_bytes([2; 16]);
pub(crate) const RING: SeenRing = SeenRing { version: 7, sha256: [0xab; 32] };

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// In the middle of the time of [`order`].
pub(crate) fn noon() -> Timestamp {
    at("2026-11-22T12:00:00.000000Z")
}

pub(crate) fn key(name: &str, seed: u8) -> NamedKey {
    let secret = SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]));
    NamedKey::new(name.parse().unwrap(), secret)
}

pub(crate) fn new_person(name: &str, seed: u8) -> NewPerson {
    key(name, seed).verifier().try_into().unwrap()
}

/// The keys of the people of [`people`]: `person:a`, `person:b`, `person:c`.
pub(crate) fn keys() -> [NamedKey; 3] {
    [key("person:a", 1), key("person:b", 2), key("person:c", 3)]
}

pub(crate) fn people() -> People {
    let new = keys().map(|key| NewPerson::try_from(key.verifier()).unwrap());
    People::found(&new, at("2000-01-01T00:00:00.000000Z")).unwrap()
}

/// An order by `person:a`, good on 22 November 2026 from 6 to 18 o'clock; one that sets the
/// clock, for six hours before and after that time.
pub(crate) fn order(id: u8, what: OrderKind) -> Order {
    const SIX_HOURS: u64 = 6 * 3_600_000_000;
    let ids = (OrderId::from_bytes([id; 16]), STORE);
    let (middle, requested_at) = match what {
        OrderKind::SetClock { at } => (at, at),
        _ => (noon(), at("2026-11-22T05:00:00.000000Z")),
    };
    let time = |micros: u64| Timestamp::from_micros(micros).unwrap();
    let within = (time(middle.micros() - SIX_HOURS), time(middle.micros() + SIX_HOURS));
    let concerned = what.concerns_customer();
    let order = Order::new(ids, what, "person:a".parse().unwrap(), requested_at, within);
    if concerned { order.concerning(CUSTOMER, RING) } else { order }
}

/// The same, signed by a and b.
pub(crate) fn signed(order: Order) -> SignedOrder {
    let [a, b, _] = keys();
    let mut signed = order.sign(&a).unwrap();
    signed.approve(&b).unwrap();
    signed
}

/// An approved order, number 9, of this kind.
pub(crate) fn approved(what: OrderKind) -> ApprovedOrder {
    approved_as(9, what)
}

pub(crate) fn approved_as(id: u8, what: OrderKind) -> ApprovedOrder {
    approved_by(OrderId::from_bytes([id; 16]), what)
}

pub(crate) fn approved_by(id: OrderId, what: OrderKind) -> ApprovedOrder {
    let time = match what {
        OrderKind::SetClock { at } => at,
        _ => noon(),
    };
    signed(Order { id, ..order(0, what) }).approved(STORE, &people(), &trusted_at(time)).unwrap()
}
