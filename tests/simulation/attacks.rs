//! Whoever may write to a storage, has one tenant's KMS key and the data keys of epochs, but neither
//! the log's key nor that of a writer: they add, replace, roll back and take away, and later all is
//! put back. Meanwhile what is touched may be refused, and nothing of theirs is believed.

use bytes::Bytes;
use object_store::path::Path;
use sha2::{Digest, Sha256};
use strongroom::Result;
use strongroom::audit::layout::Object;
use strongroom::audit::voucher::Versioned;
use strongroom::codec::{Decode, Encode};
use strongroom::id::{BlobId, KmsKeyId};
use strongroom::kms::EncryptionContext;
use strongroom::order::{NewPerson, People};
use strongroom::ring::sealed::EpochRecord;
use strongroom::room::SealOptions;
use strongroom::secret::Secret;
use strongroom::store::layout;
use strongroom::tlog::{NamedKey, SecretKey};

use super::storage::{Disk, Mood};
use super::world::{Actor, Client, HOUR, World, access};

/// What was there before.
type Before<'a> = Vec<(&'a Disk, Path, Option<Bytes>)>;

impl World {
    /// One attack, what programs make of it, and the end of it.
    pub async fn attack(&self) {
        self.weather.set(Mood::default());
        let kind = self.roll().below(10);
        let what = [
            "blob",
            "blob",
            "copied blob",
            "wrap",
            "older ring",
            "ring",
            "epoch",
            "register",
            "head",
            "older register",
        ];
        let what = what[usize::try_from(kind).unwrap()];
        *self.what.borrow_mut() = format!("{}, attack on a {what}", self.what.borrow());
        let done = match kind {
            0 | 1 => self.alter_blob().await,
            2 => self.copy_blob().await,
            3 => self.swap_wraps().await,
            4 => self.roll_ring_back().await,
            5 => self.plant_ring().await,
            6 => self.plant_epoch().await,
            7 => self.plant_register().await,
            8 => self.roll_head_back().await,
            _ => self.roll_register_back().await,
        };
        if done.is_some() {
            self.count(&format!("attack: {what}"));
        }
    }

    async fn put<'a>(&self, disk: &'a Disk, path: Path, bytes: Option<Bytes>, before: &mut Before<'a>) {
        before.push((disk, path.clone(), disk.read(&path).await));
        disk.tamper(&path, bytes).await;
    }

    async fn undo(&self, before: Before<'_>) {
        for (disk, path, bytes) in before.into_iter().rev() {
            disk.tamper(&path, bytes).await;
        }
    }

    /// A blob that is owed, and stands.
    async fn target(&self) -> Option<(BlobId, Client, Path)> {
        let today = self.today();
        let all: Vec<_> = {
            let oracle = self.oracle.borrow();
            let owed = oracle.blobs.iter().filter(|(_, owed)| owed.is_owed(today) && !owed.withdrawn);
            owed.map(|(blob, owed)| (*blob, owed.customer)).collect()
        };
        let (blob, customer) = self.roll().of(&all)?;
        let client = self.clients.borrow().iter().find(|client| client.id == customer)?.clone();
        Some((blob, client, layout::blob(customer, blob)))
    }

    /// A program that starts, and one that has run for longer than it keeps keys.
    async fn witnesses(&self) -> Vec<Actor> {
        tokio::time::advance(HOUR).await;
        let mut all = Vec::new();
        all.extend(self.judge().await.ok());
        let node = self.roll().index(self.nodes());
        all.extend(self.running(node));
        all
    }

    /// Opens a blob by several programs: with its bytes, or not at all.
    async fn open_by(&self, all: &[Actor], client: &Client, blob: BlobId, what: &str) {
        let expected = self.oracle.borrow().blobs[&blob].bytes.clone();
        for actor in all {
            match self.opened(actor, client, blob).await {
                Ok(bytes) if bytes != expected => self.broken(format!("{what}: other bytes")),
                Ok(_) => self.count("attack: opened"),
                Err(_) => self.count("attack: refused"),
            }
        }
    }

    async fn end_of(&self, all: Vec<Actor>) {
        // The first is the judge, who is not needed any more.
        for judge in all.into_iter().take(1) {
            drop(judge.room.close().await);
            judge.link.kill();
        }
    }

    async fn alter_blob(&self) -> Option<()> {
        let (blob, client, path) = self.target().await?;
        let stored = self.disks.blobs.read(&path).await?;
        let other = self.target().await?.2;
        let other = self.disks.blobs.read(&other).await?;
        let bytes = {
            let mut dice = self.roll();
            match dice.below(4) {
                0 => None,
                1 => Some(stored.slice(..dice.index(stored.len()))),
                2 => Some(other),
                _ => {
                    let mut bytes = stored.to_vec();
                    let at = dice.index(bytes.len());
                    bytes[at] ^= 1 << dice.below(8);
                    Some(bytes.into())
                }
            }
        };
        let mut before = Vec::new();
        self.put(&self.disks.blobs, path, bytes, &mut before).await;
        let all = self.witnesses().await;
        self.open_by(&all, &client, blob, "an altered blob").await;
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// A blob under another id does not open.
    async fn copy_blob(&self) -> Option<()> {
        let (_, client, path) = self.target().await?;
        let stored = self.disks.blobs.read(&path).await?;
        let day = self.today().plus(3);
        let id = BlobId::new(day, [7; 13]).unwrap();
        let (_, original) = layout::read_blob(&path)?;
        let mut bytes = stored.to_vec();
        // In its header as well.
        if self.roll().one_in(2) {
            let at = bytes.windows(16).position(|part| part == original.as_bytes())?;
            bytes[at..at + 16].copy_from_slice(id.as_bytes());
        }
        let mut before = Vec::new();
        self.put(&self.disks.blobs, layout::blob(client.id, id), Some(bytes.into()), &mut before).await;
        let all = self.witnesses().await;
        for actor in &all {
            match self.opened(actor, &client, id).await {
                Ok(_) => self.broken("a copy of a blob opens under another id"),
                Err(error) => self.count(&format!("attack: copied blob: {}", error.kind())),
            }
        }
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// The wrap of one blob in the place of another's.
    async fn swap_wraps(&self) -> Option<()> {
        let (blob, client, _) = self.target().await?;
        let wraps = self.disks.blobs.paths(Some(&layout::wraps_of_customer(client.id))).await;
        let of_blob = |path: &&Path| layout::read_wrap(path).is_some_and(|(_, of, _)| of == blob);
        let own = wraps.iter().find(of_blob)?.clone();
        let other = {
            let others: Vec<_> = wraps.iter().filter(|path| !of_blob(path)).collect();
            (*self.roll().of(&others)?).clone()
        };
        let bytes = self.disks.blobs.read(&other).await;
        let mut before = Vec::new();
        self.put(&self.disks.blobs, own, bytes, &mut before).await;
        let all = self.witnesses().await;
        self.open_by(&all, &client, blob, "another's wrap").await;
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// The newest version of a ring is taken away, or an older one put in its place.
    async fn roll_ring_back(&self) -> Option<()> {
        let (blob, client, _) = self.target().await?;
        let newest = self.ledger.borrow().ring(client.id)?.version;
        let older = newest.checked_sub(1).filter(|older| *older > 0)?;
        let bytes = self.disks.keys.read(&layout::ring(client.id, older)).await;
        let bytes = if self.roll().one_in(2) { bytes } else { None };
        let mut before = Vec::new();
        self.put(&self.disks.keys, layout::ring(client.id, newest), bytes, &mut before).await;
        let all = self.witnesses().await;
        self.believe(&all, &client, newest).await;
        self.open_by(&all, &client, blob, "an older ring").await;
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// The newest version of the register is taken away, or an older one put in its place.
    async fn roll_register_back(&self) -> Option<()> {
        let newest = self.ledger.borrow().register()?.version;
        let older = newest.checked_sub(1).filter(|older| *older > 0)?;
        let bytes = self.disks.keys.read(&layout::register(older)).await;
        let bytes = if self.roll().one_in(2) { bytes } else { None };
        let mut before = Vec::new();
        self.put(&self.disks.keys, layout::register(newest), bytes, &mut before).await;
        let all = self.witnesses().await;
        self.believe_register(&all, newest).await;
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    async fn believe_register(&self, all: &[Actor], newest: u64) {
        for actor in all {
            match actor.room.register(&access()).await {
                Ok(register) if register.version != newest => {
                    self.broken(format!(
                        "version {} of the register is believed, not {newest}",
                        register.version
                    ));
                }
                Ok(_) => self.count("attack: believed what is"),
                Err(_) => self.count("attack: refused"),
            }
        }
    }

    /// That programs go by the version of the ring that is the newest, or by none.
    async fn believe(&self, all: &[Actor], client: &Client, newest: u64) {
        for actor in all {
            let info = async { actor.customer(client).await?.info().await };
            match info.await {
                Ok(info) if info.ring_version != newest || info.strict != client.strict => {
                    self.broken(format!("version {} of a ring is believed, not {newest}", info.ring_version));
                }
                Ok(_) => self.count("attack: believed what is"),
                Err(_) => self.count("attack: refused"),
            }
        }
    }

    /// The next version of a ring by nobody, with what may look like its voucher and its pin.
    async fn plant_ring(&self) -> Option<()> {
        let client = self.victim();
        let (next, bytes) = {
            let ledger = self.ledger.borrow();
            let mut next = ledger.ring(client.id)?.clone();
            next.version += 1;
            next.settings.strict = !next.settings.strict;
            let bytes = next.seal(ledger.epoch(next.epoch)?.1, [8; 24]);
            (next.version, Bytes::from(bytes))
        };
        let mut before = Vec::new();
        self.vouch(Versioned::Ring(client.id), next, &bytes, &mut before).await;
        self.put(&self.disks.keys, layout::ring(client.id, next), Some(bytes), &mut before).await;
        let all = self.witnesses().await;
        self.believe(&all, &client, next - 1).await;
        self.seal_by(&all, &client).await;
        self.expect_no_pin(Versioned::Ring(client.id), next, &before).await;
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// What stands for the version before, in the place of what would stand for the next.
    async fn vouch<'a>(&'a self, of: Versioned, next: u64, bytes: &Bytes, before: &mut Before<'a>) {
        let prefix = Path::from(format!("voucher/{of}/{:016x}", next - 1));
        let audit = &*self.disks.audit;
        let with_voucher = self.roll().one_in(2);
        let with_pin = self.roll().one_in(4);
        if with_voucher && let Some(path) = audit.paths(Some(&prefix)).await.first() {
            let Some(Object::Voucher { key, .. }) = Object::at(path) else { return };
            let hash = Sha256::digest(bytes).into();
            let stands = audit.read(path).await;
            self.put(audit, Object::Voucher { of, version: next, hash, key }.path(), stands, before).await;
        }
        let pin = |version: u64| Path::from(format!("pin/{of}/{version:016x}"));
        if with_pin && let Some(stands) = audit.read(&pin(next - 1)).await {
            self.put(audit, pin(next), Some(stands), before).await;
        }
    }

    async fn expect_no_pin(&self, of: Versioned, version: u64, before: &Before<'_>) {
        let pin = Path::from(format!("pin/{of}/{version:016x}"));
        let ours = before.iter().any(|(_, path, _)| *path == pin);
        if !ours && self.disks.audit.read(&pin).await.is_some() {
            self.broken(format!("the planted version {version} of {of} was pinned"));
        }
    }

    /// What is sealed meanwhile is sealed under what is.
    async fn seal_by(&self, all: &[Actor], client: &Client) {
        for actor in all {
            let sealed: Result<_> =
                async { actor.customer(client).await?.seal(b"meanwhile".to_vec(), SealOptions::new()).await }
                    .await;
            self.count(if sealed.is_ok() { "attack: sealed" } else { "attack: refused" });
        }
    }

    fn victim(&self) -> Client {
        let index = self.roll().index(2);
        self.clients.borrow()[index].clone()
    }

    fn own_key(&self) -> KmsKeyId {
        let mut own = self.own_key.borrow_mut();
        own.get_or_insert_with(|| self.kms.make_key()).clone()
    }

    /// The next epoch, under a KMS key of theirs.
    async fn plant_epoch(&self) -> Option<()> {
        let client = self.victim();
        let own = self.own_key();
        let number = self.ledger.borrow().newest_epoch() + 1;
        let current =
            EpochRecord::from_bytes(&self.disks.keys.read(&layout::epoch(number - 1)).await?).ok()?;
        let directory = current.open(self.ledger.borrow().epoch(number - 1)?.1).ok()?;
        let made = self.kms.make_data_key(&own, &EncryptionContext::epoch(current.store, number)).ok()?;
        let key = (&made.plaintext, made.wrapped);
        let record = EpochRecord::seal(
            (current.store, number),
            current.created,
            own.clone(),
            key,
            &directory,
            [9; 24],
        );
        let bytes = Bytes::from(record.to_bytes());
        let mut before = Vec::new();
        if self.roll().one_in(2) {
            // A ring under it as well.
            let ring = {
                let ledger = self.ledger.borrow();
                let mut next = ledger.ring(client.id)?.clone();
                (next.version, next.epoch) = (next.version + 1, number);
                next
            };
            let sealed = Bytes::from(ring.seal(&made.plaintext, [8; 24]));
            self.put(&self.disks.keys, layout::ring(client.id, ring.version), Some(sealed), &mut before)
                .await;
        }
        self.vouch(Versioned::Epoch, number.into(), &bytes, &mut before).await;
        self.put(&self.disks.keys, layout::epoch(number), Some(bytes), &mut before).await;
        let newest = self.ledger.borrow().ring(client.id)?.version;
        let all = self.witnesses().await;
        self.believe(&all, &client, newest).await;
        self.seal_by(&all, &client).await;
        if self.kms.calls(&own) > 0 {
            self.broken("a KMS key of theirs was asked");
        }
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// The next register, with people of theirs.
    async fn plant_register(&self) -> Option<()> {
        let person = |name: &str, seed: u8| -> NewPerson {
            let key = SecretKey::from_seed(&Secret::init(|to| *to = [seed; 32]));
            NamedKey::new(name.parse().unwrap(), key).verifier().try_into().unwrap()
        };
        let people = [person("person:e-1", 101), person("person:e-2", 102)];
        let (next, bytes) = {
            let ledger = self.ledger.borrow();
            let mut next = ledger.register()?.clone();
            next.version += 1;
            next.people = People::found(&people, self.truth.now()).unwrap();
            let bytes = next.seal(ledger.epoch(next.epoch)?.1, [7; 24]);
            (next.version, Bytes::from(bytes))
        };
        let mut before = Vec::new();
        self.vouch(Versioned::Register, next, &bytes, &mut before).await;
        self.put(&self.disks.keys, layout::register(next), Some(bytes), &mut before).await;
        let all = self.witnesses().await;
        self.believe_register(&all, next - 1).await;
        self.expect_no_pin(Versioned::Register, next, &before).await;
        self.undo(before).await;
        self.end_of(all).await;
        Some(())
    }

    /// An older saved head in the place of the newest: programs start from it, and find the end.
    async fn roll_head_back(&self) -> Option<()> {
        let (blob, client, _) = self.target().await?;
        let heads = self.disks.audit.paths(Some(&strongroom::audit::layout::heads())).await;
        let mut before = Vec::new();
        for head in heads {
            let older: Vec<Bytes> = {
                let all = self.disks.audit.written_since(0);
                all.into_iter().filter(|(path, ..)| *path == head).map(|(_, bytes, _)| bytes).collect()
            };
            let index = self.roll().index(older.len().max(1));
            let older = older.get(index).cloned();
            self.put(&self.disks.audit, head, older, &mut before).await;
        }
        let newest = self.ledger.borrow().ring(client.id)?.version;
        let all = self.witnesses().await;
        self.believe(&all, &client, newest).await;
        self.open_by(&all, &client, blob, "an older head").await;
        // What they saved since is as good.
        drop(before);
        self.end_of(all).await;
        Some(())
    }
}
