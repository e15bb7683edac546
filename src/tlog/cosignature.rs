//! What a witness signs, c2sp.org/tlog-cosignature, in the form for Ed25519.
//!
//! A cosignature says that at some second, the largest tree that the witness had
//! seen of this log had this root, and that every tree it had seen before was the
//! beginning of it. Separate from the note, which knows it as bytes only.
//!
//! Invariants: the first line that is signed, `cosignature/v1`, keeps a
//! cosignature from being the signature of anything else; a time is in whole
//! seconds, and one that is no [`Timestamp`] does not verify.

use super::checkpoint::Checkpoint;
use super::key::{PublicKey, Signature};
use super::named::{KeyName, VerifierKey};
use super::note::NoteSignature;
use crate::time::Timestamp;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// The bytes that a witness signs to cosign `checkpoint` as of `at`, the part
/// below a second left out: c2sp.org/tlog-cosignature, "Ed25519 signed message".
#[must_use]
pub fn message(checkpoint: &Checkpoint, at: Timestamp) -> Vec<u8> {
    message_of_text(&checkpoint.to_string(), seconds(at))
}

impl NoteSignature {
    /// The line for a `signature` that the witness with the key `public`, known
    /// by `name`, made over the [`message`] of a checkpoint at that same time
    /// (type `0x04`). It is not verified.
    #[must_use]
    pub fn cosignature(name: KeyName, public: PublicKey, at: Timestamp, signature: &Signature) -> Self {
        let bytes = [seconds(at).to_be_bytes().as_slice(), signature.as_bytes()].concat();
        Self::by(VerifierKey::cosigner(name, public), bytes)
    }
}

/// When a cosignature with these bytes says that it was made.
pub(super) fn time(bytes: &[u8]) -> Option<Timestamp> {
    let (seconds, _) = parts(bytes)?;
    Timestamp::from_micros(seconds.checked_mul(MICROS_PER_SECOND)?).ok()
}

/// Whether `bytes` are a cosignature by `key` of the checkpoint with this text.
pub(super) fn verifies(bytes: &[u8], key: &PublicKey, text: &str) -> bool {
    time(bytes).and_then(|_| parts(bytes)).is_some_and(|(seconds, signature)| {
        key.verifies(&message_of_text(text, seconds), &Signature::from_bytes(*signature))
    })
}

/// The seconds, big-endian, and the signature.
fn parts(bytes: &[u8]) -> Option<(u64, &[u8; 64])> {
    let (seconds, signature) = bytes.split_first_chunk()?;
    Some((u64::from_be_bytes(*seconds), signature.try_into().ok()?))
}

fn seconds(at: Timestamp) -> u64 {
    at.micros() / MICROS_PER_SECOND
}

fn message_of_text(text: &str, seconds: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {seconds}\n{text}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::SignedCheckpoint;
    use super::*;

    /// c2sp.org/tlog-cosignature, its first example and its signed message.
    const EXAMPLE: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
        \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
        \u{2014} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";
    const MESSAGE: &str = "cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_message_is_that_of_the_specification() {
        let signed = SignedCheckpoint::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(signed.to_string(), EXAMPLE);
        let at = time(signed.note().signatures()[1].bytes()).unwrap();
        assert_eq!(at.micros(), 1_679_315_147_000_000);
        assert_eq!(message(signed.checkpoint(), at), MESSAGE.as_bytes());
        let later = Timestamp::from_micros(at.micros() + 999_999).unwrap();
        assert_eq!(message(signed.checkpoint(), later), MESSAGE.as_bytes());
        // The log's own signature has no time in front.
        assert_eq!(time(signed.note().signatures()[0].bytes()), None);
    }

    #[test]
    fn a_time_past_all_times_is_none() {
        let with = |seconds: u64| time(&[seconds.to_be_bytes().as_slice(), &[0; 64]].concat());
        assert_eq!(with(0).unwrap().micros(), 0);
        assert!(with(253_402_207_200).is_some());
        for seconds in [253_402_207_201, i64::MAX.unsigned_abs(), u64::MAX / MICROS_PER_SECOND + 1, u64::MAX]
        {
            assert_eq!(with(seconds), None);
        }
    }
}
