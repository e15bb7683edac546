//! The one public error, and what to do about it.
//!
//! Every public operation fails with [`Error`]: a coarse [`ErrorKind`] that
//! says what the caller should do, a sentence of our own, and the cause behind
//! [`source`](std::error::Error::source). Modules below keep private error
//! enums and hand them over as the source.
//!
//! Invariants: no key bytes, plaintext, blob names or user text are ever part
//! of an error, its `Debug` output or its chain. A failed tag, key commitment
//! or context is always [`ErrorKind::Authentication`] with one fixed sentence,
//! so that an error is no oracle.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::id::{CertificateId, RequestId};

/// A [`std::result::Result`] with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The boxed cause of an error.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What an error asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such store, customer, blob or range. Check what was asked for.
    NotFound,
    /// It exists already, and nothing was changed.
    AlreadyExists,
    /// An argument is not usable. Correct it.
    InvalidInput,
    /// The bytes in the store are not what was sealed under this id: a tag, a
    /// commitment or a context did not verify. Call someone; do not retry.
    Authentication,
    /// The store contradicts the audit log or itself (a rolled-back ring, a
    /// rewritten log). Call someone; do not retry.
    Integrity,
    /// The stored format is newer than this program. Upgrade it.
    UnsupportedFormat,
    /// The customer's KMS key is disabled, or its use is denied to us. Ask its
    /// owner. HTTP 403.
    KeyUnavailable,
    /// The key was destroyed, and with it the data. Give up. HTTP 410.
    KeyDestroyed,
    /// The KMS or the object store does not answer, or throttles. Retry later.
    /// HTTP 503.
    Unavailable,
    /// The audit log cannot be written, so nothing was sealed or opened. Retry
    /// later. HTTP 503.
    AuditUnavailable,
    /// Someone else changed the same thing at the same time, repeatedly. Retry.
    Conflict,
    /// The caller's own reader or writer failed.
    Io,
    /// The configuration or the environment is unusable. Correct it.
    Configuration,
    /// Not allowed to this principal, or by this policy.
    Denied,
}

impl ErrorKind {
    /// Whether the same call may succeed later without anything being changed.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Unavailable | Self::AuditUnavailable | Self::Conflict)
    }

    /// The kind as a stable identifier, for records and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::InvalidInput => "invalid-input",
            Self::Authentication => "authentication",
            Self::Integrity => "integrity",
            Self::UnsupportedFormat => "unsupported-format",
            Self::KeyUnavailable => "key-unavailable",
            Self::KeyDestroyed => "key-destroyed",
            Self::Unavailable => "unavailable",
            Self::AuditUnavailable => "audit-unavailable",
            Self::Conflict => "conflict",
            Self::Io => "io",
            Self::Configuration => "configuration",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an operation failed. `Display` is one sentence without the cause; the
/// edge prints the chain ([`Error::chain`]).
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Source>,
    certificate: Option<CertificateId>,
    request: Option<RequestId>,
}

impl Error {
    /// An error of `kind`. The message holds ids at most, never user text.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None, certificate: None, request: None }
    }

    /// The one error for bytes that do not verify, whatever the reason.
    #[must_use]
    pub fn authentication() -> Self {
        Self::new(
            ErrorKind::Authentication,
            "authentication failed: the stored bytes are damaged, altered, or not what was sealed under this id",
        )
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the certificate of the destruction that it comes of.
    #[must_use]
    pub fn with_certificate(mut self, certificate: CertificateId) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// The same error with the request that a daemon refused or failed.
    #[must_use]
    pub fn with_request(mut self, request: RequestId) -> Self {
        self.request = Some(request);
        self
    }

    /// An error of which several callers get their own copy.
    #[must_use]
    pub fn shared(error: &Arc<Self>) -> Self {
        let source = error.source.is_some().then(|| Source::from(Shared(Arc::clone(error))));
        let (kind, message) = (error.kind, error.message.clone());
        Self { kind, message, source, certificate: error.certificate, request: error.request }
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Which certificate tells when, by whose order and under which policy the
    /// key was destroyed: with [`ErrorKind::KeyDestroyed`], where a key of a ring
    /// was dropped, and not where a KMS key is gone.
    #[must_use]
    pub fn certificate(&self) -> Option<CertificateId> {
        self.certificate
    }

    /// What the daemon calls the request that failed, where it was a daemon that was asked: its
    /// audit log and its own log have it.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        self.request
    }

    /// The first cause of this type, also behind errors that several callers share.
    pub(crate) fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let error = error.downcast_ref::<Shared>().map_or(error, |shared| shared.cause());
            if let Some(found) = error.downcast_ref::<T>() {
                return Some(found);
            }
            cause = match error.downcast_ref::<Arc<Self>>() {
                Some(shared) => Some(&**shared),
                None => error.source(),
            };
        }
        None
    }

    /// The sentences of this error and of its causes, outermost first.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let next = error.to_string();
            // Some libraries repeat their cause in their own sentence.
            if !text.ends_with(&next) {
                text.push_str(": ");
                text.push_str(&next);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Error({}: {})", self.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Stands for the cause of a shared error.
struct Shared(Arc<Error>);

impl Shared {
    fn cause(&self) -> &(dyn std::error::Error + Send + Sync + 'static) {
        self.0.source.as_deref().expect("made of errors with a source")
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.cause(), f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.cause(), f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_each_cause_once() {
        let inner = Error::new(ErrorKind::Unavailable, "the KMS did not answer");
        let outer = Error::new(ErrorKind::Unavailable, "failed to load the ring").with_source(inner);
        assert_eq!(outer.chain(), "failed to load the ring: the KMS did not answer");
        assert_eq!(outer.to_string(), "failed to load the ring");
    }

    #[test]
    fn a_shared_error_has_the_same_chain() {
        let inner = Error::new(ErrorKind::Unavailable, "no answer");
        let error = Arc::new(Error::new(ErrorKind::Unavailable, "failed").with_source(inner));
        assert_eq!(Error::shared(&error).chain(), error.chain());
        assert_eq!(Error::shared(&Arc::new(Error::new(ErrorKind::Io, "x"))).chain(), "x");
    }

    #[test]
    fn a_shared_error_names_the_same_certificate() {
        let id = CertificateId::from_bytes([7; 16]);
        let error = Arc::new(Error::new(ErrorKind::KeyDestroyed, "gone").with_certificate(id));
        assert_eq!(Error::shared(&error).certificate(), Some(id));
        assert_eq!(Error::new(ErrorKind::KeyDestroyed, "gone").certificate(), None);
    }

    #[test]
    fn only_passing_faults_are_retryable() {
        assert!(ErrorKind::AuditUnavailable.is_retryable());
        assert!(!ErrorKind::Authentication.is_retryable());
        assert!(!ErrorKind::KeyDestroyed.is_retryable());
    }
}
