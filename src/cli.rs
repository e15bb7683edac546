//! The command line: parse, call the façade, print.
//!
//! Nothing is decided here that a library user could not decide. What is added:
//!
//! * **Exit codes** that a cron job can trust (`--help` has the table).
//! * **Plaintext goes where it was asked to go**, and to a terminal never
//!   unasked. A file appears when it is whole and authentic.
//! * **No user text in messages**: names, paths and values that were typed are
//!   not repeated; a mail from a cron job must not carry PHI.
//! * **Signals** end an operation in order: it is recorded as aborted, and what
//!   was half-written is removed.
//!
//! * **A daemon in place of a store**, with `--daemon`: the same commands, the same output.
//!
//! # JSON
//! With `--json`, each command prints one object, or one a line. Fields are
//! never renamed; times are RFC 3339 in UTC, days `YYYY-MM-DD`, sizes bytes.
//!
//! | command | fields |
//! |---|---|
//! | `init` | `store`, `created`, `root`, `log_key` |
//! | `customer add`, `show`, `set` | `label`, `customer`, `kms_key`, `retention`, `window`, `suite`, `strict`, `held`, `ring_version`, `epoch`, `keys` |
//! | `customer list` | `customers`: such objects |
//! | `person keygen` | `principal`, `key` (the public one) |
//! | `person found`, `list` | `people`: objects of `principal`, `key`, `since`, `until` (null while they may sign) |
//! | `put` | `blob`, `bytes`, `stored_bytes`, `retain_until` |
//! | `get -o FILE` | `blob`, `bytes` (written), `first` (the position of the first) |
//! | `get -o -` | nothing but the plaintext |
//! | `ls`, a line | `blob`, `name`, `content_type`, `meta`, `bytes`, `stored_bytes`, `sealed_at`, `retain_until`, `held`, `suite`, `kek`; or `blob`, `stored_bytes`, `error` |
//! | `ls --ids`, a line | `blob`, `stored_bytes`, `stored_at` |
//! | `stat` | as `ls` |
//! | `retention show`, `set` | `policy` (the one for new blobs) and `policies` (all there were): objects of `number`, `since`, `retention`, `window`, `order` (null unless it shortened something) |
//! | `retention extend` | `blob`, `retain_until`, `changed` |
//! | `rekey --kms` | `customer`, `kms_key`, `from`, `ring_version`, `keys`, `changed` |
//! | `rekey --status` | `customer`, `kms_key`, `since`, `former`: objects of `kms_key`, `last_use`, `uses_since` |
//! | `offboard status`, `reopen` | `customer`, `stage`, `order`, `active`, `pending`, `until`, `dropped`, `holds`, `kms_key` |
//! | `offboard return` | `customer`, `order`, `return_to`, `manifest` and `list` (their SHA-256), `counts`: `returned`, `bytes`, `missing`, `unfinished`, `unlogged` |
//! | `offboard destroy` | `customer`, `pended`, `until` |
//! | `offboard finish` | `customer`, `keys`: objects of `kms_key`, `end`, `due` |
//! | `hold place` | as `hold list`, and `ring_version` |
//! | `hold list`, a line | `hold`, `scope` (`customer`, `day` or `blob`), `day`, `blob`, `placed`, `state` (`opening`, `complete` or `released`), `released_by`, `released_at` |
//! | `shred plan`, a line | `customer`, `label`, `ring_version`, `kind` (`day`, `hold` or `names`), `day`, `key`, `blobs`, `uncertain` and `surviving` (how many), `bytes` (of the blobs), `verdict` (`pend`, `close`, `waits`, `drop` or `held`), `until`, `order`, `holds`, `why`; or `customer`, `error` |
//! | `shred run`, a line | `customer`, `label`, `pended`, `dropped`, `held` and `waiting` (keys), `certificates`: objects of `certificate`, `stage`; with `--delete-ciphertext` `removed`: `days`, `objects`, `versions`, `delete_markers`, `bytes`, `locked` and `denied` (refused); or `customer`, `error` |
//! | `shred status` | `customers`: objects of `customer`, `label`, `ring_version`, `window`: objects of `key`, `kind`, `day`, `until`, `order`, `held`; `unfinished`: objects of `certificate`, `stage`, `keys`, `dropped`, `order`, `epochs` (waited for); `holds`: as `hold list`; and `orders`: as `order list`. Before it, a line for each customer that failed: `customer`, `error` |
//! | `shred cancel` | `customer`, `ring_version`, `cancelled` (keys) |
//! | `order request`, `shred request`, `hold release`, `order submit` of one signature | `order`, `what`, `customer`, `requested_by`, `expires`, `approve` (the command to type) |
//! | `order approve`, `shred approve`, `order submit` of two signatures | `order`, `done`: `before`; or `pended` with `keys`, `until`, `waiting_for` (blobs); or `ring` with `ring_version`; or `register` with `register_version` |
//! | `order list`, a line | `order`, `state` (`requested`, `approved`, `done` or `expired`), `what` (as in the [order](crate::order#the-text)), `customer`, `ring`, `requested_by`, `requested_at`, `not_before`, `expires` |
//! | `order show` | as `order list`, and `signatures`: objects of `by`, `standing` (`good`, `left`, `unknown` or `false`) |
//! | `order draft` | nothing but the text of the order |
//! | `order sign`, `order show --note` | nothing but the signed note |
//! | `verify`, a line | `blob`, `ok`, `bytes`; or `blob`, `ok`, `error`; with `--all` also `customer`, and `destroyed` (true) where that is why |
//! | `restore` | the document of [`Restored`](crate::restore::Restored), in a line |
//! | `doctor` | `ok`, `problems`, `warnings`, `checks`: objects of `subject`, `state`, `what`, and `fix` unless all is well |
//! | `doctor --policies` | `documents`: objects of `name`, `what`, `apply`, `document` |
//! | `session open`, `approve`, `end`, `list`, a line | `session`, `customer`, `state` (`open` or `over`), `why` (`asked`, `idle`, `expired` or `no-grant`; null while it is open), `opened`, `expires`, `last_use`, `idle_seconds`, `absolute_seconds`, `only` (null, or `principal` and `purpose`) |
//! | `session request` | `access_request` |
//! | `session requests`, a line | `access_request`, `customer`, `by` (`principal` and `purpose`), `at`, `until`, `idle_seconds`, `absolute_seconds` |
//! | `emergency declare`, `list`, `review`, a line | `emergency`, `customer`, `by`, `from`, `until`, `uses`, `folded`, `reviewed_by`, `reviewed_at` |
//! | `emergency fold`, a line | `emergency`, `written` (uses), `done` |
//! | `audit publish`, a line | `shard`, `records`, `new`, `root`, `cosigned` |
//! | `audit maintain` | `fenced`, `unknown`, `segments`, `bases` (how many), `removed`; then as `audit publish` |
//! | `audit remove`, a line | `shard`, `below` (the number of the first commit that stays), `segments` (paths), `removed` |
//! | `audit verify` | `ok`, `store`, `key`, `wrong`, `notes` (how many), `shards`: objects of `shard`, `first`, `commits`, `records`, `root`, `from`, `until`, `checkpoint` (its size), `segments`, `tiles`; `findings`: objects of `severity`, `path`, `code`, `message` |
//! | `audit checkpoint` | nothing but the checkpoint, a signed note |
//! | `audit tail`, a line | the record as it is stored ([`Record`](crate::audit::Record)) |
//! | `audit query`, a line | the operation ([`operation`](crate::audit::operation#the-json-line)) |
//! | `audit query`, on standard error where there is more | `next`: for `--after` |
//! | `audit export -o FILE` | `operations` (how many) |
//! | `audit export -o -` | nothing but the operations |
//! | `audit proof` | nothing but the proof, if it goes to standard output |
//! | `audit view -o FILE` | `customer`, `records` |
//! | `audit check-view` | `store`, `customer`, `complete`, `until`, `shards`: objects of `shard`, `records`, `removed`, `from`, `later`, `counted`, `first`, `last`; `cosigned`: objects of `witness`, `at`; `findings`: objects of `what`, `message` and where; `more_findings` |
//! | `audit check-proof` | `record` (as it is stored), `index`, `origin`, `size`, `root`, `cosigned`: objects of `witness`, `at` |
//! | `certificate list`, a line | `certificate`, `stage`, `customer`, `issued`, `category`, `keys` and `blobs` (how many); or `certificate`, `error` |
//! | `certificate show` | the certificate ([`CertificateBody`](crate::certificate::CertificateBody)) |
//! | `certificate show --note` | nothing but the signed note |
//! | `certificate verify` | `ok`, `key`, `records` (how many prove it), `cosigned`: objects of `witness`, `at`; `certificate` |
//! | `epoch status` | `epochs`: objects of `epoch`, `kms_key`, `began`, `state`, `since`, `kms` (what it says), `rings` (how many), `register`, `next`, `not_before`; `unreadable`: as `left_behind` |
//! | `epoch rotate` | `epoch`, `kms_key`, `resumed`, `reissued` (how many rings), `retired`, `left_behind`: objects of `customer` (null for the register), `why`; `vain` (a KMS key that nothing is under) |
//! | `epoch finish` | `epochs`: objects of `epoch`, `kms_key`, `step`, `not_before`, and where it applies `left_behind`, `enabled`, `kms`, `begins_anew`; or `error` |
//! | `witness key` | `name`, `key` (the public one) |
//! | `witness serve`, once | `key`, `listening` (address and port) |
//! | `witness serve`, a line on standard error | `alarm` or `unproven`: `origin`, `message`; or `error`, as below |
//! | `witness cosign` | `origin`, `size`, `root`, `cosigned_at`, `checkpoint` (the note) |
//! | `witness show` | `key`, `logs`: `origin`, `size`, `root`, `cosigned_at`, `evidence` (the name of a file) |
//! | any, on standard error | `error`: `kind`, `message`, `exit`, and where there is one `hint`, `certificate` and `request` (the daemon's name of it) |

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tokio::runtime::{Builder, Runtime};

use crate::config::Config;
use crate::error::{Error, ErrorKind};
use crate::room::Options;
use crate::tlog::VerifierKey;
use crate::witness::client::Witness;
use crate::witness::http::{HttpWitness, WitnessUrl};

#[cfg(feature = "daemon")]
mod access;
mod args;
mod audit;
mod audit_only;
mod backend;
mod certificate;
mod customer;
mod doctor;
mod emergency;
mod epoch;
mod exit;
mod failure;
mod get;
mod hold;
mod init;
mod key_file;
mod keys;
mod list;
mod log_key;
mod offboard;
mod order;
mod output;
mod person;
mod producer;
mod publish;
mod put;
mod rekey;
mod remote;
mod restore;
mod retention;
#[cfg(feature = "daemon")]
mod serve;
mod sessions;
mod shred;
mod signal;
mod sink;
mod turns;
mod verify;
mod witness;

use args::{Cli, Command};
use backend::{Backend, Store};
use exit::Exit;
use failure::Failure;
use keys::LocalKeys;
use log_key::LogSigners;
use output::Output;

/// Runs the program that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_a_command(&error).into(),
    };
    let output = Output { json: cli.global.json, quiet: cli.global.quiet };
    match run(cli, output) {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            output::to_stderr(&failure.report(output.json));
            failure.exit().into()
        }
    }
}

/// Help and version are results; all else is a wrong use.
fn not_a_command(error: &clap::Error) -> Exit {
    let json =
        std::env::args_os().take_while(|argument| argument != "--").any(|argument| argument == "--json");
    let failure = if error.use_stderr() {
        args::wrong_use(error)
    } else {
        let text = error.render().to_string();
        match (Output { json, quiet: false }).print(&format!("{}\n", text.trim_end())) {
            Ok(()) => return Exit::Ok,
            Err(failure) => failure,
        }
    };
    output::to_stderr(&failure.report(json));
    failure.exit()
}

fn run(cli: Cli, output: Output) -> Result<(), Failure> {
    let daemon = remote::asked(&cli)?;
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "strongroom", &mut script);
        return output.print(&String::from_utf8_lossy(&script));
    }
    if let Command::Witness(command) = cli.command {
        return runtime()?.block_on(witness::run(command, output));
    }
    if let Command::Order(args::Order::Sign(command)) = &cli.command {
        return order::sign(command, output);
    }
    if let Some(failure) = cli.misunderstood() {
        return Err(failure);
    }
    #[cfg(feature = "daemon")]
    if let Command::Serve(command) = &cli.command {
        return serve::run(&cli.global, command, output);
    }
    #[cfg(feature = "daemon")]
    if let Command::Access(command) = cli.command {
        return access::run(command, output);
    }
    if let Some(daemon) = daemon {
        let runtime = runtime()?;
        let done = runtime.block_on(remote::execute(cli.command, daemon, output));
        return ended(runtime, done);
    }
    let uid = rustix::process::getuid().as_raw();
    let env = |name: &str| std::env::var_os(name);
    let config = Config::resolve(cli.global.given(), env, uid)?;
    if let Command::Person(args::Person::Keygen(command)) = &cli.command {
        return person::keygen(&config, command, output);
    }
    let runtime = runtime()?;
    let turn = turns::wait(env, uid);
    let done = runtime.block_on(execute(cli.command, config, output, !cli.global.no_publish, turn));
    ended(runtime, done)
}

fn ended(runtime: Runtime, done: Result<(), Failure>) -> Result<(), Failure> {
    // A thread may be waiting for input that never comes, or for a reader of our
    // output that never reads; neither may keep the program. What was given up
    // is being removed meanwhile, and gets the time for it.
    runtime.shutdown_timeout(if done.is_ok() { Duration::ZERO } else { Duration::from_millis(200) });
    done
}

/// The sealing is on blocking threads, a few at a time; memory stays bounded
/// because they are.
fn runtime() -> Result<Runtime, Failure> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let built = Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, 8))
        .max_blocking_threads(16)
        .enable_all()
        .build();
    built.map_err(|error| Failure::new(Exit::Internal, "internal", format!("failed to start: {error}")))
}

async fn execute(
    command: Command,
    config: Config,
    output: Output,
    publish: bool,
    turn: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let mut signals = signal::Signals::listen()?;
    if let Command::Doctor(command) = command {
        return tokio::select! {
            done = doctor::run(&config, command, output) => done,
            failure = signals.received() => Err(failure),
        };
    }
    let command = match command {
        Command::Audit(command) if audit::needs_no_backend(&command, output) => {
            let text = tokio::select! {
                done = audit::run_alone(&config, command, output) => done?,
                failure = signals.received() => return Err(failure),
            };
            return output.print(&text);
        }
        Command::Certificate(command) if certificate::needs_no_backend(&command) => {
            let text = tokio::select! {
                done = certificate::run_alone(&config, command, output) => done?,
                failure = signals.received() => return Err(failure),
            };
            return output.print(&text);
        }
        command => command,
    };
    let opened = async {
        turn.await;
        Backend::open(&command, config, output).await
    };
    let backend = tokio::select! {
        backend = opened => backend?,
        failure = signals.received() => return Err(failure),
    };
    let putting = matches!(command, Command::Put(_));
    let publishing = publish
        && !matches!(
            command,
            Command::Audit(args::Audit::Publish { .. } | args::Audit::Maintain | args::Audit::Remove(_))
        );
    let done = tokio::select! {
        done = dispatch(&backend, command) => done,
        failure = signals.received() => Err(failure),
    };
    // The operation is over or was dropped, and its last record is in the queue.
    let store = backend.store()?;
    let closed = tokio::select! {
        closed = store.room.close() => closed,
        failure = signals.received() => return Err(failure),
    };
    let text = done?;
    closed.map_err(|error| {
        let kind = error.kind();
        let message = "done, but the audit log could not be closed";
        let failure = Failure::from(Error::new(kind, message).with_source(error));
        if failure.exit() == Exit::Temporary {
            failure.hint("check the audit storage before you go on")
        } else {
            failure
        }
    })?;
    output.print(&text).map_err(|failure| match putting {
        // The id must not be lost, and is no secret.
        true => failure.hint(format!("the blob is sealed all the same: {}", text.trim_end())),
        false => failure.hint("what was asked for was done"),
    })?;
    if publishing {
        // Last, because nothing that was asked for depends on it.
        tokio::select! {
            published = publish::at_the_end(store) => published?,
            failure = signals.received() => return Err(failure),
        }
    }
    Ok(())
}

/// What a command prints once all is done; those that print as they go, nothing.
type Answer = Result<String, Failure>;

async fn dispatch(backend: &Backend, command: Command) -> Answer {
    match command {
        Command::Init(_) => Ok(init::answer(backend.store()?)),
        Command::Customer(command) => customer::run(backend, command).await,
        Command::Put(command) => put::run(backend, command).await,
        Command::Get(command) => get::run(backend, command).await,
        Command::Ls(command) => list::ls(backend, command).await,
        Command::Stat(command) => list::stat(backend, command).await,
        Command::Verify(command) => verify::run(backend, command).await,
        Command::Restore(command) => restore::run(backend, command).await,
        Command::Retention(command) => retention::run(backend, command).await,
        Command::Rekey(command) => rekey::run(backend, command).await,
        Command::Offboard(command) => offboard::run(backend, command).await,
        Command::Hold(command) => hold::run(backend, command).await,
        Command::Shred(command) => shred::run(backend, command).await,
        Command::Order(command) => order::run(backend, command).await,
        Command::Session(command) => sessions::run(backend, command).await,
        Command::Emergency(command) => emergency::run(backend, command).await,
        Command::Audit(command) => audit::run(backend, command).await,
        Command::Person(command) => person::run(backend, command).await,
        Command::Certificate(command) => certificate::run(backend, command).await,
        Command::Epoch(command) => epoch::run(backend, command).await,
        // Done before a backend was opened.
        Command::Doctor(_) | Command::Witness(_) | Command::Completions { .. } => Ok(String::new()),
        #[cfg(feature = "daemon")]
        Command::Serve(_) | Command::Access(_) => Ok(String::new()),
    }
}

/// As everywhere, but a record may wait half a minute to become durable: a program
/// that is one of a hundred on one log waits for its turn.
fn options(config: &Config, (signer, other): LogSigners) -> Result<Options, Failure> {
    let witness = |(url, key): &(WitnessUrl, VerifierKey)| {
        let witness = HttpWitness::new(url, key.clone())?;
        Ok::<_, Error>(Arc::new(witness) as Arc<dyn Witness>)
    };
    let witnesses = config.witnesses.iter().map(witness).collect::<Result<_, _>>()?;
    let (log_deadline, other_log_signer) = (Duration::from_secs(30), other);
    Ok(Options { log_deadline, other_log_signer, witnesses, ..Options::new(signer) })
}

fn no_store(config: &Config, error: Error) -> Failure {
    if error.kind() != ErrorKind::NotFound {
        return error.into();
    }
    let message = format!("no store at {}; make one with `strongroom init`", config.urls.root);
    Failure::new(Exit::NoInput, error.kind().as_str(), message)
        .hint("or name another with --store or STRONGROOM_STORE")
}

/// An error with what the configuration has to do with it.
fn explain(config: &Config, error: Error, keys: &LocalKeys) -> Failure {
    let failure = Failure::from(error);
    if !keys.failed() {
        return failure;
    }
    let directory = config.local_kms.display();
    failure.hint(format!("local keys are looked for in {directory} (--local-kms or STRONGROOM_LOCAL_KMS)"))
}
