//! `--daemon`: what a daemon is asked in place of a store, and what is refused or done here.

use super::args::{self, Audit, Cli, Command, Epoch, Offboard, Order, Person};
use super::backend::Backend;
use super::failure::Failure;
use super::output::Output;
use super::{dispatch, signal};
use crate::access::Access;
use crate::client::{Client, Settings};
use crate::config::Config;

/// Where a command is done when a daemon is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// By the daemon.
    Daemon,
    /// In this program: no store is needed.
    Here,
    /// Nowhere: there is no endpoint for it.
    Nowhere,
}

/// A daemon to ask, and who asks.
pub(super) struct Daemon {
    settings: Settings,
    access: Access,
}

/// The daemon that this command is to be asked of, if one is named. What it has no endpoint for is
/// refused, before anything is done.
pub(super) fn asked(cli: &Cli) -> Result<Option<Daemon>, Failure> {
    let place = place_of(&cli.command);
    if place == Where::Here {
        return Ok(None);
    }
    let uid = rustix::process::getuid().as_raw();
    let found = Config::daemon(&cli.global.given(), |name| std::env::var_os(name), uid)?;
    let Some((settings, access)) = found else {
        return if cli.takes_a_daemon() { Err(no_daemon()) } else { Ok(None) };
    };
    if place == Where::Nowhere {
        return Err(no_endpoint());
    }
    if cli.global.names_a_store() {
        let message = "--daemon names a store by who has it open, and another option says where a store is";
        return Err(Failure::usage(message).hint("leave out one of them"));
    }
    if cli.global.principal().is_some() && !matches!(cli.command, Command::Order(Order::Draft(_))) {
        let message =
            "a daemon knows by the certificate, the socket or the token who asks: --principal says nothing";
        return Err(Failure::usage(message).hint("leave it out; only `order draft` takes it"));
    }
    Ok(Some(Daemon { settings, access }))
}

/// What is done in an emergency, without the daemon at which it stands.
fn no_daemon() -> Failure {
    Failure::usage("an emergency is declared, and stands, at the daemon that is to read")
        .hint("name it with --daemon or STRONGROOM_DAEMON")
}

/// A command that takes a store.
pub(super) fn no_endpoint() -> Failure {
    Failure::usage("a daemon has no endpoint for this command: it is run where the store is")
        .hint("leave out --daemon and STRONGROOM_DAEMON, on a machine that has the store and its keys")
}

fn place_of(command: &Command) -> Where {
    match command {
        Command::Customer(_)
        | Command::Put(_)
        | Command::Get(_)
        | Command::Ls(_)
        | Command::Stat(_)
        | Command::Verify(_)
        | Command::Restore(_)
        | Command::Rekey(_)
        | Command::Offboard(Offboard::Status { .. } | Offboard::Reopen { .. })
        | Command::Retention(_)
        | Command::Hold(_)
        | Command::Session(_)
        | Command::Certificate(args::Certificate::List(_) | args::Certificate::Show(_))
        | Command::Epoch(Epoch::Status | Epoch::Rotate(_))
        | Command::Person(Person::List) => Where::Daemon,
        Command::Shred(args::Shred::Run(command)) if command.delete_ciphertext => Where::Nowhere,
        Command::Shred(_) => Where::Daemon,
        Command::Emergency(args::Emergency::Fold(_)) => Where::Nowhere,
        Command::Emergency(_) => Where::Daemon,
        Command::Order(Order::Sign(_))
        | Command::Certificate(args::Certificate::Verify(_))
        | Command::Audit(
            Audit::Verify(_) | Audit::CheckProof(_) | Audit::CheckView(_) | Audit::Keys(_) | Audit::NewKey(_),
        )
        | Command::Person(Person::Keygen(_))
        | Command::Witness(_)
        | Command::Completions { .. } => Where::Here,
        Command::Audit(Audit::ConfirmTime(_) | Audit::Remove(_) | Audit::RotateKey(_)) => Where::Nowhere,
        Command::Order(_) | Command::Audit(_) => Where::Daemon,
        #[cfg(feature = "daemon")]
        Command::Access(_) => Where::Here,
        #[cfg(feature = "daemon")]
        Command::Serve(_) => Where::Nowhere,
        Command::Init(_)
        | Command::Person(Person::Found(_))
        | Command::Offboard(_)
        | Command::Epoch(Epoch::Finish(_))
        | Command::Doctor(_) => Where::Nowhere,
    }
}

/// Has a command done by a daemon.
pub(super) async fn execute(command: Command, daemon: Daemon, output: Output) -> Result<(), Failure> {
    let mut signals = signal::Signals::listen()?;
    let Daemon { settings, access } = daemon;
    let backend = Backend::at(Client::new(settings)?, access, output);
    let putting = matches!(command, Command::Put(_));
    let done = tokio::select! {
        done = dispatch(&backend, command) => done,
        // What was under way is dropped, and with it its connection.
        failure = signals.received() => Err(match putting {
            true => failure.hint("what was not sent whole is not stored"),
            false => failure,
        }),
    };
    let text = done?;
    output.print(&text).map_err(|failure| match putting {
        // The id must not be lost, and is no secret.
        true => failure.hint(format!("the blob is sealed all the same: {}", text.trim_end())),
        false => failure.hint("what was asked for was done"),
    })
}

#[cfg(test)]
mod manual;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn place(line: &str) -> Where {
        let line = std::iter::once("strongroom").chain(line.split(' '));
        place_of(&Cli::try_parse_from(line).unwrap().command)
    }

    #[test]
    fn each_command_has_its_place() {
        for line in [
            "put --customer acme -",
            "customer list",
            "hold list --customer acme",
            "order list",
            "order draft set-clock --at 2026-11-22T02:26:13.000000Z",
            "shred run",
            "shred status",
            "audit query",
            "audit tail",
            "audit export --format fhir",
            "audit proof 0:1",
            "audit view --customer acme",
            "audit checkpoint",
            "audit publish --restore",
            "audit maintain",
            "certificate list",
            "epoch rotate",
            "person list",
            "restore --customer acme --to back",
            "rekey acme --kms local",
            "offboard status acme",
            "offboard reopen acme",
            "session open --customer acme",
            "emergency declare --customer acme",
            "emergency list --customer acme",
        ] {
            assert_eq!(place(line), Where::Daemon, "{line}");
        }
        for line in
            ["certificate verify FILE", "audit verify", "completions bash", "order sign FILE --sign-with K"]
        {
            assert_eq!(place(line), Where::Here, "{line}");
        }
        for line in [
            "init",
            "doctor",
            "emergency fold --directory D",
            "epoch finish",
            "shred run --delete-ciphertext",
            "offboard return acme --to back",
            "offboard destroy acme",
            "offboard finish acme",
        ] {
            assert_eq!(place(line), Where::Nowhere, "{line}");
        }
    }
}
