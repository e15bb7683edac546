//! Witnesses: whoever remembers what a log has shown, so that the log cannot
//! take it back. c2sp.org/tlog-witness.
//!
//! A witness keeps the last checkpoint of each log that it cosigned, and cosigns
//! the next one only with a proof that its tree begins with the same leaves. A
//! log that was rolled back or rewritten finds no such proof. This is the part
//! that decides, and it is pure; what a witness remembers is in [`state`], how it
//! is reached in `server`, and the log's side in [`client`].
//!
//! Invariants: a [`Consistent`] checkpoint is made by [`decide`] only, and nothing
//! else can be cosigned here. Who sends a request is not trusted, and need not be
//! known: the log's signature is what counts.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error as ThisError;

use crate::error::{Error, ErrorKind};
use crate::merkle::{Hash, TreeHead, verify_consistency};
use crate::time::Timestamp;
use crate::tlog::checkpoint::{CheckpointError, Origin, SignedCheckpoint};
use crate::tlog::note::NoteSignature;
use crate::tlog::text::{base64_of, decimal, hash_from_base64};
use crate::tlog::{NamedKey, SignatureType, VerifierKey};

pub mod client;
#[cfg(feature = "witness")]
pub mod http;
pub mod pull;
#[cfg(feature = "witness")]
pub mod server;
pub mod state;

/// The most hashes that a request can have in its proof: c2sp.org/tlog-witness,
/// "add-checkpoint".
pub const MAX_PROOF: usize = 63;

/// The longest request that is read or made, in bytes: a full proof, and a
/// checkpoint with more signatures than any log has witnesses.
pub const MAX_REQUEST_LEN: usize = 64 * 1024;

/// The most keys that one log can have at a witness.
pub const MAX_KEYS: usize = 16;

/// Why a witness does not cosign. Nothing of the request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Refusal {
    /// The request is not in its one form.
    #[error("the request is not in the form of one")]
    Malformed,
    /// Nobody told the witness of a log with that origin.
    #[error("the log is not known to this witness")]
    UnknownLog,
    /// No key of the log signed the checkpoint, or a signature in the name of one
    /// is false.
    #[error("the checkpoint is not signed by a key of the log that this witness trusts")]
    NotSigned,
    /// The old size is larger than the checkpoint's.
    #[error("the old size is larger than the size of the checkpoint")]
    OldSize,
    /// The proof starts at another tree than the one that was cosigned last.
    #[error("the last checkpoint that was cosigned is of a tree of {size} leaves")]
    Conflict {
        /// The size of the tree that was cosigned last.
        size: u64,
    },
    /// The empty tree is said to have another root than it has.
    #[error("the checkpoint is of no tree")]
    EmptyRoot,
    /// A tree of the same size with another root was cosigned. Both are signed by
    /// the log: there are two histories.
    #[error("the log has signed two trees of the same size with different roots")]
    Forked,
    /// The proof does not show that the tree begins with the one that was cosigned. If
    /// the log made the proof, it was rewritten; anyone else may have made one up.
    #[error("the checkpoint is not shown to continue the one that was cosigned last")]
    Unproven,
}

impl Refusal {
    /// The HTTP status for it: c2sp.org/tlog-witness, "add-checkpoint".
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::OldSize => 400,
            Self::NotSigned => 403,
            Self::UnknownLog => 404,
            Self::Conflict { .. } => 409,
            Self::EmptyRoot | Self::Forked | Self::Unproven => 422,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let (kind, sentence) = match refusal {
            Refusal::Malformed | Refusal::OldSize => {
                (ErrorKind::InvalidInput, "a checkpoint was not cosigned")
            }
            Refusal::UnknownLog => (ErrorKind::Configuration, "a checkpoint was not cosigned"),
            Refusal::Conflict { .. } => (ErrorKind::Conflict, "a checkpoint was not cosigned"),
            Refusal::NotSigned | Refusal::EmptyRoot => {
                (ErrorKind::Integrity, "a checkpoint is not as it has to be")
            }
            Refusal::Forked | Refusal::Unproven => {
                (ErrorKind::Integrity, "the log contradicts what it has shown before")
            }
        };
        Self::new(kind, sentence).with_source(refusal)
    }
}

/// The logs that a witness cosigns, by their origin, with the keys of each.
#[derive(Clone, Debug, Default)]
pub struct KnownLogs(BTreeMap<Origin, Vec<VerifierKey>>);

impl KnownLogs {
    /// The logs of these keys. A key's name is the origin of its log; a log may
    /// have several, as when it changes from one to the next.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a witness's key, or with more than
    /// [`MAX_KEYS`] for one log.
    pub fn new(keys: impl IntoIterator<Item = VerifierKey>) -> Result<Self, Error> {
        let invalid = |sentence| Error::new(ErrorKind::InvalidInput, sentence);
        let mut logs = BTreeMap::<Origin, Vec<VerifierKey>>::new();
        for key in keys {
            if key.signature_type() != SignatureType::Ed25519 {
                return Err(invalid("the key of a log is one that signs notes, not a witness's"));
            }
            let keys = logs.entry(key.name().clone().into()).or_default();
            if !keys.contains(&key) {
                keys.push(key);
            }
            if keys.len() > MAX_KEYS {
                return Err(invalid("a log has too many keys"));
            }
        }
        Ok(Self(logs))
    }

    /// Whether there is a log with that origin.
    #[must_use]
    pub fn contains(&self, origin: &Origin) -> bool {
        self.0.contains_key(origin)
    }

    /// Their origins, in order.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.0.keys()
    }

    /// The checkpoint with the signatures of the log's keys and no others, of
    /// which there is one at least.
    fn verify(&self, signed: &SignedCheckpoint) -> Result<SignedCheckpoint, Refusal> {
        let keys = self.0.get(signed.checkpoint().origin()).ok_or(Refusal::UnknownLog)?;
        let mut signatures = Vec::new();
        for key in keys {
            // A false signature in the name of a key spoils the note, whoever else
            // signed it: c2sp.org/signed-note.
            let signature = signed.note().verified_by(key).map_err(|_| Refusal::NotSigned)?;
            signatures.extend(signature.cloned());
        }
        SignedCheckpoint::new(signed.checkpoint().clone(), signatures).map_err(|_| Refusal::NotSigned)
    }
}

/// The body of a request for a cosignature. Its `Display` is its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddCheckpoint {
    old_size: u64,
    proof: Vec<Hash>,
    checkpoint: SignedCheckpoint,
}

impl AddCheckpoint {
    /// The request to cosign `checkpoint`, with the proof that its tree begins
    /// with the `old_size` leaves which the witness knows (RFC 6962 s2.1.2).
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it would be longer than [`MAX_REQUEST_LEN`], or
    /// have a longer proof than [`MAX_PROOF`].
    pub fn new(old_size: u64, proof: Vec<Hash>, checkpoint: SignedCheckpoint) -> Result<Self, Refusal> {
        let request = Self { old_size, proof, checkpoint };
        let fits = request.proof.len() <= MAX_PROOF && request.to_string().len() <= MAX_REQUEST_LEN;
        if fits { Ok(request) } else { Err(Refusal::Malformed) }
    }

    /// Reads a request, strictly: formatting the result gives `bytes` again.
    /// Nothing is verified.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] if it is none, and [`Refusal::EmptyRoot`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() > MAX_REQUEST_LEN {
            return Err(Refusal::Malformed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Refusal::Malformed)?;
        let (lines, checkpoint) = text.split_once("\n\n").ok_or(Refusal::Malformed)?;
        let mut lines = lines.split('\n');
        let old_size = lines.next().and_then(|line| decimal(line.strip_prefix("old ")?));
        let old_size = old_size.ok_or(Refusal::Malformed)?;
        let proof: Vec<Hash> =
            lines.map(hash_from_base64).collect::<Option<_>>().ok_or(Refusal::Malformed)?;
        if proof.len() > MAX_PROOF {
            return Err(Refusal::Malformed);
        }
        let checkpoint = SignedCheckpoint::parse(checkpoint.as_bytes()).map_err(|error| match error {
            CheckpointError::Root => Refusal::EmptyRoot,
            _ => Refusal::Malformed,
        })?;
        Ok(Self { old_size, proof, checkpoint })
    }

    /// The size of the tree that the proof starts at.
    #[must_use]
    pub const fn old_size(&self) -> u64 {
        self.old_size
    }

    /// The proof, RFC 6962 s2.1.2.
    #[must_use]
    pub fn proof(&self) -> &[Hash] {
        &self.proof
    }

    /// What is to be cosigned.
    #[must_use]
    pub const fn checkpoint(&self) -> &SignedCheckpoint {
        &self.checkpoint
    }
}

impl fmt::Display for AddCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "old {}", self.old_size)?;
        self.proof.iter().try_for_each(|hash| writeln!(f, "{}", base64_of(hash)))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

/// Decides whether a checkpoint is cosigned: c2sp.org/tlog-witness,
/// "add-checkpoint". `last` is the tree that was cosigned last for its origin, if
/// there was one.
///
/// # Errors
/// [`Refusal`], by the first rule that is broken: who signed is looked at before
/// what, so that strangers learn nothing but which logs are known.
pub fn decide(
    last: Option<&TreeHead>,
    request: &AddCheckpoint,
    logs: &KnownLogs,
) -> Result<Consistent, Refusal> {
    let signed = logs.verify(&request.checkpoint)?;
    let new = signed.checkpoint().head();
    if request.old_size > new.size {
        return Err(Refusal::OldSize);
    }
    let last = last.copied().unwrap_or(TreeHead { size: 0, root: Hash::of(&[]) });
    if request.old_size != last.size {
        return Err(Refusal::Conflict { size: last.size });
    }
    if new.size == last.size && new.root != last.root {
        return Err(Refusal::Forked);
    }
    verify_consistency(&last, new, &request.proof).map_err(|_| Refusal::Unproven)?;
    Ok(Consistent(signed))
}

/// A checkpoint that its log signed, and that continues what was cosigned before.
#[derive(Clone, Debug)]
pub struct Consistent(SignedCheckpoint);

impl Consistent {
    /// Cosigns it as of `at`. What comes out is to be stored before anyone sees it.
    fn cosign(self, key: &NamedKey, at: Timestamp) -> (SignedCheckpoint, NoteSignature) {
        let Self(mut note) = self;
        let cosignature = key.cosign(note.checkpoint(), at);
        note.add(cosignature.clone()).expect("a request and at most MAX_KEYS signatures leave room for one");
        (note, cosignature)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::merkle::{leaf_hash, prove_consistency, root};
    use crate::secret::Secret;
    use crate::tlog::SecretKey;
    use crate::tlog::checkpoint::Checkpoint;

    pub(crate) const LOG: &str = "example.com/log";

    pub(crate) fn named(name: &str, seed: u8) -> NamedKey {
        NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
    }

    pub(crate) fn log() -> NamedKey {
        named(LOG, 1)
    }

    pub(crate) fn known() -> KnownLogs {
        KnownLogs::new([log().verifier()]).unwrap()
    }

    /// The leaves of one history, or of another that leaves it at `fork`.
    pub(crate) fn leaves(size: usize, fork: usize) -> Vec<Hash> {
        let leaf = |number: usize| leaf_hash(format!("{number} {}", number >= fork).as_bytes());
        (0..size).map(leaf).collect()
    }

    pub(crate) fn head(leaves: &[Hash]) -> TreeHead {
        TreeHead { size: leaves.len() as u64, root: root(leaves) }
    }

    pub(crate) fn signed(key: &NamedKey, head: TreeHead) -> SignedCheckpoint {
        let checkpoint = Checkpoint::new(key.name().clone().into(), head).unwrap();
        let signature = key.sign(&checkpoint.to_string());
        SignedCheckpoint::new(checkpoint, vec![signature]).unwrap()
    }

    /// The request for the tree of `new` leaves after that of `old`.
    pub(crate) fn request(old: usize, new: usize, fork: usize) -> AddCheckpoint {
        let leaves = leaves(new, fork);
        let proof = prove_consistency(&leaves, old).unwrap();
        AddCheckpoint::new(old as u64, proof, signed(&log(), head(&leaves))).unwrap()
    }

    const NEVER: usize = usize::MAX;

    fn decided(last: usize, request: &AddCheckpoint) -> Result<Consistent, Refusal> {
        let last = (last > 0).then(|| head(&leaves(last, NEVER)));
        decide(last.as_ref(), request, &known())
    }

    #[test]
    fn a_log_that_grows_is_cosigned() {
        for new in 0..40 {
            for old in 0..=new {
                let consistent = decided(old, &request(old, new, NEVER)).unwrap();
                let (note, line) =
                    consistent.cosign(&named("w", 9), Timestamp::from_micros(7_000_000).unwrap());
                assert!(note.verify(&log().verifier()).is_ok());
                let at = note.cosigned_by(&named("w", 9).cosigner()).unwrap().unwrap();
                assert_eq!(at.micros(), 7_000_000);
                assert_eq!(note.note().signatures(), [log().sign(note.note().text()), line]);
            }
        }
    }

    #[test]
    fn a_log_that_was_rewritten_is_not() {
        for old in 1..20 {
            for fork in 0..old {
                // The same size: two signed trees.
                assert_eq!(decided(old, &request(old, old, fork)).unwrap_err(), Refusal::Forked);
                for new in old + 1..24 {
                    let error = decided(old, &request(old, new, fork)).unwrap_err();
                    assert_eq!(error, Refusal::Unproven, "{fork} {old} {new}");
                }
            }
            // What lies behind the fork is not in the old tree.
            for new in old + 1..24 {
                assert!(decided(old, &request(old, new, old)).is_ok());
            }
        }
    }

    #[test]
    fn the_old_size_is_the_one_that_was_cosigned_last() {
        for (last, old, new) in [(0, 1, 5), (5, 0, 7), (5, 4, 7), (5, 6, 7), (5, 4, 4), (5, 0, 0)] {
            let error = decided(last, &request(old, new, NEVER)).unwrap_err();
            assert_eq!(error, Refusal::Conflict { size: last as u64 }, "{last} {old} {new}");
        }
        let request = AddCheckpoint { old_size: 5, ..request(0, 4, NEVER) };
        assert_eq!(decided(5, &request).unwrap_err(), Refusal::OldSize);
    }

    #[test]
    fn a_proof_has_no_hash_too_many_or_too_few() {
        let hash = Hash::of(b"x");
        for (old, new) in [(0, 0), (0, 5), (5, 5), (4, 8), (5, 8)] {
            let good = request(old, new, NEVER);
            let mut more = good.clone();
            more.proof.push(hash);
            assert_eq!(decided(old, &more).unwrap_err(), Refusal::Unproven, "{old} {new}");
            let mut fewer = good.clone();
            if fewer.proof.pop().is_some() {
                assert_eq!(decided(old, &fewer).unwrap_err(), Refusal::Unproven, "{old} {new}");
            }
            assert!(decided(old, &good).is_ok());
        }
    }

    #[test]
    fn only_the_signatures_of_known_logs_count() {
        let good = request(0, 5, NEVER);
        let with = |checkpoint| AddCheckpoint { checkpoint, ..good.clone() };
        let text = good.checkpoint.note().text().to_owned();
        let signed_by = |signatures| {
            with(SignedCheckpoint::new(good.checkpoint.checkpoint().clone(), signatures).unwrap())
        };
        let head = *good.checkpoint.checkpoint().head();

        let unknown = with(signed(&named("example.com/other", 1), head));
        assert_eq!(decided(0, &unknown).unwrap_err(), Refusal::UnknownLog);
        // Another key of the same name, a cosignature in place of a signature, a false one.
        let at = Timestamp::from_micros(1).unwrap();
        for lines in [
            vec![named(LOG, 2).sign(&text)],
            vec![log().cosign(good.checkpoint.checkpoint(), at)],
            vec![log().sign("something else\n")],
            vec![log().sign(&text), log().sign("something else\n")],
        ] {
            assert_eq!(decided(0, &signed_by(lines)).unwrap_err(), Refusal::NotSigned);
        }
        // Lines of strangers are passed over and not kept.
        let mixed = signed_by(vec![named(LOG, 2).sign(&text), log().sign(&text), named("z", 3).sign("x\n")]);
        let kept = decided(0, &mixed).unwrap().0;
        assert_eq!(kept.note().signatures(), [log().sign(&text)]);

        // A log that changes its key has two for a while, and either will do.
        let logs = KnownLogs::new([log().verifier(), named(LOG, 2).verifier(), log().verifier()]).unwrap();
        assert!(decide(None, &signed_by(vec![named(LOG, 2).sign(&text)]), &logs).is_ok());
        let both = signed_by(vec![named(LOG, 2).sign(&text), log().sign(&text)]);
        assert_eq!(decide(None, &both, &logs).unwrap().0.note().signatures().len(), 2);
        let one_false = signed_by(vec![named(LOG, 2).sign("x\n"), log().sign(&text)]);
        assert_eq!(decide(None, &one_false, &logs).unwrap_err(), Refusal::NotSigned);

        assert!(KnownLogs::new([log().cosigner()]).is_err());
        assert!(KnownLogs::new((0..16).map(|seed| named(LOG, seed).verifier())).is_ok());
        assert!(KnownLogs::new((0..17).map(|seed| named(LOG, seed).verifier())).is_err());
    }

    #[test]
    fn who_signed_is_looked_at_before_what() {
        let wrong = AddCheckpoint { old_size: 9, ..request(0, 5, NEVER) };
        let text = wrong.checkpoint.note().text().to_owned();
        let stranger = vec![named(LOG, 2).sign(&text)];
        let checkpoint = SignedCheckpoint::new(wrong.checkpoint.checkpoint().clone(), stranger).unwrap();
        assert_eq!(decided(5, &AddCheckpoint { checkpoint, ..wrong }).unwrap_err(), Refusal::NotSigned);
    }

    #[test]
    fn every_refusal_has_the_status_of_the_specification() {
        for (refusal, status, kind) in [
            (Refusal::Malformed, 400, ErrorKind::InvalidInput),
            (Refusal::OldSize, 400, ErrorKind::InvalidInput),
            (Refusal::NotSigned, 403, ErrorKind::Integrity),
            (Refusal::UnknownLog, 404, ErrorKind::Configuration),
            (Refusal::Conflict { size: 1 }, 409, ErrorKind::Conflict),
            (Refusal::EmptyRoot, 422, ErrorKind::Integrity),
            (Refusal::Forked, 422, ErrorKind::Integrity),
            (Refusal::Unproven, 422, ErrorKind::Integrity),
        ] {
            assert_eq!((refusal.status(), Error::from(refusal).kind()), (status, kind));
        }
    }

    /// c2sp.org/tlog-witness, "add-checkpoint": the example of a request.
    const EXAMPLE: &str = "old 20852014\n\
        PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
        jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
        5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
        /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
        \n\
        example.com/behind-the-sofa\n\
        20852163\n\
        CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
        \n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6265UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";

    #[test]
    fn the_example_of_the_specification_is_read() {
        let request = AddCheckpoint::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!((request.old_size(), request.proof().len()), (20_852_014, 4));
        assert_eq!(request.checkpoint().checkpoint().head().size, 20_852_163);
        assert_eq!(request.checkpoint().note().signatures().len(), 2);
        assert_eq!(request.to_string(), EXAMPLE);
        let without = EXAMPLE.replace("old 20852014", "old 0");
        assert!(AddCheckpoint::parse(without.as_bytes()).is_ok());
    }

    #[test]
    fn a_request_has_one_form() {
        let hash = "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n";
        for (from, to) in [
            ("old 20852014\n", ""),
            ("old 20852014\n", "\n"),
            ("old 20852014\n", "20852014\n"),
            ("old 20852014\n", "old  20852014\n"),
            ("old 20852014\n", "Old 20852014\n"),
            ("old 20852014\n", "old 020852014\n"),
            ("old 20852014\n", "old +20852014\n"),
            ("old 20852014\n", "old -1\n"),
            ("old 20852014\n", "old \n"),
            ("old 20852014\n", "old 20852014 \n"),
            ("old 20852014\n", "old 20852014\r\n"),
            ("old 20852014\n", "old 18446744073709551616\n"),
            (hash, "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw\n"),
            (hash, "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkax=\n"),
            (hash, "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZ\n"),
            (hash, "\n"),
            (hash, " PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"),
            ("Kj/0=\n\nexample", "Kj/0=\nexample"),
            ("Kj/0=\n\nexample", "Kj/0=\n\n\nexample"),
            ("20852163\n", "020852163\n"),
            ("9Q=\n", "9Q="),
            ("9Q=\n", "9Q=\n\n"),
        ] {
            let bad = EXAMPLE.replacen(from, to, 1);
            assert_ne!(bad, EXAMPLE, "{from:?}");
            assert_eq!(AddCheckpoint::parse(bad.as_bytes()), Err(Refusal::Malformed), "{from:?} {to:?}");
        }
        for bad in [&b""[..], b"\n", b"\n\n", b"old 0\n", b"old 0\n\n", b"\xff\n\n"] {
            assert_eq!(AddCheckpoint::parse(bad), Err(Refusal::Malformed));
        }
        let proof = |count: usize| EXAMPLE.replacen(hash, &hash.repeat(count), 1);
        assert_eq!(AddCheckpoint::parse(proof(60).as_bytes()).unwrap().proof().len(), MAX_PROOF);
        assert_eq!(AddCheckpoint::parse(proof(61).as_bytes()), Err(Refusal::Malformed));
        let long = EXAMPLE.replace("xq2I=\n", &format!("xq2I=\n{}\n", "x".repeat(MAX_REQUEST_LEN)));
        assert_eq!(AddCheckpoint::parse(long.as_bytes()), Err(Refusal::Malformed));
        let empty = EXAMPLE.replace("\n20852163\n", "\n0\n");
        assert_eq!(AddCheckpoint::parse(empty.as_bytes()), Err(Refusal::EmptyRoot));
    }

    #[test]
    fn what_would_not_be_read_is_not_made() {
        let good = request(0, 5, NEVER);
        let make = |count| AddCheckpoint::new(1, vec![Hash::of(b"x"); count], good.checkpoint.clone());
        assert!(make(MAX_PROOF).is_ok());
        assert_eq!(make(MAX_PROOF + 1), Err(Refusal::Malformed));
        let lines = vec!["x".repeat(MAX_REQUEST_LEN)];
        let long = good.checkpoint.checkpoint().clone().with_extensions(lines).unwrap();
        let long = SignedCheckpoint::new(long, vec![log().sign("x\n")]).unwrap();
        assert_eq!(AddCheckpoint::new(0, Vec::new(), long), Err(Refusal::Malformed));
    }

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(old in 0_usize..50, more in 0_usize..50) {
            let request = request(old, old + more, NEVER);
            prop_assert_eq!(AddCheckpoint::parse(request.to_string().as_bytes()), Ok(request));
        }

        #[test]
        fn whatever_is_read_is_written_the_same(at in 0..EXAMPLE.len(), byte in any::<u8>()) {
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            if let Ok(request) = AddCheckpoint::parse(&bytes) {
                prop_assert_eq!(request.to_string().into_bytes(), bytes);
            }
        }
    }
}
