//! A million steps of somebody who has the storages in hand: see `tests/adversary/mod.rs`.
//!
//! `cargo bench --bench adversary`. `STRONGROOM_BENCH_STEPS` says how many steps there are. What
//! must not be ends it with an error.

#[path = "../tests/adversary/mod.rs"]
mod adversary;
#[path = "../tests/common/faults.rs"]
mod faults;
#[path = "../tests/common/world.rs"]
mod world;

use std::io::Write;
use std::time::Instant;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result {
    let steps: u64 = std::env::var("STRONGROOM_BENCH_STEPS").map_or(Ok(1_000_000), |text| text.parse())?;
    let threads = std::thread::available_parallelism()?.get() as u64;
    let begun = Instant::now();
    let report = adversary::run(threads, steps.div_ceil(threads));
    writeln!(std::io::stdout(), "{report}in {:.0} s on {threads} threads", begun.elapsed().as_secs_f64())?;
    Ok(())
}
