//! Whether the log is locked for as long as blobs are promised to be kept.
//!
//! What a blob's key is wrapped under, and what was destroyed, is known by the log alone: its
//! records are needed for as long as the blob lives. Separate from the bucket, because the promises
//! are in the customers' rings. What is compared are all policies that a ring has, the present one
//! and those before; what a blob was extended beyond them, and legal holds, which have no
//! end, are in no policy and are not compared.

use super::{Check, Subject};
use crate::error::Result;
use crate::id::Label;
use crate::retention::Period;
use crate::store::StorageRole;
use crate::store::probe::{LockTerm, ObjectLock, Reply};

/// Compares what the audit bucket's Object Lock gives each object with the promises to
/// customers. `None` where there is no such lock: that is a finding of its own.
pub(super) fn locked_for(
    lock: Result<Option<Reply<ObjectLock>>>,
    promises: &[(Label, Vec<Period>)],
) -> Option<Check> {
    let Ok(Some(Reply::Is(ObjectLock::Default { term, .. }))) = lock else { return None };
    let locked = period(term)?;
    let subject = Subject::Storage(StorageRole::Audit);
    let longer = |promised: &&Period| !promised.never_exceeds(locked);
    let named: Vec<String> = promises
        .iter()
        .filter_map(|(label, periods)| Some(format!("{label} ({})", periods.iter().rev().find(longer)?)))
        .collect();
    if named.is_empty() {
        let what = format!("Object Lock keeps the log for {term}, and no customer is promised longer");
        return Some(Check::ok(subject, what));
    }
    Some(Check::problem(
        subject,
        format!(
            "Object Lock keeps the log for {term} only, and blobs are kept longer for: {}. Without the log's \
             records these blobs can be neither restored whole nor destroyed with a certificate",
            named.join(", ")
        ),
        "set the default retention of the audit bucket to the longest of these periods, and extend the \
         retention of what is there (s3api put-object-retention); remove no segment meanwhile",
    ))
}

fn period(term: LockTerm) -> Option<Period> {
    match term {
        LockTerm::Days(days) => format!("P{days}D"),
        LockTerm::Years(years) => format!("P{years}Y"),
    }
    .parse()
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn judged(term: LockTerm, promises: &[(&str, &[&str])]) -> Option<Check> {
        let lock = ObjectLock::Default { compliance: true, term };
        let periods = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let promises: Vec<(Label, Vec<Period>)> =
            promises.iter().map(|(label, texts)| (label.parse().unwrap(), periods(texts))).collect();
        locked_for(Ok(Some(Reply::Is(lock))), &promises)
    }

    #[test]
    fn a_promise_longer_than_the_lock_is_a_problem() {
        let six = LockTerm::Years(6);
        for (term, promises, state) in [
            (six, &[][..], State::Ok),
            (six, &[("acme", &["P18M"][..]), ("globex", &["P6Y"])], State::Ok),
            (six, &[("acme", &["P18M"][..]), ("globex", &["P7Y"])], State::Problem),
            // What a policy promised before stands.
            (six, &[("acme", &["P10Y", "P18M"][..])], State::Problem),
            (six, &[("acme", &["P2193D"][..])], State::Problem),
            (LockTerm::Days(2557), &[("acme", &["P7Y"][..])], State::Problem),
            (LockTerm::Days(2604), &[("acme", &["P7Y"][..])], State::Ok),
            (LockTerm::Years(10), &[("acme", &["P10Y"][..])], State::Ok),
        ] {
            let check = judged(term, promises).unwrap();
            assert_eq!(check.state, state, "{term} {promises:?}: {check:?}");
        }
        let told = judged(six, &[("acme", &["P18M"]), ("globex", &["P7Y"])]).unwrap().what;
        assert!(told.contains("globex (P84M)") && !told.contains("acme"), "{told}");
    }

    #[test]
    fn without_a_lock_it_says_nothing() {
        assert_eq!(locked_for(Ok(Some(Reply::Is(ObjectLock::NoDefault))), &[]), None);
        assert_eq!(locked_for(Ok(Some(Reply::Denied)), &[]), None);
        assert_eq!(locked_for(Ok(None), &[]), None);
    }
}
