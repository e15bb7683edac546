//! `customer add`, `list`, `show` and `set`.

use serde_json::json;

use super::args;
use super::output::{Column, line, pairs, table};
use super::{Answer, Backend};
use crate::json;
use crate::room::NewCustomer;

pub(super) async fn run(backend: &Backend, command: args::Customer) -> Answer {
    let explain = |error| backend.explain(error);
    match command {
        args::Customer::Add(command) => {
            let new = NewCustomer {
                label: command.label,
                kms_key: command.kms,
                period: command.retention,
                window: command.window,
                suite: command.suite,
                strict: command.strict,
                phi: !command.no_phi,
                tenancy: command.tenancy,
            };
            let info = backend.add_customer(new).await.map_err(explain)?;
            Ok(one(backend, &info))
        }
        args::Customer::List => {
            let infos = backend.customers().await.map_err(explain)?;
            Ok(all(backend, &infos))
        }
        args::Customer::Show { customer } => {
            let info = backend.customer(&customer).await?.info().await.map_err(explain)?;
            Ok(one(backend, &info))
        }
        args::Customer::Set(command) => {
            let customer = backend.customer(&command.customer).await?;
            let info = customer.set(command.retention, command.suite).await;
            let info = info.map_err(|error| super::retention::shortening(backend, error))?;
            Ok(one(backend, &info))
        }
    }
}

fn one(backend: &Backend, info: &json::Customer) -> String {
    if backend.output.json {
        return line(&json!(info));
    }
    let rows = [
        ("label", info.label.to_string()),
        ("id", info.customer.to_string()),
        ("KMS key", info.kms_key.to_string()),
        ("retention", info.retention.to_string()),
        ("window", info.window.to_string()),
        ("suite", info.suite.to_string()),
        ("strict", if info.strict { "yes" } else { "no" }.to_owned()),
        ("PHI", if info.phi { "yes" } else { "no" }.to_owned()),
        ("tenancy", info.tenancy.to_string()),
        ("legal hold", if info.held { "yes" } else { "no" }.to_owned()),
        ("ring", format!("version {}, epoch {}, {} keys", info.ring_version, info.epoch, info.keys)),
    ];
    pairs(rows.map(|(name, value)| (name.to_owned(), value)))
}

fn all(backend: &Backend, infos: &[json::Customer]) -> String {
    if backend.output.json {
        return line(&json!({ "customers": infos }));
    }
    let rows = infos.iter().map(|info| {
        vec![
            info.label.to_string(),
            info.customer.to_string(),
            info.retention.to_string(),
            info.suite.to_string(),
            info.kms_key.to_string(),
        ]
    });
    let columns = ["LABEL", "ID", "RETENTION", "SUITE", "KMS KEY"].map(|name| (name, Column::Whole));
    table(&columns, rows)
}
