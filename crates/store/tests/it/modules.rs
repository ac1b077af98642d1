//! The modules of rooms.

use crate::{TempDir, save, support::assemble, support::echo, wait, write};
use core::time::Duration;
use stateroom_wasmi_host::{Limits, LoadOptions, Module, ModuleHash, Room, RoomOptions};
use stateroom_wasmi_server::journal::{Journal, RoomNumber, RoomSnapshot};
use stateroom_wasmi_store::Store;

fn module(store: &Store, hash: ModuleHash) -> Option<Vec<u8>> {
    wait(|done| store.load_module(hash, done)).expect("it is intact")
}

#[test]
fn modules_are_kept_as_long_as_a_room_has_them() {
    let folder = TempDir::new();
    let used = assemble(&echo());
    let unused = [used.clone(), b"\0\x01x".to_vec()].concat();
    let [used_hash, unused_hash] = [&used, &unused].map(|wasm| ModuleHash::of(wasm));
    let store = folder.open();
    assert_eq!(module(&store, used_hash), None);
    store.keep_module(used_hash, &used);
    store.keep_module(unused_hash, &unused);
    // As at each start.
    store.keep_module(used_hash, &used);
    let options = LoadOptions::new().snapshots(true);
    let loaded = Module::load_with(&used, &Limits::new(), options).expect("it is a room");
    let room = Room::new(&loaded, "lobby", RoomOptions::new()).expect("it opens");
    let snapshot = RoomSnapshot {
        events: 0,
        room: room.save().expect("it is idle"),
        clients: Vec::new(),
        wake_at: None,
    };
    write(&store, save(RoomNumber(1), "lobby", snapshot));
    drop(store);

    let store = folder.open();
    assert_eq!(module(&store, used_hash), Some(used.clone()));
    assert_eq!(module(&store, unused_hash), Some(unused));
    drop(store);
    // Nothing is that old.
    assert_eq!(
        Store::prune(&folder.path(), Duration::ZERO).expect("it is closed"),
        0
    );
    let store = folder.open();
    assert_eq!(module(&store, used_hash), Some(used));
    assert_eq!(module(&store, unused_hash), None);
    drop(store);
    let later = Duration::from_secs(1 << 40);
    assert_eq!(
        Store::prune(&folder.path(), later).expect("it is closed"),
        1
    );
    assert_eq!(module(&folder.open(), used_hash), None);
}

#[test]
fn a_damaged_module_is_replaced_when_it_is_kept_again() {
    let folder = TempDir::new();
    let wasm = assemble(&echo());
    let hash = ModuleHash::of(&wasm);
    let store = folder.open();
    // What is stored under a hash is not believed to have it.
    store.keep_module(hash, b"junk");
    assert_eq!(module(&store, hash), Some(b"junk".to_vec()));
    store.keep_module(hash, &wasm);
    assert_eq!(module(&store, hash), Some(wasm));
}
