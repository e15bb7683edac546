//! SIGINT, SIGTERM and SIGHUP: the operation is dropped, which aborts it in
//! order, and the program ends as shells expect it.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use super::failure::Failure;

/// The signals that end the program.
pub(super) struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From here on they end nothing by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Internal, "internal", format!("failed to start: {error}"))
            })
        };
        Ok(Self {
            hangup: listen(SignalKind::hangup())?,
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn received(&mut self) -> Failure {
        let (exit, name) = tokio::select! {
            _ = self.hangup.recv() => (Exit::Hangup, "SIGHUP"),
            _ = self.interrupt.recv() => (Exit::Interrupted, "SIGINT"),
            _ = self.terminate.recv() => (Exit::Terminated, "SIGTERM"),
        };
        Failure::new(exit, "interrupted", format!("ended by {name}"))
    }
}
