//! Why a certificate, or a paper that it names, does not verify.

use thiserror::Error as ThisError;

use crate::error::{Error, ErrorKind};

/// Why something is no certificate, or not a good one. Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum CertificateError {
    /// The text is not the one form of a certificate.
    #[error("its text is not in the form of one")]
    Form,
    /// It is not signed by the log's key alone.
    #[error("it is not signed by the log's key, under the name for such papers, and by nobody else")]
    Signature,
    /// A part of it is not as it must be, or contradicts another.
    #[error("its {0} is not as it must be, or contradicts another part")]
    Contradiction(&'static str),
    /// The order in it is not one, or not as it says.
    #[error(
        "the order in it is not that of this id and customer, with the signatures of two different people"
    )]
    Order,
    /// A proof leads to another log.
    #[error("a proof in it is of another store's log")]
    OtherLog,
    /// A proven record says something else.
    #[error("a record in it does not say what the certificate says of it")]
    OtherRecord,
    /// A record is missing.
    #[error("it has no proof of {0}")]
    Missing(&'static str),
    /// Papers that it names are not with it.
    #[error("the papers of {count} epochs' ends are not with it, epoch {first} first")]
    PapersMissing {
        /// How many.
        count: usize,
        /// The first of these epochs.
        first: u32,
    },
    /// The paper of an epoch's end is another than the certificate names.
    #[error("the paper of the end of epoch {0} is another one than it names")]
    OtherPaper(u32),
    /// A bundle has a paper that its certificate does not name.
    #[error("a paper with it is of epoch {0}, which it does not name")]
    SurplusPaper(u32),
}

impl From<CertificateError> for Error {
    fn from(error: CertificateError) -> Self {
        Self::new(ErrorKind::Integrity, "the certificate does not verify").with_source(error)
    }
}
