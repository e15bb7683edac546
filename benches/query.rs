//! How much of a month's log is read for one customer's day, and how long that takes.
//!
//! `cargo bench --bench query`. The month has 1,000,000 records over 50 customers, in
//! memory; `STRONGROOM_BENCH_RECORDS` says another number. The day is asked for of the
//! commits alone, and with all but the last days in segments.

#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::memory::InMemory;
use strongroom::audit::operation::Operation;
use strongroom::audit::query::{Filter, operations, query};
use strongroom::system::SystemClock;
use strongroom::time::{Clock, Day};

#[path = "../tests/common/calendar.rs"]
mod calendar;
#[path = "../tests/common/signer.rs"]
mod signer;
use calendar::{Counting, Storage, copy, customer, month, reader, segment, size, start_of, time};

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(all());
}

async fn all() {
    let records = std::env::var("STRONGROOM_BENCH_RECORDS").map_or(1_000_000, |text| text.parse().unwrap());
    let first = time("2026-06-01T00:00:00.000000Z");
    let storage: Storage = Arc::new(InMemory::new());
    let begun = SystemClock.uptime();
    month(&storage, first, records).await;
    let took = SystemClock.uptime() - begun;
    say(&format!("{records} records written in {:.1} s", took.as_secs_f64()));

    let day = Day::from_number(first.day().number() + 16);
    let filter = Filter {
        customer: Some(customer(7)),
        from: Some(start_of(day)),
        until: Some(start_of(day.plus(1))),
        ..Filter::default()
    };
    let segments = copy(&storage).await;
    segment(&segments, 0, day.plus(4), usize::MAX, true).await;
    for (kind, storage) in [("commits alone", storage), ("segments and commits", segments)] {
        let (objects, bytes) = size(&storage).await;
        let counting = Counting::over(&storage);
        let reader = reader(&(Arc::clone(&counting) as Storage));
        let begun = SystemClock.uptime();
        let found: Vec<Operation> = operations(&reader, &filter, None).try_collect().await.unwrap();
        let took = (SystemClock.uptime() - begun).as_secs_f64();
        let read = counting.take();
        say(&format!(
            "{kind}: {} operations in {took:.2} s; read {} of {objects} objects, {} of {} MiB, {} checks",
            found.len(),
            read.objects,
            read.bytes >> 20,
            bytes >> 20,
            read.heads,
        ));
        let begun = SystemClock.uptime();
        let page = query(&reader, &filter, None, NonZeroUsize::new(100).unwrap()).await.unwrap();
        let took = (SystemClock.uptime() - begun).as_secs_f64();
        let read = counting.take();
        let (found, objects) = (page.operations.len(), read.objects);
        say(&format!("{kind}: the first {found} of them in {took:.2} s; read {objects} objects"));
    }
}

fn say(line: &str) {
    println!("{line}");
}
