//! The statement of a change of the log's key, kept at `key/<number>`.
//!
//! A signed note under the name `strongroom/<store>/log-key`, with two signatures: by the key before
//! and by the new one. Its text is one JSON object in one form. Only the key before can say who
//! follows it, only the new one that it does, and neither does so without an order of two people, which is
//! in the statement as certificates have orders.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audit::layout::log_key_name;
use crate::audit::signer::LogSigner;
use crate::certificate::{SignedOrder, check_order};
use crate::error::{Error, ErrorKind, Result};
use crate::id::StoreId;
use crate::merkle::Hash;
use crate::order::{Order, OrderKind};
use crate::time::Timestamp;
use crate::tlog::note::{Note, NoteSignature};
use crate::tlog::{PublicKey, VerifierKey};

/// What the texts of all versions of this format begin with.
const FORMATS: &str = "strongroom/log-key/v";

/// All that a statement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyChangeBody {
    /// The format.
    pub format: KeyChangeFormat,
    /// The store whose log it is.
    pub store: StoreId,
    /// The number of the new key, from 2.
    pub number: u32,
    /// The key before.
    pub old: PublicKey,
    /// The new key.
    pub new: PublicKey,
    /// When the statement was made.
    pub time: Timestamp,
    /// The order by which it was made.
    pub order: SignedOrder,
}

/// The format of a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyChangeFormat {
    /// The first.
    #[default]
    #[serde(rename = "strongroom/log-key/v1")]
    V1,
}

/// A statement that verifies by itself. Whether its old key is the log's is for
/// [`Authority::extend`](super::Authority::extend).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    body: KeyChangeBody,
    note: Note,
    digest: Hash,
}

impl KeyChange {
    /// Reads a statement of this store, or of whichever it says, strictly, and verifies both signatures
    /// and those under its order.
    ///
    /// Whose personal keys signed the order is for the caller to compare with what it knows.
    ///
    /// # Errors
    /// [`ErrorKind::UnsupportedFormat`] for a later version, [`ErrorKind::Integrity`] for
    /// anything else that is no statement of this store.
    pub fn parse(bytes: &[u8], store: impl Into<Option<StoreId>>) -> Result<Self> {
        let note = Note::parse(bytes)?;
        let Ok(body) = serde_json::from_str::<KeyChangeBody>(note.text()) else {
            return Err(not_read(note.text()));
        };
        check(&body)?;
        let store = store.into().unwrap_or(body.store);
        if text(&body) != note.text() || body.store != store {
            return Err(wrong("it is not in the one form, or is of another store"));
        }
        // Each under its own name, in this order, and nobody else.
        let keys = [body.old, body.new].map(|key| VerifierKey::ed25519(log_key_name(store), key));
        if !note.signatures().iter().map(NoteSignature::id).eq(keys.iter().map(VerifierKey::id)) {
            return Err(wrong("it is not signed by the two keys alone"));
        }
        for key in &keys {
            note.verified_by(key)?.ok_or_else(|| wrong("it is not signed by both keys"))?;
        }
        Ok(Self { body, digest: Hash::of(bytes), note })
    }

    /// Signs a statement with the key before and the new one.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`] if it would not verify; those of [`LogSigner::sign`].
    ///
    /// # Cancel safety
    /// Nothing is written.
    pub async fn sign(body: KeyChangeBody, old: &dyn LogSigner, new: &dyn LogSigner) -> Result<Self> {
        check(&body)?;
        let (text, name) = (text(&body), log_key_name(body.store));
        let mut lines = Vec::new();
        for signer in [old, new] {
            let signature = signer.sign(text.as_bytes()).await?;
            lines.push(NoteSignature::ed25519(name.clone(), signer.public(), &signature));
        }
        let note = Note::new(text, lines)?.to_string();
        // What would not be read back is not kept.
        Self::parse(note.as_bytes(), body.store)
    }

    /// What it says.
    #[must_use]
    pub const fn body(&self) -> &KeyChangeBody {
        &self.body
    }

    /// SHA-256 of the note: what the records in the log name.
    #[must_use]
    pub const fn digest(&self) -> Hash {
        self.digest
    }
}

/// The note: what is kept and verified.
impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

/// Everything but the form and the signatures.
fn check(body: &KeyChangeBody) -> Result<()> {
    if body.number < 2 || body.old == body.new {
        return Err(wrong("it changes nothing"));
    }
    let order = check_order(&body.order, body.store, None)?;
    match Order::parse(order.text()).map(|order| order.what) {
        Ok(OrderKind::RotateLogKey { key }) if key == body.new => Ok(()),
        _ => Err(wrong("its order is not one for the new key")),
    }
}

/// The one text of a body.
fn text(body: &KeyChangeBody) -> String {
    let mut text = serde_json::to_string_pretty(body).expect("a statement has string keys only");
    text.push('\n');
    text
}

fn not_read(text: &str) -> Error {
    let value = serde_json::from_str::<serde_json::Value>(text).ok();
    let format = value.as_ref().and_then(|value| value.get("format")?.as_str());
    match format.and_then(|format| format.strip_prefix(FORMATS)) {
        Some(version) if version != "1" => {
            let sentence = "the log's key was changed in a later format; use a newer Strongroom";
            Error::new(ErrorKind::UnsupportedFormat, sentence)
        }
        _ => wrong("it is not in the one form"),
    }
}

fn wrong(why: &'static str) -> Error {
    Error::new(ErrorKind::Integrity, "the statement of a change of the log's key does not verify")
        .with_source(why)
}
