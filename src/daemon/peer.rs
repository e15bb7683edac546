//! Who is at the other end, as far as the transport shows: the [`Peer`].
//!
//! Separate from the [`directory`](super::directory), which says whom that makes them: a
//! peer is what was proven (a private key, a user of this host), and no more.
//!
//! Invariants: a [`ClientCertificate`] was verified against the operator's CA before it is
//! made here of a connection. Its bytes come from a stranger until then, and are bounded and
//! strictly read even so: a certificate with a name that cannot be read is refused as a
//! whole, lest the name that was left out be the one that matters.

use std::fmt;
use std::net::IpAddr;

use rustls::ServerConnection;
use sha2::{Digest, Sha256};
use tokio::net::UnixStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::access::Origin;
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;

/// How long a certificate is at most, in bytes of DER.
pub const MAX_CERTIFICATE_LEN: usize = 64 * 1024;

/// How many names one has at most.
pub const MAX_NAMES: usize = 32;

/// How long a URI in one is at most, in bytes: as a SPIFFE id (SPIFFE-ID, s2.3).
pub const MAX_URI_LEN: usize = 2048;

/// How long a DNS name is at most, in bytes: RFC 1035 s2.3.4, without the root.
pub const MAX_DNS_LEN: usize = 253;

/// Who is at the other end. In the extensions of every request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// From where.
    pub origin: Origin,
    /// What they have proven to be.
    pub credential: PeerCredential,
}

impl Peer {
    /// The peer of a TLS connection whose handshake is done.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] where there is no certificate or it cannot be read.
    pub(crate) fn of_tls(address: IpAddr, connection: &ServerConnection) -> Result<Self> {
        let chain = connection.peer_certificates().unwrap_or_default();
        let end_entity = chain.first().ok_or_else(|| refused("the client has shown no certificate"))?;
        let certificate = ClientCertificate::from_der(end_entity)?;
        // The host of a mapped address is the IPv4 one.
        let origin = Origin::Address(address.to_canonical());
        Ok(Self { origin, credential: PeerCredential::Certificate(certificate) })
    }

    /// The peer of a connection on a Unix socket: the process that connected, and its user
    /// when it did (`SO_PEERCRED`, unix(7)).
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] where the system does not say.
    pub(crate) fn of_unix(stream: &UnixStream) -> Result<Self> {
        let unknown = || refused("the system does not say who has connected to the Unix socket");
        let found = stream.peer_cred().map_err(|error| unknown().with_source(error))?;
        // Where there is no number of a process (macOS before 10.14; a process outside of our
        // namespace), it is 0.
        let process = found.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        Ok(Self { origin: Origin::Process(process), credential: PeerCredential::Unix { uid: found.uid() } })
    }
}

/// What a peer has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerCredential {
    /// The holder of a certificate's key.
    Certificate(ClientCertificate),
    /// A user of this host.
    Unix {
        /// Which.
        uid: u32,
    },
}

/// What matters of a client's certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    uris: Vec<String>,
    dns_names: Vec<String>,
    fingerprint: [u8; 32],
    not_after: Timestamp,
}

impl ClientCertificate {
    /// Reads a certificate. It does not verify it.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] unless it is one certificate in DER, and its names are within
    /// [`MAX_NAMES`], [`MAX_URI_LEN`] and [`MAX_DNS_LEN`], and in ASCII without blanks.
    pub fn from_der(der: &[u8]) -> Result<Self> {
        let unreadable = || refused("the client's certificate cannot be read");
        if der.len() > MAX_CERTIFICATE_LEN {
            return Err(unreadable());
        }
        // What the parser says may repeat bytes of it, so it is not the source.
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
        if !rest.is_empty() {
            return Err(unreadable());
        }
        let (uris, dns_names) = names(&parsed).ok_or_else(unreadable)?;
        let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        // 99991231235959Z stands for no end: RFC 5280 s4.1.2.5.
        let not_after = Timestamp::from_micros(seconds.saturating_mul(1_000_000)).unwrap_or(Timestamp::MAX);
        Ok(Self { uris, dns_names, fingerprint: Sha256::digest(der).into(), not_after })
    }

    /// Its URIs, such as SPIFFE ids (RFC 5280 s4.2.1.6).
    #[must_use]
    pub fn uris(&self) -> &[String] {
        &self.uris
    }

    /// Its DNS names, in lower case.
    #[must_use]
    pub fn dns_names(&self) -> &[String] {
        &self.dns_names
    }

    /// The SHA-256 of its DER.
    #[must_use]
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The last moment at which it counts.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

impl fmt::Debug for ClientCertificate {
    /// Without the names, which may be those of people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The URIs and DNS names, or `None` where one of the names is not one. Other kinds (mail
/// addresses, IP addresses) are nobody's credential and are passed over.
fn names(certificate: &X509Certificate<'_>) -> Option<(Vec<String>, Vec<String>)> {
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    let Some(found) = certificate.subject_alternative_name().ok()? else { return Some((uris, dns_names)) };
    if found.value.general_names.len() > MAX_NAMES {
        return None;
    }
    for name in &found.value.general_names {
        match name {
            GeneralName::URI(uri) => uris.push(is_uri(uri).then(|| (*uri).to_owned())?),
            GeneralName::DNSName(name) => {
                dns_names.push(is_dns_name(name).then(|| name.to_ascii_lowercase())?)
            }
            GeneralName::Invalid(..) => return None,
            _ => {}
        }
    }
    Some((uris, dns_names))
}

/// Whether something may be a URI as far as it is compared here: byte by byte.
pub(super) fn is_uri(text: &str) -> bool {
    text.len() <= MAX_URI_LEN && text.contains(':') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether something may be a DNS name. `*` may be in a certificate, and is in no mapping.
pub(super) fn is_dns_name(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'*');
    !text.is_empty() && text.len() <= MAX_DNS_LEN && text.bytes().all(of_name)
}

fn refused(message: &'static str) -> Error {
    Error::new(ErrorKind::Denied, message)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate(names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.not_after = date_time_ymd(2031, 2, 3);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn names_end_and_fingerprint_are_read() {
        let der = certificate(vec![uri("spiffe://clinic/backup"), dns("Backup.Clinic.example")]);
        let read = ClientCertificate::from_der(&der).unwrap();
        assert_eq!(read.uris(), ["spiffe://clinic/backup"]);
        assert_eq!(read.dns_names(), ["backup.clinic.example"]);
        assert_eq!(read.not_after().to_string(), "2031-02-03T00:00:00.000000Z");
        assert_eq!(read.fingerprint()[..], Sha256::digest(&der)[..]);
        assert!(!format!("{read:?}").contains("clinic"));
    }

    #[test]
    fn a_certificate_without_names_or_with_others_has_none() {
        for names in [vec![], vec![SanType::IpAddress([127, 0, 0, 1].into())]] {
            let read = ClientCertificate::from_der(&certificate(names)).unwrap();
            assert!(read.uris().is_empty() && read.dns_names().is_empty());
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_as_a_whole() {
        let good = certificate(vec![dns("a.example")]);
        let mut longer = good.clone();
        longer.push(0);
        let many = certificate((0..=MAX_NAMES).map(|each| dns(&format!("n{each}.example"))).collect());
        for (what, der) in [
            ("nothing", vec![]),
            ("cut", good[..good.len() - 1].to_vec()),
            ("trailing bytes", longer),
            ("too many names", many),
            ("a long URI", certificate(vec![uri(&format!("spiffe://{}", "a".repeat(MAX_URI_LEN)))])),
            ("a long DNS name", certificate(vec![dns(&"a".repeat(MAX_DNS_LEN + 1))])),
            ("a blank in a URI", certificate(vec![uri("spiffe://clinic/a b")])),
            ("a line break", certificate(vec![dns("a\nb")])),
            ("a URI without scheme", certificate(vec![uri("clinic"), dns("a.example")])),
        ] {
            let error = ClientCertificate::from_der(&der).expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert!(std::error::Error::source(&error).is_none(), "{what}");
        }
        assert!(ClientCertificate::from_der(&certificate(vec![dns("a.example"); MAX_NAMES])).is_ok());
    }

    #[tokio::test]
    async fn a_unix_peer_is_a_process_and_its_user() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of_unix(&one).unwrap();
        let uid = rustix::process::geteuid().as_raw();
        assert_eq!(peer.credential, PeerCredential::Unix { uid });
        assert_eq!(peer.origin, Origin::Process(std::process::id()));
    }
}
