//! How large each kind of object is at most: the one table of it.
//!
//! Separate because whoever may write to a storage may put anything anywhere, and a server may say
//! one size and send another: two terabytes where a hundred bytes belong would end the program that
//! reads them. The storages of a store hold every read against this table, by the object's path:
//! the size in the answer before anything of the body is taken, and each piece of the body while it
//! comes. So no place that reads can forget it. An object that is larger than its kind is
//! [`ErrorKind::Integrity`](crate::error::ErrorKind::Integrity), and the error names the kind.
//!
//! | first part of the path | what | bytes at most |
//! |---|---|---|
//! | `blob` | a blob, which is read in ranges or as it streams | 4,000 GiB |
//! | `wrap` | a wrap | 128 KiB |
//! | `once`, `session`, `label`, `returned` | a claim, a paper of a session, a label, a line about a returned blob | 64 KiB |
//! | `name`, `clock`, `voucher`, `pin`, `store`, `probe` | a name, the clock's object, a voucher, a pin, the marker, what a storage is tried with | 4 KiB |
//! | `ring` | a ring | 128 MiB |
//! | `register` | a register | 64 MiB |
//! | `wal` | a commit | 64 MiB |
//! | `segment` | a segment | 192 MiB |
//! | `base`, `extract` | a base, a piece of an extract | 512 MiB |
//! | `head` | a saved head | 256 KiB |
//! | `tile`, `shard` | a tile, an entry bundle | 16.1 MiB |
//! | `list` | a list of returned blobs | 1 GiB |
//! | `epoch`, `key`, `order`, `certificate`, `checkpoint`, `manifest`, `meta`, `watch` | a record, a signed note, a list of silent writers | 1 MiB |
//! | anything else | nothing of ours | 64 MiB |
//!
//! What is not on a storage has limits of its own where it is read: files of keys, tokens and
//! certificates, requests and answers. The manual's chapter of the format has all of them.

use object_store::path::Path;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What a kind of object is called, and how large one is at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The kind, as an error names it.
    pub kind: &'static str,
    /// Bytes.
    pub bytes: u64,
}

/// By the first part of the path.
const TABLE: &[(&str, Limit)] = &[
    ("base", Limit { kind: "base of the audit log", bytes: 512 * MIB }),
    ("blob", Limit { kind: "blob", bytes: 4_000 * GIB }),
    ("certificate", Limit { kind: "certificate", bytes: MIB }),
    ("checkpoint", Limit { kind: "checkpoint of the audit log", bytes: MIB }),
    ("clock", Limit { kind: "object of the storage's clock", bytes: 4 * KIB }),
    ("epoch", Limit { kind: "record of an epoch", bytes: MIB }),
    ("extract", Limit { kind: "extract of the audit log", bytes: 512 * MIB }),
    ("head", Limit { kind: "saved head of the audit log", bytes: 256 * KIB }),
    ("key", Limit { kind: "statement of a change of the log's key", bytes: MIB }),
    ("label", Limit { kind: "label", bytes: 64 * KIB }),
    ("list", Limit { kind: "list of returned blobs", bytes: GIB }),
    ("manifest", Limit { kind: "manifest of a return", bytes: MIB }),
    ("meta", Limit { kind: "metadata of a returned blob", bytes: MIB }),
    ("name", Limit { kind: "use of a name", bytes: 4 * KIB }),
    ("once", Limit { kind: "claim of an idempotency key", bytes: 64 * KIB }),
    ("order", Limit { kind: "order", bytes: MIB }),
    ("pin", Limit { kind: "pin of a ring", bytes: 4 * KIB }),
    ("probe", Limit { kind: "object that a storage is tried with", bytes: 4 * KIB }),
    ("register", Limit { kind: "register", bytes: 64 * MIB }),
    ("returned", Limit { kind: "line about a returned blob", bytes: 64 * KIB }),
    ("ring", Limit { kind: "ring", bytes: 128 * MIB }),
    ("segment", Limit { kind: "segment of the audit log", bytes: 192 * MIB }),
    ("session", Limit { kind: "paper of a session", bytes: 64 * KIB }),
    ("shard", Limit { kind: "tile or checkpoint of the audit log", bytes: TILE }),
    ("store", Limit { kind: "marker of a store", bytes: 4 * KIB }),
    ("tile", Limit { kind: "tile of the audit log", bytes: TILE }),
    ("voucher", Limit { kind: "voucher", bytes: 4 * KIB }),
    ("wal", Limit { kind: "commit of the audit log", bytes: 64 * MIB }),
    ("watch", Limit { kind: "list of silent writers", bytes: MIB }),
    ("wrap", Limit { kind: "wrap of a blob's key", bytes: 128 * KIB }),
];

/// An entry bundle: 256 entries, each with its length.
const TILE: u64 = 256 * (2 + 65_535);

/// What is not in the table is nothing of ours.
const OTHER: Limit = Limit { kind: "object", bytes: 64 * MIB };

/// The limit of the object at `path`.
#[must_use]
pub fn of(path: &Path) -> Limit {
    let first = path.as_ref().split('/').next().unwrap_or_default();
    TABLE.iter().find(|(part, _)| *part == first).map_or(OTHER, |(_, limit)| *limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found_by_its_path() {
        assert!(TABLE.is_sorted_by(|one, other| one.0 < other.0));
        for (part, limit) in TABLE {
            assert_eq!(of(&Path::from(*part)), *limit);
            assert_eq!(of(&Path::from(format!("{part}/x/y"))), *limit);
            assert_eq!(of(&Path::from(format!("{part}s/x"))), OTHER, "{part}");
        }
        assert_eq!(of(&Path::default()), OTHER);
    }

    #[test]
    fn what_we_write_has_room() {
        use crate::envelope::Wrap;
        assert!(of(&Path::from("wrap/x")).bytes >= Wrap::MAX_LEN as u64);
        assert!(of(&Path::from("checkpoint")).bytes >= crate::tlog::note::MAX_LEN as u64);
        assert!(of(&Path::from("wal/0000/0")).bytes >= crate::audit::commit::MAX_LEN as u64);
        assert!(of(&Path::from("base/0000/0")).bytes >= crate::audit::base::MAX_LEN);
        assert!(of(&Path::from("head/0000")).bytes >= crate::audit::head::MAX_LEN as u64);
    }
}
