//! Some seeds of the simulation, which `simulation/sim.rs` describes; the bench of the same name runs a
//! thousand, for a hundred days each.

#[path = "simulation/sim.rs"]
mod sim;

/// How many worlds, and for how many days each.
const SEEDS: u64 = 6;
const DAYS: u32 = 30;

fn run(seed: u64, days: u32) -> sim::Report {
    sim::simulate(seed, days).unwrap_or_else(|broken| panic!("{}\n{}", broken.message, broken.tail))
}

#[test]
fn nothing_is_lost_or_early_or_alive_after_final_or_believed_and_everybody_progresses() {
    let mut report = sim::Report::default();
    (1..=SEEDS).for_each(|seed| report.add(run(seed, DAYS)));
    let sim::Report { steps, faults, .. } = report;
    // These were no empty worlds.
    for what in [
        "seal",
        "open",
        "extend",
        "hold",
        "release",
        "order",
        "rotate",
        "drop",
        "crash",
        "clock leaps",
        "attack: refused",
        "keys gone from all copies",
        "final certificates",
        "progress",
    ] {
        assert!(steps.get(what).is_some_and(|count| *count >= 2), "{what}: {steps:?}");
    }
    for what in ["fails", "answer lost", "slow", "late", "out", "crash at a write"] {
        assert!(faults.get(what).is_some_and(|count| *count >= 2), "{what}: {faults:?}");
    }
}

/// Request by request, with times and outcomes.
#[test]
fn the_same_seed_is_the_same_world() {
    let (first, second, other) = (run(101, 4), run(101, 4), run(102, 4));
    assert_eq!((first.digest, first.requests), (second.digest, second.requests));
    assert_eq!(first.steps, second.steps);
    assert_ne!(first.digest, other.digest);
}
