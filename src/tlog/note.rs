//! Signed notes: a text and the signatures under it, c2sp.org/signed-note.
//!
//! Separate from what the text says, as one note can carry the signatures of
//! many keys and types, most of which its reader does not know.
//!
//! Invariants: a [`Note`] is within its limits, and parsing what it formats to
//! gives it back. Parsing says nothing about who signed: whoever wrote the bytes
//! may have put any name under them, until [`Note::verified_by`] has seen a
//! signature of a key that the caller named.

use std::fmt;

use data_encoding::BASE64;
use thiserror::Error as ThisError;

use super::cosignature;
use super::key::{PublicKey, Signature};
use super::named::{KeyName, SignatureType, VerifierKey};
use super::text::{from_base64, lines};
use crate::error::{Error, ErrorKind};

/// The longest note that is read or made, in bytes.
pub const MAX_LEN: usize = 1 << 20;

/// The most signatures that a note can have here. The specification asks for 16
/// at least.
pub const MAX_SIGNATURES: usize = 64;

/// What a signature line begins with: an em dash and a space.
const LINE_START: &str = "\u{2014} ";

/// Bytes that are not a note, or a note with a false signature. Nothing of it is
/// repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum NoteError {
    /// It is longer than [`MAX_LEN`].
    #[error("it is larger than a note can be")]
    TooLarge,
    /// It is not UTF-8, or has control characters in it.
    #[error("it is not text without control characters")]
    Characters,
    /// It is not a text, a blank line and signature lines.
    #[error("it is not a text and signatures with a blank line between them")]
    Form,
    /// A signature line is not in its one form.
    #[error("a signature line is not in the form of one")]
    Line,
    /// It has no signature, or more than [`MAX_SIGNATURES`].
    #[error("it has no signature, or more than can be")]
    Count,
    /// A signature under the name and id of a known key is not that key's.
    #[error("a signature in the name of a known key does not verify")]
    Signature,
}

impl From<NoteError> for Error {
    fn from(error: NoteError) -> Self {
        Self::new(ErrorKind::Integrity, "a signed note is not as it has to be").with_source(error)
    }
}

/// A text with signatures. Its `Display` is the note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<NoteSignature>,
}

impl Note {
    /// The note of a text, which ends in a line feed, and signatures of it.
    ///
    /// # Errors
    /// [`NoteError`] if a note cannot have that text, or that many signatures.
    pub fn new(text: String, signatures: Vec<NoteSignature>) -> Result<Self, NoteError> {
        check_characters(&text)?;
        if !text.ends_with('\n') {
            return Err(NoteError::Form);
        }
        let note = Self { text, signatures };
        note.check_limits()?;
        Ok(note)
    }

    /// Reads a note, strictly: formatting the result gives `bytes` again.
    ///
    /// # Errors
    /// [`NoteError`] if it is none.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_LEN {
            return Err(NoteError::TooLarge);
        }
        let all = std::str::from_utf8(bytes).map_err(|_| NoteError::Characters)?;
        check_characters(all)?;
        // The text may have blank lines of its own. The last one ends it.
        let blank = all.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, signatures) = (&all[..=blank], &all[blank + 2..]);
        let signatures = lines(signatures).ok_or(NoteError::Form)?;
        if signatures.clone().count() > MAX_SIGNATURES {
            return Err(NoteError::Count);
        }
        let signatures = signatures.map(NoteSignature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// The text, final line feed included: what is signed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signatures, none of them verified.
    #[must_use]
    pub fn signatures(&self) -> &[NoteSignature] {
        &self.signatures
    }

    /// Puts a signature under the note, in place of one with the same name and
    /// id. It is not verified.
    ///
    /// # Errors
    /// [`NoteError`] if the note would be too large; then it is unchanged.
    pub fn add(&mut self, signature: NoteSignature) -> Result<(), NoteError> {
        let mut signatures = self.signatures.clone();
        signatures.retain(|other| !other.is_of(&signature.name, signature.id));
        signatures.push(signature);
        *self = Self::new(self.text.clone(), signatures)?;
        Ok(())
    }

    /// The signature of `key` under the note, verified. `None` if there is none:
    /// signatures by other keys, known by the same name or the same id, do not
    /// count.
    ///
    /// # Errors
    /// [`NoteError::Signature`] if one has the name and the id of `key`, and is
    /// not by that key. Such a note is not to be believed, whoever else signed it.
    pub fn verified_by(&self, key: &VerifierKey) -> Result<Option<&NoteSignature>, NoteError> {
        let id = key.id();
        let mut first = None;
        for signature in self.signatures.iter().filter(|signature| signature.is_of(key.name(), id)) {
            if !signature.verifies(key, &self.text) {
                return Err(NoteError::Signature);
            }
            first = first.or(Some(signature));
        }
        Ok(first)
    }

    fn check_limits(&self) -> Result<(), NoteError> {
        if !(1..=MAX_SIGNATURES).contains(&self.signatures.len()) {
            return Err(NoteError::Count);
        }
        if self.to_string().len() > MAX_LEN { Err(NoteError::TooLarge) } else { Ok(()) }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}

fn check_characters(text: &str) -> Result<(), NoteError> {
    let bad = |byte: u8| byte < b' ' && byte != b'\n';
    if text.bytes().any(bad) { Err(NoteError::Characters) } else { Ok(()) }
}

/// One signature under a note. Its `Display` is its line, without the line feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature {
    name: KeyName,
    id: u32,
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// The signature with these parts, by a key of any type.
    ///
    /// # Errors
    /// [`NoteError::Line`] without bytes.
    pub fn new(name: KeyName, id: u32, bytes: Vec<u8>) -> Result<Self, NoteError> {
        if bytes.is_empty() { Err(NoteError::Line) } else { Ok(Self { name, id, bytes }) }
    }

    /// The line for a `signature` that the key `public`, known by `name`, made
    /// over the text of a note (type `0x01`). It is not verified.
    #[must_use]
    pub fn ed25519(name: KeyName, public: PublicKey, signature: &Signature) -> Self {
        Self::by(VerifierKey::ed25519(name, public), signature.as_bytes().to_vec())
    }

    /// The line of `key` with these bytes, which are not empty.
    pub(super) fn by(key: VerifierKey, bytes: Vec<u8>) -> Self {
        Self { id: key.id(), name: key.name().clone(), bytes }
    }

    /// The name of the key that is said to have made it.
    #[must_use]
    pub const fn name(&self) -> &KeyName {
        &self.name
    }

    /// The id of that key.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The signature, in the form of its type.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn is_of(&self, name: &KeyName, id: u32) -> bool {
        self.id == id && self.name == *name
    }

    fn verifies(&self, key: &VerifierKey, text: &str) -> bool {
        match key.signature_type() {
            SignatureType::Ed25519 => <[u8; 64]>::try_from(self.bytes.as_slice())
                .is_ok_and(|bytes| key.public().verifies(text.as_bytes(), &Signature::from_bytes(bytes))),
            SignatureType::Cosignature => cosignature::verifies(&self.bytes, key.public(), text),
        }
    }

    fn parse(line: &str) -> Result<Self, NoteError> {
        let line = line.strip_prefix(LINE_START).ok_or(NoteError::Line)?;
        let (name, base64) = line.split_once(' ').ok_or(NoteError::Line)?;
        let name = name.parse().map_err(|_| NoteError::Line)?;
        let bytes = from_base64(base64).ok_or(NoteError::Line)?;
        let (id, bytes) = bytes.split_first_chunk().ok_or(NoteError::Line)?;
        Self::new(name, u32::from_be_bytes(*id), bytes.to_vec())
    }
}

impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [self.id.to_be_bytes().as_slice(), &self.bytes].concat();
        write!(f, "{LINE_START}{} {}", self.name, BASE64.encode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{NamedKey, SecretKey};
    use super::*;
    use crate::secret::Secret;

    /// c2sp.org/signed-note, "Example".
    const KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const EXAMPLE: &str = "This is an example message.\n\n\
        \u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn named(name: &str, seed: u8) -> NamedKey {
        NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
    }

    #[test]
    fn the_example_of_the_specification_verifies() {
        let key: VerifierKey = KEY.parse().unwrap();
        let note = Note::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(note.to_string(), EXAMPLE);
        assert_eq!(note.text(), "This is an example message.\n");
        let signature = note.verified_by(&key).unwrap().unwrap();
        assert_eq!((signature.name(), signature.id()), (key.name(), key.id()));
        assert_eq!(signature.bytes().len(), 64);

        let other = EXAMPLE.replace("example message", "exemple message");
        let other = Note::parse(other.as_bytes()).unwrap();
        assert_eq!(other.verified_by(&key), Err(NoteError::Signature));
    }

    #[test]
    fn the_other_example_of_the_specification_is_read() {
        let text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
            \u{2014} quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
        let note = Note::parse(text.as_bytes()).unwrap();
        assert!(note.text().ends_with("sole:\n\ned è subito sera.\n"));
        assert_eq!(note.to_string(), text);
    }

    #[test]
    fn signatures_by_keys_with_the_same_name_or_id_are_passed_over() {
        let (ours, theirs) = (named("example.com/a", 1), named("example.com/a", 2));
        let mut note = Note::new("text\n".to_owned(), vec![theirs.sign("text\n")]).unwrap();
        assert_eq!(note.verified_by(&ours.verifier()), Ok(None));
        let same_id =
            NoteSignature::new("example.com/b".parse().unwrap(), ours.verifier().id(), vec![1]).unwrap();
        note.add(same_id).unwrap();
        assert_eq!(note.verified_by(&ours.verifier()), Ok(None));

        note.add(ours.sign("text\n")).unwrap();
        assert_eq!(note.verified_by(&ours.verifier()), Ok(Some(&ours.sign("text\n"))));
        assert_eq!(note.verified_by(&theirs.verifier()), Ok(Some(&theirs.sign("text\n"))));
        assert_eq!(note.signatures().len(), 3);
        // The same key as a cosigner's is another key.
        assert_eq!(note.verified_by(&ours.cosigner()), Ok(None));

        // Added again, it takes the place of the first.
        note.add(ours.sign("another text\n")).unwrap();
        assert_eq!(note.signatures().len(), 3);
        assert_eq!(note.verified_by(&ours.verifier()), Err(NoteError::Signature));
    }

    #[test]
    fn a_false_signature_beside_a_true_one_is_an_error() {
        let key = named("example.com/a", 1);
        let (good, bad) = (key.sign("text\n"), key.sign("another\n"));
        for signatures in [vec![good.clone(), bad.clone()], vec![bad, good.clone()]] {
            let note = Note::new("text\n".to_owned(), signatures).unwrap();
            assert_eq!(note.verified_by(&key.verifier()), Err(NoteError::Signature));
        }
        let short = NoteSignature::new(good.name().clone(), good.id(), good.bytes()[..63].to_vec()).unwrap();
        let note = Note::new("text\n".to_owned(), vec![short]).unwrap();
        assert_eq!(note.verified_by(&key.verifier()), Err(NoteError::Signature));
    }

    #[test]
    fn what_is_not_a_note_is_refused() {
        let parse = |text: &str| Note::parse(text.as_bytes()).unwrap_err();
        let line = "\u{2014} a AAAAAQI=\n";
        assert!(Note::parse(format!("text\n\n{line}").as_bytes()).is_ok());
        for bad in ["", "\n", "\n\n", "text\n", "text\n\n", &format!("text\n{line}"), &format!("\n{line}")] {
            assert_eq!(parse(bad), NoteError::Form, "{bad:?}");
        }
        assert_eq!(parse(format!("text\n\n{line}").trim_end()), NoteError::Form);
        for bad in [
            format!("text\n\n{line}text\n"),
            format!("text\n\n{}", line.replace('\u{2014}', "-")),
            format!("text\n\n{}", line.replace(" a ", " a  ")),
            format!("text\n\n{}", line.replace(" a ", " a\u{a0}b ")),
            format!("text\n\n{}", line.replace(" a ", " a+b ")),
            format!("text\n\n{}", line.replace(" a ", " ")),
            format!("text\n\n{}", line.replace(" AAAAAQI=", "")),
            format!("text\n\n{}", line.replace("AAAAAQI=", "AAAAAQI")),
            format!("text\n\n{}", line.replace("AAAAAQI=", "AAAAAQJ=")),
            format!("text\n\n{}", line.replace("AAAAAQI=", "AAAAAA==")),
            format!("text\n\n{}", line.replace("AAAAAQI=", "AAAAAQI= ")),
            format!("text\n\n{}", line.replace("AAAAAQI=", "AAAA")),
            // Two pieces, each padded by itself.
            format!("text\n\n{}", line.replace("AAAAAQI=", "AAAAAQ==Ag==")),
        ] {
            assert_eq!(parse(&bad), NoteError::Line, "{bad:?}");
        }
        for bad in ["a\tb\n\n", "a\r\n\n", "a\0\n\n"] {
            assert_eq!(parse(&format!("{bad}{line}")), NoteError::Characters, "{bad:?}");
        }
        assert_eq!(Note::parse(&[b"\xff\n\n", line.as_bytes()].concat()), Err(NoteError::Characters));
        let many = |count: usize| format!("text\n\n{}", line.repeat(count));
        assert_eq!(Note::parse(many(64).as_bytes()).unwrap().signatures().len(), 64);
        assert_eq!(parse(&many(65)), NoteError::Count);
        let long = |length: usize| format!("{}\n\n{line}", "x".repeat(length - 2 - line.len()));
        assert_eq!(Note::parse(long(MAX_LEN).as_bytes()).unwrap().to_string().len(), MAX_LEN);
        assert_eq!(parse(&long(MAX_LEN + 1)), NoteError::TooLarge);
    }

    #[test]
    fn what_would_not_be_a_note_is_not_made() {
        let signature = named("a", 1).sign("text\n");
        let make = |text: &str, count| Note::new(text.to_owned(), vec![signature.clone(); count]);
        assert_eq!(make("text", 1), Err(NoteError::Form));
        assert_eq!(make("", 1), Err(NoteError::Form));
        assert_eq!(make("te\u{1}xt\n", 1), Err(NoteError::Characters));
        assert_eq!(make("text\n", 0), Err(NoteError::Count));
        assert_eq!(make("text\n", 65), Err(NoteError::Count));
        assert_eq!(make(&format!("{}\n", "x".repeat(MAX_LEN)), 1), Err(NoteError::TooLarge));
        let full = make("text\n", 64).unwrap();
        let mut fuller = full.clone();
        assert_eq!(fuller.add(named("b", 1).sign("text\n")), Err(NoteError::Count));
        assert_eq!(fuller, full);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_note_is_read_as_it_was_written(text in "[a\n\u{2014} é]{0,20}\n", keys in prop::collection::vec(any::<u8>(), 1..5)) {
            let signatures = keys.iter().map(|seed| named("a", *seed).sign(&text)).collect();
            let note = Note::new(text, signatures).unwrap();
            prop_assert_eq!(Note::parse(note.to_string().as_bytes()), Ok(note.clone()));
            for seed in keys {
                prop_assert!(note.verified_by(&named("a", seed).verifier()).unwrap().is_some());
            }
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "[a\n]{1,6}\n\n(\u{2014} [ab+ ]{1,2} [A-B]{6}[A-H=]{2}\n?){1,2}") {
            if let Ok(note) = Note::parse(text.as_bytes()) {
                prop_assert_eq!(note.to_string(), text);
            }
        }
    }
}
