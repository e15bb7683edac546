//! Who is let in, and why: sessions, access requests and emergencies.

use serde::{Deserialize, Serialize};
#[cfg(feature = "daemon")]
use serde_json::{Value, json};

use super::Plain;
use crate::access::{Principal, Purpose};
use crate::id::{CustomerId, EmergencyId, SessionId};
use crate::room::{self, SessionState};
use crate::session;
use crate::time::Timestamp;

/// For whom alone a session is, or is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guest {
    pub(crate) principal: Principal,
    pub(crate) purpose: Purpose,
}

impl From<&session::Guest> for Guest {
    fn from(guest: &session::Guest) -> Self {
        Self { principal: guest.principal.clone(), purpose: guest.purpose }
    }
}

/// A session of a customer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) session: SessionId,
    pub(crate) customer: CustomerId,
    /// `open` or `over`.
    pub(crate) state: Plain,
    /// Why it is over: `asked`, `idle`, `expired` or `no-grant`.
    pub(crate) why: Option<Plain>,
    pub(crate) opened: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) last_use: Timestamp,
    pub(crate) idle_seconds: u64,
    pub(crate) absolute_seconds: u64,
    pub(crate) only: Option<Guest>,
}

impl From<&room::Session> for Session {
    fn from(session: &room::Session) -> Self {
        let (state, why) = match session.state {
            SessionState::Open => ("open", None),
            SessionState::Over(why) => ("over", Some(why.as_str().into())),
        };
        Self {
            session: session.id,
            customer: session.customer,
            state: state.into(),
            why,
            opened: session.opened,
            expires: session.expires,
            last_use: session.last_use,
            idle_seconds: session.limits.idle.as_secs(),
            absolute_seconds: session.limits.absolute.as_secs(),
            only: session.only.as_ref().map(Guest::from),
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn session(session: &room::Session) -> Value {
    json!(Session::from(session))
}

/// Somebody's asking to be let in, which has the id of the session that it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AccessRequest {
    pub(crate) access_request: SessionId,
    pub(crate) customer: CustomerId,
    pub(crate) by: Guest,
    pub(crate) at: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) idle_seconds: u64,
    pub(crate) absolute_seconds: u64,
}

impl From<&room::AccessRequest> for AccessRequest {
    fn from(request: &room::AccessRequest) -> Self {
        Self {
            access_request: request.id,
            customer: request.customer,
            by: Guest::from(&request.guest),
            at: request.at,
            until: request.until,
            idle_seconds: request.limits.idle.as_secs(),
            absolute_seconds: request.limits.absolute.as_secs(),
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn access_request(request: &room::AccessRequest) -> Value {
    json!(AccessRequest::from(request))
}

/// An emergency, and who looked at it afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Emergency {
    pub(crate) emergency: EmergencyId,
    pub(crate) customer: CustomerId,
    pub(crate) by: Principal,
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) uses: u64,
    pub(crate) folded: bool,
    pub(crate) reviewed_by: Option<Principal>,
    pub(crate) reviewed_at: Option<Timestamp>,
}

impl From<&room::Emergency> for Emergency {
    fn from(emergency: &room::Emergency) -> Self {
        let review = emergency.review.as_ref();
        Self {
            emergency: emergency.id,
            customer: emergency.customer,
            by: emergency.by.clone(),
            from: emergency.from,
            until: emergency.until,
            uses: emergency.uses,
            folded: emergency.folded,
            reviewed_by: review.map(|review| review.by.clone()),
            reviewed_at: review.map(|review| review.at),
        }
    }
}

#[cfg(feature = "daemon")]
pub(crate) fn emergency(emergency: &room::Emergency) -> Value {
    json!(Emergency::from(emergency))
}
