//! What is wrong with a store's surroundings, and what to do about it.
//!
//! Strongroom relies on things that it cannot bring about: that nobody deletes
//! rings, that the log is locked, that clocks are right, that KMS keys live. The
//! doctor looks at them and says in one list what is missing; [`policy`] prints
//! what to set up.
//!
//! Separate from [`room`](crate::room) because it works where a room does not open:
//! each part is looked at by itself, and what fails is a finding.
//!
//! Invariants: no check changes anything, but for the log, which gets the records
//! of the rings that were read, as always, a local key whose day of deletion
//! has come, which goes when anyone looks at it, and the small objects with which a store's
//! storages are [tried](crate::store::trial). A check that could not be made is
//! [`State::Unknown`] and never [`State::Ok`]. Findings hold paths, names of buckets,
//! prefixes of their rules, ids and labels, and no names or content of blobs.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::access::Access;
use crate::audit::log::NEAR;
use crate::error::{Error, ErrorKind};
use crate::id::StoreId;
use crate::kms::KmsRegistry;
use crate::retention::clock::AGREEMENT;
use crate::room::{Options, Strongroom};
use crate::store::marker::Marker;
use crate::store::probe::Probe;
use crate::store::{CreateRoot, StorageRole, StorageUrls, Storages};
use crate::time::Clock;

pub(crate) mod bucket;
mod directory;
mod host;
mod keys;
pub mod policy;
mod promises;
mod storage;

/// For how long audit records are kept, in years (45 CFR 164.316(b)(2)(i) names
/// this term for documentation).
pub const AUDIT_YEARS: u32 = 6;

/// For how long small commits are kept, in days: the daily segments have the same
/// records.
pub const SMALL_COMMITS_DAYS: u32 = 35;

/// How many objects of a storage are looked at, at most.
const LOOKED_AT: usize = 20_000;

/// What is to be looked at.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The storages.
    pub urls: StorageUrls,
    /// The KMS providers.
    pub kms: KmsRegistry,
    /// The directory of the local provider's keys.
    pub local_kms: PathBuf,
    /// Who looks, for the log.
    pub access: Access,
    /// The clock that is examined.
    pub clock: Arc<dyn Clock>,
    /// How the store is opened, or why it cannot be: what is wrong with the
    /// signing key of the log.
    pub options: Result<Options, String>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// As it should be.
    Ok,
    /// It could not be found out.
    Unknown,
    /// It works, and something that protects is missing.
    Warning,
    /// It does not work, or what the design relies on is missing.
    Problem,
}

/// What a check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// This machine and this process.
    Host,
    /// One of the storages.
    Storage(StorageRole),
    /// The three storages together.
    Store,
    /// The KMS keys of the epochs.
    EpochKeys,
    /// The KMS keys of the customers.
    CustomerKeys,
    /// The directory of local KMS keys.
    LocalKeys,
}

impl Subject {
    /// A stable name, for JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Storage(role) => role.as_str(),
            Self::Store => "store",
            Self::EpochKeys => "epoch-keys",
            Self::CustomerKeys => "customer-keys",
            Self::LocalKeys => "local-keys",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Host => "this machine",
            Self::Storage(StorageRole::Blobs) => "storage of blobs",
            Self::Storage(StorageRole::Keys) => "storage of keys",
            Self::Storage(StorageRole::Audit) => "storage of the audit log",
            Self::Store => "store",
            Self::EpochKeys => "KMS keys of epochs",
            Self::CustomerKeys => "KMS keys of customers",
            Self::LocalKeys => "local KMS keys",
        })
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about.
    pub subject: Subject,
    /// How it came out.
    pub state: State,
    /// What was found.
    pub what: String,
    /// What to do about it; nothing where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Check {
    fn ok(subject: Subject, what: impl Into<String>) -> Self {
        Self { subject, state: State::Ok, what: what.into(), fix: None }
    }

    fn new(subject: Subject, state: State, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject, state, what: what.into(), fix: Some(fix.into()) }
    }

    fn warning(subject: Subject, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, State::Warning, what, fix)
    }

    fn problem(subject: Subject, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, State::Problem, what, fix)
    }

    fn unknown(subject: Subject, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(subject, State::Unknown, what, fix)
    }
}

/// Looks at everything, and returns what was found, by subject.
///
/// It needs no store that opens, and ends within the deadlines of the storages
/// and of the KMS.
///
/// # Cancel safety
/// Nothing is left half done; records of rings that were read may be missing
/// their outcome.
pub async fn examine(setup: &Setup) -> Vec<Check> {
    let clock = Arc::clone(&setup.clock);
    let probes = Probe::open_each(&setup.urls, Arc::clone(&clock)).await;
    let mut checks = host::examine();
    let looks = probes.iter().map(|(role, probe)| storage::examine(*role, probe.as_ref(), &*clock));
    checks.extend(futures_util::future::join_all(looks).await.into_iter().flatten());
    checks.extend(storage::separation(&setup.urls));

    let (store, found) = store_id(&probes).await;
    checks.extend(found);
    let keys = probes.iter().find_map(|(role, probe)| {
        let probe = probe.as_ref().ok()?;
        (*role == StorageRole::Keys && store.is_some()).then_some(probe)
    });
    if let Some(probe) = keys {
        let epochs = keys::epochs(&**probe.storage(), &setup.kms).await;
        let mut used = epochs.keys;
        let usable = epochs.usable;
        checks.extend(epochs.checks);
        match (open(setup).await, usable) {
            (Err(check), _) => checks.push(check),
            (Ok(room), false) => {
                checks.push(Check::unknown(
                    Subject::CustomerKeys,
                    "not looked at: rings open with the newest epoch's KMS key only",
                    "see to the KMS keys of epochs first",
                ));
                checks.push(time_of_log(&room, &*clock).await);
                checks.extend(close(&room).await);
            }
            (Ok(room), true) => {
                let found = keys::customers(&room, &setup.access, &setup.kms).await;
                checks.extend(found.checks);
                used.extend(found.keys);
                checks.push(time_of_log(&room, &*clock).await);
                checks.extend(close(&room).await);
                let audit = probes.iter().find(|(role, _)| *role == StorageRole::Audit);
                if let Some((_, Ok(probe))) = audit
                    && probe.url().as_s3().is_some()
                {
                    checks.extend(promises::locked_for(probe.object_lock().await, &found.promises));
                }
            }
        }
        if used.iter().any(|key| key.provider() == "local") {
            checks.extend(keys::local(setup));
        }
    }
    checks.sort_by_key(|check| check.subject);
    checks
}

/// The id of the store, if its storages tell it.
pub async fn known_store(urls: &StorageUrls, clock: Arc<dyn Clock>) -> Option<StoreId> {
    store_id(&Probe::open_each(urls, clock).await).await.0
}

/// Whose the three storages are.
async fn store_id(probes: &[(StorageRole, Result<Probe, Error>)]) -> (Option<StoreId>, Vec<Check>) {
    let mut ids = Vec::new();
    for (role, probe) in probes {
        // A storage that does not answer has a finding of its own already.
        let Ok(probe) = probe else { return (None, Vec::new()) };
        match Marker::read(&**probe.storage()).await {
            Ok(id) => ids.push(id),
            Err(error) => {
                let what = format!("the marker of the store on the storage of {role}: {}", error.chain());
                return (None, vec![Check::problem(Subject::Store, what, advice(&error))]);
            }
        }
    }
    let check = match ids[..] {
        [Some(marker), ..] if ids.iter().all(|other| *other == Some(marker)) => {
            let store = marker.store;
            let what = format!("all three storages belong to store {store}");
            return (Some(store), vec![Check::ok(Subject::Store, what)]);
        }
        _ if ids.iter().all(Option::is_none) => {
            Check::problem(Subject::Store, "there is no store here yet", "make one: `strongroom init`")
        }
        _ => Check::problem(
            Subject::Store,
            "the three storages do not belong to one store",
            "name the right ones (--store, --blobs-store, --keys-store, --audit-store); if an `init` \
             was cut \
             off, run it again",
        ),
    };
    (None, vec![check])
}

async fn open(setup: &Setup) -> Result<Strongroom, Check> {
    let options = setup.options.clone().map_err(|what| {
        let fix = "give the key that `strongroom init` made, with --log-key or STRONGROOM_LOG_KEY";
        Check::problem(Subject::Store, what, fix)
    })?;
    let opened = async {
        let storages = Storages::open(&setup.urls, CreateRoot::No, Arc::clone(&setup.clock)).await?;
        Strongroom::open(storages, setup.kms.clone(), options).await
    };
    opened.await.map_err(|error| {
        let what = format!("the store does not open: {}", error.chain());
        Check::problem(Subject::Store, what, advice(&error))
    })
}

/// Whether the newest entry of the log, in any shard, is from the future.
async fn time_of_log(room: &Strongroom, clock: &dyn Clock) -> Check {
    let subject = Subject::Storage(StorageRole::Audit);
    let newest = match room.log().newest_of_all().await {
        Ok(newest) => newest,
        Err(error) => return failed(subject, &error),
    };
    let now = clock.now();
    let Some(newest) = newest.filter(|newest| *newest > now.saturating_add(AGREEMENT)) else {
        return Check::ok(subject, "the newest entry of the log is not from the future");
    };
    let what = format!("the newest entry of the log is of {newest}, and this machine's clock says {now}");
    let fix = "correct this machine's clock; if it is right, another one was ahead: correct that, and let two people \
               say which time it is (`strongroom order request set-clock`)";
    match newest > now.saturating_add(NEAR) {
        true => Check::problem(subject, what, fix),
        false => Check::warning(subject, what, fix),
    }
}

/// Ends the look at the rings: every record of it must be in the log.
async fn close(room: &Strongroom) -> Option<Check> {
    let error = room.close().await.err()?;
    Some(failed(Subject::Storage(StorageRole::Audit), &error))
}

/// A problem, by the sentences of an error.
fn failed(subject: Subject, error: &Error) -> Check {
    Check::problem(subject, error.chain(), advice(error))
}

/// What a kind of error asks for.
fn advice(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => "name the right place, or make a store there: `strongroom init`",
        ErrorKind::Authentication | ErrorKind::Integrity => {
            "leave everything as it is, and tell whoever answers for the store"
        }
        ErrorKind::UnsupportedFormat => "upgrade strongroom",
        ErrorKind::KeyUnavailable => "ask the owner of the KMS key",
        ErrorKind::KeyDestroyed => {
            "bring the key directory or account back; if the key is gone, so is the data"
        }
        ErrorKind::Configuration => {
            "check credentials, region, permissions and names; `strongroom doctor --policies` prints \
             the permissions"
        }
        _ => "check the network and the service, then try again",
    }
}
