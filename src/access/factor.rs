//! Which second factor a person had.
//!
//! A code and nothing else, so that the log can have it: a token's own words for it are the
//! issuer's, and may be anything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::principal::ParseAccessError;

/// Which second factor a person had, as their token or the operator's mapping says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Factor {
    /// A smart card with a PIN (RFC 8176: `sc`).
    SmartCard,
    /// A key in hardware, such as a security key (`hwk`).
    HardwareKey,
    /// A fingerprint, face, iris, retina or voice (`fpt`, `face`, `iris`, `retina`, `vbm`).
    Biometric,
    /// A key in software (`swk`).
    SoftwareKey,
    /// A one-time password (`otp`).
    OneTimePassword,
    /// A text message or a call (`sms`, `tel`).
    Telephone,
    /// Several factors, or channels, of which the token names none (`mfa`, `mca`).
    Several,
    /// A class of authentication that the operator accepts: the claim `acr` alone says so.
    Class,
    /// A method that the operator accepts and RFC 8176 does not list.
    Other,
}

impl Factor {
    /// All of them, the most telling first.
    pub const ALL: [Self; 9] = [
        Self::SmartCard,
        Self::HardwareKey,
        Self::Biometric,
        Self::SoftwareKey,
        Self::OneTimePassword,
        Self::Telephone,
        Self::Several,
        Self::Class,
        Self::Other,
    ];

    /// What the log calls it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::SmartCard => "smart-card",
            Self::HardwareKey => "hardware-key",
            Self::Biometric => "biometric",
            Self::SoftwareKey => "software-key",
            Self::OneTimePassword => "otp",
            Self::Telephone => "telephone",
            Self::Several => "mfa",
            Self::Class => "acr",
            Self::Other => "other",
        }
    }

    /// The factor that a method of a token's `amr` is (RFC 8176 s2). `None` for one that is a
    /// first factor, or that is not listed there.
    #[must_use]
    pub fn of_method(method: &str) -> Option<Self> {
        Some(match method {
            "sc" => Self::SmartCard,
            "hwk" => Self::HardwareKey,
            "fpt" | "face" | "iris" | "retina" | "vbm" => Self::Biometric,
            "swk" => Self::SoftwareKey,
            "otp" => Self::OneTimePassword,
            "sms" | "tel" => Self::Telephone,
            "mfa" | "mca" => Self::Several,
            _ => return None,
        })
    }

    /// Whether the operator may vouch for it where a certificate or a user of this host is
    /// mapped to a person: then using the credential takes this factor.
    #[must_use]
    pub const fn can_be_mapped(self) -> bool {
        matches!(self, Self::SmartCard | Self::HardwareKey | Self::Biometric | Self::OneTimePassword)
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.code())
    }
}

impl FromStr for Factor {
    type Err = ParseAccessError;

    fn from_str(text: &str) -> Result<Self, ParseAccessError> {
        let found = Self::ALL.into_iter().find(|factor| factor.code() == text);
        found.ok_or(ParseAccessError("second factor"))
    }
}

impl Serialize for Factor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_read_back_and_are_in_order() {
        for factor in Factor::ALL {
            assert_eq!(factor.code().parse(), Ok(factor));
        }
        assert!(Factor::ALL.is_sorted());
        assert!("Smart-Card".parse::<Factor>().is_err());
        for first in ["pwd", "pin", "user", "kba", "Jane Doe", ""] {
            assert_eq!(Factor::of_method(first), None);
        }
    }
}
