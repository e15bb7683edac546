//! `epoch status`, `rotate` and `finish`.
//!
//! `finish` is the one command that ends KMS keys, and the only place where what ends
//! them is made ([`LocalKeys::destroyers`](super::keys::LocalKeys::destroyers)): no open
//! store holds it.

use serde_json::{Value, json};

use super::args::{Epoch, FinishEpochs, RotateEpoch};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Column, line, pairs, seconds, table};
use super::{Answer, Backend, Store};
use crate::error::ErrorKind;
use crate::json::{Epochs, LeftBehind, Rotated, heads, kms};
use crate::room::KeyChoice;
use crate::shred::epoch::{EpochStep, FinishOptions, StepTaken};

pub(super) async fn run(backend: &Backend, command: Epoch) -> Answer {
    match command {
        Epoch::Status => status(backend).await,
        Epoch::Rotate(command) => rotate(backend, command).await,
        Epoch::Finish(command) => finish(backend.store()?, &command).await,
    }
}

async fn status(backend: &Backend) -> Answer {
    let Epochs { epochs, unreadable } = backend.epochs().await.map_err(|error| backend.explain(error))?;
    if backend.output.json {
        return Ok(line(&json!({ "epochs": epochs, "unreadable": unreadable })));
    }
    let columns = ["EPOCH", "STATE", "SINCE", "KMS SAYS", "RINGS", "NEXT", "NOT BEFORE", "KMS KEY"];
    let columns = columns.map(|name| (name, if name == "RINGS" { Column::Number } else { Column::Whole }));
    let rows = epochs.iter().map(|epoch| {
        vec![
            epoch.epoch.to_string(),
            epoch.state.to_string(),
            seconds(epoch.since),
            epoch.kms.to_string(),
            epoch.rings.to_string(),
            epoch.next.to_string(),
            epoch.not_before.map_or_else(|| "-".to_owned(), seconds),
            epoch.kms_key.to_string(),
        ]
    });
    Ok(table(&columns, rows) + &left(&unreadable))
}

async fn rotate(backend: &Backend, command: RotateEpoch) -> Answer {
    let explain = |error| backend.explain(error);
    let choice = match command.kms {
        Some(choice) => choice,
        None => KeyChoice::New(backend.epoch_provider().await.map_err(explain)?),
    };
    let rotated = backend.rotate_epoch(choice).await.map_err(explain)?;
    let Rotated { epoch, kms_key, reissued, retired, left_behind, vain, .. } = &rotated;
    let text = if backend.output.json {
        line(&json!(rotated))
    } else {
        let comes = match retired.is_empty() && !left_behind.is_empty() {
            true => "`epoch rotate` again, when those left behind can be read",
            false => "`epoch finish`, with the destroyer's credentials",
        };
        let mut rows = vec![
            ("epoch", epoch.to_string()),
            ("KMS key", kms_key.to_string()),
            ("rings moved", reissued.to_string()),
            ("retired", retired.iter().map(|epoch| format!("epoch {epoch}")).collect::<Vec<_>>().join(", ")),
            ("next", comes.to_owned()),
        ];
        if let Some(vain) = vain {
            rows.push(("made in vain", format!("{vain}; another node's was taken, delete it by hand")));
        }
        pairs(rows.into_iter().map(|(name, value)| (name.to_owned(), value))) + &left(left_behind)
    };
    if left_behind.is_empty() {
        return Ok(text);
    }
    backend.output.print(&text)?;
    let message = format!("{} left behind: no epoch was retired", count(left_behind.len()));
    Err(Failure::new(Exit::Temporary, ErrorKind::Conflict.as_str(), message)
        .hint("see to what is named, then run `strongroom epoch rotate` again"))
}

async fn finish(backend: &Store, command: &FinishEpochs) -> Answer {
    let options = FinishOptions { watch: command.watch.0, days: command.days };
    let destroyers = backend.keys.destroyers();
    let steps = backend.room.finish_epochs(&backend.access, &destroyers, options).await;
    let steps = steps.map_err(|error| backend.explain(error))?;
    let mut failure = None;
    let mut text = String::new();
    let mut objects = Vec::new();
    for EpochStep { epoch, kms_key, result, .. } in steps {
        let mut object = json!({ "epoch": epoch, "kms_key": kms_key });
        match result {
            Ok(taken) => {
                text.push_str(&format!("epoch {epoch}: {}\n", sentence(&taken)));
                if let StepTaken::LeftBehind { heads, .. } = &taken {
                    text.push_str(&left(&heads.iter().map(LeftBehind::from).collect::<Vec<_>>()));
                }
                into(&mut object, &taken);
                failure = failure.or_else(|| refused(&taken));
            }
            Err(error) => {
                let failed = backend.explain(error);
                text.push_str(&format!("epoch {epoch}: {}\n", failed.message()));
                object["error"] = failed.to_json();
                failure = failure.or(Some(failed.about("an epoch was not ended")));
            }
        }
        objects.push(object);
    }
    if backend.output.json {
        text = line(&json!({ "epochs": objects }));
    } else if text.is_empty() {
        text.push_str("no epoch is retired; `strongroom epoch rotate` begins a new one and retires this\n");
    }
    let Some(failure) = failure else { return Ok(text) };
    backend.output.print(&text)?;
    Err(failure)
}

/// A step that a person has to see to.
fn refused(taken: &StepTaken) -> Option<Failure> {
    match taken {
        StepTaken::LeftBehind { .. } => {
            let message = "an epoch was not ended, because something needs it or cannot be read";
            Some(
                Failure::new(Exit::Temporary, ErrorKind::Conflict.as_str(), message)
                    .hint("run `strongroom epoch rotate`, which moves what was left behind"),
            )
        }
        StepTaken::Unexpected { .. } => {
            let message = "an epoch's KMS key is in a state that was not asked for";
            Some(
                Failure::new(Exit::Denied, ErrorKind::Denied.as_str(), message)
                    .hint("find out who changed it, in the KMS's own log"),
            )
        }
        _ => None,
    }
}

fn sentence(taken: &StepTaken) -> String {
    match taken {
        StepTaken::Disabled { watched_until } => {
            format!("disabled; its deletion can be scheduled after {}", seconds(*watched_until))
        }
        StepTaken::Scheduled { due } => format!("its KMS key will be deleted at {}", seconds(*due)),
        StepTaken::Gone => "its KMS key is gone; whatever copy was under it is dead".to_owned(),
        StepTaken::Waits { until } => format!("nothing to do before {}", seconds(*until)),
        StepTaken::LeftBehind { enabled: true, .. } => {
            "its KMS key was enabled again, because something is under it still".to_owned()
        }
        StepTaken::LeftBehind { .. } => "not ended".to_owned(),
        StepTaken::Unexpected { kms: says, begins_anew: true } => {
            format!("the KMS says {}, which was not asked for; its end begins anew", kms(*says))
        }
        StepTaken::Unexpected { kms: says, .. } => {
            format!("the KMS says {}, which was not asked for", kms(*says))
        }
    }
}

fn into(object: &mut Value, taken: &StepTaken) {
    let (step, at) = match taken {
        StepTaken::Disabled { watched_until } => ("disabled", Some(watched_until)),
        StepTaken::Scheduled { due } => ("scheduled", Some(due)),
        StepTaken::Gone => ("gone", None),
        StepTaken::Waits { until } => ("waits", Some(until)),
        StepTaken::LeftBehind { heads: left, enabled } => {
            object["left_behind"] = heads(left);
            object["enabled"] = (*enabled).into();
            ("left-behind", None)
        }
        StepTaken::Unexpected { kms: says, begins_anew } => {
            object["kms"] = kms(*says).into();
            object["begins_anew"] = (*begins_anew).into();
            ("unexpected", None)
        }
    };
    object["step"] = step.into();
    object["not_before"] = json!(at);
}

fn left(left: &[LeftBehind]) -> String {
    left.iter().map(|left| format!("left behind: {left}\n")).collect()
}

fn count(heads: usize) -> String {
    if heads == 1 { "1 ring is".to_owned() } else { format!("{heads} rings are") }
}
