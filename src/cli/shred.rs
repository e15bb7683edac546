//! `shred plan`, `run` and `cancel`; `status` is beside it, and what takes two people is
//! an [`order`](super::order).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::args::{self, CancelShred, PlanShred, RequestShred, RunShred};
use super::backend::no_customer;
use super::failure::Failure;
use super::output::{Column, line, seconds, table};
use super::{Answer, Backend, order};
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, CustomerRef, Label};
use crate::json::{KeyPlan, Swept};
use crate::shred::{OrderStatus, Remains};
use crate::time::Day;

mod status;

pub(super) async fn run(backend: &Backend, command: args::Shred) -> Answer {
    match command {
        args::Shred::Plan(command) => plan(backend, command).await,
        args::Shred::Run(command) => sweep(backend, &command).await,
        args::Shred::Status(command) => status::run(backend, command.customer.as_ref()).await,
        args::Shred::Cancel(command) => cancel(backend, command).await,
        args::Shred::Request(RequestShred { what, key, valid }) => {
            let signer = order::Signer::load(&key.file)?;
            let wanted = order::destroying(backend, what).await?;
            order::request(backend, &signer, valid.valid, wanted).await
        }
        args::Shred::Approve(command) => order::approve(backend, &command).await,
    }
}

/// What people call the customers, as far as it can be had: what is done does not
/// depend on it.
pub(super) struct Labels(BTreeMap<CustomerId, Label>);

impl Labels {
    pub(super) async fn of(backend: &Backend) -> Self {
        let infos = backend.customers().await.unwrap_or_default();
        Self(infos.into_iter().map(|info| (info.customer, info.label)).collect())
    }

    /// Of those whom these orders are about.
    pub(super) async fn of_orders(backend: &Backend, orders: &[OrderStatus]) -> Self {
        let of = orders.iter().filter_map(|status| status.signed.order().customer);
        Self(backend.labels(of.collect()).await)
    }

    /// The label, or else the id.
    pub(super) fn name(&self, customer: CustomerId) -> String {
        self.0.get(&customer).map_or_else(|| customer.to_string(), ToString::to_string)
    }

    /// The label and the id.
    pub(super) fn in_full(&self, customer: CustomerId) -> String {
        match self.0.get(&customer) {
            Some(label) => format!("{label} ({customer})"),
            None => customer.to_string(),
        }
    }
}

/// The customer that is named, or all.
async fn chosen(backend: &Backend, whose: Option<&CustomerRef>) -> Result<BTreeSet<CustomerId>, Failure> {
    if let Some(whose) = whose {
        return Ok(BTreeSet::from([backend.customer_id(whose).await?]));
    }
    // One whose ring cannot be read is to be told of, and to stop no other.
    backend.customer_ids().await.map_err(|error| backend.explain(error))
}

/// The end of a command on several customers of which some failed: with the first.
fn end(failed: Vec<Failure>) -> Answer {
    let count = failed.len();
    match failed.into_iter().next() {
        None => Ok(String::new()),
        Some(first) => Err(first.about(&format!("customers that failed: {count}, the first"))),
    }
}

async fn plan(backend: &Backend, command: PlanShred) -> Answer {
    let time = backend.destruction_time().await.map_err(|error| backend.explain(error))?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for customer in chosen(backend, command.customer.as_ref()).await? {
        match backend.shred_plan(customer, time.as_ref()).await {
            Ok(keys) if backend.output.json => {
                for key in &keys {
                    backend.output.print_json(&json!(key))?;
                }
            }
            Ok(keys) => rows.extend(keys.iter().map(plan_row)),
            Err(error) => failed.push(told(backend, customer, command.customer.is_some(), error)?),
        }
    }
    if !backend.output.json {
        let columns = [
            ("CUSTOMER", Column::Whole),
            ("DAY", Column::Whole),
            ("KEY", Column::Whole),
            ("BLOBS", Column::Number),
            ("UNCERTAIN", Column::Number),
            ("SURVIVING", Column::Number),
            ("BYTES", Column::Number),
            ("WHAT AND WHY", Column::Cut),
        ];
        backend.output.print(&table(&columns, rows))?;
    }
    end(failed)
}

/// Tells that a customer failed, while the others go on. One that was named and is unknown ends it.
fn told(backend: &Backend, customer: CustomerId, named: bool, error: Error) -> Result<Failure, Failure> {
    if named && error.kind() == ErrorKind::NotFound {
        return Err(no_customer(error, |error| backend.explain(error)));
    }
    let failure = backend.explain(error);
    if backend.output.json {
        backend.output.print_json(&json!({ "customer": customer, "error": failure.to_json() }))?;
    } else {
        backend.output.note(&format!("customer {customer} failed: {}", failure.message()));
    }
    Ok(failure)
}

fn plan_row(key: &KeyPlan) -> Vec<String> {
    vec![
        key.label.to_string(),
        key.of.to_string(),
        key.key.to_string(),
        key.blobs.to_string(),
        key.uncertain.to_string(),
        key.surviving.to_string(),
        key.bytes.to_string(),
        key.why.to_string(),
    ]
}

async fn sweep(backend: &Backend, command: &RunShred) -> Answer {
    let explain = |error| backend.explain(error);
    let (time, customers) = backend.sweep().await.map_err(explain)?;
    let labels = Labels::of(backend).await;
    let (count, mut rows, mut removed, mut failed) = (customers.len(), Vec::new(), Vec::new(), Vec::new());
    for (customer, swept) in customers {
        let swept = match swept {
            Ok(swept) => swept,
            Err(error) => {
                failed.push(told(backend, customer, false, error)?);
                continue;
            }
        };
        let remains = match command.delete_ciphertext {
            true => {
                let store = backend.store()?;
                Some(store.room.remove_remains(&backend.access, customer).await)
            }
            false => None,
        };
        let (remains, error) = match remains {
            Some(Ok(remains)) => {
                let refused = remains.complete().err();
                (Some(remains), refused)
            }
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        if backend.output.json {
            backend.output.print_json(&swept_json((customer, &labels), &swept, remains.as_ref()))?;
        } else {
            rows.extend((!is_idle(&swept)).then(|| swept_row(labels.name(customer), &swept)));
            removed.extend(
                remains
                    .filter(|remains| !remains.days.is_empty())
                    .map(|remains| removed_row(labels.name(customer), &remains)),
            );
        }
        if let Some(error) = error {
            failed.push(told(backend, customer, false, error)?);
        }
    }
    if !backend.output.json {
        backend.output.print(&swept_text(rows, removed))?;
        backend.output.note(&format!("customers: {count}; by the time {}", seconds(time)));
    }
    end(failed)
}

fn is_idle(swept: &Swept) -> bool {
    let keys = [&swept.pended, &swept.dropped, &swept.held, &swept.waiting];
    keys.iter().all(|keys| keys.is_empty()) && swept.certificates.is_empty()
}

fn swept_row(name: String, swept: &Swept) -> Vec<String> {
    let certificates = swept.certificates.iter();
    let certificates = certificates.map(|made| format!("{} ({})", made.certificate, made.stage.as_str()));
    let certificates = certificates.collect::<Vec<_>>().join(", ");
    let mut row = vec![name];
    row.extend(
        [&swept.pended, &swept.dropped, &swept.held, &swept.waiting].map(|keys| keys.len().to_string()),
    );
    row.push(if certificates.is_empty() { "-".to_owned() } else { certificates });
    row
}

fn removed_row(name: String, Remains { days, purged }: &Remains) -> Vec<String> {
    let numbers = [purged.objects, purged.versions, purged.bytes, purged.failed.total()];
    let mut row = vec![name, days.len().to_string()];
    row.extend(numbers.map(|number| number.to_string()));
    row
}

fn swept_text(rows: Vec<Vec<String>>, removed: Vec<Vec<String>>) -> String {
    let columns = [
        ("CUSTOMER", Column::Whole),
        ("PENDED", Column::Number),
        ("DROPPED", Column::Number),
        ("HELD", Column::Number),
        ("WAITING", Column::Number),
        ("CERTIFICATES", Column::Whole),
    ];
    let mut text = if rows.is_empty() { "nothing was due\n".to_owned() } else { table(&columns, rows) };
    if !removed.is_empty() {
        let columns = [
            ("REMOVED OF", Column::Whole),
            ("DAYS", Column::Number),
            ("OBJECTS", Column::Number),
            ("VERSIONS", Column::Number),
            ("BYTES", Column::Number),
            ("REFUSED", Column::Number),
        ];
        text.push_str(&table(&columns, removed));
    }
    text
}

fn swept_json((customer, labels): (CustomerId, &Labels), swept: &Swept, remains: Option<&Remains>) -> Value {
    let mut value = json!(swept);
    value["customer"] = json!(customer);
    value["label"] = json!(labels.0.get(&customer).map(Label::as_str));
    if let Some(Remains { days, purged }) = remains {
        value["removed"] = json!({
            "days": days,
            "objects": purged.objects,
            "versions": purged.versions,
            "delete_markers": purged.delete_markers,
            "bytes": purged.bytes,
            "locked": purged.failed.locked,
            "denied": purged.failed.denied,
        });
    }
    value
}

async fn cancel(backend: &Backend, command: CancelShred) -> Answer {
    let customer = backend.customer_id(&command.customer.customer).await?;
    let explain = |error| backend.explain(error);
    let mut keys = BTreeSet::from_iter(command.keys);
    if !command.days.is_empty() {
        let status = status::of_one(backend, customer).await?;
        let named = |day: Option<Day>| day.is_some_and(|day| command.days.contains(&day));
        keys.extend(status.window.iter().filter(|key| named(key.of.day)).map(|key| key.key));
        if keys.is_empty() {
            let message = "there is no key of such a day in the window";
            return Err(Failure::from(Error::new(ErrorKind::NotFound, message))
                .hint("`strongroom shred status` shows what is in the window"));
        }
    }
    let cancelled = backend.cancel_shred(customer, &keys).await.map_err(explain)?;
    if backend.output.json {
        return Ok(line(&json!(cancelled)));
    }
    let told = |key| match cancelled.still_in_window.get(key) {
        Some(order) => format!("{key}  taken back; it stays in the window by order {order}\n"),
        None => format!("{key}  out of the window\n"),
    };
    Ok(keys.iter().map(told).collect())
}
