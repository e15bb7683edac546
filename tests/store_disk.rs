//! What becomes of a store in a directory whose disk fails: at each call, in each way, and then the
//! power fails. Nothing that was acknowledged is lost, nothing is torn, and the log verifies.

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::fs;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use disk::{Call, Fault, FaultDisk};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use strongroom::Result;
use strongroom::id::BlobId;
use strongroom::kms::KmsRegistry;
use strongroom::room::{KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::store::Storages;
use strongroom::store::directory::{Directory, SystemDisk};
use strongroom::store::upload::{BlobWriter, PartPlan};

use common::{TestClock, access, local_kms, options, pattern};

const SHORT: usize = 10_000;
/// More than a part.
const LONG: usize = 9 << 20;

/// What happens to a call: by the number that is failed, its own number, and what it is.
type Choose = fn(u64, u64, Call) -> Option<Fault>;

/// How the disk fails, from the `k`-th call on.
const FAILURES: [(&str, Choose); 7] = [
    ("fails once", |k, at, _| (at == k).then_some(Fault::Fails)),
    ("fails once, behind the effect", |k, at, _| (at == k).then_some(Fault::FailsAfter)),
    ("is full once", |k, at, _| (at == k).then_some(Fault::Full)),
    ("writes less", |k, at, _| (at >= k).then_some(Fault::Short)),
    ("forces no directory three times", |k, at, call| {
        (call == Call::ForceDirectory && (k..k + 12).contains(&at)).then_some(Fault::Fails)
    }),
    ("forces no directory any more", |k, at, call| {
        (call == Call::ForceDirectory && at >= k).then_some(Fault::Fails)
    }),
    ("fails from then on", |k, at, _| (at >= k).then_some(Fault::Fails)),
];

fn copy(from: &FilePath, to: &FilePath) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.is_dir() {
            copy(&entry, &to);
        } else {
            fs::copy(&entry, &to).unwrap();
        }
    }
}

fn storages(root: &FilePath, disk: &Arc<impl strongroom::store::directory::Disk>) -> Storages {
    let open = |role: &str| {
        let path = root.join(role);
        fs::create_dir_all(&path).unwrap();
        Arc::new(Directory::on(&path, disk.clone()).unwrap()) as Arc<dyn ObjectStore>
    };
    Storages::from_parts(open("blobs"), open("keys"), open("audit"))
}

/// A store with a customer and a blob, in a directory that is copied for each run.
struct Template {
    home: tempfile::TempDir,
    clock: Arc<TestClock>,
    blob: BlobId,
}

impl Template {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let clock = TestClock::at("2026-11-22T02:26:13.000000Z");
        let kms = local_kms(home.path().join("kms"), &clock);
        let storages = storages(&home.path().join("store"), &Arc::new(SystemDisk));
        let key = KeyChoice::New("local".into());
        let (room, _) = Strongroom::init(storages, kms, key, &access(), options(&clock)).await.unwrap();
        add(&room, "acme").await.unwrap();
        let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
        let blob = acme.seal(pattern(SHORT), SealOptions::new()).await.unwrap().id;
        room.close().await.unwrap();
        Self { home, clock, blob }
    }

    fn kms(&self) -> KmsRegistry {
        local_kms(self.home.path().join("kms"), &self.clock)
    }

    async fn open(&self, storages: Storages) -> Result<Strongroom> {
        Strongroom::open(storages, self.kms(), options(&self.clock)).await
    }

    /// For work on a disk that fails: it gives up soon.
    async fn open_hasty(&self, storages: Storages) -> Result<Strongroom> {
        let mut hasty = options(&self.clock);
        hasty.log_deadline = Duration::from_millis(400);
        match Strongroom::open(storages.clone(), self.kms(), hasty).await {
            // The machine is busy, and nothing has failed yet.
            Err(_) => self.open(storages).await,
            opened => opened,
        }
    }
}

async fn add(room: &Strongroom, label: &str) -> Result<()> {
    let new = NewCustomer::new(label.parse().unwrap(), KeyChoice::New("local".into()));
    room.add_customer(&access(), new).await.map(drop)
}

/// Something that is done, and what is acknowledged of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Seal(usize),
    AddCustomer,
}

#[derive(Debug)]
enum Acknowledged {
    Blob(BlobId, usize),
    Customer,
}

impl Work {
    async fn run(self, room: &Strongroom) -> Result<Acknowledged> {
        match self {
            Self::Seal(length) => {
                let acme = room.customer(&"acme".parse().unwrap(), access()).await?;
                let sealed = acme.seal(pattern(length), SealOptions::new()).await?;
                Ok(Acknowledged::Blob(sealed.id, length))
            }
            Self::AddCustomer => add(room, "globex").await.map(|()| Acknowledged::Customer),
        }
    }
}

/// Does the work on a disk that fails so, and again when the disk is well, and cuts the power behind
/// the first or the second. Returns how many calls it took.
async fn run(template: &Template, work: Work, failure: Option<(&str, u64, Choose)>, again: bool) -> u64 {
    let what = format!("{work:?}, {:?}, again {again}", failure.map(|(name, k, _)| (name, k)));
    let scratch = tempfile::tempdir().unwrap();
    let (root, after) = (scratch.path().join("store"), scratch.path().join("after"));
    copy(&template.home.path().join("store"), &root);
    let disk = FaultDisk::new(&root);
    let mut acknowledged = vec![Acknowledged::Blob(template.blob, SHORT)];

    let storages_now = storages(&root, &Arc::new(disk.clone()));
    let room = match failure {
        Some((_, k, choose)) => {
            let room = template.open_hasty(storages_now).await.unwrap();
            disk.fail(move |at, call| choose(k, at, call));
            room
        }
        None => {
            let room = template.open(storages_now).await.unwrap();
            disk.heal();
            room
        }
    };
    let done = work.run(&room).await;
    let calls = disk.calls();
    assert!(failure.is_some() || done.is_ok(), "{what}: {done:?}");
    acknowledged.extend(done);
    if again {
        disk.heal();
        match work.run(&room).await {
            Ok(done) => acknowledged.push(done),
            // It is there already, or its log has given up: then a program starts anew.
            Err(_) => {
                drop(room);
                let room = template.open(storages(&root, &Arc::new(disk.clone()))).await;
                let room = room.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                match work.run(&room).await {
                    Ok(done) => acknowledged.push(done),
                    Err(error) => assert_eq!(work, Work::AddCustomer, "{what}: {error:?}"),
                }
            }
        }
    }
    fs::create_dir_all(&after).unwrap();
    disk.crash(&after);

    let room = template.open(storages(&after, &Arc::new(SystemDisk))).await;
    let room = room.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
    for acknowledged in &acknowledged {
        match acknowledged {
            Acknowledged::Blob(id, length) => {
                let opened = acme.open(*id).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                assert!(opened.bytes(LONG).await.unwrap() == pattern(*length), "{what}");
            }
            Acknowledged::Customer => {
                let found = room.customer(&"globex".parse().unwrap(), access()).await;
                let globex = found.unwrap_or_else(|error| panic!("{what}: {error:?}"));
                globex.seal(pattern(1), SealOptions::new()).await.unwrap();
            }
        }
    }
    // What is there is whole, acknowledged or not.
    let listed: Vec<_> = acme.list().try_collect().await.unwrap();
    for blob in listed {
        let opened = acme.open(blob.id).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        opened.bytes(LONG).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    let report = room.verify_log().await.unwrap();
    assert!(report.is_ok(), "{what}: {:#?}", report.findings);
    calls
}

/// Every `steps`-th call, of each failure others.
async fn whichever_call_fails(work: Work, steps: usize) {
    let template = Template::new().await;
    let calls = run(&template, work, None, false).await;
    assert!(calls > 20, "{calls}");
    for (number, (name, choose)) in (1..).zip(FAILURES) {
        for k in (number..=calls).step_by(steps) {
            for again in [false, true] {
                run(&template, work, Some((name, k, choose)), again).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_blob_is_on_the_disk_whichever_call_fails() {
    whichever_call_fails(Work::Seal(SHORT), 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_blob_is_on_the_disk_whichever_call_fails() {
    whichever_call_fails(Work::Seal(LONG), 13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ring_and_its_pin_are_on_the_disk_whichever_call_fails() {
    whichever_call_fails(Work::AddCustomer, 11).await;
}

/// One object, on a disk of its own.
struct One {
    _home: tempfile::TempDir,
    root: std::path::PathBuf,
    disk: FaultDisk,
    store: Directory,
}

impl One {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().join("root");
        fs::create_dir(&root).unwrap();
        let disk = FaultDisk::new(&root);
        let store = Directory::on(&root, Arc::new(disk.clone())).unwrap();
        Self { _home: home, root, disk, store }
    }

    async fn create(&self, body: &'static str) -> object_store::Result<object_store::PutResult> {
        self.store.put_opts(&path(), body.into(), PutMode::Create.into()).await
    }

    /// What another program finds after a power failure.
    async fn after_crash(&self) -> Option<Bytes> {
        let after = tempfile::tempdir().unwrap();
        self.disk.crash(after.path());
        let found = Directory::open(after.path()).unwrap().get(&path()).await.ok()?;
        Some(found.bytes().await.unwrap())
    }
}

fn path() -> Path {
    Path::from("a/b/object")
}

fn no_directory(_: u64, call: Call) -> Option<Fault> {
    (call == Call::ForceDirectory).then_some(Fault::Fails)
}

#[tokio::test]
async fn a_directory_that_cannot_be_forced_is_no_success() {
    let one = One::new();
    one.store.put(&Path::from("a/b/other"), "x".into()).await.unwrap();
    one.disk.fail(no_directory);
    let error = one.create("body").await.unwrap_err();
    assert!(!matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
    // It is visible, and nobody may go by it: not the program that wrote it, nor another.
    assert!(one.root.join("a/b/object").exists());
    one.store.get(&path()).await.unwrap_err();
    let another = Directory::on(&one.root, Arc::new(one.disk.clone())).unwrap();
    another.head(&path()).await.unwrap_err();
    let error = one.create("another").await.unwrap_err();
    assert!(!matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
    // The disk is well again: whoever reads it first sees to it that it is there.
    one.disk.heal();
    assert_eq!(another.get(&path()).await.unwrap().bytes().await.unwrap(), "body");
    assert_eq!(fs::read_dir(one.root.join("a/b")).unwrap().count(), 2, "no mark is left");
    let error = one.create("another").await.unwrap_err();
    assert!(matches!(error, object_store::Error::AlreadyExists { .. }), "{error}");
    assert_eq!(one.after_crash().await.unwrap(), "body");
}

#[tokio::test]
async fn a_directory_that_is_forced_again_is_written_again() {
    for k in 1..=2 {
        let one = One::new();
        one.store.put(&Path::from("a/b/other"), "x".into()).await.unwrap();
        let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
        one.disk.fail(move |_, call| {
            let failed =
                call == Call::ForceDirectory && seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < k;
            failed.then_some(Fault::Fails)
        });
        let put = one.create("body").await.unwrap();
        let found = one.store.head(&path()).await.unwrap();
        assert_eq!((put.e_tag, one.disk.failed().len() as u64), (found.e_tag, k));
        assert_eq!(one.after_crash().await.unwrap(), "body", "{k}");
    }
}

#[tokio::test]
async fn what_was_linked_when_the_program_was_killed_is_forced_by_who_reads_it() {
    let one = One::new();
    one.store.put(&Path::from("a/b/other"), "x".into()).await.unwrap();
    // As a program leaves it that is killed behind the link, with its second name.
    let (second, name) = (one.root.join("a/b/object#1"), one.root.join("a/b/object"));
    use strongroom::store::directory::Disk;
    let file = one.disk.create(&second).unwrap();
    one.disk.write(&mut file.try_clone().unwrap(), b"body").unwrap();
    one.disk.force_file(&file).unwrap();
    one.disk.link(&second, &name).unwrap();
    assert_eq!(one.store.get(&path()).await.unwrap().bytes().await.unwrap(), "body");
    assert_eq!(one.after_crash().await.unwrap(), "body");
    // A copy that somebody made by a link, as programs for backups do, is no mark.
    let one = One::new();
    one.create("body").await.unwrap();
    fs::hard_link(one.root.join("a/b/object"), one.root.join("backup")).unwrap();
    let before = fs::metadata(one.root.join("backup")).unwrap();
    assert_eq!(one.store.get(&path()).await.unwrap().bytes().await.unwrap(), "body");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(fs::metadata(one.root.join("a/b/object")).unwrap().ino(), before.ino());
}

#[tokio::test]
async fn a_directory_above_that_cannot_be_forced_is_made_again() {
    let one = One::new();
    one.disk.fail(no_directory);
    one.create("body").await.unwrap_err();
    assert_eq!(fs::read_dir(&one.root).unwrap().count(), 0);
    one.disk.heal();
    one.create("body").await.unwrap();
    assert_eq!(one.after_crash().await.unwrap(), "body");
}

#[tokio::test]
async fn short_writes_make_whole_objects() {
    let one = One::new();
    one.disk.fail(|_, call| (call == Call::Write).then_some(Fault::Short));
    one.create("a body that is written byte by byte").await.unwrap();
    let store = Arc::new(one.store.clone()) as Arc<dyn ObjectStore>;
    let mut writer = BlobWriter::new(store, Path::from("blob"), PartPlan::even(100));
    writer.write(pattern(1000)).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(one.store.get(&Path::from("blob")).await.unwrap().bytes().await.unwrap(), pattern(1000));
    assert_eq!(one.after_crash().await.unwrap(), "a body that is written byte by byte");
}

#[tokio::test]
async fn a_replaced_object_is_the_old_one_or_the_new_one() {
    for k in 1..=12 {
        for fault in [Fault::Fails, Fault::FailsAfter, Fault::Full] {
            let one = One::new();
            one.create("old").await.unwrap();
            one.disk.fail(move |at, _| (at == k).then_some(fault));
            let replaced = one.store.put(&path(), "new".into()).await;
            let found = one.after_crash().await.unwrap();
            assert!(found == "new" || (found == "old" && replaced.is_err()), "{k} {fault:?}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_long_blob_is_no_success_before_its_directory_is_forced() {
    for failures in [1, 2, 100] {
        let one = One::new();
        one.store.put(&Path::from("a/b/other"), "x".into()).await.unwrap();
        let store = Arc::new(one.store.clone()) as Arc<dyn ObjectStore>;
        let mut writer = BlobWriter::new(store, path(), PartPlan::even(100));
        writer.write(pattern(1000)).await.unwrap();
        let left = Arc::new(std::sync::atomic::AtomicI64::new(failures));
        one.disk.fail(move |_, call| {
            let fails =
                call == Call::ForceDirectory && left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) > 0;
            fails.then_some(Fault::Fails)
        });
        let finished = writer.finish().await;
        assert_eq!(finished.is_ok(), failures < 100, "{finished:?}");
        if finished.is_ok() {
            assert_eq!(one.after_crash().await.unwrap(), pattern(1000));
        }
    }
}
