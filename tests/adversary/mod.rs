//! A store on storages of somebody who wants to deceive it, and a model of what they may not reach.
//!
//! They have the storages that are named, one tenant's KMS key, and a node's rights at the KMS: they open rings
//! and registers and seal others. They have neither the log's key nor that of an endorsed writer. In an
//! *episode* they take some steps, at any request, while programs go on; then all is undone.
//!
//! During an episode an operation may fail, and when it succeeds:
//! * what is opened is what was sealed, or what somebody with a node's rights sealed in its place;
//! * what is looked up by name has that name, and settings are the newest that were acknowledged;
//! * no KMS key is asked that only they name, no key of theirs is in a ring, nothing of theirs is pinned;
//! * no key is dropped early, and none that is held.
//!
//! Afterwards everything that was acknowledged opens, every node goes on, and the log verifies. A log
//! that was damaged where a checkpoint covers it does not verify.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::signer::{LocalSigner, LogSigner};
use strongroom::audit::verify;
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Action, Intent, KeyUseReceipt, RingRef};
use strongroom::codec::{Decode, Encode};
use strongroom::envelope::{Header, Metadata, PRELUDE_LEN, Unwrapped, WrapPath};
use strongroom::id::{BlobId, CustomerId, DataKeyId, KmsKeyId, StoreId};
use strongroom::kms::{DataKey, EncryptionContext, Kms, KmsAdmin};
use strongroom::order::NewPerson;
use strongroom::payload;
use strongroom::register::sealed::SealedRegister;
use strongroom::register::{NewEpoch, RegisterChange};
use strongroom::retention::Period;
use strongroom::ring::sealed::{EpochRecord, SealedRing};
use strongroom::ring::{EntryKind, EntryState, Ring};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::shred::HoldTarget;
use strongroom::store::{Storages, layout};
use strongroom::time::{Clock, Day, Timestamp};
use strongroom::tlog::checkpoint::SignedCheckpoint;
use strongroom::tlog::{NamedKey, SecretKey};

use crate::faults::FaultStore;
use crate::world::signer::authority;
use crate::world::{World, access, label};
use dice::{Dice, SeededEntropy};
use storage::{AUDIT, BLOBS, Hostile, KEYS, Objects, Plan};

#[path = "../common/dice.rs"]
mod dice;
mod forge;
mod storage;

/// Which storages an episode is about: each by itself, and all pairs.
const REACHES: [[bool; 3]; 6] = [
    [true, false, false],
    [false, true, false],
    [false, false, true],
    [true, true, false],
    [true, false, true],
    [false, true, true],
];

/// How long a node keeps keys, and a little.
const TERM: Duration = Duration::from_secs(301);

const CUSTOMERS: [&str; 2] = ["acme", "globex"];
const TENANT: &str = "tenant";

/// What a run comes to.
#[derive(Default)]
pub struct Report {
    /// Steps of the attacker, by storage and what they were.
    pub steps: BTreeMap<String, u64>,
    /// Operations that succeeded while it was at work, and those that were refused, by name.
    pub done: BTreeMap<&'static str, u64>,
    pub refused: BTreeMap<&'static str, u64>,
    pub episodes: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} steps in {} episodes", self.total(), self.episodes)?;
        self.steps.iter().try_for_each(|(what, count)| writeln!(f, "  {what}: {count}"))?;
        for (what, count) in &self.done {
            let refused = self.refused.get(what).copied().unwrap_or(0);
            writeln!(f, "{what}: {count} succeeded, {refused} were refused")?;
        }
        Ok(())
    }
}

impl Report {
    pub fn total(&self) -> u64 {
        self.steps.values().sum()
    }

    pub fn add(&mut self, other: Self) {
        self.episodes += other.episodes;
        for (all, more) in [(&mut self.done, other.done), (&mut self.refused, other.refused)] {
            more.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
        }
        other.steps.into_iter().for_each(|(what, count)| *self.steps.entry(what).or_default() += count);
    }
}

/// Takes so many steps on each of some threads, in worlds with seeds of their own.
pub fn run(threads: u64, steps: u64) -> Report {
    let on_one = |thread: u64| {
        let mut report = Report::default();
        for number in 0.. {
            if report.total() >= steps {
                break;
            }
            report.add(world(number * threads + thread));
        }
        report
    };
    std::thread::scope(|scope| {
        let spawn = |thread| {
            let builder = std::thread::Builder::new().stack_size(8 << 20);
            builder.spawn_scoped(scope, move || on_one(thread)).expect("a thread")
        };
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        let mut report = Report::default();
        for thread in threads {
            report.add(thread.join().expect("its own message was printed"));
        }
        report
    })
}

/// The episodes of one world.
pub fn world(seed: u64) -> Report {
    strongroom::system::simulate(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(Box::pin(episodes(seed)))
}

async fn episodes(seed: u64) -> Report {
    let mut scene = Scene::new(seed).await;
    for _ in 0..12 {
        Box::pin(scene.episode()).await;
    }
    let Scene { hostile, mut report, .. } = scene;
    report.steps = hostile.counts();
    report
}

#[derive(Clone)]
struct Owed {
    customer: usize,
    text: Bytes,
    until: Day,
    held: bool,
}

/// What was acknowledged.
#[derive(Clone, Default)]
struct Model {
    blobs: BTreeMap<BlobId, Owed>,
    /// The newest epoch.
    epoch: u32,
    /// Of each customer, the periods that were set or tried, and since when a later one was acknowledged.
    periods: [Vec<(String, Option<Timestamp>)>; 2],
}

impl Model {
    /// Whether this may be a customer's period: a node keeps settings for as long as keys.
    fn may_be(&self, which: usize, period: &str, now: Timestamp) -> bool {
        self.periods[which]
            .iter()
            .any(|(one, until)| one == period && until.is_none_or(|until| now <= until.saturating_add(TERM)))
    }
}

struct Scene {
    dice: Dice,
    seed: u64,
    hostile: Hostile,
    world: World,
    entropy: Arc<SeededEntropy>,
    store: StoreId,
    ids: [CustomerId; 2],
    /// The tenant's, and one that nobody uses.
    theirs: [KmsKeyId; 2],
    nodes: Vec<Strongroom>,
    model: Model,
    /// What somebody with a node's rights put in a blob's place.
    forged: BTreeMap<BlobId, BTreeSet<Bytes>>,
    /// A log of the attacker's own, under this store's name.
    their_log: Log,
    their_storage: Arc<dyn ObjectStore>,
    /// How much of what the nodes wrote was looked at.
    looked: [usize; 3],
    hashes: BTreeSet<String>,
    /// Rings that nobody pinned yet, by hash: they count from then on.
    unpinned: BTreeMap<String, (CustomerId, Bytes)>,
    epochs: BTreeMap<u32, DataKey>,
    /// Who had acknowledged holds when it was looked at last.
    held: [bool; 2],
    reach: [bool; 3],
    report: Report,
}

fn their_signer() -> Arc<dyn LogSigner> {
    Arc::new(LocalSigner::new(SecretKey::from_seed(&Secret::init(|seed| *seed = [0xE7; 32]))))
}

fn seeded(world: &World, entropy: &Arc<SeededEntropy>) -> Options {
    let mut options = world.options();
    options.entropy = Arc::clone(entropy) as _;
    options
}

/// As the store's programs reach them.
fn storages(hostile: &Hostile) -> [FaultStore; 3] {
    [BLOBS, KEYS, AUDIT].map(|at| FaultStore::new(hostile.storage(at)))
}

impl Scene {
    async fn new(seed: u64) -> Self {
        let hostile = Hostile::new(seed);
        let world = World::over(storages(&hostile));
        world.kms.hurry();
        let entropy = Arc::new(SeededEntropy::new(Dice::new(seed, 2)));
        let options = || seeded(&world, &entropy);
        let room = world.init(options()).await.unwrap();
        let mut ids = Vec::new();
        for name in CUSTOMERS.iter().chain(&[TENANT]) {
            let mut new = NewCustomer::new(label(name), KeyChoice::New("local".into()));
            new.period = "P3D".parse().unwrap();
            ids.push(room.add_customer(&access(), new).await.unwrap());
        }
        let evil = world
            .kms
            .inner
            .create_key(&EncryptionContext::new_customer(room.store_id(), ids[2].id))
            .await
            .unwrap();
        let theirs = [ids[2].kms_key.clone(), evil];
        let store = room.store_id();
        let their_storage = Storages::memory().audit;
        let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
        let config = LogConfig::new(store, their_signer());
        let their_log = Log::open(Arc::clone(&their_storage), config, clock, entropy.clone()).await.unwrap();
        hostile.foreign(forge::foreign(&world, options()).await);
        let second = world.node(options()).await.unwrap();
        let mut scene = Self {
            dice: Dice::new(seed, 1),
            seed,
            hostile,
            entropy,
            store,
            ids: [ids[0].id, ids[1].id],
            theirs,
            nodes: vec![room, second],
            model: Model::default(),
            forged: BTreeMap::new(),
            their_log,
            their_storage,
            looked: [0; 3],
            hashes: BTreeSet::new(),
            unpinned: BTreeMap::new(),
            epochs: BTreeMap::new(),
            held: [false; 2],
            reach: [false; 3],
            report: Report::default(),
            world,
        };
        scene.model.periods = std::array::from_fn(|_| vec![("P3D".to_owned(), None)]);
        scene.world.kms.forget();
        scene.look().await;
        for _ in 0..6 {
            scene.operate().await;
        }
        scene
    }

    fn what(&self) -> String {
        format!("seed {}, {:?} in reach\n{}", self.seed, self.reach, self.hostile.trace())
    }

    fn today(&self) -> Day {
        self.world.clock.now().day()
    }

    async fn episode(&mut self) {
        for _ in 0..4 {
            self.hostile.mark();
            self.operate().await;
        }
        self.reach = self.dice.of(&REACHES).unwrap();
        let kept = if self.reach[AUDIT] && self.dice.one_in(3) { Some(self.publish().await) } else { None };
        // What the checkpoints cover.
        let covered: Vec<Path> = self.hostile.honest(AUDIT).into_keys().collect();
        let before = self.reach[AUDIT].then(|| (self.hostile.snapshot(), self.model.clone()));
        self.prepare().await;
        self.hostile.begin(self.reach, 1 + self.dice.below(24));
        for _ in 0..40 {
            if self.hostile.is_done() {
                break;
            }
            for _ in 0..self.dice.below(3) {
                self.hostile.step();
            }
            self.operate().await;
        }
        for _ in 0..3 {
            self.operate().await;
        }
        self.report.episodes += 1;
        let touched = self.touched_blobs();
        if let Some(kept) = kept {
            self.verify_damaged(&covered, kept).await;
        }
        match before {
            Some((objects, model)) => self.restore(&objects, model).await,
            None => self.hostile.undo(),
        }
        self.reach = [false; 3];
        self.aftermath(&touched).await;
    }

    /// Everything is as it was before, and programs begin anew.
    async fn restore(&mut self, objects: &[Objects; 3], model: Model) {
        self.nodes.clear();
        let hostile = self.hostile.restored(objects, self.seed ^ self.report.episodes);
        // The KMS and its clock are others' and go on.
        [self.world.blobs, self.world.keys, self.world.audit] = storages(&hostile);
        self.hostile = hostile;
        (self.model, self.looked, self.held) = (model, [0; 3], [false; 2]);
        self.forged.clear();
        for _ in 0..2 {
            self.nodes.push(self.world.node(self.options()).await.unwrap());
        }
    }

    fn options(&self) -> Options {
        seeded(&self.world, &self.entropy)
    }

    async fn publish(&self) -> Vec<SignedCheckpoint> {
        let (published, error) = self.nodes[0].publish_shards().await.unwrap();
        assert!(error.is_none(), "{}: {error:?}", self.what());
        published.into_iter().map(|(_, published)| published.checkpoint).collect()
    }

    /// What the log has become is no continuation of what was kept, if anything of that was touched.
    async fn verify_damaged(&self, covered: &[Path], kept: Vec<SignedCheckpoint>) {
        let damaged: Vec<&Path> = (covered.iter())
            .filter(|path| path.as_ref().starts_with("wal/") && self.hostile.is_changed(AUDIT, path))
            .collect();
        let mut options = verify::Options::new(self.world.clock.now());
        (options.authority, options.store, options.pinned) = (Some(authority()), Some(self.store), kept);
        let verified = verify::verify(self.hostile.raw(AUDIT), options).await;
        let clean = verified.is_ok_and(|report| report.is_ok());
        assert!(damaged.is_empty() || !clean, "{}: it verifies without {damaged:?}", self.what());
    }

    /// What has to hold when nobody is at work any more.
    async fn aftermath(&mut self, touched: &BTreeSet<BlobId>) {
        let what = self.what();
        self.world.clock.advance(Duration::from_mins(20));
        let mut all = self.nodes.clone();
        all.push(
            self.world.node(self.options()).await.unwrap_or_else(|error| panic!("{what}: {}", error.chain())),
        );
        for (which, room) in all.iter().enumerate() {
            for customer in 0..CUSTOMERS.len() {
                let sealed = self.seal(room, customer, None).await;
                assert!(
                    sealed.is_ok(),
                    "{what}: node {which} does not go on: {}",
                    sealed.unwrap_err().chain()
                );
            }
        }
        let node = all.pop().unwrap();
        let today = self.today();
        let owed: Vec<(BlobId, Owed)> = (self.model.blobs.iter())
            .filter(|(id, owed)| {
                (owed.until >= today || owed.held) && (touched.contains(id) || self.dice.one_in(8))
            })
            .map(|(id, owed)| (*id, owed.clone()))
            .collect();
        for (id, owed) in owed {
            let customer = self.customer(&node, owed.customer).await.unwrap();
            let opened =
                customer.open(id).await.unwrap_or_else(|error| panic!("{what}: {id}: {}", error.chain()));
            assert_eq!(opened.bytes(1 << 20).await.unwrap(), owed.text, "{what}: {id}");
        }
        for which in 0..CUSTOMERS.len() {
            let period = self.customer(&node, which).await.unwrap().info().await.unwrap().period.to_string();
            assert!(
                self.model.may_be(which, &period, self.world.clock.now()),
                "{what}: the period is {period}"
            );
        }
        self.look().await;
        if self.dice.one_in(6) {
            for room in &self.nodes {
                room.log().flush().await.unwrap();
            }
            let report = node.verify_log().await.unwrap();
            assert!(report.is_ok(), "{what}: {:#?}", report.findings);
        }
        self.forged.clear();
    }

    async fn customer(&self, room: &Strongroom, which: usize) -> strongroom::Result<Customer> {
        room.customer(&label(CUSTOMERS[which]), access()).await
    }

    /// A blob whose text says whose and what it is.
    async fn seal(
        &mut self,
        room: &Strongroom,
        customer: usize,
        name: Option<u64>,
    ) -> strongroom::Result<BlobId> {
        let own = self.customer(room, customer).await?;
        let text = Bytes::from(format!("{} {:?} {}", CUSTOMERS[customer], name, self.dice.below(u64::MAX)));
        let mut options = SealOptions::new();
        if let Some(name) = name {
            options = options.metadata(Metadata::new().with_name(format!("name {name}").parse().unwrap()));
        }
        let sealed = own.seal(text.clone(), options).await?;
        let owed = Owed { customer, text, until: sealed.retain_until, held: false };
        self.model.blobs.insert(sealed.id, owed);
        Ok(sealed.id)
    }

    /// One operation by one node, and what it may not have come to.
    async fn operate(&mut self) {
        let node = usize::try_from(self.dice.below(self.nodes.len() as u64)).unwrap();
        let room = self.nodes[node].clone();
        let customer = usize::from(self.dice.one_in(2));
        let (name, result) = match self.dice.below(20) {
            0..=2 => ("seal", self.seal(&room, customer, None).await.map(drop)),
            3 | 4 => {
                let name = self.dice.below(3);
                ("seal with a name", self.seal(&room, customer, Some(name)).await.map(drop))
            }
            5 | 6 => ("open", self.open(&room).await),
            7 | 8 => ("look up", self.newest(&room, customer).await),
            9 => ("settings", self.info(&room, customer).await),
            10 => ("set", self.set(&room, customer).await),
            11 => ("hold", self.hold(&room).await),
            12 => ("sweep", room.sweep(&access()).await.map(drop)),
            13 => ("people", self.people(&room).await),
            14 => ("list", self.list(&room, customer).await),
            15 => {
                let opened = self.world.node(self.options()).await;
                ("start", opened.map(|room| self.nodes[node] = room))
            }
            16 if self.dice.one_in(4) => {
                let key = KeyChoice::New("local".into());
                let rotated = room.rotate_epoch(&access(), key).await;
                ("rotate", rotated.map(|rotated| self.model.epoch = self.model.epoch.max(rotated.epoch)))
            }
            17 => {
                self.world.clock.advance(Duration::from_hours(self.dice.below(12)));
                return;
            }
            _ => {
                self.world.clock.advance(Duration::from_secs(self.dice.below(400)));
                return;
            }
        };
        match result {
            Ok(()) => *self.report.done.entry(name).or_default() += 1,
            Err(error) => {
                let odd = [ErrorKind::InvalidInput, ErrorKind::AlreadyExists, ErrorKind::Io];
                assert!(!odd.contains(&error.kind()), "{}: {name}: {}", self.what(), error.chain());
                *self.report.refused.entry(name).or_default() += 1;
            }
        }
        self.look().await;
    }

    fn touched_blobs(&self) -> BTreeSet<BlobId> {
        self.hostile.touched(BLOBS).iter().filter_map(layout::read_blob).map(|(_, blob)| blob).collect()
    }

    async fn open(&mut self, room: &Strongroom) -> strongroom::Result<()> {
        // Where the attacker was, mostly.
        let touched = self.touched_blobs().into_iter();
        let mut blobs: Vec<BlobId> = touched.filter(|blob| self.model.blobs.contains_key(blob)).collect();
        if blobs.is_empty() || self.dice.one_in(3) {
            blobs = self.model.blobs.keys().copied().collect();
        }
        let Some(id) = self.dice.of(&blobs) else { return Ok(()) };
        let owed = self.model.blobs[&id].clone();
        let read = self.customer(room, owed.customer).await?.open(id).await?.bytes(1 << 20).await?;
        let forged = self.forged.get(&id).is_some_and(|forged| forged.contains(&read));
        assert!(read == owed.text || forged, "{}: {id} is {read:?}", self.what());
        Ok(())
    }

    async fn newest(&mut self, room: &Strongroom, which: usize) -> strongroom::Result<()> {
        let name = self.dice.below(3);
        let customer = self.customer(room, which).await?;
        let found = customer.newest(&format!("name {name}").parse().unwrap()).await?;
        // One that was not acknowledged may be it: only that tells whose it is.
        if let Some(owed) = self.model.blobs.get(&found.id) {
            let front = format!("{} {:?} ", CUSTOMERS[which], Some(name));
            assert!(owed.text.starts_with(front.as_bytes()), "{}: {:?}", self.what(), owed.text);
        }
        Ok(())
    }

    async fn info(&mut self, room: &Strongroom, which: usize) -> strongroom::Result<()> {
        let info = self.customer(room, which).await?.info().await?;
        assert_eq!(info.id, self.ids[which], "{}", self.what());
        assert!(!info.strict, "{}", self.what());
        assert!(!self.theirs.contains(&info.kms_key), "{}", self.what());
        // With both storages, all of it may be of an earlier moment.
        let period = info.period.to_string();
        let fine = self.model.may_be(which, &period, self.world.clock.now())
            || (self.reach[KEYS] && self.reach[AUDIT]);
        assert!(
            fine,
            "{}: the period is {period} and not one of {:?}",
            self.what(),
            self.model.periods[which]
        );
        Ok(())
    }

    async fn set(&mut self, room: &Strongroom, which: usize) -> strongroom::Result<()> {
        let period = format!("P{}D", 3 + self.dice.below(5));
        let customer = self.customer(room, which).await?;
        let parsed: Period = period.parse().unwrap();
        self.model.periods[which].push((period, None));
        customer.set(Some(parsed), None).await?;
        let now = self.world.clock.now();
        let (_, before) = self.model.periods[which].split_last_mut().unwrap();
        before.iter_mut().for_each(|(_, until)| _ = until.get_or_insert(now));
        Ok(())
    }

    async fn hold(&mut self, room: &Strongroom) -> strongroom::Result<()> {
        let today = self.today();
        let alive = self.model.blobs.iter().filter(|(_, owed)| owed.until > today);
        let alive: Vec<BlobId> = alive.map(|(id, _)| *id).collect();
        let Some(id) = self.dice.of(&alive) else { return Ok(()) };
        let customer = self.customer(room, self.model.blobs[&id].customer).await?;
        customer.place_hold(HoldTarget::Blob(id)).await?;
        self.model.blobs.get_mut(&id).unwrap().held = true;
        Ok(())
    }

    async fn people(&mut self, room: &Strongroom) -> strongroom::Result<()> {
        let register = room.register(&access()).await?;
        assert_eq!(register.people.iter().count(), 0, "{}", self.what());
        let least = if self.reach[KEYS] && self.reach[AUDIT] { 1 } else { self.model.epoch };
        assert!(register.newest_epoch().number >= least, "{}: the register is an older one", self.what());
        for epoch in &register.epochs {
            let known = self.epochs.contains_key(&epoch.number);
            assert!(known, "{}: the register has epoch {}, which nobody began", self.what(), epoch.number);
        }
        Ok(())
    }

    async fn list(&mut self, room: &Strongroom, which: usize) -> strongroom::Result<()> {
        let customer = self.customer(room, which).await?;
        let Some(first) = customer.page(None, 5).await?.first().copied() else { return Ok(()) };
        let listed = customer.stat(first).await?;
        if let Some(owed) = self.model.blobs.get(&listed.id) {
            assert_eq!(owed.customer, which, "{}", self.what());
        }
        Ok(())
    }

    /// Looks at what nodes wrote and asked since the last time.
    async fn look(&mut self) {
        let what = self.what();
        for (_, key) in self.world.kms.counts().keys() {
            assert!(!self.theirs.contains(key), "{what}: a KMS key of theirs was asked");
        }
        self.world.kms.forget();
        let keys = self.hostile.written_since(KEYS, self.looked[KEYS]);
        self.looked[KEYS] += keys.len();
        for (path, bytes) in keys {
            let hash = HEXLOWER.encode(&Sha256::digest(&bytes));
            if let Some(number) = layout::read_epoch(&path) {
                let record = EpochRecord::from_bytes(&bytes).unwrap();
                let context = EncryptionContext::epoch(self.store, number);
                let key = self.ask(&record.kms_key, &record.wrapped, &context).await.unwrap();
                self.epochs.insert(number, key);
            }
            if let Some((customer, _)) = layout::read_ring(&path) {
                self.unpinned.insert(hash.clone(), (customer, bytes));
            }
            self.hashes.insert(hash);
        }
        let audit = self.hostile.written_since(AUDIT, self.looked[AUDIT]);
        self.looked[AUDIT] += audit.len();
        for (path, bytes) in audit {
            if path.as_ref().starts_with("pin/") {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                let pinned = self.hashes.iter().find(|hash| text.contains(*hash));
                let pinned =
                    pinned.unwrap_or_else(|| panic!("{what}: {path} pins what nobody wrote: {text}"));
                if let Some((customer, ring)) = self.unpinned.remove(pinned) {
                    self.check_ring(customer, &ring);
                }
            }
        }
        self.held =
            [0, 1].map(|which| self.model.blobs.values().any(|owed| owed.held && owed.customer == which));
    }

    /// A ring that a node wrote and pinned.
    fn check_ring(&self, customer: CustomerId, bytes: &[u8]) {
        let what = self.what();
        let sealed = SealedRing::parse(bytes).unwrap();
        let key = self.epochs.get(&sealed.epoch);
        let key = key.unwrap_or_else(|| panic!("{what}: a ring under an epoch that nobody began"));
        let ring = sealed.open(key).unwrap_or_else(|_| panic!("{what}: a ring under a key of theirs"));
        assert!(
            !ring.data_keys.iter().any(|key| self.theirs.contains(&key.kms_key))
                || !self.ids.contains(&customer),
            "{what}"
        );
        for gone in &ring.dropped {
            let EntryKind::Day(day) = gone.kind else { continue };
            assert!(self.today() > day, "{what}: the key of {day} was dropped early");
        }
        let held = self.ids.iter().position(|id| *id == customer).is_some_and(|which| self.held[which]);
        let both = self.reach[KEYS] && self.reach[AUDIT];
        if held && !both {
            assert!(
                ring.live_holds().next().is_some(),
                "{what}: a hold of {customer} is lost in version {}",
                ring.version
            );
            let alive = ring
                .entries
                .iter()
                .any(|entry| entry.kind == EntryKind::Hold && entry.state == EntryState::Active);
            assert!(alive, "{what}: the key of what is held is lost");
        }
    }
}

async fn paths(storage: &dyn ObjectStore) -> Vec<Path> {
    storage.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap()
}
