//! Many writers of one store: how much several nodes do together, and how long programs wait
//! for each other that start at once.
//!
//! `cargo bench --bench writers`. All is in one process, over a storage in memory whose every
//! request takes 30 ms, or 80 ms. `STRONGROOM_BENCH_PROGRAMS` says how many programs start at
//! once: else 100. Here they do not take turns, as commands on one machine do.
//! What must not be ends it with an error: an operation that fails, a log that does not verify.

#[path = "../tests/common/faults.rs"]
mod faults;
#[path = "../tests/common/world.rs"]
mod world;

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use faults::FaultStore;
use futures_util::future::try_join_all;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::room::{Options, SealOptions, Source, Strongroom};
use strongroom::system::SystemClock;
use world::{World, access, add, label, pattern};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many loops each node has.
const LOOPS: usize = 32;
/// How long they go on.
const FOR: Duration = Duration::from_secs(10);

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> Result {
    let programs = std::env::var("STRONGROOM_BENCH_PROGRAMS").map_or(Ok(100), |text| text.parse())?;
    let mut one = None;
    for nodes in [1, 2, 4] {
        let rate = nodes_at_work(nodes).await?;
        let one = *one.get_or_insert(rate);
        say(&format!("{nodes} nodes: {rate:.0} operations/s, {:.2} times one", rate / one))?;
    }
    for count in [1, programs] {
        programs_at_once(count).await?;
    }
    Ok(())
}

/// With a clock that goes: a shard is free some time after its last use.
fn options(world: &World) -> Options {
    let mut options = world.options();
    options.clock = Arc::new(SystemClock);
    options
}

fn slow(world: &World, latency: Duration) {
    [&world.blobs, &world.keys, &world.audit]
        .into_iter()
        .for_each(|store: &FaultStore| store.set_latency(latency));
}

/// Operations a second of so many nodes, each with a shard of its own.
async fn nodes_at_work(count: usize) -> Result<f64> {
    let world = World::new();
    let room = world.init(options(&world)).await?;
    slow(&world, Duration::from_millis(30));
    let mut options = options(&world);
    options.own_shard = true;
    let nodes = try_join_all((0..count).map(|_| world.node(options.clone()))).await?;
    let end = Instant::now() + FOR;
    let loops = (0..LOOPS * count).map(|number| {
        let node = nodes[number % count].clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let begun = Instant::now();
                operation(&node).await?;
                took.push(begun.elapsed());
            }
            Result::Ok(took)
        })
    });
    let mut by_node = vec![0; count];
    let mut took = Vec::new();
    for (number, done) in try_join_all(loops).await?.into_iter().enumerate() {
        let done = done?;
        by_node[number % count] += done.len();
        took.extend(done);
    }
    took.sort_unstable();
    slow(&world, Duration::ZERO);
    for node in &nodes {
        node.close().await?;
    }
    world.verify_log(&room).await;
    let p99 = took[took.len() * 99 / 100].as_millis();
    say(&format!("{count} nodes, 30 ms: {by_node:?} operations, p99 {p99} ms"))?;
    Ok(took.len() as f64 / FOR.as_secs_f64())
}

/// One operation's two records.
async fn operation(room: &Strongroom) -> Result {
    let access = Access::new(Principal::service("bench")?, Purpose::Operations);
    let intent = Intent::new(room.log().request_id()?, &access, Action::Stat);
    let (open, _receipt) = room.log().begin(intent).await?;
    Ok(open.finish(OutcomeResult::Ok, None).await?)
}

/// Programs that start at once; each seals 4 KiB.
async fn programs_at_once(count: usize) -> Result {
    let world = World::new();
    let room = world.init(options(&world)).await?;
    add(&room, "acme").await?;
    slow(&world, Duration::from_millis(80));
    let begun = Instant::now();
    let programs = (0..count).map(|_| async {
        let room = world.node(options(&world)).await?;
        let customer = room.customer(&label("acme"), access()).await?;
        customer.seal(Source::from(pattern(4096)), SealOptions::new()).await?;
        room.close().await?;
        Result::Ok(begun.elapsed())
    });
    let slowest = try_join_all(programs).await?.into_iter().max().unwrap_or_default();
    slow(&world, Duration::ZERO);
    let requests = world.audit.requests();
    let shards = room.log_reader().shards().await?.len();
    world.verify_log(&room).await;
    say(&format!(
        "{count} programs at once, 80 ms: all succeed, the slowest in {:.1} s; {shards} shards, {} requests to the log each",
        slowest.as_secs_f64(),
        requests / count as u64,
    ))
}

fn say(line: &str) -> Result {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
