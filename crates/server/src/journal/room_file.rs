//! A room in a file: its snapshot and the events since.

use super::{Batch, LogEntries, RoomNumber, RoomSnapshot};
use core::time::Duration;
use stateroom_wasmi_host::SnapshotInfo;

/// A room with its events, as bytes that can be moved to another store or another server.
///
/// The bytes are `SRRF`, a version (2), a CRC-32 of what follows (little endian), and then, each after its
/// length in 8 bytes: the id, the snapshot, what is known of the clients, and the events since, in the
/// format of [`LogEntries`]; before the last, how many events the snapshot contains, and when the room is to
/// wake, in milliseconds since the Unix epoch, or -1 (8 bytes each).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomFile {
    /// The room's id.
    pub id: Box<str>,
    /// Its snapshot.
    pub snapshot: RoomSnapshot,
    /// The events since; of whatever room number.
    pub tail: Vec<u8>,
}

const MAGIC: &[u8; 5] = b"SRRF\x02";

impl RoomFile {
    /// The room as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for bytes in [
            self.id.as_bytes(),
            &self.snapshot.room,
            &self.snapshot.clients,
        ] {
            write(&mut body, bytes);
        }
        body.extend(self.snapshot.events.to_le_bytes());
        body.extend(self.snapshot.wake_at.map_or(-1, millis).to_le_bytes());
        write(&mut body, &self.tail);
        let checksum = crc32fast::hash(&body).to_le_bytes();
        [&MAGIC[..], &checksum, &body].concat()
    }

    /// Reads a room; none if the bytes are no whole one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(MAGIC)?;
        let (checksum, body) = bytes.split_first_chunk()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (id, rest) = read(body)?;
        let (room, rest) = read(rest)?;
        let (clients, rest) = read(rest)?;
        let (events, rest) = rest.split_first_chunk()?;
        let (wake_at, rest) = rest.split_first_chunk()?;
        let wake_at = i64::from_le_bytes(*wake_at);
        let (tail, rest) = read(rest)?;
        let is_well_formed = rest.is_empty() && LogEntries::new(tail).all(|entry| entry.is_ok());
        is_well_formed.then_some(Self {
            id: core::str::from_utf8(id).ok()?.into(),
            snapshot: RoomSnapshot {
                events: u64::from_le_bytes(*events),
                room: room.into(),
                clients: clients.into(),
                wake_at: (wake_at >= 0).then(|| duration(wake_at)),
            },
            tail: tail.into(),
        })
    }

    /// Whether the snapshot is of a room of this id.
    pub(crate) fn is_of_its_id(&self) -> bool {
        let info = SnapshotInfo::read(&self.snapshot.room);
        info.is_ok_and(|info| info.room_id == *self.id)
    }

    /// The events since the snapshot, as those of the room of this number.
    #[must_use]
    pub fn tail_of(&self, room: RoomNumber) -> Batch {
        let mut log = Batch::default();
        for entry in LogEntries::new(&self.tail).flatten() {
            log.log(room, entry.number, entry.event);
        }
        log
    }
}

fn write(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend((bytes.len() as u64).to_le_bytes());
    to.extend_from_slice(bytes);
}

fn read(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    rest.split_at_checked(length)
}

/// Milliseconds since the Unix epoch; later than 292 million years is that.
fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
