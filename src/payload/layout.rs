//! Where everything stands in a payload of a given length: arithmetic only.
//!
//! Separate from the cryptography because the lengths come from a storage that
//! may claim anything: all of it is `u64`, checked, and free of panics.

use std::ops::Range;

use thiserror::Error;

use super::{CHUNK_LEN, MAX_CHUNKS, PROLOGUE_LEN, SEALED_CHUNK_LEN};
use crate::suite::TAG_LEN;

const CHUNK: u64 = CHUNK_LEN as u64;
const SEALED_CHUNK: u64 = SEALED_CHUNK_LEN as u64;
const PROLOGUE: u64 = PROLOGUE_LEN as u64;
const TAG: u64 = TAG_LEN as u64;

/// The longest plaintext, in bytes: 4 PiB - 1 (C2SP chunked-encryption,
/// "Message chunking").
pub const MAX_PLAINTEXT_LEN: u64 = MAX_CHUNKS * CHUNK - 1;

/// A length that no payload has. Lengths are public, so this may be told.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LengthError {
    /// It ends where a chunk ends, and the short last chunk is missing.
    #[error("the payload is truncated at a chunk boundary")]
    Truncated,
    /// It ends inside the prologue or inside a tag.
    #[error("no payload has this length")]
    Invalid,
    /// It has more chunks than [`MAX_CHUNKS`].
    #[error("the payload is longer than the format allows")]
    TooLong,
}

/// The layout of a payload: prologue, full chunks, and the last chunk, which is
/// shorter and may be empty. There is one for each plaintext length.
///
/// Made from what a storage claims, it is a claim too, until the last chunk has
/// opened where this says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// At most `MAX_PLAINTEXT_LEN`, so that nothing below overflows.
    plaintext_len: u64,
}

/// What to read in order to get at a range of the plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The chunks that hold the range, by number.
    pub chunks: Range<u64>,
    /// Where they stand, in bytes from the start of the payload.
    pub sealed: Range<u64>,
    /// Where the range begins in their plaintext, in bytes.
    pub skip: usize,
}

impl Layout {
    /// The layout of a plaintext of this many bytes; `None` above
    /// [`MAX_PLAINTEXT_LEN`].
    #[must_use]
    pub fn of_plaintext(plaintext_len: u64) -> Option<Self> {
        (plaintext_len <= MAX_PLAINTEXT_LEN).then_some(Self { plaintext_len })
    }

    /// The layout of a payload of this many bytes, prologue included (C2SP
    /// chunked-encryption, "Implementation notes").
    ///
    /// # Errors
    /// [`LengthError`] if no payload is that long.
    pub fn of_sealed(sealed_len: u64) -> Result<Self, LengthError> {
        let body = sealed_len.checked_sub(PROLOGUE).ok_or(LengthError::Invalid)?;
        let (full_chunks, last) = (body / SEALED_CHUNK, body % SEALED_CHUNK);
        if full_chunks >= MAX_CHUNKS {
            return Err(LengthError::TooLong);
        }
        match last.checked_sub(TAG) {
            Some(last) => Ok(Self { plaintext_len: full_chunks * CHUNK + last }),
            None if last == 0 => Err(LengthError::Truncated),
            None => Err(LengthError::Invalid),
        }
    }

    /// The length of the plaintext, in bytes.
    #[must_use]
    pub fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// The length of the payload, prologue included, in bytes.
    #[must_use]
    pub fn sealed_len(&self) -> u64 {
        PROLOGUE + self.last_chunk() * SEALED_CHUNK + self.plaintext_len % CHUNK + TAG
    }

    /// The number of the last chunk, which is the short one.
    #[must_use]
    pub fn last_chunk(&self) -> u64 {
        self.plaintext_len / CHUNK
    }

    /// How many chunks there are: at least one.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.last_chunk() + 1
    }

    /// The length of a sealed chunk, tag included, in bytes; `None` behind the
    /// last.
    #[must_use]
    pub fn sealed_chunk_len(&self, chunk: u64) -> Option<usize> {
        if chunk < self.last_chunk() {
            return Some(SEALED_CHUNK_LEN);
        }
        let last = usize::try_from(self.plaintext_len % CHUNK).expect("less than a chunk");
        (chunk == self.last_chunk()).then_some(last + TAG_LEN)
    }

    /// Where these chunks stand, in bytes from the start of the payload; `None`
    /// if they are not all part of it.
    #[must_use]
    pub fn sealed_range(&self, chunks: Range<u64>) -> Option<Range<u64>> {
        if chunks.start > chunks.end || chunks.end > self.chunks() {
            return None;
        }
        let offset = |chunk: u64| (PROLOGUE + chunk * SEALED_CHUNK).min(self.sealed_len());
        Some(offset(chunks.start)..offset(chunks.end))
    }

    /// What holds this range of the plaintext, in bytes; `None` if it is not all
    /// part of it. An empty range needs no chunk.
    #[must_use]
    pub fn span(&self, plaintext: Range<u64>) -> Option<Span> {
        if plaintext.start > plaintext.end || plaintext.end > self.plaintext_len {
            return None;
        }
        let first = plaintext.start / CHUNK;
        let end = if plaintext.is_empty() { first } else { plaintext.end.div_ceil(CHUNK) };
        Some(Span {
            chunks: first..end,
            sealed: self.sealed_range(first..end)?,
            skip: usize::try_from(plaintext.start % CHUNK).expect("less than a chunk"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_those_of_the_specification() {
        for (plaintext, sealed, chunks) in [
            (0, 56 + 16, 1),
            (1024, 56 + 1024 + 16, 1),
            (16383, 56 + 16399, 1),
            (16384, 56 + 16400 + 16, 2),
            (20 * 1024, 56 + 16400 + 4096 + 16, 2),
            (MAX_PLAINTEXT_LEN, 56 + (MAX_CHUNKS - 1) * 16400 + 16399, MAX_CHUNKS),
        ] {
            let layout = Layout::of_plaintext(plaintext).unwrap();
            assert_eq!((layout.sealed_len(), layout.chunks()), (sealed, chunks), "{plaintext} bytes");
            assert_eq!(Layout::of_sealed(sealed), Ok(layout));
        }
        assert_eq!(MAX_PLAINTEXT_LEN, (4 << 50) - 1);
        assert_eq!(Layout::of_plaintext(MAX_PLAINTEXT_LEN + 1), None);
    }

    #[test]
    fn lengths_that_no_payload_has_are_refused() {
        for chunks in [0, 1, 2, 1000, MAX_CHUNKS - 1] {
            let boundary = 56 + chunks * 16400;
            assert_eq!(Layout::of_sealed(boundary), Err(LengthError::Truncated));
            assert_eq!(Layout::of_sealed(boundary + 1), Err(LengthError::Invalid));
            assert_eq!(Layout::of_sealed(boundary + 15), Err(LengthError::Invalid));
            assert!(Layout::of_sealed(boundary + 16).is_ok());
        }
        for short in 0..56 {
            assert_eq!(Layout::of_sealed(short), Err(LengthError::Invalid));
        }
        for long in [56 + MAX_CHUNKS * 16400, 56 + MAX_CHUNKS * 16400 + 16, u64::MAX] {
            assert_eq!(Layout::of_sealed(long), Err(LengthError::TooLong));
        }
    }

    #[test]
    fn spans_at_the_edges() {
        let layout = Layout::of_plaintext(2 * 16384).unwrap();
        assert_eq!(layout.span(0..1).unwrap().chunks, 0..1);
        assert_eq!(layout.span(16383..16384).unwrap().chunks, 0..1);
        assert_eq!(layout.span(16383..16385).unwrap().chunks, 0..2);
        assert_eq!(layout.span(16384..32768).unwrap().chunks, 1..2);
        assert_eq!(layout.span(32768..32768).unwrap(), Span { chunks: 2..2, sealed: 32856..32856, skip: 0 });
        assert_eq!(layout.sealed_range(2..3), Some(32856..32872));
        assert_eq!(layout.sealed_range(3..3), Some(32872..32872));
        assert_eq!(layout.sealed_range(2..4), None);
        assert_eq!(layout.span(0..32769), None);
        #[expect(clippy::reversed_empty_ranges, reason = "hostile ranges")]
        let reversed = (layout.span(2..1), layout.sealed_range(2..1));
        assert_eq!(reversed, (None, None));
        assert_eq!(layout.span(u64::MAX..u64::MAX), None);
    }

    proptest! {
        /// Accepted lengths are exactly those that sealing gives, and nothing panics.
        #[test]
        fn any_length(length: u64, chunk: u64, start: u64, end: u64) {
            for length in [length, length >> 12, length % 100_000] {
                if let Ok(layout) = Layout::of_sealed(length) {
                    prop_assert_eq!(layout.sealed_len(), length);
                    prop_assert_eq!(Layout::of_plaintext(layout.plaintext_len()), Some(layout));
                    let _ = layout.sealed_chunk_len(chunk);
                    let _ = layout.sealed_range(start..end);
                    let _ = layout.span(start..end);
                }
            }
        }

        #[test]
        fn spans_hold_their_range_and_no_needless_chunk(
            length in 1..(1u64 << 52), start: u64, wanted: u64,
        ) {
            let layout = Layout::of_plaintext(length).unwrap();
            let start = start % length;
            let end = start + 1 + wanted % (length - start);
            let span = layout.span(start..end).unwrap();
            let first = span.chunks.start * CHUNK;
            prop_assert_eq!(first + span.skip as u64, start);
            prop_assert!(span.skip < CHUNK_LEN);
            prop_assert!(end <= span.chunks.end * CHUNK && end > (span.chunks.end - 1) * CHUNK);
            let last = layout.sealed_chunk_len(span.chunks.end - 1).unwrap() as u64;
            let chunks = span.chunks.end - span.chunks.start;
            prop_assert_eq!(span.sealed.end - span.sealed.start, (chunks - 1) * SEALED_CHUNK + last);
        }
    }
}
