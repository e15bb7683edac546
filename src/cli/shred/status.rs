//! `shred status`.

use std::collections::BTreeSet;

use serde_json::json;

use super::super::failure::Failure;
use super::super::order::shown;
use super::super::output::{Column, seconds, table};
use super::super::{Answer, Backend, hold};
use super::{Labels, chosen, end, told};
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, CustomerRef};
use crate::json::{self, InWindow, ShredStatus, Unfinished};
use crate::shred::{OrderState, OrderStatus};

pub(super) async fn run(backend: &Backend, whose: Option<&CustomerRef>) -> Answer {
    let explain = |error| backend.explain(error);
    let customers = chosen(backend, whose).await?;
    let found = backend.shred_status(&customers).await.map_err(explain)?;
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for (customer, status) in found {
        match status {
            Ok(status) => all.push(status),
            Err(error) => failed.push(told(backend, customer, whose.is_some(), error)?),
        }
    }
    let mut orders = backend.orders().await.map_err(explain)?;
    orders.retain(|order| is_open(order) && (whose.is_none() || of(order, &customers)));
    if backend.output.json {
        backend.output.print_json(&json!({
            "customers": all,
            "orders": orders.iter().map(json::order).collect::<Vec<_>>(),
        }))?;
        return end(failed);
    }
    let text = [window(&all), unfinished(&all), holds(&all), open(backend, &orders).await].concat();
    backend.output.print(if text.is_empty() { "nothing is under way\n" } else { &text })?;
    end(failed)
}

/// That of one customer.
pub(super) async fn of_one(backend: &Backend, customer: CustomerId) -> Result<ShredStatus, Failure> {
    let explain = |error| backend.explain(error);
    let asked = BTreeSet::from([customer]);
    let found = backend.shred_status(&asked).await.map_err(explain)?;
    let found = found.into_iter().find_map(|(id, status)| (id == customer).then_some(status));
    let missing = || Err(Error::new(ErrorKind::NotFound, "there is no such customer"));
    found.unwrap_or_else(missing).map_err(explain)
}

fn is_open(order: &OrderStatus) -> bool {
    let open = [OrderState::Requested, OrderState::Approved, OrderState::UnderWay, OrderState::Suspended];
    open.contains(&order.state)
}

fn of(order: &OrderStatus, customers: &BTreeSet<CustomerId>) -> bool {
    order.signed.order().customer.is_some_and(|customer| customers.contains(&customer))
}

/// A table with a heading of its own, or nothing for no rows.
fn part<const N: usize>(columns: [&str; N], rows: Vec<Vec<String>>) -> String {
    match rows.is_empty() {
        true => String::new(),
        false => table(&columns.map(|name| (name, Column::Whole)), rows),
    }
}

fn window(all: &[ShredStatus]) -> String {
    let row = |status: &ShredStatus, key: &InWindow| {
        let order = key.order.map_or_else(|| "its time is over".to_owned(), |order| format!("order {order}"));
        let others = key.orders.iter().filter(|other| Some(**other) != key.order).count();
        let others = if others > 0 { format!(", and {others} more") } else { String::new() };
        let held = if key.held { ", and held" } else { "" };
        vec![
            status.label.to_string(),
            key.of.to_string(),
            key.key.to_string(),
            seconds(key.until),
            format!("{order}{others}{held}"),
        ]
    };
    let rows = all.iter().flat_map(|status| status.window.iter().map(move |key| row(status, key)));
    part(["IN THE WINDOW", "DAY", "KEY", "UNTIL", "WHY"], rows.collect())
}

fn unfinished(all: &[ShredStatus]) -> String {
    let row = |status: &ShredStatus, dropped: &Unfinished| {
        let epochs: Vec<String> = dropped.epochs.iter().map(ToString::to_string).collect();
        let waits_for = match epochs.is_empty() {
            true => "the next run".to_owned(),
            false => format!("the end of epoch {}", epochs.join(", ")),
        };
        vec![
            status.label.to_string(),
            dropped.certificate.to_string(),
            dropped.stage.map_or("none yet", |stage| stage.as_str()).to_owned(),
            seconds(dropped.dropped),
            dropped.keys.len().to_string(),
            waits_for,
        ]
    };
    let rows =
        all.iter().flat_map(|status| status.unfinished.iter().map(move |dropped| row(status, dropped)));
    part(["NOT FINAL", "CERTIFICATE", "STAGE", "DROPPED", "KEYS", "WAITS FOR"], rows.collect())
}

fn holds(all: &[ShredStatus]) -> String {
    let rows = all.iter().flat_map(|status| {
        status.holds.iter().map(move |hold| {
            let on = hold::scope(hold);
            vec![status.label.to_string(), hold.hold.to_string(), on, seconds(hold.placed)]
        })
    });
    part(["HELD", "HOLD", "ON", "PLACED"], rows.collect())
}

async fn open(backend: &Backend, orders: &[OrderStatus]) -> String {
    match orders.is_empty() {
        true => String::new(),
        false => shown::rows(orders, &Labels::of_orders(backend, orders).await),
    }
}
