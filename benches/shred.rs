//! How long a sweep takes over 10,000 customer-days that are due at once, and what it asks
//! of storages and KMS: after a year without one, say. And the sweep of an ordinary day.
//!
//! `cargo bench --bench shred`. `STRONGROOM_BENCH_CUSTOMERS` and `STRONGROOM_BENCH_DAYS`
//! say how many customers there are, and how many days with a blob each: else 100 and 100.
//! Storages are in memory.

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/destroy.rs"]
mod destroy;
#[path = "../tests/common/faults.rs"]
mod faults;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use common::records_since;
use destroy::{DAY, Vault, access};
use faults::{Call, FaultStore};
use futures_util::stream::{self, StreamExt};
use strongroom::audit::{Action, Event};
use strongroom::order::OrderKind;
use strongroom::room::{SealOptions, Strongroom};
use strongroom::store::Storages;
use strongroom::time::{Clock, Day};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How many customers are sealed for at once.
const TOGETHER: usize = 16;

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> Result {
    let number = |name: &str| std::env::var(name).map_or(Ok(100), |text| text.parse::<u32>());
    let (customers, days) = (number("STRONGROOM_BENCH_CUSTOMERS")?, number("STRONGROOM_BENCH_DAYS")?);
    let mut vault = Vault::new().await;
    let raw = vault.raw.clone();
    let blobs = FaultStore::new(raw.blobs);
    let (keys, audit) = (blobs.beside(raw.keys), blobs.beside(raw.audit));
    let storages = Storages::from_parts(Arc::new(blobs.clone()), Arc::new(keys), Arc::new(audit));
    vault.room = vault.node_over(storages).await;

    let begun = Instant::now();
    let first = vault.clock.now().day();
    let filled = stream::iter(0..customers).map(|customer| fill(&vault, customer, first, days));
    filled.buffer_unordered(TOGETHER).collect::<Vec<()>>().await;
    say(&format!("{customers} customers with {days} days each: made in {:.1} s", seconds(begun)))?;

    // All days are over, and two people say so.
    vault.clock.pass(DAY * (days + 2));
    vault.order(OrderKind::SetClock { at: vault.clock.now() }, None).await;
    sweep("puts all days into the window", &vault, &blobs).await?;
    for _ in 0..7 {
        vault.clock.pass(DAY);
        vault.room.trusted_time(&access(), None).await?;
    }
    sweep("drops them and certifies it", &vault, &blobs).await?;
    sweep("finds nothing to do", &vault, &blobs).await?;
    vault.clock.pass(DAY);
    sweep("of an ordinary day", &vault, &blobs).await?;
    vault.clock.pass(DAY);
    sweep("of the day after it", &vault, &blobs).await?;
    Ok(vault.room.close().await?)
}

/// One customer with a blob for each of some days.
async fn fill(vault: &Vault, customer: u32, first: Day, days: u32) {
    let customer = vault.customer(&format!("customer-{customer}"), 1).await;
    for day in 1..=days {
        let options = SealOptions::new().retain_until(first.plus(day));
        customer.seal(b"a blob".to_vec(), options).await.expect("the storages are in memory");
    }
}

async fn sweep(what: &str, vault: &Vault, requests: &FaultStore) -> Result {
    let from = vault.room.log().head().next();
    requests.reset_counts();
    let begun = Instant::now();
    let swept = vault.sweep().await;
    let took = seconds(begun);
    let calls = [Call::Put, Call::Get, Call::Head, Call::List].map(|call| (call, requests.count(call)));
    let sum = |count: fn(&strongroom::shred::Swept) -> usize| swept.values().map(count).sum::<usize>();
    let (pended, dropped) = (sum(|swept| swept.pended.len()), sum(|swept| swept.dropped.len()));
    let certificates = sum(|swept| swept.certificates.len());
    say(&format!(
        "sweep that {what}: {took:.2} s, {pended} pended, {dropped} dropped, {certificates} certified"
    ))?;
    say(&format!("  requests: {calls:?}, {} bytes read", requests.bytes_fetched()))?;
    say(&format!("  records: {:?}", actions(&vault.room, from).await))
}

/// How many intents there are of what uses a key or changes a ring.
async fn actions(room: &Strongroom, from: u64) -> BTreeMap<&'static str, usize> {
    let counted = [
        (Action::KmsDecrypt, "KMS decryptions"),
        (Action::KmsGenerateDataKey, "KMS data keys"),
        (Action::RingWrite, "ring versions"),
        (Action::ShredPend, "pended"),
        (Action::ShredDrop, "dropped"),
    ];
    let mut found = BTreeMap::new();
    for record in records_since(room, from).await {
        let Event::Intent(intent) = &record.event else { continue };
        if let Some((_, name)) = counted.iter().find(|(action, _)| *action == intent.action) {
            *found.entry(*name).or_default() += 1;
        }
    }
    found
}

fn seconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64()
}

fn say(line: &str) -> Result {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}
