use std::sync::LazyLock;

use proptest::prelude::*;

use super::sealed::{EpochRecord, SealedRing};
use super::*;
use crate::codec::Decode;
use crate::envelope::{Binding, Dek, Metadata};
use crate::id::RequestId;
use crate::order::testing::{CUSTOMER, STORE, approved_as as approved};
use crate::order::{ApprovedOrder, OrderKind, ReturnTo};
use crate::retention::clock::trusted_at;
use crate::retention::permit::{ShredPermit, permit_expiry, permit_ordered};

mod delta;
mod growth;

fn offboard() -> OrderKind {
    OrderKind::Offboard { return_to: ReturnTo::Nothing }
}

fn expiry(at: Timestamp) -> ShredPermit {
    let yesterday = Day::from_number(at.day().number() - 1);
    permit_expiry(yesterday, &trusted_at(at)).unwrap()
}

fn ordered(order: &ApprovedOrder, at: Timestamp) -> ShredPermit {
    permit_ordered(order, &trusted_at(at)).unwrap()
}

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

const DATA_KEY: DataKeyId = DataKeyId::from_bytes([3; 16]);

fn entry(id: u8, kind: EntryKind) -> Entry {
    let kek = Kek::new(secret(id));
    Entry::seal((STORE, CUSTOMER), at(1), kek_id(id), kind, &kek, (DATA_KEY, &data_key(9)), [id; 24])
}

fn settings() -> Settings {
    Settings {
        label: "acme".parse().unwrap(),
        kms_key: "local:k1".parse().unwrap(),
        suite: Suite::Aes256Gcm,
        strict: false,
        phi: true,
        tenancy: Tenancy::Held,
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
    let policy = (at(0), Period::DEFAULT, Window::DEFAULT);
    Ring::first((STORE, CUSTOMER), 1, settings(), policy)
        .with_first_keys(vec![ring_data_key()], entries)
        .unwrap()
}

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

/// Noon of a day.
fn noon(number: u32) -> Timestamp {
    at((u64::from(number) * 24 + 12) * 3_600_000_000)
}

fn pend(id: u8, now: u32) -> Change {
    Change::Pend { keys: only(id), permit: expiry(noon(now)), withdraw: None }
}

fn drop_at(id: u8, now: u32) -> Change {
    Change::Drop { keys: only(id), time: trusted_at(noon(now)) }
}

fn hold(id: u8, scope: HoldScope) -> Hold {
    Hold { id: HoldId::from_bytes([id; 16]), scope, placed: at(0), state: HoldState::Complete }
}

fn place(id: u8, scope: HoldScope) -> Change {
    Change::PlaceHold { hold: hold(id, scope), key: None }
}

fn release(id: u8) -> Change {
    let hold = HoldId::from_bytes([id; 16]);
    Change::ReleaseHold { hold, order: approved(id, OrderKind::ReleaseHold { hold }), at: at(1) }
}

fn blob(number: u32, random: u8) -> BlobId {
    BlobId::new(day(number), [random; 13]).unwrap()
}

fn only(id: u8) -> BTreeSet<KekId> {
    BTreeSet::from([kek_id(id)])
}

fn receipt() -> KeyUseReceipt {
    KeyUseReceipt::mint(RequestId::from_bytes([0; 16]))
}

#[test]
fn a_ring_reads_back_under_its_epoch_only() {
    let ring = [
        place(1, HoldScope::Day(day(101))),
        Change::PlaceHold {
            hold: hold(2, HoldScope::Blob { blob: blob(100, 1), from: kek_id(20), key: kek_id(30) }),
            key: Some(entry(30, EntryKind::Hold)),
        },
        Change::CompleteHold(HoldId::from_bytes([2; 16])),
        release(1),
        pend(20, 101),
        drop_at(20, 108),
    ];
    let ring = ring_with(ring);
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
    assert!(open(20).open(&header).is_ok());
    assert_eq!(open(21).open(&header).err(), Some(UseError::Authentication));
    assert_eq!(seal(open(20), binding(101, 20)).err(), Some(UseError::WrongUse));
    assert_eq!(seal(open(22), binding(100, 22)).err(), Some(UseError::WrongUse));
    assert_eq!(open(20).name_tag(&"n".parse().unwrap()).err(), Some(UseError::WrongUse));
    assert!(open(22).name_tag(&"n".parse().unwrap()).is_ok());
    assert_eq!(ring.open_key(receipt(), kek_id(99), &data_key(9)).err(), Some(UseError::Unknown));
    assert_eq!(ring.open_key(receipt(), kek_id(20), &data_key(8)).err(), Some(UseError::Authentication));
}

fn ring_with(changes: impl IntoIterator<Item = Change>) -> Ring {
    changes.into_iter().fold(ring(), |ring, change| ring.apply(change).unwrap())
}

#[test]
fn a_pending_key_opens_but_wraps_nothing_new() {
    let ring = ring_with([pend(20, 101)]);
    assert_eq!(ring.day_key(day(100)), None);
    assert_eq!(ring.missing_days([day(100), day(101)].into_iter()), [day(100)]);
    assert!(ring.open_key(receipt(), kek_id(20), &data_key(9)).is_ok());
    let back = ring.apply(Change::Cancel(only(20))).unwrap();
    assert!(back.day_key(day(100)).is_some());
    assert_eq!(back.apply(Change::Cancel(only(20))), Err(RingRefusal::WindowOpen));
}

#[test]
fn nothing_is_pended_before_its_day_is_over_and_nothing_twice() {
    assert_eq!(ring().apply(pend(20, 100)), Err(RingRefusal::NotPermitted));
    assert_eq!(ring().apply(pend(22, 9999)), Err(RingRefusal::NotPermitted), "the name key");
    assert_eq!(ring_with([pend(20, 101)]).apply(pend(20, 102)), Err(RingRefusal::Pending));
    assert_eq!(ring().apply(pend(99, 101)), Err(RingRefusal::UnknownKey));
}

#[test]
fn a_drop_waits_for_its_window_and_for_holds() {
    assert_eq!(ring().apply(drop_at(20, 200)), Err(RingRefusal::WindowOpen));
    let pending = ring_with([pend(20, 101)]);
    assert_eq!(pending.apply(drop_at(20, 107)), Err(RingRefusal::WindowOpen));
    for scope in [HoldScope::Customer, HoldScope::Day(day(100))] {
        let held = pending.apply(place(1, scope)).unwrap();
        assert_eq!(held.apply(drop_at(20, 300)), Err(RingRefusal::Held));
        assert_eq!(held.apply(pend(20, 300)), Err(RingRefusal::Held));
        // Released, it gets a whole window again.
        let released = held.apply(release(1)).unwrap();
        assert_eq!(released.apply(drop_at(20, 300)), Err(RingRefusal::WindowOpen));
        let again = released.apply(pend(20, 300)).unwrap();
        assert_eq!(again.apply(drop_at(20, 306)), Err(RingRefusal::WindowOpen));
        assert!(again.apply(drop_at(20, 307)).is_ok());
    }
    let gone = pending.apply(drop_at(20, 108)).unwrap();
    assert_eq!(gone.open_key(receipt(), kek_id(20), &data_key(9)).err(), Some(UseError::Destroyed));
    assert_eq!(
        gone.apply(Change::Mint { data_keys: vec![], entries: vec![entry(20, EntryKind::Day(day(100)))] }),
        Err(RingRefusal::Returned)
    );
    let dropped = gone.dropped(kek_id(20)).unwrap();
    assert_eq!((dropped.version, dropped.born, dropped.last), (3, 1, 1));
}

#[test]
fn a_hold_on_one_blob_outlives_its_day() {
    let scope = HoldScope::Blob { blob: blob(100, 1), from: kek_id(20), key: kek_id(30) };
    let key = || Some(entry(30, EntryKind::Hold));
    let opening = ring_with([pend(20, 101), Change::PlaceHold { hold: hold(1, scope), key: key() }]);
    // The day goes on to its end, but not before the blob is safe.
    assert_eq!(opening.apply(drop_at(20, 200)), Err(RingRefusal::Held));
    assert_eq!(opening.due(noon(200)).opening.len(), 1);
    let complete = opening.apply(Change::CompleteHold(HoldId::from_bytes([1; 16]))).unwrap();
    let survived = complete.apply(drop_at(20, 200)).unwrap();
    assert_eq!(survived.due(noon(300)).pend, only(21), "the hold's key stays");
    assert_eq!(survived.apply(pend(30, 300)), Err(RingRefusal::Held));
    let released = survived.apply(release(1)).unwrap();
    assert_eq!(released.due(noon(300)).pend, [21, 30].map(kek_id).into());
    assert!(released.apply(pend(30, 300)).is_ok());
    assert_eq!(released.apply(release(1)), Err(RingRefusal::Returned), "an order is used once");
    // Too late: the key is gone that the blob was under.
    let late = HoldScope::Blob { blob: blob(100, 1), from: kek_id(20), key: kek_id(31) };
    let key = Some(entry(31, EntryKind::Hold));
    assert_eq!(survived.apply(Change::PlaceHold { hold: hold(3, late), key }), Err(RingRefusal::UnknownKey));
}

#[test]
fn an_order_destroys_early_what_it_names_and_once() {
    let order = |id| approved(id, OrderKind::DestroyDays { days: vec![day(101)] });
    let early =
        |key, id| Change::Pend { keys: only(key), permit: ordered(&order(id), noon(50)), withdraw: None };
    assert_eq!(ring().apply(early(20, 1)), Err(RingRefusal::NotPermitted), "another day");
    let pending = ring_with([early(21, 1)]);
    assert_eq!(pending.apply(drop_at(21, 56)), Err(RingRefusal::WindowOpen));
    assert!(pending.apply(drop_at(21, 57)).is_ok());
    let back = pending.apply(Change::Cancel(only(21))).unwrap();
    assert_eq!(back.apply(early(21, 1)), Err(RingRefusal::Returned));
    assert!(back.apply(early(21, 2)).is_ok());
    let held = ring_with([place(1, HoldScope::Day(day(101)))]);
    assert_eq!(held.apply(early(21, 1)), Err(RingRefusal::Held));
}

#[test]
fn a_blob_is_withdrawn_by_its_own_order_only() {
    let order = |id| approved(id, OrderKind::DestroyBlob { blob: blob(100, 1) });
    let early =
        |blob| Change::Pend { keys: only(20), permit: ordered(&order(1), noon(50)), withdraw: Some(blob) };
    assert_eq!(ring().apply(early(blob(100, 2))), Err(RingRefusal::NotPermitted));
    let ring = ring_with([early(blob(100, 1))]);
    assert!(ring.is_withdrawn(blob(100, 1)) && !ring.is_withdrawn(blob(100, 2)));
    let unnamed = Change::Pend { keys: only(21), permit: ordered(&order(2), noon(50)), withdraw: None };
    assert_eq!(ring.apply(unnamed), Err(RingRefusal::NotPermitted));
}

/// A ring with two orders on two blobs under key 20, the second of which has key 23 as well.
fn two_orders() -> Ring {
    let second = entry(23, EntryKind::Day(day(100)));
    let minted = Change::Mint { data_keys: vec![], entries: vec![second] };
    let order = |order, random, keys: &[u8]| Change::Pend {
        keys: keys.iter().map(|key| kek_id(*key)).collect(),
        permit: ordered(&approved(order, OrderKind::DestroyBlob { blob: blob(100, random) }), noon(50)),
        withdraw: Some(blob(100, random)),
    };
    ring_with([minted, order(1, 1, &[20]), order(2, 2, &[20, 23])])
}

#[test]
fn an_order_owns_its_keys_whatever_becomes_of_another() {
    let id = |byte| OrderId::from_bytes([byte; 16]);
    let ring = two_orders();
    let leads = |ring: &Ring, key| ring.entry(kek_id(key)).and_then(|entry| entry.order().copied());
    assert_eq!((leads(&ring, 20), leads(&ring, 23)), (Some(id(1)), Some(id(2))));
    // The second waits for the first, and the first takes no blob along.
    assert_eq!(ring.due(noon(60)).drop, only(20));
    assert_eq!(ring.apply(drop_at(23, 60)), Err(RingRefusal::OtherOrder));
    let done = ring.apply(drop_at(20, 60)).unwrap();
    assert_eq!(done.claim_state(done.claim(id(1)).unwrap()), ClaimState::CarriedOut);
    assert_eq!(done.due(noon(60)).drop, only(23));
    assert!(done.apply(drop_at(23, 60)).is_ok());
    let both = Change::Drop { keys: [20, 23].map(kek_id).into(), time: trusted_at(noon(60)) };
    assert_eq!(ring.apply(both), Err(RingRefusal::Authorities));
    // A day that is over goes by its time, and the orders keep what they own.
    let over = ring.apply(pend(20, 101)).unwrap();
    assert_eq!((leads(&over, 20), over.claims.len(), over.withdrawn.len()), (None, 2, 2));
    assert!(over.apply(drop_at(20, 107)).is_err() && over.apply(drop_at(20, 108)).is_ok());
    assert_eq!(over.apply(pend(20, 102)), Err(RingRefusal::Pending));
    // The first alone is taken back: the key is the second's now.
    let back = ring.apply(Change::Cancel(only(20))).unwrap();
    assert!(!back.is_withdrawn(blob(100, 1)) && back.is_withdrawn(blob(100, 2)));
    assert_eq!((leads(&back, 20), back.claim(id(1))), (Some(id(2)), None));
    assert_eq!(back.due(noon(60)).drop, [20, 23].map(kek_id).into());
    let back = back.apply(Change::Cancel(only(20))).unwrap();
    assert_eq!((back.claims.len(), back.due(noon(60))), (0, Due::default()));
    assert!(back.withdrawn.is_empty());
    // A hold suspends both, and each has a whole window after it.
    let held = ring.apply(place(9, HoldScope::Day(day(100)))).unwrap();
    assert!(held.claims.iter().all(|claim| held.claim_state(claim) == ClaimState::Suspended));
    assert_eq!(held.apply(drop_at(20, 60)), Err(RingRefusal::Held));
    assert_eq!(held.day_key(day(100)), None, "what an order owns wraps nothing new");
    let of = HoldId::from_bytes([9; 16]);
    let order = approved(9, OrderKind::ReleaseHold { hold: of });
    let released = held.apply(Change::ReleaseHold { hold: of, order, at: noon(80) }).unwrap();
    assert_eq!(released.apply(drop_at(20, 86)), Err(RingRefusal::WindowOpen));
    assert!(released.apply(drop_at(20, 87)).is_ok());
    // A hold on the first blob gives the lead to the second.
    let scope = HoldScope::Blob { blob: blob(100, 1), from: kek_id(20), key: kek_id(30) };
    let place = Change::PlaceHold { hold: hold(3, scope), key: Some(entry(30, EntryKind::Hold)) };
    let held = ring.apply(place).unwrap();
    assert_eq!((leads(&held, 20), leads(&held, 30)), (Some(id(2)), None));
    let held = held.apply(Change::CompleteHold(HoldId::from_bytes([3; 16]))).unwrap();
    let gone =
        held.apply(Change::Drop { keys: [20, 23].map(kek_id).into(), time: trusted_at(noon(60)) }).unwrap();
    assert_eq!(gone.claim_state(gone.claim(id(1)).unwrap()), ClaimState::Suspended);
    let released = gone.apply(release(3)).unwrap();
    assert_eq!(leads(&released, 30), Some(id(1)), "the key of its hold is the order's as well");
}

/// Also where it is the day's key that the hold kept, as the blob had no other yet.
#[test]
fn a_hold_that_is_released_leaves_a_whole_window() {
    let of = HoldId::from_bytes([3; 16]);
    let place = || {
        let scope = HoldScope::Blob { blob: blob(100, 1), from: kek_id(20), key: kek_id(30) };
        Change::PlaceHold { hold: hold(3, scope), key: Some(entry(30, EntryKind::Hold)) }
    };
    let release = || {
        let order = approved(3, OrderKind::ReleaseHold { hold: of });
        Change::ReleaseHold { hold: of, order, at: noon(105) }
    };
    let order = approved(4, OrderKind::DestroyDays { days: vec![day(100)] });
    let ordered = Change::Pend { keys: only(20), permit: ordered(&order, noon(101)), withdraw: None };
    for begin in [pend(20, 101), ordered] {
        let held = ring_with([begin, place()]);
        assert_eq!(held.apply(drop_at(20, 109)), Err(RingRefusal::Held));
        let released = held.apply(release()).unwrap();
        assert_eq!(released.apply(drop_at(20, 111)), Err(RingRefusal::WindowOpen));
        assert!(released.apply(drop_at(20, 112)).is_ok());
        // Once the blob has a key of its own, its day goes its way.
        let held = held.apply(Change::CompleteHold(of)).unwrap();
        assert!(held.apply(drop_at(20, 109)).is_ok());
        assert!(held.apply(release()).unwrap().apply(drop_at(20, 109)).is_ok());
    }
}

#[test]
fn a_ring_from_before_orders_owned_anything_is_read_and_goes_on() {
    let order = |byte| OrderId::from_bytes([byte; 16]);
    let mut old = ring_with([]);
    for (at, of) in [(0, 1), (1, 2)] {
        old.entries[at].state = EntryState::Pending { until: noon(57), order: Some(order(of)) };
    }
    (old.orders, old.withdrawn) = (vec![order(1), order(2)], vec![blob(100, 1), blob(101, 1)]);
    old.check().unwrap();
    let stored = old.seal(&data_key(1), [4; 24]);
    let old = SealedRing::parse(&stored).unwrap().open(&data_key(1)).unwrap();
    assert!(old.claims.is_empty());
    let next = old.apply(Change::Reissue { epoch: 2 }).unwrap();
    assert_eq!(next.claims.len(), 2);
    assert_eq!(
        next.entries.iter().map(|entry| entry.state).collect::<Vec<_>>(),
        old.entries.iter().map(|entry| entry.state).collect::<Vec<_>>()
    );
    let back = old.apply(Change::Cancel(only(20))).unwrap();
    assert!(
        !back.is_withdrawn(blob(100, 1)) && back.is_withdrawn(blob(101, 1)),
        "another day's is another's"
    );
    assert!(old.apply(Change::Drop { keys: only(20), time: trusted_at(noon(57)) }).is_ok());
}

#[test]
fn parts_of_a_ring_are_read_in_one_form_and_later_ones_kept() {
    let ring = two_orders();
    let plain = Ring { claims: vec![], ..ring_with([]) }.to_bytes();
    let body = ring.to_bytes();
    let read = |bytes: &[u8]| Ring::from_bytes(bytes).ok();
    assert_eq!(read(&body).unwrap().claims, ring.claims);
    let with = |tail: &[u8]| [&plain[..], tail].concat();
    let later = with(&[200, 0, 0, 0, 1, 7]);
    assert_eq!(read(&later).unwrap().to_bytes(), later, "what may be ignored is kept");
    for bad in [
        &[2, 0, 0, 0, 0][..],
        // No claims have no part.
        &[1, 0, 0, 0, 4, 0, 0, 0, 0],
        &[200, 0, 0, 0, 0, 200, 0, 0, 0, 0],
        &[201, 0, 0, 0, 0, 200, 0, 0, 0, 0],
        &[200, 0, 0, 0, 9],
        &[200],
        &[0, 0, 0, 0, 0],
    ] {
        assert!(read(&with(bad)).is_none(), "{bad:?}");
    }
}

#[test]
fn a_closed_customer_goes_whole_or_comes_back_whole() {
    let order = || approved(1, offboard());
    let closed = ring_with([Change::Close(order())]);
    let minted = Change::Mint { data_keys: vec![], entries: vec![entry(40, EntryKind::Day(day(200)))] };
    assert_eq!(closed.apply(minted), Err(RingRefusal::Closed));
    let all: BTreeSet<KekId> = [20, 21, 22].map(kek_id).into();
    assert_eq!(closed.due(noon(50)).close, all);
    let permit = ordered(&order(), noon(50));
    let pending = closed.apply(Change::Pend { keys: all.clone(), permit, withdraw: None }).unwrap();
    assert_eq!(pending.due(noon(57)).drop, all);
    assert_eq!(pending.apply(Change::Reopen).unwrap().due(noon(57)), Due::default());
    let gone = pending.apply(Change::Drop { keys: all, time: trusted_at(noon(57)) }).unwrap();
    assert_eq!(gone.apply(Change::Reopen), Err(RingRefusal::Inconsistent));
}

#[test]
fn a_rekey_changes_the_seals_and_nothing_else() {
    let ring = ring_with([pend(20, 101)]);
    let id = DataKeyId::from_bytes([4; 16]);
    let kms_key: KmsKeyId = "local:k2".parse().unwrap();
    let wrapped = WrappedDataKey::new(vec![8; 40]);
    let new = RingDataKey { id, kms_key: kms_key.clone(), wrapped };
    let ids = (STORE, CUSTOMER);
    let reseal =
        |entry: &Entry| entry.reseal(receipt(), ids, &data_key(9), (id, &data_key(7)), [5; 24]).unwrap();
    let entries: Vec<Entry> = ring.entries.iter().map(reseal).collect();
    let change = |entries| Change::Rekey { kms_key: kms_key.clone(), data_key: new.clone(), entries };
    let next = ring.apply(change(entries.clone())).unwrap();
    assert_eq!(next.settings.kms_key, kms_key);
    assert!(next.open_key(receipt(), kek_id(20), &data_key(7)).is_ok());
    assert!(next.open_key(receipt(), kek_id(20), &data_key(9)).is_err());
    assert_eq!(ring.apply(change(entries[1..].to_vec())), Err(RingRefusal::Inconsistent));
    let forged: Vec<Entry> =
        entries.iter().map(|e| Entry { state: EntryState::Active, ..e.clone() }).collect();
    assert_eq!(ring.apply(change(forged)), Err(RingRefusal::Inconsistent));
}

#[test]
fn a_policy_is_lengthened_by_one_and_shortened_by_two() {
    let policy = |period: &str, window: u16, order| Change::Policy {
        since: at(5),
        period: period.parse().unwrap(),
        window: Window::new(window).unwrap(),
        order,
    };
    let longer = ring_with([policy("P6Y", 7, None)]);
    assert_eq!((longer.policy().number, longer.policies.len()), (2, 2));
    assert_eq!(longer.apply(policy("P18M", 7, None)), Err(RingRefusal::Shortened));
    assert_eq!(longer.apply(policy("P6Y", 6, None)), Err(RingRefusal::Shortened));
    let order = || Some(approved(1, OrderKind::ShortenRetention { period: "P18M".parse().unwrap() }));
    assert_eq!(longer.apply(policy("P1Y", 7, order())), Err(RingRefusal::WrongOrder));
    assert_eq!(longer.apply(policy("P18M", 6, order())), Err(RingRefusal::WrongOrder), "not what was signed");
    let shorter = longer.apply(policy("P18M", 7, order())).unwrap();
    assert!(shorter.policy().order.is_some());
    let other = Settings {
        label: "other".parse().unwrap(),
        strict: true,
        phi: false,
        tenancy: Tenancy::Customer,
        ..settings()
    };
    let set = longer.apply(Change::Settings(other)).unwrap().settings;
    assert_eq!((set.label.as_str(), set.strict), ("acme", true));
    assert_eq!((set.phi, set.tenancy), (true, Tenancy::Held), "neither is taken back by one person");
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

/// Orders on all of two days, two on each.
static DAY_ORDERS: LazyLock<Vec<ApprovedOrder>> = LazyLock::new(|| {
    let order =
        |at: u8| approved(100 + at, OrderKind::DestroyDays { days: vec![day(100 + u32::from(at % 2))] });
    (0..4).map(order).collect()
});

/// Orders on three blobs of one day, two on each. The blobs of holds are of these.
static BLOB_ORDERS: LazyLock<Vec<ApprovedOrder>> = LazyLock::new(|| {
    let order = |at: u8| approved(110 + at, OrderKind::DestroyBlob { blob: blob(100, at % 3) });
    (0..6).map(order).collect()
});

/// The orders that a change takes back: those that lead its keys, and no others.
fn taken_back(ring: &Ring, change: &Change) -> BTreeSet<OrderId> {
    match change {
        Change::Cancel(keys) => keys.iter().filter_map(|key| ring.entry(*key)?.order().copied()).collect(),
        Change::Reopen => ring.closed.into_iter().collect(),
        _ => BTreeSet::new(),
    }
}

/// That every order owns what it owned, but for those that were taken back.
fn orders_stand(last: &Ring, next: &Ring, back: &BTreeSet<OrderId>) {
    for claim in &last.claims {
        let live = || claim.keys.iter().filter(|key| last.entry(**key).is_some());
        if back.contains(&claim.order) || live().next().is_none() {
            continue;
        }
        let later = next.claim(claim.order).expect("nobody took it back");
        assert!(claim.keys.iter().all(|key| later.keys.contains(key)));
        assert!(claim.blob.is_none_or(|blob| next.is_withdrawn(blob)), "another order gave its blob back");
        for entry in live().filter_map(|key| next.entry(*key)) {
            let in_use = next.live_holds().any(|hold| hold.has_key(entry.id));
            assert!(in_use || entry.state != EntryState::Active, "its key wraps something new");
        }
    }
    for gone in next.dropped.iter().filter(|gone| !last.was_dropped(gone.id)) {
        let Some(claim) = gone.order.and_then(|order| last.claim(order)) else { continue };
        if claim.blob.is_none() {
            continue;
        }
        // A single blob goes at once, and takes no other one along that somebody ordered.
        assert!(claim.keys.iter().all(|key| next.entry(*key).is_none()), "half a blob");
        for other in last.claims.iter().filter(|other| other.blob.is_some_and(|of| Some(of) != claim.blob)) {
            let lives = other.keys.iter().any(|key| next.entry(*key).is_some());
            let is_over = last.is_over(last.entry(gone.id).unwrap(), gone.at);
            assert!(!other.keys.contains(&gone.id) || lives || is_over, "the last key of another's blob");
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let number = 100u32..104;
    prop_oneof![
        (0u8..12, number.clone()).prop_map(|(id, number)| Change::Mint {
            data_keys: vec![],
            entries: vec![entry(id, EntryKind::Day(day(number)))]
        }),
        (0u8..6).prop_map(|id| place(id, HoldScope::Customer)),
        (0u8..6, number).prop_map(|(id, number)| place(id, HoldScope::Day(day(number)))),
        (0u8..6, 0u8..12).prop_map(|(id, from)| Change::PlaceHold {
            hold: hold(id, HoldScope::Blob { blob: blob(100, id), from: kek_id(from), key: kek_id(30 + id) }),
            key: Some(entry(30 + id, EntryKind::Hold)),
        }),
        (0u8..6).prop_map(|id| Change::CompleteHold(HoldId::from_bytes([id; 16]))),
        (0u8..6).prop_map(release),
        (0u8..36, 99u32..120).prop_map(|(id, now)| pend(id, now)),
        (0u8..36).prop_map(|id| Change::Cancel(only(id))),
        (0u8..36).prop_map(|id| Change::Cancel(only(id))),
        (0u8..36, 99u32..130).prop_map(|(id, now)| drop_at(id, now)),
        (prop::collection::btree_set(0u8..36, 2..4), 99u32..130).prop_map(|(ids, now)| Change::Drop {
            keys: ids.into_iter().map(kek_id).collect(),
            time: trusted_at(noon(now)),
        }),
        (0usize..4, 0u8..36).prop_map(|(at, id)| {
            Change::Pend { keys: only(id), permit: ordered(&DAY_ORDERS[at], noon(50)), withdraw: None }
        }),
        (0usize..6, 0u8..36).prop_map(|(at, id)| {
            let permit = ordered(&BLOB_ORDERS[at], noon(50));
            Change::Pend { keys: only(id), permit, withdraw: Some(blob(100, u8::try_from(at % 3).unwrap())) }
        }),
        (1u32..4).prop_map(|epoch| Change::Reissue { epoch }),
        Just(()).prop_map(|()| Change::Close(approved(99, offboard()))),
        Just(()).prop_map(|()| Change::Reopen),
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
            let back = taken_back(last, &change);
            let Ok(next) = last.apply(change) else { continue };
            orders_stand(last, &next, &back);
            prop_assert_eq!(next.check(), Ok(()));
            prop_assert_eq!(next.version, last.version + 1);
            for gone in next.dropped.iter().filter(|gone| !last.was_dropped(gone.id)) {
                let was = last.entry(gone.id).unwrap();
                prop_assert!(!last.is_kept(was), "a held key was dropped");
                prop_assert!(last.is_over(was, gone.at) || gone.order.is_some(), "a key was dropped early");
            }
            for earlier in &history {
                prop_assert_eq!(earlier.check_successor(&next), Ok(()));
                prop_assert!(earlier.dropped.iter().all(|gone| next.entry(gone.id).is_none()));
                prop_assert!(earlier.holds.iter().all(|hold| next.hold(hold.id).is_some()));
            }
            let stored = next.seal(&data_key(1), [4; 24]);
            prop_assert_eq!(&SealedRing::parse(&stored).unwrap().open(&data_key(1)).unwrap(), &next);
            // As what changed since each version that is under the same epoch, unless orders claim keys.
            for earlier in history.iter().rev().take(3) {
                let fits = earlier.epoch == next.epoch && next.claims.is_empty();
                prop_assert_eq!(delta::over(earlier, &next).is_some(), fits);
            }
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
