//! The daemon's own verification of everything, on a schedule, with a dated result each.
//!
//! Results are files `verification-<when it was done>.json` ([`Drill`]), for the file of
//! restore drills. The next run is due by the date of the newest one, so that a daemon that is
//! started again does not begin anew.
//!
//! Separate from the [`drill`](crate::drill) itself, which knows no daemon.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::alarm::{About, AlarmKind, Alarms};
use crate::access::Access;
use crate::drill::{Drill, DrillOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::room::Strongroom;
use crate::time::{Clock, Timestamp};

/// What names of results begin and end with.
const AFFIXES: (&str, &str) = ("verification-", ".json");

/// How long after a run that could not be done the next one is.
const AGAIN: Duration = Duration::from_secs(3600);

/// Verifies everything whenever it is due, for ever.
///
/// # Cancel safety
/// To be dropped to end it. A run that is cut has no result.
pub async fn schedule(
    room: Strongroom,
    own: Access,
    alarms: Alarms,
    clock: Arc<dyn Clock>,
    (every, reports): (Duration, PathBuf),
) {
    loop {
        let due = newest(&reports).map(|newest| newest.saturating_add(every));
        let wait = due.map_or(0, |due| due.micros().saturating_sub(clock.now().micros()));
        // No longer than that, even if the newest result is dated wrongly.
        sleep(Duration::from_micros(wait).min(every)).await;
        if let Err(error) = run(&room, &own, &alarms, &reports).await {
            tracing::error!(
                kind = error.kind().as_str(),
                reason = error.chain(),
                "verification could not be done"
            );
            sleep(AGAIN.min(every)).await;
        }
    }
}

/// Verifies everything once, and writes the result to the directory `reports`, which is made if
/// it is not there. Each customer of whom something failed is an alarm, and so is a run that
/// could not be done.
///
/// # Errors
/// As [`Strongroom::drill`]; [`ErrorKind::Io`] if the result cannot be written.
///
/// # Cancel safety
/// There is no result then.
pub async fn run(room: &Strongroom, own: &Access, alarms: &Alarms, reports: &Path) -> Result<Drill> {
    let done = run_quietly(room, own, alarms, reports).await;
    if let Err(error) = &done {
        alarms.observe(error, About::default());
        alarms.raise(AlarmKind::VerificationFailed, About::default());
    }
    done
}

async fn run_quietly(room: &Strongroom, own: &Access, alarms: &Alarms, reports: &Path) -> Result<Drill> {
    tracing::info!("the verification of everything begins");
    let told = |customer, checked: crate::drill::Checked| {
        if let (Err(error), false) = (&checked.result, checked.destroyed) {
            alarms.observe(error, About::customer(customer));
        }
        Ok(())
    };
    let drill = room.drill(own, &DrillOptions::default(), told).await?;
    for of in drill.customers.iter().filter(|of| of.counts.failed() > 0) {
        alarms.raise(AlarmKind::VerificationFailed, About::customer(of.customer));
    }
    let (blobs, failed) = (drill.total.blobs, drill.total.failed());
    tracing::info!(blobs, failed, complete = drill.complete, "the verification of everything is done");
    let (reports, at, text) = (reports.to_owned(), drill.finished, drill.text());
    let written = tokio::task::spawn_blocking(move || write(&reports, at, &text)).await;
    let written = written.unwrap_or_else(|_| Err(io::Error::other("the writer ended")));
    let failed = |error| {
        Error::new(ErrorKind::Io, "the result of a verification cannot be written").with_source(error)
    };
    written.map_err(failed)?;
    Ok(drill)
}

fn write(reports: &Path, at: Timestamp, text: &str) -> io::Result<()> {
    fs::create_dir_all(reports)?;
    let (prefix, suffix) = AFFIXES;
    let name = format!("{prefix}{}{suffix}", at.to_string().replace(':', "-"));
    crate::durable::write(&reports.join(name), text.as_bytes())
}

/// When the newest result is of.
fn newest(reports: &Path) -> Option<Timestamp> {
    let (prefix, suffix) = AFFIXES;
    let date = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name();
        let (day, time) = name.to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?.split_once('T')?;
        format!("{day}T{}", time.replace('-', ":")).parse().ok()
    };
    fs::read_dir(reports).ok()?.filter_map(date).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_result_is_known_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let reports = dir.path().join("a/b");
        assert_eq!(newest(&reports), None);
        let times = ["2026-11-23T12:00:00.000001Z", "2026-11-22T23:59:59.000000Z"];
        for time in times {
            write(&reports, time.parse().unwrap(), "{}\n").unwrap();
        }
        for name in ["verification-.json", "verification-2027.json", "x"] {
            fs::write(reports.join(name), "").unwrap();
        }
        assert_eq!(newest(&reports), Some(times[0].parse().unwrap()));
        assert!(reports.join("verification-2026-11-23T12-00-00.000001Z.json").exists());
    }
}
