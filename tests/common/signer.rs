//! The key of the logs that tests make: always the same.
#![allow(dead_code, unreachable_pub, reason = "no test uses all of it")]

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use strongroom::audit::signer::{LocalSigner, LogSigner};
use strongroom::secret::Secret;
use strongroom::tlog::{NamedKey, PublicKey, SecretKey};

pub fn signer() -> Arc<dyn LogSigner> {
    Arc::new(LocalSigner::new(SecretKey::from_seed(&Secret::init(|seed| *seed = [9; 32]))))
}

/// The same key as the file that the command line reads.
pub fn write_key(path: &Path) {
    let secret = SecretKey::from_seed(&Secret::init(|seed| *seed = [9; 32]));
    let text = NamedKey::new("strongroom-log".parse().unwrap(), secret).to_text();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    writeln!(file, "{}", *text).unwrap();
}

pub fn authority() -> PublicKey {
    signer().public()
}
