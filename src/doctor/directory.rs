//! Storages in directories of this machine: who gets in, and how much fits.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Check, Subject};
use crate::store::StorageRole;

/// Below this much free space, in bytes, a write will soon fail.
const SPACE_PROBLEM: u64 = 100 << 20;

/// Below this much free space, in bytes, someone should know.
const SPACE_WARNING: u64 = 1 << 30;

/// The bits of a mode by which its owner's group and everyone else may write.
const OTHERS_WRITE: u32 = 0o022;

/// The bits by which they may enter a directory.
const OTHERS_ENTER: u32 = 0o011;

pub(super) fn examine(role: StorageRole, path: &Path) -> Vec<Check> {
    let subject = Subject::Storage(role);
    let looked = || -> io::Result<Vec<Check>> {
        let meta = path.metadata()?;
        let space = rustix::fs::statvfs(path)?;
        Ok(vec![
            modes(role, path, exposed(path)?),
            owner(subject, path, meta.uid(), rustix::process::geteuid().as_raw()),
            room_left(subject, space.f_bavail.saturating_mul(space.f_frsize)),
            Check::ok(subject, "every write is forced to the disk before it counts"),
        ])
    };
    let mut checks = looked().unwrap_or_else(|error| {
        let what = format!("{} cannot be looked at: {}", path.display(), error.kind());
        vec![Check::problem(subject, what, "mount it, or let this user read it")]
    });
    if role != StorageRole::Blobs {
        checks.push(Check::warning(
            subject,
            "a directory has no Object Lock and no versions: whoever has this user's rights can delete \
             from it",
            "back it up to another machine that this user cannot write to, or keep it on S3",
        ));
    }
    checks
}

/// The file system that a path is on, or will be on once it is made.
pub(super) fn device(path: &Path) -> Option<u64> {
    path.ancestors().find_map(|path| Some(path.metadata().ok()?.dev()))
}

/// What others than the owner may do in a directory: no more than its mode says,
/// and nothing if they cannot even get to it.
fn exposed(path: &Path) -> io::Result<u32> {
    // Behind a symbolic link stands another way to the root.
    let path = path.canonicalize()?;
    let mode = path.metadata()?.mode() & 0o077;
    for above in path.ancestors() {
        if above.metadata()?.mode() & OTHERS_ENTER == 0 {
            return Ok(0);
        }
    }
    Ok(mode)
}

fn modes(role: StorageRole, path: &Path, exposed: u32) -> Check {
    let subject = Subject::Storage(role);
    let fix = || format!("chmod go-rwx {}", quoted(path));
    if exposed & OTHERS_WRITE != 0 {
        let what =
            "other users of this machine may write to it, so they can delete and replace what is there";
        return Check::problem(subject, what, fix());
    }
    if exposed != 0 {
        let what = "other users of this machine may read it: ids, sizes and times are no secret to them";
        return Check::warning(subject, what, fix());
    }
    Check::ok(subject, "no other user of this machine gets into it")
}

fn owner(subject: Subject, path: &Path, owner: u32, own: u32) -> Check {
    if owner == own {
        return Check::ok(subject, "it belongs to the user this program runs as");
    }
    Check::warning(
        subject,
        format!("it belongs to user {owner}, and this program runs as user {own}"),
        format!("run strongroom as its owner, or `chown -R {own} {}`", quoted(path)),
    )
}

fn room_left(subject: Subject, bytes: u64) -> Check {
    let what = format!("{} MiB are free", bytes >> 20);
    let fix = "free some space, or move it: where the log cannot be written, nothing is sealed or opened";
    match bytes {
        ..SPACE_PROBLEM => Check::problem(subject, what, fix),
        SPACE_PROBLEM..SPACE_WARNING => Check::warning(subject, what, fix),
        SPACE_WARNING.. => Check::ok(subject, what),
    }
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::doctor::State;

    const SUBJECT: Subject = Subject::Storage(StorageRole::Audit);

    #[test]
    fn space_is_judged_by_what_is_left() {
        assert_eq!(room_left(SUBJECT, 0).state, State::Problem);
        assert_eq!(room_left(SUBJECT, SPACE_PROBLEM).state, State::Warning);
        assert_eq!(room_left(SUBJECT, SPACE_WARNING).state, State::Ok);
        assert_eq!(room_left(SUBJECT, 3 << 20).what, "3 MiB are free");
    }

    #[test]
    fn a_directory_behind_a_closed_one_is_closed() {
        let home = tempfile::tempdir().unwrap();
        let inner = home.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(exposed(&inner).unwrap(), 0);
        fs::set_permissions(home.path(), Permissions::from_mode(0o711)).unwrap();
        // Unless what lies above is closed, which is not ours to say.
        if exposed(home.path()).unwrap() != 0 {
            assert_eq!(exposed(&inner).unwrap(), 0o077);
            fs::set_permissions(&inner, Permissions::from_mode(0o740)).unwrap();
            assert_eq!(exposed(&inner).unwrap(), 0, "it can be read, and not entered");
        }
    }

    #[test]
    fn modes_and_owners_have_their_fix() {
        let path = Path::new("/srv/it's");
        let check = modes(StorageRole::Keys, path, 0o020);
        assert_eq!(check.state, State::Problem);
        assert_eq!(check.fix.unwrap(), r"chmod go-rwx '/srv/it'\''s'");
        assert_eq!(modes(StorageRole::Keys, path, 0o005).state, State::Warning);
        assert_eq!(modes(StorageRole::Keys, path, 0).state, State::Ok);
        assert_eq!(owner(SUBJECT, path, 7, 7).state, State::Ok);
        assert!(owner(SUBJECT, path, 0, 7).fix.unwrap().contains("chown -R 7"));
    }

    #[test]
    fn a_place_that_is_not_there_yet_is_on_a_file_system() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(device(&home.path().join("a/b")), Some(home.path().metadata().unwrap().dev()));
    }
}
