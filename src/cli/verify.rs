//! `verify`.

use std::collections::BTreeSet;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::args::Verify;
use super::backend::{Customer, Place, Store};
use super::failure::{Failure, session_refusal};
use super::list::{end, is_final, worse};
use super::output::seconds;
use super::{Answer, Backend};
use crate::drill::{Checked, Drill, DrillOptions, DrillState};
use crate::error::{Error, ErrorKind};
use crate::id::{BlobId, CustomerId};
use crate::restore::source::Source;

pub(super) async fn run(backend: &Backend, command: Verify) -> Answer {
    let customer = match &command.customer {
        Some(whose) => Some(backend.customer(whose).await?),
        None => None,
    };
    match customer {
        Some(customer) if !command.all => some(backend, &customer, command).await,
        customer => match &backend.place {
            Place::Store(store) => {
                all(backend, store, customer.map(|customer| customer.id()), &command).await
            }
            Place::Daemon(_) => at_daemon(backend, customer, &command).await,
        },
    }
}

/// Failures as they come, and the one to end with.
#[derive(Default)]
struct Failures {
    worst: Option<Failure>,
    count: u64,
}

impl Failures {
    /// The line of a blob, as text and as JSON.
    fn line(&mut self, backend: &Backend, blob: BlobId, result: Result<u64, Error>) -> (String, Value) {
        match result {
            Ok(bytes) => {
                (format!("{blob}  ok  {bytes} bytes\n"), json!({ "blob": blob, "ok": true, "bytes": bytes }))
            }
            Err(error) => {
                let failure = backend.explain(error);
                let shown = (
                    format!("{blob}  FAILED  {}\n", failure.message()),
                    json!({ "blob": blob, "ok": false, "error": failure.to_json() }),
                );
                self.count += 1;
                self.worst = worse(self.worst.take(), failure);
                shown
            }
        }
    }

    /// The same of one of all: what was destroyed is none.
    fn checked(&mut self, backend: &Backend, customer: CustomerId, checked: Checked) -> (String, Value) {
        let Checked { blob, result, destroyed } = checked;
        let (text, mut value) = match (destroyed, result) {
            (true, Err(error)) => {
                let certificate = error.certificate();
                let by = certificate.map_or_else(String::new, |id| format!(", certificate {id}"));
                let value =
                    json!({ "blob": blob, "ok": false, "destroyed": true, "certificate": certificate });
                (format!("{blob}  destroyed{by}\n"), value)
            }
            (_, result) => self.line(backend, blob, result),
        };
        value["customer"] = customer.to_string().into();
        (text, value)
    }

    fn end(self) -> Answer {
        end(self.worst, self.count, "did not verify")
    }
}

fn print(backend: &Backend, (text, value): &(String, Value)) -> Result<(), Failure> {
    if backend.output.json { backend.output.print_json(value) } else { backend.output.print(text) }
}

/// Blobs that were named.
async fn some(backend: &Backend, customer: &Customer, command: Verify) -> Answer {
    let customer = command.name.as_ref().map_or_else(|| customer.clone(), |name| customer.only_named(name));
    let explain = |error| backend.explain(error);
    let blobs = match &command.name {
        Some(name) => customer.find(name).await.map_err(explain)?,
        None => command.blobs.clone(),
    };
    // What was named by its id must be there; a name may have no blob behind it.
    let named = !command.blobs.is_empty();
    let customer = &customer;
    let mut checked = stream::iter(blobs)
        .map(|blob| async move { Ok::<_, Error>((blob, customer.verify(blob).await)) })
        .buffered(command.jobs);
    let (mut failures, mut seen) = (Failures::default(), false);
    while let Some((blob, result)) = checked.try_next().await.map_err(explain)? {
        match result {
            Err(error) if error.kind() == ErrorKind::NotFound && !named => continue,
            Err(error) if is_final(&error) => return Err(explain(error)),
            result => {
                print(backend, &failures.line(backend, blob, result))?;
                seen = true;
            }
        }
    }
    if !seen {
        return Err(explain(Error::new(ErrorKind::NotFound, "there is no blob of this name")));
    }
    failures.end()
}

/// All of a customer's, or of everybody's, that there has to be by what a daemon says of the log.
async fn at_daemon(backend: &Backend, customer: Option<Customer>, command: &Verify) -> Answer {
    if command.report.is_some() {
        return Err(Failure::usage(
            "a dated result is written where the store is: leave --report or --daemon out",
        ));
    }
    let explain = |error| backend.explain(error);
    let alone = customer.is_some();
    let customers = match customer {
        Some(customer) => vec![customer],
        None => backend.every_customer().await.map_err(explain)?,
    };
    let mut failures = Failures::default();
    for customer in &customers {
        let Customer::Daemon(customer) = customer else { continue };
        let all = match customer.inventoried().await {
            Err(error) if !alone && session_refusal(&error).is_some() => {
                backend.output.note(&takes_a_session(customer.id()));
                continue;
            }
            all => all.map_err(explain)?,
        };
        let mut checked = stream::iter(all.inventory().await.map_err(explain)?)
            .map(|(blob, standing)| async move { (blob, standing, customer.verify(blob).await) })
            .buffered(command.jobs);
        while let Some((blob, standing, result)) = checked.next().await {
            let destroyed = match &result {
                // It is not there, and does not have to be.
                Err(error) if error.kind() == ErrorKind::NotFound && !standing.has_to_open() => continue,
                Err(error) => all.is_destroyed((blob, standing), error).await,
                Ok(_) => false,
            };
            match result {
                Err(error) if is_final(&error) => return Err(explain(error)),
                Err(error) if !destroyed && all.is_final(&error).await => return Err(explain(error)),
                result => {
                    let checked = Checked { blob, result, destroyed };
                    print(backend, &failures.checked(backend, customer.id(), checked))?;
                }
            }
        }
    }
    failures.end()
}

/// All of a customer's, or of everybody's.
async fn all(backend: &Backend, store: &Store, customer: Option<CustomerId>, command: &Verify) -> Answer {
    let only = customer.map(|customer| BTreeSet::from([customer]));
    let options = DrillOptions { only, jobs: command.jobs };
    let (mut failures, mut unprinted) = (Failures::default(), None);
    let told = |customer: CustomerId, checked: Checked| {
        print(backend, &failures.checked(backend, customer, checked)).map_err(|failure| {
            unprinted = Some(failure);
            Error::new(ErrorKind::Io, "standard output cannot be written")
        })
    };
    let drill = store.room.drill(&backend.access, &options, told).await;
    let drill = match (drill, unprinted) {
        (_, Some(failure)) => return Err(failure),
        (drill, None) => drill.map_err(|error| backend.explain(error))?,
    };
    if let Some(path) = &command.report {
        report(path, &drill.text())?;
    }
    left_out(backend, &drill, customer.is_some())?;
    if customer.is_none() {
        backend.output.note(&summary(&drill));
    }
    for (customer, kind) in unread(&drill) {
        let message = format!("the blobs of customer {customer} could not be found out");
        backend.output.note(&format!("{message} ({kind})"));
        failures.worst = worse(failures.worst.take(), backend.explain(Error::new(kind, message)));
        failures.count += 1;
    }
    failures.end()
}

/// Writes a dated result.
pub(super) fn report(path: &Path, text: &str) -> Result<(), Failure> {
    crate::durable::write(path, text.as_bytes())
        .map_err(|error| Failure::output("the report cannot be written", &error))
}

/// Of a customer that is left out.
fn takes_a_session(customer: CustomerId) -> String {
    format!("customer {customer} was not checked: its keys are in its own hand, and that takes a session")
}

/// Who was not checked is told, and is an error if nobody else was asked for.
fn left_out(backend: &Backend, drill: &Drill, alone: bool) -> Result<(), Failure> {
    for customer in drill.customers.iter().filter(|drill| drill.state == DrillState::NoSession) {
        let message = takes_a_session(customer.customer);
        if alone {
            return Err(backend.explain(Error::new(ErrorKind::Denied, message)));
        }
        backend.output.note(&message);
    }
    Ok(())
}

fn summary(drill: &Drill) -> String {
    let (total, log) = (&drill.total, &drill.log);
    format!(
        "{}: {} blobs of {} customers verified, {} bytes; {} failed; the log has {} records",
        seconds(drill.finished),
        total.blobs,
        drill.customers.len(),
        total.bytes,
        total.failed(),
        log.size
    )
}

/// The customers whose failure is of no one blob.
fn unread(drill: &Drill) -> impl Iterator<Item = (CustomerId, ErrorKind)> {
    drill.customers.iter().filter_map(|drill| Some((drill.customer, drill.unread?)))
}
