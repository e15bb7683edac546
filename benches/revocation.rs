//! How long bytes still flow after a session was ended, or a customer's key was disabled in the
//! KMS: from the moment that is done until the last byte reaches a client of the daemon.
//!
//! `cargo bench --bench revocation`. A client on the Unix socket of a daemon of its own reads a
//! blob of 1 GiB at 64 MiB/s; meanwhile the session is ended through that daemon, or by another
//! node of the same store, or the key is disabled at the local provider. Five times each, with
//! the bounds that the daemon is configured with. A stream that outlives its bound ends the
//! bench with an error.

#[path = "../tests/common/signer.rs"]
mod signer;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use strongroom::access::{Access, Principal, Purpose};
use strongroom::id::BlobId;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{KmsDestroyer, KmsRegistry};
use strongroom::ring::Tenancy;
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Source, Strongroom};
use strongroom::session::SessionLimits;
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const MIB: u64 = 1 << 20;
const LENGTH: u64 = 1024 * MIB;
/// How many bytes a second the client takes.
const RATE: u64 = 64 * MIB;
const TIMES: usize = 5;
const CACHE_SECONDS: u64 = 10;
const SESSION_CHECK_SECONDS: u64 = 5;
/// What is on its way when the last look was good: a piece of 1 MiB four times over, the
/// client's own pace, and a busy machine.
const SLACK: Duration = Duration::from_secs(1);

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let world = runtime.block_on(World::new(directory.path()))?;
    say(&format!(
        "bounds: {CACHE_SECONDS} s for a key, {SESSION_CHECK_SECONDS} s for a session on another node\n"
    ))?;
    measured("a session ended through the same daemon", Duration::ZERO, || {
        let session = runtime.block_on(world.session())?;
        world.cut(Some(&session), || world.end_by_daemon(&session))
    })?;
    measured("a session ended by another node", Duration::from_secs(SESSION_CHECK_SECONDS), || {
        let session = runtime.block_on(world.session())?;
        world.cut(Some(&session), || {
            let (room, customer) = (&world.room, world.own.id());
            Ok(runtime.block_on(room.end_session(&access(), customer, session.parse()?)).map(drop)?)
        })
    })?;
    measured("a key disabled in the KMS", Duration::from_secs(CACHE_SECONDS), || {
        let key = runtime.block_on(world.held.info())?.kms_key;
        let cut = world.cut(None, || Ok(runtime.block_on(world.kms.disable(&key))?));
        runtime.block_on(world.kms.enable(&key))?;
        cut
    })?;
    runtime.block_on(world.room.close())?;
    Ok(())
}

fn measured(what: &str, bound: Duration, mut once: impl FnMut() -> Result<Duration>) -> Result {
    let mut all = (0..TIMES).map(|_| once()).collect::<Result<Vec<_>>>()?;
    all.sort_unstable();
    let milliseconds = |at: usize| all[at].as_millis();
    say(&format!(
        "{what}: last byte after {} ms (median), {} ms (longest of {TIMES})\n",
        milliseconds(TIMES / 2),
        milliseconds(TIMES - 1)
    ))?;
    match all[TIMES - 1] <= bound + SLACK {
        true => Ok(()),
        false => Err(format!("{what}: longer than {} ms", bound.as_millis()).into()),
    }
}

fn say(line: &str) -> Result {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    Ok(out.flush()?)
}

fn access() -> Access {
    Access::new(Principal::service("bench").expect("it is a slug"), Purpose::Operations)
}

struct World {
    daemon: Child,
    socket: std::path::PathBuf,
    kms: Arc<InsecureLocalKms>,
    room: Strongroom,
    own: Customer,
    held: Customer,
    in_own: BlobId,
    in_held: BlobId,
}

impl World {
    async fn new(directory: &Path) -> Result<Self> {
        let keys = directory.join("kms");
        let kms = Arc::new(InsecureLocalKms::open(keys, Arc::new(SystemClock), Arc::new(SystemEntropy))?);
        let registry = KmsRegistry::new().with(Arc::clone(&kms) as _).with_grants(Arc::clone(&kms) as _);
        let root = StorageUrl::directory(directory.join("store"))?;
        let storages =
            Storages::open(&StorageUrls::new(root), CreateRoot::Yes, Arc::new(SystemClock)).await?;
        let options = Options::new(signer::signer());
        let epoch = KeyChoice::New("local".into());
        let (room, _) = Strongroom::init(storages, registry, epoch, &access(), options).await?;
        let (own, in_own) = filled(&room, "own", Tenancy::Customer).await?;
        let (held, in_held) = filled(&room, "held", Tenancy::Held).await?;
        let socket = directory.join("socket");
        let daemon = serve(directory, &socket)?;
        Ok(Self { daemon, socket, kms, room, own, held, in_own, in_held })
    }

    async fn session(&self) -> Result<String> {
        let session = self.room.open_session(&access(), self.own.id(), SessionLimits::DEFAULT).await?;
        Ok(session.id.to_string())
    }

    fn ask(&self, method: &str, path: &str, headers: &str) -> Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n{headers}\r\n")?;
        Ok(stream)
    }

    fn end_by_daemon(&self, session: &str) -> Result {
        let path = format!("/v1/customers/{}/sessions/{session}/end", self.own.id());
        let mut answer = String::new();
        self.ask("POST", &path, "content-length: 0\r\n")?.read_to_string(&mut answer)?;
        match answer.starts_with("HTTP/1.1 200") {
            true => Ok(()),
            false => Err(answer.into()),
        }
    }

    /// Reads a blob, has it cut after a second, and says how long it went on.
    fn cut(&self, session: Option<&str>, cut: impl FnOnce() -> Result) -> Result<Duration> {
        let (customer, blob) = match session {
            Some(_) => (self.own.id(), self.in_own),
            None => (self.held.id(), self.in_held),
        };
        let header = session.map_or_else(String::new, |session| format!("strongroom-session: {session}\r\n"));
        let stream = self.ask("GET", &format!("/v1/customers/{customer}/blobs/{blob}"), &header)?;
        let reading = thread::spawn(move || take(stream));
        thread::sleep(Duration::from_secs(1));
        cut()?;
        let done = Instant::now();
        let (bytes, last) = reading.join().map_err(|_| "the client panicked")??;
        if !(RATE / 4..LENGTH).contains(&bytes) {
            return Err(format!("{bytes} bytes came: that was not cut while it flowed").into());
        }
        Ok(last.saturating_duration_since(done))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Takes what comes, at the client's pace. How much that was, and when the last of it came.
fn take(mut stream: UnixStream) -> Result<(u64, Instant)> {
    let mut buffer = vec![0; 256 * 1024];
    let (begun, mut bytes, mut last) = (Instant::now(), 0_u64, Instant::now());
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        last = Instant::now();
        bytes += u64::try_from(count)?;
        let due = Duration::from_micros(bytes * 1_000_000 / RATE);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    Ok((bytes, last))
}

async fn filled(room: &Strongroom, label: &str, tenancy: Tenancy) -> Result<(Customer, BlobId)> {
    let mut new = NewCustomer::new(label.parse()?, KeyChoice::New("local".into()));
    new.tenancy = tenancy;
    room.add_customer(&access(), new).await?;
    let customer = room.customer(&label.parse()?, access()).await?;
    let bytes = Source::blocking(std::io::repeat(7).take(LENGTH));
    let blob = customer.seal(bytes, SealOptions::new()).await?.id;
    Ok((customer, blob))
}

fn serve(directory: &Path, socket: &Path) -> Result<Child> {
    signer::write_key(&directory.join("log.key"));
    let uid = rustix::process::getuid().as_raw();
    let principals = format!(
        "[[principal]]\nid = \"unix:{uid}\"\nroles = [\"reader\"]\ncustomers = \"all\"\nphi = true\n\
         trained_until = \"9999-12-31\"\nuid = [{uid}]\n"
    );
    let principals = principals.replace("\"reader\"", "\"reader\", \"operator\"");
    let path = |name: &str| directory.join(name).display().to_string();
    let daemon = format!(
        "principals = \"principals.toml\"\n[store]\nurl = \"{}\"\nlocal_kms = \"{}\"\nlog_key = \"{}\"\n\
         [listen]\nunix = \"socket\"\n[keys]\ncache_seconds = {CACHE_SECONDS}\n\
         session_check_seconds = {SESSION_CHECK_SECONDS}\n",
        path("store"),
        path("kms"),
        path("log.key"),
    );
    fs::write(directory.join("principals.toml"), principals)?;
    fs::write(directory.join("daemon.toml"), daemon)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
    command.args(["serve", "--json", "--config"]).arg(directory.join("daemon.toml"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
    match socket.exists() {
        true => Ok(child),
        false => Err(format!("the daemon does not listen: {line}").into()),
    }
}
