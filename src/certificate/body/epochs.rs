//! How epochs ended, as certificates say it: in full in the first format, and by the name
//! of a paper in the second.

use serde::{Deserialize, Serialize};

use super::Assurance;
use crate::id::KmsKeyId;
use crate::kms::DestructionAssurance;
use crate::time::Timestamp;

/// The end of an epoch in a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CertifiedEpoch {
    /// Format v1: how it ended. The proofs of it are in the certificate.
    InFull(EpochEnd),
    /// Format v2: the paper that says how.
    Named(EpochName),
}

impl CertifiedEpoch {
    /// Its number.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        match self {
            Self::InFull(end) => end.epoch,
            Self::Named(name) => name.epoch,
        }
    }

    /// How it ended, if the certificate says it itself.
    #[must_use]
    pub const fn in_full(&self) -> Option<&EpochEnd> {
        if let Self::InFull(end) = self { Some(end) } else { None }
    }

    /// The paper, if the certificate names one.
    #[must_use]
    pub const fn named(&self) -> Option<&EpochName> {
        if let Self::Named(name) = self { Some(name) } else { None }
    }
}

/// The paper of an epoch's end, named so that no other can stand for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochName {
    /// The number of the epoch.
    pub epoch: u32,
    /// SHA-256 of the paper, the whole signed note.
    #[serde(with = "crate::audit::hex_digest")]
    pub digest: [u8; 32],
}

/// How an epoch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochEnd {
    /// Its number.
    pub epoch: u32,
    /// Its KMS key.
    pub kms_key: KmsKeyId,
    /// When it was disabled: the time of that record in the log.
    pub disabled: Timestamp,
    /// When its deletion was scheduled: the time of that record in the log.
    pub scheduled: Timestamp,
    /// When it was seen to be gone.
    pub gone: Timestamp,
    /// How.
    pub seen: GoneBy,
}

/// How a KMS key was seen to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GoneBy {
    /// The KMS, asked for it, knows no such key any longer.
    KmsReportsGone,
    /// The local provider's file of it is removed.
    FileRemoved,
}

impl GoneBy {
    /// How the end of this key is seen, which follows from its provider.
    #[must_use]
    pub fn of(key: &KmsKeyId) -> Self {
        match DestructionAssurance::of(key) {
            DestructionAssurance::FilesRemoved => Self::FileRemoved,
            DestructionAssurance::ReportedGone | DestructionAssurance::NotProvable => Self::KmsReportsGone,
        }
    }
}

/// The least that the KMS keys of these epochs can be certified with.
#[must_use]
pub fn weakest<'a>(keys: impl IntoIterator<Item = &'a KmsKeyId>) -> Assurance {
    let all = keys.into_iter().map(Assurance::of);
    all.min_by_key(|assurance| assurance.proves()).unwrap_or(Assurance::NotProvable)
}
