//! `audit proof` and `audit check-proof`.

use std::fs::File;
use std::io::Read;

use bytes::Bytes;
use serde_json::json;

use super::super::args::{CheckProof, Proof, PublicKeyText, RecordRef};
use super::super::failure::Failure;
use super::super::output::{Output, line, pairs};
use super::super::sink::Sink;
use super::export::sink;
use super::{Answer, audit_only};
use crate::audit::layout::{self, FIRST_SHARD};
use crate::audit::log::LogReader;
use crate::audit::proof::{Proved, Sought, check as check_proof, find, is_unpublished, prove};
use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::id::CustomerId;
use crate::tlog::VerifierKey;
use crate::tlog::proof::{MAX_LEN, TlogProof};

pub(super) async fn make(reader: &LogReader, customer: Option<CustomerId>, command: &Proof) -> Answer {
    let sought = sought(command)?;
    let sink = sink(&command.to)?;
    let entry = find(reader, &sought, customer).await?.ok_or_else(|| {
        Failure::from(Error::new(ErrorKind::NotFound, "there is no such record in the audit log"))
    })?;
    let proof = prove(reader, &entry).await.map_err(hinted)?;
    write(sink, &proof).await
}

/// Asks a daemon. With the log's key the proof is checked; that it is of the record that was asked
/// for is seen without.
pub(super) async fn ask(daemon: &Client, customer: Option<CustomerId>, command: &Proof) -> Answer {
    let sought = sought(command)?;
    let sink = sink(&command.to)?;
    let (proof, store, shard) = daemon.proof(&sought, customer).await.map_err(hinted)?;
    if let Some(key) = &command.log.key {
        audit_only::check_name(key, store)?;
        check_proof(&proof, &layout::verifier(store, shard, key.public()), &[], 0)?;
    }
    write(sink, &proof).await
}

fn hinted(error: Error) -> Failure {
    match is_unpublished(&error) {
        true => Failure::from(error).hint("publish the log, and ask again"),
        false => error.into(),
    }
}

async fn write(mut sink: Sink, proof: &TlogProof) -> Answer {
    sink.write(Bytes::from(proof.to_string())).await?;
    sink.finish().await?;
    Ok(String::new())
}

fn sought(command: &Proof) -> Result<Sought, Failure> {
    let outcome = command.outcome;
    let (from, until) = command.times.bounds();
    match command.record {
        RecordRef::Request(request) => Ok(Sought::Request { request, outcome, from, until }),
        RecordRef::Place { .. } if outcome => Err(Failure::usage("--outcome is for the id of a request")),
        RecordRef::Place { shard, index } => Ok(Sought::Place { shard, index }),
    }
}

pub(super) fn check(command: &CheckProof, output: Output) -> Answer {
    let unread = |error| Failure::input("the proof cannot be read", &error);
    let mut bytes = Vec::new();
    // One more than there can be, so that what is longer is seen.
    let file = File::open(&command.proof).map_err(unread)?;
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    let proof = TlogProof::parse(&bytes).map_err(Error::from)?;
    let origin = proof.checkpoint().checkpoint().origin();
    let log = match (&command.key, layout::of_origin(origin)) {
        // The log's key signs for each shard under the shard's own name, and is known by that
        // of the first.
        (PublicKeyText::Named(key), Some((store, shard)))
            if *key.name() == layout::key_name(store, FIRST_SHARD) =>
        {
            layout::verifier(store, shard, *key.public())
        }
        (PublicKeyText::Named(key), _) => key.clone(),
        // A key without a name is that of whatever log the proof is of.
        (PublicKeyText::Bare(key), _) => {
            VerifierKey::ed25519(origin.as_str().parse().map_err(Error::from)?, *key)
        }
    };
    // Of the keys that changes lead to, the one that signed.
    let log = match layout::of_origin(origin) {
        Some(place) if !command.key_changes.is_empty() && log.name().as_str() == origin.as_str() => {
            audit_only::chain(*log.public(), &command.key_changes)?.verifier(proof.checkpoint(), place)
        }
        _ => log,
    };
    let quorum = command.quorum.unwrap_or(command.witnesses.len());
    let proved = check_proof(&proof, &log, &command.witnesses, quorum)?;
    let Proved { record, index, origin, tree, cosigned } = &proved;
    if output.json {
        let cosigned: Vec<_> =
            cosigned.iter().map(|(witness, at)| json!({ "witness": witness.as_str(), "at": at })).collect();
        return Ok(line(&json!({
            "record": record,
            "index": index,
            "origin": origin.as_str(),
            "size": tree.size,
            "root": tree.root,
            "cosigned": cosigned,
        })));
    }
    let record = String::from_utf8(record.to_line()).expect("a record's line is ASCII");
    let cosigned = cosigned.iter().map(|(witness, at)| ("cosigned", format!("{at} by {witness}")));
    let rows = [
        ("record", record),
        ("log", origin.as_str().to_owned()),
        ("place", format!("{index} of {}", tree.size)),
        ("root", tree.root.to_string()),
    ];
    Ok(pairs(rows.into_iter().chain(cosigned).map(|(name, value)| (name.to_owned(), value))))
}
