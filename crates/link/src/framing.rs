//! COBS framing with a CRC-32.
//!
//! A frame is its kind, its sequence number and its body, and a checksum of these. COBS removes the
//! zeros, so that a zero before and after delimits it, and the decoder resynchronises at the next
//! zero after any damage.

use cobs::CobsEncoder;
use core::ops::Range;
use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

/// Bit by bit: a table would take a kilobyte of flash, and lines are slow.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);
const CRC_BYTES: usize = 4;

/// Kind and sequence number.
const HEADER_BYTES: usize = 2;

/// Bytes of a frame besides its body, before COBS.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + CRC_BYTES;

/// The checksum of a snapshot.
#[cfg(any(feature = "bridge", feature = "snapshot"))]
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// A frame whose checksum is correct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) sequence: u8,
    pub(crate) body: &'a [u8],
}

/// The bytes between two zeros are no frame: damaged, truncated, or too long for the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameError;

/// The longest body that fits into `wire_bytes` bytes on the wire.
pub(crate) const fn max_body_bytes(wire_bytes: usize) -> usize {
    // The delimiters, and a byte of COBS for each 254 or part of them.
    let encoded = wire_bytes.saturating_sub(3);
    (encoded - encoded / 255).saturating_sub(OVERHEAD_BYTES)
}

/// The most bytes on the wire that a frame with a body of this length takes.
pub(crate) const fn max_wire_bytes(body_bytes: usize) -> usize {
    let frame = body_bytes + OVERHEAD_BYTES;
    frame + frame / 254 + 1 + 2
}

/// Writes a frame, whose body is the concatenation of `body`, to the start of `out`. Returns its
/// length on the wire, or `None` if `out` is too short.
pub(crate) fn encode(kind: u8, sequence: u8, body: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    let (first, rest) = out.split_first_mut()?;
    *first = 0;
    let mut encoder = CobsEncoder::new(rest);
    let mut digest = CRC.digest();
    let header = [kind, sequence];
    for part in [&header[..]].iter().chain(body) {
        digest.update(part);
        encoder.push(part).ok()?;
    }
    encoder.push(&digest.finalize().to_le_bytes()).ok()?;
    let end = 1 + encoder.finalize();
    *out.get_mut(end)? = 0;
    Some(end + 1)
}

/// Splits a byte stream into frames.
pub(crate) struct Deframer<const N: usize> {
    buffer: [u8; N],
    /// Bytes since the last zero.
    len: usize,
    /// Whether more bytes came than the buffer holds.
    is_too_long: bool,
}

impl<const N: usize> Deframer<N> {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: [0; N],
            len: 0,
            is_too_long: false,
        }
    }

    /// Adds one byte. Returns the frame that it completes, if any.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Result<Frame<'_>, FrameError>> {
        if byte != 0 {
            match self.buffer.get_mut(self.len) {
                Some(slot) => {
                    *slot = byte;
                    self.len += 1;
                }
                None => self.is_too_long = true,
            }
            return None;
        }
        let (len, is_too_long) = (self.len, self.is_too_long);
        (self.len, self.is_too_long) = (0, false);
        match len {
            // Between the end of a frame and the start of the next.
            0 => None,
            _ if is_too_long => Some(Err(FrameError)),
            _ => Some(decode(&mut self.buffer[..len])),
        }
    }
}

fn decode(encoded: &mut [u8]) -> Result<Frame<'_>, FrameError> {
    let len = cobs::decode_in_place(encoded).map_err(|_| FrameError)?;
    let frame = encoded.get(..len).ok_or(FrameError)?;
    let (checked, crc) = frame.split_last_chunk::<CRC_BYTES>().ok_or(FrameError)?;
    if CRC.checksum(checked) != u32::from_le_bytes(*crc) {
        return Err(FrameError);
    }
    match checked {
        [kind, sequence, body @ ..] => Ok(Frame {
            kind: *kind,
            sequence: *sequence,
            body,
        }),
        _ => Err(FrameError),
    }
}

/// A FIFO of encoded frames, contiguous in a fixed buffer.
pub(crate) struct FrameQueue<const N: usize> {
    buffer: [u8; N],
    /// The part of the buffer that holds frames.
    used: Range<usize>,
    /// The length of each frame, in order.
    lengths: heapless::Deque<u16, MAX_FRAMES>,
}

/// Less than half of the sequence space, so that a duplicate cannot be mistaken for a new frame.
const MAX_FRAMES: usize = 64;

impl<const N: usize> FrameQueue<N> {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: [0; N],
            used: 0..0,
            lengths: heapless::Deque::new(),
        }
    }

    /// Appends a frame. Returns whether it fitted.
    pub(crate) fn push(&mut self, kind: u8, sequence: u8, body: &[&[u8]]) -> bool {
        if self.lengths.is_full() {
            return false;
        }
        let mut len = encode(kind, sequence, body, &mut self.buffer[self.used.end..]);
        if len.is_none() && self.used.start > 0 {
            self.buffer.copy_within(self.used.clone(), 0);
            self.used = 0..self.used.len();
            len = encode(kind, sequence, body, &mut self.buffer[self.used.end..]);
        }
        let Some(len) = len else { return false };
        self.used.end += len;
        self.lengths
            .push_back(u16::try_from(len).unwrap_or(u16::MAX))
            .is_ok()
    }

    /// Whether a frame with a body of this length fits.
    pub(crate) fn has_capacity(&self, body_bytes: usize) -> bool {
        !self.lengths.is_full() && N - self.used.len() >= max_wire_bytes(body_bytes)
    }

    /// Removes the first `frames` frames.
    pub(crate) fn remove(&mut self, frames: usize) {
        for _ in 0..frames {
            self.used.start += self.lengths.pop_front().map_or(0, usize::from);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.used = 0..0;
        self.lengths.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// The frame at an index, and the number of bytes before it in the queue.
    pub(crate) fn get(&self, index: usize) -> Option<(&[u8], usize)> {
        let len = usize::from(*self.lengths.iter().nth(index)?);
        let before = self
            .lengths
            .iter()
            .take(index)
            .map(|len| usize::from(*len))
            .sum();
        let start = self.used.start + before;
        Some((&self.buffer[start..start + len], before))
    }
}
