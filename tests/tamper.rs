//! What becomes of a store whose storages lie: every kind of tampering is
//! refused, with one error that tells nothing, and is in the log.

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use common::{Fixture, Raw, access, fixture, objects, operations, pattern, read, records_since, write};
use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use strongroom::audit::{Action, OutcomeResult};
use strongroom::envelope::{Binding, Dek, Header, Kek, Metadata};
use strongroom::id::{BlobId, CustomerId, KekId, StoreId};
use strongroom::payload::{self, CHUNK_LEN, PROLOGUE_LEN, SEALED_CHUNK_LEN};
use strongroom::room::{ByteRange, Customer, SealOptions, Strongroom};
use strongroom::secret::Secret;
use strongroom::store::layout;
use strongroom::suite::Suite;
use strongroom::time::{Day, Timestamp};
use strongroom::{Error, ErrorKind};

/// Where the fields of a header stand, as the manual has them.
mod field {
    use std::ops::Range;

    pub(super) const LENGTH: Range<usize> = 10..14;
    pub(super) const STORE: Range<usize> = 16..32;
    pub(super) const CUSTOMER: Range<usize> = 32..48;
    pub(super) const BLOB: Range<usize> = 48..64;
    pub(super) const KEK: Range<usize> = 72..88;
    pub(super) const WRAP: Range<usize> = 89..161;
}

/// The one error, in every form in which it shows.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shown(String, String, String, bool);

impl Shown {
    fn of(error: &Error) -> Self {
        let has_source = std::error::Error::source(error).is_some();
        Self(error.to_string(), error.chain(), format!("{error:?}"), has_source)
    }
}

/// Fails unless `error` is the opaque one, word for word.
#[track_caller]
fn assert_opaque(error: &Error, what: &str) {
    assert_eq!(error.kind(), ErrorKind::Authentication, "{what}: {error:?}");
    assert_eq!(Shown::of(error), Shown::of(&Error::authentication()), "{what}");
}

/// Opens a blob and reads to the end: what was released, and how it ended.
async fn read_all(customer: &Customer, blob: BlobId) -> (Vec<u8>, Result<(), Error>) {
    let mut released = Vec::new();
    let mut stream = match customer.open(blob).await {
        Ok(opened) => opened.into_stream(),
        Err(error) => return (released, Err(error)),
    };
    loop {
        match stream.try_next().await {
            Ok(Some(piece)) => released.extend_from_slice(&piece),
            Ok(None) => return (released, Ok(())),
            Err(error) => {
                assert!(
                    stream.try_next().await.is_ok_and(|more| more.is_none()),
                    "it went on after an error"
                );
                return (released, Err(error));
            }
        }
    }
}

/// Counts what the log has to have at the end.
struct Watch {
    from: u64,
    refused: Vec<Action>,
}

impl Watch {
    fn new(room: &Strongroom) -> Self {
        Self { from: room.log().head().next(), refused: Vec::new() }
    }

    /// Opens whole, and fails unless that is refused without a byte.
    async fn refuses(&mut self, customer: &Customer, blob: BlobId, what: &str) {
        let (released, end) = read_all(customer, blob).await;
        assert_opaque(&end.expect_err(what), what);
        assert_eq!(released, b"", "{what}");
        self.refused.push(Action::Open);
    }

    /// The same by every other way to a blob.
    async fn refuses_all_ways(&mut self, customer: &Customer, blob: BlobId, what: &str) {
        self.refuses(customer, blob, what).await;
        assert_opaque(&customer.stat(blob).await.unwrap_err(), what);
        assert_opaque(&customer.stat_listed(blob).await.unwrap_err(), what);
        assert_opaque(&customer.verify(blob).await.unwrap_err(), what);
        self.refused.extend([Action::Stat, Action::List, Action::Verify]);
        for range in [ByteRange::Inclusive(0, 0), ByteRange::From(0), ByteRange::Last(1)] {
            let end = match customer.open_range(blob, range).await {
                Ok(opened) => opened.bytes(1 << 20).await.map(drop),
                Err(error) => Err(error),
            };
            assert_opaque(&end.expect_err(what), what);
            self.refused.push(Action::OpenRange);
        }
    }

    /// Fails unless the log has an intent and an outcome for everything that was
    /// refused, in this order, and that no byte was released.
    async fn check(self, room: &Strongroom) {
        let records = records_since(room, self.from).await;
        let operations = operations(&records);
        let of_blobs = operations.iter().filter(|(intent, _)| intent.blob.is_some());
        let (mut actions, mut count) = (Vec::new(), 0);
        for (intent, outcome) in of_blobs {
            let outcome = outcome.unwrap_or_else(|| panic!("no outcome of {intent:?}"));
            assert_eq!(outcome.result, OutcomeResult::AuthenticationFailed, "{intent:?}");
            assert_eq!(outcome.bytes.unwrap_or(0), 0, "{intent:?}");
            actions.push(intent.action);
            count += 1;
        }
        assert_eq!(count, self.refused.len());
        assert_eq!(actions, self.refused);
    }
}

fn metadata() -> Metadata {
    let named = Metadata::new().with_name("scans/knee".parse().unwrap());
    named.with_content_type("image/png").unwrap().with_pair("ward", "7").unwrap()
}

fn small(suite: Suite) -> SealOptions {
    SealOptions::new().suite(suite).metadata(metadata())
}

impl Fixture {
    async fn sealed(&self, customer: &Customer, length: usize, options: SealOptions) -> Blob {
        let id = customer.seal(pattern(length), options).await.unwrap().id;
        let path = layout::blob(customer.id(), id);
        let bytes = read(&self.raw.blobs, &path).await;
        let header_len = u32::from_be_bytes(bytes[field::LENGTH].try_into().unwrap()) as usize;
        Blob { id, path, bytes, header_len }
    }

    async fn put(&self, blob: &Blob, bytes: &[u8]) {
        write(&self.raw.blobs, &blob.path, bytes).await;
    }
}

struct Blob {
    id: BlobId,
    path: Path,
    bytes: Vec<u8>,
    header_len: usize,
}

impl Blob {
    fn header(&self) -> &[u8] {
        &self.bytes[..self.header_len]
    }

    fn payload(&self) -> &[u8] {
        &self.bytes[self.header_len..]
    }

    /// Where chunk `number` begins.
    fn chunk(&self, number: usize) -> usize {
        self.header_len + PROLOGUE_LEN + number * SEALED_CHUNK_LEN
    }

    /// The chunks themselves, the last one short.
    fn chunks(&self) -> Vec<&[u8]> {
        self.bytes[self.chunk(0)..].chunks(SEALED_CHUNK_LEN).collect()
    }

    fn with_chunks(&self, chunks: &[&[u8]]) -> Vec<u8> {
        [&self.bytes[..self.chunk(0)], &chunks.concat()].concat()
    }
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}

#[tokio::test]
async fn every_flipped_bit_is_refused() {
    let f = fixture().await;
    for suite in Suite::ALL {
        let blob = f.sealed(&f.acme, 20, small(suite)).await;
        let mut watch = Watch::new(&f.room);
        for bit in 0..blob.bytes.len() * 8 {
            f.put(&blob, &flipped(&blob.bytes, bit)).await;
            let what = format!("{suite}, bit {bit} of byte {}", bit / 8);
            if bit % 29 == 0 {
                watch.refuses_all_ways(&f.acme, blob.id, &what).await;
            } else {
                watch.refuses(&f.acme, blob.id, &what).await;
            }
        }
        watch.check(&f.room).await;
        f.put(&blob, &blob.bytes).await;
        assert_eq!(read_all(&f.acme, blob.id).await.0, pattern(20));
    }
}

/// A header that does not come with the first request, and an empty blob.
#[tokio::test]
async fn flipped_bits_of_other_shapes_are_refused() {
    let f = fixture().await;
    let long = Metadata::new().with_pair("notes", &"x".repeat(5_000)).unwrap();
    for (length, metadata) in [(0, Metadata::new()), (0, long.clone()), (16_384, long)] {
        let blob = f.sealed(&f.acme, length, SealOptions::new().metadata(metadata)).await;
        let mut watch = Watch::new(&f.room);
        for bit in
            (0..blob.bytes.len() * 8).step_by(331).chain(blob.header_len * 8 - 8..blob.header_len * 8 + 8)
        {
            f.put(&blob, &flipped(&blob.bytes, bit)).await;
            let what = format!("{length} bytes, bit {bit}");
            watch.refuses(&f.acme, blob.id, &what).await;
            assert_opaque(&f.acme.verify(blob.id).await.unwrap_err(), &what);
            watch.refused.push(Action::Verify);
        }
        watch.check(&f.room).await;
    }
}

#[tokio::test]
async fn every_truncation_and_every_appended_byte_is_refused() {
    let f = fixture().await;
    for suite in Suite::ALL {
        let blob = f.sealed(&f.acme, 20, small(suite)).await;
        let mut watch = Watch::new(&f.room);
        for length in 0..blob.bytes.len() {
            f.put(&blob, &blob.bytes[..length]).await;
            watch.refuses_all_ways(&f.acme, blob.id, &format!("{suite}, cut to {length}")).await;
        }
        for more in [1, 16, 17, 16_364, 16_384, 16_400, 16_401, 300_000] {
            for tail in [vec![0; more], pattern(more).to_vec()] {
                f.put(&blob, &[&blob.bytes[..], &tail].concat()).await;
                watch.refuses_all_ways(&f.acme, blob.id, &format!("{suite}, {more} bytes appended")).await;
            }
        }
        // Its own last chunk again.
        let again = [&blob.bytes[..], &blob.bytes[blob.chunk(0)..]].concat();
        f.put(&blob, &again).await;
        watch.refuses_all_ways(&f.acme, blob.id, "the last chunk twice").await;
        watch.check(&f.room).await;
    }
}

/// Reads `blob` as it stands, and fails unless exactly `prefix` bytes come, and
/// then the error, and the log has that many.
async fn releases(f: &Fixture, blob: &Blob, plaintext: &Bytes, prefix: usize, what: &str) {
    let from = f.room.log().head().next();
    let (released, end) = read_all(&f.acme, blob.id).await;
    assert_opaque(&end.expect_err(what), what);
    assert_eq!(released.len(), prefix, "{what}");
    assert!(released == plaintext[..prefix], "{what}: what was released is not what was sealed");
    // Nothing at all where all or nothing is asked for.
    if let Ok(opened) = f.acme.open(blob.id).await {
        assert_opaque(&opened.bytes(1 << 30).await.unwrap_err(), what);
    }
    assert_opaque(&f.acme.verify(blob.id).await.unwrap_err(), what);
    let records = records_since(&f.room, from).await;
    for (intent, outcome) in operations(&records) {
        let outcome = outcome.unwrap_or_else(|| panic!("no outcome of {intent:?}"));
        assert_eq!(outcome.result, OutcomeResult::AuthenticationFailed, "{what}");
        assert_eq!(outcome.bytes.unwrap_or(0), prefix as u64, "{what}");
    }
}

#[tokio::test]
async fn only_what_stands_before_a_damaged_chunk_is_released() {
    let f = fixture().await;
    for suite in Suite::ALL {
        let plaintext = pattern(4 * CHUNK_LEN + 100);
        let blob = f.sealed(&f.acme, plaintext.len(), SealOptions::new().suite(suite)).await;
        assert_eq!(blob.chunks().len(), 5);
        for (number, chunk) in blob.chunks().iter().enumerate() {
            // Its first bit, one in the middle, and the first and last of its tag.
            for byte in [0, chunk.len() / 2, chunk.len() - 16, chunk.len() - 1] {
                let bit = (blob.chunk(number) + byte) * 8 + byte % 8;
                f.put(&blob, &flipped(&blob.bytes, bit)).await;
                let what = format!("{suite}, chunk {number}, byte {byte}");
                releases(&f, &blob, &plaintext, number * CHUNK_LEN, &what).await;
            }
        }
        // Two damaged chunks: none between them comes out.
        let twice = flipped(&flipped(&blob.bytes, blob.chunk(1) * 8), blob.chunk(3) * 8);
        f.put(&blob, &twice).await;
        releases(&f, &blob, &plaintext, CHUNK_LEN, "two chunks").await;
    }
}

#[tokio::test]
async fn a_blob_that_was_cut_releases_whole_chunks_at_most() {
    let f = fixture().await;
    let plaintext = pattern(4 * CHUNK_LEN + 100);
    let blob = f.sealed(&f.acme, plaintext.len(), SealOptions::new()).await;
    for number in 0..5 {
        // At the boundary no payload has that length; before the end of a tag
        // neither.
        for behind in [0, 1, 15] {
            f.put(&blob, &blob.bytes[..blob.chunk(number) + behind]).await;
            releases(&f, &blob, &plaintext, 0, &format!("{behind} bytes into chunk {number}")).await;
        }
        for behind in [16, 17, 115] {
            f.put(&blob, &blob.bytes[..blob.chunk(number) + behind]).await;
            let what = format!("{behind} bytes into chunk {number}");
            releases(&f, &blob, &plaintext, number * CHUNK_LEN, &what).await;
        }
    }
    // 16,284 more fill the last chunk, and 16,285 to 16,299 are no tag behind it.
    for (more, prefix) in [(1, 4), (16, 4), (16_283, 4), (16_284, 0), (16_299, 0), (16_300, 4), (90_000, 4)] {
        f.put(&blob, &[&blob.bytes[..], &vec![7; more]].concat()).await;
        releases(&f, &blob, &plaintext, prefix * CHUNK_LEN, &format!("{more} more")).await;
    }
}

/// Segments are fetched and opened several at a time; what comes out is still
/// the front, and no byte behind the damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_blob_ends_at_the_damage() {
    let f = fixture().await;
    let plaintext = pattern(1200 * CHUNK_LEN);
    let blob = f.sealed(&f.acme, plaintext.len(), SealOptions::new()).await;
    for number in [0, 15, 16, 255, 256, 600, 1199, 1200] {
        f.put(&blob, &flipped(&blob.bytes, blob.chunk(number) * 8 + 3)).await;
        releases(&f, &blob, &plaintext, number * CHUNK_LEN, &format!("chunk {number}")).await;
    }
}

/// A range gives what was sealed or the error, whatever was done to the rest.
#[tokio::test]
async fn a_range_is_right_or_refused() {
    let f = fixture().await;
    let plaintext = pattern(4 * CHUNK_LEN + 100);
    let blob = f.sealed(&f.acme, plaintext.len(), SealOptions::new()).await;
    let chunk = CHUNK_LEN as u64;
    let ranges = [
        (ByteRange::Inclusive(0, 0), 0..1, 0..=0),
        (ByteRange::Inclusive(chunk - 1, chunk), CHUNK_LEN - 1..CHUNK_LEN + 1, 0..=1),
        (ByteRange::Inclusive(2 * chunk, 3 * chunk - 1), 2 * CHUNK_LEN..3 * CHUNK_LEN, 2..=2),
        (ByteRange::From(4 * chunk), 4 * CHUNK_LEN..plaintext.len(), 4..=4),
        (ByteRange::Last(101), 4 * CHUNK_LEN - 1..plaintext.len(), 3..=4),
    ];
    for damaged in 0..5 {
        f.put(&blob, &flipped(&blob.bytes, blob.chunk(damaged) * 8)).await;
        for (range, positions, chunks) in ranges.clone() {
            let what = format!("{range:?} with chunk {damaged} damaged");
            let read = match f.acme.open_range(blob.id, range).await {
                Ok(opened) => opened.bytes(1 << 20).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(read) => {
                    assert!(!chunks.contains(&damaged), "{what} was not refused");
                    assert_eq!(read, plaintext.slice(positions), "{what}");
                }
                Err(error) => {
                    assert!(chunks.contains(&damaged), "{what} was refused");
                    assert_opaque(&error, &what);
                }
            }
        }
    }
    // A length that the storage made up is not used for a range from the end.
    for bytes in [&blob.bytes[..blob.chunk(4) - 1], &blob.bytes[..blob.chunk(3) + 20]] {
        f.put(&blob, bytes).await;
        for range in [ByteRange::Last(1), ByteRange::From(3 * chunk), ByteRange::Inclusive(0, u64::MAX)] {
            let error = f.acme.open_range(blob.id, range).await.unwrap_err();
            assert_opaque(&error, "a false length");
        }
        // A range beyond the false end is no matter of the range.
        let error = f.acme.open_range(blob.id, ByteRange::From(4 * chunk)).await.unwrap_err();
        assert_opaque(&error, "a false length");
    }
}

#[tokio::test]
async fn chunks_in_other_places_are_refused() {
    let f = fixture().await;
    for suite in Suite::ALL {
        let plaintext = pattern(4 * CHUNK_LEN + 100);
        let options = || SealOptions::new().suite(suite);
        let blob = f.sealed(&f.acme, plaintext.len(), options()).await;
        let other = f.sealed(&f.acme, plaintext.len(), options()).await;
        let (own, foreign) = (blob.chunks(), other.chunks());
        for (i, j) in [(0, 1), (0, 3), (1, 2), (2, 3)] {
            let mut swapped = own.clone();
            swapped.swap(i, j);
            f.put(&blob, &blob.with_chunks(&swapped)).await;
            releases(&f, &blob, &plaintext, i * CHUNK_LEN, &format!("chunks {i} and {j} swapped")).await;
        }
        for number in 0..5 {
            let mut mixed = own.clone();
            mixed[number] = foreign[number];
            f.put(&blob, &blob.with_chunks(&mixed)).await;
            let what = format!("chunk {number} of another blob");
            releases(&f, &blob, &plaintext, number * CHUNK_LEN, &what).await;
            if number < 4 {
                let mut missing = own.clone();
                missing.remove(number);
                f.put(&blob, &blob.with_chunks(&missing)).await;
                let what = format!("chunk {number} left out");
                releases(&f, &blob, &plaintext, number * CHUNK_LEN, &what).await;
                let mut twice = own.clone();
                twice.insert(number, own[number]);
                f.put(&blob, &blob.with_chunks(&twice)).await;
                let what = format!("chunk {number} twice");
                releases(&f, &blob, &plaintext, (number + 1) * CHUNK_LEN, &what).await;
            }
        }
    }
}

/// Blobs that differ in one thing each: the blob, the customer, the day, the
/// suite, the store.
struct Pairs {
    f: Fixture,
    other: Fixture,
    blobs: Vec<(&'static str, Customer, Blob)>,
}

async fn pairs() -> Pairs {
    let (f, other) = (fixture().await, fixture().await);
    let globex = f.customer("globex").await;
    let later = |days| {
        let day: Day = "2028-05-22".parse().unwrap();
        SealOptions::new().retain_until(day.plus(days))
    };
    let chacha = SealOptions::new().suite(Suite::ChaCha20Poly1305);
    let blobs = vec![
        ("first", f.acme.clone(), f.sealed(&f.acme, 50, SealOptions::new()).await),
        ("same customer and day", f.acme.clone(), f.sealed(&f.acme, 50, SealOptions::new()).await),
        ("another day", f.acme.clone(), f.sealed(&f.acme, 50, later(3)).await),
        ("another suite", f.acme.clone(), f.sealed(&f.acme, 50, chacha).await),
        ("another customer", globex.clone(), f.sealed(&globex, 50, SealOptions::new()).await),
        ("another customer and day", globex.clone(), f.sealed(&globex, 50, later(3)).await),
        ("another store", other.acme.clone(), other.sealed(&other.acme, 50, SealOptions::new()).await),
    ];
    assert_ne!(blobs[0].2.id.day(), blobs[2].2.id.day());
    Pairs { f, other, blobs }
}

#[tokio::test]
async fn headers_payloads_and_whole_blobs_in_other_places_are_refused() {
    let Pairs { f, other, blobs } = pairs().await;
    let mut watch = Watch::new(&f.room);
    for (to, customer, place) in &blobs[..6] {
        for (from, _, source) in blobs.iter().filter(|(from, ..)| from != to) {
            for (part, bytes) in [
                ("header", [source.header(), place.payload()].concat()),
                ("payload", [place.header(), source.payload()].concat()),
                ("blob", source.bytes.clone()),
                (
                    "header that says otherwise",
                    renamed(source, place, &[field::STORE, field::CUSTOMER, field::BLOB]),
                ),
                (
                    "header that says all otherwise",
                    renamed(source, place, &[field::STORE, field::CUSTOMER, field::BLOB, field::KEK]),
                ),
                ("wrapped DEK", renamed(place, source, &[field::WRAP])),
                ("wrapped DEK and key", renamed(place, source, &[field::WRAP, field::KEK])),
                ("key id", renamed(place, source, &[field::KEK])),
            ] {
                if bytes == place.bytes {
                    assert_eq!(part, "key id", "they share nothing else");
                    continue;
                }
                f.put(place, &bytes).await;
                watch.refuses_all_ways(customer, place.id, &format!("{part} of {from} at {to}")).await;
            }
        }
        f.put(place, &place.bytes).await;
        assert_eq!(read(&f.raw.blobs, &place.path).await, place.bytes);
    }
    watch.check(&f.room).await;
    drop(other);
}

/// `blob` with some fields of its header taken from `of`.
fn renamed(blob: &Blob, of: &Blob, fields: &[std::ops::Range<usize>]) -> Vec<u8> {
    let mut bytes = blob.bytes.clone();
    for field in fields {
        bytes[field.clone()].copy_from_slice(&of.bytes[field.clone()]);
    }
    bytes
}

/// A blob at a path that nobody sealed one for: another customer's, another
/// day's.
#[tokio::test]
async fn a_blob_opens_at_its_own_path_alone() {
    let Pairs { f, blobs, other } = pairs().await;
    let globex = blobs[4].1.clone();
    let first = &blobs[0].2;
    let mut watch = Watch::new(&f.room);

    write(&f.raw.blobs, &layout::blob(globex.id(), first.id), &first.bytes[..]).await;
    watch.refuses_all_ways(&globex, first.id, "under another customer").await;
    for field in [vec![field::CUSTOMER], vec![field::CUSTOMER, field::KEK]] {
        let bytes = renamed(first, &blobs[4].2, &field);
        write(&f.raw.blobs, &layout::blob(globex.id(), first.id), bytes).await;
        watch.refuses_all_ways(&globex, first.id, "under another customer, renamed").await;
    }

    // The day is part of the id: a later one, a day without a key, no day at all.
    for day in [first.id.day().plus(3), first.id.day().plus(3000), Day::MAX, Day::from_number(0xFF_FFFF)] {
        let mut id = *first.id.as_bytes();
        id[..3].copy_from_slice(&day.number().to_be_bytes()[1..]);
        let id = BlobId::from_bytes(id);
        let path = layout::blob(f.acme.id(), id);
        write(&f.raw.blobs, &path, &first.bytes[..]).await;
        watch.refuses_all_ways(&f.acme, id, "under another day").await;
        let mut bytes = first.bytes.clone();
        bytes[field::BLOB].copy_from_slice(id.as_bytes());
        write(&f.raw.blobs, &path, bytes.clone()).await;
        watch.refuses_all_ways(&f.acme, id, "under another day, renamed").await;
        bytes[field::KEK].copy_from_slice(&blobs[2].2.bytes[field::KEK]);
        write(&f.raw.blobs, &path, bytes).await;
        watch.refuses_all_ways(&f.acme, id, "under another day and key, renamed").await;
    }
    watch.check(&f.room).await;

    // Where nothing lies, nothing is damaged.
    assert_eq!(f.acme.open(blobs[4].2.id).await.unwrap_err().kind(), ErrorKind::NotFound);
    drop(other);
}

/// A header under the right key and id that belongs to another payload: only
/// the context of the payload tells.
#[test]
fn a_payload_opens_under_its_own_header_alone() {
    let secret = |byte| Secret::init(|out: &mut [u8; 32]| out.fill(byte));
    let (kek, dek) = (Kek::new(secret(1)), Dek::new(secret(2)));
    for suite in Suite::ALL {
        let binding = |byte| Binding {
            store: StoreId::from_bytes([1; 16]),
            customer: CustomerId::from_bytes([2; 16]),
            blob: BlobId::new(Day::from_number(21_000), [byte; 13]).unwrap(),
            kek: KekId::from_bytes([4; 16]),
            suite,
        };
        let at = |micros| Timestamp::from_micros(micros).unwrap();
        let header = |byte, micros, salt, metadata| {
            Header::seal(binding(byte), at(micros), &kek, [salt; 24], &dek, metadata)
        };
        let plain = Metadata::new();
        let own = header(1, 1, 1, &plain);
        let payload = payload::seal(dek.secret(), suite, &[9; 24], &own.context(), b"text").unwrap();
        let open = |header: &Header| payload::open(dek.secret(), suite, &header.context(), &payload);
        assert_eq!(open(&own).unwrap(), b"text");
        for other in [
            header(2, 1, 1, &plain),
            header(1, 2, 1, &plain),
            header(1, 1, 2, &plain),
            header(1, 1, 1, &metadata()),
        ] {
            assert!(other.unwrap(&kek).is_ok() && other.metadata(&dek).is_ok(), "the header itself is good");
            assert!(open(&other).is_err());
        }
        assert!(own.unwrap(&Kek::new(secret(3))).is_err(), "another key");
    }
}

/// The newest ring is deleted, so that an older one is the newest there is.
#[tokio::test]
async fn a_rolled_back_ring_is_refused_and_recorded() {
    let f = fixture().await;
    let blob = f.sealed(&f.acme, 20, SealOptions::new()).await;
    f.acme.set(Some("P24M".parse().unwrap()), None).await.unwrap();
    let id = f.acme.id();
    let newest = layout::ring(id, 2);
    let kept = read(&f.raw.keys, &newest).await;

    for gone in [vec![2], vec![2, 1]] {
        for version in gone {
            f.raw.keys.delete(&layout::ring(id, version)).await.unwrap();
        }
        let room = f.reopen().await.unwrap();
        let from = room.log().head().next();
        let error = room.customer(&"acme".parse().unwrap(), access()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
        assert_recorded(&room, from, id).await;

        // A node whose cache has it goes on for its term, and no longer.
        assert!(read_all(&f.acme, blob.id).await.1.is_ok());
    }
    let from = f.room.log().head().next();
    f.clock.pass(Duration::from_secs(301));
    for error in [
        read_all(&f.acme, blob.id).await.1.unwrap_err(),
        f.acme.stat(blob.id).await.unwrap_err(),
        f.acme.seal(pattern(1), SealOptions::new()).await.unwrap_err(),
        f.acme.find(&"x".parse().unwrap()).await.unwrap_err(),
        f.acme.info().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
    }
    assert_recorded(&f.room, from, id).await;

    // The old version under the number of the new one, and of the one after.
    write(&f.raw.keys, &newest, kept.clone()).await;
    assert!(f.acme.info().await.is_ok());
    write(&f.raw.keys, &layout::ring(id, 3), kept.clone()).await;
    refused_by_all(&f, id, "version 2 as 3").await;
    f.raw.keys.delete(&layout::ring(id, 3)).await.unwrap();
}

/// Fails unless the log has a refusal for this customer, of this kind.
async fn assert_recorded(room: &Strongroom, from: u64, customer: CustomerId) {
    let records = records_since(room, from).await;
    let refused = operations(&records).into_iter().any(|(intent, outcome)| {
        intent.customer == Some(customer)
            && outcome.is_some_and(|outcome| outcome.result == OutcomeResult::IntegrityFailed)
    });
    assert!(refused, "the log does not have it: {records:#?}");
}

/// Fails unless a node that knows the customer and one that does not refuse it.
async fn refused_by_all(f: &Fixture, id: CustomerId, what: &str) {
    let label = "acme".parse().unwrap();
    f.clock.pass(Duration::from_secs(301));
    let error = f.acme.info().await.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {error:?}");
    let room = f.reopen().await.unwrap();
    let from = room.log().head().next();
    let error = room.customer(&label, access()).await.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::Integrity, "{what}: {error:?}");
    assert_recorded(&room, from, id).await;
}

#[tokio::test]
async fn a_ring_in_another_place_is_refused() {
    let f = fixture().await;
    let globex = f.customer("globex").await;
    let other = fixture().await;
    let id = f.acme.id();
    let own = read(&f.raw.keys, &layout::ring(id, 1)).await;
    let sources = [
        ("another customer's", read(&f.raw.keys, &layout::ring(globex.id(), 1)).await),
        ("another store's", read(&other.raw.keys, &layout::ring(other.acme.id(), 1)).await),
        ("its own old", own.clone()),
        ("no", b"ring".to_vec()),
        ("an empty", Vec::new()),
    ];
    for (what, bytes) in &sources {
        if *bytes != own {
            write(&f.raw.keys, &layout::ring(id, 1), bytes.clone()).await;
            refused_by_all(&f, id, &format!("{what} ring in place of its own")).await;
            write(&f.raw.keys, &layout::ring(id, 1), own.clone()).await;
        }
        write(&f.raw.keys, &layout::ring(id, 2), bytes.clone()).await;
        refused_by_all(&f, id, &format!("{what} ring as the next version")).await;
        // With the prefix that it should have.
        if bytes.len() > 52 {
            let mut prefixed = [&own[..42], &2u64.to_be_bytes(), &bytes[50..]].concat();
            write(&f.raw.keys, &layout::ring(id, 2), prefixed.clone()).await;
            refused_by_all(&f, id, &format!("{what} ring as the next version, renamed")).await;
            // The epoch of another number.
            prefixed[53] = 2;
            write(&f.raw.keys, &layout::ring(id, 2), prefixed).await;
            let room = f.reopen().await.unwrap();
            assert!(room.customer(&"acme".parse().unwrap(), access()).await.is_err());
        }
        f.raw.keys.delete(&layout::ring(id, 2)).await.unwrap();
        f.clock.pass(Duration::from_secs(301));
        assert!(f.acme.info().await.is_ok());
    }
    // One customer's refusal is no other's.
    write(&f.raw.keys, &layout::ring(id, 1), b"ring".to_vec()).await;
    f.clock.pass(Duration::from_secs(301));
    assert!(globex.info().await.is_ok());
}

/// What a fresh node says to a store as it stands.
async fn first_use(f: &Fixture) -> Result<(), Error> {
    let room = f.reopen().await?;
    room.register(&access()).await?;
    let acme = room.customer(&"acme".parse().unwrap(), access()).await?;
    acme.find(&"scans/knee".parse().unwrap()).await?;
    acme.seal(pattern(10), SealOptions::new()).await?;
    Ok(())
}

#[tokio::test]
async fn every_changed_byte_of_the_keys_storage_is_refused() {
    let mut f = fixture().await;
    f.sealed(&f.acme, 20, small(Suite::Aes256Gcm)).await;
    let intact = f.raw.clone();
    let mut seen = BTreeSet::new();
    // With the log's pins, and as far as the seals alone carry.
    for pinned in [true, false] {
        for (path, bytes) in objects(&intact.keys).await {
            // What a storage was tried with says nothing.
            if path.as_ref().starts_with("probe/") {
                continue;
            }
            let (first, step) = if path.as_ref().starts_with("ring/") { (120, 37) } else { (bytes.len(), 1) };
            for byte in (0..bytes.len()).filter(|byte| *byte < first || byte % step == 0) {
                f.raw = intact.fork();
                if !pinned {
                    for owner in [f.acme.id(), CustomerId::from_bytes(*f.room.store_id().as_bytes())] {
                        let pin = Path::from(format!("pin/{owner}/{:016x}", 1));
                        f.raw.audit.delete(&pin).await.unwrap();
                    }
                }
                write(&f.raw.keys, &path, flipped(&bytes, byte * 8 + byte % 8)).await;
                let what = format!("{path}, byte {byte}, pinned: {pinned}");
                let error = first_use(&f).await.expect_err(&what);
                seen.insert((path.as_ref().split('/').next().unwrap().to_owned(), error.kind().as_str()));
                assert!(!error.kind().is_retryable(), "{what}: {error:?}");
            }
        }
    }
    // Of the epoch record, the provider of its KMS key is all that can say so,
    // and of the marker, that its id is not that of the other storages.
    let expected = [
        ("epoch", "configuration"),
        ("epoch", "integrity"),
        ("label", "integrity"),
        ("register", "integrity"),
        ("ring", "integrity"),
        ("store", "configuration"),
        ("store", "integrity"),
    ];
    assert_eq!(seen, expected.map(|(object, kind)| (object.to_owned(), kind)).into());
    f.raw = intact;
    first_use(&f).await.unwrap();
}

#[tokio::test]
async fn labels_and_markers_of_others_are_refused() {
    let f = fixture().await;
    let globex = f.customer("globex").await;
    let labels: Vec<_> = objects(&f.raw.keys).await;
    let labels: Vec<_> = labels.into_iter().filter(|(path, _)| path.as_ref().starts_with("label/")).collect();
    let [(one, content_one), (two, content_two)] = &labels[..] else { panic!("two labels") };
    write(&f.raw.keys, one, content_two.clone()).await;
    write(&f.raw.keys, two, content_one.clone()).await;
    for label in ["acme", "globex"] {
        let error = f.room.customer(&label.parse().unwrap(), access()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
    }
    for content in ["", "\n", "x\n", &format!("{}", globex.id()), &format!("{}\n\n", globex.id()), "\u{0}\n"]
    {
        write(&f.raw.keys, one, content).await;
        for room in [&f.room, &f.reopen().await.unwrap()] {
            for label in ["acme", "globex"] {
                let error = room.customer(&label.parse().unwrap(), access()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
            }
            assert_eq!(room.customers(&access()).await.unwrap_err().kind(), ErrorKind::Integrity);
        }
    }
    // A label that leads to nobody.
    write(&f.raw.keys, one, format!("{}\n", CustomerId::from_bytes([7; 16]))).await;
    write(&f.raw.keys, two, format!("{}\n", CustomerId::from_bytes([7; 16]))).await;
    let error = f.room.customer(&"acme".parse().unwrap(), access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{error:?}");
    assert_eq!(f.room.customers(&access()).await.unwrap_err().kind(), ErrorKind::Integrity);

    // The marker of another store, on each storage.
    let other = fixture().await;
    let marker = read(&other.raw.keys, &layout::store()).await;
    let own = read(&f.raw.keys, &layout::store()).await;
    for (name, storage) in f.raw.all() {
        write(storage, &layout::store(), marker.clone()).await;
        assert!(f.reopen().await.is_err(), "{name}");
        storage.delete(&layout::store()).await.unwrap();
        assert!(f.reopen().await.is_err(), "{name}");
        write(storage, &layout::store(), own.clone()).await;
        assert!(f.reopen().await.is_ok(), "{name}");
    }
}

fn named(name: &str) -> SealOptions {
    SealOptions::new().metadata(Metadata::new().with_name(name.parse().unwrap()))
}

async fn markers(raw: &Raw, customer: CustomerId) -> Vec<Path> {
    let all = objects(&raw.blobs).await.into_iter().map(|(path, _)| path);
    all.filter(|path| path.as_ref().starts_with(&format!("name/{customer}/"))).collect()
}

/// An id that nobody sealed and a day that no calendar has leave the log and the
/// ring as readable as before.
#[tokio::test]
async fn days_beyond_the_calendar_harm_nothing() {
    let f = fixture().await;
    for number in [Day::MAX.number() + 1, 0xFF_FFFF] {
        let mut id = [7; 16];
        id[..3].copy_from_slice(&number.to_be_bytes()[1..]);
        let id = BlobId::from_bytes(id);
        assert_eq!(f.acme.open(id).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(f.acme.stat(id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    for number in [Day::MAX.number() + 1, 0xFF_FFFF, 1 << 24, u32::MAX] {
        let options = SealOptions::new().retain_until(Day::from_number(number));
        let error = f.acme.seal(pattern(1), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    }
    assert_eq!(f.acme.info().await.unwrap().ring_version, 1);
    // The last of all is for a privacy officer.
    let last = f.acme.seal(pattern(1), SealOptions::new().retain_until(Day::MAX)).await.unwrap_err();
    assert_eq!(last.kind(), ErrorKind::Denied);
    let last = f.acme.seal(pattern(1), SealOptions::new()).await.unwrap();
    assert_eq!(f.acme.extend(last.id, Day::MAX).await.unwrap().retain_until, Day::MAX);
    f.room.close().await.unwrap();
    let room = f.reopen().await.unwrap();
    assert!(!records_since(&room, 0).await.is_empty());
    let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
    assert_eq!(read_all(&acme, last.id).await.0, pattern(1));
}

#[tokio::test]
async fn a_name_marker_in_another_place_gives_no_wrong_blob() {
    let f = fixture().await;
    let globex = f.customer("globex").await;
    let (name, other_name) = ("db/nightly".parse().unwrap(), "other".parse().unwrap());
    let blob = f.sealed(&f.acme, 10, named("db/nightly")).await;
    let [marker] = &markers(&f.raw, f.acme.id()).await[..] else { panic!("one marker") };
    let (folder, entry) = marker.as_ref().rsplit_once('/').unwrap();
    let other = f.sealed(&f.acme, 20, named("other")).await;
    let all = markers(&f.raw, f.acme.id()).await;
    let other_marker = all.iter().find(|path| *path != marker).unwrap();
    let (other_folder, other_entry) = other_marker.as_ref().rsplit_once('/').unwrap();

    // Moved to another tag, with a time before and behind what stands there.
    for inverse in ["0000000000000000", "fff9000000000000", &other_entry[..16], "ffffffffffffffff"] {
        let moved = Path::from(format!("{other_folder}/{inverse}{}", &entry[16..]));
        write(&f.raw.blobs, &moved, "").await;
        let from = f.room.log().head().next();
        let found = f.acme.newest(&other_name).await;
        match found {
            Ok(info) => assert_eq!(info.id, other.id, "{inverse}"),
            Err(error) => {
                assert_opaque(&error, "a moved marker");
                let records = records_since(&f.room, from).await;
                let recorded = operations(&records).into_iter().any(|(intent, outcome)| {
                    intent.blob == Some(blob.id)
                        && outcome.is_some_and(|o| o.result == OutcomeResult::AuthenticationFailed)
                });
                assert!(recorded, "{records:#?}");
            }
        }
        f.raw.blobs.delete(&moved).await.unwrap();
    }

    // A marker for a blob that does not exist is passed over.
    let nobody = BlobId::new(blob.id.day(), [7; 13]).unwrap();
    for id in [nobody, BlobId::from_bytes([0xFF; 16])] {
        write(&f.raw.blobs, &Path::from(format!("{folder}/0010000000000000-{id}")), "").await;
    }
    assert_eq!(f.acme.newest(&name).await.unwrap().id, blob.id);

    // Another customer's blob or folder.
    let theirs = f.sealed(&globex, 30, named("db/nightly")).await;
    write(&f.raw.blobs, &Path::from(format!("{folder}/0010000000000000-{}", theirs.id)), "").await;
    assert_eq!(f.acme.newest(&name).await.unwrap().id, blob.id);
    let theirs_marker = markers(&f.raw, globex.id()).await[0].clone();
    let (their_folder, _) = theirs_marker.as_ref().rsplit_once('/').unwrap();
    write(&f.raw.blobs, &Path::from(format!("{their_folder}/0010000000000000-{}", blob.id)), "").await;
    assert_eq!(globex.newest(&name).await.unwrap().id, theirs.id);

    // Something in a marker changes nothing; a marker that is gone is no error.
    write(&f.raw.blobs, marker, "text").await;
    assert_eq!(f.acme.newest(&name).await.unwrap().id, blob.id);
    for path in markers(&f.raw, f.acme.id()).await {
        f.raw.blobs.delete(&path).await.unwrap();
    }
    assert_eq!(f.acme.newest(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(f.acme.open(blob.id).await.unwrap().bytes(100).await.unwrap(), pattern(10));
}

#[tokio::test]
async fn foreign_objects_are_passed_over() {
    let f = fixture().await;
    let blob = f.sealed(&f.acme, 10, named("db/nightly")).await;
    let [marker] = &markers(&f.raw, f.acme.id()).await[..] else { panic!("one marker") };
    let (tag_folder, entry) = marker.as_ref().rsplit_once('/').unwrap();
    let (id, day) = (f.acme.id(), blob.id.day());
    let name = "db/nightly".parse().unwrap();
    for path in [
        "junk".to_owned(),
        ".DS_Store".to_owned(),
        "blob/junk".to_owned(),
        format!("blob/{id}/junk"),
        format!("blob/{id}/{day}/junk"),
        format!("blob/{id}/{day}/{}.bak", blob.id),
        format!("blob/{id}/{}/{}", day.plus(1), blob.id),
        format!("blob/{id}/{day}/{}/{}", blob.id, blob.id),
        format!("blob/{id}/x{day}/{}", blob.id),
        format!("blob/{id}/{day}/{}", blob.id.to_string().to_uppercase()),
        "name/junk".to_owned(),
        format!("name/{id}/junk"),
        format!("{tag_folder}/junk"),
        format!("{tag_folder}/{entry}x"),
        format!("{tag_folder}/{}", entry.to_uppercase()),
        format!("{tag_folder}/{entry}/{entry}"),
        format!("{tag_folder}x/{entry}"),
    ] {
        write(&f.raw.blobs, &Path::from(path), "junk").await;
    }
    for path in [
        "junk".to_owned(),
        "ring/junk".to_owned(),
        format!("ring/{id}/junk"),
        format!("ring/{id}/2"),
        format!("ring/{id}/00000000000000FF"),
        format!("ring/{id}/00000000000000ff.bak"),
        format!("ring/{id}/00000000000000ff/x"),
        format!("ring/{id}x/00000000000000ff"),
        "epoch/junk".to_owned(),
        "epoch/2".to_owned(),
        "epoch/000000FF".to_owned(),
        "epoch/000000ff.bak".to_owned(),
        "label/junk".to_owned(),
        "label/00000000/x".to_owned(),
    ] {
        write(&f.raw.keys, &Path::from(path), "junk").await;
    }
    for path in
        ["junk", "wal/junk", "wal/0000/junk", "wal/0001/0000000000000000", "pin/junk", "pin/junk/junk"]
    {
        write(&f.raw.audit, &Path::from(path), "junk").await;
    }
    let room = f.reopen().await.unwrap();
    let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
    for customer in [&f.acme, &acme] {
        let listed: Vec<_> = customer.list().try_collect().await.unwrap();
        assert_eq!(listed.iter().map(|blob| blob.id).collect::<Vec<_>>(), [blob.id]);
        assert_eq!(customer.find(&name).await.unwrap(), [blob.id]);
        assert_eq!(customer.newest(&name).await.unwrap().id, blob.id);
    }
    let labels: Vec<_> = room.customers(&access()).await.unwrap();
    assert_eq!(labels.iter().map(|info| info.id).collect::<Vec<_>>(), [id]);
    let sealed = acme.seal(pattern(5), named("db/nightly")).await.unwrap();
    assert_eq!(acme.find(&name).await.unwrap().len(), 2);
    assert_eq!(acme.open(sealed.id).await.unwrap().bytes(10).await.unwrap(), pattern(5));
    room.close().await.unwrap();
    assert!(!records_since(&room, 0).await.is_empty());
}
