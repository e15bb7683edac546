//! A version as what changed since an earlier one.

use sha2::{Digest, Sha256};

use super::super::delta::{Base, SMALL};
use super::*;

/// Stores `next` as what changed since `earlier`, and reads it back. `None` if it cannot be.
pub(super) fn over(earlier: &Ring, next: &Ring) -> Option<Vec<u8>> {
    let base = Base { version: earlier.version, hash: [9; 32] };
    // A writer has no more of it in memory than this.
    let bytes = next.seal_changes((base, &earlier.bare()), &data_key(1), [4; 24])?;
    let sealed = SealedRing::parse(&bytes).unwrap();
    assert_eq!(sealed.base, Some(base));
    assert_eq!(&sealed.open_on(&data_key(1), earlier).unwrap(), next);
    Some(bytes)
}

#[test]
fn it_opens_on_its_base_and_nothing_else() {
    let earlier = ring_with([place(1, HoldScope::Day(day(101))), pend(20, 101)]);
    let next = earlier.apply(drop_at(20, 108)).unwrap();
    let next =
        next.apply(Change::Mint { data_keys: vec![], entries: vec![entry(50, EntryKind::Day(day(200)))] });
    let next = next.unwrap();
    let bytes = over(&earlier, &next).unwrap();
    let sealed = SealedRing::parse(&bytes).unwrap();
    assert!(sealed.open(&data_key(1)).is_err(), "it is no whole ring");
    assert!(sealed.open_on(&data_key(2), &earlier).is_err());
    // Another version, another epoch, another customer.
    assert!(sealed.open_on(&data_key(1), &ring()).is_err());
    assert!(sealed.open_on(&data_key(1), &Ring { epoch: 2, ..earlier.clone() }).is_err());
    let foreign = CustomerId::from_bytes([9; 16]);
    assert!(sealed.open_on(&data_key(1), &Ring { customer: foreign, ..earlier.clone() }).is_err());
    let whole = next.seal(&data_key(1), [4; 24]);
    assert!(SealedRing::parse(&whole).unwrap().open_on(&data_key(1), &earlier).is_err());
    for at in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        let opened =
            SealedRing::parse(&altered).ok().and_then(|sealed| sealed.open_on(&data_key(1), &earlier).ok());
        assert_eq!(opened, None, "{at}");
        let cut = SealedRing::parse(&bytes[..at]);
        assert!(cut.ok().and_then(|sealed| sealed.open_on(&data_key(1), &earlier).ok()).is_none());
    }
    // Not on one that is later, or under another epoch.
    assert!(over(&next, &earlier).is_none());
    assert!(over(&earlier, &next.apply(Change::Reissue { epoch: 2 }).unwrap()).is_none());
    assert!(over(&next, &next).is_none());
}

/// Over many versions, what is stored grows with their number and not with its square.
#[test]
fn what_all_versions_take_grows_little_more_than_their_number() {
    let mut ring = ring();
    let (mut stored, mut whole_only, mut wholes) = (0, 0, 0);
    let mut base: Option<(Base, Ring)> = None;
    for number in 0..3_000u32 {
        let [.., high, low] = number.to_be_bytes();
        let key = growth::minted([high + 64, low], EntryKind::Day(day(30_000 + number)), DATA_KEY, 20_000);
        ring = ring.apply(Change::Mint { data_keys: vec![], entries: vec![key] }).unwrap();
        let over = base.as_ref().map(|(base, of)| (*base, of));
        let bytes = ring.stored(over, &data_key(1), [4; 24]);
        let sealed = SealedRing::parse(&bytes).unwrap();
        whole_only += ring.to_bytes().len();
        stored += bytes.len();
        if sealed.base.is_none() {
            wholes += 1;
            let hash = Sha256::digest(&bytes).into();
            base = Some((Base { version: ring.version, hash }, ring.bare()));
        } else {
            assert!(ring.to_bytes().len() >= SMALL);
            assert!(bytes.len() * 8 < ring.to_bytes().len() || bytes.len() < SMALL, "{}", bytes.len());
        }
    }
    assert!(whole_only > 590 << 20, "{whole_only}");
    assert!(stored < 64 << 20, "{stored} in {wholes}");
}
