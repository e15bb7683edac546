//! TLS with client certificates, and its files, which change while the daemon runs.
//!
//! Separate from the listener, which takes the configuration of the moment for each
//! connection. TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1, and no client without a certificate
//! of the operator's CA.
//!
//! Invariants: there is always a usable configuration; files that are not usable leave the
//! one before in force. Nothing that was proven in one connection counts in another: no
//! session is resumed, as that would skip the client's certificate, and with it revocation.
//!
//! Whoever may write these files decides who is let in. The key is refused where others
//! than its owner and its group may touch it, or the group may do more than read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio::time::{MissedTickBehavior, interval};
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};

/// How often the files are looked at.
pub const POLL: Duration = Duration::from_secs(10);

/// How long a file is at most, in bytes. A list of revoked certificates is the longest.
pub const MAX_FILE_LEN: usize = 16 * 1024 * 1024;

/// The name of HTTP/2 in the handshake: RFC 9113 s3.2.
pub(super) const H2: &[u8] = b"h2";

/// That of HTTP/1.1: RFC 7301 s6.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Where the files are, all of them PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, then those between it and its CA.
    pub certificate: PathBuf,
    /// Its private key (PKCS #8, PKCS #1 or SEC1), for its owner only, who may let a group
    /// read it.
    pub key: PathBuf,
    /// The CAs whose clients are let in: the operator's own, and none that the public trusts.
    pub client_ca: PathBuf,
    /// Lists of revoked certificates. Given one, every certificate between a client and its
    /// CA needs a list of its issuer that is not past its next update.
    pub crl: Option<PathBuf>,
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.certificate), Some(&self.key), Some(&self.client_ca), self.crl.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
    }
}

/// TLS of files that are read again when they change.
pub struct ReloadingTls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    looked: Mutex<Looked>,
}

/// What was last seen of the files.
struct Looked {
    stamp: Stamp,
    /// Whether what was seen is what is in force.
    in_force: bool,
}

/// Device, inode, length and time of change of each file; `None` where it is not there.
/// A change of status (ctime) counts, so that a file put in place by renaming, and one with
/// an older time of its own, are seen as well.
type Stamp = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl ReloadingTls {
    /// Reads the files.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where they cannot be read or used.
    pub fn load(files: TlsFiles) -> Result<Self> {
        let stamp = stamp(&files);
        let current = RwLock::new(Arc::new(config(&files)?));
        Ok(Self { files, current, looked: Mutex::new(Looked { stamp, in_force: true }) })
    }

    /// Reads the files again. Connections that begin from now on take what they say.
    ///
    /// # Errors
    /// As [`ReloadingTls::load`]; then what was in force stays so.
    pub fn reload(&self) -> Result<()> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: what changes in between is read again.
        looked.stamp = stamp(&self.files);
        let loaded = config(&self.files);
        looked.in_force = loaded.is_ok();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded?);
        Ok(())
    }

    /// Reads the files again if they have changed: `None` if not. Files that were not usable
    /// are tried again each time, and reported once for each change.
    pub fn reload_if_changed(&self) -> Option<Result<()>> {
        let (changed, in_force) = {
            let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
            (looked.stamp != stamp(&self.files), looked.in_force)
        };
        if !changed && in_force {
            return None;
        }
        let reloaded = self.reload();
        (changed || reloaded.is_ok()).then_some(reloaded)
    }

    /// Looks at the files every [`POLL`], for ever.
    ///
    /// # Cancel safety
    /// To be dropped to end it.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = Arc::clone(&self);
            let Ok(reloaded) = tokio::task::spawn_blocking(move || this.reload_if_changed()).await else {
                continue;
            };
            match reloaded {
                None => {}
                Some(Ok(())) => tracing::info!("the TLS files have changed and are in force"),
                Some(Err(error)) => {
                    tracing::warn!(
                        kind = error.kind().as_str(),
                        reason = %error,
                        "the TLS files have changed and cannot be used; those before stay in force"
                    );
                }
            }
        }
    }

    /// What is in force.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for ReloadingTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReloadingTls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The cryptography of every connection: AWS-LC, of which a build may be the FIPS one.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The configuration that the files make. Of no failure is the cause handed on where it
/// could repeat what is in them.
fn config(files: &TlsFiles) -> Result<ServerConfig> {
    let provider = provider();
    let verifier = {
        let mut roots = RootCertStore::empty();
        let unusable = "the file of client CAs is not one of CA certificates in PEM";
        for ca in certificates(&files.client_ca, "the file of client CAs cannot be read", unusable)? {
            roots.add(ca).map_err(|_| unfit(unusable))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        // Strict as it is: unknown revocation status is refused, all of the chain is looked at.
        let verifier = match &files.crl {
            Some(path) => verifier.with_crls(lists(path)?).enforce_revocation_expiration(),
            None => verifier,
        };
        verifier
            .build()
            .map_err(|_| unfit("the client CAs or the lists of revoked certificates cannot be used"))?
    };
    let chain = certificates(
        &files.certificate,
        "the server's certificate cannot be read",
        "the server's certificate is not in PEM",
    )?;
    let key = private_key(&files.key)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|_| unfit("TLS cannot be set up"))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|_| unfit("the server's certificate and private key do not go together"))?;
    config.alpn_protocols = vec![H2.to_vec(), HTTP_1_1.to_vec()];
    // No resumption: a resumed session shows no certificate, so that a client whose
    // certificate was revoked, or whose CA was taken out, would be let in until its ticket
    // ends. A handshake more is cheap, as clients keep their connections.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // TLS 1.2 without it can be made to have two sessions with one secret (RFC 7627 s1).
    config.require_ems = true;
    Ok(config)
}

fn certificates(
    path: &Path,
    unreadable: &'static str,
    unusable: &'static str,
) -> Result<Vec<CertificateDer<'static>>> {
    let pem = read(path, unreadable)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| unfit(unusable))?;
    if found.is_empty() { Err(unfit(unusable)) } else { Ok(found) }
}

fn lists(path: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let unusable = "the lists of revoked certificates are not in PEM";
    let pem = read(path, "the lists of revoked certificates cannot be read")?;
    let found: Vec<_> = CertificateRevocationListDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| unfit(unusable))?;
    // None at all would mean that nothing is looked up.
    if found.is_empty() { Err(unfit(unusable)) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let pem = Zeroizing::new(read_if(path, "the server's private key cannot be read", |mode| {
        // 0640 is how a key is handed to a service by its group.
        match mode & 0o037 {
            0 => Ok(()),
            _ => Err(unfit(
                "others than its owner may use the server's private key: think of it as known to them, and \
                 make another one, in a file of mode 0600",
            )),
        }
    })?);
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| unfit("the server's private key is not one in PEM"))
}

fn read(path: &Path, unreadable: &'static str) -> Result<Vec<u8>> {
    read_if(path, unreadable, |_| Ok(()))
}

/// Reads a file whose mode is fit: of the file that was opened, not of one that is put in
/// its place later.
fn read_if(path: &Path, unreadable: &'static str, fit: impl FnOnce(u32) -> Result<()>) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| unfit(unreadable).with_source(error);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    fit(metadata.mode())?;
    let len = usize::try_from(metadata.len()).ok().filter(|len| metadata.is_file() && *len <= MAX_FILE_LEN);
    let len = len.ok_or_else(|| unfit(unreadable))?;
    // Of the right size at once, so that no copy of a key is left behind by growing.
    let mut bytes = Vec::with_capacity(len + 1);
    file.take(u64::try_from(len).unwrap_or(0)).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |path: &Path| {
        let found = path.metadata().ok()?;
        Some((found.dev(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()))
    };
    files.paths().map(of).collect()
}

fn unfit(message: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
        KeyIdMethod, KeyPair, KeyUsagePurpose, date_time_ymd,
    };
    use tempfile::TempDir;

    use super::*;

    /// A directory with usable files, and the CA that has made them.
    struct Files {
        directory: TempDir,
        ca: CertifiedIssuer<'static, KeyPair>,
    }

    impl Files {
        fn new() -> Self {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let files = Self { directory: tempfile::tempdir().unwrap(), ca };
            files.write("ca", &files.ca.pem());
            files.renew();
            files
        }

        /// A new certificate for a new key.
        fn renew(&self) {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            self.write("certificate", &params.signed_by(&key, &self.ca).unwrap().pem());
            self.write("key", &key.serialize_pem());
        }

        fn crl(&self) -> String {
            let params = CertificateRevocationListParams {
                this_update: date_time_ymd(2020, 1, 1),
                next_update: date_time_ymd(2100, 1, 1),
                crl_number: 1.into(),
                issuing_distribution_point: None,
                revoked_certs: vec![],
                key_identifier_method: KeyIdMethod::Sha256,
            };
            params.signed_by(&self.ca).unwrap().pem().unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        /// By renaming, and for the owner only.
        fn write(&self, name: &str, text: &str) {
            let new = self.path("new");
            fs::write(&new, text).unwrap();
            fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
            fs::rename(&new, self.path(name)).unwrap();
        }

        fn files(&self) -> TlsFiles {
            TlsFiles {
                certificate: self.path("certificate"),
                key: self.path("key"),
                client_ca: self.path("ca"),
                crl: self.path("crl").exists().then(|| self.path("crl")),
            }
        }

        fn load(&self) -> Result<ReloadingTls> {
            ReloadingTls::load(self.files())
        }
    }

    #[test]
    fn nothing_is_resumed_and_both_protocols_are_offered() {
        let config = Files::new().load().unwrap().current();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
        assert!(!config.session_storage.can_cache());
        assert!(!config.ticketer.enabled());
        assert!(config.require_ems);
    }

    #[test]
    fn a_key_is_for_its_owner() {
        let files = Files::new();
        for (mode, fit) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o660, false), (0o604, false)]
        {
            fs::set_permissions(files.path("key"), Permissions::from_mode(mode)).unwrap();
            let loaded = files.load();
            assert_eq!(loaded.is_ok(), fit, "{mode:o}");
            if let Err(error) = loaded {
                assert!(error.to_string().contains("0600"), "{error}");
            }
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_not_repeated() {
        for (name, text) in [
            ("certificate", ""),
            ("certificate", "SECRET"),
            ("certificate", "-----BEGIN CERTIFICATE-----\nSECRET\n-----END CERTIFICATE-----\n"),
            ("key", ""),
            ("key", "-----BEGIN PRIVATE KEY-----\nU0VDUkVU\n-----END PRIVATE KEY-----\n"),
            ("ca", ""),
            ("ca", "-----BEGIN CERTIFICATE-----\nU0VDUkVU\n-----END CERTIFICATE-----\n"),
            ("crl", ""),
            ("crl", "-----BEGIN X509 CRL-----\nU0VDUkVU\n-----END X509 CRL-----\n"),
        ] {
            let files = Files::new();
            files.write(name, text);
            let error = files.load().expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{name}");
            assert!(
                !error.chain().contains("SECRET") && !error.chain().contains("U0VD"),
                "{}",
                error.chain()
            );
        }
        let files = Files::new();
        files.write("key", &KeyPair::generate().unwrap().serialize_pem());
        assert!(files.load().unwrap_err().to_string().contains("do not go together"));
        fs::remove_file(files.path("key")).unwrap();
        assert!(files.load().unwrap_err().to_string().contains("cannot be read"));
        let files = Files::new();
        files.write("crl", &files.crl());
        assert!(files.load().is_ok());
    }

    #[test]
    fn changed_files_are_taken_and_broken_ones_are_not() {
        let files = Files::new();
        let tls = files.load().unwrap();
        let first = tls.current();
        assert!(tls.reload_if_changed().is_none());
        assert!(Arc::ptr_eq(&first, &tls.current()));

        files.renew();
        assert!(matches!(tls.reload_if_changed(), Some(Ok(()))));
        let second = tls.current();
        assert!(!Arc::ptr_eq(&first, &second));

        // Half of a change: told once, and tried until it is whole.
        let (certificate, key) = (fs::read(files.path("certificate")).unwrap(), KeyPair::generate().unwrap());
        files.write("key", &key.serialize_pem());
        assert!(matches!(tls.reload_if_changed(), Some(Err(_))));
        assert!(tls.reload_if_changed().is_none());
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&second, &tls.current()));
        assert_eq!(fs::read(files.path("certificate")).unwrap(), certificate);
        files.renew();
        assert!(matches!(tls.reload_if_changed(), Some(Ok(()))));
        assert!(!Arc::ptr_eq(&second, &tls.current()));

        fs::remove_file(files.path("ca")).unwrap();
        assert!(matches!(tls.reload_if_changed(), Some(Err(_))));
        files.write("ca", &files.ca.pem());
        assert!(matches!(tls.reload_if_changed(), Some(Ok(()))));
        assert!(tls.reload().is_ok());
    }
}
