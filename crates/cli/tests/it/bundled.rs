//! Serves every module in examples/rooms/wasm.

use super::{Server, bundled_path, repository};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use tokio_tungstenite::tungstenite::Message;

const ECHO: [&str; 11] = [
    "echo-assemblyscript",
    "echo-c",
    "echo-go",
    "echo-rust-0.2",
    "echo-rust-0.2-wasi",
    "echo-rust-0.4",
    "echo-rust-0.4-wasi",
    "echo-rust-no-std",
    "echo-rust-no-std-small-page",
    "echo-wat",
    "echo-zig",
];
const COUNTER: [&str; 3] = ["counter-c", "counter-rust-0.2", "counter-rust-0.4"];
const CHAT: [&str; 3] = ["chat-rust-0.2", "chat-rust-0.4", "chat-rust-small"];
const CLOCK: [&str; 4] = [
    "clock-assemblyscript",
    "clock-rust-0.2",
    "clock-rust-0.4",
    "clock-rust-small",
];
const CURSORS: [&str; 2] = ["cursors-rust-0.2", "cursors-rust-0.4"];
const DICE: [&str; 2] = ["dice-rust-0.2-wasi", "dice-rust-0.4-wasi"];
const FLOATS: [&str; 1] = ["floats-wat"];
const HOSTILE: [&str; 1] = ["hostile-rust-small"];

#[test]
fn every_bundled_room_is_tested() {
    let tested: BTreeSet<_> = [
        &ECHO[..],
        &COUNTER,
        &CHAT,
        &CLOCK,
        &CURSORS,
        &DICE,
        &FLOATS,
        &HOSTILE,
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect();
    let folder = bundled_path("x").parent().expect("a folder").to_owned();
    let built: BTreeSet<_> = modules(&folder).into_keys().collect();
    assert_eq!(tested, built);
}

#[test]
fn the_readme_lists_each_bundled_room_with_its_length() {
    let rooms = repository().join("examples/rooms");
    let readme = fs::read_to_string(rooms.join("README.md")).expect("cannot read it");
    let listed: BTreeMap<_, u64> = readme
        .lines()
        .filter_map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let name = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            Some((name.to_owned(), cells.get(5)?.parse().ok()?))
        })
        .collect();
    assert_eq!(listed, modules(&rooms.join("wasm")));
}

/// The names of the modules in a folder, and their lengths in bytes.
fn modules(folder: &Path) -> BTreeMap<String, u64> {
    fs::read_dir(folder)
        .expect("cannot read it")
        .map(|file| {
            let path = file.expect("a file").path();
            let name = path.file_stem().expect("a name").to_string_lossy();
            let length = fs::metadata(&path).expect("a file").len();
            (name.into_owned(), length)
        })
        .collect()
}

#[tokio::test]
async fn echo() {
    for name in ECHO {
        let server = Server::bundled(name, &["--workers", "1"]);
        let [mut a, mut b] = server.join_all("r").await;
        a.send("hällo").await;
        a.expect("hällo").await;
        a.send(Message::binary(vec![0, 200, 7])).await;
        assert_eq!(
            a.receive().await,
            Message::binary(vec![0, 200, 7]),
            "{name}"
        );
        // The other client received nothing.
        b.send("mine").await;
        b.expect("mine").await;
        // The SDK 0.2.9 panics on sending an empty message.
        if !name.starts_with("echo-rust-0.2") {
            a.send("").await;
            a.expect("").await;
        }
    }
}

#[tokio::test]
async fn counter() {
    for name in COUNTER {
        let server = Server::bundled(name, &["--workers", "1"]);
        let mut a = server.join("/r").await;
        a.expect("0").await;
        let mut b = server.join("/r").await;
        b.expect("0").await;
        for (text, count) in [
            ("+", "1"),
            (" - ", "0"),
            ("+41", "41"),
            ("-50", "-9"),
            ("=-5", "-5"),
            ("7", "7"),
        ] {
            a.send(text).await;
            a.expect(count).await;
            b.expect(count).await;
        }
        b.send("what?").await;
        b.expect("Say +, -, +N, -N or =N.").await;
        a.leave().await;
        server.join("/r").await.expect("7").await;
    }
}

#[tokio::test]
async fn chat() {
    for name in CHAT {
        let server = Server::bundled(name, &["--workers", "1"]);
        let mut a = server.join("/r").await;
        a.expect("Welcome, guest1. Commands: /nick NAME, /who.")
            .await;
        let mut b = server.join("/r").await;
        b.expect("Welcome, guest2. Commands: /nick NAME, /who.")
            .await;
        a.expect("guest2 joined.").await;
        a.send("/nick ada").await;
        for client in [&mut a, &mut b] {
            client.expect("guest1 is now ada.").await;
        }
        b.send("hello").await;
        for client in [&mut a, &mut b] {
            client.expect("guest2: hello").await;
        }
        b.send("/who").await;
        b.expect("Here: ada, guest2.").await;
        a.leave().await;
        b.expect("ada left.").await;
    }
}

#[tokio::test]
async fn clock() {
    let servers = CLOCK.map(|name| Server::bundled(name, &["--workers", "1"]));
    let mut clients = Vec::new();
    for server in &servers {
        clients.push(server.join("").await);
    }
    for client in &mut clients {
        client.expect("tick 1").await;
        client.expect("tick 2").await;
    }
}

#[tokio::test]
async fn cursors() {
    for name in CURSORS {
        let server = Server::bundled(name, &["--workers", "1"]);
        let [mut a, mut b] = server.join_all("r").await;
        a.send(Message::binary(vec![9, 8])).await;
        // The client id and the payload.
        let frame = Message::binary(vec![1, 0, 0, 0, 9, 8]);
        assert_eq!(b.receive().await, frame, "{name}");
        let mut late = server.join("/r").await;
        assert_eq!(late.receive().await, frame, "{name}");
        a.send("text").await;
        a.expect("This room is binary: send your position as 1 to 256 bytes.")
            .await;
        a.leave().await;
        assert_eq!(
            b.receive().await,
            Message::binary(vec![1, 0, 0, 0]),
            "{name}"
        );
    }
}

#[tokio::test]
async fn dice() {
    const HINT: &str = "Say for example 2d6: 1 to 100 dice of 2 to 1000 sides.";
    for name in DICE {
        let server = Server::bundled(name, &["--workers", "1"]);
        let [mut a, mut b] = server.join_all("r").await;
        a.expect(HINT).await;
        b.expect(HINT).await;
        a.send("2d6").await;
        let rolled = a.receive_text().await;
        b.expect(&rolled).await;
        let rest = rolled
            .strip_prefix("client 1 rolled 2d6: ")
            .unwrap_or_else(|| panic!("{name}: {rolled}"));
        let (dice, sum) = rest.split_once(" = ").expect("a sum");
        let dice: Vec<u32> = dice
            .split(" + ")
            .map(|die| die.parse().expect("a number"))
            .collect();
        assert!(
            dice.len() == 2 && dice.iter().all(|die| (1..=6).contains(die)),
            "{name}: {rolled}"
        );
        assert_eq!(sum, dice.iter().sum::<u32>().to_string());
        b.send("luck").await;
        b.expect(HINT).await;
    }
}

#[tokio::test]
async fn floats() {
    let server = Server::bundled(FLOATS[0], &["--workers", "1"]);
    let [mut a, mut b] = server.join_all("r").await;
    a.send("").await;
    let state = a.receive().await.into_data();
    assert_eq!(state[..8], 1.5_f64.to_le_bytes(), "the initial state");
    assert_eq!(b.receive().await.into_data(), state);
    a.send("b").await;
    // 98 is 14 times seven: a NaN, which is the canonical one.
    assert_eq!(
        a.receive().await.into_data()[36..],
        0x7fc0_0000_u32.to_le_bytes()
    );
}

#[tokio::test]
async fn hostile() {
    let server = Server::bundled(HOSTILE[0], &["--workers", "1"]);
    let mut a = server.join("/r").await;
    a.send("hello").await;
    a.expect("hello").await;
    a.send("grow").await;
    a.expect("refused").await;
    for evil in ["panic", "loop", "recurse", "wild", "flood"] {
        let mut victim = server.join(&format!("/{evil}")).await;
        victim.send(evil).await;
        assert_eq!(victim.closed().await.0, 1011, "{evil}");
    }
    a.send("still here").await;
    a.expect("still here").await;
}
