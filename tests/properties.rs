//! The façade against models that are too simple to be wrong.

mod common;

use std::collections::BTreeMap;
use std::io::Cursor;

use bytes::Bytes;
use common::{Fixture, fixture};
use futures_util::{TryStreamExt, stream};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use strongroom::ErrorKind;
use strongroom::envelope::Metadata;
use strongroom::retention::Period;
use strongroom::room::{ByteRange, SealOptions, Source};
use strongroom::suite::Suite;
use strongroom::time::{Day, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

/// Runs a property on one runtime and one store, with the same cases each time.
fn check<S: Strategy>(
    cases: u32,
    strategy: &S,
    property: impl AsyncFn(&Fixture, S::Value) -> Result<(), TestCaseError>,
) where
    S::Value: std::fmt::Debug,
{
    let runtime = Runtime::new().unwrap();
    let f = runtime.block_on(fixture());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let checked = runner.run(strategy, |value| runtime.block_on(property(&f, value)));
    if let Err(error) = checked {
        panic!("{error}");
    }
}

fn suites() -> impl Strategy<Value = Suite> {
    proptest::sample::select(Suite::ALL.to_vec())
}

/// Lengths of all sizes, most often near the ends of chunks.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..200_000usize,
        (0..12usize, 0..5usize).prop_map(|(chunks, off)| (chunks * 16_384 + off).saturating_sub(2)),
    ]
}

/// Bytes that depend on position and seed.
fn text(length: usize, seed: u64) -> Bytes {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// How the plaintext is given.
#[derive(Clone, Debug)]
enum Given {
    Bytes,
    Pieces(Vec<usize>),
    Reader,
    Blocking,
}

impl Given {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            Just(Self::Bytes),
            prop::collection::vec(0..40_000usize, 1..20).prop_map(Self::Pieces),
            Just(Self::Reader),
            Just(Self::Blocking),
        ]
    }

    fn source(self, text: &Bytes) -> Source {
        match self {
            Self::Bytes => text.clone().into(),
            Self::Reader => Source::reader(Cursor::new(text.clone())),
            Self::Blocking => Source::blocking(Cursor::new(text.clone())),
            Self::Pieces(lengths) => {
                let mut rest = text.clone();
                let mut pieces: Vec<_> =
                    lengths.into_iter().map(|length| Ok(rest.split_to(length.min(rest.len())))).collect();
                pieces.push(Ok(rest));
                Source::stream(stream::iter(pieces))
            }
        }
    }
}

#[test]
fn what_is_sealed_opens_however_it_is_given_and_taken() {
    let strategy = (lengths(), any::<u64>(), suites(), Given::any());
    check(60, &strategy, async |f, (length, seed, suite, given)| {
        let text = text(length, seed);
        let sealed = f.acme.seal(given.source(&text), SealOptions::new().suite(suite)).await.unwrap();
        prop_assert_eq!(sealed.bytes, length as u64);
        let opened = f.acme.open(sealed.id).await.unwrap();
        prop_assert_eq!(opened.info().bytes, length as u64);
        prop_assert_eq!(opened.info().stored_bytes, sealed.stored_bytes);
        prop_assert_eq!(opened.info().suite, suite);
        let pieces: Vec<Bytes> = opened.into_stream().try_collect().await.unwrap();
        prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
        prop_assert!(pieces.concat() == text);
        let mut read = Vec::new();
        f.acme.open(sealed.id).await.unwrap().into_reader().read_to_end(&mut read).await.unwrap();
        prop_assert!(read == text);
        let info = f.acme.stat(sealed.id).await.unwrap();
        prop_assert_eq!(f.acme.verify(sealed.id).await.unwrap(), info);
        Ok(())
    });
}

/// What HTTP would give of a text for a range, if it is satisfiable.
fn model(range: ByteRange, length: u64) -> Option<std::ops::Range<usize>> {
    let positions: Vec<u64> = match range {
        ByteRange::Inclusive(first, last) => (0..length).filter(|at| (first..=last).contains(at)).collect(),
        ByteRange::From(first) => (0..length).filter(|at| *at >= first).collect(),
        ByteRange::Last(count) => (0..length).filter(|at| length - at <= count).collect(),
    };
    let (first, last) = (*positions.first()?, *positions.last()?);
    Some(usize::try_from(first).unwrap()..usize::try_from(last).unwrap() + 1)
}

fn ranges() -> impl Strategy<Value = Vec<ByteRange>> {
    let position =
        || prop_oneof![4 => 0..200_010u64, 1 => (0..12u64).prop_map(|n| n * 16_384), 1 => Just(u64::MAX)];
    let range = prop_oneof![
        (position(), position()).prop_map(|(first, last)| ByteRange::Inclusive(first, last)),
        (position(), 0..40u64)
            .prop_map(|(first, more)| ByteRange::Inclusive(first, first.saturating_add(more))),
        position().prop_map(ByteRange::From),
        position().prop_map(ByteRange::Last),
    ];
    prop::collection::vec(range, 8)
}

#[test]
fn a_range_is_that_slice_of_the_text() {
    check(40, &(lengths(), any::<u64>(), suites(), ranges()), async |f, (length, seed, suite, ranges)| {
        let text = text(length, seed);
        let sealed = f.acme.seal(text.clone(), SealOptions::new().suite(suite)).await.unwrap();
        for range in ranges {
            match (f.acme.open_range(sealed.id, range).await, model(range, length as u64)) {
                (Ok(opened), Some(slice)) => {
                    prop_assert_eq!(opened.range(), slice.start as u64..slice.end as u64);
                    let bytes = opened.bytes(200_000).await.unwrap();
                    prop_assert!(bytes == text.slice(slice), "{:?} of {}", range, length);
                }
                (Err(error), None) => prop_assert_eq!(error.kind(), ErrorKind::InvalidInput),
                (opened, model) => prop_assert!(false, "{range:?} of {length}: {opened:?}, but {model:?}"),
            }
        }
        Ok(())
    });
}

/// Plain calendar arithmetic, without the library that the code uses.
fn calendar(from: Day, months: u32, days: u32) -> Day {
    let (year, month, day) = date(from);
    let total = (month - 1) + months;
    let (year, month) = (year + total / 12, total % 12 + 1);
    let day = day.min(days_of(year, month));
    number(year, month, day).map_or(Day::MAX, |number| Day::from_number(number + days).min(Day::MAX))
}

fn is_leap(year: u32) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of(year: u32, month: u32) -> u32 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn date(day: Day) -> (u32, u32, u32) {
    let (mut left, mut year, mut month) = (day.number(), 1970, 1);
    while left >= if is_leap(year) { 366 } else { 365 } {
        left -= if is_leap(year) { 366 } else { 365 };
        year += 1;
    }
    while left >= days_of(year, month) {
        left -= days_of(year, month);
        month += 1;
    }
    (year, month, left + 1)
}

fn number(year: u32, month: u32, day: u32) -> Option<u32> {
    (year <= 9999).then(|| {
        let years: u32 = (1970..year).map(|year| if is_leap(year) { 366 } else { 365 }).sum();
        years + (1..month).map(|month| days_of(year, month)).sum::<u32>() + day - 1
    })
}

fn period(months: u32, days: u32) -> Option<Period> {
    format!("P{months}M{days}D").parse().ok()
}

fn moments() -> impl Strategy<Value = Timestamp> {
    // To 2200, and a second before midnight as often as not.
    (0..84_000u64, prop_oneof![Just(86_399_999_999u64), 0..86_400_000_000u64])
        .prop_map(|(day, micros)| Timestamp::from_micros(day * 86_400_000_000 + micros).unwrap())
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn periods_are_calendar_arithmetic(at in moments(), months in 0..12_000u32, days in 0..4_000u32) {
        prop_assume!(months + days > 0);
        let until = period(months, days).unwrap().retain_until(at);
        prop_assert_eq!(until, calendar(at.day(), months, days));
    }

    /// What may replace a period without asking anyone ends no sooner, whenever
    /// it begins.
    #[test]
    fn a_period_that_never_exceeds_does_not(
        at in moments(),
        (months, days) in (0..40u32, 0..130u32),
        (other_months, other_days) in (0..40u32, 0..130u32),
    ) {
        prop_assume!(months + days > 0 && other_months + other_days > 0);
        let (one, other) = (period(months, days).unwrap(), period(other_months, other_days).unwrap());
        if one.never_exceeds(other) {
            prop_assert!(one.retain_until(at) <= other.retain_until(at), "{one} {other} {at}");
        }
    }
}

#[test]
fn a_blob_is_kept_as_long_as_was_promised_or_longer() {
    let strategy = (moments(), 1..60u32, 0..40u32, prop::option::of(0..4_000u32));
    let (round, latest) = (std::cell::Cell::new(0), std::cell::Cell::new(Timestamp::from_micros(0).unwrap()));
    check(60, &strategy, async |f, (at, months, days, asked)| {
        f.clock.set(at);
        let storages = f.raw.storages().with_clock(f.clock.clone());
        let room = strongroom::room::Strongroom::open(storages, f.kms.clone(), common::options(&f.clock));
        let room = room.await.unwrap();
        // A clock that is a little behind the log shortens nothing. One that is far behind it is right
        // all the same, where a second one agrees.
        let hour = std::time::Duration::from_secs(3600);
        let log = latest.get();
        let now = if log <= at.saturating_add(hour) { log.max(at) } else { at };
        latest.set(log.max(at));
        // Periods are lengthened only, so each case has a customer of its own.
        round.set(round.get() + 1);
        let label = format!("round-{}", round.get());
        let mut new = strongroom::room::NewCustomer::new(
            label.parse().unwrap(),
            strongroom::room::KeyChoice::New("local".into()),
        );
        new.period = period(months, days).unwrap();
        room.add_customer(&common::access(), new).await.unwrap();
        let customer = room.customer(&label.parse().unwrap(), common::access()).await.unwrap();
        let promised = calendar(now.day(), months, days);
        let asked = asked.map(|days| now.day().plus(days));
        let mut options = SealOptions::new();
        if let Some(day) = asked {
            options = options.retain_until(day);
        }
        let sealed = customer.seal(Bytes::from_static(b"x"), options).await.unwrap();
        prop_assert_eq!(sealed.retain_until, asked.unwrap_or(promised).max(promised));
        prop_assert_eq!(sealed.id.day(), sealed.retain_until);
        let info = customer.stat(sealed.id).await.unwrap();
        prop_assert_eq!((info.retain_until, info.sealed_at), (sealed.retain_until, at));
        Ok(())
    });
}

#[test]
fn a_name_finds_its_blobs_newest_first() {
    let uses = prop::collection::vec((0..5usize, 0..1_000_000u64, any::<bool>()), 1..14);
    let round = std::cell::Cell::new(0);
    check(20, &uses, async |f, uses| {
        round.set(round.get() + 1);
        let customer = f.customer(&format!("round-{}", round.get())).await;
        let names = ["a", "A", "a/b", "ä", "a\u{308}"];
        let mut model: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        let base = 1_795_400_000_000_000;
        for (name, at, named) in uses {
            f.clock.set(Timestamp::from_micros(base + at).unwrap());
            let mut metadata = Metadata::new();
            if named {
                metadata = metadata.with_name(names[name].parse().unwrap());
            }
            let sealed = customer.seal(Bytes::new(), SealOptions::new().metadata(metadata)).await.unwrap();
            if named {
                model.entry(name).or_default().push(sealed.id);
            }
        }
        for (index, name) in names.iter().enumerate() {
            let name = name.parse().unwrap();
            let mut expected = model.remove(&index).unwrap_or_default();
            // Whatever the clock said: the one that was sealed last is the newest.
            expected.reverse();
            let found = customer.find(&name).await.unwrap();
            prop_assert_eq!(&found, &expected);
            let newest = customer.newest(&name).await.map(|info| info.id).ok();
            prop_assert_eq!(newest, expected.first().copied());
        }
        Ok(())
    });
}
