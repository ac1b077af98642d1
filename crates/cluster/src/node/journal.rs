//! What the server asks of the journal.

use super::{Event, Node, RETRY_INTERVAL, events::EndQuarantine};
use crate::{
    format::{Quarantine, shard_of},
    nats::{Nats, RoomRecord},
    owned::{Gated, LoadPlan, LoadRequest, Owned, Purpose, ShardBatch},
    protocol::{MAX_DEATHS, Note},
    reading::{Tail, load},
    retry::Retry,
    shard::Shard,
};
use bytes::Bytes;
use core::time::Duration;
use stateroom_wasmi_host::{Escaped, ModuleHash};
use stateroom_wasmi_server::journal::{
    Batch, Done, JournalError, LogEntries, RoomNumber, RoomWrite, Stored, StoredRoom,
};
use std::collections::BTreeMap;
use tokio::{sync::mpsc, time::sleep};

impl Node {
    pub(super) fn write(&mut self, batch: &Batch, done: Done<()>) {
        let mut shards: BTreeMap<Shard, ShardBatch> = BTreeMap::new();
        let mut quarantines = Vec::new();
        for entry in LogEntries::new(batch.events()).flatten() {
            shards.entry(shard_of(entry.room)).or_default().log(&entry);
        }
        for (number, write) in batch.rooms() {
            let shard = shard_of(*number);
            if let RoomWrite::Quarantine(reason) = write {
                quarantines.push((shard, *number, reason.clone()));
                continue;
            }
            shards
                .entry(shard)
                .or_default()
                .write(*number, write.clone());
        }
        let id = self.batches.push(done);
        for (shard, batch) in shards {
            match self.owned.get_mut(&shard).filter(|owned| owned.is_active) {
                Some(owned) => {
                    let parts = owned.push(id, batch, &self.nats);
                    self.batches.add_parts(id, parts);
                    self.mark_ready(shard);
                }
                None => self.batches.not_owned(id, batch.into_numbers()),
            }
        }
        for (shard, number, reason) in quarantines {
            self.begin_quarantine(shard, id, number, reason);
        }
        self.batches.complete();
    }

    /// Stores a room as one in quarantine, behind what has come before.
    fn begin_quarantine(&mut self, shard: Shard, batch: u64, number: RoomNumber, reason: String) {
        let Some(owned) = self.owned.get_mut(&shard).filter(|owned| owned.is_active) else {
            return self.batches.not_owned(batch, vec![number]);
        };
        if let Some(id) = owned.id_of(number) {
            owned.condemn(number, Some(reason.clone()));
            let purpose = Purpose::Quarantine {
                batch,
                number,
                reason,
            };
            owned.load(id, purpose);
            self.batches.add_parts(batch, 1);
            self.load_next(shard);
        }
    }

    pub(super) fn quarantine(
        &mut self,
        shard: Shard,
        batch: u64,
        number: RoomNumber,
        reason: String,
        read: Option<Box<(StoredRoom, Quarantine)>>,
    ) {
        let owned = self.owned.get_mut(&shard).filter(|owned| owned.is_active);
        let Some((owned, id)) = owned.and_then(|owned| {
            let id = owned.id_of(number)?;
            Some((owned, id))
        }) else {
            self.batches.part_failed(batch, vec![number]);
            return self.batches.complete();
        };
        let Some(read) = read else {
            // It stays as it is, and will be tried again.
            owned.condemn(number, None);
            self.batches.part_done(batch);
            return self.batches.complete();
        };
        let (room, _) = *read;
        let room = RoomRecord {
            id,
            number,
            snapshot: Some(room.snapshot),
            quarantine: Some(Quarantine {
                reason,
                tail: room.tail,
            }),
        };
        let parts = owned.push_room(batch, room, &self.nats);
        // One was counted when it began to be read.
        self.batches.add_parts(batch, parts - 1);
        self.mark_ready(shard);
    }

    /// Keeps a module; batches that come later are not durable before it is.
    pub(super) fn keep_module(&mut self, hash: ModuleHash, wasm: Bytes) {
        let batch = self.batches.push(Box::new(drop));
        self.batches.add_parts(batch, 1);
        let (nats, sender) = (self.nats.clone(), self.sender.clone());
        let metrics = self.metrics.clone();
        tokio::spawn(async move {
            let (hash, mut retry) = (hash.to_string(), Retry::default());
            while nats
                .keep_module(&hash, &wasm, retry.is_told())
                .await
                .is_err()
            {
                metrics.append_failed();
                sleep(retry.pause()).await;
                retry.failed();
            }
            let _ = sender.send(Event::ModuleKept(batch));
        });
    }

    pub(super) fn load_module(&self, hash: ModuleHash, done: Done<Option<Vec<u8>>>) {
        const ATTEMPTS: usize = 50;
        let nats = self.nats.clone();
        tokio::spawn(async move {
            let mut missed = 0;
            while missed < ATTEMPTS {
                match nats.load_module(&hash.to_string()).await {
                    Ok(Some(wasm)) => return done(Ok(Some(wasm))),
                    // A replica may not have it yet.
                    Ok(None) => missed += 1,
                    // NATS is gone for now.
                    Err(()) => {}
                }
                sleep(10 * RETRY_INTERVAL).await;
            }
            done(Ok(None));
        });
    }

    pub(super) fn load(&mut self, id: Box<str>, done: Done<Stored>, is_peek: bool) {
        let shard = Shard::of_room(&id);
        match self.owned.get_mut(&shard).filter(|it| it.may_load()) {
            Some(owned) => {
                let purpose = match is_peek {
                    true => Purpose::Peek(done),
                    false => Purpose::Restore(done),
                };
                owned.load(id, purpose);
                self.load_next(shard);
            }
            None => done(Err(JournalError::NotOwned { rooms: Vec::new() })),
        }
    }

    /// Loads the rooms whose turn it is.
    pub(super) fn load_next(&mut self, shard: Shard) {
        while let Some(owned) = self.owned.get_mut(&shard)
            && let Some(LoadRequest { id, purpose, .. }) = owned.next_load()
        {
            match purpose {
                Purpose::Peek(done) => begin_load(&self.nats, owned, &id, done),
                Purpose::Restore(done) => self.load_or_gate(shard, id, done),
                Purpose::Quarantine {
                    batch,
                    number,
                    reason,
                } => self.load_for_quarantine(shard, &id, batch, number, reason),
            }
        }
        self.open_gate();
    }

    fn load_or_gate(&mut self, shard: Shard, id: Box<str>, done: Done<Stored>) {
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        let number = owned.number_of(&id);
        if let Some(reason) = number.and_then(|number| owned.is_condemned(number)) {
            return done(Ok(Stored::Quarantined(reason)));
        }
        if !owned.has_room(&id)
            && let Err(limit) = self.may_store_more()
        {
            return done(Err(JournalError::TooManyRooms { limit }));
        }
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        let Some(number) = number.filter(|number| owned.is_doubtful(*number)) else {
            return begin_load(&self.nats, owned, &id, done);
        };
        let deaths = owned.deaths(number);
        if deaths >= MAX_DEATHS {
            // It could not be stored as one.
            done(Ok(Stored::Quarantined(death_reason(deaths))));
        } else if self.gate.is_open(&number) && !owned.has_gated(number) {
            let done = report_failure(self.sender.clone(), number, done);
            begin_load(&self.nats, owned, &id, done);
        } else {
            owned.gate(number, Gated::Load(id, done));
            if !self.gate.has(&number) {
                self.gate.push(number, deaths);
            }
        }
    }

    fn load_for_quarantine(
        &mut self,
        shard: Shard,
        id: &str,
        batch: u64,
        number: RoomNumber,
        reason: String,
    ) {
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        let Ok(LoadPlan::Read {
            header,
            sequence,
            part,
            tail,
        }) = owned.begin_load(id)
        else {
            // Nothing is stored of it.
            owned.condemn(number, None);
            self.batches.part_done(batch);
            return self.batches.complete();
        };
        let claim = owned.claim();
        let (nats, sender) = (self.nats.clone(), self.sender.clone());
        tokio::spawn(async move {
            let read = load(&nats, shard, claim, header, sequence, part, tail).await;
            let read = read.ok().map(Box::new);
            let _ = sender.send(Event::QuarantineRead(shard, batch, number, reason, read));
        });
    }

    /// Notes which rooms are restored next.
    fn open_gate(&mut self) {
        while let Some(number) = self.gate.poll() {
            let shard = shard_of(number);
            match self.owned.get_mut(&shard) {
                Some(owned) => owned.restoring(number),
                None => self.gate.remove(|room| *room == number),
            }
            self.mark_ready(shard);
        }
    }

    /// A room is restored, or not to be.
    pub(super) fn restored(&mut self, number: RoomNumber) {
        let shard = shard_of(number);
        if let Some(owned) = self.owned.get_mut(&shard)
            && self.gate.is_open(&number)
        {
            owned.restored(number);
            self.gate.end(number);
            self.write_ends(false);
        }
    }

    /// Has it written which rooms are restored, or not to be, and goes on with the next.
    pub(super) fn write_ends(&mut self, have_waited: bool) {
        for number in self.gate.take_ended(have_waited) {
            self.mark_ready(shard_of(number));
        }
        self.open_gate();
    }

    /// Goes on with what has waited for notes that are durable now.
    pub(super) fn noted(&mut self, shard: Shard) {
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        for (number, note) in owned.take_noted() {
            match note {
                Note::Restoring { deaths } => {
                    if deaths > 0 {
                        // In each of its turns: it may still be loaded from the one before.
                        tell_if_slow(self.sender.clone(), number);
                    }
                    for gated in owned.take_gated(number) {
                        match gated {
                            Gated::Load(id, done) => {
                                let mut done = report_failure(self.sender.clone(), number, done);
                                if deaths > 0 {
                                    done = tell_when_loaded(self.sender.clone(), number, done);
                                }
                                begin_load(&self.nats, owned, &id, done);
                            }
                            Gated::Loaded(loaded, done) => {
                                self.gate.loaded(number);
                                done(loaded);
                            }
                        }
                    }
                }
                Note::Stopped { .. } => self.gate.end_is_durable(number),
            }
        }
        self.open_gate();
    }

    /// A suspect is loaded: it is restored now, or has another turn if it was given back.
    pub(super) fn suspect_loaded(
        &mut self,
        number: RoomNumber,
        loaded: Result<Stored, JournalError>,
        done: Done<Stored>,
    ) {
        match self.owned.get_mut(&shard_of(number)) {
            Some(_) if self.gate.loaded(number) => done(loaded),
            Some(owned) if self.gate.has(&number) => {
                owned.gate(number, Gated::Loaded(loaded, done));
            }
            _ => done(Err(JournalError::NotOwned { rooms: Vec::new() })),
        }
    }

    /// A suspect takes long to load: others are restored first.
    pub(super) fn suspect_is_slow(&mut self, number: RoomNumber) {
        let shard = shard_of(number);
        if let Some(owned) = self.owned.get_mut(&shard)
            && self.gate.give_back(number)
        {
            owned.given_back(number);
            self.mark_ready(shard);
        }
    }

    /// Stores that rooms are in quarantine that have ended too many owners.
    pub(super) fn quarantine_convicted(&mut self, shard: Shard) {
        let Some(owned) = self.owned.get(&shard) else {
            return;
        };
        for number in owned.convicted() {
            let Some((id, reason)) = self.owned.get(&shard).and_then(|owned| {
                let reason = death_reason(owned.deaths(number));
                Some((owned.id_of(number)?, reason))
            }) else {
                continue;
            };
            let id = Escaped::new(&id).at_most(256);
            log::error!("room {id:?} is in quarantine: {reason}");
            let batch = self.batches.push(Box::new(drop));
            self.begin_quarantine(shard, batch, number, reason);
        }
        self.batches.complete();
    }

    /// The rooms in quarantine, in order.
    pub(super) fn list_quarantined(&self) -> Vec<String> {
        let owned = self.owned.values().filter(|owned| owned.is_active);
        let mut rooms: Vec<_> = owned
            .flat_map(|owned| owned.quarantined().map(String::from))
            .collect();
        rooms.sort_unstable();
        rooms
    }

    /// Lets a room go on that is in quarantine, or discards it.
    pub(super) fn end_quarantine(&self, request: EndQuarantine) {
        let owned = self.owned.get(&Shard::of_room(&request.room));
        let owned = owned.filter(|owned| owned.is_active);
        let read = owned.and_then(|owned| {
            let (header, sequence) = owned.read_quarantined(&request.room)?;
            Some((header, sequence, owned.claim()))
        });
        let Some((header, sequence, claim)) = read else {
            let why = match owned {
                Some(_) => "the room is not in quarantine",
                None => "the room is at another node",
            };
            // Fails if nobody waits for it any more.
            let _ = request.done.send(Err(why.into()));
            return;
        };
        let (nats, sender) = (self.nats.clone(), self.sender.clone());
        let shard = Shard::of_room(&request.room);
        tokio::spawn(async move {
            let read = load(&nats, shard, claim, header, sequence, None, Tail::None).await;
            let read = read.ok().map(Box::new);
            let _ = sender.send(Event::QuarantinedRead(request, read));
        });
    }

    /// The same, when it was read.
    pub(super) fn write_released(
        &mut self,
        request: EndQuarantine,
        read: Option<Box<(StoredRoom, Quarantine)>>,
    ) {
        let EndQuarantine {
            room: id,
            discards,
            done,
        } = request;
        let shard = Shard::of_room(&id);
        let owned = self.owned.get_mut(&shard).filter(|owned| owned.is_active);
        let (Some(owned), Some(read)) = (owned, read) else {
            let _ = done.send(Err("the room cannot be read, or is at another node".into()));
            return;
        };
        // Somebody else may have released it meanwhile.
        if !owned.is_quarantined(&id) {
            let _ = done.send(Err("the room is not in quarantine".into()));
            return;
        }
        let (
            StoredRoom {
                number, snapshot, ..
            },
            Quarantine { tail, .. },
        ) = *read;
        let mut changes = ShardBatch::default();
        if discards {
            changes.write(number, RoomWrite::Discard);
        } else {
            for entry in LogEntries::new(&tail).flatten() {
                changes.log(&entry);
            }
            changes.write(number, RoomWrite::Snapshot { id, snapshot });
        }
        let batch = self.batches.push(Box::new(move |result| {
            let result = result.map_err(|error: JournalError| error.to_string());
            let _ = done.send(result);
        }));
        let parts = owned.push(batch, changes, &self.nats);
        self.batches.add_parts(batch, parts);
        self.mark_ready(shard);
    }
}

/// The server says of a room that it is restored, or not to be, only if it was loaded.
fn report_failure(
    sender: mpsc::UnboundedSender<Event>,
    number: RoomNumber,
    done: Done<Stored>,
) -> Done<Stored> {
    Box::new(move |loaded| {
        if loaded.is_err() {
            let _ = sender.send(Event::Restored(number));
        }
        done(loaded);
    })
}

/// A suspect is loaded by itself, but not for as long as that may take.
fn tell_if_slow(sender: mpsc::UnboundedSender<Event>, number: RoomNumber) {
    /// Enough for a large room; what takes longer is NATS, and ends no process.
    const TIMEOUT: Duration = Duration::from_secs(5);
    tokio::spawn(async move {
        sleep(TIMEOUT).await;
        let _ = sender.send(Event::SuspectIsSlow(number));
    });
}

/// It may have been given back meanwhile.
fn tell_when_loaded(
    sender: mpsc::UnboundedSender<Event>,
    number: RoomNumber,
    done: Done<Stored>,
) -> Done<Stored> {
    Box::new(move |loaded| {
        // Fails if the node has ended.
        let _ = sender.send(Event::SuspectLoaded(number, loaded, done));
    })
}

/// Loads a room now.
fn begin_load(nats: &Nats, owned: &mut Owned, id: &str, done: Done<Stored>) {
    match owned.begin_load(id) {
        Err(error) => done(Err(error)),
        Ok(LoadPlan::New(number)) => done(Ok(Stored::New(number))),
        Ok(LoadPlan::Read {
            header,
            sequence,
            part,
            tail,
        }) => {
            let (nats, shard, claim) = (nats.clone(), owned.shard, owned.claim());
            tokio::spawn(async move {
                let is_quarantined = header.is_quarantined;
                let read = load(&nats, shard, claim, header, sequence, part, tail).await;
                done(read.map(|(room, quarantine)| match is_quarantined {
                    true => Stored::Quarantined(quarantine.reason),
                    false => Stored::Room(room),
                }));
            });
        }
    }
}

fn death_reason(deaths: u32) -> String {
    format!("{deaths} nodes have ended while they restored it")
}
