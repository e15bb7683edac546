//! The embedded key provider.
