//! A snapshot that comes in pieces.

use crate::framing::checksum;
use alloc::{collections::TryReserveError, vec::Vec};

/// A snapshot of which the pieces come in order, on either end.
#[derive(Debug)]
pub struct IncomingSnapshot {
    bytes: Vec<u8>,
    length: usize,
    checksum: u32,
}

/// A piece does not follow the one before, or goes beyond the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongPiece;

impl core::fmt::Display for WrongPiece {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("a piece of the snapshot is missing, or one too many")
    }
}

impl core::error::Error for WrongPiece {}

impl IncomingSnapshot {
    /// Of which nothing has come yet: its length in bytes, which the caller must have found to be little
    /// enough, and its CRC-32. Memory is taken as the pieces come.
    #[must_use]
    pub const fn new(length: usize, checksum: u32) -> Self {
        Self {
            bytes: Vec::new(),
            length,
            checksum,
        }
    }

    /// Takes the memory for all of it at once.
    ///
    /// # Errors
    ///
    /// If there is too little.
    pub fn reserve(&mut self) -> Result<(), TryReserveError> {
        self.bytes.try_reserve_exact(self.length)
    }

    /// Whether it is the one of this length and checksum.
    #[must_use]
    pub fn is(&self, length: u32, checksum: u32) -> bool {
        usize::try_from(length) == Ok(self.length) && checksum == self.checksum
    }

    /// How many bytes have come: where the next piece begins.
    #[must_use]
    pub fn received(&self) -> usize {
        self.bytes.len()
    }

    /// Its CRC-32.
    #[must_use]
    pub const fn checksum(&self) -> u32 {
        self.checksum
    }

    /// Adds a piece.
    ///
    /// # Errors
    ///
    /// If it is not the next one.
    pub fn push(&mut self, offset: u32, piece: &[u8]) -> Result<(), WrongPiece> {
        let is_next = usize::try_from(offset) == Ok(self.bytes.len());
        if !is_next || piece.len() > self.length - self.bytes.len() {
            return Err(WrongPiece);
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Whether all has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// The snapshot; none if it is not complete, or its checksum is another.
    #[must_use]
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        let is_whole = self.is_complete() && checksum(&self.bytes) == self.checksum;
        is_whole.then_some(self.bytes)
    }
}
