//! Certificates that name papers, with these and without.

use super::*;

/// No epoch.
#[expect(clippy::reversed_empty_ranges, reason = "it is meant to be empty")]
const NONE: std::ops::RangeInclusive<u32> = 1..=0;

/// A good certificate of the second format, and the papers that it names: of epochs 3 to 5.
fn named() -> (CertificateBody, BTreeMap<u32, String>) {
    let papers: BTreeMap<u32, String> =
        (3..=5).map(|epoch| (epoch, epoch::note(&epoch::body(epoch), 9))).collect();
    (naming(&papers, body(CertificateStage::Final)), papers)
}

/// A certificate in which the epochs are named and not told.
fn naming(papers: &BTreeMap<u32, String>, mut body: CertificateBody) -> CertificateBody {
    let name = |(epoch, paper): (&u32, &String)| {
        let digest = Sha256::digest(paper.as_bytes()).into();
        CertifiedEpoch::Named(EpochName { epoch: *epoch, digest })
    };
    body.format = Format::V2;
    body.issued = time("2026-12-31T00:00:00.000000Z");
    body.epochs = papers.iter().map(name).collect();
    body.evidence = log(STORE, 9, &intents(None, NONE), OutcomeResult::Ok);
    body
}

fn ends(papers: &BTreeMap<u32, String>) -> BTreeMap<u32, EndOnPaper> {
    let verified = papers
        .values()
        .map(|paper| verify_epoch(paper.as_bytes(), STORE, &secret(9).public(), &[], 0).unwrap().paper);
    verified.map(|paper| (paper.end.epoch, paper)).collect()
}

/// The bundle of whatever the certificate says.
fn bundle(body: &CertificateBody, papers: &BTreeMap<u32, String>) -> String {
    let text = body.to_text();
    let line = NamedKey::new(certificate_key_name(body.store), secret(9)).sign(&text);
    let certificate = Note::new(text, vec![line]).unwrap().to_string();
    Bundle { certificate, papers: papers.clone() }.to_text()
}

fn read(text: &str) -> Result<Verified> {
    verify(text.as_bytes(), &secret(9).public(), &[], 0)
}

#[track_caller]
fn refused(text: &str, what: CertificateError) {
    let error = read(text).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity);
    let source = std::error::Error::source(&error).unwrap().downcast_ref().copied();
    assert_eq!(source, Some(what), "{}", error.chain());
}

#[tokio::test]
async fn a_bundle_verifies_and_a_certificate_without_its_papers_says_what_is_missing() {
    let (body, papers) = named();
    let certificate = sign(body.clone(), &ends(&papers), &signer()).await.unwrap();
    let note = certificate.to_note();
    let text = Bundle::of(note.clone(), &[3, 4, 5], papers.clone()).unwrap().to_text();
    let verified = read(&text).unwrap();
    assert_eq!(verified.body, body);
    assert_eq!(verified.epochs.iter().map(|end| end.epoch).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(verified.proven.len(), 2 * body.evidence.len() + 3 * 4);
    assert!(
        verified.page.contains("seen gone: the KMS reports that it has it no longer"),
        "{}",
        verified.page
    );
    // A witness has to have seen the records of the papers too.
    let witnesses = [witness(4).cosigner(), witness(5).cosigner()];
    let seen = |quorum| verify(text.as_bytes(), &secret(9).public(), &witnesses, quorum);
    assert!(seen(1).unwrap().proven.iter().all(|proved| proved.cosigned.len() == 1));
    assert!(seen(2).is_err());

    refused(&note, CertificateError::PapersMissing { count: 3, first: 3 });
    let alone = examine(note.as_bytes(), &secret(9).public(), &[], 0).unwrap();
    assert_eq!(alone.body.named().map(|name| name.epoch).collect::<Vec<_>>(), [3, 4, 5]);
    let page = certificate.to_page();
    assert!(page.contains("a paper says that was not looked at"), "{page}");
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    // Papers that were verified before are as good.
    assert_eq!(alone.complete(&ends(&papers)).unwrap().page, verified.page);

    for wrong in [BTreeMap::new(), ends(&BTreeMap::from([(3, papers[&3].clone())]))] {
        assert!(sign(body.clone(), &wrong, &signer()).await.is_err(), "it would not verify");
    }
}

#[test]
fn a_paper_that_is_left_out_added_or_another_is_seen() {
    let (body, papers) = named();
    assert!(read(&bundle(&body, &papers)).is_ok());
    let with = |change: &dyn Fn(&mut BTreeMap<u32, String>)| {
        let mut papers = papers.clone();
        change(&mut papers);
        bundle(&body, &papers)
    };
    let missing = CertificateError::PapersMissing { count: 1, first: 4 };
    refused(&with(&|papers| drop(papers.remove(&4))), missing);
    let sixth = epoch::note(&epoch::body(6), 9);
    refused(&with(&|papers| drop(papers.insert(6, sixth.clone()))), CertificateError::SurplusPaper(6));
    // One epoch's in the place of another's.
    let fifth = papers[&5].clone();
    refused(&with(&|papers| drop(papers.insert(4, fifth.clone()))), CertificateError::OtherPaper(4));
    // As good in itself, and not the one that is named.
    let later = EpochPaperBody { issued: time("2026-12-10T00:00:00.000000Z"), ..epoch::body(4) };
    let later = epoch::note(&later, 9);
    refused(&with(&|papers| drop(papers.insert(4, later.clone()))), CertificateError::OtherPaper(4));
    let by_another = epoch::note(&epoch::body(4), 8);
    assert!(read(&with(&|papers| drop(papers.insert(4, by_another.clone())))).is_err());
}

#[test]
fn what_a_certificate_claims_is_held_against_the_papers() {
    use CertificateError::Contradiction;
    let (good, papers) = named();
    let with = |change: &dyn Fn(&mut CertificateBody)| {
        let mut body = good.clone();
        change(&mut body);
        bundle(&body, &papers)
    };
    let epochs = Contradiction("list of epochs");
    refused(&with(&|body| drop(body.epochs.pop())), epochs);
    refused(&with(&|body| drop(body.epochs.remove(1))), epochs);
    refused(&with(&|body| body.epochs.swap(0, 1)), epochs);
    refused(&with(&|body| body.scope.keys[1].last = 6), epochs);
    refused(&with(&|body| body.scope.keys[0].born = 4), epochs);
    // The forms of two formats in one.
    refused(&with(&|body| body.format = Format::V1), epochs);
    let in_full = body(CertificateStage::Final).epochs;
    refused(&with(&|body| body.epochs[0] = in_full[0].clone()), epochs);
    refused(
        &with(&|body| body.epochs[0] = CertifiedEpoch::Named(EpochName { epoch: 3, digest: [1; 32] })),
        CertificateError::OtherPaper(3),
    );
    let end = Contradiction("end of an epoch");
    refused(&with(&|body| body.issued = time("2026-12-01T00:00:00.000000Z")), end);
    // Records of epochs belong into the papers.
    let ends = epoch::evidence(3..=3, OutcomeResult::Ok);
    refused(&with(&|body| body.evidence.extend(ends.clone())), CertificateError::OtherRecord);
}

#[test]
fn an_unknown_provider_is_never_purged() {
    let mut paper = epoch::body(3);
    let mut ends_of = intents(None, 3..=3).split_off(5);
    let key: KmsKeyId = "other:3".parse().unwrap();
    for intent in &mut ends_of {
        intent.key = Some(KeyRef::Epoch { kms_key: key.clone(), epoch: 3 });
    }
    (paper.kms_key, paper.assurance) = (key, Assurance::NotProvable);
    paper.evidence = log(STORE, 9, &ends_of, OutcomeResult::Ok);
    let (mut good, mut papers) = named();
    papers.insert(3, epoch::note(&paper, 9));
    good = naming(&papers, good);
    let claims = |assurance| {
        let mut body = good.clone();
        body.method = Method::new(CertificateStage::Final, assurance);
        body.limits = Limit::of(CertificateStage::Final, assurance, &body.scope.survivors);
        bundle(&body, &papers)
    };
    for more in [Assurance::Attested, Assurance::BestEffort] {
        refused(&claims(more), CertificateError::Contradiction("end of an epoch"));
    }
    let verified = read(&claims(Assurance::NotProvable)).unwrap();
    assert_eq!(verified.body.method.category, Category::NotProvable);
    assert!(verified.page.contains("none that can be shown"), "{}", verified.page);
    assert!(!verified.page.contains("Purge"), "{}", verified.page);
}

/// A key that is kept for ten years lives through 520 weekly epochs; one of 600 fits too.
#[tokio::test]
async fn a_key_of_many_epochs_is_certified_in_one_note() {
    const EPOCHS: u32 = 600;
    let mut good = body(CertificateStage::Final);
    good.scope.keys = (1..=2).map(|byte| key(byte, 1, EPOCHS)).collect();
    let papers: BTreeMap<u32, String> =
        (1..=EPOCHS).map(|epoch| (epoch, epoch::note(&epoch::body(epoch), 9))).collect();
    let good = naming(&papers, good);
    let certificate = sign(good.clone(), &ends(&papers), &signer()).await.unwrap();
    let note = certificate.to_note();
    assert!(note.len() < crate::tlog::note::MAX_LEN / 4, "{} bytes", note.len());
    let text = Bundle::of(note, &(1..=EPOCHS).collect::<Vec<_>>(), papers.clone()).unwrap().to_text();
    assert!(text.len() < Bundle::MAX_LEN / 4, "{} bytes", text.len());
    let verified = read(&text).unwrap();
    assert_eq!(verified.epochs.len(), 600);
    assert!(verified.page.contains("600, from 1 to 600"), "{}", verified.page);
    assert!(verified.page.lines().count() < 100);
    refused(&bundle(&good, &BTreeMap::new()), CertificateError::PapersMissing { count: 600, first: 1 });
}

/// What is done for a certificate is done once for each epoch and each key.
#[test]
fn many_keys_of_many_epochs_are_checked_in_one_pass() {
    let mut body = body(CertificateStage::Final);
    let name = |epoch| CertifiedEpoch::Named(EpochName { epoch, digest: [0; 32] });
    body.format = Format::V2;
    body.epochs = (1..=100_000).map(name).collect();
    body.scope.keys = (0..20_000u32)
        .map(|number| DroppedKey {
            id: KekId::from_bytes(
                [number.to_be_bytes(), [0; 4], [0; 4], [0; 4]].concat().try_into().unwrap(),
            ),
            ..key(1, 1 + number, 80_001 + number)
        })
        .collect();
    // It agrees with itself; the drop of these keys is in no record.
    let error = check::check(&body, &secret(9).public(), &[], 0).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref().copied();
    assert_eq!(source, Some(CertificateError::OtherRecord));
    body.epochs.remove(50_000);
    let error = check::check(&body, &secret(9).public(), &[], 0).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().downcast_ref().copied();
    assert_eq!(source, Some(CertificateError::Contradiction("list of epochs")));
}

#[test]
fn a_bundle_has_one_form() {
    let (body, papers) = named();
    let text = bundle(&body, &papers);
    assert_eq!(Bundle::parse(text.as_bytes()).unwrap().to_text(), text);
    let lines: Vec<&str> = text.lines().collect();
    let twice = format!("{text}{}\n", lines[3]);
    let turned = format!("{}\n{}\n{}\n{}\n", lines[0], lines[2], lines[1], lines[3]);
    for (altered, kind) in [
        (text.replace("bundle/v1", "bundle/v2"), ErrorKind::UnsupportedFormat),
        (text.trim_end().to_owned(), ErrorKind::Integrity),
        (format!("{text}\n"), ErrorKind::Integrity),
        (text.replace("\"epoch\":4", "\"epoch\": 4"), ErrorKind::Integrity),
        (text.replacen("{\"epoch\":4", "{\"more\":1,\"epoch\":4", 1), ErrorKind::Integrity),
        (twice, ErrorKind::Integrity),
        (turned, ErrorKind::Integrity),
        (lines[1..].join("\n"), ErrorKind::Integrity),
        (String::new(), ErrorKind::Integrity),
    ] {
        assert_ne!(altered, text);
        assert_eq!(Bundle::parse(altered.as_bytes()).unwrap_err().kind(), kind);
        assert!(read(&altered).is_err());
    }
    assert!(Bundle::of("a".to_owned(), &[3, 7], papers.clone()).is_err(), "one is missing");
    assert!(Bundle::of("a".to_owned(), &[3], [(3, [0xff])]).is_err(), "one is no text");
}

/// Certificates that were made while the first format was the only one.
#[test]
fn certificates_of_the_first_format_verify_as_they_were_made() {
    let key = secret(9).public();
    let notes = [
        include_str!("../../../tests/certificate/v1/interim.note"),
        include_str!("../../../tests/certificate/v1/final.note"),
    ];
    for (note, stage) in notes.into_iter().zip(CertificateStage::ALL) {
        let verified = verify(note.as_bytes(), &key, &[], 0).unwrap();
        assert_eq!((verified.body.format, verified.body.stage), (Format::V1, stage));
        assert_eq!(Certificate::parse(note.as_bytes(), &key).unwrap().to_note(), note);
        let ends = if stage == CertificateStage::Final { 2 } else { 0 };
        assert_eq!(verified.epochs.len(), ends);
    }
}
