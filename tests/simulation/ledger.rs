//! Everything that programs ever wrote to the keys storage, opened: the truth about keys, by the
//! KMS's own memory and not by the store. It takes no product code's word for what may be done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use strongroom::codec::Decode;
use strongroom::id::{CustomerId, KekId, KmsKeyId};
use strongroom::kms::DataKey;
use strongroom::register::sealed::SealedRegister;
use strongroom::register::{EpochPhase, Register};
use strongroom::ring::sealed::{EpochRecord, SealedRing};
use strongroom::ring::{EntryKind, EntryState, HoldScope, HoldState, Ring};
use strongroom::store::layout;
use strongroom::time::Timestamp;

use super::kms::SimKms;
use super::storage::Disk;

/// An epoch as its record has it.
struct Epoch {
    kms_key: KmsKeyId,
    data_key: DataKey,
}

/// What is known of one key of a ring.
#[derive(Default)]
struct Trail {
    /// The epochs under which a ring with it was ever written.
    under: BTreeSet<u32>,
    /// Since when it is in the window.
    window: Option<Timestamp>,
    /// When it was dropped, by the time that it is.
    dropped: Option<Timestamp>,
}

/// See the module.
pub struct Ledger {
    kms: Arc<SimKms>,
    /// How far clocks may be off without anybody's seeing it.
    slack: Duration,
    seen: usize,
    epochs: BTreeMap<u32, Epoch>,
    rings: BTreeMap<CustomerId, Ring>,
    registers: Option<Register>,
    keys: BTreeMap<KekId, Trail>,
    /// Keys that were dropped since somebody asked.
    fresh: BTreeSet<KekId>,
    /// Keys of which it was checked that nothing opens them any more.
    ended: BTreeSet<KekId>,
    /// Objects that could not be opened yet: their epoch's record came later.
    pub versions: u64,
}

impl Ledger {
    pub fn new(kms: &Arc<SimKms>, slack: Duration) -> Self {
        Self {
            kms: Arc::clone(kms),
            slack,
            seen: 0,
            epochs: BTreeMap::new(),
            rings: BTreeMap::new(),
            registers: None,
            keys: BTreeMap::new(),
            fresh: BTreeSet::new(),
            ended: BTreeSet::new(),
            versions: 0,
        }
    }

    /// The newest version of a customer's ring.
    pub fn ring(&self, customer: CustomerId) -> Option<&Ring> {
        self.rings.get(&customer)
    }

    pub fn register(&self) -> Option<&Register> {
        self.registers.as_ref()
    }

    /// The data key of an epoch and its KMS key.
    pub fn epoch(&self, number: u32) -> Option<(&KmsKeyId, &DataKey)> {
        self.epochs.get(&number).map(|epoch| (&epoch.kms_key, &epoch.data_key))
    }

    pub fn newest_epoch(&self) -> u32 {
        self.epochs.last_key_value().map_or(0, |(number, _)| *number)
    }

    /// When a key was dropped, if it was.
    pub fn dropped_at(&self, key: KekId) -> Option<Timestamp> {
        self.keys.get(&key).and_then(|trail| trail.dropped)
    }

    /// The keys that were dropped since this was asked last.
    pub fn newly_dropped(&mut self) -> BTreeSet<KekId> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether any copy of a ring that was ever written still opens, with this key in it.
    pub fn opens(&self, key: KekId) -> bool {
        let Some(trail) = self.keys.get(&key) else { return false };
        trail
            .under
            .iter()
            .any(|epoch| self.epochs.get(epoch).is_some_and(|epoch| !self.kms.is_gone(&epoch.kms_key)))
    }

    /// Takes in what was written since, and says what is wrong with it.
    pub fn catch_up(&mut self, disk: &Disk) -> Result<(), String> {
        let written = disk.written_since(self.seen);
        self.seen += written.len();
        for (path, bytes, at) in &written {
            if let Some(number) = layout::read_epoch(path) {
                let record =
                    EpochRecord::from_bytes(bytes).map_err(|error| format!("epoch {number}: {error}"))?;
                let data_key =
                    self.kms.peek(&record.wrapped).ok_or(format!("epoch {number} has no data key"))?;
                self.epochs.insert(number, Epoch { kms_key: record.kms_key, data_key });
            } else if layout::read_ring(path).is_some() {
                self.take_ring(bytes, *at)?;
            } else if layout::read_register(path).is_some() {
                let sealed = SealedRegister::parse(bytes).map_err(|error| format!("{path}: {error}"))?;
                let epoch = self.epochs.get(&sealed.epoch).ok_or(format!("{path} is of an unknown epoch"))?;
                let next = sealed.open(&epoch.data_key).map_err(|error| format!("{path}: {error}"))?;
                if let Some(before) = &self.registers {
                    before.check_successor(&next).map_err(|error| format!("{path}: {error}"))?;
                }
                self.registers = Some(next);
            }
        }
        self.check_ends()
    }

    fn take_ring(&mut self, bytes: &[u8], now: Timestamp) -> Result<(), String> {
        let sealed = SealedRing::parse(bytes).map_err(|error| error.to_string())?;
        let (customer, version) = (sealed.customer, sealed.version);
        let what = format!("version {version} of the ring of {customer}");
        let epoch = self.epochs.get(&sealed.epoch).ok_or(format!("{what} is of an unknown epoch"))?;
        let ring = sealed.open(&epoch.data_key).map_err(|error| format!("{what}: {error}"))?;
        self.versions += 1;
        if let Some(before) = self.rings.get(&customer) {
            if version != before.version + 1 {
                return Err(format!("{what} follows version {}", before.version));
            }
            before.check_successor(&ring).map_err(|error| format!("{what}: {error}"))?;
            for entry in before.entries.iter().filter(|entry| ring.entry(entry.id).is_none()) {
                let key = format!("{what} drops the key {} of {:?}", entry.id, entry.kind);
                let gone = ring.dropped(entry.id).ok_or(format!("{key} without a tombstone"))?;
                let held = before.holds.iter().any(|hold| {
                    !matches!(hold.state, HoldState::Released { .. })
                        && match hold.scope {
                            HoldScope::Customer => true,
                            HoldScope::Day(day) => entry.kind == EntryKind::Day(day),
                            HoldScope::Blob { from, key, .. } => {
                                entry.id == key || (entry.id == from && hold.state == HoldState::Opening)
                            }
                        }
                });
                if held {
                    return Err(format!("{key}, which a hold is on"));
                }
                let late = now.saturating_add(self.slack);
                match entry.state {
                    EntryState::Active => return Err(format!("{key}, which was not in the window")),
                    EntryState::Pending { until, .. } if until > late => {
                        return Err(format!("{key}, whose window ends at {until}, at {now}"));
                    }
                    EntryState::Pending { .. } => {}
                }
                let window = self.keys.entry(entry.id).or_default().window;
                let shortest = |since| before.policies.iter().map(|policy| policy.window.end(since)).min();
                if let Some(since) = window
                    && shortest(since) > Some(late)
                {
                    return Err(format!("{key}, which is in the window since {since} only, at {now}"));
                }
                match entry.kind {
                    EntryKind::Day(day) if gone.order.is_none() && late.day() <= day => {
                        return Err(format!("{key} at {now}, by no order"));
                    }
                    _ => {}
                }
                self.keys.entry(entry.id).or_default().dropped = Some(now);
                self.fresh.insert(entry.id);
            }
        }
        let before = self.rings.get(&customer);
        let is_released = before.is_some_and(|before| {
            let live = before.holds.iter().filter(|hold| hold.is_live());
            live.map(|hold| ring.hold(hold.id)).any(|now| now.is_none_or(|now| !now.is_live()))
        });
        for entry in &ring.entries {
            let trail = self.keys.entry(entry.id).or_default();
            trail.under.insert(ring.epoch);
            let was_kept =
                before.is_some_and(|before| before.entry(entry.id).is_some_and(|old| before.is_kept(old)));
            trail.window = match entry.state {
                EntryState::Active => None,
                // It has a whole window once a hold on it is released.
                EntryState::Pending { .. } if is_released && was_kept && !ring.is_kept(entry) => Some(now),
                EntryState::Pending { .. } => trail.window.or(Some(now)),
            };
        }
        self.rings.insert(customer, ring);
        Ok(())
    }

    /// That of what is final no copy opens.
    fn check_ends(&mut self) -> Result<(), String> {
        let Some(register) = &self.registers else { return Ok(()) };
        let is_gone = |number: u32| {
            register
                .epochs
                .iter()
                .any(|epoch| epoch.number == number && matches!(epoch.state, EpochPhase::Gone { .. }))
        };
        let mut ended = Vec::new();
        for ring in self.rings.values() {
            for gone in ring.dropped.iter().filter(|gone| !self.ended.contains(&gone.id)) {
                if (gone.born..=gone.last).all(is_gone) {
                    if self.opens(gone.id) {
                        return Err(format!(
                            "the key {} of {:?} is final, and a copy opens",
                            gone.id, gone.kind
                        ));
                    }
                    ended.push(gone.id);
                }
            }
        }
        self.ended.extend(ended);
        Ok(())
    }

    /// That no copy opens of the keys that this version dropped, which has a final certificate.
    pub fn check_final(&self, customer: CustomerId, version: u64) -> Result<(), String> {
        let Some(ring) = self.rings.get(&customer) else { return Err("a certificate of nobody".into()) };
        let open = ring.dropped.iter().find(|gone| gone.version == version && self.opens(gone.id));
        match open {
            Some(gone) => Err(format!("the key {} is certified as destroyed, and a copy opens", gone.id)),
            None => Ok(()),
        }
    }

    /// How many keys were checked to be gone from all copies.
    pub fn ended(&self) -> usize {
        self.ended.len()
    }

    /// How many keys were dropped.
    pub fn dropped(&self) -> usize {
        self.rings.values().map(|ring| ring.dropped.len()).sum()
    }
}
