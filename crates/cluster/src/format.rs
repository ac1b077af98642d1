//! What is stored: records of a shard's log, and snapshots of rooms.

use crate::{
    protocol::{Note, RecordId},
    shard::{Epoch, NodeId, Shard},
};
use core::time::Duration;
use stateroom_wasmi_server::journal::{RoomNumber, RoomSnapshot};

/// The version of all of it, the first byte of each.
pub(crate) const VERSION: u8 = 2;

/// Bytes of a record before its events.
pub(crate) const RECORD_HEADER: usize = 1 + 4 * 8;

/// A record of a shard's log, without its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) id: RecordId,
    /// The sequence number of the first record that somebody needs, besides this one; there may be others before.
    pub(crate) needed: Option<u64>,
}

/// In place of the first record that is needed.
const NOTHING: u64 = u64::MAX;

/// A record of a shard's log: its header and, as `LogEntries`, events.
pub(crate) fn encode_record(header: RecordHeader, events: &[u8]) -> Vec<u8> {
    let RecordHeader { id, needed } = header;
    let mut bytes = Vec::with_capacity(RECORD_HEADER + events.len());
    bytes.push(VERSION);
    let needed = needed.unwrap_or(NOTHING);
    for number in [id.node.0, id.epoch.0, id.number, needed] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend_from_slice(events);
    bytes
}

/// None if it is no record of this version.
pub(crate) fn decode_record(bytes: &[u8]) -> Option<(RecordHeader, &[u8])> {
    let (version, rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let (node, rest) = rest.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let (needed, events) = rest.split_first_chunk()?;
    let id = RecordId {
        node: NodeId(u64::from_le_bytes(*node)),
        epoch: Epoch(u64::from_le_bytes(*epoch)),
        number: u64::from_le_bytes(*number),
    };
    let needed = Some(u64::from_le_bytes(*needed)).filter(|needed| *needed != NOTHING);
    Some((RecordHeader { id, needed }, events))
}

/// The number of no room. A record's entry of it has notes.
pub(crate) const NOTES: RoomNumber = RoomNumber(0);

/// What an owner notes of rooms, as an event of [`NOTES`].
pub(crate) fn encode_notes(notes: &[(RoomNumber, Note)]) -> Vec<u8> {
    let kind = |note: &Note| match *note {
        Note::Restoring { deaths } => RESTORING | deaths.min(MOST_DEATHS) as u8,
        Note::Stopped { deaths } => deaths.min(MOST_DEATHS) as u8,
    };
    let encode = |(room, note): &(RoomNumber, Note)| {
        let mut bytes = [kind(note); 9];
        bytes[1..].copy_from_slice(&room.0.to_le_bytes());
        bytes
    };
    notes.iter().flat_map(encode).collect()
}

/// What is no note is ignored.
pub(crate) fn decode_notes(bytes: &[u8]) -> impl Iterator<Item = (RoomNumber, Note)> {
    let (notes, _) = bytes.as_chunks::<9>();
    notes.iter().map(|[kind, room @ ..]| {
        let deaths = u32::from(*kind) & MOST_DEATHS;
        let note = match kind & RESTORING {
            0 => Note::Stopped { deaths },
            _ => Note::Restoring { deaths },
        };
        (RoomNumber(u64::from_le_bytes(*room)), note)
    })
}

/// Set while a room is restored; the other bits are the deaths.
const RESTORING: u8 = 0x80;
const MOST_DEATHS: u32 = 0x7f;

/// What is known of a stored room without its snapshot: the header of the first part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoomHeader {
    pub(crate) number: RoomNumber,
    /// How many events its snapshot has.
    pub(crate) events: u64,
    /// In milliseconds since the Unix epoch.
    pub(crate) wake_at: Option<Duration>,
    /// How many messages its snapshot takes.
    pub(crate) parts: u32,
    pub(crate) is_quarantined: bool,
}

impl RoomHeader {
    /// As the value of a header.
    pub(crate) fn encode(&self) -> String {
        let wake_at = self.wake_at.map_or(-1, |at| at.as_millis() as i64);
        format!(
            "{} {} {} {} {wake_at} {}",
            VERSION,
            self.number.0,
            self.events,
            self.parts,
            u8::from(self.is_quarantined)
        )
    }

    /// None if it is none of this version.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut fields = text.split(' ');
        let mut field = || fields.next();
        if field()?.parse() != Ok(VERSION) {
            return None;
        }
        Some(Self {
            number: RoomNumber(field()?.parse().ok()?),
            events: field()?.parse().ok()?,
            parts: field()?.parse().ok()?,
            wake_at: match field()?.parse::<i64>().ok()? {
                -1 => None,
                at => Some(Duration::from_millis(at.try_into().ok()?)),
            },
            is_quarantined: field()? == "1",
        })
    }
}

/// Why a room is not restored any more, and the events since its snapshot, which are not in the log then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quarantine {
    pub(crate) reason: String,
    pub(crate) tail: Vec<u8>,
}

/// A snapshot in one piece.
pub(crate) fn encode_snapshot(snapshot: &RoomSnapshot, quarantine: Option<&Quarantine>) -> Vec<u8> {
    let (reason, tail) = quarantine.map_or((&[][..], &[][..]), |quarantine| {
        (quarantine.reason.as_bytes(), &quarantine.tail)
    });
    let sections = [reason, tail, &snapshot.clients];
    let mut bytes = Vec::with_capacity(snapshot_bytes(snapshot, quarantine));
    bytes.push(VERSION);
    for section in sections {
        bytes.extend((section.len() as u32).to_le_bytes());
        bytes.extend_from_slice(section);
    }
    bytes.extend_from_slice(&snapshot.room);
    bytes
}

/// How long [`encode_snapshot`] makes it.
pub(crate) fn snapshot_bytes(snapshot: &RoomSnapshot, quarantine: Option<&Quarantine>) -> usize {
    let quarantine = quarantine.map_or(0, |quarantine| {
        quarantine.reason.len() + quarantine.tail.len()
    });
    1 + 3 * 4 + quarantine + snapshot.clients.len() + snapshot.room.len()
}

/// None if it is none of this version. The rest of the snapshot is in the header.
pub(crate) fn decode_snapshot(
    header: &RoomHeader,
    bytes: &[u8],
) -> Option<(RoomSnapshot, Quarantine)> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    let mut section = || {
        let (length, bytes) = rest.split_first_chunk()?;
        let (section, bytes) = bytes.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = bytes;
        Some(section)
    };
    let (reason, tail, clients) = (section()?, section()?, section()?);
    let snapshot = RoomSnapshot {
        events: header.events,
        room: rest.into(),
        clients: clients.into(),
        wake_at: header.wake_at,
    };
    let quarantine = Quarantine {
        reason: String::from_utf8_lossy(reason).into(),
        tail: tail.into(),
    };
    Some((snapshot, quarantine))
}

/// The number of a room: it says which shard has it.
pub(crate) fn room_number(shard: Shard, epoch: Epoch, counter: u32) -> RoomNumber {
    RoomNumber((epoch.0 << 32 | u64::from(counter)) << 8 | u64::from(shard.0))
}

/// The shard of the room of this number.
pub(crate) fn shard_of(room: RoomNumber) -> Shard {
    Shard(room.0 as u8)
}

/// A room's id as a token of a subject.
pub(crate) fn room_token(id: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut token = String::with_capacity(1 + 2 * id.len());
    token.push('x');
    for byte in id.bytes() {
        token.push(char::from(DIGITS[usize::from(byte >> 4)]));
        token.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    token
}

/// None if it is no such token.
pub(crate) fn room_id(token: &str) -> Option<String> {
    let digits = token.strip_prefix('x')?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| Some((digit(*high)? * 16 + digit(*low)?) as u8))
        .collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_as_it_was_written() {
        let id = RecordId {
            node: NodeId(u64::MAX),
            epoch: Epoch(3),
            number: 7,
        };
        for needed in [None, Some(0), Some(5)] {
            let record = RecordHeader { id, needed };
            let bytes = encode_record(record, b"events");
            assert_eq!(decode_record(&bytes), Some((record, &b"events"[..])));
        }
        let header = RoomHeader {
            number: room_number(Shard(200), Epoch(5), 9),
            events: 12,
            wake_at: Some(Duration::from_millis(1_700_000_000_123)),
            parts: 2,
            is_quarantined: true,
        };
        assert_eq!(shard_of(header.number), Shard(200));
        assert_eq!(RoomHeader::decode(&header.encode()), Some(header.clone()));
        let snapshot = RoomSnapshot {
            events: 12,
            room: b"room".into(),
            clients: b"clients".into(),
            wake_at: header.wake_at,
        };
        let quarantine = Quarantine {
            reason: "why".into(),
            tail: b"tail".into(),
        };
        let bytes = encode_snapshot(&snapshot, Some(&quarantine));
        assert_eq!(bytes.len(), snapshot_bytes(&snapshot, Some(&quarantine)));
        let read = decode_snapshot(&header, &bytes);
        assert_eq!(read, Some((snapshot, quarantine)));
        for length in 0..24 {
            assert_eq!(decode_snapshot(&header, &bytes[..length]), None, "{length}");
        }
    }

    #[test]
    fn notes_are_read_as_they_were_written() {
        let notes = [
            (RoomNumber(7), Note::RESTORED),
            (RoomNumber(u64::MAX), Note::Restoring { deaths: 0 }),
            (RoomNumber(8), Note::Restoring { deaths: 2 }),
            (RoomNumber(9), Note::Stopped { deaths: 1 }),
        ];
        let bytes = encode_notes(&notes);
        assert!(decode_notes(&bytes).eq(notes));
        assert!(decode_notes(&bytes[..bytes.len() - 1]).eq(notes[..3].iter().copied()));
    }

    #[test]
    fn what_is_cut_or_of_another_version_is_refused() {
        let id = RecordId {
            node: NodeId(1),
            epoch: Epoch(2),
            number: 3,
        };
        let mut record = encode_record(RecordHeader { id, needed: None }, b"");
        for length in 0..record.len() {
            assert_eq!(decode_record(&record[..length]), None);
        }
        record[0] = 1;
        assert_eq!(decode_record(&record), None);
        for text in ["", "2", "1 1 1 1 -1 0", "2 1 1 1 -2 0", "2 1 1 x -1 0"] {
            assert_eq!(RoomHeader::decode(text), None, "{text}");
        }
    }

    #[test]
    fn ids_are_tokens() {
        for id in ["", "lobby", "a.b*c> d", "ü\0\n"] {
            let token = room_token(id);
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert_eq!(room_id(&token).as_deref(), Some(id));
        }
        for token in ["", "x1", "xgg", "12", "xff", "x+1"] {
            assert_eq!(room_id(token), None, "{token}");
        }
    }
}
