//! How many connections a test can hold.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// As many of `wanted` connections as the hard limit of descriptors allows, which is then in force
/// here and for whom is started from here. Where it is fewer, it says so.
pub fn connections(wanted: usize) -> usize {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    // The daemon, and this test, have some others.
    let count = hard.map_or(wanted, |hard| usize::try_from(hard).unwrap().saturating_sub(300).min(wanted));
    if count < wanted {
        eprintln!("NOT RUN with {wanted} connections: the hard limit of descriptors allows {count}");
    }
    count
}
