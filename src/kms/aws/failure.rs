//! What a failure of an AWS KMS call means for us.
//!
//! Separate, so that the whole table is read at one glance and tested without a
//! network. The service's own sentence is not passed on: it may name people (the
//! session of a role). Its code and request id are, and with the request id
//! CloudTrail tells the rest.

use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::config::http::HttpResponse;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::RequestId;
use thiserror::Error;

use crate::kms::{KmsError, KmsErrorKind};

/// What the service said, reduced to what is safe to repeat.
#[derive(Debug, Error)]
#[error("AWS KMS answered {code} (HTTP status {status}, request {request})")]
struct ServiceFault {
    code: String,
    status: u16,
    request: String,
}

/// Judges a failure, after the SDK has made its retries.
pub(super) fn failed<E>(error: SdkError<E, HttpResponse>) -> KmsError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    let request = plain(error.request_id());
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code();
            let fault = ServiceFault { code: plain(code), status, request };
            let kind = kind_of(code, status);
            KmsError::new(kind, sentence(kind)).with_source(fault)
        }
        // The body of an answer that could not be read may hold a data key: nothing
        // of it goes further.
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            let fault = ServiceFault { code: "something unreadable".to_owned(), status, request };
            KmsError::new(KmsErrorKind::Unavailable, "AWS KMS gave no readable answer").with_source(fault)
        }
        // Nothing was answered: the cause is ours or the network's.
        unanswered => judge_unanswered(&unanswered),
    }
}

/// The table: by the service's error code, and by HTTP status where we do not
/// know the code.
fn kind_of(code: Option<&str>, status: u16) -> KmsErrorKind {
    match code.unwrap_or_default() {
        "AccessDeniedException" | "DisabledException" | "KMSInvalidStateException" => {
            KmsErrorKind::KeyUnavailable
        }
        "NotFoundException" => KmsErrorKind::KeyDestroyed,
        "InvalidCiphertextException" | "IncorrectKeyException" => KmsErrorKind::Authentication,
        // KeyUnavailableException is AWS KMS's word for "not at the moment, retry".
        "ThrottlingException"
        | "LimitExceededException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "InternalFailure"
        | "InternalError" => KmsErrorKind::Unavailable,
        // The credentials are there and not good; or the clock is wrong by so much
        // that a signature made with it is not valid.
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "ExpiredToken"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "OptInRequired"
        | "NotAuthorized" => KmsErrorKind::Configuration,
        // Below 300 it was no failure, but could not be read.
        _ if status >= 500 || status == 429 || status < 300 => KmsErrorKind::Unavailable,
        _ => KmsErrorKind::Invalid,
    }
}

fn sentence(kind: KmsErrorKind) -> &'static str {
    match kind {
        KmsErrorKind::KeyUnavailable => {
            "AWS KMS refuses the key: it is disabled, pending deletion, or denied to us"
        }
        KmsErrorKind::KeyDestroyed => "AWS KMS knows no such key",
        KmsErrorKind::Authentication => "AWS KMS cannot open the wrapped data key with this key and context",
        KmsErrorKind::Unavailable => "AWS KMS throttles or is out of order",
        KmsErrorKind::Configuration => {
            "AWS KMS does not accept our credentials: check them, and the clock of this machine"
        }
        KmsErrorKind::Invalid => "AWS KMS does not take the request",
    }
}

fn judge_unanswered<R: fmt::Debug + 'static, E: std::error::Error + 'static>(
    error: &SdkError<E, R>,
) -> KmsError {
    if let Some(credentials) = causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>()) {
        let (kind, message) = match credentials {
            CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => (
                KmsErrorKind::Configuration,
                "there are no usable AWS credentials: set AWS_PROFILE, log in, or give this machine a role",
            ),
            // Their source may be back at any time.
            _ => (KmsErrorKind::Unavailable, "AWS credentials cannot be had at the moment"),
        };
        return KmsError::new(kind, message).with_source(Cause::of(credentials));
    }
    match error {
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
            KmsError::new(KmsErrorKind::Unavailable, "AWS KMS cannot be reached")
                .with_source(Cause::of(error))
        }
        // The network, or an endpoint that is no URL: the SDK does not tell them apart.
        SdkError::DispatchFailure(failure) if !failure.is_user() => KmsError::new(
            KmsErrorKind::Unavailable,
            "AWS KMS cannot be reached: if this goes on, check that its endpoint is a URL",
        ),
        SdkError::TimeoutError(_) => {
            KmsError::new(KmsErrorKind::Unavailable, "AWS KMS did not answer in time")
        }
        _ => {
            let message = "a request to AWS KMS cannot be made: check the endpoint, region and profile";
            KmsError::new(KmsErrorKind::Configuration, message)
        }
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// The sentences of credentials' and connections' errors, one line in all. Those
/// of other kinds are not repeated: some quote the request.
#[derive(Debug, Error)]
#[error("{0}")]
struct Cause(String);

impl Cause {
    fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = String::new();
        for cause in causes(error) {
            let sentence = cause.to_string();
            let line = sentence.lines().next().unwrap_or_default();
            if !text.contains(line) {
                text.push_str(if text.is_empty() { "" } else { ": " });
                text.extend(line.chars().filter(|c| !c.is_control()).take(200));
            }
        }
        Self(text)
    }
}

/// A code or id of the service, if it looks like one.
fn plain(text: Option<&str>) -> String {
    let is_plain = |text: &&str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    text.filter(is_plain).unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_says_what_to_do() {
        use KmsErrorKind::{
            Authentication, Configuration, Invalid, KeyDestroyed, KeyUnavailable, Unavailable,
        };
        for (code, status, kind) in [
            ("AccessDeniedException", 400, KeyUnavailable),
            ("DisabledException", 409, KeyUnavailable),
            ("KMSInvalidStateException", 409, KeyUnavailable),
            ("NotFoundException", 400, KeyDestroyed),
            ("InvalidCiphertextException", 400, Authentication),
            ("IncorrectKeyException", 400, Authentication),
            ("ThrottlingException", 400, Unavailable),
            ("LimitExceededException", 400, Unavailable),
            ("KMSInternalException", 500, Unavailable),
            ("KeyUnavailableException", 500, Unavailable),
            ("DependencyTimeoutException", 503, Unavailable),
            ("InternalError", 500, Unavailable),
            ("SomethingNew", 502, Unavailable),
            ("SomethingNew", 429, Unavailable),
            ("UnrecognizedClientException", 400, Configuration),
            ("ExpiredTokenException", 400, Configuration),
            ("InvalidSignatureException", 400, Configuration),
            ("ValidationException", 400, Invalid),
            ("InvalidArnException", 400, Invalid),
            ("InvalidKeyUsageException", 400, Invalid),
            ("InvalidGrantTokenException", 400, Invalid),
            ("SomethingNew", 400, Invalid),
        ] {
            assert_eq!(kind_of(Some(code), status), kind, "{code}");
        }
        assert_eq!(kind_of(None, 503), Unavailable);
        assert_eq!(kind_of(None, 200), Unavailable);
        assert_eq!(kind_of(None, 403), Invalid);
    }

    #[test]
    fn nothing_but_codes_and_ids_is_repeated() {
        assert_eq!(plain(Some("AccessDeniedException")), "AccessDeniedException");
        assert_eq!(
            plain(Some("0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11")),
            "0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11"
        );
        for strange in [None, Some(""), Some("a b"), Some("\u{1b}[2J"), Some("jane.doe@example.org")] {
            assert_eq!(plain(strange), "unknown");
        }
    }
}
