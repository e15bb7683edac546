//! Operations as FHIR R4 `AuditEvent` resources, after the patterns of IHE BALP.
//!
//! [`audit_event`] maps one [`Operation`] to one resource, and [`audit_event_of_line`] what
//! was read of one as JSON; a file of them is
//! NDJSON, one resource a line ([`NDJSON`]). Sources: FHIR 4.0.1 AuditEvent (in
//! 4.3.0, R4B, its elements are the same), IHE ITI Basic Audit Log Patterns
//! 1.1.4 s3:5.7.3, DICOM PS3.15 A.5.3 and PS3.16 (DCM). Separate from the JSON
//! line, because every code here comes from a standard. Pure.
//!
//! Invariant: what an event says is in the log. Its values are codes, ids,
//! digests, numbers, times and addresses, as those of a [`Record`](super::Record)
//! are, so there is no PHI in it and none can be put in. There is no narrative.
//!
//! | element | from |
//! |---|---|
//! | `id` | store, shard and leaf of the intent, so the same in every export |
//! | `type`, `subtype`, `action` | the action and whether the result is an alert; see below |
//! | `period` | the times of the intent and of the outcome |
//! | `recorded` | the time of the intent |
//! | `outcome`, `outcomeDesc` | the result; no `outcome` and `open` while there is none |
//! | `agent`, requestor | the principal, with the purpose of use |
//! | `agent`, client and server | the origin, and the program that wrote the intent |
//! | `source` | the store (`site`) and the program (`observer`) |
//! | `entity`, System Object | the blob, with the bytes sealed or released |
//! | `entity`, Organization | the customer |
//! | `entity`, Other | the keys, the ring version, the order, hold, certificate, rule, session and emergency, what was returned, the second factor, the digest of the mapping, and what the KMS called the request |
//! | `entity`, XrequestId | the request id, its cause, and the places in the log |
//!
//! # Types
//!
//! Work on blobs has the type `rest`, with `create`, `read` or `search` under it:
//! sealing a blob and opening it are to a FHIR repository the creation and the
//! reading of a `Binary`, and `rest` is where readers of BALP look. The store
//! itself speaks no FHIR. Verification releases nothing and is ISO 21089 `verify`.
//!
//! Work on keys and customers is no record's life cycle and no interaction of
//! FHIR. It has the general type of the value set, Application Activity; DICOM
//! knows it as start and stop, which its subtypes tell apart and we do not use.
//! The subtype is Security Configuration for what changes keys or customers, and
//! Use of Restricted Function for what uses a key.
//!
//! Security Alert is the type of what somebody should look at: a denial, and
//! bytes or logs that do not verify. Its action is `E` (PS3.15 A.5.3.11). It is
//! not the type of every key use, as DICOM would allow, because then nobody looks.
//!
//! All have the action's own code as a further subtype.
//!
//! # Profiles
//!
//! An event claims BALP `Create` or `Read` when it meets all of it: a blob was
//! sealed or opened as asked, for a peer on the network. The profiles are of
//! successes between two network points, so nothing else claims one; it has the
//! same shape nevertheless. The profiles with a patient are never claimed,
//! because a store knows no patients, and `Query` is not, because it wants the
//! query, and the log never has the names that people look for.

use serde::Serialize;

use super::operation::{Operation, OperationLine};
use super::{KeyRef, OutcomeResult};
use crate::access::{Origin, Purpose};
use crate::id::{KekId, StoreId};
use crate::time::Timestamp;

mod codes;

use codes::{Coding, Pattern, Roles};

/// The media type of resources one a line.
pub const NDJSON: &str = "application/fhir+ndjson";

/// One `AuditEvent`, to be serialised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    resource_type: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
    #[serde(rename = "type")]
    kind: Coding,
    subtype: Vec<Coding>,
    action: &'static str,
    period: Period,
    recorded: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    outcome_desc: &'static str,
    agent: Vec<Agent>,
    source: Source,
    entity: Vec<Entity>,
}

impl AuditEvent {
    /// As JSON, with the line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("ids, codes, numbers and times are JSON");
        line.push('\n');
        line
    }
}

/// The resource that stands for `operation` of the store `store`.
///
/// The same operation makes the same resource, except that one without an
/// outcome gets it once the log has it.
#[must_use]
pub fn audit_event(store: StoreId, operation: &Operation) -> AuditEvent {
    audit_event_of_line(store, &OperationLine::from(operation))
}

/// [`audit_event`], for an operation that was read as its line: it has all that the
/// resource says.
#[must_use]
pub fn audit_event_of_line(store: StoreId, operation: &OperationLine) -> AuditEvent {
    let result = operation.outcome.as_ref().map(|outcome| outcome.result);
    let alert = result.is_some_and(codes::is_alert);
    let pattern = codes::pattern(operation.action);

    let mut subtype: Vec<Coding> = pattern.subtype.into_iter().collect();
    if result == Some(OutcomeResult::Denied) && pattern.subtype != Some(codes::RESTRICTED_FUNCTION) {
        subtype.push(codes::RESTRICTED_FUNCTION);
    }
    subtype.push(codes::action(operation.action));

    let start = operation.time;
    // Two programs may have written the two, and clocks go back. FHIR has no
    // period that ends before it starts (per-1).
    let end = operation.outcome.as_ref().map(|outcome| outcome.time).filter(|end| *end >= start);

    let writer = operation.writer.to_string();
    let profile = pattern.profile.filter(|_| {
        let asked_over_network = matches!(operation.origin, Origin::Address(_));
        result == Some(OutcomeResult::Ok) && operation.blob.is_some() && asked_over_network
    });
    AuditEvent {
        resource_type: "AuditEvent",
        id: format!("{store}-{}-{}", operation.shard, operation.index),
        meta: profile.map(|profile| Meta { profile: [profile] }),
        kind: if alert { codes::SECURITY_ALERT } else { pattern.kind },
        subtype,
        action: if alert { "E" } else { pattern.action },
        period: Period { start, end },
        recorded: start,
        outcome: result.map(codes::outcome),
        outcome_desc: result.map_or("open", OutcomeResult::code),
        agent: agents(store, &writer, operation, &pattern.roles),
        source: Source {
            site: store.to_string(),
            observer: Reference::to("urn:strongroom:writer", writer),
            kind: [codes::APPLICATION_SERVER],
        },
        entity: entities(store, operation, &pattern),
    }
}

/// BALP's three: the user, the client and the server. Who asks is the user;
/// the client is where they asked from, and the server the program that did it.
fn agents(store: StoreId, writer: &str, operation: &OperationLine, roles: &Roles) -> Vec<Agent> {
    let node = format!("urn:strongroom:writer:{writer}");
    let (client, client_network, server_network) = match operation.origin {
        Origin::Address(address) => (
            Reference::to("urn:strongroom:address", address.to_string()),
            Some(Network { address: address.to_string(), kind: "2" }),
            // The log knows no address of the node, and FHIR takes an id of the device.
            Some(Network { address: node, kind: "5" }),
        ),
        // On the node itself: no network was involved.
        Origin::Process(process) => {
            (Reference::to(format!("{node}:process"), process.to_string()), None, None)
        }
    };
    let server = Reference::to("urn:strongroom:writer", writer.to_owned());
    let agent = |kind: Coding, who: Reference, network: Option<Network>| Agent {
        kind: CodeableConcept { coding: [kind] },
        who,
        requestor: false,
        network,
        purpose_of_use: None,
    };
    vec![
        Agent {
            requestor: true,
            purpose_of_use: Some([purpose(operation.purpose)]),
            ..agent(
                roles.user,
                // A principal means something to this store only.
                Reference::to(
                    format!("urn:strongroom:store:{store}:principal"),
                    operation.principal.to_string(),
                ),
                None,
            )
        },
        agent(roles.client, client, client_network),
        agent(roles.server, server, server_network),
    ]
}

fn purpose(purpose: Purpose) -> CodeableConcept {
    CodeableConcept { coding: [codes::purpose(purpose)] }
}

fn entities(store: StoreId, operation: &OperationLine, pattern: &Pattern) -> Vec<Entity> {
    let mut entities = Vec::new();
    if let Some(blob) = operation.blob {
        let bytes = operation.outcome.as_ref().and_then(|outcome| outcome.bytes);
        entities.push(Entity {
            what: Some(Reference::to(format!("urn:strongroom:store:{store}:blob"), blob.to_string())),
            role: Some(codes::DOMAIN_RESOURCE),
            lifecycle: pattern.lifecycle,
            detail: bytes.map(|bytes| Detail::new("bytes", bytes)).into_iter().collect(),
            ..Entity::of(codes::SYSTEM_OBJECT)
        });
    }
    if let Some(customer) = operation.customer {
        let system = format!("urn:strongroom:store:{store}:customer");
        entities.push(Entity {
            what: Some(Reference::to(system, customer.to_string())),
            role: Some(codes::CUSTOMER),
            ..Entity::of(codes::ORGANIZATION)
        });
    }
    entities.extend(operation.key.as_ref().map(key));
    entities.extend(used_key(operation).map(|id| security_resource(kek(id), Vec::new())));
    if let Some(ring) = operation.ring {
        let of = operation.customer.map(|customer| {
            Reference::to(format!("urn:strongroom:store:{store}:ring"), customer.to_string())
        });
        let hash = data_encoding::HEXLOWER.encode(&ring.hash);
        let detail = vec![Detail::new("version", ring.version), Detail::new("hash", hash)];
        entities.push(Entity { what: of, ..security_resource(None, detail) });
    }
    let kms_request = operation.outcome.as_ref().and_then(|outcome| outcome.kms_request.as_ref());
    let by = [
        operation.order.map(|id| Reference::to("urn:strongroom:order", id.to_string())),
        operation.hold.map(|id| Reference::to("urn:strongroom:hold", id.to_string())),
        operation.certificate.map(|id| Reference::to("urn:strongroom:certificate", id.to_string())),
        operation.rule.as_ref().map(|id| Reference::to("urn:strongroom:rule", id.to_string())),
        operation.session.map(|id| Reference::to("urn:strongroom:session", id.to_string())),
        operation.factor.map(|factor| Reference::to("urn:strongroom:factor", factor.to_string())),
        operation.digest.map(|digest| Reference::to("urn:strongroom:access-map", digest.to_string())),
        kms_request.map(|id| Reference::to("urn:strongroom:kms-request", id.to_string())),
    ];
    if let Some(returned) = &operation.returned {
        let detail = vec![Detail::new("sha256", data_encoding::HEXLOWER.encode(&returned.sha256))];
        entities.push(security_resource(None, detail));
    }
    if let Some(emergency) = &operation.emergency {
        let what = Reference::to("urn:strongroom:emergency", emergency.id.to_string());
        let times = [("at", emergency.at), ("until", emergency.until)];
        let detail = times.into_iter().filter_map(|(name, time)| Some(Detail::new(name, time?))).collect();
        entities.push(security_resource(Some(what), detail));
    }
    entities.extend(by.into_iter().flatten().map(|what| security_resource(Some(what), Vec::new())));
    entities.push(transaction(operation));
    entities
}

/// The ring key that the outcome names and the intent does not.
fn used_key(operation: &OperationLine) -> Option<KekId> {
    let used = operation.outcome.as_ref()?.key?;
    match &operation.key {
        Some(KeyRef::Kek { id, .. } | KeyRef::HoldKey { id } | KeyRef::NameKey { id }) if *id == used => None,
        _ => Some(used),
    }
}

fn key(key: &KeyRef) -> Entity {
    match key {
        KeyRef::Kek { id, day } => security_resource(kek(*id), vec![Detail::new("day", day)]),
        KeyRef::HoldKey { id } | KeyRef::NameKey { id } => security_resource(kek(*id), Vec::new()),
        KeyRef::Day { day } => security_resource(None, vec![Detail::new("day", day)]),
        KeyRef::Customer { kms_key, data_key } => {
            let what = Reference::to("urn:strongroom:kms-key", kms_key.to_string());
            security_resource(Some(what), vec![Detail::new("data-key", data_key)])
        }
        KeyRef::Blob { kms_key } => {
            let what = Reference::to("urn:strongroom:kms-key", kms_key.to_string());
            security_resource(Some(what), Vec::new())
        }
        KeyRef::Epoch { kms_key, epoch } => {
            let what = Reference::to("urn:strongroom:kms-key", kms_key.to_string());
            security_resource(Some(what), vec![Detail::new("epoch", epoch)])
        }
    }
}

fn kek(id: KekId) -> Option<Reference> {
    Some(Reference::to("urn:strongroom:kek", id.to_string()))
}

fn security_resource(what: Option<Reference>, detail: Vec<Detail>) -> Entity {
    Entity { what, role: Some(codes::SECURITY_RESOURCE), detail, ..Entity::of(codes::OTHER) }
}

/// BALP's transaction (s3:5.7.3.1), and where in the log to find it: what a
/// reader needs to ask for a proof that the event was not made up.
fn transaction(operation: &OperationLine) -> Entity {
    let mut detail = vec![
        Detail::new("shard", operation.shard),
        Detail::new("commit", operation.seq),
        Detail::new("leaf", operation.index),
        Detail::new("durable", operation.durable),
    ];
    detail.extend(operation.cause.map(|cause| Detail::new("cause", cause)));
    if let Some(outcome) = &operation.outcome {
        detail.extend([
            Detail::new("outcome-shard", outcome.shard),
            Detail::new("outcome-commit", outcome.seq),
            Detail::new("outcome-leaf", outcome.index),
            Detail::new("outcome-durable", outcome.durable),
        ]);
    }
    let what = Some(Reference::to("urn:strongroom:request", operation.request.to_string()));
    Entity { what, detail, ..Entity::of(codes::X_REQUEST_ID) }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Meta {
    profile: [&'static str; 1],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CodeableConcept {
    coding: [Coding; 1],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Period {
    start: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    #[serde(rename = "type")]
    kind: CodeableConcept,
    who: Reference,
    requestor: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<Network>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose_of_use: Option<[CodeableConcept; 1]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Network {
    address: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Source {
    site: String,
    observer: Reference,
    #[serde(rename = "type")]
    kind: [Coding; 1],
}

/// A reference by identifier: there is no server that has these as resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Reference {
    identifier: Identifier,
}

impl Reference {
    fn to(system: impl Into<String>, value: String) -> Self {
        Self { identifier: Identifier { system: system.into(), value } }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Identifier {
    system: String,
    value: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Entity {
    #[serde(skip_serializing_if = "Option::is_none")]
    what: Option<Reference>,
    #[serde(rename = "type")]
    kind: Coding,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Coding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle: Option<Coding>,
    // FHIR has no empty arrays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    detail: Vec<Detail>,
}

impl Entity {
    fn of(kind: Coding) -> Self {
        Self { what: None, kind, role: None, lifecycle: None, detail: Vec::new() }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    #[serde(rename = "type")]
    kind: &'static str,
    value_string: String,
}

impl Detail {
    fn new(kind: &'static str, value: impl ToString) -> Self {
        Self { kind, value_string: value.to_string() }
    }
}

#[cfg(test)]
mod tests;
