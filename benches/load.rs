//! How many mixed operations a daemon does, and whether its memory and descriptors stay as they
//! were: 1,000,000 by 64 clients on a Unix socket.
//!
//! `cargo bench --bench load`. `STRONGROOM_BENCH_OPERATIONS` and `STRONGROOM_BENCH_CLIENTS` say how
//! many, and `STRONGROOM_BENCH_DIR` where: else a file system in memory where there is one.
//! What must not be ends it with an error: an operation that fails, a blob that was acknowledged
//! and does not open, a request that is not on the record, a log that does not verify.

#[path = "../tests/common/load.rs"]
mod load;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use load::{Plan, Result, run};

fn main() -> Result {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(all())
}

async fn all() -> Result {
    let number = |name: &str, unless: u64| std::env::var(name).map_or(Ok(unless), |text| text.parse());
    let operations = number("STRONGROOM_BENCH_OPERATIONS", 1_000_000)?;
    let clients = number("STRONGROOM_BENCH_CLIENTS", 64)?;
    let base = std::env::var_os("STRONGROOM_BENCH_DIR").map_or_else(default_directory, PathBuf::from);
    let directory = tempfile::tempdir_in(&base)?;
    say(&format!("{operations} operations by {clients} clients in {}", base.display()));
    let plan = Plan { operations, clients, every: Duration::from_secs(10) };
    let report = run(Path::new(env!("CARGO_BIN_EXE_strongroom")), directory.path(), plan, say).await?;
    let seconds = report.took.as_secs_f64();
    let rate = u128::from(operations) * 1000 / report.took.as_millis().max(1);
    say(&format!("{operations} operations in {seconds:.1} s: {rate} /s; {} blobs sealed", report.sealed));
    // The first tenth is for caches to fill.
    let steady = &report.samples[report.samples.len() / 10..];
    let resident: Vec<u64> = steady.iter().map(|sample| sample.resident_kib / 1024).collect();
    let descriptors: Vec<usize> = steady.iter().filter_map(|sample| sample.descriptors).collect();
    say(&format!("resident: {:?} to {:?} MiB", resident.iter().min(), resident.iter().max()));
    say(&format!("descriptors: {:?} to {:?}", descriptors.iter().min(), descriptors.iter().max()));
    Ok(())
}

fn default_directory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
