//! What was verified, what a certificate does not cover, and what it lacks: codes, each with
//! its one sentence.

use serde::{Deserialize, Serialize};

use super::{Assurance, CertificateStage, Survivors};
use crate::kms::DestructionAssurance;

/// What was verified. A sentence is fixed: [`Verification::sentence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verification {
    /// The wrap paths.
    WrapPathsFromLog,
    /// The holds.
    NoHold,
    /// The ring version.
    RingReadBack,
    /// The other rings.
    EpochPreflight,
    /// The epochs' keys.
    EpochKeysGone,
    /// The caches.
    CachesExpired,
    /// That nothing opens.
    OpenRefused,
}

impl Verification {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::WrapPathsFromLog,
        Self::NoHold,
        Self::RingReadBack,
        Self::EpochPreflight,
        Self::EpochKeysGone,
        Self::CachesExpired,
        Self::OpenRefused,
    ];

    /// What must have been verified for a certificate, in order.
    #[must_use]
    pub const fn required(stage: CertificateStage) -> &'static [Self] {
        use Verification as V;
        match stage {
            CertificateStage::Interim => &[V::WrapPathsFromLog, V::NoHold, V::RingReadBack],
            CertificateStage::Final => &[
                V::WrapPathsFromLog,
                V::NoHold,
                V::RingReadBack,
                V::EpochPreflight,
                V::EpochKeysGone,
                V::CachesExpired,
            ],
        }
    }

    /// What it means.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::WrapPathsFromLog => {
                "Every way from a key to a blob was taken from the log, and for the blobs in scope all of \
                 them ended at the destroyed keys."
            }
            Self::NoHold => "No legal hold stood on the keys in the ring version before.",
            Self::RingReadBack => {
                "The ring version without the keys was read back, and its hash is the one in the log."
            }
            Self::EpochPreflight => {
                "Before each epoch's key was disabled, and again before it was deleted, every ring that the \
                 log names opened under a later epoch."
            }
            Self::EpochKeysGone => {
                "The KMS was asked for the key of each epoch, and reported that it has none of them."
            }
            Self::CachesExpired => "The time is over that any program keeps an opened ring in memory.",
            Self::OpenRefused => "Opening a blob in scope was tried, and refused because its key is gone.",
        }
    }
}

/// What a certificate does not cover. A sentence is fixed: [`Limit::sentence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// An interim certificate: older rings.
    EpochsAlive,
    /// A local KMS: the medium.
    BestEffortMedium,
    /// A KMS that this program knows nothing of.
    EndNotProvable,
    /// Ciphertext.
    CiphertextRemains,
    /// Tags of names.
    NameTags,
    /// Exports and copies in the clear.
    Exports,
    /// What callers have.
    HeldByCallers,
    /// Memory.
    Memory,
    /// Records.
    Records,
    /// Ciphers.
    Ciphers,
    /// Survivors.
    Survivors,
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::EpochsAlive,
        Self::BestEffortMedium,
        Self::EndNotProvable,
        Self::CiphertextRemains,
        Self::NameTags,
        Self::Exports,
        Self::HeldByCallers,
        Self::Memory,
        Self::Records,
        Self::Ciphers,
        Self::Survivors,
    ];

    /// What a certificate has to say that it does not cover: these, and no others.
    #[must_use]
    pub fn of(stage: CertificateStage, assurance: Assurance, survivors: &[Survivors]) -> Vec<Self> {
        let said = |limit: &Self| match limit {
            Self::EpochsAlive => stage == CertificateStage::Interim,
            Self::BestEffortMedium => assurance.proves() == DestructionAssurance::FilesRemoved,
            Self::EndNotProvable => assurance == Assurance::NotProvable,
            Self::Survivors => !survivors.is_empty(),
            _ => true,
        };
        Self::ALL.into_iter().filter(said).collect()
    }

    /// What it means.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::EpochsAlive => {
                "It is not final. Until the keys of all epochs in question are destroyed, an old copy of the \
                 ring can be opened by whoever may use those keys and the customer's."
            }
            Self::BestEffortMedium => {
                "The KMS keys were files. Removing a file does not sanitize the medium, and reaches no \
                 category: its bytes may be found there, or in a backup of it."
            }
            Self::EndNotProvable => {
                "A KMS key was of a provider that this program knows nothing of. That the provider reports \
                 the key gone does not show that no copy of it remains."
            }
            Self::CiphertextRemains => {
                "Copies of the ciphertext may exist, in the storage, its versions and backups. They stay \
                 unreadable, and they show customer, day and size."
            }
            Self::NameTags => {
                "Keyed tags of blobs' names stay beside the blobs until they are deleted. Whoever has the \
                 name key can test a name against them."
            }
            Self::Exports => "Copies that were exported, returned or restored elsewhere are not covered.",
            Self::HeldByCallers => "Nor is what a caller read before and kept.",
            Self::Memory => {
                "Nor are traces in memory, swap, core dumps or images of machines that had keys or data in \
                 the clear."
            }
            Self::Records => "The audit log keeps its records: ids, times and sizes, and who used which key.",
            Self::Ciphers => {
                "That ciphertext without its key cannot be read rests on the strength of the ciphers, today \
                 and for as long as copies are kept."
            }
            Self::Survivors => {
                "Blobs that live on by another path are not destroyed. They are counted above."
            }
        }
    }
}

/// What NIST SP 800-88r2 s4.6 and its sample certificate list, and this one does not have. A
/// sentence is fixed: [`Missing::sentence`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Validation.
    Validation,
    /// How the keys were sanitized.
    KeySanitization,
    /// Manufacturer and model of the media.
    ManufacturerAndModel,
    /// Serial and property numbers of the media.
    SerialAndPropertyNumbers,
    /// Their type.
    MediaType,
    /// Where they came from, and what was on them.
    MediaSource,
    /// Where the ciphertext lies.
    CiphertextLocation,
    /// The ciphers of the blobs.
    CipherOfEachBlob,
    /// The category of the data before.
    PreSanitizationCategory,
    /// Where the media go.
    Destination,
    /// Titles of people.
    PersonTitle,
    /// Where they were.
    PersonLocation,
    /// How to reach them.
    PersonContact,
    /// Their signatures.
    PersonSignature,
}

impl Missing {
    /// All of them: a certificate names each.
    pub const ALL: [Self; 14] = [
        Self::Validation,
        Self::KeySanitization,
        Self::ManufacturerAndModel,
        Self::SerialAndPropertyNumbers,
        Self::MediaType,
        Self::MediaSource,
        Self::CiphertextLocation,
        Self::CipherOfEachBlob,
        Self::PreSanitizationCategory,
        Self::Destination,
        Self::PersonTitle,
        Self::PersonLocation,
        Self::PersonContact,
        Self::PersonSignature,
    ];

    /// What it means.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Validation => {
                "Validation (s4.5.2): that the organisation reviewed the result and accepts it. The \
                 verification above is this program's, of its own work."
            }
            Self::KeySanitization => {
                "How the keys were sanitized, as by zeroisation under ISO/IEC 19790. The KMS, or the \
                 medium of its files, is not seen into. Whether keys that are managed there are \
                 acceptable (s3.2) is for the validation to say."
            }
            Self::ManufacturerAndModel => "Manufacturer and model of the media.",
            Self::SerialAndPropertyNumbers => "Serial numbers and property numbers of the media.",
            Self::MediaType => "The type of the media.",
            Self::MediaSource => {
                "The source of the media, and whether they ever held the same data in plaintext: this \
                 certificate is about what Strongroom stored there."
            }
            Self::CiphertextLocation => {
                "Where the ciphertext lies: provider, account, region, bucket, and until when."
            }
            Self::CipherOfEachBlob => {
                "The cipher of each blob: its header says which of two, both with 256-bit keys."
            }
            Self::PreSanitizationCategory => "The confidentiality category of the data before.",
            Self::Destination => "The destination of the media afterwards.",
            Self::PersonTitle => "The title of each person.",
            Self::PersonLocation => "The location of each person.",
            Self::PersonContact => "How each person can be reached.",
            Self::PersonSignature => {
                "The signature, with date, of a person who sanitized, and of one who verified: a program \
                 did both. Signatures under an order are of those who ordered it."
            }
        }
    }
}
