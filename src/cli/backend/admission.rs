//! Who is let in, in a store or at a daemon: sessions, access requests and emergencies.

use std::time::Duration;

use super::{Backend, Place};
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, EmergencyId, SessionId};
use crate::json::{AccessRequest, Emergency, Session};
use crate::session::SessionLimits;

impl Backend {
    pub(in crate::cli) async fn open_session(
        &self,
        customer: CustomerId,
        limits: SessionLimits,
    ) -> Result<Session, Error> {
        match &self.place {
            Place::Store(store) => {
                let opened = store.room.open_session(&self.access, customer, limits).await?;
                Ok(Session::from(&opened))
            }
            Place::Daemon(daemon) => daemon.open_session(customer, limits).await,
        }
    }

    pub(in crate::cli) async fn sessions(&self, customer: CustomerId) -> Result<Vec<Session>, Error> {
        match &self.place {
            Place::Store(store) => {
                let sessions = store.room.sessions(&self.access, customer).await?;
                Ok(sessions.iter().map(Session::from).collect())
            }
            Place::Daemon(daemon) => daemon.sessions(customer).await,
        }
    }

    pub(in crate::cli) async fn end_session(
        &self,
        customer: CustomerId,
        session: SessionId,
    ) -> Result<Session, Error> {
        match &self.place {
            Place::Store(store) => {
                let ended = store.room.end_session(&self.access, customer, session).await?;
                Ok(Session::from(&ended))
            }
            Place::Daemon(daemon) => daemon.end_session(customer, session).await,
        }
    }

    pub(in crate::cli) async fn request_access(
        &self,
        customer: CustomerId,
        limits: SessionLimits,
    ) -> Result<SessionId, Error> {
        match &self.place {
            Place::Store(store) => store.room.request_access(&self.access, customer, limits).await,
            Place::Daemon(daemon) => daemon.request_access(customer, limits).await,
        }
    }

    pub(in crate::cli) async fn access_requests(
        &self,
        customer: CustomerId,
    ) -> Result<Vec<AccessRequest>, Error> {
        match &self.place {
            Place::Store(store) => {
                let requests = store.room.access_requests(&self.access, customer).await?;
                Ok(requests.iter().map(AccessRequest::from).collect())
            }
            Place::Daemon(daemon) => daemon.access_requests(customer).await,
        }
    }

    pub(in crate::cli) async fn approve_access(
        &self,
        customer: CustomerId,
        request: SessionId,
    ) -> Result<Session, Error> {
        match &self.place {
            Place::Store(store) => {
                let opened = store.room.approve_access(&self.access, customer, request).await?;
                Ok(Session::from(&opened))
            }
            Place::Daemon(daemon) => daemon.approve_access(customer, request).await,
        }
    }

    /// At a daemon only: it stands where it was declared, and this program ends.
    pub(in crate::cli) async fn declare_emergency(
        &self,
        customer: CustomerId,
        span: Duration,
    ) -> Result<Emergency, Error> {
        match &self.place {
            Place::Store(_) => {
                Err(Error::new(ErrorKind::InvalidInput, "an emergency is declared at a daemon"))
            }
            Place::Daemon(daemon) => daemon.declare_emergency(customer, span).await,
        }
    }

    /// The emergencies of a customer, or all of a store. A daemon is asked of one customer.
    pub(in crate::cli) async fn emergencies(
        &self,
        customer: Option<CustomerId>,
    ) -> Result<Vec<Emergency>, Error> {
        match (&self.place, customer) {
            (Place::Store(store), customer) => {
                let found = store.room.emergencies(&self.access, customer).await?;
                Ok(found.iter().map(Emergency::from).collect())
            }
            (Place::Daemon(daemon), Some(customer)) => daemon.emergencies(customer).await,
            (Place::Daemon(_), None) => {
                Err(Error::new(ErrorKind::InvalidInput, "a daemon lists the emergencies of one customer"))
            }
        }
    }

    pub(in crate::cli) async fn review_emergency(
        &self,
        customer: CustomerId,
        emergency: EmergencyId,
    ) -> Result<Emergency, Error> {
        match &self.place {
            Place::Store(store) => {
                let reviewed = store.room.review_emergency(&self.access, customer, emergency).await?;
                Ok(Emergency::from(&reviewed))
            }
            Place::Daemon(daemon) => daemon.review_emergency(customer, emergency).await,
        }
    }
}
