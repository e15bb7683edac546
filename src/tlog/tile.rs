//! Tiles and entry bundles: how a tree is cut into files, c2sp.org/tlog-tiles.
//!
//! Separate from building and reading trees, because a path and a length are all
//! that a storage or a server needs to know of a tile.
//!
//! A tile at level 0 has the hashes of up to 256 leaves side by side, one at the
//! next level the roots over 256 hashes of the level below, and so on. The last
//! tile of a level is partial until 256 hashes are there; as the tree grows it is
//! written again, wider, under another path. So no file ever changes.
//!
//! Invariants: an index, a level and a width are within the bounds of the format;
//! a path, a tile and a bundle have one form each.

use std::fmt;
use std::str::FromStr;

use thiserror::Error as ThisError;

use super::text::decimal;
use crate::error::{Error, ErrorKind};
use crate::merkle::{HASH_LEN, Hash};

/// How many hashes a full tile has, and how many entries a full bundle.
pub const WIDTH: u16 = 256;

/// The highest level that a path can name.
pub const MAX_LEVEL: u8 = 63;

/// [`WIDTH`], as a power of two.
pub(super) const HEIGHT: u32 = 8;

/// Bytes or a path that are no tile, or tiles that are not a tree's. Nothing of
/// them is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum TileError {
    /// It is not the path of a tile or of a bundle, in its one form.
    #[error("not the path of a tile or of an entry bundle")]
    Path,
    /// It does not have the length of the tile that it should be.
    #[error("a tile does not have the length of one")]
    Length,
    /// It is not the bundle that it should be, or an entry is longer than 65535
    /// bytes.
    #[error("an entry bundle is not in the form of one")]
    Bundle,
    /// A tile that the tree consists of was not there.
    #[error("{0} is missing")]
    Missing(Tile),
    /// The tiles do not hash to the root of the tree.
    #[error("the tiles are not those of the tree")]
    Mismatch,
    /// The tree is too small to have that leaf, or to come from that tree.
    #[error("the tree is smaller than that")]
    OutOfRange,
}

impl From<TileError> for Error {
    fn from(error: TileError) -> Self {
        let kind = match error {
            TileError::Path | TileError::OutOfRange => ErrorKind::InvalidInput,
            _ => ErrorKind::Integrity,
        };
        Self::new(kind, "the tiles of a log are not as they have to be").with_source(error)
    }
}

/// Which hashes of a tree a tile has. Its `Display` is its path,
/// `tile/<level>/<index>` and, if it is partial, `.p/<width>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// The tile number `index` of a level, with `width` hashes.
    ///
    /// # Errors
    /// [`TileError::Path`] unless the level is at most [`MAX_LEVEL`] and the width
    /// 1 to [`WIDTH`].
    pub fn new(level: u8, index: u64, width: u16) -> Result<Self, TileError> {
        let good = level <= MAX_LEVEL && (1..=WIDTH).contains(&width);
        if good { Ok(Self { level, index, width }) } else { Err(TileError::Path) }
    }

    /// All tiles of a tree of `size` leaves, level by level.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        Self::between(0, size)
    }

    /// The tiles that a tree of `new` leaves has and one of `old` had not: those
    /// that became full, and the partial ones at its edge.
    pub fn between(old: u64, new: u64) -> impl Iterator<Item = Self> {
        levels().flat_map(move |level| {
            grown(count(old, level), count(new, level)).map(move |(index, width)| Self {
                level,
                index,
                width,
            })
        })
    }

    /// The partial tiles at the edge of a tree of `size` leaves.
    pub(super) fn partial(size: u64) -> impl Iterator<Item = Self> {
        levels().filter_map(move |level| {
            let count = count(size, level);
            let width = remainder(count);
            (width > 0).then_some(Self { level, index: count >> HEIGHT, width })
        })
    }

    /// Its level, from 0 for the leaves.
    #[must_use]
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// Its number within the level.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has, 1 to [`WIDTH`].
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Whether it is full, and stays as it is however the tree grows.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == WIDTH
    }

    /// The full tile that begins with the same hashes. When there is one, a
    /// partial tile may be deleted.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: WIDTH, ..self }
    }

    /// The file with these hashes.
    #[must_use]
    pub fn encode(hashes: &[Hash]) -> Vec<u8> {
        hashes.iter().flat_map(Hash::as_bytes).copied().collect()
    }

    /// Reads the file of this tile.
    ///
    /// # Errors
    /// [`TileError::Length`] unless it has the length of [`Tile::width`] hashes.
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<Hash>, TileError> {
        let (hashes, rest) = bytes.as_chunks::<HASH_LEN>();
        if !rest.is_empty() || hashes.len() != usize::from(self.width) {
            return Err(TileError::Length);
        }
        Ok(hashes.iter().copied().map(Hash::from_bytes).collect())
    }
}

/// Which entries of a log a bundle has. Its `Display` is its path,
/// `tile/entries/<index>` and, if it is partial, `.p/<width>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bundle {
    index: u64,
    width: u16,
}

impl Bundle {
    /// The bundle number `index`, with `width` entries.
    ///
    /// # Errors
    /// [`TileError::Path`] unless the width is 1 to [`WIDTH`].
    pub fn new(index: u64, width: u16) -> Result<Self, TileError> {
        if (1..=WIDTH).contains(&width) { Ok(Self { index, width }) } else { Err(TileError::Path) }
    }

    /// All bundles of a log of `size` entries, in order.
    pub fn all(size: u64) -> impl Iterator<Item = Self> {
        Self::between(0, size)
    }

    /// The bundles that a log of `new` entries has and one of `old` had not.
    pub fn between(old: u64, new: u64) -> impl Iterator<Item = Self> {
        grown(old, new).map(|(index, width)| Self { index, width })
    }

    /// Its number.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many entries it has, 1 to [`WIDTH`].
    #[must_use]
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// Whether it is full, and stays as it is however the log grows.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.width == WIDTH
    }

    /// The full bundle that begins with the same entries.
    #[must_use]
    pub const fn full(self) -> Self {
        Self { width: WIDTH, ..self }
    }

    /// The file with these entries: each with its length in front, two bytes
    /// big-endian.
    ///
    /// # Errors
    /// [`TileError::Bundle`] if one is longer than 65535 bytes.
    pub fn encode<E: AsRef<[u8]>>(entries: impl IntoIterator<Item = E>) -> Result<Vec<u8>, TileError> {
        let mut bytes = Vec::new();
        for entry in entries {
            let entry = entry.as_ref();
            let length = u16::try_from(entry.len()).map_err(|_| TileError::Bundle)?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(entry);
        }
        Ok(bytes)
    }

    /// Reads the file of this bundle.
    ///
    /// # Errors
    /// [`TileError::Bundle`] unless it is [`Bundle::width`] entries to the last byte.
    pub fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a [u8]>, TileError> {
        let mut rest = bytes;
        let mut entries = Vec::with_capacity(self.width.into());
        for _ in 0..self.width {
            let (length, after) = rest.split_first_chunk().ok_or(TileError::Bundle)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (entry, after) = after.split_at_checked(length).ok_or(TileError::Bundle)?;
            entries.push(entry);
            rest = after;
        }
        if rest.is_empty() { Ok(entries) } else { Err(TileError::Bundle) }
    }
}

/// What a path below `tile/` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TilePath {
    /// A tile.
    Tile(Tile),
    /// An entry bundle.
    Bundle(Bundle),
}

/// The levels that a tree of up to 2^64 - 1 leaves can have tiles at.
fn levels() -> impl Iterator<Item = u8> {
    0..8
}

/// How many hashes there are at a level.
pub(super) fn count(size: u64, level: u8) -> u64 {
    size.checked_shr(HEIGHT * u32::from(level)).unwrap_or(0)
}

/// How many of them are in the partial tile.
fn remainder(count: u64) -> u16 {
    u16::try_from(count % u64::from(WIDTH)).expect("below the width")
}

/// The tiles of a level with `new` hashes that were other tiles when it had `old`.
fn grown(old: u64, new: u64) -> impl Iterator<Item = (u64, u16)> {
    let partial = (new > old && remainder(new) > 0).then(|| (new >> HEIGHT, remainder(new)));
    (old >> HEIGHT..new >> HEIGHT).map(|index| (index, WIDTH)).chain(partial)
}

/// `<index>[.p/<width>]`: three digits in each path element, with an `x` before
/// all but the last.
fn write_place(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    for (left, group) in groups.iter().enumerate().rev() {
        if left > 0 { write!(f, "x{group:03}/")? } else { write!(f, "{group:03}")? }
    }
    if width < WIDTH { write!(f, ".p/{width}") } else { Ok(()) }
}

/// Index and width, from at least what [`write_place`] writes.
fn read_place(text: &str) -> Option<(u64, u16)> {
    let (index, width) = match text.split_once(".p/") {
        None => (text, WIDTH),
        Some((index, width)) => (index, decimal(width)?.try_into().ok()?),
    };
    let mut value = 0_u64;
    for group in index.split('/') {
        let digits = group.strip_prefix('x').unwrap_or(group);
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        value = value.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
    }
    Some((value, width))
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        write_place(f, self.index, self.width)
    }
}

impl fmt::Display for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        write_place(f, self.index, self.width)
    }
}

impl fmt::Display for TilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tile(tile) => tile.fmt(f),
            Self::Bundle(bundle) => bundle.fmt(f),
        }
    }
}

impl FromStr for TilePath {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        let place = text.strip_prefix("tile/").and_then(|rest| rest.split_once('/'));
        let (level, place) = place.ok_or(TileError::Path)?;
        let (index, width) = read_place(place).ok_or(TileError::Path)?;
        let path = if level == "entries" {
            Self::Bundle(Bundle::new(index, width)?)
        } else {
            let level = decimal(level).and_then(|level| level.try_into().ok()).ok_or(TileError::Path)?;
            Self::Tile(Tile::new(level, index, width)?)
        };
        // One form: the text must be what we would have written.
        if path.to_string() == text { Ok(path) } else { Err(TileError::Path) }
    }
}

impl FromStr for Tile {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        match text.parse()? {
            TilePath::Tile(tile) => Ok(tile),
            TilePath::Bundle(_) => Err(TileError::Path),
        }
    }
}

impl FromStr for Bundle {
    type Err = TileError;

    fn from_str(text: &str) -> Result<Self, TileError> {
        match text.parse()? {
            TilePath::Bundle(bundle) => Ok(bundle),
            TilePath::Tile(_) => Err(TileError::Path),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_has_one_form() {
        for (level, index, width, path) in [
            (0, 0, 256, "tile/0/000"),
            (0, 1_234_067, 256, "tile/0/x001/x234/067"),
            (0, 1_234_067, 12, "tile/0/x001/x234/067.p/12"),
            (3, 999, 255, "tile/3/999.p/255"),
            (63, 1000, 1, "tile/63/x001/000.p/1"),
            (7, u64::MAX, 256, "tile/7/x018/x446/x744/x073/x709/x551/615"),
        ] {
            let tile = Tile::new(level, index, width).unwrap();
            assert_eq!(tile.to_string(), path);
            assert_eq!(path.parse(), Ok(tile));
            assert_eq!(path.parse(), Ok(TilePath::Tile(tile)));
            assert!(path.parse::<Bundle>().is_err());
        }
        let bundle = Bundle::new(1_234_067, 8).unwrap();
        assert_eq!(bundle.to_string(), "tile/entries/x001/x234/067.p/8");
        assert_eq!(bundle.to_string().parse(), Ok(bundle));
        assert!(bundle.to_string().parse::<Tile>().is_err());
        assert_eq!(bundle.full().to_string(), "tile/entries/x001/x234/067");
    }

    #[test]
    fn another_path_is_none() {
        for bad in [
            "",
            "tile",
            "tile/",
            "tile/0",
            "tile/0/",
            "tile/0/00",
            "tile/0/0000",
            "tile/0/x000",
            "tile/0/x000/000",
            "tile/0/001/000",
            "tile/0/x001/x000",
            "tile/0/x001/00",
            "tile/00/000",
            "tile/64/000",
            "tile/256/000",
            "tile/-1/000",
            "tile/+1/000",
            "tile/data/000",
            "tile/8/0/000",
            "tile/0/000/",
            "/tile/0/000",
            "tile//000",
            "tile/0/000.p",
            "tile/0/000.p/",
            "tile/0/000.p/0",
            "tile/0/000.p/01",
            "tile/0/000.p/256",
            "tile/0/000.p/65792",
            "tile/0/000.p/1/",
            "tile/0/000.p/1.p/1",
            "tile/0/x001.p/000",
            "tile/0/000.P/1",
            "tile/0/+00",
            "tile/0/0a0",
            "tile/0/../000",
            "tile/Entries/000",
            "tile/entries/x000/000",
            "tile/7/x018/x446/x744/x073/x709/x551/616",
            "tile/7/x001/x018/x446/x744/x073/x709/x551/615",
        ] {
            assert_eq!(bad.parse::<TilePath>(), Err(TileError::Path), "{bad}");
        }
        assert!(Tile::new(64, 0, 1).is_err());
        assert!(Tile::new(0, 0, 0).is_err());
        assert!(Tile::new(0, 0, 257).is_err());
        assert!(Bundle::new(0, 0).is_err());
        assert!(Bundle::new(0, 257).is_err());
    }

    #[test]
    fn a_tree_of_seventy_thousand_has_the_tiles_of_the_specification() {
        let tiles: Vec<Tile> = Tile::all(70_000).collect();
        let at = |level, full| tiles.iter().filter(move |tile| tile.level == level && tile.is_full() == full);
        assert_eq!(at(0, true).count(), 273);
        assert_eq!(at(0, false).map(Tile::width).collect::<Vec<_>>(), [112]);
        assert_eq!(at(1, true).count(), 1);
        assert_eq!(at(1, false).map(Tile::width).collect::<Vec<_>>(), [17]);
        assert_eq!(at(2, false).map(Tile::width).collect::<Vec<_>>(), [1]);
        assert_eq!(tiles.len(), 277);
        let small: Vec<String> = Tile::all(256).map(|tile| tile.to_string()).collect();
        assert_eq!(small, ["tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(Tile::all(0).count(), 0);
        assert_eq!(Bundle::all(70_000).count(), 274);
    }

    #[test]
    fn what_does_not_grow_is_not_written_again() {
        let paths = |old, new| Tile::between(old, new).map(|tile| tile.to_string()).collect::<Vec<_>>();
        assert_eq!(paths(5, 5), [""; 0]);
        assert_eq!(paths(6, 5), [""; 0]);
        assert_eq!(paths(5, 6), ["tile/0/000.p/6"]);
        assert_eq!(paths(5, 256), ["tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(paths(256, 300), ["tile/0/001.p/44"]);
        assert_eq!(paths(300, 513), ["tile/0/001", "tile/0/002.p/1", "tile/1/000.p/2"]);
        assert_eq!(paths(65_535, 65_536), ["tile/0/255", "tile/1/000", "tile/2/000.p/1"]);
        assert!(Tile::between(u64::MAX - 1, u64::MAX).count() == 1);
    }

    #[test]
    fn a_tile_has_the_length_of_its_hashes() {
        let hashes = [Hash::of(b"a"), Hash::of(b"b")];
        let bytes = Tile::encode(&hashes);
        let tile = |width| Tile::new(0, 0, width).unwrap();
        assert_eq!(tile(2).decode(&bytes).unwrap(), hashes);
        assert_eq!(tile(1).decode(&bytes), Err(TileError::Length));
        assert_eq!(tile(3).decode(&bytes), Err(TileError::Length));
        assert_eq!(tile(2).decode(&bytes[1..]), Err(TileError::Length));
        assert_eq!(tile(2).decode(&[&bytes[..], &[0]].concat()), Err(TileError::Length));
    }

    #[test]
    fn a_bundle_has_each_entry_to_the_last_byte() {
        let bytes = Bundle::encode([b"ab".as_slice(), b"", b"c"]).unwrap();
        assert_eq!(bytes, b"\0\x02ab\0\0\0\x01c");
        let bundle = |width| Bundle::new(0, width).unwrap();
        assert_eq!(bundle(3).decode(&bytes).unwrap(), [b"ab".as_slice(), b"", b"c"]);
        for (width, bad) in [(2, &bytes[..]), (4, &bytes), (3, &bytes[..8]), (3, &bytes[..1]), (1, b"")] {
            assert_eq!(bundle(width).decode(bad), Err(TileError::Bundle));
        }
        assert!(Bundle::encode([vec![0; 65_535]]).is_ok());
        assert_eq!(Bundle::encode([vec![0; 65_536]]), Err(TileError::Bundle));
    }

    proptest! {
        #[test]
        fn a_tree_has_its_tiles_however_it_grew(old in 0..200_000_u64, more in 0..200_000_u64) {
            let new = old + more;
            let all: BTreeSet<Tile> = Tile::all(new).collect();
            let before: BTreeSet<Tile> = Tile::all(old).collect();
            let between: BTreeSet<Tile> = Tile::between(old, new).collect();
            prop_assert_eq!(all.difference(&before).copied().collect::<BTreeSet<_>>(), between);
            for gone in before.difference(&all) {
                prop_assert!(!gone.is_full());
            }
        }

        #[test]
        fn what_is_read_is_written_the_same(text in "tile/(entries|[0-9]{1,2})/(x?[0-9]{3}/){0,2}[0-9]{2,4}(\\.p/[0-9]{1,3})?") {
            if let Ok(path) = text.parse::<TilePath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn a_bundle_is_read_as_it_was_written(entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20)) {
            let bytes = Bundle::encode(&entries).unwrap();
            let bundle = Bundle::new(0, entries.len().try_into().unwrap()).unwrap();
            prop_assert_eq!(bundle.decode(&bytes).unwrap(), entries);
        }
    }
}
