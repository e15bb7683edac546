//! A proof in one file that something was logged: c2sp.org/tlog-proof.
//!
//! It has an inclusion proof and the checkpoint that it leads to, so whoever has
//! the leaf and the keys needs nothing else, nor a connection. Separate from
//! trees and checkpoints, which are of use without each other.
//!
//! Invariants: a proof has one text. What it says is believed after
//! [`TlogProof::verify`]; `extra` is not even then, as nobody signs it.

use std::collections::BTreeSet;
use std::fmt;

use data_encoding::BASE64;
use thiserror::Error as ThisError;

use super::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use super::named::VerifierKey;
use super::note;
use super::text::{base64_of, decimal, from_base64, hash_from_base64};
use crate::error::{Error, ErrorKind};
use crate::merkle::{Hash, ProofError, verify_inclusion};
use crate::time::Timestamp;

/// The longest proof that is read or made, in bytes.
pub const MAX_LEN: usize = 2 * note::MAX_LEN;

/// The longest audit path in a tree of less than 2^64 leaves.
const MAX_PATH: usize = 64;

/// What the first line says.
const FORMAT: &str = "c2sp.org/tlog-proof@v1";

/// Bytes that are not a proof, or a proof that does not show what it should.
/// Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum TlogProofError {
    /// It is longer than [`MAX_LEN`].
    #[error("it is larger than a proof can be")]
    TooLarge,
    /// Its first line is not that of this format.
    #[error("it is not a proof in the format {FORMAT}")]
    Format,
    /// A line is missing or not in its one form.
    #[error("the proof's {0} is not in the form of one")]
    Line(&'static str),
    /// The checkpoint is none, or is not signed as it must be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The leaf is not in the tree of the checkpoint, at that index.
    #[error(transparent)]
    Inclusion(#[from] ProofError),
    /// Fewer witnesses cosigned the checkpoint than were called for.
    #[error("{found} of the witnesses cosigned the checkpoint, and {quorum} have to")]
    Quorum {
        /// How many did.
        found: usize,
        /// How many had to.
        quorum: usize,
    },
}

impl From<TlogProofError> for Error {
    fn from(error: TlogProofError) -> Self {
        Self::new(ErrorKind::Integrity, "a proof of a log does not prove what it should").with_source(error)
    }
}

/// An index, an audit path and a checkpoint. Its `Display` is the file, which by
/// custom has the extension `.tlog-proof`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlogProof {
    extra: Option<Vec<u8>>,
    index: u64,
    path: Vec<Hash>,
    checkpoint: SignedCheckpoint,
}

/// What a proof showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven<'a> {
    /// The checkpoint of the log that has the leaf.
    pub checkpoint: &'a Checkpoint,
    /// Which of the witnesses cosigned it, and when, to the second.
    pub cosigned: Vec<(&'a VerifierKey, Timestamp)>,
}

impl TlogProof {
    /// The proof of the leaf with number `index` under `checkpoint`. The path is
    /// that of RFC 6962 s2.1.1, nearest sibling first. Nothing is verified.
    ///
    /// # Errors
    /// [`TlogProofError::Line`] with a path longer than any tree has.
    pub fn new(index: u64, path: Vec<Hash>, checkpoint: SignedCheckpoint) -> Result<Self, TlogProofError> {
        if path.len() > MAX_PATH {
            return Err(TlogProofError::Line("path"));
        }
        Ok(Self { extra: None, index, path, checkpoint })
    }

    /// The same proof with data that whoever checks it needs to make the leaf.
    ///
    /// # Errors
    /// [`TlogProofError::Line`] without data, and [`TlogProofError::TooLarge`].
    pub fn with_extra(self, extra: Vec<u8>) -> Result<Self, TlogProofError> {
        if extra.is_empty() {
            return Err(TlogProofError::Line("extra data"));
        }
        let proof = Self { extra: Some(extra), ..self };
        if proof.to_string().len() > MAX_LEN { Err(TlogProofError::TooLarge) } else { Ok(proof) }
    }

    /// Reads a proof, strictly: formatting the result gives `bytes` again.
    /// Nothing is verified.
    ///
    /// # Errors
    /// [`TlogProofError`] if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, TlogProofError> {
        if bytes.len() > MAX_LEN {
            return Err(TlogProofError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| TlogProofError::Line("text"))?;
        // Our part has no blank lines, so the first one ends it.
        let (proof, checkpoint) = text.split_once("\n\n").ok_or(TlogProofError::Line("blank line"))?;
        let mut lines = proof.split('\n').peekable();
        if lines.next() != Some(FORMAT) {
            return Err(TlogProofError::Format);
        }
        let extra = lines.next_if(|line| line.starts_with("extra ")).map(read_extra).transpose()?;
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(TlogProofError::Line("index"))?;
        let path = lines.map(hash_from_base64).collect::<Option<_>>().ok_or(TlogProofError::Line("path"))?;
        let checkpoint = SignedCheckpoint::parse(checkpoint.as_bytes())?;
        Ok(Self { extra, ..Self::new(index, path, checkpoint)? })
    }

    /// The data that came with it, which nothing vouches for.
    #[must_use]
    pub fn extra(&self) -> Option<&[u8]> {
        self.extra.as_deref()
    }

    /// The number of the leaf, from 0.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The audit path, nearest sibling first.
    #[must_use]
    pub fn path(&self) -> &[Hash] {
        &self.path
    }

    /// The checkpoint that it leads to.
    #[must_use]
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }

    /// Checks that the leaf with this hash is in the tree of `log`, and that at
    /// least `quorum` of `witnesses` have seen that tree. A key that is listed
    /// twice, under whatever names, counts once.
    ///
    /// # Errors
    /// [`TlogProofError`] if the proof does not show it, and with a false
    /// signature of a known key, whatever else it shows.
    pub fn verify<'a>(
        &'a self,
        leaf: Hash,
        log: &VerifierKey,
        witnesses: &'a [VerifierKey],
        quorum: usize,
    ) -> Result<Proven<'a>, TlogProofError> {
        let checkpoint = self.checkpoint.verify(log)?;
        let mut cosigned = Vec::new();
        let mut counted = BTreeSet::new();
        for witness in witnesses {
            if let Some(at) = self.checkpoint.cosigned_by(witness)?
                && counted.insert(witness.public())
            {
                cosigned.push((witness, at));
            }
        }
        if cosigned.len() < quorum {
            return Err(TlogProofError::Quorum { found: cosigned.len(), quorum });
        }
        verify_inclusion(leaf, self.index, &self.path, checkpoint.head())?;
        Ok(Proven { checkpoint, cosigned })
    }
}

/// The data of an `extra` line, which is not there when there are none.
fn read_extra(line: &str) -> Result<Vec<u8>, TlogProofError> {
    let data = line.strip_prefix("extra ").and_then(from_base64);
    data.filter(|data| !data.is_empty()).ok_or(TlogProofError::Line("extra data"))
}

impl fmt::Display for TlogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FORMAT}")?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", BASE64.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.path.iter().try_for_each(|hash| writeln!(f, "{}", base64_of(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::note::NoteError;
    use super::super::{KeyName, NamedKey, SecretKey};
    use super::*;
    use crate::merkle::{TreeHead, leaf_hash, prove_inclusion, root};
    use crate::secret::Secret;

    const ORIGIN: &str = "example.com/log";

    fn named(name: &str, seed: u8) -> NamedKey {
        NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
    }

    fn leaves(count: u8) -> Vec<Hash> {
        (0..count).map(|byte| leaf_hash(&[byte])).collect()
    }

    /// The proof of a leaf, with the checkpoint signed by the log and witnesses.
    fn proof(size: u8, index: usize, witnesses: &[NamedKey]) -> TlogProof {
        let leaves = leaves(size);
        let head = TreeHead { size: size.into(), root: root(&leaves) };
        let log = named(ORIGIN, 0);
        let checkpoint = Checkpoint::new(log.name().clone().into(), head).unwrap();
        let at = Timestamp::from_micros(7_000_000).unwrap();
        let cosignatures = witnesses.iter().map(|witness| witness.cosign(&checkpoint, at));
        let signatures = std::iter::once(log.sign(&checkpoint.to_string())).chain(cosignatures).collect();
        let signed = SignedCheckpoint::new(checkpoint, signatures).unwrap();
        TlogProof::new(index as u64, prove_inclusion(&leaves, index).unwrap(), signed).unwrap()
    }

    fn changed(proof: &TlogProof, from: &str, to: &str) -> Result<TlogProof, TlogProofError> {
        let text = proof.to_string();
        assert!(text.contains(from), "{from}");
        TlogProof::parse(text.replacen(from, to, 1).as_bytes())
    }

    #[test]
    fn it_shows_that_a_leaf_was_logged_and_seen() {
        let witnesses = [named("w1.example", 1), named("w2.example", 2), named("w3.example", 3)];
        let keys: Vec<VerifierKey> = witnesses.iter().map(NamedKey::cosigner).collect();
        let (log, leaf) = (named(ORIGIN, 0).verifier(), leaf_hash(&[5]));
        let proof = proof(11, 5, &witnesses[..2]);
        let proven = proof.verify(leaf, &log, &keys, 2).unwrap();
        assert_eq!(proven.checkpoint.head().size, 11);
        let cosigned: Vec<(&VerifierKey, u64)> =
            proven.cosigned.iter().map(|(key, at)| (*key, at.micros())).collect();
        assert_eq!(cosigned, [(&keys[0], 7_000_000), (&keys[1], 7_000_000)]);
        assert_eq!(proof.verify(leaf, &log, &[], 0).unwrap().cosigned, []);

        let few = |found, quorum| Err(TlogProofError::Quorum { found, quorum });
        assert_eq!(proof.verify(leaf, &log, &keys, 3), few(2, 3));
        assert_eq!(proof.verify(leaf, &log, &[], 1), few(0, 1));
        assert_eq!(proof.verify(leaf_hash(&[4]), &log, &keys, 2), Err(ProofError.into()));
        let other = named(ORIGIN, 9).verifier();
        assert_eq!(proof.verify(leaf, &other, &keys, 2), Err(CheckpointError::NotSigned.into()));
        let elsewhere = named("example.com/elsewhere", 0).verifier();
        assert_eq!(proof.verify(leaf, &elsewhere, &keys, 2), Err(CheckpointError::Origin.into()));
        let not_a_witness = [log.clone()];
        let refused = Err(CheckpointError::NotCosigner.into());
        assert_eq!(proof.verify(leaf, &log, &not_a_witness, 0), refused);

        for index in [4, 6, 11, u64::MAX] {
            let moved = changed(&proof, "index 5", &format!("index {index}")).unwrap();
            assert_eq!(moved.verify(leaf, &log, &keys, 2), Err(ProofError.into()));
        }
        let larger = changed(&proof, "\n11\n", "\n12\n").unwrap();
        let false_signature = Err(CheckpointError::Note(NoteError::Signature).into());
        assert_eq!(larger.verify(leaf, &log, &keys, 2), false_signature);
    }

    #[test]
    fn a_witness_under_two_names_is_one_witness() {
        let (log, leaf) = (named(ORIGIN, 0).verifier(), leaf_hash(&[0]));
        let twice = [named("w1.example", 1), named("w2.example", 1)];
        let keys: Vec<VerifierKey> = twice.iter().map(NamedKey::cosigner).collect();
        let proof = proof(3, 0, &twice);
        assert!(proof.verify(leaf, &log, &keys, 1).is_ok());
        let few = Err(TlogProofError::Quorum { found: 1, quorum: 2 });
        assert_eq!(proof.verify(leaf, &log, &keys, 2), few);
        let same = [keys[0].clone(), keys[0].clone()];
        assert_eq!(proof.verify(leaf, &log, &same, 2), few);
    }

    #[test]
    fn a_false_cosignature_is_an_error_even_beside_a_quorum() {
        let (log, leaf) = (named(ORIGIN, 0).verifier(), leaf_hash(&[0]));
        let witnesses = [named("w1.example", 1), named("w2.example", 2)];
        let keys: Vec<VerifierKey> = witnesses.iter().map(NamedKey::cosigner).collect();
        let mut proof = proof(3, 0, &witnesses);
        let at = Timestamp::from_micros(0).unwrap();
        let name: KeyName = "w2.example".parse().unwrap();
        let stranger = named("w2.example", 3).secret().sign(b"something");
        let public = *keys[1].public();
        let false_one = super::super::note::NoteSignature::cosignature(name, public, at, &stranger);
        proof.checkpoint.add(false_one).unwrap();
        let false_signature = Err(CheckpointError::Note(NoteError::Signature).into());
        assert_eq!(proof.verify(leaf, &log, &keys, 1), false_signature);
        assert!(proof.verify(leaf, &log, &keys[..1], 1).is_ok());
    }

    #[test]
    fn a_proof_has_one_text() {
        let proof = proof(11, 5, &[]);
        let with_extra = proof.clone().with_extra(b"age".to_vec()).unwrap();
        let text = with_extra.to_string();
        assert!(text.starts_with("c2sp.org/tlog-proof@v1\nextra YWdl\nindex 5\n"));
        assert_eq!(TlogProof::parse(text.as_bytes()), Ok(with_extra.clone()));
        assert_eq!(TlogProof::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
        assert_eq!(with_extra.extra(), Some(b"age".as_slice()));
        let alone = self::proof(1, 0, &[]);
        assert!(alone.to_string().starts_with("c2sp.org/tlog-proof@v1\nindex 0\n\nexample.com/log\n1\n"));
        assert_eq!(TlogProof::parse(alone.to_string().as_bytes()), Ok(alone));

        let line = TlogProofError::Line;
        let first = base64_of(&proof.path()[0]);
        for (from, to, why) in [
            ("@v1", "@v2", TlogProofError::Format),
            ("c2sp", " c2sp", TlogProofError::Format),
            ("c2sp.org/tlog-proof@v1\n", "", TlogProofError::Format),
            ("extra YWdl", "extra ", line("extra data")),
            ("extra YWdl", "extra YWd", line("extra data")),
            ("extra YWdl", "extra  YWdl", line("extra data")),
            ("extra YWdl", "extra", line("index")),
            ("extra YWdl", "extra YWdl\nextra YWdl", line("index")),
            ("extra YWdl\nindex 5", "index 5\nextra YWdl", line("path")),
            ("index 5\n", "", line("index")),
            ("index 5", "index 05", line("index")),
            ("index 5", "index  5", line("index")),
            ("index 5", "index -5", line("index")),
            ("index 5", "index 5 ", line("index")),
            (&first, &first[..43], line("path")),
            (&first, "AAAA", line("path")),
            ("\n\nexample.com/log\n", "\nexample.com/log\n", line("path")),
            ("\n\nexample", "\n\n\nexample", CheckpointError::Line("origin").into()),
        ] {
            assert_eq!(changed(&with_extra, from, to), Err(why), "{from} {to}");
        }
        assert_eq!(TlogProof::parse(b""), Err(line("blank line")));
        assert_eq!(TlogProof::parse(b"\xff"), Err(line("text")));
        assert_eq!(TlogProof::parse(&vec![b'\n'; MAX_LEN + 1]), Err(TlogProofError::TooLarge));
        assert_eq!(proof.clone().with_extra(vec![]), Err(line("extra data")));
        assert_eq!(proof.clone().with_extra(vec![0; MAX_LEN]), Err(TlogProofError::TooLarge));
        let long = TlogProof::new(0, vec![Hash::ZERO; 65], proof.checkpoint);
        assert_eq!(long, Err(line("path")));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn every_leaf_has_a_proof_and_no_other_leaf_fits(size in 1..100_u8, at in any::<prop::sample::Index>(), extra in prop::collection::vec(any::<u8>(), 1..50)) {
            let index = at.index(size.into());
            let proof = proof(size, index, &[]).with_extra(extra).unwrap();
            prop_assert_eq!(TlogProof::parse(proof.to_string().as_bytes()), Ok(proof.clone()));
            let log = named(ORIGIN, 0).verifier();
            prop_assert!(proof.verify(leaves(size)[index], &log, &[], 0).is_ok());
            for (other, leaf) in leaves(size).into_iter().enumerate() {
                let fits = verify_inclusion(leaf, index as u64, proof.path(), proof.checkpoint().checkpoint().head());
                prop_assert_eq!(fits.is_ok(), other == index);
            }
        }
    }
}
