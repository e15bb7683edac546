//! Questions to the audit log: that the answer is right, and that little is read for it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures_util::stream::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use proptest::prelude::*;
use proptest::sample::select;
use strongroom::ErrorKind;
use strongroom::access::{Principal, Purpose};
use strongroom::audit::layout::{self, Object};
use strongroom::audit::log::entries;
use strongroom::audit::operation::{Operation, Paired, Pairing};
use strongroom::audit::query::{Cursor, Filter, OutcomeFilter, operations, query};
use strongroom::audit::{Action, Intent, OutcomeResult};
use strongroom::time::{Day, Timestamp};

#[path = "common/calendar.rs"]
mod calendar;
#[path = "common/signer.rs"]
mod signer;
use calendar::{
    Counting, DAY, STORE, SetClock, Storage, begin, blob, copy, customer, intent, log, month, reader,
    segment, size, start_of, time,
};

const FIRST: &str = "2026-06-01T00:00:00.000000Z";

fn memory() -> Storage {
    Arc::new(InMemory::new())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

async fn ask(storage: &Storage, filter: &Filter) -> Vec<Operation> {
    operations(&reader(storage), filter, None).try_collect().await.unwrap()
}

/// All operations there are, in order, from every commit under `wal/`: without the
/// reader.
async fn all_in(storage: &Storage, shards: u16) -> Vec<Operation> {
    let clock = SetClock::at(time(FIRST));
    let mut all = Vec::new();
    for shard in 0..shards {
        let log = log(storage, shard, &clock).await;
        let mut pairing = Pairing::default();
        let mut commits = log.commits(0..u64::MAX).await.unwrap();
        while let Some(commit) = commits.try_next().await.unwrap() {
            for entry in entries(commit) {
                if let Paired::Operation(operation) = pairing.push(entry) {
                    all.push(*operation);
                }
            }
        }
        all.extend(pairing.finish());
    }
    all.sort_by_key(|operation| {
        let intent = operation.intent_entry();
        (intent.time, intent.shard, intent.index)
    });
    all
}

/// What fits, told in another way than the filter does.
fn naive(all: &[Operation], filter: &Filter) -> Vec<Operation> {
    let fits = |operation: &&Operation| {
        let (intent, at) = (operation.intent(), operation.intent_entry().record.time);
        let result = operation.outcome().map(|outcome| outcome.result);
        let mut fits = vec![
            filter.customer.is_none() || filter.customer == intent.customer,
            filter.blob.is_none() || filter.blob == intent.blob,
            filter.principal.iter().all(|wanted| *wanted == intent.principal),
            filter.action.iter().all(|wanted| *wanted == intent.action),
            filter.purpose.iter().all(|wanted| *wanted == intent.purpose),
            filter.request.iter().all(|wanted| *wanted == intent.request),
            filter.from.iter().all(|from| at >= *from),
            filter.until.iter().all(|until| at < *until),
        ];
        fits.push(match filter.outcome {
            None => true,
            Some(OutcomeFilter::Open) => result.is_none(),
            Some(OutcomeFilter::Ended(wanted)) => result == Some(wanted),
        });
        fits.into_iter().all(|fits| fits)
    };
    all.iter().filter(fits).cloned().collect()
}

#[tokio::test]
async fn a_customers_day_out_of_a_month_reads_a_small_part() {
    // A tenth of what the bench `query` does, so that it takes seconds without
    // optimisation too.
    const RECORDS: u64 = 100_000;
    let storage = memory();
    month(&storage, time(FIRST), RECORDS).await;
    let day = Day::from_number(time(FIRST).day().number() + 16);
    let filter = Filter {
        customer: Some(customer(7)),
        from: Some(start_of(day)),
        until: Some(start_of(day.plus(1))),
        ..Filter::default()
    };
    let expected = naive(&all_in(&storage, 1).await, &filter);
    assert!((RECORDS / 2 / 30 / 60..RECORDS / 2 / 30 / 40).contains(&(expected.len() as u64)));

    let both = copy(&storage).await;
    segment(&both, 0, day.plus(4), usize::MAX, true).await;
    for (kind, storage) in [("commits alone", storage), ("segments and commits", both)] {
        let (objects, bytes) = size(&storage).await;
        let counting = Counting::over(&storage);
        let begun = Instant::now();
        let found = ask(&(Arc::clone(&counting) as Storage), &filter).await;
        let took = begun.elapsed();
        assert!(found == expected, "{kind}");
        let read = counting.take();
        println!("{kind}: {read:?} of {objects} objects and {bytes} bytes in {took:?}");
        // A day of thirty is 3.3 %; twice that where an outcome is in the next day's segment.
        assert!(read.objects * 100 < objects * 6, "{kind}: {read:?} of {objects}");
        assert!(read.bytes * 100 < bytes * 8, "{kind}: {read:?} of {bytes}");
        assert!(read.heads < 200, "{kind}: {read:?}");
    }
}

/// A small log with everything that makes an order hard: three shards whose clocks
/// differ and step back, outcomes days after their intents, and some that never come.
async fn tangle(seed: u64) -> Storage {
    const SHARDS: u16 = 3;
    let storage = memory();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let byte = |number: u64| u8::try_from(number).unwrap();
    for shard in 0..SHARDS {
        let clock = SetClock::at(time(FIRST));
        clock.forward(u64::from(shard) * 700_000_000);
        let log = log(&storage, shard, &clock).await;
        let mut open = Vec::new();
        for _ in 0..60 {
            match random(8) {
                0 => clock.back(random(3_600_000_000)),
                1 => clock.forward(random(DAY)),
                _ => clock.forward(random(1_800_000_000)),
            }
            let intents = (0..1 + random(4)).map(|_| {
                let service = ["a", "b", "c"][usize::try_from(random(3)).unwrap()];
                let mut intent =
                    intent(&log, service, [Action::Open, Action::Seal][usize::from(random(2) == 0)]);
                intent.purpose = [Purpose::Treatment, Purpose::Operations][usize::from(random(2) == 0)];
                intent.customer = Some(random(4)).filter(|number| *number > 0).map(|n| customer(byte(n)));
                intent.blob = Some(random(3)).filter(|number| *number > 0).map(|n| blob(byte(n)));
                intent
            });
            let intents: Vec<Intent> = intents.collect();
            // A record that is made now and is durable later.
            let late = random(6) == 0;
            open.extend(begin(&log, intents).await);
            for _ in 0..random(5) {
                if open.is_empty() {
                    break;
                }
                let at = usize::try_from(random(open.len() as u64)).unwrap();
                let result = [OutcomeResult::Ok, OutcomeResult::Denied][usize::from(random(3) == 0)];
                open.remove(at).record(result, Some(1));
                if late {
                    clock.forward(random(7_200_000_000));
                }
            }
        }
        for (at, open) in open.into_iter().enumerate() {
            // A program that died, as far as the log knows.
            if at % 2 == 0 { std::mem::forget(open) } else { open.record(OutcomeResult::Ok, None) }
        }
        log.close().await.unwrap();
    }
    storage
}

/// A tangle, all operations in it, and the four ways in which it may be kept.
struct Kept {
    all: Vec<Operation>,
    storages: Vec<Storage>,
}

fn kept() -> &'static [Kept] {
    static KEPT: OnceLock<Vec<Kept>> = OnceLock::new();
    KEPT.get_or_init(|| {
        runtime().block_on(async {
            let mut kept = Vec::new();
            for seed in 1..=3 {
                let plain = tangle(seed).await;
                let all = all_in(&plain, 3).await;
                let middle = all[all.len() / 2].intent_entry().time.day();
                let mut storages = vec![Arc::clone(&plain)];
                for (until, most, remove) in
                    [(middle, usize::MAX, true), (middle, 2, false), (Day::MAX, 3, true)]
                {
                    let storage = copy(&plain).await;
                    for shard in 0..3 {
                        segment(&storage, shard, until, most, remove).await;
                    }
                    storages.push(storage);
                }
                kept.push(Kept { all, storages });
            }
            kept
        })
    })
}

fn maybe<T: Clone + std::fmt::Debug + 'static>(of: Vec<T>) -> impl Strategy<Value = Option<T>> {
    prop_oneof![3 => Just(None), 1 => select(of).prop_map(Some)]
}

fn moment(all: &[Operation]) -> impl Strategy<Value = Option<Timestamp>> + use<> {
    let times: Vec<Timestamp> = all.iter().map(|operation| operation.intent_entry().record.time).collect();
    let near = (select(times), -1_i64..=1, 0..2_u8).prop_map(|(time, off, of_day)| {
        let micros = time.micros().checked_add_signed(off).unwrap();
        let time = Timestamp::from_micros(micros).unwrap();
        if of_day == 1 { start_of(time.day()) } else { time }
    });
    prop_oneof![1 => Just(None), 2 => near.prop_map(Some)]
}

fn filters(all: &[Operation]) -> impl Strategy<Value = Filter> + use<> {
    let ended = [OutcomeResult::Ok, OutcomeResult::Denied, OutcomeResult::Unknown].map(OutcomeFilter::Ended);
    let outcomes: Vec<OutcomeFilter> = ended.into_iter().chain([OutcomeFilter::Open]).collect();
    let requests: Vec<_> = all.iter().map(|operation| operation.intent().request).collect();
    let requests = prop_oneof![9 => Just(None), 1 => select(requests).prop_map(Some)];
    let services = ["a", "b", "x"].map(|name| Principal::service(name).unwrap()).to_vec();
    let about = (
        maybe((0..5).map(customer).collect()),
        maybe(services),
        maybe((0..4).map(blob).collect()),
        maybe(vec![Action::Open, Action::Seal, Action::List]),
        maybe(outcomes),
        maybe(vec![Purpose::Treatment, Purpose::Operations]),
    );
    (about, moment(all), moment(all), requests).prop_map(|(about, from, until, request)| {
        let (customer, principal, blob, action, outcome, purpose) = about;
        Filter { customer, principal, blob, action, outcome, purpose, from, until, request }
    })
}

fn cases() -> impl Strategy<Value = (usize, usize, Filter, NonZeroUsize)> {
    (0..3_usize, 0..4_usize).prop_flat_map(|(log, way)| {
        let limit = (15..150_usize).prop_map(|limit| NonZeroUsize::new(limit).unwrap());
        (Just(log), Just(way), filters(&kept()[log].all), limit)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn an_answer_is_all_that_fits_and_pages_make_up_the_answer((at, way, filter, limit) in cases()) {
        let Kept { all, storages } = &kept()[at];
        let expected = naive(all, &filter);
        runtime().block_on(async {
            let found = ask(&storages[way], &filter).await;
            prop_assert!(found == expected, "{} of {}", found.len(), expected.len());
            let mut paged = Vec::new();
            let mut after: Option<Cursor> = None;
            loop {
                let page = query(&reader(&storages[way]), &filter, after, limit).await.unwrap();
                let (length, more) = (page.operations.len(), page.next.is_some());
                let full = length == limit.get();
                prop_assert!(full || !more && length < limit.get());
                prop_assert!(length > 0 || paged.is_empty(), "no page but the first is empty");
                paged.extend(page.operations);
                // As it is handed from one run of a program to the next.
                after = page.next.map(|next| next.to_string().parse().unwrap());
                if after.is_none() {
                    break;
                }
            }
            prop_assert!(paged == expected, "{} of {}", paged.len(), expected.len());
            Ok(())
        })?;
    }
}

#[test]
fn the_tangles_are_tangled() {
    for Kept { all, .. } in kept() {
        let count =
            |fits: &dyn Fn(&Operation) -> bool| all.iter().filter(|operation| fits(operation)).count();
        assert!(count(&|operation| operation.outcome().is_none()) > 3);
        let late = |operation: &Operation| {
            let outcome = operation.outcome_entry().map(|outcome| outcome.time.day());
            outcome > Some(operation.intent_entry().time.day())
        };
        assert!(count(&late) > 10);
        let back = all
            .windows(2)
            .filter(|pair| pair[0].intent_entry().record.time > pair[1].intent_entry().record.time);
        assert!(back.count() > 10, "clocks step back");
        let shards =
            all.windows(2).filter(|pair| pair[0].intent_entry().shard != pair[1].intent_entry().shard);
        assert!(shards.count() > 10, "shards alternate");
    }
}

#[tokio::test]
async fn an_empty_log_has_no_operations() {
    let storage = memory();
    assert!(ask(&storage, &Filter::default()).await.is_empty());
    assert_eq!(reader(&storage).newest(5).await.unwrap(), []);
    assert_eq!(reader(&storage).shards().await.unwrap(), [0]);
    assert_eq!(reader(&storage).shard(0).await.unwrap().entry(0).await.unwrap(), None);
}

#[test]
fn the_newest_records_are_those_at_the_end_of_all_shards() {
    let kept = kept();
    runtime().block_on(async {
        for Kept { storages, .. } in kept {
            let mut all = Vec::new();
            for shard in 0..3 {
                let shard = reader(&storages[0]).shard(shard).await.unwrap();
                let commits: Vec<_> = shard.commits(0..u64::MAX, None).try_collect().await.unwrap();
                all.extend(commits.into_iter().flat_map(entries));
            }
            all.sort_by_key(|entry| (entry.time, entry.shard, entry.index));
            for storage in storages {
                for count in [0, 1, 7, 50, all.len(), all.len() + 1] {
                    let newest = reader(storage).newest(count).await.unwrap();
                    assert!(newest == all[all.len() - count.min(all.len())..], "{count}");
                }
                for entry in all.iter().step_by(17) {
                    let shard = reader(storage).shard(entry.shard).await.unwrap();
                    assert_eq!(shard.entry(entry.index).await.unwrap().as_ref(), Some(entry));
                }
                let shard = reader(storage).shard(0).await.unwrap();
                assert_eq!(shard.entry(all.len() as u64).await.unwrap(), None);
            }
        }
    });
}

/// Every object of the first tangle, changed or taken away: what is asked for is as
/// before, or an error, and never less or something else.
#[test]
fn what_is_damaged_is_an_error_and_never_left_out() {
    let kept = kept();
    runtime().block_on(async {
        let Kept { all, storages } = &kept[0];
        for storage in storages {
            let storage = copy(storage).await;
            let paths: Vec<_> = storage.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
            let newest: BTreeSet<_> = (0..3)
                .filter_map(|shard| {
                    let of_shard = |folder: object_store::path::Path| {
                        paths.iter().filter(|path| path.prefix_matches(&folder)).max().cloned()
                    };
                    of_shard(layout::commits_of(shard)).or_else(|| of_shard(layout::segments_of(shard)))
                })
                .collect();
            let mut noticed = 0;
            for path in paths.iter().step_by(5) {
                let bytes = storage.get(path).await.unwrap().bytes().await.unwrap();
                let mut changed = bytes.to_vec();
                let at = bytes.len() * 2 / 3;
                changed[at] ^= 1;
                for damaged in [Some(changed), None] {
                    // What was newest can be cut off; that takes a checkpoint to see.
                    if damaged.is_none() && (newest.contains(path) || path.as_ref().starts_with("segment")) {
                        continue;
                    }
                    match &damaged {
                        Some(damaged) => {
                            storage.put(path, PutPayload::from(damaged.clone())).await.map(drop).unwrap()
                        }
                        None => storage.delete(path).await.unwrap(),
                    }
                    let asked = operations(&reader(&storage), &Filter::default(), None);
                    match asked.try_collect::<Vec<_>>().await {
                        Ok(found) => assert!(found == *all, "{path}"),
                        Err(error) => {
                            noticed += 1;
                            assert_eq!(error.kind(), ErrorKind::Integrity, "{path} {error:?}");
                        }
                    }
                    storage.put(path, PutPayload::from(bytes.clone())).await.unwrap();
                }
            }
            assert!(noticed > 5, "{noticed}");
        }
    });
}

#[test]
fn a_log_of_another_key_or_store_and_strange_objects_are_refused() {
    let kept = kept();
    runtime().block_on(async {
        use strongroom::audit::log::LogReader;
        use strongroom::id::StoreId;
        use strongroom::tlog::PublicKey;

        for storage in &kept[1].storages {
            let authority = signer::authority();
            let kind = async |store, key| {
                let reader = LogReader::open(Arc::clone(storage), store, key, Duration::from_secs(60));
                let asked = operations(&reader, &Filter::default(), None).try_collect::<Vec<_>>().await;
                asked.map(drop).map_err(|error| error.kind())
            };
            assert_eq!(kind(STORE, authority).await, Ok(()));
            assert_eq!(kind(StoreId::from_bytes([8; 16]), authority).await, Err(ErrorKind::Integrity));
            assert_eq!(kind(STORE, PublicKey::from_bytes([3; 32])).await, Err(ErrorKind::Integrity));
            for stray in ["wal/5", "wal/00000/x", "segment/0000/x", "segment/000g/x"] {
                let storage = copy(storage).await;
                storage.put(&stray.into(), PutPayload::from_static(b"x")).await.unwrap();
                let asked =
                    operations(&reader(&storage), &Filter::default(), None).try_collect::<Vec<_>>().await;
                assert_eq!(asked.unwrap_err().kind(), ErrorKind::Integrity, "{stray}");
            }
        }
    });
}

/// Of two writers, one lost the race for commit 1: its commit is as well signed as the
/// winner's, and was never stored. Whoever holds the storage can put it in its place.
#[tokio::test]
async fn a_commit_that_the_next_one_does_not_name_is_refused() {
    let (storage, elsewhere) = (memory(), memory());
    let clock = SetClock::at(time(FIRST));
    let path = |seq| Object::Commit { shard: 0, seq }.path();
    let append = async |storage: &Storage, commits: u64| {
        let log = log(storage, 0, &clock).await;
        for _ in 0..commits {
            clock.forward(DAY);
            std::mem::forget(begin(&log, vec![intent(&log, "a", Action::Open)]).await);
        }
    };
    let put = async |from: &Storage, to: &Storage, seq| {
        let bytes = from.get(&path(seq)).await.unwrap().bytes().await.unwrap();
        to.put(&path(seq), PutPayload::from(bytes)).await.unwrap();
    };
    append(&storage, 4).await;
    put(&storage, &elsewhere, 0).await;
    clock.set(time(FIRST));
    clock.forward(DAY);
    append(&elsewhere, 1).await;

    let second = Filter {
        from: Some(start_of(time(FIRST).day().plus(2))),
        until: Some(start_of(time(FIRST).day().plus(3))),
        outcome: None,
        ..Filter::default()
    };
    assert_eq!(ask(&storage, &second).await.len(), 1);
    put(&elsewhere, &storage, 1).await;
    let asked = operations(&reader(&storage), &second, None).try_collect::<Vec<_>>().await;
    let error = asked.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}
