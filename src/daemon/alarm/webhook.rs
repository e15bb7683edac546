//! Where alarms are sent: a POST of a small JSON object, over TLS.
//!
//! Separate from when and how often. Nothing of an answer is read but its status. Redirections
//! are not followed, so that the token goes to whom it is for.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Url};

use super::Alarm;
use super::spool::Spool;
use crate::daemon::config::AlarmsConfig;
use crate::daemon::outbound::{self, Patience};
use crate::error::Result;

/// How long the receiver may take.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(5), request: Duration::from_secs(10) };

/// Whom we ask, in sentences.
const WHOM: &str = "the alarms";

/// A webhook, and the directory of what it has not taken yet.
pub struct Webhook {
    url: Url,
    client: Client,
    token: Option<PathBuf>,
    spool: Option<PathBuf>,
}

impl Webhook {
    /// The webhook of a configuration, if it has one. Nothing is sent yet. Proxies are those of
    /// the environment, but for an address of this host.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Configuration`] if it is not one of `https://`, or its files cannot be used.
    pub fn of(config: &AlarmsConfig) -> Result<Option<Self>> {
        let Some(url) = &config.webhook else { return Ok(None) };
        let url = outbound::url(url, "the URL of the alarms' webhook", false)?;
        let client = outbound::client(&url, config.ca.as_deref(), PATIENCE, WHOM)?;
        let this = Self { url, client, token: config.token_file.clone(), spool: config.spool.clone() };
        // Before it is needed, so that a mistake shows at once.
        this.authorization()?;
        Ok(Some(this))
    }

    /// The directory of what was not delivered, if there is to be one.
    pub(super) fn spool(&self) -> Result<Option<Spool>> {
        self.spool.as_deref().map(Spool::open).transpose()
    }

    /// Sends an alarm. Taken is what is answered with 2xx.
    ///
    /// # Cancel safety
    /// It may have been taken. Sent again, it has the same id.
    pub(super) async fn send(&self, alarm: &Alarm) -> Result<(), &'static str> {
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        // Read each time, so that it can be changed while the daemon runs. It is small.
        if let Some(value) = self.authorization().map_err(|_| "its token cannot be read")? {
            request = request.header(AUTHORIZATION, value);
        }
        let answer = request.body(text(alarm)).send().await.map_err(|_| "it does not answer")?;
        if answer.status().is_success() { Ok(()) } else { Err("it did not take it") }
    }

    fn authorization(&self) -> Result<Option<HeaderValue>> {
        self.token.as_deref().map(|path| outbound::bearer(path, WHOM)).transpose()
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may have a secret in its path, as with many receivers.
        f.debug_struct("Webhook").field("spool", &self.spool).finish_non_exhaustive()
    }
}

/// What is sent, and what is kept.
pub(super) fn text(alarm: &Alarm) -> Vec<u8> {
    serde_json::to_vec(alarm).expect("ids and times are JSON")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::error::ErrorKind;

    fn config(webhook: &str) -> AlarmsConfig {
        AlarmsConfig { webhook: Some(webhook.to_owned()), ..AlarmsConfig::default() }
    }

    #[test]
    fn there_is_no_webhook_but_over_tls() {
        assert!(Webhook::of(&AlarmsConfig::default()).unwrap().is_none());
        for bad in ["http://127.0.0.1/x", "https://", "ftp://x/", "x", "https://user:pass@host/SECRET"] {
            let error = Webhook::of(&config(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{bad}");
            assert!(!error.chain().contains("SECRET") && !error.chain().contains("pass@"));
        }
        let webhook = Webhook::of(&config("https://alarms.example/SECRET")).unwrap().unwrap();
        assert!(!format!("{webhook:?}").contains("SECRET"));
    }

    #[test]
    fn files_that_cannot_be_used_are_told_before_they_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(dir.path().join(name));
        for text in ["", "SECRET", "-----BEGIN CERTIFICATE-----\nU0VDUkVU\n-----END CERTIFICATE-----\n"] {
            fs::write(dir.path().join("ca"), text).unwrap();
            let error = Webhook::of(&AlarmsConfig { ca: path("ca"), ..config("https://x/") }).unwrap_err();
            assert!(!error.chain().contains("SECRET"), "{}", error.chain());
        }
        let with_token = || Webhook::of(&AlarmsConfig { token_file: path("token"), ..config("https://x/") });
        assert!(with_token().is_err());
        for (token, mode, good) in [
            ("a-token\n", 0o600, true),
            ("a-token", 0o640, true),
            ("a-token", 0o644, false),
            ("", 0o600, false),
            ("a\nb", 0o600, false),
        ] {
            fs::write(dir.path().join("token"), token).unwrap();
            fs::set_permissions(dir.path().join("token"), Permissions::from_mode(mode)).unwrap();
            assert_eq!(with_token().is_ok(), good, "{token:?} {mode:o}");
        }
    }
}
