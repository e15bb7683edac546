//! Destruction to its very end: dropped, the epoch rotated and its KMS key gone, its end on
//! paper, certified as final; and what a backup from before is worth then.

#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use async_trait::async_trait;
use common::Raw;
use destroy::{DAY, Vault, access, day, opens, refused, seal};
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use strongroom::ErrorKind;
use strongroom::audit::KeyUseReceipt;
use strongroom::audit::layout::{CertificateStage, Object};
use strongroom::certificate::{
    self, Assurance, Category, Certificate, EpochEnd, GoneBy, StepAnswer, Verified, verify_epoch,
};
use strongroom::id::{BlobId, CertificateId, KmsKeyId};
use strongroom::kms::local::InsecureLocalKms;
use strongroom::kms::{
    DataKey, EncryptionContext, GeneratedDataKey, KeyState, Kms, KmsAdmin, KmsDestroyer, KmsError,
    KmsRegistry, WrappedDataKey,
};
use strongroom::room::{Customer, KeyChoice, Options, Strongroom};
use strongroom::shred::epoch::{FinishOptions, StepTaken};
use strongroom::time::Timestamp;

const BEGIN: &str = "2026-11-22T02:26:13.000000Z";

/// The local provider in the place of AWS KMS, which vouches for the end of its keys.
/// Under its own name nothing would be signed that says so.
#[derive(Debug)]
struct Vouching(InsecureLocalKms);

fn renamed(key: &KmsKeyId, provider: &str) -> KmsKeyId {
    KmsKeyId::new(provider, key.name()).unwrap()
}

fn local(key: &KmsKeyId) -> KmsKeyId {
    renamed(key, "local")
}

#[async_trait]
impl Kms for Vouching {
    fn provider(&self) -> &'static str {
        "aws-kms"
    }

    async fn generate_data_key(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        context: &EncryptionContext,
    ) -> Result<GeneratedDataKey, KmsError> {
        self.0.generate_data_key(receipt, &local(key), context).await
    }

    async fn decrypt(
        &self,
        receipt: KeyUseReceipt,
        key: &KmsKeyId,
        wrapped: &WrappedDataKey,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.0.decrypt(receipt, &local(key), wrapped, context).await
    }

    async fn describe(&self, key: &KmsKeyId) -> Result<KeyState, KmsError> {
        self.0.describe(&local(key)).await
    }
}

#[async_trait]
impl KmsAdmin for Vouching {
    async fn create_key(&self, tags: &EncryptionContext) -> Result<KmsKeyId, KmsError> {
        Ok(renamed(&self.0.create_key(tags).await?, self.provider()))
    }
}

#[async_trait]
impl KmsDestroyer for Vouching {
    async fn enable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.0.enable(&local(key)).await
    }

    async fn disable(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.0.disable(&local(key)).await
    }

    async fn schedule_deletion(&self, key: &KmsKeyId, days: u32) -> Result<Timestamp, KmsError> {
        self.0.schedule_deletion(&local(key), days).await
    }

    async fn cancel_deletion(&self, key: &KmsKeyId) -> Result<(), KmsError> {
        self.0.cancel_deletion(&local(key)).await
    }
}

/// A blob that is gone for good, and one beside it that is not.
struct Story {
    vault: Vault,
    acme: Customer,
    gone: BlobId,
    kept: BlobId,
    /// All storages, before anything was dropped.
    backup: Raw,
    /// The directory of the local keys then.
    keys: tempfile::TempDir,
    certificate: CertificateId,
}

/// Lets everything happen, a day at a time, until the epoch is gone.
async fn to_the_end(vault: Vault) -> Story {
    let acme = vault.customer("acme", 3).await;
    let (gone, kept) = (seal(&acme, "gone").await, seal(&acme, "kept").await);
    acme.extend(kept, day("2027-06-01")).await.unwrap();
    let backup = vault.raw.fork();
    let keys = tempfile::tempdir().unwrap();
    copy_files(&vault.directory.path().join("kms"), keys.path());

    vault.days(11).await;
    let certificate = refused(&acme, gone).await.certificate().unwrap();
    let finish = async || {
        let options = FinishOptions::default();
        let steps = vault.room.finish_epochs(&access(), &vault.destroyers, options).await.unwrap();
        steps.into_iter().map(|step| step.result.unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(finish().await, [], "the epoch is in use");
    let rotated = vault.room.rotate_epoch(&access(), KeyChoice::New(vault.provider.into())).await.unwrap();
    assert_eq!((rotated.retired, rotated.left_behind), (vec![1], vec![]));
    // Disabled, watched for a day, pending for seven more.
    let mut steps = Vec::new();
    for _ in 0..8 {
        steps.extend(finish().await);
        vault.clock.pass(DAY);
        let swept = vault.sweep().await;
        // Keys of other days go meanwhile.
        let made = &swept[&acme.id()].certificates;
        assert!(made.values().all(|stage| *stage == CertificateStage::Interim), "none is final yet");
    }
    let stood = vault.room.certificate(certificate, CertificateStage::Final).await.unwrap();
    assert!(stood.is_none());
    assert!(matches!(steps[0], StepTaken::Disabled { .. }), "{steps:?}");
    assert!(matches!(steps[1], StepTaken::Scheduled { .. }), "{steps:?}");
    assert!(steps[2..].iter().all(|step| matches!(step, StepTaken::Waits { .. })), "{steps:?}");
    assert_eq!(finish().await, [StepTaken::Gone]);
    let swept = vault.sweep().await.remove(&acme.id()).unwrap();
    assert_eq!(swept.certificates.get(&certificate), Some(&CertificateStage::Final));
    assert!(!vault.sweep().await[&acme.id()].certificates.contains_key(&certificate), "it is made once");
    Story { vault, acme, gone, kept, backup, keys, certificate }
}

impl Story {
    /// The final certificate with the papers that it names.
    async fn bundle(&self) -> String {
        let kept = self.vault.room.certificate(self.certificate, CertificateStage::Final).await;
        let kept = kept.unwrap().unwrap();
        self.vault.room.certificate_bundle(&kept).await.unwrap().to_text()
    }

    /// The certificate as anybody reads it who has the log's public key.
    async fn verified(&self) -> Verified {
        let authority = self.vault.room.log().authority();
        let verified = certificate::verify(self.bundle().await.as_bytes(), &authority, &[], 0).unwrap();
        let body = &verified.body;
        assert_eq!((body.stage, body.scope.blobs.certain), (CertificateStage::Final, 1));
        assert_eq!((body.epochs.len(), body.epochs[0].epoch()), (1, 1));
        let EpochEnd { disabled, scheduled, gone, .. } = verified.epochs[0];
        assert!(disabled.saturating_add(DAY) <= scheduled && scheduled.saturating_add(7 * DAY) <= gone);
        assert!(body.caches.is_some());
        verified
    }

    /// Another node, over these storages and the KMS of today.
    async fn node(&self, raw: &Raw) -> Strongroom {
        self.node_with(raw, self.vault.kms.clone()).await
    }

    async fn node_with(&self, raw: &Raw, kms: KmsRegistry) -> Strongroom {
        let options: Options = common::options(&self.vault.clock);
        Strongroom::open(raw.storages(), kms, options).await.unwrap()
    }
}

fn copy_files(from: &std::path::Path, to: &std::path::Path) {
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // With its permissions, which the provider looks at.
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test]
async fn the_end_of_local_keys_reaches_no_category_and_the_final_certificate_claims_none() {
    let story = to_the_end(Vault::new().await).await;
    let verified = story.verified().await;
    let method = &verified.body.method;
    assert_eq!((method.category, method.assurance), (Category::None, Assurance::FilesRemoved));
    assert_eq!(verified.epochs[0].seen, GoneBy::FileRemoved);
    for word in ["Purge", "Clear", "vouch"] {
        assert!(!verified.page.contains(word), "{}", verified.page);
    }
    assert!(verified.page.contains("none: the keys are removed"), "{}", verified.page);

    let error = refused(&story.acme, story.gone).await;
    assert_eq!((error.kind(), error.certificate()), (ErrorKind::KeyDestroyed, Some(story.certificate)));
    assert_eq!(opens(&story.acme, story.kept).await, b"kept");
    story.vault.room.publish_log().await.unwrap();
    let report = story.vault.room.verify_log().await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test]
async fn keys_whose_end_the_kms_reports_are_purged_as_far_as_it_reports() {
    let vault = Vault::over(BEGIN, |local| Arc::new(Vouching(local))).await;
    let story = to_the_end(vault).await;
    let verified = story.verified().await;
    let method = &verified.body.method;
    assert_eq!((method.category, method.assurance), (Category::Purge, Assurance::ReportedGone));
    assert_eq!(verified.epochs[0].seen, GoneBy::KmsReportsGone);
    assert!(
        verified.page.contains("Purge technique, completed as far as the KMS reports"),
        "{}",
        verified.page
    );

    // What it claims cannot be changed.
    let authority = story.vault.room.log().authority();
    let note = story.bundle().await;
    let forged = note.replacen("\\\"purge\\\"", "\\\"clear\\\"", 1);
    assert_ne!(note, forged);
    let error = certificate::verify(forged.as_bytes(), &authority, &[], 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
}

#[tokio::test]
async fn a_whole_backup_opens_nothing_with_the_kms_of_today() {
    let story = to_the_end(Vault::new().await).await;
    let restored = story.node(&story.backup.fork()).await;
    let error = restored.customer(&"acme".parse().unwrap(), access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{}", error.chain());
    let error = restored.register(&access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{}", error.chain());
}

#[tokio::test]
async fn old_rings_that_come_back_into_the_store_are_refused() {
    let story = to_the_end(Vault::new().await).await;
    // The keys storage as it was, under the log as it is.
    let raw = Raw { keys: story.backup.fork().keys, ..story.vault.raw.fork() };
    let old = story.node(&raw).await;
    let error = old.customer(&"acme".parse().unwrap(), access()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{}", error.chain());

    // The newest ring versions are lost, and those before are there as ever.
    let raw = story.vault.raw.fork();
    let rings = format!("ring/{}/", story.acme.id());
    let backed_up = common::objects(&story.backup.keys).await;
    for (path, _) in common::objects(&raw.keys).await {
        let is_later = path.as_ref().starts_with(&rings) && backed_up.iter().all(|(old, _)| *old != path);
        if is_later {
            raw.keys.delete(&path).await.unwrap();
        }
    }
    let node = story.node(&raw).await;
    let error = match node.customer(&"acme".parse().unwrap(), access()).await {
        Ok(acme) => refused(&acme, story.gone).await,
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
}

/// Why local keys are only cleared, and are for development: whoever kept a copy of their
/// files *and* of the log opens what was destroyed. Under the log of today they do not.
#[tokio::test]
async fn a_copy_of_local_keys_is_what_the_certificate_does_not_vouch_for() {
    let story = to_the_end(Vault::new().await).await;
    let clock = story.vault.clock.clone();
    let entropy = Arc::new(strongroom::system::SystemEntropy);
    let kms = InsecureLocalKms::open(story.keys.path().to_owned(), clock, entropy).unwrap();
    let kms = common::registry(Arc::new(kms));
    let copied = story.node_with(&story.backup.fork(), kms.clone()).await;
    let acme = story.vault.of(&copied, "acme").await;
    assert_eq!(opens(&acme, story.gone).await, b"gone");

    let raw = Raw { keys: story.backup.fork().keys, ..story.vault.raw.fork() };
    let node = story.node_with(&raw, kms).await;
    let error = match node.customer(&"acme".parse().unwrap(), access()).await {
        Ok(acme) => refused(&acme, story.gone).await,
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
}

/// The paths of the papers of epochs' ends.
async fn papers(vault: &Vault) -> Vec<(Path, Vec<u8>)> {
    let all = common::objects(&vault.raw.audit).await;
    all.into_iter().filter(|(path, _)| path.as_ref().starts_with("epoch/")).collect()
}

async fn finish(vault: &Vault, room: &Strongroom) -> Vec<(u32, StepTaken)> {
    let steps = room.finish_epochs(&access(), &vault.destroyers, FinishOptions::default()).await.unwrap();
    steps.into_iter().map(|step| (step.epoch, step.result.unwrap())).collect()
}

async fn rotate(vault: &Vault) {
    let rotated = vault.room.rotate_epoch(&access(), KeyChoice::New(vault.provider.into())).await.unwrap();
    assert!(rotated.left_behind.is_empty(), "{rotated:?}");
}

/// A customer with a blob that lives through epochs 1 to 3, up to where all of them are
/// retired and due.
async fn through_three_epochs() -> (Vault, Customer, BlobId) {
    let vault = Vault::new().await;
    let acme = vault.customer("acme", 14).await;
    let blob = seal(&acme, "gone").await;
    for _ in 0..2 {
        vault.days(7).await;
        rotate(&vault).await;
    }
    // The day and the window are over.
    vault.days(9).await;
    assert_eq!(refused(&acme, blob).await.kind(), ErrorKind::KeyDestroyed);
    rotate(&vault).await;
    // Disabled, watched, scheduled, and due.
    for _ in 0..8 {
        finish(&vault, &vault.room).await;
        vault.days(1).await;
    }
    let ended = finish(&vault, &vault.room).await;
    assert_eq!(ended, [1, 2, 3].map(|epoch| (epoch, StepTaken::Gone)));
    assert!(last(&vault, &acme, blob).await.is_none(), "no sweep came since");
    (vault, acme, blob)
}

async fn last(vault: &Vault, acme: &Customer, blob: BlobId) -> Option<Certificate> {
    let id = refused(acme, blob).await.certificate().unwrap();
    vault.room.certificate(id, CertificateStage::Final).await.unwrap()
}

#[tokio::test]
async fn a_key_of_several_epochs_is_certified_by_a_paper_for_each() {
    let (vault, acme, blob) = through_three_epochs().await;
    let made = papers(&vault).await;
    let paths: Vec<&str> = made.iter().map(|(path, _)| path.as_ref()).collect();
    assert_eq!(paths, ["epoch/00000001/end", "epoch/00000002/end", "epoch/00000003/end"]);
    vault.sweep().await;
    let certificate = last(&vault, &acme, blob).await.unwrap();
    let named: Vec<_> = certificate.body().named().map(|name| (name.epoch, name.digest.to_vec())).collect();
    let digests: Vec<_> = made.iter().map(|(_, bytes)| Sha256::digest(bytes).to_vec()).collect();
    assert_eq!(named, (1..=3).zip(digests).collect::<Vec<_>>());
    let (bundle, authority) =
        (vault.room.certificate_bundle(&certificate).await.unwrap(), vault.room.log().authority());
    let verified = certificate::verify(bundle.to_text().as_bytes(), &authority, &[], 0).unwrap();
    assert_eq!(verified.epochs.len(), 3);
    // Of each epoch two intents and two outcomes.
    assert_eq!(verified.proven.len(), 2 * certificate.body().evidence.len() + 3 * 4);
    for (_, paper) in &made {
        let paper = verify_epoch(paper, vault.room.store_id(), &authority, &[], 0).unwrap();
        let answers = [paper.body.disabled.answer, paper.body.scheduled.answer];
        assert_eq!(answers, [StepAnswer::Ok; 2]);
    }
    vault.room.publish_log().await.unwrap();
    let report = vault.room.verify_log().await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// Whoever stopped between the register and the paper, or between the paper and the
/// certificate: the next who comes goes on, and what stands is used.
#[tokio::test]
async fn a_paper_or_a_certificate_that_is_missing_is_made_by_the_next_who_comes() {
    let (vault, acme, blob) = through_three_epochs().await;
    let remove = async |path: &Path| vault.raw.audit.delete(path).await.unwrap();
    let made = papers(&vault).await;
    assert_eq!(made.len(), 3);
    remove(&made[0].0).await;
    remove(&made[2].0).await;
    // By the next run of `epoch finish`, which has nothing else to do.
    assert_eq!(finish(&vault, &vault.room).await, []);
    let again = papers(&vault).await;
    assert_eq!((again.len(), &again[1]), (3, &made[1]), "and what stood is as it was");
    // By the sweep that makes the certificate.
    remove(&made[1].0).await;
    vault.sweep().await;
    let certificate = last(&vault, &acme, blob).await.unwrap();
    let third = papers(&vault).await;
    assert_eq!((third.len(), &third[0], &third[2]), (3, &again[0], &again[2]));
    vault.room.certificate_bundle(&certificate).await.unwrap();

    // The certificate is made anew from the papers that stand.
    let (id, stage) = (certificate.body().certificate, CertificateStage::Final);
    remove(&Object::Certificate { id, stage }.path()).await;
    vault.sweep().await;
    let anew = last(&vault, &acme, blob).await.unwrap();
    assert_eq!(anew.body().epochs, certificate.body().epochs);
    assert_eq!(papers(&vault).await, third);
}

#[tokio::test]
async fn of_two_who_finish_at_once_one_makes_the_paper_and_both_go_by_it() {
    let (vault, acme, blob) = through_three_epochs().await;
    for (path, _) in papers(&vault).await {
        vault.raw.audit.delete(&path).await.unwrap();
    }
    let (one, other, access) = (vault.node().await, vault.node().await, access());
    let (steps, others, swept) =
        tokio::join!(finish(&vault, &one), finish(&vault, &other), vault.room.sweep(&access));
    assert_eq!((steps, others), (vec![], vec![]));
    for (_, swept) in swept.unwrap().customers {
        swept.unwrap();
    }
    assert_eq!(papers(&vault).await.len(), 3);
    let certificate = last(&vault, &acme, blob).await.unwrap();
    vault.room.certificate_bundle(&certificate).await.unwrap();
    vault.room.publish_log().await.unwrap();
    let report = vault.room.verify_log().await.unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_paper_certifies_nothing() {
    let (vault, acme, blob) = through_three_epochs().await;
    let made = papers(&vault).await;
    let (path, good) = made[1].clone();
    // Another epoch's, as good as can be; one that was cut; and nothing at all.
    for bad in [made[0].1.clone(), good[..good.len() - 1].to_vec(), Vec::new()] {
        common::write(&vault.raw.audit, &path, bad).await;
        let swept = vault.room.sweep(&access()).await.unwrap().customers.remove(&acme.id()).unwrap();
        let error = swept.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
        assert!(error.chain().contains("the end of epoch 2"), "{}", error.chain());
        assert!(last(&vault, &acme, blob).await.is_none());
        vault.room.publish_log().await.unwrap();
        let report = vault.room.verify_log().await.unwrap();
        assert!(report.findings.iter().any(|finding| finding.path == path.as_ref()), "{:?}", report.findings);
    }
    common::write(&vault.raw.audit, &path, good).await;
    vault.sweep().await;
    assert!(last(&vault, &acme, blob).await.is_some());
}
