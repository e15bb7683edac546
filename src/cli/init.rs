//! `init`.

use serde_json::json;

use super::args::Init;
use super::exit::Exit;
use super::failure::Failure;
use super::keys::LocalKeys;
use super::output::{Output, line};
use super::{Store, explain, log_key, options};
use crate::audit::layout::{FIRST_SHARD, verifier};
use crate::config::Config;
use crate::error::ErrorKind;
use crate::order::NewPerson;
use crate::room::{KeyChoice, Options, Strongroom};
use crate::store::Storages;
use crate::store::marker::Marker;

/// Makes the store or opens the one that is there; `true` says that it was made.
pub(super) async fn init(
    config: &Config,
    command: &Init,
    storages: &Storages,
    keys: &LocalKeys,
    output: Output,
) -> Result<(Strongroom, bool), Failure> {
    let (storages, kms) = (storages.clone(), keys.registry());
    let explain = |error| explain(config, error, keys);
    let signers = match Marker::read(&*storages.keys).await? {
        Some(_) => log_key::load_both(config).await?,
        // If we stop behind this, the next `init` finds the key.
        None => (log_key::load_or_make(&config.log_key).await?, None),
    };
    let options = Options { people: command.people.clone(), ..options(config, signers)? };
    let key = match &command.epoch_kms {
        Some(key) => key.clone(),
        None => match default_key(&config.urls.keys.as_ref().unwrap_or(&config.urls.root).to_string()) {
            Some(provider) => KeyChoice::New(provider.to_owned()),
            // Without a default, a store that is there is still no error.
            None => match Strongroom::open(storages, kms, options).await {
                Ok(room) => {
                    as_named(&room, config, command).await?;
                    return Ok((room, false));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message =
                        "the KMS key of the store's first epoch must be named: --epoch-kms is missing";
                    return Err(Failure::usage(message));
                }
                Err(error) => return Err(explain(error)),
            },
        },
    };
    let made = Strongroom::init(storages.clone(), kms, key.clone(), &config.access(), options).await;
    let (room, created) = made.map_err(explain)?;
    if !created {
        as_named(&room, config, command).await?;
    }
    // Not asked is not yes, but a bucket that says no should be heard of now.
    if matches!(storages.removes_abandoned_parts().await, Ok(Some(false))) {
        output.note(
            "the bucket of the blobs has no lifecycle rule AbortIncompleteMultipartUpload: add one, or parts of \
             uploads whose program was killed stay there, invisible and paid for",
        );
    }
    if created {
        match &key {
            key if key.provider() == "local" => local_keys(config, output),
            KeyChoice::New(_) => output.note("a new AWS KMS key was made for the store's first epoch"),
            KeyChoice::Existing(_) => {}
        }
    }
    Ok((room, created))
}

/// That a store which is there has the people that were named, if any were: nothing is
/// changed, and they must not believe that they were registered.
async fn as_named(room: &Strongroom, config: &Config, command: &Init) -> Result<(), Failure> {
    if command.people.is_empty() {
        return Ok(());
    }
    let people = room.register(&config.access()).await?.people;
    let is_there = |new: &NewPerson| people.get(new.principal()).is_some_and(|old| old.key == new.key());
    if command.people.iter().all(is_there) {
        return Ok(());
    }
    let message = "the store exists already, and not all who were named are people of it";
    Err(Failure::new(Exit::CannotCreate, ErrorKind::AlreadyExists.as_str(), message).hint(
        "`strongroom person list` shows them, `person found` registers the first, an order changes them",
    ))
}

/// The provider of a new store's epoch key, by where its keys storage is.
fn default_key(url: &str) -> Option<&'static str> {
    match url.split_once("://") {
        Some(("file" | "memory", _)) => Some("local"),
        Some(("s3", _)) => Some("aws-kms"),
        _ => None,
    }
}

/// What local keys do not protect against, said where they are first used.
fn local_keys(config: &Config, output: Output) {
    let directory = config.local_kms.display();
    output.note(&format!(
        "the KMS keys are files in {directory}. Whoever can read that directory can open everything in the store, \
         and without it nobody can: keep it on another device, and back it up apart from the store. On the same \
         device it earns no safe harbour for ePHI (74 FR 19006). For production, use --epoch-kms aws-kms"
    ));
}

pub(super) fn answer(backend: &Store) -> String {
    let (store, root) = (backend.room.store_id(), &backend.config.urls.root);
    let log_key = verifier(store, FIRST_SHARD, backend.room.log().authority());
    if backend.output.json {
        return line(
            &json!({ "store": store, "created": backend.created, "root": root, "log_key": log_key }),
        );
    }
    let made = match backend.created {
        true => format!("made store {store} at {root}\n"),
        false => format!("store {store} exists already at {root}; nothing was changed\n"),
    };
    format!("{made}its audit log verifies with {log_key}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_store_has_a_key_by_its_scheme() {
        assert_eq!(default_key("file:///a"), Some("local"));
        assert_eq!(default_key("s3://bucket"), Some("aws-kms"));
        assert_eq!(default_key("gs://bucket"), None);
        assert_eq!(default_key("az://bucket"), None);
    }
}
