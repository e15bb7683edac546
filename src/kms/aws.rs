//! AWS KMS.
//!
//! Separate from the contract so that nothing above sees the SDK: its types end
//! here, and what it says of a failure is judged in `failure`.
//!
//! * **Key ids** are `aws-kms:<ARN of the key>`. An answer names its key by ARN,
//!   so only an ARN can be compared with it; [`AwsKms::resolve`] turns a bare key
//!   id or an alias into one, once, when a customer is added. The ARN also says
//!   the region: customers may have their keys in regions and accounts of their
//!   own.
//! * **Credentials** are those of every AWS tool: environment, profiles, SSO,
//!   roles of containers and instances; `AWS_ENDPOINT_URL` is honoured. They are
//!   looked for on first use, so that a program that has local keys only runs
//!   without any.
//! * **Permissions**: `kms:GenerateDataKey`, `kms:Decrypt` and `kms:DescribeKey`
//!   to seal and open; `kms:CreateKey`, `kms:TagResource`, `kms:EnableKey`,
//!   `kms:DisableKey`, `kms:ScheduleKeyDeletion` and `kms:CancelKeyDeletion` to
//!   administer, for other credentials.
//! * **Retries**: the SDK's standard mode, four attempts with full jitter, on
//!   throttling, on 500, 502, 503 and 504, and when the connection fails. The
//!   whole call ends by [`AwsKmsOptions::deadline`], whatever hangs.
//! * **Eventual consistency**: AWS KMS says that a change of a key's state shows
//!   within seconds, in rare cases minutes. [`KmsAdmin::disable`] returns when the
//!   change was accepted; whoever must know that a key is dead waits, and tries it.
//!
//! Trust: AWS KMS keeps and destroys the keys, and TLS shows that it is AWS KMS.
//! The plaintext of a data key is wiped here; on its way to us it passed through
//! buffers of the SDK's HTTP and JSON code, which are not wiped when freed.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::error::ProvideErrorMetadata;
use aws_sdk_kms::primitives::{Blob, DateTime};
use aws_sdk_kms::types::{self as sdk, DataKeySpec, KeyManagerType, KeyMetadata, KeySpec, KeyUsageType, Tag};
use tokio::sync::OnceCell;

use crate::audit::KeyUseReceipt;
use crate::id::KmsKeyId;
use crate::kms::{
    DataKey, DestructionAssurance, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsError,
    KmsErrorKind, WrappedDataKey,
};
use crate::secret::Secret;
use crate::time::Timestamp;

mod failure;

use failure::failed;

/// The prefix of this provider's key ids.
const PROVIDER: &str = "aws-kms";

/// How often a call is made before it counts as failed.
const ATTEMPTS: u32 = 4;
/// Before the second attempt we wait up to this long; then twice that, and so on.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// What the code of a wrong state is called.
const WRONG_STATE: &str = "KMSInvalidStateException";

/// How AWS KMS is reached, where the environment does not say or is not to be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsKmsOptions {
    /// The profile, in place of `AWS_PROFILE`'s or the default one.
    pub profile: Option<String>,
    /// The region where keys are made, in place of the environment's. A key that
    /// exists is used in the region of its ARN.
    pub region: Option<String>,
    /// The endpoint for all regions, in place of `AWS_ENDPOINT_URL`'s or AWS's own.
    pub endpoint: Option<String>,
    /// When a call ends at the latest, retries included. 10 s unless set.
    pub deadline: Duration,
}

impl Default for AwsKmsOptions {
    fn default() -> Self {
        Self { profile: None, region: None, endpoint: None, deadline: Duration::from_secs(10) }
    }
}

/// AWS KMS, in every region that keys are in. See the [module](self).
#[derive(Clone)]
pub struct AwsKms(Arc<Inner>);

struct Inner {
    options: AwsKmsOptions,
    config: OnceCell<SdkConfig>,
    /// By region; connections are kept.
    clients: Mutex<HashMap<String, Client>>,
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl AwsKms {
    /// AWS KMS as the environment and the AWS configuration files say. They are
    /// read on first use.
    #[must_use]
    pub fn from_env() -> Self {
        Self::with_options(AwsKmsOptions::default())
    }

    /// AWS KMS as `options` say, and the environment where they are silent.
    #[must_use]
    pub fn with_options(options: AwsKmsOptions) -> Self {
        Self(Arc::new(Inner { options, config: OnceCell::new(), clients: Mutex::default() }))
    }

    /// The id by ARN of a key that was named by ARN, bare id or alias
    /// (`aws-kms:alias/acme`), after a look at whether it can be a customer's key:
    /// symmetric, for encryption, not one of AWS's own, and of a single region,
    /// since destroying one replica of several destroys nothing.
    ///
    /// An alias can be moved to another key at any time: store what this returns.
    ///
    /// # Errors
    /// [`KmsError`]; [`KmsErrorKind::Invalid`] if it is not such a key.
    pub async fn resolve(&self, key: &KmsKeyId) -> Result<KmsKeyId, KmsError> {
        let name = name(key)?;
        self.in_time(async {
            let metadata = self.metadata(region_of(name), name).await?;
            if let Some(message) = unfit(&metadata) {
                return Err(KmsError::new(KmsErrorKind::Invalid, message));
            }
            metadata.arn().and_then(|arn| KmsKeyId::new(PROVIDER, arn).ok()).ok_or_else(wrong_answer)
        })
        .await
    }

    /// Gives `work` up at the deadline. It covers the search for credentials too.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, KmsError>> + Send,
    ) -> Result<T, KmsError> {
        tokio::time::timeout(self.0.options.deadline, work).await.unwrap_or_else(|_late| {
            Err(KmsError::new(KmsErrorKind::Unavailable, "AWS KMS did not answer in time"))
        })
    }

    /// The client of `region`, or of the one where keys are made.
    async fn client(&self, region: Option<&str>) -> Result<Client, KmsError> {
        let config = self.0.config.get_or_init(|| load(&self.0.options)).await;
        let region = region.or(config.region().map(Region::as_ref)).ok_or_else(|| {
            let message = "no AWS region is set: set AWS_REGION, or a region in the AWS profile";
            KmsError::new(KmsErrorKind::Configuration, message)
        })?;
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(region.to_owned()).or_insert_with(|| {
            let config = aws_sdk_kms::config::Builder::from(config)
                .region(Region::new(region.to_owned()))
                .retry_config(
                    RetryConfig::standard()
                        .with_max_attempts(ATTEMPTS)
                        .with_initial_backoff(FIRST_BACKOFF)
                        .with_max_backoff(LONGEST_BACKOFF),
                )
                // So that one lost answer leaves time for other attempts.
                .timeout_config(
                    TimeoutConfig::builder()
                        .connect_timeout(self.0.options.deadline.mul_f64(0.2))
                        .operation_attempt_timeout(self.0.options.deadline.mul_f64(0.3))
                        .operation_timeout(self.0.options.deadline)
                        .build(),
                );
            Client::from_conf(config.build())
        });
        Ok(client.clone())
    }

    async fn metadata(&self, region: Option<&str>, name: &str) -> Result<KeyMetadata, KmsError> {
        let answer = self.client(region).await?.describe_key().key_id(name).send().await.map_err(failed)?;
        answer.key_metadata.ok_or_else(wrong_answer)
    }

    async fn state(&self, key: Arn<'_>) -> Result<KeyState, KmsError> {
        let metadata = self.metadata(Some(key.region), key.arn).await?;
        check_answered(key, metadata.arn())?;
        Ok(match metadata.key_state() {
            Some(sdk::KeyState::Enabled) => KeyState::Enabled,
            Some(sdk::KeyState::Disabled) => KeyState::Disabled,
            Some(sdk::KeyState::PendingDeletion) => {
                KeyState::PendingDeletion(metadata.deletion_date().and_then(timestamp))
            }
            _ => KeyState::Unavailable,
        })
    }
}

async fn load(options: &AwsKmsOptions) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest());
    if let Some(profile) = &options.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(region) = &options.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &options.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    loader.load().await
}

#[async_trait]
impl Kms for AwsKms {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn generate_data_key(
        &self,
        _receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let key = Arn::of(key)?;
        self.in_time(async {
            let call = self.client(Some(key.region)).await?.generate_data_key();
            let call = call.key_id(key.arn).key_spec(DataKeySpec::Aes256);
            let answer = call.set_encryption_context(Some(pairs(context))).send().await.map_err(failed)?;
            let plaintext = plaintext(answer.plaintext);
            check_answered(key, answer.key_id.as_deref())?;
            let wrapped = answer.ciphertext_blob.ok_or_else(wrong_answer)?.into_inner();
            if wrapped.len() > WrappedDataKey::MAX_LEN {
                return Err(wrong_answer());
            }
            Ok(GeneratedDataKey { plaintext: plaintext?, wrapped: WrappedDataKey::new(wrapped) })
        })
        .await
    }

    async fn decrypt(
        &self,
        _receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        let key = Arn::of(key)?;
        if !(1..=WrappedDataKey::MAX_LEN).contains(&wrapped.as_bytes().len()) {
            let message = "not a data key that AWS KMS wrapped";
            return Err(KmsError::new(KmsErrorKind::Authentication, message));
        }
        self.in_time(async {
            let call = self.client(Some(key.region)).await?.decrypt();
            let call = call.key_id(key.arn).ciphertext_blob(Blob::new(wrapped.as_bytes()));
            let answer = call.set_encryption_context(Some(pairs(context))).send().await.map_err(failed)?;
            let plaintext = plaintext(answer.plaintext);
            check_answered(key, answer.key_id.as_deref())?;
            plaintext
        })
        .await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.in_time(self.state(Arn::of(key)?)).await
    }
}

#[async_trait]
impl KmsAdmin for AwsKms {
    /// A symmetric key of one region, with the account's default key policy. If
    /// the answer is lost and the call made again, a second key is left that
    /// nothing refers to: it bears the same tags, and was never used.
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        let tags = tags.pairs().map(|(name, value)| Tag::builder().tag_key(name).tag_value(value).build());
        let tags = tags.collect::<Result<_, _>>().expect("both members are set");
        self.in_time(async {
            let call = self.client(None).await?.create_key().set_tags(Some(tags));
            let call = call.key_spec(KeySpec::SymmetricDefault).key_usage(KeyUsageType::EncryptDecrypt);
            let call = call.multi_region(false).description("Strongroom");
            let metadata = call.send().await.map_err(failed)?.key_metadata.ok_or_else(wrong_answer)?;
            let id = metadata.arn().and_then(|arn| KmsKeyId::new(PROVIDER, arn).ok());
            id.filter(|id| Arn::of(id).is_ok()).ok_or_else(wrong_answer)
        })
        .await
    }

    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let key = Arn::of(key)?;
        self.in_time(async {
            let call = self.client(Some(key.region)).await?.enable_key();
            call.key_id(key.arn).send().await.map(drop).map_err(failed)
        })
        .await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let key = Arn::of(key)?;
        self.in_time(async {
            let call = self.client(Some(key.region)).await?.disable_key();
            match call.key_id(key.arn).send().await {
                Err(error) if error.code() == Some(WRONG_STATE) => match self.state(key).await? {
                    // It cannot be used as it is, and will be disabled if that is cancelled.
                    KeyState::PendingDeletion(_) | KeyState::Disabled => Ok(()),
                    _ => Err(failed(error)),
                },
                answer => answer.map(drop).map_err(failed),
            }
        })
        .await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        let key = Arn::of(key)?;
        let days = i32::try_from(days).ok().filter(|days| (7..=30).contains(days)).ok_or_else(|| {
            let message = "a KMS key is deleted after 7 to 30 days";
            KmsError::new(KmsErrorKind::Invalid, message)
        })?;
        self.in_time(async {
            let call = self.client(Some(key.region)).await?.schedule_key_deletion();
            match call.key_id(key.arn).pending_window_in_days(days).send().await {
                Ok(answer) => {
                    check_answered(key, answer.key_id())?;
                    answer.deletion_date().and_then(timestamp).ok_or_else(wrong_answer)
                }
                Err(error) if error.code() == Some(WRONG_STATE) => match self.state(key).await? {
                    KeyState::PendingDeletion(Some(due)) => Ok(due),
                    _ => Err(failed(error)),
                },
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let key = Arn::of(key)?;
        self.in_time(async {
            let call = self.client(Some(key.region)).await?.cancel_key_deletion();
            match call.key_id(key.arn).send().await {
                Ok(answer) => check_answered(key, answer.key_id()),
                Err(error) if error.code() == Some(WRONG_STATE) => match self.state(key).await? {
                    KeyState::Enabled | KeyState::Disabled => Ok(()),
                    _ => Err(failed(error)),
                },
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    fn assurance(&self) -> DestructionAssurance {
        DestructionAssurance::Attested
    }
}

/// The ARN of a key: `arn:aws:kms:us-east-1:123456789012:key/…`.
#[derive(Clone, Copy)]
struct Arn<'a> {
    arn: &'a str,
    region: &'a str,
}

impl<'a> Arn<'a> {
    fn of(key: &'a KmsKeyId) -> Result<Self, KmsError> {
        let arn = name(key)?;
        let names_a_key = arn.rsplit_once(':').is_some_and(|(_, resource)| resource.starts_with("key/"));
        match region_of(arn) {
            Some(region) if names_a_key => Ok(Self { arn, region }),
            _ => {
                let message =
                    "AWS KMS keys are named by the ARN of the key here, not by a bare id or an alias";
                Err(KmsError::new(KmsErrorKind::Invalid, message))
            }
        }
    }
}

fn name(key: &KmsKeyId) -> Result<&str, KmsError> {
    if key.provider() == PROVIDER {
        Ok(key.name())
    } else {
        Err(KmsError::new(KmsErrorKind::Invalid, "not the id of an AWS KMS key"))
    }
}

/// The region in an ARN of AWS KMS. It becomes part of a host name, so nothing
/// but a region passes.
fn region_of(name: &str) -> Option<&str> {
    let mut parts = name.split(':');
    let (arn, partition, service, region, account, resource) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let is_region = (1..=32).contains(&region.len()) && region.bytes().all(plain);
    let is_account = !account.is_empty() && account.bytes().all(|c| c.is_ascii_digit());
    let is_kms = arn == "arn" && partition.starts_with("aws") && service == "kms" && parts.next().is_none();
    (is_kms && is_region && is_account && !resource.is_empty()).then_some(region)
}

/// Why a key cannot be a customer's.
fn unfit(metadata: &KeyMetadata) -> Option<&'static str> {
    if metadata.key_usage() != Some(&KeyUsageType::EncryptDecrypt)
        || metadata.key_spec() != Some(&KeySpec::SymmetricDefault)
    {
        Some("the AWS KMS key is not a symmetric one for encryption: name another")
    } else if metadata.key_manager() == Some(&KeyManagerType::Aws) {
        Some("the AWS KMS key is managed by AWS and cannot be destroyed: name one of your own")
    } else if metadata.multi_region() == Some(true) {
        Some("the AWS KMS key is a multi-Region one, whose replicas outlive it: name a single-Region key")
    } else {
        None
    }
}

fn pairs(context: &EncryptionContext) -> HashMap<String, String> {
    context.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Takes a data key out of the SDK's hands, and wipes what was there.
fn plaintext(answered: Option<Blob>) -> Result<DataKey, KmsError> {
    let taken = answered.and_then(|blob| Secret::take_from(&mut blob.into_inner()));
    taken.map(DataKey::new).ok_or_else(wrong_answer)
}

fn check_answered(key: Arn<'_>, answered: Option<&str>) -> Result<(), KmsError> {
    if answered == Some(key.arn) { Ok(()) } else { Err(wrong_answer()) }
}

fn wrong_answer() -> KmsError {
    let message =
        "AWS KMS answered with something else than was asked for: another key, or no 256-bit data key";
    KmsError::new(KmsErrorKind::Authentication, message)
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    let seconds = u64::try_from(at.secs()).ok()?;
    let micros = seconds.checked_mul(1_000_000)?.checked_add(u64::from(at.subsec_nanos() / 1000))?;
    Timestamp::from_micros(micros).ok()
}
