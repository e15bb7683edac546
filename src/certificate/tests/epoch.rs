//! The papers of epochs' ends, and what anyone could change in them.

use super::*;

const STEPS: [usize; 2] = [0, 1];

/// The operations by which an epoch ended, and the proofs of them.
pub(super) fn evidence(epochs: std::ops::RangeInclusive<u32>, result: OutcomeResult) -> Vec<Evidence> {
    let all = intents(None, epochs);
    let is_end = |intent: &Intent| matches!(intent.action, Action::EpochDisable | Action::EpochDelete);
    let ends: Vec<Intent> = all.into_iter().filter(is_end).collect();
    log(STORE, 9, &ends, result)
}

/// What a good paper says.
pub(super) fn body(epoch: u32) -> EpochPaperBody {
    let step = |at: usize| EndStep { at: minute(STEPS[at]), answer: StepAnswer::Ok };
    EpochPaperBody {
        format: EpochPaperFormat::V1,
        store: STORE,
        epoch,
        kms_key: epoch_key(epoch),
        assurance: Assurance::Attested,
        issued: time("2026-12-09T00:00:00.000000Z"),
        register: RingRef { version: 9, hash: [0xcd; 32] },
        disabled: step(0),
        scheduled: step(1),
        gone: time("2026-12-08T12:00:00.000000Z"),
        seen: GoneBy::KmsReportsGone,
        evidence: evidence(epoch..=epoch, OutcomeResult::Ok),
    }
}

/// The note of whatever it says.
pub(super) fn note(body: &EpochPaperBody, seed: u8) -> String {
    let name = crate::audit::layout::epoch_end_key_name(body.store);
    let text = text::write(body);
    Note::new(text.clone(), vec![NamedKey::new(name, secret(seed)).sign(&text)]).unwrap().to_string()
}

fn verified(note: &str) -> crate::error::Result<VerifiedEpoch> {
    verify_epoch(note.as_bytes(), STORE, &secret(9).public(), &[], 0)
}

/// That a paper with this change is neither signed nor, if it was, verified.
#[track_caller]
fn refused(what: CertificateError, change: impl FnOnce(&mut EpochPaperBody)) {
    let mut body = body(3);
    change(&mut body);
    let error = verified(&note(&body, 9)).unwrap_err();
    assert_eq!(error.to_string(), "the paper of an epoch's end does not verify");
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!(source.downcast_ref::<CertificateError>(), Some(&what), "{}", error.chain());
    assert!(super::super::epoch::check(&body, &secret(9).public(), &[], 0).is_err());
}

#[tokio::test]
async fn a_paper_verifies_and_says_how_the_epoch_ended() {
    let body = body(3);
    let paper = sign_epoch(body.clone(), &signer()).await.unwrap();
    let note = paper.to_note();
    assert!(note.starts_with("{\n  \"format\": \"strongroom/epoch-end/v1\",\n"), "{note}");
    let verified = verified(&note).unwrap();
    assert_eq!((&verified.body, paper.body()), (&body, &body));
    assert_eq!(verified.proven.len(), 4, "both intents and both outcomes");
    let digest: [u8; 32] = Sha256::digest(note.as_bytes()).into();
    assert_eq!(verified.paper.name(), EpochName { epoch: 3, digest });
    let end = verified.paper.end;
    assert_eq!((end.disabled, end.scheduled, end.gone), (minute(0), minute(1), body.gone));

    // One witness has seen that log, and another has not.
    let witnesses = [witness(4).cosigner(), witness(5).cosigner()];
    let seen = |quorum| verify_epoch(note.as_bytes(), STORE, &secret(9).public(), &witnesses, quorum);
    assert!(seen(1).is_ok());
    assert_eq!(seen(2).unwrap_err().kind(), ErrorKind::Integrity);
}

#[test]
fn no_character_of_a_paper_can_be_changed() {
    let note = note(&body(3), 9).into_bytes();
    let verify = |bytes: &[u8]| verify_epoch(bytes, STORE, &secret(9).public(), &[], 0);
    assert!(verify(&note).is_ok());
    for at in 0..note.len() {
        let mut altered = note.clone();
        altered[at] ^= 1;
        assert!(verify(&altered).is_err(), "byte {at}");
    }
    for at in (0..note.len()).step_by(11) {
        assert!(verify(&note[..at]).is_err(), "cut to {at}");
    }
    assert!(verify(&[note.as_slice(), b"\n"].concat()).is_err());
}

#[test]
fn a_paper_of_another_kind_key_or_store_is_none() {
    let body = body(3);
    assert!(verified(&note(&body, 8)).is_err(), "by another key");
    // Signed as a certificate is.
    let text = text::write(&body);
    let sign = |text: &str, name| Note::new(text.to_owned(), vec![NamedKey::new(name, secret(9)).sign(text)]);
    let other = sign(&text, certificate_key_name(STORE)).unwrap().to_string();
    assert!(verified(&other).is_err());
    let name = || crate::audit::layout::epoch_end_key_name(STORE);
    for (text, kind) in [
        (text.replace("epoch-end/v1", "epoch-end/v3"), ErrorKind::UnsupportedFormat),
        (text.replace("epoch-end/v1", "certificate/v1"), ErrorKind::Integrity),
        (text.replacen("  \"store\"", "   \"store\"", 1), ErrorKind::Integrity),
        (text.replacen('{', "{\n  \"more\": 1,", 1), ErrorKind::Integrity),
    ] {
        let note = sign(&text, name()).unwrap().to_string();
        assert_eq!(verified(&note).unwrap_err().kind(), kind, "{text}");
    }
    // Another store's, asked for as this one's.
    let other = EpochPaperBody { store: StoreId::from_bytes([8; 16]), ..body };
    assert!(verified(&note(&other, 9)).is_err());
}

#[test]
fn a_paper_says_what_its_records_say() {
    use CertificateError::{Contradiction, OtherRecord};
    refused(OtherRecord, |body| body.epoch = 4);
    refused(OtherRecord, |body| body.kms_key = epoch_key(4));
    refused(OtherRecord, |body| body.disabled.at = minute(1));
    refused(OtherRecord, |body| body.scheduled.at = minute(2));
    refused(OtherRecord, |body| body.evidence.swap(0, 1));
    refused(OtherRecord, |body| body.evidence[1] = body.evidence[0].clone());
    refused(OtherRecord, |body| body.evidence[0].what = What::EpochDelete);
    refused(OtherRecord, |body| body.evidence[0].outcome = body.evidence[1].outcome.clone());
    refused(OtherRecord, |body| body.disabled.answer = StepAnswer::Unknown);
    refused(CertificateError::Missing("how the disabling or the deletion ended"), |body| {
        body.evidence[0].outcome = None;
    });
    refused(CertificateError::Missing("how the disabling or the deletion ended"), |body| {
        body.evidence[1].outcome = None;
    });
    let number = CertificateError::Missing("the disabling and the deletion of the key, and of nothing else");
    refused(number, |body| drop(body.evidence.pop()));
    refused(number, |body| body.evidence.push(body.evidence[0].clone()));
    for result in [OutcomeResult::Denied, OutcomeResult::KeyUnavailable, OutcomeResult::Conflict] {
        refused(OtherRecord, |body| body.evidence = evidence(3..=3, result));
    }
    refused(CertificateError::OtherLog, |body| {
        let ends: Vec<Intent> = intents(None, 3..=3).split_off(5);
        body.evidence = log(StoreId::from_bytes([8; 16]), 9, &ends, OutcomeResult::Ok);
    });
    // Records of a customer, and not of the store.
    refused(OtherRecord, |body| {
        let mut ends: Vec<Intent> = intents(None, 3..=3).split_off(5);
        ends[0].customer = Some(ACME);
        body.evidence = log(STORE, 9, &ends, OutcomeResult::Ok);
    });

    refused(Contradiction("assurance"), |body| body.assurance = Assurance::BestEffort);
    // Each format has its own word for it.
    refused(Contradiction("assurance"), |body| body.assurance = Assurance::ReportedGone);
    refused(Contradiction("assurance"), |body| body.format = EpochPaperFormat::V2);
    let newest = |body: &mut EpochPaperBody| {
        (body.format, body.assurance) = (EpochPaperFormat::V2, Assurance::ReportedGone);
    };
    let mut good = body(3);
    newest(&mut good);
    assert!(verified(&note(&good, 9)).is_ok());
    refused(Contradiction("assurance"), |body| body.kms_key = "local:3".parse().unwrap());
    refused(Contradiction("assurance"), |body| body.kms_key = "other:3".parse().unwrap());
    let way = Contradiction("way in which the key was seen gone");
    refused(way, |body| body.seen = GoneBy::FileRemoved);
    let times = Contradiction("list of times");
    refused(times, |body| body.gone = minute(0));
    refused(times, |body| body.issued = minute(5));
}

#[test]
fn an_answer_that_was_lost_is_made_up_for_by_time() {
    for result in [OutcomeResult::Unknown, OutcomeResult::Unavailable, OutcomeResult::Aborted] {
        let mut body = body(3);
        body.evidence = evidence(3..=3, result);
        (body.disabled.answer, body.scheduled.answer) = (StepAnswer::Unknown, StepAnswer::Unknown);
        body.gone = minute(1).saturating_add(LONGEST_WAIT);
        assert!(verified(&note(&body, 9)).is_ok(), "{result:?}");
        // Sooner it may have been refused, and be gone for another reason.
        body.gone = time("2026-12-08T03:00:59.999999Z");
        assert!(verified(&note(&body, 9)).is_err(), "{result:?}");
    }
}
