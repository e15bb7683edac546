//! Where each blob goes below a directory.
//!
//! * By its name, where that is a safe relative path.
//! * A name that several of them have: `<name>~<blob id>`, for each of them, so that none is
//!   taken for another.
//! * Else, and without a name: `by-id/<blob id>`.
//!
//! Separate from the directory, and pure.
//!
//! Invariants: no two blobs go to one path, and no path is a directory of another; each path is
//! safe, whatever names there are.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::BlobId;

/// The directory of those that have no path by their name.
pub(super) const BY_ID: &str = "by-id";

/// What begins like this at the top is ours: the state, and files that are not whole yet.
pub(super) const OURS: &str = ".strongroom-";

/// The longest part between two slashes, in bytes: what file systems take, less `~<blob id>`.
const MAX_PART: usize = 255 - 27;

/// The path of each blob, by the names of all of them. Slashes part directories.
pub(super) fn paths<'a>(
    names: impl IntoIterator<Item = (BlobId, Option<&'a str>)>,
) -> BTreeMap<BlobId, String> {
    let names: Vec<_> = names.into_iter().collect();
    let mut times: BTreeMap<&str, u32> = BTreeMap::new();
    for name in names.iter().filter_map(|(_, name)| *name) {
        *times.entry(name).or_default() += 1;
    }
    let by_name = |(blob, name): &(BlobId, Option<&str>)| {
        let name = name.filter(|name| is_safe(name))?;
        Some((*blob, if times.get(name) == Some(&1) { name.to_owned() } else { format!("{name}~{blob}") }))
    };
    let named: BTreeMap<BlobId, String> = names.iter().filter_map(by_name).collect();
    // A name may be what another one has with its id, or a directory of another's.
    let mut taken: BTreeMap<&str, u32> = BTreeMap::new();
    named.values().for_each(|path| *taken.entry(path).or_default() += 1);
    let directories: BTreeSet<&str> = named.values().flat_map(|path| above(path)).collect();
    let path = |blob: &BlobId| {
        let path = named.get(blob)?;
        let alone = taken.get(path.as_str()) == Some(&1) && !directories.contains(path.as_str());
        alone.then(|| path.clone())
    };
    names.iter().map(|(blob, _)| (*blob, path(blob).unwrap_or_else(|| format!("{BY_ID}/{blob}")))).collect()
}

/// Whether a name is a path that stays below a directory, is not ours, and is not changed by
/// being one.
pub(super) fn is_safe(name: &str) -> bool {
    let part_is_safe = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= MAX_PART
            && !part.contains(|c: char| c.is_control() || c == '\\')
    };
    let first = name.split('/').next().unwrap_or_default();
    name.split('/').all(part_is_safe) && first != BY_ID && !first.starts_with(OURS)
}

/// The directories that a path is in.
pub(super) fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Day;

    fn blob(number: u8) -> BlobId {
        BlobId::new(Day::from_number(20_000), [number; 13]).unwrap()
    }

    fn planned(names: &[Option<&str>]) -> Vec<String> {
        let blobs = (0..).map(blob).zip(names.iter().copied());
        paths(blobs).into_values().collect()
    }

    #[test]
    fn names_that_are_paths_are_paths() {
        let plan = planned(&[Some("db/nightly"), Some("scan.dcm"), None]);
        assert_eq!(plan, ["db/nightly".to_owned(), "scan.dcm".to_owned(), format!("by-id/{}", blob(2))]);
    }

    #[test]
    fn names_that_lead_elsewhere_are_not() {
        let long = "x".repeat(MAX_PART + 1);
        for name in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../x",
            "a/../b",
            "a/..",
            "./a",
            "a//b",
            "a/",
            "a\\b",
            "a\0b",
            ".strongroom-restore",
            ".strongroom-x/y",
            "by-id",
            "by-id/x",
            &long,
        ] {
            assert!(!is_safe(name), "{name}");
            assert_eq!(planned(&[Some(name)]), [format!("by-id/{}", blob(0))], "{name}");
        }
        for name in ["a", "...", ".hidden", "a/.strongroom-x", "x/by-id", "jäne/2026", &long[1..]] {
            assert!(is_safe(name), "{name}");
        }
    }

    #[test]
    fn none_is_taken_for_another() {
        let twice = planned(&[Some("a"), Some("a"), Some("b")]);
        assert_eq!(twice, [format!("a~{}", blob(0)), format!("a~{}", blob(1)), "b".to_owned()]);
        // A directory of another one.
        assert_eq!(planned(&[Some("a"), Some("a/b")]), [format!("by-id/{}", blob(0)), "a/b".to_owned()]);
        // Somebody knew the id.
        let clash = format!("a~{}", blob(0));
        let by_id = [0, 2].map(|number| format!("by-id/{}", blob(number)));
        let plan = planned(&[Some("a"), Some("a"), Some(&clash)]);
        assert_eq!(plan, [by_id[0].clone(), format!("a~{}", blob(1)), by_id[1].clone()]);
    }

    proptest! {
        #[test]
        fn whatever_names_there_are(names in prop::collection::vec("[ab./~\\\\]{0,6}", 0..12)) {
            let all: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
            let plan = planned(&all);
            let distinct: BTreeSet<_> = plan.iter().collect();
            prop_assert_eq!(distinct.len(), names.len());
            for path in &plan {
                prop_assert!(is_safe(path) || path.starts_with("by-id/"));
                prop_assert!(above(path).all(|directory| !plan.iter().any(|other| other == directory)));
            }
        }
    }
}
