//! How far a ring grows by what somebody asks for.

use super::super::growth;
use super::*;

/// A key that was minted by itself or with others, under whichever data key, at noon of a day.
pub(super) fn minted(id: [u8; 2], kind: EntryKind, data_key_id: DataKeyId, number: u32) -> Entry {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&id);
    let kek = Kek::new(secret(7));
    let under = (data_key_id, &data_key(9));
    Entry::seal((STORE, CUSTOMER), noon(number), KekId::from_bytes(bytes), kind, &kek, under, [7; 24])
}

#[test]
fn routine_mints_a_month_and_what_somebody_asks_for_one_day() {
    let now = noon(20_000);
    let promised = ring().promised(now);
    for (from, count) in [(0, 31), (1, 31), (31, 31), (32, 1), (33, 1), (400, 1), (growth::WRITER_DAYS, 1)] {
        let days = ring().days_to_mint(promised.plus(from), now);
        assert_eq!((days.len(), days[0]), (count, promised.plus(from)), "{from}");
    }
    // An extension to a day that the policy has passed.
    assert_eq!(ring().days_to_mint(day(promised.number() - 1), now).len(), 1);
    // What is there is not made again, and the calendar ends.
    let entries = vec![entry(40, EntryKind::Day(promised.plus(3)))];
    let ring = ring().apply(Change::Mint { data_keys: vec![], entries }).unwrap();
    assert_eq!(ring.days_to_mint(promised, now).len(), 30);
    assert_eq!(ring.days_to_mint(Day::MAX, now), [Day::MAX]);
}

#[test]
fn a_writer_alone_has_a_limit_and_so_have_the_days_of_all_writers() {
    let now = noon(20_000);
    let limit = ring().writer_limit(now);
    assert_eq!(limit, ring().promised(now).plus(73_050));
    assert_eq!(ring().permit_writer(limit, now), Ok(()));
    assert_eq!(ring().permit_writer(limit.plus(1), now), Err(GrowthRefusal::TooFar { limit }));
    assert_eq!(ring().permit_writer(Day::MAX, now), Err(GrowthRefusal::TooFar { limit }));
    // The limit goes with the policy.
    let policy = Change::Policy {
        since: at(5),
        period: "P30Y".parse().unwrap(),
        window: Window::DEFAULT,
        order: None,
    };
    assert_eq!(ring().apply(policy).unwrap().permit_writer(limit.plus(10_000), now), Ok(()));

    let far = ring().promised(now).plus(100);
    let keys = (0..growth::FAR_KEYS).map(|index| {
        let number = u32::try_from(index).unwrap();
        let [.., high, low] = number.to_be_bytes();
        minted([high + 64, low], EntryKind::Day(far.plus(number)), DATA_KEY, 20_000)
    });
    let mut keys: Vec<Entry> = keys.collect();
    let last = keys.pop().unwrap();
    let ring = ring().apply(Change::Mint { data_keys: vec![], entries: keys }).unwrap();
    let other = far.plus(20_000);
    assert_eq!(ring.permit_writer(other, now), Ok(()));
    let full = ring.apply(Change::Mint { data_keys: vec![], entries: vec![last] }).unwrap();
    assert_eq!(full.permit_writer(other, now), Err(GrowthRefusal::TooManyDays));
    // A day that has a key takes none, and the policy's days are never refused.
    assert_eq!(full.permit_writer(far, now), Ok(()));
    assert_eq!(full.permit_writer(full.promised(now).plus(growth::MINT_DAYS), now), Ok(()));
}

#[test]
fn programs_add_so_many_keys_of_their_own_a_day() {
    let own = |number: u8, of_day: u32| {
        let id = DataKeyId::from_bytes([number; 16]);
        let wrapped = WrappedDataKey::new(vec![number; 40]);
        let data_key = RingDataKey { id, kms_key: "local:k1".parse().unwrap(), wrapped };
        let kind = EntryKind::Day(day(20_700));
        Change::Mint { data_keys: vec![data_key], entries: vec![minted([number, 1], kind, id, of_day)] }
    };
    // A month that was made at once is none of them.
    let month = (0..31).map(|index: u8| {
        minted([200, index], EntryKind::Day(day(20_600 + u32::from(index))), DATA_KEY, 20_000)
    });
    let mut ring = ring().apply(Change::Mint { data_keys: vec![], entries: month.collect() }).unwrap();
    for number in 0..64 {
        assert_eq!(ring.permit_own_key(noon(20_000)), Ok(()), "{number}");
        ring = ring.apply(own(number + 100, 20_000)).unwrap();
    }
    assert_eq!(ring.permit_own_key(noon(20_000)), Err(GrowthRefusal::TooManyOwnKeys));
    assert_eq!(ring.permit_own_key(noon(20_001)), Ok(()));
    assert_eq!(ring.apply(own(99, 20_001)).unwrap().permit_own_key(noon(20_001)), Ok(()));
}

#[test]
fn a_data_key_goes_with_the_last_key_under_it() {
    let other = DataKeyId::from_bytes([4; 16]);
    let wrapped = WrappedDataKey::new(vec![8; 40]);
    let data_keys = vec![RingDataKey { id: other, kms_key: "local:k1".parse().unwrap(), wrapped }];
    let two = |number: u8| minted([number, 0], EntryKind::Day(day(100)), other, 50);
    let ring = ring().apply(Change::Mint { data_keys, entries: vec![two(50), two(51)] }).unwrap();
    let gone = |ring: &Ring, id: KekId| {
        let keys = BTreeSet::from([id]);
        let permit = expiry(noon(101));
        let pended = ring.apply(Change::Pend { keys: keys.clone(), permit, withdraw: None }).unwrap();
        pended.apply(Change::Drop { keys, time: trusted_at(noon(108)) }).unwrap()
    };
    let one_left = gone(&ring, two(50).id);
    assert!(one_left.data_key(other).is_some());
    let none_left = gone(&one_left, two(51).id);
    assert!(none_left.data_key(other).is_none() && none_left.data_key(DATA_KEY).is_some());
    // One to mint under stays, if nothing else does.
    let mut last = none_left;
    for id in [20, 21] {
        let permit = expiry(noon(102));
        last = last.apply(Change::Pend { keys: only(id), permit, withdraw: None }).unwrap();
        last = last.apply(drop_at(id, 109)).unwrap();
    }
    assert_eq!(last.data_keys.len(), 1);
}

#[test]
fn nothing_but_names_is_under_the_outer_seal_alone() {
    let outer = RingDataKey::outer(DataKeyId::from_bytes([5; 16]), &secret(6));
    assert_eq!(outer.unwrapped().unwrap().secret().expose(), &[6; KEY_LEN]);
    assert!(ring_data_key().unwrapped().is_none() && !ring_data_key().is_outer());
    assert!(!format!("{outer:?}").contains("6, 6"), "{outer:?}");
    let name = |id| minted([id, 0], EntryKind::Name, outer.id, 50);
    let mint = |entry| Change::Mint { data_keys: vec![outer.clone()], entries: vec![entry] };
    assert_eq!(ring().apply(mint(name(90))), Err(RingRefusal::Inconsistent), "of a held customer");

    let theirs = Ring { settings: Settings { tenancy: Tenancy::Customer, ..settings() }, ..ring() };
    let day_key = minted([90, 0], EntryKind::Day(day(100)), outer.id, 50);
    assert_eq!(theirs.apply(mint(day_key)), Err(RingRefusal::Inconsistent));
    assert_eq!(theirs.name_key().unwrap().id, kek_id(22), "as rings had it before");
    let named = theirs.apply(mint(name(90))).unwrap();
    assert_eq!(named.name_key().unwrap().id, name(90).id);
    assert_eq!(named.kms_keys(), BTreeSet::from(["local:k1".parse().unwrap()]));
    let short = RingDataKey { wrapped: WrappedDataKey::new(vec![6; 31]), ..outer.clone() };
    let short = Change::Mint { data_keys: vec![short], entries: vec![] };
    assert_eq!(theirs.apply(short), Err(RingRefusal::Inconsistent));

    // What stays in memory to be compared opens no key.
    assert!(named.bare().data_key(outer.id).unwrap().unwrapped().is_none());
    let stored = named.seal(&data_key(1), [9; 24]);
    assert_eq!(SealedRing::parse(&stored).unwrap().open(&data_key(1)).unwrap(), named);

    // Another KMS key wraps all the others.
    let new = RingDataKey {
        id: DataKeyId::from_bytes([1; 16]),
        kms_key: "local:k2".parse().unwrap(),
        ..ring_data_key()
    };
    let under = (new.id, &data_key(10));
    let ids = (STORE, CUSTOMER);
    let reseal = |entry: &Entry| match named.is_outer(entry) {
        true => entry.clone(),
        false => entry.reseal(receipt(), ids, &data_key(9), under, [8; 24]).unwrap(),
    };
    let entries: Vec<Entry> = named.entries.iter().map(reseal).collect();
    let rekey = |entries| Change::Rekey { kms_key: new.kms_key.clone(), data_key: new.clone(), entries };
    let moved = named.apply(rekey(entries.clone())).unwrap();
    assert_eq!(moved.kms_keys(), BTreeSet::from([new.kms_key.clone()]));
    assert_eq!(moved.outer_name_key(), named.outer_name_key());
    assert_eq!(moved.data_keys.len(), 2);
    let mut altered = entries;
    altered.iter_mut().find(|entry| entry.id == name(90).id).unwrap().data_key = new.id;
    assert_eq!(named.apply(rekey(altered)), Err(RingRefusal::Inconsistent));
}
