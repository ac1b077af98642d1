//! Numbers and byte strings, written one after the other: what snapshots are made of.
//!
//! A number is seven bits for each byte, the least significant first; the top bit says that another
//! byte follows (LEB128, as in WebAssembly). A byte string is its length and its bytes.

use alloc::vec::Vec;
use core::time::Duration;

/// Appends to a buffer.
pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut Vec<u8>) -> Self {
        Self(out)
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.byte(flag.into());
    }

    pub(crate) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    pub(crate) fn optional(&mut self, number: Option<u64>) {
        self.flag(number.is_some());
        if let Some(number) = number {
            self.number(number);
        }
    }

    pub(crate) fn size(&mut self, size: usize) {
        self.number(size as u64);
    }

    pub(crate) fn duration(&mut self, duration: Duration) {
        self.number(duration.as_secs());
        self.number(duration.subsec_nanos().into());
    }

    /// Bytes without their length.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Bytes with their length.
    pub(crate) fn sized(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.raw(bytes);
    }
}

/// The bytes end too early, or are none that a [`Writer`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads what a [`Writer`] wrote. Nothing is allocated.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    /// Only the shortest encoding of a number is one, so that equal values have equal bytes.
    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            let shifted = bits << shift;
            if shifted >> shift != bits || (byte == 0 && shift > 0) {
                return Err(Malformed);
            }
            number |= shifted;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    pub(crate) fn optional(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(match self.flag()? {
            true => Some(self.number()?),
            false => None,
        })
    }

    pub(crate) fn duration(&mut self) -> Result<Duration, Malformed> {
        let (secs, nanos) = (self.number()?, self.fitting()?);
        if nanos >= 1_000_000_000 {
            return Err(Malformed);
        }
        Ok(Duration::new(secs, nanos))
    }

    /// A number that fits, such as an index or a client.
    pub(crate) fn fitting<T: TryFrom<u64>>(&mut self) -> Result<T, Malformed> {
        self.number()?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn size(&mut self) -> Result<usize, Malformed> {
        self.fitting()
    }

    pub(crate) fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.size()?;
        self.raw(len)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.sized()?).map_err(|_| Malformed)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}
