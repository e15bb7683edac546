use proptest::prelude::*;

use super::sealed::{EpochRecord, SealedRing};
use super::*;
use crate::codec::Decode;
use crate::envelope::{Binding, Dek, Metadata};
use crate::id::{BlobId, RequestId};

fn secret(byte: u8) -> Secret<KEY_LEN> {
    Secret::init(|out| out.fill(byte))
}

fn data_key(byte: u8) -> DataKey {
    DataKey::new(secret(byte))
}

fn day(number: u32) -> Day {
    Day::from_number(number)
}

fn kek_id(byte: u8) -> KekId {
    KekId::from_bytes([byte; 16])
}

const STORE: StoreId = StoreId::from_bytes([1; 16]);
const CUSTOMER: CustomerId = CustomerId::from_bytes([2; 16]);
const DATA_KEY: DataKeyId = DataKeyId::from_bytes([3; 16]);

fn entry(id: u8, kind: EntryKind) -> Entry {
    let kek = Kek::new(secret(id));
    Entry::seal((STORE, CUSTOMER), kek_id(id), kind, &kek, (DATA_KEY, &data_key(9)), [id; 24])
}

fn settings() -> Settings {
    Settings {
        label: "acme".parse().unwrap(),
        kms_key: "local:k1".parse().unwrap(),
        period: Period::DEFAULT,
        suite: Suite::Aes256Gcm,
        held: false,
    }
}

fn ring_data_key() -> RingDataKey {
    let wrapped = WrappedDataKey::new(vec![7; 40]);
    RingDataKey { id: DATA_KEY, kms_key: "local:k1".parse().unwrap(), wrapped }
}

fn ring() -> Ring {
    let entries = vec![
        entry(20, EntryKind::Day(day(100))),
        entry(21, EntryKind::Day(day(101))),
        entry(22, EntryKind::Name),
    ];
    Ring::first(STORE, CUSTOMER, 1, settings()).with_first_keys(vec![ring_data_key()], entries).unwrap()
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn only(id: u8) -> BTreeSet<KekId> {
    BTreeSet::from([kek_id(id)])
}

fn receipt() -> KeyUseReceipt {
    KeyUseReceipt::mint(RequestId::from_bytes([0; 16]))
}

#[test]
fn a_ring_reads_back_under_its_epoch_only() {
    let ring = ring().apply(Change::HoldDay(day(101), true)).unwrap();
    let ring = ring.apply(Change::Pend { keys: only(20), until: at(5) }).unwrap();
    let ring = ring.apply(Change::Drop { keys: only(20), now: at(5) }).unwrap();
    let stored = ring.seal(&data_key(1), [4; 24]);
    assert_eq!(SealedRing::parse(&stored).unwrap().open(&data_key(1)).unwrap(), ring);
    assert!(SealedRing::parse(&stored).unwrap().open(&data_key(2)).is_err());
}

#[test]
fn any_flipped_bit_or_cut_of_a_stored_ring_is_refused() {
    let stored = ring().seal(&data_key(1), [4; 24]);
    for bit in 0..stored.len() * 8 {
        let mut bad = stored.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            SealedRing::parse(&bad).ok().and_then(|ring| ring.open(&data_key(1)).ok()).is_none(),
            "bit {bit}"
        );
    }
    for cut in 0..stored.len() {
        assert!(
            SealedRing::parse(&stored[..cut]).ok().and_then(|ring| ring.open(&data_key(1)).ok()).is_none()
        );
    }
}

#[test]
fn an_epoch_record_opens_with_its_data_key_and_unaltered() {
    let record = EpochRecord::seal(
        (STORE, 1),
        at(9),
        "local:e1".parse().unwrap(),
        (&data_key(1), WrappedDataKey::new(vec![5; 60])),
        &DirectoryKey::new(secret(8)),
        [6; 24],
    );
    let bytes = record.to_bytes();
    assert_eq!(
        EpochRecord::from_bytes(&bytes).unwrap().open(&data_key(1)).unwrap().secret().expose(),
        &[8; 32]
    );
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(
            EpochRecord::from_bytes(&bad).ok().and_then(|record| record.open(&data_key(1)).ok()).is_none()
        );
    }
}

#[test]
fn a_key_opens_for_its_own_use_only() {
    let ring = ring();
    let binding = |number, kek| Binding {
        store: STORE,
        customer: CUSTOMER,
        blob: BlobId::new(day(number), [1; 13]).unwrap(),
        kek: kek_id(kek),
        suite: Suite::Aes256Gcm,
    };
    let open = |id| ring.open_key(receipt(), kek_id(id), &data_key(9)).unwrap();
    let seal = |key: OpenKey, binding| {
        key.seal_header(binding, at(0), [0; 24], &Dek::new(secret(1)), &Metadata::new())
    };
    let header = seal(open(20), binding(100, 20)).unwrap();
    assert!(open(20).open_header(&header).is_ok());
    assert_eq!(open(21).open_header(&header).err(), Some(UseError::Authentication));
    assert_eq!(seal(open(20), binding(101, 20)).err(), Some(UseError::WrongUse));
    assert_eq!(seal(open(22), binding(100, 22)).err(), Some(UseError::WrongUse));
    assert_eq!(open(20).name_tag(&"n".parse().unwrap()).err(), Some(UseError::WrongUse));
    assert!(open(22).name_tag(&"n".parse().unwrap()).is_ok());
    assert_eq!(ring.open_key(receipt(), kek_id(99), &data_key(9)).err(), Some(UseError::Unknown));
    assert_eq!(ring.open_key(receipt(), kek_id(20), &data_key(8)).err(), Some(UseError::Authentication));
}

#[test]
fn a_pending_key_opens_but_wraps_nothing_new() {
    let ring = ring().apply(Change::Pend { keys: only(20), until: at(5) }).unwrap();
    assert_eq!(ring.day_key(day(100)), None);
    assert_eq!(ring.missing_days([day(100), day(101)].into_iter()), [day(100)]);
    let back = ring.apply(Change::Cancel(only(20))).unwrap();
    assert!(back.day_key(day(100)).is_some());
}

#[test]
fn a_drop_waits_for_its_window_and_for_holds() {
    let ring = ring();
    let drop_at = |ring: &Ring, now| ring.apply(Change::Drop { keys: only(20), now: at(now) });
    assert_eq!(drop_at(&ring, 9), Err(RingRefusal::WindowOpen));
    let pending = ring.apply(Change::Pend { keys: only(20), until: at(5) }).unwrap();
    assert_eq!(drop_at(&pending, 4), Err(RingRefusal::WindowOpen));
    for hold in [Change::HoldCustomer(true), Change::HoldDay(day(100), true)] {
        assert_eq!(drop_at(&pending.apply(hold).unwrap(), 9), Err(RingRefusal::Held));
    }
    let gone = drop_at(&pending, 5).unwrap();
    assert_eq!(gone.open_key(receipt(), kek_id(20), &data_key(9)).err(), Some(UseError::Destroyed));
    assert_eq!(
        gone.apply(Change::Mint { data_keys: vec![], entries: vec![entry(20, EntryKind::Day(day(100)))] }),
        Err(RingRefusal::Returned)
    );
    let name_key = Change::Pend { keys: only(22), until: at(5) };
    assert_eq!(ring.apply(name_key), Err(RingRefusal::NotADayKey));
}

#[test]
fn settings_lengthen_and_leave_hold_and_label_alone() {
    let held = ring().apply(Change::HoldCustomer(true)).unwrap();
    let longer = Settings { period: "P6Y".parse().unwrap(), label: "other".parse().unwrap(), ..settings() };
    let next = held.apply(Change::Settings(longer)).unwrap();
    assert!(next.settings.held);
    assert_eq!(next.settings.label.as_str(), "acme");
    assert_eq!(next.settings.period.to_string(), "P72M");
    assert_eq!(next.apply(Change::Settings(settings())), Err(RingRefusal::Shortened));
}

#[test]
fn an_older_or_foreign_ring_is_no_successor() {
    let first = ring();
    let second = first.apply(Change::Reissue { epoch: 2 }).unwrap();
    assert_eq!(first.check_successor(&second), Ok(()));
    assert_eq!(second.check_successor(&first), Err(RingRefusal::NotNext));
    assert_eq!(second.apply(Change::Reissue { epoch: 1 }), Err(RingRefusal::EpochReturned));
    let foreign = Ring { customer: CustomerId::from_bytes([9; 16]), ..second.clone() };
    assert_eq!(first.check_successor(&foreign), Err(RingRefusal::NotNext));
    let lost = Ring { entries: vec![], ..second };
    assert_eq!(first.check_successor(&lost), Err(RingRefusal::Inconsistent));
}

fn change() -> impl Strategy<Value = Change> {
    let id = (0u8..12).prop_map(|id| BTreeSet::from([kek_id(id)]));
    let number = 100u32..104;
    prop_oneof![
        (0u8..12, number.clone()).prop_map(|(id, number)| Change::Mint {
            data_keys: vec![],
            entries: vec![entry(id, EntryKind::Day(day(number)))]
        }),
        any::<bool>().prop_map(Change::HoldCustomer),
        (number, any::<bool>()).prop_map(|(number, held)| Change::HoldDay(day(number), held)),
        (id.clone(), 0u64..9).prop_map(|(keys, until)| Change::Pend { keys, until: at(until) }),
        id.clone().prop_map(Change::Cancel),
        (id, 0u64..9).prop_map(|(keys, now)| Change::Drop { keys, now: at(now) }),
        (1u32..4).prop_map(|epoch| Change::Reissue { epoch }),
    ]
}

proptest! {
    /// Whatever is tried in whatever order: what is accepted is consistent,
    /// nothing held is dropped, and nothing dropped comes back.
    #[test]
    fn no_sequence_of_changes_breaks_the_ring(changes in prop::collection::vec(change(), 1..60)) {
        let mut history = vec![ring()];
        for change in changes {
            let last = history.last().unwrap();
            let Ok(next) = last.apply(change) else { continue };
            prop_assert_eq!(next.check(), Ok(()));
            prop_assert_eq!(next.version, last.version + 1);
            for gone in next.dropped.iter().filter(|gone| !last.was_dropped(gone.id)) {
                let was = last.entry(gone.id).unwrap();
                prop_assert!(!was.held && !last.settings.held, "a held key was dropped");
            }
            for earlier in &history {
                prop_assert_eq!(earlier.check_successor(&next), Ok(()));
                prop_assert!(earlier.dropped.iter().all(|gone| next.entry(gone.id).is_none()));
            }
            let stored = next.seal(&data_key(1), [4; 24]);
            prop_assert_eq!(&SealedRing::parse(&stored).unwrap().open(&data_key(1)).unwrap(), &next);
            history.push(next);
        }
    }

    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Ring::from_bytes(&bytes);
        let _ = EpochRecord::from_bytes(&bytes);
        let _ = SealedRing::parse(&bytes);
    }
}
