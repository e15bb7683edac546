//! Questions to a bucket that `object_store` has no call for.
//!
//! Each is one signed request over a [`Line`]. Separate from the rest of S3 because it has its own
//! way to the server, without retries, and reads answers in XML: by the names
//! of a few elements that the S3 API reference defines, each with text or with
//! elements of other names in it, so that no general reader of XML is needed.
//!
//! Invariant: nothing of a URL, which is a credential for a minute, and nothing
//! of an answer gets into an error.

use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody};
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};

use super::super::fault::{store_error, unusable, within};
use super::super::probe::{LifecycleRule, LockTerm, ObjectLock, Reply, Versioning};
use super::super::{answers, bounded};
use crate::error::{Error, ErrorKind, Result};
use crate::time::{Clock, Timestamp};

/// How long a signed URL is good for.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes. A bucket has 1000 lifecycle rules
/// and 20 KB of policy at most.
const LONGEST: usize = 4 << 20;

/// `GetBucketVersioning`.
pub(in crate::store) async fn versioning(bucket: &AmazonS3, deadline: Duration) -> Result<Reply<Versioning>> {
    let answer = about(bucket, "versioning", "ask whether the bucket keeps versions", deadline).await?;
    answer.reply(&[], || Versioning::Off, read_versioning)
}

/// `GetObjectLockConfiguration`.
pub(in crate::store) async fn object_lock(
    bucket: &AmazonS3,
    deadline: Duration,
) -> Result<Reply<ObjectLock>> {
    let answer = about(bucket, "object-lock", "ask for the bucket's Object Lock", deadline).await?;
    answer.reply(&["ObjectLockConfigurationNotFoundError"], || ObjectLock::Off, read_object_lock)
}

/// `GetBucketLifecycleConfiguration`: the enabled rules.
pub(in crate::store) async fn lifecycle(
    bucket: &AmazonS3,
    deadline: Duration,
) -> Result<Reply<Vec<LifecycleRule>>> {
    let answer = about(bucket, "lifecycle", "look for the bucket's lifecycle rules", deadline).await?;
    answer.reply(&["NoSuchLifecycleConfiguration"], Vec::new, |xml| Some(read_lifecycle(xml)))
}

/// `GetBucketPolicy`, as text.
pub(in crate::store) async fn policy(bucket: &AmazonS3, deadline: Duration) -> Result<Reply<String>> {
    let answer = about(bucket, "policy", "ask for the bucket's policy", deadline).await?;
    answer.reply(&["NoSuchBucketPolicy"], String::new, |json| Some(json.to_owned()))
}

/// What time it is, by the `Date` of whatever the server answers: a refusal has
/// one too. Whole seconds, rounded down.
pub(in crate::store) async fn time(bucket: &AmazonS3, deadline: Duration) -> Result<Option<Timestamp>> {
    let answer = about(bucket, "versioning", "ask the bucket for the time", deadline).await?;
    Ok(answer.date)
}

/// How many seconds this machine's clock is ahead of the server's [`time`].
pub(in crate::store) async fn clock_ahead(
    bucket: &AmazonS3,
    clock: &dyn Clock,
    deadline: Duration,
) -> Result<Option<i64>> {
    let before = clock.uptime();
    let date = time(bucket, deadline).await?;
    // The server's moment lies between question and answer: take the middle.
    let half = clock.uptime().saturating_sub(before) / 2;
    let ours = i64::try_from(clock.now().micros() / 1_000_000).unwrap_or(i64::MAX);
    let half = i64::try_from(half.as_secs()).unwrap_or(i64::MAX);
    let seconds = |at: Timestamp| i64::try_from(at.micros() / 1_000_000).unwrap_or(i64::MAX);
    Ok(date.map(|date| ours.saturating_sub(half).saturating_sub(seconds(date))))
}

/// Whether we may delete a version of the object at `path`, which must not exist.
///
/// **Harmless**, because it asks for the version `null` of an object that has no
/// versions. A deletion of a *named* version never leaves a delete marker (S3
/// user guide, "Deleting object versions from a versioning-enabled bucket"), and
/// there is no such version to go. Permission is judged first: 403 if we may
/// not. A deletion without a version would be the one that matters more, but
/// where we may it leaves a marker, so it is never tried.
pub(in crate::store) async fn may_delete_version(
    bucket: &AmazonS3,
    path: &Path,
    deadline: Duration,
) -> Result<bool> {
    const WHAT: &str = "ask whether we may delete";
    let query = [("versionId", "null")];
    let ask = async { Line::open(bucket, WHAT).await?.ask(Method::DELETE, path, &query, WHAT).await };
    let answer = within(deadline, WHAT, ask).await?;
    match answer.status {
        403 => Ok(false),
        // Done, not there, or no such version: it was allowed.
        200..300 | 404 => Ok(true),
        _ => Err(answer.failed()),
    }
}

async fn about(
    bucket: &AmazonS3,
    subresource: &'static str,
    what: &'static str,
    deadline: Duration,
) -> Result<Answer> {
    let path = Path::default();
    let ask =
        async { Line::open(bucket, what).await?.ask(Method::GET, &path, &[(subresource, "")], what).await };
    within(deadline, what, ask).await
}

/// A way to the server of a bucket, with the connections that were made.
pub(super) struct Line<'a> {
    bucket: &'a AmazonS3,
    client: HttpClient,
}

impl<'a> Line<'a> {
    pub(super) async fn open(bucket: &'a AmazonS3, what: &'static str) -> Result<Self> {
        // A signed URL is made here, without a request, and tells the scheme.
        let url = bucket
            .signed_url(Method::GET, &Path::default(), SIGNED_FOR)
            .await
            .map_err(|error| store_error(error, what))?;
        let options = bounded::client().with_allow_http(url.scheme() == "http");
        let limiting = answers::Limiting { objects: true };
        let client = limiting.connect(&options).map_err(|error| store_error(error, what))?;
        Ok(Self { bucket, client })
    }

    /// One request. It has no deadline of its own.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &Path,
        query: &[(&str, &str)],
        what: &'static str,
    ) -> Result<Answer> {
        let options = SignedUrlOptions::new().with_query(query.iter().copied());
        let url = self
            .bucket
            .signed_url_opts(method.clone(), path, SIGNED_FOR, &options)
            .await
            .map_err(|error| store_error(error, what))?;
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().map_err(|_| unusable(format!("failed to {what}")))?;
        // No error of these is kept: they quote the URL.
        let silent = || Error::new(ErrorKind::Unavailable, format!("failed to {what}"));
        let answer = self.client.execute(request).await.map_err(|_| silent())?;
        let status = answer.status().as_u16();
        let date = answer.headers().get("date").and_then(|date| http_date(date.to_str().ok()?));
        let body = answer.into_body().bytes().await.map_err(|_| silent())?;
        let body = String::from_utf8_lossy(body.get(..LONGEST).unwrap_or(&body)).into_owned();
        Ok(Answer { what, status, date, body })
    }
}

pub(super) struct Answer {
    what: &'static str,
    pub(super) status: u16,
    date: Option<Timestamp>,
    pub(super) body: String,
}

impl Answer {
    /// What the answer says: `none` where one of these error codes says that
    /// nothing is configured.
    pub(super) fn reply<T>(
        &self,
        absent: &[&str],
        none: impl FnOnce() -> T,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Reply<T>> {
        let code = text(&self.body, "Code").unwrap_or_default();
        match self.status {
            200 => read(&self.body).map(Reply::Is).ok_or_else(|| self.failed()),
            _ if absent.contains(&&*code) => Ok(Reply::Is(none())),
            403 => Ok(Reply::Denied),
            405 | 501 => Ok(Reply::Unsupported),
            404 if code == "NoSuchBucket" => Err(unusable("there is no such bucket")),
            _ => Err(self.failed()),
        }
    }

    pub(super) fn failed(&self) -> Error {
        let message = format!("failed to {} (HTTP {})", self.what, self.status);
        Error::new(ErrorKind::Unavailable, message)
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 s5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Timestamp::from_micros(u64::try_from(at.as_microsecond()).ok()?).ok()
}

fn read_versioning(xml: &str) -> Option<Versioning> {
    element(xml, "VersioningConfiguration")?;
    match text(xml, "Status").as_deref() {
        None => Some(Versioning::Off),
        Some("Enabled") => Some(Versioning::Enabled),
        Some("Suspended") => Some(Versioning::Suspended),
        Some(_) => None,
    }
}

fn read_object_lock(xml: &str) -> Option<ObjectLock> {
    element(xml, "ObjectLockConfiguration")?;
    if text(xml, "ObjectLockEnabled").as_deref() != Some("Enabled") {
        return Some(ObjectLock::Off);
    }
    let Some(retention) = element(xml, "DefaultRetention") else { return Some(ObjectLock::NoDefault) };
    let compliance = match text(retention, "Mode")?.as_str() {
        "COMPLIANCE" => true,
        "GOVERNANCE" => false,
        _ => return None,
    };
    let term = match (number(retention, "Days"), number(retention, "Years")) {
        (Some(days), None) => LockTerm::Days(days),
        (None, Some(years)) => LockTerm::Years(years),
        _ => return None,
    };
    Some(ObjectLock::Default { compliance, term })
}

fn read_lifecycle(xml: &str) -> Vec<LifecycleRule> {
    let enabled = |rule: &&str| text(rule, "Status").as_deref() == Some("Enabled");
    elements(xml, "Rule").filter(enabled).map(read_rule).collect()
}

fn read_rule(rule: &str) -> LifecycleRule {
    let expires = element(rule, "Expiration").and_then(|expiration| {
        // One that takes away delete markers deletes no object.
        let dated = element(expiration, "Date").map(|_| 0);
        number(expiration, "Days").or(dated)
    });
    LifecycleRule {
        prefix: text(rule, "Prefix").unwrap_or_default(),
        tagged: element(rule, "Tag").is_some(),
        expires,
        noncurrent: element(rule, "NoncurrentVersionExpiration")
            .map(|expiration| number(expiration, "NoncurrentDays").unwrap_or(0)),
        aborts_uploads: element(rule, "AbortIncompleteMultipartUpload").is_some(),
    }
}

/// The content of the first element of this name.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    elements(xml, name).next()
}

/// The contents of the elements of this name, none of which lies within another.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find(&open)?;
            rest = &rest[at + open.len()..];
            let (tag, after) = rest.split_once('>')?;
            // `<Rule` begins `<RuleSet>` too; attributes come after a space.
            if !(tag.is_empty() || tag == "/" || tag.starts_with(char::is_whitespace)) {
                continue;
            }
            rest = after;
            if tag.ends_with('/') {
                return Some("");
            }
            let (content, after) = rest.split_once(&close)?;
            rest = after;
            return Some(content);
        }
    })
}

/// The text of the first element of this name.
pub(super) fn text(xml: &str, name: &str) -> Option<String> {
    let escaped = element(xml, name)?.trim();
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    Some(plain.iter().fold(escaped.to_owned(), |text, (from, to)| text.replace(from, to)))
}

fn number(xml: &str, name: &str) -> Option<u32> {
    text(xml, name)?.parse().ok()
}

/// Reads the answers about a bucket: for [`crate::fuzz`].
pub(crate) fn fuzz(xml: &str) -> bool {
    let about = read_versioning(xml).is_some() | read_object_lock(xml).is_some();
    about | !read_lifecycle(xml).is_empty() | http_date(xml).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = r#"xmlns="http://s3.amazonaws.com/doc/2006-03-01/""#;

    #[test]
    fn versioning_is_read() {
        let xml = |inside: &str| {
            format!(
                "<VersioningConfiguration \
             {NAMESPACE}>{inside}</VersioningConfiguration>"
            )
        };
        assert_eq!(read_versioning(&xml("<Status>Enabled</Status>")), Some(Versioning::Enabled));
        assert_eq!(read_versioning(&xml("\n <Status>Suspended</Status>\n")), Some(Versioning::Suspended));
        assert_eq!(read_versioning(&xml("")), Some(Versioning::Off));
        let never = format!("<?xml version=\"1.0\"?>\n<VersioningConfiguration {NAMESPACE}/>");
        assert_eq!(read_versioning(&never), Some(Versioning::Off));
        assert_eq!(read_versioning(&xml("<Status>Maybe</Status>")), None);
        assert_eq!(
            read_versioning("<html>login</html>"),
            None,
            "a portal that answers everything with \
         200"
        );
        assert_eq!(read_versioning(""), None);
    }

    #[test]
    fn the_default_retention_is_read() {
        let xml = |inside: &str| {
            format!(
                "<ObjectLockConfiguration \
             {NAMESPACE}>{inside}</ObjectLockConfiguration>"
            )
        };
        let rule = |inside: &str| {
            xml(&format!(
                "<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>{inside}\
                 </DefaultRetention></Rule>"
            ))
        };
        let default = |compliance, term| Some(ObjectLock::Default { compliance, term });
        assert_eq!(
            read_object_lock(&rule("<Mode>COMPLIANCE</Mode><Years>6</Years>")),
            default(true, LockTerm::Years(6))
        );
        assert_eq!(
            read_object_lock(&rule("<Days>35</Days><Mode>GOVERNANCE</Mode>")),
            default(false, LockTerm::Days(35))
        );
        assert_eq!(read_object_lock(&rule("<Mode>COMPLIANCE</Mode>")), None);
        assert_eq!(read_object_lock(&rule("<Mode>ELSE</Mode><Days>1</Days>")), None);
        assert_eq!(
            read_object_lock(&xml("<ObjectLockEnabled>Enabled</ObjectLockEnabled>")),
            Some(ObjectLock::NoDefault)
        );
        assert_eq!(read_object_lock(&xml("")), Some(ObjectLock::Off));
        assert_eq!(read_object_lock("<Error/>"), None);
    }

    #[test]
    fn enabled_rules_are_read() {
        let xml = format!(
            "<?xml version=\"1.0\"?>\n<LifecycleConfiguration {NAMESPACE}>\
             <Rule><ID>a</ID><Status>Enabled</Status><Filter><Prefix>audit/wal/</Prefix></Filter>\
             <Expiration><Days>35</Days></Expiration>\
             <NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays></NoncurrentVersionExpiration></Rule>\
             <Rule><Status>Disabled</Status><Prefix/><Expiration><Days>1</Days></Expiration></Rule>\
             <Rule><Status>Enabled</Status><Prefix></Prefix>\
             <AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation>\
             </AbortIncompleteMultipartUpload></Rule>\
             <Rule><Status>Enabled</Status><Filter><And><Prefix>a&amp;b/</Prefix><Tag><Key>k</Key>\
             <Value>v</Value></Tag></And></Filter><Transition><Days>9</Days></Transition>\
             <Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration></Rule>\
             <Rule><Status>Enabled</Status><Filter/><Expiration>\
             <ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>\
             </LifecycleConfiguration>"
        );
        let prefix = |prefix: &str| LifecycleRule { prefix: prefix.to_owned(), ..LifecycleRule::default() };
        assert_eq!(
            read_lifecycle(&xml),
            [
                LifecycleRule { expires: Some(35), noncurrent: Some(1), ..prefix("audit/wal/") },
                LifecycleRule { aborts_uploads: true, ..prefix("") },
                LifecycleRule { tagged: true, expires: Some(0), ..prefix("a&b/") },
                prefix(""),
            ]
        );
        assert_eq!(read_lifecycle(""), []);
        assert_eq!(read_lifecycle("<Rule><Status>Enabled"), []);
    }

    #[test]
    fn refusals_are_told_apart() {
        let answer = |status, code: &str| Answer {
            what: "ask",
            status,
            date: None,
            body: format!("<Error><Code>{code}</Code></Error>"),
        };
        let read = |answer: Answer| answer.reply(&["Absent"], || 0, |_| Some(1));
        assert_eq!(read(answer(200, "")).unwrap(), Reply::Is(1));
        assert_eq!(read(answer(404, "Absent")).unwrap(), Reply::Is(0));
        assert_eq!(read(answer(403, "AccessDenied")).unwrap(), Reply::Denied);
        assert_eq!(read(answer(501, "NotImplemented")).unwrap(), Reply::Unsupported);
        assert_eq!(read(answer(404, "NoSuchBucket")).unwrap_err().kind(), ErrorKind::Configuration);
        let error = read(answer(500, "SECRET")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!format!("{error:?}").contains("SECRET"));
        assert!(answer(200, "").reply(&[], || 0, |_| None).is_err(), "an answer that makes no sense");
    }

    #[test]
    fn dates_of_answers_are_read() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap().micros(), 784_111_777_000_000);
        assert_eq!(http_date("yesterday"), None);
    }
}
