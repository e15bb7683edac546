//! Creating an object that nobody replaces, and knowing what came of it.
//!
//! Separate because every place that claims something by create-if-absent has the same question
//! after an error: does our object stand there, another one, or none? An answer can be lost on
//! its way, and a request that was repeated below us finds the first one. Here the object is read
//! back, so that no caller guesses.
//!
//! Invariant: `Ours` and `Another` are what the storage shows. After an error nothing is known:
//! **the write may still take effect**, later than the caller looks. What a cloud storage shows is
//! durable; a [directory](super::directory) forces to the disk what it shows, or does not show it.

use std::time::Duration;

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use super::bounded::{is_same, jitter, sending, within};
use super::fault::{contradiction, is_conflict, is_of_file_system, store_error};
use crate::error::Result;

/// How often a storage is asked that says "taken" and shows nothing, and how long to wait in
/// between: a random part of a time that doubles from the first to the second.
const ATTEMPTS: u32 = 6;
const WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What stands where an object was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Created {
    /// The bytes that we wrote, whoever wrote them first.
    Ours,
    /// Other bytes.
    Another,
}

/// Creates the object at `path` unless there is one, and says what stands there. It is durable
/// when this returns. `what` completes "failed to …" and holds no user text.
///
/// # Errors
/// Those of [`store_error`], but never
/// [`AlreadyExists`](crate::error::ErrorKind::AlreadyExists). It may be stored, now or later.
///
/// # Cancel safety
/// It is stored or not; call it again with the same bytes.
pub(crate) async fn create(
    storage: &dyn ObjectStore,
    path: &Path,
    payload: PutPayload,
    what: &'static str,
) -> Result<Created> {
    let limit = sending(&payload);
    create_within(limit, storage, path, payload, what).await
}

/// As [`create`], with a limit for each request.
pub(crate) async fn create_within(
    limit: Duration,
    storage: &dyn ObjectStore,
    path: &Path,
    payload: PutPayload,
    what: &'static str,
) -> Result<Created> {
    for attempt in 1..=ATTEMPTS {
        let put = storage.put_opts(path, payload.clone(), PutMode::Create.into());
        // If we stop here, it is stored or not. The caller's comment says what that means.
        let Err(error) = within(limit, put).await else { return Ok(Created::Ours) };
        if is_of_file_system(&error) {
            return Err(store_error(error, what));
        }
        let read_back = async { is_same(storage.get(path).await?, &payload).await };
        match within(limit, read_back).await {
            Ok(true) => return Ok(Created::Ours),
            Ok(false) => return Ok(Created::Another),
            // It was in the act of being written, or is removed by now: try again.
            Err(StoreError::NotFound { .. }) if matches!(error, StoreError::AlreadyExists { .. }) => {
                tokio::time::sleep(jitter(WAIT, attempt)).await;
            }
            // There is one, and it cannot be read.
            Err(unread) if matches!(error, StoreError::AlreadyExists { .. }) && !is_conflict(&error) => {
                return Err(store_error(unread, what));
            }
            Err(_) => return Err(store_error(error, what)),
        }
    }
    Err(contradiction(what))
}
