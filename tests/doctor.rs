//! The doctor finds what is wrong, and says nothing is where it did not look.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use strongroom::access::{Access, Principal, Purpose};
use strongroom::doctor::{Check, Setup, State, Subject, examine};
use strongroom::id::KmsKeyId;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{KmsDestroyer, KmsRegistry};
use strongroom::room::{CustomerInfo, KeyChoice, NewCustomer, Options, Strongroom};
use strongroom::store::{CreateRoot, StorageRole, StorageUrl, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::{Clock, Timestamp};

#[path = "common/signer.rs"]
mod signer;

const HOST: Subject = Subject::Host;
const KEYS: Subject = Subject::Storage(StorageRole::Keys);
const AUDIT: Subject = Subject::Storage(StorageRole::Audit);

fn access() -> Access {
    Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration)
}

/// A store in directories, with the customers `acme` and `globex`.
struct Local {
    home: tempfile::TempDir,
    kms: Arc<InsecureLocalKms>,
    customers: Vec<CustomerInfo>,
}

impl Local {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let kms =
            InsecureLocalKms::open(home.path().join("kms"), Arc::new(SystemClock), Arc::new(SystemEntropy));
        let mut local = Self { home, kms: Arc::new(kms.unwrap()), customers: Vec::new() };
        let setup = local.setup();
        let storages = Storages::open(&setup.urls, CreateRoot::Yes, Arc::new(SystemClock)).await.unwrap();
        let key = KeyChoice::New("local".into());
        let (room, _) =
            Strongroom::init(storages, setup.kms, key.clone(), &setup.access, setup.options.unwrap())
                .await
                .unwrap();
        for label in ["acme", "globex"] {
            let new = NewCustomer::new(label.parse().unwrap(), key.clone());
            local.customers.push(room.add_customer(&setup.access, new).await.unwrap());
        }
        room.close().await.unwrap();
        signer::write_key(&local.path("kms/log.key"));
        local
    }

    fn setup(&self) -> Setup {
        Setup {
            urls: StorageUrls::new(StorageUrl::directory(self.path("store")).unwrap()),
            kms: KmsRegistry::new().with(Arc::clone(&self.kms) as _),
            local_kms: self.path("kms"),
            access: access(),
            clock: Arc::new(SystemClock),
            options: Ok(Options::new(signer::signer())),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    async fn examine(&self) -> Vec<Check> {
        examine(&self.setup()).await
    }

    /// All files below, with their content.
    fn files(&self, below: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![self.path(below)];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

fn chmod(path: impl AsRef<Path>, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn problems(checks: &[Check]) -> Vec<&Check> {
    checks.iter().filter(|check| check.state == State::Problem).collect()
}

/// The only problem there is.
#[track_caller]
fn the_problem(checks: &[Check]) -> &Check {
    let problems = problems(checks);
    assert_eq!(problems.len(), 1, "{checks:#?}");
    problems[0]
}

#[track_caller]
fn find(checks: &[Check], subject: Subject, text: &str) -> Check {
    let found = checks.iter().find(|check| check.subject == subject && check.what.contains(text));
    found.unwrap_or_else(|| panic!("nothing of {text}: {checks:#?}")).clone()
}

#[tokio::test]
async fn a_good_store_has_no_problem_and_stays_as_it_is() {
    let local = Local::new().await;
    let before = (local.files("store/blobs"), local.files("store/keys"), local.files("kms"));
    let commits = local.files("store/audit");
    let checks = local.examine().await;
    assert_eq!(problems(&checks), [] as [&Check; 0]);
    assert_eq!((local.files("store/blobs"), local.files("store/keys"), local.files("kms")), before);
    let after = local.files("store/audit");
    assert!(commits.iter().all(|(path, bytes)| after[path] == *bytes), "the log grows only");
    assert!(after.len() > commits.len(), "the rings were read on the record");

    for customer in &local.customers {
        let check = find(&checks, Subject::CustomerKeys, &customer.id.to_string());
        assert_eq!(check.state, State::Ok);
        assert!(
            check.what.contains(customer.label.as_str()) && check.what.contains(customer.kms_key.as_str())
        );
    }
    assert_eq!(find(&checks, Subject::LocalKeys, "74 FR 19006").state, State::Warning);
    assert_eq!(find(&checks, Subject::Store, "on one file system").state, State::Warning);
    assert_eq!(find(&checks, HOST, "later than now").state, State::Ok);
    for check in &checks {
        assert_eq!(check.fix.is_none(), check.state == State::Ok, "{check:?}");
    }
    assert!(checks.is_sorted_by_key(|check| check.subject), "grouped");
}

#[tokio::test]
async fn what_others_may_write_to_is_a_problem() {
    let local = Local::new().await;
    for path in [local.home.path().to_owned(), local.path("store")] {
        chmod(path, 0o755);
    }
    chmod(local.path("store/keys"), 0o775);
    let checks = local.examine().await;
    let check = the_problem(&checks);
    assert_eq!(check.subject, KEYS);
    assert!(check.fix.as_ref().unwrap().starts_with("chmod go-rwx '/"), "{check:?}");
    assert_eq!(find(&checks, AUDIT, "may read it").state, State::Warning);
    // Behind a closed directory it does not matter.
    chmod(local.path("store"), 0o700);
    assert_eq!(problems(&local.examine().await), [] as [&Check; 0]);
}

#[tokio::test]
async fn a_log_from_the_future_is_a_wrong_clock() {
    let local = Local::new().await;
    let commit = local.files("store/audit/wal").into_keys().next().unwrap();
    for (seconds, state) in [(4, State::Ok), (60, State::Warning), (3600, State::Problem)] {
        let later = SystemTime::now() + Duration::from_secs(seconds);
        File::options().write(true).open(&commit).unwrap().set_modified(later).unwrap();
        let checks = local.examine().await;
        let of_host = checks.iter().filter(|check| check.subject == HOST && check.what.contains("clock"));
        assert_eq!(of_host.map(|check| check.state).max(), Some(state), "{seconds}");
    }
}

/// A host's clock that is ahead.
#[derive(Debug)]
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().saturating_add(self.0)
    }

    fn uptime(&self) -> Duration {
        SystemClock.uptime()
    }
}

/// Files are dated by whoever writes them, and the log by what commits say.
#[tokio::test]
async fn the_doctor_tells_of_an_entry_from_the_future() {
    for (minutes, state) in [(10, State::Warning), (90, State::Problem)] {
        let local = Local::new().await;
        assert_eq!(find(&local.examine().await, AUDIT, "newest entry of the log").state, State::Ok);
        let setup = local.setup();
        let storages = Storages::open(&setup.urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap();
        let mut options = setup.options.unwrap();
        options.clock = Arc::new(Ahead(Duration::from_mins(minutes)));
        let room = Strongroom::open(storages, setup.kms, options).await.unwrap();
        room.register(&setup.access).await.unwrap();
        room.close().await.unwrap();
        let check = find(&local.examine().await, AUDIT, "newest entry of the log");
        assert_eq!(check.state, state, "{check:?}");
        assert!(check.fix.unwrap().contains("set-clock"));
    }
}

#[tokio::test]
async fn a_dead_key_is_its_customers_own() {
    let local = Local::new().await;
    let (acme, globex) = (&local.customers[0], &local.customers[1]);
    local.kms.disable(&acme.kms_key).await.unwrap();
    let checks = local.examine().await;
    let check = the_problem(&checks);
    assert_eq!(check.subject, Subject::CustomerKeys);
    assert!(check.what.starts_with("acme (") && check.what.ends_with("is disabled"), "{}", check.what);
    assert_eq!(find(&checks, Subject::CustomerKeys, globex.label.as_str()).state, State::Ok);

    local.kms.schedule_deletion(&acme.kms_key, 7).await.unwrap();
    let checks = local.examine().await;
    assert!(the_problem(&checks).what.contains("will be destroyed on 2"), "{checks:?}");

    fs::remove_file(local.path("kms").join(format!("{}.key", acme.kms_key.name()))).unwrap();
    let checks = local.examine().await;
    assert!(the_problem(&checks).what.ends_with("does not exist"), "{checks:?}");
}

#[tokio::test]
async fn without_the_epochs_key_nothing_is_said_of_customers() {
    let local = Local::new().await;
    let theirs: Vec<_> = local.customers.iter().map(|customer| customer.kms_key.name()).collect();
    let files = local.files("kms");
    let mut keys = files.keys().filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".key"));
    let epochs: KmsKeyId =
        KmsKeyId::new("local", keys.find(|name| *name != "log" && !theirs.contains(name)).unwrap()).unwrap();
    local.kms.disable(&epochs).await.unwrap();
    let checks = local.examine().await;
    assert_eq!(the_problem(&checks).subject, Subject::EpochKeys);
    assert_eq!(find(&checks, Subject::CustomerKeys, "not looked at").state, State::Unknown);
}

#[tokio::test]
async fn local_keys_that_others_may_read_are_a_problem() {
    let local = Local::new().await;
    chmod(local.path("kms"), 0o755);
    let checks = local.examine().await;
    assert!(problems(&checks).iter().any(|check| check.subject == Subject::LocalKeys), "{checks:?}");
    chmod(local.path("kms"), 0o700);
    let key = local.path("kms").join(format!("{}.key", local.customers[0].kms_key.name()));
    chmod(key, 0o644);
    let checks = local.examine().await;
    let check = find(&checks, Subject::LocalKeys, "1 files");
    assert_eq!(check.state, State::Problem);
    assert!(check.fix.unwrap().contains("known to others"));
}

#[tokio::test]
async fn a_damaged_ring_hides_no_other() {
    let local = Local::new().await;
    let ring = local.path(&format!("store/keys/ring/{}/{:016x}", local.customers[0].id, 1));
    let mut bytes = fs::read(&ring).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&ring, bytes).unwrap();
    let checks = local.examine().await;
    let check = the_problem(&checks);
    assert!(check.what.starts_with(&format!("customer {}", local.customers[0].id)), "{}", check.what);
    assert!(check.fix.as_ref().unwrap().contains("leave everything as it is"));
    assert_eq!(find(&checks, Subject::CustomerKeys, "globex").state, State::Ok);
}

#[tokio::test]
async fn a_store_that_does_not_open_is_reported() {
    let (local, other) = (Local::new().await, Local::new().await);
    let mut setup = local.setup();
    setup.urls.audit = Some(StorageUrl::directory(other.path("store/audit")).unwrap());
    let checks = examine(&setup).await;
    assert!(the_problem(&checks).what.contains("do not belong to one store"));

    setup.urls.audit = Some(StorageUrl::directory(local.path("nowhere")).unwrap());
    let checks = examine(&setup).await;
    assert_eq!(the_problem(&checks).subject, AUDIT);
    assert_eq!(find(&checks, KEYS, "answers").state, State::Ok);

    let empty = tempfile::tempdir().unwrap();
    for role in StorageRole::ALL {
        fs::create_dir(empty.path().join(role.as_str())).unwrap();
    }
    setup.urls = StorageUrls::new(StorageUrl::directory(empty.path()).unwrap());
    let checks = examine(&setup).await;
    assert!(the_problem(&checks).fix.as_ref().unwrap().contains("strongroom init"));

    // Its log gone, a store must not seem to be a good one.
    fs::remove_dir_all(local.path("store/audit/wal")).unwrap();
    assert!(the_problem(&local.examine().await).what.contains("was stored and is missing"));
}

#[cfg(feature = "cli")]
mod command_line {
    use std::process::{Command, Output};

    use serde_json::Value;

    use super::*;

    fn strongroom(local: &Local, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command.env_clear().env("HOME", local.home.path());
        command.env("STRONGROOM_STORE", local.path("store")).env("STRONGROOM_LOCAL_KMS", local.path("kms"));
        command.args(args).output().unwrap()
    }

    #[tokio::test]
    async fn the_exit_code_tells_problems_from_warnings() {
        let local = Local::new().await;
        let good = strongroom(&local, &["doctor"]);
        assert_eq!(good.status.code(), Some(0), "{good:?}");
        let text = String::from_utf8(good.stdout).unwrap();
        assert!(text.contains("\nKMS keys of customers\n  ok       acme ("), "{text}");
        assert!(text.contains("  warning  the keys are files"), "{text}");
        assert!(text.contains("\n           fix: keep the key directory"), "{text}");
        assert!(good.stderr.is_empty());

        local.kms.disable(&local.customers[0].kms_key).await.unwrap();
        let bad = strongroom(&local, &["doctor", "--json"]);
        assert_eq!(bad.status.code(), Some(78));
        let report: Value = serde_json::from_slice(&bad.stdout).unwrap();
        assert_eq!((&report["ok"], &report["problems"]), (&false.into(), &1.into()));
        let checks = report["checks"].as_array().unwrap();
        let problem = checks.iter().find(|check| check["state"] == "problem").unwrap();
        assert_eq!(problem["subject"], "customer-keys");
        assert!(problem["fix"].is_string());
        let error: Value = serde_json::from_slice(&bad.stderr).unwrap();
        assert_eq!(error["error"]["message"], "1 problem was found");
    }

    #[tokio::test]
    async fn policies_are_printed_for_this_store() {
        let local = Local::new().await;
        let output = strongroom(&local, &["doctor", "--policies", "--account", "123456789012", "--json"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let documents = printed["documents"].as_array().unwrap();
        let node = documents.iter().find(|document| document["name"] == "role-node").unwrap();
        let text = node["document"].to_string();
        assert!(text.contains("example-keys") && text.contains("strongroom:store"), "{text}");
        let notes = String::from_utf8(output.stderr).unwrap();
        assert!(notes.contains("these are for S3"), "{notes}");

        // For people: comments, and between them JSON.
        let output = strongroom(&local, &["doctor", "--policies", "-q"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let parts: Vec<_> = text.split("\n\n").collect();
        assert_eq!(parts.len(), documents.len());
        for part in parts {
            let json: String = part.lines().filter(|line| !line.starts_with('#')).collect();
            assert!(serde_json::from_str::<Value>(&json).unwrap().is_object(), "{part}");
        }
        assert_eq!(strongroom(&local, &["doctor", "--account", "123456789012"]).status.code(), Some(64));
        let wrong = strongroom(&local, &["doctor", "--policies", "--account", "JANE"]);
        assert_eq!(wrong.status.code(), Some(64));
        assert!(!String::from_utf8(wrong.stderr).unwrap().contains("JANE"));
    }
}

/// The manual names documents, roles and numbers; the code has them.
#[test]
fn the_manual_says_what_is_printed() {
    use strongroom::doctor::policy::{Account, Deployment, documents};
    use strongroom::doctor::{AUDIT_YEARS, SMALL_COMMITS_DAYS};

    let manual = include_str!("../src/manual/operations.md");
    let urls = StorageUrls::new("s3://one-bucket".parse().unwrap());
    for document in documents(&Deployment::new(&urls, Account::example(), None)) {
        let name = document.name.replace("-one-bucket", "-…");
        assert!(manual.contains(&format!("`{name}`")), "{name}");
        let statements = document.document["Statement"].as_array().cloned().unwrap_or_default();
        if document.name == "role-node" {
            let allowed = statements.iter().filter(|statement| statement["Effect"] == "Allow");
            for action in
                allowed.flat_map(|statement| statement["Action"].as_array().cloned().unwrap_or_default())
            {
                let action = action.as_str().unwrap();
                // The settings are told in one word.
                assert!(
                    manual.contains(&format!("`{action}`"))
                        || action.contains("Get")
                        || action.contains("Parts")
                );
            }
        }
        for rule in document.document["Rules"].as_array().into_iter().flatten() {
            assert!(manual.contains(&format!("(`{}`)", rule["ID"].as_str().unwrap())), "{rule}");
        }
    }
    for term in [
        format!("less than {AUDIT_YEARS} years"),
        format!(
            "that before {SMALL_COMMITS_DAYS} \
     days"
        ),
    ] {
        assert!(manual.contains(&term), "{term}");
    }
}
