//! `order`: what takes two people, asked for, shown, approved, and signed elsewhere.
//!
//! A personal key is read where it signs and nowhere else: with `order draft`, `sign` and
//! `submit` that is another machine than the one that has the store.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::json;

use super::args::{self, ApproveOrder, Destroy, DraftOrder, RequestOrder, SignOrder, Validity, What};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, line, pairs};
use super::{Answer, Backend, get, hold, key_file};
use crate::access::Principal;
use crate::error::{Error, ErrorKind};
use crate::id::{CustomerId, OrderId};
use crate::json::{Done, Executed};
use crate::order::{Order, OrderKind, SignedOrder};
use crate::shred::OrderState;
use crate::tlog::NamedKey;
use crate::tlog::note::MAX_LEN;

pub(super) mod shown;

/// What is to be ordered, and of which customer.
pub(super) type Wanted = (OrderKind, Option<CustomerId>);

/// Somebody who signs.
pub(super) struct Signer {
    key: NamedKey,
    person: Principal,
}

impl Signer {
    /// From the file of a person's key.
    pub(super) fn load(path: &Path) -> Result<Self, Failure> {
        let key = key_file::load(path)?;
        match key.name().as_str().parse() {
            Ok(person @ Principal::Person(_)) => Ok(Self { key, person }),
            _ => Err(Failure::new(Exit::Configuration, "configuration", "the key is not a person's")
                .hint("`strongroom person keygen` makes one")),
        }
    }
}

pub(super) async fn run(backend: &Backend, command: args::Order) -> Answer {
    match command {
        args::Order::List => shown::list(backend).await,
        args::Order::Show(command) => shown::show(backend, &command).await,
        args::Order::Approve(command) => approve(backend, &command).await,
        args::Order::Request(command) => request_what(backend, command).await,
        args::Order::Draft(command) => draft(backend, command).await,
        args::Order::Submit(command) => submit(backend, &command.order).await,
        // Done before a backend was opened.
        args::Order::Sign(_) => Ok(String::new()),
    }
}

async fn request_what(backend: &Backend, command: RequestOrder) -> Answer {
    let file = command.sign_with.ok_or_else(|| {
        Failure::usage("--sign-with <FILE> is missing")
            .hint("`strongroom order draft` prints an order to be signed on another machine")
    })?;
    let signer = Signer::load(&file)?;
    let wanted = wanted(backend, command.what).await?;
    request(backend, &signer, command.valid, wanted).await
}

/// Signs an order as its requester, and hands it in.
pub(super) async fn request(
    backend: &Backend,
    signer: &Signer,
    valid: Validity,
    (what, customer): Wanted,
) -> Answer {
    let person = signer.person.clone();
    let drafted = backend.draft_order((what, customer), person, valid.0).await;
    let order = drafted.map_err(|error| backend.explain(error))?;
    let signed = order.sign(&signer.key).map_err(Error::from)?;
    hand_in(backend, &signed).await
}

async fn hand_in(backend: &Backend, signed: &SignedOrder) -> Answer {
    let asked = backend.request_order(signed).await;
    let id = asked.map_err(|error| not_registered(backend, error))?;
    let order = signed.order();
    let approve = format!("strongroom order approve {id} --sign-with FILE");
    if backend.output.json {
        return Ok(line(&json!({
            "order": id,
            "what": order.what,
            "customer": order.customer,
            "requested_by": order.requested_by,
            "expires": order.expires,
            "approve": approve,
        })));
    }
    let rows = [
        ("order", id.to_string()),
        ("asks to", shown::sentence(&order.what)),
        ("asked by", order.requested_by.to_string()),
        ("until", super::output::seconds(order.expires)),
        ("look at it", format!("strongroom order show {id}")),
        ("approve it", format!("{approve}  (another registered person)")),
    ];
    Ok(pairs(rows.map(|(name, value)| (name.to_owned(), value))))
}

/// Approves an order, and does what it asks for.
pub(super) async fn approve(backend: &Backend, command: &ApproveOrder) -> Answer {
    let signer = Signer::load(&command.key.file)?;
    match backend.approve_order(command.id, &signer.key).await {
        Ok(executed) => Ok(done(backend.output, &executed)),
        Err(error) => Err(not_done(backend, command.id, error).await),
    }
}

fn done(output: Output, executed: &Executed) -> String {
    if output.json {
        return line(&json!(executed));
    }
    let id = executed.order;
    match &executed.what {
        Done::Before => format!("{id}  was done before\n"),
        Done::Pended { keys, until, waiting_for } => {
            let until = super::output::seconds(*until);
            let mut text = format!("{id}  keys in the window until {until}: {}\n", keys.len());
            keys.iter().for_each(|key| text.push_str(&format!("{key}\n")));
            if !waiting_for.is_empty() {
                text.push_str(&format!(
                    "it waits for blobs beside it that are not safe yet: {}\n",
                    waiting_for.len()
                ));
            }
            text
        }
        Done::Ring { ring_version } => format!("{id}  done: version {ring_version} of the customer's ring\n"),
        Done::Register { register_version } => {
            format!("{id}  done: version {register_version} of the store's register\n")
        }
        Done::Approved => format!("{id}  approved: carry it out with `strongroom audit rotate-key {id}`\n"),
    }
}

/// Why an order was not done, and whether it stands.
async fn not_done(backend: &Backend, id: OrderId, error: Error) -> Failure {
    let kind = error.kind();
    if !matches!(kind, ErrorKind::Denied | ErrorKind::NotFound) {
        return backend.explain(error);
    }
    let state = backend.orders().await.ok().and_then(|orders| {
        let found = orders.into_iter().find(|order| order.signed.order().id == id)?;
        Some(found.state)
    });
    match state {
        Some(OrderState::Approved) => backend.explain(error).hint(
            "the order stands as approved, and was not done: approve it again once nothing is in the way",
        ),
        Some(_) => not_registered(backend, error),
        None => backend.explain(error).hint("`strongroom order list` shows all"),
    }
}

fn not_registered(backend: &Backend, error: Error) -> Failure {
    match error.kind() {
        ErrorKind::Denied => {
            backend.explain(error).hint("`strongroom person list` shows who may sign, and since when")
        }
        _ => backend.explain(error),
    }
}

async fn draft(backend: &Backend, command: DraftOrder) -> Answer {
    let person = backend.access.principal.clone();
    if !matches!(person, Principal::Person(_)) {
        let message = "an order is asked for by a person, and it is not said by whom";
        return Err(Failure::usage(message).hint("say it with --principal person:<id>"));
    }
    let (what, customer) = wanted(backend, command.what).await?;
    let drafted = backend.draft_order((what, customer), person, command.valid.0).await;
    Ok(drafted.map_err(|error| backend.explain(error))?.text())
}

/// Signs an order that is in a file.
pub(super) fn sign(command: &SignOrder, output: Output) -> Result<(), Failure> {
    let bytes = read(&command.order)?;
    let signer = Signer::load(&command.key.file)?;
    let drafted = std::str::from_utf8(&bytes).ok().and_then(|text| Order::parse(text).ok());
    let signed = match drafted {
        Some(order) => order.sign(&signer.key).map_err(Error::from)?,
        None => {
            let mut signed = SignedOrder::parse(&bytes).map_err(Error::from)?;
            let refuse = |message| Err(Error::new(ErrorKind::Denied, message).into());
            if signed.order().requested_by == signer.person {
                return refuse("you asked for it: another person approves it");
            }
            if signed.note().signatures().len() != 1 {
                return refuse("an order is approved that one person has signed, who asks for it");
            }
            signed.approve(&signer.key).map_err(Error::from)?;
            signed
        }
    };
    let order = signed.order();
    output.note(&format!(
        "{} signs the order {} to {}",
        signer.person,
        order.id,
        shown::sentence(&order.what)
    ));
    output.print(&signed.note().to_string())
}

async fn submit(backend: &Backend, file: &Path) -> Answer {
    let signed = SignedOrder::parse(&read(file)?).map_err(Error::from)?;
    let signatures = signed.note().signatures();
    if signatures.len() < 2 {
        return hand_in(backend, &signed).await;
    }
    let (id, requester) = (signed.order().id, &signed.order().requested_by);
    let mut signers = signatures.iter().filter_map(|signature| signature.name().as_str().parse().ok());
    // If there is nobody else, the order is refused, on the record.
    let approver = signers.find(|signer| signer != requester).unwrap_or_else(|| requester.clone());
    match backend.submit_approved(&signed, approver).await {
        Ok(executed) => Ok(done(backend.output, &executed)),
        Err(error) => Err(not_done(backend, id, error).await),
    }
}

/// A file that may hold an order.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let unread = |error| Failure::input("the order cannot be read", &error);
    let mut bytes = Vec::new();
    // One more than there can be, so that what is longer is seen.
    let file = File::open(path).map_err(unread)?;
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    Ok(bytes)
}

async fn wanted(backend: &Backend, what: What) -> Result<Wanted, Failure> {
    match what {
        What::Destroy(command) => destroying(backend, command).await,
        What::ReleaseHold(command) => {
            let customer = backend.customer(&command.customer.customer).await?;
            hold::releasing(backend, &customer, command.hold).await
        }
        What::ShortenRetention { customer, retention: period } => {
            let customer = backend.customer(&customer.customer).await?;
            Ok((OrderKind::ShortenRetention { period }, Some(customer.id())))
        }
        What::SetClock { at } => Ok((OrderKind::SetClock { at: at.0 }, None)),
        What::RotateLogKey { new_key } => Ok((OrderKind::RotateLogKey { key: new_key.public() }, None)),
        What::SetPeople(people) => {
            let (mut add, remove) = (people.add, BTreeSet::from_iter(people.remove));
            add.sort_by(|a, b| a.principal().cmp(b.principal()));
            Ok((OrderKind::SetPeople { add, remove: remove.into_iter().collect() }, None))
        }
        What::Offboard { customer, form } => {
            let customer = backend.customer(&customer.customer).await?;
            Ok((OrderKind::Offboard { return_to: form.into() }, Some(customer.id())))
        }
    }
}

/// What an order asks for that destroys days, or one blob.
pub(super) async fn destroying(backend: &Backend, command: Destroy) -> Result<Wanted, Failure> {
    let customer = backend.customer(&command.customer.customer).await?;
    let blob = match &command.name {
        Some(name) => Some(get::newest(&customer, name).await.map_err(|error| backend.explain(error))?),
        None => command.blob,
    };
    let days = || BTreeSet::from_iter(command.days).into_iter().collect();
    let what =
        blob.map_or_else(|| OrderKind::DestroyDays { days: days() }, |blob| OrderKind::DestroyBlob { blob });
    Ok((what, Some(customer.id())))
}
