//! Rooms that are saved, loaded and hibernate.

use crate::{
    buffer::stateroom_buffer,
    ffi::{Caller, Versioned},
    host::{stateroom_host, with_host},
    limits::stateroom_limits,
    module::stateroom_module,
    status::stateroom_status,
    version::{STATEROOM_NO_ROOM, stateroom_room},
};
use core::ffi::c_void;

/// How a room is loaded. Set `size` and leave everything else 0 for the defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_snapshot_options {
    /// sizeof (stateroom_snapshot_options).
    pub size: usize,
    /// Not 0: the room may go on under the limits of the module where they are not those that it ran
    /// under. Its guest may observe the difference.
    pub other_limits: i32,
}

/// What a snapshot says without its module.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct stateroom_snapshot_info {
    /// Set by the caller: sizeof (stateroom_snapshot_info).
    pub size: usize,
    /// The SHA-256 of the room's module, in the binary format.
    pub module_hash: [u8; 32],
    /// A hash of the room's state, equal for rooms that go on in the same way.
    pub state_hash: [u8; 16],
    /// The room's own time, in nanoseconds since it was opened.
    pub room_time: u64,
    /// The wall time when it was opened, in nanoseconds since 1970; 0 if its host did not know.
    pub unix_time_at_zero: u64,
    /// The wall time when it was saved, in nanoseconds since 1970; 0 if its host did not know.
    pub saved_at: u64,
}

/// Saves a room: writes bytes from which stateroom_room_load makes one that goes on exactly here, in
/// this process or another, on any machine. The room stays open: discard it if it is to go on
/// elsewhere.
///
/// An event that the guest is in the middle of is finished first and its outputs are sent, so
/// callbacks may be called, also if the function then fails. That takes what the event needs, up to
/// `max_fuel_per_event` and without a budget, and if the guest fails, its fault policy follows.
///
/// `*length` receives the length of the snapshot. If that is more than `capacity`, nothing is written,
/// and the function returns TOO_SMALL; `data` may be NULL if `capacity` is 0.
///
/// The module must have been loaded with `snapshots`.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNSUPPORTED, UNKNOWN_ROOM, CLOSED,
/// NOT_LOADED_FOR_SNAPSHOTS, OUTPUTS_WAITING, TOO_SMALL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_save(
    host: *mut stateroom_host,
    now: u64,
    room: stateroom_room,
    data: *mut c_void,
    capacity: usize,
    length: *mut usize,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let length = caller.out("length", length, 0)?;
        let mut list = caller.list("data", data.cast::<u8>(), capacity)?;
        with_host(caller, host, |state| {
            let key = state.key(room)?;
            state.host.clock().set(now);
            let snapshot = with_snapshots::save(&mut state.host, key)?;
            length.set(snapshot.len());
            if snapshot.len() > capacity {
                return Err(crate::failure::Failure::TooSmall {
                    needed: snapshot.len(),
                });
            }
            list.fill(snapshot.into_iter());
            Ok(())
        })
    })
}

/// Opens a room from a snapshot, under the id that it has there; `*room` receives its key, and is
/// STATEROOM_NO_ROOM on failure. Its clients are connected, but `connected` is not called for them. Its
/// guest is made by the next poll that has something for it. The room's time goes on by the wall time
/// that has passed, as far as both hosts know it; a timer that came due meanwhile fires once, late.
///
/// The module must be the one that the room had, loaded with `snapshots`, and with the same limits as
/// far as a guest can observe them. `options` may be NULL. Whatever the bytes are, they harm nobody but
/// this room.
///
/// Errors: INVALID_ARGUMENT, WRONG_HANDLE, IN_USE, PANICKED, UNSUPPORTED, ID_TOO_LONG, ID_TAKEN,
/// TOO_MANY_ROOMS, NOT_LOADED_FOR_SNAPSHOTS, INVALID_SNAPSHOT, OTHER_SNAPSHOT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_load(
    host: *mut stateroom_host,
    now: u64,
    module: *const stateroom_module,
    snapshot: *const c_void,
    snapshot_len: usize,
    options: *const stateroom_snapshot_options,
    room: *mut stateroom_room,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let out = caller.out("room", room, STATEROOM_NO_ROOM)?;
        let snapshot = caller.bytes("snapshot", snapshot, snapshot_len)?;
        let module = caller.handle("module", module)?;
        let options = caller.read_versioned_or_default("options", options)?;
        with_host(caller, host, |state| {
            state.host.clock().set(now);
            let key = with_snapshots::load(&mut state.host, module, snapshot, options)?;
            out.set(state.keys().to_program(key));
            Ok(())
        })
    })
}

/// Replaces the guest of an idle room by its state, which takes a fraction of the memory. An event, or
/// its timer, wakes the room. An event that the guest is in the middle of is finished first.
///
/// Errors: as stateroom_room_save, and BUSY if events wait for the room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_room_hibernate(
    host: *mut stateroom_host,
    now: u64,
    room: stateroom_room,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        with_host(caller, host, |state| {
            let key = state.key(room)?;
            state.host.clock().set(now);
            with_snapshots::hibernate(&mut state.host, key)
        })
    })
}

/// Reads what a snapshot says: which module it needs, and under which limits and which id it ran. Each
/// of `info`, `limits` and `id` may be NULL. The caller has set the sizes of the structs. That the
/// rest of the snapshot is not damaged is found out when it is loaded.
///
/// Any thread. Errors: INVALID_ARGUMENT, UNSUPPORTED, INVALID_SNAPSHOT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stateroom_snapshot_get_info(
    snapshot: *const c_void,
    snapshot_len: usize,
    info: *mut stateroom_snapshot_info,
    limits: *mut stateroom_limits,
    id: *mut stateroom_buffer,
    error: *mut stateroom_buffer,
) -> stateroom_status {
    // SAFETY: the rules of the header; see `Caller`.
    let caller = unsafe { Caller::new(error) };
    caller.run(|caller| {
        let snapshot = caller.bytes("snapshot", snapshot, snapshot_len)?;
        let read = with_snapshots::read(snapshot)?;
        if !info.is_null() {
            caller.write_versioned("info", info, read.info)?;
        }
        if !limits.is_null() {
            caller.write_versioned("limits", limits, read.limits)?;
        }
        if !id.is_null() {
            caller.write_text("id", id, &read.id)?;
        }
        Ok(())
    })
}

impl Default for stateroom_snapshot_options {
    fn default() -> Self {
        Self {
            size: size_of::<Self>(),
            other_limits: 0,
        }
    }
}

/// What a snapshot says.
struct SnapshotHead {
    info: stateroom_snapshot_info,
    limits: stateroom_limits,
    id: alloc::string::String,
}

/// What is behind the functions.
#[cfg(feature = "snapshot")]
mod with_snapshots {
    use super::{SnapshotHead, stateroom_snapshot_info, stateroom_snapshot_options};
    use crate::failure::Failure;
    use alloc::vec::Vec;
    use core::time::Duration;
    use stateroom_wasmi_host::{
        Clock, Host, Module, RoomKey, SnapshotInfo, SnapshotOptions, Transport,
    };

    pub(super) fn save(
        host: &mut Host<impl Clock, impl Transport>,
        key: RoomKey,
    ) -> Result<Vec<u8>, Failure> {
        host.save(key).map_err(Failure::Save)
    }

    pub(super) fn load(
        host: &mut Host<impl Clock, impl Transport>,
        module: &Module,
        snapshot: &[u8],
        options: stateroom_snapshot_options,
    ) -> Result<RoomKey, Failure> {
        let options = SnapshotOptions::new().other_limits(options.other_limits != 0);
        host.load(module, snapshot, options)
            .map_err(Failure::Snapshot)
    }

    pub(super) fn hibernate(
        host: &mut Host<impl Clock, impl Transport>,
        key: RoomKey,
    ) -> Result<(), Failure> {
        host.hibernate(key).map_err(Failure::Save)
    }

    pub(super) fn read(snapshot: &[u8]) -> Result<SnapshotHead, Failure> {
        let read = SnapshotInfo::read(snapshot).map_err(Failure::Snapshot)?;
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Ok(SnapshotHead {
            info: stateroom_snapshot_info {
                size: size_of::<stateroom_snapshot_info>(),
                module_hash: read.module.0,
                state_hash: read.state_hash.0,
                room_time: read.now.as_nanos(),
                unix_time_at_zero: nanos(read.unix_time_at_zero),
                saved_at: nanos(read.saved_at.unwrap_or_default()),
            },
            limits: (&read.limits).into(),
            id: read.room_id,
        })
    }
}

/// Without the feature there is none of it.
#[cfg(not(feature = "snapshot"))]
mod with_snapshots {
    use super::{SnapshotHead, stateroom_snapshot_options};
    use crate::failure::Failure;
    use alloc::vec::Vec;
    use stateroom_wasmi_host::{Host, Module, RoomKey};

    const LACKING: Failure = Failure::Unsupported("snapshots");

    pub(super) const fn save<C, T>(_: &mut Host<C, T>, _: RoomKey) -> Result<Vec<u8>, Failure> {
        Err(LACKING)
    }

    pub(super) const fn load<C, T>(
        _: &mut Host<C, T>,
        _: &Module,
        _: &[u8],
        _: stateroom_snapshot_options,
    ) -> Result<RoomKey, Failure> {
        Err(LACKING)
    }

    pub(super) const fn hibernate<C, T>(_: &mut Host<C, T>, _: RoomKey) -> Result<(), Failure> {
        Err(LACKING)
    }

    pub(super) const fn read(_: &[u8]) -> Result<SnapshotHead, Failure> {
        Err(LACKING)
    }
}

// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_snapshot_options {}
// SAFETY: it begins with its size, and consists of integers.
unsafe impl Versioned for stateroom_snapshot_info {}
