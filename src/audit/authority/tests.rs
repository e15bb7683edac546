use std::sync::Arc;

use futures_util::FutureExt;

use super::*;
use crate::audit::commit::tests::{at, begin, key, line, line_of, store, writer};
use crate::audit::commit::{Commit, Writer};
use crate::audit::head::Head;
use crate::audit::signer::LocalSigner;
use crate::audit::{Event, KeyChanged, RingRef};
use crate::certificate::{SignedOrder, Signer};
use crate::id::OrderId;
use crate::order::{Order, OrderKind, testing};
use crate::time::Timestamp;
use crate::tlog::SecretKey;

/// The order of two people for a new key.
fn order(store: StoreId, what: OrderKind) -> SignedOrder {
    let [a, b, _] = testing::keys();
    let id = OrderId::from_bytes([5; 16]);
    let within = (at(1), at(1_000_000));
    let order = Order::new((id, store), what, "person:a".parse().unwrap(), at(1), within);
    let mut signed = order.sign(&a).unwrap();
    signed.approve(&b).unwrap();
    let signer = |key: &crate::tlog::NamedKey| Signer {
        principal: key.name().as_str().parse().unwrap(),
        key: *key.verifier().public(),
    };
    let register = RingRef { version: 1, hash: [1; 32] };
    SignedOrder { id, requester: signer(&a), approver: signer(&b), register, note: signed.note().to_string() }
}

fn body(store: StoreId, number: u32, [old, new]: [u8; 2], time: Timestamp) -> KeyChangeBody {
    let new = key(new).public();
    KeyChangeBody {
        format: KeyChangeFormat::V1,
        store,
        number,
        old: key(old).public(),
        new,
        time,
        order: order(store, OrderKind::RotateLogKey { key: new }),
    }
}

fn sign(body: KeyChangeBody, keys: [u8; 2]) -> Result<KeyChange> {
    let [old, new] = keys.map(|seed| LocalSigner::new(key(seed)));
    KeyChange::sign(body, &old, &new).now_or_never().expect("a key in memory signs at once")
}

/// The statement that the second of two keys follows the first.
pub(in crate::audit) fn change(store: StoreId, number: u32, keys: [u8; 2], time: Timestamp) -> KeyChange {
    sign(body(store, number, keys, time), keys).unwrap()
}

fn second() -> KeyChange {
    change(store(), 2, [9, 10], at(5))
}

/// A chain of the keys 9, 10 and 11.
fn chain() -> Authority {
    let authority = Authority::from(key(9).public());
    authority.extend(second()).unwrap();
    authority.extend(change(store(), 3, [10, 11], at(6))).unwrap();
    authority
}

/// Writer `id`, endorsed by this key of the log.
fn endorsed(id: u8, by: u8) -> Writer {
    let writer = writer(id);
    let endorsement = key(by).sign(&endorsement(store(), writer.id(), &key(id).public()));
    Writer::new(writer.id(), key(id), endorsement)
}

#[test]
fn any_changed_byte_of_a_statement_is_noticed() {
    let good = second().to_string().into_bytes();
    assert_eq!(KeyChange::parse(&good, store()).unwrap(), second());
    for place in 0..good.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bytes = good.clone();
            bytes[place] ^= flip;
            assert!(KeyChange::parse(&bytes, store()).is_err(), "{place}");
        }
        assert!(KeyChange::parse(&good[..place], store()).is_err(), "{place}");
    }
    assert!(KeyChange::parse(&[&good[..], b"\n"].concat(), store()).is_err());
    let other = KeyChange::parse(&good, StoreId::from_bytes([9; 16])).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Integrity);
    let later = second().to_string().replace("log-key/v1", "log-key/v2");
    assert_eq!(KeyChange::parse(later.as_bytes(), store()).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
}

#[test]
fn a_statement_takes_both_keys_and_an_order_for_the_new_one() {
    let text = second().to_string();
    let lines: Vec<&str> = text.lines().collect();
    let (end, rest) = lines.split_at(lines.len() - 2);
    for signatures in [vec![rest[0]], vec![rest[1]], vec![rest[1], rest[0]], vec![rest[0], rest[1], rest[1]]]
    {
        let changed: String = end.iter().chain(&signatures).map(|line| format!("{line}\n")).collect();
        assert!(KeyChange::parse(changed.as_bytes(), store()).is_err(), "{}", signatures.len());
    }
    // A thief who has the old key alone, or the new one alone.
    assert!(sign(body(store(), 2, [9, 10], at(5)), [9, 9]).is_err());
    assert!(sign(body(store(), 2, [9, 10], at(5)), [10, 10]).is_err());
    let with = |change: &dyn Fn(&mut KeyChangeBody)| {
        let mut body = body(store(), 2, [9, 10], at(5));
        change(&mut body);
        sign(body, [9, 10])
    };
    assert!(with(&|_| ()).is_ok());
    assert!(with(&|body| body.number = 1).is_err());
    assert!(with(&|body| body.old = body.new).is_err());
    let other = OrderKind::RotateLogKey { key: key(11).public() };
    for wrong in [order(store(), other), order(store(), OrderKind::SetClock { at: at(2) })] {
        assert!(with(&|body| body.order = wrong.clone()).is_err());
    }
    let right = || OrderKind::RotateLogKey { key: key(10).public() };
    let foreign = order(StoreId::from_bytes([9; 16]), right());
    assert!(with(&|body| body.order = foreign.clone()).is_err());
    // Both signatures under the order are one person's, or one is missing.
    assert!(with(&|body| body.order.approver = body.order.requester.clone()).is_err());
    let one = order(store(), right()).note;
    let one = one.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n";
    assert!(with(&|body| body.order.note.clone_from(&one)).is_err());
}

#[test]
fn a_chain_grows_at_its_ends_and_nowhere_else() {
    let all = chain();
    let keys = [9, 10, 11].map(|seed| key(seed).public());
    assert_eq!(all.keys(), [(1, keys[0]), (2, keys[1]), (3, keys[2])]);
    assert_eq!((all.newest(), all.number_of(&keys[1]), all.key(3)), ((3, keys[2]), Some(2), Some(keys[2])));
    assert_eq!(all.change(2), Some(second().digest()));
    // The same again, another in its place, a wrong number, and a way back.
    all.extend(second()).unwrap();
    for wrong in [
        change(store(), 2, [9, 10], at(7)),
        change(store(), 4, [9, 12], at(7)),
        change(store(), 5, [11, 12], at(7)),
        change(store(), 4, [11, 9], at(7)),
    ] {
        assert_eq!(all.extend(wrong).unwrap_err().kind(), ErrorKind::Integrity);
    }
    assert_eq!(all.keys().len(), 3);
    // From the newest key back, and from the middle both ways.
    for (known, order) in [(11, [3, 2]), (10, [2, 3]), (10, [3, 2]), (9, [2, 3])] {
        let authority = Authority::from(key(known).public());
        for number in order {
            let keys = if number == 2 { [9, 10] } else { [10, 11] };
            authority.extend(change(store(), number, keys, at(u64::from(number) + 3))).unwrap();
        }
        assert_eq!(authority, all, "{known}");
    }
    let stranger = Authority::from(key(12).public());
    assert!(stranger.extend(second()).is_err());
}

#[test]
fn the_key_in_force_endorses_and_no_other() {
    let authority = chain();
    let digest = authority.change(2).unwrap();
    let follow = |head: &Head, by: &Writer, events: &[Event]| {
        let lines: Vec<_> =
            events.iter().zip(1..).map(|(event, number)| line_of(number, by, event.clone())).collect();
        let (bytes, after) = head.extend(by, at(5000), lines.iter(), 0);
        let verified = head.verify(&Commit::decode(&bytes).unwrap());
        verified.inspect(|verified| assert_eq!(*verified, after))
    };
    let to = |number, digest| Event::Key(KeyChanged { number, digest });
    let empty = Head::empty(store(), 7, &authority);
    let (old, new, third) = (endorsed(2, 9), endorsed(2, 10), endorsed(2, 11));
    let first = follow(&empty, &old, &[Event::Alive]).unwrap();
    assert_eq!(first.in_force(), Some(1));
    // Not without the record, nor by the old key with it, nor past a key.
    assert!(follow(&first, &new, &[Event::Alive]).is_err());
    assert!(follow(&first, &old, &[to(2, digest)]).is_err());
    assert!(follow(&first, &third, &[to(3, authority.change(3).unwrap())]).is_err());
    // The statement is the one that the record names, and it comes first and once.
    assert!(follow(&first, &new, &[to(2, Hash::ZERO)]).is_err());
    assert!(follow(&first, &new, &[Event::Alive, to(2, digest)]).is_err());
    assert!(follow(&first, &new, &[to(2, digest), to(2, digest)]).is_err());
    let changed = follow(&first, &new, &[to(2, digest), Event::Alive]).unwrap();
    assert_eq!(changed.in_force(), Some(2));
    // From here on a stolen old key does nothing, the writer's own endorsement of before included.
    assert!(follow(&changed, &old, &[Event::Alive]).is_err());
    assert!(follow(&changed, &endorsed(4, 9), &[Event::Alive]).is_err());
    assert!(follow(&changed, &new, &[to(2, digest)]).is_err());
    let on = follow(&changed, &new, &[Event::Alive]).unwrap();
    assert!(follow(&on, &old, &[Event::Alive]).is_err());
    // A shard may begin with the change, or under any key.
    assert_eq!(follow(&empty, &new, &[to(2, digest)]).unwrap().in_force(), Some(2));
    assert_eq!(follow(&empty, &new, &[Event::Alive]).unwrap().in_force(), Some(2));
    assert!(follow(&empty.clone().under_key(2), &old, &[Event::Alive]).is_err());
    // Whoever does not know the statement takes none of it.
    let alone = begin();
    let alone = alone.verify(&Commit::decode(&alone.extend(&old, at(5000), [line(1)].iter(), 0).0).unwrap());
    assert!(follow(&alone.unwrap(), &new, &[to(2, digest)]).is_err());
}

#[test]
fn a_shard_stays_its_owners_when_the_key_changes() {
    let authority = chain();
    let change = Event::Key(KeyChanged { number: 2, digest: authority.change(2).unwrap() });
    let one = |head: &Head, by: &Writer, events: &[Event]| {
        let lines: Vec<_> =
            events.iter().zip(1..).map(|(event, number)| line_of(number, by, event.clone())).collect();
        let (bytes, _) = head.extend(by, at(5000), lines.iter(), 0);
        head.verify(&Commit::decode(&bytes).unwrap())
    };
    let claimed = one(&Head::empty(store(), 7, &authority), &endorsed(2, 9), &[Event::Claim]).unwrap();
    let (other, owner) = (endorsed(4, 10), endorsed(2, 10));
    assert!(one(&claimed, &other, &[change.clone(), Event::Alive]).is_err(), "it does that and no more");
    let changed = one(&claimed, &other, &[change]).unwrap();
    assert_eq!((changed.owner(), changed.in_force()), (Some(owner.id()), Some(2)));
    assert!(one(&changed, &other, &[Event::Alive]).is_err());
    assert_eq!(one(&changed, &owner, &[Event::Alive]).unwrap().owner(), Some(owner.id()));
}

#[test]
fn signers_are_found_by_their_keys() {
    use crate::audit::signer::{LogSigner, Signers};
    let signer = |seed: u8| -> Arc<dyn LogSigner> { Arc::new(LocalSigner::new(key(seed))) };
    let authority = chain();
    let both = Signers::new(signer(10), Some(signer(11)));
    assert_eq!(both.known(&authority).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(both.of(&authority, 2).unwrap().public(), key(10).public());
    for (number, told) in [(1, "finish the rotation"), (4, "replaced by key number 4")] {
        let error = both.of(&authority, number).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(told), "{error}");
    }
    assert!(both.next(&authority).is_none());
    let next = Signers::new(signer(11), Some(signer(12)));
    assert_eq!(next.next(&authority).unwrap().public(), key(12).public());
    let secret: SecretKey = key(11);
    assert_eq!(secret.public(), authority.newest().1);
}
