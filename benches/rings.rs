//! How large a ring gets, and what all its versions take together, over the years.
//!
//! `cargo bench --bench rings`. It is a simulation, so that ten years and 525,600 programs take minutes:
//! no storage, no log and no KMS is asked. The versions are those that a store writes, made by the
//! rules that it goes by (`ring::growth`), and each is encoded and sealed as it would be stored. Sizes
//! are therefore real, and times are not measured. `STRONGROOM_BENCH_YEARS` and
//! `STRONGROOM_BENCH_STARTS` say how many there are.
//!
//! Beside what is stored stands what whole versions alone would take.

use std::io::Write;

use sha2::{Digest, Sha256};
use strongroom::envelope::Kek;
use strongroom::id::{CustomerId, DataKeyId, KekId, KmsKeyId, StoreId};
use strongroom::kms::{DataKey, WrappedDataKey};
use strongroom::retention::{Period, Window};
use strongroom::ring::delta::Base;
use strongroom::ring::sealed::SealedRing;
use strongroom::ring::{Dropped, Entry, EntryKind, EntryState, Ring, RingDataKey, Settings, Tenancy};
use strongroom::secret::Secret;
use strongroom::suite::Suite;
use strongroom::time::{Day, Timestamp};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const OWNER: (StoreId, CustomerId) = (StoreId::from_bytes([1; 16]), CustomerId::from_bytes([2; 16]));
/// The length of what AWS KMS gives for a data key, in bytes.
const WRAPPED: usize = 184;
const MICROS_PER_DAY: u64 = 86_400_000_000;
/// How many programs start in a day: one a minute.
const STARTS_A_DAY: u32 = 1440;

fn main() -> Result {
    let number = |name: &str, unless: u32| std::env::var(name).map_or(Ok(unless), |text| text.parse::<u32>());
    years(number("STRONGROOM_BENCH_YEARS", 10)?)?;
    far_days(400, 40)?;
    starts(number("STRONGROOM_BENCH_STARTS", 525_600)?)
}

/// A customer's rings as a store writes them.
struct Store {
    ring: Ring,
    epoch_key: DataKey,
    under: DataKeyId,
    /// What a later version can be stored over.
    base: Option<(Base, Ring)>,
    /// How many keys there ever were.
    made: u64,
    stored: u64,
    whole: u64,
}

impl Store {
    fn begin(tenancy: Tenancy, now: Timestamp) -> Result<Self> {
        let settings = Settings {
            label: "acme".parse()?,
            kms_key: "aws-kms:arn:aws:kms:us-east-1:000000000000:key/0bfa1b9c-60b4-4b5a-8c0b-6b8f3f1d9a11"
                .parse()?,
            suite: Suite::Aes256Gcm,
            strict: false,
            phi: true,
            tenancy,
        };
        let data_key = wrapped(&settings.kms_key, 0);
        let mut store = Self {
            ring: Ring::first(OWNER, 1, settings, (now, Period::DEFAULT, Window::DEFAULT)),
            epoch_key: DataKey::new(secret(1)),
            under: data_key.id,
            base: None,
            made: 0,
            stored: 0,
            whole: 0,
        };
        store.ring.data_keys.push(data_key);
        let name_under = match tenancy {
            Tenancy::Customer => {
                let outer = RingDataKey::outer(DataKeyId::from_bytes([0xFF; 16]), &secret(3));
                store.ring.data_keys.push(outer);
                DataKeyId::from_bytes([0xFF; 16])
            }
            _ => store.under,
        };
        store.add(EntryKind::Name, name_under, now);
        store.mint(store.ring.promised(now), now);
        store.ring.version = 1;
        store.write();
        Ok(store)
    }

    fn add(&mut self, kind: EntryKind, under: DataKeyId, now: Timestamp) {
        self.made += 1;
        let id = KekId::from_bytes(random(self.made));
        let mut entry = Entry::seal(
            OWNER,
            now,
            id,
            kind,
            &Kek::new(secret(4)),
            (under, &DataKey::new(secret(5))),
            [6; 24],
        );
        entry.born = self.ring.epoch;
        let at = self.ring.entries.partition_point(|known| known.id < id);
        self.ring.entries.insert(at, entry);
    }

    /// A key for a day, and with it a month's where it is routine.
    fn mint(&mut self, day: Day, now: Timestamp) {
        if self.ring.day_key(day).is_some() {
            return;
        }
        for day in self.ring.days_to_mint(day, now) {
            self.add(EntryKind::Day(day), self.under, now);
        }
        self.ring.version += 1;
    }

    /// What a sweep does once a day, in two versions at most.
    fn sweep(&mut self, now: Timestamp) {
        let over = |entry: &Entry| matches!(entry.kind, EntryKind::Day(day) if day < now.day());
        let until = self.ring.policy().window.end(now);
        let mut pended = false;
        for entry in
            self.ring.entries.iter_mut().filter(|entry| over(entry) && entry.state == EntryState::Active)
        {
            entry.state = EntryState::Pending { until, order: None };
            pended = true;
        }
        if pended {
            self.ring.version += 1;
            self.write();
        }
        let due = |entry: &Entry| matches!(entry.state, EntryState::Pending { until, .. } if until <= now);
        let (gone, left) = std::mem::take(&mut self.ring.entries).into_iter().partition(due);
        self.ring.entries = left;
        let gone: Vec<Entry> = gone;
        if gone.is_empty() {
            return;
        }
        self.ring.version += 1;
        for Entry { id, kind, minted, born, check_value, .. } in gone {
            let (version, last) = (self.ring.version, self.ring.epoch);
            let dropped =
                Dropped { id, kind, version, minted, born, last, at: now, order: None, check_value };
            let at = self.ring.dropped.partition_point(|known| known.id < id);
            self.ring.dropped.insert(at, dropped);
        }
        self.write();
    }

    /// A new epoch.
    fn rotate(&mut self) {
        self.ring.epoch += 1;
        self.ring.version += 1;
        self.write();
    }

    fn write(&mut self) {
        self.ring.check().expect("a store writes no other");
        let over = self.base.as_ref().map(|(base, of)| (*base, of));
        let bytes = self.ring.stored(over, &self.epoch_key, [7; 24]);
        if SealedRing::parse(&bytes).is_ok_and(|sealed| sealed.base.is_none()) {
            let hash = Sha256::digest(&bytes).into();
            self.base = Some((Base { version: self.ring.version, hash }, self.ring.clone()));
        }
        self.stored += bytes.len() as u64;
        self.whole += self.whole_len();
    }

    /// How long this version is whole.
    fn whole_len(&self) -> u64 {
        use strongroom::codec::Encode;
        self.ring.to_bytes().len() as u64 + 94
    }

    fn say(&self, what: &str) -> Result {
        let (keys, dropped, versions) = (self.ring.entries.len(), self.ring.dropped.len(), self.ring.version);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        writeln!(
            std::io::stdout(),
            "{what}: {keys} keys live, {dropped} dropped, the ring has {:.2} MiB; its {versions} versions take {:.1} \
             MiB, and whole would take {:.1}",
            mib(self.whole_len()),
            mib(self.stored),
            mib(self.whole)
        )?;
        Ok(())
    }
}

/// A held customer for whom something is sealed every day, under the default policy: each day's key goes
/// into the window and is dropped when its time is over, and once a week there is a new epoch.
fn years(years: u32) -> Result {
    let mut store = Store::begin(Tenancy::Held, noon(0))?;
    for day in 1..=years * 365 + years / 4 {
        let now = noon(day);
        let promised = store.ring.promised(now);
        if store.ring.day_key(promised).is_none() {
            store.mint(promised, now);
            store.write();
        }
        store.sweep(now);
        if day.is_multiple_of(7) {
            store.rotate();
        }
        if day.is_multiple_of(365) {
            store.say(&format!("year {} of daily use", day / 365))?;
        }
    }
    Ok(())
}

/// Days that a writer asked for, so many days apart, all of them today.
fn far_days(count: u32, apart: u32) -> Result {
    let now = noon(0);
    let mut store = Store::begin(Tenancy::Held, now)?;
    let promised = store.ring.promised(now);
    for number in 1..=count {
        let day = promised.plus(number * apart);
        store.ring.permit_writer(day, now)?;
        store.mint(day, now);
        store.write();
    }
    store.say(&format!("{count} days, {apart} apart, that a writer asked for"))
}

/// A customer whose keys are in its own hand, for whom a program starts every minute and seals one blob
/// with a name: so many of them get a key of their own each day, and the others are told to let a daemon
/// seal.
fn starts(starts: u32) -> Result {
    let mut store = Store::begin(Tenancy::Customer, noon(0))?;
    let (mut sealed, mut refused) = (0_u64, 0_u64);
    let mut left = starts;
    for day in 1.. {
        let today = left.min(STARTS_A_DAY);
        if today == 0 {
            break;
        }
        left -= today;
        for number in 0..today {
            let now = Timestamp::from_micros(midnight(day) + u64::from(number) * 60_000_000)?;
            if store.ring.permit_own_key(now).is_err() {
                // And so are all that come later today.
                refused += u64::from(today - number);
                break;
            }
            let data_key = wrapped(&store.ring.settings.kms_key.clone(), store.made + 1);
            let (under, at) =
                (data_key.id, store.ring.data_keys.partition_point(|known| known.id < data_key.id));
            store.ring.data_keys.insert(at, data_key);
            store.add(EntryKind::Day(store.ring.promised(now)), under, now);
            store.ring.version += 1;
            store.write();
            sealed += 1;
        }
        if day.is_multiple_of(7) {
            store.rotate();
        }
        if day.is_multiple_of(73) || left == 0 {
            store.say(&format!("after {} starts, {sealed} sealed and {refused} refused", starts - left))?;
        }
    }
    Ok(())
}

fn wrapped(kms_key: &KmsKeyId, number: u64) -> RingDataKey {
    let id = DataKeyId::from_bytes(random(number));
    RingDataKey { id, kms_key: kms_key.clone(), wrapped: WrappedDataKey::new(vec![8; WRAPPED]) }
}

/// Bytes that are in no order.
fn random(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(number.to_be_bytes())[..16]);
    bytes
}

fn secret(byte: u8) -> Secret<32> {
    Secret::init(|out| out.fill(byte))
}

/// The beginning of a day of the simulation, which begins on 2026-12-01.
fn midnight(day: u32) -> u64 {
    (20_788 + u64::from(day)) * MICROS_PER_DAY
}

fn noon(day: u32) -> Timestamp {
    Timestamp::from_micros(midnight(day) + MICROS_PER_DAY / 2).expect("within the calendar")
}
