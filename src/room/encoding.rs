//! How the parts of a room's state are written into a snapshot and read from it: clients, counters, the
//! events that wait, the fault policy. Reading keeps to the limits of the module.

use super::{event_kind::EventKind, inbox::Inbox, recovery::Recovery, stats::RoomStats};
use crate::{
    event::{ClientId, EventHeader, MessagePayload},
    fault_policy::{Backoff, FaultPolicy},
    limits::Limits,
    module::Module,
    snapshot::{
        SnapshotError,
        bytes::{Malformed, Reader, Writer},
    },
};
use alloc::vec::Vec;

pub(super) fn bounded(what: &'static str, count: usize, limit: usize) -> Result<(), SnapshotError> {
    match count <= limit {
        true => Ok(()),
        false => Err(SnapshotError::TooMany { what, limit }),
    }
}

/// The most events that can wait: besides those that are bounded, a rejoin for each client, and a
/// disconnect for each client that is or will be connected.
pub(super) const fn max_events(limits: &Limits) -> usize {
    limits
        .max_inbox_events
        .saturating_add(limits.max_clients)
        .saturating_mul(2)
}

/// The sorted ids, each as its distance from the one before.
pub(super) fn write_clients(clients: &[ClientId], writer: &mut Writer<'_>) {
    writer.size(clients.len());
    let mut before = 0;
    for client in clients {
        writer.number((client.0 - before).into());
        before = client.0;
    }
}

pub(super) fn read_clients(
    limits: &Limits,
    reader: &mut Reader<'_>,
) -> Result<Vec<ClientId>, SnapshotError> {
    let count = reader.size()?;
    bounded("clients", count, limits.max_clients)?;
    let mut clients = Vec::new();
    let mut before = 0_u32;
    for _ in 0..count {
        let distance: u32 = reader.fitting()?;
        let id = before.checked_add(distance).ok_or(Malformed)?;
        if distance == 0 || !ClientId(id).is_valid() {
            return Err(SnapshotError::Damaged);
        }
        clients.push(ClientId(id));
        before = id;
    }
    Ok(clients)
}

pub(super) fn write_stats(stats: &RoomStats, writer: &mut Writer<'_>) {
    writer.number(stats.events_handled);
    writer.number(stats.messages_in);
    writer.number(stats.messages_out);
    writer.number(stats.fuel_used);
    writer.number(stats.faults);
}

pub(super) fn read_stats(reader: &mut Reader<'_>) -> Result<RoomStats, Malformed> {
    /// Counters go on from here: no room can have had more, and none that is made up overflows.
    const MAX: u64 = u64::MAX / 2;
    let mut counter = || Ok::<_, Malformed>(reader.number()?.min(MAX));
    Ok(RoomStats {
        events_handled: counter()?,
        messages_in: counter()?,
        messages_out: counter()?,
        fuel_used: counter()?,
        faults: counter()?,
        ..RoomStats::default()
    })
}

const REJOIN: u8 = 0;
const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const TEXT: u8 = 3;
const BYTES: u8 = 4;

/// The events that wait. At an event boundary there is no other.
pub(super) fn write_inbox(inbox: &Inbox, writer: &mut Writer<'_>) {
    writer.size(inbox.len());
    for (event, payload) in inbox.iter() {
        let (kind, client) = match event {
            EventKind::Rejoin(client) => (REJOIN, client),
            EventKind::Outside(EventHeader::Connect(client)) => (CONNECT, client),
            EventKind::Outside(EventHeader::Disconnect(client)) => (DISCONNECT, client),
            EventKind::Outside(EventHeader::Message(client)) => match payload {
                MessagePayload::Text(_) => (TEXT, client),
                MessagePayload::Bytes(_) => (BYTES, client),
            },
            EventKind::Init | EventKind::Timer => {
                debug_assert!(false, "the first event and the timer do not wait");
                continue;
            }
        };
        writer.byte(kind);
        writer.number(client.0.into());
        if kind == TEXT || kind == BYTES {
            writer.sized(payload.as_bytes());
        }
    }
}

pub(super) fn read_inbox(limits: &Limits, reader: &mut Reader<'_>) -> Result<Inbox, SnapshotError> {
    let count = reader.size()?;
    bounded("events that wait", count, max_events(limits))?;
    let mut inbox = Inbox::default();
    let mut bounded_events = 0;
    for _ in 0..count {
        let kind = reader.byte()?;
        let client = ClientId(reader.fitting()?);
        if !client.is_valid() {
            return Err(SnapshotError::Damaged);
        }
        let payload = match kind {
            TEXT => MessagePayload::Text(reader.text()?),
            BYTES => MessagePayload::Bytes(reader.sized()?),
            _ => MessagePayload::EMPTY,
        };
        let header = match kind {
            REJOIN => {
                inbox.push(EventKind::Rejoin(client), payload);
                continue;
            }
            CONNECT => EventHeader::Connect(client),
            DISCONNECT => EventHeader::Disconnect(client),
            TEXT | BYTES => EventHeader::Message(client),
            _ => return Err(SnapshotError::Damaged),
        };
        bounded(
            "bytes in one message",
            payload.len(),
            limits.max_message_bytes,
        )?;
        bounded_events += usize::from(kind != DISCONNECT);
        inbox.push(EventKind::Outside(header), payload);
    }
    bounded("events that wait", bounded_events, limits.max_inbox_events)?;
    bounded(
        "bytes that wait",
        inbox.payload_bytes(),
        limits.max_inbox_bytes,
    )?;
    Ok(inbox)
}

const CLOSE: u8 = 0;
const RESTART: u8 = 1;
const CONTINUE: u8 = 2;
const ROLLBACK: u8 = 3;

impl Recovery {
    pub(super) fn encode(&self, policy: FaultPolicy, writer: &mut Writer<'_>) {
        writer.byte(match policy {
            FaultPolicy::Close => CLOSE,
            FaultPolicy::Restart(_) => RESTART,
            FaultPolicy::Continue => CONTINUE,
            FaultPolicy::Rollback => ROLLBACK,
        });
        if let (FaultPolicy::Restart(backoff), Self::Restart(restarts)) = (policy, self) {
            writer.duration(backoff.first);
            writer.duration(backoff.longest);
            writer.number(backoff.restarts.into());
            restarts.encode(writer);
        }
    }

    pub(super) fn decode(
        module: &Module,
        reader: &mut Reader<'_>,
    ) -> Result<(FaultPolicy, Self), SnapshotError> {
        let policy = match reader.byte()? {
            CLOSE => FaultPolicy::Close,
            RESTART => FaultPolicy::Restart(Backoff {
                first: reader.duration()?,
                longest: reader.duration()?,
                restarts: reader.fitting()?,
            }),
            CONTINUE => FaultPolicy::Continue,
            ROLLBACK => FaultPolicy::Rollback,
            _ => return Err(SnapshotError::Damaged),
        };
        let mut recovery = Self::new(policy, module)?;
        if let Self::Restart(restarts) = &mut recovery {
            restarts.decode(reader)?;
        }
        Ok((policy, recovery))
    }
}
