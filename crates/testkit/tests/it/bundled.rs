//! Every bundled room, by the scripts in examples/rooms/tests and by tests in Rust: examples of both.

use super::{bundled_module, repository, rooms, support::assemble};
use stateroom_wasmi_testkit::{TestOptions, TestRoom, assert_script};
use std::{collections::BTreeSet, fs, time::Duration};

/// Each script, and the modules that it is played with: those whose names begin so, without some.
const SCRIPTS: [(&str, &str, &[&str]); 13] = [
    ("chat", "chat-", &[]),
    ("chat-limits", "chat-", &["chat-rust-small"]),
    ("chat-rust-small", "chat-rust-small", &[]),
    ("clock", "clock-", &[]),
    ("counter", "counter-", &[]),
    ("cursors", "cursors-", &[]),
    ("dice", "dice-", &[]),
    ("echo", "echo-", &[]),
    (
        "echo-empty",
        "echo-",
        &["echo-rust-0.2", "echo-rust-0.2-wasi"],
    ),
    ("echo-rust-0.2", "echo-rust-0.2", &[]),
    ("floats", "floats-", &[]),
    ("hostile", "hostile-", &[]),
    ("hostile-close", "hostile-", &[]),
];

#[test]
fn every_bundled_room_does_what_its_scripts_say() {
    let mut untested: BTreeSet<_> = modules().map(|(name, _)| name).collect();
    for (name, wasm) in modules() {
        for (script, prefix, without) in SCRIPTS {
            if name.starts_with(prefix) && !without.contains(&name.as_str()) {
                println!("{name}: {script}.test");
                assert_script(script_path(script), &wasm);
                untested.remove(&name);
            }
        }
    }
    assert_eq!(untested, BTreeSet::new());
}

#[test]
fn every_script_of_the_bundled_rooms_is_played() {
    let folder = fs::read_dir(repository().join("examples/rooms/tests")).expect("a folder");
    let found: BTreeSet<_> = folder.map(|file| file.expect("a file").path()).collect();
    let played: BTreeSet<_> = SCRIPTS.iter().map(|(name, ..)| script_path(name)).collect();
    assert_eq!(found, played);
}

#[test]
fn dice_are_rolled_for_all_to_see() {
    for module in ["dice-rust-0.2-wasi", "dice-rust-0.4-wasi"] {
        let wasm = bundled_module(module);
        let roll = |seed| {
            let mut room = TestRoom::open_with(&wasm, &TestOptions::new().seed(seed));
            for client in [1, 2] {
                room.connect(client);
                room.expect(
                    client,
                    "Say for example 2d6: 1 to 100 dice of 2 to 1000 sides.",
                );
            }
            room.send(1, " 20D6 ");
            let rolled = room.receive(1).expect("a roll").text().to_owned();
            room.expect(2, rolled.as_str());
            room.expect_nothing();
            rolled
        };
        let rolled = roll(7);
        let (dice, sum) = rolled
            .strip_prefix("client 1 rolled 20d6: ")
            .and_then(|rest| rest.split_once(" = "))
            .expect("dice and their sum");
        let dice: Vec<u32> = dice
            .split(" + ")
            .map(|die| die.parse().expect("a die"))
            .collect();
        assert_eq!(dice.len(), 20);
        assert!(dice.iter().all(|die| (1..=6).contains(die)), "{rolled}");
        assert_eq!(sum, dice.iter().sum::<u32>().to_string());
        assert_eq!(roll(7), rolled, "the same seed");
        assert_ne!(roll(8), rolled, "another seed");
    }
}

#[test]
fn a_clock_ticks_while_somebody_watches() {
    for (name, wasm) in modules().filter(|(name, _)| name.starts_with("clock-")) {
        println!("{name}");
        let mut room = TestRoom::open(&wasm);
        room.connect(1);
        room.advance(Duration::from_secs(60));
        for second in 1..=60 {
            let tick = room.receive(1).expect("a tick");
            assert_eq!(tick.at.as_millis(), second * 1000);
            assert_eq!(tick.text(), format!("tick {second}"));
        }
        room.expect_nothing();
    }
}

/// The names and contents of the bundled modules, with those that are kept as text.
fn modules() -> impl Iterator<Item = (String, Vec<u8>)> {
    let wasm = fs::read_dir(rooms()).expect("a folder");
    let text = fs::read_dir(repository().join("examples/rooms/wat")).expect("a folder");
    wasm.chain(text).map(|file| {
        let path = file.expect("a file").path();
        let stem = path.file_stem().expect("a name").to_string_lossy();
        let bytes = fs::read(&path).expect("a readable file");
        match path.extension().is_some_and(|extension| extension == "wat") {
            true => (
                format!("{stem}-text"),
                assemble(&String::from_utf8(bytes).expect("UTF-8")),
            ),
            false => (stem.into_owned(), bytes),
        }
    })
}

fn script_path(name: &str) -> std::path::PathBuf {
    repository().join(format!("examples/rooms/tests/{name}.test"))
}
