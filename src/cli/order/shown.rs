//! Orders as people and programs read them.

use serde_json::json;

use super::super::args::ShowOrder;
use super::super::failure::Failure;
use super::super::output::{Column, line, pairs, seconds, table};
use super::super::shred::Labels;
use super::super::{Answer, Backend};
use crate::error::{Error, ErrorKind};
use crate::json::{self, Person};
use crate::order::{OrderKind, ReturnTo};
use crate::shred::{OrderState, OrderStatus};
use crate::tlog::VerifierKey;

/// All orders, those that expire first at the top.
pub(super) async fn list(backend: &Backend) -> Answer {
    let mut orders = backend.orders().await.map_err(|error| backend.explain(error))?;
    orders.sort_by_key(|order| order.signed.order().expires);
    if backend.output.json {
        return Ok(orders.iter().map(|order| line(&json::order(order))).collect());
    }
    Ok(rows(&orders, &Labels::of_orders(backend, &orders).await))
}

/// A table of orders.
pub(in crate::cli) fn rows(orders: &[OrderStatus], labels: &Labels) -> String {
    let rows = orders.iter().map(|status| {
        let order = status.signed.order();
        vec![
            order.id.to_string(),
            state(status.state),
            seconds(order.expires),
            order.requested_by.to_string(),
            order.customer.map_or_else(|| "-".to_owned(), |customer| labels.name(customer)),
            sentence(&order.what),
        ]
    });
    let columns = [
        ("ORDER", Column::Whole),
        ("STATE", Column::Whole),
        ("UNTIL", Column::Whole),
        ("ASKED BY", Column::Whole),
        ("CUSTOMER", Column::Whole),
        ("ASKS TO", Column::Cut),
    ];
    table(&columns, rows)
}

pub(super) async fn show(backend: &Backend, command: &ShowOrder) -> Answer {
    let explain = |error| backend.explain(error);
    let orders = backend.orders().await.map_err(explain)?;
    let found = orders.into_iter().find(|order| order.signed.order().id == command.id);
    let missing = || {
        Failure::from(Error::new(ErrorKind::NotFound, "there is no such order"))
            .hint("`strongroom order list` shows all")
    };
    let status = found.ok_or_else(missing)?;
    if command.note {
        return Ok(status.signed.note().to_string());
    }
    let people = backend.people().await.map_err(explain)?;
    let signatures = signatures(&status, &people);
    if backend.output.json {
        let mut value = json::order(&status);
        value["signatures"] = signatures
            .iter()
            .map(|(by, standing)| json!({ "by": by, "standing": standing.as_str() }))
            .collect();
        return Ok(line(&value));
    }
    let order = status.signed.order();
    let mut told = vec![
        ("order", order.id.to_string()),
        ("state", state(status.state)),
        ("asks to", sentence(&order.what)),
    ];
    if let Some(customer) = order.customer {
        let labels = Labels::of_orders(backend, std::slice::from_ref(&status)).await;
        told.push(("customer", labels.in_full(customer)));
    }
    if let Some(ring) = order.ring {
        let hash = data_encoding::HEXLOWER.encode(&ring.sha256);
        told.push(("ring seen", format!("version {}, SHA-256 {hash}", ring.version)));
    }
    told.push(("asked by", format!("{} at {}", order.requested_by, seconds(order.requested_at))));
    told.push(("in force", format!("{} to {}", seconds(order.not_before), seconds(order.expires))));
    for (by, standing) in signatures {
        told.push(("signed by", format!("{by} ({})", standing.sentence())));
    }
    if status.state == OrderState::Requested {
        told.push(("approve it", format!("strongroom order approve {} --sign-with FILE", order.id)));
    }
    Ok(pairs(told.into_iter().map(|(name, value)| (name.to_owned(), value))))
}

/// How far an order has come, for people.
fn state(state: OrderState) -> String {
    json::progress(state).replace('-', " ")
}

/// What a signature is worth.
#[derive(Clone, Copy)]
enum Standing {
    Good,
    Left,
    Stranger,
    False,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Left => "left",
            Self::Stranger => "unknown",
            Self::False => "false",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Good => "a registered person",
            Self::Left => "a person who has left",
            Self::Stranger => "NOT REGISTERED",
            Self::False => "FALSE",
        }
    }
}

/// Who signed, by the names of the signatures, held against the store's people.
fn signatures(status: &OrderStatus, people: &[Person]) -> Vec<(String, Standing)> {
    let note = status.signed.note();
    let standing = |name: &str, id| {
        let known = people.iter().find(|person| (person.key.name().as_str(), person.key.id()) == (name, id));
        let Some(person) = known else { return Standing::Stranger };
        match (note.verified_by(&person.key), person.until) {
            (Ok(Some(_)), None) => Standing::Good,
            (Ok(Some(_)), Some(_)) => Standing::Left,
            _ => Standing::False,
        }
    };
    let signatures = note.signatures().iter();
    signatures
        .map(|signature| {
            let name = signature.name().as_str();
            (name.to_owned(), standing(name, signature.id()))
        })
        .collect()
}

/// What an order asks for, behind "to".
pub(super) fn sentence(what: &OrderKind) -> String {
    let list = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(", ");
    match what {
        OrderKind::DestroyDays { days } => {
            format!("destroy what is kept until {}", list(&mut days.iter().map(ToString::to_string)))
        }
        OrderKind::DestroyBlob { blob } => format!("destroy the blob {blob}"),
        OrderKind::Offboard { return_to: ReturnTo::Plaintext } => {
            "return all decrypted, and destroy it".into()
        }
        OrderKind::Offboard { return_to: ReturnTo::Resealed } => "return all resealed, and destroy it".into(),
        OrderKind::Offboard { return_to: ReturnTo::Nothing } => "destroy all, returning nothing".into(),
        OrderKind::ReleaseHold { hold } => format!("release the hold {hold}"),
        OrderKind::ShortenRetention { period } => format!("shorten retention to {period}"),
        OrderKind::SetClock { at } => format!("set the clock to {at}"),
        OrderKind::RotateLogKey { key } => format!("replace the audit log's signing key by {key}"),
        OrderKind::SetPeople { add, remove } => {
            let added = add.iter().map(|person| format!("add {}", VerifierKey::from(person.clone())));
            let removed = remove.iter().map(|person| format!("remove {person}"));
            list(&mut added.chain(removed))
        }
    }
}
