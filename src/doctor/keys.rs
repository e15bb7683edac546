//! The KMS keys that a store depends on: whether they live.
//!
//! Describing a key is no use of it and needs no receipt. To learn which keys the
//! customers have, their rings are opened as everywhere, on the record.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Check, Setup, Subject, advice, directory, failed};
use crate::access::Access;
use crate::codec::Decode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{KmsKeyId, Label};
use crate::kms::local::InsecureLocalKms;
use crate::kms::{KeyState, KmsError, KmsErrorKind, KmsRegistry};
use crate::retention::Period;
use crate::ring::sealed::EpochRecord;
use crate::room::Strongroom;
use crate::store::{StorageRole, layout, store_error};
use crate::system::SystemEntropy;

/// How many keys are asked about at once.
const AT_ONCE: usize = 8;

/// What was found of the epochs.
pub(super) struct Epochs {
    pub(super) checks: Vec<Check>,
    /// The KMS keys of all epochs.
    pub(super) keys: BTreeSet<KmsKeyId>,
    /// Whether the newest epoch's key can be used.
    pub(super) usable: bool,
}

/// The key of every epoch. The newest one must live; an older one may be gone,
/// and should be, once no ring is left in its epoch.
pub(super) async fn epochs(storage: &dyn ObjectStore, kms: &KmsRegistry) -> Epochs {
    let mut found = Epochs { checks: Vec::new(), keys: BTreeSet::new(), usable: false };
    let mut records = match records(storage).await {
        Ok(records) => records,
        Err(error) => {
            found.checks.push(failed(Subject::EpochKeys, &error));
            return found;
        }
    };
    let Some((newest, newest_key)) = records.pop_last() else {
        let what = "the store has no epoch record";
        found.checks.push(Check::problem(
            Subject::EpochKeys,
            what,
            "leave everything as it is, and tell whoever answers for the store",
        ));
        return found;
    };
    found.keys.extend(records.values().cloned().chain([newest_key.clone()]));
    let states = describe(kms, found.keys.iter().cloned()).await;
    for (number, key) in &records {
        found.checks.push(older_epoch(*number, key, &states[key]));
    }
    let state = &states[&newest_key];
    found.usable = matches!(state, Ok(KeyState::Enabled)) || state.as_ref().is_err_and(not_told);
    let dies = "all rings, and with them all blobs";
    found.checks.push(key_check(Subject::EpochKeys, &format!("epoch {newest}"), &newest_key, state, dies));
    found
}

async fn records(storage: &dyn ObjectStore) -> Result<BTreeMap<u32, KmsKeyId>> {
    const WHAT: &str = "read the epoch records";
    let objects = storage.list(Some(&layout::epochs())).map_err(|error| store_error(error, WHAT));
    let numbers =
        objects.try_filter_map(|object| std::future::ready(Ok(layout::read_epoch(&object.location))));
    let records = numbers.map_ok(|number| async move {
        let stored = storage.get(&layout::epoch(number)).await.map_err(|error| store_error(error, WHAT))?;
        let bytes = stored.bytes().await.map_err(|error| store_error(error, WHAT))?;
        let record = EpochRecord::from_bytes(&bytes).map_err(|error| {
            let message = format!("the record of epoch {number} cannot be read");
            Error::new(ErrorKind::Integrity, message).with_source(error)
        })?;
        Ok((number, record.kms_key))
    });
    records.try_buffer_unordered(AT_ONCE).try_collect().await
}

type KeyStates = BTreeMap<KmsKeyId, Result<KeyState, KmsError>>;

/// Asks once about each key.
async fn describe(kms: &KmsRegistry, keys: impl Iterator<Item = KmsKeyId>) -> KeyStates {
    let asked = futures_util::stream::iter(keys).map(|key| async move {
        let state = match kms.get(&key) {
            Ok(provider) => provider.describe(&key).await,
            Err(error) => Err(error),
        };
        (key, state)
    });
    asked.buffer_unordered(AT_ONCE).collect().await
}

/// What was found of the customers.
#[derive(Default)]
pub(super) struct Customers {
    pub(super) checks: Vec<Check>,
    /// All their KMS keys.
    pub(super) keys: BTreeSet<KmsKeyId>,
    /// For how long each one's blobs are promised to be kept.
    pub(super) promises: Vec<(Label, Vec<Period>)>,
}

/// The keys of every customer, and what each is promised.
pub(super) async fn customers(room: &Strongroom, access: &Access, kms: &KmsRegistry) -> Customers {
    let customers = match room.customer_keys(access).await {
        Ok(customers) => customers,
        Err(error) => {
            let checks = vec![failed(Subject::CustomerKeys, &error)];
            return Customers { checks, ..Customers::default() };
        }
    };
    let read = customers.iter().filter_map(|(_, keys)| keys.as_ref().ok());
    let promises = read.map(|found| (found.label.clone(), found.promises.clone())).collect();
    let read = customers.iter().filter_map(|(_, keys)| keys.as_ref().ok());
    let keys: BTreeSet<_> = read.flat_map(|keys| keys.kms_keys.iter().cloned()).collect();
    let states = describe(kms, keys.iter().cloned()).await;
    let mut lines: Vec<(String, Check)> = Vec::new();
    for (id, found) in &customers {
        if let (Some(id), Ok(found)) = (id, found)
            && found.label.resembles_id()
        {
            let check = Check::warning(
                Subject::CustomerKeys,
                format!("customer {id}: its label has the form of an id"),
                "name this customer by its id: a label that can be an id is taken for one",
            );
            lines.push((found.label.to_string(), check));
        }
        let id = id.map_or_else(|| "(unreadable label)".to_owned(), |id| id.to_string());
        match found {
            Ok(found) => lines.extend(found.kms_keys.iter().map(|key| {
                let who = format!("{} ({id})", found.label);
                let dies = "all blobs of this customer";
                let check = key_check(Subject::CustomerKeys, &who, key, &states[key], dies);
                (found.label.to_string(), check)
            })),
            Err(error) => {
                let what = format!("customer {id}: {}", error.chain());
                lines.push((id, Check::problem(Subject::CustomerKeys, what, advice(error))));
            }
        }
    }
    lines.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut checks: Vec<_> = lines.into_iter().map(|(_, check)| check).collect();
    if checks.is_empty() {
        checks.push(Check::ok(Subject::CustomerKeys, "there are no customers yet"));
    }
    Customers { checks, keys, promises }
}

fn key_check(
    subject: Subject,
    who: &str,
    key: &KmsKeyId,
    state: &Result<KeyState, KmsError>,
    dies: &str,
) -> Check {
    let problem = |what: String, fix: String| Check::problem(subject, what, fix);
    match state {
        Ok(KeyState::Enabled) => Check::ok(subject, format!("{who}: {key} is enabled")),
        Ok(KeyState::Disabled) => problem(
            format!("{who}: {key} is disabled"),
            format!("unless someone means it, {}", command("enable-key", "enable", key)),
        ),
        Ok(KeyState::PendingDeletion(due)) => {
            let when = due.map_or_else(String::new, |due| format!(" on {}", due.day()));
            problem(
                format!("{who}: {key} will be destroyed{when}, and {dies} with it"),
                format!(
                    "unless someone means it, {}, and enable it again",
                    command("cancel-key-deletion", "cancel the deletion of", key)
                ),
            )
        }
        Ok(KeyState::Unavailable) => problem(
            format!("{who}: {key} can be neither used nor enabled as it is"),
            "ask its owner: it is being made, or its imported material or its key store is gone".to_owned(),
        ),
        Err(error) => not_described(subject, who, key, error),
    }
}

fn not_described(subject: Subject, who: &str, key: &KmsKeyId, error: &KmsError) -> Check {
    let what = format!("{who}: {key}: {}", said(error));
    match error.kind() {
        KmsErrorKind::KeyDestroyed => Check::problem(
            subject,
            format!("{who}: {key} does not exist"),
            "if the key directory or the account is the wrong one, name the right one; if the key is \
             gone, so is what \
             was sealed under it",
        ),
        _ if not_told(error) => {
            Check::unknown(subject, what, "allow kms:DescribeKey, without a condition on the context")
        }
        KmsErrorKind::Unavailable => {
            Check::problem(subject, what, "check the network and the KMS, then try again")
        }
        _ => Check::problem(subject, what, "check the credentials, the region and the key directory"),
    }
}

/// Whether the KMS lives and does not tell us: the key may be usable.
fn not_told(error: &KmsError) -> bool {
    error.kind() == KmsErrorKind::KeyUnavailable
}

/// An epoch that is not the newest: nothing new is sealed under its key, and a
/// ring that still is fails by itself.
fn older_epoch(number: u32, key: &KmsKeyId, state: &Result<KeyState, KmsError>) -> Check {
    let what = match state {
        Ok(KeyState::Enabled) => "is enabled",
        Ok(KeyState::Disabled) => "is disabled",
        Ok(KeyState::PendingDeletion(_)) => "will be destroyed",
        Ok(KeyState::Unavailable) => "cannot be used",
        Err(error) if error.kind() == KmsErrorKind::KeyDestroyed => "is gone",
        Err(error) => return not_described(Subject::EpochKeys, &format!("epoch {number}"), key, error),
    };
    Check::ok(Subject::EpochKeys, format!("epoch {number}, an older one: {key} {what}"))
}

/// What to type, or what to ask its owner for.
fn command(aws: &str, other: &str, key: &KmsKeyId) -> String {
    match key.provider() {
        "aws-kms" => format!("aws kms {aws} --key-id {}", key.name()),
        _ => format!("have its owner {other} {key}"),
    }
}

/// The sentences of a KMS error, which hold no secret.
fn said(error: &KmsError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The directory of local keys, which is looked at where a key of it is in use.
pub(super) fn local(setup: &Setup) -> Vec<Check> {
    let path = &setup.local_kms;
    let (clock, entropy) = (Arc::clone(&setup.clock), Arc::new(SystemEntropy));
    let fix = || format!("chmod -R go-rwx {}", directory::quoted(path));
    let mut checks = Vec::new();
    match InsecureLocalKms::open(path.clone(), clock, entropy) {
        Err(error) => {
            checks.push(Check::problem(
                Subject::LocalKeys,
                format!("{}: {}", path.display(), said(&error)),
                fix(),
            ));
        }
        Ok(_) if !path.exists() => checks.push(Check::problem(
            Subject::LocalKeys,
            format!("there is no key directory at {}", path.display()),
            "mount it, restore it, or name the right one (--local-kms or STRONGROOM_LOCAL_KMS)",
        )),
        Ok(_) => match open_to_others(path) {
            Ok(0) => checks
                .push(Check::ok(Subject::LocalKeys, format!("only its owner gets into {}", path.display()))),
            Ok(files) => checks.push(Check::problem(
                Subject::LocalKeys,
                format!(
                    "{files} files in {} can be read or written by others than their owner",
                    path.display()
                ),
                format!("{}, and think of those keys as known to others", fix()),
            )),
            Err(error) => checks.push(Check::problem(
                Subject::LocalKeys,
                format!("{} cannot be read: {}", path.display(), error.kind()),
                "let the user this program runs as own it",
            )),
        },
    }
    checks.push(no_safe_harbour(setup));
    checks
}

fn open_to_others(path: &std::path::Path) -> std::io::Result<usize> {
    let mut open = 0;
    for entry in path.read_dir()? {
        let meta = entry?.metadata()?;
        open += usize::from(meta.is_file() && meta.mode() & 0o077 != 0);
    }
    Ok(open)
}

/// The warning that every use of local keys earns.
fn no_safe_harbour(setup: &Setup) -> Check {
    let keys = directory::device(&setup.local_kms);
    let beside = StorageRole::ALL.into_iter().any(|role| {
        let url = setup.urls.of(role);
        url.as_directory().is_some_and(|path| directory::device(path) == keys)
    });
    let what = if beside {
        "the keys are files on the same file system as the data: no safe harbour for ePHI under HHS \
         guidance (74 FR 19006), \
         and whoever takes one takes both"
    } else {
        "the keys are files: whoever can read them can open everything. Encrypted ePHI counts as \
         secured only while they \
         are kept on another device or at another place (74 FR 19006)"
    };
    Check::warning(
        Subject::LocalKeys,
        what,
        "keep the key directory on a device of its own and back it up apart from the data; for \
         production, use AWS KMS",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn key() -> KmsKeyId {
        "aws-kms:arn:aws:kms:us-east-1:111122223333:key/x".parse().unwrap()
    }

    fn failed(kind: KmsErrorKind) -> Result<KeyState, KmsError> {
        Err(KmsError::new(kind, "no"))
    }

    #[test]
    fn every_state_of_a_key_says_what_to_do() {
        let day = "2026-12-24T00:00:00.000000Z".parse().unwrap();
        for (state, expected, fix) in [
            (Ok(KeyState::Enabled), State::Ok, ""),
            (Ok(KeyState::Disabled), State::Problem, "aws kms enable-key --key-id arn:aws:kms:"),
            (Ok(KeyState::PendingDeletion(Some(day))), State::Problem, "aws kms cancel-key-deletion"),
            (Ok(KeyState::PendingDeletion(None)), State::Problem, "aws kms cancel-key-deletion"),
            (Ok(KeyState::Unavailable), State::Problem, "ask its owner"),
            (failed(KmsErrorKind::KeyDestroyed), State::Problem, "if the key is gone"),
            (failed(KmsErrorKind::KeyUnavailable), State::Unknown, "kms:DescribeKey"),
            (failed(KmsErrorKind::Unavailable), State::Problem, "try again"),
            (failed(KmsErrorKind::Configuration), State::Problem, "credentials"),
        ] {
            let check = key_check(Subject::CustomerKeys, "acme", &key(), &state, "all of it");
            assert_eq!(check.state, expected, "{state:?}");
            assert!(check.fix.unwrap_or_default().contains(fix), "{state:?}");
            assert!(check.what.starts_with("acme: aws-kms:arn"), "{}", check.what);
        }
        let check =
            key_check(Subject::EpochKeys, "e", &key(), &Ok(KeyState::PendingDeletion(Some(day))), "all");
        assert!(check.what.contains("on 2026-12-24, and all with it"), "{}", check.what);
        let local = "local:000g40r40m30e209185gr38e1w".parse().unwrap();
        let check = key_check(Subject::EpochKeys, "e", &local, &Ok(KeyState::Disabled), "all");
        assert!(check.fix.unwrap().contains("have its owner enable local:"), "no command of AWS");
    }

    #[test]
    fn an_older_epoch_may_be_gone() {
        for state in [Ok(KeyState::Enabled), Ok(KeyState::Disabled), failed(KmsErrorKind::KeyDestroyed)] {
            assert_eq!(older_epoch(1, &key(), &state).state, State::Ok);
        }
        assert_eq!(older_epoch(1, &key(), &failed(KmsErrorKind::Unavailable)).state, State::Problem);
    }
}
