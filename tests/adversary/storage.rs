//! Storages that answer as somebody wants who may add, replace, delete, roll back and reorder what is
//! on them, at any request: between two requests of one operation as well as between operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::dice::Dice;

/// Blobs, keys, audit.
pub const STORAGES: [&str; 3] = ["blobs", "keys", "audit"];
pub const BLOBS: usize = 0;
pub const KEYS: usize = 1;
pub const AUDIT: usize = 2;

/// What lies on one storage.
pub type Objects = BTreeMap<Path, Bytes>;

/// Objects of the attacker's own making, by the storage that they are for, and what goes with them. It
/// is done together.
#[derive(Clone, Debug)]
pub struct Plan {
    pub what: &'static str,
    pub objects: Vec<(usize, Path, Option<Bytes>)>,
}

/// The attacker, and all three storages below. Clones share everything.
#[derive(Clone)]
pub struct Hostile(Arc<Mutex<State>>);

struct State {
    dice: Dice,
    raw: [Arc<InMemory>; 3],
    /// What the store's own programs wrote last, by path.
    honest: [Objects; 3],
    /// Everything that they ever wrote.
    past: [Vec<(Path, Bytes)>; 3],
    /// Earlier moments of all three.
    marks: Vec<[Objects; 3]>,
    touched: [BTreeSet<Path>; 3],
    reach: [bool; 3],
    plans: Vec<Plan>,
    /// Objects of another store.
    foreign: [Vec<(Path, Bytes)>; 3],
    /// How often one of how many requests is used for a step, and how many steps there are left.
    left: u64,
    one_in: u64,
    counts: BTreeMap<String, u64>,
    trace: Vec<String>,
}

fn now<T>(future: impl Future<Output = Result<T>>) -> T {
    future.now_or_never().expect("memory answers at once").expect("memory does not fail")
}

/// The first segment of a path: what kind of object it is.
fn kind(path: &Path) -> &str {
    path.as_ref().split('/').next().unwrap_or_default()
}

/// The same path with another last number: a later version, place or shard.
fn neighbour(path: &Path, by: u64) -> Path {
    let text = path.as_ref();
    let (front, last) = text.rsplit_once('/').unwrap_or(("", text));
    let next = match (last.len(), u64::from_str_radix(last, 16), last.parse::<u64>()) {
        (16, Ok(number), _) => format!("{:016x}", number.wrapping_add(by)),
        (length, _, Ok(number)) => format!("{:0length$}", number.wrapping_add(by)),
        _ => format!("{last}0"),
    };
    Path::from(format!("{front}/{next}"))
}

/// A path with some segments of the one and some of the other.
fn between(one: &Path, other: &Path, which: u64) -> Path {
    let mixed = one.as_ref().split('/').zip(other.as_ref().split('/')).enumerate();
    Path::from_iter(mixed.map(|(at, (one, other))| if which >> (at % 3) & 1 == 0 { one } else { other }))
}

impl State {
    fn objects(&self, at: usize) -> Objects {
        let raw = &self.raw[at];
        let listed: Vec<ObjectMeta> = now(raw.list(None).try_collect());
        listed
            .into_iter()
            .map(|meta| (meta.location.clone(), self.read(at, &meta.location).unwrap()))
            .collect()
    }

    fn read(&self, at: usize, path: &Path) -> Option<Bytes> {
        let found = self.raw[at].get(path).now_or_never().expect("memory answers at once").ok()?;
        Some(now(found.bytes()))
    }

    fn put(&mut self, at: usize, path: &Path, bytes: Bytes) {
        now(self.raw[at].put(path, bytes.into()));
        self.touched[at].insert(path.clone());
    }

    fn delete(&mut self, at: usize, path: &Path) {
        if self.read(at, path).is_some() {
            now(self.raw[at].delete(path));
        }
        self.touched[at].insert(path.clone());
    }

    /// All of a storage is as it was.
    fn become_of(&mut self, at: usize, then: &Objects) {
        let listed: Vec<ObjectMeta> = now(self.raw[at].list(None).try_collect());
        for meta in listed {
            if !then.contains_key(&meta.location) {
                self.delete(at, &meta.location);
            }
        }
        for (path, bytes) in then {
            if self.read(at, path).as_ref() != Some(bytes) {
                self.put(at, path, bytes.clone());
            }
        }
    }

    /// An object: each kind as often as the others, and the newest of its kind more often.
    fn any(&mut self, at: usize) -> Option<(Path, Bytes)> {
        let kinds: BTreeSet<String> = self.honest[at].keys().map(|path| kind(path).to_owned()).collect();
        let kinds: Vec<String> = kinds.into_iter().collect();
        let chosen = self.dice.of(&kinds)?;
        let of_kind: Vec<Path> =
            self.honest[at].keys().filter(|path| kind(path) == chosen).cloned().collect();
        let path = match self.dice.one_in(3) {
            true => of_kind.last().cloned(),
            false => self.dice.of(&of_kind),
        }?;
        let bytes = self.read(at, &path).or_else(|| self.honest[at].get(&path).cloned())?;
        Some((path, bytes))
    }

    /// Something else that was ever written, of the same kind.
    fn other(&mut self, at: usize, path: &Path) -> Option<(Path, Bytes)> {
        let same: Vec<(Path, Bytes)> =
            self.past[at].iter().filter(|(other, _)| kind(other) == kind(path)).cloned().collect();
        self.dice.of(&same)
    }

    /// One step.
    fn step(&mut self) -> Option<()> {
        let reach: Vec<usize> = (0..3).filter(|at| self.reach[*at]).collect();
        let at = self.dice.of(&reach)?;
        let (path, bytes) = self.any(at)?;
        let what;
        let mut to = path.clone();
        match self.dice.below(16) {
            0 | 1 => {
                what = "delete";
                self.delete(at, &path);
            }
            2 | 3 => {
                what = "replace by an earlier one";
                let (_, other) = self.other(at, &path)?;
                self.put(at, &path, other);
            }
            4 => {
                what = "exchange two";
                let (other_path, _) = self.other(at, &path)?;
                let other = self.read(at, &other_path)?;
                self.put(at, &path, other);
                self.put(at, &other_path, bytes);
            }
            5 => {
                what = "flip a bit";
                let mut bytes = bytes.to_vec();
                let place = usize::try_from(self.dice.below(bytes.len().max(1) as u64)).ok()?;
                *bytes.get_mut(place)? ^= 1 << self.dice.below(8);
                self.put(at, &path, bytes.into());
            }
            6 => {
                what = "cut";
                let length = usize::try_from(self.dice.below(bytes.len() as u64 + 1)).ok()?;
                self.put(at, &path, bytes.slice(..length));
            }
            7 => {
                what = "lengthen";
                let more = self.other(at, &path).map(|(_, bytes)| bytes).unwrap_or_default();
                self.put(at, &path, [bytes, more].concat().into());
            }
            8 => {
                what = "copy to a place beside";
                to = neighbour(&path, 1 + self.dice.below(3));
                self.put(at, &to, bytes);
            }
            9 => {
                what = "bring back";
                let (old, other) = self.other(at, &path)?;
                self.put(at, &old, other);
                to = old;
            }
            10 => {
                what = "roll back all in reach";
                let then = self.dice.of(&self.marks.clone())?;
                for at in reach {
                    self.become_of(at, &then[at]);
                }
            }
            11 => {
                what = "one at a place between two";
                let (other_path, other) = self.other(at, &path)?;
                to = between(&path, &other_path, self.dice.below(8));
                let put = if self.dice.one_in(2) { other } else { bytes };
                self.put(at, &to, put);
            }
            12 => {
                what = "add from another store";
                let foreign: Vec<(Path, Bytes)> = self.foreign[at]
                    .iter()
                    .filter(|(other, _)| kind(other) == kind(&path))
                    .cloned()
                    .collect();
                let (own, other) = self.dice.of(&foreign)?;
                to = match self.dice.below(3) {
                    0 => own,
                    1 => neighbour(&path, 1),
                    _ => path.clone(),
                };
                self.put(at, &to, other);
            }
            _ => {
                let plans: Vec<Plan> = self.plans.iter().filter(|plan| self.reaches(plan)).cloned().collect();
                let plan = self.dice.of(&plans)?;
                what = plan.what;
                for (at, path, bytes) in plan.objects {
                    match bytes {
                        Some(bytes) => self.put(at, &path, bytes),
                        None => self.delete(at, &path),
                    }
                    to = path;
                }
            }
        }
        *self.counts.entry(format!("{}: {what}", STORAGES[at])).or_default() += 1;
        self.trace.push(format!("{} {}: {what} {to}", self.trace.len(), STORAGES[at]));
        Some(())
    }

    fn reaches(&self, plan: &Plan) -> bool {
        plan.objects.iter().all(|(at, _, _)| self.reach[*at])
    }

    fn may_step(&mut self) {
        if self.left > 0 && self.dice.one_in(self.one_in) && self.step().is_some() {
            self.left -= 1;
        }
    }
}

impl Hostile {
    pub fn new(seed: u64) -> Self {
        let state = State {
            dice: Dice::new(seed, 3),
            raw: std::array::from_fn(|_| Arc::new(InMemory::new())),
            honest: Default::default(),
            past: Default::default(),
            marks: Vec::new(),
            touched: Default::default(),
            reach: [false; 3],
            plans: Vec::new(),
            foreign: Default::default(),
            left: 0,
            one_in: 12,
            counts: BTreeMap::new(),
            trace: Vec::new(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// One of the storages, as the store's programs see it.
    pub fn storage(&self, at: usize) -> Arc<dyn ObjectStore> {
        Arc::new(Storage { hostile: self.clone(), inner: Arc::clone(&self.state().raw[at]), at })
    }

    /// What is really there.
    pub fn raw(&self, at: usize) -> Arc<dyn ObjectStore> {
        self.state().raw[at].clone()
    }

    /// What the store's programs wrote last.
    pub fn honest(&self, at: usize) -> Objects {
        self.state().honest[at].clone()
    }

    /// Everything that they wrote from the `from`-th on.
    pub fn written_since(&self, at: usize, from: usize) -> Vec<(Path, Bytes)> {
        self.state().past[at].get(from..).unwrap_or_default().to_vec()
    }

    /// A moment to which it may be rolled back.
    pub fn mark(&self) {
        let mut state = self.state();
        let mark = state.honest.clone();
        state.marks.push(mark);
        if state.marks.len() > 8 {
            let index = usize::try_from(state.dice.below(8)).expect("small");
            state.marks.remove(index);
        }
    }

    /// What could come from elsewhere.
    pub fn arm(&self, plans: Vec<Plan>) {
        self.state().plans = plans;
    }

    pub fn foreign(&self, foreign: [Vec<(Path, Bytes)>; 3]) {
        self.state().foreign = foreign;
    }

    /// From now on `steps` steps are taken on what is in reach.
    pub fn begin(&self, reach: [bool; 3], steps: u64) {
        let mut state = self.state();
        (state.reach, state.left) = (reach, steps);
        state.trace.clear();
    }

    /// A step now, if any is left.
    pub fn step(&self) {
        let mut state = self.state();
        if state.left > 0 && state.step().is_some() {
            state.left -= 1;
        }
    }

    pub fn is_done(&self) -> bool {
        self.state().left == 0
    }

    /// Where the attacker was on a storage.
    pub fn touched(&self, at: usize) -> Vec<Path> {
        self.state().touched[at].iter().cloned().collect()
    }

    /// Whether this object is not what the store's programs wrote last.
    pub fn is_changed(&self, at: usize, path: &Path) -> bool {
        let state = self.state();
        state.read(at, path).as_ref() != state.honest[at].get(path)
    }

    /// Takes back all that was done: what the programs wrote stands again.
    pub fn undo(&self) {
        let mut state = self.state();
        state.left = 0;
        for at in 0..3 {
            for path in std::mem::take(&mut state.touched[at]) {
                match state.honest[at].get(&path).cloned() {
                    Some(bytes) => state.put(at, &path, bytes),
                    None => state.delete(at, &path),
                }
            }
            state.touched[at].clear();
        }
    }

    /// All three storages as they are.
    pub fn snapshot(&self) -> [Objects; 3] {
        let state = self.state();
        std::array::from_fn(|at| state.objects(at))
    }

    /// Another attacker, on storages with these objects.
    pub fn restored(&self, from: &[Objects; 3], seed: u64) -> Self {
        let restored = Self::new(seed);
        {
            let (mut state, before) = (restored.state(), self.state());
            for (at, objects) in from.iter().enumerate() {
                state.become_of(at, objects);
                state.touched[at].clear();
            }
            state.honest.clone_from(from);
            state.past = std::array::from_fn(|at| from[at].clone().into_iter().collect());
            (state.foreign, state.counts) = (before.foreign.clone(), before.counts.clone());
        }
        restored
    }

    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.state().counts.clone()
    }

    /// What was done since it began.
    pub fn trace(&self) -> String {
        self.state().trace.join("\n")
    }
}

/// One of them.
struct Storage {
    hostile: Hostile,
    inner: Arc<InMemory>,
    at: usize,
}

impl Storage {
    fn wrote(&self, path: &Path, bytes: Bytes, created: bool) {
        let mut state = self.hostile.state();
        state.past[self.at].push((path.clone(), bytes.clone()));
        match created {
            // Where the attacker took one away, another may be created: the first is what they have to undo.
            true => _ = state.honest[self.at].entry(path.clone()).or_insert(bytes),
            false => _ = state.honest[self.at].insert(path.clone(), bytes),
        }
    }

    fn request(&self) {
        self.hostile.state().may_step();
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORAGES[self.at])
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STORAGES[self.at])
    }
}

#[async_trait]
impl ObjectStore for Storage {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.request();
        let (bytes, created) = (payload.clone().into(), matches!(opts.mode, PutMode::Create));
        let put = self.inner.put_opts(location, payload, opts).await?;
        self.wrote(location, bytes, created);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.request();
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.request();
        let storage = Self { hostile: self.hostile.clone(), inner: Arc::clone(&self.inner), at: self.at };
        let deleted = self.inner.delete_stream(locations);
        let gone = move |path: &Path| _ = storage.hostile.state().honest[storage.at].remove(path);
        deleted.inspect_ok(gone).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.request();
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request();
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
