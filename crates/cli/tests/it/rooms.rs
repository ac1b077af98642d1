//! When rooms are closed.

use super::Server;
use crate::support::{ENV, guest_0_2};

#[tokio::test]
async fn an_empty_room_is_closed_and_begins_anew() {
    let server = Server::bundled("counter-rust-0.4", &["--room-idle", "1"]);
    let mut client = server.join("/r").await;
    client.expect("0").await;
    client.say("+5").await;
    client.expect("5").await;
    client.leave().await;
    // Whoever comes back in time finds it as it was.
    let mut client = server.join("/r").await;
    client.expect("5").await;
    client.leave().await;
    server
        .until_room("r", "the room is closed", |room| room.is_none())
        .await;
    server.join("/r").await.expect("0").await;
}

#[tokio::test]
async fn a_room_with_a_client_is_not_idle() {
    let server = Server::bundled("counter-rust-0.4", &["--room-idle", "1"]);
    let mut client = server.join("/kept").await;
    client.say("+5").await;
    // It was empty once, and another that was empty later has been closed meanwhile.
    client.leave().await;
    let mut client = server.join("/kept").await;
    client.expect("5").await;
    server.join("/later").await.leave().await;
    server
        .until_room("later", "the room is closed", |room| room.is_none())
        .await;
    client.say("+1").await;
    client.expect("6").await;
}

/// A guest that sets its timer to this many milliseconds on each text.
fn timer(millis: u32) -> String {
    let message = format!("(call $set_timer (i32.const {millis}))");
    guest_0_2(ENV, &[("message", &message)], "")
}

/// Lets a room with a timer become empty, and then one without.
async fn leave_both(server: &Server) {
    let mut client = server.join("/timer").await;
    client.say("set it").await;
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
    let server = Server::guest(&timer(4_000), &["--room-idle", "1", "--keep-timers"]);
    leave_both(&server).await;
    server
        .until_room("no-timer", "the room is closed", |room| room.is_none())
        .await;
    // It was empty earlier, and is still there.
    assert!(server.room("timer").await.is_some());
    // Once the timer has run off, it is like any other.
    server
        .until_room("timer", "the room is closed", |room| room.is_none())
        .await;
}

#[tokio::test]
async fn the_clock_stops_when_nobody_watches() {
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
async fn with_an_idle_time_of_zero_a_room_goes_with_its_last_client() {
    let server = Server::bundled("counter-rust-0.4", &["--room-idle", "0"]);
    for _ in 0..3 {
        let mut client = server.join("/r").await;
        client.expect("0").await;
        client.say("+").await;
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
        client.say("20d1000").await;
        rolls.push(client.hear_text().await);
    }
    assert_eq!(rolls[0], rolls[1]);
    assert_ne!(rolls[0], rolls[2]);
}
