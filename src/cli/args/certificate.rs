//! What can be typed behind `certificate`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{OfLog, PublicKeyText};
use crate::id::{CertificateId, CustomerRef};
use crate::tlog::VerifierKey;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Certificate {
    List(ListCertificates),
    Show(ShowCertificate),
    Verify(VerifyCertificate),
}

/// Lists certificates, each in its newest stage
///
/// Each is verified. The exit code is 65 if one does not verify; the others are listed all the same.
/// Unless a customer is named by its label, read access to the audit storage is enough: no key is
/// used, and nothing is recorded.
#[derive(Debug, Args)]
pub(in crate::cli) struct ListCertificates {
    /// Only this customer's: its label, or its id.
    #[arg(long, value_name = "LABEL|ID")]
    pub(in crate::cli) customer: Option<CustomerRef>,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Shows a certificate, the final one if there is one
///
/// It is verified first, with the papers of the epochs that it names. For people it is a page; with
/// --json, one object; with --bundle, one file with the signed note and the papers, which is what to
/// give away; with --note, the signed note alone.
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowCertificate {
    /// Which
    #[arg(value_name = "ID")]
    pub(in crate::cli) id: CertificateId,
    /// The signed note alone
    #[arg(long, conflicts_with = "json")]
    pub(in crate::cli) note: bool,
    /// The signed note and the papers that it names, as `certificate verify` takes them
    #[arg(long, conflicts_with_all = ["json", "note"])]
    pub(in crate::cli) bundle: bool,
    #[command(flatten)]
    pub(in crate::cli) log: OfLog,
}

/// Verifies a certificate, without the store or the log, and shows it
///
/// It takes the file and the log's public key, and nothing else. The key must come from elsewhere
/// than the file. The exit code is 65 if the certificate does not verify, or if papers that it names
/// are not with it.
///
/// Who signed an order is in it with the key of each: compare them with what you know.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyCertificate {
    /// The certificate: a bundle with its papers, or a signed note that names none
    #[arg(value_name = "FILE")]
    pub(in crate::cli) certificate: PathBuf,
    /// The log's public key: name+id+key, or hexadecimal [default: that of --log-key]
    #[arg(long, value_name = "KEY")]
    pub(in crate::cli) key: Option<PublicKeyText>,
    /// The statement of a change of that key, as `audit keys --change` prints it; can be given more than once
    #[arg(long = "key-change", value_name = "FILE")]
    pub(in crate::cli) key_changes: Vec<PathBuf>,
    /// The public key of a witness; can be given more than once
    #[arg(long = "witness", value_name = "VKEY")]
    pub(in crate::cli) witnesses: Vec<VerifierKey>,
    /// How many of the witnesses have to have seen each record [default: all]
    #[arg(long, value_name = "N", requires = "witnesses")]
    pub(in crate::cli) quorum: Option<usize>,
}
