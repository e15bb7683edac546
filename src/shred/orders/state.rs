//! How far an order has come: derived from what stands in its customer's ring, and never
//! noted by itself.

use crate::order::{Order, OrderKind};
use crate::ring::{ClaimState, Ring};

/// How far an order has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrderState {
    /// Asked for, and not approved.
    Requested,
    /// Approved, and nothing of it was done yet.
    Approved,
    /// It owns keys that are in the window, or has closed a customer who has keys left.
    UnderWay,
    /// A hold keeps what it owns. When the hold is released, it goes on, with a whole window.
    Suspended,
    /// Carried out: nothing of it is left to do.
    Done,
    /// It was taken back, and does nothing again.
    Cancelled,
    /// Its time is over, and nothing of it was done.
    Expired,
}

impl OrderState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Requested,
        Self::Approved,
        Self::UnderWay,
        Self::Suspended,
        Self::Done,
        Self::Cancelled,
        Self::Expired,
    ];
}

/// How far an order on a customer has come, if its ring took it up.
pub(super) fn in_ring(ring: &Ring, order: &Order) -> Option<OrderState> {
    ring.orders.binary_search(&order.id).ok()?;
    if let Some(claim) = ring.claim(order.id) {
        return Some(match ring.claim_state(claim) {
            ClaimState::UnderWay => OrderState::UnderWay,
            ClaimState::Suspended => OrderState::Suspended,
            ClaimState::CarriedOut => OrderState::Done,
        });
    }
    let closes = ring.closed == Some(order.id);
    let pends = ring.entries.iter().any(|entry| entry.order() == Some(&order.id));
    let dropped = ring.dropped.iter().any(|gone| gone.order == Some(order.id));
    Some(match order.what {
        OrderKind::Offboard { .. } if closes && ring.entries.is_empty() => OrderState::Done,
        OrderKind::Offboard { .. } if closes && ring.live_holds().next().is_some() => OrderState::Suspended,
        OrderKind::Offboard { .. } if closes => OrderState::UnderWay,
        OrderKind::Offboard { .. } => OrderState::Cancelled,
        // In a ring from before orders owned what they destroy.
        OrderKind::DestroyDays { .. } | OrderKind::DestroyBlob { .. } => match () {
            () if pends => OrderState::UnderWay,
            () if dropped => OrderState::Done,
            () => OrderState::Cancelled,
        },
        _ => OrderState::Done,
    })
}
