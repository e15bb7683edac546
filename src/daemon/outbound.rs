//! The HTTP that the daemon asks others with: issuers of tokens, receivers of alarms,
//! collectors of its log.
//!
//! In one place, so that each of these clients waits no longer than it may, follows no
//! redirection, and believes the CAs that the configuration names in place of the system's. None
//! sends a secret, or believes an answer, over anything but TLS or this host itself.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::durable;
use crate::error::{Error, ErrorKind, Result};

/// The longest file of CAs that is read, in bytes.
const MAX_CA_LEN: u64 = 1 << 20;

/// The longest token, in bytes.
const MAX_TOKEN_LEN: u64 = 4096;

/// How long somebody may take.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// To be connected to.
    pub(super) connect: Duration,
    /// To answer, in all.
    pub(super) request: Duration,
}

/// Whoever is asked, as a sentence has it: `alarms`, `an issuer`.
pub(super) type Whom = &'static str;

/// A URL over TLS, or, where `loopback` allows it, over plain HTTP to an address of this host: who
/// can answer there is on this host already.
///
/// # Errors
/// [`ErrorKind::Configuration`] if it is something else, or holds credentials. It is not repeated.
pub(super) fn url(text: &str, what: Whom, loopback: bool) -> Result<Url> {
    let unusable = |why: &str| unfit(format!("{what} {why}"));
    let url = Url::parse(text).map_err(|_| unusable("is not one"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unusable("holds credentials"));
    }
    match url.scheme() {
        "https" if url.has_host() => Ok(url),
        "http" if loopback && is_loopback(&url) => Ok(url),
        _ => Err(unusable("does not begin with https://")),
    }
}

/// A client that asks whoever is at `url`. Proxies are those of the environment (`HTTPS_PROXY`,
/// `NO_PROXY`), and none for this host.
///
/// # Errors
/// [`ErrorKind::Configuration`] if the CAs cannot be used.
pub(super) fn client(url: &Url, ca: Option<&Path>, patience: Patience, whom: Whom) -> Result<Client> {
    let mut client = Client::builder()
        .connect_timeout(patience.connect)
        .timeout(patience.request)
        .redirect(Policy::none())
        .referer(false)
        .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")));
    client = if is_loopback(url) { client.no_proxy() } else { client.https_only(true) };
    if let Some(path) = ca {
        client = client.tls_certs_only(certificates(path, whom)?);
    }
    client
        .build()
        .map_err(|error| unfit(format!("HTTP cannot be set up for {whom}")).with_source(error.without_url()))
}

/// What is sent as `Authorization`, of a file that has a token. It is small, and read each time,
/// so that it can change while the daemon runs.
///
/// # Errors
/// [`ErrorKind::Configuration`] if there is no token in it, or others may read it.
pub(super) fn bearer(path: &Path, whom: Whom) -> Result<HeaderValue> {
    let unreadable = |error| unfit(format!("the token of {whom} cannot be read")).with_source(error);
    let file = File::open(path).map_err(unreadable)?;
    if file.metadata().map_err(unreadable)?.mode() & 0o037 != 0 {
        return Err(unfit(format!("others may read the token of {whom}: give its file the mode 0600")));
    }
    let mut token = Zeroizing::new(String::with_capacity(4096));
    file.take(MAX_TOKEN_LEN).read_to_string(&mut token).map_err(unreadable)?;
    let text = Zeroizing::new(format!("Bearer {}", token.trim()));
    let value = HeaderValue::from_str(&text).ok().filter(|_| !token.trim().is_empty());
    let mut value = value.ok_or_else(|| unfit(format!("the token of {whom} is not one line of text")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn certificates(path: &Path, whom: Whom) -> Result<Vec<Certificate>> {
    let unreadable = |error| unfit(format!("the CAs of {whom} cannot be read")).with_source(error);
    let pem = durable::read(path, MAX_CA_LEN).map_err(unreadable)?;
    let found = Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| unfit(format!("the CAs of {whom} are not certificates in PEM")))
}

/// Whether a URL is of this host, by number: a name may mean another one tomorrow.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        _ => false,
    }
}

fn unfit(message: String) -> Error {
    Error::new(ErrorKind::Configuration, message)
}
