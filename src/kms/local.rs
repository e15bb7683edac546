//! The embedded key provider: KMS keys as files in a directory.
//!
//! **What it does not protect against: whoever can read the directory has the
//! keys, and with them everything sealed under them.** Use it to develop, to
//! test, and where the directory is on a medium that is kept apart from the
//! data. Encrypted PHI counts as "secured" under HHS guidance (74 FR 19006) only
//! when its keys are on a separate device or location: a directory beside the
//! data earns no safe harbour. Unlinking a file is not sanitisation (NIST SP
//! 800-88r2): what is destroyed here is overwritten and unlinked, and copies may
//! live on in snapshots, journals, backups and worn flash cells. So a
//! certificate over such a key never says "Purge"
//! ([`DestructionAssurance::FilesRemoved`](crate::kms::DestructionAssurance::FilesRemoved)).
//!
//! Separate from the other providers in that it has no other side: the policy
//! of a KMS (states, waiting periods) is kept by this code, and a caller with
//! access to the directory can go around it. The files are `directory`'s.
//!
//! A key that is made for a customer whose keys are in its own hand (tag
//! `strongroom:tenancy` = `customer`) unwraps only while a grant stands that covers the
//! call. Grants are files beside the key, looked at in each call: the end of one is the
//! end of unwrapping, in every process. Whoever may write to the directory can make one.
//!
//! A wrapped data key is, in bytes:
//!
//! | at | length | what |
//! |---:|---:|---|
//! | 0 | 10 | `SRlkmsdk`, version 1 and its complement |
//! | 10 | 16 | the id of the key |
//! | 26 | 24 | salt |
//! | 50 | 32 | the data key, sealed |
//! | 82 | 16 | tag |
//!
//! It is sealed with AES-256-GCM under [`schedule::local_kms`] of the key and
//! the salt, with the nonce of a key that is used once. The AAD is bytes 0 to 49
//! and, behind its length of 4 bytes, the encryption context: a count of 4 bytes,
//! then each name and value, in order of the names, behind lengths of 4 bytes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::audit::KeyUseReceipt;
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::entropy::{Entropy, EntropyError, random, random_secret};
use crate::id::{KmsKeyId, LocalKeyId, SessionId};
use crate::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, Grant, GrantId, KeyState, Kms, KmsAdmin, KmsDestroyer,
    KmsError, KmsErrorKind, KmsGrants, WrappedDataKey,
};
use crate::schedule::{self, SALT_LEN, SINGLE_USE_NONCE, Salt};
use crate::secret::Secret;
use crate::suite::{AeadKey, KEY_LEN, Suite, TAG_LEN};
use crate::time::{Clock, Timestamp};

pub(crate) mod directory;

use directory::{KeyDirectory, State, StoredKey};

/// The prefix of this provider's key ids.
const PROVIDER: &str = "local";

const DAY: Duration = Duration::from_hours(24);

/// Keys in a directory that whoever reads it has. See the [module](self).
#[derive(Clone, Debug)]
pub struct InsecureLocalKms(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: KeyDirectory,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl InsecureLocalKms {
    /// The keys in `directory`, which only its owner may enter (mode 0700).
    ///
    /// Nothing is written: a directory that is missing is made by the first
    /// [`create_key`](KmsAdmin::create_key). `clock` says when a deletion that
    /// was scheduled is due; it must be one that cannot be set forward unseen.
    ///
    /// # Errors
    /// [`KmsErrorKind::Configuration`] if it is there and is not a directory, is
    /// not ours, or lets others in.
    pub fn open(
        directory: PathBuf,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KmsError> {
        let directory = KeyDirectory::new(directory);
        directory.check()?;
        Ok(Self(Arc::new(Inner { directory, clock, entropy })))
    }

    /// Runs `work` where it may block on the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, KmsError> + Send + 'static,
    ) -> Result<T, KmsError> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|stopped| {
            if stopped.is_panic() {
                std::panic::resume_unwind(stopped.into_panic());
            }
            let message = "the key directory could not be worked on: the program is stopping";
            Err(KmsError::new(KmsErrorKind::Unavailable, message).with_source(stopped))
        })
    }

    async fn change(
        &self,
        key: &KmsKeyId,
        next: impl FnOnce(State, Timestamp) -> Result<State, KmsError> + Send + 'static,
    ) -> Result<State, KmsError> {
        let id = local_id(key)?;
        self.blocking(move |inner| {
            let now = inner.clock.now();
            inner.directory.change(id, now, |state| next(state, now))
        })
        .await
    }
}

impl Inner {
    /// The key, if it can be used.
    fn usable(&self, id: LocalKeyId) -> Result<StoredKey, KmsError> {
        let stored = self.directory.load(id, self.clock.now())?;
        match stored.state {
            State::Enabled => Ok(stored),
            State::Disabled => {
                Err(KmsError::new(KmsErrorKind::KeyUnavailable, "the local KMS key is disabled"))
            }
            State::Pending(_) => Err(pending()),
        }
    }
}

#[async_trait]
impl Kms for InsecureLocalKms {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn generate_data_key(
        &self,
        _receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        let id = local_id(key)?;
        let context = context.clone();
        self.blocking(move |inner| {
            let stored = inner.usable(id)?;
            let data_key = random_secret(&*inner.entropy).map_err(no_entropy)?;
            let salt = random(&*inner.entropy).map_err(no_entropy)?;
            let wrapped = seal(&stored.key, id, &salt, &data_key, &context);
            Ok(GeneratedDataKey {
                plaintext: DataKey::new(data_key),
                wrapped: WrappedDataKey::new(wrapped.to_bytes()),
            })
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
        let id = local_id(key)?;
        let sealed = SealedDataKey::from_bytes(wrapped.as_bytes()).map_err(not_readable)?;
        if sealed.header.key != id {
            let message = "the wrapped data key is another KMS key's";
            return Err(KmsError::new(KmsErrorKind::Authentication, message));
        }
        let context = context.clone();
        self.blocking(move |inner| {
            let stored = inner.usable(id)?;
            if stored.by_grant && !inner.directory.grants(id)?.iter().any(|grant| grant.covers(&context)) {
                let message = "the local KMS key is in its customer's hand, and no grant covers this";
                return Err(KmsError::new(KmsErrorKind::KeyUnavailable, message));
            }
            open(&stored.key, &sealed, &context).map(DataKey::new)
        })
        .await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        let id = local_id(key)?;
        let stored = self.blocking(move |inner| inner.directory.load(id, inner.clock.now())).await?;
        Ok(match stored.state {
            State::Enabled => KeyState::Enabled,
            State::Disabled => KeyState::Disabled,
            State::Pending(due) => KeyState::PendingDeletion(Some(due)),
        })
    }
}

#[async_trait]
impl KmsAdmin for InsecureLocalKms {
    /// Tags are not kept. One that says that the key is to be in the customer's hand makes
    /// it unwrap under a grant only.
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        let by_grant = tags.is_in_customers_hand();
        let id = self
            .blocking(move |inner| {
                let id = LocalKeyId::from_bytes(random(&*inner.entropy).map_err(no_entropy)?);
                let key = random_secret(&*inner.entropy).map_err(no_entropy)?;
                let stored = StoredKey { created: inner.clock.now(), state: State::Enabled, key, by_grant };
                inner.directory.create(id, &stored)?;
                Ok(id)
            })
            .await?;
        Ok(KmsKeyId::new(PROVIDER, &id.to_string()).expect("base32 is plain"))
    }
}

#[async_trait]
impl KmsDestroyer for InsecureLocalKms {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let enabled = |state, _| match state {
            State::Enabled | State::Disabled => Ok(State::Enabled),
            State::Pending(_) => Err(pending()),
        };
        self.change(key, enabled).await.map(drop)
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let disabled = |state, _| match state {
            State::Enabled | State::Disabled => Ok(State::Disabled),
            // It cannot be used as it is, and will be disabled if that is cancelled.
            State::Pending(due) => Ok(State::Pending(due)),
        };
        self.change(key, disabled).await.map(drop)
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        if !(7..=30).contains(&days) {
            let message = "a KMS key is deleted after 7 to 30 days";
            return Err(KmsError::new(KmsErrorKind::Invalid, message));
        }
        let scheduled = move |state, now: Timestamp| match state {
            State::Enabled | State::Disabled => Ok(State::Pending(now.saturating_add(DAY * days))),
            State::Pending(due) => Ok(State::Pending(due)),
        };
        match self.change(key, scheduled).await? {
            State::Pending(due) => Ok(due),
            State::Enabled | State::Disabled => unreachable!("`scheduled` gives Pending only"),
        }
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let cancelled = |state, _| match state {
            State::Pending(_) => Ok(State::Disabled),
            State::Enabled | State::Disabled => Ok(state),
        };
        self.change(key, cancelled).await.map(drop)
    }
}

#[async_trait]
impl KmsGrants for InsecureLocalKms {
    async fn check_fit(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        let id = local_id(key)?;
        self.blocking(move |inner| inner.directory.load(id, inner.clock.now())?.is_by_grant()).await
    }

    /// Its id is that of the session.
    async fn create_grant(
        &self,
        _receipt: KeyUseReceipt,
        key: &KmsKeyId,
        grant: &Grant,
    ) -> Result<GrantId, KmsError> {
        let (id, grant) = (local_id(key)?, *grant);
        self.blocking(move |inner| {
            inner.usable(id)?.is_by_grant()?;
            inner.directory.put_grant(id, inner.clock.now(), &grant)
        })
        .await?;
        Ok(GrantId::new(&grant.session.to_string()).expect("base32 is plain"))
    }

    async fn retire_grants(
        &self,
        _receipt: KeyUseReceipt,
        key: &KmsKeyId,
        session: SessionId,
    ) -> Result<usize, KmsError> {
        let id = local_id(key)?;
        self.blocking(move |inner| inner.directory.remove_grant(id, session).map(usize::from)).await
    }

    async fn grants(&self, key: &KmsKeyId) -> Result<Vec<SessionId>, KmsError> {
        let id = local_id(key)?;
        let grants = self.blocking(move |inner| inner.directory.grants(id)).await?;
        let mut sessions: Vec<_> = grants.iter().map(|grant| grant.session).collect();
        sessions.sort();
        Ok(sessions)
    }
}

impl StoredKey {
    fn is_by_grant(&self) -> Result<(), KmsError> {
        let message = "the local KMS key unwraps without a grant: it was not made for the customer's hand";
        if self.by_grant { Ok(()) } else { Err(KmsError::new(KmsErrorKind::Invalid, message)) }
    }
}

/// The part of a wrapped data key that is authenticated and not sealed.
#[derive(Debug)]
struct Header {
    key: LocalKeyId,
    salt: Salt,
}

impl Header {
    const MAGIC: &[u8; 8] = b"SRlkmsdk";
    const VERSION: u8 = 1;

    fn aad(&self, context: &EncryptionContext) -> Vec<u8> {
        let mut pairs = Writer::default();
        let count = u32::try_from(context.pairs().count()).expect("a context is a handful of pairs");
        pairs.u32(count);
        for (name, value) in context.pairs() {
            pairs.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        let mut aad = Writer::default();
        self.encode(&mut aad);
        aad.bytes(pairs.as_bytes());
        aad.into_bytes()
    }
}

impl Encode for Header {
    fn encode(&self, out: &mut Writer) {
        out.version(Self::MAGIC, Self::VERSION);
        self.key.encode(out);
        out.raw(&self.salt);
    }
}

impl Decode for Header {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        from.version(Self::MAGIC, Self::VERSION)?;
        Ok(Self { key: LocalKeyId::decode(from)?, salt: from.array::<SALT_LEN>()? })
    }
}

#[derive(Debug)]
struct SealedDataKey {
    header: Header,
    ciphertext: [u8; KEY_LEN],
    tag: [u8; TAG_LEN],
}

impl Encode for SealedDataKey {
    fn encode(&self, out: &mut Writer) {
        self.header.encode(out);
        out.raw(&self.ciphertext).raw(&self.tag);
    }
}

impl Decode for SealedDataKey {
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { header: Header::decode(from)?, ciphertext: from.array()?, tag: from.array()? })
    }
}

fn seal(
    key: &Secret<KEY_LEN>,
    id: LocalKeyId,
    salt: &Salt,
    data_key: &Secret<KEY_LEN>,
    context: &EncryptionContext,
) -> SealedDataKey {
    let header = Header { key: id, salt: *salt };
    let aead = AeadKey::new(Suite::Aes256Gcm, &schedule::local_kms(key, salt));
    let aad = header.aad(context);
    let mut tag = [0; TAG_LEN];
    // A secret until it is sealed.
    let sealed = Secret::<KEY_LEN>::init(|buffer| {
        *buffer = *data_key.expose();
        tag = aead.seal_in_place(&SINGLE_USE_NONCE, &aad, buffer);
    });
    SealedDataKey { header, ciphertext: *sealed.expose(), tag }
}

fn open(
    key: &Secret<KEY_LEN>,
    sealed: &SealedDataKey,
    context: &EncryptionContext,
) -> Result<Secret<KEY_LEN>, KmsError> {
    let aead = AeadKey::new(Suite::Aes256Gcm, &schedule::local_kms(key, &sealed.header.salt));
    let aad = sealed.header.aad(context);
    Secret::try_init(|out| {
        *out = sealed.ciphertext;
        aead.open_in_place(&SINGLE_USE_NONCE, &aad, out, &sealed.tag)
    })
    .map_err(|_| {
        let message = "the wrapped data key does not open under this KMS key and context";
        KmsError::new(KmsErrorKind::Authentication, message)
    })
}

fn local_id(key: &KmsKeyId) -> Result<LocalKeyId, KmsError> {
    let wrong = || KmsError::new(KmsErrorKind::Invalid, "not the id of a local KMS key");
    if key.provider() != PROVIDER {
        return Err(wrong());
    }
    key.name().parse().map_err(|error: crate::id::ParseIdError| wrong().with_source(error))
}

fn not_readable(error: DecodeError) -> KmsError {
    let (kind, message) = match error {
        DecodeError::Version(_) => {
            (KmsErrorKind::Configuration, "the wrapped data key is a newer program's: upgrade this one")
        }
        _ => (KmsErrorKind::Authentication, "not a data key that a local KMS key wrapped"),
    };
    KmsError::new(kind, message).with_source(error)
}

fn pending() -> KmsError {
    KmsError::new(KmsErrorKind::KeyUnavailable, "the local KMS key is pending deletion")
}

fn no_entropy(error: EntropyError) -> KmsError {
    KmsError::new(KmsErrorKind::Unavailable, "no random bytes could be had").with_source(error)
}

/// Reads a wrapped data key and writes it again: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8]) -> Option<Vec<u8>> {
    SealedDataKey::from_bytes(bytes).ok().map(|sealed| sealed.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::contract::{TestClock, assert_kind, context, receipt};
    use crate::system::SystemEntropy;

    /// The bytes 0, 1, 2 … over and over: known keys for a known format.
    #[derive(Debug, Default)]
    struct Counting(std::sync::atomic::AtomicU8);

    impl Entropy for Counting {
        fn fill(&self, out: &mut [u8]) -> Result<(), EntropyError> {
            out.fill_with(|| self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
            Ok(())
        }
    }

    fn kms(directory: &std::path::Path, clock: &Arc<TestClock>) -> InsecureLocalKms {
        let clock = Arc::<TestClock>::clone(clock);
        InsecureLocalKms::open(directory.join("keys"), clock, Arc::new(SystemEntropy)).unwrap()
    }

    /// Put together here from the module's table, without the code above.
    #[tokio::test]
    async fn the_format_is_as_documented() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys");
        let kms = InsecureLocalKms::open(path, TestClock::new(), Arc::new(Counting::default())).unwrap();
        let name = kms.create_key(&context()).await.unwrap();
        assert_eq!(name.as_str(), "local:000g40r40m30e209185gr38e1w");
        let made = kms.generate_data_key(receipt(), &name, &context()).await.unwrap();

        // From the table alone: 16 bytes of id, 32 of key, 32 of data key, 24 of salt.
        let counted: Vec<u8> = (0..104).collect();
        let (id, key, data_key, salt) = (&counted[..16], &counted[16..48], &counted[48..80], &counted[80..]);
        let mut expected = b"SRlkmsdk\x01\xFE".to_vec();
        expected.extend_from_slice(id);
        expected.extend_from_slice(salt);
        let mut pairs = 4u32.to_be_bytes().to_vec();
        let ids = ["081040g2081040g2081040g208", "0c1g60r30c1g60r30c1g60r30c", "040g2081040g2081040g208104"];
        for (name, value) in [
            ("strongroom:customer", ids[0]),
            ("strongroom:data-key", ids[1]),
            ("strongroom:store", ids[2]),
            ("strongroom:use", "ring"),
        ] {
            for text in [name, value] {
                pairs.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
                pairs.extend_from_slice(text.as_bytes());
            }
        }
        let mut aad = expected.clone();
        aad.extend_from_slice(&u32::try_from(pairs.len()).unwrap().to_be_bytes());
        aad.extend_from_slice(&pairs);
        let wrapping =
            schedule::local_kms(&Secret::init(|out| out.copy_from_slice(key)), salt.try_into().unwrap());
        let mut sealed = data_key.to_vec();
        let tag = AeadKey::new(Suite::Aes256Gcm, &wrapping).seal_in_place(&[0; 12], &aad, &mut sealed);
        expected.extend_from_slice(&sealed);
        expected.extend_from_slice(&tag);
        assert_eq!(made.wrapped.as_bytes(), expected);
        assert_eq!(made.plaintext.secret().expose(), data_key);
    }

    #[tokio::test]
    async fn nothing_is_made_before_the_first_key() {
        let home = tempfile::tempdir().unwrap();
        let kms = kms(home.path(), &TestClock::new());
        let unknown = "local:00000000000000000000000000".parse().unwrap();
        assert_kind(kms.describe(&unknown).await, KmsErrorKind::Configuration, "a directory that is missing");
        assert!(!home.path().join("keys").exists());
        kms.create_key(&context()).await.unwrap();
        assert_kind(kms.describe(&unknown).await, KmsErrorKind::KeyDestroyed, "a file that is missing");
    }

    /// A look is enough: nothing has to run on the day itself.
    #[tokio::test]
    async fn a_look_at_a_key_whose_time_has_come_destroys_it() {
        use std::os::unix::fs::FileExt;

        const MICROSECOND: Duration = Duration::from_micros(1);
        let home = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let kms = kms(home.path(), &clock);
        let key = kms.create_key(&context()).await.unwrap();
        let made = kms.generate_data_key(receipt(), &key, &context()).await.unwrap();
        let path = home.path().join("keys").join(format!("{}.key", key.name()));

        // Taken back in the last moment, it lives.
        let due = kms.schedule_deletion(&key, 7).await.unwrap();
        clock.advance(DAY * 7 - MICROSECOND);
        assert_eq!(kms.describe(&key).await.unwrap(), KeyState::PendingDeletion(Some(due)));
        kms.cancel_deletion(&key).await.unwrap();
        clock.advance(DAY * 30);
        assert_eq!(kms.describe(&key).await.unwrap(), KeyState::Disabled);
        kms.enable(&key).await.unwrap();
        kms.decrypt(receipt(), &key, &made.wrapped, &context()).await.unwrap();

        let due = kms.schedule_deletion(&key, 30).await.unwrap();
        assert_eq!(due, clock.now().saturating_add(DAY * 30));
        let held = std::fs::File::open(&path).unwrap();
        let length = usize::try_from(held.metadata().unwrap().len()).unwrap();
        clock.advance(DAY * 30 - MICROSECOND);
        kms.describe(&key).await.unwrap();
        assert!(path.exists());
        clock.advance(MICROSECOND);
        assert_kind(kms.describe(&key).await, KmsErrorKind::KeyDestroyed, "its time has come");
        let mut bytes = vec![1; length];
        held.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, vec![0; length], "overwritten");
        let left = std::fs::read_dir(home.path().join("keys")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"], "unlinked");
        assert_kind(kms.cancel_deletion(&key).await, KmsErrorKind::KeyDestroyed, "too late");
        let opened = kms.decrypt(receipt(), &key, &made.wrapped, &context()).await;
        assert_kind(opened, KmsErrorKind::KeyDestroyed, "what it wrapped");
    }

    #[tokio::test]
    async fn names_that_are_not_ours_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let kms = kms(home.path(), &TestClock::new());
        for name in
            ["local:../../etc/passwd", "local:.lock", "local:ABC", "aws-kms:000g40r40m30e209185gr38e1w"]
        {
            let key = name.parse().unwrap();
            assert_kind(kms.describe(&key).await, KmsErrorKind::Invalid, name);
        }
    }

    /// No key is so much as looked for when the ciphertext names another.
    #[tokio::test]
    async fn the_key_in_the_ciphertext_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let kms = kms(home.path(), &TestClock::new());
        let (key, other) = (kms.create_key(&context()).await, kms.create_key(&context()).await.unwrap());
        let made = kms.generate_data_key(receipt(), &key.unwrap(), &context()).await.unwrap();
        kms.disable(&other).await.unwrap();
        let result = kms.decrypt(receipt(), &other, &made.wrapped, &context()).await;
        assert_kind(result, KmsErrorKind::Authentication, "another key, disabled");
    }

    #[tokio::test]
    async fn a_newer_ciphertext_asks_for_an_upgrade() {
        let home = tempfile::tempdir().unwrap();
        let kms = kms(home.path(), &TestClock::new());
        let key = kms.create_key(&context()).await.unwrap();
        let made = kms.generate_data_key(receipt(), &key, &context()).await.unwrap();
        let mut bytes = made.wrapped.as_bytes().to_vec();
        bytes[8..10].copy_from_slice(&[2, !2]);
        let newer = kms.decrypt(receipt(), &key, &WrappedDataKey::new(bytes), &context()).await;
        assert_kind(newer, KmsErrorKind::Configuration, "version 2");
    }

    #[tokio::test]
    async fn debug_output_and_errors_hold_no_key() {
        let home = tempfile::tempdir().unwrap();
        let kms = kms(home.path(), &TestClock::new());
        let key = kms.create_key(&context()).await.unwrap();
        let made = kms.generate_data_key(receipt(), &key, &context()).await.unwrap();
        let file = home.path().join("keys").join(format!("{}.key", key.name()));
        let stored = std::fs::read(file).unwrap();
        let loaded = kms.0.usable(local_id(&key).unwrap()).unwrap();
        let elsewhere = EncryptionContext::epoch(crate::id::StoreId::from_bytes([0; 16]), 0);
        let wrong = kms.decrypt(receipt(), &key, &made.wrapped, &elsewhere).await;
        let shown = format!("{kms:?} {loaded:?} {:?} {:?}", made.plaintext, wrong.unwrap_err());
        for secret in [loaded.key.expose(), made.plaintext.secret().expose()] {
            let decimal = format!("{secret:?}");
            let hex = data_encoding::HEXLOWER.encode(secret);
            // Any four bytes in a row would be too many.
            for shape in [&decimal[1..16], &hex[..8]] {
                assert!(!shown.to_lowercase().contains(shape), "{shown}");
            }
        }
        assert!(stored.windows(32).any(|window| window == loaded.key.expose()), "the test looks at the key");
    }

    /// Two instances, as two processes are: each has files and locks of its own.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn two_processes_lose_no_change() {
        let home = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let (one, two) = (kms(home.path(), &clock), kms(home.path(), &clock));
        let key = one.create_key(&context()).await.unwrap();
        let made = one.generate_data_key(receipt(), &key, &context()).await.unwrap();
        for round in 0..100 {
            // In either order a scheduled deletion remains, unless one is lost.
            let (disabled, scheduled) = tokio::join!(one.disable(&key), two.schedule_deletion(&key, 7));
            disabled.unwrap();
            let due = scheduled.unwrap();
            assert_eq!(
                one.describe(&key).await.unwrap(),
                KeyState::PendingDeletion(Some(due)),
                "round {round}"
            );

            // Readers see whole files only, while both write as fast as they can.
            let reads = async {
                for _ in 0..10 {
                    let state = one.describe(&key).await.unwrap();
                    assert!(matches!(state, KeyState::Disabled | KeyState::PendingDeletion(_)));
                }
            };
            let writes = async {
                for _ in 0..3 {
                    two.cancel_deletion(&key).await.unwrap();
                    two.schedule_deletion(&key, 7).await.unwrap();
                }
                two.cancel_deletion(&key).await.unwrap();
            };
            tokio::join!(reads, writes);
            two.enable(&key).await.unwrap();
        }
        let opened = one.decrypt(receipt(), &key, &made.wrapped, &context()).await.unwrap();
        assert_eq!(opened.secret().expose(), made.plaintext.secret().expose());
        let mut names: Vec<_> = std::fs::read_dir(home.path().join("keys"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".lock".to_owned(), format!("{}.key", key.name())], "nothing is left behind");
    }
}
