//! `hold place`, `list` and `release`.

use serde_json::json;

use super::args::{self, PlaceHold, ReleaseHold};
use super::backend::Customer;
use super::failure::Failure;
use super::output::{Column, line, seconds, table};
use super::{Answer, Backend, get, order};
use crate::error::{Error, ErrorKind};
use crate::id::HoldId;
use crate::json::Hold;
use crate::shred::HoldTarget;

pub(super) async fn run(backend: &Backend, command: args::Hold) -> Answer {
    match command {
        args::Hold::Place(command) => place(backend, command).await,
        args::Hold::List(of) => {
            let holds = backend.customer(&of.customer).await?.holds().await;
            Ok(list(backend, &holds.map_err(|error| backend.explain(error))?))
        }
        args::Hold::Release(command) => release(backend, command).await,
    }
}

async fn place(backend: &Backend, command: PlaceHold) -> Answer {
    let customer = backend.customer(&command.customer.customer).await?;
    let explain = |error| backend.explain(error);
    let (blob, named) = match &command.name {
        Some(name) => {
            let blob = get::newest(&customer, name).await.map_err(explain)?;
            (Some(blob), customer.only_named(name))
        }
        None => (command.blob, customer),
    };
    let target = match (blob, command.day) {
        (Some(blob), _) => HoldTarget::Blob(blob),
        (None, Some(day)) => HoldTarget::Day(day),
        (None, None) => HoldTarget::Customer,
    };
    let placed = named.place_hold(target).await.map_err(explain)?;
    if backend.output.json {
        return Ok(line(&json!(placed)));
    }
    Ok(format!("{}  {} {}\n", placed.hold, scope(&placed), placed.state))
}

async fn release(backend: &Backend, command: ReleaseHold) -> Answer {
    let signer = order::Signer::load(&command.key.file)?;
    let customer = backend.customer(&command.which.customer.customer).await?;
    let what = releasing(backend, &customer, command.which.hold).await?;
    order::request(backend, &signer, command.valid.valid, what).await
}

/// What an order asks for that releases a hold. That the hold stands is looked at now:
/// nobody has to sign for one that does not.
pub(super) async fn releasing(
    backend: &Backend,
    customer: &Customer,
    id: HoldId,
) -> Result<order::Wanted, Failure> {
    let holds = customer.holds().await.map_err(|error| backend.explain(error))?;
    match holds.iter().find(|hold| hold.hold == id) {
        Some(hold) if hold.is_live() => {
            Ok((crate::order::OrderKind::ReleaseHold { hold: id }, Some(customer.id())))
        }
        Some(_) => Err(Error::new(ErrorKind::Denied, "the hold was released already").into()),
        None => Err(Failure::from(Error::new(ErrorKind::NotFound, "the customer has no such hold"))
            .hint("`strongroom hold list` shows all")),
    }
}

/// What it is on.
pub(super) fn scope(hold: &Hold) -> String {
    match (hold.day, hold.blob) {
        (Some(day), _) => day.to_string(),
        (None, Some(blob)) => blob.to_string(),
        (None, None) => "all".to_owned(),
    }
}

fn list(backend: &Backend, holds: &[Hold]) -> String {
    if backend.output.json {
        return holds.iter().map(|hold| line(&json!(hold))).collect();
    }
    let rows = holds.iter().map(|hold| {
        let released_by = hold.released_by.map_or_else(|| "-".to_owned(), |order| order.to_string());
        vec![hold.hold.to_string(), scope(hold), seconds(hold.placed), hold.state.to_string(), released_by]
    });
    table(&["HOLD", "ON", "PLACED", "STATE", "RELEASED BY ORDER"].map(|name| (name, Column::Whole)), rows)
}
