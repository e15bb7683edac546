//! The crate `tlog_tiles` against our tiles, proofs and checkpoints, for every size of tree up to a
//! few tiles. (`tests/go_reference.rs` has the large ones, with another program.)

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};

use strongroom::merkle::{Hash, TreeHead, leaf_hash};
use strongroom::tlog::checkpoint::Checkpoint;
use strongroom::tlog::tile::{Bundle, Tile};
use strongroom::tlog::{TileBuilder, TiledTree};
use tlog_tiles::{HashReader, TileHashReader, TileReader, tlog};

const HEIGHT: u8 = 8;

/// More than two tiles, and more than one level.
const LARGEST: u64 = 530;

type Tiles = BTreeMap<Tile, Vec<Hash>>;

/// All tiles, partial ones included, of the trees of up to `LARGEST` leaves, and their heads.
fn log() -> (Tiles, Vec<TreeHead>) {
    let mut builder = TileBuilder::new();
    let mut tiles = Tiles::new();
    let mut heads = vec![builder.head()];
    for number in 0..LARGEST {
        tiles.extend(builder.push(leaf_hash(&number.to_be_bytes())));
        tiles.extend(builder.partial().map(|(tile, hashes)| (tile, hashes.to_vec())));
        heads.push(builder.head());
    }
    (tiles, heads)
}

fn from<'a>(tiles: &'a Tiles) -> impl Fn(&Tile) -> Option<&'a [Hash]> {
    |tile| tiles.get(tile).map(Vec::as_slice)
}

/// Our tiles, as that crate reads them.
struct Theirs<'a>(&'a Tiles);

impl TileReader for Theirs<'_> {
    fn height(&self) -> u8 {
        HEIGHT
    }

    fn read_tiles(&self, tiles: &[tlog_tiles::Tile]) -> Result<Vec<Vec<u8>>, tlog_tiles::Error> {
        let read = |tile: &tlog_tiles::Tile| {
            let tile: Tile = their_path(tile).parse().unwrap();
            Tile::encode(&self.0[&tile])
        };
        Ok(tiles.iter().map(read).collect())
    }

    fn save_tiles(&self, _: &[tlog_tiles::Tile], _: &[Vec<u8>]) {}
}

/// The path without the height, and with the name of c2sp.org/tlog-tiles for entries.
fn their_path(tile: &tlog_tiles::Tile) -> String {
    tile.path().replacen("tile/8/", "tile/", 1).replacen("tile/data/", "tile/entries/", 1)
}

fn theirs(hash: &Hash) -> tlog_tiles::Hash {
    tlog_tiles::Hash(*hash.as_bytes())
}

fn ours(hashes: Vec<tlog_tiles::Hash>) -> Vec<Hash> {
    hashes.into_iter().map(|hash| Hash::from_bytes(hash.0)).collect()
}

#[test]
fn it_makes_the_same_proofs_of_the_same_tiles() {
    let (tiles, heads) = log();
    for head in heads.iter().skip(1) {
        let served = Theirs(&tiles);
        let reader = TileHashReader::new(head.size, theirs(&head.root), &served);
        assert_eq!(tlog::tree_hash(head.size, &reader).unwrap(), theirs(&head.root));
        let tiled = TiledTree::new(*head);
        for index in [0, head.size / 3, 255, 256, head.size - 1] {
            if index < head.size {
                let own = tiled.prove_inclusion(index, from(&tiles)).unwrap();
                assert_eq!(own.path, ours(tlog::prove_record(head.size, index, &reader).unwrap()));
                let leaf = reader.read_hashes(&[tlog::stored_hash_index(0, index)]).unwrap();
                assert_eq!(vec![own.leaf], ours(leaf));
            }
        }
        for old in [1, head.size / 2, 255, 256, 257, head.size - 1, head.size] {
            if (1..=head.size).contains(&old) {
                let own = tiled.prove_consistency(old, from(&tiles)).unwrap();
                assert_eq!(own.old, heads[usize::try_from(old).unwrap()]);
                assert_eq!(own.proof, ours(tlog::prove_tree(head.size, old, &reader).unwrap()));
            }
        }
    }
}

#[test]
fn it_lists_the_same_new_tiles() {
    let sizes =
        [0, 1, 2, 255, 256, 257, 300, 511, 512, 1000, 65_535, 65_536, 65_537, 70_000, 1 << 24, (1 << 24) + 9];
    for (at, old) in sizes.into_iter().enumerate() {
        // Between sizes far apart there are more tiles than it is worth.
        for new in sizes[at..].iter().copied().filter(|new| new - old < 100_000) {
            let listed = tlog_tiles::Tile::new_tiles(HEIGHT, old, new);
            // That crate lists the partial tiles of the sizes in between too.
            let own: BTreeSet<String> = Tile::between(old, new).map(|tile| tile.to_string()).collect();
            let of_new: BTreeSet<String> = Tile::all(new).map(|tile| tile.to_string()).collect();
            let theirs: BTreeSet<String> = listed.iter().map(their_path).collect();
            assert!(own.is_subset(&theirs), "{old} {new}");
            // What we leave out is of another size, or was there before.
            let before: BTreeSet<String> = Tile::all(old).map(|tile| tile.to_string()).collect();
            for path in theirs.difference(&own) {
                assert!(!of_new.contains(path) || before.contains(path), "{old} {new} {path}");
            }
        }
    }
}

#[test]
fn it_gives_the_same_paths() {
    for (level, index, width) in [(0, 0, 1), (0, 999, 256), (1, 1000, 255), (3, 1_234_067, 12), (63, 5, 256)]
    {
        let theirs = tlog_tiles::Tile::new(HEIGHT, level, index, width, false);
        let own = Tile::new(level, index, u16::try_from(width).unwrap()).unwrap();
        assert_eq!(own.to_string(), their_path(&theirs));
        let theirs = tlog_tiles::Tile::new(HEIGHT, 0, index, width, true);
        let own = Bundle::new(index, u16::try_from(width).unwrap()).unwrap();
        assert_eq!(own.to_string(), their_path(&theirs));
    }
}

#[test]
fn it_reads_the_same_checkpoints() {
    let (_, heads) = log();
    for head in heads {
        let own = Checkpoint::new("log.example/audit".parse().unwrap(), head).unwrap();
        for extensions in [vec![], vec!["one".to_owned(), "two".to_owned()]] {
            let own = own.clone().with_extensions(extensions).unwrap();
            let theirs = tlog_tiles::Checkpoint::new(
                "log.example/audit",
                head.size,
                self::theirs(&head.root),
                &own.extensions().iter().map(|line| format!("{line}\n")).collect::<String>(),
            )
            .unwrap();
            assert_eq!(theirs.to_bytes(), own.to_string().as_bytes());
            assert_eq!(Checkpoint::parse(std::str::from_utf8(&theirs.to_bytes()).unwrap()), Ok(own));
        }
    }
}
