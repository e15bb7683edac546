//! A store in a world of its own: nodes, short programs, a destroyer, people and whoever may write
//! to a storage, on storages and a KMS that fail, with clocks that are wrong, on a simulated clock,
//! from a seed. The same seed is the same world, request by request ([`Report::digest`]): there is one
//! thread, tokio's time is paused, jobs run in place (`system::simulate`), and all chance is the
//! seed's.
//!
//! Several steps are under way at once. What was written is looked at after each round of them, some blobs
//! twice a day, and everything every fifty days and in the end. These have to hold:
//!
//! * nothing is lost: what the store confirmed and still owes opens, with its bytes, on a node that
//!   knows nothing, is listed, and is found by its name in the order of time;
//! * nothing is early: no key leaves a ring before its day or its window is over, by the true time, or
//!   while a hold is on it, and no promise is shorter than the policy;
//! * nothing lives after final: no copy of a ring that was ever written opens a key that is certified
//!   as destroyed, and no cache opens a blob for longer than its term;
//! * nothing is believed that nobody vouches for: what is planted is in no answer, is pinned by nobody,
//!   and its KMS key is not asked;
//! * the log verifies;
//! * everybody progresses: no operation takes longer than its deadline, and once faults end, every node
//!   seals and opens within a minute.
#![allow(dead_code, unreachable_pub, reason = "the test and the bench use different parts")]

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

pub mod attacks;
pub mod clock;
#[path = "../common/dice.rs"]
pub mod dice;
pub mod kms;
pub mod ledger;
pub mod oracle;
#[path = "../common/signer.rs"]
pub mod signer;
pub mod storage;
pub mod world;

use storage::Weather;
use world::World;

/// What a world came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// A hash of all requests to storages and KMS, in order, with times and outcomes.
    pub digest: u64,
    pub requests: u64,
    /// Steps by kind, and how they ended.
    pub steps: BTreeMap<String, u64>,
    pub faults: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Counts another world with this one. The hash stays that of this one.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        for (what, count) in other.steps {
            let most = what.starts_with("longest");
            let sum = self.steps.entry(what).or_default();
            *sum = if most { count.max(*sum) } else { *sum + count };
        }
        other.faults.into_iter().for_each(|(what, count)| *self.faults.entry(what).or_default() += count);
    }
}

/// A world in which something does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    pub seed: u64,
    /// What does not hold.
    pub message: String,
    /// The last steps and requests.
    pub tail: String,
}

/// What a world shows to who looks at it from outside.
#[derive(Debug, Default)]
pub struct Board {
    weather: Mutex<Option<Arc<Weather>>>,
    steps: Mutex<Vec<String>>,
}

impl Board {
    pub fn step(&self, what: String) {
        let mut steps = self.steps.lock().unwrap();
        if steps.len() > 60 {
            steps.drain(..20);
        }
        steps.push(what);
    }

    fn tail(&self) -> String {
        let weather = self.weather.lock().unwrap();
        let requests = weather.as_ref().map(|weather| weather.tail()).unwrap_or_default();
        format!("requests:\n{requests}steps:\n{}", self.steps.lock().unwrap().join("\n"))
    }
}

/// Runs the world of a seed for so many days.
pub fn simulate(seed: u64, days: u32) -> Result<Report, Box<Broken>> {
    let board = Arc::new(Board::default());
    let shown = Arc::clone(&board);
    let run = move || {
        strongroom::system::simulate(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let world = World::new(seed, &shown).await;
            *shown.weather.lock().unwrap() = Some(Arc::clone(&world.weather));
            world.run(days).await
        })
    };
    // A thread of its own, so that nothing of one world is left for the next.
    let thread = std::thread::Builder::new().name(format!("seed {seed}")).stack_size(16 << 20).spawn(run);
    let ended = thread.unwrap().join();
    ended.map_err(|panic| Box::new(Broken { seed, message: message(&*panic), tail: board.tail() }))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
