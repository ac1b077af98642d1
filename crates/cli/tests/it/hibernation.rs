//! Rooms that give up their guests while nothing happens.

use super::{Server, tool};
use crate::support::{ENV, guest_0_2};
use std::time::Duration;

/// A guest that replies to each text with how many it had; a text that begins with a `t` sets a timer of
/// two seconds, which replies with `!`. It fails at bytes, after it has counted them.
fn counter() -> String {
    let message = r#"
        (if (i32.eq (i32.load8_u (local.get 1)) (i32.const 116))
            (then (call $set_timer (i32.const 2000))))
        (global.set $texts (i32.add (global.get $texts) (i32.const 1)))
        (i32.store8 (i32.const 16) (i32.add (i32.const 48) (global.get $texts)))
        (call $send_message (i32.const 0) (i32.const 16) (i32.const 1))"#;
    let timer = "(call $send_message (i32.const 0) (i32.const 32) (i32.const 1))";
    let more = r#"(global $texts (mut i32) (i32.const 0)) (data (i32.const 32) "!")"#;
    let fails = "(global.set $texts (i32.const 9)) (unreachable)";
    let exports = [("message", message), ("timer", timer), ("binary", fails)];
    guest_0_2(ENV, &exports, more)
}

/// Waits until the room hibernates; returns what `/rooms` says of it.
async fn hibernates(server: &Server) -> serde_json::Value {
    loop {
        let room = server.room("r").await.expect("the room is open");
        if room["state"] == "hibernating" {
            return room;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_idle_room_hibernates_and_its_clients_notice_nothing() {
    let server = Server::guest(&counter(), &["--hibernate-after", "1"]);
    let mut client = server.join("/r").await;
    for count in ["1", "2"] {
        client.send("count").await;
        client.expect(count).await;
        let room = hibernates(&server).await;
        assert_eq!(room["memory_bytes"], 0);
        assert_eq!(room["clients"], 1);
        assert!(
            room["hibernated_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes < 1000),
            "{room}"
        );
    }
    client.send("count").await;
    client.expect("3").await;
    let room = server.room("r").await.expect("the room is open");
    assert_eq!(room["memory_bytes"], 65536);
    assert_eq!(room["hibernated_bytes"], 0);
}

#[tokio::test]
async fn a_timer_wakes_a_room() {
    let server = Server::guest(&counter(), &["--hibernate-after", "1"]);
    let mut client = server.join("/r").await;
    client.send("timer").await;
    client.expect("1").await;
    client.expect("!").await;
    hibernates(&server).await;
    // So does a client that joins, and one that leaves.
    let second = server.join("/r").await;
    drop(second);
    client.send("count").await;
    client.expect("2").await;
}

#[tokio::test]
async fn a_room_that_hibernated_can_undo_its_next_event() {
    let args = ["--hibernate-after", "1", "--on-fault", "rollback"];
    let server = Server::guest(&counter(), &args);
    let mut client = server.join("/r").await;
    client.send("count").await;
    client.expect("1").await;
    hibernates(&server).await;
    client.send(b"fail".to_vec()).await;
    client.send("count").await;
    client.expect("2").await;
    let room = server.room("r").await.expect("the room is open");
    assert_eq!(room["faults"], 1);
}

#[test]
fn a_module_whose_state_cannot_be_saved_is_refused() {
    let text = guest_0_2(
        "",
        &[("timer", "(table.set $t (i32.const 0) (ref.null func))")],
        "(table $t 1 funcref)",
    );
    let folder = super::TempDir::new();
    let path = folder.write("tables.wat", text);
    let path = path.to_str().expect("UTF-8");
    let hibernate = ["--hibernate-after", "5"];
    let served = tool(&[&["serve", path, "--port", "0"][..], &hibernate].concat());
    let checked = tool(&[&["check", path][..], &hibernate].concat());
    for output in [served, checked] {
        assert!(!output.status.success());
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8_lossy(&printed);
        assert!(
            printed.contains("cannot be saved or rolled back, since it uses table.set"),
            "{printed}"
        );
    }
}
