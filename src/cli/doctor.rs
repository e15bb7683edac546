//! `doctor`. It opens no [`Backend`](super::Backend): it is for when none opens.

use std::sync::Arc;

use serde_json::{Value, json};

use super::args::Doctor;
use super::exit::Exit;
use super::failure::Failure;
use super::keys::LocalKeys;
use super::output::Output;
use super::{log_key, options};
use crate::config::Config;
use crate::doctor::policy::{Account, Deployment, Document, documents};
use crate::doctor::{Check, Setup, State, examine, known_store};
use crate::system::SystemClock;

pub(super) async fn run(config: &Config, command: Doctor, output: Output) -> Result<(), Failure> {
    if command.policies {
        return policies(config, command.account, output).await;
    }
    let setup = Setup {
        urls: config.urls.clone(),
        kms: LocalKeys::new(config.local_kms.clone()).registry(),
        local_kms: config.local_kms.clone(),
        access: config.access(),
        clock: Arc::new(SystemClock),
        options: match log_key::load_both(config).await {
            Ok(signers) => options(config, signers).map_err(|failure| failure.message().to_owned()),
            Err(failure) => Err(failure.message().to_owned()),
        },
    };
    let checks = examine(&setup).await;
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let (problems, warnings) = (count(State::Problem), count(State::Warning));
    if output.json {
        let ok = problems == 0;
        output
            .print_json(&json!({ "ok": ok, "problems": problems, "warnings": warnings, "checks": checks }))?;
    } else {
        output.print(&text(&checks))?;
    }
    match problems {
        0 => Ok(()),
        1 => Err(found("1 problem was found".to_owned())),
        _ => Err(found(format!("{problems} problems were found"))),
    }
}

fn found(message: String) -> Failure {
    Failure::new(Exit::Configuration, "configuration", message)
}

/// Grouped by subject, each finding a line, with what to do about it beneath.
fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for (at, check) in checks.iter().enumerate() {
        if at == 0 || checks[at - 1].subject != check.subject {
            let space = if at == 0 { "" } else { "\n" };
            text.push_str(&format!("{space}{}\n", check.subject));
        }
        let state = match check.state {
            State::Ok => "ok",
            State::Unknown => "unknown",
            State::Warning => "warning",
            State::Problem => "PROBLEM",
        };
        text.push_str(&format!("  {state:7}  {}\n", plain(&check.what)));
        if let Some(fix) = &check.fix {
            text.push_str(&format!("           fix: {}\n", plain(fix)));
        }
    }
    text
}

/// A path may have anything in it: what moves a cursor is left out.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn policies(config: &Config, account: Option<Account>, output: Output) -> Result<(), Failure> {
    let example_account = account.is_none();
    let store = known_store(&config.urls, Arc::new(SystemClock)).await;
    let deployment = Deployment::new(&config.urls, account.unwrap_or_else(Account::example), store);
    if deployment.has_example_buckets() {
        output.note(
            "these are for S3; a storage of this store is elsewhere, and gets the name of an \
             example",
        );
    }
    if example_account {
        output.note("the account is that of an example: name yours with --account");
    }
    if store.is_none() {
        output.note("the id of the store is not known here: print these again after `strongroom init`");
    }
    let documents = documents(&deployment);
    if output.json {
        return output.print_json(&json!({ "documents": documents }));
    }
    output.print(&documents.iter().map(shown).collect::<Vec<_>>().join("\n"))
}

fn shown(document: &Document) -> String {
    let Document { name, what, apply, document } = document;
    let json = serde_json::to_string_pretty::<Value>(document).expect("a value is written");
    format!("# {name}.json: {what}\n# {apply}\n{json}\n")
}
