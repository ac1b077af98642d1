//! Reading what is stored of a shard that this node owns, however long that takes.

use crate::{
    format::{Quarantine, RoomHeader, decode_snapshot},
    nats::{Filter, Nats, ReadError, Stored, StoredRecord},
    shard::{Epoch, Shard},
};
use core::time::Duration;
use futures_util::future::join_all;
use stateroom_wasmi_server::journal::{JournalError, LogEntries, RoomNumber, StoredRoom};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
};
use tokio::time::sleep;

/// Tells whether a shard is still this node's.
#[derive(Clone)]
pub(crate) struct Claim(Weak<()>);

impl Claim {
    pub(crate) fn new(claim: &Arc<()>) -> Self {
        Self(Arc::downgrade(claim))
    }

    fn is_held(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// What is to be read of a shard that was taken.
pub(crate) struct Reading {
    pub(crate) shard: Shard,
    pub(crate) epoch: Epoch,
    /// From which record on the log is needed.
    pub(crate) from: Option<u64>,
    /// The last record of the owner before.
    pub(crate) before: Option<StoredRecord>,
    /// The sequence number of the record by which the epoch begins.
    pub(crate) last: u64,
    pub(crate) claim: Claim,
}

/// Time until a replica is asked again that does not have what is looked for; at first it is none, and then short,
/// since most have it a moment after the one that has stored it.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
const FIRST_RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Reads what is stored of shards, unless they are lost before. Of several at once it is much less work for NATS.
pub(crate) async fn read_shards(
    nats: Nats,
    readings: Vec<Reading>,
    done: impl Fn(Shard, Epoch, Vec<Stored>) + Clone + Send + 'static,
) {
    let logs = readings.iter().map(|reading| reading.read_log(&nats));
    let logs = join_all(logs).await;
    // With the logs it is known which rooms are restored at once.
    let mut ends = HashMap::new();
    for record in logs.iter().flatten().flatten() {
        note_ends(record, &mut ends);
    }
    let wanted = |header: &RoomHeader| {
        let end = ends.get(&header.number);
        end.is_some_and(|end| *end > header.events) && !header.is_quarantined && header.parts == 1
    };
    let read = readings.into_iter().zip(logs);
    let read: Vec<_> = read.filter_map(|(it, log)| Some((it, log?))).collect();
    let mut groups = VecDeque::from([read]);
    let mut pause = Duration::ZERO;
    while let Some(mut group) = groups.pop_front() {
        group.retain(|(reading, _)| reading.claim.is_held());
        let shards = group.iter().map(|(it, _)| (it.shard, it.last));
        let shards: Vec<_> = shards.collect();
        if shards.is_empty() {
            continue;
        }
        match nats.read_rooms(&shards, wanted).await {
            Ok(mut rooms) => {
                let mut lagging = Vec::new();
                for (reading, log) in group {
                    match rooms.remove(&reading.shard) {
                        Some(mut rooms) => {
                            rooms.extend(log);
                            done(reading.shard, reading.epoch, rooms);
                        }
                        // The replica does not have the last record yet.
                        None => lagging.push((reading, log)),
                    }
                }
                group = lagging;
            }
            Err(ReadError::TooManySubjects) if shards.len() > 1 => {
                groups.extend(group.into_iter().map(|it| vec![it]));
                continue;
            }
            Err(ReadError::TooManySubjects) => {
                for (reading, _) in group {
                    let (nats, done) = (nats.clone(), done.clone());
                    tokio::spawn(async move { reading.read_all(&nats, done).await });
                }
                continue;
            }
            Err(ReadError::Unavailable) => {}
        }
        if !group.is_empty() {
            groups.push_back(group);
            // Sleeping for no time would take a millisecond.
            if !pause.is_zero() {
                sleep(pause).await;
            }
            pause = (2 * pause).clamp(FIRST_RETRY_INTERVAL, RETRY_INTERVAL);
        }
    }
}

impl Reading {
    /// Reads what is needed of the log; none if the shard is lost.
    async fn read_log(&self, nats: &Nats) -> Option<Vec<Stored>> {
        let Self { shard, claim, .. } = self;
        let before = self.before.as_ref().map(|before| before.sequence);
        match self.from {
            Some(from) if Some(from) != before => {
                read_up_to(nats, claim, *shard, from, self.last, Filter::Log).await
            }
            // The last record is all that is needed.
            _ => Some(self.before.iter().cloned().map(Stored::Record).collect()),
        }
    }

    /// Reads all there is, where there are more rooms than NATS finds at once.
    async fn read_all(self, nats: &Nats, done: impl Fn(Shard, Epoch, Vec<Stored>)) {
        let Self { shard, claim, .. } = self;
        if let Some(all) = read_up_to(nats, &claim, shard, 1, self.last, Filter::All).await {
            done(shard, self.epoch, all);
        }
    }
}

/// Notes of rooms with events in a record the number of the event after the last.
fn note_ends(stored: &Stored, ends: &mut HashMap<RoomNumber, u64>) {
    if let Stored::Record(record) = stored {
        for entry in LogEntries::new(&record.events).flatten() {
            ends.insert(entry.room, entry.number.saturating_add(1));
        }
    }
}

/// The events of a room since its snapshot.
pub(crate) enum Tail {
    None,
    Known(Vec<u8>),
    /// They are in these records.
    Read {
        from: u64,
        to: u64,
        /// The number of the event after the last.
        next_event: u64,
    },
}

/// How often it is asked again for what must be there.
struct Attempts {
    claim: Claim,
    left: usize,
}

impl Attempts {
    /// What was found, or none to ask again: while NATS is gone, that is waited for, and a replica may not have
    /// it yet.
    fn found<T>(&mut self, read: Result<Option<T>, ()>) -> Option<Result<T, JournalError>> {
        match read {
            Ok(Some(found)) => return Some(Ok(found)),
            _ if !self.claim.is_held() => return Some(Err(not_owned())),
            Ok(None) => self.left = self.left.saturating_sub(1),
            Err(()) => {}
        }
        let reason = "the snapshot is not there";
        (self.left == 0).then(|| Err(JournalError::Damaged(reason.into())))
    }
}

/// Reads a stored room.
pub(crate) async fn load(
    nats: &Nats,
    shard: Shard,
    claim: Claim,
    header: RoomHeader,
    sequence: u64,
    part: Option<Box<[u8]>>,
    tail: Tail,
) -> Result<(StoredRoom, Quarantine), JournalError> {
    const RETRY_INTERVAL: Duration = Duration::from_millis(100);
    let mut attempts = Attempts {
        claim: claim.clone(),
        left: 300,
    };
    let bytes = loop {
        if let Some(part) = part {
            break part.into_vec();
        }
        let read = nats.read_snapshot(sequence, &header).await;
        if let Some(found) = attempts.found(read) {
            break found?;
        }
        sleep(RETRY_INTERVAL).await;
    };
    let damaged = |what: &str| JournalError::Damaged(what.into());
    let (snapshot, quarantine) =
        decode_snapshot(&header, &bytes).ok_or_else(|| damaged("the snapshot is malformed"))?;
    let tail = match tail {
        Tail::None => Vec::new(),
        Tail::Known(tail) => tail,
        Tail::Read {
            from,
            to,
            next_event,
        } => {
            let (mut tail, mut next) = (Vec::new(), header.events);
            let log = read_up_to(nats, &claim, shard, from, to, Filter::Log).await;
            for stored in log.ok_or_else(not_owned)? {
                let Stored::Record(StoredRecord { events, .. }) = stored else {
                    continue;
                };
                let entries = LogEntries::new(&events).flatten();
                for entry in entries.filter(|entry| entry.room == header.number) {
                    // One that was released from quarantine may have events twice, which are the same.
                    if entry.number >= next {
                        entry.encode(&mut tail);
                        next = entry.number.saturating_add(1);
                    }
                }
            }
            // Those that are missing in between are found when it is replayed.
            if next < next_event {
                return Err(damaged("its last events are not in the log"));
            }
            tail
        }
    };
    let room = StoredRoom {
        number: header.number,
        snapshot,
        tail,
    };
    Ok((room, quarantine))
}

/// Reads what is stored of a shard from one message on until it has seen another; none if the shard is lost.
async fn read_up_to(
    nats: &Nats,
    claim: &Claim,
    shard: Shard,
    from: u64,
    to: u64,
    filter: Filter,
) -> Option<Vec<Stored>> {
    let (mut all, mut next) = (Vec::new(), from.max(1));
    while claim.is_held() {
        let read = nats.read(shard, next, filter).await.unwrap_or_default();
        let has_read = !read.is_empty();
        for stored in read {
            let sequence = stored.sequence();
            if sequence > to {
                return Some(all);
            }
            next = sequence + 1;
            all.push(stored);
            if sequence == to {
                return Some(all);
            }
        }
        if !has_read {
            sleep(RETRY_INTERVAL).await;
        }
    }
    None
}

const fn not_owned() -> JournalError {
    JournalError::NotOwned { rooms: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_asked_for_as_long_as_the_shard_is_owned() {
        let owned = Arc::new(());
        let claim = Claim::new(&owned);
        let mut attempts = Attempts { claim, left: 2 };
        for _ in 0..1000 {
            // NATS does not answer.
            assert!(attempts.found::<()>(Err(())).is_none());
        }
        assert!(attempts.found::<()>(Ok(None)).is_none());
        assert!(matches!(attempts.found(Ok(Some(7))), Some(Ok(7))));
        let missing = attempts.found::<()>(Ok(None));
        assert!(matches!(missing, Some(Err(JournalError::Damaged(_)))));
        drop(owned);
        let lost = attempts.found::<()>(Err(()));
        assert!(matches!(lost, Some(Err(JournalError::NotOwned { .. }))));
    }
}
