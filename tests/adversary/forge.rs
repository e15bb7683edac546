//! What the attacker makes: with a node's rights at the KMS, a log of their own, and another store.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};

use super::*;

/// An epoch of theirs.
struct Epoch {
    number: u32,
    record: EpochRecord,
    key: DataKey,
}

impl Epoch {
    fn of(number: u32, (record, key): (EpochRecord, DataKey)) -> Self {
        Self { number, record, key }
    }

    fn object(&self) -> (usize, Path, Option<Bytes>) {
        (KEYS, layout::epoch(self.number), Some(self.record.to_bytes().into()))
    }
}

/// The newest under a folder.
fn newest<'a>(objects: &'a Objects, folder: &Path) -> Option<&'a Bytes> {
    let found = objects.iter().rfind(|(path, _)| path.as_ref().starts_with(folder.as_ref()));
    found.map(|(_, bytes)| bytes)
}

async fn read(storage: &dyn ObjectStore, path: &Path) -> Bytes {
    storage.get(path).await.unwrap().bytes().await.unwrap()
}

impl Scene {
    pub async fn receipt(&self) -> KeyUseReceipt {
        let access = Access::new(Principal::Unix(0), Purpose::SystemAdministration);
        let intent = Intent::new(self.their_log.request_id().unwrap(), &access, Action::KmsDecrypt);
        self.their_log.begin(intent).await.unwrap().1
    }

    pub async fn ask(
        &self,
        key: &KmsKeyId,
        wrapped: &strongroom::kms::WrappedDataKey,
        context: &EncryptionContext,
    ) -> Option<DataKey> {
        self.world.kms.inner.decrypt(self.receipt().await, key, wrapped, context).await.ok()
    }

    /// What the attacker makes of what there is, with the rights of a node.
    pub async fn prepare(&mut self) {
        self.look().await;
        let honest = self.hostile.honest(KEYS);
        let victim = self.dice.of(&self.ids).unwrap();
        let last = self.epochs.keys().last().copied().unwrap();
        let next = Epoch::of(last + 1, self.forge_epoch(last + 1).await);
        let again = Epoch::of(last, self.forge_epoch(last).await);
        let mut plans = vec![
            Plan { what: "an epoch", objects: vec![next.object()] },
            Plan { what: "the newest epoch, under a key of theirs", objects: vec![again.object()] },
        ];
        plans.extend(self.rings(victim, &honest, [&next, &again]).await);
        plans.extend(self.registers(&honest, &next).await);
        let labels: Vec<Path> =
            honest.keys().filter(|path| layout::read_label(path).is_some()).cloned().collect();
        if let (Some(path), Some(other)) = (self.dice.of(&labels), self.dice.of(&labels)) {
            let objects = vec![(KEYS, path, honest.get(&other).cloned())];
            plans.push(Plan { what: "another's label", objects });
        }
        // Their log under the name of this store: commits, heads and checkpoints by writers of their own.
        let mut theirs = Vec::new();
        for path in paths(&*self.their_storage).await {
            let bytes = read(&*self.their_storage, &path).await;
            theirs.push((AUDIT, path, Some(bytes)));
        }
        if let Some(one) = self.dice.of(&theirs) {
            plans.push(Plan { what: "an object of a log of theirs", objects: vec![one] });
        }
        plans.push(Plan { what: "a log of theirs", objects: theirs });
        plans.extend(self.forge_blob(victim, &honest).await);
        self.hostile.arm(plans);
    }

    /// Rings of a customer in the same version and in later ones, under the newest epoch and theirs.
    async fn rings(&mut self, victim: CustomerId, honest: &Objects, [next, again]: [&Epoch; 2]) -> Vec<Plan> {
        let Some(ring) = newest(honest, &layout::rings_of(victim)).map(|bytes| self.open_ring(bytes)) else {
            return Vec::new();
        };
        let last = again.number;
        let mut plans = Vec::new();
        for (ahead, number) in [(1, last), (0, last), (1, next.number), (0, 0), (2, last)] {
            let mut forged = ring.clone();
            (forged.version, forged.epoch) = (ring.version + ahead, number.max(last));
            match self.dice.below(3) {
                0 => forged.settings.strict = true,
                1 => forged.settings.kms_key = self.theirs[1].clone(),
                _ => forged.entries.clear(),
            }
            let key = match number {
                0 => &again.key,
                _ if number == next.number => &next.key,
                _ => &self.epochs[&number],
            };
            let bytes: Bytes = forged.seal(key, [8; 24]).into();
            let mut objects = vec![(KEYS, layout::ring(victim, forged.version), Some(bytes.clone()))];
            if number == next.number {
                objects.push(next.object());
            }
            plans.push(Plan { what: "a ring", objects: objects.clone() });
            let version = RingRef { version: forged.version, hash: Sha256::digest(&bytes).into() };
            let vouched = self.vouch(Versioned::Ring(victim), version).await;
            // The voucher of the real one at the place of theirs, and the pin is withheld.
            let audit = self.hostile.honest(AUDIT);
            let real = |what: &str| {
                let of = format!("{what}/{victim}/{:016x}", forged.version);
                audit.iter().rfind(|(path, _)| path.as_ref().starts_with(&of))
            };
            if let (Some((_, bytes)), Some((pin, _)), Some((at, path, _))) =
                (real("voucher"), real("pin"), vouched.first())
            {
                let moved = [(*at, path.clone(), Some(bytes.clone())), (AUDIT, pin.clone(), None)];
                let objects = [&objects[..], &moved].concat();
                plans.push(Plan { what: "a ring with the voucher of another", objects });
            }
            objects.extend(vouched);
            plans.push(Plan { what: "a ring with a voucher of theirs", objects });
        }
        plans
    }

    /// The next register, with two people of theirs, or with an epoch of theirs.
    async fn registers(&mut self, honest: &Objects, next: &Epoch) -> Vec<Plan> {
        let Some(bytes) = newest(honest, &layout::registers()) else { return Vec::new() };
        let sealed = SealedRegister::parse(bytes).unwrap();
        let register = sealed.open(&self.epochs[&sealed.epoch]).unwrap();
        let person = |name: &str, seed| -> NewPerson {
            let key = SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]));
            NamedKey::new(name.parse().unwrap(), key).verifier().try_into().unwrap()
        };
        let people = vec![person("person:e-1", 1), person("person:e-2", 2)];
        let now = self.world.clock.now();
        let epoch = NewEpoch { number: next.number, kms_key: next.record.kms_key.clone(), record: None };
        let mut plans = Vec::new();
        for change in
            [RegisterChange::FoundPeople { people, now }, RegisterChange::BeginEpoch { epoch, at: now }]
        {
            let Ok(forged) = register.apply(change) else { continue };
            let bytes: Bytes = forged.seal(&self.epochs[&register.epoch], [7; 24]).into();
            let mut objects = vec![(KEYS, layout::register(forged.version), Some(bytes.clone()))];
            plans.push(Plan { what: "a register", objects: objects.clone() });
            let version = RingRef { version: forged.version, hash: Sha256::digest(&bytes).into() };
            objects.extend(self.vouch(Versioned::Register, version).await);
            plans.push(Plan { what: "a register with a voucher of theirs", objects: objects.clone() });
            objects.push(next.object());
            plans.push(Plan { what: "a register and an epoch", objects });
        }
        plans
    }

    fn open_ring(&self, bytes: &[u8]) -> Ring {
        let sealed = SealedRing::parse(bytes).unwrap();
        sealed.open(&self.epochs[&sealed.epoch]).unwrap()
    }

    async fn forge_epoch(&mut self, number: u32) -> (EpochRecord, DataKey) {
        let honest = self.hostile.honest(KEYS);
        let first = EpochRecord::from_bytes(&honest[&layout::epoch(1)]).unwrap();
        let directory = first.open(&self.epochs[&1]).unwrap();
        let kms_key = self.dice.of(&self.theirs).unwrap();
        let context = EncryptionContext::epoch(self.store, number);
        let made =
            self.world.kms.inner.generate_data_key(self.receipt().await, &kms_key, &context).await.unwrap();
        let key = (&made.plaintext, made.wrapped);
        let record =
            EpochRecord::seal((self.store, number), first.created, kms_key, key, &directory, [9; 24]);
        (record, made.plaintext)
    }

    /// A voucher and a pin by a writer whom their own log endorsed.
    async fn vouch(&self, of: Versioned, version: RingRef) -> Vec<(usize, Path, Option<Bytes>)> {
        let request = self.their_log.request_id().unwrap();
        let vouched = self.their_log.vouch(of, version, request).await.unwrap();
        let before = paths(&*self.their_storage).await;
        // One that was made for the same version before stays: it is as good.
        let _ = self.their_log.pin(&vouched).await;
        let mut objects = Vec::new();
        for path in before.into_iter().chain(paths(&*self.their_storage).await) {
            let text = path.as_ref();
            let hash = HEXLOWER.encode(&version.hash);
            let bytes = read(&*self.their_storage, &path).await;
            let of_this = text.contains(&hash) || String::from_utf8_lossy(&bytes).contains(&hash);
            if of_this && (text.starts_with("voucher/") || text.starts_with("pin/")) {
                objects.push((AUDIT, path, Some(bytes)));
            }
        }
        objects
    }

    /// Other bytes in a blob, by whoever can have its key unwrapped.
    async fn forge_blob(&mut self, victim: CustomerId, honest: &Objects) -> Option<Plan> {
        let blobs: Vec<(Path, Bytes)> = (self.hostile.honest(BLOBS).into_iter())
            .filter(|(path, _)| layout::read_blob(path).is_some_and(|(customer, _)| customer == victim))
            .collect();
        let (path, bytes) = self.dice.of(&blobs)?;
        let length = Header::length(bytes.get(..PRELUDE_LEN)?).ok()?;
        let header = Header::parse(bytes.get(..length)?).ok()?;
        let newest =
            honest.iter().rfind(|(path, _)| path.as_ref().starts_with(layout::rings_of(victim).as_ref()))?;
        let ring = self.open_ring(newest.1);
        let entry = ring.entry(header.binding.kek)?;
        let data_key = ring.data_key(entry.data_key)?;
        let id: DataKeyId = data_key.id;
        let context = EncryptionContext::customer(self.store, victim, id);
        let opened = self.ask(&data_key.kms_key, &data_key.wrapped, &context).await?;
        let key = ring.open_key(self.receipt().await, entry.id, &opened).ok()?;
        let Unwrapped::Dek(dek) = key.open(WrapPath::from(&header)).ok()? else { return None };
        let text = Bytes::from(format!("forged {}", self.dice.below(1000)));
        let sealed =
            payload::seal(dek.secret(), header.binding.suite, &[3; 24], &header.context(), &text).ok()?;
        self.forged.entry(header.binding.blob).or_default().insert(text);
        let bytes = [bytes.slice(..length), sealed.into()].concat();
        Some(Plan { what: "a blob with a node's rights", objects: vec![(BLOBS, path, Some(bytes.into()))] })
    }
}

/// Objects of another store, made with the same KMS.
pub async fn foreign(world: &World, options: Options) -> [Vec<(Path, Bytes)>; 3] {
    let storages = Storages::memory();
    let key = KeyChoice::New("local".into());
    let (room, _) =
        Strongroom::init(storages.clone(), world.registry(), key, &access(), options).await.unwrap();
    let acme = crate::world::add(&room, CUSTOMERS[0]).await.unwrap();
    let named = SealOptions::new().metadata(Metadata::new().with_name("name 1".parse().unwrap()));
    acme.seal(Bytes::from_static(b"foreign"), named).await.unwrap();
    room.publish_log().await.unwrap();
    room.close().await.unwrap();
    let mut all = [Vec::new(), Vec::new(), Vec::new()];
    for (at, storage) in [&storages.blobs, &storages.keys, &storages.audit].into_iter().enumerate() {
        for path in paths(&**storage).await {
            let bytes = read(&**storage, &path).await;
            all[at].push((path, bytes));
        }
    }
    all
}
