//! Rooms that go on with another module.

use super::HostedRooms;
use crate::{
    journal::{JournalError, ModuleUpgrade, StoredRoom},
    metrics::Upgraded,
    rooms::restorations::RestoreError,
};
use core::task::Poll;
use stateroom_wasmi_host::{
    Clock, Escaped, Instant, Module, ModuleHash, RoomKey, SnapshotError, SnapshotInfo,
    UpgradeError, WithSources,
};
use std::collections::VecDeque;

/// The rooms of a worker on their way to its present module.
pub(super) struct Upgrades {
    /// How they get there.
    policy: ModuleUpgrade,
    /// Rooms that may still have another module.
    outdated: VecDeque<RoomKey>,
    /// Those of them that were in the middle of an event.
    busy: VecDeque<RoomKey>,
    /// Rooms whose state passes to the present module.
    running: Vec<RoomKey>,
    /// Modules that stored rooms have, latest last.
    kept: VecDeque<(ModuleHash, Module)>,
}

/// Modules besides the present one that a worker keeps in memory.
const MAX_KEPT: usize = 4;

impl Upgrades {
    pub(super) fn new(policy: ModuleUpgrade) -> Self {
        Self {
            policy,
            outdated: VecDeque::new(),
            busy: VecDeque::new(),
            running: Vec::new(),
            kept: VecDeque::new(),
        }
    }

    /// The present module has changed.
    pub(super) fn check_all(&mut self, rooms: impl Iterator<Item = RoomKey>) {
        self.outdated = rooms.collect();
    }

    /// A room may have another module than the present one.
    pub(super) fn check(&mut self, room: RoomKey) {
        self.outdated.push_back(room);
    }

    pub(super) fn has_work(&self) -> bool {
        !self.outdated.is_empty()
    }

    /// A module of stored rooms, if it is known.
    fn kept(&self, hash: ModuleHash) -> Option<&Module> {
        let mut kept = self.kept.iter();
        kept.find(|(kept, _)| *kept == hash)
            .map(|(_, module)| module)
    }

    fn keep(&mut self, hash: ModuleHash, module: Module) {
        if self.kept.len() == MAX_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back((hash, module));
    }
}

impl HostedRooms {
    /// Lets rooms go on with the present module, until this time.
    pub(super) fn upgrade_outdated(&mut self, until: Instant) {
        self.end_upgrades();
        let busy = core::mem::take(&mut self.upgrades.busy);
        self.upgrades.outdated.extend(busy);
        while let Some(key) = self.upgrades.outdated.pop_front() {
            let module = self.options.module.clone();
            match self.host.room(key) {
                None => {}
                Some(room) if room.module().ptr_eq(&module) && !room.is_upgrading() => {}
                // To finish a long event would delay the others.
                Some(room) if room.is_unfinished() || self.transfers.is_held(key) => {
                    self.upgrades.busy.push_back(key)
                }
                Some(_) if self.upgrades.policy == ModuleUpgrade::Restart => self.begin_anew(key),
                Some(_) => match self.host.begin_upgrade(key, &module) {
                    Ok(()) => self.upgrades.running.push(key),
                    Err(error) => self.not_upgraded(key, &error),
                },
            }
            if self.host.clock().now() >= until {
                break;
            }
        }
    }

    /// Rooms whose state has passed, or not, go on.
    fn end_upgrades(&mut self) {
        for key in core::mem::take(&mut self.upgrades.running) {
            match self.host.poll_upgrade(key) {
                Poll::Pending => self.upgrades.running.push(key),
                Poll::Ready(Ok(())) => {
                    self.count_upgrade(Upgraded::Passed);
                    self.save_replaced(key);
                    // There may be a later module.
                    self.upgrades.check(key);
                }
                Poll::Ready(Err(error)) => self.not_upgraded(key, &error),
            }
        }
    }

    fn not_upgraded(&mut self, key: RoomKey, error: &UpgradeError) {
        // If it is no more, there is nothing to say.
        let Some(room) = self.host.room(key).filter(|room| !room.is_closed()) else {
            return;
        };
        let keeps = self.upgrades.policy == ModuleUpgrade::Hook;
        let is_expected = matches!(error, UpgradeError::NoSave | UpgradeError::NoLoad);
        if (keeps || !is_expected)
            && let Some(permit) = self.log.rejected.permit()
        {
            let what = match keeps {
                true => "goes on with the module that it has",
                false => "begins anew with the new module",
            };
            let id = Escaped::new(room.id()).at_most(256);
            log::warn!("room {id:?} {what}: {}{permit}", WithSources(error));
        }
        match keeps {
            true => self.count_upgrade(Upgraded::Kept),
            false => self.begin_anew(key),
        }
    }

    fn begin_anew(&mut self, key: RoomKey) {
        let module = self.options.module.clone();
        if self.host.replace_module(key, &module).is_ok() {
            self.count_upgrade(Upgraded::Restarted);
            self.save_replaced(key);
        }
    }

    fn count_upgrade(&mut self, result: Upgraded) {
        self.host.transport_mut().metrics.upgraded(result);
    }

    /// Restores a room that was loaded: with its own module, from which it then goes on with the present one,
    /// or anew.
    pub(super) fn restore_stored(&mut self, id: &str, stored: StoredRoom) {
        let hash = match SnapshotInfo::read(&stored.snapshot.room) {
            Ok(info) => info.module,
            Err(error) => {
                return self.end_restoration(id, Err(RestoreError::Snapshot(error)));
            }
        };
        if self.options.module.hash() == Some(hash) {
            let module = self.options.module.clone();
            return self.restorations.loaded(id, stored, Some(&module));
        }
        match self.upgrades.policy {
            ModuleUpgrade::Refuse => {
                let error = RestoreError::Snapshot(SnapshotError::Module(hash));
                self.end_restoration(id, Err(error));
            }
            ModuleUpgrade::Restart => self.restorations.loaded(id, stored, None),
            ModuleUpgrade::Hook | ModuleUpgrade::HookOrRestart => {
                match self.upgrades.kept(hash).cloned() {
                    Some(module) => self.restorations.loaded(id, stored, Some(&module)),
                    None => self.wait_for_module(id, hash, stored),
                }
            }
        }
    }

    fn wait_for_module(&mut self, id: &str, hash: ModuleHash, stored: StoredRoom) {
        let is_first = !self.restorations.is_waiting_for(hash);
        self.restorations.wait_for(id, hash, stored);
        match &self.host.transport().journaling {
            Some(journaling) if is_first => journaling.load_module(hash),
            Some(_) => {}
            None => self.module_loaded(hash, Ok(None)),
        }
    }

    /// The journal has loaded a module that stored rooms have, or does not have it.
    pub(super) fn module_loaded(
        &mut self,
        hash: ModuleHash,
        wasm: Result<Option<Vec<u8>>, JournalError>,
    ) {
        let module = match wasm {
            Ok(Some(wasm)) if ModuleHash::of(&wasm) == hash => {
                let module = self.options.loader.load(&wasm);
                module.map_err(|error| WithSources(&error).to_string())
            }
            Ok(Some(_)) => Err("it is damaged".into()),
            Ok(None) => Err("it was not kept".into()),
            Err(error) => Err(WithSources(&error).to_string()),
        };
        let module = match module {
            Ok(module) => {
                self.upgrades.keep(hash, module.clone());
                Some(module)
            }
            Err(error) => {
                log::error!("there is no module {hash}, which stored rooms have: {error}");
                None
            }
        };
        for (id, stored) in self.restorations.take_waiting_for(hash) {
            // What comes from another server is not lost here.
            let must_pass = self.upgrades.policy == ModuleUpgrade::Hook
                || self.restorations.import(&id).is_some();
            match &module {
                None if must_pass => {
                    self.end_restoration(&id, Err(RestoreError::NoModule(hash)));
                }
                module => self.restorations.loaded(&id, stored, module.as_ref()),
            }
        }
    }
}
