//! Restoring: a customer's blobs, all or some, opened into a directory of files.
//!
//! | in the directory | what |
//! |---|---|
//! | `<name>` | a blob, by its name, where that is a safe relative path |
//! | `<name>~<blob id>` | each of several blobs of one name |
//! | `by-id/<blob id>` | one without a name, or whose name is not such a path |
//! | `.strongroom-restore` | what was restored, for the next run |
//!
//! A name is a safe path if it stays below the directory however it is read: no `/` at either
//! end or twice in a row, no part that is `.` or `..` or longer than 228 bytes, no `\` and no
//! control character; it does not begin with `by-id/` or `.strongroom-`, and is not a directory
//! of another one's path. Directories have the mode 0700, files 0600.
//!
//! A file has its path when its last segment has opened, which proves that it is whole, and
//! when it is on the disk. Run again, a restore goes on: a file that was written down, and
//! whose length and SHA-256 are those that were written down, is passed over and its blob not
//! opened. One that was altered since is restored again. One that was never written down is left
//! as it is, and told as a failure unless it is the same.
//!
//! Separate from the room, which knows no file system, and from a return at the end of an
//! agreement ([`offboard`](crate::shred::offboard)), which is signed and whose destination
//! may be any storage. Both ask the same inventory what there is. Where the blobs come from, a
//! store or a daemon that has it open, is apart (`source`), and all else is the same of either.
//!
//! Invariants: what there has to be is what the log says, and not what the storage lists. What
//! fails for one blob stops no other; what was destroyed is told with its certificate and is no
//! failure. In memory are the id, the path and the length of each blob that was selected, and
//! for each of those that are being opened what an opening holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::drill::{JOBS, LogMark, MAX_JOBS, milliseconds};
use crate::envelope::BlobName;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CertificateId, CustomerId, StoreId};
use crate::room::Customer;
use crate::shred::inventory::Standing;
use crate::time::{Day, Timestamp};

pub(crate) mod place;
mod plan;
pub(crate) mod source;

use place::{Format, Place, Stands, Whose};
use source::{Found, InStore, Looked, Source};

/// Which of a customer's blobs.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those whose name begins so.
    pub name_prefix: Option<BlobName>,
    /// Only those that were sealed on this day (UTC) or later.
    pub sealed_from: Option<Day>,
    /// Only those that were sealed on this day (UTC) or before.
    pub sealed_until: Option<Day>,
    /// Of each name only the newest. Those without a name are not affected.
    pub latest: bool,
}

/// How a restore is run.
#[derive(Clone, Copy, Debug)]
pub struct RestoreOptions {
    /// How many blobs are opened at once, 1 to [`MAX_JOBS`]. Each takes up to 16 MiB.
    pub jobs: usize,
    /// Whether to open and write nothing, and to tell what would be done. Names are looked at
    /// all the same, and that is on the record.
    pub dry_run: bool,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self { jobs: JOBS, dry_run: false }
    }
}

/// What a restore did. As JSON it holds ids, numbers and times.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Restored {
    /// The format.
    pub format: RestoredFormat,
    /// The store.
    pub store: StoreId,
    /// Whose blobs.
    pub customer: CustomerId,
    /// When it began.
    pub started: Timestamp,
    /// When it was done.
    pub finished: Timestamp,
    /// How long it took, by a clock that nobody sets, in milliseconds.
    #[serde(rename = "milliseconds", serialize_with = "milliseconds")]
    pub took: Duration,
    /// Whether nothing was opened and written, and `restored` is what would have been.
    pub dry_run: bool,
    /// Whether nothing failed.
    pub ok: bool,
    /// How many blobs of each kind.
    #[serde(flatten)]
    pub counts: Counts,
    /// Each blob that failed or was destroyed, in order.
    pub not_restored: Vec<NotRestored>,
    /// Who checked each byte before it was written.
    pub checked_by: CheckedBy,
    /// Where the log stood at the end: every record of the restore is in this tree. By a daemon,
    /// each but the outcomes of the blobs that came last, which may be behind it.
    pub log: LogMark,
}

/// Who decrypted and authenticated what was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CheckedBy {
    /// This program, which has the store open: each byte that was written is what was sealed.
    Store,
    /// A daemon, as it released it. This program knows that each byte came from that daemon, that
    /// each blob has the id that was asked for and the length that was said, and that it came
    /// whole. That it is what was sealed, and which blobs there are, it has from the daemon.
    Daemon,
}

/// The format of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum RestoredFormat {
    /// The first.
    #[default]
    #[serde(rename = "strongroom/restore/v1")]
    V1,
}

/// How many blobs there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Restored by this run.
    pub restored: u64,
    /// Their plaintext in bytes.
    pub bytes: u64,
    /// There already, and as they were restored.
    pub skipped: u64,
    /// Their plaintext in bytes.
    pub skipped_bytes: u64,
    /// On the storage still, with all keys destroyed by what the log says, or withdrawn by an
    /// order until they are.
    pub destroyed: u64,
    /// Not restored, and should have been.
    pub failed: u64,
}

/// A blob that was not restored.
#[derive(Debug, Serialize)]
pub struct NotRestored {
    /// The blob.
    pub blob: BlobId,
    /// Why, as [`ErrorKind::as_str`] has it.
    pub kind: &'static str,
    /// Whether it did not have to be, as its destruction is in the log.
    pub destroyed: bool,
    /// The certificate of its destruction, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateId>,
    /// Why, in a sentence.
    #[serde(skip)]
    pub error: Error,
}

/// A blob that is to be restored.
struct Wanted {
    blob: BlobId,
    standing: Standing,
    name: Option<BlobName>,
    sealed_at: Timestamp,
    bytes: u64,
}

/// What became of a blob.
enum Done {
    Restored(u64),
    Skipped(u64),
}

impl Customer {
    /// Opens the selected blobs into files below the directory `to`, which is made if it is not
    /// there. `progress` is told the bytes of each piece that was written.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if the directory is for others as well, or has another
    /// customer's blobs; [`ErrorKind::Conflict`] if another program restores to it;
    /// [`ErrorKind::Io`] if nothing more can be written; [`ErrorKind::Denied`] outside a
    /// session, where it takes one; [`ErrorKind::AuditUnavailable`]. What fails for one blob
    /// is in the [`Restored`].
    ///
    /// # Cancel safety
    /// What was being written is removed, and its opening recorded as aborted. Run it again,
    /// and it goes on.
    pub async fn restore(
        &self,
        to: &Path,
        selection: &Selection,
        options: RestoreOptions,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Restored> {
        let source = InStore::of(self).await?;
        restore(&source, to, selection, options, progress).await
    }
}

/// Restores from wherever the blobs are.
pub(crate) async fn restore<S: Source>(
    source: &S,
    to: &Path,
    selection: &Selection,
    options: RestoreOptions,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Restored> {
    let (clock, (store, customer)) = (source.clock(), source.whose());
    let (started, since) = (clock.now(), clock.uptime());
    let whose = Whose { format: Format::V1, store, customer };
    let root = to.to_owned();
    let place = blocking(move || match options.dry_run {
        true => Place::look_at(&root, whose),
        false => Place::open(&root, whose),
    });
    let run = Run { source, place: Arc::new(place.await?), options, progress };
    let mut result = Tally::default();
    let wanted = run.select(source.inventory().await?, selection, &mut result).await?;
    let names = wanted.iter().map(|wanted| (wanted.blob, wanted.name.as_ref().map(BlobName::as_str)));
    let mut to_path = plan::paths(names);
    let planned: Vec<(Wanted, String)> = wanted
        .into_iter()
        .filter_map(|wanted| to_path.remove(&wanted.blob).map(|path| (wanted, path)))
        .collect();
    let mut done = futures_util::stream::iter(planned)
        .map(|(wanted, path)| async {
            let done = run.restore_one(&wanted, path).await;
            (wanted, done)
        })
        .buffer_unordered(options.jobs.clamp(1, MAX_JOBS));
    while let Some((Wanted { blob, standing, .. }, done)) = done.next().await {
        match done {
            Ok(done) => result.counts.add(&done),
            Err(error) => run.fails((blob, standing), error, &mut result).await?,
        }
    }
    drop(done);
    let Tally { counts, mut not_restored } = result;
    not_restored.sort_by_key(|not| not.blob);
    Ok(Restored {
        format: RestoredFormat::V1,
        store,
        customer,
        started,
        dry_run: options.dry_run,
        ok: counts.failed == 0,
        counts,
        not_restored,
        checked_by: source.checked_by(),
        log: source.mark().await?,
        finished: clock.now(),
        took: clock.uptime().saturating_sub(since),
    })
}

#[derive(Default)]
struct Tally {
    counts: Counts,
    not_restored: Vec<NotRestored>,
}

impl Counts {
    fn add(&mut self, done: &Done) {
        let (blobs, bytes, more) = match done {
            Done::Restored(more) => (&mut self.restored, &mut self.bytes, *more),
            Done::Skipped(more) => (&mut self.skipped, &mut self.skipped_bytes, *more),
        };
        *blobs += 1;
        *bytes = bytes.saturating_add(more);
    }
}

impl Selection {
    fn has(&self, name: Option<&BlobName>, sealed_at: Timestamp) -> bool {
        let named = |prefix: &BlobName| name.is_some_and(|name| name.as_str().starts_with(prefix.as_str()));
        self.name_prefix.as_ref().is_none_or(named)
            && self.sealed_from.is_none_or(|from| from <= sealed_at.day())
            && self.sealed_until.is_none_or(|until| sealed_at.day() <= until)
    }
}

/// One run.
struct Run<'a, S> {
    source: &'a S,
    place: Arc<Place>,
    options: RestoreOptions,
    progress: &'a (dyn Fn(u64) + Send + Sync),
}

impl<S: Source> Run<'_, S> {
    /// Looks at every blob, and takes those that were selected. One that cannot be looked at
    /// could be one of them, and is a failure.
    async fn select(
        &self,
        blobs: BTreeMap<BlobId, Standing>,
        selection: &Selection,
        tally: &mut Tally,
    ) -> Result<Vec<Wanted>> {
        let mut looked = self.source.look(blobs);
        let mut wanted = Vec::new();
        while let Some(Looked { blob, standing, found }) = looked.try_next().await? {
            match found {
                Ok(Found { name, sealed_at, bytes }) => {
                    if selection.has(name.as_ref(), sealed_at) {
                        wanted.push(Wanted { blob, standing, name, sealed_at, bytes });
                    }
                }
                Err(error) => self.fails((blob, standing), error, tally).await?,
            }
        }
        if selection.latest {
            keep_latest(&mut wanted);
        }
        Ok(wanted)
    }

    async fn restore_one(&self, wanted: &Wanted, path: String) -> Result<Done> {
        let Wanted { blob, bytes, .. } = *wanted;
        let (place, at) = (Arc::clone(&self.place), path.clone());
        let stands = blocking(move || place.stands(blob, &at)).await?;
        match stands {
            Stands::Same(bytes) => return Ok(Done::Skipped(bytes)),
            Stands::Unknown(length) if length != bytes => {
                let message = "something else stands where this blob goes; it was left as it is";
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
            _ if self.options.dry_run => return Ok(Done::Restored(bytes)),
            _ => {}
        }
        let mut pieces = self.source.open(blob, bytes).await?;
        let place = Arc::clone(&self.place);
        let mut part = blocking(move || place.part(blob)).await?;
        // One that breaks off, or does not verify, leaves nothing: the part goes with us.
        while let Some(piece) = pieces.try_next().await? {
            let length = u64::try_from(piece.len()).expect("a piece fits in memory");
            part = blocking(move || part.write(&piece).map(|()| part)).await?;
            (self.progress)(length);
        }
        let place = Arc::clone(&self.place);
        let bytes = blocking(move || place.finish(blob, &path, part, stands)).await?;
        Ok(Done::Restored(bytes))
    }

    /// Takes down that a blob was not restored.
    ///
    /// # Errors
    /// The same, where no other blob can be restored either.
    async fn fails(
        &self,
        (blob, standing): (BlobId, Standing),
        error: Error,
        tally: &mut Tally,
    ) -> Result<()> {
        if error.kind() == ErrorKind::NotFound && !standing.has_to_open() {
            return Ok(());
        }
        if error.kind() == ErrorKind::AuditUnavailable || is_full(&error) {
            return Err(error);
        }
        let destroyed = self.source.is_destroyed((blob, standing), &error).await;
        if !destroyed && self.source.is_final(&error).await {
            return Err(error);
        }
        *if destroyed { &mut tally.counts.destroyed } else { &mut tally.counts.failed } += 1;
        let (kind, certificate) = (error.kind().as_str(), error.certificate());
        tally.not_restored.push(NotRestored { blob, kind, destroyed, certificate, error });
        Ok(())
    }
}

/// Of each name the newest.
fn keep_latest(wanted: &mut Vec<Wanted>) {
    let mut newest: BTreeMap<&BlobName, (Timestamp, BlobId)> = BTreeMap::new();
    for one in wanted.iter() {
        if let Some(name) = &one.name {
            let at = (one.sealed_at, one.blob);
            newest.entry(name).and_modify(|known| *known = at.max(*known)).or_insert(at);
        }
    }
    let newest: BTreeSet<BlobId> = newest.into_values().map(|(_, blob)| blob).collect();
    wanted.retain(|one| one.name.is_none() || newest.contains(&one.blob));
}

/// Whether the file system takes nothing more, from any blob.
fn is_full(error: &Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    error.kind() == ErrorKind::Io
        && cause.is_some_and(|io| matches!(io.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(Error::new(ErrorKind::Io, "the writing of files ended")),
    }
}

impl Restored {
    /// The document: one JSON object, with the line feed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a document has string keys only");
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(number: u8, name: Option<&str>, day: u32) -> Wanted {
        let blob = BlobId::new(Day::from_number(20_000), [number; 13]).unwrap();
        let sealed_at = Timestamp::from_micros(u64::from(day) * 86_400_000_000 + 7).unwrap();
        let name = name.map(|name| name.parse().unwrap());
        Wanted { blob, standing: Standing::Unlogged, name, sealed_at, bytes: 0 }
    }

    #[test]
    fn days_and_prefixes_select() {
        let all = [wanted(1, Some("db/a"), 10), wanted(2, Some("db/a"), 11), wanted(3, None, 12)];
        let selected = |selection: Selection| -> Vec<u8> {
            let has = |one: &&Wanted| selection.has(one.name.as_ref(), one.sealed_at);
            all.iter().filter(has).map(|one| one.blob.as_bytes()[15]).collect()
        };
        let day = |number| Some(Day::from_number(number));
        assert_eq!(selected(Selection::default()), [1, 2, 3]);
        let prefix = Some("db/".parse().unwrap());
        assert_eq!(selected(Selection { name_prefix: prefix, ..Selection::default() }), [1, 2]);
        let (sealed_from, sealed_until) = (day(11), day(11));
        assert_eq!(selected(Selection { sealed_from, ..Selection::default() }), [2, 3]);
        assert_eq!(selected(Selection { sealed_until, ..Selection::default() }), [1, 2]);
        assert_eq!(selected(Selection { sealed_from, sealed_until, ..Selection::default() }), [2]);
    }

    #[test]
    fn the_latest_is_the_one_that_was_sealed_last() {
        let mut all = vec![
            wanted(9, Some("a"), 10),
            wanted(1, Some("a"), 11),
            wanted(2, None, 1),
            wanted(3, None, 2),
            wanted(4, Some("b"), 1),
        ];
        keep_latest(&mut all);
        assert_eq!(all.iter().map(|one| one.blob.as_bytes()[15]).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    /// A service runs it on a runtime of several threads.
    #[test]
    fn the_future_can_move_between_threads() {
        fn is_send<T: Send>(_: impl FnOnce(Customer) -> T) {}
        is_send(|customer| async move {
            let (to, selection) = (Path::new("to"), Selection::default());
            customer.restore(to, &selection, RestoreOptions::default(), &|_| ()).await
        });
    }

    #[test]
    fn a_full_file_system_ends_the_run() {
        let of =
            |kind: std::io::ErrorKind| Error::new(ErrorKind::Io, "x").with_source(std::io::Error::from(kind));
        assert!(is_full(&of(std::io::ErrorKind::StorageFull)));
        assert!(!is_full(&of(std::io::ErrorKind::PermissionDenied)));
    }
}
