//! `retention extend`.

use serde_json::json;

use super::args::{Extend, Retention};
use super::get::by_name;
use super::output::line;
use super::{Answer, Session};
use crate::error::{Error, ErrorKind};

pub(super) async fn run(session: &Session, command: Retention) -> Answer {
    match command {
        Retention::Extend(command) => extend(session, command).await,
    }
}

async fn extend(session: &Session, command: Extend) -> Answer {
    let customer = session.customer(&command.customer.customer).await?;
    let (which, until) = (&command.blob, command.until);
    let extended = match (&which.blob, &which.name) {
        (Some(blob), _) => customer.extend(*blob, until).await,
        (None, Some(name)) => {
            let customer = customer.only_named(name);
            by_name(&customer, name, which.nth, async |blob| customer.extend(blob, until).await).await
        }
        (None, None) => Err(Error::new(ErrorKind::InvalidInput, "a blob id or --name is missing")),
    };
    let extended = extended.map_err(|error| session.explain(error))?;
    if session.output.json {
        return Ok(line(&json!({
            "blob": extended.id,
            "retain_until": extended.retain_until,
            "changed": extended.changed,
        })));
    }
    let text = if extended.changed { "kept until" } else { "was kept until" };
    Ok(format!("{}  {text} {}\n", extended.id, extended.retain_until))
}
