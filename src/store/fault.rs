//! What went wrong in a storage, in our own words.
//!
//! Separate because the storages' own errors must not be passed on: they quote
//! URLs, headers and whole answers, and an answer to a wrong signature repeats
//! the session token it was made with. What is kept of them is a status, an
//! error code of letters and digits, and the operating system's error number.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use super::limits::Limit;
use crate::error::{Error, ErrorKind, Result};

/// The error of a failed call to a storage. `what` completes "failed to …" and
/// holds no user text.
///
/// | what happened | kind |
/// |---|---|
/// | no such object, or fewer bytes than the range begins at | [`ErrorKind::NotFound`] |
/// | create-if-absent found one | [`ErrorKind::AlreadyExists`] |
/// | more bytes than an object of its kind has ([`limits`](super::limits)) | [`ErrorKind::Integrity`] |
/// | no such bucket, credentials or permissions refused, read-only disk | [`ErrorKind::Configuration`] |
/// | another write in the act (S3's 409), full disk, throttling, no answer, anything else | [`ErrorKind::Unavailable`] |
///
/// `AlreadyExists` is not proof that someone else was first: the answer to a
/// write that did succeed may have been lost and the write repeated below us.
/// `store::create` reads the object back and says which.
#[must_use]
pub fn store_error(error: object_store::Error, what: &'static str) -> Error {
    let (kind, cause) = classify(&error);
    Error::new(kind, format!("failed to {what}")).with_source(cause)
}

/// Runs `call` for `deadline` at most; a storage that hangs is one that does
/// not answer.
///
/// # Errors
/// Those of `call`, or [`ErrorKind::Unavailable`]. The call was then dropped
/// half-way: it may or may not have taken effect.
pub async fn within<T>(
    deadline: Duration,
    what: &'static str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, call).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("failed to {what}"))
            .with_source(Cause::new(format!("no answer within {deadline:?}")))),
    }
}

/// Whether a conditional write met another one in the act, which says nothing of what stands
/// there: S3 answers `409 ConditionalRequestConflict` then, and some servers `OperationAborted`.
/// **412 is the answer for an object that exists**, and Azure's `409 BlobAlreadyExists`.
///
/// `object_store` reports 409 and 412 alike as [`AlreadyExists`](object_store::Error::AlreadyExists).
/// It wraps a 412 in an error of its own, and hands a 409 on with the server's answer.
pub(super) fn is_conflict(error: &object_store::Error) -> bool {
    use object_store::Error as E;

    let E::AlreadyExists { source, .. } = error else { return false };
    if matches!(source.downcast_ref(), Some(E::Precondition { .. } | E::NotModified { .. })) {
        return false;
    }
    let answer = Answer::of(error);
    // A 409 without a known code is tried again too: if there is an object, it is read in the end.
    answer.status == Some(409) && !answer.code.is_some_and(|code| code.ends_with("AlreadyExists"))
}

/// What is left of a conflict that would not end.
pub(super) fn conflicted() -> object_store::Error {
    object_store::Error::Generic { store: "storage", source: Box::new(Conflicted) }
}

/// Whether the storage said something about the request. A connection that broke says nothing.
pub(super) fn has_answer(error: &object_store::Error) -> bool {
    let is_plain = matches!(error, object_store::Error::Generic { .. });
    !is_plain || Answer::of(error).status.is_some()
}

/// An object that cannot be created, because it is there, and cannot be read, because it is not.
pub(super) fn contradiction(what: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("failed to {what}"))
        .with_source(Cause::new("the storage says that there is such an object, and shows none"))
}

/// A storage that exceeded its deadline, as one of its own errors.
pub(super) fn silence(deadline: Duration) -> object_store::Error {
    object_store::Error::Generic { store: "storage", source: Box::new(Silence(deadline)) }
}

/// An object of this kind, or what is sent of it, that is larger than it can be.
pub(super) fn too_large(limit: Limit) -> object_store::Error {
    object_store::Error::Generic { store: "storage", source: Box::new(TooLarge { limit, ours: false }) }
}

/// As [`too_large`], of what we were about to write.
pub(super) fn too_large_to_write(limit: Limit) -> object_store::Error {
    object_store::Error::Generic { store: "storage", source: Box::new(TooLarge { limit, ours: true }) }
}

/// Whether an object was not read because it is larger than its kind.
pub(crate) fn is_too_large(error: &object_store::Error) -> bool {
    cause_of::<TooLarge>(error).is_some()
}

/// Whether a file system said this. Then no answer was lost on its way, and what is visible
/// nevertheless need not be on the disk. (A store's own directories need no such care: what is read
/// there is on the disk.)
pub(crate) fn is_of_file_system(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::Generic { store: "LocalFileSystem", .. })
}

/// A configuration of a storage that cannot be used.
pub(super) fn unusable(sentence: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, sentence)
}

/// The chain of credential sources gave none; `late` if it took too long.
#[cfg(feature = "aws")]
#[derive(Debug)]
pub(super) struct NoCredentials {
    pub(super) late: bool,
}

#[cfg(feature = "aws")]
impl fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.late {
            "the source of our AWS credentials did not answer"
        } else {
            "no AWS credentials were found in the environment, a profile or a role"
        })
    }
}

#[cfg(feature = "aws")]
impl StdError for NoCredentials {}

#[derive(Debug)]
struct Silence(Duration);

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl StdError for Silence {}

#[derive(Debug)]
struct TooLarge {
    limit: Limit,
    ours: bool,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { kind, bytes } = self.limit;
        write!(f, "too large for the kind \"{kind}\", which has {bytes} bytes at most")?;
        f.write_str(if self.ours { ": it was not written" } else { ": the storage has or sends more" })
    }
}

impl StdError for TooLarge {}

#[derive(Debug)]
struct Conflicted;

impl fmt::Display for Conflicted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another write of the same object was under way at each attempt")
    }
}

impl StdError for Conflicted {}

/// Our sentence about another library's error.
struct Cause(String);

impl Cause {
    fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cause({})", self.0)
    }
}

impl StdError for Cause {}

fn classify(error: &object_store::Error) -> (ErrorKind, Cause) {
    use object_store::Error as E;

    let answer = Answer::of(error);
    if let Some((kind, sentence)) = answer.code.as_deref().and_then(by_code) {
        return (kind, answer.after(sentence));
    }
    if let Some(io) = cause_of::<io::Error>(error)
        && let Some((kind, sentence)) = by_io(io.kind())
    {
        return (kind, Cause::new(format!("{sentence} ({})", plain(io))));
    }
    if let Some(large) = cause_of::<TooLarge>(error) {
        let kind = if large.ours { ErrorKind::InvalidInput } else { ErrorKind::Integrity };
        return (kind, Cause::new(large.to_string()));
    }
    if let Some(silence) = cause_of::<Silence>(error) {
        return (ErrorKind::Unavailable, Cause::new(silence.to_string()));
    }
    if cause_of::<Conflicted>(error).is_some() || is_conflict(error) {
        return (ErrorKind::Unavailable, answer.after(&Conflicted.to_string()));
    }
    #[cfg(feature = "aws")]
    if let Some(missing) = cause_of::<NoCredentials>(error) {
        let kind = if missing.late { ErrorKind::Unavailable } else { ErrorKind::Configuration };
        return (kind, Cause::new(missing.to_string()));
    }
    let (kind, sentence) = match error {
        E::NotFound { .. } => (ErrorKind::NotFound, "there is no such object"),
        E::AlreadyExists { .. } | E::Precondition { .. } => {
            (ErrorKind::AlreadyExists, "there is such an object already")
        }
        E::Unauthenticated { .. } => {
            (ErrorKind::Configuration, "the storage does not accept our credentials")
        }
        E::PermissionDenied { .. } => (ErrorKind::Configuration, "the storage denies us this"),
        E::NotSupported { .. } | E::NotImplemented { .. } | E::UnknownConfigurationKey { .. } => {
            (ErrorKind::Configuration, "the storage cannot do this")
        }
        E::InvalidPath { .. } => (ErrorKind::Integrity, "the storage holds a path that nobody can write"),
        E::JoinError { .. } => (ErrorKind::Unavailable, "the program is ending"),
        _ if answer.out_of_range => (ErrorKind::NotFound, "the object is shorter than that"),
        _ if answer.status == Some(429) => (ErrorKind::Unavailable, "the storage throttles us"),
        _ => match (cause_of::<io::Error>(error), answer.transport) {
            (Some(io), None) => return (ErrorKind::Unavailable, Cause::new(plain(io))),
            (Some(io), Some(sentence)) if io.raw_os_error().is_some() => {
                return (ErrorKind::Unavailable, Cause::new(format!("{sentence} ({})", plain(io))));
            }
            (_, transport) => (ErrorKind::Unavailable, transport.unwrap_or("the storage failed")),
        },
    };
    (kind, answer.after(sentence))
}

/// Error codes that say more than their status does.
fn by_code(code: &str) -> Option<(ErrorKind, &'static str)> {
    Some(match code {
        "NoSuchBucket" | "ContainerNotFound" => (ErrorKind::Configuration, "there is no such bucket"),
        "ExpiredToken" | "TokenRefreshRequired" => {
            (ErrorKind::Configuration, "our credentials for the storage have expired")
        }
        "InvalidAccessKeyId" | "InvalidToken" | "SignatureDoesNotMatch" => {
            (ErrorKind::Configuration, "the storage does not accept our credentials")
        }
        "RequestTimeTooSkewed" => {
            (ErrorKind::Configuration, "this machine's clock is too far from the storage's")
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            (ErrorKind::Configuration, "the bucket is in another region than the one that is configured")
        }
        "SlowDown" | "ServerBusy" => (ErrorKind::Unavailable, "the storage throttles us"),
        _ => return None,
    })
}

fn by_io(kind: io::ErrorKind) -> Option<(ErrorKind, &'static str)> {
    Some(match kind {
        io::ErrorKind::StorageFull => (ErrorKind::Unavailable, "the disk under the store is full"),
        io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "the disk quota of the store's owner is used up")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Configuration, "the disk under the store is read-only")
        }
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Configuration, "this user may not read or write the store's directory")
        }
        _ => return None,
    })
}

/// What an answer of a server, quoted in an error, says about itself.
struct Answer {
    status: Option<u16>,
    code: Option<String>,
    out_of_range: bool,
    transport: Option<&'static str>,
}

impl Answer {
    fn of(error: &object_store::Error) -> Self {
        let text = error.to_string();
        let status = after(&text, "status code: ").and_then(|rest| rest.get(..3)?.parse().ok());
        let code = after(&text, "<Code>").and_then(|rest| rest.split_once("</Code>")).map(|(code, _)| code);
        let plain = |code: &&str| code.len() <= 64 && code.bytes().all(|c| c.is_ascii_alphanumeric());
        Self {
            status,
            code: code.filter(plain).map(str::to_owned),
            out_of_range: status == Some(416)
                || ["Requested range was invalid", "Wanted range starting at"]
                    .iter()
                    .any(|s| text.contains(s)),
            transport: transport(error),
        }
    }

    /// A sentence, and the answer's own words where they are safe.
    fn after(&self, sentence: &str) -> Cause {
        Cause::new(match (self.status, &self.code) {
            (Some(status), Some(code)) => format!("{sentence} (HTTP {status} {code})"),
            (Some(status), None) => format!("{sentence} (HTTP {status})"),
            (None, Some(code)) => format!("{sentence} ({code})"),
            (None, None) => sentence.to_owned(),
        })
    }
}

#[cfg(any(feature = "aws", feature = "gcp", feature = "azure"))]
fn transport(error: &object_store::Error) -> Option<&'static str> {
    use object_store::client::{HttpError, HttpErrorKind};

    cause_of::<HttpError>(error).map(|error| match error.kind() {
        HttpErrorKind::Connect => "the storage cannot be reached",
        HttpErrorKind::Timeout => "the storage did not answer in time",
        HttpErrorKind::Decode => "the storage's answer makes no sense",
        _ => "the connection to the storage broke",
    })
}

#[cfg(not(any(feature = "aws", feature = "gcp", feature = "azure")))]
fn transport(_: &object_store::Error) -> Option<&'static str> {
    None
}

/// An operating system's error without any path: `Permission denied (os error 13)`.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number).to_string(),
        None => error.kind().to_string(),
    }
}

fn after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

/// The first cause of type `T`.
fn cause_of<'e, T: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<crate::error::Source>) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: source.into() }
    }

    #[test]
    fn disks_have_sentences_of_their_own() {
        for (io, kind, says) in [
            (io::ErrorKind::StorageFull, ErrorKind::Unavailable, "is full"),
            (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::Configuration, "read-only"),
            (io::ErrorKind::PermissionDenied, ErrorKind::Configuration, "may not"),
            (io::ErrorKind::Other, ErrorKind::Unavailable, "other error"),
        ] {
            let error = store_error(generic(io::Error::from(io)), "write a blob");
            assert_eq!(error.kind(), kind);
            assert!(error.chain().contains(says), "{}", error.chain());
        }
        let full = store_error(generic(io::Error::from_raw_os_error(28)), "write a blob");
        assert!(full.chain().ends_with("(No space left on device (os error 28))"), "{}", full.chain());
    }

    #[tokio::test]
    async fn a_real_disk_is_heard_and_its_paths_are_not() {
        use object_store::ObjectStoreExt;

        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let store = object_store::local::LocalFileSystem::new_with_prefix(dir.path()).unwrap();
        let below = object_store::path::Path::from("file/object");
        let error = store_error(store.put(&below, "x".into()).await.unwrap_err(), "write a blob");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.chain(), "failed to write a blob: Not a directory (os error 20)");
    }

    #[test]
    fn an_answer_is_not_repeated() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <Error><Code>SignatureDoesNotMatch\
            </Code><CanonicalRequest>x-amz-security-token:SECRET</CanonicalRequest></Error>";
        let denied = object_store::Error::PermissionDenied { path: "secret".into(), source: body.into() };
        let error = store_error(denied, "read a ring");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert_eq!(
            error.chain(),
            "failed to read a ring: the storage does not accept our credentials \
             (HTTP 403 SignatureDoesNotMatch)"
        );
        assert!(!format!("{error:?}").to_lowercase().contains("secret"));

        let odd = generic("status code: 500: <Code>a b SECRET</Code>");
        assert_eq!(store_error(odd, "x").chain(), "failed to x: the storage failed (HTTP 500)");
    }

    #[test]
    fn kinds_say_what_to_do() {
        let path = || "p".to_owned();
        let source = || "why".into();
        for (error, kind) in [
            (object_store::Error::NotFound { path: path(), source: source() }, ErrorKind::NotFound),
            (object_store::Error::AlreadyExists { path: path(), source: source() }, ErrorKind::AlreadyExists),
            (object_store::Error::Precondition { path: path(), source: source() }, ErrorKind::AlreadyExists),
            (
                object_store::Error::NotFound { path: path(), source: "<Code>NoSuchBucket</Code>".into() },
                ErrorKind::Configuration,
            ),
            (generic("status code: 416 Range Not Satisfiable"), ErrorKind::NotFound),
            (generic("status code: 503 Slow Down"), ErrorKind::Unavailable),
        ] {
            assert_eq!(store_error(error, "x").kind(), kind);
        }
    }

    #[test]
    fn a_conflict_is_not_an_object() {
        let exists = |source: crate::error::Source| object_store::Error::AlreadyExists {
            path: "p".to_owned(),
            source,
        };
        let wrapped = object_store::Error::Precondition {
            path: "p".to_owned(),
            source: "status code: 412 Precondition Failed".into(),
        };
        for (error, conflict) in [
            (exists(Box::new(wrapped)), false),
            (exists("status code: 409 Conflict: <Code>ConditionalRequestConflict</Code>".into()), true),
            (exists("status code: 409 Conflict: <Code>OperationAborted</Code>".into()), true),
            (exists("status code: 409 Conflict: ".into()), true),
            (exists("status code: 409 Conflict: <Code>BlobAlreadyExists</Code>".into()), false),
            // A file.
            (exists(Box::new(io::Error::from(io::ErrorKind::AlreadyExists))), false),
            (generic("status code: 409 Conflict"), false),
        ] {
            assert_eq!(is_conflict(&error), conflict, "{error}");
            let kind = if matches!(error, object_store::Error::AlreadyExists { .. }) && !conflict {
                ErrorKind::AlreadyExists
            } else {
                ErrorKind::Unavailable
            };
            assert_eq!(store_error(error, "x").kind(), kind);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_call_ends() {
        let error = within(Duration::from_secs(5), "append", std::future::pending::<Result<()>>()).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.chain(), "failed to append: no answer within 5s");
    }
}
