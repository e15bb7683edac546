//! `audit proof` and `audit check-proof`.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;

use bytes::Bytes;
use serde_json::json;

use super::super::args::{CheckProof, Proof, PublicKeyText, RecordRef};
use super::super::failure::Failure;
use super::super::output::{Output, line, pairs};
use super::Answer;
use super::export::sink;
use crate::audit::log::LogReader;
use crate::audit::operation::Entry;
use crate::audit::proof::{Proved, check as check_proof, prove};
use crate::audit::query::{Filter, query};
use crate::error::{Error, ErrorKind};
use crate::tlog::VerifierKey;
use crate::tlog::proof::{MAX_LEN, TlogProof};

pub(super) async fn make(reader: &LogReader, command: &Proof) -> Answer {
    if command.outcome && matches!(command.record, RecordRef::Place { .. }) {
        return Err(Failure::usage("--outcome is for the id of a request"));
    }
    let mut sink = sink(&command.to)?;
    let entry = find(reader, command).await?.ok_or_else(|| {
        Failure::from(Error::new(ErrorKind::NotFound, "there is no such record in the audit log"))
    })?;
    let proof = prove(reader, &entry).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::from(error).hint("publish the log, and ask again"),
        _ => error.into(),
    })?;
    sink.write(Bytes::from(proof.to_string())).await?;
    sink.finish().await?;
    Ok(String::new())
}

async fn find(reader: &LogReader, command: &Proof) -> Result<Option<Entry>, Error> {
    let request = match command.record {
        RecordRef::Place { shard, index } => {
            return reader.shard(shard).await?.entry(index).await;
        }
        RecordRef::Request(request) => request,
    };
    let (from, until) = command.times.bounds();
    let filter = Filter { request: Some(request), from, until, ..Filter::default() };
    let found = query(reader, &filter, None, NonZeroUsize::MIN).await?.operations.pop();
    Ok(found.and_then(|operation| match command.outcome {
        true => operation.outcome_entry().cloned(),
        false => Some(operation.intent_entry().clone()),
    }))
}

pub(super) fn check(command: &CheckProof, output: Output) -> Answer {
    let unread = |error| Failure::input("the proof cannot be read", &error);
    let mut bytes = Vec::new();
    // One more than there can be, so that what is longer is seen.
    let file = File::open(&command.proof).map_err(unread)?;
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    let proof = TlogProof::parse(&bytes).map_err(Error::from)?;
    let log = match &command.key {
        PublicKeyText::Named(key) => key.clone(),
        // A key without a name is that of whatever log the proof is of.
        PublicKeyText::Bare(key) => {
            let name = proof.checkpoint().checkpoint().origin().as_str().parse();
            VerifierKey::ed25519(name.map_err(Error::from)?, *key)
        }
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
    let record = serde_json::to_string(record).expect("a record is ids and numbers");
    let cosigned = cosigned.iter().map(|(witness, at)| ("cosigned", format!("{at} by {witness}")));
    let rows = [
        ("record", record),
        ("log", origin.as_str().to_owned()),
        ("place", format!("{index} of {}", tree.size)),
        ("root", tree.root.to_string()),
    ];
    Ok(pairs(rows.into_iter().chain(cosigned).map(|(name, value)| (name.to_owned(), value))))
}
