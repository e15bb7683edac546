//! What every storage is asked, wherever it is, and how the three are kept apart.

use super::{Check, LOOKED_AT, State, Subject, advice, bucket, directory, failed};
use crate::error::{Error, Result};
use crate::store::marker::Marker;
use crate::store::probe::Probe;
use crate::store::trial::try_out;
use crate::store::{StorageRole, StorageUrls};
use crate::time::Clock;

/// By how many seconds two clocks may differ, since answers have whole seconds.
const SKEW_WARNING: i64 = 5;

/// From how many seconds on a clock is a problem: S3 refuses requests at 15
/// minutes, and retention goes by this machine's days.
const SKEW_PROBLEM: i64 = 5 * 60;

pub(super) async fn examine(
    role: StorageRole,
    probe: Result<&Probe, &Error>,
    clock: &dyn Clock,
) -> Vec<Check> {
    let subject = Subject::Storage(role);
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => return vec![failed(subject, error)],
    };
    let mut checks = Vec::new();
    if let Some(path) = probe.url().as_directory() {
        checks.extend(directory::examine(role, path));
    }
    match probe.lists().await {
        Ok(()) => checks.push(Check::ok(subject, format!("{} answers", probe.url()))),
        Err(error) => {
            checks.push(failed(subject, &error));
            // A clock that is far off is one reason to be refused.
            checks.extend(ahead_of_server(role, probe, clock).await);
            return checks;
        }
    }
    checks.extend(missing(subject, probe).await);
    checks.extend(tried(role, probe, clock).await);
    match ahead_of_server(role, probe, clock).await {
        Some(check) => checks.push(check),
        None if role == StorageRole::Audit => checks.push(ahead_of_objects(probe, clock).await),
        None => {}
    }
    if probe.url().as_s3().is_some() {
        checks.extend(bucket::examine(role, probe, clock).await);
    } else if probe.url().as_directory().is_none() {
        checks.push(Check::unknown(
            subject,
            "this kind of storage is not asked for versions, locks, lifecycle rules and permissions",
            "look there yourself: no deletion, versions kept, and a retention lock on the audit log",
        ));
    }
    checks
}

async fn missing(subject: Subject, probe: &Probe) -> Option<Check> {
    match probe.tells_what_is_missing().await {
        Ok(true) => None,
        Ok(false) => Some(Check::problem(
            subject,
            "an object that is not there is answered with a refusal",
            "allow s3:ListBucket on the bucket, without a condition on the prefix",
        )),
        Err(error) => Some(failed(subject, &error)),
    }
}

/// Whether it keeps what a store is built on. Only where there is a store: elsewhere nothing is
/// written, and `init` tries it.
async fn tried(role: StorageRole, probe: &Probe, clock: &dyn Clock) -> Option<Check> {
    let subject = Subject::Storage(role);
    // What is wrong with the marker is told by who looks whose the storages are.
    Marker::read(&**probe.storage()).await.ok()??;
    Some(match try_out(role, &**probe.storage(), probe.kind(), clock.now().day()).await {
        Ok(None) => {
            Check::ok(subject, "create-if-absent, read-after-write, list-after-write and ranges were tried")
        }
        Ok(Some(lack)) => {
            let check = if lack.promise.is_vital() { Check::problem } else { Check::warning };
            check(subject, lack.to_string(), lack.promise.advice())
        }
        Err(error) => {
            let what = format!("what the storage keeps could not be tried: {}", error.chain());
            Check::unknown(subject, what, "run this as a node, which may write to `probe/`")
        }
    })
}

/// By the storage's own clock, where it tells it.
async fn ahead_of_server(role: StorageRole, probe: &Probe, clock: &dyn Clock) -> Option<Check> {
    match probe.clock_ahead(clock).await {
        Ok(ahead) => ahead.map(|ahead| skew(role, ahead)),
        Err(error) => {
            let what = format!("the storage's clock: {}", error.chain());
            Some(Check::unknown(Subject::Storage(role), what, advice(&error)))
        }
    }
}

fn skew(role: StorageRole, ahead: i64) -> Check {
    let what = match ahead {
        0.. => format!("this machine's clock is {ahead} s ahead of the storage of {role}"),
        _ => format!("this machine's clock is {} s behind the storage of {role}", ahead.unsigned_abs()),
    };
    clocks(what, ahead.saturating_abs())
}

/// Where a storage has no clock of its own: what was written into the log before
/// now must not bear a later time.
async fn ahead_of_objects(probe: &Probe, clock: &dyn Clock) -> Check {
    let newest = match probe.newest_change(LOOKED_AT).await {
        Ok(newest) => newest,
        Err(error) => return failed(Subject::Storage(StorageRole::Audit), &error),
    };
    let now = clock.now().micros();
    let ahead = newest.map_or(0, |newest| newest.micros().saturating_sub(now) / 1_000_000);
    let what = match ahead {
        0 => "nothing in the log was written later than now by this machine's clock".to_owned(),
        _ => format!("the log has an object that was written {ahead} s from now by this machine's clock"),
    };
    clocks(what, i64::try_from(ahead).unwrap_or(i64::MAX))
}

fn clocks(what: String, seconds: i64) -> Check {
    let fix = "set the clock right and keep it so (NTP, chrony): retention days and the times in the \
     log go \
         by it";
    if seconds <= SKEW_WARNING {
        Check::ok(Subject::Host, what)
    } else if seconds <= SKEW_PROBLEM {
        Check::warning(Subject::Host, what, fix)
    } else {
        Check::problem(Subject::Host, what, fix)
    }
}

/// Whether one accident or one administrator gets at more than one storage.
pub(super) fn separation(urls: &StorageUrls) -> Option<Check> {
    let together = |other: StorageRole| {
        let (a, b) = (urls.of(other), urls.of(StorageRole::Audit));
        match (a.as_s3(), b.as_s3()) {
            (Some((a, _)), Some((b, _))) if a == b => Some("in one bucket"),
            _ => match (a.as_directory(), b.as_directory()) {
                (Some(a), Some(b)) if directory::device(a) == directory::device(b) => {
                    Some("on one file system")
                }
                _ => None,
            },
        }
    };
    let with_audit = |role: &StorageRole| *role != StorageRole::Audit && together(*role).is_some();
    let roles: Vec<_> = StorageRole::ALL.into_iter().filter(with_audit).collect();
    let place = together(*roles.first()?)?;
    let names = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" and ");
    Some(Check {
        subject: Subject::Store,
        state: State::Warning,
        what: format!(
            "the audit log is {place} with the storage of {names}: what takes one takes the \
         other"
        ),
        fix: Some(
            "for production, give each a place of its own (--blobs-store, --keys-store, --audit-store), \
             with its own \
             administrators"
                .to_owned(),
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StorageUrl;

    #[test]
    fn clocks_may_differ_by_seconds() {
        for (ahead, state) in [
            (0, State::Ok),
            (5, State::Ok),
            (-5, State::Ok),
            (6, State::Warning),
            (-6, State::Warning),
            (300, State::Warning),
            (301, State::Problem),
            (-301, State::Problem),
            (i64::MIN, State::Problem),
        ] {
            assert_eq!(skew(StorageRole::Blobs, ahead).state, state, "{ahead}");
        }
        assert!(skew(StorageRole::Blobs, -7).what.contains("7 s behind"));
    }

    #[test]
    fn storages_in_one_place_are_told() {
        let url = |text: &str| text.parse::<StorageUrl>().unwrap();
        let check = separation(&StorageUrls::new(url("s3://bucket/a"))).unwrap();
        assert!(check.what.contains("in one bucket with the storage of blobs and keys"), "{}", check.what);
        let apart = StorageUrls { audit: Some(url("s3://other")), ..StorageUrls::new(url("s3://bucket")) };
        assert_eq!(separation(&apart), None);
        let home = tempfile::tempdir().unwrap();
        let check = separation(&StorageUrls::new(StorageUrl::directory(home.path()).unwrap())).unwrap();
        assert!(check.what.contains("on one file system"), "{}", check.what);
    }
}
