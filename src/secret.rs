//! Secret bytes: boxed, wiped when dropped, never printed, never copied.
//!
//! Every key in the program is a [`Secret`]; the newtypes over it say which
//! key it is. Separate from the rest so that the rules are kept in one place:
//! no `Clone`, no serialisation, `Debug` without content, equality in constant
//! time only.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes on the heap, so that moving the value leaves no copy behind.
#[derive(ZeroizeOnDrop)]
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Secret bytes written in place by `fill`.
    pub fn try_init<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// Secret bytes written in place by `fill`, which cannot fail.
    pub fn init(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// Takes the bytes out of `bytes` and wipes them there. `None` if the
    /// length is not `N`; they are wiped all the same.
    #[must_use]
    pub fn take_from(bytes: &mut [u8]) -> Option<Self> {
        let taken = <&[u8; N]>::try_from(&*bytes).ok().map(|found| Self::init(|to| *to = *found));
        bytes.zeroize();
        taken
    }

    /// The bytes themselves. Keep the borrow short and copy nothing out of it.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> ConstantTimeEq for Secret<N> {
    fn ct_eq(&self, other: &Self) -> subtle::Choice {
        self.0.as_slice().ct_eq(other.0.as_slice())
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_not_impl_any!(Secret<32>: Clone, Copy, fmt::Display, serde::Serialize, PartialEq);
    static_assertions::assert_impl_all!(Secret<32>: ZeroizeOnDrop, Send, Sync);

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret::<4>::init(|bytes| *bytes = *b"\xAA\xBB\xCC\xDD");
        assert_eq!(format!("{secret:?}"), "Secret { .. }");
    }

    #[test]
    fn taking_wipes_the_source_even_when_the_length_is_wrong() {
        let mut good = [7u8; 4];
        assert_eq!(Secret::<4>::take_from(&mut good).map(|s| *s.expose()), Some([7; 4]));
        assert_eq!(good, [0; 4]);
        let mut bad = [7u8; 5];
        assert!(Secret::<4>::take_from(&mut bad).is_none());
        assert_eq!(bad, [0; 5]);
    }
}
