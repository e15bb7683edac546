//! This machine and this process.

use rustix::process::{Resource, getrlimit};

use super::{Check, Subject};

pub(super) fn examine() -> Vec<Check> {
    vec![core_dumps(getrlimit(Resource::Core).current)]
}

/// A core dump has whatever keys and plaintext were in memory. `None` is no limit.
fn core_dumps(limit: Option<u64>) -> Check {
    match limit {
        Some(0) => Check::ok(Subject::Host, "core dumps are off"),
        _ => Check::warning(
            Subject::Host,
            "core dumps are on: one would hold keys and plaintext that were in memory",
            "`ulimit -c 0` before strongroom is started; in a systemd unit, `LimitCORE=0`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    #[test]
    fn any_core_dump_is_one_too_many() {
        assert_eq!(core_dumps(Some(0)).state, State::Ok);
        assert_eq!(core_dumps(Some(1)).state, State::Warning);
        assert_eq!(core_dumps(None).state, State::Warning);
    }
}
