//! Bases and extracts: each is made again from its commits and the base before it, and compared
//! byte for byte; each base is on record; and where the first commits of a shard were removed, a
//! record says so and a base stands for them.
//!
//! Memory: what one base files, and the commits behind it until nothing before it is open.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::stream::{self, TryStreamExt};

use super::finding::{Problem, RecordProblem};
use super::inventory::ShardObjects;
use super::records::{Said, Story};
use super::source::{self, READ_AHEAD, Read, blocking};
use super::{Context, OVERDUE};
use crate::audit::BaseRef;
use crate::audit::base::extract::{Contents, Page, PageName, Piece};
use crate::audit::base::{self, Base, Draft};
use crate::audit::commit::Commit;
use crate::audit::head::Head;
use crate::audit::layout::Object;
use crate::audit::log::LogReader;
use crate::audit::publish::earlier;
use crate::error::{Error, Result};

/// How many bases there are at least where commits may be missing: the one that stands for them
/// and another.
const AT_LEAST: usize = 2;

pub(super) struct Bases<'a> {
    context: &'a Context,
    shard: u16,
    objects: &'a ShardObjects,
    reader: LogReader,
    /// Of how many commits there have to be bases that were not come to yet.
    due: VecDeque<u64>,
    /// The one that is being made again; `None` behind the last, and where it is not known what
    /// it follows from.
    draft: Option<Draft>,
    /// Commits behind the end of the draft.
    ahead: Vec<(Commit, Head)>,
    /// What was made again, and is on record.
    made: Vec<BaseRef>,
    /// The base that the walk began at, if it began at one.
    start: Option<Base>,
    newest: Option<Base>,
}

/// The base that stands for the commits of a shard which are not there, if any are missing at the
/// beginning and it is a good one.
pub(super) async fn start(context: &Context, shard: u16, objects: &ShardObjects) -> Result<Option<Base>> {
    let segment = objects.segments.first().map(|name| name.first);
    let first = segment.into_iter().chain(objects.first_commit()).min();
    match first.filter(|first| *first > 0) {
        Some(first) => stored(context, shard, first).await,
        None => Ok(None),
    }
}

/// A stored base. What is wrong with it is named.
async fn stored(context: &Context, shard: u16, commits: u64) -> Result<Option<Base>> {
    let path = Object::Base { shard, commits }.path();
    let (store, authority) = (context.store, context.authority.clone());
    let bytes = match source::read(&*context.storage, &path, base::MAX_LEN).await? {
        Read::Bytes(bytes) => bytes,
        Read::TooLarge => {
            context.findings.wrong(&path, Problem::Unreadable("it is larger than a base can be".to_owned()));
            return Ok(None);
        }
        Read::Gone => {
            context
                .findings
                .wrong(&path, Problem::Missing("there is a later one, or commits begin behind it"));
            return Ok(None);
        }
    };
    match blocking(move || Base::decode(&bytes, &authority)).await? {
        Ok(base) => {
            let header = base.header();
            if (header.store, header.shard, header.commits) == (store, shard, commits) {
                return Ok(Some(base));
            }
            context.findings.wrong(&path, Problem::Misplaced);
        }
        Err(error) => context.findings.wrong(&path, Problem::unreadable(&error)),
    }
    Ok(None)
}

impl<'a> Bases<'a> {
    pub(super) fn new(
        context: &'a Context,
        shard: u16,
        objects: &'a ShardObjects,
        start: Option<Base>,
    ) -> Self {
        let begin = start.as_ref().map_or(0, |base| base.header().commits);
        let newest = objects.bases.last().copied().unwrap_or(0);
        let ends: BTreeSet<u64> = objects.segments.iter().map(|name| name.last.saturating_add(1)).collect();
        let due: VecDeque<u64> = ends.iter().copied().filter(|end| *end > begin && *end <= newest).collect();
        for commits in objects.bases.iter().filter(|base| **base > begin && !ends.contains(base)) {
            context.findings.wrong(&Object::Base { shard, commits: *commits }.path(), Problem::NotOfCommits);
        }
        let unused = |commits: &&u64| !ends.contains(commits) && !objects.bases.contains(commits);
        for commits in objects.extracts.iter().filter(unused) {
            context
                .findings
                .wrong(&Object::Extract { shard, commits: *commits }.path(), Problem::NotOfCommits);
        }
        let limit = Duration::from_secs(3600);
        let reader = LogReader::open(context.storage.clone(), context.store, &context.authority, limit);
        let (ahead, made) = (Vec::new(), Vec::new());
        let mut bases = Self {
            context,
            shard,
            objects,
            reader,
            due,
            draft: None,
            ahead,
            made,
            newest: start.clone(),
            start,
        };
        bases.draft = bases.next_draft();
        bases
    }

    /// The base that the walk begins at.
    pub(super) fn start(&self) -> Option<&Base> {
        self.start.as_ref()
    }

    /// The draft of the next base that is due.
    fn next_draft(&mut self) -> Option<Draft> {
        let commits = self.due.pop_front()?;
        Some(Draft::new(self.newest.clone(), commits))
    }

    /// Takes the next commit, and the head behind it.
    pub(super) async fn take(&mut self, commit: &Commit, after: &Head) -> Result<()> {
        if self.draft.is_none() {
            return self.go_on_behind_gap(after).await;
        }
        let mut waiting = VecDeque::from([(commit.clone(), after.clone())]);
        while let (Some(draft), Some((commit, after))) = (&mut self.draft, waiting.pop_front()) {
            draft.take(&commit, &after);
            if commit.header().seq >= draft.commits() {
                self.ahead.push((commit, after));
            }
            if draft.is_complete() {
                let draft = self.draft.take().expect("it is there");
                self.compare(draft).await?;
                self.draft = self.next_draft();
                // They belong to the next one.
                let ahead = std::mem::take(&mut self.ahead);
                waiting = ahead.into_iter().chain(waiting).collect();
            }
        }
        Ok(())
    }

    /// Commits are missing here: what follows cannot be made again before a base that is stored.
    pub(super) fn gap(&mut self) {
        if let Some(draft) = self.draft.take() {
            self.due.push_front(draft.commits());
        }
        self.ahead.clear();
    }

    async fn go_on_behind_gap(&mut self, after: &Head) -> Result<()> {
        while let Some(commits) = self.due.pop_front_if(|due| *due <= after.next()) {
            let path = Object::Base { shard: self.shard, commits }.path();
            self.context.findings.note(&path, Problem::Unchecked);
            if commits < after.next() {
                continue;
            }
            let Some(base) = stored(self.context, self.shard, commits).await? else { continue };
            if base.tree() != after.tree() || base.header().previous != after.previous() {
                self.context.findings.wrong(&path, Problem::NotOfCommits);
                continue;
            }
            self.newest = Some(base);
            self.draft = self.next_draft();
        }
        Ok(())
    }

    /// Compares a base that was made again, and its extract, with those that are stored.
    async fn compare(&mut self, draft: Draft) -> Result<()> {
        let (shard, commits, findings) = (self.shard, draft.commits(), &self.context.findings);
        let path = Object::Base { shard, commits }.path();
        let stored = stored(self.context, shard, commits).await?;
        let made = match earlier(&self.reader, shard, &draft).await {
            Ok(earlier) => draft.finish(earlier),
            Err(error) if error.kind().is_retryable() => return Err(error),
            Err(error) => {
                findings.wrong(&path, Problem::unreadable(&error));
                None
            }
        };
        let Some((base, extract)) = made else {
            findings.note(&path, Problem::Unchecked);
            self.newest = stored;
            return Ok(());
        };
        if stored.is_some_and(|stored| stored != base) {
            findings.wrong(&path, Problem::NotOfCommits);
        }
        let path = Object::Extract { shard, commits }.path();
        let length = u64::try_from(extract.len()).expect("a length fits 64 bits");
        match source::read(&*self.context.storage, &path, length).await? {
            Read::Bytes(found) if found == extract => {}
            Read::Gone if extract.is_empty() => {}
            Read::Gone => findings.wrong(&path, Problem::Missing("its base is there")),
            Read::Bytes(_) | Read::TooLarge => findings.wrong(&path, Problem::NotOfCommits),
        }
        self.made.push(base.reference());
        self.newest = Some(base);
        Ok(())
    }

    /// The end of the log: compares with what is on record, and sees to it that what the newest
    /// base names of removed days is there.
    pub(super) async fn finish(mut self, story: &mut Story) -> Result<()> {
        let (shard, findings) = (self.shard, &self.context.findings);
        let begun = self.start.take();
        for base in begun.iter().map(Base::reference).chain(self.made.iter().copied()) {
            let recorded = story.bases.remove(&(shard, base.commits)).unwrap_or_default();
            if recorded.is_empty() && !story.gaps {
                let path = Object::Base { shard, commits: base.commits }.path();
                findings.wrong(&path, Problem::NotOnRecord);
            }
            for (at, ..) in recorded.iter().filter(|(.., said)| *said != base) {
                at.wrong(self.context, RecordProblem::OtherBase { shard, commits: base.commits });
            }
        }
        let begin = begun.as_ref().map_or(0, |base| base.header().commits);
        for ((_, commits), recorded) in story.bases.range((shard, begin)..=(shard, u64::MAX)) {
            if self.objects.bases.contains(commits) {
                continue;
            }
            // It is stored behind its record, and before the next one is made.
            let old = |(_, since, _): &Said| since.saturating_add(OVERDUE) <= self.context.now;
            if recorded.iter().any(old) || self.objects.bases.last() > Some(commits) {
                let path = Object::Base { shard, commits: *commits }.path();
                findings.wrong(&path, Problem::Missing("it is on record"));
            }
        }
        let Some(start) = begun else { return Ok(()) };
        let path = Object::Commit { shard, seq: 0 }.path();
        let bases = self.objects.bases.range(begin..).count();
        if !story.removed.contains(&start.reference()) || bases < AT_LEAST {
            findings.wrong(&path, Problem::NotRemoved(begin));
        } else {
            findings.note(&path, Problem::AgedOut(begin));
        }
        match self.newest.take() {
            Some(newest) => self.check_kept(&newest, begin).await,
            None => Ok(()),
        }
    }

    /// Reads what a base names of the extracts of bases up to `begin`, which cannot be made again.
    /// Pages that no program needs any more are not read, so that this takes as long as blobs are
    /// kept, and not as long as there was a log.
    async fn check_kept(&self, newest: &Base, begin: u64) -> Result<()> {
        let named = newest.customers().iter().filter_map(|of| of.contents);
        stream::iter(named.map(Ok))
            .try_for_each_concurrent(READ_AHEAD, |piece| async move {
                let checked = self.check_contents(&piece, begin).await;
                match checked {
                    Err((piece, error)) if !error.kind().is_retryable() => {
                        let path = Object::Extract { shard: self.shard, commits: piece.base }.path();
                        self.context.findings.wrong(&path, Problem::unreadable(&error));
                        Ok(())
                    }
                    checked => checked.map_err(|(_, error)| error),
                }
            })
            .await
    }

    async fn check_contents(&self, piece: &Piece, begin: u64) -> Result<(), (Piece, Error)> {
        let of = |piece: Piece| move |error| (piece, error);
        let contents: Contents = self.reader.contents(self.shard, piece).await.map_err(of(*piece))?;
        for (name, piece) in &contents {
            let name: PageName = *name;
            if name.is_past(self.context.now) {
                continue;
            }
            let page: Option<Page> =
                self.reader.page(self.shard, &contents, name).await.map_err(of(*piece))?;
            let parts = page.iter().flat_map(|page| page.values().flatten());
            for part in parts.filter(|part| part.piece.base <= begin) {
                self.reader.piece(self.shard, &part.piece).await.map_err(of(part.piece))?;
            }
        }
        Ok(())
    }
}
