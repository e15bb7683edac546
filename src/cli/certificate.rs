//! `certificate list`, `show` and `verify`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use serde_json::{Value, json};

use super::args::{self, ListCertificates, PublicKeyText, ShowCertificate, VerifyCertificate};
use super::backend::Place;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Column, Output, line, seconds, table};
use super::{Answer, Backend, audit, audit_only};
use crate::audit::layout::{CertificateStage, Object};
use crate::audit::log::LogReader;
use crate::audit::papers;
use crate::certificate::{
    Bundle, Certificate, CertificateError, EndOnPaper, Examined, Verified, examine, verify, verify_epoch,
};
use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::id::{CertificateId, CustomerId};
use crate::json;

/// Whether the audit storage is all that a command needs, or not even that.
pub(super) fn needs_no_backend(command: &args::Certificate) -> bool {
    !matches!(command, args::Certificate::List(command) if audit::is_label(command.customer.as_ref()))
}

/// Such a command.
pub(super) async fn run_alone(config: &Config, command: args::Certificate, output: Output) -> Answer {
    match command {
        args::Certificate::List(command) => {
            let reader = audit_only::open(config, command.log.key.as_ref(), output).await?;
            let customer = audit::known(&reader, command.customer.as_ref()).await?;
            list(&reader, customer, output).await
        }
        args::Certificate::Show(command) => {
            let reader = audit_only::open(config, command.log.key.as_ref(), output).await?;
            show(&reader, &command, output).await
        }
        args::Certificate::Verify(command) => verify_file(config, &command, output).await,
    }
}

/// One that needs more, or that a daemon is asked.
pub(super) async fn run(backend: &Backend, command: args::Certificate) -> Answer {
    match (&backend.place, command) {
        (Place::Store(store), args::Certificate::List(ListCertificates { customer: Some(whose), log })) => {
            let reader = audit::reader(store, log.key.as_ref())?;
            let customer = backend.customer_id(&whose).await?;
            list(&reader, Some(customer), backend.output).await
        }
        (Place::Daemon(daemon), args::Certificate::List(command)) => {
            audit::no_key(&command.log)?;
            let customer = match &command.customer {
                Some(whose) => Some(backend.customer_id(whose).await?),
                None => None,
            };
            let mut good = daemon.certificates(customer).await?;
            good.sort_by_key(|certificate| certificate.issued);
            Ok(listed(&good, &[], backend.output))
        }
        (Place::Daemon(daemon), args::Certificate::Show(command)) => {
            given(daemon.certificate_bundle(command.id).await?, &command, backend.output)
        }
        // Done without a backend.
        _ => Ok(String::new()),
    }
}

/// A certificate that a daemon gave, with its papers. It has verified them, and with the log's key
/// we do too.
fn given(text: String, command: &ShowCertificate, output: Output) -> Answer {
    let bundle = Bundle::parse(text.as_bytes())?;
    let (body, page) = match &command.log.key {
        Some(key) => {
            let Verified { body, page, .. } = verify(text.as_bytes(), &key.public(), &[], 0)?;
            audit_only::check_name(key, body.store)?;
            (body, page)
        }
        None => {
            let certificate = Certificate::unverified(bundle.certificate.as_bytes())?;
            (certificate.body().clone(), certificate.to_page_with(&bundle)?)
        }
    };
    if body.certificate != command.id {
        let sentence = "a certificate stands in the place of another";
        return Err(Error::new(ErrorKind::Integrity, sentence).into());
    }
    Ok(if command.bundle {
        text
    } else if command.note {
        bundle.certificate
    } else if output.json {
        line(&json!(body))
    } else {
        page
    })
}

async fn list(reader: &LogReader, customer: Option<CustomerId>, output: Output) -> Answer {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut papers = Papers::new(reader);
    for (id, stage) in papers::certificates(reader).await? {
        match papers.certificate(id, stage).await {
            Ok((verified, _)) if customer.is_none_or(|customer| customer == verified.body.customer) => {
                good.push(json::Certificate::from(&verified.body));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Integrity => bad.push((id, error)),
            Err(error) => return Err(error.into()),
        }
    }
    good.sort_by_key(|certificate| certificate.issued);
    let text = listed(&good, &bad, output);
    if bad.is_empty() {
        return Ok(text);
    }
    output.print(&text)?;
    let message = format!("certificates that do not verify: {}", bad.len());
    Err(Failure::new(Exit::Data, ErrorKind::Integrity.as_str(), message)
        .hint("leave the storage as it is, and tell whoever answers for it"))
}

fn listed(good: &[json::Certificate], bad: &[(CertificateId, Error)], output: Output) -> String {
    if output.json { json_lines(good, bad) } else { rows(good, bad) }
}

fn json_lines(good: &[json::Certificate], bad: &[(CertificateId, Error)]) -> String {
    let good = good.iter().map(|certificate| line(&json!(certificate)));
    let bad = bad.iter().map(|(id, error)| {
        let failure = json!({ "kind": error.kind().as_str(), "message": error.chain() });
        line(&json!({ "certificate": id, "error": failure }))
    });
    good.chain(bad).collect()
}

fn rows(good: &[json::Certificate], bad: &[(CertificateId, Error)]) -> String {
    let good = good.iter().map(|certificate| {
        vec![
            certificate.certificate.to_string(),
            certificate.stage.as_str().to_owned(),
            certificate.customer.to_string(),
            seconds(certificate.issued),
            certificate.keys.to_string(),
            certificate.blobs.to_string(),
        ]
    });
    let bad = bad.iter().map(|(id, _)| {
        let mut row = vec![id.to_string(), "DOES NOT VERIFY".to_owned()];
        row.resize(6, String::new());
        row
    });
    let columns = [
        ("CERTIFICATE", Column::Whole),
        ("STAGE", Column::Whole),
        ("CUSTOMER", Column::Whole),
        ("ISSUED", Column::Whole),
        ("KEYS", Column::Number),
        ("BLOBS", Column::Number),
    ];
    table(&columns, good.chain(bad))
}

async fn show(reader: &LogReader, command: &ShowCertificate, output: Output) -> Answer {
    for stage in [CertificateStage::Final, CertificateStage::Interim] {
        let mut papers = Papers::new(reader);
        match papers.certificate(command.id, stage).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
            Ok((_, note)) if command.note => return Ok(note),
            Ok((verified, note)) if command.bundle => {
                let epochs: Vec<u32> = verified.body.named().map(|name| name.epoch).collect();
                let papers = papers::epoch_ends(reader, epochs.clone()).await?;
                return Ok(Bundle::of(note, &epochs, papers)?.to_text());
            }
            Ok((verified, _)) => return Ok(told(verified, output)),
        }
    }
    Err(Error::new(ErrorKind::NotFound, "there is no such certificate").into())
}

fn told(verified: Verified, output: Output) -> String {
    if output.json { line(&json!(verified.body)) } else { verified.page }
}

/// Certificates of the audit storage, and the papers that they name, each verified once.
struct Papers<'a> {
    reader: &'a LogReader,
    verified: BTreeMap<u32, EndOnPaper>,
}

impl<'a> Papers<'a> {
    fn new(reader: &'a LogReader) -> Self {
        Self { reader, verified: BTreeMap::new() }
    }

    /// A certificate, verified, and its note.
    async fn certificate(
        &mut self,
        id: CertificateId,
        stage: CertificateStage,
    ) -> Result<(Verified, String), Error> {
        let paper = Object::Certificate { id, stage };
        let missing = || Error::new(ErrorKind::NotFound, "there is no such certificate");
        let bytes = papers::read(self.reader, paper).await?.ok_or_else(missing)?;
        let examined = examine(&bytes, self.reader.authority(), &[], 0)?;
        let body = &examined.body;
        if (body.store, body.certificate, body.stage) != (self.reader.store(), id, stage) {
            let sentence = "a certificate stands in the place of another";
            return Err(Error::new(ErrorKind::Integrity, sentence));
        }
        let verified = self.complete(examined).await?;
        // It was verified, so it is text.
        Ok((verified, String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn complete(&mut self, examined: Examined) -> Result<Verified, Error> {
        let names = examined.body.named().map(|name| name.epoch);
        let unread: Vec<u32> = names.filter(|epoch| !self.verified.contains_key(epoch)).collect();
        for (epoch, bytes) in papers::epoch_ends(self.reader, unread).await? {
            let (store, authority) = (self.reader.store(), self.reader.authority());
            self.verified.insert(epoch, verify_epoch(&bytes, store, authority, &[], 0)?.paper);
        }
        examined.complete(&self.verified)
    }
}

async fn verify_file(config: &Config, command: &VerifyCertificate, output: Output) -> Answer {
    let unread = |error| Failure::input("the certificate cannot be read", &error);
    let mut bytes = Vec::new();
    // One more than there can be, so that what is longer is seen.
    let file = File::open(&command.certificate).map_err(unread)?;
    file.take(Bundle::MAX_LEN as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    let key = audit_only::known_key(config, command.key.as_ref()).await?;
    let key = key.ok_or_else(|| Failure::usage("give the public key of the audit log with --key"))?;
    let quorum = command.quorum.unwrap_or(command.witnesses.len());
    let keys = audit_only::chain(key, &command.key_changes)?;
    let verified = verify(&bytes, &keys, &command.witnesses, quorum).map_err(not_good)?;
    if let Some(named @ PublicKeyText::Named(_)) = &command.key {
        audit_only::check_name(named, verified.body.store)?;
    }
    if !output.json {
        return Ok(format!("{}\n{}", verdict(&verified), verified.page));
    }
    let mut cosigned: Vec<(&str, Value)> = Vec::new();
    for (witness, at) in verified.proven.iter().flat_map(|proved| &proved.cosigned) {
        let one = (witness.as_str(), json!(at));
        if !cosigned.contains(&one) {
            cosigned.push(one);
        }
    }
    let cosigned = cosigned.into_iter().map(|(witness, at)| json!({ "witness": witness, "at": at }));
    Ok(line(&json!({
        "ok": true,
        "key": key,
        "records": verified.proven.len(),
        "cosigned": cosigned.collect::<Vec<_>>(),
        "certificate": verified.body,
        "epochs": verified.epochs,
    })))
}

fn verdict(verified: &Verified) -> String {
    let records = verified.proven.len();
    format!("ok: signed by the key of the audit log, and {records} records of the log prove it\n")
}

/// What is wrong with a file that somebody got is not damage to a store.
fn not_good(error: Error) -> Failure {
    let cause =
        std::error::Error::source(&error).and_then(|source| source.downcast_ref::<CertificateError>());
    if let Some(CertificateError::PapersMissing { count, first }) = cause {
        // All else was looked at before.
        let message = format!(
            "the certificate is signed by the key of the audit log and agrees with its own records, but \
             it is incomplete: the papers of the ends of {count} epochs are not in the file, epoch {first} first"
        );
        return Failure::new(Exit::Data, ErrorKind::Integrity.as_str(), message)
            .hint("ask for the bundle, which `strongroom certificate show ID --bundle` makes");
    }
    match error.kind() {
        ErrorKind::Integrity => Failure::new(Exit::Data, ErrorKind::Integrity.as_str(), error.chain())
            .hint("get the file again, and the log's key from whoever answers for the log; keep this one"),
        _ => error.into(),
    }
}
