//! A limit for what AWS KMS answers.
//!
//! Separate because the SDK reads an answer whole and into memory, whatever its length, and whoever
//! answers in the place of AWS may send any.

use aws_sdk_kms::config::interceptors::BeforeDeserializationInterceptorContextMut;
use aws_sdk_kms::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kms::error::BoxError;
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;

/// How long an answer is at most, in bytes. The longest are policies and wrapped keys of some KiB, and
/// pages of grants.
const MOST: usize = 1 << 20;

/// Ends an answer that is longer.
#[derive(Debug)]
pub(super) struct LimitAnswers;

impl Intercept for LimitAnswers {
    fn name(&self) -> &'static str {
        "LimitAnswers"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response_mut().body_mut();
        let whole = std::mem::replace(body, SdkBody::empty());
        *body = SdkBody::from_body_1_x(Limited::new(whole, MOST));
        Ok(())
    }
}
