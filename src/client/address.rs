//! Where a daemon is: `https://host:port`, or `unix:/path` of its socket.

use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use url::{Host, Url};

/// Where a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DaemonUrl {
    /// Over TLS.
    Https {
        /// A name, or an address without brackets.
        host: String,
        /// The port; 443 unless it is named.
        port: u16,
    },
    /// At the socket of this path.
    Unix(PathBuf),
}

/// Text that is no daemon's place.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum DaemonUrlError {
    /// It is without TLS.
    #[error(
        "http:// is not spoken: without TLS anyone in between reads what is sealed and opened. Use https://, \
         or unix:/path on the same host"
    )]
    Plaintext,
    /// It is something else.
    #[error("not https://host:port or unix:/path")]
    Form,
}

impl FromStr for DaemonUrl {
    type Err = DaemonUrlError;

    fn from_str(text: &str) -> Result<Self, DaemonUrlError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let is_path = !path.is_empty() && !path.starts_with("//") && !path.contains('\0');
            return is_path.then(|| Self::Unix(path.into())).ok_or(DaemonUrlError::Form);
        }
        let url = Url::parse(text).map_err(|_| DaemonUrlError::Form)?;
        match url.scheme() {
            "https" => {}
            "http" => return Err(DaemonUrlError::Plaintext),
            _ => return Err(DaemonUrlError::Form),
        }
        let bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(DaemonUrlError::Form),
        };
        match url.port_or_known_default() {
            Some(port) if bare && port != 0 => Ok(Self::Https { host, port }),
            _ => Err(DaemonUrlError::Form),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_behind_tls_or_a_socket() {
        let https = |host: &str, port| Ok(DaemonUrl::Https { host: host.into(), port });
        assert_eq!("https://vault.clinic.example:8443".parse(), https("vault.clinic.example", 8443));
        assert_eq!("https://vault.clinic.example/".parse(), https("vault.clinic.example", 443));
        assert_eq!("https://127.0.0.1:1".parse(), https("127.0.0.1", 1));
        assert_eq!("https://[::1]:1".parse(), https("::1", 1));
        assert_eq!("unix:/run/a socket".parse(), Ok(DaemonUrl::Unix("/run/a socket".into())));
        for plain in ["http://localhost:1", "HTTP://localhost", "http://127.0.0.1:8443/"] {
            assert_eq!(plain.parse::<DaemonUrl>(), Err(DaemonUrlError::Plaintext), "{plain}");
        }
        for bad in [
            "",
            "unix:",
            "unix://host/path",
            "localhost:8443",
            "/run/socket",
            "https://",
            "https://a:0",
            "https://a:99999",
            "https://a/v1",
            "https://a?b",
            "https://a#b",
            "https://user@a",
            "https://:word@a",
            "ftp://a",
        ] {
            assert_eq!(bad.parse::<DaemonUrl>(), Err(DaemonUrlError::Form), "{bad}");
        }
    }
}
