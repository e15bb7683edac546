//! A private key in a file of its own: a witness's, or a person's.
//!
//! Separate from the log's key, which is a service's and is made when it is needed.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::exit::Exit;
use super::failure::Failure;
use crate::tlog::NamedKey;

/// The longest key file that is read, in bytes.
const MAX_LEN: u16 = 4096;

/// Writes a key to a file that was not there, for its owner only.
pub(super) fn store(path: &Path, key: &NamedKey) -> Result<(), Failure> {
    write(path, key).map_err(|error| Failure::create("the key file cannot be made", &error))
}

fn write(path: &Path, key: &NamedKey) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let text = key.to_text();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"));
    let stored = written.and_then(|()| file.sync_all()).and_then(|()| {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(Path::new(".")))?.sync_all()
    });
    // Half a key is none, and would be in the way of the next one.
    stored.inspect_err(|_| drop(std::fs::remove_file(path)))
}

/// Reads a key from a file that its owner alone may use.
pub(super) fn load(path: &Path) -> Result<NamedKey, Failure> {
    let unreadable = |error| Failure::input("the key file cannot be read", &error);
    let unfit = |message| Failure::new(Exit::Configuration, "configuration", message);
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(unfit("the key file is not a file"));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(unfit("others than its owner may use the key file")
            .hint("think of the key as known to them: make another, in a file of mode 0600"));
    }
    let mut text = Zeroizing::new(String::with_capacity(MAX_LEN.into()));
    file.take(MAX_LEN.into()).read_to_string(&mut text).map_err(unreadable)?;
    let key = NamedKey::parse(text.strip_suffix('\n').unwrap_or(&text));
    key.map_err(|_| unfit("the key file does not have the text of a private key in it"))
}
