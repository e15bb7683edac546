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
//!   to seal and open; `kms:CreateKey` and `kms:TagResource` to make keys;
//!   `kms:EnableKey`, `kms:DisableKey`, `kms:ScheduleKeyDeletion` and
//!   `kms:CancelKeyDeletion` to end them, for credentials that nothing else has.
//!   `kms:CreateGrant`, `kms:ListGrants` and `kms:RevokeGrant` for the customer's own
//!   credentials, where sessions are opened ([`AwsKmsOptions::grantee`]).
//! * **Gone for good** ([`KmsErrorKind::KeyDestroyed`]) is a key only where it was
//!   looked for in the right place: its ARN names the account of our credentials
//!   and the region that is configured. STS is asked for the former. Elsewhere
//!   "not found" is [`KmsErrorKind::KeyUnavailable`]: so a key of another account
//!   is seen to its end with credentials of that account, and a key of another region
//!   with `AWS_REGION` set to it.
//! * **Retries**: the SDK's standard mode, four attempts with full jitter, on
//!   throttling, on 500, 502, 503 and 504, and when the connection fails. The
//!   whole call ends by [`AwsKmsOptions::deadline`], whatever hangs.
//! * **Eventual consistency**: AWS KMS says that a change of a key's state shows
//!   within seconds, in rare cases minutes. [`KmsDestroyer::disable`] returns when the
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
use aws_sdk_kms::operation::RequestId;
use aws_sdk_kms::primitives::{Blob, DateTime};
use aws_sdk_kms::types::{
    self as sdk, DataKeySpec, KeyManagerType, KeyMetadata, KeySpec, KeyUsageType, OriginType, Tag,
};
use tokio::sync::OnceCell;

use crate::audit::{KeyUseReceipt, KmsAnswer};
use crate::id::KmsKeyId;
use crate::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsDestroyer, KmsError,
    KmsErrorKind, WrappedDataKey,
};
use crate::secret::Secret;
use crate::time::Timestamp;

mod answers;
mod arn;
mod failure;
mod gone;
mod grants;
mod signer;

pub use signer::AwsLogSigner;

use answers::LimitAnswers;
use arn::{Arn, name, place_of};
use failure::failed;

/// The prefix of this provider's key ids.
const PROVIDER: &str = "aws-kms";

/// How often a call is made before it counts as failed.
const ATTEMPTS: u32 = 4;
/// Before the second attempt we wait up to this long; then twice that, and so on.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(1);

/// How AWS KMS is reached, where the environment does not say or is not to be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AwsKmsOptions {
    /// The profile, in place of `AWS_PROFILE`'s or the default one.
    pub profile: Option<String>,
    /// The region where keys are made, in place of the environment's. A key that
    /// exists is used in the region of its ARN.
    pub region: Option<String>,
    /// The endpoint for all regions, and for STS, in place of `AWS_ENDPOINT_URL`'s
    /// or AWS's own.
    pub endpoint: Option<String>,
    /// When a call ends at the latest, retries included. 10 s unless set.
    pub deadline: Duration,
    /// Who may unwrap under a grant, by ARN: the role of the nodes that open. Unless set,
    /// whose credentials make the grant.
    pub grantee: Option<String>,
}

impl Default for AwsKmsOptions {
    fn default() -> Self {
        Self { profile: None, region: None, endpoint: None, deadline: Duration::from_secs(10), grantee: None }
    }
}

impl AwsKmsOptions {
    fn retries(&self) -> RetryConfig {
        RetryConfig::standard()
            .with_max_attempts(ATTEMPTS)
            .with_initial_backoff(FIRST_BACKOFF)
            .with_max_backoff(LONGEST_BACKOFF)
    }

    /// So that one lost answer leaves time for other attempts. The whole is
    /// bounded by [`AwsKms::in_time`].
    fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .connect_timeout(self.deadline.mul_f64(0.2))
            .operation_attempt_timeout(self.deadline.mul_f64(0.3))
            .build()
    }
}

/// AWS KMS, in every region that keys are in. See the [module](self).
#[derive(Clone)]
pub struct AwsKms {
    inner: Arc<Inner>,
    /// Where changes of a key are noted by their request, where somebody asked for that.
    noting: Option<KmsAnswer>,
}

struct Inner {
    options: AwsKmsOptions,
    config: OnceCell<SdkConfig>,
    /// By region; connections are kept.
    clients: Mutex<HashMap<String, Client>>,
}

impl fmt::Debug for AwsKms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsKms").field("options", &self.inner.options).finish_non_exhaustive()
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
        let inner = Inner { options, config: OnceCell::new(), clients: Mutex::default() };
        Self { inner: Arc::new(inner), noting: None }
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
        self.resolve_if(key, unfit).await
    }

    async fn resolve_if(
        &self,
        key: &KmsKeyId,
        unfit: fn(&KeyMetadata) -> Option<&'static str>,
    ) -> Result<KmsKeyId, KmsError> {
        let name = name(key)?;
        self.in_time(async {
            let metadata = self.metadata(place_of(name).map(|place| place.region), name).await?;
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
        tokio::time::timeout(self.inner.options.deadline, work).await.unwrap_or_else(|_late| {
            Err(KmsError::new(KmsErrorKind::Unavailable, "AWS KMS did not answer in time"))
        })
    }

    /// The same with a call about `key`, whose "not found" is looked into.
    async fn in_time_on<T: Send>(
        &self,
        key: Arn<'_>,
        work: impl Future<Output = Result<T, KmsError>> + Send,
    ) -> Result<T, KmsError> {
        self.in_time(async {
            match work.await {
                Err(error) if error.kind() == KmsErrorKind::KeyDestroyed => {
                    Err(self.not_found(key, error).await)
                }
                result => result,
            }
        })
        .await
    }

    /// The client of `region`, or of the one where keys are made.
    async fn client(&self, region: Option<&str>) -> Result<Client, KmsError> {
        let config = self.inner.config.get_or_init(|| load(&self.inner.options)).await;
        let region = region.or(config.region().map(Region::as_ref)).ok_or_else(|| {
            let message = "no AWS region is set: set AWS_REGION, or a region in the AWS profile";
            KmsError::new(KmsErrorKind::Configuration, message)
        })?;
        let mut clients = self.inner.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(region.to_owned()).or_insert_with(|| {
            let config = aws_sdk_kms::config::Builder::from(config)
                .region(Region::new(region.to_owned()))
                .interceptor(LimitAnswers)
                .retry_config(self.inner.options.retries())
                .timeout_config(self.inner.options.timeouts());
            Client::from_conf(config.build())
        });
        Ok(client.clone())
    }

    async fn metadata(&self, region: Option<&str>, name: &str) -> Result<KeyMetadata, KmsError> {
        let answer = self.client(region).await?.describe_key().key_id(name).send().await.map_err(failed)?;
        answer.key_metadata.ok_or_else(wrong_answer)
    }

    fn noted<T: RequestId>(&self, answered: T) -> T {
        match &self.noting {
            Some(answer) => noted(answer, answered),
            None => answered,
        }
    }

    async fn state(&self, key: Arn<'_>) -> Result<KeyState, KmsError> {
        let metadata = self.metadata(Some(key.place.region), key.arn).await?;
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

/// Notes what AWS KMS calls the request, which it answered well or badly.
fn noted<T: RequestId>(answer: &KmsAnswer, answered: T) -> T {
    answer.note(answered.request_id());
    answered
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

    async fn resolve(&self, key: &KmsKeyId) -> Result<KmsKeyId, KmsError> {
        AwsKms::resolve(self, key).await
    }

    async fn resolve_for_epoch(&self, key: &KmsKeyId) -> Result<KmsKeyId, KmsError> {
        self.resolve_if(key, |metadata| unfit(metadata).or_else(|| unfit_for_epoch(metadata))).await
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let key = Arn::of(key)?;
        self.in_time_on(key, async {
            let call = self.client(Some(key.place.region)).await?.generate_data_key();
            let call = call.key_id(key.arn).key_spec(DataKeySpec::Aes256);
            let answer = call.set_encryption_context(Some(pairs(context))).send().await;
            let answer = noted(receipt.answer(), answer).map_err(failed)?;
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
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        let key = Arn::of(key)?;
        if !(1..=WrappedDataKey::MAX_LEN).contains(&wrapped.as_bytes().len()) {
            let message = "not a data key that AWS KMS wrapped";
            return Err(KmsError::new(KmsErrorKind::Authentication, message));
        }
        self.in_time_on(key, async {
            let call = self.client(Some(key.place.region)).await?.decrypt();
            let call = call.key_id(key.arn).ciphertext_blob(Blob::new(wrapped.as_bytes()));
            let answer = call.set_encryption_context(Some(pairs(context))).send().await;
            let answer = noted(receipt.answer(), answer).map_err(failed)?;
            let plaintext = plaintext(answer.plaintext);
            check_answered(key, answer.key_id.as_deref())?;
            plaintext
        })
        .await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        let key = Arn::of(key)?;
        self.in_time_on(key, self.state(key)).await
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
            let call = call.multi_region(false).origin(OriginType::AwsKms).description("Strongroom");
            let metadata = call.send().await.map_err(failed)?.key_metadata.ok_or_else(wrong_answer)?;
            let id = metadata.arn().and_then(|arn| KmsKeyId::new(PROVIDER, arn).ok());
            id.filter(|id| Arn::of(id).is_ok()).ok_or_else(wrong_answer)
        })
        .await
    }
}

#[async_trait]
impl KmsDestroyer for AwsKms {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let key = Arn::of(key)?;
        self.in_time_on(key, async {
            let call = self.client(Some(key.place.region)).await?.enable_key();
            self.noted(call.key_id(key.arn).send().await).map(drop).map_err(failed)
        })
        .await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let key = Arn::of(key)?;
        self.in_time_on(key, async {
            let call = self.client(Some(key.place.region)).await?.disable_key();
            match self.noted(call.key_id(key.arn).send().await) {
                Err(error) if is_wrong_state(&error) => match self.state(key).await? {
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
        self.in_time_on(key, async {
            let call = self.client(Some(key.place.region)).await?.schedule_key_deletion();
            match self.noted(call.key_id(key.arn).pending_window_in_days(days).send().await) {
                Ok(answer) => {
                    // LocalStack leaves it at the last part of the ARN.
                    let bare = |id: &str| key.arn.rsplit_once("key/").is_some_and(|(_, own)| own == id);
                    if !answer.key_id().is_some_and(|id| id == key.arn || bare(id)) {
                        return Err(wrong_answer());
                    }
                    answer.deletion_date().and_then(timestamp).ok_or_else(wrong_answer)
                }
                Err(error) if is_wrong_state(&error) => match self.state(key).await? {
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
        self.in_time_on(key, async {
            let call = self.client(Some(key.place.region)).await?.cancel_key_deletion();
            match self.noted(call.key_id(key.arn).send().await) {
                Ok(answer) => check_answered(key, answer.key_id()),
                Err(error) if is_wrong_state(&error) => match self.state(key).await? {
                    KeyState::Enabled | KeyState::Disabled => Ok(()),
                    _ => Err(failed(error)),
                },
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    fn noting(&self, answer: &KmsAnswer) -> Option<Arc<dyn KmsDestroyer>> {
        Some(Arc::new(Self { noting: Some(answer.clone()), ..self.clone() }))
    }
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

/// Why a key cannot be an epoch's, besides. Imported material is its owner's to
/// keep and to import again (AWS KMS developer guide, "Deleting imported key
/// material"), and a key store of one's own is backed up outside AWS KMS: the
/// deletion of such a key would show nothing.
fn unfit_for_epoch(metadata: &KeyMetadata) -> Option<&'static str> {
    if metadata.origin() != Some(&OriginType::AwsKms) || metadata.custom_key_store_id().is_some() {
        Some(
            "the AWS KMS key's material was imported or is in a custom key store, where copies may \
              outlive it: name a key that AWS KMS made",
        )
    } else if metadata.multi_region() != Some(false) {
        Some("AWS KMS does not say that the key is of a single region: name one that is")
    } else {
        None
    }
}

/// Whether the key is in a state that this change does not start from, which
/// may be the one that it leads to.
fn is_wrong_state(error: &impl ProvideErrorMetadata) -> bool {
    matches!(error.code(), Some("KMSInvalidStateException" | "DisabledException"))
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_credential_types::provider::error::CredentialsError;
    use data_encoding::BASE64;

    use super::*;
    use crate::id::{CustomerId, SessionId, StoreId};
    use crate::kms::contract::{assert_kind, context, localstack_is_there, receipt};
    use crate::kms::{Grant, KmsGrants};

    const ARN: &str = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    const OTHER: &str = "arn:aws:kms:eu-central-1:123456789012:key/00000000-12ab-34cd-56ef-1234567890ab";

    /// A KMS of one page: it answers by number of request, or hangs.
    struct Server {
        url: String,
        requests: Arc<AtomicUsize>,
    }

    enum Answer {
        Say(u16, String),
        HangUp,
        Hang,
    }

    impl Server {
        fn start(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(AtomicUsize::new(0));
            let (counter, answer) = (Arc::clone(&requests), Arc::new(answer));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
                    std::thread::spawn(move || {
                        let mut stream = stream.unwrap();
                        let Some(request) = read_request(&stream) else { return };
                        match answer(counter.fetch_add(1, Ordering::SeqCst), &request) {
                            Answer::Say(status, body) => {
                                let head = format!(
                                    "HTTP/1.1 {status} -\r\ncontent-type: application/x-amz-json-1.1\r\n\
                                     x-amzn-requestid: 0bfa1b9c\r\nconnection: close\r\n\
                                     content-length: {}\r\n\r\n",
                                    body.len()
                                );
                                let _gone = stream.write_all((head + &body).as_bytes());
                            }
                            Answer::HangUp => {}
                            Answer::Hang => std::thread::sleep(Duration::from_secs(60)),
                        }
                    });
                }
            });
            Self { url, requests }
        }

        fn kms(&self, deadline: Duration) -> AwsKms {
            let keys = Credentials::new("test", "test", None, None, "test");
            client_of(&self.url, SharedCredentialsProvider::new(keys), deadline)
        }

        fn requests(&self) -> usize {
            self.requests.load(Ordering::SeqCst)
        }
    }

    fn client_of(url: &str, credentials: SharedCredentialsProvider, deadline: Duration) -> AwsKms {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .endpoint_url(url)
            .credentials_provider(credentials)
            .build();
        let options = AwsKmsOptions { deadline, ..AwsKmsOptions::default() };
        let config = OnceCell::new_with(Some(config));
        AwsKms { inner: Arc::new(Inner { options, config, clients: Mutex::default() }), noting: None }
    }

    /// Head and body of one request.
    fn read_request(stream: &TcpStream) -> Option<String> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
            let line = head[start..].trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(head + std::str::from_utf8(&body).unwrap())
    }

    fn fault(status: u16, code: &str) -> Answer {
        let body = format!(r#"{{"__type":"{code}","message":"User: jane.doe is not authorized"}}"#);
        Answer::Say(status, body)
    }

    fn data_key(arn: &str, key: &[u8]) -> Answer {
        let (key, wrapped) = (BASE64.encode(key), BASE64.encode(b"wrapped"));
        let body = format!(r#"{{"KeyId":"{arn}","Plaintext":"{key}","CiphertextBlob":"{wrapped}"}}"#);
        Answer::Say(200, body)
    }

    fn key() -> KmsKeyId {
        KmsKeyId::new(PROVIDER, ARN).unwrap()
    }

    async fn generate(kms: &AwsKms) -> Result<GeneratedDataKey, KmsError> {
        kms.generate_data_key(receipt(), &key(), &context()).await
    }

    async fn decrypt(kms: &AwsKms) -> Result<DataKey, KmsError> {
        kms.decrypt(receipt(), &key(), &WrappedDataKey::new(b"wrapped".to_vec()), &context()).await
    }

    const AMPLE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_answer_without_an_end_is_not_collected() {
        let server = Server::start(|_, _| {
            let Answer::Say(status, body) = data_key(ARN, &[7; 32]) else { unreachable!("it says") };
            Answer::Say(status, body.replacen('{', &format!("{{\"More\":\"{}\",", "x".repeat(2 << 20)), 1))
        });
        let error = generate(&server.kms(AMPLE)).await.map(drop).unwrap_err();
        assert!(
            matches!(error.kind(), KmsErrorKind::Unavailable | KmsErrorKind::Authentication),
            "{error:?}"
        );
    }

    /// CloudTrail has the same id: with it a record and an event are joined.
    #[tokio::test]
    async fn the_request_id_is_noted_for_an_answer_and_for_a_refusal() {
        let server = Server::start(|request, _| match request {
            0 | 2 => data_key(ARN, &[7; 32]),
            3 => Answer::Say(200, "{}".to_owned()),
            _ => fault(400, "AccessDeniedException"),
        });
        let kms = server.kms(AMPLE);
        for refused in [false, true] {
            let receipt = receipt();
            let answer = receipt.answer().clone();
            assert_eq!(kms.generate_data_key(receipt, &key(), &context()).await.is_err(), refused);
            assert_eq!(answer.id().unwrap().as_str(), "0bfa1b9c");
        }
        let receipt = receipt();
        let answer = receipt.answer().clone();
        kms.decrypt(receipt, &key(), &WrappedDataKey::new(b"wrapped".to_vec()), &context()).await.unwrap();
        assert_eq!(answer.id().unwrap().as_str(), "0bfa1b9c");

        // Changes of a key take no receipt.
        let answer = KmsAnswer::default();
        kms.disable(&key()).await.unwrap();
        assert_eq!(answer.id(), None);
        kms.noting(&answer).unwrap().disable(&key()).await.unwrap_err();
        assert_eq!(answer.id().unwrap().as_str(), "0bfa1b9c");
    }

    #[tokio::test]
    async fn a_refusal_is_not_retried() {
        for (status, code, kind) in [
            (400, "AccessDeniedException", KmsErrorKind::KeyUnavailable),
            (409, "DisabledException", KmsErrorKind::KeyUnavailable),
            (409, "KMSInvalidStateException", KmsErrorKind::KeyUnavailable),
            // No region is configured here, so that it was not looked for at home.
            (400, "NotFoundException", KmsErrorKind::KeyUnavailable),
            (400, "InvalidCiphertextException", KmsErrorKind::Authentication),
            (400, "IncorrectKeyException", KmsErrorKind::Authentication),
            (400, "UnrecognizedClientException", KmsErrorKind::Configuration),
            (400, "ValidationException", KmsErrorKind::Invalid),
        ] {
            let server = Server::start(move |_, _| fault(status, code));
            let result = decrypt(&server.kms(AMPLE)).await;
            let chain = format!("{:?}", crate::Error::from(result.unwrap_err()));
            assert!(chain.contains(code) && chain.contains("0bfa1b9c"), "{chain}");
            assert!(!chain.contains("jane"), "{chain}");
            assert_eq!(server.requests(), 1, "{code}");
            assert_kind(generate(&server.kms(AMPLE)).await, kind, code);
            assert_eq!(server.requests(), 2, "{code}");
        }
    }

    /// A KMS that finds nothing, and an STS that says who we are.
    async fn not_found(
        configured: Option<&str>,
        identity: Option<(&'static str, &'static str)>,
    ) -> KmsErrorKind {
        let server = Server::start(move |_, request| match identity {
            _ if request.contains("TrentService.") => fault(400, "NotFoundException"),
            Some((partition, account)) if request.contains("Action=GetCallerIdentity") => Answer::Say(
                200,
                format!(
                    "<GetCallerIdentityResponse><GetCallerIdentityResult>\
                     <Arn>arn:{partition}:sts::{account}:assumed-role/node/i-1</Arn>\
                     <UserId>A</UserId><Account>{account}</Account>\
                     </GetCallerIdentityResult></GetCallerIdentityResponse>"
                ),
            ),
            _ => fault(400, "AccessDenied"),
        });
        let kms = server.kms(AMPLE);
        let config = kms.inner.config.get().unwrap().to_builder();
        let config = config.region(configured.map(|region| Region::new(region.to_owned()))).build();
        let inner = Inner {
            options: kms.inner.options.clone(),
            config: OnceCell::new_with(Some(config)),
            clients: Mutex::default(),
        };
        let kms = AwsKms { inner: Arc::new(inner), noting: None };
        let described = kms.describe(&key()).await.unwrap_err();
        assert_eq!(described.kind(), generate(&kms).await.unwrap_err().kind());
        assert_eq!(described.kind(), kms.schedule_deletion(&key(), 7).await.unwrap_err().kind());
        let kind = described.kind();
        let shown = format!("{described:?}");
        let shown = format!("{shown} {}", crate::Error::from(described).chain());
        assert!(!shown.contains("jane") && shown.contains("NotFoundException"), "{shown}");
        kind
    }

    #[tokio::test]
    async fn a_key_is_gone_only_where_it_was_looked_for_at_home() {
        use KmsErrorKind::{KeyDestroyed, KeyUnavailable, Unavailable};
        let ours = Some(("aws", "123456789012"));
        for (region, identity, kind) in [
            (Some("eu-central-1"), ours, KeyDestroyed),
            (Some("us-east-1"), ours, KeyUnavailable),
            (None, ours, KeyUnavailable),
            (Some("eu-central-1"), Some(("aws", "210987654321")), KeyUnavailable),
            (Some("eu-central-1"), Some(("aws-cn", "123456789012")), KeyUnavailable),
            (Some("eu-central-1"), None, Unavailable),
        ] {
            assert_eq!(not_found(region, identity).await, kind, "{region:?} {identity:?}");
        }
    }

    fn grant() -> Grant {
        Grant {
            store: StoreId::from_bytes([1; 16]),
            customer: CustomerId::from_bytes([2; 16]),
            session: SessionId::from_bytes([3; 16]),
        }
    }

    #[tokio::test]
    async fn a_grant_is_for_unwrapping_in_one_context_and_nothing_else() {
        const GRANTEE: &str = "arn:aws:iam::123456789012:role/node";
        let asked = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&asked);
        let server = Server::start(move |_, request| {
            request.clone_into(&mut heard.lock().unwrap());
            Answer::Say(200, r#"{"GrantId":"0c237476b39f8bc4","GrantToken":"AQ"}"#.to_owned())
        });
        let (kms, grantee) = (server.kms(AMPLE), Some(GRANTEE.to_owned()));
        let options = AwsKmsOptions { grantee, ..kms.inner.options.clone() };
        let config = OnceCell::new_with(kms.inner.config.get().cloned());
        let inner = Inner { options, config, clients: Mutex::default() };
        let kms = AwsKms { inner: Arc::new(inner), noting: None };
        let made = kms.create_grant(receipt(), &key(), &grant()).await.unwrap();
        assert_eq!(made.as_str(), "0c237476b39f8bc4");
        let asked = asked.lock().unwrap();
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("TrentService.CreateGrant"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let subset = serde_json::json!({
            "strongroom:store": grant().store.to_string(),
            "strongroom:customer": grant().customer.to_string(),
        });
        let expected = serde_json::json!({
            "KeyId": ARN,
            "GranteePrincipal": GRANTEE,
            "Operations": ["Decrypt"],
            "Constraints": { "EncryptionContextSubset": subset },
            "Name": format!("strongroom:session:{}", grant().session),
        });
        assert_eq!(body, expected);
    }

    /// It must not look as if the key was: a certificate could rest on that.
    #[tokio::test]
    async fn a_grant_that_is_gone_is_no_key_that_is_gone() {
        let server = Server::start(|_, request| {
            if request.contains("TrentService.ListGrants") {
                let own = format!("strongroom:session:{}", grant().session);
                let grants = serde_json::json!([
                    { "GrantId": "a1", "Name": "somebody's" },
                    { "GrantId": "a2" },
                    { "GrantId": "a3", "Name": own },
                ]);
                return Answer::Say(
                    200,
                    serde_json::json!({ "Grants": grants, "Truncated": false }).to_string(),
                );
            }
            assert!(request.contains("TrentService.RevokeGrant") && request.contains(r#""GrantId":"a3""#));
            fault(400, "NotFoundException")
        });
        let kms = server.kms(AMPLE);
        assert_eq!(kms.retire_grants(receipt(), &key(), grant().session).await.unwrap(), 0);
        assert_eq!(server.requests(), 2);
        assert_eq!(kms.grants(&key()).await.unwrap(), [grant().session]);
    }

    #[tokio::test]
    async fn throttling_is_waited_out() {
        let server = Server::start(|n, _| match n {
            0 => fault(400, "ThrottlingException"),
            1 => fault(500, "KMSInternalException"),
            2 => Answer::HangUp,
            _ => data_key(ARN, &[7; 32]),
        });
        assert_eq!(decrypt(&server.kms(AMPLE)).await.unwrap().secret().expose(), &[7; 32]);
        assert_eq!(server.requests(), 4);
    }

    #[tokio::test]
    async fn endless_throttling_ends_as_unavailable() {
        for (status, code) in [
            (400, "ThrottlingException"),
            (503, "DependencyTimeoutException"),
            (500, "KeyUnavailableException"),
        ] {
            let server = Server::start(move |_, _| fault(status, code));
            assert_kind(generate(&server.kms(AMPLE)).await, KmsErrorKind::Unavailable, code);
            assert_eq!(server.requests(), 4, "{code}");
        }
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a deadline is measured on a real clock")]
    async fn what_hangs_ends_by_the_deadline() {
        let server = Server::start(|_, _| Answer::Hang);
        let started = std::time::Instant::now();
        let result = decrypt(&server.kms(Duration::from_millis(1500))).await;
        assert_kind(result, KmsErrorKind::Unavailable, "a server that hangs");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(4), "took {took:?}");
        assert!(server.requests() > 1, "one attempt does not use up the deadline");
    }

    #[tokio::test]
    async fn credentials_that_hang_end_by_the_deadline() {
        let server = Server::start(|_, _| data_key(ARN, &[7; 32]));
        let hang = aws_credential_types::credential_fn::provide_credentials_fn(std::future::pending);
        let kms = client_of(&server.url, SharedCredentialsProvider::new(hang), Duration::from_millis(500));
        assert_kind(decrypt(&kms).await, KmsErrorKind::Unavailable, "credentials that hang");
        assert_eq!(server.requests(), 0);
    }

    #[tokio::test]
    async fn one_lost_answer_does_not_matter() {
        let server = Server::start(|n, _| if n == 0 { Answer::Hang } else { data_key(ARN, &[7; 32]) });
        generate(&server.kms(Duration::from_secs(3))).await.unwrap();
        assert_eq!(server.requests(), 2);
    }

    #[tokio::test]
    async fn a_port_that_is_shut_is_unavailable() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let keys = SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test"));
        let kms = client_of(&format!("http://{port}"), keys, AMPLE);
        let error = generate(&kms).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable);
        let chain = crate::Error::from(error).chain();
        assert!(chain.contains("Connection refused"), "{chain}");
    }

    /// The SDK quotes the request in this error.
    #[tokio::test]
    async fn an_address_that_is_none_is_told_without_the_request() {
        for nonsense in ["nonsense", "127.0.0.1:4566"] {
            let keys = SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test"));
            let shown = format!("{:?}", generate(&client_of(nonsense, keys, AMPLE)).await.unwrap_err());
            assert!(shown.contains("endpoint") && !shown.contains("strongroom:"), "{shown}");
        }
    }

    #[tokio::test]
    async fn an_answer_about_another_key_is_refused() {
        for answer in [OTHER, "1234abcd-12ab-34cd-56ef-1234567890ab", ""] {
            let server = Server::start(move |_, _| data_key(answer, &[7; 32]));
            let kms = server.kms(AMPLE);
            assert_kind(decrypt(&kms).await, KmsErrorKind::Authentication, answer);
            assert_kind(generate(&kms).await, KmsErrorKind::Authentication, answer);
            assert_eq!(server.requests(), 2, "it is not asked again");
        }
        let server = Server::start(|_, _| Answer::Say(200, "{}".to_owned()));
        assert_kind(decrypt(&server.kms(AMPLE)).await, KmsErrorKind::Authentication, "no key at all");
    }

    #[tokio::test]
    async fn a_data_key_has_32_bytes() {
        for length in [0, 16, 31, 33, 64] {
            let server = Server::start(move |_, _| data_key(ARN, &vec![7; length]));
            let kms = server.kms(AMPLE);
            assert_kind(decrypt(&kms).await, KmsErrorKind::Authentication, "a key of another length");
            assert_kind(generate(&kms).await, KmsErrorKind::Authentication, "a key of another length");
        }
    }

    #[tokio::test]
    async fn an_unreadable_answer_is_not_repeated() {
        let secret = BASE64.encode(&[0x5A; 32]);
        let body = format!(r#"{{"KeyId":"{ARN}","Plaintext":"{secret}", oops"#);
        let server = Server::start(move |_, _| Answer::Say(200, body.clone()));
        let error = decrypt(&server.kms(AMPLE)).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Unavailable);
        let shown = format!("{error:?}");
        let shown = format!("{shown} {:?}", crate::Error::from(error));
        assert!(!shown.contains(&secret[..8]) && !shown.contains("90, 90"), "{shown}");
    }

    #[tokio::test]
    async fn every_call_names_key_context_and_region() {
        let server = Server::start(|_, request| {
            let request = request.to_owned();
            let signed_for = request.contains("/eu-central-1/kms/aws4_request");
            let named = request.contains(&format!(r#""KeyId":"{ARN}""#));
            let bound = request.contains(r#""strongroom:use":"ring""#);
            let asked =
                request.contains(r#""KeySpec":"AES_256""#) || request.contains("TrentService.Decrypt");
            if signed_for && named && bound && asked { data_key(ARN, &[7; 32]) } else { fault(400, "Wrong") }
        });
        let kms = server.kms(AMPLE);
        let made = generate(&kms).await.unwrap();
        assert_eq!(made.wrapped.as_bytes(), b"wrapped");
        decrypt(&kms).await.unwrap();
    }

    #[tokio::test]
    async fn missing_credentials_and_regions_say_so() {
        let server = Server::start(|_, _| fault(500, "never asked"));
        let none = aws_credential_types::credential_fn::provide_credentials_fn(|| async {
            Err::<Credentials, _>(CredentialsError::not_loaded("none"))
        });
        let kms = client_of(&server.url, SharedCredentialsProvider::new(none), AMPLE);
        assert_kind(decrypt(&kms).await, KmsErrorKind::Configuration, "no credentials");
        let down = aws_credential_types::credential_fn::provide_credentials_fn(|| async {
            Err::<Credentials, _>(CredentialsError::provider_error("503"))
        });
        let kms = client_of(&server.url, SharedCredentialsProvider::new(down), AMPLE);
        assert_kind(decrypt(&kms).await, KmsErrorKind::Unavailable, "their source is down");
        let error = server.kms(AMPLE).create_key(&context()).await.unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Configuration);
        assert!(error.to_string().contains("AWS_REGION"), "{error}");
        assert_eq!(server.requests(), 0);
    }

    #[tokio::test]
    async fn only_arns_of_keys_are_used() {
        let server = Server::start(|_, _| fault(500, "never asked"));
        let kms = server.kms(AMPLE);
        for name in [
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/acme",
            "arn:aws:kms:eu-central-1:123456789012:alias/acme",
            "arn:aws:s3:eu-central-1:123456789012:key/1234",
            "arn:aws:kms:evil.example/:123456789012:key/1234",
            "arn:aws:kms::123456789012:key/1234",
            "arn:aws:kms:eu-central-1::key/1234",
            "arn:aws:kms:eu-central-1:123456789012:key/1234:more",
        ] {
            let key = KmsKeyId::new(PROVIDER, name).unwrap();
            let result = kms.generate_data_key(receipt(), &key, &context()).await;
            assert_kind(result, KmsErrorKind::Invalid, name);
        }
        assert_eq!(server.requests(), 0);
        let gov = KmsKeyId::new(PROVIDER, "arn:aws-us-gov:kms:us-gov-west-1:123456789012:key/1").unwrap();
        assert_eq!(Arn::of(&gov).unwrap().place.region, "us-gov-west-1");
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_a_customers_is_not_resolved() {
        for (change, fits) in [
            (("", ""), true),
            (("SYMMETRIC_DEFAULT", "RSA_4096"), false),
            (("ENCRYPT_DECRYPT", "SIGN_VERIFY"), false),
            (("CUSTOMER", "AWS"), false),
            (("false", "true"), false),
        ] {
            let server = Server::start(move |_, _| {
                let body = format!(
                    r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeySpec":"SYMMETRIC_DEFAULT",
                    "KeyUsage":"ENCRYPT_DECRYPT","KeyManager":"CUSTOMER","MultiRegion":false}}}}"#
                );
                let body = if change.0.is_empty() { body } else { body.replace(change.0, change.1) };
                Answer::Say(200, body)
            });
            let alias = KmsKeyId::new(PROVIDER, "arn:aws:kms:eu-central-1:123456789012:alias/acme").unwrap();
            match server.kms(AMPLE).resolve(&alias).await {
                Ok(resolved) => assert!(fits && resolved == key(), "{change:?}"),
                Err(error) => assert!(!fits && error.kind() == KmsErrorKind::Invalid, "{change:?} {error:?}"),
            }
        }
    }

    #[tokio::test]
    async fn an_epochs_key_has_no_copies() {
        for (change, fits) in [
            (("", ""), true),
            (("AWS_KMS", "EXTERNAL"), false),
            (("AWS_KMS", "AWS_CLOUDHSM"), false),
            (("AWS_KMS", "EXTERNAL_KEY_STORE"), false),
            ((r#""Origin":"AWS_KMS","#, ""), false),
            ((r#""Origin""#, r#""CustomKeyStoreId":"cks-1","Origin""#), false),
            (("false", "true"), false),
            ((r#","MultiRegion":false"#, ""), false),
        ] {
            let server = Server::start(move |_, _| {
                let body = format!(
                    r#"{{"KeyMetadata":{{"KeyId":"1","Arn":"{ARN}","KeySpec":"SYMMETRIC_DEFAULT",
                    "Origin":"AWS_KMS","KeyUsage":"ENCRYPT_DECRYPT","KeyManager":"CUSTOMER","MultiRegion":false}}}}"#
                );
                let body = if change.0.is_empty() { body } else { body.replace(change.0, change.1) };
                Answer::Say(200, body)
            });
            match server.kms(AMPLE).resolve_for_epoch(&key()).await {
                Ok(resolved) => assert!(fits && resolved == key(), "{change:?}"),
                Err(error) => assert!(!fits && error.kind() == KmsErrorKind::Invalid, "{change:?} {error:?}"),
            }
        }
    }

    #[tokio::test]
    async fn localstack_resolves_names_and_keeps_regions_apart() {
        if !localstack_is_there("names and regions of AWS KMS") {
            return;
        }
        let here = AwsKms::from_env();
        let key = here.create_key(&context()).await.unwrap();
        let bare = KmsKeyId::new(PROVIDER, key.name().rsplit_once('/').unwrap().1).unwrap();
        assert_eq!(here.resolve(&bare).await.unwrap(), key);
        assert_eq!(here.resolve(&key).await.unwrap(), key);

        let options = AwsKmsOptions { region: Some("eu-west-1".to_owned()), ..AwsKmsOptions::default() };
        let there = AwsKms::with_options(options).create_key(&context()).await.unwrap();
        assert_eq!(Arn::of(&there).unwrap().place.region, "eu-west-1");
        // A client of another region finds it by its ARN.
        let made = here.generate_data_key(receipt(), &there, &context()).await.unwrap();
        let opened = here.decrypt(receipt(), &there, &made.wrapped, &context()).await.unwrap();
        assert_eq!(opened.secret().expose(), made.plaintext.secret().expose());

        let client = here.client(None).await.unwrap();
        let replicated = client.create_key().multi_region(true).send().await.unwrap().key_metadata.unwrap();
        let replicated = KmsKeyId::new(PROVIDER, replicated.arn().unwrap()).unwrap();
        assert_kind(here.resolve(&replicated).await, KmsErrorKind::Invalid, "a multi-Region key");

        assert_eq!(here.resolve_for_epoch(&bare).await.unwrap(), key);
        let imported =
            client.create_key().origin(OriginType::External).send().await.unwrap().key_metadata.unwrap();
        let imported = KmsKeyId::new(PROVIDER, imported.arn().unwrap()).unwrap();
        assert_kind(here.resolve_for_epoch(&imported).await, KmsErrorKind::Invalid, "imported material");

        // Nobody knows such a key, here or there; only here it is ours to say.
        let unknown = |of: &KmsKeyId| {
            let (before, _) = of.name().rsplit_once('/').unwrap();
            KmsKeyId::new(PROVIDER, &format!("{before}/00000000-0000-0000-0000-000000000000")).unwrap()
        };
        assert_kind(here.describe(&unknown(&key)).await, KmsErrorKind::KeyDestroyed, "our region");
        assert_kind(here.describe(&unknown(&there)).await, KmsErrorKind::KeyUnavailable, "another region");
    }

    /// A key of the log in a KMS that has `key` and says that its spec is `spec`.
    async fn log_signer(spec: &'static str, key: [u8; 32], broken: bool) -> crate::Result<AwsLogSigner> {
        let answer = move |_: usize, request: &str| {
            let secret = crate::tlog::SecretKey::from_seed(&Secret::init(|to| *to = key));
            let body: serde_json::Value =
                serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
            let answer = if request.contains("TrentService.GetPublicKey") {
                let mut der = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00".to_vec();
                der.extend_from_slice(secret.public().as_bytes());
                serde_json::json!({ "KeyId": ARN, "KeySpec": spec, "PublicKey": BASE64.encode(&der) })
            } else {
                assert_eq!(
                    (&body["SigningAlgorithm"], &body["MessageType"]),
                    (&"ED25519_SHA_512".into(), &"RAW".into())
                );
                let mut message = BASE64.decode(body["Message"].as_str().unwrap().as_bytes()).unwrap();
                message[0] ^= u8::from(broken);
                serde_json::json!({ "KeyId": ARN, "Signature": BASE64.encode(secret.sign(&message).as_bytes()) })
            };
            Answer::Say(200, answer.to_string())
        };
        let server = Server::start(answer);
        AwsLogSigner::open_with(server.kms(AMPLE), &self::key()).await
    }

    #[tokio::test]
    async fn the_log_is_signed_with_an_ed25519_key_only_and_each_signature_is_checked() {
        use crate::audit::signer::LogSigner;
        let signer = log_signer("ECC_NIST_EDWARDS25519", [7; 32], false).await.unwrap();
        let signature = signer.sign(b"a checkpoint").await.unwrap();
        assert!(signer.public().verifies(b"a checkpoint", &signature));
        assert!(log_signer("ECC_NIST_P256", [7; 32], false).await.is_err());
        let broken = log_signer("ECC_NIST_EDWARDS25519", [7; 32], true).await.unwrap();
        assert!(broken.sign(b"a checkpoint").await.is_err());
    }
}
