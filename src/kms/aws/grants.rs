//! Grants of AWS KMS: a session lets a node unwrap, and its end takes that away.
//!
//! A grant is made with the operation `Decrypt` alone and the constraint
//! `EncryptionContextSubset` of store and customer, and is found again by its name,
//! `strongroom:session:<id>`. It binds only where nothing else lets the nodes unwrap: the
//! policy of the customer's key gives their role `kms:GenerateDataKey` and
//! `kms:DescribeKey`, and not `kms:Decrypt`, nor does a policy of the role. AWS KMS does
//! not tell, so nothing here checks it.
//!
//! It is ended with `RevokeGrant`, which takes a permission on the key; `RetireGrant` takes
//! to be the very principal that the grant names, and an assumed role is another one
//! in each of its sessions.
//!
//! AWS says that a new grant, and the end of one, shows everywhere within seconds as a
//! rule, and within 5 minutes. Until then a call may be refused that a grant covers
//! ([`KmsErrorKind::KeyUnavailable`]: try again), and one let through whose grant has
//! ended: for that time the session's end rests on the nodes.

use async_trait::async_trait;
use aws_sdk_kms::types::{GrantConstraints, GrantListEntry, GrantOperation};

use super::arn::Arn;
use super::failure::failed;
use super::{AwsKms, noted, pairs, wrong_answer};
use crate::audit::KeyUseReceipt;
use crate::id::{KmsKeyId, SessionId};
use crate::kms::{Grant, GrantId, KmsError, KmsErrorKind, KmsGrants};

/// What the name of a grant begins with.
const NAME: &str = "strongroom:session:";
/// How many grants are asked for at once: the most that AWS KMS gives.
const PAGE: i32 = 100;

#[async_trait]
impl KmsGrants for AwsKms {
    /// AWS KMS does not tell whether something else lets a node unwrap: any key will do.
    async fn check_fit(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        Arn::of(key).map(drop)
    }

    async fn create_grant(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        grant: &Grant,
    ) -> Result<GrantId, KmsError> {
        let key = Arn::of(key)?;
        let subset = pairs(&grant.constraint());
        self.in_time_on(key, async {
            let grantee = match &self.inner.options.grantee {
                Some(grantee) => grantee.clone(),
                None => self.own_arn().await?,
            };
            let constraints = GrantConstraints::builder().set_encryption_context_subset(Some(subset)).build();
            let call = self.client(Some(key.place.region)).await?.create_grant();
            let call = call.key_id(key.arn).grantee_principal(grantee).name(name(grant.session));
            let call = call.operations(GrantOperation::Decrypt).constraints(constraints);
            let answer = noted(receipt.answer(), call.send().await).map_err(failed)?;
            answer.grant_id().and_then(GrantId::new).ok_or_else(wrong_answer)
        })
        .await
    }

    async fn retire_grants(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        session: SessionId,
    ) -> Result<usize, KmsError> {
        let key = Arn::of(key)?;
        self.in_time_on(key, async {
            let name = name(session);
            let mut retired = 0;
            for grant in self.listed(key).await?.iter().filter(|grant| grant.name() == Some(&*name)) {
                let call = self.client(Some(key.place.region)).await?.revoke_grant().key_id(key.arn);
                let call = call.grant_id(grant.grant_id().ok_or_else(wrong_answer)?);
                match noted(receipt.answer(), call.send().await) {
                    Ok(_) => retired += 1,
                    // Ended since it was listed. The key was there to list.
                    Err(error) if error.as_service_error().is_some_and(|e| e.is_not_found_exception()) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Ok(retired)
        })
        .await
    }

    async fn grants(&self, key: &KmsKeyId) -> Result<Vec<SessionId>, KmsError> {
        let key = Arn::of(key)?;
        let listed = self.in_time_on(key, self.listed(key)).await?;
        // Others are not ours.
        let session = |grant: &GrantListEntry| grant.name()?.strip_prefix(NAME)?.parse().ok();
        let mut sessions: Vec<SessionId> = listed.iter().filter_map(session).collect();
        sessions.sort();
        sessions.dedup();
        Ok(sessions)
    }
}

impl AwsKms {
    async fn own_arn(&self) -> Result<String, KmsError> {
        let message = "STS does not tell whose these credentials are: name the grantee";
        let identity = self.identity(message).await?;
        let arn = identity.arn().map(str::to_owned);
        arn.ok_or_else(|| KmsError::new(KmsErrorKind::Unavailable, message))
    }

    async fn listed(&self, key: Arn<'_>) -> Result<Vec<GrantListEntry>, KmsError> {
        let client = self.client(Some(key.place.region)).await?;
        let (mut grants, mut marker) = (Vec::new(), None);
        loop {
            let call = client.list_grants().key_id(key.arn).limit(PAGE).set_marker(marker.take());
            let page = call.send().await.map_err(failed)?;
            grants.extend_from_slice(page.grants());
            match page.next_marker() {
                Some(next) if page.truncated() => marker = Some(next.to_owned()),
                _ => return Ok(grants),
            }
        }
    }
}

fn name(session: SessionId) -> String {
    format!("{NAME}{session}")
}
