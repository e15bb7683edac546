//! When "not found" means that a key is gone.
//!
//! Separate because a certificate of destruction rests on it. AWS KMS answers
//! `NotFoundException` for a key that was deleted, and also where it was looked
//! for in the wrong place: a request for an ARN of one region that an endpoint of
//! another one answers is told `NotFoundException` ("Invalid arn"), and so is
//! one that reaches another partition, or a stand-in for AWS (LocalStack, a
//! proxy) that knows nothing of the key. For a key of another account the
//! answer is `AccessDeniedException` as a rule, because a key that is gone has
//! no policy that would let us in; where it is `NotFoundException`, it is not told
//! apart from a key that was never shared with us.
//!
//! So it counts only where the ARN's region is the one that this program is set
//! up for, and its account and partition are those of our own credentials, which
//! STS tells (`GetCallerIdentity`, which needs no permission). Everything else is
//! doubt and ends as [`KmsErrorKind::KeyUnavailable`], and where STS does not
//! answer as [`KmsErrorKind::Unavailable`].

use aws_config::Region;
use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityOutput;

use super::arn::{Arn, Place};
use super::{AwsKms, load};
use crate::kms::{KmsError, KmsErrorKind};

impl AwsKms {
    /// The error of a call that did not find `key`: `not_found` if that is the end
    /// of the key, else one that says why it is in doubt.
    pub(super) async fn not_found(&self, key: Arn<'_>, not_found: KmsError) -> KmsError {
        match self.is_at_home(key.place).await {
            Ok(true) => not_found,
            Ok(false) => {
                let message = "AWS KMS finds no such key, which shows nothing: the key's account and region are \
                     not those of these credentials and of AWS_REGION";
                KmsError::new(KmsErrorKind::KeyUnavailable, message).with_source(not_found)
            }
            Err(error) => error.with_source(not_found),
        }
    }

    /// Whether keys of this place are our own account's in our own region.
    async fn is_at_home(&self, place: Place<'_>) -> Result<bool, KmsError> {
        let config = self.inner.config.get_or_init(|| load(&self.inner.options)).await;
        if config.region().map(Region::as_ref) != Some(place.region) {
            return Ok(false);
        }
        let message = "AWS KMS finds no such key, and STS does not tell whether the key's account is ours";
        let identity = self.identity(message).await?;
        let partition = identity.arn().and_then(|arn| arn.split(':').nth(1));
        Ok(identity.account() == Some(place.account) && partition == Some(place.partition))
    }

    /// Whose our credentials are, as STS tells, or an error that says `message`.
    pub(super) async fn identity(&self, message: &'static str) -> Result<GetCallerIdentityOutput, KmsError> {
        let config = self.inner.config.get_or_init(|| load(&self.inner.options)).await;
        let config = aws_sdk_sts::config::Builder::from(config)
            .retry_config(self.inner.options.retries())
            .timeout_config(self.inner.options.timeouts());
        let answer = aws_sdk_sts::Client::from_conf(config.build()).get_caller_identity().send().await;
        // Its sentence may name people: nothing of it is kept.
        answer.map_err(|_| KmsError::new(KmsErrorKind::Unavailable, message))
    }
}
