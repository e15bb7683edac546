//! How fast the audit log is written, verified and opened again.
//!
//! `cargo bench --bench audit`. `STRONGROOM_BENCH_DIR` says where the local
//! directory is: else the system's temporary one. `STRONGROOM_BENCH_RECORDS` says
//! how many records are verified, and ten times that are opened: else 1,000,000.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::signer::{LocalSigner, LogSigner};
use strongroom::audit::verify::{Options, verify};
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::id::{CustomerId, StoreId};
use strongroom::secret::Secret;
use strongroom::store::directory::Directory;
use strongroom::store::marker::Marker;
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::Clock;
use strongroom::tlog::SecretKey;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What a write and a read take on an object storage far away.
const FAR: Duration = Duration::from_millis(80);
/// How many customers there are.
const CUSTOMERS: u32 = 50;
/// How many operations are begun at once where throughput is all.
const TOGETHER: u32 = 2048;

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> Result {
    let records: u32 =
        std::env::var("STRONGROOM_BENCH_RECORDS").map_or(Ok(1_000_000), |text| text.parse())?;
    let base = std::env::var_os("STRONGROOM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);

    let directory = tempfile::tempdir_in(&base)?;
    let local = Directory::open(directory.path())?;
    append(&format!("append, {}", base.display()), Arc::new(local), 256, 200).await?;
    append("append, 80 ms storage", Arc::new(Far(InMemory::new())), 1000, 20).await?;

    let batched = grown(records, TOGETHER).await?;
    verified("verify, large commits", batched).await?;
    let small = grown(records / 50, 2).await?;
    verified("verify, commits of 4 records", small).await?;

    let storage = grown(records.saturating_mul(10), TOGETHER).await?;
    let begun = Instant::now();
    let log = open(storage).await?;
    let took = begun.elapsed();
    say(&format!("open, {} records: {:.3} s", log.head().tree().size, took.as_secs_f64()))
}

/// Callers that each begin and end one operation after the other.
async fn append(what: &str, storage: Arc<dyn ObjectStore>, callers: u32, each: u32) -> Result {
    let log = open(storage).await?;
    let begun = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut waited = Vec::new();
            for _ in 0..each {
                let asked = Instant::now();
                let (open, _receipt) = log.begin(intent(&log, caller)?).await?;
                waited.push(asked.elapsed());
                open.finish(OutcomeResult::Ok, None).await?;
            }
            Result::Ok(waited)
        })
    });
    let mut waited = Vec::new();
    for task in try_join_all(tasks).await? {
        waited.extend(task?);
    }
    let took = begun.elapsed().as_secs_f64();
    waited.sort_unstable();
    let p99 = waited[waited.len() * 99 / 100].as_secs_f64() * 1000.0;
    let records = 2.0 * f64::from(callers) * f64::from(each);
    let rate = records / took;
    say(&format!("{what}, {callers} callers: {rate:.0} records/s durable, begin p99 {p99:.1} ms"))?;
    Ok(log.close().await?)
}

/// A log of about so many records in memory, so many operations in a commit: on one
/// thread, so that all of them are queued before the next commit is made.
async fn grown(records: u32, together: u32) -> Result<Arc<dyn ObjectStore>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let growing = move || {
        let grown = runtime.block_on(grow(records, together));
        drop(runtime);
        grown
    };
    tokio::task::spawn_blocking(growing).await?
}

async fn grow(records: u32, together: u32) -> Result<Arc<dyn ObjectStore>> {
    let storage: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let log = open(Arc::clone(&storage)).await?;
    for _ in 0..records / 2 / together {
        let intents = (0..together).map(|number| intent(&log, number)).collect::<Result<_>>()?;
        let begun = log.begin_all(intents).await?;
        try_join_all(begun.into_iter().map(|(open, _receipt)| open.finish(OutcomeResult::Ok, None))).await?;
    }
    log.close().await?;
    Ok(storage)
}

async fn verified(what: &str, storage: Arc<dyn ObjectStore>) -> Result {
    let begun = Instant::now();
    let report = verify(storage, Options::new(SystemClock.now())).await?;
    let took = begun.elapsed().as_secs_f64();
    if !report.is_ok() {
        return Err(format!("the log does not verify: {:?}", report.findings.first()).into());
    }
    let shard = report.shards.first().ok_or("there is no shard")?;
    let records = u32::try_from(shard.tree.size)?;
    let rate = f64::from(records) / took;
    say(&format!("{what}: {rate:.0} records/s ({records} in {} commits, {took:.2} s)", shard.commits))
}

async fn open(storage: Arc<dyn ObjectStore>) -> Result<Log> {
    let seed = Secret::init(|seed| *seed = [1; 32]);
    let signer: Arc<dyn LogSigner> = Arc::new(LocalSigner::new(SecretKey::from_seed(&seed)));
    let store = StoreId::from_bytes([1; 16]);
    let config = LogConfig::new(store, Arc::clone(&signer));
    let marker = Marker { store, log_key: signer.public() };
    marker.write(&*storage).await?;
    Ok(Log::open(storage, config, Arc::new(SystemClock), Arc::new(SystemEntropy)).await?)
}

fn intent(log: &Log, number: u32) -> Result<Intent> {
    let access = Access::new(Principal::service("bench")?, Purpose::Operations);
    let mut intent = Intent::new(log.request_id()?, &access, Action::Seal);
    intent.customer = Some(CustomerId::from_bytes([u8::try_from(number % CUSTOMERS)?; 16]));
    Ok(intent)
}

fn say(line: &str) -> Result {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// A storage that takes its time.
#[derive(Debug)]
struct Far(InMemory);

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Far")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Far {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        tokio::time::sleep(FAR).await;
        self.0.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        tokio::time::sleep(FAR).await;
        self.0.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.0.copy_opts(from, to, options).await
    }
}
