//! Restoring to a directory and checking all of a store: what there is, what is missing or
//! damaged, what was destroyed, runs that are stopped, and the program that people type.

#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};

use common::{Fixture, fixture, pattern, read, write};
use destroy::Vault;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use strongroom::ErrorKind;
use strongroom::drill::{Drill, DrillOptions, DrillState};
use strongroom::envelope::Metadata;
use strongroom::id::BlobId;
use strongroom::order::OrderKind;
use strongroom::restore::{RestoreOptions, Restored, Selection};
use strongroom::ring::Tenancy;
use strongroom::room::{Customer, KeyChoice, NewCustomer, SealOptions, Strongroom};

async fn seal(customer: &Customer, name: &str, length: usize) -> BlobId {
    let metadata = match name {
        "" => Metadata::new(),
        name => Metadata::new().with_name(name.parse().unwrap()),
    };
    let options = SealOptions::new().metadata(metadata);
    customer.seal(pattern(length).to_vec(), options).await.unwrap().id
}

async fn restore(customer: &Customer, to: &Path) -> Restored {
    restore_some(customer, to, &Selection::default()).await
}

async fn restore_some(customer: &Customer, to: &Path, selection: &Selection) -> Restored {
    customer.restore(to, selection, RestoreOptions::default(), &|_| ()).await.unwrap()
}

/// (restored, skipped, destroyed, failed)
fn counts(restored: &Restored) -> (u64, u64, u64, u64) {
    let counts = restored.counts;
    (counts.restored, counts.skipped, counts.destroyed, counts.failed)
}

/// All files below a directory but the state, with their lengths.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(path).unwrap());
            }
        }
    }
    found.remove(".strongroom-restore");
    found
}

fn object(customer: &Customer, blob: BlobId) -> ObjectPath {
    ObjectPath::from(format!("blob/{}/{}/{blob}", customer.id(), blob.day()))
}

/// Where a blob lies, whatever the layout is called.
async fn place_of(fixture: &Fixture, blob: BlobId) -> ObjectPath {
    let all = common::objects(&fixture.raw.blobs).await;
    let found = all.into_iter().map(|(path, _)| path);
    found.into_iter().find(|path| path.filename() == Some(&blob.to_string())).expect("it is there")
}

async fn drill(room: &Strongroom) -> Drill {
    room.drill(&common::access(), &DrillOptions::default(), |_, _| Ok(())).await.unwrap()
}

#[tokio::test]
async fn everything_is_restored_by_its_name_and_the_next_run_has_nothing_to_do() {
    let fixture = fixture().await;
    let acme = &fixture.acme;
    let nightly = [seal(acme, "db/nightly", 100_000).await, seal(acme, "db/nightly", 7).await];
    seal(acme, "scans/ct-1", 3_000_000).await;
    seal(acme, "empty", 0).await;
    let (unnamed, evil) = (seal(acme, "", 5).await, seal(acme, "../../etc/cron.d/x", 6).await);
    let other = fixture.customer("zenith").await;
    seal(&other, "not/acme", 9).await;

    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("back");
    let first = restore(acme, &to).await;
    assert_eq!(counts(&first), (6, 0, 0, 0), "{first:?}");
    assert_eq!(first.counts.bytes, 3_100_018);
    assert!(first.ok && first.log.size > 0);
    let expected: BTreeMap<String, Vec<u8>> = [
        (format!("db/nightly~{}", nightly[0]), 100_000),
        (format!("db/nightly~{}", nightly[1]), 7),
        ("scans/ct-1".to_owned(), 3_000_000),
        ("empty".to_owned(), 0),
        (format!("by-id/{unnamed}"), 5),
        (format!("by-id/{evil}"), 6),
    ]
    .into_iter()
    .map(|(path, length)| (path, pattern(length).to_vec()))
    .collect();
    assert!(files(&to) == expected, "{:?}", files(&to).keys());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is beside it");

    let again = restore(acme, &to).await;
    assert_eq!(counts(&again), (0, 6, 0, 0));
    assert_eq!(again.counts.skipped_bytes, 3_100_018);
    // What is gone or altered is brought back, and nothing else is opened.
    fs::remove_file(to.join("empty")).unwrap();
    fs::write(to.join("scans/ct-1"), "altered").unwrap();
    let third = restore(acme, &to).await;
    assert_eq!((counts(&third), third.counts.bytes), ((2, 4, 0, 0), 3_000_000));
    assert!(files(&to) == expected);
    // Ids and numbers, and no name.
    let text = first.text();
    assert!(
        !text.contains("nightly") && !text.contains("acme") && text.contains("\"restored\": 6"),
        "{text}"
    );
}

#[tokio::test]
async fn a_selection_is_restored_and_a_dry_run_writes_nothing() {
    let fixture = fixture().await;
    let acme = &fixture.acme;
    seal(acme, "db/nightly", 10).await;
    fixture.clock.pass(destroy::DAY);
    let newest = seal(acme, "db/nightly", 20).await;
    fixture.clock.pass(destroy::DAY);
    seal(acme, "scans/ct-1", 30).await;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("back");

    let latest =
        Selection { name_prefix: Some("db/".parse().unwrap()), latest: true, ..Selection::default() };
    let dry = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
    let told = acme.restore(&to, &latest, dry, &|_| ()).await.unwrap();
    assert_eq!((counts(&told), told.counts.bytes, told.dry_run), ((1, 0, 0, 0), 20, true));
    assert!(!to.exists());
    assert_eq!(counts(&restore_some(acme, &to, &latest).await), (1, 0, 0, 0));
    assert_eq!(files(&to), BTreeMap::from([("db/nightly".to_owned(), pattern(20).to_vec())]));
    let told = acme.restore(&to, &latest, dry, &|_| ()).await.unwrap();
    assert_eq!(counts(&told), (0, 1, 0, 0));

    // With the others it is one of two of its name, and goes where that says so.
    let all = restore(acme, &to).await;
    assert_eq!(counts(&all), (2, 1, 0, 0));
    let names: Vec<_> = files(&to).into_keys().collect();
    assert!(names.contains(&format!("db/nightly~{newest}")) && !names.contains(&"db/nightly".to_owned()));
    let day = |text: &str| Some(text.parse().unwrap());
    let days =
        Selection { sealed_from: day("2026-11-23"), sealed_until: day("2026-11-23"), ..Selection::default() };
    let other = dir.path().join("other");
    assert_eq!(counts(&restore_some(acme, &other, &days).await), (1, 0, 0, 0));
    assert_eq!(files(&other)["db/nightly"], pattern(20));
}

#[tokio::test]
async fn what_is_damaged_or_gone_is_told_and_stops_no_other() {
    let fixture = fixture().await;
    let acme = &fixture.acme;
    let [whole, flipped, cut, gone] = [
        seal(acme, "a", 9).await,
        seal(acme, "b", 900_000).await,
        seal(acme, "c", 900_000).await,
        seal(acme, "d", 9).await,
    ];
    for (blob, damage) in [(flipped, true), (cut, false)] {
        let path = place_of(&fixture, blob).await;
        let mut bytes = read(&fixture.raw.blobs, &path).await;
        let middle = bytes.len() / 2;
        if damage {
            bytes[middle] ^= 1
        } else {
            bytes.truncate(middle)
        }
        write(&fixture.raw.blobs, &path, bytes).await;
    }
    // The storage does not even list it.
    fixture.raw.blobs.delete(&place_of(&fixture, gone).await).await.unwrap();

    let dir = tempfile::tempdir().unwrap();
    let restored = restore(acme, &dir.path().join("back")).await;
    assert_eq!(counts(&restored), (1, 0, 0, 3));
    assert!(!restored.ok);
    let failed: BTreeMap<BlobId, &str> =
        restored.not_restored.iter().map(|not| (not.blob, not.kind)).collect();
    let kinds = [(flipped, "authentication"), (cut, "authentication"), (gone, "not-found")];
    assert_eq!(failed, kinds.into());
    assert_eq!(files(&dir.path().join("back")).into_keys().collect::<Vec<_>>(), ["a"]);

    let zenith = fixture.customer("zenith").await;
    seal(&zenith, "x", 11).await;
    let drill = drill(&fixture.room).await;
    assert!(!drill.ok && drill.complete);
    assert_eq!((drill.total.blobs, drill.total.bytes), (2, 20), "the others are checked all the same");
    assert_eq!(drill.total.failures, BTreeMap::from([("authentication", 2), ("not-found", 1)]));
    let of_acme = drill.customers.iter().find(|of| of.customer == acme.id()).unwrap();
    let named: BTreeSet<BlobId> = of_acme.failed.iter().map(|failed| failed.blob).collect();
    assert_eq!(named, [flipped, cut, gone].into());
    assert!(!named.contains(&whole));
    let text = drill.text();
    assert!(text.contains("\"strongroom/verification/v1\"") && !text.contains("acme"), "{text}");
    assert!(text.contains(&drill.log.root.to_string()));
}

#[tokio::test]
async fn what_was_destroyed_is_told_with_its_certificate_and_is_no_failure() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 3).await;
    let gone = destroy::seal(&acme, "gone").await;
    vault.days(11).await;
    let kept = destroy::seal(&acme, "kept").await;
    let certificate = destroy::refused(&acme, gone).await.certificate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let restored = restore(&acme, &dir.path().join("back")).await;
    assert_eq!((counts(&restored), restored.ok), ((1, 0, 1, 0), true));
    assert_eq!(
        (restored.not_restored[0].blob, restored.not_restored[0].certificate),
        (gone, Some(certificate))
    );
    assert_eq!(files(&dir.path().join("back"))[&format!("by-id/{kept}")], b"kept");
    let drill = drill(&vault.room).await;
    assert_eq!((drill.ok, drill.total.blobs, drill.total.destroyed), (true, 1, 1));

    // A storage that puts the header of what was destroyed in front of what lives is no
    // excuse: by the log its key lives.
    let bytes = read(&vault.raw.blobs, &object(&acme, gone)).await;
    write(&vault.raw.blobs, &object(&acme, kept), bytes).await;
    let drill = self::drill(&vault.room).await;
    assert_eq!((drill.ok, drill.total.destroyed, drill.total.failed()), (false, 1, 1));
}

#[tokio::test]
async fn a_blob_that_an_order_withdrew_is_no_failure_and_neither_are_its_neighbours() {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 30).await;
    let (victim, neighbour) =
        (destroy::seal(&acme, "by mistake").await, destroy::seal(&acme, "neighbour").await);
    vault.order(OrderKind::DestroyBlob { blob: victim }, Some(&acme)).await;
    let dir = tempfile::tempdir().unwrap();
    for kind in ["denied", "key-destroyed"] {
        let restored = restore(&acme, &dir.path().join(kind)).await;
        assert_eq!((counts(&restored), restored.ok), ((1, 0, 1, 0), true), "{restored:?}");
        let not = &restored.not_restored[0];
        assert_eq!((not.blob, not.kind, not.destroyed), (victim, kind, true));
        assert_eq!(files(&dir.path().join(kind))[&format!("by-id/{neighbour}")], b"neighbour");
        let drill = drill(&vault.room).await;
        assert_eq!((drill.ok, drill.total.blobs, drill.total.destroyed), (true, 1, 1));
        vault.days(8).await;
    }
}

#[tokio::test]
async fn a_run_that_is_stopped_anywhere_leaves_whole_files_only_and_goes_on() {
    let fixture = fixture().await;
    let acme = &fixture.acme;
    let mut expected = BTreeMap::new();
    for number in 0..8_usize {
        let length = 400_000 + number;
        seal(acme, &format!("n/{number}"), length).await;
        expected.insert(format!("n/{number}"), pattern(length).to_vec());
    }
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("back");
    let (selection, mut stops) = (Selection::default(), 0);
    loop {
        // Dropped in the middle of the second file, again and again.
        let seen = AtomicU64::new(0);
        let progress = |bytes| {
            seen.fetch_add(bytes, SeqCst);
        };
        let options = RestoreOptions { jobs: 2, ..RestoreOptions::default() };
        let done = {
            let mut run = pin!(acme.restore(&to, &selection, options, &progress));
            std::future::poll_fn(|context: &mut Context<'_>| match run.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done.unwrap())),
                Poll::Pending if seen.load(SeqCst) > 900_000 => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
            .await
        };
        for (path, bytes) in files(&to) {
            if !path.starts_with(".strongroom-") {
                assert!(expected[&path] == bytes, "{path}: what has its name is whole");
            }
        }
        match done {
            None => stops += 1,
            Some(done) => {
                let (restored, skipped, ..) = counts(&done);
                assert!(done.ok && restored + skipped == 8 && skipped > 0, "{done:?}");
                break;
            }
        }
        assert!(stops < 20, "each run gets further");
        // What blocks ends by itself, and lets go of the directory.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(stops > 0 && files(&to) == expected, "{stops}");
}

#[tokio::test]
async fn who_has_its_keys_in_its_own_hand_is_left_out_and_that_is_said() {
    let fixture = fixture().await;
    let mut new = NewCustomer::new("own".parse().unwrap(), KeyChoice::New("local".into()));
    new.tenancy = Tenancy::Customer;
    fixture.room.add_customer(&common::access(), new).await.unwrap();
    let own = fixture.room.customer(&"own".parse().unwrap(), common::access()).await.unwrap();
    seal(&own, "x", 10).await;
    seal(&fixture.acme, "y", 20).await;
    let drill = drill(&fixture.room).await;
    assert_eq!((drill.ok, drill.complete, drill.total.blobs), (true, false, 1));
    let of = drill.customers.iter().find(|of| of.customer == own.id()).unwrap();
    assert_eq!((of.state, of.counts.blobs), (DrillState::NoSession, 0));
    let dir = tempfile::tempdir().unwrap();
    let refused = own
        .restore(&dir.path().join("back"), &Selection::default(), RestoreOptions::default(), &|_| ())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Denied);
    assert!(!dir.path().join("back").exists());
}

#[cfg(feature = "cli")]
mod program {
    use std::process::{Command, Stdio};

    use serde_json::Value;

    use super::*;

    struct Home(tempfile::TempDir);

    struct Ran {
        code: i32,
        out: String,
        err: String,
    }

    impl Home {
        fn new() -> Self {
            let home = Self(tempfile::tempdir().unwrap());
            home.run("init -q", 0);
            home.run("customer add acme --kms local -q", 0);
            home
        }

        #[track_caller]
        fn run(&self, line: &str, code: i32) -> Ran {
            let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
            command.env_clear().env("HOME", self.0.path()).env("XDG_DATA_HOME", self.0.path().join("data"));
            command.current_dir(self.0.path()).stdin(Stdio::null()).args(line.split(' '));
            let output = command.output().unwrap();
            let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
            let ran = Ran { code: output.status.code().unwrap(), out, err };
            assert_eq!(ran.code, code, "{line}: {}{}", ran.out, ran.err);
            ran
        }

        fn json(&self, file: &str) -> Value {
            serde_json::from_slice(&fs::read(self.0.path().join(file)).unwrap()).unwrap()
        }

        fn put(&self, name: &str, text: &str) -> String {
            fs::write(self.0.path().join("input"), text).unwrap();
            self.run(&format!("put --customer acme --name {name} input"), 0).out.trim().to_owned()
        }
    }

    #[test]
    fn a_restore_and_a_drill_as_they_are_typed() {
        let home = Home::new();
        home.put("db/nightly", "monday");
        let newest = home.put("db/nightly", "tuesday");
        home.put("scans/ct-1", "scan");
        let line = "restore --customer acme --name-prefix db/ --latest --to back";
        let dry = home.run(&format!("{line} --dry-run"), 0);
        assert!(dry.out.contains("to restore     1 blobs, 7 bytes\n"), "{}", dry.out);
        let told = home.run(&format!("{line} --report restored.json"), 0);
        assert!(told.out.contains("restored       1 blobs, 7 bytes\n"), "{}", told.out);
        assert_eq!(fs::read_to_string(home.0.path().join("back/db/nightly")).unwrap(), "tuesday");
        let report = home.json("restored.json");
        assert_eq!(
            (&report["restored"], &report["bytes"], &report["ok"]),
            (&1.into(), &7.into(), &true.into())
        );
        let all: Value =
            serde_json::from_str(&home.run("--json restore --customer acme --to back", 0).out).unwrap();
        assert_eq!((&all["restored"], &all["skipped"]), (&2.into(), &1.into()));
        assert!(home.0.path().join(format!("back/db/nightly~{newest}")).exists());

        let verified = home.run("verify --all --report drill.json", 0);
        assert!(verified.out.contains(&format!("{newest}  ok  7 bytes\n")), "{}", verified.out);
        assert!(
            verified.err.contains("3 blobs of 1 customers verified, 17 bytes; 0 failed"),
            "{}",
            verified.err
        );
        let report = home.json("drill.json");
        assert_eq!((&report["ok"], &report["complete"]), (&true.into(), &true.into()));
        assert_eq!((&report["total"]["blobs"], &report["total"]["bytes"]), (&3.into(), &17.into()));
        assert!(report["log"]["size"].as_u64().unwrap() > 0);
        home.run("audit verify", 0);

        // One is gone from the storage: neither passes over it.
        let blobs = home.0.path().join("data/strongroom/store/blobs/blob");
        let found = files(&blobs).into_keys().find(|path| path.ends_with(&newest)).unwrap();
        fs::remove_file(blobs.join(found)).unwrap();
        let failed = home.run("verify --customer acme --all --jobs 2 --report drill.json", 66);
        assert!(failed.out.contains(&format!("{newest}  FAILED  there is no such blob\n")), "{}", failed.out);
        let report = home.json("drill.json");
        assert_eq!((&report["ok"], &report["total"]["failures"]["not-found"]), (&false.into(), &1.into()));
        // A customer of whom nothing can be read stops no other.
        home.run("customer add zenith --kms local -q", 0);
        let shown: Value = serde_json::from_str(&home.run("--json customer show zenith", 0).out).unwrap();
        let zenith = shown["customer"].as_str().unwrap().to_owned();
        let rings = home.0.path().join("data/strongroom/store/keys/ring").join(&zenith);
        for entry in fs::read_dir(rings).unwrap() {
            fs::write(entry.unwrap().path(), "not a ring").unwrap();
        }
        let both = home.run("verify --all --report drill.json", 65);
        assert!(both.out.contains("  ok  6 bytes\n"), "{}", both.out);
        assert!(
            both.err.contains(&format!("the blobs of customer {zenith} could not be found out")),
            "{}",
            both.err
        );
        let report = home.json("drill.json");
        let of = report["customers"].as_array().unwrap().iter().find(|of| of["customer"] == zenith.as_str());
        assert_eq!(
            (&of.unwrap()["state"], &report["total"]["failures"]["integrity"]),
            (&"failed".into(), &1.into())
        );

        let failed = home.run("restore --customer acme --to new --jobs 1", 66);
        assert!(failed.out.contains("restored       2 blobs, 10 bytes\n"), "{}", failed.out);
        assert!(failed.out.contains(&format!("{newest}  FAILED  not-found\n")), "{}", failed.out);
        assert!(failed.err.contains("1 blob could not be restored"), "{}", failed.err);
    }

    #[test]
    fn a_program_that_is_killed_leaves_whole_files_and_the_next_one_goes_on() {
        let home = Home::new();
        for number in 0..6_u8 {
            fs::write(home.0.path().join("input"), vec![number; 12_000_000]).unwrap();
            home.run(&format!("put --customer acme --name n/{number} input"), 0);
        }
        let back = home.0.path().join("back");
        let line = "restore --customer acme --to back --jobs 2";
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", home.0.path()).env("XDG_DATA_HOME", home.0.path().join("data"));
        command.current_dir(home.0.path()).stdin(Stdio::null()).stdout(Stdio::null()).args(line.split(' '));
        let mut child = command.spawn().unwrap();
        // Until one is there, and another one is on its way.
        while fs::read_dir(back.join("n")).map_or(0, Iterator::count) == 0 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for (path, bytes) in files(&back).iter().filter(|(path, _)| path.starts_with("n/")) {
            let number: u8 = path[2..].parse().unwrap();
            assert!(*bytes == vec![number; 12_000_000], "{path} is whole");
        }
        let told = home.run(&format!("--json {line}"), 0);
        let told: Value = serde_json::from_str(&told.out).unwrap();
        let (restored, skipped) = (told["restored"].as_u64().unwrap(), told["skipped"].as_u64().unwrap());
        assert_eq!(restored + skipped, 6, "{told}");
        assert_eq!(files(&back).len(), 6, "no part is left");
        home.run("audit verify", 0);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let home = Home::new();
        home.put("x", "text");
        for line in [
            "verify",
            "verify --all --jobs 0",
            "verify --customer acme --name x --report r",
            "verify --name x",
            "restore --customer acme",
            "restore --to back",
            "restore --customer acme --to back --jobs 65",
            "restore --customer acme --to back --sealed-from yesterday",
        ] {
            home.run(line, 64);
        }
        // For others as well, or another customer's.
        fs::create_dir(home.0.path().join("open")).unwrap();
        fs::set_permissions(home.0.path().join("open"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        home.run("restore --customer acme --to open", 64);
        home.run("restore --customer acme --to back", 0);
        home.run("customer add zenith --kms local", 0);
        home.run("restore --customer zenith --to back", 64);
    }
}
