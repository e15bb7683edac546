//! The backup of `examples/backup.rs` on S3 and AWS KMS, as LocalStack plays
//! them:
//!
//! ```sh
//! localstack/run -- cargo run --example localstack
//! ```
//!
//! Nothing in it knows LocalStack: the endpoint, region and credentials come
//! from the environment, as they do on AWS.

use std::error::Error;
use std::sync::Arc;

use strongroom::kms::KmsRegistry;
use strongroom::kms::aws::AwsKms;
use strongroom::room::KeyChoice;
use strongroom::store::{CreateRoot, StorageUrls, Storages};
use strongroom::system::SystemClock;

#[path = "backup.rs"]
mod backup;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bucket =
        |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set; use localstack/run"));
    // A folder of its own, so that it can be run again.
    let folder = std::process::id();
    let url = |bucket: String| format!("s3://{bucket}/example-{folder}").parse();
    let urls = StorageUrls {
        blobs: Some(url(bucket("STRONGROOM_TEST_BUCKET_BLOBS")?)?),
        keys: Some(url(bucket("STRONGROOM_TEST_BUCKET_KEYS")?)?),
        audit: Some(url(bucket("STRONGROOM_TEST_BUCKET_AUDIT")?)?),
        ..StorageUrls::new(url(bucket("STRONGROOM_TEST_BUCKET_BLOBS")?)?)
    };
    let storages = Storages::open(&urls, CreateRoot::No, Arc::new(SystemClock)).await?;
    let kms = AwsKms::from_env();
    let customer_key = format!("aws-kms:{}", bucket("STRONGROOM_TEST_KMS_ARN")?).parse()?;
    let keys = (KeyChoice::New("aws-kms".into()), KeyChoice::Existing(customer_key));
    let bytes = backup::back_up_and_restore(storages, KmsRegistry::new().with(Arc::new(kms)), keys).await?;
    println!("sealed and restored a dump of {bytes} bytes on S3 and AWS KMS");
    Ok(())
}
