//! Rooms that survive the process: what a worker does with its journal.

use super::{HostedRooms, Next};
use crate::{
    config::ServerConfig,
    journal::{Durability, Journal, JournalError, RoomNumber, Stored},
    rooms::{
        Claim, JoinRejection, MOVED, STOPPING,
        journaling::{JournalResult, Journaling, RoomLog},
        restorations::{Join, RestoreError, Restored, RestoredRoom},
        trials::MAX_DEATHS,
    },
    ws::connection::ConnectionKey,
};
use core::time::Duration;
use stateroom_wasmi_host::{
    Clock, Escaped, Instant, OpenError, Room, RoomKey, SaveError, WithSources,
};
use std::sync::Arc;
use tokio::{sync::OwnedSemaphorePermit, time};

/// Time for the journal to make durable what was saved at shutdown.
const SAVE_GRACE: Duration = Duration::from_secs(10);

/// A room that was restored, and has not done yet what was due then.
pub(super) struct Trial {
    room: RoomKey,
    number: RoomNumber,
    turns: u32,
}

impl Trial {
    /// Turns after which it has survived even if it has more to do, as one may have for ever.
    const MAX_TURNS: u32 = 64;

    const fn new(room: RoomKey, number: RoomNumber) -> Self {
        Self {
            room,
            number,
            turns: 0,
        }
    }
}

/// How rooms are journaled.
pub(super) struct JournalOptions {
    pub(super) journal: Arc<dyn Journal>,
    durability: Durability,
    durability_of: Vec<(String, Durability)>,
}

impl JournalOptions {
    /// None if rooms are in memory only.
    pub(super) fn new(config: &ServerConfig) -> Option<Self> {
        Some(Self {
            journal: config.journal.clone()?,
            durability: config.durability,
            durability_of: config.durability_of.clone(),
        })
    }

    fn durability_of(&self, id: &str) -> Durability {
        let matching = self.durability_of.iter();
        let matching = matching.filter(|(prefix, _)| id.starts_with(prefix));
        let longest = matching.max_by_key(|(prefix, _)| prefix.len());
        longest.map_or(self.durability, |(_, durability)| *durability)
    }
}

impl HostedRooms {
    /// Whether what happens in the room of this id is kept in a journal.
    pub(super) fn is_journaled(&self, id: &str) -> bool {
        self.durability(id) != Durability::Memory
    }

    fn durability(&self, id: &str) -> Durability {
        let options = self.options.journal.as_ref();
        options.map_or(Durability::Memory, |options| options.durability_of(id))
    }

    /// Lets a connection join when its room is loaded.
    pub(super) fn join_later(
        &mut self,
        connection: ConnectionKey,
        id: &str,
        claim: Claim,
    ) -> Result<(), JoinRejection> {
        let join = Join { connection, claim };
        if let Err(join) = self.restorations.join(id, join) {
            // Before the journal is asked for it.
            let max_bytes = self.options.module.limits().max_room_id_bytes;
            if id.len() > max_bytes {
                let (bytes, limit) = (id.len(), max_bytes);
                return Err(self.reject(id, &OpenError::IdTooLong { bytes, limit }));
            }
            self.load(id, Some(join))
                .map_err(|error| self.reject(id, &error))?;
        }
        Ok(())
    }

    pub(super) fn load(&mut self, id: &str, join: Option<Join>) -> Result<(), OpenError> {
        let permit = self.permit()?;
        if let Some(journaling) = &self.host.transport().journaling {
            let load = self.restorations.add(id, permit, join);
            journaling.load(id, load);
        }
        Ok(())
    }

    /// Does what follows from what the journal has done.
    pub(super) fn handle_journal(&mut self) {
        while let Some(result) = self.next_result() {
            match result {
                JournalResult::Durable(batch) => self.host.transport_mut().on_durable(batch),
                JournalResult::Lost(batch, rooms) => {
                    self.lose_rooms(batch, &rooms);
                    self.host.transport_mut().on_durable(batch);
                }
                JournalResult::Loaded(id, load, stored) => {
                    // Not if it was given up, and perhaps asked for again, meanwhile.
                    if self.restorations.is_loading(&id, load) {
                        self.loaded(&id, stored);
                    } else if let Ok(Stored::Room(stored)) = stored {
                        self.restorations.give_up(stored.number);
                    }
                }
                JournalResult::Module(hash, wasm) => self.module_loaded(hash, wasm),
                JournalResult::Failed(error) => {
                    log::error!("{}", WithSources(&error));
                    self.failure.get_or_insert(error);
                }
            }
        }
    }

    fn next_result(&self) -> Option<JournalResult> {
        self.host.transport().journaling.as_ref()?.next_result()
    }

    fn loaded(&mut self, id: &str, stored: Result<Stored, JournalError>) {
        if self.close_loaded(id, &stored) {
            if let Ok(Stored::Room(stored)) = stored {
                self.restorations.give_up(stored.number);
            }
            return;
        }
        if let Ok(Stored::Room(stored)) = &stored {
            self.restorations.set_number(id, stored.number);
        }
        let is_import = self.restorations.import(id).is_some();
        let outcome = match stored {
            Ok(Stored::New(number)) if is_import => return self.restore_import(id, number),
            Ok(Stored::Room(stored)) => {
                if let Some(import) = self.restorations.take_import(id) {
                    import.refuse();
                }
                return self.restore_stored(id, stored);
            }
            Ok(Stored::New(number)) => Ok(RestoredRoom::new(number)),
            Ok(Stored::Quarantined(reason)) => Err(RestoreError::Quarantined(reason)),
            Err(error) => Err(RestoreError::Journal(error)),
        };
        self.end_restoration(id, outcome);
    }

    pub(super) fn end_restoration(
        &mut self,
        id: &str,
        outcome: Result<RestoredRoom, RestoreError>,
    ) {
        if let Some(ended) = self.restorations.finish(id, outcome) {
            self.restored(ended);
        }
    }

    /// Loads rooms that must be restored, opens those that are to be open, and replays those that were
    /// loaded, until this time.
    pub(super) fn restore(&mut self, until: Instant) {
        if self.stop_at.is_some() {
            return;
        }
        let unix_time = self.unix_time();
        while let Some(id) = self.restorations.next_unfinished(unix_time) {
            let is_open = self.host.find(&id).is_some() || self.restorations.contains(&id);
            if is_open || !self.is_here(&id) {
                continue;
            }
            let opened = match self.is_journaled(&id) {
                true => self.load(&id, None),
                false if self.options.open_rooms.contains(&id) => self.open(&id).map(drop),
                false => Ok(()),
            };
            match opened {
                Ok(()) => {}
                Err(OpenError::TooManyRooms { .. }) => {
                    // Later.
                    self.restorations.put_back(id);
                    break;
                }
                Err(error) => drop(self.reject(&id, &error)),
            }
        }
        while self.restorations.has_work() {
            self.note_replay(self.restorations.next_event());
            if let Some(ended) = self.restorations.step(self.options.max_tokens) {
                self.restored(ended);
            }
            if self.host.clock().now() >= until {
                break;
            }
        }
        self.restorations.end_turn();
        self.note_replay(None);
    }

    /// Tells the journal of rooms that have survived what they had to do when they were restored: the process
    /// may end as well of a timer that was due, or of what those sent who waited for the room.
    pub(super) fn end_trials(&mut self) {
        let (host, restorations) = (&self.host, &mut self.restorations);
        self.on_trial.retain_mut(|trial| {
            let unfinished = host.room(trial.room).is_some_and(Room::is_unfinished);
            let has_more = host.has_work(trial.room) || unfinished;
            trial.turns += 1;
            let goes_on = has_more && trial.turns < Trial::MAX_TURNS;
            if !goes_on {
                restorations.give_up(trial.number);
            }
            goes_on
        });
        let ended = self.restorations.take_given_up();
        if let Some(journaling) = &self.host.transport().journaling {
            for number in ended {
                journaling.restored(number);
            }
        }
    }

    /// Notes which event is replayed next, if one is.
    fn note_replay(&mut self, event: Option<(RoomNumber, u64)>) {
        if let Some(journaling) = &mut self.host.transport_mut().journaling {
            journaling.replaying(event);
        }
    }

    /// Puts a restored room into the host, or tells those who wait for it why it is not.
    fn restored(&mut self, ended: Restored) {
        let Restored {
            id,
            number,
            permit,
            mut joins,
            import,
            outcome,
        } = ended;
        // Of two of a client that are of about the same time, the last one counts.
        joins.sort_by_key(|join| self.host.transport().order_of(join.connection));
        let is_convicted = joins.iter().any(|join| join.claim.suspicion.is_proved());
        let opened = match outcome {
            Ok(mut room) => {
                if joins.is_empty() && import.is_none() {
                    room.hibernate();
                }
                let opened = self.open_restored(&id, permit, room, import.is_some());
                match (&opened, number) {
                    (Ok(key), Some(number)) => self.on_trial.push(Trial::new(*key, number)),
                    (Err(_), Some(number)) => self.restorations.give_up(number),
                    (_, None) => {}
                }
                opened.map_err(|error| self.reject(&id, &error))
            }
            Err(error) => {
                if let Some(number) = number {
                    self.restorations.give_up(number);
                }
                let rejection = self.reject_restoration(&id, &error);
                let journaling = &mut self.host.transport_mut().journaling;
                if let (Some(journaling), Some(number), true) =
                    (journaling, number, error.is_final() && import.is_none())
                {
                    journaling.quarantine(number, rejection.reason.clone());
                }
                Err(rejection)
            }
        };
        let opened = match opened {
            Ok(room) if is_convicted => Err(self.quarantine(room)),
            opened => opened,
        };
        if let Some(import) = import {
            let room = opened.as_ref();
            let room = room.map_or_else(|error| Err(error.reason.clone()), |room| Ok(*room));
            self.imported(&id, import, room);
        }
        for join in joins {
            if self.host.transport_mut().get(join.connection).is_none() {
                continue;
            }
            let joined = match &opened {
                Ok(room) => self.admit(join.connection, *room, &join.claim),
                Err(rejection) => Err(JoinRejection::new(rejection.code, rejection.reason.clone())),
            };
            if let Err(rejection) = joined
                && let Some(connection) = self.host.transport_mut().get(join.connection)
            {
                connection.close(rejection.code, &rejection.reason, true);
            }
        }
        if let Ok(room) = opened {
            self.update_idle_deadline(room);
            self.hibernation.leave(room);
        }
    }

    /// What a client of an open room has sent has ended node after node: keeps the room as it is, and ends it. One
    /// that is in memory only goes on without the client.
    pub(super) fn quarantine(&mut self, key: RoomKey) -> JoinRejection {
        const CODE: u16 = 1011;
        let reason = format!("nodes have ended {MAX_DEATHS} times of what a client had sent");
        let text = RestoreError::Quarantined(reason.clone()).to_string();
        let id = self.host.room(key).map_or("", |room| room.id());
        log::error!(
            "room {:?} is in quarantine: {reason}",
            Escaped::new(id).at_most(256)
        );
        self.failed.push(id, &text, time::Instant::now());
        let clients = self.host.transport_mut();
        clients.hold_all(key);
        if let Some(log) = clients.take_log(key) {
            clients.close_room(key, CODE, &text);
            if let Some(journaling) = &mut clients.journaling {
                journaling.quarantine(log.number, reason);
            }
            self.drop_room(key);
        }
        JoinRejection::new(CODE, text)
    }

    fn reject_restoration(&mut self, id: &str, error: &RestoreError) -> JoinRejection {
        match error {
            RestoreError::Journal(JournalError::NotOwned { .. }) => return JoinRejection::moved(),
            // Another node goes on with the room.
            RestoreError::Journal(JournalError::Closed | JournalError::Failed(_))
                if self.options.directory.is_some() =>
            {
                return JoinRejection::moved();
            }
            _ => {}
        }
        let reason = WithSources(error).to_string();
        if let Some(permit) = self.log.rejected.permit() {
            let id = Escaped::new(id).at_most(256);
            log::error!("cannot restore room {id:?}: {reason}{permit}");
        }
        self.failed.push(id, &reason, time::Instant::now());
        JoinRejection::new(error.close_code(), reason)
    }

    fn open_restored(
        &mut self,
        id: &str,
        permit: OwnedSemaphorePermit,
        restored: RestoredRoom,
        is_import: bool,
    ) -> Result<RoomKey, OpenError> {
        // One that arrives is saved when it goes on.
        let is_new = restored.room.is_none() && !is_import;
        let key = match restored.room {
            Some(room) => {
                let metrics = &mut self.host.transport_mut().metrics;
                metrics.room_loaded(&room.stats());
                self.host.insert(room, restored.unix_time)?
            }
            None => self.host.open(id, &self.options.module)?,
        };
        self.add(key, permit);
        // One from a file may be in memory only.
        if self.is_journaled(id) {
            let mut log = RoomLog::new(restored.number, self.durability(id), restored.events);
            if let Some(journaling) = &self.host.transport().journaling {
                log.begin_in(journaling);
            }
            self.host.transport_mut().set_log(key, log);
            // It was added above.
            let _ = self.host.set_recording(key, true);
        }
        let mut clients = restored.clients;
        // A snapshot alone does not say which ids were given.
        let connected = self.host.room(key).and_then(|room| room.clients().last());
        clients.last_id = clients.last_id.max(connected.map_or(0, |client| client.0));
        self.host.transport_mut().restore(key, clients);
        // A new room exists from its first snapshot on.
        if is_new {
            let _ = self.save(key, None);
        }
        // Their connections have ended with the process.
        let gone = self.host.room(key).map(|room| room.clients().to_vec());
        for client in gone.unwrap_or_default() {
            if !self.host.transport().has_session(key, client) {
                self.disconnect(key, client);
            }
        }
        Ok(key)
    }

    /// Saves a room; `wake_at` is when it is to be restored even if nobody asks for it.
    fn save(&mut self, key: RoomKey, wake_at: Option<Duration>) -> Result<(), SaveError> {
        // Until its server has given it up, it is there.
        if self.transfers.is_arriving(key) {
            return Err(SaveError::Busy);
        }
        let snapshot = self.host.save(key)?;
        let id = self
            .host
            .room(key)
            .map_or_else(String::new, |room| room.id().into());
        self.host.transport_mut().save(key, &id, snapshot, wake_at);
        Ok(())
    }

    /// Saves a room that goes on with another module: its events so far are those of the one before.
    pub(super) fn save_replaced(&mut self, key: RoomKey) {
        let is_journaled = self.host.transport().log(key).is_some();
        if is_journaled && let Err(error) = self.save(key, None) {
            // Without a state of this module it could not be restored.
            log::error!("closed room {key}, which cannot be saved: {error}");
            let _ = self.host.close(key);
        }
    }

    /// Saves the rooms for which that is due.
    pub(super) fn save_due(&mut self, now: Instant) {
        let Some(journaling) = &mut self.host.transport_mut().journaling else {
            return;
        };
        for key in journaling.take_due(now) {
            let (Some(room), Some(log)) = (self.host.room(key), self.host.transport().log(key))
            else {
                continue;
            };
            if !log.has_tail() {
                continue;
            }
            // To finish a long event would delay the others.
            let may_save = !room.is_unfinished() || log.is_overdue();
            let is_saved = may_save && self.save(key, None).is_ok();
            let is_open = self.host.room(key).is_some_and(|room| !room.is_closed());
            if let Some(journaling) = &mut self.host.transport_mut().journaling
                && !is_saved
                && is_open
            {
                journaling.retry(key);
            }
        }
    }

    /// Closes a room that nobody uses. If it is journaled, it is kept there.
    pub(super) fn close_or_store(&mut self, key: RoomKey, recheck_at: Instant) {
        if self.host.transport().log(key).is_none() {
            // Fails if the room has ended by itself.
            let _ = self.host.close(key);
            return;
        }
        let is_idle = self
            .host
            .room(key)
            .is_some_and(|room| !room.is_runnable() && !room.is_unfinished());
        if is_idle && self.save(key, None).is_ok() {
            // Its clients have left.
            self.host
                .transport_mut()
                .close_room(key, 1001, "the room is closed");
            if let Ok(room) = self.host.discard(key) {
                let metrics = &mut self.host.transport_mut().metrics;
                metrics.room_gone(key, &room.stats);
            }
            self.rooms.remove(&key);
        } else if let Some(room) = self.rooms.get_mut(&key) {
            room.idle_until = Some(recheck_at);
            self.idle.insert((recheck_at, key));
        }
    }

    /// Saves all rooms before the process ends.
    fn save_all(&mut self) {
        let rooms: Vec<_> = self.host.rooms().map(|(key, _)| key).collect();
        for key in rooms {
            // What it has done is in the journal in any case.
            if self.host.transport().log(key).is_some()
                && let Err(error) = self.save_for_later(key)
            {
                log::debug!("room {key} is not saved: {error}");
            }
        }
    }

    /// Saves a room that goes on in another process.
    pub(super) fn save_for_later(&mut self, key: RoomKey) -> Result<(), SaveError> {
        // Clients that come back find their sessions.
        let has_sessions = self.host.transport().count_sessions(key) > 0;
        let wake_at = match self.options.keep_timers {
            _ if has_sessions => Some(self.unix_time()),
            true => self.host.room(key).and_then(|room| {
                let left = room.poll_timeout()?.saturating_duration_since(room.now());
                Some(self.unix_time() + left)
            }),
            false => None,
        };
        self.save(key, wake_at)
    }

    pub(super) fn next_save(&self, now: Instant) -> Option<Instant> {
        let journaling = self.host.transport().journaling.as_ref()?;
        journaling.next_due(now)
    }

    /// When the next stored room is to wake, in the host's time.
    pub(super) fn next_wake(&self, now: Instant) -> Option<Instant> {
        let unix_time = self.unix_time();
        let wake_at = self.restorations.next_wake(unix_time)?;
        Some(now + wake_at.saturating_sub(unix_time))
    }

    fn unix_time(&self) -> Duration {
        let clock = self.host.clock();
        let uptime = clock.now().saturating_duration_since(Instant::ZERO);
        clock.unix_time_at_zero().unwrap_or_default() + uptime
    }

    /// Saves all journaled rooms, and closes all clients when that is durable.
    pub(super) fn shut_down(&mut self, now: Instant) -> Next {
        let (code, reason) = match self.options.directory {
            // Its clients find it again.
            Some(_) => MOVED,
            None => STOPPING,
        };
        let until = match self.saved_until {
            Some(until) => until,
            None => {
                self.save_all();
                self.host.transport_mut().submit();
                *self.saved_until.insert(now + SAVE_GRACE)
            }
        };
        let journaling = self.host.transport().journaling.as_ref();
        let is_durable = journaling.is_none_or(Journaling::is_idle);
        if !is_durable && now < until {
            return Next::At(self.host.clock().at(until));
        }
        if !is_durable {
            log::error!("the storage takes too long: what happened last is lost");
            self.host.transport_mut().discard_held(code, reason);
        }
        self.close_all(code, reason);
        Next::Never(None)
    }
}
