//! Every module in examples/rooms/wasm is served and answers as its source says.

use super::{Server, bundled_path};
use std::{collections::BTreeSet, fs};
use tokio_tungstenite::tungstenite::Message;

/// All of them; that none is missing is a test, too.
const ECHO: [&str; 9] = [
    "echo-assemblyscript",
    "echo-c",
    "echo-rust-0.2",
    "echo-rust-0.2-wasi",
    "echo-rust-0.4",
    "echo-rust-0.4-wasi",
    "echo-rust-no-std",
    "echo-rust-no-std-small-page",
    "echo-wat",
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
fn none_is_missing_here() {
    let here: BTreeSet<_> = [
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
    let there: BTreeSet<_> = fs::read_dir(folder)
        .expect("it is there")
        .map(|file| {
            file.expect("a file")
                .path()
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(here, there);
}

#[tokio::test]
async fn echo() {
    for name in ECHO {
        let server = Server::bundled(name, &["--workers", "1"]);
        let [mut a, mut b] = server.join_all("r").await;
        a.say("hällo").await;
        a.expect("hällo").await;
        a.say(Message::binary(vec![0, 200, 7])).await;
        assert_eq!(a.hear().await, Message::binary(vec![0, 200, 7]), "{name}");
        // It went to nobody else.
        b.say("mine").await;
        b.expect("mine").await;
        // The SDK 0.2.9 panics when it is asked to send nothing.
        if !name.starts_with("echo-rust-0.2") {
            a.say("").await;
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
        for (said, count) in [
            ("+", "1"),
            (" - ", "0"),
            ("+41", "41"),
            ("-50", "-9"),
            ("=-5", "-5"),
            ("7", "7"),
        ] {
            a.say(said).await;
            a.expect(count).await;
            b.expect(count).await;
        }
        b.say("what?").await;
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
        a.say("/nick ada").await;
        for client in [&mut a, &mut b] {
            client.expect("guest1 is now ada.").await;
        }
        b.say("hello").await;
        for client in [&mut a, &mut b] {
            client.expect("guest2: hello").await;
        }
        b.say("/who").await;
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
        a.say(Message::binary(vec![9, 8])).await;
        // The id, and what was sent.
        let frame = Message::binary(vec![1, 0, 0, 0, 9, 8]);
        assert_eq!(b.hear().await, frame, "{name}");
        let mut late = server.join("/r").await;
        assert_eq!(late.hear().await, frame, "{name}");
        a.say("text").await;
        a.expect("This room is binary: send your position as 1 to 256 bytes.")
            .await;
        a.leave().await;
        assert_eq!(b.hear().await, Message::binary(vec![1, 0, 0, 0]), "{name}");
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
        a.say("2d6").await;
        let rolled = a.hear_text().await;
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
        b.say("luck").await;
        b.expect(HINT).await;
    }
}

#[tokio::test]
async fn floats() {
    let server = Server::bundled(FLOATS[0], &["--workers", "1"]);
    let [mut a, mut b] = server.join_all("r").await;
    a.say("").await;
    let state = a.hear().await.into_data();
    assert_eq!(state[..8], 1.5_f64.to_le_bytes(), "nothing has stirred it");
    assert_eq!(b.hear().await.into_data(), state);
    a.say("b").await;
    // 98 is 14 times seven: a NaN, which is the canonical one.
    assert_eq!(
        a.hear().await.into_data()[36..],
        0x7fc0_0000_u32.to_le_bytes()
    );
}

#[tokio::test]
async fn hostile() {
    let server = Server::bundled(HOSTILE[0], &["--workers", "1"]);
    let mut a = server.join("/r").await;
    a.say("hello").await;
    a.expect("hello").await;
    a.say("grow").await;
    a.expect("refused").await;
    for evil in ["panic", "loop", "recurse", "wild", "flood"] {
        let mut victim = server.join(&format!("/{evil}")).await;
        victim.say(evil).await;
        assert_eq!(victim.closed().await.0, 1011, "{evil}");
    }
    a.say("still here").await;
    a.expect("still here").await;
}
