use proptest::prelude::*;

use super::sealed::SealedRegister;
use super::*;
use crate::codec::{Decode, Encode};
use crate::kms::DataKey;
use crate::order::OrderKind;
use crate::order::testing::{STORE, approved_as, new_person, noon, people};
use crate::secret::Secret;

fn data_key(byte: u8) -> DataKey {
    DataKey::new(Secret::init(|out| out.fill(byte)))
}

fn hour(hours: i64) -> Timestamp {
    let micros = i64::try_from(noon().micros()).unwrap() + hours * 3_600_000_000;
    Timestamp::from_micros(u64::try_from(micros).unwrap()).unwrap()
}

fn kms_key(number: u32) -> KmsKeyId {
    format!("local:e{number}").parse().unwrap()
}

fn epoch(number: u32) -> NewEpoch {
    let record = OnRecord { hash: [number.to_be_bytes()[3]; 32], directory: [7; 8] };
    NewEpoch { number, kms_key: kms_key(number), record: Some(record) }
}

/// Of a store without people.
fn empty() -> Register {
    Register::first(STORE, epoch(1), &[], hour(-10)).unwrap()
}

/// With a, b and c.
fn register() -> Register {
    Register { people: people(), ..empty() }
}

fn clock_order(id: u8, hours: i64) -> ApprovedOrder {
    approved_as(id, OrderKind::SetClock { at: hour(hours) })
}

fn people_order(id: u8, seed: u8) -> ApprovedOrder {
    let add = vec![new_person(&format!("person:n{seed}"), seed)];
    approved_as(id, OrderKind::SetPeople { add, remove: vec![] })
}

fn begin(number: u32) -> RegisterChange {
    RegisterChange::BeginEpoch { epoch: epoch(number), at: hour(1) }
}

/// A time that follows from the one which was accepted.
fn later(register: &Register, hours: i64) -> RegisterChange {
    use crate::retention::clock::{Clocks, trust};
    let host = hour(hours);
    let time = trust(register.clock, &Clocks { host, storage: Some(host), log: host }).unwrap();
    RegisterChange::AcceptTime(time.accepted())
}

#[test]
fn a_register_reads_back_under_its_epoch_only() {
    let register = register().apply(RegisterChange::SetPeople(people_order(1, 7))).unwrap();
    let log_mark = hour(30);
    let register = register.apply(RegisterChange::SetClock { order: clock_order(2, 0), log_mark }).unwrap();
    let register = register.apply(begin(2)).unwrap();
    let stored = register.seal(&data_key(1), [4; 24]);
    assert_eq!(SealedRegister::parse(&stored).unwrap().open(&data_key(1)).unwrap(), register);
    assert!(SealedRegister::parse(&stored).unwrap().open(&data_key(2)).is_err());
    for bit in 0..stored.len() * 8 {
        let mut bad = stored.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let opened = SealedRegister::parse(&bad).ok().and_then(|found| found.open(&data_key(1)).ok());
        assert!(opened.is_none(), "bit {bit}");
    }
    for cut in 0..stored.len() {
        let cut = SealedRegister::parse(&stored[..cut]).ok();
        assert!(cut.and_then(|found| found.open(&data_key(1)).ok()).is_none());
    }
}

#[test]
fn people_are_founded_once_and_wait() {
    let found = |names: &[u8]| RegisterChange::FoundPeople {
        people: names.iter().map(|seed| new_person(&format!("person:p{seed}"), *seed)).collect(),
        now: noon(),
    };
    for few in [&[][..], &[1]] {
        assert_eq!(empty().apply(found(few)), Err(PeopleRefusal::TooFew.into()));
    }
    let week = 7 * 24;
    let founded = empty().apply(found(&[1, 2])).unwrap();
    assert_eq!(founded.people.iter().count(), 2);
    assert!(founded.people.iter().all(|person| person.since == hour(week)));
    assert_eq!(founded.apply(found(&[3, 4])), Err(PeopleRefusal::Founded.into()));

    // With a clock that was set back meanwhile, they wait from what was accepted.
    let ahead = empty().apply(later(&empty(), 10)).unwrap().apply(found(&[1, 2])).unwrap();
    assert!(ahead.people.iter().all(|person| person.since == hour(week + 10)));

    let new = Register::first(STORE, epoch(1), &[new_person("person:a", 1)], noon());
    assert_eq!(new, Err(PeopleRefusal::TooFew.into()));
}

#[test]
fn an_order_is_used_once_and_in_its_own_store() {
    let used = register().apply(RegisterChange::UseOrder(clock_order(1, 0))).unwrap();
    assert!(used.was_used(crate::id::OrderId::from_bytes([1; 16])));
    let again = |change| used.apply(change).unwrap_err();
    assert_eq!(again(RegisterChange::UseOrder(clock_order(1, 0))), RegisterRefusal::UsedOrder);
    let clock = RegisterChange::SetClock { order: clock_order(1, 0), log_mark: noon() };
    assert_eq!(again(clock), RegisterRefusal::UsedOrder);
    assert_eq!(again(RegisterChange::SetPeople(people_order(1, 7))), RegisterRefusal::UsedOrder);
    let other = Register { store: StoreId::from_bytes([8; 16]), ..register() };
    let foreign = other.apply(RegisterChange::UseOrder(clock_order(2, 0)));
    assert_eq!(foreign, Err(RegisterRefusal::Store));
    let wrong = RegisterChange::SetClock { order: people_order(2, 7), log_mark: noon() };
    assert_eq!(used.apply(wrong), Err(NotAClockOrder.into()));
}

#[test]
fn the_time_goes_back_by_an_order_only() {
    let first = register();
    let ahead = first.apply(later(&first, 20)).unwrap();
    assert_eq!(ahead.clock.at(), hour(20));
    assert_eq!(ahead.apply(later(&first, 19)), Err(RegisterRefusal::TimeReturned));
    let back =
        ahead.apply(RegisterChange::SetClock { order: clock_order(1, 0), log_mark: hour(40) }).unwrap();
    assert_eq!((back.clock.at(), back.clock.log_mark_ignored()), (noon(), Some(hour(40))));
    assert_eq!(ahead.check_successor(&back), Ok(()));
    // What was decided before the order is not accepted after it.
    assert_eq!(back.apply(later(&first, 20)), Err(RegisterRefusal::TimeReturned));
    let on = back.apply(later(&back, 5)).unwrap();
    assert_eq!(ahead.check_successor(&on), Ok(()), "at whatever distance");
    let without = Register { clock: first.clock, version: 9, ..ahead.clone() };
    assert_eq!(ahead.check_successor(&without), Err(RegisterRefusal::TimeReturned));
}

#[test]
fn an_epoch_goes_from_current_to_gone() {
    let at = noon();
    let due = hour(24 * 7);
    let step = |register: &Register, change| register.apply(change).unwrap();
    let refused = |register: &Register, change| register.apply(change).unwrap_err();
    let one = register();
    assert_eq!(refused(&one, begin(1)), RegisterRefusal::EpochState);
    assert_eq!(refused(&one, begin(3)), RegisterRefusal::EpochState);
    assert_eq!(refused(&one, RegisterChange::RetireEpoch { number: 1, at }), RegisterRefusal::EpochState);
    assert_eq!(refused(&one, RegisterChange::Reissue { epoch: 2 }), RegisterRefusal::UnknownEpoch);
    let two = step(&one, begin(2));
    let retired = step(&two, RegisterChange::RetireEpoch { number: 1, at });
    // The register itself would be lost.
    let disable = || RegisterChange::DisableEpoch { number: 1, at };
    assert_eq!(refused(&retired, disable()), RegisterRefusal::Inconsistent);
    let moved = step(&retired, RegisterChange::Reissue { epoch: 2 });
    assert_eq!(refused(&moved, RegisterChange::Reissue { epoch: 1 }), RegisterRefusal::EpochReturned);
    let disabled = step(&moved, disable());
    let schedule = || RegisterChange::ScheduleEpoch { number: 1, scheduled_at: at, due };
    assert_eq!(refused(&moved, schedule()), RegisterRefusal::EpochState);
    let enabled = step(&disabled, RegisterChange::EnableEpoch { number: 1, at });
    assert_eq!(refused(&enabled, schedule()), RegisterRefusal::EpochState);
    let pending = step(&disabled, schedule());
    assert!(matches!(pending.epoch_state(1).unwrap().state, EpochPhase::PendingDeletion { .. }));
    let gone = step(&pending, RegisterChange::EpochGone { number: 1, seen_at: due });
    for change in [disable(), schedule(), RegisterChange::EnableEpoch { number: 1, at }] {
        assert_eq!(refused(&gone, change), RegisterRefusal::EpochState);
    }
    assert_eq!(
        refused(&gone, RegisterChange::EpochGone { number: 2, seen_at: at }),
        RegisterRefusal::EpochState
    );
    assert_eq!(
        refused(&gone, RegisterChange::EpochGone { number: 7, seen_at: at }),
        RegisterRefusal::UnknownEpoch
    );
    assert_eq!(gone.newest_epoch().number, 2);
}

#[test]
fn an_older_or_foreign_register_is_no_successor() {
    let first = register();
    let second = first.apply(RegisterChange::UseOrder(clock_order(1, 0))).unwrap();
    assert_eq!(first.check_successor(&second), Ok(()));
    assert_eq!(second.check_successor(&first), Err(RegisterRefusal::NotNext));
    let third = |change: Register| second.check_successor(&Register { version: 3, ..change });
    let foreign = Register { store: StoreId::from_bytes([8; 16]), ..second.clone() };
    assert_eq!(third(foreign), Err(RegisterRefusal::NotNext));
    assert_eq!(third(Register { used_orders: vec![], ..second.clone() }), Err(RegisterRefusal::Vanished));
    assert_eq!(third(Register { epochs: vec![], ..second.clone() }), Err(RegisterRefusal::Vanished));
    let nobody = Register { people: People::default(), ..second.clone() };
    assert_eq!(third(nobody), Err(RegisterRefusal::Vanished));
    assert_eq!(third(second.clone()), Ok(()));
}

#[derive(Clone, Debug)]
enum Try {
    Found(u8),
    People(u8, u8),
    Accept(i64),
    Clock(u8, i64, i64),
    Use(u8),
    Epoch(u8, u32),
}

fn attempt() -> impl Strategy<Value = Try> {
    prop_oneof![
        (0u8..9).prop_map(Try::Found),
        (0u8..9, 4u8..9).prop_map(|(id, seed)| Try::People(id, seed)),
        (-9i64..40).prop_map(Try::Accept),
        (0u8..9, -9i64..9, -9i64..40).prop_map(|(id, at, mark)| Try::Clock(id, at, mark)),
        (0u8..9).prop_map(Try::Use),
        (0u8..7, 1u32..5).prop_map(|(step, number)| Try::Epoch(step, number)),
    ]
}

fn change(register: &Register, attempt: Try) -> RegisterChange {
    let at = noon();
    match attempt {
        Try::Found(seed) => RegisterChange::FoundPeople {
            people: vec![new_person("person:x", seed), new_person("person:y", seed + 1)],
            now: at,
        },
        Try::People(id, seed) => RegisterChange::SetPeople(people_order(id, seed)),
        Try::Accept(hours) => {
            let on = register.clock.at().max(hour(hours));
            let clocks = crate::retention::clock::Clocks { host: on, storage: Some(on), log: on };
            let time = crate::retention::clock::trust(register.clock, &clocks).unwrap();
            RegisterChange::AcceptTime(time.accepted())
        }
        Try::Clock(id, at, mark) => {
            RegisterChange::SetClock { order: clock_order(id, at), log_mark: hour(mark) }
        }
        Try::Use(id) => RegisterChange::UseOrder(clock_order(id, 0)),
        Try::Epoch(0, number) => begin(number),
        Try::Epoch(1, number) => RegisterChange::RetireEpoch { number, at },
        Try::Epoch(2, number) => RegisterChange::DisableEpoch { number, at },
        Try::Epoch(3, number) => RegisterChange::EnableEpoch { number, at },
        Try::Epoch(4, number) => {
            RegisterChange::ScheduleEpoch { number, scheduled_at: at, due: hour(24 * 7) }
        }
        Try::Epoch(5, number) => RegisterChange::EpochGone { number, seen_at: at },
        Try::Epoch(_, epoch) => RegisterChange::Reissue { epoch },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is tried in whatever order: what is accepted is consistent, follows
    /// from all before it, and reads back.
    #[test]
    fn no_sequence_of_changes_breaks_the_register(
        founded in any::<bool>(), attempts in prop::collection::vec(attempt(), 1..60),
    ) {
        let mut history = vec![if founded { register() } else { empty() }];
        for attempt in attempts {
            let last = history.last().unwrap();
            let tried = change(last, attempt.clone());
            let Ok(next) = last.apply(tried) else { continue };
            prop_assert_eq!(next.check(), Ok(()));
            prop_assert_eq!(next.version, last.version + 1);
            prop_assert!(next.clock.at() >= last.clock.at() || matches!(attempt, Try::Clock(..)));
            for earlier in &history {
                prop_assert_eq!(earlier.check_successor(&next), Ok(()));
                prop_assert!(next.check_successor(earlier).is_err());
            }
            let stored = next.seal(&data_key(1), [4; 24]);
            prop_assert_eq!(&SealedRegister::parse(&stored).unwrap().open(&data_key(1)).unwrap(), &next);
            history.push(next);
        }
    }

    #[test]
    fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Register::from_bytes(&bytes);
        let _ = SealedRegister::parse(&bytes);
    }

    /// The body of what is sealed, which is authentic where it is read: here altered.
    #[test]
    fn what_is_read_has_one_encoding(place in any::<prop::sample::Index>(), bits in 1u8..) {
        let register = register().apply(RegisterChange::SetPeople(people_order(1, 7))).unwrap();
        let mut bytes = register.to_bytes();
        let place = place.index(bytes.len());
        bytes[place] ^= bits;
        if let Ok(read) = Register::from_bytes(&bytes) {
            prop_assert_eq!(read.to_bytes(), bytes);
        }
    }
}
