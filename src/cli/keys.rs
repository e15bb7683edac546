//! The KMS providers of a run, each set up when it is first needed.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::KeyUseReceipt;
use crate::id::KmsKeyId;
use crate::kms::local::InsecureLocalKms;
use crate::kms::{
    DataKey, DestructionAssurance, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsError,
    KmsRegistry, WrappedDataKey,
};
use crate::system::{SystemClock, SystemEntropy};
use crate::time::Timestamp;

/// Local keys in `directory`, and AWS KMS as the environment says.
pub(super) fn registry(directory: PathBuf) -> KmsRegistry {
    let registry = KmsRegistry::new().with(Arc::new(LazyLocalKms { directory }));
    #[cfg(feature = "aws")]
    let registry = registry.with(Arc::new(crate::kms::aws::AwsKms::from_env()));
    registry
}

/// The local provider, whose directory is looked at only when a key of it is
/// asked for: a store without local keys must not fail because of it.
#[derive(Debug)]
struct LazyLocalKms {
    directory: PathBuf,
}

impl LazyLocalKms {
    fn open(&self) -> Result<InsecureLocalKms, KmsError> {
        InsecureLocalKms::open(self.directory.clone(), Arc::new(SystemClock), Arc::new(SystemEntropy))
    }
}

#[async_trait]
impl Kms for LazyLocalKms {
    fn provider(&self) -> &'static str {
        "local"
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.open()?.generate_data_key(receipt, key, context).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.open()?.decrypt(receipt, key, wrapped, context).await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.open()?.describe(key).await
    }
}

#[async_trait]
impl KmsAdmin for LazyLocalKms {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.open()?.create_key(tags).await
    }

    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.open()?.enable(key).await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.open()?.disable(key).await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        self.open()?.schedule_deletion(key, days).await
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.open()?.cancel_deletion(key).await
    }

    fn assurance(&self) -> DestructionAssurance {
        DestructionAssurance::BestEffort
    }
}
