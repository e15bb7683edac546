//! Where the store and the local keys are, and who asks: from options, else the
//! environment, else a default.
//!
//! Separate from the command line, and pure: the environment is an argument. An
//! empty variable counts as one that is not set.
//!
//! | setting | option | variable | default |
//! |---|---|---|---|
//! | store | `--store` | `STRONGROOM_STORE` | `$XDG_DATA_HOME/strongroom/store` |
//! | its blobs | `--blobs-store` | `STRONGROOM_BLOBS` | `blobs/` in the store |
//! | its keys | `--keys-store` | `STRONGROOM_KEYS` | `keys/` in the store |
//! | its audit log | `--audit-store` | `STRONGROOM_AUDIT` | `audit/` in the store |
//! | local KMS keys | `--local-kms` | `STRONGROOM_LOCAL_KMS` | `$XDG_DATA_HOME/strongroom/kms` |
//! | the log's signing key | `--log-key` | `STRONGROOM_LOG_KEY` | `log.key` beside the local KMS keys |
//! | the next one, or the one before | `--other-log-key` | `STRONGROOM_OTHER_LOG_KEY` | none |
//! | witnesses | `--ask-witness` | `STRONGROOM_WITNESSES` | none |
//! | a daemon in place of the store | `--daemon` | `STRONGROOM_DAEMON` | none |
//! | the client's certificate for it | `--client-certificate` | `STRONGROOM_CLIENT_CERTIFICATE` | none |
//! | its private key | `--client-key` | `STRONGROOM_CLIENT_KEY` | none |
//! | the CA of the daemon's certificate | `--ca` | `STRONGROOM_CA` | none |
//! | a bearer token for it | `--token-file` | `STRONGROOM_TOKEN_FILE` | none |
//! | who | `--principal` | `STRONGROOM_PRINCIPAL` | `unix:<uid>` |
//! | why | `--purpose` | `STRONGROOM_PURPOSE` | `HSYSADMIN`, and `ETREAT` in an emergency |
//! | within which session | `--session` | `STRONGROOM_SESSION` | none |
//! | in which emergency of the daemon's | `--emergency` | | none |
//!
//! `$XDG_DATA_HOME` is `~/.local/share` where it is not set or not absolute (XDG
//! Base Directory Specification).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::access::{Access, Principal, Purpose};
use crate::client::{DaemonUrl, DaemonUrlError, Settings};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EmergencyId, KmsKeyId, SessionId};
use crate::store::{StorageUrl, StorageUrls};
use crate::tlog::VerifierKey;
use crate::witness::http::WitnessUrl;

/// What the options say, as far as they were given.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The store: a URL or a path.
    pub store: Option<OsString>,
    /// Its blobs, if elsewhere.
    pub blobs: Option<OsString>,
    /// Its keys, if elsewhere.
    pub keys: Option<OsString>,
    /// Its audit log, if elsewhere.
    pub audit: Option<OsString>,
    /// The directory of the local provider's keys.
    pub local_kms: Option<PathBuf>,
    /// The signing key of the audit log: a file, or a key of a KMS.
    pub log_key: Option<OsString>,
    /// While that key is replaced, the next or the one before.
    pub other_log_key: Option<OsString>,
    /// Witnesses of the audit log, each a URL, a space and a key.
    pub witnesses: Vec<String>,
    /// Who asks.
    pub principal: Option<Principal>,
    /// Why.
    pub purpose: Option<Purpose>,
    /// A daemon to ask: `https://host:port`, or `unix:/path`.
    pub daemon: Option<String>,
    /// The certificate that it knows the client by.
    pub client_certificate: Option<PathBuf>,
    /// The private key of that certificate.
    pub client_key: Option<PathBuf>,
    /// The CA of the daemon's own certificate.
    pub ca: Option<PathBuf>,
    /// A file with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Within which session of a customer's.
    pub session: Option<SessionId>,
    /// In which emergency, at the daemon where it was declared.
    pub emergency: Option<EmergencyId>,
}

/// What everything is done with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The storages of the store.
    pub urls: StorageUrls,
    /// The directory of the local provider's keys, absolute.
    pub local_kms: PathBuf,
    /// Where the signing key of the audit log is.
    pub log_key: LogKey,
    /// Where the next signing key is, or the one before, while it is replaced.
    pub other_log_key: Option<LogKey>,
    /// Witnesses of the audit log: where they are, and the keys they cosign with.
    pub witnesses: Vec<(WitnessUrl, VerifierKey)>,
    /// Who asks.
    pub principal: Principal,
    /// Why.
    pub purpose: Purpose,
    /// Within which session of a customer's.
    pub session: Option<SessionId>,
}

/// Where the signing key of the audit log is.
pub enum LogKey {
    /// In a file, absolute.
    File(PathBuf),
    /// In the environment, as text. Only there: a command line can be seen by all.
    Text(Zeroizing<String>),
    /// In a KMS.
    Kms(KmsKeyId),
}

impl LogKey {
    fn of(text: OsString, from_env: bool) -> Result<Self> {
        let text = match text.into_string() {
            Ok(text) if from_env && text.starts_with("PRIVATE+KEY+") => {
                return Ok(Self::Text(Zeroizing::new(text)));
            }
            Ok(text) if text.starts_with("aws-kms:") => {
                let key =
                    text.parse().map_err(|_| invalid("the log's signing key is not named by an ARN"))?;
                return Ok(Self::Kms(key));
            }
            Ok(text) => text.into(),
            // Only a path can be other than UTF-8.
            Err(text) => text,
        };
        let path = std::path::absolute(text).map_err(|error| {
            invalid("the path of the log's signing key cannot be used").with_source(error)
        })?;
        Ok(Self::File(path))
    }
}

impl Clone for LogKey {
    fn clone(&self) -> Self {
        match self {
            Self::File(path) => Self::File(path.clone()),
            Self::Text(text) => Self::Text(Zeroizing::new(text.to_string())),
            Self::Kms(key) => Self::Kms(key.clone()),
        }
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Text(_) => f.debug_struct("Text").finish_non_exhaustive(),
            Self::Kms(key) => f.debug_tuple("Kms").field(key).finish(),
        }
    }
}

impl Config {
    /// Settles what is used: `given`, else what `env` has, else the defaults for
    /// the user `uid`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a value that is not one, which is not
    /// repeated; [`ErrorKind::Configuration`] where a default is needed and the
    /// environment names no home.
    pub fn resolve(given: Given, env: impl Fn(&str) -> Option<OsString>, uid: u32) -> Result<Self> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let data = || data_home(&env).map(|home| home.join("strongroom"));
        let root = match given.store.or_else(|| env("STRONGROOM_STORE")) {
            Some(text) => storage(&text)?,
            None => StorageUrl::directory(data()?.join("store"))?,
        };
        let own = |given: Option<OsString>, variable| {
            given.or_else(|| env(variable)).map(|text| storage(&text)).transpose()
        };
        let urls = StorageUrls {
            root,
            blobs: own(given.blobs, "STRONGROOM_BLOBS")?,
            keys: own(given.keys, "STRONGROOM_KEYS")?,
            audit: own(given.audit, "STRONGROOM_AUDIT")?,
        };
        let local_kms = match given.local_kms.or_else(|| env("STRONGROOM_LOCAL_KMS").map(PathBuf::from)) {
            Some(path) => std::path::absolute(path).map_err(|error| {
                invalid("the path of the key directory cannot be used").with_source(error)
            })?,
            None => data()?.join("kms"),
        };
        let log_key = match (given.log_key, env("STRONGROOM_LOG_KEY")) {
            (Some(text), _) => LogKey::of(text, false)?,
            (None, Some(text)) => LogKey::of(text, true)?,
            (None, None) => LogKey::File(local_kms.join("log.key")),
        };
        let other_log_key = match (given.other_log_key, env("STRONGROOM_OTHER_LOG_KEY")) {
            (Some(text), _) => Some(LogKey::of(text, false)?),
            (None, Some(text)) => Some(LogKey::of(text, true)?),
            (None, None) => None,
        };
        let witnesses = match given.witnesses {
            given if !given.is_empty() => given,
            _ => match env("STRONGROOM_WITNESSES").map(OsString::into_string) {
                None => Vec::new(),
                Some(Ok(text)) => text.split(';').map(|one| one.trim().to_owned()).collect(),
                Some(Err(_)) => return Err(invalid("STRONGROOM_WITNESSES is not text")),
            },
        };
        let witnesses = witnesses.iter().map(|text| witness(text)).collect::<Result<_>>()?;
        let (principal, purpose) =
            who((given.principal, given.purpose), &env, uid, Purpose::SystemAdministration)?;
        let session = session(given.session, &env)?;
        Ok(Self { urls, local_kms, log_key, other_log_key, witnesses, principal, purpose, session })
    }

    /// The daemon to ask in place of a store, and who asks it and why; `None` if none is named.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for a value that is not one, which is not repeated.
    pub(crate) fn daemon(
        given: &Given,
        env: impl Fn(&str) -> Option<OsString>,
        uid: u32,
    ) -> Result<Option<(Settings, Access)>> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let text = match (given.daemon.clone(), env("STRONGROOM_DAEMON").map(OsString::into_string)) {
            (Some(text), _) | (None, Some(Ok(text))) => text,
            (None, Some(Err(_))) => return Err(invalid("STRONGROOM_DAEMON is not text")),
            (None, None) => return Ok(None),
        };
        let unfit = |error: DaemonUrlError| invalid("the daemon cannot be asked").with_source(error);
        let daemon: DaemonUrl = text.parse().map_err(unfit)?;
        let file =
            |given: &Option<PathBuf>, variable| given.clone().or_else(|| env(variable).map(PathBuf::from));
        let unless_said = match given.emergency {
            Some(_) => Purpose::EmergencyTreatment,
            None => Purpose::SystemAdministration,
        };
        let (principal, purpose) = who((given.principal.clone(), given.purpose), &env, uid, unless_said)?;
        let settings = Settings {
            daemon,
            certificate: file(&given.client_certificate, "STRONGROOM_CLIENT_CERTIFICATE"),
            key: file(&given.client_key, "STRONGROOM_CLIENT_KEY"),
            ca: file(&given.ca, "STRONGROOM_CA"),
            token: file(&given.token_file, "STRONGROOM_TOKEN_FILE"),
            purpose,
            session: session(given.session, &env)?,
            emergency: given.emergency,
        };
        Ok(Some((settings, Access::new(principal, purpose))))
    }

    /// Who asks and why, from within this process.
    #[must_use]
    pub fn access(&self) -> Access {
        let access = Access::new(self.principal.clone(), self.purpose);
        match self.session {
            Some(session) => access.within(session),
            None => access,
        }
    }
}

/// Who asks, and why.
fn who(
    given: (Option<Principal>, Option<Purpose>),
    env: &impl Fn(&str) -> Option<OsString>,
    uid: u32,
    unless_said: Purpose,
) -> Result<(Principal, Purpose)> {
    let principal = match (given.0, env("STRONGROOM_PRINCIPAL")) {
        (Some(principal), _) => principal,
        (None, Some(text)) => parse(&text, "STRONGROOM_PRINCIPAL is not usable")?,
        (None, None) => Principal::Unix(uid),
    };
    let purpose = match (given.1, env("STRONGROOM_PURPOSE")) {
        (Some(purpose), _) => purpose,
        (None, Some(text)) => parse(&text, "STRONGROOM_PURPOSE is not usable")?,
        (None, None) => unless_said,
    };
    Ok((principal, purpose))
}

/// Within which session.
fn session(given: Option<SessionId>, env: &impl Fn(&str) -> Option<OsString>) -> Result<Option<SessionId>> {
    let named = || env("STRONGROOM_SESSION").map(|text| parse(&text, "STRONGROOM_SESSION is not usable"));
    given.map(Ok).or_else(named).transpose()
}

fn data_home(env: &impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let absolute = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share"))).ok_or_else(|| {
        Error::new(
            ErrorKind::Configuration,
            "neither XDG_DATA_HOME nor HOME is set: name the store and the directory of local keys",
        )
    })
}

fn witness(text: &str) -> Result<(WitnessUrl, VerifierKey)> {
    let wrong = || invalid("a witness is its URL, a space, and its public key");
    let (url, key) = text.split_once(' ').ok_or_else(wrong)?;
    Ok((url.parse().map_err(|_| wrong())?, key.trim().parse().map_err(|_| wrong())?))
}

fn storage(text: &OsStr) -> Result<StorageUrl> {
    match text.to_str() {
        Some(text) => text.parse(),
        // Only a path can be other than UTF-8.
        None => StorageUrl::directory(Path::new(text)),
    }
}

fn parse<T: std::str::FromStr>(text: &OsStr, sentence: &'static str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text = text.to_str().ok_or_else(|| invalid(sentence))?;
    text.parse().map_err(|error: T::Err| invalid(sentence).with_source(error))
}

fn invalid(sentence: &'static str) -> Error {
    Error::new(ErrorKind::InvalidInput, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(given: Given, env: &[(&str, &str)]) -> Result<Config> {
        let env =
            |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        Config::resolve(given, env, 1000)
    }

    #[test]
    fn defaults_lie_in_the_users_data_directory() {
        for (env, home) in [
            (&[("HOME", "/home/u")][..], "/home/u/.local/share"),
            (&[("HOME", "/home/u"), ("XDG_DATA_HOME", "/data")], "/data"),
            (&[("HOME", "/home/u"), ("XDG_DATA_HOME", "")], "/home/u/.local/share"),
            (&[("HOME", "/home/u"), ("XDG_DATA_HOME", "relative")], "/home/u/.local/share"),
            (&[("HOME", "/home/u"), ("STRONGROOM_STORE", "")], "/home/u/.local/share"),
        ] {
            let config = resolve(Given::default(), env).unwrap();
            assert_eq!(config.urls.root.to_string(), format!("file://{home}/strongroom/store"));
            assert_eq!(config.local_kms, Path::new(home).join("strongroom/kms"));
            assert_eq!((config.urls.blobs, config.urls.keys, config.urls.audit), (None, None, None));
            assert_eq!(config.principal.to_string(), "unix:1000");
            assert_eq!(config.purpose.code(), "HSYSADMIN");
        }
    }

    #[test]
    fn options_win_over_variables_and_variables_over_defaults() {
        let env = [
            ("STRONGROOM_STORE", "s3://root-bucket/a"),
            ("STRONGROOM_BLOBS", "s3://blob-bucket"),
            ("STRONGROOM_KEYS", "s3://keys-bucket"),
            ("STRONGROOM_AUDIT", "s3://audit-bucket"),
            ("STRONGROOM_LOCAL_KMS", "/media/keys"),
            ("STRONGROOM_PRINCIPAL", "service:nightly"),
            ("STRONGROOM_PURPOSE", "TREAT"),
        ];
        let config = resolve(Given::default(), &env).unwrap();
        assert_eq!(config.urls.root.to_string(), "s3://root-bucket/a");
        assert_eq!(config.urls.blobs.unwrap().to_string(), "s3://blob-bucket");
        assert_eq!(config.urls.keys.unwrap().to_string(), "s3://keys-bucket");
        assert_eq!(config.urls.audit.unwrap().to_string(), "s3://audit-bucket");
        assert_eq!(config.local_kms, Path::new("/media/keys"));
        assert_eq!(config.principal.to_string(), "service:nightly");
        assert_eq!(config.purpose, Purpose::Treatment);

        let given = Given {
            store: Some("/srv/store".into()),
            blobs: Some("/srv/blobs".into()),
            keys: Some("/srv/keys".into()),
            audit: Some("/srv/audit".into()),
            local_kms: Some("/srv/kms".into()),
            log_key: Some("aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1".into()),
            witnesses: Vec::new(),
            principal: Some(Principal::Unix(7)),
            purpose: Some(Purpose::Legal),
            ..Given::default()
        };
        let config = resolve(given, &env).unwrap();
        assert_eq!(config.urls.root.to_string(), "file:///srv/store");
        assert_eq!(config.urls.audit.unwrap().to_string(), "file:///srv/audit");
        assert_eq!(config.local_kms, Path::new("/srv/kms"));
        assert_eq!((config.principal, config.purpose), (Principal::Unix(7), Purpose::Legal));
        assert!(matches!(config.log_key, LogKey::Kms(_)));
    }

    #[test]
    fn the_logs_key_is_a_file_or_text_in_the_environment_only() {
        let text = "PRIVATE+KEY+log+00000000+SECRET";
        let of = |given: Option<&str>, env: &[(&str, &str)]| {
            let given =
                Given { log_key: given.map(Into::into), local_kms: Some("/k".into()), ..Given::default() };
            resolve(given, &[&[("HOME", "/h")], env].concat()).unwrap().log_key
        };
        assert!(matches!(of(None, &[]), LogKey::File(path) if path == Path::new("/k/log.key")));
        assert!(matches!(of(Some("/x"), &[]), LogKey::File(path) if path == Path::new("/x")));
        let from_env = of(None, &[("STRONGROOM_LOG_KEY", text)]);
        assert!(matches!(&from_env, LogKey::Text(found) if found.as_str() == text));
        assert!(!format!("{from_env:?}").contains("SECRET"));
        assert!(matches!(of(Some(text), &[]), LogKey::File(_)), "a command line can be seen by all");
    }

    #[test]
    fn a_daemon_is_named_by_an_option_or_the_environment_and_needs_no_home() {
        let daemon = |given: Given, env: &[(&str, &str)]| {
            let env =
                |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            Config::daemon(&given, env, 1)
        };
        assert!(daemon(Given::default(), &[("STRONGROOM_DAEMON", "")]).unwrap().is_none());
        let env =
            [("STRONGROOM_DAEMON", "unix:/env"), ("STRONGROOM_CA", "/ca"), ("STRONGROOM_PURPOSE", "TREAT")];
        let (settings, access) = daemon(Given::default(), &env).unwrap().unwrap();
        assert_eq!((settings.daemon, settings.ca), (DaemonUrl::Unix("/env".into()), Some("/ca".into())));
        assert_eq!((settings.purpose, access.principal), (Purpose::Treatment, Principal::Unix(1)));
        let given =
            Given { daemon: Some("unix:/given".into()), ca: Some("/given".into()), ..Given::default() };
        let (settings, _) = daemon(given, &env).unwrap().unwrap();
        assert_eq!((settings.daemon, settings.ca), (DaemonUrl::Unix("/given".into()), Some("/given".into())));
        for bad in ["http://SECRET", "SECRET"] {
            let error = daemon(Given::default(), &[("STRONGROOM_DAEMON", bad)]).unwrap_err();
            assert!(
                error.kind() == ErrorKind::InvalidInput && !error.chain().contains("SECRET"),
                "{error:?}"
            );
        }
    }

    #[test]
    fn what_is_done_is_done_within_the_session_that_is_named() {
        let (one, other) = (SessionId::from_bytes([1; 16]), SessionId::from_bytes([2; 16]));
        let text = one.to_string();
        let env = [("HOME", "/home/u"), ("STRONGROOM_SESSION", text.as_str())];
        assert_eq!(resolve(Given::default(), &env[..1]).unwrap().access().session, None);
        assert_eq!(resolve(Given::default(), &env).unwrap().access().session, Some(one));
        let given = Given { session: Some(other), ..Given::default() };
        assert_eq!(resolve(given, &env).unwrap().access().session, Some(other));
    }

    #[test]
    fn an_emergency_is_for_emergency_treatment_unless_somebody_says_otherwise() {
        let purpose = |purpose: Option<Purpose>| {
            let emergency = Some(EmergencyId::from_bytes([1; 16]));
            let given = Given { daemon: Some("unix:/d".into()), emergency, purpose, ..Given::default() };
            let (settings, _) = Config::daemon(&given, |_| None, 1).unwrap().unwrap();
            assert_eq!(settings.emergency, emergency);
            settings.purpose
        };
        assert_eq!(purpose(None), Purpose::EmergencyTreatment);
        assert_eq!(purpose(Some(Purpose::Treatment)), Purpose::Treatment);
    }

    #[test]
    fn what_is_refused_is_not_repeated() {
        for (name, value) in [
            ("STRONGROOM_STORE", "s3://KEY:SECRET@bucket"),
            ("STRONGROOM_AUDIT", "SECRET:"),
            ("STRONGROOM_PRINCIPAL", "SECRET"),
            ("STRONGROOM_LOG_KEY", "aws-kms:SECRET SECRET"),
            ("STRONGROOM_WITNESSES", "https://SECRET SECRET"),
            ("STRONGROOM_PURPOSE", "SECRET"),
            ("STRONGROOM_SESSION", "SECRET"),
        ] {
            let error = resolve(Given::default(), &[("HOME", "/h"), (name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
            assert!(!error.chain().contains("SECRET"), "{}", error.chain());
        }
        assert_eq!(resolve(Given::default(), &[]).unwrap_err().kind(), ErrorKind::Configuration);
        let given = Given { store: Some("/s".into()), local_kms: Some("/k".into()), ..Given::default() };
        assert!(resolve(given, &[]).is_ok(), "no home is needed where all is named");
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_text() {
        use std::os::unix::ffi::OsStringExt;
        let given = Given { store: Some(OsString::from_vec(b"/a/\xff".to_vec())), ..Given::default() };
        let config = resolve(given, &[("HOME", "/h")]).unwrap();
        assert_eq!(config.urls.root.to_string(), "file:///a/%FF");
    }
}
