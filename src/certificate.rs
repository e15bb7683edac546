//! Certificates of destruction: what was destroyed, when, by whose order, under which
//! policy, how that was verified, and what it does not cover; in the terms of NIST SP
//! 800-88r2.
//!
//! A certificate is a signed note (c2sp.org/signed-note). Its text is one JSON object, a
//! [`CertificateBody`], pretty-printed in its one form. The log's key signs it under a
//! name of its own (`strongroom/<store>/certificate`), and the object begins with its
//! format, so that no other note of that key can stand for one. In it are the order, if
//! it took one, as the two people signed it, and proofs from the log
//! (c2sp.org/tlog-proof) of what the certificate says was done. So whoever has the file
//! and the log's public key can check it anywhere, without a connection.
//!
//! There are two of each: the *interim* one, once the keys are dropped from their ring,
//! and the *final* one, once every epoch is destroyed under which a ring version with
//! them was ever written. Both have one id, which follows from the ring version.
//!
//! How an epoch ended is proven in a paper of its own ([`EpochPaper`]), which a final
//! certificate names by number and digest. Whoever is given a final certificate is given
//! these papers too: the file that holds both is a [`Bundle`].
//!
//! Separate from the shredding, which decides and acts; here is said what was done. No
//! storage is read or written here: see [`papers`](crate::audit::papers).
//!
//! Invariants: a certificate has one text. None is signed that would not verify. Nothing
//! in it is free text. What is in a [`Verified`] one was signed by the log's key, agrees
//! with itself, and each record that it relies on is in the log.
//!
//! What it rests on: that the log's key signs for nobody else, and that a program which
//! holds it told the truth about what no record can show (that a KMS reports a key gone,
//! how many blobs there were). The people's keys in an order are compared with no
//! register here: the certificate names the register's version, and whoever knows the
//! keys from elsewhere compares them.

use std::collections::BTreeMap;

use crate::audit::authority::{Authority as LogAuthority, LogKeys};
use crate::audit::layout::certificate_key_name;
use crate::audit::signer::LogSigner;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::id::{CertificateId, CustomerId, StoreId};
use crate::ring::certificate_id;
use crate::tlog::note::{Note, NoteSignature};

mod body;
mod bundle;
mod check;
mod epoch;
mod error;
mod evidence;
mod page;
#[cfg(test)]
mod tests;
mod text;

#[cfg(test)]
pub(crate) use tests::testing;

pub use body::*;
pub use bundle::Bundle;
pub(crate) use check::check_order;
pub use check::{Examined, Verified, examine, verify};
pub(crate) use epoch::sign_epoch_for;
pub use epoch::{
    EndOnPaper, EndStep, EpochPaper, EpochPaperBody, EpochPaperFormat, LONGEST_WAIT, StepAnswer,
    VerifiedEpoch, sign_epoch, verify_epoch,
};
pub use error::CertificateError;
pub use evidence::{Evidence, What};

/// What the texts of all versions of this format begin with.
const FORMATS: &str = "strongroom/certificate/v";

impl CertificateId {
    /// The id of the certificates about the keys that version `ring` of a customer's
    /// ring no longer has, see [`certificate_id`]. Whoever meets a dropped key can name
    /// the certificate.
    #[must_use]
    pub fn derive(store: StoreId, customer: CustomerId, ring: u64) -> Self {
        certificate_id(store, customer, ring)
    }
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    note: Note,
    body: CertificateBody,
}

impl Certificate {
    /// Reads a certificate and verifies the signature of the log's key. Whether what it
    /// says agrees with itself and with its proofs is for [`verify`].
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it is not one that a key of `log_key` signed, and signed
    /// alone; [`ErrorKind::UnsupportedFormat`] for a later version.
    pub fn parse(bytes: &[u8], log_key: &impl LogKeys) -> Result<Self> {
        let Self { note, body } = Self::unverified(bytes)?;
        let signed = log_key.authority().signed(&note, &certificate_key_name(body.store))?.is_some();
        if !signed || note.signatures().len() != 1 {
            return Err(CertificateError::Signature.into());
        }
        Ok(Self { note, body })
    }

    /// Reads a certificate without the log's key: nothing says that the log signed it but
    /// whoever gave it.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it does not have the form of one;
    /// [`ErrorKind::UnsupportedFormat`] for a later version.
    pub(crate) fn unverified(bytes: &[u8]) -> Result<Self> {
        let note = Note::parse(bytes)?;
        let body = CertificateBody::from_text(note.text())?;
        Ok(Self { note, body })
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &CertificateBody {
        &self.body
    }

    /// The note: what is kept, given away and verified.
    #[must_use]
    pub fn to_note(&self) -> String {
        self.note.to_string()
    }

    /// It for people: plain text, 100 columns at most. Of epochs whose papers it names, it
    /// has the digests: how they ended is on the page of a [`Verified`] one.
    #[must_use]
    pub fn to_page(&self) -> String {
        page::page(&self.body, &[])
    }

    /// The same with the papers of a bundle, none of them verified here either.
    #[cfg(feature = "cli")]
    pub(crate) fn to_page_with(&self, bundle: &Bundle) -> Result<String> {
        let ends = bundle.papers.values().map(|paper| epoch::unverified_end(paper.as_bytes()));
        let told = self.body.epochs.iter().filter_map(CertifiedEpoch::in_full).cloned().map(Ok);
        Ok(page::page(&self.body, &told.chain(ends).collect::<Result<Vec<_>>>()?))
    }
}

/// Signs a certificate with the log's key, after all of it was checked as [`verify`]
/// does: with the papers of the epochs that it names.
///
/// # Errors
/// [`ErrorKind::Integrity`] with a [`CertificateError`] behind it if it would not verify,
/// or if it is larger than a note can be; those of [`LogSigner::sign`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn sign(
    body: CertificateBody,
    papers: &BTreeMap<u32, EndOnPaper>,
    signer: &dyn LogSigner,
) -> Result<Certificate> {
    sign_for(body, papers, signer, &signer.public().into()).await
}

/// The same, in a log with these keys.
pub(crate) async fn sign_for(
    body: CertificateBody,
    papers: &BTreeMap<u32, EndOnPaper>,
    signer: &dyn LogSigner,
    log_key: &LogAuthority,
) -> Result<Certificate> {
    check::check(&body, log_key, &[], 0)?;
    check::ends(&body, papers)?;
    let text = body.to_text();
    // What would not be read back is not signed.
    CertificateBody::from_text(&text)?;
    let signature = signer.sign(text.as_bytes()).await?;
    let line = NoteSignature::ed25519(certificate_key_name(body.store), signer.public(), &signature);
    Ok(Certificate { note: Note::new(text, vec![line])?, body })
}

/// Reads the end of an epoch without verifying it: for [`crate::fuzz`].
#[cfg(feature = "cli")]
pub(crate) fn fuzz_epoch_end(bytes: &[u8]) -> bool {
    epoch::unverified_end(bytes).is_ok()
}

impl CertificateBody {
    /// The one text of it.
    fn to_text(&self) -> String {
        text::write(self)
    }

    fn from_text(text: &str) -> Result<Self> {
        text::read(text, FORMATS, &[1, 2, 3])
    }
}
