//! Each example runs to its end.

use std::path::PathBuf;
use std::process::Command;

#[cfg(feature = "aws")]
#[path = "common/localstack.rs"]
mod prepared;

/// Cargo builds the examples with the tests, beside them.
fn example(name: &str) -> String {
    let test = std::env::current_exe().unwrap();
    let built: PathBuf = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(
        built.exists(),
        "{name} is not built: run `cargo test`, which builds the examples, or `cargo build --examples`"
    );
    let run = Command::new(built).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{name}: {}\n{out}{err}", run.status);
    out.into_owned()
}

#[test]
fn a_service_seals_and_opens() {
    assert!(example("service").contains("stored and read back"));
}

#[test]
fn a_backup_is_restored() {
    assert!(example("backup").contains("sealed and restored a dump of"));
}

#[cfg(feature = "aws")]
#[test]
fn the_same_backup_on_localstack() {
    if prepared::localstack().is_some() {
        assert!(example("localstack").contains("on S3 and AWS KMS"));
    }
}
