//! The transparency log of Go's checksum database, `golang.org/x/mod/sumdb`, against ours.
//!
//! Go judges what the library writes, and the library what Go writes: notes, checkpoints, tiles,
//! entry bundles and proofs. What was altered, both have to refuse. The Go of `tests/go` is built
//! with no network: `golang.org/x/mod` has to be in the GOPATH, where Debian's
//! `golang-golang-x-mod-dev` puts it.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use data_encoding::BASE64;
use serde_json::{Value, json};
use strongroom::merkle::{Hash, TreeHead, leaf_hash, verify_consistency, verify_inclusion};
use strongroom::secret::Secret;
use strongroom::time::Timestamp;
use strongroom::tlog::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use strongroom::tlog::note::NoteError;
use strongroom::tlog::tile::{Bundle, Tile, TileError, TilePath};
use strongroom::tlog::{NamedKey, SecretKey, TileBuilder, TiledTree, VerifierKey};

const SIZES: [u64; 16] = [0, 1, 2, 3, 7, 255, 256, 257, 300, 511, 512, 1000, 65_535, 65_536, 65_537, 70_000];

const ORIGIN: &str = "log.example/audit";

#[test]
fn go_accepts_what_the_library_wrote() {
    let Some(go) = Go::find() else { return };
    let home = tempfile::tempdir().unwrap();
    let (log, witness) = (key(ORIGIN, 1), key("witness.example", 2));
    let heads = write_log(&home.path().join("log"), &SIZES);

    let mut work = work(&log);
    work["private_key"] = json!(log.to_text().as_str());
    for head in &heads {
        // Go knows no cosignatures, and has to pass over the witness's line.
        let signed = signed(&log, *head, &[&witness]);
        assert!(signed.cosigned_by(&witness.cosigner()).unwrap().is_some());
        push(&mut work, "checkpoints", checkpoint(&home, &format!("{}.note", head.size), *head, 1, &signed));
        push(&mut work, "trees", tree("log", *head, true));
        let tiled = TiledTree::new(*head);
        for index in
            [0, 1, 255, 256, 257, head.size / 2, 65_535, 65_536].into_iter().chain(head.size.checked_sub(1))
        {
            if index < head.size {
                let tiles = load(&home.path().join("log"), &tiled.inclusion_tiles(index).unwrap());
                let proof = tiled.prove_inclusion(index, from(&tiles)).unwrap();
                push(&mut work, "inclusions", inclusion(*head, index, proof.leaf, &proof.path, true));
            }
        }
        for old in heads.iter().filter(|old| 0 < old.size && old.size <= head.size) {
            let tiles = load(&home.path().join("log"), &tiled.consistency_tiles(old.size).unwrap());
            let proof = tiled.prove_consistency(old.size, from(&tiles)).unwrap();
            assert_eq!(proof.old, *old);
            push(&mut work, "consistencies", consistency(*head, *old, &proof.proof, true));
        }
    }
    let paths = Tile::all(70_000).chain([
        Tile::new(0, 1_234_067, 256).unwrap(),
        Tile::new(5, 1_234_067_000, 12).unwrap(),
        Tile::new(63, 999, 255).unwrap(),
    ]);
    for tile in paths {
        let (path, width) = (tile.to_string(), tile.width());
        push(
            &mut work,
            "paths",
            json!({ "path": path, "level": tile.level(), "index": tile.index(), "width": width }),
        );
    }
    for bundle in Bundle::all(70_000) {
        let (path, width) = (bundle.to_string(), bundle.width());
        push(
            &mut work,
            "paths",
            json!({ "path": path, "level": -1, "index": bundle.index(), "width": width }),
        );
    }
    go.agrees(&home, &work);
}

#[test]
fn go_refuses_what_was_altered_and_so_does_the_library() {
    let Some(go) = Go::find() else { return };
    let home = tempfile::tempdir().unwrap();
    let (log, witness) = (key(ORIGIN, 1), key("witness.example", 2));
    let heads = write_log(&home.path().join("log"), &[300, 600]);
    let (old, head) = (heads[0], heads[1]);
    let mut work = work(&log);

    altered_checkpoints(&home, &mut work, head, &log, &witness);
    altered_proofs(&home, &mut work, old, head);
    altered_tiles(&home, &mut work, head);
    go.agrees(&home, &work);
}

fn altered_checkpoints(
    home: &tempfile::TempDir,
    work: &mut Value,
    head: TreeHead,
    log: &NamedKey,
    witness: &NamedKey,
) {
    let good = signed(log, head, &[witness]).to_string();
    let line = |number: usize| good.lines().nth(number).unwrap();
    // The blank line, the log's line and the witness's line are lines 3, 4 and 5.
    let other = signed(&key(ORIGIN, 3), head, &[]).to_string();
    let elsewhere = signed(&key("elsewhere.example", 1), head, &[]).to_string();
    for (number, bad) in [
        good.replace("\n600\n", "\n601\n"),
        good.replace("\n600\n", "\n0600\n"),
        good.replace(line(2), &BASE64.encode(Hash::ZERO.as_bytes())),
        good.replace(ORIGIN, "log.example/other"),
        good.replace(&format!("{}\n", line(4)), ""),
        good.replace(line(4), &alter_last(line(4))),
        good.replace("\n\n", "\n"),
        good.replace('\u{2014}', "-"),
        good.trim_end().to_owned(),
        format!("{good}\n"),
        good.replace("\n600\n", "\r\n600\n"),
        other,
        elsewhere,
    ]
    .iter()
    .enumerate()
    {
        let believed = SignedCheckpoint::parse(bad.as_bytes())
            .and_then(|signed| Ok(*signed.verify(&log.verifier())?.head()));
        assert!(believed.is_err(), "{number}");
        let file = format!("bad-{number}.note");
        fs::write(home.path().join(&file), bad).unwrap();
        let bad = json!({ "file": file, "size": head.size, "root": base64(&head.root), "unknown": 1, "good": false });
        push(work, "checkpoints", bad);
    }

    // A false cosignature is nothing to Go, which knows no witness. To us it is.
    let bad = good.replace(line(5), &alter_last(line(5)));
    let signed = SignedCheckpoint::parse(bad.as_bytes()).unwrap();
    assert!(signed.verify(&log.verifier()).is_ok());
    let refused = Err(CheckpointError::Note(NoteError::Signature));
    assert_eq!(signed.cosigned_by(&witness.cosigner()), refused);
    push(work, "checkpoints", checkpoint(home, "bad-witness.note", head, 1, &signed));
}

fn altered_proofs(home: &tempfile::TempDir, work: &mut Value, old: TreeHead, head: TreeHead) {
    let tiled = TiledTree::new(head);
    let directory = home.path().join("log");
    let tiles = load(&directory, &tiled.inclusion_tiles(400).unwrap());
    let proof = tiled.prove_inclusion(400, from(&tiles)).unwrap();
    let mut bad = vec![(401, proof.leaf, proof.path.clone()), (400, Hash::ZERO, proof.path.clone())];
    bad.extend(altered_lists(&proof.path).map(|path| (400, proof.leaf, path)));
    for (index, leaf, path) in bad {
        assert!(verify_inclusion(leaf, index, &path, &head).is_err());
        push(work, "inclusions", inclusion(head, index, leaf, &path, false));
    }

    let tiles = load(&directory, &tiled.consistency_tiles(300).unwrap());
    let proof = tiled.prove_consistency(300, from(&tiles)).unwrap().proof;
    let mut bad = vec![
        (TreeHead { size: 301, ..old }, proof.clone()),
        (TreeHead { root: Hash::ZERO, ..old }, proof.clone()),
    ];
    bad.extend(altered_lists(&proof).map(|proof| (old, proof)));
    for (old, proof) in bad {
        assert!(verify_consistency(&old, &head, &proof).is_err());
        push(work, "consistencies", consistency(head, old, &proof, false));
    }
}

/// Each hash changed, one left out, one more, and all the other way round.
fn altered_lists(hashes: &[Hash]) -> impl Iterator<Item = Vec<Hash>> {
    let change =
        |at: usize| hashes.iter().enumerate().map(move |(i, hash)| if i == at { Hash::ZERO } else { *hash });
    let changed = (0..hashes.len()).map(move |at| change(at).collect());
    let others =
        [hashes[1..].to_vec(), [hashes, &[Hash::ZERO]].concat(), hashes.iter().rev().copied().collect()];
    changed.chain(others)
}

/// A tree of which one file at a time is damaged, gone, or too long.
fn altered_tiles(home: &tempfile::TempDir, work: &mut Value, head: TreeHead) {
    for (number, file) in files(head.size).into_iter().enumerate() {
        let good = fs::read(home.path().join("log").join(&file)).unwrap();
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let longer = [good.as_slice(), &[0]].concat();
        for (how, bytes) in [Some(flipped), Some(longer), None].into_iter().enumerate() {
            let name = format!("bad-{number}-{how}");
            let directory = home.path().join(&name);
            for other in files(head.size) {
                copy(&home.path().join("log").join(&other), &directory.join(&other));
            }
            match bytes {
                Some(bytes) => fs::write(directory.join(&file), bytes).unwrap(),
                None => fs::remove_file(directory.join(&file)).unwrap(),
            }
            assert!(read_tree(&directory, head).is_err(), "{file} {how}");
            push(work, "trees", tree(&name, head, false));
        }
    }
    assert_eq!(read_tree(&home.path().join("log"), head), Ok(()));
    push(work, "trees", tree("log", TreeHead { root: Hash::ZERO, ..head }, false));
}

#[test]
fn the_library_accepts_what_go_wrote() {
    let Some(go) = Go::find() else { return };
    let home = tempfile::tempdir().unwrap();
    let mut work = work(&key(ORIGIN, 1));
    let unknown = |size: u64| TreeHead { size, root: Hash::ZERO };
    for (at, size) in SIZES.into_iter().enumerate() {
        let file = format!("{size}.note");
        push(
            &mut work,
            "checkpoints",
            json!({ "file": file, "size": size, "root": base64(&Hash::ZERO), "unknown": 0, "good": true }),
        );
        for index in (0..size).step_by(usize::try_from(size / 7).unwrap().max(1)) {
            push(&mut work, "inclusions", inclusion(unknown(size), index, Hash::ZERO, &[], true));
        }
        for old in SIZES[..=at].iter().filter(|old| **old > 0) {
            push(&mut work, "consistencies", consistency(unknown(size), unknown(*old), &[], true));
        }
    }
    let (inclusions, consistencies) = (length(&work, "inclusions"), length(&work, "consistencies"));
    write_work(&home, &work);
    go.run("make", &home);
    let work: Value = serde_json::from_slice(&fs::read(home.path().join("work.json")).unwrap()).unwrap();

    // The keys.
    let own = NamedKey::parse(work["private_key"].as_str().unwrap()).unwrap();
    let verifier: VerifierKey = work["verifier_key"].as_str().unwrap().parse().unwrap();
    assert_eq!(own.verifier(), verifier);
    assert_eq!(own.to_text().as_str(), work["private_key"].as_str().unwrap());
    assert_eq!(verifier.to_string(), work["verifier_key"].as_str().unwrap());

    // The checkpoints: to the byte those that the library makes with the same key.
    let mut heads = BTreeMap::new();
    for checkpoint in work["checkpoints"].as_array().unwrap() {
        let bytes = fs::read(home.path().join(checkpoint["file"].as_str().unwrap())).unwrap();
        let signed = SignedCheckpoint::parse(&bytes).unwrap();
        let head = *signed.verify(&verifier).unwrap().head();
        assert_eq!(head.size, checkpoint["size"].as_u64().unwrap());
        assert_eq!(base64(&head.root), checkpoint["root"].as_str().unwrap());
        assert_eq!(self::signed(&own, head, &[]).to_string().as_bytes(), bytes);
        assert!(signed.verify(&key(ORIGIN, 1).verifier()).is_err());
        heads.insert(head.size, head);
    }
    assert!(heads.keys().eq(&SIZES));

    // The tiles: to the byte, and to the file, those that the library writes.
    let ours = home.path().join("ours");
    assert_eq!(write_log(&ours, &SIZES), heads.values().copied().collect::<Vec<_>>());
    let tiles: BTreeSet<Tile> = SIZES.into_iter().flat_map(Tile::all).collect();
    for tile in &tiles {
        let read = |home: &Path| fs::read(home.join(tile.to_string())).unwrap();
        assert!(read(&home.path().join("log")) == read(&ours), "{tile}");
    }
    assert_eq!(count_files(&home.path().join("log")), tiles.len());
    for head in heads.values() {
        let tiles = load(&home.path().join("log"), &TileBuilder::needed(head.size).collect::<Vec<_>>());
        assert_eq!(TileBuilder::resume(head, from(&tiles)).unwrap().head(), *head);
    }

    // The proofs.
    let hashes = |value: &Value| value.as_array().unwrap().iter().map(unbase64).collect::<Vec<Hash>>();
    let head = |value: &Value| heads[&value.as_u64().unwrap()];
    let log = home.path().join("log");
    assert_eq!(length(&work, "inclusions"), inclusions);
    for proof in work["inclusions"].as_array().unwrap() {
        let (head, index) = (head(&proof["size"]), proof["index"].as_u64().unwrap());
        let (leaf, path) = (unbase64(&proof["leaf"]), hashes(&proof["path"]));
        assert_eq!(verify_inclusion(leaf, index, &path, &head), Ok(()));
        let tiled = TiledTree::new(head);
        let tiles = load(&log, &tiled.inclusion_tiles(index).unwrap());
        let own = tiled.prove_inclusion(index, from(&tiles)).unwrap();
        assert_eq!((own.leaf, own.path), (leaf, path));
    }
    assert_eq!(length(&work, "consistencies"), consistencies);
    for proof in work["consistencies"].as_array().unwrap() {
        let (new, old, hashes) = (head(&proof["size"]), head(&proof["old_size"]), hashes(&proof["proof"]));
        assert_eq!(verify_consistency(&old, &new, &hashes), Ok(()));
        let tiled = TiledTree::new(new);
        let tiles = load(&log, &tiled.consistency_tiles(old.size).unwrap());
        let own = tiled.prove_consistency(old.size, from(&tiles)).unwrap();
        assert_eq!((own.old, own.proof), (old, hashes));
    }
}

fn key(name: &str, seed: u8) -> NamedKey {
    NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
}

fn signed(log: &NamedKey, head: TreeHead, witnesses: &[&NamedKey]) -> SignedCheckpoint {
    let checkpoint = Checkpoint::new(log.name().clone().into(), head).unwrap();
    let at = Timestamp::from_micros(1_700_000_000_000_000).unwrap();
    let signature = log.sign(&checkpoint.to_string());
    let mut signed = SignedCheckpoint::new(checkpoint.clone(), vec![signature]).unwrap();
    witnesses.iter().for_each(|witness| signed.add(witness.cosign(&checkpoint, at)).unwrap());
    signed
}

/// A signature line with the last byte of the signature another.
fn alter_last(line: &str) -> String {
    let (start, base64) = line.rsplit_once(' ').unwrap();
    let mut bytes = BASE64.decode(base64.as_bytes()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    format!("{start} {}", BASE64.encode(&bytes))
}

fn entry(number: u64) -> Hash {
    Hash::of(&number.to_be_bytes())
}

/// Writes the tiles and bundles of a log that grows to each size in turn, and that starts each
/// time from what it finds in the directory. Gives the tree heads.
fn write_log(directory: &Path, sizes: &[u64]) -> Vec<TreeHead> {
    let mut head = TileBuilder::new().head();
    let mut heads = Vec::new();
    for size in sizes {
        let edge = load(directory, &TileBuilder::needed(head.size).collect::<Vec<_>>());
        let mut builder = TileBuilder::resume(&head, from(&edge)).unwrap();
        let mut written = BTreeSet::new();
        let mut write_tile = |tile: Tile, hashes: &[Hash]| {
            write(&directory.join(tile.to_string()), &Tile::encode(hashes));
            written.insert(tile);
        };
        for number in head.size..*size {
            for (tile, hashes) in builder.push(leaf_hash(entry(number).as_bytes())) {
                write_tile(tile, &hashes);
            }
        }
        builder.partial().for_each(|(tile, hashes)| write_tile(tile, hashes));
        assert!(Tile::between(head.size, *size).all(|tile| written.contains(&tile)));
        assert!(written.iter().all(|tile| Tile::all(*size).any(|other| other == *tile)));
        for bundle in Bundle::between(head.size, *size) {
            let first = bundle.index() * 256;
            let entries = (first..first + u64::from(bundle.width())).map(|number| *entry(number).as_bytes());
            write(&directory.join(bundle.to_string()), &Bundle::encode(entries).unwrap());
        }
        head = builder.head();
        heads.push(head);
    }
    heads
}

/// Reads a whole tree as an auditor does: hashes the entries, and compares every tile.
fn read_tree(directory: &Path, head: TreeHead) -> Result<(), TileError> {
    let read = |path: TilePath| fs::read(directory.join(path.to_string())).map_err(|_| TileError::Path);
    let mut builder = TileBuilder::new();
    let mut tiles = BTreeMap::new();
    for bundle in Bundle::all(head.size) {
        for entry in bundle.decode(&read(TilePath::Bundle(bundle))?)? {
            tiles.extend(builder.push(leaf_hash(entry)));
        }
    }
    tiles.extend(builder.partial().map(|(tile, hashes)| (tile, hashes.to_vec())));
    let same = Tile::all(head.size)
        .map(|tile| Ok(tile.decode(&read(TilePath::Tile(tile))?)? == tiles[&tile]))
        .collect::<Result<Vec<bool>, TileError>>()?;
    if builder.head() == head && !same.contains(&false) { Ok(()) } else { Err(TileError::Mismatch) }
}

/// The files of a tree: tiles and bundles.
fn files(size: u64) -> Vec<String> {
    let tiles = Tile::all(size).map(|tile| tile.to_string());
    tiles.chain(Bundle::all(size).map(|bundle| bundle.to_string())).collect()
}

fn count_files(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { count_files(&path) } else { 1 }).sum()
}

type Tiles = BTreeMap<Tile, Vec<Hash>>;

fn load(directory: &Path, tiles: &[Tile]) -> Tiles {
    let read = |tile: &Tile| fs::read(directory.join(tile.to_string())).unwrap();
    tiles.iter().map(|tile| (*tile, tile.decode(&read(tile)).unwrap())).collect()
}

fn from<'a>(tiles: &'a Tiles) -> impl Fn(&Tile) -> Option<&'a [Hash]> {
    |tile| tiles.get(tile).map(Vec::as_slice)
}

fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn copy(file: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(file, to).unwrap();
}

fn base64(hash: &Hash) -> String {
    BASE64.encode(hash.as_bytes())
}

fn unbase64(text: &Value) -> Hash {
    Hash::from_bytes(BASE64.decode(text.as_str().unwrap().as_bytes()).unwrap().try_into().unwrap())
}

fn work(log: &NamedKey) -> Value {
    json!({
        "private_key": "",
        "verifier_key": log.verifier(),
        "origin": ORIGIN,
        "checkpoints": [],
        "trees": [],
        "inclusions": [],
        "consistencies": [],
        "paths": [],
    })
}

fn push(work: &mut Value, kind: &str, item: Value) {
    work[kind].as_array_mut().unwrap().push(item);
}

fn length(work: &Value, kind: &str) -> usize {
    work[kind].as_array().unwrap().len()
}

fn write_work(home: &tempfile::TempDir, work: &Value) {
    fs::write(home.path().join("work.json"), work.to_string()).unwrap();
}

/// Writes a checkpoint that Go has to accept.
fn checkpoint(
    home: &tempfile::TempDir,
    file: &str,
    head: TreeHead,
    unknown: usize,
    signed: &SignedCheckpoint,
) -> Value {
    fs::write(home.path().join(file), signed.to_string()).unwrap();
    json!({ "file": file, "size": head.size, "root": base64(&head.root), "unknown": unknown, "good": true })
}

fn tree(directory: &str, head: TreeHead, good: bool) -> Value {
    json!({ "directory": directory, "size": head.size, "root": base64(&head.root), "good": good })
}

fn inclusion(head: TreeHead, index: u64, leaf: Hash, path: &[Hash], good: bool) -> Value {
    let path: Vec<String> = path.iter().map(base64).collect();
    let (root, leaf) = (base64(&head.root), base64(&leaf));
    json!({ "size": head.size, "root": root, "index": index, "leaf": leaf, "path": path, "good": good })
}

fn consistency(head: TreeHead, old: TreeHead, proof: &[Hash], good: bool) -> Value {
    json!({
        "size": head.size,
        "root": base64(&head.root),
        "old_size": old.size,
        "old_root": base64(&old.root),
        "proof": proof.iter().map(base64).collect::<Vec<_>>(),
        "good": good,
    })
}

/// The program of `tests/go`, built.
struct Go(PathBuf);

impl Go {
    /// `None` where there is no Go, or not the package, unless that is not allowed.
    fn find() -> Option<Self> {
        static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
        BUILT.get_or_init(Self::build).clone().map(Self)
    }

    fn build() -> Option<PathBuf> {
        let package = "golang.org/x/mod/sumdb/tlog";
        let found = Self::command().args(["list", package]).output();
        if !found.is_ok_and(|found| found.status.success()) {
            let required = std::env::var_os("STRONGROOM_TEST_REQUIRE_GO").is_some_and(|value| value == "1");
            assert!(!required, "there is no go with {package}, and STRONGROOM_TEST_REQUIRE_GO=1");
            eprintln!("NOT RUN: the comparison with Go's log needs go, and {package} in its GOPATH");
            return None;
        }
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-reference");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/go/main.go");
        let built = Self::command().args(["build", "-o"]).arg(&program).arg(source).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(program)
    }

    /// Go without modules, so without a download.
    fn command() -> Command {
        let mut command = Command::new("go");
        let path = std::env::var_os("GOPATH").unwrap_or_else(|| "/usr/share/gocode".into());
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
        command.env("GO111MODULE", "off").env("GOPATH", path).env("GOCACHE", cache).env_remove("GOFLAGS");
        command
    }

    fn run(&self, what: &str, home: &tempfile::TempDir) -> Output {
        let output = Command::new(&self.0).arg(what).arg(home.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Go comes to the verdict that `work` expects on every item in it.
    fn agrees(&self, home: &tempfile::TempDir, work: &Value) {
        write_work(home, work);
        let counts: Value = serde_json::from_slice(&self.run("check", home).stdout).unwrap();
        for kind in ["checkpoints", "trees", "inclusions", "consistencies", "paths"] {
            let judged = counts.get(kind).and_then(Value::as_u64).unwrap_or(0);
            assert_eq!(judged, length(work, kind) as u64, "{kind}");
        }
    }
}
