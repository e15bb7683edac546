//! Orders of two people, at a daemon.
//!
//! A personal key signs here and never leaves. So what comes to be signed is held against what
//! was asked for: a daemon that drafts another order gets no signature under it.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use super::ask::Question;
use super::{Client, nonsense};
use crate::access::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CustomerId, OrderId};
use crate::json::{self, Executed, Plain};
use crate::order::{Order, OrderKind, SignedOrder};
use crate::shred::OrderStatus;
use crate::tlog::NamedKey;

#[derive(Deserialize)]
struct Orders {
    orders: Vec<Kept>,
}

#[derive(Deserialize)]
struct Kept {
    order: OrderId,
    state: Plain,
    /// `None` of a daemon from before there was any.
    progress: Option<Plain>,
    note: String,
}

#[derive(Deserialize)]
struct Asked {
    order: OrderId,
}

impl Client {
    /// An order to be signed by its requester: the one that was asked for, or none.
    pub(crate) async fn draft_order(
        &self,
        what: OrderKind,
        customer: Option<CustomerId>,
        requester: Principal,
        validity: Duration,
    ) -> Result<Order> {
        let body = json!({
            "what": what, "customer": customer, "requested_by": requester, "valid_seconds": validity.as_secs(),
        });
        let text = self.text(&Question::look("/v1/orders/draft", &body)).await?;
        let order = Order::parse(&text).map_err(|_| nonsense())?;
        if (&order.what, order.customer, &order.requested_by) != (&what, customer, &requester) {
            let sentence =
                "the daemon drafted another order than the one that was asked for: it was not signed";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        Ok(order)
    }

    /// Hands in an order that its requester signed.
    pub(crate) async fn request_order(&self, signed: &SignedOrder) -> Result<OrderId> {
        let Asked { order } = self.json(&Question::note("/v1/orders", signed.note().to_string())).await?;
        if order == signed.order().id { Ok(order) } else { Err(nonsense()) }
    }

    /// Hands in an order under which two signatures are, and has it done.
    pub(crate) async fn submit_approved(&self, signed: &SignedOrder) -> Result<Executed> {
        let path = format!("/v1/orders/{}/approval", signed.order().id);
        self.json(&Question::note(path, signed.note().to_string())).await
    }

    /// Signs an order as its approver, and has it done.
    pub(crate) async fn approve_order(&self, id: OrderId, key: &NamedKey) -> Result<Executed> {
        let note = self.text(&Question::get(format!("/v1/orders/{id}"))).await?;
        let mut signed = SignedOrder::parse(note.as_bytes()).map_err(|_| nonsense())?;
        if signed.order().id != id {
            let sentence = "the daemon gave another order than the one that was named: it was not signed";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        // Where somebody was first, what they approved is done, if it was not.
        if signed.note().signatures().len() < 2 {
            signed.approve(key)?;
        }
        self.submit_approved(&signed).await
    }

    pub(crate) async fn orders(&self) -> Result<Vec<OrderStatus>> {
        let Orders { orders } = self.json(&Question::get("/v1/orders")).await?;
        let read = |kept: Kept| {
            let signed = SignedOrder::parse(kept.note.as_bytes()).map_err(|_| nonsense())?;
            let progress = kept.progress.as_ref().map(ToString::to_string);
            let state = json::read_order_state(&kept.state.to_string(), progress.as_deref());
            let state = state.ok_or_else(nonsense)?;
            if signed.order().id == kept.order { Ok(OrderStatus { signed, state }) } else { Err(nonsense()) }
        };
        orders.into_iter().map(read).collect()
    }
}
