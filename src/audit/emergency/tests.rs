use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::AtomicU64;

use tempfile::TempDir;

use super::lines::tests::{at, declared, intent};
use super::*;

const ID: EmergencyId = EmergencyId::from_bytes([9; 16]);
const STORE: StoreId = StoreId::from_bytes([1; 16]);

/// Seconds, on both clocks.
#[derive(Debug, Default)]
struct TestClock {
    now: AtomicU64,
    up: AtomicU64,
}

impl TestClock {
    fn at(now: u64, up: u64) -> Arc<Self> {
        Arc::new(Self { now: AtomicU64::new(now), up: AtomicU64::new(up) })
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        at(self.now.load(Ordering::SeqCst) * 1_000_000)
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.up.load(Ordering::SeqCst))
    }
}

/// A sink with an emergency from second 1 to 61.
fn sink(clock: &Arc<TestClock>) -> (TempDir, EmergencySink) {
    let directory = tempfile::tempdir().unwrap();
    let sink = open(&directory, clock).unwrap();
    let Entry::Declared { intent, .. } = declared() else { unreachable!("it declares") };
    sink.declare(&intent).unwrap();
    (directory, sink)
}

fn open(directory: &TempDir, clock: &Arc<TestClock>) -> Result<EmergencySink> {
    EmergencySink::open(&directory.path().join("sink"), STORE, Arc::clone(clock) as _)
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("sink").join(ID.to_string())
}

fn told(sink: &EmergencySink) -> Told {
    sink.case(ID).unwrap().told(&*sink.clock).unwrap()
}

#[test]
fn only_its_person_reads_its_customer_in_its_time() {
    let clock = TestClock::at(1, 100);
    let (_directory, sink) = sink(&clock);
    let lets = |change: &dyn Fn(&mut Intent)| {
        let mut intent = intent(1, Action::Open);
        change(&mut intent);
        sink.warrant(&[intent]).is_some()
    };
    assert!(lets(&|_| {}));
    let read = [Action::Open, Action::OpenRange, Action::Stat, Action::List, Action::Find, Action::Verify];
    for action in Action::ALL {
        assert_eq!(lets(&|intent| intent.action = action), read.contains(&action), "{action:?}");
    }
    let kms_key: crate::id::KmsKeyId = "local:00000000000000000000000000".parse().unwrap();
    let decrypt = |customer: Option<u8>, key: Option<KeyRef>| {
        lets(&|intent| {
            intent.action = Action::KmsDecrypt;
            intent.customer = customer.map(|id| CustomerId::from_bytes([id; 16]));
            intent.key = key.clone();
        })
    };
    let (blob, epoch) =
        (KeyRef::Blob { kms_key: kms_key.clone() }, KeyRef::Epoch { kms_key: kms_key.clone(), epoch: 1 });
    assert!(decrypt(Some(3), Some(blob.clone())) && decrypt(None, Some(epoch.clone())));
    assert!(!decrypt(Some(4), Some(blob.clone())) && !decrypt(None, Some(blob)));
    assert!(!decrypt(Some(3), Some(epoch)) && !decrypt(Some(3), None));
    assert!(!lets(&|intent| intent.customer = Some(CustomerId::from_bytes([4; 16]))));
    assert!(!lets(&|intent| intent.customer = None));
    assert!(!lets(&|intent| intent.principal = Principal::person("p-18").unwrap()));
    assert!(!lets(&|intent| intent.purpose = Purpose::Treatment));
    assert!(!lets(&|intent| intent.emergency = None));
    let other = EmergencyRef::new(EmergencyId::from_bytes([8; 16]));
    assert!(!lets(&|intent| intent.emergency = Some(Box::new(other))));
    // One that it does not let through takes the others with it.
    let seal = intent(2, Action::Seal);
    assert!(sink.warrant(&[intent(1, Action::Open), seal]).is_none());
    clock.now.store(61, Ordering::SeqCst);
    assert!(!lets(&|_| {}), "it is over");
    // The clock set back, and a minute gone all the same.
    clock.now.store(2, Ordering::SeqCst);
    assert!(lets(&|_| {}));
    clock.up.store(160, Ordering::SeqCst);
    assert!(!lets(&|_| {}), "a minute has passed");
}

#[test]
fn what_is_recorded_is_read_by_the_next_program_and_goes_on() {
    let clock = TestClock::at(1, 100);
    let (directory, sink) = sink(&clock);
    let mut uses = sink.warrant(&[intent(1, Action::Open)]).unwrap();
    let mut begun = uses.record(vec![intent(1, Action::Open), intent(2, Action::Stat)]).unwrap();
    begun.pop().unwrap().end(OutcomeResult::Ok, Some(5)).unwrap();
    assert!(open(&directory, &clock).is_err(), "another program has it");
    assert!(!told(&sink).over);
    drop(begun);
    drop(sink);
    let next = open(&directory, &clock).unwrap();
    let read = told(&next);
    let results: Vec<_> = read.uses.iter().map(|(_, outcome)| outcome.as_ref().unwrap().result).collect();
    assert_eq!(results, [OutcomeResult::Aborted, OutcomeResult::Ok]);
    assert!(read.whole && !read.over);
    uses = next.warrant(&[intent(3, Action::Open)]).unwrap();
    let begun = uses.record(vec![intent(3, Action::Open)]).unwrap();
    clock.now.store(100, Ordering::SeqCst);
    assert!(!told(&next).over, "one use is open");
    drop(begun);
    assert!(told(&next).over);
    assert_eq!(next.unfolded(), 1);
    next.mark_folded(ID).unwrap();
    assert_eq!((next.unfolded(), file(&directory).exists()), (0, false));
    drop(next);
    assert_eq!(open(&directory, &clock).unwrap().unfolded(), 0);
}

#[test]
fn a_torn_line_is_no_use_and_the_file_goes_on_behind_it() {
    let clock = TestClock::at(1, 100);
    let (directory, sink) = sink(&clock);
    let begin = |sink: &EmergencySink, number| {
        let intent = vec![intent(number, Action::Open)];
        sink.warrant(&intent).unwrap().record(intent)
    };
    drop(begin(&sink, 1).unwrap());
    drop(sink);
    let whole = fs::read(file(&directory)).unwrap();
    OpenOptions::new().append(true).open(file(&directory)).unwrap().write_all(b"{\"sum\":\"ab").unwrap();
    let next = open(&directory, &clock).unwrap();
    assert_eq!((told(&next).uses.len(), told(&next).whole), (1, true));
    drop(begin(&next, 2).unwrap());
    assert_eq!((told(&next).uses.len(), told(&next).whole), (2, true));
    drop(next);
    assert!(fs::read(file(&directory)).unwrap().starts_with(&whole), "it is written at its end only");
    assert_eq!(told(&open(&directory, &clock).unwrap()).uses.len(), 2);
}

#[test]
fn behind_damage_nothing_is_written_and_what_stands_before_it_counts() {
    let clock = TestClock::at(1, 100);
    let (directory, sink) = sink(&clock);
    drop(sink.warrant(&[intent(1, Action::Open)]).unwrap().record(vec![intent(1, Action::Open)]).unwrap());
    drop(sink);
    let mut bytes = fs::read(file(&directory)).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(file(&directory), &bytes).unwrap();
    let next = open(&directory, &clock).unwrap();
    let read = told(&next);
    assert_eq!((read.uses.len(), read.uses[0].1.is_none(), read.whole), (1, true, false));
    let refused = next.warrant(&[intent(2, Action::Open)]).unwrap().record(vec![intent(2, Action::Open)]);
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::AuditUnavailable);
    drop(next);
    // Without its declaration it is no emergency, and is not forgotten.
    bytes[20] ^= 1;
    fs::write(file(&directory), &bytes).unwrap();
    let next = open(&directory, &clock).unwrap();
    assert_eq!((next.unfolded(), next.to_fold().1), (1, vec![ID]));
    assert!(!next.stands(ID));
}

#[test]
fn a_crash_before_the_declaration_was_on_disk_leaves_no_emergency() {
    let clock = TestClock::at(1, 100);
    let (directory, sink) = sink(&clock);
    drop(sink);
    let whole = fs::read(file(&directory)).unwrap();
    for length in [0, 1, whole.len() - 1] {
        fs::write(file(&directory), &whole[..length]).unwrap();
        let next = open(&directory, &clock).unwrap();
        assert_eq!((next.stands(ID), next.unfolded()), (false, 0), "{length}");
    }
    fs::write(file(&directory), &whole).unwrap();
    assert!(open(&directory, &clock).unwrap().stands(ID));
}

#[test]
fn a_directory_that_others_can_read_is_refused_and_so_is_another_stores_emergency() {
    let clock = TestClock::at(1, 100);
    let (directory, sink) = sink(&clock);
    let of = directory.path().join("sink");
    assert_eq!(fs::metadata(&of).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(file(&directory)).unwrap().permissions().mode() & 0o777, 0o600);
    drop(sink);
    let other = EmergencySink::open(&of, StoreId::from_bytes([2; 16]), Arc::clone(&clock) as _).unwrap();
    assert!(!other.stands(ID) && other.unfolded() == 1);
    drop(other);
    fs::set_permissions(&of, Permissions::from_mode(0o750)).unwrap();
    assert_eq!(open(&directory, &clock).unwrap_err().kind(), ErrorKind::Configuration);
}

#[test]
fn a_file_that_is_taken_is_not_written_over() {
    let clock = TestClock::at(1, 100);
    let (directory, sink) = sink(&clock);
    let before = fs::read(file(&directory)).unwrap();
    let Entry::Declared { intent, .. } = declared() else { unreachable!("it declares") };
    assert_eq!(sink.declare(&intent).unwrap_err().kind(), ErrorKind::AuditUnavailable);
    assert_eq!(fs::read(file(&directory)).unwrap(), before);
}
