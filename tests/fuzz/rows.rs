//! The table of the fuzz tests: each decoder, what bounds it, and what it begins with.

use std::cell::Cell;
use std::fmt::{Debug, Display};
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use object_store::path::Path;
use peak_alloc::PeakAlloc;
use rcgen::{CertificateParams, SanType};
use sha2::{Digest, Sha256};
use strongroom::access::policy::{Role, RuleId};
use strongroom::access::{Factor, Principal, Purpose};
use strongroom::audit::RingRef;
use strongroom::audit::authority::KeyChange;
use strongroom::audit::base::Base;
use strongroom::audit::commit::{self, Commit, endorsement};
use strongroom::audit::head::SavedHead;
use strongroom::audit::layout::{
    Object, certificate_key_name, epoch_end_key_name, log_key_name, manifest_key_name, of_origin,
};
use strongroom::audit::query::Cursor;
use strongroom::audit::voucher::Versioned;
use strongroom::audit::{Record, papers, proof, segment, view};
use strongroom::certificate::{self, Bundle as CertificateBundle, Certificate};
use strongroom::codec::{Decode, Encode};
use strongroom::daemon::alarm::Alarm;
use strongroom::daemon::config::DaemonConfig;
use strongroom::daemon::directory::Directory;
use strongroom::daemon::peer::ClientCertificate;
use strongroom::doctor::policy::Account;
use strongroom::envelope::{BlobName, Dek, Header, Kek, KmsWrapped, MAX_HEADER_LEN, Metadata, Wrap};
use strongroom::fuzz;
use strongroom::id::{
    BlobId, CertificateId, CustomerId, CustomerRef, DataKeyId, EmergencyId, HoldId, KekId, KmsKeyId,
    KmsRequestId, Label, LocalKeyId, OrderId, RequestId, SessionId, StoreId, WriterId,
};
use strongroom::kms::GrantId;
use strongroom::merkle::{Frontier, Hash, TreeHead, leaf_hash, root, verify_consistency, verify_inclusion};
use strongroom::once::{self, OnceKey, SealedClaim};
use strongroom::order::{NewPerson, Order, People, Person, SignedOrder};
use strongroom::payload::{self, Layout};
use strongroom::register::sealed::SealedRegister;
use strongroom::register::{EpochState, Register};
use strongroom::retention::clock::AcceptedTime;
use strongroom::retention::{Period, Window};
use strongroom::ring::sealed::{EpochRecord, SealedRing};
use strongroom::ring::{Ring, Tenancy};
use strongroom::room::KeyChoice;
use strongroom::secret::Secret;
use strongroom::session::{Ended, Guest, Opened, Owner, PaperKind, Requested, SealedPaper, SessionLimits};
use strongroom::shred::offboard::manifest::{self, List, ListRef, Manifest};
use strongroom::store::layout as store;
use strongroom::store::limits;
use strongroom::store::marker::Marker;
use strongroom::store::{StorageUrl, StorageUrls};
use strongroom::suite::Suite;
use strongroom::time::{BootId, Day, Timestamp};
use strongroom::tlog::checkpoint::{Checkpoint, Origin, SignedCheckpoint};
use strongroom::tlog::note::{Note, NoteSignature};
use strongroom::tlog::proof::TlogProof;
use strongroom::tlog::tile::{Bundle, Tile, TilePath};
use strongroom::tlog::{KeyName, NamedKey, PublicKey, SecretKey, VerifierKey};
use strongroom::witness::AddCheckpoint;
use strongroom::witness::http::WitnessUrl;

use crate::corpus::{World, log_key, next_log_key, person, world};
use crate::http;

/// Counts what is allocated, in all threads.
#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What the allocator, the runtime and what a decoder always makes may take besides, in bytes.
const SLACK: usize = 64 * KIB;

/// How many bytes one byte of an input may become: a number in a list of JSON, two bytes with
/// its comma, is a value of 32 bytes in a list that has room for twice as many.
const GROWTH: usize = 64;

/// How much may be allocated, besides [`SLACK`], for an input.
#[derive(Clone, Copy)]
pub enum Limit {
    /// As large as the kind of object is at most that is under this part of a path, and no more than
    /// [`GROWTH`] makes of the input: a length in the input is not believed before the bytes are there.
    Object(&'static str),
    /// The same with a limit of its own, in bytes.
    Bytes(usize),
    /// So many bytes, whatever the input is.
    Always(usize),
}

/// One decoder, or several that the same bytes may be for.
pub struct Row {
    pub name: &'static str,
    pub limit: Limit,
    /// What it begins with.
    pub seeds: fn(&World) -> Vec<Vec<u8>>,
    pub run: fn(&[u8]),
    /// How often the short form runs it.
    #[allow(dead_code, reason = "the long form does not ask")]
    pub short: u32,
}

impl Row {
    /// The most that may be allocated for an input of so many bytes.
    pub fn allowance(&self, bytes: usize) -> usize {
        let grown = GROWTH * bytes;
        SLACK
            + match self.limit {
                Limit::Object(kind) => {
                    usize::try_from(limits::of(&Path::from(kind)).bytes).unwrap().min(grown)
                }
                Limit::Bytes(most) => most.min(grown),
                Limit::Always(most) => most,
            }
    }

    /// How many of its seeds a decoder accepts.
    #[allow(dead_code, reason = "the long form does not ask")]
    pub fn accepts(&self, seeds: &[Vec<u8>]) -> usize {
        let accepts = |seed: &&Vec<u8>| {
            ACCEPTED.set(0);
            (self.run)(seed);
            ACCEPTED.get() > 0
        };
        seeds.iter().filter(accepts).count()
    }

    /// Runs it, and compares what it allocates at most with what it may.
    ///
    /// # Panics
    /// If it does, if what was decoded encodes to something else, or if it allocates more.
    pub fn execute(&self, input: &[u8]) {
        // What is made once, and the store that a request meets, are not the input's.
        let _ = world();
        if self.name == "http" {
            http::prepare();
        }
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        (self.run)(input);
        let most = ALLOCATOR.peak_usage().saturating_sub(before);
        let allowed = self.allowance(input.len());
        assert!(most <= allowed, "{most} bytes were allocated for {} ({allowed} may be)", input.len());
    }
}

// --- helpers ----------------------------------------------------------------------------

thread_local! {
    static ACCEPTED: Cell<u32> = const { Cell::new(0) };
}

/// Something was decoded.
fn accepted() {
    ACCEPTED.set(ACCEPTED.get() + 1);
}

/// That, if it is so.
fn accepted_if(is_so: bool) {
    if is_so {
        accepted();
    }
}

/// What was decoded encodes to the same bytes.
#[track_caller]
pub fn same(bytes: &[u8], again: &[u8]) {
    accepted();
    assert!(bytes == again, "another encoding of what was read: {}", HEXLOWER.encode(again));
}

fn exact<T: Decode + Encode>(bytes: &[u8]) -> Option<T> {
    let value = T::from_bytes(bytes).ok()?;
    same(bytes, &value.to_bytes());
    Some(value)
}

/// What is printed is read back as the same.
fn word<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    accepted();
    let again: T = value.to_string().parse().unwrap_or_else(|_| panic!("{value} is not read back"));
    assert_eq!(value, again);
    Some(value)
}

/// The same where there is one spelling.
fn spelt<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Option<T> {
    let value = word::<T>(text)?;
    same(text.as_bytes(), value.to_string().as_bytes());
    Some(value)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Numbers in front of an input, and the rest of it.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_be_bytes(*number))
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks::<32>().0.iter().copied().map(Hash::from_bytes).collect()
}

// --- signed again: or nothing changed would get behind the signatures -------------------

/// Where the text of a member is, of the first one of this name.
fn member(line: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let mark = format!("\"{name}\":");
    let at = line.find(&mark)? + mark.len();
    let at = at + line[at..].bytes().take_while(|byte| *byte == b' ').count() + 1;
    let rest = line.get(at..)?;
    line[..at].ends_with('"').then_some(at..at + rest.find('"')?)
}

fn set(line: &mut String, name: &str, value: &str) {
    if let Some(range) = member(line, name) {
        line.replace_range(range, value);
    }
}

fn get<T: FromStr>(line: &str, name: &str) -> Option<T> {
    line[member(line, name)?].parse().ok()
}

fn writer_key() -> SecretKey {
    SecretKey::from_seed(&Secret::init(|seed| *seed = [29; 32]))
}

/// Two signed lines and what is behind them.
fn lines(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (first, _, rest) = (parts.next()?, parts.next()?, parts.next()?);
    Some((text(first)?.to_owned(), rest))
}

fn join(label: &str, line: &str, key: &SecretKey, rest: &[u8]) -> Vec<u8> {
    let signature = key.sign(format!("{label}{line}").as_bytes());
    [format!("{line}\n{{\"signature\":\"{signature}\"}}\n").as_bytes(), rest].concat()
}

/// By a writer that the log's key endorsed.
fn by_writer(label: &str, bytes: &[u8], body: bool) -> Option<Vec<u8>> {
    let (mut line, rest) = lines(bytes)?;
    let (store, writer) = (get::<StoreId>(&line, "store")?, get::<WriterId>(&line, "writer")?);
    let key = writer_key();
    set(&mut line, "key", &key.public().to_string());
    let endorsed = log_key().sign(&endorsement(store, writer, &key.public()));
    set(&mut line, "endorsement", &endorsed.to_string());
    if body {
        set(&mut line, "body", &Hash::of(rest).to_string());
    }
    Some(join(label, &line, &key, rest))
}

/// By the log's key.
fn by_log(label: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut line, rest) = lines(bytes)?;
    set(&mut line, "body", &Hash::of(rest).to_string());
    Some(join(label, &line, &log_key(), rest))
}

/// A base, with the root over its customers.
fn base_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut line, rest) = lines(bytes)?;
    let leaves: Vec<Hash> =
        rest.strip_suffix(b"\n").unwrap_or(rest).split(|byte| *byte == b'\n').map(leaf_hash).collect();
    let at = line.rfind("\"customers\":")?;
    let tree = TreeHead { size: leaves.len() as u64, root: root(&leaves) };
    line.replace_range(at.., &format!("\"customers\":{}}}", serde_json::to_string(&tree).unwrap()));
    Some(join("strongroom-base-v1 header\n", &line, &log_key(), rest))
}

/// A note, signed by `keys` alone.
fn note_again(bytes: &[u8], name: fn(StoreId) -> KeyName, keys: &[SecretKey]) -> Option<Vec<u8>> {
    let all = text(bytes)?;
    let text = all.rsplit_once("\n\n").map_or(all, |(text, _)| text);
    let text = format!("{}\n", text.strip_suffix('\n').unwrap_or(text));
    let name = name(get::<StoreId>(&text, "store")?);
    let sign =
        |key: &SecretKey| NoteSignature::ed25519(name.clone(), key.public(), &key.sign(text.as_bytes()));
    let note = Note::new(text.clone(), keys.iter().map(sign).collect()).ok()?;
    Some(note.to_string().into_bytes())
}

/// The file of an emergency, with the sums that it should have.
fn emergency_again(bytes: &[u8]) -> Vec<u8> {
    let (mut sum, mut again) = ([0; 32], Vec::new());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let entry = text(line).and_then(|line| {
            let entry = &line[line.find("\"entry\":")? + "\"entry\":".len()..];
            entry.strip_suffix("}\n")
        });
        let Some(entry) = entry else {
            again.extend_from_slice(line);
            continue;
        };
        let next = Sha256::new().chain_update(b"strongroom-emergency-v1 line\n").chain_update(sum);
        sum = next.chain_update(entry).finalize().into();
        again.extend_from_slice(
            format!("{{\"sum\":\"{}\",\"entry\":{entry}}}\n", HEXLOWER.encode(&sum)).as_bytes(),
        );
    }
    again
}

/// A file that ends with the digest of what is before.
fn digest_again(bytes: &[u8]) -> Option<Vec<u8>> {
    let content = &bytes[..bytes.len().checked_sub(32)?];
    Some([content, Sha256::digest(content).as_slice()].concat())
}

/// Runs it as it came, and again with what makes it believable.
fn both(bytes: &[u8], again: Option<Vec<u8>>, run: impl Fn(&[u8])) {
    run(bytes);
    if let Some(again) = again {
        run(&again);
    }
}

// --- the decoders -----------------------------------------------------------------------

fn blob_header(bytes: &[u8]) {
    let _ = Header::length(bytes);
    // The length is what a header is cut to before it is parsed.
    let mut cut = bytes.to_vec();
    if let Some(field) = cut.get_mut(10..14) {
        field.copy_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    }
    both(bytes, Some(cut), |bytes| {
        if let Ok(header) = Header::parse(bytes) {
            same(bytes, header.as_bytes());
            let kek = Kek::new(secret(5));
            let _ = (header.unwrap(&kek).is_ok(), header.context());
            let _ = header.metadata(&Dek::new(secret(6))).is_ok();
        }
    });
}

fn secret(byte: u8) -> Secret<32> {
    Secret::init(|to| to.fill(byte))
}

fn metadata(bytes: &[u8]) {
    if let Some(metadata) = exact::<Metadata>(bytes) {
        let _ = manifest::metadata_json(&metadata);
    }
    // A header that is not whole blocks is refused before.
    let mut block = bytes.to_vec();
    block.resize(bytes.len().next_multiple_of(64), 0);
    if let Some(again) = fuzz::metadata_block(&block) {
        same(&block, &again);
    }
}

fn wrap(bytes: &[u8]) {
    if let Some(wrap) = exact::<Wrap>(bytes) {
        let _ = wrap.open(&Kek::new(secret(5))).is_ok();
    }
}

fn kms_wrapped(bytes: &[u8]) {
    exact::<KmsWrapped>(bytes);
}

fn payload(bytes: &[u8]) {
    let mut rest = bytes;
    if let (Some(length), Some(begin), Some(end)) = (number(&mut rest), number(&mut rest), number(&mut rest))
    {
        let _ = Layout::of_plaintext(length);
        if let Ok(layout) = Layout::of_sealed(length) {
            assert_eq!(Layout::of_plaintext(layout.plaintext_len()), Some(layout));
            assert_eq!(layout.sealed_len(), length);
            let _ =
                (layout.sealed_chunk_len(begin), layout.sealed_range(begin..end), layout.span(begin..end));
        }
    }
    for suite in Suite::ALL {
        let dek = secret(1);
        if let Ok(plaintext) = payload::open(&dek, suite, b"context", bytes) {
            let salt = bytes.first_chunk().unwrap();
            same(bytes, &payload::seal(&dek, suite, salt, b"context", &plaintext).unwrap());
        }
    }
}

fn payload_seeds(_: &World) -> Vec<Vec<u8>> {
    let seal = |length: usize, suite| {
        let plaintext = crate::common::pattern(length);
        payload::seal(&secret(1), suite, &[3; 24], b"context", &plaintext).unwrap()
    };
    let lengths = [0, 1, 100, 16_384, 16_385];
    lengths.into_iter().flat_map(|length| Suite::ALL.map(|suite| seal(length, suite))).collect()
}

fn ring(bytes: &[u8]) {
    let Ok(sealed) = SealedRing::parse(bytes) else { return };
    accepted();
    let _ = sealed.open(&world().epoch_key);
    let _ = sealed.open_on(&world().epoch_key, world().ring());
}

fn ring_body(bytes: &[u8]) {
    let Some(mut ring) = exact::<Ring>(bytes) else { return };
    let of = world().ring();
    (ring.store, ring.customer) = (of.store, of.customer);
    (ring.version, ring.epoch) = (of.version + 1, of.epoch);
    // Behind the seal is the check of what is inside.
    let sealed = ring.seal(&world().epoch_key, [4; 24]);
    if let Ok(opened) = SealedRing::parse(&sealed).unwrap().open(&world().epoch_key) {
        assert_eq!(opened, ring);
        if let Some(changes) = fuzz::ring_changes_between(of, &opened) {
            assert!(fuzz::ring_changes(&changes, of).is_some());
        }
    }
}

fn ring_changes(bytes: &[u8]) {
    if let Some(again) = fuzz::ring_changes(bytes, world().ring()) {
        same(bytes, &again);
    }
}

/// From each ring to each other, as if they were versions of one.
fn ring_changes_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for ring in &world.rings {
        for base in &world.rings {
            let mut base = base.clone();
            (base.store, base.customer, base.epoch) = (ring.store, ring.customer, ring.epoch);
            base.version = ring.version.saturating_sub(1);
            found.extend(fuzz::ring_changes_between(&base, ring));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn epoch_record(bytes: &[u8]) {
    if let Some(record) = exact::<EpochRecord>(bytes) {
        let _ = record.open(&world().epoch_key).is_ok();
    }
}

fn register(bytes: &[u8]) {
    if let Ok(sealed) = SealedRegister::parse(bytes) {
        accepted();
        let _ = sealed.open(&world().epoch_key);
    }
}

fn register_body(bytes: &[u8]) {
    let Some(mut register) = exact::<Register>(bytes) else { return };
    let of = world().registers.last().unwrap();
    (register.store, register.version, register.epoch) = (of.store, of.version, of.epoch);
    let sealed = register.seal(&world().epoch_key, [4; 24]);
    if let Ok(opened) = SealedRegister::parse(&sealed).unwrap().open(&world().epoch_key) {
        assert_eq!(opened, register);
    }
}

/// What is inside of rings and registers, by itself.
fn pieces(bytes: &[u8]) {
    exact::<People>(bytes);
    exact::<Person>(bytes);
    exact::<EpochState>(bytes);
    exact::<AcceptedTime>(bytes);
    exact::<Window>(bytes);
    exact::<Timestamp>(bytes);
    exact::<Day>(bytes);
    exact::<Frontier>(bytes);
    exact::<StoreId>(bytes);
}

fn pieces_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = vec![Day::from_number(21_000).to_bytes(), Timestamp::MAX.to_bytes()];
    for register in world.registers.iter().rev().take(3) {
        found.extend([register.people.to_bytes(), register.clock.to_bytes()]);
        found.extend(register.people.iter().map(Encode::to_bytes));
        found.extend(register.epochs.iter().map(Encode::to_bytes));
    }
    let mut frontier = Frontier::new();
    for leaf in 0..7 {
        found.push(frontier.to_bytes());
        frontier.push(leaf_hash(&[leaf]));
    }
    found
}

const PLACE: once::Place = once::Place {
    store: StoreId::from_bytes([1; 16]),
    customer: CustomerId::from_bytes([2; 16]),
    tag: [3; 32],
    number: 4,
};

fn once_claim(bytes: &[u8]) {
    exact::<once::Claim>(bytes);
    if let Ok(sealed) = SealedClaim::parse(bytes) {
        accepted();
        let _ = sealed.open(PLACE, &world().epoch_key);
    }
}

fn once_seeds(world: &World) -> Vec<Vec<u8>> {
    let blob = BlobId::new(Day::from_number(21_000), [7; 13]).unwrap();
    let claim = once::Claim { blob, bytes: 5, content: [6; 32], at: Timestamp::MAX };
    let mut found = world.at(&["blobs/once/"]);
    found.extend([claim.to_bytes(), claim.seal(PLACE, (1, &world.epoch_key), [9; 24])]);
    found
}

fn session_paper(bytes: &[u8]) {
    exact_paper(bytes);
    let id = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied();
    if let (Some(store), Some(customer), Some(session)) = (id(10), id(26), id(42)) {
        let owner = Owner {
            store: StoreId::from_bytes(store),
            customer: CustomerId::from_bytes(customer),
            session: SessionId::from_bytes(session),
        };
        for kind in [PaperKind::Request, PaperKind::Open, PaperKind::End] {
            if let Ok(sealed) = SealedPaper::parse(bytes, owner, kind) {
                accepted();
                let _ = sealed.open(&world().epoch_key);
            }
        }
    }
}

fn exact_paper(bytes: &[u8]) {
    use strongroom::session::Paper;
    let papers = [
        Requested::from_bytes(bytes).map(Paper::Requested),
        Opened::from_bytes(bytes).map(Paper::Opened),
        Ended::from_bytes(bytes).map(Paper::Ended),
    ];
    for paper in papers.into_iter().flatten() {
        same(bytes, &paper.to_bytes());
    }
    exact::<Guest>(bytes);
    exact::<SessionLimits>(bytes);
}

fn session_seeds(world: &World) -> Vec<Vec<u8>> {
    use strongroom::session::{EndReason, Paper};
    let (at, limits) =
        (Timestamp::from_micros(1_795_314_373_000_000).unwrap(), SessionLimits::or_default(None, None));
    let guest = Guest { principal: Principal::person("a").unwrap(), purpose: Purpose::Treatment };
    let kms_key: KmsKeyId = "local:k".parse().unwrap();
    let mut found = world.at(&["keys/session/"]);
    found.extend([guest.to_bytes(), limits.to_bytes()]);
    let (only, log) = (Some(guest.clone()), Some(at));
    for paper in [
        Paper::Requested(Requested { guest, at, limits }),
        Paper::Opened(Opened { kms_key: kms_key.clone(), at, log, limits, only }),
        Paper::Opened(Opened { kms_key, at, log: None, limits, only: None }),
        Paper::Ended(Ended { at, why: EndReason::Idle }),
    ] {
        found.push(paper.to_bytes());
    }
    found
}

fn marker(bytes: &[u8]) {
    accepted_if(Marker::decode(bytes).is_ok());
}

fn kms_files(bytes: &[u8]) {
    both(bytes, digest_again(bytes), |bytes| {
        if let Some(again) = fuzz::kms_key_file(bytes) {
            same(bytes, &again);
        }
        accepted_if(fuzz::kms_grant(bytes));
        if let Some(again) = fuzz::kms_data_key(bytes) {
            same(bytes, &again);
        }
    });
}

fn commit(bytes: &[u8]) {
    let again = by_writer("strongroom-commit-v1 header\n", bytes, true);
    both(bytes, again, |bytes| {
        if let Ok(Some(header)) = commit::Header::decode(bytes) {
            let _ = header.endorser(&world().authority);
        }
        if let Ok(commit) = Commit::decode(bytes) {
            accepted();
            let body: Vec<u8> = commit
                .records()
                .iter()
                .flat_map(|record| [record.to_line(), b"\n".to_vec()].concat())
                .collect();
            assert!(bytes.ends_with(&body), "another encoding of the records");
            let _ = strongroom::audit::head::Head::after(&commit, &world().authority);
        }
        let _ = Commit::decode_first(bytes);
    });
}

fn record(bytes: &[u8]) {
    if let Some(record) = Record::from_line(bytes) {
        same(bytes, &record.to_line());
        let _ = serde_json::to_value(&record).unwrap();
    }
}

fn record_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for commit in world.at(&["audit/wal/"]) {
        found.extend(Commit::decode(&commit).unwrap().records().iter().map(Record::to_line));
    }
    // One of each kind of event and action.
    found.sort_by_key(|line| (kind_of(line), line.len()));
    found.dedup_by_key(|line| kind_of(line));
    found
}

fn kind_of(line: &[u8]) -> String {
    let line = String::from_utf8_lossy(line);
    let event = line.find("\"event\":").map_or("", |at| &line[at..]);
    let action = member(&line, "action").map_or("", |range| &line[range]);
    format!("{} {action}", event.chars().take(24).collect::<String>())
}

fn segment(bytes: &[u8]) {
    both(bytes, by_log("strongroom-segment-v1 header\n", bytes), |bytes| {
        let _ = segment::Header::decode(bytes, &world().authority);
        let bytes = Bytes::copy_from_slice(bytes);
        if let Ok(segment) = segment::Segment::decode(&bytes, &world().authority) {
            accepted();
            let body: Vec<u8> = segment.commits().iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
            assert!(bytes.ends_with(&body));
        }
    });
}

/// Small ones, made of the first commits of a golden store.
fn segment_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.at(&["audit/segment/"]);
    found.truncate(6);
    found
}

fn base(bytes: &[u8]) {
    both(bytes, base_again(bytes), |bytes| {
        if let Ok(base) = Base::decode(bytes, &world().authority) {
            accepted();
            let (line, _) = lines(bytes).unwrap();
            assert_eq!(serde_json::to_string(base.header()).unwrap(), line);
            let _ = base.head(&world().authority);
        }
    });
}

fn extract(bytes: &[u8]) {
    accepted_if(fuzz::extract_page(bytes));
    accepted_if(fuzz::extract_operations(bytes).is_some());
}

/// An extract is pieces one behind the other: as lines, and all of it.
fn extract_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for extract in world.at(&["audit/extract/"]).into_iter().take(4) {
        let mut records = Vec::new();
        for line in extract.split_inclusive(|byte| *byte == b'\n') {
            match line.first() {
                Some(b'[') => found.push(line.to_vec()),
                _ => records.extend_from_slice(line),
            }
        }
        found.push(records);
    }
    found
}

fn head(bytes: &[u8]) {
    let place = lines(bytes).and_then(|(line, _)| Some((get::<StoreId>(&line, "store")?, shard_of(&line)?)));
    let place = place.unwrap_or((world().store, 0));
    both(bytes, by_writer("strongroom-head-v1\n", bytes, false), |bytes| {
        accepted_if(SavedHead::decode(bytes, place, &world().authority).is_ok());
    });
}

fn shard_of(line: &str) -> Option<u16> {
    let at = line.find("\"shard\":")? + "\"shard\":".len();
    line[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// What a voucher says that it is for.
fn vouched(line: &str) -> Option<(StoreId, (Versioned, RingRef))> {
    let of = &line[member(line, "of")?];
    let of = match (of, of.split_once('-')) {
        ("register", _) => Versioned::Register,
        ("epoch", _) => Versioned::Epoch,
        (_, Some((customer, session))) => Versioned::Session(customer.parse().ok()?, session.parse().ok()?),
        (customer, None) => Versioned::Ring(customer.parse().ok()?),
    };
    let at = line.find("\"version\":")? + "\"version\":".len();
    let version = line[at..].split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let hash = HEXLOWER.decode(line[member(line, "hash")?].as_bytes()).ok()?.try_into().ok()?;
    Some((get(line, "store")?, (of, RingRef { version, hash })))
}

fn voucher(bytes: &[u8]) {
    let Some((line, _)) = lines(bytes) else { return };
    let Some((store, of)) = vouched(&line) else { return };
    both(bytes, by_writer("strongroom-voucher-v1\n", bytes, false), |bytes| {
        if let Some(again) = fuzz::voucher(bytes, store, of, &world().authority) {
            same(bytes, &again);
        }
    });
}

fn pin(bytes: &[u8]) {
    if let Some((version, rest)) = fuzz::pin(bytes) {
        same(bytes, &[serde_json::to_vec(&version).unwrap().as_slice(), b"\n", rest].concat());
        voucher(rest);
    }
}

fn key_change(bytes: &[u8]) {
    let keys = [log_key(), next_log_key()];
    both(bytes, note_again(bytes, log_key_name, &keys), |bytes| {
        if let Ok(change) = KeyChange::parse(bytes, None) {
            same(bytes, change.to_string().as_bytes());
            let _ = world().authority.extend(change);
        }
    });
}

fn watch(bytes: &[u8]) {
    accepted_if(fuzz::watch(bytes));
}

fn watch_seeds(_: &World) -> Vec<Vec<u8>> {
    let writer = WriterId::from_bytes([4; 16]);
    let one = format!("{{\"shard\":1,\"writer\":\"{writer}\",\"last\":7,\"since\":86400000}}");
    vec![
        format!("{{\"format\":\"strongroom-watch-v1\",\"boot\":\"{}\",\"writers\":[{one},{one}]}}", BOOT)
            .into(),
    ]
}

const BOOT: &str = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";

fn view(bytes: &[u8]) {
    let trust = view::Trust::new(&world().authority, Vec::new(), 0).unwrap();
    accepted_if(view::check(bytes, &trust).is_ok_and(|report| report.is_complete()));
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap();
    if let Ok(header) = view::Header::decode(first) {
        same(&[first, b"\n"].concat(), &header.to_line());
    }
    if let Some(proven) = view::ProvenRecord::decode(first) {
        same(&[first, b"\n"].concat(), &proven.to_line());
    }
}

fn view_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.at(&["made/view"]);
    let lines: Vec<Vec<u8>> = found[0].split(|byte| *byte == b'\n').take(8).map(<[u8]>::to_vec).collect();
    found.extend(lines.into_iter().filter(|line| !line.is_empty()));
    found
}

fn emergency(bytes: &[u8]) {
    both(bytes, Some(emergency_again(bytes)), |bytes| {
        if let Some(again) = fuzz::emergency_lines(bytes) {
            same(bytes, &again);
        }
    });
}

fn emergency_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut lines = Vec::new();
    for line in record_seeds(world) {
        let line = String::from_utf8(line).unwrap();
        let Some(event) = line.find("\"event\":").map(|at| &line[at + "\"event\":".len()..]) else {
            continue;
        };
        let mut depth = 0_i32;
        let end = event.find(|c: char| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let event = &event[..=end.unwrap()];
        if event.starts_with("{\"intent\"") && lines.is_empty() {
            let intent = &event["{\"intent\":".len()..event.len() - 1];
            let declared = format!("{{\"declared\":{{\"store\":\"{}\",\"intent\":{intent}}}}}", world.store);
            lines.push(format!("{{\"sum\":\"\",\"entry\":{declared}}}\n"));
        }
        if event.starts_with("{\"intent\"") || event.starts_with("{\"outcome\"") {
            lines.push(format!("{{\"sum\":\"\",\"entry\":{event}}}\n"));
        }
    }
    let file = |count: usize| emergency_again(lines[..count.min(lines.len())].concat().as_bytes());
    vec![file(1), file(2), file(6), file(30)]
}

fn certificate(bytes: &[u8]) {
    let witnesses: [VerifierKey; 0] = [];
    let again = note_again(bytes, certificate_key_name, &[log_key()]);
    both(bytes, again, |bytes| {
        if let Ok(certificate) = Certificate::parse(bytes, &world().authority) {
            same(bytes, certificate.to_note().as_bytes());
            let _ = certificate.to_page();
        }
        accepted_if(certificate::examine(bytes, &world().authority, &witnesses, 0).is_ok());
    });
    let _ = certificate::verify(bytes, &world().authority, &witnesses, 0);
    if let Ok(bundle) = CertificateBundle::parse(bytes) {
        same(bytes, bundle.to_text().as_bytes());
    }
}

fn certificate_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.at(&["audit/certificate/", "certificates/"]);
    let paper = String::from_utf8(world.at(&["audit/epoch/"]).remove(0)).unwrap();
    let note = String::from_utf8(found[0].clone()).unwrap();
    found.push(CertificateBundle::of(note, &[1], [(1, paper.as_bytes())]).unwrap().to_text().into_bytes());
    found
}

fn epoch_paper(bytes: &[u8]) {
    let _ = fuzz::epoch_end(bytes);
    let again = note_again(bytes, epoch_end_key_name, &[log_key()]);
    both(bytes, again, |bytes| {
        let store = text(bytes).and_then(|text| get(text, "store")).unwrap_or(world().store);
        accepted_if(certificate::verify_epoch(bytes, store, &world().authority, &[], 0).is_ok());
    });
}

fn order(bytes: &[u8]) {
    // Signed again by the two who signed, under their own names.
    let signed = text(bytes).map(|all| {
        let text =
            format!("{}\n", all.rsplit_once("\n\n").map_or(all, |(text, _)| text).trim_end_matches('\n'));
        let signatures = ["a", "b"].map(|name| person(name).sign(&text)).to_vec();
        Note::new(text, signatures).map(|note| note.to_string().into_bytes()).unwrap_or_default()
    });
    both(bytes, signed, |bytes| {
        if let Ok(order) = SignedOrder::parse(bytes) {
            same(bytes, order.note().to_string().as_bytes());
            let bounds =
                strongroom::retention::clock::Bounds { earliest: Timestamp::MAX, latest: Timestamp::MAX };
            let _ = order.signers(&world().registers.last().unwrap().people, &bounds);
            let _ = papers::check_order(bytes, order.order().store, order.order().id);
        }
        let _ = papers::check_order(bytes, world().store, OrderId::from_bytes([1; 16]));
    });
    if let Some(order) = text(bytes).and_then(|text| Order::parse(text).ok()) {
        same(bytes, order.text().as_bytes());
    }
}

fn order_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.at(&["audit/order/"]);
    let texts: Vec<Vec<u8>> =
        found.iter().map(|note| Note::parse(note).unwrap().text().as_bytes().to_vec()).collect();
    found.extend(texts);
    found
}

fn returned(bytes: &[u8]) {
    let reference = ListRef { bytes: bytes.len() as u64, sha256: manifest::Digest::of(bytes) };
    if let Ok(list) = List::parse(bytes, &reference) {
        accepted();
        assert_eq!(list.reference(), reference);
        let _ = list.counts();
    }
    both(bytes, note_again(bytes, manifest_key_name, &[log_key()]), |bytes| {
        if let Ok(manifest) = Manifest::verify(bytes, &world().authority) {
            same(bytes, manifest.to_note().as_bytes());
        }
    });
}

fn note(bytes: &[u8]) {
    if let Ok(note) = Note::parse(bytes) {
        same(bytes, note.to_string().as_bytes());
        let key = VerifierKey::ed25519("strongroom".parse().unwrap(), log_key().public());
        let _ = note.verified_by(&key);
    }
    if let Ok(signed) = SignedCheckpoint::parse(bytes) {
        same(bytes, signed.to_string().as_bytes());
        let _ = of_origin(signed.checkpoint().origin());
        let _ = signed.cosigned_by(&cosigner());
    }
    if let Some(checkpoint) = text(bytes).and_then(|text| Checkpoint::parse(text).ok()) {
        same(bytes, checkpoint.to_string().as_bytes());
    }
}

fn witness_key() -> NamedKey {
    NamedKey::new("witness.example".parse().unwrap(), writer_key())
}

fn cosigner() -> VerifierKey {
    witness_key().cosigner()
}

fn note_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.at(&["audit/checkpoint", "audit/order/", "audit/key/"]);
    let mut signed = checkpoint(world);
    found.push(signed.checkpoint().to_string().into_bytes());
    signed
        .add(
            witness_key().cosign(signed.checkpoint(), Timestamp::from_micros(1_795_314_373_000_000).unwrap()),
        )
        .unwrap();
    found.push(signed.to_string().into_bytes());
    found
}

fn checkpoint(world: &World) -> SignedCheckpoint {
    SignedCheckpoint::parse(&world.at(&["audit/checkpoint"])[0]).unwrap()
}

fn tlog_proof(bytes: &[u8]) {
    let Ok(parsed) = TlogProof::parse(bytes) else { return };
    same(bytes, parsed.to_string().as_bytes());
    let log = strongroom::audit::layout::verifier(world().store, 0, log_key().public());
    let _ = proof::check(&parsed, &log, &[cosigner()], 0);
}

fn proof_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for line in record_seeds(world).into_iter().take(6) {
        let path = vec![Hash::of(&line); 3];
        let proof = TlogProof::new(5, path, checkpoint(world)).unwrap();
        found.push(proof.to_string().into_bytes());
        found.push(proof.with_extra(line).unwrap().to_string().into_bytes());
    }
    // Those that are in certificates, which hold.
    for note in world.at(&["audit/certificate/", "audit/epoch/", "certificates/"]) {
        let all = String::from_utf8(note).unwrap();
        let body = Note::parse(all.as_bytes()).unwrap().text().to_owned();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        for evidence in body["evidence"].as_array().into_iter().flatten() {
            found.extend(evidence["intent"].as_str().map(|proof| proof.as_bytes().to_vec()));
        }
    }
    found
}

fn witness_request(bytes: &[u8]) {
    if let Ok(request) = AddCheckpoint::parse(bytes) {
        same(bytes, request.to_string().as_bytes());
    }
    if let Some(lines) = text(bytes) {
        let request = AddCheckpoint::new(0, Vec::new(), checkpoint(world())).unwrap();
        let _ = fuzz::witness_answer(&request, lines);
    }
}

fn witness_seeds(world: &World) -> Vec<Vec<u8>> {
    let signed = checkpoint(world);
    let at = Timestamp::from_micros(1_795_314_373_000_000).unwrap();
    let answer = format!("{}\n", witness_key().cosign(signed.checkpoint(), at));
    let request = |size, proof: &[Hash]| {
        AddCheckpoint::new(size, proof.to_vec(), signed.clone()).unwrap().to_string().into_bytes()
    };
    vec![answer.into_bytes(), request(0, &[]), request(7, &[Hash::ZERO, Hash::of(b"a")])]
}

fn tile(bytes: &[u8]) {
    for width in [u16::try_from(bytes.len() / 32).unwrap_or(1), 1, 3, 256] {
        if let Ok(tile) = Tile::new(0, 0, width)
            && let Ok(hashes) = tile.decode(bytes)
        {
            same(bytes, &Tile::encode(&hashes));
        }
        if let Ok(bundle) = Bundle::new(0, width)
            && let Ok(entries) = bundle.decode(bytes)
        {
            same(bytes, &Bundle::encode(entries).unwrap());
        }
    }
}

fn tile_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.at(&["audit/tile/"]);
    for count in [1, 3, 256] {
        found.push(Bundle::encode((0..count).map(|at: usize| vec![7; at % 40])).unwrap());
    }
    found
}

/// What is proven about trees: two sizes or an index, and hashes.
fn merkle(bytes: &[u8]) {
    let mut rest = bytes;
    let (Some(one), Some(other)) = (number(&mut rest), number(&mut rest)) else { return };
    let hashes = hashes(rest);
    let Some((first, path)) = hashes.split_first() else { return };
    let tree = |size| TreeHead { size, root: *first };
    // The root is that of the tree of thirteen leaves, which the seeds are of.
    let thirteen = TreeHead { size: other, root: root(&thirteen_leaves()) };
    accepted_if(verify_inclusion(*first, one, path, &thirteen).is_ok());
    accepted_if(verify_consistency(&tree(one), &thirteen, path).is_ok());
    let _ = verify_inclusion(*first, one, path, &tree(other));
    let _ = verify_consistency(&tree(one), &tree(other), path);
    if let Ok(frontier) = Frontier::from_parts(one, hashes.clone()) {
        assert_eq!((frontier.size(), frontier.edge()), (one, hashes.as_slice()));
        let _ = frontier.head();
        // That no log has more leaves is checked before one is added.
        if one < u64::MAX {
            let mut more = frontier;
            more.push(*first);
        }
    }
}

fn thirteen_leaves() -> Vec<Hash> {
    (0..13).map(|leaf| leaf_hash(&[leaf])).collect()
}

fn merkle_seeds(_: &World) -> Vec<Vec<u8>> {
    let leaves = thirteen_leaves();
    let mut found = Vec::new();
    let mut push = |one: u64, other: u64, first: Hash, path: Vec<Hash>| {
        let mut bytes = [one.to_be_bytes(), other.to_be_bytes()].concat();
        bytes.extend_from_slice(first.as_bytes());
        path.iter().for_each(|hash| bytes.extend_from_slice(hash.as_bytes()));
        found.push(bytes);
    };
    for at in [0_u8, 5, 12] {
        let path = strongroom::merkle::prove_inclusion(&leaves, at.into()).unwrap();
        push(at.into(), 13, leaves[usize::from(at)], path);
        let path = strongroom::merkle::prove_consistency(&leaves, usize::from(at) + 1).unwrap();
        push(u64::from(at) + 1, 13, root(&leaves[..=usize::from(at)]), path);
    }
    push(u64::MAX, u64::MAX, Hash::ZERO, vec![Hash::ZERO; 63]);
    found
}

fn paths(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(path) = Path::parse(text) else { return };
    let is = |again: Path| {
        accepted();
        assert_eq!(again, path, "another path of what was read");
    };
    if let Some(object) = Object::at(&path) {
        is(object.path());
    }
    if let Some((customer, blob)) = store::read_blob(&path) {
        is(store::blob(customer, blob));
    }
    if let Some((customer, day)) = store::read_day(&path) {
        is(store::blobs_of_day(customer, day));
    }
    if let Some((customer, blob, kek)) = store::read_wrap(&path) {
        is(store::wrap(customer, blob, kek));
    }
    if let Some((customer, at, blob)) = store::read_name(&path, &[7; 32]) {
        is(store::name(customer, &[7; 32], at, blob));
    }
    let _ = (
        store::named_blob(&path),
        store::read_once(&path),
        store::read_label(&path).map(|tag| is(store::label(&tag))),
    );
    if let Some((customer, version)) = store::read_ring(&path) {
        is(store::ring(customer, version));
    }
    if let Some(version) = store::read_register(&path) {
        is(store::register(version));
    }
    if let Some(number) = store::read_epoch(&path) {
        is(store::epoch(number));
    }
    match store::read_session(&path) {
        Some((customer, session, store::OfSession::Paper(kind))) => {
            is(store::session_paper(customer, session, kind));
        }
        Some((customer, session, store::OfSession::Use(at))) => is(store::session_use(customer, session, at)),
        None => {}
    }
    let _ = (store::read_probe(&path), limits::of(&path));
    spelt::<TilePath>(text);
    spelt::<Tile>(text);
    spelt::<Bundle>(text);
}

fn path_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = world.paths();
    found.retain(|path| path.len() < 300);
    found.push(
        store::name(world.customer, &[7; 32], Timestamp::MAX, BlobId::from_bytes([1; 16])).to_string().into(),
    );
    let tiles = ["tile/0/x001/x234/067", "tile/1/000.p/7", "tile/entries/x001/000.p/255", "tile/3/999"];
    found.extend(tiles.map(|path| path.as_bytes().to_vec()));
    // One of each folder is enough.
    found.sort_by_key(|path| (folder(path), path.len()));
    let mut same = 0;
    let mut last = String::new();
    found.retain(|path| {
        let of = folder(path);
        same = if of == last { same + 1 } else { 0 };
        last = of;
        same < 4
    });
    found
}

fn folder(path: &[u8]) -> String {
    String::from_utf8_lossy(path).split('/').next().unwrap().to_owned()
}

fn words(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    spelt::<StoreId>(text);
    spelt::<CustomerId>(text);
    spelt::<BlobId>(text);
    spelt::<KekId>(text);
    spelt::<DataKeyId>(text);
    spelt::<HoldId>(text);
    spelt::<OrderId>(text);
    spelt::<RequestId>(text);
    spelt::<SessionId>(text);
    spelt::<CertificateId>(text);
    spelt::<EmergencyId>(text);
    spelt::<WriterId>(text);
    spelt::<LocalKeyId>(text);
    spelt::<Label>(text);
    word::<CustomerRef>(text);
    spelt::<KmsKeyId>(text);
    spelt::<KmsRequestId>(text);
    word::<Timestamp>(text);
    spelt::<Day>(text);
    spelt::<BootId>(text);
    word::<Period>(text);
    word::<Window>(text);
    spelt::<Suite>(text);
    spelt::<Tenancy>(text);
    spelt::<KeyName>(text);
    spelt::<VerifierKey>(text);
    spelt::<Origin>(text);
    spelt::<Cursor>(text);
    spelt::<Principal>(text);
    spelt::<RuleId>(text);
    let _ =
        (text.parse::<Factor>(), text.parse::<Purpose>(), text.parse::<Role>(), text.parse::<KeyChoice>());
    let _ = (text.parse::<PaperKind>(), text.parse::<Account>(), GrantId::new(text));
    if let Ok(name) = text.parse::<BlobName>() {
        same(bytes, name.as_str().as_bytes());
    }
    if let Ok(key) = text.parse::<OnceKey>() {
        same(bytes, key.as_str().as_bytes());
    }
    if let Ok(person) = text.parse::<NewPerson>() {
        let _ = VerifierKey::from(person);
    }
    if let Ok(key) = NamedKey::parse(text) {
        same(bytes, key.to_text().as_bytes());
    }
    let _ = (text.parse::<StorageUrl>(), word::<WitnessUrl>(text), fuzz::daemon_url(text));
    let quoted = serde_json::Value::from(text);
    let _ = serde_json::from_value::<PublicKey>(quoted.clone());
    let _ = serde_json::from_value::<Period>(quoted);
    let _ = serde_json::from_str::<StorageUrls>(text);
}

fn word_seeds(world: &World) -> Vec<Vec<u8>> {
    let key = log_key().public();
    let named = NamedKey::new("strongroom-log".parse().unwrap(), log_key());
    let words = [
        world.customer.to_string(),
        "acme".to_owned(),
        "local:e5s76x3nesvqgybtfdy7tzkzg0".to_owned(),
        "aws-kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
        "2026-11-22T02:26:13.000001Z".to_owned(),
        "2028-05-22".to_owned(),
        BOOT.to_owned(),
        "P18M".to_owned(),
        "P2Y6M7D".to_owned(),
        "P7D".to_owned(),
        "AEAD_AES_256_GCM".to_owned(),
        "aes-256-gcm".to_owned(),
        "customer".to_owned(),
        named.verifier().to_string(),
        witness_key().cosigner().to_string(),
        named.to_text().to_string(),
        person("a").verifier().to_string(),
        key.to_string(),
        "person:a".to_owned(),
        "service:portal".to_owned(),
        "role.reader".to_owned(),
        "TREAT".to_owned(),
        "reader".to_owned(),
        "hwk".to_owned(),
        "request".to_owned(),
        "111122223333".to_owned(),
        "Befunde/Österreicher 1957.png".to_owned(),
        "nightly-2026-11-23".to_owned(),
        "s3://bucket/prefix".to_owned(),
        "file:///srv/store".to_owned(),
        "https://daemon.example:8443".to_owned(),
        "unix:/run/strongroom.sock".to_owned(),
        "https://witness.example/w".to_owned(),
        r#"{"root":"s3://my-bucket/a","audit":"/var/log"}"#.to_owned(),
        strongroom::audit::layout::origin(world.store, 1).to_string(),
    ];
    words.into_iter().map(String::into_bytes).collect()
}

fn configuration(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(config) = DaemonConfig::parse(text, std::path::Path::new("/etc/strongroom/daemon.toml")) {
        accepted();
        let _ = (config.tasks.sweep(), config.tasks.verify());
    }
    accepted_if(Directory::parse(text).is_ok());
}

fn configuration_seeds(_: &World) -> Vec<Vec<u8>> {
    let examples = [
        include_str!("../../examples/strongroom.toml"),
        include_str!("../../examples/principals.toml"),
        "principals = \"principals.toml\"\n[listen]\ntls = \"127.0.0.1:0\"\ncertificate = \"server.pem\"\n\
         key = \"server.key\"\nclient_ca = \"ca.pem\"\nunix = \"socket\"\n[limits]\ndrain_seconds = 20\n\
         [tasks]\nsweep_seconds = 0\npublish_seconds = 0\nmaintain_seconds = 0\n",
        "[[principal]]\nid = \"service:portal\"\nroles = [\"writer\", \"reader\"]\ncustomers = \"all\"\nphi = true\n\
         trained_until = \"9999-12-31\"\ncertificate = [\"spiffe://clinic/portal\"]\n",
    ];
    examples.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn client_certificate(bytes: &[u8]) {
    if let Ok(certificate) = ClientCertificate::from_der(bytes) {
        accepted();
        let _ = (certificate.uris().len(), certificate.dns_names().len(), certificate.not_after());
    }
}

fn client_certificate_seeds(_: &World) -> Vec<Vec<u8>> {
    let name = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let uri = SanType::URI("spiffe://clinic/portal".try_into().unwrap());
    let names = [vec![], vec![uri.clone()], vec![name("a.example"), uri, name("B.example")]];
    let make = |names| {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    };
    names.map(make).to_vec()
}

fn token(bytes: &[u8]) {
    let now = Timestamp::from_micros(1_795_314_373_000_000).unwrap();
    accepted_if(fuzz::issuer_keys(bytes) > 0);
    if let Some(text) = text(bytes) {
        accepted_if(fuzz::token(text, now));
        // Of two objects of JSON, the token that they make.
        if let Some((header, claims)) = text.split_once('\n') {
            let encode = |part: &str| data_encoding::BASE64URL_NOPAD.encode(part.as_bytes());
            accepted_if(fuzz::token(&format!("{}.{}.c2ln", encode(header), encode(claims)), now));
        }
    }
}

fn token_seeds(_: &World) -> Vec<Vec<u8>> {
    let number = "A".repeat(342);
    let coordinate = "A".repeat(43);
    vec![
        br#"{"alg":"ES256","kid":"1","typ":"at+jwt"}
{"iss":"https://issuer.example","sub":"a","aud":["https://strongroom.example"],"exp":1795314400,"nbf":1,"iat":1.5,"jti":"x","amr":["hwk","mfa"],"acr":"2"}"#
            .to_vec(),
        b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJpIiwic3ViIjoiYSIsImF1ZCI6ImIiLCJleHAiOjF9.c2ln".to_vec(),
        format!(r#"{{"keys":[{{"kty":"RSA","kid":"1","use":"sig","alg":"RS256","n":"{number}","e":"AQAB"}},{{"kty":"EC","crv":"P-256","x":"{coordinate}","y":"{coordinate}"}},{{"kty":"OKP","crv":"Ed25519","x":"{coordinate}","key_ops":["verify"]}}]}}"#)
            .into_bytes(),
        br#"{"issuer":"https://issuer.example","jwks_uri":"https://issuer.example/keys"}"#.to_vec(),
    ]
}

fn alarm(bytes: &[u8]) {
    if let Ok(alarm) = serde_json::from_slice::<Alarm>(bytes) {
        accepted();
        let again: Alarm = serde_json::from_slice(&serde_json::to_vec(&alarm).unwrap()).unwrap();
        assert_eq!(alarm, again);
    }
}

fn alarm_seeds(world: &World) -> Vec<Vec<u8>> {
    let id = RequestId::from_bytes([1; 16]);
    let customer = world.customer;
    let (store, at) = (world.store, "2026-11-22T02:26:13.000001Z");
    vec![
        format!(r#"{{"alarm":"{id}","kind":"log-unpublished","store":"{store}","at":"{at}","customer":"{customer}","request":"{id}"}}"#)
            .into_bytes(),
    ]
}

fn daemon_answer(bytes: &[u8]) {
    // Any JSON is one of the types.
    accepted_if(fuzz::daemon_answer(403, bytes) > 1);
}

fn answer_seeds(world: &World) -> Vec<Vec<u8>> {
    let mut found = vec![
        br#"{"type":"x","status":503,"code":"audit-unavailable","detail":"no log","rule":"role.none"}"#.to_vec(),
        format!(r#"{{"customer":"{}","label":"acme","kms_key":"local:k","period":"P18M","suite":"AEAD_AES_256_GCM","phi":true,"tenancy":"held"}}"#, world.customer)
            .into_bytes(),
        br#"{"blob":"019mx041ga1r91c6gy48k2mbhg","bytes":5,"retain_until":"2028-05-22","suite":"AEAD_AES_256_GCM","sealed_at":"2026-11-22T02:26:13.000001Z","name":"a","content_type":"text/plain","meta":{"k":"v"},"holds":[]}"#
            .to_vec(),
    ];
    // What the daemon says itself, where nothing is wrong.
    found.extend(http::answers());
    found.extend(record_seeds(world).into_iter().take(8));
    found
}

fn restore_state(bytes: &[u8]) {
    let (store, customer) = match text(bytes) {
        Some(text) => (get(text, "store"), get(text, "customer")),
        None => (None, None),
    };
    let store = store.unwrap_or(world().store);
    let length = fuzz::restore_state(bytes, store, customer.unwrap_or(world().customer));
    accepted_if(length.is_some());
    assert!(length.is_none_or(|length| length <= bytes.len() as u64));
}

fn restore_seeds(world: &World) -> Vec<Vec<u8>> {
    let digest = "ab".repeat(32);
    let line = |path: &str| {
        format!(
            "{{\"blob\":\"019mx041ga1r91c6gy48k2mbhg\",\"path\":\"{path}\",\"bytes\":5,\"sha256\":\"{digest}\"}}\n"
        )
    };
    let whose = format!(
        "{{\"format\":\"strongroom/restore-state/v1\",\"store\":\"{}\",\"customer\":\"{}\"}}\n",
        world.store, world.customer
    );
    let mut found = world.at(&["back/returned/"]);
    found
        .push(format!("{whose}{}{}", line("a/b.txt"), line("by-id/019mx041ga1r91c6gy48k2mbhg")).into_bytes());
    found
}

fn s3_answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    accepted_if(fuzz::s3_answer(&text));
    accepted_if(fuzz::bucket_policy(&text));
}

fn s3_seeds(_: &World) -> Vec<Vec<u8>> {
    let namespace = r#"xmlns="http://s3.amazonaws.com/doc/2006-03-01/""#;
    [
        format!("<VersioningConfiguration {namespace}><Status>Enabled</Status></VersioningConfiguration>"),
        format!(
            "<ObjectLockConfiguration {namespace}><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
             <Mode>COMPLIANCE</Mode><Years>6</Years></DefaultRetention></Rule></ObjectLockConfiguration>"
        ),
        format!(
            "<LifecycleConfiguration {namespace}><Rule><ID>a</ID><Status>Enabled</Status><Filter><Prefix>audit/wal/\
             </Prefix></Filter><Expiration><Days>35</Days></Expiration><NoncurrentVersionExpiration><NoncurrentDays>1\
             </NoncurrentDays></NoncurrentVersionExpiration></Rule></LifecycleConfiguration>"
        ),
        format!(
            "<ListVersionsResult {namespace}><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
             <NextKeyMarker>a%2Fb</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker><Version><Key>blob%2Fx+y\
             </Key><VersionId>1</VersionId><Size>10</Size></Version><DeleteMarker><Key>a</Key><VersionId>2</VersionId>\
             </DeleteMarker></ListVersionsResult>"
        ),
        "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        r#"{"Statement":[{"Effect":"Deny","Principal":"*","Action":["s3:DeleteObject*"],"Resource":"arn:aws:s3:::bucket/*"}]}"#.to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

// --- the table --------------------------------------------------------------------------

macro_rules! rows {
    ($($name:literal, $limit:expr, $short:literal, $seeds:expr, $run:expr;)*) => {
        &[$(Row { name: $name, limit: $limit, seeds: $seeds, run: $run, short: $short },)*]
    };
}

/// Name, limit, runs in the short form, what it begins with, and the decoder.
pub const ROWS: &[Row] = rows! {
    "blob-header", Limit::Bytes(MAX_HEADER_LEN), 9000, |world| world.at(&["blobs/blob/"]).into_iter().map(cut_header).collect(), blob_header;
    "metadata", Limit::Bytes(MAX_HEADER_LEN), 9000, |world| world.at(&["made/metadata/"]), metadata;
    "wrap", Limit::Object("wrap"), 9000, |world| world.at(&["blobs/wrap/"]), wrap;
    "kms-wrapped", Limit::Object("wrap"), 9000, |world| world.at(&["made/kms-wrapped/"]), kms_wrapped;
    "payload", Limit::Bytes(2 * MIB), 3000, payload_seeds, payload;
    "ring", Limit::Object("ring"), 6000, |world| world.at(&["keys/ring/"]), ring;
    "ring-body", Limit::Object("ring"), 4500, |world| world.at(&["made/ring-body/"]), ring_body;
    "ring-changes", Limit::Object("ring"), 4500, ring_changes_seeds, ring_changes;
    "epoch-record", Limit::Object("epoch"), 9000, |world| world.at(&["keys/epoch/"]), epoch_record;
    "register", Limit::Object("register"), 9000, |world| world.at(&["keys/register/"]), register;
    "register-body", Limit::Object("register"), 6000, |world| world.at(&["made/register-body/"]), register_body;
    "pieces", Limit::Object("register"), 9000, pieces_seeds, pieces;
    "once-claim", Limit::Object("once"), 9000, once_seeds, once_claim;
    "session-paper", Limit::Object("session"), 9000, session_seeds, session_paper;
    "marker", Limit::Object("store"), 9000, |world| world.at(&["audit/store", "blobs/store", "keys/store"]), marker;
    "kms-files", Limit::Bytes(64 * KIB), 9000, |world| world.at(&["kms/", "made/data-key/"]), kms_files;
    "commit", Limit::Object("wal"), 1800, |world| world.at(&["audit/wal/"]), commit;
    "record", Limit::Bytes(64 * KIB), 6000, record_seeds, record;
    "segment", Limit::Object("segment"), 450, segment_seeds, segment;
    "base", Limit::Object("base"), 1800, |world| world.at(&["audit/base/"]), base;
    "extract", Limit::Object("extract"), 1800, extract_seeds, extract;
    "head", Limit::Object("head"), 1800, |world| world.at(&["audit/head/"]), head;
    "voucher", Limit::Object("voucher"), 3000, |world| world.at(&["audit/voucher/"]), voucher;
    "pin", Limit::Object("pin"), 3000, |world| world.at(&["audit/pin/"]), pin;
    "key-change", Limit::Object("key"), 1800, |world| world.at(&["audit/key/"]), key_change;
    "watch", Limit::Object("watch"), 9000, watch_seeds, watch;
    "view", Limit::Bytes(64 * KIB), 900, view_seeds, view;
    "emergency", Limit::Bytes(64 * KIB), 1500, emergency_seeds, emergency;
    "certificate", Limit::Object("certificate"), 450, certificate_seeds, certificate;
    "epoch-paper", Limit::Object("epoch"), 900, |world| world.at(&["audit/epoch/"]), epoch_paper;
    "order", Limit::Object("order"), 1500, order_seeds, order;
    "returned", Limit::Object("manifest"), 4500, |world| world.at(&["back/list", "back/manifest", "back/returned"]), returned;
    "note", Limit::Object("checkpoint"), 4500, note_seeds, note;
    "tlog-proof", Limit::Object("checkpoint"), 4500, proof_seeds, tlog_proof;
    "witness-request", Limit::Bytes(64 * KIB), 4500, witness_seeds, witness_request;
    "tile", Limit::Object("tile"), 6000, tile_seeds, tile;
    "merkle", Limit::Bytes(64 * KIB), 9000, merkle_seeds, merkle;
    "paths", Limit::Bytes(4 * KIB), 6000, path_seeds, paths;
    "words", Limit::Bytes(4 * KIB), 4500, word_seeds, words;
    "configuration", Limit::Bytes(MIB), 2400, configuration_seeds, configuration;
    "client-certificate", Limit::Bytes(64 * KIB), 9000, client_certificate_seeds, client_certificate;
    "token", Limit::Bytes(512 * KIB), 6000, token_seeds, token;
    "alarm", Limit::Bytes(4 * KIB), 9000, alarm_seeds, alarm;
    "daemon-answer", Limit::Bytes(MIB), 2400, answer_seeds, daemon_answer;
    "restore-state", Limit::Bytes(64 * KIB), 9000, restore_seeds, restore_state;
    "s3-answer", Limit::Bytes(MIB), 6000, s3_seeds, s3_answer;
    "http", Limit::Always(http::LIMIT), 1200, http::seeds, http::run;
};

/// A blob's header, without its payload.
fn cut_header(blob: Vec<u8>) -> Vec<u8> {
    let length = Header::length(&blob).unwrap();
    blob[..length].to_vec()
}
