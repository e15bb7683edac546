//! `emergency declare`, `list`, `review` and `fold`.
//!
//! One is declared at the daemon that is to read, by a person whom it knows. What is read in it names
//! it with `--emergency`, and needs nothing of what is here. Folding is for a directory that no
//! daemon has.

use std::path::PathBuf;

use serde_json::json;

use super::args::{self, EmergencyDeclare, EmergencyList, EmergencyReview};
use super::backend::{Place, Store};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Column, Output, line, seconds, table};
use super::{Answer, Backend};
use crate::json::Emergency;

/// The sink that a command takes. One that is not there is not made: that there is nothing in
/// it would be no answer to whoever mistyped it.
pub(super) fn directory(command: &args::Emergency) -> Result<Option<PathBuf>, Failure> {
    match command.directory() {
        Some(directory) if !directory.is_dir() => {
            Err(Failure::new(Exit::NoInput, "not-found", "there is no such directory"))
        }
        directory => Ok(directory.cloned()),
    }
}

pub(super) async fn run(backend: &Backend, command: args::Emergency) -> Answer {
    match command {
        args::Emergency::Declare(command) => declare(backend, command).await,
        args::Emergency::List(command) => list(backend, command).await,
        args::Emergency::Review(command) => review(backend, command).await,
        args::Emergency::Fold(_) => fold(backend.store()?).await,
    }
}

/// The id, as what is read takes it, and beside it until when it stands.
async fn declare(backend: &Backend, command: EmergencyDeclare) -> Answer {
    let customer = backend.customer(&command.customer.customer).await?.id();
    let declared = backend.declare_emergency(customer, command.term.0).await;
    let declared = declared.map_err(|error| backend.explain(error))?;
    if backend.output.json {
        return Ok(line(&json!(declared)));
    }
    let until = seconds(declared.until);
    backend.output.note(&format!(
        "it stands until {until}: read there with --emergency. All of it is recorded, and somebody else reviews it"
    ));
    Ok(format!("{}\n", declared.emergency))
}

async fn list(backend: &Backend, command: EmergencyList) -> Answer {
    let customer = match (&command.customer, &backend.place) {
        (Some(whose), _) => Some(backend.customer_id(whose).await?),
        (None, Place::Store(_)) => None,
        (None, Place::Daemon(_)) => {
            return Err(Failure::usage("a daemon lists the emergencies of one customer")
                .hint("name it with --customer"));
        }
    };
    let found = backend.emergencies(customer).await;
    let mut found = found.map_err(|error| backend.explain(error))?;
    found.retain(|emergency| !command.unreviewed || emergency.reviewed_by.is_none());
    Ok(told(backend.output, &found))
}

async fn review(backend: &Backend, command: EmergencyReview) -> Answer {
    let customer = backend.customer(&command.customer.customer).await?.id();
    let reviewed = backend.review_emergency(customer, command.which).await;
    Ok(told(backend.output, &[reviewed.map_err(|error| backend.explain(error))?]))
}

async fn fold(store: &Store) -> Answer {
    let folded = store.room.fold_emergencies(&store.access).await;
    let mut text = String::new();
    for (emergency, folded) in folded.map_err(|error| store.explain(error))? {
        // What is folded already is in the log, whatever becomes of the next.
        let folded = folded.map_err(|error| store.explain(error))?;
        text += &match (store.output.json, folded.done) {
            (true, done) => line(&json!({ "emergency": emergency, "written": folded.written, "done": done })),
            (false, true) => format!("{emergency}  {} written, all is in the log\n", folded.written),
            (false, false) => format!("{emergency}  {} written, it is not over\n", folded.written),
        };
    }
    match text.is_empty() && !store.output.json {
        true => Ok("there is nothing to fold\n".to_owned()),
        false => Ok(text),
    }
}

fn told(output: Output, emergencies: &[Emergency]) -> String {
    if output.json {
        return emergencies.iter().map(|emergency| line(&json!(emergency))).collect();
    }
    let rows = emergencies.iter().map(|emergency| {
        let reviewed = match (&emergency.reviewed_by, emergency.folded) {
            (Some(by), _) => by.to_string(),
            (None, true) => "nobody".to_owned(),
            (None, false) => "not folded".to_owned(),
        };
        let (from, until) = (seconds(emergency.from), seconds(emergency.until));
        let whose = emergency.customer.to_string();
        vec![
            emergency.emergency.to_string(),
            emergency.by.to_string(),
            whose,
            from,
            until,
            emergency.uses.to_string(),
            reviewed,
        ]
    });
    let columns = ["EMERGENCY", "BY", "CUSTOMER", "FROM", "UNTIL"].map(|name| (name, Column::Whole));
    let more = [("USES", Column::Number), ("REVIEWED BY", Column::Whole)];
    table(&[&columns[..], &more].concat(), rows)
}
