//! What a daemon is asked about its store: customers, destruction, epochs, certificates.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;

use super::Client;
use super::ask::Question;
use super::customer::RemoteCustomer;
use crate::error::{Error, Result};
use crate::id::{CertificateId, CustomerId, CustomerRef, KekId};
use crate::json::{
    Cancelled, Certificate, Customer, Epochs, KeyPlan, Person, Rotated, ShredStatus, Swept, SweptCustomer,
    SweptResult,
};
use crate::room::{KeyChoice, NewCustomer};
use crate::suite::Suite;
use crate::time::Timestamp;

#[derive(Deserialize)]
struct FoundCustomer {
    customer: CustomerId,
}

#[derive(Deserialize)]
struct Customers {
    customers: Vec<Customer>,
}

#[derive(Deserialize)]
struct Plan {
    keys: Vec<KeyPlan>,
}

#[derive(Deserialize)]
struct Sweep {
    time: Timestamp,
    customers: Vec<SweptCustomer>,
}

#[derive(Deserialize)]
struct People {
    people: Vec<Person>,
}

#[derive(Deserialize)]
struct Certificates {
    certificates: Vec<Certificate>,
}

impl Client {
    /// The customer that is named. A label is in no URL; an id is, and whatever is asked of it next
    /// says whether there is such a customer.
    pub(crate) async fn customer(&self, whose: &CustomerRef) -> Result<RemoteCustomer> {
        let label = match whose {
            CustomerRef::Id(id) => return Ok(self.customer_by_id(*id)),
            CustomerRef::Label(label) => label,
        };
        let question = Question::look("/v1/customers/find", &json!({ "label": label.as_str() }));
        let FoundCustomer { customer } = self.json(&question).await?;
        Ok(RemoteCustomer::new(self.clone(), customer))
    }

    /// The customer of an id, if there is one.
    pub(crate) fn customer_by_id(&self, customer: CustomerId) -> RemoteCustomer {
        RemoteCustomer::new(self.clone(), customer)
    }

    pub(crate) async fn customers(&self) -> Result<Vec<Customer>> {
        let Customers { customers } = self.json(&Question::get("/v1/customers")).await?;
        Ok(customers)
    }

    pub(crate) async fn add_customer(&self, new: &NewCustomer) -> Result<Customer> {
        let body = json!({
            "label": new.label.as_str(),
            "kms_key": text(&new.kms_key),
            "retention": new.period.to_string(),
            "window": new.window.to_string(),
            "suite": Suite::as_str(new.suite),
            "strict": new.strict,
            "phi": new.phi,
            "tenancy": new.tenancy.as_str(),
        });
        self.json(&Question::post("/v1/customers", &body)).await
    }

    pub(crate) async fn shred_status(&self, customer: CustomerId) -> Result<ShredStatus> {
        self.json(&Question::get(format!("/v1/customers/{customer}/shreds"))).await
    }

    pub(crate) async fn shred_plan(&self, customer: CustomerId) -> Result<Vec<KeyPlan>> {
        let Plan { keys } =
            self.json(&Question::get(format!("/v1/customers/{customer}/shreds/plan"))).await?;
        Ok(keys)
    }

    /// Takes keys out of the window.
    pub(crate) async fn cancel_shred(
        &self,
        customer: CustomerId,
        keys: &BTreeSet<KekId>,
    ) -> Result<Cancelled> {
        let path = format!("/v1/customers/{customer}/shreds/cancellation");
        self.json(&Question::post(path, &json!({ "keys": keys }))).await
    }

    /// Does all that is due: the time that it went by, and what became of each customer.
    pub(crate) async fn sweep(&self) -> Result<(Timestamp, Vec<(CustomerId, Result<Swept>)>)> {
        let Sweep { time, customers } = self.json(&Question::post("/v1/shreds/run", &json!({}))).await?;
        let result = |SweptCustomer { customer, result }| match result {
            SweptResult::Swept(swept) => (customer, Ok(swept)),
            SweptResult::Failed { error } => (customer, Err(Error::from(error))),
        };
        Ok((time, customers.into_iter().map(result).collect()))
    }

    pub(crate) async fn people(&self) -> Result<Vec<Person>> {
        let People { people } = self.json(&Question::get("/v1/people")).await?;
        Ok(people)
    }

    pub(crate) async fn epochs(&self) -> Result<Epochs> {
        self.json(&Question::get("/v1/epochs")).await
    }

    pub(crate) async fn rotate_epoch(&self, choice: &KeyChoice) -> Result<Rotated> {
        self.json(&Question::post("/v1/epochs", &json!({ "kms_key": text(choice) }))).await
    }

    /// The certificates of one customer, or of all whom the asker is there for.
    pub(crate) async fn certificates(&self, customer: Option<CustomerId>) -> Result<Vec<Certificate>> {
        let path = match customer {
            Some(customer) => format!("/v1/certificates?customer={customer}"),
            None => "/v1/certificates".to_owned(),
        };
        let Certificates { certificates } = self.json(&Question::get(path)).await?;
        Ok(certificates)
    }

    /// A certificate as it is signed, in its newest stage, with the papers that it names: a
    /// bundle. What it says is for the caller to verify.
    pub(crate) async fn certificate_bundle(&self, certificate: CertificateId) -> Result<String> {
        self.text(&Question::get(format!("/v1/certificates/{certificate}?bundle=true"))).await
    }
}

/// A KMS key, or a new one of a provider, as it is written.
pub(super) fn text(choice: &KeyChoice) -> String {
    match choice {
        KeyChoice::New(provider) => provider.clone(),
        KeyChoice::Existing(key) => key.to_string(),
    }
}
