//! When rooms are closed, and what they start with.

use super::{Client, Server};
use crate::support::{ENV, guest_0_2};
use std::time::{Duration, Instant};

#[tokio::test]
async fn an_idle_room_is_closed_and_reopens_fresh() {
    let server = Server::bundled("counter-rust-0.4", &["--room-idle", "1"]);
    let mut client = server.join("/r").await;
    client.expect("0").await;
    client.send("+5").await;
    client.expect("5").await;
    client.leave().await;
    server
        .until_room("r", "the room is closed", |room| room.is_none())
        .await;
    server.join("/r").await.expect("0").await;
}

#[tokio::test]
async fn a_room_that_is_to_be_open_is_opened_at_the_start_and_kept() {
    let args = ["--room-idle", "0", "--open", "lobby", "--open="];
    let server = Server::bundled("counter-rust-0.4", &args);
    let is_open = |room: Option<&serde_json::Value>| room.is_some();
    for id in ["lobby", ""] {
        server.until_room(id, "the room is open", is_open).await;
    }
    let mut client = server.join("/lobby").await;
    client.expect("0").await;
    client.send("+5").await;
    client.expect("5").await;
    client.leave().await;
    // One that is closed when it has no clients.
    server.join("/other").await.leave().await;
    server
        .until_room("other", "the room is closed", |room| room.is_none())
        .await;
    let mut client = server.join("/lobby").await;
    client.expect("5").await;
    let address = server.address.clone();
    let closed = server.ask(&address, "POST", "/rooms/lobby/close", "").await;
    assert_eq!(closed.status, 200);
    assert_eq!(client.closed().await.0, 1001);
    let mut client = server.join("/lobby").await;
    client.expect("0").await;
}

/// Leaves `/kept` and joins it again within its idle timeout of one second; tries again where the
/// test was too slow for that. The room's counter is then 5.
async fn rejoin_in_time(server: &Server) -> Client {
    loop {
        let mut client = server.join("/kept").await;
        client.send("=5").await;
        while client.receive_text().await != "5" {}
        let left = Instant::now();
        client.leave().await;
        let mut client = server.join("/kept").await;
        match client.receive_text().await.as_str() {
            "5" => return client,
            text => assert_eq!(text, "0"),
        }
        let elapsed = left.elapsed();
        assert!(
            elapsed >= Duration::from_secs(1),
            "closed after {elapsed:?}"
        );
    }
}

#[tokio::test]
async fn a_room_with_a_client_is_not_idle() {
    let server = Server::bundled("counter-rust-0.4", &["--room-idle", "1"]);
    let mut client = rejoin_in_time(&server).await;
    // The timeout that started while the room was empty must be cancelled: another room that became
    // empty later is closed, this one is not.
    server.join("/later").await.leave().await;
    server
        .until_room("later", "the room is closed", |room| room.is_none())
        .await;
    client.send("+1").await;
    client.expect("6").await;
}

/// On each text, the guest sets its timer.
fn timer(millis: u32) -> String {
    let message = format!("(call $set_timer (i32.const {millis}))");
    guest_0_2(ENV, &[("message", &message)], "")
}

/// Empties a room whose timer is set, and then one without a timer.
async fn leave_both(server: &Server) {
    let mut client = server.join("/timer").await;
    client.send("set it").await;
    client.leave().await;
    server.join("/no-timer").await.leave().await;
}

#[tokio::test]
async fn a_timer_does_not_keep_an_empty_room() {
    let server = Server::guest(&timer(1_000_000), &["--room-idle", "1"]);
    leave_both(&server).await;
    server
        .until_room("timer", "the room is closed", |room| room.is_none())
        .await;
}

#[tokio::test]
async fn keep_timers_keeps_a_room_while_its_timer_is_set() {
    let server = Server::guest(&timer(1_000_000), &["--room-idle", "1", "--keep-timers"]);
    leave_both(&server).await;
    server
        .until_room("no-timer", "the room is closed", |room| room.is_none())
        .await;
    // It became empty earlier, and is still open.
    assert!(server.room("timer").await.is_some());

    // Once the timer has fired, the room is closed.
    let server = Server::guest(&timer(3_000), &["--room-idle", "1", "--keep-timers"]);
    let start = Instant::now();
    leave_both(&server).await;
    server
        .until_room("timer", "the room is closed", |room| room.is_none())
        .await;
    let elapsed = start.elapsed();
    assert!(
        elapsed >= Duration::from_secs(3),
        "closed after {elapsed:?}"
    );
}

#[tokio::test]
async fn keep_timers_keeps_a_room_that_is_in_the_middle_of_an_event() {
    let slow = "(local i32)
        (call $set_timer (i32.const 2000))
        (local.set 1 (i32.const 5000000))
        (loop (br_if 0 (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))";
    let guest = guest_0_2(ENV, &[("disconnect", slow)], "");
    let server = Server::guest(&guest, &["--room-idle", "0", "--keep-timers"]);
    let start = Instant::now();
    let client = server.join("/r").await;
    server
        .until_room("r", "the client has joined", |room| room.is_some())
        .await;
    client.leave().await;
    server
        .until_room("r", "the room is closed", |room| room.is_none())
        .await;
    let elapsed = start.elapsed();
    assert!(
        elapsed >= Duration::from_secs(2),
        "closed after {elapsed:?}"
    );
}

#[tokio::test]
async fn a_room_that_stops_its_timer_is_closed() {
    let server = Server::bundled("clock-rust-0.4", &["--room-idle", "1", "--keep-timers"]);
    let mut client = server.join("").await;
    client.expect("tick 1").await;
    client.expect("tick 2").await;
    client.leave().await;
    server
        .until_room("", "the room is closed", |room| room.is_none())
        .await;
}

#[tokio::test]
async fn with_room_idle_zero_a_room_closes_with_its_last_client() {
    let server = Server::bundled("counter-rust-0.4", &["--room-idle", "0"]);
    for _ in 0..3 {
        let mut client = server.join("/r").await;
        client.expect("0").await;
        client.send("+").await;
        client.expect("1").await;
        client.leave().await;
        server
            .until_room("r", "the room is closed", |room| room.is_none())
            .await;
    }
}

#[tokio::test]
async fn the_same_seed_gives_the_same_dice() {
    let mut rolls = Vec::new();
    for seed in ["7", "7", "8"] {
        let server = Server::bundled("dice-rust-0.4-wasi", &["--seed", seed, "--workers", "1"]);
        let mut client = server.join("").await;
        client
            .expect("Say for example 2d6: 1 to 100 dice of 2 to 1000 sides.")
            .await;
        client.send("20d1000").await;
        rolls.push(client.receive_text().await);
    }
    assert_eq!(rolls[0], rolls[1]);
    assert_ne!(rolls[0], rolls[2]);
}

#[tokio::test]
async fn a_connection_gets_nothing_that_was_sent_to_the_one_it_replaced() {
    let say = |at: u32, len: u32| {
        format!("(call $send_message (i32.const 0) (i32.const {at}) (i32.const {len}))")
    };
    // Both connections arrive while the room is initialised.
    let slow = "(local i32)
        (local.set 2 (i32.const 5000000))
        (loop (br_if 0 (local.tee 2 (i32.sub (local.get 2) (i32.const 1)))))";
    let exports = [
        ("initialize", slow),
        ("connect", &say(64, 5)),
        ("disconnect", &say(69, 3)),
        ("message", &say(72, 3)),
    ];
    let guest = guest_0_2(ENV, &exports, r#"(data (i32.const 64) "hellobyeend")"#);
    let server = Server::guest(&guest, &[]);
    let mut older = server.join("/r?token=t").await;
    let mut newer = server.join("/r?token=t").await;
    assert_eq!(older.closed().await.0, 1008);
    newer.expect("hello").await;
    newer.send("x").await;
    newer.expect("end").await;
}
