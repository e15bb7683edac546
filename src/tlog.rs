//! Transparency logs as C2SP specifies them: keys, signed notes, checkpoints,
//! cosignatures, tiles and proofs.
//!
//! All of it is pure: text and bytes in, text and bytes out. Separate from the
//! audit log, because none of it knows what a record is, and because other
//! people's tools read it: each format is theirs and not ours (c2sp.org/signed-note,
//! c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature, c2sp.org/tlog-tiles,
//! c2sp.org/tlog-proof).
//!
//! Invariant: what is not signed by a key that the caller named is not believed.

mod builder;
pub mod checkpoint;
pub mod cosignature;
mod key;
mod named;
pub mod note;
pub mod proof;
pub(crate) mod text;
pub mod tile;
mod tiled;

pub use builder::TileBuilder;
pub use key::{PublicKey, SecretKey, Signature};
pub use named::{KeyName, KeyTextError, NamedKey, SignatureType, VerifierKey};
pub use tiled::{Consistency, Inclusion, TiledTree};
