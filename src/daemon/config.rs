//! The daemon's configuration: one TOML file.
//!
//! Unknown keys are refused, and what is wrong is told with its line. Nothing of a file's
//! content is repeated. Where the store is can be said here, or as for every other command.
//!
//! ```toml
#![doc = include_str!("../../examples/strongroom.toml")]
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::directory::ConfigError;
use super::limits::Allowance;
use super::listen::Limits;
use super::oidc::IssuerConfig;
use super::tls::TlsFiles;

/// The file, as it is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DaemonConfig {
    /// The mapping of principals, a TOML file of its own ([`Directory`](super::directory::Directory)).
    pub principals: PathBuf,
    /// Where the store is, if not as for other commands.
    #[serde(default)]
    pub store: StoreConfig,
    /// Where it listens.
    #[serde(default)]
    pub listen: ListenConfig,
    /// Whose tokens are accepted.
    #[serde(default)]
    pub issuer: Vec<IssuerConfig>,
    /// What clients may take.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How long it believes what it knows of keys and sessions.
    #[serde(default)]
    pub keys: KeysConfig,
    /// Whether a person can read in an emergency.
    #[serde(default)]
    pub emergency: EmergencyConfig,
    /// What it tells its operator.
    #[serde(default)]
    pub log: LogConfig,
    /// What it does by itself.
    #[serde(default)]
    pub tasks: TasksConfig,
    /// Whom it alarms.
    #[serde(default)]
    pub alarms: AlarmsConfig,
}

/// Where the store is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// A URL, or an absolute path.
    pub url: Option<String>,
    /// Its blobs, if elsewhere.
    pub blobs: Option<String>,
    /// Its keys, if elsewhere.
    pub keys: Option<String>,
    /// Its audit log, if elsewhere.
    pub audit: Option<String>,
    /// The directory of the local provider's keys.
    pub local_kms: Option<PathBuf>,
    /// The log's signing key: a file, or a key of a KMS.
    pub log_key: Option<String>,
    /// While that key is replaced, the next or the one before.
    pub other_log_key: Option<String>,
    /// Witnesses, each a URL, a space and a key.
    #[serde(default)]
    pub witnesses: Vec<String>,
}

/// Where it listens. There is no TCP without TLS.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// A TCP address, for TLS.
    pub tls: Option<SocketAddr>,
    /// The server's certificate and those between it and its CA, PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// The CAs whose clients are let in, PEM.
    pub client_ca: Option<PathBuf>,
    /// Lists of revoked certificates, PEM.
    pub crl: Option<PathBuf>,
    /// A Unix socket, for jobs on this host.
    pub unix: Option<PathBuf>,
}

/// What clients may take. What is not said is as in [`Limits::default`] and [`Allowance::default`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// How many connections are open at a time, on each socket.
    pub connections: Option<usize>,
    /// How many of them are one peer's.
    pub connections_per_peer: Option<usize>,
    /// How long the next piece of a body may take, in seconds: 300 unless it is said.
    pub body_idle_seconds: Option<u64>,
    /// How long a client may take nothing of an answer, in seconds.
    pub write_idle_seconds: Option<u64>,
    /// How long what is under way may take when the daemon ends, in seconds.
    pub drain_seconds: Option<u64>,
    /// How many requests begin in a second: of a principal, and on a customer.
    pub requests_per_second: Option<u32>,
    /// How many may begin at once after a pause.
    pub burst: Option<u32>,
    /// How many requests of a principal are under way at a time.
    pub concurrent_per_principal: Option<u32>,
    /// How many requests on a customer are under way at a time.
    pub concurrent_per_customer: Option<u32>,
}

/// How long it believes what it knows of keys and sessions: the bounds of a revocation.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// How long a key or ring is used before it is fetched again, in seconds: 300 unless it is
    /// said, 43200 at most. A key that was disabled in the KMS works for this long.
    pub cache_seconds: Option<u64>,
    /// How long a look at a session is good for, in seconds: 5 unless it is said, 60 at most.
    /// A session that another node ended works for this long.
    pub session_check_seconds: Option<u64>,
}

/// Whether a person can read while the audit log cannot be written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmergencyConfig {
    /// A directory on a local disk of this node, and no other's, where it is recorded
    /// meanwhile. Without one there is no emergency access here.
    pub directory: Option<PathBuf>,
}

/// What it tells its operator. It is not the audit log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How its lines look.
    #[serde(default)]
    pub format: LogFormat,
    /// From which level on.
    #[serde(default)]
    pub level: LogLevel,
    /// A collector that gets the same, if the build has the feature `otel`.
    pub otlp: Option<OtlpConfig>,
}

/// An OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where it is: `https://`, or `http://` of a loopback address. Records go to `/v1/logs` under
    /// it.
    pub url: String,
    /// The CAs that its certificate is of, PEM, in place of the system's.
    pub ca: Option<PathBuf>,
    /// What is sent as a bearer token; read each time.
    pub token_file: Option<PathBuf>,
}

/// How the lines of its log look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// From which level on its log has lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "they are those of every log")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
}

/// What it does by itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TasksConfig {
    /// How often what is due is destroyed, in seconds. 0: never, as something else sees to it.
    pub sweep_seconds: Option<u64>,
    /// How old a checkpoint may get, in seconds: 60 unless it is said. 0: never published, as something
    /// else sees to it.
    pub publish_seconds: Option<u64>,
    /// How often the log is maintained, in seconds. 0: never.
    pub maintain_seconds: Option<u64>,
    /// How often sessions that are over are ended at the KMS too, in seconds. 0: never, as
    /// it is another node that makes grants.
    pub sessions_seconds: Option<u64>,
    /// How often epochs and KMS keys are looked at, in seconds. 0: never.
    pub check_seconds: Option<u64>,
    /// How often everything is read through and checked, in seconds: never, unless it is said.
    /// One daemon of a store is enough.
    pub verify_seconds: Option<u64>,
    /// The directory of its dated results.
    pub verify_reports: Option<PathBuf>,
}

/// Whom it alarms. Without a webhook, alarms are counted and in its log.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlarmsConfig {
    /// Where alarms are sent, `https://`.
    pub webhook: Option<String>,
    /// The CAs that the webhook's certificate is of, PEM, in place of the system's.
    pub ca: Option<PathBuf>,
    /// What is sent as a bearer token; read each time.
    pub token_file: Option<PathBuf>,
    /// The directory in which alarms wait until the webhook has taken them. Without one they wait
    /// in memory, and end with the daemon. Each daemon has its own.
    pub spool: Option<PathBuf>,
    /// How long after an alarm another about the same is not sent, in seconds: 3600 unless it is
    /// said.
    pub repeat_seconds: Option<u64>,
    /// How long the newest epoch may last before that is an alarm, in days: 14 unless it is said.
    pub epoch_days: Option<u64>,
}

impl AlarmsConfig {
    /// How long after an alarm another about the same is not sent.
    #[must_use]
    pub fn repeat(&self) -> Duration {
        Duration::from_secs(self.repeat_seconds.unwrap_or(3600))
    }

    /// How long the newest epoch may last.
    #[must_use]
    pub fn epoch(&self) -> Duration {
        Duration::from_secs(self.epoch_days.unwrap_or(14).saturating_mul(24 * 3600))
    }
}

impl TasksConfig {
    /// The sweep's, unless it is said: an hour.
    #[must_use]
    pub fn sweep(&self) -> Option<Duration> {
        every(self.sweep_seconds, 3600)
    }

    /// How often the log is published, unless it is said: a minute.
    #[must_use]
    pub fn publish(&self) -> Option<Duration> {
        every(self.publish_seconds, 60)
    }

    /// The log's, unless it is said: an hour.
    #[must_use]
    pub fn maintain(&self) -> Option<Duration> {
        every(self.maintain_seconds, 3600)
    }

    /// The sessions', unless it is said: 5 minutes.
    #[must_use]
    pub fn sessions(&self) -> Option<Duration> {
        every(self.sessions_seconds, 300)
    }

    /// That of epochs and KMS keys, unless it is said: six hours.
    #[must_use]
    pub fn check(&self) -> Option<Duration> {
        every(self.check_seconds, 6 * 3600)
    }

    /// The verification's, and the directory of its results.
    #[must_use]
    pub fn verify(&self) -> Option<(Duration, PathBuf)> {
        Some((every(self.verify_seconds, 0)?, self.verify_reports.clone()?))
    }
}

fn every(seconds: Option<u64>, unless: u64) -> Option<Duration> {
    match seconds.unwrap_or(unless) {
        0 => None,
        seconds => Some(Duration::from_secs(seconds)),
    }
}

impl DaemonConfig {
    /// Reads a file's text. Paths in it that are not absolute are beside `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with the line of what cannot be used.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            ConfigError::new(line, what(error.message()))
        })?;
        config.check(text)?;
        let beside = file.parent().unwrap_or(Path::new("/")).to_owned();
        let ListenConfig { certificate, key, client_ca, crl, unix, .. } = &mut config.listen;
        let paths = [certificate, key, client_ca, crl, unix].into_iter().flatten();
        let AlarmsConfig { ca, token_file, spool, .. } = &mut config.alarms;
        let more = [ca, token_file, spool, &mut config.tasks.verify_reports, &mut config.store.local_kms];
        let more = more.into_iter().flatten().chain(config.emergency.directory.as_mut());
        let more = more.chain(config.issuer.iter_mut().filter_map(|issuer| issuer.ca.as_mut()));
        let collector = config.log.otlp.as_mut();
        let more = more.chain(collector.into_iter().flat_map(|otlp| {
            let OtlpConfig { ca, token_file, .. } = otlp;
            [ca, token_file].into_iter().flatten()
        }));
        for path in paths.chain([&mut config.principals]).chain(more) {
            *path = beside.join(&*path);
        }
        Ok(config)
    }

    fn check(&self, text: &str) -> Result<(), ConfigError> {
        let line = |table: &str| {
            let found = text.lines().position(|line| line.trim_start().starts_with(table));
            found.map_or(1, |line| line + 1)
        };
        let listen = &self.listen;
        let files = [&listen.certificate, &listen.key, &listen.client_ca];
        let wrong = |what| Err(ConfigError::new(line("[listen]"), what));
        if listen.tls.is_some() && files.iter().any(|file| file.is_none()) {
            return wrong("TLS takes a certificate, its key, and the CA of the clients: name all three");
        }
        if listen.tls.is_none() && listen.crl.iter().chain(files.into_iter().flatten()).next().is_some() {
            return wrong(
                "the TLS files are for an address: say `tls = \"0.0.0.0:8443\"`, or leave them out",
            );
        }
        let tasks = &self.tasks;
        if tasks.verify_seconds.is_some_and(|seconds| seconds > 0) != tasks.verify_reports.is_some() {
            let what = "a verification takes both how often (`verify_seconds`) and a directory for its \
                        results (`verify_reports`)";
            return Err(ConfigError::new(line("[tasks]"), what));
        }
        let alarms = &self.alarms;
        let of_webhook = [&alarms.ca, &alarms.token_file, &alarms.spool];
        if alarms.webhook.is_none() && of_webhook.iter().any(|path| path.is_some()) {
            let what = "these are for a webhook: name it (`webhook = \"https://…\"`), or leave them out";
            return Err(ConfigError::new(line("[alarms]"), what));
        }
        let limits = self.limits;
        let none = [limits.connections, limits.connections_per_peer].contains(&Some(0))
            || [limits.body_idle_seconds, limits.write_idle_seconds, limits.drain_seconds].contains(&Some(0))
            || [limits.requests_per_second, limits.burst].contains(&Some(0))
            || [limits.concurrent_per_principal, limits.concurrent_per_customer].contains(&Some(0));
        if none {
            return Err(ConfigError::new(
                line("[limits]"),
                "a limit of 0 lets nothing through: leave it out, or say more",
            ));
        }
        let KeysConfig { cache_seconds, session_check_seconds } = self.keys;
        if cache_seconds.is_some_and(|seconds| !(1..=43_200).contains(&seconds))
            || session_check_seconds.is_some_and(|seconds| !(1..=60).contains(&seconds))
        {
            let what = "keys are believed for 1 to 43200 seconds, and sessions for 1 to 60";
            return Err(ConfigError::new(line("[keys]"), what));
        }
        Ok(())
    }

    /// The TLS files, if it listens on TCP.
    #[must_use]
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let ListenConfig { certificate, key, client_ca, crl, .. } = self.listen.clone();
        Some(TlsFiles { certificate: certificate?, key: key?, client_ca: client_ca?, crl })
    }

    /// What connections may take.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.connections = self.limits.connections.unwrap_or(limits.connections);
        limits.connections_per_peer = self.limits.connections_per_peer.unwrap_or(limits.connections_per_peer);
        limits.grace = self.limits.drain_seconds.map_or(limits.grace, Duration::from_secs);
        limits.write_idle = self.limits.write_idle_seconds.map_or(limits.write_idle, Duration::from_secs);
        limits
    }

    /// What one principal, and the requests on one customer, may take.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        let (given, unless) = (&self.limits, Allowance::default());
        Allowance {
            requests_per_second: given.requests_per_second.unwrap_or(unless.requests_per_second),
            burst: given.burst.unwrap_or(unless.burst),
            concurrent_per_principal: given
                .concurrent_per_principal
                .unwrap_or(unless.concurrent_per_principal),
            concurrent_per_customer: given.concurrent_per_customer.unwrap_or(unless.concurrent_per_customer),
        }
    }

    /// How long the next piece of a body may take.
    #[must_use]
    pub fn body_idle(&self) -> Duration {
        Duration::from_secs(self.limits.body_idle_seconds.unwrap_or(300))
    }
}

/// A sentence of ours for one of the parser's, which may repeat what is in the file.
fn what(message: &str) -> &'static str {
    let kinds = [
        ("unknown field", "there is no such key here: see the sample in the manual"),
        (
            "unknown variant",
            "this key has a few values, and that is none of them: see the sample in the manual",
        ),
        ("missing field", "a key is missing: see the sample in the manual"),
        ("duplicate", "a key is there twice: leave one out"),
        ("invalid type", "a value of another kind belongs here: see the sample in the manual"),
        ("invalid socket address", "that is no address and port, as in 0.0.0.0:8443"),
    ];
    let found = kinds.iter().find(|(begin, _)| message.starts_with(begin));
    found.map_or("it is not TOML as it is meant here", |(_, sentence)| sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../examples/strongroom.toml");

    fn parse(text: &str) -> Result<DaemonConfig, ConfigError> {
        DaemonConfig::parse(text, Path::new("/etc/strongroom/daemon.toml"))
    }

    #[test]
    fn the_sample_is_good_and_its_paths_are_beside_it() {
        let config = parse(SAMPLE).unwrap();
        assert_eq!(config.principals, Path::new("/etc/strongroom/principals.toml"));
        assert!(config.tls_files().is_some() && config.listen.unix.is_some());
        assert_eq!(config.issuer[0].ca.as_deref(), Some(Path::new("/etc/strongroom/tls/login.pem")));
        assert_eq!(config.emergency.directory.as_deref(), Some(Path::new("/var/lib/strongroom/emergencies")));
        let least = parse("principals = \"/p.toml\"").unwrap();
        assert_eq!(least.principals, Path::new("/p.toml"));
        assert_eq!(least.emergency.directory, None);
        assert_eq!(
            (least.tls_files(), least.limits(), least.body_idle().as_secs()),
            (None, Limits::default(), 300)
        );
        assert_eq!(least.allowance(), Allowance::default());
        let sample = (config.limits(), config.allowance());
        assert_eq!(
            sample,
            (Limits::default(), Allowance::default()),
            "the sample shows what is so unless it is said"
        );
        assert_eq!(least.tasks.sweep(), Some(Duration::from_secs(3600)));
        assert_eq!((least.tasks.check(), least.tasks.verify()), (Some(Duration::from_secs(6 * 3600)), None));
        assert_eq!((least.alarms.webhook.as_ref(), least.alarms.repeat().as_secs()), (None, 3600));
        let (weekly, reports) = config.tasks.verify().unwrap();
        assert_eq!((weekly.as_secs(), &*reports), (604_800, Path::new("/var/lib/strongroom/verifications")));
        assert_eq!(config.alarms.ca.as_deref(), Some(Path::new("/etc/strongroom/tls/alarms.pem")));
        assert_eq!(config.alarms.epoch(), Duration::from_secs(14 * 24 * 3600));
        let collector = config.log.otlp.unwrap();
        assert_eq!(collector.ca.as_deref(), Some(Path::new("/etc/strongroom/tls/collector.pem")));
        let never = parse("principals = \"/p.toml\"\n[tasks]\nsweep_seconds = 0").unwrap();
        assert_eq!(never.tasks.sweep(), None);
    }

    #[test]
    fn each_kind_of_mistake_is_told_with_its_line() {
        for (text, line, says) in [
            ("principals = \"p\"\nJane = \"Doe\"", 2, "no such key"),
            ("principals = \"p\"\n[listen]\nhttp = \"0.0.0.0:80\"", 3, "no such key"),
            ("principals = \"p\"\n\n[log]\nformat = \"xml\"", 4, "none of them"),
            ("[listen]\nunix = \"/s\"", 1, "missing"),
            ("principals = \"p\"\nprincipals = \"q\"", 2, "twice"),
            ("principals = 7", 1, "another kind"),
            ("principals = \"p\"\n[listen]\ntls = \"Jane Doe\"", 3, "no address"),
            ("principals = \"p\"\n[listen]\ntls = \"0.0.0.0:1\"\ncertificate = \"c\"", 2, "all three"),
            ("principals = \"p\"\n[listen]\nkey = \"k\"", 2, "for an address"),
            ("principals = \"p\"\n[limits]\nconnections = 0", 2, "limit of 0"),
            ("principals = \"p\"\n[keys]\ncache_seconds = 43201", 2, "believed"),
            ("principals = \"p\"\n\n[keys]\nsession_check_seconds = 0", 3, "believed"),
            ("principals = \"p\"\n[tasks]\nverify_seconds = 86400", 2, "directory for its results"),
            ("principals = \"p\"\n[tasks]\nverify_reports = \"r\"", 2, "how often"),
            ("principals = \"p\"\n\n[log.otlp]\nca = \"c\"", 3, "missing"),
            ("principals = \"p\"\n[log]\notlp = \"https://Jane\"", 3, "another kind"),
            ("principals = \"p\"\n\n[alarms]\nspool = \"s\"", 3, "for a webhook"),
            ("principals = \"p\"\n[alarms]\nurl = \"https://Jane\"", 3, "no such key"),
            ("principals = \"p\"\n[limits]\nrequests_per_second = 0", 2, "limit of 0"),
            ("principals = \"p\"\n[limits]\nburst = 0", 2, "limit of 0"),
            ("principals = \"p\"\n[limits]\nconcurrent_per_principal = 0", 2, "limit of 0"),
            ("principals = \"p\"\n[limits]\nconcurrent_per_customer = 0", 2, "limit of 0"),
            ("principals = \"p\"\n[limits]\nwrite_idle_seconds = 0", 2, "limit of 0"),
            ("principals = \"p\"\n[limits]\nburst = -1", 3, ""),
            ("principals = \"p\"\n[limits]\nbursts = 1", 3, "no such key"),
            ("principals = \"p\n", 1, "not TOML"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.line(), line, "{text}: {error}");
            assert!(error.to_string().contains(says), "{text}: {error}");
            assert!(!error.to_string().contains("Jane") && !error.to_string().contains("Doe"));
        }
    }
}
