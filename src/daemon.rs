//! The daemon: the store over HTTP, for backup jobs, services and people.
//!
//! Floor 6: it knows who is at the other end, asks the [policy](crate::access::policy), calls
//! the [façade](crate::room), and turns what comes back into HTTP. It has no state that
//! another one on the same store would need.
//!
//! There is no plaintext on the network: TLS with client certificates on TCP, and a Unix
//! socket with the peer's credentials for jobs on the same host.

pub mod alarm;
pub mod api;
pub mod checks;
pub mod config;
pub mod directory;
pub mod drills;
pub mod endpoints;
pub mod gate;
pub mod limits;
pub mod listen;
pub mod oidc;
pub mod openapi;
mod outbound;
pub mod peer;
pub mod problem;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod unread;
