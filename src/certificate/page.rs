//! A certificate for people: one page of plain text.
//!
//! It says what the note says and nothing else, in the order in which a reader asks:
//! what, when, by whose order, under which policy, how verified, what is not covered,
//! and how to check it.

use data_encoding::HEXLOWER;

use super::body::{
    Assurance, Authority, Category, CertificateBody, CertificateStage, CertifiedEpoch, ClockSource, EpochEnd,
    GoneBy, KeyKind, SurvivorClass,
};
use super::evidence::{Evidence, What};
use crate::kms::DestructionAssurance;
use crate::time::Timestamp;

/// No line has more characters.
const WIDTH: usize = 100;

/// Where values begin.
const INDENT: usize = 18;

/// How many epochs are shown one by one; of more, the first and the last event.
const EPOCHS: usize = 8;

/// The page of a certificate. `ends` are the epochs' ends as they were verified, none where
/// they were not.
pub(super) fn page(body: &CertificateBody, ends: &[EpochEnd]) -> String {
    let mut page = Page(String::new());
    page.head(body);
    page.what(body);
    page.when(body, ends);
    page.who(body);
    page.policy(body);
    page.verified(body);
    page.list("WHAT IT DOES NOT COVER", body.limits.iter().map(|limit| limit.sentence()));
    page.missing(body);
    page.section("HOW TO CHECK IT");
    page.paragraph(
        "This page proves nothing. The signed note does, with the papers that it names: `strongroom \
         certificate show ID --bundle` prints both as one file, and `strongroom certificate verify FILE --key KEY` checks it on any machine, without the store, \
         its keys or a connection. KEY is the public key of the store's audit log, which has to come from \
         elsewhere than the file.",
    );
    page.0
}

struct Page(String);

/// What came of it, in a final certificate.
fn outcome(assurance: Assurance) -> &'static str {
    match assurance.proves() {
        DestructionAssurance::ReportedGone => {
            "The keys below were dropped, and the KMS reports the keys over them gone. By that, no stored \
             copy of the blobs that were under them alone can be read."
        }
        DestructionAssurance::FilesRemoved => {
            "The keys below were dropped, and the files of the keys over them are removed. Whoever has a \
             copy of such a file can read what it was over."
        }
        DestructionAssurance::NotProvable => {
            "The keys below were dropped. That the keys over them are gone cannot be shown: the provider of \
             one is unknown to this program."
        }
    }
}

impl Page {
    fn head(&mut self, body: &CertificateBody) {
        let (title, meaning) = match body.stage {
            CertificateStage::Interim => (
                "INTERIM CERTIFICATE OF DESTRUCTION",
                "The keys below are out of use. The destruction is not final: a final certificate of the \
                 same id follows.",
            ),
            CertificateStage::Final => ("CERTIFICATE OF DESTRUCTION", outcome(body.method.assurance)),
        };
        self.0.push_str(title);
        self.0.push_str("\n\n");
        self.paragraph(meaning);
        self.0.push('\n');
        self.row("certificate", &body.certificate.to_string());
        self.row("issued", &body.issued.to_string());
        self.row("store", &body.store.to_string());
        self.row("customer", &body.customer.to_string());
        self.row("technique", "cryptographic erase (NIST SP 800-88r2 s3.2)");
        let category = match body.method.category {
            Category::Pending => "none yet: the destruction is not final",
            Category::None => "none: the keys are removed, and their medium is not sanitized",
            Category::Clear => "none: the note says Clear, which removing key files does not reach",
            Category::Purge => "Purge technique, completed as far as the KMS reports; validation is open",
            Category::NotProvable => "none that can be shown",
        };
        self.row("category", category);
        let assurance = match body.method.assurance.proves() {
            DestructionAssurance::ReportedGone => match body.stage {
                CertificateStage::Interim => {
                    "the KMS will report the end of its keys, and nothing beyond that"
                }
                CertificateStage::Final => "the KMS reports its keys gone, and nothing beyond that",
            },
            DestructionAssurance::FilesRemoved => "key files are removed, which sanitizes no medium",
            DestructionAssurance::NotProvable => "not provable: the provider of a KMS key is unknown",
        };
        self.row("end of the keys", assurance);
        self.row("tool", &format!("Strongroom {}", body.method.tool_version));
    }

    fn what(&mut self, body: &CertificateBody) {
        self.section("WHAT WAS DESTROYED");
        let blobs = &body.scope.blobs;
        let bytes = blobs.plaintext_bytes.map(|bytes| format!(", {bytes} bytes in the clear"));
        self.row("blobs", &format!("{}{}", blobs.certain, bytes.unwrap_or_default()));
        if blobs.uncertain > 0 {
            self.row("uncertain", &format!("{} whose sealing has no good end on record", blobs.uncertain));
        }
        self.row("ids, SHA-256", &HEXLOWER.encode(&blobs.digest));
        for survivors in &body.scope.survivors {
            let why = match survivors.class {
                SurvivorClass::Held => "under a legal hold",
                SurvivorClass::Extended => "kept until a later day",
                SurvivorClass::Rewrapped => "under another key of their day",
            };
            self.row("not destroyed", &format!("{} {why}", survivors.blobs));
        }
        for key in &body.scope.keys {
            let kind = match (key.kind, key.day) {
                (KeyKind::Day, Some(day)) => format!("day key of {day}"),
                (KeyKind::Day, None) => "day key".to_owned(),
                (KeyKind::Hold, _) => "hold key".to_owned(),
                (KeyKind::Name, _) => "name key".to_owned(),
            };
            self.row("key", &format!("{}, {kind}", key.id));
            let epochs = match key.born == key.last {
                true => format!("epoch {}", key.born),
                false => format!("epochs {} to {}", key.born, key.last),
            };
            self.row("", &format!("check value {}, made {}, {epochs}", key.check_value, key.minted));
        }
        if let Some(deleted) = body.ciphertext {
            let versions = deleted.versions.map(|versions| format!(", {versions} versions"));
            let text = format!("{} objects deleted{}", deleted.objects, versions.unwrap_or_default());
            self.row("ciphertext", &text);
        }
    }

    fn when(&mut self, body: &CertificateBody, ends: &[EpochEnd]) {
        self.section("WHEN");
        self.row("dropped", &format!("{}, or later; the clocks said", body.time.at));
        for reading in &body.time.readings {
            let source = match reading.source {
                ClockSource::Host => "the machine",
                ClockSource::Store => "the object store",
                ClockSource::Kms => "the KMS",
                ClockSource::Log => "the audit log",
            };
            self.row("", &format!("{} by {source}", reading.at));
        }
        let in_full: Vec<EpochEnd> =
            body.epochs.iter().filter_map(CertifiedEpoch::in_full).cloned().collect();
        self.epochs(if ends.is_empty() { &in_full } else { ends });
        if ends.is_empty() {
            self.unseen(body);
        }
        if let Some(caches) = body.caches {
            let text = format!("empty since {} (kept for {} s at most)", caches.over, caches.ttl_seconds);
            self.row("caches", &text);
        }
    }

    fn epochs(&mut self, ends: &[EpochEnd]) {
        if ends.len() > EPOCHS {
            return self.many(ends);
        }
        for EpochEnd { epoch, kms_key, disabled, scheduled, gone, seen } in ends {
            self.row(&format!("epoch {epoch}"), kms_key.as_str());
            self.row("", &format!("{disabled} disabled"));
            self.row("", &format!("{scheduled} its deletion scheduled"));
            let seen = match seen {
                GoneBy::KmsReportsGone => "seen gone: the KMS reports that it has it no longer",
                GoneBy::FileRemoved => "seen gone: its file is removed",
            };
            self.row("", &format!("{gone} {seen}"));
        }
    }

    fn many(&mut self, ends: &[EpochEnd]) {
        let (first, last) = (ends.first().map(|end| end.epoch), ends.last().map(|end| end.epoch));
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        self.row("epochs", &format!("{}, from {first} to {last}", ends.len()));
        let at = |time: Option<Timestamp>| time.map(|at| at.to_string()).unwrap_or_default();
        let disabled = at(ends.iter().map(|end| end.disabled).min());
        self.row("", &format!("{disabled} the first of the keys disabled"));
        let scheduled = at(ends.iter().map(|end| end.scheduled).max());
        self.row("", &format!("{scheduled} the deletion of the last one scheduled"));
        let gone = at(ends.iter().map(|end| end.gone).max());
        self.row("", &format!("{gone} the last one seen gone, as all before"));
    }

    /// The epochs of which only the papers' names are known.
    fn unseen(&mut self, body: &CertificateBody) {
        let named: Vec<_> = body.epochs.iter().filter_map(CertifiedEpoch::named).collect();
        for name in named.iter().take(EPOCHS) {
            self.row(
                &format!("epoch {}", name.epoch),
                "ended as a paper says that was not looked at, SHA-256",
            );
            self.row("", &HEXLOWER.encode(&name.digest));
        }
        if named.len() > EPOCHS {
            self.row("", &format!("and {} more", named.len() - EPOCHS));
        }
    }

    fn who(&mut self, body: &CertificateBody) {
        self.section("BY WHOSE ORDER");
        match &body.authority {
            Authority::Routine => {
                self.row("order", "none: the retention period was over, which the policy approves");
            }
            Authority::Order(order) => {
                self.row("order", &order.id.to_string());
                for (role, signer) in [("requested by", &order.requester), ("approved by", &order.approver)] {
                    self.row(role, &signer.principal.to_string());
                    self.row("", &format!("key {}", signer.key));
                }
                let register = format!("both keys are in version {} of the register", order.register.version);
                self.row("", &register);
            }
        }
        self.row("run by", &body.run_by.to_string());
    }

    fn policy(&mut self, body: &CertificateBody) {
        self.section("UNDER WHICH POLICY");
        let policy = &body.policy;
        self.row("policy", &format!("version {} of the customer's", policy.version));
        self.row("kept for", &policy.retention.to_string());
        self.row("window", &format!("{} days before a destruction", policy.window_days));
    }

    fn verified(&mut self, body: &CertificateBody) {
        let sentences = body.verification.iter().map(|verification| verification.sentence());
        self.list("HOW IT WAS VERIFIED", sentences);
        self.0.push('\n');
        self.row("ring version", &format!("{}, after {}", body.ring.version, body.ring.previous));
        self.row("its SHA-256", &HEXLOWER.encode(&body.ring.hash));
        for what in What::ALL {
            let of = |evidence: &&Evidence| evidence.what == what;
            let count = body.evidence.iter().filter(of).count();
            if count > 0 {
                self.row("in the log", &format!("{count} x: {}", what.phrase()));
            }
        }
        let named = body.named().count();
        if named > 0 {
            let text =
                format!("{named} x: an epoch's key was disabled, scheduled for deletion and seen gone");
            self.row("on paper", &text);
        }
    }

    /// What SP 800-88r2 lists and the certificate lacks, with room for people to write it in.
    fn missing(&mut self, body: &CertificateBody) {
        if body.missing.is_empty() {
            self.section("WHAT IS MISSING IN IT");
            self.paragraph("This certificate is of an older format, which does not say.");
        } else {
            let sentences = body.missing.iter().map(|missing| missing.sentence());
            self.list("WHAT NIST SP 800-88R2 S4.6 LISTS AND IS MISSING IN IT", sentences);
        }
        self.section("VALIDATION (NIST SP 800-88R2 S4.5.2)");
        self.paragraph("Not done by this program. Who accepts the result writes it here:");
        for blank in ["accepted by", "title", "organisation", "location", "contact", "date, signature"] {
            self.row(blank, &"_".repeat(40));
        }
    }

    fn section(&mut self, title: &str) {
        self.0.push_str(&format!("\n{title}\n"));
    }

    fn list<'a>(&mut self, title: &str, sentences: impl IntoIterator<Item = &'a str>) {
        self.section(title);
        sentences.into_iter().for_each(|sentence| self.wrapped("-", 2, sentence));
    }

    fn paragraph(&mut self, text: &str) {
        self.wrapped("", 0, text);
    }

    fn row(&mut self, name: &str, value: &str) {
        self.wrapped(name, INDENT, value);
    }

    /// Words in lines of the page's width. A word that is longer is broken.
    fn wrapped(&mut self, name: &str, indent: usize, text: &str) {
        let room = WIDTH - indent;
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let letters: Vec<char> = word.chars().collect();
            for piece in letters.chunks(room) {
                let line = lines.last_mut().expect("it begins with one");
                let taken = line.chars().count();
                let piece: String = piece.iter().collect();
                if taken == 0 {
                    line.push_str(&piece);
                } else if taken + 1 + piece.chars().count() <= room {
                    line.push(' ');
                    line.push_str(&piece);
                } else {
                    lines.push(piece);
                }
            }
        }
        for (number, line) in lines.iter().enumerate() {
            let name = if number == 0 { name } else { "" };
            let whole = format!("{name:indent$}{line}");
            self.0.push_str(whole.trim_end());
            self.0.push('\n');
        }
    }
}
