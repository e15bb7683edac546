//! A nightly backup and its restore drill: a stream of unknown length, as
//! `pg_dump` writes one, is sealed while it is made, and read back.
//!
//! Run it with `cargo run --example backup`; `examples/localstack.rs` runs the
//! same code on S3 and AWS KMS.

use std::error::Error;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use strongroom::access::{Access, Principal, Purpose};
use strongroom::audit::signer::LocalSigner;
use strongroom::envelope::Metadata;
use strongroom::kms::KmsRegistry;
use strongroom::kms::local::InsecureLocalKms;
use strongroom::room::{KeyChoice, NewCustomer, Options, SealOptions, Source, Strongroom};
use strongroom::store::{CreateRoot, StorageUrl, StorageUrls, Storages};
use strongroom::system::{SystemClock, SystemEntropy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How many rows the dump has.
const ROWS: u64 = 400_000;

/// Seals a dump for a new customer, and restores it. Returns its length.
///
/// # Errors
/// Whatever goes wrong.
pub async fn back_up_and_restore(
    storages: Storages,
    kms: KmsRegistry,
    (epoch_key, customer_key): (KeyChoice, KeyChoice),
) -> Result<u64, Box<dyn Error>> {
    let job = Access::new(Principal::service("nightly-backup")?, Purpose::SystemAdministration);
    // A job that comes back every night reads the same key from a file each time.
    let options = Options::new(Arc::new(LocalSigner::generate(&SystemEntropy)?));
    let (room, _) = Strongroom::init(storages, kms, epoch_key, &job, options).await?;
    let label: strongroom::id::Label = "acme".parse()?;
    room.add_customer(&job, NewCustomer::new(label.clone(), customer_key)).await?;
    let customer = room.customer(&label, job).await?;

    // The dump goes through a pipe: nothing holds all of it at once.
    let (mut to, from) = tokio::io::duplex(1 << 16);
    let dump = tokio::spawn(async move {
        let mut digest = Sha256::new();
        for row in 0..ROWS {
            let line = format!("INSERT INTO observations VALUES ({row}, {});\n", row * row % 977);
            digest.update(&line);
            to.write_all(line.as_bytes()).await?;
        }
        to.shutdown().await?;
        Ok::<_, std::io::Error>(digest.finalize())
    });
    let metadata = Metadata::new().with_name("db/nightly".parse()?).with_content_type("application/sql")?;
    let sealed = customer.seal(Source::reader(from), SealOptions::new().metadata(metadata)).await?;
    let written = dump.await??;

    // The restore drill: the newest of the name, read to the end, compared.
    let newest = customer.newest(&"db/nightly".parse()?).await?;
    let mut restored = customer.open(newest.id).await?.into_reader();
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let count = restored.read(&mut buffer).await?;
        if count == 0 {
            break;
        }
        digest.update(&buffer[..count]);
    }
    if digest.finalize() != written {
        return Err("what was restored is not what was dumped".into());
    }
    room.close().await?;
    Ok(sealed.bytes)
}

#[tokio::main]
#[allow(dead_code, reason = "another example uses this file for its function")]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let (clock, entropy) = (Arc::new(SystemClock), Arc::new(SystemEntropy));
    let kms = InsecureLocalKms::open(directory.path().join("kms"), clock.clone(), entropy)?;
    let urls = StorageUrls::new(StorageUrl::directory(directory.path().join("store"))?);
    let storages = Storages::open(&urls, CreateRoot::Yes, clock).await?;
    let keys = (KeyChoice::New("local".into()), KeyChoice::New("local".into()));
    let bytes = back_up_and_restore(storages, KmsRegistry::new().with(Arc::new(kms)), keys).await?;
    println!("sealed and restored a dump of {bytes} bytes");
    Ok(())
}
