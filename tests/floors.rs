//! Imports run down only.
//!
//! Every module stands on a floor (`FLOORS`). It may use modules of its own floor and below, and
//! floors 0 to 2 are pure: no tokio, no AWS, no object store, no file system, no environment,
//! no network, no clock, no ambient randomness. The compiler does not mind a cycle of modules
//! or a clock read in the middle of a proof, so this test reads the sources and does.
//!
//! It reads tokens, not text: comments, strings and items under `#[cfg(test)]` do not
//! count, and `use` trees, `self`, `super`, aliases and what `lib.rs` re-exports are followed. Code
//! that macros of other crates make is out of its sight.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

#[path = "common/tokens.rs"]
mod tokens;
use tokens::{Token, tokens, without_tests};

/// The floor of each top-level module, and of its submodules where that is another one.
/// (name, floor of `src/name.rs`, floor of `src/name/*.rs`)
const FLOORS: &[(&str, u8, u8)] = &[
    ("codec", 0, 0),
    ("entropy", 0, 0),
    ("error", 0, 0),
    ("id", 0, 0),
    ("secret", 0, 0),
    ("time", 0, 0),
    ("envelope", 1, 1),
    ("payload", 1, 1),
    ("schedule", 1, 1),
    ("suite", 1, 1),
    ("merkle", 2, 2),
    ("order", 2, 2),
    ("retention", 2, 2),
    ("tlog", 2, 2),
    ("witness", 2, 4), // the rules; state, client and server under them
    ("access", 3, 2),  // the decisions; who acts, under them
    ("audit", 3, 4),   // the contract and the records; the log under them
    ("cache", 3, 3),
    ("once", 3, 3),
    ("kms", 3, 4), // the contract; the providers under it
    ("register", 3, 3),
    ("ring", 3, 3),
    ("session", 3, 3),
    ("certificate", 4, 4),
    ("durable", 4, 4),
    ("store", 4, 4),
    ("system", 4, 4), // the one place that asks the machine for time and randomness
    ("doctor", 5, 5),
    ("drill", 5, 5),
    ("restore", 5, 5),
    ("room", 5, 5),
    ("shred", 5, 5),
    ("bin", 6, 6),
    ("cli", 6, 6),
    ("client", 6, 6),
    ("config", 6, 6),
    ("daemon", 6, 6),
    ("fuzz", 6, 6), // the private decoders of all floors, for tests/fuzz.rs
    ("json", 6, 6),
];

/// Modules that may name anything: the crate root, and prose.
const EXEMPT: &[&str] = &["lib", "manual"];

/// The floors that are pure.
const PURE: u8 = 2;

/// What a pure module must not name, as the beginnings of paths.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["object_store"],
    &["getrandom"],
    &["rand"],
    &["aws_lc_rs", "rand"],
    &["std", "env"],
    &["std", "fs"],
    &["std", "net"],
    &["std", "time", "Instant"],
    &["std", "time", "SystemTime"],
];

#[test]
fn imports_run_down_only() {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| ".".into());
    let root = Path::new(&root);
    let mut paths = Vec::new();
    collect(&root.join("src"), &mut paths);
    let files: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root).expect("it was found under the root");
            let name = name.to_string_lossy().replace('\\', "/");
            (name, fs::read_to_string(path).expect("a source file is readable UTF-8"))
        })
        .collect();
    assert!(!files.is_empty(), "no sources under {}", root.display());

    let found = violations(&files);
    assert!(found.is_empty(), "imports must run down:\n{}", found.join("\n"));
}

fn collect(directory: &Path, into: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("the source directory is readable");
    for entry in entries {
        let path = entry.expect("its entries are too").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

// --- the check --------------------------------------------------------------------------

/// A path as written down in full: `crate::a::B` or `std::fs`. The last name may be `*`.
type FullPath = Vec<String>;

/// Everything wrong with a tree of sources (path, text), as `path:line: what`.
fn violations(files: &[(String, String)]) -> Vec<String> {
    let mut sources: Vec<Source> = files.iter().map(|(path, text)| Source::read(path, text)).collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    let tests: BTreeSet<Vec<String>> = sources.iter().flat_map(|s| s.test_modules.clone()).collect();
    sources.retain(|s| !tests.iter().any(|test| s.module.starts_with(test)));

    let tree = Tree {
        modules: sources.iter().map(|s| s.module.clone()).collect(),
        reexports: sources
            .iter()
            .filter(|s| s.path == "src/lib.rs")
            .flat_map(|s| s.bindings.clone())
            .collect(),
    };
    let mut found = Vec::new();
    for source in &sources {
        if source.module.is_empty() || EXEMPT.contains(&source.module[0].as_str()) {
            continue;
        }
        let Some(floor) = floor(&source.module) else {
            let name = source.module.join("::");
            found.push(format!("{}:1: `{name}` is on no floor: give it a floor", source.path));
            continue;
        };
        for name in &source.names {
            // Where the import itself is reported, its uses need not be.
            let known = name.through.as_ref().is_some_and(|path| tree.objection(floor, path).is_some());
            if known || (name.is_macro && name.path.len() == 2) {
                continue;
            }
            if let Some(objection) = tree.objection(floor, &name.path) {
                let line = format!("{}:{}: {objection}", source.path, name.line);
                if found.last() != Some(&line) {
                    found.push(line);
                }
            }
        }
    }
    found
}

fn floor(module: &[String]) -> Option<u8> {
    let (_, own, below) = FLOORS.iter().find(|(name, ..)| *name == module[0])?;
    Some(if module.len() == 1 { *own } else { *below })
}

/// What has to be known of the other files.
struct Tree {
    modules: BTreeSet<Vec<String>>,
    /// What `lib.rs` offers at the crate's root, and where it has it from.
    reexports: BTreeMap<String, FullPath>,
}

impl Tree {
    /// Why a module on `floor` must not name `path`.
    fn objection(&self, floor: u8, path: &[String]) -> Option<String> {
        let shown = path.join("::");
        if path[0] != "crate" {
            let impure = IMPURE.iter().any(|banned| begins_with(path, banned))
                // AWS-LC is a library of primitives and not the cloud.
                || (path[0].starts_with("aws_") && path[0] != "aws_lc_rs");
            return (floor <= PURE && impure)
                .then(|| format!("floor {floor} names `{shown}`: floors 0 to {PURE} are pure"));
        }
        let module = match self.module_of(path) {
            Some(module) if EXEMPT.contains(&module[0].as_str()) => return None,
            Some(module) => module,
            None => return Some(format!("`{shown}` leads to no module: name the one it is from")),
        };
        // A target without a floor is reported at its own file.
        let target = self::floor(&module)?;
        (target > floor)
            .then(|| format!("floor {floor} imports `{shown}` from floor {target} (`{}`)", module.join("::")))
    }

    /// The module that a path into this crate leads to.
    fn module_of(&self, path: &[String]) -> Option<Vec<String>> {
        let inside = &path[1..];
        let longest = (1..=inside.len()).rev().find(|&n| self.modules.contains(&inside[..n]));
        if let Some(n) = longest {
            return Some(inside[..n].to_vec());
        }
        let first = self.reexports.get(inside.first()?)?;
        // Once is enough: `lib.rs` re-exports from modules and not from itself.
        let inside = first.get(1..)?;
        let longest = (1..=inside.len()).rev().find(|&n| self.modules.contains(&inside[..n]))?;
        Some(inside[..longest].to_vec())
    }
}

/// Whether a path may lead to what `banned` begins: `std::time::*` may lead to
/// `std::time::Instant`.
fn begins_with(path: &[String], banned: &[&str]) -> bool {
    let named = path.iter().take_while(|name| *name != "*").count();
    let compared = named.min(banned.len());
    path.iter().zip(banned).take(compared).all(|(a, b)| a == b)
        && (compared == banned.len() || named < path.len())
}

// --- reading one file -------------------------------------------------------------------

/// A path that a source names.
struct Name {
    line: usize,
    path: FullPath,
    /// The import that it begins with: `time::Instant` after `use std::time`.
    through: Option<FullPath>,
    is_macro: bool,
}

struct Source {
    path: String,
    module: Vec<String>,
    /// Modules in files of their own that exist under `#[cfg(test)]` only.
    test_modules: Vec<Vec<String>>,
    bindings: BTreeMap<String, FullPath>,
    names: Vec<Name>,
}

impl Source {
    fn read(path: &str, text: &str) -> Self {
        let module = module_of_file(path);
        let (tokens, test_names) = without_tests(tokens(text));
        let within = |name: &String| [module.clone(), vec![name.clone()]].concat();
        let mut source = Source {
            path: path.into(),
            test_modules: test_names.iter().map(within).collect(),
            module,
            bindings: BTreeMap::new(),
            names: Vec::new(),
        };
        let children: BTreeSet<&str> = tokens
            .windows(3)
            .filter(|w| w[0].is("mod") && w[2].is(";"))
            .map(|w| w[1].text.as_str())
            .collect();

        let mut inline: Vec<Option<String>> = Vec::new();
        let mut at = 0;
        let mut spoken = Vec::new();
        while at < tokens.len() {
            let token = &tokens[at];
            let here: Vec<String> = source.module.iter().chain(inline.iter().flatten()).cloned().collect();
            let next_is = |offset: usize, text: &str| tokens.get(at + offset).is_some_and(|t| t.is(text));
            if token.is("mod") && next_is(2, "{") {
                inline.push(Some(tokens[at + 1].text.clone()));
                at += 3;
            } else if token.is("{") {
                inline.push(None);
                at += 1;
            } else if token.is("}") {
                inline.pop();
                at += 1;
            } else if token.is("use") && !next_is(1, "<") {
                at += 1;
                let mut leaves = Vec::new();
                use_tree(&tokens, &mut at, &[], &mut leaves);
                for (line, path, binding) in leaves {
                    let path = full(&path, &here, &children);
                    source.bindings.insert(binding, path.clone());
                    source.names.push(Name { line, path, through: None, is_macro: false });
                }
            } else if token.is_name() {
                let line = token.line;
                let mut path = vec![token.text.clone()];
                at += 1;
                while at + 1 < tokens.len() && tokens[at].is("::") && tokens[at + 1].is_name() {
                    path.push(tokens[at + 1].text.clone());
                    at += 2;
                }
                let is_macro = tokens.get(at).is_some_and(|t| t.is("!"))
                    && !tokens.get(at + 1).is_some_and(|t| t.is("="));
                if path.len() > 1 {
                    spoken.push((line, path, here, is_macro));
                }
            } else {
                at += 1;
            }
        }
        // Only now is every import known.
        for (line, path, here, is_macro) in spoken {
            let through = source.bindings.get(&path[0]).cloned();
            let path = match &through {
                Some(import) => [import.as_slice(), &path[1..]].concat(),
                None => full(&path, &here, &children),
            };
            source.names.push(Name { line, path, through, is_macro });
        }
        source.names.sort_by_key(|name| name.line);
        source
    }
}

/// `src/kms/aws.rs` is `kms::aws`; `src/lib.rs` is the root and has no name.
fn module_of_file(path: &str) -> Vec<String> {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut names: Vec<String> = path.split('/').map(String::from).collect();
    if names.last().is_some_and(|name| name == "mod") || names == ["lib"] {
        names.pop();
    }
    names
}

/// Writes a path in full, seen from the module `here`.
fn full(path: &[String], here: &[String], children: &BTreeSet<&str>) -> FullPath {
    let mut module = here.to_vec();
    let mut rest = path;
    match path[0].as_str() {
        "crate" | "strongroom" => {
            module.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                module.pop();
                rest = &rest[1..];
            }
        }
        first if children.contains(first) => {}
        _ => return path.to_vec(),
    }
    [&["crate".to_string()], module.as_slice(), rest].concat()
}

/// Flattens what follows `use` into (line, path, name it is bound to), up to the `;`, `,` or
/// `}` after it.
fn use_tree(
    tokens: &[Token],
    at: &mut usize,
    prefix: &[String],
    leaves: &mut Vec<(usize, Vec<String>, String)>,
) {
    let mut path = prefix.to_vec();
    let mut line = 0;
    while let Some(token) = tokens.get(*at) {
        if token.is("{") {
            *at += 1;
            while tokens.get(*at).is_some_and(|t| !t.is("}")) {
                use_tree(tokens, at, &path, leaves);
                if tokens.get(*at).is_some_and(|t| t.is(",")) {
                    *at += 1;
                }
            }
            *at += 1;
            return;
        }
        if token.is(";") || token.is(",") || token.is("}") {
            break;
        }
        line = token.line;
        *at += 1;
        if token.is("as") {
            let alias = tokens.get(*at).map_or(String::new(), |t| t.text.clone());
            *at += 1;
            leaves.push((line, path, alias));
            return;
        }
        // `a::{self}` is `a`.
        let itself = token.is("self") && !path.is_empty();
        if (token.is_name() || token.is("*")) && !itself {
            path.push(token.text.clone());
        }
    }
    if let Some(last) = path.last().cloned() {
        leaves.push((line, path, last));
    }
}

// --- the check can fail -----------------------------------------------------------------

/// A small tree of sources, and what must be found in it: the start and a part of each line.
struct Case {
    title: &'static str,
    files: &'static [(&'static str, &'static str)],
    found: &'static [(&'static str, &'static str)],
}

/// Modules for the cases to import from.
const WORLD: &[(&str, &str)] = &[
    (
        "src/lib.rs",
        "pub mod kms;\npub use room::Strongroom;\npub use id::{BlobId as Id, KeyId};\nmod id;\nmod room;",
    ),
    ("src/id.rs", ""),
    ("src/kms.rs", ""),
    ("src/kms/aws.rs", ""),
    ("src/manual.rs", "use crate::room::Strongroom;"),
    ("src/room.rs", ""),
    ("src/suite.rs", ""),
    ("src/time.rs", ""),
];

const CASES: &[Case] = &[
    Case {
        title: "imports of the same floor and below are fine",
        files: &[
            (
                "src/room/read.rs",
                "use crate::kms::{self, aws::Client};\nuse crate::{id, suite};\nuse super::Room;",
            ),
            ("src/bin/strongroom.rs", "use strongroom::room::Room;\nfn main() { std::env::args(); }"),
            ("src/store.rs", "use std::fs;\nuse tokio::io;\nfn now() { std::time::Instant::now(); }"),
        ],
        found: &[],
    },
    Case {
        title: "an import of a higher floor",
        files: &[("src/ring.rs", "\nuse crate::room::Customer;")],
        found: &[("src/ring.rs:2:", "floor 3 imports `crate::room::Customer` from floor 5")],
    },
    Case {
        title: "a path in the middle of code",
        files: &[("src/merkle.rs", "fn f() {\n    let x = crate::kms::Kms::new();\n}")],
        found: &[("src/merkle.rs:2:", "`crate::kms::Kms::new`")],
    },
    Case {
        title: "each leaf of a tree of imports, by its own line",
        files: &[(
            "src/access.rs",
            "use crate::{\n    id,\n    kms::{\n        Kms,\n        aws,\n    },\n    room::*,\n};",
        )],
        found: &[("src/access.rs:5:", "`crate::kms::aws`"), ("src/access.rs:7:", "`crate::room::*`")],
    },
    Case {
        title: "super, also from within an inline module",
        files: &[(
            "src/suite/gcm.rs",
            "use super::super::kms;\nmod inner { use super::super::super::room; use super::x; }",
        )],
        found: &[("src/suite/gcm.rs:1:", "`crate::kms`"), ("src/suite/gcm.rs:2:", "`crate::room`")],
    },
    Case {
        title: "the crate by its own name",
        files: &[("src/audit.rs", "use strongroom::room::Room;")],
        found: &[("src/audit.rs:1:", "`crate::room::Room`")],
    },
    Case {
        title: "a contract that re-exports its implementation",
        files: &[
            ("src/audit.rs", "pub mod log;\npub use log::Log;\npub use self::log::Other;"),
            ("src/audit/log.rs", "use super::Record;"),
        ],
        found: &[
            ("src/audit.rs:2:", "`crate::audit::log::Log`"),
            ("src/audit.rs:3:", "`crate::audit::log::Other`"),
        ],
    },
    Case {
        title: "what lib.rs re-exports counts as what it is",
        files: &[(
            "src/ring.rs",
            "use crate::{Id, KeyId};\nuse crate::Strongroom;\nuse crate::Nothing;\nuse crate::*;",
        )],
        found: &[
            ("src/ring.rs:2:", "from floor 5 (`room`)"),
            ("src/ring.rs:3:", "leads to no module"),
            ("src/ring.rs:4:", "leads to no module"),
        ],
    },
    Case {
        title: "a module nobody gave a floor",
        files: &[("src/surprise.rs", "use crate::room::Room;"), ("src/surprise/more.rs", "")],
        found: &[("src/surprise.rs:1:", "give it a floor"), ("src/surprise/more.rs:1:", "give it a floor")],
    },
    Case {
        title: "impure names in a pure module",
        files: &[(
            "src/schedule.rs",
            "use tokio::sync::Mutex;\nuse aws_sdk_kms as kms;\nuse std::{fs, io};\nfn a() { getrandom::fill(x); }\n\
             fn b() { rand::random() }\nfn c() { ::std::env::var(y) }\nuse std::net::IpAddr;\nuse object_store::path::Path;\n\
             use aws_lc_rs::{aead, rand as chance};\n#[tokio::test]\nfn d() {}",
        )],
        found: &[
            ("src/schedule.rs:1:", "`tokio::sync::Mutex`"),
            ("src/schedule.rs:2:", "`aws_sdk_kms`"),
            ("src/schedule.rs:3:", "`std::fs`"),
            ("src/schedule.rs:4:", "`getrandom::fill`"),
            ("src/schedule.rs:5:", "`rand::random`"),
            ("src/schedule.rs:6:", "`std::env::var`"),
            ("src/schedule.rs:7:", "`std::net::IpAddr`"),
            ("src/schedule.rs:8:", "`object_store::path::Path`"),
            ("src/schedule.rs:9:", "`aws_lc_rs::rand`"),
            ("src/schedule.rs:10:", "`tokio::test`"),
        ],
    },
    Case {
        title: "the clock, however it is reached",
        files: &[
            (
                "src/codec.rs",
                "use std::time::Duration;\nuse std::time::{self, SystemTime};\nfn f() { time::Instant::now(); SystemTime::now(); }",
            ),
            ("src/secret.rs", "use std::time as t;\nfn f() { t::Instant::now(); t::Duration::ZERO; }"),
            ("src/error.rs", "use std::time::*;"),
        ],
        found: &[
            ("src/codec.rs:2:", "`std::time::SystemTime`"),
            ("src/codec.rs:3:", "`std::time::Instant::now`"),
            ("src/error.rs:1:", "`std::time::*`"),
            ("src/secret.rs:2:", "`std::time::Instant::now`"),
        ],
    },
    Case {
        title: "a module bound by an import",
        files: &[("src/cache.rs", "use crate::kms;\nfn f() {\n    kms::aws::connect();\n}")],
        found: &[("src/cache.rs:3:", "`crate::kms::aws::connect`")],
    },
    Case {
        title: "its own primitives are no cloud, and names are no paths",
        files: &[(
            "src/suite/fast.rs",
            "use aws_lc_rs::aead;\nuse crate::time;\nfn f(tokio: u8) { time::Instant; x.rand; crate::check!(1); }",
        )],
        found: &[],
    },
    Case {
        title: "comments, strings, characters and lifetimes",
        files: &[(
            "src/payload.rs",
            "//! crate::room::Room\n/* /* use tokio::x; */ crate::room::x */\nconst A: &str = \"crate::room::x \\\" tokio::y\";\n\
             const B: &str = r#\"\"tokio::x\"#;\nfn f<'a>(x: &'a u8) -> char { '\"' }\nconst C: char = '\\'';\nconst D: u8 = b'\"';\n\
             use tokio::z;",
        )],
        found: &[("src/payload.rs:8:", "`tokio::z`")],
    },
    Case {
        title: "tests are exempt, and what follows them is not",
        files: &[
            (
                "src/retention.rs",
                "#[cfg(test)]\nuse crate::room::Room;\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n    use crate::room::Room;\n    #[tokio::test]\n    fn f() {}\n}\n#[cfg(all(test, feature = \"aws\"))]\nmod helpers;\nuse crate::room::Customer;",
            ),
            ("src/retention/helpers.rs", "use crate::room::Room;"),
            ("src/time/tests.rs", "#![cfg(test)]\nuse crate::room::Room;"),
        ],
        found: &[("src/retention.rs:12:", "`crate::room::Customer`")],
    },
];

#[test]
fn the_check_finds_what_it_should_and_no_more() {
    for case in CASES {
        let mut files: BTreeMap<&str, &str> = WORLD.iter().copied().collect();
        files.extend(case.files.iter().copied());
        let files: Vec<(String, String)> =
            files.into_iter().map(|(path, text)| (path.into(), text.into())).collect();
        let found = violations(&files);
        let as_expected = found.len() == case.found.len()
            && found
                .iter()
                .zip(case.found)
                .all(|(line, (start, part))| line.starts_with(start) && line.contains(part));
        assert!(as_expected, "{}: found\n{}", case.title, found.join("\n"));
    }
}
