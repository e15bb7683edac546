//! `strongroom emergency`, as a privacy officer types it: the program itself, on a store in
//! which somebody declared an emergency three hours ago.
#![cfg(feature = "cli")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{KeyChoice, NewCustomer, SealOptions, Strongroom};
use strongroom::store::{CreateRoot, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::{Clock, Timestamp};

use common::TestClock;

const HOUR: Duration = Duration::from_secs(3600);

/// Makes the store, reads a blob in the emergency while the log can be written, and leaves the sink.
async fn past(home: &Path) -> String {
    let data = home.join("data/strongroom");
    for directory in ["store", "kms"] {
        fs::create_dir_all(data.join(directory)).unwrap();
    }
    fs::set_permissions(data.join("kms"), fs::Permissions::from_mode(0o700)).unwrap();
    common::signer::write_key(&data.join("kms/log.key"));
    let began = SystemClock.now().micros() - u64::try_from((HOUR * 3).as_micros()).unwrap();
    let clock = TestClock::at(&Timestamp::from_micros(began).unwrap().to_string());
    let root = data.join("store").to_str().unwrap().parse().unwrap();
    let urls = StorageUrls { root, blobs: None, keys: None, audit: None };
    let storages = Storages::open(&urls, CreateRoot::Yes, clock.clone()).await.unwrap();
    let local = InsecureLocalKms::open(data.join("kms"), clock.clone(), Arc::new(SystemEntropy)).unwrap();
    let kms = KmsRegistry::new().with(Arc::new(local));
    let access = Access::new(Principal::service("past").unwrap(), Purpose::RecordManagement);
    let choice = || KeyChoice::New("local".into());
    let mut options = common::options(&clock);
    options.emergency_directory = Some(home.join("sink"));
    let (room, _) = Strongroom::init(storages, kms, choice(), &access, options).await.unwrap();
    let acme =
        room.add_customer(&access, NewCustomer::new("acme".parse().unwrap(), choice())).await.unwrap().id;
    let doctor = Access::new(Principal::person("p-17").unwrap(), Purpose::EmergencyTreatment);
    let writer = room.customer_by_id(acme, access).await.unwrap();
    let blob = writer.seal(b"a secret".to_vec(), SealOptions::new()).await.unwrap().id;
    let emergency = room.declare_emergency(&doctor, acme, HOUR).await.unwrap();
    let reader = room.customer_by_id(acme, doctor.in_emergency(emergency.id)).await.unwrap();
    reader.open(blob).await.unwrap().bytes(100).await.unwrap();
    room.close().await.unwrap();
    emergency.id.to_string()
}

fn strongroom(home: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.env_clear().env("HOME", home).env("XDG_DATA_HOME", home.join("data")).current_dir(home);
    command.args(arguments.split(' ')).output().unwrap()
}

#[track_caller]
fn ok(home: &Path, arguments: &str) -> String {
    let ran = strongroom(home, arguments);
    assert!(ran.status.success(), "{arguments}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

#[track_caller]
fn json(home: &Path, arguments: &str) -> Value {
    serde_json::from_str(&ok(home, &format!("{arguments} --json"))).unwrap()
}

#[test]
fn an_emergency_is_listed_folded_and_reviewed() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path();
    // Ended with its runtime, the node has let go of its sink.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let id = runtime.block_on(past(home));
    drop(runtime);

    let listed = json(home, "emergency list");
    assert_eq!((&listed["emergency"], &listed["by"]), (&id.as_str().into(), &"person:p-17".into()));
    assert_eq!((&listed["uses"], &listed["folded"]), (&1.into(), &false.into()));
    assert!(ok(home, "emergency list --customer acme --unreviewed").contains("not folded"));
    let review = format!("emergency review --customer acme {id}");
    let early = strongroom(home, &format!("{review} --principal person:p-20"));
    assert_eq!(early.status.code(), Some(75), "{}", String::from_utf8_lossy(&early.stderr));

    let missing = strongroom(home, "emergency fold --directory JANE");
    assert_eq!(missing.status.code(), Some(66));
    assert!(!String::from_utf8_lossy(&missing.stderr).contains("JANE"));
    assert!(!home.join("JANE").exists());
    let folded = json(home, "emergency fold --directory sink");
    assert_eq!((&folded["written"], &folded["done"]), (&0.into(), &true.into()));
    assert_eq!(ok(home, "emergency fold --directory sink"), "there is nothing to fold\n");

    for nobody in ["person:p-17", "unix:0"] {
        let denied = strongroom(home, &format!("{review} --principal {nobody}"));
        assert_eq!(denied.status.code(), Some(77), "{nobody}");
    }
    let reviewed = json(home, &format!("{review} --principal person:p-20"));
    assert_eq!(reviewed["reviewed_by"], "person:p-20");
    assert!(ok(home, "emergency list").contains("person:p-20"));
    assert_eq!(ok(home, "emergency list --unreviewed --json"), "");
    let again = strongroom(home, &format!("{review} --principal person:p-21"));
    assert_eq!(again.status.code(), Some(73));
    let denials = ok(home, "audit query --action emergency-review --outcome denied --json");
    assert_eq!(denials.lines().count(), 2);
}
