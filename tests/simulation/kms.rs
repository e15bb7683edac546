//! A KMS in memory that forgets nothing but what it is told to destroy, with faults.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use strongroom::audit::KeyUseReceipt;
use strongroom::id::KmsKeyId;
use strongroom::kms::{
    DataKey, DestroyerRegistry, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsDestroyer,
    KmsError, KmsErrorKind, KmsRegistry, WrappedDataKey,
};
use strongroom::secret::Secret;
use strongroom::time::Timestamp;

use super::clock::Truth;
use super::dice::Dice;
use super::storage::{Disk, Fate, Link, Weather};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Enabled,
    Disabled,
    Pending(Timestamp),
}

/// A data key that was made.
#[derive(Debug)]
struct Made {
    under: KmsKeyId,
    context: EncryptionContext,
    plaintext: [u8; 32],
}

#[derive(Debug)]
struct State {
    keys: BTreeMap<KmsKeyId, Life>,
    data_keys: BTreeMap<Vec<u8>, Made>,
    calls: BTreeMap<KmsKeyId, u64>,
    dice: Dice,
    /// Uses of keys whose intent was not durable.
    unrecorded: u64,
}

/// See the module. All nodes share it.
#[derive(Debug)]
pub struct SimKms {
    provider: &'static str,
    truth: Arc<Truth>,
    state: Mutex<State>,
}

impl SimKms {
    pub fn new(provider: &'static str, truth: &Arc<Truth>, dice: Dice) -> Arc<Self> {
        let (keys, data_keys, calls) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let state = Mutex::new(State { keys, data_keys, calls, dice, unrecorded: 0 });
        Arc::new(Self { provider, truth: Arc::clone(truth), state })
    }

    pub fn provider(&self) -> &'static str {
        self.provider
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Whether nothing under this key can be read ever again.
    pub fn is_gone(&self, key: &KmsKeyId) -> bool {
        self.life(&self.state(), key).is_err()
    }

    fn life(&self, state: &State, key: &KmsKeyId) -> Result<Life, KmsError> {
        match state.keys.get(key) {
            Some(Life::Pending(at)) if *at <= self.truth.now() => Err(gone()),
            Some(life) => Ok(*life),
            None => Err(gone()),
        }
    }

    /// A data key, for who sees everything.
    pub fn peek(&self, wrapped: &WrappedDataKey) -> Option<DataKey> {
        self.state().data_keys.get(wrapped.as_bytes()).map(|made| data_key(made.plaintext))
    }

    /// How often a key was used before the intent was durable.
    pub fn unrecorded(&self) -> u64 {
        self.state().unrecorded
    }

    /// How often data keys were asked of this key.
    pub fn calls(&self, key: &KmsKeyId) -> u64 {
        self.state().calls.get(key).copied().unwrap_or(0)
    }

    /// A data key, for who goes by no record.
    pub fn make_data_key(
        &self,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let mut state = self.state();
        if self.life(&state, key)? != Life::Enabled {
            return Err(unavailable());
        }
        let (mut plaintext, mut wrapped) = ([0; 32], [0; 24]);
        for part in plaintext.chunks_mut(8).chain(wrapped.chunks_mut(8)) {
            part.copy_from_slice(&state.dice.next().to_le_bytes());
        }
        let made = Made { under: key.clone(), context: context.clone(), plaintext };
        state.data_keys.insert(wrapped.to_vec(), made);
        Ok(GeneratedDataKey {
            plaintext: data_key(plaintext),
            wrapped: WrappedDataKey::new(wrapped.to_vec()),
        })
    }

    pub fn make_key(&self) -> KmsKeyId {
        let mut state = self.state();
        let number = state.keys.len();
        let name = match self.provider {
            "aws-kms" => {
                format!("arn:aws:kms:eu-central-1:111122223333:key/{number:08x}-0000-4000-8000-000000000000")
            }
            _ => format!("{number:032x}"),
        };
        let id = KmsKeyId::new(self.provider, &name).unwrap();
        state.keys.insert(id.clone(), Life::Enabled);
        id
    }
}

fn data_key(bytes: [u8; 32]) -> DataKey {
    DataKey::new(Secret::init(|out| *out = bytes))
}

fn gone() -> KmsError {
    KmsError::new(KmsErrorKind::KeyDestroyed, "there is no such key")
}

fn unavailable() -> KmsError {
    KmsError::new(KmsErrorKind::KeyUnavailable, "the key is not enabled")
}

/// The KMS as one program reaches it.
#[derive(Clone, Debug)]
pub struct NodeKms {
    pub kms: Arc<SimKms>,
    pub link: Arc<Link>,
    pub weather: Arc<Weather>,
    /// Where the intent of each use is, before it.
    pub audit: Arc<Disk>,
}

impl NodeKms {
    pub fn registry(&self) -> KmsRegistry {
        KmsRegistry::new().with(Arc::new(self.clone()) as Arc<dyn KmsAdmin>)
    }

    pub fn destroyers(&self) -> DestroyerRegistry {
        DestroyerRegistry::new().with(Arc::new(self.clone()) as Arc<dyn KmsDestroyer>)
    }

    fn enter(&self, receipt: KeyUseReceipt, key: &KmsKeyId) {
        let mut state = self.kms.state();
        *state.calls.entry(key.clone()).or_default() += 1;
        if !self.audit.has_request(&receipt.request().to_string()) {
            state.unrecorded += 1;
        }
    }

    /// One request, whose answer may be lost.
    async fn ask<T>(
        &self,
        what: &'static str,
        act: impl FnOnce(&SimKms) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        let lost = || KmsError::new(KmsErrorKind::Unavailable, "the KMS does not answer");
        let fate = self.weather.meet_kms(&self.link).await;
        let done = match fate {
            Fate::Lost { effect: false } => Err(lost()),
            _ => act(&self.kms),
        };
        let outcome = match (&fate, &done) {
            (Fate::Lost { .. }, _) => 7,
            (_, Err(_)) => 1,
            _ => 0,
        };
        self.weather.trace(&self.link, what, None, outcome);
        match fate {
            Fate::Lost { .. } => Err(lost()),
            Fate::Plain => done,
        }
    }
}

#[async_trait]
impl Kms for NodeKms {
    fn provider(&self) -> &'static str {
        self.kms.provider
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.enter(receipt, key);
        self.ask("generate", |kms| kms.make_data_key(key, context)).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.enter(receipt, key);
        self.ask("decrypt", |kms| {
            let state = kms.state();
            if kms.life(&state, key)? != Life::Enabled {
                return Err(unavailable());
            }
            let made = state.data_keys.get(wrapped.as_bytes());
            let made = made.filter(|made| made.under == *key && made.context == *context);
            let made = made.ok_or_else(|| KmsError::new(KmsErrorKind::Authentication, "it does not fit"))?;
            Ok(data_key(made.plaintext))
        })
        .await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.ask("describe", |kms| {
            Ok(match kms.life(&kms.state(), key)? {
                Life::Enabled => KeyState::Enabled,
                Life::Disabled => KeyState::Disabled,
                Life::Pending(at) => KeyState::PendingDeletion(Some(at)),
            })
        })
        .await
    }
}

#[async_trait]
impl KmsAdmin for NodeKms {
    async fn create_key(&self, _: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        self.ask("create-key", |kms| Ok(kms.make_key())).await
    }
}

impl NodeKms {
    async fn change(
        &self,
        what: &'static str,
        key: &KmsKeyId,
        next: impl FnOnce(Life) -> Result<Life, KmsError>,
    ) -> Result<(), KmsError> {
        self.ask(what, |kms| {
            let mut state = kms.state();
            let life = next(kms.life(&state, key)?)?;
            state.keys.insert(key.clone(), life);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl KmsDestroyer for NodeKms {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let next = |life| if let Life::Pending(_) = life { Err(unavailable()) } else { Ok(Life::Enabled) };
        self.change("enable", key, next).await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let next = |life| Ok(if let Life::Pending(_) = life { life } else { Life::Disabled });
        self.change("disable", key, next).await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        let due = self.kms.truth.now().saturating_add(Duration::from_hours(24) * days);
        let mut stands = due;
        self.change("schedule", key, |life| {
            // The first date stands.
            if let Life::Pending(at) = life {
                stands = at;
            }
            Ok(Life::Pending(stands))
        })
        .await?;
        Ok(stands)
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.change("cancel", key, |life| Ok(if let Life::Pending(_) = life { Life::Disabled } else { life }))
            .await
    }
}
