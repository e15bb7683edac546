//! Mixed operations on one daemon, as many as are asked for, and the count afterwards: nothing
//! that was acknowledged is lost, and each operation is on the record. Used by the bench `load` and, in
//! short, by `tests/daemon_load.rs`.
//!
//! Of 100 operations 10 seal 4 KiB, 60 open, 15 look (stat), 10 list a page of 10 and 5
//! verify, over HTTP/1.1 on the Unix socket.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use strongroom::audit::signer::LocalSigner;
use strongroom::audit::{Event, OutcomeResult};
use strongroom::id::RequestId;
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{Options, Strongroom};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};
use strongroom::time::Clock;
use strongroom::tlog::NamedKey;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use dice::Dice;

#[path = "dice.rs"]
mod dice;

pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BLOB_LEN: usize = 4096;
const CUSTOMERS: usize = 8;

/// What is to be done.
#[derive(Clone, Copy)]
pub struct Plan {
    pub operations: u64,
    /// How many clients ask at once, each on a connection of its own.
    pub clients: u64,
    /// How often it is said how it goes.
    pub every: Duration,
}

/// What came of it. What must not be is an error and not a figure.
pub struct Report {
    pub took: Duration,
    pub sealed: usize,
    /// From the first to the last, so often as the plan has it.
    pub samples: Vec<Sample>,
}

/// The daemon at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub done: u64,
    pub resident_kib: u64,
    /// Unless they are hidden from whoever asks: a daemon is not to be looked into.
    pub descriptors: Option<usize>,
}

/// Runs it in `directory`, which is empty, and says how it goes.
pub async fn run(program: &Path, directory: &Path, plan: Plan, say: fn(&str)) -> Result<Report> {
    // It is to show what it can do, and not what one client may take.
    let limits = "connections_per_peer = 512\nrequests_per_second = 1000000\nburst = 1000000\n\
        concurrent_per_principal = 512\nconcurrent_per_customer = 512\n";
    let place = Place::new(program, directory, CUSTOMERS, limits)?;
    let daemon = place.serve("socket")?;
    let shared = Arc::new(Shared {
        place,
        begun: AtomicU64::new(0),
        done: AtomicU64::new(0),
        blobs: Mutex::default(),
        requests: Mutex::default(),
    });
    // Something to open for those who begin.
    let mut first = Client::connect(&shared).await?;
    for number in 0..CUSTOMERS {
        first.seal(number).await?;
    }
    let begun = SystemClock.uptime();
    let samples = Arc::new(Mutex::new(Vec::new()));
    let watching =
        tokio::spawn(watch(Arc::clone(&shared), daemon.0.id(), plan.every, Arc::clone(&samples), say));
    let mut clients = JoinSet::new();
    for number in 0..plan.clients {
        let shared = Arc::clone(&shared);
        clients.spawn(async move { client(&shared, number + 1, plan.operations).await });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let took = SystemClock.uptime().saturating_sub(begun);
    watching.abort();
    let _ = watching.await;
    let mut samples = std::mem::take(&mut *held(&samples));
    samples.extend(sample(daemon.0.id(), shared.done.load(Ordering::Relaxed)));

    let blobs = held(&shared.blobs).clone();
    say(&format!("opening all {} blobs that were acknowledged", blobs.len()));
    let sealed = blobs.len();
    open_all(&shared, blobs, plan.clients).await?;
    daemon.end()?;
    say("verifying the log");
    shared.place.strongroom(&["audit", "verify"])?;
    let requests = std::mem::take(&mut *held(&shared.requests));
    let records = shared.place.count(&requests).await?;
    say(&format!(
        "the log has all {} requests, with their outcomes, in {records} records",
        shared.done.load(Ordering::Relaxed)
    ));
    Ok(Report { took, sealed, samples })
}

/// What all clients share.
struct Shared {
    place: Place,
    begun: AtomicU64,
    done: AtomicU64,
    /// What was acknowledged.
    blobs: Mutex<Vec<Blob>>,
    /// The requests that were answered as they should be.
    requests: Mutex<Vec<RequestId>>,
}

#[derive(Clone)]
struct Blob {
    customer: usize,
    id: String,
    /// What its bytes are made of.
    seed: u64,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn client(shared: &Arc<Shared>, number: u64, operations: u64) -> Result {
    let mut client = Client::connect(shared).await?;
    let mut dice = Dice::new(number, 0);
    while shared.begun.fetch_add(1, Ordering::Relaxed) < operations {
        let blob = {
            let blobs = held(&shared.blobs);
            blobs[dice.index(blobs.len())].clone()
        };
        match dice.index(100) {
            0..10 => client.seal(dice.index(CUSTOMERS)).await?,
            10..70 => client.open(&blob).await?,
            70..85 => client.stat(&blob).await?,
            85..95 => client.list(blob.customer).await?,
            _ => client.verify(&blob).await?,
        }
        shared.done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn open_all(shared: &Arc<Shared>, blobs: Vec<Blob>, clients: u64) -> Result {
    let mut openers = JoinSet::new();
    for part in blobs.chunks(blobs.len().div_ceil(usize::try_from(clients)?)) {
        let (shared, part) = (Arc::clone(shared), part.to_vec());
        openers.spawn(async move {
            let mut client = Client::connect(&shared).await?;
            for blob in part {
                client.open(&blob).await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        });
    }
    while let Some(ended) = openers.join_next().await {
        ended??;
    }
    Ok(())
}

/// One connection.
struct Client {
    shared: Arc<Shared>,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn connect(shared: &Arc<Shared>) -> Result<Self> {
        let stream = UnixStream::connect(shared.place.directory.join("socket")).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { shared: Arc::clone(shared), sender })
    }

    /// Asks on the blobs of a customer.
    async fn ask(
        &mut self,
        method: Method,
        customer: usize,
        more: &str,
        body: Vec<u8>,
        expected: StatusCode,
    ) -> Result<Bytes> {
        let path = format!("/v1/customers/{}/blobs{more}", self.shared.place.customers[customer]);
        let request = Request::builder().method(&method).uri(&path).header("host", "localhost");
        self.sender.ready().await?;
        let response = self.sender.send_request(request.body(Full::from(body))?).await?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        if parts.status != expected {
            let told = String::from_utf8_lossy(&body);
            return Err(format!("{method} {path} was answered {}: {told}", parts.status).into());
        }
        let name = parts.headers.get("strongroom-request").ok_or("the request has no name")?;
        held(&self.shared.requests).push(name.to_str()?.parse()?);
        Ok(body)
    }

    async fn seal(&mut self, customer: usize) -> Result {
        let seed = held(&self.shared.requests).len().try_into()?;
        let sealed = self.ask(Method::POST, customer, "", content(seed), StatusCode::CREATED).await?;
        let sealed: Value = serde_json::from_slice(&sealed)?;
        let id = sealed["blob"].as_str().ok_or("a sealed blob has no id")?.to_owned();
        held(&self.shared.blobs).push(Blob { customer, id, seed });
        Ok(())
    }

    async fn open(&mut self, blob: &Blob) -> Result {
        let more = format!("/{}", blob.id);
        let opened = self.ask(Method::GET, blob.customer, &more, Vec::new(), StatusCode::OK).await?;
        if opened != content(blob.seed) {
            return Err(format!("the blob {} has other bytes than were sealed", blob.id).into());
        }
        Ok(())
    }

    async fn stat(&mut self, blob: &Blob) -> Result {
        let more = format!("/{}/metadata", blob.id);
        let told = self.ask(Method::GET, blob.customer, &more, Vec::new(), StatusCode::OK).await?;
        let told: Value = serde_json::from_slice(&told)?;
        if told["bytes"] != BLOB_LEN {
            return Err(format!("the blob {} has another length than was sealed", blob.id).into());
        }
        Ok(())
    }

    async fn verify(&mut self, blob: &Blob) -> Result {
        let more = format!("/{}/verification", blob.id);
        self.ask(Method::POST, blob.customer, &more, Vec::new(), StatusCode::OK).await.map(drop)
    }

    async fn list(&mut self, customer: usize) -> Result {
        let told = self.ask(Method::GET, customer, "?limit=10", Vec::new(), StatusCode::OK).await?;
        let told: Value = serde_json::from_slice(&told)?;
        let blobs = told["blobs"].as_array().ok_or("a page has no blobs")?;
        if blobs.is_empty() || blobs.iter().any(|blob| blob["bytes"] != BLOB_LEN) {
            return Err("a page is not of blobs that were sealed".into());
        }
        Ok(())
    }
}

/// The bytes of a blob: no two have the same.
fn content(seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed, 1);
    (0..BLOB_LEN / 8).flat_map(|_| dice.next().to_le_bytes()).collect()
}

/// Looks at the daemon again and again, and says what it saw.
async fn watch(
    shared: Arc<Shared>,
    pid: u32,
    every: Duration,
    samples: Arc<Mutex<Vec<Sample>>>,
    say: fn(&str),
) {
    let mut before = (SystemClock.uptime(), 0);
    loop {
        sleep(every).await;
        let Some(sample) = sample(pid, shared.done.load(Ordering::Relaxed)) else { return };
        let now = (SystemClock.uptime(), sample.done);
        let rate =
            (now.1 - before.1) * 1_000_000 / u64::try_from((now.0 - before.0).as_micros()).unwrap_or(1);
        before = now;
        let descriptors = sample.descriptors.map_or("hidden".to_owned(), |count| count.to_string());
        let Sample { done, resident_kib, .. } = sample;
        say(&format!(
            "{done:9} done {rate:7} /s {:6} MiB resident, descriptors {descriptors}",
            resident_kib / 1024
        ));
        held(&samples).push(sample);
    }
}

/// What Linux tells of a process. `None` once it is gone.
pub fn sample(pid: u32, done: u64) -> Option<Sample> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).ok().map(Iterator::count);
    Some(Sample { done, resident_kib, descriptors })
}

/// A store with some customers, and what daemons on it need.
pub struct Place {
    pub directory: PathBuf,
    pub customers: Vec<String>,
    program: PathBuf,
    limits: String,
}

/// Killed when it is dropped.
pub struct Daemon(pub Child);

impl Place {
    /// `limits` is a part of the daemon's configuration.
    pub fn new(program: &Path, directory: &Path, customers: usize, limits: &str) -> Result<Self> {
        let mut place = Self {
            directory: directory.to_owned(),
            customers: Vec::new(),
            program: program.to_owned(),
            limits: limits.to_owned(),
        };
        place.strongroom(&["init", "-q"])?;
        for number in 0..customers {
            let label = format!("customer-{number}");
            place.strongroom(&["customer", "add", &label, "--kms", "local", "-q"])?;
            let shown: Value =
                serde_json::from_slice(&place.strongroom(&["--json", "customer", "show", &label])?)?;
            place.customers.push(shown["customer"].as_str().ok_or("a customer has no id")?.to_owned());
        }
        let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(directory)?);
        let principals = format!(
            "[[principal]]\nid = \"unix:{uid}\"\nroles = [\"writer\", \"reader\"]\ncustomers = \"all\"\n\
             phi = true\ntrained_until = \"9999-12-31\"\nuid = [{uid}]\n"
        );
        std::fs::write(directory.join("principals.toml"), principals)?;
        Ok(place)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().current_dir(&self.directory).stdin(Stdio::null());
        command.arg("--store").arg(self.directory.join("store"));
        command.arg("--local-kms").arg(self.directory.join("kms")).args(args);
        command
    }

    pub fn strongroom(&self, args: &[&str]) -> Result<Vec<u8>> {
        let output = self.command(args).output()?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }

    /// A daemon that listens on a Unix socket of this name.
    pub fn serve(&self, socket: &str) -> Result<Daemon> {
        let config = format!(
            "principals = \"principals.toml\"\n[listen]\nunix = \"{socket}\"\n[limits]\n{}",
            self.limits
        );
        let file = format!("{socket}.toml");
        std::fs::write(self.directory.join(&file), config)?;
        let daemon = Daemon(self.command(&["serve", "--config", &file]).stdout(Stdio::null()).spawn()?);
        let socket = self.directory.join(socket);
        for _ in 0..2000 {
            if std::os::unix::net::UnixStream::connect(&socket).is_ok() {
                return Ok(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the daemon does not listen".into())
    }

    /// Reads the whole log: each request that was answered has an intent at least, each
    /// intent one outcome, and each of them went as it should. How many records there are
    /// is returned.
    async fn count(&self, requests: &[RequestId]) -> Result<u64> {
        let key = std::fs::read_to_string(self.directory.join("kms/log.key"))?;
        let signer = LocalSigner::new(NamedKey::parse(key.trim_end())?.into_secret());
        let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
        let kms = InsecureLocalKms::open(self.directory.join("kms"), clock.clone(), entropy)?;
        let urls = StorageUrls::new(StorageUrl::directory(self.directory.join("store"))?);
        let storages = Storages::open(&urls, CreateRoot::No, clock).await?;
        let registry = KmsRegistry::new().with(Arc::new(kms));
        let room = Strongroom::open(storages, registry, Options::new(Arc::new(signer))).await?;
        let (mut open, mut begun, mut records) = (HashMap::new(), HashSet::new(), 0);
        let reader = room.log_reader();
        let mut shards = Vec::new();
        for shard in reader.shards().await? {
            shards.push(reader.shard(shard).await?.commits(0..u64::MAX, None));
        }
        let mut commits = futures_util::stream::select_all(shards);
        while let Some(commit) = commits.try_next().await? {
            for record in commit.into_records() {
                records += 1;
                match record.event {
                    Event::Intent(intent) => {
                        begun.extend(intent.cause);
                        open.insert(intent.request, intent.action);
                    }
                    Event::Outcome(outcome) => {
                        let action = open.remove(&outcome.request).ok_or("an outcome is of no intent")?;
                        if outcome.result != OutcomeResult::Ok {
                            return Err(format!("a {action:?} is recorded as {:?}", outcome.result).into());
                        }
                    }
                    _ => {}
                }
            }
        }
        room.close().await?;
        if !open.is_empty() {
            return Err(format!("{} intents have no outcome", open.len()).into());
        }
        match requests.iter().filter(|request| !begun.contains(request)).count() {
            0 => Ok(records),
            lost => Err(format!("{lost} requests that were answered are not on the record").into()),
        }
    }
}

impl Daemon {
    /// Ends it in order.
    pub fn end(mut self) -> Result {
        let asked = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status()?;
        let ended = self.0.wait()?;
        match asked.success() && ended.success() {
            true => Ok(()),
            false => Err(format!("the daemon ended with {ended}").into()),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
