//! Returning: every blob opened whole, written, read back and written down; then the
//! manifest of all.
//!
//! Of each blob the order is: opened under a record, written to the destination, read
//! back and compared, the digest of its line recorded in the log, the line written
//! beside it. So a run that comes later believes a line that the log names, reads the
//! blob back, and opens nothing again. What a crash between any two of these means is
//! said at each.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt};

use super::destination::{Destination, Failed, Stands};
use super::manifest::{Digest, Format, Line, List, Manifest, ManifestBody, NotReturned};
use super::{Proof, closed, not_permitted};
use crate::access::Access;
use crate::audit::history::{History, Need};
use crate::audit::{Action, Intent, ReturnedRef};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BlobId, CustomerId, OrderId};
use crate::ring::Ring;
use crate::room::keyring::{Asker, close};
use crate::room::{Customer, Strongroom, open};
use crate::shred::inventory::{Standing, inventory};
use crate::shred::paths::{Certainty, Paths};

/// How many blobs are returned at once.
const AT_ONCE: usize = 4;

/// What a return came to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Returns {
    /// What was signed.
    pub manifest: Manifest,
    /// What became of each blob.
    pub list: List,
}

/// A blob that is to be returned.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    blob: BlobId,
    /// How sure the log is that it was sealed; `None` if the log does not name it.
    logged: Option<Certainty>,
}

/// What the log has of returns to a customer.
#[derive(Debug, Default)]
struct Recorded {
    /// The digests of the lines of each blob.
    lines: BTreeMap<BlobId, BTreeSet<Digest>>,
    /// Those of manifests, by order.
    manifests: BTreeSet<(OrderId, Digest)>,
}

impl Strongroom {
    /// Returns all blobs of a closed customer that live by what the log says, and those
    /// on the storage that the log does not name, if they open. Each is read back. What
    /// was returned before is read back and not opened again.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] if the customer is not closed, or the order asks for another
    /// form; [`ErrorKind::Integrity`] if something else stands where a blob was returned to; as
    /// [`Customer::open`](crate::room::Customer::open) for what another run may open.
    /// There is no new manifest then, and what was returned stays.
    ///
    /// # Cancel safety
    /// Run it again: it goes on.
    pub async fn return_blobs(
        &self,
        access: &Access,
        customer: CustomerId,
        destination: &Destination,
    ) -> Result<Returns> {
        let asker = Asker::of(access);
        let ring = self.0.keyring.fresh_ring(asker, customer).await?;
        let order = closed(&ring)?;
        if self.ordered_form(order).await? != destination.form() {
            return Err(not_permitted("the order asks for a return in another form, or for none"));
        }
        let from = Customer::new(self.clone(), customer, access.clone());
        destination.check(&from).await?;
        let (paths, recorded) = tokio::try_join!(self.all_paths(customer), self.recorded_returns(customer))?;
        let wanted = wanted(&from, &ring, &paths).await?;
        let lines = futures_util::stream::iter(wanted)
            .map(|wanted| self.return_one(&from, order, wanted, destination, &recorded))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<Line>>()
            .await?;
        let list = List(lines.into_iter().map(|line| (line.blob, line)).collect());
        let manifest = self.sign_manifest(asker, (customer, order), &list, destination, &recorded).await?;
        Ok(Returns { manifest, list })
    }

    async fn return_one(
        &self,
        from: &Customer,
        order: OrderId,
        Wanted { blob, logged }: Wanted,
        destination: &Destination,
        recorded: &Recorded,
    ) -> Result<Line> {
        let unlogged = logged.is_none();
        let known = destination.line(blob).await?;
        let known = known.filter(|line| recorded.has(line) && line.unlogged == unlogged);
        if let Some((line, returned)) = known.and_then(|line| Some((line, line.returned?))) {
            match destination.read_back(blob, &returned).await? {
                Stands::Same => return Ok(line),
                // Somebody removed a file: it is written once more. What was sealed again
                // would have another id.
                Stands::Absent if returned.resealed.is_none() => {}
                Stands::Other | Stands::Absent => return Err(altered(blob)),
            }
        }
        let opened = match open::open(from, blob, None, Action::OffboardReturn).await {
            Ok(opened) => opened,
            Err(error) => return not_returned(blob, logged, error),
        };
        let returned = match destination.write(blob, opened).await {
            Ok(returned) => returned,
            Err(Failed::Blob(error)) => return not_returned(blob, logged, error),
            Err(Failed::Destination(error)) => return Err(error),
        };
        // If we stop here, it is written, and the next run writes the same.
        if destination.read_back(blob, &returned).await? != Stands::Same {
            return Err(altered(blob));
        }
        let line = Line { blob, returned: Some(returned), not_returned: None, unlogged };
        let text = line.text();
        let mut intent = Intent::new(self.0.log.request_id()?, &from.access, Action::OffboardReturn);
        (intent.customer, intent.blob, intent.order) = (Some(from.id), Some(blob), Some(order));
        intent.returned = Some(Box::new(ReturnedRef { sha256: Digest::of(text.as_bytes()).0 }));
        let (open, receipt) = self.0.log.begin(intent).await?;
        // The key was used above, under a record of its own.
        drop(receipt);
        // If we stop here, the log names a line that is not there, and the next run opens
        // the blob again.
        let written = destination.put_line(&line).await;
        // If we stop here, the next run finds the line, and reads the blob back.
        close(open, written).await?;
        Ok(line)
    }

    /// The newest manifest, if it says what is the case; else a new one.
    async fn sign_manifest(
        &self,
        asker: Asker<'_>,
        (customer, order): (CustomerId, OrderId),
        list: &List,
        destination: &Destination,
        recorded: &Recorded,
    ) -> Result<Manifest> {
        let room = &*self.0;
        let reference = list.reference();
        let newest = destination.newest_manifest().await?;
        let number = newest.as_ref().map_or(0, |(number, _)| *number).saturating_add(1);
        if let Some((_, bytes)) = newest {
            let known = Manifest::verify(&bytes, room.log.keys()).ok().filter(|known| {
                known.body().list == reference
                    && known.body().customer == customer
                    && recorded.manifests.contains(&(order, known.digest()))
            });
            if let Some(known) = known {
                // Its list was there before it, and may be gone.
                if destination.list(&reference).await.is_ok_and(|stands| stands == *list) {
                    return Ok(known);
                }
            }
        }
        let body = ManifestBody {
            format: Format::V1,
            store: room.store,
            customer,
            order,
            return_to: destination.form(),
            issued: room.clock.now(),
            counts: list.counts(),
            list: reference,
        };
        let manifest = Manifest::sign(body, &**room.log.signer()?).await?;
        destination.put_list(list, &reference).await?;
        // If we stop here, nothing says that the list is complete.
        let mut intent = Intent::new(room.log.request_id()?, asker.access, Action::OffboardReturn);
        (intent.customer, intent.order) = (Some(customer), Some(order));
        intent.returned = Some(Box::new(ReturnedRef { sha256: manifest.digest().0 }));
        let (open, receipt) = room.log.begin(intent).await?;
        drop(receipt);
        // If we stop here, the log names a manifest that nobody has, and the next run
        // signs another.
        let written = destination.put_manifest(number, manifest.to_note()).await;
        // If we stop here, the manifest is there and counts.
        close(open, written).await?;
        Ok(manifest)
    }

    /// Checks that a return is complete: the manifest is signed, and the log names it
    /// under the order; each blob that lives is in its list; each that was returned is
    /// read back.
    pub(super) async fn check_returned(
        &self,
        asker: Asker<'_>,
        ring: &Ring,
        order: OrderId,
        proof: Proof<'_>,
    ) -> Result<()> {
        let Proof { destination, missing } = proof;
        let customer = ring.customer;
        let none = || not_permitted("there is no manifest of a return: return the blobs first");
        let (_, bytes) = destination.newest_manifest().await?.ok_or_else(none)?;
        let manifest = Manifest::verify(&bytes, self.0.log.keys())?;
        let (paths, recorded) = tokio::try_join!(self.all_paths(customer), self.recorded_returns(customer))?;
        let body = manifest.body();
        let own = (body.store, body.customer, body.order, body.return_to)
            == (self.0.store, customer, order, destination.form());
        if !own || !recorded.manifests.contains(&(order, manifest.digest())) {
            return Err(not_permitted("the manifest is not of this offboarding: return the blobs again"));
        }
        let list = destination.list(&body.list).await?;
        let counts = list.counts();
        if counts != body.counts {
            return Err(Error::new(ErrorKind::Integrity, "the manifest and its list do not agree"));
        }
        if counts.missing != missing {
            let message =
                format!("the return does not have {} of the blobs: say so, or return them", counts.missing);
            return Err(not_permitted(message));
        }
        let from = Customer::new(self.clone(), customer, asker.access.clone());
        for Wanted { blob, .. } in wanted(&from, ring, &paths).await? {
            let line = list.0.get(&blob).ok_or_else(newer)?;
            // Somebody ended it after all.
            if line.not_returned == Some(NotReturned::Unfinished)
                && open::read_header(&from, blob).await.is_ok()
            {
                return Err(newer());
            }
        }
        let returned = list.0.values().filter_map(|line| Some((line.blob, line.returned?)));
        futures_util::stream::iter(returned.map(Ok))
            .try_for_each_concurrent(AT_ONCE, |(blob, returned)| async move {
                match destination.read_back(blob, &returned).await? {
                    Stands::Same => Ok(()),
                    Stands::Other | Stands::Absent => Err(altered(blob)),
                }
            })
            .await
    }

    async fn all_paths(&self, customer: CustomerId) -> Result<Paths> {
        Paths::of_customer(&History::open(&self.log_reader()).await?, customer).await
    }

    async fn recorded_returns(&self, customer: CustomerId) -> Result<Recorded> {
        let history = History::open(&self.log_reader()).await?;
        let mut found = history.operations(Some(customer), &Need::All);
        let mut recorded = Recorded::default();
        while let Some(operation) = found.try_next().await? {
            let intent = operation.intent();
            if intent.action != Action::OffboardReturn {
                continue;
            }
            let Some(ReturnedRef { sha256 }) = intent.returned.as_deref().copied() else { continue };
            match (intent.blob, intent.order) {
                (Some(blob), _) => {
                    recorded.lines.entry(blob).or_default().insert(Digest(sha256));
                }
                (None, Some(order)) => {
                    recorded.manifests.insert((order, Digest(sha256)));
                }
                (None, None) => {}
            }
        }
        Ok(recorded)
    }
}

impl Recorded {
    fn has(&self, line: &Line) -> bool {
        let digest = Digest::of(line.text().as_bytes());
        self.lines.get(&line.blob).is_some_and(|lines| lines.contains(&digest))
    }
}

/// The blobs that live by what the log says, and those on the storage that the log does
/// not name. What an order withdrew is read by nobody, and not returned; if the order is taken back, it lives
/// again, and a manifest without it is not whole.
async fn wanted(from: &Customer, ring: &Ring, paths: &Paths) -> Result<Vec<Wanted>> {
    let found = inventory(from, ring, paths).await?;
    let wanted = found.into_iter().filter_map(|(blob, standing)| match standing {
        Standing::Lives { sealed, .. } => Some(Wanted { blob, logged: Some(sealed) }),
        Standing::Unlogged => Some(Wanted { blob, logged: None }),
        Standing::Withdrawn(_) | Standing::Destroyed => None,
    });
    Ok(wanted.collect())
}

/// The line of a blob that does not open for good; else the error.
fn not_returned(blob: BlobId, logged: Option<Certainty>, error: Error) -> Result<Line> {
    let reason = match NotReturned::of(error.kind()) {
        Some(NotReturned::NotFound) if logged == Some(Certainty::Possible) => NotReturned::Unfinished,
        Some(reason) => reason,
        None => return Err(error),
    };
    Ok(Line { blob, returned: None, not_returned: Some(reason), unlogged: logged.is_none() })
}

fn altered(blob: BlobId) -> Error {
    let message = format!("what was returned as blob {blob} is not there as it was written");
    Error::new(ErrorKind::Integrity, message)
}

fn newer() -> Error {
    not_permitted("there are blobs that the manifest does not have: return them as well")
}
