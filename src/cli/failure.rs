//! Why a command failed, as it is told to a person or a script.

use std::io;

use serde_json::{Value, json};

use super::exit::Exit;
use crate::error::{Error, ErrorKind};
use crate::id::{CertificateId, RequestId};
use crate::session::SessionRefusal;
use crate::store::upload::is_in_doubt;

/// A failed command: what is said, and how the program ends.
#[derive(Debug)]
pub(super) struct Failure {
    kind: &'static str,
    exit: Exit,
    message: String,
    hint: Option<String>,
    certificate: Option<CertificateId>,
    /// What a daemon calls the request.
    request: Option<RequestId>,
}

impl Failure {
    /// A failure of the command line's own. The message holds no user text.
    pub(super) fn new(exit: Exit, kind: &'static str, message: impl Into<String>) -> Self {
        Self { kind, exit, message: message.into(), hint: None, certificate: None, request: None }
    }

    /// A wrong use.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// The input cannot be had.
    pub(super) fn input(message: &str, error: &io::Error) -> Self {
        Self::new(Exit::NoInput, "input", format!("{message}: {}", plain(error)))
    }

    /// The output cannot be made.
    pub(super) fn create(message: &str, error: &io::Error) -> Self {
        Self::new(Exit::CannotCreate, "output", format!("{message}: {}", plain(error)))
    }

    /// The output cannot be written.
    pub(super) fn output(message: &str, error: &io::Error) -> Self {
        Self::new(Exit::Io, "output", format!("{message}: {}", plain(error)))
    }

    /// With what to do about it, in place of another hint.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a sentence in front.
    pub(super) fn about(mut self, sentence: &str) -> Self {
        self.message = format!("{sentence}: {}", self.message);
        self
    }

    /// How the program ends.
    pub(super) fn exit(&self) -> Exit {
        self.exit
    }

    /// One line without the hint.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// `{"kind", "message", "exit"}`, and `"hint"`, `"certificate"` and `"request"` where
    /// there is one.
    pub(super) fn to_json(&self) -> Value {
        let mut value = json!({ "kind": self.kind, "message": self.message, "exit": self.exit.code() });
        if let Some(hint) = &self.hint {
            value["hint"] = hint.as_str().into();
        }
        if let Some(certificate) = self.certificate {
            value["certificate"] = certificate.to_string().into();
        }
        if let Some(request) = self.request {
            value["request"] = request.to_string().into();
        }
        value
    }

    /// What is printed to standard error.
    pub(super) fn report(&self, json: bool) -> String {
        if json {
            return format!("{}\n", json!({ "error": self.to_json() }));
        }
        let mut text = format!("strongroom: {}\n", self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("hint: {hint}\n"));
        }
        if let Some(request) = self.request {
            text.push_str(&format!("request: {request}\n"));
        }
        text
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        let hint = match kind {
            ErrorKind::Authentication | ErrorKind::Integrity => {
                Some("do not retry; leave the store as it is, and tell whoever answers for it")
            }
            ErrorKind::UnsupportedFormat => Some("upgrade strongroom"),
            ErrorKind::KeyUnavailable => {
                Some("ask the owner of the KMS key; other customers are not affected")
            }
            ErrorKind::KeyDestroyed if error.certificate().is_some() => {
                Some("nothing brings it back; the certificate says when and by whose order it was destroyed")
            }
            ErrorKind::KeyDestroyed => {
                Some("if a key directory or account is missing, bring it back; else the data is gone")
            }
            ErrorKind::Unavailable if is_in_doubt(&error) => Some(
                "what was put with `--once` can be put again; else look for it with `strongroom stat` first",
            ),
            ErrorKind::Unavailable | ErrorKind::Conflict => Some("try again later"),
            ErrorKind::AuditUnavailable => {
                Some("without its record nothing is done: free or reach the audit storage, then try again")
            }
            ErrorKind::Denied => session_hint(&error),
            ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::InvalidInput
            | ErrorKind::Io
            | ErrorKind::Configuration => None,
        };
        Self {
            kind: kind.as_str(),
            exit: kind.into(),
            message: one_line(&error.chain()),
            hint: hint.map(str::to_owned),
            certificate: error.certificate(),
            request: error.request(),
        }
    }
}

/// Why blobs that open within a session only did not, if that is what an error is about.
pub(super) fn session_refusal(error: &Error) -> Option<SessionRefusal> {
    let mut causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.find_map(|cause| cause.downcast_ref().copied())
}

/// What to do about them.
fn session_hint(error: &Error) -> Option<&'static str> {
    match session_refusal(error)? {
        SessionRefusal::NotTheirs => Some(
            "sessions are named with --session: ask for one with `strongroom session request`, with the --purpose \
             that you will open blobs for",
        ),
        _ => Some(
            "the customer opens a session with `strongroom session open`, or lets in who asks with `strongroom \
             session request`; name it with --session or STRONGROOM_SESSION",
        ),
    }
}

/// What the operating system says, without what others wrapped around it.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => one_line(&io::Error::from_raw_os_error(code).to_string()),
        None => one_line(&error.to_string()),
    }
}

/// Without line ends and whatever else moves a cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_and_a_hint() {
        let cause = io::Error::other("line one\nline two");
        let error = Error::new(ErrorKind::Unavailable, "failed to read").with_source(cause);
        let failure = Failure::from(error);
        assert_eq!(
            failure.report(false),
            "strongroom: failed to read: line one line two\nhint: try again later\n"
        );
        let json: Value = serde_json::from_str(&failure.report(true)).unwrap();
        assert_eq!(json["error"]["kind"], "unavailable");
        assert_eq!(json["error"]["exit"], 69);
        assert_eq!(json["error"]["message"], failure.message());
        assert_eq!(json["error"].get("certificate"), None);
    }

    #[test]
    fn what_takes_a_session_is_told_how_to_get_one() {
        let failure = |refusal: SessionRefusal| {
            let refused = Error::new(ErrorKind::Denied, "refused").with_source(refusal);
            let of_a_blob = Error::new(ErrorKind::Denied, "failed to open it").with_source(refused);
            Failure::from(of_a_blob).report(false)
        };
        assert!(failure(SessionRefusal::Required).contains("`strongroom session open`"));
        assert!(failure(SessionRefusal::Over).contains("--session or STRONGROOM_SESSION"));
        assert!(failure(SessionRefusal::NotTheirs).contains("--purpose"));
        let other = Failure::from(Error::new(ErrorKind::Denied, "refused"));
        assert_eq!(other.report(false), "strongroom: refused\n");
    }

    #[test]
    fn what_was_destroyed_names_its_certificate() {
        let id = CertificateId::from_bytes([7; 16]);
        let message = format!("the key of this blob was destroyed: certificate {id}");
        let failure = Failure::from(Error::new(ErrorKind::KeyDestroyed, message).with_certificate(id));
        assert_eq!(failure.exit(), Exit::Destroyed);
        assert!(failure.report(false).contains(&id.to_string()));
        let json: Value = serde_json::from_str(&failure.report(true)).unwrap();
        assert_eq!(json["error"]["certificate"], id.to_string());
    }
}
