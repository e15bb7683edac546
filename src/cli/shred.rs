//! `shred plan`, `run` and `cancel`; `status` is beside it, and what takes two people is
//! an [`order`](super::order).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::args::{self, CancelShred, PlanShred, RequestShred, RunShred};
use super::failure::Failure;
use super::output::{Column, Output, line, seconds, table};
use super::{Answer, Session, order};
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, Label};
use crate::json;
use crate::ring::EntryKind;
use crate::shred::{CustomerPlan, KeyPlan, Remains, Swept};

mod status;

pub(super) async fn run(session: &Session, command: args::Shred) -> Answer {
    match command {
        args::Shred::Plan(command) => plan(session, command).await,
        args::Shred::Run(command) => sweep(session, &command).await,
        args::Shred::Status(command) => status::run(session, command.customer.as_ref()).await,
        args::Shred::Cancel(command) => cancel(session, command).await,
        args::Shred::Request(RequestShred { what, key, valid }) => {
            let signer = order::Signer::load(&key.file)?;
            let wanted = order::destroying(session, what).await?;
            order::request(session, &signer, valid.valid, wanted).await
        }
        args::Shred::Approve(command) => order::approve(session, &command).await,
    }
}

/// What people call the customers, as far as it can be had: what is done does not
/// depend on it.
pub(super) struct Labels(BTreeMap<CustomerId, Label>);

impl Labels {
    pub(super) async fn of(session: &Session) -> Self {
        let infos = session.room.customers(&session.access).await.unwrap_or_default();
        Self(infos.into_iter().map(|info| (info.id, info.label)).collect())
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

/// The customer of a label, or all.
async fn chosen(session: &Session, label: Option<&Label>) -> Result<BTreeSet<CustomerId>, Failure> {
    if let Some(label) = label {
        return Ok(BTreeSet::from([session.customer(label).await?.id()]));
    }
    // One whose ring cannot be read is to be told of, and to stop no other.
    session.room.customer_ids().await.map_err(|error| session.explain(error))
}

/// The end of a command on several customers of which some failed: with the first.
fn end(failed: Vec<Failure>) -> Answer {
    let count = failed.len();
    match failed.into_iter().next() {
        None => Ok(String::new()),
        Some(first) => Err(first.about(&format!("customers that failed: {count}, the first"))),
    }
}

/// The day of a key, or what else it is for.
fn day(of: EntryKind) -> String {
    let (kind, day) = json::kind(of);
    day.map_or_else(|| kind.to_owned(), |day| day.to_string())
}

async fn plan(session: &Session, command: PlanShred) -> Answer {
    let time =
        session.room.destruction_time(&session.access).await.map_err(|error| session.explain(error))?;
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    for customer in chosen(session, command.customer.as_ref()).await? {
        match session.room.plan_customer(&session.access, customer, &time).await {
            Ok(plan) if session.output.json => {
                for key in &plan.keys {
                    session.output.print_json(&json::key_plan(&plan, key))?;
                }
            }
            Ok(plan) => rows.extend(plan.keys.iter().map(|key| plan_row(&plan, key))),
            Err(error) => failed.push(told(session, customer, error)?),
        }
    }
    if !session.output.json {
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
        session.output.print(&table(&columns, rows))?;
    }
    end(failed)
}

/// Tells that a customer failed, while the others go on.
fn told(session: &Session, customer: CustomerId, error: Error) -> Result<Failure, Failure> {
    let failure = session.explain(error);
    if session.output.json {
        session.output.print_json(&json!({ "customer": customer, "error": failure.to_json() }))?;
    } else {
        session.output.note(&format!("customer {customer} failed: {}", failure.message()));
    }
    Ok(failure)
}

fn plan_row(plan: &CustomerPlan, key: &KeyPlan) -> Vec<String> {
    vec![
        plan.label.to_string(),
        day(key.kind),
        key.key.to_string(),
        key.scope.shredded.len().to_string(),
        key.scope.uncertain.len().to_string(),
        key.scope.surviving.len().to_string(),
        key.scope.bytes.to_string(),
        json::why(key),
    ]
}

async fn sweep(session: &Session, command: &RunShred) -> Answer {
    let explain = |error| session.explain(error);
    let sweep = session.room.sweep(&session.access).await.map_err(explain)?;
    let labels = Labels::of(session).await;
    let (count, mut rows, mut removed, mut failed) =
        (sweep.customers.len(), Vec::new(), Vec::new(), Vec::new());
    for (customer, swept) in sweep.customers {
        let swept = match swept {
            Ok(swept) => swept,
            Err(error) => {
                failed.push(told(session, customer, error)?);
                continue;
            }
        };
        let remains = match command.delete_ciphertext {
            true => Some(session.room.remove_remains(&session.access, customer).await),
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
        if session.output.json {
            session.output.print_json(&swept_json((customer, &labels), &swept, remains.as_ref()))?;
        } else {
            rows.extend((!is_idle(&swept)).then(|| swept_row(labels.name(customer), &swept)));
            removed.extend(
                remains
                    .filter(|remains| !remains.days.is_empty())
                    .map(|remains| removed_row(labels.name(customer), &remains)),
            );
        }
        if let Some(error) = error {
            failed.push(told(session, customer, error)?);
        }
    }
    if !session.output.json {
        session.output.print(&swept_text(rows, removed))?;
        session.output.note(&format!("customers: {count}; by the time {}", seconds(sweep.time.at())));
    }
    end(failed)
}

fn is_idle(swept: &Swept) -> bool {
    let keys = [&swept.pended, &swept.dropped, &swept.held, &swept.waiting];
    keys.iter().all(|keys| keys.is_empty()) && swept.certificates.is_empty()
}

fn swept_row(name: String, swept: &Swept) -> Vec<String> {
    let certificates = swept.certificates.iter().map(|(id, stage)| format!("{id} ({})", stage.as_str()));
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
    let certificates: Vec<Value> = (swept.certificates.iter())
        .map(|(id, stage)| json!({ "certificate": id, "stage": stage.as_str() }))
        .collect();
    let mut value = json!({
        "customer": customer,
        "label": labels.0.get(&customer).map(Label::as_str),
        "pended": swept.pended,
        "dropped": swept.dropped,
        "held": swept.held,
        "waiting": swept.waiting,
        "certificates": certificates,
    });
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

async fn cancel(session: &Session, command: CancelShred) -> Answer {
    let customer = session.customer(&command.customer.customer).await?.id();
    let explain = |error| session.explain(error);
    let mut keys = BTreeSet::from_iter(command.keys);
    if !command.days.is_empty() {
        let status = status::of_one(session, customer).await?;
        let named = |kind| matches!(kind, EntryKind::Day(day) if command.days.contains(&day));
        keys.extend(status.window.iter().filter(|key| named(key.kind)).map(|key| key.key));
        if keys.is_empty() {
            let message = "there is no key of such a day in the window";
            return Err(Failure::from(Error::new(ErrorKind::NotFound, message))
                .hint("`strongroom shred status` shows what is in the window"));
        }
    }
    let ring = session.room.cancel_shred(&session.access, customer, &keys).await.map_err(explain)?;
    Ok(cancelled(session.output, customer, ring.version, &keys))
}

fn cancelled(
    output: Output,
    customer: CustomerId,
    version: u64,
    keys: &BTreeSet<crate::id::KekId>,
) -> String {
    if output.json {
        return line(&json!({ "customer": customer, "ring_version": version, "cancelled": keys }));
    }
    keys.iter().map(|key| format!("{key}  out of the window\n")).collect()
}
