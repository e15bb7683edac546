//! libFuzzer over one row of the table: `tests/fuzz/run` says which.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../common/mod.rs"]
mod common;
#[path = "../corpus.rs"]
mod corpus;
#[path = "../http.rs"]
mod http;
#[path = "../rows.rs"]
mod rows;

/// The name of the row.
const ROW: &str = "STRONGROOM_FUZZ_ROW";
/// Where to write what the row begins with, instead of fuzzing.
const SEEDS: &str = "STRONGROOM_FUZZ_SEEDS";

static CHOSEN: OnceLock<&'static rows::Row> = OnceLock::new();

fn begin() {
    let name = std::env::var(ROW).unwrap_or_default();
    let row = rows::ROWS.iter().find(|row| row.name == name);
    let row = row.unwrap_or_else(|| {
        let names: Vec<_> = rows::ROWS.iter().map(|row| row.name).collect();
        eprintln!("{ROW} names one of: {}", names.join(" "));
        std::process::exit(2);
    });
    let world = corpus::world();
    if let Some(directory) = std::env::var_os(SEEDS) {
        for (number, seed) in (row.seeds)(world).iter().enumerate() {
            std::fs::write(Path::new(&directory).join(format!("seed-{number:04}")), seed).unwrap();
        }
        std::process::exit(0);
    }
    let _ = CHOSEN.set(row);
}

fuzz_target!(init: begin(), |input: &[u8]| {
    if let Some(row) = CHOSEN.get() {
        row.execute(input);
    }
});
