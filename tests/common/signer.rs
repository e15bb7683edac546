//! The key of the logs that tests make: always the same.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::sync::Arc;

use strongroom::audit::signer::{LocalSigner, LogSigner};
use strongroom::secret::Secret;
use strongroom::tlog::{PublicKey, SecretKey};

pub fn signer() -> Arc<dyn LogSigner> {
    Arc::new(LocalSigner::new(SecretKey::from_seed(&Secret::init(|seed| *seed = [9; 32]))))
}

pub fn authority() -> PublicKey {
    signer().public()
}
