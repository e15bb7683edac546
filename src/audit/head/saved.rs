//! A head as it is kept on the storage, at `head/<shard>`, so that a program starts
//! there and reads only the commits behind it, however many came before.
//!
//! Two JSON lines, each ended by one line feed: the head, and `{"signature":"…"}` by the
//! key of the writer that saved it, whom the log's key endorsed. It says what that
//! writer had verified, and is believed as far as the header of a commit is.
//!
//! Separate from the head, because this one is stored. It is replaced by newer ones, and
//! an older one does no harm: the way from it to the end is longer. If it is lost, the
//! end is searched for among the commits, and the next writer saves another.
//!
//! Somebody who can write to the storage can replace a saved head by an older one, or
//! remove it. They cannot make one without an endorsed key; and each commit behind it
//! must follow from it.

use serde::{Deserialize, Serialize};

use super::Head;
use crate::audit::authority::Authority;
use crate::audit::chains::{ChainEnd, Chains};
use crate::audit::commit::{Fault, SignatureLine, Writer, decode_line, json_line};
use crate::error::Result;
use crate::id::{StoreId, WriterId};
use crate::merkle::{Frontier, Hash};
use crate::time::Timestamp;
use crate::tlog::{PublicKey, Signature};

/// What a saved head begins with.
const FORMAT: &str = "strongroom-head-v1";

/// The largest saved head that is read, in bytes.
pub const MAX_LEN: usize = 256 << 10;

/// So many ends of chains are saved with a head, at most: some 20 KiB. Where there are more,
/// a program that starts there reads them from the commits that list them.
const ENDS: usize = 128;

/// A head and what is known of its shard's segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedHead {
    /// The head, with the ends of customers' chains if they are few.
    pub head: Head,
    /// How many commits segments held when it was saved, or fewer: a segment that was
    /// made later begins at this number or behind it.
    pub covered: u64,
}

/// The first line. The order of the fields is the order in it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    format: String,
    store: StoreId,
    shard: u16,
    writer: WriterId,
    key: PublicKey,
    endorsement: Signature,
    /// How many commits there are.
    commits: u64,
    /// SHA-256 of the last.
    previous: Hash,
    /// How many records there are.
    size: u64,
    frontier: Vec<Hash>,
    time: Timestamp,
    lag: u64,
    settled: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    owner: Option<WriterId>,
    covered: u64,
    /// What the commits list that together list the ends of all chains.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    chains: Option<Vec<Vec<ChainEnd>>>,
}

impl SavedHead {
    /// The object, signed by `writer`.
    pub(in crate::audit) fn encode(&self, writer: &Writer) -> Vec<u8> {
        let head = &self.head;
        let line = Line {
            format: FORMAT.to_owned(),
            store: head.store,
            shard: head.shard,
            writer: writer.id,
            key: writer.key.public(),
            endorsement: writer.endorsement,
            commits: head.next,
            previous: head.previous,
            size: head.frontier.size(),
            frontier: head.frontier.edge().to_vec(),
            time: head.time,
            lag: head.lag,
            settled: head.settled,
            owner: head.owner,
            covered: self.covered,
            chains: head
                .chains
                .as_ref()
                .map(Chains::lists)
                .filter(|lists| lists.iter().map(Vec::len).sum::<usize>() <= ENDS),
        };
        let mut bytes = json_line(&line);
        let signature = writer.key.sign(&signed(&bytes[..bytes.len() - 1]));
        bytes.extend_from_slice(&json_line(&SignatureLine { signature }));
        bytes
    }

    /// Reads one of this store and shard, strictly.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity) if it is not one that a writer
    /// whom one of the log's keys endorsed has signed. That one was in force then.
    pub fn decode(
        bytes: &[u8],
        (store, shard): (StoreId, u16),
        authority: impl Into<Authority>,
    ) -> Result<Self> {
        Ok(Self::read(bytes, (store, shard), authority.into())?)
    }

    fn read(bytes: &[u8], (store, shard): (StoreId, u16), authority: Authority) -> Result<Self, Fault> {
        let mut lines = bytes.strip_suffix(b"\n").ok_or(Fault::Truncated)?.split(|byte| *byte == b'\n');
        let (Some(first), Some(second), None) = (lines.next(), lines.next(), lines.next()) else {
            return Err(Fault::Trailing);
        };
        let line: Line = decode_line(first, &mut Vec::new()).ok_or(Fault::Line(1))?;
        let SignatureLine { signature } = decode_line(second, &mut Vec::new()).ok_or(Fault::Line(2))?;
        let holds = |holds: bool, what| if holds { Ok(()) } else { Err(Fault::Header(what)) };
        holds(line.format == FORMAT, "format")?;
        holds((line.store, line.shard) == (store, shard), "store or shard")?;
        let key = authority.endorser((store, line.writer), &line.key, &line.endorsement);
        holds(key.is_some(), "endorsement of its writer")?;
        if !line.key.verifies(&signed(first), &signature) {
            return Err(Fault::Signature);
        }
        let frontier =
            Frontier::from_parts(line.size, line.frontier).map_err(|_| Fault::Header("frontier"))?;
        let chains = match &line.chains {
            None => None,
            Some(lists) => {
                let sorted = |list: &Vec<ChainEnd>| list.is_sorted_by(|a, b| a.customer < b.customer);
                holds(lists.iter().all(sorted), "chains")?;
                let lists: Vec<&[ChainEnd]> = lists.iter().map(Vec::as_slice).collect();
                Some(Chains::from_lists(line.commits, &lists).ok_or(Fault::Header("chains"))?)
            }
        };
        holds(line.settled <= line.commits && line.commits <= line.size, "commits")?;
        holds(line.covered <= line.commits, "covered")?;
        holds((line.commits == 0) == (line.previous == Hash::ZERO), "previous")?;
        let head = Head {
            store,
            shard,
            authority,
            key: key.filter(|_| line.commits > 0),
            next: line.commits,
            previous: line.previous,
            frontier,
            time: line.time,
            lag: line.lag,
            settled: line.settled,
            owner: line.owner,
            chains,
        };
        Ok(Self { head, covered: line.covered })
    }
}

/// What a writer signs: the first line, behind a label.
fn signed(line: &[u8]) -> Vec<u8> {
    [b"strongroom-head-v1\n".as_slice(), line].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::commit::tests::{authority, begin, chain, key, store, writer};
    use crate::audit::commit::{Commit, endorsement};
    use crate::id::CustomerId;

    /// The head behind some commits, each verified.
    fn head(counts: &[u8]) -> Head {
        let follow = |head: Head, bytes: &bytes::Bytes| head.verify(&Commit::decode(bytes).unwrap()).unwrap();
        chain(counts).iter().fold(begin(), follow)
    }

    #[test]
    fn a_saved_head_reads_back_and_commits_follow_from_it() {
        for counts in [&[][..], &[1], &[3, 1], &[1, 2, 3, 4, 5, 6, 7]] {
            let saved = SavedHead { head: head(counts), covered: 0 };
            let bytes = saved.encode(&writer(2));
            assert_eq!(SavedHead::decode(&bytes, (store(), 7), authority()).unwrap(), saved);
        }
        let commits = chain(&[2, 1, 4, 1, 1]);
        let bytes = SavedHead { head: head(&[2, 1]), covered: 1 }.encode(&writer(3));
        let mut read = SavedHead::decode(&bytes, (store(), 7), authority()).unwrap().head;
        for bytes in &commits[2..] {
            read = read.verify(&Commit::decode(bytes).unwrap()).unwrap();
        }
        assert_eq!(read.tree(), head(&[2, 1, 4, 1, 1]).tree());
    }

    #[test]
    fn many_ends_of_chains_are_left_out() {
        let mut chains = Chains::new();
        let end = |customer: usize| {
            let customer = CustomerId::from_bytes((customer as u128).to_be_bytes());
            (customer, ChainEnd { customer, records: 1, last: Hash::ZERO })
        };
        chains.push((0..=ENDS).map(end).collect());
        let many = SavedHead { head: head(&[1]).with_chains(chains), covered: 0 };
        let bytes = many.encode(&writer(2));
        assert!(bytes.len() < 2048, "{}", bytes.len());
        let read = SavedHead::decode(&bytes, (store(), 7), authority()).unwrap();
        assert_eq!((read.head.chains(), read.head.tree()), (None, many.head.tree()));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let good = SavedHead { head: head(&[3, 1]), covered: 0 }.encode(&writer(2));
        let refused = |bytes: &[u8]| SavedHead::decode(bytes, (store(), 7), authority()).is_err();
        for at in 0..good.len() {
            for flip in [1, 0x20, 0x80] {
                let mut bytes = good.clone();
                bytes[at] ^= flip;
                assert!(refused(&bytes), "{at}");
            }
            assert!(refused(&good[..at]), "{at}");
        }
        assert!(refused(&[good.as_slice(), b"\n"].concat()) && refused(&good.repeat(2)));
    }

    #[test]
    fn it_is_of_one_store_and_shard_and_of_an_endorsed_writer() {
        let bytes = SavedHead { head: head(&[1]), covered: 0 }.encode(&writer(2));
        assert!(SavedHead::decode(&bytes, (store(), 8), authority()).is_err());
        assert!(SavedHead::decode(&bytes, (StoreId::from_bytes([9; 16]), 7), authority()).is_err());
        assert!(SavedHead::decode(&bytes, (store(), 7), key(8).public()).is_err());
        // A writer that endorses itself.
        let own = key(3);
        let id = WriterId::from_bytes([3; 16]);
        let forger = Writer::new(id, key(3), own.sign(&endorsement(store(), id, &own.public())));
        let forged = SavedHead { head: head(&[1]), covered: 0 }.encode(&forger);
        assert!(SavedHead::decode(&forged, (store(), 7), authority()).is_err());
    }
}
