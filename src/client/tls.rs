//! The client's side of TLS: its certificate, and the CA of the daemon's.
//!
//! TLS 1.3 and 1.2. No session is resumed: the daemon resumes none, so that a revoked
//! certificate is noticed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// How long a file is at most, in bytes.
const MAX_FILE_LEN: u64 = 1024 * 1024;

/// What makes TLS connections.
///
/// # Errors
/// [`ErrorKind::Configuration`] for files that are missing, unfit, or open to others.
pub(super) fn connector(certificate: &Path, key: &Path, ca: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    for root in certificates(ca, "the CA of the daemon's certificate cannot be read")? {
        roots.add(root).map_err(|_| unfit("the CA of the daemon's certificate is not one"))?;
    }
    let chain = certificates(certificate, "the client's certificate cannot be read")?;
    let key = private_key(key)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| unfit("TLS cannot be set up"))?
        .with_root_certificates(roots);
    let mut config = config
        .with_client_auth_cert(chain, key)
        .map_err(|_| unfit("the client's certificate and its key do not belong together"))?;
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// What TLS has to do with the failure of a connection: `None` if nothing. Names out of
/// certificates are not repeated.
pub(super) fn refused(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let (kind, sentence) = match cause(error)? {
        rustls::Error::InvalidCertificate(why) => (
            ErrorKind::Configuration,
            match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "the daemon's certificate is not of the CA that was given: nothing was sent"
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "the daemon's certificate is of another host: nothing was sent"
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the daemon's certificate has expired: nothing was sent"
                }
                _ => "the daemon's certificate cannot be relied on: nothing was sent",
            },
        ),
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::AccessDenied,
        ) => (ErrorKind::Denied, "the daemon does not accept the client's certificate"),
        _ => (ErrorKind::Unavailable, "the daemon and this program do not agree on TLS"),
    };
    Some(Error::new(kind, sentence))
}

/// The error of TLS behind others.
fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // What an I/O error wraps is not what it says is its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

fn certificates(path: &Path, unreadable: &'static str) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path, unreadable, |_| Ok(()))?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| unfit(unreadable))?;
    if found.is_empty() { Err(unfit(unreadable)) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let pem = read(path, "the client's private key cannot be read", |mode| match mode & 0o037 {
        0 => Ok(()),
        _ => Err(unfit(
            "others than its owner may use the client's private key: think of it as known to them, and make \
             another one, in a file of mode 0600",
        )),
    })?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unfit("the client's private key is not one in PEM"))
}

/// Reads a file whose mode is fit.
fn read(
    path: &Path,
    unreadable: &'static str,
    fit: impl FnOnce(u32) -> Result<()>,
) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |error: std::io::Error| unfit(unreadable).with_source(error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    fit(metadata.mode())?;
    let fits = metadata.is_file() && metadata.len() <= MAX_FILE_LEN;
    let len = usize::try_from(metadata.len()).ok().filter(|_| fits).ok_or_else(|| unfit(unreadable))?;
    // Of the right size at once, so that no copy of a key is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len + 1));
    file.take(MAX_FILE_LEN.min(metadata.len())).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn unfit(sentence: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, sentence)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn tls_is_found_behind_what_wraps_it() {
        let alert = |what| io::Error::other(rustls::Error::AlertReceived(what));
        let denied = refused(&alert(AlertDescription::UnknownCA)).unwrap();
        assert_eq!(denied.kind(), ErrorKind::Denied);
        let other = refused(&alert(AlertDescription::ProtocolVersion)).unwrap();
        assert_eq!(other.kind(), ErrorKind::Unavailable);
        let wrapped = io::Error::other(alert(AlertDescription::CertificateRequired));
        assert_eq!(refused(&wrapped).unwrap().kind(), ErrorKind::Denied);
        let wrong = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(refused(&io::Error::other(wrong)).unwrap().kind(), ErrorKind::Configuration);
        assert!(refused(&io::Error::other("cut")).is_none());
        assert!(refused(&io::Error::from(io::ErrorKind::BrokenPipe)).is_none());
    }

    #[test]
    fn what_others_may_read_is_no_key() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "x").unwrap();
        for (mode, sentence) in [(0o604, "others than its owner"), (0o600, "not one in PEM")] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let error = private_key(&path).unwrap_err();
            assert!(error.to_string().contains(sentence), "{error}");
        }
        assert!(certificates(&path, "no").is_err());
        assert!(certificates(directory.path(), "no").is_err());
    }
}
