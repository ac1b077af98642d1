//! The log: what it tells an operator, and when standard error is not read, read late, or closed.
#![cfg(unix)]

use super::{Client, Server, TempDir, bundled_path, eventually, tool};
use crate::support::{ENV, guest_0_2};
use std::{io::Read, process::Command, sync::Arc, time::Duration};
use tokio::time::sleep;

/// Lines that the guest prints at each text, before it sends the text back.
const LINES: usize = 1000;

/// More than the log's queue and a pipe hold: 8 MB of lines.
const TEXTS: usize = 60;

/// A guest that prints [`LINES`] lines at each text, and then sends it back.
fn printer() -> String {
    let line = format!("{}\\n", "x".repeat(99));
    let message = format!(
        "(local $n i32)
        (i32.store (i32.const 32) (i32.const 1024)) (i32.store (i32.const 36) (i32.const 100))
        (loop $again
            (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (local.get $n) (i32.const {LINES}))))
        (call $send_message (local.get 0) (local.get 1) (local.get 2))"
    );
    let fd_write = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $fd_write (param i32 i32 i32 i32) (result i32)))"#;
    let more = format!(r#"(data (i32.const 1024) "{line}")"#);
    guest_0_2(
        &format!("{ENV}{fd_write}"),
        &[("message", &message), ("binary", "")],
        &more,
    )
}

/// A server of [`printer`] whose standard error is a pipe that is not read yet.
fn unread() -> Server {
    let folder = TempDir::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
    command
        .arg("serve")
        .arg(folder.write("printer.wat", printer()))
        // One worker: the worst case.
        .args(["--workers", "1"])
        .args(["--max-log-bytes-per-event", "1000000000"])
        .args(["--max-log-bytes-per-second", "1000000000"])
        .env("RUST_LOG", "info");
    let mut server = Server::spawn(command);
    server.folder = Some(folder);
    assert!(server.has_address(), "the server does not start");
    server
}

/// Has a room print [`LINES`] lines, and waits until it has. The server may send pings all the while.
async fn print(client: &mut Client) {
    client.send("print").await;
    eventually("the room has printed", client.expect("print")).await;
}

/// Prints more than fits anywhere.
async fn print_too_much(server: &Server) {
    let mut client = server.join("/loud").await;
    for _ in 0..TEXTS {
        print(&mut client).await;
    }
    client.leave().await;
}

/// Waits until the log of a process that has exited is read to its end.
async fn until_log_ends(server: &Server) {
    eventually("the log ends", async {
        while Arc::strong_count(&server.log) > 1 {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

fn count(log: &str, what: &str) -> usize {
    log.lines().filter(|line| line.contains(what)).count()
}

/// The lines of the guest in a log.
fn printed(log: &str) -> usize {
    count(log, &"x".repeat(99))
}

/// The numbers of lost lines that the log tells.
fn lost(log: &str) -> usize {
    log.lines()
        .filter_map(|line| {
            let (number, _) = line.split_once(" lines of the log were lost: ")?;
            number.parse::<usize>().ok()
        })
        .sum()
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing() {
    let mut server = unread();
    let mut other = server.join("/other").await;
    print_too_much(&server).await;
    for _ in 0..10 {
        print(&mut other).await;
    }
    assert_eq!(server.get("/status").await.body, "ok");
    server.signal("-TERM");
    let (code, _) = other.closed().await;
    assert_eq!(code, 1001);
    assert!(server.exited().await.success());
    // Otherwise nothing would have been in the way.
    let mut log = String::new();
    let mut stderr = server.process.stderr.take().expect("it is piped");
    stderr.read_to_string(&mut log).expect("it is text");
    let printed = printed(&log);
    assert!(
        0 < printed && printed < LINES,
        "{printed} lines were in the pipe"
    );
}

#[tokio::test]
async fn a_log_that_is_read_late_says_how_many_lines_are_lost() {
    let mut server = unread();
    print_too_much(&server).await;
    server.read_log();
    server.until_logged(" lines of the log were lost: ").await;
    // With space again, nothing is lost.
    let mut client = server.join("/later").await;
    print(&mut client).await;
    server.signal("-TERM");
    assert!(server.exited().await.success());
    until_log_ends(&server).await;
    let log = server.log.lock().expect("not poisoned");
    let (printed, lost) = (printed(&log), lost(&log));
    assert!(printed > 2 * LINES, "{printed} lines");
    assert_eq!(count(&log, "room \"later\": "), LINES);
    assert!(lost > 0);
    // The server's own lines are few, and may be lost as well.
    let (all, expected) = (printed + lost, (TEXTS + 1) * LINES);
    assert!(
        (expected..expected + 10).contains(&all),
        "{printed}, {lost}"
    );
}

#[tokio::test]
async fn what_is_queued_is_written_before_the_process_ends() {
    let mut server = unread();
    let mut client = server.join("/r").await;
    // More than a pipe holds, and less than the queue.
    for _ in 0..3 {
        print(&mut client).await;
    }
    server.signal("-TERM");
    server.read_log();
    assert!(server.exited().await.success());
    until_log_ends(&server).await;
    let log = server.log.lock().expect("not poisoned");
    assert_eq!((printed(&log), lost(&log)), (3 * LINES, 0));
}

#[tokio::test]
async fn a_log_that_is_closed_stops_nothing() {
    let mut server = unread();
    drop(server.process.stderr.take());
    print_too_much(&server).await;
    assert_eq!(server.get("/status").await.body, "ok");
    server.signal("-TERM");
    assert!(server.exited().await.success());
}

#[test]
fn the_error_that_ends_the_process_is_json_if_the_log_is() {
    let folder = TempDir::new();
    let module = folder.write("a \u{1b}.wasm", "no module");
    for command in ["serve", "dev"] {
        let mut path = module.as_path();
        if command == "dev" {
            path = &folder.0;
        }
        let path = path.to_str().expect("a path");
        let output = tool(&[command, path, "--port", "0", "--log-format", "json"]);
        assert!(!output.status.success());
        let log = String::from_utf8(output.stderr).expect("text");
        let lines = log.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            line["level"].as_str().expect("a level").to_owned()
        });
        assert_eq!(lines.collect::<Vec<_>>(), ["ERROR"], "{log}");
    }
}

#[tokio::test]
async fn the_log_tells_an_operator_what_happened_in_sums() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stateroom-wasmi"));
    // The default level.
    command
        .env_remove("RUST_LOG")
        .env("RUST_LOG_STYLE", "never");
    let args = ["--workers", "1", "--max-message-bytes", "100"];
    let mut server = Server::run(command, &bundled_path("echo-c"), &args);
    let mut long = server.join("").await;
    long.send("x".repeat(101)).await;
    assert_eq!(long.closed().await.0, 1009);
    let mut left = server.join("").await;
    left.send("hello").await;
    left.expect("hello").await;
    left.leave().await;
    let mut stays = server.join("").await;
    stays.send("hello").await;
    stays.expect("hello").await;
    server
        .until_room("", "the others have left", |room| {
            room.is_some_and(|room| room["clients"] == 1)
        })
        .await;
    server.signal("-TERM");
    assert_eq!(stays.closed().await.0, 1001);
    assert!(server.exited().await.success());
    server.until_logged("stopped").await;
    let log = server.log.lock().expect("not poisoned").clone();
    let serving = format!("serving echo-c.wasm (ABI 0.2) on {}", server.address);
    let counts = "worker 0: 3 clients joined, 1 left, closed 1 with 1001, 1 with 1009";
    for line in [&*serving, "stopping", counts] {
        assert!(log.contains(line), "{line}: {log}");
    }
}
