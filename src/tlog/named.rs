//! Keys with the name that notes know them by, and their texts:
//! c2sp.org/signed-note, "Verifier keys".
//!
//! A name and an id of 32 bits say which key a signature is to be checked with,
//! and no more: anyone can make a key with the id of another. What is believed
//! follows from the [`VerifierKey`] that the caller holds.
//!
//! Invariants: a key's id is the recommended hash of its name, type and public
//! key; each value has one text.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error as ThisError;
use zeroize::Zeroizing;

use super::checkpoint::Checkpoint;
use super::cosignature;
use super::key::{PublicKey, SecretKey};
use super::note::NoteSignature;
use super::text::from_base64;
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;
use crate::time::Timestamp;

/// What the text of a private key begins with.
const PRIVATE: &str = "PRIVATE+KEY+";

/// A type byte and a key of 32 bytes.
const TYPED_LEN: usize = 33;

/// [`TYPED_LEN`] bytes in base64, which take no padding.
const TYPED_BASE64_LEN: usize = 44;

/// Text that names no key. It is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum KeyTextError {
    /// The name is empty, or has a space, a plus or a control character in it.
    #[error("a key's name is not empty and has no space, plus or control character in it")]
    Name,
    /// It is not name, id and key with a plus between them, in their one form.
    #[error("not the text of a key")]
    Form,
    /// A type of signature that this program does not know.
    #[error("a key for a type of signature that this program does not know")]
    Type,
    /// The id is not the one of that name, type and key.
    #[error("the key's id does not belong to its name and key")]
    Id,
}

impl From<KeyTextError> for Error {
    fn from(error: KeyTextError) -> Self {
        Self::new(ErrorKind::InvalidInput, "the text of a key is not usable").with_source(error)
    }
}

/// The name of a key: by custom a URL without its scheme, `example.com/log`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let bad = |character: char| character == '+' || character.is_whitespace() || character.is_control();
        if text.is_empty() || text.contains(bad) {
            Err(KeyTextError::Name)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What a key signs: the type byte of c2sp.org/signed-note, "Signature types".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SignatureType {
    /// `0x01`: Ed25519 over the text of the note.
    Ed25519,
    /// `0x04`: Ed25519 over a time and the text of a checkpoint.
    Cosignature,
}

impl SignatureType {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0x01 => Some(Self::Ed25519),
            0x04 => Some(Self::Cosignature),
            _ => None,
        }
    }
}

/// A public key with its name and what it signs. Its text is the *vkey* of
/// c2sp.org/signed-note: `name+id+key`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct VerifierKey {
    name: KeyName,
    signature_type: SignatureType,
    public: PublicKey,
}

impl VerifierKey {
    /// The key of a log, which signs notes as they are (type `0x01`).
    #[must_use]
    pub const fn ed25519(name: KeyName, public: PublicKey) -> Self {
        Self { name, signature_type: SignatureType::Ed25519, public }
    }

    /// The key of a witness, which cosigns checkpoints (type `0x04`).
    #[must_use]
    pub const fn cosigner(name: KeyName, public: PublicKey) -> Self {
        Self { name, signature_type: SignatureType::Cosignature, public }
    }

    /// The name in its signature lines.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// What it signs.
    #[must_use]
    pub const fn signature_type(&self) -> SignatureType {
        self.signature_type
    }

    /// The key itself.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The id in its signature lines: the first four bytes of
    /// SHA-256(name ‖ 0x0A ‖ type ‖ key).
    #[must_use]
    pub fn id(&self) -> u32 {
        let hash = Sha256::new()
            .chain_update(self.name.as_str())
            .chain_update([b'\n', self.signature_type.byte()])
            .chain_update(self.public.as_bytes())
            .finalize();
        u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut typed = vec![self.signature_type.byte()];
        typed.extend_from_slice(self.public.as_bytes());
        f.pad(&format!("{}+{:08x}+{}", self.name, self.id(), BASE64.encode(&typed)))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyTextError;

    fn from_str(text: &str) -> Result<Self, KeyTextError> {
        let (name, id, key) = split(text)?;
        let typed = from_base64(key).ok_or(KeyTextError::Form)?;
        let (kind, key) = typed.split_first().ok_or(KeyTextError::Form)?;
        let signature_type = SignatureType::from_byte(*kind).ok_or(KeyTextError::Type)?;
        let public = PublicKey::from_bytes(key.try_into().map_err(|_| KeyTextError::Form)?);
        let key = Self { name, signature_type, public };
        if key.id() == id { Ok(key) } else { Err(KeyTextError::Id) }
    }
}

/// A name, an id and a key in base64, from the text that has a plus between them.
fn split(text: &str) -> Result<(KeyName, u32, &str), KeyTextError> {
    let (name, rest) = text.split_once('+').ok_or(KeyTextError::Form)?;
    let (id, key) = rest.split_once('+').ok_or(KeyTextError::Form)?;
    let id = HEXLOWER.decode(id.as_bytes()).map_err(|_| KeyTextError::Form)?;
    let id = u32::from_be_bytes(id.try_into().map_err(|_| KeyTextError::Form)?);
    Ok((name.parse()?, id, key))
}

/// A private key with its name.
///
/// Its text is that of Go's `golang.org/x/mod/sumdb/note`,
/// `PRIVATE+KEY+name+id+seed`, which always has the id of type `0x01`. A witness
/// has the same text for its key, and cosigns with it.
pub struct NamedKey {
    name: KeyName,
    secret: SecretKey,
}

impl NamedKey {
    /// `secret`, known by `name`.
    #[must_use]
    pub const fn new(name: KeyName, secret: SecretKey) -> Self {
        Self { name, secret }
    }

    /// Reads the text of a private key. The caller wipes the text.
    ///
    /// # Errors
    /// [`KeyTextError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let (name, id, key) = split(text.strip_prefix(PRIVATE).ok_or(KeyTextError::Form)?)?;
        if key.len() != TYPED_BASE64_LEN {
            return Err(KeyTextError::Form);
        }
        let mut typed = Zeroizing::new([0; TYPED_LEN]);
        let length =
            BASE64.decode_mut(key.as_bytes(), typed.as_mut_slice()).map_err(|_| KeyTextError::Form)?;
        if length != TYPED_LEN {
            return Err(KeyTextError::Form);
        }
        if typed[0] != SignatureType::Ed25519.byte() {
            return Err(KeyTextError::Type);
        }
        let seed = Secret::init(|to| to.copy_from_slice(&typed[1..]));
        let key = Self { name, secret: SecretKey::from_seed(&seed) };
        if key.verifier().id() == id { Ok(key) } else { Err(KeyTextError::Id) }
    }

    /// The text of the private key, on one line without its end. It is secret.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut typed = Zeroizing::new([0; TYPED_LEN]);
        typed[0] = SignatureType::Ed25519.byte();
        typed[1..].copy_from_slice(self.secret.seed().expose());
        let public = format!("{PRIVATE}{}+{:08x}+", self.name, self.verifier().id());
        // As long as it gets, so that no copy is left behind where it was shorter.
        let mut text = Zeroizing::new(String::with_capacity(public.len() + TYPED_BASE64_LEN));
        text.push_str(&public);
        let mut base64 = Zeroizing::new([0; TYPED_BASE64_LEN]);
        BASE64.encode_mut(typed.as_slice(), base64.as_mut_slice());
        text.push_str(std::str::from_utf8(base64.as_slice()).expect("base64 is ASCII"));
        text
    }

    /// The name.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The private key itself.
    #[must_use]
    pub const fn secret(&self) -> &SecretKey {
        &self.secret
    }

    /// The private key without its name.
    #[must_use]
    pub fn into_secret(self) -> SecretKey {
        self.secret
    }

    /// The key that its signatures of notes verify with.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey::ed25519(self.name.clone(), self.secret.public())
    }

    /// The key that its cosignatures of checkpoints verify with.
    #[must_use]
    pub fn cosigner(&self) -> VerifierKey {
        VerifierKey::cosigner(self.name.clone(), self.secret.public())
    }

    /// Signs the text of a note, final line feed included.
    #[must_use]
    pub fn sign(&self, text: &str) -> NoteSignature {
        let signature = self.secret.sign(text.as_bytes());
        NoteSignature::ed25519(self.name.clone(), self.secret.public(), &signature)
    }

    /// Cosigns a checkpoint as of `at`, in whole seconds.
    #[must_use]
    pub fn cosign(&self, checkpoint: &Checkpoint, at: Timestamp) -> NoteSignature {
        let signature = self.secret.sign(&cosignature::message(checkpoint, at));
        NoteSignature::cosignature(self.name.clone(), self.secret.public(), at, &signature)
    }
}

impl fmt::Debug for NamedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedKey").field("name", &self.name).finish_non_exhaustive()
    }
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(KeyName VerifierKey);

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(NamedKey: Clone, fmt::Display, Serialize, PartialEq);

    /// c2sp.org/signed-note, "Example".
    const EXAMPLE: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";

    /// From the tests of Go's `golang.org/x/mod/sumdb/note`.
    const GO_PRIVATE: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

    #[test]
    fn a_verifier_key_has_one_text() {
        let key: VerifierKey = EXAMPLE.parse().unwrap();
        assert_eq!(key.to_string(), EXAMPLE);
        assert_eq!(key.name().as_str(), "example.com/foo");
        assert_eq!(key.id(), 0x530d_903a);
        assert_eq!(key.signature_type(), SignatureType::Ed25519);
        assert_eq!(serde_json::from_str::<VerifierKey>(&serde_json::to_string(&key).unwrap()).unwrap(), key);

        let cosigner = VerifierKey::cosigner(key.name().clone(), *key.public());
        assert_ne!(cosigner.id(), key.id());
        assert_eq!(cosigner.to_string().parse(), Ok(cosigner));
    }

    #[test]
    fn another_text_is_no_verifier_key() {
        let parse = |text: &str| text.parse::<VerifierKey>().unwrap_err();
        assert_eq!(parse(&EXAMPLE.replace("foo", "fop")), KeyTextError::Id);
        assert_eq!(parse(&EXAMPLE.replace("530d903a", "530d903b")), KeyTextError::Id);
        assert_eq!(parse(&EXAMPLE.replace("Aeky", "Aekz")), KeyTextError::Id);
        assert_eq!(parse(&EXAMPLE.replace("+Aeky", "+Beky")), KeyTextError::Type);
        assert_eq!(parse(&EXAMPLE.replace("example", "exa mple")), KeyTextError::Name);
        assert_eq!(parse(&EXAMPLE.replace("example.com/foo", "")), KeyTextError::Name);
        for bad in [
            "",
            "x",
            "x+530d903a",
            &EXAMPLE.replace("530d903a", "530D903A"),
            &EXAMPLE.replace("530d903a", "0530d903a"),
            &EXAMPLE.replace("530d903a", "530d903"),
            &EXAMPLE.replace("U2k", "U2"),
            &EXAMPLE.replace("U2k", "U2kAAAA"),
            &EXAMPLE[..EXAMPLE.len() - 44],
            &format!("{EXAMPLE}\n"),
            &format!("{EXAMPLE}+"),
        ] {
            assert_eq!(parse(bad), KeyTextError::Form, "{bad}");
        }
    }

    #[test]
    fn a_private_key_has_the_text_that_go_gives_it() {
        let key = NamedKey::parse(GO_PRIVATE).unwrap();
        assert_eq!(key.to_text().as_str(), GO_PRIVATE);
        assert_eq!(key.verifier().to_string(), GO_PUBLIC);
        assert_eq!(format!("{key:?}"), "NamedKey { name: KeyName(PeterNeumann), .. }");
        for (bad, why) in [
            (GO_PUBLIC, KeyTextError::Form),
            (&GO_PRIVATE.to_lowercase(), KeyTextError::Form),
            (&GO_PRIVATE.replace("Peter", "Petra"), KeyTextError::Id),
            (&GO_PRIVATE.replace("+AYEK", "+BYEK"), KeyTextError::Type),
            (&GO_PRIVATE.replace("AYEK", "AYEL"), KeyTextError::Id),
            (&GO_PRIVATE.replace("KDFz", "KDF="), KeyTextError::Form),
            (&GO_PRIVATE.replace("KDFz", ""), KeyTextError::Form),
            (&format!("{GO_PRIVATE}\n"), KeyTextError::Form),
        ] {
            assert_eq!(NamedKey::parse(bad).unwrap_err(), why, "{bad}");
        }
    }

    #[test]
    fn a_name_has_no_spaces_in_any_script() {
        for good in ["example.com/log", "a", "Ünïcode.example/µ"] {
            assert_eq!(good.parse::<KeyName>().unwrap().to_string(), good);
        }
        for bad in
            ["", "a b", "a+b", "a\n", "a\u{85}", "a\u{a0}b", "a\u{2003}b", "a\u{3000}", "a\0", "a\u{7f}"]
        {
            assert_eq!(bad.parse::<KeyName>(), Err(KeyTextError::Name), "{bad:?}");
        }
    }
}
