//! The signing key of the audit log: from a file, the environment or a KMS.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::exit::Exit;
use super::failure::Failure;
use crate::audit::signer::{LocalSigner, LogSigner};
use crate::config::{Config, LogKey};
use crate::system::SystemEntropy;
use crate::tlog::{KeyName, NamedKey, SecretKey};

/// The name of the key in its file. In a checkpoint, it is named after the log.
const NAME: &str = "strongroom-log";

/// No key is longer, in bytes.
const MAX_LEN: u64 = 1024;

/// The key of a store that is there.
pub(super) async fn load(key: &LogKey) -> Result<Arc<dyn LogSigner>, Failure> {
    match key {
        LogKey::File(path) => {
            let text = read(path)?.ok_or_else(|| {
                unusable(format!("the audit log's signing key {} is not there", path.display())).hint(
                    "give it with --log-key or STRONGROOM_LOG_KEY; `strongroom init` made it where you ran it",
                )
            })?;
            local(&text)
        }
        LogKey::Text(text) => local(text),
        #[cfg(feature = "aws")]
        LogKey::Kms(key) => Ok(Arc::new(crate::kms::aws::AwsLogSigner::open(key).await?)),
        #[cfg(not(feature = "aws"))]
        LogKey::Kms(_) => Err(unusable("this program was built without the feature `aws`".to_owned())),
    }
}

/// The signing key, and the other one while it is replaced.
pub(super) type LogSigners = (Arc<dyn LogSigner>, Option<Arc<dyn LogSigner>>);

/// The keys of a store that is there.
pub(super) async fn load_both(config: &Config) -> Result<LogSigners, Failure> {
    let other = match &config.other_log_key {
        Some(other) => Some(load(other).await?),
        None => None,
    };
    Ok((load(&config.log_key).await?, other))
}

/// The key of a store that is about to be made: a new one, if there is no file.
pub(super) async fn load_or_make(key: &LogKey) -> Result<Arc<dyn LogSigner>, Failure> {
    if let LogKey::File(path) = key
        && read(path)?.is_none()
    {
        make(path)?;
    }
    load(key).await
}

fn local(text: &str) -> Result<Arc<dyn LogSigner>, Failure> {
    // The line's end belongs to the file; nothing else may stand around the key.
    let key = NamedKey::parse(text.strip_suffix('\n').unwrap_or(text))
        .map_err(|error| unusable(format!("the audit log's signing key is not usable: {error}")))?;
    Ok(Arc::new(LocalSigner::new(key.into_secret())))
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Failure> {
    let failed = |error: std::io::Error| {
        unusable(format!("the audit log's signing key {} cannot be read: {}", path.display(), error.kind()))
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.mode() & 0o077 != 0 {
        let message = format!("others may read the audit log's signing key {}", path.display());
        return Err(unusable(message).hint("take their rights away: chmod 600"));
    }
    let length = usize::try_from(metadata.len().min(MAX_LEN)).unwrap_or(0);
    // Room for all of it at once, so that no part of it stays behind elsewhere.
    let mut text = Zeroizing::new(String::with_capacity(length + 1));
    file.take(MAX_LEN).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

fn make(path: &Path) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let message =
            format!("the audit log's signing key {} cannot be made: {}", path.display(), error.kind());
        Failure::new(Exit::CannotCreate, "io", message)
    };
    let secret = SecretKey::generate(&SystemEntropy).map_err(crate::Error::from)?;
    let name: KeyName = NAME.parse().expect("the name is a key's name");
    let mut text = NamedKey::new(name, secret).to_text();
    text.push('\n');
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    // Under a name of our own until it is whole, so that another `init` never
    // reads half a key; then it takes its place if that is still free.
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let placed = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::hard_link(&unfinished, path)
    })();
    // If we stop here, a key that nothing was signed with stays behind.
    let removed = std::fs::remove_file(&unfinished);
    match placed {
        // Another `init` was faster; its key is the one.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && removed.is_ok() => {}
        placed => placed.and(removed).map_err(failed)?,
    }
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

fn unusable(message: String) -> Failure {
    Failure::new(Exit::Configuration, "configuration", message)
}
