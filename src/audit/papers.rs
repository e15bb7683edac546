//! Papers: certificates, orders and the ends of epochs, kept with the log as objects of
//! their own.
//!
//! Each is a signed note that is written once and never changed. Separate from what
//! they say, so that whoever keeps or lists them needs to know nothing of it.
//!
//! Invariant: what stands at a paper's path was put there by the first who did; to put
//! the same again changes nothing, and something else is refused. Whoever holds the
//! storage may put anything there: what is read is believed after its signatures were
//! verified.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::ObjectStore;
use serde::Deserialize;

use super::layout::{self, CertificateStage, Object};
use super::log::LogReader;
use crate::access::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{CertificateId, CustomerId, OrderId, StoreId};
use crate::store::create::{Created, create_within};
use crate::tlog::note::{MAX_LEN, Note};

/// How many papers are read at once.
const AT_ONCE: usize = 16;

/// Puts a paper in its place. Durable when it returns. `limit` is for one request.
///
/// # Errors
/// [`ErrorKind::Integrity`] if another stands there,
/// [`ErrorKind::AuditUnavailable`]; then it may be stored or not.
///
/// # Cancel safety
/// It is stored or it is not; call it again.
pub async fn keep(storage: &dyn ObjectStore, paper: Object, note: String, limit: Duration) -> Result<()> {
    let path = paper.path();
    let unwritten = |error| {
        Error::new(ErrorKind::AuditUnavailable, "the audit storage could not be written").with_source(error)
    };
    match create_within(limit, storage, &path, note.into(), "store a paper").await.map_err(unwritten)? {
        // If we stop here, the paper stands, and the next who makes it finds its own.
        Created::Ours => Ok(()),
        Created::Another => {
            let sentence = format!("another paper stands at {path} of the audit storage");
            Err(Error::new(ErrorKind::Integrity, sentence))
        }
    }
}

/// The bytes of a paper, `None` if there is none. Nothing of it is verified.
///
/// # Errors
/// [`ErrorKind::Integrity`] if it is larger than a note can be,
/// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
///
/// # Cancel safety
/// Nothing is written.
pub async fn read(reader: &LogReader, paper: Object) -> Result<Option<Bytes>> {
    reader.get(&paper.path(), MAX_LEN as u64).await
}

/// The certificates that are kept, each with the newest of its stages.
///
/// # Errors
/// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
///
/// # Cancel safety
/// Nothing is written.
pub async fn certificates(reader: &LogReader) -> Result<BTreeMap<CertificateId, CertificateStage>> {
    let mut newest = BTreeMap::new();
    for path in reader.list(&layout::certificates()).await? {
        // What is none is passed over; `audit verify` tells of it.
        let Some(Object::Certificate { id, stage }) = Object::at(&path) else { continue };
        let found = newest.entry(id).or_insert(stage);
        *found = stage.max(*found);
    }
    Ok(newest)
}

/// The papers of the ends of these epochs that are kept, by number. Nothing of them is
/// verified.
///
/// # Errors
/// As [`read`].
///
/// # Cancel safety
/// Nothing is written.
pub async fn epoch_ends(
    reader: &LogReader,
    epochs: impl IntoIterator<Item = u32, IntoIter: Send>,
) -> Result<BTreeMap<u32, Bytes>> {
    let found = stream::iter(epochs)
        .map(|epoch| async move { Ok((epoch, read(reader, Object::EpochEnd { epoch }).await?)) })
        .buffer_unordered(AT_ONCE);
    let kept = found.try_filter_map(async |(epoch, bytes)| Ok(bytes.map(|bytes| (epoch, bytes))));
    kept.try_collect().await
}

/// The epochs of whose ends a paper is kept.
///
/// # Errors
/// [`ErrorKind::AuditUnavailable`] if the storage cannot be read.
///
/// # Cancel safety
/// Nothing is written.
pub async fn ended_epochs(reader: &LogReader) -> Result<BTreeSet<u32>> {
    let paths = reader.list(&layout::epoch_ends()).await?;
    let epoch =
        |path| if let Some(Object::EpochEnd { epoch }) = Object::at(path) { Some(epoch) } else { None };
    Ok(paths.iter().filter_map(epoch).collect())
}

/// What every order says of itself, whatever it is about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct OrderHead {
    format: OrderFormat,
    pub(crate) id: OrderId,
    pub(crate) store: StoreId,
    pub(crate) requested_by: Principal,
    #[serde(default)]
    pub(crate) customer: Option<CustomerId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum OrderFormat {
    #[serde(rename = "strongroom/order/v1")]
    V1,
}

impl OrderHead {
    /// The head of the order that is the text of a note, if it is one.
    pub(crate) fn of(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Checks the form of an order: that it is a note whose text is an order of this store
/// with this id. Whose signatures are under it is another question.
///
/// # Errors
/// [`ErrorKind::Integrity`] if it is not.
pub fn check_order(bytes: &[u8], store: StoreId, id: OrderId) -> Result<()> {
    let head = OrderHead::of(Note::parse(bytes)?.text());
    if head.is_some_and(|head| head.id == id && head.store == store) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Integrity, "the note is not the order of this id"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;
    use crate::secret::Secret;
    use crate::tlog::{NamedKey, SecretKey};

    const LIMIT: Duration = Duration::from_secs(60);

    fn paper(byte: u8, stage: CertificateStage) -> Object {
        Object::Certificate { id: CertificateId::from_bytes([byte; 16]), stage }
    }

    #[tokio::test]
    async fn a_paper_is_kept_once() {
        let storage: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let key = SecretKey::from_seed(&Secret::init(|to| *to = [9; 32])).public();
        let reader = LogReader::open(Arc::clone(&storage), StoreId::from_bytes([7; 16]), key, LIMIT);
        let interim = paper(1, CertificateStage::Interim);
        assert_eq!(read(&reader, interim).await.unwrap(), None);
        for _ in 0..2 {
            keep(&*storage, interim, "a".to_owned(), LIMIT).await.unwrap();
        }
        let error = keep(&*storage, interim, "b".to_owned(), LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Integrity);
        assert_eq!(read(&reader, interim).await.unwrap().unwrap(), "a");

        keep(&*storage, paper(2, CertificateStage::Final), "c".to_owned(), LIMIT).await.unwrap();
        keep(&*storage, paper(2, CertificateStage::Interim), "d".to_owned(), LIMIT).await.unwrap();
        let newest: Vec<_> = certificates(&reader).await.unwrap().into_values().collect();
        assert_eq!(newest, [CertificateStage::Interim, CertificateStage::Final]);
        // What is no paper of ours keeps nobody from those that are.
        storage.put(&"certificate/x".into(), "".into()).await.unwrap();
        assert_eq!(certificates(&reader).await.unwrap().len(), 2);
    }

    #[test]
    fn an_order_is_a_note_that_names_its_store_and_itself() {
        let key = SecretKey::from_seed(&Secret::init(|to| *to = [9; 32]));
        let key = NamedKey::new("person:p-17".parse().unwrap(), key);
        let (id, store) = (OrderId::from_bytes([3; 16]), StoreId::from_bytes([7; 16]));
        let note = |text: &str| Note::new(text.to_owned(), vec![key.sign(text)]).unwrap().to_string();
        let order = |format: &str, id: OrderId, store: StoreId| {
            format!(
                "{{\"format\":\"{format}\",\"id\":\"{id}\",\"store\":\"{store}\",\"requested_by\":\"person:p-17\"}}\n"
            )
        };
        let good = order("strongroom/order/v1", id, store);
        assert!(check_order(note(&good).as_bytes(), store, id).is_ok());
        for bad in [
            note("{}\n"),
            note(&order("strongroom/certificate/v1", id, store)),
            note(&order("strongroom/order/v1", OrderId::from_bytes([4; 16]), store)),
            note(&order("strongroom/order/v1", id, StoreId::from_bytes([4; 16]))),
            good,
        ] {
            assert_eq!(check_order(bad.as_bytes(), store, id).unwrap_err().kind(), ErrorKind::Integrity);
        }
    }
}
