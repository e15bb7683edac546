//! What has to hold of a store whatever happened to it: of its rings, its certificates
//! and its log. Use it beside `attacker`, `common` and `destroy`.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::collections::BTreeMap;

use strongroom::ErrorKind;
use strongroom::audit::layout::CertificateStage;
use strongroom::audit::verify::Severity;
use strongroom::certificate::{self, CertificateBody};
use strongroom::id::{BlobId, CertificateId};
use strongroom::ring::{Ring, certificate_id};
use strongroom::room::{Customer, Strongroom};

use crate::attacker::Attacker;
use crate::common::{Raw, objects};
use crate::destroy::Vault;

/// Every version of every ring, oldest first, having checked that each follows from the
/// one before, and that no key is gone that a hold was on.
pub async fn rings(vault: &Vault, raw: &Raw) -> Vec<Ring> {
    let rings: Vec<Ring> = Attacker::at(raw, &vault.local).await.rings().await.into_values().collect();
    assert!(!rings.is_empty());
    for pair in rings.windows(2) {
        let [before, after] = pair else { unreachable!() };
        if before.customer != after.customer {
            continue;
        }
        assert_eq!(after.version, before.version + 1);
        before.check_successor(after).unwrap();
        for entry in before.entries.iter().filter(|entry| before.is_held(entry)) {
            assert!(after.entry(entry.id).is_some(), "version {} drops a held key", after.version);
        }
    }
    rings
}

/// The newest version of a customer's ring, by the KMS and not by the store.
pub async fn newest_ring(vault: &Vault, raw: &Raw, customer: &Customer) -> Ring {
    let rings = rings(vault, raw).await;
    rings.into_iter().rfind(|ring| ring.customer == customer.id()).unwrap()
}

/// The certificate of each drop, all verified: there is one for each, and none besides.
pub async fn certificates(
    vault: &Vault,
    raw: &Raw,
    room: &Strongroom,
) -> BTreeMap<CertificateId, CertificateBody> {
    let mut newest = BTreeMap::new();
    for ring in rings(vault, raw).await {
        newest.insert(ring.customer, ring);
    }
    let mut found = BTreeMap::new();
    for ring in newest.values() {
        for gone in &ring.dropped {
            let id = certificate_id(ring.store, ring.customer, gone.version);
            let kept = room.certificate(id, CertificateStage::Interim).await.unwrap();
            let note = kept.expect("a certificate for each drop").to_note();
            let body = certificate::verify(note.as_bytes(), &room.log().authority(), &[], 0).unwrap().body;
            assert!(body.scope.keys.iter().any(|key| key.id == gone.id));
            found.insert(id, body);
        }
    }
    let papers = objects(&raw.audit).await;
    let interim = |path: &str| path.starts_with("certificate") && path.contains("interim");
    let count = papers.iter().filter(|(path, _)| interim(path.as_ref())).count();
    assert_eq!(count, found.len(), "as many certificates as drops");
    found
}

/// The log verifies.
pub async fn verify(room: &Strongroom) {
    let report = room.verify_log().await.unwrap();
    let wrong: Vec<_> =
        report.findings.iter().filter(|finding| finding.severity == Severity::Wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Whether a blob opens, with the text that it has; if not, its keys are destroyed.
pub async fn alive(customer: &Customer, blob: BlobId, text: &str) -> bool {
    match customer.open(blob).await {
        Ok(opened) => {
            assert_eq!(opened.bytes(99).await.unwrap(), text.as_bytes());
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::KeyDestroyed, "{text}: {}", error.chain());
            false
        }
    }
}
