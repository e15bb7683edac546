//! The policies of KMS keys, and the statements about keys that roles share.
//!
//! Separate from the roles because a key's policy binds everyone, whatever a role
//! allows: with these nobody but the destroyer ends a key, and nobody uses one
//! outside the context that Strongroom gives.

use serde_json::{Value, json};

use super::{CUSTOMER_PLACEHOLDER, Deployment, Document};
use crate::id::{BlobId, CustomerId, DataKeyId, StoreId};
use crate::kms::EncryptionContext;

/// The tag `strongroom:use` of the log's signing key in AWS KMS. Whoever makes it
/// tags it.
pub(super) const LOG_KEY_USE: &str = "log";

pub(super) fn key_documents(deployment: &Deployment) -> Vec<Document> {
    let document = |name: &str, what, document| Document {
        name: name.to_owned(),
        what,
        apply: format!(
            "aws kms put-key-policy --key-id KEY --policy-name default --policy file://{name}.json"
        ),
        document,
    };
    let owner = json!({
        "Sid": "OwnerLooksAfterIt",
        "Effect": "Allow",
        "Principal": { "AWS": format!("arn:aws:iam::{}:root", deployment.account) },
        // Not kms:*, which would let any policy of the account use or end the key.
        "Action": [
            "kms:DescribeKey", "kms:Get*", "kms:List*", "kms:PutKeyPolicy", "kms:TagResource", "kms:UntagResource",
            "kms:UpdateKeyDescription", "kms:EnableKey", "kms:EnableKeyRotation", "kms:CancelKeyDeletion",
        ],
        "Resource": "*",
    });
    let by = |role: &str, mut statements: Vec<Value>| {
        for statement in &mut statements {
            statement["Principal"] = json!({ "AWS": deployment.role_arn(role) });
        }
        statements
    };
    let policy =
        |statements: &[&[Value]]| json!({ "Version": "2012-10-17", "Statement": statements.concat() });
    let owner = std::slice::from_ref(&owner);
    let uses = |key_use| by("node", node_uses(deployment, key_use, "*"));
    let ends = by("destroyer", vec![key_end(deployment, false)]);
    let opens = by("destroyer", vec![destroyer_opens(deployment, "*")]);
    let signs = [
        by("node", signs(deployment, "Node", false)),
        by("destroyer", signs(deployment, "Destroyer", false)),
    ];
    vec![
        document(
            "key-policy-epoch",
            "the policy of an epoch's KMS key",
            policy(&[owner, &uses(KeyUse::Epoch), &ends, &opens]),
        ),
        document(
            "key-policy-customer",
            "the policy of a customer's KMS key; put the customer's id in, as `customer show` prints it",
            policy(&[owner, &uses(KeyUse::Customer)]),
        ),
        document(
            "key-policy-customer-offboarding",
            "the same while a customer is offboarded, and at no other time: lets the destroyer end the key",
            policy(&[owner, &uses(KeyUse::Customer), &ends]),
        ),
        document(
            "key-policy-customer-own-hand",
            "the policy of the KMS key of a customer whose keys are in its own hand: nodes make data keys, and \
             unwrap under a grant only, which the granter makes and ends",
            policy(&[owner, &by("node", node_makes(deployment)), &by("granter", vec![grants()])]),
        ),
        document(
            "key-policy-log",
            "the policy of the log's signing key, if it is in AWS KMS: spec ECC_NIST_EDWARDS25519, tagged \
             strongroom:use=log",
            policy(&[owner, &signs.concat()]),
        ),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyUse {
    /// Of one epoch, in its key's policy.
    Epoch,
    /// Of any epoch, in a role: of this account, and tagged for it.
    AnyEpoch,
    /// Of one customer, in its key's policy.
    Customer,
    /// Of any customer, in a node's role.
    AnyCustomer,
}

/// The statements that let a node use keys, one for each context. `DescribeKey` carries
/// none.
pub(super) fn node_uses(deployment: &Deployment, key_use: KeyUse, resource: &str) -> Vec<Value> {
    let keys = if matches!(key_use, KeyUse::Epoch | KeyUse::AnyEpoch) { "Epoch" } else { "Customer" };
    let uses = |what: &str, context| {
        json!({
            "Sid": format!("NodeUses{keys}Keys{what}"),
            "Effect": "Allow",
            "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": resource,
            "Condition": bound(deployment, key_use, &context),
        })
    };
    let looks = json!({
        "Sid": format!("NodeLooksAt{keys}Keys"),
        "Effect": "Allow",
        "Action": "kms:DescribeKey",
        "Resource": resource,
    });
    match key_use {
        KeyUse::Epoch => vec![uses("", epoch_context()), looks],
        KeyUse::AnyEpoch => vec![of_epochs(deployment, uses("", epoch_context())), looks],
        KeyUse::Customer | KeyUse::AnyCustomer => {
            vec![uses("ForRings", ring_context()), uses("ForStrictBlobs", blob_context()), looks]
        }
    }
}

/// The statements that let a node make data keys with a customer's key, and unwrap none:
/// that takes a grant.
fn node_makes(deployment: &Deployment) -> Vec<Value> {
    let mut statements = node_uses(deployment, KeyUse::Customer, "*");
    for statement in &mut statements {
        if statement["Action"].is_array() {
            statement["Action"] = json!("kms:GenerateDataKey");
        }
    }
    statements
}

/// The statement that lets the granter open and end sessions: grants of unwrapping alone,
/// bound to a context.
fn grants() -> Value {
    json!({
        "Sid": "GranterOpensAndEndsSessions",
        "Effect": "Allow",
        "Action": ["kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant", "kms:DescribeKey"],
        "Resource": "*",
        "Condition": {
            "StringEqualsIfExists": { "kms:GrantConstraintType": "EncryptionContextSubset" },
            "ForAllValues:StringEquals": { "kms:GrantOperations": ["Decrypt"] },
        },
    })
}

/// The same for keys that are tagged as those of this store's epochs: a record that somebody planted
/// can name whatever key it likes.
pub(super) fn of_epochs(deployment: &Deployment, mut statement: Value) -> Value {
    let equals = &mut statement["Condition"]["StringEquals"];
    equals["aws:ResourceTag/strongroom:use"] = json!("epoch");
    if let Some(store) = deployment.store {
        equals["aws:ResourceTag/strongroom:store"] = json!(store);
    }
    statement
}

/// The statement that lets the destroyer open the outer seal of rings, to see
/// that every one of them has left the epoch that it ends.
pub(super) fn destroyer_opens(deployment: &Deployment, resource: &str) -> Value {
    json!({
        "Sid": "DestroyerOpensEpochs",
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": resource,
        "Condition": bound(deployment, KeyUse::Epoch, &epoch_context()),
    })
}

/// The statements that let `who` sign the log, and nothing else, with its key.
pub(super) fn signs(deployment: &Deployment, who: &str, by_tags: bool) -> Vec<Value> {
    let mut equals = json!({ "kms:SigningAlgorithm": "ED25519_SHA_512", "kms:MessageType": "RAW" });
    let mut reads = json!({
        "Sid": format!("{who}ReadsTheLogsPublicKey"),
        "Effect": "Allow",
        "Action": "kms:GetPublicKey",
        "Resource": own_keys(deployment, by_tags),
    });
    if by_tags {
        equals["aws:ResourceTag/strongroom:use"] = json!(LOG_KEY_USE);
        reads["Condition"] = json!({ "StringEquals": { "aws:ResourceTag/strongroom:use": LOG_KEY_USE } });
    }
    let signs = json!({
        "Sid": format!("{who}SignsTheLog"),
        "Effect": "Allow",
        "Action": "kms:Sign",
        "Resource": own_keys(deployment, by_tags),
        "Condition": { "StringEquals": equals },
    });
    vec![signs, reads]
}

/// All keys of the account, or in a key's policy the key.
pub(super) fn own_keys(deployment: &Deployment, by_tags: bool) -> String {
    if by_tags { format!("arn:aws:kms:*:{}:key/*", deployment.account) } else { "*".to_owned() }
}

/// The condition that a key is used under a context of this kind, and no other: with
/// its use, of this store, and with none but its names.
fn bound(deployment: &Deployment, key_use: KeyUse, context: &EncryptionContext) -> Value {
    const USE: &str = "strongroom:use";
    let code = context.pairs().find(|(name, _)| *name == USE).map(|(_, code)| code);
    let mut equals = json!({ "kms:EncryptionContext:strongroom:use": code });
    if let Some(store) = deployment.store {
        equals["kms:EncryptionContext:strongroom:store"] = json!(store);
    }
    if key_use == KeyUse::Customer {
        equals["kms:EncryptionContext:strongroom:customer"] = json!(CUSTOMER_PLACEHOLDER);
    }
    let names: Vec<_> = context.pairs().map(|(name, _)| name).collect();
    json!({
        "StringEquals": equals,
        "ForAllValues:StringEquals": { "kms:EncryptionContextKeys": names },
    })
}

/// Contexts of each kind, for what they have in common: the use, and the names.
fn epoch_context() -> EncryptionContext {
    EncryptionContext::epoch(StoreId::from_bytes([0; 16]), 0)
}

fn ring_context() -> EncryptionContext {
    let (store, customer) = nobody();
    EncryptionContext::customer(store, customer, DataKeyId::from_bytes([0; 16]))
}

fn blob_context() -> EncryptionContext {
    let (store, customer) = nobody();
    EncryptionContext::blob(store, customer, BlobId::from_bytes([0; 16]))
}

fn nobody() -> (StoreId, CustomerId) {
    (StoreId::from_bytes([0; 16]), CustomerId::from_bytes([0; 16]))
}

/// The statement that lets the destroyer end keys; by their tags where it is not
/// the policy of one key. A customer's key has no policy that lets it, but while
/// the customer is offboarded.
pub(super) fn key_end(deployment: &Deployment, by_tags: bool) -> Value {
    let mut statement = json!({
        "Sid": "DestroyerEndsKeys",
        "Effect": "Allow",
        "Action": [
            "kms:DescribeKey", "kms:EnableKey", "kms:DisableKey",
            "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
        ],
        "Resource": own_keys(deployment, by_tags),
    });
    if by_tags {
        let mut tags = json!({ "aws:ResourceTag/strongroom:use": ["epoch", "customer"] });
        if let Some(store) = deployment.store {
            tags["aws:ResourceTag/strongroom:store"] = json!(store);
        }
        statement["Condition"] = json!({ "StringEquals": tags });
    }
    statement
}
