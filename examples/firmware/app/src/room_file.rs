//! A room with what it did since it was saved, in the format of the tool's `replay` and `store export`.

use alloc::vec::Vec;
use crc::{CRC_32_ISO_HDLC, Crc, NoTable};
use stateroom_wasmi_host::EventRecord;

const MAGIC: &[u8; 5] = b"SRRF\x02";
const CRC: Crc<u32, NoTable> = Crc::<u32, NoTable>::new(&CRC_32_ISO_HDLC);

/// The room wakes at no time, as far as the file says.
const NO_WAKE_TIME: i64 = -1;

/// A recorded room.
pub(crate) struct RoomFile<'a> {
    pub(crate) snapshot: &'a [u8],
    /// The events since: of each its room, its number and itself, after its length.
    pub(crate) tail: &'a [u8],
}

impl<'a> RoomFile<'a> {
    pub(crate) fn encode(&self, id: &str) -> Vec<u8> {
        let mut body = Vec::new();
        // No server knows its clients, and the snapshot has no events.
        for bytes in [id.as_bytes(), self.snapshot, &[]] {
            push_sized(&mut body, bytes);
        }
        body.extend(0_u64.to_le_bytes());
        body.extend(NO_WAKE_TIME.to_le_bytes());
        push_sized(&mut body, self.tail);
        let mut file = Vec::from(MAGIC);
        file.extend(CRC.checksum(&body).to_le_bytes());
        file.extend(body);
        file
    }

    /// None if the bytes are no such file.
    pub(crate) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (checksum, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
        if CRC.checksum(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (_id, rest) = split_sized(body)?;
        let (snapshot, rest) = split_sized(rest)?;
        let (_clients, rest) = split_sized(rest)?;
        let (_numbers, rest) = rest.split_at_checked(16)?;
        let (tail, _) = split_sized(rest)?;
        Some(Self { snapshot, tail })
    }

    /// The events, until one is malformed.
    pub(crate) fn records(&self) -> impl Iterator<Item = EventRecord<'a>> {
        let mut rest = self.tail;
        core::iter::from_fn(move || {
            let _room = split_number(&mut rest)?;
            let _number = split_number(&mut rest)?;
            let length = usize::try_from(split_number(&mut rest)?).ok()?;
            let (event, after) = rest.split_at_checked(length)?;
            rest = after;
            Some(EventRecord::decode(event).ok()?.0)
        })
    }
}

/// Appends an event to a tail.
pub(crate) fn push_event(tail: &mut Vec<u8>, number: u64, record: &EventRecord<'_>) {
    let mut event = Vec::new();
    record.encode(&mut event);
    let room = 0;
    for number in [room, number, event.len() as u64] {
        push_number(tail, number);
    }
    tail.extend(event);
}

fn push_sized(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u64).to_le_bytes());
    to.extend(bytes);
}

fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

fn push_number(to: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        to.push(number as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn split_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}
