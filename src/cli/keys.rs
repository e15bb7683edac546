//! The KMS providers of a run, each set up when it is first needed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use crate::audit::KeyUseReceipt;
use crate::id::{KmsKeyId, SessionId};
use crate::kms::local::InsecureLocalKms;
use crate::kms::{
    DataKey, DestroyerRegistry, EncryptionContext, GeneratedDataKey, Grant, GrantId, KeyState, Kms, KmsAdmin,
    KmsDestroyer, KmsError, KmsErrorKind, KmsGrants, KmsRegistry, WrappedDataKey,
};
use crate::system::{SystemClock, SystemEntropy};
use crate::time::Timestamp;

/// The local provider, whose directory is looked at only when a key of it is
/// asked for: a store without local keys must not fail because of it.
#[derive(Clone, Debug)]
pub(super) struct LocalKeys {
    directory: PathBuf,
    failed: Arc<AtomicBool>,
}

impl LocalKeys {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, failed: Arc::default() }
    }

    /// These, and AWS KMS as the environment says.
    pub(super) fn registry(&self) -> KmsRegistry {
        let registry = KmsRegistry::new().with(Arc::new(self.clone())).with_grants(Arc::new(self.clone()));
        #[cfg(feature = "aws")]
        let registry = {
            let aws = Arc::new(crate::kms::aws::AwsKms::from_env());
            registry.with(Arc::clone(&aws) as _).with_grants(aws)
        };
        registry
    }

    /// The same, to end keys with: for `epoch finish`, and what finishes an offboarding.
    pub(super) fn destroyers(&self) -> DestroyerRegistry {
        let registry = DestroyerRegistry::new().with(Arc::new(self.clone()));
        #[cfg(feature = "aws")]
        let registry = registry.with(Arc::new(crate::kms::aws::AwsKms::from_env()));
        registry
    }

    /// Whether the directory, or a key in it, was missing or unfit.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    fn open(&self) -> Result<InsecureLocalKms, KmsError> {
        self.noted(InsecureLocalKms::open(
            self.directory.clone(),
            Arc::new(SystemClock),
            Arc::new(SystemEntropy),
        ))
    }

    fn noted<T>(&self, result: Result<T, KmsError>) -> Result<T, KmsError> {
        result.inspect_err(|error| {
            let missing = matches!(error.kind(), KmsErrorKind::Configuration | KmsErrorKind::KeyDestroyed);
            self.failed.fetch_or(missing, Ordering::Relaxed);
        })
    }
}

#[async_trait]
impl Kms for LocalKeys {
    fn provider(&self) -> &'static str {
        "local"
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.noted(self.open()?.generate_data_key(receipt, key, context).await)
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.noted(self.open()?.decrypt(receipt, key, wrapped, context).await)
    }

    async fn resolve(&self, key: &KmsKeyId) -> Result<KmsKeyId, KmsError> {
        self.noted(self.open()?.resolve(key).await)
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.noted(self.open()?.describe(key).await)
    }
}

#[async_trait]
impl KmsAdmin for LocalKeys {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.noted(self.open()?.create_key(tags).await)
    }
}

#[async_trait]
impl KmsDestroyer for LocalKeys {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.noted(self.open()?.enable(key).await)
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.noted(self.open()?.disable(key).await)
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        self.noted(self.open()?.schedule_deletion(key, days).await)
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.noted(self.open()?.cancel_deletion(key).await)
    }
}

#[async_trait]
impl KmsGrants for LocalKeys {
    async fn check_fit(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.noted(self.open()?.check_fit(key).await)
    }

    async fn create_grant(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        grant: &Grant,
    ) -> Result<GrantId, KmsError> {
        self.noted(self.open()?.create_grant(receipt, key, grant).await)
    }

    async fn retire_grants(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        session: SessionId,
    ) -> Result<usize, KmsError> {
        self.noted(self.open()?.retire_grants(receipt, key, session).await)
    }

    async fn grants(&self, key: &KmsKeyId) -> Result<Vec<SessionId>, KmsError> {
        self.noted(self.open()?.grants(key).await)
    }
}
