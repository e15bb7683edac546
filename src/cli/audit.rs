//! `audit`: reading the log, in this store or by its audit storage alone.

use std::collections::BTreeMap;

use super::args::{Audit, OfLog, PublicKeyText, Tail, Which, Whose};
use super::backend::Place;
use super::failure::Failure;
use super::output::{Column, Output, seconds, table};
use super::{Answer, Backend, Store, audit_only, publish};
use crate::audit::log::LogReader;
use crate::audit::operation::{Operation, OperationLine, Paired, Pairing};
use crate::audit::query::{Cursor, Filter};
use crate::config::Config;
use crate::error::Error;
use crate::id::{CustomerId, Label};

mod export;
mod proof;
mod query;
mod verify;
mod view;

/// What customers are called.
type Labels = BTreeMap<CustomerId, Label>;

/// Whether the audit storage is all that a command needs.
pub(super) fn needs_no_backend(command: &Audit, output: Output) -> bool {
    match command {
        // People are shown labels.
        Audit::Tail(_) => output.json,
        Audit::View(_) | Audit::Publish { .. } | Audit::Maintain => false,
        Audit::Query(command) => !command.which.has_label(),
        Audit::Export(command) => !command.which.has_label(),
        Audit::Verify(_)
        | Audit::Checkpoint(_)
        | Audit::Proof(_)
        | Audit::CheckProof(_)
        | Audit::CheckView(_) => true,
    }
}

/// Such a command.
pub(super) async fn run_alone(config: &Config, command: Audit, output: Output) -> Answer {
    let open = async |log: &OfLog| audit_only::open(config, log.key.as_ref(), output).await;
    match command {
        Audit::Tail(command) => json_tail(&open(&command.log).await?, command.lines).await,
        Audit::Query(command) => {
            let filter = command.which.filter_of_id();
            let (found, next) = query::read(&open(&command.log).await?, &filter, &command).await?;
            Ok(query::page(&found, next, &Labels::new(), output))
        }
        Audit::Export(command) => {
            let filter = command.which.filter_of_id();
            export::run(&open(&command.log).await?, &filter, &command, output).await
        }
        Audit::Proof(command) => proof::make(&open(&command.log).await?, &command).await,
        Audit::CheckProof(command) => proof::check(&command, output),
        Audit::CheckView(command) => view::check_file(&command, output),
        Audit::Verify(command) => verify::verify(config, &command, output).await,
        Audit::Checkpoint(command) => verify::checkpoint(config, &command, output).await,
        // In the store.
        Audit::View(_) | Audit::Publish { .. } | Audit::Maintain => Ok(String::new()),
    }
}

/// One that needs more, or that a daemon is asked.
pub(super) async fn run(backend: &Backend, command: Audit) -> Answer {
    match command {
        Audit::Tail(command) => tail(backend, &command).await,
        Audit::Publish { restore } => publish::publish(backend.store()?, restore).await,
        Audit::Maintain => publish::maintain(backend.store()?).await,
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
            let reader = reader(backend.store()?, command.log.key.as_ref())?;
            let filter = filter(backend, &command.which).await?;
            export::run(&reader, &filter, &command, backend.output).await
        }
        Audit::View(command) => view::make(backend, &command).await,
        // Done without a backend.
        Audit::Verify(_)
        | Audit::Checkpoint(_)
        | Audit::Proof(_)
        | Audit::CheckProof(_)
        | Audit::CheckView(_) => Ok(String::new()),
    }
}

impl Which {
    fn has_label(&self) -> bool {
        matches!(self.customer, Some(Whose::Label(_)))
    }

    fn filter_of_id(&self) -> Filter {
        self.filter(match self.customer {
            Some(Whose::Id(id)) => Some(id),
            _ => None,
        })
    }
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
    let (store, authority) = (opened.room.store_id(), opened.room.log().authority());
    if let Some(key) = key {
        audit_only::check_name(key, store)?;
        audit_only::check_key(key.public(), authority)?;
    }
    Ok(LogReader::open(opened.storages.audit.clone(), store, authority, audit_only::LIMIT))
}

async fn filter(backend: &Backend, which: &Which) -> Result<Filter, Failure> {
    Ok(match &which.customer {
        Some(whose) => which.filter(Some(customer(backend, whose).await?)),
        None => which.filter_of_id(),
    })
}

/// Who is meant.
pub(super) async fn customer(backend: &Backend, whose: &Whose) -> Result<CustomerId, Failure> {
    match whose {
        Whose::Id(id) => Ok(*id),
        Whose::Label(label) => Ok(backend.customer(label).await?.id()),
    }
}

/// The log has ids. Who may read rings sees labels, and anyone else the ids.
async fn labels(backend: &Backend, operations: &[OperationLine]) -> Labels {
    match backend.output.json {
        true => Labels::new(),
        false => backend.labels(operations.iter().filter_map(|operation| operation.customer).collect()).await,
    }
}

async fn tail(backend: &Backend, command: &Tail) -> Answer {
    let reader = reader(backend.store()?, command.log.key.as_ref())?;
    let newest = newest(&reader, command.lines).await.map_err(|error| backend.explain(error))?;
    let newest: Vec<OperationLine> = newest.iter().map(OperationLine::from).collect();
    let labels = labels(backend, &newest).await;
    Ok(operations_table(&newest, &labels))
}

async fn json_tail(reader: &LogReader, count: usize) -> Answer {
    let lines = reader.newest(count).await?.into_iter().map(|entry| {
        let line = serde_json::to_string(&entry.record).expect("a record is ids and numbers");
        format!("{line}\n")
    });
    Ok(lines.collect())
}

/// The newest `count` operations, oldest first.
async fn newest(reader: &LogReader, count: usize) -> Result<Vec<Operation>, Error> {
    let mut window = count.saturating_mul(2).saturating_add(100);
    loop {
        let entries = reader.newest(window).await?;
        let all = entries.len() < window;
        let mut pairing = Pairing::default();
        let mut operations: Vec<Operation> = Vec::new();
        for entry in entries {
            // An outcome whose intent lies further back belongs to an operation
            // that is not shown, and what the log says of itself is nobody's.
            if let Paired::Operation(operation) = pairing.push(entry) {
                operations.push(*operation);
            }
        }
        operations.extend(pairing.finish());
        operations.sort_by_key(Cursor::at);
        if operations.len() >= count || all {
            return Ok(operations.split_off(operations.len().saturating_sub(count)));
        }
        window = window.saturating_mul(2);
    }
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
