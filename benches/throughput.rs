//! How fast a file is sealed and opened beside `cp` in the same run, and how
//! many durable records a second the log takes from many callers.
//!
//! `cargo bench --bench throughput`. `STRONGROOM_BENCH_DIR` says where: else a
//! file system in memory where there is one. `STRONGROOM_BENCH_MIB` says how
//! much, else 1,024. Each is run three times, and the fastest counts.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::signer::LocalSigner;
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Source, Strongroom};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use strongroom::suite::Suite;
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::Clock;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const RUNS: u32 = 3;
const CALLERS: u32 = 256;
const RECORDS_A_CALLER: u32 = 200;

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> Result {
    let mib: u32 = std::env::var("STRONGROOM_BENCH_MIB").map_or(Ok(1024), |mib| mib.parse())?;
    let base = std::env::var_os("STRONGROOM_BENCH_DIR").map_or_else(default_directory, PathBuf::from);
    let directory = tempfile::tempdir_in(&base)?;
    let directory = directory.path();
    say(&format!("{mib} MiB in {}, best of {RUNS}", base.display()))?;

    let (plain, copy) = (directory.join("plain"), directory.join("copy"));
    make_file(&plain, mib)?;
    let copied = best(async || {
        let status = Command::new("cp").arg(&plain).arg(&copy).status()?;
        std::fs::remove_file(&copy)?;
        if status.success() { Ok(()) } else { Err("cp failed".into()) }
    });
    let copied = copied.await?;
    report("cp", copied, mib, copied)?;

    let (room, acme) = new_store(directory).await?;
    for suite in Suite::ALL {
        let mut blob = None;
        let sealed = best(async || {
            // One blob at a time: a memory file system is small.
            if let Some(blob) = blob.take() {
                remove(directory, blob)?;
            }
            let options = SealOptions::new().suite(suite);
            blob = Some(acme.seal(Source::blocking(File::open(&plain)?), options).await?.id);
            Ok(())
        });
        report(&format!("seal {suite:?}"), sealed.await?, mib, copied)?;
        let blob = blob.ok_or("nothing was sealed")?;
        let opened = best(async || {
            let mut to = tokio::fs::File::create(&copy).await?;
            acme.open(blob).await?.copy_to(&mut to).await?;
            drop(to);
            std::fs::remove_file(&copy)?;
            Ok(())
        });
        report(&format!("open {suite:?}"), opened.await?, mib, copied)?;
        let verified = best(async || acme.verify(blob).await.map(drop).map_err(Into::into));
        report(&format!("verify {suite:?}"), verified.await?, mib, copied)?;
        remove(directory, blob)?;
    }

    let took = best(async || append(&room).await).await?;
    let records = f64::from(CALLERS * RECORDS_A_CALLER * 2);
    say(&format!("log: {:.0} durable records/s with {CALLERS} callers", records / took.as_secs_f64()))?;
    room.close().await?;
    Ok(())
}

fn default_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn make_file(path: &Path, mib: u32) -> Result {
    let mut file = File::create(path)?;
    let block: Vec<u8> = (0..1u32 << 20).map(|at| (at * 7 + at / 251).to_le_bytes()[0]).collect();
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    Ok(())
}

async fn new_store(directory: &Path) -> Result<(Strongroom, Customer)> {
    let access = Access::new(Principal::service("bench")?, Purpose::SystemAdministration);
    let kms = InsecureLocalKms::open(directory.join("kms"), Arc::new(SystemClock), Arc::new(SystemEntropy))?;
    let urls = StorageUrls::new(StorageUrl::directory(directory.join("store"))?);
    let storages = Storages::open(&urls, CreateRoot::Yes, Arc::new(SystemClock)).await?;
    let registry = KmsRegistry::new().with(Arc::new(kms));
    let local = || KeyChoice::New("local".into());
    let options = Options::new(Arc::new(LocalSigner::generate(&SystemEntropy)?));
    let (room, _) = Strongroom::init(storages, registry, local(), &access, options).await?;
    room.add_customer(&access, NewCustomer::new("acme".parse()?, local())).await?;
    let acme = room.customer(&"acme".parse()?, access).await?;
    Ok((room, acme))
}

/// Takes a blob's file away. The log keeps its records.
fn remove(directory: &Path, blob: strongroom::id::BlobId) -> Result {
    let blobs = directory.join("store/blobs/blob");
    for customer in std::fs::read_dir(blobs)? {
        let file = customer?.path().join(blob.day().to_string()).join(blob.to_string());
        if file.exists() {
            std::fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// Intents and outcomes, each waited for.
async fn append(room: &Strongroom) -> Result {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let log = room.log().clone();
        callers.spawn(async move {
            let access = Access::new(Principal::Unix(0), Purpose::SystemAdministration);
            for _ in 0..RECORDS_A_CALLER {
                let intent = Intent::new(log.request_id()?, &access, Action::Stat);
                // No key is used: the receipt goes unused.
                let (open, receipt) = log.begin(intent).await?;
                drop(receipt);
                open.finish(OutcomeResult::Ok, None).await?;
            }
            Ok::<_, strongroom::Error>(())
        });
    }
    for caller in callers.join_all().await {
        caller?;
    }
    Ok(())
}

async fn best(mut run: impl AsyncFnMut() -> Result) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..RUNS {
        let begun = SystemClock.uptime();
        run().await?;
        best = best.min(SystemClock.uptime() - begun);
    }
    Ok(best)
}

fn report(what: &str, took: Duration, mib: u32, copied: Duration) -> Result {
    let rate = f64::from(mib) / took.as_secs_f64();
    let ratio = took.as_secs_f64() / copied.as_secs_f64();
    say(&format!("{what:24} {:6.2} s {rate:7.0} MiB/s {ratio:6.2} x cp", took.as_secs_f64()))
}

fn say(line: &str) -> Result {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
