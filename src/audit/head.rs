//! Where a shard of the log stands: what the next commit has to follow from.
//!
//! Separate from the commit, because a commit is one object and a head the sum
//! of all before it. Pure: [`Head::verify`] takes the next commit, and `extend`
//! makes it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::authority::Authority;
use super::chains::{ChainEnd, Chains};
use super::commit::{Commit, FORMAT, Fault, Header, Line, OwnerChange, Writer};
use super::layout::FIRST_SHARD;
use super::{Event, Link, base};
use crate::error::Result;
use crate::id::{CustomerId, StoreId, WriterId};
use crate::merkle::{Frontier, Hash, TreeHead};
use crate::time::Timestamp;

mod saved;

pub use saved::{MAX_LEN, SavedHead};

/// Where a shard of a log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    store: StoreId,
    shard: u16,
    authority: Authority,
    /// The number of the log's key that is in force; not known in a shard without a commit, which may
    /// begin under any.
    key: Option<u32>,
    next: u64,
    previous: Hash,
    frontier: Frontier,
    time: Timestamp,
    lag: u64,
    settled: u64,
    owner: Option<WriterId>,
    /// Not known behind a commit that was read by itself.
    chains: Option<Chains>,
}

impl Head {
    /// The head of a shard without a commit, whose writers `authority`, the log's
    /// keys, endorse.
    #[must_use]
    pub fn empty(store: StoreId, shard: u16, authority: impl Into<Authority>) -> Self {
        Self {
            store,
            shard,
            authority: authority.into(),
            key: None,
            next: 0,
            previous: Hash::ZERO,
            frontier: Frontier::new(),
            time: Timestamp::from_micros(0).expect("1970 is a time"),
            lag: 0,
            settled: 0,
            owner: None,
            chains: Some(Chains::new()),
        }
    }

    /// The head behind `commit`, which is believed because its writer was
    /// endorsed. What came before it is not checked, and the ends of customers'
    /// chains are not known ([`Head::with_chains`]).
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity) if no key of the log endorsed its writer.
    pub fn after(commit: &Commit, authority: impl Into<Authority>) -> Result<Self> {
        let (header, authority) = (commit.header(), authority.into());
        let key = Some(header.endorser(&authority)?);
        Ok(Self {
            store: header.store,
            shard: header.shard,
            authority,
            key,
            next: header.seq.saturating_add(1),
            previous: commit.hash(),
            frontier: commit.frontier().clone(),
            time: header.time,
            lag: header.lag,
            settled: header.settled,
            owner: header.owner,
            chains: None,
        })
    }

    /// The same head, under no earlier key of the log than this: what was read before, or elsewhere,
    /// was under it.
    #[must_use]
    pub fn under_key(self, number: u32) -> Self {
        Self { key: self.key.max(Some(number)), ..self }
    }

    /// The head that a base has.
    pub(super) fn of_base(
        base: &base::Header,
        frontier: Frontier,
        chains: Chains,
        authority: Authority,
    ) -> Self {
        Self {
            store: base.store,
            shard: base.shard,
            authority,
            key: Some(base.key.unwrap_or(1)),
            next: base.commits,
            previous: base.previous,
            frontier,
            time: base.time,
            lag: base.lag,
            settled: base.settled,
            owner: base.owner,
            chains: Some(chains),
        }
    }

    /// The same head, with the ends of customers' chains.
    #[must_use]
    pub fn with_chains(self, chains: Chains) -> Self {
        Self { chains: Some(chains), ..self }
    }

    /// The store whose log this is.
    #[must_use]
    pub fn store(&self) -> StoreId {
        self.store
    }

    /// The shard.
    #[must_use]
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The log's keys.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The number of the log's key that is in force, if it is known: not in a shard without a commit.
    #[must_use]
    pub fn in_force(&self) -> Option<u32> {
        self.key
    }

    /// The number of the log's key that endorses the next writer, unless that changes the key: in a
    /// shard without a commit, the newest.
    #[must_use]
    pub fn key(&self) -> u32 {
        self.key.unwrap_or_else(|| self.authority.newest().0)
    }

    /// The number of the next commit, which is how many there are.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// SHA-256 of the last commit, zeros if there is none.
    #[must_use]
    pub fn previous(&self) -> Hash {
        self.previous
    }

    /// Size and root of the tree.
    #[must_use]
    pub fn tree(&self) -> TreeHead {
        self.frontier.head()
    }

    /// The right edge of the tree.
    #[must_use]
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// When the last commit was made.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.time
    }

    /// By how much at most a commit's time was later than that of one of its
    /// records.
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.lag)
    }

    /// All intents in commits below this number have an outcome.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Whose the shard is, if it is one writer's own.
    #[must_use]
    pub fn owner(&self) -> Option<WriterId> {
        self.owner
    }

    /// The ends of customers' chains, `None` behind a commit that was read by
    /// itself.
    #[must_use]
    pub fn chains(&self) -> Option<&Chains> {
        self.chains.as_ref()
    }

    /// Checks that `commit` follows from this head, every hash computed again,
    /// and returns the head after it.
    ///
    /// # Errors
    /// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity) if it does not.
    pub fn verify(&self, commit: &Commit) -> Result<Self> {
        let header = commit.header();
        let same = |same: bool, what| if same { Ok(()) } else { Err(Fault::Successor(what)) };
        same(header.store == self.store, "store")?;
        same(header.shard == self.shard, "shard")?;
        same(header.seq == self.next, "sequence number")?;
        same(header.previous == self.previous, "hash of the commit before it")?;
        same(header.old == self.tree(), "old tree head")?;
        same(header.time >= self.time, "time")?;
        same(header.settled >= self.settled, "settled")?;
        let delay = header.time.micros() - header.first.micros();
        same(header.lag == self.lag.max(delay), "lag")?;
        same(self.owner.is_none_or(|owner| self.may_write(owner, commit)), "owner")?;
        let owner = owner_after(
            self.owner,
            header.writer,
            commit.records().iter().filter_map(|record| OwnerChange::of(&record.event)),
        );
        same(header.owner == owner && (owner.is_none() || self.shard != FIRST_SHARD), "owner")?;
        let key = self.key_after(commit)?;
        let mut frontier = self.frontier.clone();
        commit.leaves().iter().for_each(|leaf| frontier.push(leaf.hash));
        same(&frontier == commit.frontier(), "new tree head")?;
        let chains = match self.chains.clone() {
            None => None,
            Some(mut chains) => {
                let goes_on = commit
                    .moved()
                    .iter()
                    .all(|(customer, moved)| moved.first == next_link(chains.end(*customer)));
                same(goes_on, "a customer's chain")?;
                chains.push(commit.moved().iter().map(|(customer, moved)| (*customer, moved.end)).collect());
                same(header.chains == chains.list(), "chains")?;
                Some(chains)
            }
        };
        Ok(Self {
            store: self.store,
            shard: self.shard,
            authority: self.authority.clone(),
            key: Some(key),
            next: self.next + 1,
            previous: commit.hash(),
            frontier,
            time: header.time,
            lag: header.lag,
            settled: header.settled,
            owner,
            chains,
        })
    }

    /// The number of the log's key in force behind `commit`: the one that was before, or the
    /// next, if the commit begins with the change to it. It endorsed the writer of that commit, and
    /// no other does.
    fn key_after(&self, commit: &Commit) -> Result<u32> {
        let changes = commit.records().iter().filter(|record| matches!(record.event, Event::Key(_))).count();
        let endorser = commit.header().endorser(&self.authority)?;
        let holds = match commit.key_change() {
            None => changes == 0 && self.key.is_none_or(|key| key == endorser),
            Some(change) => {
                let next = self.key.is_none_or(|key| key.checked_add(1) == Some(change.number));
                let stated = self.authority.change(change.number) == Some(change.digest);
                changes == 1 && next && stated && endorser == change.number
            }
        };
        let fault = match changes {
            0 => "its writer was endorsed by a key of the log that is not in force",
            _ => "change of the log's key",
        };
        if holds { Ok(endorser) } else { Err(Fault::Successor(fault).into()) }
    }

    /// In a shard that has an owner, these write: the owner, a writer that fences it, and
    /// one that claims the shard while nothing is open in it. And whoever changes the log's key, and
    /// does nothing else: the shard stays the owner's.
    fn may_write(&self, owner: WriterId, commit: &Commit) -> bool {
        let mut changes = commit.records().iter().map(|record| OwnerChange::of(&record.event));
        let claims = changes.clone().next() == Some(Some(OwnerChange::Claim)) && self.is_settled();
        let only_key = commit.records().len() == 1 && commit.key_change().is_some();
        commit.header().writer == owner
            || claims
            || only_key
            || changes.any(|change| change == Some(OwnerChange::Fence(owner)))
    }

    /// Whether no intent is open, on the word of the last writer.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled == self.next
    }

    /// The bytes of the commit that puts `lines` behind this head, and the head
    /// after it. `settled` is what the writer knows to be settled.
    ///
    /// # Panics
    /// Without lines (a commit holds at least one record), or where the ends of
    /// customers' chains are not known.
    pub(crate) fn extend<'a>(
        &self,
        writer: &Writer,
        now: Timestamp,
        lines: impl Iterator<Item = &'a Line> + Clone,
        settled: u64,
    ) -> (Bytes, Self) {
        let mut chains = self.chains.clone().expect("a writer reads the ends of chains first");
        let mut frontier = self.frontier.clone();
        let mut moved: BTreeMap<CustomerId, ChainEnd> = BTreeMap::new();
        let mut body = Vec::with_capacity(lines.clone().map(Line::len).sum());
        for line in lines.clone() {
            let link = line
                .customer
                .map(|customer| next_link(moved.get(&customer).copied().or_else(|| chains.end(customer))));
            let leaf = line.write(link, &mut body);
            frontier.push(leaf.hash);
            if let (Some(customer), Some(link)) = (line.customer, link) {
                moved.insert(customer, ChainEnd { customer, records: link.number, last: leaf.hash });
            }
        }
        chains.push(moved);
        let times = || lines.clone().map(|line| line.time);
        let first = times().min().expect("a commit holds at least one record");
        let last = times().max().expect("a commit holds at least one record");
        let time = now.max(last).max(self.time);
        let header = Header {
            format: FORMAT.to_owned(),
            store: self.store,
            shard: self.shard,
            seq: self.next,
            writer: writer.id,
            key: writer.key.public(),
            endorsement: writer.endorsement,
            time,
            previous: self.previous,
            old: self.tree(),
            new: frontier.head(),
            frontier: frontier.edge().to_vec(),
            count: frontier.size() - self.frontier.size(),
            body: Hash::of(&body),
            first,
            last,
            lag: self.lag.max(time.micros() - first.micros()),
            settled: self.settled.max(settled),
            owner: owner_after(self.owner, writer.id, lines.clone().filter_map(|line| line.owner)),
            chains: chains.list(),
        };
        let mut bytes = writer.sign(&header);
        bytes.extend_from_slice(&body);
        let bytes = Bytes::from(bytes);
        let signed = (self.store, writer.id);
        let head = Self {
            store: self.store,
            shard: self.shard,
            authority: self.authority.clone(),
            key: self.authority.endorser(signed, &header.key, &header.endorsement).or(self.key),
            next: self.next + 1,
            previous: Hash::of(&bytes),
            frontier,
            time,
            lag: header.lag,
            settled: header.settled,
            owner: header.owner,
            chains: Some(chains),
        };
        (bytes, head)
    }
}

/// The link of the record behind a chain's end.
fn next_link(end: Option<ChainEnd>) -> Link {
    match end {
        None => Link { number: 1, previous: Hash::ZERO },
        Some(end) => Link { number: end.records.saturating_add(1), previous: end.last },
    }
}

fn owner_after(
    owner: Option<WriterId>,
    writer: WriterId,
    changes: impl Iterator<Item = OwnerChange>,
) -> Option<WriterId> {
    changes.fold(owner, |owner, change| change.apply(writer, owner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::audit::commit::tests::{at, authority, begin, chain, key, line, line_of, store, writer};
    use crate::audit::{Event, Fence};
    use crate::merkle::root;

    fn commit(bytes: &[u8]) -> Commit {
        Commit::decode(bytes).unwrap()
    }

    #[test]
    fn each_commit_of_a_chain_follows_from_the_one_before() {
        let mut head = begin();
        let mut leaves = Vec::new();
        for (seq, bytes) in chain(&[1, 3, 2, 7, 1]).iter().enumerate() {
            let commit = commit(bytes);
            assert_eq!(commit.header().seq, seq as u64);
            assert_eq!(commit.hash(), Hash::of(bytes));
            let by_itself = Head::after(&commit, authority()).unwrap();
            assert_eq!(by_itself.chains(), None);
            head = head.verify(&commit).unwrap();
            assert_eq!(by_itself.with_chains(head.chains().unwrap().clone()), head);
            leaves.extend(commit.leaves().iter().map(|leaf| leaf.hash));
            assert_eq!(head.tree(), TreeHead { size: leaves.len() as u64, root: root(&leaves) });
            assert_eq!(head.previous(), commit.hash());
            assert!(head.verify(&commit).is_err(), "it is its own successor");
        }
        assert_eq!((head.next(), head.tree().size), (5, 14));
        let ends = head.chains().unwrap().all();
        assert_eq!(ends.values().map(|end| end.records).collect::<Vec<_>>(), [5, 4]);
    }

    #[test]
    fn what_one_makes_another_verifies_and_goes_on_from() {
        let mut made = begin();
        for number in 0..40 {
            let (bytes, after) = made.extend(&writer(2), at(5000), [line(number)].iter(), 0);
            assert_eq!(made.verify(&commit(&bytes)).unwrap(), after);
            made = after;
        }
    }

    #[test]
    fn a_commit_left_out_changed_or_out_of_order_is_noticed() {
        let commits = chain(&[2, 1, 1]);
        let first = begin().verify(&commit(&commits[0])).unwrap();
        assert_eq!(first.verify(&commit(&commits[2])).unwrap_err().kind(), ErrorKind::Integrity);
        assert!(begin().verify(&commit(&commits[1])).is_err());
        // The same records in another order are another tree.
        let (other, _) = begin().extend(&writer(2), at(5), [line(1), line(0)].iter(), 0);
        let other = begin().verify(&commit(&other)).unwrap();
        assert!(other.verify(&commit(&commits[1])).is_err());
    }

    #[test]
    fn a_head_of_another_store_shard_or_key_is_refused() {
        let bytes = &chain(&[1])[0];
        assert!(Head::empty(store(), 8, authority()).verify(&commit(bytes)).is_err());
        assert!(Head::empty(StoreId::from_bytes([9; 16]), 7, authority()).verify(&commit(bytes)).is_err());
        let stranger = key(8).public();
        assert!(Head::empty(store(), 7, stranger).verify(&commit(bytes)).is_err());
        assert!(Head::after(&commit(bytes), stranger).is_err());
        // A writer that endorses itself.
        let own = key(3);
        let endorsement = own.sign(&crate::audit::commit::endorsement(
            store(),
            WriterId::from_bytes([3; 16]),
            &own.public(),
        ));
        let forger = Writer::new(WriterId::from_bytes([3; 16]), own, endorsement);
        let line = line_of(0, &forger, Event::Alive);
        let (forged, _) = begin().extend(&forger, at(5), [line].iter(), 0);
        let error = begin().verify(&commit(&forged)).unwrap_err();
        assert!(error.chain().contains("endorsement"), "{}", error.chain());
    }

    #[test]
    fn a_customers_chain_cannot_begin_again() {
        let commits = chain(&[3, 1]);
        let head = begin().verify(&commit(&commits[0])).unwrap();
        // One that forgot the chains numbers the customer's records from 1.
        let forgetful = head.clone().with_chains(Chains::from_lists(1, &[&[]]).unwrap());
        let (bytes, _) = forgetful.extend(&writer(2), at(5), [line(4)].iter(), 0);
        let error = head.verify(&commit(&bytes)).unwrap_err();
        assert!(error.chain().contains("chain"), "{}", error.chain());
    }

    #[test]
    fn time_and_what_is_settled_never_go_back() {
        let (_, head) = begin().extend(&writer(2), at(9000), [line(0)].iter(), 1);
        let (bytes, after) = head.extend(&writer(2), at(10), [line(1)].iter(), 0);
        assert_eq!((after.time(), after.settled()), (at(9000), 1));
        assert_eq!(after.lag(), Duration::from_micros(8001));
        assert_eq!(head.verify(&commit(&bytes)).unwrap(), after);
    }

    #[test]
    fn a_shard_of_its_own_is_written_by_its_owner_until_released_or_fenced() {
        let (owner, other) = (writer(2), writer(4));
        let one = |head: &Head, by: &Writer, event: Event| {
            let (bytes, after) = head.extend(by, at(5000), [line_of(1, by, event)].iter(), 0);
            head.verify(&commit(&bytes)).map(|verified| assert_eq!(verified, after)).map(|()| after)
        };
        let claimed = one(&begin(), &owner, Event::Claim).unwrap();
        assert_eq!(claimed.owner(), Some(owner.id()));
        assert!(one(&claimed, &other, Event::Alive).is_err());
        assert!(one(&claimed, &other, Event::Claim).is_err());
        let kept = one(&claimed, &owner, Event::Alive).unwrap();
        // Nothing is open after its next commit, and then another may claim it, and no more.
        let (bytes, settled) = kept.extend(&owner, at(5000), [line_of(1, &owner, Event::Alive)].iter(), 3);
        assert!(kept.verify(&commit(&bytes)).unwrap().is_settled());
        assert!(one(&settled, &other, Event::Alive).is_err());
        assert_eq!(one(&settled, &other, Event::Claim).unwrap().owner(), Some(other.id()));
        let fenced = one(&kept, &other, Event::Fence(Fence { writer: owner.id() })).unwrap();
        assert_eq!(fenced.owner(), None);
        let released = one(&kept, &owner, Event::Release).unwrap();
        assert_eq!(released.owner(), None);
        assert_eq!(one(&released, &other, Event::Claim).unwrap().owner(), Some(other.id()));
    }
}
