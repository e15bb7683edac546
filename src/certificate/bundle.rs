//! A bundle: a certificate with the papers that it names, in one file for somebody who has
//! no access to the store.
//!
//! JSON lines, each ended by a line feed, in their one form. The first has the format and
//! the certificate, every other one a paper, by epoch:
//!
//! ```text
//! {"format":"strongroom/bundle/v1","certificate":"<signed note>"}
//! {"epoch":1,"paper":"<signed note>"}
//! ```
//!
//! Nothing vouches for the frame: what is in it vouches for itself, and a paper that is
//! left out, added or replaced is seen by its digest in the certificate.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::CertificateError;
use crate::error::{Error, ErrorKind, Result};

/// What every version of a bundle begins with. No note does.
const FORMATS: &str = "{\"format\":\"strongroom/bundle/v";

/// A certificate with its papers. Nothing of it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The certificate, a signed note.
    pub certificate: String,
    /// The papers of the ends of epochs, signed notes, by number.
    pub papers: BTreeMap<u32, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct First {
    format: BundleFormat,
    certificate: String,
}

#[derive(Serialize, Deserialize)]
enum BundleFormat {
    #[serde(rename = "strongroom/bundle/v1")]
    V1,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    epoch: u32,
    paper: String,
}

impl Bundle {
    /// The longest that is read, in bytes: 64 MiB, some thousands of papers.
    pub const MAX_LEN: usize = 64 << 20;

    /// Whether a file is meant to be a bundle, and not a certificate by itself.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(FORMATS.as_bytes())
    }

    /// A certificate with the papers of these epochs, as they are stored.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if one is missing, or is no text.
    pub fn of(
        certificate: String,
        epochs: &[u32],
        papers: impl IntoIterator<Item = (u32, impl AsRef<[u8]>)>,
    ) -> Result<Self> {
        let text = |(epoch, bytes): (u32, _)| {
            let text = String::from_utf8(AsRef::<[u8]>::as_ref(&bytes).to_vec()).ok();
            Ok((epoch, text.ok_or(CertificateError::OtherPaper(epoch))?))
        };
        let papers: BTreeMap<u32, String> = papers.into_iter().map(text).collect::<Result<_>>()?;
        let missing: Vec<u32> = epochs.iter().copied().filter(|epoch| !papers.contains_key(epoch)).collect();
        match missing.first() {
            Some(first) => {
                Err(CertificateError::PapersMissing { count: missing.len(), first: *first }.into())
            }
            None => Ok(Self { certificate, papers }),
        }
    }

    /// Reads a bundle.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it does not have the form of one;
    /// [`ErrorKind::UnsupportedFormat`] for a later version.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let form = || Error::new(ErrorKind::Integrity, "the bundle does not have the form of one");
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= Self::MAX_LEN);
        let mut lines = text.ok_or_else(form)?.split_inclusive('\n');
        let line = lines.next().ok_or_else(form)?;
        let Ok(First { format, certificate }) = serde_json::from_str(line) else {
            let later = line.starts_with(FORMATS) && !line.starts_with(&format!("{FORMATS}1\""));
            let sentence = "this bundle is of a later format; use a newer Strongroom";
            return Err(if later { Error::new(ErrorKind::UnsupportedFormat, sentence) } else { form() });
        };
        let mut bundle = Self { certificate, papers: BTreeMap::new() };
        for line in lines {
            let Next { epoch, paper } = serde_json::from_str(line).map_err(|_| form())?;
            bundle.papers.insert(epoch, paper);
        }
        // One form: whatever is twice, out of order or spelt otherwise comes out changed.
        let BundleFormat::V1 = format;
        if bundle.to_text().as_bytes() == bytes { Ok(bundle) } else { Err(form()) }
    }

    /// The one text of it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let line = |value: serde_json::Result<String>| value.expect("a bundle has string keys only") + "\n";
        let certificate = self.certificate.clone();
        let first = line(serde_json::to_string(&First { format: BundleFormat::V1, certificate }));
        let papers = self
            .papers
            .iter()
            .map(|(epoch, paper)| line(serde_json::to_string(&Next { epoch: *epoch, paper: paper.clone() })));
        std::iter::once(first).chain(papers).collect()
    }

    /// That it has no paper but of these epochs, which are in order.
    pub(super) fn has_only(&self, epochs: &[u32]) -> Result<(), CertificateError> {
        match self.papers.keys().find(|epoch| epochs.binary_search(epoch).is_err()) {
            Some(epoch) => Err(CertificateError::SurplusPaper(*epoch)),
            None => Ok(()),
        }
    }
}
