//! The façade end to end, on storages in memory.

mod common;

use std::time::Duration;

use common::{fixture, operations, pattern, records_since};
use futures_util::TryStreamExt;
use strongroom::ErrorKind;
use strongroom::audit::OutcomeResult;
use strongroom::envelope::Metadata;
use strongroom::room::{ByteRange, SealOptions};
use strongroom::suite::Suite;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_opens() {
    let f = fixture().await;
    for suite in Suite::ALL {
        for length in [0, 1, 16383, 16384, 16385, 1 << 20, (1 << 20) + 1, 9_000_001] {
            let plaintext = pattern(length);
            let sealed = f.acme.seal(plaintext.clone(), SealOptions::new().suite(suite)).await.unwrap();
            assert_eq!(sealed.bytes, length as u64);
            let opened = f.acme.open(sealed.id).await.unwrap();
            assert_eq!(opened.info().suite, suite);
            assert_eq!(opened.bytes(1 << 30).await.unwrap(), plaintext, "{length}");
            assert_eq!(f.acme.verify(sealed.id).await.unwrap().bytes, length as u64);
            assert_eq!(f.acme.stat(sealed.id).await.unwrap().bytes, length as u64);
        }
    }
    let listed: Vec<_> = f.acme.list().try_collect().await.unwrap();
    assert_eq!(listed.len(), 16);
    f.room.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_those_of_the_plaintext() {
    let f = fixture().await;
    let plaintext = pattern(3_000_000);
    let sealed = f.acme.seal(plaintext.clone(), SealOptions::new()).await.unwrap();
    for (range, expected) in [
        (ByteRange::Inclusive(0, 0), 0..1),
        (ByteRange::Inclusive(16383, 16384), 16383..16385),
        (ByteRange::Inclusive(1_000_000, 2_500_000), 1_000_000..2_500_001),
        (ByteRange::Inclusive(2_999_999, u64::MAX), 2_999_999..3_000_000),
        (ByteRange::From(2_999_000), 2_999_000..3_000_000),
        (ByteRange::Last(5), 2_999_995..3_000_000),
        (ByteRange::Last(u64::MAX), 0..3_000_000),
    ] {
        let opened = f.acme.open_range(sealed.id, range).await.unwrap();
        assert_eq!(opened.range(), expected.start as u64..expected.end as u64);
        assert_eq!(opened.bytes(1 << 30).await.unwrap(), plaintext.slice(expected), "{range:?}");
    }
    let behind = f.acme.open_range(sealed.id, ByteRange::From(3_000_000)).await.unwrap_err();
    assert_eq!(behind.kind(), ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_leads_to_its_newest_blob() {
    let f = fixture().await;
    let named = |name: &str| SealOptions::new().metadata(Metadata::new().with_name(name.parse().unwrap()));
    let first = f.acme.seal(pattern(10), named("db/nightly")).await.unwrap();
    f.clock.pass(Duration::from_micros(1));
    let second = f.acme.seal(pattern(20), named("db/nightly")).await.unwrap();
    f.acme.seal(pattern(30), named("other")).await.unwrap();
    let name = "db/nightly".parse().unwrap();
    assert_eq!(f.acme.find(&name).await.unwrap(), [second.id, first.id]);
    assert_eq!(f.acme.newest(&name).await.unwrap().id, second.id);
    let missing = f.acme.newest(&"missing".parse().unwrap()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_change_at_once_are_both_kept() {
    let f = fixture().await;
    let (one, other) = (f.acme.clone(), f.acme.clone());
    let (period, suite) = tokio::join!(
        one.set(Some("P6Y".parse().unwrap()), None),
        other.set(None, Some(Suite::ChaCha20Poly1305))
    );
    period.unwrap();
    suite.unwrap();
    let info = f.acme.info().await.unwrap();
    assert_eq!((info.period.to_string().as_str(), info.suite), ("P72M", Suite::ChaCha20Poly1305));
    assert_eq!(f.acme.set(Some("P1Y".parse().unwrap()), None).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(f.acme.set(None, None).await.unwrap(), info);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_counts_need_not_ask_after_the_last_byte() {
    let f = fixture().await;
    let length = 9_000_000;
    let sealed = f.acme.seal(pattern(length), SealOptions::new()).await.unwrap();
    let empty = f.acme.seal(Vec::new(), SealOptions::new()).await.unwrap();
    let recorded = async |blob, counted, wanted: usize| {
        let from = f.room.log().head().next();
        let opened = f.acme.open(blob).await.unwrap();
        let mut stream = if counted { opened.into_counted_stream() } else { opened.into_stream() };
        let mut taken = 0;
        while taken < wanted {
            taken += stream.try_next().await.unwrap().unwrap().len();
        }
        drop(stream);
        let records = records_since(&f.room, from).await;
        let outcome = operations(&records)[0].1.unwrap();
        (outcome.result, outcome.bytes.unwrap(), taken as u64)
    };
    assert_eq!(recorded(sealed.id, true, length).await, (OutcomeResult::Ok, 9_000_000, 9_000_000));
    // Whoever does not say that it counts may have failed with what it has.
    assert_eq!(recorded(sealed.id, false, length).await, (OutcomeResult::Aborted, 9_000_000, 9_000_000));
    // One that goes away is recorded with what it has.
    let (result, bytes, taken) = recorded(sealed.id, true, 1).await;
    assert!(result == OutcomeResult::Aborted && bytes == taken && taken < 9_000_000, "{bytes} {taken}");
    assert_eq!(recorded(empty.id, true, 0).await, (OutcomeResult::Aborted, 0, 0));
    f.room.close().await.unwrap();
}
