//! `witness`: a second memory of a log, run by whoever does not run the log.
//!
//! Separate from the other commands in that there is no store: a witness needs its
//! key, its state and the public keys of logs.

use std::sync::Arc;

use serde_json::json;
use tokio::net::TcpListener;

use super::args::{OfWitness, Witness, WitnessCosign, WitnessKey, WitnessServe, WitnessShow};
use super::exit::Exit;
use super::failure::Failure;
use super::key_file;
use super::output::{Column, Output, line, seconds, table, to_stderr};
use super::signal::Signals;
use crate::error::{Error, ErrorKind};
use crate::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use crate::system::{SystemClock, SystemEntropy};
use crate::time::Clock;
use crate::tlog::checkpoint::SignedCheckpoint;
use crate::tlog::{NamedKey, SecretKey};
use crate::witness::KnownLogs;
use crate::witness::pull::{Published, observe};
use crate::witness::server::{Event, Server};
use crate::witness::state::{Ledger, log_name, remembered};

const EVIDENCE: &str = "a log has contradicted what it had shown before";
const WHAT_TO_DO: &str = "the .evidence file in the state's directory has both notes, signed by the log: keep a \
     copy elsewhere, do not restart the witness with another state, and call whoever answers for the log";

const WHAT_TO_DO_NOW: &str = "do not retry; copy the published checkpoint and the witness's state to a safe place, \
     as both are signed by the log, and call whoever answers for the log";
const UNPROVEN: &str = "a checkpoint was not shown to continue the one that was cosigned last";
const ASK: &str = "ask the log's operator whether they were refused: if so, the log was rewritten, and if not, a \
     stranger made up a proof; the .unproven file in the state's directory has the first such request";

pub(super) async fn run(command: Witness, output: Output) -> Result<(), Failure> {
    match command {
        Witness::Key(command) => key(&command, output),
        Witness::Serve(command) => serve(command, output).await,
        Witness::Cosign(command) => cosign(command, output).await,
        Witness::Show(command) => show(&command, output),
    }
}

fn key(command: &WitnessKey, output: Output) -> Result<(), Failure> {
    let secret = SecretKey::generate(&SystemEntropy).map_err(Error::from)?;
    let key = NamedKey::new(command.name.clone(), secret);
    key_file::store(&command.key, &key)?;
    let public = key.cosigner();
    output.print(&match output.json {
        true => line(&json!({ "name": key.name().as_str(), "key": public })),
        false => format!("{public}\n"),
    })
}

fn open_state(witness: &OfWitness, key: &NamedKey) -> Result<Ledger, Failure> {
    if witness.new {
        return Ok(Ledger::create(&witness.state, &key.cosigner())?);
    }
    Ledger::open(&witness.state, &key.cosigner()).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::from(error).hint(
            "is the right disk mounted? A new witness begins with --new; one that has lost its state begins \
             anew with another key",
        ),
        _ => error.into(),
    })
}

async fn serve(command: WitnessServe, output: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let key = key_file::load(&command.witness.key)?;
    let logs = KnownLogs::new(command.logs)?;
    let ledger = open_state(&command.witness, &key)?;
    let public = key.cosigner();
    let unusable = |error| Failure::create("the address cannot be listened at", &error);
    let socket = TcpListener::bind(command.listen).await.map_err(unusable)?;
    let address = socket.local_addr().map_err(unusable)?;
    output.print(&match output.json {
        true => line(&json!({ "key": public, "listening": address })),
        false => format!("{public}\nlistening at http://{address}\n"),
    })?;
    let listener = Arc::new(move |event| to_stderr(&report(event, output.json)));
    let server = Server::new(ledger, logs, key, Arc::new(SystemClock), listener);
    server.serve(socket, async { drop(signals.received().await) }).await;
    Ok(())
}

/// What the operator of a witness is told while it runs.
fn report(event: Event, as_json: bool) -> String {
    match event {
        Event::Alarm { origin } if as_json => {
            line(&json!({ "alarm": { "origin": origin, "message": EVIDENCE } }))
        }
        Event::Alarm { origin } => format!("strongroom: ALARM: {origin}: {EVIDENCE}\nhint: {WHAT_TO_DO}\n"),
        Event::Unproven { origin } if as_json => {
            line(&json!({ "unproven": { "origin": origin, "message": UNPROVEN } }))
        }
        Event::Unproven { origin } => format!("strongroom: {origin}: {UNPROVEN}\nhint: {ASK}\n"),
        Event::Fault(error) => Failure::from(error).report(as_json),
    }
}

async fn cosign(command: WitnessCosign, output: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let key = key_file::load(&command.witness.key)?;
    let logs = KnownLogs::new(command.logs)?;
    let ledger = open_state(&command.witness, &key)?;
    let seen = tokio::select! {
        seen = look(&ledger, &logs, &key, &command.from) => seen,
        failure = signals.received() => return Err(failure),
    };
    let note = seen.map_err(|error| match error.kind() {
        ErrorKind::Integrity => Failure::from(error).hint(WHAT_TO_DO_NOW),
        _ => error.into(),
    })?;
    let at = note.cosigned_by(&key.cosigner()).map_err(Error::from)?;
    let (origin, head) = (note.checkpoint().origin(), note.checkpoint().head());
    output.print(&match output.json {
        true => line(&json!({
            "origin": origin, "size": head.size, "root": head.root, "cosigned_at": at,
            "checkpoint": note.to_string(),
        })),
        false => note.to_string(),
    })
}

/// Cosigns what is published at `from`.
async fn look(
    ledger: &Ledger,
    logs: &KnownLogs,
    key: &NamedKey,
    from: &StorageUrl,
) -> Result<SignedCheckpoint, Error> {
    let all = || Some(from.clone());
    let urls = StorageUrls { root: from.clone(), blobs: all(), keys: all(), audit: all() };
    let clock = Arc::new(SystemClock);
    let storage = Storages::open(&urls, CreateRoot::No, clock.clone()).await?.audit;
    let published = Published::new(storage);
    let checkpoint = published.checkpoint().await?;
    let head = *checkpoint.checkpoint().head();
    let prove = |old_size| published.prove(head, old_size);
    observe(ledger, &checkpoint, logs, key, clock.now(), prove).await?;
    let last = ledger.last(log_name(checkpoint.checkpoint().origin()))?;
    Ok(last.expect("it was cosigned just now"))
}

fn show(command: &WitnessShow, output: Output) -> Result<(), Failure> {
    let (witness, logs) = remembered(&command.state)?;
    let evidence = |found: bool, name| found.then(|| format!("{name}.evidence"));
    let text = if output.json {
        let logs: Vec<_> = logs
            .iter()
            .map(|log| {
                json!({
                    "origin": log.origin, "size": log.head.size, "root": log.head.root, "cosigned_at": log.at,
                    "evidence": evidence(log.evidence, log.name),
                })
            })
            .collect();
        line(&json!({ "key": witness, "logs": logs }))
    } else {
        let columns = [
            ("LOG", Column::Whole),
            ("SIZE", Column::Number),
            ("ROOT", Column::Whole),
            ("COSIGNED", Column::Whole),
        ];
        let rows = logs.iter().map(|log| {
            vec![
                log.origin.to_string(),
                log.head.size.to_string(),
                log.head.root.to_string(),
                seconds(log.at),
            ]
        });
        table(&columns, rows)
    };
    output.print(&text)?;
    if logs.iter().any(|log| log.evidence) {
        return Err(Failure::new(Exit::Data, "integrity", EVIDENCE).hint(WHAT_TO_DO));
    }
    Ok(())
}
