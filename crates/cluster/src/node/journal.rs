//! What the server asks of the journal.

use super::{Event, Node, RETRY_INTERVAL};
use crate::{
    format::{Quarantine, shard_of},
    nats::RoomRecord,
    owned::{LoadPlan, ShardBatch, load},
    shard::Shard,
};
use bytes::Bytes;
use stateroom_wasmi_host::ModuleHash;
use stateroom_wasmi_server::journal::{
    Batch, Done, JournalError, LogEntries, RoomNumber, RoomWrite, Stored, StoredRoom,
};
use std::collections::BTreeMap;
use tokio::time::sleep;

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

    /// Reads a room that is to be stored as one in quarantine.
    fn begin_quarantine(&mut self, shard: Shard, batch: u64, number: RoomNumber, reason: String) {
        let Some(owned) = self.owned.get_mut(&shard).filter(|owned| owned.is_active) else {
            return self.batches.not_owned(batch, vec![number]);
        };
        let plan = owned.id_of(number).map(|id| owned.begin_load(&id));
        let Some(Ok(LoadPlan::Read {
            header,
            sequence,
            tail,
        })) = plan
        else {
            return;
        };
        self.batches.add_parts(batch, 1);
        let claim = owned.claim();
        let (nats, sender) = (self.nats.clone(), self.sender.clone());
        tokio::spawn(async move {
            let read = load(&nats, shard, claim, header, sequence, tail).await;
            let read = read.ok().map(Box::new);
            let _ = sender.send(Event::QuarantineRead(shard, batch, number, reason, read));
        });
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
        tokio::spawn(async move {
            while nats.keep_module(&hash.to_string(), &wasm).await.is_err() {
                sleep(10 * RETRY_INTERVAL).await;
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

    pub(super) fn load(&mut self, id: Box<str>, done: Done<Stored>) {
        let shard = Shard::of_room(&id);
        match self.owned.get_mut(&shard).filter(|owned| owned.is_active) {
            Some(owned) => {
                owned.load(id, done);
                self.load_next(shard);
            }
            None => done(Err(JournalError::NotOwned { rooms: Vec::new() })),
        }
    }

    /// Loads the rooms whose turn it is.
    pub(super) fn load_next(&mut self, shard: Shard) {
        let Some(owned) = self.owned.get_mut(&shard) else {
            return;
        };
        while let Some((id, done)) = owned.next_load() {
            match owned.begin_load(&id) {
                Err(error) => done(Err(error)),
                Ok(LoadPlan::New(number)) => done(Ok(Stored::New(number))),
                Ok(LoadPlan::Read {
                    header,
                    sequence,
                    tail,
                }) => {
                    let (nats, claim) = (self.nats.clone(), owned.claim());
                    tokio::spawn(async move {
                        let is_quarantined = header.is_quarantined;
                        let read = load(&nats, shard, claim, header, sequence, tail).await;
                        done(read.map(|(room, quarantine)| match is_quarantined {
                            true => Stored::Quarantined(quarantine.reason),
                            false => Stored::Room(room),
                        }));
                    });
                }
            }
        }
    }
}
