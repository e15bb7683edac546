//! What a customer has by what the log says, as JSON.

use serde::{Deserialize, Serialize};

use crate::drill::LogMark;
use crate::id::{BlobId, StoreId};
use crate::shred::inventory;
use crate::shred::paths::Certainty;

/// A page of what a customer has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inventory {
    pub(crate) store: StoreId,
    /// Where the log stood.
    pub(crate) log: LogMark,
    /// By id.
    pub(crate) blobs: Vec<Stands>,
    /// What the next page comes after, if there is one.
    pub(crate) next: Option<BlobId>,
}

/// How one blob stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stands {
    pub(crate) blob: BlobId,
    pub(crate) standing: Standing,
}

/// How a blob stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Standing {
    /// It has to open.
    Lives,
    /// It may be there: whoever sealed it went away, or did not learn how that ended.
    MayLive,
    /// An order withdrew it.
    Withdrawn,
    /// It lies on the storage, and all its keys are destroyed.
    Destroyed,
    /// It lies on the storage, and the log does not name it.
    Unlogged,
}

impl From<inventory::Standing> for Standing {
    fn from(standing: inventory::Standing) -> Self {
        match standing {
            standing if standing.has_to_open() => Self::Lives,
            inventory::Standing::Lives { .. } => Self::MayLive,
            inventory::Standing::Withdrawn(_) => Self::Withdrawn,
            inventory::Standing::Destroyed => Self::Destroyed,
            inventory::Standing::Unlogged => Self::Unlogged,
        }
    }
}

impl From<Standing> for inventory::Standing {
    /// How sure it is that it was sealed is not told, and nothing that a client does goes by it:
    /// as sure as that its key lives.
    fn from(standing: Standing) -> Self {
        let lives = |sure| Self::Lives { sealed: sure, wrapped: sure };
        match standing {
            Standing::Lives => lives(Certainty::Certain),
            Standing::MayLive => lives(Certainty::Possible),
            Standing::Withdrawn => Self::Withdrawn(Certainty::Possible),
            Standing::Destroyed => Self::Destroyed,
            Standing::Unlogged => Self::Unlogged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn a_client_judges_a_failure_as_the_store_does() {
        use Certainty::{Certain, Possible};
        use inventory::Standing as In;
        let all = [
            In::Lives { sealed: Certain, wrapped: Certain },
            In::Lives { sealed: Certain, wrapped: Possible },
            In::Lives { sealed: Possible, wrapped: Possible },
            In::Withdrawn(Certain),
            In::Withdrawn(Possible),
            In::Destroyed,
            In::Unlogged,
        ];
        for standing in all {
            let json = serde_json::to_string(&Standing::from(standing)).unwrap();
            let read = In::from(serde_json::from_str::<Standing>(&json).unwrap());
            assert_eq!(read.has_to_open(), standing.has_to_open(), "{json}");
            for kind in
                [ErrorKind::KeyDestroyed, ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Integrity]
            {
                let error = Error::new(kind, "x");
                assert_eq!(read.excuse(&error), standing.excuse(&error), "{json}, {kind:?}");
            }
        }
    }
}
