//! `serve`: the daemon, from its configuration to its end.
//!
//! The mapping of credentials to principals is recorded before it is used. SIGHUP reads it and
//! the TLS files anew, and keeps what it had where they cannot be used, or the mapping cannot be
//! recorded. SIGTERM and SIGINT end it in order: nothing more is accepted, what is under way is
//! finished or cut when its time is over, the log is closed.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::{from_fn, from_fn_with_state};
use futures_util::FutureExt;
use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::CapabilitySet;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::args::{Global, Serve};
use super::exit::Exit;
use super::failure::Failure;
use super::keys::LocalKeys;
use super::output::{Output, line};
use super::{log_key, no_store, options};
use crate::access::policy::RoleMatrix;
use crate::access::{Access, Principal, Purpose};
use crate::config::Config;
use crate::daemon::alarm::{Alarms, Delivery, Sender, Webhook};
use crate::daemon::api::{Figures, Shared, keep_emergencies, router};
use crate::daemon::config::DaemonConfig;
use crate::daemon::directory::{ConfigError, Directory};
use crate::daemon::gate::{Gate, admit, record};
use crate::daemon::limits::Limiter;
use crate::daemon::listen::{Activated, Listeners};
use crate::daemon::oidc::Verifier;
use crate::daemon::tasks::{self, Punctual};
use crate::daemon::telemetry::Telemetry;
use crate::daemon::tls::ReloadingTls;
use crate::daemon::unread::pass_over;
use crate::durable;
use crate::room::Strongroom;
use crate::store::{CreateRoot, Storages};
use crate::system::{SystemClock, SystemEntropy};

/// How long a file of configuration is at most, in bytes.
const MAX_LEN: u64 = 4 * 1024 * 1024;

/// Everything that files say, read and checked.
struct Ready {
    config: DaemonConfig,
    tls: Option<Arc<ReloadingTls>>,
    gate: Arc<Gate>,
    webhook: Option<Webhook>,
}

pub(super) fn run(global: &Global, command: &Serve, output: Output) -> Result<(), Failure> {
    harden();
    let locked = lock_memory();
    // Before there are threads, which could be reading the environment.
    let activated = Activated::from_environment();
    let ready = read(command)?;
    let mut telemetry = Telemetry::of(&ready.config.log)?;
    if command.check {
        let listening = (ready.config.listen.tls, ready.config.listen.unix.as_ref());
        return output.print(&match output.json {
            true => line(&json!({ "ok": true, "tls": listening.0, "unix": listening.1 })),
            false => "the configuration is good\n".to_owned(),
        });
    }
    let runtime = super::runtime()?;
    telemetry.begin(runtime.handle())?;
    if !locked {
        tracing::warn!("keys are not locked in memory: allow it (LimitMEMLOCK=infinity), or have no swap");
    }
    let served = runtime.block_on(serve(global, ready, activated, output));
    telemetry.end();
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

/// No core dump and no debugger may see keys. What the system does not let us have is
/// left: the manual says so.
fn harden() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(Resource::Core, none);
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Each connection takes a descriptor, and each request some more.
    let descriptors = rustix::process::getrlimit(Resource::Nofile);
    let _ =
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors });
}

/// Keeps all of this process's memory out of swap, keys and plaintext with it, page by page as it
/// is used. Only where there is no limit on that, or none for us (mlock(2), `CAP_IPC_LOCK`): under
/// one, memory would run out at the limit. Whether it was done is returned.
fn lock_memory() -> bool {
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let _ = rustix::process::setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit });
    let exempt = rustix::thread::capabilities(None)
        .is_ok_and(|capabilities| capabilities.effective.contains(CapabilitySet::IPC_LOCK));
    (exempt || rustix::process::getrlimit(Resource::Memlock).current.is_none())
        && rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
            .is_ok()
}

fn read(command: &Serve) -> Result<Ready, Failure> {
    let config = DaemonConfig::parse(&text(&command.config)?, &command.config)
        .map_err(|error| unusable(&command.config, error))?;
    let tls = config.tls_files().map(ReloadingTls::load).transpose()?.map(Arc::new);
    let tokens = match config.issuer.is_empty() {
        true => None,
        false => Some(Verifier::new(config.issuer.clone(), Arc::new(SystemClock))?),
    };
    let gate = Arc::new(Gate::new(directory(&config.principals)?, tokens));
    let webhook = Webhook::of(&config.alarms)?;
    Ok(Ready { config, tls, gate, webhook })
}

pub(super) fn directory(path: &Path) -> Result<Directory, Failure> {
    Directory::parse(&text(path)?).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: ConfigError) -> Failure {
    Failure::new(Exit::Configuration, "configuration", format!("{}, {error}", path.display()))
}

fn text(path: &Path) -> Result<String, Failure> {
    let read = || String::from_utf8(durable::read(path, MAX_LEN)?).map_err(io::Error::other);
    read().map_err(|error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Failure::new(Exit::Configuration, "configuration", message)
    })
}

/// Where the store is: as the command line says, else the file, else as for every command.
fn settle(global: &Global, ready: &DaemonConfig) -> Result<Config, Failure> {
    let (mut given, store) = (global.given(), ready.store.clone());
    let text = |given: Option<OsString>, here: Option<String>| given.or_else(|| here.map(OsString::from));
    given.store = text(given.store, store.url);
    given.blobs = text(given.blobs, store.blobs);
    given.keys = text(given.keys, store.keys);
    given.audit = text(given.audit, store.audit);
    given.log_key = text(given.log_key, store.log_key);
    given.other_log_key = text(given.other_log_key, store.other_log_key);
    given.local_kms = given.local_kms.or(store.local_kms);
    if given.witnesses.is_empty() {
        given.witnesses = store.witnesses;
    }
    let uid = rustix::process::getuid().as_raw();
    Ok(Config::resolve(given, |name| std::env::var_os(name), uid)?)
}

async fn serve(
    global: &Global,
    mut ready: Ready,
    activated: Activated,
    output: Output,
) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let config = settle(global, &ready.config)?;
    let storages = Storages::open(&config.urls, CreateRoot::No, Arc::new(SystemClock))
        .await
        .map_err(|error| no_store(&config, error))?;
    storages.try_out(&SystemClock).await?;
    let keys = LocalKeys::new(config.local_kms.clone());
    let signers = log_key::load_both(&config).await?;
    let mut options = options(&config, signers)?;
    options.own_shard = true;
    let believed = ready.config.keys;
    options.key_ttl = believed.cache_seconds.map_or(options.key_ttl, Duration::from_secs);
    options.emergency_directory.clone_from(&ready.config.emergency.directory);
    options.session_check = believed.session_check_seconds.map_or(options.session_check, Duration::from_secs);
    let room = Strongroom::open(storages, keys.registry(), options)
        .await
        .map_err(|error| no_store(&config, error))?;
    let own = Access::new(Principal::service("daemon").map_err(internal)?, Purpose::SystemAdministration);
    // Before anybody can ask. If we stop here, the log has a mapping that nobody went by.
    record(room.log(), &own, &ready.gate.directory()).await?;
    let listeners = listen(&ready, activated).await?;
    let addresses = listeners.addresses();

    let (alarms, delivery) = alarms(&mut ready, &room)?;
    let published = Punctual::new(Arc::new(SystemClock), ready.config.tasks.publish());
    let shared = Shared {
        room: room.clone(),
        published: published.clone(),
        policy: Arc::new(RoleMatrix),
        clock: Arc::new(SystemClock),
        body_idle: ready.config.body_idle(),
        limiter: Limiter::new(ready.config.allowance()),
        figures: Figures::new(alarms.clone()),
        own: own.clone(),
    };
    let shared = Arc::new(shared);
    let app = router(Arc::clone(&shared)).layer(from_fn_with_state(Arc::clone(&ready.gate), admit));
    let app = app.layer(from_fn(pass_over));
    let (end, ended) = watch::channel(false);
    let mut tasks = tasks::begin(&ready.config, &room, &own, &alarms, &published);
    if room.has_emergency_access() {
        tasks.spawn(keep_emergencies(shared));
    }
    let (silence, silenced) = oneshot::channel::<()>();
    let sending = delivery.map(|delivery| tokio::spawn(delivery.run(silenced.map(drop))));
    output.print(&match output.json {
        true => {
            line(&json!({ "store": room.store_id(), "tls": addresses, "unix": ready.config.listen.unix }))
        }
        false => addresses.iter().map(|address| format!("listening at https://{address}\n")).collect(),
    })?;
    notify(&[NotifyState::Ready]);
    tracing::info!(store = %room.store_id(), "the daemon serves");

    let serving = listeners.serve(app, ready.config.limits(), ended);
    tokio::pin!(serving);
    let drained = loop {
        tokio::select! {
            drained = &mut serving => break drained,
            signal = signals.next() => if signal == Asked::Reload {
                tokio::select! {
                    drained = &mut serving => break drained,
                    () = reload(&ready, &room, &own) => {}
                }
            } else {
                notify(&[NotifyState::Stopping]);
                tracing::info!("the daemon ends when what is under way is done");
                let _ = end.send(true);
                break serving.await;
            }
        }
    };
    // What one of these is at goes on with the next run.
    tasks.shutdown().await;
    // Last, so that what was noticed until now is sent or kept.
    drop(silence);
    if let Some(sending) = sending {
        sending.await.map_err(internal)?;
    }
    if drained.cut > 0 {
        tracing::warn!(connections = drained.cut, "what was not done in time was cut");
    }
    Ok(room.close().await?)
}

/// Where alarms are raised, and what sends them if there is somebody to send them to.
fn alarms(ready: &mut Ready, room: &Strongroom) -> Result<(Alarms, Option<Delivery>), Failure> {
    let Some(webhook) = ready.webhook.take() else { return Ok((Alarms::default(), None)) };
    let sender = Sender {
        store: room.store_id(),
        repeat: ready.config.alarms.repeat(),
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
    };
    let (alarms, delivery) = Alarms::sent(sender, webhook);
    Ok((alarms, Some(delivery.take_up()?)))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Internal, "internal", error.to_string())
}

/// The sockets that were handed over, or else those of the configuration.
async fn listen(ready: &Ready, activated: Activated) -> Result<Listeners, Failure> {
    let mut listeners = Listeners::new();
    if listeners.adopt(activated, ready.tls.as_ref())? > 0 {
        return Ok(listeners);
    }
    if let (Some(address), Some(tls)) = (ready.config.listen.tls, &ready.tls) {
        listeners.bind_tls(address, Arc::clone(tls)).await?;
    }
    if let Some(path) = &ready.config.listen.unix {
        listeners.bind_unix(path).await?;
    }
    if listeners.is_empty() {
        let message = "there is nothing to listen at";
        return Err(Failure::new(Exit::Configuration, "configuration", message)
            .hint("name an address (`tls`) or a Unix socket (`unix`) under [listen]"));
    }
    Ok(listeners)
}

async fn reload(ready: &Ready, room: &Strongroom, own: &Access) {
    // Either is kept as it was where the new one cannot be used.
    match directory(&ready.config.principals) {
        Ok(directory) => match record(room.log(), own, &directory).await {
            Ok(()) => {
                ready.gate.replace(directory);
                tracing::info!("the principals were read anew");
            }
            Err(error) => tracing::error!(
                reason = error.chain(),
                "the principals are as they were: the new ones could not be recorded"
            ),
        },
        Err(failure) => tracing::error!(reason = failure.message(), "the principals are as they were"),
    }
    match ready.tls.as_ref().map(|tls| tls.reload()) {
        Some(Ok(())) => tracing::info!("the TLS files were read anew"),
        Some(Err(error)) => tracing::error!(reason = error.chain(), "the TLS files are as they were"),
        None => {}
    }
}

fn notify(state: &[NotifyState<'_>]) {
    // There may be nobody who listens.
    let _ = sd_notify::notify(state);
}

/// What a signal asks for.
#[derive(PartialEq, Eq)]
enum Asked {
    Reload,
    End,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(internal);
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::End,
            _ = self.terminate.recv() => Asked::End,
        }
    }
}
