//! A log with three shards, and an attacker who may change anything in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::access::{Access, Principal, Purpose};
use crate::audit::authority::tests::change;
use crate::audit::base::extract::{self, Contents, Earlier, Piece};
use crate::audit::base::{Base, Draft};
use crate::audit::commit::tests::{authority, key, of_later};
use crate::audit::commit::{Line, Writer, endorsement};
use crate::audit::head::{Head, SavedHead};
use crate::audit::log::LogReader;
use crate::audit::proof;
use crate::audit::publish::Publisher;
use crate::audit::segment::Header;
use crate::audit::signer::LocalSigner;
use crate::audit::view::{self, Trust};
use crate::audit::voucher::{Versioned, Vouched};
use crate::audit::{
    Action, Event, Fence, Intent, KeyChanged, KeyRef, Outcome, OutcomeResult, Record, RingRef, ShardHead,
    View, ViewShard,
};
use crate::certificate::{self, Evidence, What};
use crate::id::{CertificateId, CustomerId, OrderId, RequestId, WriterId};
use crate::merkle::{Hash, prove_inclusion};
use crate::tlog::checkpoint::Checkpoint;
use crate::tlog::note::Note;
use crate::tlog::proof::TlogProof;
use crate::tlog::tile::{Bundle, Tile, TilePath};
use crate::tlog::{NamedKey, TileBuilder};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The epochs that ended.
const EPOCHS: [u32; 2] = [1, 2];

/// Everything on a storage.
type Objects = BTreeMap<Path, Bytes>;

/// The first day of the log.
fn start() -> Timestamp {
    "2026-01-05T08:00:00.000000Z".parse().unwrap()
}

fn days(count: u32) -> Timestamp {
    start().saturating_add(DAY * count)
}

fn customer(number: u8) -> CustomerId {
    CustomerId::from_bytes([number; 16])
}

fn request(number: u32) -> RequestId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    RequestId::from_bytes(bytes)
}

fn intent(number: u32, customer: Option<CustomerId>) -> Event {
    let access = Access::new(Principal::service("test").unwrap(), Purpose::Operations);
    Event::Intent(Intent { customer, ..Intent::new(request(number), &access, Action::Seal) })
}

fn outcome(number: u32, customer: Option<CustomerId>, result: OutcomeResult) -> Event {
    let (bytes, key, kms_request) = (None, None, None);
    Event::Outcome(Outcome { request: request(number), customer, result, bytes, key, kms_request })
}

fn witness() -> NamedKey {
    NamedKey::new("witness.example/w".parse().unwrap(), key(8))
}

/// One shard as its writers know it.
struct Shard {
    head: Head,
    commits: Vec<(Commit, Bytes)>,
}

/// A log in the making.
struct World {
    store: StoreId,
    shards: BTreeMap<u16, Shard>,
    objects: Objects,
    nonces: u32,
    requests: u32,
    settled: u64,
    /// Which key of the log is in force, and those there are.
    key: u8,
    authority: Authority,
    /// Whether writers are of a later version, whose lines have members that this one does not
    /// know.
    later: bool,
}

impl World {
    fn empty(store: u8) -> Self {
        // Nobody's id as a customer.
        let store = StoreId::from_bytes([0x50 + store; 16]);
        let mut world = Self {
            store,
            shards: BTreeMap::new(),
            objects: Objects::new(),
            nonces: 0,
            requests: 0,
            settled: 0,
            key: 9,
            authority: authority().into(),
            later: false,
        };
        let marker = format!(
            "{{\"format\":\"strongroom-store-v1\",\"store\":\"{store}\",\"log_key\":\"{}\"}}\n",
            authority()
        );
        world.objects.insert(Object::Marker.path(), marker.into());
        world
    }

    fn writer(&self, number: u8) -> Writer {
        let id = WriterId::from_bytes([number; 16]);
        let endorsed = key(self.key).sign(&endorsement(self.store, id, &key(number).public()));
        Writer::new(id, key(number), endorsed)
    }

    fn head(&mut self, shard: u16) -> &mut Shard {
        let begin = Head::empty(self.store, shard, &self.authority);
        self.shards.entry(shard).or_insert_with(|| Shard { head: begin, commits: Vec::new() })
    }

    fn commit(&mut self, shard: u16, number: u8, at: Timestamp, events: Vec<Event>) {
        let writer = self.writer(number);
        let (store, later) = (self.store, self.later);
        let lines: Vec<Line> = events
            .into_iter()
            .map(|event| {
                self.nonces += 1;
                let mut nonce = *store.as_bytes();
                nonce[..4].copy_from_slice(&self.nonces.to_be_bytes());
                let nonce = RequestId::from_bytes(nonce);
                let record =
                    Record { nonce, time: at, writer: writer.id(), event, chain: None, stored: None };
                let line = Line::new(&record);
                if later { line.of_later() } else { line }
            })
            .collect();
        let settled = self.settled;
        let place = self.head(shard);
        let seq = place.head.next();
        let (mut bytes, mut after) = place.head.extend(&writer, at, lines.iter(), settled);
        if later {
            bytes = of_later(&key(number), &bytes);
            after = place.head.verify(&Commit::decode(&bytes).unwrap()).unwrap();
        }
        place.head = after;
        place.commits.push((Commit::decode(&bytes).unwrap(), bytes.clone()));
        self.objects.insert(Object::Commit { shard, seq }.path(), bytes);
    }

    /// So many operations that end well, in one commit, of several customers.
    fn work(&mut self, shard: u16, at: Timestamp, count: u32) {
        let numbers = self.requests..self.requests + count;
        self.requests = numbers.end;
        let events = numbers.flat_map(|number| {
            let whose = (number % 4 > 0).then(|| customer(u8::try_from(number % 4).unwrap()));
            [intent(number, whose), outcome(number, whose, OutcomeResult::Ok)]
        });
        self.commit(shard, 2, at, events.collect());
    }

    /// The log's key is replaced, in every shard.
    fn change_key(&mut self, at: Timestamp, next: u8) {
        let (newest, _) = self.authority.newest();
        let change = change(self.store, newest + 1, [self.key, next], at);
        let (number, digest) = (newest + 1, change.digest());
        self.objects.insert(Object::KeyChange { number }.path(), change.to_string().into());
        self.authority.extend(change).unwrap();
        self.key = next;
        for shard in self.shards.keys().copied().collect::<Vec<_>>() {
            self.commit(shard, 4, at, vec![Event::Key(KeyChanged { number, digest })]);
        }
    }

    /// A ring version that is written and pinned.
    fn ring(&mut self, at: Timestamp, whose: CustomerId, version: u64) -> RingRef {
        let number = self.requests;
        self.requests += 1;
        let ring = RingRef { version, hash: [self.store.as_bytes()[0] ^ u8::try_from(version).unwrap(); 32] };
        let Event::Intent(begun) = intent(number, Some(whose)) else { unreachable!("it is an intent") };
        let begun = Event::Intent(Intent { action: Action::RingWrite, ring: Some(ring), ..begun });
        self.commit(0, 2, at, vec![begun]);
        let (of, key) = (Versioned::Ring(whose), self.authority.newest().0);
        let vouched = Vouched::sign(self.store, (of, ring), request(number), (key, &self.writer(2)));
        let lines = Bytes::copy_from_slice(vouched.lines());
        self.objects.insert(Object::Voucher { of, version, hash: ring.hash, key }.path(), lines.clone());
        let body = serde_json::to_string(&ring).unwrap() + "\n";
        let body = [body.as_bytes(), &lines].concat();
        self.objects.insert(Object::Pin { customer: whose, version }.path(), body.into());
        self.commit(0, 2, at, vec![outcome(number, Some(whose), OutcomeResult::Ok)]);
        ring
    }

    fn open_shard(&mut self, at: Timestamp, shard: u16) {
        let tree = self.head(shard).head.tree();
        self.commit(0, 2, at, vec![Event::Shard(ShardHead { shard, tree })]);
    }

    fn view(&mut self, whose: CustomerId) -> View {
        let shards = self.shards.iter().map(|(shard, place)| {
            let end = place.head.chains().unwrap().end(whose);
            ViewShard {
                shard: *shard,
                tree: place.head.tree(),
                records: end.map_or(0, |end| end.records),
                last: end.map_or(Hash::ZERO, |end| end.last),
            }
        });
        View { customer: whose, shards: shards.collect() }
    }

    /// Tiles, a checkpoint and segments of all but the last day.
    fn publish(&mut self, shard: u16) {
        let mut made = Objects::new();
        let place = &self.shards[&shard];
        let leaves: Vec<_> = place.commits.iter().flat_map(|(commit, _)| commit.leaves()).copied().collect();
        let mut builder = TileBuilder::new();
        let mut put = |tile: Tile, hashes: &[Hash]| {
            made.insert(
                Object::Tile { shard, tile: TilePath::Tile(tile) }.path(),
                Tile::encode(hashes).into(),
            );
        };
        for leaf in &leaves {
            builder.push(leaf.hash).iter().for_each(|(tile, hashes)| put(*tile, hashes));
        }
        builder.partial().for_each(|(tile, hashes)| put(tile, hashes));
        for bundle in Bundle::all(builder.size()) {
            let first = usize::try_from(bundle.index()).unwrap() * 256;
            let entries = leaves[first..first + usize::from(bundle.width())].iter();
            let bytes = Bundle::encode(entries.map(|leaf| leaf.data.as_bytes())).unwrap();
            made.insert(Object::Tile { shard, tile: TilePath::Bundle(bundle) }.path(), bytes.into());
        }
        let checkpoint = self.checkpoint(shard);
        made.insert(Object::Checkpoint { shard }.path(), checkpoint.to_string().into());
        let saved = SavedHead { head: self.shards[&shard].head.clone(), covered: 0 };
        made.insert(Object::Head { shard }.path(), saved.encode(&self.writer(2)).into());
        let last = place.head.time().day();
        for day in place.commits.chunk_by(|a, b| a.0.header().time.day() == b.0.header().time.day()) {
            if day[0].0.header().time.day() == last {
                continue;
            }
            let commits: Vec<Commit> = day.iter().map(|(commit, _)| commit.clone()).collect();
            let body = day.iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>().concat();
            let lengths = day.iter().map(|(_, bytes)| bytes.len() as u64).collect();
            let header = Header::over(&commits, &body, lengths).unwrap();
            // By the key that was in force then.
            let by = self.authority.key(commits.last().unwrap().header().endorser(&self.authority).unwrap());
            let by = if by == Some(authority()) { 9 } else { self.key };
            let object = header.object(key(by).sign(&header.message()), &body);
            made.insert(Object::Segment(header.name()).path(), object);
        }
        self.objects.extend(made);
    }

    /// The bases behind all days but the last of each shard, and the record of them.
    fn make_bases(&mut self) {
        let mut recorded = Vec::new();
        for (shard, place) in &self.shards {
            let mut head = Head::empty(self.store, *shard, &self.authority);
            let mut heads = Vec::new();
            for (commit, _) in &place.commits {
                head = head.verify(commit).unwrap();
                heads.push(head.clone());
            }
            let day = |at: usize| place.commits[at].0.header().time.day();
            let mut before: Option<Base> = None;
            for end in (1..heads.len()).filter(|end| day(*end) != day(end - 1)) {
                let begin = before.as_ref().map_or(0, |base| base.header().commits);
                let mut draft = Draft::new(before.take(), end as u64);
                for ((commit, _), head) in place.commits.iter().zip(&heads) {
                    if commit.header().seq >= begin && !draft.is_complete() {
                        draft.take(commit, head);
                    }
                }
                let earlier = earlier_of(&self.objects, *shard, &draft);
                let (base, extract) = draft.finish(earlier).unwrap();
                let commits = base.header().commits;
                if !extract.is_empty() {
                    self.objects.insert(Object::Extract { shard: *shard, commits }.path(), extract.into());
                }
                let object = base.object(
                    key(if base.header().key.is_some() { self.key } else { 9 }).sign(&base.message()),
                );
                self.objects.insert(Object::Base { shard: *shard, commits }.path(), object);
                recorded.push(Event::Base(base.reference()));
                before = Some(base);
            }
        }
        self.commit(0, 2, days(3), recorded);
    }

    fn checkpoint(&self, shard: u16) -> SignedCheckpoint {
        let origin = layout::origin(self.store, shard);
        let checkpoint = Checkpoint::new(origin, self.shards[&shard].head.tree()).unwrap();
        // For a while by the key before, too.
        let keys = if self.key == 9 { vec![9] } else { vec![9, self.key] };
        let log = |by| NamedKey::new(layout::key_name(self.store, shard), key(by));
        let mut signatures: Vec<_> =
            keys.into_iter().map(|by| log(by).sign(&checkpoint.to_string())).collect();
        if shard == FIRST_SHARD {
            // The log over all is what witnesses see.
            signatures.push(witness().cosign(&checkpoint, start()));
        }
        SignedCheckpoint::new(checkpoint, signatures).unwrap()
    }

    fn publish_all(&mut self) {
        for shard in self.shards.keys().copied().collect::<Vec<_>>() {
            self.publish(shard);
        }
    }

    /// Four days of three shards, with all that a log can have.
    fn full(store: u8) -> Self {
        Self::full_of(Self::empty(store))
    }

    fn full_of(world: Self) -> Self {
        let mut world = Self::half_of(world);
        world.change_key(days(2), 10);
        world.work(0, days(2), 150);
        world.work(1, days(2), 40);
        world.work(2, days(2), 1);
        let tree = world.shards[&1].head.tree();
        world.commit(0, 2, days(2), vec![Event::Shard(ShardHead { shard: 1, tree })]);
        // Writer 3 dies with an intent open.
        world.commit(1, 3, days(2), vec![intent(1_000_000, Some(customer(1))), Event::Alive]);
        let fence = Event::Fence(Fence { writer: WriterId::from_bytes([3; 16]) });
        world.commit(
            1,
            2,
            days(3),
            vec![fence, outcome(1_000_000, Some(customer(1)), OutcomeResult::Unknown)],
        );
        world.commit(2, 2, days(3), vec![Event::Claim]);
        world.work(2, days(3), 3);
        world.commit(2, 2, days(3), vec![Event::Release]);
        for whose in 1..=3 {
            let view = world.view(customer(whose));
            world.commit(0, 2, days(3), vec![Event::Alive, Event::View(view)]);
        }
        let ring = world.ring(days(3), customer(1), 2);
        let dropped = certificate::testing::drop_of(request(2_000_000), customer(1), ring);
        world.commit(0, 2, days(3), vec![Event::Intent(dropped)]);
        for epoch in EPOCHS {
            world.end_epoch(epoch);
        }
        world.make_bases();
        world.publish_all();
        world.certify(ring);
        world
    }

    /// The records by which an epoch ended.
    fn end_epoch(&mut self, epoch: u32) {
        for (part, action) in [Action::EpochDisable, Action::EpochDelete].into_iter().enumerate() {
            let number = 3_000_000 + 2 * epoch + u32::try_from(part).unwrap();
            let intent = certificate::testing::end_of(request(number), self.store, epoch, action);
            let ended = outcome(number, intent.customer, OutcomeResult::Ok);
            self.commit(0, 2, days(3), vec![Event::Intent(intent), ended]);
        }
    }

    /// The proofs of the operations of which this is true.
    fn evidence(&self, of: impl Fn(&Intent) -> bool) -> Vec<Evidence> {
        let place = &self.shards[&FIRST_SHARD];
        let leaves: Vec<_> = place.commits.iter().flat_map(|(commit, _)| commit.leaves()).collect();
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf.hash).collect();
        let records: Vec<Record> =
            place.commits.iter().flat_map(|(commit, _)| commit.clone().into_records()).collect();
        let proof = |at: usize| {
            let path = prove_inclusion(&hashes, at).unwrap();
            let proof = TlogProof::new(at as u64, path, self.checkpoint(FIRST_SHARD)).unwrap();
            proof.with_extra(records[at].to_line()).unwrap().to_string()
        };
        let mut evidence = Vec::new();
        for (at, record) in records.iter().enumerate() {
            let Event::Intent(intent) = &record.event else { continue };
            if !of(intent) {
                continue;
            }
            let what = What::ALL.into_iter().find(|what| what.action() == intent.action).unwrap();
            let ends = |record: &Record| matches!(&record.event, Event::Outcome(outcome) if outcome.request == intent.request);
            let outcome = records.iter().position(ends).map(proof);
            evidence.push(Evidence { what, intent: proof(at), outcome });
        }
        evidence
    }

    /// The certificates of what the newest ring version of customer 1 dropped, and the papers
    /// of the ends of epochs.
    fn certify(&mut self, ring: RingRef) {
        let evidence = self.evidence(|intent| intent.ring == Some(ring));
        let (object, interim) = certificate::testing::interim(self.store, customer(1), ring, evidence);
        self.objects.insert(object.path(), interim.clone().into());
        let papers = EPOCHS.map(|epoch| {
            let (path, paper) = self.epoch_end(epoch);
            self.objects.insert(path, paper.clone().into());
            paper
        });
        let (object, last) = certificate::testing::last(&interim, &papers);
        self.objects.insert(object.path(), last.into());
    }

    /// The paper of an epoch's end, as it would be made now.
    fn epoch_end(&self, epoch: u32) -> (Path, String) {
        let named = |key: &KeyRef| matches!(key, KeyRef::Epoch { epoch: of, .. } if *of == epoch);
        let evidence = self.evidence(|intent| intent.key.as_ref().is_some_and(named));
        let (object, paper) =
            certificate::testing::epoch_end(self.store, epoch, [days(3), days(3)], evidence);
        (object.path(), paper)
    }

    /// The first two days, published.
    fn half(store: u8) -> Self {
        Self::half_of(Self::empty(store))
    }

    fn half_of(mut world: Self) -> Self {
        world.ring(days(0), customer(1), 1);
        world.work(0, days(0), 10);
        world.open_shard(days(0), 1);
        world.work(1, days(0), 5);
        world.work(0, days(1), 130);
        world.open_shard(days(1), 2);
        world.work(2, days(1), 2);
        world.settled = 4;
        world.work(0, days(1), 1);
        world.settled = 0;
        world.publish_all();
        world
    }
}

/// What earlier extracts have of those to whom something is added.
fn earlier_of(objects: &Objects, shard: u16, draft: &Draft) -> Earlier {
    let mut earlier = Earlier::default();
    let piece = |piece: &Piece| {
        let extract = &objects[&Object::Extract { shard, commits: piece.base }.path()];
        let at = usize::try_from(piece.at).unwrap();
        extract.slice(at..at + usize::try_from(piece.length).unwrap())
    };
    let (Some(before), Some((filed, time))) = (draft.before(), draft.filed()) else { return earlier };
    for (customer, pages) in filed.pages(time) {
        let Some(old) = before.customer(customer).and_then(|of| of.contents) else { continue };
        let contents: Contents = extract::decode(&piece(&old)).unwrap();
        for name in pages {
            let page = contents.get(&name).map(|page| extract::decode(&piece(page)).unwrap());
            earlier.pages.extend(page.map(|page| ((customer, name), page)));
        }
        earlier.contents.insert(customer, contents);
    }
    earlier
}

async fn storage(objects: &Objects) -> Arc<dyn ObjectStore> {
    let storage = InMemory::new();
    for (path, bytes) in objects {
        storage.put(path, bytes.clone().into()).await.unwrap();
    }
    Arc::new(storage)
}

/// The same of one who has the newest key of a full log.
fn up_to_date() -> Options {
    Options { authority: Some(key(10).public()), ..options() }
}

/// What an auditor three weeks later knows, of the first key.
fn options() -> Options {
    Options {
        authority: Some(authority()),
        witnesses: vec![witness().cosigner()],
        quorum: 1,
        ..Options::new(days(20))
    }
}

async fn check(objects: &Objects, options: Options) -> Report {
    verify(storage(objects).await, options).await.unwrap()
}

#[track_caller]
fn assert_clean(report: &Report) {
    assert!(report.is_ok(), "{:#?}", report.findings);
}

#[track_caller]
fn assert_named(report: &Report, path: &Path, what: &str) {
    let named = report
        .findings
        .iter()
        .any(|finding| finding.severity == Severity::Wrong && finding.path == path.as_ref());
    assert!(named, "{what} {path} is not named: {:#?}", report.findings);
}

#[tokio::test]
async fn what_was_written_verifies() {
    fn sent<T: Send>(future: T) -> T {
        future
    }
    let world = World::full(1);
    let report = sent(check(&world.objects, up_to_date())).await;
    assert_clean(&report);
    assert_eq!((report.wrong, report.notes, report.findings.len()), (0, 0, 0), "{:#?}", report.findings);
    assert_eq!(report.store, Some(world.store));
    assert_eq!(report.shards.len(), 3);
    for (shard, found) in world.shards.values().zip(&report.shards) {
        assert_eq!((found.tree, found.commits), (shard.head.tree(), shard.head.next()));
        assert_eq!(found.checkpoint, Some(shard.head.tree()));
        assert_eq!((found.first, found.until), (Some(0), Some(shard.head.time())));
    }
    // Without anything known from elsewhere, it says so.
    let report = check(&world.objects, Options::new(days(20))).await;
    assert_clean(&report);
    let notes: Vec<_> = report.findings.iter().map(|finding| finding.problem.code()).collect();
    assert_eq!(notes, ["key-from-storage", "key-changed", "unknown-signatures"]);
    // Whoever has the key before is told.
    let report = check(&world.objects, options()).await;
    let notes: Vec<_> = report.findings.iter().map(|finding| finding.problem.code()).collect();
    assert_eq!((notes, report.authority), (vec!["key-changed"], Some(key(10).public())));
}

/// Everything that reads the log reads what a later version has added to, and nobody loses a
/// byte of it.
#[tokio::test]
async fn a_log_of_a_later_version_verifies_and_is_shown() {
    let world = World::full_of(World { later: true, ..World::empty(1) });
    let report = check(&world.objects, up_to_date()).await;
    assert_eq!((report.wrong, report.notes, report.findings.len()), (0, 0, 0), "{:#?}", report.findings);

    let storage = storage(&world.objects).await;
    let limit = Duration::from_secs(60);
    let reader = LogReader::open(Arc::clone(&storage), world.store, authority(), limit);
    let log = layout::verifier(world.store, FIRST_SHARD, authority());
    let stored: Vec<&Commit> = world.shards[&FIRST_SHARD].commits.iter().map(|(commit, _)| commit).collect();
    let mut view = None;
    for record in stored.iter().flat_map(|commit| commit.records()) {
        assert!(record.stored.is_some());
        if let Event::View(counted) = &record.event {
            view = Some(counted.clone());
        }
    }
    for index in [0, 7] {
        let entry = reader.shard(FIRST_SHARD).await.unwrap().entry(index).await.unwrap().unwrap();
        let proof = proof::prove(&reader, &entry).await.unwrap();
        let line = proof.extra().unwrap();
        assert!(line.windows(8).any(|part| part == b"\"later\":"));
        let proved = proof::check(&proof, &log, &[witness().cosigner()], 1).unwrap();
        assert_eq!(proved.record.to_line(), line);
    }
    let signer = Arc::new(LocalSigner::new(key(9)));
    let publisher = Publisher::new(storage, world.store, signer, limit);
    let file: Vec<Bytes> = publisher.view(&view.unwrap()).await.unwrap().try_collect().await.unwrap();
    let trust = Trust::new(&world.authority, vec![witness().cosigner()], 1).unwrap();
    let report = view::check(&*file.concat(), &trust).unwrap();
    assert!(report.is_complete(), "{:?}", report.findings);
    assert!(report.shards.iter().map(|shard| shard.records).sum::<u64>() > 20);
}

/// What an object can be changed into.
fn changes(bytes: &Bytes) -> Vec<(String, Bytes)> {
    let mut changes = Vec::new();
    for part in 0..8 {
        let at = (bytes.len() - 1) * part / 7;
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << part;
        changes.push((format!("one bit at {at} of"), flipped.into()));
    }
    changes.push(("nothing left of".to_owned(), Bytes::new()));
    changes.push(("half of".to_owned(), bytes.slice(..bytes.len() / 2)));
    changes.push(("all but the last byte of".to_owned(), bytes.slice(..bytes.len() - 1)));
    changes.push(("a line feed behind".to_owned(), [&bytes[..], b"\n"].concat().into()));
    changes
}

fn kind(object: &Object) -> u8 {
    match object {
        Object::Marker => 0,
        Object::Commit { .. } => 1,
        Object::Segment(_) => 2,
        Object::Checkpoint { .. } => 3,
        Object::Tile { tile: TilePath::Tile(_), .. } => 4,
        Object::Tile { .. } => 5,
        Object::Pin { .. } => 6,
        Object::Certificate { .. } => 7,
        Object::Order { .. } => 8,
        Object::Head { .. } => 9,
        Object::EpochEnd { .. } => 10,
        Object::Base { .. } => 11,
        Object::Extract { .. } => 12,
        Object::KeyChange { .. } => 13,
        Object::Voucher { .. } => 14,
        Object::Watch { .. } => 15,
    }
}

fn kind_of(path: &Path) -> u8 {
    kind(&Object::at(path).unwrap())
}

/// The same object one place on.
fn next_to(object: &Object) -> Path {
    match *object {
        Object::Marker => Path::from("store2"),
        Object::Commit { shard, seq } => Object::Commit { shard, seq: seq + 1 }.path(),
        Object::Segment(name) => Object::Segment(layout::SegmentName { last: name.last + 1, ..name }).path(),
        Object::Checkpoint { shard } => Object::Checkpoint { shard: shard + 1 }.path(),
        Object::Tile { shard, tile: TilePath::Tile(tile) } => {
            let tile = Tile::new(tile.level(), tile.index() + 1, tile.width()).unwrap();
            Object::Tile { shard, tile: TilePath::Tile(tile) }.path()
        }
        Object::Tile { shard, tile: TilePath::Bundle(bundle) } => {
            let bundle = Bundle::new(bundle.index() + 1, bundle.width()).unwrap();
            Object::Tile { shard, tile: TilePath::Bundle(bundle) }.path()
        }
        Object::Pin { customer, version } => Object::Pin { customer, version: version + 1 }.path(),
        Object::Voucher { of, version, hash, key } => {
            Object::Voucher { of, version: version + 1, hash, key }.path()
        }
        Object::Certificate { id, stage } => {
            let [interim, last] = layout::CertificateStage::ALL;
            Object::Certificate { id, stage: if stage == interim { last } else { interim } }.path()
        }
        Object::EpochEnd { epoch } => Object::EpochEnd { epoch: epoch + 1 }.path(),
        Object::KeyChange { number } => Object::KeyChange { number: number + 1 }.path(),
        Object::Watch { .. } => unreachable!("a hint is not looked at"),
        Object::Order { .. } => unreachable!("whether an order was altered is not seen here"),
        Object::Head { shard } => Object::Head { shard: shard + 1 }.path(),
        Object::Base { shard, commits } => Object::Base { shard, commits: commits + 1 }.path(),
        Object::Extract { shard, commits } => Object::Extract { shard, commits: commits + 1 }.path(),
    }
}

/// Partial tiles of trees before the last, which anyone may delete, certificates, which
/// nothing else speaks of, and saved heads, which are made again.
fn may_go(object: &Object, world: &World) -> bool {
    if matches!(object, Object::Certificate { .. } | Object::Head { .. }) {
        return true;
    }
    let Object::Tile { shard, tile } = object else { return false };
    let size = world.shards[shard].head.tree().size;
    match tile {
        TilePath::Tile(tile) => !Tile::all(size).any(|needed| needed == *tile),
        TilePath::Bundle(bundle) => !Bundle::all(size).any(|needed| needed == *bundle),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_change_to_any_object_is_named() {
    let world = World::full(1);
    let other = World::full(2);
    let mut tried: BTreeMap<u8, u32> = BTreeMap::new();
    let (mut before, mut attacks) = (BTreeMap::<u8, Path>::new(), Vec::new());
    for (path, bytes) in &world.objects {
        let (object, kind) = (Object::at(path).unwrap(), kind_of(path));
        *tried.entry(kind).or_default() += 1;
        let replaced = |by: Bytes| {
            let mut objects = world.objects.clone();
            objects.insert(path.clone(), by);
            objects
        };
        for (what, changed) in changes(bytes) {
            attacks.push((what, vec![path.clone()], replaced(changed)));
        }
        // The id of a certificate follows from the store.
        let of_kind = |(path, _): &(&Path, &Bytes)| kind_of(path) == kind;
        let found = other.objects.get(path).or_else(|| Some(other.objects.iter().find(of_kind)?.1));
        let foreign = found.unwrap().clone();
        assert_ne!(foreign, bytes, "{path}");
        attacks.push(("another store's".to_owned(), vec![path.clone()], replaced(foreign)));
        if !may_go(&object, &world) {
            let mut objects = world.objects.clone();
            objects.remove(path);
            attacks.push(("deleted".to_owned(), vec![path.clone()], objects));
        }
        let next = next_to(&object);
        let mut objects = world.objects.clone();
        objects.insert(next.clone(), bytes.clone());
        attacks.push(("in the place of the next".to_owned(), vec![next], objects));
        let strange = Path::from(format!("{path}x"));
        let mut objects = world.objects.clone();
        objects.insert(strange.clone(), bytes.clone());
        attacks.push(("beside it".to_owned(), vec![strange], objects));
        if let Some(swapped) = before.insert(kind, path.clone()) {
            let mut objects = replaced(world.objects[&swapped].clone());
            objects.insert(swapped.clone(), bytes.clone());
            attacks.push(("swapped".to_owned(), vec![swapped, path.clone()], objects));
        }
    }
    assert_eq!(tried.len(), 14, "an object of each kind: {tried:?}");
    for (what, named, objects) in attacks {
        let report = check(&objects, options()).await;
        for path in &named {
            assert_named(&report, path, &what);
        }
        assert!(
            report.wrong < 60,
            "{what} {named:?} gives {} findings: {:#?}",
            report.wrong,
            report.findings
        );
    }
}

#[tokio::test]
async fn a_changed_marker_is_named_without_a_key_from_elsewhere() {
    let world = World::half(1);
    let path = Object::Marker.path();
    for (what, changed) in changes(&world.objects[&path]) {
        let mut objects = world.objects.clone();
        objects.insert(path.clone(), changed);
        assert_named(&check(&objects, Options::new(days(20))).await, &path, &what);
    }
    let other = Options { authority: Some(key(4).public()), ..Options::new(days(20)) };
    assert_named(&check(&world.objects, other).await, &path, "another key for");
}

#[tokio::test]
async fn one_changed_bit_is_one_finding() {
    let world = World::full(1);
    for seq in [0, 3, 6] {
        let path = Object::Commit { shard: 0, seq }.path();
        let mut objects = world.objects.clone();
        let mut bytes = objects[&path].to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        objects.insert(path.clone(), bytes.into());
        let report = check(&objects, options()).await;
        assert_named(&report, &path, "one bit of");
        assert_eq!(report.wrong, 1, "{:#?}", report.findings);
        assert_eq!(report.shards[0].tree, world.shards[&0].head.tree());
    }
}

#[tokio::test]
async fn a_rolled_back_log_is_shown_by_a_checkpoint_kept_elsewhere() {
    let (old, new) = (World::half(1), World::full(1));
    assert_clean(&check(&old.objects, options()).await);
    for shard in 0..3 {
        let pinned = Options { pinned: vec![new.checkpoint(shard)], ..options() };
        assert_clean(&check(&new.objects, pinned.clone()).await);
        let report = check(&old.objects, pinned).await;
        let problem = Problem::RolledBack {
            size: new.shards[&shard].head.tree().size,
            records: old.shards[&shard].head.tree().size,
        };
        assert!(report.findings.iter().any(|finding| finding.problem == problem), "{:#?}", report.findings);
        // One of before is no contradiction.
        let pinned = Options { pinned: vec![old.checkpoint(shard)], ..options() };
        assert_clean(&check(&new.objects, pinned).await);
    }
    // A log of the same length with other records.
    let mut rewritten = World::empty(1);
    rewritten.work(0, days(0), 400);
    let pinned = Options { pinned: vec![old.checkpoint(0)], ..options() };
    let report = check(&rewritten.objects, pinned).await;
    let size = old.shards[&0].head.tree().size;
    assert!(report.findings.iter().any(|finding| finding.problem == Problem::Rewritten(size)));
    // Another log's checkpoint is none of this one.
    let pinned = Options { pinned: vec![World::half(2).checkpoint(0)], ..options() };
    let report = check(&old.objects, pinned).await;
    assert_eq!(report.wrong, 1);
    assert!(matches!(report.findings[0].problem, Problem::PinnedForeign(_)), "{:#?}", report.findings);
}

#[tokio::test]
async fn too_few_witnesses_are_named() {
    let world = World::half(1);
    let report = check(&world.objects, Options { quorum: 2, ..options() }).await;
    assert_named(&report, &Path::from("checkpoint"), "quorum of");
    let stranger = NamedKey::new("witness.example/x".parse().unwrap(), key(7)).cosigner();
    let report = check(&world.objects, Options { witnesses: vec![stranger], ..options() }).await;
    assert_named(&report, &Path::from("checkpoint"), "unknown witness of");
}

/// Whoever rolls a log back does not escape its witnesses by taking away what
/// they sign.
#[tokio::test]
async fn without_a_checkpoint_witnesses_are_missed() {
    let world = World::half(1);
    let mut objects = world.objects.clone();
    objects.retain(|path, _| {
        let gone = ["checkpoint", "tile/"];
        !gone.iter().any(|gone| path.as_ref().starts_with(gone))
    });
    let report = check(&objects, Options { quorum: 1, ..options() }).await;
    assert_named(&report, &Path::from("checkpoint"), "no checkpoint for the quorum of");
}

#[tokio::test]
async fn a_log_without_a_commit_is_none() {
    let world = World::half(1);
    let mut objects = world.objects.clone();
    objects.retain(|path, _| path.as_ref() == "store");
    assert_named(&check(&objects, options()).await, &Object::Commit { shard: 0, seq: 0 }.path(), "no log at");
}

#[tokio::test]
async fn commits_age_out_behind_segments_and_no_sooner() {
    let world = World::full(1);
    let mut objects = world.objects.clone();
    for seq in 0..5 {
        objects.remove(&Object::Commit { shard: 0, seq }.path());
    }
    assert_clean(&check(&objects, Options { now: days(60), ..options() }).await);
    let early = check(&objects, options()).await;
    assert_named(&early, &Object::Commit { shard: 0, seq: 4 }.path(), "too soon gone");
    // A hole is none that age made.
    objects.remove(&Object::Commit { shard: 0, seq: 6 }.path());
    let hole = check(&objects, Options { now: days(60), ..options() }).await;
    assert_named(&hole, &Object::Commit { shard: 0, seq: 6 }.path(), "a hole at");
}

#[tokio::test]
async fn the_first_days_may_go_when_two_bases_stand_for_them_and_that_is_on_record() {
    let mut world = World::full(1);
    let bases: Vec<u64> = world
        .objects
        .keys()
        .filter_map(|path| match Object::at(path) {
            Some(Object::Base { shard: 0, commits }) => Some(commits),
            _ => None,
        })
        .collect();
    let gone = bases[bases.len() - 2];
    let remove = |objects: &mut Objects| {
        objects.retain(|path, _| match Object::at(path).unwrap() {
            Object::Commit { shard: 0, seq } => seq >= gone,
            Object::Segment(name) => name.shard > 0 || name.first >= gone,
            _ => true,
        });
    };
    let later = Options { now: days(60), ..options() };
    let mut early = world.objects.clone();
    remove(&mut early);
    assert_named(
        &check(&early, later.clone()).await,
        &Object::Commit { shard: 0, seq: 0 }.path(),
        "unrecorded",
    );

    let stored = &world.objects[&Object::Base { shard: 0, commits: gone }.path()];
    let stands = Base::decode(stored, &authority()).unwrap().reference();
    world.commit(0, 2, days(3), vec![Event::Removal(stands)]);
    world.publish(0);
    let mut objects = world.objects.clone();
    remove(&mut objects);
    let pinned = Options { pinned: vec![World::half(1).checkpoint(0)], ..later.clone() };
    let report = check(&objects, pinned).await;
    assert_clean(&report);
    assert!(report.findings.iter().any(|finding| finding.problem == Problem::AgedOut(gone)));
    assert_eq!(report.shards[0].tree, world.shards[&0].head.tree());
    // What was kept elsewhere of what is gone is compared with the tiles.
    let forged = Options { pinned: vec![World::half(2).checkpoint(0)], ..later.clone() };
    assert!(!check(&objects, forged).await.is_ok());
    // What stands for it is checked.
    let stands: Vec<Path> = objects
        .keys()
        .filter(|path| match Object::at(path) {
            Some(Object::Base { shard: 0, commits }) => commits == gone,
            Some(Object::Extract { shard: 0, commits }) => commits <= gone,
            _ => false,
        })
        .cloned()
        .collect();
    assert!(stands.len() > 1, "{stands:?}");
    for path in stands {
        let mut changed = objects.clone();
        changed.remove(&path);
        assert_named(&check(&changed, later.clone()).await, &path, "removed");
        for (what, bytes) in changes(&objects[&path]) {
            let mut changed = objects.clone();
            changed.insert(path.clone(), bytes);
            let report = check(&changed, later.clone()).await;
            // Nobody reads what stands behind the pieces of an extract.
            let unread = what.starts_with("a line feed") && kind_of(&path) == 12;
            assert!(unread || !report.is_ok(), "{what} {path}");
        }
    }
    // One base more is gone than may be.
    let last = bases[bases.len() - 1];
    objects.remove(&Object::Base { shard: 0, commits: last }.path());
    objects.remove(&Object::Extract { shard: 0, commits: last }.path());
    assert_named(&check(&objects, later).await, &Object::Commit { shard: 0, seq: 0 }.path(), "one base");
}

/// A story in commits of the first shard and of shard 1, and what is wrong with
/// it.
type Tell = fn(&mut World);

#[tokio::test]
async fn records_that_contradict_each_other_are_named() {
    let whose = Some(customer(1));
    assert!(whose.is_some());
    let stories: Vec<(&str, Tell)> = vec![
        ("begun before", |world| world.commit(0, 2, days(3), vec![intent(1, None)])),
        ("no intent before it", |world| {
            world.commit(0, 2, days(3), vec![outcome(77_777, None, OutcomeResult::Ok)]);
        }),
        ("has an outcome already", |world| {
            world.commit(0, 2, days(3), vec![outcome(1, Some(customer(1)), OutcomeResult::Ok)]);
        }),
        ("another customer than its intent", |world| {
            world.commit(0, 2, days(3), vec![intent(500, Some(customer(1)))]);
            world.commit(0, 2, days(3), vec![outcome(500, Some(customer(2)), OutcomeResult::Ok)]);
        }),
        ("was not fenced", |world| {
            world.commit(0, 2, days(3), vec![intent(500, None)]);
            world.commit(0, 4, days(3), vec![outcome(500, None, OutcomeResult::Unknown)]);
        }),
        ("counts as dead", |world| {
            world.commit(0, 2, days(3), vec![Event::Fence(Fence { writer: WriterId::from_bytes([4; 16]) })]);
            world.commit(0, 4, days(3), vec![Event::Alive]);
        }),
        ("leaves intents of it open", |world| {
            world.commit(0, 4, days(3), vec![intent(500, None)]);
            world.commit(0, 2, days(3), vec![Event::Fence(Fence { writer: WriterId::from_bytes([4; 16]) })]);
        }),
        ("are settled, and commit", |world| {
            world.commit(0, 2, days(3), vec![intent(500, None)]);
            world.settled = world.shards[&0].head.next();
            world.commit(0, 2, days(3), vec![Event::Alive]);
        }),
        ("only the first shard", |world| {
            let tree = world.shards[&2].head.tree();
            world.commit(1, 2, days(3), vec![Event::Shard(ShardHead { shard: 2, tree })]);
        }),
        ("not with an empty tree", |world| {
            world.work(5, days(3), 1);
            world.open_shard(days(3), 5);
        }),
        ("never had this tree", |world| {
            let mut tree = world.shards[&1].head.tree();
            tree.size -= 1;
            world.commit(0, 2, days(3), vec![Event::Shard(ShardHead { shard: 1, tree })]);
        }),
        ("never had this tree", |world| {
            let mut tree = world.shards[&1].head.tree();
            tree.root = Hash::ZERO;
            world.commit(0, 2, days(3), vec![Event::Shard(ShardHead { shard: 1, tree })]);
        }),
        ("fewer records than this tree", |world| {
            let mut tree = world.shards[&1].head.tree();
            tree.size += 1;
            world.commit(0, 2, days(3), vec![Event::Shard(ShardHead { shard: 1, tree })]);
        }),
        ("does not name", |world| world.work(5, days(3), 1)),
        ("does not list the shards", |world| {
            let mut view = world.view(customer(1));
            view.shards.pop();
            world.commit(0, 2, days(3), vec![Event::View(view)]);
        }),
        ("not true of shard 0000", |world| {
            let mut view = world.view(customer(1));
            view.shards[0].records -= 1;
            world.commit(0, 2, days(3), vec![Event::View(view)]);
        }),
        ("not true of shard 0001", |world| {
            let mut view = world.view(customer(1));
            view.shards[1].records += 1;
            world.commit(0, 2, days(3), vec![Event::View(view)]);
        }),
        ("not true of shard 0002", |world| {
            let mut view = world.view(customer(2));
            view.shards[2].last = Hash::ZERO;
            world.commit(0, 2, days(3), vec![Event::View(view)]);
        }),
        ("its version is not pinned", |world| {
            world.ring(days(3), customer(2), 1);
            world.objects.remove(&Object::Pin { customer: customer(2), version: 1 }.path());
        }),
        ("no ring write in the log", |world| {
            let body = serde_json::to_string(&RingRef { version: 9, hash: [1; 32] }).unwrap() + "\n";
            world.objects.insert(Object::Pin { customer: customer(2), version: 9 }.path(), body.into());
        }),
    ];
    let told = |report: &Report| -> Vec<String> {
        let wrong = report.findings.iter().filter(|finding| finding.severity == Severity::Wrong);
        wrong.map(|finding| format!("{}: {}", finding.path, finding.problem)).collect()
    };
    for (expected, tell) in stories {
        let mut world = World::half(1);
        tell(&mut world);
        world.publish_all();
        let found = told(&check(&world.objects, options()).await);
        let said = found.iter().any(|sentence| sentence.contains(expected.trim_start_matches("no ring")));
        let said = said
            || expected.starts_with("no ring") && found.iter().any(|text| text.contains("not what any ring"));
        assert!(said, "{expected}: {found:#?}");
        assert!(found.len() <= 3, "{expected}: {found:#?}");
    }
}

#[tokio::test]
async fn what_a_stolen_old_key_does_is_named() {
    let codes = async |world: &World, path: &Path| -> Vec<&'static str> {
        let report = check(&world.objects, up_to_date()).await;
        let of_path = report.findings.iter().filter(|finding| finding.path == path.as_ref());
        of_path.map(|finding| finding.problem.code()).collect()
    };
    // A commit behind the change, in the first shard and in another, and each one behind it.
    for shard in [0, 1] {
        let mut world = World::full(1);
        world.key = 9;
        let seq = world.head(shard).head.next();
        world.work(shard, days(3), 1);
        world.work(shard, days(3), 1);
        for seq in [seq, seq + 1] {
            let path = Object::Commit { shard, seq }.path();
            assert_eq!(codes(&world, &path).await, ["not-next"], "{path}");
        }
    }
    // A shard that is named after the change, and begins before it.
    let mut world = World::full(1);
    world.open_shard(days(3), 3);
    world.key = 9;
    world.work(3, days(3), 1);
    let path = Object::Commit { shard: 3, seq: 0 }.path();
    assert_eq!(codes(&world, &path).await, ["old-key"]);
    let statement = Object::KeyChange { number: 2 }.path();
    assert_eq!(codes(&world, &statement).await, ["key-behind"]);
    // One that was named before, and left out.
    let mut world = World::half(1);
    world.open_shard(days(1), 3);
    world.shards.remove(&3);
    world.change_key(days(2), 10);
    world.key = 9;
    world.work(3, days(2), 1);
    assert_eq!(codes(&world, &statement).await, ["key-behind"]);
}

#[tokio::test]
async fn a_certificate_of_records_that_are_gone_is_named() {
    let world = World::full(1);
    let id = CertificateId::derive(world.store, customer(1), 2);
    let paper = Object::Certificate { id, stage: layout::CertificateStage::Interim }.path();
    // Another history of the same log, as its key's holder could write one.
    let mut other = World::half(1);
    other.work(0, days(2), 1);
    other.publish_all();
    other.objects.insert(paper.clone(), world.objects[&paper].clone());
    let report = check(&other.objects, options()).await;
    assert_named(&report, &paper, "a longer log's");
    for day in 3..20 {
        other.work(0, days(day), 200);
    }
    other.publish_all();
    let report = check(&other.objects, options()).await;
    assert_named(&report, &paper, "another log's");
    assert_eq!(report.wrong, 1, "{:#?}", report.findings);
}

#[tokio::test]
async fn a_certificate_and_the_papers_that_it_names_are_held_against_each_other() {
    let mut world = World::full(1);
    assert_clean(&check(&world.objects, options()).await);
    let paths = EPOCHS.map(|epoch| Object::EpochEnd { epoch }.path());
    let said = async |objects: &Objects| -> Vec<(String, Problem)> {
        let report = check(objects, up_to_date()).await;
        report.findings.into_iter().map(|finding| (finding.path, finding.problem)).collect()
    };
    let mut objects = world.objects.clone();
    objects.remove(&paths[0]);
    let missing = Problem::Missing("a certificate names it");
    assert_eq!(said(&objects).await, [(paths[0].to_string(), missing)]);

    // One that is as good, and that no certificate names: another was there before.
    world.work(0, days(3), 1);
    world.publish_all();
    let (path, other) = world.epoch_end(1);
    assert_eq!(path, paths[0]);
    let mut objects = world.objects.clone();
    objects.insert(path, other.into());
    let id = CertificateId::derive(world.store, customer(1), 2);
    assert_eq!(said(&objects).await, [(paths[0].to_string(), Problem::NotAsNamed(id))]);

    // Without a certificate that names them they stand by themselves.
    let mut objects = world.objects.clone();
    objects.remove(&Object::Certificate { id, stage: layout::CertificateStage::Final }.path());
    objects.remove(&paths[1]);
    assert_eq!(said(&objects).await, []);
    let third = Object::EpochEnd { epoch: 3 }.path();
    objects.insert(third.clone(), objects[&paths[0]].clone());
    assert_eq!(said(&objects).await, [(third.to_string(), Problem::Misplaced)]);
}

#[tokio::test]
async fn a_paper_of_records_that_are_gone_is_named() {
    let world = World::full(1);
    let mut other = World::half(1);
    other.work(0, days(2), 1);
    other.publish_all();
    for epoch in EPOCHS {
        let path = Object::EpochEnd { epoch }.path();
        other.objects.insert(path.clone(), world.objects[&path].clone());
    }
    let report = check(&other.objects, options()).await;
    for epoch in EPOCHS {
        assert_named(&report, &Object::EpochEnd { epoch }.path(), "a longer log's");
    }
}

#[tokio::test]
async fn an_order_is_a_note_in_its_place() {
    let mut world = World::half(1);
    let id = OrderId::from_bytes([4; 16]);
    let stage = layout::OrderStage::Request;
    let text = format!(
        "{{\"format\":\"strongroom/order/v1\",\"id\":\"{id}\",\"store\":\"{}\",\"requested_by\":\"person:p-17\"}}\n",
        world.store
    );
    let by = NamedKey::new("person:p-17".parse().unwrap(), key(21));
    let note = Note::new(text.clone(), vec![by.sign(&text)]).unwrap().to_string();
    world.objects.insert(Object::Order { id, stage }.path(), note.clone().into());
    assert_clean(&check(&world.objects, options()).await);

    let elsewhere = Object::Order { id: OrderId::from_bytes([5; 16]), stage }.path();
    let strange = Path::from(format!("order/{id}/final"));
    for (path, bytes) in [
        (Object::Order { id, stage }.path(), Bytes::from(text)),
        (Object::Order { id, stage }.path(), Bytes::new()),
        (elsewhere, note.clone().into()),
        (strange, note.into()),
    ] {
        let mut objects = world.objects.clone();
        objects.insert(path.clone(), bytes);
        assert_named(&check(&objects, options()).await, &path, "a bad order");
    }
}

#[tokio::test]
async fn an_empty_storage_is_no_audit_log() {
    let report = check(&Objects::new(), options()).await;
    assert_named(&report, &Object::Marker.path(), "no");
    assert!(report.shards.is_empty());
}

#[tokio::test]
async fn an_absurd_number_ends() {
    let mut world = World::half(1);
    let copy = world.objects[&Object::Commit { shard: 0, seq: 1 }.path()].clone();
    let path = Object::Commit { shard: 0, seq: u64::MAX }.path();
    world.objects.insert(path.clone(), copy);
    assert_named(&check(&world.objects, options()).await, &path, "far behind the last");
}
