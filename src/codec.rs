//! The strict binary codec of headers, rings and epoch records.
//!
//! Integers are big-endian and of fixed width; byte strings carry their length
//! in front. There is one encoding of each value: a decoder refuses what its
//! encoder would not have written, trailing bytes included. Separate from the
//! types that use it so that bounds are checked in one place.
//!
//! The bytes come from a storage that may write anything: nothing here panics
//! on them, and no length is believed before the bytes are there.

use thiserror::Error;

/// Bytes that are not the one encoding of a value.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// It ends before the value does.
    #[error("the encoding is truncated")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the end of the encoding")]
    Trailing,
    /// A field holds what no encoder writes.
    #[error("field `{0}` is not canonical")]
    Invalid(&'static str),
    /// It does not begin with the format's magic bytes.
    #[error("not of this format")]
    Magic,
    /// A later version of the format, undamaged.
    #[error("format version {0} is newer than this program")]
    Version(u8),
}

/// A value with one strict binary encoding.
pub trait Encode {
    /// Appends the encoding to `out`.
    fn encode(&self, out: &mut Writer);

    /// The encoding on its own.
    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::default();
        self.encode(&mut out);
        out.into_bytes()
    }
}

/// A value that can be read back from its encoding.
pub trait Decode: Sized {
    /// Reads one value from the front of `from`.
    ///
    /// # Errors
    /// [`DecodeError`] if the bytes are not what [`Encode`] writes.
    fn decode(from: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads a value that takes up all of `bytes`.
    ///
    /// # Errors
    /// As [`Decode::decode`], and [`DecodeError::Trailing`].
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::decode(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// Collects an encoding.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Appends one byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    /// Appends 2 bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends 4 bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends 8 bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Appends bytes whose length both sides know.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends a 4-byte length and the bytes.
    ///
    /// # Panics
    /// If there are 4 GiB or more; everything encoded here is bounded far below.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).expect("encoded fields are far below 4 GiB");
        self.u32(length).raw(bytes)
    }

    /// Appends the magic bytes and a version, see [`Reader::version`].
    pub fn version(&mut self, magic: &[u8; 8], version: u8) -> &mut Self {
        self.raw(magic).u8(version).u8(!version)
    }

    /// Appends a 4-byte count and each item.
    ///
    /// # Panics
    /// If there are 2^32 items or more.
    pub fn list<T: Encode>(&mut self, items: &[T]) -> &mut Self {
        self.u32(u32::try_from(items.len()).expect("encoded lists are far below 2^32 items"));
        for item in items {
            item.encode(self);
        }
        self
    }

    /// What was appended so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The encoding.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads an encoding from the front.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    consumed: usize,
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, consumed: 0 }
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], as all readers here.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// The next 2 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    /// The next 4 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    /// The next 8 bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.raw(N)?;
        Ok(taken.try_into().expect("raw(N) gives N bytes"))
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.bytes = rest;
        self.consumed += length;
        Ok(taken)
    }

    /// A byte string of at most `limit` bytes with its length in front.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], or [`DecodeError::Invalid`] with `field` if
    /// it is longer than `limit`.
    pub fn bytes(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.u32()?).map_err(|_| DecodeError::Invalid(field))?;
        if length > limit {
            return Err(DecodeError::Invalid(field));
        }
        self.raw(length)
    }

    /// A UTF-8 string of at most `limit` bytes with its length in front.
    ///
    /// # Errors
    /// As [`Reader::bytes`], and [`DecodeError::Invalid`] if it is not UTF-8.
    pub fn string(&mut self, field: &'static str, limit: usize) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(field, limit)?).map_err(|_| DecodeError::Invalid(field))
    }

    /// A list with its count in front.
    ///
    /// # Errors
    /// Those of the items. A false count runs into the end of the bytes before
    /// memory is set aside for it.
    pub fn list<T: Decode>(&mut self) -> Result<Vec<T>, DecodeError> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(T::decode(self)?);
        }
        Ok(items)
    }

    /// Magic bytes, then a version byte and its complement. The complement
    /// tells a later version from a damaged version byte.
    ///
    /// # Errors
    /// [`DecodeError::Magic`]; [`DecodeError::Version`] for an intact version
    /// above `newest`; [`DecodeError::Invalid`] for a damaged one.
    pub fn version(&mut self, magic: &[u8; 8], newest: u8) -> Result<u8, DecodeError> {
        if self.array::<8>()? != *magic {
            return Err(DecodeError::Magic);
        }
        let [version, complement] = self.array()?;
        if version != !complement || version == 0 {
            return Err(DecodeError::Invalid("version"));
        }
        if version > newest {
            return Err(DecodeError::Version(version));
        }
        Ok(version)
    }

    /// How many bytes were read so far.
    #[must_use]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Trailing) }
    }
}

/// Checks that `items` are strictly ascending by `key`: sorted, no duplicates.
///
/// # Errors
/// [`DecodeError::Invalid`] with `field`.
pub fn strictly_ascending<T, K: Ord>(
    items: &[T],
    field: &'static str,
    key: impl Fn(&T) -> K,
) -> Result<(), DecodeError> {
    if items.is_sorted_by(|a, b| key(a) < key(b)) { Ok(()) } else { Err(DecodeError::Invalid(field)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: &[u8; 8] = b"testtest";

    #[test]
    fn what_is_written_reads_back() {
        let mut out = Writer::default();
        out.version(MAGIC, 1).u8(1).u16(2).u32(3).u64(4).bytes(b"abc");
        let bytes = out.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.version(MAGIC, 1), Ok(1));
        assert_eq!((reader.u8(), reader.u16()), (Ok(1), Ok(2)));
        assert_eq!((reader.u32(), reader.u64()), (Ok(3), Ok(4)));
        assert_eq!(reader.bytes("x", 3), Ok(b"abc".as_slice()));
        assert_eq!(reader.consumed(), bytes.len());
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_damaged_version_is_not_a_newer_one() {
        for flipped in 0..16u8 {
            let mut out = Writer::default();
            out.version(MAGIC, 1);
            let mut bytes = out.into_bytes();
            bytes[8 + usize::from(flipped / 8)] ^= 1 << (flipped % 8);
            assert_eq!(Reader::new(&bytes).version(MAGIC, 1), Err(DecodeError::Invalid("version")));
        }
        let mut newer = Writer::default();
        newer.version(MAGIC, 2);
        assert_eq!(Reader::new(newer.as_bytes()).version(MAGIC, 1), Err(DecodeError::Version(2)));
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut reader = Reader::new(&[0xFF, 0xFF, 0xFF, 0xFF, 1]);
        assert_eq!(reader.bytes("x", usize::MAX), Err(DecodeError::Truncated));
        let mut reader = Reader::new(&[0, 0, 0, 9, 1]);
        assert_eq!(reader.bytes("x", 8), Err(DecodeError::Invalid("x")));
        assert_eq!(Reader::new(&[1]).finish(), Err(DecodeError::Trailing));
    }

    #[test]
    fn order_is_strict() {
        assert_eq!(strictly_ascending(&[1, 2, 3], "n", |n| *n), Ok(()));
        assert!(strictly_ascending(&[1, 1], "n", |n| *n).is_err());
        assert!(strictly_ascending(&[2, 1], "n", |n| *n).is_err());
    }
}
