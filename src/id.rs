//! Opaque identifiers, one type each.
//!
//! All are 16 bytes, mostly random, and written as 26 characters of lower-case
//! base32 (the alphabet of Crockford, without padding). They are the only names
//! that reach paths, audit records and KMS encryption contexts: what a person
//! chose (a [`Label`], a blob's name) never does.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{Encoding, Specification};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::time::Day;

/// The size of an identifier, in bytes.
pub const ID_LEN: usize = 16;

/// Text that is not an identifier. It does not repeat the text.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a {what}")]
pub struct ParseIdError {
    what: &'static str,
}

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    spec.encoding().expect("32 distinct symbols make an encoding")
});

/// The text form shared by all identifiers.
pub(crate) fn base32(bytes: &[u8]) -> String {
    BASE32.encode(bytes)
}

/// The bytes of a text form, if it is the one that [`base32`] writes.
pub(crate) fn read_base32(text: &str) -> Option<Vec<u8>> {
    BASE32.decode(text.as_bytes()).ok()
}

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; ID_LEN]);

        impl $name {
            /// The identifier with these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; ID_LEN]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; ID_LEN] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&base32(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let bytes = BASE32.decode(text.as_bytes()).ok();
                bytes
                    .and_then(|bytes| Some(Self(bytes.try_into().ok()?)))
                    .ok_or(ParseIdError { what: $what })
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

        impl Encode for $name {
            fn encode(&self, out: &mut Writer) {
                out.raw(&self.0);
            }
        }

        impl Decode for $name {
            fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                Ok(Self(from.array()?))
            }
        }
    )*};
}

identifiers! {
    /// One store: what one `init` made.
    StoreId, "store id";
    /// One customer of a store.
    CustomerId, "customer id";
    /// One sealed blob. Its first three bytes are the retain-until day under
    /// which it was sealed, so that the id alone leads to its path.
    BlobId, "blob id";
    /// One key-encryption key of a ring: a day key, hold key or name key.
    KekId, "KEK id";
    /// One customer data key: what a customer's KMS key made and can unwrap.
    DataKeyId, "data key id";
    /// One operation of a caller, as its records name it.
    RequestId, "request id";
    /// One running program that writes to the audit log.
    WriterId, "writer id";
    /// One legal hold.
    HoldId, "hold id";
    /// One alarm of a daemon.
    AlarmId, "alarm id";
    /// One order of two people, which it is also the nonce of.
    OrderId, "order id";
    /// One session in which a customer lets its blobs be opened.
    SessionId, "session id";
    /// One emergency that a person declared, to read while the log cannot be written.
    EmergencyId, "emergency id";
    /// One certificate of destruction, interim and final.
    CertificateId, "certificate id";
    /// One key of the local key provider: what follows `local:` in its name.
    LocalKeyId, "local key id";
}

impl BlobId {
    /// The id of a blob sealed under `day`, with 104 random bits.
    ///
    /// # Errors
    /// [`ParseIdError`] if the day is beyond 24 bits (the year 47,900).
    pub fn new(day: Day, random: [u8; 13]) -> Result<Self, ParseIdError> {
        let [top, day @ ..] = day.number().to_be_bytes();
        if top != 0 {
            return Err(ParseIdError { what: "day that a blob id can hold" });
        }
        let mut bytes = [0; ID_LEN];
        bytes[..3].copy_from_slice(&day);
        bytes[3..].copy_from_slice(&random);
        Ok(Self(bytes))
    }

    /// The retain-until day under which the blob was sealed.
    #[must_use]
    pub fn day(&self) -> Day {
        Day::from_number(u32::from_be_bytes([0, self.0[0], self.0[1], self.0[2]]))
    }
}

/// What people call a customer: `acme`. It is stored sealed, and leaves the
/// program only towards a person who asked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The longest label, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it has the form of an identifier: one of ours in any spelling that somebody could take
    /// for it, or a UUID, alone or with something before or behind it. No new customer gets such a
    /// label ([`Strongroom::add_customer`](crate::room::Strongroom::add_customer)): whoever read it
    /// in a list could take it for the id of another customer.
    #[must_use]
    pub fn resembles_id(&self) -> bool {
        let groups: Vec<&str> = self.0.split(['.', '_', '-']).collect();
        let joined = groups.concat();
        let is_hex = |text: &[u8]| text.iter().all(u8::is_ascii_hexdigit);
        let is_base32 = |text: &[u8]| text.iter().all(|c| is_base32(*c));
        // Words have no digits, and of 10,000 ids all but one do.
        let has_digit = |text: &[u8]| text.iter().any(u8::is_ascii_digit);
        let is_alias = |text: &[u8]| {
            let reads = |c: &u8| CROCKFORD_ALIASES.contains(c) || self::is_base32(*c);
            text.len() == ID_TEXT_LEN && text.iter().all(reads) && has_digit(text)
        };
        let has_id = |text: &[u8]| {
            text.len() == ID_TEXT_LEN && is_base32(text)
                || text.windows(ID_TEXT_LEN).any(|part| is_base32(part) && has_digit(part))
                || text.windows(2 * ID_LEN).any(|part| is_hex(part) && has_digit(part))
        };
        let is_uuid = |groups: &[&str]| {
            groups.iter().map(|group| group.len()).eq(UUID_GROUPS)
                && groups.iter().all(|group| is_hex(group.as_bytes()))
        };
        groups.iter().any(|group| has_id(group.as_bytes()) || is_alias(group.as_bytes()))
            || groups.windows(UUID_GROUPS.len()).any(is_uuid)
            || joined.len() == ID_TEXT_LEN && is_base32(joined.as_bytes())
            || joined.len() == 2 * ID_LEN && is_hex(joined.as_bytes())
    }
}

/// The length of an identifier's text.
const ID_TEXT_LEN: usize = 26;

/// What Crockford's base32 reads as a 0 or a 1 beside those, and we do not.
const CROCKFORD_ALIASES: [u8; 3] = *b"ilo";

/// How long the groups of a UUID are (RFC 9562 s4).
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

fn is_base32(c: u8) -> bool {
    (c.is_ascii_lowercase() || c.is_ascii_digit()) && !b"ilou".contains(&c)
}

impl FromStr for Label {
    type Err = ParseIdError;

    /// 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.len() <= Self::MAX_LEN && is_slug(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError {
                what: "customer label (1 to 64 of a-z, 0-9, '.', '_', '-', beginning with a letter or digit)",
            })
        }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Label").finish_non_exhaustive()
    }
}

/// A customer as people name it: by its id or by its label.
///
/// Text that can be the id of a customer is that id and never a label, whatever labels a store has
/// from before such labels were refused: none of them leads to another customer than the one whose
/// id it spells. The customer that bears one is named by its own id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerRef {
    /// By its id.
    Id(CustomerId),
    /// By its label.
    Label(Label),
}

impl FromStr for CustomerRef {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let label: Label = text.parse()?;
        Ok(Self::from(label))
    }
}

impl From<Label> for CustomerRef {
    fn from(label: Label) -> Self {
        label.0.parse().map_or(Self::Label(label), Self::Id)
    }
}

impl From<CustomerId> for CustomerRef {
    fn from(id: CustomerId) -> Self {
        Self::Id(id)
    }
}

impl fmt::Display for CustomerRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Label(label) => label.fmt(f),
        }
    }
}

/// The name of a key inside a KMS, with its provider in front:
/// `local:<id>` or `aws-kms:<ARN>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KmsKeyId(String);

impl KmsKeyId {
    /// The longest, in bytes.
    pub const MAX_LEN: usize = 512;

    /// `provider:name`.
    ///
    /// # Errors
    /// [`ParseIdError`] unless `name` is 1 or more of `A-Z a-z 0-9 : / _ . -`.
    pub fn new(provider: &str, name: &str) -> Result<Self, ParseIdError> {
        format!("{provider}:{name}").parse()
    }

    /// The provider in front: `local`, `aws-kms`.
    #[must_use]
    pub fn provider(&self) -> &str {
        self.split().0
    }

    /// What the provider calls the key.
    #[must_use]
    pub fn name(&self) -> &str {
        self.split().1
    }

    /// Provider and name together.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn split(&self) -> (&str, &str) {
        self.0.split_once(':').expect("a KmsKeyId is made with a colon in it")
    }
}

impl FromStr for KmsKeyId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let wrong = ParseIdError { what: "KMS key (`local:<id>` or `aws-kms:<ARN>`)" };
        let (provider, name) = text.split_once(':').ok_or(wrong)?;
        let plain = |c: u8| c.is_ascii_alphanumeric() || b":/_.-".contains(&c);
        if text.len() > Self::MAX_LEN || !is_slug(provider) || name.is_empty() || !name.bytes().all(plain) {
            return Err(wrong);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for KmsKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for KmsKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KmsKeyId({})", self.0)
    }
}

impl Serialize for KmsKeyId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KmsKeyId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a KMS calls one request: with it, the KMS's own log says more (AWS CloudTrail:
/// `requestID`). 1 to 128 of `A-Z a-z 0-9 - _ . :`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KmsRequestId(Box<str>);

impl KmsRequestId {
    /// The longest, in bytes.
    pub const MAX_LEN: usize = 128;

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KmsRequestId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let plain = |c: u8| c.is_ascii_alphanumeric() || b"-_.:".contains(&c);
        match (1..=Self::MAX_LEN).contains(&text.len()) && text.bytes().all(plain) {
            true => Ok(Self(text.into())),
            false => Err(ParseIdError { what: "KMS request" }),
        }
    }
}

impl fmt::Display for KmsRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for KmsRequestId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KmsRequestId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One or more of `a-z 0-9 . _ -`, beginning with a letter or digit.
pub(crate) fn is_slug(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.bytes().next().is_some_and(plain) && text.bytes().all(|c| plain(c) || b"._-".contains(&c))
}

impl StoreId {
    /// The store's own id, taken as a customer's, which nobody else has: what is of the store and of no
    /// customer stands under it in the log.
    #[must_use]
    pub const fn as_customer(&self) -> CustomerId {
        CustomerId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_reads_back_and_has_one_form() {
        let id = CustomerId::from_bytes(*b"\x00\x01\x02\x03\x04\x05\x06\x07\xf8\xf9\xfa\xfb\xfc\xfd\xfe\xff");
        let text = id.to_string();
        assert_eq!(text, "000g40r40m30fy7szbxzszfyzw");
        assert_eq!(text.parse(), Ok(id));
        // Upper case, a longer text, and stray low bits in the last character.
        assert!(text.to_uppercase().parse::<CustomerId>().is_err());
        assert!(format!("{text}0").parse::<CustomerId>().is_err());
        assert!("000g40r40m30fy7szbxzszfyzx".parse::<CustomerId>().is_err());
    }

    #[test]
    fn a_label_in_the_form_of_an_id_is_known() {
        let label = |text: &str| text.parse::<Label>().unwrap();
        for text in [
            "019mx0xqp7xz8cphp0tt9dmxsc",
            // Not canonical: the two last bits are set.
            "019mx0xqp7xz8cphp0tt9dmxsd",
            // As Crockford's base32 reads it.
            "ol9mxoxqp7xz8cphpott9dmxsc",
            "01arz3ndektsv4rrffq69g5fav",
            "7zzzzzzzzzzzzzzzzzzzzzzzzz",
            "customer-019mx0xqp7xz8cphp0tt9dmxsc",
            "local.019mx0xqp7xz8cphp0tt9dmxsc",
            "019mx0xqp7xz8cphp0tt9dmxsc_2",
            "019mx-0xqp7-xz8cp-hp0tt-9dmxsc",
            "0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11",
            "0bfa1b9c60b44b5a8c0b6b8f3f1d9a11",
            "urn.uuid.0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11",
            "0bfa1b9c.60b4.4b5a.8c0b.6b8f3f1d9a11",
            "key-0bfa1b9c60b44b5a8c0b6b8f3f1d9a11",
            "customer019mx0xqp7xz8cphp0tt9dmxsc",
            "019mx0xqp7xz8cphp0tt9dmxsc0",
        ] {
            assert!(label(text).resembles_id(), "{text}");
        }
        for text in [
            "acme",
            "acme-1.eu",
            "universitaetsklinikumkoeln",
            "saintmarymedicalcenterohio",
            "clinic-2026-12-01-northwest",
            "deadbeef",
            "19mx0xqp7xz8cphp0tt9dmxsc",
            &"a".repeat(64),
        ] {
            assert!(!label(text).resembles_id(), "{text}");
        }
    }

    #[test]
    fn what_can_be_a_customer_id_is_one() {
        let id = "019mx0xqp7xz8cphp0tt9dmxsc";
        assert_eq!(id.parse(), Ok(CustomerRef::Id(id.parse().unwrap())));
        assert_eq!(CustomerRef::from(id.parse::<Label>().unwrap()), CustomerRef::Id(id.parse().unwrap()));
        // The last character of an id has two bits to spare, which are zero.
        for label in ["019mx0xqp7xz8cphp0tt9dmxsd", "acme"] {
            assert_eq!(label.parse(), Ok(CustomerRef::Label(label.parse().unwrap())));
            assert_eq!(label.parse::<CustomerRef>().unwrap().to_string(), label);
        }
        assert!("Not A Label".parse::<CustomerRef>().is_err());
    }

    #[test]
    fn a_blob_id_knows_its_day() {
        let day = Day::from_number(21_000);
        let id = BlobId::new(day, [9; 13]).unwrap();
        assert_eq!(id.day(), day);
        assert!(BlobId::new(Day::from_number(1 << 24), [0; 13]).is_err());
    }

    #[test]
    fn labels_and_key_ids_are_plain() {
        assert!("acme-1.eu".parse::<Label>().is_ok());
        for bad in ["", "-a", "A", "a b", "a/b", "ü", &"a".repeat(65)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
        let arn = "aws-kms:arn:aws:kms:us-east-1:000000000000:key/1234";
        let id: KmsKeyId = arn.parse().unwrap();
        assert_eq!((id.provider(), id.name()), ("aws-kms", &arn[8..]));
        for bad in ["local", "local:", ":x", "local:a b", "Local:a"] {
            assert!(bad.parse::<KmsKeyId>().is_err(), "{bad}");
        }
        assert!("0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11".parse::<KmsRequestId>().is_ok());
        for bad in ["", "a b", "jane@example.org", "ü", "\u{1b}[2J", "\"", &"a".repeat(129)] {
            assert!(bad.parse::<KmsRequestId>().is_err(), "{bad}");
        }
    }
}
