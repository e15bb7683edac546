use super::*;

const OURS: CustomerId = CustomerId::from_bytes([1; 16]);
const OTHERS: CustomerId = CustomerId::from_bytes([2; 16]);
const TODAY: Day = Day::from_number(20_000);

fn subject(roles: &[Role]) -> Subject {
    Subject {
        principal: Principal::service("s").unwrap(),
        roles: roles.iter().copied().collect(),
        reach: Reach::These([OURS].into()),
        phi: true,
        trained_until: Some(TODAY),
    }
}

fn customer(id: CustomerId) -> Target {
    Target::Customer { id, phi: true, sessions: false, session: None }
}

fn decide(subject: &Subject, operation: Operation, target: Target) -> Decision {
    RoleMatrix.decide(&Question { subject, operation, target, today: TODAY })
}

fn rule(subject: &Subject, operation: Operation, target: Target) -> String {
    decide(subject, operation, target).rule().to_string()
}

/// Every operation by every role on every kind of target, in and out of a session, with and
/// without segment and training: what is allowed has every reason to be, and what is denied
/// names the first that is missing.
#[test]
fn nothing_is_allowed_that_one_condition_forbids() {
    let session = Some(SessionId::from_bytes([3; 16]));
    let trained = [None, Some(Day::from_number(19_999)), Some(TODAY), Some(TODAY.plus(1))];
    let mut asked = 0;
    for role in Role::ALL {
        for operation in Operation::ALL {
            for (id, phi, sessions, open) in [OURS, OTHERS]
                .into_iter()
                .flat_map(|id| (0..8).map(move |bits| (id, bits & 1 != 0, bits & 2 != 0, bits & 4 != 0)))
            {
                for (segment, trained_until) in trained.iter().flat_map(|at| [(true, *at), (false, *at)]) {
                    let subject = Subject { phi: segment, trained_until, ..subject(&[*role]) };
                    let target = Target::Customer { id, phi, sessions, session: session.filter(|_| open) };
                    let expected = if !RoleMatrix::allows(*role, *operation) {
                        "deny.role".to_owned()
                    } else if operation.takes_person() {
                        "deny.person".to_owned()
                    } else if id != OURS {
                        "deny.customer".to_owned()
                    } else if phi && !segment {
                        "deny.segment".to_owned()
                    } else if phi && trained_until.is_none_or(|until| until < TODAY) {
                        "deny.training".to_owned()
                    } else if sessions && !open && operation.takes_session() {
                        "deny.session".to_owned()
                    } else {
                        format!("role.{role}")
                    };
                    let decision = decide(&subject, *operation, target);
                    assert_eq!(decision.rule().as_str(), expected);
                    assert_eq!(decision.is_allowed(), expected.starts_with("role."));
                    asked += 1;
                }
            }
        }
    }
    assert_eq!(asked, Role::ALL.len() * Operation::ALL.len() * 16 * 8);
}

/// And what a program is denied, a person is not.
#[test]
fn a_person_declares_an_emergency_and_no_program_does() {
    let person = Principal::person("p-1").unwrap();
    for (role, operation) in
        [(Role::Reader, Operation::EmergencyDeclare), (Role::PrivacyOfficer, Operation::EmergencyReview)]
    {
        let program = subject(&[role]);
        assert_eq!(rule(&program, operation, customer(OURS)), "deny.person");
        let unix = Subject { principal: Principal::Unix(0), ..program.clone() };
        assert_eq!(rule(&unix, operation, customer(OURS)), "deny.person");
        let person = Subject { principal: person.clone(), ..program };
        assert_eq!(rule(&person, operation, customer(OURS)), format!("role.{role}"));
        assert_eq!(rule(&person, operation, customer(OTHERS)), "deny.customer");
        let untrained = Subject { trained_until: None, ..person };
        assert_eq!(rule(&untrained, operation, customer(OURS)), "deny.training");
    }
}

#[test]
fn training_lapses_and_returns_by_its_date() {
    let reader = subject(&[Role::Reader]);
    let at = |today| {
        RoleMatrix.decide(&Question {
            subject: &reader,
            operation: Operation::Open,
            target: customer(OURS),
            today,
        })
    };
    assert!(at(TODAY).is_allowed());
    assert_eq!(at(TODAY.plus(1)).rule().as_str(), "deny.training");
    let again = Subject { trained_until: Some(TODAY.plus(365)), ..reader.clone() };
    assert!(decide(&again, Operation::Open, customer(OURS)).is_allowed());
}

#[test]
fn nobody_does_anything_without_a_role() {
    let nobody = Subject { reach: Reach::All, ..subject(&[]) };
    for operation in Operation::ALL {
        for target in [Target::Store, customer(OURS)] {
            assert_eq!(rule(&nobody, *operation, target), "deny.role");
        }
    }
}

#[test]
fn what_concerns_all_customers_is_for_who_is_there_for_all() {
    let some = subject(&[Role::Auditor]);
    assert_eq!(rule(&some, Operation::AuditRead, Target::Store), "deny.customer");
    assert_eq!(rule(&some, Operation::AuditRead, customer(OURS)), "role.auditor");
    assert_eq!(rule(&some, Operation::EpochRead, Target::Store), "role.auditor");
    let all = Subject { reach: Reach::All, ..some.clone() };
    assert_eq!(rule(&all, Operation::AuditRead, Target::Store), "role.auditor");
    // What is left out for them may have been PHI.
    assert_eq!(rule(&some, Operation::OrderRead, Target::Covered), "role.auditor");
    assert_eq!(
        rule(&Subject { phi: false, ..some.clone() }, Operation::OrderRead, Target::Covered),
        "deny.segment"
    );
    let untrained = Subject { trained_until: None, ..some };
    assert_eq!(rule(&untrained, Operation::OrderRead, Target::Covered), "deny.training");
}

/// What no role, and no two roles that one may have, are to do together.
#[test]
fn duties_are_separated() {
    let may = |roles: &[Role], operation| roles.iter().any(|role| RoleMatrix::allows(*role, operation));
    let changes_keys =
        [Operation::CustomerAdd, Operation::CustomerSet, Operation::Rekey, Operation::EpochRotate];
    let changes = |roles: &[Role]| {
        Operation::ALL.iter().any(|operation| {
            let reads = matches!(
                operation,
                Operation::CustomerList
                    | Operation::CustomerFind
                    | Operation::CustomerRead
                    | Operation::ShredRead
                    | Operation::OrderRead
                    | Operation::CertificateRead
                    | Operation::EpochRead
                    | Operation::AuditRead
                    | Operation::SessionRead
                    | Operation::EmergencyRead
            );
            !reads && may(roles, *operation)
        })
    };
    for (one, other) in Role::ALL.iter().flat_map(|one| Role::ALL.iter().map(move |other| (*one, *other))) {
        assert_eq!(RoleMatrix::go_together(one, other), RoleMatrix::go_together(other, one));
        if !RoleMatrix::go_together(one, other) {
            assert_ne!(one, other);
            continue;
        }
        let roles = [one, other];
        let administers = changes_keys.iter().any(|operation| may(&roles, *operation));
        let sees = Operation::ALL.iter().any(|operation| operation.sees_content() && may(&roles, *operation));
        assert!(!(administers && sees), "{one} and {other}");
        let ends = may(&roles, Operation::OrderRequest) || may(&roles, Operation::OrderApprove);
        assert!(!(administers && ends), "{one} and {other}");
        let lets_in = may(&roles, Operation::AccessApprove) || may(&roles, Operation::SessionOpen);
        assert!(!(lets_in && may(&roles, Operation::Open)), "{one} and {other}");
        let declares = may(&roles, Operation::EmergencyDeclare);
        assert!(!(declares && may(&roles, Operation::EmergencyReview)), "{one} and {other}");
        assert!(!(roles.contains(&Role::Auditor) && changes(&roles)), "{one} and {other}");
    }
}

#[test]
fn the_manual_has_the_table() {
    let manual = include_str!("../../manual/access.md");
    assert!(manual.contains(&RoleMatrix::table()), "put this into the manual:\n{}", RoleMatrix::table());
    for role in Role::ALL {
        assert!(manual.contains(&format!("**{role}**")), "{role}");
    }
}

#[test]
fn codes_and_rules_have_one_text() {
    for role in Role::ALL {
        assert_eq!(role.code().parse(), Ok(*role));
        let rule = format!("role.{role}");
        assert_eq!(rule.parse::<RuleId>().unwrap().to_string(), rule);
    }
    for operation in Operation::ALL {
        assert_eq!(operation.code().parse(), Ok(*operation));
        assert_eq!(serde_json::to_value(operation).unwrap(), operation.code());
    }
    for bad in ["", "Jane Doe", "a b", &"a".repeat(65)] {
        assert!(bad.parse::<RuleId>().is_err(), "{bad}");
        assert!(bad.parse::<Role>().is_err());
    }
}
