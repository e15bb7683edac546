//! A service that keeps documents sealed: it stores one for a treatment, reads
//! a part of it back, and lists what it has, each in somebody's name.
//!
//! Run it with `cargo run --example service`. The store is in a directory that
//! is removed at the end.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::signer::LocalSigner;
use strongroom::envelope::Metadata;
use strongroom::id::BlobId;
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{ByteRange, KeyChoice, NewCustomer, Options, SealOptions, Strongroom};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};

/// What the service holds for one hospital.
struct Documents {
    room: Strongroom,
    hospital: strongroom::id::Label,
}

impl Documents {
    /// Stores a document in the name of whoever brought it.
    async fn store(&self, by: &Principal, name: &str, document: Bytes) -> Result<BlobId, Box<dyn Error>> {
        let access = Access::new(by.clone(), Purpose::Treatment);
        let customer = self.room.customer(&self.hospital, access).await?;
        let metadata = Metadata::new().with_name(name.parse()?).with_content_type("text/plain")?;
        let sealed = customer.seal(document, SealOptions::new().metadata(metadata)).await?;
        Ok(sealed.id)
    }

    /// The first bytes of the newest document of a name.
    async fn preview(&self, by: &Principal, name: &str) -> Result<Bytes, Box<dyn Error>> {
        let access = Access::new(by.clone(), Purpose::Treatment);
        let customer = self.room.customer(&self.hospital, access).await?;
        let newest = customer.newest(&name.parse()?).await?;
        let opened = customer.open_range(newest.id, ByteRange::Inclusive(0, 15)).await?;
        Ok(opened.bytes(1024).await?)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let kms = InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), entropy)?;
    let urls = StorageUrls::new(StorageUrl::directory(directory.path().join("store"))?);
    let storages = Storages::open(&urls, CreateRoot::Yes, clock).await?;

    // A service that stays reads the same key from a file each time.
    let log_signer = LocalSigner::generate(&SystemEntropy)?;
    let operator = Access::new(Principal::service("set-up")?, Purpose::SystemAdministration);
    let (room, _) = Strongroom::init(
        storages,
        KmsRegistry::new().with(Arc::new(kms)),
        KeyChoice::New("local".into()),
        &operator,
        Options::new(Arc::new(log_signer)),
    )
    .await?;
    let hospital: strongroom::id::Label = "general-hospital".parse()?;
    room.add_customer(&operator, NewCustomer::new(hospital.clone(), KeyChoice::New("local".into()))).await?;

    let documents = Documents { room: room.clone(), hospital: hospital.clone() };
    let nurse = Principal::person("staff-0417")?;
    let letter = Bytes::from_static(b"Discharge letter: the patient went home in good health.\n");
    let id = documents.store(&nurse, "letters/discharge", letter.clone()).await?;
    assert_eq!(documents.preview(&nurse, "letters/discharge").await?, letter.slice(..16));

    // Whatever was done is in the log by now, with who, what and why.
    let auditor = Access::new(Principal::person("audit-2")?, Purpose::Compliance);
    let listed: Vec<_> = room.customer(&hospital, auditor).await?.list().try_collect().await?;
    assert!(listed.iter().any(|blob| blob.id == id));
    println!("stored and read back {id}; the log has {} records", room.log().head().tree().size);
    room.close().await?;
    Ok(())
}
