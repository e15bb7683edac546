//! Tokens that are good for one request, until they expire.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::{LEEWAY_SECONDS, Refusal};
use crate::time::Timestamp;

/// How many are remembered. There is no forgetting one to make room: the next one is refused.
const MAX: usize = 65_536;

/// What was used. In memory, 50 bytes or so each.
#[derive(Default)]
pub(super) struct Used(Mutex<HashMap<[u8; 32], Timestamp>>);

impl Used {
    /// Uses a token of `issuer` up.
    pub(super) fn use_up(
        &self,
        issuer: &str,
        id: &str,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name(issuer, id);
        if used.get(&name).is_some_and(|until| *until > now) {
            return Err(Refusal::Replayed);
        }
        if used.len() >= MAX {
            used.retain(|_, until| *until > now);
        }
        if used.len() >= MAX {
            return Err(Refusal::Full);
        }
        // As long as it would be accepted.
        used.insert(name, expires.saturating_add(Duration::from_secs(LEEWAY_SECONDS)));
        Ok(())
    }
}

/// Two issuers may give out one id.
fn name(issuer: &str, id: &str) -> [u8; 32] {
    let issuer = Sha256::digest(issuer);
    Sha256::new().chain_update(issuer).chain_update(id).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000).unwrap()
    }

    #[test]
    fn one_is_used_once_for_as_long_as_it_counts() {
        let used = Used::default();
        assert_eq!(used.use_up("a", "1", at(100), at(0)), Ok(()));
        assert_eq!(used.use_up("a", "1", at(100), at(0)), Err(Refusal::Replayed));
        assert_eq!(used.use_up("b", "1", at(100), at(0)), Ok(()));
        assert_eq!(used.use_up("a", "1", at(100), at(159)), Err(Refusal::Replayed));
        assert_eq!(used.use_up("a", "1", at(300), at(160)), Ok(()));
    }

    #[test]
    fn what_is_full_refuses_and_forgets_nothing_that_counts() {
        let used = Used::default();
        for each in 0..MAX {
            used.use_up("a", &each.to_string(), at(100), at(0)).unwrap();
        }
        assert_eq!(used.use_up("a", "more", at(100), at(0)), Err(Refusal::Full));
        assert_eq!(used.use_up("a", "0", at(100), at(0)), Err(Refusal::Replayed));
        assert_eq!(used.use_up("a", "more", at(300), at(160)), Ok(()));
    }
}
