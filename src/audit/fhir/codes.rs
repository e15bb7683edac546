//! The codes, each with the system it is defined in.
//!
//! The matches have no wildcard: a new [`Action`], [`OutcomeResult`] or
//! [`Purpose`] does not compile until somebody has decided what it is called.

use serde::Serialize;

use crate::access::Purpose;
use crate::audit::{Action, OutcomeResult};

/// DICOM PS3.16, the terms of DICOM itself.
const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
/// FHIR R4, `CodeSystem/restful-interaction`.
const INTERACTION: &str = "http://hl7.org/fhir/restful-interaction";
/// FHIR R4, `CodeSystem/audit-entity-type`.
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
/// FHIR R4, `CodeSystem/object-role`.
const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
/// FHIR R4, `CodeSystem/dicom-audit-lifecycle`.
const LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/dicom-audit-lifecycle";
/// HL7 v3, who takes part in an act.
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
/// HL7 v3, why an act is done; `PurposeOfUse` is a part of it.
const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Coding {
    system: &'static str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display: Option<&'static str>,
}

const fn coding(system: &'static str, code: &'static str, display: &'static str) -> Coding {
    Coding { system, code, display: Some(display) }
}

pub(super) const SECURITY_ALERT: Coding = coding(DCM, "110113", "Security Alert");
pub(super) const RESTRICTED_FUNCTION: Coding = coding(DCM, "110132", "Use of Restricted Function");
pub(super) const APPLICATION_SERVER: Coding =
    coding("http://terminology.hl7.org/CodeSystem/security-source-type", "4", "Application Server");
pub(super) const SYSTEM_OBJECT: Coding = coding(ENTITY_TYPE, "2", "System Object");
pub(super) const ORGANIZATION: Coding = coding(ENTITY_TYPE, "3", "Organization");
pub(super) const OTHER: Coding = coding(ENTITY_TYPE, "4", "Other");
pub(super) const DOMAIN_RESOURCE: Coding = coding(OBJECT_ROLE, "4", "Domain Resource");
pub(super) const SECURITY_RESOURCE: Coding = coding(OBJECT_ROLE, "13", "Security Resource");
pub(super) const CUSTOMER: Coding = coding(OBJECT_ROLE, "19", "Customer");
/// IHE BALP, `CodeSystem/BasicAuditEntityType`.
pub(super) const X_REQUEST_ID: Coding = Coding {
    system: "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType",
    code: "XrequestId",
    display: None,
};

const REST: Coding =
    coding("http://terminology.hl7.org/CodeSystem/audit-event-type", "rest", "RESTful Operation");
const AUDIT_LOG: Coding = coding(DCM, "110101", "Audit Log Used");
const USER_AUTHENTICATION: Coding = coding(DCM, "110114", "User Authentication");
const LOGIN: Coding = coding(DCM, "110122", "Login");
const APPLICATION_ACTIVITY: Coding = coding(DCM, "110100", "Application Activity");
const VERIFY: Coding = coding(
    "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle",
    "verify",
    "Verify Record Lifecycle Event",
);
const SECURITY_CONFIGURATION: Coding = coding(DCM, "110129", "Security Configuration");
const CREATE: Coding = coding(INTERACTION, "create", "create");
const UPDATE: Coding = coding(INTERACTION, "update", "update");
const READ: Coding = coding(INTERACTION, "read", "read");
const SEARCH: Coding = coding(INTERACTION, "search", "search");
const ORIGINATION: Coding = coding(LIFECYCLE, "1", "Origination / Creation");
const AMENDMENT: Coding = coding(LIFECYCLE, "3", "Amendment");
const VERIFICATION: Coding = coding(LIFECYCLE, "4", "Verification");
const ACCESS: Coding = coding(LIFECYCLE, "6", "Access / Use");

/// The types of BALP's three agents.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roles {
    pub(super) user: Coding,
    pub(super) client: Coding,
    pub(super) server: Coding,
}

const SOURCE: Coding = coding(DCM, "110153", "Source Role ID");
const DESTINATION: Coding = coding(DCM, "110152", "Destination Role ID");
const AUTHOR: Coding = coding(PARTICIPATION, "AUT", "author (originator)");
const RECIPIENT: Coding = coding(PARTICIPATION, "IRCP", "information recipient");

/// What flows to the store (BALP Create and Update).
const INWARD: Roles = Roles { user: AUTHOR, client: SOURCE, server: DESTINATION };
/// What flows from the store (BALP Read).
const OUTWARD: Roles = Roles { user: RECIPIENT, client: DESTINATION, server: SOURCE };
/// What is asked: the question flows to the store (BALP Query).
const QUESTION: Roles = Roles { user: RECIPIENT, client: SOURCE, server: DESTINATION };

/// What an action looks like in an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pattern {
    /// `type`, where the outcome is no alert.
    pub(super) kind: Coding,
    /// The standard's subtype, besides our own.
    pub(super) subtype: Option<Coding>,
    /// `action`, where the outcome is no alert: C, R, U, D or E.
    pub(super) action: &'static str,
    /// What it is in the life of the blob.
    pub(super) lifecycle: Option<Coding>,
    pub(super) roles: Roles,
    /// The BALP profile that a success may meet.
    pub(super) profile: Option<&'static str>,
}

const BALP_CREATE: Pattern = Pattern {
    kind: REST,
    subtype: Some(CREATE),
    action: "C",
    lifecycle: Some(ORIGINATION),
    roles: INWARD,
    profile: Some("https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.Create"),
};

const BALP_UPDATE: Pattern = Pattern {
    kind: REST,
    subtype: Some(UPDATE),
    action: "U",
    lifecycle: Some(AMENDMENT),
    roles: INWARD,
    profile: None,
};

const BALP_READ: Pattern = Pattern {
    kind: REST,
    subtype: Some(READ),
    action: "R",
    lifecycle: Some(ACCESS),
    roles: OUTWARD,
    profile: Some("https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.Read"),
};

const BALP_QUERY: Pattern = Pattern {
    kind: REST,
    subtype: Some(SEARCH),
    action: "E",
    lifecycle: Some(ACCESS),
    roles: QUESTION,
    profile: None,
};

const VERIFICATION_OF_BLOB: Pattern = Pattern {
    kind: VERIFY,
    subtype: None,
    action: "E",
    lifecycle: Some(VERIFICATION),
    roles: QUESTION,
    profile: None,
};

/// A change of keys or customers, with the letter of its kind.
const fn configuration(action: &'static str) -> Pattern {
    Pattern {
        kind: APPLICATION_ACTIVITY,
        subtype: Some(SECURITY_CONFIGURATION),
        action,
        lifecycle: None,
        roles: INWARD,
        profile: None,
    }
}

/// A use of a key, with the letter of its kind.
const fn key_use(action: &'static str) -> Pattern {
    Pattern {
        kind: APPLICATION_ACTIVITY,
        subtype: Some(RESTRICTED_FUNCTION),
        action,
        lifecycle: None,
        roles: OUTWARD,
        profile: None,
    }
}

/// Somebody who was to be let in.
const ADMISSION: Pattern = Pattern {
    kind: USER_AUTHENTICATION,
    subtype: Some(LOGIN),
    action: "E",
    lifecycle: None,
    roles: INWARD,
    profile: None,
};

const AUDIT_LOG_USED: Pattern =
    Pattern { kind: AUDIT_LOG, subtype: None, action: "R", lifecycle: None, roles: OUTWARD, profile: None };

pub(super) fn pattern(action: Action) -> Pattern {
    match action {
        Action::Seal => BALP_CREATE,
        // Metadata is a part of the blob, and a range is one too.
        Action::Open | Action::OpenRange | Action::Stat | Action::OffboardReturn => BALP_READ,
        Action::List | Action::Find => BALP_QUERY,
        Action::Verify => VERIFICATION_OF_BLOB,
        Action::Extend | Action::Rewrap => BALP_UPDATE,
        Action::Init
        | Action::CustomerAdd
        | Action::HoldPlace
        | Action::Certify
        | Action::OrderRequest
        | Action::AccessRequest
        | Action::EmergencyDeclare => configuration("C"),
        // A version of a ring is new, and the ring is not.
        Action::CustomerSet
        | Action::RingWrite
        | Action::ShredPend
        | Action::ShredCancel
        | Action::OrderApprove
        | Action::AccessApprove
        | Action::PeopleSet
        | Action::ClockSet
        | Action::RegisterWrite
        | Action::EpochWrite
        | Action::Rekey
        | Action::EmergencyFold
        | Action::EmergencyReview
        | Action::AccessMap
        | Action::LogKeyRotate
        | Action::ClockConfirm => configuration("U"),
        Action::HoldRelease | Action::OffboardClose => configuration("D"),
        // A grant lets a key be used for as long as there is one.
        Action::EpochCreate | Action::SessionOpen => key_use("C"),
        Action::EpochDisable | Action::EpochEnable => key_use("U"),
        Action::ShredDrop
        | Action::CiphertextDelete
        | Action::EpochDelete
        | Action::CustomerKeyDelete
        | Action::SessionEnd => key_use("D"),
        Action::KmsGenerateDataKey | Action::KmsDecrypt | Action::ShredSweep => key_use("E"),
        Action::KeysRead => key_use("R"),
        Action::Admit => ADMISSION,
        Action::CustomerRead => configuration("R"),
        Action::AuditRead => AUDIT_LOG_USED,
    }
}

/// Our own code of an action, as a subtype.
pub(super) fn action(action: Action) -> Coding {
    Coding { system: "urn:strongroom:audit-action", code: action.code(), display: None }
}

/// FHIR R4 `audit-event-outcome`: 4 is likened to HTTP's 400, what the caller can
/// mend; 8 to 500; 12 is a system that died. For alerts, PS3.15 A.5.3.11: 4 and 8
/// say that security held, and it did, since nothing was released.
pub(super) fn outcome(result: OutcomeResult) -> &'static str {
    match result {
        OutcomeResult::Ok => "0",
        OutcomeResult::Aborted
        | OutcomeResult::KeyDestroyed
        | OutcomeResult::NotFound
        | OutcomeResult::Conflict
        | OutcomeResult::Denied => "4",
        OutcomeResult::AuthenticationFailed
        | OutcomeResult::IntegrityFailed
        | OutcomeResult::KeyUnavailable
        | OutcomeResult::Unavailable
        | OutcomeResult::Failed => "8",
        OutcomeResult::Unknown => "12",
    }
}

/// Whether somebody should look at it.
pub(super) fn is_alert(result: OutcomeResult) -> bool {
    match result {
        OutcomeResult::Denied | OutcomeResult::AuthenticationFailed | OutcomeResult::IntegrityFailed => true,
        OutcomeResult::Ok
        | OutcomeResult::Aborted
        | OutcomeResult::KeyUnavailable
        | OutcomeResult::KeyDestroyed
        | OutcomeResult::NotFound
        | OutcomeResult::Conflict
        | OutcomeResult::Unavailable
        | OutcomeResult::Failed
        | OutcomeResult::Unknown => false,
    }
}

pub(super) fn purpose(purpose: Purpose) -> Coding {
    Coding { system: ACT_REASON, code: purpose.code(), display: None }
}
