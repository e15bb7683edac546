//! The audit log's signing key in AWS KMS: a key of spec
//! `ECC_NIST_EDWARDS25519`, used with `ED25519_SHA_512` over the message itself
//! (RFC 8032 without a prehash), so that everyone's Ed25519 verifies it.
//!
//! Permissions: `kms:GetPublicKey` and `kms:Sign`.

use async_trait::async_trait;
use aws_sdk_kms::types::{KeySpec, MessageType, SigningAlgorithmSpec};

use super::{Arn, AwsKms, Blob, check_answered, failed, wrong_answer};
use crate::audit::signer::LogSigner;
use crate::error::Result;
use crate::id::KmsKeyId;
use crate::kms::{KmsError, KmsErrorKind};
use crate::tlog::{PublicKey, Signature};

/// What stands before the 32 bytes of an Ed25519 public key in its DER form, RFC 8410 s4.
const DER_PREFIX: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs for the log with a key in AWS KMS.
#[derive(Debug)]
pub struct AwsLogSigner {
    kms: AwsKms,
    key: KmsKeyId,
    public: PublicKey,
}

impl AwsLogSigner {
    /// The key of this ARN, with credentials from the environment. Its public
    /// half is fetched.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if it is not an Ed25519 key, and by what is wrong with it
    /// else.
    pub async fn open(key: &KmsKeyId) -> Result<Self> {
        Self::open_with(AwsKms::from_env(), key).await
    }

    /// The same with this client.
    ///
    /// # Errors
    /// As [`AwsLogSigner::open`].
    pub async fn open_with(kms: AwsKms, key: &KmsKeyId) -> Result<Self> {
        let arn = Arn::of(key)?;
        let public = kms.in_time_on(arn, async {
            let call = kms.client(Some(arn.place.region)).await?.get_public_key().key_id(arn.arn);
            let answer = call.send().await.map_err(failed)?;
            check_answered(arn, answer.key_id())?;
            if answer.key_spec() != Some(&KeySpec::EccNistEdwards25519) {
                let message = "the AWS KMS key for the audit log is not one of spec ECC_NIST_EDWARDS25519";
                return Err(KmsError::new(KmsErrorKind::Invalid, message));
            }
            let der = answer.public_key().ok_or_else(wrong_answer)?.as_ref();
            let bytes = der.strip_prefix(DER_PREFIX).and_then(|bytes| bytes.try_into().ok());
            Ok(PublicKey::from_bytes(bytes.ok_or_else(wrong_answer)?))
        });
        let public = public.await?;
        Ok(Self { kms, key: key.clone(), public })
    }
}

#[async_trait]
impl LogSigner for AwsLogSigner {
    fn public(&self) -> PublicKey {
        self.public
    }

    async fn sign(&self, message: &[u8]) -> Result<Signature> {
        let key = Arn::of(&self.key)?;
        let signed = self.kms.in_time_on(key, async {
            let call = self.kms.client(Some(key.place.region)).await?.sign().key_id(key.arn);
            let call = call.message(Blob::new(message)).message_type(MessageType::Raw);
            let call = call.signing_algorithm(SigningAlgorithmSpec::Ed25519Sha512);
            let answer = call.send().await.map_err(failed)?;
            check_answered(key, answer.key_id())?;
            let signature = answer.signature().and_then(|signature| signature.as_ref().try_into().ok());
            let signature = Signature::from_bytes(signature.ok_or_else(wrong_answer)?);
            // A commit that nobody believes would end the log.
            if self.public.verifies(message, &signature) { Ok(signature) } else { Err(wrong_answer()) }
        });
        Ok(signed.await?)
    }
}
