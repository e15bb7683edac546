//! What `localstack/run` prepared, for the tests that need S3 and AWS KMS.

use std::io::Write;

/// The key and the buckets, or `None` and a word about it: without LocalStack
/// these tests did not run, which must not look as if they had passed.
pub fn localstack() -> Option<Prepared> {
    let reason = "STRONGROOM_TEST_LOCALSTACK is not set; run the tests through `localstack/run`";
    if std::env::var_os("STRONGROOM_TEST_LOCALSTACK").is_none() {
        let required = std::env::var("STRONGROOM_TEST_REQUIRE_LOCALSTACK");
        assert!(required.as_deref() != Ok("1"), "{reason}");
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        // Past the capture of the test runner.
        let _ = writeln!(std::io::stderr(), "NOT RUN: {name}: {reason}");
        return None;
    }
    let set = |name: &str| std::env::var(name).expect("`localstack/run` sets it");
    Some(Prepared {
        key: set("STRONGROOM_TEST_KMS_ARN"),
        blobs: set("STRONGROOM_TEST_BUCKET_BLOBS"),
        keys: set("STRONGROOM_TEST_BUCKET_KEYS"),
        audit: set("STRONGROOM_TEST_BUCKET_AUDIT"),
    })
}

/// What `localstack/run` prepared.
#[allow(dead_code, reason = "each test reads what it needs")]
pub struct Prepared {
    /// The ARN of an enabled key.
    pub key: String,
    /// The bucket for blobs.
    pub blobs: String,
    /// The versioned bucket for keys.
    pub keys: String,
    /// The versioned bucket under Object Lock for the log.
    pub audit: String,
}
