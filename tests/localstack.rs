//! The whole of it on S3 and AWS KMS, as LocalStack plays them.
#![cfg(feature = "aws")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use object_store::path::Path;
use object_store::signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::log::verify_chain;
use strongroom::envelope::Metadata;
use strongroom::id::{KmsKeyId, Label};
use strongroom::kms::aws::AwsKms;
use strongroom::kms::{KmsDestroyer, KmsGrants, KmsRegistry};
use strongroom::ring::Tenancy;
use strongroom::room::{ByteRange, KeyChoice, NewCustomer, Options, SealOptions, Source, Strongroom};
use strongroom::session::SessionLimits;
use strongroom::store::purge::{Failed, Purged};
use strongroom::store::{CreateRoot, StorageUrls, Storages};
use strongroom::system::SystemClock;
use strongroom::time::Clock;

#[path = "common/signer.rs"]
mod signer;
use signer::signer;
#[path = "common/localstack.rs"]
mod prepared;

use prepared::{Prepared, localstack};

fn access() -> Access {
    Access::new(Principal::service("tests").unwrap(), Purpose::SystemAdministration)
}

async fn storages(prepared: &Prepared, folder: &str) -> Storages {
    // A folder of its own for each run, as the buckets outlive a test.
    let folder = format!("{folder}-{}", std::process::id());
    let url = |bucket: &str| format!("s3://{bucket}/{folder}").parse().unwrap();
    let urls = StorageUrls {
        blobs: Some(url(&prepared.blobs)),
        keys: Some(url(&prepared.keys)),
        audit: Some(url(&prepared.audit)),
        ..StorageUrls::new(url(&prepared.blobs))
    };
    Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap()
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_any_size_go_to_s3_and_back() {
    let Some(prepared) = localstack() else { return };
    let storages = storages(&prepared, "sizes").await;
    let registry = KmsRegistry::new().with(Arc::new(AwsKms::from_env()));
    let epoch_key = KeyChoice::New("aws-kms".into());
    let (room, made) = Strongroom::init(
        storages.clone(),
        registry.clone(),
        epoch_key.clone(),
        &access(),
        Options::new(signer()),
    )
    .await
    .unwrap();
    assert!(made);
    let key: KmsKeyId = format!("aws-kms:{}", prepared.key).parse().unwrap();
    room.add_customer(&access(), NewCustomer::new(label("acme"), KeyChoice::Existing(key))).await.unwrap();
    let acme = room.customer(&label("acme"), access()).await.unwrap();
    // Two parts and a bit, one part, nothing at all.
    for length in [20_000_000usize, 70_000, 0] {
        let plaintext: Bytes =
            (0..length).map(|index| (index * 31 + index / 65_521).to_le_bytes()[0]).collect();
        let named = Metadata::new().with_name(format!("of {length} bytes").parse().unwrap());
        let source = Source::reader(std::io::Cursor::new(plaintext.clone()));
        let sealed = acme.seal(source, SealOptions::new().metadata(named)).await.unwrap();
        assert_eq!(acme.open(sealed.id).await.unwrap().bytes(1 << 30).await.unwrap(), plaintext);
        let newest = acme.newest(&format!("of {length} bytes").parse().unwrap()).await.unwrap();
        assert_eq!((newest.id, newest.bytes), (sealed.id, length as u64));
        if length > 100 {
            let part = acme.open_range(sealed.id, ByteRange::Last(100)).await.unwrap();
            assert_eq!(part.bytes(100).await.unwrap(), plaintext.slice(length - 100..));
        }
    }
    // A second `init` takes the store as it is; another node reads the same.
    let (node, made) =
        Strongroom::init(storages.clone(), registry, epoch_key, &access(), Options::new(signer()))
            .await
            .unwrap();
    assert!(!made);
    let acme = node.customer(&label("acme"), access()).await.unwrap();
    let newest = acme.newest(&"of 70000 bytes".parse().unwrap()).await.unwrap();
    assert_eq!(acme.verify(newest.id).await.unwrap().bytes, 70_000);
    // Published twice, so that a checkpoint is also replaced.
    let first = room.publish_log().await.unwrap().pop().unwrap().1;
    node.maintain_log().await.unwrap();
    node.close().await.unwrap();
    let last = room.publish_log().await.unwrap().pop().unwrap().1;
    assert!(first.tree.size > 0 && last.tree.size >= first.tree.size);
    room.close().await.unwrap();
    verify_chain(storages.audit, node.store_id(), 0, node.log().authority()).await.unwrap();
}

/// The command line with nothing but the environment, as a job has it.
#[cfg(feature = "cli")]
#[test]
fn the_command_line_on_s3() {
    use std::process::{Command, Output};

    let Some(prepared) = localstack() else { return };
    let directory = tempfile::tempdir().unwrap();
    let store = format!("s3://{}/cli-{}", prepared.blobs, std::process::id());
    let strongroom = |args: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_strongroom"))
            .args(args)
            .env("STRONGROOM_STORE", &store)
            .env("XDG_DATA_HOME", directory.path())
            .output()
            .unwrap()
    };
    let done = |args: &[&str]| -> String {
        let output = strongroom(args);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {err}");
        String::from_utf8(output.stdout).unwrap() + &err
    };
    // The bucket that `localstack/run` makes has no such rule.
    assert!(done(&["init"]).contains("AbortIncompleteMultipartUpload"));
    done(&["customer", "add", "acme", "--kms", &format!("aws-kms:{}", prepared.key)]);
    let input = directory.path().join("input");
    let output = directory.path().join("output");
    let plaintext: Vec<u8> = (0..11_000_000usize).map(|index| (index / 3).to_le_bytes()[0]).collect();
    std::fs::write(&input, &plaintext).unwrap();
    let blob = done(&["put", "--customer", "acme", "--name", "n", input.to_str().unwrap()]);
    let blob = blob.trim_end();
    done(&["get", "--customer", "acme", blob, "-o", output.to_str().unwrap()]);
    assert!(std::fs::read(&output).unwrap() == plaintext);
    let range =
        strongroom(&["get", "--customer", "acme", "--name", "n", "-o", "-", "--range", "9999999-10000001"]);
    assert_eq!(range.stdout, plaintext[9_999_999..=10_000_001]);
    assert!(done(&["audit", "tail"]).contains("open-range"));
    let unknown = format!("aws-kms:{}x", prepared.key);
    assert!(!strongroom(&["customer", "add", "other", "--kms", &unknown]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_key_stops_its_own_customer_only() {
    let Some(prepared) = localstack() else { return };
    let storages = storages(&prepared, "disabled").await;
    let kms = Arc::new(AwsKms::from_env());
    let registry = KmsRegistry::new().with(kms.clone());
    let mut options = Options::new(signer());
    options.key_ttl = Duration::from_millis(1);
    let (room, _) =
        Strongroom::init(storages, registry, KeyChoice::New("aws-kms".into()), &access(), options)
            .await
            .unwrap();
    for name in ["acme", "globex"] {
        let new = NewCustomer::new(label(name), KeyChoice::New("aws-kms".into()));
        room.add_customer(&access(), new).await.unwrap();
    }
    let acme = room.customer(&label("acme"), access()).await.unwrap();
    let globex = room.customer(&label("globex"), access()).await.unwrap();
    let theirs = acme.seal(vec![1; 1000], SealOptions::new()).await.unwrap();
    let others = globex.seal(vec![2; 1000], SealOptions::new()).await.unwrap();

    let key = acme.info().await.unwrap().kms_key;
    kms.disable(&key).await.unwrap();
    assert_eq!(acme.open(theirs.id).await.unwrap_err().kind(), ErrorKind::KeyUnavailable);
    let refused = acme.seal(vec![1; 10], SealOptions::new()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyUnavailable);
    assert!(globex.open(others.id).await.is_ok());
    kms.enable(&key).await.unwrap();
    assert_eq!(acme.open(theirs.id).await.unwrap().bytes(1000).await.unwrap(), vec![1; 1000]);
    room.close().await.unwrap();
}

/// LocalStack makes, lists and ends grants, and refuses nothing without one: that the KMS
/// enforces them is shown on the local provider (`tests/sessions.rs`).
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_a_grant_on_the_customers_key() {
    let Some(prepared) = localstack() else { return };
    let storages = storages(&prepared, "sessions").await;
    let kms = Arc::new(AwsKms::from_env());
    let registry = KmsRegistry::new().with(kms.clone()).with_grants(kms.clone());
    let epoch_key = KeyChoice::New("aws-kms".into());
    let (room, _) =
        Strongroom::init(storages, registry, epoch_key, &access(), Options::new(signer())).await.unwrap();
    let mut new = NewCustomer::new(label("acme"), KeyChoice::New("aws-kms".into()));
    new.tenancy = Tenancy::Customer;
    let info = room.add_customer(&access(), new).await.unwrap();
    let outside = room.customer(&label("acme"), access()).await.unwrap();
    let blob = outside.seal(vec![1; 1000], SealOptions::new()).await.unwrap();
    assert_eq!(outside.open(blob.id).await.unwrap_err().kind(), ErrorKind::Denied);

    let session = room.open_session(&access(), info.id, SessionLimits::DEFAULT).await.unwrap();
    assert_eq!(kms.grants(&info.kms_key).await.unwrap(), [session.id]);
    let inside = room.customer(&label("acme"), access().within(session.id)).await.unwrap();
    assert_eq!(inside.open(blob.id).await.unwrap().bytes(1000).await.unwrap(), vec![1; 1000]);
    // More than one page of grants.
    let mut sessions = vec![session.id];
    for _ in 0..101 {
        sessions.push(room.open_session(&access(), info.id, SessionLimits::DEFAULT).await.unwrap().id);
    }
    assert_eq!(kms.grants(&info.kms_key).await.unwrap().len(), sessions.len());
    let last = sessions.pop().unwrap();
    for ended in sessions {
        room.end_session(&access(), info.id, ended).await.unwrap();
    }
    assert_eq!(kms.grants(&info.kms_key).await.unwrap(), [last]);
    assert_eq!(inside.open(blob.id).await.unwrap_err().kind(), ErrorKind::Denied);
    room.end_session(&access(), info.id, last).await.unwrap();
    assert!(kms.grants(&info.kms_key).await.unwrap().is_empty());
    room.close().await.unwrap();
}

/// One signed request to a bucket, and what it answers.
async fn ask(
    bucket: &str,
    method: Method,
    path: &Path,
    query: &[(&str, &str)],
    headers: &[(&str, &str)],
) -> String {
    let s3 = AmazonS3Builder::from_env().with_bucket_name(bucket).with_allow_http(true).build().unwrap();
    let mut options = SignedUrlOptions::new().with_query(query.iter().copied());
    let mut request = HttpRequest::new(HttpRequestBody::from("12345".to_owned()));
    for (name, value) in headers {
        let (name, value): (HeaderName, _) = (name.parse().unwrap(), HeaderValue::from_str(value).unwrap());
        options = options.with_signed_header(name.clone(), value.clone());
        request.headers_mut().insert(name, value);
    }
    let url = s3.signed_url_opts(method.clone(), path, Duration::from_secs(60), &options).await.unwrap();
    *request.method_mut() = method;
    *request.uri_mut() = url.as_str().parse().unwrap();
    let plain = object_store::ClientOptions::new().with_allow_http(true);
    let answer = ReqwestConnector::default().connect(&plain).unwrap().execute(request).await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    String::from_utf8(answer.into_body().bytes().await.unwrap().to_vec()).unwrap()
}

/// The versions and delete markers under a folder, as S3 tells them.
async fn versions(bucket: &str, folder: &str) -> (usize, usize) {
    let query = [("versions", ""), ("prefix", folder)];
    let listed = ask(bucket, Method::GET, &Path::default(), &query, &[]).await;
    assert!(listed.contains("<IsTruncated>false<"), "{listed}");
    (listed.matches("<Version>").count(), listed.matches("<DeleteMarker>").count())
}

/// Storages whose blobs are in `bucket`, and the folder they are in.
async fn blobs_in(bucket: &str) -> (Storages, String) {
    let folder = format!("purge-{}", std::process::id());
    let urls = StorageUrls::new(format!("s3://{bucket}/{folder}").parse().unwrap());
    let storages = Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await.unwrap();
    (storages, format!("{folder}/blobs/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_leaves_no_version_behind() {
    let Some(prepared) = localstack() else { return };
    let (storages, folder) = blobs_in(&prepared.keys).await;
    let put = async |path: &str| storages.blobs.put(&Path::from(path), "12345".into()).await.map(drop);
    // More than two pages.
    let many: Vec<_> = (0..2100).map(|n| format!("blob/many/{n}")).collect();
    stream::iter(&many).map(|path| put(path)).buffer_unordered(16).try_collect::<()>().await.unwrap();
    for path in ["blob/few/a", "blob/few/a", "blob/few/b c&d", "blob/few/spared", "blob/fewer"] {
        put(path).await.unwrap();
    }
    storages.blobs.delete(&Path::from("blob/few/a")).await.unwrap();
    assert_eq!(versions(&prepared.keys, &format!("{folder}blob/few/")).await, (4, 1));

    let few =
        storages.purge(&Path::from("blob/few"), |path| !path.as_ref().ends_with("spared")).await.unwrap();
    let expected =
        Purged { objects: 2, versions: 3, delete_markers: 1, bytes: 15, kept: 1, ..Purged::default() };
    assert_eq!(few, expected);
    assert_eq!(versions(&prepared.keys, &format!("{folder}blob/few/")).await, (1, 0));
    let rest = storages.purge(&Path::default(), |_| true).await.unwrap();
    assert_eq!((rest.objects, rest.versions, rest.kept), (2102, 2102, 0));
    assert_eq!(versions(&prepared.keys, &folder).await, (0, 0));
    assert_eq!(storages.purge(&Path::default(), |_| true).await.unwrap(), Purged::default());

    // A bucket that never kept versions.
    let (storages, folder) = blobs_in(&prepared.blobs).await;
    storages.blobs.put(&Path::from("blob/a"), "12345".into()).await.unwrap();
    let one = Purged { objects: 1, versions: 1, bytes: 5, ..Purged::default() };
    assert_eq!(storages.purge(&Path::from("blob"), |_| true).await.unwrap(), one);
    assert_eq!(versions(&prepared.blobs, &folder).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_object_lock_keeps_is_counted() {
    let Some(prepared) = localstack() else { return };
    let (storages, folder) = blobs_in(&prepared.audit).await;
    let until = SystemClock.now().saturating_add(Duration::from_secs(3600)).to_string();
    let lock = [("x-amz-object-lock-mode", "COMPLIANCE"), ("x-amz-object-lock-retain-until-date", &until)];
    ask(&prepared.audit, Method::PUT, &Path::from(format!("{folder}blob/locked")), &[], &lock).await;
    storages.blobs.put(&Path::from("blob/free"), "12345".into()).await.unwrap();
    let purged = storages.purge(&Path::from("blob"), |_| true).await.unwrap();
    let failed = Failed { locked: 1, denied: 0 };
    assert_eq!(purged, Purged { objects: 1, versions: 1, bytes: 5, failed, ..Purged::default() });
    assert_eq!(versions(&prepared.audit, &folder).await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_tells_the_time() {
    let Some(prepared) = localstack() else { return };
    let (storages, folder) = blobs_in(&prepared.blobs).await;
    let told = storages.clock().await.unwrap().unwrap();
    let minute = Duration::from_secs(60);
    let now = SystemClock.now();
    assert!(told <= now.saturating_add(minute) && now <= told.saturating_add(minute), "{told} {now}");
    let clock = format!("{folder}clock");
    assert_eq!(versions(&prepared.blobs, &clock).await, (0, 0), "nothing was written");
}
