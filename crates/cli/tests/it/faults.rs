//! Fault policies: the flags, `/rooms`, and the close code.

use super::{Server, tool};
use crate::support::{ENV, guest_0_2};

/// A guest that sends `hello` on a connect and the number of texts on each text; on a text of three
/// bytes it sends `lost` and fails.
fn counter() -> String {
    let message = r#"
        (if (i32.eq (local.get 2) (i32.const 3))
            (then (call $send_message (i32.const 0) (i32.const 32) (i32.const 4)) (unreachable)))
        (global.set $texts (i32.add (global.get $texts) (i32.const 1)))
        (i32.store8 (i32.const 16) (i32.add (i32.const 48) (global.get $texts)))
        (call $send_message (i32.const 0) (i32.const 16) (i32.const 1))"#;
    let connect = "(call $send_message (i32.const 0) (i32.const 48) (i32.const 5))";
    let more = r#"(global $texts (mut i32) (i32.const 0)) (data (i32.const 32) "lost") (data (i32.const 48) "hello")"#;
    guest_0_2(ENV, &[("message", message), ("connect", connect)], more)
}

#[tokio::test]
async fn by_default_the_room_closes() {
    let server = Server::guest(&counter(), &[]);
    let mut client = server.join("/r").await;
    client.expect("hello").await;
    client.send("bad").await;
    client.expect("lost").await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011);
    assert!(
        reason.contains("`message`") && !reason.contains("after"),
        "{reason}"
    );
    // It is gone, and why can still be asked.
    let list = server.get("/rooms").await.body;
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["rooms"], serde_json::json!([]));
    assert_eq!(list["failed"][0]["id"], "r");
    assert_eq!(list["failed"][0]["fault"], reason);
    // A new room of that id is another.
    let mut client = server.join("/r").await;
    client.expect("hello").await;
    assert_eq!(server.room("r").await.expect("it is open")["faults"], 0);
}

#[tokio::test]
async fn a_restarted_room_keeps_its_clients() {
    let args = [
        "--on-fault",
        "restart",
        "--restart-wait",
        "10",
        "--restart-longest",
        "3600",
        "--restarts",
        "2",
    ];
    let server = Server::guest(&counter(), &args);
    let mut client = server.join("/r").await;
    client.expect("hello").await;
    for _ in 0..2 {
        client.send("count").await;
        client.expect("1").await;
        client.send("bad").await;
        client.expect("lost").await;
        client.expect("hello").await;
    }
    let room = server.room("r").await.expect("the room is open");
    assert_eq!(
        (room["on_fault"].as_str(), room["faults"].as_u64()),
        (Some("restart"), Some(2))
    );
    assert!(
        room["last_fault"]
            .as_str()
            .is_some_and(|fault| fault.contains("`message`")),
        "{room}"
    );
    client.send("bad").await;
    client.expect("lost").await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, 1011);
    assert!(reason.starts_with("after 3 faults: "), "{reason}");
}

#[tokio::test]
async fn a_room_that_waits_for_its_restart_is_listed_as_restarting() {
    let server = Server::guest(
        &counter(),
        &[
            "--on-fault",
            "restart",
            "--restart-wait",
            "3600000",
            "--restart-longest",
            "3600",
        ],
    );
    let mut client = server.join("/r").await;
    client.expect("hello").await;
    client.send("bad").await;
    client.expect("lost").await;
    server
        .until_room("r", "it is restarting", |room| {
            room.is_some_and(|room| room["state"] == "restarting")
        })
        .await;
}

#[tokio::test]
async fn a_room_that_continues_keeps_what_the_faulty_event_did() {
    let server = Server::guest(&counter(), &["--on-fault", "continue"]);
    let mut client = server.join("/r").await;
    client.expect("hello").await;
    for n in 1..=9 {
        client.send("bad").await;
        client.expect("lost").await;
        client.send("count").await;
        client.expect(&n.to_string()).await;
    }
    let room = server.room("r").await.expect("the room is open");
    assert_eq!(
        (room["on_fault"].as_str(), room["faults"].as_u64()),
        (Some("continue"), Some(9))
    );
    assert!(
        room["last_fault"]
            .as_str()
            .is_some_and(|fault| fault.contains("`message`")),
        "{room}"
    );
}

#[tokio::test]
async fn rollback_undoes_the_faulty_event() {
    let server = Server::guest(&counter(), &["--on-fault", "rollback"]);
    let mut client = server.join("/r").await;
    client.expect("hello").await;
    for n in 1..=9 {
        client.send("bad").await;
        client.send("count").await;
        client.expect(&n.to_string()).await;
    }
    let room = server.room("r").await.expect("the room is open");
    assert_eq!(
        (room["on_fault"].as_str(), room["faults"].as_u64()),
        (Some("rollback"), Some(9))
    );
}

#[tokio::test]
async fn rollback_is_rejected_for_a_module_with_hidden_state() {
    let text = guest_0_2(
        "",
        &[("timer", "(table.set $t (i32.const 0) (ref.null func))")],
        "(table $t 1 funcref)",
    );
    let folder = super::TempDir::new();
    let path = folder.write("tables.wat", text);
    let path = path.to_str().expect("UTF-8");
    let served = tool(&["serve", path, "--port", "0", "--on-fault", "rollback"]);
    assert!(!served.status.success());
    let printed = String::from_utf8_lossy(&served.stderr);
    assert!(
        printed.contains("cannot be saved or rolled back, since it uses table.set"),
        "{printed}"
    );

    let checked = tool(&["check", path]);
    assert!(checked.status.success());
    let printed = String::from_utf8_lossy(&checked.stdout);
    assert!(
        printed.contains("rollback  the module's rooms cannot be saved or rolled back"),
        "{printed}"
    );
}
