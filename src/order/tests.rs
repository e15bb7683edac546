use super::testing::*;
use super::*;
use crate::codec::{Decode, Encode};
use crate::retention::clock::trusted_at;

static_assertions::assert_not_impl_any!(ApprovedOrder: Clone, Copy, Default, Serialize);

fn days() -> OrderKind {
    OrderKind::DestroyDays { days: vec!["2028-05-22".parse().unwrap(), "2028-05-24".parse().unwrap()] }
}

fn kinds() -> Vec<OrderKind> {
    let blob = BlobId::new("2028-05-22".parse().unwrap(), [3; 13]).unwrap();
    vec![
        days(),
        OrderKind::DestroyBlob { blob },
        OrderKind::Offboard { return_to: ReturnTo::Resealed },
        OrderKind::ReleaseHold { hold: HoldId::from_bytes([4; 16]) },
        OrderKind::ShortenRetention { period: "P12M".parse().unwrap() },
        OrderKind::SetClock { at: noon() },
        OrderKind::SetPeople {
            add: vec![new_person("person:d", 4), new_person("person:e", 5)],
            remove: vec!["person:a".parse().unwrap()],
        },
    ]
}

fn check_at(order: &SignedOrder, people: &People, at: Timestamp) -> Result<Vec<Principal>, OrderRefusal> {
    Ok(order.approved(STORE, people, &trusted_at(at))?.signers().to_vec())
}

fn check(order: &SignedOrder) -> Result<Vec<Principal>, OrderRefusal> {
    check_at(order, &people(), noon())
}

fn principals(names: &[&str]) -> Vec<Principal> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[test]
fn every_kind_of_order_has_one_text() {
    for kind in kinds() {
        let order = order(1, kind);
        assert_eq!(Order::parse(&order.text()), Ok(order.clone()));
        let signed = signed(order);
        let bytes = signed.note().to_string();
        assert_eq!(SignedOrder::parse(bytes.as_bytes()), Ok(signed));
    }
    let text = order(1, days()).text();
    assert!(text.starts_with("{\n  \"format\": \"strongroom/order/v1\",\n  \"id\": \""), "{text}");
    assert!(text.contains("\"destroy-days\": {\n      \"days\": [\n        \"2028-05-22\","), "{text}");
    assert!(text.contains("\"requested_by\": \"person:a\""), "{text}");
    let set = order(1, kinds().pop().unwrap()).text();
    assert!(set.contains("\"person:d+") && !set.contains("customer"), "{set}");
}

#[test]
fn another_text_is_no_order() {
    let text = order(1, days()).text();
    let parse = |text: &str| Order::parse(text).unwrap_err();
    for bad in [
        text.trim_end().to_owned(),
        text.replace("  ", " "),
        text.replace("order/v1", "order/v2"),
        text.replace("{\n  \"format\"", "{\n  \"extra\": 1,\n  \"format\""),
        text.replace("\"version\": 7", "\"version\": 7.0"),
        text.replace("abab", "ABAB"),
        text.replace("T18:00:00.000000Z", "T18:00:00Z"),
        text.replace("requested_by\": \"person:a\"", "requested_by\": \"Jane Doe\""),
        text.replace("destroy-days", "destroy-everything"),
        format!("{text}\n"),
        String::new(),
    ] {
        assert_eq!(parse(&bad), OrderError::Text, "{bad}");
    }
    for bad in [
        text.replace("\"2028-05-24\"", "\"2028-05-22\""),
        text.replace("\"2028-05-24\"", "\"2028-05-21\""),
        text.replace("person:a", "service:a"),
        text.replace("T18:00", "T06:00"),
        text.replace("\"version\": 7", "\"version\": 0"),
    ] {
        assert_eq!(parse(&bad), OrderError::Fields, "{bad}");
    }
}

#[test]
fn fields_that_do_not_belong_together_are_not_signed() {
    let [a, b, _] = keys();
    let sign = |order: Order| order.sign(&a).unwrap_err();
    let clock = OrderKind::SetClock { at: noon() };
    assert_eq!(sign(order(1, clock).concerning(CUSTOMER, RING)), OrderError::Fields);
    assert_eq!(sign(Order { customer: None, ring: None, ..order(1, days()) }), OrderError::Fields);
    assert_eq!(sign(Order { ring: None, ..order(1, days()) }), OrderError::Fields);
    assert_eq!(sign(order(1, OrderKind::DestroyDays { days: vec![] })), OrderError::Fields);
    assert_eq!(sign(order(1, OrderKind::SetPeople { add: vec![], remove: vec![] })), OrderError::Fields);
    let service = OrderKind::SetPeople { add: vec![], remove: principals(&["service:x"]) };
    assert_eq!(sign(order(1, service)), OrderError::Fields);
    assert_eq!(order(1, days()).sign(&b).unwrap_err(), OrderError::NotTheRequester);
    assert_eq!(order(1, days()).sign(&key("service:a", 1)).unwrap_err(), OrderError::NotAPerson);
    let mut half = order(1, days()).sign(&a).unwrap();
    for name in ["service:b", "unix:0", "example.com/b"] {
        assert_eq!(half.approve(&key(name, 2)), Err(OrderError::NotAPerson), "{name}");
    }
}

#[test]
fn a_clock_is_set_to_about_when_it_is_asked_for() {
    let [a, ..] = keys();
    let hours = |hours| noon().saturating_add(Duration::from_hours(hours));
    let set = |at, requested_at| Order { requested_at, ..order(1, OrderKind::SetClock { at }) };
    let beyond = Duration::from_micros(1);
    for (at, requested_at) in [(hours(1), noon()), (noon(), hours(1))] {
        set(at, requested_at).sign(&a).unwrap();
    }
    for (at, requested_at) in
        [(hours(1).saturating_add(beyond), noon()), (noon(), hours(1).saturating_add(beyond))]
    {
        let far = set(at, requested_at);
        assert_eq!(Order::parse(&far.text()).unwrap_err(), OrderError::Clock);
        assert_eq!(far.sign(&a).unwrap_err(), OrderError::Clock);
    }
}

#[test]
fn two_people_approve_in_any_order_and_a_third_may_join() {
    let [a, b, c] = keys();
    let both = signed(order(1, days()));
    assert_eq!(check(&both), Ok(principals(&["person:a", "person:b"])));

    let lines = [b.sign(both.note().text()), a.sign(both.note().text())];
    let turned = Note::new(both.note().text().to_owned(), lines.to_vec()).unwrap();
    let turned = SignedOrder::parse(turned.to_string().as_bytes()).unwrap();
    assert_eq!(check(&turned), Ok(principals(&["person:a", "person:b"])));

    let mut three = both.clone();
    three.approve(&c).unwrap();
    assert_eq!(check(&three), Ok(principals(&["person:a", "person:b", "person:c"])));

    let approved = both.approved(STORE, &people(), &trusted_at(noon())).unwrap();
    assert_eq!((approved.id(), approved.store()), (OrderId::from_bytes([1; 16]), STORE));
    assert_eq!((approved.customer(), approved.ring()), (Some(CUSTOMER), Some(RING)));
    assert_eq!(approved.kind(), &days());
    assert_eq!(approved.signed(), &both);
    assert_eq!(approved.approved_at(), Bounds { earliest: noon(), latest: noon() });
}

#[test]
fn one_person_is_not_enough_in_whatever_guise() {
    let [a, b, c] = keys();
    let alone = order(1, days()).sign(&a).unwrap();
    assert_eq!(check(&alone), Err(OrderRefusal::Approver));

    let mut twice = alone.clone();
    twice.approve(&a).unwrap();
    assert_eq!(check(&twice), Err(OrderRefusal::Approver));
    let lines = vec![a.sign(alone.note().text()); 2];
    let doubled = Note::new(alone.note().text().to_owned(), lines).unwrap();
    assert_eq!(
        check(&SignedOrder::parse(doubled.to_string().as_bytes()).unwrap()),
        Err(OrderRefusal::Approver)
    );

    // Her own key under another's name, his name with a key of her making, and a stranger's.
    for pretended in [key("person:b", 1), key("person:b", 9), key("person:z", 9)] {
        let mut order = alone.clone();
        order.approve(&pretended).unwrap();
        assert_eq!(check(&order), Err(OrderRefusal::Approver));
    }

    // Two others, and not the requester.
    let mut without = order(1, days()).sign(&a).unwrap();
    without.approve(&b).unwrap();
    without.approve(&c).unwrap();
    let lines = vec![b.sign(without.note().text()), c.sign(without.note().text())];
    let without = Note::new(without.note().text().to_owned(), lines).unwrap();
    let without = SignedOrder::parse(without.to_string().as_bytes()).unwrap();
    assert_eq!(check(&without), Err(OrderRefusal::Requester));
}

#[test]
fn two_names_for_one_key_are_one_person() {
    // The list refuses it; should one ever be read that has it, it counts once.
    let twins = [new_person("person:a", 1), new_person("person:b", 1)];
    assert_eq!(People::found(&twins, noon()), Err(PeopleRefusal::Returned));
    let twins = people::tests_only(vec![
        Person { principal: "person:a".parse().unwrap(), key: twins[0].key(), since: at0(), until: None },
        Person { principal: "person:b".parse().unwrap(), key: twins[1].key(), since: at0(), until: None },
    ]);
    assert!(twins.check().is_err());
    let mut order = order(1, days()).sign(&key("person:a", 1)).unwrap();
    order.approve(&key("person:b", 1)).unwrap();
    assert_eq!(check_at(&order, &twins, noon()), Err(OrderRefusal::Approver));
}

fn at0() -> Timestamp {
    Timestamp::from_micros(0).unwrap()
}

#[test]
fn an_order_has_its_time_and_its_store() {
    let order = signed(order(1, days()));
    let check_at = |time: &str| check_at(&order, &people(), at(time)).map(|_| ());
    assert_eq!(check_at("2026-11-22T05:59:59.999999Z"), Err(OrderRefusal::NotYet));
    assert_eq!(check_at("2026-11-22T06:00:00.000000Z"), Ok(()));
    assert_eq!(check_at("2026-11-22T17:59:59.999999Z"), Ok(()));
    assert_eq!(check_at("2026-11-22T18:00:00.000000Z"), Err(OrderRefusal::Expired));
    let elsewhere = order.approved(StoreId::from_bytes([8; 16]), &people(), &trusted_at(noon()));
    assert_eq!(elsewhere.err(), Some(OrderRefusal::Store));
}

#[test]
fn an_altered_text_is_not_what_was_signed() {
    let order = signed(order(1, days())).note().to_string();
    for (from, to) in
        [("2028-05-24", "2028-05-25"), ("T18:00", "T19:00"), ("\"version\": 7", "\"version\": 8")]
    {
        let altered = SignedOrder::parse(order.replace(from, to).as_bytes()).unwrap();
        assert_eq!(check(&altered), Err(OrderRefusal::Signature), "{from}");
    }
    for bit in 0..order.len() * 8 {
        let mut bytes = order.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let approved = SignedOrder::parse(&bytes).ok().and_then(|order| check(&order).ok());
        assert_eq!(approved, None, "bit {bit}");
    }
}

#[test]
fn who_left_or_has_not_begun_does_not_count() {
    let order = signed(order(1, days()));
    let with = |change: &dyn Fn(&mut Person)| {
        let mut list: Vec<Person> = people().iter().cloned().collect();
        change(&mut list[1]);
        check_at(&order, &people::tests_only(list), noon()).map(|_| ())
    };
    let moment = std::time::Duration::from_micros(1);
    assert_eq!(with(&|b| b.until = Some(noon())), Err(OrderRefusal::Approver));
    assert_eq!(with(&|b| b.until = Some(noon().saturating_add(moment))), Ok(()));
    assert_eq!(with(&|b| b.since = noon()), Ok(()));
    assert_eq!(with(&|b| b.since = noon().saturating_add(moment)), Err(OrderRefusal::Approver));

    // Removed by an order, at once.
    let remove = OrderKind::SetPeople { add: vec![], remove: principals(&["person:b"]) };
    let left = people().apply(&approved(remove)).unwrap();
    assert_eq!(check_at(&order, &left, noon()), Err(OrderRefusal::Approver));
    assert!(people().precede(&left) && !left.precede(&people()));
}

#[test]
fn people_change_by_order_and_never_come_back() {
    let set = |add: &[(&str, u8)], remove: &[&str]| OrderKind::SetPeople {
        add: add.iter().map(|(name, seed)| new_person(name, *seed)).collect(),
        remove: principals(remove),
    };
    let next = people().apply(&approved(set(&[("person:d", 4)], &["person:c"]))).unwrap();
    assert_eq!(next.iter().count(), 4);
    assert_eq!(next.check(), Ok(()));
    assert_eq!(People::from_bytes(&next.to_bytes()), Ok(next.clone()));
    let now = Bounds { earliest: noon(), latest: noon() };
    let valid: Vec<String> =
        next.iter().filter(|p| p.is_valid(&now)).map(|p| p.principal.to_string()).collect();
    assert_eq!(valid, ["person:a", "person:b", "person:d"]);

    let refused = |change| next.apply(&approved(change)).unwrap_err();
    assert_eq!(refused(set(&[("person:c", 7)], &[])), PeopleRefusal::Returned);
    assert_eq!(refused(set(&[("person:f", 3)], &[])), PeopleRefusal::Returned);
    assert_eq!(refused(set(&[], &["person:c"])), PeopleRefusal::Unknown);
    assert_eq!(refused(set(&[], &["person:z"])), PeopleRefusal::Unknown);
    assert_eq!(refused(set(&[], &["person:a", "person:b"])), PeopleRefusal::TooFew);
    assert_eq!(refused(days()), PeopleRefusal::NotAPeopleOrder);
    assert_eq!(People::found(&[new_person("person:a", 1)], noon()), Err(PeopleRefusal::TooFew));
    assert_eq!(People::found(&[], noon()), Ok(People::default()));
}

#[test]
fn a_new_person_is_a_person_with_a_key_for_notes() {
    let key = key("person:a", 1);
    assert!(key.verifier().to_string().parse::<NewPerson>().is_ok());
    assert_eq!(NewPerson::try_from(key.cosigner()), Err(NotAPerson));
    for name in ["service:a", "unix:1", "example.com/a", "person:A"] {
        assert_eq!(NewPerson::try_from(testing::key(name, 1).verifier()), Err(NotAPerson), "{name}");
    }
}

#[test]
fn in_doubt_only_the_clock_is_set_and_only_by_who_could_before() {
    let idle = at("2026-05-22T00:00:00.000000Z");
    let clock = signed(order(1, OrderKind::SetClock { at: noon() }));
    let check = |order: &SignedOrder, last: Timestamp, host: &str, people: &People| {
        order.approved_in_doubt(STORE, people, last, at(host)).map(|order| order.id())
    };
    let id = OrderId::from_bytes([1; 16]);
    assert_eq!(check(&clock, idle, "2026-11-22T12:00:00.000000Z", &people()), Ok(id));
    let destroy = signed(order(1, days()));
    let refused = check(&destroy, idle, "2026-11-22T12:00:00.000000Z", &people());
    assert_eq!(refused, Err(OrderRefusal::TimeInDoubt));
    for (host, why) in [
        ("2026-11-22T05:59:59.999999Z", OrderRefusal::NotYet),
        ("2026-11-22T18:00:00.000000Z", OrderRefusal::Expired),
    ] {
        assert_eq!(check(&clock, idle, host, &people()), Err(why));
    }

    // One administrator founds two people who have to wait, and sets the host's clock.
    let both = [new_person("person:a", 1), new_person("person:b", 2)];
    let waiting = People::found(&both, idle.saturating_add(NOTICE)).unwrap();
    let refused = check(&clock, idle, "2026-11-22T12:00:00.000000Z", &waiting);
    assert_eq!(refused, Err(OrderRefusal::Requester));

    // A wrong far future that was accepted does not make a person of later valid either.
    let far = at("2099-01-01T00:00:00.000000Z");
    let later = People::found(&both, at("2027-01-01T00:00:00.000000Z")).unwrap();
    assert_eq!(check(&clock, far, "2026-11-22T12:00:00.000000Z", &later), Err(OrderRefusal::Requester));
    assert_eq!(check(&clock, far, "2026-11-22T12:00:00.000000Z", &people()), Ok(id));
}
