//! Where a frame begins and ends in a row of bytes, and whether it came as it was sent.
//!
//! A frame is its kind, its number and its body, and a checksum over these; COBS keeps zeros out of
//! it, so that a zero before and behind it marks it. Whatever noise there is, the next zero ends it.

use cobs::CobsEncoder;
use core::ops::Range;
use crc::{CRC_32_ISO_HDLC, Crc, NoTable};

/// One bit at a time: the table would take a kilobyte of flash, and lines are slow.
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);
const CRC_BYTES: usize = 4;

/// Kind and number.
const HEAD_BYTES: usize = 2;

/// What a frame has beside its body, before COBS.
pub(crate) const OVERHEAD: usize = HEAD_BYTES + CRC_BYTES;

/// A frame that came whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) number: u8,
    pub(crate) body: &'a [u8],
}

/// Bytes that are no frame, or one that was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Noise;

/// The length of the longest body that fits into a buffer for `bytes` on the wire.
pub(crate) const fn longest_body(bytes: usize) -> usize {
    // Two zeros, and one more byte for each 254 that are begun.
    let encoded = bytes.saturating_sub(3);
    (encoded - encoded / 255).saturating_sub(OVERHEAD)
}

/// The length on the wire, at most, of a frame with so long a body.
pub(crate) const fn wire_bytes(body: usize) -> usize {
    let frame = body + OVERHEAD;
    frame + frame / 254 + 1 + 2
}

/// Writes a frame whose body comes in parts to the begin of a buffer; answers its length on the wire,
/// or nothing if the buffer is too short.
pub(crate) fn encode(kind: u8, number: u8, body: &[&[u8]], out: &mut [u8]) -> Option<usize> {
    let (first, rest) = out.split_first_mut()?;
    *first = 0;
    let mut encoder = CobsEncoder::new(rest);
    let mut digest = CRC.digest();
    let head = [kind, number];
    for part in [&head[..]].iter().chain(body) {
        digest.update(part);
        encoder.push(part).ok()?;
    }
    encoder.push(&digest.finalize().to_le_bytes()).ok()?;
    let end = 1 + encoder.finalize();
    *out.get_mut(end)? = 0;
    Some(end + 1)
}

/// Finds the frames in what comes in.
pub(crate) struct Deframer<const N: usize> {
    buffer: [u8; N],
    /// Bytes since the last zero.
    len: usize,
    /// Whether there were more of them than the buffer takes.
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

    /// Takes one byte; answers the frame that it ends, if it does.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Result<Frame<'_>, Noise>> {
        if byte != 0 {
            match self.buffer.get_mut(self.len) {
                Some(place) => {
                    *place = byte;
                    self.len += 1;
                }
                None => self.is_too_long = true,
            }
            return None;
        }
        let (len, is_too_long) = (self.len, self.is_too_long);
        self.clear();
        match len {
            // Between the zero behind a frame and the one before the next.
            0 => None,
            _ if is_too_long => Some(Err(Noise)),
            _ => Some(decode(&mut self.buffer[..len])),
        }
    }

    /// Forgets what came of a frame that has not ended.
    pub(crate) const fn clear(&mut self) {
        self.len = 0;
        self.is_too_long = false;
    }
}

fn decode(encoded: &mut [u8]) -> Result<Frame<'_>, Noise> {
    let len = cobs::decode_in_place(encoded).map_err(|_| Noise)?;
    let frame = encoded.get(..len).ok_or(Noise)?;
    let (checked, crc) = frame.split_last_chunk::<CRC_BYTES>().ok_or(Noise)?;
    if CRC.checksum(checked) != u32::from_le_bytes(*crc) {
        return Err(Noise);
    }
    match checked {
        [kind, number, body @ ..] => Ok(Frame {
            kind: *kind,
            number: *number,
            body,
        }),
        _ => Err(Noise),
    }
}

/// The frames that wait for the other side to have them, as they go over the wire.
pub(crate) struct FrameQueue<const N: usize> {
    buffer: [u8; N],
    /// Where they lie in it.
    used: Range<usize>,
    /// The length of each, in order.
    lengths: heapless::Deque<u16, MAX_FRAMES>,
}

/// Frames in a queue. Fewer than half of the numbers there are, so that what is old and what is new
/// can be told apart.
const MAX_FRAMES: usize = 64;

impl<const N: usize> FrameQueue<N> {
    pub(crate) const fn new() -> Self {
        Self {
            buffer: [0; N],
            used: 0..0,
            lengths: heapless::Deque::new(),
        }
    }

    /// Puts a frame behind the others; answers whether it fitted.
    pub(crate) fn push(&mut self, kind: u8, number: u8, body: &[&[u8]]) -> bool {
        if self.lengths.is_full() {
            return false;
        }
        let mut len = encode(kind, number, body, &mut self.buffer[self.used.end..]);
        if len.is_none() && self.used.start > 0 {
            self.buffer.copy_within(self.used.clone(), 0);
            self.used = 0..self.used.len();
            len = encode(kind, number, body, &mut self.buffer[self.used.end..]);
        }
        let Some(len) = len else { return false };
        self.used.end += len;
        self.lengths
            .push_back(u16::try_from(len).unwrap_or(u16::MAX))
            .is_ok()
    }

    /// Whether a frame with so long a body fits.
    pub(crate) fn has_place(&self, body: usize) -> bool {
        !self.lengths.is_full() && N - self.used.len() >= wire_bytes(body)
    }

    /// Takes the first frames away.
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

    /// The frame at a place, and how many bytes lie before it.
    pub(crate) fn get(&self, place: usize) -> Option<(&[u8], usize)> {
        let len = usize::from(*self.lengths.iter().nth(place)?);
        let before = self
            .lengths
            .iter()
            .take(place)
            .map(|len| usize::from(*len))
            .sum();
        let start = self.used.start + before;
        Some((&self.buffer[start..start + len], before))
    }
}
