//! Storages in memory that fail, each as one program reaches it, and a trace of all requests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use strongroom::store::Storages;
use strongroom::time::Timestamp;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::clock::{RightClock, Truth};
use super::dice::Dice;

/// How many requests are remembered, to be shown when something is wrong.
const REMEMBERED: usize = 400;

/// Which of a store's storages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Blobs,
    Keys,
    Audit,
}

impl Place {
    pub const ALL: [Self; 3] = [Self::Blobs, Self::Keys, Self::Audit];
}

/// How storages and KMS behave at present, by requests in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    /// Fail, and nothing happens.
    pub fails: u64,
    /// Do what is asked, and the answer is lost.
    pub loses: u64,
    /// Take some seconds.
    pub slow: u64,
    /// Take longer than any deadline, and then happen or not.
    pub late: u64,
    /// This storage fails whatever it is asked.
    pub out: Option<Place>,
    /// The KMS fails whatever it is asked.
    pub kms_out: bool,
}

impl Mood {
    pub fn is_calm(&self) -> bool {
        self.fails + self.loses + self.slow + self.late == 0 && self.out.is_none() && !self.kms_out
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Plain,
    /// The caller hears nothing; whether it happens.
    Lost {
        effect: bool,
    },
}

/// One request, as it is remembered.
#[derive(Clone, Debug)]
struct Line {
    at: Duration,
    who: u32,
    what: &'static str,
    path: Option<Path>,
    outcome: u8,
}

#[derive(Debug)]
struct Sky {
    mood: Mood,
    dice: Dice,
    digest: u64,
    requests: u64,
    lines: VecDeque<Line>,
    faults: BTreeMap<&'static str, u64>,
}

/// What all requests of a world meet, and their trace.
#[derive(Debug)]
pub struct Weather {
    truth: Arc<Truth>,
    sky: Mutex<Sky>,
}

impl Weather {
    pub fn new(truth: &Arc<Truth>, dice: Dice) -> Arc<Self> {
        let (lines, faults) = (VecDeque::new(), BTreeMap::new());
        let sky = Sky { mood: Mood::default(), dice, digest: 0, requests: 0, lines, faults };
        Arc::new(Self { truth: Arc::clone(truth), sky: Mutex::new(sky) })
    }

    fn sky(&self) -> MutexGuard<'_, Sky> {
        self.sky.lock().unwrap()
    }

    pub fn set(&self, mood: Mood) {
        self.sky().mood = mood;
    }

    /// A hash of all requests so far, in order, with their paths, times and outcomes.
    pub fn digest(&self) -> u64 {
        self.sky().digest
    }

    pub fn requests(&self) -> u64 {
        self.sky().requests
    }

    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.sky().faults.clone()
    }

    /// The last requests, one a line.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        for Line { at, who, what, path, outcome } in &self.sky().lines {
            let path = path.as_ref().map_or("", Path::as_ref);
            text += &format!("{:>14.3} node {who} {what} {path} -> {outcome}\n", at.as_secs_f64());
        }
        text
    }

    /// Notes how a request ended: 0 well, 1 refused, 7 the caller hears nothing.
    pub fn trace(&self, link: &Link, what: &'static str, path: Option<&Path>, outcome: u8) {
        let at = self.truth.elapsed();
        let mut sky = self.sky();
        let mut hasher = DefaultHasher::new();
        (sky.digest, at, link.name, what, path.map(Path::as_ref), outcome).hash(&mut hasher);
        sky.digest = hasher.finish();
        sky.requests += 1;
        if sky.lines.len() == REMEMBERED {
            sky.lines.pop_front();
        }
        sky.lines.push_back(Line { at, who: link.name, what, path: path.cloned(), outcome });
    }

    fn count(&self, fault: &'static str) {
        *self.sky().faults.entry(fault).or_default() += 1;
    }

    pub async fn meet_kms(&self, link: &Link) -> Fate {
        let out = self.sky().mood.kms_out;
        self.meet(link, out, true).await
    }

    async fn meet_storage(&self, link: &Link, place: Place, writes: bool) -> Fate {
        let out = self.sky().mood.out == Some(place);
        self.meet(link, out, writes).await
    }

    /// Waits as long as the request takes on its way, and says what becomes of it.
    async fn meet(&self, link: &Link, out: bool, writes: bool) -> Fate {
        if link.is_dead() {
            // Whoever waited for its steps has let go by then, and what it left running ends here.
            sleep(Duration::from_millis(1)).await;
            resume_unwind(Box::new("the program is dead"));
        }
        if link.calm {
            return Fate::Plain;
        }
        let (mut pause, mut fate) = (Duration::ZERO, Fate::Plain);
        {
            let mut sky = self.sky();
            let mood = sky.mood;
            pause += Duration::from_millis(sky.dice.between(1, 20));
            let coin = sky.dice.one_in(2);
            let mut note = None;
            let at = sky.dice.below(1000);
            let ends = [mood.fails, mood.loses, mood.slow, mood.late];
            let ends = ends.iter().scan(0, |sum, part| {
                *sum += part;
                Some(*sum)
            });
            match ends.take_while(|end| at >= *end).count() {
                _ if out => (note, fate) = (Some("out"), Fate::Lost { effect: false }),
                0 => (note, fate) = (Some("fails"), Fate::Lost { effect: false }),
                1 => (note, fate) = (Some("answer lost"), Fate::Lost { effect: true }),
                2 => {
                    (note, pause) = (Some("slow"), pause + Duration::from_millis(sky.dice.between(500, 6000)))
                }
                3 => {
                    pause += Duration::from_millis(sky.dice.between(5000, 60_000));
                    (note, fate) = (Some("late"), Fate::Lost { effect: coin });
                }
                _ => {}
            }
            if let Some(note) = note {
                *sky.faults.entry(note).or_default() += 1;
            }
        }
        sleep(pause).await;
        while let Some(span) = link.sleeps(self.truth.micros()) {
            sleep(span).await;
        }
        if link.is_dead() {
            // It was on its way when its program ended.
            let effect = self.sky().dice.one_in(2);
            return Fate::Lost { effect };
        }
        if writes && link.crashes_now() {
            self.count("crash at a write");
            let effect = self.sky().dice.one_in(2);
            return Fate::Lost { effect };
        }
        fate
    }
}

/// One run of one program: what it reaches anything through.
#[derive(Debug)]
pub struct Link {
    pub name: u32,
    /// Meets no faults and takes no time: for who judges.
    calm: bool,
    dead: AtomicBool,
    died: Notify,
    /// After how many writes it dies; zero is never.
    crash_in: AtomicU64,
    /// Until when its machine sleeps.
    until: AtomicU64,
}

impl Link {
    pub fn new(name: u32, calm: bool) -> Arc<Self> {
        let (dead, died, crash_in, until) = <(AtomicBool, Notify, AtomicU64, AtomicU64)>::default();
        Arc::new(Self { name, calm, dead, died, crash_in, until })
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(SeqCst)
    }

    pub fn kill(&self) {
        self.dead.store(true, SeqCst);
        self.died.notify_waiters();
    }

    /// Ends when the program is dead.
    pub async fn death(&self) {
        let died = self.died.notified();
        if !self.is_dead() {
            died.await;
        }
    }

    /// The program dies at its `k`-th write from now on (1 is the next).
    pub fn crash_at(&self, k: u64) {
        self.crash_in.store(k, SeqCst);
    }

    pub fn will_crash(&self) -> bool {
        self.crash_in.load(SeqCst) > 0
    }

    fn crashes_now(&self) -> bool {
        match self.crash_in.load(SeqCst) {
            0 => false,
            1 => {
                self.crash_in.store(0, SeqCst);
                self.kill();
                true
            }
            left => {
                self.crash_in.store(left - 1, SeqCst);
                false
            }
        }
    }

    /// The machine sleeps until then.
    pub fn suspend_until(&self, micros: u64) {
        self.until.store(micros, SeqCst);
    }

    /// Whether it was suspended at any time since, for whatever step.
    pub fn slept_since(&self, micros: u64) -> bool {
        self.until.load(SeqCst) > micros
    }

    fn sleeps(&self, now: u64) -> Option<Duration> {
        let left = self.until.load(SeqCst).saturating_sub(now);
        (left > 0).then(|| Duration::from_micros(left))
    }
}

/// What a storage really holds, and all that it ever held.
#[derive(Debug)]
pub struct Disk {
    pub place: Place,
    pub objects: InMemory,
    truth: Arc<Truth>,
    /// When each object was written, as the metadata of one that was.
    dates: Mutex<BTreeMap<Path, ObjectMeta>>,
    /// Everything that programs ever wrote, in order, and when.
    written: Mutex<Vec<(Path, Bytes, Timestamp)>>,
    /// The requests that commits of the log have.
    requests: Mutex<BTreeSet<String>>,
}

impl Disk {
    pub fn new(place: Place, truth: &Arc<Truth>) -> Arc<Self> {
        let (objects, dates, written) = (InMemory::new(), Mutex::default(), Mutex::default());
        let requests = Mutex::default();
        Arc::new(Self { place, objects, truth: Arc::clone(truth), dates, written, requests })
    }

    /// What programs wrote from the `from`-th object on.
    pub fn written_since(&self, from: usize) -> Vec<(Path, Bytes, Timestamp)> {
        self.written.lock().unwrap()[from..].to_vec()
    }

    /// Whether a commit has this request.
    pub fn has_request(&self, request: &str) -> bool {
        self.requests.lock().unwrap().contains(request)
    }

    pub async fn read(&self, path: &Path) -> Option<Bytes> {
        self.objects.get(path).await.ok()?.bytes().await.ok()
    }

    /// Puts an object there, or takes it away, by nobody's program.
    pub async fn tamper(&self, path: &Path, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => drop(self.objects.put(path, bytes.into()).await.unwrap()),
            None => drop(self.objects.delete(path).await),
        }
    }

    pub async fn paths(&self, prefix: Option<&Path>) -> Vec<Path> {
        let mut paths: Vec<Path> =
            self.objects.list(prefix).map_ok(|meta| meta.location).try_collect().await.unwrap();
        paths.sort();
        paths
    }

    fn note(&self, path: &Path, bytes: Option<Bytes>) {
        let now = self.truth.now();
        let meta = ObjectMeta {
            location: path.clone(),
            last_modified: now.to_string().parse().unwrap(),
            size: 0,
            e_tag: None,
            version: None,
        };
        self.dates.lock().unwrap().insert(path.clone(), meta);
        if let Some(bytes) = bytes {
            if path.as_ref().starts_with("wal/") {
                let text = String::from_utf8_lossy(&bytes);
                let requests = text.split("\"request\":\"").skip(1).filter_map(|rest| rest.split('"').next());
                self.requests.lock().unwrap().extend(requests.map(str::to_owned));
            }
            self.written.lock().unwrap().push((path.clone(), bytes, now));
        }
    }

    fn date(&self, meta: &mut ObjectMeta) {
        if let Some(dated) = self.dates.lock().unwrap().get(&meta.location) {
            meta.last_modified = dated.last_modified;
        }
    }
}

/// The three disks of a store.
#[derive(Clone, Debug)]
pub struct Disks {
    pub blobs: Arc<Disk>,
    pub keys: Arc<Disk>,
    pub audit: Arc<Disk>,
}

impl Disks {
    pub fn new(truth: &Arc<Truth>) -> Self {
        let [blobs, keys, audit] = Place::ALL.map(|place| Disk::new(place, truth));
        Self { blobs, keys, audit }
    }

    /// The storages of one program. With `clock`, they have a clock of their own.
    pub fn storages(&self, weather: &Arc<Weather>, link: &Arc<Link>, clock: bool) -> Storages {
        let store = |disk: &Arc<Disk>| {
            let (disk, link, weather) = (Arc::clone(disk), Arc::clone(link), Arc::clone(weather));
            Arc::new(Store { disk, link, weather }) as Arc<dyn ObjectStore>
        };
        let storages = Storages::from_parts(store(&self.blobs), store(&self.keys), store(&self.audit));
        if clock {
            return storages.with_clock(Arc::new(RightClock(Arc::clone(&weather.truth))));
        }
        storages
    }
}

/// One storage as one program reaches it.
#[derive(Clone, Debug)]
pub struct Store {
    disk: Arc<Disk>,
    link: Arc<Link>,
    weather: Arc<Weather>,
}

fn silence() -> Error {
    Error::Generic { store: "simulation", source: "the storage does not answer".into() }
}

impl Store {
    async fn meet(&self, writes: bool) -> Fate {
        self.weather.meet_storage(&self.link, self.disk.place, writes).await
    }

    fn done<T>(&self, what: &'static str, path: Option<&Path>, fate: Fate, result: Result<T>) -> Result<T> {
        let outcome = match (&fate, &result) {
            (Fate::Lost { effect }, _) => 7 + u8::from(*effect),
            (_, Err(Error::AlreadyExists { .. })) => 2,
            (_, Err(Error::NotFound { .. })) => 3,
            (_, Err(_)) => 1,
            _ => 0,
        };
        self.weather.trace(&self.link, what, path, outcome);
        match fate {
            Fate::Lost { .. } => Err(silence()),
            Fate::Plain => result,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.disk.place)
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let this = self.clone();
        let (path, bytes) = (location.clone(), Bytes::from(payload.clone()));
        // A request whose caller no longer waits may take effect all the same.
        let put = tokio::spawn(async move {
            let fate = this.meet(true).await;
            let mut result = Err(silence());
            if fate != (Fate::Lost { effect: false }) {
                result = this.disk.objects.put_opts(&path, payload, opts).await;
                if result.is_ok() {
                    this.disk.note(&path, Some(bytes));
                }
            }
            this.done("put", Some(&path), fate, result)
        });
        put.await.unwrap_or_else(|ended| resume_unwind(ended.into_panic()))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fate = self.meet(false).await;
        let begun = self.disk.objects.put_multipart_opts(location, opts).await;
        let inner = self.done("begin", Some(location), fate, begun)?;
        Ok(Box::new(Upload { inner, store: self.clone(), path: location.clone() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "head" } else { "get" };
        let fate = self.meet(false).await;
        let mut got = self.disk.objects.get_opts(location, options).await;
        if let Ok(got) = &mut got {
            self.disk.date(&mut got.meta);
        }
        self.done(what, Some(location), fate, got)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |path| {
                let store = store.clone();
                async move {
                    let path = path?;
                    let fate = store.meet(true).await;
                    if fate != (Fate::Lost { effect: false }) {
                        store.disk.objects.delete(&path).await?;
                    }
                    store.done("delete", Some(&path.clone()), fate, Ok(path))
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let offset = None;
        self.listed(prefix.cloned(), offset)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fate = self.meet(false).await;
        let mut listed = self.disk.objects.list_with_delimiter(prefix).await;
        if let Ok(listed) = &mut listed {
            listed.objects.iter_mut().for_each(|meta| self.disk.date(meta));
        }
        self.done("level", prefix, fate, listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fate = self.meet(true).await;
        let copied = self.disk.objects.copy_opts(from, to, options).await;
        self.disk.note(to, None);
        self.done("copy", Some(to), fate, copied)
    }
}

impl Store {
    /// What is there when the request arrives.
    fn listed(&self, prefix: Option<Path>, offset: Option<Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let store = self.clone();
        let found = async move {
            let fate = store.meet(false).await;
            let list = match &offset {
                Some(offset) => store.disk.objects.list_with_offset(prefix.as_ref(), offset),
                None => store.disk.objects.list(prefix.as_ref()),
            };
            let mut found: Vec<ObjectMeta> = list.try_collect().await?;
            found.sort_by(|a, b| a.location.cmp(&b.location));
            found.iter_mut().for_each(|meta| store.disk.date(meta));
            store.done("list", prefix.as_ref(), fate, Ok(found))
        };
        stream::once(found).map_ok(|found| stream::iter(found).map(Ok)).try_flatten().boxed()
    }
}

/// A blob of several parts.
#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    store: Store,
    path: Path,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        let (store, path) = (self.store.clone(), self.path.clone());
        Box::pin(async move {
            let fate = store.meet(true).await;
            let result = if fate == (Fate::Lost { effect: false }) { Ok(()) } else { part.await };
            store.done("part", Some(&path), fate, result)
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fate = self.store.meet(true).await;
        if fate == (Fate::Lost { effect: false }) {
            return self.store.done("complete", Some(&self.path), fate, Err(silence()));
        }
        let result = self.inner.complete().await;
        self.store.disk.note(&self.path, None);
        self.store.done("complete", Some(&self.path), fate, result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
