//! Years of a store, a day at a time, whose oldest days of the log go as soon as they may: what
//! is sealed is swept, restored and certified all the same, and nothing of that takes longer as the
//! years go by.

#[path = "common/calendar.rs"]
mod calendar;
#[path = "common/mod.rs"]
mod common;
#[path = "common/destroy.rs"]
mod destroy;

use std::collections::BTreeMap;

use calendar::{Counting, Storage};
use common::{Raw, signer};
use destroy::{DAY, Vault, access, opens, seal};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use strongroom::ErrorKind;
use strongroom::audit::base::extract::shelves;
use strongroom::audit::history::{History, Need};
use strongroom::audit::layout::{CertificateStage, Object};
use strongroom::audit::query::{Filter, operations};
use strongroom::audit::verify::{Options, Report, Severity, verify};
use strongroom::audit::view::{self, Trust};
use strongroom::id::BlobId;
use strongroom::restore::{RestoreOptions, Selection};
use strongroom::room::{Customer, KeyChoice, Strongroom};
use strongroom::shred::epoch::FinishOptions;
use strongroom::store::Storages;
use strongroom::time::{Clock, Day};

/// How often something is sealed, and epochs rotate, in days.
const MONTH: u32 = 30;

/// A store whose blobs are kept for so many days.
struct Years {
    vault: Vault,
    acme: Customer,
    /// What was sealed, and until when it is kept.
    sealed: BTreeMap<BlobId, Day>,
    days: u32,
    /// Whether old days of the log are removed.
    removes: bool,
}

/// How many objects of the audit storage each reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Costs {
    sweep: u64,
    restore: u64,
    verify: u64,
}

impl Years {
    async fn begin(kept: u32) -> Self {
        let vault = Vault::new().await;
        let acme = vault.customer("acme", kept).await;
        Self { vault, acme, sealed: BTreeMap::new(), days: 0, removes: true }
    }

    fn today(&self) -> Day {
        self.vault.clock.now().day()
    }

    async fn run(&mut self, days: u32) {
        for _ in 0..days {
            if self.days.is_multiple_of(MONTH) {
                self.month().await;
            }
            self.vault.clock.pass(DAY);
            self.days += 1;
            self.vault.room.maintain_log().await.unwrap();
            if self.days.is_multiple_of(7) {
                self.vault.sweep().await;
                let finish = FinishOptions::default();
                let steps = self.vault.room.finish_epochs(&access(), &self.vault.destroyers, finish).await;
                steps.unwrap().into_iter().for_each(|step| drop(step.result.unwrap()));
            }
        }
    }

    /// What happens once a month: two seals, one of them extended, a new epoch, and everything
    /// goes of the log that may.
    async fn month(&mut self) {
        if self.days > 0 {
            self.vault.room.rotate_epoch(&access(), KeyChoice::New("local".into())).await.unwrap();
        }
        self.vault.room.remove_remains(&access(), self.acme.id()).await.unwrap();
        for extended in [false, true] {
            let blob = seal(&self.acme, &format!("{} {extended}", self.days)).await;
            let mut until = blob.day();
            if extended {
                until = until.plus(MONTH);
                self.acme.extend(blob, until).await.unwrap();
            }
            self.sealed.insert(blob, until);
        }
        if self.removes {
            for path in self.removed().await {
                self.vault.raw.audit.delete(&path).await.unwrap();
            }
        }
    }

    /// Has all days removed that may go: what goes then, in the order in which it goes from a
    /// directory.
    async fn removed(&self) -> Vec<Path> {
        let mut paths = Vec::new();
        for gone in self.vault.room.remove_days(&access(), self.vault.clock.now()).await.unwrap() {
            let commits = self.commits(gone.base.shard).await.into_iter();
            paths.extend(commits.filter(|path| match Object::at(path) {
                Some(Object::Commit { seq, .. }) => seq < gone.base.commits,
                _ => false,
            }));
            paths.extend(gone.segments.iter().map(|path| Path::from(path.as_str())));
        }
        paths
    }

    async fn verify(&self, audit: Storage) -> Report {
        let mut options = Options::new(self.vault.clock.now());
        options.authority = Some(self.vault.room.log().authority());
        verify(audit, options).await.unwrap()
    }

    async fn commits(&self, shard: u16) -> Vec<Path> {
        let folder = Path::from(format!("wal/{shard:04x}"));
        let listed: Vec<_> = self.vault.raw.audit.list(Some(&folder)).try_collect().await.unwrap();
        listed.into_iter().map(|meta| meta.location).collect()
    }

    /// What another node reads of the audit storage for the daily work.
    async fn costs(&self) -> Costs {
        let raw: Storage = self.vault.raw.audit.clone();
        let counting = Counting::over(&raw);
        let audit: Storage = counting.clone();
        let Raw { blobs, keys, .. } = &self.vault.raw;
        let storages = Storages::from_parts(blobs.clone(), keys.clone(), audit.clone());
        let room = self.vault.node_over(storages).await;
        let mut costs = Costs::default();
        let asked = || {
            let folders = counting.folders();
            // Certificates and the ends of epochs are as many as there were.
            let papers: u64 = ["certificate", "epoch"].iter().filter_map(|of| folders.get(*of)).sum();
            // Where the log ends is searched for by existence checks, more or fewer.
            counting.take().objects - papers
        };
        counting.take();
        drop(room.sweep(&access()).await.unwrap());
        costs.sweep = asked();
        let restored = self.restore(&room).await;
        // Those whose key is in the window are restored too.
        assert!((0..=3).contains(&(restored - self.live().count())), "{restored}");
        costs.restore = asked();
        let report = self.verify(audit).await;
        assert!(report.is_ok(), "{:#?}", report.findings);
        costs.verify = asked();
        room.close().await.unwrap();
        costs
    }

    async fn restore(&self, room: &Strongroom) -> usize {
        let to = tempfile::tempdir().unwrap();
        let acme = room.customer(&"acme".parse().unwrap(), access()).await.unwrap();
        let restored = acme
            .restore(&to.path().join("out"), &Selection::default(), RestoreOptions::default(), &|_| {})
            .await
            .unwrap();
        assert_eq!(restored.counts.failed, 0);
        usize::try_from(restored.counts.restored).unwrap()
    }

    fn live(&self) -> impl Iterator<Item = &BlobId> {
        let today = self.today();
        self.sealed.iter().filter(move |(_, until)| **until >= today).map(|(blob, _)| blob)
    }

    /// Everything holds at the end: what lives opens, what is due is destroyed and certified as
    /// final, and the customer's view is complete.
    async fn check(&self) {
        for blob in self.live() {
            opens(&self.acme, *blob).await;
        }
        let mut stages = BTreeMap::<&str, u32>::new();
        let listed: Vec<_> =
            self.vault.raw.audit.list(Some(&Path::from("certificate"))).try_collect().await.unwrap();
        for meta in listed {
            if let Some(Object::Certificate { id, stage }) = Object::at(&meta.location) {
                self.vault.room.certificate(id, stage).await.unwrap().unwrap();
                *stages.entry(stage.as_str()).or_default() += 1;
            }
        }
        // The epochs of the newest drops still wait.
        let [interim, last] =
            CertificateStage::ALL.map(|stage| stages.get(stage.as_str()).copied().unwrap_or(0));
        let due = self.sealed.values().filter(|until| until.plus(8) < self.today()).count();
        assert!(due > 0 && last > 0, "{due} {stages:?}");
        assert!(last <= interim && interim - last <= 6, "{stages:?}");

        let view = self.vault.room.customer_view(self.acme.id()).await.unwrap();
        let pieces: Vec<_> = view.pieces.try_collect().await.unwrap();
        let trust = Trust::new(self.vault.room.log().authority(), Vec::new(), 0).unwrap();
        let report = view::check(&*pieces.concat(), &trust).unwrap();
        assert!(report.is_complete(), "{:?}", report.findings);
        assert!(report.shards.iter().any(|shard| shard.removed > 0), "{:?}", report.shards);
    }
}

/// Years of 360 days of a store, where each blob is kept for so long: the costs at the end of each.
async fn years(kept: u32, years: u32) -> Vec<Costs> {
    let mut run = Years::begin(kept).await;
    let mut costs = Vec::new();
    for _ in 0..years {
        run.run(12 * MONTH).await;
        costs.push(run.costs().await);
    }
    run.check().await;
    costs
}

/// No more than what a node asks once in a while makes the difference.
fn assert_same(what: &str, early: u64, late: u64, all: &[Costs]) {
    assert!(late <= early + early / 4, "{what}: {all:?}");
}

#[tokio::test]
async fn years_pass_and_the_first_days_of_the_log_go() {
    let costs = years(200, 2).await;
    assert_same("sweep", costs[0].sweep, costs[1].sweep, &costs);
    assert_same("restore", costs[0].restore, costs[1].restore, &costs);
}

/// Whoever asks the bases gets what the log has, and each operation once.
#[tokio::test]
async fn bases_keep_what_the_log_has() {
    let mut run = Years { removes: false, ..Years::begin(20).await };
    run.run(2 * MONTH).await;
    let reader = run.vault.room.log_reader();
    let all: Vec<_> = operations(&reader, &Filter::default(), None).try_collect().await.unwrap();
    let kept = all.into_iter().filter(|operation| !shelves(operation.intent()).is_empty());
    let mut kept: Vec<_> = kept.collect();
    let history = History::open(&reader).await.unwrap();
    let mut found: Vec<_> = history.operations(None, &Need::All).try_collect().await.unwrap();
    for operations in [&mut kept, &mut found] {
        operations.sort_by_key(|operation| operation.intent().request);
    }
    assert!(kept.len() > 30, "{}", kept.len());
    assert_eq!(found, kept);
    // By shelves, one by one.
    let mut filed = BTreeMap::<_, usize>::new();
    for operation in &kept {
        let customer = operation.intent().customer;
        shelves(operation.intent())
            .into_iter()
            .for_each(|shelf| *filed.entry((customer, shelf)).or_default() += 1);
    }
    for ((customer, shelf), count) in filed {
        let need = Need::Shelves([shelf].into());
        let found: Vec<_> = history.operations(customer, &need).try_collect().await.unwrap();
        assert_eq!(found.len(), count, "{customer:?} {shelf:?}");
    }
}

/// Wherever a removal stops, what is left is whole; and a base that was recorded and not stored is
/// made again, the same.
#[tokio::test]
async fn wherever_a_removal_stops_the_log_is_whole() {
    let mut run = Years { removes: false, ..Years::begin(20).await };
    run.run(12).await;
    let last = |objects: Vec<(Path, Vec<u8>)>| {
        let of = |prefix| objects.iter().rfind(|(path, _)| path.as_ref().starts_with(prefix)).cloned();
        [of("base/0000/").unwrap(), of("extract/0000/").unwrap()]
    };
    let newest = last(common::objects(&run.vault.raw.audit).await);
    let base = Object::at(&newest[0].0);
    for (path, _) in &newest {
        let object = Object::at(path);
        let is_newest = matches!((object, base), (Some(Object::Extract { commits, .. }), Some(Object::Base { commits: of, .. })) if commits == of);
        if object == base || is_newest {
            run.vault.raw.audit.delete(path).await.unwrap();
        }
    }
    run.vault.room.maintain_log().await.unwrap();
    assert_eq!(last(common::objects(&run.vault.raw.audit).await), newest);

    let gone = run.removed().await;
    assert!(gone.len() > 10, "{gone:?}");
    for path in gone {
        run.vault.raw.audit.delete(&path).await.unwrap();
        let left: Storage = run.vault.raw.audit.clone();
        // Commits went early, by the times in them.
        let report = run.verify(left).await;
        let early = |path: &str| path.starts_with("wal/");
        let wrong = report.findings.iter().filter(|finding| finding.severity == Severity::Wrong);
        assert!(wrong.into_iter().all(|finding| early(&finding.path)), "{path}: {:#?}", report.findings);
    }
    let report = run.verify(run.vault.raw.audit.clone()).await;
    assert!(report.is_ok(), "{:#?}", report.findings);
}

/// What somebody took away at the beginning of the log is not put on record as removed by the rules.
#[tokio::test]
async fn what_is_only_missing_is_never_recorded_as_removed() {
    let mut run = Years { removes: false, ..Years::begin(20).await };
    run.run(12).await;
    let audit = &run.vault.raw.audit;
    let objects = common::objects(audit).await;
    let bases = objects.iter().filter_map(|(path, _)| match Object::at(path) {
        Some(Object::Base { shard: 0, commits }) => Some(commits),
        _ => None,
    });
    let begin = bases.min().unwrap();
    for (path, _) in &objects {
        let goes = match Object::at(path) {
            Some(Object::Commit { shard: 0, seq }) => seq < begin,
            Some(Object::Segment(name)) => name.shard == 0 && name.last < begin,
            _ => false,
        };
        if goes {
            audit.delete(path).await.unwrap();
        }
    }
    let error = run.vault.room.customer_view(run.acme.id()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Integrity, "{}", error.chain());
    let report = run.verify(audit.clone()).await;
    let first = report.findings.iter().find(|finding| finding.path == "wal/0000/0000000000000000");
    assert_eq!(first.map(|finding| finding.severity), Some(Severity::Wrong), "{:#?}", report.findings);
}

/// Twelve years under `P10Y`. From the tenth on as much is destroyed as is sealed.
#[tokio::test]
#[ignore = "takes a quarter of an hour: run it with --ignored"]
async fn twelve_years_pass() {
    let costs = years(3652, 12).await;
    println!("{costs:#?}");
    assert_same("sweep", costs[0].sweep, costs[11].sweep, &costs);
    assert_same("restore", costs[10].restore, costs[11].restore, &costs);
    assert_same("verify", costs[10].verify, costs[11].verify, &costs);
}
