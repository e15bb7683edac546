use proptest::prelude::*;

use super::*;
use crate::order::testing;

static_assertions::assert_not_impl_any!(TrustedTime: Copy, Default);

const MINUTE: u64 = 60_000_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn at(micros: u64) -> Timestamp {
    Timestamp::from_micros(micros).unwrap()
}

fn first(micros: u64) -> AcceptedTime {
    AcceptedTime::first(at(micros))
}

/// Some day, far from either end.
const START: u64 = 20_000 * DAY;

fn alone(last: AcceptedTime, host: u64, log: u64) -> Result<TrustedTime, ClockDoubt> {
    trust(last, &Clocks { host: at(host), storage: None, log: at(log) })
}

fn both(last: AcceptedTime, host: u64, storage: u64, log: u64) -> Result<TrustedTime, ClockDoubt> {
    trust(last, &Clocks { host: at(host), storage: Some(at(storage)), log: at(log) })
}

#[test]
fn the_earlier_of_two_clocks_that_agree_is_the_time() {
    let last = first(START);
    let time = both(last, START + 4 * MINUTE, START, START).unwrap();
    assert_eq!((time.at(), time.idle(), time.order()), (at(START), false, None));
    assert_eq!(time.bounds(), Bounds { earliest: at(START), latest: at(START + 4 * MINUTE) });
    let sources: Vec<_> = time.readings().iter().map(|reading| reading.source).collect();
    assert_eq!(sources, [ClockSource::Host, ClockSource::Storage, ClockSource::Log]);
    assert_eq!(both(last, START, START + 5 * MINUTE, START).unwrap().at(), at(START));
    for (host, storage) in [(5 * MINUTE + 1, 0), (0, 5 * MINUTE + 1), (20 * HOUR, 0)] {
        let apart = both(last, START + host, START + storage, START);
        assert_eq!(apart.err(), Some(ClockDoubt::Apart), "{host} {storage}");
    }
}

#[test]
fn a_host_alone_is_held_against_the_log() {
    let last = first(START);
    for (host, log, expected) in [
        (START + 25 * HOUR, START, None),
        (START + 25 * HOUR + 1, START, Some(ClockDoubt::Jumped)),
        (START + 49 * HOUR, START + DAY, None),
        (START + 10 * HOUR, START + 10 * HOUR + 5 * MINUTE, None),
        (START + 10 * HOUR, START + 10 * HOUR + 5 * MINUTE + 1, Some(ClockDoubt::BehindLog)),
        (START - 5 * MINUTE, START, None),
        (START - 5 * MINUTE - 1, START, Some(ClockDoubt::WentBack)),
    ] {
        assert_eq!(alone(last, host, log).err(), expected, "{host} {log}");
    }
    let time = alone(last, START + HOUR, START).unwrap();
    assert_eq!(time.at(), at(START + HOUR));
    assert_eq!(time.readings().len(), 2);
}

#[test]
fn two_clocks_vouch_for_an_idle_time_and_one_does_not() {
    let last = first(START);
    let later = START + 540 * DAY;
    let time = both(last, later, later, START).unwrap();
    assert!(time.idle());
    assert_eq!(time.readings().len(), 2);
    assert_eq!(alone(last, later, START).err(), Some(ClockDoubt::Jumped));
    // The log is ahead, as another node's clock was wrong: two clocks outweigh it.
    let time = both(last, START + HOUR, START + HOUR, START + 20 * HOUR).unwrap();
    assert!(!time.idle());
    assert_eq!(time.readings().len(), 2);
}

#[test]
fn a_jump_that_was_written_to_the_log_builds_no_bridge() {
    let last = first(START);
    let jumped = START + 540 * DAY;
    let log = bridge(last.at(), [START + HOUR, jumped, jumped + MINUTE].map(at));
    assert_eq!(log, at(START + HOUR));
    assert_eq!(alone(last, jumped + MINUTE, log.micros()).err(), Some(ClockDoubt::Jumped));
    // Nor does it when the same commits lie in front of what was accepted last.
    assert_eq!(bridge(at(jumped), [START, START + HOUR].map(at)), at(jumped));
    assert_eq!(bridge(at(START), [START + 25 * HOUR, START + 50 * HOUR].map(at)), at(START + 50 * HOUR));
    assert_eq!(bridge(at(START), [START + 25 * HOUR + 1].map(at)), at(START));
    assert_eq!(bridge(at(START), []), at(START));
}

#[test]
fn an_order_cures_a_wrong_future_for_good() {
    let noon = testing::noon();
    let order = || testing::approved(OrderKind::SetClock { at: noon });
    let wrong = at(noon.micros() + 20 * HOUR);
    let poisoned = AcceptedTime::first(wrong);
    assert_eq!(alone(poisoned, noon.micros(), 0).err(), Some(ClockDoubt::WentBack));

    let mut last = AcceptedTime::ordered(&order(), wrong).unwrap();
    assert_eq!((last.at(), last.log_mark_ignored()), (noon, Some(wrong)));
    assert_eq!(last.order(), Some(order().id()));
    assert_eq!(AcceptedTime::from_bytes(&last.to_bytes()), Ok(last));
    // While the mark stands nothing but what was accepted is remembered, until the
    // time has passed it.
    for hours in [1, 19, 30, 54] {
        let host = noon.micros() + hours * HOUR;
        let time = alone(last, host, last.at().micros()).unwrap();
        assert_eq!(time.order(), Some(order().id()));
        last = time.accepted();
        assert_eq!(last.log_mark_ignored().is_some(), hours < 20);
    }
    // A mark that is not later than the order is no wrong one.
    assert_eq!(AcceptedTime::ordered(&order(), noon).unwrap().log_mark_ignored(), None);
    let other = testing::approved(OrderKind::DestroyDays { days: vec![noon.day()] });
    assert_eq!(AcceptedTime::ordered(&other, noon), Err(NotAClockOrder));
}

#[test]
fn an_accepted_time_has_one_encoding() {
    let bytes = first(START).to_bytes();
    assert_eq!(AcceptedTime::from_bytes(&bytes), Ok(first(START)));
    for place in [8, 9, 16, 17, 18, 33] {
        let mut bad = bytes.clone();
        bad[place] = 1;
        if place == 17 {
            // An order of zeros is one.
            assert!(AcceptedTime::from_bytes(&bad).unwrap().order().is_some());
        } else {
            assert!(AcceptedTime::from_bytes(&bad).is_err(), "{place}");
        }
    }
}

#[test]
fn a_doubt_says_what_to_do() {
    for doubt in [ClockDoubt::Apart, ClockDoubt::WentBack, ClockDoubt::BehindLog, ClockDoubt::Jumped] {
        assert!(doubt.to_string().contains("correct "), "{doubt}");
        assert_eq!(PublicError::from(doubt).kind(), ErrorKind::Denied);
    }
}

proptest! {
    /// Whatever the sources say and whichever was accepted: the time is no later than
    /// either clock, and not before what was accepted but for what clocks differ.
    #[test]
    fn the_time_is_never_later_than_the_earlier_clock(
        last in 0..40 * DAY, host in 0..40 * DAY, storage in 0..40 * DAY, near in any::<bool>(), log in 0..40 * DAY,
    ) {
        let storage = if near { host + storage % (10 * MINUTE) } else { storage };
        let last = first(START + last);
        let (host, storage, log) = (START + host, START + storage, START + log);
        if let Ok(time) = both(last, host, storage, log) {
            prop_assert_eq!(time.at(), at(host.min(storage)));
            prop_assert!(host.abs_diff(storage) <= 5 * MINUTE);
            prop_assert!(time.at().micros() + 5 * MINUTE >= last.at().micros());
            prop_assert!(time.accepted().at() >= last.at());
            prop_assert!(time.readings().len() >= 2);
        }
        if let Ok(time) = alone(last, host, log) {
            prop_assert_eq!(time.at(), at(host));
            let memory = log.max(last.at().micros());
            prop_assert!(host <= memory + 25 * HOUR && host + 5 * MINUTE >= memory);
            prop_assert!(!time.idle());
        }
    }

    /// A host that jumped stays refused whatever it writes to the log from then on.
    #[test]
    fn a_jump_is_refused_however_often_it_is_written(
        honest in prop::collection::vec(0..30 * HOUR, 0..20), jump in 26 * HOUR..900 * DAY,
        written in prop::collection::vec(0..30 * HOUR, 1..20),
    ) {
        let mut now = START;
        let mut times: Vec<Timestamp> = honest.iter().map(|by| { now += by.min(&(25 * HOUR)); at(now) }).collect();
        let last = first(START);
        prop_assert_eq!(bridge(last.at(), times.iter().copied()), at(now));
        let mut jumped = now + jump;
        for by in written {
            times.push(at(jumped));
            let log = bridge(last.at(), times.iter().copied());
            prop_assert_eq!(log, at(now));
            prop_assert_eq!(alone(last, jumped, log.micros()).err(), Some(ClockDoubt::Jumped));
            jumped += by;
        }
    }

    /// A clock that went back is refused until it has caught up, and then trusted.
    #[test]
    fn a_clock_that_went_back_is_refused_until_it_has_caught_up(back in 6 * MINUTE..900 * DAY, step in MINUTE..DAY) {
        let last = first(START + 1000 * DAY);
        let mut now = last.at().micros() - back;
        while now + 5 * MINUTE < last.at().micros() {
            prop_assert_eq!(alone(last, now, 0).err(), Some(ClockDoubt::WentBack));
            prop_assert_eq!(both(last, now, now, 0).err(), Some(ClockDoubt::WentBack));
            now += step.max(back / 100);
        }
        if now <= last.at().micros() + 25 * HOUR {
            prop_assert!(alone(last, now, 0).is_ok());
        }
        prop_assert!(both(last, now, now, 0).is_ok());
    }

    /// Sweeps that come daily are never stuck, with whatever was written in between.
    #[test]
    fn daily_sweeps_never_get_stuck(
        pauses in prop::collection::vec(0..25 * HOUR, 1..60), poison in prop::option::of(26 * HOUR..900 * DAY),
    ) {
        let mut last = first(START);
        let mut now = START;
        for pause in pauses {
            now += pause;
            // Somebody else's clock was wrong, and the log is stuck in its future.
            let log = bridge(last.at(), poison.map(|ahead| at(START + ahead)).filter(|mark| mark.micros() > now + 25 * HOUR));
            let time = alone(last, now, log.micros());
            prop_assert!(time.is_ok(), "{:?}", time);
            last = time.unwrap().accepted();
        }
    }

    /// Skipping from the last commit within reach to the next is all the same as to
    /// look at every one: what the log does, that does not read everything.
    #[test]
    fn a_bridge_is_found_by_its_last_stones(gaps in prop::collection::vec(0..30 * HOUR, 0..40)) {
        let mut now = START;
        let times: Vec<Timestamp> = gaps.into_iter().map(|gap| { now += gap; at(now) }).collect();
        let mut reach = at(START);
        loop {
            let last = times.iter().copied().rfind(|time| *time <= reach.saturating_add(STEP));
            match last.filter(|last| *last > reach) {
                Some(further) => reach = further,
                None => break,
            }
        }
        prop_assert_eq!(bridge(at(START), times), reach);
    }
}
