//! An object of any kind that is far larger than its kind: a sparse file of two terabytes in a
//! directory, and servers that announce one length and send another. Each is a typed error that
//! names the kind, and takes no memory.

#![cfg(feature = "aws")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use strongroom::ErrorKind;
use strongroom::room::{KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages, limits, store_error};
use strongroom::system::SystemClock;

use common::{TestClock, access, local_kms, options, pattern};

const HUGE: u64 = 2 << 40;
/// Far less than what is announced, and more than a program takes that reads nothing of it.
const MEMORY: u64 = 300 << 20;

/// A path of each kind, by the storage that it is on.
const PATHS: [(&str, &str); 27] = [
    ("blobs", "wrap/a/b/c"),
    ("blobs", "name/a/b/c"),
    ("blobs", "once/a/b/00000000"),
    ("blobs", "clock"),
    ("blobs", "store"),
    ("blobs", "probe/2026-11/0"),
    ("keys", "ring/a/0000000000000001"),
    ("keys", "register/0000000000000001"),
    ("keys", "epoch/00000001"),
    ("keys", "session/a/b/open"),
    ("keys", "label/a"),
    ("keys", "store"),
    ("audit", "wal/0000/0000000000000000"),
    ("audit", "segment/0000/0-0-0-0"),
    ("audit", "base/0000/0000000000000001"),
    ("audit", "extract/0000/0000000000000001"),
    ("audit", "head/0000"),
    ("audit", "checkpoint"),
    ("audit", "tile/0/000"),
    ("audit", "shard/0001/checkpoint"),
    ("audit", "pin/a/0000000000000001"),
    ("audit", "certificate/a/final"),
    ("audit", "order/a/request"),
    ("audit", "epoch/00000001/end"),
    ("audit", "key/00000002"),
    ("audit", "store"),
    ("audit", "something/else"),
];

fn most_memory_in_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn sparse(path: &FilePath, bytes: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    File::create(path).unwrap().set_len(bytes).unwrap();
}

async fn on_directory(root: &FilePath) -> Storages {
    let urls = StorageUrls::new(StorageUrl::directory(root).unwrap());
    Storages::open(&urls, CreateRoot::Yes, Arc::new(SystemClock)).await.unwrap()
}

fn of<'a>(storages: &'a Storages, role: &str) -> &'a Arc<dyn ObjectStore> {
    match role {
        "blobs" => &storages.blobs,
        "keys" => &storages.keys,
        _ => &storages.audit,
    }
}

/// That reading it is refused by its kind.
async fn is_refused(storage: &Arc<dyn ObjectStore>, path: &Path) {
    let read = async { storage.get(path).await?.bytes().await }.await;
    let error = store_error(read.map(|bytes| bytes.len()).unwrap_err(), "read");
    assert_eq!(error.kind(), ErrorKind::Integrity, "{path}: {error:?}");
    let limit = limits::of(path);
    let said = error.chain();
    assert!(said.contains(limit.kind) && said.contains(&limit.bytes.to_string()), "{path}: {said}");
}

#[tokio::test]
async fn a_sparse_file_of_any_kind_is_refused_by_its_kind() {
    let home = tempfile::tempdir().unwrap();
    let storages = on_directory(home.path()).await;
    for (role, text) in PATHS {
        let (path, limit) = (Path::from(text), limits::of(&Path::from(text)));
        for bytes in [limit.bytes + 1, HUGE] {
            sparse(&home.path().join(role).join(text), bytes);
            is_refused(of(&storages, role), &path).await;
            let error =
                store_error(of(&storages, role).get_range(&path, 0..bytes).await.unwrap_err(), "read");
            assert_eq!(error.kind(), ErrorKind::Integrity, "{text}");
            // Its size can be asked for, and a part of it read.
            assert_eq!(of(&storages, role).head(&path).await.unwrap().size, bytes);
            assert_eq!(of(&storages, role).get_range(&path, 0..16).await.unwrap(), [0; 16].as_slice());
        }
        if limit.bytes <= 1 << 20 {
            sparse(&home.path().join(role).join(text), limit.bytes);
            let whole = of(&storages, role).get(&path).await.unwrap().bytes().await.unwrap();
            assert_eq!(whole.len() as u64, limit.bytes);
            // And what nobody could read is not written.
            let body = vec![0; usize::try_from(limit.bytes).unwrap() + 1];
            let new = Path::from(format!("{text}/new"));
            let put = of(&storages, role).put_opts(&new, body.into(), PutMode::Create.into()).await;
            assert_eq!(store_error(put.unwrap_err(), "write").kind(), ErrorKind::InvalidInput);
        }
    }
    assert!(most_memory_in_bytes() < MEMORY, "{}", most_memory_in_bytes());
}

/// Each object of a store in turn is as large as no object is.
#[tokio::test(flavor = "multi_thread")]
async fn no_object_of_a_store_ends_the_program() {
    let home = tempfile::tempdir().unwrap();
    let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
    let kms = || local_kms(home.path().join("kms"), &clock);
    let root = home.path().join("store");
    let key = || KeyChoice::New("local".into());
    let (room, _) =
        Strongroom::init(on_directory(&root).await, kms(), key(), &access(), options(&clock)).await.unwrap();
    let label = || "acme".parse().unwrap();
    room.add_customer(&access(), NewCustomer::new(label(), key())).await.unwrap();
    let acme = room.customer(&label(), access()).await.unwrap();
    let once = SealOptions::new().once("key".parse().unwrap());
    let blob = acme.seal(pattern(10_000), once).await.unwrap().id;
    acme.extend(blob, blob.day().plus(10)).await.unwrap();
    room.publish_log().await.unwrap();
    room.close().await.unwrap();
    drop((room, acme));

    let storages = on_directory(&root).await;
    let mut objects = Vec::new();
    for role in ["blobs", "keys", "audit"] {
        let listed: Vec<_> = of(&storages, role).list(None).try_collect().await.unwrap();
        objects.extend(listed.into_iter().map(|object| (role, object.location)));
    }
    assert!(objects.len() > 20, "{objects:?}");
    for (role, path) in objects {
        let file = root.join(role).join(path.as_ref());
        let kept = std::fs::read(&file).unwrap();
        sparse(&file, HUGE);
        let all = async {
            let mut options = options(&clock);
            options.log_deadline = Duration::from_secs(2);
            let room = Strongroom::open(on_directory(&root).await, kms(), options).await?;
            let acme = room.customer(&label(), access()).await?;
            acme.open(blob).await?.bytes(1 << 20).await?;
            acme.seal(pattern(10_000), SealOptions::new().once("key".parse().unwrap())).await?;
            let report = room.verify_log().await?;
            room.publish_log().await?;
            Ok::<_, strongroom::Error>(report)
        };
        let done = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
        if path.as_ref().starts_with("wrap/") || path.as_ref().starts_with("probe/") {
            assert!(done.is_ok(), "{path} is not needed: {done:?}");
        }
        if let Err(error) = &done {
            let fits = matches!(
                error.kind(),
                ErrorKind::Integrity | ErrorKind::Authentication | ErrorKind::AuditUnavailable
            );
            assert!(fits, "{role} {path}: {error:?}");
        }
        std::fs::write(&file, kept).unwrap();
    }
    assert!(most_memory_in_bytes() < MEMORY, "{}", most_memory_in_bytes());
}

/// How a server lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// It announces two terabytes, and begins to send them.
    Announced,
    /// It announces as much as was asked for, and sends without an end.
    Chunked,
    /// It announces nothing, and sends without an end.
    Endless,
}

/// A server of anything, for a storage on S3.
fn liar(lie: Lie, status: u16) -> Arc<dyn ObjectStore> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || answer(&stream, lie, status));
        }
    });
    let retry =
        RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(5), ..RetryConfig::default() };
    let bucket = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .with_endpoint(url)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(ClientOptions::new().with_allow_http(true).with_timeout_disabled())
        .with_http_connector(strongroom::store::answers::Limiting { objects: false })
        .with_retry(retry)
        .build()
        .unwrap();
    let bucket = Arc::new(bucket) as Arc<dyn ObjectStore>;
    let storages = Storages::from_cloud_parts(Arc::clone(&bucket), Arc::clone(&bucket), bucket);
    storages.keys
}

fn answer(mut stream: &TcpStream, lie: Lie, status: u16) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut ranged) = (String::new(), false);
    while reader.read_line(&mut line).ok()? > 2 {
        ranged |= line.to_lowercase().starts_with("range:");
        line.clear();
    }
    let status = if status == 200 && ranged { 206 } else { status };
    let length = match lie {
        Lie::Announced => format!("Content-Length: {HUGE}\r\n"),
        Lie::Chunked => "Content-Length-Was: 16\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        Lie::Endless => "Connection: close\r\n".to_owned(),
    };
    let range = match (ranged, lie) {
        (false, _) => String::new(),
        (true, Lie::Announced) => format!("Content-Range: bytes 0-{}/{HUGE}\r\n", HUGE - 1),
        (true, _) => "Content-Range: bytes 0-15/16\r\n".to_owned(),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nETag: \"x\"\r\nLast-Modified: Sun, 22 Nov 2026 02:26:13 GMT\r\n{length}{range}\r\n"
    );
    stream.write_all(head.as_bytes()).ok()?;
    let zeros = vec![b' '; 1 << 16];
    loop {
        if lie == Lie::Chunked {
            stream.write_all(b"10000\r\n").ok()?;
        }
        stream.write_all(&zeros).ok()?;
        if lie == Lie::Chunked {
            stream.write_all(b"\r\n").ok()?;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_lies_about_lengths_is_not_believed() {
    let path = Path::from("pin/a/0000000000000001");
    for lie in [Lie::Announced, Lie::Chunked, Lie::Endless] {
        let storage = liar(lie, 200);
        let all = async {
            if lie == Lie::Announced {
                is_refused(&storage, &path).await;
            }
            let read = async { storage.get(&path).await?.bytes().await }.await;
            read.map(|bytes| bytes.len()).unwrap_err();
            storage.get_range(&path, 0..16).await.map(|bytes| bytes.len()).unwrap_err();
            storage.list(None).try_collect::<Vec<_>>().await.unwrap_err();
            storage.list_with_delimiter(None).await.map(drop).unwrap_err();
            // What comes behind a confirmation is nothing that is waited for.
            let _ = storage.put_opts(&path, "x".into(), PutMode::Create.into()).await;
            let failing = liar(lie, 403);
            failing.get(&path).await.map(drop).unwrap_err();
            failing.put(&path, "x".into()).await.map(drop).unwrap_err();
            failing.list(None).try_collect::<Vec<_>>().await.unwrap_err();
        };
        tokio::time::timeout(Duration::from_secs(120), all).await.unwrap_or_else(|_| panic!("{lie:?} hangs"));
        assert!(most_memory_in_bytes() < MEMORY, "{lie:?}: {}", most_memory_in_bytes());
    }
}
