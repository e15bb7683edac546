//! Who is let in, at a daemon: sessions, access requests and emergencies.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::Question;
use super::{Client, nonsense};
use crate::error::Result;
use crate::id::{CustomerId, EmergencyId, SessionId};
use crate::json::{AccessRequest, Emergency, Session};
use crate::session::SessionLimits;

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

#[derive(Deserialize)]
struct Asked {
    access_request: SessionId,
}

#[derive(Deserialize)]
struct AccessRequests {
    access_requests: Vec<AccessRequest>,
}

#[derive(Deserialize)]
struct Emergencies {
    emergencies: Vec<Emergency>,
}

impl Client {
    /// Opens a session, as the customer.
    pub(crate) async fn open_session(&self, customer: CustomerId, limits: SessionLimits) -> Result<Session> {
        let path = format!("/v1/customers/{customer}/sessions");
        let opened: Session = self.json(&Question::post(path, &said(limits))).await?;
        if opened.customer == customer { Ok(opened) } else { Err(nonsense()) }
    }

    /// A customer's sessions, newest first.
    pub(crate) async fn sessions(&self, customer: CustomerId) -> Result<Vec<Session>> {
        let Sessions { sessions } =
            self.json(&Question::get(format!("/v1/customers/{customer}/sessions"))).await?;
        Ok(sessions)
    }

    /// Ends a session.
    pub(crate) async fn end_session(&self, customer: CustomerId, session: SessionId) -> Result<Session> {
        let path = format!("/v1/customers/{customer}/sessions/{session}/end");
        let ended: Session = self.json(&Question::post(path, &json!({}))).await?;
        if ended.session == session { Ok(ended) } else { Err(nonsense()) }
    }

    /// Asks the customer to be let in: the id under which it approves it.
    pub(crate) async fn request_access(
        &self,
        customer: CustomerId,
        limits: SessionLimits,
    ) -> Result<SessionId> {
        let path = format!("/v1/customers/{customer}/access-requests");
        let Asked { access_request } = self.json(&Question::post(path, &said(limits))).await?;
        Ok(access_request)
    }

    /// Who asks to be let in, oldest first.
    pub(crate) async fn access_requests(&self, customer: CustomerId) -> Result<Vec<AccessRequest>> {
        let AccessRequests { access_requests } =
            self.json(&Question::get(format!("/v1/customers/{customer}/access-requests"))).await?;
        Ok(access_requests)
    }

    /// Lets somebody in who asked, as the customer.
    pub(crate) async fn approve_access(&self, customer: CustomerId, request: SessionId) -> Result<Session> {
        let path = format!("/v1/customers/{customer}/access-requests/{request}/approval");
        let opened: Session = self.json(&Question::post(path, &json!({}))).await?;
        if opened.session == request { Ok(opened) } else { Err(nonsense()) }
    }

    /// Declares an emergency, which stands at this daemon alone.
    pub(crate) async fn declare_emergency(&self, customer: CustomerId, span: Duration) -> Result<Emergency> {
        let path = format!("/v1/customers/{customer}/emergencies");
        let declared: Emergency =
            self.json(&Question::post(path, &json!({ "seconds": span.as_secs() }))).await?;
        if declared.customer == customer { Ok(declared) } else { Err(nonsense()) }
    }

    /// A customer's emergencies, oldest first.
    pub(crate) async fn emergencies(&self, customer: CustomerId) -> Result<Vec<Emergency>> {
        let Emergencies { emergencies } =
            self.json(&Question::get(format!("/v1/customers/{customer}/emergencies"))).await?;
        Ok(emergencies)
    }

    /// Records that whoever asks has looked at what somebody else did in an emergency.
    pub(crate) async fn review_emergency(
        &self,
        customer: CustomerId,
        emergency: EmergencyId,
    ) -> Result<Emergency> {
        let path = format!("/v1/customers/{customer}/emergencies/{emergency}/review");
        let reviewed: Emergency = self.json(&Question::post(path, &json!({}))).await?;
        if reviewed.emergency == emergency { Ok(reviewed) } else { Err(nonsense()) }
    }
}

fn said(limits: SessionLimits) -> Value {
    json!({ "idle_seconds": limits.idle.as_secs(), "absolute_seconds": limits.absolute.as_secs() })
}
