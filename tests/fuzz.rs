//! Fuzzing of every decoder and of the HTTP front: the short form. `tests/fuzz/run` is the long one.
//!
//! Each row of the table (`tests/fuzz/rows.rs`) takes what it begins with, the golden files above all, and a
//! number of mutations of it. No input may panic, allocate beyond the limit of its kind, or decode to
//! what encodes to something else; nor may a request be answered with an error of the server. What fails
//! is told in hexadecimal:
//!
//! ```text
//! STRONGROOM_FUZZ_ROW=ring STRONGROOM_FUZZ_INPUT=53524d… cargo test --test fuzz
//! ```
//!
//! The other test reads the sources: whatever decodes is in the table, or on the list of what is not.
#![cfg(all(feature = "daemon", feature = "aws"))]

mod common;
#[path = "fuzz/corpus.rs"]
mod corpus;
#[path = "common/dice.rs"]
mod dice;
#[path = "fuzz/http.rs"]
mod http;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/rows.rs"]
mod rows;
#[path = "common/tokens.rs"]
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use dice::Dice;
use mutate::mutated;
use rows::{Limit, ROWS, Row};
use strongroom::daemon::endpoints::TABLE;
use tokens::{Token, after_brackets, tokens, without_tests};

/// What all of it follows from.
const SEED: u64 = 12;

/// Allocations are counted in all threads, so that one test runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn no_decoder_panics_or_allocates_what_its_input_is_not_worth() {
    let _alone = alone();
    let chosen = std::env::var("STRONGROOM_FUZZ_ROW").ok();
    let input = std::env::var("STRONGROOM_FUZZ_INPUT").ok();
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| chosen.as_ref().is_none_or(|name| name == row.name)).collect();
    assert!(!rows.is_empty(), "there is no row {chosen:?}");
    for row in rows {
        match &input {
            Some(hex) => row.execute(&HEXLOWER.decode(hex.trim().as_bytes()).expect("hexadecimal")),
            None => short(row),
        }
    }
}

fn short(row: &Row) {
    let seeds = (row.seeds)(corpus::world());
    let mut dice = Dice::new(SEED, 0);
    let mutations = (0..row.short).map(|_| mutated(&seeds, &mut dice));
    for (number, input) in seeds.iter().cloned().chain(mutations).enumerate() {
        let run = catch_unwind(AssertUnwindSafe(|| row.execute(&input)));
        let Err(why) = run else { continue };
        panic!(
            "row {}, input {number} of seed {SEED}: {}: STRONGROOM_FUZZ_ROW={} STRONGROOM_FUZZ_INPUT={}",
            row.name,
            why.downcast_ref::<String>().map_or("it panicked, as is told above", String::as_str),
            row.name,
            HEXLOWER.encode(&input)
        );
    }
}

/// A decoder with a fault, and what is told of it.
type Faulty = (&'static str, fn(&[u8]));

const FAULTY: &[Faulty] = &[
    // At an index that is in the input.
    ("index", |bytes| {
        let _ = bytes.first().map(|at| bytes[usize::from(*at)]);
    }),
    // By a length that is in the input, before so many bytes are there.
    ("were allocated", |bytes| {
        let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        drop(Vec::<u8>::with_capacity(usize::try_from(length).expect("64 bits")));
    }),
    // It takes a flag of 2 for one of 1.
    ("another encoding", |bytes| {
        let again: Vec<u8> = bytes.iter().map(|flag| u8::from(*flag != 0)).collect();
        if bytes.iter().all(|flag| *flag <= 2) {
            rows::same(bytes, &again);
        }
    }),
];

#[test]
fn each_kind_of_fault_is_found() {
    let _alone = alone();
    let seeds = |_: &corpus::World| vec![vec![0, 0, 0, 1, 1], vec![0, 0, 0, 0], vec![1; 8]];
    for (says, run) in FAULTY {
        let row = Row { name: "planted", limit: Limit::Object("ring"), seeds, run: *run, short: 5000 };
        let found = catch_unwind(|| short(&row)).expect_err(says);
        let found = found.downcast::<String>().expect("a sentence");
        assert!(found.contains(says) && found.contains("STRONGROOM_FUZZ_INPUT="), "{found}");
    }
}

// --- every decoder is in the table ------------------------------------------------------

/// The traits that are decoders by themselves.
const TRAITS: [&str; 3] = ["Decode", "Deserialize", "FromStr"];

/// What the names of functions that decode begin with.
const NAMES: [&str; 8] =
    ["decode", "from_bytes", "from_der", "from_line", "from_text", "parse", "read", "unverified"];

/// What they take.
const TAKEN: [&str; 8] = ["Bytes", "BufRead", "HeaderMap", "Path", "Read", "Reader", "str", "u8"];

/// The decoders in a source: `audit/commit.rs Commit::decode`.
fn decoders(path: &str, text: &str) -> BTreeSet<String> {
    let (tokens, _) = without_tests(tokens(text));
    let mut found = BTreeSet::new();
    // The type and the trait of the `impl` that a place is in, and where it ends.
    let mut of = (String::new(), None, 0);
    let mut at = 0;
    while at < tokens.len() {
        let until = |mark: &[&str], from: usize| {
            (from..tokens.len())
                .find(|at| mark.iter().any(|mark| tokens[*at].is(mark)))
                .unwrap_or(tokens.len())
        };
        if tokens[at].is("impl") && at >= of.2 {
            let body = until(&["{"], at);
            of = (self_type(&tokens[at..body]), decoding(&tokens[at..body]), after_brackets(&tokens, body));
            at = body + 1;
        } else if tokens[at].is("fn") && tokens.get(at + 1).is_some_and(Token::is_name) {
            let name = tokens[at + 1].text.clone();
            let list = until(&["("], at);
            let behind = after_brackets(&tokens, list);
            let begin = until(&["{", ";"], behind);
            let end = if tokens.get(begin).is_some_and(|token| token.is("{")) {
                after_brackets(&tokens, begin)
            } else {
                begin
            };
            let inside = at < of.2;
            let says = |token: &str| tokens[list..behind].iter().any(|one| one.is(token));
            let named =
                NAMES.iter().any(|begin| name.starts_with(begin)) && TAKEN.iter().any(|one| says(one));
            let serde = tokens[begin..end].windows(3).any(|three| {
                let of_serde = three[0].is("serde_json") || three[0].is("toml");
                three[0].is("decode_line")
                    || (of_serde && three[1].is("::") && three[2].text.starts_with("from_"))
            });
            let who = if inside { format!("{}::", of.0) } else { String::new() };
            match &of.1 {
                Some(of_trait) if inside => drop(found.insert(format!("{path} {of_trait} for {}", of.0))),
                _ if named || serde => drop(found.insert(format!("{path} {who}{name}"))),
                _ => {}
            }
            at = if inside { end } else { begin };
        } else {
            at += 1;
        }
    }
    found
}

/// The trait of an `impl`, if it is one of [`TRAITS`].
fn decoding(head: &[Token]) -> Option<&'static str> {
    let of = head.iter().position(|token| token.is("for"))?;
    TRAITS.into_iter().find(|name| head[..of].iter().any(|token| token.is(name)))
}

/// The type of an `impl`, without what it is generic over.
fn self_type(head: &[Token]) -> String {
    let begin = head.iter().position(|token| token.is("for")).map_or(1, |at| at + 1);
    let mut depth = 0;
    let mut named = String::new();
    for token in &head[begin..] {
        match token.text.as_str() {
            "<" => depth += 1,
            ">" => depth -= 1,
            "where" => break,
            "$" => {}
            text if depth == 0 && token.is_name() => named = text.to_owned(),
            _ => {}
        }
    }
    named
}

/// All decoders of the library, by where they are.
fn all_decoders() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut left, mut files, mut tests) = (vec![root.clone()], Vec::new(), BTreeSet::new());
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).expect("the sources are readable") {
            let path = entry.expect("its entries are too").path();
            if path.is_dir() {
                left.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("it is under the root").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("a source is readable UTF-8");
            // Modules that are for tests alone, in files of their own.
            for test in without_tests(tokens(&text)).1 {
                tests.insert(format!("{}/{test}", name.trim_end_matches(".rs")));
            }
            files.push((name, text));
        }
    }
    let is_test = |name: &str| tests.iter().any(|test| name.trim_end_matches(".rs").starts_with(test));
    // The doors to the private ones are no decoders.
    let is_door = |decoder: &String| decoder.starts_with("fuzz.rs ") || decoder.contains(" fuzz");
    files
        .iter()
        .filter(|(name, _)| !is_test(name))
        .flat_map(|(name, text)| decoders(name, text))
        .filter(|decoder| !is_door(decoder))
        .collect()
}

/// Which rows of the table are for which decoders, as [`decoders`] names them.
const COVERED: &[(&str, &[&str])] = &[
    ("blob-header", &["envelope.rs Header::parse", "envelope/wrap.rs Decode for Wrapped"]),
    ("metadata", &["envelope/metadata.rs Decode for Metadata"]),
    ("wrap", &["envelope/wrap.rs Decode for Wrap"]),
    ("kms-wrapped", &["envelope/wrap.rs Decode for KmsWrapped"]),
    ("ring", &["ring/sealed.rs SealedRing::parse"]),
    (
        "ring-body",
        &[
            "ring/body.rs Decode for Claim",
            "ring/body.rs Decode for Dropped",
            "ring/body.rs Decode for Entry",
            "ring/body.rs Decode for EntryKind",
            "ring/body.rs Decode for EntryState",
            "ring/body.rs Decode for Hold",
            "ring/body.rs Decode for HoldScope",
            "ring/body.rs Decode for HoldState",
            "ring/body.rs Decode for Policy",
            "ring/body.rs Decode for Ring",
            "ring/body.rs Decode for RingDataKey",
            "ring/body.rs Decode for Settings",
            "ring/body.rs decode_flag",
            "ring/body.rs decode_kms_key",
            "ring/body.rs decode_option",
            "ring/body.rs decode_wrapped",
        ],
    ),
    ("ring-changes", &["ring/delta.rs Decode for Delta"]),
    ("epoch-record", &["ring/sealed.rs Decode for EpochRecord"]),
    ("register", &["register/sealed.rs SealedRegister::parse"]),
    ("register-body", &["register/sealed.rs Decode for Register"]),
    (
        "pieces",
        &[
            "codec.rs decode",
            "codec.rs from_bytes",
            "id.rs Decode for name",
            "merkle.rs Decode for Frontier",
            "order/people.rs Decode for People",
            "order/people.rs Decode for Person",
            "register/sealed.rs Decode for EpochState",
            "retention.rs Decode for Window",
            "retention/clock.rs Decode for AcceptedTime",
            "time.rs Decode for Day",
            "time.rs Decode for Timestamp",
        ],
    ),
    ("once-claim", &["once.rs Decode for Claim", "once.rs SealedClaim::parse"]),
    (
        "session-paper",
        &[
            "session.rs Decode for Ended",
            "session.rs Decode for Guest",
            "session.rs Decode for Opened",
            "session.rs Decode for Requested",
            "session.rs Decode for SessionLimits",
            "session.rs SealedPaper::parse",
        ],
    ),
    ("marker", &["store/marker.rs Marker::decode"]),
    (
        "kms-files",
        &[
            "kms/local.rs Decode for Header",
            "kms/local.rs Decode for SealedDataKey",
            "kms/local/directory.rs decode",
            "kms/local/directory/grants.rs decode",
        ],
    ),
    (
        "commit",
        &[
            "audit/commit.rs Commit::decode",
            "audit/commit.rs Commit::decode_first",
            "audit/commit.rs Header::decode",
            "audit/commit.rs decode_header",
            "audit/commit.rs decode_line",
            "audit/commit.rs decode_next",
            "audit/commit.rs decode_signed",
            "audit/members.rs decode_header",
        ],
    ),
    (
        "record",
        &["audit/members.rs Record::from_line", "audit/members.rs decode", "audit/members.rs decode_record"],
    ),
    (
        "segment",
        &[
            "audit/segment.rs Header::decode",
            "audit/segment.rs Segment::decode",
            "audit/segment.rs check_format",
            "audit/segment.rs strict",
        ],
    ),
    (
        "base",
        &["audit/base.rs Base::decode", "audit/base.rs Base::read", "audit/base.rs OfCustomer::from_line"],
    ),
    (
        "extract",
        &[
            "audit/base/extract.rs decode",
            "audit/base/extract.rs decode_entry",
            "audit/base/extract.rs decode_operations",
        ],
    ),
    ("head", &["audit/head/saved.rs SavedHead::decode", "audit/head/saved.rs SavedHead::read"]),
    ("voucher", &["audit/voucher.rs Vouched::verify"]),
    ("pin", &["audit/log/pins.rs pinned"]),
    ("key-change", &["audit/authority/change.rs KeyChange::parse", "audit/authority/change.rs not_read"]),
    ("watch", &["audit/log/watch.rs Inner::recall_watch"]),
    (
        "view",
        &[
            "audit/view.rs Header::decode",
            "audit/view.rs ProvenRecord::decode",
            "audit/view/check.rs read_line",
        ],
    ),
    ("emergency", &["audit/emergency/lines.rs decode", "audit/emergency/lines.rs read_line"]),
    (
        "certificate",
        &[
            "certificate.rs Certificate::parse",
            "certificate.rs Certificate::unverified",
            "certificate.rs CertificateBody::from_text",
            "certificate/body.rs Deserialize for CheckValue",
            "certificate/body.rs Deserialize for ToolVersion",
            "certificate/bundle.rs Bundle::parse",
            "certificate/text.rs read",
        ],
    ),
    ("epoch-paper", &["certificate/epoch.rs unverified_end"]),
    (
        "order",
        &[
            "audit/papers.rs OrderHead::of",
            "order.rs Deserialize for Format",
            "order.rs Order::parse",
            "order.rs SignedOrder::parse",
        ],
    ),
    (
        "returned",
        &[
            "shred/offboard/manifest.rs Deserialize for Digest",
            "shred/offboard/manifest.rs Line::parse",
            "shred/offboard/manifest.rs Line::read",
            "shred/offboard/manifest.rs List::parse",
            "shred/offboard/manifest.rs Manifest::verify",
        ],
    ),
    (
        "note",
        &[
            "tlog/checkpoint.rs Checkpoint::parse",
            "tlog/checkpoint.rs SignedCheckpoint::parse",
            "tlog/note.rs Note::parse",
            "tlog/note.rs NoteSignature::parse",
        ],
    ),
    ("tlog-proof", &["tlog/proof.rs TlogProof::parse", "tlog/proof.rs read_extra"]),
    ("witness-request", &["witness.rs AddCheckpoint::parse"]),
    ("tile", &["tlog/tile.rs Bundle::decode", "tlog/tile.rs Tile::decode"]),
    (
        "paths",
        &[
            "audit/layout.rs read",
            "store/layout.rs read_blob",
            "store/layout.rs read_day",
            "store/layout.rs read_epoch",
            "store/layout.rs read_label",
            "store/layout.rs read_name",
            "store/layout.rs read_once",
            "store/layout.rs read_probe",
            "store/layout.rs read_register",
            "store/layout.rs read_ring",
            "store/layout.rs read_session",
            "store/layout.rs read_wrap",
            "tlog/tile.rs FromStr for Bundle",
            "tlog/tile.rs FromStr for Tile",
            "tlog/tile.rs FromStr for TilePath",
            "tlog/tile.rs read_place",
        ],
    ),
    (
        "words",
        &[
            "access.rs FromStr for Purpose",
            "access/factor.rs Deserialize for Factor",
            "access/factor.rs FromStr for Factor",
            "access/policy.rs Deserialize for RuleId",
            "access/policy.rs Deserialize for name",
            "access/policy.rs FromStr for RuleId",
            "access/policy.rs FromStr for name",
            "access/principal.rs Deserialize for Principal",
            "access/principal.rs FromStr for Principal",
            "access/principal.rs FromStr for PrincipalId",
            "audit/query.rs FromStr for Cursor",
            "client/address.rs FromStr for DaemonUrl",
            "doctor/policy.rs FromStr for Account",
            "envelope/metadata.rs FromStr for BlobName",
            "id.rs Deserialize for KmsKeyId",
            "id.rs Deserialize for KmsRequestId",
            "id.rs Deserialize for name",
            "id.rs FromStr for CustomerRef",
            "id.rs FromStr for KmsKeyId",
            "id.rs FromStr for KmsRequestId",
            "id.rs FromStr for Label",
            "id.rs FromStr for name",
            "id.rs read_base32",
            "merkle.rs Deserialize for Hash",
            "once.rs FromStr for OnceKey",
            "order/people.rs FromStr for NewPerson",
            "retention.rs Deserialize for Period",
            "retention.rs FromStr for Period",
            "retention.rs FromStr for Window",
            "ring.rs FromStr for Tenancy",
            "room.rs FromStr for KeyChoice",
            "session.rs FromStr for PaperKind",
            "store/url.rs Deserialize for StorageUrl",
            "store/url.rs FromStr for StorageUrl",
            "suite.rs FromStr for Suite",
            "time.rs Deserialize for Day",
            "time.rs Deserialize for Timestamp",
            "time.rs FromStr for BootId",
            "time.rs FromStr for Day",
            "time.rs FromStr for Timestamp",
            "tlog/checkpoint.rs Deserialize for Origin",
            "tlog/checkpoint.rs FromStr for Origin",
            "tlog/key.rs Deserialize for name",
            "tlog/named.rs Deserialize for name",
            "tlog/named.rs FromStr for KeyName",
            "tlog/named.rs FromStr for VerifierKey",
            "tlog/named.rs NamedKey::parse",
            "witness/http.rs FromStr for WitnessUrl",
        ],
    ),
    (
        "configuration",
        &[
            "daemon/config.rs DaemonConfig::parse",
            "daemon/directory.rs Directory::parse",
            "daemon/directory/parse.rs Deserialize for Customers",
            "daemon/directory/parse.rs parse",
        ],
    ),
    ("client-certificate", &["daemon/peer.rs ClientCertificate::from_der"]),
    (
        "token",
        &[
            "daemon/oidc/keys.rs Keys::get",
            "daemon/oidc/keys.rs PublicKey::read",
            "daemon/oidc/token.rs decode",
            "daemon/oidc/token.rs parse",
        ],
    ),
    ("alarm", &["daemon/alarm/spool.rs Spool::one"]),
    (
        "daemon-answer",
        &[
            "client/ask.rs Client::json",
            "client/audit.rs Client::proof",
            "client/problem.rs told",
            "client/upload.rs Client::send_blob",
            "json.rs Deserialize for Plain",
            "json.rs read_order_state",
        ],
    ),
    ("restore-state", &["restore/place.rs read_lines"]),
    (
        "s3-answer",
        &[
            "doctor/bucket.rs denies_deletion",
            "store/s3/ask.rs read_lifecycle",
            "store/s3/ask.rs read_object_lock",
            "store/s3/ask.rs read_rule",
            "store/s3/ask.rs read_versioning",
            "store/s3/versions.rs decoded",
            "store/s3/versions.rs read_page",
        ],
    ),
    ("http", &["daemon/api.rs json", "daemon/api/blobs.rs decoded", "daemon/api/customers.rs read"]),
];

/// What is in no row, and why.
const EXCUSED: &[(&str, &[&str])] = &[
    (
        "Reads the whole of an object, a file or a stream, within a limit, and leaves what it says to a decoder.",
        &[
            "audit/log/pins.rs Inner::read_small",
            "audit/publish/tiles.rs read",
            "audit/verify/source.rs read",
            "cli/log_key.rs read",
            "cli/order.rs read",
            "cli/producer.rs Input::read",
            "client/tls.rs read",
            "daemon/tls.rs read",
            "daemon/tls.rs read_if",
            "durable.rs read",
            "kms/local/directory.rs read_up_to",
            "room/wraps.rs read_wrap",
            "store/trial.rs Trial::read",
            "witness/pull.rs Published::read",
            "witness/state/files.rs Files::read",
        ],
    ),
    (
        "Nothing but a call of one that is in a row, and what is compared with its result.",
        &[
            "audit/log/wal.rs Wal::decode",
            "config.rs parse",
            "kms/local/directory/grants.rs Directory::read_grant",
            "kms/local/directory/grants.rs read_name",
            "room.rs Strongroom::read_label",
            "store/page.rs read",
        ],
    ),
    (
        "Takes an array of the right length, and any will do.",
        &[
            "id.rs name::from_bytes",
            "merkle.rs Hash::from_bytes",
            "time.rs BootId::from_bytes",
            "tlog/key.rs PublicKey::from_bytes",
            "tlog/key.rs Signature::from_bytes",
        ],
    ),
    (
        "A word of the command line: whoever types it runs the program with their own rights.",
        &[
            "cli/args.rs FromStr for Pair",
            "cli/args.rs FromStr for Range",
            "cli/args/audit.rs FromStr for Moment",
            "cli/args/audit.rs FromStr for PublicKeyText",
            "cli/args/audit.rs FromStr for RecordRef",
            "cli/args/destruction.rs FromStr for Instant",
            "cli/args/destruction.rs FromStr for Validity",
            "cli/args/epoch.rs FromStr for Watch",
            "cli/args/session.rs FromStr for Term",
        ],
    ),
    ("Writes a policy.", &["doctor/policy/roles.rs reads"]),
];

#[test]
fn every_decoder_is_in_the_table() {
    let _alone = alone();
    let found = all_decoders();
    assert!(found.len() > 200, "the sources are read: {}", found.len());
    let listed: Vec<&str> =
        COVERED.iter().chain(EXCUSED).flat_map(|(_, decoders)| decoders.iter().copied()).collect();
    let known: BTreeSet<&str> = listed.iter().copied().collect();
    let missing: Vec<&String> = found.iter().filter(|decoder| !known.contains(decoder.as_str())).collect();
    assert!(missing.is_empty(), "give them a row in tests/fuzz/rows.rs, or a reason why not: {missing:#?}");
    let gone: Vec<&&str> = known.iter().filter(|decoder| !found.contains(**decoder)).collect();
    assert!(gone.is_empty(), "there are no such decoders any more: {gone:#?}");
    assert_eq!(known.len(), listed.len(), "one is listed twice");
    for (row, _) in COVERED {
        assert!(ROWS.iter().any(|one| one.name == *row), "there is no row `{row}`");
    }
}

#[test]
fn a_new_decoder_is_found() {
    let _alone = alone();
    let found = |text: &str| decoders("a.rs", text).into_iter().collect::<Vec<_>>();
    for (text, expected) in [
        (
            "impl<'a> Thing<'a> { pub fn parse(bytes: &'a [u8]) -> Option<Self> { None } }",
            vec!["a.rs Thing::parse"],
        ),
        (
            "impl Decode for Thing { fn decode(from: &mut Reader<'_>) -> Result<Self> { x } }",
            vec!["a.rs Decode for Thing"],
        ),
        (
            "impl std::str::FromStr for Word { fn from_str(t: &str) -> R { x } }",
            vec!["a.rs FromStr for Word"],
        ),
        ("fn load(x: Body) -> R { let y: T = serde_json::from_slice(&x)?; y }", vec!["a.rs load"]),
        ("async fn read_object(path: &Path) -> R { x }", vec!["a.rs read_object"]),
        ("fn write(bytes: &[u8]) {}\nfn read(&self) -> u8 { 1 }", vec![]),
        ("#[cfg(test)]\nmod tests { fn parse(b: &[u8]) {} }", vec![]),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
}

/// Or the mutations of them would try nothing but the first line of the decoder.
#[test]
fn what_it_begins_with_is_accepted() {
    let _alone = alone();
    for row in ROWS.iter().filter(|row| row.name != "http") {
        let seeds = (row.seeds)(corpus::world());
        let accepted = row.accepts(&seeds);
        // Among words, paths and answers, one is for one decoder.
        assert!(3 * accepted > seeds.len(), "{}: {accepted} of {} seeds", row.name, seeds.len());
    }
}

/// The same of requests.
#[test]
fn requests_get_behind_the_door() {
    let _alone = alone();
    let mut answered = BTreeSet::new();
    for seed in http::seeds(corpus::world()) {
        let (status, _) = http::ask(&seed).expect("it is a request");
        if status.is_success() {
            answered.insert(seed.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec));
        }
    }
    assert!(answered.len() > 60, "{} methods and paths of {} endpoints", answered.len(), TABLE.len());
}
