//! The manual, part of the documentation so that it goes where the code goes.
//!
//! * [`format`](mod@format): paths, headers, payloads, byte by byte;
//! * [`keys`]: key hierarchy, rings, key schedule, caching;
//! * [`destruction`]: retention, holds, shredding, and why nothing shredded can be read;
//! * [`access`]: who may do what;
//! * [`audit`]: the log, its proofs, and what they prove;
//! * [`clocks`]: which clock each use of time goes by, and what a wrong one does;
//! * [`vectors`]: a whole small store in hexadecimal;
//! * [`threat`]: who is trusted for what;
//! * [`operations`]: setting up, failing, restoring;
//! * [`design`]: what differs from the design document.
//!
//! What it says of bytes is tested: `tests/manual_vectors.rs` makes the vectors
//! anew from the code, and `tests/decoder.rs` has stores opened by a decoder in
//! Python that follows the manual and shares no code with the library.

pub mod format {
    #![doc = include_str!("manual/format.md")]
}

pub mod keys {
    #![doc = include_str!("manual/keys.md")]
}

pub mod destruction {
    #![doc = include_str!("manual/destruction.md")]
}

pub mod access {
    #![doc = include_str!("manual/access.md")]
}

pub mod audit {
    #![doc = include_str!("manual/audit.md")]
}

pub mod clocks {
    #![doc = include_str!("manual/clocks.md")]
}

pub mod vectors {
    #![doc = include_str!("manual/vectors.md")]
    //! ```json
    #![doc = include_str!("../tests/vectors/format-v1.json")]
    //! ```
}

pub mod threat {
    #![doc = include_str!("manual/threat.md")]
}

pub mod operations {
    #![doc = include_str!("manual/operations.md")]
}

pub mod design {
    #![doc = include_str!("manual/design.md")]
}
