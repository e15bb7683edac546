//! `audit`: reading the log, in this store or by its audit storage alone.

use std::collections::BTreeMap;

use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use super::args::{Audit, OfLog, PublicKeyText, Tail, Which};
use super::backend::Place;
use super::failure::Failure;
use super::output::{Column, Output, seconds, table};
use super::{Answer, Backend, Store, audit_only, publish};
use crate::audit::Record;
use crate::audit::log::LogReader;
use crate::audit::operation::OperationLine;
use crate::audit::query::{Filter, newest, operations};
use crate::client::NEWEST;
use crate::config::Config;
use crate::id::{CustomerId, CustomerRef, Label, StoreId};

mod export;
mod keys;
mod proof;
mod query;
mod verify;
mod view;

/// Operations on their way to an export, each with the store whose it is.
type Operations = BoxStream<'static, crate::error::Result<(StoreId, OperationLine)>>;

/// What customers are called.
type Labels = BTreeMap<CustomerId, Label>;

/// Whether the audit storage is all that a command needs.
pub(super) fn needs_no_backend(command: &Audit, output: Output) -> bool {
    match command {
        // People are shown labels.
        Audit::Tail(_) => output.json,
        Audit::View(_)
        | Audit::Publish { .. }
        | Audit::Maintain
        | Audit::ConfirmTime(_)
        | Audit::Remove(_)
        | Audit::RotateKey(_) => false,
        Audit::Query(command) => !is_label(command.which.customer.as_ref()),
        Audit::Export(command) => !is_label(command.which.customer.as_ref()),
        Audit::Proof(command) => !is_label(command.customer.as_ref()),
        Audit::Verify(_)
        | Audit::Checkpoint(_)
        | Audit::CheckProof(_)
        | Audit::CheckView(_)
        | Audit::Keys(_)
        | Audit::NewKey(_) => true,
    }
}

/// Such a command.
pub(super) async fn run_alone(config: &Config, command: Audit, output: Output) -> Answer {
    let open = async |log: &OfLog| audit_only::open(config, log.key.as_ref(), output).await;
    match command {
        Audit::Tail(command) => json_tail(&open(&command.log).await?, command.lines).await,
        Audit::Query(command) => {
            let reader = open(&command.log).await?;
            let filter = command.which.filter(known(&reader, command.which.customer.as_ref()).await?);
            let (found, next) = query::read(&reader, &filter, &command).await?;
            Ok(query::page(&found, next, &Labels::new(), output))
        }
        Audit::Export(command) => {
            let reader = open(&command.log).await?;
            let filter = command.which.filter(known(&reader, command.which.customer.as_ref()).await?);
            export::run(of_log(&reader, &filter), &command, output).await
        }
        Audit::Proof(command) => {
            let reader = open(&command.log).await?;
            let customer = known(&reader, command.customer.as_ref()).await?;
            proof::make(&reader, customer, &command).await
        }
        Audit::CheckProof(command) => proof::check(&command, output),
        Audit::CheckView(command) => view::check_file(&command, output),
        Audit::Verify(command) => verify::verify(config, &command, output).await,
        Audit::Checkpoint(command) => verify::checkpoint(config, &command, output).await,
        Audit::Keys(command) => keys::show(&open(&command.log).await?, &command, output),
        Audit::NewKey(_) => keys::new_key(config, output).await,
        // In the store.
        Audit::View(_)
        | Audit::Publish { .. }
        | Audit::Maintain
        | Audit::ConfirmTime(_)
        | Audit::Remove(_)
        | Audit::RotateKey(_) => Ok(String::new()),
    }
}

/// One that needs more, or that a daemon is asked.
pub(super) async fn run(backend: &Backend, command: Audit) -> Answer {
    match command {
        Audit::Tail(command) => tail(backend, &command).await,
        Audit::Publish { restore } => publish::publish(backend, restore).await,
        Audit::Maintain => publish::maintain(backend).await,
        Audit::ConfirmTime(command) => publish::confirm_time(backend, command.today).await,
        Audit::Remove(command) => publish::remove(backend, &command).await,
        Audit::Query(command) => {
            let filter = filter(backend, &command.which).await?;
            let (found, next) = match &backend.place {
                Place::Store(store) => {
                    let reader = reader(store, command.log.key.as_ref())?;
                    query::read(&reader, &filter, &command).await?
                }
                Place::Daemon(daemon) => {
                    no_key(&command.log)?;
                    daemon.query(&filter, command.after, command.limit.get()).await?
                }
            };
            let labels = labels(backend, &found).await;
            Ok(query::page(&found, next, &labels, backend.output))
        }
        Audit::Export(command) => {
            let operations = match &backend.place {
                Place::Store(store) => {
                    let reader = reader(store, command.log.key.as_ref())?;
                    of_log(&reader, &filter(backend, &command.which).await?)
                }
                Place::Daemon(daemon) => {
                    no_key(&command.log)?;
                    daemon.operations(filter(backend, &command.which).await?)
                }
            };
            export::run(operations, &command, backend.output).await
        }
        Audit::Proof(command) => {
            let customer = match &command.customer {
                Some(whose) => Some(backend.customer_id(whose).await?),
                None => None,
            };
            match &backend.place {
                Place::Store(store) => {
                    let reader = reader(store, command.log.key.as_ref())?;
                    proof::make(&reader, customer, &command).await
                }
                Place::Daemon(daemon) => proof::ask(daemon, customer, &command).await,
            }
        }
        Audit::View(command) => view::make(backend, &command).await,
        Audit::Checkpoint(command) => match &backend.place {
            Place::Daemon(daemon) => verify::daemons_checkpoint(daemon, &command).await,
            Place::Store(_) => Ok(String::new()),
        },
        Audit::RotateKey(command) => keys::rotate(backend, &command).await,
        // Done without a backend.
        Audit::Verify(_) | Audit::CheckProof(_) | Audit::CheckView(_) | Audit::Keys(_) | Audit::NewKey(_) => {
            Ok(String::new())
        }
    }
}

/// Whether a customer is named by its label, which is in no log: then it takes the store.
pub(super) fn is_label(whose: Option<&CustomerRef>) -> bool {
    matches!(whose, Some(CustomerRef::Label(_)))
}

/// The customer of an id, which the log has to know. A label is never asked about here.
pub(super) async fn known(
    reader: &LogReader,
    whose: Option<&CustomerRef>,
) -> Result<Option<CustomerId>, Failure> {
    match whose {
        Some(CustomerRef::Id(id)) => audit_only::known(reader, *id).await.map(Some),
        Some(CustomerRef::Label(_)) | None => Ok(None),
    }
}

/// The operations of a log that fit, each with the store whose it is.
fn of_log(reader: &LogReader, filter: &Filter) -> Operations {
    let store = reader.store();
    let found = operations(reader, filter, None);
    found.map_ok(move |operation| (store, OperationLine::from(&operation))).boxed()
}

/// Refuses a key to check a daemon's answer with: there is no proof in it.
pub(super) fn no_key(log: &OfLog) -> Result<(), Failure> {
    match log.key {
        None => Ok(()),
        Some(_) => Err(Failure::usage("a daemon answers for its log: --key checks nothing of a list")
            .hint("a certificate is checked with `certificate show ID --key` and `certificate verify`")),
    }
}

/// The log of an open store.
pub(super) fn reader(opened: &Store, key: Option<&PublicKeyText>) -> Result<LogReader, Failure> {
    let (store, authority) = (opened.room.store_id(), opened.room.log().keys());
    if let Some(key) = key {
        audit_only::check_name(key, store)?;
        audit_only::check_key(key.public(), authority)?;
    }
    Ok(LogReader::open(opened.storages.audit.clone(), store, authority, audit_only::LIMIT))
}

async fn filter(backend: &Backend, which: &Which) -> Result<Filter, Failure> {
    Ok(which.filter(match &which.customer {
        Some(whose) => Some(backend.customer_id(whose).await?),
        None => None,
    }))
}

/// The log has ids. Who may read rings sees labels, and anyone else the ids.
async fn labels(backend: &Backend, operations: &[OperationLine]) -> Labels {
    match backend.output.json {
        true => Labels::new(),
        false => backend.labels(operations.iter().filter_map(|operation| operation.customer).collect()).await,
    }
}

async fn tail(backend: &Backend, command: &Tail) -> Answer {
    let newest = match &backend.place {
        Place::Store(store) => {
            let reader = reader(store, command.log.key.as_ref())?;
            let newest = newest(&reader, command.lines).await.map_err(|error| backend.explain(error))?;
            newest.iter().map(OperationLine::from).collect()
        }
        Place::Daemon(daemon) => {
            no_key(&command.log)?;
            match command.lines {
                0 => Vec::new(),
                1..=NEWEST if backend.output.json => {
                    return Ok(json_lines(&daemon.newest_records(command.lines).await?));
                }
                1..=NEWEST => daemon.newest_operations(command.lines).await?,
                _ => {
                    let message = format!("a daemon shows the newest {NEWEST} at most");
                    return Err(Failure::usage(message).hint("`audit query` and `audit export` have all"));
                }
            }
        }
    };
    if backend.output.json {
        return Ok(String::new());
    }
    let labels = labels(backend, &newest).await;
    Ok(operations_table(&newest, &labels))
}

async fn json_tail(reader: &LogReader, count: usize) -> Answer {
    let newest: Vec<Record> = reader.newest(count).await?.into_iter().map(|entry| entry.record).collect();
    Ok(json_lines(&newest))
}

fn json_lines(records: &[Record]) -> String {
    let line = |record: &Record| String::from_utf8(record.to_line()).expect("a record's line is ASCII");
    records.iter().map(|record| line(record) + "\n").collect()
}

/// An operation a row.
fn operations_table(operations: &[OperationLine], labels: &Labels) -> String {
    let rows = operations.iter().map(|operation| {
        let outcome = operation.outcome.as_ref();
        let customer =
            operation.customer.map(|id| labels.get(&id).map_or_else(|| id.to_string(), Label::to_string));
        vec![
            seconds(operation.time),
            operation.principal.to_string(),
            operation.purpose.to_string(),
            operation.action.code().to_owned(),
            customer.unwrap_or_default(),
            operation.blob.map(|blob| blob.to_string()).unwrap_or_default(),
            outcome.map_or("(open)", |outcome| outcome.result.code()).to_owned(),
            outcome.and_then(|outcome| outcome.bytes).map(|bytes| bytes.to_string()).unwrap_or_default(),
        ]
    });
    let whole = ["TIME", "PRINCIPAL", "PURPOSE", "ACTION", "CUSTOMER", "BLOB", "RESULT"];
    let mut columns = whole.map(|name| (name, Column::Whole)).to_vec();
    columns.push(("BYTES", Column::Number));
    table(&columns, rows)
}
