//! Sealing: read, seal and upload at once, bounded by the pipeline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutPayload};

use super::customer::use_error;
use super::keyring::{Asker, Want, close, settle};
use super::source::Segments;
use super::{Customer, Source, once, wraps};
use crate::audit::log::{LEAP, NEAR, TimeDoubt};
use crate::audit::{Action, Intent, KeyRef, OutcomeResult};
use crate::entropy::{random, random_secret};
use crate::envelope::{Binding, Dek, Header, Metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, RequestId};
use crate::kms::DataKey;
use crate::once::{Claim, Content, OnceKey};
use crate::payload::{SealError, Sealer};
use crate::retention::clock::AGREEMENT;
use crate::ring::{Entry, GrowthRefusal, Ring, Tenancy};
use crate::room::{Inner, MAX_TTL};
use crate::store::upload::{BlobWriter, is_in_doubt};
use crate::store::{layout, store_error};
use crate::suite::Suite;
use crate::system::{Work, work};
use crate::time::{Day, Timestamp};

/// How many segments are being sealed at once, on as many threads.
const SEALING: usize = 4;

/// The least by which one use of a name is newer than another.
const MICROSECOND: Duration = Duration::from_micros(1);

/// What goes with a blob.
#[derive(Clone, Debug, Default)]
pub struct SealOptions {
    metadata: Metadata,
    suite: Option<Suite>,
    retain_until: Option<Day>,
    once: Option<OnceKey>,
}

impl SealOptions {
    /// Nothing but the bytes, under the customer's settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a name, content type and pairs.
    #[must_use]
    pub fn metadata(mut self, metadata: Metadata) -> Self {
        self.metadata = metadata;
        self
    }

    /// In another suite than the customer's.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// Kept until this day at least; an earlier one than the customer's
    /// retention changes nothing.
    #[must_use]
    pub fn retain_until(mut self, day: Day) -> Self {
        self.retain_until = Some(day);
        self
    }

    /// Once, although it may be sent again: for 24 hours, whatever this principal seals for
    /// the customer under this key is the same blob, and other bytes or other metadata
    /// under it are refused ([`ErrorKind::Conflict`]). It is kept for a day longer
    /// than the customer's retention, so that an attempt after midnight keeps the same promise.
    #[must_use]
    pub fn once(mut self, key: OnceKey) -> Self {
        self.once = Some(key);
        self
    }
}

/// A blob that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its id.
    pub id: BlobId,
    /// The length of the plaintext, in bytes.
    pub bytes: u64,
    /// What was stored: header and payload, in bytes.
    pub stored_bytes: u64,
    /// The last day on which it is kept.
    pub retain_until: Day,
    /// Whether an earlier attempt had sealed it ([`SealOptions::once`]).
    pub replayed: bool,
}

/// What came of an attempt.
enum Attempt {
    Sealed(Sealed),
    /// Another one with the same key was faster. The length of this one's bytes and their hash.
    Late(u64, [u8; 32]),
}

pub(super) async fn seal(customer: &Customer, source: Source, options: SealOptions) -> Result<Sealed> {
    let room = &*customer.room.0;
    let request = room.log.request_id()?;
    let asker = Asker { access: &customer.access, cause: Some(request) };
    let (now, asked) = (room.clock.now(), room.clock.uptime());
    let mut ring = room.keyring.ring(asker, customer.id).await?;
    if ring.closed.is_some() {
        return Err(Error::new(ErrorKind::Denied, "the customer is closed: nothing new is sealed for it"));
    }
    let promised = ring.policy().period.retain_until(promise_time(room, asker).await?);
    let promised = if options.once.is_some() { promised.plus(1) } else { promised };
    let day = options.retain_until.map_or(promised, |day| day.max(promised));
    if day > Day::MAX {
        return Err(Error::new(ErrorKind::InvalidInput, "the day to keep the blob until is too far off"));
    }
    // Before anything is used, or made in the ring.
    ring.permit_writer(day, now.max(room.log.time())).map_err(too_long)?;
    let mut place = None;
    if let Some(key) = &options.once {
        match Box::pin(once::find(customer, asker, key)).await? {
            once::Found::Free(free) => place = Some(free),
            // No key is used, so that there is nothing to record.
            once::Found::Stands(claim, stored) => {
                let read = Box::pin(once::drain(source.start(), Content::new(&options.metadata))).await?;
                return once::replay((claim, stored), read.0, &read.1);
            }
        }
    }
    // Outside a session this node may have a KMS key in the customer's hand make data keys,
    // and unwrap none.
    let own = ring.settings.tenancy == Tenancy::Customer && customer.access.session.is_none();
    let is_named = options.metadata.name().is_some();
    if own {
        if is_named && ring.outer_name_key().is_none() {
            ring = room.keyring.ensure(asker, customer.id, &Want::OuterNameKey).await?;
        }
        if room.keyring.own_entry(&ring, day).is_none() {
            ring = room.keyring.ensure(asker, customer.id, &Want::OwnKey(day)).await?;
        }
    } else if ring.day_key(day).is_none() {
        ring = room.keyring.ensure(asker, customer.id, &Want::DayKeys(day)).await?;
    }
    let (entry, own_key) = key_to_seal_with(room, &ring, day, own)?;
    let name_entry = is_named.then(|| ring.name_key().ok_or_else(no_key)).transpose()?;
    let blob = BlobId::new(day, random(&*room.entropy)?)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, "the day is too far off").with_source(error))?;
    let suite = options.suite.unwrap_or(ring.settings.suite);
    let binding = Binding { store: room.store, customer: customer.id, blob, kek: entry.id, suite };

    // Reading begins now, so that it overlaps with the commit of the intents.
    let segments = source.start();
    let intent = intent(customer, request, blob, entry, day);
    let find = name_entry.map(|entry| find_intent(customer, entry, request)).transpose()?;
    // The customer's KMS makes the DEK, and is asked for it at each opening.
    let kms_key = ring.settings.strict.then(|| ring.settings.kms_key.clone());
    let strict = kms_key
        .as_ref()
        .map(|key| wraps::kms_intent(customer, Some(request), Action::KmsGenerateDataKey, blob, key));
    let intents = [Some(intent), find, strict.transpose()?].into_iter().flatten().collect();
    let (begun, data_key) = match own_key {
        Some(key) => (room.log.begin_all(intents).await?, Ok(key)),
        None => room.keyring.begin_with_key(asker, &ring, entry.data_key, intents).await?,
    };
    let mut begun = begun.into_iter();
    let (open, receipt) = begun.next().expect("one of each intent");
    // Out of session this node may not see all uses of a name: there the log says which of two
    // seals is newer.
    let mut at = if own { open.at() } else { now };
    let begun_find = name_entry.and_then(|_| begun.next());
    let begun_strict = begun.next();
    let sealing = async {
        let data_key = data_key?;
        let name_path = match (options.metadata.name(), name_entry, begun_find) {
            (Some(name), Some(entry), Some((open, receipt))) => {
                let data_key = room.keyring.data_key(asker, &ring, entry.data_key).await?;
                let tag = ring.open_key(receipt, entry.id, &data_key).and_then(|key| key.name_tag(name));
                let tag = settle(open, tag.map_err(use_error))?;
                // What was there before is older, whatever clocks said when it was made.
                let newest = room.storages.newest_use(customer.id, &tag).await?;
                at = newest.map_or(at, |newest| at.max(newest.saturating_add(MICROSECOND)));
                Some(layout::name(customer.id, &tag, at, blob))
            }
            _ => None,
        };
        let dek = match (kms_key, begun_strict) {
            (Some(kms_key), Some(begun)) => wraps::strict_dek(customer, blob, &kms_key, begun).await?,
            _ => Dek::new(random_secret(&*room.entropy)?),
        };
        let key = ring.open_key(receipt, entry.id, &data_key).map_err(use_error)?;
        let header = key.seal_header(binding, at, random(&*room.entropy)?, &dek, &options.metadata);
        let header = header.map_err(use_error)?;
        let mut writer = room.storages.blob_writer(layout::blob(customer.id, blob));
        let uploaded = async {
            let mut content = place.is_some().then(|| Content::new(&options.metadata));
            let salt = random(&*room.entropy)?;
            let bytes = upload(segments, (&header, &dek, salt), &mut writer, content.as_mut()).await?;
            if let (Some(place), Some(content)) = (place, content) {
                let content = content.finish();
                let claim = Claim { blob, bytes, content, at: room.clock.now() };
                if !Box::pin(once::claim(customer, asker, place, &claim)).await? {
                    return Ok((bytes, Some(content)));
                }
                // If we stop here, the claim leads nowhere, and is given up in time.
            }
            // The name goes first: if we stop here, it leads to a blob that is
            // not there, and is passed over. After `finish`, both are complete.
            if let Some(path) = name_path {
                let mode = PutMode::Overwrite.into();
                let written = room.storages.blobs.put_opts(&path, PutPayload::new(), mode).await;
                written.map_err(|error| store_error(error, "write the blob's name"))?;
            }
            Ok((bytes, None))
        };
        let uploaded: Result<(u64, Option<[u8; 32]>)> = uploaded.await;
        let bytes = match uploaded {
            Ok((bytes, None)) => bytes,
            Ok((bytes, Some(content))) => {
                let _ = writer.abort().await;
                return Ok(Attempt::Late(bytes, content));
            }
            Err(error) => {
                // What was stored so far is invisible; not all storages would
                // ever remove it by themselves.
                let _ = writer.abort().await;
                return Err(error);
            }
        };
        if room.clock.uptime().saturating_sub(asked) > MAX_TTL {
            // Far longer than the window before a destruction is sure to last.
            let newest = room.keyring.fresh_ring(asker, customer.id).await?;
            if newest.entry(entry.id).is_none() {
                let _ = writer.abort().await;
                let message = "the key of the blob was destroyed while it was being sealed";
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        }
        // If we stop after this, the blob is there and the log has an intent
        // without outcome, which retention counts as a blob. So does it an outcome in doubt.
        let stored_bytes = writer.finish().await.map_err(|error| unfinished(blob, place.is_some(), error))?;
        Ok(Attempt::Sealed(Sealed { id: blob, bytes, stored_bytes, retain_until: day, replayed: false }))
    };
    let sealed: Result<Attempt> = sealing.await;
    match sealed {
        Ok(Attempt::Late(bytes, content)) => {
            open.finish(OutcomeResult::Conflict, None).await?;
            let Some(key) = &options.once else { return Err(no_key()) };
            match Box::pin(once::find(customer, asker, key)).await? {
                once::Found::Stands(claim, stored) => once::replay((claim, stored), bytes, &content),
                once::Found::Free(_) => {
                    let message = "another attempt with this idempotency key was given up: try again";
                    Err(Error::new(ErrorKind::Unavailable, message))
                }
            }
        }
        Ok(Attempt::Sealed(sealed)) => {
            open.finish(OutcomeResult::Ok, Some(sealed.bytes)).await.map_err(|error| {
                let message = format!("blob {blob} was sealed, but the log could not record how it ended");
                Error::new(error.kind(), message).with_source(error)
            })?;
            Ok(sealed)
        }
        Err(error) => close(open, Err(error)).await,
    }
}

/// The time from which a blob is kept for its customer's period: by this host's clock, and no earlier than
/// the log's, or than the log's with the time that this program has run since. Where one of these is far ahead
/// of this host, something is wrong: then two clocks have to agree, or people say that the log is, and otherwise
/// nothing is promised.
async fn promise_time(room: &Inner, asker: Asker<'_>) -> Result<Timestamp> {
    let (host, log, reckoned) = (room.clock.now(), room.log.time(), room.log.reckoned());
    let near = host.saturating_add(NEAR);
    if reckoned <= near {
        // A clock that is behind the log must not make the promise shorter, nor one that went back while
        // this program wrote nothing.
        return Ok(host.max(reckoned));
    }
    // A mark in the register is about the log's own time, where that is what is ahead.
    let log = if log > near { log } else { reckoned };
    if let Some(storage) = room.storages.clock().await? {
        let agree = host.max(storage) <= host.min(storage).saturating_add(AGREEMENT);
        return if agree {
            Ok(host.max(storage))
        } else {
            Err(TimeDoubt::Contradicted { host, storage }.into())
        };
    }
    let doubt = |log| Err(TimeDoubt::LogAhead { host, log }.into());
    let Some((clock, accepted)) = room.keyring.accepted_time(asker).await? else { return doubt(log) };
    match clock.log_mark_ignored() {
        // Behind the commit that was ahead, the log's time rises by a moment with each.
        Some(mark) if log <= mark.saturating_add(NEAR) => {}
        _ => return doubt(log),
    }
    // It was as late as people said, at least, or as this program went by, and that has run since. And no
    // later than a store may have been idle.
    if accepted > near || host > accepted.saturating_add(LEAP) {
        return doubt(log.max(accepted));
    }
    Ok(room.keyring.go_by(clock, host.max(accepted)))
}

/// A key of the ring to seal with for a day; and the data key that it is under, if it is one that
/// this node made (`own`).
fn key_to_seal_with<'a>(
    room: &Inner,
    ring: &'a Ring,
    day: Day,
    own: bool,
) -> Result<(&'a Entry, Option<Arc<DataKey>>)> {
    if own {
        // Its term may have ended since it was made.
        let late = || Error::new(ErrorKind::Conflict, "the key to seal with came to the end of its term");
        return room.keyring.own_entry(ring, day).map(|(entry, key)| (entry, Some(key))).ok_or_else(late);
    }
    Ok((ring.day_key(day).ok_or_else(no_key)?, None))
}

/// What a writer is told that asks for more than a ring gives one alone.
pub(super) fn too_long(refusal: GrowthRefusal) -> Error {
    let message = "the blob is not kept for so long by a writer alone: seal it for a shorter time, and have a \
                   privacy officer keep it longer (`retention extend`)";
    Error::new(ErrorKind::Denied, message).with_source(refusal)
}

fn no_key() -> Error {
    Error::new(ErrorKind::Integrity, "the ring has no key for this day")
}

fn intent(customer: &Customer, request: RequestId, blob: BlobId, entry: &Entry, day: Day) -> Intent {
    let mut intent = Intent::new(request, &customer.access, Action::Seal);
    intent.customer = Some(customer.id);
    intent.blob = Some(blob);
    intent.key = Some(KeyRef::Kek { id: entry.id, day });
    intent
}

fn find_intent(customer: &Customer, name_key: &Entry, cause: RequestId) -> Result<Intent> {
    let mut intent = Intent::new(customer.room.0.log.request_id()?, &customer.access, Action::Find);
    intent.cause = Some(cause);
    intent.customer = Some(customer.id);
    intent.key = Some(KeyRef::NameKey { id: name_key.id });
    Ok(intent)
}

/// Header and payload into the writer. Returns the length of the plaintext.
async fn upload(
    mut segments: Segments,
    (header, dek, salt): (&Header, &Dek, crate::schedule::Salt),
    writer: &mut BlobWriter,
    mut content: Option<&mut Content>,
) -> Result<u64> {
    let mut sealer = Sealer::new(dek.secret(), header.binding.suite, &salt, &header.context());
    let mut front = header.as_bytes().to_vec();
    front.extend_from_slice(sealer.prologue());
    writer.write(Bytes::from(front)).await?;

    let mut sealing: VecDeque<Work<Bytes>> = VecDeque::with_capacity(SEALING);
    let mut bytes = 0;
    loop {
        let segment = segments.next().await.map_err(unread)?;
        bytes += u64::try_from(segment.len()).expect("a segment fits in memory");
        if let Some(content) = &mut content {
            segment.chunks().for_each(|chunk| content.update(chunk));
        }
        let spare = segments.spare();
        if !segment.is_full() {
            let job = sealer.last(segment).map_err(seal_error)?;
            sealing.push_back(work(move || reusable(job.run(), spare)));
            break;
        }
        let job = sealer.segment(segment).map_err(seal_error)?;
        sealing.push_back(work(move || reusable(job.run(), spare)));
        if sealing.len() == SEALING {
            write_next(&mut sealing, writer).await?;
        }
    }
    while !sealing.is_empty() {
        write_next(&mut sealing, writer).await?;
    }
    Ok(bytes)
}

async fn write_next(sealing: &mut VecDeque<Work<Bytes>>, writer: &mut BlobWriter) -> Result<()> {
    let Some(job) = sealing.pop_front() else { return Ok(()) };
    let sealed =
        job.await.map_err(|error| Error::new(ErrorKind::Io, "a sealing thread ended").with_source(error))?;
    writer.write(sealed).await
}

/// The error of a blob that may be stored or not, and how to send it again.
fn unfinished(blob: BlobId, has_key: bool, error: Error) -> Error {
    if !is_in_doubt(&error) {
        return error;
    }
    let again = if has_key {
        "send it again with the same idempotency key within 24 hours, and it is stored once"
    } else {
        "sent again, it may be stored twice; with an idempotency key (`put --once`, `Idempotency-Key`) it \
         never is"
    };
    let message = format!("the storage did not confirm blob {blob}: it may be stored or not; {again}");
    Error::new(error.kind(), message).with_source(error)
}

pub(super) fn unread(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "failed to read what was to be sealed").with_source(error)
}

fn seal_error(error: SealError) -> Error {
    Error::new(ErrorKind::InvalidInput, "the blob cannot be sealed").with_source(error)
}

/// Bytes whose buffer goes back to the reader once they are written.
fn reusable(buffer: Vec<u8>, spare: Sender<Vec<u8>>) -> Bytes {
    Bytes::from_owner(Reusable { buffer, spare })
}

struct Reusable {
    buffer: Vec<u8>,
    spare: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Reusable {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Reusable {
    fn drop(&mut self) {
        // Sealed bytes: nothing to wipe. The reader may be gone already.
        let _ = self.spare.send(std::mem::take(&mut self.buffer));
    }
}
