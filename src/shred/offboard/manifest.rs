//! The manifest of a return: what was returned, what was not and why, signed.
//!
//! A manifest is a signed note (c2sp.org/signed-note). Its text is one JSON object, a
//! [`ManifestBody`], pretty-printed in its one form; the log's key signs it under a name
//! of its own (`strongroom/<store>/manifest`). It names a list by its SHA-256: a line of
//! JSON for each blob, in order of the ids, so that it can be as long as it has to be.
//! Both lie beside what was returned, and whoever has them and the log's public key can
//! check the whole return without a connection.
//!
//! Separate from the returning, and pure: nothing is read or written here.
//!
//! Invariants: a manifest and a list have one text each. They hold ids, counts, digests
//! and times; names and metadata are in the files of the blobs.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::audit::authority::LogKeys;
use crate::audit::layout::manifest_key_name;
use crate::audit::signer::LogSigner;
use crate::envelope::Metadata;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, OrderId, StoreId};
use crate::order::ReturnTo;
use crate::time::Timestamp;
use crate::tlog::note::{Note, NoteSignature};

/// A SHA-256, in JSON lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// That of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&HEXLOWER.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        crate::audit::hex_digest::deserialize(from).map(Self)
    }
}

/// What a signed manifest says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestBody {
    /// The format.
    pub format: Format,
    /// The store.
    pub store: StoreId,
    /// Whose blobs they are.
    pub customer: CustomerId,
    /// The order by which the customer was closed.
    pub order: OrderId,
    /// In which form the blobs were returned.
    pub return_to: ReturnTo,
    /// When this manifest was made.
    pub issued: Timestamp,
    /// How many blobs there are of each kind.
    pub counts: Counts,
    /// The list.
    pub list: ListRef,
}

/// The format of a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The first.
    #[default]
    #[serde(rename = "strongroom/manifest/v1")]
    V1,
}

/// How many blobs there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Returned, and read back.
    pub returned: u64,
    /// The plaintext of the returned ones, in bytes.
    pub bytes: u64,
    /// In the log, and could not be returned.
    pub missing: u64,
    /// Begun by a writer that never ended: there is nothing, and nobody was told that
    /// there is.
    pub unfinished: u64,
    /// On the storage without a record of their sealing, returned or not. None of those
    /// that were not returned is among the missing.
    pub unlogged: u64,
}

/// The list that a manifest names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListRef {
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: Digest,
}

/// What became of one blob: one line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The blob.
    pub blob: BlobId,
    /// What was returned of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub returned: Option<Returned>,
    /// Why it was not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_returned: Option<NotReturned>,
    /// That the log has no record of its sealing.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub unlogged: bool,
}

/// What was returned of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Returned {
    /// The length of the plaintext in bytes.
    pub bytes: u64,
    /// SHA-256 of the plaintext.
    pub sha256: Digest,
    /// SHA-256 of the metadata as [`metadata_json`] has them.
    pub metadata_sha256: Digest,
    /// When it was sealed.
    pub sealed_at: Timestamp,
    /// The id that it has in the customer's own store, if it was sealed again.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resealed: Option<BlobId>,
}

/// Why a blob was not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NotReturned {
    /// Its writer never ended, and there is nothing.
    Unfinished,
    /// It is not on the storage.
    NotFound,
    /// What is on the storage does not verify.
    Damaged,
    /// Every key that wraps it is destroyed.
    KeyDestroyed,
    /// It is of a later format.
    UnsupportedFormat,
}

impl NotReturned {
    /// What an error says of a blob for good; `None` if another run may do better.
    pub(super) fn of(kind: ErrorKind) -> Option<Self> {
        match kind {
            ErrorKind::NotFound => Some(Self::NotFound),
            ErrorKind::Authentication => Some(Self::Damaged),
            ErrorKind::KeyDestroyed => Some(Self::KeyDestroyed),
            ErrorKind::UnsupportedFormat => Some(Self::UnsupportedFormat),
            _ => None,
        }
    }
}

impl Line {
    /// Its text, with the line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("ids, digests, numbers and times are JSON");
        text.push('\n');
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let line: Self = serde_json::from_str(text).ok()?;
        let one = line.returned.is_some() != line.not_returned.is_some();
        (one && line.text().strip_suffix('\n') == Some(text)).then_some(line)
    }

    /// The line whose text this is, line feed included.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        Self::parse(std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?)
    }
}

/// All lines of a return, by blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List(pub BTreeMap<BlobId, Line>);

impl List {
    /// Its length and digest.
    #[must_use]
    pub fn reference(&self) -> ListRef {
        let (mut hash, mut bytes) = (Sha256::new(), 0);
        for line in self.0.values() {
            let text = line.text();
            bytes += u64::try_from(text.len()).expect("a line is short");
            hash.update(text);
        }
        ListRef { bytes, sha256: Digest(hash.finalize().into()) }
    }

    /// How many there are of each kind.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for line in self.0.values() {
            counts.unlogged += u64::from(line.unlogged);
            match (line.returned, line.not_returned) {
                (Some(returned), _) => {
                    counts.returned += 1;
                    counts.bytes = counts.bytes.saturating_add(returned.bytes);
                }
                (None, Some(NotReturned::Unfinished)) => counts.unfinished += 1,
                (None, _) => counts.missing += u64::from(!line.unlogged),
            }
        }
        counts
    }

    /// The list that these bytes are.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if they are not the one that `reference` names.
    pub fn parse(bytes: &[u8], reference: &ListRef) -> Result<Self> {
        let wrong =
            || Error::new(ErrorKind::Integrity, "the list of a return is not the one that was signed");
        if Digest::of(bytes) != reference.sha256 {
            return Err(wrong());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
        let lines = text.lines().map(|line| Line::parse(line).map(|line| (line.blob, line)));
        let list = Self(lines.collect::<Option<_>>().ok_or_else(wrong)?);
        // In order, and no blob twice.
        if list.reference() == *reference { Ok(list) } else { Err(wrong()) }
    }
}

/// A manifest whose signature is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    body: ManifestBody,
    note: Note,
}

impl Manifest {
    /// Signs a manifest with the log's key.
    ///
    /// # Errors
    /// Those of [`LogSigner::sign`].
    pub(super) async fn sign(body: ManifestBody, signer: &dyn LogSigner) -> Result<Self> {
        let text = body.text();
        let signature = signer.sign(text.as_bytes()).await?;
        let line = NoteSignature::ed25519(manifest_key_name(body.store), signer.public(), &signature);
        Ok(Self { note: Note::new(text, vec![line])?, body })
    }

    /// Reads a manifest and verifies its signature.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it is not one that a key of `log_key` signed, and signed alone.
    pub fn verify(bytes: &[u8], log_key: &impl LogKeys) -> Result<Self> {
        let wrong = || Error::new(ErrorKind::Integrity, "it is not a manifest that the log's key signed");
        let note = Note::parse(bytes)?;
        let body: ManifestBody = serde_json::from_str(note.text()).map_err(|_| wrong())?;
        let signed = log_key.authority().signed(&note, &manifest_key_name(body.store))?.is_some()
            && note.signatures().len() == 1;
        if signed && body.text() == note.text() { Ok(Self { body, note }) } else { Err(wrong()) }
    }

    /// What it says.
    #[must_use]
    pub const fn body(&self) -> &ManifestBody {
        &self.body
    }

    /// The note: what is kept and verified.
    #[must_use]
    pub fn to_note(&self) -> String {
        self.note.to_string()
    }

    /// SHA-256 of the text that is signed: what the log has of it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.note.text().as_bytes())
    }
}

impl ManifestBody {
    fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has string keys only");
        text.push('\n');
        text
    }
}

/// Name, content type and pairs of a blob, as they lie beside its plaintext: one line of
/// JSON with the line feed.
#[must_use]
pub fn metadata_json(metadata: &Metadata) -> String {
    #[derive(Serialize)]
    struct Fields<'a> {
        name: Option<&'a str>,
        content_type: Option<&'a str>,
        meta: BTreeMap<&'a str, &'a str>,
    }
    let fields = Fields {
        name: metadata.name().map(|name| name.as_str()),
        content_type: metadata.content_type(),
        meta: metadata.pairs().collect(),
    };
    let mut text = serde_json::to_string(&fields).expect("text has a form in JSON");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::signer::LocalSigner;
    use crate::secret::Secret;
    use crate::time::Day;
    use crate::tlog::SecretKey;

    fn signer(seed: u8) -> LocalSigner {
        LocalSigner::new(SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
    }

    fn blob(number: u8) -> BlobId {
        BlobId::new(Day::from_number(20_000), [number; 13]).unwrap()
    }

    fn list() -> List {
        let returned = Returned {
            bytes: 7,
            sha256: Digest([1; 32]),
            metadata_sha256: Digest([2; 32]),
            sealed_at: "2026-11-22T12:00:00.000000Z".parse().unwrap(),
            resealed: None,
        };
        let line = |number, not_returned: Option<NotReturned>, unlogged| {
            let returned = not_returned.is_none().then_some(returned);
            (blob(number), Line { blob: blob(number), returned, not_returned, unlogged })
        };
        List(BTreeMap::from([
            line(1, None, false),
            line(2, None, true),
            line(3, Some(NotReturned::Damaged), false),
            line(4, Some(NotReturned::Damaged), true),
            line(5, Some(NotReturned::Unfinished), false),
        ]))
    }

    async fn manifest() -> Manifest {
        let body = ManifestBody {
            format: Format::V1,
            store: StoreId::from_bytes([1; 16]),
            customer: CustomerId::from_bytes([2; 16]),
            order: OrderId::from_bytes([3; 16]),
            return_to: ReturnTo::Plaintext,
            issued: "2026-11-22T12:00:00.000000Z".parse().unwrap(),
            counts: list().counts(),
            list: list().reference(),
        };
        Manifest::sign(body, &signer(9)).await.unwrap()
    }

    #[test]
    fn a_list_is_counted_and_read_back() {
        let (list, counts) = (list(), list().counts());
        assert_eq!((counts.returned, counts.bytes), (2, 14));
        assert_eq!((counts.missing, counts.unfinished, counts.unlogged), (1, 1, 2));
        let text: String = list.0.values().map(Line::text).collect();
        let reference = list.reference();
        assert_eq!(reference.bytes, text.len() as u64);
        assert_eq!(List::parse(text.as_bytes(), &reference).unwrap(), list);
        for byte in 0..text.len() {
            let mut bad = text.clone().into_bytes();
            bad[byte] ^= 1;
            assert_eq!(List::parse(&bad, &reference).unwrap_err().kind(), ErrorKind::Integrity);
        }
        // Out of order, twice, or in another spelling, whoever signed it.
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for bad in [
            [lines[1], lines[0]].concat(),
            [lines[0], lines[0]].concat(),
            lines[0].replace(':', ": "),
            lines[0].trim_end().to_owned(),
        ] {
            let bytes = u64::try_from(bad.len()).unwrap();
            let reference = ListRef { bytes, sha256: Digest::of(bad.as_bytes()) };
            assert!(List::parse(bad.as_bytes(), &reference).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_manifest_verifies_with_the_key_that_signed_it_and_no_other() {
        let manifest = manifest().await;
        let note = manifest.to_note();
        let key = signer(9).public();
        assert_eq!(Manifest::verify(note.as_bytes(), &key).unwrap(), manifest);
        assert!(Manifest::verify(note.as_bytes(), &signer(8).public()).is_err());
        for byte in 0..note.len() {
            let mut bad = note.clone().into_bytes();
            bad[byte] ^= 1;
            assert!(Manifest::verify(&bad, &key).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn metadata_have_one_text() {
        let metadata = Metadata::new().with_name("a/b".parse().unwrap()).with_pair("k", "v").unwrap();
        let text = "{\"name\":\"a/b\",\"content_type\":null,\"meta\":{\"k\":\"v\"}}\n";
        assert_eq!(metadata_json(&metadata), text);
        assert_eq!(metadata_json(&Metadata::new()), "{\"name\":null,\"content_type\":null,\"meta\":{}}\n");
    }
}
