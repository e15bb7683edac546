//! The world of one seed: who acts, what they do, and what has to hold after each round.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::{Either, join, join_all, select};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::layout::{CertificateStage, Object};
use strongroom::audit::log::TimeDoubt;
use strongroom::audit::verify::Severity;
use strongroom::certificate::{self, Authority, Certificate};
use strongroom::codec::Decode;
use strongroom::envelope::{BlobName, Header, Metadata, PRELUDE_LEN, Wrap};
use strongroom::id::{BlobId, CustomerId, HoldId, KekId, KmsKeyId};
use strongroom::order::{NewPerson, OrderKind};
use strongroom::ring::{EntryKind, EntryState, Hold};
use strongroom::room::{Customer, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::shred::epoch::FinishOptions;
use strongroom::shred::{Executed, HoldTarget, OrderState, VALIDITY};
use strongroom::store::layout;
use strongroom::time::{Clock, Day, Timestamp};
use strongroom::tlog::{NamedKey, SecretKey};
use strongroom::{Error, ErrorKind, Result};
use tokio::time::sleep;

use super::clock::{HostClock, Truth};
use super::dice::{Dice, SeededEntropy};
use super::kms::{NodeKms, SimKms};
use super::ledger::Ledger;
use super::oracle::{Oracle, Owed, What};
use super::signer::signer;
use super::storage::{Disks, Link, Mood, Place, Weather};
use super::{Board, Report};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
pub const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// Rounds of steps in a day. On one day in so many there are none.
const ROUNDS: u32 = 2;
const IDLE: u64 = 4;
/// After how many days every node has to make progress.
const PROGRESSES: u32 = 10;
/// After how many days everything is looked at; and in the end.
const THOROUGH: u32 = 50;
/// After how many days the daily task is sure to run; programs run it now and then as well.
const KEPT: u32 = 6;
/// How long one operation may take at most, whatever the storages do.
const LONGEST: Duration = Duration::from_mins(8);
/// How long a node has to seal and to open once there are no faults any more.
const PROGRESS: Duration = Duration::from_mins(1);
/// How long a node goes on with a key that it has: the default, and some room for a long operation.
const TERM: Duration = Duration::from_secs(300 + 480);

pub fn access() -> Access {
    Access::new(Principal::service("simulation").unwrap(), Purpose::RecordManagement)
}

/// The key of a person: `person:a`, `person:b`, `person:c` are registered.
pub fn key(name: &str) -> NamedKey {
    let seed = name.bytes().last().unwrap();
    let secret = SecretKey::from_seed(&Secret::init(|out| out.fill(seed)));
    NamedKey::new(format!("person:{name}").parse().unwrap(), secret)
}

fn people() -> Vec<NewPerson> {
    ["a", "b", "c"].map(|name| NewPerson::try_from(key(name).verifier()).unwrap()).to_vec()
}

/// All blobs of a customer, a few at a time.
async fn pages(customer: &Customer) -> Result<Vec<BlobId>> {
    let mut all: Vec<BlobId> = Vec::new();
    loop {
        let page = customer.page(all.last().copied(), 7).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// A customer.
#[derive(Clone, Debug)]
pub struct Client {
    pub id: CustomerId,
    pub label: &'static str,
    /// For how many days its blobs are kept: the shortest and the longest policy there was.
    pub kept: (u32, u32),
    pub strict: bool,
    /// Whether an end of the agreement was ordered.
    pub leaves: bool,
}

/// A program that runs, or one operation of it.
#[derive(Clone)]
pub struct Actor {
    pub room: Strongroom,
    pub link: Arc<Link>,
    pub kms: NodeKms,
    pub clock: Arc<HostClock>,
}

impl Actor {
    pub async fn customer(&self, client: &Client) -> Result<Customer> {
        self.room.customer(&client.label.parse().unwrap(), access()).await
    }
}

/// A machine, and the long-lived program on it, unless that is dead.
struct Node {
    clock: Arc<HostClock>,
    program: Option<Actor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Seal,
    Open,
    Names,
    List,
    Extend,
    Hold,
    Release,
    Lengthen,
    Destroy,
    Cancel,
    Sweep,
    Finish,
    Rotate,
    Maintain,
    Publish,
    Remove,
    Rekey,
    Leave,
    SetClock,
}

/// How often each is taken, of a thousand.
const STEPS: [(Step, u64); 19] = [
    (Step::Seal, 290),
    (Step::Open, 170),
    (Step::Names, 40),
    (Step::List, 30),
    (Step::Extend, 50),
    (Step::Hold, 55),
    (Step::Release, 20),
    (Step::Lengthen, 12),
    (Step::Destroy, 45),
    (Step::Cancel, 20),
    (Step::Sweep, 110),
    (Step::Finish, 40),
    (Step::Rotate, 16),
    (Step::Maintain, 40),
    (Step::Publish, 20),
    (Step::Remove, 10),
    (Step::Rekey, 5),
    (Step::Leave, 8),
    (Step::SetClock, 10),
];

/// See the module.
pub struct World {
    pub seed: u64,
    pub truth: Arc<Truth>,
    pub weather: Arc<Weather>,
    pub disks: Disks,
    pub kms: Arc<SimKms>,
    pub dice: RefCell<Dice>,
    pub oracle: RefCell<Oracle>,
    pub ledger: RefCell<Ledger>,
    pub clients: RefCell<Vec<Client>>,
    /// The KMS key of whoever attacks.
    pub own_key: RefCell<Option<KmsKeyId>>,
    entropy: Arc<SeededEntropy>,
    /// Whether the storages have a clock of their own.
    own_clock: bool,
    nodes: RefCell<Vec<Node>>,
    judge_clock: Arc<HostClock>,
    programs: Cell<u32>,
    /// What orders put into the window.
    pended: RefCell<BTreeSet<(CustomerId, KekId)>>,
    /// Final certificates that were checked.
    certified: RefCell<BTreeSet<String>>,
    /// Whether a refusal may come from what is wrong with storages, KMS or programs.
    pub trouble: Cell<bool>,
    /// Until when what went wrong may still be felt, in microseconds.
    unrest: Cell<u64>,
    steps: RefCell<BTreeMap<String, u64>>,
    board: Arc<Board>,
    pub what: RefCell<String>,
    longest: Cell<Duration>,
}

impl World {
    pub async fn new(seed: u64, board: &Arc<Board>) -> Self {
        let truth = Truth::new();
        let mut dice = Dice::new(seed, 0);
        let weather = Weather::new(&truth, Dice::new(seed, 1));
        let provider = if dice.one_in(2) { "aws-kms" } else { "local" };
        let kms = SimKms::new(provider, &truth, Dice::new(seed, 2));
        let own_clock = dice.one_in(2);
        // Where there is no second clock, a host may walk ahead by what nobody can see. And one may be
        // suspended between its look at the clock and the write.
        let slack = if own_clock { HOUR } else { HOUR * 25 };
        let nodes = (0..dice.between(2, 4))
            .map(|at| Node { clock: HostClock::new(&truth, u8::try_from(at).unwrap()), program: None });
        let world = Self {
            seed,
            disks: Disks::new(&truth),
            ledger: RefCell::new(Ledger::new(&kms, slack)),
            entropy: Arc::new(SeededEntropy::new(Dice::new(seed, 3))),
            nodes: RefCell::new(nodes.collect()),
            judge_clock: HostClock::new(&truth, 99),
            dice: RefCell::new(dice),
            oracle: RefCell::default(),
            clients: RefCell::default(),
            own_key: RefCell::default(),
            own_clock,
            programs: Cell::new(0),
            pended: RefCell::default(),
            certified: RefCell::default(),
            trouble: Cell::new(false),
            unrest: Cell::new(0),
            steps: RefCell::default(),
            board: Arc::clone(board),
            what: RefCell::default(),
            longest: Cell::default(),
            truth,
            weather,
            kms,
        };
        world.begin().await;
        world
    }

    /// Makes the store and its customers.
    async fn begin(&self) {
        let link = Link::new(self.name(), true);
        let kms = self.reach_kms(&link);
        let choice = || KeyChoice::New(self.kms.provider().into());
        let storages = self.disks.storages(&self.weather, &link, self.own_clock);
        let options = self.options(&self.judge_clock);
        let made = Strongroom::init(storages, kms.registry(), choice(), &access(), options).await;
        let (room, _) = made.unwrap();
        for (label, days, window, strict) in
            [("acme", 4, 2, false), ("beta", 12, 7, false), ("gamma", 6, 1, true)]
        {
            let mut new = NewCustomer::new(label.parse().unwrap(), choice());
            new.period = format!("P{days}D").parse().unwrap();
            new.window = strongroom::retention::Window::new(window).unwrap();
            new.strict = strict;
            let id = room.add_customer(&access(), new).await.unwrap().id;
            self.clients.borrow_mut().push(Client { id, label, kept: (days, days), strict, leaves: false });
        }
        room.close().await.unwrap();
        self.catch_up().await;
    }

    fn name(&self) -> u32 {
        self.programs.set(self.programs.get() + 1);
        self.programs.get()
    }

    fn reach_kms(&self, link: &Arc<Link>) -> NodeKms {
        let (kms, link) = (Arc::clone(&self.kms), Arc::clone(link));
        NodeKms { kms, link, weather: Arc::clone(&self.weather), audit: Arc::clone(&self.disks.audit) }
    }

    fn options(&self, clock: &Arc<HostClock>) -> Options {
        let mut options = Options::new(signer());
        options.people = people();
        options.clock = Arc::clone(clock) as Arc<dyn Clock>;
        options.entropy = Arc::clone(&self.entropy) as _;
        options
    }

    /// A program that starts on a machine.
    async fn start(&self, clock: &Arc<HostClock>, calm: bool) -> Result<Actor> {
        let link = Link::new(self.name(), calm);
        let kms = self.reach_kms(&link);
        let storages = self.disks.storages(&self.weather, &link, self.own_clock);
        let room = Strongroom::open(storages, kms.registry(), self.options(clock)).await?;
        Ok(Actor { room, link, kms, clock: Arc::clone(clock) })
    }

    /// A program that knows nothing and meets no faults, on a machine whose clock is right.
    pub async fn judge(&self) -> Result<Actor> {
        self.start(&self.judge_clock, true).await
    }

    pub fn today(&self) -> Day {
        self.truth.now().day()
    }

    pub fn roll(&self) -> std::cell::RefMut<'_, Dice> {
        self.dice.borrow_mut()
    }

    pub fn count(&self, what: &str) {
        *self.steps.borrow_mut().entry(what.to_owned()).or_default() += 1;
    }

    #[track_caller]
    pub fn broken(&self, what: impl std::fmt::Display) -> ! {
        panic!("seed {}, {}, at {}: {what}", self.seed, self.what.borrow(), self.truth.now())
    }

    fn client(&self) -> Client {
        // Mostly one, so that blobs have neighbours under their keys.
        let mut dice = self.roll();
        let index = if dice.one_in(2) { 0 } else { dice.index(self.clients.borrow().len()) };
        self.clients.borrow()[index].clone()
    }

    fn client_of(&self, id: CustomerId) -> Client {
        self.clients.borrow().iter().find(|client| client.id == id).unwrap().clone()
    }

    fn owed_blob(&self) -> Option<(BlobId, Client)> {
        let oracle = self.oracle.borrow();
        let today = self.today();
        let mut dice = self.roll();
        // Mostly what is owed, and now and then what no longer is.
        let any = dice.one_in(5);
        let all: Vec<_> = (oracle.blobs.iter())
            .filter(|(_, owed)| any || owed.is_owed(today))
            .map(|(blob, owed)| (*blob, owed.customer))
            .collect();
        // The young ones first, or most would be dead.
        let from = if any { all.len().saturating_sub(60) } else { 0 };
        let (blob, customer) = dice.of(&all[from..])?;
        Some((blob, self.client_of(customer)))
    }

    /// One to extend or to hold: now and then one that is to be destroyed.
    fn blob_to_keep(&self) -> Option<(BlobId, Client)> {
        let contested = self.oracle.borrow().contested();
        self.one_of(&contested).or_else(|| self.owed_blob())
    }

    /// One to destroy: now and then one that has others beside it.
    fn blob_to_destroy(&self) -> Option<(BlobId, Client)> {
        let crowded = self.oracle.borrow().crowded(self.today());
        self.one_of(&crowded).or_else(|| self.owed_blob())
    }

    /// One of these in a third of cases.
    fn one_of(&self, blobs: &[(BlobId, CustomerId)]) -> Option<(BlobId, Client)> {
        let mut dice = self.roll();
        let (blob, customer) = if dice.one_in(3) { dice.of(blobs)? } else { return None };
        Some((blob, self.client_of(customer)))
    }

    pub async fn run(self, days: u32) -> Report {
        for day in 1..=days {
            self.start_day(day).await;
            let rounds = if self.roll().one_in(IDLE) { 0 } else { ROUNDS };
            if rounds == 0 {
                self.catch_up().await;
                self.rest(ROUNDS).await;
            }
            for round in 1..=rounds {
                *self.what.borrow_mut() = format!("day {day}, round {round}");
                self.round().await;
                self.catch_up().await;
                if round == 1 {
                    self.check(false).await;
                }
                self.rest(round).await;
            }
            if self.roll().one_in(3) {
                self.attack().await;
                self.catch_up().await;
            }
            if day % PROGRESSES == 0 {
                *self.what.borrow_mut() = format!("day {day}, all of it");
                self.check(day % THOROUGH == 0 && day < days).await;
                self.progress().await;
            }
        }
        self.end().await;
        let mut steps = self.steps.borrow().clone();
        steps.insert("ring versions".into(), self.ledger.borrow().versions);
        steps.insert("keys dropped".into(), self.ledger.borrow().dropped() as u64);
        steps.insert("keys gone from all copies".into(), self.ledger.borrow().ended() as u64);
        steps.insert("longest ms".into(), u64::try_from(self.longest.get().as_millis()).unwrap());
        Report {
            digest: self.weather.digest(),
            requests: self.weather.requests(),
            steps,
            faults: self.weather.faults(),
        }
    }

    /// Clocks drift and leap, and programs that died are started again.
    async fn start_day(&self, day: u32) {
        *self.what.borrow_mut() = format!("the morning of day {day}");
        // The daily task, by a program of its own, which sees to some blobs as well.
        self.weather.set(Mood::default());
        self.trouble.set(false);
        let keeper = self.surely("start", self.judge().await);
        if day.is_multiple_of(KEPT) {
            self.surely("maintain", keeper.room.maintain_log().await);
        }
        self.check_by(&keeper, false).await;
        self.dismiss(keeper).await;
        let clocks: Vec<_> = self.nodes.borrow().iter().map(|node| Arc::clone(&node.clock)).collect();
        for clock in clocks {
            let ahead = {
                let mut dice = self.roll();
                let small = i64::try_from(dice.below(200)).unwrap() - 100;
                match dice.below(30) {
                    0 => Some(3 * 3600),
                    1 => Some(20 * 3600),
                    2 => Some(-20 * 3600),
                    3 => Some(9 * 24 * 3600),
                    4 => Some(-9 * 24 * 3600),
                    5..=14 => Some(small),
                    _ if clock.seconds_ahead().abs() > 100 && dice.one_in(2) => Some(small),
                    _ => None,
                }
            };
            if let Some(ahead) = ahead {
                clock.set_ahead(ahead);
                self.count(if ahead.abs() > 100 { "clock leaps" } else { "clock drifts" });
            }
        }
    }

    /// The time between two rounds.
    async fn rest(&self, round: u32) {
        self.weather.set(Mood::default());
        let short = Duration::from_millis(self.roll().between(1000, 400_000));
        sleep(short).await;
        let into = Duration::from_micros(self.truth.micros() % 86_400_000_000);
        let next = DAY / ROUNDS * (round % ROUNDS);
        let left = if round == ROUNDS { DAY.saturating_sub(into) } else { next.saturating_sub(into) };
        let more = Duration::from_millis(self.roll().between(1000, 3 * 3_600_000));
        tokio::time::advance(left + more).await;
        sleep(SECOND).await;
    }

    /// The mood of a round.
    fn mood(&self) -> Mood {
        let mut dice = self.roll();
        match dice.below(20) {
            0..=4 => Mood { fails: 30, loses: 30, slow: 15, late: 6, ..Mood::default() },
            5 | 6 => Mood { loses: 60, ..Mood::default() },
            7 => Mood { slow: 200, late: 20, ..Mood::default() },
            8 => Mood { out: dice.of(&Place::ALL), ..Mood::default() },
            9 => Mood { kms_out: true, ..Mood::default() },
            _ => Mood::default(),
        }
    }

    /// Some steps at once.
    async fn round(&self) {
        let mood = self.mood();
        self.weather.set(mood);
        let many = [1, 2, 2, 3, 4][self.roll().index(5)];
        let crashes = self.roll().one_in(8);
        let sleeps = self.roll().one_in(20);
        if !mood.is_calm() || crashes || sleeps {
            // Writers that died are given up after ten minutes.
            self.unrest.set(self.truth.micros() + 1_200_000_000);
        }
        self.trouble.set(self.truth.micros() < self.unrest.get());
        let mut steps = Vec::new();
        for at in 0..many {
            let stagger = Duration::from_millis(self.roll().below(3000));
            let step = self.choose();
            let node = self.roll().index(self.nodes.borrow().len());
            let short = self.roll().one_in(4);
            steps.push(self.act(step, (node, short), stagger, (crashes && at == 0, sleeps && at == 0)));
        }
        // Meanwhile others may take for dead who sleeps.
        let maintained = async {
            for minutes in [12, 12] {
                if sleeps {
                    sleep(MINUTE * minutes).await;
                    let keeper = self.surely("start", self.judge().await);
                    let kept = keeper.room.maintain_log().await;
                    self.done("maintain", &keeper, kept);
                    self.surely("close", keeper.room.close().await);
                    keeper.link.kill();
                }
            }
        };
        join(join_all(steps), maintained).await;
        self.weather.set(Mood::default());
    }

    fn choose(&self) -> Step {
        let mut at = self.roll().below(STEPS.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in STEPS {
            if at < weight {
                return step;
            }
            at -= weight;
        }
        Step::Seal
    }

    pub fn nodes(&self) -> usize {
        self.nodes.borrow().len()
    }

    /// The program on a node, if one runs.
    pub fn running(&self, node: usize) -> Option<Actor> {
        self.nodes.borrow()[node].program.clone().filter(|program| !program.link.is_dead())
    }

    /// The program on a node, started if it is not there.
    async fn program(&self, node: usize) -> Result<Actor> {
        let (found, clock) = {
            let nodes = self.nodes.borrow();
            (nodes[node].program.clone(), Arc::clone(&nodes[node].clock))
        };
        if let Some(program) = found.filter(|program| !program.link.is_dead()) {
            return Ok(program);
        }
        self.nodes.borrow_mut()[node].program = None;
        let program = self.start(&clock, false).await?;
        self.count("start");
        self.nodes.borrow_mut()[node].program = Some(program.clone());
        Ok(program)
    }

    async fn act(
        &self,
        step: Step,
        (node, short): (usize, bool),
        stagger: Duration,
        (crashes, sleeps): (bool, bool),
    ) {
        sleep(stagger).await;
        let clock = Arc::clone(&self.nodes.borrow()[node].clock);
        let (began, since) = (self.truth.elapsed(), self.truth.micros());
        let actor = if short { self.start(&clock, false).await } else { self.program(node).await };
        let actor = match actor {
            Ok(actor) => actor,
            Err(error) => {
                self.note("start", &clock, false, Err::<(), _>(error));
                return;
            }
        };
        if crashes {
            let writes = self.roll().between(1, 14);
            actor.link.crash_at(writes);
        }
        if sleeps {
            let span = Duration::from_secs(self.roll().between(5, 2400));
            let until = self.truth.micros() + u64::try_from(span.as_micros()).unwrap();
            actor.link.suspend_until(until);
            clock.sleeps_until(until);
            self.count("suspended");
        }
        self.board.step(format!(
            "{}: {step:?} by program {} on node {node}{}, clock {} s ahead",
            self.what.borrow(),
            actor.link.name,
            if short { ", a short one" } else { "" },
            clock.seconds_ahead(),
        ));
        let died = std::pin::pin!(actor.link.death());
        let done = std::pin::pin!(async {
            self.take(step, &actor).await;
            if short {
                let closed = actor.room.close().await;
                self.note("close", &clock, actor.link.is_dead(), closed);
            }
        });
        // Death first: nothing of a dead program goes on.
        let crashed = matches!(select(died, done).await, Either::Left(_));
        let took = self.truth.elapsed() - began;
        if crashed {
            self.count("crash");
        }
        if !actor.link.slept_since(since) && !actor.link.is_dead() {
            if took > LONGEST {
                self.broken(format!("{step:?} took {took:?}"));
            }
            self.longest.set(self.longest.get().max(took));
        }
        if short {
            actor.link.kill();
        }
        if actor.link.is_dead() && !short {
            self.nodes.borrow_mut()[node].program = None;
        } else {
            actor.link.crash_at(0);
        }
    }

    /// Notes how a step ended: one that failed had a reason that is no harm.
    pub fn note<T>(&self, what: &str, clock: &HostClock, dead: bool, result: Result<T>) -> Option<T> {
        match result {
            Ok(done) => {
                self.count(what);
                Some(done)
            }
            Err(error) => {
                let state =
                    [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::KeyDestroyed, ErrorKind::Conflict];
                let kind = error.kind();
                // One clock that is ahead leaves the others in doubt: they promise nothing.
                let doubt = TimeDoubt::of(&error).is_some();
                let trouble = self.trouble.get() || dead;
                let excused = trouble && (kind.is_retryable() || kind == ErrorKind::KeyUnavailable);
                if !(state.contains(&kind) || doubt || excused) {
                    let ahead = clock.seconds_ahead();
                    self.broken(format!("{what}, with a clock {ahead} s ahead: {}", error.chain()));
                }
                self.count(&format!("{what}: {}", if doubt { "doubt" } else { kind.as_str() }));
                self.board.step(format!("  {what}: {}", error.chain()));
                None
            }
        }
    }

    async fn take(&self, step: Step, actor: &Actor) {
        match step {
            Step::Seal => self.seal(actor).await,
            Step::Open => self.open(actor).await,
            Step::Names => self.names(actor).await,
            Step::List => self.list(actor).await,
            Step::Extend => self.extend(actor).await,
            Step::Hold => self.hold(actor).await,
            Step::Release => self.release(actor).await,
            Step::Lengthen => self.lengthen(actor).await,
            Step::Destroy => self.destroy(actor).await,
            Step::Cancel => self.cancel(actor).await,
            Step::Sweep => self.sweep(actor).await,
            Step::Finish => self.finish(actor).await,
            Step::Rotate => {
                let rotated = actor.room.rotate_epoch(&access(), self.new_key()).await;
                self.done("rotate", actor, rotated);
            }
            Step::Maintain => {
                let kept = actor.room.maintain_log().await;
                self.done("maintain", actor, kept);
            }
            Step::Publish => {
                let published = actor.room.publish_log().await;
                self.done("publish", actor, published);
            }
            Step::Remove => {
                let client = self.client();
                let removed = actor.room.remove_remains(&access(), client.id).await;
                self.done("remove remains", actor, removed);
            }
            Step::Rekey => {
                let client = self.client();
                let rekeyed = async { actor.customer(&client).await?.rekey(self.new_key()).await }.await;
                self.done("rekey", actor, rekeyed);
            }
            Step::Leave => self.leave(actor).await,
            Step::SetClock => {
                if actor.clock.seconds_ahead().abs() <= 100 {
                    let set = self.order(actor, OrderKind::SetClock { at: actor.clock.now() }, None).await;
                    self.done("set clock", actor, set);
                }
            }
        }
    }

    fn new_key(&self) -> KeyChoice {
        KeyChoice::New(self.kms.provider().into())
    }

    fn done<T>(&self, what: &str, actor: &Actor, result: Result<T>) -> Option<T> {
        self.note(what, &actor.clock, actor.link.is_dead(), result)
    }

    async fn seal(&self, actor: &Actor) {
        let client = self.client();
        let (bytes, name, until, once) = {
            let mut dice = self.roll();
            let length = match dice.below(40) {
                0 => dice.between(0, 1),
                1 => dice.between(60_000, 200_000),
                2 => 65_536,
                _ => dice.between(8, 300),
            };
            let mut bytes: Vec<u8> = Vec::new();
            while (bytes.len() as u64) < length {
                bytes.extend(dice.next().to_le_bytes());
            }
            bytes.truncate(usize::try_from(length).unwrap());
            let number = dice.next();
            let once = dice.one_in(8);
            let name = match dice.below(3) {
                _ if once => Some(format!("once/{number:x}")),
                0 => None,
                _ => Some(format!("daily/{}", number % 4)),
            };
            let until =
                dice.one_in(8).then(|| self.today().plus(u32::try_from(dice.between(1, 16)).unwrap()));
            (bytes, name, until, once.then(|| format!("k-{number:x}")))
        };
        let began = self.oracle.borrow_mut().moment();
        // Shortly behind midnight it is yesterday for a clock that is a minute behind.
        let right = actor.clock.seconds_ahead().abs() <= 100;
        let from = if right { self.today().min(actor.clock.now().day()) } else { self.today() };
        let kept = self.client_of(client.id).kept;
        let tries = if once.is_some() { 3 } else { 1 };
        for _ in 0..tries {
            let mut options = SealOptions::new();
            if let Some(name) = &name {
                options = options.metadata(Metadata::default().with_name(name.parse().unwrap()));
            }
            if let Some(day) = until {
                options = options.retain_until(day);
            }
            if let Some(once) = &once {
                options = options.once(once.parse().unwrap());
            }
            let sealed = async { actor.customer(&client).await?.seal(bytes.clone(), options).await }.await;
            let Some(sealed) = self.done("seal", actor, sealed) else { continue };
            // Where the clock is wrong, the promise is for longer, if for anything.
            let earliest = if right { from.plus(kept.0) } else { from.plus(kept.0 - 1) };
            if sealed.retain_until < earliest {
                self.catch_up().await;
            }
            let least = self.least_promise(earliest, kept.0);
            let kept = self.client_of(client.id).kept;
            let most = self.today().plus(kept.1 + 2).max(until.unwrap_or(from));
            let promised = sealed.retain_until;
            if promised < least || until.is_some_and(|until| promised < until) || right && promised > most {
                self.broken(format!("sealed until {promised}, not {least} ({until:?}) to {most}"));
            }
            let sent = bytes.clone();
            let owed = Owed {
                customer: client.id,
                bytes,
                name,
                sealed: (0, 0),
                until: None,
                holds: BTreeSet::new(),
                extended: false,
                withdrawn: false,
            };
            let unique = once.is_some().then(|| owed.name.clone()).flatten();
            self.oracle.borrow_mut().sealed(began, sealed.id, owed, promised);
            if let (Some(name), Some(once)) = (&unique, &once) {
                // Its caller may not have heard of it, and sends it again.
                let options = SealOptions::new()
                    .metadata(Metadata::default().with_name(name.parse().unwrap()))
                    .once(once.parse().unwrap());
                let options = until.map_or(options.clone(), |day| options.retain_until(day));
                let again = async { actor.customer(&client).await?.seal(sent, options).await }.await;
                if let Some(again) = self.done("seal again", actor, again)
                    && again.id != sealed.id
                {
                    self.broken(format!("{} and {} were sealed once as {name}", sealed.id, again.id));
                }
            }
            if let Some(name) = unique {
                self.check_once(actor, &client, &name).await;
            }
            return;
        }
    }

    /// Where two people said that the log is ahead, and no second clock is there, a host is held against
    /// the time that they said alone.
    fn least_promise(&self, day: Day, kept: u32) -> Day {
        let ledger = self.ledger.borrow();
        let clock = ledger.register().map(|register| register.clock);
        let alone = clock.filter(|clock| !self.own_clock && clock.log_mark_ignored().is_some());
        alone.map_or(day, |clock| day.min(clock.at().day().plus(kept)))
    }

    /// What was sealed once is there once, however often it was sent.
    async fn check_once(&self, actor: &Actor, client: &Client, name: &str) {
        let found = async { actor.customer(client).await?.find(&name.parse().unwrap()).await }.await;
        let Some(found) = self.done("find", actor, found) else { return };
        let mut there = 0;
        for blob in found {
            there += usize::from(self.disks.blobs.read(&layout::blob(client.id, blob)).await.is_some());
        }
        if there != 1 {
            self.broken(format!("{there} blobs were sealed once as {name}"));
        }
    }

    /// Opens a blob by a program that may know old keys.
    async fn open(&self, actor: &Actor) {
        let Some((blob, client)) = self.owed_blob() else { return };
        let keys = self.keys_of(client.id, blob).await;
        let opened = self.opened(actor, &client, blob).await;
        self.judge_open("open", actor, blob, (keys, opened));
    }

    pub async fn opened(&self, actor: &Actor, client: &Client, blob: BlobId) -> Result<Vec<u8>> {
        Ok(actor.customer(client).await?.open(blob).await?.bytes(1 << 20).await?.to_vec())
    }

    /// The keys that lead to a blob, by what stands on the storage of blobs.
    async fn keys_of(&self, customer: CustomerId, blob: BlobId) -> Option<BTreeSet<KekId>> {
        let stored = self.disks.blobs.read(&layout::blob(customer, blob)).await?;
        let length = Header::length(stored.get(..PRELUDE_LEN)?).ok()?;
        let header = Header::parse(stored.get(..length)?).ok()?;
        let mut keys = BTreeSet::from([header.binding.kek]);
        for path in self.disks.blobs.paths(Some(&layout::wraps_of(customer, blob))).await {
            let wrap = Wrap::from_bytes(&self.disks.blobs.read(&path).await?).ok()?;
            keys.insert(wrap.binding.kek);
        }
        Some(keys)
    }

    fn judge_open(
        &self,
        what: &str,
        actor: &Actor,
        blob: BlobId,
        (keys, opened): (Option<BTreeSet<KekId>>, Result<Vec<u8>>),
    ) {
        let owed = self.oracle.borrow().blobs[&blob].clone();
        let state = format!("{blob}, owed until {:?}, held by {:?}", owed.until, owed.holds);
        match opened {
            Ok(bytes) => {
                self.count(what);
                if bytes != owed.bytes {
                    self.broken(format!("{what}: {state}: other bytes"));
                }
                // What was destroyed some time ago is in no cache any more.
                let dropped = keys.map(|keys| {
                    let ledger = self.ledger.borrow();
                    keys.into_iter().map(|key| ledger.dropped_at(key)).collect::<Option<BTreeSet<_>>>()
                });
                if let Some(Some(dropped)) = dropped
                    && let Some(last) = dropped.last()
                    && last.saturating_add(TERM) < self.truth.now()
                {
                    self.broken(format!("{what}: {state}: it opens, and its last key was dropped at {last}"));
                }
            }
            Err(error) => {
                let kind = error.kind();
                let lost = [
                    ErrorKind::KeyDestroyed,
                    ErrorKind::NotFound,
                    ErrorKind::Authentication,
                    ErrorKind::Integrity,
                    ErrorKind::Denied,
                ];
                let withdrawn = owed.withdrawn && kind == ErrorKind::Denied;
                if owed.is_owed(self.today()) && lost.contains(&kind) && !withdrawn {
                    self.broken(format!("{what}: {state}: {}", error.chain()));
                }
                self.note(what, &actor.clock, actor.link.is_dead(), Err::<(), _>(error));
            }
        }
    }

    /// What is owed is found by its name, the newest first.
    async fn names(&self, actor: &Actor) {
        let client = self.client();
        let number = self.roll().below(4);
        let name = format!("daily/{number}");
        let began = self.oracle.borrow_mut().moment();
        let parsed: BlobName = name.parse().unwrap();
        let found = async { actor.customer(&client).await?.find(&parsed).await }.await;
        if let Some(found) = self.done("find", actor, found) {
            self.check_names(client.id, &name, began, &found);
        }
    }

    fn check_names(&self, customer: CustomerId, name: &str, began: u64, found: &[BlobId]) {
        let oracle = self.oracle.borrow();
        let today = self.today();
        let place: BTreeMap<BlobId, usize> = found.iter().enumerate().map(|(at, blob)| (*blob, at)).collect();
        let of_name = oracle
            .blobs
            .iter()
            .filter(|(_, owed)| owed.customer == customer && owed.name.as_deref() == Some(name));
        let mut all: Vec<_> = of_name.filter(|(_, owed)| owed.sealed.1 < began).collect();
        all.sort_by_key(|(_, owed)| owed.sealed);
        for (blob, owed) in &all {
            if owed.is_owed(today) && !place.contains_key(blob) {
                self.broken(format!("{blob} is not found as {name}"));
            }
        }
        for (first, one) in &all {
            for (second, other) in &all {
                if one.sealed.1 < other.sealed.0
                    && let (Some(first_at), Some(second_at)) = (place.get(first), place.get(second))
                    && first_at < second_at
                {
                    self.broken(format!("{second} is newer than {first}, and stands behind it as {name}"));
                }
            }
        }
    }

    async fn list(&self, actor: &Actor) {
        let client = self.client();
        let in_pages = self.roll().one_in(2);
        let began = self.oracle.borrow_mut().moment();
        let listed = async {
            let customer = actor.customer(&client).await?;
            if !in_pages {
                return customer.list().map_ok(|listed| listed.id).try_collect().await;
            }
            pages(&customer).await
        };
        let listed: Result<Vec<BlobId>> = listed.await;
        if let Some(listed) = self.done("list", actor, listed) {
            self.check_list(client.id, began, &listed);
        }
    }

    fn check_list(&self, customer: CustomerId, began: u64, listed: &[BlobId]) {
        let (today, set): (_, BTreeSet<_>) = (self.today(), listed.iter().collect());
        if set.len() != listed.len() {
            self.broken("a blob is listed twice");
        }
        for (blob, owed) in &self.oracle.borrow().blobs {
            let is_there = owed.customer == customer && owed.sealed.1 < began && owed.is_owed(today);
            if is_there && !set.contains(blob) {
                self.broken(format!("{blob} is not listed"));
            }
        }
    }

    async fn extend(&self, actor: &Actor) {
        let Some((blob, client)) = self.blob_to_keep() else { return };
        let more = u32::try_from(self.roll().between(1, 8)).unwrap();
        let until = blob.day().max(self.today()).plus(more);
        let began = self.oracle.borrow_mut().moment();
        self.oracle.borrow_mut().extending(blob);
        let extended = async { actor.customer(&client).await?.extend(blob, until).await }.await;
        if let Some(extended) = self.done("extend", actor, extended) {
            if extended.retain_until < until {
                self.broken(format!("{blob} is extended until {} and not {until}", extended.retain_until));
            }
            self.oracle.borrow_mut().extended(began, blob, extended.retain_until);
        }
    }

    async fn hold(&self, actor: &Actor) {
        let Some((blob, client)) = self.blob_to_keep() else { return };
        let target = match self.roll().below(8) {
            0 => HoldTarget::Customer,
            1 | 2 => HoldTarget::Day(blob.day()),
            _ => HoldTarget::Blob(blob),
        };
        let covered = self.oracle.borrow().covered(client.id, target, self.today());
        let placed = async { actor.customer(&client).await?.place_hold(target).await }.await;
        if let Some(placed) = self.done("hold", actor, placed) {
            let today = self.today();
            let still = |blob: &BlobId| {
                *blob
                    == match target {
                        HoldTarget::Blob(blob) => blob,
                        _ => return self.oracle.borrow().blobs[blob].is_owed(today),
                    }
            };
            let covered = covered.into_iter().filter(still).collect();
            self.oracle.borrow_mut().held(client.id, placed.hold.id, covered);
        }
    }

    /// Two people ask for something by a program.
    async fn order(&self, actor: &Actor, what: OrderKind, customer: Option<CustomerId>) -> Result<Executed> {
        let person = Principal::person("a").unwrap();
        let order = actor.room.draft_order(&access(), what, customer, person, VALIDITY).await?;
        let id = actor.room.request_order(&access(), &order.sign(&key("a")).unwrap()).await?;
        actor.room.approve_order(&access(), id, &key("b")).await
    }

    async fn release(&self, actor: &Actor) {
        let live: Vec<(HoldId, CustomerId)> = {
            let oracle = self.oracle.borrow();
            let live = oracle.placed.iter().filter(|(hold, _)| !oracle.released.contains(hold));
            live.map(|(hold, customer)| (*hold, *customer)).collect()
        };
        let Some((hold, customer)) = self.roll().of(&live) else { return };
        let ordered = self.oracle.borrow_mut().ordering(customer, What::Release(hold));
        let done = self.order(actor, OrderKind::ReleaseHold { hold }, Some(customer)).await;
        let done = self.done("release", actor, done);
        self.oracle.borrow_mut().ordered(ordered, done.is_some());
    }

    async fn lengthen(&self, actor: &Actor) {
        let client = self.client();
        let days = client.kept.1 + u32::try_from(self.roll().below(2)).unwrap();
        if days > 16 {
            return;
        }
        for known in self.clients.borrow_mut().iter_mut().filter(|known| known.id == client.id) {
            known.kept.1 = known.kept.1.max(days);
        }
        let period = format!("P{days}D").parse().unwrap();
        let set = async { actor.customer(&client).await?.set(Some(period), None).await }.await;
        self.done("lengthen", actor, set);
    }

    async fn destroy(&self, actor: &Actor) {
        let Some((blob, client)) = self.blob_to_destroy() else { return };
        let one = self.roll().one_in(2);
        let (what, meant) = match one {
            true => (OrderKind::DestroyBlob { blob }, What::Blob(blob)),
            false => (OrderKind::DestroyDays { days: vec![blob.day()] }, What::Day(blob.day())),
        };
        // What two people ordered is owed no more, now or when a sweep can do it.
        let ordered = self.oracle.borrow_mut().ordering(client.id, meant);
        let done = self.order(actor, what, Some(client.id)).await;
        let done = self.done("order", actor, done);
        self.oracle.borrow_mut().ordered(ordered, done.is_some());
        if let Some(Executed::Pended { keys, .. }) = done {
            self.pended.borrow_mut().extend(keys.into_iter().map(|key| (client.id, key)));
        }
    }

    async fn cancel(&self, actor: &Actor) {
        let keys: Vec<_> = self.pended.borrow().iter().copied().collect();
        let keys = &keys[keys.len().saturating_sub(20)..];
        let Some((customer, key)) = self.roll().of(keys) else { return };
        let cancelled = actor.room.cancel_shred(&access(), customer, &[key].into()).await;
        self.done("cancel", actor, cancelled);
    }

    async fn sweep(&self, actor: &Actor) {
        let sweep = actor.room.sweep(&access()).await;
        let Some(sweep) = self.done("sweep", actor, sweep) else { return };
        for (_, swept) in sweep.customers {
            if let Some(swept) = self.done("swept", actor, swept)
                && !swept.dropped.is_empty()
            {
                self.count("drop");
            }
        }
    }

    async fn finish(&self, actor: &Actor) {
        let destroyers = actor.kms.destroyers();
        let steps = actor.room.finish_epochs(&access(), &destroyers, FinishOptions::default()).await;
        for step in self.done("finish", actor, steps).into_iter().flatten() {
            self.done("epoch step", actor, step.result);
        }
    }

    /// The agreement with a customer ends; another one takes its place.
    async fn leave(&self, actor: &Actor) {
        let client = self.client_of(self.clients.borrow().last().unwrap().id);
        if client.leaves {
            let destroyed = actor.room.destroy_customer(&access(), client.id, None).await;
            self.done("destroy customer", actor, destroyed);
            return;
        }
        if !self.roll().one_in(4) {
            return;
        }
        let return_to = strongroom::order::ReturnTo::Nothing;
        self.clients.borrow_mut().last_mut().unwrap().leaves = true;
        let ordered = self.oracle.borrow_mut().ordering(client.id, What::All);
        let done = self.order(actor, OrderKind::Offboard { return_to }, Some(client.id)).await;
        let done = self.done("leave", actor, done);
        self.oracle.borrow_mut().ordered(ordered, done.is_some());
    }

    /// Reads what was written to the keys storage, and new final certificates.
    pub async fn catch_up(&self) {
        let caught = self.ledger.borrow_mut().catch_up(&self.disks.keys);
        if let Err(wrong) = caught {
            self.broken(wrong);
        }
        if self.kms.unrecorded() > 0 {
            self.broken("a key was used before its intent was durable");
        }
        self.check_drops().await;
    }

    /// That no key was dropped which was the last of a blob that is owed.
    async fn check_drops(&self) {
        let fresh = self.ledger.borrow_mut().newly_dropped();
        if fresh.is_empty() {
            return;
        }
        let today = self.today();
        let owed: Vec<(BlobId, CustomerId)> = {
            let oracle = self.oracle.borrow();
            let owed = oracle.blobs.iter().filter(|(_, owed)| owed.is_owed(today) && !owed.withdrawn);
            owed.map(|(blob, owed)| (*blob, owed.customer)).collect()
        };
        for (blob, customer) in owed {
            let Some(keys) = self.keys_of(customer, blob).await else { continue };
            let ledger = self.ledger.borrow();
            if keys.iter().any(|key| fresh.contains(key))
                && keys.iter().all(|key| ledger.dropped_at(*key).is_some())
            {
                self.broken(format!("{blob} is owed, and its last key was dropped"));
            }
        }
    }

    /// That no copy opens of what a certificate says is destroyed.
    async fn check_finals(&self, judge: &Actor) {
        for path in self.disks.audit.paths(Some(&strongroom::audit::layout::certificates())).await {
            let Some(Object::Certificate { stage: CertificateStage::Final, .. }) = Object::at(&path) else {
                continue;
            };
            if !self.certified.borrow_mut().insert(path.to_string()) {
                continue;
            }
            let bytes = self.disks.audit.read(&path).await.unwrap();
            let parsed = Certificate::parse(&bytes, &judge.room.log().authority());
            let certificate = self.surely("certificate", parsed);
            let body = certificate.body();
            // With the papers of the epochs' ends; they are verified.
            self.surely("bundle", judge.room.certificate_bundle(&certificate).await);
            let checked = self.ledger.borrow().check_final(body.customer, body.ring.version);
            if let Err(wrong) = checked {
                self.broken(wrong);
            }
            self.count("final certificates");
        }
    }

    /// What has to hold, by a program that knows nothing.
    async fn check(&self, thorough: bool) {
        let judge = self.surely("open the store", self.judge().await);
        self.check_by(&judge, thorough).await;
        self.dismiss(judge).await;
    }

    async fn dismiss(&self, judge: Actor) {
        self.surely("close", judge.room.close().await);
        judge.link.kill();
    }

    /// Some blobs that are owed are looked at, or all and everything else.
    async fn check_by(&self, judge: &Actor, thorough: bool) {
        let today = self.today();
        let blobs: Vec<(BlobId, CustomerId)> = {
            let oracle = self.oracle.borrow();
            let owed = oracle.blobs.iter().filter(|(_, owed)| owed.is_owed(today));
            let owed: Vec<_> = owed.map(|(blob, owed)| (*blob, owed.customer)).collect();
            let mut dice = self.roll();
            // At most risk is what ends today, or what should have if it was not kept.
            let (risky, rest): (Vec<_>, Vec<_>) =
                owed.iter().copied().partition(|(blob, _)| blob.day() <= today);
            match thorough {
                true => owed,
                false => [dice.of(&risky), dice.of(&risky), dice.of(&rest)].into_iter().flatten().collect(),
            }
        };
        for (blob, customer) in blobs {
            let client = self.client_of(customer);
            let keys = self.keys_of(customer, blob).await;
            let opened = self.opened(judge, &client, blob).await;
            self.judge_open("check", judge, blob, (keys, opened));
        }
        if thorough {
            self.check_all(judge).await;
        }
    }

    async fn check_all(&self, judge: &Actor) {
        let clients = self.clients.borrow().clone();
        for client in &clients {
            let began = self.oracle.borrow_mut().moment();
            let customer = match judge.customer(client).await {
                Ok(customer) => customer,
                Err(error) if client.leaves && error.kind() == ErrorKind::KeyDestroyed => continue,
                Err(error) => self.broken(format!("{}: {}", client.label, error.chain())),
            };
            let listed: Result<Vec<_>> = customer.list().map_ok(|listed| listed.id).try_collect().await;
            self.check_list(client.id, began, &self.surely("list", listed));
            let paged = self.surely("page", pages(&customer).await);
            self.check_list(client.id, began, &paged);
            if !client.leaves {
                for number in 0..4 {
                    let name = format!("daily/{number}");
                    let found = customer.find(&name.parse().unwrap()).await;
                    self.check_names(client.id, &name, began, &self.surely("find", found));
                }
            }
            let info = self.surely("info", customer.info().await);
            let newest = self.ledger.borrow().ring(client.id).map(|ring| ring.version);
            if newest != Some(info.ring_version) {
                self.broken(format!(
                    "version {} is believed, and {newest:?} is the newest",
                    info.ring_version
                ));
            }
        }
        for (hold, customer) in &self.oracle.borrow().placed {
            let released = self.oracle.borrow().released.contains(hold);
            let stands = self
                .ledger
                .borrow()
                .ring(*customer)
                .is_some_and(|ring| ring.hold(*hold).is_some_and(Hold::is_live));
            if !released && !stands {
                self.broken(format!("the hold {hold} is lost"));
            }
        }
        self.check_orders(judge).await;
        self.check_finals(judge).await;
        let report = self.surely("verify", judge.room.verify_log().await);
        let wrong = report.findings.iter().find(|finding| finding.severity == Severity::Wrong);
        if let Some(wrong) = wrong {
            self.broken(format!("the log does not verify: {wrong:?}"));
        }
        self.count("log verified");
    }

    #[track_caller]
    fn surely<T>(&self, what: &str, result: Result<T>) -> T {
        match result {
            Ok(done) => done,
            Err(error) => self.broken(format!("{what}: {}", error.chain())),
        }
    }

    /// How far each order on a single blob has come, and what becomes of its blob.
    async fn check_orders(&self, judge: &Actor) {
        for status in self.surely("orders", judge.room.orders(&access()).await) {
            let OrderKind::DestroyBlob { blob } = status.signed.order().what else { continue };
            let client = self.client_of(status.signed.order().customer.unwrap());
            let allowed: &[ErrorKind] = match status.state {
                OrderState::UnderWay | OrderState::Suspended => {
                    &[ErrorKind::Denied, ErrorKind::KeyDestroyed, ErrorKind::NotFound]
                }
                OrderState::Done => &[ErrorKind::KeyDestroyed, ErrorKind::NotFound, ErrorKind::Denied],
                _ => continue,
            };
            let opened = self.opened(judge, &client, blob).await;
            if !opened.as_ref().is_err_and(|error| allowed.contains(&error.kind())) {
                self.broken(format!("{blob}: {:?}, {:?}", status.state, opened.map(drop)));
            }
        }
    }

    /// Once there are no faults and clocks are right, every node seals and opens.
    async fn progress(&self) {
        self.weather.set(Mood::default());
        let nodes = self.nodes.borrow().len();
        for node in 0..nodes {
            self.nodes.borrow()[node].clock.set_ahead(0);
        }
        // A commit that is ahead keeps others in doubt, and is not waited for.
        let doubt = |error: &Error| TimeDoubt::of(error).is_some();
        for node in 0..nodes {
            let began = self.truth.elapsed();
            let mut last = String::new();
            let done = loop {
                if self.truth.elapsed() - began > PROGRESS {
                    break false;
                }
                let tried = async {
                    let actor = self.program(node).await?;
                    let client = self.clients.borrow()[0].clone();
                    let acme = actor.customer(&client).await?;
                    let sealed = acme.seal(b"progress".to_vec(), SealOptions::new()).await?;
                    let opened = acme.open(sealed.id).await?.bytes(99).await?;
                    if opened != b"progress".as_slice() {
                        self.broken("other bytes");
                    }
                    Ok::<_, Error>(())
                };
                match tried.await {
                    Ok(()) => break true,
                    Err(error) if doubt(&error) => {
                        self.count("no progress: doubt");
                        break true;
                    }
                    Err(error) => last = error.chain(),
                }
                sleep(SECOND).await;
            };
            if !done {
                self.broken(format!("node {node} makes no progress: {last}"));
            }
            self.count("progress");
        }
        self.check_caches().await;
    }

    /// Programs that ran while keys were dropped have none of them any more.
    async fn check_caches(&self) {
        let mut dead = Vec::new();
        let young: Vec<_> = {
            let oracle = self.oracle.borrow();
            let today = self.today();
            let gone = oracle.blobs.iter().rev().filter(|(_, owed)| !owed.is_owed(today));
            gone.map(|(blob, owed)| (*blob, owed.customer)).take(40).collect()
        };
        for (blob, customer) in young {
            let Some(keys) = self.keys_of(customer, blob).await else { continue };
            let ledger = self.ledger.borrow();
            if dead.len() < 4 && keys.iter().all(|key| ledger.dropped_at(*key).is_some()) {
                dead.push((blob, customer, keys));
            }
        }
        tokio::time::advance(TERM).await;
        for node in 0..self.nodes() {
            let Some(actor) = self.running(node) else { continue };
            for (blob, customer, keys) in &dead {
                let opened = self.opened(&actor, &self.client_of(*customer), *blob).await;
                self.judge_open("open what is dead", &actor, *blob, (Some(keys.clone()), opened));
            }
        }
    }

    /// Doubt is taken away, time passes, and all that may die dies.
    async fn end(&self) {
        *self.what.borrow_mut() = "the end".into();
        self.trouble.set(false);
        self.weather.set(Mood::default());
        self.progress().await;
        self.catch_up().await;
        self.check(true).await;
        for node in self.nodes.borrow_mut().iter_mut() {
            if let Some(program) = node.program.take() {
                program.link.kill();
            }
        }
        // Those that were stopped are taken for dead.
        tokio::time::advance(MINUTE * 20).await;
        let judge = self.surely("open", self.judge().await);
        let room = &judge.room;
        let set = self.order(&judge, OrderKind::SetClock { at: self.truth.now() }, None).await;
        self.surely("set the clock", set);
        let clients = self.clients.borrow().clone();
        for client in &clients {
            let holds: Vec<_> = {
                let ledger = self.ledger.borrow();
                ledger
                    .ring(client.id)
                    .unwrap()
                    .holds
                    .iter()
                    .filter(|hold| hold.is_live())
                    .map(|hold| hold.id)
                    .collect()
            };
            for hold in holds {
                let ordered = self.oracle.borrow_mut().ordering(client.id, What::Release(hold));
                let done = self.order(&judge, OrderKind::ReleaseHold { hold }, Some(client.id)).await;
                self.surely("release", done);
                self.count("release");
                self.oracle.borrow_mut().ordered(ordered, true);
            }
        }
        self.catch_up().await;
        let last = {
            let ledger = self.ledger.borrow();
            let days = clients.iter().flat_map(|client| &ledger.ring(client.id).unwrap().entries);
            let days =
                days.filter_map(|entry| if let EntryKind::Day(day) = entry.kind { Some(day) } else { None });
            // Keys are minted for days to come, of which nothing is sealed.
            let sealed = self.oracle.borrow().blobs.values().filter_map(|owed| owed.until).max();
            days.max().unwrap_or(self.today()).min(sealed.unwrap_or(self.today())).max(self.today()).plus(9)
        };
        while self.today() <= last {
            self.evening(&judge).await;
        }
        let rotated = self.truth.now();
        // The first may only end a rotation that was begun.
        for _ in 0..2 {
            self.surely("rotate", room.rotate_epoch(&access(), self.new_key()).await);
        }
        for _ in 0..12 {
            self.evening(&judge).await;
            let destroyers = judge.kms.destroyers();
            let steps = room.finish_epochs(&access(), &destroyers, FinishOptions::default()).await;
            for step in self.surely("finish", steps) {
                self.surely("finish an epoch", step.result);
            }
            self.catch_up().await;
        }
        self.surely("sweep", room.sweep(&access()).await);
        self.aftermath(&judge, &clients, rotated).await;
        self.surely("close", room.close().await);
    }

    /// A day goes by, and what may die in the evening does.
    async fn evening(&self, judge: &Actor) {
        tokio::time::advance(DAY).await;
        sleep(SECOND).await;
        if self.today().number().is_multiple_of(KEPT) {
            self.surely("maintain", judge.room.maintain_log().await);
        }
        let leaves = self.clients.borrow().iter().find(|client| client.leaves).map(|client| client.id);
        if let Some(customer) = leaves {
            // Not before it has been closed for a day, and not at all where the order was not approved.
            let destroyed = judge.room.destroy_customer(&access(), customer, None).await;
            self.done("destroy customer", judge, destroyed);
        }
        for (customer, swept) in self.surely("sweep", judge.room.sweep(&access()).await).customers {
            self.surely(&format!("the sweep of {customer}"), swept);
        }
        self.catch_up().await;
    }

    async fn aftermath(&self, judge: &Actor, clients: &[Client], rotated: Timestamp) {
        self.check_all(judge).await;
        // A backup has what was removed.
        for (path, bytes, _) in self.disks.blobs.written_since(0) {
            if self.disks.blobs.read(&path).await.is_none() {
                self.disks.blobs.tamper(&path, Some(bytes)).await;
            }
        }
        let (mut dead, mut alive) = (0, 0);
        let blobs: Vec<_> =
            self.oracle.borrow().blobs.iter().map(|(blob, owed)| (*blob, owed.clone())).collect();
        for (blob, owed) in blobs {
            if owed.is_owed(self.today()) {
                alive += 1;
                continue;
            }
            let client = clients.iter().find(|client| client.id == owed.customer).unwrap();
            let over = self
                .ledger
                .borrow()
                .ring(owed.customer)
                .is_some_and(|ring| ring.entries.iter().all(|entry| entry.state == EntryState::Active));
            let keys = self.keys_of(owed.customer, blob).await;
            // Not owed by an order that was cancelled: then it may live.
            let lives = keys.as_ref().is_some_and(|keys| {
                let ledger = self.ledger.borrow();
                let ring = ledger.ring(owed.customer).unwrap();
                keys.iter().any(|key| ring.entry(*key).is_some())
            });
            if lives || !over {
                continue;
            }
            match self.opened(judge, client, blob).await {
                Ok(_) => self.broken(format!("{blob} opens, and no ring has a key of it")),
                Err(error) if [ErrorKind::KeyDestroyed, ErrorKind::NotFound].contains(&error.kind()) => {}
                Err(error) => self.broken(format!("{blob}: {}", error.chain())),
            }
            // By nothing that was ever written to the keys, if it was dead before the last epoch began.
            let copies = keys.is_some_and(|keys| {
                let ledger = self.ledger.borrow();
                let before = |key: &&KekId| ledger.dropped_at(**key).is_some_and(|at| at < rotated);
                keys.iter().filter(before).any(|key| ledger.opens(*key))
            });
            if copies {
                let phases = self.ledger.borrow().register().map(|register| register.epochs.clone());
                self.broken(format!(
                    "{blob} is dead, its epochs ended, and a copy of its key opens: {phases:?}"
                ));
            }
            dead += 1;
        }
        for _ in 0..dead {
            self.count("dead in the end");
        }
        for _ in 0..alive {
            self.count("alive in the end");
        }
        self.check_certificates(judge, clients).await;
        let open = [OrderState::UnderWay, OrderState::Suspended];
        let orders = self.surely("orders", judge.room.orders(&access()).await);
        // An end of an agreement that was not gone on with in time stays where it is.
        let mut left =
            orders.iter().filter(|order| !matches!(order.signed.order().what, OrderKind::Offboard { .. }));
        if let Some(left) = left.find(|order| open.contains(&order.state)) {
            self.broken(format!("an order is not carried out: {:?}", left.state));
        }
    }

    /// There is a certificate for each drop, verified, and none of an order covers nothing.
    async fn check_certificates(&self, judge: &Actor, clients: &[Client]) {
        for client in clients {
            let dropped: BTreeSet<u64> = {
                let ledger = self.ledger.borrow();
                ledger.ring(client.id).unwrap().dropped.iter().map(|gone| gone.version).collect()
            };
            for version in dropped {
                let id = strongroom::ring::certificate_id(judge.room.store_id(), client.id, version);
                let kept = judge.room.certificate(id, CertificateStage::Interim).await;
                let Some(kept) = self.surely("certificate", kept) else {
                    self.broken(format!("version {version} dropped keys, and has no certificate"));
                };
                let note = kept.to_note();
                let body = match certificate::verify(note.as_bytes(), &judge.room.log().authority(), &[], 0) {
                    Ok(verified) => verified.body,
                    Err(error) => self.broken(format!("a certificate: {error:?}")),
                };
                if matches!(body.authority, Authority::Order(_))
                    && body.scope.blobs.certain + body.scope.blobs.uncertain == 0
                    && !client.leaves
                {
                    self.broken("a certificate of an order without a scope");
                }
                self.count("certificates");
            }
        }
    }
}
