//! Customers' views: three shards, several customers, and everything that whoever hands a
//! view out could try.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::stream::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::commit::{Commit, leaf_of_line};
use strongroom::audit::layout::{self, Object};
use strongroom::audit::log::{Log, LogConfig};
use strongroom::audit::publish::Publisher;
use strongroom::audit::view::{Finding, Header, ProvenRecord, ShardHeader, Trust, ViewReport, check};
use strongroom::audit::{Action, Event, Intent, OutcomeResult, Record, ShardHead, View};
use strongroom::id::{CustomerId, StoreId};
use strongroom::merkle::{Frontier, Hash, TreeHead, prove_consistency, prove_inclusion, root};
use strongroom::secret::Secret;
use strongroom::system::SystemEntropy;
use strongroom::time::{Clock, Timestamp};
use strongroom::tlog::checkpoint::{Checkpoint, SignedCheckpoint};
use strongroom::tlog::note::NoteSignature;
use strongroom::tlog::{NamedKey, PublicKey, SecretKey, VerifierKey};

#[path = "common/signer.rs"]
mod signer;
use signer::{authority, signer};

const STORE: StoreId = StoreId::from_bytes([7; 16]);
const ACME: CustomerId = CustomerId::from_bytes([1; 16]);
const GLOBEX: CustomerId = CustomerId::from_bytes([2; 16]);
const INITECH: CustomerId = CustomerId::from_bytes([3; 16]);
const LIMIT: Duration = Duration::from_secs(60);

/// A clock that moves on with every look.
#[derive(Debug)]
struct Steps(AtomicU64);

impl Clock for Steps {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.fetch_add(1000, SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_micros(self.0.load(SeqCst))
    }
}

/// A log of three shards, in which everyone works.
struct World {
    storage: Arc<InMemory>,
    clock: Arc<Steps>,
    logs: Vec<Log>,
}

impl World {
    async fn new() -> Self {
        let storage = Arc::new(InMemory::new());
        let clock = Arc::new(Steps(AtomicU64::new(1_800_000_000_000_000)));
        let mut world = Self { storage, clock, logs: Vec::new() };
        for shard in 0..3 {
            let (storage, mut config) = (world.storage.clone(), LogConfig::new(STORE, signer()));
            let (clock, entropy) = (world.clock.clone(), Arc::new(SystemEntropy));
            config.shard = shard;
            world.logs.push(Log::open(storage, config, clock, entropy).await.unwrap());
            let named = [1, 2].map(|shard| ShardHead { shard, tree: Frontier::new().head() });
            if shard == 0 {
                world.logs[0].name_shards(&named).await.unwrap();
            }
        }
        world
    }

    /// Begins and finishes so many operations in a shard.
    async fn work(&self, shard: usize, customer: CustomerId, count: usize) {
        let log = &self.logs[shard];
        for _ in 0..count {
            let access = Access::new(Principal::service("tests").unwrap(), Purpose::Treatment);
            let mut intent = Intent::new(log.request_id().unwrap(), &access, Action::Open);
            intent.customer = Some(customer);
            let (open, _receipt) = log.begin(intent).await.unwrap();
            open.finish(OutcomeResult::Ok, Some(1)).await.unwrap();
        }
    }

    async fn busy() -> Self {
        let world = Self::new().await;
        for round in 1..=5 {
            for shard in 0..3 {
                world.work(shard, ACME, round % 2 + shard % 2).await;
                world.work(shard, GLOBEX, 2).await;
            }
            world.work(2, INITECH, 1).await;
        }
        world
    }

    fn publisher(&self) -> Publisher {
        Publisher::new(self.storage.clone(), STORE, signer(), LIMIT)
    }

    async fn publish(&self) {
        let publisher = self.publisher();
        for shard in 0..3 {
            publisher.publish(shard, &[]).await.unwrap();
        }
    }

    /// Records a view, publishes, and writes the file.
    async fn view(&self, customer: CustomerId) -> File {
        let view = self.logs[0].record_view(customer).await.unwrap();
        self.publish().await;
        self.export(&view).await
    }

    async fn export(&self, view: &View) -> File {
        let pieces = self.publisher().view(view).await.unwrap();
        let pieces: Vec<_> = pieces.try_collect().await.unwrap();
        File::read(&pieces.concat())
    }

    /// Every line of a shard, and the hashes of the leaves.
    async fn leaves(&self, shard: u16) -> (Vec<(String, Record)>, Vec<Hash>) {
        let end = self.logs[usize::from(shard)].head().next();
        let mut records = Vec::new();
        for seq in 0..end {
            let stored = self.storage.get(&Object::Commit { shard, seq }.path()).await.unwrap();
            let commit = Commit::decode(&stored.bytes().await.unwrap()).unwrap();
            records.extend(commit.into_records());
        }
        let lines: Vec<_> =
            records.into_iter().map(|record| (serde_json::to_string(&record).unwrap(), record)).collect();
        let hashes = lines.iter().map(|(line, _)| leaf_of_line(line.as_bytes()).hash).collect();
        (lines, hashes)
    }
}

/// A view, to be changed.
#[derive(Clone)]
struct File {
    header: Header,
    records: Vec<ProvenRecord>,
}

impl File {
    fn read(bytes: &[u8]) -> Self {
        let mut lines = std::str::from_utf8(bytes).unwrap().split_terminator('\n').map(str::as_bytes);
        let header = Header::decode(lines.next().unwrap()).unwrap();
        let file = Self { header, records: lines.map(|line| ProvenRecord::decode(line).unwrap()).collect() };
        assert_eq!(file.bytes(), bytes, "there is one form");
        file
    }

    fn bytes(&self) -> Vec<u8> {
        let records = self.records.iter().flat_map(ProvenRecord::to_line);
        self.header.to_line().into_iter().chain(records).collect()
    }

    fn record(&self, at: usize) -> Record {
        serde_json::from_str(&self.records[at].record).unwrap()
    }

    fn check(&self) -> ViewReport {
        checked(&self.bytes())
    }

    /// The same with a record changed in place, as one who cannot change the log would.
    fn changed(&self, at: usize, change: impl FnOnce(&mut Record)) -> Self {
        let mut file = self.clone();
        let mut record = self.record(at);
        change(&mut record);
        file.records[at].record = serde_json::to_string(&record).unwrap();
        assert_ne!(file.records[at], self.records[at]);
        file
    }
}

fn trust() -> Trust {
    Trust::new(authority(), Vec::new(), 0).unwrap()
}

fn checked(bytes: &[u8]) -> ViewReport {
    check(bytes, &trust()).unwrap()
}

#[track_caller]
fn found(report: &ViewReport, finding: Finding) {
    assert!(!report.is_complete());
    assert!(report.findings.contains(&finding), "{finding:?} in {:?}", report.findings);
}

/// Makes a view from what is stored, without the code that makes views.
async fn by_hand(world: &World, view: &View, sizes: [usize; 3]) -> File {
    let (mut shards, mut records) = (Vec::new(), Vec::new());
    for counted in &view.shards {
        let (lines, hashes) = world.leaves(counted.shard).await;
        let hashes = &hashes[..sizes[usize::from(counted.shard)]];
        let old = usize::try_from(counted.tree.size).unwrap();
        shards.push(ShardHeader {
            base: None,
            shard: counted.shard,
            tree: counted.tree,
            consistency: prove_consistency(hashes, old).unwrap(),
            checkpoint: checkpoint(counted.shard, hashes).await.to_string(),
        });
        for (index, (line, record)) in lines.into_iter().enumerate().take(hashes.len()) {
            if record.event.customer() == Some(view.customer) {
                let proof = prove_inclusion(hashes, index).unwrap();
                let index = u64::try_from(index).unwrap();
                records.push(ProvenRecord { shard: counted.shard, index, proof, record: line });
                if record.event == Event::View(view.clone()) {
                    break;
                }
            }
        }
    }
    File { header: Header::new(STORE, view.customer, authority(), shards), records }
}

async fn checkpoint(shard: u16, leaves: &[Hash]) -> SignedCheckpoint {
    let head = TreeHead { size: u64::try_from(leaves.len()).unwrap(), root: root(leaves) };
    let checkpoint = Checkpoint::new(layout::origin(STORE, shard), head).unwrap();
    let signature = signer().sign(checkpoint.to_string().as_bytes()).await.unwrap();
    let line = NoteSignature::ed25519(layout::key_name(STORE, shard), authority(), &signature);
    SignedCheckpoint::new(checkpoint, vec![line]).unwrap()
}

fn witness(name: &str, seed: u8) -> NamedKey {
    NamedKey::new(name.parse().unwrap(), SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32])))
}

#[tokio::test]
async fn a_view_of_three_shards_is_complete() {
    let world = World::busy().await;
    for customer in [ACME, GLOBEX, INITECH] {
        let file = world.view(customer).await;
        let report = file.check();
        assert!(report.is_complete(), "{:?}", report.findings);
        assert_eq!((report.store, report.customer), (STORE, customer));
        let Event::View(view) = file.record(file.records.iter().rposition(|r| r.shard == 0).unwrap()).event
        else {
            panic!("the first shard ends with the view")
        };
        let counted: BTreeMap<u16, u64> = view.shards.iter().map(|of| (of.shard, of.records)).collect();
        for shard in &report.shards {
            // The view's own record, and nothing else was made since.
            let later = u64::from(shard.shard == 0);
            assert_eq!(shard.counted, Some(counted[&shard.shard]));
            assert_eq!((shard.records, shard.later), (counted[&shard.shard] + later, later));
            assert_eq!(shard.from, (shard.records > 0).then_some(1));
            assert!(shard.first <= shard.last && shard.last <= report.until);
        }
        assert_eq!(report.shards.len(), 3);
        // Nothing of the others' is in it.
        let bytes = file.bytes();
        for other in [ACME, GLOBEX, INITECH].iter().filter(|other| **other != customer) {
            let id = other.to_string().into_bytes();
            assert!(!bytes.windows(id.len()).any(|window| window == id));
        }
        for shard in 0..3 {
            for (line, record) in world.leaves(shard).await.0 {
                let given = file.records.iter().any(|given| given.record == line);
                assert_eq!(
                    given,
                    record.event.customer() == Some(customer) && record.time <= report.until.unwrap()
                );
                let nonce = record.nonce.to_string().into_bytes();
                assert_eq!(given, bytes.windows(nonce.len()).any(|window| window == nonce));
            }
        }
    }
}

#[tokio::test]
async fn it_is_what_can_be_made_by_hand() {
    let world = World::busy().await;
    let view = world.logs[0].record_view(ACME).await.unwrap();
    let sizes = [world.leaves(0).await.1.len(), world.leaves(1).await.1.len(), world.leaves(2).await.1.len()];
    world.publish().await;
    assert!(world.export(&view).await.bytes() == by_hand(&world, &view, sizes).await.bytes());
}

#[tokio::test]
async fn each_record_that_is_left_out_is_missed() {
    let file = World::busy().await.view(ACME).await;
    let all = file.records.len();
    assert!(all > 20);
    for at in 0..all {
        let mut short = file.clone();
        let removed = short.records.remove(at);
        let report = short.check();
        let number = file.record(at).chain.unwrap().number;
        if matches!(file.record(at).event, Event::View(_)) {
            found(&report, Finding::NoView);
        } else {
            found(&report, Finding::Missing { shard: removed.shard, first: number, last: number });
        }
        assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    }
    for last in 1..all {
        let mut cut = file.clone();
        cut.records.truncate(last);
        assert!(!cut.check().is_complete(), "{last}");
        let mut cut = file.clone();
        cut.records.drain(..last);
        assert!(!cut.check().is_complete(), "{last}");
    }
    let mut gap = file.clone();
    let shard_two: Vec<usize> = (0..all).filter(|at| file.records[*at].shard == 2).collect();
    gap.records.drain(shard_two[1]..=shard_two[3]);
    found(&gap.check(), Finding::Missing { shard: 2, first: 2, last: 4 });
}

#[tokio::test]
async fn a_shard_that_is_left_out_is_missed() {
    let file = World::busy().await.view(ACME).await;
    for shard in 0..3 {
        let count =
            u64::try_from(file.records.iter().filter(|record| record.shard == shard).count()).unwrap();
        let mut short = file.clone();
        short.records.retain(|record| record.shard != shard);
        let missing = match shard {
            0 => Finding::NoView,
            _ => Finding::Missing { shard, first: 1, last: count },
        };
        found(&short.check(), missing);
        short.header.shards.retain(|header| header.shard != shard);
        found(&short.check(), missing);
        // And where only the first line does not have it.
        let mut hidden = file.clone();
        hidden.header.shards.retain(|header| header.shard != shard);
        found(&hidden.check(), missing);
        assert!(hidden.check().findings.iter().any(|finding| matches!(finding, Finding::Shard { .. })));
    }
}

#[tokio::test]
async fn each_changed_record_is_noticed() {
    let world = World::busy().await;
    let file = world.view(ACME).await;
    for at in 0..file.records.len() {
        let (shard, link) = (file.records[at].shard, file.record(at).chain.unwrap());
        let altered = file.changed(at, |record| record.time = Timestamp::from_micros(7).unwrap());
        found(&altered.check(), Finding::NotInLog { shard, number: link.number });
        let forged = file.changed(at, |record| record.chain.as_mut().unwrap().number += 1);
        found(&forged.check(), Finding::NotInLog { shard, number: link.number + 1 });
        let forged = file.changed(at, |record| record.chain.as_mut().unwrap().previous = Hash::of(b"other"));
        found(&forged.check(), Finding::NotInLog { shard, number: link.number });
        let unchained = file.changed(at, |record| record.chain = None);
        found(&unchained.check(), Finding::Line { line: u64::try_from(at).unwrap() + 2 });

        let mut elsewhere = file.clone();
        elsewhere.records[at].shard = (shard + 1) % 3;
        assert!(!elsewhere.check().is_complete());
        let mut elsewhere = file.clone();
        elsewhere.records[at].index += 1;
        assert!(!elsewhere.check().is_complete());
        let mut unproven = file.clone();
        unproven.records[at].proof.pop();
        found(&unproven.check(), Finding::NotInLog { shard, number: link.number });
        let mut twice = file.clone();
        twice.records.insert(at, twice.records[at].clone());
        found(&twice.check(), Finding::Order { line: u64::try_from(at).unwrap() + 3 });
        if at > 0 {
            let mut swapped = file.clone();
            swapped.records.swap(at - 1, at);
            assert!(!swapped.check().is_complete());
            // The places stay, and the records change them.
            let mut swapped = file.clone();
            let other = swapped.records[at - 1].record.clone();
            swapped.records[at - 1].record = std::mem::replace(&mut swapped.records[at].record, other);
            assert!(!swapped.check().is_complete());
        }
    }
}

#[tokio::test]
async fn what_is_not_the_customers_is_noticed() {
    let world = World::busy().await;
    let (file, other) = (world.view(ACME).await, world.view(GLOBEX).await);
    // With a good proof of it.
    let mut smuggled = file.clone();
    let last = file.records.last().unwrap().index;
    let one = other.records.iter().find(|record| record.shard == 2 && record.index > last).unwrap();
    smuggled.records.push(one.clone());
    let line = u64::try_from(smuggled.records.len()).unwrap() + 1;
    assert_eq!(smuggled.check().findings, [Finding::Customer { line }]);
    let mut renamed = other.clone();
    renamed.header.customer = ACME;
    assert!(!renamed.check().is_complete());

    let both = [file.bytes(), other.bytes()].concat();
    found(&checked(&both), Finding::Line { line: u64::try_from(file.records.len()).unwrap() + 2 });
    let twice = [file.bytes(), file.bytes()].concat();
    assert!(!checked(&twice).is_complete());
    let mut joined = file.clone();
    joined.records.extend(file.records.clone());
    assert!(!joined.check().is_complete());
}

#[tokio::test]
async fn an_old_view_is_complete_up_to_its_time_and_no_further() {
    let world = World::busy().await;
    let old_view = world.logs[0].record_view(ACME).await.unwrap();
    world.publish().await;
    let old = world.export(&old_view).await;
    for shard in 0..3 {
        world.work(shard, ACME, 2).await;
    }
    let new = world.view(ACME).await;
    assert!(old.check().is_complete() && new.check().is_complete());
    // The old one beside the newer checkpoints: its proofs lead elsewhere.
    for shard in 0..3 {
        let mut dressed = old.clone();
        dressed.header.shards[shard].checkpoint = new.header.shards[shard].checkpoint.clone();
        found(&dressed.check(), Finding::Tree { shard: u16::try_from(shard).unwrap() });
    }
    // With proofs that lead there, it is as good as it was, and its time is the old one.
    let again = world.export(&old_view).await;
    let report = again.check();
    assert!(report.is_complete(), "{:?}", report.findings);
    assert_ne!(again.header, old.header);
    assert_eq!(report.until, old.check().until);
    assert!(report.until < new.check().until);
    // The newer one without what was made since.
    let mut short = new.clone();
    short.records.retain(|record| old.records.iter().any(|other| other.record == record.record));
    assert!(!short.check().is_complete());
    // The newer one that ends with the older view.
    let mut stale = new.clone();
    let end = old.records.iter().rposition(|record| record.shard == 0).unwrap();
    let last = old.records[end].index;
    stale.records.retain(|record| record.shard != 0 || record.index <= last);
    assert!(!stale.check().is_complete());
    for shard in 0..3 {
        stale.header.shards[usize::from(shard)].tree = old.header.shards[usize::from(shard)].tree;
        found(&stale.check(), Finding::Tree { shard });
    }
}

/// Between the count and the checkpoint the log goes on.
#[tokio::test]
async fn later_records_are_allowed_and_said() {
    let world = World::busy().await;
    let view = world.logs[0].record_view(ACME).await.unwrap();
    for shard in 0..3 {
        world.work(shard, ACME, 1).await;
        world.work(shard, GLOBEX, 3).await;
    }
    let sizes = [world.leaves(0).await.1.len(), world.leaves(1).await.1.len(), world.leaves(2).await.1.len()];
    let file = by_hand(&world, &view, sizes).await;
    let report = file.check();
    assert!(report.is_complete(), "{:?}", report.findings);
    assert_eq!(report.shards.iter().map(|shard| shard.later).collect::<Vec<_>>(), [1, 2, 2]);
    // A gap is a gap there too.
    let mut gap = file.clone();
    let number = file.record(file.records.len() - 2).chain.unwrap().number;
    gap.records.remove(file.records.len() - 2);
    found(&gap.check(), Finding::Missing { shard: 2, first: number, last: number });
    // What is handed out by us ends with the count.
    world.publish().await;
    let exported = world.export(&view).await;
    assert!(exported.check().is_complete());
    assert_eq!(exported.records.len(), file.records.len() - 4);
}

#[tokio::test]
async fn nothing_is_believed_without_the_logs_key() {
    let file = World::busy().await.view(ACME).await;
    let other: PublicKey = witness("w", 77).verifier().public().to_owned();
    let report = check(file.bytes().as_slice(), &Trust::new(other, Vec::new(), 0).unwrap()).unwrap();
    found(&report, Finding::LogKey);
    for shard in 0..3 {
        found(&report, Finding::Checkpoint { shard });
    }
    // A shard's checkpoint does not do for another's.
    let mut mixed = file.clone();
    mixed.header.shards[1].checkpoint = file.header.shards[2].checkpoint.clone();
    found(&mixed.check(), Finding::Checkpoint { shard: 1 });
    let mut elsewhere = file.clone();
    elsewhere.header.store = StoreId::from_bytes([8; 16]);
    found(&elsewhere.check(), Finding::Checkpoint { shard: 0 });
    let mut claimed = file.clone();
    claimed.header.log_key = other;
    assert_eq!(claimed.check().findings, [Finding::LogKey]);
}

#[tokio::test]
async fn a_quorum_of_witnesses_is_called_for() {
    let file = World::busy().await.view(ACME).await;
    let keys = [witness("one.example/w", 41), witness("two.example/w", 42), witness("three.example/w", 43)];
    let witnesses: Vec<VerifierKey> = keys.iter().map(NamedKey::cosigner).collect();
    let with = |quorum| Trust::new(authority(), witnesses.clone(), quorum).unwrap();
    let at = Timestamp::from_micros(1_800_000_123_000_000).unwrap();
    let cosigned = |shard: usize, keys: &[&NamedKey]| {
        let mut file = file.clone();
        let text = &mut file.header.shards[shard].checkpoint;
        let mut signed = SignedCheckpoint::parse(text.as_bytes()).unwrap();
        for key in keys {
            signed.add(key.cosign(&signed.checkpoint().clone(), at)).unwrap();
        }
        *text = signed.to_string();
        file.bytes()
    };
    let two = cosigned(0, &[&keys[0], &keys[2]]);
    let report = check(two.as_slice(), &with(2)).unwrap();
    assert!(report.is_complete(), "{:?}", report.findings);
    let names: Vec<_> = report.cosigned.iter().map(|(name, at)| (name.as_str(), *at)).collect();
    assert_eq!(names, [("one.example/w", at), ("three.example/w", at)]);
    found(&check(two.as_slice(), &with(3)).unwrap(), Finding::Quorum { found: 2, quorum: 3 });
    // Another shard's checkpoint is not what witnesses see.
    let elsewhere = cosigned(1, &[&keys[0], &keys[1]]);
    found(&check(elsewhere.as_slice(), &with(1)).unwrap(), Finding::Quorum { found: 0, quorum: 1 });
    // One who signs under another's name.
    let false_one = cosigned(0, &[&keys[0]]);
    let text = String::from_utf8(false_one).unwrap();
    let liar = witness("one.example/w", 41);
    let good = SignedCheckpoint::parse(file.header.shards[0].checkpoint.as_bytes()).unwrap();
    let cosignature =
        |micros| liar.cosign(good.checkpoint(), Timestamp::from_micros(micros).unwrap()).to_string();
    let (begin, end) = (cosignature(1_800_000_123_000_000), cosignature(1_800_000_124_000_000));
    // The time of one with the signature of the other.
    assert!(text.contains(&begin));
    let parts = |line: &str| line.rsplit_once(' ').map(|(name, base64)| (name.to_owned(), base64.to_owned()));
    let ((name, one), (_, two)) = (parts(&begin).unwrap(), parts(&end).unwrap());
    let spliced = text.replace(&begin, &format!("{name} {}{}", &one[..16], &two[16..]));
    let report = check(spliced.as_bytes(), &with(0)).unwrap();
    found(&report, Finding::Cosignature);

    let invalid = |witnesses, quorum| Trust::new(authority(), witnesses, quorum).unwrap_err().kind();
    assert_eq!(invalid(witnesses.clone(), 4), ErrorKind::InvalidInput);
    assert_eq!(invalid(vec![witnesses[0].clone(), witnesses[0].clone()], 2), ErrorKind::InvalidInput);
    assert_eq!(invalid(vec![keys[0].verifier()], 0), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn the_first_line_cannot_say_another_tree() {
    let file = World::busy().await.view(ACME).await;
    for shard in 0..3 {
        // A smaller tree, consistent with the checkpoint, that the view does not name.
        let mut other = file.clone();
        other.header.shards[shard].tree = TreeHead { size: 0, root: Hash::of(b"") };
        other.header.shards[shard].consistency = Vec::new();
        found(&other.check(), Finding::Counted { shard: u16::try_from(shard).unwrap() });
    }
}

#[tokio::test]
async fn lines_have_one_form() {
    let file = World::busy().await.view(ACME).await;
    let text = String::from_utf8(file.bytes()).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let report = |text: &str| check(text.as_bytes(), &trust()).map(|report| report.is_complete());
    assert!(report(&text).unwrap());
    for refused in ["", "\n", "{}\n", lines[1], &text[..lines[0].len() - 1], &text.replacen(',', ", ", 1)] {
        assert_eq!(report(refused).unwrap_err().kind(), ErrorKind::Integrity);
    }
    let later = text.replacen("view-v1", "view-v2", 1);
    assert_eq!(report(&later).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
    let twice = text.replacen("\"shards\":[", "\"shards\":[],\"shards\":[", 1);
    assert_eq!(report(&twice).unwrap_err().kind(), ErrorKind::Integrity);
    for changed in [
        text[..text.len() - 1].to_owned(),
        format!("{text}\n"),
        text.replacen("\n{\"shard\":0,", "\n{\"shard\":0, ", 1),
        text.replacen("\n{\"shard\":0,", "\n\n{\"shard\":0,", 1),
        text.replacen("\n{\"shard\":0,", "\n{\"more\":0,\"shard\":0,", 1),
        text.replacen("{\\\"nonce\\\"", "{ \\\"nonce\\\"", 1),
        text.replace('\n', "\r\n").replacen("\r\n", "\n", 1),
    ] {
        assert_ne!(changed, text);
        assert!(!report(&changed).unwrap(), "{}", &changed[changed.len() - 40..]);
    }
    // Any byte of a short file.
    let short = World::new().await.view(INITECH).await.bytes();
    assert!(checked(&short).is_complete());
    for at in 0..short.len() {
        let mut bytes = short.clone();
        bytes[at] ^= 1;
        assert!(!check(bytes.as_slice(), &trust()).is_ok_and(|report| report.is_complete()), "{at}");
        assert!(!check(&short[..at], &trust()).is_ok_and(|report| report.is_complete()), "{at}");
    }
}

#[tokio::test]
async fn very_many_findings_are_counted() {
    let file = World::busy().await.view(ACME).await;
    let rubbish = [file.bytes(), b"x\n".repeat(1000)].concat();
    let report = checked(&rubbish);
    assert_eq!((report.findings.len(), report.more), (100, 900));
}

#[tokio::test]
async fn a_view_is_made_of_what_is_published() {
    let world = World::busy().await;
    let refused = async |view: &View| world.publisher().view(view).await.err().unwrap();
    let view = world.logs[0].record_view(ACME).await.unwrap();
    let error = refused(&view).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.chain().contains("publish it first"), "{}", error.chain());
    world.publish().await;
    assert!(world.export(&view).await.check().is_complete());
    // The next one is not covered by what is published, in the first shard at least.
    let next = world.logs[0].record_view(ACME).await.unwrap();
    assert_eq!(refused(&next).await.kind(), ErrorKind::Unavailable);
    // One that was never recorded.
    let mut invented = next.clone();
    invented.shards[1].records -= 1;
    assert_eq!(refused(&invented).await.kind(), ErrorKind::NotFound);
    // The tiles are gone.
    world.publish().await;
    let stored: Vec<_> = world.storage.list(None).try_collect().await.unwrap();
    for meta in stored.iter().filter(|meta| meta.location.as_ref().starts_with("shard/0002/tile/0")) {
        world.storage.delete(&meta.location).await.unwrap();
    }
    assert_eq!(refused(&next).await.kind(), ErrorKind::Integrity);
}

/// Many records in many commits, most of them others'.
#[tokio::test]
async fn spans_without_the_customer_are_passed_over() {
    let world = World::new().await;
    for round in 0..40 {
        world.work(0, GLOBEX, 7).await;
        if round % 13 == 4 {
            world.work(0, ACME, 2).await;
        }
    }
    let file = world.view(ACME).await;
    assert_eq!(file.records.len(), 13);
    assert!(file.check().is_complete());
    assert_eq!(world.view(INITECH).await.records.len(), 1);
}

/// What has aged out of `wal/` is in segments, and a view has it all the same.
#[tokio::test]
async fn a_view_has_what_is_kept_in_segments_only() {
    let world = World::busy().await;
    for _ in 0..3 {
        world.clock.0.fetch_add(86_400_000_000, SeqCst);
        for shard in 0..3 {
            world.work(shard, ACME, 1).await;
            world.work(shard, GLOBEX, 1).await;
        }
    }
    let before = world.view(ACME).await;
    let publisher = world.publisher();
    let mut aged = 0;
    for shard in 0..3 {
        for segment in publisher.segment_days(shard).await.unwrap() {
            for seq in segment.first..=segment.last {
                world.storage.delete(&Object::Commit { shard, seq }.path()).await.unwrap();
                aged += 1;
            }
        }
    }
    assert!(aged > 30, "{aged}");
    let file = world.view(ACME).await;
    let report = file.check();
    assert!(report.is_complete(), "{:?}", report.findings);
    assert_eq!(file.records.len(), before.records.len() + 1);
}
