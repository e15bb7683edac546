//! Checkpoints: a tree head as the text of a note, c2sp.org/tlog-checkpoint.
//!
//! Separate from the note, because a log and its witnesses sign the same text
//! in different ways, and from the tree, which does not know whose it is.
//!
//! Invariants: a [`Checkpoint`] has one text; a [`SignedCheckpoint`] holds the
//! checkpoint that its note's text says. Neither is believed before
//! [`SignedCheckpoint::verify`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error as ThisError;

use super::cosignature;
use super::named::{KeyName, SignatureType, VerifierKey};
use super::note::{Note, NoteError, NoteSignature};
use super::text::{base64_of, decimal, hash_from_base64, lines};
use crate::error::{Error, ErrorKind};
use crate::merkle::{Hash, TreeHead};
use crate::time::Timestamp;

/// Bytes that are not a checkpoint, or one that is not signed as it must be.
/// Nothing of it is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum CheckpointError {
    /// It is not a note, or has a false signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// A line is missing or not in its one form.
    #[error("the checkpoint's {0} is not in the form of one")]
    Line(&'static str),
    /// It says that the empty tree has another root than it has.
    #[error("the checkpoint is of no tree")]
    Root,
    /// It is another log's.
    #[error("the checkpoint is not of the log that the key is for")]
    Origin,
    /// It has no signature by the key.
    #[error("the checkpoint is not signed by the log")]
    NotSigned,
    /// A key that signs notes was given where a witness's was called for.
    #[error("the key is not for cosignatures")]
    NotCosigner,
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        Self::new(ErrorKind::Integrity, "a checkpoint is not as it has to be").with_source(error)
    }
}

/// Which log it is: the first line of its checkpoints. By custom, the name of
/// the log's key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(String);

impl Origin {
    /// The line, without its line feed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let bad = text.is_empty() || text.contains(char::is_control);
        if bad { Err(CheckpointError::Line("origin")) } else { Ok(Self(text.to_owned())) }
    }
}

impl From<KeyName> for Origin {
    fn from(name: KeyName) -> Self {
        Self(name.as_str().to_owned())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How large the tree of a log is, and its root. Its `Display` is the text that
/// is signed: c2sp.org/tlog-checkpoint, "Note text".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    origin: Origin,
    head: TreeHead,
    extensions: Vec<String>,
}

impl Checkpoint {
    /// The checkpoint of a log's tree.
    ///
    /// # Errors
    /// [`CheckpointError::Root`] if the tree is empty and the root is another.
    pub fn new(origin: Origin, head: TreeHead) -> Result<Self, CheckpointError> {
        if head.size == 0 && head.root != Hash::of(&[]) {
            return Err(CheckpointError::Root);
        }
        Ok(Self { origin, head, extensions: Vec::new() })
    }

    /// The same checkpoint with further lines, which nobody else understands.
    ///
    /// # Errors
    /// [`CheckpointError::Line`] if one is empty, or has a control character in it.
    pub fn with_extensions(self, extensions: Vec<String>) -> Result<Self, CheckpointError> {
        let bad = |line: &String| line.is_empty() || line.bytes().any(|byte| byte < b' ');
        if extensions.iter().any(bad) {
            return Err(CheckpointError::Line("extension"));
        }
        Ok(Self { extensions, ..self })
    }

    /// Reads the text of a checkpoint, strictly: formatting the result gives
    /// `text` again.
    ///
    /// # Errors
    /// [`CheckpointError::Line`] or [`CheckpointError::Root`] if it is none.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = lines(text).ok_or(CheckpointError::Line("last line"))?;
        let mut next = |what| lines.next().ok_or(CheckpointError::Line(what));
        let origin = next("origin")?.parse()?;
        let size = decimal(next("tree size")?).ok_or(CheckpointError::Line("tree size"))?;
        let root = hash_from_base64(next("root hash")?).ok_or(CheckpointError::Line("root hash"))?;
        Self::new(origin, TreeHead { size, root })?.with_extensions(lines.map(str::to_owned).collect())
    }

    /// Whose tree it is.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The tree's size and root.
    #[must_use]
    pub const fn head(&self) -> &TreeHead {
        &self.head
    }

    /// The lines after them.
    #[must_use]
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n{}", self.origin, self.head.size, base64_of(&self.head.root))?;
        self.extensions.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// A checkpoint and signatures under it, by its log and by witnesses. Its
/// `Display` is the note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Puts signatures under a checkpoint. They are not verified.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] with no signature, or with too many.
    pub fn new(checkpoint: Checkpoint, signatures: Vec<NoteSignature>) -> Result<Self, CheckpointError> {
        let note = Note::new(checkpoint.to_string(), signatures)?;
        Ok(Self { checkpoint, note })
    }

    /// Reads a checkpoint with its signatures, strictly: formatting the result
    /// gives `bytes` again. Nothing is verified.
    ///
    /// # Errors
    /// [`CheckpointError`] if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, CheckpointError> {
        let note = Note::parse(bytes)?;
        Ok(Self { checkpoint: Checkpoint::parse(note.text())?, note })
    }

    /// What it says, if one is to believe it.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note that it is.
    #[must_use]
    pub const fn note(&self) -> &Note {
        &self.note
    }

    /// Adds a signature, in place of one by the same key. It is not verified.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] if there would be too many; then it is unchanged.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), CheckpointError> {
        Ok(self.note.add(signature)?)
    }

    /// What it says, if the key `log` signed it, and is a key of the log that it
    /// is of: one whose name is the origin.
    ///
    /// # Errors
    /// [`CheckpointError::Origin`], [`CheckpointError::NotSigned`], or
    /// [`NoteError::Signature`] with a false signature.
    pub fn verify(&self, log: &VerifierKey) -> Result<&Checkpoint, CheckpointError> {
        if self.checkpoint.origin.as_str() != log.name().as_str() {
            return Err(CheckpointError::Origin);
        }
        self.note.verified_by(log)?.ok_or(CheckpointError::NotSigned)?;
        Ok(&self.checkpoint)
    }

    /// When `witness` cosigned it, to the second; `None` if it did not. The
    /// witness vouches for the tree whatever the log's key is: call
    /// [`SignedCheckpoint::verify`] too.
    ///
    /// # Errors
    /// [`CheckpointError::NotCosigner`] if the key is for something else, and
    /// [`NoteError::Signature`] with a false signature.
    pub fn cosigned_by(&self, witness: &VerifierKey) -> Result<Option<Timestamp>, CheckpointError> {
        if witness.signature_type() != SignatureType::Cosignature {
            return Err(CheckpointError::NotCosigner);
        }
        let signature = self.note.verified_by(witness)?;
        Ok(signature.and_then(|signature| cosignature::time(signature.bytes())))
    }
}

impl fmt::Display for SignedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.note.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{NamedKey, SecretKey};
    use super::*;
    use crate::secret::Secret;

    const ROOT: &str = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";

    fn named(name: &str, seed: u8) -> NamedKey {
        NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint::parse(&format!("example.com/log\n7\n{ROOT}\n")).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    #[test]
    fn a_checkpoint_has_one_text() {
        let text = format!("example.com/behind-the-sofa\n20852163\n{ROOT}\n");
        let checkpoint = Checkpoint::parse(&text).unwrap();
        assert_eq!(checkpoint.head().size, 20_852_163);
        assert_eq!(checkpoint.to_string(), text);
        let extended = format!("{text}one\n two \n");
        let checkpoint = Checkpoint::parse(&extended).unwrap();
        assert_eq!(checkpoint.extensions(), ["one", " two "]);
        assert_eq!(checkpoint.to_string(), extended);
        let empty = "a\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n";
        assert_eq!(Checkpoint::parse(empty).unwrap().to_string(), empty);
    }

    #[test]
    fn another_text_is_no_checkpoint() {
        let line = CheckpointError::Line;
        for (bad, why) in [
            (String::new(), line("last line")),
            (format!("a\n7\n{ROOT}"), line("last line")),
            (format!("\n7\n{ROOT}\n"), line("origin")),
            ("a\n".into(), line("tree size")),
            (format!("a\n07\n{ROOT}\n"), line("tree size")),
            (format!("a\n+7\n{ROOT}\n"), line("tree size")),
            (format!("a\n-7\n{ROOT}\n"), line("tree size")),
            (format!("a\n\n{ROOT}\n"), line("tree size")),
            (format!("a\n18446744073709551616\n{ROOT}\n"), line("tree size")),
            ("a\n7\n".into(), line("root hash")),
            (format!("a\n7\n{}\n", &ROOT[..43]), line("root hash")),
            (format!("a\n7\n{}\n", ROOT.replace("I=", "J=")), line("root hash")),
            (format!("a\n7\n{}\n", &ROOT[4..]), line("root hash")),
            (format!("a\n7\n{ROOT}\n\n"), line("extension")),
            (format!("a\n7\n{ROOT}\nx\n\ny\n"), line("extension")),
            (format!("a\n0\n{ROOT}\n"), CheckpointError::Root),
        ] {
            assert_eq!(Checkpoint::parse(&bad), Err(why), "{bad:?}");
        }
        let extend = |text: &str| checkpoint().with_extensions(vec![text.to_owned()]);
        assert!(extend("x").is_ok());
        assert!(extend("").is_err());
        assert!(extend("x\ny").is_err());
        assert!("a\nb".parse::<Origin>().is_err());
        let origin: Origin = "with space+plus".parse().unwrap();
        assert_eq!(serde_json::from_str::<Origin>(&serde_json::to_string(&origin).unwrap()).unwrap(), origin);
    }

    #[test]
    fn it_is_believed_if_its_log_signed_it() {
        let (log, other) = (named("example.com/log", 1), named("example.com/log", 2));
        let text = checkpoint().to_string();
        let signed = SignedCheckpoint::new(checkpoint(), vec![log.sign(&text)]).unwrap();
        assert_eq!(signed.verify(&log.verifier()), Ok(&checkpoint()));
        assert_eq!(signed.verify(&other.verifier()), Err(CheckpointError::NotSigned));
        assert_eq!(SignedCheckpoint::parse(signed.to_string().as_bytes()), Ok(signed.clone()));

        let changed = signed.to_string().replace("\n7\n", "\n8\n");
        let changed = SignedCheckpoint::parse(changed.as_bytes()).unwrap();
        let false_signature = CheckpointError::Note(NoteError::Signature);
        assert_eq!(changed.verify(&log.verifier()), Err(false_signature));

        // A key that signs for another log, over this one's text.
        let elsewhere = named("example.com/elsewhere", 1);
        let signed = SignedCheckpoint::new(checkpoint(), vec![elsewhere.sign(&text)]).unwrap();
        assert_eq!(signed.verify(&elsewhere.verifier()), Err(CheckpointError::Origin));
        assert!(SignedCheckpoint::new(checkpoint(), vec![]).is_err());
    }

    #[test]
    fn a_witness_says_when_it_cosigned() {
        let (log, witness) = (named("example.com/log", 1), named("w.example", 2));
        let signature = log.sign(&checkpoint().to_string());
        let mut signed = SignedCheckpoint::new(checkpoint(), vec![signature]).unwrap();
        assert_eq!(signed.cosigned_by(&witness.cosigner()), Ok(None));
        signed.add(witness.cosign(&checkpoint(), at(5))).unwrap();
        assert_eq!(signed.cosigned_by(&witness.cosigner()), Ok(Some(at(5))));
        signed.add(witness.cosign(&checkpoint(), at(6))).unwrap();
        assert_eq!(signed.cosigned_by(&witness.cosigner()), Ok(Some(at(6))));
        assert_eq!(signed.note().signatures().len(), 2);
        assert_eq!(signed.cosigned_by(&witness.verifier()), Err(CheckpointError::NotCosigner));
        assert_eq!(signed.cosigned_by(&named("w.example", 3).cosigner()), Ok(None));
        assert!(signed.verify(&log.verifier()).is_ok());

        // Another time than the one that was signed.
        let good = signed.note().signatures()[1].clone();
        let mut bytes = good.bytes().to_vec();
        bytes[7] ^= 1;
        signed.add(NoteSignature::new(good.name().clone(), good.id(), bytes).unwrap()).unwrap();
        let false_signature = Err(CheckpointError::Note(NoteError::Signature));
        assert_eq!(signed.cosigned_by(&witness.cosigner()), false_signature);

        // The signature of the text alone is no cosignature, nor the other way round.
        let plain = witness.secret().sign(checkpoint().to_string().as_bytes());
        let name = || witness.name().clone();
        signed.add(NoteSignature::cosignature(name(), witness.secret().public(), at(5), &plain)).unwrap();
        assert_eq!(signed.cosigned_by(&witness.cosigner()), false_signature);
        let cosigned = witness.secret().sign(&cosignature::message(&checkpoint(), at(5)));
        signed.add(NoteSignature::ed25519(name(), witness.secret().public(), &cosigned)).unwrap();
        assert_eq!(signed.note().verified_by(&witness.verifier()), Err(NoteError::Signature));
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_the_same(origin in "[a +é]{0,3}", size in "[0-9]{1,3}", rest in "(\n[a]{0,2}){0,3}\n") {
            let text = format!("{origin}\n{size}\n{ROOT}{rest}");
            if let Ok(checkpoint) = Checkpoint::parse(&text) {
                prop_assert_eq!(checkpoint.to_string(), text);
            }
        }
    }
}
