//! What a bucket on S3 must have, and not let us do.
//!
//! What is found out is judged by functions without a network; the questions are
//! [`Probe`]'s.

use object_store::path::Path;
use serde_json::Value;

use super::{AUDIT_YEARS, Check, LOOKED_AT, SMALL_COMMITS_DAYS, Subject, advice, failed};
use crate::error::Result;
use crate::store::StorageRole;
use crate::store::probe::{LifecycleRule, ObjectLock, Probe, Reply, Versioning};
use crate::time::{Clock, Timestamp};

/// How old a commit is that must be in a segment: a day's records are, soon after
/// the day.
const SEGMENTED_AFTER_MICROS: u64 = 2 * 86_400_000_000;

/// One bucket, and which part of it is whose.
#[derive(Clone, Copy)]
struct Bucket<'a> {
    role: StorageRole,
    name: &'a str,
    prefix: &'a str,
}

pub(super) async fn examine(role: StorageRole, probe: &Probe, clock: &dyn Clock) -> Vec<Check> {
    let Some((name, prefix)) = probe.url().as_s3() else { return Vec::new() };
    let bucket = Bucket { role, name, prefix };
    let mut checks = Vec::new();
    checks.extend(bucket.told(probe.versioning().await, "s3:GetBucketVersioning", |versioning| {
        vec![bucket.versions(versioning)]
    }));
    if role == StorageRole::Audit {
        checks.extend(bucket.told(
            probe.object_lock().await,
            "s3:GetBucketObjectLockConfiguration",
            |lock| vec![bucket.lock(lock)],
        ));
    }
    let rules = probe.lifecycle().await;
    if let Ok(Some(Reply::Is(rules))) = &rules
        && rules.iter().any(|rule| bucket.is_about_small_commits(rule) && rule.expires.is_some())
    {
        checks.extend(segments(probe, clock).await);
    }
    checks.extend(bucket.told(rules, "s3:GetLifecycleConfiguration", |rules| bucket.lifecycle(&rules)));
    if role != StorageRole::Blobs {
        let (tried, policy) = (probe.lets_us_delete_versions().await, probe.policy().await);
        checks.push(bucket.deletion(tried, policy));
    }
    checks
}

/// Whether there is what keeps the records of small commits that a rule deletes.
async fn segments(probe: &Probe, clock: &dyn Clock) -> Option<Check> {
    let subject = Subject::Storage(StorageRole::Audit);
    let looked = async {
        if probe.holds(&Path::from("segment"), Timestamp::MAX, 1).await? {
            return Ok(None);
        }
        let before = clock.now().micros().saturating_sub(SEGMENTED_AFTER_MICROS);
        let before = Timestamp::from_micros(before).unwrap_or(Timestamp::MAX);
        probe.holds(&Path::from("wal"), before, LOOKED_AT).await.map(Some)
    };
    let what = "a lifecycle rule deletes small commits, and there are no daily segments with their records";
    let fix = "take the rule `small-commits` away until segments are written: it deletes the only copy";
    match looked.await {
        Ok(None) => None,
        Ok(Some(true)) => Some(Check::problem(subject, what, fix)),
        Ok(Some(false)) => {
            Some(Check::warning(subject, format!("{what} yet"), "see in two days whether there are any"))
        }
        Err(error) => Some(failed(subject, &error)),
    }
}

impl Bucket<'_> {
    fn subject(self) -> Subject {
        Subject::Storage(self.role)
    }

    /// What follows from an answer, or that there was none. An answer of `None`
    /// is not one of S3.
    fn told<T>(
        self,
        reply: Result<Option<Reply<T>>>,
        permission: &str,
        judge: impl FnOnce(T) -> Vec<Check>,
    ) -> Vec<Check> {
        let unknown = |what: String, fix: String| vec![Check::unknown(self.subject(), what, fix)];
        match reply {
            Ok(Some(Reply::Is(told))) => judge(told),
            Ok(Some(Reply::Denied)) => unknown(
                format!("not looked at: {permission} is denied to us"),
                format!("allow {permission}, or run doctor with credentials that have it"),
            ),
            Ok(Some(Reply::Unsupported)) => unknown(
                format!("not looked at: this server does not know {permission}"),
                "look there yourself".to_owned(),
            ),
            Ok(None) => Vec::new(),
            Err(error) => unknown(error.chain(), advice(&error).to_owned()),
        }
    }

    fn versions(self, versioning: Versioning) -> Check {
        let fix = format!(
            "aws s3api put-bucket-versioning --bucket {} --versioning-configuration Status=Enabled",
            self.name
        );
        match (versioning, self.role) {
            (Versioning::Enabled, _) => {
                Check::ok(self.subject(), "what is deleted or replaced stays as a version")
            }
            (_, StorageRole::Blobs) => Check::ok(
                self.subject(),
                "versions are not kept: a blob that is deleted is gone, as you like it",
            ),
            (Versioning::Suspended | Versioning::Off, _) => {
                Check::problem(self.subject(), "versions are not kept: what is deleted is gone", fix)
            }
        }
    }

    fn lock(self, lock: ObjectLock) -> Check {
        let fix = format!(
            "aws s3api put-object-lock-configuration --bucket {} --object-lock-configuration \
             '{{\"ObjectLockEnabled\":\"Enabled\",\"Rule\":{{\"DefaultRetention\":{{\"Mode\":\"COMPLIANCE\",\
             \"Years\":{AUDIT_YEARS}}}}}}}'",
            self.name
        );
        let problem = |what: &str| Check::problem(self.subject(), what, fix.clone());
        match lock {
            ObjectLock::Default { compliance: true, term } if term.lasts_years(AUDIT_YEARS) => {
                let what = format!("Object Lock keeps every object for {term}, in compliance mode");
                Check::ok(self.subject(), what)
            }
            ObjectLock::Default { compliance: true, term } => problem(&format!(
                "Object Lock keeps an object for {term} only, and not for {AUDIT_YEARS} years"
            )),
            ObjectLock::Default { compliance: false, .. } => {
                problem("Object Lock is in governance mode: some may delete all the same")
            }
            ObjectLock::NoDefault => problem("Object Lock has no default retention, so it keeps nothing"),
            ObjectLock::Off => problem("Object Lock is off: the log can be deleted"),
        }
    }

    fn lifecycle(self, rules: &[LifecycleRule]) -> Vec<Check> {
        let ours: Vec<_> = rules.iter().filter(|rule| self.is_about_us(rule)).collect();
        let mut checks = Vec::new();
        if self.role == StorageRole::Blobs {
            checks.push(self.abandoned_parts(rules));
        }
        let mut small_commits = None;
        for rule in ours {
            if self.is_about_small_commits(rule) {
                small_commits = small_commits.or(rule.expires);
                checks.extend(self.small_commits(rule));
                continue;
            }
            checks.extend(self.expiry(rule));
        }
        if self.role == StorageRole::Audit && small_commits.is_none() {
            let what =
                format!("small commits are kept for good; they are needed for {SMALL_COMMITS_DAYS} days");
            checks.push(Check::ok(self.subject(), what));
        }
        checks
    }

    /// With a slash behind it, unless it is the whole bucket.
    fn folder(self) -> String {
        if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) }
    }

    /// Our objects have no tags.
    fn is_about_us(self, rule: &LifecycleRule) -> bool {
        let folder = self.folder();
        !rule.tagged && (folder.starts_with(&rule.prefix) || rule.prefix.starts_with(&folder))
    }

    fn is_about_small_commits(self, rule: &LifecycleRule) -> bool {
        self.role == StorageRole::Audit
            && !rule.tagged
            && rule.prefix.starts_with(&format!("{}wal/", self.folder()))
    }

    fn abandoned_parts(self, rules: &[LifecycleRule]) -> Check {
        if rules.iter().any(|rule| rule.aborts_uploads && self.is_about_us(rule)) {
            return Check::ok(self.subject(), "a lifecycle rule removes the parts of unfinished uploads");
        }
        Check::warning(
            self.subject(),
            "no lifecycle rule removes the parts of uploads whose program was killed: they stay, \
             invisible and paid for",
            "add the rule `abandoned-parts` that `strongroom doctor --policies` prints",
        )
    }

    fn small_commits(self, rule: &LifecycleRule) -> Option<Check> {
        let days = rule.expires?;
        Some(if days >= SMALL_COMMITS_DAYS {
            Check::ok(self.subject(), format!("small commits are deleted after {days} days"))
        } else {
            Check::problem(
                self.subject(),
                format!(
                    "a lifecycle rule deletes small commits before {SMALL_COMMITS_DAYS} days are over: \
                     records can be \
                     lost that are in no daily segment yet"
                ),
                format!(
                    "let the rule with prefix `{}` expire objects after {SMALL_COMMITS_DAYS} days",
                    rule.prefix
                ),
            )
        })
    }

    fn expiry(self, rule: &LifecycleRule) -> Option<Check> {
        let fix = format!(
            "take the expiration out of the rule with prefix `{}`: aws s3api \
             get-bucket-lifecycle-configuration \
             --bucket {} shows it",
            rule.prefix, self.name
        );
        match (rule.expires, rule.noncurrent, self.role) {
            (Some(_), _, StorageRole::Blobs) => Some(Check::warning(
                self.subject(),
                "a lifecycle rule deletes blobs, whatever their retention and legal holds say",
                fix,
            )),
            (Some(_), _, StorageRole::Keys) => Some(Check::problem(
                self.subject(),
                "a lifecycle rule deletes rings and epochs: all blobs under them will be unreadable",
                fix,
            )),
            (Some(_), _, StorageRole::Audit) => Some(Check::problem(
                self.subject(),
                "a lifecycle rule deletes more of the audit log than small commits",
                fix,
            )),
            (None, Some(_), StorageRole::Keys | StorageRole::Audit) => Some(Check::warning(
                self.subject(),
                "a lifecycle rule deletes old versions: then a mistaken deletion cannot be taken back \
                 for long",
                fix,
            )),
            _ => None,
        }
    }

    /// Two looks, because none is whole: what our own credentials may do with a
    /// version, and whether the bucket's policy denies deletion to everyone.
    fn deletion(self, tried: Result<Option<bool>>, policy: Result<Option<Reply<String>>>) -> Check {
        let fix = format!(
            "take s3:DeleteObject and s3:DeleteObjectVersion from these credentials, and give bucket {} \
             the policy that \
             `strongroom doctor --policies` prints",
            self.name
        );
        let denied = match policy {
            Ok(Some(Reply::Is(policy))) => Some(denies_deletion(&policy, self)),
            _ => None,
        };
        match (tried, denied) {
            (Ok(Some(true)), _) => Check::problem(
                self.subject(),
                "these credentials may delete from it: then a ring or commit number can be taken twice",
                fix,
            ),
            (_, Some(true)) => Check::ok(self.subject(), "the bucket's policy denies deletion to everyone"),
            (Ok(Some(false)), Some(false)) => Check::warning(
                self.subject(),
                "these credentials may not delete versions; that nobody may delete is not in the \
                 bucket's policy",
                fix,
            ),
            (Ok(Some(false)), None) => Check::unknown(
                self.subject(),
                "these credentials may not delete versions; whether they may leave delete markers was \
                 not found out",
                "allow s3:GetBucketPolicy, or look whether the bucket's policy denies s3:DeleteObject \
                 to everyone",
            ),
            (Err(error), _) => Check::unknown(self.subject(), error.chain(), advice(&error)),
            (Ok(None), _) => Check::unknown(self.subject(), "not asked about deletion", fix),
        }
    }
}

/// Whether a bucket's policy denies everyone to delete the objects of a
/// storage: one statement without conditions, for all of them.
fn denies_deletion(policy: &str, bucket: Bucket<'_>) -> bool {
    let Ok(policy) = serde_json::from_str::<Value>(policy) else { return false };
    let object = format!("arn:aws:s3:::{}/{}", bucket.name, bucket.folder());
    let all_denied = |action: &str| {
        one_or_many(&policy["Statement"]).any(|statement| {
            let everyone = statement["Principal"] == "*" || statement["Principal"]["AWS"] == "*";
            let names = |field: &str, covers: &dyn Fn(&str) -> bool| {
                one_or_many(&statement[field]).any(|value| value.as_str().is_some_and(covers))
            };
            statement["Effect"] == "Deny"
                && everyone
                && statement["Condition"].is_null()
                && names("Action", &|pattern| covers(pattern, action))
                && names("Resource", &|pattern| {
                    // Any partition of AWS.
                    let rest = |arn: &str| arn.splitn(3, ':').nth(2).map(str::to_owned);
                    let (pattern, object) = (rest(pattern), rest(&object));
                    pattern.zip(object).is_some_and(|(pattern, object)| covers(&pattern, &object))
                })
        })
    };
    all_denied("s3:DeleteObject") && all_denied("s3:DeleteObjectVersion")
}

/// Whether a pattern with nothing but a `*` at its end, as we look for, matches
/// whatever begins with `text`.
fn covers(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern.eq_ignore_ascii_case(text), |beginning| {
        text.len() >= beginning.len()
            && text.is_char_boundary(beginning.len())
            && text[..beginning.len()].eq_ignore_ascii_case(beginning)
    })
}

fn one_or_many(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Array(values) => values.iter(),
        Value::Null => [].iter(),
        one => std::slice::from_ref(one).iter(),
    }
}

/// Reads a bucket's policy: for [`crate::fuzz`].
#[cfg(feature = "aws")]
pub(crate) fn fuzz(policy: &str) -> bool {
    denies_deletion(policy, Bucket { role: StorageRole::Audit, name: "bucket", prefix: "store/audit" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use crate::error::{Error, ErrorKind};
    use crate::store::probe::LockTerm;

    fn bucket(role: StorageRole) -> Bucket<'static> {
        Bucket { role, name: "my-bucket", prefix: "a" }
    }

    const KEYS: StorageRole = StorageRole::Keys;
    const AUDIT: StorageRole = StorageRole::Audit;
    const BLOBS: StorageRole = StorageRole::Blobs;

    #[test]
    fn versions_matter_for_keys_and_audit() {
        for role in [KEYS, AUDIT] {
            assert_eq!(bucket(role).versions(Versioning::Enabled).state, State::Ok);
            for off in [Versioning::Off, Versioning::Suspended] {
                let check = bucket(role).versions(off);
                assert_eq!(check.state, State::Problem);
                assert!(check.fix.unwrap().contains("put-bucket-versioning --bucket my-bucket"));
            }
        }
        assert_eq!(bucket(BLOBS).versions(Versioning::Off).state, State::Ok);
    }

    #[test]
    fn the_lock_is_for_six_years_and_for_everyone() {
        let default = |compliance, term| ObjectLock::Default { compliance, term };
        for (lock, state) in [
            (default(true, LockTerm::Years(6)), State::Ok),
            (default(true, LockTerm::Days(3000)), State::Ok),
            (default(true, LockTerm::Days(35)), State::Problem),
            (default(false, LockTerm::Years(10)), State::Problem),
            (ObjectLock::NoDefault, State::Problem),
            (ObjectLock::Off, State::Problem),
        ] {
            let check = bucket(AUDIT).lock(lock);
            assert_eq!(check.state, state, "{lock:?}");
            let Some(fix) = check.fix else { continue };
            let (_, json) = fix.split_once('\'').unwrap();
            let json: Value = serde_json::from_str(json.trim_end_matches('\'')).unwrap();
            assert_eq!(json["Rule"]["DefaultRetention"]["Years"], 6);
        }
    }

    #[test]
    fn rules_may_delete_small_commits_and_nothing_else() {
        let rule = |prefix: &str, days| LifecycleRule {
            prefix: prefix.to_owned(),
            expires: Some(days),
            ..LifecycleRule::default()
        };
        let worst = |role, rule: LifecycleRule| {
            bucket(role).lifecycle(&[rule]).iter().map(|check| check.state).max().unwrap_or(State::Ok)
        };
        assert_eq!(worst(AUDIT, rule("a/wal/", 35)), State::Ok);
        assert_eq!(worst(AUDIT, rule("a/wal/", 34)), State::Problem);
        assert_eq!(worst(AUDIT, rule("a/wal/0000/", 0)), State::Problem, "at a date");
        for prefix in ["", "a", "a/", "a/w", "a/wal", "a/segment/", "a/tile/", "a/checkpoint", "a/pin/x"] {
            assert_eq!(worst(AUDIT, rule(prefix, 4000)), State::Problem, "{prefix}");
        }
        for prefix in ["b/", "ab/", "a/../"] {
            let expected = if prefix.starts_with("a/") { State::Problem } else { State::Ok };
            assert_eq!(worst(AUDIT, rule(prefix, 1)), expected, "{prefix}");
        }
        assert_eq!(worst(AUDIT, LifecycleRule { tagged: true, ..rule("", 1) }), State::Ok);
        assert_eq!(worst(KEYS, rule("", 4000)), State::Problem);
        assert_eq!(worst(KEYS, rule("a/wal/", 4000)), State::Problem, "there is no log here");
        assert_eq!(worst(BLOBS, rule("", 4000)), State::Warning);
        let old = LifecycleRule { noncurrent: Some(90), ..LifecycleRule::default() };
        assert_eq!(worst(KEYS, old.clone()), State::Warning);
        assert_eq!(bucket(BLOBS).expiry(&old), None);
        let parts = LifecycleRule { aborts_uploads: true, ..LifecycleRule::default() };
        assert_eq!(worst(BLOBS, parts.clone()), State::Ok);
        assert_eq!(worst(BLOBS, LifecycleRule { prefix: "b/".to_owned(), ..parts }), State::Warning);
        assert_eq!(bucket(AUDIT).lifecycle(&[]).len(), 1, "a note that small commits stay");
    }

    #[test]
    fn a_policy_must_deny_all_of_it_to_everyone() {
        let policy = |statement: Value| serde_json::json!({ "Statement": statement }).to_string();
        let good = serde_json::json!({
            "Effect": "Deny", "Principal": "*", "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            "Resource": ["arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/a/*"],
        });
        let denies = |policy: &str| denies_deletion(policy, bucket(KEYS));
        assert!(denies(&policy(good.clone())));
        assert!(denies(&policy(serde_json::json!([{ "Effect": "Allow" }, good]))));
        for (field, value, expected) in [
            ("Action", serde_json::json!("s3:Delete*"), true),
            ("Action", serde_json::json!("s3:deleteobject*"), true),
            ("Action", serde_json::json!("s3:*"), true),
            ("Action", serde_json::json!("s3:DeleteObject"), false),
            ("Resource", serde_json::json!("arn:aws:s3:::my-bucket/*"), true),
            ("Resource", serde_json::json!("arn:aws-us-gov:s3:::my-bucket/*"), true),
            ("Resource", serde_json::json!("arn:aws:s3:::my-bucket/a/ring/*"), false),
            ("Resource", serde_json::json!("arn:aws:s3:::other/*"), false),
            ("Principal", serde_json::json!({ "AWS": "*" }), true),
            ("Principal", serde_json::json!({ "AWS": "arn:aws:iam::1:role/x" }), false),
            ("Effect", serde_json::json!("Allow"), false),
            ("Condition", serde_json::json!({ "Bool": {} }), false),
        ] {
            let mut changed = good.clone();
            changed[field] = value;
            assert_eq!(denies(&policy(changed.clone())), expected, "{changed}");
        }
        assert!(!denies("") && !denies("{}") && !denies("[]"));
    }

    #[test]
    fn what_was_not_found_out_is_not_ok() {
        let denied = || Ok(Some(Reply::Denied));
        let silent = || Error::new(ErrorKind::Unavailable, "no answer");
        let deletion = |tried, policy| bucket(KEYS).deletion(tried, policy).state;
        let good = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::my-bucket/*"}}"#;
        let good = || Ok(Some(Reply::Is(good.to_owned())));
        let none = || Ok(Some(Reply::Is(String::new())));
        assert_eq!(deletion(Ok(Some(true)), good()), State::Problem, "what was tried counts");
        assert_eq!(deletion(Ok(Some(false)), good()), State::Ok);
        assert_eq!(deletion(Ok(Some(false)), none()), State::Warning);
        assert_eq!(deletion(Ok(Some(false)), denied()), State::Unknown);
        assert_eq!(deletion(Err(silent()), denied()), State::Unknown);
        let told = |reply| bucket(KEYS).told(reply, "s3:X", |(): ()| vec![]).first().map(|check| check.state);
        assert_eq!(told(Ok(Some(Reply::Denied))), Some(State::Unknown));
        assert_eq!(told(Ok(Some(Reply::Unsupported))), Some(State::Unknown));
        assert_eq!(told(Err(silent())), Some(State::Unknown));
        assert_eq!(told(Ok(Some(Reply::Is(())))), None);
    }
}
