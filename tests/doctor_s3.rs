//! The doctor on S3 and AWS KMS, as LocalStack plays them, and whether they take
//! the policies that it prints.
//!
//! LocalStack enforces no policy, so that here everyone may delete: the doctor
//! must say so, and what it would find behind an enforced policy is tested where
//! that is judged.
#![cfg(feature = "aws")]

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::doctor::policy::{Account, Deployment, Document, documents};
use strongroom::doctor::{Check, Setup, State, Subject, examine};
use strongroom::id::StoreId;
use strongroom::kms::aws::AwsKms;
use strongroom::kms::{EncryptionContext, KmsAdmin, KmsDestroyer, KmsRegistry};
use strongroom::room::{CustomerInfo, KeyChoice, NewCustomer, Options, Strongroom};
use strongroom::store::probe::{LockTerm, ObjectLock, Probe, Reply, Versioning};
use strongroom::store::{CreateRoot, StorageRole, StorageUrls, Storages};
use strongroom::system::SystemClock;

#[path = "common/localstack.rs"]
mod prepared;

use prepared::localstack;

#[path = "common/signer.rs"]
mod signer;

/// What S3 answers to one signed request.
async fn call(
    bucket: &str,
    method: Method,
    query: &[(&str, &str)],
    header: &str,
    body: String,
) -> (u16, String) {
    let s3 = s3(bucket);
    let options = SignedUrlOptions::new().with_query(query.iter().copied());
    let minute = Duration::from_secs(60);
    let url = s3.signed_url_opts(method.clone(), &Path::default(), minute, &options).await.unwrap();
    let digest = data_encoding::BASE64.encode(&Sha256::digest(body.as_bytes()));
    let headers = [(header, "true"), ("x-amz-checksum-sha256", digest.as_str())];
    send(method, url.as_str(), &headers, body).await
}

async fn send(method: Method, url: &str, headers: &[(&str, &str)], body: String) -> (u16, String) {
    let options = object_store::ClientOptions::new().with_allow_http(true);
    let client = ReqwestConnector::default().connect(&options).unwrap();
    let mut request = HttpRequest::new(HttpRequestBody::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().unwrap();
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    let answer = client.execute(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().bytes().await.unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn s3(bucket: &str) -> AmazonS3 {
    AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true).build().unwrap()
}

async fn create_bucket(name: &str, lock: bool) {
    let header = if lock { "x-amz-bucket-object-lock-enabled" } else { "x-strongroom-test" };
    let (status, answer) = call(name, Method::PUT, &[], header, String::new()).await;
    assert_eq!(status, 200, "{answer}");
}

/// The AWS CLI's JSON as the XML that the API takes: a list is its elements one
/// after the other, by the name of the list without the `s`.
fn xml(value: &Value) -> String {
    let Value::Object(fields) = value else {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    };
    let element = |name: &str, value: &Value| format!("<{name}>{}</{name}>", xml(value));
    fields
        .iter()
        .map(|(name, value)| match value {
            Value::Array(values) => {
                values.iter().map(|value| element(name.trim_end_matches('s'), value)).collect()
            }
            value => element(name, value),
        })
        .collect()
}

/// Sets one document up as its command would.
async fn apply(document: &Document, epoch_key: &str, customer: &CustomerInfo) {
    let words: Vec<_> = document.apply.split(' ').collect();
    let value = |option: &str| words[words.iter().position(|word| *word == option).unwrap() + 1];
    let accepted = |answer: (u16, String)| {
        assert!((200..300).contains(&answer.0), "{}: {}", document.name, answer.1);
    };
    let put = |subresource: &'static str, body: String| {
        let bucket = value("--bucket").to_owned();
        async move { call(&bucket, Method::PUT, &[(subresource, "")], "x-strongroom-test", body).await }
    };
    let within = |root: &str| format!("<{root}>{}</{root}>", xml(&document.document));
    match words[2] {
        "put-bucket-versioning" => accepted(put("versioning", within("VersioningConfiguration")).await),
        "put-object-lock-configuration" => {
            accepted(put("object-lock", within("ObjectLockConfiguration")).await)
        }
        "put-bucket-lifecycle-configuration" => {
            accepted(put("lifecycle", within("LifecycleConfiguration")).await)
        }
        "put-bucket-policy" => accepted(put("policy", document.document.to_string()).await),
        "put-key-policy" => {
            let tags = EncryptionContext::epoch(StoreId::from_bytes([0; 16]), 0);
            let log_key = AwsKms::from_env().create_key(&tags).await.unwrap();
            let (key, policy) = match document.name.as_str() {
                "key-policy-epoch" => (epoch_key, document.document.to_string()),
                // LocalStack asks no more of a policy than of another key's.
                "key-policy-log" => (log_key.name(), document.document.to_string()),
                _ => {
                    let text = document.document.to_string();
                    (customer.kms_key.name(), text.replace("CUSTOMER-ID", &customer.id.to_string()))
                }
            };
            let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
            let kms = aws_sdk_kms::Client::new(&config);
            kms.put_key_policy()
                .key_id(key)
                .policy_name(value("--policy-name"))
                .policy(policy)
                .send()
                .await
                .unwrap();
        }
        "put-role-policy" => {
            // Roles are not of one run, as buckets are.
            let role = &format!("{}-{}", value("--role-name"), std::process::id());
            accepted(
                iam(&[("Action", "CreateRole"), ("RoleName", role), ("AssumeRolePolicyDocument", TRUST)])
                    .await,
            );
            accepted(
                iam(&[
                    ("Action", "PutRolePolicy"),
                    ("RoleName", role),
                    ("PolicyName", value("--policy-name")),
                    ("PolicyDocument", &document.document.to_string()),
                ])
                .await,
            );
        }
        other => panic!("a command that this test does not know: {other}"),
    }
}

const TRUST: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

/// LocalStack looks at a signature for the service's name and no further.
async fn iam(parameters: &[(&str, &str)]) -> (u16, String) {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs([("Version", "2010-05-08")]).extend_pairs(parameters);
    let signed = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request, \
     SignedHeaders=host, Signature=0";
    let headers = [("authorization", signed), ("content-type", "application/x-www-form-urlencoded")];
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap();
    send(Method::POST, &format!("{endpoint}/"), &headers, form.finish()).await
}

fn access() -> Access {
    Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration)
}

fn setup(urls: &StorageUrls) -> Setup {
    Setup {
        urls: urls.clone(),
        kms: KmsRegistry::new().with(Arc::new(AwsKms::from_env())),
        local_kms: "/nowhere".into(),
        access: access(),
        clock: Arc::new(SystemClock),
        options: Ok(Options::new(signer::signer())),
    }
}

/// A store in three new buckets, with one customer.
async fn store(name: &str, lock: bool) -> (StorageUrls, Strongroom, CustomerInfo) {
    let bucket = |role: StorageRole| format!("doctor-{name}-{role}-{}", std::process::id());
    for role in StorageRole::ALL {
        create_bucket(&bucket(role), lock && role == StorageRole::Audit).await;
    }
    let url = |role| format!("s3://{}/p", bucket(role)).parse().unwrap();
    let urls = StorageUrls {
        blobs: Some(url(StorageRole::Blobs)),
        keys: Some(url(StorageRole::Keys)),
        audit: Some(url(StorageRole::Audit)),
        ..StorageUrls::new(url(StorageRole::Blobs))
    };
    let setup = setup(&urls);
    let storages = Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap();
    let key = KeyChoice::New("aws-kms".into());
    let (room, _) =
        Strongroom::init(storages, setup.kms, key.clone(), &access(), Options::new(signer::signer()))
            .await
            .unwrap();
    let new = NewCustomer::new("acme".parse().unwrap(), key);
    let customer = room.add_customer(&access(), new).await.unwrap();
    room.close().await.unwrap();
    (urls, room, customer)
}

fn found(checks: &[Check], role: StorageRole, text: &str) -> Option<State> {
    let of = |check: &&Check| check.subject == Subject::Storage(role) && check.what.contains(text);
    checks.iter().find(of).map(|check| check.state)
}

const DELETION: &str = "these credentials may delete from it";

#[tokio::test(flavor = "multi_thread")]
async fn what_buckets_lack_is_found() {
    let Some(_) = localstack() else { return };
    let (urls, _, customer) = store("bare", false).await;
    let checks = examine(&setup(&urls)).await;
    for role in [StorageRole::Keys, StorageRole::Audit] {
        assert_eq!(found(&checks, role, "versions are not kept"), Some(State::Problem), "{checks:#?}");
        assert_eq!(found(&checks, role, DELETION), Some(State::Problem));
    }
    assert_eq!(found(&checks, StorageRole::Audit, "Object Lock is off"), Some(State::Problem));
    assert_eq!(found(&checks, StorageRole::Blobs, "no lifecycle rule"), Some(State::Warning));
    assert_eq!(found(&checks, StorageRole::Blobs, "versions are not kept"), Some(State::Ok));
    let clocks: Vec<_> = checks.iter().filter(|check| check.what.contains("clock is")).collect();
    assert!(clocks.len() == 3 && clocks.iter().all(|check| check.state == State::Ok), "{clocks:?}");
    for (subject, text) in [
        (Subject::EpochKeys, "epoch 1: aws-kms:arn"),
        (
            Subject::CustomerKeys,
            "acme \
     (",
        ),
    ] {
        let check = checks.iter().find(|check| check.subject == subject).unwrap();
        assert!(check.state == State::Ok && check.what.contains(text), "{check:?}");
    }

    AwsKms::from_env().disable(&customer.kms_key).await.unwrap();
    let checks = examine(&setup(&urls)).await;
    let check = checks.iter().find(|check| check.subject == Subject::CustomerKeys).unwrap();
    assert!(check.what.contains("is disabled"), "{check:?}");
    assert!(check.fix.as_ref().unwrap().contains("aws kms enable-key --key-id arn:"), "{check:?}");

    let mut nowhere = urls.clone();
    nowhere.keys = Some("s3://doctor-no-such-bucket".parse().unwrap());
    let checks = examine(&setup(&nowhere)).await;
    assert_eq!(found(&checks, StorageRole::Keys, "there is no such bucket"), Some(State::Problem));
    assert!(found(&checks, StorageRole::Audit, "answers").is_some(), "the others are looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn aws_takes_the_policies_and_then_only_deletion_is_left() {
    let Some(_) = localstack() else { return };
    let (urls, room, customer) = store("good", true).await;
    let epoch_key = epoch_key(&urls).await;
    let account: Account = "000000000000".parse().unwrap();
    let documents = documents(&Deployment::new(&urls, account, Some(room.store_id())));
    for document in &documents {
        apply(document, &epoch_key, &customer).await;
    }
    let checks = examine(&setup(&urls)).await;
    assert_eq!(found(&checks, StorageRole::Audit, "no daily segments"), Some(State::Warning));
    let storages = Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap();
    storages.audit.put(&Path::from("segment/test"), "x".into()).await.unwrap();
    let checks = examine(&setup(&urls)).await;
    let bad: Vec<_> = checks.iter().filter(|check| check.state != State::Ok).collect();
    // LocalStack enforces no policy: everyone may delete, whatever was set up.
    assert_eq!(bad.len(), 2, "{bad:#?}");
    for role in [StorageRole::Keys, StorageRole::Audit] {
        assert_eq!(found(&checks, role, DELETION), Some(State::Problem));
    }
    assert_eq!(found(&checks, StorageRole::Audit, "deleted after 35 days"), Some(State::Ok));
    assert_eq!(found(&checks, StorageRole::Blobs, "removes the parts"), Some(State::Ok));

    // What was set up is what the probe reads, and nothing that it asked left a trace.
    for (role, probe) in Probe::open_each(&urls, Arc::new(SystemClock)).await {
        let probe = probe.unwrap();
        assert_eq!(probe.versioning().await.unwrap(), Some(Reply::Is(Versioning::Enabled)));
        let (bucket, _) =
            urls.of(role).as_s3().map(|(bucket, prefix)| (bucket.to_owned(), prefix.len())).unwrap();
        let Some(Reply::Is(policy)) = probe.policy().await.unwrap() else {
            panic!(
                "no policy of \
         {bucket}"
            )
        };
        let printed =
            documents.iter().find(|document| document.name == format!("bucket-policy-{bucket}")).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&policy).unwrap(), printed.document);
        if role == StorageRole::Audit {
            let six_years = ObjectLock::Default { compliance: true, term: LockTerm::Years(6) };
            assert_eq!(probe.object_lock().await.unwrap(), Some(Reply::Is(six_years)));
        }
        assert_eq!(probe.lets_us_delete_versions().await.unwrap(), Some(true));
        let (_, versions) =
            call(&bucket, Method::GET, &[("versions", "")], "x-strongroom-test", String::new()).await;
        assert!(versions.contains("<ListVersionsResult"), "{versions}");
        assert!(!versions.contains("DeleteMarker") && !versions.contains("strongroom-doctor"), "{versions}");
    }
}

/// The KMS key in the record of epoch 1.
async fn epoch_key(urls: &StorageUrls) -> String {
    let storages = Storages::open(urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap();
    let record = storages.keys.get(&Path::from("epoch/00000001")).await.unwrap().bytes().await.unwrap();
    let text = String::from_utf8_lossy(&record);
    let arn = text.split_once("aws-kms:").unwrap().1;
    let end = arn.find("key/").unwrap() + "key/".len() + 36;
    arn[..end].to_owned()
}
