//! How many connections each peer has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Who takes up places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    V4(Ipv4Addr),
    /// The first 64 bits: who has one address of such a network has them all (RFC 4291 s2.5.1).
    V6([u16; 4]),
    User(u32),
}

impl Holder {
    pub(super) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// The places of one socket.
#[derive(Clone)]
pub(super) struct Places {
    each: usize,
    taken: Arc<Mutex<HashMap<Holder, usize>>>,
}

impl Places {
    /// `each` for each peer.
    pub(super) fn new(each: usize) -> Self {
        Self { each, taken: Arc::default() }
    }

    /// Takes a place, until it is dropped. `None` where all of the peer's are taken.
    pub(super) fn take(&self, holder: Holder) -> Option<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(holder).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        Some(Place { holder, taken: Arc::clone(&self.taken) })
    }
}

/// A place that is taken.
pub(super) struct Place {
    holder: Holder,
    taken: Arc<Mutex<HashMap<Holder, usize>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Holder {
        Holder::at(address.parse().unwrap())
    }

    #[test]
    fn each_peer_has_its_own_places_and_gives_them_back() {
        let places = Places::new(2);
        let first = places.take(at("192.0.2.1")).unwrap();
        let _second = places.take(at("192.0.2.1")).unwrap();
        assert!(places.take(at("192.0.2.1")).is_none());
        assert!(places.take(at("192.0.2.2")).is_some());
        assert!(places.take(Holder::User(0)).is_some());
        drop(first);
        let third = places.take(at("192.0.2.1"));
        assert!(third.is_some() && places.take(at("192.0.2.1")).is_none());
    }

    #[test]
    fn nothing_is_kept_of_who_has_gone() {
        let places = Places::new(1);
        drop(places.take(at("192.0.2.1")));
        assert!(places.taken.lock().unwrap().is_empty());
        assert!(Places::new(0).take(at("192.0.2.1")).is_none());
    }

    #[test]
    fn a_peer_is_an_address_or_a_network() {
        assert_eq!(at("2001:db8:0:1::1"), at("2001:db8:0:1:ffff::"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8:0:2::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
