//! The files of grants, and what happens if we stop half way.
//!
//! One file per grant, `<key id>-<session id>.grant`, of [`FILE_LEN`] bytes:
//!
//! | at | length | what |
//! |---:|---:|---|
//! | 0 | 10 | `SRlkmsgr`, version 1 and its complement |
//! | 10 | 16 | the id of the key, as in the file's name |
//! | 26 | 16 | the session, as in the file's name |
//! | 42 | 16 | the store |
//! | 58 | 16 | the customer |
//! | 74 | 8 | when it was made |
//! | 82 | 32 | SHA-256 of what precedes it |
//!
//! A grant stands while its file is there. It is written as `<…>.grant.new` and takes its
//! name when it is whole; it holds no secret, and is unlinked to end it. Both are durable
//! before they are reported. Separate from the keys, whose files must be wiped.
//!
//! Who may corrupt it: whoever may write to the directory, as with the keys.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::{
    DIGEST_LEN, Directory, KeyDirectory, check_owner, failed, failed_io, not_a_file, owner_only, read_up_to,
};
use crate::codec::{Decode, DecodeError, Encode, Reader, Writer};
use crate::id::{CustomerId, LocalKeyId, SessionId, StoreId};
use crate::kms::{Grant, KmsError, KmsErrorKind};
use crate::time::Timestamp;

const MAGIC: &[u8; 8] = b"SRlkmsgr";
const VERSION: u8 = 1;
const FILE_LEN: usize = 10 + 4 * 16 + 8 + DIGEST_LEN;

impl KeyDirectory {
    /// Makes a grant. One of its session that stands is left as it is.
    pub(in crate::kms::local) fn put_grant(
        &self,
        key: LocalKeyId,
        now: Timestamp,
        grant: &Grant,
    ) -> Result<(), KmsError> {
        let directory = self.enter()?;
        let _lock = directory.lock()?;
        let name = file(key, grant.session);
        if directory.read_grant(&name, key, grant.session)?.is_some() {
            return Ok(());
        }
        let next = format!("{name}.new");
        directory.unlink(&next)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&directory.0, &next, flags, owner_only()).map_err(failed)?;
        let made = File::from(made);
        made.write_all_at(&encode(key, now, grant), 0).map_err(failed_io)?;
        made.sync_all().map_err(failed_io)?;
        // If we stop here, a file is left that grants nothing, and the next try removes it.

        rustix::fs::renameat(&directory.0, &next, &directory.0, &name).map_err(failed)?;
        // If the machine stops here, the grant stands or does not. Its session is on
        // record, and ending that removes it.
        rustix::fs::fsync(&directory.0).map_err(failed)
    }

    /// Ends a grant, and says whether there was one.
    pub(in crate::kms::local) fn remove_grant(
        &self,
        key: LocalKeyId,
        session: SessionId,
    ) -> Result<bool, KmsError> {
        let directory = self.enter()?;
        let _lock = directory.lock()?;
        let name = file(key, session);
        directory.unlink(&format!("{name}.new"))?;
        // If the machine stops in here, the grant may be back: the session is then still
        // one whose end was not reported, and is ended again.
        directory.unlink(&name)
    }

    /// The grants that stand on a key. A file that is damaged grants nothing.
    pub(in crate::kms::local) fn grants(&self, key: LocalKeyId) -> Result<Vec<Grant>, KmsError> {
        let directory = self.enter()?;
        let mut grants = Vec::new();
        for entry in Dir::read_from(&directory.0).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let session = entry.file_name().to_str().ok().and_then(|name| read_name(name, key));
            if let Some(session) = session {
                grants.extend(directory.read_grant(&file(key, session), key, session)?);
            }
        }
        Ok(grants)
    }
}

impl Directory {
    fn read_grant(&self, name: &str, key: LocalKeyId, session: SessionId) -> Result<Option<Grant>, KmsError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(found) => found,
            // Ended since it was listed, perhaps.
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(not_a_file()),
            Err(errno) => return Err(failed(errno)),
        };
        let stat = rustix::fs::fstat(&found).map_err(failed)?;
        if !FileType::from_raw_mode(stat.st_mode).is_file() {
            return Err(not_a_file());
        }
        check_owner(
            &stat,
            "a local grant belongs to another user: remove it, and open the session again",
            "others than its owner may read a local grant: chmod 600",
        )?;
        let mut bytes = [0; FILE_LEN + 1];
        let length = read_up_to(&File::from(found), &mut bytes).map_err(failed_io)?;
        match decode(&bytes[..length]) {
            Ok((of, grant)) => Ok((of == key && grant.session == session).then_some(grant)),
            Err(error @ DecodeError::Version(_)) => {
                let message = "a local grant is a newer program's: upgrade this one";
                Err(KmsError::new(KmsErrorKind::Configuration, message).with_source(error))
            }
            Err(_) => Ok(None),
        }
    }

    /// Removes a file durably, and says whether there was one.
    fn unlink(&self, name: &str) -> Result<bool, KmsError> {
        let was_there = match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) => true,
            Err(Errno::NOENT) => false,
            Err(errno) => return Err(failed(errno)),
        };
        // Also where it was gone already: whoever removed it may have stopped before this.
        rustix::fs::fsync(&self.0).map_err(failed)?;
        Ok(was_there)
    }
}

fn file(key: LocalKeyId, session: SessionId) -> String {
    format!("{key}-{session}.grant")
}

fn read_name(name: &str, key: LocalKeyId) -> Option<SessionId> {
    let (of, session) = name.strip_suffix(".grant")?.split_once('-')?;
    if of.parse() == Ok(key) { session.parse().ok() } else { None }
}

fn encode(key: LocalKeyId, now: Timestamp, grant: &Grant) -> Vec<u8> {
    let mut out = Writer::default();
    out.version(MAGIC, VERSION);
    key.encode(&mut out);
    grant.session.encode(&mut out);
    grant.store.encode(&mut out);
    grant.customer.encode(&mut out);
    now.encode(&mut out);
    let digest: [u8; DIGEST_LEN] = Sha256::digest(out.as_bytes()).into();
    out.raw(&digest);
    debug_assert_eq!(out.as_bytes().len(), FILE_LEN);
    out.into_bytes()
}

fn decode(bytes: &[u8]) -> Result<(LocalKeyId, Grant), DecodeError> {
    let mut reader = Reader::new(bytes);
    reader.version(MAGIC, VERSION)?;
    let key = LocalKeyId::decode(&mut reader)?;
    let session = SessionId::decode(&mut reader)?;
    let (store, customer) = (StoreId::decode(&mut reader)?, CustomerId::decode(&mut reader)?);
    Timestamp::decode(&mut reader)?;
    let content = &bytes[..reader.consumed()];
    if reader.raw(DIGEST_LEN)? != Sha256::digest(content).as_slice() {
        return Err(DecodeError::Invalid("digest"));
    }
    reader.finish()?;
    Ok((key, Grant { store, customer, session }))
}

/// Reads a grant: for [`crate::fuzz`].
pub(crate) fn fuzz(bytes: &[u8]) -> bool {
    decode(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LocalKeyId = LocalKeyId::from_bytes([7; 16]);

    fn grant(session: u8) -> Grant {
        Grant {
            store: StoreId::from_bytes([1; 16]),
            customer: CustomerId::from_bytes([2; 16]),
            session: SessionId::from_bytes([session; 16]),
        }
    }

    fn directory(home: &std::path::Path) -> KeyDirectory {
        let path = home.join("keys");
        super::super::make_directory(&path).unwrap();
        KeyDirectory::new(path)
    }

    #[test]
    fn a_grant_stands_while_its_file_is_there() {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        for session in [3, 4, 3] {
            directory.put_grant(KEY, Timestamp::MAX, &grant(session)).unwrap();
        }
        assert_eq!(directory.grants(KEY).unwrap().len(), 2);
        assert!(directory.grants(LocalKeyId::from_bytes([8; 16])).unwrap().is_empty(), "another key's");
        assert!(directory.remove_grant(KEY, grant(3).session).unwrap());
        assert!(!directory.remove_grant(KEY, grant(3).session).unwrap());
        assert_eq!(directory.grants(KEY).unwrap(), [grant(4)]);
    }

    #[test]
    fn what_is_damaged_renamed_or_half_written_grants_nothing() {
        let home = tempfile::tempdir().unwrap();
        let directory = directory(home.path());
        directory.put_grant(KEY, Timestamp::MAX, &grant(3)).unwrap();
        let path = home.path().join("keys").join(file(KEY, grant(3).session));
        let good = std::fs::read(&path).unwrap();
        assert_eq!(good.len(), FILE_LEN);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert!(directory.grants(KEY).unwrap().is_empty(), "byte {at}");
        }
        for length in [0, FILE_LEN - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(directory.grants(KEY).unwrap().is_empty(), "{length} bytes");
        }
        std::fs::write(&path, &good).unwrap();
        for name in [file(KEY, grant(4).session), file(LocalKeyId::from_bytes([8; 16]), grant(3).session)] {
            std::fs::rename(&path, home.path().join("keys").join(&name)).unwrap();
            assert!(directory.grants(KEY).unwrap().is_empty(), "{name}");
            std::fs::rename(home.path().join("keys").join(&name), &path).unwrap();
        }
        std::fs::rename(&path, path.with_extension("grant.new")).unwrap();
        assert!(directory.grants(KEY).unwrap().is_empty());
        // It is made again where the try before stopped.
        directory.put_grant(KEY, Timestamp::MAX, &grant(3)).unwrap();
        assert_eq!(directory.grants(KEY).unwrap(), [grant(3)]);
    }
}
