//! Reading and writing little-endian fields, with every end of input noticed.
//!
//! Used by every codec of `wire` and by the node's tables. Reading never panics: what is missing is a
//! [`DecodeError`] that names the field.

use bytes::Bytes;

/// Bytes that are not what their format says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {problem}")]
pub struct DecodeError {
    /// What was being read: `batch op 3`, `log record`, ...
    pub what: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl DecodeError {
    /// An error about `what`.
    pub fn new(what: &'static str, problem: impl Into<String>) -> Self {
        Self {
            what,
            problem: problem.into(),
        }
    }
}

/// A cursor over bytes that are read once, front to back. Slices it gives share the input's memory.
#[derive(Debug, Clone)]
pub struct Reader {
    what: &'static str,
    bytes: Bytes,
    /// What is read next.
    at: usize,
    /// Nothing from here on is read.
    end: usize,
}

impl Reader {
    /// Starts at the front of `bytes`; errors will speak of `what`.
    pub fn new(what: &'static str, bytes: Bytes) -> Self {
        Self {
            what,
            end: bytes.len(),
            at: 0,
            bytes,
        }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// An error about what is being read.
    pub fn error(&self, problem: impl Into<String>) -> DecodeError {
        DecodeError::new(self.what, problem)
    }

    fn need(&self, len: usize, field: &str) -> Result<(), DecodeError> {
        match self.remaining() {
            left if left < len => {
                Err(self.error(format!("{field} needs {len} bytes, {left} are left")))
            }
            _ => Ok(()),
        }
    }

    fn array<const LEN: usize>(&mut self, field: &str) -> Result<[u8; LEN], DecodeError> {
        self.need(LEN, field)?;
        let mut array = [0; LEN];
        array.copy_from_slice(&self.bytes[self.at..self.at + LEN]);
        self.at += LEN;
        Ok(array)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError`] at the end of the input; so for all readers below.
    pub fn u8(&mut self, field: &str) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    /// The next two bytes.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn u16(&mut self, field: &str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    /// The next four bytes.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn u32(&mut self, field: &str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    /// The next eight bytes.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn u64(&mut self, field: &str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// The next eight bytes, signed.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn i64(&mut self, field: &str) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array(field)?))
    }

    /// The next sixteen bytes.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn u128(&mut self, field: &str) -> Result<u128, DecodeError> {
        Ok(u128::from_le_bytes(self.array(field)?))
    }

    /// The next `len` bytes, shared with the input.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn bytes(&mut self, len: usize, field: &str) -> Result<Bytes, DecodeError> {
        self.need(len, field)?;
        let start = self.at;
        self.at += len;
        Ok(self.bytes.slice(start..self.at))
    }

    /// Reads the next `len` bytes as something of their own, which has to take all of them.
    ///
    /// # Errors
    /// As [`Self::u8`], and those of `read`.
    pub fn within<T>(
        &mut self,
        len: usize,
        field: &str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        self.need(len, field)?;
        let end = std::mem::replace(&mut self.end, self.at + len);
        let read = read(self).and_then(|item| self.end().map(|()| item));
        self.end = end;
        read
    }

    /// Bytes behind a u32 length.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn sized(&mut self, field: &str) -> Result<Bytes, DecodeError> {
        let len = self.u32(field)? as usize;
        self.bytes(len, field)
    }

    /// A position: epoch u32, seq u64.
    ///
    /// # Errors
    /// As [`Self::u8`].
    pub fn position(&mut self, field: &str) -> Result<crate::position::Position, DecodeError> {
        Ok(crate::position::Position {
            epoch: self.u32(field)?,
            seq: self.u64(field)?,
        })
    }

    /// Says that nothing may follow.
    ///
    /// # Errors
    /// [`DecodeError`] if bytes are left.
    pub fn end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error(format!("{left} bytes too many"))),
        }
    }
}

/// Appends a position: epoch u32, seq u64.
pub fn put_position(out: &mut Vec<u8>, position: crate::position::Position) {
    out.extend_from_slice(&position.epoch.to_le_bytes());
    out.extend_from_slice(&position.seq.to_le_bytes());
}

/// Appends bytes behind their u32 length.
///
/// # Panics
/// If there are 4 GiB or more; every caller has a smaller limit.
pub fn put_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a length as u32.
///
/// # Panics
/// If it is 4 GiB or more; every caller has a smaller limit.
pub fn put_len(out: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("lengths are limited far below 4 GiB");
    out.extend_from_slice(&len.to_le_bytes());
}
