//! Strongroom keeps electronic protected health information (ePHI) sealed.
//!
//! Blobs and backups are encrypted under per-customer KMS keys (envelope
//! encryption), every key use is recorded before it happens, and all state
//! lives in object storage and a KMS.

#![warn(unreachable_pub)]
#![deny(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

pub mod access;
pub mod audit;
pub mod cache;
pub mod certificate;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "cli")]
mod client;
pub mod codec;
#[cfg(feature = "cli")]
pub mod config;
#[cfg(feature = "daemon")]
pub mod daemon;
pub mod doctor;
pub mod drill;
pub mod durable;
pub mod entropy;
pub mod envelope;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod id;
#[cfg(feature = "cli")]
mod json;
pub mod kms;
pub mod manual;
pub mod merkle;
pub mod once;
pub mod order;
pub mod payload;
pub mod register;
pub mod restore;
pub mod retention;
pub mod ring;
pub mod room;
pub mod schedule;
pub mod secret;
pub mod session;
pub mod shred;
pub mod store;
pub mod suite;
pub mod system;
pub mod time;
pub mod tlog;
pub mod witness;

pub use error::{Error, ErrorKind, Result};
