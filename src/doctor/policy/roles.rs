//! What each role may do.
//!
//! Separate from the policies of buckets and keys, which deny what must never
//! happen even where a role is given too much.

use serde_json::{Value, json};

use super::keys::{KeyUse, destroyer_opens, key_end, node_uses, of_epochs, own_keys, signs};
use super::{Deployment, Document, Place};
use crate::store::StorageRole;

pub(super) fn role_documents(deployment: &Deployment) -> Vec<Document> {
    let document = |role: &str, what, statements: Vec<Value>| Document {
        name: format!("role-{role}"),
        what,
        apply: format!(
            "aws iam put-role-policy --role-name strongroom-{role} --policy-name strongroom \
             --policy-document \
             file://role-{role}.json"
        ),
        document: json!({ "Version": "2012-10-17", "Statement": statements }),
    };
    vec![
        document(
            "node",
            "what a node may do: seal, open, and look at the settings for `doctor`",
            node(deployment),
        ),
        document(
            "auditor",
            "what an auditor may do: read the audit log, its versions and its settings",
            auditor(deployment),
        ),
        document(
            "witness",
            "what a witness may do: read the audit log",
            vec![
                reads(deployment, StorageRole::Audit, "WitnessReadsTheLog", &["s3:GetObject"]),
                lists(&[deployment.place(StorageRole::Audit)], "WitnessListsTheLog", &["s3:ListBucket"]),
            ],
        ),
        document(
            "administrator",
            "what whoever runs `init`, `epoch rotate` or `customer add` with a new key needs besides a node's role",
            vec![json!({
                "Sid": "AdministratorMakesTaggedKeys",
                "Effect": "Allow",
                "Action": ["kms:CreateKey", "kms:TagResource"],
                "Resource": "*",
                "Condition": { "StringEquals": { "aws:RequestTag/strongroom:use": ["epoch", "customer"] } },
            })],
        ),
        document(
            "destroyer",
            "what ends the KMS keys of epochs: for credentials that no node has",
            destroyer(deployment),
        ),
        document(
            "purger",
            "what removes blobs whose keys are gone: for credentials that no node has",
            vec![
                json!({
                    "Sid": "PurgerRemovesBlobs",
                    "Effect": "Allow",
                    "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
                    "Resource": deployment.place(StorageRole::Blobs).objects("*"),
                }),
                lists(
                    &[deployment.place(StorageRole::Blobs)],
                    "PurgerListsBlobs",
                    &["s3:ListBucket", "s3:ListBucketVersions"],
                ),
            ],
        ),
    ]
}

fn node(deployment: &Deployment) -> Vec<Value> {
    let [blobs, keys, audit] = StorageRole::ALL.map(|role| deployment.place(role));
    let mut statements = vec![
        json!({
            "Sid": "NodeReadsAndCreates",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject"],
            "Resource": [blobs.objects("*"), keys.objects("*"), audit.objects("*")],
        }),
        json!({
            "Sid": "NodeGivesUploadsUp",
            "Effect": "Allow",
            "Action": ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            "Resource": blobs.objects("*"),
        }),
        lists(&[blobs, keys, audit], "NodeLists", &["s3:ListBucket"]),
        lists(
            &[blobs, keys, audit],
            "DoctorLooksAtSettings",
            &[
                "s3:GetBucketVersioning",
                "s3:GetBucketObjectLockConfiguration",
                "s3:GetLifecycleConfiguration",
                "s3:GetBucketPolicy",
            ],
        ),
    ];
    // Customers' keys may be in accounts of their own, whose policies let us in.
    let any_key = "arn:aws:kms:*:*:key/*";
    statements.extend(node_uses(deployment, KeyUse::AnyEpoch, &own_keys(deployment, true)));
    statements.extend(node_uses(deployment, KeyUse::AnyCustomer, any_key));
    statements.extend(signs(deployment, "Node", true));
    statements.push(json!({
        "Sid": "NodeDeletesNothing",
        "Effect": "Deny",
        "Action": ["s3:Delete*", "s3:PutBucket*", "s3:PutLifecycleConfiguration", "s3:BypassGovernanceRetention"],
        "Resource": "*",
    }));
    statements.push(json!({
        "Sid": "NodeEndsNoKey",
        "Effect": "Deny",
        "Action": [
            "kms:EnableKey", "kms:DisableKey", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
            "kms:DeleteImportedKeyMaterial", "kms:PutKeyPolicy",
        ],
        "Resource": "*",
    }));
    statements
}

/// It reads what shows that an epoch can end, and writes that it ended it: into
/// the register, into the log, and on the paper of its end.
fn destroyer(deployment: &Deployment) -> Vec<Value> {
    let [_, keys, audit] = StorageRole::ALL.map(|role| deployment.place(role));
    let written = ["wal/*", "head/*", "voucher/*", "pin/*", "tile/*", "checkpoint", "shard/*", "epoch/*"];
    let written = written.map(|below| audit.objects(below));
    let written = [&[keys.objects("register/*")], &written[..]].concat();
    vec![
        key_end(deployment, true),
        of_epochs(deployment, destroyer_opens(deployment, &own_keys(deployment, true))),
        json!({
            "Sid": "DestroyerReads",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": [keys.objects("*"), audit.objects("*")],
        }),
        lists(&[keys, audit], "DestroyerLists", &["s3:ListBucket"]),
        json!({
            "Sid": "DestroyerWritesWhatItDid",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": written,
        }),
    ]
    .into_iter()
    .chain(signs(deployment, "Destroyer", true))
    .collect()
}

fn auditor(deployment: &Deployment) -> Vec<Value> {
    let settings = [
        "s3:ListBucket",
        "s3:ListBucketVersions",
        "s3:GetBucketVersioning",
        "s3:GetBucketObjectLockConfiguration",
        "s3:GetLifecycleConfiguration",
        "s3:GetBucketPolicy",
    ];
    let objects = ["s3:GetObject", "s3:GetObjectVersion", "s3:GetObjectRetention"];
    vec![
        reads(deployment, StorageRole::Audit, "AuditorReadsTheLog", &objects),
        lists(&[deployment.place(StorageRole::Audit)], "AuditorListsTheLog", &settings),
    ]
}

fn reads(deployment: &Deployment, role: StorageRole, sid: &str, actions: &[&str]) -> Value {
    let resource = deployment.place(role).objects("*");
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource })
}

/// Actions on whole buckets. `s3:ListBucket` has no condition on a prefix: then a
/// request for an object that is not there would be refused instead of answered.
fn lists(places: &[&Place], sid: &str, actions: &[&str]) -> Value {
    let mut buckets: Vec<_> = places.iter().map(|place| place.bucket_arn()).collect();
    buckets.dedup();
    json!({ "Sid": sid, "Effect": "Allow", "Action": actions, "Resource": buckets })
}
