//! Operations: an intent with the outcome that belongs to it, and their JSON line.
//!
//! The log holds records one by one, and many operations overlap in it. A
//! [`Pairing`] puts each [`Outcome`] back to its [`Intent`]; what exports and
//! people read is the [`Operation`]. Separate from the log, because it is pure:
//! it neither reads a storage nor a clock.
//!
//! Invariants: every entry that goes into a [`Pairing`] comes out of it, once;
//! an operation's two records have the same request id. What is in an entry was
//! verified by whoever read it from the log; nothing is verified here.
//!
//! # The JSON line
//!
//! [`OperationLine`] is one operation as one line of JSON. Its fields are
//! always there, `null` where there is nothing to say, and fields may be added
//! but not taken away or given another meaning:
//!
//! | field | JSON | what |
//! |---|---|---|
//! | `time` | text, RFC 3339 in UTC with microseconds | when the writer made the intent |
//! | `durable` | the same | the time of the commit that made the intent durable |
//! | `shard` | number | the shard of the log that holds the intent |
//! | `index` | number | the intent's leaf in the shard's tree, from 0 |
//! | `seq` | number | the number of the commit that holds the intent |
//! | `request` | text, 26 characters of base32 | the id of the operation |
//! | `cause` | the same | the operation that made this one necessary |
//! | `writer` | the same | the running program that wrote the intent |
//! | `principal` | `unix:…`, `service:…` or `person:…` | who |
//! | `origin` | `{"process": number}` or `{"address": text}` | from where |
//! | `purpose` | text, an HL7 PurposeOfUse code | why |
//! | `action` | text, as [`Action::code`] | what |
//! | `customer` | text, 26 characters of base32 | whose |
//! | `blob` | the same | to which blob |
//! | `key` | object, as [`KeyRef`] | with which key |
//! | `ring` | `{"version": number, "hash": hexadecimal}` | the version of a ring or of the register that is written |
//! | `order` | text, 26 characters of base32 | by which order of two people |
//! | `hold` | the same | which legal hold |
//! | `certificate` | the same | which certificate |
//! | `rule` | text, 1 to 64 of `a-z 0-9 . _ -` | the rule of the policy that allowed it, or did not |
//! | `session` | text, 26 characters of base32 | within which session |
//! | `returned` | `{"sha256": hexadecimal}` | what was written down of a return to the customer |
//! | `emergency` | `{"id": text, "at": time, "until": time}`, the times where they are known | in which emergency; when it was done, where the log has it from the sink; until when it lasts, in its declaration |
//! | `factor` | text, as [`Factor::code`] | which second factor the person had |
//! | `digest` | hexadecimal | SHA-256 of the mapping of principals that the daemon goes by from then on |
//! | `outcome` | object or `null` | how it ended; `null` while it has not |
//! | `outcome.time`, `.durable`, `.shard`, `.index`, `.seq`, `.writer` | as above | the same of the outcome |
//! | `outcome.result` | text, as [`OutcomeResult::code`] | how it ended |
//! | `outcome.bytes` | number | plaintext bytes sealed or released |
//! | `outcome.key` | text, 26 characters of base32 | the ring key that was used |
//! | `outcome.kms_request` | text, 1 to 128 of `A-Z a-z 0-9 - _ . :` | what the KMS called the request: `requestID` in AWS CloudTrail |

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use serde::{Deserialize, Serialize};

use super::{
    Action, EmergencyRef, Event, Intent, KeyRef, Outcome, OutcomeResult, Record, ReturnedRef, RingRef,
};
use crate::access::{Factor, Origin, Principal, Purpose, RuleId};
use crate::id::{
    BlobId, CertificateId, CustomerId, HoldId, KekId, KmsRequestId, OrderId, RequestId, SessionId, WriterId,
};
use crate::merkle::Hash;
use crate::time::Timestamp;

/// One record with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The shard that holds it.
    pub shard: u16,
    /// The number of the commit that holds it.
    pub seq: u64,
    /// Its leaf in the shard's tree, from 0.
    pub index: u64,
    /// The time of the commit that made it durable.
    pub time: Timestamp,
    /// The record.
    pub record: Record,
}

impl Entry {
    fn as_intent(&self) -> Option<&Intent> {
        if let Event::Intent(intent) = &self.record.event { Some(intent) } else { None }
    }

    fn as_outcome(&self) -> Option<&Outcome> {
        if let Event::Outcome(outcome) = &self.record.event { Some(outcome) } else { None }
    }
}

/// An intent, and its outcome if there is one yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    intent: Entry,
    outcome: Option<Entry>,
}

impl Operation {
    /// What was about to be done.
    #[must_use]
    pub fn intent(&self) -> &Intent {
        self.intent.as_intent().expect("a pairing makes operations of intents only")
    }

    /// How it ended, `None` while it has not.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()?.as_outcome()
    }

    /// Whether it ended, and well.
    #[must_use]
    pub fn ended_well(&self) -> bool {
        self.outcome().is_some_and(|outcome| outcome.result == OutcomeResult::Ok)
    }

    /// The intent in its place in the log.
    #[must_use]
    pub fn intent_entry(&self) -> &Entry {
        &self.intent
    }

    /// The outcome in its place in the log.
    #[must_use]
    pub fn outcome_entry(&self) -> Option<&Entry> {
        self.outcome.as_ref()
    }
}

/// Puts outcomes back to their intents.
///
/// Entries are pushed in the order of the log, each shard's in its own. In
/// memory are the operations that are open at that point, and no others.
///
/// ```
/// # use strongroom::audit::operation::{Entry, Operation, Paired, Pairing};
/// # fn export(entries: Vec<Entry>) -> Vec<Operation> {
/// let mut operations = Vec::new();
/// let mut pairing = Pairing::default();
/// for entry in entries {
///     if let Paired::Operation(operation) = pairing.push(entry) {
///         operations.push(*operation);
///     }
/// }
/// operations.extend(pairing.finish());
/// # operations
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Pairing {
    open: HashMap<RequestId, Entry>,
}

/// What came of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Paired {
    /// An intent: it is kept until its outcome comes, or the end.
    Kept,
    /// An operation is complete. Or, where a second intent has the request id
    /// of an open one, the first is given up without an outcome.
    Operation(Box<Operation>),
    /// An outcome whose intent was not pushed: it lies before the range that is
    /// read, or the log lacks it.
    Orphan(Box<Entry>),
    /// Neither an intent nor an outcome.
    Other(Box<Entry>),
}

impl Pairing {
    /// Takes the next entry.
    pub fn push(&mut self, entry: Entry) -> Paired {
        if let Some(request) = entry.as_intent().map(|intent| intent.request) {
            let earlier = self.open.insert(request, entry);
            return earlier.map_or(Paired::Kept, |intent| complete(intent, None));
        }
        let Some(request) = entry.as_outcome().map(|outcome| outcome.request) else {
            return Paired::Other(Box::new(entry));
        };
        match self.open.entry(request) {
            Place::Occupied(intent) => complete(intent.remove(), Some(entry)),
            Place::Vacant(_) => Paired::Orphan(Box::new(entry)),
        }
    }

    /// How many operations are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The operations that are still open, by shard and leaf.
    #[must_use]
    pub fn finish(self) -> Vec<Operation> {
        let mut open: Vec<Operation> =
            self.open.into_values().map(|intent| Operation { intent, outcome: None }).collect();
        open.sort_unstable_by_key(|operation| (operation.intent.shard, operation.intent.index));
        open
    }
}

fn complete(intent: Entry, outcome: Option<Entry>) -> Paired {
    Paired::Operation(Box::new(Operation { intent, outcome }))
}

/// One operation as one line of JSON. The fields are described
/// [above](self#the-json-line).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table in the module's documentation has them")]
pub struct OperationLine {
    pub time: Timestamp,
    pub durable: Timestamp,
    pub shard: u16,
    pub index: u64,
    pub seq: u64,
    pub request: RequestId,
    pub cause: Option<RequestId>,
    pub writer: WriterId,
    pub principal: Principal,
    pub origin: Origin,
    pub purpose: Purpose,
    pub action: Action,
    pub customer: Option<CustomerId>,
    pub blob: Option<BlobId>,
    pub key: Option<KeyRef>,
    pub ring: Option<RingRef>,
    /// By which order of two people.
    pub order: Option<OrderId>,
    /// Which legal hold.
    pub hold: Option<HoldId>,
    /// Which certificate.
    pub certificate: Option<CertificateId>,
    /// The rule of the policy that allowed it, or did not.
    pub rule: Option<RuleId>,
    /// Within which session.
    pub session: Option<SessionId>,
    /// What was written down of a return to the customer.
    pub returned: Option<Box<ReturnedRef>>,
    /// In which emergency.
    pub emergency: Option<Box<EmergencyRef>>,
    /// Which second factor the person had.
    pub factor: Option<Factor>,
    /// The digest of the mapping of principals.
    pub digest: Option<Hash>,
    pub outcome: Option<OutcomeFields>,
}

/// The outcome in an [`OperationLine`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the table in the module's documentation has them")]
pub struct OutcomeFields {
    pub time: Timestamp,
    pub durable: Timestamp,
    pub shard: u16,
    pub index: u64,
    pub seq: u64,
    pub writer: WriterId,
    pub result: OutcomeResult,
    pub bytes: Option<u64>,
    pub key: Option<KekId>,
    pub kms_request: Option<KmsRequestId>,
}

impl OperationLine {
    /// As JSON, with the line feed.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("ids, codes, numbers and times are JSON");
        line.push('\n');
        line
    }
}

impl From<&Operation> for OperationLine {
    fn from(operation: &Operation) -> Self {
        let (entry, intent) = (&operation.intent, operation.intent());
        let ended = operation.outcome.as_ref().zip(operation.outcome());
        Self {
            time: entry.record.time,
            durable: entry.time,
            shard: entry.shard,
            index: entry.index,
            seq: entry.seq,
            request: intent.request,
            cause: intent.cause,
            writer: entry.record.writer,
            principal: intent.principal.clone(),
            origin: intent.origin,
            purpose: intent.purpose,
            action: intent.action,
            customer: intent.customer,
            blob: intent.blob,
            key: intent.key.clone(),
            ring: intent.ring,
            order: intent.order,
            hold: intent.hold,
            certificate: intent.certificate,
            rule: intent.rule.clone(),
            session: intent.session,
            returned: intent.returned.clone(),
            emergency: intent.emergency.clone(),
            factor: intent.factor,
            digest: intent.digest,
            outcome: ended.map(|(entry, outcome)| OutcomeFields {
                time: entry.record.time,
                durable: entry.time,
                shard: entry.shard,
                index: entry.index,
                seq: entry.seq,
                writer: entry.record.writer,
                result: outcome.result,
                bytes: outcome.bytes,
                key: outcome.key,
                kms_request: outcome.kms_request.clone(),
            }),
        }
    }
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 51] = [
        Self::Init,
        Self::CustomerAdd,
        Self::CustomerSet,
        Self::Seal,
        Self::Open,
        Self::OpenRange,
        Self::Verify,
        Self::Stat,
        Self::List,
        Self::Find,
        Self::KmsGenerateDataKey,
        Self::KmsDecrypt,
        Self::RingWrite,
        Self::KeysRead,
        Self::Extend,
        Self::Rewrap,
        Self::HoldPlace,
        Self::HoldRelease,
        Self::ShredSweep,
        Self::ShredPend,
        Self::ShredCancel,
        Self::ShredDrop,
        Self::Certify,
        Self::CiphertextDelete,
        Self::OrderRequest,
        Self::OrderApprove,
        Self::PeopleSet,
        Self::ClockSet,
        Self::RegisterWrite,
        Self::EpochCreate,
        Self::EpochDisable,
        Self::EpochEnable,
        Self::EpochDelete,
        Self::Rekey,
        Self::OffboardReturn,
        Self::OffboardClose,
        Self::CustomerKeyDelete,
        Self::Admit,
        Self::CustomerRead,
        Self::AuditRead,
        Self::SessionOpen,
        Self::SessionEnd,
        Self::AccessRequest,
        Self::AccessApprove,
        Self::EmergencyDeclare,
        Self::EmergencyFold,
        Self::EmergencyReview,
        Self::AccessMap,
        Self::LogKeyRotate,
        Self::EpochWrite,
        Self::ClockConfirm,
    ];

    /// What the log and the exports call it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::CustomerAdd => "customer-add",
            Self::CustomerSet => "customer-set",
            Self::Seal => "seal",
            Self::Open => "open",
            Self::OpenRange => "open-range",
            Self::Verify => "verify",
            Self::Stat => "stat",
            Self::List => "list",
            Self::Find => "find",
            Self::KmsGenerateDataKey => "kms-generate-data-key",
            Self::KmsDecrypt => "kms-decrypt",
            Self::RingWrite => "ring-write",
            Self::KeysRead => "keys-read",
            Self::Extend => "extend",
            Self::Rewrap => "rewrap",
            Self::HoldPlace => "hold-place",
            Self::HoldRelease => "hold-release",
            Self::ShredSweep => "shred-sweep",
            Self::ShredPend => "shred-pend",
            Self::ShredCancel => "shred-cancel",
            Self::ShredDrop => "shred-drop",
            Self::Certify => "certify",
            Self::CiphertextDelete => "ciphertext-delete",
            Self::OrderRequest => "order-request",
            Self::OrderApprove => "order-approve",
            Self::PeopleSet => "people-set",
            Self::ClockSet => "clock-set",
            Self::RegisterWrite => "register-write",
            Self::EpochCreate => "epoch-create",
            Self::EpochWrite => "epoch-write",
            Self::EpochDisable => "epoch-disable",
            Self::EpochEnable => "epoch-enable",
            Self::EpochDelete => "epoch-delete",
            Self::Rekey => "rekey",
            Self::OffboardReturn => "offboard-return",
            Self::OffboardClose => "offboard-close",
            Self::CustomerKeyDelete => "customer-key-delete",
            Self::Admit => "admit",
            Self::CustomerRead => "customer-read",
            Self::AuditRead => "audit-read",
            Self::SessionOpen => "session-open",
            Self::SessionEnd => "session-end",
            Self::AccessRequest => "access-request",
            Self::AccessApprove => "access-approve",
            Self::EmergencyDeclare => "emergency-declare",
            Self::EmergencyFold => "emergency-fold",
            Self::EmergencyReview => "emergency-review",
            Self::AccessMap => "access-map",
            Self::LogKeyRotate => "log-key-rotate",
            Self::ClockConfirm => "clock-confirm",
        }
    }
}

impl OutcomeResult {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Ok,
        Self::Aborted,
        Self::AuthenticationFailed,
        Self::IntegrityFailed,
        Self::KeyUnavailable,
        Self::KeyDestroyed,
        Self::NotFound,
        Self::Conflict,
        Self::Denied,
        Self::Unavailable,
        Self::Failed,
        Self::Unknown,
    ];

    /// What the log and the exports call it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Aborted => "aborted",
            Self::AuthenticationFailed => "authentication-failed",
            Self::IntegrityFailed => "integrity-failed",
            Self::KeyUnavailable => "key-unavailable",
            Self::KeyDestroyed => "key-destroyed",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    const REQUEST: &str = "04hmasw9nf6yz04hmasw9nf6yg";
    const CAUSE: &str = "1c60y40zg20w41061c60y40zg0";
    const WRITER: &str = "2r81gc24s4jk2rbbdxx2ewvgpg";

    /// An intent with the fields that are given, as the log would hold it.
    pub(crate) fn intent(request: RequestId, fields: &Value) -> Record {
        let mut intent = json!({
            "request": request,
            "principal": "person:p-17",
            "origin": { "process": 4242 },
            "purpose": "TREAT",
            "action": "open",
        });
        for (name, value) in fields.as_object().unwrap() {
            intent[name] = value.clone();
        }
        record("2026-11-22T02:26:13.000001Z", &json!({ "intent": intent }))
    }

    /// An outcome with the fields that are given.
    pub(crate) fn outcome(request: RequestId, fields: &Value) -> Record {
        let mut outcome = json!({ "request": request, "result": "ok" });
        for (name, value) in fields.as_object().unwrap() {
            outcome[name] = value.clone();
        }
        record("2026-11-22T02:26:13.250000Z", &json!({ "outcome": outcome }))
    }

    fn record(time: &str, event: &Value) -> Record {
        let id = RequestId::from_bytes([7; 16]);
        serde_json::from_value(json!({ "nonce": id, "time": time, "writer": WRITER, "event": event }))
            .unwrap()
    }

    /// The record in its place.
    pub(crate) fn at(index: u64, record: Record) -> Entry {
        let time = "2026-11-22T02:26:14.000000Z".parse().unwrap();
        Entry { shard: 3, seq: index / 2, index, time, record }
    }

    /// One operation of the two.
    pub(crate) fn paired(intent: Record, outcome: Option<Record>) -> Operation {
        let mut pairing = Pairing::default();
        assert_eq!(pairing.push(at(10, intent)), Paired::Kept);
        match outcome.map(|outcome| pairing.push(at(11, outcome))) {
            Some(Paired::Operation(operation)) => *operation,
            Some(other) => panic!("{other:?}"),
            None => pairing.finish().remove(0),
        }
    }

    fn request(n: u8) -> RequestId {
        RequestId::from_bytes([n; 16])
    }

    #[test]
    fn outcomes_find_their_intents() {
        let mut pairing = Pairing::default();
        for n in [1, 2, 3] {
            assert_eq!(pairing.push(at(n.into(), intent(request(n), &json!({})))), Paired::Kept);
        }
        let Paired::Operation(second) = pairing.push(at(4, outcome(request(2), &json!({ "bytes": 5 }))))
        else {
            panic!("the outcome of 2 has its intent");
        };
        assert_eq!(second.intent().request, request(2));
        assert_eq!(second.outcome().unwrap().bytes, Some(5));
        assert_eq!((second.intent_entry().index, second.outcome_entry().unwrap().index), (2, 4));
        assert_eq!(pairing.open(), 2);
        let open = pairing.finish();
        assert_eq!(
            open.iter().map(|open| open.intent().request).collect::<Vec<_>>(),
            [request(1), request(3)]
        );
        assert!(open.iter().all(|open| open.outcome().is_none()));
    }

    #[test]
    fn nothing_is_lost_that_does_not_pair() {
        let mut pairing = Pairing::default();
        let stray = at(1, outcome(request(9), &json!({})));
        assert_eq!(pairing.push(stray.clone()), Paired::Orphan(Box::new(stray.clone())));

        // Two intents with one id: the first comes out open, the second is kept.
        let intents = [at(2, intent(request(1), &json!({}))), at(3, intent(request(1), &json!({})))];
        assert_eq!(pairing.push(intents[0].clone()), Paired::Kept);
        let Paired::Operation(first) = pairing.push(intents[1].clone()) else {
            panic!("the first is given up")
        };
        assert_eq!((first.intent_entry(), first.outcome_entry()), (&intents[0], None));

        // One outcome is one outcome: a second is a stray.
        let end = at(4, outcome(request(1), &json!({})));
        assert!(matches!(pairing.push(end.clone()), Paired::Operation(_)));
        assert_eq!(pairing.push(end.clone()), Paired::Orphan(Box::new(end)));
        assert_eq!(pairing.open(), 0);
    }

    #[test]
    fn a_line_has_every_field() {
        let customer = CustomerId::from_bytes([4; 16]);
        let fields = json!({
            "cause": CAUSE,
            "origin": { "address": "2001:db8::7" },
            "action": "ring-write",
            "customer": customer,
            "key": { "day": { "day": "2028-05-22" } },
            "ring": { "version": 2, "hash": "ab".repeat(32) },
            "factor": "smart-card",
            "digest": "cd".repeat(32),
        });
        let id = REQUEST.parse().unwrap();
        let operation = paired(
            intent(id, &fields),
            Some(outcome(id, &json!({ "bytes": 3, "kms_request": "0bfa1b9c-60b4" }))),
        );
        let line = OperationLine::from(&operation);
        let expected = json!({
            "time": "2026-11-22T02:26:13.000001Z",
            "durable": "2026-11-22T02:26:14.000000Z",
            "shard": 3,
            "index": 10,
            "seq": 5,
            "request": REQUEST,
            "cause": CAUSE,
            "writer": WRITER,
            "principal": "person:p-17",
            "origin": { "address": "2001:db8::7" },
            "purpose": "TREAT",
            "action": "ring-write",
            "customer": customer,
            "blob": null,
            "key": { "day": { "day": "2028-05-22" } },
            "ring": { "version": 2, "hash": "ab".repeat(32) },
            "order": null,
            "hold": null,
            "certificate": null,
            "rule": null,
            "session": null,
            "returned": null,
            "emergency": null,
            "factor": "smart-card",
            "digest": "cd".repeat(32),
            "outcome": {
                "time": "2026-11-22T02:26:13.250000Z",
                "durable": "2026-11-22T02:26:14.000000Z",
                "shard": 3,
                "index": 11,
                "seq": 5,
                "writer": WRITER,
                "result": "ok",
                "bytes": 3,
                "key": null,
                "kms_request": "0bfa1b9c-60b4",
            },
        });
        assert_eq!(serde_json::from_str::<Value>(&line.to_line()).unwrap(), expected);
        assert_eq!(line.to_line().matches('\n').count(), 1);
        assert_eq!(serde_json::from_value::<OperationLine>(expected).unwrap(), line);

        let open = OperationLine::from(&paired(intent(id, &json!({})), None));
        let open: Value = serde_json::from_str(&open.to_line()).unwrap();
        assert_eq!((&open["outcome"], &open["blob"]), (&Value::Null, &Value::Null));
        assert_eq!(open.as_object().unwrap().len(), 26);
    }

    /// The lists are whole: a new variant has no place here until it is in them.
    #[test]
    fn all_is_all_and_codes_are_the_logs() {
        for (place, action) in Action::ALL.into_iter().enumerate() {
            let expected = match action {
                Action::Init => 0,
                Action::CustomerAdd => 1,
                Action::CustomerSet => 2,
                Action::Seal => 3,
                Action::Open => 4,
                Action::OpenRange => 5,
                Action::Verify => 6,
                Action::Stat => 7,
                Action::List => 8,
                Action::Find => 9,
                Action::KmsGenerateDataKey => 10,
                Action::KmsDecrypt => 11,
                Action::RingWrite => 12,
                Action::KeysRead => 13,
                Action::Extend => 14,
                Action::Rewrap => 15,
                Action::HoldPlace => 16,
                Action::HoldRelease => 17,
                Action::ShredSweep => 18,
                Action::ShredPend => 19,
                Action::ShredCancel => 20,
                Action::ShredDrop => 21,
                Action::Certify => 22,
                Action::CiphertextDelete => 23,
                Action::OrderRequest => 24,
                Action::OrderApprove => 25,
                Action::PeopleSet => 26,
                Action::ClockSet => 27,
                Action::RegisterWrite => 28,
                Action::EpochCreate => 29,
                Action::EpochDisable => 30,
                Action::EpochEnable => 31,
                Action::EpochDelete => 32,
                Action::Rekey => 33,
                Action::OffboardReturn => 34,
                Action::OffboardClose => 35,
                Action::CustomerKeyDelete => 36,
                Action::Admit => 37,
                Action::CustomerRead => 38,
                Action::AuditRead => 39,
                Action::SessionOpen => 40,
                Action::SessionEnd => 41,
                Action::AccessRequest => 42,
                Action::AccessApprove => 43,
                Action::EmergencyDeclare => 44,
                Action::EmergencyFold => 45,
                Action::EmergencyReview => 46,
                Action::AccessMap => 47,
                Action::LogKeyRotate => 48,
                Action::EpochWrite => 49,
                Action::ClockConfirm => 50,
            };
            assert_eq!(place, expected);
            assert_eq!(serde_json::to_value(action).unwrap(), action.code());
        }
        for (place, result) in OutcomeResult::ALL.into_iter().enumerate() {
            let expected = match result {
                OutcomeResult::Ok => 0,
                OutcomeResult::Aborted => 1,
                OutcomeResult::AuthenticationFailed => 2,
                OutcomeResult::IntegrityFailed => 3,
                OutcomeResult::KeyUnavailable => 4,
                OutcomeResult::KeyDestroyed => 5,
                OutcomeResult::NotFound => 6,
                OutcomeResult::Conflict => 7,
                OutcomeResult::Denied => 8,
                OutcomeResult::Unavailable => 9,
                OutcomeResult::Failed => 10,
                OutcomeResult::Unknown => 11,
            };
            assert_eq!(place, expected);
            assert_eq!(serde_json::to_value(result).unwrap(), result.code());
        }
    }
}
