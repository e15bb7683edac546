//! The private decoders, for the fuzz tests (`tests/fuzz.rs`).
//!
//! Not part of the interface: hidden from the documentation, and it changes with the decoders.
//! Separate, so that a decoder stays private to its module and is fuzzed by itself all the same,
//! not only behind the seal, the signature or the connection that it is read through.
//!
//! What has one encoding is encoded again, for the test to compare.

use crate::audit::authority::Authority;
use crate::audit::base::extract;
use crate::audit::voucher::{Versioned, Vouched};
use crate::audit::{RingRef, emergency, log};
use crate::id::{CustomerId, StoreId};
use crate::kms::local;
use crate::ring::{self, Ring};

/// A padded block of metadata.
#[must_use]
pub fn metadata_block(bytes: &[u8]) -> Option<Vec<u8>> {
    crate::envelope::fuzz_metadata(bytes)
}

/// The body of a ring that is stored as changes, and what it makes of `base`.
#[must_use]
pub fn ring_changes(bytes: &[u8], base: &Ring) -> Option<Vec<u8>> {
    ring::delta::fuzz(bytes, base)
}

/// The body of `ring` as what changed since `base`.
#[must_use]
pub fn ring_changes_between(base: &Ring, ring: &Ring) -> Option<Vec<u8>> {
    ring::delta::fuzz_between(base, ring)
}

/// The two lines of a voucher.
#[must_use]
pub fn voucher(
    lines: &[u8],
    store: StoreId,
    of: (Versioned, RingRef),
    authority: &Authority,
) -> Option<Vec<u8>> {
    Vouched::verify(lines, store, of, authority).map(|vouched| vouched.lines().to_vec())
}

/// A pin: the version and the rest of it.
#[must_use]
pub fn pin(bytes: &[u8]) -> Option<(RingRef, &[u8])> {
    log::pins::pinned(bytes)
}

/// A page of an extract, and the contents.
#[must_use]
pub fn extract_page(bytes: &[u8]) -> bool {
    let page = extract::decode::<extract::Shelf, Vec<extract::Part>>(bytes);
    page.is_ok() | extract::decode::<extract::PageName, extract::Piece>(bytes).is_ok()
}

/// The operations of an extract: how many.
#[must_use]
pub fn extract_operations(bytes: &[u8]) -> Option<usize> {
    extract::decode_operations(1, bytes).ok().map(|operations| operations.len())
}

/// The file of an emergency.
#[must_use]
pub fn emergency_lines(bytes: &[u8]) -> Option<Vec<u8>> {
    emergency::lines::fuzz(bytes)
}

/// The list of silent writers.
#[must_use]
pub fn watch(bytes: &[u8]) -> bool {
    log::watch::fuzz(bytes)
}

/// A key file of the local KMS.
#[must_use]
pub fn kms_key_file(bytes: &[u8]) -> Option<Vec<u8>> {
    local::directory::fuzz(bytes)
}

/// A grant of the local KMS.
#[must_use]
pub fn kms_grant(bytes: &[u8]) -> bool {
    local::directory::grants::fuzz(bytes)
}

/// A data key that the local KMS wrapped.
#[must_use]
pub fn kms_data_key(bytes: &[u8]) -> Option<Vec<u8>> {
    local::fuzz(bytes)
}

/// What a directory has written down of a restore.
#[must_use]
pub fn restore_state(bytes: &[u8], store: StoreId, customer: CustomerId) -> Option<u64> {
    crate::restore::place::fuzz(bytes, store, customer)
}

/// The end of an epoch, as an unverified paper says it.
#[cfg(feature = "cli")]
#[must_use]
pub fn epoch_end(bytes: &[u8]) -> bool {
    crate::certificate::fuzz_epoch_end(bytes)
}

/// The answers of an S3 server about a bucket, and its list of versions.
#[cfg(feature = "aws")]
#[must_use]
pub fn s3_answer(xml: &str) -> bool {
    crate::store::s3::ask::fuzz(xml) | crate::store::s3::versions::fuzz(xml)
}

/// The policy of a bucket.
#[cfg(feature = "aws")]
#[must_use]
pub fn bucket_policy(text: &str) -> bool {
    crate::doctor::bucket::fuzz(text)
}

/// The answer of a witness to a request.
#[cfg(feature = "witness")]
#[must_use]
pub fn witness_answer(request: &crate::witness::AddCheckpoint, lines: &str) -> bool {
    crate::witness::http::fuzz(request, lines)
}

/// A bearer token.
#[cfg(feature = "daemon")]
#[must_use]
pub fn token(text: &str, now: crate::time::Timestamp) -> bool {
    crate::daemon::oidc::token::fuzz(text, now)
}

/// The keys of an issuer of tokens: how many.
#[cfg(feature = "daemon")]
#[must_use]
pub fn issuer_keys(body: &[u8]) -> usize {
    crate::daemon::oidc::keys::fuzz(body)
}

/// The URL of a daemon.
#[cfg(feature = "cli")]
#[must_use]
pub fn daemon_url(text: &str) -> bool {
    text.parse::<crate::client::DaemonUrl>().is_ok()
}

/// What a daemon answers, as each type that the client reads. How many could be read.
#[cfg(feature = "cli")]
#[must_use]
pub fn daemon_answer(status: u16, body: &[u8]) -> usize {
    use crate::json;

    fn read<T: serde::de::DeserializeOwned + serde::Serialize>(body: &[u8]) -> usize {
        // What was read can be printed.
        let read = serde_json::from_slice::<T>(body).ok();
        usize::from(read.is_some_and(|value| serde_json::to_string(&value).is_ok()))
    }
    if let Ok(status) = hyper::StatusCode::from_u16(status) {
        let _ = crate::client::problem::fuzz(status, body).chain();
    }
    read::<serde_json::Value>(body)
        + read::<json::Customer>(body)
        + read::<json::Blob>(body)
        + read::<json::Listed>(body)
        + read::<json::Row>(body)
        + read::<json::Sealed>(body)
        + read::<json::Extended>(body)
        + read::<json::Policies>(body)
        + read::<json::Hold>(body)
        + read::<json::Person>(body)
        + read::<json::Session>(body)
        + read::<json::AccessRequest>(body)
        + read::<json::Emergency>(body)
        + read::<json::Published>(body)
        + read::<json::Maintained>(body)
        + read::<json::Executed>(body)
        + read::<json::KeyPlan>(body)
        + read::<json::ShredStatus>(body)
        + read::<json::Cancelled>(body)
        + read::<json::Offboarding>(body)
        + read::<json::Swept>(body)
        + read::<json::Certificate>(body)
        + read::<json::Epochs>(body)
        + read::<json::Rotated>(body)
        + read::<json::Inventory>(body)
        + read::<json::Rekeyed>(body)
        + read::<json::RekeyStatus>(body)
        + read::<crate::audit::operation::OperationLine>(body)
        + read::<crate::audit::Record>(body)
}
