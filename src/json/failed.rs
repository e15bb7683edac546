//! An error as JSON, beside others that are none: what became of one customer or one blob of
//! several.

use serde::{Deserialize, Serialize};

use super::Plain;
use crate::error::{Error, ErrorKind};
use crate::id::CertificateId;

/// Why it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failed {
    /// The kind of error.
    pub(crate) code: Plain,
    /// In a sentence.
    pub(crate) detail: Plain,
    /// The certificate of the destruction, where that is why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) certificate: Option<CertificateId>,
}

/// All kinds of error.
const KINDS: [ErrorKind; 14] = [
    ErrorKind::NotFound,
    ErrorKind::AlreadyExists,
    ErrorKind::InvalidInput,
    ErrorKind::Authentication,
    ErrorKind::Integrity,
    ErrorKind::UnsupportedFormat,
    ErrorKind::KeyUnavailable,
    ErrorKind::KeyDestroyed,
    ErrorKind::Unavailable,
    ErrorKind::AuditUnavailable,
    ErrorKind::Conflict,
    ErrorKind::Io,
    ErrorKind::Configuration,
    ErrorKind::Denied,
];

impl Failed {
    /// The kind of error that the code is of, if it is one.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        KINDS.into_iter().find(|kind| kind.as_str() == self.code.0)
    }
}

impl From<&Error> for Failed {
    /// As an endpoint answers it: what lies behind a failure of ours is for our logs.
    fn from(error: &Error) -> Self {
        Self {
            code: error.kind().as_str().into(),
            detail: error.to_string().into(),
            certificate: error.certificate(),
        }
    }
}

impl From<Failed> for Error {
    /// What has no kind that is known here cannot be used.
    fn from(failed: Failed) -> Self {
        let kind = failed.kind().unwrap_or(ErrorKind::UnsupportedFormat);
        let error = Self::new(kind, failed.detail.0);
        match failed.certificate {
            Some(certificate) => error.with_certificate(certificate),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        for kind in KINDS {
            let error = Error::new(kind, "a sentence");
            let json = serde_json::to_string(&Failed::from(&error)).unwrap();
            let read: Error = serde_json::from_str::<Failed>(&json).unwrap().into();
            assert_eq!((read.kind(), read.to_string()), (kind, "a sentence".into()));
        }
        let later = r#"{"code":"later","detail":"x\u001b[2J"}"#;
        let read: Error = serde_json::from_str::<Failed>(later).unwrap().into();
        assert_eq!((read.kind(), read.to_string()), (ErrorKind::UnsupportedFormat, "x[2J".into()));
    }
}
