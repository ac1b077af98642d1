//! The same inputs give the same outputs, however compiled and sliced, floats included.

use crate::support::{ENV, Said, connect, guest_0_2, limits, module, outputs, room, send};
use stateroom_wasmi_host::{
    ClientId, Compilation, Event, Instant, MessageRecipient, Module, Room, RoomOptions,
};
use std::{fs, path::Path, time::Duration};

#[test]
fn a_nan_has_the_same_bits_on_every_processor() {
    // Processors differ in how they propagate NaN payloads; the canonical NaN has none.
    let body = "(f64.store (i32.const 0) (f64.add (f64.const nan:0x4000000000001) (f64.const 1)))
        (f32.store (i32.const 8) (f32.mul (f32.const -nan:0x200001) (f32.const 3)))
        (f64.store (i32.const 16) (f64.sqrt (f64.const -1)))
        (call $send_binary (i32.const 0) (i32.const 0) (i32.const 24))";
    let mut room = room(&module(&guest_0_2(ENV, &[("message", body)], "")));
    connect(&mut room, 1);
    send(&mut room, "go");
    let canonical = "0x000000000000f87f0000c07f00000000000000000000f87f".to_owned();
    assert_eq!(
        outputs(&mut room, Instant::ZERO),
        [(MessageRecipient::Broadcast, canonical)]
    );
}

#[test]
fn bundled_rooms_send_the_same_however_compiled_and_sliced() {
    for (name, wasm) in bundled() {
        let expected = play(&load(&wasm, Compilation::Lazy, u64::MAX));
        assert!(!expected.0.is_empty(), "{name} sends nothing");
        for (compilation, slice) in [
            (Compilation::Lazy, u64::MAX),
            (Compilation::Eager, u64::MAX),
            (Compilation::Lazy, 500),
            (Compilation::OnDemand, 700),
        ] {
            let again = play(&load(&wasm, compilation, slice));
            assert_eq!(again, expected, "{name}, {compilation:?}, {slice}");
        }
    }
}

/// The bundled rooms, by their names: those that this build can run.
pub fn bundled() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/rooms/wasm");
    let files = fs::read_dir(folder).expect("the folder of rooms exists");
    let paths = files.map(|file| file.expect("a file").path());
    paths
        .map(|path| {
            let name = path.file_stem().expect("a file has a name").display();
            (name.to_string(), fs::read(&path).expect("it can be read"))
        })
        .filter(|(name, _)| cfg!(feature = "wasi") || !imports_wasi(name))
        .collect()
}

/// Whether a bundled room imports something of WASI.
pub fn imports_wasi(room: &str) -> bool {
    room.ends_with("-wasi") || room == "echo-go"
}

fn load(wasm: &[u8], compilation: Compilation, slice: u64) -> Module {
    Module::load_with(
        wasm,
        &limits(|limits| limits.fuel_per_slice = slice),
        compilation,
    )
    .expect("it loads")
}

/// All outputs of a room for a sequence of events, and the fuel that it used.
pub fn play(module: &Module) -> (Vec<Said>, u64) {
    let options = RoomOptions::new().seed(42);
    let mut now = Instant::from_millis(5);
    let mut room = Room::new(module, "day", options).expect("it opens");
    let mut sent = outputs(&mut room, now);
    let (a, b) = (ClientId(1), ClientId(2));
    let events = [
        Event::Connect(a),
        Event::Connect(b),
        Event::message(a, "2d6"),
        Event::message(b, "+5"),
        Event::message(a, "/nick ada"),
        Event::message(b, &[1, 2, 3, 250]),
        Event::Disconnect(a),
        Event::message(b, "d20"),
    ];
    for event in events {
        now = now + Duration::from_millis(1500);
        room.handle_timeout(now);
        sent.extend(outputs(&mut room, now));
        room.handle_event(now, event)
            .expect("the room accepts the event");
        sent.extend(outputs(&mut room, now));
    }
    assert_eq!(room.fault(), None);
    (sent, room.fuel_used())
}
