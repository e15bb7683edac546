//! Two bases of a small shard: what they hold, that they are read back, and that no byte of them
//! can be another.

use serde_json::json;

use super::extract::{Contents, Page, PageName, Part, Shelf, decode, decode_operations};
use super::*;
use crate::access::{Access, Origin, Principal, Purpose};
use crate::audit::commit::Line;
use crate::audit::commit::tests::{at, authority, begin, key, line_of, writer};
use crate::audit::{Action, Intent, KeyRef, Outcome, OutcomeResult, RingRef};
use crate::id::{BlobId, KekId};
use crate::time::Day;

fn customer() -> CustomerId {
    CustomerId::from_bytes([5; 16])
}

fn request(number: u8) -> RequestId {
    RequestId::from_bytes([number; 16])
}

fn intent(number: u8, action: Action) -> Intent {
    let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
    let access = access.from_origin(Origin::Process(1));
    Intent { customer: Some(customer()), ..Intent::new(request(number), &access, action) }
}

fn outcome(number: u8) -> Event {
    Event::Outcome(Outcome {
        request: request(number),
        customer: Some(customer()),
        result: OutcomeResult::Ok,
        bytes: None,
        key: None,
        kms_request: None,
    })
}

fn blob(day: u32) -> BlobId {
    BlobId::new(Day::from_number(day), [3; 13]).unwrap()
}

fn kek(day: u32) -> KeyRef {
    let number = u8::try_from(day % 251).unwrap();
    KeyRef::Kek { id: KekId::from_bytes([number; 16]), day: Day::from_number(day) }
}

/// A seal and its extension by a month, a hold, a ring, and what nobody needs later; the extension
/// ends behind the second commit.
fn commits() -> Vec<(Commit, Head)> {
    let sealed = Intent { blob: Some(blob(320)), key: Some(kek(320)), ..intent(1, Action::Seal) };
    let extended = Intent { blob: Some(blob(320)), key: Some(kek(350)), ..intent(2, Action::Extend) };
    let held = KeyRef::HoldKey { id: KekId::from_bytes([9; 16]) };
    let held = Intent { blob: Some(blob(320)), key: Some(held), ..intent(3, Action::HoldPlace) };
    let ring = RingRef { version: 4, hash: [7; 32] };
    let ring = Intent { ring: Some(ring), ..intent(4, Action::RingWrite) };
    let events = [
        vec![Event::Intent(sealed), outcome(1), Event::Intent(ring), outcome(4)],
        vec![Event::Intent(extended), Event::Intent(intent(5, Action::Open)), outcome(5)],
        vec![outcome(2), Event::Alive],
        vec![Event::Intent(held), outcome(3)],
        vec![Event::Alive],
    ];
    let (mut head, mut number, mut commits) = (begin(), 0, Vec::new());
    for events in events {
        let lines: Vec<Line> = events
            .into_iter()
            .map(|event| {
                number += 1;
                line_of(number, &writer(2), event)
            })
            .collect();
        let (bytes, after) = head.extend(&writer(2), at(5000), lines.iter(), 0);
        commits.push((Commit::decode(&bytes).unwrap(), after.clone()));
        head = after;
    }
    commits
}

/// The bases of two and of four commits, with their extracts.
fn bases() -> [(Base, Vec<u8>); 2] {
    let commits = commits();
    let mut first = Draft::new(None, 2);
    for (commit, head) in &commits[..2] {
        first.take(commit, head);
        assert!(!first.is_complete(), "the extension is open");
    }
    first.take(&commits[2].0, &commits[2].1);
    assert!(first.is_complete());
    let (first, bytes) = first.finish(Earlier::default()).unwrap();

    let mut second = Draft::new(Some(first.clone()), 4);
    commits[2..4].iter().for_each(|(commit, head)| second.take(commit, head));
    let (filed, time) = second.filed().unwrap();
    let contents: Contents =
        decode(piece(&bytes, first.customer(customer()).unwrap().contents.unwrap())).unwrap();
    let mut earlier = Earlier::default();
    for name in &filed.pages(time)[&customer()] {
        let page = contents.get(name).map(|page| decode(piece(&bytes, *page)).unwrap());
        earlier.pages.extend(page.map(|page| ((customer(), *name), page)));
    }
    earlier.contents.insert(customer(), contents);
    let second = second.finish(earlier).unwrap();
    [(first, bytes), second]
}

fn piece(extract: &[u8], piece: Piece) -> &[u8] {
    let at = usize::try_from(piece.at).unwrap();
    let bytes = &extract[at..at + usize::try_from(piece.length).unwrap()];
    assert_eq!(Hash::of(bytes), piece.hash);
    bytes
}

fn object(base: &Base) -> Vec<u8> {
    base.object(key(9).sign(&base.message())).to_vec()
}

#[test]
fn what_was_sealed_extended_and_held_is_found_by_its_day_and_by_its_keys() {
    let [(_, first), (base, second)] = bases();
    let extract = |piece: &Piece| if piece.base == 2 { &first } else { &second };
    let of = base.customer(customer()).unwrap();
    let contents: Contents = decode(piece(&second, of.contents.unwrap())).unwrap();
    let requests = |shelf: Shelf| -> Vec<u8> {
        let Some(page) = contents.get(&PageName::of(shelf, at(5000))) else { return Vec::new() };
        let page: Page = decode(piece(extract(page), *page)).unwrap();
        let parts = page.get(&shelf).into_iter().flatten();
        let operations =
            parts.flat_map(|Part { piece: of, .. }| decode_operations(7, piece(extract(of), *of)).unwrap());
        operations.map(|operation| operation.intent().request.as_bytes()[0]).collect()
    };
    assert_eq!(requests(Shelf::Day(Day::from_number(320))), [1, 2, 3]);
    assert_eq!(requests(Shelf::Day(Day::from_number(350))), [2]);
    assert_eq!(requests(Shelf::Key(KekId::from_bytes([9; 16]))), [3]);
    assert_eq!(requests(Shelf::Customer), [4]);
    assert_eq!(requests(Shelf::Day(Day::from_number(351))), [0; 0]);
}

#[test]
fn a_base_reads_back_and_the_log_goes_on_from_it() {
    let commits = commits();
    let [(first, _), (second, _)] = bases();
    for base in [&first, &second] {
        assert_eq!(Base::decode(&object(base), &authority()).unwrap(), *base);
        let (_, head) = &commits[usize::try_from(base.header().commits).unwrap() - 1];
        let mut stood = base.head(&authority().into());
        assert_eq!(
            (stood.tree(), stood.previous(), stood.chains()),
            (head.tree(), head.previous(), head.chains())
        );
        for (commit, after) in &commits[usize::try_from(base.header().commits).unwrap()..] {
            stood = stood.verify(commit).unwrap();
            assert_eq!(stood.tree(), after.tree());
        }
        let (of, number, path) = base.prove(customer()).unwrap();
        let customers = &base.reference().customers;
        crate::merkle::verify_inclusion(of.leaf(), number, &path, customers).unwrap();
    }
    assert_eq!(first.header().open.iter().map(|open| open.request).collect::<Vec<_>>(), [request(2)]);
    assert_eq!(second.header().open, []);
    assert_eq!(second.header().before.unwrap().digest, first.digest());
}

#[test]
fn any_changed_byte_is_noticed() {
    let [_, (base, _)] = bases();
    let good = object(&base);
    for at in 0..good.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            assert!(Base::decode(&bytes, &authority()).is_err(), "{at}");
        }
        assert!(Base::decode(&good[..at], &authority()).is_err(), "{at}");
    }
    assert!(Base::decode(&good, &key(8).public()).is_err());
    assert!(Base::decode(&[good.as_slice(), b"\n"].concat(), &authority()).is_err());
}

/// The bytes of the format, which every later version writes and reads.
#[test]
fn bases_and_extracts_are_written_as_they_were() {
    let [(first, extract), (second, _)] = bases();
    let digests = [Hash::of(&object(&first)), Hash::of(&extract), Hash::of(&object(&second))];
    assert_eq!(json!(digests), json!([FIRST, EXTRACT, SECOND]));
}

const FIRST: &str = "817370747c5a8de04e5b1812b7f0afe70fe414c20fdc46912ca6a675ed4c73e5";
const EXTRACT: &str = "712a41065a3337586be63c3a6edfd1f3f864d3dfa050b44f77eebb30deeecc58";
const SECOND: &str = "42f93b17eff37f92a4a7f5f2d5870a72699bc922bcf4dc70d97400d7991fee9f";
