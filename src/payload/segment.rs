//! A run of plaintext chunks, laid out so that they can be sealed where they
//! stand.

use std::fmt;

use zeroize::Zeroize;

use super::{CHUNK_LEN, SEALED_CHUNK_LEN};
use crate::suite::TAG_LEN;

/// The plaintext of a segment in bulk work: 64 chunks, 1 MiB. Long enough to
/// pay for a thread's while, short enough for its cache.
pub const SEGMENT_LEN: usize = 64 * CHUNK_LEN;

/// Plaintext being collected for a [`Sealer`](super::Sealer), in one buffer with
/// room for the tags: chunk `k` of the segment stands at `k * SEALED_CHUNK_LEN`,
/// its tag will stand right behind it, and nothing is moved on the way from the
/// reader to the storage.
///
/// The plaintext is not wiped if the segment is dropped unsealed.
pub struct Segment {
    /// As long as its plaintext room with all tags, and one more for an empty
    /// last chunk.
    buffer: Vec<u8>,
    filled: usize,
    room: usize,
}

impl Segment {
    /// An empty segment with room for this many bytes of plaintext.
    ///
    /// # Panics
    /// If the room with its tags does not fit into the address space.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self::reuse(Vec::new(), room)
    }

    /// An empty segment in a buffer that has been used before, whose memory need
    /// not be asked for and cleared again. What it holds is not kept.
    ///
    /// # Panics
    /// As [`Segment::new`].
    #[must_use]
    pub fn reuse(mut buffer: Vec<u8>, room: usize) -> Self {
        let length = sealed_len(room).expect("segments are far smaller than the address space");
        if buffer.capacity() < length {
            // Zeroed pages straight from the allocator.
            buffer = vec![0; length];
        }
        buffer.resize(length, 0);
        Self { buffer, filled: 0, room }
    }

    /// The plaintext collected so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether there is no plaintext yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Whether there is no room left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.filled == self.room
    }

    /// Where the next plaintext goes: the rest of the current chunk. Empty if
    /// and only if the segment is full. Follow with [`Segment::advance`].
    #[must_use]
    pub fn unfilled(&mut self) -> &mut [u8] {
        self.unfilled_chunks().next().unwrap_or_default()
    }

    /// Where all further plaintext goes, chunk by chunk, for a vectored read.
    /// Follow with [`Segment::advance`].
    pub fn unfilled_chunks(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (skip_chunks, skip) = (self.filled / CHUNK_LEN, self.filled % CHUNK_LEN);
        let (filled, room) = (self.filled, self.room);
        let chunks = self.buffer.chunks_mut(SEALED_CHUNK_LEN).enumerate().skip(skip_chunks);
        chunks.map_while(move |(index, chunk)| {
            let start = index * CHUNK_LEN;
            let end = room.min(start + CHUNK_LEN);
            let skip = if start < filled { skip } else { 0 };
            (start + skip < end).then(|| &mut chunk[skip..end - start])
        })
    }

    /// Takes the next `count` bytes of what [`Segment::unfilled`] or
    /// [`Segment::unfilled_chunks`] lent as plaintext.
    ///
    /// # Panics
    /// If there is not that much room.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.room - self.filled, "no reader fills more than it was given");
        self.filled += count;
    }

    /// Copies plaintext in as far as there is room, and returns how much that
    /// was, in bytes.
    pub fn copy_from(&mut self, plaintext: &[u8]) -> usize {
        let mut rest = plaintext;
        for room in self.unfilled_chunks() {
            let (now, later) = rest.split_at(room.len().min(rest.len()));
            room[..now.len()].copy_from_slice(now);
            rest = later;
        }
        let copied = plaintext.len() - rest.len();
        self.advance(copied);
        copied
    }

    /// The plaintext, chunk by chunk.
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let filled = self.filled;
        self.buffer.chunks(SEALED_CHUNK_LEN).enumerate().map_while(move |(index, chunk)| {
            let start = index * CHUNK_LEN;
            (start < filled).then(|| &chunk[..CHUNK_LEN.min(filled - start)])
        })
    }

    /// The buffer, wiped, for another segment.
    #[must_use]
    pub fn into_wiped(mut self) -> Vec<u8> {
        self.buffer.zeroize();
        self.buffer
    }

    /// The buffer, cut to full chunks with their tags, or to these and a last,
    /// short chunk with its own.
    pub(super) fn into_buffer(self, last: bool) -> Vec<u8> {
        let mut buffer = self.buffer;
        let full = self.filled / CHUNK_LEN * SEALED_CHUNK_LEN;
        buffer.truncate(if last { full + self.filled % CHUNK_LEN + TAG_LEN } else { full });
        buffer
    }
}

/// The length of so much plaintext as full chunks and a last one, if it fits.
fn sealed_len(plaintext_len: usize) -> Option<usize> {
    let tags = (plaintext_len / CHUNK_LEN).checked_add(1)?.checked_mul(TAG_LEN)?;
    plaintext_len.checked_add(tags)
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment").field("filled", &self.filled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stands_where_it_will_be_sealed() {
        let mut segment = Segment::new(2 * CHUNK_LEN + 10);
        assert!(segment.is_empty() && !segment.is_full());
        let lengths = |segment: &mut Segment| segment.unfilled_chunks().map(|c| c.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&mut segment), [CHUNK_LEN, CHUNK_LEN, 10]);
        segment.unfilled()[0] = 1;
        segment.advance(CHUNK_LEN - 1);
        assert_eq!(lengths(&mut segment), [1, CHUNK_LEN, 10]);
        segment.unfilled()[0] = 2;
        segment.advance(1);
        segment.unfilled()[0] = 3;
        assert_eq!(lengths(&mut segment), [CHUNK_LEN, 10]);
        segment.advance(CHUNK_LEN + 9);
        segment.unfilled()[0] = 4;
        assert_eq!((lengths(&mut segment), segment.len()), (vec![1], 2 * CHUNK_LEN + 9));
        segment.advance(1);
        assert!(segment.is_full() && segment.unfilled().is_empty());
        assert_eq!(segment.copy_from(b"more"), 0);
        let buffer = segment.into_buffer(true);
        assert_eq!(buffer.len(), 2 * SEALED_CHUNK_LEN + 10 + TAG_LEN);
        for (offset, byte) in
            [(0, 1), (CHUNK_LEN - 1, 2), (SEALED_CHUNK_LEN, 3), (2 * SEALED_CHUNK_LEN + 9, 4)]
        {
            assert_eq!(buffer[offset], byte);
        }
    }

    #[test]
    fn a_full_segment_still_has_room_for_an_empty_last_chunk() {
        for room in [0, 1, CHUNK_LEN - 1, CHUNK_LEN, CHUNK_LEN + 1, SEGMENT_LEN] {
            let mut segment = Segment::new(room);
            assert_eq!(segment.copy_from(&vec![1; room + 1]), room);
            let buffer = segment.into_buffer(true);
            assert_eq!(Some(buffer.len()), sealed_len(room));
        }
    }

    #[test]
    fn used_buffers_are_fitted_without_a_new_allocation_where_they_suffice() {
        let used = vec![7; SEGMENT_LEN];
        let address = used.as_ptr();
        let segment = Segment::reuse(used, CHUNK_LEN);
        assert_eq!((segment.buffer.as_ptr(), segment.buffer.len()), (address, SEALED_CHUNK_LEN + TAG_LEN));
        assert_eq!(Segment::reuse(vec![7; 3], CHUNK_LEN).buffer.len(), SEALED_CHUNK_LEN + TAG_LEN);
    }

    #[test]
    #[should_panic(expected = "no reader fills more than it was given")]
    fn more_than_the_room_is_refused() {
        Segment::new(10).advance(11);
    }
}
