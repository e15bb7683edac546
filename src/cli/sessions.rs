//! `session open`, `list` and `end`, and who asks to be let in: `request`, `requests` and `approve`.
//!
//! What is opened in a session names it with `--session`, and needs nothing of what is here.

use serde_json::json;

use super::args::{self, Limits};
use super::failure::Failure;
use super::output::{Column, line, seconds, table};
use super::{Answer, Backend};
use crate::json::{AccessRequest, Guest, Session};
use crate::session::SessionLimits;

pub(super) async fn run(backend: &Backend, command: args::Session) -> Answer {
    let explain = |error| backend.explain(error);
    match command {
        args::Session::Open(command) => {
            let limits = limits(&command.limits)?;
            let customer = backend.customer(&command.customer.customer).await?.id();
            Ok(opened(backend, &backend.open_session(customer, limits).await.map_err(explain)?))
        }
        args::Session::List(of) => {
            let customer = backend.customer(&of.customer).await?.id();
            Ok(listed(backend, &backend.sessions(customer).await.map_err(explain)?))
        }
        args::Session::End(command) => {
            let customer = backend.customer(&command.customer.customer).await?.id();
            Ok(listed(backend, &[backend.end_session(customer, command.which).await.map_err(explain)?]))
        }
        args::Session::Request(command) => {
            let limits = limits(&command.limits)?;
            let whose = &command.customer.customer;
            let customer = backend.customer(whose).await?.id();
            let request = backend.request_access(customer, limits).await.map_err(explain)?;
            if backend.output.json {
                return Ok(line(&json!({ "access_request": request })));
            }
            backend.output.note(&format!(
                "it is approved, within a week, with: strongroom session approve --customer {whose} {request}"
            ));
            Ok(format!("{request}\n"))
        }
        args::Session::Requests(of) => {
            let customer = backend.customer(&of.customer).await?.id();
            Ok(requests(backend, &backend.access_requests(customer).await.map_err(explain)?))
        }
        args::Session::Approve(command) => {
            let customer = backend.customer(&command.customer.customer).await?.id();
            Ok(opened(backend, &backend.approve_access(customer, command.request).await.map_err(explain)?))
        }
    }
}

/// Limits that a session may have.
fn limits(typed: &Limits) -> Result<SessionLimits, Failure> {
    let limits = typed.read();
    limits.check().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(limits)
}

/// The id, as what follows takes it, and beside it for whom it is and for how long.
fn opened(backend: &Backend, session: &Session) -> String {
    if backend.output.json {
        return line(&json!(session));
    }
    let whose = match &session.only {
        Some(only) => format!("for {} alone", guest(only)),
        None => "for whoever may read".to_owned(),
    };
    let (until, idle) = (seconds(session.expires), span(session.idle_seconds));
    backend.output.note(&format!(
        "open until {until}, or until nobody has used it for {idle}, {whose}: name it with --session or \
         STRONGROOM_SESSION"
    ));
    format!("{}\n", session.session)
}

fn listed(backend: &Backend, sessions: &[Session]) -> String {
    if backend.output.json {
        return sessions.iter().map(|session| line(&json!(session))).collect();
    }
    let rows = sessions.iter().map(|session| {
        vec![
            session.session.to_string(),
            state(session),
            seconds(session.opened),
            seconds(session.expires),
            seconds(session.last_use),
            span(session.idle_seconds),
            session.only.as_ref().map_or_else(|| "-".to_owned(), guest),
        ]
    });
    let columns = ["SESSION", "STATE", "OPENED", "EXPIRES", "LAST USE", "IDLE LIMIT", "ONLY FOR"];
    table(&columns.map(|name| (name, Column::Whole)), rows)
}

fn requests(backend: &Backend, requests: &[AccessRequest]) -> String {
    if backend.output.json {
        return requests.iter().map(|request| line(&json!(request))).collect();
    }
    let rows = requests.iter().map(|request| {
        vec![
            request.access_request.to_string(),
            guest(&request.by),
            seconds(request.at),
            seconds(request.until),
            span(request.idle_seconds),
            span(request.absolute_seconds),
        ]
    });
    let columns = ["REQUEST", "BY", "AT", "UNTIL", "IDLE LIMIT", "LIMIT"];
    table(&columns.map(|name| (name, Column::Whole)), rows)
}

/// `open`, `ended`, or what else ended it.
fn state(session: &Session) -> String {
    match session.why.as_ref().map(ToString::to_string).as_deref() {
        None => session.state.to_string(),
        Some("asked") => "ended".to_owned(),
        Some("idle") => "idle-ended".to_owned(),
        Some(why) => why.to_owned(),
    }
}

fn guest(guest: &Guest) -> String {
    format!("{} ({})", guest.principal, guest.purpose)
}

/// How long, in the greatest unit that it is whole in.
fn span(seconds: u64) -> String {
    match (seconds % 3600, seconds % 60) {
        (0, _) => format!("{}h", seconds / 3600),
        (_, 0) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{CustomerId, SessionId};

    #[test]
    fn a_state_says_how_it_ended() {
        let at = "2026-11-22T02:26:13.000000Z".parse().unwrap();
        let session = |state: &str, why: Option<&str>| Session {
            session: SessionId::from_bytes([1; 16]),
            customer: CustomerId::from_bytes([2; 16]),
            state: state.into(),
            why: why.map(Into::into),
            opened: at,
            expires: at,
            last_use: at,
            idle_seconds: 900,
            absolute_seconds: 28_800,
            only: None,
        };
        for (why, shown) in [
            (None, "open"),
            (Some("asked"), "ended"),
            (Some("idle"), "idle-ended"),
            (Some("expired"), "expired"),
            (Some("no-grant"), "no-grant"),
        ] {
            assert_eq!(state(&session(if why.is_none() { "open" } else { "over" }, why)), shown);
        }
    }

    #[test]
    fn a_span_is_told_in_its_unit() {
        assert_eq!([28_800, 900, 5400, 61].map(span), ["8h", "15m", "90m", "61s"]);
    }
}
