//! The lines of a sink's file: what is in one, and what a file that is read again proves.
//!
//! A line is one JSON object, `{"sum":…,"entry":…}`, in the one form that is written. The sum
//! is SHA-256 over a label, the sum of the line before (zeros in front of the first) and
//! the entry's bytes: so a line that is changed, moved, or gone from between two others is
//! noticed, and so is one that is not all there. A file that lost whole lines at its end is
//! not: no sum can tell.
//!
//! What follows the last line that verifies is **torn** if no line feed stands in it: a write
//! that a crash cut short, and that nobody was answered for. It proves nothing, and is kept:
//! an entry [`Entry::Resumed`] behind it names its digest, and the chain goes on. Anything
//! else is **damaged**, and nothing behind it counts.
//!
//! Pure. Whoever can write to the directory can make lines, as the sums are no signatures:
//! what that means is in the manual's threat model.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::commit::decode_line;
use super::super::{Intent, Outcome};
use crate::id::StoreId;
use crate::merkle::Hash;

const LABEL: &[u8] = b"strongroom-emergency-v1 line\n";

/// What one line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(clippy::large_enum_variant, reason = "nearly every other entry is an intent")]
pub(crate) enum Entry {
    /// The emergency, in the first line and nowhere else.
    Declared {
        /// The store.
        store: StoreId,
        /// Who declares it, for whom, from when until when.
        intent: Intent,
    },
    /// That a key is about to be used.
    Intent(Intent),
    /// How that ended.
    Outcome(Outcome),
    /// A program goes on with a file whose end was torn.
    Resumed {
        /// SHA-256 of what stands torn in front of this line.
        torn: Hash,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sum: Hash,
    entry: Entry,
}

/// Lines for the end of a file, and the sum that the next one goes on from.
pub(super) fn encode(entries: &[Entry], mut sum: Hash) -> (Vec<u8>, Hash) {
    let mut lines = Vec::with_capacity(1024);
    for entry in entries {
        sum = next_sum(sum, entry);
        // The sum is over the bytes that stand in the line: the encoding is one.
        serde_json::to_writer(&mut lines, &Line { sum, entry: entry.clone() }).expect(JSON);
        lines.push(b'\n');
    }
    (lines, sum)
}

/// What a file proves.
#[derive(Debug)]
pub(super) struct Decoded {
    /// The lines that verify.
    pub(super) entries: Vec<Entry>,
    /// The sum of the last of them.
    pub(super) sum: Hash,
    /// What is behind them.
    pub(super) end: End,
}

/// What is behind the last line that verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing.
    Whole,
    /// A line that was not written to its end, with this digest.
    Torn(Hash),
    /// Something that no crash leaves.
    Damaged,
}

/// Reads a file, as far as it verifies.
pub(super) fn decode(bytes: &[u8]) -> Decoded {
    let mut decoded = Decoded { entries: Vec::new(), sum: Hash::ZERO, end: End::Whole };
    let mut rest = bytes;
    while !rest.is_empty() {
        let Some((line, behind)) = split_line(rest) else {
            decoded.end = End::Torn(Hash::of(rest));
            break;
        };
        let next = read_line(line, decoded.sum).filter(|line| fits(&decoded.entries, &line.entry));
        let (next, behind) = match next {
            Some(next) => (next, behind),
            // A torn line was ended by whoever went on, who says so in the next.
            None => match split_line(behind).map(|(line, behind)| (read_line(line, decoded.sum), behind)) {
                Some((Some(next), behind)) if is_resumed(&next.entry, line) => (next, behind),
                _ => {
                    decoded.end = End::Damaged;
                    break;
                }
            },
        };
        (decoded.sum, rest) = (next.sum, behind);
        decoded.entries.push(next.entry);
    }
    decoded
}

const JSON: &str = "ids, codes, numbers and times are JSON";

fn next_sum(before: Hash, entry: &Entry) -> Hash {
    let encoded = serde_json::to_vec(entry).expect(JSON);
    let sum = Sha256::new().chain_update(LABEL).chain_update(before.as_bytes()).chain_update(encoded);
    Hash::from_bytes(sum.finalize().into())
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn read_line(line: &[u8], before: Hash) -> Option<Line> {
    let line: Line = decode_line(line, &mut Vec::new())?;
    (line.sum == next_sum(before, &line.entry)).then_some(line)
}

/// Whether an entry may stand here: the declaration first, and no second one. One that
/// resumes stands behind something torn, and never here.
fn fits(before: &[Entry], entry: &Entry) -> bool {
    match entry {
        Entry::Declared { .. } => before.is_empty(),
        Entry::Intent(_) | Entry::Outcome(_) => !before.is_empty(),
        Entry::Resumed { .. } => false,
    }
}

fn is_resumed(entry: &Entry, torn: &[u8]) -> bool {
    *entry == Entry::Resumed { torn: Hash::of(torn) }
}

/// Reads a file and writes again what verifies of it, if that is all: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8]) -> Option<Vec<u8>> {
    let Decoded { entries, end, .. } = decode(bytes);
    let resumed = entries.iter().any(|entry| matches!(entry, Entry::Resumed { .. }));
    (end == End::Whole && !resumed).then(|| encode(&entries, Hash::ZERO).0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::access::{Access, Origin, Principal, Purpose};
    use crate::audit::{Action, EmergencyRef, OutcomeResult};
    use crate::id::{CustomerId, EmergencyId, RequestId};
    use crate::time::Timestamp;

    pub(in crate::audit::emergency) fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    pub(in crate::audit::emergency) fn intent(number: u8, action: Action) -> Intent {
        let principal = Principal::person("p-17").unwrap();
        let access = Access::new(principal, Purpose::EmergencyTreatment).from_origin(Origin::Process(1));
        let access = access.in_emergency(EmergencyId::from_bytes([9; 16]));
        let mut intent = Intent::new(RequestId::from_bytes([number; 16]), &access, action);
        intent.customer = Some(CustomerId::from_bytes([3; 16]));
        intent
    }

    pub(in crate::audit::emergency) fn declared() -> Entry {
        let mut intent = intent(0, Action::EmergencyDeclare);
        let times = (Some(at(1_000_000)), Some(at(61_000_000)));
        intent.emergency =
            intent.emergency.map(|named| Box::new(EmergencyRef { at: times.0, until: times.1, ..*named }));
        Entry::Declared { store: StoreId::from_bytes([1; 16]), intent }
    }

    fn outcome(number: u8) -> Entry {
        Entry::Outcome(Outcome {
            request: RequestId::from_bytes([number; 16]),
            customer: Some(CustomerId::from_bytes([3; 16])),
            result: OutcomeResult::Ok,
            bytes: Some(7),
            key: None,
            kms_request: None,
        })
    }

    fn entries() -> Vec<Entry> {
        vec![declared(), Entry::Intent(intent(1, Action::Open)), outcome(1)]
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, sum) = encode(&entries(), Hash::ZERO);
        let read = decode(&bytes);
        assert_eq!((read.entries, read.sum, read.end), (entries(), sum, End::Whole));
        // In two writes as in one.
        let (first, half) = encode(&entries()[..1], Hash::ZERO);
        let (second, _) = encode(&entries()[1..], half);
        assert_eq!([first, second].concat(), bytes);
        assert_eq!(decode(b"").entries, []);
    }

    /// Lines before the byte count, and neither its own nor any behind it.
    #[test]
    fn every_flipped_byte_is_noticed() {
        let (bytes, _) = encode(&entries(), Hash::ZERO);
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                let read = decode(&bytes);
                let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(read.entries, entries()[..line], "{at}");
                assert_ne!(read.end, End::Whole, "{at}");
            }
        }
    }

    #[test]
    fn a_line_that_is_cut_short_does_not_count_and_is_torn() {
        let (bytes, _) = encode(&entries(), Hash::ZERO);
        for length in 0..bytes.len() {
            let read = decode(&bytes[..length]);
            let lines = bytes[..length].iter().filter(|byte| **byte == b'\n').count();
            let torn = bytes[..length].rsplit(|byte| *byte == b'\n').next().unwrap();
            let end = if torn.is_empty() { End::Whole } else { End::Torn(Hash::of(torn)) };
            assert_eq!((read.entries, read.end), (entries()[..lines].to_vec(), end), "{length}");
        }
    }

    #[test]
    fn behind_a_torn_line_it_goes_on_if_that_is_said() {
        let (whole, sum) = encode(&entries()[..2], Hash::ZERO);
        let torn = b"{\"sum\":\"12";
        let resumed = [Entry::Resumed { torn: Hash::of(torn) }, outcome(1)];
        let (more, _) = encode(&resumed, sum);
        let read = decode(&[&whole[..], torn, b"\n", &more].concat());
        assert_eq!(read.entries, [entries()[..2].to_vec(), resumed.to_vec()].concat());
        assert_eq!(read.end, End::Whole);
        // Of something else, it is no explanation; and without anything torn it explains nothing.
        for between in [&b"{\"sum\":\"13\n"[..], b"", b"{\"sum\":\"12\n\n"] {
            let read = decode(&[&whole[..], between, &more].concat());
            assert_eq!((read.entries, read.end), (entries()[..2].to_vec(), End::Damaged));
        }
    }

    #[test]
    fn lines_stand_in_one_order() {
        let (first, sum) = encode(&entries()[..1], Hash::ZERO);
        for wrong in [declared(), Entry::Resumed { torn: Hash::ZERO }] {
            let (second, _) = encode(&[wrong], sum);
            assert_eq!(decode(&[&first[..], &second].concat()).end, End::Damaged);
        }
        let (alone, _) = encode(&[outcome(1)], Hash::ZERO);
        assert_eq!((decode(&alone).entries.len(), decode(&alone).end), (0, End::Damaged));
        // One that is gone from between two others is missed.
        let all = encode(&entries(), Hash::ZERO).0;
        let lines: Vec<&[u8]> = all.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(decode(&[lines[0], lines[2]].concat()).end, End::Damaged);
        assert_eq!(decode(&[lines[0], lines[2], lines[1]].concat()).entries.len(), 1);
    }
}
