//! What to set up on AWS for a store: settings and policies of its buckets, of its
//! KMS keys, and of the roles of those who come to it.
//!
//! Separate from the checks because it is printed before there is a store. Pure:
//! a [`Deployment`] in, documents out, each as the AWS API takes it.
//!
//! | role | may |
//! |---|---|
//! | node | seal and open: read, create, use keys under a bound context, sign the log; it deletes and ends nothing |
//! | auditor | read the audit log with its versions and settings, nothing else |
//! | witness | read the audit log, nothing else |
//! | administrator | make tagged KMS keys, for `init` and `customer add` |
//! | destroyer | end epochs' KMS keys, by credentials of its own: it reads rings and the log, opens the outer seal of rings, writes the register and the log |
//! | purger | remove blobs in every version, when their keys are gone |
//!
//! Invariants: no statement allows a node to delete, to change a bucket's settings,
//! or to end a KMS key, and one denies it; only the destroyer ends keys, a customer's
//! only after its key policy was changed for it, and it has nothing to do with blobs;
//! only the purger deletes, and blobs alone.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error as ThisError;

mod keys;
mod roles;

use keys::key_documents;
use roles::role_documents;

use super::{AUDIT_YEARS, SMALL_COMMITS_DAYS};
use crate::id::StoreId;
use crate::store::{StorageRole, StorageUrls};

/// Stands for a customer's id, which is known when the customer was added.
pub const CUSTOMER_PLACEHOLDER: &str = "CUSTOMER-ID";

/// Text that is not the number of an AWS account.
#[derive(Clone, Copy, Debug, ThisError, PartialEq, Eq)]
#[error("not the number of an AWS account, 12 digits")]
pub struct ParseAccountError;

/// The number of an AWS account: 12 digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account(String);

impl Account {
    /// The account of AWS's own examples, to be replaced.
    #[must_use]
    pub fn example() -> Self {
        Self("111122223333".to_owned())
    }
}

impl FromStr for Account {
    type Err = ParseAccountError;

    fn from_str(text: &str) -> Result<Self, ParseAccountError> {
        let digits = text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit());
        if digits { Ok(Self(text.to_owned())) } else { Err(ParseAccountError) }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// One storage's place on S3.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    bucket: String,
    /// Empty, or with a slash behind it.
    folder: String,
}

impl Place {
    fn bucket_arn(&self) -> String {
        format!("arn:aws:s3:::{}", self.bucket)
    }

    fn objects(&self, below: &str) -> String {
        format!("{}/{}{below}", self.bucket_arn(), self.folder)
    }
}

/// Where a store is or will be.
#[derive(Clone, Debug)]
pub struct Deployment {
    places: BTreeMap<StorageRole, Place>,
    account: Account,
    store: Option<StoreId>,
    example_buckets: bool,
}

impl Deployment {
    /// A store with these storages, in this account. A storage that is not on S3
    /// gets the bucket it would have, `example-…`. Without the id of the store,
    /// which is known after `init`, conditions are on the use of a key only.
    #[must_use]
    pub fn new(urls: &StorageUrls, account: Account, store: Option<StoreId>) -> Self {
        let mut example_buckets = false;
        let places = StorageRole::ALL.map(|role| {
            let place = match urls.of(role).as_s3() {
                Some((bucket, "")) => Place { bucket: bucket.to_owned(), folder: String::new() },
                Some((bucket, prefix)) => Place { bucket: bucket.to_owned(), folder: format!("{prefix}/") },
                None => {
                    example_buckets = true;
                    Place { bucket: format!("example-{role}"), folder: String::new() }
                }
            };
            (role, place)
        });
        Self { places: places.into(), account, store, example_buckets }
    }

    /// Whether buckets bear names of examples, because a storage is not on S3.
    #[must_use]
    pub fn has_example_buckets(&self) -> bool {
        self.example_buckets
    }

    fn place(&self, role: StorageRole) -> &Place {
        &self.places[&role]
    }

    fn role_arn(&self, role: &str) -> String {
        format!("arn:aws:iam::{}:role/strongroom-{role}", self.account)
    }

    /// Each bucket once, with the storages in it.
    fn buckets(&self) -> BTreeMap<&str, Vec<(StorageRole, &Place)>> {
        let mut buckets = BTreeMap::<_, Vec<_>>::new();
        for (role, place) in &self.places {
            buckets.entry(place.bucket.as_str()).or_default().push((*role, place));
        }
        buckets
    }
}

/// One document to be set up.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Document {
    /// What to call its file: unique, without `.json`.
    pub name: String,
    /// What it is for.
    pub what: &'static str,
    /// The command that sets it up, with the file beside it.
    pub apply: String,
    /// The document.
    pub document: Value,
}

/// All documents, in the order in which they are set up: a bucket's policy comes
/// last, because it denies changes to the settings before it.
#[must_use]
pub fn documents(deployment: &Deployment) -> Vec<Document> {
    let mut documents = Vec::new();
    for (bucket, storages) in deployment.buckets() {
        documents.extend(bucket_documents(bucket, &storages));
    }
    documents.extend(key_documents(deployment));
    documents.extend(role_documents(deployment));
    documents
}

fn bucket_documents(bucket: &str, storages: &[(StorageRole, &Place)]) -> Vec<Document> {
    let call = |call: &str, option: &str, name: &str| {
        format!("aws s3api {call} --bucket {bucket} --{option} file://{name}-{bucket}.json")
    };
    let document = |name: &str, what, apply: (&str, &str), document| Document {
        name: format!("{name}-{bucket}"),
        what,
        apply: call(apply.0, apply.1, name),
        document,
    };
    let holds = |role| storages.iter().any(|(held, _)| *held == role);
    let mut documents = vec![document(
        "versioning",
        "keeps what is deleted or replaced as a version",
        ("put-bucket-versioning", "versioning-configuration"),
        json!({ "Status": "Enabled" }),
    )];
    if holds(StorageRole::Audit) {
        documents.push(document(
            "object-lock",
            "locks every object of the audit log: no one can end the term, so try it on a bucket you \
             can do without",
            ("put-object-lock-configuration", "object-lock-configuration"),
            json!({
                "ObjectLockEnabled": "Enabled",
                "Rule": { "DefaultRetention": { "Mode": "COMPLIANCE", "Years": AUDIT_YEARS } },
            }),
        ));
    }
    let rules: Vec<_> = storages.iter().filter_map(|(role, place)| lifecycle_rule(*role, place)).collect();
    if !rules.is_empty() {
        documents.push(document(
            "lifecycle",
            "removes parts of unfinished uploads; and commits that daily segments have: set \
             `small-commits` up only where \
             there are segments",
            ("put-bucket-lifecycle-configuration", "lifecycle-configuration"),
            json!({ "Rules": rules }),
        ));
    }
    documents.push(document(
        "bucket-policy",
        "denies everyone what must never happen to the bucket",
        ("put-bucket-policy", "policy"),
        bucket_policy(storages),
    ));
    documents
}

fn lifecycle_rule(role: StorageRole, place: &Place) -> Option<Value> {
    match role {
        StorageRole::Blobs => Some(json!({
            "ID": "abandoned-parts",
            "Status": "Enabled",
            "Filter": { "Prefix": place.folder },
            "AbortIncompleteMultipartUpload": { "DaysAfterInitiation": 1 },
        })),
        StorageRole::Keys => None,
        // Nothing of the lock is lost: a version under it goes when its term is over.
        StorageRole::Audit => Some(json!({
            "ID": "small-commits",
            "Status": "Enabled",
            "Filter": { "Prefix": format!("{}wal/", place.folder) },
            "Expiration": { "Days": SMALL_COMMITS_DAYS },
            "NoncurrentVersionExpiration": { "NoncurrentDays": 1 },
        })),
    }
}

fn bucket_policy(storages: &[(StorageRole, &Place)]) -> Value {
    let bucket = storages[0].1;
    let mut statements = vec![json!({
        "Sid": "OnlyOverTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket.bucket_arn(), format!("{}/*", bucket.bucket_arn())],
        "Condition": { "Bool": { "aws:SecureTransport": "false" } },
    })];
    let kept = storages.iter().filter(|(role, _)| *role != StorageRole::Blobs);
    let all: Vec<_> = kept.clone().map(|(_, place)| place.objects("*")).collect();
    if !all.is_empty() {
        // A delete marker would let create-if-absent succeed a second time.
        statements.push(json!({
            "Sid": "NothingIsDeleted",
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            "Resource": all,
        }));
        // What S3 deletes by a rule no policy holds up.
        statements.push(json!({
            "Sid": "SettingsStay",
            "Effect": "Deny",
            "Principal": "*",
            "Action": [
                "s3:PutBucketVersioning",
                "s3:PutLifecycleConfiguration",
                "s3:PutBucketObjectLockConfiguration",
            ],
            "Resource": bucket.bucket_arn(),
        }));
        let created_once: Vec<_> = kept.flat_map(|(role, place)| created_once(*role, place)).collect();
        // Parts of an upload take no condition; putting them together does.
        statements.push(json!({
            "Sid": "NothingIsReplaced",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:PutObject",
            "Resource": created_once,
            "Condition": {
                "Null": { "s3:if-none-match": "true" },
                "Bool": { "s3:ObjectCreationOperation": "true" },
            },
        }));
    }
    json!({ "Version": "2012-10-17", "Statement": statements })
}

/// The objects that are only ever written with `If-None-Match: *`.
fn created_once(role: StorageRole, place: &Place) -> Vec<String> {
    match role {
        StorageRole::Blobs => Vec::new(),
        StorageRole::Keys => vec![place.objects("*")],
        StorageRole::Audit => {
            let below = ["wal/*", "voucher/*", "pin/*", "certificate/*", "order/*", "epoch/*", "store"];
            below.map(|below| place.objects(below)).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::keys::LOG_KEY_USE;
    use super::*;

    fn deployment(json: &str) -> Deployment {
        let urls: StorageUrls = serde_json::from_str(json).unwrap();
        Deployment::new(&urls, "123456789012".parse().unwrap(), Some(StoreId::from_bytes([1; 16])))
    }

    fn three_buckets() -> Deployment {
        deployment(
            r#"{"root":"s3://my-blobs","blobs":"s3://my-blobs","keys":"s3://my-keys/p","audit":"s3://my-audit"}"#,
        )
    }

    fn named(deployment: &Deployment, name: &str) -> Value {
        let documents = documents(deployment);
        documents.into_iter().find(|document| document.name == name).expect(name).document
    }

    fn actions<'a>(policy: &'a Value, effect: &str) -> Vec<&'a str> {
        let statements = policy["Statement"].as_array().unwrap().iter();
        let of_effect = statements.filter(|statement| statement["Effect"] == effect);
        of_effect
            .flat_map(|statement| match &statement["Action"] {
                Value::Array(actions) => actions.iter().map(|action| action.as_str().unwrap()).collect(),
                action => vec![action.as_str().unwrap()],
            })
            .collect()
    }

    #[test]
    fn a_node_deletes_and_ends_nothing() {
        let role = named(&three_buckets(), "role-node");
        let allowed = actions(&role, "Allow");
        for action in &allowed {
            let (service, verb) = action.split_once(':').unwrap();
            assert!(["s3", "kms"].contains(&service), "{action}");
            assert!(!verb.contains('*'), "{action}");
            for bad in [
                "Delete",
                "PutBucket",
                "PutLifecycle",
                "Bypass",
                "Disable",
                "Enable",
                "Schedule",
                "Cancel",
                "PutKeyPolicy",
                "Grant",
            ] {
                assert!(!verb.contains(bad), "{action}");
            }
        }
        for needed in [
            "s3:GetObject",
            "s3:PutObject",
            "s3:ListBucket",
            "kms:GenerateDataKey",
            "kms:Decrypt",
            "kms:DescribeKey",
            "kms:Sign",
            "kms:GetPublicKey",
        ] {
            assert!(allowed.contains(&needed), "{needed}");
        }
        let denied = actions(&role, "Deny");
        for action in [
            "s3:Delete*",
            "kms:EnableKey",
            "kms:DisableKey",
            "kms:ScheduleKeyDeletion",
            "kms:CancelKeyDeletion",
        ] {
            assert!(denied.contains(&action), "{action}");
        }
        for document in documents(&three_buckets()) {
            for statement in document.document["Statement"].as_array().into_iter().flatten() {
                let nodes = document.name == "role-node"
                    || statement["Principal"].to_string().contains("strongroom-node");
                if nodes && statement["Effect"] == "Allow" {
                    assert!(!statement["Action"].to_string().contains("Delet"), "{statement}");
                }
            }
        }
    }

    #[test]
    fn keys_are_used_under_their_context_only() {
        for name in [
            "role-node",
            "role-destroyer",
            "key-policy-epoch",
            "key-policy-customer",
            "key-policy-customer-offboarding",
            "key-policy-customer-own-hand",
        ] {
            let policy = named(&three_buckets(), name);
            for statement in policy["Statement"].as_array().unwrap() {
                let action = statement["Action"].to_string();
                if statement["Effect"] == "Allow"
                    && (action.contains("Decrypt") || action.contains("GenerateDataKey"))
                {
                    let equals = &statement["Condition"]["StringEquals"];
                    assert!(equals["kms:EncryptionContext:strongroom:use"].is_string(), "{statement}");
                    assert_eq!(
                        equals["kms:EncryptionContext:strongroom:store"],
                        StoreId::from_bytes([1; 16]).to_string()
                    );
                    let names =
                        &statement["Condition"]["ForAllValues:StringEquals"]["kms:EncryptionContextKeys"];
                    assert!(names.as_array().unwrap().len() >= 3, "{statement}");
                }
            }
        }
        // In a customer's own hand it is a grant that lets a node unwrap, and nothing else.
        let own_hand = named(&three_buckets(), "key-policy-customer-own-hand");
        assert!(!actions(&own_hand, "Allow").contains(&"kms:Decrypt"));
        for statement in own_hand["Statement"].as_array().unwrap() {
            let grants = statement["Action"].to_string().contains("kms:CreateGrant");
            let granter = statement["Principal"].to_string().contains("role/strongroom-granter");
            assert_eq!(grants, granter, "{statement}");
            if grants {
                let operations = &statement["Condition"]["ForAllValues:StringEquals"]["kms:GrantOperations"];
                assert_eq!(operations, &json!(["Decrypt"]));
            }
        }
        let customer = named(&three_buckets(), "key-policy-customer").to_string();
        let strict = json!(["strongroom:blob", "strongroom:customer", "strongroom:store", "strongroom:use"]);
        assert!(customer.contains(&strict.to_string()), "a strict blob's context");
        assert!(customer.contains(CUSTOMER_PLACEHOLDER) && !customer.contains("ScheduleKeyDeletion"));
    }

    #[test]
    fn everyone_else_has_one_thing_to_do() {
        let deployment = three_buckets();
        for name in ["role-auditor", "role-witness"] {
            let role = named(&deployment, name);
            for action in actions(&role, "Allow") {
                assert!(action.starts_with("s3:Get") || action.starts_with("s3:List"), "{action}");
            }
            let text = role.to_string();
            assert!(
                text.contains("my-audit") && !text.contains("my-keys") && !text.contains("my-blobs"),
                "{text}"
            );
        }
        let purger = named(&deployment, "role-purger");
        assert_eq!(
            actions(&purger, "Allow"),
            ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucket", "s3:ListBucketVersions"]
        );
        let text = purger.to_string();
        assert!(!text.contains("my-audit") && !text.contains("my-keys") && text.contains("my-blobs"));
    }

    #[test]
    fn the_destroyer_ends_keys_and_has_nothing_to_do_with_blobs() {
        let deployment = three_buckets();
        let destroyer = named(&deployment, "role-destroyer");
        assert_eq!(
            actions(&destroyer, "Allow"),
            [
                "kms:DescribeKey",
                "kms:EnableKey",
                "kms:DisableKey",
                "kms:ScheduleKeyDeletion",
                "kms:CancelKeyDeletion",
                "kms:Decrypt",
                "s3:GetObject",
                "s3:ListBucket",
                "s3:PutObject",
                "kms:Sign",
                "kms:GetPublicKey",
            ]
        );
        let ends = &destroyer["Statement"][0]["Condition"]["StringEquals"];
        assert_eq!(ends["aws:ResourceTag/strongroom:use"], json!(["epoch", "customer"]));
        assert_eq!(ends["aws:ResourceTag/strongroom:store"], json!(StoreId::from_bytes([1; 16])));
        let opens = &destroyer["Statement"][1]["Condition"]["StringEquals"];
        assert_eq!(opens["kms:EncryptionContext:strongroom:use"], "epoch", "no customer's");
        for (role, which) in [("role-destroyer", "DestroyerOpensEpochs"), ("role-node", "NodeUsesEpochKeys")]
        {
            // A planted record names a key of somebody else's.
            let policy = named(&three_buckets(), role);
            let statements = policy["Statement"].as_array().unwrap();
            let opens = statements.iter().find(|statement| statement["Sid"] == which).unwrap();
            assert_eq!(opens["Resource"], "arn:aws:kms:*:123456789012:key/*");
            let equals = &opens["Condition"]["StringEquals"];
            assert_eq!(equals["aws:ResourceTag/strongroom:use"], "epoch");
            assert_eq!(equals["aws:ResourceTag/strongroom:store"], json!(StoreId::from_bytes([1; 16])));
        }
        assert!(!destroyer.to_string().contains("my-blobs"));
        let statements = destroyer["Statement"].as_array().unwrap();
        let writes = statements.iter().find(|statement| statement["Action"] == "s3:PutObject").unwrap();
        let expected = [
            "my-keys/p/register/*",
            "my-audit/wal/*",
            "my-audit/head/*",
            "my-audit/voucher/*",
            "my-audit/pin/*",
            "my-audit/tile/*",
            "my-audit/checkpoint",
            "my-audit/shard/*",
            "my-audit/epoch/*",
        ];
        assert_eq!(writes["Resource"], json!(expected.map(|path| format!("arn:aws:s3:::{path}"))));

        // Who may end a key by its policy: the destroyer, and a customer's only for a time.
        let ends = |name: &str| {
            let policy = named(&deployment, name);
            let statements = policy["Statement"].as_array().unwrap().clone();
            let ends = |statement: &Value| statement["Action"].to_string().contains("ScheduleKeyDeletion");
            let who: Vec<_> =
                statements.into_iter().filter(ends).map(|s| s["Principal"].to_string()).collect();
            assert!(who.iter().all(|who| who.contains("role/strongroom-destroyer")), "{who:?}");
            who.len()
        };
        assert_eq!(ends("key-policy-epoch"), 1);
        assert_eq!(ends("key-policy-customer"), 0);
        assert_eq!(ends("key-policy-customer-offboarding"), 1);
        assert_eq!(ends("key-policy-customer-own-hand"), 0);
        assert_eq!(ends("key-policy-log"), 0);
    }

    #[test]
    fn the_logs_key_signs_the_log_and_nothing_else() {
        let deployment = three_buckets();
        for (name, signers) in
            [("role-node", 1), ("role-destroyer", 1), ("key-policy-log", 2), ("role-witness", 0)]
        {
            let policy = named(&deployment, name);
            let statements = policy["Statement"].as_array().unwrap();
            let signs: Vec<_> =
                statements.iter().filter(|statement| statement["Action"] == "kms:Sign").collect();
            assert_eq!(signs.len(), signers, "{name}");
            for statement in signs {
                let equals = &statement["Condition"]["StringEquals"];
                assert_eq!(equals["kms:SigningAlgorithm"], "ED25519_SHA_512");
                assert_eq!(equals["kms:MessageType"], "RAW");
                let tagged = equals["aws:ResourceTag/strongroom:use"] == LOG_KEY_USE;
                assert_eq!(tagged, name.starts_with("role"), "a key's own policy needs no tag");
            }
        }
    }

    #[test]
    fn buckets_keep_what_they_have() {
        let deployment = three_buckets();
        for (bucket, below) in [("my-keys", "my-keys/p/*"), ("my-audit", "my-audit/*")] {
            let policy = named(&deployment, &format!("bucket-policy-{bucket}"));
            let statements = policy["Statement"].as_array().unwrap();
            let denied = statements.iter().find(|statement| statement["Sid"] == "NothingIsDeleted").unwrap();
            assert_eq!(denied["Action"], json!(["s3:DeleteObject", "s3:DeleteObjectVersion"]));
            assert_eq!(denied["Resource"], json!([format!("arn:aws:s3:::{below}")]));
            assert_eq!((&denied["Effect"], &denied["Principal"]), (&json!("Deny"), &json!("*")));
            assert!(denied["Condition"].is_null());
            assert!(statements.iter().all(|statement| statement["Effect"] == "Deny"));
        }
        let blobs = named(&deployment, "bucket-policy-my-blobs").to_string();
        assert!(!blobs.contains("Delete") && blobs.contains("SecureTransport"), "{blobs}");
        let lock = named(&deployment, "object-lock-my-audit");
        assert_eq!(lock["Rule"]["DefaultRetention"], json!({ "Mode": "COMPLIANCE", "Years": 6 }));
        let lifecycle = named(&deployment, "lifecycle-my-audit");
        assert_eq!(lifecycle["Rules"][0]["Filter"]["Prefix"], "wal/");
        assert_eq!(lifecycle["Rules"][0]["Expiration"]["Days"], 35);
        let names: Vec<_> = documents(&deployment).into_iter().map(|document| document.name).collect();
        assert!(
            !names.contains(&"lifecycle-my-keys".to_owned())
                && !names.contains(&"object-lock-my-keys".to_owned())
        );
        let place = |name: &str| names.iter().position(|other| other == name).unwrap();
        assert!(place("lifecycle-my-audit") < place("bucket-policy-my-audit"), "which denies the former");
    }

    #[test]
    fn one_bucket_has_one_of_each() {
        let deployment = deployment(r#"{"root":"s3://my-bucket/a"}"#);
        let documents = documents(&deployment);
        let mut names: Vec<_> = documents.iter().map(|document| document.name.as_str()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "{names:?}");
        let lifecycle = named(&deployment, "lifecycle-my-bucket");
        let prefixes: Vec<_> = lifecycle["Rules"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["Filter"]["Prefix"].clone())
            .collect();
        assert_eq!(prefixes, ["a/blobs/", "a/audit/wal/"]);
        let policy = named(&deployment, "bucket-policy-my-bucket").to_string();
        assert!(policy.contains("my-bucket/a/keys/*") && policy.contains("my-bucket/a/audit/*"));
        assert!(!policy.contains("my-bucket/a/blobs/"), "blobs may be deleted");
    }

    #[test]
    fn a_store_elsewhere_gets_example_names() {
        let deployment = deployment(r#"{"root":"/srv/store"}"#);
        assert!(deployment.has_example_buckets() && !three_buckets().has_example_buckets());
        assert!(named(&deployment, "bucket-policy-example-keys").to_string().contains("example-keys/*"));
        assert!("12345678901".parse::<Account>().is_err() && "12345678901x".parse::<Account>().is_err());
        let urls = serde_json::from_str(r#"{"root":"/srv/store"}"#).unwrap();
        let unknown = Deployment::new(&urls, Account::example(), None);
        assert!(!named(&unknown, "role-node").to_string().contains("EncryptionContext:strongroom:store"));
    }
}
