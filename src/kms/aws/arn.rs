//! The ARNs of keys, and what they say of where a key is.
//!
//! Separate because a region becomes part of a host name, and an account decides
//! who is believed about the end of a key: what passes here is read nowhere else.

use super::PROVIDER;
use crate::id::KmsKeyId;
use crate::kms::{KmsError, KmsErrorKind};

/// The ARN of a key: `arn:aws:kms:us-east-1:123456789012:key/…`.
#[derive(Clone, Copy)]
pub(super) struct Arn<'a> {
    pub(super) arn: &'a str,
    pub(super) place: Place<'a>,
}

/// Where an ARN says that a key is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) partition: &'a str,
    pub(super) region: &'a str,
    pub(super) account: &'a str,
}

impl<'a> Arn<'a> {
    pub(super) fn of(key: &'a KmsKeyId) -> Result<Self, KmsError> {
        let arn = name(key)?;
        let names_a_key = arn.rsplit_once(':').is_some_and(|(_, resource)| resource.starts_with("key/"));
        match place_of(arn) {
            Some(place) if names_a_key => Ok(Self { arn, place }),
            _ => {
                let message =
                    "AWS KMS keys are named by the ARN of the key here, not by a bare id or an alias";
                Err(KmsError::new(KmsErrorKind::Invalid, message))
            }
        }
    }
}

pub(super) fn name(key: &KmsKeyId) -> Result<&str, KmsError> {
    if key.provider() == PROVIDER {
        Ok(key.name())
    } else {
        Err(KmsError::new(KmsErrorKind::Invalid, "not the id of an AWS KMS key"))
    }
}

/// The place in an ARN of AWS KMS. The region becomes part of a host name, so
/// nothing but a region passes.
pub(super) fn place_of(name: &str) -> Option<Place<'_>> {
    let mut parts = name.split(':');
    let (arn, partition, service, region, account, resource) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_region = (1..=32).contains(&region.len()) && region.bytes().all(plain);
    let is_account = !account.is_empty() && account.bytes().all(|c| c.is_ascii_digit());
    let is_kms = arn == "arn" && partition.starts_with("aws") && service == "kms" && parts.next().is_none();
    (is_kms && is_region && is_account && !resource.is_empty()).then_some(Place {
        partition,
        region,
        account,
    })
}
