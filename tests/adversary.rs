//! Storages in the hands of somebody who adds, replaces, deletes, rolls back and reorders objects at any
//! step, against a model: see `adversary/mod.rs`. `benches/adversary.rs` takes a million steps.

#[path = "adversary/mod.rs"]
mod adversary;
#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;

const STEPS: u64 = 10_000;

async fn paths(storage: &dyn ObjectStore) -> Vec<Path> {
    storage.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap()
}

#[test]
fn what_storages_make_up_is_not_believed() {
    let threads: Vec<_> = (0..2)
        .map(|half| {
            let work = move || adversary::run(half, STEPS / 2);
            std::thread::Builder::new().stack_size(8 << 20).spawn(work).unwrap()
        })
        .collect();
    let mut report = adversary::Report::default();
    for thread in threads {
        report.add(thread.join().unwrap());
    }
    println!("{} episodes, {:#?}\ndone {:#?}\nrefused {:#?}", report.episodes, report.steps, report.done, report.refused);
    assert!(report.total() >= STEPS);
}
