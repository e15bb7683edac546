//! A page of a customer's blobs: the next ids in their order, and no more than are wanted.
//!
//! Separate from plain listing, whose order is the storage's own business: a bucket lists by
//! name and begins where it is told to, and a directory in no order at all, asking the system
//! for each file's length besides. Here a bucket is asked for the page and a directory for
//! names alone, so that a page of a few costs a bucket one request, and a directory the names
//! of the page's days.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;

use futures_util::{StreamExt, TryStreamExt};

use super::staging::unless_gone;
use super::{StorageKind, Storages, blocking, layout, store_error};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId};
use crate::time::{Day, Timestamp};

impl Storages {
    /// At most `limit` ids of a customer's blobs, from the least that is greater than `after` on, in
    /// their order. Fewer: there are no more.
    ///
    /// # Errors
    /// Those of [`store_error`].
    pub async fn page(
        &self,
        customer: CustomerId,
        after: Option<BlobId>,
        limit: usize,
    ) -> Result<Vec<BlobId>> {
        let beneath = &self.under_blobs;
        if let Some(directory) = &beneath.directory {
            let mut of_customer = directory.clone();
            of_customer.extend(
                beneath
                    .prefix
                    .parts()
                    .chain(layout::blobs_of(customer).parts())
                    .map(|part| part.as_ref().to_owned()),
            );
            return blocking(move || {
                names(&of_customer, after, limit).map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "failed to list the blobs").with_source(error)
                })
            })
            .await;
        }
        // A path sorts as its id does: both begin with the day.
        let prefix = layout::blobs_of(customer);
        let objects = match after {
            Some(after) => self.blobs.list_with_offset(Some(&prefix), &layout::blob(customer, after)),
            None => self.blobs.list(Some(&prefix)),
        };
        let ids = objects.map_err(|error| store_error(error, "list the blobs")).try_filter_map(|object| {
            let found = layout::read_blob(&object.location).filter(|(owner, _)| *owner == customer);
            let id = found.map(|(_, id)| id).filter(|id| after.is_none_or(|after| *id > after));
            std::future::ready(Ok(id))
        });
        if beneath.known && self.kind == StorageKind::Cloud {
            return ids.take(limit).try_collect().await;
        }
        // Of others the order is not known.
        let page = ids.try_fold(Page::new(limit), |mut page, id| async move {
            page.add(id);
            Ok(page)
        });
        Ok(page.await?.into_ids())
    }
}

impl Storages {
    /// The time of the newest use of a customer's name, `None` if it was never used. A bucket is
    /// asked for the first of its list, which is the newest.
    ///
    /// # Errors
    /// Those of [`store_error`].
    pub async fn newest_use(&self, customer: CustomerId, tag: &layout::Tag) -> Result<Option<Timestamp>> {
        let (beneath, prefix, tag) = (&self.under_blobs, layout::names_of(customer, tag), *tag);
        if let Some(directory) = &beneath.directory {
            let mut of_name = directory.clone();
            of_name.extend(beneath.prefix.parts().chain(prefix.parts()).map(|part| part.as_ref().to_owned()));
            let newest = move || {
                let mut newest = None;
                each_name(&of_name, |name| {
                    newest =
                        newest.max(layout::read_name(&prefix.clone().join(name), &tag).map(|(_, at, _)| at));
                })
                .map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "failed to look a name up").with_source(error)
                })?;
                Ok(newest)
            };
            return blocking(newest).await;
        }
        let uses = self.blobs.list(Some(&prefix));
        let uses = uses.map_err(|error| store_error(error, "look a name up")).try_filter_map(|object| {
            std::future::ready(Ok(layout::read_name(&object.location, &tag).map(|(_, at, _)| at)))
        });
        if beneath.known && self.kind == StorageKind::Cloud {
            return std::pin::pin!(uses).try_next().await;
        }
        uses.try_fold(None, |newest, at| std::future::ready(Ok(Some(at).max(newest)))).await
    }
}

/// The least of some ids.
struct Page {
    limit: usize,
    ids: BTreeSet<BlobId>,
    /// The greatest of them as text, once there are as many as are wanted.
    last: Option<String>,
}

impl Page {
    const fn new(limit: usize) -> Self {
        Self { limit, ids: BTreeSet::new(), last: None }
    }

    fn add(&mut self, id: BlobId) {
        self.ids.insert(id);
        if self.ids.len() > self.limit {
            self.ids.pop_last();
        }
        if self.is_full() {
            self.last = self.ids.last().map(BlobId::to_string);
        }
    }

    /// Whether what has this name has a place on it. Ids sort as their text does, so that most
    /// names of a large directory need not be read as ids.
    fn may_have(&self, name: &str) -> bool {
        self.last.as_ref().is_none_or(|last| name < last.as_str())
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= self.limit
    }

    fn into_ids(self) -> Vec<BlobId> {
        self.ids.into_iter().collect()
    }
}

/// A page by the names in a customer's directory, day by day: an id begins with its day.
fn names(of_customer: &FilePath, after: Option<BlobId>, limit: usize) -> io::Result<Vec<BlobId>> {
    let mut days: Vec<(Day, PathBuf)> = Vec::new();
    each_name(of_customer, |name| {
        if let Some(day) = read::<Day>(name) {
            days.push((day, of_customer.join(name)));
        }
    })?;
    days.retain(|(day, _)| after.is_none_or(|after| *day >= after.day()));
    days.sort_unstable();
    let mut page = Page::new(limit);
    let behind = after.map(|after| after.to_string());
    for (day, path) in days {
        each_name(&path, |name| {
            if behind.as_ref().is_some_and(|behind| name <= behind.as_str()) || !page.may_have(name) {
                return;
            }
            if let Some(id) = read::<BlobId>(name).filter(|id| id.day() == day) {
                page.add(id);
            }
        })?;
        if page.is_full() {
            break;
        }
    }
    Ok(page.into_ids())
}

/// Every name in a directory that is text.
fn each_name(directory: &FilePath, mut take: impl FnMut(&str)) -> io::Result<()> {
    let Some(entries) = unless_gone(std::fs::read_dir(directory))? else { return Ok(()) };
    for entry in entries {
        if let Some(name) = entry?.file_name().to_str() {
            take(name);
        }
    }
    Ok(())
}

/// What a name stands for, in one form only, as paths are. Whatever else lies there is not ours.
fn read<T: FromStr + ToString>(name: &str) -> Option<T> {
    name.parse().ok().filter(|read: &T| read.to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(day: u32, random: u8) -> BlobId {
        BlobId::new(Day::from_number(day), [random; 13]).unwrap()
    }

    #[test]
    fn names_are_paged_in_order_and_what_is_not_ours_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (Day::from_number(20_000), Day::from_number(20_001));
        let mut all = Vec::new();
        for day in [second, first] {
            let path = directory.path().join(day.to_string());
            std::fs::create_dir(&path).unwrap();
            for random in [9, 200, 3, 77, 1] {
                let id = id(day.number(), random);
                std::fs::write(path.join(id.to_string()), "").unwrap();
                all.push(id);
            }
            std::fs::write(path.join(format!("{}#1", id(day.number(), 8))), "").unwrap();
            // Another day's.
            std::fs::write(path.join(id(20_002, 8).to_string()), "").unwrap();
        }
        std::fs::create_dir(directory.path().join("lost+found")).unwrap();
        all.sort();
        for limit in [1, 2, 3, 5, 7, 10, 11] {
            let (mut seen, mut after): (Vec<BlobId>, _) = (Vec::new(), None);
            loop {
                let page = names(directory.path(), after, limit).unwrap();
                seen.extend(&page);
                after = page.last().copied();
                if page.len() < limit {
                    break;
                }
            }
            assert_eq!(seen, all, "{limit}");
        }
        assert!(names(&directory.path().join("nobody"), None, 1).unwrap().is_empty());
    }
}
