//! Rooms that are saved, loaded and hibernate.

use crate::support::{Host, Module, ROOM, Result, Status, buffer, call, status, zeroed_with_size};
use stateroom_wasmi::*;
use std::{ffi::CStr, ptr::null_mut};

const SECOND: u64 = 1_000_000_000;

fn module() -> Module {
    let options = stateroom_load_options {
        snapshots: 1,
        ..Default::default()
    };
    Module::load(ROOM.as_bytes(), &options).unwrap()
}

fn save_into(host: &Host, room: stateroom_room, data: &mut [u8]) -> (Result, usize) {
    let mut length = usize::MAX;
    let result = call(|error| unsafe {
        let (data, capacity) = (data.as_mut_ptr().cast(), data.len());
        stateroom_room_save(host.handle, 0, room, data, capacity, &raw mut length, error)
    });
    (result, length)
}

fn save(host: &Host, room: stateroom_room) -> Vec<u8> {
    let (result, length) = save_into(host, room, &mut []);
    assert_eq!(status(result), Status::TooSmall);
    let mut snapshot = vec![0; length];
    let (result, length) = save_into(host, room, &mut snapshot);
    result.unwrap();
    assert_eq!(length, snapshot.len());
    snapshot
}

fn load(host: &Host, now: u64, module: &Module, snapshot: &[u8]) -> Result<stateroom_room> {
    let mut room = u64::MAX;
    let result = call(|error| unsafe {
        let (data, len) = (snapshot.as_ptr().cast(), snapshot.len());
        let options = std::ptr::null();
        stateroom_room_load(
            host.handle,
            now,
            module.0,
            data,
            len,
            options,
            &raw mut room,
            error,
        )
    });
    assert_eq!(result.is_err(), room == STATEROOM_NO_ROOM);
    result.map(|()| room)
}

#[test]
fn a_room_goes_on_in_another_host() {
    let (module, here) = (module(), Host::new());
    let room = here.open_with_client(&module);
    for text in ["a", "b", "t"] {
        here.text(room, 1, text).unwrap();
    }
    here.poll(0);
    let snapshot = save(&here, room);
    drop(here);

    let there = Host::new();
    // The program's time is another there. The room was saved ten milliseconds before its timer.
    let now = 500 * SECOND;
    let room = load(&there, now, &module, &snapshot).unwrap();
    assert_eq!(there.find("room").unwrap(), room);
    assert_eq!(there.poll(now), now + 10_000_000);
    there.text(room, 1, "n").unwrap();
    there.poll(now);
    assert_eq!(
        there.texts(),
        ["4"],
        "it has counted the messages from before"
    );
    there.poll(now + 10_000_000);
    assert_eq!(there.texts(), ["tock"]);
}

#[test]
fn a_snapshot_says_what_it_needs() {
    let (module, host) = (module(), Host::new());
    let room = host.open_with_client(&module);
    let snapshot = save(&host, room);
    let mut info: stateroom_snapshot_info = zeroed_with_size();
    let mut limits: stateroom_limits = zeroed_with_size();
    let mut id = [0x7f; 16];
    let mut id_buffer = buffer(&mut id);
    call(|error| unsafe {
        stateroom_snapshot_get_info(
            snapshot.as_ptr().cast(),
            snapshot.len(),
            &raw mut info,
            &raw mut limits,
            &raw mut id_buffer,
            error,
        )
    })
    .unwrap();
    let wasm = wat::parse_str(ROOM).unwrap();
    let hash = stateroom_wasmi_host::ModuleHash::of(&wasm);
    assert_eq!(info.module_hash, hash.0);
    assert_eq!(limits.max_clients, stateroom_limits::default().max_clients);
    let id = CStr::from_bytes_until_nul(&id).unwrap();
    assert_eq!(id.to_str(), Ok("room"));
    // None of it is wanted.
    call(|error| unsafe {
        let (data, len) = (snapshot.as_ptr().cast(), snapshot.len());
        stateroom_snapshot_get_info(data, len, null_mut(), null_mut(), null_mut(), error)
    })
    .unwrap();
}

#[test]
fn what_cannot_be_loaded_or_saved_is_said() {
    let (module, host) = (module(), Host::new());
    let room = host.open_with_client(&module);
    let mut snapshot = save(&host, room);
    assert_eq!(status(load(&host, 0, &module, &snapshot)), Status::IdTaken);
    assert_eq!(
        status(load(&host, 0, &module, b"")),
        Status::InvalidSnapshot
    );
    let other = Module::load(
        b"(module (memory (export \"memory\") 1)
            (func (export \"stateroom_malloc\") (param i32) (result i32) (i32.const 0))
            (func (export \"stateroom_free\") (param i32 i32))
            (func (export \"stateroom_recv\") (param i32 i32)))",
        &stateroom_load_options {
            snapshots: 1,
            ..Default::default()
        },
    )
    .unwrap();
    let elsewhere = Host::new();
    assert_eq!(
        status(load(&elsewhere, 0, &Module::new(ROOM), &snapshot)),
        Status::NotLoadedForSnapshots
    );
    assert_eq!(
        status(load(&elsewhere, 0, &other, &snapshot)),
        Status::OtherSnapshot
    );
    *snapshot.last_mut().unwrap() ^= 1;
    assert_eq!(
        status(load(&elsewhere, 0, &module, &snapshot)),
        Status::InvalidSnapshot
    );

    let not_loaded_for_it = host.open("other", &Module::new(ROOM)).unwrap();
    let (result, length) = save_into(&host, not_loaded_for_it, &mut [0; 1024]);
    assert_eq!((status(result), length), (Status::NotLoadedForSnapshots, 0));
    host.behaviour.result.set(1);
    host.text(room, 1, "is refused").unwrap();
    host.poll(0);
    assert_eq!(
        status(save_into(&host, room, &mut [0; 1024]).0),
        Status::OutputsWaiting
    );
    host.close(room).unwrap();
    assert_eq!(
        status(save_into(&host, room, &mut [0; 1024]).0),
        Status::Closed
    );
}

#[test]
fn a_room_hibernates_until_it_is_needed() {
    let (module, host) = (module(), Host::new());
    let room = host.open_with_client(&module);
    let hibernate =
        || call(|error| unsafe { stateroom_room_hibernate(host.handle, 0, room, error) });
    host.text(room, 1, "a").unwrap();
    assert_eq!(status(hibernate()), Status::Busy);
    host.poll(0);
    hibernate().unwrap();
    let stats = host.room_stats(room).unwrap();
    assert_eq!(stats.state, stateroom_room_state::Hibernating as i32);
    assert!(stats.hibernated_bytes > 0 && stats.memory_bytes == 0);
    host.calls();
    host.text(room, 1, "n").unwrap();
    host.poll(0);
    assert_eq!(host.texts(), ["2"]);
    assert_eq!(
        host.room_stats(room).unwrap().state,
        stateroom_room_state::Open as i32
    );
}
