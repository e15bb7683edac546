//! The endpoints: one table from which requests are routed, judged and documented.
//!
//! Separate from what they do, so that none can be reached that the table does not judge,
//! and the OpenAPI document says what there is.
//!
//! Customers are named by id and never by label, and blobs by id and never by name: what
//! is confidential is in no URL.

use axum::http::Method;

use crate::access::policy::Operation;
use crate::audit::Action;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is described by its row in the table")]
#[non_exhaustive]
pub enum Endpoint {
    Seal,
    ListBlobs,
    ShowInventory,
    FindBlobs,
    OpenBlob,
    HeadBlob,
    StatBlob,
    VerifyBlob,
    ExtendBlob,
    ListCustomers,
    AddCustomer,
    FindCustomer,
    ShowCustomer,
    SetCustomer,
    ShowRetention,
    ListHolds,
    PlaceHold,
    RekeyStatus,
    Rekey,
    OffboardStatus,
    OffboardReopen,
    OpenSession,
    ListSessions,
    EndSession,
    RequestAccess,
    ListAccessRequests,
    ApproveAccess,
    DeclareEmergency,
    ListEmergencies,
    ReviewEmergency,
    ShredStatus,
    ShredPlan,
    ShredCancel,
    ShredRun,
    DraftOrder,
    RequestOrder,
    ListOrders,
    ShowOrder,
    ApproveOrder,
    ListPeople,
    ListCertificates,
    ShowCertificate,
    QueryAudit,
    NewestOperations,
    NewestRecords,
    ProveRecord,
    ShowCheckpoint,
    ViewAudit,
    PublishAudit,
    MaintainAudit,
    ListEpochs,
    RotateEpoch,
    Metrics,
}

/// What the table says of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which.
    pub endpoint: Endpoint,
    /// The method.
    pub method: &'static Method,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// What the policy is asked.
    pub operation: Operation,
    /// What a denial is recorded as.
    pub action: Action,
    /// What it does, in a sentence.
    pub summary: &'static str,
}

const fn row(
    endpoint: Endpoint,
    method: &'static Method,
    path: &'static str,
    (operation, action): (Operation, Action),
    summary: &'static str,
) -> Row {
    Row { endpoint, method, path, operation, action, summary }
}

/// Every endpoint that is judged. Health, readiness and the OpenAPI document are open to whoever
/// is let in at all.
#[rustfmt::skip]
pub const TABLE: &[Row] = &[
    row(Endpoint::Seal, &Method::POST, "/v1/customers/{customer}/blobs", (Operation::Seal, Action::Seal),
        "Seals the body as a new blob"),
    row(Endpoint::ListBlobs, &Method::GET, "/v1/customers/{customer}/blobs", (Operation::List, Action::List),
        "Lists blobs, in pages"),
    row(Endpoint::ShowInventory, &Method::GET, "/v1/customers/{customer}/inventory", (Operation::List, Action::List),
        "Which blobs there have to be by the log, in pages, and where the log stands"),
    row(Endpoint::FindBlobs, &Method::POST, "/v1/customers/{customer}/blobs/find", (Operation::List, Action::Find),
        "Finds the blobs of a name, newest first"),
    row(Endpoint::OpenBlob, &Method::GET, "/v1/customers/{customer}/blobs/{blob}", (Operation::Open, Action::Open),
        "Opens a blob, or a range of it"),
    row(Endpoint::HeadBlob, &Method::HEAD, "/v1/customers/{customer}/blobs/{blob}", (Operation::Stat, Action::Stat),
        "The headers of a blob without its bytes"),
    row(Endpoint::StatBlob, &Method::GET, "/v1/customers/{customer}/blobs/{blob}/metadata", (Operation::Stat, Action::Stat),
        "What is known of a blob"),
    row(Endpoint::VerifyBlob, &Method::POST, "/v1/customers/{customer}/blobs/{blob}/verification", (Operation::Verify, Action::Verify),
        "Checks every byte of a blob, releasing none"),
    row(Endpoint::ExtendBlob, &Method::POST, "/v1/customers/{customer}/blobs/{blob}/extension", (Operation::Extend, Action::Extend),
        "Keeps a blob longer"),
    row(Endpoint::ListCustomers, &Method::GET, "/v1/customers", (Operation::CustomerList, Action::CustomerRead),
        "Lists customers"),
    row(Endpoint::AddCustomer, &Method::POST, "/v1/customers", (Operation::CustomerAdd, Action::CustomerAdd),
        "Adds a customer"),
    row(Endpoint::FindCustomer, &Method::POST, "/v1/customers/find", (Operation::CustomerFind, Action::CustomerRead),
        "The id of the customer of a label"),
    row(Endpoint::ShowCustomer, &Method::GET, "/v1/customers/{customer}", (Operation::CustomerRead, Action::CustomerRead),
        "A customer's settings"),
    row(Endpoint::SetCustomer, &Method::PATCH, "/v1/customers/{customer}", (Operation::CustomerSet, Action::CustomerSet),
        "Changes a customer's settings, for blobs that are sealed from now on"),
    row(Endpoint::ShowRetention, &Method::GET, "/v1/customers/{customer}/retention", (Operation::CustomerRead, Action::CustomerRead),
        "All versions of a customer's retention policy"),
    row(Endpoint::ListHolds, &Method::GET, "/v1/customers/{customer}/holds", (Operation::CustomerRead, Action::CustomerRead),
        "A customer's legal holds"),
    row(Endpoint::PlaceHold, &Method::POST, "/v1/customers/{customer}/holds", (Operation::HoldPlace, Action::HoldPlace),
        "Places a legal hold"),
    row(Endpoint::RekeyStatus, &Method::GET, "/v1/customers/{customer}/rekey", (Operation::CustomerRead, Action::CustomerRead),
        "Which KMS keys a customer's keys are and were under, and when those were called"),
    row(Endpoint::Rekey, &Method::POST, "/v1/customers/{customer}/rekey", (Operation::Rekey, Action::CustomerSet),
        "Puts a customer's keys under another KMS key"),
    row(Endpoint::OffboardStatus, &Method::GET, "/v1/customers/{customer}/offboarding", (Operation::ShredRead, Action::CustomerRead),
        "How far the offboarding of a customer is"),
    row(Endpoint::OffboardReopen, &Method::POST, "/v1/customers/{customer}/offboarding/reopening", (Operation::ShredCancel, Action::ShredCancel),
        "Takes the closing of a customer back, and its keys out of the window"),
    row(Endpoint::OpenSession, &Method::POST, "/v1/customers/{customer}/sessions", (Operation::SessionOpen, Action::SessionOpen),
        "Opens a session, as the customer"),
    row(Endpoint::ListSessions, &Method::GET, "/v1/customers/{customer}/sessions", (Operation::SessionRead, Action::CustomerRead),
        "A customer's sessions, newest first"),
    row(Endpoint::EndSession, &Method::POST, "/v1/customers/{customer}/sessions/{session}/end", (Operation::SessionEnd, Action::SessionEnd),
        "Ends a session, and cuts what it lets flow"),
    row(Endpoint::RequestAccess, &Method::POST, "/v1/customers/{customer}/access-requests", (Operation::AccessRequest, Action::AccessRequest),
        "Asks the customer to be let in"),
    row(Endpoint::ListAccessRequests, &Method::GET, "/v1/customers/{customer}/access-requests", (Operation::SessionRead, Action::CustomerRead),
        "Who asks to be let in, oldest first"),
    row(Endpoint::ApproveAccess, &Method::POST, "/v1/customers/{customer}/access-requests/{session}/approval", (Operation::AccessApprove, Action::AccessApprove),
        "Lets somebody in who asked, as the customer"),
    row(Endpoint::DeclareEmergency, &Method::POST, "/v1/customers/{customer}/emergencies", (Operation::EmergencyDeclare, Action::EmergencyDeclare),
        "Declares an emergency, to read on this node while the log cannot be written"),
    row(Endpoint::ListEmergencies, &Method::GET, "/v1/customers/{customer}/emergencies", (Operation::EmergencyRead, Action::AuditRead),
        "A customer's emergencies, oldest first"),
    row(Endpoint::ReviewEmergency, &Method::POST, "/v1/customers/{customer}/emergencies/{emergency}/review", (Operation::EmergencyReview, Action::EmergencyReview),
        "Records that one has looked at what somebody else did in an emergency"),
    row(Endpoint::ShredStatus, &Method::GET, "/v1/customers/{customer}/shreds", (Operation::ShredRead, Action::CustomerRead),
        "What is in the window, and what is not final yet"),
    row(Endpoint::ShredPlan, &Method::GET, "/v1/customers/{customer}/shreds/plan", (Operation::ShredRead, Action::CustomerRead),
        "What would be destroyed, and why that is allowed"),
    row(Endpoint::ShredCancel, &Method::POST, "/v1/customers/{customer}/shreds/cancellation", (Operation::ShredCancel, Action::ShredCancel),
        "Takes keys out of the window"),
    row(Endpoint::ShredRun, &Method::POST, "/v1/shreds/run", (Operation::ShredRun, Action::ShredSweep),
        "Does all that is due"),
    row(Endpoint::DraftOrder, &Method::POST, "/v1/orders/draft", (Operation::OrderRequest, Action::OrderRequest),
        "The text of an order, to be signed"),
    row(Endpoint::RequestOrder, &Method::POST, "/v1/orders", (Operation::OrderRequest, Action::OrderRequest),
        "Hands in an order that its requester signed"),
    row(Endpoint::ListOrders, &Method::GET, "/v1/orders", (Operation::OrderRead, Action::CustomerRead),
        "Lists orders"),
    row(Endpoint::ShowOrder, &Method::GET, "/v1/orders/{order}", (Operation::OrderRead, Action::CustomerRead),
        "An order as it was signed"),
    row(Endpoint::ApproveOrder, &Method::POST, "/v1/orders/{order}/approval", (Operation::OrderApprove, Action::OrderApprove),
        "Hands in an order that a second person signed, and does what it asks for"),
    row(Endpoint::ListPeople, &Method::GET, "/v1/people", (Operation::OrderRead, Action::CustomerRead),
        "Who may sign orders, and who could"),
    row(Endpoint::ListCertificates, &Method::GET, "/v1/certificates", (Operation::CertificateRead, Action::CustomerRead),
        "Lists certificates of destruction"),
    row(Endpoint::ShowCertificate, &Method::GET, "/v1/certificates/{certificate}", (Operation::CertificateRead, Action::CustomerRead),
        "A certificate, signed"),
    row(Endpoint::QueryAudit, &Method::POST, "/v1/audit/query", (Operation::AuditRead, Action::AuditRead),
        "Asks the audit log, in pages"),
    row(Endpoint::NewestOperations, &Method::GET, "/v1/audit/operations", (Operation::AuditRead, Action::AuditRead),
        "The newest operations of the audit log, oldest first"),
    row(Endpoint::NewestRecords, &Method::GET, "/v1/audit/records", (Operation::AuditRead, Action::AuditRead),
        "The newest records of the audit log as they are stored, oldest first"),
    row(Endpoint::ProveRecord, &Method::POST, "/v1/audit/proof", (Operation::AuditRead, Action::AuditRead),
        "The proof that a record is in the audit log, to be checked without it"),
    row(Endpoint::ShowCheckpoint, &Method::GET, "/v1/audit/checkpoint", (Operation::AuditRead, Action::AuditRead),
        "The newest checkpoint that is published of the audit log, signed"),
    row(Endpoint::ViewAudit, &Method::POST, "/v1/customers/{customer}/audit/view", (Operation::AuditRead, Action::AuditRead),
        "All records of a customer, in a file that shows that they are all"),
    row(Endpoint::PublishAudit, &Method::POST, "/v1/audit/publication", (Operation::AuditPublish, Action::Admit),
        "Publishes what the audit log has that was not published"),
    row(Endpoint::MaintainAudit, &Method::POST, "/v1/audit/maintenance", (Operation::AuditPublish, Action::Admit),
        "Closes what dead writers left open in the audit log, keeps its days, and publishes it"),
    row(Endpoint::ListEpochs, &Method::GET, "/v1/epochs", (Operation::EpochRead, Action::CustomerRead),
        "Where each epoch stands"),
    row(Endpoint::RotateEpoch, &Method::POST, "/v1/epochs", (Operation::EpochRotate, Action::EpochCreate),
        "Begins an epoch"),
    row(Endpoint::Metrics, &Method::GET, "/metrics", (Operation::Metrics, Action::Admit),
        "Figures in the Prometheus text format"),
];

impl Endpoint {
    /// Its row.
    ///
    /// # Panics
    /// Never: each has one, which a test shows.
    #[must_use]
    pub fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.endpoint == self).expect("every endpoint has a row")
    }
}
