//! Storages in the hands of somebody who adds, replaces, deletes, rolls back and reorders objects at any
//! step, against a model: see `adversary/mod.rs`. `benches/adversary.rs` takes a million steps.

#[path = "adversary/mod.rs"]
mod adversary;
#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

/// Each thread takes half of them.
const STEPS: u64 = 10_000;

#[test]
fn what_storages_make_up_is_not_believed() {
    // One world alone, to look at it.
    if let Ok(seed) = std::env::var("STRONGROOM_TEST_SEED") {
        let report = adversary::world(seed.parse().unwrap());
        return println!("{report}");
    }
    let report = adversary::run(2, STEPS / 2);
    println!("{report}");
    assert!(report.total() >= STEPS);
    // It was no empty world: each storage was attacked, and all there is to do was done.
    for storage in ["blobs", "keys", "audit"] {
        let steps = report.steps.iter().filter(|(what, _)| what.starts_with(storage));
        assert!(steps.map(|(_, count)| count).sum::<u64>() > STEPS / 10, "{report}");
    }
    assert!(report.done.len() == 12 && report.refused.len() == 12, "{report}");
}
