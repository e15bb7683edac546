//! `emergency list`, `review` and `fold`: what is done after an emergency.
//!
//! Nobody declares one here: that is asked of the daemon that is to read, by a person whom
//! it knows.

use std::path::PathBuf;

use serde_json::json;

use super::Answer;
use super::args::{self, EmergencyList, EmergencyReview};
use super::backend::Store;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Column, line, seconds, table};
use crate::json as shown;
use crate::room::Emergency;

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

pub(super) async fn run(store: &Store, command: args::Emergency) -> Answer {
    match command {
        args::Emergency::List(command) => list(store, command).await,
        args::Emergency::Review(command) => review(store, command).await,
        args::Emergency::Fold(_) => fold(store).await,
    }
}

async fn list(store: &Store, command: EmergencyList) -> Answer {
    let customer = match &command.customer {
        Some(label) => Some(store.customer(label).await?.id()),
        None => None,
    };
    let found = store.room.emergencies(&store.access, customer).await;
    let mut found = found.map_err(|error| store.explain(error))?;
    found.retain(|emergency| !command.unreviewed || emergency.review.is_none());
    Ok(told(store, &found))
}

async fn review(store: &Store, command: EmergencyReview) -> Answer {
    let customer = store.customer(&command.customer.customer).await?.id();
    let reviewed = store.room.review_emergency(&store.access, customer, command.emergency).await;
    Ok(told(store, &[reviewed.map_err(|error| store.explain(error))?]))
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

fn told(store: &Store, emergencies: &[Emergency]) -> String {
    if store.output.json {
        return emergencies.iter().map(|emergency| line(&shown::emergency(emergency))).collect();
    }
    let rows = emergencies.iter().map(|emergency| {
        let reviewed = match (&emergency.review, emergency.folded) {
            (Some(review), _) => review.by.to_string(),
            (None, true) => "nobody".to_owned(),
            (None, false) => "not folded".to_owned(),
        };
        let (from, until) = (seconds(emergency.from), seconds(emergency.until));
        let whose = emergency.customer.to_string();
        vec![
            emergency.id.to_string(),
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
