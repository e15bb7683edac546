//! `retention show`, `set` and `extend`.

use serde_json::json;

use super::args::{Extend, Retention, RetentionSet};
use super::failure::Failure;
use super::get::by_name;
use super::output::{Column, Output, line, pairs, seconds, table};
use super::{Answer, Backend};
use crate::error::{Error, ErrorKind};
use crate::json::Policies;
use crate::ring::RingRefusal;

pub(super) async fn run(backend: &Backend, command: Retention) -> Answer {
    match command {
        Retention::Show { customer } => {
            let policies = backend.customer(&customer).await?.policies().await;
            Ok(all(backend.output, &policies.map_err(|error| backend.explain(error))?))
        }
        Retention::Set(command) => set(backend, command).await,
        Retention::Extend(command) => extend(backend, command).await,
    }
}

async fn set(backend: &Backend, command: RetentionSet) -> Answer {
    let customer = backend.customer(&command.customer).await?;
    let policies = customer.set_policy(command.period, command.window).await;
    Ok(all(backend.output, &policies.map_err(|error| shortening(backend, error))?))
}

/// A refusal to make a term shorter, with what does.
pub(super) fn shortening(backend: &Backend, error: Error) -> Failure {
    let refusal = std::error::Error::source(&error).and_then(|source| source.downcast_ref());
    let shortens = refusal == Some(&RingRefusal::Shortened);
    let failure = backend.explain(error);
    if shortens {
        failure
            .hint("a shorter period takes an order of two people: strongroom order request shorten-retention")
    } else {
        failure
    }
}

/// The policy that applies, and all there were.
fn all(output: Output, policies: &Policies) -> String {
    if output.json {
        return line(&json!(policies));
    }
    let now = policies.policy.as_ref().map(|policy| {
        [
            ("retention".to_owned(), policy.retention.to_string()),
            ("window".to_owned(), policy.window.to_string()),
            ("since".to_owned(), seconds(policy.since)),
        ]
    });
    let columns = [
        ("POLICY", Column::Number),
        ("SINCE", Column::Whole),
        ("RETENTION", Column::Whole),
        ("WINDOW", Column::Whole),
        ("ORDER", Column::Whole),
    ];
    let rows = policies.policies.iter().map(|policy| {
        vec![
            policy.number.to_string(),
            seconds(policy.since),
            policy.retention.to_string(),
            policy.window.to_string(),
            policy.order.map_or_else(|| "-".to_owned(), |order| order.to_string()),
        ]
    });
    format!("{}\n{}", pairs(now.into_iter().flatten()), table(&columns, rows))
}

async fn extend(backend: &Backend, command: Extend) -> Answer {
    let customer = backend.customer(&command.customer.customer).await?;
    let (which, until) = (&command.blob, command.until);
    let extended = match (&which.blob, &which.name) {
        (Some(blob), _) => customer.extend(*blob, until).await,
        (None, Some(name)) => {
            let customer = customer.only_named(name);
            by_name(&customer, name, which.nth, async |blob| customer.extend(blob, until).await).await
        }
        (None, None) => Err(Error::new(ErrorKind::InvalidInput, "a blob id or --name is missing")),
    };
    let extended = extended.map_err(|error| backend.explain(error))?;
    if backend.output.json {
        return Ok(line(&json!(extended)));
    }
    let text = if extended.changed { "kept until" } else { "was kept until" };
    Ok(format!("{}  {text} {}\n", extended.blob, extended.retain_until))
}
