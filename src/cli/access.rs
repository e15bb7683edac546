//! `access`: what the policy says, asked without a daemon.

use std::path::Path;

use serde_json::json;

use super::args::{self, AccessTest};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, line};
use super::serve::directory;
use crate::access::policy::{Decision, Policy, Question, RoleMatrix, Target};
use crate::error::ErrorKind;
use crate::id::SessionId;
use crate::system::SystemClock;
use crate::time::Clock;

pub(super) fn run(command: args::Access, output: Output) -> Result<(), Failure> {
    match command {
        args::Access::Test(command) => test(&command, output),
        args::Access::Roles => output.print(&RoleMatrix::table()),
    }
}

/// Whether somebody could do something, and by which rule.
fn test(command: &AccessTest, output: Output) -> Result<(), Failure> {
    let directory = directory(Path::new(&command.principals))?;
    let subject = directory.subjects().iter().find(|subject| subject.principal == command.who);
    let subject = subject.ok_or_else(|| {
        Failure::new(Exit::NoInput, ErrorKind::NotFound.as_str(), "the mapping has no such principal")
    })?;
    let target = match command.customer {
        Some(id) => Target::Customer {
            id,
            phi: !command.no_phi,
            sessions: command.customer_tenancy,
            // That one is open is said, and not which.
            session: command.in_session.then(|| SessionId::from_bytes([0; 16])),
        },
        None => Target::Store,
    };
    let today = command.date.unwrap_or_else(|| SystemClock.now().day());
    let decision = RoleMatrix.decide(&Question { subject, operation: command.what, target, today });
    let (allowed, rule) = (decision.is_allowed(), decision.rule());
    output.print(&match output.json {
        true => line(
            &json!({ "allowed": allowed, "rule": rule, "principal": command.who, "operation": command.what }),
        ),
        false => format!("{} by {rule}\n", if allowed { "allowed" } else { "denied" }),
    })?;
    match decision {
        Decision::Allowed(_) => Ok(()),
        Decision::Denied(_) => {
            Err(Failure::new(Exit::Denied, ErrorKind::Denied.as_str(), "it would be denied"))
        }
    }
}
