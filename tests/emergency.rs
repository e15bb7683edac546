//! Emergency access: reading while the audit log cannot be written, what is on record of it,
//! and what stays refused.

#[path = "common/faults.rs"]
mod faults;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use faults::FaultStore;
use futures_util::TryStreamExt;
use strongroom::ErrorKind;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::{Action, Event, Intent, Outcome, OutcomeResult};
use strongroom::envelope::Metadata;
use strongroom::id::{CustomerId, EmergencyId, RequestId};
use strongroom::ring::Tenancy;
use strongroom::room::{
    ByteRange, Customer, Emergency, Folded, KeyChoice, NewCustomer, Options, SealOptions, Strongroom,
};
use strongroom::time::{Clock, Timestamp};
use tempfile::TempDir;
use world::{World, access, add, pattern, records};

const DEADLINE: Duration = Duration::from_millis(300);
const HOUR: Duration = Duration::from_secs(3600);
/// Beyond the term of cached keys.
const TERM: Duration = Duration::from_secs(301);

/// A store, and a node of it that has a sink.
struct Place {
    world: World,
    room: Strongroom,
    acme: Customer,
    directory: TempDir,
}

impl Place {
    async fn new() -> Self {
        let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
        world.kms.hurry();
        let room = world.init(options(&world, &directory.path().join("sink"))).await.unwrap();
        let acme = add(&room, "acme").await.unwrap();
        Self { world, room, acme, directory }
    }

    fn sink(&self) -> PathBuf {
        self.directory.path().join("sink")
    }

    async fn declare(&self) -> Emergency {
        self.room.declare_emergency(&doctor(), self.acme.id(), HOUR).await.unwrap()
    }

    /// The customer, for the one who declared it.
    async fn reader(&self, emergency: EmergencyId) -> Customer {
        let access = doctor().in_emergency(emergency);
        self.room.customer_by_id(self.acme.id(), access).await.unwrap()
    }

    /// Ends the node, and begins another with its sink.
    async fn restarted(self) -> Self {
        let Self { world, room, acme, directory } = self;
        room.close().await.unwrap();
        drop((room, acme));
        let options = options(&world, &directory.path().join("sink"));
        // Whatever the node still had to do lets go of the directory when it is done.
        let room = in_the_end(async || world.node(options.clone()).await).await;
        let acme = room.customer(&world::label("acme"), access()).await.unwrap();
        Self { world, room, acme, directory }
    }
}

fn options(world: &World, sink: &Path) -> Options {
    let mut options = world.options();
    options.log_deadline = DEADLINE;
    options.emergency_directory = Some(sink.to_owned());
    options
}

fn person(id: &str, purpose: Purpose) -> Access {
    Access::new(Principal::person(id).unwrap(), purpose)
}

fn doctor() -> Access {
    person("p-17", Purpose::EmergencyTreatment)
}

fn officer() -> Access {
    person("p-20", Purpose::Compliance)
}

fn named() -> SealOptions {
    SealOptions::new().metadata(Metadata::new().with_name("a name".parse().unwrap()))
}

/// Asks again until it succeeds.
async fn in_the_end<T>(mut ask: impl AsyncFnMut() -> strongroom::Result<T>) -> T {
    let mut last = None;
    for _ in 0..200 {
        match ask().await {
            Ok(done) => return done,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{last:?}");
}

async fn read(customer: &Customer, blob: strongroom::id::BlobId) -> strongroom::Result<bytes::Bytes> {
    customer.open(blob).await?.bytes(1 << 24).await
}

async fn kind<T>(refused: impl Future<Output = strongroom::Result<T>>) -> ErrorKind {
    refused.await.map(drop).unwrap_err().kind()
}

/// What the log has of an emergency, each intent once and with its one outcome.
async fn in_log(room: &Strongroom, emergency: EmergencyId) -> Vec<(Intent, Outcome)> {
    let records = records(room).await;
    let mut outcomes: BTreeMap<RequestId, Outcome> = BTreeMap::new();
    for record in &records {
        if let Event::Outcome(outcome) = &record.event {
            assert!(outcomes.insert(outcome.request, outcome.clone()).is_none(), "two outcomes");
        }
    }
    let mut found = Vec::new();
    for record in &records {
        match &record.event {
            Event::Intent(intent) if intent.emergency.as_deref().is_some_and(|of| of.id == emergency) => {
                let outcome = outcomes.remove(&intent.request).expect("one outcome, for one intent");
                found.push((intent.clone(), outcome));
            }
            _ => {}
        }
    }
    found
}

/// Of those what the sink told.
fn told(found: &[(Intent, Outcome)]) -> Vec<&(Intent, Outcome)> {
    let reads = |intent: &Intent| intent.action != Action::EmergencyDeclare;
    let told = |intent: &Intent| intent.emergency.as_deref().is_some_and(|of| of.at.is_some());
    found.iter().filter(|(intent, _)| reads(intent) && told(intent)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_fails_a_person_reads_and_all_of_it_is_folded_once() {
    type Fault = fn(&FaultStore);
    let black_hole: Fault = |audit| {
        audit.hang_writes();
        audit.hang_reads();
    };
    let faults: [(&str, Fault); 4] = [
        ("denied", FaultStore::deny_all),
        ("full disk", FaultStore::fill_disk),
        ("black hole", black_hole),
        ("down", FaultStore::take_down),
    ];
    for (name, fault) in faults {
        let place = Place::new().await;
        let Place { world, room, acme, .. } = &place;
        let bytes = pattern(3_000_000);
        let blob = acme.seal(bytes.clone(), named()).await.unwrap().id;

        fault(&world.audit);
        let undeclared = EmergencyId::from_bytes([7; 16]);
        let nobody = place.reader(undeclared).await;
        assert_eq!(kind(read(&nobody, blob)).await, ErrorKind::AuditUnavailable, "{name}");
        let emergency = place.declare().await;
        assert_eq!((room.unfolded_emergencies(), &emergency.by), (1, &doctor().principal));
        let reader = place.reader(emergency.id).await;
        assert_eq!(read(&reader, blob).await.unwrap(), bytes, "{name}");
        let range = reader.open_range(blob, ByteRange::Inclusive(16_000, 17_000)).await.unwrap();
        assert_eq!(range.bytes(2000).await.unwrap(), bytes[16_000..=17_000]);
        assert_eq!(reader.stat(blob).await.unwrap().bytes, 3_000_000);
        assert_eq!(reader.verify(blob).await.unwrap().bytes, 3_000_000);
        assert_eq!(reader.find(&"a name".parse().unwrap()).await.unwrap(), [blob]);
        let listed: Vec<_> = reader.list().try_collect().await.unwrap();
        assert_eq!(listed.len(), 1);
        reader.stat_listed(blob).await.unwrap();

        // With nothing cached, the KMS unwraps under the emergency.
        world.clock.advance(TERM);
        world.kms.forget();
        assert_eq!(read(&place.reader(emergency.id).await, blob).await.unwrap(), bytes, "{name}");
        let unwrapped = world.kms.requests();
        assert_eq!(unwrapped.len(), 2, "{name}: an epoch's key and a data key");
        // And it lets nothing else through.
        assert_eq!(kind(acme.stat(blob)).await, ErrorKind::AuditUnavailable);
        assert_eq!(kind(reader.seal(bytes.clone(), SealOptions::new())).await, ErrorKind::AuditUnavailable);
        assert_eq!(kind(reader.extend(blob, blob.day().plus(9))).await, ErrorKind::AuditUnavailable);
        assert_eq!(kind(room.fold_emergencies(&access())).await, ErrorKind::AuditUnavailable);

        world.audit.heal();
        let folded = in_the_end(async || room.fold_emergencies(&access()).await).await;
        let folded = *folded[&emergency.id].as_ref().unwrap();
        // Seven reads, and what was unwrapped.
        assert_eq!((folded.written, folded.done), (9, false), "{name}");
        let found = in_log(room, emergency.id).await;
        let told = told(&found);
        let actions: Vec<_> = told.iter().map(|(intent, _)| intent.action).collect();
        let expected = [
            Action::Open,
            Action::OpenRange,
            Action::Stat,
            Action::Verify,
            Action::Find,
            Action::List,
            Action::KmsDecrypt,
            Action::Open,
            Action::KmsDecrypt,
        ];
        assert_eq!(actions, expected, "{name}");
        assert!(told.iter().all(|(_, outcome)| outcome.result == OutcomeResult::Ok));
        assert_eq!(told[0].1.bytes, Some(3_000_000));
        assert!(unwrapped.iter().all(|request| told.iter().any(|(intent, _)| intent.request == *request)));
        let opening = told[7].0.request;
        assert_eq!(told[8].0.cause, Some(opening), "it is known why the KMS was asked");
        for (intent, _) in &told {
            let at = intent.emergency.as_deref().unwrap().at.unwrap();
            assert!(emergency.from <= at && at < emergency.until);
            assert_eq!(
                (&intent.principal, intent.purpose),
                (&doctor().principal, Purpose::EmergencyTreatment)
            );
        }
        assert!(told[7].0.emergency.as_deref().unwrap().at > told[0].0.emergency.as_deref().unwrap().at);

        // Again, nothing is written twice; and when it is over, that is on record.
        let again = room.fold_emergencies(&access()).await.unwrap();
        assert_eq!(again[&emergency.id].as_ref().unwrap().written, 0);
        world.clock.advance(HOUR);
        let last = room.fold_emergencies(&access()).await.unwrap();
        let last = *last[&emergency.id].as_ref().unwrap();
        assert_eq!((last.written, last.done, room.unfolded_emergencies()), (0, true, 0));
        assert!(room.fold_emergencies(&access()).await.unwrap().is_empty());
        assert!(place.sink().join(format!("{}.folded", emergency.id)).exists());
        let listed = room.emergencies(&officer(), None).await.unwrap();
        let [listed] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((listed.id, listed.uses, listed.folded), (emergency.id, 7, true), "{name}");
        assert_eq!((listed.from, listed.until), (emergency.from, emergency.until));
        room.close().await.unwrap();
        world.verify_log(room).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_log_can_be_written_everything_is_in_it_at_once() {
    let place = Place::new().await;
    let blob = place.acme.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    let emergency = place.declare().await;
    let reader = place.reader(emergency.id).await;
    read(&reader, blob).await.unwrap();
    place.room.log().flush().await.unwrap();
    let found = in_log(&place.room, emergency.id).await;
    let actions: Vec<_> = found.iter().map(|(intent, _)| intent.action).collect();
    assert_eq!(actions, [Action::EmergencyDeclare, Action::Open]);
    assert!(told(&found).is_empty());
    let declared = found[0].0.emergency.as_deref().unwrap();
    assert_eq!((declared.at, declared.until), (Some(emergency.from), Some(emergency.until)));
    let file = fs::read_to_string(place.sink().join(emergency.id.to_string())).unwrap();
    assert_eq!(file.lines().count(), 1, "the sink has the declaration alone");
    place.world.clock.advance(HOUR);
    let folded = place.room.fold_emergencies(&access()).await.unwrap();
    assert_eq!(folded[&emergency.id].as_ref().unwrap().written, 0);
    let declarations = in_log(&place.room, emergency.id).await;
    let actions: Vec<_> = declarations.iter().map(|(intent, _)| intent.action).collect();
    assert_eq!(actions, [Action::EmergencyDeclare, Action::Open, Action::EmergencyFold]);
    place.world.verify_log(&place.room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_declared_by_a_person_for_emergency_treatment_and_a_bounded_time() {
    let place = Place::new().await;
    let (room, id) = (&place.room, place.acme.id());
    let service = Access::new(Principal::service("pacs").unwrap(), Purpose::EmergencyTreatment);
    assert_eq!(kind(room.declare_emergency(&service, id, HOUR)).await, ErrorKind::Denied);
    let unix = Access::new(Principal::Unix(0), Purpose::EmergencyTreatment);
    assert_eq!(kind(room.declare_emergency(&unix, id, HOUR)).await, ErrorKind::Denied);
    let denials = records(room).await.into_iter().filter(|record| match &record.event {
        Event::Outcome(outcome) => outcome.result == OutcomeResult::Denied,
        _ => false,
    });
    assert_eq!(denials.count(), 2);
    let treating = person("p-17", Purpose::Treatment);
    assert_eq!(kind(room.declare_emergency(&treating, id, HOUR)).await, ErrorKind::InvalidInput);
    for span in [Duration::ZERO, Duration::from_secs(59), HOUR * 4 + Duration::from_secs(1)] {
        assert_eq!(kind(room.declare_emergency(&doctor(), id, span)).await, ErrorKind::InvalidInput);
    }
    let missing = CustomerId::from_bytes([9; 16]);
    assert_eq!(kind(room.declare_emergency(&doctor(), missing, HOUR)).await, ErrorKind::NotFound);
    assert_eq!(room.unfolded_emergencies(), 0);
    let none = place.world.node(place.world.options()).await.unwrap();
    assert!(!none.has_emergency_access());
    assert_eq!(kind(none.declare_emergency(&doctor(), id, HOUR)).await, ErrorKind::Configuration);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_reads_nothing_else_is_read_and_not_for_longer() {
    let place = Place::new().await;
    let Place { world, room, acme, .. } = &place;
    let other = add(room, "other").await.unwrap();
    let blob = acme.seal(pattern(5_000_000), SealOptions::new()).await.unwrap().id;
    let others = other.seal(pattern(10), SealOptions::new()).await.unwrap().id;
    world.audit.take_down();
    let emergency = place.declare().await;
    let named = |access: Access| access.in_emergency(emergency.id);
    for (who, customer, blob) in [
        (person("p-18", Purpose::EmergencyTreatment), acme, blob),
        (person("p-17", Purpose::Treatment), acme, blob),
        (access(), acme, blob),
        (doctor(), &other, others),
    ] {
        let customer = room.customer_by_id(customer.id(), named(who)).await.unwrap();
        assert_eq!(kind(read(&customer, blob)).await, ErrorKind::AuditUnavailable);
    }
    let another = doctor().in_emergency(EmergencyId::from_bytes([8; 16]));
    let another = room.customer_by_id(acme.id(), another).await.unwrap();
    assert_eq!(kind(read(&another, blob)).await, ErrorKind::AuditUnavailable);

    // What flows when it is over stops.
    let reader = place.reader(emergency.id).await;
    let mut stream = reader.open(blob).await.unwrap().into_stream();
    assert!(stream.try_next().await.unwrap().is_some());
    world.clock.advance(HOUR);
    let stopped = loop {
        match stream.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it flowed to its end"),
            Err(error) => break error,
        }
    };
    assert_eq!(stopped.kind(), ErrorKind::Denied);
    drop(stream);
    assert_eq!(kind(read(&reader, blob)).await, ErrorKind::AuditUnavailable);

    world.audit.heal();
    let folded = in_the_end(async || room.fold_emergencies(&access()).await).await;
    assert_eq!(folded[&emergency.id].as_ref().unwrap().written, 1);
    let found = in_log(room, emergency.id).await;
    assert_eq!(told(&found)[0].1.result, OutcomeResult::Denied);
}

/// An emergency stands for the log, and not for the customer's session.
#[tokio::test(flavor = "multi_thread")]
async fn whose_keys_are_in_its_own_hand_is_not_opened_by_it() {
    let place = Place::new().await;
    let mut new = NewCustomer::new(world::label("own"), KeyChoice::New("local".into()));
    new.tenancy = Tenancy::Customer;
    place.room.add_customer(&access(), new).await.unwrap();
    let own = place.room.customer(&world::label("own"), access()).await.unwrap();
    let blob = own.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    place.world.audit.take_down();
    let emergency = place.room.declare_emergency(&doctor(), own.id(), HOUR).await.unwrap();
    let in_it = doctor().in_emergency(emergency.id);
    let reader = place.room.customer_by_id(own.id(), in_it).await.unwrap();
    assert_eq!(kind(read(&reader, blob)).await, ErrorKind::Denied);
    place.world.audit.heal();
    in_the_end(async || place.room.fold_emergencies(&access()).await).await;
    let found = in_log(&place.room, emergency.id).await;
    assert_eq!(told(&found)[0].1.result, OutcomeResult::Denied, "the attempt is on record");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_sink_nothing_is_read() {
    let place = Place::new().await;
    let blob = place.acme.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    place.world.audit.take_down();
    let emergency = place.declare().await;
    let reader = place.reader(emergency.id).await;
    read(&reader, blob).await.unwrap();
    fs::remove_file(place.sink().join(emergency.id.to_string())).unwrap();
    assert_eq!(kind(read(&reader, blob)).await, ErrorKind::AuditUnavailable);
    fs::remove_dir_all(place.sink()).unwrap();
    let refused = place.room.declare_emergency(&doctor(), place.acme.id(), HOUR).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::AuditUnavailable);
}

/// A copy of the directory as it was before is what a crash between the log and the renaming
/// leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_it_is_folded_leaves_nothing_twice() {
    let place = Place::new().await;
    let Place { world, room, acme, .. } = &place;
    let blob = acme.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    world.audit.take_down();
    let emergency = place.declare().await;
    let reader = place.reader(emergency.id).await;
    for _ in 0..3 {
        read(&reader, blob).await.unwrap();
    }
    world.clock.advance(HOUR);
    let copy = place.directory.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let file = emergency.id.to_string();
    fs::copy(place.sink().join(&file), copy.join(&file)).unwrap();

    world.audit.heal();
    // The first attempt is told that it failed, whatever becomes of it.
    in_the_end(async || room.log().flush().await).await;
    world.audit.fail_from(1);
    let refused = room.fold_emergencies(&access()).await.unwrap().remove(&emergency.id).unwrap();
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::AuditUnavailable);
    assert_eq!(room.unfolded_emergencies(), 1);
    world.audit.heal();
    // What was tried is written now, and is found.
    let folded = in_the_end(async || {
        room.fold_emergencies(&access()).await?.remove(&emergency.id).expect("it is not folded yet")
    });
    assert_eq!(folded.await, Folded { written: 0, done: true });
    let once = in_log(room, emergency.id).await;
    assert_eq!(told(&once).len(), 3);

    let next = world.node(options(world, &copy)).await.unwrap();
    let again = next.fold_emergencies(&access()).await.unwrap();
    let again = again[&emergency.id].as_ref().unwrap();
    assert_eq!((again.written, again.done), (0, true));
    assert!(copy.join(format!("{file}.folded")).exists());
    assert_eq!(in_log(&next, emergency.id).await.len(), once.len());
    next.close().await.unwrap();
    world.verify_log(room).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_the_node_and_a_torn_line_is_no_use() {
    let place = Place::new().await;
    let blob = place.acme.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    place.world.audit.take_down();
    let emergency = place.declare().await;
    read(&place.reader(emergency.id).await, blob).await.unwrap();
    let file = place.sink().join(emergency.id.to_string());
    place.world.audit.heal();
    in_the_end(async || place.room.log().flush().await).await;
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"sum\":\"00").unwrap();

    let place = place.restarted().await;
    place.world.audit.take_down();
    read(&place.reader(emergency.id).await, blob).await.unwrap();
    place.world.clock.advance(HOUR);
    place.world.audit.heal();
    let folded = in_the_end(async || place.room.fold_emergencies(&access()).await).await;
    let folded = folded[&emergency.id].as_ref().unwrap();
    // The second time the node had nothing cached.
    assert_eq!((folded.written, folded.done), (3, true));
    let found = in_log(&place.room, emergency.id).await;
    let actions: Vec<_> = told(&found).iter().map(|(intent, _)| intent.action).collect();
    assert_eq!(actions, [Action::Open, Action::Open, Action::KmsDecrypt]);
    place.world.verify_log(&place.room).await;
}

/// The clock of a host that is two hours behind another's.
#[derive(Debug)]
struct Behind(Arc<dyn Clock>);

impl Clock for Behind {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.now().micros() - 2 * 3_600_000_000).unwrap()
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

/// One that a clock ahead declared would begin anew with each start of a program whose clock is right.
#[tokio::test(flavor = "multi_thread")]
async fn an_emergency_that_begins_later_is_over() {
    let place = Place::new().await;
    let blob = place.acme.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    place.world.audit.take_down();
    let emergency = place.declare().await;
    read(&place.reader(emergency.id).await, blob).await.unwrap();
    place.world.audit.heal();
    in_the_end(async || place.room.log().flush().await).await;
    let Place { world, room, acme, directory } = place;
    room.close().await.unwrap();
    drop((room, acme));
    let mut options = options(&world, &directory.path().join("sink"));
    options.clock = Arc::new(Behind(options.clock));
    let room = in_the_end(async || world.node(options.clone()).await).await;
    let acme = room.customer(&world::label("acme"), access()).await.unwrap();
    let place = Place { world, room, acme, directory };
    place.world.audit.take_down();
    assert!(read(&place.reader(emergency.id).await, blob).await.is_err());
    place.world.audit.heal();
}

/// A program that died has told nobody how a use ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_use_without_an_end_is_folded_as_unknown_and_damage_is_told() {
    let place = Place::new().await;
    let blob = place.acme.seal(pattern(100), SealOptions::new()).await.unwrap().id;
    place.world.audit.take_down();
    let emergency = place.declare().await;
    read(&place.reader(emergency.id).await, blob).await.unwrap();
    let file = place.sink().join(emergency.id.to_string());
    place.world.audit.heal();
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    assert_eq!(lines.len(), 3);
    fs::write(&file, lines[..2].concat()).unwrap();
    let place = place.restarted().await;
    place.world.clock.advance(HOUR);
    fs::write(&file, [&lines[..2].concat(), "damage\n"].concat()).unwrap();
    for _ in 0..2 {
        let folded = place.room.fold_emergencies(&access()).await.unwrap();
        assert_eq!(folded[&emergency.id].as_ref().unwrap_err().kind(), ErrorKind::Integrity);
    }
    assert_eq!(place.room.unfolded_emergencies(), 1, "it stays until somebody has seen to it");
    let found = in_log(&place.room, emergency.id).await;
    assert_eq!(told(&found).len(), 1);
    assert_eq!(told(&found)[0].1.result, OutcomeResult::Unknown);
    let early = place.room.review_emergency(&officer(), place.acme.id(), emergency.id).await;
    assert_eq!(early.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_reviews_it_once() {
    let place = Place::new().await;
    let (room, id) = (&place.room, place.acme.id());
    let emergency = place.declare().await;
    let review = async |access: &Access| room.review_emergency(access, id, emergency.id).await;
    assert_eq!(review(&officer()).await.unwrap_err().kind(), ErrorKind::Conflict, "it is not over");
    place.world.clock.advance(HOUR);
    in_the_end(async || room.fold_emergencies(&access()).await).await;
    assert_eq!(review(&doctor()).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(review(&person("p-17", Purpose::Compliance)).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(review(&access()).await.unwrap_err().kind(), ErrorKind::Denied);
    let missing = EmergencyId::from_bytes([9; 16]);
    assert_eq!(kind(room.review_emergency(&officer(), id, missing)).await, ErrorKind::NotFound);
    let elsewhere = CustomerId::from_bytes([9; 16]);
    let elsewhere = room.review_emergency(&officer(), elsewhere, emergency.id).await;
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::NotFound);
    let reviewed = review(&officer()).await.unwrap();
    assert_eq!(reviewed.review.unwrap().by, officer().principal);
    let second = person("p-21", Purpose::Compliance);
    assert_eq!(review(&second).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    let listed = room.emergencies(&officer(), Some(id)).await.unwrap();
    assert_eq!(listed[0].review.as_ref().unwrap().by, officer().principal);
    let reviews: Vec<_> = (in_log(room, emergency.id).await.into_iter())
        .filter(|(intent, _)| intent.action == Action::EmergencyReview)
        .map(|(intent, outcome)| (intent.principal.to_string(), outcome.result))
        .collect();
    let denied = |who: &str| (who.to_owned(), OutcomeResult::Denied);
    let ok = ("person:p-20".to_owned(), OutcomeResult::Ok);
    assert_eq!(reviews, [denied("person:p-17"), denied("person:p-17"), denied("service:tests"), ok]);
}

#[cfg(feature = "daemon")]
mod over_http {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use axum::body::{Body, Bytes, to_bytes};
    use axum::http::header::CONTENT_TYPE;
    use axum::http::{Request, StatusCode};
    use axum::{Extension, Router};
    use serde_json::{Value, json};
    use strongroom::access::Origin;
    use strongroom::access::policy::{Reach, Role, RoleMatrix, Subject};
    use strongroom::daemon::api::{Caller, Figures, Shared, keep_emergencies, router};
    use strongroom::time::{Clock, Day};
    use tower::ServiceExt;

    use super::*;

    fn shared(room: &Strongroom, clock: Arc<dyn Clock>) -> Arc<Shared> {
        Arc::new(Shared {
            published: strongroom::daemon::tasks::Punctual::new(
                Arc::new(strongroom::system::SystemClock),
                None,
            ),
            limiter: strongroom::daemon::limits::Limiter::default(),
            room: room.clone(),
            policy: Arc::new(RoleMatrix),
            clock,
            body_idle: Duration::from_secs(60),
            figures: Figures::default(),
            own: access(),
        })
    }

    fn app(shared: &Arc<Shared>, who: &str, role: Role) -> Router {
        let subject = Subject {
            principal: who.parse().unwrap(),
            roles: [role].into(),
            reach: Reach::All,
            phi: true,
            trained_until: Some(Day::from_number(40_000)),
        };
        let origin = Origin::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)));
        let caller = Caller { subject: Some(Arc::new(subject)), factor: None, origin };
        router(Arc::clone(shared)).layer(Extension(caller))
    }

    async fn ask(app: Router, request: Request<Body>) -> (StatusCode, Bytes) {
        let response = app.oneshot(request).await.unwrap();
        let status = response.status();
        (status, to_bytes(response.into_body(), 1 << 24).await.unwrap_or_default())
    }

    fn get(path: &str, emergency: Option<&str>) -> Request<Body> {
        let request = Request::get(path);
        let request = emergency.into_iter().fold(request, |to, id| to.header("strongroom-emergency", id));
        request.body(Body::empty()).unwrap()
    }

    fn post(path: &str, body: &Value) -> Request<Body> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        request.body(Body::from(body.to_string())).unwrap()
    }

    fn json_of(body: &Bytes) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_person_breaks_the_glass_and_another_looks_at_it() {
        let place = Place::new().await;
        let bytes = pattern(200_000);
        let blob = place.acme.seal(bytes.clone(), SealOptions::new()).await.unwrap().id;
        let shared = shared(&place.room, place.world.clock.clone());
        let emergencies = format!("/v1/customers/{}/emergencies", place.acme.id());
        let path = format!("/v1/customers/{}/blobs/{blob}", place.acme.id());

        let program = ask(app(&shared, "service:pacs", Role::Reader), post(&emergencies, &json!({}))).await;
        assert_eq!((program.0.as_u16(), &json_of(&program.1)["rule"]), (403, &json!("deny.person")));
        let doctor = || app(&shared, "person:p-17", Role::Reader);
        for wrong in [json!({ "seconds": 14_401 }), json!({ "seconds": 59 }), json!({ "why": "Jane Doe" })] {
            let (status, body) = ask(doctor(), post(&emergencies, &wrong)).await;
            assert_eq!(status, 400);
            assert!(!String::from_utf8_lossy(&body).contains("Jane"));
        }
        place.world.audit.take_down();
        let (status, declared) = ask(doctor(), post(&emergencies, &json!({ "seconds": 1800 }))).await;
        assert_eq!(status, 201, "{declared:?}");
        let declared = json_of(&declared);
        let id = declared["emergency"].as_str().unwrap();
        assert_eq!((&declared["by"], &declared["folded"]), (&json!("person:p-17"), &json!(false)));

        let (status, refused) = ask(doctor(), get(&path, None)).await;
        assert_eq!((status.as_u16(), &json_of(&refused)["code"]), (503, &json!("audit-unavailable")));
        let (status, opened) = ask(doctor(), get(&path, Some(id))).await;
        assert_eq!((status.as_u16(), opened), (200, bytes.clone()));
        // When what the daemon looks up for itself is no longer cached, too.
        place.world.clock.advance(TERM);
        let (status, opened) = ask(doctor(), get(&path, Some(id))).await;
        assert_eq!((status.as_u16(), opened), (200, bytes));
        let (status, page) = ask(doctor(), get(path.rsplit_once('/').unwrap().0, Some(id))).await;
        assert_eq!((status.as_u16(), &json_of(&page)["blobs"][0]["bytes"]), (200, &json!(200_000)));
        assert_eq!(ask(doctor(), get(&path, Some("Jane"))).await.0, 400);
        let other = app(&shared, "person:p-18", Role::Reader);
        assert_eq!(ask(other, get(&path, Some(id))).await.0, 503);
        let mut seal = post(path.rsplit_once('/').unwrap().0, &json!({}));
        seal.headers_mut().insert("strongroom-emergency", id.parse().unwrap());
        assert_eq!(ask(app(&shared, "person:p-17", Role::Writer), seal).await.0, 503);
        let metrics = || ask(app(&shared, "service:prometheus", Role::Operator), get("/metrics", None));
        let (_, figures) = metrics().await;
        let figures = String::from_utf8_lossy(&figures).into_owned();
        assert!(figures.contains("strongroom_emergencies_total 1"), "{figures}");
        assert!(figures.contains("strongroom_emergencies_unfolded 1"), "{figures}");

        place.world.clock.advance(HOUR);
        place.world.audit.heal();
        let kept = tokio::spawn(keep_emergencies(Arc::clone(&shared)));
        for _ in 0..400 {
            if place.room.unfolded_emergencies() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(place.room.unfolded_emergencies(), 0);
        kept.abort();
        let review = format!("{emergencies}/{id}/review");
        let itself = app(&shared, "person:p-17", Role::PrivacyOfficer);
        assert_eq!(ask(itself, post(&review, &json!(null))).await.0, 403);
        let officer = app(&shared, "person:p-20", Role::PrivacyOfficer);
        let (status, reviewed) = ask(officer, post(&review, &json!(null))).await;
        assert_eq!((status.as_u16(), &json_of(&reviewed)["reviewed_by"]), (200, &json!("person:p-20")));
        let auditor = app(&shared, "service:siem", Role::Auditor);
        let (_, listed) = ask(auditor, get(&emergencies, None)).await;
        let listed = &json_of(&listed)["emergencies"][0];
        assert_eq!((&listed["emergency"], &listed["uses"]), (&json!(id), &json!(3)));
        assert_eq!((&listed["folded"], &listed["reviewed_by"]), (&json!(true), &json!("person:p-20")));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_without_a_directory_says_so() {
        let place = Place::new().await;
        let none = place.world.node(place.world.options()).await.unwrap();
        let shared = shared(&none, place.world.clock.clone());
        let emergencies = format!("/v1/customers/{}/emergencies", place.acme.id());
        let (status, body) =
            ask(app(&shared, "person:p-17", Role::Reader), post(&emergencies, &json!({}))).await;
        assert_eq!((status.as_u16(), &json_of(&body)["code"]), (404, &json!("no-emergency-access")));
    }
}
