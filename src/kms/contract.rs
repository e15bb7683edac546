//! The contract of [`Kms`], [`KmsAdmin`], [`KmsDestroyer`] and [`KmsGrants`] as a test suite: every provider runs
//! all of it.
//!
//! The local provider does so on a clock of its own. AWS KMS does so on
//! LocalStack, where `STRONGROOM_TEST_LOCALSTACK` says that there is one
//! (`localstack/run -- cargo test`); elsewhere its test says that it did not run,
//! or fails if `STRONGROOM_TEST_REQUIRE_LOCALSTACK` is `1`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::audit::KeyUseReceipt;
use crate::id::{CustomerId, DataKeyId, KmsKeyId, RequestId, SessionId, StoreId};
use crate::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, Grant, KeyState, KmsAdmin, KmsDestroyer, KmsError,
    KmsErrorKind, KmsGrants, WrappedDataKey,
};
use crate::time::{Clock, Timestamp};

const DAY: Duration = Duration::from_hours(24);

/// A clock that stands still until it is told otherwise.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    /// A clock that stands at 2026-11-22T02:26:13Z.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(1_795_314_373_000_000)))
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.0.fetch_add(u64::try_from(span.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// A provider under test, and what the suite has to know of it.
pub(crate) struct Subject {
    pub(crate) kms: Arc<dyn KmsAdmin>,
    /// The same provider, as those have it who may end keys.
    pub(crate) destroyer: Arc<dyn KmsDestroyer>,
    /// The same provider, as those have it who make grants.
    pub(crate) granter: Arc<dyn KmsGrants>,
    /// Whether a key in a customer's hand is refused without a grant. LocalStack lets all pass.
    pub(crate) enforces_grants: bool,
    /// A well-formed id of a key that was never made.
    pub(crate) unknown: KmsKeyId,
    /// Flip one bit in this many bits of a ciphertext: 1 is every bit.
    pub(crate) flip_every: usize,
    /// The provider's clock, if the suite may turn it.
    pub(crate) clock: Option<Arc<TestClock>>,
}

/// Runs the whole contract.
pub(crate) async fn contract(subject: &Subject) {
    what_is_wrapped_unwraps(subject).await;
    another_context_does_not_unwrap(subject).await;
    another_key_does_not_unwrap(subject).await;
    altered_ciphertexts_do_not_unwrap(subject).await;
    a_disabled_key_is_not_used(subject).await;
    a_deletion_is_scheduled_and_cancelled(subject).await;
    an_unknown_key_does_not_exist(subject).await;
    many_callers_share_a_key(subject).await;
    grants_are_found_by_their_session(subject).await;
    if subject.enforces_grants {
        a_key_in_a_customers_hand_unwraps_under_a_grant_only(subject).await;
    }
    if let Some(clock) = &subject.clock {
        a_key_is_destroyed_when_its_time_has_come(subject, clock).await;
    }
}

async fn what_is_wrapped_unwraps(subject: &Subject) {
    let key = subject.new_key().await;
    assert_eq!(key.provider(), subject.kms.provider());
    assert_eq!(subject.kms.describe(&key).await.unwrap(), KeyState::Enabled);
    let one = subject.generate(&key).await.unwrap();
    let two = subject.generate(&key).await.unwrap();
    assert_ne!(one.plaintext.secret().expose(), two.plaintext.secret().expose());
    assert_ne!(one.wrapped, two.wrapped);
    assert!(one.wrapped.as_bytes().len() <= WrappedDataKey::MAX_LEN);
    for made in [one, two] {
        subject.assert_unwraps(&key, &made).await;
    }
}

async fn another_context_does_not_unwrap(subject: &Subject) {
    let key = subject.new_key().await;
    let made = subject.generate(&key).await.unwrap();
    let (mut missing, mut more, mut changed, mut renamed) = (context(), context(), context(), context());
    missing.0.remove("strongroom:customer").unwrap();
    more.0.insert("strongroom:more", "1".to_owned());
    changed.0.insert("strongroom:customer", CustomerId::from_bytes([9; 16]).to_string());
    let value = renamed.0.remove("strongroom:customer").unwrap();
    renamed.0.insert("strongroom:other", value);
    let none = EncryptionContext(std::collections::BTreeMap::new());
    for wrong in [missing, more, changed, renamed, none] {
        let result = subject.kms.decrypt(receipt(), &key, &made.wrapped, &wrong).await;
        assert_kind(result, KmsErrorKind::Authentication, "another context");
    }
    subject.assert_unwraps(&key, &made).await;
}

async fn another_key_does_not_unwrap(subject: &Subject) {
    let (key, other) = (subject.new_key().await, subject.new_key().await);
    assert_ne!(key, other);
    let made = subject.generate(&key).await.unwrap();
    assert_kind(subject.decrypt(&other, &made).await, KmsErrorKind::Authentication, "another key");
    let foreign = KmsKeyId::new("elsewhere", key.name()).unwrap();
    assert_kind(subject.decrypt(&foreign, &made).await, KmsErrorKind::Invalid, "another provider's key");
    assert_kind(subject.generate(&foreign).await, KmsErrorKind::Invalid, "another provider's key");
}

async fn altered_ciphertexts_do_not_unwrap(subject: &Subject) {
    let key = subject.new_key().await;
    let made = subject.generate(&key).await.unwrap();
    let good = made.wrapped.as_bytes();
    let mut altered: Vec<(String, Vec<u8>)> = Vec::new();
    for bit in (0..good.len() * 8).step_by(subject.flip_every) {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        altered.push((format!("bit {bit}"), bytes));
    }
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        altered.push((format!("cut to {length} bytes"), good[..length].to_vec()));
    }
    altered.push(("a byte too many".to_owned(), [good, &[0]].concat()));
    for (how, bytes) in altered {
        let result = subject.kms.decrypt(receipt(), &key, &WrappedDataKey::new(bytes), &context()).await;
        assert_kind(result, KmsErrorKind::Authentication, &how);
    }
}

async fn a_disabled_key_is_not_used(subject: &Subject) {
    let (kms, destroyer, key) = (&subject.kms, &subject.destroyer, subject.new_key().await);
    let made = subject.generate(&key).await.unwrap();
    for _twice in 0..2 {
        destroyer.disable(&key).await.unwrap();
        assert_eq!(kms.describe(&key).await.unwrap(), KeyState::Disabled);
        subject.assert_unusable(&key, &made).await;
    }
    for _twice in 0..2 {
        destroyer.enable(&key).await.unwrap();
        assert_eq!(kms.describe(&key).await.unwrap(), KeyState::Enabled);
        subject.assert_unwraps(&key, &made).await;
    }
}

async fn a_deletion_is_scheduled_and_cancelled(subject: &Subject) {
    let (kms, destroyer, key) = (&subject.kms, &subject.destroyer, subject.new_key().await);
    let made = subject.generate(&key).await.unwrap();
    for days in [0, 6, 31, u32::MAX] {
        assert_kind(
            destroyer.schedule_deletion(&key, days).await,
            KmsErrorKind::Invalid,
            "days out of range",
        );
    }
    // Nothing to take back: nothing changes.
    destroyer.cancel_deletion(&key).await.unwrap();
    subject.assert_unwraps(&key, &made).await;

    let due = destroyer.schedule_deletion(&key, 7).await.unwrap();
    if let Some(clock) = &subject.clock {
        assert_eq!(due, clock.now().saturating_add(DAY * 7));
    }
    assert_eq!(kms.describe(&key).await.unwrap(), KeyState::PendingDeletion(Some(due)));
    subject.assert_unusable(&key, &made).await;
    assert_kind(destroyer.enable(&key).await, KmsErrorKind::KeyUnavailable, "enabling a pending key");
    destroyer.disable(&key).await.unwrap();
    assert_eq!(destroyer.schedule_deletion(&key, 30).await.unwrap(), due, "the first date stands");

    for _twice in 0..2 {
        destroyer.cancel_deletion(&key).await.unwrap();
        assert_eq!(kms.describe(&key).await.unwrap(), KeyState::Disabled);
        subject.assert_unusable(&key, &made).await;
    }
    destroyer.enable(&key).await.unwrap();
    subject.assert_unwraps(&key, &made).await;
    // A disabled key can be scheduled, and comes back disabled.
    destroyer.disable(&key).await.unwrap();
    destroyer.schedule_deletion(&key, 30).await.unwrap();
    destroyer.cancel_deletion(&key).await.unwrap();
    assert_eq!(kms.describe(&key).await.unwrap(), KeyState::Disabled);
}

async fn an_unknown_key_does_not_exist(subject: &Subject) {
    let (kms, destroyer, key) = (&subject.kms, &subject.destroyer, &subject.unknown);
    // Another key must be there, or the whole provider could be missing.
    subject.new_key().await;
    let gone = KmsErrorKind::KeyDestroyed;
    assert_kind(subject.generate(key).await, gone, "generate");
    assert_kind(kms.describe(key).await, gone, "describe");
    assert_kind(destroyer.enable(key).await, gone, "enable");
    assert_kind(destroyer.disable(key).await, gone, "disable");
    assert_kind(destroyer.schedule_deletion(key, 7).await, gone, "schedule");
    assert_kind(destroyer.cancel_deletion(key).await, gone, "cancel");
}

async fn many_callers_share_a_key(subject: &Subject) {
    let key = subject.new_key().await;
    let callers = (0..50).map(|_| async {
        let made = subject.generate(&key).await.unwrap();
        subject.assert_unwraps(&key, &made).await;
        *made.plaintext.secret().expose()
    });
    let keys = futures_util::future::join_all(callers).await;
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), 50);
}

async fn grants_are_found_by_their_session(subject: &Subject) {
    let granter = &subject.granter;
    let (key, other) = (subject.customers_key().await, subject.customers_key().await);
    granter.check_fit(&key).await.unwrap();
    assert_eq!(granter.grants(&key).await.unwrap(), []);
    let first = granter.create_grant(receipt(), &key, &grant(1)).await.unwrap();
    let again = granter.create_grant(receipt(), &key, &grant(1)).await.unwrap();
    assert_eq!(first, again, "one session, one grant");
    granter.create_grant(receipt(), &key, &grant(2)).await.unwrap();
    let sessions = [grant(1).session, grant(2).session];
    assert_eq!(granter.grants(&key).await.unwrap(), sessions);
    assert_eq!(granter.grants(&other).await.unwrap(), []);
    assert_eq!(granter.retire_grants(receipt(), &other, sessions[0]).await.unwrap(), 0);
    assert_eq!(granter.retire_grants(receipt(), &key, sessions[0]).await.unwrap(), 1);
    assert_eq!(granter.retire_grants(receipt(), &key, sessions[0]).await.unwrap(), 0, "none is no error");
    assert_eq!(granter.grants(&key).await.unwrap(), [sessions[1]]);
    let gone = KmsErrorKind::KeyDestroyed;
    assert_kind(granter.create_grant(receipt(), &subject.unknown, &grant(1)).await, gone, "no key");
    let foreign = KmsKeyId::new("elsewhere", key.name()).unwrap();
    let wrong = KmsErrorKind::Invalid;
    assert_kind(granter.create_grant(receipt(), &foreign, &grant(1)).await, wrong, "another provider's key");
}

async fn a_key_in_a_customers_hand_unwraps_under_a_grant_only(subject: &Subject) {
    let granter = &subject.granter;
    let key = subject.customers_key().await;
    // Making takes none.
    let made = subject.generate(&key).await.unwrap();
    let refused = async |what: &str| {
        assert_kind(subject.decrypt(&key, &made).await, KmsErrorKind::KeyUnavailable, what);
    };
    refused("no grant").await;
    let elsewhere = [
        Grant { store: StoreId::from_bytes([9; 16]), ..grant(1) },
        Grant { customer: CustomerId::from_bytes([9; 16]), ..grant(2) },
    ];
    for grant in elsewhere {
        granter.create_grant(receipt(), &key, &grant).await.unwrap();
        refused("a grant that does not cover it").await;
    }
    let other = subject.customers_key().await;
    granter.create_grant(receipt(), &other, &grant(3)).await.unwrap();
    refused("a grant on another key").await;

    granter.create_grant(receipt(), &key, &grant(4)).await.unwrap();
    granter.create_grant(receipt(), &key, &grant(5)).await.unwrap();
    subject.assert_unwraps(&key, &made).await;
    // A grant lets nothing through that the key's state does not.
    subject.destroyer.disable(&key).await.unwrap();
    subject.assert_unusable(&key, &made).await;
    subject.destroyer.enable(&key).await.unwrap();
    granter.retire_grants(receipt(), &key, grant(4).session).await.unwrap();
    subject.assert_unwraps(&key, &made).await;
    granter.retire_grants(receipt(), &key, grant(5).session).await.unwrap();
    refused("every grant that covered it was retired").await;
    // A key that unwraps without is none for a customer's hand.
    let loose = subject.new_key().await;
    let wrong = KmsErrorKind::Invalid;
    assert_kind(granter.check_fit(&loose).await, wrong, "it unwraps without a grant");
    assert_kind(granter.create_grant(receipt(), &loose, &grant(1)).await, wrong, "it needs none");
}

async fn a_key_is_destroyed_when_its_time_has_come(subject: &Subject, clock: &TestClock) {
    let (kms, destroyer) = (&subject.kms, &subject.destroyer);
    let (key, spared) = (subject.new_key().await, subject.new_key().await);
    let (made, other) = (subject.generate(&key).await.unwrap(), subject.generate(&spared).await.unwrap());
    destroyer.schedule_deletion(&key, 7).await.unwrap();
    clock.advance(DAY * 7 - Duration::from_micros(1));
    assert!(matches!(kms.describe(&key).await.unwrap(), KeyState::PendingDeletion(_)));
    destroyer.cancel_deletion(&key).await.unwrap();
    destroyer.schedule_deletion(&key, 7).await.unwrap();
    clock.advance(DAY * 7);
    let gone = KmsErrorKind::KeyDestroyed;
    assert_kind(destroyer.cancel_deletion(&key).await, gone, "too late to cancel");
    assert_kind(subject.decrypt(&key, &made).await, gone, "decrypt");
    assert_kind(subject.generate(&key).await, gone, "generate");
    assert_kind(kms.describe(&key).await, gone, "describe");
    assert_kind(destroyer.schedule_deletion(&key, 7).await, gone, "schedule");
    subject.assert_unwraps(&spared, &other).await;
}

impl Subject {
    async fn new_key(&self) -> KmsKeyId {
        self.kms.create_key(&EncryptionContext::epoch(StoreId::from_bytes([1; 16]), 1)).await.unwrap()
    }

    async fn customers_key(&self) -> KmsKeyId {
        let tags = EncryptionContext::new_customer(grant(1).store, grant(1).customer);
        self.kms.create_key(&tags.in_customers_hand()).await.unwrap()
    }

    async fn generate(&self, key: &KmsKeyId) -> Result<GeneratedDataKey, KmsError> {
        self.kms.generate_data_key(receipt(), key, &context()).await
    }

    async fn decrypt(&self, key: &KmsKeyId, made: &GeneratedDataKey) -> Result<DataKey, KmsError> {
        self.kms.decrypt(receipt(), key, &made.wrapped, &context()).await
    }

    async fn assert_unwraps(&self, key: &KmsKeyId, made: &GeneratedDataKey) {
        let unwrapped = self.decrypt(key, made).await.unwrap();
        assert_eq!(unwrapped.secret().expose(), made.plaintext.secret().expose());
    }

    async fn assert_unusable(&self, key: &KmsKeyId, made: &GeneratedDataKey) {
        assert_kind(self.generate(key).await, KmsErrorKind::KeyUnavailable, "generate");
        assert_kind(self.decrypt(key, made).await, KmsErrorKind::KeyUnavailable, "decrypt");
    }
}

/// A receipt as the audit log would give one.
pub(crate) fn receipt() -> KeyUseReceipt {
    KeyUseReceipt::mint(RequestId::from_bytes([0; 16]))
}

/// The context that the suite wraps under.
pub(crate) fn context() -> EncryptionContext {
    EncryptionContext::customer(
        StoreId::from_bytes([1; 16]),
        CustomerId::from_bytes([2; 16]),
        DataKeyId::from_bytes([3; 16]),
    )
}

/// A grant that covers [`context`].
fn grant(session: u8) -> Grant {
    Grant {
        store: StoreId::from_bytes([1; 16]),
        customer: CustomerId::from_bytes([2; 16]),
        session: SessionId::from_bytes([session; 16]),
    }
}

#[track_caller]
pub(crate) fn assert_kind<T: std::fmt::Debug>(result: Result<T, KmsError>, kind: KmsErrorKind, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), kind, "{what}: {error:?}");
}

#[tokio::test]
async fn local_keys_keep_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let kms = crate::kms::local::InsecureLocalKms::open(
        directory.path().join("keys"),
        Arc::<TestClock>::clone(&clock),
        Arc::new(crate::system::SystemEntropy),
    )
    .unwrap();
    contract(&Subject {
        kms: Arc::new(kms.clone()),
        destroyer: Arc::new(kms.clone()),
        granter: Arc::new(kms),
        enforces_grants: true,
        unknown: "local:00000000000000000000000000".parse().unwrap(),
        flip_every: 1,
        clock: Some(clock),
    })
    .await;
}

#[cfg(feature = "aws")]
#[tokio::test]
async fn aws_kms_keeps_the_contract_if_localstack_is_there() {
    if !localstack_is_there("the KMS contract on AWS KMS") {
        return;
    }
    let kms = crate::kms::aws::AwsKms::from_env();
    let made = kms.create_key(&context()).await.unwrap();
    let (before, _) = made.as_str().rsplit_once('/').unwrap();
    contract(&Subject {
        unknown: format!("{before}/00000000-0000-0000-0000-000000000000").parse().unwrap(),
        kms: Arc::new(kms.clone()),
        destroyer: Arc::new(kms.clone()),
        granter: Arc::new(kms),
        enforces_grants: false,
        flip_every: 53,
        clock: None,
    })
    .await;
}

/// Whether there is a LocalStack. If not, says aloud that a test does not run, or
/// fails where all must: the test runner has no third result, and hides what a
/// passing test prints with macros.
#[cfg(feature = "aws")]
pub(crate) fn localstack_is_there(test: &str) -> bool {
    use std::io::Write;

    if std::env::var_os("STRONGROOM_TEST_LOCALSTACK").is_some() {
        return true;
    }
    let why =
        format!("NOT RUN: {test}: STRONGROOM_TEST_LOCALSTACK is not set; use `localstack/run -- cargo test`");
    let required = std::env::var("STRONGROOM_TEST_REQUIRE_LOCALSTACK").is_ok_and(|value| value == "1");
    assert!(!required, "{why} (STRONGROOM_TEST_REQUIRE_LOCALSTACK=1 asks for it)");
    writeln!(std::io::stderr(), "{why}").unwrap();
    false
}
