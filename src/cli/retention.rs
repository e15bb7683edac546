//! `retention show`, `set` and `extend`.

use serde_json::json;

use super::args::{Extend, Retention, SetRetention};
use super::failure::Failure;
use super::get::by_name;
use super::output::{Column, line, seconds, table};
use super::{Answer, Session};
use crate::error::{Error, ErrorKind};
use crate::room::Customer;

pub(super) async fn run(session: &Session, command: Retention) -> Answer {
    match command {
        Retention::Show(of) => show(session, &session.customer(&of.customer).await?).await,
        Retention::Set(command) => set(session, command).await,
        Retention::Extend(command) => extend(session, command).await,
    }
}

async fn show(session: &Session, customer: &Customer) -> Answer {
    let policies = customer.policies().await.map_err(|error| session.explain(error))?;
    if session.output.json {
        let policies = policies.iter().map(|policy| {
            json!({
                "number": policy.number,
                "since": policy.since,
                "retention": policy.period.to_string(),
                "window": policy.window.to_string(),
                "order": policy.order,
            })
        });
        return Ok(line(&json!({ "customer": customer.id(), "policies": policies.collect::<Vec<_>>() })));
    }
    let rows = policies.iter().map(|policy| {
        vec![
            policy.number.to_string(),
            seconds(policy.since),
            policy.period.to_string(),
            policy.window.to_string(),
            policy.order.map_or_else(|| "-".to_owned(), |order| order.to_string()),
        ]
    });
    let columns = [
        ("POLICY", Column::Number),
        ("SINCE", Column::Whole),
        ("RETENTION", Column::Whole),
        ("WINDOW", Column::Whole),
        ("BY ORDER", Column::Whole),
    ];
    Ok(table(&columns, rows))
}

async fn set(session: &Session, command: SetRetention) -> Answer {
    let customer = session.customer(&command.customer.customer).await?;
    match customer.set(Some(command.retention), None).await {
        Ok(_) => show(session, &customer).await,
        Err(error) if error.kind() == ErrorKind::Denied => Err(Failure::from(error)
            .hint("two people can shorten it: `strongroom order request shorten-retention`")),
        Err(error) => Err(session.explain(error)),
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
