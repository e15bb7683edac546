//! The deterministic simulation of `tests/simulation`, at length: seed after seed on all cores, a world
//! for each, until one is broken or all are through.
//!
//! ```console
//! $ cargo bench --bench simulation                                   # 1,000 seeds, 100 days each
//! $ STRONGROOM_BENCH_SEEDS=1 STRONGROOM_BENCH_FIRST=417 cargo bench --bench simulation    # one of them again
//! ```
//!
//! `STRONGROOM_BENCH_DAYS` sets the days, `STRONGROOM_BENCH_THREADS` the worlds at a time. A seed that is broken is
//! printed with what does not hold and its last steps and requests; the others go on, and the bench ends
//! with 1.

#[path = "../tests/simulation/sim.rs"]
mod sim;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Instant;

/// How many seconds may go by before it says how far it is.
const EVERY: u64 = 60;

#[derive(Default)]
struct Sums {
    worlds: u64,
    all: sim::Report,
    broken: Vec<u64>,
    said: u64,
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")),
        Err(_) => default,
    }
}

fn main() -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (first, seeds) = (setting("STRONGROOM_BENCH_FIRST", 1), setting("STRONGROOM_BENCH_SEEDS", 1000));
    let days = u32::try_from(setting("STRONGROOM_BENCH_DAYS", 100)).expect("a number of days");
    let threads = setting("STRONGROOM_BENCH_THREADS", cores as u64);
    let (next, sums, began) = (AtomicU64::new(first), Mutex::new(Sums::default()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= first + seeds {
                        return;
                    }
                    let ended = sim::simulate(seed, days);
                    let mut sums = sums.lock().expect("nobody panics while counting");
                    sums.worlds += 1;
                    match ended {
                        Ok(report) => sums.all.add(report),
                        Err(broken) => {
                            println!("\nbroken: {}\n{}\n", broken.message, broken.tail);
                            sums.broken.push(seed);
                        }
                    }
                    let seconds = began.elapsed().as_secs();
                    if seconds / EVERY > sums.said {
                        sums.said = seconds / EVERY;
                        println!("{} seeds in {seconds} s, {} broken", sums.worlds, sums.broken.len());
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().expect("all are through");
    let seconds = began.elapsed().as_secs_f64();
    println!("steps:");
    for (what, count) in &sums.all.steps {
        println!("{count:>10}  {what}");
    }
    println!("faults:");
    for (what, count) in &sums.all.faults {
        println!("{count:>10}  {what}");
    }
    println!(
        "{} seeds of {days} days, {} requests in {seconds:.0} s on {threads} threads: {:.1} seeds a minute",
        sums.worlds,
        sums.all.requests,
        sums.worlds as f64 * 60.0 / seconds,
    );
    if sums.broken.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("broken: {:?}", sums.broken);
    ExitCode::FAILURE
}
