//! That memory is bounded by the pipeline and not by the blob.
//!
//! Each case runs in a process of its own, because the most that a process ever
//! held is asked of the system and never goes down.

use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{KeyChoice, NewCustomer, Options, SealOptions, Source, Strongroom};
use strongroom::store::{CreateRoot, StorageKind, StorageUrl, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};

#[path = "common/signer.rs"]
mod signer;
use signer::signer;

const MIB: u64 = 1 << 20;
/// Far more than may be held.
const LENGTH: u64 = 2048 * MIB;
const LIMIT: u64 = 64 * MIB;
/// Set for the child: which case, and where.
const CASE: &str = "STRONGROOM_TEST_MEMORY_CASE";
const DIRECTORY: &str = "STRONGROOM_TEST_MEMORY_DIRECTORY";

/// As many bytes as said, each 4 KiB another.
struct Generated {
    at: u64,
    end: u64,
}

const BLOCK: usize = 4096;

impl Read for Generated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let count = buffer.len().min(left).min(BLOCK - usize::try_from(self.at).unwrap_or(0) % BLOCK);
        buffer[..count].fill(block_byte(self.at));
        self.at += count as u64;
        Ok(count)
    }
}

fn block_byte(at: u64) -> u8 {
    (at / BLOCK as u64 % 251).to_le_bytes()[0]
}

fn most_memory_in_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it has this line");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

async fn storages(kind: StorageKind, root: &Path) -> Storages {
    if kind == StorageKind::Local {
        let urls = StorageUrls::new(StorageUrl::directory(root).unwrap());
        return Storages::open(&urls, CreateRoot::Yes, Arc::new(SystemClock)).await.unwrap();
    }
    // In parts that grow, as for a bucket.
    let folder = |name: &str| {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Arc::new(LocalFileSystem::new_with_prefix(folder).unwrap()) as Arc<dyn ObjectStore>
    };
    Storages::from_parts(folder("blobs"), folder("keys"), folder("audit"))
}

/// Seals a long stream or opens it, and prints the most memory that took.
async fn case(kind: StorageKind, does: &str, directory: &Path) {
    let access = Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration);
    let kms = InsecureLocalKms::open(directory.join("kms"), Arc::new(SystemClock), Arc::new(SystemEntropy));
    let registry = KmsRegistry::new().with(Arc::new(kms.unwrap()));
    let storages = storages(kind, &directory.join("store")).await;
    assert_eq!(storages.kind(), kind);
    let key = KeyChoice::New("local".into());
    let (room, made) =
        Strongroom::init(storages, registry, key, &access, Options::new(signer())).await.unwrap();
    if made {
        let new = NewCustomer::new("acme".parse().unwrap(), KeyChoice::New("local".into()));
        room.add_customer(&access, new).await.unwrap();
    }
    let acme = room.customer(&"acme".parse().unwrap(), access).await.unwrap();
    match does {
        "seal" => {
            let blocking = Source::blocking(Generated { at: 0, end: LENGTH });
            let sealed = acme.seal(blocking, SealOptions::new()).await.unwrap();
            assert_eq!(sealed.bytes, LENGTH);
        }
        "open" => {
            let blob = acme.list().try_next().await.unwrap().unwrap().id;
            let mut stream = acme.open(blob).await.unwrap().into_stream();
            let (mut at, mut rested) = (0, 0);
            while let Some(piece) = stream.try_next().await.unwrap() {
                let (first, last) = (piece[0], piece[piece.len() - 1]);
                assert_eq!((first, last), (block_byte(at), block_byte(at + piece.len() as u64 - 1)));
                at += piece.len() as u64;
                // A slow reader: whatever is fetched ahead piles up.
                if at - rested > 64 * MIB {
                    rested = at;
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            }
            assert_eq!(at, LENGTH);
        }
        other => panic!("{other}"),
    }
    room.close().await.unwrap();
    println!("most memory in bytes: {}", most_memory_in_bytes());
}

fn in_children(kind: &str) {
    let directory = tempfile::tempdir().unwrap();
    for does in ["seal", "open"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "child"])
            .env(CASE, format!("{kind} {does}"))
            .env(DIRECTORY, directory.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{text}{}", String::from_utf8_lossy(&child.stderr));
        let said =
            text.lines().find_map(|line| line.split_once("most memory in bytes: ")).expect("it says so");
        let most: u64 = said.1.trim().parse().unwrap();
        println!("{kind}: {} MiB to {does} {} MiB", most / MIB, LENGTH / MIB);
        assert!(most < LIMIT, "{kind}: {} MiB to {does}", most / MIB);
    }
}

#[test]
#[ignore = "the other side of the tests beside it"]
fn child() {
    let (Ok(case_name), Some(directory)) = (std::env::var(CASE), std::env::var_os(DIRECTORY)) else { return };
    let (kind, does) = case_name.split_once(' ').unwrap();
    let kind = if kind == "local" { StorageKind::Local } else { StorageKind::Cloud };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(case(kind, does, Path::new(&directory)));
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "memory is asked of /proc")]
fn a_long_stream_into_a_directory_takes_little_memory() {
    in_children("local");
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "memory is asked of /proc")]
fn a_long_stream_in_parts_takes_little_memory() {
    in_children("cloud");
}
