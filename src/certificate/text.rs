//! The text of a paper: one JSON object, pretty-printed, in its one form.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::CertificateError;
use crate::error::{Error, ErrorKind, Result};

/// The one text of a body.
pub(super) fn write<T: Serialize>(body: &T) -> String {
    let mut text = serde_json::to_string_pretty(body).expect("a paper has string keys only");
    text.push('\n');
    text
}

/// The body that a text is of. `formats` is what the texts of all versions of this format
/// begin with, and `known` are the versions that are read.
pub(super) fn read<T: Serialize + DeserializeOwned>(text: &str, formats: &str, known: &[u32]) -> Result<T> {
    if let Ok(body) = serde_json::from_str::<T>(text) {
        return if write(&body) == text { Ok(body) } else { Err(CertificateError::Form.into()) };
    }
    let value = serde_json::from_str::<serde_json::Value>(text).ok();
    let format = value.as_ref().and_then(|value| value.get("format")?.as_str());
    let is_known = |version: &str| known.iter().any(|known| known.to_string() == version);
    match format.and_then(|format| format.strip_prefix(formats)) {
        Some(version) if !is_known(version) => {
            let sentence = "this paper is of a later format; use a newer Strongroom";
            Err(Error::new(ErrorKind::UnsupportedFormat, sentence))
        }
        _ => Err(CertificateError::Form.into()),
    }
}
