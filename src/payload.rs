//! The payload: C2SP chunked-encryption v1, to the letter.
//!
//! `salt (24) ‖ commitment (32) ‖ sealed chunks`. Every chunk holds 16 KiB of
//! plaintext and a tag, except the last, which is shorter and may be empty; that
//! it is short is what ends the message. Separate from the header, of which it
//! knows one thing: the hash it is given as context.
//!
//! Only the storage's bytes come in here, and the storage may write anything.
//! Invariants, and what upholds them:
//!
//! * *A nonce is used once.* A [`Sealer`] hands out each chunk number once, in
//!   order, bound to its plaintext in a [`SealJob`], which is consumed by being
//!   run. Jobs may run on any thread, in any order. A second sealer under the
//!   same DEK needs another salt.
//! * *One last chunk.* [`Sealer::last`] consumes the sealer; whatever else it
//!   seals is whole chunks. An [`Opener`] takes a short chunk where its
//!   [`Layout`] ends and nowhere else.
//! * *At most 2^38 chunks.* Checked where numbers are handed out, and by every
//!   [`Layout`].
//! * *Nothing unauthenticated gets out.* The commitment is checked before there
//!   is an [`Opener`]; a chunk that fails is wiped, and its number is not told.
//!
//! The key is derived from DEK, suite, salt and context in
//! [`schedule::payload`], which holds the labels and the argument why one key
//! never sees a nonce twice; a chunk's AAD is empty.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::schedule::{self, COMMITMENT_LEN, SALT_LEN, Salt};
use crate::secret::Secret;
use crate::suite::{AeadKey, KEY_LEN, NONCE_LEN, OpenError, Suite, TAG_LEN};

mod layout;
mod segment;

pub use layout::{Layout, LengthError, MAX_PLAINTEXT_LEN, Span};
pub use segment::{SEGMENT_LEN, Segment};

/// The plaintext of every chunk but the last, in bytes.
pub const CHUNK_LEN: usize = 16 * 1024;
/// A chunk of full length with its tag, in bytes.
pub const SEALED_CHUNK_LEN: usize = CHUNK_LEN + TAG_LEN;
/// What stands before the chunks, salt and commitment, in bytes.
pub const PROLOGUE_LEN: usize = SALT_LEN + COMMITMENT_LEN;
/// The most chunks a payload may have, the last included.
pub const MAX_CHUNKS: u64 = 1 << 38;

/// The bytes before the first chunk.
pub type Prologue = [u8; PROLOGUE_LEN];

/// Why plaintext was not sealed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// The message is longer than [`MAX_PLAINTEXT_LEN`].
    #[error("the message is longer than the format allows")]
    TooLong,
    /// A segment that is not the last does not end with a whole chunk.
    #[error("only the last segment of a message may end within a chunk")]
    PartialChunk,
}

/// Seals one message. It numbers the segments in the order of the message; the
/// work itself is in the [`SealJob`]s.
#[must_use = "a message without its last chunk does not open"]
pub struct Sealer {
    cipher: Arc<ChunkCipher>,
    prologue: Prologue,
    next_chunk: u64,
}

impl Sealer {
    /// A sealer for one message. `salt` must never be used again with this DEK.
    pub fn new(dek: &Secret<KEY_LEN>, suite: Suite, salt: &Salt, context: &[u8]) -> Self {
        let (cipher, commitment) = ChunkCipher::derive(dek, suite, salt, context);
        let mut prologue = [0; PROLOGUE_LEN];
        prologue[..SALT_LEN].copy_from_slice(salt);
        prologue[SALT_LEN..].copy_from_slice(&commitment);
        Self { cipher: Arc::new(cipher), prologue, next_chunk: 0 }
    }

    /// What the payload begins with.
    #[must_use]
    pub fn prologue(&self) -> &Prologue {
        &self.prologue
    }

    /// Takes the next part of the message: whole chunks, any number of them.
    ///
    /// # Errors
    /// [`SealError::PartialChunk`]; [`SealError::TooLong`] if no room is left
    /// for a last chunk behind these.
    pub fn segment(&mut self, segment: Segment) -> Result<SealJob, SealError> {
        if !segment.len().is_multiple_of(CHUNK_LEN) {
            return Err(SealError::PartialChunk);
        }
        let after = chunk_after(self.next_chunk, &segment).ok_or(SealError::TooLong)?;
        let first_chunk = std::mem::replace(&mut self.next_chunk, after);
        Ok(SealJob { cipher: Arc::clone(&self.cipher), first_chunk, buffer: segment.into_buffer(false) })
    }

    /// Takes the end of the message: whole chunks, any number of them, and the
    /// short one, which is empty if the plaintext ended with a whole chunk.
    ///
    /// # Errors
    /// [`SealError::TooLong`].
    pub fn last(self, segment: Segment) -> Result<SealJob, SealError> {
        chunk_after(self.next_chunk, &segment).ok_or(SealError::TooLong)?;
        let buffer = segment.into_buffer(true);
        Ok(SealJob { cipher: self.cipher, first_chunk: self.next_chunk, buffer })
    }
}

/// The number of the chunk that follows a segment's whole chunks. There must be
/// one below the limit, as every message ends with a short chunk.
fn chunk_after(next_chunk: u64, segment: &Segment) -> Option<u64> {
    let whole = u64::try_from(segment.len() / CHUNK_LEN).ok()?;
    next_chunk.checked_add(whole).filter(|after| *after < MAX_CHUNKS)
}

/// A part of a message with its chunk numbers, still to be sealed: on any
/// thread, once.
#[must_use = "these chunk numbers are used up, and the plaintext is not sealed"]
pub struct SealJob {
    cipher: Arc<ChunkCipher>,
    first_chunk: u64,
    /// Whole chunks, and at the end of the message a shorter one, each with
    /// room for its tag.
    buffer: Vec<u8>,
}

impl SealJob {
    /// Seals the part where it stands and returns it: what follows in the
    /// payload behind the part before, or behind the prologue.
    #[must_use]
    pub fn run(mut self) -> Vec<u8> {
        for (number, chunk) in (self.first_chunk..).zip(self.buffer.chunks_mut(SEALED_CHUNK_LEN)) {
            let (text, tag) = split_tag(chunk).expect("segments leave room for every tag");
            *tag = self.cipher.seal(number, text);
        }
        self.buffer
    }
}

/// Opens the chunks of one payload, in any order and from any thread.
pub struct Opener {
    cipher: ChunkCipher,
    layout: Layout,
}

impl Opener {
    /// An opener for the payload of this layout that begins with `prologue`.
    ///
    /// # Errors
    /// [`OpenError`] if it was not sealed under this DEK, suite and context.
    pub fn new(
        dek: &Secret<KEY_LEN>,
        suite: Suite,
        context: &[u8],
        prologue: &Prologue,
        layout: Layout,
    ) -> Result<Self, OpenError> {
        let (salt, committed) = prologue.split_first_chunk::<SALT_LEN>().expect("it begins with a salt");
        let (cipher, commitment) = ChunkCipher::derive(dek, suite, salt, context);
        if !bool::from(commitment.ct_eq(committed)) {
            return Err(OpenError);
        }
        Ok(Self { cipher, layout })
    }

    /// The layout it was made for. Its length is authentic once its last chunk
    /// has opened, so open that one before a position relative to the end.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Opens consecutive sealed chunks, of which the first has the number
    /// `first_chunk`, and returns the length of their plaintext, which then
    /// stands at the front of the buffer. What stands behind it means nothing.
    ///
    /// # Errors
    /// [`Interrupted`] at the first chunk that is not what was sealed, or is not
    /// wholly there, or lies behind the last. Such a chunk is wiped or still
    /// sealed; those before it are authentic.
    pub fn open_in_place(&self, first_chunk: u64, sealed: &mut [u8]) -> Result<usize, Interrupted> {
        let (mut number, mut read, mut opened) = (first_chunk, 0, 0);
        while read < sealed.len() {
            let interrupted = Interrupted { authentic_len: opened };
            let chunk_len = self.layout.sealed_chunk_len(number).ok_or(interrupted)?;
            let chunk = sealed[read..].get_mut(..chunk_len).ok_or(interrupted)?;
            let (text, tag) = split_tag(chunk).ok_or(interrupted)?;
            self.cipher.open(number, text, tag).map_err(|OpenError| interrupted)?;
            let text_len = text.len();
            if opened < read {
                sealed.copy_within(read..read + text_len, opened);
            }
            number += 1;
            read += chunk_len;
            opened += text_len;
        }
        Ok(opened)
    }
}

/// A chunk did not open. Says as little as [`OpenError`], whose sentence it has,
/// except to who holds the buffer: how much of it may be used.
#[derive(Clone, Copy, Error, PartialEq, Eq)]
#[error("{OpenError}")]
pub struct Interrupted {
    authentic_len: usize,
}

impl Interrupted {
    /// How much of the front of the buffer is authentic plaintext, in bytes:
    /// whole chunks, up to the one that failed. It may be released as part of a
    /// stream that then fails, never as a whole.
    #[must_use]
    pub fn authentic_len(&self) -> usize {
        self.authentic_len
    }
}

impl From<Interrupted> for OpenError {
    fn from(_: Interrupted) -> Self {
        Self
    }
}

/// Seals a small message in one go, prologue included.
///
/// # Errors
/// [`SealError::TooLong`].
pub fn seal(
    dek: &Secret<KEY_LEN>,
    suite: Suite,
    salt: &Salt,
    context: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, SealError> {
    let sealer = Sealer::new(dek, suite, salt, context);
    let mut payload = sealer.prologue().to_vec();
    let mut segment = Segment::new(plaintext.len());
    segment.copy_from(plaintext);
    payload.append(&mut sealer.last(segment)?.run());
    Ok(payload)
}

/// Opens a small payload in one go, all of it or nothing.
///
/// # Errors
/// [`OpenError`], whatever is wrong with it.
pub fn open(
    dek: &Secret<KEY_LEN>,
    suite: Suite,
    context: &[u8],
    payload: &[u8],
) -> Result<Vec<u8>, OpenError> {
    let length = u64::try_from(payload.len()).map_err(|_| OpenError)?;
    let layout = Layout::of_sealed(length).map_err(|_| OpenError)?;
    let (prologue, sealed) = payload.split_first_chunk().ok_or(OpenError)?;
    let opener = Opener::new(dek, suite, context, prologue, layout)?;
    let mut buffer = sealed.to_vec();
    let opened = opener.open_in_place(0, &mut buffer)?;
    buffer.truncate(opened);
    Ok(buffer)
}

/// The AEAD of one message, by chunk number.
struct ChunkCipher {
    key: AeadKey,
    base_nonce: [u8; NONCE_LEN],
}

impl ChunkCipher {
    fn derive(
        dek: &Secret<KEY_LEN>,
        suite: Suite,
        salt: &Salt,
        context: &[u8],
    ) -> (Self, [u8; COMMITMENT_LEN]) {
        let keys = schedule::payload(dek, suite, salt, context);
        let cipher = Self { key: AeadKey::new(suite, &keys.key), base_nonce: keys.base_nonce };
        (cipher, keys.commitment)
    }

    fn seal(&self, chunk: u64, text: &mut [u8]) -> [u8; TAG_LEN] {
        self.key.seal_in_place(&self.nonce(chunk), &[], text)
    }

    fn open(&self, chunk: u64, text: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), OpenError> {
        self.key.open_in_place(&self.nonce(chunk), &[], text, tag)
    }

    /// C2SP chunked-encryption, "AEAD usage".
    fn nonce(&self, chunk: u64) -> [u8; NONCE_LEN] {
        let mut nonce = self.base_nonce;
        for (byte, counter) in nonce[NONCE_LEN - 8..].iter_mut().zip(chunk.to_be_bytes()) {
            *byte ^= counter;
        }
        nonce
    }
}

fn split_tag(chunk: &mut [u8]) -> Option<(&mut [u8], &mut [u8; TAG_LEN])> {
    chunk.split_last_chunk_mut()
}

macro_rules! debug_without_content {
    ($($name:ident),*) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        })*
    };
}

debug_without_content!(Sealer, SealJob, Opener, Interrupted);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    static_assertions::assert_impl_all!(Sealer: Send, Sync);
    static_assertions::assert_impl_all!(SealJob: Send, Sync);
    static_assertions::assert_impl_all!(Opener: Send, Sync);
    static_assertions::assert_not_impl_any!(Sealer: Clone);
    static_assertions::assert_not_impl_any!(SealJob: Clone);

    fn dek() -> Secret<KEY_LEN> {
        Secret::init(|out| out.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value))
    }

    const SALT: Salt = [9; SALT_LEN];

    /// Plaintext in which every chunk and every position differs.
    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 256).to_le_bytes()[0]).collect()
    }

    fn sealed(suite: Suite, plaintext: &[u8]) -> Vec<u8> {
        seal(&dek(), suite, &SALT, b"context", plaintext).unwrap()
    }

    fn opened(suite: Suite, payload: &[u8]) -> Result<Vec<u8>, OpenError> {
        open(&dek(), suite, b"context", payload)
    }

    fn opener(suite: Suite, payload: &[u8]) -> Opener {
        let layout = Layout::of_sealed(payload.len() as u64).unwrap();
        Opener::new(&dek(), suite, b"context", payload.first_chunk().unwrap(), layout).unwrap()
    }

    #[test]
    fn debug_shows_nothing() {
        let sealer = Sealer::new(&dek(), Suite::Aes256Gcm, &SALT, b"");
        assert_eq!(format!("{sealer:?}"), "Sealer { .. }");
        let mut segment = Segment::new(10);
        segment.copy_from(b"abc");
        assert_eq!(format!("{segment:?}"), "Segment { filled: 3, .. }");
        assert_eq!(format!("{:?}", sealer.last(segment).unwrap()), "SealJob { .. }");
        let failure = Interrupted { authentic_len: 5 };
        assert_eq!(
            (failure.to_string(), format!("{failure:?}")),
            (OpenError.to_string(), "Interrupted { .. }".into())
        );
    }

    #[test]
    fn whatever_was_sealed_opens_and_is_as_long_as_the_layout_says() {
        for suite in Suite::ALL {
            for length in [0, 1, 15, 16, 17, 16383, 16384, 16385, 32767, 32768, 100_000, 3 * SEGMENT_LEN + 1]
            {
                let payload = sealed(suite, &text(length));
                let layout = Layout::of_plaintext(length as u64).unwrap();
                assert_eq!(payload.len() as u64, layout.sealed_len());
                assert_eq!(opened(suite, &payload), Ok(text(length)), "{suite}, {length} bytes");
            }
        }
    }

    #[test]
    fn another_dek_suite_context_or_salt_is_refused_before_any_chunk() {
        let payload = sealed(Suite::Aes256Gcm, b"text");
        let layout = Layout::of_sealed(payload.len() as u64).unwrap();
        let prologue: Prologue = *payload.first_chunk().unwrap();
        let new = |dek: &_, suite, context: &[u8], prologue: &Prologue| {
            Opener::new(dek, suite, context, prologue, layout).err()
        };
        assert_eq!(new(&dek(), Suite::Aes256Gcm, b"context", &prologue), None);
        let other = Secret::init(|out| out.fill(1));
        assert_eq!(new(&other, Suite::Aes256Gcm, b"context", &prologue), Some(OpenError));
        assert_eq!(new(&dek(), Suite::ChaCha20Poly1305, b"context", &prologue), Some(OpenError));
        assert_eq!(new(&dek(), Suite::Aes256Gcm, b"contexts", &prologue), Some(OpenError));
        for bit in 0..PROLOGUE_LEN * 8 {
            let mut altered = prologue;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(new(&dek(), Suite::Aes256Gcm, b"context", &altered), Some(OpenError), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_of_a_short_message_is_refused() {
        for suite in Suite::ALL {
            let payload = sealed(suite, b"short");
            for length in 0..payload.len() {
                assert_eq!(opened(suite, &payload[..length]), Err(OpenError), "{length} bytes left");
            }
            for bit in 0..payload.len() * 8 {
                let mut altered = payload.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(opened(suite, &altered), Err(OpenError), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_longer_message_is_refused_when_cut_at_or_around_a_boundary() {
        let payload = sealed(Suite::Aes256Gcm, &text(3 * CHUNK_LEN + 100));
        for chunk in 0..=3 {
            let boundary = PROLOGUE_LEN + chunk * SEALED_CHUNK_LEN;
            for length in boundary - 17..=boundary + 17 {
                assert_eq!(
                    opened(Suite::Aes256Gcm, &payload[..length]),
                    Err(OpenError),
                    "{length} bytes left"
                );
            }
        }
    }

    /// Cut to whole chunks, and with a last chunk forged from what is at hand.
    #[test]
    fn a_chunk_does_not_pass_for_another_or_for_the_last() {
        let payload = sealed(Suite::Aes256Gcm, &text(2 * CHUNK_LEN + 100));
        let chunk = |number: usize| {
            let from = PROLOGUE_LEN + number * SEALED_CHUNK_LEN;
            &payload[from..payload.len().min(from + SEALED_CHUNK_LEN)]
        };
        let prologue = &payload[..PROLOGUE_LEN];
        for parts in [
            [chunk(1), chunk(0), chunk(2)].as_slice(),
            &[chunk(0), chunk(0), chunk(2)],
            &[chunk(0), chunk(2)],
            &[chunk(1), chunk(2)],
            &[chunk(2)],
            &[chunk(0), chunk(1), chunk(2), chunk(2)],
            &[chunk(0), chunk(1), chunk(1), chunk(2)],
            &[chunk(0), chunk(1), &chunk(1)[..SEALED_CHUNK_LEN - 1]],
            &[chunk(0), chunk(1), &[0; TAG_LEN]],
            &[chunk(0), chunk(1), chunk(2), b"x"],
            &[chunk(0), chunk(1), chunk(2), &[0; TAG_LEN]],
        ] {
            let forged = [prologue, &parts.concat()].concat();
            assert_eq!(opened(Suite::Aes256Gcm, &forged), Err(OpenError));
        }
    }

    #[test]
    fn chunks_before_the_failing_one_are_released_and_nothing_of_it() {
        for suite in Suite::ALL {
            let plaintext = text(5 * CHUNK_LEN + 1000);
            let payload = sealed(suite, &plaintext);
            let opener = opener(suite, &payload);
            for bad in 0..=5 {
                let mut body = payload[PROLOGUE_LEN..].to_vec();
                body[bad * SEALED_CHUNK_LEN + 500] ^= 1;
                let failure = opener.open_in_place(0, &mut body).unwrap_err();
                let released = bad * CHUNK_LEN;
                assert_eq!(failure.authentic_len(), released);
                assert!(body[..released] == plaintext[..released]);
                let wiped = &body[bad * SEALED_CHUNK_LEN..][..if bad < 5 { CHUNK_LEN } else { 1000 }];
                assert!(wiped.iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn any_run_of_chunks_opens_on_its_own() {
        let plaintext = text(4 * CHUNK_LEN);
        let payload = sealed(Suite::ChaCha20Poly1305, &plaintext);
        let opener = opener(Suite::ChaCha20Poly1305, &payload);
        let size = |length: u64| usize::try_from(length).unwrap();
        let range = |chunks| {
            let range = opener.layout().sealed_range(chunks).unwrap();
            payload[size(range.start)..size(range.end)].to_vec()
        };
        for start in 0..=5 {
            for end in start..=5 {
                let mut buffer = range(start..end);
                let length = opener.open_in_place(start, &mut buffer).unwrap();
                let from = (size(start) * CHUNK_LEN).min(plaintext.len());
                assert!(buffer[..length] == plaintext[from..plaintext.len().min(size(end) * CHUNK_LEN)]);
            }
        }
        // Not where they belong, not wholly there, or behind the end.
        for (first, length) in [(1, SEALED_CHUNK_LEN), (0, SEALED_CHUNK_LEN - 1), (5, 16), (u64::MAX, 16)] {
            let mut buffer = payload[PROLOGUE_LEN..][..length].to_vec();
            assert_eq!(opener.open_in_place(first, &mut buffer), Err(Interrupted { authentic_len: 0 }));
        }
        assert_eq!(opener.open_in_place(u64::MAX, &mut []), Ok(0));
    }

    #[test]
    fn the_last_chunk_number_is_the_limit() {
        let mut sealer = Sealer::new(&dek(), Suite::Aes256Gcm, &SALT, b"");
        sealer.next_chunk = MAX_CHUNKS - 2;
        let chunks = |count: usize| {
            let mut segment = Segment::new(count * CHUNK_LEN + 1);
            segment.copy_from(&text(count * CHUNK_LEN));
            segment
        };
        assert_eq!(sealer.segment(chunks(2)).unwrap_err(), SealError::TooLong);
        sealer.segment(chunks(1)).unwrap().run().truncate(0);
        assert_eq!(sealer.next_chunk, MAX_CHUNKS - 1);
        assert_eq!(sealer.segment(chunks(1)).unwrap_err(), SealError::TooLong);
        let mut one_too_many = Sealer::new(&dek(), Suite::Aes256Gcm, &SALT, b"");
        one_too_many.next_chunk = MAX_CHUNKS - 1;
        assert_eq!(one_too_many.last(chunks(1)).unwrap_err(), SealError::TooLong);
        let last = sealer.last(chunks(0)).unwrap();
        assert_eq!((last.first_chunk, last.run().len()), (MAX_CHUNKS - 1, TAG_LEN));
    }

    #[test]
    fn only_the_last_segment_may_end_within_a_chunk() {
        let mut sealer = Sealer::new(&dek(), Suite::Aes256Gcm, &SALT, b"");
        let mut segment = Segment::new(CHUNK_LEN);
        segment.copy_from(b"x");
        assert_eq!(sealer.segment(segment).unwrap_err(), SealError::PartialChunk);
    }

    #[test]
    fn the_nonce_is_the_base_with_the_number_in_its_last_bytes() {
        let cipher =
            ChunkCipher { key: AeadKey::new(Suite::Aes256Gcm, &dek()), base_nonce: [0xFF; NONCE_LEN] };
        assert_eq!(cipher.nonce(0), [0xFF; NONCE_LEN]);
        assert_eq!(cipher.nonce(0x01_02)[..], hex("fffffffffffffffffffffefd"));
        assert_eq!(cipher.nonce(MAX_CHUNKS - 1)[..], hex("ffffffffffffffc000000000"));
    }

    fn hex(digits: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(digits.as_bytes()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Segments of any sizes, in buffers used before, run in any order.
        #[test]
        fn every_split_into_segments_gives_the_same_bytes(
            splits in proptest::collection::vec(0usize..5, 0..6),
            rest in 0..2 * CHUNK_LEN,
            spare in 0..CHUNK_LEN,
            pieces in 1..30_000usize,
            backwards: bool,
        ) {
            let plaintext = text(splits.iter().sum::<usize>() * CHUNK_LEN + rest);
            let mut sealer = Sealer::new(&dek(), Suite::Aes256Gcm, &SALT, b"context");
            let mut payload = sealer.prologue().to_vec();
            let mut at = 0;
            let mut fill = |length: usize| {
                let mut segment = Segment::reuse(vec![0xEE; 3 * SEALED_CHUNK_LEN], length + spare);
                for piece in plaintext[at..at + length].chunks(pieces) {
                    assert_eq!(segment.copy_from(piece), piece.len());
                }
                at += length;
                segment
            };
            let mut jobs = Vec::new();
            for chunks in splits {
                jobs.push(sealer.segment(fill(chunks * CHUNK_LEN)).unwrap());
            }
            jobs.push(sealer.last(fill(rest)).unwrap());
            let mut parts: Vec<_> = (0..jobs.len()).zip(jobs).collect();
            if backwards {
                parts.reverse();
            }
            let mut parts: Vec<_> = parts.into_iter().map(|(index, job)| (index, job.run())).collect();
            parts.sort();
            payload.extend(parts.into_iter().flat_map(|(_, part)| part));
            prop_assert!(payload == sealed(Suite::Aes256Gcm, &plaintext));
        }

        #[test]
        fn any_flipped_bit_is_refused(length in 0..40_000usize, bit: prop::sample::Index, second: bool) {
            let suite = Suite::ALL[usize::from(second)];
            let mut payload = sealed(suite, &text(length));
            let bit = bit.index(payload.len() * 8);
            payload[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(opened(suite, &payload), Err(OpenError));
        }

        #[test]
        fn any_other_length_is_refused(
            length in 0..40_000usize, cut: prop::sample::Index, more in proptest::collection::vec(any::<u8>(), 1..20_000),
        ) {
            let payload = sealed(Suite::Aes256Gcm, &text(length));
            prop_assert_eq!(opened(Suite::Aes256Gcm, &payload[..cut.index(payload.len())]), Err(OpenError));
            prop_assert_eq!(opened(Suite::Aes256Gcm, &[payload, more].concat()), Err(OpenError));
        }
    }
}
