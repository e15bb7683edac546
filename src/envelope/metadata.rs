//! What is sealed beside a blob: its name, content type and the user's pairs.
//!
//! All of it may be PHI, so none of it is ever printed, and its size is padded.
//! Separate from the header, which only seals the bytes that are made here.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// Metadata is padded to a multiple of this, so that the header's size says
/// little about a name's length.
pub(super) const METADATA_BLOCK: usize = 64;
/// The most that name, content type and user pairs take up together.
pub const MAX_METADATA_LEN: usize = 32 * 1024;
/// The most that the user pairs may take up, so that the rest always fits.
const MAX_PAIRS_LEN: usize = MAX_METADATA_LEN - 2 * 1024;

/// A blob's name, which may be PHI: 1 to 1024 bytes of UTF-8 without control
/// characters. Two names are equal if their bytes are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobName(String);

/// Metadata that cannot be stored. It does not repeat the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MetadataError {
    /// Empty, longer than 1024 bytes, or with a control character in it.
    #[error("a blob name is 1 to 1024 bytes of UTF-8 without control characters")]
    Name,
    /// Not `type/subtype` in visible ASCII.
    #[error("a content type is `type/subtype` in visible ASCII, 255 bytes at most")]
    ContentType,
    /// An empty, long or unprintable key or value.
    #[error("a metadata key is 1 to 255 bytes and a value up to 8192, both UTF-8 without control characters")]
    Pair,
    /// Too many or too long pairs.
    #[error("the metadata pairs are over 30 KiB together")]
    TooLong,
}

impl BlobName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BlobName {
    type Err = MetadataError;

    fn from_str(text: &str) -> Result<Self, MetadataError> {
        if is_printable(text, 1, 1024) { Ok(Self(text.to_owned())) } else { Err(MetadataError::Name) }
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobName").finish_non_exhaustive()
    }
}

/// No control characters, which include line ends, and none of the invisible
/// characters that reorder text on a screen.
fn is_printable(text: &str, min: usize, max: usize) -> bool {
    let reorders =
        |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}');
    (min..=max).contains(&text.len()) && !text.chars().any(|c| c.is_control() || reorders(c))
}

/// What is sealed beside a blob: its name, content type and the user's pairs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    name: Option<BlobName>,
    content_type: Option<String>,
    pairs: BTreeMap<String, String>,
}

impl Metadata {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a name.
    #[must_use]
    pub fn with_name(mut self, name: BlobName) -> Self {
        self.name = Some(name);
        self
    }

    /// With a content type.
    ///
    /// # Errors
    /// [`MetadataError::ContentType`].
    pub fn with_content_type(mut self, content_type: &str) -> Result<Self, MetadataError> {
        if !is_content_type(content_type) {
            return Err(MetadataError::ContentType);
        }
        self.content_type = Some(content_type.to_owned());
        Ok(self)
    }

    /// With one more pair; an equal key is replaced.
    ///
    /// # Errors
    /// [`MetadataError::Pair`], or [`MetadataError::TooLong`] if all together are.
    pub fn with_pair(mut self, key: &str, value: &str) -> Result<Self, MetadataError> {
        if !is_printable(key, 1, 255) || !is_printable(value, 0, 8192) {
            return Err(MetadataError::Pair);
        }
        self.pairs.insert(key.to_owned(), value.to_owned());
        if self.pairs_len() > MAX_PAIRS_LEN { Err(MetadataError::TooLong) } else { Ok(self) }
    }

    /// The pairs in their encoding, in bytes.
    fn pairs_len(&self) -> usize {
        self.pairs.iter().map(|(key, value)| key.len() + value.len() + 8).sum()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> Option<&BlobName> {
        self.name.as_ref()
    }

    /// The content type.
    #[must_use]
    pub fn content_type(&self) -> Option<&str> {
        self.content_type.as_deref()
    }

    /// The user's pairs, sorted by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    pub(super) fn to_padded_bytes(&self) -> Vec<u8> {
        let mut bytes = self.to_bytes();
        bytes.resize(bytes.len().next_multiple_of(METADATA_BLOCK), 0);
        bytes
    }

    pub(super) fn from_padded_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let metadata = Self::decode(&mut reader)?;
        let padding = reader.raw(reader.remaining())?;
        if padding.len() >= METADATA_BLOCK || padding.iter().any(|byte| *byte != 0) {
            return Err(DecodeError::Invalid("padding"));
        }
        Ok(metadata)
    }
}

fn is_content_type(text: &str) -> bool {
    let visible = text.bytes().all(|c| c.is_ascii_graphic() || c == b' ');
    let parts = text.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.is_empty());
    visible && parts && text.len() <= 255
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata").finish_non_exhaustive()
    }
}

impl Encode for Metadata {
    /// Name and content type as strings that are empty when absent, then the
    /// pairs, sorted by key.
    fn encode(&self, out: &mut Writer) {
        out.bytes(self.name.as_ref().map_or("", BlobName::as_str).as_bytes());
        out.bytes(self.content_type.as_deref().unwrap_or_default().as_bytes());
        out.u32(u32::try_from(self.pairs.len()).expect("pairs fit in MAX_METADATA_LEN"));
        for (key, value) in &self.pairs {
            out.bytes(key.as_bytes()).bytes(value.as_bytes());
        }
    }
}

impl Decode for Metadata {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let name = from.string("name", MAX_METADATA_LEN)?;
        let content_type = from.string("content type", MAX_METADATA_LEN)?;
        let mut metadata = Self::new();
        if !name.is_empty() {
            metadata.name = Some(name.parse().map_err(|_| DecodeError::Invalid("name"))?);
        }
        if !content_type.is_empty() {
            metadata =
                metadata.with_content_type(content_type).map_err(|_| DecodeError::Invalid("content type"))?;
        }
        for _ in 0..from.u32()? {
            let (key, value) =
                (from.string("key", MAX_METADATA_LEN)?, from.string("value", MAX_METADATA_LEN)?);
            if metadata.pairs.last_key_value().is_some_and(|(last, _)| last.as_str() >= key)
                || !is_printable(key, 1, 255)
                || !is_printable(value, 0, 8192)
            {
                return Err(DecodeError::Invalid("pairs"));
            }
            metadata.pairs.insert(key.to_owned(), value.to_owned());
        }
        if metadata.pairs_len() > MAX_PAIRS_LEN {
            return Err(DecodeError::Invalid("pairs"));
        }
        Ok(metadata)
    }
}

/// Reads a padded block and writes it again: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8]) -> Option<Vec<u8>> {
    Metadata::from_padded_bytes(bytes).ok().map(|metadata| metadata.to_padded_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_have_no_control_characters() {
        for bad in ["", "a\nb", "a\0b", "\u{1b}[2J", "a\u{202E}b", "a\u{85}b", &"x".repeat(1025)] {
            assert_eq!(bad.parse::<BlobName>(), Err(MetadataError::Name));
        }
        for good in ["a", "Röntgen/Müller 2026.dcm", "😀", &"x".repeat(1024)] {
            assert!(good.parse::<BlobName>().is_ok());
        }
        for bad in ["", "text", "/", "text/", "text/\n", "tëxt/plain"] {
            assert_eq!(Metadata::new().with_content_type(bad), Err(MetadataError::ContentType));
        }
    }

    #[test]
    fn metadata_is_bounded() {
        let mut metadata = Metadata::new();
        for index in 0..4 {
            metadata = match metadata.with_pair(&format!("k{index}"), &"v".repeat(8192)) {
                Ok(more) => more,
                Err(error) => {
                    assert_eq!((index, error), (3, MetadataError::TooLong));
                    return;
                }
            };
        }
        panic!("more than MAX_METADATA_LEN was taken");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Metadata::from_padded_bytes(&bytes);
        }

        #[test]
        fn metadata_reads_back(name in "[^\\p{C}\\p{Z}]{1,40}", key in "[a-z]{1,20}", value in "[^\\p{C}\\p{Z}]{0,90}") {
            let metadata = Metadata::new().with_name(name.parse().unwrap()).with_pair(&key, &value).unwrap();
            let bytes = metadata.to_padded_bytes();
            prop_assert_eq!(bytes.len() % METADATA_BLOCK, 0);
            prop_assert_eq!(Metadata::from_padded_bytes(&bytes).unwrap(), metadata);
        }
    }
}
