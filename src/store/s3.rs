//! Amazon S3, and servers that speak its protocol.
//!
//! Separate because it joins two libraries: requests are `object_store`'s,
//! credentials and region come from the AWS SDK's normal chain (environment,
//! profiles, SSO, web identity, containers, instances), which knows far more
//! sources than `object_store` does.
//!
//! # Environment
//! `AWS_ENDPOINT_URL_S3`, else `AWS_ENDPOINT_URL`, else a profile's
//! `endpoint_url` names another server, which is then spoken to in path style.
//! **Plain HTTP is used only where that URL says `http://`**: the traffic is
//! ciphertext, but requests carry no secrecy and answers no authenticity then, so
//! it is for tests and for networks that are trusted anyway. Certificates are
//! always checked. `AWS_USE_FIPS_ENDPOINT` and `AWS_USE_DUALSTACK_ENDPOINT` are
//! honoured, and so is server-side encryption (`AWS_SERVER_SIDE_ENCRYPTION` and
//! what belongs to it). Other regions than `*.amazonaws.com` need an endpoint.
//!
//! # Times
//! A connection is made within 3 s or not at all. A request is tried 4 times
//! within 15 s, waiting 0.1 s to 2 s in between. The deadlines around every call
//! end it after 20 s, and one that sends data later by 1 s for each 256 KiB. A request that can be
//! repeated does not wait for any of that: it is sent again when its answer is late
//! ([contract](super#contract-of-every-storage)).
//!
//! # Conflicts
//! | answer to `If-None-Match: *` | what it says | what we do |
//! |---|---|---|
//! | 412 `PreconditionFailed` | an object exists | read it back: ours or another's |
//! | 409 `ConditionalRequestConflict`, `OperationAborted`, or a 409 without a known code | another write or deletion was under way; the object may exist or not, and may be ours | try again, 9 times within about 2 s, at random intervals |
//! | 409 of a write with `If-Match` | the same | `object_store` tries again |
//!
//! A conflict that does not end is [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable), and never
//! [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
//!
//! # What a bucket needs
//! * A lifecycle rule `AbortIncompleteMultipartUpload` after a day: no program can
//!   remove the invisible parts that a killed one left.
//!   [`Storages::removes_abandoned_parts`](super::Storages::removes_abandoned_parts) looks.
//! * On versioned buckets a deletion of keys or audit objects must be denied: a
//!   delete marker lets create-if-absent win a second time.
//!
//! [`doctor`](crate::manual::operations) looks for all of it, by the questions in `ask`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, Checksum, S3ConditionalPut,
};
use tokio::sync::Mutex;

use super::fault::{NoCredentials, store_error, unusable, within};
use super::probe::Reply;
use super::{answers, bounded};
use crate::error::Result;
use crate::time::{Clock, Timestamp};

pub(crate) mod ask;
pub(crate) mod versions;

/// How long finding region and credentials may take.
const CONFIGURE: Duration = Duration::from_secs(20);

/// How long credentials without an end are used before they are asked for again.
const CREDENTIALS_AGE: Duration = Duration::from_secs(15 * 60);

/// How long before their end credentials are replaced.
const CREDENTIALS_MARGIN: Duration = Duration::from_secs(5 * 60);

/// What all buckets of one store share.
#[derive(Debug)]
pub(super) struct Aws {
    sdk: SdkConfig,
    credentials: Arc<ChainCredentials>,
}

impl Aws {
    /// Reads the environment and the profiles.
    pub(super) async fn load(clock: Arc<dyn Clock>) -> Result<Self> {
        let load = async { Ok(aws_config::defaults(BehaviorVersion::latest()).load().await) };
        let sdk = within(CONFIGURE, "find the AWS configuration", load).await?;
        let chain =
            sdk.credentials_provider().ok_or_else(|| unusable("no AWS credentials are configured"))?;
        Ok(Self { sdk, credentials: Arc::new(ChainCredentials { chain, clock, last: Mutex::default() }) })
    }

    pub(super) fn bucket(&self, bucket: &str) -> Result<AmazonS3> {
        let builder = AmazonS3Builder::from_env();
        let endpoint = self.endpoint(&builder);
        let region = match (self.sdk.region(), &endpoint) {
            (Some(region), _) => region.to_string(),
            // Other servers rarely care.
            (None, Some(_)) => "us-east-1".to_owned(),
            (None, None) => {
                return Err(unusable("no AWS region is configured: set AWS_REGION or a profile's region"));
            }
        };
        let endpoint = match endpoint {
            Some(endpoint) => Some(endpoint),
            None => self.aws_endpoint(&region),
        };
        let plain_http = endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
        let mut builder = builder
            .with_bucket_name(bucket)
            .with_region(region)
            .with_credentials(Arc::clone(&self.credentials) as _)
            .with_skip_signature(false)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            // Object Lock demands one, and it catches what a server stores wrong.
            .with_checksum_algorithm(Checksum::CRC64NVME)
            // TLS and the checksum protect a body; signing it too costs a second
            // pass over every byte.
            .with_unsigned_payload(!plain_http)
            .with_client_options(bounded::client().with_allow_http(plain_http))
            .with_http_connector(answers::Limiting { objects: false })
            .with_retry(bounded::retry());
        builder = match endpoint {
            Some(url) => builder
                .with_config(AmazonS3ConfigKey::S3Endpoint, url)
                .with_virtual_hosted_style_request(false),
            // A certificate for `*.s3.…` covers no name with a dot in it.
            None => builder.with_virtual_hosted_style_request(!bucket.contains('.')),
        };
        builder.build().map_err(|error| store_error(error, "configure S3"))
    }

    /// The endpoint that someone chose.
    fn endpoint(&self, builder: &AmazonS3Builder) -> Option<String> {
        builder
            .get_config_value(&AmazonS3ConfigKey::S3Endpoint)
            .or_else(|| self.sdk.endpoint_url().map(str::to_owned))
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint))
    }

    /// Amazon's own endpoints that `object_store` does not know.
    fn aws_endpoint(&self, region: &str) -> Option<String> {
        let host = match (self.sdk.use_fips()?, self.sdk.use_dual_stack().unwrap_or(false)) {
            (true, true) => "s3-fips.dualstack",
            (true, false) => "s3-fips",
            (false, true) => "s3.dualstack",
            (false, false) => return None,
        };
        Some(format!("https://{host}.{region}.amazonaws.com"))
    }
}

/// Whether the bucket removes the parts of unfinished uploads by itself: an
/// enabled lifecycle rule with `AbortIncompleteMultipartUpload`.
///
/// # Errors
/// [`ErrorKind::Configuration`] where we may not ask; [`ErrorKind::Unavailable`].
pub(super) async fn check_rule(bucket: &AmazonS3, deadline: Duration) -> Result<bool> {
    match ask::lifecycle(bucket, deadline).await? {
        Reply::Is(rules) => Ok(rules.iter().any(|rule| rule.aborts_uploads)),
        Reply::Denied => Err(unusable("the storage denies us s3:GetLifecycleConfiguration")),
        Reply::Unsupported => Ok(false),
    }
}

/// The SDK's credentials for `object_store`, kept until shortly before their end.
struct ChainCredentials {
    chain: SharedCredentialsProvider,
    clock: Arc<dyn Clock>,
    /// Held while new ones are fetched, so that many callers ask once.
    last: Mutex<Option<Cached>>,
}

struct Cached {
    credential: Arc<AwsCredential>,
    fetched: Duration,
    ends: Option<Timestamp>,
}

impl Cached {
    fn fresh(&self, clock: &dyn Clock) -> bool {
        match self.ends {
            Some(ends) => clock.now().saturating_add(CREDENTIALS_MARGIN) < ends,
            None => clock.uptime().saturating_sub(self.fetched) < CREDENTIALS_AGE,
        }
    }

    /// Not fresh, but better than nothing.
    fn valid(&self, clock: &dyn Clock) -> bool {
        self.ends.is_none_or(|ends| clock.now() < ends)
    }
}

#[async_trait]
impl CredentialProvider for ChainCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut last = self.last.lock().await;
        if let Some(cached) = last.as_ref().filter(|cached| cached.fresh(&*self.clock)) {
            return Ok(Arc::clone(&cached.credential));
        }
        match self.chain.provide_credentials().await {
            Ok(credentials) => {
                let cached = last.insert(Cached {
                    credential: Arc::new(convert(&credentials)),
                    fetched: self.clock.uptime(),
                    ends: credentials.expiry().map(timestamp),
                });
                Ok(Arc::clone(&cached.credential))
            }
            Err(error) => match last.as_ref().filter(|cached| cached.valid(&*self.clock)) {
                Some(cached) => Ok(Arc::clone(&cached.credential)),
                // The chain's own error names files and hosts: it stays here.
                None => {
                    let late = matches!(error, CredentialsError::ProviderTimedOut(_));
                    let source = Box::new(NoCredentials { late });
                    Err(object_store::Error::Unauthenticated { path: String::new(), source })
                }
            },
        }
    }
}

fn convert(from: &Credentials) -> AwsCredential {
    AwsCredential {
        key_id: from.access_key_id().to_owned(),
        secret_key: from.secret_access_key().to_owned(),
        token: from.session_token().map(str::to_owned),
    }
}

/// An end before 1970 is one that has come.
fn timestamp(time: std::time::SystemTime) -> Timestamp {
    let micros = time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
    u64::try_from(micros)
        .ok()
        .and_then(|micros| Timestamp::from_micros(micros).ok())
        .unwrap_or(Timestamp::MAX)
}

impl fmt::Debug for ChainCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainCredentials").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::SystemTime;

    use aws_credential_types::provider::future;

    use super::*;
    use crate::error::ErrorKind;

    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Timestamp {
            Timestamp::from_micros(self.0.load(Ordering::SeqCst) * 1_000_000).unwrap()
        }

        fn uptime(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    /// Answers with its number of calls as key id; `ends` 0 is never.
    #[derive(Debug, Default)]
    struct Chain {
        calls: AtomicU64,
        ends: AtomicU64,
        broken: std::sync::atomic::AtomicBool,
    }

    #[derive(Debug, Clone)]
    struct Shared(Arc<Chain>);

    impl ProvideCredentials for Shared {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if self.0.broken.load(Ordering::SeqCst) {
                return future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("SECRET")));
            }
            let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
            let ends = match self.0.ends.load(Ordering::SeqCst) {
                0 => None,
                ends => Some(SystemTime::UNIX_EPOCH + Duration::from_secs(ends)),
            };
            let credentials = Credentials::new(call.to_string(), "secret", None, ends, "test");
            future::ProvideCredentials::ready(Ok(credentials))
        }
    }

    #[tokio::test]
    async fn credentials_are_kept_until_shortly_before_their_end() {
        let (clock, chain) = (Arc::new(Seconds::default()), Arc::new(Chain::default()));
        let provider = ChainCredentials {
            chain: SharedCredentialsProvider::new(Shared(Arc::clone(&chain))),
            clock: Arc::clone(&clock) as _,
            last: Mutex::default(),
        };
        let key_at = async |second: u64| {
            clock.0.store(second, Ordering::SeqCst);
            provider.get_credential().await.map(|credential| credential.key_id.clone())
        };
        chain.ends.store(3600, Ordering::SeqCst);
        assert_eq!(key_at(0).await.unwrap(), "0");
        assert_eq!(key_at(3299).await.unwrap(), "0");
        // The chain fails while there is time left, then beyond the end.
        chain.broken.store(true, Ordering::SeqCst);
        assert_eq!(key_at(3599).await.unwrap(), "0");
        let error = store_error(key_at(3600).await.unwrap_err(), "read");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.chain().contains("no AWS credentials were found"), "{error:?}");
        assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
        // Credentials without an end are asked for every 15 minutes.
        chain.broken.store(false, Ordering::SeqCst);
        chain.ends.store(0, Ordering::SeqCst);
        assert_eq!(key_at(4000).await.unwrap(), "1");
        assert_eq!(key_at(4899).await.unwrap(), "1");
        assert_eq!(key_at(4900).await.unwrap(), "2");
    }
}
