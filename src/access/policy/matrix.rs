//! The built-in policy: a table of roles and operations, and conditions over it.

use super::{Decision, Operation, Policy, Principal, Question, Reach, Role, RuleId, Target};

/// The built-in policy. Its table is printed in the manual, and a test holds the two
/// together.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoleMatrix;

impl RoleMatrix {
    /// Whether a role may do something, conditions aside.
    #[must_use]
    pub const fn allows(role: Role, operation: Operation) -> bool {
        use Operation as Op;
        // Whoever is there for a customer may know which it is.
        if matches!(operation, Op::CustomerFind) {
            return true;
        }
        match role {
            Role::Writer => matches!(operation, Op::Seal | Op::Extend),
            Role::Reader => {
                matches!(
                    operation,
                    Op::Open
                        | Op::Stat
                        | Op::List
                        | Op::Verify
                        | Op::AccessRequest
                        | Op::SessionRead
                        | Op::EmergencyDeclare
                )
            }
            Role::BackupJob => {
                matches!(
                    operation,
                    Op::Seal | Op::Extend | Op::Stat | Op::List | Op::Verify | Op::SessionRead
                )
            }
            Role::KeyAdministrator => matches!(
                operation,
                Op::CustomerList
                    | Op::CustomerRead
                    | Op::CustomerAdd
                    | Op::CustomerSet
                    | Op::Rekey
                    | Op::EpochRead
                    | Op::EpochRotate
            ),
            Role::PrivacyOfficer => matches!(
                operation,
                Op::Extend
                    | Op::ExtendFar
                    | Op::CustomerRead
                    | Op::HoldPlace
                    | Op::ShredRead
                    | Op::ShredCancel
                    | Op::OrderRead
                    | Op::OrderRequest
                    | Op::OrderApprove
                    | Op::CertificateRead
                    | Op::AuditRead
                    | Op::SessionOpen
                    | Op::SessionEnd
                    | Op::SessionRead
                    | Op::AccessApprove
                    | Op::EmergencyReview
                    | Op::EmergencyRead
            ),
            Role::Auditor => matches!(
                operation,
                Op::CustomerList
                    | Op::CustomerRead
                    | Op::ShredRead
                    | Op::OrderRead
                    | Op::CertificateRead
                    | Op::EpochRead
                    | Op::AuditRead
                    | Op::SessionRead
                    | Op::EmergencyRead
            ),
            Role::Operator => matches!(
                operation,
                Op::CustomerList
                    | Op::ShredRead
                    | Op::ShredRun
                    | Op::EpochRead
                    | Op::AuditPublish
                    | Op::SessionEnd
                    | Op::SessionRead
                    | Op::Metrics
            ),
        }
    }

    /// Whether one may have both roles. Who administers keys sees no data and sets no end
    /// to it; who audits does nothing else.
    #[must_use]
    pub const fn go_together(one: Role, other: Role) -> bool {
        match (one, other) {
            (Role::Auditor, Role::Auditor) => true,
            (Role::Auditor, _) | (_, Role::Auditor) => false,
            (Role::KeyAdministrator, Role::Reader | Role::BackupJob | Role::PrivacyOfficer)
            | (Role::Reader | Role::BackupJob | Role::PrivacyOfficer, Role::KeyAdministrator) => false,
            // Who opens sessions and approves access is not who uses them.
            (Role::PrivacyOfficer, Role::Reader) | (Role::Reader, Role::PrivacyOfficer) => false,
            _ => true,
        }
    }

    /// The table, as the manual has it.
    #[must_use]
    pub fn table() -> String {
        let mut table = String::from("| |");
        for role in Role::ALL {
            table.push_str(&format!(" {role} |"));
        }
        table.push_str("\n|---|");
        table.push_str(&"---|".repeat(Role::ALL.len()));
        for operation in Operation::ALL {
            table.push_str(&format!("\n| `{operation}` |"));
            for role in Role::ALL {
                table.push_str(if Self::allows(*role, *operation) { " yes |" } else { " |" });
            }
        }
        table.push('\n');
        table
    }
}

const NO_ROLE: RuleId = RuleId::fixed("deny.role");
const NO_PERSON: RuleId = RuleId::fixed("deny.person");
const OTHER_CUSTOMER: RuleId = RuleId::fixed("deny.customer");
const OTHER_SEGMENT: RuleId = RuleId::fixed("deny.segment");
const UNTRAINED: RuleId = RuleId::fixed("deny.training");
const NO_SESSION: RuleId = RuleId::fixed("deny.session");

/// The rule by which a role allows.
const fn by(role: Role) -> RuleId {
    RuleId::fixed(match role {
        Role::Writer => "role.writer",
        Role::Reader => "role.reader",
        Role::BackupJob => "role.backup-job",
        Role::KeyAdministrator => "role.key-administrator",
        Role::PrivacyOfficer => "role.privacy-officer",
        Role::Auditor => "role.auditor",
        Role::Operator => "role.operator",
    })
}

impl Policy for RoleMatrix {
    fn decide(&self, question: &Question<'_>) -> Decision {
        let Question { subject, operation, target, today } = *question;
        let role = subject.roles.iter().find(|role| Self::allows(**role, operation));
        let Some(role) = role else { return Decision::Denied(NO_ROLE) };
        if operation.takes_person() && !matches!(subject.principal, Principal::Person(_)) {
            return Decision::Denied(NO_PERSON);
        }
        match target {
            // What is asked of all customers is not for who is there for some.
            Target::Store if !operation.is_of_store() && subject.reach != Reach::All => {
                Decision::Denied(OTHER_CUSTOMER)
            }
            Target::Store => Decision::Allowed(by(*role)),
            Target::Customer { id, .. } if !subject.reach.covers(id) => Decision::Denied(OTHER_CUSTOMER),
            // One of them may have PHI.
            Target::Customer { phi: true, .. } | Target::Covered if !subject.phi => {
                Decision::Denied(OTHER_SEGMENT)
            }
            Target::Customer { phi: true, .. } | Target::Covered
                if subject.trained_until.is_none_or(|until| until < today) =>
            {
                Decision::Denied(UNTRAINED)
            }
            Target::Customer { sessions: true, session: None, .. } if operation.takes_session() => {
                Decision::Denied(NO_SESSION)
            }
            Target::Customer { .. } | Target::Covered => Decision::Allowed(by(*role)),
        }
    }
}
