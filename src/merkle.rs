//! The Merkle tree of the audit log: RFC 6962 s2.1 over SHA-256.
//!
//! Separate from the log, and pure, so that a proof can be made and checked
//! without a storage at hand. A leaf is known by its [`leaf_hash`]; what the
//! leaf data are is the business of `audit::commit`.
//!
//! A writer needs only the right edge of the tree to append to it: the roots of
//! the perfect subtrees that its size, in binary, is made of. That is a
//! [`Frontier`]. Proofs are made from all leaf hashes and checked from two
//! tree heads.
//!
//! Invariants: a frontier has exactly one hash for each bit set in its size;
//! proofs are checked to the last hash, so that a longer or shorter one fails.

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};

/// The size of a hash, in bytes.
pub const HASH_LEN: usize = 32;

/// A SHA-256 digest. Its text is lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; HASH_LEN]);

impl Hash {
    /// 32 zero bytes, where a hash is called for and there is nothing to hash.
    pub const ZERO: Self = Self([0; HASH_LEN]);

    /// SHA-256 of `bytes`, without any prefix.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hash({self})")
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("not a hash of 32 bytes in lower-case hexadecimal");
        let bytes = HEXLOWER.decode(String::deserialize(from)?.as_bytes()).map_err(|_| wrong())?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

/// How large a tree is, and its root: all that two parties need to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeHead {
    /// How many leaves it has.
    pub size: u64,
    /// Its root hash, RFC 6962 s2.1.
    pub root: Hash,
}

/// The hash of a leaf: SHA-256(0x00 ‖ data), RFC 6962 s2.1.
#[must_use]
pub fn leaf_hash(data: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
}

/// The hash of an inner node: SHA-256(0x01 ‖ left ‖ right), RFC 6962 s2.1.
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

/// The root over `leaves`, by the definition in RFC 6962 s2.1.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Hash::of(&[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// The largest power of two below `len`, which is at least 2.
fn split(len: usize) -> usize {
    len.next_power_of_two() / 2
}

/// The right edge of a tree: the roots of its perfect subtrees, from the
/// largest (leftmost) to the smallest. It grows leaf by leaf, in at most 64
/// hashes, whatever the size of the tree.
///
/// Its encoding is the size (8 bytes) and the hashes, whose number follows from
/// the size.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Frontier {
    size: u64,
    edge: Vec<Hash>,
}

/// Hashes that are not the right edge of a tree of the size they came with.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a tree of {size} leaves has {} hashes at its right edge, not {found}", size.count_ones())]
pub struct FrontierError {
    size: u64,
    found: usize,
}

impl Frontier {
    /// The edge of the empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The edge of a tree of `size` leaves, largest subtree first.
    ///
    /// # Errors
    /// [`FrontierError`] unless there is one hash for each bit set in `size`.
    pub fn from_parts(size: u64, edge: Vec<Hash>) -> Result<Self, FrontierError> {
        if edge.len() == bits(size) {
            Ok(Self { size, edge })
        } else {
            Err(FrontierError { size, found: edge.len() })
        }
    }

    /// Appends one leaf.
    ///
    /// # Panics
    /// If there are 2^64 - 1 leaves already.
    pub fn push(&mut self, leaf: Hash) {
        let grown = self.size.checked_add(1).expect("no log reaches 2^64 records");
        let mut node = leaf;
        // Each subtree that the carry of the addition passes is complete now.
        for _ in 0..self.size.trailing_ones() {
            let left = self.edge.pop().expect("there is one hash for each bit set in the size");
            node = node_hash(&left, &node);
        }
        self.edge.push(node);
        self.size = grown;
    }

    /// How many leaves the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes, largest subtree first.
    #[must_use]
    pub fn edge(&self) -> &[Hash] {
        &self.edge
    }

    /// The root of the tree.
    #[must_use]
    pub fn root(&self) -> Hash {
        let mut smallest_first = self.edge.iter().rev().copied();
        match smallest_first.next() {
            None => Hash::of(&[]),
            Some(last) => smallest_first.fold(last, |right, left| node_hash(&left, &right)),
        }
    }

    /// Size and root together.
    #[must_use]
    pub fn head(&self) -> TreeHead {
        TreeHead { size: self.size, root: self.root() }
    }
}

fn bits(size: u64) -> usize {
    usize::try_from(size.count_ones()).expect("at most 64")
}

impl Encode for Frontier {
    fn encode(&self, out: &mut Writer) {
        out.u64(self.size);
        for hash in &self.edge {
            out.raw(&hash.0);
        }
    }
}

impl Decode for Frontier {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let size = from.u64()?;
        let edge = (0..bits(size)).map(|_| Ok(Hash(from.array()?))).collect::<Result<_, DecodeError>>()?;
        Ok(Self { size, edge })
    }
}

/// A proof that does not prove what it came with.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the Merkle proof does not lead to the root it was given for")]
pub struct ProofError;

/// The audit path of leaf `index`, RFC 6962 s2.1.1, nearest sibling first.
/// `None` if there is no such leaf.
#[must_use]
pub fn prove_inclusion(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut tree, mut index) = (leaves, index);
    while tree.len() > 1 {
        let (left, right) = tree.split_at(split(tree.len()));
        if index < left.len() {
            path.push(root(right));
            tree = left;
        } else {
            path.push(root(left));
            index -= left.len();
            tree = right;
        }
    }
    path.reverse();
    Some(path)
}

/// Checks that `leaf` is number `index` of the tree with `head`, RFC 9162
/// s2.1.3.2.
///
/// # Errors
/// [`ProofError`] if the proof does not show it.
pub fn verify_inclusion(leaf: Hash, index: u64, proof: &[Hash], head: &TreeHead) -> Result<(), ProofError> {
    if index >= head.size {
        return Err(ProofError);
    }
    let (mut node, mut index, mut last) = (leaf, index, head.size - 1);
    for sibling in proof {
        if last == 0 {
            return Err(ProofError);
        }
        if index & 1 == 1 || index == last {
            node = node_hash(sibling, &node);
            // The levels at which the node has no sibling.
            while index & 1 == 0 && index != 0 {
                (index, last) = (index >> 1, last >> 1);
            }
        } else {
            node = node_hash(&node, sibling);
        }
        (index, last) = (index >> 1, last >> 1);
    }
    if last == 0 && node == head.root { Ok(()) } else { Err(ProofError) }
}

/// The proof that the tree over the first `old_size` leaves is where the tree
/// over all of them comes from, RFC 6962 s2.1.2. `None` if it would be larger.
#[must_use]
pub fn prove_consistency(leaves: &[Hash], old_size: usize) -> Option<Vec<Hash>> {
    if old_size > leaves.len() {
        return None;
    }
    let mut proof = Vec::new();
    if old_size == 0 {
        return Some(proof);
    }
    let (mut tree, mut old) = (leaves, old_size);
    // Whether the old tree's root is the one that the verifier knows.
    let mut whole = true;
    while old != tree.len() {
        let (left, right) = tree.split_at(split(tree.len()));
        if old <= left.len() {
            proof.push(root(right));
            tree = left;
        } else {
            proof.push(root(left));
            old -= left.len();
            tree = right;
            whole = false;
        }
    }
    if !whole {
        proof.push(root(tree));
    }
    proof.reverse();
    Some(proof)
}

/// Checks that the tree with head `new` begins with the leaves of `old`,
/// RFC 9162 s2.1.4.2. The empty tree is where every tree comes from.
///
/// # Errors
/// [`ProofError`] if the proof does not show it.
pub fn verify_consistency(old: &TreeHead, new: &TreeHead, proof: &[Hash]) -> Result<(), ProofError> {
    let holds = |holds: bool| if holds { Ok(()) } else { Err(ProofError) };
    if old.size == 0 {
        return holds(proof.is_empty() && old.root == Hash::of(&[]));
    }
    if old.size >= new.size {
        return holds(proof.is_empty() && old == new);
    }
    let (mut index, mut last) = (old.size - 1, new.size - 1);
    while index & 1 == 1 {
        (index, last) = (index >> 1, last >> 1);
    }
    let (start, rest) = if old.size.is_power_of_two() {
        (old.root, proof)
    } else {
        let (start, rest) = proof.split_first().ok_or(ProofError)?;
        (*start, rest)
    };
    let (mut old_root, mut new_root) = (start, start);
    for hash in rest {
        if last == 0 {
            return Err(ProofError);
        }
        if index & 1 == 1 || index == last {
            old_root = node_hash(hash, &old_root);
            new_root = node_hash(hash, &new_root);
            while index & 1 == 0 && index != 0 {
                (index, last) = (index >> 1, last >> 1);
            }
        } else {
            new_root = node_hash(&new_root, hash);
        }
        (index, last) = (index >> 1, last >> 1);
    }
    holds(last == 0 && old_root == old.root && new_root == new.root)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use tlog_tiles::tlog;

    use super::*;

    const MANY: usize = 300;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|number| leaf_hash(&number.to_be_bytes())).collect()
    }

    /// The hashes that the other implementation stores for its own tree.
    struct Stored(HashMap<u64, tlog::Hash>);

    impl tlog::HashReader for Stored {
        fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog::Hash>, tlog_tiles::Error> {
            Ok(indexes.iter().map(|index| self.0[index]).collect())
        }
    }

    impl Stored {
        fn tree(count: usize) -> Self {
            let mut stored = Self(HashMap::new());
            for number in 0..count {
                let first = tlog::stored_hash_index(0, number as u64);
                let new = tlog::stored_hashes(number as u64, &number.to_be_bytes(), &stored).unwrap();
                stored.0.extend((first..).zip(new));
            }
            stored
        }
    }

    fn ours(theirs: Vec<tlog::Hash>) -> Vec<Hash> {
        theirs.into_iter().map(|hash| Hash(hash.0)).collect()
    }

    fn theirs(ours: &[Hash]) -> Vec<tlog::Hash> {
        ours.iter().map(|hash| tlog::Hash(hash.0)).collect()
    }

    #[test]
    fn roots_are_those_of_another_implementation() {
        let (stored, leaves) = (Stored::tree(MANY), leaves(MANY));
        let mut frontier = Frontier::new();
        for size in 0..=MANY {
            let expected = Hash(tlog::tree_hash(size as u64, &stored).unwrap().0);
            assert_eq!(root(&leaves[..size]), expected, "{size}");
            assert_eq!(frontier.head(), TreeHead { size: size as u64, root: expected });
            assert_eq!(frontier.edge().len(), bits(size as u64));
            if size < MANY {
                frontier.push(leaves[size]);
            }
        }
    }

    #[test]
    fn inclusion_proofs_are_those_of_another_implementation() {
        let (stored, leaves) = (Stored::tree(MANY), leaves(MANY));
        // All positions in small trees, and those around powers of two in large ones.
        for size in (1..=70).chain([127, 128, 129, 255, 256, 257, MANY]) {
            let head = TreeHead { size: size as u64, root: root(&leaves[..size]) };
            for index in 0..size {
                let proof = prove_inclusion(&leaves[..size], index).unwrap();
                let (t, n) = (size as u64, index as u64);
                assert_eq!(proof, ours(tlog::prove_record(t, n, &stored).unwrap()));
                let (root, leaf) = (tlog::Hash(head.root.0), tlog::Hash(leaves[index].0));
                tlog::check_record(&theirs(&proof), t, root, n, leaf).unwrap();
                verify_inclusion(leaves[index], n, &proof, &head).unwrap();
                assert!(verify_inclusion(leaves[index], n + 1, &proof, &head).is_err());
                assert!(verify_inclusion(leaf_hash(b"other"), n, &proof, &head).is_err());
                assert_no_variant_passes(&proof, |proof| verify_inclusion(leaves[index], n, proof, &head));
            }
            assert_eq!(prove_inclusion(&leaves[..size], size), None);
        }
    }

    #[test]
    fn consistency_proofs_are_those_of_another_implementation() {
        let (stored, leaves) = (Stored::tree(MANY), leaves(MANY));
        let head = |size: usize| TreeHead { size: size as u64, root: root(&leaves[..size]) };
        for size in (1..=70).chain([127, 128, 129, 255, 256, 257, MANY]) {
            for old in 1..=size {
                let proof = prove_consistency(&leaves[..size], old).unwrap();
                let (t, n) = (size as u64, old as u64);
                assert_eq!(proof, ours(tlog::prove_tree(t, n, &stored).unwrap()), "{old} of {size}");
                let (from, to) = (head(old), head(size));
                tlog::check_tree(&theirs(&proof), t, tlog::Hash(to.root.0), n, tlog::Hash(from.root.0))
                    .unwrap();
                verify_consistency(&from, &to, &proof).unwrap();
                assert_no_variant_passes(&proof, |proof| verify_consistency(&from, &to, proof));
                let other = TreeHead { size: n, root: leaf_hash(b"other") };
                assert!(verify_consistency(&other, &to, &proof).is_err());
            }
            assert_eq!(prove_consistency(&leaves[..size], size + 1), None);
        }
        assert!(verify_consistency(&head(0), &head(9), &[]).is_ok());
        assert!(verify_consistency(&head(9), &head(8), &[]).is_err());
    }

    fn assert_no_variant_passes(proof: &[Hash], check: impl Fn(&[Hash]) -> Result<(), ProofError>) {
        let mut longer = proof.to_vec();
        longer.push(Hash::ZERO);
        assert!(check(&longer).is_err());
        if let Some((_, shorter)) = proof.split_last() {
            assert!(check(shorter).is_err());
            let mut changed = proof.to_vec();
            changed[proof.len() / 2].0[7] ^= 1;
            assert!(check(&changed).is_err());
        }
    }

    #[test]
    fn the_published_roots_of_rfc_6962_test_trees() {
        // The empty tree, and the one-leaf tree whose leaf is the empty string.
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(root(&[]).to_string(), empty);
        let one = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d";
        assert_eq!(root(&[leaf_hash(b"")]).to_string(), one);
    }

    #[test]
    fn a_frontier_has_one_encoding() {
        let mut frontier = Frontier::new();
        leaves(11).into_iter().for_each(|leaf| frontier.push(leaf));
        let bytes = frontier.to_bytes();
        assert_eq!(bytes.len(), 8 + 3 * HASH_LEN);
        assert_eq!(Frontier::from_bytes(&bytes), Ok(frontier.clone()));
        assert_eq!(Frontier::from_bytes(&bytes[..bytes.len() - 1]), Err(DecodeError::Truncated));
        assert_eq!(Frontier::from_bytes(&[&bytes[..], &[0]].concat()), Err(DecodeError::Trailing));
        assert_eq!(Frontier::from_parts(11, frontier.edge().to_vec()), Ok(frontier.clone()));
        assert!(Frontier::from_parts(12, frontier.edge().to_vec()).is_err());
    }

    #[test]
    fn a_hash_has_one_text() {
        let hash = leaf_hash(b"x");
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<Hash>(&text).unwrap(), hash);
        for bad in [text.to_uppercase(), "\"00\"".to_owned(), format!("\"{hash}00\"")] {
            assert!(serde_json::from_str::<Hash>(&bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_frontier_grows_to_the_recomputed_root(data in prop::collection::vec(any::<[u8; 3]>(), 0..600)) {
            let leaves: Vec<Hash> = data.iter().map(|data| leaf_hash(data)).collect();
            let mut frontier = Frontier::new();
            leaves.iter().for_each(|leaf| frontier.push(*leaf));
            prop_assert_eq!(frontier.root(), root(&leaves));
            prop_assert_eq!(Frontier::from_bytes(&frontier.to_bytes()), Ok(frontier));
        }
    }
}
